//! TLS for clients: a configuration for each state of its files, or one for a library that keeps it, such as that of NATS.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::{
    CertificateError, FileWatches, LastGood, NamedFile,
    certificates::{authorities, certified_key, system_roots},
    expiry::CertificateFile,
    watch::Certificates,
};

/// What a client needs for a handshake, from files.
#[derive(Debug)]
pub struct ClientTls {
    /// The configuration.
    pub config: Arc<ClientConfig>,
    verifier: Arc<WebPkiServerVerifier>,
    identity: Option<Arc<CertifiedKey>>,
    certificates: Vec<CertificateFile>,
}

impl Certificates for ClientTls {
    fn certificates(&self) -> &[CertificateFile] {
        &self.certificates
    }
}

impl ClientTls {
    /// Reads the CA certificates in `ca`, or the system's, and the client's certificate and key, if any, and has `watches` reload
    /// them when they change. `None` if neither is set. `alpn` are the protocols, in order of preference.
    ///
    /// # Errors
    /// If they cannot be used.
    pub async fn watch(
        ca: Option<NamedFile>,
        identity: Option<(NamedFile, PathBuf)>,
        alpn: &'static [&'static [u8]],
        watches: &mut FileWatches,
    ) -> Result<Option<LastGood<Self>>, CertificateError> {
        let cert = identity.as_ref().map(|(cert, _)| cert);
        let Some(setting) = ca.as_ref().or(cert).map(|file| file.setting) else {
            return Ok(None);
        };
        let both = identity.iter().flat_map(|(cert, key)| [&cert.path, key]);
        let files = ca.iter().map(|ca| &ca.path).chain(both);
        let files = files.cloned().collect();
        let read = move || Self::read(ca.as_ref(), identity.as_ref(), alpn);
        let active = watches.add_certificates(setting, files, read).await?;
        Ok(Some(active))
    }

    fn read(
        ca: Option<&NamedFile>,
        identity: Option<&(NamedFile, PathBuf)>,
        alpn: &[&[u8]],
    ) -> Result<Self, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let mut certificates = Vec::new();
        let roots = match ca {
            Some(ca) => {
                let (roots, file) = authorities(ca)?;
                certificates.extend(file);
                roots
            }
            None => system_roots()?,
        };
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let identity = identity.map(|(cert, key)| {
            let identity = certified_key(&cert.path, key, &provider)?;
            certificates.extend(CertificateFile::chain(cert.setting, &identity.cert));
            Ok::<_, CertificateError>(identity)
        });
        let identity = identity.transpose()?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(verifier.clone());
        let mut config = match identity.clone() {
            Some(identity) => {
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self {
            config: Arc::new(config),
            verifier,
            identity: identity.map(Arc::new),
            certificates,
        })
    }

    /// A configuration that makes each handshake with the content that is active then.
    ///
    /// # Errors
    /// If rustls refuses its defaults.
    pub fn reloading_config(active: LastGood<Self>) -> Result<ClientConfig, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let active = Arc::new(Active(active, provider.clone()));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(active.clone())
            .with_client_cert_resolver(active);
        // A resumed session would neither present a new certificate nor verify the server's with new authorities.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

#[derive(Debug)]
struct Active(LastGood<ClientTls>, Arc<CryptoProvider>);

impl ServerCertVerifier for Active {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verifier = &self.0.load().verifier;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verifier = &self.0.load().verifier;
        verifier.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verifier = &self.0.load().verifier;
        verifier.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

impl ResolvesClientCert for Active {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.load().identity.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.load().identity.is_some()
    }
}
