//! Records and messages of all inputs, in order of time.

use super::input::{Item, WallClock};
use super::record;
use super::requests::Places;
use crate::base::Result;
use crate::base::limits::SORT_WINDOW_EVENTS;
use crate::import::job::Job;
use crate::import::sort::{Merger, Order, Sorter};
use crate::import::source::Source;
use crate::import::summary::Summary;

/// Message text held in the sorter at most; messages past it are lost, and counted.
const MESSAGES_BYTES_MAX: usize = 16 << 20;

/// Hears what an input has to say beside its items: the job, or whoever hands on to it.
pub trait Log {
    /// Call it for every record read.
    ///
    /// # Errors
    /// Interrupted: no more is wanted.
    fn tick(&mut self) -> Result<()>;

    /// Takes the losses.
    fn summary(&mut self) -> &mut Summary;
}

impl Log for Job<'_> {
    #[inline]
    fn tick(&mut self) -> Result<()> {
        Job::tick(self)
    }

    fn summary(&mut self) -> &mut Summary {
        &mut self.summary
    }
}

/// An input that has records.
pub trait Items {
    /// The input, to ask what its end was like.
    fn source(&self) -> &Source;

    /// What the input calls a moment of a request's life.
    fn moment(&self, act: u16) -> &'static str {
        record::act::letter(act)
    }

    /// Further moments that it has seen and no stage needs: name and count of each.
    fn unused(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Gives the records of an input, and says the rest to an `L`.
pub trait NextItem<L>: Items {
    /// The next record or message, in the input's own order.
    ///
    /// # Errors
    /// Those of the input and of the log.
    fn next(&mut self, clock: &mut WallClock, log: &mut L) -> Result<Option<Item>>;
}

impl Order<Item> for Places {
    type Key = (u64, u32, u32);

    #[inline]
    fn key(&self, item: &Item) -> Self::Key {
        Places::key(*self, item.record())
    }
}

/// Merges the inputs by time and sorts what is nearly sorted.
pub struct Sorted<I> {
    places: Places,
    inputs: Vec<I>,
    ended: bool,
    clock: WallClock,
    merger: Merger<<Places as Order<Item>>::Key, Item>,
    sorter: Sorter<Item, Places>,
    messages_bytes: usize,
}

impl<I: Items> Sorted<I> {
    /// All of `inputs`, whose records are told apart as `places` says.
    pub fn new(inputs: Vec<I>, places: Places) -> Self {
        Self {
            places,
            inputs,
            ended: false,
            clock: WallClock::default(),
            merger: Merger::default(),
            sorter: Sorter::new(SORT_WINDOW_EVENTS, places),
            messages_bytes: 0,
        }
    }

    /// The same, with another window.
    #[cfg(test)]
    pub(super) fn within(self, window: usize) -> Self {
        Self { sorter: Sorter::new(window, self.places), ..self }
    }

    /// The inputs.
    pub fn inputs(&self) -> &[I] {
        &self.inputs
    }

    /// Whether the inputs have no more than what is held.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What the notifications read so far say.
    pub fn clock(&self) -> &WallClock {
        &self.clock
    }

    /// Records that came too late for the window: they stand out of order.
    pub fn late(&self) -> u64 {
        self.sorter.late()
    }

    /// The next item.
    ///
    /// # Errors
    /// Those of the inputs and of the log.
    #[inline]
    pub fn next<L: Log>(&mut self, log: &mut L) -> Result<Option<Item>>
    where
        I: NextItem<L>,
    {
        let places = self.places;
        let key = |item: &Item| Order::key(&places, item);
        while !self.ended {
            let (inputs, clock) = (&mut self.inputs, &mut self.clock);
            let Some(item) = self.merger.next(inputs, key, |input| input.next(clock, log))? else {
                self.ended = true;
                break;
            };
            if matches!(item, Item::Message(..)) && !self.has_room(&item, log) {
                continue;
            }
            if let Some(item) = self.sorter.push(item) {
                return Ok(Some(self.give(item)));
            }
        }
        Ok(self.sorter.pop().map(|item| self.give(item)))
    }

    fn has_room<L: Log>(&mut self, item: &Item, log: &mut L) -> bool {
        let bytes = item.text().len();
        if self.messages_bytes + bytes > MESSAGES_BYTES_MAX {
            let place = || self.places.of(item.record());
            log.summary().lose("too many messages at one time", place);
            return false;
        }
        self.messages_bytes += bytes;
        true
    }

    #[inline]
    fn give(&mut self, item: Item) -> Item {
        self.messages_bytes -= item.text().len();
        item
    }
}
