//! A line of an mmiotrace: words between blanks, the first of which says what it is.

use crate::base::BusAccess;
use crate::import::lines::{c_number, hex, number, seconds, word};

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'l> {
    /// `VERSION 20070824`.
    Version,
    /// `PCIDEV`: a device and its BARs.
    Pci(Pci),
    /// `MAP`: a driver mapped `len` bytes at `phys`.
    Map { id: i64, phys: u64, len: u64 },
    /// `UNMAP`; -1 where the map is older than the trace.
    Unmap { id: i64 },
    /// `R` or `W`: an access, at its physical address.
    Access { time: u64, id: i64, write: bool, addr: u64, size: u8, value: u64 },
    /// `MARK`: a note of the user's.
    Mark { time: u64, text: &'l [u8] },
    /// `MARK 0.000000 Lost N events.`: what the kernel says when its buffer overran.
    Overrun { events: u64 },
    /// `UNKNOWN`: an access by an instruction that the kernel could not decode.
    Undecoded,
    /// `LSPCI`: a line of lspci's output, for people.
    Lspci,
    /// A comment or nothing.
    Empty,
}

/// A PCI device, as `/proc/bus/pci/devices` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pci {
    pub bus: u8,
    pub devfn: u8,
    pub vendor: u16,
    pub device: u16,
    /// Memory BARs (0 to 5) and the expansion ROM (6): first byte and bytes.
    pub memory: Vec<(u8, u64, u64)>,
    /// The driver bound to it; empty for none.
    pub driver: String,
}

/// Regions of a device: six BARs and the expansion ROM.
const REGIONS: usize = 7;
/// The low bits of a BAR are flags; bit 0 means I/O ports (PCI 3.0 §6.2.5.1).
const BAR_FLAGS: u64 = 0xf;
const BAR_IO: u64 = 1;
/// Longest name of a driver that is kept.
const DRIVER_BYTES_MAX: usize = 64;

const MALFORMED: &str = "malformed line";

/// Reads a line.
///
/// # Errors
/// The reason to count it as lost by.
pub fn parse(text: &[u8]) -> Result<Line<'_>, &'static str> {
    let (keyword, rest) = word(text);
    match keyword {
        b"R" => access(false, rest).ok_or(MALFORMED),
        b"W" => access(true, rest).ok_or(MALFORMED),
        b"MAP" => map(rest).ok_or(MALFORMED),
        b"UNMAP" => unmap(rest).ok_or(MALFORMED),
        b"MARK" => mark(rest).ok_or(MALFORMED),
        b"PCIDEV" => pci(rest).map(Line::Pci).ok_or(MALFORMED),
        b"VERSION" if word(rest).0 == b"20070824" => Ok(Line::Version),
        b"VERSION" => Err("a version of the format that is not 20070824"),
        b"UNKNOWN" => Ok(Line::Undecoded),
        b"LSPCI" => Ok(Line::Lspci),
        b"" => Ok(Line::Empty),
        _ if keyword.starts_with(b"#") => Ok(Line::Empty),
        _ => Err("unknown keyword"),
    }
}

fn take<'l>(rest: &mut &'l [u8]) -> &'l [u8] {
    let (first, after) = word(rest);
    *rest = after;
    first
}

/// `WIDTH TIME MAP PHYSICAL VALUE PC PID`.
fn access(write: bool, mut rest: &[u8]) -> Option<Line<'_>> {
    let size = number(take(&mut rest)).filter(|size| matches!(size, 1 | 2 | 4 | 8))? as u8;
    let time = seconds(take(&mut rest))?;
    let id = map_id(take(&mut rest))?;
    let addr = c_number(take(&mut rest))?;
    let value = c_number(take(&mut rest))? & BusAccess::ones(size);
    Some(Line::Access { time, id, write, addr, size, value })
}

/// `TIME MAP PHYSICAL VIRTUAL LENGTH PC PID`.
fn map(mut rest: &[u8]) -> Option<Line<'_>> {
    seconds(take(&mut rest))?;
    let id = map_id(take(&mut rest))?;
    let phys = c_number(take(&mut rest))?;
    take(&mut rest);
    let len = c_number(take(&mut rest))?;
    Some(Line::Map { id, phys, len })
}

/// `TIME MAP PC PID`.
fn unmap(mut rest: &[u8]) -> Option<Line<'_>> {
    seconds(take(&mut rest))?;
    Some(Line::Unmap { id: map_id(take(&mut rest))? })
}

fn map_id(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(digits) => i64::try_from(number(digits)?).ok().map(|id| -id),
        None => i64::try_from(number(text)?).ok(),
    }
}

/// `TIME TEXT`.
fn mark(mut rest: &[u8]) -> Option<Line<'_>> {
    let time = seconds(take(&mut rest))?;
    let text = rest.trim_ascii_end();
    let lost = || {
        let count = text.strip_prefix(b"Lost ")?.strip_suffix(b" events.")?;
        number(count).filter(|_| time == 0)
    };
    Some(lost().map_or(Line::Mark { time, text }, |events| Line::Overrun { events }))
}

/// `BBDD VVVVDDDD IRQ`, seven starts with flags, seven sizes, the driver; all but it hexadecimal.
fn pci(mut rest: &[u8]) -> Option<Pci> {
    let place = u16::try_from(hex(take(&mut rest))?).ok()?;
    let ids = u32::try_from(hex(take(&mut rest))?).ok()?;
    hex(take(&mut rest))?;
    let mut starts = [0; REGIONS];
    let mut sizes = [0; REGIONS];
    for region in starts.iter_mut().chain(&mut sizes) {
        *region = hex(take(&mut rest))?;
    }
    let driver = word(rest).0;
    let driver = driver.get(..DRIVER_BYTES_MAX).unwrap_or(driver);
    let regions = (0u8..).zip(starts.into_iter().zip(sizes));
    let memory = regions
        .filter(|(_, (start, size))| *size > 0 && start & BAR_IO == 0)
        .map(|(bar, (start, size))| (bar, start & !BAR_FLAGS, size))
        .collect();
    let [bus, devfn] = place.to_be_bytes();
    Some(Pci {
        bus,
        devfn,
        vendor: (ids >> 16) as u16,
        device: ids as u16,
        memory,
        driver: String::from_utf8_lossy(driver).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses() {
        assert_eq!(
            parse(b"R 4 70.073551 1 0xfebf001c 0x9 0x0 0"),
            Ok(Line::Access {
                time: 70_073_551_000,
                id: 1,
                write: false,
                addr: 0xfebf_001c,
                size: 4,
                value: 9
            })
        );
        let wide = parse(b"W 1 0.000001 -1 0xfebf001c 0x1234 0xffffffff 0").unwrap();
        assert!(matches!(wide, Line::Access { write: true, id: -1, value: 0x34, .. }), "{wide:?}");
        // 64 bits of physical address and of value.
        let top = parse(b"R 8 1.5 3 0xffffffffffffffff 0xffffffffffffffff 0x0 0").unwrap();
        assert!(matches!(top, Line::Access { addr: u64::MAX, value: u64::MAX, .. }), "{top:?}");
    }

    #[test]
    fn maps_and_marks() {
        assert_eq!(
            parse(b"MAP 73.554703 4 0xfe00c000 0xff8648d5000f1000 0x3c 0x0 0"),
            Ok(Line::Map { id: 4, phys: 0xfe00_c000, len: 0x3c })
        );
        assert_eq!(parse(b"UNMAP 72.210005 -1 0x0 0"), Ok(Line::Unmap { id: -1 }));
        assert_eq!(
            parse(b"MARK 69.929551 qtrace: modprobe nvme"),
            Ok(Line::Mark { time: 69_929_551_000, text: b"qtrace: modprobe nvme" })
        );
        assert_eq!(parse(b"MARK 0.000000 Lost 17 events."), Ok(Line::Overrun { events: 17 }));
        assert!(matches!(parse(b"MARK 1.0 Lost 17 events."), Ok(Line::Mark { .. })));
        assert_eq!(parse(b"MARK 1.0"), Ok(Line::Mark { time: 1_000_000_000, text: b"" }));
    }

    #[test]
    fn pci_devices_keep_their_memory_bars() {
        let line = "PCIDEV 0028 1af41001 a c001 febf5000 0 0 fe00000c 0 0 80 1000 0 0 4000 0 0 \
                    virtio-pci";
        let Ok(Line::Pci(pci)) = parse(line.as_bytes()) else { panic!("a device") };
        assert_eq!((pci.bus, pci.devfn, pci.vendor, pci.device), (0, 0x28, 0x1af4, 0x1001));
        assert_eq!(pci.memory, [(1, 0xfebf_5000, 0x1000), (4, 0xfe00_0000, 0x4000)]);
        assert_eq!(pci.driver, "virtio-pci");
        let bare = parse(b"PCIDEV 1f00 80861237 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 ");
        let Ok(Line::Pci(pci)) = bare else { panic!("a device") };
        assert_eq!((pci.bus, pci.memory.len(), pci.driver.as_str()), (0x1f, 0, ""));
    }

    #[test]
    fn the_rest() {
        assert_eq!(parse(b"VERSION 20070824"), Ok(Line::Version));
        assert!(parse(b"VERSION 20080101").unwrap_err().contains("version"));
        assert_eq!(parse(b"LSPCI 00:00.0 Host bridge"), Ok(Line::Lspci));
        assert_eq!(parse(b"UNKNOWN 1.0 1 0xfe00 0f,01,ff 0x0 0"), Ok(Line::Undecoded));
        assert_eq!(parse(b"  "), Ok(Line::Empty));
        assert_eq!(parse(b"# tracer: mmiotrace"), Ok(Line::Empty));
        for bad in [
            "R 3 1.0 1 0x0 0x0 0x0 0",
            "R 4 x 1 0x0 0x0 0x0 0",
            "R 4 1.0 1 0x0",
            "W 4 1.0 1.5 0x0 0x0 0x0 0",
            "W 4 1.0 1 0x10000000000000000 0x0 0x0 0",
            "MAP 1.0 1 0x0",
            "PCIDEV 0028 1af41001 a c001",
            "PCIDEV 10028 1af41001 a 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
            "MARK",
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(MALFORMED), "{bad}");
        }
        assert_eq!(parse(b"Q 4 1.0"), Err("unknown keyword"));
    }
}
