//! Rules that a type cannot say: bounds, and values that do not go together.
//!
//! Invariant: a rule is skipped when one of its keys could not be read, so that a mistake is reported
//! once and never through the default that took its place.
//! Runs on the main thread, after all sources were read.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::choice::{Driver, VblobAuth};
use super::diagnostic::{Diagnostic, Origin};
use super::listen::Listen;
use super::schema::Reader;
use super::secret::{REDACTED, Secret};
use super::sections::{Config, IonModule, Tls};
use super::units::{ByteSize, Period};

/// Applies every rule, and fetches the secrets that modules keep elsewhere.
pub(super) fn all(config: &mut Config, reader: &mut Reader<'_>) {
    let mut rules = Rules { reader };
    rules.bounds(config);
    rules.listeners(config);
    rules.certificates(config);
    rules.loom(config);
    rules.vblob(config);
    rules.s3(config);
    rules.remote(config);
    rules.modules(config);
    rules.serpentine(config);
    rules.proxies(config);
    rules.micro(config);
}

struct Rules<'r, 'a> {
    reader: &'r mut Reader<'a>,
}

impl Rules<'_, '_> {
    fn bounds(&mut self, config: &Config) {
        let size = config.segment_size;
        let aligned = size.bytes().is_multiple_of(SEGMENT_ALIGN);
        let problem = if aligned { "out of bounds" } else { "not a multiple of 4096 bytes" };
        let fits = aligned && (SEGMENT_MIN..=SEGMENT_MAX).contains(&size);
        self.demand(fits, "segment_size", quoted(size), problem, "16MiB to 4GiB, a multiple of 4096 bytes");

        let limits = &config.limits;
        let count = limits.max_connections;
        self.demand(
            count > 0,
            "limits.max_connections",
            count,
            "nobody could connect",
            "a whole number from 1",
        );
        let size = limits.max_header_bytes;
        let fits = (HEADER_MIN..=HEADER_MAX).contains(&size);
        self.demand(fits, "limits.max_header_bytes", quoted(size), "out of bounds", "1KiB to 1MiB");

        let positive: [(&str, Period); 8] = [
            ("sync_interval", config.sync_interval),
            ("limits.header_timeout", limits.header_timeout),
            ("limits.idle_timeout", limits.idle_timeout),
            ("serpentine.handshake_timeout", config.serpentine.handshake_timeout),
            ("micro.healthcheck_interval", config.micro.healthcheck_interval),
            ("micro.healthcheck_timeout", config.micro.healthcheck_timeout),
            ("micro.client_request_timeout", config.micro.client_request_timeout),
            ("micro.client_pool_ttl", config.micro.client_pool_ttl),
        ];
        for (key, period) in positive {
            self.demand(!period.is_zero(), key, quoted(period), "must be longer than zero", Period::ACCEPTED);
        }
        let positive = [
            ("micro.healthcheck_healthy_threshold", config.micro.healthcheck_healthy_threshold),
            ("micro.healthcheck_unhealthy_threshold", config.micro.healthcheck_unhealthy_threshold),
            ("micro.client_retries", config.micro.client_retries),
        ];
        for (key, count) in positive {
            self.demand(count > 0, key, count, "must be more than zero", "a whole number from 1");
        }

        let name = &config.net.loopback_congestion;
        let fits = name.len() <= CONGESTION_BYTES_MAX
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let accepted = "the name of a congestion control, such as \"cubic\", or \"\" for the host's";
        self.demand(fits, "net.loopback_congestion", format!("{name:?}"), "not a name", accepted);
    }

    /// Every enabled section listens somewhere, and no two listeners want the same address.
    fn listeners(&mut self, config: &Config) {
        let mut wanted: Vec<(String, &Listen)> = Vec::new();
        for service in config.services() {
            let key = format!("{}.listen", service.name);
            if service.enabled && service.listen.is_empty() {
                let name = service.name;
                let accepted = format!("{}, a list of them, or {name}.enabled = false", Listen::ACCEPTED);
                self.demand(false, &key, "[]", "no address", &accepted);
            }
            wanted.extend(service.listen.iter().map(|listen| (key.clone(), listen)));
        }
        if config.ion.enabled && self.all_read("ion.module[") {
            for (index, module) in config.ion.module.iter().enumerate() {
                wanted.extend(
                    module.listen.iter().map(|listen| (format!("ion.module[{index}].listen"), listen)),
                );
            }
        }
        if config.serpentine.enabled && self.all_read("serpentine.listener[") {
            for (index, listener) in config.serpentine.listener.iter().enumerate() {
                let key = format!("serpentine.listener[{index}].listen");
                self.demand(!listener.listen.is_empty(), &key, "[]", "no address", Listen::ACCEPTED);
                wanted.extend(listener.listen.iter().map(|listen| (key.clone(), listen)));
            }
        }
        let proxies = if self.all_read("proxy[") { &config.proxy[..] } else { &[] };
        for (index, proxy) in proxies.iter().enumerate() {
            wanted.extend(proxy.listen.iter().map(|listen| (format!("proxy[{index}].listen"), listen)));
        }
        for (index, (key, listen)) in wanted.iter().enumerate() {
            for (other_key, other) in wanted[..index].iter().filter(|(_, other)| other.conflicts_with(listen))
            {
                self.conflict((key, listen), (other_key, other));
            }
        }
    }

    /// Reports at the place that someone wrote; the default is the one that was there before.
    fn conflict(&mut self, one: (&str, &Listen), two: (&str, &Listen)) {
        let (named, other) = if self.origin(one.0) == Origin::Default { (two, one) } else { (one, two) };
        if self.failed(named.0) || self.failed(other.0) {
            return;
        }
        let problem =
            format!("the address is also wanted by {} = \"{}\" ({})", other.0, other.1, self.origin(other.0));
        self.demand(
            false,
            named.0,
            quoted(named.1),
            &problem,
            "an address of its own, or port 0 for any free port",
        );
    }

    fn certificates(&mut self, config: &Config) {
        if config.serpentine.enabled && config.serpentine.tls.is_set() {
            let (key, path) = first_file("serpentine.tls", &config.serpentine.tls);
            let accepted =
                "no serpentine.tls, and a proxy that speaks TLS in front of a loopback or unix listener";
            self.demand(false, &key, quoted(path), "TLS is not available in this version", accepted);
        }
        let sections = [
            ("loom.tls", config.loom.enabled, &config.loom.tls),
            ("vblob.tls", config.vblob.enabled, &config.vblob.tls),
            ("s3.tls", config.s3.enabled, &config.s3.tls),
            ("ion.tls", config.ion.enabled, &config.ion.tls),
            ("micro.tls", config.micro.enabled, &config.micro.tls),
        ];
        for (section, _, tls) in sections.into_iter().filter(|(_, enabled, tls)| *enabled && tls.is_set()) {
            let (key, path) = first_file(section, tls);
            let whole = tls.cert_file.is_some() && tls.key_file.is_some();
            let accepted = format!("both {section}.cert_file and {section}.key_file");
            let broken =
                self.failed(&format!("{section}.cert_file")) || self.failed(&format!("{section}.key_file"));
            self.demand(whole || broken, &key, quoted(path), "only a part of what TLS needs", &accepted);
        }
    }

    /// Limits of streams that could never be reached, or that nothing would survive.
    fn loom(&mut self, config: &Config) {
        let loom = &config.loom;
        if !loom.enabled {
            return;
        }
        self.retention("loom.retention.max_age", loom.retention.max_age);
        let zero = ByteSize(0);
        if loom.quota == zero || self.failed("loom.quota") {
            return;
        }
        let quota = format!("loom.quota = \"{}\" ({})", loom.quota, self.origin("loom.quota"));
        let bounds = [
            ("loom.retention.max_bytes", loom.retention.max_bytes, "never reached"),
            ("loom.max_stream_bytes", loom.max_stream_bytes, "more than any stream could have"),
        ];
        for (key, bytes, problem) in bounds {
            let problem = format!("{problem}, because of {quota}");
            let accepted = "at most loom.quota, or \"0B\", which is no limit";
            self.demand(bytes <= loom.quota, key, quoted(bytes), &problem, accepted);
        }
    }

    fn retention(&mut self, key: &str, age: Period) {
        let accepted = "\"0s\", which keeps streams, or \"1s\" and more";
        let fits = age.is_zero() || age >= RETENTION_MIN;
        self.demand(fits, key, quoted(age), "shorter than a second", accepted);
    }

    fn vblob(&mut self, config: &Config) {
        let vblob = &config.vblob;
        if !vblob.enabled || self.failed("vblob.key_id") || self.failed("vblob.secret_id") {
            return;
        }
        let account = vblob.key_id.is_some() && vblob.secret_id.is_some();
        let fits = vblob.auth == VblobAuth::Disabled || account || vblob.account_file.is_some();
        let problem = "nobody could sign in";
        let accepted = "vblob.key_id with vblob.secret_id, or vblob.account_file; or \"disabled\"";
        self.demand(fits, "vblob.auth", quoted(vblob.auth), problem, accepted);
        let fits = !vblob.account_api || (account && vblob.account_file.is_some());
        let problem = "accounts have no file, or nobody may bind them";
        let accepted = "true with vblob.account_file, vblob.key_id and vblob.secret_id; or false";
        self.demand(fits, "vblob.account_api", vblob.account_api, problem, accepted);
    }

    /// Anonymous access never leaves the host, and what buckets stand before is the name of one.
    fn s3(&mut self, config: &Config) {
        for domain in &config.s3.domains {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            let fits = !domain.is_empty()
                && domain.bytes().all(is_plain)
                && !domain.starts_with('.')
                && !domain.ends_with('.')
                && domain.bytes().any(|byte| byte.is_ascii_alphabetic());
            let accepted = "host names without a port, such as \"s3.example.net\"";
            self.demand(fits, "s3.domains", format!("{domain:?}"), "not the name of a host", accepted);
        }
        if !config.s3.access_keys.is_empty() || self.failed("s3.access_keys") {
            return;
        }
        for listen in config.s3.listeners().iter().filter(|listen| !listen.is_local()) {
            let keys = self.origin("s3.access_keys");
            let problem = format!("reachable from off loopback while s3.access_keys is empty ({keys})");
            let accepted = "an address on loopback, \"unix:/path\", or s3.access_keys = [{ id = \"…\", secret = \"…\" }]";
            self.demand(false, "s3.listen", quoted(listen), &problem, accepted);
        }
    }

    fn remote(&mut self, config: &Config) {
        let remote = &config.remote.s3;
        if let Some(endpoint) = &remote.endpoint {
            let fits = remote.place().is_some();
            let accepted = "\"https://host\" or \"http://host:port\"";
            self.demand(fits, "remote.s3.endpoint", format!("{endpoint:?}"), "not a URL", accepted);
        }
        let blob_users = config.vblob.enabled || config.s3.enabled;
        let users = [
            ("blob.driver", config.blob.driver, blob_users),
            ("ion.blob_provider", config.ion.blob_provider, config.ion.enabled),
        ];
        for (key, driver, _) in users.into_iter().filter(|(_, driver, used)| *used && *driver == Driver::S3) {
            let missing = [
                ("remote.s3.endpoint", remote.endpoint.is_none()),
                ("remote.s3.access_key_id", remote.access_key_id.is_none()),
                ("remote.s3.secret_access_key", remote.secret_access_key.is_none()),
            ];
            for (needed, _) in missing.into_iter().filter(|(_, missing)| *missing) {
                let fits = self.failed(needed);
                let problem = format!("{needed} is not set");
                self.demand(fits, key, quoted(driver), &problem, "\"segments\", or all keys of [remote.s3]");
            }
        }
    }

    fn modules(&mut self, config: &mut Config) {
        if !self.all_read("ion.module[") {
            return;
        }
        let age = config.ion.retention.max_age;
        let accepted = "\"0s\", which keeps events, or \"1s\" and more";
        let fits = age.is_zero() || age >= RETENTION_MIN || !config.ion.enabled;
        self.demand(fits, "ion.retention.max_age", quoted(age), "shorter than a second", accepted);
        let limit = config.ion.meta_limit;
        let fits = (META_MIN..=META_MAX).contains(&limit);
        self.demand(fits, "ion.meta_limit", quoted(limit), "out of bounds", "1KiB to 16MiB");
        let (mut names, mut events): (BTreeMap<&str, usize>, BTreeMap<&str, usize>) = Default::default();
        for (index, module) in config.ion.module.iter().enumerate() {
            let texts = [
                ("name", &module.name),
                ("event_id", &module.event_id),
                ("parent_event_id", &module.parent_event_id),
                ("correlation_id", &module.correlation_id),
            ];
            for (field, text) in texts {
                let key = format!("ion.module[{index}].{field}");
                let fits = (1..=ION_ID_MAX).contains(&text.len()) && !text.contains(char::is_control);
                let problem = if text.is_empty() { "empty" } else { "too long, or with a control character" };
                self.demand(
                    fits,
                    &key,
                    format!("{text:?}"),
                    problem,
                    "a string of 1 to 255 bytes that can be read",
                );
            }
            if let Some(other) = names.insert(&module.name, index) {
                let key = format!("ion.module[{index}].name");
                let place = self.origin(&format!("ion.module[{other}].name"));
                let problem = format!("another module has this name ({place})");
                self.demand(false, &key, format!("{:?}", module.name), &problem, "a name of its own");
            }
            if let Some(other) = events.insert(&module.event_id, index) {
                let key = format!("ion.module[{index}].event_id");
                let place = self.origin(&format!("ion.module[{other}].event_id"));
                let problem = format!("another module handles this event ({place})");
                self.demand(false, &key, format!("{:?}", module.event_id), &problem, "an event of its own");
            }
        }
        for (index, module) in config.ion.module.iter_mut().enumerate() {
            self.fetch_secret(index, module);
        }
        self.shared_secrets(&config.ion.module);
    }

    /// Leaves the secret in `secret`, wherever it was kept.
    fn fetch_secret(&mut self, index: usize, module: &mut IonModule) {
        let record = format!("ion.module[{index}]");
        let places = [module.secret.is_some(), module.secret_env.is_some(), module.secret_file.is_some()];
        if places.iter().filter(|named| **named).count() != 1 {
            let accepted = "exactly one of secret, secret_env and secret_file";
            let problem =
                if places.contains(&true) { "more than one secret" } else { "the secret is missing" };
            return self.demand_at(
                &format!("{record}.name"),
                &format!("{record}.secret"),
                None,
                problem,
                accepted,
            );
        }
        if let Some(name) = &module.secret_env {
            let text = self.reader.variable(name);
            let key = format!("{record}.secret_env");
            let accepted = "the name of a variable whose value is not empty";
            self.demand(text.is_some(), &key, format!("{name:?}"), "the variable is not set", accepted);
            module.secret = text.map(Secret::new);
        }
        if let Some(path) = &module.secret_file {
            let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
            let text = text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
            let text =
                text.and_then(|text| if text.is_empty() { Err("it is empty".into()) } else { Ok(text) });
            match text {
                Ok(text) => module.secret = Some(Secret::new(text)),
                Err(error) => {
                    let problem = format!("the file gives no secret: {error}");
                    let key = format!("{record}.secret_file");
                    self.demand(
                        false,
                        &key,
                        quoted(path.display()),
                        &problem,
                        "a readable file with one line",
                    );
                }
            }
        }
    }

    /// On a shared port the secret alone tells the modules apart.
    fn shared_secrets(&mut self, modules: &[IonModule]) {
        let shared = modules.iter().enumerate().filter(|(_, module)| module.listen.is_empty());
        let shared: Vec<(usize, &Secret)> =
            shared.filter_map(|(index, module)| Some((index, module.secret.as_ref()?))).collect();
        for (place, (index, secret)) in shared.iter().enumerate() {
            let Some((other, _)) = shared[..place].iter().find(|(_, other)| other == secret) else {
                continue;
            };
            let (name, key) = (format!("ion.module[{index}].name"), format!("ion.module[{index}].secret"));
            let other = self.origin(&format!("ion.module[{other}].name"));
            let problem = format!("another module on the shared port has the same secret ({other})");
            let accepted = "a secret of its own, or a listener of its own";
            self.demand_at(&name, &key, Some(REDACTED.to_owned()), &problem, accepted);
        }
    }

    fn serpentine(&mut self, config: &Config) {
        let serpentine = &config.serpentine;
        if serpentine.enabled {
            self.retention("serpentine.retention.max_age", serpentine.retention.max_age);
        }
        if let Some(dir) = &serpentine.fifo_dir {
            let fits = dir.as_os_str().as_bytes().len() <= FIFO_DIR_BYTES_MAX;
            let key = "serpentine.fifo_dir";
            self.demand(
                fits,
                key,
                quoted(dir.display()),
                "too long for FIFOs in it",
                "a path of at most 94 bytes",
            );
            self.absolute(key, dir);
            let plain = !dir.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b'%' | b'?' | b'#'));
            let problem = "containerd reads such a path as a URL";
            self.demand(plain, key, quoted(dir.display()), problem, "a path without %, ? and #");
        }
        self.absolute("serpentine.containerd_socket", &serpentine.containerd_socket);
        for path in serpentine.backends.values() {
            self.absolute("serpentine.backends", path);
        }
        if !self.all_read("serpentine.listener[") || self.failed("serpentine.backends") {
            return;
        }
        let names: Vec<String> = serpentine.backends.keys().map(|name| format!("{name:?}")).collect();
        let accepted = match names.len() {
            0 => "a name from serpentine.backends, which is empty".to_owned(),
            _ => format!("a name from serpentine.backends: {}", names.join(", ")),
        };
        for (index, listener) in serpentine.listener.iter().enumerate() {
            let Some(name) = &listener.backend else { continue };
            let key = format!("serpentine.listener[{index}].backend");
            let fits = serpentine.backends.contains_key(name);
            self.demand(fits, &key, format!("{name:?}"), "no such backend", &accepted);
        }
    }

    fn absolute(&mut self, key: &str, path: &Path) {
        self.demand(
            path.is_absolute(),
            key,
            quoted(path.display()),
            "not absolute",
            "a path that begins with /",
        );
    }

    fn proxies(&mut self, config: &Config) {
        if !self.all_read("proxy[") {
            return;
        }
        for (index, proxy) in config.proxy.iter().enumerate() {
            let key = format!("proxy[{index}].listen");
            self.demand(!proxy.listen.is_empty(), &key, "[]", "no address", Listen::ACCEPTED);
            let fits = !matches!(&proxy.to, Listen::Tcp(addr) if addr.port() == 0);
            let accepted = "\"host:port\" with port 1 to 65535, or \"unix:/path\"";
            let key = format!("proxy[{index}].to");
            self.demand(fits, &key, quoted(&proxy.to), "nothing listens on port 0", accepted);
        }
    }

    fn micro(&mut self, config: &Config) {
        let micro = &config.micro;
        if !micro.enabled {
            return;
        }
        for (key, here, other_key, other) in [
            ("micro.server_name", &micro.server_name, "micro.server_address", &micro.server_address),
            ("micro.server_address", &micro.server_address, "micro.server_name", &micro.server_name),
        ] {
            if let (Some(value), None) = (here, other) {
                let problem = format!("{other_key} is not set");
                self.demand(false, key, format!("{value:?}"), &problem, "both or neither");
            }
        }
        let accepted =
            "false; certificates come from micro.tls_cert_file and micro.tls_key_file, read again at SIGHUP";
        self.demand(
            !micro.enable_acme,
            "micro.enable_acme",
            true,
            "this version obtains no certificates",
            accepted,
        );
        let accepted = "[]; certificates come from micro.tls_cert_file and micro.tls_key_file";
        let problem = "this version obtains no certificates";
        self.demand(micro.acme_hosts.is_empty(), "micro.acme_hosts", "[…]", problem, accepted);
        let registry = micro.registry.as_deref().unwrap_or("memory");
        let (problem, accepted) = ("the registry is built in", "\"memory\" or nothing");
        self.demand(registry == "memory", "micro.registry", format!("{registry:?}"), problem, accepted);
        if let Some(url) = &micro.healthcheck_url {
            let problem = "health is asked for by plain HTTP";
            let accepted = "a URL that begins with http://";
            self.demand(
                url.starts_with("http://"),
                "micro.healthcheck_url",
                format!("{url:?}"),
                problem,
                accepted,
            );
        }
        let flat = [&micro.tls_cert_file, &micro.tls_key_file];
        let fits = !micro.enable_tls || flat.iter().all(|file| file.is_some()) || micro.tls.is_set();
        let accepted = "true with micro.tls_cert_file and micro.tls_key_file, or false";
        self.demand(fits, "micro.enable_tls", true, "certificate and key are not named", accepted);
        let mut flat = flat.into_iter().chain([&micro.tls_client_ca_file]);
        let twice = micro.tls.is_set() && flat.any(Option::is_some);
        let (key, path) = first_file("micro.tls", &micro.tls);
        let problem = "micro.tls_cert_file and its siblings name certificates too";
        self.demand(!twice, &key, quoted(path), problem, "one of the two forms");
    }

    /// Notes a broken rule at the place of its key.
    fn demand(&mut self, holds: bool, key: &str, value: impl ToString, problem: &str, accepted: &str) {
        if !holds {
            self.demand_at(key, key, Some(value.to_string()), problem, accepted);
        }
    }

    /// Notes a broken rule about `key` at the place of another, for keys that nobody wrote.
    fn demand_at(&mut self, place: &str, key: &str, value: Option<String>, problem: &str, accepted: &str) {
        if self.failed(key) {
            return;
        }
        let origin = self.origin(place);
        let (problem, accepted) = (problem.to_owned(), accepted.to_owned());
        self.reader.found.push(Diagnostic::Value { origin, key: key.to_owned(), value, problem, accepted });
    }

    fn origin(&self, key: &str) -> Origin {
        self.reader.origins.get(key).cloned().unwrap_or_default()
    }

    /// Whether no record of a list was refused: one that was is missing, and the indexes no longer fit.
    fn all_read(&self, list: &str) -> bool {
        !self.reader.failed.iter().any(|key| key.starts_with(list))
    }

    fn failed(&self, key: &str) -> bool {
        self.reader.failed.contains(key)
    }
}

/// The first file that a TLS table names, with its key.
fn first_file(section: &str, tls: &Tls) -> (String, String) {
    let files =
        [("cert_file", &tls.cert_file), ("key_file", &tls.key_file), ("client_ca_file", &tls.client_ca_file)];
    let named = files.into_iter().find_map(|(field, file)| Some((field, file.as_ref()?)));
    let (field, path) =
        named.map_or(("cert_file", String::new()), |(field, path)| (field, path.display().to_string()));
    (format!("{section}.{field}"), path)
}

fn quoted(value: impl ToString) -> String {
    format!("{:?}", value.to_string())
}

const SEGMENT_MIN: ByteSize = ByteSize::mib(16);
const SEGMENT_MAX: ByteSize = ByteSize::gib(4);
const SEGMENT_ALIGN: u64 = 4096;
/// What is checked about once a second cannot go sooner.
const RETENTION_MIN: Period = Period::secs(1);
/// What every id of a module may have, in bytes: they are parts of names in the store.
const ION_ID_MAX: usize = 255;
const META_MIN: ByteSize = ByteSize::kib(1);
/// A document is taken whole.
const META_MAX: ByteSize = ByteSize::mib(16);
const HEADER_MIN: ByteSize = ByteSize::kib(1);
const HEADER_MAX: ByteSize = ByteSize::mib(1);
/// `TCP_CA_NAME_MAX` is 16 with its terminating zero.
const CONGESTION_BYTES_MAX: usize = 15;
/// Paths of up to 127 bytes are announced with one byte of length, which every client can read; a FIFO's name has 32.
const FIFO_DIR_BYTES_MAX: usize = 127 - 1 - 32;
