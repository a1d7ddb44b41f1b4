//! The command line as a grammar: every subcommand and every flag, and nothing that is not built.
//!
//! Invariant: a flag that has a key in the configuration says so in its help, and is read as the
//! text of that key, so that both refuse the same values with the same words.
//! Pure data; parsed once on the main thread.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::sidecar::Flags;

/// Live streams, blobs, process output and services from one daemon.
#[derive(Debug, Parser)]
#[command(name = "millpond", version, long_version = LONG_VERSION, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The arguments when we are called `stream`.
#[derive(Debug, Parser)]
#[command(name = "stream", version, about = "Send stdin into a live stream and print the answer")]
pub struct StreamCli {
    /// As those of the subcommand.
    #[command(flatten)]
    pub args: StreamArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    Serve(ServeArgs),
    /// Read the configuration and report every mistake; binds and writes nothing
    CheckConfig(CheckConfigArgs),
    /// Check the host and the data directory for what would keep the daemon from running well
    ///
    /// One line per check: its name, ok, warn or fail, what was found, and what to do. A fail is what `serve`
    /// would refuse, or what breaks a promise. Binds nothing, and keeps nothing that it writes. Exit code: 0
    /// when nothing failed, 1 when something did, 78 for a bad configuration.
    Doctor(DoctorArgs),
    /// Check every record and every stored byte of a data directory that no daemon uses
    ///
    /// Reads what a start would read, and every byte that a name refers to, and compares checksums. One line per
    /// damage: the file and the position in it, what is damaged, and what is lost. Changes nothing, unless told to
    /// repair: then what is damaged moves into the directory's `quarantine`, and nothing is deleted.
    ///
    /// Exit code: 0 when everything is whole, 1 when something is damaged, 2 when it could not be checked
    /// or repaired: the directory is in use, written by a newer release, no data directory, or the system refused something.
    Verify(VerifyArgs),
    /// Send stdin into a live stream, unbuffered
    Pipe(PipeArgs),
    /// Send stdin into a live stream and print the answer
    Stream(StreamArgs),
    /// Print a stream to stdout
    Tail(TailArgs),
    /// Stand in for the sidecar of ion
    Ion(IonArgs),
    /// Serve micro alone, by the flags of its sidecar, or ask a daemon that serves it
    ///
    /// Exit code of the questions: 0 when the daemon answered with 2xx, else 1. A token comes from the variable
    /// MICRO_TOKEN, the address of the daemon from MICRO_PROXY_ADDRESS where --proxy_address is not given.
    Micro(MicroArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// Arguments of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// The configuration file (TOML); without one the defaults hold
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where everything is stored [key: data_dir]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// How many shards run; 0 is one per core [key: shards]
    #[arg(long, value_name = "N")]
    pub shards: Option<String>,
    /// Where the admin endpoints listen; may be repeated [key: admin.listen]
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Vec<String>,
    /// Where loom listens; may be repeated [key: loom.listen]
    #[arg(long, value_name = "ADDR")]
    pub loom_listen: Vec<String>,
    /// Where vblob listens; may be repeated [key: vblob.listen]
    #[arg(long, value_name = "ADDR")]
    pub vblob_listen: Vec<String>,
    /// Where s3 listens; may be repeated [key: s3.listen]
    #[arg(long, value_name = "ADDR")]
    pub s3_listen: Vec<String>,
    /// Where ion listens; may be repeated [key: ion.listen]
    #[arg(long, value_name = "ADDR")]
    pub ion_listen: Vec<String>,
    /// Where serpentine listens; may be repeated [key: serpentine.listen]
    #[arg(long, value_name = "ADDR")]
    pub serpentine_listen: Vec<String>,
    /// Where micro listens; may be repeated [key: micro.listen]
    #[arg(long, value_name = "ADDR")]
    pub micro_listen: Vec<String>,
    /// The form of the log: text or json [key: log]
    #[arg(long, value_name = "FORMAT")]
    pub log: Option<String>,
    /// The least severe event logged: error, warn, info, debug or trace [key: log_level]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Write one JSON line with all addresses to this descriptor once everything serves
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub ready_fd: Option<i32>,
}

/// Arguments of `check-config`.
#[derive(Clone, Debug, Args)]
pub struct CheckConfigArgs {
    /// The configuration file (TOML); without one the environment alone is checked
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check nothing: print vblob's config.json as a configuration of ours
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "import_loom"])]
    pub import_vblob: Option<PathBuf>,
    /// Check nothing: print loom's YAML as a configuration of ours
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub import_loom: Option<PathBuf>,
}

/// Arguments of `doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// The configuration file (TOML) that `serve` would get
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where everything would be stored [key: data_dir]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// How many shards would run; 0 is one per core [key: shards]
    #[arg(long, value_name = "N")]
    pub shards: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// The data directory
    pub data_dir: PathBuf,
    /// Take what is damaged away, into its `quarantine` directory, so that the rest is whole
    #[arg(long)]
    pub repair: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `pipe`.
#[derive(Clone, Debug, Args)]
pub struct PipeArgs {
    /// The daemon, such as http://127.0.0.1:3060
    pub url: String,
    /// The stream's id
    pub id: String,
    /// Replace a stream that exists
    #[arg(long)]
    pub force: bool,
    /// A JSON object kept with the stream
    #[arg(long, value_name = "JSON")]
    pub metadata: Option<String>,
    /// The bearer token
    #[arg(long, value_name = "T")]
    pub token: Option<String>,
}

/// Arguments of `stream`.
#[derive(Clone, Debug, Args)]
pub struct StreamArgs {
    /// The daemon, such as http://127.0.0.1:3060
    pub url: String,
    /// The stream's id
    pub id: String,
    /// Replace a stream that exists
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `tail`.
#[derive(Clone, Debug, Args)]
pub struct TailArgs {
    /// The daemon, such as http://127.0.0.1:3060
    pub url: String,
    /// The stream's id
    pub id: String,
    /// Stop at the end of what is there instead of following
    #[arg(long)]
    pub notail: bool,
    /// Begin at this byte
    #[arg(long, value_name = "N")]
    pub offset: Option<u64>,
    /// The bearer token
    #[arg(long, value_name = "T")]
    pub token: Option<String>,
}

/// Arguments of `ion`.
#[derive(Clone, Debug, Args)]
pub struct IonArgs {
    /// As what.
    #[command(subcommand)]
    pub command: IonCommand,
}

/// The subcommands of `ion`.
#[derive(Clone, Debug, Subcommand)]
pub enum IonCommand {
    /// Serve one module, on 127.0.0.1, by the flags of its sidecar
    Sidecar(Box<SidecarArgs>),
}

/// Arguments of `ion sidecar`: the flags that pod specifications have.
#[derive(Clone, Debug, Args)]
pub struct SidecarArgs {
    /// What pod specifications may say here
    #[arg(value_parser = ["start"], hide = true)]
    pub start: Option<String>,
    /// What the module sends in the header secret
    #[arg(long, value_name = "SECRET")]
    pub sharedsecret: String,
    /// The event that the module handles
    #[arg(long, value_name = "ID")]
    pub eventid: String,
    /// The event that caused it
    #[arg(long, value_name = "ID")]
    pub parenteventid: String,
    /// What ties the chain together
    #[arg(long, value_name = "ID")]
    pub correlationid: String,
    /// The port on 127.0.0.1; 8080 without it
    #[arg(long, value_name = "PORT")]
    pub serverport: Option<u16>,
    /// The only types of events that the module may publish, separated by commas
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    pub valideventtypes: Vec<String>,
    /// The least severe event logged: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub loglevel: Option<String>,
    /// Where everything is stored; ./millpond-data without it
    #[arg(long = "filesystemblobprovider.basedir", value_name = "DIR")]
    pub basedir: Option<String>,
    /// Write one JSON line with all addresses to this descriptor once everything serves
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub ready_fd: Option<i32>,
    /// Stores of others, which the embedded one replaces.
    #[command(flatten)]
    pub replaced: Replaced,
}

macro_rules! replaced {
    ($($field:ident $name:literal)*) => {
        /// Flags that are taken and change nothing.
        #[derive(Clone, Debug, Default, Args)]
        pub struct Replaced {
            $(
                /// Taken, and replaced by the embedded store
                #[arg(long = $name, num_args = 0..=1, default_missing_value = "true", hide = true)]
                pub $field: Option<String>,
            )*
        }

        impl SidecarArgs {
            /// The names of those that were given.
            pub fn replaced(&self) -> Vec<&'static str> {
                let given = [$((concat!("--", $name), self.replaced.$field.is_some())),*];
                given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
            }
        }
    };
}

replaced! {
    filesystem "filesystemblobprovider"
    azure "azureblobprovider"
    azure_name "azureblobprovider.blobaccountname"
    azure_key "azureblobprovider.blobaccountkey"
    azure_proxy "azureblobprovider.useproxy"
    mongo "mongodbmetaprovider"
    mongo_name "mongodbmetaprovider.name"
    mongo_password "mongodbmetaprovider.password"
    mongo_collection "mongodbmetaprovider.collection"
    mongo_port "mongodbmetaprovider.port"
    bus "servicebuseventprovider"
    bus_namespace "servicebuseventprovider.namespace"
    bus_topic "servicebuseventprovider.topic"
    bus_key "servicebuseventprovider.key"
    bus_rule "servicebuseventprovider.authorizationrulename"
    logfile "logfile"
    printconfig "printconfig"
}

/// Arguments of `micro`.
#[derive(Clone, Debug, Args)]
pub struct MicroArgs {
    /// Where the daemon's micro listener is
    #[arg(long = "proxy_address", value_name = "HOST:PORT", global = true)]
    pub proxy_address: Option<String>,
    /// Flags of `sidecar` before the word.
    #[command(flatten)]
    pub before: Flags,
    /// What to do.
    #[command(subcommand)]
    pub command: MicroCommand,
}

/// What to ask a daemon that serves micro.
#[derive(Clone, Debug, Subcommand)]
pub enum MicroCommand {
    /// Serve micro alone: registry, calls and topics, on 127.0.0.1:8081
    Sidecar(Flags),
    /// The names of all services
    List {
        /// services
        #[arg(value_parser = ["services"])]
        what: String,
    },
    /// The versions and nodes of a service
    Get(OneService),
    /// Register a service, given as JSON
    Register(GivenService),
    /// Take the nodes of a service out, given as JSON
    Deregister(GivenService),
    /// Call a service and print its result
    #[command(alias = "query")]
    Call {
        /// The service
        service: String,
        /// The method, such as Example.Call
        method: String,
        /// The request, as JSON
        #[arg(default_value = "{}")]
        request: String,
    },
    /// Ask every node of a service whether it is well
    Health {
        /// The service
        service: String,
    },
    /// Ask every node of a service how it does
    Stats {
        /// The service
        service: String,
    },
    /// Publish a message on a topic
    Publish {
        /// The topic
        topic: String,
        /// The message
        message: String,
    },
    /// Print what is published on a topic, one message a line, until it is interrupted
    Stream {
        /// The topic
        topic: String,
        /// The group, of which one member gets each message
        #[arg(long)]
        queue: Option<String>,
        /// Begin in what was kept: an offset, a time ago such as -5m, or start
        #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
        from: Option<String>,
        /// Go on where this name was the last time
        #[arg(long, value_name = "NAME")]
        durable: Option<String>,
        /// End after so many messages
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
}

/// `service X`
#[derive(Clone, Debug, Args)]
pub struct OneService {
    /// service
    #[arg(value_parser = ["service"])]
    pub what: String,
    /// Its name
    pub name: String,
}

/// `service JSON`
#[derive(Clone, Debug, Args)]
pub struct GivenService {
    /// service
    #[arg(value_parser = ["service"])]
    pub what: String,
    /// Its name and nodes
    pub json: String,
}

/// Arguments of `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// What a bug report should begin with.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\nrevision: ",
    env!("MILLPOND_BUILD_REVISION"),
    "\nrustc: ",
    env!("MILLPOND_BUILD_RUSTC"),
    "\nfeatures: ",
    env!("MILLPOND_BUILD_FEATURES"),
);
