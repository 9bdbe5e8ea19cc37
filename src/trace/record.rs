//! Events as [`Record`]s and back; every field is checked on both ways.

use zerocopy::little_endian::{U16, U32, U64};

use super::bus_event::{AckEvent, BusEvent, ClockStep, IrqChange, MemoryEvent, MemoryOp};
use super::event::{Complete, Event, Issue, Mark, PayloadRef, StreamId};
use super::format::{
    BUS_MMIO, BUS_WRITE, CPU_UNKNOWN, EVENT_ACK, EVENT_BUS, EVENT_CLOCK, EVENT_COMPLETE, EVENT_IRQ,
    EVENT_ISSUE, EVENT_MARK, EVENT_MEMORY, Record,
};
use crate::base::limits::REQUEST_BYTES_MAX;
use crate::base::{BlockOp, BusAccess, BusSpace, Nanos, OpFlags};

/// What is wrong with a record whose kind this version does not know.
pub const UNKNOWN_KIND: &str = "an unknown kind of event";

const NO_SUCH_CPU: &str = "CPU 65535 cannot be stored";

/// What a record may refer to.
#[derive(Clone, Copy, Debug)]
pub struct RecordBounds {
    /// Streams known.
    pub streams: u32,
    /// Number of the next payload: those below it exist.
    pub next_payload: u64,
}

impl RecordBounds {
    /// Whether that stream and that payload exist.
    #[inline]
    fn check(self, stream: u32, payload: u32) -> Result<(), &'static str> {
        if stream >= self.streams {
            return Err("a stream that was never described");
        }
        if u64::from(payload) >= self.next_payload.max(1) {
            return Err("a payload that does not exist");
        }
        Ok(())
    }

    /// Whether [`Record::issue`] can stand in a trace.
    ///
    /// # Errors
    /// Says why not.
    #[inline]
    pub(super) fn check_issue(self, issue: &Issue) -> Result<(), &'static str> {
        check_disk_range(issue.offset, issue.len)?;
        if issue.cpu == Some(CPU_UNKNOWN) {
            return Err(NO_SUCH_CPU);
        }
        known_flags(issue.flags.bits())?;
        self.check(issue.stream.0, issue.payload.to_raw())
    }

    /// Whether [`Record::complete`] can stand in a trace.
    ///
    /// # Errors
    /// Says why not.
    #[inline]
    pub(super) fn check_complete(self, complete: &Complete) -> Result<(), &'static str> {
        self.check(complete.stream.0, complete.payload.to_raw())
    }
}

impl Record {
    /// The record of `event`.
    ///
    /// # Errors
    /// Says what cannot be stored, or what [`Record::decode`] would refuse.
    #[inline]
    pub fn encode(event: &Event, bounds: RecordBounds) -> Result<Self, &'static str> {
        let record = match event {
            // What most events are is checked as it is, and not decoded again for that.
            Event::Issue(issue) => {
                return bounds.check_issue(issue).map(|()| Self::issue(issue));
            }
            Event::Complete(complete) => {
                return bounds.check_complete(complete).map(|()| Self::complete(complete));
            }
            Event::Mark(mark) => Self {
                len: U64::new(mark.text_len),
                payload: U32::new(mark.text.to_raw()),
                ..Self::new(EVENT_MARK, mark.time, mark.stream)
            },
            Event::Bus(bus) => Self::bus(bus),
            Event::Memory(memory) => Self::memory(memory),
            Event::Irq(irq) => Self {
                offset: U64::new(irq.line.into()),
                op: u8::from(irq.high),
                ..Self::new(EVENT_IRQ, irq.time, irq.stream)
            },
            Event::Ack(ack) => Self {
                op: u8::from(ack.vector.is_some()),
                status: U16::new(ack.vector.unwrap_or_default().into()),
                cpu: U16::new(ack.cpu),
                ..Self::new(EVENT_ACK, ack.time, ack.stream)
            },
            Event::Clock(step) => Self {
                offset: U64::new(step.to.0),
                ..Self::new(EVENT_CLOCK, step.time, step.stream)
            },
        };
        if matches!(event, Event::Bus(bus) if bus.cpu == Some(CPU_UNKNOWN)) {
            return Err(NO_SUCH_CPU);
        }
        record.decode(bounds).map(|_| record)
    }

    /// Whether the stream and the payload that it names exist.
    #[inline]
    fn check_references(&self, bounds: RecordBounds) -> Result<(), &'static str> {
        bounds.check(self.stream.get(), self.payload.get())
    }

    #[inline]
    fn new(kind: u8, time: Nanos, stream: StreamId) -> Self {
        Self { time: U64::new(time.0), stream: U32::new(stream.0), kind, ..Self::default() }
    }

    /// The record of a completion, which is not checked.
    #[inline]
    pub(super) fn complete(complete: &Complete) -> Self {
        Self {
            tag: U64::new(complete.tag),
            payload: U32::new(complete.payload.to_raw()),
            status: U16::new(complete.status),
            ..Self::new(EVENT_COMPLETE, complete.time, complete.stream)
        }
    }

    /// The record of an issue, which is not checked.
    #[inline]
    pub(super) fn issue(issue: &Issue) -> Self {
        Self {
            offset: U64::new(issue.offset),
            len: U64::new(issue.len),
            tag: U64::new(issue.tag),
            payload: U32::new(issue.payload.to_raw()),
            flags: U16::new(issue.flags.bits()),
            op: issue.op as u8,
            cpu: U16::new(issue.cpu.unwrap_or(CPU_UNKNOWN)),
            ..Self::new(EVENT_ISSUE, issue.time, issue.stream)
        }
    }

    fn bus(bus: &BusEvent) -> Self {
        let BusAccess { space, write, addr, size, value } = bus.access;
        let space = if space == BusSpace::Mmio { BUS_MMIO } else { 0 };
        Self {
            offset: U64::new(addr),
            len: U64::new(size.into()),
            tag: U64::new(value),
            op: space | if write { BUS_WRITE } else { 0 },
            cpu: U16::new(bus.cpu.unwrap_or(CPU_UNKNOWN)),
            ..Self::new(EVENT_BUS, bus.time, bus.stream)
        }
    }

    fn memory(memory: &MemoryEvent) -> Self {
        let number = MemoryOp::ALL.iter().position(|op| *op == memory.op).unwrap_or_default();
        Self {
            offset: U64::new(memory.addr),
            len: U64::new(memory.len),
            payload: U32::new(memory.payload.to_raw()),
            status: U16::new(memory.fill.into()),
            op: number as u8 + 1,
            ..Self::new(EVENT_MEMORY, memory.time, memory.stream)
        }
    }

    /// The event that it holds, checked.
    ///
    /// # Errors
    /// Says what is wrong with it.
    #[inline]
    pub fn decode(&self, bounds: RecordBounds) -> Result<Event, &'static str> {
        self.check_references(bounds)?;
        let time = Nanos(self.time.get());
        let stream = StreamId(self.stream.get());
        let payload = PayloadRef::from_raw(self.payload.get());
        match self.kind {
            EVENT_ISSUE => self.decode_issue(time, stream, payload),
            EVENT_COMPLETE => {
                let (tag, status) = (self.tag.get(), self.status.get());
                Ok(Event::Complete(Complete { time, tag, stream, status, payload }))
            }
            EVENT_MARK => {
                let text_len = self.len.get();
                if text_len > REQUEST_BYTES_MAX {
                    return Err("a length beyond any text's");
                }
                Ok(Event::Mark(Mark { time, stream, text: payload, text_len }))
            }
            EVENT_BUS => self.decode_bus(time, stream),
            EVENT_MEMORY => self.decode_memory(time, stream, payload),
            EVENT_IRQ => {
                let line = u32::try_from(self.offset.get()).map_err(|_| "an impossible line")?;
                let high = self.switch("an unknown level")?;
                Ok(Event::Irq(IrqChange { time, stream, line, high }))
            }
            EVENT_ACK => {
                let taken = self.switch("an unknown answer")?;
                let vector = u8::try_from(self.status.get()).map_err(|_| "an impossible vector")?;
                let vector = taken.then_some(vector);
                Ok(Event::Ack(AckEvent { time, stream, cpu: self.cpu.get(), vector }))
            }
            EVENT_CLOCK => {
                Ok(Event::Clock(ClockStep { time, stream, to: Nanos(self.offset.get()) }))
            }
            _ => Err(UNKNOWN_KIND),
        }
    }

    #[inline]
    fn decode_issue(
        &self,
        time: Nanos,
        stream: StreamId,
        payload: PayloadRef,
    ) -> Result<Event, &'static str> {
        let op = BlockOp::from_u8(self.op).ok_or("an unknown operation")?;
        let flags = known_flags(self.flags.get())?;
        let (offset, len) = (self.offset.get(), self.len.get());
        check_disk_range(offset, len)?;
        let (tag, cpu) = (self.tag.get(), self.known_cpu());
        Ok(Event::Issue(Issue { time, tag, stream, op, flags, offset, len, payload, cpu }))
    }

    #[inline]
    fn decode_bus(&self, time: Nanos, stream: StreamId) -> Result<Event, &'static str> {
        if self.op & !(BUS_MMIO | BUS_WRITE) != 0 {
            return Err("an unknown kind of access");
        }
        let space = if self.op & BUS_MMIO != 0 { BusSpace::Mmio } else { BusSpace::Pio };
        let write = self.op & BUS_WRITE != 0;
        let (addr, value) = (self.offset.get(), self.tag.get());
        let size = u8::try_from(self.len.get()).unwrap_or_default();
        if !space.holds(addr, size) {
            return Err("an access that the space does not have");
        }
        if value & !BusAccess::ones(size) != 0 {
            return Err("a value wider than its access");
        }
        let access = BusAccess { space, write, addr, size, value };
        Ok(Event::Bus(BusEvent { time, stream, access, cpu: self.known_cpu() }))
    }

    fn decode_memory(
        &self,
        time: Nanos,
        stream: StreamId,
        payload: PayloadRef,
    ) -> Result<Event, &'static str> {
        let op = usize::from(self.op).checked_sub(1).and_then(|at| MemoryOp::ALL.get(at));
        let op = *op.ok_or("an unknown memory operation")?;
        let (addr, len) = (self.offset.get(), self.len.get());
        if len > REQUEST_BYTES_MAX || addr.checked_add(len).is_none() {
            return Err("a range past the end of any memory");
        }
        let fill = u8::try_from(self.status.get()).map_err(|_| "a fill wider than a byte")?;
        if op == MemoryOp::Fill && payload != PayloadRef::Absent {
            return Err("a fill with a payload");
        }
        Ok(Event::Memory(MemoryEvent { time, stream, op, addr, len, fill, payload }))
    }

    fn switch(&self, why: &'static str) -> Result<bool, &'static str> {
        match self.op {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(why),
        }
    }

    #[inline]
    fn known_cpu(&self) -> Option<u16> {
        Some(self.cpu.get()).filter(|&cpu| cpu != CPU_UNKNOWN)
    }
}

/// Whether a request may name that range.
#[inline]
fn check_disk_range(offset: u64, len: u64) -> Result<(), &'static str> {
    if len > REQUEST_BYTES_MAX {
        return Err("a length beyond any request's");
    }
    if offset > i64::MAX as u64 - len {
        return Err("a range past the end of any disk");
    }
    Ok(())
}

#[inline]
fn known_flags(bits: u16) -> Result<OpFlags, &'static str> {
    OpFlags::from_bits(bits).ok_or("unknown operation flags")
}
