//! The qtest client: commands go out in order and pipelined, answers come back in order, interrupt
//! lines at any moment. One thread drives it; nothing is ever waited for without also being read,
//! so that neither side can block on the other's full buffer.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, ErrorKind as Io, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::command::{Command, Name, Size, TRANSFER_BYTES_MAX};
use super::lines::IrqLines;
use super::reply::{self, Answer, Line};
use crate::base::{Error, stop};
use crate::machine::child::Lost;

/// Commands without their answers: QEMU's answers must fit its socket's buffer, or it blocks.
const WINDOW: u64 = 256;
/// The longest line taken: the answer to the largest transfer, in base64.
const LINE_BYTES_MAX: usize = TRANSFER_BYTES_MAX * 2 + 64;
/// Commands kept to tell what came before an end.
const HISTORY: usize = 16;
/// Bytes of each.
const HISTORY_BYTES: usize = 160;

/// A connection to a QEMU's qtest server.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    /// The longest that an answer may take.
    patience: Duration,
    out: Vec<u8>,
    input: Vec<u8>,
    /// Where the first line not yet understood begins.
    input_at: usize,
    sent: u64,
    answered: u64,
    /// Answers to posted commands that were refusals.
    refused: u64,
    last_refusal: Option<String>,
    lines: IrqLines,
    log: Option<Log>,
    history: VecDeque<Vec<u8>>,
    heeds_stop: bool,
}

/// A log in the form of QEMU's: `[R +1.234567] inb 0x71`, seconds of the host.
#[derive(Debug)]
struct Log {
    file: BufWriter<File>,
    start: Instant,
}

impl Log {
    fn write(&mut self, from: char, line: &[u8]) {
        let seconds = self.start.elapsed().as_secs_f64();
        // What cannot be kept is no reason to stop; the folder's other files say what ran.
        let _ = write!(self.file, "[{from} +{seconds:.6}] ");
        let _ = self.file.write_all(line).and_then(|()| self.file.write_all(b"\n"));
    }
}

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// QEMU is lost: no other command will do better.
    Lost(Lost),
    /// QEMU answered something else than was to be expected: answer and command.
    Refused(String, String),
    /// It was not sent, since QEMU would have aborted.
    NotSent(&'static str),
}

/// What a client's methods return.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(Lost::Closed) => Self::machine("QEMU closed the qtest connection"),
            Failure::Lost(Lost::Silent(time)) => {
                Self::machine(format!("QEMU has not answered for {:.1} s", time.as_secs_f64()))
            }
            Failure::Lost(Lost::Babble(line)) => {
                Self::machine(format!("QEMU sent a line that is not of qtest: {line:?}"))
            }
            Failure::Lost(Lost::Io(e)) => Self::machine("the qtest connection failed").source(e),
            Failure::Refused(answer, command) => {
                Self::machine(format!("QEMU answered '{answer}' to '{command}'"))
            }
            Failure::NotSent(why) => Self::machine(format!("qtest command not sent: {why}")),
        }
    }
}

impl Client {
    /// Over a connected socket. No answer within `patience` means that QEMU hangs. Until told
    /// otherwise it waits no longer once the user wants to stop.
    ///
    /// # Errors
    /// The socket cannot be made nonblocking.
    pub fn new(stream: UnixStream, patience: Duration) -> Result<Self> {
        stream.set_nonblocking(true).map_err(Lost::Io)?;
        Ok(Self {
            stream,
            patience,
            out: Vec::new(),
            input: Vec::new(),
            input_at: 0,
            sent: 0,
            answered: 0,
            refused: 0,
            last_refusal: None,
            lines: IrqLines::default(),
            log: None,
            history: VecDeque::with_capacity(HISTORY),
            heeds_stop: true,
        })
    }

    /// Keeps what is sent and said in `file`, as QEMU's own `-qtest-log` has it; that of QEMU loses
    /// its end when QEMU is killed.
    pub fn keep_log(&mut self, file: File) {
        self.log = Some(Log { file: BufWriter::new(file), start: Instant::now() });
    }

    /// The interrupt lines as far as they were read.
    pub fn lines(&mut self) -> &mut IrqLines {
        &mut self.lines
    }

    /// The socket, readable when QEMU said something.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// The socket's number.
    pub fn raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Commands sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Commands answered so far.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Posted commands that QEMU refused, and why it did the last.
    pub fn refused(&self) -> (u64, Option<&str>) {
        (self.refused, self.last_refusal.as_deref())
    }

    /// Changes how long an answer may take.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Whether the user's wish to stop ends a wait as silence does.
    pub fn heed_stop(&mut self, heeds: bool) {
        self.heeds_stop = heeds;
    }

    /// The last commands sent, oldest first, each with whether it was answered.
    pub fn history(&self) -> Vec<(String, bool)> {
        let open = usize::try_from(self.sent - self.answered).unwrap_or(usize::MAX);
        let answered = self.history.len().saturating_sub(open);
        let text = |line: &Vec<u8>| String::from_utf8_lossy(line).trim_end().to_owned();
        self.history.iter().enumerate().map(|(at, line)| (text(line), at < answered)).collect()
    }

    /// Sends a command and goes on: its answer is read in passing.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn post(&mut self, command: &Command<'_>) -> Result<()> {
        self.enqueue(command)?;
        self.flush()?;
        if self.sent - self.answered > WINDOW {
            self.settle_to(WINDOW / 2)?;
        }
        Ok(())
    }

    /// Sends a command and waits for its answer, which `take` gets.
    ///
    /// # Errors
    /// The command is not one QEMU could bear, QEMU refused it, or it is gone.
    pub fn request<T>(
        &mut self,
        command: &Command<'_>,
        take: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T> {
        let mut take = Some(take);
        let mut result = None;
        self.ask(command, &mut |answer| {
            result = Some(match answer {
                Answer::Ok(text) => {
                    take.take().and_then(|take| take(text)).ok_or_else(|| format!("OK {text}"))
                }
                Answer::Fail(why) => Err(format!("FAIL {why}")),
            });
        })?;
        let refused = |answer: String| {
            let command = self.history().pop().map(|(text, _)| text).unwrap_or_default();
            Failure::Refused(answer.trim_end().to_owned(), command)
        };
        result.unwrap_or_else(|| Err(String::new())).map_err(refused)
    }

    /// Sends a command and waits for its answer, refusals included.
    ///
    /// # Errors
    /// The command is not one QEMU could bear, or QEMU is gone.
    pub fn ask(&mut self, command: &Command<'_>, take: &mut dyn FnMut(Answer<'_>)) -> Result<()> {
        self.enqueue(command)?;
        self.answers_until(self.sent, self.sent, take)
    }

    /// Waits for the answers to everything sent.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn settle(&mut self) -> Result<()> {
        self.settle_to(0)
    }

    /// Waits until `open` commands at most are without an answer.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn settle_to(&mut self, open: u64) -> Result<()> {
        // No answer is taken out: refusals are counted.
        self.answers_until(self.sent.saturating_sub(open), u64::MAX, &mut |_| ())
    }

    /// Reads what is there without waiting; whether an interrupt line changed.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn drain(&mut self) -> Result<bool> {
        let before = self.lines.changes();
        self.write_some()?;
        while self.read_some()? {
            self.understand(u64::MAX, &mut |_| ())?;
        }
        Ok(self.lines.changes() != before)
    }

    /// A value from a command that answers a number.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn value(&mut self, command: &Command<'_>) -> Result<u64> {
        self.request(command, reply::number)
    }

    /// `in` of a port.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn port_in(&mut self, port: u16, size: Size) -> Result<u32> {
        Ok((self.value(&Command::In(port, size))? & size.ones()) as u32)
    }

    /// A command that answers nothing.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn order(&mut self, command: &Command<'_>) -> Result<()> {
        self.request(command, |_| Some(()))
    }

    /// Bytes of guest memory, however many.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<()> {
        for (part, addr) in buf.chunks_mut(TRANSFER_BYTES_MAX).zip(parts(addr)) {
            let len = part.len();
            let command = Command::Read { addr, len: len as u64 };
            let bytes = self.request(&command, |text| reply::base64(text, len))?;
            part.copy_from_slice(&bytes);
        }
        Ok(())
    }

    /// Writes bytes to guest memory, however many.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<()> {
        for (part, addr) in bytes.chunks(TRANSFER_BYTES_MAX).zip(parts(addr)) {
            self.order(&Command::Write(addr, part))?;
        }
        Ok(())
    }

    /// Has the inputs of `device` reported as interrupt lines.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn intercept_in(&mut self, device: &Name) -> Result<()> {
        self.order(&Command::InterceptIn(device))
    }

    fn enqueue(&mut self, command: &Command<'_>) -> Result<()> {
        command.check().map_err(Failure::NotSent)?;
        let start = self.out.len();
        command.write_to(&mut self.out);
        let mut line = if self.history.len() == HISTORY { self.history.pop_front() } else { None }
            .unwrap_or_default();
        line.clear();
        let text = self.out.get(start..).unwrap_or_default();
        if let Some(log) = &mut self.log {
            log.write('R', text.trim_ascii_end());
        }
        line.extend(text.iter().take(HISTORY_BYTES));
        self.history.push_back(line);
        self.sent += 1;
        Ok(())
    }

    /// Writes what is to be written, reading meanwhile.
    fn flush(&mut self) -> Result<()> {
        self.write_some()?;
        let start = Instant::now();
        while !self.out.is_empty() {
            self.wait_ready(start)?;
            self.turn(u64::MAX, &mut |_| ())?;
        }
        Ok(())
    }

    /// Reads answers until `until` commands are answered; `take` gets the `wanted`-th.
    fn answers_until(
        &mut self,
        until: u64,
        wanted: u64,
        take: &mut dyn FnMut(Answer<'_>),
    ) -> Result<()> {
        let mut start = Instant::now();
        self.turn(wanted, take)?;
        while self.answered < until {
            let before = self.answered;
            self.wait_ready(start)?;
            self.turn(wanted, take)?;
            if self.answered != before {
                start = Instant::now();
            }
        }
        Ok(())
    }

    fn turn(&mut self, until: u64, last: &mut dyn FnMut(Answer<'_>)) -> Result<()> {
        self.write_some()?;
        self.read_some()?;
        self.understand(until, last)
    }

    /// Waits for the socket; gives up `patience` after `start`.
    fn wait_ready(&self, start: Instant) -> Result<()> {
        let mut flags = PollFlags::POLLIN;
        if !self.out.is_empty() {
            flags |= PollFlags::POLLOUT;
        }
        let mut left = self.patience.saturating_sub(start.elapsed());
        if self.heeds_stop {
            left = if stop::is_wanted() { Duration::ZERO } else { left.min(stop::LOOK) };
        }
        if left.is_zero() {
            return Err(Lost::Silent(self.patience).into());
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.stream.as_fd(), flags)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(e) => Err(Lost::Io(e.into()).into()),
        }
    }

    fn write_some(&mut self) -> Result<()> {
        let mut done = 0;
        let result = loop {
            let rest = self.out.get(done..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            match self.stream.write(rest) {
                Ok(0) => break Err(Lost::Closed),
                Ok(len) => done += len,
                Err(e) if e.kind() == Io::WouldBlock => break Ok(()),
                Err(e) if e.kind() == Io::Interrupted => {}
                Err(e) if matches!(e.kind(), Io::BrokenPipe | Io::ConnectionReset) => {
                    break Err(Lost::Closed);
                }
                Err(e) => break Err(Lost::Io(e)),
            }
        };
        self.out.drain(..done);
        // What it said before it went is worth reading.
        if matches!(result, Err(Lost::Closed)) {
            while self.read_some()? {
                self.understand(u64::MAX, &mut |_| ())?;
            }
        }
        Ok(result?)
    }

    /// One read without waiting; whether there was anything.
    fn read_some(&mut self) -> Result<bool> {
        if self.input_at == self.input.len() {
            self.input.clear();
            self.input_at = 0;
        }
        let mut buf = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => return Err(Lost::Closed.into()),
                Ok(len) => {
                    self.input.extend(buf.get(..len).unwrap_or_default());
                    return Ok(true);
                }
                Err(e) if e.kind() == Io::WouldBlock => return Ok(false),
                Err(e) if e.kind() == Io::Interrupted => {}
                Err(e) if e.kind() == Io::ConnectionReset => return Err(Lost::Closed.into()),
                Err(e) => return Err(Lost::Io(e).into()),
            }
        }
    }

    /// Takes the whole lines that were read.
    fn understand(&mut self, until: u64, last: &mut dyn FnMut(Answer<'_>)) -> Result<()> {
        loop {
            let rest = self.input.get(self.input_at..).unwrap_or_default();
            let Some(len) = rest.iter().position(|byte| *byte == b'\n') else { break };
            let line = rest.get(..len).unwrap_or_default();
            if let Some(log) = &mut self.log {
                log.write('S', line.trim_ascii_end());
            }
            let line = String::from_utf8_lossy(line);
            match Line::parse(line.trim_ascii_end()) {
                Some(Line::Irq { line, high }) => self.lines.change(line, high),
                Some(Line::Answer(answer)) if self.answered < self.sent => {
                    self.answered += 1;
                    if self.answered == until {
                        last(answer);
                    } else if let Answer::Fail(why) = answer {
                        self.refused += 1;
                        self.last_refusal = Some(why.to_owned());
                    }
                }
                _ => {
                    let line = line.chars().take(HISTORY_BYTES).collect();
                    return Err(Lost::Babble(line).into());
                }
            }
            self.input_at += len + 1;
        }
        let rest = self.input.len() - self.input_at;
        if rest > LINE_BYTES_MAX {
            return Err(Lost::Babble(format!("a line of more than {rest} bytes")).into());
        }
        if self.input_at > 0 {
            self.input.drain(..self.input_at);
            self.input_at = 0;
        }
        Ok(())
    }
}

fn parts(addr: u64) -> impl Iterator<Item = u64> {
    (0..).map(move |n: u64| addr.wrapping_add(n * TRANSFER_BYTES_MAX as u64))
}

#[cfg(test)]
mod tests;
