//! Every key of the configuration with its type and its default, one table of the file per struct.
//!
//! Invariant: this is the only list of keys. Reading, environment names, comparison and suggestions
//! are all derived from it, so a key that is not here does not exist, and one that is here is read.
//! Pure data; built at start-up, then shared read-only by all shards.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Provenance;
use super::choice::{
    Driver, Durability, Handler, Interrupted, LogFormat, LogLevel, Output, Share, VblobAuth,
};
use super::listen::Listen;
use super::schema::{record, section};
use super::secret::Secret;
use super::units::{ByteSize, Period};

section!(
    /// Everything an operator can set. `Config::default()` is what an empty file means.
    Config {
        /// Where everything is stored; made at the first start.
        data_dir: PathBuf = PathBuf::from("./millpond-data");
        /// How many shards run, at most 1024; 0 is one per core of the affinity mask.
        shards: u16 = 0;
        /// When a write counts as done.
        durability: Durability = Durability::Sync;
        /// How often the page cache is written out where `durability` is `cache`.
        sync_interval: Period = Period::millis(100);
        /// The size of one preallocated segment file.
        segment_size: ByteSize = ByteSize::mib(256);
        /// How long exchanges may take to finish after SIGTERM.
        drain_timeout: Period = Period::secs(30);
        /// The form of the log.
        log: LogFormat = LogFormat::Text;
        /// The least severe event that is logged.
        log_level: LogLevel = LogLevel::Info;
        /// `[admin]`
        admin: Admin = Admin::default();
        /// `[net]`
        net: Net = Net::default();
        /// `[doors]`
        doors: Doors = Doors::default();
        /// `[limits]`
        limits: Limits = Limits::default();
        /// `[loom]`
        loom: Loom = Loom::default();
        /// `[vblob]`
        vblob: Vblob = Vblob::default();
        /// `[blob]`
        blob: Blob = Blob::default();
        /// `[s3]`
        s3: S3 = S3::default();
        /// `[ion]`
        ion: Ion = Ion::default();
        /// `[remote]`
        remote: Remote = Remote::default();
        /// `[serpentine]`
        serpentine: Serpentine = Serpentine::default();
        /// `[[proxy]]`
        proxy: Vec<Proxy> = Vec::new();
        /// `[micro]`
        micro: Micro = Micro::default();
    }
    beside {
        /// What the values were read from.
        provenance: Provenance
    }
);

section!(
    /// Health, readiness and metrics.
    Admin {
        /// Whether they are served.
        enabled: bool = true;
        /// Where the admin endpoints listen.
        listen: Vec<Listen> = vec![Listen::loopback(9400)];
        /// Bearer tokens, one of which changes of modules need.
        tokens: Vec<Secret> = Vec::new();
    }
);

section!(
    /// Tuning of sockets.
    Net {
        /// The congestion control for peers on loopback; empty leaves the host's.
        loopback_congestion: String = "cubic".to_owned();
    }
);

section!(
    /// What may be read through other dialects than its own.
    Doors {
        /// The dialects that share their objects.
        share: Vec<Share> = vec![Share::Loom, Share::Serpentine];
    }
);

section!(
    /// What protects the daemon from its peers.
    Limits {
        /// Connections of all shards together; at the cap accepting pauses.
        max_connections: u32 = 50_000;
        /// How long a request head may take to arrive.
        header_timeout: Period = Period::secs(10);
        /// How long a connection may rest between two requests; never ends an exchange.
        idle_timeout: Period = Period::secs(75);
        /// The longest request head.
        max_header_bytes: ByteSize = ByteSize::kib(64);
    }
);

section!(
    /// Certificates of a listener; empty paths mean no TLS.
    Tls {
        /// The certificate chain, PEM.
        cert_file: Option<PathBuf> = None;
        /// The private key, PEM.
        key_file: Option<PathBuf> = None;
        /// The authority whose signature clients must show, PEM.
        client_ca_file: Option<PathBuf> = None;
    }
);

impl Tls {
    /// Whether any of the files is named.
    pub fn is_set(&self) -> bool {
        self.cert_file.is_some() || self.key_file.is_some() || self.client_ca_file.is_some()
    }
}

section!(
    #[derive(PartialEq, Eq)]
    /// When old data of a stream gives way.
    Retention {
        /// Older bytes go; 0 keeps them.
        max_age: Period = Period::default();
        /// Bytes beyond this go, oldest first; 0 keeps them.
        max_bytes: ByteSize = ByteSize(0);
    }
);

section!(
    /// Live log streams over HTTP.
    Loom {
        /// Whether the dialect is served.
        enabled: bool = true;
        /// Where it listens.
        listen: Vec<Listen> = vec![Listen::loopback(3060)];
        /// Bearer tokens; none means no authentication.
        tokens: Vec<Secret> = Vec::new();
        /// What readers get when a producer vanishes.
        interrupted: Interrupted = Interrupted::End;
        /// When streams that have ended give way.
        retention: Retention = Retention::default();
        /// Certificates.
        tls: Tls = Tls::default();
        /// The most bytes that all streams may have together; 0 for no limit.
        quota: ByteSize = ByteSize(0);
        /// The most streams; 0 for no limit.
        max_streams: u64 = 0;
        /// The longest stream; 0 for no limit.
        max_stream_bytes: ByteSize = ByteSize(0);
    }
);

section!(
    /// Containers and files.
    Vblob {
        /// Whether the dialect is served.
        enabled: bool = true;
        /// Where it listens.
        listen: Vec<Listen> = vec![Listen::loopback(9981)];
        /// How requests are authenticated.
        auth: VblobAuth = VblobAuth::Disabled;
        /// The id of the main account.
        key_id: Option<String> = None;
        /// The password or signing key of the main account.
        secret_id: Option<Secret> = None;
        /// The most that may be stored; 0 for no limit.
        quota: ByteSize = ByteSize(0);
        /// The most objects that may be stored; 0 for no limit.
        object_limit: u64 = 0;
        /// Whether accounts can be bound and unbound over HTTP.
        account_api: bool = false;
        /// The file of further accounts.
        account_file: Option<PathBuf> = None;
        /// Certificates.
        tls: Tls = Tls::default();
    }
);

section!(
    /// Where blobs are kept.
    Blob {
        /// The driver that vblob and s3 use.
        driver: Driver = Driver::Segments;
    }
);

record!(
    /// A pair that signs S3 requests.
    AccessKey {
        /// The access key id.
        id: String;
        /// The secret access key.
        secret: Secret;
    }
    text AccessKey::from_text
);

impl AccessKey {
    fn from_text(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((id, secret)) if !id.is_empty() && !secret.is_empty() => {
                Ok(Self { id: id.to_owned(), secret: Secret::new(secret) })
            }
            _ => Err("id:secret pairs, separated by commas".to_owned()),
        }
    }
}

section!(
    /// Buckets and objects.
    S3 {
        /// Whether the dialect is served.
        enabled: bool = true;
        /// Where it listens.
        listen: Vec<Listen> = vec![Listen::loopback(9000)];
        /// The region that signatures name.
        region: String = "us-east-1".to_owned();
        /// Who may sign requests; none means anonymous access, on loopback only.
        access_keys: Vec<AccessKey> = Vec::new();
        /// What hosts end with that begin with a bucket, as in `bucket.localhost`; all others name none.
        domains: Vec<String> = vec!["localhost".to_owned()];
        /// Certificates.
        tls: Tls = Tls::default();
        /// The most that may be stored; 0 for no limit.
        quota: ByteSize = ByteSize(0);
    }
);

record!(
    /// One module that ion stands beside.
    IonModule {
        /// The module's name.
        name: String;
        /// The event that the module handles.
        event_id: String;
        /// The event that caused it.
        parent_event_id: String;
        /// What ties a chain of events together.
        correlation_id: String;
        /// What the module's requests must carry.
        secret: Option<Secret>;
        /// The environment variable that holds the secret.
        secret_env: Option<String>;
        /// The file that holds the secret.
        secret_file: Option<PathBuf>;
        /// The module's own listeners; none means the shared one.
        listen: Vec<Listen>;
        /// The only event types the module may publish; none means any.
        valid_event_types: Vec<String>;
    }
);

section!(
    /// Module documents, blobs and events.
    Ion {
        /// Whether the dialect is served.
        enabled: bool = true;
        /// Where it listens.
        listen: Vec<Listen> = vec![Listen::loopback(8080)];
        /// The largest metadata document.
        meta_limit: ByteSize = ByteSize::mib(1);
        /// Where blobs are kept.
        blob_provider: Driver = Driver::Segments;
        /// What blob locations begin with.
        location_prefix: String = "ion/".to_owned();
        /// When old events give way.
        retention: Retention = Retention::default();
        /// `[[ion.module]]`
        module: Vec<IonModule> = Vec::new();
        /// Certificates.
        tls: Tls = Tls::default();
        /// The most that may be stored; 0 for no limit.
        quota: ByteSize = ByteSize(0);
    }
);

section!(
    /// Stores elsewhere.
    Remote {
        /// `[remote.s3]`
        s3: RemoteS3 = RemoteS3::default();
    }
);

section!(
    /// The S3-compatible store behind the `s3` driver.
    RemoteS3 {
        /// Its URL.
        endpoint: Option<String> = None;
        /// The region that signatures name.
        region: String = "us-east-1".to_owned();
        /// The access key id.
        access_key_id: Option<String> = None;
        /// The secret access key.
        secret_access_key: Option<Secret> = None;
        /// Who signs the certificate of an `https` endpoint; without it, whom the system trusts.
        ca_file: Option<PathBuf> = None;
        /// What the names of all our buckets there begin with.
        bucket_prefix: String = "millpond-".to_owned();
    }
);

impl Config {
    /// Whether anything that is served keeps blobs in the store of `[remote.s3]`: the dialects of blobs, and ion.
    pub fn remote_users(&self) -> (bool, bool) {
        let blobs = self.blob.driver == Driver::S3 && (self.vblob.enabled || self.s3.enabled);
        (blobs, self.ion.blob_provider == Driver::S3 && self.ion.enabled)
    }
}

record!(
    /// A further listener of serpentine, with kinds and a backend of its own.
    SerpentineListener {
        /// Where it listens.
        listen: Vec<Listen>;
        /// The kinds of connection that are served; none means those of the section.
        kinds: Vec<Kind>;
        /// What kind 0 leads to, by its name in `backends`; none means containerd.
        backend: Option<String>;
    }
);

section!(
    /// Proxied sockets and process output.
    Serpentine {
        /// Whether the dialect is served.
        enabled: bool = true;
        /// Where it listens.
        listen: Vec<Listen> = vec![Listen::loopback(8000)];
        /// The socket that kind 0 leads to.
        containerd_socket: PathBuf = PathBuf::from("/run/containerd/containerd.sock");
        /// Where FIFOs are made. `None` is `/run/millpond` for root, else `$XDG_RUNTIME_DIR/millpond`,
        /// else a fresh private temporary directory; made with its parents at the first use.
        fifo_dir: Option<PathBuf> = None;
        /// What happens to output that nobody reads fast enough.
        output: Output = Output::Block;
        /// The kinds of connection that are served.
        kinds: Vec<Kind> = vec![Kind(0), Kind(1), Kind(65)];
        /// Further sockets by name.
        backends: BTreeMap<String, PathBuf> = BTreeMap::new();
        /// `[[serpentine.listener]]`
        listener: Vec<SerpentineListener> = Vec::new();
        /// Who may connect to unix listeners; none means whoever the file mode lets in.
        allow_uids: Vec<u32> = Vec::new();
        /// How long the first bytes may take to arrive.
        handshake_timeout: Period = Period::secs(10);
        /// How long the other direction lives on after one side's end; 0 for none.
        linger: Period = Period::default();
        /// When old output gives way.
        retention: Retention = Retention { max_age: Period::secs(24 * 3600), max_bytes: ByteSize::gib(1) };
        /// Certificates.
        tls: Tls = Tls::default();
        /// The most that may be stored; 0 for no limit.
        quota: ByteSize = ByteSize(0);
    }
);

/// The byte that opens a serpentine connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// The kinds that exist.
    pub const KNOWN: [Self; 3] = [Self(0), Self(1), Self(65)];
}

record!(
    /// A listener whose connections are joined to another socket.
    Proxy {
        /// Where it listens.
        listen: Vec<Listen>;
        /// What its connections are joined to.
        to: Listen;
    }
);

section!(
    /// Registry, calls and broker. The keys after `tokens` are the long flags of the sidecar.
    Micro {
        /// Whether the dialect is served.
        enabled: bool = true;
        /// Where it listens.
        listen: Vec<Listen> = vec![Listen::loopback(8081)];
        /// Bearer tokens; none means no authentication.
        tokens: Vec<Secret> = Vec::new();
        /// The name of the daemon's own service; empty registers none.
        sidecar_name: String = "go.micro.sidecar".to_owned();
        /// The name under which the application beside us is registered.
        server_name: Option<String> = None;
        /// The address under which it is registered.
        server_address: Option<String> = None;
        /// What is asked to learn whether it is well; none means it always is.
        healthcheck_url: Option<String> = None;
        /// How often that is asked.
        healthcheck_interval: Period = Period::secs(30);
        /// How long the answer may take.
        healthcheck_timeout: Period = Period::secs(5);
        /// Good answers in a row that bring it back.
        healthcheck_healthy_threshold: u32 = 1;
        /// Bad answers in a row that take it out.
        healthcheck_unhealthy_threshold: u32 = 1;
        /// Foreign origins that browsers may come from; `*` is any.
        cors: Vec<String> = Vec::new();
        /// How paths that no route claims are served.
        handler: Handler = Handler::Rpc;
        /// What the names of services begin with.
        namespace: String = "go.micro.srv".to_owned();
        /// Whether `/stats` is served.
        enable_stats: bool = false;
        /// Whether the listener speaks TLS.
        enable_tls: bool = false;
        /// The certificate chain, PEM.
        tls_cert_file: Option<PathBuf> = None;
        /// The private key, PEM.
        tls_key_file: Option<PathBuf> = None;
        /// The authority whose signature clients must show, PEM.
        tls_client_ca_file: Option<PathBuf> = None;
        /// Refused: whether certificates are obtained by ACME (RFC 8555).
        enable_acme: bool = false;
        /// The host names that ACME certificates are for.
        acme_hosts: Vec<String> = Vec::new();
        /// `memory`, the built-in one, which an empty text means too.
        registry: Option<String> = None;
        /// How long a call may take.
        client_request_timeout: Period = Period::secs(5);
        /// How many times a call is attempted.
        client_retries: u32 = 1;
        /// Idle connections kept per node.
        client_pool_size: u32 = 64;
        /// How old a kept connection may become.
        client_pool_ttl: Period = Period::secs(60);
        /// The longest deadline a caller may ask for; 0 is `client_request_timeout`.
        max_request_timeout: Period = Period::default();
        /// Certificates, in the form all dialects share.
        tls: Tls = Tls::default();
        /// The most that durable topics may have together; 0 for no limit.
        quota: ByteSize = ByteSize(0);
    }
);

macro_rules! dialects {
    ($($section:ident),+) => {
        $(
            impl $section {
                /// Whether the dialect is to be served.
                pub fn is_enabled(&self) -> bool {
                    self.enabled
                }

                /// Where the dialect listens when it is enabled.
                pub fn listeners(&self) -> &[Listen] {
                    if self.enabled { &self.listen } else { &[] }
                }
            }
        )+
    };
}

dialects!(Loom, Vblob, S3, Ion, Serpentine, Micro);

impl Admin {
    /// Whether readiness and metrics are served.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Where the admin endpoints listen.
    pub fn listeners(&self) -> &[Listen] {
        if self.enabled { &self.listen } else { &[] }
    }
}

/// One section that can be listened for, by the name its ready line carries.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// `admin`, `loom`, `vblob`, `s3`, `ion`, `serpentine` or `micro`.
    pub name: &'static str,
    /// Whether it is to be served.
    pub enabled: bool,
    /// Where; empty when disabled.
    pub listen: &'a [Listen],
}

impl Config {
    /// Every section that listens, in the order of the ready line.
    pub fn services(&self) -> [Service<'_>; 7] {
        macro_rules! service {
            ($name:ident) => {
                Service {
                    name: stringify!($name),
                    enabled: self.$name.is_enabled(),
                    listen: self.$name.listeners(),
                }
            };
        }
        [
            service!(admin),
            service!(loom),
            service!(vblob),
            service!(s3),
            service!(ion),
            service!(serpentine),
            service!(micro),
        ]
    }
}
