//! From events to jobs: what may begin now, and what everything else waits for.

use std::cmp::Ordering;

use super::{Accounts, Blocked, Engine};
use crate::base::Result;
use crate::replay::source::Source;
use crate::trace::{Complete, Event, Issue};

/// Events looked at before the loop comes up for air (events that issue nothing cost no request).
const EVENTS_PER_TURN: u32 = 4096;

impl<S: Source, A: Accounts> Engine<'_, S, A> {
    /// Issues everything that may be issued now.
    pub(super) fn fill(&mut self) -> Result<Blocked> {
        for _ in 0..EVENTS_PER_TURN {
            while let Some(&job) = self.ready.front() {
                if !self.advance(job)? {
                    return Ok(Blocked::Answer);
                }
                self.ready.pop_front();
            }
            if let Some(job) = self.pending.take() {
                if let Some(blocked) = self.start(job)? {
                    self.pending = Some(job);
                    return Ok(blocked);
                }
                continue;
            }
            if self.awaited.is_some() {
                return Ok(Blocked::Answer);
            }
            if self.exhausted {
                return Ok(Blocked::Exhausted);
            }
            self.take_event()?;
        }
        Ok(Blocked::Air)
    }

    /// The next event of the trace becomes the pending job, a completion to await, or nothing.
    fn take_event(&mut self) -> Result<()> {
        let Some((number, event)) = self.source.next()? else {
            self.next_loop();
            return Ok(());
        };
        match self.config.window.place(number, event.time()) {
            Ordering::Less => return Ok(()),
            Ordering::Equal => {}
            Ordering::Greater => {
                self.next_loop();
                return Ok(());
            }
        }
        self.outcome.events += 1;
        match event {
            Event::Issue(issue) => self.take_issue(number, &issue)?,
            Event::Complete(complete) => self.take_complete(&complete),
            Event::Mark(_)
            | Event::Bus(_)
            | Event::Memory(_)
            | Event::Irq(_)
            | Event::Ack(_)
            | Event::Clock(_) => {}
        }
        Ok(())
    }

    fn take_issue(&mut self, number: u64, issue: &Issue) -> Result<()> {
        let base = self.loop_number.saturating_mul(self.source.events());
        self.pending = self.planner.plan(number, base.saturating_add(number), issue)?;
        if self.pending.is_some() {
            self.loop_jobs += 1;
            if self.config.recorded_latencies && self.loop_number == 0 {
                self.latencies.issued(issue);
            }
        }
        Ok(())
    }

    fn take_complete(&mut self, complete: &Complete) {
        if !self.planner.selects(complete.stream) {
            return;
        }
        if self.loop_number == 0 {
            if complete.status != 0 {
                self.accounts.recorded_error(complete.status);
            }
            if self.config.recorded_latencies
                && let Some((op, latency)) =
                    self.latencies.completed(complete.stream, complete.tag, complete.time)
            {
                self.accounts.recorded(op, latency);
            }
        }
        if let Some(closed) = &self.pacer.closed {
            self.awaited = closed.awaited(complete.stream, complete.tag);
        }
    }

    fn next_loop(&mut self) {
        self.loop_number += 1;
        // A window without requests stays so, however often it is passed.
        if self.loop_number >= self.config.loops || self.loop_jobs == 0 {
            self.exhausted = true;
            return;
        }
        self.loop_jobs = 0;
        self.source.seek(self.config.first_event);
        if let Some(schedule) = &mut self.pacer.schedule {
            schedule.next_loop();
        }
    }
}
