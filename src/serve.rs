//! `importguard serve`: gateway, decider and spool in one process. The gateway calls the decider over gRPC on loopback, as it would
//! in another process.

use std::{
    env,
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, Args, Command};
use importguard_decider::Decider;
use importguard_gateway::{Gateway, recorder::Recorder};
use importguard_runtime::{
    BoundAddress, Runtime, RuntimeSettings, bind,
    security::{self, DECIDER_LINK},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::banner::Banner;

/// How long startup waits for the connection to NATS, to print its status in the banner; a server on this machine or in this cluster
/// responds in a tenth of that.
const NATS_STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// Arguments that have no effect in one process, where the only decider is its own.
const UNUSED: [&str; 11] = [
    "decider_url",
    "decider_retry_after",
    "decider_ca_file",
    "decider_client_cert_file",
    "decider_client_key_file",
    "decider_server_name",
    "decider_shutdown_grace",
    "decider_max_friends",
    "decider_tls_cert_file",
    "decider_tls_key_file",
    "decider_tls_client_ca_file",
];

#[derive(Args)]
#[command(mut_args(|arg| if is_unused(&arg) { arg.hide(true) } else { arg }))]
// No load balancer needs time to notice the shutdown, and Ctrl-C should return to the prompt quickly.
#[command(mut_arg("shutdown_grace", |arg| arg.default_value("0s")))]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) gateway: importguard_gateway::Settings,

    #[command(flatten)]
    decider: importguard_decider::Settings,

    #[command(flatten)]
    runtime: RuntimeSettings,
}

impl Serve {
    /// Runs until SIGTERM or Ctrl-C, then shuts down gracefully.
    pub(crate) fn run(mut self) -> anyhow::Result<ExitCode> {
        let (settings, instance) = (self.runtime.clone(), self.gateway.http.instance.clone());
        settings.run("importguard", instance.as_deref(), async |runtime| {
            self.serve(runtime).await
        })
    }

    async fn serve(&mut self, mut runtime: Runtime) -> anyhow::Result<()> {
        report_unused();
        let started = self.start(&mut runtime).await?;
        let banner = Banner {
            public: started.public.address(),
            tls: self.gateway.tls.tls_cert_file.is_some(),
            admin: self.runtime.admin_listen,
            grpc: started.grpc.address(),
            policy: &self.decider.policy.policy,
            base_path: &self.gateway.http.base_path,
            authentication: &self.gateway.authentication,
            recorder: started
                .gateway
                .recorder()
                .settled(NATS_STATUS_TIMEOUT)
                .await,
            spool: &self.gateway.record.spool,
        };
        // Not `output::stdout()`, with which the service would end. It needs nobody to read its banner.
        if let Err(error) = io::stdout().write_all(banner.to_string().as_bytes()) {
            warn!("cannot print the addresses to standard output: {error}");
        }
        started.serve(runtime).await
    }

    /// Binds the addresses, loads the policy and opens the spool.
    ///
    /// # Errors
    /// If a listener's address is taken, or the settings or their files cannot be used.
    pub(crate) async fn start(&mut self, runtime: &mut Runtime) -> anyhow::Result<Started> {
        let http = &self.gateway.http;
        let public = bind(http.http_listen, "IMPORTGUARD_HTTP_LISTEN")?;
        let grpc = self.decider.grpc.decider_listen;
        let grpc = bind(grpc, "IMPORTGUARD_DECIDER_LISTEN")?;
        anyhow::ensure!(
            self.decider.grpc.tls.decider_tls_cert_file.is_none(),
            "IMPORTGUARD_DECIDER_TLS_CERT_FILE is set, but in one process the decider does not use TLS: unset it, or run importguard-gateway and importguard-decider"
        );
        self.gateway.decide.decider_url = grpc.address().into();
        // There is no second decider to ask.
        self.gateway.decide.decider_retry_after = self.gateway.decide.decider_timeout / 2;
        self.decider.grpc.bounds.decider_max_friends = self.gateway.http.max_friends;
        // It stops after its only client, the gateway, which needs no time to notice.
        self.decider.grpc.decider_shutdown_grace = Duration::ZERO;

        // The decider is in this process; the connection to it is over loopback.
        let mut parts = self.gateway.security();
        parts.retain(|(name, _)| *name != DECIDER_LINK);
        security::log("this process", &parts);
        let decider = Decider::start(&self.decider, &self.gateway.record.nats, runtime).await?;
        let gateway = Gateway::start(&self.gateway, runtime).await?;
        Ok(Started {
            public,
            grpc,
            decider,
            gateway,
        })
    }
}

/// Gateway and decider, with the addresses at which they will listen.
pub(crate) struct Started {
    public: BoundAddress,
    grpc: BoundAddress,
    decider: Decider,
    gateway: Gateway,
}

impl Started {
    /// Where callbacks are sent to.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.public.address()
    }

    /// The recorder of the gateway's events.
    pub(crate) fn recorder(&self) -> &Recorder {
        self.gateway.recorder()
    }

    /// Serves until `runtime` shuts down and open callbacks are answered.
    ///
    /// # Errors
    /// If either stops without a shutdown request.
    pub(crate) async fn serve(self, runtime: Runtime) -> anyhow::Result<()> {
        let Self {
            public,
            grpc,
            decider,
            gateway,
        } = self;
        let (public, grpc) = (public.listen()?, grpc.listen()?);
        let shutdown = runtime.shutdown.clone();
        // The decider stops after the gateway's last request.
        let decider_shutdown = CancellationToken::new();
        let gateway_then_decider = async {
            gateway.serve(public, shutdown).await?;
            decider_shutdown.cancel();
            anyhow::Ok(())
        };
        let decider = async {
            let served = decider.serve(grpc, decider_shutdown.clone());
            served.await.map_err(anyhow::Error::from)
        };
        let serving = async { tokio::try_join!(gateway_then_decider, decider) };
        runtime.run(serving).await.map(drop)
    }
}

fn is_unused(arg: &Arg) -> bool {
    UNUSED.contains(&arg.get_id().as_str())
}

/// Logs a warning for each argument that has no effect and is set.
fn report_unused() {
    let command = Serve::augment_args(Command::new("serve"));
    let unused = command.get_arguments().filter(|arg| is_unused(arg));
    for argument in unused {
        let variable = argument.get_env().filter(|it| env::var_os(it).is_some());
        let flag = argument.get_long().filter(|flag| is_given(flag));
        let name = match (variable, flag) {
            (_, Some(flag)) => format!("--{flag}"),
            (Some(variable), None) => variable.display().to_string(),
            (None, None) => continue,
        };
        warn!(
            "{name} has no effect: in one process the gateway calls the decider of that process; unset it, or run importguard-gateway and importguard-decider"
        );
    }
}

/// Whether the command line has `--flag` or `--flag=…`.
fn is_given(flag: &str) -> bool {
    env::args_os().any(|argument| {
        let argument = argument.to_string_lossy();
        let rest = argument
            .strip_prefix("--")
            .and_then(|it| it.strip_prefix(flag));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}
