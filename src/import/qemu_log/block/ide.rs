//! IDE and AHCI disks (QEMU `hw/ide/core.c`, `hw/ide/ahci.c`, `system/dma-helpers.c`).
//!
//! ```text
//! ide_exec_cmd IDE exec cmd: bus 0x55…; state 0x55…; cmd 0xe7          ide_bus_exec_cmd since 9.0
//! ide_dma_cb IDEState 0x55…; sector_num=8 n=8 cmd=DMA READ              DMA, also of AHCI
//! dma_blk_io dbs=0x7f… bs=0x55… offset=4096 to_dev=0                    follows it at once
//! dma_complete dbs=0x7f… ret=0 cb=0x55…                                 its end
//! ide_sector_read sector=0 nsectors=1                                   PIO, a part at a time
//! ide_atapi_cmd_read IDEState: 0x55…; read dma: LBA=16 nb_sectors=2     sectors of 2048 bytes
//! execute_ncq_command_read ahci(0x55…)[0][tag:3]: NCQ reading 8 sectors from LBA 2048
//! ncq_finish ahci(0x55…)[0][tag:3]: NCQ transfer finished
//! ```
//!
//! - A DMA request ends with the `dma_complete` of the `dma_blk_io` that follows it, an NCQ request
//!   with `ncq_finish`; PIO, CD and flush have no end in the log.
//! - A disk is its `IDEState`, and on AHCI its port: the `ahci_*` events that stand before
//!   the command say which port a state belongs to, without them both are devices.
//! - `DMA TRIM` names no ranges, so it is counted. FUA is logged for NCQ alone.

use std::collections::HashMap;

use super::requests::{Asked, Cx, Open, errno_of};
use super::{Heard, OPEN_MAX, Unheard};
use crate::base::{BlockOp, OpFlags, SECTOR_SIZE};
use crate::import::qemu_log::fields::Fields;

/// Commands of ATA (ACS-3 §7) that matter here.
const READ_SECTORS: &[u64] = &[0x20, 0x21, 0x24, 0x29, 0xc4];
const WRITE_SECTORS: &[u64] = &[0x30, 0x31, 0x34, 0x39, 0xc5];
const DMA: &[u64] = &[0x25, 0x35, 0xc8, 0xc9, 0xca, 0xcb, 0x06];
const FLUSH_CACHE: &[u64] = &[0xe7, 0xea];
/// Bytes of a sector of a CD.
const CD_SECTOR_SIZE: u64 = 2048;
/// Disks whose port is remembered.
const STATES_MAX: usize = 1 << 12;

/// A port of an AHCI controller.
type Port = (u64, u64);

/// A request by DMA in flight.
enum Dma {
    /// Its own end is the request's.
    Own(Open),
    /// It tells how an NCQ request ended.
    Ncq(Port, u64),
}

/// An NCQ request in flight.
struct Ncq {
    open: Option<Open>,
    result: Option<i64>,
}

/// The IDE and AHCI disks of a log.
#[derive(Default)]
pub struct Ide {
    /// Which port a disk's state belongs to.
    ports: HashMap<u64, Port>,
    /// The port that an event just named.
    last_port: Option<Port>,
    /// The disk of the last PIO command.
    pio: Option<u64>,
    /// A request whose `dma_blk_io` has not come yet, and where it begins.
    starting: Option<(Dma, u64)>,
    dma: HashMap<u64, Dma>,
    ncq: HashMap<(Port, u64), Ncq>,
    /// The NCQ command that comes next asks for FUA.
    fua: Option<(Port, u64)>,
    /// An NCQ request was seen.
    pub queues: bool,
    /// Any request of these was seen.
    pub seen: bool,
}

impl Ide {
    /// Takes an event, if it is one of these.
    pub fn event(&mut self, name: &[u8], fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let port = || fields.ahci_port();
        match name {
            b"ide_exec_cmd" | b"ide_bus_exec_cmd" => self.command(fields, cx),
            b"ide_sector_read" => self.pio(BlockOp::Read, fields, cx),
            b"ide_sector_write" => self.pio(BlockOp::Write, fields, cx),
            b"ide_dma_cb" => self.dma_request(fields, cx),
            b"dma_blk_io" => self.dma_starts(fields),
            b"dma_complete" => self.dma_ends(fields, cx),
            b"ide_atapi_cmd_read" => self.cd(fields, cx),
            b"process_ncq_command_fua" => {
                self.fua = port().zip(fields.get("tag"));
                Ok(())
            }
            b"execute_ncq_command_read" | b"execute_ncq_command_write" => {
                let write = name.ends_with(b"write");
                self.ncq(port().ok_or(Unheard::Malformed)?, write, fields, cx)
            }
            b"ncq_finish" => self.ncq_ends(port().ok_or(Unheard::Malformed)?, fields, cx),
            b"ide_ioport_write" => {
                self.last_port = None;
                Err(Unheard::Other)
            }
            _ => {
                if name.starts_with(b"ahci_") || name.starts_with(b"handle_") {
                    self.last_port = port().or(self.last_port);
                }
                Err(Unheard::Other)
            }
        }
    }

    fn device(&self, state: u64) -> String {
        match self.ports.get(&state) {
            Some(port) => port_name(*port),
            None => format!("ide@{state:#x}"),
        }
    }

    fn command(&mut self, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let command = || Some((fields.get("state")?, fields.get("cmd")?));
        let (state, cmd) = command().ok_or(Unheard::Malformed)?;
        if let Some(port) = self.last_port.take()
            && self.ports.len() < STATES_MAX
        {
            self.ports.entry(state).or_insert(port);
        }
        if READ_SECTORS.contains(&cmd) || WRITE_SECTORS.contains(&cmd) {
            self.pio = Some(state);
        } else if FLUSH_CACHE.contains(&cmd) {
            self.seen = true;
            let device = self.device(state);
            let (op, flags) = (BlockOp::Flush, OpFlags::empty());
            cx.issue(&Asked { device: &device, op, flags, offset: 0, len: 0 })?;
        } else if !DMA.contains(&cmd) {
            return Err(Unheard::Lost("IDE command that is no request for the disk's data"));
        }
        Ok(())
    }

    fn pio(&mut self, op: BlockOp, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let range = || Some((fields.get("sector")?, fields.get("nsectors")?));
        let (sector, sectors) = range().ok_or(Unheard::Malformed)?;
        let device = self.pio.map_or_else(|| "ide".to_owned(), |state| self.device(state));
        self.issue(&device, op, OpFlags::empty(), (sector, sectors, SECTOR_SIZE), cx).map(drop)
    }

    fn cd(&mut self, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let read =
            || Some((fields.get("IDEState")?, fields.get("LBA")?, fields.get("nb_sectors")?));
        let (state, lba, sectors) = read().ok_or(Unheard::Malformed)?;
        let device = self.device(state);
        let range = (lba, sectors, CD_SECTOR_SIZE);
        self.issue(&device, BlockOp::Read, OpFlags::empty(), range, cx).map(drop)
    }

    fn dma_request(&mut self, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        self.starting = None;
        let asked = || Some((fields.get("IDEState")?, fields.get("sector_num")?, fields.get("n")?));
        let (state, sector, sectors) = asked().ok_or(Unheard::Malformed)?;
        let command = fields.text();
        let op = if command.ends_with(b"DMA READ") {
            BlockOp::Read
        } else if command.ends_with(b"DMA WRITE") {
            BlockOp::Write
        } else if command.ends_with(b"DMA TRIM") {
            return Err(Unheard::Lost("DMA TRIM: the log does not say which ranges"));
        } else {
            return Err(Unheard::Malformed);
        };
        let device = self.device(state);
        let range = (sector, sectors, SECTOR_SIZE);
        let open = self.issue(&device, op, OpFlags::empty(), range, cx)?;
        self.starting = open.map(|open| (Dma::Own(open), sector.saturating_mul(SECTOR_SIZE)));
        Ok(())
    }

    fn issue(
        &mut self,
        device: &str,
        op: BlockOp,
        flags: OpFlags,
        (first, count, size): (u64, u64, u64),
        cx: &mut Cx<'_, '_>,
    ) -> Result<Option<Open>, Unheard> {
        self.seen = true;
        let (offset, len) = (first.saturating_mul(size), count.saturating_mul(size));
        Ok(cx.issue(&Asked { device, op, flags, offset, len })?)
    }

    /// The block layer's part of a request begins: others than IDE's are left to be counted.
    fn dma_starts(&mut self, fields: &Fields<'_>) -> Heard {
        let started = || Some((fields.get("dbs")?, fields.get("offset")?));
        let (dbs, offset) = started().ok_or(Unheard::Malformed)?;
        match self.starting.take() {
            Some((dma, begins)) if begins == offset => {
                if self.dma.len() < OPEN_MAX {
                    self.dma.insert(dbs, dma);
                }
                Ok(())
            }
            _ => Err(Unheard::Other),
        }
    }

    fn dma_ends(&mut self, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let ended = || Some((fields.get("dbs")?, fields.signed("ret")?));
        let (dbs, result) = ended().ok_or(Unheard::Malformed)?;
        match self.dma.remove(&dbs).ok_or(Unheard::Other)? {
            Dma::Own(open) => {
                cx.complete(open, Some(errno_of(result)))?;
            }
            Dma::Ncq(port, tag) => {
                if let Some(ncq) = self.ncq.get_mut(&(port, tag)) {
                    ncq.result = Some(result);
                }
            }
        }
        Ok(())
    }

    fn ncq(&mut self, port: Port, write: bool, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        self.starting = None;
        let count = if write { "writing" } else { "reading" };
        let asked = || Some((fields.get("tag")?, fields.get(count)?, fields.get("LBA")?));
        let (tag, sectors, sector) = asked().ok_or(Unheard::Malformed)?;
        self.queues = true;
        let mut flags = OpFlags::empty();
        flags.set(OpFlags::FUA, self.fua.take() == Some((port, tag)));
        let op = if write { BlockOp::Write } else { BlockOp::Read };
        let range = (sector, sectors, SECTOR_SIZE);
        let open = self.issue(&port_name(port), op, flags, range, cx)?;
        if self.ncq.len() < OPEN_MAX {
            self.ncq.insert((port, tag), Ncq { open, result: None });
            self.starting = Some((Dma::Ncq(port, tag), sector.saturating_mul(SECTOR_SIZE)));
        }
        Ok(())
    }

    fn ncq_ends(&mut self, port: Port, fields: &Fields<'_>, cx: &mut Cx<'_, '_>) -> Heard {
        let tag = fields.get("tag").ok_or(Unheard::Malformed)?;
        let ended = self.ncq.remove(&(port, tag));
        let Ncq { open, result } = ended
            .ok_or(Unheard::Lost("completion of an NCQ request that the log does not name"))?;
        match open {
            Some(open) => Ok(cx.complete(open, result.map(errno_of))?),
            None => Ok(()),
        }
    }
}

fn port_name((hba, port): Port) -> String {
    format!("ahci@{hba:#x}:{port}")
}
