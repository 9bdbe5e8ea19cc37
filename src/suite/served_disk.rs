//! The disk of a server that runs already, made ready for tests: they count on its size and on what
//! it holds.

use super::setup::TestDisk;
use crate::base::{BlockOp, Error, Result, SECTOR_SIZE};
use crate::driver::virtio::{VirtioBlk, VirtioBlkOptions};
use crate::driver::{BlockDriver, BlockLimits, BlockRequest, BlockStatus, Submitted};
use crate::machine::Machine;

/// Bytes that are written at a time.
const STEP_BYTES: u64 = 64 << 10;

/// Sees that the machine's first disk is as `wanted`, and gives it its contents.
///
/// # Errors
/// A machine error: it is another disk, or cannot be written.
pub fn prepare(machine: &mut dyn Machine, wanted: &TestDisk) -> Result<()> {
    let queues = machine.vrings()?.queues(0)?;
    let mut driver = VirtioBlk::probe(machine, &VirtioBlkOptions::default())?;
    fits(driver.limits(), queues, wanted)?;
    for offset in (0..wanted.bytes).step_by(STEP_BYTES as usize) {
        write(machine, &mut driver, wanted, offset)?;
    }
    driver.shutdown(machine)
}

/// Whether a disk is what the tests take theirs for.
fn fits(limits: &BlockLimits, queues: u16, wanted: &TestDisk) -> Result<()> {
    let bytes = limits.capacity_sectors.saturating_mul(SECTOR_SIZE);
    // A case that wants several queues finds by itself that there is one.
    let queues_fit = queues == 1 || (wanted.queues > 1 && queues >= wanted.queues);
    let blocks: (u64, u64) = (limits.block_bytes.into(), wanted.block_bytes.into());
    let rows = [
        (bytes == wanted.bytes, "bytes", bytes, wanted.bytes),
        (blocks.0 == blocks.1, "bytes a block", blocks.0, blocks.1),
        (queues_fit, "queue(s)", queues.into(), wanted.queues.into()),
    ];
    if let Some((_, what, has, needs)) = rows.into_iter().find(|(fits, ..)| !fits) {
        let what = format!("the server's disk has {has} {what}, and the tests need {needs}");
        let TestDisk { bytes, block_bytes, queues, .. } = wanted;
        return Err(Error::machine(what).hint(format!(
            "serve an image of {bytes} bytes in blocks of {block_bytes} with {queues} queue(s)"
        )));
    }
    match limits.read_only {
        true => Err(Error::machine("the server's disk cannot be written, and the tests do")),
        false => Ok(()),
    }
}

/// Writes one step of the contents.
fn write(
    machine: &mut dyn Machine,
    driver: &mut VirtioBlk,
    wanted: &TestDisk,
    offset: u64,
) -> Result<()> {
    let fail = |what: &str| Error::machine(format!("the server's disk cannot be filled: {what}"));
    let len = STEP_BYTES.min(wanted.bytes - offset) as usize;
    let mut buffer = driver.buffer(len).ok_or_else(|| fail("no guest memory"))?;
    if let Some(bytes) = driver.bytes_mut(&mut buffer).get_mut(..len) {
        bytes.fill(0);
        if wanted.filled {
            TestDisk::pattern(offset, bytes);
        }
    }
    let (sector, sectors) = (offset / SECTOR_SIZE, (len as u64 / SECTOR_SIZE) as u32);
    let request = BlockRequest { op: BlockOp::Write, sector, sectors, unmap: false };
    if driver.submit(0, offset, &request, Some(buffer))? != Submitted::Queued {
        return Err(fail("its ring has no room"));
    }
    driver.kick(machine)?;
    let mut done = Vec::new();
    while done.is_empty() {
        driver.wait(machine, None)?;
        driver.reap(machine, &mut done)?;
    }
    for completion in done {
        if completion.status != BlockStatus::Ok {
            return Err(fail(&format!("it answered {:?}", completion.status)));
        }
        completion.buffer.into_iter().for_each(|buffer| driver.release(buffer));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_disk_is_refused_and_the_right_one_described() {
        let wanted = TestDisk::new("t", 1 << 20);
        let limits = BlockLimits {
            capacity_sectors: 2048,
            block_bytes: 512,
            read_only: false,
            flush: true,
            discard_sectors_max: 0,
            write_zeroes_sectors_max: 0,
            write_zeroes_unmap: false,
            transfer_bytes_max: 1 << 20,
            queues: 1,
            depth_max: 64,
        };
        fits(&limits, 1, &wanted).unwrap();
        let refused = |limits: &BlockLimits, queues, word: &str| {
            let error = fits(limits, queues, &wanted).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        refused(&limits, 16, "16 queue(s)");
        let several = TestDisk { queues: 4, ..wanted.clone() };
        assert!([1, 4, 8].iter().all(|queues| fits(&limits, *queues, &several).is_ok()));
        assert!(fits(&limits, 3, &several).is_err());
        refused(&BlockLimits { capacity_sectors: u64::MAX, ..limits.clone() }, 1, "1048576");
        refused(&BlockLimits { block_bytes: 4096, ..limits.clone() }, 1, "4096 bytes a block");
        refused(&BlockLimits { read_only: true, ..limits }, 1, "written");
    }
}
