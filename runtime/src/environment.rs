//! Parses the command line and the environment. Errors name the environment variable, where clap names only the flag: most settings
//! come from a container's environment.

use std::{env, ffi::OsString};

use clap::{
    Arg, Args, Command, Error, Parser,
    builder::{Resettable, StyledStr},
    error::{ContextKind, ContextValue, ErrorKind},
};
use tracing::warn;

/// The prefix of importguard's own variables.
const PREFIX: &str = "IMPORTGUARD_";

/// The variables of all binaries. Each binary accepts those of the others, since processes may share a ConfigMap or an env file. A test
/// of `tests/e2e/environment.rs` compares them with what the binaries' commands declare.
pub const VARIABLES: [&str; 78] = [
    "IMPORTGUARD_ACK_TIMEOUT",
    "IMPORTGUARD_ADMIN_LISTEN",
    "IMPORTGUARD_BASE_PATH",
    "IMPORTGUARD_BASIC_AUTH_FILE",
    "IMPORTGUARD_BEARER_TOKEN_FILE",
    "IMPORTGUARD_BODY_READ_TIMEOUT",
    "IMPORTGUARD_DECIDER_CA_FILE",
    "IMPORTGUARD_DECIDER_CHECK_INTERVAL",
    "IMPORTGUARD_DECIDER_CLIENT_CERT_FILE",
    "IMPORTGUARD_DECIDER_CLIENT_KEY_FILE",
    "IMPORTGUARD_DECIDER_IDLE_TIMEOUT",
    "IMPORTGUARD_DECIDER_INSTANCE",
    "IMPORTGUARD_DECIDER_LISTEN",
    "IMPORTGUARD_DECIDER_MAX_CONNECTIONS",
    "IMPORTGUARD_DECIDER_MAX_CONNECTION_AGE",
    "IMPORTGUARD_DECIDER_MAX_FRIENDS",
    "IMPORTGUARD_DECIDER_REFLECTION",
    "IMPORTGUARD_DECIDER_REQUEST_TIMEOUT",
    "IMPORTGUARD_DECIDER_RETRY_AFTER",
    "IMPORTGUARD_DECIDER_SERVER_NAME",
    "IMPORTGUARD_DECIDER_SHUTDOWN_GRACE",
    "IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT",
    "IMPORTGUARD_DECIDER_TIMEOUT",
    "IMPORTGUARD_DECIDER_TLS_CERT_FILE",
    "IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE",
    "IMPORTGUARD_DECIDER_TLS_CLIENT_NAMES",
    "IMPORTGUARD_DECIDER_TLS_KEY_FILE",
    "IMPORTGUARD_DECIDER_URL",
    "IMPORTGUARD_DETECT_CONSUMER",
    "IMPORTGUARD_DETECT_MEMORY",
    "IMPORTGUARD_DETECT_RULES",
    "IMPORTGUARD_HEADER_READ_TIMEOUT",
    "IMPORTGUARD_HTTP2_MAX_STREAMS",
    "IMPORTGUARD_HTTP_LISTEN",
    "IMPORTGUARD_IDLE_TIMEOUT",
    "IMPORTGUARD_INSTANCE",
    "IMPORTGUARD_LISTS_MAX_AGE",
    "IMPORTGUARD_LISTS_SNAPSHOT",
    "IMPORTGUARD_LIST_BY",
    "IMPORTGUARD_LOG_FORMAT",
    "IMPORTGUARD_MAX_BODY_BYTES",
    "IMPORTGUARD_MAX_BYTES_IN_FLIGHT",
    "IMPORTGUARD_MAX_CONNECTIONS",
    "IMPORTGUARD_MAX_FRIENDS",
    "IMPORTGUARD_MAX_HEADER_BYTES",
    "IMPORTGUARD_MAX_IN_FLIGHT",
    "IMPORTGUARD_ON_DECIDER_ERROR",
    "IMPORTGUARD_ON_DECIDER_TIMEOUT",
    "IMPORTGUARD_ON_DECIDER_UNAVAILABLE",
    "IMPORTGUARD_ON_OVERLOAD",
    "IMPORTGUARD_ON_STALE_LISTS",
    "IMPORTGUARD_ON_UNRECORDABLE",
    "IMPORTGUARD_OPERATION_ID",
    "IMPORTGUARD_OVERLOAD_EVENTS",
    "IMPORTGUARD_POLICY",
    "IMPORTGUARD_PSEUDONYM_KEY",
    "IMPORTGUARD_PSEUDONYM_KEY_FILE",
    "IMPORTGUARD_QUEUE_TIMEOUT",
    "IMPORTGUARD_RELOAD_INTERVAL",
    "IMPORTGUARD_REFUSALS",
    "IMPORTGUARD_REQUEST_BUDGET",
    "IMPORTGUARD_SHUTDOWN_GRACE",
    "IMPORTGUARD_SHUTDOWN_TIMEOUT",
    "IMPORTGUARD_SPOOL",
    "IMPORTGUARD_SPOOL_MAX_BYTES",
    "IMPORTGUARD_SPOOL_SYNC",
    "IMPORTGUARD_STREAM_MAX_AGE",
    "IMPORTGUARD_STREAM_MAX_BYTES",
    "IMPORTGUARD_STREAM_REPLICAS",
    "IMPORTGUARD_THREADS",
    "IMPORTGUARD_TLS_CERT_FILE",
    "IMPORTGUARD_TLS_KEY_FILE",
    "IMPORTGUARD_TRACE_SLOW",
    "IMPORTGUARD_UPSTREAM",
    "IMPORTGUARD_UPSTREAM_FORWARD_AUTHORIZATION",
    "IMPORTGUARD_UPSTREAM_MAX_IN_FLIGHT",
    "IMPORTGUARD_UPSTREAM_TIMEOUT",
    "IMPORTGUARD_WRITE_TIMEOUT",
];

/// Variables of earlier revisions, each with its replacement. They are reported and ignored, so that a process starts with the
/// environment of its predecessor.
const RETIRED: [(&str, &str); 8] = [
    (
        "IMPORTGUARD_DECIDER_MAX_HEADER_BYTES",
        "a call's headers may take 8KiB",
    ),
    (
        "IMPORTGUARD_DECIDER_MAX_MESSAGE_BYTES",
        "it follows from IMPORTGUARD_DECIDER_MAX_FRIENDS",
    ),
    (
        "IMPORTGUARD_DECIDER_MAX_STREAMS",
        "a connection may have 512 calls open",
    ),
    (
        "IMPORTGUARD_DECIDER_RESOLVE_INTERVAL",
        "names are resolved every 5 seconds, and immediately after a failed call",
    ),
    (
        "IMPORTGUARD_DECIDER_RETRY_MAX_FRIENDS",
        "only imports of up to 1000 friends are sent to a second decider",
    ),
    ("IMPORTGUARD_MAX_ID_BYTES", "a user ID may have 256 bytes"),
    (
        "IMPORTGUARD_MAX_QUEUED",
        "memory bounds how many callbacks wait (IMPORTGUARD_MAX_BYTES_IN_FLIGHT)",
    ),
    (
        "IMPORTGUARD_STREAM_DUPLICATE_WINDOW",
        "a stream is created with 10 minutes; change it with `nats stream edit`",
    ),
];

/// Parses a command line as `C::parse_from` does, and checks the environment: an unknown variable that begins with
/// `IMPORTGUARD_`, and a known one that is set but empty, are errors. `--help` and `--version` work whatever the environment.
/// Exits with code 2 and a message on standard error if there is an error.
pub fn parse<C: Parser>(arguments: impl IntoIterator<Item = OsString>) -> C {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let parsed = with_negative_values(C::command())
        .try_get_matches_from(&arguments)
        .and_then(|matches| C::from_arg_matches(&matches))
        .map_err(|error| error.format(&mut C::command()));
    if let Err(help) = &parsed
        && !help.use_stderr()
    {
        help.exit();
    }
    let mut command = C::command();
    command.build();
    let errors = errors(&variables(), &command);
    if !errors.is_empty() {
        command
            .error(ErrorKind::InvalidValue, errors.join("\n"))
            .exit();
    }
    parsed.unwrap_or_else(|mut error| {
        if error.kind() == ErrorKind::MissingRequiredArgument {
            // clap's own shows what the environment sets as if it were required.
            let usage = usage(&mut command, arguments.get(1..).unwrap_or_default());
            error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
        }
        with_variables(error, &command).exit()
    })
}

/// Parses `arguments`, without the program's name, and ignores the environment: what is not among them has its default.
///
/// # Errors
/// If an argument is invalid, or a required one is missing.
pub fn parse_arguments<S: Args>(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<S, Error> {
    let command = S::augment_args(Command::new("importguard"))
        .no_binary_name(true)
        .mut_args(|argument| argument.env(Resettable::Reset));
    S::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

/// Lets options take negative values, so that their parsers say what to write instead: clap would report `-1` as an unknown flag.
fn with_negative_values(command: Command) -> Command {
    let is_time = |argument: &Arg| {
        let mut names = argument.get_value_names().unwrap_or_default().iter();
        names.any(|name| name == "DURATION" || name == "TIME")
    };
    command
        .mut_args(|argument| {
            if argument.is_positional() || !argument.get_action().takes_values() {
                argument
            } else if is_time(&argument) {
                // To clap, -1h is no number.
                argument.allow_hyphen_values(true)
            } else {
                argument.allow_negative_numbers(true)
            }
        })
        .mut_subcommands(with_negative_values)
}

/// The usage of the subcommand of `command` that `names` lead to.
fn usage(command: &mut Command, names: &[OsString]) -> StyledStr {
    let below = names.split_first().and_then(|(name, rest)| {
        let below = command.find_subcommand_mut(name)?;
        Some(usage(below, rest))
    });
    below.unwrap_or_else(|| command.render_usage())
}

/// Logs a line for each retired variable that is set.
pub fn report_retired() {
    for (name, instead) in RETIRED {
        if env::var_os(name).is_some() {
            warn!("{name} is retired and has no effect, unset it: {instead}");
        }
    }
}

type Variables = Vec<(String, String)>;

fn variables() -> Variables {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let mut variables: Variables = env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    variables.sort();
    variables
}

/// An error for each unknown and each empty one of `variables`, for the binary that `command` describes.
fn errors(variables: &[(String, String)], command: &Command) -> Vec<String> {
    let arguments = arguments(command);
    let error = |(name, value): &(String, String)| {
        let argument = arguments.iter().find(|arg| variable(arg) == Some(name));
        let known = argument.is_some() || VARIABLES.contains(&&**name);
        if known {
            value
                .trim()
                .is_empty()
                .then(|| empty(name, argument.copied()))
        } else if name.starts_with(PREFIX) && !is_kubernetes(name, value) && !is_retired(name) {
            Some(unknown(name, &arguments))
        } else {
            None
        }
    };
    variables.iter().filter_map(error).collect()
}

fn empty(name: &str, argument: Option<&Arg>) -> String {
    let defaults = argument.map(Arg::get_default_values).unwrap_or_default();
    let default = defaults.first().and_then(|default| default.to_str());
    match default {
        Some(default) => format!(
            "{name} is set but empty; unset it to use the default, {default}, or set a value"
        ),
        None => format!("{name} is set but empty; unset it or set a value"),
    }
}

/// How similar a known name must be to be suggested, from 0 to 1.
const SIMILAR: f64 = 0.85;

fn unknown(name: &str, arguments: &[&Arg]) -> String {
    // NATS_URL is worth suggesting for IMPORTGUARD_NATS_URL.
    let bare = |name| str::strip_prefix(name, PREFIX).unwrap_or(name);
    let others = arguments.iter().filter_map(|arg| variable(arg));
    let nearest = VARIABLES
        .into_iter()
        .chain(others)
        .map(|known| (strsim::jaro_winkler(bare(name), bare(known)), known))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .filter(|(similar, _)| *similar >= SIMILAR);
    match nearest {
        Some((_, nearest)) => {
            format!("unknown variable {name}; did you mean {nearest}? Rename or unset it")
        }
        None => format!("unknown variable {name}; unset it, or see --help for the known ones"),
    }
}

fn is_retired(name: &str) -> bool {
    RETIRED.iter().any(|(retired, _)| *retired == name)
}

/// Whether Kubernetes sets such a variable in every pod of the namespace for a Service called `importguard` or `importguard-…`:
/// `…_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_HTTP`, `…_PORT`, `…_PORT_80_TCP` and `…_PORT_80_TCP_ADDR`.
fn is_kubernetes(name: &str, value: &str) -> bool {
    let is_port = |rest: &str| {
        let (number, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && matches!(protocol.split('_').next(), Some("TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        // `tcp://10.0.0.1:80`; a bare port number is a misspelt setting.
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.split("_PORT_").skip(1).any(is_port)
}

/// Adds the variables to an error that names flags, and removes secret values.
fn with_variables(mut error: Error, command: &Command) -> Error {
    let arguments = arguments(command);
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => Some(value.clone()),
        _ => None,
    };
    // Commands may have a flag of the same name for different variables; an invalid value may also come from the command line.
    let both = |flag: &String| {
        let mut same = arguments.iter().filter(|arg| arg.to_string() == *flag);
        let set = same.find(|arg| value.as_deref().is_none_or(|value| holds(arg, value)));
        match set.and_then(|arg| variable(arg)) {
            Some(variable) => format!("{variable} ({flag})"),
            None => flag.clone(),
        }
    };
    let is_secret = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => arguments
            .iter()
            .any(|arg| arg.is_hide_env_values_set() && arg.to_string() == *flag),
        _ => false,
    };
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        let named = match error.get(kind) {
            Some(ContextValue::String(flag)) => ContextValue::String(both(flag)),
            Some(ContextValue::Strings(flags)) => {
                ContextValue::Strings(flags.iter().map(both).collect())
            }
            _ => continue,
        };
        error.insert(kind, named);
    }
    // A URL may hold a password.
    if value.is_some_and(|value| is_secret || value.contains('@')) {
        let hidden = ContextValue::String("…".to_owned());
        error.insert(ContextKind::InvalidValue, hidden);
    }
    error
}

/// Whether the environment sets `argument` to `value`, or to a list that contains it.
fn holds(argument: &Arg, value: &str) -> bool {
    let set = argument.get_env().and_then(env::var_os);
    let Some(set) = set.as_deref().and_then(|set| set.to_str()) else {
        return false;
    };
    let delimiter = argument.get_value_delimiter();
    set == value || delimiter.is_some_and(|delimiter| set.split(delimiter).any(|one| one == value))
}

fn variable(argument: &Arg) -> Option<&str> {
    argument.get_env()?.to_str()
}

/// The arguments of `command` and of all its subcommands.
fn arguments(command: &Command) -> Vec<&Arg> {
    let below = command.get_subcommands().flat_map(arguments);
    command.get_arguments().chain(below).collect()
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    fn error_for(name: &str, value: &str) -> Option<String> {
        let with_default = Arg::new("url")
            .long("url")
            .env("NATS_URL")
            .default_value("nats://a");
        let command = Command::new("some").arg(with_default);
        let variables = [(name.to_owned(), value.to_owned())];
        errors(&variables, &command).pop()
    }

    #[test]
    fn options_take_negative_values_for_their_parsers_and_no_flags() {
        let option = |name| Arg::new(name).long(name);
        let show = Command::new("show")
            .arg(option("since").value_name("TIME"))
            .arg(option("most"))
            .arg(option("json").action(ArgAction::SetTrue))
            .arg(Arg::new("users").num_args(0..));
        let command = with_negative_values(Command::new("some").subcommand(show));
        let parsed = |arguments: &str| {
            let arguments = arguments.split(' ');
            let matches = command.clone().try_get_matches_from(arguments)?;
            let (_, matches) = matches.subcommand().unwrap();
            let value = |name| matches.get_one::<String>(name).cloned();
            Ok::<_, Error>((value("since"), value("most"), matches.get_flag("json")))
        };
        let taken = parsed("some show --json --since -1h --most -1").unwrap();
        assert_eq!(taken, (Some("-1h".into()), Some("-1".into()), true));
        assert!(parsed("some show --most --json").is_err());
        assert!(parsed("some show u1").is_ok() && parsed("some show u1 -1").is_err());
    }

    #[test]
    fn an_unknown_variable_is_reported_with_the_nearest_known_one() {
        let error = error_for("IMPORTGUARD_ON_DECIDER_UNAVAIL", "allow").unwrap();
        for part in [
            "IMPORTGUARD_ON_DECIDER_UNAVAIL;",
            "IMPORTGUARD_ON_DECIDER_UNAVAILABLE?",
            "unset",
        ] {
            assert!(error.contains(part), "{error}");
        }
        let error = error_for("IMPORTGUARD_NATS_URL", "x").unwrap();
        assert!(error.contains("did you mean NATS_URL?"), "{error}");
    }

    #[test]
    fn nothing_is_suggested_for_a_name_that_resembles_none() {
        let error = error_for("IMPORTGUARD_XYZ", "1").unwrap();
        assert!(
            error.contains("IMPORTGUARD_XYZ") && !error.contains("did you mean"),
            "{error}"
        );
    }

    #[test]
    fn an_empty_variable_is_reported_with_its_default() {
        let error = error_for("NATS_URL", " ").unwrap();
        assert!(
            error.contains("NATS_URL is set but empty") && error.contains("nats://a"),
            "{error}"
        );
    }

    #[test]
    fn variables_of_any_binary_are_known_and_those_of_others_are_ignored() {
        for name in [
            "IMPORTGUARD_POLICY",
            "IMPORTGUARD_HTTP_LISTEN",
            "IMPORTGUARD_MAX_QUEUED",
            "NATS_URL",
            "OTHER",
        ] {
            assert_eq!(error_for(name, "1"), None, "{name}");
        }
        assert!(error_for("IMPORTGUARD_POLICY", "").is_some());
        assert_eq!(error_for("OTEL_SERVICE_NAME", ""), None);
        assert_eq!(error_for("NATS_CREDS", ""), None);
    }

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_are_ignored() {
        for name in [
            "IMPORTGUARD_SERVICE_HOST",
            "IMPORTGUARD_PORT_8080_TCP_ADDR",
            "IMPORTGUARD_GATEWAY_SERVICE_HOST",
            "IMPORTGUARD_GATEWAY_SERVICE_PORT",
            "IMPORTGUARD_GATEWAY_SERVICE_PORT_HTTP",
            "IMPORTGUARD_GATEWAY_PORT",
            "IMPORTGUARD_GATEWAY_PORT_8080_TCP",
            "IMPORTGUARD_GATEWAY_PORT_8080_TCP_PORT",
            "IMPORTGUARD_GATEWAY_PORT_8080_TCP_PROTO",
            "IMPORTGUARD_GATEWAY_PORT_53_UDP_ADDR",
        ] {
            assert_eq!(error_for(name, "tcp://10.0.0.1:8080"), None, "{name}");
        }
        for name in [
            "IMPORTGUARD_GATEWAY_PORTS",
            "IMPORTGUARD_GATEWAY_PORT_TCP",
            "IMPORTGUARD_PORT_X_TCP",
            "IMPORTGUARD_HTTP_PORT",
        ] {
            assert!(error_for(name, "8080").is_some(), "{name}");
        }
    }
}
