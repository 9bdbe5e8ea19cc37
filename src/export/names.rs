//! Names of devices as a format wants them: from those of the trace, and distinct as those are.

use std::collections::{BTreeMap, BTreeSet};

use super::job::Job;
use crate::trace::StreamId;

/// A name for each stream; streams of one device share it.
pub struct Names(Vec<String>);

impl Names {
    /// Names for the streams of the job that have requests or marks. `from_device` makes a name of a device's; what two devices
    /// would share is made distinct by `numbered`, which gets the name and a number and must make
    /// another name of each number. A note says
    /// what became of those that changed.
    pub fn new(
        job: &mut Job<'_>,
        from_device: impl Fn(&str) -> String,
        numbered: impl Fn(&str, u32) -> String,
    ) -> Self {
        let mut by_device: BTreeMap<&str, String> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        let mut names = Vec::new();
        let streams = job.trace.streams().iter().zip(job.trace.totals());
        for (number, (info, totals)) in (0..).zip(streams) {
            // A region of a bus needs no name among disks.
            let bare = totals.marks == 0 && totals.issues.iter().all(|n| *n == 0);
            if bare || !job.has_stream(StreamId(number)) {
                names.push(String::new());
                continue;
            }
            let name = by_device.entry(&info.device).or_insert_with(|| {
                let name = from_device(&info.device);
                // Begun at the stream's number: a thousand devices are not counted through.
                let others = (number..).map(|n| numbered(&name, n));
                let mut free = std::iter::once(name.clone()).chain(others);
                let name = free.find(|name| !taken.contains(name)).unwrap_or(name);
                taken.insert(name.clone());
                if name != info.device {
                    let device = info.device.escape_debug();
                    job.summary.note(format!("device '{device}' is called '{name}'"));
                }
                name
            });
            names.push(name.clone());
        }
        Self(names)
    }

    /// One name for the streams of the job, whatever their devices.
    pub fn one(job: &Job<'_>, name: &str) -> Self {
        let has = |number| job.has_stream(StreamId(number));
        let streams = (0..).zip(job.trace.streams()).map(|(number, _)| has(number));
        Self(streams.map(|has| if has { name.to_owned() } else { String::new() }).collect())
    }

    /// The name of a stream.
    pub fn of(&self, stream: StreamId) -> &str {
        self.0.get(stream.0 as usize).map_or("", String::as_str)
    }

    /// Every name, once, in order of first appearance.
    pub fn all(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let names = self.0.iter().map(String::as_str).filter(|name| !name.is_empty());
        names.filter(|name| seen.insert(*name)).collect()
    }
}
