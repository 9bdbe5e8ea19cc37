//! A driver with nothing but the protocol: every byte of guest memory goes through the socket, and
//! every command is waited for. Legacy virtio (virtio 1.2 §4.1.4.10), split ring (§2.7).

use std::time::Instant;

use qtrace::base::GuestAddr;
use qtrace::driver::pci::ConfigAccess;
use qtrace::driver::pci::scan::scan;
use qtrace::machine::qemu::QemuMachine;
use qtrace::machine::qemu::command::Command;
use qtrace::machine::qemu::reply;
use qtrace::machine::{Bus, Machine};

use crate::{REQUEST_BYTES, sector};

/// The ring, in a page-aligned place that nothing else uses.
const RING: u64 = 32 << 20;
/// Requests: a header, the data, the status byte.
const REQUESTS: u64 = 33 << 20;
const REQUEST_STRIDE: u64 = 8192;
const HEADER_BYTES: u64 = 16;
/// Entries of a legacy QEMU queue.
const SIZE: u64 = 256;
const AVAIL: u64 = RING + 16 * SIZE;
const USED: u64 = (AVAIL + 6 + 2 * SIZE).next_multiple_of(4096);

pub struct Driver {
    port: u16,
}

impl Driver {
    pub fn new(machine: &mut QemuMachine) -> Self {
        let bus = machine.bus().expect("a bus");
        let functions = scan(bus, ConfigAccess::Ports).expect("functions");
        let disk = functions.iter().find(|f| f.vendor == 0x1af4 && f.device == 0x1001);
        let port = disk.expect("a disk").read(bus, 0x10, 4) as u16 & !3;
        let zeros = vec![0; (USED - RING) as usize + 4096];
        machine.qtest(|client| client.write(RING, &zeros)).expect("an empty ring");
        let bus = machine.bus().expect("a bus");
        for status in [0, 1, 3] {
            bus.pio_write(port + 18, 1, status);
        }
        // Flush: else every write is synced.
        bus.pio_write(port + 4, 4, 1 << 9);
        bus.pio_write(port + 14, 2, 0);
        assert_eq!(u64::from(bus.pio_read(port + 12, 2)), SIZE);
        bus.pio_write(port + 8, 4, (RING >> 12) as u32);
        bus.pio_write(port + 18, 1, 7);
        Self { port }
    }

    /// Requests a second; `count` is a multiple of `depth`.
    pub fn read(&self, machine: &mut QemuMachine, depth: usize, count: u64) -> f64 {
        let depth = depth as u64;
        let start = Instant::now();
        let mut used = machine.mmio_read(GuestAddr(USED + 2), 2) as u16;
        for first in (0..count).step_by(depth as usize) {
            for slot in 0..depth {
                self.submit(machine, slot, first + slot);
            }
            machine.pio_write(self.port + 16, 2, 0);
            used = used.wrapping_add(depth as u16);
            while machine.mmio_read(GuestAddr(USED + 2), 2) as u16 != used {}
            for slot in 0..depth {
                Self::finish(machine, slot);
            }
        }
        count as f64 / start.elapsed().as_secs_f64()
    }

    fn submit(&self, machine: &mut QemuMachine, slot: u64, n: u64) {
        let at = REQUESTS + slot * REQUEST_STRIDE;
        let mut header = [0; HEADER_BYTES as usize];
        header[8..].copy_from_slice(&sector(n).to_le_bytes());
        let write = |bytes: &[u8], addr| {
            let command = Command::WriteHex(addr, bytes);
            machine.qtest(|client| client.order(&command)).expect("written");
        };
        write(&header, at);
        write(&[0xff], at + HEADER_BYTES + u64::from(REQUEST_BYTES));
        let data = at + HEADER_BYTES;
        let head = slot * 3;
        let chain = [
            (at, HEADER_BYTES as u32, 1),
            (data, REQUEST_BYTES, 3),
            (data + u64::from(REQUEST_BYTES), 1, 2),
        ];
        for (index, (addr, len, flags)) in (head..).zip(chain) {
            let descriptor = RING + 16 * index;
            machine.mmio_write(GuestAddr(descriptor), 8, addr);
            machine.mmio_write(GuestAddr(descriptor + 8), 4, len.into());
            machine.mmio_write(GuestAddr(descriptor + 12), 2, flags);
            machine.mmio_write(GuestAddr(descriptor + 14), 2, index + 1);
        }
        let index = machine.mmio_read(GuestAddr(AVAIL + 2), 2);
        machine.mmio_write(GuestAddr(AVAIL + 4 + 2 * (index % SIZE)), 2, head);
        machine.mmio_write(GuestAddr(AVAIL + 2), 2, index + 1);
    }

    fn finish(machine: &mut QemuMachine, slot: u64) {
        let at = REQUESTS + slot * REQUEST_STRIDE + HEADER_BYTES;
        let len = u64::from(REQUEST_BYTES);
        assert_eq!(machine.mmio_read(GuestAddr(at + len), 1), 0, "status");
        let command = Command::ReadHex { addr: at, len };
        let take = |text: &str| reply::hex(text, REQUEST_BYTES as usize);
        machine.qtest(|client| client.request(&command, take)).expect("data");
    }
}
