//! A gibibyte that is not in memory, and what its reading does to a neighbour on the same core. Against nginx.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::fs::{Advice, fadvise};

use super::{Bench, Gale, Goal, Measures, Side, on_load_core, peer, read};
use crate::http;

const SIZE: &str = "1GiB";
/// The neighbour's connections.
const NEIGHBOURS: u32 = 2;

/// A reader that always finds the disk, beside small requests whose delays are measured.
pub fn neighbour(bench: &mut Bench<'_>) -> io::Result<()> {
    let mut data = PathBuf::new();
    let pond = bench.pond(|setup| data.clone_from(&setup.data_dir))?;
    let folder = bench.folder("nginx")?;
    let www = bench.folder("nginx/www")?;
    let nginx = peer::nginx(bench, &folder, Some("cubic"))?;
    let stream = format!("/stream/{SIZE}");
    read::written(bench, &pond, &stream, SIZE)?;
    read::saved(pond.loom(), &stream, &www.join(SIZE))?;
    bench.remark(format!(
        "A reader on the load's core takes {SIZE} again and again, and before each time all pages of both servers' files \
         are dropped. Beside it {NEIGHBOURS} connections ask for a small answer of the same server: their delays are \
         what is compared. Congestion control of both servers: cubic."
    ));
    let admin = pond.address("admin").expect("every daemon has one");
    let load =
        |address: &str| format!("http http://{address}/livez --expect-length 6 --connections {NEIGHBOURS}");
    let (ours, theirs) = (load(admin), load(nginx.address()));
    let file = format!("/{SIZE}");
    let sides = vec![
        Side::pond(&pond, String::new()).under(|gale| beside(gale, &ours, pond.loom(), &stream, &data)),
        Side::peer(&nginx, "nginx", String::new())
            .under(|gale| beside(gale, &theirs, nginx.address(), &file, &www)),
    ];
    let goals = [Goal::at_most("p99", 0.5), Goal::told("operations/s"), Goal::told("payload/s")];
    bench.compare("neighbour of a cold 1 GiB", sides, &goals, false)
}

/// The neighbour's measures, and the reader's bytes a second as `payload/s`.
fn beside(gale: &Gale<'_>, words: &str, address: &str, path: &str, files: &Path) -> io::Result<Measures> {
    let (over, started) = (AtomicBool::new(false), std::time::Instant::now());
    thread::scope(|scope| {
        let reader = on_load_core(|| {
            Ok(scope.spawn(|| -> io::Result<(u64, f64)> {
                let (mut bytes, mut taken) = (0, started.elapsed());
                while !over.load(Ordering::Relaxed) {
                    drop_pages(files)?;
                    let began = started.elapsed();
                    http::get_whole(address, path, |piece| bytes += piece.len() as u64)?;
                    taken += started.elapsed() - began;
                }
                Ok((bytes, taken.as_secs_f64()))
            }))
        })?;
        let measured = gale.run(words);
        over.store(true, Ordering::Relaxed);
        let (bytes, seconds) = reader.join().expect("the reader does not panic")?;
        Ok(measured?.with("payload/s", "B/s", bytes as f64 / seconds))
    })
}

/// Has the kernel forget what it holds of all files below a folder.
fn drop_pages(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            drop_pages(&path)?;
        } else {
            let file = fs::File::open(&path)?;
            file.sync_data()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}
