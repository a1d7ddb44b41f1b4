//! Reads XML documents that others wrote, element by element.
//!
//! Elements are known by their local names, whatever the namespace; whoever looks passes over those it does not know.
//! Invariant: bounded in depth and by the length of the document; a document type is refused, so no entity is ever
//! expanded. Pure. Lives on: whichever shard calls.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Elements within each other.
const DEPTH_MAX: usize = 8;

/// Why a document cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadXml(pub &'static str);

/// What is told of an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen<'a> {
    /// It begins.
    Open,
    /// All the text of an element, before its end.
    Text(&'a str),
    /// It is over.
    Close,
}

/// Tells `look` of every element within `root`: its path from there, that it opens, its text, that it closes.
pub fn walk<E: From<BadXml>>(
    document: &[u8],
    root: &str,
    mut look: impl FnMut(&[&str], Seen<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let text = std::str::from_utf8(document).map_err(|_| BadXml("the document is not UTF-8"))?;
    let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<(String, String)> = Vec::new();
    let mut is_over = false;
    loop {
        match reader.read_event().map_err(|_| BadXml("the document is not well-formed"))? {
            Event::Start(element) => {
                let name = element.local_name();
                let name: &str = name.as_ref();
                if is_over || open.len() == DEPTH_MAX || (open.is_empty() && name != root) {
                    return Err(BadXml("an element stands where none is expected").into());
                }
                open.push((name.to_owned(), String::new()));
                tell(&open, Seen::Open, &mut look)?;
            }
            Event::End(_) => {
                let text = std::mem::take(&mut open.last_mut().expect("the reader pairs them").1);
                tell(&open, Seen::Text(&text), &mut look)?;
                tell(&open, Seen::Close, &mut look)?;
                open.pop();
                is_over = open.is_empty();
            }
            Event::Text(text) => match open.last_mut() {
                Some((_, of_element)) => of_element.push_str(&text),
                None if text.trim().is_empty() => {}
                None => return Err(BadXml("text stands outside of all elements").into()),
            },
            Event::CData(text) => {
                open.last_mut().ok_or(BadXml("text stands outside of all elements"))?.1.push_str(&text);
            }
            Event::GeneralRef(name) => {
                let of_element = &mut open.last_mut().ok_or(BadXml("a reference stands outside"))?.1;
                let resolved =
                    name.resolve_char_ref().map_err(|_| BadXml("a reference is to no character"))?;
                of_element.push(match resolved {
                    Some(char) => char,
                    None => match &*name {
                        "amp" => '&',
                        "lt" => '<',
                        "gt" => '>',
                        "quot" => '"',
                        "apos" => '\'',
                        _ => return Err(BadXml("a reference is to an entity that nobody declared").into()),
                    },
                });
            }
            Event::DocType(_) => return Err(BadXml("a document type is not accepted").into()),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Empty(_) => unreachable!("empty elements come as two events"),
            Event::Eof if is_over => return Ok(()),
            Event::Eof => return Err(BadXml("the document ends early").into()),
        }
    }
}

fn tell<E>(
    open: &[(String, String)],
    seen: Seen<'_>,
    look: &mut impl FnMut(&[&str], Seen<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let path: Vec<&str> = open[1..].iter().map(|(name, _)| name.as_str()).collect();
    look(&path, seen)
}
