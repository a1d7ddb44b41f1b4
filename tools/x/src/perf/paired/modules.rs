//! Blobs of modules: what ion's way to a blob costs beside vblob's and loom's, which lead to the same store.

use std::{fs, io};

use super::{Bench, Goal, Side};

const MODULE: &str = "[[ion.module]]\nname = \"m\"\nevent_id = \"e\"\nparent_event_id = \"p\"\ncorrelation_id = \"c\"\n\
                      secret = \"hush\"\n";
/// Names that are written to, over and over.
const KEYS: u32 = 1000;

/// Reading and writing 1 KiB, each through two doors of one daemon.
pub fn blobs(bench: &mut Bench<'_>) -> io::Result<()> {
    let config = bench.folder("modules")?.join("millpond.toml");
    fs::write(&config, MODULE)?;
    let pond = bench.pond(|setup| {
        setup.dialects = &["vblob", "ion"];
        setup.config = Some(config);
    })?;
    bench.remark(
        "Both sides are the same daemon; what is compared with comes second. A blob is written to one of 1,000 names, \
         in the synced class, and vblob makes an MD5 of it for its ETag, which ion does not.",
    );
    let address = |dialect| pond.address(dialect).expect("it listens").to_owned();
    let (ion, vblob) = (format!("http://{}", address("ion")), format!("http://{}", address("vblob")));
    let stream = format!("http://{}/stream/one", pond.loom());
    let one = "--connections 1 --requests 1";
    bench.once(&format!("http {vblob}/files --method PUT {one}"))?;
    bench.once(&format!("http {vblob}/files/one --method PUT --body-size 1KiB {one}"))?;
    bench.once(&format!(
        "http {ion}/self/blob?res=one --header secret:hush --method PUT --body-size 1KiB {one}"
    ))?;
    bench.once(&format!("http {stream}?force=true --method POST --body-size 1KiB {one}"))?;

    let at_most = || vec![Goal::at_most("server CPU per operation", 1.1), Goal::told("operations/s")];
    let read = "--connections 64 --expect-seeded 1KiB";
    let ours = format!("http {ion}/self/blob?res=one --header secret:hush {read}");
    let file = format!("http {vblob}/files/one {read}");
    let sides = vec![Side::door(&pond, "ion", ours.clone()), Side::door(&pond, "vblob", file)];
    bench.compare("read 1KiB, against vblob", sides, &at_most(), false)?;
    let sides =
        vec![Side::door(&pond, "ion", ours), Side::door(&pond, "loom", format!("http {stream} {read}"))];
    bench.compare("read 1KiB, against loom", sides, &at_most(), false)?;

    let write = format!("--method PUT --body-size 1KiB --connections 64 --keys {KEYS}");
    let ours = format!("http {ion}/self/blob?res={{key}} --header secret:hush {write}");
    let file = format!("http {vblob}/files/{{key}} {write}");
    let sides = vec![Side::door(&pond, "ion", ours), Side::door(&pond, "vblob", file)];
    bench.compare("write 1KiB, against vblob", sides, &at_most(), false)
}
