//! A virtio block device over a vector, with knobs for lies.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::base::GuestAddr;
use crate::machine::GuestRam;

/// A queue as the device knows it.
#[derive(Default)]
pub struct FakeQueue {
    pub size: u16,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    pub vector: u16,
    pub enabled: bool,
    next_avail: u16,
    pub used_idx: u16,
}

/// The device. Public fields are the script.
pub struct FakeBlk {
    ram: Arc<GuestRam>,
    pub disk: Vec<u8>,
    pub offered: u64,
    pub accepted: u64,
    pub status: u8,
    pub isr: u8,
    pub config: [u8; 60],
    pub queue_max: u16,
    pub queues: Vec<FakeQueue>,
    pub modern_bar: usize,
    /// Vectors to signal, and whether the pin rose.
    pub raised: Vec<u16>,
    /// The pending bits, at 0x800 behind the MSI-X table.
    pub pending: u32,
    pub line_rose: bool,
    pub notifications: usize,
    pub interrupts: usize,
    /// Lies.
    pub refuses_features: bool,
    pub refuses_vectors: bool,
    pub never_resets: bool,
    pub restless_config: bool,
    pub used_extra: u32,
    pub silent_status: bool,
    pub loses_interrupts: bool,
    generation: u8,
    device_select: u32,
    driver_select: u32,
    queue_select: usize,
    table: [u8; 128],
}

impl FakeBlk {
    pub fn new(ram: Arc<GuestRam>) -> Self {
        let mut config = [0; 60];
        config[0..8].copy_from_slice(&2048u64.to_le_bytes());
        config[8..12].copy_from_slice(&(64u32 << 10).to_le_bytes()); // size_max
        config[12..16].copy_from_slice(&16u32.to_le_bytes()); // seg_max
        config[20..24].copy_from_slice(&512u32.to_le_bytes());
        config[34..36].copy_from_slice(&4u16.to_le_bytes());
        config[36..40].copy_from_slice(&1024u32.to_le_bytes());
        config[48..52].copy_from_slice(&512u32.to_le_bytes());
        config[56] = 1;
        let offered = (1 << 1) | (1 << 2) | (1 << 6) | (1 << 9) | (1 << 12) | (1 << 13) | (1 << 14);
        let offered = offered | (1 << 28) | (1 << 29) | (1 << 32) | (1 << 24);
        let mut blk = Self {
            ram,
            disk: vec![0; 1 << 20],
            offered,
            accepted: 0,
            status: 0,
            isr: 0,
            config,
            queue_max: 64,
            queues: Vec::new(),
            modern_bar: 4,
            raised: Vec::new(),
            pending: 0,
            line_rose: false,
            notifications: 0,
            interrupts: 0,
            refuses_features: false,
            refuses_vectors: false,
            never_resets: false,
            restless_config: false,
            used_extra: 0,
            silent_status: false,
            loses_interrupts: false,
            generation: 0,
            device_select: 0,
            driver_select: 0,
            queue_select: 0,
            table: [0; 128],
        };
        blk.reset();
        blk
    }

    fn reset(&mut self) {
        self.queues = (0..4)
            .map(|_| FakeQueue { size: self.queue_max, vector: 0xffff, ..FakeQueue::default() })
            .collect();
        (self.accepted, self.isr) = (0, 0);
        self.status = if self.never_resets { 0x0f } else { 0 };
    }

    fn set_status(&mut self, value: u8) {
        if value == 0 {
            return self.reset();
        }
        let unknown = self.accepted & !self.offered != 0;
        let refused = (self.refuses_features || unknown) && value & 8 != 0;
        self.status = if refused { value & !8 } else { value };
    }

    fn queue(&mut self) -> Option<&mut FakeQueue> {
        self.queues.get_mut(self.queue_select)
    }

    fn config_read(&mut self, at: u64, size: u8) -> u32 {
        let mut value = [0; 4];
        for (index, byte) in value.iter_mut().take(usize::from(size)).enumerate() {
            *byte = self.config.get(at as usize + index).copied().unwrap_or(0);
        }
        if self.restless_config {
            self.generation = self.generation.wrapping_add(1);
            self.config[0] = self.config[0].wrapping_add(1);
        }
        u32::from_le_bytes(value)
    }

    fn set_vector(&mut self, value: u16) {
        let refuse = self.refuses_vectors || value >= 8;
        if let Some(queue) = self.queue() {
            queue.vector = if refuse { 0xffff } else { value };
        }
    }

    pub fn modern_read(&mut self, at: u64, size: u8) -> u32 {
        let queue = self.queue().map(|q| (q.size, q.vector)).unwrap_or_default();
        match at {
            0x04 if self.device_select < 2 => (self.offered >> (32 * self.device_select)) as u32,
            0x12 => self.queues.len() as u32,
            0x14 => u32::from(self.status),
            0x15 => u32::from(self.generation),
            0x18 => u32::from(queue.0),
            0x1a => u32::from(queue.1),
            0x1e => self.queue_select as u32,
            0x1000 => u32::from(std::mem::take(&mut self.isr)),
            0x2000..0x2100 => self.config_read(at - 0x2000, size),
            _ => 0,
        }
    }

    /// A write to the modern structures; the queue that was notified.
    pub fn modern_write(&mut self, at: u64, _size: u8, value: u32) -> Option<usize> {
        let half = |word: &mut u64, high: bool| {
            let shift = if high { 32 } else { 0 };
            *word = (*word & !(0xffff_ffff << shift)) | u64::from(value) << shift;
        };
        match at {
            0x00 => self.device_select = value,
            0x08 => self.driver_select = value,
            0x0c => half(&mut self.accepted, self.driver_select == 1),
            0x14 => self.set_status(value as u8),
            0x16 => self.queue_select = value as usize,
            0x18 => self.queue().into_iter().for_each(|q| q.size = value as u16),
            0x1a => self.set_vector(value as u16),
            0x1c => self.queue().into_iter().for_each(|q| q.enabled = value == 1),
            0x20 | 0x24 => self.queue().into_iter().for_each(|q| half(&mut q.desc, at == 0x24)),
            0x28 | 0x2c => self.queue().into_iter().for_each(|q| half(&mut q.avail, at == 0x2c)),
            0x30 | 0x34 => self.queue().into_iter().for_each(|q| half(&mut q.used, at == 0x34)),
            0x3000.. if (at - 0x3000) / 4 == u64::from(value) => return Some(value as usize),
            _ => {}
        }
        None
    }

    pub fn legacy_read(&mut self, at: u64, size: u8, msix: bool) -> u32 {
        let queue = self.queue().map(|q| (q.size, q.desc, q.vector)).unwrap_or_default();
        let config = if msix { 24 } else { 20 };
        match at {
            0 => self.offered as u32,
            8 => (queue.1 / 4096) as u32,
            12 => u32::from(queue.0),
            18 => u32::from(self.status),
            19 => u32::from(std::mem::take(&mut self.isr)),
            22 if msix => u32::from(queue.2),
            at if at >= config => self.config_read(at - config, size),
            _ => 0,
        }
    }

    /// A write to the legacy registers; the queue that was notified.
    pub fn legacy_write(&mut self, at: u64, _size: u8, value: u32) -> Option<usize> {
        match at {
            4 => self.accepted = u64::from(value),
            8 => self.queue().into_iter().for_each(|q| {
                // The layout of §2.7.2, reckoned anew.
                let n = u64::from(q.size);
                q.desc = u64::from(value) * 4096;
                q.avail = q.desc + 16 * n;
                q.used = (q.avail + 6 + 2 * n).div_ceil(4096) * 4096;
                q.enabled = value != 0;
            }),
            14 => self.queue_select = value as usize,
            16 => return Some(value as usize),
            18 => self.set_status(value as u8),
            22 => self.set_vector(value as u16),
            _ => {}
        }
        None
    }

    pub fn table_read(&self, at: u64, _size: u8) -> u64 {
        u64::from(if at == 0x800 { self.pending } else { self.word(at as usize) })
    }

    pub fn table_write(&mut self, at: u64, size: u8, value: u64) {
        let size = usize::from(size);
        self.table[at as usize..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
    }

    fn word(&self, at: usize) -> u32 {
        let bytes: [u8; 4] = self.table[at..at + 4].try_into().unwrap();
        u32::from_le_bytes(bytes)
    }

    /// The message of an unmasked vector.
    pub fn message(&self, vector: u16) -> Option<(u64, u32)> {
        let at = usize::from(vector) * 16;
        let addr = u64::from(self.word(at)) | u64::from(self.word(at + 4)) << 32;
        (self.word(at + 12) & 1 == 0).then(|| (addr, self.word(at + 8)))
    }

    fn get<const N: usize>(&self, addr: u64) -> [u8; N] {
        let mut bytes = [0; N];
        assert!(self.ram.read(GuestAddr(addr), &mut bytes), "device reads outside RAM: {addr:#x}");
        bytes
    }

    fn u16_at(&self, addr: u64) -> u16 {
        self.ram.load_u16(GuestAddr(addr))
    }

    /// Serves everything available on a queue.
    pub fn run(&mut self, index: usize) {
        if self.status & 4 == 0 || !self.queues[index].enabled {
            return;
        }
        let event_idx = self.accepted & 1 << 29 != 0;
        loop {
            let q = &self.queues[index];
            if q.next_avail == self.u16_at(q.avail + 2) {
                let event = q.used + 4 + 8 * u64::from(q.size);
                self.ram.store_u16(GuestAddr(event), q.next_avail);
                fence(Ordering::SeqCst);
                if q.next_avail == self.u16_at(q.avail + 2) {
                    return;
                }
            }
            let slot = u64::from(q.next_avail % q.size);
            let head = self.u16_at(q.avail + 4 + 2 * slot);
            let chain = self.chain(index, head);
            let written = self.serve(&chain);
            self.queues[index].next_avail = self.queues[index].next_avail.wrapping_add(1);
            self.push_used(index, u32::from(head), written + self.used_extra);
            self.interrupt(index, event_idx);
        }
    }

    /// Puts an element on the used ring, true or not.
    pub fn push_used(&mut self, index: usize, id: u32, len: u32) {
        let q = &mut self.queues[index];
        let element = q.used + 4 + 8 * u64::from(q.used_idx % q.size);
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&id.to_le_bytes());
        bytes[4..].copy_from_slice(&len.to_le_bytes());
        self.ram.write(GuestAddr(element), &bytes);
        q.used_idx = q.used_idx.wrapping_add(1);
        self.ram.store_u16(GuestAddr(q.used + 2), q.used_idx);
        fence(Ordering::SeqCst);
    }

    fn interrupt(&mut self, index: usize, event_idx: bool) {
        let q = &self.queues[index];
        let wanted = if event_idx {
            self.u16_at(q.avail + 4 + 2 * u64::from(q.size)) == q.used_idx.wrapping_sub(1)
        } else {
            self.u16_at(q.avail) & 1 == 0
        };
        if !wanted || self.loses_interrupts {
            return;
        }
        self.interrupts += 1;
        if q.vector != 0xffff {
            self.raised.push(q.vector);
        } else {
            self.line_rose |= self.isr == 0;
            self.isr |= 1;
        }
    }

    /// The buffers of a chain: (address, length, device writes).
    fn chain(&self, index: usize, head: u16) -> Vec<(u64, u32, bool)> {
        let mut parts = Vec::new();
        let (mut table, mut at) = (self.queues[index].desc, u64::from(head));
        loop {
            let raw: [u8; 16] = self.get(table + 16 * at);
            let addr = u64::from_le_bytes(raw[..8].try_into().unwrap());
            let len = u32::from_le_bytes(raw[8..12].try_into().unwrap());
            let flags = u16::from_le_bytes(raw[12..14].try_into().unwrap());
            if flags & 4 != 0 {
                assert!(self.accepted & 1 << 28 != 0, "indirect without the feature");
                assert_eq!(flags, 4, "§2.7.5.3.1: an indirect descriptor has no other flag");
                (table, at) = (addr, 0);
                continue;
            }
            parts.push((addr, len, flags & 2 != 0));
            assert!(parts.len() <= usize::from(self.queues[index].size), "chain too long");
            if flags & 1 == 0 {
                return parts;
            }
            at = u64::from(u16::from_le_bytes(raw[14..16].try_into().unwrap()));
        }
    }

    /// Carries out a request; bytes written.
    fn serve(&mut self, chain: &[(u64, u32, bool)]) -> u32 {
        let [(header, 16, false), data @ .., (status, 1, true)] = chain else {
            panic!("not a block request: {chain:?}");
        };
        let raw: [u8; 16] = self.get(*header);
        let kind = u32::from_le_bytes(raw[..4].try_into().unwrap());
        let mut at = u64::from_le_bytes(raw[8..].try_into().unwrap()) as usize * 512;
        assert!(data.iter().all(|part| part.1 <= 64 << 10), "§5.2.6.1: segments over size_max");
        assert_eq!(self.get::<1>(*status), [0xff], "the status byte was not prepared");
        let mut written = 1;
        for (addr, len, writes) in data {
            let len = *len as usize;
            let mut bytes = vec![0; len];
            self.ram.read(GuestAddr(*addr), &mut bytes);
            match (kind, writes) {
                (0, true) => self.ram.write(GuestAddr(*addr), &self.disk[at..at + len]),
                (1, false) => {
                    self.disk[at..at + len].copy_from_slice(&bytes);
                    true
                }
                (8, true) => self.ram.write(GuestAddr(*addr), b"fake-disk\0\0\0\0\0\0\0\0\0\0\0"),
                (11 | 13, false) => {
                    let sector = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
                    let count = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
                    self.disk[sector * 512..][..count * 512].fill(0);
                    true
                }
                other => panic!("request type {} with a wrong buffer {}", other.0, other.1),
            };
            at += len;
            written += if *writes { len as u32 } else { 0 };
        }
        if !self.silent_status {
            self.ram.write(GuestAddr(*status), &[0]);
        }
        written
    }
}
