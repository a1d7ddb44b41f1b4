//! The fields of a head, as spans over one copy of its bytes.
//!
//! Invariant: names and values were checked before they came here; nothing behind checks syntax again.
//! Lives on: the connection's shard.

/// A head's bytes and where its fields lie in them; reused from head to head.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// The head as received; what its reader adds stands behind.
    pub bytes: Vec<u8>,
    pub fields: Vec<Field>,
}

impl Fields {
    /// Copies `head` and notes the fields that were found in it.
    pub fn store(&mut self, head: &[u8], fields: &[httparse::Header<'_>]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
        self.fields.clear();
        self.fields.extend(fields.iter().map(|field| Field {
            name: Span::of(field.name.as_bytes(), head),
            value: Span::of(field.value, head),
        }));
    }

    /// Forgets everything, and gives memory back that an ordinary head does not need.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(IDLE_BYTES_MAX);
        self.fields.clear();
    }

    /// All fields called `name`, in any case, in order.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let has_name = move |field: &&Field| self.slice(field.name).eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(has_name).map(|field| self.slice(field.value))
    }

    /// All fields as they came; values are without the space around them.
    pub fn all(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (self.text(field.name), self.slice(field.value)))
    }

    /// The bytes of a part.
    pub fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..][..span.len as usize]
    }

    /// The text of a part that can hold ASCII alone.
    pub fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.slice(span)).expect("tokens, targets and hosts are ASCII")
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    name: Span,
    value: Span,
}

/// A part of [`Fields::bytes`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    pub const EMPTY: Span = Span { start: 0, len: 0 };

    pub fn new(start: usize, end: usize) -> Span {
        let start_and_len = (u32::try_from(start), u32::try_from(end - start));
        let (Ok(start), Ok(len)) = start_and_len else { panic!("a head of {end} bytes passed the limits") };
        Span { start, len }
    }

    /// Where `part` lies in `whole`, which it was cut from. Empty parts may lie elsewhere.
    pub fn of(part: &[u8], whole: &[u8]) -> Span {
        if part.is_empty() {
            return Span::EMPTY;
        }
        let start = part.as_ptr().addr() - whole.as_ptr().addr();
        assert!(start + part.len() <= whole.len(), "the part is cut from the whole");
        Span::new(start, start + part.len())
    }
}

/// What an idle connection may keep of a large head.
pub(super) const IDLE_BYTES_MAX: usize = 4 * 1024;
