//! What is known of names seen of late, such as those of devices.
//!
//! A name is most often one of a few thousand, and short: each stands at one of two places of a
//! table, which its first and last bytes choose, so that it is found by one comparison or two.

use super::swar;
use super::text::Device;

/// Most places of a table for names of one input, as a power of two.
const MANY_LOG2: u32 = 14;
/// Likewise of one of several inputs, each of which has one; and what each begins with.
const FEW_LOG2: u32 = 6;
/// Longest name that is kept.
pub(super) const NAME_BYTES_MAX: usize = 64;
/// Bytes that a word holds.
const WORD_BYTES: usize = 8;

/// The table, which grows with the names: most inputs have a few.
pub(super) struct Places<T> {
    places: Vec<Place<T>>,
    log2: u32,
    log2_max: u32,
    /// Names taken in since it has this size.
    kept: usize,
}

#[derive(Clone, Default)]
struct Place<T> {
    key: Key,
    name: Vec<u8>,
    value: T,
}

/// What a name begins and ends with: of one part, or of two with a byte between them. Parts of up
/// to [`WORD_BYTES`] are known by it alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Key {
    words: (u64, u64),
    lens: (u32, u32),
    between: Option<u8>,
}

impl Key {
    #[inline]
    fn of(parts: Parts<'_>) -> Self {
        let (first, between, second) = parts;
        let lens = (first.len() as u32, second.len() as u32);
        Self { words: (word(first), word(second)), lens, between }
    }

    #[inline]
    fn tells_all(self) -> bool {
        self.lens.0.max(self.lens.1) as usize <= WORD_BYTES
    }

    /// Where the name may stand in a table of so many places, as a power of two; whoever makes many
    /// names stand at one place gains nothing.
    #[inline]
    fn places(self, log2: u32) -> [usize; 2] {
        // 2^64 divided by the golden ratio spreads what differs in low bits over the high ones.
        let both = self.words.0.rotate_left(29) ^ self.words.1;
        let place = (both.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - log2)) as usize;
        [place, place ^ 1]
    }
}

/// Differs where names of up to [`WORD_BYTES`] do.
#[inline]
fn word(name: &[u8]) -> u64 {
    match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) => {
            let first = u64::from_le_bytes(*first);
            let behind = (name.len() - WORD_BYTES).min(1) as u64;
            first ^ (u64::from_le_bytes(*last).rotate_left(29) * behind)
        }
        _ => swar::short(name),
    }
}

/// The parts of a name and the byte between two.
type Parts<'l> = (&'l [u8], Option<u8>, &'l [u8]);

#[inline]
fn parts<'l>(device: &Device<'l>) -> Option<Parts<'l>> {
    match *device {
        Device::Only => None,
        Device::Name(name) => Some((name, None, &[])),
        Device::Pair(first, between, second) => Some((first, Some(between), second)),
    }
}

impl<T: Copy + Default> Places<T> {
    /// A small table for one input, or for one of `several`.
    pub(super) fn new(several: bool) -> Self {
        let log2_max = if several { FEW_LOG2 } else { MANY_LOG2 };
        let places = vec![Place::default(); 1 << FEW_LOG2];
        Self { places, log2: FEW_LOG2, log2_max, kept: 0 }
    }

    /// Twice the places; each name stands at one of those that it chooses there.
    fn grow(&mut self) {
        self.log2 += 1;
        let more = vec![Place::default(); 1 << self.log2];
        self.kept = 0;
        for place in std::mem::replace(&mut self.places, more) {
            if !place.name.is_empty() {
                self.put(place);
            }
        }
    }

    /// Takes the place of another name that was not kept for longer; of a device without a name, and
    /// of one with a long one, nothing is kept.
    pub(super) fn keep(&mut self, device: &Device<'_>, value: T) {
        let Some(parts) = parts(device) else { return };
        let (first, between, second) = parts;
        if first.len() + usize::from(between.is_some()) + second.len() > NAME_BYTES_MAX {
            return;
        }
        if self.kept > self.places.len() / 4 && self.log2 < self.log2_max {
            self.grow();
        }
        let mut name = Vec::new();
        put_together(parts, &mut name);
        self.put(Place { key: Key::of(parts), name, value });
    }

    fn put(&mut self, place: Place<T>) {
        let [first, second] = place.key.places(self.log2);
        let free = self.places.get(first).is_some_and(|place| place.name.is_empty());
        if let Some(taken) = self.places.get_mut(if free { first } else { second }) {
            *taken = place;
            self.kept += 1;
        }
    }
}

impl<T: Copy> Places<T> {
    /// What is known of that device, if anything is.
    #[inline]
    pub(super) fn find(&self, device: &Device<'_>) -> Option<T> {
        let parts = parts(device)?;
        let key = Key::of(parts);
        let mut places = key.places(self.log2).into_iter().filter_map(|at| self.places.get(at));
        let place = places.find(|place| {
            let known = place.key == key && !place.name.is_empty();
            known && (key.tells_all() || is_made_of(&place.name, parts))
        })?;
        Some(place.value)
    }

    /// Forgets all names.
    pub(super) fn clear(&mut self) {
        self.places.iter_mut().for_each(|place| place.name.clear());
        self.kept = 0;
    }
}

/// Adds the name of a device to `name`.
pub(super) fn add_name(device: &Device<'_>, name: &mut Vec<u8>) {
    if let Some(parts) = parts(device) {
        put_together(parts, name);
    }
}

fn put_together((first, between, second): Parts<'_>, name: &mut Vec<u8>) {
    name.extend_from_slice(first);
    name.extend(between);
    name.extend_from_slice(second);
}

/// Of parts with the name's key, hence of as many bytes and with the same byte between them.
fn is_made_of(name: &[u8], (first, _, second): Parts<'_>) -> bool {
    name.starts_with(first) && name.ends_with(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_wherever_they_stand() {
        let mut known = Places::new(false);
        let names: Vec<Vec<u8>> = (0..10_000u32)
            .map(|n| format!("{}{n}", "x".repeat(n as usize % 70)).into_bytes())
            .collect();
        let cut = |name: &[u8], n: u32| n.is_multiple_of(3).then_some(name.len() / 2);
        let device = |n: u32| {
            let name = names[n as usize].as_slice();
            cut(name, n)
                .map_or(Device::Name(name), |at| Device::Pair(&name[..at], b'_', &name[at..]))
        };
        for n in 0..10_000 {
            assert_eq!(known.find(&device(n)), None);
            known.keep(&device(n), n);
            let name = &names[n as usize];
            let kept = name.len() + usize::from(cut(name, n).is_some()) <= NAME_BYTES_MAX;
            assert_eq!(known.find(&device(n)), kept.then_some(n));
        }
        for n in 0..10_000 {
            assert!(known.find(&device(n)).is_none_or(|found| found == n));
        }
        assert_eq!((known.find(&Device::Name(b"")), known.find(&Device::Only)), (None, None));
    }

    /// A table of its largest size for each small input took most of that input's time.
    #[test]
    fn the_table_grows_with_the_names_and_knows_them_still() {
        let mut known = Places::new(false);
        let mut few = Places::new(true);
        let names: Vec<String> = (0..4000).map(|n| format!("volume-{n}")).collect();
        for (n, name) in names.iter().enumerate() {
            known.keep(&Device::Name(name.as_bytes()), n);
            few.keep(&Device::Name(name.as_bytes()), n);
            if n == 10 {
                assert_eq!(known.places.len(), 1 << FEW_LOG2);
            }
        }
        assert_eq!((known.places.len(), few.places.len()), (1 << MANY_LOG2, 1 << FEW_LOG2));
        let found = |(n, name): &(usize, &String)| {
            let found = known.find(&Device::Name(name.as_bytes()));
            assert!(found.is_none_or(|found| found == *n), "{name}");
            found.is_some()
        };
        let found = names.iter().enumerate().filter(found).count();
        assert!(found > 3600, "{found}");
    }

    #[test]
    fn parts_are_no_whole() {
        let mut known = Places::new(false);
        let all = [
            Device::Pair(b"a", b'_', b"b"),
            Device::Name(b"a_b"),
            Device::Pair(b"a", b'-', b"b"),
            Device::Pair(b"", b'_', b"b"),
            Device::Pair(b"a", b'_', b""),
            Device::Name(b"12345678"),
            Device::Name(b"123456789"),
            Device::Pair(b"123456789", b'_', b"1"),
        ];
        for (number, device) in all.iter().enumerate() {
            known.keep(device, number);
            for (other, device) in all.iter().enumerate() {
                assert!(known.find(device).is_none_or(|found| found == other), "{device:?}");
            }
        }
    }
}
