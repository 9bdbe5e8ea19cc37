//! Where requests go: shifted as a whole, or range by range.

use crate::base::limits::DISK_BYTES_MAX;
use crate::base::{Error, Result};
use crate::trace::Span;

/// New places for old ones; bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Ranges, and where each begins afterwards; the first that holds a request counts. What none
    /// holds stays where it is.
    pub ranges: Vec<(Span, u64)>,
    /// Added to every place afterwards.
    pub shift: i64,
}

impl Places {
    /// Refuses a range that can never be used, since one before it holds all of it.
    ///
    /// # Errors
    /// Usage: there is one.
    pub fn check(&self) -> Result<()> {
        for (n, (range, _)) in self.ranges.iter().enumerate() {
            let holds = |other: &Span| other.from <= range.from && range.to <= other.to;
            if self.ranges.iter().take(n).any(|(other, _)| holds(other)) {
                let what = format!("--remap {}-{} is never used", range.from, range.to);
                return Err(Error::usage(what)
                    .hint("one before it holds all of it, and the first that fits counts"));
            }
        }
        Ok(())
    }

    /// Whether any place may change.
    pub fn moves(&self) -> bool {
        *self != Self::default()
    }

    /// Where a request of `len` bytes at `offset` stands afterwards.
    ///
    /// # Errors
    /// Usage: it lies across the end of a range, or would leave the largest disk there can be.
    pub fn of(&self, offset: u64, len: u64) -> Result<u64> {
        let touched = self.ranges.iter().find(|(range, _)| range.touches(offset, len.max(1)));
        let moved = match touched {
            None => Some(offset),
            Some((range, to)) => {
                let end = offset.saturating_add(len);
                if offset < range.from || end > range.to {
                    let what = format!("{offset}+{len} lies across an end of a range of --remap");
                    let (from, to) = (range.from.min(offset), range.to.max(end));
                    return Err(Error::usage(what).hint(format!(
                        "a range moves requests whole: {from}-{to} would hold this one (--range \
                         keeps what touches a range)"
                    )));
                }
                (offset - range.from).checked_add(*to)
            }
        };
        let moved = moved.and_then(|moved| moved.checked_add_signed(self.shift));
        moved
            .filter(|moved| moved.checked_add(len).is_some_and(|end| end <= DISK_BYTES_MAX))
            .ok_or_else(|| {
                Error::usage(format!("{offset}+{len} would be moved off the disk"))
                    .hint("offsets are from 0 to 1 EiB; leave such requests out with --range")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_move_with_their_range() {
        let span = |from, to| Span { from, to };
        let places =
            Places { ranges: vec![(span(0, 100), 1000), (span(200, u64::MAX), 0)], shift: 5 };
        assert_eq!(places.of(10, 90).unwrap(), 1015);
        assert_eq!(places.of(150, 10).unwrap(), 155);
        assert_eq!(places.of(250, 10).unwrap(), 55);
        for (offset, len) in [(90, 20), (190, 20)] {
            assert!(places.of(offset, len).unwrap_err().to_string().contains("across"));
        }
        let error = places.of(90, 20).unwrap_err();
        assert!(error.hint_text().unwrap().contains("0-110 would hold"), "{error:?}");
        places.check().unwrap();
        let covered = vec![(span(0, u64::MAX), 0), (span(10, 20), 0)];
        assert!(Places { ranges: covered, shift: 0 }.check().is_err());
        let catch_all = vec![(span(10, 20), 0), (span(0, u64::MAX), 0)];
        Places { ranges: catch_all, shift: 0 }.check().unwrap();
        let back = Places { ranges: Vec::new(), shift: -512 };
        assert_eq!(back.of(512, 512).unwrap(), 0);
        assert!(back.of(0, 512).is_err());
        let far = Places { ranges: Vec::new(), shift: i64::MAX };
        assert!(far.of(0, 512).is_err());
    }
}
