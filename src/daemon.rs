//! Boots the shards, binds the listeners, waits for signals, drains.
//!
//! Order of a start: host checks, sockets, store recovery, shards, ready line. Whatever fails says one sentence
//! and leaves nothing bound. Order of an end: stop accepting, let exchanges finish for `drain_timeout`, cut the
//! rest, seal and sync the store, leave. Runs on the main thread, which sleeps in between.

pub mod alone;
pub mod certificates;
pub mod control;
pub mod holder;
pub mod late;
pub mod listen;
pub mod mesh;
pub mod ports;
pub mod remote;
pub mod serving;

use crate::config::{Config, Diagnostics, Durability, LogFormat, LogLevel};
use crate::dialect::admin::Vitals;
use crate::dialect::ion;
use crate::dialect::vblob::accounts::Accounts;
use crate::observe::log::{self, LogHandle};
use crate::observe::metrics::{self, ShardMetrics};
use crate::runtime::clock::Clock;
use crate::runtime::driver::{self, Running};
use crate::runtime::file::os::OsDisk;
use crate::runtime::memory;
use crate::runtime::{Disk, entropy, preflight};
use crate::service::chain::{Modules, Stamps};
use crate::service::owner;
use crate::storage::{self, OpenError, Store};
use certificates::Keyring;
use control::{Control, Phase};
use listen::{Address, Bound};
use ports::Ports;
use remote::Elsewhere;
use serving::{Handout, Mailboxes, Parts};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// Sections that this version serves.
const AVAILABLE: &[&str] = &["admin", "loom", "vblob", "s3", "ion", "serpentine", "micro"];

/// Serves until a signal ends it; 78 when a listener cannot use its certificates. `ready_fd` gets one JSON line once
/// everything serves.
pub fn serve(config: Config, ready_fd: Option<i32>) -> ExitCode {
    let keyring = match Keyring::load(&config) {
        Ok(keyring) => Arc::new(keyring),
        Err(diagnostics) => {
            eprintln!("{diagnostics}");
            return ExitCode::from(Diagnostics::EXIT_CODE);
        }
    };
    let log = match log::init(log_format(config.log), log_level(config.log_level)) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("millpond: the log cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match run(config, keyring, ready_fd, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            tracing::error!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

/// The whole life of the daemon; an error is one sentence for the operator.
fn run(config: Config, keyring: Arc<Keyring>, ready_fd: Option<i32>, log: &LogHandle) -> Result<(), String> {
    metrics::started_at(Duration::from_nanos(Clock::machine().wall().unix_nanos()));
    preflight::check().map_err(|refused| refused.to_string())?;
    // Caught from here on: a signal that comes during recovery ends the daemon in order, right after it.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| format!("signals cannot be received: {error}"))?;
    let shards = shard_count(&config)?;
    let bound = bind_all(&config, shards)?;
    let unix_paths: Vec<_> = bound.iter().flat_map(|bound| bound.unix_paths.clone()).collect();
    let ports = Arc::new(Ports::new(&config, shards));
    if let Some(error) = ports.configure(&config).first() {
        ports.remove_paths();
        return Err(error.to_string());
    }
    let mut addresses: Vec<_> = bound.iter().map(|bound| (bound.name, bound.addresses.clone())).collect();
    let result = start(config, shards, bound, keyring, ports.clone()).and_then(|started| {
        addresses.extend(ports.addresses().into_iter().map(|(_, address)| (ports::SECTION, vec![address])));
        for (dialect, addresses) in &addresses {
            addresses.iter().for_each(|addr| tracing::info!(dialect, %addr, "listening"));
        }
        announce(&ready_line(&addresses), ready_fd);
        wait(started, &mut signals, log)
    });
    for path in unix_paths {
        let _ = std::fs::remove_file(path);
    }
    ports.remove_paths();
    result
}

/// How many shards `config` asks for.
pub fn shard_count(config: &Config) -> Result<usize, String> {
    match config.shards {
        0 => preflight::allowed_cpus().map(|cpus| cpus.len()).map_err(|refused| refused.to_string()),
        count => Ok(usize::from(count)),
    }
}

fn bind_all(config: &Config, shards: usize) -> Result<Vec<Bound>, String> {
    let mut bound = Vec::new();
    for service in config.services() {
        if !AVAILABLE.contains(&service.name) {
            if service.enabled {
                tracing::info!(dialect = service.name, "dialect not available");
            }
            continue;
        }
        if service.enabled {
            let congestion = &config.net.loopback_congestion;
            let key = format!("{}.listen", service.name);
            let listen = service.listen;
            bound.push(
                listen::bind(service.name, &key, listen, shards, congestion)
                    .map_err(|error| error.to_string())?,
            );
        }
    }
    let further = config.serpentine.listener.iter().filter(|_| config.serpentine.enabled);
    let further = further.enumerate().map(|(index, listener)| {
        ("serpentine", format!("serpentine.listener[{index}].listen"), &listener.listen)
    });
    let proxies = config.proxy.iter().enumerate();
    let proxies = proxies.map(|(index, proxy)| ("proxy", format!("proxy[{index}].listen"), &proxy.listen));
    for (name, key, listen) in further.chain(proxies) {
        let congestion = &config.net.loopback_congestion;
        bound.push(listen::bind(name, &key, listen, shards, congestion).map_err(|error| error.to_string())?);
    }
    Ok(bound)
}

/// Shards that serve, and how to talk to them.
struct Started {
    running: Running,
    control: Arc<Control>,
    accounts: Arc<Accounts>,
    keyring: Arc<Keyring>,
    modules: Arc<Modules>,
    ports: Arc<Ports>,
}

/// Recovers the store and starts the shards; returns once all of them accept.
fn start(
    config: Config,
    shards: usize,
    bound: Vec<Bound>,
    keyring: Arc<Keyring>,
    ports: Arc<Ports>,
) -> Result<Started, String> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let options = options(&config, shards);
    let accounts = Arc::new(accounts(&*disk, &config)?);
    let from_the_start = stores_from_the_start(&config);
    let images = match from_the_start {
        true => {
            Store::open_all(&disk, &config.data_dir, &options).map_err(|error| explain(&config, &error))?
        }
        false => Vec::new(),
    };
    let images: Vec<_> =
        images.into_iter().map(Some).chain(std::iter::repeat_with(|| None)).take(shards).collect();
    memory::give_back();
    let fifo_dir = fifo_dir(&config);
    let micro_at = listen::first_tcp(&bound, "micro");
    let control = Control::new(Arc::new(config));
    let metrics: Vec<_> = (0..shards).map(|_| Arc::new(ShardMetrics::default())).collect();
    let vitals: Vec<_> = (0..shards).map(|_| Arc::new(Vitals::default())).collect();
    let late = (!from_the_start).then(|| Arc::new(late::Late::new(disk.clone(), control.config(), options)));
    let kept_shared = Arc::new(crate::service::kept::Shared::default());
    let (serves, serving) = sync_channel(shards);
    let mailboxes = Mailboxes::of(shards);
    let (modules, stamps) = (Arc::new(Modules::default()), Stamps::default());
    modules.configure(ion::configured(&control.config().ion));
    let elsewhere = Elsewhere::of(&control.config(), keyring.trust());
    let handout = Handout::new(images, mailboxes, bound, |image, mailboxes, sockets| Parts {
        image,
        mailboxes,
        sockets,
        control: control.clone(),
        accounts: accounts.clone(),
        keyring: keyring.clone(),
        elsewhere: elsewhere.clone(),
        fifo_dir: fifo_dir.clone(),
        modules: modules.clone(),
        ports: ports.clone(),
        stamps: stamps.clone(),
        micro_at,
        kept_shared: kept_shared.clone(),
        late: late.clone(),
        metrics: metrics.clone(),
        vitals: vitals.clone(),
        serves: serves.clone(),
    });
    drop(serves);
    let running =
        driver::start(shards, disk, move |id, unparks| Box::pin(serving::serve(handout.take(id), unparks)))
            .map_err(|error| error.to_string())?;
    ports.wake_with(running.unparks());
    for _ in 0..shards {
        if serving.recv().is_err() {
            running.join();
            return Err("a shard ended while it started; the log above says why".into());
        }
    }
    Ok(Started { running, control, accounts, keyring, modules, ports })
}

/// Whether anything is served that keeps what it gets. Micro alone does not, until a topic is to be durable.
fn stores_from_the_start(config: &Config) -> bool {
    let alone = config
        .services()
        .iter()
        .all(|service| !service.enabled || ["admin", "micro"].contains(&service.name));
    !alone || !config.micro.enabled || !config.proxy.is_empty()
}

/// Where FIFOs are made: as configured; else where the system keeps what lives as long as it runs; else a directory of
/// this process alone, whose FIFOs no later one finds.
fn fifo_dir(config: &Config) -> PathBuf {
    let of_user = || {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        runtime.filter(|dir| dir.is_absolute() && dir.is_dir()).map(|dir| dir.join("millpond"))
    };
    let configured = config.serpentine.fifo_dir.clone();
    let of_system = || rustix::process::geteuid().is_root().then(|| PathBuf::from("/run/millpond"));
    let of_process = || std::env::temp_dir().join(format!("millpond-{}", std::process::id()));
    configured.or_else(of_system).or_else(of_user).unwrap_or_else(of_process)
}

/// The accounts of vblob that were bound.
fn accounts(disk: &dyn Disk, config: &Config) -> Result<Accounts, String> {
    let key = entropy::secret().map_err(|error| format!("the system gives no random numbers: {error}"))?;
    let file = config.vblob.account_file.as_deref().filter(|_| config.vblob.enabled);
    Accounts::open(disk, file, key).map_err(|error| {
        let file = file.unwrap_or(Path::new("")).display();
        format!("vblob.account_file: {file} cannot be read: {error}")
    })
}

/// How to open the store.
pub fn options(config: &Config, shards: usize) -> storage::Options {
    storage::Options {
        shards,
        durability: match config.durability {
            Durability::Sync => storage::Durability::Sync,
            Durability::Cache => storage::Durability::Cache,
        },
        sync_interval: config.sync_interval.into(),
        segment_size: config.segment_size.bytes(),
        part_of: owner::part_of,
    }
}

/// Why the data directory cannot be opened, in a sentence.
pub fn explain(config: &Config, error: &OpenError) -> String {
    match error {
        OpenError::Locked(_) => format!("data_dir: {}", in_use(&config.data_dir)),
        other => format!("data_dir: {} cannot be opened: {other}", config.data_dir.display()),
    }
}

/// Who has the data directory, in a clause.
pub fn in_use(dir: &Path) -> String {
    let holder = holder::of_lock(&dir.join(storage::LOCK));
    let holder = holder.map_or("another process".to_owned(), |holder| holder.to_string());
    format!("{} is in use by {holder}", dir.display())
}

/// `{"admin":"127.0.0.1:9400","loom":["127.0.0.1:3060","unix:/run/loom"]}`
fn ready_line(bound: &[(&str, Vec<Address>)]) -> String {
    let mut line: serde_json::Map<String, serde_json::Value> = serde_json::Map::new();
    for (name, addresses) in bound {
        for address in addresses {
            let address = address.to_string().into();
            match line.get_mut(*name) {
                None => drop(line.insert((*name).to_owned(), address)),
                Some(serde_json::Value::Array(all)) => all.push(address),
                Some(one) => *one = vec![one.take(), address].into(),
            }
        }
    }
    serde_json::Value::Object(line).to_string()
}

fn announce(line: &str, ready_fd: Option<i32>) {
    let Some(fd) = ready_fd else { return };
    if let Err(error) = driver::write_ready_line(fd, line) {
        tracing::warn!(fd, %error, "the ready line could not be written");
    }
}

/// Follows signals until the shards have ended.
fn wait(started: Started, signals: &mut Signals, log: &LogHandle) -> Result<(), String> {
    let Started { running, control, accounts, keyring, modules, ports } = started;
    let unparks = running.unparks().to_vec();
    // Shards end after a signal or by dying: either way the wait for signals has to end with them.
    let ended = signals.handle();
    let joiner = std::thread::Builder::new().name("join".into()).spawn(move || {
        let in_order = running.join();
        ended.close();
        in_order
    });
    let joiner = joiner.map_err(|error| format!("a thread cannot start: {error}"))?;
    for signal in signals.forever() {
        match signal {
            SIGHUP => reload(&control, &accounts, &keyring, &modules, &ports, &unparks, log),
            _ if control.phase() == Phase::Run => {
                tracing::info!(signal, "draining");
                control.advance(Phase::Drain, &unparks);
            }
            _ => control.advance(Phase::Stop, &unparks),
        }
    }
    match joiner.join() {
        Ok(true) => {
            tracing::info!("stopped");
            Ok(())
        }
        _ => Err("a shard died; the log above says why".into()),
    }
}

/// Reads the configuration again. A bad file changes nothing.
fn reload(
    control: &Control,
    accounts: &Accounts,
    keyring: &Keyring,
    modules: &Modules,
    ports: &Ports,
    unparks: &[Arc<crate::runtime::park::Unpark>],
    log: &LogHandle,
) {
    let old = control.config();
    let new = match old.reload() {
        Ok(loaded) => loaded.config,
        Err(diagnostics) => {
            tracing::error!("the configuration was not reloaded:\n{diagnostics}");
            return;
        }
    };
    for change in old.changes(&new) {
        match change.reloadable {
            true => tracing::info!(key = change.key, "reloaded"),
            false => tracing::warn!(key = change.key, "changed, but needs a restart"),
        }
    }
    if let Err(error) = accounts.reload(&OsDisk) {
        tracing::error!(key = "vblob.account_file", %error, "the accounts were not reloaded");
    }
    keyring.reload(&new);
    modules.configure(ion::configured(&new.ion));
    for error in ports.configure(&new) {
        tracing::error!("not reloaded: {error}");
    }
    log.set_level(log_level(new.log_level));
    control.reconfigure(Arc::new(new), unparks);
}

fn log_format(format: LogFormat) -> log::Format {
    match format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    }
}

fn log_level(level: LogLevel) -> log::Level {
    match level {
        LogLevel::Error => log::Level::Error,
        LogLevel::Warn => log::Level::Warn,
        LogLevel::Info => log::Level::Info,
        LogLevel::Debug => log::Level::Debug,
        LogLevel::Trace => log::Level::Trace,
    }
}
