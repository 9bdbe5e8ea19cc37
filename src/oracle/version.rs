//! What defined a sector last, in 46 bits.

use crate::base::{Error, ErrorKind, Result};

/// How a write defined its sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ContentKind {
    /// The payload recorded in the trace.
    Payload = 0,
    /// A stamp ([`crate::base::stamp`]).
    Stamp = 1,
    /// Zeros.
    Zeros = 2,
    /// Anything: a discard, or a request that failed half way.
    Unspecified = 3,
}

/// The write that last defined a sector, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(u64);

impl Version {
    /// Largest write number: 17 × 10^12, years of requests at a million a second.
    pub const WRITE_MAX: u64 = (1 << 44) - 1;
    /// Bits that [`Version::to_raw`] needs.
    pub const BITS: u32 = 46;

    /// The version that write number `write` (event + loop × events) makes.
    ///
    /// # Errors
    /// A number past [`Version::WRITE_MAX`].
    pub fn new(write: u64, kind: ContentKind) -> Result<Self> {
        if write > Self::WRITE_MAX {
            return Err(Error::new(
                ErrorKind::Incomplete,
                format!("write number {write} is past what can be verified ({})", Self::WRITE_MAX),
            )
            .hint("use fewer loops, or verify=none"));
        }
        Ok(Self(write << 2 | kind as u64))
    }

    /// The same write, with its content unknown.
    #[must_use]
    pub fn unspecified(self) -> Self {
        Self(self.0 | ContentKind::Unspecified as u64)
    }

    /// Number of the write.
    pub fn write(self) -> u64 {
        self.0 >> 2
    }

    /// How it defined its sectors.
    pub fn kind(self) -> ContentKind {
        match self.0 & 3 {
            0 => ContentKind::Payload,
            1 => ContentKind::Stamp,
            2 => ContentKind::Zeros,
            _ => ContentKind::Unspecified,
        }
    }

    /// The packed form.
    pub fn to_raw(self) -> u64 {
        self.0
    }

    /// The inverse of [`Version::to_raw`]; higher bits are ignored.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw & ((1 << Self::BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_and_unpacks() {
        for kind in [ContentKind::Payload, ContentKind::Stamp, ContentKind::Zeros] {
            let version = Version::new(Version::WRITE_MAX, kind).unwrap();
            assert_eq!(Version::from_raw(version.to_raw() | 1 << 60), version);
            assert_eq!((version.write(), version.kind()), (Version::WRITE_MAX, kind));
            assert_eq!(version.unspecified().kind(), ContentKind::Unspecified);
            assert_eq!(version.unspecified().write(), Version::WRITE_MAX);
        }
        assert!(Version::new(Version::WRITE_MAX + 1, ContentKind::Stamp).is_err());
    }
}
