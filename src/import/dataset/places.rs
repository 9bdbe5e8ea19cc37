//! What is known of names seen of late, such as those of devices.
//!
//! A name is most often one of few: each stands at one place of a small table, which its first and
//! last bytes choose, so that it is found by one comparison.

use super::swar;

/// Places of the table, as a power of two.
const PLACES_LOG2: u32 = 12;
/// Longest name that is kept.
const NAME_BYTES_MAX: usize = 64;

/// The table.
pub(super) struct Places<T> {
    places: Vec<(Vec<u8>, T)>,
}

impl<T: Copy + Default> Default for Places<T> {
    fn default() -> Self {
        Self { places: vec![(Vec::new(), T::default()); 1 << PLACES_LOG2] }
    }
}

impl<T: Copy> Places<T> {
    /// What is known of that name, if anything is.
    #[inline]
    pub(super) fn find(&self, name: &[u8]) -> Option<T> {
        let (known, value) = self.places.get(place(name))?;
        (known == name && !name.is_empty()).then_some(*value)
    }

    /// Takes the place of another name.
    pub(super) fn keep(&mut self, name: &[u8], value: T) {
        if let Some(place) = self.places.get_mut(place(name))
            && name.len() <= NAME_BYTES_MAX
        {
            place.0.clear();
            place.0.extend_from_slice(name);
            place.1 = value;
        }
    }
}

/// Where a name stands; whoever makes many names stand at one place gains nothing.
#[inline]
fn place(name: &[u8]) -> usize {
    let word = match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) => {
            u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29)
        }
        _ => swar::short(name),
    };
    // 2^64 divided by the golden ratio spreads what differs in low bits over the high ones.
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES_LOG2)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_wherever_they_stand() {
        let mut known = Places::default();
        let names: Vec<Vec<u8>> = (0..10_000u32)
            .map(|n| format!("{}{n}", "x".repeat(n as usize % 70)).into_bytes())
            .collect();
        for (name, id) in names.iter().zip(0u32..) {
            assert_eq!(known.find(name), None);
            known.keep(name, id);
            assert_eq!(known.find(name), (name.len() <= NAME_BYTES_MAX).then_some(id));
        }
        for (name, id) in names.iter().zip(0..) {
            assert!(known.find(name).is_none_or(|found| found == id));
        }
        assert_eq!(known.find(b""), None);
    }
}
