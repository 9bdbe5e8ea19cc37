//! What lies between the taps and the writer, bounded in bytes and in age.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::tap::{Bytes, Stopped, set_time};
use super::{OnError, OnOverflow, Options, Progress};
use crate::base::Nanos;
use crate::trace::{Event, Loss, NotRecorded, StreamId, StreamInfo};

/// What an entry costs beside its data: itself, its record, and the room in a list that doubles.
const ITEM_BYTES: usize = 256;

/// With [`OnOverflow::Block`], who says something waits while the writer is further behind than this: what a killed recorder
/// loses stays below a second also where the queue has room for more.
const AGE_MAX: Duration = Duration::from_millis(400);

/// The writer is woken for so many bytes, and for less when the oldest has waited for [`NAP`]: to be
/// woken for each event costs whoever speaks more than the event does, and no event is written
/// before it has its age anyway.
const WAKE_BYTES: usize = 256 << 10;

/// See [`WAKE_BYTES`].
const NAP: Duration = Duration::from_millis(20);

/// Something for the writer.
pub(super) enum Item {
    Stream(StreamInfo),
    Event {
        event: Event,
        data: Option<Bytes>,
        /// It has its own time.
        timed: bool,
    },
    Note(String),
    Loss(Loss),
    Lacks(NotRecorded),
}

/// An item and when it was said.
pub(super) struct Entry {
    pub(super) item: Item,
    pub(super) at: Nanos,
    pub(super) cost: usize,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Recorded,
    LeftOut,
}

/// What [`OnOverflow::Drop`] left out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dropped {
    pub(super) requests: u64,
    pub(super) read_data: u64,
    pub(super) others: u64,
    /// When that began.
    pub(super) first: Option<Nanos>,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Of the entries, and of those that the writer has not done with.
    bytes: usize,
    /// When the oldest entry in the writer's hands was said.
    in_hand: Option<Nanos>,
    streams: u32,
    dropped: Dropped,
    writer_waits: bool,
    waiting: u32,
    closed: bool,
}

/// See the module.
pub(super) struct Queue {
    origin: Instant,
    on_overflow: OnOverflow,
    on_error: OnError,
    bytes_max: usize,
    state: Mutex<State>,
    /// There is something to write.
    work: Condvar,
    /// There is room.
    room: Condvar,
    tags: AtomicU64,
    failed: AtomicBool,
    requests: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
    accesses: AtomicU64,
    lost: AtomicU64,
    file_bytes: AtomicU64,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

impl Queue {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            origin: Instant::now(),
            on_overflow: options.on_overflow,
            on_error: options.on_error,
            bytes_max: options.queue_bytes,
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            tags: AtomicU64::new(1),
            failed: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            accesses: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            file_bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn next_tag(&self) -> u64 {
        self.tags.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn add_stream(&self, info: StreamInfo) -> StreamId {
        let mut state = self.lock();
        let id = StreamId(state.streams);
        state.streams = state.streams.saturating_add(1);
        self.put(&mut state, Item::Stream(info));
        id
    }

    /// Takes an event in, when there is room for it.
    ///
    /// # Errors
    /// The recording has failed, and requests are to fail too.
    pub(super) fn push(&self, item: Item) -> Result<Said, Stopped> {
        let mut state = self.lock();
        state = self.wait_for_room(state, cost_of(&item));
        if self.on_overflow == OnOverflow::Drop && self.is_full(&state, cost_of(&item)) {
            self.count_dropped(&mut state, &item);
            return Ok(Said::LeftOut);
        }
        if self.failed.load(Ordering::Relaxed) {
            return if self.on_error == OnError::Fail { Err(Stopped) } else { Ok(Said::LeftOut) };
        }
        if state.closed {
            return Ok(Said::LeftOut);
        }
        self.count(&item);
        self.put(&mut state, item);
        Ok(Said::Recorded)
    }

    /// Takes the answer to a recorded request in. It is never left out: where there is no room for
    /// its data, it goes without.
    pub(super) fn push_answer(&self, mut item: Item) {
        let mut state = self.lock();
        state = self.wait_for_room(state, cost_of(&item));
        if self.on_overflow == OnOverflow::Drop
            && self.is_full(&state, cost_of(&item))
            && let Item::Event { data, .. } = &mut item
            && data.take().is_some()
        {
            state.dropped.read_data += 1;
            self.remember_first(&mut state);
        }
        if self.failed.load(Ordering::Relaxed) || state.closed {
            return;
        }
        self.count(&item);
        self.put(&mut state, item);
    }

    /// Takes in what is small and rare.
    pub(super) fn push_always(&self, item: Item) {
        if let Item::Loss(loss) = &item {
            self.lost.fetch_add(loss.count, Ordering::Relaxed);
        }
        let mut state = self.lock();
        if !state.closed {
            self.put(&mut state, item);
        }
    }

    fn put(&self, state: &mut State, mut item: Item) {
        // Under the lock, so that the file's order is that of the times.
        let (at, cost) = (self.now(), cost_of(&item));
        if let Item::Event { event, timed: false, .. } = &mut item {
            set_time(event, at);
        }
        state.bytes += cost;
        // The first one begins the writer's nap.
        let first = state.entries.is_empty();
        state.entries.push_back(Entry { item, at, cost });
        if first || self.is_much(state) {
            self.wake_writer(state);
        }
    }

    /// Whether there is enough for the writer to begin.
    fn is_much(&self, state: &State) -> bool {
        !state.entries.is_empty() && (state.bytes >= WAKE_BYTES || state.waiting > 0)
    }

    fn wake_writer(&self, state: &mut State) {
        if std::mem::take(&mut state.writer_waits) {
            self.work.notify_one();
        }
    }

    fn count(&self, item: &Item) {
        if let Item::Event { event, .. } = item {
            self.events.fetch_add(1, Ordering::Relaxed);
            match event {
                Event::Issue(issue) => {
                    self.requests.fetch_add(1, Ordering::Relaxed);
                    self.bytes.fetch_add(issue.len, Ordering::Relaxed);
                }
                Event::Bus(_) => drop(self.accesses.fetch_add(1, Ordering::Relaxed)),
                _ => {}
            }
        }
    }

    fn count_dropped(&self, state: &mut State, item: &Item) {
        match item {
            Item::Event { event: Event::Issue(_), .. } => state.dropped.requests += 1,
            _ => state.dropped.others += 1,
        }
        self.remember_first(state);
    }

    fn remember_first(&self, state: &mut State) {
        let now = self.now();
        state.dropped.first.get_or_insert(now);
    }

    /// Whether `cost` more bytes are too many. An empty queue takes anything.
    fn is_full(&self, state: &State, cost: usize) -> bool {
        state.bytes > 0 && state.bytes.saturating_add(cost) > self.bytes_max
    }

    fn is_late(&self, state: &State) -> bool {
        let oldest = state.in_hand.or_else(|| state.entries.front().map(|entry| entry.at));
        oldest.is_some_and(|at| self.now() - at > AGE_MAX.as_nanos() as u64)
    }

    /// Whether who says something must wait: never where it is left out instead, however far behind
    /// a disk that stands still leaves the writer.
    fn must_wait(&self, state: &State, cost: usize) -> bool {
        self.on_overflow == OnOverflow::Block
            && !self.failed.load(Ordering::Relaxed)
            && !state.closed
            && (self.is_full(state, cost) || self.is_late(state))
    }

    fn wait_for_room<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        cost: usize,
    ) -> MutexGuard<'a, State> {
        while self.must_wait(&state, cost) {
            state.waiting += 1;
            self.wake_writer(&mut state);
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state
    }

    /// For the writer: everything that waits, as soon as it is much or [`NAP`] old, at most
    /// `patience` later. `None` when all has been said.
    pub(super) fn take(&self, patience: Duration) -> Option<VecDeque<Entry>> {
        let mut state = self.lock();
        let end = Instant::now() + patience;
        loop {
            let mut left = end.saturating_duration_since(Instant::now());
            if let Some(oldest) = state.entries.front() {
                let age = Duration::from_nanos(self.now() - oldest.at);
                left = left.min(NAP.saturating_sub(age));
            }
            if left.is_zero() || state.closed || self.is_much(&state) {
                break;
            }
            state.writer_waits = true;
            let waited = self.work.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.writer_waits = false;
        if state.closed && state.entries.is_empty() {
            return None;
        }
        let entries = std::mem::take(&mut state.entries);
        state.in_hand = entries.front().map(|entry| entry.at);
        Some(entries)
    }

    /// For the writer: entries of `cost` are done with, and the oldest left in its hands was said
    /// at `oldest`.
    pub(super) fn done(&self, cost: usize, oldest: Option<Nanos>) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(cost);
        state.in_hand = oldest;
        if state.waiting > 0 {
            self.room.notify_all();
        }
    }

    /// For the writer: nothing can be written any more.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
        let mut state = self.lock();
        state.entries.clear();
        state.bytes = 0;
        state.in_hand = None;
        self.room.notify_all();
    }

    /// Nothing is taken in any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
        self.room.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.on_error == OnError::Fail && self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn dropped(&self) -> Dropped {
        self.lock().dropped
    }

    pub(super) fn set_file_bytes(&self, bytes: u64) {
        self.file_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that wait, of those that may.
    pub(super) fn fill(&self) -> (usize, usize) {
        (self.lock().bytes, self.bytes_max)
    }

    pub(super) fn progress(&self) -> Progress {
        let dropped = self.dropped();
        Progress {
            requests: self.requests.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            accesses: self.accesses.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            file_bytes: self.file_bytes.load(Ordering::Relaxed),
            dropped: dropped.requests + dropped.others,
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements: a panic elsewhere harms nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost_of(item: &Item) -> usize {
    let data = match item {
        Item::Event { data: Some(data), .. } => data.as_ref().as_ref().len(),
        Item::Event { .. } => 0,
        Item::Stream(info) => info.device.len(),
        Item::Note(text) => text.len(),
        Item::Loss(loss) => loss.reason.len() + loss.first.len(),
        Item::Lacks(_) => 0,
    };
    data + ITEM_BYTES
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::trace::{Complete, PayloadRef};

    fn answer(data: Option<Bytes>) -> Item {
        let payload = PayloadRef::Absent;
        let (time, stream) = (Nanos(0), StreamId(0));
        let event = Event::Complete(Complete { time, tag: 1, stream, status: 0, payload });
        Item::Event { event, data, timed: false }
    }

    #[test]
    fn without_room_events_are_left_out_and_answers_go_without_their_data() {
        let options =
            Options { on_overflow: OnOverflow::Drop, queue_bytes: 1000, ..Options::default() };
        let queue = Queue::new(&options);
        let large = || -> Option<Bytes> { Some(Arc::new(vec![0; 2000])) };
        // An empty queue takes anything, or a large request could never be recorded.
        assert_eq!(queue.push(answer(large())), Ok(Said::Recorded));
        assert_eq!(queue.push(answer(None)), Ok(Said::LeftOut));
        queue.push_answer(answer(large()));
        let dropped = queue.dropped();
        assert_eq!((dropped.requests, dropped.others, dropped.read_data), (0, 1, 1));
        let entries = queue.take(Duration::ZERO).unwrap();
        let with_data = |entry: &Entry| matches!(entry.item, Item::Event { data: Some(_), .. });
        assert_eq!(entries.iter().map(with_data).collect::<Vec<_>>(), [true, false]);
        queue.done(entries.iter().map(|entry| entry.cost).sum(), None);
        assert_eq!(queue.fill(), (0, 1000));
    }

    #[test]
    fn nobody_waits_for_a_writer_that_is_late_where_events_may_be_left_out() {
        for on_overflow in [OnOverflow::Block, OnOverflow::Drop] {
            let mut queue = Queue::new(&Options { on_overflow, ..Options::default() });
            queue.origin -= 2 * AGE_MAX;
            queue.lock().in_hand = Some(Nanos(0));
            let blocks = on_overflow == OnOverflow::Block;
            assert_eq!(queue.must_wait(&queue.lock(), 1), blocks);
            if !blocks {
                assert_eq!(queue.push(answer(None)), Ok(Said::Recorded));
                queue.push_answer(answer(None));
            }
        }
    }

    #[test]
    fn who_waits_for_room_goes_on_when_there_is_some_and_when_there_never_will_be() {
        for on_error in [OnError::Continue, OnError::Fail] {
            let queue = Queue::new(&Options { queue_bytes: 1, on_error, ..Options::default() });
            std::thread::scope(|scope| {
                assert_eq!(queue.push(answer(None)), Ok(Said::Recorded));
                let second = scope.spawn(|| queue.push(answer(None)));
                let third = scope.spawn(|| queue.push(answer(None)));
                let entries = queue.take(Duration::ZERO).unwrap();
                queue.done(entries.iter().map(|entry| entry.cost).sum(), None);
                // One of the two finds room.
                while queue.take(Duration::from_secs(60)).is_some_and(|got| got.is_empty()) {}
                queue.fail();
                let gone = match on_error {
                    OnError::Continue => Ok(Said::LeftOut),
                    OnError::Fail => Err(Stopped),
                };
                let mut answers = [second.join().unwrap(), third.join().unwrap()];
                answers.sort_by_key(|answer| *answer == gone);
                assert_eq!(answers, [Ok(Said::Recorded), gone]);
            });
        }
    }
}
