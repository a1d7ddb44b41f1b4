//! Which dialect a stream belongs to: its id says it.
//!
//! All dialects keep their streams in one space of names. A dialect other than loom begins its ids with its own name and a
//! slash: `serpentine/<file>`, `ion/<topic>`, `micro/<topic>`; every other id is loom's. The keeper alone writes and
//! deletes; the doors of other dialects read what its keeper shares. Invariant: an id has one keeper, always the same.
//! Pure; runs anywhere.

use super::Id;

/// A dialect that keeps streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeper {
    /// Log streams; whatever is nobody else's.
    Loom,
    /// Process output.
    Serpentine,
    /// Module events.
    Ion,
    /// Broker topics.
    Micro,
}

/// Something for each of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Each<T>([T; Keeper::ALL.len()]);

/// Some of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Keepers(u8);

impl Keeper {
    /// Every one, in the order of their numbers.
    pub(super) const ALL: [Keeper; 4] = [Keeper::Loom, Keeper::Serpentine, Keeper::Ion, Keeper::Micro];

    /// Those whose ids begin with a prefix of their own.
    const PREFIXED: [Keeper; 3] = [Keeper::Serpentine, Keeper::Ion, Keeper::Micro];

    /// What ids of this dialect begin with; nothing in loom's.
    pub const fn prefix(self) -> &'static str {
        match self {
            Keeper::Loom => "",
            Keeper::Serpentine => "serpentine/",
            Keeper::Ion => "ion/",
            Keeper::Micro => "micro/",
        }
    }

    /// Whose `id` is.
    pub fn of(id: &Id) -> Self {
        Self::of_bytes(id.as_bytes())
    }

    /// Whose the id of these bytes is.
    pub fn of_bytes(id: &[u8]) -> Self {
        let is_of = |keeper: &Keeper| id.starts_with(keeper.prefix().as_bytes());
        Self::PREFIXED.into_iter().find(is_of).unwrap_or(Keeper::Loom)
    }
}

impl<T: Copy> Each<T> {
    pub(super) fn of(&self, keeper: Keeper) -> T {
        self.0[keeper as usize]
    }

    /// This, with `value` for `keeper`.
    pub(super) fn with(mut self, keeper: Keeper, value: T) -> Self {
        self.0[keeper as usize] = value;
        self
    }

    pub(super) fn all(self) -> impl Iterator<Item = (Keeper, T)> {
        Keeper::ALL.into_iter().zip(self.0)
    }
}

impl Keepers {
    /// These.
    pub fn of(keepers: impl IntoIterator<Item = Keeper>) -> Self {
        Keepers(keepers.into_iter().fold(0, |bits, keeper| bits | 1 << keeper as u8))
    }

    /// These and `keeper`.
    pub fn and(self, keeper: Keeper) -> Self {
        Keepers(self.0 | 1 << keeper as u8)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `id` is kept by one of them.
    pub fn keep(self, id: &Id) -> bool {
        self.0 & 1 << Keeper::of(id) as u8 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_whose_it_is() {
        let keeper = |id: &[u8]| Keeper::of(&Id::new(id).unwrap());
        assert_eq!(keeper(b"serpentine/a"), Keeper::Serpentine);
        assert_eq!(keeper(b"ion/a/b"), Keeper::Ion);
        assert_eq!(keeper(b"micro/\xff"), Keeper::Micro);
        for id in [&b"ion"[..], b"ionic/a", b"/ion/a", b"Ion/a", b"build-1", b"\xff"] {
            assert_eq!(keeper(id), Keeper::Loom, "{}", id.escape_ascii());
        }
    }

    #[test]
    fn some_keep_an_id_or_not() {
        let (loom, ion) = (Id::new(b"a").unwrap(), Id::new(b"ion/a").unwrap());
        let none = Keepers::default();
        assert!(none.is_empty() && !none.keep(&loom) && !none.keep(&ion));
        assert!(none.and(Keeper::Ion).keep(&ion) && !none.and(Keeper::Ion).keep(&loom));
        let both = Keepers::of([Keeper::Loom, Keeper::Ion]);
        assert!(both.keep(&loom) && both.keep(&ion) && !both.keep(&Id::new(b"micro/a").unwrap()));
    }
}
