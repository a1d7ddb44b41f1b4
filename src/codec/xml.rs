//! Writes XML 1.0 documents, element by element, without white space between them.
//!
//! Invariant: what was finished is well-formed: every element is closed, and text is escaped whatever bytes it has.
//! What XML cannot hold is written as a numeric reference, as S3 does: a strict reader refuses it, a lenient one gets
//! it back. Bytes that are not UTF-8 become U+FFFD.
//! Lives on: whichever shard calls.

use std::io::Write as _;

/// A document being written.
#[derive(Debug)]
#[must_use = "a document without finish() is not one"]
pub struct Xml {
    out: Vec<u8>,
    open: Vec<&'static str>,
}

/// What every document begins with.
pub const DECLARATION: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

impl Xml {
    /// A document whose root is `root`.
    pub fn new(root: &'static str) -> Self {
        Self::with(root, &[])
    }

    /// A document whose root is `root` in the namespace `xmlns`.
    pub fn in_namespace(root: &'static str, xmlns: &str) -> Self {
        Self::with(root, &[("xmlns", xmlns)])
    }

    fn with(root: &'static str, attributes: &[(&str, &str)]) -> Self {
        let mut xml = Xml { out: DECLARATION.to_vec(), open: Vec::new() };
        xml.open_with(root, attributes);
        xml
    }

    /// Opens an element; what follows stands in it.
    pub fn open(&mut self, name: &'static str) -> &mut Self {
        self.open_with(name, &[])
    }

    /// Opens an element with attributes.
    pub fn open_with(&mut self, name: &'static str, attributes: &[(&str, &str)]) -> &mut Self {
        self.out.push(b'<');
        self.out.extend_from_slice(name.as_bytes());
        for (key, value) in attributes {
            self.out.push(b' ');
            self.out.extend_from_slice(key.as_bytes());
            self.out.extend_from_slice(b"=\"");
            push_escaped(&mut self.out, value.as_bytes());
            self.out.push(b'"');
        }
        self.out.push(b'>');
        self.open.push(name);
        self
    }

    /// Closes the element that was opened last.
    ///
    /// # Panics
    /// If it is the root: [`Xml::finish`] closes that.
    pub fn close(&mut self) -> &mut Self {
        assert!(self.open.len() > 1, "the root is closed by finish()");
        self.close_last();
        self
    }

    /// Text in the element that is open.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        push_escaped(&mut self.out, text.as_ref());
        self
    }

    /// A whole element with nothing but text in it, perhaps none.
    pub fn element(&mut self, name: &'static str, text: impl AsRef<[u8]>) -> &mut Self {
        self.open(name).text(text);
        self.close_last();
        self
    }

    /// A whole element with a number in it.
    pub fn number(&mut self, name: &'static str, number: u64) -> &mut Self {
        self.open(name);
        write!(self.out, "{number}").expect("memory takes what is written");
        self.close_last();
        self
    }

    /// A whole element with text in quotes in it, as entity tags are written.
    pub fn quoted(&mut self, name: &'static str, text: impl AsRef<[u8]>) -> &mut Self {
        self.open(name);
        self.out.extend_from_slice(b"&quot;");
        push_escaped(&mut self.out, text.as_ref());
        self.out.extend_from_slice(b"&quot;");
        self.close_last();
        self
    }

    /// How many bytes wait in it.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes what was written so far, so that a long document needs not be in memory whole.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Closes what is open; the rest of the document.
    pub fn finish(mut self) -> Vec<u8> {
        while !self.open.is_empty() {
            self.close_last();
        }
        self.out
    }

    fn close_last(&mut self) {
        let name = self.open.pop().expect("an element is open");
        self.out.extend_from_slice(b"</");
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'>');
    }
}

/// Appends `text` as it can stand between tags and in quotes.
pub fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    // Most texts are like that, and it is found out many bytes at a time.
    if text.iter().all(|&byte| stands_for_itself(byte)) {
        out.extend_from_slice(text);
        return;
    }
    for part in text.utf8_chunks() {
        push_valid(out, part.valid());
        if !part.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Whether a byte is a character that needs no escape.
fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b' '..=b'\x7f') & !matches!(byte, b'&' | b'<' | b'>' | b'"' | b'\'')
}

fn push_valid(out: &mut Vec<u8>, text: &str) {
    let mut plain_from = 0;
    for (at, char) in text.char_indices() {
        let escaped: &[u8] = match char {
            '&' => b"&amp;",
            '<' => b"&lt;",
            '>' => b"&gt;",
            '"' => b"&quot;",
            '\'' => b"&apos;",
            // A reader turns a line end and, in an attribute, a tab into something else, unless it is a reference.
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => b"",
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[plain_from..at]);
        plain_from = at + char.len_utf8();
        match escaped {
            b"" => out.extend_from_slice(format!("&#x{:X};", u32::from(char)).as_bytes()),
            escaped => out.extend_from_slice(escaped),
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain_from..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(text: &[u8]) -> String {
        let mut out = Vec::new();
        push_escaped(&mut out, text);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_whole_document() {
        let mut xml = Xml::in_namespace("List", "https://a.example/?a&b");
        xml.element("Name", "c").element("Prefix", "").number("Max", 1000);
        for key in ["a", "b"] {
            xml.open("Entry").element("Key", key).close();
        }
        assert_eq!(
            String::from_utf8(xml.finish()).unwrap(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<List xmlns=\"https://a.example/?a&amp;b\"><Name>c</Name>\
             <Prefix></Prefix><Max>1000</Max><Entry><Key>a</Key></Entry><Entry><Key>b</Key></Entry></List>"
        );
    }

    #[test]
    fn a_document_can_be_taken_piece_by_piece() {
        let mut xml = Xml::new("A");
        let mut whole = xml.take();
        assert!(xml.is_empty());
        xml.open("B").text("1");
        assert_eq!(xml.len(), 4);
        whole.extend(xml.take());
        whole.extend(xml.finish());
        assert_eq!(whole, [DECLARATION, b"<A><B>1</B></A>"].concat());
    }

    #[test]
    fn entity_tags_and_numbers_are_written_as_texts_are() {
        let mut xml = Xml::new("A");
        xml.quoted("E", "a<b").number("N", u64::MAX);
        let mut same = Xml::new("A");
        same.element("E", "\"a<b\"").element("N", u64::MAX.to_string());
        assert_eq!(xml.finish(), same.finish());
    }

    #[test]
    #[should_panic(expected = "closed by finish")]
    fn the_root_is_not_closed_by_hand() {
        Xml::new("A").close();
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped(b"<a b=\"c\">&'"), "&lt;a b=&quot;c&quot;&gt;&amp;&apos;");
        assert_eq!(escaped(b"\0\x1f\r\n\tx\x7f"), "&#x0;&#x1F;&#xD;&#xA;&#x9;x\x7f");
        assert_eq!(escaped("日\u{ffff}\u{fffd}".as_bytes()), "日&#xFFFF;\u{fffd}");
        assert_eq!(escaped(b"a\xffb\xe6\x97"), "a\u{fffd}b\u{fffd}");
    }

    proptest! {
        /// Nothing of a text can end its element or open another one, and undoing the references gives it back.
        #[test]
        fn a_text_stays_in_its_place_and_comes_back(text in any::<String>()) {
            let mut rest = &escaped(text.as_bytes())[..];
            prop_assert!(!rest.contains(['<', '>', '"', '\'']) && !rest.chars().any(|c| c < ' '));
            let mut back = String::new();
            while let Some(at) = rest.find('&') {
                back.push_str(&rest[..at]);
                let (name, behind) = rest[at + 1..].split_once(';').expect("a reference ends");
                back.push(match name {
                    "amp" => '&',
                    "lt" => '<',
                    "gt" => '>',
                    "quot" => '"',
                    "apos" => '\'',
                    number => {
                        let number = u32::from_str_radix(number.strip_prefix("#x").unwrap(), 16);
                        char::from_u32(number.unwrap()).unwrap()
                    }
                });
                rest = behind;
            }
            back.push_str(rest);
            prop_assert_eq!(back, text);
        }

        #[test]
        fn any_bytes_become_text(bytes in any::<Vec<u8>>()) {
            let shown = escaped(&bytes);
            prop_assert!(!shown.contains('<'));
        }
    }
}
