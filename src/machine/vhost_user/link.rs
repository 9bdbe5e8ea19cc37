//! Messages to a vhost-user back-end, and its answers. The other end is not trusted: an answer that
//! does not come in time, is longer than what was asked for, or answers something else ends the
//! connection.

use std::collections::VecDeque;
use std::io::{ErrorKind as Io, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vhost::vhost_user::message::FrontendReq;
use vm_memory::ByteValued;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::machine::child::Lost;

/// Bytes of a message's header: request, flags, size of the payload.
pub const HEADER_BYTES: usize = 12;
/// Flags: the version of the protocol, …
pub const VERSION: u32 = 1;
/// … its mask, …
pub const VERSION_MASK: u32 = 3;
/// … a message that answers, …
pub const REPLY: u32 = 1 << 2;
/// … and one that wants an answer though its kind has none.
pub const NEED_REPLY: u32 = 1 << 3;

/// Messages remembered for the report of an end.
const HISTORY: usize = 16;

/// A connection to a back-end.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    patience: Duration,
    /// Every message is answered, `REPLY_ACK` having been agreed on.
    pub acknowledged: bool,
    history: VecDeque<(String, bool)>,
}

/// Why a message did not have its effect.
#[derive(Debug)]
pub enum Failure {
    /// The connection is of no further use.
    Lost(Lost),
    /// The back-end answered that it did not do it.
    Refused(String),
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

/// What messages give.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl Link {
    /// Over a connected socket, on which every answer comes within `patience`.
    pub fn new(stream: UnixStream, patience: Duration) -> Result<Self> {
        stream.set_nonblocking(true).map_err(Lost::Io)?;
        Ok(Self { stream, patience, acknowledged: false, history: VecDeque::new() })
    }

    /// For poll(2): readable when the back-end closed it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// The last messages, oldest first, each with whether it was answered or needed no answer.
    pub fn history(&self) -> Vec<(String, bool)> {
        self.history.iter().cloned().collect()
    }

    /// Sends a message that has no answer of its own; waits for its acknowledgement where those
    /// were agreed on.
    pub fn tell<T: ByteValued>(
        &mut self,
        request: FrontendReq,
        what: &str,
        body: &T,
        fds: &[RawFd],
    ) -> Result {
        let flags = if self.acknowledged { NEED_REPLY } else { 0 };
        self.send(request, what, flags, &[body.as_slice()], fds)?;
        if !self.acknowledged {
            self.answered();
            return Ok(());
        }
        let mut result = 0u64;
        self.receive(request, result.as_mut_slice())?;
        self.answered();
        match result {
            0 => Ok(()),
            code => Err(Failure::Refused(format!(
                "the back-end refused {request:?}{} with {code:#x}",
                spaced(what)
            ))),
        }
    }

    /// Asks for a value.
    pub fn ask<T: ByteValued, A: ByteValued + Default>(
        &mut self,
        request: FrontendReq,
        what: &str,
        body: Option<&T>,
    ) -> Result<A> {
        self.send(request, what, 0, &[body.map_or(&[], ByteValued::as_slice)], &[])?;
        let mut answer = A::default();
        self.receive(request, answer.as_mut_slice())?;
        self.answered();
        Ok(answer)
    }

    /// Asks with a body and a payload behind it, for the same back with the payload filled.
    /// `false`: the answer is empty, which says that it cannot be had.
    pub fn ask_payload<T: ByteValued + Default>(
        &mut self,
        request: FrontendReq,
        what: &str,
        body: &T,
        payload: &mut [u8],
    ) -> Result<Option<T>> {
        self.send(request, what, 0, &[body.as_slice(), payload], &[])?;
        let end = Instant::now() + self.patience;
        let size = self.header(request, end)?;
        let mut answer = T::default();
        let whole = size_of::<T>() + payload.len();
        // An error is told by a message without payload, or by a size of 0 in a whole one.
        if size != whole && size != size_of::<T>() && size != 0 {
            return Err(unlike(request, size, whole).into());
        }
        if size > 0 {
            self.read(answer.as_mut_slice(), end)?;
        }
        if size == whole {
            self.read(payload, end)?;
        }
        self.answered();
        Ok((size == whole).then_some(answer))
    }

    /// Whether the back-end is there, as far as its end of the socket tells.
    pub fn look(&mut self) -> Result<(), Lost> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => Err(Lost::Closed),
            Ok(_) => Err(Lost::Babble("a message that answers none".to_owned())),
            Err(e) if matches!(e.kind(), Io::WouldBlock | Io::Interrupted) => Ok(()),
            Err(e) => Err(lost(e)),
        }
    }

    fn send(
        &mut self,
        request: FrontendReq,
        what: &str,
        flags: u32,
        parts: &[&[u8]],
        fds: &[RawFd],
    ) -> Result<(), Lost> {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((format!("{request:?}{}", spaced(what)), false));
        let payload = parts.concat();
        let header = [u32::from(request), VERSION | flags, payload.len() as u32];
        let mut message: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        message.extend(payload);
        let end = Instant::now() + self.patience;
        let (mut left, mut fds) = (&message[..], fds);
        while !left.is_empty() {
            match self.stream.send_with_fds(&[left], fds) {
                Ok(sent) => {
                    // They go with the first byte.
                    fds = &[];
                    left = left.get(sent..).unwrap_or_default();
                }
                Err(e) => match std::io::Error::from_raw_os_error(e.errno()) {
                    e if e.kind() == Io::WouldBlock => self.wait(PollFlags::POLLOUT, end)?,
                    e if e.kind() == Io::Interrupted => {}
                    e => return Err(lost(e)),
                },
            }
        }
        Ok(())
    }

    fn answered(&mut self) {
        if let Some((_, answered)) = self.history.back_mut() {
            *answered = true;
        }
    }

    /// An answer to `request` with a payload of exactly that many bytes.
    fn receive(&mut self, request: FrontendReq, payload: &mut [u8]) -> Result<(), Lost> {
        let end = Instant::now() + self.patience;
        match self.header(request, end)? {
            size if size == payload.len() => self.read(payload, end),
            size => Err(unlike(request, size, payload.len())),
        }
    }

    /// Reads the header of the answer to `request`: the size of what follows.
    fn header(&mut self, request: FrontendReq, end: Instant) -> Result<usize, Lost> {
        let mut bytes = [0; HEADER_BYTES];
        self.read(&mut bytes, end)?;
        let [code, flags, size] = words(&bytes);
        if code != u32::from(request) || flags & REPLY == 0 || flags & VERSION_MASK != VERSION {
            let sent = match FrontendReq::try_from(code) {
                Ok(other) => format!("{other:?}"),
                Err(_) => format!("message {code}"),
            };
            let what = format!("{sent} with flags {flags:#x} as the answer to {request:?}");
            return Err(Lost::Babble(what));
        }
        Ok(size as usize)
    }

    /// Descriptors that come with the bytes are closed by the kernel: none is asked for.
    fn read(&mut self, mut buf: &mut [u8], end: Instant) -> Result<(), Lost> {
        while !buf.is_empty() {
            match self.stream.read(buf) {
                Ok(0) => return Err(Lost::Closed),
                Ok(len) => buf = buf.get_mut(len..).unwrap_or_default(),
                Err(e) if e.kind() == Io::WouldBlock => self.wait(PollFlags::POLLIN, end)?,
                Err(e) if e.kind() == Io::Interrupted => {}
                Err(e) => return Err(lost(e)),
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags, end: Instant) -> Result<(), Lost> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Lost::Silent(self.patience));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.stream.as_fd(), flags)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(e) => Err(Lost::Io(e.into())),
        }
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// The words of a header.
pub fn words(bytes: &[u8; HEADER_BYTES]) -> [u32; 3] {
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
    }
    words
}

fn lost(error: std::io::Error) -> Lost {
    match error.kind() {
        Io::BrokenPipe | Io::ConnectionReset => Lost::Closed,
        _ => Lost::Io(error),
    }
}

fn unlike(request: FrontendReq, size: usize, wanted: usize) -> Lost {
    Lost::Babble(format!("an answer of {size} bytes to {request:?}, which has {wanted}"))
}

fn spaced(what: &str) -> String {
    if what.is_empty() { String::new() } else { format!(" {what}") }
}
