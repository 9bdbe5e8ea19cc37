//! Which column of a row is what.

use crate::import::dataset::fields::{Fields, whole};
use crate::import::dataset::text::Device;

/// Where the columns are that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub operation: usize,
    pub sector: usize,
    pub size: usize,
    pub latency: Option<usize>,
    pub device: Option<usize>,
    /// Modifiers, where they do not stand with the operation.
    pub flags: Option<usize>,
    pub code: Option<usize>,
}

/// `timestamp,operation,pid,tid,command,sector,size,latency_ms,device,flags,cpu_id,ppid,
/// queue_latency_ms,command_flags,operation_code,request_id,mono_ns`; Windows ends with `irp`
/// behind the flags.
const ALIGNED: Columns = Columns {
    operation: 1,
    sector: 5,
    size: 6,
    latency: Some(7),
    device: Some(8),
    flags: Some(9),
    code: Some(14),
};
/// `timestamp,pid,command,sector,operation,size,latency_ms,tid,[nr_sectors,]cpu_id,ppid,dev,…`
const EARLY: Columns = Columns {
    operation: 4,
    sector: 3,
    size: 5,
    latency: Some(6),
    device: None,
    flags: None,
    code: Some(13),
};
/// Fewest columns of any version.
const COLUMNS_MIN: usize = 10;
/// Columns of versions that end with the parent's pid or name, or with the device.
const COLUMNS_SHORT: usize = 11;
/// Where early versions have the device, as `major:minor`.
const EARLY_DEVICES: [usize; 2] = [10, 11];

impl Columns {
    /// Those that a header names; `None` when it is that of another stream of the tool.
    pub fn named(header: Fields<'_>) -> Option<Self> {
        let find = |names: &[&[u8]]| {
            let is =
                |at: &usize| names.iter().any(|name| header.get(*at).eq_ignore_ascii_case(name));
            (0..header.len()).find(is)
        };
        Some(Self {
            operation: find(&[b"operation"])?,
            sector: find(&[b"sector"])?,
            size: find(&[b"size"])?,
            latency: find(&[b"latency_ms"]),
            device: find(&[b"device", b"dev"]),
            flags: find(&[b"flags"]),
            code: find(&[b"operation_code", b"op_code"]),
        })
    }

    /// Those of a row without a header; `None` when it is too short.
    pub fn of_row(row: Fields<'_>) -> Option<Self> {
        if row.len() < COLUMNS_MIN {
            return None;
        }
        if whole(row.get(1)).is_none() {
            return Some(ALIGNED);
        }
        let device = EARLY_DEVICES.into_iter().find(|at| row.get(*at).contains(&b':'));
        // The first version had the parent's name at the end, and no latency.
        let first = device.is_none()
            && row.len() == COLUMNS_SHORT
            && whole(row.get(COLUMNS_SHORT - 1)).is_none();
        Some(Self { device, latency: EARLY.latency.filter(|_| !first), ..EARLY })
    }

    /// The device of a row.
    pub fn device<'l>(&self, row: Fields<'l>) -> Device<'l> {
        match self.device.map(|at| row.get(at)) {
            None | Some(b"") => Device::Only,
            Some(name) => Device::Name(name),
        }
    }
}
