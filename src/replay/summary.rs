//! What a run comes to: its report, filled from the accounts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use super::engine::{End, Outcome};
use super::on_machine::Replayed;
use super::options::Config;
use super::plan::{PlanCounts, queues_of};
use super::session::Session;
use crate::base::units::human_nanos;
use crate::driver::BlockDriver;
use crate::driver::virtio::{VirtioBlk, spec};
use crate::image::digest::hex;
use crate::machine::IoFailure;
use crate::report::{
    FaultReport, ImageReport, MachineReport, Report, RunStats, TimingReport, TimingStatus,
    TraceReport,
};
use crate::trace::NotRecorded;

/// What the device's queues are called among a machine's details.
const QUEUES: &str = "queues";

impl Session<'_> {
    /// Fills the report from what the run left behind: a target of `size` bytes; `checked`: every
    /// check was made.
    pub(super) fn fill(&self, report: &mut Report, replayed: Replayed, size: u64, checked: bool) {
        let config = self.config;
        let outcome = &replayed.outcome;
        report.complete = outcome.end == End::Complete && checked;
        report.interrupted = outcome.end == End::Interrupted || self.stop.load(Ordering::Relaxed);
        report.options = config.given.clone();
        report.settings = config.settings.clone();
        report.seed = config.seed;
        report.trace = TraceReport::of(&self.trace);
        report.target = self.target.report(config, size);
        report.fault = self.target.fault_report();
        report.comparison = self.comparison.as_deref().map(|image| ImageReport {
            path: config.comparison.as_deref().map(|p| p.display().to_string()).unwrap_or_default(),
            format: image.info().format.clone(),
            via: image.info().via.clone(),
            size: image.size(),
            created: false,
            snapshot: false,
        });
        report.duration_ns = outcome.finished - outcome.started;
        report.set_stats(&replayed.stats);
        report.timing = timing(config, &replayed.stats);
        report.run_log_sha256 = Some(hex(&replayed.log_sha256));
        self.notes(report, &replayed);
        report.machine = replayed.machine;
        report.verdict = replayed.oracle.finish();
        // Not every check was made.
        report.verdict.pass &= !report.interrupted;
    }

    /// What became of `device=all` and `num_queues=`.
    fn notes_of_streams(&self, report: &mut Report, replayed: &Replayed) {
        let devices = self.selection.devices;
        if devices > 1 {
            report.notes.push(format!(
                "{devices} devices were replayed onto one target, each at its own offsets, also \
                 where they overlap: device=NAME replays one"
            ));
        }
        let asked = self.config.queues;
        let has = replayed.machine.details.get(QUEUES).and_then(|text| text.parse().ok());
        let Some(has) = has.filter(|_| asked > 1) else { return };
        if has < asked {
            report.notes.push(format!("num_queues={asked}: the device has {has}"));
        }
        let streams = self.trace.streams().iter().map(|info| info.queue);
        let queues = queues_of(has, streams).into_iter().zip(self.trace.totals());
        let queues = queues.zip(self.selection.selected.iter()).filter(|(_, selected)| **selected);
        let used: BTreeSet<u16> = queues
            .filter(|((_, totals), _)| totals.issues.iter().any(|count| *count > 0))
            .map(|((queue, _), _)| queue)
            .collect();
        if used.len() < usize::from(has) {
            let used = used.len();
            report.notes.push(format!(
                "{used} of the device's {has} queues had requests: each stream of the trace goes to \
                 one, that of its recording or else the next in turn"
            ));
        }
    }

    fn notes(&self, report: &mut Report, replayed: &Replayed) {
        let (counts, outcome) = (&replayed.counts, &replayed.outcome);
        let mut note = |count: u64, what: &str| {
            if count > 0 {
                report.notes.push(format!("{count} {what}"));
            }
        };
        note(
            counts.flush_before,
            "requests with PREFLUSH: a flush was sent and awaited before each",
        );
        note(counts.flush_after, "requests with FUA: a flush was sent after each");
        note(
            counts.write_zeroes_as_data,
            "write-zeroes written as data: the device does not offer them",
        );
        note(counts.wrapped, "requests moved back into the disk (offset=wrap)");
        note(counts.clipped, "requests shortened to the disk's end");
        note(counts.rounded, "requests rounded to whole blocks (unaligned=round)");
        note(
            counts.rounded_restamped,
            "of those were writes whose recorded data was replaced by stamps",
        );
        note(replayed.recorded_errors, "requests failed in the recording");
        note(replayed.errors, "requests failed in the replay");
        note(
            outcome.recorded_lost,
            "requests of the recording have no completion, and no recorded latency",
        );
        if outcome.held_ns > 0 {
            let time = human_nanos(outcome.held_ns);
            report.notes.push(format!(
                "{time} in all were spent holding back requests that overlapped one in flight"
            ));
        }
        self.notes_of_streams(report, replayed);
        if let Some(event) = replayed.oracle.content_before() {
            report.notes.push(format!(
                "the disk had content before the recording began (the read of event {event} \
                 returned some): the new target has none, and such reads were compared with zeros; \
                 target_img= a copy of the disk as it was then compares them with what was recorded"
            ));
        }
        let lost =
            self.trace.summary().losses.iter().fold(0, |n: u64, l| n.saturating_add(l.count));
        if lost > 0 {
            report
                .notes
                .push(format!("the trace lacks {lost} records that were left out or lost when it was made: see qtrace info"));
        }
        if let Some(fault) = &report.fault {
            let FaultReport { fault, fired, writes } = fault;
            report.notes.push(match fired {
                true => format!("fault {fault} fired"),
                false => {
                    format!("fault {fault} never fired: only {writes} writes reached the image")
                }
            });
        }
        let sizes_differ =
            report.comparison.as_ref().is_some_and(|image| image.size != report.target.size);
        if self.target.is_new() && sizes_differ {
            let text = "the new target and the comparison image differ in size: target_size=, or \
                        qtrace import --device-size, sets the target's";
            report.notes.push(text.into());
        }
        if let Some(cut) = self.trace.truncation() {
            let why = &cut.why;
            report
                .notes
                .push(format!("the trace is cut short ({why}): what it holds was replayed"));
        }
        let lacks = self.trace.summary().not_recorded;
        if lacks.contains(NotRecorded::ISSUE_ORDER) {
            let text = "the recording has requests in order of completion: so were they issued";
            report.notes.push(text.into());
        }
        let guessed = !self.selection.size_recorded && self.config.target_bytes.is_none();
        if self.target.is_new() && guessed {
            let text = "the trace does not record the disk's size: the new target ends with its \
                        last request (target_size=, or qtrace import --device-size, sets it)";
            report.notes.push(text.into());
        }
        report.notes.extend(self.target.note(report.target.size));
        let size = report.target.size;
        if let Some(shown) = replayed.disk_bytes.filter(|shown| *shown != size) {
            let text = format!("the device showed a disk of {shown} bytes, the image has {size}");
            report.notes.push(text);
        }
        report.notes.extend(io_failure_note(&replayed.io_failures));
        if replayed.died {
            let text = "the machine died: what it had not written to the image by then is lost, and \
                        found to be wrong by the checks of the image";
            report.notes.push(text.into());
        }
        if self.config.verify_defaulted {
            report.notes.push("target null keeps nothing: verify=none".into());
        }
    }
}

/// What the machine said of the requests that failed on its image: how many, and the last.
fn io_failure_note(failures: &[IoFailure]) -> Option<String> {
    let IoFailure { operation, reason, .. } = failures.last()?;
    let count = failures.len();
    Some(format!(
        "the machine told of {count} failures on its image, the last: {operation}: {reason}"
    ))
}

/// Moves what the plan counted to where the report has it.
pub(super) fn count_in(stats: &mut RunStats, counts: &PlanCounts, outcome: &Outcome) {
    stats.held = outcome.held;
    stats.splits = counts.split;
    stats.expansions = counts.flush_before.saturating_add(counts.flush_after);
    stats.skipped("of another device", counts.other_device);
    stats.skipped("of no length", counts.empty);
    stats.skipped("discard is not offered by the device", counts.discards_not_offered);
    stats.skipped("flush is not offered by the device", counts.flushes_not_offered);
    stats.skipped("wholly past the end of the disk (offset=clip)", counts.clipped_out);
}

/// The features that a driver can negotiate, by the specification's names.
const FEATURES: &[(u64, &str)] = &[
    (spec::VIRTIO_BLK_F_SIZE_MAX, "VIRTIO_BLK_F_SIZE_MAX"),
    (spec::VIRTIO_BLK_F_SEG_MAX, "VIRTIO_BLK_F_SEG_MAX"),
    (spec::VIRTIO_BLK_F_RO, "VIRTIO_BLK_F_RO"),
    (spec::VIRTIO_BLK_F_BLK_SIZE, "VIRTIO_BLK_F_BLK_SIZE"),
    (spec::VIRTIO_BLK_F_FLUSH, "VIRTIO_BLK_F_FLUSH"),
    (spec::VIRTIO_BLK_F_MQ, "VIRTIO_BLK_F_MQ"),
    (spec::VIRTIO_BLK_F_DISCARD, "VIRTIO_BLK_F_DISCARD"),
    (spec::VIRTIO_BLK_F_WRITE_ZEROES, "VIRTIO_BLK_F_WRITE_ZEROES"),
    (spec::VIRTIO_F_INDIRECT_DESC, "VIRTIO_F_INDIRECT_DESC"),
    (spec::VIRTIO_F_EVENT_IDX, "VIRTIO_F_EVENT_IDX"),
    (spec::VIRTIO_F_VERSION_1, "VIRTIO_F_VERSION_1"),
    (spec::VIRTIO_F_ACCESS_PLATFORM, "VIRTIO_F_ACCESS_PLATFORM"),
];

fn feature_names(features: u64) -> Vec<String> {
    let has = FEATURES.iter().filter(|(bit, _)| features & bit != 0);
    has.map(|(_, name)| (*name).to_owned()).collect()
}

pub(super) fn machine_report(
    config: &Config,
    mut details: BTreeMap<String, String>,
    driver: Option<&VirtioBlk>,
) -> MachineReport {
    if let Some(limits) = driver.map(VirtioBlk::limits) {
        details.insert(QUEUES.to_owned(), limits.queues.to_string());
        details.insert("requests a queue holds".to_owned(), limits.depth_max.to_string());
    }
    MachineReport {
        kind: config.machine.kind().name().to_owned(),
        board: config.machine.setting("type").unwrap_or_default().to_owned(),
        device: match config.machine.kind().name() {
            "vhost-user" => "virtio-blk".to_owned(),
            _ => "virtio-blk-pci".to_owned(),
        },
        transport: driver.map_or("", VirtioBlk::interface).to_owned(),
        features: driver.map_or_else(Vec::new, |driver| feature_names(driver.features())),
        details,
    }
}

/// Whether a timed run kept to its plan.
fn timing(config: &Config, stats: &RunStats) -> TimingReport {
    if stats.lateness.count() == 0 {
        return TimingReport::default();
    }
    let (p99, budget) = (stats.lateness.quantile(0.99), config.lag_budget_ns);
    if p99 <= budget {
        return TimingReport { status: TimingStatus::Valid, why: String::new() };
    }
    let max = human_nanos(stats.lateness.max());
    let (p99, budget) = (human_nanos(p99), human_nanos(budget));
    let why = format!(
        "1 % of the requests were issued more than {p99} late (at most {max}); lag_budget is {budget}"
    );
    TimingReport { status: TimingStatus::Invalid, why }
}
