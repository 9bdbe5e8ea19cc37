//! The records of a binary blktrace (Linux `include/uapi/linux/blktrace_api.h`): version 7
//! (`struct blk_io_trace`) and version 8 (`struct blk_io_trace2`, Linux 6.19).

/// `BLK_IO_TRACE_MAGIC`: the upper 24 bits of a record's first word; the version is the rest.
pub const BLK_IO_TRACE_MAGIC: u32 = 0x6561_7400;
/// The version bits of the first word.
pub const VERSION_MASK: u32 = 0xff;
/// Bytes of a version 7 record; no version has fewer.
pub const V7_BYTES: usize = 48;
/// Bytes of a version 8 record.
pub const V8_BYTES: usize = 64;

/// `BLK_TC_SHIFT`: categories stand above this bit of the action.
const BLK_TC_SHIFT: u32 = 16;

/// `enum blktrace_cat`.
pub mod cat {
    #![allow(missing_docs, reason = "the kernel's names, one for one")]
    pub const READ: u64 = 1 << 0;
    pub const WRITE: u64 = 1 << 1;
    pub const FLUSH: u64 = 1 << 2;
    pub const SYNC: u64 = 1 << 3;
    pub const PC: u64 = 1 << 9;
    pub const NOTIFY: u64 = 1 << 10;
    pub const AHEAD: u64 = 1 << 11;
    pub const META: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const FUA: u64 = 1 << 15;
    pub const ZONE_APPEND: u64 = 1 << 16;
    pub const ZONE_RESET: u64 = 1 << 17;
    pub const ZONE_RESET_ALL: u64 = 1 << 18;
    pub const ZONE_FINISH: u64 = 1 << 19;
    pub const ZONE_OPEN: u64 = 1 << 20;
    pub const ZONE_CLOSE: u64 = 1 << 21;
    pub const WRITE_ZEROES: u64 = 1 << 22;
    /// Version 8's zone operations together.
    pub const ZONES: u64 =
        ZONE_APPEND | ZONE_RESET | ZONE_RESET_ALL | ZONE_FINISH | ZONE_OPEN | ZONE_CLOSE;
}

/// `enum blktrace_act`, those that an import tells apart.
pub mod act {
    #![allow(missing_docs, reason = "the kernel's names, one for one")]
    pub const QUEUE: u16 = 1;
    pub const REQUEUE: u16 = 6;
    pub const ISSUE: u16 = 7;
    pub const COMPLETE: u16 = 8;
    pub const SPLIT: u16 = 13;
    pub const REMAP: u16 = 15;
    pub const DRV_DATA: u16 = 17;
    /// A cgroup id stands before the rest of the data.
    pub const CGROUP: u16 = 1 << 8;

    /// The letters of blkparse(1), by number.
    const LETTERS: [&str; 20] = [
        "?", "Q", "M", "F", "G", "S", "R", "D", "C", "P", "U", "UT", "I", "X", "B", "A", "abort",
        "drv", "ZP", "ZU",
    ];

    /// What blkparse(1) prints for it.
    pub fn letter(act: u16) -> &'static str {
        LETTERS.get(usize::from(act)).copied().unwrap_or("?")
    }

    /// What blkparse(1) prints so.
    pub fn of_letter(letter: &[u8]) -> Option<u16> {
        (0..).zip(LETTERS).skip(1).find(|(_, name)| name.as_bytes() == letter).map(|(act, _)| act)
    }
}

/// `enum blktrace_notify`.
pub mod notify {
    #![allow(missing_docs, reason = "the kernel's names, one for one")]
    pub const PROCESS: u16 = 0;
    pub const TIMESTAMP: u16 = 1;
    pub const MESSAGE: u16 = 2;
}

/// Bytes of the cgroup id.
pub const CGROUP_ID_BYTES: usize = 8;

/// Record versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `struct blk_io_trace`.
    V7,
    /// `struct blk_io_trace2`.
    V8,
}

impl Version {
    /// The fixed size of a record.
    pub fn bytes(self) -> usize {
        match self {
            Self::V7 => V7_BYTES,
            Self::V8 => V8_BYTES,
        }
    }
}

/// Byte order of a file: that of the machine that was traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Little endian.
    Little,
    /// Big endian.
    Big,
}

impl Order {
    #[inline]
    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let word = *bytes.get(at..)?.first_chunk()?;
        Some(if self == Self::Little { u16::from_le_bytes(word) } else { u16::from_be_bytes(word) })
    }

    /// The 32-bit word at `at`.
    #[inline]
    pub fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let word = *bytes.get(at..)?.first_chunk()?;
        Some(if self == Self::Little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) })
    }

    #[inline]
    fn u64(self, bytes: &[u8], at: usize) -> Option<u64> {
        let word = *bytes.get(at..)?.first_chunk()?;
        Some(if self == Self::Little { u64::from_le_bytes(word) } else { u64::from_be_bytes(word) })
    }

    /// The order in which the first word of `bytes` has the magic.
    pub fn detect(bytes: &[u8]) -> Option<Self> {
        [Self::Little, Self::Big].into_iter().find(|order| {
            order.u32(bytes, 0).is_some_and(|word| word & !VERSION_MASK == BLK_IO_TRACE_MAGIC)
        })
    }

    /// The version of the record that begins at `bytes`, if one that is known does.
    #[inline]
    pub fn version(self, bytes: &[u8]) -> Option<Version> {
        match self.u32(bytes, 0)?.checked_sub(BLK_IO_TRACE_MAGIC)? {
            7 => Some(Version::V7),
            8 => Some(Version::V8),
            _ => None,
        }
    }
}

/// A record without its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Counts up by one on each CPU; 0 for notifications.
    pub sequence: u32,
    /// Nanoseconds.
    pub time: u64,
    /// 512-byte sector.
    pub sector: u64,
    /// Length.
    pub bytes: u32,
    /// What happened, with the categories above bit 16.
    pub action: u64,
    /// `major << 20 | minor`.
    pub device: u32,
    /// Where it happened.
    pub cpu: u32,
    /// The error of a completion: an errno, negated and cut to 16 bits.
    pub error: u16,
    /// Bytes of data that follow.
    pub pdu_len: u16,
}

impl Record {
    /// Reads the fixed part; `None` when `bytes` is too short for it.
    #[inline]
    pub fn parse(bytes: &[u8], version: Version, order: Order) -> Option<Self> {
        // Each case for itself, the usual one first: the places of the fields are constants then.
        match (version, order) {
            (Version::V7, Order::Little) => {
                Self::fields(bytes.first_chunk::<V7_BYTES>()?, Version::V7, Order::Little)
            }
            (Version::V7, Order::Big) => {
                Self::fields(bytes.first_chunk::<V7_BYTES>()?, Version::V7, Order::Big)
            }
            (Version::V8, order) => {
                Self::fields(bytes.first_chunk::<V8_BYTES>()?, Version::V8, order)
            }
        }
    }

    #[inline(always)]
    fn fields(bytes: &[u8], version: Version, order: Order) -> Option<Self> {
        // Version 8 has pid before a 64-bit action; the rest moves by eight bytes.
        let (action, device) = match version {
            Version::V7 => (order.u32(bytes, 28)?.into(), 36),
            Version::V8 => (order.u64(bytes, 32)?, 40),
        };
        Some(Self {
            sequence: order.u32(bytes, 4)?,
            time: order.u64(bytes, 8)?,
            sector: order.u64(bytes, 16)?,
            bytes: order.u32(bytes, 24)?,
            action,
            device: order.u32(bytes, device)?,
            cpu: order.u32(bytes, device + 4)?,
            error: order.u16(bytes, device + 8)?,
            pdu_len: order.u16(bytes, device + 10)?,
        })
    }

    /// What happened, without the cgroup bit.
    pub fn act(&self) -> u16 {
        (self.action as u16) & !act::CGROUP
    }

    /// Bytes of cgroup id before the data proper.
    pub fn cgroup_bytes(&self) -> usize {
        if self.action as u16 & act::CGROUP != 0 { CGROUP_ID_BYTES } else { 0 }
    }

    /// The categories.
    pub fn categories(&self) -> u64 {
        self.action >> BLK_TC_SHIFT
    }

    /// Whether one of the categories `mask` is set.
    pub fn is(&self, mask: u64) -> bool {
        self.categories() & mask != 0
    }

    /// `major,minor`, as blkparse prints it.
    pub fn device_name(&self) -> String {
        format!("{},{}", self.device >> 20, self.device & 0xf_ffff)
    }

    /// The errno of a completion; 0 for success.
    pub fn errno(&self) -> u16 {
        // The kernel stores a negative int in an unsigned short.
        if self.error > i16::MAX as u16 { self.error.wrapping_neg() } else { self.error }
    }

    /// A place that is the same in per-CPU files and in a merged one.
    pub fn place(&self) -> String {
        format!("cpu {} sequence {}", self.cpu, self.sequence)
    }

    /// The order of records: time, and among equals CPU and sequence, so that files merged
    /// by anyone come out the same.
    pub fn key(&self) -> (u64, u32, u32) {
        (self.time, self.cpu, self.sequence)
    }
}

#[cfg(test)]
impl Record {
    /// The record's bytes, for tests.
    pub fn encode(&self, version: Version, order: Order, pdu: &[u8]) -> Vec<u8> {
        let little = order == Order::Little;
        let mut out = Vec::new();
        let u16s = |v: u16| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let u32s = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let u64s = |v: u64| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let number = if version == Version::V7 { 7 } else { 8 };
        out.extend(u32s(BLK_IO_TRACE_MAGIC | number));
        out.extend(u32s(self.sequence));
        out.extend(u64s(self.time));
        out.extend(u64s(self.sector));
        out.extend(u32s(self.bytes));
        if version == Version::V7 {
            out.extend(u32s(self.action as u32));
            out.extend(u32s(4242));
        } else {
            out.extend(u32s(4242));
            out.extend(u64s(self.action));
        }
        out.extend(u32s(self.device));
        out.extend(u32s(self.cpu));
        out.extend(u16s(self.error));
        out.extend(u16s(pdu.len() as u16));
        out.resize(version.bytes(), 0);
        out.extend(pdu);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_in_both_orders_round_trip() {
        let record = Record {
            sequence: 77,
            time: 0x0102_0304_0506_0708,
            sector: 0x1122_3344_5566,
            bytes: 4096,
            action: u64::from(act::COMPLETE) | cat::WRITE << 16,
            device: 254 << 20 | 32,
            cpu: 3,
            error: 0xfffb,
            pdu_len: 2,
        };
        for order in [Order::Little, Order::Big] {
            for version in [Version::V7, Version::V8] {
                let bytes = record.encode(version, order, b"xy");
                assert_eq!(bytes.len(), version.bytes() + 2);
                assert_eq!(Order::detect(&bytes), Some(order));
                assert_eq!(order.version(&bytes), Some(version));
                assert_eq!(Record::parse(&bytes, version, order), Some(record));
                assert_eq!(Record::parse(&bytes[..version.bytes() - 1], version, order), None);
            }
        }
        assert_eq!(record.device_name(), "254,32");
        assert_eq!(record.errno(), 5, "EIO");
    }

    #[test]
    fn version_7_has_the_offsets_of_the_kernel_header() {
        // As captured on Linux 6.1: the first Q record of a real file.
        let mut bytes = vec![0; V7_BYTES];
        bytes[..4].copy_from_slice(&[0x07, 0x74, 0x61, 0x65]);
        bytes[4] = 1;
        bytes[24..28].copy_from_slice(&4096u32.to_le_bytes());
        bytes[28..32].copy_from_slice(&135_331_841u32.to_le_bytes());
        bytes[36..40].copy_from_slice(&266_338_336u32.to_le_bytes());
        bytes[40] = 1;
        let record = Record::parse(&bytes, Version::V7, Order::Little).unwrap();
        assert_eq!((record.act(), record.bytes, record.cpu), (act::QUEUE, 4096, 1));
        assert!(record.is(cat::READ) && record.is(cat::AHEAD) && !record.is(cat::WRITE));
        assert_eq!(record.device_name(), "254,32");
    }
}
