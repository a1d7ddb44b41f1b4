//! Sizes and durations as people write them: `64MiB`, `100ms`.
//!
//! Invariant: what [`Display`](fmt::Display) prints parses back to the same value, and nothing that
//! overflows is ever clamped in silence.
//! Pure functions; runs wherever a configuration is read.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes, written with a decimal or a binary unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// What [`FromStr`] takes, in the words of an error message.
    pub const ACCEPTED: &str =
        "a whole number and a unit (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB), such as \"64MiB\"";

    /// `count` times 1024 bytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// `count` times 1024² bytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// `count` times 1024³ bytes.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The plain number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (count, unit) = split(text)?;
        let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(UnitError::Unit)?.1;
        count.checked_mul(factor).map(Self).ok_or(UnitError::Overflow)
    }
}

impl fmt::Display for ByteSize {
    /// Prints the largest binary unit that divides the value, else plain bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SIZE_UNITS.iter().filter(|(name, _)| name.ends_with("iB"));
        match binary.rev().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A length of time with one unit, down to the nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

impl Period {
    /// What [`FromStr`] takes, in the words of an error message.
    pub const ACCEPTED: &str = "a whole number and a unit (ns, us, ms, s, m, h, d), such as \"30s\"";

    /// `count` milliseconds.
    pub const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }

    /// `count` seconds.
    pub const fn secs(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// The plain duration.
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// Whether the length is zero, which most keys read as "none".
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (count, unit) = split(text)?;
        let factor = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or(UnitError::Unit)?.1;
        // 64 bits of nanoseconds are 584 years: every accepted value can be added to an instant.
        count.checked_mul(factor).map(|nanos| Self(Duration::from_nanos(nanos))).ok_or(UnitError::Overflow)
    }
}

impl fmt::Display for Period {
    /// Prints the largest unit that divides the value; zero is `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        match TIME_UNITS
            .iter()
            .rev()
            .find(|(_, factor)| nanos != 0 && nanos.is_multiple_of(u128::from(*factor)))
        {
            Some((name, factor)) => write!(f, "{}{name}", nanos / u128::from(*factor)),
            None => f.write_str("0s"),
        }
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        period.0
    }
}

/// Why a size or a duration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitError {
    /// It does not begin with a whole number.
    Number,
    /// The number has no unit behind it.
    NoUnit,
    /// The unit is none that we know; units are case-sensitive.
    Unit,
    /// The value does not fit in 64 bits of bytes or nanoseconds.
    Overflow,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "not a whole number with a unit",
            Self::NoUnit => "the unit is missing",
            Self::Unit => "unknown unit",
            Self::Overflow => "too large",
        })
    }
}

impl std::error::Error for UnitError {}

fn split(text: &str) -> Result<(u64, &str), UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    if count.is_empty() || unit.starts_with(['.', ',']) {
        return Err(UnitError::Number);
    }
    // Only digits got this far, so the one way to fail is to be too many of them.
    let count = count.parse().map_err(|_| UnitError::Overflow)?;
    match unit.strip_prefix(' ').unwrap_or(unit) {
        "" => Err(UnitError::NoUnit),
        unit => Ok((count, unit)),
    }
}

/// Smallest first within a family; `Display` relies on the order.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Smallest first; `Display` relies on the order.
const TIME_UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_take_both_families_of_units() {
        for (text, bytes) in [
            ("0B", 0),
            ("1KB", 1000),
            ("1KiB", 1024),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("3GB", 3_000_000_000),
            ("2TiB", 2 << 40),
            ("18446744073709551615B", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn sizes_say_why_they_are_refused() {
        for (text, why) in [
            ("", UnitError::Number),
            ("MiB", UnitError::Number),
            ("-1B", UnitError::Number),
            ("1.5MiB", UnitError::Number),
            ("64", UnitError::NoUnit),
            ("64mib", UnitError::Unit),
            ("64Mib", UnitError::Unit),
            ("64  MiB", UnitError::Unit),
            ("64MiB ", UnitError::Unit),
            ("18446744073709551616B", UnitError::Overflow),
            ("16777216TiB", UnitError::Overflow),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(why), "{text}");
        }
    }

    #[test]
    fn periods_take_every_unit_and_refuse_the_rest() {
        for (text, millis) in
            [("100ms", 100), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000), ("1d", 86_400_000)]
        {
            assert_eq!(text.parse(), Ok(Period::millis(millis)), "{text}");
        }
        assert_eq!("7us".parse(), Ok(Period(Duration::from_micros(7))));
        for (text, why) in [
            ("30", UnitError::NoUnit),
            ("1m30s", UnitError::Unit),
            ("thirty", UnitError::Number),
            ("0.5s", UnitError::Number),
            ("300000d", UnitError::Overflow),
        ] {
            assert_eq!(text.parse::<Period>(), Err(why), "{text}");
        }
    }

    #[test]
    fn the_shown_form_is_the_shortest_exact_one() {
        assert_eq!(ByteSize::mib(256).to_string(), "256MiB");
        assert_eq!(ByteSize(1000).to_string(), "1000B");
        assert_eq!(ByteSize(0).to_string(), "0B");
        assert_eq!(Period::millis(1500).to_string(), "1500ms");
        assert_eq!(Period::secs(86_400).to_string(), "1d");
        assert_eq!(Period::default().to_string(), "0s");
    }

    proptest! {
        #[test]
        fn any_size_survives_being_shown(bytes: u64) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }

        #[test]
        fn any_written_size_means_count_times_unit(count in 0u64..=1 << 24, unit in 0..SIZE_UNITS.len()) {
            let (name, factor) = SIZE_UNITS[unit];
            prop_assert_eq!(format!("{count}{name}").parse().ok(), count.checked_mul(factor).map(ByteSize));
        }

        #[test]
        fn any_period_survives_being_shown(nanos: u64) {
            let period = Period(Duration::from_nanos(nanos));
            prop_assert_eq!(period.to_string().parse(), Ok(period));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,24}") {
            let _ = text.parse::<ByteSize>();
            let _ = text.parse::<Period>();
        }
    }
}
