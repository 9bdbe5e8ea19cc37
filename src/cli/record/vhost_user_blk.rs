//! `qtrace record vhost-user-blk`.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use super::common::{EXIT_CODES, RecordArgs, finish, give_up, say, tell_rounded, until_the_end};
use super::served_image::ServedImage;
use crate::base::{Error, Result};
use crate::image::{Image, KeptRaw};
use crate::record::command::{Place, Signals};
use crate::record::nbd::listen::{Listen, Listener};
use crate::record::recording::Recording;
use crate::record::vhost_user_blk::{self as tap, DiskOptions, QUEUES_MAX, Watch};
use crate::trace::StreamInfo;

const EXAMPLES: &str = "\
Examples:
  qtrace record vhost-user-blk --image d.qcow2 -o t.qtrace --socket /tmp/d.sock
      then: qemu-system-x86_64 … -m 1G -object memory-backend-memfd,id=m,size=1G,share=on \\
              -machine memory-backend=m -chardev socket,id=d,path=/tmp/d.sock,reconnect=1 \\
              -device vhost-user-blk-pci,chardev=d
  qtrace record vhost-user-blk --image d.raw -o t.qtrace --socket d.sock -- ./run-guest {socket}
  qtrace record vhost-user-blk --image d.raw -o t.qtrace --socket d.sock -- \\
      qtrace replay --machine vhost-user:{socket} --test block-trace-virtio tracefile=in.qtrace
  qtrace replay --test block-trace-virtio tracefile=t.qtrace,target_img=new.raw

The guest's memory must be shared (share=on). One front-end at a time has the disk; when it goes,
the next one gets it. A raw image that is given another size (truncate -s) has it in the guest, too.
Killed and started again with the same socket, it goes on where it was (inflight tracking); the
trace of before stays as it was left.";

/// Arguments of `qtrace record vhost-user-blk`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    image: ServedImage,

    /// Listen on this Unix socket, which only you may use [default: one in a folder of its own].
    #[arg(long, value_name = "S")]
    socket: Option<PathBuf>,

    /// Queues that a front-end may have; each has a thread here and a stream in the trace.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=i64::from(QUEUES_MAX)))]
    queues: u16,

    /// Logical block size.
    #[arg(long, value_name = "BYTES", default_value_t = 512, value_parser = block_bytes)]
    block_bytes: u32,

    /// The disk's identifier, at most 20 bytes.
    #[arg(long, value_name = "TEXT", default_value = "qtrace", value_parser = serial)]
    serial: String,

    #[command(flatten)]
    record: RecordArgs,
}

fn block_bytes(text: &str) -> std::result::Result<u32, String> {
    let bytes = text.parse().ok();
    bytes.filter(|bytes| matches!(bytes, 512 | 4096)).ok_or_else(|| "512 or 4096".to_owned())
}

fn serial(text: &str) -> std::result::Result<String, String> {
    match text.len() {
        0..=20 => Ok(text.to_owned()),
        _ => Err("an identifier has at most 20 bytes".to_owned()),
    }
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Whatever kept the recording from being made, or from being whole.
pub fn run(args: &Args) -> Result<u8> {
    // Before any thread is there.
    let signals = Signals::take_over()?;
    args.record.check()?;
    let image = args.image.open(&args.record.output)?;
    let raw = image.info().format == "raw";
    let kept = raw.then(|| KeptRaw::new(&args.image.path, &args.image.options())).transpose()?;
    let listen = args.socket.clone().map_or(Listen::Private, Listen::Socket);
    let listener = Listener::new(&listen)?;
    let header = tap::header(&*image);
    let options = args.record.options([args.image.path.as_path()]);
    let recording = Recording::start(&args.record.output, header, &options)?;
    tell_rounded(&args.record, &recording, &args.image.path, &*image);
    let recording = Arc::new(recording);
    match serve(args, image, kept, &listener, &recording, &signals) {
        Ok(code) => {
            // A moment from now another signal ends us at once.
            drop(signals);
            finish(&args.record, alone(recording)?, code)
        }
        Err(error) => give_up(alone(recording)?, error),
    }
}

/// The recording, when whoever said things to it has ended.
fn alone(recording: Arc<Recording>) -> Result<Recording> {
    Arc::into_inner(recording).ok_or_else(|| {
        Error::incomplete("a front-end does not let go of the disk: the trace lacks its end")
            .hint("it can be opened, and says that it is incomplete")
    })
}

fn serve(
    args: &Args,
    image: Arc<dyn Image>,
    kept: Option<KeptRaw>,
    listener: &Listener,
    recording: &Arc<Recording>,
    signals: &Signals,
) -> Result<u8> {
    let name = args.image.name();
    let size = image.size();
    let info = StreamInfo {
        device: name,
        queue: None,
        device_bytes: Some(size),
        block_bytes: Some(args.block_bytes),
    };
    let taps = Arc::clone(recording);
    let new_tap =
        move |queue: u16| taps.stream(StreamInfo { queue: Some(queue.into()), ..info.clone() });
    let disk = DiskOptions {
        queues: args.queues,
        block_bytes: args.block_bytes,
        serial: args.serial.clone(),
    };
    let server = tap::serve(listener.unix()?, image, &disk, Box::new(new_tap))?;
    let server = Arc::new(server);
    let watch = kept.map(|image| Watch::start(Arc::clone(&server), image, size));
    let socket = listener.socket().map(|path| path.as_os_str().to_owned()).unwrap_or_default();
    if args.record.command.is_empty() {
        say(&format!("serving {} at {}", args.image.path.display(), socket.display()));
    }
    let places: [Place<'_>; 1] = [("socket", OsStr::new(&socket))];
    let code = until_the_end(&args.record, recording, signals, &places);
    drop(watch);
    recording.note(format!("front-ends: {}", server.sessions()));
    if let Some(server) = Arc::into_inner(server) {
        server.stop().into_iter().for_each(|line| recording.note(line));
    }
    code
}
