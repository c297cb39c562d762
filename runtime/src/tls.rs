use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_name},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::SingleCertAndKey,
};

use crate::{
    CertificateError, FileWatcher, FileWatches, LastGood, Snapshot,
    certificates::{certified_key, root_store},
};

/// The TLS files of a listener.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    /// The setting that represents the files in logs and metrics.
    pub setting: &'static str,
    /// The certificate chain.
    pub cert: &'a Path,
    /// Its private key.
    pub key: &'a Path,
    /// The CA certificates for client certificates; without them, clients need no certificate.
    pub client_ca: Option<&'a Path>,
    /// The names (SANs) of which a client certificate must have one; empty accepts any.
    pub client_names: &'a [ServerName<'static>],
    /// The ALPN protocols, in order of preference.
    pub alpn: &'static [&'static [u8]],
}

impl TlsFiles<'_> {
    /// Reads them, and has `watches` reload them when they change.
    ///
    /// # Errors
    /// If they cannot be used.
    pub async fn watch(
        self,
        watches: &mut FileWatches,
    ) -> Result<LastGood<ServerConfig>, CertificateError> {
        let Self { setting, alpn, .. } = self;
        let (cert, key) = (self.cert.to_owned(), self.key.to_owned());
        let client_ca = self.client_ca.map(Path::to_owned);
        let client_names = self.client_names.to_vec();
        let files: Vec<_> = [&cert, &key]
            .into_iter()
            .chain(&client_ca)
            .cloned()
            .collect();
        let read = move || config(&cert, &key, client_ca.as_deref(), &client_names, alpn);
        let watcher = FileWatcher::open(move || Snapshot::take(&files, &read)).await?;
        Ok(watches.add(setting, watcher))
    }
}

fn config(
    cert: &Path,
    key: &Path,
    client_ca: Option<&Path>,
    client_names: &[ServerName<'static>],
    alpn: &[&[u8]],
) -> Result<ServerConfig, CertificateError> {
    let provider = Arc::new(ring::default_provider());
    let identity = certified_key(cert, key, &provider)?;
    let verifier = match client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(root_store(ca)?);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
            restricted_to(verifier, client_names)
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// The TLS files of a client.
#[derive(Clone, Copy, Debug)]
pub struct ClientTlsFiles<'a> {
    /// The setting that represents the files in logs and metrics.
    pub setting: &'static str,
    /// The CA certificates for server certificates.
    pub ca: &'a Path,
    /// The client certificate, if any.
    pub cert: Option<&'a Path>,
    /// Its private key.
    pub key: Option<&'a Path>,
    /// The ALPN protocols, in order of preference.
    pub alpn: &'static [&'static [u8]],
}

impl ClientTlsFiles<'_> {
    /// Reads them, and has `watches` reload them when they change.
    ///
    /// # Errors
    /// If they cannot be used.
    pub async fn watch(
        self,
        watches: &mut FileWatches,
    ) -> Result<LastGood<ClientConfig>, CertificateError> {
        let Self { setting, alpn, .. } = self;
        let ca = self.ca.to_owned();
        let identity = self.cert.zip(self.key);
        let identity = identity.map(|(cert, key)| (cert.to_owned(), key.to_owned()));
        let mut files = vec![ca.clone()];
        files.extend(
            identity
                .iter()
                .flat_map(|(cert, key)| [cert.clone(), key.clone()]),
        );
        let read = move || {
            let identity = identity.as_ref();
            client_config(&ca, identity.map(|(cert, key)| (&**cert, &**key)), alpn)
        };
        let watcher = FileWatcher::open(move || Snapshot::take(&files, &read)).await?;
        Ok(watches.add(setting, watcher))
    }
}

fn client_config(
    ca: &Path,
    identity: Option<(&Path, &Path)>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, CertificateError> {
    let provider = Arc::new(ring::default_provider());
    let identity = identity.map(|(cert, key)| certified_key(cert, key, &provider));
    let identity = identity.transpose()?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(root_store(ca)?);
    let mut config = match identity {
        Some(identity) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
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
