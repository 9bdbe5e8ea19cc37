//! The thread that writes, and the one that makes what it wrote durable.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::queue::{Entry, Item, Queue};
use super::repeats::Repeats;
use super::tap::{Bytes, set_payload};
use super::{FLUSH_EVERY, LINGER, SYNC_EVERY};
use crate::base::error::IoContext;
use crate::base::{Error, Nanos, Result};
use crate::trace::{
    Event, Loss, Mark, NotRecorded, PayloadRef, StreamId, TraceSummary, TraceWriter,
};

/// Bytes that are taken from the queue before who waits for room hears of it.
const DONE_BYTES: usize = 256 << 10;

/// zstd's level while the queue is nearly empty, filling, and nearly full: what cannot be
/// compressed in time is stored nearly as it is.
const LEVELS: [i32; 3] = [1, -5, -100];

/// Reasons of losses: stable, for scripts.
const DROPPED_REQUESTS: &str = "the queue was full: requests left out";
const DROPPED_READ_DATA: &str = "the queue was full: data of reads left out";
const DROPPED_OTHERS: &str = "the queue was full: events left out";

/// Makes the file durable now and then, apart from the writer, which a slow disk must not hold up.
struct Syncer {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
    failed: Arc<Mutex<Option<std::io::Error>>>,
}

impl Syncer {
    fn start(file: File) -> Result<Self> {
        let failed = Arc::new(Mutex::new(None));
        // One that waits is enough: it stands for all that was written before it is taken.
        let (wake, woken) = sync_channel(1);
        let told = Arc::clone(&failed);
        let thread = std::thread::Builder::new()
            .name("record-sync".to_owned())
            .spawn(move || sync_when_told(&file, &woken, &told))
            .map_err(|e| Error::incomplete("no thread to sync the trace").source(e))?;
        Ok(Self { wake, thread, failed })
    }

    fn failure(&self) -> Option<std::io::Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn end(self) {
        drop(self.wake);
        let _ = self.thread.join();
    }
}

fn sync_when_told(file: &File, woken: &Receiver<()>, failed: &Mutex<Option<std::io::Error>>) {
    for () in woken {
        if let Err(e) = file.sync_data() {
            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
        }
    }
}

/// See the module.
pub(super) struct Writer {
    trace: TraceWriter,
    queue: Arc<Queue>,
    syncer: Syncer,
    repeats: Repeats,
    summary: TraceSummary,
    /// Events too young to be written, and when each was said.
    held: VecDeque<(Nanos, Event)>,
    next_flush: Instant,
    next_sync: Instant,
    /// Bytes of the file when a sync was last asked for.
    synced: u64,
    streams: u32,
    /// What had been left out when the trace last told of it.
    told_dropped: u64,
}

impl Writer {
    pub(super) fn new(
        trace: TraceWriter,
        queue: Arc<Queue>,
        not_recorded: NotRecorded,
    ) -> Result<Self> {
        let syncer = Syncer::start(trace.file()?)?;
        queue.set_file_bytes(trace.file_bytes());
        let now = Instant::now();
        Ok(Self {
            trace,
            queue,
            syncer,
            repeats: Repeats::default(),
            summary: TraceSummary { not_recorded, ..TraceSummary::default() },
            held: VecDeque::new(),
            next_flush: now + FLUSH_EVERY,
            next_sync: now + SYNC_EVERY,
            synced: 0,
            streams: 0,
            told_dropped: 0,
        })
    }

    /// Writes until all has been said.
    pub(super) fn run(mut self) -> Result<()> {
        let result = self.write_all();
        if result.is_err() {
            self.queue.fail();
            let mut waiting = self.held.drain(..).map(|(_, event)| event);
            self.trace.salvage(&mut waiting);
        }
        let Self { trace, queue, syncer, mut summary, .. } = self;
        syncer.end();
        result?;
        summary.losses.extend(losses(&queue));
        let finished = trace.finish(summary);
        if finished.is_err() {
            queue.fail();
        }
        finished
    }

    fn write_all(&mut self) -> Result<()> {
        loop {
            let patience = self.next_flush.saturating_duration_since(Instant::now());
            let Some(entries) = self.queue.take(patience) else { break };
            self.take_in(entries)?;
            self.tick()?;
        }
        self.release(Nanos(u64::MAX))
    }

    fn take_in(&mut self, mut entries: VecDeque<Entry>) -> Result<()> {
        let mut done = 0;
        self.adapt()?;
        while let Some(Entry { item, at, cost }) = entries.pop_front() {
            self.item(item, at)?;
            done += cost;
            if done >= DONE_BYTES || entries.is_empty() {
                self.queue.done(done, entries.front().map(|entry| entry.at));
                done = 0;
                self.adapt()?;
                self.tick()?;
            }
        }
        Ok(())
    }

    /// Compresses less when the queue fills faster than it is emptied.
    fn adapt(&mut self) -> Result<()> {
        let (filled, max) = self.queue.fill();
        let third = filled / (max / LEVELS.len()).max(1);
        let level = LEVELS.get(third).or(LEVELS.last()).copied().unwrap_or_default();
        self.trace.set_compression(level)
    }

    fn item(&mut self, item: Item, at: Nanos) -> Result<()> {
        match item {
            Item::Stream(info) => {
                self.trace.stream(info)?;
                self.streams += 1;
            }
            Item::Event { mut event, data, .. } => {
                if let Some(data) = data {
                    set_payload(&mut event, self.payload(data)?);
                }
                self.held.push_back((at, event));
            }
            Item::Note(text) => self.summary.notes.push(text),
            Item::Loss(loss) => self.summary.losses.push(loss),
            Item::Lacks(what) => self.summary.not_recorded |= what,
        }
        Ok(())
    }

    fn payload(&mut self, data: Bytes) -> Result<PayloadRef> {
        if let Some(known) = self.repeats.find(&data) {
            return Ok(known);
        }
        let payload = self.trace.payload((*data).as_ref())?;
        self.repeats.remember(data, payload);
        Ok(payload)
    }

    /// Writes what is due.
    fn tick(&mut self) -> Result<()> {
        let now = Instant::now();
        let horizon = self.queue.now() - Nanos(LINGER.as_nanos() as u64);
        self.release(Nanos(horizon))?;
        if now >= self.next_flush {
            self.next_flush = now + FLUSH_EVERY;
            self.tell_dropped()?;
            self.trace.flush()?;
            if let Some(e) = self.syncer.failure() {
                return Err(e).writing("", "cannot sync the trace");
            }
            self.queue.set_file_bytes(self.trace.file_bytes());
        }
        let bytes = self.trace.file_bytes();
        if now >= self.next_sync && bytes != self.synced {
            self.next_sync = now + SYNC_EVERY;
            // Where one waits already, it will find these bytes too.
            let _ = self.syncer.wake.try_send(());
            self.synced = bytes;
        }
        Ok(())
    }

    /// Hands events that were said at `until` or before to the trace.
    fn release(&mut self, until: Nanos) -> Result<()> {
        while let Some((_, event)) = self.held.pop_front_if(|(at, _)| *at <= until) {
            self.trace.event(&event)?;
        }
        Ok(())
    }

    /// A mark where something was left out: it is there also if the summary never is.
    fn tell_dropped(&mut self) -> Result<()> {
        let dropped = self.queue.dropped();
        let total = dropped.requests + dropped.read_data + dropped.others;
        if total == self.told_dropped || self.streams == 0 {
            return Ok(());
        }
        let text = format!("left out so far, the queue being full: {total}");
        let (time, stream) = (self.queue.now(), StreamId(0));
        let (payload, text_len) = (self.trace.payload(text.as_bytes())?, text.len() as u64);
        debug_assert_ne!(payload, PayloadRef::Absent);
        let mark = Event::Mark(Mark { time, stream, text: payload, text_len });
        self.held.push_back((time, mark));
        self.told_dropped = total;
        Ok(())
    }
}

fn losses(queue: &Queue) -> Vec<Loss> {
    let dropped = queue.dropped();
    let first = dropped.first.unwrap_or_default();
    let rows = [
        (DROPPED_REQUESTS, dropped.requests),
        (DROPPED_READ_DATA, dropped.read_data),
        (DROPPED_OTHERS, dropped.others),
    ];
    let lost = rows.into_iter().filter(|(_, count)| *count > 0);
    lost.map(|(reason, count)| Loss {
        reason: reason.to_owned(),
        count,
        first: format!("{} ns", first.0),
    })
    .collect()
}
