//! `qtrace record nbd`.

use std::path::PathBuf;

use super::common::{
    EXIT_CODES, RecordArgs, finish, give_up, places, say, tell_rounded, until_the_end,
};
use super::served_image::ServedImage;
use crate::base::Result;
use crate::record::command::Signals;
use crate::record::nbd::{Counts, Export, ExportOptions, Listen, Server, header};
use crate::record::recording::Recording;
use crate::trace::StreamInfo;

const EXAMPLES: &str = "\
Examples:
  qtrace record nbd --image d.qcow2 -o t.qtrace -- qemu-img bench -w -f raw {uri}
  qtrace record nbd --image d.qcow2 -o t.qtrace --socket /tmp/d.sock
      then: qemu-system-x86_64 … -drive driver=nbd,server.type=unix,server.path=/tmp/d.sock
  qtrace record nbd --image d.raw -o t.qtrace -- nbdcopy new.img {uri}
  qtrace record nbd --image d.raw -o t.qtrace -- sh -c 'nbdinfo \"$uri\" && fio job.fio'
  qtrace record nbd --image d.raw -o t.qtrace --listen 127.0.0.1:10809
  qtrace replay --test block-trace-virtio tracefile=t.qtrace,target_img=new.raw";

/// Arguments of `qtrace record nbd`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    image: ServedImage,

    /// Listen on this Unix socket, which only you may use [default: one in a folder of its own].
    #[arg(long, value_name = "S", conflicts_with = "listen")]
    socket: Option<PathBuf>,

    /// Listen on TCP; :PORT is the loopback, port 0 a free one.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,

    /// The export's name.
    #[arg(long, value_name = "NAME", default_value = "", value_parser = export_name)]
    export_name: String,

    /// Do not record what reads return: the trace is smaller, and a replay checks its reads against
    /// what was written only.
    #[arg(long)]
    no_read_data: bool,

    #[command(flatten)]
    record: RecordArgs,
}

/// The protocol's longest string ("String values").
const NAME_BYTES_MAX: usize = 4096;

fn export_name(text: &str) -> std::result::Result<String, String> {
    match text.len() <= NAME_BYTES_MAX {
        true => Ok(text.to_owned()),
        false => Err(format!("a name has at most {NAME_BYTES_MAX} bytes")),
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
    let info = image.info();
    let name = args.image.name();
    let header = header(&name, &info.format, !args.no_read_data);
    let options = args.record.options([args.image.path.as_path()]);
    let recording = Recording::start(&args.record.output, header, &options)?;
    tell_rounded(&args.record, &recording, &args.image.path, &*image);
    let tap = recording.stream(StreamInfo {
        device: name,
        queue: None,
        device_bytes: Some(image.size()),
        block_bytes: Some(512),
    });
    let options = ExportOptions { name: args.export_name.clone(), read_data: !args.no_read_data };
    let export = Export::new(image, tap, &options);
    let listen = match (&args.socket, &args.listen) {
        (Some(path), _) => Listen::Socket(path.clone()),
        (None, Some(address)) => Listen::Tcp(address.clone()),
        (None, None) => Listen::Private,
    };
    match Server::start(export, &listen) {
        Ok(server) => serve(args, server, recording, signals),
        Err(error) => give_up(recording, error),
    }
}

fn serve(args: &Args, server: Server, recording: Recording, signals: Signals) -> Result<u8> {
    if let Some(address) = server.exposed() {
        say(&format!("warning: {address} can be reached from other machines, without a password"));
    }
    if args.record.command.is_empty() {
        say(&format!("serving {} at {}", args.image.path.display(), server.uri()));
    }
    let uri = server.uri().to_owned();
    let socket = server.socket().map(|path| path.as_os_str().to_owned());
    let places = places(&uri, socket.as_deref());
    let code = match until_the_end(&args.record, &recording, &signals, &places) {
        Ok(code) => code,
        Err(error) => return give_up(recording, error),
    };
    // A moment from now another signal ends us at once.
    drop(signals);
    let stopped = server.stop();
    tell(&recording, stopped.as_ref().ok());
    let finished = finish(&args.record, recording, code);
    stopped?;
    finished
}

/// What is in no event.
pub(super) fn tell(recording: &Recording, counts: Option<&Counts>) {
    let Some(counts) = counts.copied() else { return };
    let Counts { connections, broken, refused, unsaid, failed, turned_away } = counts;
    recording.note(format!("connections: {connections}"));
    let rows = [
        (broken, "connections closed for what came on them"),
        (turned_away, "of them turned away: too many were there"),
        (refused, "requests refused, and not recorded"),
        (unsaid, "block status and cache requests, not recorded"),
        (failed, "requests that the image could not do"),
    ];
    for (count, what) in rows.into_iter().filter(|(count, _)| *count > 0) {
        recording.note(format!("{what}: {count}"));
    }
}
