//! Units as newtypes, so that a sector is never taken for a byte or a time for an address.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// Bytes in a [`Sector`]: virtio 1.2 §5.2.4 and Linux both fix it at 512, whatever the logical
/// block size of the device is.
pub const SECTOR_SIZE: u64 = 512;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $fmt:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $fmt, self.0)
            }
        }

        impl Add<u64> for $name {
            type Output = Self;
            /// Saturating: an address past the end of its space is caught by the range check that
            /// every use makes, a wrapped one would not be.
            fn add(self, rhs: u64) -> Self {
                Self(self.0.saturating_add(rhs))
            }
        }

        impl AddAssign<u64> for $name {
            fn add_assign(&mut self, rhs: u64) {
                *self = *self + rhs;
            }
        }

        impl Sub for $name {
            type Output = u64;
            /// Saturating, as [`Add`] is.
            fn sub(self, rhs: Self) -> u64 {
                self.0.saturating_sub(rhs.0)
            }
        }
    };
}

unit!(
    /// A 512-byte sector number on a disk.
    Sector,
    "sector {}"
);
unit!(
    /// A byte offset on a disk or in a file.
    ByteOffset,
    "offset {}"
);
unit!(
    /// A time or a duration in nanoseconds; what it counts from is said where it is used.
    Nanos,
    "{} ns"
);
unit!(
    /// A guest-physical address.
    GuestAddr,
    "{:#x}"
);

impl Sector {
    /// The sector that holds byte `offset`.
    pub fn containing(offset: u64) -> Self {
        Self(offset / SECTOR_SIZE)
    }

    /// The byte offset of the sector's first byte (saturating).
    pub fn to_offset(self) -> ByteOffset {
        ByteOffset(self.0.saturating_mul(SECTOR_SIZE))
    }
}

impl Nanos {
    /// From whole microseconds (saturating).
    pub fn from_micros(us: u64) -> Self {
        Self(us.saturating_mul(1_000))
    }

    /// From whole milliseconds (saturating).
    pub fn from_millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// As a [`std::time::Duration`].
    pub fn to_duration(self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0)
    }
}

/// A byte count for people: binary units, one decimal, exact below 1 KiB.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration for people: three significant places and the unit that fits.
pub fn human_nanos(ns: u64) -> String {
    match ns {
        0..=999 => format!("{ns} ns"),
        1_000..=999_999 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..=999_999_999 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.3} s", ns as f64 / 1e9),
    }
}

/// Parses a size as people write it: `4096`, `64k`, `16M`, `1.5GiB`; binary multiples, as
/// qemu-img's. Returns `None` for anything else, including a value past `u64`.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let shift = match suffix.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1u64 << shift);
    }
    let value = number.parse::<f64>().ok()? * (1u64 << shift) as f64;
    (value.is_finite() && value >= 0.0 && value < 2f64.powi(63)).then_some(value as u64)
}

/// Parses a duration: `250` (in `default_unit_ns`), `10us`, `1.5ms`, `2s`, `100ns`, `3m`.
pub fn parse_nanos(text: &str, default_unit_ns: u64) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let unit = match suffix.trim() {
        "" => default_unit_ns,
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    let value = number.parse::<f64>().ok()? * unit as f64;
    (value.is_finite() && value >= 0.0 && value < 2f64.powi(63)).then_some(value as u64)
}

/// `2000-02-29T00:00:00`, in UTC.
pub fn utc_date(unix_s: i64) -> String {
    const DAY_S: i64 = 86_400;
    let (mut days, second) = (unix_s.div_euclid(DAY_S), unix_s.rem_euclid(DAY_S));
    // Counted from 1 March of the year 0, so that leap days end their years; 400 years have
    // 146,097 days.
    days += 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // March to July and August to December have 153 days each.
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_the_calendar() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00"),
            (-1, "1969-12-31T23:59:59"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (1_767_225_600, "2026-01-01T00:00:00"),
        ] {
            assert_eq!(utc_date(unix_s), text);
        }
    }

    #[test]
    fn sizes_are_binary_and_checked() {
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("64k"), Some(65536));
        assert_eq!(parse_size("1.5GiB"), Some(3 << 29));
        assert_eq!(parse_size("16M"), Some(16 << 20));
        assert_eq!(parse_size("18446744073709551615k"), None);
        assert_eq!(parse_size("-1"), None);
        assert_eq!(parse_size("12q"), None);
        assert_eq!(parse_size(""), None);
    }

    #[test]
    fn durations_take_units() {
        assert_eq!(parse_nanos("10us", 1), Some(10_000));
        assert_eq!(parse_nanos("1.5ms", 1), Some(1_500_000));
        assert_eq!(parse_nanos("3", 1_000_000), Some(3_000_000));
        assert_eq!(parse_nanos("3 weeks", 1), None);
    }

    #[test]
    fn units_saturate_instead_of_wrapping() {
        assert_eq!(ByteOffset(u64::MAX) + 1, ByteOffset(u64::MAX));
        assert_eq!(Nanos(1) - Nanos(2), 0);
        assert_eq!(Sector(u64::MAX).to_offset(), ByteOffset(u64::MAX));
    }

    #[test]
    fn human_forms() {
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(16 << 20), "16.0 MiB");
        assert_eq!(human_nanos(1_500), "1.5 us");
    }
}
