//! Reading complete streams of all sizes. Against nginx with the same bytes as static files.

use std::{fs, io, io::Write, path::Path};

use super::{Bench, Goal, Side, peer};
use crate::{daemon::Daemon, http};

/// Size in gale's words, connections, goals.
type Case = (&'static str, u32, Vec<Goal>);

/// What fits into a few sends, with a request and an answer each.
pub fn short(bench: &mut Bench<'_>) -> io::Result<()> {
    let goals = |least| vec![Goal::at_least("operations/s", least), Goal::told("server CPU per operation")];
    compare(bench, Some("cubic"), vec![("1KiB", 64, goals(1.5)), ("64KiB", 64, goals(1.0))])
}

/// What streams, both sides with the same congestion control.
pub fn long(bench: &mut Bench<'_>) -> io::Result<()> {
    let goals = || vec![Goal::at_least("payload/s", 0.95), Goal::at_most("server CPU per GiB", 1.1)];
    compare(bench, Some("cubic"), vec![("64MiB", 4, goals()), ("1GiB", 1, goals())])
}

/// The same, each side as it comes: nginx has what the host has, millpond its rule for loopback.
pub fn host(bench: &mut Bench<'_>) -> io::Result<()> {
    let is_bbr = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?.trim() == "bbr";
    let throughput = if is_bbr { Goal::at_least("payload/s", 2.0) } else { Goal::told("payload/s") };
    let goals = || vec![throughput, Goal::told("server CPU per GiB")];
    compare(bench, None, vec![("64MiB", 4, goals()), ("1GiB", 1, goals())])
}

fn compare(bench: &mut Bench<'_>, congestion: Option<&str>, cases: Vec<Case>) -> io::Result<()> {
    let pond = bench.pond(|_| {})?;
    let folder = bench.folder("nginx")?;
    let www = bench.folder("nginx/www")?;
    let nginx = peer::nginx(bench, &folder, congestion)?;
    bench.remark(match congestion {
        Some(name) => format!("Congestion control of both servers: {name}."),
        None => {
            "Congestion control of nginx: the host's; of millpond, by its rule for peers on loopback: cubic."
                .into()
        }
    });
    bench.remark(
        "The bytes are seeded, and gale has checked them whole on both sides before. Up to 64 KiB each answer's checksum \
         is compared in the rounds too, above that its length, and the kernel drops the bytes unread.",
    );
    for (size, connections, goals) in cases {
        let path = format!("/stream/{size}");
        written(bench, &pond, &path, size)?;
        saved(pond.loom(), &path, &www.join(size))?;
        let check = if size.ends_with("KiB") {
            format!("--expect-seeded {size}")
        } else {
            format!("--expect-length {size} --check length --discard")
        };
        let urls = [
            format!("http://{}{path}", pond.loom()),
            format!("http://{}/{size}", nginx.address()),
            format!("http://{}/{size}", nginx.other_address()),
        ];
        for url in &urls {
            bench.once(&format!(
                "http {url} --connections 1 --requests 1 --expect-seeded {size} --timeout 60s"
            ))?;
        }
        let load = |url: &str| format!("http {url} --connections {connections} {check}");
        let sides = vec![
            Side::pond(&pond, load(&urls[0])),
            Side::peer(&nginx, "nginx, sendfile", load(&urls[1])),
            Side::peer(&nginx, "nginx, no sendfile", load(&urls[2])),
        ];
        bench.compare(&format!("{size}, {connections} connections"), sides, &goals, false)?;
    }
    Ok(())
}

/// Writes a complete stream of seeded bytes.
pub fn written(bench: &Bench<'_>, pond: &Daemon, path: &str, size: &str) -> io::Result<()> {
    let url = format!("http://{}{path}?force=true", pond.loom());
    bench.once(&format!(
        "http {url} --method POST --body-size {size} --connections 1 --requests 1 --timeout 60s"
    ))
}

/// The stream as a file, for a peer.
pub fn saved(address: &str, path: &str, to: &Path) -> io::Result<()> {
    let mut file = fs::File::create(to)?;
    let mut outcome = Ok(());
    http::get_whole(address, path, |piece| {
        if outcome.is_ok() {
            outcome = file.write_all(piece);
        }
    })?;
    outcome.and(file.sync_all())
}
