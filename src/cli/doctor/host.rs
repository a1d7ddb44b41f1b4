//! Checks of the machine: kernel, io_uring, limits, processors, clock, congestion control.
//!
//! Invariant: what `serve` refuses is asked through the same functions. Runs on the main thread; changes nothing.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Check;
use crate::config::Config;
use crate::daemon::serving::DESCRIPTORS_RESERVED;
use crate::runtime::preflight::{self, Refused};
use crate::runtime::ring::{self, socket::Socket};

pub fn examine(config: &Config) -> Vec<Check> {
    vec![
        kernel(&rustix::system::uname().release().to_string_lossy()),
        io_uring(),
        memlock(),
        open_files(preflight::open_files_hard(), config.limits.max_connections.into()),
        processors(config.shards, preflight::allowed_cpus()),
        clock(SystemTime::now()),
        congestion(config),
    ]
}

/// The first with all ring features, and the first that tells which file pages are in memory.
const KERNEL_MIN: (u32, u32) = (6, 1);
const KERNEL_BETTER: (u32, u32) = (6, 5);

fn kernel(release: &str) -> Check {
    const NAME: &str = "kernel";
    match version_of(release) {
        Some(version) if version < KERNEL_MIN => Check::fail(NAME, release, "run Linux 6.1 or newer"),
        Some(version) if version < KERNEL_BETTER => {
            let found =
                format!("{release}, which cannot tell what is in memory, so every read waits for a worker");
            Check::warn(NAME, found, "run Linux 6.5 or newer")
        }
        Some(_) => Check::ok(NAME, release),
        None => {
            Check::warn(NAME, format!("{release:?} is no version"), "make sure that it is Linux 6.1 or newer")
        }
    }
}

fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn io_uring() -> Check {
    const NAME: &str = "io_uring";
    if let Err(refused) = preflight::uring() {
        return refusal(NAME, &refused);
    }
    match ring::missing_operations() {
        Ok(missing) if missing.is_empty() => {
            Check::ok(NAME, "a shard's ring can be set up, with all it submits")
        }
        Ok(missing) => {
            let found = format!("operations are missing: {}", missing.join(", "));
            Check::fail(NAME, found, "run a kernel without restrictions on io_uring, 6.1 or newer")
        }
        Err(error) => {
            let fix = match error.kind() {
                io::ErrorKind::OutOfMemory => Refused::Memlock(0).fix(),
                _ => "allow io_uring_register in the seccomp profile",
            };
            Check::fail(NAME, format!("a shard's ring cannot be set up ({error})"), fix)
        }
    }
}

fn refusal(name: &'static str, refused: &Refused) -> Check {
    Check::fail(name, refused.found(), refused.fix())
}

fn memlock() -> Check {
    const NAME: &str = "locked memory";
    match preflight::memlock() {
        Ok(u64::MAX) => Check::ok(NAME, "no limit"),
        Ok(limit) => Check::ok(NAME, format!("up to {}", super::bytes(limit))),
        Err(refused) => refusal(NAME, &refused),
    }
}

fn open_files(limit: u64, connections: u64) -> Check {
    const NAME: &str = "open files";
    let wanted = connections + DESCRIPTORS_RESERVED;
    if limit == u64::MAX {
        return Check::ok(NAME, "no limit");
    }
    let found = format!("up to {limit}");
    if limit >= wanted {
        return Check::ok(NAME, found);
    }
    let served = limit - DESCRIPTORS_RESERVED.min(limit / 2);
    let found =
        format!("{found}, enough for {served} connections of the {connections} in limits.max_connections");
    let fix = format!(
        "raise it with ulimit -Hn {wanted}, LimitNOFILE={wanted} in the unit file or --ulimit nofile={wanted} for a \
         container, or lower limits.max_connections to {served}"
    );
    Check::warn(NAME, found, fix)
}

fn processors(shards: u16, allowed: Result<Vec<usize>, Refused>) -> Check {
    const NAME: &str = "processors";
    let count = match allowed {
        Ok(allowed) => allowed.len(),
        Err(refused) => return refusal(NAME, &refused),
    };
    match usize::from(shards) {
        0 => Check::ok(NAME, format!("{count}, one shard each")),
        shards if shards <= count => Check::ok(NAME, format!("{count} for {shards} shards")),
        shards => {
            let found = format!("{count} for {shards} shards, which then share them");
            Check::warn(NAME, found, format!("set shards to 0 or to at most {count}"))
        }
    }
}

/// 2020-01-01T00:00:00Z: this program is younger.
const CLOCK_MIN: Duration = Duration::from_secs(1_577_836_800);

fn clock(now: SystemTime) -> Check {
    const NAME: &str = "clock";
    let fix = "set it, for instance by chrony or systemd-timesyncd, before anything is stored";
    match now.duration_since(UNIX_EPOCH) {
        Ok(since) if since >= CLOCK_MIN => Check::ok(NAME, super::time(now)),
        Ok(_) | Err(_) => Check::fail(NAME, format!("it says {}, before 2020", super::time(now)), fix),
    }
}

fn congestion(config: &Config) -> Check {
    let host = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    let loopback = config.net.loopback_congestion.as_str();
    let is_offered = loopback.is_empty() || Socket::offers_congestion(loopback).unwrap_or(false);
    of_congestion(host.trim(), loopback, is_offered)
}

fn of_congestion(host: &str, loopback: &str, is_offered: bool) -> Check {
    const NAME: &str = "congestion";
    const SLOW: &str = "which makes loopback several times slower than cubic does";
    match (host, loopback) {
        ("bbr", "" | "bbr") => {
            let found = format!("{host} by the host, also towards peers on loopback, {SLOW}");
            Check::warn(NAME, found, "set net.loopback_congestion = \"cubic\"")
        }
        ("bbr", _) if !is_offered => {
            let found = format!("{host} by the host, {SLOW}, and {loopback} is not offered to this process");
            let fix = format!(
                "load it (modprobe tcp_{loopback}) and add it to sysctl net.ipv4.tcp_allowed_congestion_control"
            );
            Check::warn(NAME, found, fix)
        }
        ("", _) => Check::ok(NAME, "the host's is not known"),
        (_, "") => Check::ok(NAME, host),
        _ if !is_offered => Check::ok(NAME, format!("{host} everywhere; {loopback} is not offered")),
        _ => Check::ok(NAME, format!("{host} by the host, {loopback} towards peers on loopback")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn kernels_are_told_apart_by_their_numbers() {
        for (release, verdict) in [
            ("5.15.0-91-generic", Verdict::Fail),
            ("6.0.19", Verdict::Fail),
            ("6.1.0-13-amd64", Verdict::Warn),
            ("6.4.3", Verdict::Warn),
            ("6.5.0", Verdict::Ok),
            ("6.18.44-fc-v669", Verdict::Ok),
            ("10.0", Verdict::Ok),
            ("nonsense", Verdict::Warn),
        ] {
            assert_eq!(kernel(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn a_clock_that_was_never_set_fails() {
        assert_eq!(clock(UNIX_EPOCH + CLOCK_MIN).verdict, Verdict::Ok);
        for wrong in [UNIX_EPOCH + CLOCK_MIN - Duration::from_secs(1), UNIX_EPOCH - Duration::from_secs(9)] {
            assert_eq!(clock(wrong).verdict, Verdict::Fail);
        }
        assert!(clock(UNIX_EPOCH).found.contains("1970-01-01"), "{:?}", clock(UNIX_EPOCH));
    }

    #[test]
    fn too_few_descriptors_name_what_can_be_served() {
        assert_eq!(open_files(u64::MAX, 50_000).verdict, Verdict::Ok);
        assert_eq!(open_files(50_512, 50_000).verdict, Verdict::Ok);
        let check = open_files(1024, 50_000);
        assert_eq!(check.verdict, Verdict::Warn);
        assert!(check.found.contains(" 512 connections"), "{check:?}");
        assert!(check.fix.as_ref().is_some_and(|fix| fix.contains("LimitNOFILE=50512")), "{check:?}");
    }

    #[test]
    fn bbr_matters_only_where_loopback_gets_it() {
        for (host, loopback, is_offered, verdict) in [
            ("bbr", "cubic", true, Verdict::Ok),
            ("bbr", "cubic", false, Verdict::Warn),
            ("bbr", "", true, Verdict::Warn),
            ("bbr", "bbr", true, Verdict::Warn),
            ("cubic", "cubic", true, Verdict::Ok),
            ("reno", "cubic", false, Verdict::Ok),
            ("cubic", "", true, Verdict::Ok),
            ("", "cubic", false, Verdict::Ok),
        ] {
            assert_eq!(of_congestion(host, loopback, is_offered).verdict, verdict, "{host}, {loopback}");
        }
    }

    #[test]
    fn more_shards_than_processors_is_a_warning() {
        assert_eq!(processors(0, Ok(vec![0, 1])).verdict, Verdict::Ok);
        assert_eq!(processors(2, Ok(vec![0, 1])).verdict, Verdict::Ok);
        assert_eq!(processors(3, Ok(vec![0, 1])).verdict, Verdict::Warn);
        assert_eq!(processors(0, Err(Refused::Cpus("no".into()))).verdict, Verdict::Fail);
    }
}
