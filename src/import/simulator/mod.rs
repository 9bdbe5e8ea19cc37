//! The ASCII traces of simulators and small replayers: a line a request, blank-separated numbers,
//! no header. They differ in what the numbers count and in which digit is a read:
//!
//! | preset | columns | time | address | size | read |
//! |---|---|---|---|---|---|
//! | `disksim` | time device block size flags | ms | 512 B | 512 B | bit 0 of the hexadecimal flags is 1 |
//! | `mqsim` | time device sector size type | ns | 512 B | 512 B | 1 |
//! | `huaicheng` | time device offset size type | ms | bytes | bytes | 1 |
//! | `smreplay` | time sector size type | ms | 512 B | 512 B | 0 |
//!
//! So what a line means is never guessed from its digits alone: the preset is printed. By content,
//! `disksim` has a time with a point; `huaicheng` has only multiples of 512 in both columns; what
//! could be two of them must be named with `--from`. MQSim's configuration can set another unit
//! of time than nanoseconds: `--time-unit` tells. SSDsim's traces are as MQSim's.
//!
//! Sources: DiskSim 4.0 `disksim_iotrace.c` (`iotrace_ascii_get_ioreq_event`); MQSim's README;
//! <https://github.com/huaicheng/replayer> (LinnOS, IODA); <https://github.com/xiexuchao/SMReplay>.

#[cfg(test)]
mod tests;

use super::ImportOptions;
use super::dataset::clock::{Clock, Epoch, TimeUnit};
use super::dataset::fields::{Fields, Separator, whole};
use super::dataset::text::{Device, LineFormat, NOT_A_NUMBER, Parsed, Skip, TextRows};
use super::dataset::{About, DataSet, lacks, probe};
use super::job::Job;
use super::lines::hex;
use super::registry::{Confidence, TIME_UNIT, UNIT};
use super::source::Source;
use crate::base::{BlockOp, Result, SECTOR_SIZE};
use crate::trace::NotRecorded;

/// Which numbers of the last column are reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// Bit 0 of hexadecimal flags.
    FlagBit,
    /// The digit 1; 0 is a write.
    One,
    /// The digit 0; 1 is a write.
    Zero,
}

impl Reads {
    fn op(self, text: &[u8]) -> Result<BlockOp, Skip> {
        let read = match (self, text) {
            (Self::FlagBit, flags) => {
                let flags = flags.strip_prefix(b"0x").unwrap_or(flags);
                hex(flags).ok_or(Skip::Malformed("flags are no hexadecimal number"))? & 1 == 1
            }
            (Self::One, b"1") | (Self::Zero, b"0") => true,
            (Self::One, b"0") | (Self::Zero, b"1") => false,
            _ => return Err(Skip::Malformed("type is neither 0 nor 1")),
        };
        Ok(if read { BlockOp::Read } else { BlockOp::Write })
    }

    fn words(self) -> &'static str {
        match self {
            Self::FlagBit => "flags, hexadecimal: bit 0 set is a read",
            Self::One => "type: 1 read, 0 write",
            Self::Zero => "type: 0 read, 1 write",
        }
    }
}

/// One of the formats.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    name: &'static str,
    description: &'static str,
    /// There is a device between time and address.
    has_device: bool,
    time_unit: TimeUnit,
    unit_bytes: u64,
    reads: Reads,
}

/// DiskSim's default ASCII format.
pub const DISKSIM: Preset = Preset {
    name: "disksim",
    description: "DiskSim ASCII: time(ms) device block size flags (1 is a read)",
    has_device: true,
    time_unit: TimeUnit::Ms,
    unit_bytes: SECTOR_SIZE,
    reads: Reads::FlagBit,
};

/// MQSim and SSDsim.
pub const MQSIM: Preset = Preset {
    name: "mqsim",
    description: "MQSim and SSDsim ASCII: time(ns) device sector size type (1 is a read)",
    has_device: true,
    time_unit: TimeUnit::Ns,
    unit_bytes: SECTOR_SIZE,
    reads: Reads::One,
};

/// huaicheng/replayer.
pub const HUAICHENG: Preset = Preset {
    name: "huaicheng",
    description: "huaicheng/replayer (LinnOS, IODA): time(ms) device offset size type (1 is a read)",
    has_device: true,
    time_unit: TimeUnit::Ms,
    unit_bytes: 1,
    reads: Reads::One,
};

/// SMReplay.
pub const SMREPLAY: Preset = Preset {
    name: "smreplay",
    description: "SMReplay: time(ms) sector size type (0 is a read)",
    has_device: false,
    time_unit: TimeUnit::Ms,
    unit_bytes: SECTOR_SIZE,
    reads: Reads::Zero,
};

impl Preset {
    fn columns(&self) -> usize {
        if self.has_device { 5 } else { 4 }
    }

    /// Whether what the rows hold beside their shape is as this one has it.
    fn shape(&self, traits: Traits) -> Option<Confidence> {
        match (self.name, traits) {
            ("smreplay", _) => Some(Confidence::Likely),
            // Bytes, or sectors that happen to be multiples of 512: surer with each row.
            ("huaicheng", Traits { multiples: true, rows, .. }) => {
                let sure = rows >= ROWS_TO_JUDGE_MIN;
                Some(if sure { Confidence::Likely } else { Confidence::Possible })
            }
            ("disksim", Traits { points: true, multiples, .. })
            | ("mqsim", Traits { points: false, multiples, .. }) => {
                Some(if multiples { Confidence::Possible } else { Confidence::Likely })
            }
            _ => None,
        }
    }
}

/// Rows that must all be multiples of 512 before they are taken to be in bytes.
const ROWS_TO_JUDGE_MIN: usize = 16;

/// What tells formats of one shape apart.
#[derive(Clone, Copy, Debug)]
struct Traits {
    /// Times have a point.
    points: bool,
    /// Addresses and sizes are all multiples of 512.
    multiples: bool,
    rows: usize,
}

impl DataSet for Preset {
    type Input = TextRows<Rows>;

    fn about(&self) -> About {
        About {
            options: &[UNIT, TIME_UNIT],
            lacks: lacks() | NotRecorded::COMPLETIONS,
            ..About::of(self.name, self.description)
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        Clock::new(Epoch::Start, self.time_unit, told)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        let mut traits = Traits { points: false, multiples: true, rows: 0 };
        let rows = Rows { preset: *self, unit_bytes: 1 };
        let looked = probe::look(head, rows, self.clock(None), |fields, row| {
            traits.rows += 1;
            traits.points |= fields.get(0).contains(&b'.');
            traits.multiples &= row.offset % SECTOR_SIZE == 0 && row.len % SECTOR_SIZE == 0;
            true
        });
        if looked.fits() { self.shape(traits) } else { None }
    }

    fn inputs(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<Vec<Self::Input>> {
        let unit_bytes = options.unit_bytes.unwrap_or(self.unit_bytes);
        let told = if options.unit_bytes.is_some() { ", as told" } else { "" };
        job.interpret(format!("preset: {} (--from names another)", self.name));
        job.interpret(format!("address and size: units of {unit_bytes} bytes{told}"));
        job.interpret(self.reads.words());
        Ok(TextRows::all(sources, || Rows { preset: *self, unit_bytes }))
    }
}

pub(super) struct Rows {
    preset: Preset,
    unit_bytes: u64,
}

impl LineFormat for Rows {
    const SEPARATOR: Separator = Separator::Blanks;

    fn parse<'l>(&mut self, fields: Fields<'l>, clock: &mut Clock) -> Result<Parsed<'l>, Skip> {
        let preset = &self.preset;
        if fields.len() != preset.columns() {
            return Err(Skip::Malformed("row has not the number of fields of its preset"));
        }
        let device = match preset.has_device {
            true => {
                whole(fields.get(1)).ok_or(NOT_A_NUMBER)?;
                Device::Name(fields.get(1))
            }
            false => Device::Only,
        };
        let bytes = |at| whole(fields.last_but(at))?.checked_mul(self.unit_bytes);
        let offset = bytes(2).ok_or(NOT_A_NUMBER)?;
        let len = bytes(1).ok_or(NOT_A_NUMBER)?;
        let op = preset.reads.op(fields.last_but(0))?;
        let time = clock.read(fields.get(0)).ok_or(NOT_A_NUMBER)?;
        Ok(Parsed { device, ..Parsed::request(time, op, offset, len) })
    }
}
