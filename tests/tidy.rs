//! Reads the tree and holds it to its own rules: who may use whom, what may be called where, what must be said.
//!
//! Invariant: each rule is a function from files to findings, and is shown here to catch a planted offence;
//! a rule that finds nothing has looked.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

/// Which layer may use which; every layer may use itself. What is not listed may use all.
const LAYERS: &[(&str, &[&str])] = &[
    ("codec", &[]),
    ("observe", &[]),
    ("runtime", &["codec", "observe"]),
    ("net", &["runtime", "codec", "observe"]),
    ("storage", &["runtime", "codec", "observe"]),
    ("service", &["storage", "net", "runtime", "codec", "observe"]),
    ("dialect", &["service", "net", "runtime", "codec", "observe", "config"]),
];

/// Calls that are wrong in some places: what, where it is right after all, whether tests beside the code may,
/// and what to do instead.
const BANNED: &[(&str, &[&str], InTests, &str)] = &[
    ("Instant::now", &["src/runtime/clock.rs", "src/cli/"], InTests::May, "ask `runtime::clock`"),
    ("SystemTime::now", &["src/runtime/clock.rs", "src/cli/"], InTests::May, "ask `runtime::clock`"),
    // The main thread binds before any shard exists: there is no timer to wait on, and nobody to hold up.
    (
        "thread::sleep",
        &["src/cli/", "src/daemon/listen.rs"],
        InTests::MustNot,
        "wait for the event, or on the shard's timer",
    ),
    ("println!", &["src/cli/"], InTests::May, "log an event with fields"),
    ("print!", &["src/cli/"], InTests::May, "log an event with fields"),
    // The last words of a process that cannot start, or must abort, do not wait for the log's thread; a
    // simulation prints the line that repeats it.
    (
        "eprintln!",
        &["src/cli/", "src/daemon", "src/runtime/executor.rs", "src/runtime/sim.rs"],
        InTests::May,
        "log an event with fields",
    ),
    ("eprint!", &["src/cli/"], InTests::May, "log an event with fields"),
    (
        "fs",
        &["src/runtime/", "src/storage/", "src/config/", "src/cli/", "src/daemon"],
        InTests::May,
        "files belong to `storage`, by way of `runtime`",
    ),
    ("dbg!", &[], InTests::MustNot, "remove it"),
    ("todo!", &[], InTests::MustNot, "do it"),
    ("unimplemented!", &[], InTests::MustNot, "implement it, or refuse the input with an error"),
];

/// The one file that may name glommio. Whoever polls one of its operations again and again, as a select does,
/// overflows the operation's 16-bit count; the driver knows that, and nobody else can do it.
const GLOMMIO_IN: &str = "src/runtime/driver.rs";

/// Parts of glommio that are used nowhere, and why.
const GLOMMIO_WITHOUT: &[(&str, &str)] = &[
    (
        "DmaFile",
        "its probe for polled I/O takes an empty file for a yes and keeps it, and reads then fail; use `runtime::file`",
    ),
    (
        "spsc_queue",
        "both ends can be cloned, and two writers corrupt the heap in safe code; use `runtime::lane`",
    ),
    (
        "Latency::Matters",
        "it arms a preempt timer that parks the thread while tasks can run; use a task of the shard",
    ),
    ("glommio::net", "its sockets wait for readiness instead of completions; use `runtime::ring`"),
];

/// Words that tell where a text was written or planned instead of what it says. Split, so that this file is
/// clean by its own rule.
const WORDS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("../sha", "red"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("issue", " #"),
    concat!("PR", " #"),
    concat!("the", " spec"),
    concat!("for", " now"),
    concat!("place", "holder"),
];

/// Files that may hold such words: the CI script names the corpus that lies beside the checkout.
const WORDS_ALLOWED_IN: &[&str] = &[".ci/run"];

const LINES_MAX: usize = 900;

#[derive(Clone, Copy, PartialEq, Eq)]
enum InTests {
    May,
    MustNot,
}

macro_rules! rules {
    ($( $name:ident: $rule:path, )+) => {
        $( #[test] fn $name() { keeps($rule); } )+
    };
}

rules! {
    layers_are_kept: layers,
    dialects_do_not_know_each_other: dialects,
    every_file_says_what_it_is_for: openings,
    unsafe_stays_in_runtime_and_is_argued: unsafety,
    calls_stand_where_they_may: banned,
    the_driver_alone_names_glommio_and_not_its_traps: glommio,
    every_source_file_is_compiled: orphans,
    benches_and_fuzz_targets_are_registered: registrations,
    files_can_be_read_in_one_sitting: lengths,
    texts_speak_of_the_product_alone: words,
    links_lead_somewhere: links,
}

fn keeps(rule: fn(&[File]) -> Vec<Finding>) {
    let files = tree(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "the tree was not read");
    let findings = rule(&files);
    let list: String = findings.iter().map(|finding| format!("\n  {finding}")).collect();
    assert!(findings.is_empty(), "{} finding(s):{list}\n", findings.len());
}

struct File {
    /// From the root, with `/`.
    path: String,
    text: String,
}

struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into() }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_source(&self) -> bool {
        self.is_rust() && self.path.starts_with("src/")
    }

    /// The module this file is, from the crate's root: `src/net/http/mod.rs` is `net`, `http`.
    fn module(&self) -> Vec<&str> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut parts: Vec<&str> = inner.split('/').collect();
        if matches!(parts.last(), Some(&("mod" | "lib" | "main"))) {
            parts.pop();
        }
        parts
    }
}

/// Everything a reader of the repository sees, except what builds leave behind.
fn tree(root: &Path) -> Vec<File> {
    const SKIPPED: &[&str] = &[".git", "target", "millpond-data", "corpus", "corpus-run", "artifacts"];
    let (mut files, mut open): (Vec<File>, Vec<PathBuf>) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the tree can be listed") {
            let entry = entry.expect("an entry of the tree can be read");
            let (path, name) = (entry.path(), entry.file_name());
            if SKIPPED.iter().any(|skipped| name == *skipped) || name == "Cargo.lock" {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root).expect("found below the root");
                files.push(File { path: path.to_str().expect("paths are text").into(), text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn layers(files: &[File]) -> Vec<Finding> {
    let known: BTreeSet<&str> =
        LAYERS.iter().map(|(layer, _)| *layer).chain(["config", "daemon", "cli"]).collect();
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_source()) {
        let module = file.module();
        let Some((layer, allowed)) = LAYERS.iter().find(|(layer, _)| module.first() == Some(layer)) else {
            continue;
        };
        for (line, target) in references(file) {
            let used = target[0].as_str();
            if used != *layer && known.contains(used) && !allowed.contains(&used) {
                let may = match allowed {
                    [] => "nothing of this crate".into(),
                    allowed => format!("only {}", allowed.join(", ")),
                };
                findings.push(file.finding(line, format!("reaches into `{used}`; `{layer}` may use {may}")));
            }
        }
    }
    findings
}

fn dialects(files: &[File]) -> Vec<Finding> {
    let folders: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| Some(file.path.strip_prefix("src/dialect/")?.split_once('/')?.0))
        .collect();
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/dialect/") && file.is_rust()) {
        let own = file.module().get(1).copied();
        for (line, target) in references(file) {
            match target.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["dialect", other, ..] if own.is_some_and(|own| own != other) && folders.contains(other) => {
                    findings.push(
                        file.finding(line, format!("uses the dialect `{other}`; share it through `service`")),
                    );
                }
                ["runtime", "ring", ..] => {
                    findings.push(
                        file.finding(line, "names the ring; a dialect sends and receives through `net`"),
                    );
                }
                _ => {}
            }
        }
    }
    findings
}

/// All paths that start at `crate` or `super`, resolved from the crate's root, with their lines.
fn references(file: &File) -> Vec<(usize, Vec<String>)> {
    let code = code_only(&file.text);
    let mut found = Vec::new();
    for (at, word) in words_of(&code) {
        let preceded = code[..at].trim_end().ends_with("::");
        let mut base: Vec<String> = file.module().iter().map(|part| part.to_string()).collect();
        let mut rest = &code[at + word.len()..];
        match word {
            "crate" if !preceded => base.clear(),
            "super" if !preceded => {
                base.pop();
                while let Some(more) = rest.trim_start().strip_prefix("::").map(str::trim_start) {
                    let Some(after) = more.strip_prefix("super") else { break };
                    base.pop();
                    rest = after;
                }
            }
            _ => continue,
        }
        let line = code[..at].matches('\n').count() + 1;
        let mut targets = Vec::new();
        use_tree(rest, &base, &mut targets);
        found.extend(targets.into_iter().filter(|target| !target.is_empty()).map(|target| (line, target)));
    }
    found
}

/// Reads what follows a path's start: `::a::b`, or `::{a, b::{c, d}}`. Returns what is left of the text.
fn use_tree<'a>(text: &'a str, base: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = base.to_vec();
    let mut rest = text;
    while let Some(next) = rest.trim_start().strip_prefix("::") {
        rest = next.trim_start();
        if let Some(mut inner) = rest.strip_prefix('{') {
            loop {
                inner = inner.trim_start();
                let name: String = inner.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let mut branch = path.clone();
                inner = &inner[name.len()..];
                if !name.is_empty() && name != "self" {
                    branch.push(name);
                }
                inner = use_tree(inner, &branch, found);
                // Skips `as other` and `*` up to the next branch or the end of the group.
                match inner.find([',', '}']) {
                    Some(at) if inner[at..].starts_with(',') => inner = &inner[at + 1..],
                    Some(at) => return &inner[at + 1..],
                    None => return "",
                }
                if let Some(after) = inner.trim_start().strip_prefix('}') {
                    return after;
                }
            }
        }
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            break;
        }
        rest = &rest[name.len()..];
        path.push(name);
    }
    found.push(path);
    rest
}

fn openings(files: &[File]) -> Vec<Finding> {
    let silent = files.iter().filter(|file| file.is_rust() && !file.text.starts_with("//! "));
    silent.map(|file| file.finding(1, "does not open with `//!` and what the file is for")).collect()
}

fn unsafety(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let code = code_only(&file.text);
        let (code, text): (Vec<&str>, Vec<&str>) = (code.lines().collect(), file.text.lines().collect());
        for (at, line) in code.iter().enumerate().filter(|(_, line)| has_word(line, "unsafe")) {
            if file.is_source() && !file.path.starts_with("src/runtime/") {
                findings.push(
                    file.finding(at + 1, "unsafe code outside `src/runtime`; give it a safe shape there"),
                );
            }
            if !argued(&text, &code, at) {
                let line = line.trim();
                findings.push(file.finding(at + 1, format!("`{line}` has no `SAFETY:` note above it")));
            }
        }
    }
    findings
}

/// Whether the statement at this line, or the comment right above it, says why it is sound.
fn argued(text: &[&str], code: &[&str], at: usize) -> bool {
    let says = |line: &str| line.contains("SAFETY:") || line.contains("# Safety");
    if says(text[at]) {
        return true;
    }
    for above in (0..at).rev() {
        let code = code[above].trim();
        let comment = code.is_empty() && text[above].trim().starts_with("//");
        let attribute = code.starts_with("#[");
        let same_statement = !code.is_empty() && !code.ends_with([';', '{', '}', ',']);
        let sibling = has_word(code, "unsafe") && code.ends_with("{}");
        if says(text[above]) {
            return true;
        }
        if !(comment || attribute || same_statement || sibling) {
            return false;
        }
    }
    false
}

fn banned(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_source()) {
        let code = code_only(&file.text);
        let tests_from = code.find("#[cfg(test)]\n").map_or(usize::MAX, |at| code[..at].lines().count());
        for (at, line) in code.lines().enumerate() {
            for (call, right_in, in_tests, instead) in BANNED {
                let exempt = right_in.iter().any(|place| file.path.starts_with(place))
                    || (*in_tests == InTests::May && at >= tests_from);
                if !exempt && has_word(line, call) {
                    findings.push(file.finding(at + 1, format!("`{call}` has no place here: {instead}")));
                }
            }
        }
    }
    findings
}

fn glommio(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_source()) {
        let code = code_only(&file.text);
        // The line of a whole path, so that `use glommio::{net::X}` is seen; and each line as it stands.
        let mut named: BTreeSet<(usize, String)> = BTreeSet::new();
        for (at, _) in words_of(&code).into_iter().filter(|(_, word)| *word == "glommio") {
            let line = code[..at].matches('\n').count() + 1;
            if file.path != GLOMMIO_IN {
                findings.push(file.finding(line, format!("names glommio; only {GLOMMIO_IN} may")));
            }
            let mut targets = Vec::new();
            use_tree(&code[at + "glommio".len()..], &["glommio".into()], &mut targets);
            named.extend(targets.into_iter().map(|target| (line, target.join("::"))));
        }
        named.extend(code.lines().enumerate().map(|(at, line)| (at + 1, line.into())));
        let mut seen = BTreeSet::new();
        for (line, text) in &named {
            for (part, reason) in GLOMMIO_WITHOUT.iter().filter(|(part, _)| has_word(text, part)) {
                if seen.insert((line, part)) {
                    findings.push(file.finding(*line, format!("`{part}` is used nowhere: {reason}")));
                }
            }
        }
    }
    findings
}

fn orphans(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_source()) {
        let module = file.module();
        let Some((name, parent)) = module.split_last() else { continue };
        let homes = match parent {
            [] => vec!["src/lib.rs".into(), "src/main.rs".into()],
            parent => {
                vec![format!("src/{}/mod.rs", parent.join("/")), format!("src/{}.rs", parent.join("/"))]
            }
        };
        let declared = files
            .iter()
            .filter(|file| homes.contains(&file.path))
            .any(|home| has_word(&code_only(&home.text), &format!("mod {name};")));
        if !declared {
            findings.push(
                file.finding(1, format!("no `mod {name};` in {}: it is never compiled", homes.join(" or "))),
            );
        }
    }
    findings
}

fn registrations(files: &[File]) -> Vec<Finding> {
    let manifest = |path: &str| files.iter().find(|file| file.path == path);
    let mut findings = Vec::new();
    for (folder, manifest_path, section) in
        [("benches/", "Cargo.toml", "[[bench]]"), ("fuzz/fuzz_targets/", "fuzz/Cargo.toml", "[[bin]]")]
    {
        let stems: BTreeSet<&str> = files
            .iter()
            .filter_map(|file| file.path.strip_prefix(folder)?.strip_suffix(".rs"))
            .filter(|stem| !stem.contains('/'))
            .collect();
        let text = manifest(manifest_path).map_or("", |file| file.text.as_str());
        let registered: BTreeSet<&str> = text
            .split(section)
            .skip(1)
            .filter_map(|entry| {
                let name = entry.lines().find_map(|line| line.strip_prefix("name = "))?;
                Some(name.trim().trim_matches('"'))
            })
            .collect();
        for stem in stems.difference(&registered) {
            let file = File::new(&format!("{folder}{stem}.rs"), "");
            findings.push(file.finding(1, format!("has no {section} in {manifest_path}: it is never run")));
        }
        for name in registered.difference(&stems) {
            let file = File::new(manifest_path, "");
            findings.push(file.finding(1, format!("{section} `{name}` has no file in {folder}")));
        }
    }
    findings
}

fn lengths(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_source()) {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            let what = format!(
                "{lines} lines, more than {LINES_MAX}: it answers two questions, so make it two files"
            );
            findings.push(file.finding(LINES_MAX + 1, what));
        }
    }
    findings
}

fn words(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !WORDS_ALLOWED_IN.contains(&file.path.as_str())) {
        for (at, line) in file.text.lines().enumerate() {
            for word in WORDS.iter().filter(|word| has_word(line, word)) {
                findings.push(file.finding(at + 1, format!("says `{word}`; say the thing itself")));
            }
        }
    }
    findings
}

fn links(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, link) in links_of(&file.text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => file.path.clone(),
                path => beside(&file.path, path),
            };
            let is_folder = files.iter().any(|file| file.path.starts_with(&format!("{target}/")));
            match files.iter().find(|file| file.path == target) {
                None if is_folder && anchor.is_empty() => {}
                None => findings.push(file.finding(line, format!("links to `{link}`, which does not exist"))),
                Some(target) if anchor.is_empty() || anchors(&target.text).contains(anchor) => {}
                Some(_) => {
                    findings.push(file.finding(line, format!("links to `{link}`, where no such heading is")))
                }
            }
        }
    }
    findings
}

/// The targets of `[text](target)` outside code blocks, with their lines.
fn links_of(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        for (opening, _) in line.match_indices("](").filter(|_| !in_code) {
            if let Some((target, _)) = line[opening + 2..].split_once(')') {
                found.push((at + 1, target));
            }
        }
    }
    found
}

fn beside(from: &str, path: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors that a forge gives to the headings of a page.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// The same text with comments and the insides of literals blanked out, line by line in place.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let blank = |out: &mut Vec<u8>, from: usize, to: usize| {
        out[from..to].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    };
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            at + block_comment_len(rest)
        } else if let Some(len) = raw_string_len(rest).filter(|_| !in_word) {
            at + len
        } else if rest[0] == b'"' {
            at + quoted_len(rest)
        } else if let Some(len) = char_literal_len(rest) {
            at + len
        } else {
            at += 1;
            continue;
        };
        blank(&mut out, at, end);
        at = end;
    }
    String::from_utf8(out).expect("whole literals and comments were blanked")
}

fn block_comment_len(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of `r"…"`, `r#"…"#` and their `b` and `c` kin.
fn raw_string_len(text: &[u8]) -> Option<usize> {
    let prefix = text.iter().take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count();
    if prefix == 0 || prefix > 2 || text[prefix - 1] != b'r' {
        return None;
    }
    let hashes = text[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let start = prefix + hashes;
    if text.get(start) != Some(&b'"') {
        return None;
    }
    let mut closing = vec![b'"'];
    closing.resize(1 + hashes, b'#');
    let body = &text[start + 1..];
    let len = body.windows(closing.len()).position(|window| window == closing);
    Some(len.map_or(text.len(), |len| start + 1 + len + closing.len()))
}

fn quoted_len(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of `'x'` or `'\n'`; a lifetime is none.
fn char_literal_len(text: &[u8]) -> Option<usize> {
    match text {
        [b'\'', b'\\', rest @ ..] => Some(3 + rest.iter().skip(1).position(|byte| *byte == b'\'')? + 1),
        [b'\'', rest @ ..] => {
            let len = std::str::from_utf8(&rest[..rest.len().min(4)])
                .map_or_else(|error| error.valid_up_to(), str::len);
            let first = std::str::from_utf8(&rest[..len]).ok()?.chars().next()?;
            (rest.get(first.len_utf8()) == Some(&b'\'')).then(|| first.len_utf8() + 2)
        }
        _ => None,
    }
}

/// Identifiers and where they start.
fn words_of(code: &str) -> Vec<(usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = code[from..].find(is_word).map(|at| from + at) {
        let len = code[start..].find(|c| !is_word(c)).unwrap_or(code.len() - start);
        found.push((start, &code[start..start + len]));
        from = start + len;
    }
    found
}

/// Whether `word` stands in the line with nothing of an identifier on either side.
fn has_word(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().filter(|_| word.starts_with(is_word));
        let after = line[at + word.len()..].chars().next().filter(|_| word.ends_with(is_word));
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// Each rule on planted offences, and on the nearest thing that is none.
mod caught {
    use super::*;

    #[track_caller]
    fn finds(rule: fn(&[File]) -> Vec<Finding>, files: &[(&str, &str)], expected: &[&str]) {
        let files: Vec<File> = files.iter().map(|(path, text)| File::new(path, text)).collect();
        let found: Vec<String> = rule(&files).iter().map(|f| format!("{}:{}", f.path, f.line)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_layer_that_reaches_up_or_sideways() {
        finds(layers, &[("src/net/conn.rs", "use crate::storage::Run;")], &["src/net/conn.rs:1"]);
        finds(layers, &[("src/storage/x.rs", "\nuse crate::{runtime, net::http};")], &["src/storage/x.rs:2"]);
        finds(layers, &[("src/observe/log.rs", "fn f() { crate::codec::hex() }")], &["src/observe/log.rs:1"]);
        finds(
            layers,
            &[("src/net/http/head.rs", "use super::super::super::service::X;")],
            &["src/net/http/head.rs:1"],
        );
        finds(
            layers,
            &[("src/runtime/a.rs", "use crate::{runtime::{b, c::{D, E}}, service::{F}};")],
            &["src/runtime/a.rs:1"],
        );
        finds(
            layers,
            &[("src/dialect/loom/mod.rs", "use crate::storage::names;")],
            &["src/dialect/loom/mod.rs:1"],
        );
        finds(layers, &[("src/net/a.rs", "use crate::{runtime::Region, net::b};\n// crate::storage\n")], &[]);
        finds(
            layers,
            &[("src/service/a.rs", "use crate::{storage, net};"), ("src/daemon.rs", "use crate::net;")],
            &[],
        );
        finds(
            layers,
            &[("src/net/a.rs", "pub(crate) fn f() { \"crate::storage\"; other::crate_::storage() }")],
            &[],
        );
    }

    #[test]
    fn a_dialect_that_knows_another_or_the_ring() {
        let vblob = ("src/dialect/vblob/mod.rs", "");
        finds(
            dialects,
            &[("src/dialect/loom/a.rs", "use crate::dialect::vblob::F;"), vblob],
            &["src/dialect/loom/a.rs:1"],
        );
        finds(
            dialects,
            &[("src/dialect/loom/mod.rs", "use super::vblob;"), vblob],
            &["src/dialect/loom/mod.rs:1"],
        );
        finds(
            dialects,
            &[("src/dialect/loom/a.rs", "use crate::runtime::ring;")],
            &["src/dialect/loom/a.rs:1"],
        );
        finds(
            dialects,
            &[("src/dialect/mod.rs", "pub mod vblob; use crate::dialect::vblob::V;"), vblob],
            &[],
        );
        finds(
            dialects,
            &[("src/dialect/loom/a.rs", "use super::{b, c}; use crate::dialect::Dialect;"), vblob],
            &[],
        );
    }

    #[test]
    fn a_file_that_opens_without_saying_what_it_is() {
        finds(openings, &[("src/a.rs", "use x;\n//! late")], &["src/a.rs:1"]);
        finds(openings, &[("benches/b.rs", "// no doc")], &["benches/b.rs:1"]);
        finds(openings, &[("src/a.rs", "//! Does a."), ("README.md", "a")], &[]);
    }

    #[test]
    fn unsafe_code_out_of_place_or_without_a_reason() {
        let argued = "// SAFETY: ours.\nlet a =\n    unsafe { b() };\n";
        finds(unsafety, &[("src/net/a.rs", argued)], &["src/net/a.rs:3"]);
        finds(unsafety, &[("src/runtime/a.rs", argued)], &[]);
        finds(unsafety, &[("src/runtime/a.rs", "// fine\nlet a = unsafe { b() };")], &["src/runtime/a.rs:2"]);
        finds(
            unsafety,
            &[("src/runtime/a.rs", "// SAFETY: c.\nc();\nunsafe { b() }")],
            &["src/runtime/a.rs:3"],
        );
        finds(unsafety, &[("benches/a.rs", "unsafe { b() }")], &["benches/a.rs:1"]);
        let siblings = "// SAFETY: no state.\nunsafe impl Send for A {}\nunsafe impl Sync for A {}\n";
        finds(unsafety, &[("src/runtime/a.rs", siblings)], &[]);
        finds(
            unsafety,
            &[("src/runtime/a.rs", "/// # Safety\n/// Callers …\n#[inline]\npub unsafe fn a() {}")],
            &[],
        );
        finds(unsafety, &[("src/net/a.rs", "// unsafe\nlet a = \"unsafe\"; #![deny(unsafe_code)]")], &[]);
    }

    #[test]
    fn a_call_where_it_has_no_place() {
        finds(banned, &[("src/net/a.rs", "let t = std::time::Instant::now();")], &["src/net/a.rs:1"]);
        finds(banned, &[("src/daemon.rs", "println!(\"x\");")], &["src/daemon.rs:1"]);
        finds(banned, &[("src/service/a.rs", "use std::fs;")], &["src/service/a.rs:1"]);
        finds(banned, &[("src/cli/a.rs", "dbg!(1);\ntodo!()")], &["src/cli/a.rs:1", "src/cli/a.rs:2"]);
        finds(
            banned,
            &[("src/net/a.rs", "\n#[cfg(test)]\nmod tests { thread::sleep(d) }")],
            &["src/net/a.rs:3"],
        );
        finds(banned, &[("src/net/a.rs", "#[cfg(test)]\nmod tests { Instant::now(); }")], &[]);
        finds(banned, &[("src/cli/a.rs", "println!()"), ("src/runtime/clock.rs", "Instant::now()")], &[]);
        finds(banned, &[("src/net/a.rs", "// dbg!\nlet a = \"todo!\"; my_println!()")], &[]);
    }

    #[test]
    fn glommio_out_of_place_or_a_trap_of_it() {
        finds(glommio, &[("src/net/a.rs", "\nuse glommio::timer;")], &["src/net/a.rs:2"]);
        finds(
            glommio,
            &[("src/runtime/ring.rs", "async { glommio::yield_if_needed().await }")],
            &["src/runtime/ring.rs:1"],
        );
        let driver = GLOMMIO_IN;
        let at_1: &[&str] = &["src/runtime/driver.rs:1"];
        for (part, _) in GLOMMIO_WITHOUT {
            finds(glommio, &[(driver, &format!("let a = {part}::new();"))], at_1);
        }
        finds(glommio, &[(driver, "use glommio::{CpuSet, net::TcpListener};")], at_1);
        finds(glommio, &[(driver, "use glommio::{\n    Latency::{Matters, NotImportant},\n};")], at_1);
        finds(glommio, &[("src/storage/a.rs", "fn open(file: DmaFile) {}")], &["src/storage/a.rs:1"]);
        let clean = "use glommio::{CpuSet, io::BufferedFile};\n// DmaFile\nlet a = \"glommio::net\"; my_glommio::net();";
        finds(glommio, &[(driver, clean), ("src/net/a.rs", "//! glommio hosts us.\nuse crate::net;")], &[]);
    }

    #[test]
    fn a_file_that_nobody_declares() {
        let lib = ("src/lib.rs", "pub mod net;");
        finds(
            orphans,
            &[lib, ("src/net/mod.rs", "mod conn;"), ("src/net/other.rs", "")],
            &["src/net/other.rs:1"],
        );
        finds(
            orphans,
            &[lib, ("src/net/mod.rs", "// mod conn;"), ("src/net/conn.rs", "")],
            &["src/net/conn.rs:1"],
        );
        finds(
            orphans,
            &[lib, ("src/net.rs", "mod conn;"), ("src/net/conn.rs", ""), ("src/main.rs", "")],
            &[],
        );
    }

    #[test]
    fn a_bench_or_fuzz_target_that_nobody_runs() {
        let listed = ("Cargo.toml", "[[bench]]\nname = \"a\"\nharness = false\n");
        finds(registrations, &[listed, ("benches/a.rs", ""), ("benches/b.rs", "")], &["benches/b.rs:1"]);
        finds(registrations, &[listed], &["Cargo.toml:1"]);
        finds(registrations, &[("fuzz/fuzz_targets/head.rs", "")], &["fuzz/fuzz_targets/head.rs:1"]);
        let fuzz = ("fuzz/Cargo.toml", "[[bin]]\nname = \"head\"\n");
        finds(registrations, &[listed, ("benches/a.rs", ""), fuzz, ("fuzz/fuzz_targets/head.rs", "")], &[]);
    }

    #[test]
    fn a_file_too_long_to_read() {
        finds(lengths, &[("src/a.rs", &"\n".repeat(LINES_MAX + 1))], &["src/a.rs:901"]);
        finds(lengths, &[("src/a.rs", &"\n".repeat(LINES_MAX)), ("tests/a.rs", &"\n".repeat(2000))], &[]);
    }

    #[test]
    fn a_text_that_speaks_of_its_making() {
        for word in WORDS {
            finds(words, &[("README.md", &format!("a\nsee {word} b"))], &["README.md:2"]);
        }
        finds(words, &[("src/a.rs", "the special network/ of X"), (".ci/run", WORDS[0])], &[]);
    }

    #[test]
    fn a_link_into_nothing() {
        let page = ("docs/b.md", "# One Two, three!\n");
        finds(links, &[("README.md", "[a](docs/c.md)"), page], &["README.md:1"]);
        finds(links, &[("README.md", "[a](docs/b.md#four)"), page], &["README.md:1"]);
        finds(links, &[("README.md", "\n[a](#none)")], &["README.md:2"]);
        finds(
            links,
            &[("README.md", "[a](docs/b.md#one-two-three) [b](docs/) [c](https://x.org/y)"), page],
            &[],
        );
        finds(
            links,
            &[("docs/b.md", "# One\n[a](../README.md) [b](#one)\n```\n[x](y)\n```"), ("README.md", "")],
            &[],
        );
    }

    #[test]
    fn literals_and_comments_are_not_code() {
        let text = "a /* b /* c */ d */ e r#\"f\"g\"# h 'i' '\\'' 'j: loop \"k\\\"l\" m // n\no b\"p\" q'…'";
        let code = code_only(text);
        let words: Vec<&str> = words_of(&code).into_iter().map(|(_, word)| word).collect();
        assert_eq!(words, ["a", "e", "h", "j", "loop", "m", "o", "b", "q"]);
        assert_eq!(code_only(text).lines().count(), text.lines().count());
    }
}
