use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::base::Prng;
use crate::oracle::runs::{BLOCK_ENTRIES, ENTRY_BYTES};
use crate::oracle::version::ContentKind;

fn version(write: u64) -> Version {
    Version::new(write, ContentKind::Stamp).unwrap()
}

/// Compares every sector of `0..size` with the plain model, in ranges of mixed lengths.
fn assert_equal(map: &mut ExtentMap, model: &HashMap<u64, u64>, size: u64) {
    let mut pieces = Vec::new();
    let (mut at, mut step) = (0, 1);
    while at < size {
        let end = (at + step).min(size);
        map.lookup(at, end, &mut pieces).unwrap();
        let mut expected_start = at;
        for piece in &pieces {
            assert_eq!(piece.start, expected_start, "the answer has no gaps");
            assert!(piece.start < piece.end);
            for sector in piece.start..piece.end {
                let got = piece.version.map(Version::write);
                assert_eq!(got, model.get(&sector).copied(), "sector {sector}");
            }
            expected_start = piece.end;
        }
        assert_eq!(expected_start, end);
        (at, step) = (end, step % 37 + 5);
    }
    let mut defined: Vec<u64> = model.keys().copied().collect();
    defined.sort_unstable();
    let mut from = 0;
    for sector in defined {
        assert_eq!(map.next_defined(from).unwrap(), Some(sector));
        from = sector + 1;
    }
    assert_eq!(map.next_defined(from).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is inserted, in whatever order, with a table of any size and with or without
    /// memory, the map says what a plain table of sectors says.
    #[test]
    fn it_is_a_map_of_sectors(
        writes in prop::collection::vec((0u64..600, 1u64..40), 1..200),
        table_max in 1usize..20,
        memory in prop_oneof![Just(0u64), Just(300), Just(u64::MAX)],
    ) {
        let mut map = ExtentMap::with_table(memory, table_max);
        let mut model = HashMap::new();
        for (write, &(start, len)) in writes.iter().enumerate() {
            map.insert(start, start + len, version(write as u64)).unwrap();
            for sector in start..start + len {
                model.insert(sector, write as u64);
            }
        }
        assert_equal(&mut map, &model, 650);
    }
}

#[test]
fn parts_of_one_write_become_one_extent() {
    let mut map = ExtentMap::new(0);
    for part in 0..100 {
        map.insert(part * 8, part * 8 + 8, version(7)).unwrap();
    }
    assert_eq!(map.table.len(), 1);
}

/// Isolated single sectors, the worst case, written several times over in random order.
#[test]
fn a_distinct_sector_takes_at_most_16_bytes() {
    let sectors: u64 = 200_000;
    let mut map = ExtentMap::with_table(u64::MAX, 1024);
    let mut prng = Prng::new(1);
    for write in 0..sectors {
        let sector = write * 2;
        map.insert(sector, sector + 1, version(write)).unwrap();
        assert!(map.run_memory_bytes() <= 16 * (write + 1) + 1024);
    }
    for write in 0..2 * sectors {
        let sector = prng.below(sectors) * 2;
        map.insert(sector, sector + 1, version(sectors + write)).unwrap();
        assert!(map.run_memory_bytes() <= 16 * sectors, "{}", map.run_memory_bytes());
    }
    assert!(!map.is_spilled());
    assert!(map.runs.len() > 1, "overwrites wait in newer runs");
}

#[test]
fn past_the_budget_it_lies_in_a_file_and_still_answers() {
    let budget = 64 << 10;
    let mut map = ExtentMap::with_table(budget, 512);
    let mut model = HashMap::new();
    let mut prng = Prng::new(2);
    for write in 0..40_000 {
        let sector = prng.below(60_000);
        map.insert(sector, sector + 1, version(write)).unwrap();
        model.insert(sector, write);
        assert!(map.run_memory_bytes() <= budget);
    }
    assert!(map.is_spilled());
    assert_equal(&mut map, &model, 60_000);
    let block = BLOCK_ENTRIES * ENTRY_BYTES;
    assert!(BlockCache::BYTES_MAX >= block, "the cache holds at least one block");
}

#[test]
fn an_exbibyte_takes_a_few_entries() {
    let mut map = ExtentMap::with_table(u64::MAX, 2);
    map.insert(0, 1 << 51, version(1)).unwrap();
    map.insert(1 << 40, (1 << 40) + 3, version(2)).unwrap();
    let entries: u64 = map.runs.iter().map(Run::entries).sum();
    assert!(entries < 20, "{entries}");
    let mut pieces = Vec::new();
    map.lookup((1 << 40) - 1, (1 << 40) + 4, &mut pieces).unwrap();
    let got: Vec<u64> = pieces.iter().map(|p| p.version.unwrap().write()).collect();
    assert_eq!(got, [1, 2, 1]);
}

#[test]
fn a_lost_temporary_file_is_an_error_from_then_on_never_an_answer() {
    let mut map = ExtentMap::with_table(0, 4);
    map.folder = "/nowhere/at/all".into();
    let failed = (0..8).find_map(|n| map.insert(n * 2, n * 2 + 1, version(n)).err());
    assert_eq!(failed.unwrap().kind().exit_code(), 7);
    assert!(map.lookup(0, 8, &mut Vec::new()).is_err());
    assert!(map.next_defined(0).is_err());
}
