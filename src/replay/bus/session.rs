//! A whole replay of a bus trace: open, build, run, report.

use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime};

use super::engine::{Engine, Outcome};
use super::options::{Config, Plan};
use super::regions::REGIONS;
use super::tally::Has;
use crate::base::{Error, ErrorKind, Result};
use crate::machine::Machine;
use crate::machine::builtin::Chips;
use crate::replay::output::{Output, OutputKind};
use crate::report::bus::{BUS_SCHEMA, BusReport, BusVerdict, Death, RegionReport, ppm};
use crate::report::{TraceReport, WallReport, json};
use crate::suite::bus_machine::BusMachine;
use crate::suite::machines::MachineChoice;
use crate::trace::Trace;

/// Replays a bus trace as `config` says. `stop` ends it early; `progress` gets the event reached
/// and how many there are.
///
/// # Errors
/// Whatever kept the job from being done. A device that was wrong is no error: see the report.
pub fn run(
    config: &Config,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BusReport> {
    let started = (Instant::now(), SystemTime::now());
    let report_file = config
        .report
        .as_deref()
        .map(|path| Output::create(OutputKind::Report, path))
        .transpose()?;
    let trace = Trace::open(&config.trace)?;
    check_trace(config, &trace)?;
    let plan = config.plan(&trace)?;
    let mut built = config.machine.build_for_bus(&plan.machine)?;
    let mut report = replay(&trace, &plan, has(&plan, &built), &mut *built.machine, stop, progress)
        .map_err(|error| error.path(&config.trace))?;
    config.test.clone_into(&mut report.test);
    report.machine = built.text;
    report.notes.extend(notes(&config.machine, &report.regions));
    report.wall = WallReport::since(started);
    if let Some(mut file) = report_file {
        file.write(json::to_text(&report)?.as_bytes())?;
        file.finish()?;
    }
    Ok(report)
}

/// Why a machine has not what the regions that are not modelled are of.
pub(super) fn notes_of_lacks(machine: &MachineChoice, regions: &[RegionReport]) -> Vec<String> {
    let mut notes = Vec::new();
    for region in regions.iter().filter(|region| !region.modelled) {
        let known = REGIONS.iter().find(|known| known.device == region.device);
        let chips = known.map_or(Chips::empty(), |known| known.chips);
        let lack = machine.kind().lacks().iter().find(|lack| lack.chips.intersects(chips));
        notes.extend(lack.map(|lack| format!("{}: {}", region.name, lack.why)));
    }
    notes
}

/// Why devices of the trace are not as they were, as far as it is the machine's.
fn notes(machine: &MachineChoice, regions: &[RegionReport]) -> Vec<String> {
    let mut notes = notes_of_lacks(machine, regions);
    let absent = |region: &&RegionReport| region.device.is_empty() && region.reads.different > 0;
    let absent: Vec<&str> =
        regions.iter().filter(absent).map(|region| region.name.as_str()).collect();
    if machine.setting("defaults") == Some("off") && !absent.is_empty() {
        notes.push(format!(
            "other devices than the recorded ones may be here: {}; --machine qemu,defaults=on has \
             those that QEMU adds unless told not to, args= any others",
            absent.join(", ")
        ));
    }
    notes
}

/// What of the regions of its trace a machine has.
fn has(plan: &Plan, built: &BusMachine) -> Has {
    let disks = !plan.machine.disks.is_empty();
    match (plan.tap, built.others) {
        // A tap's names of regions are ours, and what answered was the machine, chip or no chip.
        (true, false) => Has::ALL,
        (_, others) => Has { chips: built.chips, disks: disks || plan.tap, others },
    }
}

/// Replays `trace` on a machine that is there already, as new, and is quit in the end.
///
/// # Errors
/// As [`run`].
pub fn replay(
    trace: &Trace,
    plan: &Plan,
    has: Has,
    machine: &mut dyn Machine,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BusReport> {
    let total = trace.events();
    let clock = machine.clock();
    let start = clock.now();
    let engine = Engine::new(trace, plan, has, machine, stop)?;
    let outcome = engine.run(&mut |event| progress(event, total))?;
    let mut report = fill(trace, plan, outcome);
    report.time_grade = clock.grade();
    report.duration_ns = clock.now() - start;
    Ok(report)
}

/// The exit code that a report stands for.
pub fn exit_code(report: &BusReport) -> u8 {
    match (report.interrupted, report.verdict.pass) {
        (true, _) => ErrorKind::Interrupted.exit_code(),
        (false, true) if report.verdict.checks == 0 && report.foreign.reads > 0 => {
            ErrorKind::Nothing.exit_code()
        }
        // What was there is right; what was cut off nobody knows.
        (false, true) if !report.complete => ErrorKind::Incomplete.exit_code(),
        (false, true) => 0,
        (false, false) => 1,
    }
}

pub(super) fn check_trace(config: &Config, trace: &Trace) -> Result<()> {
    let bus = |totals: &crate::trace::StreamTotals| totals.bus.events() > 0;
    if trace.totals().iter().any(bus) {
        return Ok(());
    }
    if trace.events() == 0 && trace.truncation().is_some() {
        let what = "the trace is cut short before its first event";
        return Err(Error::input(what).path(&config.trace));
    }
    let error = Error::new(ErrorKind::Nothing, "the trace holds no event of a bus");
    let requests = trace.totals().iter().any(|totals| totals.issues.iter().any(|n| *n > 0));
    Err(error.path(&config.trace).hint(match requests {
        true => "it is a block trace: qtrace replay --test block-trace-virtio",
        false => "see qtrace info",
    }))
}

fn fill(trace: &Trace, plan: &Plan, outcome: Outcome) -> BusReport {
    let Outcome { tally, done, other_checks, interrupted, died, mut notes } = outcome;
    notes.extend(tally.idle_rules());
    let (modelled, foreign) = tally.reads();
    let (regions, mismatches, mismatches_unlisted) = tally.finish();
    let died = died.map(|(event, obituary)| Death { event, obituary });
    let deaths = u64::from(died.is_some());
    let checks = modelled.reads + other_checks.0 + deaths;
    let divergences = modelled.different + other_checks.1 + deaths;
    let right_ppm = ppm(checks.saturating_sub(divergences), checks);
    let complete = !interrupted && died.is_none() && trace.truncation().is_none();
    BusReport {
        schema: BUS_SCHEMA.to_owned(),
        qtrace: env!("CARGO_PKG_VERSION").to_owned(),
        complete,
        interrupted,
        test: String::new(),
        machine: String::new(),
        settings: plan.settings.clone(),
        trace: TraceReport::of(trace),
        time_grade: crate::base::TimeGrade::Deterministic,
        duration_ns: 0,
        done,
        modelled,
        foreign,
        regions,
        mismatches,
        mismatches_unlisted,
        died,
        verdict: BusVerdict {
            pass: deaths == 0 && right_ppm >= plan.fail_below_ppm,
            checks,
            divergences,
            right_ppm,
            fail_below_ppm: plan.fail_below_ppm,
            equal_ppm: ppm(modelled.equal + foreign.equal, modelled.reads + foreign.reads),
        },
        notes,
        wall: WallReport::default(),
    }
}
