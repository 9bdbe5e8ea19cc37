//! Lines parsed by a thread of its own, ahead of whoever makes events of their rows.

use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::JoinHandle;

use super::clock::Clock;
use super::text::{Device, LineFormat, Parsed, Reader, Skip};
use crate::base::{Error, Result};

/// Lines handed over at a time: as many as stay in the cache of a processor.
const BATCH_LINES: usize = 1 << 11;
/// Batches that may wait, each of some 200 KiB.
const WAITING_BATCHES: usize = 4;

/// What a line is, without the line.
struct Item {
    line: u64,
    row: Result<Parsed<'static>, Skip>,
    /// Where its device's name stands among those of the batch, if it has one.
    name: Option<(u32, u32)>,
}

/// Lines in their order.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    /// The names of the rows' devices, one behind the other.
    names: Vec<u8>,
    /// How the input ended behind them, if it did.
    end: Option<Result<()>>,
}

impl Batch {
    fn clear(&mut self) {
        self.items.clear();
        self.names.clear();
    }

    fn fill<F: LineFormat>(&mut self, reader: &mut Reader<F>, clock: &mut Clock) {
        while self.items.len() < BATCH_LINES {
            match reader.next(clock) {
                Ok(Some((line, row))) => self.add(line, row),
                Ok(None) => {
                    self.end = Some(Ok(()));
                    return;
                }
                Err(error) => {
                    self.end = Some(Err(error));
                    return;
                }
            }
        }
    }

    #[inline]
    fn add(&mut self, line: u64, row: Result<Parsed<'_>, Skip>) {
        let start = self.names.len() as u32;
        let mut name = None;
        let row = row.map(|parsed| {
            match parsed.device {
                Device::Only => {}
                Device::Name(text) => self.names.extend_from_slice(text),
                Device::Pair(first, between, second) => {
                    self.names.extend_from_slice(first);
                    self.names.push(between);
                    self.names.extend_from_slice(second);
                }
            }
            if !matches!(parsed.device, Device::Only) {
                name = Some((start, self.names.len() as u32));
            }
            Parsed { device: Device::Only, ..parsed }
        });
        self.items.push(Item { line, row, name });
    }

    #[inline]
    fn get(&self, at: usize) -> Option<(u64, Result<Parsed<'_>, Skip>)> {
        let item = self.items.get(at)?;
        let name = |(start, end): (u32, u32)| self.names.get(start as usize..end as usize);
        let device = item.name.and_then(name).map_or(Device::Only, Device::Name);
        Some((item.line, item.row.map(|parsed| Parsed { device, ..parsed })))
    }
}

/// A reader on its thread.
pub(super) struct Ahead<F> {
    batch: Batch,
    /// The next line of the batch.
    at: usize,
    full: Receiver<Batch>,
    /// Batches for use again.
    empty: Sender<Batch>,
    thread: JoinHandle<Reader<F>>,
}

impl<F: LineFormat> Ahead<F> {
    /// Starts the thread. What is not taken to its end is left to end by itself, which it does
    /// with the next batch: it may wait for a pipe.
    ///
    /// # Errors
    /// Incomplete: the system has no thread to give.
    pub(super) fn start(reader: Reader<F>, clock: Clock) -> Result<Self> {
        let (sender, full) = mpsc::sync_channel(WAITING_BATCHES);
        let (empty, again) = mpsc::channel();
        let thread = std::thread::Builder::new().name("import-parser".to_owned());
        let thread = thread
            .spawn(move || parse(reader, clock, &sender, &again))
            .map_err(|e| Error::incomplete("cannot start a thread to read the input").source(e))?;
        Ok(Self { batch: Batch::default(), at: 0, full, empty, thread })
    }

    /// As [`Reader::next`].
    ///
    /// # Errors
    /// Those of the input.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u64, Result<Parsed<'_>, Skip>)>> {
        if self.at >= self.batch.items.len() && !self.advance()? {
            return Ok(None);
        }
        let at = self.at;
        self.at += 1;
        Ok(self.batch.get(at))
    }

    /// Goes on to the next batch; false at the end of the input.
    fn advance(&mut self) -> Result<bool> {
        loop {
            if let Some(end) = self.batch.end.take() {
                self.batch.clear();
                self.batch.end = Some(Ok(()));
                return end.map(|()| false);
            }
            let lost = || Error::incomplete("the thread that reads the input is gone");
            let fresh = self.full.recv().map_err(|_| lost())?;
            let used = std::mem::replace(&mut self.batch, fresh);
            // At the end nobody wants it.
            drop(self.empty.send(used));
            self.at = 0;
            if !self.batch.items.is_empty() {
                return Ok(true);
            }
        }
    }

    /// The reader at its end; `None` when the thread is lost.
    pub(super) fn finish(self) -> Option<Reader<F>> {
        drop(self.full);
        self.thread.join().ok()
    }
}

/// Parses until the input ends or nobody wants more.
fn parse<F: LineFormat>(
    mut reader: Reader<F>,
    mut clock: Clock,
    full: &SyncSender<Batch>,
    again: &Receiver<Batch>,
) -> Reader<F> {
    loop {
        let mut batch = again.try_recv().unwrap_or_default();
        batch.clear();
        batch.fill(&mut reader, &mut clock);
        let ended = batch.end.is_some();
        if full.send(batch).is_err() || ended {
            return reader;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::import::testing::{import_bytes, losses};

    /// More rows than are parsed where they are wanted, in several batches.
    const ROWS: u64 = 40_000;

    fn row(n: u64) -> String {
        format!("{},R,{},512,{}\n", n % 5, n * 512, 1_577_808_000_000_000 + n)
    }

    #[test]
    fn rows_of_the_thread_are_those_of_the_input_and_losses_keep_their_lines() {
        let mut text: String = (0..ROWS).map(row).collect();
        text.insert_str(text.len() - row(ROWS - 1).len(), "\n# nothing\n7,X,0,512,1\n");
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        let want: Vec<_> = (0..ROWS).map(|n| (n * 1000, n * 512, (n % 5).to_string())).collect();
        let got = out.issues().into_iter().map(|issue| {
            let device = out.streams[issue.stream.0 as usize].device.clone();
            (issue.time.0, issue.offset, device)
        });
        assert!(got.eq(want));
        assert_eq!(losses(&report), [("opcode is neither R nor W", 1, "line 40002")]);
    }

    #[test]
    fn an_error_of_the_input_comes_from_the_thread_too() {
        let mut text: String = (0..ROWS).map(row).collect();
        text.push_str(&"9".repeat(crate::base::limits::LINE_BYTES_MAX + 1));
        let error = import_bytes(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("line 40001: line longer than"), "{error}");
    }
}
