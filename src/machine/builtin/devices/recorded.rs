//! For tests: what real firmware and a real Linux did to one region of QEMU's, and what it answered.

use std::io::Read;
use std::path::Path;

use crate::base::Nanos;
use crate::machine::builtin::device::Device;

/// One line of the log: a read with its answer, or a write.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub line: usize,
    pub write: bool,
    pub addr: u64,
    pub size: u8,
    pub value: u64,
}

/// The accesses of `regions` in a log of `../shared/data`, in order; `None`, and the reason printed,
/// where there is no such folder.
pub fn accesses(log: &str, regions: &[&str]) -> Option<Vec<Access>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = root.ancestors().skip(1).take(3).map(|up| up.join("shared/data"));
    let Some(folder) = found.into_iter().find(|folder| folder.is_dir()) else {
        eprintln!("skipped: no shared/data folder beside this repository");
        return None;
    };
    let file = std::fs::File::open(folder.join(log)).unwrap();
    let mut text = String::new();
    liblzma::read::XzDecoder::new(file).read_to_string(&mut text).unwrap();
    let found =
        text.lines().enumerate().filter_map(|(index, text)| parse(index + 1, text, regions));
    let list: Vec<Access> = found.collect();
    assert!(list.iter().any(|access| !access.write), "{log}: no read of {regions:?}");
    Some(list)
}

fn parse(line: usize, text: &str, regions: &[&str]) -> Option<Access> {
    let (_, event) = text.split_once("memory_region_ops_")?;
    let words: Vec<&str> = event.split_whitespace().collect();
    let after = |key: &str| {
        let at = words.iter().position(|word| *word == key)?;
        words.get(at + 1).copied()
    };
    let number = |key| u64::from_str_radix(after(key)?.strip_prefix("0x")?, 16).ok();
    let name = after("name")?.trim_matches('\'');
    regions.contains(&name).then_some(())?;
    let (addr, value) = (number("addr")?, number("value")?);
    let size = after("size")?.parse().ok()?;
    Some(Access { line, write: words.first() == Some(&"write"), addr, size, value })
}

/// Replays accesses on `device`, whose windows begin at these addresses and have these lengths;
/// asserts that every read is answered as it was.
pub fn replay(device: &mut dyn Device, windows: &[(u64, u64)], accesses: &[Access]) {
    for access in accesses {
        let inside = |(base, len): &(u64, u64)| (*base..base + len).contains(&access.addr);
        let window = windows.iter().position(inside).unwrap();
        let offset = access.addr - windows[window].0;
        if access.write {
            device.write(window, offset, access.size, access.value, Nanos(0));
        } else {
            let value = device.read(window, offset, access.size, Nanos(0));
            assert_eq!(value, access.value, "line {}: {access:x?}", access.line);
        }
    }
}
