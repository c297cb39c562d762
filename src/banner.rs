use std::{
    fmt::{self, Display},
    net::SocketAddr,
    path::Path,
};

use importguard_gateway::{
    AuthenticationSettings,
    openim::BasePath,
    recorder::{RecorderStatus, State},
};
use importguard_runtime::reachable;

/// What `importguard serve` prints once it is up: its listen addresses, the NATS status, and a curl command to try.
pub(crate) struct Banner<'a> {
    pub(crate) public: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) admin: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) policy: &'a Path,
    pub(crate) base_path: &'a BasePath,
    pub(crate) authentication: &'a AuthenticationSettings,
    pub(crate) recorder: RecorderStatus,
    pub(crate) spool: &'a Path,
}

impl Banner<'_> {
    /// What curl needs to be let in, and what to write there.
    fn credentials(&self) -> (&'static str, Option<&'static str>) {
        let AuthenticationSettings {
            basic_auth_file,
            bearer_token_file,
        } = self.authentication;
        match (basic_auth_file, bearer_token_file) {
            (Some(_), _) => (
                " -u USER:PASSWORD",
                Some("USER:PASSWORD is a line of IMPORTGUARD_BASIC_AUTH_FILE"),
            ),
            (None, Some(_)) => (
                " -H 'Authorization: Bearer TOKEN'",
                Some("TOKEN is a line of IMPORTGUARD_BEARER_TOKEN_FILE"),
            ),
            (None, None) => ("", None),
        }
    }

    /// Where events go.
    fn events(&self) -> String {
        let RecorderStatus {
            state,
            nats,
            spooled_events: spooled,
            last_error,
            parked,
            ..
        } = &self.recorder;
        if *state == State::Spooling {
            let why = match last_error {
                Some(error) if error.contains(nats) => error.clone(),
                Some(error) => format!("NATS at {nats}: {error}"),
                None => format!("not connected to NATS at {nats} yet"),
            };
            let spool = self.spool.display();
            return format!(
                "{why}; buffering in {spool} ({spooled} events), will publish automatically"
            );
        }
        let parked: usize = parked.iter().map(|parked| parked.events).sum();
        let waiting = match spooled.saturating_sub(parked) {
            0 => String::new(),
            events => format!("; publishing {events} events from the spool"),
        };
        let refused = match parked {
            0 => String::new(),
            events => format!("; NATS refuses {events} events, which stay in the spool"),
        };
        format!("streaming to NATS at {nats}{waiting}{refused}")
    }
}

impl Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = reachable(self.public);
        let scheme = if self.tls { "https" } else { "http" };
        let (credentials, what) = self.credentials();
        // The base path may be a secret: the line has the variable, which the shell expands if it is set there.
        let base = if self.base_path.to_string().is_empty() {
            ""
        } else {
            "$IMPORTGUARD_BASE_PATH"
        };
        writeln!(f, "importguard {} is up", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "  callbacks  {scheme}://{public}{base}")?;
        writeln!(f, "  decider    {} (gRPC)", self.grpc)?;
        writeln!(f, "  policy     {}", self.policy.display())?;
        writeln!(f, "  admin      http://{}/readyz", reachable(self.admin))?;
        writeln!(f, "  events     {}", self.events())?;
        writeln!(f, "Try it:")?;
        writeln!(
            f,
            "  curl -i{credentials} \"{scheme}://{public}{base}/?command=ImportFriendReqBeforeCommand&contenttype=json\" \
             -H 'operationID: 1646445464564' -H 'Content-Type: application/json' \
             -d '{{\"callbackCommand\":\"ImportFriendReqBeforeCommand\",\"ownerUserID\":\"user123\",\
             \"friendUserIDs\":[\"user456\",\"user789\"]}}'"
        )?;
        if !base.is_empty() {
            writeln!(
                f,
                "  {base} is the base path of this gateway: set it in your shell, or write the path there"
            )?;
        }
        if let Some(what) = what {
            writeln!(f, "  {what}")?;
        }
        writeln!(f, "Press Ctrl-C to stop.")
    }
}
