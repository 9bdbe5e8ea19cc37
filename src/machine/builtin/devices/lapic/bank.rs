//! The local APICs of a board, and the bus between them.

use super::chip::{Effect, Lapic};
use super::message::{Destination, Message};
use crate::base::Nanos;

/// Every CPU's APIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bank(Vec<Lapic>);

impl Bank {
    /// APICs of `cpus` CPUs with IDs from 0; at least one, at most 255, as ID 255 is everyone.
    pub fn new(cpus: u8) -> Self {
        Self((0..cpus.clamp(1, u8::MAX)).map(Lapic::new).collect())
    }

    /// One of them.
    pub fn get(&self, cpu: u8) -> Option<&Lapic> {
        self.0.get(usize::from(cpu))
    }

    /// One of them.
    pub fn get_mut(&mut self, cpu: u8) -> Option<&mut Lapic> {
        self.0.get_mut(usize::from(cpu))
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Lapic> {
        self.0.iter()
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Lapic> {
        self.0.iter_mut()
    }

    /// A read by CPU `cpu` of its own APIC's register. It has 32 bits at a multiple of 16; what
    /// any other access does is undefined (SDM §11.4.1), and 0 here.
    pub fn read(&mut self, cpu: u8, offset: u64, size: u8, now: Nanos) -> u32 {
        let lapic = self.get_mut(cpu).filter(|_| is_register(offset, size));
        lapic.map_or(0, |lapic| lapic.read(offset, now))
    }

    /// A write by CPU `cpu`; commands are sent. The vector whose EOI the I/O APICs must hear of.
    pub fn write(&mut self, cpu: u8, offset: u64, size: u8, value: u32, now: Nanos) -> Option<u8> {
        let lapic = self.get_mut(cpu).filter(|_| is_register(offset, size))?;
        match lapic.write(offset, value, now)? {
            Effect::Eoi(vector) => Some(vector),
            Effect::Send(message) => {
                self.send(Some(cpu), message);
                None
            }
        }
    }

    /// Delivers a message of CPU `from`, or of a device.
    pub fn send(&mut self, from: Option<u8>, message: Message) {
        let meant = |(cpu, lapic): &(usize, &mut Lapic)| {
            let own = from.map(usize::from) == Some(*cpu);
            match message.to {
                Destination::Physical(id) => lapic.is_physical(id),
                Destination::Logical(mda) => lapic.is_logical(mda),
                Destination::Own => own,
                Destination::All => true,
                Destination::Others => !own,
            }
        };
        let targets = self.0.iter_mut().enumerate().filter(meant).map(|(_, lapic)| lapic);
        if message.lowest {
            let able = targets.filter(|lapic| lapic.takes_vectors());
            let chosen = able.min_by_key(|lapic| lapic.arbitration_priority());
            chosen.into_iter().for_each(|lapic| lapic.accept(message.signal));
        } else {
            targets.for_each(|lapic| lapic.accept(message.signal));
        }
    }

    /// The level of pin LINT`line` of every CPU.
    pub fn set_pin(&mut self, line: u32, high: bool) {
        self.0.iter_mut().for_each(|lapic| lapic.set_pin(line as usize, high));
    }

    /// The first deadline of any of their timers.
    pub fn deadline(&self) -> Option<Nanos> {
        self.0.iter().filter_map(Lapic::deadline).min()
    }
}

fn is_register(offset: u64, size: u8) -> bool {
    size == 4 && offset.is_multiple_of(16)
}
