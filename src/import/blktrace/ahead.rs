//! Items read, merged and sorted by a thread of its own, ahead of whoever follows the requests.

use std::sync::atomic::{AtomicBool, Ordering};

use super::input::Item;
use super::sorted::{Log, NextItem, Sorted};
use crate::base::{Error, ErrorKind, Result};
use crate::import::batches::Batches;
use crate::import::job::Job;
use crate::import::summary::Summary;

/// Items handed over at a time: 256 KiB, which stay in the cache of a processor.
const BATCH_ITEMS: usize = 1 << 12;

/// What an input says on the thread.
pub struct Apart<'s> {
    summary: Summary,
    stop: &'s AtomicBool,
}

impl Log for Apart<'_> {
    #[inline]
    fn tick(&mut self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "import stopped"));
        }
        Ok(())
    }

    fn summary(&mut self) -> &mut Summary {
        &mut self.summary
    }
}

/// Items in their order.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    /// What was said before the item of that number.
    said: Vec<(usize, Summary)>,
    /// How the inputs ended behind them, if they did.
    end: Option<Result<()>>,
}

impl Batch {
    /// Takes items of `sorted`; false when there are no more.
    fn fill<I>(&mut self, sorted: &mut Sorted<I>, stop: &AtomicBool) -> bool
    where
        I: for<'s> NextItem<Apart<'s>>,
    {
        self.items.clear();
        self.said.clear();
        let mut log = Apart { summary: Summary::default(), stop };
        while self.items.len() < BATCH_ITEMS {
            let next = sorted.next(&mut log);
            if !log.summary.is_empty() {
                self.said.push((self.items.len(), std::mem::take(&mut log.summary)));
            }
            match next {
                Ok(Some(item)) => self.items.push(item),
                Ok(None) => self.end = Some(Ok(())),
                Err(error) => self.end = Some(Err(error)),
            }
            if self.end.is_some() {
                return false;
            }
        }
        true
    }

    /// Hands on what it holds, as it would have come without a thread.
    fn hand_on(
        &mut self,
        job: &mut Job<'_>,
        mut take: impl FnMut(Item, &mut Job<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut said = self.said.drain(..).peekable();
        for (number, item) in self.items.drain(..).enumerate() {
            if let Some((_, summary)) = said.next_if(|(before, _)| *before == number) {
                job.summary.append(summary);
            }
            job.tick()?;
            take(item, job)?;
        }
        said.for_each(|(_, summary)| job.summary.append(summary));
        Ok(())
    }
}

/// Gives all items to `take`; returns the inputs at their end.
///
/// # Errors
/// Those of the inputs, of the job and of `take`; Incomplete when the system has no thread to give.
pub fn for_each<I>(
    sorted: Sorted<I>,
    job: &mut Job<'_>,
    mut take: impl FnMut(Item, &mut Job<'_>) -> Result<()>,
) -> Result<Sorted<I>>
where
    I: for<'s> NextItem<Apart<'s>> + Send + 'static,
{
    let fill =
        |sorted: &mut Sorted<I>, batch: &mut Batch, stop: &AtomicBool| batch.fill(sorted, stop);
    let mut batches = Batches::start(sorted, fill)?;
    let mut batch = Batch::default();
    loop {
        batch = batches.next(batch, || job.tick())?;
        batch.hand_on(job, &mut take)?;
        if let Some(end) = batch.end.take() {
            return end.and_then(|()| batches.finish());
        }
    }
}
