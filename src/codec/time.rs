//! Times as text: HTTP dates, RFC 3339 with milliseconds, and durations in Go's notation.
//!
//! Invariant: no clock in here; the caller brings the seconds, so equal input gives equal text.
//! Lives on: whichever shard calls.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

/// An IMF-fixdate (RFC 9110 section 5.6.7), formatted once and valid for one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpDate {
    unix_seconds: u64,
    text: [u8; 29],
}

impl HttpDate {
    /// The date of `unix_seconds`; years beyond 9999 show as the last second of 9999.
    pub fn at(unix_seconds: u64) -> HttpDate {
        let unix_seconds = unix_seconds.min(UNIX_SECONDS_MAX);
        let civil = Civil::at(unix_seconds);
        let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
        text[..3].copy_from_slice(WEEKDAYS[civil.weekday]);
        put_decimal(&mut text[5..7], civil.day);
        text[8..11].copy_from_slice(MONTHS[civil.month as usize - 1]);
        put_decimal(&mut text[12..16], civil.year);
        put_clock(&mut text[17..25], civil.second_of_day);
        HttpDate { unix_seconds, text }
    }

    /// Moves to `unix_seconds`; costs one comparison while the second is the same.
    pub fn refresh(&mut self, unix_seconds: u64) {
        if self.unix_seconds != unix_seconds {
            *self = HttpDate::at(unix_seconds);
        }
    }

    /// The second that this is the date of.
    pub fn unix_seconds(&self) -> u64 {
        self.unix_seconds
    }

    /// The text, as it goes on the wire.
    pub fn as_bytes(&self) -> &[u8; 29] {
        &self.text
    }
}

impl fmt::Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ascii(&self.text))
    }
}

/// Reads any of the three date forms of RFC 9110 into Unix seconds; `None` for anything else and for
/// dates before 1970.
pub fn parse_http_date(text: &[u8]) -> Option<u64> {
    let moment = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
    Some(moment.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// `2006-01-02T15:04:05.000Z` (RFC 3339, UTC, milliseconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rfc3339 {
    text: [u8; 24],
}

impl Rfc3339 {
    /// The moment `unix_ms`; years beyond 9999 show as the last second of 9999.
    pub fn at_ms(unix_ms: u64) -> Rfc3339 {
        let civil = Civil::at((unix_ms / 1000).min(UNIX_SECONDS_MAX));
        let mut text = *b"1970-01-01T00:00:00.000Z";
        put_decimal(&mut text[..4], civil.year);
        put_decimal(&mut text[5..7], civil.month);
        put_decimal(&mut text[8..10], civil.day);
        put_clock(&mut text[11..19], civil.second_of_day);
        put_decimal(&mut text[20..23], (unix_ms % 1000) as u32);
        Rfc3339 { text }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        ascii(&self.text)
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The milliseconds since 1970 of what [`Rfc3339`] writes; the fraction may have any number of digits, or be missing.
pub fn parse_rfc3339_ms(text: &[u8]) -> Option<u64> {
    let (seconds, fraction) = text.split_at_checked(19)?;
    if [seconds[4], seconds[7], seconds[13], seconds[16]] != *b"--::" {
        return None;
    }
    let mut basic: Vec<u8> = seconds.iter().copied().filter(|byte| !matches!(byte, b'-' | b':')).collect();
    basic.push(b'Z');
    let digits = match fraction.strip_suffix(b"Z")? {
        [] => &[][..],
        [b'.', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return None,
    };
    let millis =
        (0..3).fold(0, |sum, at| 10 * sum + u64::from(digits.get(at).map_or(0, |digit| digit - b'0')));
    Some(1000 * parse_basic_time(&basic)? + millis)
}

/// The seconds since 1970 of `YYYYMMDDTHHMMSSZ` (ISO 8601, basic).
pub fn parse_basic_time(text: &[u8]) -> Option<u64> {
    let text: &[u8; 16] = text.try_into().ok()?;
    if text[8] != b'T' || text[15] != b'Z' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        text[range]
            .iter()
            .try_fold(0u64, |sum, digit| digit.is_ascii_digit().then(|| 10 * sum + u64::from(digit - b'0')))
    };
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(9..11)?, number(11..13)?, number(13..15)?);
    let fits = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !fits || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(86_400 * days_before(year, month, day) + 3600 * hour + 60 * minute + second)
}

/// Days from 1970 to a date, with years that begin in March, so that the leap day comes last.
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + of_year - 719_468
}

/// Text that is not a duration in Go's notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDuration;

impl fmt::Display for BadDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a duration: numbers with units ns, us, ms, s, m, h are accepted, such as 1h2m3.5s or 100ms",
        )
    }
}

impl std::error::Error for BadDuration {}

/// Reads `1h2m3.5s`, `100ms`, `0`: the notation of Go's `time.ParseDuration` without a minus sign.
pub fn parse_go_duration(text: &str) -> Result<Duration, BadDuration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total_ns: u128 = 0;
    loop {
        let (ns, tail) = go_term(rest)?;
        total_ns = total_ns.checked_add(ns).ok_or(BadDuration)?;
        if tail.is_empty() {
            break;
        }
        rest = tail;
    }
    u64::try_from(total_ns).map(Duration::from_nanos).map_err(|_| BadDuration)
}

/// Shows a duration as Go does: `1h2m3.5s`, `1.5ms`, `0s`.
#[derive(Clone, Copy, Debug)]
pub struct GoDuration(pub Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        match ns {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{ns}ns"),
            1_000..1_000_000 => write_fraction(f, ns, 1_000, "µs"),
            1_000_000..1_000_000_000 => write_fraction(f, ns, 1_000_000, "ms"),
            _ => write_clock(f, ns),
        }
    }
}

fn write_clock(f: &mut fmt::Formatter<'_>, ns: u128) -> fmt::Result {
    let minutes = ns / NS_PER_MINUTE;
    if minutes >= 60 {
        write!(f, "{}h", minutes / 60)?;
    }
    if minutes > 0 {
        write!(f, "{}m", minutes % 60)?;
    }
    write_fraction(f, ns % NS_PER_MINUTE, 1_000_000_000, "s")
}

fn write_fraction(f: &mut fmt::Formatter<'_>, ns: u128, unit_ns: u128, unit: &str) -> fmt::Result {
    write!(f, "{}", ns / unit_ns)?;
    let mut left = ns % unit_ns;
    let mut place = unit_ns / 10;
    if left > 0 {
        f.write_str(".")?;
    }
    while left > 0 {
        write!(f, "{}", left / place)?;
        left %= place;
        place /= 10;
    }
    f.write_str(unit)
}

/// One number with its unit from the front of `text`: nanoseconds and what follows.
fn go_term(text: &str) -> Result<(u128, &str), BadDuration> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), split_digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(BadDuration);
    }
    let unit_len = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_len);
    let unit_ns = unit_ns(unit)?;
    let ns = decimal(whole)?.checked_mul(unit_ns).ok_or(BadDuration)?;
    Ok((ns.checked_add(fraction_ns(fraction, unit_ns)).ok_or(BadDuration)?, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn decimal(digits: &str) -> Result<u128, BadDuration> {
    if digits.is_empty() { Ok(0) } else { digits.parse().map_err(|_| BadDuration) }
}

/// Digits below a nanosecond are cut off, as Go does. Twenty digits are more than any unit has room for.
fn fraction_ns(digits: &str, unit_ns: u128) -> u128 {
    let mut numerator: u128 = 0;
    let mut denominator: u128 = 1;
    for digit in digits.bytes().take(20) {
        numerator = 10 * numerator + u128::from(digit - b'0');
        denominator *= 10;
    }
    numerator * unit_ns / denominator
}

fn unit_ns(unit: &str) -> Result<u128, BadDuration> {
    match unit {
        "ns" => Ok(1),
        "us" | "µs" | "μs" => Ok(1_000),
        "ms" => Ok(1_000_000),
        "s" => Ok(1_000_000_000),
        "m" => Ok(NS_PER_MINUTE),
        "h" => Ok(60 * NS_PER_MINUTE),
        _ => Err(BadDuration),
    }
}

/// A day and a second of it, in UTC.
struct Civil {
    year: u32,
    month: u32,
    day: u32,
    weekday: usize,
    second_of_day: u32,
}

impl Civil {
    /// Counts years from March, so that the leap day is a year's last (the usual days-to-civil arithmetic).
    fn at(unix_seconds: u64) -> Civil {
        let days = unix_seconds / SECONDS_PER_DAY;
        let since_march_0000 = days + 719_468;
        let era = since_march_0000 / 146_097;
        let day_of_era = since_march_0000 % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Civil {
            year: (era * 400 + year_of_era + u64::from(month <= 2)) as u32,
            month: month as u32,
            day: (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32,
            weekday: ((days + 4) % 7) as usize,
            second_of_day: (unix_seconds % SECONDS_PER_DAY) as u32,
        }
    }
}

fn put_clock(out: &mut [u8], second_of_day: u32) {
    put_decimal(&mut out[..2], second_of_day / 3600);
    put_decimal(&mut out[3..5], second_of_day / 60 % 60);
    put_decimal(&mut out[6..8], second_of_day % 60);
}

fn put_decimal(out: &mut [u8], mut value: u32) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    assert_eq!(value, 0, "the number is wider than its field");
}

fn ascii(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("written here, from ASCII alone")
}

const SECONDS_PER_DAY: u64 = 86_400;
const NS_PER_MINUTE: u128 = 60_000_000_000;
/// 9999-12-31T23:59:59Z: both formats have four digits for the year.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;
const WEEKDAYS: [&[u8; 3]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn basic_times_that_are_none() {
        for text in ["", "20260102T030405", "20260102 030405Z", "20261302T030405Z", "2026010xT030405Z"] {
            assert_eq!(parse_basic_time(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_basic_time(b"19700101T000000Z"), Some(0));
        for text in [
            "",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05.Z",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05.1+01:00",
        ] {
            assert_eq!(parse_rfc3339_ms(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_rfc3339_ms(b"1970-01-01T00:00:01.5Z"), Some(1500));
        assert_eq!(parse_rfc3339_ms(b"1970-01-01T00:00:01.123456Z"), Some(1123));
        assert_eq!(parse_rfc3339_ms(b"1970-01-01T00:00:01Z"), Some(1000));
    }

    proptest! {
        #[test]
        fn times_come_back(ms in 0u64..253_402_300_800_000) {
            let text = Rfc3339::at_ms(ms);
            prop_assert_eq!(parse_rfc3339_ms(text.as_str().as_bytes()), Some(ms));
            let basic = format!("{}Z", text.as_str()[..19].replace(['-', ':'], ""));
            prop_assert_eq!(parse_basic_time(basic.as_bytes()), Some(ms / 1000));
        }
    }

    #[test]
    fn dates_that_people_get_wrong() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (UNIX_SECONDS_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(HttpDate::at(seconds).to_string(), text);
        }
    }

    #[test]
    fn refresh_follows_the_second() {
        let mut date = HttpDate::at(7);
        date.refresh(7);
        assert_eq!(date, HttpDate::at(7));
        date.refresh(8);
        assert_eq!(date, HttpDate::at(8));
    }

    #[test]
    fn all_three_date_forms_are_read() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse_http_date(text.as_bytes()), Some(784_111_777));
        }
        assert_eq!(parse_http_date(b"yesterday"), None);
        assert_eq!(parse_http_date(b"\xff"), None);
    }

    #[test]
    fn rfc3339_keeps_milliseconds() {
        assert_eq!(Rfc3339::at_ms(0).as_str(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Rfc3339::at_ms(784_111_777_042).as_str(), "1994-11-06T08:49:37.042Z");
    }

    #[test]
    fn go_durations_are_read() {
        for (text, ns) in [
            ("0", 0),
            ("0s", 0),
            ("+5s", 5_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("100ms", 100_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("3us2µs1μs7ns", 6_007),
            ("0.1m", 6_000_000_000),
            ("0.000000001s", 1),
            ("0s1s", 1_000_000_000),
        ] {
            assert_eq!(parse_go_duration(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
    }

    #[test]
    fn go_durations_that_are_refused() {
        for text in
            ["", "+", "1", "s", ".s", "-1s", "1s ", " 1s", "1d", "1h2", "99999999999999999999h", "1..5s"]
        {
            assert_eq!(parse_go_duration(text), Err(BadDuration), "{text}");
        }
    }

    #[test]
    fn go_durations_are_shown() {
        for (ns, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (480_000_000_001, "8m0.000000001s"),
        ] {
            assert_eq!(GoDuration(Duration::from_nanos(ns)).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn dates_agree_with_httpdate(seconds in 0..=UNIX_SECONDS_MAX) {
            let theirs = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            prop_assert_eq!(HttpDate::at(seconds).to_string(), theirs.clone());
            prop_assert_eq!(parse_http_date(theirs.as_bytes()), Some(seconds));
        }

        #[test]
        fn go_durations_round_trip(ns in any::<u64>()) {
            let duration = Duration::from_nanos(ns);
            prop_assert_eq!(parse_go_duration(&GoDuration(duration).to_string()), Ok(duration));
        }

        #[test]
        fn any_text_is_judged(text in any::<String>()) {
            let _ = parse_go_duration(&text);
            let _ = parse_http_date(text.as_bytes());
        }
    }
}
