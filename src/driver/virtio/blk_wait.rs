//! Waiting for completions: by spinning on the used rings, or on the interrupts' descriptors.

use super::blk::{CompletionMode, VirtioBlk};
use crate::base::{Nanos, Result, processors};
use crate::driver::BlockDriver;
use crate::machine::Machine;

/// A device in another thread usually answers within this: sleeping would cost more.
const SPIN_NS: u64 = 20_000;
/// Where processors are few, a driver that spins takes one from the device's own threads. One that
/// answers within this is met all the same.
const SPIN_FEW_NS: u64 = 2_000;
/// Until then the processor is offered to others between two looks.
const YIELD_NS: u64 = 1_000_000;
/// Then the driver sleeps, for a device that is no thread of ours wakes nobody when polled.
const NAP_NS: u64 = 100_000;

/// The longest a wait for an interrupt lasts before the device's health is looked at; also how
/// late an interrupt may be after its completion before it counts as lost.
pub(super) const INTERRUPT_PATIENCE_NS: u64 = 1_000_000_000;

impl VirtioBlk {
    /// See [`BlockDriver::wait`]. May return early; never blocks much longer than a second.
    pub(super) fn wait_for_completion(
        &mut self,
        machine: &mut dyn Machine,
        deadline: Option<Nanos>,
    ) -> Result<()> {
        if self.in_flight() == 0 {
            return match deadline {
                Some(_) => machine.wait(&[], deadline),
                None => Err(self.device.error("is idle: there is nothing to wait for")),
            };
        }
        match self.completion {
            CompletionMode::Poll => self.wait_polling(machine, deadline),
            CompletionMode::Interrupt => self.wait_interrupt(machine, deadline),
        }
    }

    fn wait_polling(&mut self, machine: &mut dyn Machine, deadline: Option<Nanos>) -> Result<()> {
        if self.any_used() || (machine.poll()? && self.any_used()) {
            return Ok(());
        }
        let clock = machine.clock();
        if clock.is_virtual() {
            return self.step(machine, deadline);
        }
        let spin_ns = if processors::are_few() { SPIN_FEW_NS } else { SPIN_NS };
        let start = clock.now();
        loop {
            let now = clock.now();
            let waited = now - start;
            let left = deadline.map_or(u64::MAX, |deadline| deadline - now);
            if left == 0 {
                return Ok(());
            }
            if waited < spin_ns {
                std::hint::spin_loop();
            } else if waited < YIELD_NS || left < NAP_NS {
                std::thread::yield_now();
            } else {
                self.device.check_alive(machine)?;
                machine.wait(&[], Some(now + NAP_NS))?;
            }
            if waited >= INTERRUPT_PATIENCE_NS || self.any_used() {
                return Ok(());
            }
            machine.poll()?;
        }
    }

    /// Virtual time: the machine moves the clock. That nothing could ever happen has a better
    /// explanation when the device gave up.
    fn step(&mut self, machine: &mut dyn Machine, deadline: Option<Nanos>) -> Result<()> {
        let stepped = machine.wait(&[], deadline);
        if stepped.is_err() || !self.any_used() {
            self.device.check_alive(machine)?;
        }
        stepped
    }

    fn wait_interrupt(&mut self, machine: &mut dyn Machine, deadline: Option<Nanos>) -> Result<()> {
        let mut returned = false;
        for queue in &self.queues {
            returned |= !queue.ring.request_interrupt();
        }
        if returned {
            return Ok(());
        }
        let clock = machine.clock();
        let patience = clock.now() + self.interrupt_patience_ns;
        let slice = match deadline {
            deadline if clock.is_virtual() => deadline,
            Some(deadline) => Some(deadline.min(patience)),
            None => Some(patience),
        };
        let waited = self.wait_event(machine, slice);
        if self.any_used() {
            if matches!(waited, Ok(false)) && !clock.is_virtual() && clock.now() >= patience {
                return self.expect_interrupt(machine, clock.now() + self.interrupt_patience_ns);
            }
        } else {
            self.device.check_alive(machine)?;
        }
        waited.map(|_| ())
    }

    /// Waits for an event and acknowledges it; whether one came.
    fn wait_event(&mut self, machine: &mut dyn Machine, until: Option<Nanos>) -> Result<bool> {
        let fds = self.device.interrupts.fds();
        machine.wait(&fds, until)?;
        self.device.interrupts.acknowledge(machine, &mut *self.device.transport)
    }

    /// Something was returned and no interrupt came in all the time: it is either on its way, or
    /// lost.
    fn expect_interrupt(&mut self, machine: &mut dyn Machine, until: Nanos) -> Result<()> {
        if self.wait_event(machine, Some(until))? {
            return Ok(());
        }
        Err(self.device.error("returned requests without the interrupt that was asked for"))
    }
}
