//! The device as firmware sees it (QEMU, `docs/specs/fw_cfg`).

use crate::base::{GuestAddr, Nanos};
use crate::suite::{Outcome, TestThread};

/// Selector, 16 bits.
pub const SELECTOR: u16 = 0x510;
/// Data, bytes.
pub const DATA: u16 = 0x511;
/// DMA address: high half, big endian; reads as the DMA signature.
pub const DMA_HIGH: u16 = 0x514;
/// DMA address: low half; starts the transfer.
pub const DMA_LOW: u16 = 0x518;

/// Item: the signature.
pub const SIGNATURE: u16 = 0x00;
/// Item: the interfaces.
pub const ID: u16 = 0x01;
/// Item: the file directory.
pub const FILE_DIR: u16 = 0x19;
/// The first file.
pub const FILE_FIRST: u16 = 0x20;
/// A selector that no machine uses.
pub const NO_ITEM: u16 = 0x3ffe;

/// DMA control: it failed.
pub const ERROR: u32 = 0x01;
/// DMA control: item to memory.
pub const READ: u32 = 0x02;
/// DMA control: pass over.
pub const SKIP: u32 = 0x04;
/// DMA control: select bits 31:16.
pub const SELECT: u32 = 0x08;
/// DMA control: memory to item.
pub const WRITE: u32 = 0x10;

/// Where the description of a transfer is put: low RAM that every machine has.
pub const DESCRIPTION: GuestAddr = GuestAddr(0x8000);
/// Where transfers go.
pub const BUFFER: GuestAddr = GuestAddr(0x1_0000);

/// Files of a directory at most: the selectors up to the architecture's own.
pub const FILES_MAX: u32 = 0x3fe0;
/// How often an unfinished transfer is looked at, and how long.
const POLL: Nanos = Nanos(100_000);
const POLLS_MAX: usize = 1000;

/// A file of the directory.
#[derive(Debug)]
pub struct File {
    /// Bytes.
    pub size: u32,
    /// Its selector.
    pub selector: u16,
    /// Reserved.
    pub reserved: u16,
    /// Its name with everything behind it: 56 bytes.
    pub name: Vec<u8>,
}

/// The next `len` bytes of the selected item.
pub fn take(t: &mut TestThread<'_>, len: usize) -> Outcome<Vec<u8>> {
    (0..len).map(|_| t.inb(DATA)).collect()
}

/// The first `len` bytes of an item.
pub fn item(t: &mut TestThread<'_>, selector: u16, len: usize) -> Outcome<Vec<u8>> {
    t.outw(SELECTOR, selector)?;
    take(t, len)
}

/// An item as a little endian number of `len` bytes.
pub fn number(t: &mut TestThread<'_>, selector: u16, len: usize) -> Outcome<u64> {
    let bytes = item(t, selector, len)?;
    Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn big_endian(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// The directory.
pub fn files(t: &mut TestThread<'_>) -> Outcome<Vec<File>> {
    let count = big_endian(&item(t, FILE_DIR, 4)?);
    if count > FILES_MAX {
        return t.failed(
            "files in the directory",
            format!("at most {FILES_MAX}"),
            count.to_string(),
        );
    }
    (0..count)
        .map(|_| {
            Ok(File {
                size: big_endian(&take(t, 4)?),
                selector: big_endian(&take(t, 2)?) as u16,
                reserved: big_endian(&take(t, 2)?) as u16,
                name: take(t, 56)?,
            })
        })
        .collect()
}

/// Skips the case where the device has no DMA.
pub fn need_dma(t: &mut TestThread<'_>) -> Outcome {
    if number(t, ID, 4)? & 2 == 0 { t.skip("this fw_cfg has no DMA interface") } else { Ok(()) }
}

/// A transfer from or to [`BUFFER`]; what control says when it is over.
pub fn dma(t: &mut TestThread<'_>, control: u32, length: u32) -> Outcome<u32> {
    dma_at(t, control, length, BUFFER)
}

/// A transfer from or to `address`.
pub fn dma_at(
    t: &mut TestThread<'_>,
    control: u32,
    length: u32,
    address: GuestAddr,
) -> Outcome<u32> {
    let mut description = control.to_be_bytes().to_vec();
    description.extend(length.to_be_bytes());
    description.extend(address.0.to_be_bytes());
    let ram = t.ram()?;
    t.check(ram.write(DESCRIPTION, &description), "the machine has RAM at 8000h")?;
    start(t, DESCRIPTION)?;
    for _ in 0..POLLS_MAX {
        let mut word = [0; 4];
        ram.read(DESCRIPTION, &mut word);
        let control = u32::from_be_bytes(word);
        if control & !ERROR == 0 {
            return Ok(control);
        }
        t.step(POLL)?;
    }
    t.failed("a DMA transfer", "control is 0, or 1 for an error", "it does not end")
}

/// Gives the device the address of a description.
pub fn start(t: &mut TestThread<'_>, description: GuestAddr) -> Outcome {
    t.outl(DMA_HIGH, ((description.0 >> 32) as u32).swap_bytes())?;
    t.outl(DMA_LOW, (description.0 as u32).swap_bytes())
}

/// Bytes of [`BUFFER`].
pub fn buffer(t: &mut TestThread<'_>, len: usize) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; len];
    let there = t.ram()?.read(BUFFER, &mut bytes);
    t.check(there, "the machine has RAM at 10000h")?;
    Ok(bytes)
}

/// Fills [`BUFFER`] with EEh.
pub fn mark(t: &mut TestThread<'_>, len: usize) -> Outcome {
    let there = t.ram()?.write(BUFFER, &vec![0xee; len]);
    t.check(there, "the machine has RAM at 10000h")
}
