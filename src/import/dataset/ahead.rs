//! Lines parsed by a thread of its own, ahead of whoever makes events of their rows.

use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::JoinHandle;

use super::batch::{BATCH_LINES, Batch, Reader};
use super::clock::Clock;
use super::text::LineFormat;
use crate::base::{Error, Result};

/// Batches that may wait, each of some 100 KiB.
const WAITING_BATCHES: usize = 8;

/// A reader on its thread.
pub(super) struct Ahead<F> {
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
        Ok(Self { full, empty, thread })
    }

    /// Takes the next batch in place of `used`. Behind the one that has the input's end none comes.
    ///
    /// # Errors
    /// The thread is lost.
    pub(super) fn next(&mut self, used: &mut Batch) -> Result<()> {
        let lost = || Error::incomplete("the thread that reads the input is gone");
        let fresh = self.full.recv().map_err(|_| lost())?;
        // At the end nobody wants it.
        drop(self.empty.send(std::mem::replace(used, fresh)));
        Ok(())
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
        reader.fill(&mut batch, BATCH_LINES, &mut clock);
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
        use std::io::Write;
        let text: String = (0..ROWS).map(row).collect();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        let mut damaged = gz.finish().unwrap();
        let checksum = damaged.len() - 8;
        damaged[checksum] ^= 1;
        let error = import_bytes(&damaged).unwrap_err();
        assert!(error.to_string().contains("bytes into what gzip holds"), "{error}");
    }
}
