//! Data that came before, found without hashing it again: zeros, and what a program writes over
//! and over.

use std::collections::HashMap;
use std::sync::Arc;

use super::tap::Bytes;
use crate::trace::PayloadRef;

/// Longest run of zeros that takes no memory of its own.
const ZEROS_BYTES: usize = 32 << 20;

/// Never written to: the kernel has one page for all of it.
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// Payloads that are remembered whole. They are what somebody else keeps anyway, or did.
const REMEMBERED: usize = 8;

/// Longest payload that is remembered.
const REMEMBERED_BYTES_MAX: usize = 2 << 20;

/// Lengths of zeros that are remembered.
const LENGTHS_MAX: usize = 4096;

/// Words that are compared before all is: most payloads differ in one of them.
const SAMPLES: usize = 8;

struct Zeros(usize);

impl AsRef<[u8]> for Zeros {
    fn as_ref(&self) -> &[u8] {
        ZEROS.get(..self.0).unwrap_or(&ZEROS)
    }
}

/// `len` zeros.
pub fn zeros(len: usize) -> Bytes {
    if len <= ZEROS_BYTES { Arc::new(Zeros(len)) } else { Arc::new(vec![0; len]) }
}

/// See the module.
#[derive(Default)]
pub(super) struct Repeats {
    zeros: HashMap<usize, PayloadRef>,
    recent: [Option<(Bytes, PayloadRef)>; REMEMBERED],
    next: usize,
}

impl Repeats {
    /// What the same data is stored as, where that is remembered.
    pub(super) fn find(&self, data: &Bytes) -> Option<PayloadRef> {
        let bytes = (**data).as_ref();
        if std::ptr::eq(bytes.as_ptr(), ZEROS.as_ptr()) {
            return self.zeros.get(&bytes.len()).copied();
        }
        let known = self.recent.iter().flatten().find(|(known, _)| same((**known).as_ref(), bytes));
        known.map(|(_, payload)| *payload)
    }

    /// Remembers that `data` is stored as `payload`.
    pub(super) fn remember(&mut self, data: Bytes, payload: PayloadRef) {
        let bytes = (*data).as_ref();
        if std::ptr::eq(bytes.as_ptr(), ZEROS.as_ptr()) {
            if self.zeros.len() < LENGTHS_MAX {
                self.zeros.insert(bytes.len(), payload);
            }
        } else if bytes.len() <= REMEMBERED_BYTES_MAX
            && let Some(slot) = self.recent.get_mut(self.next)
        {
            *slot = Some((data, payload));
            self.next = (self.next + 1) % REMEMBERED;
        }
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && samples(a).eq(samples(b)) && a == b
}

/// A few words from all over the data.
fn samples(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let step = (bytes.len() / SAMPLES).max(1);
    bytes.chunks(step).map(|chunk| chunk.get(..8).unwrap_or(chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(data: Vec<u8>) -> Bytes {
        Arc::new(data)
    }

    #[test]
    fn only_the_very_same_data_is_a_repeat() {
        let mut repeats = Repeats::default();
        let first = bytes(vec![7; 4096]);
        assert_eq!(repeats.find(&first), None);
        repeats.remember(first.clone(), PayloadRef::Stored(1));
        assert_eq!(repeats.find(&bytes(vec![7; 4096])), Some(PayloadRef::Stored(1)));
        assert_eq!(repeats.find(&bytes(vec![7; 4095])), None);
        for at in [0, 9, 100, 511, 4095] {
            let mut other = vec![7; 4096];
            other[at] = 8;
            assert_eq!(repeats.find(&bytes(other)), None, "{at}");
        }
        for n in 0..REMEMBERED as u8 {
            repeats.remember(bytes(vec![n; 100]), PayloadRef::Stored(n.into()));
        }
        assert_eq!(repeats.find(&first), None);
    }

    #[test]
    fn zeros_are_known_by_their_length() {
        let mut repeats = Repeats::default();
        repeats.remember(zeros(4096), PayloadRef::Stored(1));
        repeats.remember(zeros(512), PayloadRef::Stored(2));
        assert_eq!(repeats.find(&zeros(4096)), Some(PayloadRef::Stored(1)));
        assert_eq!(repeats.find(&zeros(512)), Some(PayloadRef::Stored(2)));
        assert_eq!(repeats.find(&zeros(1024)), None);
        assert!((*zeros(ZEROS_BYTES + 1)).as_ref().iter().all(|byte| *byte == 0));
    }
}
