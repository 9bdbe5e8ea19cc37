//! A trace as a list, and an image with faults, for the oracle's tests.

#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::data::Contents;
use super::source::{Identity, TraceView};
use super::{Oracle, OracleConfig, PlannedRequest};
use crate::base::error::Place;
use crate::base::{BlockOp, Error, Nanos, OpFlags, Result, SECTOR_SIZE, stamp};
use crate::driver::BlockStatus;
use crate::image::{Extent, ExtentKind, Image, ImageInfo};
use crate::trace::{Complete, Event, Issue, PayloadRef, StreamId};

/// A trace in memory.
#[derive(Clone, Default)]
pub struct TestTrace {
    events: Vec<Event>,
    payloads: Vec<Vec<u8>>,
}

impl TestTrace {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn issue(&mut self, op: BlockOp, offset: u64, len: u64, payload: PayloadRef) -> u64 {
        let number = self.events.len() as u64;
        self.events.push(Event::Issue(Issue {
            time: Nanos(number * 1000),
            tag: number,
            stream: StreamId(0),
            op,
            flags: OpFlags::empty(),
            offset,
            len,
            payload,
            cpu: None,
        }));
        number
    }

    fn store(&mut self, data: &[u8]) -> PayloadRef {
        self.payloads.push(data.to_vec());
        PayloadRef::Stored(self.payloads.len() as u32)
    }

    /// A write with data; returns its event.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> u64 {
        let payload = self.store(data);
        self.issue(BlockOp::Write, offset, data.len() as u64, payload)
    }

    /// A write without data.
    pub fn stamped(&mut self, offset: u64, len: u64) -> u64 {
        self.issue(BlockOp::Write, offset, len, PayloadRef::Absent)
    }

    pub fn read(&mut self, offset: u64, len: u64) -> u64 {
        self.issue(BlockOp::Read, offset, len, PayloadRef::Absent)
    }

    /// A read with the data that it returned.
    pub fn read_with(&mut self, offset: u64, data: &[u8]) -> u64 {
        let event = self.read(offset, data.len() as u64);
        let payload = self.store(data);
        let (time, stream) = (Nanos(0), StreamId(0));
        self.events.push(Event::Complete(Complete {
            time,
            tag: event,
            stream,
            status: 0,
            payload,
        }));
        event
    }

    pub fn contents(&self, seed: u64) -> Contents {
        Contents::new(Arc::new(self.clone()), Arc::new(Identity), seed)
    }

    /// The request of an event, and the data that a write writes.
    pub fn request(&self, event: u64, seed: u64) -> (PlannedRequest, Vec<u8>) {
        let Event::Issue(issue) = self.events[event as usize] else { panic!("not an issue") };
        let request = PlannedRequest {
            write: event,
            event,
            op: issue.op,
            sector: issue.offset / SECTOR_SIZE,
            sectors: issue.len / SECTOR_SIZE,
            payload: issue.payload,
            payload_total: issue.len,
            payload_from: 0,
            unmap: false,
        };
        let mut data = vec![0; issue.len as usize];
        match (issue.op, issue.payload) {
            (BlockOp::Write, PayloadRef::Absent) => {
                stamp::fill(&mut data, seed, request.sector, event);
            }
            (BlockOp::Write, payload) => {
                self.read_payload(payload, issue.len, 0, &mut data).unwrap()
            }
            _ => {}
        }
        (request, data)
    }
}

impl TraceView for TestTrace {
    fn events(&self) -> u64 {
        self.events.len() as u64
    }

    fn event(&self, number: u64) -> Result<Event> {
        let event = self.events.get(number as usize).copied();
        event.ok_or_else(|| Error::input("no such event").at(Place::Event(number)))
    }

    fn read_payload(
        &self,
        payload: PayloadRef,
        total: u64,
        from: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let PayloadRef::Stored(number) = payload else { return Err(Error::input("absent")) };
        let data = &self.payloads[number as usize - 1];
        assert_eq!(data.len() as u64, total);
        buf.copy_from_slice(&data[from as usize..from as usize + buf.len()]);
        Ok(())
    }
}

/// What goes wrong with the image of a [`Run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// This event's write is lost.
    Drop(u64),
    /// Only so many bytes from the start of this event's write land.
    Tear(u64, usize),
    /// Only what is past so many bytes of this event's write lands.
    TearFront(u64, usize),
    /// After this event, a bit of this byte of the disk flips.
    Flip(u64, u64),
    /// This event's write waits until the given later one has landed.
    Delay(u64, u64),
    /// This event's write lands so many bytes further on.
    Misplace(u64, u64),
    /// Bytes of no origin land in place of this event's.
    Garble(u64),
}

/// Runs a trace against a plain buffer, with damage, under the oracle.
pub struct Run {
    pub trace: TestTrace,
    pub oracle: Oracle,
    pub disk: Disk,
    seed: u64,
    damage: Vec<Damage>,
}

/// A disk in memory.
pub struct Disk {
    info: ImageInfo,
    pub bytes: Mutex<Vec<u8>>,
    /// Offsets of reads, in KiB.
    pub reads: Mutex<BTreeSet<u64>>,
}

impl Disk {
    pub fn new(size: usize) -> Self {
        let info = ImageInfo {
            path: "disk".into(),
            format: "mem".into(),
            via: String::new(),
            read_only: false,
            discard_zeroes: true,
        };
        Self { info, bytes: Mutex::new(vec![0; size]), reads: Mutex::default() }
    }
}

impl Run {
    pub fn new(trace: TestTrace, config: OracleConfig, damage: &[Damage]) -> Self {
        let seed = config.seed;
        let disk = Disk::new(config.target_bytes as usize);
        let oracle = Oracle::new(Arc::new(trace.clone()), config).unwrap();
        Self { trace, oracle, disk, seed, damage: damage.to_vec() }
    }

    /// Carries out every event in order.
    pub fn all(&mut self) -> &mut Self {
        for event in 0..self.trace.events() {
            if matches!(self.trace.event(event), Ok(Event::Issue(_))) {
                self.one(event);
            }
        }
        self
    }

    pub fn one(&mut self, event: u64) {
        let (request, mut data) = self.trace.request(event, self.seed);
        self.oracle.issued(event, &request).unwrap();
        let range = (request.sector * 512) as usize..(request.end() * 512) as usize;
        if request.op == BlockOp::Read {
            let data = self.disk.bytes.lock().unwrap()[range].to_vec();
            self.oracle.completed(event, BlockStatus::Ok, Some(&data)).unwrap();
            return;
        }
        let mut to = range.start;
        let mut part = 0..data.len();
        let mut late = None;
        for damage in &self.damage {
            match *damage {
                Damage::Drop(e) if e == event => part = 0..0,
                Damage::Tear(e, len) if e == event => part = 0..len,
                Damage::TearFront(e, len) if e == event => part = len..data.len(),
                Damage::Misplace(e, by) if e == event => to += by as usize,
                Damage::Garble(e) if e == event => data.fill(0xa5),
                Damage::Delay(e, _) if e == event => part = 0..0,
                Damage::Delay(e, until) if until == event => late = Some(e),
                _ => {}
            }
        }
        let mut disk = self.disk.bytes.lock().unwrap();
        if request.op.changes_content() {
            disk[to + part.start..to + part.end].copy_from_slice(&data[part]);
        }
        if let Some(event) = late {
            let (request, data) = self.trace.request(event, self.seed);
            disk[(request.sector * 512) as usize..(request.end() * 512) as usize]
                .copy_from_slice(&data);
        }
        for damage in &self.damage {
            if let Damage::Flip(e, byte) = *damage
                && e == event
            {
                disk[byte as usize] ^= 0x10;
            }
        }
        drop(disk);
        self.oracle.completed(event, BlockStatus::Ok, None).unwrap();
    }

    /// The final check, and the verdict.
    pub fn finish(mut self) -> super::Verdict {
        self.oracle.check_image(&self.disk, &mut |_| ()).unwrap();
        self.oracle.finish()
    }
}

impl Image for Disk {
    fn size(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read(&self, bufs: &mut [std::io::IoSliceMut<'_>], mut offset: u64) -> std::io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        self.reads.lock().unwrap().insert(offset / 1024);
        for buf in bufs {
            let len = buf.len();
            buf.copy_from_slice(&bytes[offset as usize..offset as usize + len]);
            offset += len as u64;
        }
        Ok(())
    }

    fn write(&self, bufs: &[std::io::IoSlice<'_>], mut offset: u64) -> std::io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        for buf in bufs {
            bytes[offset as usize..offset as usize + buf.len()].copy_from_slice(buf);
            offset += buf.len() as u64;
        }
        Ok(())
    }

    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.write_zeroes(offset, len, true)
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> std::io::Result<()> {
        self.bytes.lock().unwrap()[offset as usize..(offset + len) as usize].fill(0);
        Ok(())
    }

    /// Zeros are holes, as far as they go in units of 1 KiB.
    fn extent(&self, offset: u64, len: u64) -> std::io::Result<Extent> {
        let bytes = self.bytes.lock().unwrap();
        let range = &bytes[offset as usize..(offset + len) as usize];
        let zero = |chunk: &[u8]| chunk.iter().all(|b| *b == 0);
        let first = range.chunks(1024).next().is_some_and(zero);
        let run =
            range.chunks(1024).take_while(|c| zero(c) == first).map(<[u8]>::len).sum::<usize>();
        let kind = if first { ExtentKind::Zero } else { ExtentKind::Data };
        Ok(Extent { kind, len: run as u64 })
    }
}
