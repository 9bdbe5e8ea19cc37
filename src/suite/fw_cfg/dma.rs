//! "Guest-side DMA Interface".

use super::access::*;
use super::begin;
use crate::base::GuestAddr;
use crate::suite::{Outcome, TestThread};

/// Bytes of a file that are compared: enough to pass any buffer of a model.
const COMPARED_MAX: usize = 4096;
/// Past the RAM of any machine here and below any device.
const NOWHERE: GuestAddr = GuestAddr(0x7f_ffff_f000);

/// The register's bytes, in each width.
pub fn signature(t: &mut TestThread<'_>) -> Outcome {
    need_dma(t)?;
    let bytes: Vec<u8> =
        (DMA_HIGH..DMA_HIGH + 8).map(|port| t.inb(port)).collect::<Outcome<_>>()?;
    t.expect("the DMA address register by bytes", bytes, b"QEMU CFG".to_vec())?;
    let high = t.inl(DMA_HIGH)?;
    t.expect("its high half", high, u32::from_le_bytes(*b"QEMU"))?;
    let low = t.inl(DMA_LOW)?;
    t.expect("its low half", low, u32::from_le_bytes(*b" CFG"))
}

/// Both ways to read are one.
pub fn files(t: &mut TestThread<'_>) -> Outcome {
    need_dma(t)?;
    for file in super::access::files(t)? {
        let len = (file.size as usize).min(COMPARED_MAX);
        let by_port = item(t, file.selector, len)?;
        mark(t, len + 1)?;
        let control = u32::from(file.selector) << 16 | SELECT | READ;
        let result = dma(t, control, len as u32)?;
        let what = format!("file {:#x} by DMA", file.selector);
        t.expect(&what, result, 0)?;
        let mut by_dma = buffer(t, len + 1)?;
        t.expect(&format!("the byte behind {what}"), by_dma.pop(), Some(0xee))?;
        t.expect(&what, by_dma, by_port)?;
    }
    Ok(())
}

/// Parts, the end, and an item that is none.
pub fn read(t: &mut TestThread<'_>) -> Outcome {
    need_dma(t)?;
    begin(t)?;
    mark(t, 16)?;
    let result = dma(t, READ, 2)?;
    let bytes = buffer(t, 3)?;
    t.expect("two bytes of the signature", (result, bytes), (0, b"QE\xee".to_vec()))?;
    let next = t.inb(DATA)?;
    t.expect("the byte behind them, by port", next, b'M')?;
    let result = dma(t, READ, 8)?;
    let bytes = buffer(t, 9)?;
    t.expect(
        "the last byte and what follows",
        (result, bytes),
        (0, b"U\0\0\0\0\0\0\0\xee".to_vec()),
    )?;
    mark(t, 16)?;
    let result = dma(t, u32::from(NO_ITEM) << 16 | SELECT | READ, 4)?;
    let bytes = buffer(t, 5)?;
    t.expect("an item that does not exist", (result, bytes), (0, b"\0\0\0\0\xee".to_vec()))
}

/// Within the item, past its end, and not at all.
pub fn skip(t: &mut TestThread<'_>) -> Outcome {
    need_dma(t)?;
    begin(t)?;
    mark(t, 16)?;
    let result = dma(t, SKIP, 2)?;
    let bytes = buffer(t, 2)?;
    t.expect("memory after skipping", (result, bytes), (0, b"\xee\xee".to_vec()))?;
    let next = t.inb(DATA)?;
    t.expect("the byte behind two skipped ones", next, b'M')?;
    // The address counts for nothing.
    let result = dma_at(t, SKIP, 100, NOWHERE)?;
    t.expect("skipping past the end", result, 0)?;
    let next = t.inb(DATA)?;
    t.expect("a byte behind the end", next, 0)?;
    begin(t)?;
    let result = dma(t, SKIP, 0)?;
    t.expect("skipping nothing", result, 0)?;
    let next = t.inb(DATA)?;
    t.expect("the byte behind nothing", next, b'Q')
}

/// Selection happens before the operation, which there need not be.
pub fn select(t: &mut TestThread<'_>) -> Outcome {
    need_dma(t)?;
    t.outw(SELECTOR, ID)?;
    let result = dma(t, u32::from(SIGNATURE) << 16 | SELECT, 4)?;
    t.expect("selecting without an operation", result, 0)?;
    let bytes = take(t, 4)?;
    t.expect("the item selected by DMA", bytes, b"QEMU".to_vec())?;
    let result = dma(t, u32::from(ID) << 16, 4)?;
    t.expect("control without any bit", result, 0)?;
    let result = dma(t, u32::from(SIGNATURE) << 16 | SELECT | SKIP, 1)?;
    t.expect("selecting and skipping", result, 0)?;
    let next = t.inb(DATA)?;
    t.expect("the byte behind the skipped one", next, b'E')
}

/// A read-only item, memory that is none, and a description that is nowhere.
pub fn error(t: &mut TestThread<'_>) -> Outcome {
    need_dma(t)?;
    mark(t, 16)?;
    let result = dma(t, u32::from(SIGNATURE) << 16 | SELECT | WRITE, 4)?;
    t.expect("writing the signature", result, ERROR)?;
    let bytes = item(t, SIGNATURE, 4)?;
    t.expect("the signature after that", bytes, b"QEMU".to_vec())?;
    let result = dma(t, u32::from(NO_ITEM) << 16 | SELECT | WRITE, 4)?;
    t.expect("writing an item that does not exist", result, ERROR)?;
    let result = dma_at(t, u32::from(SIGNATURE) << 16 | SELECT | READ, 4, NOWHERE)?;
    t.expect("reading to where no RAM is", result, ERROR)?;
    start(t, NOWHERE)?;
    let result = dma(t, u32::from(SIGNATURE) << 16 | SELECT | READ, 4)?;
    let bytes = buffer(t, 4)?;
    t.expect("the transfer after all that", (result, bytes), (0, b"QEMU".to_vec()))
}
