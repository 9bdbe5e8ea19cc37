//! Requests under way that have a range, found by it.
//!
//! A hash finds them by their exact range, which is what most completions name. For one that names
//! another there is an order by place: made when it is wanted, kept up while it is wanted again, and
//! not needed as long as few requests are there to look at.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

use super::record::{Record, cat};
use crate::base::hash::MixMap;
use crate::base::{BlockOp, OpFlags, SECTOR_SIZE};
use crate::trace::StreamId;

/// Requests that are looked at one by one sooner than put in order.
const FEW: usize = 64;

/// Size classes: lengths in sectors, by power of two. `u32` bytes are fewer than 2^23 sectors.
const SIZE_CLASSES: usize = 24;

/// Ends a list of slots.
const NONE: u32 = u32::MAX;

/// What a completion can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    WriteZeroes,
    Discard,
}

impl Kind {
    fn of(record: &Record) -> Self {
        // DISCARD and WRITE_ZEROES set WRITE too.
        if record.is(cat::DISCARD) {
            Self::Discard
        } else if record.is(cat::WRITE_ZEROES) {
            Self::WriteZeroes
        } else if record.is(cat::WRITE) {
            Self::Write
        } else {
            Self::Read
        }
    }
}

/// Requests of one kind on one device: a number below 2^24, as there are at most 2^20 streams.
fn group(stream: StreamId, record: &Record) -> u32 {
    stream.0 << 2 | Kind::of(record) as u32
}

/// A request whose issue has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its tag.
    pub tag: u64,
    /// Its stream.
    pub stream: StreamId,
    /// Its operation.
    pub op: BlockOp,
    /// Its flags.
    pub flags: OpFlags,
    /// First sector.
    pub sector: u64,
    /// Length.
    pub bytes: u32,
    /// The first error of its parts; 0 for success.
    pub status: u16,
    remaining: u32,
}

impl Request {
    /// A request of which nothing is complete.
    pub fn new(tag: u64, stream: StreamId, op: BlockOp, flags: OpFlags, record: &Record) -> Self {
        let Record { sector, bytes, .. } = *record;
        Self { tag, stream, op, flags, sector, bytes, status: 0, remaining: bytes }
    }

    /// Its range in bytes.
    pub fn range(&self) -> (u64, u64) {
        range(self.sector, self.bytes)
    }

    fn size_class(&self) -> u8 {
        let sectors = u64::from(self.bytes).div_ceil(SECTOR_SIZE).max(1);
        sectors.ilog2() as u8
    }
}

/// A range in bytes; 128-bit sectors of a hostile record saturate.
fn range(sector: u64, bytes: u32) -> (u64, u64) {
    let start = sector.saturating_mul(SECTOR_SIZE);
    (start, start.saturating_add(bytes.into()))
}

/// First sector, length and group.
type Exact = (u64, u32, u32);

/// A request in its place.
#[derive(Debug)]
struct Slot {
    request: Request,
    group: u32,
    /// Counts up with each.
    serial: u64,
    /// The next in order of age.
    older: u32,
    newer: u32,
    /// The next younger one with the same range.
    same: u32,
}

impl Slot {
    fn exact(&self) -> Exact {
        (self.request.sector, self.request.bytes, self.group)
    }
}

/// Those with the same range: the first of them is the oldest and will be the first complete.
#[derive(Debug)]
struct Same {
    first: u32,
    last: u32,
}

/// Requests under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    slots: Vec<Slot>,
    /// Slots that nothing stands in.
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    serial: u64,
    exact: MixMap<Exact, Same>,
    by_place: Option<ByPlace>,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            serial: 0,
            exact: MixMap::default(),
            by_place: None,
        }
    }
}

impl UnderWay {
    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn slot(&mut self, at: u32) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize)
    }

    /// Adds the request that `record` issued.
    pub(super) fn insert(&mut self, request: Request, record: &Record) {
        let group = group(request.stream, record);
        let (serial, older) = (self.serial, self.newest);
        self.serial += 1;
        let slot = Slot { request, group, serial, older, newer: NONE, same: NONE };
        let key = slot.exact();
        let at = self.put(slot);
        match self.slot(older) {
            Some(older) => older.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
        match self.exact.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Same { first: at, last: at });
            }
            Entry::Occupied(mut entry) => {
                let before = std::mem::replace(&mut entry.get_mut().last, at);
                if let Some(before) = self.slot(before) {
                    before.same = at;
                }
            }
        }
        self.keep_order(at);
    }

    fn put(&mut self, slot: Slot) -> u32 {
        let free = self.free.pop();
        if let Some(at) = free
            && let Some(place) = self.slot(at)
        {
            *place = slot;
            return at;
        }
        self.slots.push(slot);
        (self.slots.len() - 1) as u32
    }

    /// The order by place takes in what came, unless it has not been wanted for so long that a new
    /// one costs less.
    fn keep_order(&mut self, at: u32) {
        let held = self.len();
        if let (Some(order), Some(slot)) = (&mut self.by_place, self.slots.get(at as usize)) {
            order.unused += 1;
            if order.unused > 2 * held.max(FEW) {
                self.by_place = None;
            } else {
                order.insert(slot, at);
            }
        }
    }

    /// Takes out the oldest request.
    pub(super) fn take_oldest(&mut self) -> Option<Request> {
        let key = self.slot(self.oldest)?.exact();
        self.take_first(key, |_| true)
    }

    /// Takes out the oldest request with exactly the range and the kind of `record`.
    pub(super) fn take_exact(&mut self, stream: StreamId, record: &Record) -> Option<Request> {
        self.take_first((record.sector, record.bytes, group(stream, record)), |_| true)
    }

    /// Takes out the oldest request of such a range, if it `fits`.
    fn take_first(&mut self, key: Exact, fits: impl FnOnce(&Request) -> bool) -> Option<Request> {
        let Entry::Occupied(mut entry) = self.exact.entry(key) else { return None };
        let at = entry.get().first;
        let slot = self.slots.get(at as usize).filter(|slot| fits(&slot.request))?;
        if slot.same == NONE {
            entry.remove();
        } else {
            entry.get_mut().first = slot.same;
        }
        let Slot { request, older, newer, .. } = *slot;
        if let Some(order) = &mut self.by_place {
            order.remove(slot);
        }
        match self.slot(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.slot(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        self.free.push(at);
        Some(request)
    }

    /// Spreads a completion over what it overlaps; adds to `done` what is complete with it. False
    /// when it overlaps nothing.
    pub(super) fn complete(
        &mut self,
        stream: StreamId,
        record: &Record,
        done: &mut Vec<Request>,
    ) -> bool {
        let group = group(stream, record);
        let whole = |request: &Request| request.remaining == request.bytes;
        if let Some(request) = self.take_first((record.sector, record.bytes, group), whole) {
            done.push(Request { status: record.errno(), ..request });
            return true;
        }
        self.spread(group, record, done)
    }

    fn spread(&mut self, group: u32, record: &Record, done: &mut Vec<Request>) -> bool {
        let mut open = vec![range(record.sector, record.bytes)];
        let mut finished = Vec::new();
        let mut found = false;
        for at in self.overlapped(group, record) {
            let Some(slot) = self.slot(at) else { continue };
            let request = &mut slot.request;
            let taken = take(&mut open, request.range());
            if taken == 0 {
                continue;
            }
            found = true;
            request.remaining =
                request.remaining.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
            if request.status == 0 {
                request.status = record.errno();
            }
            if request.remaining == 0 {
                // Of equal ones the oldest is served first: it is the one that is taken out.
                finished.push(slot.exact());
            }
            if open.is_empty() {
                break;
            }
        }
        let already = done.len();
        done.extend(finished.into_iter().filter_map(|key| self.take_first(key, |_| true)));
        if let Some(fresh) = done.get_mut(already..) {
            fresh.sort_unstable_by_key(|request| request.tag);
        }
        found
    }

    /// The requests of the group that overlap the range of `record`, in order of size class, place
    /// and age.
    fn overlapped(&mut self, group: u32, record: &Record) -> Vec<u32> {
        let (start, end) = range(record.sector, record.bytes);
        let slots = &self.slots;
        let overlaps = |at: &u32| {
            let slot = slots.get(*at as usize).filter(|slot| slot.group == group);
            slot.map(|slot| slot.request.range()).is_some_and(|(a, b)| a < end && start < b)
        };
        if self.len() <= FEW {
            let newer = |at: &u32| slots.get(*at as usize).map(|slot| slot.newer);
            let all = std::iter::successors(Some(self.oldest), newer);
            let mut found: Vec<_> = all.filter(overlaps).collect();
            found.sort_unstable_by_key(|at| slots.get(*at as usize).map(place));
            return found;
        }
        let order = self.by_place.get_or_insert_with(|| ByPlace::of(slots, self.oldest));
        order.unused = 0;
        order.near(group, record).filter(overlaps).collect()
    }
}

/// Takes what `wanted` covers out of the `open` ranges; returns how many bytes that were.
fn take(open: &mut Vec<(u64, u64)>, wanted: (u64, u64)) -> u64 {
    let mut taken = 0;
    let mut at = 0;
    while let Some(&(start, end)) = open.get(at) {
        let (from, to) = (start.max(wanted.0), end.min(wanted.1));
        if from >= to {
            at += 1;
            continue;
        }
        taken += to - from;
        let left = [(start, from), (to, end)].into_iter().filter(|(a, b)| a < b);
        let left: Vec<_> = left.collect();
        let added = left.len();
        open.splice(at..=at, left);
        at += added;
    }
    taken
}

/// Group with size class, first sector and serial: a search looks no further back than a request
/// of the class can reach.
type Place = (u32, u64, u64);

fn place(slot: &Slot) -> Place {
    (classed(slot.group, slot.request.size_class()), slot.request.sector, slot.serial)
}

fn classed(group: u32, class: u8) -> u32 {
    group << 8 | u32::from(class)
}

/// Slots in order of place.
#[derive(Debug, Default)]
struct ByPlace {
    slots: BTreeMap<Place, u32>,
    of_class: [u32; SIZE_CLASSES],
    /// Requests that came since it was last wanted.
    unused: usize,
}

impl ByPlace {
    /// All slots from `at` on in order of age.
    fn of(slots: &[Slot], mut at: u32) -> Self {
        let mut order = Self::default();
        while let Some(slot) = slots.get(at as usize) {
            order.insert(slot, at);
            at = slot.newer;
        }
        order
    }

    fn insert(&mut self, slot: &Slot, at: u32) {
        if let Some(count) = self.of_class.get_mut(usize::from(slot.request.size_class())) {
            *count += 1;
        }
        self.slots.insert(place(slot), at);
    }

    fn remove(&mut self, slot: &Slot) {
        if self.slots.remove(&place(slot)).is_some()
            && let Some(count) = self.of_class.get_mut(usize::from(slot.request.size_class()))
        {
            *count -= 1;
        }
    }

    /// The requests of the group that may overlap the range of `record`.
    fn near(&self, group: u32, record: &Record) -> impl Iterator<Item = u32> {
        let end = record.sector.saturating_add(u64::from(record.bytes).div_ceil(SECTOR_SIZE));
        let classes = (0..).zip(self.of_class).filter(|(_, count)| *count > 0);
        classes.flat_map(move |(class, _)| {
            let first = record.sector.saturating_sub(2 << class);
            let class = classed(group, class);
            self.slots.range((class, first, 0)..(class, end, 0)).map(|(_, at)| *at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn record(sector: u64, bytes: u32, write: bool) -> Record {
        let category = if write { cat::WRITE } else { cat::READ };
        Record {
            sequence: 1,
            time: 0,
            sector,
            bytes,
            action: category << 16,
            device: 0,
            cpu: 0,
            error: 0,
            pdu_len: 0,
        }
    }

    fn request(tag: u64, stream: u32, record: &Record) -> Request {
        Request::new(tag, StreamId(stream), BlockOp::Write, OpFlags::empty(), record)
    }

    /// The same by looking at every request.
    #[derive(Default)]
    struct Plain(Vec<(u32, Request)>);

    impl Plain {
        fn complete(&mut self, stream: StreamId, record: &Record) -> Vec<u64> {
            let group = group(stream, record);
            let mut found: Vec<usize> =
                (0..self.0.len()).filter(|at| self.0[*at].0 == group).collect();
            let same = |r: &Request| (r.sector, r.bytes) == (record.sector, record.bytes);
            if let Some(at) = found.iter().find(|at| same(&self.0[**at].1))
                && self.0[*at].1.remaining == record.bytes
            {
                return vec![self.0.remove(*at).1.tag];
            }
            found.sort_by_key(|at| (self.0[*at].1.size_class(), self.0[*at].1.sector));
            let mut open = vec![range(record.sector, record.bytes)];
            for at in found {
                let request = &mut self.0[at].1;
                let taken = take(&mut open, request.range()) as u32;
                request.remaining = request.remaining.saturating_sub(taken);
            }
            let mut done = Vec::new();
            self.0.retain(|(_, r)| {
                done.extend((r.remaining == 0).then_some(r.tag));
                r.remaining > 0
            });
            done.sort_unstable();
            done
        }
    }

    /// Few requests and many, completions that are exact for long and such that are not.
    #[test]
    fn requests_are_found_as_if_each_were_looked_at() {
        let mut prng = Prng::new(5);
        let (mut under_way, mut plain) = (UnderWay::default(), Plain::default());
        let (mut ordered, mut unordered) = (0, 0);
        for step in 0..40_000u64 {
            let stream = StreamId(prng.below(2) as u32);
            let longest = 1 << prng.below(6);
            let (sector, sectors) = (prng.below(2000), 1 + prng.below(longest));
            let write = prng.below(3) > 0;
            let asked = record(sector, sectors as u32 * 512, write);
            let many = if step / 4000 % 2 == 0 { FEW as u64 / 2 } else { FEW as u64 * 8 };
            if (plain.0.len() as u64) < many {
                let request = request(step, stream.0, &asked);
                under_way.insert(request, &asked);
                plain.0.push((group(stream, &asked), request));
                continue;
            }
            let mut done = Vec::new();
            if step / 1000 % 2 == 0 {
                under_way.complete(stream, &asked, &mut done);
                let tags: Vec<_> = done.iter().map(|request| request.tag).collect();
                assert_eq!(tags, plain.complete(stream, &asked));
            } else {
                let oldest = under_way.take_oldest().map(|request| request.tag);
                assert_eq!(oldest, Some(plain.0.remove(0).1.tag));
            }
            ordered += u64::from(under_way.by_place.is_some());
            unordered += u64::from(under_way.by_place.is_none());
        }
        assert_eq!(under_way.len(), plain.0.len());
        assert!(ordered > 1000 && unordered > 1000, "{ordered} {unordered}");
    }

    #[test]
    fn ranges_are_cut_out() {
        let mut open = vec![(0, 100)];
        assert_eq!(take(&mut open, (40, 60)), 20);
        assert_eq!(open, [(0, 40), (60, 100)]);
        assert_eq!(take(&mut open, (30, 70)), 20);
        assert_eq!(take(&mut open, (200, 300)), 0);
        assert_eq!(take(&mut open, (0, 100)), 60);
        assert!(open.is_empty());
    }
}
