//! The block's lines, its messages, and accesses of any size.

use std::sync::Arc;

use super::bits::{LATE_INTERRUPTS_MAX, ROUTES_PC};
use super::chip::HpetChip;
use super::timer::Route;
use crate::base::Nanos;
use crate::machine::builtin::device::{Device, MessageSink, Wire};

/// Where an HPET is connected.
#[derive(Debug)]
pub struct HpetWires {
    /// Global interrupts by number: 0 is the timer interrupt of the PIC, 8 the clock's; the others
    /// are inputs of the I/O APIC.
    pub lines: Vec<Wire>,
    /// High while the legacy replacement route is on: interrupts 0 and 8 are then not the 8254's
    /// and the real-time clock's.
    pub legacy: Wire,
}

/// A high precision event timer block. Window 0 is its 1 KiB.
pub struct Hpet {
    chip: HpetChip,
    wires: HpetWires,
    messages: Option<Arc<dyn MessageSink>>,
    routes: u32,
    /// Levels as driven.
    levels: u32,
}

impl Hpet {
    /// A block that routes as an i440fx board's and sends no messages.
    pub fn new(wires: HpetWires) -> Self {
        let (routes, levels) = (ROUTES_PC, 0);
        Self { chip: HpetChip::new(routes, false), wires, messages: None, routes, levels }
    }

    /// The same block with these I/O APIC inputs to choose from, one bit each.
    #[must_use]
    pub fn with_routes(self, routes: u32) -> Self {
        Self { chip: HpetChip::new(routes, self.messages.is_some()), routes, ..self }
    }

    /// The same block with timers that can send messages (§2.3.10).
    #[must_use]
    pub fn with_messages(self, sink: Arc<dyn MessageSink>) -> Self {
        Self { chip: HpetChip::new(self.routes, true), messages: Some(sink), ..self }
    }

    fn line(&self, line: u32) -> Option<&Wire> {
        self.wires.lines.get(line as usize)
    }

    /// Interrupts up to `now`, each at its moment, then `now`.
    fn catch_up(&mut self, now: Nanos) {
        for _ in 0..LATE_INTERRUPTS_MAX {
            let Some(deadline) = self.chip.deadline().filter(|time| *time <= now) else { break };
            self.run_to(deadline);
        }
        self.run_to(now);
    }

    fn run_to(&mut self, time: Nanos) {
        let (wires, messages, levels) = (&self.wires, &self.messages, self.levels);
        self.chip.run(time, |interrupt| match interrupt {
            // An edge does not show on a line that another timer holds high.
            Route::Line(line) => {
                let line = line.filter(|line| levels >> line & 1 == 0);
                if let Some(wire) = line.and_then(|line| wires.lines.get(line as usize)) {
                    wire.pulse();
                }
            }
            Route::Message { addr, data } => {
                if let Some(sink) = messages {
                    sink.message(addr, data);
                }
            }
        });
        self.drive();
    }

    /// Drives the levels that changed.
    fn drive(&mut self) {
        let levels = self.chip.levels();
        let changed = std::mem::replace(&mut self.levels, levels) ^ levels;
        for line in (0..u32::BITS).filter(|line| changed >> line & 1 != 0) {
            if let Some(wire) = self.line(line) {
                wire.set(levels >> line & 1 != 0);
            }
        }
    }
}

/// The registers that `size` bytes at `offset` touch: offset of each, its first byte's place in the
/// value, and the bits of the register.
fn lanes(offset: u64, size: u8) -> impl Iterator<Item = (u64, i64, u64)> {
    let end = offset + u64::from(size.clamp(1, 8));
    (offset & !7..end).step_by(8).map(move |register| {
        let byte = |n: &u64| (offset..end).contains(&(register + n));
        let mask = (0..8).filter(byte).fold(0, |mask, n| mask | 0xff << (8 * n));
        (register, 8 * (register as i64 - offset as i64), mask)
    })
}

/// `value` moved up by `bits`, or down when negative.
fn shift(value: u64, bits: i64) -> u64 {
    let by = bits.unsigned_abs() as u32;
    let moved = if bits >= 0 { value.checked_shl(by) } else { value.checked_shr(by) };
    moved.unwrap_or(0)
}

impl Device for Hpet {
    fn name(&self) -> &'static str {
        "hpet"
    }

    fn read(&mut self, _window: usize, offset: u64, size: u8, now: Nanos) -> u64 {
        self.catch_up(now);
        let part = |(register, place, mask)| shift(self.chip.read(register) & mask, place);
        lanes(offset, size).map(part).fold(0, |value, part| value | part)
    }

    fn write(&mut self, _window: usize, offset: u64, size: u8, value: u64, now: Nanos) {
        self.catch_up(now);
        // §2.3: accesses are of 32 or 64 bits, aligned.
        if !matches!(size, 4 | 8) || !offset.is_multiple_of(size.into()) {
            return;
        }
        for (register, place, mask) in lanes(offset, size) {
            self.chip.write(register, shift(value, -place), mask);
        }
        self.drive();
        self.wires.legacy.set(self.chip.is_legacy());
    }

    fn deadline(&self) -> Option<Nanos> {
        self.chip.deadline()
    }

    fn run(&mut self, now: Nanos) {
        self.catch_up(now);
    }

    fn reset(&mut self, now: Nanos) {
        self.chip.reset(now);
        self.drive();
        self.wires.legacy.set(false);
    }
}
