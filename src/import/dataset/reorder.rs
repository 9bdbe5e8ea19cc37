//! A window over the rows of one input that gives them out in order of time.
//!
//! It holds up to twice its width: a batch is read behind what is held, the whole is sorted if it
//! is not in order already, and all but the last width is given out. So a row that stands up to
//! one width too late is mended, and what is in order costs one comparison a row.

use super::{Context, Row, Rows};
use crate::base::Result;
use crate::import::job::Job;

/// The window.
pub(super) struct Reorder {
    rows: Vec<Row>,
    /// The next row to give out.
    next: usize,
    /// Rows before this one are given out before more are read.
    ready: usize,
    width: usize,
    /// Time of the last row read, and the greatest of all.
    last_in: u64,
    max_in: u64,
    disordered: u64,
    ended: bool,
}

impl Reorder {
    /// A window that mends rows up to `width` rows late.
    pub(super) fn new(width: usize) -> Self {
        let width = width.max(1);
        Self {
            rows: Vec::new(),
            next: 0,
            ready: 0,
            width,
            last_in: 0,
            max_in: 0,
            disordered: 0,
            ended: false,
        }
    }

    /// The next row in order of time; equal times in the input's order.
    ///
    /// # Errors
    /// Those of the input.
    pub(super) fn next<R: Rows>(
        &mut self,
        input: &mut R,
        context: &mut Context,
        job: &mut Job<'_>,
    ) -> Result<Option<Row>> {
        if self.next >= self.ready {
            self.fill(input, context, job)?;
        }
        let row = self.rows.get(self.next).copied();
        self.next += 1;
        Ok(row)
    }

    fn fill<R: Rows>(
        &mut self,
        input: &mut R,
        context: &mut Context,
        job: &mut Job<'_>,
    ) -> Result<()> {
        self.rows.drain(..self.next.min(self.rows.len()));
        self.next = 0;
        let mut sorted = true;
        while !self.ended && self.rows.len() < 2 * self.width {
            let Some(row) = input.next_row(context, job)? else {
                self.ended = true;
                break;
            };
            if row.time < self.max_in {
                self.disordered += u64::from(row.time < self.last_in);
                sorted = false;
            } else {
                self.max_in = row.time;
            }
            self.last_in = row.time;
            self.rows.push(row);
        }
        if !sorted {
            // Stable, and quick on runs that are in order.
            self.rows.sort_by_key(|row| row.time);
        }
        let kept = if self.ended { 0 } else { self.width };
        self.ready = self.rows.len().saturating_sub(kept);
        Ok(())
    }

    /// Rows that came in below the one before them.
    pub(super) fn disordered(&self) -> u64 {
        self.disordered
    }
}
