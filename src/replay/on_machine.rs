//! What happens on the machine: it is built, driven through the trace, and ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::books::Books;
use super::engine::{End, Engine, EngineConfig, Outcome, Parts};
use super::pacing::Pacer;
use super::placement::{Layout, PlanPolicy};
use super::plan::{PlanCounts, Planner};
use super::policy::{AioChoice, ClockKind, OverlapPolicy};
use super::run_log::RunLog;
use super::session::{OnProgress, Phase, Session, check_size};
use super::summary::{count_in, machine_report};
use super::target::DeviceImage;
use super::trace_source::TraceSource;
use crate::base::{Error, Nanos, Result, SECTOR_SIZE, TimeGrade};
use crate::driver::virtio::{VirtioBlk, VirtioBlkOptions};
use crate::driver::{BlockDriver, BlockLimits};
use crate::machine::{IoFailure, Machine, Obituary};
use crate::oracle::{Finding, FindingKind, Oracle, OracleConfig, TraceView};
use crate::report::{MachineReport, RunStats};
use crate::suite::one_disk::{DiskMachine, OneDisk};
use crate::suite::settings::ClockChoice;
use crate::trace::NotRecorded;

/// Below this a machine that is only slow would be taken for one that hangs.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// What the machine's part left behind.
pub(super) struct Replayed {
    pub outcome: Outcome,
    pub stats: RunStats,
    pub oracle: Oracle,
    pub counts: PlanCounts,
    pub log_sha256: [u8; 32],
    pub recorded_errors: u64,
    pub errors: u64,
    pub machine: MachineReport,
    pub time_grade: TimeGrade,
    /// Bytes of the disk as its device showed it; `None` when it never did.
    pub disk_bytes: Option<u64>,
    /// Requests that the machine could not carry out on its image.
    pub io_failures: Vec<IoFailure>,
    /// The machine died: see the findings.
    pub died: bool,
    /// The disk of a server that goes on, and the machine with it.
    pub device: Option<Arc<DeviceImage>>,
}

impl Session<'_> {
    /// Builds the machine, replays the trace, and ends the machine: afterwards nobody else has the
    /// target open. That the machine dies is no error, but a finding.
    pub(super) fn replay(&self, log: RunLog, progress: OnProgress<'_>) -> Result<Replayed> {
        let DiskMachine { mut machine, details } = self.build()?;
        let driver = match self.probe(&mut *machine) {
            Ok(driver) => driver,
            Err(error) => {
                let obituary = machine.obituary().ok_or(error)?;
                return self.died_at_once(log, &*machine, details, obituary);
            }
        };
        self.drive(&mut *machine, driver, details, log, progress)
    }

    fn build(&self) -> Result<DiskMachine> {
        let config = self.config;
        // Completion order of asynchronous I/O is the host's: not under a virtual clock.
        let synchronous = config.clock == ClockKind::Virtual
            || config.aio == AioChoice::Sync
            || (config.iodepth == 1 && config.aio == AioChoice::Auto);
        config.machine.build_for_replay(OneDisk {
            image: self.target.disk_image(),
            queues: config.queues,
            queue_size: config.queue_size,
            iothread: config.iothread,
            aio_auto: config.aio == AioChoice::Auto,
            aio_depth: if synchronous { 0 } else { config.iodepth },
            clock: match config.clock {
                ClockKind::Host => ClockChoice::Host,
                ClockKind::Virtual => ClockChoice::Virtual,
            },
            patience: Duration::from_nanos(config.hang_ns).max(PATIENCE_MIN),
        })
    }

    fn probe(&self, machine: &mut dyn Machine) -> Result<VirtioBlk> {
        let config = self.config;
        VirtioBlk::probe(
            machine,
            &VirtioBlkOptions {
                index: 0,
                transport: config.transport,
                queues: config.queues,
                queue_size: config.queue_size,
                completion: config.completion,
                indirect: config.indirect,
                event_idx: config.event_idx,
                transfer_bytes_max: config.transfer_bytes,
            },
        )
    }

    fn drive(
        &self,
        machine: &mut dyn Machine,
        mut driver: VirtioBlk,
        details: BTreeMap<String, String>,
        log: RunLog,
        progress: OnProgress<'_>,
    ) -> Result<Replayed> {
        let config = self.config;
        let limits = driver.limits().clone();
        let disk_bytes = limits.capacity_sectors.saturating_mul(SECTOR_SIZE);
        if self.target.is_served() {
            check_size(config, &self.selection, disk_bytes)?;
        }
        let layout = self.layout(&limits);
        let oracle = self.oracle(disk_bytes)?.with_placement(Arc::new(layout.clone()));
        let queues = self.trace.streams().iter().map(|info| info.queue);
        let mut planner = Planner::new(layout, limits, queues);
        let total = self.trace.events().checked_mul(config.loops);
        let mut on_progress = |events| progress(Phase::Replay, events, total);
        let mut books = Books::new(oracle, log, &mut on_progress);
        let mut source = TraceSource::new(Arc::clone(&self.trace));
        let parts = Parts {
            source: &mut source,
            accounts: &mut books,
            planner: &mut planner,
            driver: &mut driver,
            machine: &mut *machine,
            stop: self.stop,
        };
        tracing::info!(events = self.trace.events(), "replay started");
        let engine = Engine::new(self.engine_config()?, Pacer::new(config.pacing), parts);
        let (outcome, failure) = engine.run_out();
        let report = machine_report(config, details, Some(&driver));
        let io_failures = machine.io_failures();
        let time_grade = machine.clock().grade();
        let lives = machine.obituary().is_none() && failure.is_none();
        let (obituary, device) = match self.target.is_served() && lives && driver.in_flight() == 0 {
            true => (None, Some(self.served(machine, driver)?)),
            false => (end(machine, &mut driver, &outcome, failure)?, None),
        };
        let Books { mut stats, mut oracle, log, recorded_errors, errors, .. } = books;
        let counts = planner.counts;
        count_in(&mut stats, &counts, &outcome);
        let died = obituary.is_some();
        match obituary {
            Some(obituary) => {
                oracle.report(death_finding(config.machine.kind().name(), &outcome, obituary))
            }
            None => hang_finding(&outcome).map_or((), |finding| oracle.report(finding)),
        }
        Ok(Replayed {
            outcome,
            stats,
            oracle,
            counts,
            log_sha256: log.finish()?,
            recorded_errors,
            errors,
            machine: report,
            time_grade,
            disk_bytes: Some(disk_bytes),
            io_failures,
            died,
            device,
        })
    }

    /// The disk, to be looked at through its device.
    fn served(&self, machine: &mut dyn Machine, driver: VirtioBlk) -> Result<Arc<DeviceImage>> {
        let name = self.config.machine.setting("socket").unwrap_or_default();
        Ok(DeviceImage::new(driver, machine.another_handle()?, name))
    }

    /// What is left of a machine that died before its disk was ready.
    fn died_at_once(
        &self,
        log: RunLog,
        machine: &dyn Machine,
        details: BTreeMap<String, String>,
        obituary: Obituary,
    ) -> Result<Replayed> {
        let end = End::Failed { in_flight: 0, oldest_event: None };
        let outcome = Outcome::nothing(end, machine.clock().now());
        let mut oracle = self.oracle(self.target.size().unwrap_or_default())?;
        oracle.report(death_finding(self.config.machine.kind().name(), &outcome, obituary));
        Ok(Replayed {
            outcome,
            stats: RunStats::new(),
            oracle,
            counts: PlanCounts::default(),
            log_sha256: log.finish()?,
            recorded_errors: 0,
            errors: 0,
            machine: machine_report(self.config, details, None),
            time_grade: machine.clock().grade(),
            disk_bytes: None,
            io_failures: Vec::new(),
            died: true,
            device: None,
        })
    }

    fn layout(&self, limits: &BlockLimits) -> Layout {
        let policy = PlanPolicy { offset: self.config.offset, unaligned: self.config.unaligned };
        let selected = Arc::clone(&self.selection.selected);
        Layout::new(policy, limits.capacity_sectors, limits.block_bytes, selected)
    }

    fn oracle(&self, target_bytes: u64) -> Result<Oracle> {
        let config = self.config;
        let mut oracle = Oracle::new(
            Arc::clone(&self.trace) as Arc<dyn TraceView>,
            OracleConfig {
                verify: config.verify,
                seed: config.seed,
                memory_bytes: config.oracle_bytes,
                initially_zero: self.target.is_new() || config.is_volatile(),
                target_bytes,
                overlap: config.overlap == OverlapPolicy::Allow,
            },
        )?;
        oracle.stop_when(Arc::clone(self.stop));
        Ok(oracle)
    }

    fn engine_config(&self) -> Result<EngineConfig> {
        let config = self.config;
        let lacks = self.trace.summary().not_recorded;
        let completions = !lacks.contains(NotRecorded::COMPLETIONS);
        let mut first_event = config.window.event_first;
        if config.window.time_first.0 > 0 {
            first_event = first_event.max(self.trace.seek_time(config.window.time_first)?);
        }
        Ok(EngineConfig {
            iodepth: config.iodepth,
            overlap: config.overlap,
            window: config.window,
            first_event,
            loops: config.loops,
            seed: config.seed,
            hang_ns: config.hang_ns,
            recorded_latencies: completions && !lacks.contains(NotRecorded::TIMES),
            recorded_status: completions && !lacks.contains(NotRecorded::STATUS),
        })
    }
}

/// Ends driver and machine. `Some` when the machine had died, or died of this.
///
/// # Errors
/// `failure`, the engine's, where the machine lives; or what the ending met.
fn end(
    machine: &mut dyn Machine,
    driver: &mut VirtioBlk,
    outcome: &Outcome,
    failure: Option<Error>,
) -> Result<Option<Obituary>> {
    if let Some(obituary) = machine.obituary() {
        return Ok(Some(obituary));
    }
    if let Some(error) = failure {
        return Err(error);
    }
    let ended = driver.shutdown(machine).and_then(|()| machine.quit());
    match (ended, machine.obituary()) {
        (_, Some(obituary)) => Ok(Some(obituary)),
        // That it cannot be ended in good order is what the finding about the hang says.
        (Err(error), None) if matches!(outcome.end, End::Hung { .. }) => {
            tracing::warn!("after the hang: {error}");
            Ok(None)
        }
        (ended, None) => ended.map(|()| None),
    }
}

fn hang_finding(outcome: &Outcome) -> Option<Finding> {
    let End::Hung { in_flight, oldest_event, waited: Nanos(waited) } = outcome.end else {
        return None;
    };
    let seconds = waited as f64 / 1e9;
    let message = format!(
        "device hung: {in_flight} requests in flight, none answered for {seconds:.1} s, \
         oldest from event {oldest_event}"
    );
    let mut finding = Finding::new(FindingKind::DeviceHung, message);
    finding.event = Some(oldest_event);
    Some(finding)
}

fn death_finding(machine: &str, outcome: &Outcome, obituary: Obituary) -> Finding {
    let when = match (outcome.device_requests, outcome.end) {
        (0, _) => "before the first request".to_owned(),
        (n, End::Failed { in_flight, .. }) => format!("with {in_flight} of {n} requests in flight"),
        (n, _) => format!("after {n} requests"),
    };
    let message = format!("machine '{machine}' {}, {when}", obituary.what);
    let mut finding = Finding::new(FindingKind::MachineDied, message);
    if let End::Failed { oldest_event, .. } = outcome.end {
        finding.event = oldest_event;
    }
    finding.obituary = Some(obituary);
    finding
}
