//! virtio-blk (virtio 1.2 §5.2): what a driver may rely on, and what it may not do.
//!
//! The first half of each disk holds a pattern that no case writes over, so that cases may share a
//! machine; writes go to the second half.

mod chains;
#[cfg(test)]
mod faults;
mod interrupts;
mod malformed;
mod requests;
mod rig;
mod scale;
mod transport;

use self::rig::{Rig, Start};
use super::module::{Case, Module, join};
use super::outcome::Outcome;
use super::setup::TestDisk;
use super::thread::TestThread;
use crate::base::Result;
use crate::base::options::Options;
use crate::driver::chipset::Chipset;
use crate::machine::Capabilities;
use crate::machine::builtin::Chips;

const DISK_BYTES: u64 = 1 << 20;

/// The first sector that cases write.
const SCRATCH: u64 = DISK_BYTES / 512 / 2;

/// Positions in [`DISKS`].
const PLAIN: usize = 0;
const MULTIQUEUE: usize = 1;
const READ_ONLY: usize = 2;
const BLOCKS_4K: usize = 3;

/// Identifiers: the first is shorter than the 20 bytes there are, the second fills them.
const SERIALS: [&str; 4] = ["qtrace-plain", "qtrace-multi-queue-4", "qtrace-ro", "qtrace-4k"];

const DISKS: [TestDisk; 4] = {
    let [plain, multi, read_only, blocks] = SERIALS;
    [
        TestDisk::new(plain, DISK_BYTES),
        TestDisk { queues: 4, ..TestDisk::new(multi, DISK_BYTES) },
        TestDisk { read_only: true, ..TestDisk::new(read_only, DISK_BYTES) },
        TestDisk { block_bytes: 4096, ..TestDisk::new(blocks, DISK_BYTES) },
    ]
};

/// A disk, and RAM for its rings.
const NEEDS: Capabilities = Capabilities::VIRTIO.union(Capabilities::MEMORY);

/// And the registers of a PCI function: the interrupt status, the device status of the device's own.
const REGISTERS: Capabilities = NEEDS.union(Capabilities::MMIO);

const fn case(
    name: &'static str,
    purpose: &'static str,
    run: fn(&mut TestThread<'_>) -> Outcome,
) -> Case {
    Case::new(name, purpose, run).needs(NEEDS)
}

/// The tests of virtio-blk.
pub struct VirtioBlk;

const CASES: [Case;
    requests::CASES.len()
        + chains::CASES.len()
        + transport::CASES.len()
        + interrupts::CASES.len()
        + malformed::CASES.len()
        + scale::CASES.len()] = join(&[
    &requests::CASES,
    &chains::CASES,
    &transport::CASES,
    &interrupts::CASES,
    &malformed::CASES,
    &scale::CASES,
]);

impl Module for VirtioBlk {
    fn name(&self) -> &'static str {
        "virtio-blk"
    }

    fn purpose(&self) -> &'static str {
        "virtio block device: on PCI, modern and legacy, and behind vhost-user"
    }

    fn cases(&self) -> &'static [Case] {
        &CASES
    }

    fn chips(&self) -> Chips {
        Chips::MINIMAL
    }

    fn disks(&self, case: &Case, options: &Options) -> Result<Vec<TestDisk>> {
        if case.real_time { scale::disks(options) } else { Ok(DISKS.to_vec()) }
    }

    fn init(&self, thread: &mut TestThread<'_>) -> Outcome {
        // Where firmware ran, or nothing is to be set up, this changes nothing.
        if thread.machine().capabilities().contains(Capabilities::PIO) {
            Chipset::set_up(thread.machine().bus()?)?;
        }
        Ok(())
    }

    fn cleanup(&self, thread: &mut TestThread<'_>) -> Outcome {
        // A case that was skipped half-way leaves its disk running.
        for disk in 0..rig::disks(thread)? {
            Rig::start(thread, Start { disk, ..Start::default() })?.finish(thread)?;
        }
        Ok(())
    }
}
