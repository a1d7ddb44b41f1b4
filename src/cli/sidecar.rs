//! `millpond micro [flags] sidecar [flags]`: micro alone, by the flags and the environment that its sidecar has.
//!
//! [`FLAGS`] is the one list: the grammar, the environment and what a flag sets are derived from it. A flag counts on
//! either side of the word, with one exception that comes from the original: before the word `--server_name` renames the
//! daemon's own service, behind it it names the application beside us.
//! Invariant: a flag sets one key of the configuration and is read as its text, so that `serve` and this form refuse the
//! same values. Runs on the main thread, before any shard exists.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::codec::time::parse_go_duration;
use crate::config::{Config, Diagnostics, Sources};

/// How the text of a flag becomes that of its key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is the text; of several the last counts.
    Value,
    /// Alone it means true.
    Switch,
    /// As Go writes them, such as `1m0.5s`.
    Duration,
    /// Where to listen; without a host, everywhere.
    Address,
    /// Separated by commas, or given several times.
    List,
}

/// One flag of the sidecar.
struct Flag {
    name: &'static str,
    /// The same for readers of older unit files.
    aliases: &'static [&'static str],
    kind: Kind,
    /// What it sets.
    key: &'static str,
    /// Variables that set it, too; the first that is there counts.
    env: &'static [&'static str],
    help: &'static str,
}

macro_rules! flags {
    ($($name:literal $([$($alias:literal),*])? $kind:ident $key:literal $env:tt $help:literal)*) => {
        /// Every flag.
        const FLAGS: &[Flag] = &[$(Flag {
            name: $name,
            aliases: &[$($($alias),*)?],
            kind: Kind::$kind,
            key: $key,
            env: &$env,
            help: $help,
        }),*];
    };
}

flags! {
    "address" ["sidecar_address"] Address "micro.listen" ["MICRO_SIDECAR_ADDRESS"]
        "Where to listen; 127.0.0.1:8081 without it, and :8081 is every interface"
    "server_name" Value "micro.server_name" ["MICRO_SIDECAR_SERVER_NAME"]
        "Register the application beside the daemon under this name; before the word sidecar: rename the daemon's own service"
    "server_address" Value "micro.server_address" ["MICRO_SIDECAR_SERVER_ADDRESS", "MICRO_SERVER_ADDRESS"]
        "Where the application is, as host:port"
    "healthcheck_url" Value "micro.healthcheck_url" ["MICRO_SIDECAR_HEALTHCHECK_URL", "MICRO_HEALTHCHECK_URL"]
        "What to ask whether the application is well"
    "healthcheck_interval" Duration "micro.healthcheck_interval" ["MICRO_SIDECAR_HEALTHCHECK_INTERVAL", "MICRO_HEALTHCHECK_INTERVAL"]
        "How often to ask; 30s without it"
    "healthcheck_timeout" Duration "micro.healthcheck_timeout" ["MICRO_SIDECAR_HEALTHCHECK_TIMEOUT", "MICRO_HEALTHCHECK_TIMEOUT"]
        "How long the answer may take; 5s without it"
    "healthcheck_healthy_threshold" Value "micro.healthcheck_healthy_threshold" ["MICRO_HEALTHCHECK_HEALTHY_THRESHOLD"]
        "Good answers in a row that register the application again"
    "healthcheck_unhealthy_threshold" Value "micro.healthcheck_unhealthy_threshold" ["MICRO_HEALTHCHECK_UNHEALTHY_THRESHOLD"]
        "Bad answers in a row that take it out"
    "cors" ["sidecar_cors"] List "micro.cors" ["MICRO_SIDECAR_CORS"]
        "Foreign origins that browsers may come from; * is any"
    "handler" ["sidecar_handler"] Value "micro.handler" ["MICRO_SIDECAR_HANDLER"]
        "What a path that nothing else claims is: rpc, a call, or proxy, passed on"
    "namespace" ["sidecar_namespace"] Value "micro.namespace" ["MICRO_SIDECAR_NAMESPACE"]
        "What the names of services begin with; go.micro.srv without it"
    "enable_stats" Switch "micro.enable_stats" ["MICRO_ENABLE_STATS"] "Serve /stats"
    "enable_tls" Switch "micro.enable_tls" ["MICRO_ENABLE_TLS"] "Speak TLS"
    "tls_cert_file" Value "micro.tls_cert_file" ["MICRO_TLS_CERT_FILE"] "The certificate chain, PEM"
    "tls_key_file" Value "micro.tls_key_file" ["MICRO_TLS_KEY_FILE"] "The private key, PEM"
    "tls_client_ca_file" Value "micro.tls_client_ca_file" ["MICRO_TLS_CLIENT_CA_FILE"]
        "The authority whose signature clients must show, PEM"
    "enable_acme" Switch "micro.enable_acme" ["MICRO_ENABLE_ACME"] "Refused: certificates come from files"
    "acme_hosts" List "micro.acme_hosts" ["MICRO_ACME_HOSTS"] "Refused: certificates come from files"
    "registry" Value "micro.registry" ["MICRO_REGISTRY"] "memory, the built-in one; others are refused"
    "client_request_timeout" Duration "micro.client_request_timeout" ["MICRO_CLIENT_REQUEST_TIMEOUT"]
        "How long a call may take; 5s without it"
    "client_retries" Value "micro.client_retries" ["MICRO_CLIENT_RETRIES"] "How often a call is tried, over different nodes"
    "client_pool_size" Value "micro.client_pool_size" ["MICRO_CLIENT_POOL_SIZE"] "Idle connections kept per node"
    "client_pool_ttl" Duration "micro.client_pool_ttl" ["MICRO_CLIENT_POOL_TTL"] "How long they are kept; 60s without it"
    "max_request_timeout" Duration "micro.max_request_timeout" ["MICRO_MAX_REQUEST_TIMEOUT"]
        "The longest time that a caller may ask for"
    "admin_address" ["admin-listen"] Address "admin.listen" ["MICRO_SIDECAR_ADMIN_ADDRESS"]
        "Where /livez, /readyz and /metrics listen; nowhere without it"
    "data_dir" ["data-dir"] Value "data_dir" ["MICRO_SIDECAR_DATA_DIR"]
        "Where durable topics are stored, once there is one; ./millpond-data without it"
    "config" Value "" ["MICRO_SIDECAR_CONFIG"] "A configuration file (TOML); flags and environment come before it"
    "shards" Value "shards" [] "How many shards run; 0 is one per core"
    "log" Value "log" [] "The form of the log: text or json"
    "log_level" ["log-level"] Value "log_level" [] "The least severe event logged: error, warn, info, debug or trace"
    "ready_fd" ["ready-fd"] Value "" [] "Write one JSON line with all addresses to this descriptor once everything serves"
}

/// What only `sidecar` has on the other side of the word: the name of the daemon's own service.
const OWN_NAME: (&str, &str) = ("micro.sidecar_name", "MICRO_SERVER_NAME");

/// The flags on one side of the word.
#[derive(Clone, Debug, Default)]
pub struct Flags(Vec<(&'static str, Vec<String>)>);

impl Flags {
    /// One that was given.
    pub fn first(&self) -> Option<&'static str> {
        self.0.first().map(|(name, _)| *name)
    }

    fn of(&self, name: &str) -> Option<&[String]> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, values)| values.as_slice())
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, flag| command.arg(arg(flag)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn arg(flag: &Flag) -> Arg {
    let env = flag.env.first().map_or(String::new(), |name| format!(" [env: {name}]"));
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .aliases(flag.aliases)
        .action(ArgAction::Append)
        .help(format!("{}{env}", flag.help))
        .help_heading("Flags of sidecar, on either side of the word");
    match flag.kind {
        Kind::Switch => {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
        }
        Kind::Duration => arg.value_name("DURATION"),
        Kind::Address => arg.value_name("ADDR"),
        Kind::Value | Kind::List => arg.value_name("TEXT"),
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |flag: &Flag| {
            let values = matches.get_many::<String>(flag.name)?;
            Some((flag.name, values.cloned().collect()))
        };
        Ok(Flags(FLAGS.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Serves micro until a signal; 2 for flags that contradict each other, 78 when a value cannot be used.
pub fn run(before: &Flags, behind: &Flags) -> ExitCode {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (sources, ready_fd) = match sources(before, behind, env) {
        Ok(sources) => sources,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            return ExitCode::from(super::MISUSED);
        }
    };
    match Config::load(&sources.with_env(std::env::vars_os())) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| super::serve::warn(loaded.config.log, warning));
            crate::daemon::serve(loaded.config, ready_fd)
        }
        Err(diagnostics) => {
            eprintln!("{diagnostics}");
            ExitCode::from(Diagnostics::EXIT_CODE)
        }
    }
}

/// What the flags and our variables say, and the descriptor for the ready line.
fn sources(
    before: &Flags,
    behind: &Flags,
    env: impl Fn(&str) -> Option<String>,
) -> Result<(Sources, Option<i32>), String> {
    let value = |flag: &Flag| {
        let behind = behind.of(flag.name).map(<[String]>::to_vec);
        let before = before.of(flag.name).filter(|_| flag.name != "server_name").map(<[String]>::to_vec);
        let variable = || flag.env.iter().find_map(|name| env(name)).map(|value| vec![value]);
        behind.or(before).or_else(variable)
    };
    let text = |name: &str| {
        let flag = FLAGS.iter().find(|flag| flag.name == name).expect("it is in the list");
        value(flag).and_then(|values| values.last().cloned())
    };
    let own_name = before.of("server_name").and_then(<[String]>::last).cloned().or_else(|| env(OWN_NAME.1));
    if let (Some(_), None, Some(name)) = (text("server_address"), text("server_name"), &own_name) {
        return Err(format!(
            "--server_address names the application beside the daemon, but --server_name={name} stands before the \
             word sidecar, where it renames the daemon's own service; write: sidecar --server_name={name} \
             --server_address=HOST:PORT"
        ));
    }
    let mut sources = Sources::new(text("config").map(Into::into));
    for dialect in ["loom", "vblob", "s3", "ion", "serpentine"] {
        sources = sources.with_flag("micro sidecar", &format!("{dialect}.enabled"), &["false".to_owned()]);
    }
    let (on, off) = (["true".to_owned()], ["false".to_owned()]);
    sources = sources.with_flag("micro sidecar", "micro.enabled", &on);
    if text("admin_address").is_none() {
        sources = sources.with_flag("micro sidecar", "admin.enabled", &off);
    }
    for flag in FLAGS.iter().filter(|flag| !flag.key.is_empty()) {
        if let Some(values) = value(flag) {
            sources = sources.with_flag(&format!("--{}", flag.name), flag.key, &flag.kind.texts(&values));
        }
    }
    if let Some(name) = own_name {
        sources = sources.with_flag("--server_name", OWN_NAME.0, &[name]);
    }
    let ready_fd = text("ready_fd").map(|fd| match fd.parse::<i32>() {
        Ok(fd) if fd >= 0 => Ok(fd),
        _ => Err(format!("--ready_fd={fd} is no descriptor")),
    });
    Ok((sources, ready_fd.transpose()?))
}

impl Kind {
    /// The texts of the key.
    fn texts(self, values: &[String]) -> Vec<String> {
        let last = values.last().cloned().unwrap_or_default();
        match self {
            Kind::Value | Kind::Switch => vec![last],
            Kind::List => values.to_vec(),
            // In our units where Go's words are none of ours; what is no duration is refused by its key.
            Kind::Duration => match parse_go_duration(&last) {
                Ok(duration) => vec![format!("{}ns", duration.as_nanos())],
                Err(_) => vec![last],
            },
            Kind::Address => values.iter().map(|address| everywhere(address)).collect(),
        }
    }
}

/// `:8081`, as Go writes it, is every interface.
fn everywhere(address: &str) -> String {
    if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command as Chosen, MicroCommand};
    use crate::config::Listen;
    use clap::Parser;

    fn load(line: &str, env: &[(&str, &str)]) -> Result<Config, String> {
        let words = ["millpond", "micro"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Chosen::Micro(args) = cli.command else { panic!("not micro") };
        let MicroCommand::Sidecar(behind) = args.command else { panic!("not sidecar") };
        let find =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let (sources, _) = sources(&args.before, &behind, find)?;
        Config::load(&sources).map(|loaded| loaded.config).map_err(|found| found.to_string())
    }

    #[test]
    fn micro_alone_on_loopback() {
        let config = load("sidecar", &[]).unwrap();
        let served: Vec<_> =
            config.services().iter().filter(|service| service.enabled).map(|service| service.name).collect();
        assert_eq!(served, ["micro"]);
        assert_eq!(config.micro.listen, [Listen::loopback(8081)]);
        assert_eq!(config.micro.sidecar_name, "go.micro.sidecar");
    }

    #[test]
    fn a_flag_counts_on_either_side_of_the_word_and_by_its_variable() {
        let everywhere: Listen = Listen::Tcp("0.0.0.0:9999".parse().unwrap());
        for (line, env) in [
            ("--sidecar_address=:9999 sidecar", None),
            ("sidecar --address :9999", None),
            ("sidecar --sidecar_address=:9999", None),
            ("--address=:1 sidecar --address=:9999", None),
            ("sidecar", Some(("MICRO_SIDECAR_ADDRESS", ":9999"))),
            ("sidecar --address=:9999", Some(("MICRO_SIDECAR_ADDRESS", ":1"))),
        ] {
            let config = load(line, env.as_slice()).unwrap();
            assert_eq!(config.micro.listen, std::slice::from_ref(&everywhere), "{line}");
        }
        let config = load("--enable_stats --client_request_timeout=1m0.5s sidecar --cors=a,b --cors c", &[]);
        let micro = config.unwrap().micro;
        assert!(micro.enable_stats);
        assert_eq!(micro.cors, ["a", "b", "c"]);
        assert_eq!(std::time::Duration::from(micro.client_request_timeout).as_millis(), 60_500);
        assert!(
            !load("sidecar --enable_stats=false", &[("MICRO_ENABLE_STATS", "true")])
                .unwrap()
                .micro
                .enable_stats
        );
    }

    #[test]
    fn the_name_before_the_word_is_the_daemons_own() {
        let config = load("--server_name=car sidecar --server_name=app --server_address=a:1", &[]).unwrap();
        assert_eq!(config.micro.sidecar_name, "car");
        assert_eq!(config.micro.server_name.as_deref(), Some("app"));
        let config = load("--server_address=a:1 sidecar --server_name=app", &[]).unwrap();
        assert_eq!(config.micro.server_address.as_deref(), Some("a:1"));
        let refused = load("--server_name=app --server_address=a:1 sidecar", &[]).unwrap_err();
        assert!(refused.contains("write: sidecar --server_name=app"), "{refused}");
        let half = load("sidecar --server_name=app", &[]).unwrap_err();
        assert!(half.contains("micro.server_address is not set"), "{half}");
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        for line in ["sidecar --registry=consul", "sidecar --enable_acme", "sidecar --handler=web"] {
            assert!(load(line, &[]).is_err(), "{line}");
        }
        load("sidecar --registry=memory", &[]).unwrap();
    }

    #[test]
    fn every_flag_sets_a_key_that_is_there() {
        for flag in FLAGS.iter().filter(|flag| !flag.key.is_empty()) {
            let refused =
                Config::load(&Sources::new(None).with_flag(flag.name, flag.key, &["\u{1}".to_owned()]));
            let told = refused.err().map_or(String::new(), |found| found.to_string());
            assert!(!told.contains("unknown key"), "{}: {told}", flag.name);
        }
    }
}
