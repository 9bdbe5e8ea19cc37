//! One client's loop, past its handshake.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::backend::{Backend, Data, Job, Outcome, Work};
use super::buffers::{Buffer, recorded};
use super::flight::{Flight, Flights, changes, issue_of, reply_to, work_of};
use super::holes::Holes;
use super::input::{Arriving, Filled, Input};
use super::output::{Output, Payload, Reply, Told};
use super::pace::{Pace, end_patience};
use super::request::{Action, Agreed, Refusal, Request, SHUTDOWN, judge};
use super::server::{Peer, Shared};
use super::stream::Stream;
use crate::record::recording::zeros;

/// Requests of one connection in progress.
const FLIGHTS_MAX: usize = 128;

/// Bytes of data that one connection may hold: two of the longest requests.
const HELD_BYTES_MAX: usize = 64 << 20;

/// Bytes of replies that wait before more requests are taken.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// Data of writes that is taken before replies are sent.
const TURN_BYTES: usize = 1 << 20;

/// How soon it is tried again whether there is memory for a request.
const MEMORY_PATIENCE: Duration = Duration::from_millis(20);

/// What is left of a shorter time is waited for at once.
const PATIENCE_MIN: Duration = Duration::from_millis(1);

/// How long a client that has just sent something is looked at before its thread sleeps: to be woken
/// takes as long as many small requests do. The processor is offered to others meanwhile.
const LOITER: Duration = Duration::from_micros(50);

/// What a request is told when the recording has failed and requests are to fail with it.
const UNRECORDED: Refusal = Refusal { errno: libc::EIO, why: "it cannot be recorded" };

/// See the module.
pub(super) struct Connection {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    stream: Stream,
    agreed: Agreed,
    input: Input,
    /// A write whose data is on its way.
    arriving: Option<Arriving>,
    /// Data that nobody wants, and the reply that follows it.
    skipping: Option<(u64, Reply)>,
    /// A request for which there is no memory yet.
    waiting: Option<Request>,
    flights: Flights,
    backend: Backend,
    holes: Holes,
    output: Output,
    held: usize,
    done: Vec<(u64, Outcome)>,
    /// No more requests are taken; those that were are answered.
    closing: bool,
    moved_at: Instant,
    pace: Pace,
}

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: Arc<Peer>,
        stream: Stream,
        agreed: Agreed,
    ) -> io::Result<Self> {
        stream.set_nonblocking()?;
        let backend = Backend::new(Arc::clone(&shared.export.image), Arc::clone(&shared.workers))?;
        Ok(Self {
            holes: Holes::new(&shared.export),
            shared,
            peer,
            stream,
            agreed,
            input: Input::new(),
            arriving: None,
            skipping: None,
            waiting: None,
            flights: Flights::default(),
            backend,
            output: Output::default(),
            held: 0,
            done: Vec::new(),
            closing: false,
            moved_at: Instant::now(),
            pace: Pace::default(),
        })
    }

    /// Serves until the client says goodbye, is gone, or breaks the protocol.
    ///
    /// # Errors
    /// Why it did not end well.
    pub(super) fn serve(mut self) -> io::Result<()> {
        let served = self.run();
        // What the image has begun is waited for: it happens, whoever is there to hear of it.
        self.closing = true;
        while !self.flights.is_empty() {
            if !self.collect()? {
                self.wait(false);
            }
        }
        if served.is_ok() {
            let _ = self.send();
        }
        let freed = self.output.abandon(&self.shared.export.tap);
        self.release(freed);
        let held = std::mem::take(&mut self.held);
        self.shared.budget.give_back(held);
        served
    }

    fn run(&mut self) -> io::Result<()> {
        let mut idle_since = None;
        loop {
            let mut busy = self.collect()?;
            busy |= self.take_requests()?;
            self.backend.kick()?;
            busy |= self.collect()?;
            busy |= self.send()?;
            if self.closing && self.flights.is_empty() && self.output.is_empty() {
                return Ok(());
            }
            if self.is_overdue() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if busy {
                idle_since = None;
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() < LOITER {
                std::thread::yield_now();
            } else {
                self.wait(true);
            }
        }
    }

    /// Whether the server is to end and the client does not take its replies, or not soon enough.
    fn is_overdue(&self) -> bool {
        !self.output.is_empty() && self.end_patience().is_some_and(|left| left.is_zero())
    }

    /// How long the client is waited for when the server is to end.
    fn end_patience(&self) -> Option<Duration> {
        let stopped = self.shared.stopped_at()?;
        Some(end_patience(self.moved_at, stopped, Instant::now()))
    }

    /// The client took or sent `bytes`.
    fn moved(&mut self, bytes: usize) {
        self.moved_at = Instant::now();
        self.pace.moved(bytes as u64, self.moved_at);
    }

    fn is_full(&self) -> bool {
        self.flights.len() >= FLIGHTS_MAX || self.output.bytes() >= OUTPUT_BYTES_MAX
    }

    /// Takes requests until there are none, or replies should be sent first.
    fn take_requests(&mut self) -> io::Result<bool> {
        let (mut busy, mut filled, mut taken) = (false, false, 0);
        while !self.closing && !self.is_full() {
            if let Some(request) = self.waiting.take() {
                self.request(request);
                if self.waiting.is_some() {
                    break;
                }
                busy = true;
                continue;
            }
            match self.advance()? {
                Some(bytes) => {
                    (busy, taken) = (true, taken + bytes);
                    continue;
                }
                // Replies go out before more is asked for, but for data on its way.
                None if taken > TURN_BYTES || (filled && self.arriving.is_none()) => break,
                None => {}
            }
            match self.input.fill(&mut self.stream, self.arriving.as_mut())? {
                Filled::Some(bytes) => {
                    (busy, filled) = (true, true);
                    self.moved(bytes);
                }
                Filled::Nothing => {
                    self.closing |= self.shared.is_stopping();
                    break;
                }
                Filled::End => self.closing = true,
            }
        }
        Ok(busy)
    }

    /// Goes on with what has come: how many bytes of data that was, or `None` when more must come.
    fn advance(&mut self) -> io::Result<Option<usize>> {
        if let Some(arriving) = &mut self.arriving {
            self.input.supply(arriving);
            if !arriving.is_complete() {
                return Ok(None);
            }
            let Some(Arriving { request, buffer, .. }) = self.arriving.take() else {
                return Ok(None);
            };
            let bytes = buffer.as_ref().len();
            self.write(request, buffer);
            return Ok(Some(bytes));
        }
        if let Some((left, reply)) = self.skipping.take() {
            let left = left - self.input.skip(left);
            if left == 0 {
                self.output.push(reply);
                return Ok(Some(0));
            }
            self.skipping = Some((left, reply));
            return Ok(None);
        }
        match self.input.request() {
            None => Ok(None),
            Some(Ok(request)) => {
                self.request(request);
                Ok(Some(0))
            }
            Some(Err(())) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a request does not begin as one"))
            }
        }
    }

    fn request(&mut self, request: Request) {
        let export = Arc::clone(&self.shared.export);
        let judged = match judge(&request, self.agreed, export.size(), export.read_only) {
            Ok(action) if self.shared.is_stopping() && action != Action::Disconnect => {
                Err(SHUTDOWN)
            }
            judged => judged,
        };
        let action = match judged {
            Ok(action) => action,
            Err(refusal) => return self.refuse(&request, refusal),
        };
        let Some(work) = work_of(action, request.len) else {
            return match action {
                Action::Disconnect => self.closing = true,
                _ => self.nothing_to_do(&request, action),
            };
        };
        match work {
            Work::Read if self.is_hole(&request, action) => self.hole(request),
            Work::Read | Work::Write { .. } if !self.hold(request.len as usize) => {
                self.waiting = Some(request);
            }
            Work::Read => {
                let buffer = self.shared.pool.get(request.len as usize);
                self.begin(request, work, Data::Into(buffer), request.len as usize);
            }
            Work::Write { .. } => {
                let buffer = self.shared.pool.get(request.len as usize);
                self.arriving = Some(Arriving::new(request, buffer));
            }
            work => self.begin(request, work, Data::None, 0),
        }
    }

    fn refuse(&mut self, request: &Request, refusal: Refusal) {
        self.shared.export.refused.fetch_add(1, Ordering::Relaxed);
        let reply = Reply::error(request.cookie, refusal, self.agreed.structured);
        match request.data_bytes() {
            0 => self.output.push(reply),
            len => self.skipping = Some((len.into(), reply)),
        }
    }

    fn nothing_to_do(&mut self, request: &Request, action: Action) {
        let structured = self.agreed.structured && matches!(action, Action::Read { .. });
        let cookie = request.cookie;
        self.output.push(if structured { Reply::none(cookie) } else { Reply::simple(cookie, 0) });
    }

    fn is_hole(&mut self, request: &Request, action: Action) -> bool {
        self.agreed.structured
            && action == Action::Read { whole: false }
            && self.holes.is_hole(&self.shared.export, request.offset, request.len.into())
    }

    /// A read of what is not there takes no work and no memory.
    fn hole(&mut self, request: Request) {
        let export = Arc::clone(&self.shared.export);
        let issue = issue_of(Work::Read, request.offset, request.len);
        let Some(Ok(tag)) = issue.map(|issue| export.tap.issue(issue, None)) else {
            return self.refuse(&request, UNRECORDED);
        };
        let data = export.read_data.then(|| Payload(zeros(request.len as usize)));
        let reply = Reply::hole(request.cookie, request.offset, request.len);
        self.output.push(reply.telling(Told { tag, status: 0, data }));
    }

    fn write(&mut self, request: Request, buffer: Buffer) {
        let held = buffer.as_ref().len();
        let fua = request.flags & crate::image::nbd_proto::NBD_CMD_FLAG_FUA != 0;
        self.begin(request, Work::Write { fua }, Data::From(Arc::new(buffer)), held);
    }

    /// Records a request and has it done.
    fn begin(&mut self, request: Request, work: Work, data: Data, held: usize) {
        let export = Arc::clone(&self.shared.export);
        let written = match &data {
            Data::From(buffer) => Some(recorded(buffer)),
            _ => None,
        };
        let tag = match issue_of(work, request.offset, request.len) {
            None => {
                export.unsaid.fetch_add(1, Ordering::Relaxed);
                None
            }
            Some(issue) => match export.tap.issue(issue, written) {
                Ok(tag) => Some(tag),
                Err(_) => {
                    self.release(held);
                    let reply = Reply::error(request.cookie, UNRECORDED, self.agreed.structured);
                    return self.output.push(reply);
                }
            },
        };
        if changes(work) {
            export.changes();
        }
        let (offset, len) = (request.offset, u64::from(request.len));
        let token = self.flights.add(Flight { request, work, tag, held });
        let alone = self.flights.len() == 1 && self.input.is_empty();
        if let Some(outcome) = self.backend.begin(token, Job { work, offset, len, data }, alone) {
            self.finish(token, outcome);
        }
    }

    fn finish(&mut self, token: u64, outcome: Outcome) {
        let Some(flight) = self.flights.remove(token) else { return };
        let export = &self.shared.export;
        if changes(flight.work) {
            export.changes();
        }
        if let Err(error) = &outcome.result {
            export.failed(&flight.request, flight.work, error);
        }
        if self.output.is_empty() {
            // Until now it was the image that was waited for.
            self.moved_at = Instant::now();
        }
        self.output.push(reply_to(flight, outcome, self.agreed.structured, export.read_data));
    }

    /// Takes what the image has finished.
    fn collect(&mut self) -> io::Result<bool> {
        let mut done = std::mem::take(&mut self.done);
        self.backend.collect(&mut done)?;
        let any = !done.is_empty();
        for (token, outcome) in done.drain(..) {
            self.finish(token, outcome);
        }
        self.done = done;
        Ok(any)
    }

    fn send(&mut self) -> io::Result<bool> {
        let waiting = self.output.bytes();
        let freed = self.output.send(&mut self.stream, &self.shared.export.tap)?;
        self.release(freed);
        let sent = waiting.saturating_sub(self.output.bytes());
        if sent > 0 {
            self.moved(sent);
        }
        Ok(sent > 0)
    }

    /// Takes `bytes` of the budget, if they are to be had now.
    fn hold(&mut self, bytes: usize) -> bool {
        if self.held > 0 && self.held + bytes > HELD_BYTES_MAX {
            return false;
        }
        if !self.shared.budget.take(bytes) {
            self.shared.end_a_stuck_peer(self.peer.number);
            return false;
        }
        self.held += bytes;
        true
    }

    fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.held);
        self.held -= bytes;
        if bytes > 0 {
            self.shared.budget.give_back(bytes);
        }
    }

    /// Waits for something to happen: also at the client's end, where `client` says so.
    fn wait(&mut self, client: bool) {
        let reads = client && !self.closing && self.waiting.is_none() && !self.is_full();
        let writes = client && !self.output.is_empty();
        let on_client = writes || reads && (self.arriving.is_some() || self.skipping.is_some());
        let since = self.pace.waits(on_client, Instant::now());
        self.peer.wait_on_client(since, self.held);
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, reads);
        events.set(PollFlags::POLLOUT, writes);
        let mut fds = vec![PollFd::new(self.backend.mailbox().as_fd(), PollFlags::POLLIN)];
        fds.extend(self.backend.queue_fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        if !events.is_empty() {
            // With nothing to wait for it would still say that the client is gone, again and again.
            fds.push(PollFd::new(self.stream.as_fd(), events));
        }
        let ending = self.end_patience();
        if ending.is_none() {
            fds.push(PollFd::new(self.shared.stop_fd(), PollFlags::POLLIN));
        }
        let patience = match ending {
            _ if self.waiting.is_some() => PollTimeout::try_from(MEMORY_PATIENCE),
            Some(left) if writes => PollTimeout::try_from(left.max(PATIENCE_MIN)),
            _ => Ok(PollTimeout::NONE),
        };
        // Whatever it says, everything is looked at again.
        let _ = poll(&mut fds, patience.unwrap_or(PollTimeout::MAX));
        drop(fds);
        self.peer.wait_on_client(None, self.held);
    }
}
