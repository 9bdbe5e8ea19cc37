//! The byte-level specification of a `.qtrace` file, and nothing else.
//!
//! All numbers are little endian. A file is a preamble and then frames, each starting at a multiple
//! of 8; nothing is ever rewritten, so a file cut at any byte is good up to its last whole frame.
//!
//! ```text
//! file     = preamble  Header  { Stream | Payload | Events }*  Summary  Index  Trailer
//! frame    = header (64 bytes)  body  zeros to a multiple of 8
//! ```
//!
//! **Preamble** (32 bytes, [`Preamble`]; the same in every version of the format): magic, format
//! major and minor, the first qtrace version that reads this format, CRC32C of what precedes it.
//! A reader refuses a newer major. A minor adds frame kinds that have [`FLAG_IGNORABLE`] set, and
//! kinds of events: one that a reader does not know ends the reading there, naming the version.
//!
//! | minor | adds |
//! |---|---|
//! | 0 | block requests: [`EVENT_ISSUE`], [`EVENT_COMPLETE`], [`EVENT_MARK`] |
//! | 1 | buses: [`EVENT_BUS`], [`EVENT_MEMORY`], [`EVENT_IRQ`], [`EVENT_ACK`], [`EVENT_CLOCK`]; their totals in the summary |
//! | 2 | [`PAYLOAD_BLAKE3`] |
//!
//! **Frame header** (64 bytes, [`FrameHeader`]): magic, kind, flags, body length, count, sizes and
//! numbers that place the frame in the trace, CRC32C of body with padding, CRC32C of the header.
//!
//! | kind | body | count |
//! |---|---|---|
//! | [`KIND_HEADER`] | bincode [`TraceHeader`](super::TraceHeader) | 1 |
//! | [`KIND_STREAM`] | bincode [`StreamInfo`](super::StreamInfo); its id is the number of such frames before it | 1 |
//! | [`KIND_PAYLOAD`] | `count` × [`PayloadEntry`], then one zstd frame of their bytes, joined | payloads |
//! | [`KIND_EVENTS`] | `count` × [`Record`] | events |
//! | [`KIND_SUMMARY`] | bincode [`TraceSummary`](super::TraceSummary), then every [`StreamInfo`](super::StreamInfo) again; then, when there are bus events, [`BusTotals`](super::BusTotals) of every stream | 1 |
//! | [`KIND_INDEX`] | bincode: offset of the summary, event frames, payload frames, totals | 1 |
//! | [`KIND_TRAILER`] | [`Trailer`]: where the index is; always the last 80 bytes of a finished file | 1 |
//!
//! **bincode** is `standard().with_little_endian().with_fixed_int_encoding()`. A [`Record`] is the
//! very bytes that it gives for the same fields.
//!
//! **Payloads** are numbered from 1 in file order and stand before the events that name them. One
//! of at most [`PAYLOAD_PIECE_BYTES`] is stored as it is ([`PAYLOAD_DATA`]). A longer one is a
//! [`PAYLOAD_LIST`]: its bytes are the `u32` numbers of its pieces, each of
//! [`PAYLOAD_PIECE_BYTES`] but the last. The digest is that of the stored bytes: SHA-256, or, where
//! the kind has [`PAYLOAD_BLAKE3`], BLAKE3. Writers use BLAKE3 from [`BLAKE3_BYTES_MIN`] on, where it
//! takes a fraction of the time, so that a recorder keeps up; which it is must follow from kind and
//! length, or equal payloads would not be recognised.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::base::limits::{FRAME_BYTES_MAX, METADATA_BYTES_MAX, PAYLOAD_PIECE_BYTES};

pub use super::record::{RecordBounds, UNKNOWN_KIND};

/// First bytes of every trace. The line end catches transfers that rewrite text, as PNG's does.
pub const MAGIC: [u8; 8] = *b"QTRACE\r\n";
/// Format version written and the newest that is read; see the module text for what each means.
pub const MAJOR: u16 = 1;
/// See [`MAJOR`].
pub const MINOR: u16 = 2;
/// The first qtrace version that reads [`MAJOR`].
pub const READER_VERSION: [u16; 3] = [0, 1, 0];

/// Size of [`Preamble`]; the header frame follows it.
pub const PREAMBLE_BYTES: usize = 32;
/// Size of [`FrameHeader`].
pub const FRAME_HEADER_BYTES: usize = 64;
/// Frames begin at multiples of this.
pub const FRAME_ALIGNMENT: usize = 8;
/// Size of [`Record`].
pub const RECORD_BYTES: usize = 48;
/// Size of [`PayloadEntry`].
pub const PAYLOAD_ENTRY_BYTES: usize = 40;
/// Size of a whole trailer frame.
pub const TRAILER_BYTES: usize = FRAME_HEADER_BYTES + size_of::<Trailer>();

/// First bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"QTF\x1a";
/// The frame that describes the trace; always the first.
pub const KIND_HEADER: u16 = 1;
/// A stream appears.
pub const KIND_STREAM: u16 = 2;
/// Stored payloads.
pub const KIND_PAYLOAD: u16 = 3;
/// Event records.
pub const KIND_EVENTS: u16 = 4;
/// What is known at the end.
pub const KIND_SUMMARY: u16 = 5;
/// Where the event and payload frames are.
pub const KIND_INDEX: u16 = 6;
/// Where the index is.
pub const KIND_TRAILER: u16 = 7;
/// Flag of a frame that a reader may skip when it does not know the kind.
pub const FLAG_IGNORABLE: u16 = 1 << 0;

/// A payload stored as it is.
pub const PAYLOAD_DATA: u32 = 0;
/// A payload that is a list of the numbers of its pieces.
pub const PAYLOAD_LIST: u32 = 1;
/// Added to the kind of a payload whose digest is BLAKE3's; else it is SHA-256's.
pub const PAYLOAD_BLAKE3: u32 = 1 << 8;
/// Data of at least this length is digested with BLAKE3: below, SHA-256 by the processor's own
/// instructions is as fast, and older readers know it.
pub const BLAKE3_BYTES_MIN: usize = 16 << 10;
/// Longest payload: its list is at most one piece long.
pub const PAYLOAD_BYTES_MAX: u64 = (PAYLOAD_PIECE_BYTES / 4) as u64 * PAYLOAD_PIECE_BYTES as u64;
/// Payloads in one frame: bounds the table that reading one of them costs.
pub const FRAME_PAYLOADS_MAX: usize = 4096;

/// [`Record::kind`] of a request handed to the device.
pub const EVENT_ISSUE: u8 = 1;
/// [`Record::kind`] of an answer.
pub const EVENT_COMPLETE: u8 = 2;
/// [`Record::kind`] of a named point.
pub const EVENT_MARK: u8 = 3;
/// [`Record::kind`] of an access to the bus.
pub const EVENT_BUS: u8 = 4;
/// [`Record::kind`] of guest memory written, filled or found.
pub const EVENT_MEMORY: u8 = 5;
/// [`Record::kind`] of an interrupt source that changed.
pub const EVENT_IRQ: u8 = 6;
/// [`Record::kind`] of an interrupt acknowledge cycle.
pub const EVENT_ACK: u8 = 7;
/// [`Record::kind`] of a step of the clock.
pub const EVENT_CLOCK: u8 = 8;
/// [`Record::op`] of an access: memory-mapped; else a port.
pub const BUS_MMIO: u8 = 1 << 0;
/// [`Record::op`] of an access: a write; else a read.
pub const BUS_WRITE: u8 = 1 << 1;
/// [`Record::cpu`] where the source does not say.
pub const CPU_UNKNOWN: u16 = 0xffff;

/// The start of the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Preamble {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// Format major version.
    pub major: U16,
    /// Format minor version.
    pub minor: U16,
    /// First qtrace version (major, minor, patch) that reads this format major.
    pub reader_version: [U16; 3],
    /// Zero; ignored.
    pub reserved: [u8; 10],
    /// CRC32C of the 28 bytes before it.
    pub crc: U32,
}

/// The start of every frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FrameHeader {
    /// [`FRAME_MAGIC`].
    pub magic: [u8; 4],
    /// One of `KIND_*`.
    pub kind: U16,
    /// [`FLAG_IGNORABLE`] or zero.
    pub flags: U16,
    /// Bytes of the body without its padding.
    pub body_len: U64,
    /// Items in the body.
    pub count: U32,
    /// Payload frames: bytes of the payloads before compression. Else zero.
    pub raw_len: U32,
    /// Number of the next event: of this frame's first in an events frame.
    pub event: U64,
    /// Number of the next payload: of this frame's first in a payload frame.
    pub payload: U64,
    /// Events frames: the least time in it. Else zero.
    pub time_min: U64,
    /// Events frames: the greatest time in it. Else zero.
    pub time_max: U64,
    /// CRC32C of the body with its padding.
    pub body_crc: U32,
    /// CRC32C of the 60 bytes before it.
    pub header_crc: U32,
}

/// One payload of a payload frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PayloadEntry {
    /// SHA-256 or BLAKE3 of the stored bytes.
    pub digest: [u8; 32],
    /// How many they are.
    pub len: U32,
    /// [`PAYLOAD_DATA`] or [`PAYLOAD_LIST`], and [`PAYLOAD_BLAKE3`].
    pub kind: U32,
}

/// Body of the trailer frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Trailer {
    /// File offset of the index frame.
    pub index_offset: U64,
    /// Length of the whole file.
    pub file_len: U64,
}

/// One event. Fields that its kind does not use are written as zero and ignored.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Record {
    /// Nanoseconds since the time origin.
    pub time: U64,
    /// Issue: byte offset on the disk. Bus, memory: address. Irq: line. Clock: what it read then.
    pub offset: U64,
    /// Issue, memory: bytes; mark: bytes of its text; bus: size of the access.
    pub len: U64,
    /// Issue, complete: what joins them. Bus: the value.
    pub tag: U64,
    /// Number of the payload; 0 for none.
    pub payload: U32,
    /// Stream.
    pub stream: U32,
    /// Complete: 0 or an errno. Memory: the byte of a fill. Ack: the vector.
    pub status: U16,
    /// Issue: [`OpFlags`](crate::base::OpFlags).
    pub flags: U16,
    /// One of `EVENT_*`.
    pub kind: u8,
    /// Issue: [`BlockOp`](crate::base::BlockOp). Bus: `BUS_*`. Memory: 1 write, 2 fill, 3 found.
    /// Irq: 1 it fired, 0 it went low. Ack: 1 with a vector, 0 without.
    pub op: u8,
    /// Issue, bus: CPU or [`CPU_UNKNOWN`]. Ack: CPU.
    pub cpu: U16,
}

const _: () = assert!(size_of::<Preamble>() == PREAMBLE_BYTES);
const _: () = assert!(size_of::<FrameHeader>() == FRAME_HEADER_BYTES);
const _: () = assert!(size_of::<Record>() == RECORD_BYTES);
const _: () = assert!(size_of::<PayloadEntry>() == PAYLOAD_ENTRY_BYTES);

/// `len` rounded up to the frames' alignment.
pub const fn padded(len: u64) -> u64 {
    len.next_multiple_of(FRAME_ALIGNMENT as u64)
}

/// Largest body that a frame of `kind` may have.
pub fn body_limit(kind: u16) -> u64 {
    match kind {
        KIND_SUMMARY | KIND_INDEX => METADATA_BYTES_MAX as u64,
        _ => FRAME_BYTES_MAX as u64,
    }
}

impl Preamble {
    /// The preamble of a file of this version.
    pub fn current() -> Self {
        let mut preamble = Self {
            magic: MAGIC,
            major: U16::new(MAJOR),
            minor: U16::new(MINOR),
            reader_version: READER_VERSION.map(U16::new),
            reserved: [0; 10],
            crc: U32::ZERO,
        };
        preamble.crc = U32::new(preamble.computed_crc());
        preamble
    }

    /// The CRC that its other fields ask for.
    pub fn computed_crc(&self) -> u32 {
        crc32c::crc32c(&self.as_bytes()[..PREAMBLE_BYTES - 4])
    }
}

impl FrameHeader {
    /// A header of `kind` that counts `count` items; everything else zero.
    pub fn new(kind: u16, count: u32) -> Self {
        let mut header = Self::new_zeroed();
        header.magic = FRAME_MAGIC;
        header.kind = U16::new(kind);
        header.count = U32::new(count);
        header
    }

    /// Fills in lengths and CRCs for a body given in parts, padding included, of which `len` bytes
    /// count.
    pub fn seal<'a>(&mut self, padded_body: impl IntoIterator<Item = &'a [u8]>, len: usize) {
        let crc = |crc, part: &'a [u8]| crc32c::crc32c_append(crc, part);
        self.body_len = U64::new(len as u64);
        self.body_crc = U32::new(padded_body.into_iter().fold(0, crc));
        self.header_crc = U32::new(self.computed_crc());
    }

    /// The CRC that its other fields ask for.
    pub fn computed_crc(&self) -> u32 {
        crc32c::crc32c(&self.as_bytes()[..FRAME_HEADER_BYTES - 4])
    }

    /// Bytes of the whole frame; saturating, as the length may be hostile.
    pub fn frame_bytes(&self) -> u64 {
        self.body_len.get().saturating_add(7).saturating_add(FRAME_HEADER_BYTES as u64) / 8 * 8
    }
}

/// bincode, as the file has it.
pub mod meta {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use crate::base::limits::{FRAME_BYTES_MAX, METADATA_BYTES_MAX};

    /// Bodies up to this are decoded with it as their limit, and so on upwards: a hostile length
    /// inside a body cannot ask for much more memory than the body itself takes.
    const SMALL_BYTES: usize = 64 << 10;

    type Layout =
        bincode::config::Configuration<bincode::config::LittleEndian, bincode::config::Fixint>;

    fn layout() -> Layout {
        bincode::config::standard().with_little_endian().with_fixed_int_encoding()
    }

    /// Encodes `value`.
    ///
    /// # Errors
    /// Says why not, when it has no encoding or is too large to be read back.
    pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
        let bytes = bincode::serde::encode_to_vec(value, layout()).map_err(|e| e.to_string())?;
        if bytes.len() > METADATA_BYTES_MAX {
            return Err(format!("{} bytes of metadata are too many", bytes.len()));
        }
        Ok(bytes)
    }

    /// Decodes a whole body.
    ///
    /// # Errors
    /// Says what is wrong with it, bytes left over included.
    pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
        match decode_prefix(bytes)? {
            (value, []) => Ok(value),
            (_, rest) => Err(format!("{} bytes follow its content", rest.len())),
        }
    }

    /// Decodes what a body begins with, and returns the rest too.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), String> {
        let decoded = if bytes.len() <= SMALL_BYTES {
            bincode::serde::decode_from_slice(bytes, layout().with_limit::<SMALL_BYTES>())
        } else if bytes.len() <= FRAME_BYTES_MAX {
            bincode::serde::decode_from_slice(bytes, layout().with_limit::<FRAME_BYTES_MAX>())
        } else {
            bincode::serde::decode_from_slice(bytes, layout().with_limit::<METADATA_BYTES_MAX>())
        };
        let (value, used): (T, usize) = decoded.map_err(|e| e.to_string())?;
        Ok((value, bytes.get(used..).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a record says, as bincode sees it.
    #[derive(serde::Serialize)]
    struct Fields {
        time: u64,
        offset: u64,
        len: u64,
        tag: u64,
        payload: u32,
        stream: u32,
        status: u16,
        flags: u16,
        kind: u8,
        op: u8,
        cpu: u16,
    }

    #[test]
    fn a_record_is_the_bytes_that_bincode_gives() {
        let fields = Fields {
            time: 0x0102_0304_0506_0708,
            offset: 0x1112_1314_1516_1718,
            len: 0x2122_2324_2526_2728,
            tag: 0x3132_3334_3536_3738,
            payload: 0x4142_4344,
            stream: 0x5152_5354,
            status: 0x6162,
            flags: 0x7172,
            kind: 0x81,
            op: 0x91,
            cpu: 0xa1a2,
        };
        let record = Record {
            time: fields.time.into(),
            offset: fields.offset.into(),
            len: fields.len.into(),
            tag: fields.tag.into(),
            payload: fields.payload.into(),
            stream: fields.stream.into(),
            status: fields.status.into(),
            flags: fields.flags.into(),
            kind: fields.kind,
            op: fields.op,
            cpu: fields.cpu.into(),
        };
        assert_eq!(record.as_bytes(), meta::encode(&fields).unwrap());
    }

    #[test]
    fn lengths_that_overflow_saturate() {
        let mut header = FrameHeader::new(KIND_EVENTS, 1);
        assert_eq!(header.frame_bytes(), 64);
        header.body_len = 1.into();
        assert_eq!(header.frame_bytes(), 72);
        header.body_len = u64::MAX.into();
        assert_eq!(header.frame_bytes(), u64::MAX / 8 * 8);
    }

    #[test]
    fn metadata_with_bytes_left_over_is_refused() {
        let mut bytes = meta::encode(&7u64).unwrap();
        assert_eq!(meta::decode::<u64>(&bytes), Ok(7));
        bytes.push(0);
        assert!(meta::decode::<u64>(&bytes).is_err());
        assert!(meta::decode::<u64>(&bytes[..7]).is_err());
    }
}
