//! A panic in the middle of a change to the store ends the process, because recovery is what handles it; any other panic
//! ends one task.
//!
//! The test starts itself once more, as the process that has to end.

use millpond::runtime::executor::critical;
use millpond::runtime::sim::{SimDisk, World};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

const WHERE: &str = "MILLPOND_TEST_PANICS";

fn panics(place: &str) -> Output {
    let itself = std::env::current_exe().expect("its path");
    let mut child = Command::new(itself);
    child.args(["--exact", "a_panic_in_a_critical_section_is_an_abort", "--nocapture"]).env(WHERE, place);
    child.output().expect("it runs")
}

#[test]
fn a_panic_in_a_critical_section_is_an_abort() {
    if let Ok(place) = std::env::var(WHERE) {
        let world = World::new(1, 1, SimDisk::new(1));
        world.enter(0, |shard| {
            shard.executor().spawn("panics", async move {
                match &*place {
                    "inside" => critical(|| panic!("half of a change is made")),
                    _ => panic!("nothing is half made"),
                }
            });
        });
        world.run_until_idle();
        assert_eq!(world.panics(), 1);
        return;
    }
    let inside = panics("inside");
    assert_eq!(inside.status.signal(), Some(6), "{inside:?}");
    let said = String::from_utf8_lossy(&inside.stderr);
    assert!(said.contains("recovery will run at the next start"), "{said}");
    assert!(panics("elsewhere").status.success());
}
