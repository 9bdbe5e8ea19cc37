//! Sorted lists of sector ranges.

/// First sector, and first sector past it.
pub type Range = (u64, u64);

/// Adds a range at the end of a sorted list; one that touches the last joins it.
pub fn push(list: &mut Vec<Range>, range: Range) {
    match list.last_mut() {
        Some(last) if last.1 >= range.0 => last.1 = last.1.max(range.1),
        _ => list.push(range),
    }
}

/// The part of `list` within `window`.
pub fn clip(list: &[Range], window: Range) -> Vec<Range> {
    let parts = list.iter().map(|r| (r.0.max(window.0), r.1.min(window.1)));
    parts.filter(|r| r.0 < r.1).collect()
}

/// Sectors in a list.
pub fn sectors(list: &[Range]) -> u64 {
    list.iter().map(|r| r.1 - r.0).sum()
}

/// From the first sector of a list to its last; empty for an empty one.
pub fn span(list: &[Range]) -> Range {
    match (list.first(), list.last()) {
        (Some(first), Some(last)) => (first.0, last.1),
        _ => (0, 0),
    }
}

/// At most `max` sectors spread over a list: all of them where they fit, else evenly spaced ones,
/// the first and the last always among them.
pub fn sample(list: &[Range], max: u64) -> impl Iterator<Item = u64> + '_ {
    let total = sectors(list);
    let step = total.div_ceil(max.max(1)).max(1);
    let last =
        span(list).1.checked_sub(1).filter(|_| total > 0 && !(total - 1).is_multiple_of(step));
    let mut skipped = 0;
    let even = list.iter().flat_map(move |&(start, end)| {
        let first = start + (step - skipped % step) % step;
        skipped += end - start;
        (first..end.max(first)).step_by(usize::try_from(step).unwrap_or(usize::MAX))
    });
    even.chain(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_join_and_clip() {
        let mut list = Vec::new();
        for range in [(0, 2), (2, 4), (6, 8)] {
            push(&mut list, range);
        }
        assert_eq!(list, [(0, 4), (6, 8)]);
        assert_eq!(clip(&list, (3, 7)), [(3, 4), (6, 7)]);
        assert_eq!((sectors(&list), span(&list), span(&[])), (6, (0, 8), (0, 0)));
    }

    #[test]
    fn samples_are_all_or_even_with_both_ends() {
        let list = [(0, 4), (6, 8)];
        assert_eq!(sample(&list, 10).collect::<Vec<_>>(), [0, 1, 2, 3, 6, 7]);
        assert_eq!(sample(&list, 3).collect::<Vec<_>>(), [0, 2, 6, 7]);
        assert_eq!(sample(&[(10, 1010)], 4).collect::<Vec<_>>(), [10, 260, 510, 760, 1009]);
        assert_eq!(sample(&[], 4).count(), 0);
    }
}
