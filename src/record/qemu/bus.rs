//! What QEMU's vCPUs do to its bus, from its trace log while it is written: a pipe that QEMU
//! inherits and opens as its log file.
//!
//! A full pipe makes QEMU wait: nothing is lost. Whatever else QEMU logs (`-d`, the user's own
//! `-trace`) goes to stderr, where it would have gone without us.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};

use super::command_line;
use super::probe::{self, Pipe};
use crate::base::limits::LINE_BYTES_MAX;
use crate::base::{Error, Nanos, Result};
use crate::import::job::{Job, Sink};
use crate::import::qemu_log::Live;
use crate::import::source::Meter;
use crate::record::recording::{Recording, Tap};
use crate::trace::{Event, Loss, PayloadRef, StreamId, StreamInfo, TraceHeader};

/// What is asked for as the pipe's room: the most that a user gets by default.
const PIPE_BYTES: i32 = 1 << 20;

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// How long a silent pipe is waited for before it is looked whether QEMU has ended.
const POLL_MS: u16 = 100;

/// A pipe whose reading end does not block.
///
/// # Errors
/// A machine error when there is none.
pub fn pipe() -> Result<Pipe> {
    let made = nix::unistd::pipe2(OFlag::O_CLOEXEC).and_then(|(reader, writer)| {
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // A smaller one does as well.
        let _ = fcntl(&reader, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        Ok((File::from(reader), writer))
    });
    made.map_err(|errno| Error::machine("no pipe for QEMU's log").source(errno))
}

/// Lets the programs that are started from now on inherit `writer`.
///
/// # Errors
/// A machine error.
pub fn inherit(writer: &OwnedFd) -> Result<()> {
    fcntl(writer, FcntlArg::F_SETFD(FdFlag::empty()))
        .map(drop)
        .map_err(|errno| Error::machine("QEMU's log cannot be handed to it").source(errno))
}

/// `words` with what makes QEMU trace its bus to the descriptor `fd`.
///
/// # Errors
/// Usage: the user's own arguments want QEMU's log elsewhere.
pub fn rewrite(words: &[String], fd: i32) -> Result<Vec<String>> {
    let mut words = words.to_vec();
    let mut message = None;
    let mut at = command_line::start(&words);
    while let Some(word) = words.get(at) {
        let value = words.get(at + 1).map(String::as_str).unwrap_or_default();
        let names_file = value.split(',').any(|part| part.starts_with("file="));
        match command_line::option(word) {
            Some("D") => return Err(elsewhere(&format!("-D {value}"))),
            Some("trace") if names_file => return Err(elsewhere(&format!("-trace {value}"))),
            Some("msg") => message = Some(at + 1),
            _ => {}
        }
        at += 1 + usize::from(command_line::takes_value(word));
    }
    let mut ours = probe::trace_arguments(&Live::EVENTS, fd);
    // A second -msg would undo the first.
    if let Some(value) = message.and_then(|at| words.get_mut(at)) {
        value.push_str(",timestamp=on");
        ours.drain(..2);
    }
    words.extend(ours);
    Ok(words)
}

fn elsewhere(shown: &str) -> Error {
    Error::usage(format!("{shown}: --bus needs QEMU's log"))
        .hint("leave it out: what you log goes to stderr, without the events of the bus")
}

/// Reads QEMU's log from `pipe` into `recording` until it ends, or QEMU has (`ended`).
///
/// # Errors
/// Input errors; QEMU is not held up by them: the rest of the log is read and dropped.
pub fn read(mut pipe: File, recording: &Recording, ended: &AtomicBool) -> Result<()> {
    let mut sink = ToRecording { recording, taps: Vec::new(), shift: None };
    let mut progress = |_: u64| {};
    let mut job =
        Job::new(&mut sink, "qemu", None, Meter::default(), &mut progress).yields("bus access");
    let mut live = Live::default();
    live.begin(&mut job);
    let mut failed = None;
    let mut lines = Splitter::default();
    each_chunk(&mut pipe, ended, &mut |bytes| {
        lines.split(bytes, &mut |line| {
            if failed.is_none() {
                failed = take(line, &mut live, &mut job).err();
            }
        });
    })?;
    if let Some(rest) = lines.rest().filter(|_| failed.is_none()) {
        job.summary.lose("line that QEMU did not end", || format!("its beginning: {rest}"));
    }
    let finished = live.finish(&mut job);
    for loss in job.summary.losses() {
        recording.loss(Loss { first: format!("QEMU's log, {}", loss.first), ..loss.clone() });
    }
    for note in job.summary.notes() {
        recording.note(note.clone());
    }
    let lacks = job.not_recorded;
    drop(job);
    recording.lacks(lacks);
    failed.map_or(finished, Err)
}

/// A line for us, or for the user.
fn take(line: &[u8], live: &mut Live, job: &mut Job<'_>) -> Result<()> {
    if !live.line(line, job)? {
        let mut stderr = std::io::stderr().lock();
        // Who closed it does not want to read it.
        let _ = stderr.write_all(line).and_then(|()| stderr.write_all(b"\n"));
    }
    Ok(())
}

fn each_chunk(pipe: &mut File, ended: &AtomicBool, take: &mut dyn FnMut(&[u8])) -> Result<()> {
    let mut chunk = vec![0; READ_BYTES];
    loop {
        // Looked at first: what was written before QEMU ended is in the pipe then.
        let over = ended.load(Ordering::Acquire);
        match pipe.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => take(chunk.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            // Something that QEMU started may hold the pipe open.
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && over => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], POLL_MS);
            }
            Err(e) => return Err(Error::input("QEMU's log cannot be read").source(e)),
        }
    }
}

/// Bytes into lines.
#[derive(Default)]
struct Splitter {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

impl Splitter {
    fn split(&mut self, mut bytes: &[u8], take: &mut dyn FnMut(&[u8])) {
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(at);
            if self.begun.is_empty() {
                take(line);
            } else {
                self.begun.extend_from_slice(line);
                take(&self.begun);
                self.begun.clear();
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.begun.extend_from_slice(bytes);
        // No event is as long: it is passed on in pieces.
        if self.begun.len() > LINE_BYTES_MAX {
            take(&self.begun);
            self.begun.clear();
        }
    }

    fn rest(&self) -> Option<String> {
        let shown = self.begun.get(..self.begun.len().min(40))?;
        (!shown.is_empty()).then(|| shown.escape_ascii().to_string())
    }
}

/// Where the importer's events go: the recording, whose streams are shared with other taps.
struct ToRecording<'r> {
    recording: &'r Recording,
    taps: Vec<Tap>,
    /// Nanoseconds from the recording's origin to the log's first access.
    shift: Option<u64>,
}

impl Sink for ToRecording<'_> {
    fn begin(&mut self, header: TraceHeader) -> Result<()> {
        self.shift = header.origin_unix_ns;
        Ok(())
    }

    fn stream(&mut self, info: StreamInfo) -> Result<StreamId> {
        let tap = self.recording.stream(info);
        if self.taps.is_empty() {
            // The log has the wall clock: what the recording's origin is by that.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            let origin = now.saturating_sub(tap.now().0);
            self.shift = self.shift.map(|first| first.saturating_sub(origin));
        }
        self.taps.push(tap);
        Ok(StreamId(self.taps.len() as u32 - 1))
    }

    // A bus has none.
    fn payload(&mut self, _: &[u8]) -> Result<PayloadRef> {
        Ok(PayloadRef::Absent)
    }

    fn payload_from(&mut self, _: u64, _: &mut dyn Read) -> Result<PayloadRef> {
        Ok(PayloadRef::Absent)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        let (Event::Bus(mut access), Some(tap)) =
            (*event, self.taps.get(event.stream().0 as usize))
        else {
            return Ok(());
        };
        access.time = Nanos(access.time.0.saturating_add(self.shift.unwrap_or_default()));
        tap.event(Event::Bus(access), None, true).map_err(|stopped| {
            Error::incomplete("QEMU's bus is not recorded any more").source(stopped)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn qemu_is_told_to_trace_without_undoing_what_the_user_says() {
        let tail = "-trace enable=memory_region_ops_read -trace enable=memory_region_ops_write -D /proc/self/fd/7";
        let got = rewrite(&words("qemu-system-x86_64 -d int,guest_errors -m 1G"), 7).unwrap();
        let want = format!("qemu-system-x86_64 -d int,guest_errors -m 1G -msg timestamp=on {tail}");
        assert_eq!(got.join(" "), want);
        let got = rewrite(&words("qemu-system-x86_64 -msg guest-name=on -name -D"), 7).unwrap();
        let want = format!("qemu-system-x86_64 -msg guest-name=on,timestamp=on -name -D {tail}");
        assert_eq!(got.join(" "), want);
        for line in ["qemu-kvm -D x.log", "qemu-kvm -trace enable=a,file=t", "qemu-kvm --D x"] {
            let error = rewrite(&words(line), 7).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let text = b"one\ntwo three\n\nfour";
        for size in 1..=text.len() {
            let (mut lines, mut got) = (Splitter::default(), Vec::new());
            for piece in text.chunks(size) {
                lines
                    .split(piece, &mut |line| got.push(String::from_utf8_lossy(line).into_owned()));
            }
            assert_eq!(got, ["one", "two three", ""]);
            assert_eq!(lines.rest().as_deref(), Some("four"));
        }
        // A line without an end takes no memory without an end.
        let (mut lines, mut pieces) = (Splitter::default(), 0);
        for _ in 0..100 {
            lines.split(&[b'x'; 4096], &mut |_| pieces += 1);
            assert!(lines.begun.len() <= LINE_BYTES_MAX);
        }
        assert!(pieces > 0);
    }
}
