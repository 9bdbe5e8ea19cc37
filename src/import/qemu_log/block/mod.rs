//! Events of block devices as requests: [`virtio`], [`ide`] (and AHCI), [`nvme`], [`scsi`], and one
//! layer below them [`backend`].
//!
//! Each knows the names of its events, in the spellings of QEMU's versions, and joins requests to
//! their ends; [`requests`] writes what comes of it. The devices' events and the back-ends' tell of
//! the same requests twice, so that one layer is imported at a time.

mod backend;
mod ide;
mod nvme;
mod requests;
mod scsi;
#[cfg(test)]
mod tests;
mod virtio;

use self::ide::Ide;
use self::nvme::Nvme;
pub use self::requests::At;
use self::requests::Cx;
use self::scsi::Scsi;
use self::virtio::Virtio;
use super::fields::Fields;
use crate::base::error::Place;
use crate::base::{Error, ErrorKind, Result};
use crate::import::job::Job;
use crate::import::log_clock::LogClock;
use crate::trace::NotRecorded;

/// Requests in flight that are remembered, a kind of device: a device's queues hold far fewer. What
/// was traced without completions must not fill the memory.
const OPEN_MAX: usize = 1 << 16;

/// The layer whose events are requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The devices that a guest sees.
    Devices,
    /// QEMU's block back-ends.
    Backends,
}

/// Whether an event was understood.
type Heard = std::result::Result<(), Unheard>;

/// Why an event is no request.
#[derive(Debug)]
pub enum Unheard {
    /// It is none of the events that are imported.
    Other,
    /// It is one of them, without what it should have.
    Malformed,
    /// It is one of them and cannot stand in a trace.
    Lost(&'static str),
    /// The import fails.
    Failed(Error),
}

impl From<Error> for Unheard {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Every event that means something here.
const DEVICE_EVENTS: &[&[u8]] = &[
    b"virtio_blk_handle_read",
    b"virtio_blk_handle_write",
    b"virtio_blk_rw_complete",
    b"virtio_blk_req_complete",
    b"ide_exec_cmd",
    b"ide_bus_exec_cmd",
    b"ide_sector_read",
    b"ide_sector_write",
    b"ide_dma_cb",
    b"ide_atapi_cmd_read",
    b"execute_ncq_command_read",
    b"execute_ncq_command_write",
    b"ncq_finish",
    b"pci_nvme_io_cmd",
    b"pci_nvme_read",
    b"pci_nvme_write",
    b"pci_nvme_rw",
    b"pci_nvme_enqueue_req_completion",
    b"nvme_rw",
    b"scsi_req_parsed",
];

/// Whether an event is one of a device's.
pub fn is_devices(name: &[u8]) -> bool {
    DEVICE_EVENTS.contains(&name)
}

/// Whether an event is a request of a back-end.
pub fn is_backends(name: &[u8]) -> bool {
    matches!(name, b"blk_co_preadv" | b"blk_co_pwritev")
}

/// The block devices of a log.
pub struct Block {
    layer: Layer,
    virtio: Virtio,
    ide: Ide,
    nvme: Nvme,
    scsi: Scsi,
    /// Completions of which the log tells how they ended.
    judged: u64,
    backend_events: u64,
    node_events: u64,
}

impl Block {
    /// Devices of one layer; `told_block` is the size of a block, of nvme and scsi, where the user
    /// tells it.
    pub fn new(layer: Layer, told_block: Option<u64>) -> Self {
        Self {
            layer,
            virtio: Virtio::default(),
            ide: Ide::default(),
            nvme: Nvme::new(told_block),
            scsi: Scsi::new(told_block),
            judged: 0,
            backend_events: 0,
            node_events: 0,
        }
    }

    /// Takes an event.
    ///
    /// # Errors
    /// Says why it is no request.
    pub fn event(
        &mut self,
        name: &[u8],
        fields: &Fields<'_>,
        at: At,
        clock: &mut LogClock,
        job: &mut Job<'_>,
    ) -> Heard {
        let cx = &mut Cx { at, clock, judged: &mut self.judged, job };
        self.node_events += u64::from(name.starts_with(b"bdrv_co_p"));
        if self.layer == Layer::Backends {
            return backend::event(name, fields, cx);
        }
        self.backend_events += u64::from(is_backends(name));
        match name {
            [b'v', ..] => self.virtio.event(name, fields, cx),
            [b's', b'c', b's', b'i', ..] => self.scsi.event(name, fields, cx),
            [b'p', b'c', b'i', ..] | [b'n', b'v', ..] => self.nvme.event(name, fields, cx),
            _ => self.ide.event(name, fields, cx),
        }
    }

    /// Ends the log, and says what it lacks.
    ///
    /// # Errors
    /// Nothing: it holds requests of the other layer alone; those of the job's sink.
    pub fn finish(&mut self, clock: &mut LogClock, job: &mut Job<'_>) -> Result<NotRecorded> {
        use NotRecorded as N;
        // No event stands at the end: what is told there was so before.
        let at = At { ns: None, place: Place::Line(0) };
        let cx = &mut Cx { at, clock, judged: &mut self.judged, job };
        self.virtio.finish(cx)?;
        self.nvme.finish(cx)?;
        if job.counts().requests() == 0 {
            return self.nothing(job);
        }
        let mut lacks = LACKS | N::FLUSHES | N::DISCARDS;
        if self.layer == Layer::Devices {
            lacks |= N::FUA | N::UNMAP | N::WRITE_ZEROES;
        }
        lacks.remove(if self.ide.queues { N::FUA } else { N::empty() });
        lacks.remove(if self.ide.seen || self.scsi.seen { N::FLUSHES } else { N::empty() });
        if self.nvme.seen {
            lacks.remove(N::FLUSHES | N::DISCARDS | N::WRITE_ZEROES);
        }
        lacks.set(N::COMPLETIONS, job.counts().completes == 0);
        lacks.set(N::STATUS, self.judged == 0);
        Ok(lacks)
    }

    fn nothing(&self, job: &Job<'_>) -> Result<NotRecorded> {
        let (what, hint) = if job.counts().bus.events() > 0 {
            return Ok(NotRecorded::empty());
        } else if self.backend_events > 0 {
            (
                "no device's requests are in this log, only those of block back-ends (blk_co_*)",
                "--from qemu-log-backend reads them",
            )
        } else if self.node_events > 0 {
            (
                "this log has events of block nodes (bdrv_co_*) alone, which tell of a request at \
                 every node that it passes",
                "trace the device's events, or blk_co_preadv and blk_co_pwritev",
            )
        } else {
            return Ok(NotRecorded::empty());
        };
        job.check_device()?;
        Err(Error::new(ErrorKind::Nothing, what).hint(hint))
    }
}

/// What no such log tells of requests.
pub const LACKS: NotRecorded = NotRecorded::WRITE_DATA
    .union(NotRecorded::READ_DATA)
    .union(NotRecorded::PREFLUSH)
    .union(NotRecorded::QUEUES)
    .union(NotRecorded::DEVICE_SIZE)
    .union(NotRecorded::HINTS);
