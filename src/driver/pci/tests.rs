use super::caps::ExtendedCapability;
use super::function::{COMMAND_MASTER, COMMAND_MEMORY, reg};
use super::msix::{Msix, MsixEntry};
use super::*;
use crate::base::GuestAddr;
use crate::driver::fake::{FakeFunction, FakeMachine};

fn functions(machine: &mut FakeMachine) -> Vec<Function> {
    enumerate(machine, ConfigAccess::Ports).unwrap()
}

/// Enumerates and enables the block device; the error's text, which must name it.
fn complaint(machine: &mut FakeMachine) -> String {
    let found = functions(machine);
    let blk = found.iter().find(|f| f.vendor == 0x1af4).unwrap();
    let caps = blk.enable(machine).and_then(|()| caps::list(machine, blk));
    let msix = caps.and_then(|caps| Msix::find(machine, blk, &caps));
    let text = msix.unwrap_err().to_string();
    assert!(text.starts_with("PCI function 00:04.0 1af4:1001: "), "{text}");
    text
}

#[test]
fn bars_are_sized_with_decoding_off_and_assigned_aligned() {
    let mut machine = FakeMachine::new();
    let found = functions(&mut machine);
    assert_eq!(found.len(), 2);
    let blk = &found[1];
    assert_eq!(blk.name(), "00:04.0 1af4:1001");
    let [io, memory, none, _, wide, half] = blk.bars;
    let bar = |kind, prefetchable, size, addr| Some(Bar { kind, prefetchable, size, addr });
    assert_eq!(io, bar(BarKind::Io, false, 128, 0xc000));
    assert_eq!(memory, bar(BarKind::Memory32, false, 4096, 0xe000_0000));
    assert_eq!(wide, bar(BarKind::Memory64, true, 0x4000, 0x80_0000_0000));
    assert_eq!((none, half), (None, None));
    let f = machine.function();
    assert_eq!((f.get32(0x10), f.get32(0x14)), (0xc001, 0xe000_0000));
    assert_eq!((f.get32(0x20), f.get32(0x24)), (0x0c, 0x80));
    assert_eq!(f.get32(0x04) & 7, 0, "decoding stays off until the function is enabled");
    blk.enable(&mut machine).unwrap();
    assert_eq!(machine.function().get32(0x04) & 7, 7);
    assert!(machine.strays.is_empty());
}

#[test]
fn what_firmware_assigned_stays() {
    let mut machine = FakeMachine::new();
    machine.function().write(0x10, 4, 0xd000);
    machine.function().write(0x04, 2, 1);
    let found = functions(&mut machine);
    assert_eq!(found[1].bars[0].unwrap().addr, 0xd000);
    assert_eq!(machine.function().get32(0x04) & 7, 1);
    let again = functions(&mut machine);
    assert_eq!(again[1].bars, found[1].bars);
    // The others have no address, and using them is refused.
    let text = found[1].window(1, 0, 4).unwrap_err().to_string();
    assert_eq!(text, "PCI function 00:04.0 1af4:1001: BAR 1 has no address");
}

#[test]
fn functions_behind_bridges_get_buses_and_windows() {
    let mut machine = FakeMachine::new();
    machine.functions.insert((0, 2, 0), FakeFunction::bridge());
    machine.functions.insert((1, 0, 0), FakeFunction::bridge());
    machine.functions.insert((2, 5, 0), FakeFunction::virtio_blk());
    machine.functions.insert((0, 3, 0), FakeFunction::bridge());
    let names: Vec<_> = functions(&mut machine).iter().map(|f| f.address.to_string()).collect();
    assert_eq!(names, ["00:00.0", "00:02.0", "01:00.0", "02:05.0", "00:03.0", "00:04.0"]);
    let outer = &machine.functions[&(0, 2, 0)];
    assert_eq!(outer.bytes[0x18..0x1b], [0, 1, 2]);
    // I/O 0xd000..0xdfff, memory 0xe010_0000.., prefetchable 0x80_0010_0000..: one granule each.
    assert_eq!(outer.bytes[0x1c..0x1e], [0xd0, 0xd0]);
    assert_eq!(outer.get32(0x20), 0xe010_e010);
    assert_eq!((outer.get32(0x28), outer.get32(0x2c)), (0x80, 0x80));
    let inner = &machine.functions[&(1, 0, 0)];
    assert_eq!(inner.bytes[0x18..0x1b], [1, 2, 2]);
    assert_eq!(inner.get32(0x20), outer.get32(0x20));
    let empty = &machine.functions[&(0, 3, 0)];
    assert_eq!(empty.bytes[0x18..0x1b], [0, 3, 3]);
    assert!(empty.bytes[0x1c] > empty.bytes[0x1d], "base above limit: closed");
    let blk = &machine.functions[&(2, 5, 0)];
    assert_eq!((blk.get32(0x10), blk.get32(0x14)), (0xd001, 0xe010_0000));
}

#[test]
fn a_bridge_has_two_bars_of_its_own() {
    let mut machine = FakeMachine::new();
    let mut bridge = FakeFunction::bridge();
    bridge.bar(0, 0x04, 0xffff_f000);
    bridge.bar(1, 0, 0xffff_ffff);
    machine.functions.insert((0, 2, 0), bridge);
    // A bridge by class whose header is an ordinary one is nothing to walk behind.
    machine.functions.insert((0, 3, 0), FakeFunction::new(0x1b36, 2, 0x0604));
    let found = functions(&mut machine);
    let size = 4096;
    let (kind, prefetchable, addr) = (BarKind::Memory64, false, 0x80_0000_0000);
    assert_eq!(found[1].bars[0], Some(Bar { kind, prefetchable, size, addr }));
    assert_eq!((found[1].bars[2], found[1].secondary, found[1].header), (None, Some(1), 1));
    assert_eq!((found[2].secondary, found[2].bar_registers()), (None, 6));
    assert_eq!(machine.functions[&(0, 2, 0)].get32(0x14), 0x80);
}

#[test]
fn a_bus_full_of_bridges_and_functions_ends_in_an_error() {
    let mut machine = FakeMachine::new();
    for bus in 0..=9 {
        machine.functions.insert((bus, 1, 0), FakeFunction::bridge());
    }
    let error = enumerate(&mut machine, ConfigAccess::Ports).unwrap_err().to_string();
    assert!(error.contains("08:01.0") && error.contains("bridges"), "{error}");

    let mut machine = FakeMachine::new();
    for bus in 0..=8 {
        for device in 1..32 {
            for function in 0..8 {
                let mut f = FakeFunction::new(0x1234, 1, 0xff00);
                f.bytes[0x0e] = 0x80;
                machine.functions.insert((bus, device, function), f);
            }
        }
        machine.functions.insert((bus, 31, 0), FakeFunction::bridge());
    }
    let error = enumerate(&mut machine, ConfigAccess::Ports).unwrap_err().to_string();
    assert!(error.contains("functions answer"), "{error}");
}

#[test]
fn a_bar_of_half_the_universe_is_a_fault_of_its_function_only() {
    let mut machine = FakeMachine::new();
    machine.function().bar(4, 0x0c, 0);
    machine.function().bar(5, 0, 0x8000_0000);
    let text = complaint(&mut machine);
    assert!(text.contains("BAR 4 of 9223372036854775808 bytes does not fit"), "{text}");
    let mut other = FakeFunction::new(0x10de, 1, 0x0300);
    other.bar(0, 0, 0x0f0f_0000);
    let mut machine = FakeMachine::new();
    machine.functions.insert((0, 1, 0), other);
    let found = functions(&mut machine);
    assert!(found[1].fault.as_ref().unwrap().contains("impossible size mask"));
    assert!(found[2].fault.is_none());
    found[2].enable(&mut machine).unwrap();
    assert!(found[1].enable(&mut machine).is_err());
}

#[test]
fn a_capability_list_in_a_circle_or_in_the_header_is_an_error() {
    let mut machine = FakeMachine::new();
    machine.function().bytes[0x95] = 0x40;
    let text = complaint(&mut machine);
    assert!(text.contains("runs in a circle through 0x40"), "{text}");
    machine.function().bytes[0x95] = 0x3c;
    let text = complaint(&mut machine);
    assert!(text.contains("points into the header, at 0x3c"), "{text}");
}

#[test]
fn an_msix_table_beyond_its_bar_is_an_error() {
    for (offset, value) in [(0x44, 0x0000_1001u32), (0x44, 0x0000_0002), (0x48, 0xffff_fff9)] {
        let mut machine = FakeMachine::new();
        machine.function().put(offset, &value.to_le_bytes());
        let text = complaint(&mut machine);
        assert!(text.contains("MSI-X"), "{text}");
    }
    let mut machine = FakeMachine::new();
    machine.function().put16(0x42, 0x07ff);
    let text = complaint(&mut machine);
    assert!(text.contains("32768 bytes"), "{text}");
}

#[test]
fn a_command_register_that_does_not_hold_is_an_error() {
    let mut machine = FakeMachine::new();
    machine.function().writable[0x04] = COMMAND_MEMORY as u8 | 1;
    let text = complaint(&mut machine);
    assert!(text.contains("command register"), "{text}");
    assert_eq!(machine.function().read(usize::from(reg::COMMAND), 2) as u16 & COMMAND_MASTER, 0);
}

#[test]
fn msix_entries_are_programmed_and_unmasked() {
    let mut machine = FakeMachine::new();
    let found = functions(&mut machine);
    let blk = &found[1];
    blk.enable(&mut machine).unwrap();
    let caps = caps::list(&mut machine, blk).unwrap();
    let msix = Msix::find(&mut machine, blk, &caps).unwrap().unwrap();
    assert_eq!(msix.vectors(), 8);
    msix.enable(&mut machine, 2);
    assert!(machine.function().msix_enabled());
    let (addr, data) = msix.message(1);
    assert_eq!((addr, data), (0xfee2_0000, 0x31));
    assert_eq!(machine.blk.message(1), Some((addr, data)));
    msix.disable(&mut machine);
    assert!(!machine.function().msix_enabled());
}

#[test]
fn msix_entries_are_read_masked_and_pending() {
    let mut machine = FakeMachine::new();
    let found = functions(&mut machine);
    let blk = &found[1];
    blk.enable(&mut machine).unwrap();
    let caps = caps::list(&mut machine, blk).unwrap();
    let msix = Msix::find(&mut machine, blk, &caps).unwrap().unwrap();
    let entry = MsixEntry { addr: 0x1_fee0_1000, data: 0x4041, masked: true };
    msix.program(&mut machine, 7, entry);
    assert_eq!(msix.entry(&mut machine, 7), entry);
    msix.mask(&mut machine, 7, false);
    assert!(!msix.entry(&mut machine, 7).masked);
    assert_eq!(machine.blk.message(7), Some((entry.addr, entry.data)));
    msix.mask_function(&mut machine, true);
    assert_eq!(msix.control(&mut machine), 0x4007);
    msix.mask_function(&mut machine, false);
    assert_eq!(msix.control(&mut machine), 0x0007);
    machine.blk.pending = 0x181;
    let pending = [6, 7, 8].map(|vector| msix.is_pending(&mut machine, vector));
    assert_eq!(pending, [false, true, false], "there is no vector 8");
}

/// The configuration space of 00:00.0, by ports and mapped at what its register 60h says.
struct Mapped(Vec<u8>);

impl Mapped {
    fn new(vendor: u16, device: u16) -> Self {
        let mut space = Self(vec![0; 4096]);
        space.put(0, u32::from(device) << 16 | u32::from(vendor));
        space
    }

    fn put(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn get(&self, at: usize, size: u8) -> u64 {
        let bytes = self.0[at..at + usize::from(size)].iter().rev();
        bytes.fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

/// The last double word of the mapped space keeps what was written to CF8.
impl crate::machine::Bus for Mapped {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        let at = self.0[4092..].iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte));
        self.get((at & 0xfc) + usize::from(port & 3), size) as u32
    }

    fn pio_write(&mut self, port: u16, _size: u8, value: u32) {
        let at = self.0[4092..].iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte));
        self.put(if port == 0xcf8 { 4092 } else { at & 0xfc }, value);
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        let offset = addr.0.wrapping_sub(self.get(0x60, 8) & !1);
        if offset < 4092 {
            self.get(offset as usize, size)
        } else {
            crate::base::BusAccess::ones(size)
        }
    }

    fn mmio_write(&mut self, _addr: GuestAddr, _size: u8, _value: u64) {}
}

#[test]
fn the_mapped_space_is_opened_or_found_open() {
    let mut q35 = Mapped::new(0x8086, 0x29c0);
    let access = ecam::open(&mut q35).unwrap();
    assert_eq!(access, ConfigAccess::Ecam(GuestAddr(0xb000_0000)));
    assert_eq!((q35.get(0x60, 4), q35.get(0x64, 4)), (0xb000_0001, 0));
    q35.put(0x60, 0xc000_0001);
    q35.put(0x64, 0x3);
    assert_eq!(ecam::open(&mut q35), Some(ConfigAccess::Ecam(GuestAddr(0x3_c000_0000))));
    let access = ecam::open(&mut q35).unwrap();
    let found = enumerate(&mut q35, access).unwrap();
    assert_eq!((found.len(), found[0].is(0x8086, 0x29c0)), (1, true));
    assert_eq!(ecam::open(&mut Mapped::new(0x8086, 0x1237)), None);
}

#[test]
fn extended_capabilities_end_or_are_refused() {
    let mut q35 = Mapped::new(0x8086, 0x29c0);
    let access = ecam::open(&mut q35).unwrap();
    let function = enumerate(&mut q35, access).unwrap().remove(0);
    assert_eq!(caps::extended(&mut q35, &function).unwrap(), []);
    q35.put(0x100, 0x1401_0001);
    q35.put(0x140, 0x0002_000b);
    let found = caps::extended(&mut q35, &function).unwrap();
    let capability = |id, version, offset| ExtendedCapability { id, version, offset };
    assert_eq!(found, [capability(1, 1, 0x100), capability(11, 2, 0x140)]);
    for (next, what) in [(0x1002_000b, "in a circle"), (0x0402_000b, "out of its space, at 0x040")]
    {
        q35.put(0x140, next);
        let text = caps::extended(&mut q35, &function).unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    }
}
