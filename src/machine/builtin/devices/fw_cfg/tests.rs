use std::sync::Arc;

use super::bits::*;
use super::{FwCfg, FwCfgConfig, FwCfgFile};
use crate::base::{GuestAddr, Nanos, Prng};
use crate::machine::GuestRam;
use crate::machine::builtin::device::Device;
use crate::machine::builtin::devices::recorded;
use crate::machine::builtin::walk::{SeededSteps, walk};

const T: Nanos = Nanos(0);
/// Where the tests put the DMA structure, and what it moves.
const AT: u64 = 0x1000;
const BUFFER: u64 = 0x2000;
/// The selector of `etc/note` below, which is the third by name.
const NOTE: u32 = 0x22;

fn rig() -> (FwCfg, Arc<GuestRam>) {
    let ram = Arc::new(GuestRam::new(1 << 16).unwrap());
    let note = FwCfgFile { writable: true, ..FwCfgFile::new("etc/note", *b"0123456789") };
    let files = vec![note, FwCfgFile::new("etc/b", *b"b"), FwCfgFile::new("etc/a", *b"a")];
    let config = FwCfgConfig { ram_bytes: ram.size(), cpus: 1, files };
    (FwCfg::new(config, Arc::clone(&ram)), ram)
}

/// Runs a transfer through the two 32-bit halves; what control says afterwards.
fn dma(device: &mut FwCfg, ram: &GuestRam, control: u32, length: u32, address: u64) -> u32 {
    let mut bytes = control.to_be_bytes().to_vec();
    bytes.extend(length.to_be_bytes());
    bytes.extend(address.to_be_bytes());
    assert!(ram.write(GuestAddr(AT), &bytes));
    device.write(1, 0, 4, 0, T);
    device.write(1, 4, 4, u64::from((AT as u32).swap_bytes()), T);
    let mut word = [0; 4];
    assert!(ram.read(GuestAddr(AT), &mut word));
    u32::from_be_bytes(word)
}

fn bytes(ram: &GuestRam, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    assert!(ram.read(GuestAddr(at), &mut bytes));
    bytes
}

#[test]
fn only_16_bit_writes_select_and_both_ports_read_data() {
    let (mut device, _ram) = rig();
    device.write(0, 0, 2, 0, T);
    assert_eq!((device.read(0, 1, 1, T), device.read(0, 0, 1, T)), (0x51, 0x45));
    device.write(0, 0, 1, 1, T);
    device.write(0, 1, 1, 1, T);
    assert_eq!((device.read(0, 1, 1, T), device.read(0, 0, 2, T)), (0x4d, 0));
    device.reset(T);
    assert_eq!(device.read(0, 1, 1, T), 0x51);
}

#[test]
fn dma_reads_zero_fill_and_go_on_where_they_stopped() {
    let (mut device, ram) = rig();
    ram.write(GuestAddr(BUFFER), &[0xee; 64]);
    let select = NOTE << 16 | FW_CFG_DMA_CTL_SELECT;
    assert_eq!(dma(&mut device, &ram, select | FW_CFG_DMA_CTL_READ, 4, BUFFER), 0);
    assert_eq!(bytes(&ram, BUFFER, 5), *b"0123\xee");
    assert_eq!(dma(&mut device, &ram, FW_CFG_DMA_CTL_SKIP, 3, 0), 0);
    assert_eq!(device.read(0, 1, 1, T), u64::from(b'7'));
    assert_eq!(dma(&mut device, &ram, FW_CFG_DMA_CTL_READ, 8, BUFFER), 0);
    assert_eq!(bytes(&ram, BUFFER, 9), *b"89\0\0\0\0\0\0\xee");
    // Skipping past the end is no error, and a selector without an item reads as zeros.
    assert_eq!(dma(&mut device, &ram, FW_CFG_DMA_CTL_SKIP, u32::MAX, 0), 0);
    let nothing = 0x3ffe_0000 | FW_CFG_DMA_CTL_SELECT | FW_CFG_DMA_CTL_READ;
    assert_eq!(dma(&mut device, &ram, nothing, 9, BUFFER), 0);
    assert_eq!(bytes(&ram, BUFFER, 10), *b"\0\0\0\0\0\0\0\0\0\xee");
    // Control without an operation only selects.
    assert_eq!(dma(&mut device, &ram, select, u32::MAX, u64::MAX), 0);
    assert_eq!(device.read(0, 1, 1, T), u64::from(b'0'));
}

#[test]
fn dma_writes_only_what_is_writable_and_only_whole() {
    let (mut device, ram) = rig();
    ram.write(GuestAddr(BUFFER), b"abcdefghijklmnop");
    let write = |item: u32| item << 16 | FW_CFG_DMA_CTL_SELECT | FW_CFG_DMA_CTL_WRITE;
    assert_eq!(dma(&mut device, &ram, write(NOTE), 10, BUFFER), 0);
    assert_eq!(dma(&mut device, &ram, FW_CFG_DMA_CTL_WRITE, 1, BUFFER), FW_CFG_DMA_CTL_ERROR);
    assert_eq!(dma(&mut device, &ram, write(NOTE), 11, BUFFER), FW_CFG_DMA_CTL_ERROR);
    assert_eq!(dma(&mut device, &ram, write(0x20), 1, BUFFER), FW_CFG_DMA_CTL_ERROR);
    assert_eq!(dma(&mut device, &ram, write(NOTE), 4, u64::MAX - 1), FW_CFG_DMA_CTL_ERROR);
    device.reset(T);
    device.write(0, 0, 2, NOTE.into(), T);
    let read: Vec<u8> = (0..10).map(|_| device.read(0, 1, 1, T) as u8).collect();
    assert_eq!(read, b"abcdefghij");
}

#[test]
fn hostile_addresses_and_lengths_are_errors_that_touch_nothing() {
    let (mut device, ram) = rig();
    let end = ram.size();
    ram.write(GuestAddr(end - 8), &[0xee; 8]);
    let read = FW_CFG_DMA_CTL_READ;
    for (length, address) in
        [(9, end - 8), (u32::MAX, 0), (1, end), (1, u64::MAX), (u32::MAX, u64::MAX - 5)]
    {
        assert_eq!(dma(&mut device, &ram, read, length, address), FW_CFG_DMA_CTL_ERROR);
    }
    assert_eq!(bytes(&ram, end - 8, 8), [0xee; 8]);
    // A structure of which only the first word is in RAM says so there; one outside, nowhere.
    for at in [end - 4, end, u64::MAX - 3] {
        device.write(1, 0, 8, at.swap_bytes(), T);
    }
    assert_eq!(bytes(&ram, end - 4, 4), [0, 0, 0, 1]);
    // A transfer over its own description: the result is written last.
    assert_eq!(dma(&mut device, &ram, read | 8 | 0x19_0000, 64, AT), 0);
}

#[test]
fn walks_repeat() {
    let run = || walk(&mut rig().0, &[2, 8], &mut SeededSteps(Prng::new(4), 1_000_000));
    assert_eq!(run(), run());
}

/// The DMA region is big endian, and QEMU's log has its values the right way round: of those only the
/// number of transfers could be replayed, and none is read.
#[test]
fn seabios_reads_what_it_read_on_qemu() {
    for log in
        ["seabios/boot-tcg.log.xz", "seabios/boot-tcg-ts.log.xz", "guest/virtio-raw-mmio.trace.xz"]
    {
        let Some(accesses) = recorded::accesses(log, &["fwcfg"]) else { return };
        recorded::replay(&mut rig().0, &[(0x510, 2)], &accesses);
    }
}
