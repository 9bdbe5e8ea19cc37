//! `qtrace record qemu`.

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use super::common::{EXIT_CODES, RecordArgs, finish, give_up, say, until_the_end};
use super::nbd::tell;
use crate::base::{Error, ErrorKind, Result, stop};
use crate::import::qemu_log;
use crate::record::command::Signals;
use crate::record::nbd;
use crate::record::qemu::bus;
use crate::record::qemu::command_line::{self, Rewritten, Wanted};
use crate::record::qemu::probe;
use crate::record::qemu::taps::{Opened, Taps};
use crate::record::recording::Recording;
use crate::trace::{NotRecorded, TraceHeader};

const EXAMPLES: &str = "\
Examples:
  qtrace record qemu -o t.qtrace --block -- qemu-system-x86_64 -m 2G -drive file=d.qcow2,if=virtio
  qtrace record qemu -o t.qtrace --block=data --bus -- qemu-system-x86_64 … -drive id=data,…
  qtrace replay --test block-trace-virtio tracefile=t.qtrace,target_img=new.raw
  qtrace replay --machine qemu,defaults=on --test mmio-trace tracefile=t.qtrace";

const ABOUT: &str = "\
The guest runs as before, and this exits as QEMU does. With --block qtrace opens the drives' images \
in QEMU's place, in their formats, and QEMU reaches them over NBD as raw disks: recorded is what the \
guest asks for, with all data. QEMU's own requests are in it too: a read of 512 bytes when it opens a disk, \
and flushes when it closes it. What needs the image itself fails under a tap: block_resize, savevm, \
snapshots by the monitor. A drive that cannot be tapped is an error, never left out in silence. \
With --bus QEMU's trace events memory_region_ops_read and _write are read from its log as they come: \
accesses to devices, not to RAM; no interrupts; and with kvm none that the kernel answers itself.";

/// Arguments of `qtrace record qemu`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXIT_CODES, after_long_help = long_help())]
pub struct Args {
    /// Record the requests to drives that have an image file: all of them, or those with these ids,
    /// node names or file names.
    #[arg(long, value_name = "ID,…", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    block: Option<Vec<String>>,

    /// Record the vCPUs' accesses to ports and registers.
    #[arg(long)]
    bus: bool,

    #[command(flatten)]
    record: RecordArgs,
}

fn long_help() -> String {
    format!("{ABOUT}\n\n{EXIT_CODES}")
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Whatever kept the recording from being made, or from being whole.
pub fn run(args: &Args) -> Result<u8> {
    // Before any thread is there.
    let signals = Signals::take_over()?;
    let words = texts(&args.record.command)?;
    command_line::stays(&words)?;
    let wanted = match &args.block {
        None if !args.bus => {
            return Err(Error::usage("nothing to record").hint("--block, --bus, or both"));
        }
        None => None,
        Some(names) if names.is_empty() => Some(Wanted::All),
        Some(names) => Some(Wanted::Named(names.clone())),
    };
    // All that can go wrong is looked at before anything is begun.
    let plan = match &wanted {
        Some(wanted) => Some(command_line::rewrite(&words, wanted, |_| String::new())?),
        None => None,
    };
    let version = if args.bus { Some(probe_bus(&words, &signals)?) } else { None };
    let disks = plan.iter().flat_map(|plan| &plan.disks).map(Opened::new);
    let disks = disks.collect::<Result<Vec<Opened>>>()?;
    if let Some(disk) = disks.iter().find(|disk| disk.is(&args.record.output)) {
        return Err(Error::usage(format!("the trace would replace an image: {}", disk.describe())));
    }
    let header = header(&words, version.as_deref(), &disks, plan.as_ref());
    if !args.record.quiet {
        explain(&disks, plan.as_ref());
    }
    let options = args.record.options(disks.iter().map(Opened::file));
    let recording = Recording::start(&args.record.output, header, &options)?;
    let taps = match Taps::start(disks, &recording) {
        Ok(taps) => taps,
        Err(error) => return give_up(recording, error),
    };
    let session = Session { args, words, wanted, taps: &taps };
    let (code, read) = match session.run(&recording, &signals) {
        Ok(ended) => ended,
        Err(error) => return give_up(recording, error),
    };
    // A moment from now another signal ends us at once.
    drop(signals);
    let stopped = taps.stop();
    for counts in stopped.iter().flatten() {
        tell(&recording, Some(counts));
    }
    let finished = finish(&args.record, recording, code);
    stopped?;
    read?;
    finished
}

/// Looks at the QEMU's bus, for as long as the user wants to wait for an answer.
fn probe_bus(words: &[String], signals: &Signals) -> Result<String> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                signals.wait(stop::LOOK);
                if signals.take().is_some() {
                    stop::want();
                }
            }
        });
        let version = probe::bus_events(words);
        done.store(true, Ordering::Release);
        version
    })
    .and_then(|version| match stop::is_wanted() {
        true => Err(Error::new(ErrorKind::Interrupted, "stopped before QEMU was started")),
        false => Ok(version),
    })
}

/// QEMU's run.
struct Session<'s> {
    args: &'s Args,
    words: Vec<String>,
    wanted: Option<Wanted>,
    taps: &'s Taps,
}

impl Session<'_> {
    /// Runs it to its end: its exit code, and whether its log could be read.
    fn run(mut self, recording: &Recording, signals: &Signals) -> Result<(u8, Result<()>)> {
        if let Some(wanted) = &self.wanted {
            let first = command_line::rewrite(&self.words, wanted, |_| String::new())?;
            let sockets = (0..first.disks.len()).map(|n| self.taps.socket(n));
            let sockets = sockets.collect::<Result<Vec<String>>>()?;
            let socket = |n: usize| sockets.get(n).cloned().unwrap_or_default();
            self.words = command_line::rewrite(&self.words, wanted, socket)?.words;
        }
        if !self.args.bus {
            return Ok((self.until_the_end(recording, signals)?, Ok(())));
        }
        let (pipe, writer) = bus::pipe()?;
        self.words = bus::rewrite(&self.words, writer.as_raw_fd())?;
        bus::inherit(&writer)?;
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| bus::read(pipe, recording, &ended));
            let code = self.until_the_end(recording, signals);
            drop(writer);
            ended.store(true, Ordering::Release);
            let read = reader
                .join()
                .unwrap_or_else(|_| Err(Error::incomplete("the reader of QEMU's log broke down")));
            Ok((code?, read))
        })
    }

    fn until_the_end(&self, recording: &Recording, signals: &Signals) -> Result<u8> {
        let command = self.words.iter().map(OsString::from).collect();
        let args = RecordArgs { command, ..self.args.record.clone() };
        until_the_end(&args, recording, signals, &[])
    }
}

fn texts(words: &[OsString]) -> Result<Vec<String>> {
    if words.is_empty() {
        return Err(Error::usage("there is no QEMU to record")
            .hint("put your own command line behind --: -- qemu-system-x86_64 …"));
    }
    let text = |word: &OsString| {
        word.to_str().map(str::to_owned).ok_or_else(|| {
            let what = format!("{}: no text", word.to_string_lossy());
            Error::usage(what).hint("QEMU's arguments are read to put taps into them")
        })
    };
    words.iter().map(text).collect()
}

/// What is known when it begins.
fn header(
    words: &[String],
    version: Option<&str>,
    disks: &[Opened],
    plan: Option<&Rewritten>,
) -> TraceHeader {
    let mut header = TraceHeader {
        tool: concat!("qtrace ", env!("CARGO_PKG_VERSION")).to_owned(),
        source_format: "qemu".to_owned(),
        ..TraceHeader::default()
    };
    let lines = &mut header.interpretation;
    lines.extend(disks.iter().map(|disk| format!("disk: {}", disk.describe())));
    if !disks.is_empty() {
        let of_disks = nbd::header("", "", true);
        // It says of one image what is said of each here.
        let lines_of_disks =
            of_disks.interpretation.into_iter().filter(|line| !line.starts_with("recorded:"));
        lines.extend(lines_of_disks);
        header.not_recorded |= of_disks.not_recorded;
    }
    let passed = plan.iter().flat_map(|plan| &plan.passed);
    lines.extend(passed.map(|(name, why)| format!("not tapped: {name}: {why}")));
    if let Some(version) = version {
        lines.push(format!(
            "bus: the log of QEMU {version}; times of the wall clock, in microseconds"
        ));
        lines.extend(qemu_log::INTERPRETATION.map(str::to_owned));
        if command_line::may_use_kvm(words) {
            lines.push(WITH_KVM.to_owned());
        }
        header.not_recorded |= qemu_log::LACKS;
        // Of the bus they are.
        header.not_recorded.remove(NotRecorded::CPUS);
    }
    header
}

/// What kvm keeps from QEMU.
const WITH_KVM: &str = "with kvm: accesses that the kernel answers are not in it (local APIC, I/O APIC, PIC, PIT, \
                        doorbells)";

/// Says which drives are tapped, and which are not and why.
fn explain(disks: &[Opened], plan: Option<&Rewritten>) {
    for disk in disks {
        say(&format!("tap: {}", disk.describe()));
    }
    let Some(plan) = plan else { return };
    for (name, why) in &plan.passed {
        say(&format!("no tap: {name}: {why}"));
    }
    for (name, what) in &plan.dropped {
        say(&format!("{name}: {what} has no meaning under a tap, and is left out"));
    }
}
