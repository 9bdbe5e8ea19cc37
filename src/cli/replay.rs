//! `qtrace replay`.

mod bus;
mod qtest_log;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Format;
use super::progress::Progress;
use super::test::list::machines;
use crate::base::options::nearest;
use crate::base::{Error, ErrorKind, Result, stop};
use crate::replay::bus::options::{MMIO_TEST, PORT_TEST};
use crate::replay::options::{self, Config};
use crate::replay::qtest_log::config::QTEST_LOG_TEST;
use crate::replay::session::{self, Phase, TEST};
use crate::report::{Report, json, text};
use crate::suite::machines::MachineChoice;

const EXAMPLES: &str = "\
Examples:
  qtrace replay --test block-trace-virtio tracefile=t.qtrace,target_img=d.qcow2,target_fmt=qcow2
  qtrace replay --test block-trace-virtio tracefile=t.qtrace,target_fmt=mem,pacing=recorded
  qtrace replay --test block-trace-virtio tracefile=t.qtrace,target_img=d.raw,snapshot=on \\
                --test-opts clock=virtual,report=r.json,runlog=r.log
  qtrace replay --test mmio-trace tracefile=boot.qtrace,board=pc,disks=16M,disk_slot=3
  qtrace replay --test mmio-trace --machine qemu,defaults=on,'args=-nic none' \
                tracefile=boot.qtrace,ram=256M,disks=16M,disk_slot=3
  qtrace replay --test port-trace tracefile=boot.qtrace,fail_below=97 --format json
  qtrace replay --test mmio-trace --against qemu tracefile=boot.qtrace,ram=256M,disks=16M
  qtrace replay --machine qemu --test qtest-log tracefile=report.txt
  qtrace replay --test block-trace-virtio help        every option, with its default
  qtrace replay --machine qemu,type=q35 --test block-trace-virtio \
                tracefile=t.qtrace,target_img=d.vhdx,target_fmt=vhdx
  qtrace replay --machine vhost-user,server=qemu-storage-daemon --test block-trace-virtio \
                tracefile=t.qtrace,target_img=d.qcow2,target_fmt=qcow2
  qtrace replay --machine vhost-user:/run/vhost.sock --test block-trace-virtio tracefile=t.qtrace
  qtrace replay --test '?'                            every test";

const EXIT_CODES: &str = "\
Exit codes:
  0  the device was right                        5  the machine is not available
  1  divergence: the report says where           6  on_lag=fail and the run was too late
  2  wrong usage                                 7  could not be brought to its end
  3  an input is not what it should be           130  interrupted; the report is partial
  4  nothing to replay, or fault= never fired";

/// Every test module: name and what it does.
const TESTS: &[(&str, &str)] = &[
    (TEST, "replay a block trace through a virtio-blk device and check the result"),
    (PORT_TEST, "replay the port accesses of a trace and check every recorded read"),
    (MMIO_TEST, "replay every access of a trace, to ports and memory, likewise"),
    (QTEST_LOG_TEST, "give a real QEMU the qtest commands of a log or bug report"),
];

/// Arguments of `qtrace replay`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXIT_CODES)]
pub struct Args {
    /// The test module to run; '?' lists them.
    #[arg(long, value_name = "NAME")]
    pub test: String,
    /// Options of the test, key=value,key=value; 'help' lists them.
    #[arg(value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// More options of the test, in the same form.
    #[arg(long, value_name = "OPTIONS")]
    pub test_opts: Vec<String>,
    /// The machine that has the device, with options: builtin,type=q35; '?' lists them.
    #[arg(long, value_name = "NAME[,OPTIONS]", default_value = "builtin")]
    pub machine: String,
    /// Another machine that a bus trace is replayed on too: both are compared, access by access,
    /// whatever the recording says. What may differ, and why, is listed by
    /// `--test mmio-trace help`.
    #[arg(long, value_name = "NAME[,OPTIONS]")]
    pub against: Option<String>,
    /// How the report is printed on stdout.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Whatever kept the replay from being done.
pub fn run(args: &Args) -> Result<u8> {
    if is_help(&args.test) {
        let line = |(name, what): &(&str, &str)| format!("{name:18}  {what}\n");
        let list: String = TESTS.iter().map(line).collect();
        print(list.as_bytes())?;
        return Ok(0);
    }
    if is_help(&args.machine) {
        print(machines().as_bytes())?;
        return Ok(0);
    }
    let (test, machine) = check_names(args)?;
    if args.against.is_some() && ![PORT_TEST, MMIO_TEST].contains(&test) {
        let what = format!("--against is for traces of a bus, and not for {test}");
        return Err(Error::usage(what).hint(format!("{MMIO_TEST} or {PORT_TEST}")));
    }
    let texts: Vec<String> = args.options.iter().chain(&args.test_opts).cloned().collect();
    if test == QTEST_LOG_TEST {
        return qtest_log::run(&machine, args, &texts);
    }
    if test != TEST {
        return bus::run(test, machine, args, &texts);
    }
    if texts.iter().any(|text| is_help(text)) {
        print(options::help().as_bytes())?;
        return Ok(0);
    }
    let config = Config::parse_for(machine, &texts)?;
    let stop = stop_on_signal()?;
    let report = with_progress(|tick| session::run(&config, &stop, tick))?;
    show(&report, args.format)?;
    let code = session::exit_code(&config, &report);
    if code == ErrorKind::Interrupted.exit_code() {
        let what = if report.target.created { "; the new target was removed" } else { "" };
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "qtrace: interrupted: the report is partial{what}");
    }
    Ok(code)
}

fn is_help(text: &str) -> bool {
    matches!(text, "?" | "help" | "list")
}

/// The name of the test, and the machine.
fn check_names(args: &Args) -> Result<(&'static str, MachineChoice)> {
    let Some((test, _)) = TESTS.iter().find(|(name, _)| *name == args.test) else {
        let names: Vec<&str> = TESTS.iter().map(|(name, _)| *name).collect();
        let hint = match nearest(&args.test, names.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("tests: {}", names.join(", ")),
        };
        return Err(Error::usage(format!("there is no test '{}'", args.test)).hint(hint));
    };
    Ok((test, MachineChoice::parse(&args.machine)?))
}

/// A flag that the first Ctrl-C or SIGTERM raises. The second one ends the process at once.
pub(super) fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raise = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        stop::want();
        if raise.swap(true, Ordering::Relaxed) {
            std::process::exit(ErrorKind::Interrupted.exit_code().into());
        }
    })
    .map_err(|e| Error::machine("cannot watch for Ctrl-C").source(e))?;
    Ok(stop)
}

fn with_progress<T>(work: impl FnOnce(session::OnProgress<'_>) -> T) -> T {
    let mut bar: Option<(Phase, Progress)> = None;
    let mut tick = |phase, done, total| {
        if bar.as_ref().is_none_or(|(shown, _)| *shown != phase) {
            let name = match phase {
                Phase::Replay => "replaying",
                Phase::CheckImage => "checking the image",
                Phase::Compare => "comparing",
                Phase::Digest => "hashing the image",
            };
            bar = Some((phase, Progress::new(name, total, phase != Phase::Replay)));
        }
        if let Some((_, bar)) = &mut bar {
            bar.set(done);
        }
    };
    work(&mut tick)
}

fn show(report: &Report, format: Format) -> Result<()> {
    match format {
        Format::Text => print(text::render(report).as_bytes()),
        Format::Json => print(json::to_string(report)?.as_bytes()),
    }
}

/// Writes to stdout; a reader that went away (a pager, `head`) is no failure.
pub(super) fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::incomplete("cannot write to stdout").source(e))
        }
        _ => Ok(()),
    }
}
