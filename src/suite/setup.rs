//! The machine that a case runs on, in words that every kind of machine understands.

use std::io::IoSlice;
use std::sync::Arc;

use super::settings::ClockChoice;
use crate::base::prng::mix;
use crate::base::{Error, Result};
use crate::image::{self, Image};
use crate::machine::builtin::Chips;

/// Bytes written at a time when a disk is filled.
const FILL_BYTES: u64 = 64 << 10;

/// A virtio disk that a test asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestDisk {
    /// Bytes, a multiple of the block size.
    pub bytes: u64,
    /// Request queues.
    pub queues: u16,
    /// Logical block size.
    pub block_bytes: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Its identifier, at most 20 bytes.
    pub serial: &'static str,
    /// Served in a thread of its own, where the machine has a choice.
    pub iothread: bool,
    /// Its queues are served independently, where the machine has a choice.
    pub concurrent_queues: bool,
    /// Filled with [`TestDisk::pattern`]; else all zeros.
    pub filled: bool,
}

impl TestDisk {
    /// A disk of `bytes` with one queue and blocks of 512 bytes, filled.
    pub const fn new(serial: &'static str, bytes: u64) -> Self {
        Self {
            bytes,
            queues: 1,
            block_bytes: 512,
            read_only: false,
            serial,
            iothread: false,
            concurrent_queues: false,
            filled: true,
        }
    }

    /// What a filled disk holds from byte `offset` (a multiple of 8) on.
    pub fn pattern(offset: u64, buf: &mut [u8]) {
        for (word, bytes) in (offset / 8..).zip(buf.chunks_mut(8)) {
            for (byte, value) in bytes.iter_mut().zip(mix(word).to_le_bytes()) {
                *byte = value;
            }
        }
    }

    /// An image in memory with its contents.
    ///
    /// # Errors
    /// The image refuses them.
    pub fn image(&self) -> Result<Arc<dyn Image>> {
        let image = image::mem(self.bytes);
        self.fill(&*image)?;
        Ok(image)
    }

    /// Gives a disk of zeros its contents.
    ///
    /// # Errors
    /// The image refuses them.
    pub fn fill(&self, image: &dyn Image) -> Result<()> {
        let mut buf = vec![0; FILL_BYTES as usize];
        let end = if self.filled { self.bytes } else { 0 };
        for offset in (0..end).step_by(FILL_BYTES as usize) {
            let len = FILL_BYTES.min(end - offset) as usize;
            let Some(part) = buf.get_mut(..len) else { break };
            Self::pattern(offset, part);
            image
                .write(&[IoSlice::new(part)], offset)
                .map_err(|e| Error::machine("a test's disk cannot be filled").source(e))?;
        }
        Ok(())
    }
}

/// A machine that some case needs.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineSetup {
    /// At least these chips.
    pub chips: Chips,
    /// Its disks, in the order in which enumeration finds them.
    pub disks: Vec<TestDisk>,
    /// Its time.
    pub clock: ClockChoice,
    /// What interrupt controllers deliver is wanted, and not the interrupt lines: for kinds of
    /// machine that show one of the two ([`MachineKind::shows_one`]); others are never asked.
    ///
    /// [`MachineKind::shows_one`]: super::machines::MachineKind::shows_one
    pub controllers: bool,
}

impl MachineSetup {
    /// Whether a machine built so serves a case that needs `other`. Disks are found by their
    /// order, so that they are the same or not needed at all.
    pub fn covers(&self, other: &Self) -> bool {
        self.chips.contains(other.chips)
            && (other.disks.is_empty() || self.disks == other.disks)
            && self.is_like(other)
    }

    /// What cannot be added to a machine.
    fn is_like(&self, other: &Self) -> bool {
        (self.clock, self.controllers) == (other.clock, other.controllers)
    }

    /// Adds what `other` needs, where one machine can serve both.
    pub fn extend(&mut self, other: &Self) {
        if !self.is_like(other) {
            return;
        }
        self.chips |= other.chips;
        if self.disks.is_empty() {
            self.disks.clone_from(&other.disks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSliceMut;

    #[test]
    fn a_filled_disk_holds_the_pattern_everywhere() {
        let disk = TestDisk::new("t", (64 << 10) + 1024);
        let image = disk.image().unwrap();
        for offset in [0, 512, (64 << 10) - 512, 64 << 10, (64 << 10) + 512] {
            let (mut got, mut want) = ([0; 512], [0; 512]);
            image.read(&mut [IoSliceMut::new(&mut got)], offset).unwrap();
            TestDisk::pattern(offset, &mut want);
            assert_eq!(got, want);
        }
    }

    #[test]
    fn a_machine_serves_who_needs_no_more_than_it_has() {
        let setup = |chips, disks: &[TestDisk]| MachineSetup {
            chips,
            disks: disks.to_vec(),
            clock: ClockChoice::Virtual,
            controllers: false,
        };
        let disk = [TestDisk::new("t", 512)];
        let mut machine = setup(Chips::RTC, &[]);
        assert!(machine.covers(&setup(Chips::RTC, &[])));
        assert!(!machine.covers(&setup(Chips::PIT, &[])));
        assert!(!machine.covers(&setup(Chips::RTC, &disk)));
        machine.extend(&setup(Chips::PIT, &disk));
        assert!(machine.covers(&setup(Chips::RTC | Chips::PIT, &disk)));
        assert!(!machine.covers(&setup(Chips::RTC, &[TestDisk::new("u", 512)])));
        let host = MachineSetup { clock: ClockChoice::Host, ..machine.clone() };
        assert!(!machine.covers(&host));
        let controllers = MachineSetup { controllers: true, chips: Chips::PIC, ..host.clone() };
        assert!(!host.covers(&controllers));
        let before = machine.clone();
        machine.extend(&controllers);
        assert_eq!(machine, before);
    }
}
