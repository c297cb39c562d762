//! `importguard serve`: gateway, decider and spool in one process. The gateway asks the decider over gRPC on loopback, as it
//! would another pod.

use std::{io::Write, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Args;
use importguard_decider::Decider;
use importguard_gateway::Gateway;
use importguard_runtime::{
    admin::{self, Admin, Readiness},
    listen, signals,
};
use importguard_telemetry::{RuntimeSettings, TelemetrySettings, metrics::ProcessMetrics};
use tokio_util::sync::CancellationToken;

use crate::banner::Banner;

/// How long the start waits for the first word from NATS, so that the banner can tell it; a server on this machine or in this
/// cluster answers in a tenth of that.
const FIRST_WORD_FROM_NATS: Duration = Duration::from_millis(500);

/// How long the last spans may take to be sent.
const LAST_SPANS: Duration = Duration::from_secs(5);

#[derive(Args)]
// The decider is the one in this process, and the only one.
#[command(
    mut_arg("decider_url", |arg| arg.hide(true)),
    mut_arg("decider_retry_after", |arg| arg.hide(true)),
    mut_arg("decider_resolve_interval", |arg| arg.hide(true)),
    mut_arg("decider_ca_file", |arg| arg.hide(true)),
    mut_arg("decider_client_cert_file", |arg| arg.hide(true)),
    mut_arg("decider_client_key_file", |arg| arg.hide(true)),
    mut_arg("decider_server_name", |arg| arg.hide(true)),
    mut_arg("decider_shutdown_grace", |arg| arg.hide(true)),
    mut_arg("decider_max_friends", |arg| arg.hide(true)),
    mut_arg("decider_tls_cert_file", |arg| arg.hide(true)),
    mut_arg("decider_tls_key_file", |arg| arg.hide(true)),
    mut_arg("decider_tls_client_ca_file", |arg| arg.hide(true)),
)]
// Nothing in front of it has to learn that it goes, and whoever presses Ctrl-C wants their prompt back.
#[command(mut_arg("shutdown_grace", |arg| arg.default_value("0s")))]
pub(crate) struct Serve {
    #[command(flatten)]
    gateway: importguard_gateway::Settings,

    #[command(flatten)]
    decider: importguard_decider::Settings,

    /// Where /livez, /readyz and /metrics are served
    #[arg(
        long,
        env = "IMPORTGUARD_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8081",
        help_heading = "Admin"
    )]
    admin_listen: SocketAddr,

    #[command(flatten)]
    telemetry: TelemetrySettings,

    #[command(flatten)]
    pub(crate) runtime: RuntimeSettings,
}

impl Serve {
    /// Runs until SIGTERM or Ctrl-C and finishes what is under way.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let telemetry = importguard_telemetry::init("importguard", &self.telemetry)?;
        let shutdown = signals::shutdown()?;
        let ended = self.serve(shutdown).await;
        telemetry.shutdown(LAST_SPANS).await;
        ended.map(|()| ExitCode::SUCCESS)
    }

    async fn serve(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let http = &self.gateway.http;
        let public = listen(http.http_listen, "IMPORTGUARD_HTTP_LISTEN").await?;
        let admin = listen(self.admin_listen, "IMPORTGUARD_ADMIN_LISTEN").await?;
        let grpc = self.decider.grpc.decider_listen;
        let grpc = listen(grpc, "IMPORTGUARD_DECIDER_LISTEN").await?;
        anyhow::ensure!(
            self.decider.grpc.tls.decider_tls_cert_file.is_none(),
            "IMPORTGUARD_DECIDER_TLS_CERT_FILE is set, and in one process the decider speaks no TLS: leave it unset, or run importguard-gateway and importguard-decider"
        );
        self.gateway.decide.decider_url = grpc.local_addr()?.into();
        self.decider.grpc.bounds.decider_max_friends = self.gateway.http.max_friends;
        // It ends after its only gateway: nobody has to notice first.
        self.decider.grpc.decider_shutdown_grace = Duration::ZERO;

        let mut metrics = ProcessMetrics::new()?;
        let decider = Decider::start(&self.decider, &mut metrics)?;
        let gateway = Gateway::start(&self.gateway, &mut metrics).await?;
        let banner = Banner {
            public: public.local_addr()?,
            tls: self.gateway.tls.tls_cert_file.is_some(),
            admin: admin.local_addr()?,
            grpc: grpc.local_addr()?,
            policy: &self.decider.policy.policy,
            base_path: &self.gateway.http.base_path,
            recorder: gateway.recorder().settled(FIRST_WORD_FROM_NATS).await,
        };
        std::io::stdout()
            .write_all(banner.to_string().as_bytes())
            .context("the start could not be announced on standard output")?;

        let (gateway_parts, decider_parts) = (gateway.readiness(), decider.readiness());
        let stopping = shutdown.clone();
        let admin_state = Admin {
            registry: metrics.registry,
            readiness: Arc::new(move || Readiness {
                ready: !stopping.is_cancelled(),
                parts: gateway_parts().into_iter().chain(decider_parts()).collect(),
            }),
        };
        // The decider outlives the gateway's last request.
        let decider_shutdown = CancellationToken::new();
        let gateway_then_decider = async {
            gateway.serve(public, shutdown).await?;
            decider_shutdown.cancel();
            anyhow::Ok(())
        };
        let serving = async {
            tokio::try_join!(gateway_then_decider, async {
                decider
                    .serve(grpc, decider_shutdown.clone())
                    .await
                    .map_err(anyhow::Error::from)
            })
        };
        tokio::select! {
            served = serving => { served?; }
            never = admin::serve(admin, admin_state) => match never {},
        }
        Ok(())
    }
}
