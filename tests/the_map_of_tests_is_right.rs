//! `tests/README.md` says which test fails when a promise is broken: each one that it names is there.

use std::path::Path;

#[test]
fn every_test_that_the_map_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = std::fs::read_to_string(root.join("tests/README.md")).expect("the map");
    let mut named = 0;
    for (number, line) in map.lines().enumerate() {
        // `file.rs::test`, in code spans.
        for span in line.split('`').skip(1).step_by(2) {
            let Some((file, test)) = span.split_once(".rs::") else { continue };
            named += 1;
            let candidates = [format!("tests/{file}.rs"), format!("src/{file}.rs")];
            let sources: Vec<String> =
                candidates.iter().filter_map(|path| std::fs::read_to_string(root.join(path)).ok()).collect();
            let is_there = sources.iter().any(|source| source.contains(&format!("fn {test}(")));
            assert!(is_there, "tests/README.md:{}: there is no test {span}", number + 1);
        }
    }
    assert!(named > 50, "the map names {named} tests");
}
