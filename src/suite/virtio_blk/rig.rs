//! A virtio block device driven descriptor by descriptor.

use std::sync::Arc;

use crate::base::{Error, GuestAddr, Nanos, Result};
use crate::driver::alloc::PageAllocator;
use crate::driver::pci::{ConfigAccess, Function, enumerate};
use crate::driver::virtio::device::{VirtioDevice, Wanted};
use crate::driver::virtio::queue::{RawDescriptor, SplitQueue, Used};
use crate::driver::virtio::spec::*;
use crate::driver::virtio::transport::Doorbell;
use crate::driver::virtio::{CompletionMode, Transport};
use crate::machine::{Capabilities, GuestRam, IrqEvent, Machine};
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

/// Offsets in the rig's own memory. The header of the request in hand …
pub(super) const HEADER: u64 = 0;
/// … the status byte …
pub(super) const STATUS: u64 = 0x100;
/// … room for indirect tables …
pub(super) const TABLE: u64 = 0x1000;
/// … and its data.
pub(super) const DATA: u64 = 0x10000;
const AREA_BYTES: u64 = 2 * DATA;

/// What the driver puts in the status byte: no device answers with it.
const STATUS_UNTOUCHED: u8 = 0xff;

/// A device in another process is looked at without a pause for so long: most answer by then.
const YIELDS: Nanos = Nanos(1_000_000);
/// Looks at a device that may need time, this far apart …
pub(super) const LOOK: Nanos = Nanos(1_000_000);
/// … and for so long.
const PATIENCE: Nanos = Nanos(1_000_000_000);

/// All that a request can need of a device.
pub(super) const USUAL: u64 = VIRTIO_F_VERSION_1
    | VIRTIO_F_INDIRECT_DESC
    | VIRTIO_BLK_F_SEG_MAX
    | VIRTIO_BLK_F_RO
    | VIRTIO_BLK_F_BLK_SIZE
    | VIRTIO_BLK_F_FLUSH
    | VIRTIO_BLK_F_DISCARD
    | VIRTIO_BLK_F_WRITE_ZEROES;

/// Virtio block devices, with and without a legacy interface.
const IDS: [u16; 2] = [VIRTIO_PCI_DEVICE_BLOCK_TRANSITIONAL, VIRTIO_PCI_DEVICE_BLOCK];

/// How many virtio disks the machine has.
pub(super) fn disks(thread: &mut TestThread<'_>) -> Outcome<usize> {
    let machine = thread.machine();
    if machine.capabilities().contains(Capabilities::VRINGS) {
        return Ok(machine.vrings()?.devices());
    }
    let found = enumerate(machine.bus()?, ConfigAccess::Ports)?;
    let ours = |f: &&Function| f.vendor == VIRTIO_PCI_VENDOR && IDS.contains(&f.device);
    Ok(found.iter().filter(ours).count())
}

/// How a device is brought up.
#[derive(Clone, Copy)]
pub(super) struct Start {
    /// Which of the module's disks.
    pub disk: usize,
    pub transport: Transport,
    pub completion: CompletionMode,
    pub features: u64,
    pub queues: u16,
    pub queue_size: u16,
    /// MSI-X vectors besides those of the queues.
    pub more_vectors: u16,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            disk: 0,
            transport: Transport::Modern,
            completion: CompletionMode::Poll,
            features: USUAL,
            queues: 1,
            queue_size: 64,
            more_vectors: 0,
        }
    }
}

/// A queue and how its device is told.
pub(super) struct Queue {
    pub ring: SplitQueue,
    pub doorbell: Doorbell,
}

impl Queue {
    /// Shows the device what was added, and rings whether it wants that or not.
    pub fn kick(&mut self, machine: &mut dyn Machine) -> Result<()> {
        self.ring.publish();
        self.doorbell.ring(machine)
    }
}

/// A request in the device's words.
#[derive(Clone, Copy, Default)]
pub(super) struct Request<'a> {
    /// `VIRTIO_BLK_T_*`.
    pub kind: u32,
    pub sector: u64,
    /// Data for the device.
    pub out: &'a [u8],
    /// Bytes wanted of it.
    pub into: u32,
}

/// The answer to a request.
pub(super) struct Answer {
    pub status: u8,
    /// Bytes that the device says it wrote.
    pub len: u32,
    /// The bytes that were wanted.
    pub data: Vec<u8>,
}

/// A device with its queues, and memory for one request.
pub(super) struct Rig {
    pub device: VirtioDevice,
    pub queues: Vec<Queue>,
    pub ram: Arc<GuestRam>,
    pool: PageAllocator,
    area: GuestAddr,
    start: Start,
}

impl Rig {
    /// Brings a disk up.
    pub fn start(thread: &mut TestThread<'_>, start: Start) -> Outcome<Self> {
        // A server that was there before has one disk.
        if thread.machine().capabilities().contains(Capabilities::VRINGS)
            && disks(thread)? <= start.disk
        {
            return thread.skip("the server has one disk, and this needs another kind");
        }
        let machine = thread.machine();
        let mut pool = PageAllocator::new(machine.ram()?, 4096)?;
        let area = pool.permanent(AREA_BYTES)?;
        let Start { disk: index, transport, completion, .. } = start;
        let queues = start.queues.saturating_add(start.more_vectors);
        let wanted = Wanted { ids: &IDS, index, transport, completion, queues };
        let device = VirtioDevice::open(machine, wanted)?;
        let ram = Arc::clone(pool.ram());
        let mut rig = Self { device, queues: Vec::new(), ram, pool, area, start };
        rig.set_up(thread)?;
        Ok(rig)
    }

    /// The plain disk, brought up as usual.
    pub fn usual(thread: &mut TestThread<'_>) -> Outcome<Self> {
        Self::start(thread, Start::default())
    }

    /// Steps 2 to 8 of virtio 1.2 §3.1.1.
    fn set_up(&mut self, thread: &mut TestThread<'_>) -> Outcome {
        let machine = thread.machine();
        self.device.negotiate(machine, self.start.features)?;
        self.queues.clear();
        for index in 0..self.start.queues {
            let size = self.start.queue_size;
            let (ring, doorbell) = self.device.queue(machine, &mut self.pool, index, size)?;
            self.queues.push(Queue { ring, doorbell });
        }
        Ok(self.device.driver_ok(machine)?)
    }

    /// Resets the device and brings it up again, with rings in other places.
    pub fn restart(&mut self, thread: &mut TestThread<'_>) -> Outcome {
        self.reset(thread)?;
        self.set_up(thread)
    }

    /// Writes status 0 and waits until it reads back (§4.1.4.3.2).
    pub fn reset(&mut self, thread: &mut TestThread<'_>) -> Outcome {
        self.device.transport.set_status(thread.machine(), 0)?;
        let done = settled(thread, |thread| {
            let status = self.device.transport.status(thread.machine())?;
            Ok((status == 0).then_some(()))
        })?;
        match done {
            Some(()) => Ok(()),
            None => thread.failed("device status after a reset", "0", "another value"),
        }
    }

    /// Memory that the rig has for as long as it lives.
    pub fn memory(&mut self, bytes: u64) -> Result<GuestAddr> {
        self.pool.permanent(bytes)
    }

    /// The device status.
    pub fn status(&mut self, thread: &mut TestThread<'_>) -> Outcome<u8> {
        Ok(self.device.transport.status(thread.machine())?)
    }

    /// The address of a place in the rig's memory.
    pub fn at(&self, offset: u64) -> u64 {
        self.area.0 + offset
    }

    /// Bytes of the rig's memory.
    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(self.area + offset, &mut bytes);
        bytes
    }

    /// Writes to the rig's memory.
    pub fn put(&self, offset: u64, bytes: &[u8]) {
        self.ram.write(self.area + offset, bytes);
    }

    /// Writes entry `index` of the table at `offset` of the rig's memory.
    pub fn entry(&self, offset: u64, index: u64, part: RawDescriptor) {
        let mut bytes = [0; 16];
        let next = part.next.unwrap_or(0);
        let fields = part.addr.to_le_bytes().into_iter().chain(part.len.to_le_bytes());
        let fields = fields.chain(part.flags.to_le_bytes()).chain(next.to_le_bytes());
        for (cell, byte) in bytes.iter_mut().zip(fields) {
            *cell = byte;
        }
        self.put(offset + 16 * index, &bytes);
    }

    /// Writes the header and an untouched status byte.
    pub fn header(&self, kind: u32, sector: u64) {
        self.put(HEADER, &[kind.to_le_bytes(), [0; 4]].concat());
        self.put(HEADER + 8, &sector.to_le_bytes());
        self.put(STATUS, &[STATUS_UNTOUCHED]);
    }

    /// The chain of a request: header, data out, data in, status, as far as there is any.
    pub fn chain(&self, request: &Request<'_>) -> Vec<RawDescriptor> {
        self.header(request.kind, request.sector);
        self.put(DATA, request.out);
        let out = request.out.len() as u32;
        let parts = [
            (HEADER, 16, 0),
            (DATA, out, 0),
            (DATA, request.into, VIRTQ_DESC_F_WRITE),
            (STATUS, 1, VIRTQ_DESC_F_WRITE),
        ];
        let parts = parts.into_iter().filter(|(_, len, _)| *len > 0);
        let chain = parts.map(|(at, len, flags)| self.part(at, len, flags));
        linked(chain.collect())
    }

    /// A descriptor of the rig's memory.
    pub fn part(&self, offset: u64, len: u32, flags: u16) -> RawDescriptor {
        RawDescriptor { addr: self.at(offset), len, flags, next: None }
    }

    /// A queue.
    pub fn queue(&mut self, index: usize) -> Result<&mut Queue> {
        self.queues.get_mut(index).ok_or_else(|| Error::machine("a queue that was not set up"))
    }

    /// Puts a chain on a queue and rings.
    pub fn send(
        &mut self,
        thread: &mut TestThread<'_>,
        index: usize,
        chain: &[RawDescriptor],
    ) -> Outcome<u16> {
        let queue = self.queue(index)?;
        let head = queue.ring.add_raw(chain).ok_or_else(|| Error::machine("the ring is full"))?;
        queue.kick(thread.machine())?;
        Ok(head)
    }

    /// The next chain that the device returns; `None` when none comes.
    pub fn take(&mut self, thread: &mut TestThread<'_>, index: usize) -> Outcome<Option<Used>> {
        settled(thread, |_| Ok(self.queue(index)?.ring.pop()?))
    }

    /// As [`Rig::take`], where one must come.
    pub fn used(&mut self, thread: &mut TestThread<'_>, index: usize) -> Outcome<Used> {
        match self.take(thread, index)? {
            Some(used) => Ok(used),
            None => thread.failed(format!("queue {index}"), "an answer", "none"),
        }
    }

    /// The next chain that the device returns; `None` where it asks for a reset instead (virtio 1.2
    /// §2.1.2). It must do one of them, and not both.
    pub fn used_or_reset(
        &mut self,
        thread: &mut TestThread<'_>,
        index: usize,
    ) -> Outcome<Option<Used>> {
        let used = self.take(thread, index)?;
        let gave_up = self.status(thread)? & DEVICE_NEEDS_RESET != 0;
        thread.check(used.is_some() != gave_up, "it answers, or asks for a reset")?;
        Ok(used)
    }

    /// Sends a request that no device can do: it is refused, or the device asks for a reset, and
    /// gets it.
    pub fn expect_refusal(
        &mut self,
        thread: &mut TestThread<'_>,
        what: &str,
        request: Request<'_>,
    ) -> Outcome {
        let chain = self.chain(&request);
        self.send(thread, 0, &chain)?;
        if self.used_or_reset(thread, 0)?.is_none() {
            return self.restart(thread);
        }
        let refused = self.bytes(STATUS, 1) != [VIRTIO_BLK_S_OK];
        thread.check(refused, format!("{what} is refused"))
    }

    /// Sends a request on queue 0 and takes its answer.
    pub fn request(
        &mut self,
        thread: &mut TestThread<'_>,
        request: Request<'_>,
    ) -> Outcome<Answer> {
        self.request_on(thread, 0, request)
    }

    /// Sends a request and takes its answer.
    pub fn request_on(
        &mut self,
        thread: &mut TestThread<'_>,
        index: usize,
        request: Request<'_>,
    ) -> Outcome<Answer> {
        let chain = self.chain(&request);
        let head = self.send(thread, index, &chain)?;
        let used = self.used(thread, index)?;
        thread.expect("head of the chain returned", used.head, head)?;
        let status = self.bytes(STATUS, 1).first().copied().unwrap_or(STATUS_UNTOUCHED);
        Ok(Answer { status, len: used.len, data: self.bytes(DATA, request.into as usize) })
    }

    /// Sends a request that must get this status.
    pub fn expect(
        &mut self,
        thread: &mut TestThread<'_>,
        what: &str,
        request: Request<'_>,
        status: u8,
    ) -> Outcome<Answer> {
        let answer = self.request(thread, request)?;
        thread.expect(&format!("{what}: status"), answer.status, status)?;
        Ok(answer)
    }

    /// Reads sectors that must hold `want`.
    pub fn expect_sectors(
        &mut self,
        thread: &mut TestThread<'_>,
        what: &str,
        sector: u64,
        want: &[u8],
    ) -> Outcome {
        let request = Request {
            kind: VIRTIO_BLK_T_IN,
            sector,
            into: want.len() as u32,
            ..Request::default()
        };
        let answer = self.expect(thread, what, request, VIRTIO_BLK_S_OK)?;
        same(thread, what, &answer.data, want)
    }

    /// Whether the device gets into need of a reset.
    pub fn needs_reset(&mut self, thread: &mut TestThread<'_>) -> Outcome<bool> {
        let came = settled(thread, |thread| {
            let status = self.device.transport.status(thread.machine())?;
            Ok((status & DEVICE_NEEDS_RESET != 0).then_some(()))
        })?;
        Ok(came.is_some())
    }

    /// The device is left reset, with its interrupts off.
    pub fn finish(mut self, thread: &mut TestThread<'_>) -> Outcome {
        Ok(self.device.shutdown(thread.machine())?)
    }
}

/// Sets `VIRTQ_DESC_F_NEXT` in all but the last.
pub(super) fn linked(mut chain: Vec<RawDescriptor>) -> Vec<RawDescriptor> {
    let last = chain.len().saturating_sub(1);
    chain.iter_mut().take(last).for_each(|part| part.flags |= VIRTQ_DESC_F_NEXT);
    chain
}

/// A finding unless two runs of bytes are equal; it names the first that is not.
pub(super) fn same(thread: &TestThread<'_>, what: &str, got: &[u8], want: &[u8]) -> Outcome {
    match got.iter().zip(want).enumerate().find(|(_, (got, want))| got != want) {
        Some((at, (got, want))) => thread.failed(
            format!("{what}: byte {at}"),
            format!("{want:#04x}"),
            format!("{got:#04x}"),
        ),
        None => thread.expect(&format!("{what}: bytes"), got.len(), want.len()),
    }
}

/// Asks `look` until it has something, giving the device time in between.
pub(super) fn settled<T>(
    thread: &mut TestThread<'_>,
    mut look: impl FnMut(&mut TestThread<'_>) -> Outcome<Option<T>>,
) -> Outcome<Option<T>> {
    let clock = thread.machine().clock();
    let (start, real) = (thread.now(), !clock.is_virtual());
    let end = Nanos(start.0.saturating_add(PATIENCE.0));
    loop {
        let late = thread.now() >= end;
        if let Some(found) = look(thread)? {
            return Ok(Some(found));
        }
        if late {
            return Ok(None);
        }
        match thread.machine().poll()? {
            true => {}
            false if real && thread.now() - start < YIELDS.0 => std::thread::yield_now(),
            false => thread.get_on(LOOK)?,
        }
    }
}

/// No interrupt comes: the device has had time when its count is looked at.
pub(super) fn silent(thread: &mut TestThread<'_>, what: &str, event: &IrqEvent) -> Outcome {
    thread.step(LOOK)?;
    thread.expect(what, event.take(), 0)
}

/// Whether an interrupt comes, in the time that a device may need.
pub(super) fn comes(thread: &mut TestThread<'_>, event: &IrqEvent) -> Outcome<bool> {
    let found = settled(thread, |_| Ok(Some(event.take()).filter(|count| *count > 0)))?;
    Ok(found.is_some())
}
