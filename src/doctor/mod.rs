//! `importguard doctor`: sends requests to a running gateway as OpenIM would, and reports how each version reads the answers.

mod ask;
mod checks;
mod reading;
mod report;

use std::{process::ExitCode, time::Duration};

use anyhow::anyhow;
use clap::Args;
use strum::IntoEnumIterator;
use uuid::Uuid;

use self::{
    ask::Webhook,
    checks::{Check, Finding, remedy},
    reading::OpenIm,
    report::Report,
};
use crate::output::{print, usage_error};

const DETAILS: &str = r#"Run it where OpenIM runs, with the URL from OpenIM's configuration:
  importguard doctor http://user:password@importguard-gateway:8080
  SSL_CERT_FILE=ca.pem importguard doctor https://importguard-gateway:8080 --openim 3.8.3

Five requests are sent. Three are decided by the policy and recorded as events, with the owner importguard_doctor and the friends importguard_doctor_friend1 and importguard_doctor_friend2; nobody is imported, as only OpenIM can do that. The others are rejected before they are decided, and leave no event. Certificates are trusted as OpenIM does: those of this machine, or of SSL_CERT_FILE. The URL's password and path are never printed.

Exit codes: 0 if OpenIM does as importguard answers, 1 if something is wrong, 2 on usage errors. That OpenIM 3.6 ignores refusals counts only with --openim 3.6.0."#;

/// Ask a running gateway as OpenIM would, and say how each version of OpenIM reads the answers
#[derive(Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Doctor {
    /// The webhook URL as in OpenIM's configuration, with its password or secret path
    #[arg(value_name = "URL", env = "IMENV_WEBHOOKS_URL", hide_env_values = true)]
    url: Option<String>,

    /// Report only on this version of open-im-server, for example 3.8.3 [default: all]
    #[arg(long, value_name = "VERSION", value_parser = |text: &str| text.parse::<OpenIm>())]
    openim: Option<OpenIm>,

    /// OpenIM's timeout for the callback, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Doctor {
    /// Sends the requests, and prints the report.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let parsed = match &self.url {
            Some(url) => Webhook::parse(url),
            None => Err(anyhow!(
                "no URL: give OpenIM's webhook URL as the argument, or set IMENV_WEBHOOKS_URL to it"
            )),
        };
        let webhook = match parsed {
            Ok(webhook) => webhook,
            Err(error) => {
                return Ok(usage_error(format_args!(
                    "{error:#}, for example http://importguard-gateway:8080"
                )));
            }
        };
        let report = self.examine(&webhook).await;
        let text = match self.json {
            true => report.json(),
            false => report.text(),
        };
        print(text)?;
        Ok(match report.is_good() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    async fn examine(&self, webhook: &Webhook) -> Report {
        let versions = match self.openim {
            Some(version) => vec![version],
            None => OpenIm::iter().collect(),
        };
        let mut report = Report::new(webhook.address(), self.openim);
        for check in Check::iter() {
            let operation_id = format!("importguard-doctor-{}", Uuid::now_v7());
            let question = check.question(&operation_id);
            let within = Duration::from_secs(self.timeout);
            match webhook.ask(&question, within).await {
                Ok(response) => {
                    let finding = Finding::new(check, response, &versions);
                    let problem = finding.problem(webhook);
                    // Each of the five checks would report the same cause.
                    let is_hopeless = check == Check::Import && problem.is_some();
                    report.add(finding, problem);
                    if is_hopeless {
                        break;
                    }
                }
                Err(error) => {
                    report.unanswered(&format!("{error}: {}", remedy(&error, webhook)));
                    break;
                }
            }
        }
        report
    }
}
