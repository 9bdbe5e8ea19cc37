//! What blktrace's `btrecord` writes for `btreplay`: a file a device and CPU (`sda.replay.0`),
//! native endian.
//!
//! ```text
//! file:   u64 version = 0x010000, u64 genesis, u64 bunches, u64 packets     32 bytes
//! bunch:  u64 packets, u64 time                                             16 bytes
//! packet: u64 sector, u64 nbytes, u32 rw (1 is a read), u32 padding         24 bytes
//! ```
//!
//! Times are nanoseconds of the tracer's clock, which all files of a capture share; the requests of
//! a bunch were dispatched within 10 ms (`--max-bunch-time`) and have one time. A sector is 512
//! bytes. Discards stand as writes. A packet of no bytes is a flush or another command without data:
//! btrecord does not say which. The counts of the header may leave out the last bunch: a file is
//! read to its end.
//!
//! Source: blktrace `btreplay/btrecord.h`.

use super::ImportOptions;
use super::dataset::clock::{Clock, Epoch, TimeUnit};
use super::dataset::streams::Streams;
use super::dataset::text::{Device, NOT_A_NUMBER, Parsed, Skip};
use super::dataset::{About, Context, DataSet, Row, RowByRow, lacks};
use super::job::{Job, offset_place};
use super::registry::Confidence;
use super::source::Source;
use crate::base::{BlockOp, Error, Result, SECTOR_SIZE};
use crate::trace::NotRecorded;

const VERSION: u64 = 0x01_0000;
const HEADER_BYTES: usize = 32;
const BUNCH_BYTES: usize = 16;
const PACKET_BYTES: usize = 24;
/// btrecord's own limit is 512 packets a bunch; more says that this is no bunch.
const BUNCH_PACKETS_MAX: u64 = 1 << 20;
/// What stands between device and CPU in a file's name.
const PER_CPU: &str = ".replay.";

/// The importer.
pub struct Btrecord;

impl DataSet for Btrecord {
    type Input = Packets;

    fn about(&self) -> About {
        About {
            options: &[],
            lacks: lacks() | NotRecorded::COMPLETIONS,
            interpretation: &[
                "requests of a bunch (up to 10 ms) have one time; discards stand as writes",
                "rw: 1 read, 0 write",
            ],
            ..About::of("btrecord", "btrecord's files for btreplay, per CPU (DEV.replay.N)")
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        Clock::new(Epoch::Start, TimeUnit::Ns, told)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        let packets = Order::of(head)?.u64_at(head, HEADER_BYTES)?;
        (packets <= BUNCH_PACKETS_MAX).then_some(Confidence::Certain)
    }

    fn inputs(
        &self,
        sources: Vec<Source>,
        _options: &ImportOptions,
        _job: &mut Job<'_>,
    ) -> Result<Vec<Self::Input>> {
        sources.into_iter().map(Packets::new).collect()
    }
}

/// The byte order of the machine that wrote a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn of(head: &[u8]) -> Option<Self> {
        [Self::Little, Self::Big].into_iter().find(|order| order.u64_at(head, 0) == Some(VERSION))
    }

    fn u64_at(self, bytes: &[u8], at: usize) -> Option<u64> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        })
    }

    fn u32_at(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        })
    }
}

/// The packets of one file.
pub(super) struct Packets {
    source: Source,
    order: Order,
    /// The device's name: the file's, without its CPU.
    device: Vec<u8>,
    streams: Streams,
    /// Time of the present bunch, and its packets to come.
    time: u64,
    left: u64,
    /// Bunches that the header speaks of and that have not come.
    bunches: u64,
}

impl Packets {
    fn new(mut source: Source) -> Result<Self> {
        let mut header = [0; HEADER_BYTES];
        let read = source.read_full(&mut header)?;
        let order = Order::of(&header).filter(|_| read == HEADER_BYTES);
        let order = order.ok_or_else(|| {
            Error::input("no btrecord header of version 1.0 at its start").path(source.path())
        })?;
        let name = source.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let device = name.rsplit_once(PER_CPU).map_or("", |(device, _)| device).as_bytes().to_vec();
        let streams = Streams::new(&source, false);
        let bunches = order.u64_at(&header, 16).unwrap_or_default();
        Ok(Self { source, order, device, streams, time: 0, left: 0, bunches })
    }

    /// Reads `buffer` full; a part of it is the end of a cut file.
    fn read(&mut self, buffer: &mut [u8], job: &mut Job<'_>) -> Result<bool> {
        let offset = self.source.offset();
        match self.source.read_full(buffer)? {
            read if read == buffer.len() => Ok(true),
            read => {
                if read > 0 || self.left > 0 || self.bunches > 0 {
                    let place = offset_place(self.source.path(), offset);
                    job.summary.cut("input ends before its last bunch", place);
                    (self.left, self.bunches) = (0, 0);
                }
                Ok(false)
            }
        }
    }

    /// Goes on to the next bunch.
    fn next_bunch(&mut self, job: &mut Job<'_>) -> Result<bool> {
        let mut bunch = [0; BUNCH_BYTES];
        if !self.read(&mut bunch, job)? {
            return Ok(false);
        }
        self.left = self.order.u64_at(&bunch, 0).unwrap_or_default();
        self.time = self.order.u64_at(&bunch, 8).unwrap_or_default();
        self.bunches = self.bunches.saturating_sub(1);
        if self.left > BUNCH_PACKETS_MAX {
            let offset = self.source.offset() - BUNCH_BYTES as u64;
            let path = self.source.path();
            job.summary.malformed("bunch of an impossible size: the rest cannot be read", || {
                offset_place(path, offset)
            });
            (self.left, self.bunches) = (0, 0);
            return Ok(false);
        }
        Ok(true)
    }

    fn parse(&self, packet: &[u8], clock: &mut Clock) -> Result<Parsed<'_>, Skip> {
        let number = |at| self.order.u64_at(packet, at).ok_or(NOT_A_NUMBER);
        let op = match self.order.u32_at(packet, 16) {
            Some(1) => BlockOp::Read,
            Some(0) => BlockOp::Write,
            _ => return Err(Skip::Malformed("rw is neither 0 nor 1")),
        };
        let (offset, len) = (number(0)?.checked_mul(SECTOR_SIZE).ok_or(NOT_A_NUMBER)?, number(8)?);
        if len == 0 {
            return Err(Skip::Lost("no bytes: a flush or another command; btrecord does not say"));
        }
        let time = clock.read_ticks(self.time).ok_or(NOT_A_NUMBER)?;
        let device = if self.device.is_empty() { Device::Only } else { Device::Name(&self.device) };
        Ok(Parsed { device, ..Parsed::request(time, op, offset, len) })
    }
}

impl RowByRow for Packets {
    fn next_row(&mut self, context: &mut Context, job: &mut Job<'_>) -> Result<Option<Row>> {
        let mut packet = [0; PACKET_BYTES];
        loop {
            job.tick()?;
            while self.left == 0 {
                job.tick()?;
                if !self.next_bunch(job)? {
                    return Ok(None);
                }
            }
            if !self.read(&mut packet, job)? {
                return Ok(None);
            }
            self.left -= 1;
            let offset = self.source.offset() - PACKET_BYTES as u64;
            let mut streams = std::mem::take(&mut self.streams);
            let parsed = self.parse(&packet, &mut context.clock);
            let place = || offset_place(self.source.path(), offset);
            let row = match parsed {
                Ok(parsed) => streams.row(&parsed, context, job, place)?,
                Err(skip) => {
                    skip.count(job, place);
                    None
                }
            };
            self.streams = streams;
            if row.is_some() {
                return Ok(row);
            }
        }
    }

    fn source(&self) -> Option<&Source> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::testing::{import_bytes, import_many, losses, sample};

    /// Sector, bytes, rw.
    type Packet = (u64, u64, u32);

    /// A file of bunches: time, and packets.
    fn file(bunches: &[(u64, &[Packet])], big: bool) -> Vec<u8> {
        let word = |n: u64| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let half = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let packets = bunches.iter().map(|(_, packets)| packets.len() as u64).sum();
        let header = [VERSION, bunches.first().map_or(0, |b| b.0), bunches.len() as u64, packets];
        let mut out: Vec<u8> = header.into_iter().flat_map(word).collect();
        for (time, packets) in bunches {
            out.extend([packets.len() as u64, *time].into_iter().flat_map(word));
            for (sector, bytes, rw) in *packets {
                out.extend([*sector, *bytes].into_iter().flat_map(word));
                out.extend([*rw, 0].into_iter().flat_map(half));
            }
        }
        out
    }

    #[test]
    fn bunches_of_both_byte_orders() {
        for big in [false, true] {
            let data = file(&[(1000, &[(8, 4096, 1), (0, 512, 0)]), (3000, &[(1, 512, 7)])], big);
            let (report, out) = import_bytes(&data).unwrap();
            assert_eq!(report.format, "btrecord");
            assert_eq!(
                out.issues_brief(),
                [(0, BlockOp::Read, 4096, 4096), (0, BlockOp::Write, 0, 512)]
            );
            assert_eq!(losses(&report), [("rw is neither 0 nor 1", 1, "test-input offset 112")]);
        }
    }

    #[test]
    fn files_of_each_cpu_are_one_device() {
        let a = file(&[(1000, &[(8, 512, 1)]), (5000, &[(9, 512, 1)])], false);
        let b = file(&[(2000, &[(10, 512, 0)])], false);
        let inputs = [("sda.replay.0", &a[..]), ("sda.replay.1", &b[..])];
        let (_, out) = import_many(&inputs, &ImportOptions::default()).unwrap();
        let brief: Vec<_> = out.issues().iter().map(|i| (i.time.0, i.offset / 512)).collect();
        assert_eq!(brief, [(0, 8), (1000, 10), (4000, 9)]);
        assert_eq!(out.streams.iter().map(|s| &s.device).collect::<Vec<_>>(), ["sda"]);
    }

    #[test]
    fn a_cut_and_an_impossible_bunch_are_told() {
        let data = file(&[(1000, &[(8, 512, 1), (9, 512, 1)])], false);
        let (report, out) = import_bytes(&data[..data.len() - 5]).unwrap();
        assert_eq!(out.issues().len(), 1);
        assert_eq!(report.cut.unwrap(), "input ends before its last bunch (test-input offset 72)");
        let bad = [&data[..], &u64::MAX.to_le_bytes(), &[0; 80]].concat();
        let (report, out) = import_bytes(&bad).unwrap();
        assert_eq!((out.issues().len(), report.summary.losses.len()), (2, 1));
    }

    #[test]
    fn the_real_samples() {
        for (name, packets, empty) in [("vdc.replay.0", 457, 9), ("vdc.replay.1", 548, 5)] {
            let Some(data) = sample(&format!("traces/btrecord/{name}")) else { return };
            let (report, out) = import_bytes(&data).unwrap();
            assert_eq!(report.format, "btrecord");
            assert_eq!(out.issues().len() as u64, packets - empty);
            let [loss] = report.summary.losses.as_slice() else { panic!("{:?}", report.summary) };
            assert_eq!((loss.count, &loss.reason[..8]), (empty, "no bytes"));
        }
    }
}
