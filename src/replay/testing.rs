//! A simulated device for the engine's tests: any latency for any request, so answers come in any
//! order, under a clock that only waiting moves. What a request does to the disk happens when it
//! completes, so two overlapping requests in flight at once are seen in the final content.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::engine::{Accounts, Answer, Done};
use super::run_log::{Part, Record, RunLog};
use super::source::Source;
use crate::base::{BlockOp, Clock, Error, GuestAddr, Nanos, OpFlags, Result, VirtualClock};
use crate::driver::{
    BlockDriver, BlockLimits, BlockRequest, BlockStatus, Buffer, Completion, Submitted,
};
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, Machine};
use crate::oracle::PlannedRequest;
use crate::trace::{Complete, Event, Issue, PayloadRef, StreamId};

/// A machine that is nothing but a virtual clock.
pub struct FakeMachine(pub VirtualClock);

impl Machine for FakeMachine {
    fn name(&self) -> &str {
        "fake"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::VIRTUAL_CLOCK
    }
    fn bus(&mut self) -> Result<&mut dyn Bus> {
        Err(Error::machine("no bus"))
    }
    fn ram(&self) -> Result<Arc<GuestRam>> {
        Err(Error::machine("no memory"))
    }
    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        Err(Error::machine("no interrupts"))
    }
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.0.clone())
    }
    fn poll(&mut self) -> Result<bool> {
        Ok(false)
    }
    fn wait(&mut self, _fds: &[BorrowedFd<'_>], _deadline: Option<Nanos>) -> Result<()> {
        Err(Error::machine("nothing to wait for"))
    }
}

/// When each request is answered, after the kick, by its running number.
pub type Latency = Box<dyn FnMut(u64, &BlockRequest) -> u64>;

struct InFlight {
    token: u64,
    request: BlockRequest,
    buffer: Option<Buffer>,
    due: Option<u64>,
    number: u64,
}

/// The device and its driver in one.
pub struct FakeDevice {
    pub limits: BlockLimits,
    pub disk: Vec<u8>,
    /// Every request with the time it was kicked at, in order.
    pub log: Vec<(u64, BlockRequest)>,
    /// Requests with these numbers fail.
    pub fail: Vec<u64>,
    /// Buffers lent at once at most.
    pub buffers_max: usize,
    clock: VirtualClock,
    latency: Latency,
    memory: Vec<Vec<u8>>,
    free: Vec<usize>,
    in_flight: Vec<InFlight>,
    number: u64,
}

pub const DISK_SECTORS: u64 = 4096;

impl FakeDevice {
    pub fn new(
        clock: &VirtualClock,
        latency: impl FnMut(u64, &BlockRequest) -> u64 + 'static,
    ) -> Self {
        Self {
            limits: BlockLimits {
                capacity_sectors: DISK_SECTORS,
                block_bytes: 512,
                read_only: false,
                flush: true,
                discard_sectors_max: 64,
                write_zeroes_sectors_max: 32,
                write_zeroes_unmap: true,
                transfer_bytes_max: 16 << 10,
                queues: 1,
                depth_max: 256,
            },
            disk: vec![0; (DISK_SECTORS * 512) as usize],
            log: Vec::new(),
            fail: Vec::new(),
            buffers_max: 4096,
            clock: clock.clone(),
            latency: Box::new(latency),
            memory: Vec::new(),
            free: Vec::new(),
            in_flight: Vec::new(),
            number: 0,
        }
    }

    fn apply(&mut self, flight: &mut InFlight) {
        let start = (flight.request.sector * 512) as usize;
        let end = start + (flight.request.sectors * 512) as usize;
        match (flight.request.op, &flight.buffer) {
            (BlockOp::Write, Some(buffer)) => {
                let from = &self.memory[buffer.addr.0 as usize][..end - start];
                self.disk[start..end].copy_from_slice(from);
            }
            (BlockOp::Read, Some(buffer)) => {
                let to = &mut self.memory[buffer.addr.0 as usize][..end - start];
                to.copy_from_slice(&self.disk[start..end]);
            }
            (BlockOp::Discard | BlockOp::WriteZeroes, _) => self.disk[start..end].fill(0),
            _ => {}
        }
    }
}

impl BlockDriver for FakeDevice {
    fn limits(&self) -> &BlockLimits {
        &self.limits
    }
    fn buffer(&mut self, len: usize) -> Option<Buffer> {
        let lent = self.memory.len() - self.free.len();
        if lent >= self.buffers_max {
            return None;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.memory.push(Vec::new());
            self.memory.len() - 1
        });
        let memory = &mut self.memory[at];
        memory.resize(len.max(memory.len()), 0xee);
        Some(Buffer { addr: GuestAddr(at as u64), len: memory.len(), class: 0 })
    }
    fn release(&mut self, buffer: Buffer) {
        self.free.push(buffer.addr.0 as usize);
    }
    fn bytes<'a>(&'a self, buffer: &'a Buffer) -> &'a [u8] {
        &self.memory[buffer.addr.0 as usize]
    }
    fn bytes_mut<'a>(&'a mut self, buffer: &'a mut Buffer) -> &'a mut [u8] {
        &mut self.memory[buffer.addr.0 as usize]
    }
    fn submit(
        &mut self,
        _queue: u16,
        token: u64,
        request: &BlockRequest,
        buffer: Option<Buffer>,
    ) -> Result<Submitted> {
        assert!(self.in_flight.iter().all(|f| f.token != token), "token {token} twice");
        assert!(request.sector + u64::from(request.sectors) <= self.limits.capacity_sectors);
        if self.in_flight.len() >= self.limits.depth_max {
            return Ok(Submitted::Full(buffer));
        }
        let number = self.number;
        self.number += 1;
        self.in_flight.push(InFlight { token, request: *request, buffer, due: None, number });
        Ok(Submitted::Queued)
    }
    fn kick(&mut self, _machine: &mut dyn Machine) -> Result<()> {
        let now = self.clock.now().0;
        for flight in self.in_flight.iter_mut().filter(|f| f.due.is_none()) {
            self.log.push((now, flight.request));
            let latency = (self.latency)(flight.number, &flight.request);
            flight.due = Some(now.saturating_add(latency));
        }
        Ok(())
    }
    fn reap(&mut self, _machine: &mut dyn Machine, done: &mut Vec<Completion>) -> Result<()> {
        let now = self.clock.now().0;
        while let Some(at) = (0..self.in_flight.len())
            .filter(|i| self.in_flight[*i].due.is_some_and(|due| due <= now && due < u64::MAX))
            .min_by_key(|i| (self.in_flight[*i].due, self.in_flight[*i].number))
        {
            let mut flight = self.in_flight.remove(at);
            let failed = self.fail.contains(&flight.number);
            if !failed {
                self.apply(&mut flight);
            }
            let status = if failed { BlockStatus::IoErr } else { BlockStatus::Ok };
            done.push(Completion { token: flight.token, status, buffer: flight.buffer });
        }
        Ok(())
    }
    fn wait(&mut self, _machine: &mut dyn Machine, deadline: Option<Nanos>) -> Result<()> {
        let next = self.in_flight.iter().filter_map(|f| f.due).min().unwrap_or(u64::MAX);
        let until = next.min(deadline.map_or(u64::MAX, |d| d.0));
        assert!(until < u64::MAX, "nothing that could ever happen");
        self.clock.advance_to(Nanos(until));
        Ok(())
    }
    fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
    fn shutdown(&mut self, _machine: &mut dyn Machine) -> Result<()> {
        self.in_flight.clear();
        Ok(())
    }
}

/// A trace in memory. `Stored(n)` is the byte `n` over and over.
#[derive(Default)]
pub struct ListSource {
    pub events: Vec<Event>,
    next: usize,
}

impl ListSource {
    pub fn new(events: Vec<Event>) -> Self {
        Self { events, next: 0 }
    }
}

impl Source for ListSource {
    fn events(&self) -> u64 {
        self.events.len() as u64
    }
    fn next(&mut self) -> Result<Option<(u64, Event)>> {
        let at = self.next;
        self.next += 1;
        Ok(self.events.get(at).map(|event| (at as u64, *event)))
    }
    fn seek(&mut self, event: u64) {
        self.next = event as usize;
    }
    fn payload(&self, payload: PayloadRef, total: u64, from: u64, buf: &mut [u8]) -> Result<()> {
        assert!(from + buf.len() as u64 <= total);
        buf.fill(payload.to_raw() as u8);
        Ok(())
    }
    fn recorded_status(&self, event: u64) -> Result<Option<u16>> {
        let Event::Issue(issue) = self.events[event as usize] else { return Ok(None) };
        Ok(self.events[event as usize..].iter().find_map(|later| match later {
            Event::Complete(c) if c.tag == issue.tag => Some(c.status),
            _ => None,
        }))
    }
}

/// An issue of `op` at byte `offset` for `len` bytes.
pub fn issue(op: BlockOp, offset: u64, len: u64) -> Issue {
    Issue {
        time: Nanos(0),
        tag: 0,
        stream: StreamId(0),
        op,
        flags: OpFlags::empty(),
        offset,
        len,
        payload: PayloadRef::Absent,
        cpu: None,
    }
}

/// An event that issues `op`.
pub fn event(op: BlockOp, offset: u64, len: u64) -> Event {
    Event::Issue(issue(op, offset, len))
}

/// A completion.
pub fn complete(tag: u64, time: u64, status: u16) -> Event {
    let (time, stream, payload) = (Nanos(time), StreamId(0), PayloadRef::Absent);
    Event::Complete(Complete { time, tag, stream, status, payload })
}

/// Accounts that keep everything.
pub struct Ledger {
    pub issued: Vec<PlannedRequest>,
    pub answers: Vec<(PlannedRequest, Part, BlockStatus, bool)>,
    pub reads: Vec<(u64, Vec<u8>)>,
    pub done: Vec<Done>,
    pub recorded: Vec<(BlockOp, u64)>,
    pub recorded_errors: Vec<u16>,
    pub log: RunLog,
    pub wants_data: bool,
    /// Called at each answer: a test can raise its stop flag here.
    pub on_answer: Box<dyn FnMut(usize)>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            issued: Vec::new(),
            answers: Vec::new(),
            reads: Vec::new(),
            done: Vec::new(),
            recorded: Vec::new(),
            recorded_errors: Vec::new(),
            log: RunLog::create(None).unwrap(),
            wants_data: true,
            on_answer: Box::new(|_| {}),
        }
    }
}

impl Accounts for Ledger {
    fn wants_data(&self) -> bool {
        self.wants_data
    }
    fn issued(&mut self, _token: u64, request: &PlannedRequest) -> Result<()> {
        self.issued.push(*request);
        Ok(())
    }
    fn answered(&mut self, answer: &Answer<'_>) -> Result<()> {
        let (part, status) = (answer.part, answer.status);
        self.answers.push((*answer.request, part, status, answer.failed_in_recording));
        if let Some(data) = answer.data {
            self.reads.push((answer.request.event, data.to_vec()));
        }
        let (issue, complete) = (answer.issue, answer.complete);
        self.log.push(&Record {
            request: answer.request,
            part,
            issue,
            complete,
            status,
            digest: 0,
        })?;
        (self.on_answer)(self.answers.len());
        Ok(())
    }
    fn done(&mut self, done: &Done) {
        self.done.push(*done);
    }
    fn recorded(&mut self, op: BlockOp, latency_ns: u64) {
        self.recorded.push((op, latency_ns));
    }
    fn recorded_error(&mut self, status: u16) {
        self.recorded_errors.push(status);
    }
    fn progress(&mut self, _events: u64) {}
}
