//! A whole comparison: open, build both, run, report.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime};

use super::accepted::{self, Entry};
use super::engine::{Allowed, Duel, Outcome, Which};
use crate::base::{Error, ErrorKind, Result};
use crate::machine::builtin::Board;
use crate::machine::{Capabilities, Machine};
use crate::replay::bus::options::{Config, Plan, tapped};
use crate::replay::bus::session::{check_trace, notes_of_lacks};
use crate::replay::bus::tally::{Found, Has};
use crate::replay::output::{Output, OutputKind};
use crate::report::against::{
    AGAINST_SCHEMA, AcceptedGroup, AgainstReport, Difference, DifferenceGroup, PairCounts,
    PairDeath, PairRegion, PairVerdict,
};
use crate::report::bus::{Death, Mismatch, MismatchReport, ReadCounts, RegionReport};
use crate::report::{TraceReport, WallReport, json};
use crate::suite::bus_machine::BusMachine;
use crate::suite::machines::MachineChoice;
use crate::trace::Trace;

/// What may not be said of the second machine: it is the first again, of another kind.
const OF_THE_FIRST: &[&str] = &["ram", "cpus"];

/// Refuses a second machine that has no bus, or is described as another than the first.
///
/// # Errors
/// A usage error that names the machine or the option.
pub fn check(against: &MachineChoice) -> Result<()> {
    // A kind that has no bus says so.
    against.basics()?;
    let kind = against.kind().name();
    match OF_THE_FIRST.iter().find(|key| against.has(key)) {
        Some(key) => {
            let what = format!("--against {kind},{key}=… describes another machine");
            Err(Error::usage(what).hint("chipset, memory and CPUs are those of the first machine"))
        }
        None => Ok(()),
    }
}

/// Compares the machine of `config` and another of the kind `against` over a bus trace. `stop` ends
/// it early; `progress` gets the event reached and how many there are.
///
/// # Errors
/// Whatever kept the job from being done. Machines that differ are no error: see the report.
pub fn run(
    config: &Config,
    against: &MachineChoice,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<AgainstReport> {
    let started = (Instant::now(), SystemTime::now());
    check(against)?;
    let report_file = config
        .report
        .as_deref()
        .map(|path| Output::create(OutputKind::Report, path))
        .transpose()?;
    let trace = Trace::open(&config.trace)?;
    check_trace(config, &trace)?;
    let plan = config.plan(&trace)?;
    check_board(against, plan.machine.board)?;
    let mut first = config.machine.build_for_bus(&plan.machine)?;
    let mut second = against.build_for_bus(&plan.machine)?;
    check_clocks(&first, &second)?;
    let entries = match config.accepts() {
        true => {
            let kinds = [&config.machine, against].map(|machine| machine.kind().name());
            accepted::entries(tapped(trace.header()), kinds)
        }
        false => Vec::new(),
    };
    let rules = config.rules_against(rules(&entries).map(|(_, rule)| rule))?;
    let has = has(&plan, &first, &second);
    let machines: [&mut dyn Machine; 2] = [&mut *first.machine, &mut *second.machine];
    let clocks = [machines[0].clock(), machines[1].clock()];
    let start = clocks[0].now();
    let duel = Duel::new(&trace, (&plan, rules, has), machines, stop)?;
    let total = trace.events();
    let outcome =
        duel.run(&mut |event| progress(event, total)).map_err(|e| e.path(&config.trace))?;
    let mut report = fill(&trace, &plan, (config.test, &entries), outcome);
    report.time_grades = clocks.each_ref().map(|clock| clock.grade());
    report.duration_ns = clocks[0].now() - start;
    report.machines = [first.text, second.text];
    for machine in [&config.machine, against] {
        report.notes.extend(notes_of_lacks(machine, &lacking(&report.regions)));
    }
    report.notes.dedup();
    report.settings.insert("against".to_owned(), against.text().to_owned());
    report.wall = WallReport::since(started);
    if let Some(mut file) = report_file {
        file.write(json::to_text(&report)?.as_bytes())?;
        file.finish()?;
    }
    Ok(report)
}

/// The exit code that a report stands for.
pub fn exit_code(report: &AgainstReport) -> u8 {
    match (report.interrupted, report.verdict.pass) {
        (true, _) => ErrorKind::Interrupted.exit_code(),
        (false, true) if report.verdict.checks == 0 => ErrorKind::Nothing.exit_code(),
        (false, true) if !report.complete => ErrorKind::Incomplete.exit_code(),
        (false, true) => 0,
        (false, false) => 1,
    }
}

/// Another type of the same chipset is welcome, another chipset is another machine.
fn check_board(against: &MachineChoice, board: Board) -> Result<()> {
    if against.has("type") && against.basics()?.board != board {
        let (text, board) = (against.text(), board.name());
        return Err(Error::usage(format!("--against {text}: the first machine is a {board}"))
            .hint("leave type= out, or name a type of the same chipset"));
    }
    Ok(())
}

fn check_clocks(first: &BusMachine, second: &BusMachine) -> Result<()> {
    for machine in [first, second] {
        if !machine.machine.capabilities().contains(Capabilities::VIRTUAL_CLOCK) {
            return Err(Error::machine(format!("{}: its clock is its own", machine.text))
                .hint("two machines are compared at the same moments of clocks that tests move"));
        }
    }
    Ok(())
}

/// What both machines have.
fn has(plan: &Plan, first: &BusMachine, second: &BusMachine) -> Has {
    Has {
        chips: first.chips & second.chips,
        disks: !plan.machine.disks.is_empty() || plan.tap,
        others: first.others && second.others,
    }
}

fn lacking(regions: &[PairRegion]) -> Vec<RegionReport> {
    let apart = regions.iter().filter(|region| !region.both);
    let report = |region: &PairRegion| RegionReport {
        name: region.name.clone(),
        device: region.device.clone(),
        modelled: false,
        writes: region.writes,
        reads: ReadCounts::default(),
    };
    apart.map(report).collect()
}

/// The rules of entries, each with its entry's number.
pub(super) fn rules(entries: &[Entry]) -> impl Iterator<Item = (usize, &'static str)> {
    let numbered = entries.iter().enumerate();
    numbered.flat_map(|(number, entry)| entry.rules.split(',').map(move |rule| (number, rule)))
}

/// What was allowed, put together by the entries that allow it; what no entry does, the user did.
fn accepted_groups(entries: &[Entry], allowed: BTreeMap<usize, Allowed>) -> Vec<AcceptedGroup> {
    let of_rule: Vec<usize> = rules(entries).map(|(entry, _)| entry).collect();
    let mut groups: BTreeMap<usize, AcceptedGroup> = BTreeMap::new();
    for (rule, allowed) in allowed {
        let number = of_rule.get(rule).copied().unwrap_or(usize::MAX);
        let group = groups.entry(number).or_insert_with(|| match entries.get(number) {
            Some(Entry { rules, what, why }) => AcceptedGroup {
                rule: (*rules).to_owned(),
                what: (*what).to_owned(),
                why: why.clone(),
                count: 0,
                first: Vec::new(),
            },
            None => AcceptedGroup {
                rule: "policy=".to_owned(),
                what: "what the user named".to_owned(),
                why: "the user said so".to_owned(),
                count: 0,
                first: Vec::new(),
            },
        });
        group.count += allowed.count;
        group.first.extend(allowed.first.into_iter().map(|(of, found)| named(of, found)));
    }
    groups.into_values().collect()
}

fn fill(
    trace: &Trace,
    plan: &Plan,
    (test, entries): (&str, &[Entry]),
    outcome: Outcome,
) -> AgainstReport {
    let Outcome { tally, allowed, done, other_checks, interrupted, died, mut notes } = outcome;
    notes.extend(tally.idle_rules());
    let (both, apart) = tally.reads();
    let (regions, groups, differences_unlisted) = tally.finish();
    let accepted = accepted_groups(entries, allowed);
    let deaths = u64::from(died.is_some());
    let divergences = both.different + other_checks.1 + deaths;
    AgainstReport {
        schema: AGAINST_SCHEMA.to_owned(),
        qtrace: env!("CARGO_PKG_VERSION").to_owned(),
        complete: !interrupted && deaths == 0 && trace.truncation().is_none(),
        interrupted,
        test: test.to_owned(),
        machines: Default::default(),
        settings: plan.settings.clone(),
        trace: TraceReport::of(trace),
        time_grades: [crate::base::TimeGrade::Deterministic; 2],
        duration_ns: 0,
        done,
        both: counts(&both),
        apart: counts(&apart),
        regions: regions.iter().map(region).collect(),
        differences: by_device(&regions, groups),
        differences_unlisted,
        verdict: PairVerdict {
            pass: divergences == 0,
            checks: both.reads + other_checks.0 + deaths,
            accepted: accepted.iter().map(|group| group.count).sum(),
            divergences,
        },
        accepted,
        died: died.map(|(which, event, obituary)| PairDeath {
            machine: usize::from(which == Which::Second),
            death: Death { event, obituary },
        }),
        notes,
        wall: WallReport::default(),
    }
}

fn counts(reads: &ReadCounts) -> PairCounts {
    let ReadCounts { reads, equal, within, ignored, different } = *reads;
    PairCounts { reads, equal, accepted: within + ignored, different }
}

fn region(region: &RegionReport) -> PairRegion {
    let RegionReport { name, device, modelled, writes, reads } = region;
    let (name, device, reads) = (name.clone(), device.clone(), counts(reads));
    PairRegion { name, device, both: *modelled, writes: *writes, reads }
}

/// Groups of one device stand together.
fn by_device(regions: &[RegionReport], groups: Vec<MismatchReport>) -> Vec<DifferenceGroup> {
    let device = |name: &str| {
        let region = regions.iter().find(|region| region.name == name);
        region.map(|region| region.device.clone()).unwrap_or_default()
    };
    let groups = groups.into_iter().map(|found| group(device(&found.region), found));
    let mut groups: Vec<DifferenceGroup> = groups.collect();
    groups.sort_by(|a, b| a.device.cmp(&b.device));
    groups
}

fn group(device: String, group: MismatchReport) -> DifferenceGroup {
    let MismatchReport { region, register, count, first } = group;
    let first = first.into_iter().map(|found| difference(String::new(), found)).collect();
    DifferenceGroup { device, region, register, count, first }
}

fn named(of: String, found: Found) -> Difference {
    difference(of, found.into())
}

fn difference(of: String, found: Mismatch) -> Difference {
    let Mismatch { event, time_ns, expected, got } = found;
    Difference { of, event, time_ns, got: [expected, got] }
}
