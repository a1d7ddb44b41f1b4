//! Real log text of any length: what this machine has and this project's build says, again and again.
//!
//! Every repetition opens with a line that has its number, so that no two places of the text are alike and a
//! piece that came twice or was left out is a difference. Invariant: a byte depends on its offset alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Log text without end.
pub struct Text {
    lines: Vec<u8>,
    sources: Vec<(String, usize)>,
}

/// Length of the line before each repetition.
const TITLE: usize = 64;
/// A file that is larger gives its beginning.
const FILE_MAX: u64 = 16 << 20;

/// Commands whose output is like a log.
const COMMANDS: &[(&str, &[&str])] = &[
    ("cargo", &["tree", "--workspace", "--edges", "all", "--no-dedupe", "--prefix", "depth"]),
    ("cargo", &["metadata", "--format-version", "1"]),
    ("git", &["log", "--stat"]),
    ("dpkg", &["-l"]),
    ("dmesg", &[]),
    ("ps", &["auxww"]),
];

impl Text {
    /// Of this file, or of everything that is found here.
    pub fn collect(root: &Path, given: Option<&Path>) -> io::Result<Self> {
        let mut text = Self { lines: Vec::new(), sources: Vec::new() };
        match given {
            Some(path) => text.add(path.display().to_string(), fs::read(path)?),
            None => {
                text.add("verbose build of this project".into(), verbose_build(root)?);
                for path in system_logs(Path::new("/var/log"))? {
                    text.add(path.display().to_string(), fs::read(&path).unwrap_or_default());
                }
                for (program, words) in COMMANDS {
                    let output =
                        Command::new(program).args(*words).current_dir(root).stderr(Stdio::null()).output();
                    let said = output.map(|output| output.stdout).unwrap_or_default();
                    text.add(format!("`{program} {}`", words.join(" ")).replace(" `", "`"), said);
                }
            }
        }
        match text.lines.is_empty() {
            true => Err(io::Error::other("there is no log text to send")),
            false => Ok(text),
        }
    }

    fn add(&mut self, source: String, bytes: Vec<u8>) {
        // What is not text is no log: wtmp, journals.
        if bytes.is_empty() || bytes.contains(&0) || std::str::from_utf8(&bytes).is_err() {
            return;
        }
        self.sources.push((source, bytes.len()));
        self.lines.extend_from_slice(&bytes);
        if !self.lines.ends_with(b"\n") {
            self.lines.push(b'\n');
        }
    }

    /// What it is made of.
    pub fn sources(&self) -> &[(String, usize)] {
        &self.sources
    }

    /// Length of one repetition.
    pub fn period(&self) -> u64 {
        (TITLE + self.lines.len()) as u64
    }

    /// The bytes from `offset` on, as many as lie together.
    pub fn from<'a>(&'a self, offset: u64, title: &'a mut Title) -> &'a [u8] {
        let (number, place) = (offset / self.period(), (offset % self.period()) as usize);
        match place.checked_sub(TITLE) {
            Some(at) => &self.lines[at..],
            None => &title.of(number)[place..],
        }
    }

    /// The offset of the first byte that differs from the text, for bytes that begin at `offset`.
    pub fn difference(&self, mut offset: u64, mut bytes: &[u8]) -> Option<u64> {
        let mut title = Title::default();
        while !bytes.is_empty() {
            let expected = self.from(offset, &mut title);
            let len = expected.len().min(bytes.len());
            if expected[..len] != bytes[..len] {
                let same = expected.iter().zip(bytes).take_while(|(wanted, got)| wanted == got).count();
                return Some(offset + same as u64);
            }
            (offset, bytes) = (offset + len as u64, &bytes[len..]);
        }
        None
    }
}

/// Room for the line before a repetition.
#[derive(Default)]
pub struct Title(Vec<u8>);

impl Title {
    fn of(&mut self, number: u64) -> &[u8] {
        self.0 = format!("=== repetition {number} {:=<TITLE$}", "").into_bytes();
        self.0.truncate(TITLE - 1);
        self.0.push(b'\n');
        &self.0
    }
}

/// What cargo says about every crate of this project when it is asked to be verbose; made once and kept.
fn verbose_build(root: &Path) -> io::Result<Vec<u8>> {
    let kept = root.join("target/perf/verbose-build.log");
    if let Ok(said) = fs::read(&kept) {
        return Ok(said);
    }
    println!("building once more, verbosely, for its log");
    fs::create_dir_all(kept.parent().expect("it lies in a folder"))?;
    let elsewhere = root.join("target/perf/verbose-build");
    let output = crate::apart("cargo")
        .args(["check", "-vv", "--all-targets", "--target-dir"])
        .arg(&elsewhere)
        .current_dir(root)
        .output()?;
    _ = fs::remove_dir_all(&elsewhere);
    if !output.status.success() {
        return Err(io::Error::other(format!("`cargo check -vv` ended with {}", output.status)));
    }
    let said = [output.stderr, output.stdout].concat();
    fs::write(&kept, &said)?;
    Ok(said)
}

/// Files below a folder, in order.
fn system_logs(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut files, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        // A folder that we may not list has nothing for us.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(entry_of) if entry_of.is_dir() => open.push(entry.path()),
                Ok(entry_of) if entry_of.is_file() && entry_of.len() <= FILE_MAX => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Text {
        let mut text = Text { lines: Vec::new(), sources: Vec::new() };
        text.add("a".into(), b"one\ntwo".to_vec());
        text.add("binary".into(), b"\0\0".to_vec());
        text.add("b".into(), b"three\n".to_vec());
        text
    }

    fn bytes(text: &Text, offset: u64, len: usize) -> Vec<u8> {
        let (mut out, mut title) = (Vec::new(), Title::default());
        while out.len() < len {
            let piece = text.from(offset + out.len() as u64, &mut title);
            out.extend_from_slice(&piece[..piece.len().min(len - out.len())]);
        }
        out
    }

    #[test]
    fn every_repetition_has_its_own_title() {
        let text = text();
        let period = text.period() as usize;
        let whole = bytes(&text, 0, 3 * period);
        assert_eq!(text.sources().len(), 2);
        assert!(
            whole.starts_with(b"=== repetition 0 ===")
                && whole[period..].starts_with(b"=== repetition 1 ===")
        );
        assert_eq!(&whole[TITLE - 1..period], b"\none\ntwo\nthree\n");
        for offset in 0..2 * period {
            assert_eq!(bytes(&text, offset as u64, period), whole[offset..offset + period], "from {offset}");
        }
    }

    #[test]
    fn the_first_difference_is_found_wherever_it_is() {
        let text = text();
        let period = text.period() as usize;
        let whole = bytes(&text, 5, 2 * period);
        assert_eq!(text.difference(5, &whole), None);
        for at in 0..whole.len() {
            let mut wrong = whole.clone();
            wrong[at] ^= 1;
            assert_eq!(text.difference(5, &wrong), Some(5 + at as u64));
        }
        assert_eq!(
            text.difference(5 + period as u64, &whole),
            Some(period as u64 + 15),
            "another repetition"
        );
    }
}
