//! Which streams of a trace are replayed, and how large a disk they need.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{Error, Result, SECTOR_SIZE};
use crate::trace::Trace;

/// Devices listed in an error text.
const LISTED_MAX: usize = 12;

/// The streams of the device that `device=` chose.
pub struct Selection {
    /// For each stream, whether it takes part.
    pub selected: Arc<[bool]>,
    /// One past the last byte that any request of them names.
    pub end_bytes: u64,
    /// Size of a disk made for them: as the source says, or as their requests need.
    pub disk_bytes: u64,
    /// The source says how large their disk was.
    pub size_recorded: bool,
    /// Devices with requests that take part.
    pub devices: usize,
}

impl Selection {
    /// Chooses by device name; `all` takes every device, and none is needed for a trace of one.
    ///
    /// # Errors
    /// A usage error that lists the devices when the choice is missing or fits none.
    pub fn new(trace: &Trace, device: Option<&str>) -> Result<Self> {
        let mut devices: BTreeMap<&str, u64> = BTreeMap::new();
        for (info, totals) in trace.streams().iter().zip(trace.totals()) {
            *devices.entry(&info.device).or_default() += totals.issues.iter().sum::<u64>();
        }
        devices.retain(|_, issues| *issues > 0);
        let takes = |name: &str| match device {
            None | Some("all") => true,
            Some(device) => device == name,
        };
        let chosen = devices.keys().filter(|name| takes(name)).count();
        if chosen == 0 && device.is_some() && !devices.is_empty() {
            return Err(choose("device= names none of the trace's devices", &devices, trace));
        }
        if chosen > 1 && device.is_none() {
            return Err(choose("the trace holds several devices", &devices, trace));
        }
        let selected: Arc<[bool]> =
            trace.streams().iter().map(|info| takes(&info.device)).collect();
        let (mut end_bytes, mut disk_bytes, mut size_recorded) = (0u64, 0u64, false);
        let streams = trace.streams().iter().zip(trace.totals()).zip(selected.iter());
        for ((info, totals), _) in streams.filter(|(_, selected)| **selected) {
            let block = u64::from(info.block_bytes.unwrap_or(0)).max(SECTOR_SIZE);
            let needed = totals.end_bytes.checked_next_multiple_of(block).unwrap_or(u64::MAX);
            end_bytes = end_bytes.max(totals.end_bytes);
            size_recorded |= info.device_bytes.is_some();
            disk_bytes = disk_bytes.max(info.device_bytes.unwrap_or(0)).max(needed);
        }
        let disk_bytes = disk_bytes.max(SECTOR_SIZE);
        Ok(Self { selected, end_bytes, disk_bytes, size_recorded, devices: chosen })
    }
}

fn choose(what: &str, devices: &BTreeMap<&str, u64>, trace: &Trace) -> Error {
    let mut names: Vec<String> = devices
        .iter()
        .take(LISTED_MAX)
        .map(|(name, issues)| format!("'{name}' ({issues} requests)"))
        .collect();
    if devices.len() > LISTED_MAX {
        names.push(format!("and {} more", devices.len() - LISTED_MAX));
    }
    Error::usage(what)
        .path(trace.path())
        .hint(format!("give device=NAME or device=all: {}", names.join(", ")))
}
