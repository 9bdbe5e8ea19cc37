//! `qtrace record blk`.

use std::path::{Path, PathBuf};

use super::common::{EXIT_CODES, RecordArgs, finish, give_up, say, until_the_end};
use crate::base::{Error, Result};
use crate::import::Stage;
use crate::record::blk::{self as tap, Device, Ended, Tracer};
use crate::record::command::{Place, Signals};
use crate::record::recording::{OnError, Recording};

const EXAMPLES: &str = "\
Examples:
  qtrace record blk --device /dev/nvme0n1 -o t.qtrace                   until Ctrl-C
  qtrace record blk --device /dev/loop0 -o t.qtrace -- mkfs.ext4 /dev/loop0
  qtrace record blk --device /dev/sda2 -o t.qtrace --stage D -- sync    as the device saw it
  qtrace replay --test block-trace-virtio tracefile=t.qtrace,target_fmt=mem,pacing=recorded

It needs root, and the kernel's blk tracer (CONFIG_BLK_DEV_IO_TRACE) for itself: there is one, and
one that is in use is refused. There is no data in such a trace; a replay writes stamps that its
reads are checked by. The tracer's settings (current_tracer, trace_clock, buffer_size_kb, the options
bin and context-info, tracing_on, trace/enable of the device) are put back at the end, also when
qtrace is killed: a shell that it starts waits for that. If the shell is killed as well:
  cd /sys/kernel/tracing && echo 0 >/sys/block/X/trace/enable && echo nop >current_tracer &&
  echo 0 >options/bin && echo 1 >options/context-info && echo local >trace_clock";

/// Arguments of `qtrace record blk`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXIT_CODES)]
pub struct Args {
    /// The block device or partition.
    #[arg(long, value_name = "/dev/X")]
    device: PathBuf,

    /// The moment that counts as a request's issue: Q, queued by the file system; D, dispatched to
    /// the driver.
    #[arg(long, value_enum, default_value_t, value_name = "Q|D", hide_possible_values = true)]
    stage: Stage,

    #[command(flatten)]
    record: RecordArgs,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Whatever kept the recording from being made, or from being whole.
pub fn run(args: &Args) -> Result<u8> {
    // Before any thread is there.
    let signals = Signals::take_over()?;
    args.record.check()?;
    if args.record.on_error == OnError::Fail {
        return Err(Error::usage(
            "--on-error=fail: requests of a host's device are not ours to fail",
        ));
    }
    let device = Device::new(&args.device)?;
    refuse_own_disk(&device, &args.record.output)?;
    let header = tap::header(&device, args.stage);
    let recording = Recording::start(&args.record.output, header, &args.record.options([]))?;
    let tracer = match Tracer::start(device, args.stage, &recording) {
        Ok(tracer) => tracer,
        Err(error) => return give_up(recording, error.path(&args.device)),
    };
    if args.record.command.is_empty() {
        say(&format!("recording {}", args.device.display()));
    }
    let places: [Place<'_>; 1] = [("device", args.device.as_os_str())];
    let code = until_the_end(&args.record, &recording, &signals, &places);
    // A moment from now another signal ends us at once.
    drop(signals);
    let ended = tracer.stop();
    let code = match code {
        Ok(code) => code,
        Err(error) => return give_up(recording, error),
    };
    if let Ok(Ended { losses, notes }) = &ended {
        losses.iter().for_each(|loss| recording.loss(loss.clone()));
        notes.iter().for_each(|note| recording.note(note.as_str()));
    }
    let finished = finish(&args.record, recording, code);
    ended?;
    finished
}

/// A trace on the device that it is of would record its own writing, without end.
fn refuse_own_disk(device: &Device, output: &Path) -> Result<()> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    if device.holds(folder.unwrap_or(Path::new("."))) {
        let what = format!("the trace would lie on {}, and record its own writing", device.name());
        return Err(Error::usage(what).path(output).hint("write it to another disk, or a tmpfs"));
    }
    Ok(())
}
