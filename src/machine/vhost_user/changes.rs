//! Requests of a back-end to its front-end: the channel by which it tells that its configuration
//! has changed. Nothing on it is waited for.

use std::io::{ErrorKind as Io, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::BackendReq;

use super::link::{HEADER_BYTES, NEED_REPLY, REPLY, VERSION, words};

/// Longest request taken: those there are have some dozen bytes.
const REQUEST_BYTES_MAX: usize = 4096;

/// Bytes read before the machine gets on with what it was asked for; a back-end may send without
/// an end.
const LOOK_BYTES_MAX: usize = 1 << 16;

/// Our end of the channel.
#[derive(Debug)]
pub struct Changes {
    stream: UnixStream,
    input: Vec<u8>,
    /// How often the configuration changed.
    pub count: u64,
    open: bool,
}

impl Changes {
    /// A channel, and the end that the back-end gets.
    pub fn new() -> std::io::Result<(Self, OwnedFd)> {
        let (stream, theirs) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        Ok((Self { stream, input: Vec::new(), count: 0, open: true }, theirs.into()))
    }

    /// Takes what has come. A channel that closes, or carries nonsense, is closed for good: what
    /// becomes of the device is told by its own connection.
    pub fn look(&mut self) {
        let mut taken = 0;
        while self.open && taken < LOOK_BYTES_MAX {
            let mut buf = [0; 1024];
            match self.stream.read(&mut buf) {
                Ok(0) => self.open = false,
                Ok(len) => {
                    taken += len;
                    self.input.extend(buf.get(..len).unwrap_or_default());
                    self.take();
                }
                Err(e) if e.kind() == Io::Interrupted => {}
                Err(e) if e.kind() == Io::WouldBlock => return,
                Err(_) => self.open = false,
            }
        }
    }

    fn take(&mut self) {
        while let Some(header) = self.input.first_chunk::<HEADER_BYTES>() {
            let [code, flags, size] = words(header);
            let size = size as usize;
            if size > REQUEST_BYTES_MAX {
                self.open = false;
                return;
            }
            if self.input.len() < HEADER_BYTES + size {
                return;
            }
            self.input.drain(..HEADER_BYTES + size);
            let known = code == u32::from(BackendReq::CONFIG_CHANGE_MSG);
            self.count += u64::from(known);
            if flags & NEED_REPLY != 0 {
                self.answer(code, u64::from(!known));
            }
        }
    }

    /// 0 says that it was done. There is room for it, unless the back-end reads no answers.
    fn answer(&mut self, code: u32, result: u64) {
        let header = [code, VERSION | REPLY, size_of::<u64>() as u32];
        let mut message: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        message.extend(result.to_ne_bytes());
        self.open &= self.stream.write_all(&message).is_ok();
    }
}
