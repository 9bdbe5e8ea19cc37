//! From the device's answers to finished jobs.

use super::issue::next_part;
use super::{Accounts, Answer, Done, Engine, Slot};
use crate::base::{BlockOp, Error, Result, SECTOR_SIZE};
use crate::driver::{BlockStatus, Completion};
use crate::replay::run_log::Part;
use crate::replay::source::Source;

impl<S: Source, A: Accounts> Engine<'_, S, A> {
    /// Takes the answers that are there; how many there were.
    pub(super) fn reap(&mut self) -> Result<usize> {
        if self.in_flight() == 0 {
            return Ok(0);
        }
        self.machine.poll()?;
        let mut done = std::mem::take(&mut self.done);
        self.driver.reap(self.machine, &mut done)?;
        let count = done.len();
        if count > 0 {
            self.now = self.clock.now();
            self.outcome.finished = self.now;
            self.alive_at = self.now;
        }
        for completion in done.drain(..) {
            self.complete(completion)?;
        }
        self.done = done;
        Ok(count)
    }

    fn complete(&mut self, completion: Completion) -> Result<()> {
        let token = completion.token;
        let slot = usize::try_from(token).ok().and_then(|at| self.slots.get_mut(at));
        let Some(slot) = slot.and_then(Option::take) else {
            return Err(Error::machine(format!(
                "an answer to request {token}, which is not in flight"
            )));
        };
        self.slots_free.push(token as u32);
        let ok = completion.status == BlockStatus::Ok;
        let failed_in_recording = !ok && self.failed_in_recording(&slot)?;
        let data = match &completion.buffer {
            Some(buffer) if slot.request.op == BlockOp::Read && self.accounts.wants_data() => {
                self.driver.bytes(buffer).get(..slot.bytes)
            }
            _ => None,
        };
        self.accounts.answered(&Answer {
            token,
            request: &slot.request,
            part: slot.part,
            status: completion.status,
            failed_in_recording,
            issue: slot.issue,
            complete: self.now,
            data,
        })?;
        if let Some(buffer) = completion.buffer {
            self.driver.release(buffer);
        }
        self.part_done(slot.job, ok);
        Ok(())
    }

    fn failed_in_recording(&mut self, slot: &Slot) -> Result<bool> {
        if !self.config.recorded_status {
            return Ok(false);
        }
        let status = self.source.recorded_status(slot.request.event)?;
        Ok(status.is_some_and(|status| status != 0))
    }

    /// A part of a job was answered: the next step, or the job's end.
    fn part_done(&mut self, index: u32, ok: bool) {
        let Some(active) = self.jobs.get_mut(index as usize).and_then(Option::as_mut) else {
            return;
        };
        active.outstanding = active.outstanding.saturating_sub(1);
        active.ok &= ok;
        if active.outstanding > 0 || next_part(active).is_some() {
            // Parts are under way, or stand in the ready list.
            return;
        }
        let job = active.job;
        let next = match active.step {
            Part::FlushBefore if job.has_body() => Some(Part::Body),
            Part::Body if job.post_flush && active.ok => Some(Part::FlushAfter),
            _ => None,
        };
        if let Some(step) = next {
            active.step = step;
            active.body_started = false;
            self.ready.push_back(index);
            return;
        }
        self.finish(index);
    }

    fn finish(&mut self, index: u32) {
        let Some(active) = self.jobs.get_mut(index as usize).and_then(Option::take) else {
            return;
        };
        let job = active.job;
        self.ranges.remove(index as usize);
        self.jobs_free.push(index);
        if let Some(closed) = &mut self.pacer.closed {
            closed.finished(job.stream, job.tag, index);
        }
        if self.awaited == Some(index) {
            self.awaited = None;
        }
        self.outcome.requests += 1;
        self.accounts.done(&Done {
            op: job.request.op,
            bytes: job.request.sectors.saturating_mul(SECTOR_SIZE),
            ok: active.ok,
            issue: active.issue.unwrap_or(self.now),
            complete: self.now,
            due: active.due,
        });
    }
}
