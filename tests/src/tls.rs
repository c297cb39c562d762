use std::{fs, io, os::unix::fs::symlink, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

/// A self-signed certificate for 127.0.0.1.
#[derive(Debug)]
pub struct TestCertificate {
    der: CertificateDer<'static>,
    cert_pem: String,
    key_pem: String,
}

impl TestCertificate {
    /// A new one.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self::of(&certificate, &key)
    }

    fn of(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            der: certificate.der().clone(),
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// The certificate in PEM.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Its private key in PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The files `tls.crt` and `tls.key` of a [`MountedSecret`].
    pub fn files(&self) -> [(&'static str, &str); 2] {
        [("tls.crt", &self.cert_pem), ("tls.key", &self.key_pem)]
    }

    /// The same, and `ca.crt` with the CA certificates to trust.
    pub fn files_trusting<'a>(&'a self, ca: &'a str) -> [(&'static str, &'a str); 3] {
        let [certificate, key] = self.files();
        [certificate, key, ("ca.crt", ca)]
    }

    /// A TLS acceptor with this certificate.
    pub fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A TLS connection to `host:port`, which must present this certificate.
    pub async fn connect(&self, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(trusting([self])))
            .connect(ServerName::try_from("127.0.0.1").unwrap(), stream)
            .await
    }
}

impl Default for TestCertificate {
    fn default() -> Self {
        Self::new()
    }
}

/// A certificate authority.
pub struct TestAuthority(CertifiedIssuer<'static, KeyPair>);

impl TestAuthority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// The CA certificate in PEM.
    pub fn pem(&self) -> String {
        self.0.as_ref().pem()
    }

    /// Issues a certificate for 127.0.0.1.
    pub fn certificate(&self) -> TestCertificate {
        self.certificate_for("127.0.0.1")
    }

    /// Issues a certificate for this name.
    pub fn certificate_for(&self, name: &str) -> TestCertificate {
        self.issue(name, |_| {})
    }

    /// Issues a certificate for 127.0.0.1 that has expired on 2021-03-04.
    pub fn expired_certificate(&self) -> TestCertificate {
        self.issue("127.0.0.1", |params| {
            params.not_after = date_time_ymd(2021, 3, 4);
        })
    }

    /// Issues a certificate for 127.0.0.1 that is valid from 2090-01-01.
    pub fn early_certificate(&self) -> TestCertificate {
        self.issue("127.0.0.1", |params| {
            params.not_before = date_time_ymd(2090, 1, 1);
        })
    }

    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> TestCertificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        TestCertificate::of(&params.signed_by(&key, &self.0).unwrap(), &key)
    }
}

impl Default for TestAuthority {
    fn default() -> Self {
        Self::new()
    }
}

/// A client configuration that trusts any of `certificates`.
pub(crate) fn trusting<'a>(
    certificates: impl IntoIterator<Item = &'a TestCertificate>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.der.clone()).unwrap();
    }
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Files as Kubernetes mounts a Secret: each is a link through `..data`, which is replaced atomically.
#[derive(Debug)]
pub struct MountedSecret {
    dir: TempDir,
    version: usize,
}

impl MountedSecret {
    /// A Secret with these files, by name and content.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let mut secret = Self {
            dir: TempDir::new().expect("a temporary directory"),
            version: 0,
        };
        secret.replace(files);
        for (name, _) in files {
            symlink(format!("..data/{name}"), secret.path(name)).unwrap();
        }
        secret
    }

    /// The path of `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same, for a setting.
    pub fn setting(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Replaces all files atomically.
    pub fn replace(&mut self, files: &[(&str, &str)]) {
        self.version += 1;
        let version = format!("..version{}", self.version);
        fs::create_dir(self.path(&version)).unwrap();
        for (name, content) in files {
            fs::write(self.path(&version).join(name), content).unwrap();
        }
        symlink(&version, self.path("..new")).unwrap();
        fs::rename(self.path("..new"), self.path("..data")).unwrap();
    }
}
