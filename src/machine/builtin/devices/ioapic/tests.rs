use std::sync::Arc;

use super::bits::*;
use super::{IoApic, IoApicDevice};
use crate::base::{Nanos, Prng};
use crate::machine::builtin::device::{Device, LineSink, MessageProbe};
use crate::machine::builtin::devices::recorded;
use crate::machine::builtin::walk::{SeededSteps, walk};

struct Rig {
    probe: Arc<MessageProbe>,
    ioapic: Arc<IoApic>,
    device: IoApicDevice,
}

impl Rig {
    fn new() -> Self {
        let probe = Arc::new(MessageProbe::default());
        let ioapic = IoApic::new(probe.clone());
        Self { device: IoApicDevice(ioapic.clone()), probe, ioapic }
    }

    fn read(&mut self, register: u8) -> u32 {
        self.device.write(0, IOREGSEL, 4, register.into(), Nanos(0));
        self.device.read(0, IOWIN, 4, Nanos(0)) as u32
    }

    fn write(&mut self, register: u8, value: u32) {
        self.device.write(0, IOREGSEL, 4, register.into(), Nanos(0));
        self.device.write(0, IOWIN, 4, value.into(), Nanos(0));
    }

    fn entry(&mut self, line: u8, entry: u64) {
        self.write(IOREDTBL + 2 * line + 1, (entry >> 32) as u32);
        self.write(IOREDTBL + 2 * line, entry as u32);
    }

    fn low(&mut self, line: u8) -> u64 {
        self.read(IOREDTBL + 2 * line).into()
    }

    fn line(&mut self, line: u32, high: bool) -> Vec<(u64, u32)> {
        self.ioapic.set_line(line, 0, high);
        self.probe.take()
    }
}

#[test]
fn registers_have_their_reset_values_and_write_masks() {
    let mut rig = Rig::new();
    assert_eq!((rig.read(0), rig.read(1), rig.read(2)), (0, 0x0017_0020, 0));
    rig.write(0, u32::MAX);
    assert_eq!((rig.read(0), rig.read(2)), (0x0f00_0000, 0x0f00_0000));
    rig.write(1, 0);
    rig.write(2, 0);
    assert_eq!((rig.read(1), rig.read(2)), (0x0017_0020, 0x0f00_0000));
    for line in 0..24 {
        assert_eq!(rig.low(line), MASK);
        rig.entry(line, u64::MAX);
        assert_eq!(rig.low(line), 0x1_afff, "entry {line}");
        assert_eq!(rig.read(IOREDTBL + 2 * line + 1), 0xff00_0000, "entry {line}");
    }
    assert_eq!((rig.read(0x40), rig.read(0xff), rig.read(3)), (0, 0, 0));
    // The selector is a byte, and the window repeats.
    assert_eq!(rig.device.read(0, 0x100, 1, Nanos(0)), 3);
    assert_eq!(rig.device.read(0, IOWIN, 2, Nanos(0)), 0);
    rig.device.reset(Nanos(0));
    assert_eq!(rig.low(23), MASK);
}

#[test]
fn an_edge_is_sent_once_and_never_when_masked() {
    let mut rig = Rig::new();
    rig.entry(4, 0x0100_0000_0000_0830);
    assert_eq!(rig.line(4, true), [(0xfee0_1004, 0x30)]);
    assert_eq!(rig.line(4, true), []);
    assert_eq!(rig.line(4, false), []);
    rig.entry(4, MASK | 0x30);
    assert_eq!(rig.line(4, true), []);
    rig.entry(4, 0x30);
    assert_eq!(rig.probe.take(), [], "the edge was ignored, not kept");
    assert_eq!(rig.low(4), 0x30);
}

#[test]
fn a_level_is_sent_again_after_each_eoi_while_it_lasts() {
    let mut rig = Rig::new();
    let sent = (0xfee0_3000, 0xc000 | 0x129);
    rig.ioapic.set_line(10, 1, true);
    rig.entry(10, 3 << DEST_SHIFT | TRIGGER_LEVEL | 0x129);
    assert_eq!(rig.probe.take(), [sent], "it was there when the entry was written");
    assert_eq!(rig.low(10), TRIGGER_LEVEL | REMOTE_IRR | 0x129);
    rig.ioapic.set_line(10, 0, true);
    rig.ioapic.set_line(10, 1, false);
    rig.ioapic.end_of_interrupt(0x28);
    assert_eq!(rig.probe.take(), [], "another vector");
    rig.ioapic.end_of_interrupt(0x29);
    assert_eq!(rig.probe.take(), [sent]);
    assert_eq!(rig.line(10, false), []);
    rig.device.write(0, IOEOI, 4, 0x29, Nanos(0));
    assert_eq!((rig.probe.take(), rig.low(10)), (vec![], TRIGGER_LEVEL | 0x129));
}

#[test]
fn remote_irr_is_read_only_and_falls_with_the_level_trigger() {
    let mut rig = Rig::new();
    rig.entry(10, TRIGGER_LEVEL | 0x40);
    rig.line(10, true);
    rig.entry(10, TRIGGER_LEVEL | MASK | 0x40);
    assert_eq!(rig.low(10), TRIGGER_LEVEL | MASK | REMOTE_IRR | 0x40);
    rig.entry(10, TRIGGER_LEVEL | 0x40);
    assert_eq!(rig.probe.take(), [], "it still waits for its EOI");
    rig.entry(10, MASK | 0x40);
    rig.entry(10, TRIGGER_LEVEL | 0x40);
    assert_eq!(rig.probe.take().len(), 1);
}

#[test]
fn a_low_active_input_is_asserted_when_low() {
    let mut rig = Rig::new();
    rig.ioapic.set_line(5, 0, true);
    rig.entry(5, INTPOL | 0x50);
    assert_eq!(rig.line(5, false), [(0xfee0_0000, 0x50)]);
    assert_eq!(rig.line(5, true), []);
    rig.entry(6, INTPOL | TRIGGER_LEVEL | 0x60);
    assert_eq!(rig.probe.take(), [(0xfee0_0000, 0xc060)]);
}

#[test]
fn modes_without_a_level_are_edges() {
    let mut rig = Rig::new();
    for mode in [2, 4, 5, 7] {
        rig.entry(7, u64::from(mode) << 8 | TRIGGER_LEVEL);
        assert_eq!(rig.line(7, true), [(0xfee0_0000, mode << 8)]);
        assert_eq!(rig.low(7) & REMOTE_IRR, 0);
        assert_eq!(rig.line(7, false), []);
    }
}

/// Also pulls lines and ends vectors, by what is written to a window of its own.
struct Walked(IoApicDevice);

impl Device for Walked {
    fn name(&self) -> &'static str {
        "ioapic"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        self.0.read(window, offset, size, now)
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        match (window, offset) {
            (1, 0) => self.0.0.set_line(value as u32 & 31, 0, value & 0x100 != 0),
            (1, _) => self.0.0.end_of_interrupt(value as u8),
            _ => self.0.write(window, offset, size, value, now),
        }
    }

    fn reset(&mut self, now: Nanos) {
        self.0.reset(now);
    }
}

#[test]
fn a_random_walk_ends_the_same_twice() {
    let run = || {
        let mut device = Walked(Rig::new().device);
        walk(&mut device, &[0x50, 8], &mut SeededSteps(Prng::new(82093), 1_000_000))
    };
    assert_eq!(run(), run());
    // The whole window, of which the chip decodes little.
    walk(&mut Rig::new().device, &[0x1000], &mut SeededSteps(Prng::new(1), 100_000));
}

#[test]
fn linux_reads_what_it_reads_on_qemu() {
    let log = "guest/virtio-raw-mmio.trace.xz";
    let Some(accesses) = recorded::accesses(log, &["ioapic"]) else { return };
    recorded::replay(&mut Rig::new().device, &[(0xfec0_0000, 0x1000)], &accesses);
}
