//! What was wrong, as precisely as it can be said.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::BlockOp;
use crate::machine::Obituary;

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The stable name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named!(
    /// Where a divergence was seen.
    FindingKind {
        /// A read returned something that no admissible history explains.
        DataMismatch = "data_mismatch",
        /// The target differs from the model after the run.
        ImageMismatch = "image_mismatch",
        /// The target differs from the comparison image.
        ComparisonMismatch = "comparison_mismatch",
        /// The target's size is not the comparison image's.
        SizeMismatch = "size_mismatch",
        /// A request failed.
        StatusError = "status_error",
        /// The device reported a used length that cannot be right (virtio 1.2 §2.7.8).
        BadUsedLength = "bad_used_length",
        /// The device stopped answering.
        DeviceHung = "device_hung",
        /// The device broke the ring protocol.
        ProtocolError = "protocol_error",
        /// The machine, a program of its own, came to an end that nobody asked for.
        MachineDied = "machine_died",
    }
);

named!(
    /// What the wrong bytes look like. See [`super::classify`] for the rules.
    Fault {
        /// A few bytes differ.
        FlippedBytes = "flipped_bytes",
        /// A write left no trace: all its sectors hold what was there before.
        DroppedWrite = "dropped_write",
        /// Two overlapping writes landed in the wrong order.
        SwappedWrites = "swapped_writes",
        /// Part of a write landed.
        TornWrite = "torn_write",
        /// Some sectors hold older content, in no pattern of the above.
        StaleData = "stale_data",
        /// Content that was written to another place.
        MisdirectedWrite = "misdirected_write",
        /// Content that this trace explains in no way.
        ForeignData = "foreign_data",
    }
);

/// Bytes that stand as hexadecimal text in JSON.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hex({self})")
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: Option<Vec<u8>> =
            text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
        match digits {
            Some(digits) if digits.len() % 2 == 0 => {
                Ok(Self(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
            }
            _ => Err(serde::de::Error::custom(format!("'{text}' is not hexadecimal bytes"))),
        }
    }
}

/// A request of the trace, as a finding names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRef {
    /// Number of the event.
    pub event: u64,
    /// Which pass over the trace, from 0.
    #[serde(rename = "loop", default)]
    pub pass: u64,
    /// What it asked.
    pub op: BlockOp,
    /// Byte offset in the trace.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// When the recording issued it, from the trace's origin.
    pub time_ns: u64,
}

impl fmt::Display for EventRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, pass, op, offset, len, .. } = self;
        write!(f, "event {event} ({op} of {len} bytes at offset {offset}")?;
        if *pass > 0 {
            write!(f, ", pass {}", pass + 1)?;
        }
        f.write_str(")")
    }
}

/// A range of the disk in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Ranges and byte offsets that a finding lists; further ones are only counted.
pub const LISTED_MAX: usize = 16;

/// Bytes shown around the first difference.
pub const SHOWN_BYTES: usize = 64;

/// One divergence: the device was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Where it was seen.
    pub kind: FindingKind,
    /// What the wrong bytes look like, where bytes were wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// What else would have left the same bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Fault>,
    /// One line for people.
    pub message: String,
    /// The event that saw it (a read, a failed request); for what only the image shows, the event
    /// whose write is wrong.
    pub event: Option<u64>,
    /// Which pass over the trace that event was in, from 0.
    #[serde(rename = "loop", default)]
    pub pass: u64,
    /// Byte offset on the target of the first wrong byte.
    pub offset: Option<u64>,
    /// Sector of that byte.
    pub sector: Option<u64>,
    /// Bytes in wrong sectors.
    #[serde(default)]
    pub bytes: u64,
    /// The wrong ranges, the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<ByteRange>,
    /// For flipped bytes: their byte offsets on the target, the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flipped: Vec<u64>,
    /// Byte offset on the target of the first byte of `expected` and `got`.
    #[serde(default)]
    pub shown_from: u64,
    /// What should have been there.
    #[serde(default)]
    pub expected: Hex,
    /// What was.
    #[serde(default)]
    pub got: Hex,
    /// The write that defined the sector last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_writer: Option<EventRef>,
    /// The write whose content was found instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_writer: Option<EventRef>,
    /// How often it was seen: reads of the same damage are one finding.
    #[serde(default = "one")]
    pub occurrences: u64,
    /// How the machine died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obituary: Option<Obituary>,
}

fn one() -> u64 {
    1
}

impl Finding {
    /// A finding with nothing but its kind and message.
    pub fn new(kind: FindingKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            fault: None,
            alternatives: Vec::new(),
            message: message.into(),
            event: None,
            pass: 0,
            offset: None,
            sector: None,
            bytes: 0,
            ranges: Vec::new(),
            flipped: Vec::new(),
            shown_from: 0,
            expected: Hex::default(),
            got: Hex::default(),
            last_writer: None,
            found_writer: None,
            occurrences: 1,
            obituary: None,
        }
    }

    /// The name that says most: the fault's where there is one, else the kind's.
    pub fn name(&self) -> &'static str {
        self.fault.map_or(self.kind.name(), Fault::name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_json_are_the_names_in_text() {
        for kind in [FindingKind::DataMismatch, FindingKind::BadUsedLength] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        for fault in [Fault::FlippedBytes, Fault::SwappedWrites, Fault::MisdirectedWrite] {
            assert_eq!(serde_json::to_string(&fault).unwrap(), format!("\"{fault}\""));
        }
    }

    #[test]
    fn bytes_are_hexadecimal() {
        let hex = Hex(vec![0, 0x1f, 0xff]);
        assert_eq!(serde_json::to_string(&hex).unwrap(), "\"001fff\"");
        assert_eq!(serde_json::from_str::<Hex>("\"001fff\"").unwrap(), hex);
        for bad in ["\"0\"", "\"0g\"", "\"+1\"", "\"é\""] {
            assert!(serde_json::from_str::<Hex>(bad).is_err(), "{bad}");
        }
    }
}
