//! A small QMP client: greeting, capabilities, commands with their answers, events.

use std::collections::VecDeque;
use std::io::{ErrorKind as Io, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::Lost;
use crate::base::{Error, Result, stop};

/// The longest message taken.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Events kept that nobody asked for; older ones are dropped.
const EVENTS_MAX: usize = 256;

/// A connection to a QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    patience: Duration,
    input: Vec<u8>,
    next_id: u64,
    events: VecDeque<Event>,
    version: String,
    lost: Option<Lost>,
    heeds_stop: bool,
}

/// Something that happened in QEMU.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `RESET`, `SHUTDOWN`, …
    pub name: String,
    /// What QEMU says of it.
    pub data: Value,
}

impl Qmp {
    /// Over a connected socket: waits for the greeting and takes up no further capability. Until
    /// told otherwise it waits no longer once the user wants to stop.
    ///
    /// # Errors
    /// A machine error: the other end is no QMP server, has gone, or is silent for `patience`.
    pub fn new(stream: UnixStream, patience: Duration) -> Result<Self> {
        stream
            .set_nonblocking(true)
            .map_err(|e| Error::machine("the QMP socket cannot be set up").source(e))?;
        let (input, events) = (Vec::new(), VecDeque::new());
        let version = String::new();
        let (lost, heeds_stop) = (None, true);
        let mut qmp =
            Self { stream, patience, input, next_id: 0, events, version, lost, heeds_stop };
        let greeting = qmp.message()?;
        let version = greeting.pointer("/QMP/version/qemu");
        let Some(version) = version else {
            return Err(Error::machine(format!("no QMP greeting: {}", short(&greeting))));
        };
        let part = |name| version.get(name).and_then(Value::as_u64).unwrap_or(0);
        qmp.version = format!("{}.{}.{}", part("major"), part("minor"), part("micro"));
        qmp.execute("qmp_capabilities", Value::Null)?;
        Ok(qmp)
    }

    /// QEMU's version: `7.2.22`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether the user's wish to stop ends a wait as silence does.
    pub fn heed_stop(&mut self, heeds: bool) {
        self.heeds_stop = heeds;
    }

    /// The socket's number.
    pub fn raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Runs a command with its arguments (an object, or null) and gives what it returns.
    ///
    /// # Errors
    /// A machine error: QEMU refused, with its words, or it is gone.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        let mut message = json!({ "execute": command, "id": id });
        if !arguments.is_null()
            && let Some(object) = message.as_object_mut()
        {
            object.insert("arguments".to_owned(), arguments);
        }
        self.send(format!("{message}\n").as_bytes())?;
        loop {
            let mut message = self.message()?;
            if message.get("id").and_then(Value::as_u64) != Some(id) {
                self.keep(message);
                continue;
            }
            if let Some(error) = message.get("error") {
                let why = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                return Err(Error::machine(format!("QEMU refused '{command}': {why}")));
            }
            return Ok(message.get_mut("return").map(Value::take).unwrap_or_default());
        }
    }

    /// Why the last failure was one of the connection, if it was.
    pub fn take_lost(&mut self) -> Option<Lost> {
        self.lost.take()
    }

    /// Sends a command and does not wait for its answer; `quit` has none that could be relied on.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        self.send(format!("{}\n", json!({ "execute": command })).as_bytes())
    }

    /// The events read so far, oldest first.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    /// Reads what is there without waiting.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn drain(&mut self) -> Result<()> {
        // What it said before it went is worth knowing.
        let read = loop {
            match self.read_some() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        while let Some(message) = self.parse()? {
            self.keep(message);
        }
        read
    }

    fn keep(&mut self, mut message: Value) {
        let Some(name) = message.get("event").and_then(Value::as_str) else { return };
        let name = name.to_owned();
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        let data = message.get_mut("data").map(Value::take).unwrap_or_default();
        self.events.push_back(Event { name, data });
    }

    /// The next message.
    fn message(&mut self) -> Result<Value> {
        let end = Instant::now() + self.patience;
        loop {
            if let Some(message) = self.parse()? {
                return Ok(message);
            }
            if !self.read_some()? {
                self.wait(PollFlags::POLLIN, end)?;
            }
        }
    }

    fn parse(&mut self) -> Result<Option<Value>> {
        let Some(len) = self.input.iter().position(|byte| *byte == b'\n') else {
            if self.input.len() > MESSAGE_BYTES_MAX {
                return Err(Error::machine("QEMU's monitor sent a message without an end"));
            }
            return Ok(None);
        };
        let line: Vec<u8> = self.input.drain(..=len).collect();
        serde_json::from_slice(&line).map(Some).map_err(|e| {
            let text: String = String::from_utf8_lossy(&line).chars().take(80).collect();
            Error::machine(format!("QEMU's monitor sent no JSON: {text:?}")).source(e)
        })
    }

    fn read_some(&mut self) -> Result<bool> {
        let mut buf = [0; 4096];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => return Err(self.closed()),
                Ok(len) => {
                    self.input.extend(buf.get(..len).unwrap_or_default());
                    return Ok(true);
                }
                Err(e) if e.kind() == Io::WouldBlock => return Ok(false),
                Err(e) if e.kind() == Io::Interrupted => {}
                Err(e) if e.kind() == Io::ConnectionReset => return Err(self.closed()),
                Err(e) => return Err(Error::machine("QEMU's monitor failed").source(e)),
            }
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        let end = Instant::now() + self.patience;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(e) if e.kind() == Io::WouldBlock => self.wait(PollFlags::POLLOUT, end)?,
                Err(e) if e.kind() == Io::Interrupted => {}
                Err(e) if matches!(e.kind(), Io::BrokenPipe | Io::ConnectionReset) => {
                    return Err(self.closed());
                }
                Err(e) => return Err(Error::machine("QEMU's monitor failed").source(e)),
            }
        }
        Ok(())
    }

    fn closed(&mut self) -> Error {
        self.lost = Some(Lost::Closed);
        Error::machine("QEMU closed its monitor")
    }

    fn wait(&mut self, flags: PollFlags, end: Instant) -> Result<()> {
        let mut left = end.saturating_duration_since(Instant::now());
        if self.heeds_stop {
            left = if stop::is_wanted() { Duration::ZERO } else { left.min(stop::LOOK) };
        }
        if left.is_zero() {
            self.lost = Some(Lost::Silent(self.patience));
            let seconds = self.patience.as_secs_f64();
            let what = format!("QEMU's monitor has not answered for {seconds:.1} s");
            return Err(Error::machine(what));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.stream.as_fd(), flags)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(e) => Err(Error::machine("QEMU's monitor failed").source(e)),
        }
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}"#;

    /// A monitor that says `replies`, one after each message it gets, the first at once.
    fn monitor(replies: &'static [&'static str]) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            for reply in replies {
                theirs.write_all(format!("{reply}\r\n").as_bytes()).unwrap();
                if theirs.read(&mut buf).unwrap_or(0) == 0 {
                    return;
                }
            }
        });
        ours
    }

    #[test]
    fn answers_events_and_refusals_are_told_apart() {
        let stream = monitor(&[
            GREETING,
            r#"{"return": {}, "id": 0}"#,
            "{\"event\": \"RESET\", \"data\": {\"guest\": false}}\r\n{\"return\": 5, \"id\": 1}",
            r#"{"error": {"class": "GenericError", "desc": "no such thing"}, "id": 2}"#,
        ]);
        let mut qmp = Qmp::new(stream, LONG).unwrap();
        assert_eq!(qmp.version(), "7.2.22");
        assert_eq!(qmp.execute("a", Value::Null).unwrap(), 5);
        let error = qmp.execute("b", json!({ "x": 1 })).unwrap_err().to_string();
        assert_eq!(error, "QEMU refused 'b': no such thing");
        let events = qmp.take_events();
        assert_eq!((events.len(), events[0].name.as_str()), (1, "RESET"));
        assert!(qmp.take_lost().is_none());
        let error = qmp.execute("c", Value::Null).unwrap_err();
        assert!(error.to_string().contains("closed"), "{error}");
        assert!(matches!(qmp.take_lost(), Some(Lost::Closed)));
    }

    #[test]
    fn events_of_a_monitor_that_has_gone_are_kept() {
        let stream = monitor(&[
            GREETING,
            "{\"return\": {}, \"id\": 0}\r\n{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true}}",
        ]);
        let mut qmp = Qmp::new(stream, LONG).unwrap();
        qmp.tell("quit").unwrap();
        while qmp.drain().is_ok() {
            std::thread::yield_now();
        }
        assert_eq!(qmp.take_events()[0].name, "SHUTDOWN");
    }

    #[test]
    fn what_is_no_monitor_is_said() {
        for reply in ["{}", "hello", r#"{"QMP": 1}"#] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(format!("{reply}\n").as_bytes()).unwrap();
            assert_eq!(Qmp::new(ours, LONG).unwrap_err().kind().exit_code(), 5, "{reply}");
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let error = Qmp::new(ours, Duration::from_millis(5)).unwrap_err().to_string();
        assert!(error.contains("has not answered"), "{error}");
        drop(theirs);
    }
}
