//! The order of a batch by time.

/// Where the elements of a batch belong; of equal times the first stays first. Its memory is used
/// again.
#[derive(Default)]
pub(super) struct Order {
    /// Each is the time and the place of an element in one number: to sort these is several times
    /// faster than to sort elements or pairs.
    keys: Vec<u64>,
    /// The bits of a key that are the place.
    place: u64,
}

impl Order {
    /// Puts elements in order of `time`.
    pub(super) fn sort<T>(&mut self, elements: &[T], time: impl Fn(&T) -> u64) {
        self.keys.clear();
        let (first, last) = elements.iter().fold((u64::MAX, 0), |(first, last), element| {
            let time = time(element);
            (time.min(first), time.max(last))
        });
        let place_bits = u64::BITS - (elements.len() as u64).leading_zeros();
        if last.saturating_sub(first).leading_zeros() < place_bits {
            // Times too far apart to stand beside a place in one number.
            self.keys.extend(0..elements.len() as u64);
            self.keys.sort_by_key(|&place| elements.get(place as usize).map(&time));
            self.place = u64::MAX;
            return;
        }
        let keys = (0..).zip(elements);
        self.keys.extend(keys.map(|(place, it)| (time(it) - first) << place_bits | place));
        if !insert_each(&mut self.keys) {
            self.keys.sort_unstable();
        }
        self.place = (1 << place_bits) - 1;
    }

    /// The place of the element that belongs at `at`.
    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<usize> {
        self.keys.get(at).map(|key| (key & self.place) as usize)
    }
}

/// Steps for each element, on average, after which they are not nearly in order.
const STEPS_MAX: usize = 4;

/// Sorts what is nearly in order, which rows most often are: each moves ahead as far as it must.
/// False when that takes too long.
fn insert_each(keys: &mut [u64]) -> bool {
    let mut steps = keys.len() * STEPS_MAX;
    for end in 1..=keys.len() {
        let mut rest = keys.get_mut(..end).unwrap_or_default();
        while let [ahead @ .., before, last] = rest
            && *before > *last
        {
            std::mem::swap(before, last);
            if steps == 0 {
                return false;
            }
            steps -= 1;
            let len = ahead.len() + 1;
            rest = rest.get_mut(..len).unwrap_or_default();
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    #[test]
    fn elements_are_in_order_and_equals_as_they_came() {
        let (mut prng, mut order) = (Prng::new(4), Order::default());
        for (count, spread) in [(0, 1), (1, 1), (1000, 10), (8192, 1 << 20), (300, u64::MAX)] {
            let times: Vec<u64> = (0..count).map(|_| prng.below(spread)).collect();
            order.sort(&times, |time| *time);
            let mut want: Vec<usize> = (0..times.len()).collect();
            want.sort_by_key(|place| times[*place]);
            let got: Vec<usize> = (0..).map_while(|at| order.get(at)).collect();
            assert_eq!(got, want, "{count} of {spread}");
        }
    }

    #[test]
    fn what_is_nearly_in_order_is_sorted_by_insertion() {
        let mut prng = Prng::new(9);
        for (spread, nearly) in [(1, true), (4, true), (1000, false)] {
            let mut keys: Vec<u64> = (0..5000).map(|n| n + prng.below(spread)).collect();
            let mut want = keys.clone();
            want.sort_unstable();
            assert_eq!(insert_each(&mut keys), nearly, "spread {spread}");
            assert_eq!(keys == want, nearly, "spread {spread}");
            keys.sort_unstable();
            assert_eq!(keys, want, "nothing is lost");
        }
        assert!(insert_each(&mut []));
    }

    #[test]
    fn the_widest_spread_that_stands_in_a_key_and_the_next() {
        let mut order = Order::default();
        for last in [(1 << 61) - 1, 1 << 61, u64::MAX] {
            order.sort(&[last, 0, last, 5], |time| *time);
            let got: Vec<usize> = (0..).map_while(|at| order.get(at)).collect();
            assert_eq!(got, [1, 3, 0, 2], "{last}");
        }
    }
}
