use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use importguard_files::{InvalidCertificate, LastGood, Reloads, Watch, certified_key, root_store};
use rustls::{
    ClientConfig,
    crypto::ring,
    pki_types::{InvalidDnsNameError, ServerName},
    sign::SingleCertAndKey,
};

use super::{DeciderTlsSettings, DeciderUrls, resolve::Target, urls::DeciderUrl};

/// The setting that stands for all of them in logs and metrics.
const SETTING: &str = "IMPORTGUARD_DECIDER_CA_FILE";

/// How TLS is spoken with the deciders behind a URL: with the files as they were when they were good last.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    config: LastGood<ClientConfig>,
    /// The name that their certificates must hold.
    pub(super) name: ServerName<'static>,
}

/// Why TLS cannot be spoken with deciders as the settings say.
#[derive(Debug, thiserror::Error)]
pub enum InvalidDeciderTls {
    /// The URL says TLS and no setting says whom to believe.
    #[error(
        "IMPORTGUARD_DECIDER_URL is https, and IMPORTGUARD_DECIDER_CA_FILE does not say which authorities vouch for deciders"
    )]
    NoAuthorities,
    /// The URL says no TLS and a setting is for TLS.
    #[error(
        "IMPORTGUARD_DECIDER_URL is http, so that {0} would be without effect: write https://, or leave it unset"
    )]
    NoTls(&'static str),
    /// The name cannot be in a certificate.
    #[error(
        "IMPORTGUARD_DECIDER_SERVER_NAME or the host in IMPORTGUARD_DECIDER_URL: {0:?} is no name that a certificate can hold"
    )]
    Name(String, #[source] InvalidDnsNameError),
    /// The files cannot be used.
    #[error(
        "IMPORTGUARD_DECIDER_CA_FILE, IMPORTGUARD_DECIDER_CLIENT_CERT_FILE, IMPORTGUARD_DECIDER_CLIENT_KEY_FILE: {0}"
    )]
    Files(#[from] InvalidCertificate),
}

impl Tls {
    /// What holds now.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.config.load()
    }
}

/// The deciders behind each URL, and how TLS is spoken with them if it is. `reloads` reads the files again when they change.
pub(super) fn targets(
    urls: &DeciderUrls,
    settings: &DeciderTlsSettings,
    reloads: &mut Reloads,
) -> Result<Vec<Target>, InvalidDeciderTls> {
    let watch = match (urls.tls(), set(settings)) {
        (true, _) => Some(watch(settings)?),
        (false, Some(name)) => return Err(InvalidDeciderTls::NoTls(name)),
        (false, None) => None,
    };
    let config = watch.as_ref().map(Watch::last_good);
    let target = |url: &DeciderUrl| {
        let tls = match &config {
            Some(config) => Some(Tls {
                config: config.clone(),
                name: server_name(settings.decider_server_name.as_ref().unwrap_or(&url.host))?,
            }),
            None => None,
        };
        Ok(Target::new(url.clone(), tls))
    };
    let targets = urls
        .iter()
        .map(target)
        .collect::<Result<_, InvalidDeciderTls>>()?;
    if let Some(watch) = watch {
        reloads.add(SETTING, watch);
    }
    Ok(targets)
}

fn watch(
    settings: &DeciderTlsSettings,
) -> Result<
    Watch<
        ClientConfig,
        impl Fn() -> Result<ClientConfig, InvalidCertificate> + Clone + Send + use<>,
    >,
    InvalidDeciderTls,
> {
    let ca = settings.decider_ca_file.clone();
    let ca = ca.ok_or(InvalidDeciderTls::NoAuthorities)?;
    let client = Option::zip(
        settings.decider_client_cert_file.clone(),
        settings.decider_client_key_file.clone(),
    );
    let mut files = vec![ca.clone()];
    files.extend(
        client
            .iter()
            .flat_map(|(cert, key)| [cert.clone(), key.clone()]),
    );
    Ok(Watch::start(&files, move || config(&ca, client.as_ref()))?)
}

fn server_name(name: &str) -> Result<ServerName<'static>, InvalidDeciderTls> {
    let parsed = ServerName::try_from(name.to_owned());
    parsed.map_err(|error| InvalidDeciderTls::Name(name.to_owned(), error))
}

/// A setting that is for TLS only and set.
fn set(settings: &DeciderTlsSettings) -> Option<&'static str> {
    [
        (
            settings.decider_ca_file.is_some(),
            "IMPORTGUARD_DECIDER_CA_FILE",
        ),
        (
            settings.decider_client_cert_file.is_some(),
            "IMPORTGUARD_DECIDER_CLIENT_CERT_FILE",
        ),
        (
            settings.decider_server_name.is_some(),
            "IMPORTGUARD_DECIDER_SERVER_NAME",
        ),
    ]
    .into_iter()
    .find_map(|(set, name)| set.then_some(name))
}

fn config(
    ca: &Path,
    client: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientConfig, InvalidCertificate> {
    let provider = Arc::new(ring::default_provider());
    let shown = client.map(|(cert, key)| certified_key(cert, key, &provider));
    let shown = shown.transpose()?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(root_store(ca)?);
    let mut config = match shown {
        Some(shown) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown))),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
