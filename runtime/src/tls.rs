use std::{path::PathBuf, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_name},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::SingleCertAndKey,
};

use crate::{
    CertificateError, FileWatches, LastGood,
    certificates::{authorities, certified_key},
    expiry::CertificateFile,
    watch::Certificates,
};

/// A file, and the setting that names it.
#[derive(Clone, Debug)]
pub struct NamedFile {
    /// The setting, for log, metrics and errors.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
}

/// The TLS configuration of a listener, and what certificates were read for it.
#[derive(Debug)]
pub struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
    certificates: Vec<CertificateFile>,
    client_cas: Vec<TrustAnchor<'static>>,
}

impl Certificates for ServerTls {
    fn certificates(&self) -> &[CertificateFile] {
        &self.certificates
    }
}

impl ServerTls {
    /// The settings of the certificate, and of the CA certificates for clients.
    pub(crate) fn settings(&self) -> (&'static str, Option<&'static str>) {
        let mut settings = self.certificates.iter().map(|file| file.setting);
        (settings.next().unwrap_or_default(), settings.next())
    }

    /// Whether it accepts the certificates of all CAs for clients that `earlier` accepted.
    pub(crate) fn has_client_cas_of(&self, earlier: &Self) -> bool {
        let mut cas = earlier.client_cas.iter();
        cas.all(|ca| self.client_cas.contains(ca))
    }
}

/// The TLS files of a listener.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate chain. Its setting also represents all of the files in logs and metrics.
    pub cert: NamedFile,
    /// Its private key.
    pub key: PathBuf,
    /// The CA certificates for client certificates; without them, clients need no certificate.
    pub client_ca: Option<NamedFile>,
    /// The names (SANs) of which a client certificate must have one; empty accepts any.
    pub client_names: Vec<ServerName<'static>>,
    /// The ALPN protocols, in order of preference.
    pub alpn: &'static [&'static [u8]],
}

impl TlsFiles {
    /// Reads them, and has `watches` reload them when they change.
    ///
    /// # Errors
    /// If they cannot be used.
    pub async fn watch(
        self,
        watches: &mut FileWatches,
    ) -> Result<LastGood<ServerTls>, CertificateError> {
        let setting = self.cert.setting;
        let ca = self.client_ca.iter().map(|ca| &ca.path);
        let files = [&self.cert.path, &self.key].into_iter().chain(ca);
        let files = files.cloned().collect();
        let read = move || self.read();
        watches.add_certificates(setting, files, read).await
    }

    fn read(&self) -> Result<ServerTls, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let identity = certified_key(&self.cert.path, &self.key, &provider)?;
        let chain = CertificateFile::chain(self.cert.setting, &identity.cert);
        let mut certificates = Vec::from_iter(chain);
        let mut client_cas = Vec::new();
        let verifier = match &self.client_ca {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(ca) => {
                let (roots, authorities) = authorities(ca)?;
                certificates.extend(authorities);
                client_cas.clone_from(&roots.roots);
                let roots = Arc::new(roots);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                        .build()
                        .map_err(|error| rustls::Error::General(error.to_string()))?;
                restricted_to(verifier, &self.client_names)
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = self.alpn.iter().map(|it| it.to_vec()).collect();
        Ok(ServerTls {
            config: Arc::new(config),
            certificates,
            client_cas,
        })
    }
}

fn restricted_to(
    verifier: Arc<dyn ClientCertVerifier>,
    names: &[ServerName<'static>],
) -> Arc<dyn ClientCertVerifier> {
    if names.is_empty() {
        return verifier;
    }
    let names = names.to_vec();
    Arc::new(NameVerifier { verifier, names })
}

/// Accepts the certificates that `verifier` accepts and that have one of `names`.
#[derive(Debug)]
struct NameVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ClientCertVerifier for NameVerifier {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .verifier
            .verify_client_cert(end_entity, intermediates, now)?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let mut last = Ok(());
        for name in &self.names {
            last = verify_server_name(&certificate, name);
            if last.is_ok() {
                break;
            }
        }
        last.map(|()| verified)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
