//! What was read, and what differed, by region and register.

use std::collections::HashMap;

use super::functions::Functions;
use super::policy::{Policy, Rule, Rules, policy_of, rule_of};
use super::regions::{Named, Place, REGIONS, Register, may_begin_io};
use crate::base::limits::FINDINGS_MAX;
use crate::base::{BusAccess, Nanos};
use crate::machine::builtin::Chips;
use crate::report::bus::{Mismatch, MismatchReport, ReadCounts, RegionReport};
use crate::trace::{StreamId, StreamInfo};

/// Mismatches of one register that are kept.
pub const FIRST_KEPT: usize = 3;

/// Registers with mismatches that are listed: a report that somebody can read, ten times over.
const GROUPS_MAX: usize = 10 * FINDINGS_MAX;

/// What rules may be for and is no region of a trace.
const NO_REGIONS: &[&str] = &["memory", "interrupts", "acknowledge", "intx", "intx-level"];

/// A region of the trace as this machine sees it.
#[derive(Debug)]
pub struct Region {
    name: String,
    device: &'static str,
    /// Whether the machine has the device.
    pub modelled: bool,
    /// A write to it may begin I/O.
    begins_io: bool,
    rules: Vec<Rule>,
    writes: u64,
    reads: ReadCounts,
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The recorded value.
    Equal,
    /// Another, and the policy allows that one.
    Within,
    /// Another, and the policy is not to look.
    Ignored,
    /// Another than the policy asks.
    Different,
}

/// Regions found so far, and mismatches.
#[derive(Debug)]
pub struct Tally {
    rules: Rules,
    has: Has,
    streams: Vec<Stream>,
    regions: Vec<Region>,
    groups: Vec<MismatchReport>,
    by_key: HashMap<(usize, Register), usize>,
    /// Names of what is no region: memory, interrupts.
    others: Vec<&'static str>,
    unlisted: u64,
}

/// A stream of the trace: what its name says, and the regions that its accesses led to.
#[derive(Debug)]
struct Stream {
    name: String,
    named: Named,
    regions: Vec<(Place, usize)>,
}

/// What of a trace's regions a machine has.
#[derive(Clone, Copy, Debug)]
pub struct Has {
    /// The chips on its board.
    pub chips: Chips,
    /// Whether it has a virtio disk.
    pub disks: bool,
    /// Whether it may have anything else.
    pub others: bool,
}

impl Has {
    /// Everything: what the recording has, the machine had.
    pub const ALL: Self = Self { chips: Chips::all(), disks: true, others: true };
}

impl Tally {
    /// Nothing yet; for the streams of a trace and a machine.
    pub fn new(rules: Rules, has: Has, streams: &[StreamInfo]) -> Self {
        let stream = |info: &StreamInfo| Stream {
            name: info.device.clone(),
            named: Named::new(&info.device),
            regions: Vec::new(),
        };
        Self {
            rules,
            has,
            streams: streams.iter().map(stream).collect(),
            regions: Vec::new(),
            groups: Vec::new(),
            by_key: HashMap::new(),
            others: Vec::new(),
            unlisted: 0,
        }
    }

    /// Where an access of a stream belongs, and the number of its region.
    pub fn locate(
        &mut self,
        stream: StreamId,
        access: &BusAccess,
        functions: &mut Functions,
    ) -> (Place, usize) {
        let at = stream.0 as usize;
        let named = self.streams.get(at).map_or(Named::Nameless, |stream| stream.named);
        let place = match named.place(access) {
            Place::Nameless(space) => {
                functions.find(access).map_or(Place::Nameless(space), Place::Known)
            }
            place => place,
        };
        let known = self.streams.get(at).and_then(|stream| {
            stream.regions.iter().find(|(known, _)| *known == place).map(|(_, region)| *region)
        });
        if let Some(region) = known {
            return (place, region);
        }
        let name = self.streams.get(at).map(|stream| stream.name.as_str()).unwrap_or_default();
        let region = self.region(place, named, name);
        self.regions.push(region);
        let number = self.regions.len() - 1;
        if let Some(stream) = self.streams.get_mut(at) {
            stream.regions.push((place, number));
        }
        (place, number)
    }

    fn region(&self, place: Place, named: Named, name: &str) -> Region {
        let (name, device, modelled, known_as) = match place {
            Place::Known(at) => {
                let (known, device, chips) = REGIONS
                    .get(at)
                    .map_or(("", "", Chips::empty()), |r| (r.name, r.device, r.chips));
                let nameless = named == Named::Nameless;
                let name = if nameless { known.trim_end_matches('*') } else { name };
                let there =
                    self.has.chips.contains(chips) && (device != "virtio-blk" || self.has.disks);
                (name, device, there, known)
            }
            Place::Nameless(space) => {
                let name = if name.is_empty() { space.name() } else { name };
                (name, "", true, name)
            }
            Place::Foreign => (name, "", self.has.others, name),
        };
        Region {
            name: name.to_owned(),
            device,
            modelled,
            begins_io: may_begin_io(name),
            rules: self.rules.for_region(&[name, known_as], device),
            writes: 0,
            reads: ReadCounts::default(),
        }
    }

    /// The policy of a register.
    pub fn policy(&self, region: usize, register: Register, size: u8) -> Policy {
        let rules = self.regions.get(region).map(|region| region.rules.as_slice());
        policy_of(rules.unwrap_or_default(), register, size)
    }

    /// The rule for a register, if there is one.
    pub fn rule(&self, region: usize, register: Register, size: u8) -> Option<&Rule> {
        let region = self.regions.get(region)?;
        rule_of(&region.rules, register, size)
    }

    /// The name of a region.
    pub fn name(&self, region: usize) -> &str {
        self.regions.get(region).map_or("", |region| &region.name)
    }

    /// The policy of what is no region.
    pub fn policy_of_other(&self, name: &'static str, kind: &str, register: Register) -> Policy {
        policy_of(&self.rules.for_region(&[name, kind], ""), register, 1)
    }

    /// The rule for what is no region, if there is one: its number and what it asks.
    pub fn rule_of_other(
        &self,
        name: &'static str,
        kind: &str,
        register: Register,
    ) -> Option<(usize, Policy)> {
        let rules = self.rules.for_region(&[name, kind], "");
        rule_of(&rules, register, 1).map(|rule| (rule.number(), rule.policy()))
    }

    /// What the user's rules are for and is not in the trace, in words.
    pub fn idle_rules(&self) -> Vec<String> {
        let mut names = NO_REGIONS.to_vec();
        names.extend(self.streams.iter().map(|stream| stream.name.as_str()));
        names.extend(self.regions.iter().flat_map(|r| [r.name.as_str(), r.device]));
        let idle = self.rules.idle(&names).into_iter();
        idle.map(|rule| format!("policy={rule}…: the trace has no such region or device")).collect()
    }

    /// Counts a write; whether it may have begun I/O.
    pub fn write(&mut self, region: usize) -> bool {
        let Some(region) = self.regions.get_mut(region) else { return false };
        region.writes += 1;
        region.begins_io
    }

    /// Counts a read; whether it is a divergence.
    pub fn read(&mut self, region: usize, answer: Answer) -> bool {
        let Some(region) = self.regions.get_mut(region) else { return false };
        let counts = &mut region.reads;
        counts.reads += 1;
        match answer {
            Answer::Equal => counts.equal += 1,
            Answer::Within => counts.within += 1,
            Answer::Ignored => counts.ignored += 1,
            Answer::Different => counts.different += 1,
        }
        answer == Answer::Different && region.modelled
    }

    /// Keeps what differed in a register of a region.
    pub fn differs(&mut self, region: usize, register: Register, found: Found) {
        let name = self.regions.get(region).map(|region| region.name.clone()).unwrap_or_default();
        self.keep(region, name, register.to_string(), register, found);
    }

    /// Keeps what differed in something that is no region.
    pub fn differs_in(&mut self, name: &'static str, what: String, key: Register, found: Found) {
        let number = self.others.iter().position(|known| *known == name);
        let number = number.unwrap_or_else(|| {
            self.others.push(name);
            self.others.len() - 1
        });
        // Their keys count down from the end, where no region is.
        self.keep(usize::MAX - number, name.to_owned(), what, key, found);
    }

    fn keep(&mut self, region: usize, name: String, register: String, key: Register, found: Found) {
        let at = match self.by_key.get(&(region, key)) {
            Some(at) => *at,
            None if self.groups.len() >= GROUPS_MAX => {
                self.unlisted += 1;
                return;
            }
            None => {
                let group = MismatchReport { region: name, register, count: 0, first: Vec::new() };
                self.groups.push(group);
                self.by_key.insert((region, key), self.groups.len() - 1);
                self.groups.len() - 1
            }
        };
        if let Some(group) = self.groups.get_mut(at) {
            group.count += 1;
            if group.first.len() < FIRST_KEPT {
                group.first.push(found.into());
            }
        }
    }

    /// Reads of modelled devices, and of others.
    pub fn reads(&self) -> (ReadCounts, ReadCounts) {
        let mut sums = (ReadCounts::default(), ReadCounts::default());
        for region in &self.regions {
            let sum = if region.modelled { &mut sums.0 } else { &mut sums.1 };
            sum.add(&region.reads);
        }
        sums
    }

    /// Regions, mismatches, and how many mismatches are in neither.
    pub fn finish(self) -> (Vec<RegionReport>, Vec<MismatchReport>, u64) {
        let mut reports: Vec<RegionReport> = Vec::new();
        for region in self.regions {
            let same = |r: &&mut RegionReport| r.name == region.name && r.device == region.device;
            if let Some(report) = reports.iter_mut().find(same) {
                report.writes += region.writes;
                report.reads.add(&region.reads);
                continue;
            }
            reports.push(RegionReport {
                name: region.name,
                device: region.device.to_owned(),
                modelled: region.modelled,
                writes: region.writes,
                reads: region.reads,
            });
        }
        reports.sort_by(|a, b| b.reads.reads.cmp(&a.reads.reads).then(b.writes.cmp(&a.writes)));
        (reports, self.groups, self.unlisted)
    }
}

/// A check that failed.
#[derive(Debug)]
pub struct Found {
    /// The event.
    pub event: u64,
    /// When it was recorded.
    pub time: Nanos,
    /// What the recording has.
    pub expected: String,
    /// What the machine did.
    pub got: String,
}

impl From<Found> for Mismatch {
    fn from(found: Found) -> Self {
        let Found { event, time, expected, got } = found;
        Self { event, time_ns: time.0, expected, got }
    }
}
