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

/// The files that a listener speaks TLS with.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    /// The setting that stands for all of them in logs and metrics.
    pub setting: &'static str,
    /// The certificate and those that lead to its root.
    pub cert: &'a Path,
    /// Its private key.
    pub key: &'a Path,
    /// The authorities that vouch for peers; without them peers need no certificate.
    pub client_ca: Option<&'a Path>,
    /// Of the peers that they vouch for, those whose certificates hold one of these names; without any, all.
    pub client_names: &'a [ServerName<'static>],
    /// The protocols that are spoken above it, the best first.
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
    let shown = certified_key(cert, key, &provider)?;
    let verifier = match client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(root_store(ca)?);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
            named(verifier, client_names)
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// The files that a client speaks TLS with.
#[derive(Clone, Copy, Debug)]
pub struct ClientTlsFiles<'a> {
    /// The setting that stands for all of them in logs and metrics.
    pub setting: &'static str,
    /// The authorities that vouch for servers.
    pub ca: &'a Path,
    /// The certificate that is shown to servers, if any.
    pub cert: Option<&'a Path>,
    /// Its private key.
    pub key: Option<&'a Path>,
    /// The protocols that are spoken above it, the best first.
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
        let shown = self.cert.zip(self.key);
        let shown = shown.map(|(cert, key)| (cert.to_owned(), key.to_owned()));
        let mut files = vec![ca.clone()];
        files.extend(
            shown
                .iter()
                .flat_map(|(cert, key)| [cert.clone(), key.clone()]),
        );
        let read = move || {
            let shown = shown.as_ref();
            client_config(&ca, shown.map(|(cert, key)| (&**cert, &**key)), alpn)
        };
        let watcher = FileWatcher::open(move || Snapshot::take(&files, &read)).await?;
        Ok(watches.add(setting, watcher))
    }
}

fn client_config(
    ca: &Path,
    shown: Option<(&Path, &Path)>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, CertificateError> {
    let provider = Arc::new(ring::default_provider());
    let shown = shown.map(|(cert, key)| certified_key(cert, key, &provider));
    let shown = shown.transpose()?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(root_store(ca)?);
    let mut config = match shown {
        Some(shown) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown))),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn named(
    verifier: Arc<dyn ClientCertVerifier>,
    names: &[ServerName<'static>],
) -> Arc<dyn ClientCertVerifier> {
    if names.is_empty() {
        return verifier;
    }
    let names = names.to_vec();
    Arc::new(Named { verifier, names })
}

/// Of the peers that a verifier lets in, those whose certificates hold one of some names.
#[derive(Debug)]
struct Named {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ClientCertVerifier for Named {
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
