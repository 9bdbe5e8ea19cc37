//! Requests and their data, as they come from the client.

use std::io::{self, IoSliceMut, Read};

use super::buffers::Buffer;
use super::request::{REQUEST_BYTES, Request};

/// Bytes that are read at once: many requests, or the data of a few.
const INPUT_BYTES: usize = 256 << 10;

/// What a read from the client brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// So many bytes.
    Some(usize),
    /// Nothing has come.
    Nothing,
    /// Nothing will come any more.
    End,
}

/// Data of a write that is on its way.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) request: Request,
    pub(super) buffer: Buffer,
    got: usize,
}

impl Arriving {
    pub(super) fn new(request: Request, buffer: Buffer) -> Self {
        Self { request, buffer, got: 0 }
    }

    fn missing(&mut self) -> &mut [u8] {
        let got = self.got;
        self.buffer.as_mut().get_mut(got..).unwrap_or_default()
    }

    pub(super) fn is_complete(&mut self) -> bool {
        self.missing().is_empty()
    }
}

/// What was read and not taken yet.
#[derive(Debug)]
pub(super) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; INPUT_BYTES], start: 0, end: 0 }
    }

    fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn take(&mut self, len: usize) {
        self.start += len;
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// The next request's header, when it is here: `Err` when it is none.
    pub(super) fn request(&mut self) -> Option<Result<Request, ()>> {
        let head = *self.waiting().first_chunk::<REQUEST_BYTES>()?;
        self.take(REQUEST_BYTES);
        Some(Request::parse(&head).ok_or(()))
    }

    /// Moves what is here of a write's data to where it belongs.
    pub(super) fn supply(&mut self, arriving: &mut Arriving) {
        let waiting = self.waiting();
        let missing = arriving.missing();
        let len = missing.len().min(waiting.len());
        let (to, _) = missing.split_at_mut(len);
        to.copy_from_slice(waiting.split_at(len).0);
        arriving.got += len;
        self.take(len);
    }

    /// Drops up to `len` bytes of what is here; returns how many.
    pub(super) fn skip(&mut self, len: u64) -> u64 {
        let here = self.waiting().len();
        let skipped = usize::try_from(len).map_or(here, |len| len.min(here));
        self.take(skipped);
        skipped as u64
    }

    /// Whether a part of a request is here.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Reads once: what `arriving` misses straight to its place, and what follows.
    pub(super) fn fill(
        &mut self,
        stream: &mut impl Read,
        arriving: Option<&mut Arriving>,
    ) -> io::Result<Filled> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let rest = self.bytes.get_mut(self.end..).unwrap_or_default();
        let direct =
            arriving.as_ref().map_or(0, |arriving| arriving.buffer.as_ref().len() - arriving.got);
        let read = match arriving {
            Some(arriving) if direct > 0 => {
                let mut bufs = [IoSliceMut::new(arriving.missing()), IoSliceMut::new(rest)];
                let read = stream.read_vectored(&mut bufs);
                if let Ok(read) = &read {
                    arriving.got += (*read).min(direct);
                }
                read
            }
            _ => stream.read(rest),
        };
        match read {
            Ok(0) => Ok(Filled::End),
            Ok(read) => {
                self.end += read.saturating_sub(direct);
                Ok(Filled::Some(read))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Filled::Nothing),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Filled::Some(0)),
            Err(e) => Err(e),
        }
    }
}
