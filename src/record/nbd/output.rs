//! Replies on their way to the client.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use super::backend::is_hole;
use super::buffers::Buffer;
use super::handshake::ALLOCATION_CONTEXT;
use super::request::{Refusal, nbd_error};
use crate::image::Extent;
use crate::image::nbd_proto::*;
use crate::record::recording::{Bytes, Tag, Tap};

/// Bytes that are given to the socket at once. What is among them counts as told.
const SEND_BYTES: usize = 256 << 10;

/// Pieces that are given to the socket at once.
const SEND_PIECES: usize = 128;

/// Most of a head but that of a block status: a chunk with an offset.
const HEAD_BYTES: usize = 32;

/// What the recording is told when the client is.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) tag: Tag,
    pub(super) status: u16,
    pub(super) data: Option<Payload>,
}

/// Data that is recorded.
pub(super) struct Payload(pub(super) Bytes);

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", (*self.0).as_ref().len())
    }
}

/// A reply.
#[derive(Debug)]
pub(super) struct Reply {
    head: Vec<u8>,
    data: Option<Arc<Buffer>>,
    told: Option<Told>,
    /// Bytes of the budget that it holds.
    held: usize,
}

impl Reply {
    fn new(head: Vec<u8>) -> Self {
        Self { head, data: None, told: None, held: 0 }
    }

    /// Without data; `errno` is 0 for success.
    pub(super) fn simple(cookie: u64, errno: i32) -> Self {
        let mut head = Vec::with_capacity(16);
        head.extend(NBD_SIMPLE_REPLY_MAGIC.to_be_bytes());
        head.extend(nbd_error_or_0(errno).to_be_bytes());
        head.extend(cookie.to_be_bytes());
        Self::new(head)
    }

    fn chunk(cookie: u64, kind: u16, len: usize) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD_BYTES + len.min(HEAD_BYTES));
        head.extend(NBD_STRUCTURED_REPLY_MAGIC.to_be_bytes());
        head.extend(NBD_REPLY_FLAG_DONE.to_be_bytes());
        head.extend(kind.to_be_bytes());
        head.extend(cookie.to_be_bytes());
        head.extend((len as u32).to_be_bytes());
        head
    }

    /// The error of a request; with words where replies are structured.
    pub(super) fn error(cookie: u64, refusal: Refusal, structured: bool) -> Self {
        if !structured {
            return Self::simple(cookie, refusal.errno);
        }
        let why = refusal.why.as_bytes();
        let mut head = Self::chunk(cookie, NBD_REPLY_TYPE_ERROR, 6 + why.len());
        head.extend(nbd_error_or_0(refusal.errno).to_be_bytes());
        head.extend((why.len() as u16).to_be_bytes());
        head.extend(why);
        Self::new(head)
    }

    /// What was read at `offset`.
    pub(super) fn data(cookie: u64, offset: u64, data: Arc<Buffer>, structured: bool) -> Self {
        let mut reply = if structured {
            let len = (*data).as_ref().len() + 8;
            let mut head = Self::chunk(cookie, NBD_REPLY_TYPE_OFFSET_DATA, len);
            head.extend(offset.to_be_bytes());
            Self::new(head)
        } else {
            Self::simple(cookie, 0)
        };
        reply.data = Some(data);
        reply
    }

    /// Nothing was read; replies are structured.
    pub(super) fn none(cookie: u64) -> Self {
        Self::new(Self::chunk(cookie, NBD_REPLY_TYPE_NONE, 0))
    }

    /// `len` zeros were read at `offset`.
    pub(super) fn hole(cookie: u64, offset: u64, len: u32) -> Self {
        let mut head = Self::chunk(cookie, NBD_REPLY_TYPE_OFFSET_HOLE, 12);
        head.extend(offset.to_be_bytes());
        head.extend(len.to_be_bytes());
        Self::new(head)
    }

    /// What a range holds.
    pub(super) fn status(cookie: u64, extents: &[Extent]) -> Self {
        let mut head = Self::chunk(cookie, NBD_REPLY_TYPE_BLOCK_STATUS, 4 + 8 * extents.len());
        head.extend(ALLOCATION_CONTEXT.to_be_bytes());
        for extent in extents {
            let flags = if is_hole(extent) { NBD_STATE_HOLE | NBD_STATE_ZERO } else { 0 };
            // They are of a range whose length has 32 bits.
            head.extend(u32::try_from(extent.len).unwrap_or(u32::MAX).to_be_bytes());
            head.extend(flags.to_be_bytes());
        }
        Self::new(head)
    }

    /// Says it to the recording as well, when the client is told.
    pub(super) fn telling(self, told: Told) -> Self {
        Self { told: Some(told), ..self }
    }

    /// Holds `bytes` of the budget until it is sent.
    pub(super) fn holding(self, held: usize) -> Self {
        Self { held, ..self }
    }

    fn len(&self) -> usize {
        self.head.len() + self.data.as_ref().map_or(0, |data| (**data).as_ref().len())
    }
}

fn nbd_error_or_0(errno: i32) -> u32 {
    if errno == 0 { 0 } else { nbd_error(errno) }
}

/// Replies in the order in which they go out.
#[derive(Debug, Default)]
pub(super) struct Output {
    replies: VecDeque<Reply>,
    /// Bytes of the first one that have gone.
    sent: usize,
    /// How many of the first ones the recording has been told of.
    told: usize,
    bytes: usize,
}

impl Output {
    pub(super) fn push(&mut self, reply: Reply) {
        self.bytes += reply.len();
        self.replies.push_back(reply);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sends what the socket takes. Returns the bytes of the budget that are free now.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn send(&mut self, stream: &mut impl Write, tap: &Tap) -> io::Result<usize> {
        let mut freed = 0;
        while !self.replies.is_empty() {
            self.tell(tap);
            let sent = match stream.write_vectored(&self.pieces()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => sent,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            freed += self.advance(sent);
        }
        Ok(freed)
    }

    /// Everything that still waits happened, though nobody will be told. Returns the bytes of the
    /// budget that it held.
    pub(super) fn abandon(&mut self, tap: &Tap) -> usize {
        let mut freed = 0;
        for mut reply in self.replies.drain(..) {
            tell(&mut reply, tap);
            freed += reply.held;
        }
        (self.sent, self.told, self.bytes) = (0, 0, 0);
        freed
    }

    /// Tells the recording of what goes to the socket next, just before it does.
    fn tell(&mut self, tap: &Tap) {
        let mut bytes = 0;
        for (n, reply) in self.replies.iter_mut().enumerate().take(SEND_PIECES / 2) {
            if bytes >= SEND_BYTES {
                break;
            }
            bytes += reply.len();
            if n >= self.told {
                tell(reply, tap);
                self.told = n + 1;
            }
        }
    }

    /// What is told of and not sent.
    fn pieces(&self) -> Vec<IoSlice<'_>> {
        let mut pieces = Vec::with_capacity(2 * self.told);
        let mut skip = self.sent;
        for reply in self.replies.iter().take(self.told) {
            let data = reply.data.as_ref().map_or(&[][..], |data| (**data).as_ref());
            for part in [&reply.head[..], data] {
                let rest = part.get(skip.min(part.len())..).unwrap_or_default();
                skip -= part.len() - rest.len();
                if !rest.is_empty() {
                    pieces.push(IoSlice::new(rest));
                }
            }
        }
        pieces
    }

    fn advance(&mut self, sent: usize) -> usize {
        let mut freed = 0;
        self.sent += sent;
        self.bytes = self.bytes.saturating_sub(sent);
        while let Some(reply) = self.replies.pop_front_if(|reply| reply.len() <= self.sent) {
            self.sent -= reply.len();
            self.told = self.told.saturating_sub(1);
            freed += reply.held;
        }
        freed
    }
}

fn tell(reply: &mut Reply, tap: &Tap) {
    if let Some(Told { tag, status, data }) = reply.told.take() {
        tap.complete(tag, status, data.map(|payload| payload.0));
    }
}
