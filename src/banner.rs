use std::{
    fmt::{self, Display},
    net::SocketAddr,
    path::Path,
};

use importguard_runtime::reachable;

/// What `importguard serve` prints once it is up: its listen addresses, the NATS status, and a curl command to try.
pub(crate) struct Banner<'a, B, R> {
    pub(crate) public: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) admin: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) policy: &'a Path,
    pub(crate) base_path: &'a B,
    pub(crate) recorder: R,
}

impl<B: Display, R: Display> Display for Banner<'_, B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = reachable(self.public);
        let scheme = if self.tls { "https" } else { "http" };
        // The base path may be a secret: the line has the variable, which the shell expands.
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
        writeln!(f, "  events     {}", self.recorder)?;
        writeln!(f, "Try it:")?;
        writeln!(
            f,
            "  curl -i \"{scheme}://{public}{base}/?command=ImportFriendReqBeforeCommand&contenttype=json\" \
             -H 'operationID: 1646445464564' -H 'Content-Type: application/json' \
             -d '{{\"callbackCommand\":\"ImportFriendReqBeforeCommand\",\"ownerUserID\":\"user123\",\
             \"friendUserIDs\":[\"user456\",\"user789\"]}}'"
        )?;
        writeln!(f, "Press Ctrl-C to stop.")
    }
}
