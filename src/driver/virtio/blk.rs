//! The virtio block driver (virtio 1.2 §5.2).

use super::blk_config::BlkConfig;
use super::blk_queue::{Data, QueueOptions, RequestQueue, WireRequest};
use super::blk_wait::INTERRUPT_PATIENCE_NS;
use super::device::{VirtioDevice, Wanted};
use super::ring_memory;
use super::spec::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ,
    VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_EVENT_IDX,
    VIRTIO_F_INDIRECT_DESC, VIRTIO_F_VERSION_1, VIRTIO_PCI_DEVICE_BLOCK,
    VIRTIO_PCI_DEVICE_BLOCK_TRANSITIONAL,
};
use crate::base::{BlockOp, Error, Nanos, Result, SECTOR_SIZE};
use crate::driver::alloc::PageAllocator;
use crate::driver::{BlockDriver, BlockLimits, BlockRequest, Buffer, Completion, Submitted};
use crate::machine::Machine;

/// Features of every device this driver takes when they are offered.
const FEATURES: u64 = VIRTIO_F_VERSION_1
    | VIRTIO_F_ACCESS_PLATFORM
    | VIRTIO_BLK_F_SIZE_MAX
    | VIRTIO_BLK_F_SEG_MAX
    | VIRTIO_BLK_F_RO
    | VIRTIO_BLK_F_BLK_SIZE
    | VIRTIO_BLK_F_FLUSH
    | VIRTIO_BLK_F_DISCARD
    | VIRTIO_BLK_F_WRITE_ZEROES;

/// Which register interface is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Modern where the device has it, else legacy.
    #[default]
    Auto,
    /// virtio 1.x.
    Modern,
    /// Before 1.0; transitional devices have it too.
    Legacy,
}

/// How the driver learns of completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompletionMode {
    /// By looking at the used rings; interrupts are suppressed.
    #[default]
    Poll,
    /// By MSI-X or INTx.
    Interrupt,
}

/// How a device is driven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioBlkOptions {
    /// Which of the machine's virtio-blk devices, in the order of enumeration.
    pub index: usize,
    /// Register interface.
    pub transport: Transport,
    /// Request queues wanted; fewer when the device has fewer.
    pub queues: u16,
    /// Entries of a queue wanted: cut to a power of two and to what the device has; 0: all it has.
    /// A legacy device's queues have the size they have.
    pub queue_size: u16,
    /// How completions are learnt of.
    pub completion: CompletionMode,
    /// Use indirect descriptors when offered.
    pub indirect: bool,
    /// Use `VIRTIO_F_EVENT_IDX` when offered.
    pub event_idx: bool,
    /// Largest transfer wanted.
    pub transfer_bytes_max: usize,
}

impl Default for VirtioBlkOptions {
    fn default() -> Self {
        Self {
            index: 0,
            transport: Transport::Auto,
            queues: 1,
            queue_size: 256,
            completion: CompletionMode::Poll,
            indirect: true,
            event_idx: true,
            transfer_bytes_max: 1 << 20,
        }
    }
}

/// A virtio block device with this driver on it.
#[derive(Debug)]
pub struct VirtioBlk {
    pub(super) device: VirtioDevice,
    pub(super) pool: PageAllocator,
    pub(super) queues: Vec<RequestQueue>,
    limits: BlockLimits,
    pub(super) completion: CompletionMode,
    /// How late an interrupt may be after its completion before it counts as lost.
    pub(super) interrupt_patience_ns: u64,
    in_flight: usize,
    live: bool,
}

impl VirtioBlk {
    /// Finds the device (on a PCI bus, assigning BARs where firmware has not), agrees on
    /// features, sets up its queues and lets it run. All of guest RAM from 1 MiB is the
    /// driver's.
    ///
    /// # Errors
    /// A machine error when the device is missing, lies, or RAM does not suffice.
    pub fn probe(machine: &mut dyn Machine, options: &VirtioBlkOptions) -> Result<Self> {
        let pool = PageAllocator::new(machine.ram()?, options.transfer_bytes_max)?;
        Self::probe_in(machine, options, pool)
    }

    /// As [`VirtioBlk::probe`], with pages from `pool`: for several drivers on one machine.
    ///
    /// # Errors
    /// As [`VirtioBlk::probe`].
    pub fn probe_in(
        machine: &mut dyn Machine,
        options: &VirtioBlkOptions,
        mut pool: PageAllocator,
    ) -> Result<Self> {
        let ids = [VIRTIO_PCI_DEVICE_BLOCK_TRANSITIONAL, VIRTIO_PCI_DEVICE_BLOCK];
        let VirtioBlkOptions { index, transport, completion, queues, .. } = *options;
        let wanted = Wanted { ids: &ids, index, transport, completion, queues };
        let mut device = VirtioDevice::open(machine, wanted)?;
        match start(machine, &mut device, &mut pool, options) {
            Ok((limits, queues)) => Ok(Self {
                device,
                pool,
                queues,
                limits,
                completion,
                interrupt_patience_ns: INTERRUPT_PATIENCE_NS,
                in_flight: 0,
                live: true,
            }),
            Err(error) => {
                // Why it did not start says more than what came of ending it.
                let _ = device.fail(machine);
                Err(error)
            }
        }
    }

    /// The features agreed on.
    pub fn features(&self) -> u64 {
        self.device.features
    }

    /// The device's name: `00:04.0 1af4:1001`.
    pub fn name(&self) -> String {
        self.device.name()
    }

    /// The interface that it is driven by: `modern`, `legacy`, `vhost-user`.
    pub fn interface(&self) -> &'static str {
        self.device.transport.interface()
    }

    /// Whether the device runs by the legacy interface.
    pub fn is_legacy(&self) -> bool {
        self.device.transport.is_legacy()
    }

    /// Where the used ring of a queue lies.
    #[cfg(test)]
    pub fn used_ring(&self, queue: usize) -> crate::base::GuestAddr {
        self.queues[queue].ring.layout().used
    }

    /// Whether any ring holds something to reap.
    #[inline]
    pub(super) fn any_used(&self) -> bool {
        self.queues.iter().any(|queue| queue.ring.has_used())
    }

    /// Translates a request, checked against the device's limits.
    #[inline]
    fn wire(&self, request: &BlockRequest, buffer: Option<&Buffer>) -> Result<WireRequest> {
        let BlockRequest { op, sector, sectors, unmap } = *request;
        let limits = &self.limits;
        let bytes = u64::from(sectors) * SECTOR_SIZE;
        let within = sector
            .checked_add(u64::from(sectors))
            .is_some_and(|end| end <= limits.capacity_sectors && sectors > 0);
        let transfer = within && bytes <= limits.transfer_bytes_max as u64;
        let (addr, room) = match buffer {
            Some(buffer) if self.pool.owns(buffer) => (buffer.addr.0, buffer.len as u64),
            _ => (0, 0),
        };
        let len = bytes as u32;
        let range = |flags| Data::Range { sector, sectors, flags };
        let (kind, header_sector, data, valid) = match op {
            BlockOp::Read => {
                (VIRTIO_BLK_T_IN, sector, Data::In { addr, len }, transfer && bytes <= room)
            }
            BlockOp::Write => {
                let valid = transfer && bytes <= room && !limits.read_only;
                (VIRTIO_BLK_T_OUT, sector, Data::Out { addr, len }, valid)
            }
            BlockOp::Flush => (VIRTIO_BLK_T_FLUSH, 0, Data::None, limits.flush),
            BlockOp::Discard => {
                let valid = within && sectors <= limits.discard_sectors_max && !unmap;
                (VIRTIO_BLK_T_DISCARD, 0, range(0), valid)
            }
            BlockOp::WriteZeroes => {
                let flags = if unmap { VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP } else { 0 };
                let valid = within && sectors <= limits.write_zeroes_sectors_max;
                (VIRTIO_BLK_T_WRITE_ZEROES, 0, range(flags), valid)
            }
            BlockOp::GetId => {
                let len = VIRTIO_BLK_ID_BYTES;
                (VIRTIO_BLK_T_GET_ID, 0, Data::In { addr, len }, u64::from(len) <= room)
            }
        };
        if valid && self.live {
            Ok(WireRequest { kind, sector: header_sector, data })
        } else {
            Err(self.refusal(request, room))
        }
    }

    #[cold]
    fn refusal(&self, request: &BlockRequest, room: u64) -> Error {
        if !self.live {
            return self.device.error("was shut down");
        }
        let BlockRequest { op, sector, sectors, .. } = *request;
        let limits = &self.limits;
        let writes = matches!(op, BlockOp::Write | BlockOp::Discard | BlockOp::WriteZeroes);
        if limits.read_only && writes {
            return self.device.error(format_args!(
                "is read-only: {op} of {sectors} sectors at {sector} is outside what the device takes"
            ));
        }
        self.device.error(format_args!(
            "{op} of {sectors} sectors at {sector} with a buffer of {room} bytes is outside what \
             the device takes: {} sectors in all, {} bytes at once; discard of {} and write-zeroes \
             of {} sectors; flush {}",
            limits.capacity_sectors,
            limits.transfer_bytes_max,
            limits.discard_sectors_max,
            limits.write_zeroes_sectors_max,
            if limits.flush { "offered" } else { "not offered" },
        ))
    }

    /// Reaps every queue; how many completions came.
    #[inline]
    fn collect(&mut self, done: &mut Vec<Completion>) -> Result<usize> {
        let before = done.len();
        let mut result = Ok(());
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if let Err(error) = queue.reap(done) {
                let name = self.device.name();
                let text = format!("virtio-blk {name}, queue {index}");
                result = Err(Error::machine(text).source(error));
                break;
            }
        }
        let count = done.len() - before;
        self.in_flight -= count;
        result.map(|()| count)
    }
}

/// Steps 3 to 8 of §3.1.1 for a block device.
fn start(
    machine: &mut dyn Machine,
    device: &mut VirtioDevice,
    pool: &mut PageAllocator,
    options: &VirtioBlkOptions,
) -> Result<(BlockLimits, Vec<RequestQueue>)> {
    let feature = |on: bool, bit: u64| if on { bit } else { 0 };
    let wanted = FEATURES
        | feature(options.indirect, VIRTIO_F_INDIRECT_DESC)
        | feature(options.event_idx, VIRTIO_F_EVENT_IDX)
        | feature(options.queues > 1, VIRTIO_BLK_F_MQ);
    device.negotiate(machine, wanted)?;
    let config = BlkConfig::read(device, machine)?;
    let offered = device.transport.queues(machine)?;
    let count = options.queues.max(1).min(config.num_queues).min(offered);
    if count == 0 {
        return Err(device.error("has no queues"));
    }
    let mut rings = Vec::with_capacity(usize::from(count));
    for index in 0..count {
        rings.push(device.queue(machine, pool, index, options.queue_size)?);
    }
    // No chain may be longer than its queue, even through an indirect table (§2.7.5.3.1).
    let size = rings.iter().map(|(ring, _)| ring.size()).min().unwrap_or(0);
    let indirect = device.features & VIRTIO_F_INDIRECT_DESC != 0;
    let segments = config.segments(u64::from(size));
    let mut limits = config.limits(device, options.transfer_bytes_max, segments)?;
    limits.queues = count;
    limits.depth_max = usize::from(if indirect { size } else { size / 3 });
    let queue_options = QueueOptions {
        size_max: config.size_max,
        segments: limits.transfer_bytes_max.div_ceil(config.size_max as usize) as u64,
        indirect,
        strict_lengths: !device.transport.is_legacy(),
    };
    let queues = rings
        .into_iter()
        .map(|(ring, doorbell)| RequestQueue::new(pool, ring, doorbell, queue_options))
        .collect::<Result<Vec<_>>>()?;
    device.driver_ok(machine)?;
    Ok((limits, queues))
}

impl BlockDriver for VirtioBlk {
    fn limits(&self) -> &BlockLimits {
        &self.limits
    }

    #[inline]
    fn buffer(&mut self, len: usize) -> Option<Buffer> {
        self.pool.alloc(len)
    }

    #[inline]
    fn release(&mut self, buffer: Buffer) {
        self.pool.free(buffer);
    }

    #[inline]
    fn bytes<'a>(&'a self, buffer: &'a Buffer) -> &'a [u8] {
        ring_memory::bytes(&self.pool, buffer)
    }

    #[inline]
    fn bytes_mut<'a>(&'a mut self, buffer: &'a mut Buffer) -> &'a mut [u8] {
        ring_memory::bytes_mut(&mut self.pool, buffer)
    }

    #[inline]
    fn submit(
        &mut self,
        queue: u16,
        token: u64,
        request: &BlockRequest,
        buffer: Option<Buffer>,
    ) -> Result<Submitted> {
        let wire = match self.wire(request, buffer.as_ref()) {
            Ok(wire) => wire,
            Err(error) => {
                buffer.map(|buffer| self.pool.free(buffer));
                return Err(error);
            }
        };
        let count = self.queues.len();
        let index = if count == 1 { 0 } else { usize::from(queue) % count };
        match self.queues[index].submit(token, &wire, buffer) {
            Ok(()) => {
                self.in_flight += 1;
                Ok(Submitted::Queued)
            }
            Err(buffer) => Ok(Submitted::Full(buffer)),
        }
    }

    #[inline]
    fn kick(&mut self, machine: &mut dyn Machine) -> Result<()> {
        for queue in &mut self.queues {
            if queue.ring.publish() {
                queue.doorbell.ring(machine)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn reap(&mut self, machine: &mut dyn Machine, done: &mut Vec<Completion>) -> Result<()> {
        // A device in this thread finishes I/O only when it is polled.
        if self.collect(done)? == 0 && self.in_flight > 0 && machine.poll()? {
            self.collect(done)?;
        }
        Ok(())
    }

    fn wait(&mut self, machine: &mut dyn Machine, deadline: Option<Nanos>) -> Result<()> {
        self.wait_for_completion(machine, deadline)
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn shutdown(&mut self, machine: &mut dyn Machine) -> Result<()> {
        if !std::mem::take(&mut self.live) {
            return Ok(());
        }
        let done = self.device.shutdown(machine);
        // A device that did not finish its reset may still write: its buffers stay unused.
        if done.is_ok() {
            for queue in &mut self.queues {
                for buffer in queue.abandon() {
                    self.pool.free(buffer);
                }
            }
        }
        self.queues.clear();
        self.in_flight = 0;
        done
    }
}
