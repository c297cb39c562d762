use std::path::PathBuf;

use clap::Args;

/// Who is let in.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Lock: without any of these, whoever can connect is let in")]
pub struct LockSettings {
    /// A file with a line user:password for each pair that is let in by HTTP Basic authorization, which is what user:password@ in
    /// OpenIM's url becomes; read again when it changes
    #[arg(long, env = "IMPORTGUARD_BASIC_AUTH_FILE", value_name = "FILE")]
    pub basic_auth_file: Option<PathBuf>,

    /// A file with a line for each bearer token that is let in; read again when it changes
    #[arg(long, env = "IMPORTGUARD_BEARER_TOKEN_FILE", value_name = "FILE")]
    pub bearer_token_file: Option<PathBuf>,
}
