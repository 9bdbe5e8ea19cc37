//! What is recorded of a test happens again, and one changed value is found.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::tap_dir::TapDir;
use crate::replay::bus::options::{Config, MMIO_TEST};
use crate::replay::bus::session;
use crate::report::bus::BusReport;
use crate::suite::registry::MODULES;
use crate::suite::runner::{self, RunOptions};
use crate::suite::{Status, SuiteReport, machines::MachineChoice, select};
use crate::trace::{
    BusEvent, Event, Mark, MemoryEvent, PayloadRef, Trace, TraceHeader, TraceSummary, TraceWriter,
};

/// Records every case that `words` select and that has a virtual clock.
fn record(folder: &Path, words: &[&str]) -> (Arc<TapDir>, SuiteReport) {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let mut plan = select::plan(MODULES, &words).unwrap();
    plan.retain(|planned| !planned.case.real_time);
    let taps = Arc::new(TapDir::create(folder).unwrap());
    let options = RunOptions {
        around: Some(Arc::clone(&taps) as _),
        ..RunOptions::new(MachineChoice::parse("builtin").unwrap())
    };
    let report = runner::run(&plan, &options, &AtomicBool::new(false), &mut |_| ()).unwrap();
    (taps, report)
}

fn replay(path: &Path) -> BusReport {
    let config = Config::parse(MMIO_TEST, &[format!("tracefile={}", path.display())]).unwrap();
    session::run(&config, &AtomicBool::new(false), &mut |_, _| ()).unwrap()
}

/// Copies a trace with event `number` as `change` makes it.
fn copy(from: &Trace, to: &Path, number: u64, change: impl Fn(BusEvent) -> BusEvent) {
    let header: TraceHeader = from.header().clone();
    let mut writer = TraceWriter::create(to, header).unwrap();
    for info in from.streams() {
        writer.stream(info.clone()).unwrap();
    }
    let mut cursor = from.cursor(0);
    while let Some((at, event)) = cursor.next().unwrap() {
        let event = match event {
            Event::Bus(bus) if at == number => Event::Bus(change(bus)),
            Event::Mark(mark) => {
                let mut text = vec![0; mark.text_len as usize];
                from.read_payload(mark.text, mark.text_len, 0, &mut text).unwrap();
                Event::Mark(Mark { text: writer.payload(&text).unwrap(), ..mark })
            }
            Event::Memory(memory) if memory.payload != PayloadRef::Absent => {
                let mut bytes = vec![0; memory.len as usize];
                from.read_payload(memory.payload, memory.len, 0, &mut bytes).unwrap();
                let payload = writer.payload(&bytes).unwrap();
                Event::Memory(MemoryEvent { payload, ..memory })
            }
            event => event,
        };
        writer.event(&event).unwrap();
    }
    let summary = from.summary().clone();
    writer.finish(TraceSummary { streams: Vec::new(), ..summary }).unwrap();
}

/// The read in the middle of a trace, if it has one.
fn some_read(trace: &Trace) -> Option<(u64, BusEvent)> {
    let reads: u64 = trace.totals().iter().map(|totals| totals.bus.reads()).sum();
    let mut cursor = trace.cursor(0);
    let mut seen = 0;
    while let Some((number, event)) = cursor.next().unwrap() {
        if let Event::Bus(bus) = event
            && !bus.access.write
        {
            seen += 1;
            if seen > reads / 2 {
                return Some((number, bus));
            }
        }
    }
    None
}

#[test]
fn a_tap_of_every_test_replays_and_a_flipped_value_is_one_divergence() {
    let folder = tempfile::tempdir().unwrap();
    let (taps, report) = record(folder.path(), &[]);
    let mut replayed = 0;
    for case in report.cases.iter().filter(|case| case.status != Status::Skipped) {
        let name = case.name();
        // Recorded or not, a test goes the same way.
        assert_eq!(case.status, Status::Passed, "{name}: {:?} {}", case.finding, case.reason);
        let path = taps.file(&name);
        let report = replay(&path);
        let shown = crate::report::bus_text::render(&report);
        assert_eq!(report.verdict.divergences, 0, "{name}:\n{shown}");
        assert!(report.verdict.pass && report.complete, "{name}:\n{shown}");
        assert_eq!(report.done.left_out, 0, "{name}:\n{shown}");
        let trace = Trace::open(&path).unwrap();
        let Some((number, read)) = some_read(&trace) else { continue };
        let flipped = folder.path().join("flipped.qtrace");
        copy(&trace, &flipped, number, |mut bus| {
            bus.access.value ^= 1;
            bus
        });
        let report = replay(&flipped);
        let shown = crate::report::bus_text::render(&report);
        assert_eq!(report.verdict.divergences, 1, "{name}:\n{shown}");
        assert!(!report.verdict.pass);
        let [group] = report.mismatches.as_slice() else { panic!("{name}:\n{shown}") };
        assert_eq!((group.count, group.first[0].event), (1, number), "{name}");
        let region = &trace.streams()[read.stream.0 as usize].device;
        let same = group.region == *region || ["port", "mmio"].contains(&group.region.as_str());
        assert!(same, "{name}: {} for {region}", group.region);
        replayed += 1;
    }
    let passed = report.cases.iter().any(|case| case.status == Status::Passed);
    assert!(replayed > 0 || !passed, "nothing was replayed");
}
