//! A whole replay: open everything, run the engine, check the result, write the report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use super::engine::End;
use super::on_machine::Replayed;
use super::options::Config;
use super::output::{Output, OutputKind};
use super::policy::{OffsetPolicy, OnLag, Pacing, Window};
use super::run_log::RunLog;
use super::stoppable::Stoppable;
use super::streams::Selection;
use super::target::{Target, check_files};
use crate::base::{Error, ErrorKind, Result};
use crate::image::digest::{guest_sha256, hex};
use crate::image::{self, Image, OpenOptions};
use crate::oracle::Verify;
use crate::report::{Report, TimingStatus, WallReport, json};
use crate::trace::{NotRecorded, Trace};

/// The name of this test module.
pub const TEST: &str = "block-trace-virtio";

/// A larger target is hashed only when that is asked for: it takes minutes.
const AUTO_DIGEST_BYTES_MAX: u64 = 64 << 30;

/// Zeros that are hashed before a look at whether the user wants to stop.
const DIGEST_PART_BYTES: u64 = 64 << 20;

/// What a run is doing, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Replaying; in events.
    Replay,
    /// Comparing the target with the model; in bytes.
    CheckImage,
    /// Comparing the target with the comparison image; in bytes.
    Compare,
    /// Hashing the target; in bytes.
    Digest,
}

/// Told of progress: phase, position, and total where it is known.
pub type OnProgress<'a> = &'a mut dyn FnMut(Phase, u64, Option<u64>);

/// Replays a trace as `config` says. `stop` ends it early.
///
/// # Errors
/// Whatever kept the job from being done. A device that was wrong is no error: see the report.
pub fn run(config: &Config, stop: &Arc<AtomicBool>, progress: OnProgress<'_>) -> Result<Report> {
    check_files(config)?;
    let report_file = config
        .report
        .as_deref()
        .map(|path| Output::create(OutputKind::Report, path))
        .transpose()?;
    let log = RunLog::create(config.runlog.as_deref())?;
    let trace = Arc::new(Trace::open(&config.trace)?);
    check_trace(config, &trace)?;
    let selection = Selection::new(&trace, config.device.as_deref())?;
    let comparison = open_comparison(config)?;
    let target = Target::open(config, selection.disk_bytes, stop)?;
    if let Some(size) = target.size() {
        check_size(config, &selection, size)?;
    }
    let session = Session { config, trace, selection, target, comparison, stop };
    let report = session.run(log, progress)?;
    if let Some(mut file) = report_file {
        file.write(json::to_string(&report)?.as_bytes())?;
        file.finish()?;
    }
    Ok(report)
}

/// The exit code that a report stands for.
pub fn exit_code(config: &Config, report: &Report) -> u8 {
    if report.interrupted {
        return ErrorKind::Interrupted.exit_code();
    }
    if !report.verdict.pass {
        return 1;
    }
    if report.timing.status == TimingStatus::Invalid && config.on_lag == OnLag::Fail {
        return ErrorKind::Timing.exit_code();
    }
    if report.fault.as_ref().is_some_and(|fault| !fault.fired) {
        return ErrorKind::Nothing.exit_code();
    }
    if config.strict && report.trace.truncated.is_some() {
        return ErrorKind::Incomplete.exit_code();
    }
    0
}

/// What the options need and the trace does not have.
fn check_trace(config: &Config, trace: &Trace) -> Result<()> {
    let lacks = trace.summary().not_recorded;
    let requests = trace.totals().iter().any(|totals| totals.issues.iter().any(|n| *n > 0));
    if !requests && trace.totals().iter().any(|totals| totals.bus.events() > 0) {
        let what = "the trace holds no block request, but events of a bus";
        return Err(Error::new(ErrorKind::Nothing, what)
            .path(&config.trace)
            .hint("qtrace replay --test mmio-trace tracefile=…"));
    }
    let refuse = |what: String, hint: &str| Err(Error::usage(what).path(&config.trace).hint(hint));
    let timed = matches!(config.pacing, Pacing::Recorded { .. }) || config.window.is_timed();
    if timed && lacks.contains(NotRecorded::TIMES) {
        return refuse(
            "the trace has no times (not recorded: times)".into(),
            match config.window.is_timed() {
                true => "use pacing=no_stall and a window of events=A-B",
                false => "use pacing=no_stall",
            },
        );
    }
    let completes: u64 = trace.totals().iter().map(|totals| totals.completes).sum();
    if config.pacing == Pacing::Closed
        && (lacks.contains(NotRecorded::COMPLETIONS) || completes == 0)
    {
        return refuse(
            "pacing=closed needs completions, and the trace has none (not recorded: completions)"
                .into(),
            "use pacing=no_stall or pacing=recorded",
        );
    }
    Ok(())
}

/// A disk too small for the whole trace is refused before anything is written to it.
pub(super) fn check_size(config: &Config, selection: &Selection, size: u64) -> Result<()> {
    if selection.end_bytes <= size
        || config.offset != OffsetPolicy::Error
        || config.window != Window::ALL
    {
        return Ok(());
    }
    let end = selection.end_bytes;
    let error = Error::usage(format!("the trace reaches to byte {end}, the disk has {size} bytes"))
        .hint("offset=wrap or offset=clip makes it fit; target_size= makes a new disk larger");
    Err(match &config.target {
        Some(path) => error.path(path),
        None => error,
    })
}

fn open_comparison(config: &Config) -> Result<Option<Arc<dyn Image>>> {
    let Some(path) = &config.comparison else {
        return Ok(None);
    };
    let options = OpenOptions {
        format: config.comparison_format.clone(),
        writable: false,
        allow_backing: config.allow_backing,
        ..OpenOptions::default()
    };
    image::open(path, &options).map(Some)
}

/// Everything opened, nothing replayed.
pub(super) struct Session<'a> {
    pub(super) config: &'a Config,
    pub(super) trace: Arc<Trace>,
    pub(super) selection: Selection,
    pub(super) target: Target,
    pub(super) comparison: Option<Arc<dyn Image>>,
    pub(super) stop: &'a Arc<AtomicBool>,
}

impl Session<'_> {
    fn run(self, log: RunLog, progress: OnProgress<'_>) -> Result<Report> {
        let started = (Instant::now(), SystemTime::now());
        let mut replayed = self.replay(log, progress)?;
        if let Some(error) = self.target.failure(self.config, &replayed.io_failures) {
            return Err(error);
        }
        if self.trace.events() == 0 && self.trace.truncation().is_some() {
            let what = "the trace is cut short before its first event";
            return Err(Error::input(what).path(&self.config.trace));
        }
        if replayed.outcome.end == End::Complete && replayed.outcome.requests == 0 {
            let what = "the trace holds no request for this replay";
            return Err(Error::new(ErrorKind::Nothing, what)
                .path(&self.config.trace)
                .hint("see `qtrace info`, and events=, time=, device="));
        }
        let mut report = Report::new(TEST, replayed.time_grade);
        let device = replayed.device.take();
        let result = match &device {
            Some(device) => Ok(Arc::clone(device) as Arc<dyn Image>),
            None => self.target.result(),
        };
        let checks = result.and_then(|image| {
            let checked = self.check(&*image, &mut replayed, &mut report, progress)?;
            Ok((image.size(), checked))
        });
        let (size, checked) = match checks {
            Ok(checks) => checks,
            // A check that was stopped failed for that.
            Err(_) if self.stop.load(Ordering::Relaxed) => (self.size(&replayed), false),
            Err(error) if replayed.died || self.target.is_served() => {
                report.notes.push(format!("the target could not be checked: {error}"));
                (self.size(&replayed), false)
            }
            Err(error) => return Err(error),
        };
        if let Some(Err(error)) = device.map(|device| device.close()) {
            report.notes.push(format!("the device did not end in good order: {error}"));
        }
        self.fill(&mut report, replayed, size, checked);
        let keep = !report.interrupted;
        if self.target.is_new() && !keep {
            report.notes.push("interrupted: the new target was removed".into());
        }
        report.wall = WallReport::since(started);
        if keep {
            self.target.commit()?;
        }
        Ok(report)
    }

    /// Bytes of the target, as far as they are known.
    fn size(&self, replayed: &Replayed) -> u64 {
        self.target.size().or(replayed.disk_bytes).unwrap_or_default()
    }

    /// Checks of the target; whether all that were asked for were made.
    fn check(
        &self,
        target: &dyn Image,
        replayed: &mut Replayed,
        report: &mut Report,
        progress: OnProgress<'_>,
    ) -> Result<bool> {
        let whole = Stoppable::new(target, self.stop, u64::MAX);
        let image = &whole;
        let stopped = || self.stop.load(Ordering::Relaxed);
        let size = image.size();
        if replayed.outcome.end == End::Interrupted {
            return Ok(false);
        }
        if self.config.verify == Verify::Full && !stopped() {
            let mut tick = |done| progress(Phase::CheckImage, done, Some(size));
            replayed.oracle.check_image(image, &mut tick)?;
        }
        if let Some(comparison) = self.comparison.as_deref().filter(|_| !stopped()) {
            let mut tick = |done| progress(Phase::Compare, done, Some(size));
            replayed.oracle.check_comparison(image, comparison, &mut tick)?;
        }
        let automatic = self.config.setting("image_sha256") == "auto";
        if self.config.image_digest && automatic && size > AUTO_DIGEST_BYTES_MAX {
            let text = "the target has more than 64 GiB and was not hashed (image_sha256=on does)";
            report.notes.push(text.into());
        } else if self.config.image_digest && !stopped() {
            let image = Stoppable::new(target, self.stop, DIGEST_PART_BYTES);
            let mut tick = |done| progress(Phase::Digest, done, Some(size));
            report.image_sha256 = Some(hex(&guest_sha256(&image, &mut tick)?));
        }
        Ok(!stopped())
    }
}
