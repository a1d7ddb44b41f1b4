//! Sizes, periods, rates and lists of cores as they are written on the command line.
//!
//! Invariant: what is not understood is refused with what would be accepted; nothing is clamped in silence.

use std::time::Duration;

/// A number of bytes: `100`, `64KiB`, `1GB`.
pub fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("B", 1),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    scaled(text, &UNITS).ok_or_else(|| "write a whole number of bytes, such as 100, 64KiB or 1GB".into())
}

/// A length of time: `5s`, `200ms`.
pub fn period(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 6] = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let nanos = scaled(text, &UNITS).ok_or("write a whole number and a unit, such as 5s, 200ms or 2m")?;
    Ok(Duration::from_nanos(nanos))
}

/// A number of things: `1000`, `50k`, `2M`; at least 1.
pub fn count(text: &str) -> Result<u64, String> {
    let count = scaled(text, &[("", 1), ("k", 1_000), ("M", 1_000_000)]).filter(|count| *count > 0);
    count.ok_or_else(|| "write a whole number from 1 on, such as 1000, 50k or 2M".into())
}

/// Cores: `1`, `0,2`, `1-3`.
pub fn cores(text: &str) -> Result<Vec<usize>, String> {
    let range = |part: &str| -> Option<Vec<usize>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last && last < 1024).then(|| (first..=last).collect())
    };
    let parts: Option<Vec<Vec<usize>>> = text.split(',').map(range).collect();
    parts.map(|parts| parts.concat()).ok_or_else(|| "write cores such as 1, 0,2 or 1-3".into())
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    count.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_understood_and_what_is_not_is_refused() {
        assert_eq!((size("100"), size("64KiB"), size("1GB")), (Ok(100), Ok(65_536), Ok(1_000_000_000)));
        assert_eq!((count("50k"), count("2M"), count("7")), (Ok(50_000), Ok(2_000_000), Ok(7)));
        assert_eq!(period("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(cores("0,2-4"), Ok(vec![0, 2, 3, 4]));
        for wrong in ["", "x", "-1", "1.5", "64kib", "18446744073709551616", "99999999999GiB"] {
            assert!(size(wrong).is_err_and(|why| why.contains("64KiB")), "{wrong}");
            assert!(period(wrong).is_err(), "{wrong}");
            assert!(cores(wrong).is_err(), "{wrong}");
        }
        assert!(count("0").is_err() && period("5").is_err() && cores("3-1").is_err());
    }
}
