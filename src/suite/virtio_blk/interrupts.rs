//! Interrupts: by the pin, by MSI-X, and when none is wanted.

use std::sync::Arc;

use super::rig::{HEADER, Request, Rig, STATUS, Start, USUAL, comes, silent};
use super::{MULTIQUEUE, NEEDS, REGISTERS, case};
use crate::base::Error;
use crate::driver::chipset::Chipset;
use crate::driver::pci::function::{COMMAND_INTX_DISABLE, reg};
use crate::driver::virtio::CompletionMode;
use crate::driver::virtio::irq::Interrupts;
use crate::driver::virtio::spec::*;
use crate::machine::{Capabilities, IrqEvent, IrqSource};
use crate::suite::module::Case;
use crate::suite::outcome::Outcome;
use crate::suite::thread::TestThread;

const MSIX: Capabilities = REGISTERS.union(Capabilities::MSIX);
const EVENTS: Capabilities = NEEDS.union(Capabilities::QUEUE_EVENTS);

pub(super) const CASES: [Case; 4] = [
    case("intx", "the pin rises with a completion and falls when ISR is read", intx)
        .needs(REGISTERS.union(Capabilities::INTX)),
    case("msix", "each queue has its vector; a masked one waits", msix).needs(MSIX),
    case("event-idx", "an interrupt comes when the index passes the event", event_idx)
        .needs(EVENTS),
    case("suppression", "without EVENT_IDX a flag silences interrupts", suppression).needs(EVENTS),
];

fn read(sector: u64) -> Request<'static> {
    Request { kind: VIRTIO_BLK_T_IN, sector, out: &[], into: 512 }
}

/// A disk with an event for each queue: MSI-X vectors, or the calls of vrings.
pub(super) fn with_events(
    thread: &mut TestThread<'_>,
    start: Start,
) -> Outcome<(Rig, Vec<Arc<IrqEvent>>)> {
    let rig = Rig::start(thread, Start { completion: CompletionMode::Interrupt, ..start })?;
    match &rig.device.interrupts {
        Interrupts::Msix(_, events) | Interrupts::Calls(events) => {
            let events = events.clone();
            Ok((rig, events))
        }
        _ => thread.skip("the function has no MSI-X"),
    }
}

/// Answers one read on a queue whose next completion is to interrupt.
fn one_read(thread: &mut TestThread<'_>, rig: &mut Rig, index: usize) -> Outcome {
    rig.queue(index)?.ring.request_interrupt();
    let answer = rig.request_on(thread, index, read(2))?;
    thread.expect("status", answer.status, VIRTIO_BLK_S_OK)
}

pub(super) fn event(events: &[Arc<IrqEvent>], index: usize) -> Outcome<Arc<IrqEvent>> {
    let event = events.get(index).ok_or_else(|| Error::machine("no event for the vector"))?;
    Ok(Arc::clone(event))
}

fn intx(thread: &mut TestThread<'_>) -> Outcome {
    /// ISR status: a queue has used buffers (§4.1.4.5).
    const ISR_QUEUE: u8 = 1;
    let mut rig = Rig::usual(thread)?;
    let function = rig.device.function()?.clone();
    let bus = thread.machine().bus()?;
    // As firmware does; an earlier case may have reset the board.
    Chipset::set_up(bus)?;
    let pin = function.read(bus, reg::INTERRUPT_PIN, 1);
    let line = function.read(bus, reg::INTERRUPT_LINE, 1);
    if pin == 0 || matches!(line, 0 | 0xff) {
        return thread.skip("firmware routed no interrupt to the function");
    }
    let event = thread.watch(IrqSource::Intx(line))?;
    let level = |thread: &mut TestThread<'_>| -> Outcome<bool> {
        Ok(thread.machine().interrupts()?.intx_level(line))
    };
    // With INTX_DISABLE the status is set and the pin stays (PCI 3.0 §6.2.2).
    one_read(thread, &mut rig, 0)?;
    silent(thread, "interrupts with INTX_DISABLE", &event)?;
    rig.device.transport.isr(thread.machine())?;
    function.command(thread.machine().bus()?, 0, COMMAND_INTX_DISABLE);
    for _ in 0..3 {
        one_read(thread, &mut rig, 0)?;
        let came = comes(thread, &event)?;
        thread.check(came, "an interrupt for a completion")?;
        let high = level(thread)?;
        thread.expect("level until ISR is read", high, true)?;
        let isr = rig.device.transport.isr(thread.machine())?;
        thread.expect("ISR status", isr, ISR_QUEUE)?;
        let high = level(thread)?;
        thread.expect("level afterwards", high, false)?;
        let isr = rig.device.transport.isr(thread.machine())?;
        thread.expect("ISR status read again", isr, 0)?;
    }
    rig.finish(thread)
}

fn msix(thread: &mut TestThread<'_>) -> Outcome {
    const QUEUES: u16 = 4;
    let features = USUAL | VIRTIO_BLK_F_MQ;
    let start = Start { disk: MULTIQUEUE, queues: QUEUES, features, ..Start::default() };
    let (mut rig, events) = with_events(thread, start)?;
    for index in 0..QUEUES.into() {
        one_read(thread, &mut rig, index)?;
        let came = comes(thread, &*event(&events, index)?)?;
        thread.check(came, format!("the vector of queue {index} fires"))?;
        for (other, event) in events.iter().enumerate().filter(|(other, _)| *other != index) {
            silent(thread, &format!("interrupts of queue {other} for {index}"), event)?;
        }
    }
    // A masked vector is pending, and fires when it is unmasked (PCI 3.0 §6.8.3.4).
    let Interrupts::Msix(table, _) = &rig.device.interrupts else { return Ok(()) };
    let table = table.clone();
    table.mask(thread.machine().bus()?, 1, true);
    one_read(thread, &mut rig, 1)?;
    let masked = event(&events, 1)?;
    silent(thread, "interrupts while masked", &masked)?;
    let pending = table.is_pending(thread.machine().bus()?, 1);
    thread.expect("pending bit while masked", pending, true)?;
    table.mask(thread.machine().bus()?, 1, false);
    let came = comes(thread, &masked)?;
    thread.check(came, "the vector fires when it is unmasked")?;
    let pending = table.is_pending(thread.machine().bus()?, 1);
    thread.expect("pending bit afterwards", pending, false)?;
    rig.finish(thread)
}

fn event_idx(thread: &mut TestThread<'_>) -> Outcome {
    let features = USUAL | VIRTIO_F_EVENT_IDX;
    let (mut rig, events) = with_events(thread, Start { features, ..Start::default() })?;
    if rig.device.features & VIRTIO_F_EVENT_IDX == 0 {
        return thread.skip("the device does not offer EVENT_IDX");
    }
    let irq = event(&events, 0)?;
    let layout = *rig.queue(0)?.ring.layout();
    let used_event = layout.avail + (4 + 2 * u64::from(layout.size));
    // The event lies so many completions ahead: the interrupt comes with that one, not before.
    for ahead in [0u16, 1, 2, 5] {
        let used = rig.ram.load_u16(layout.used + 2);
        rig.ram.store_u16(used_event, used.wrapping_add(ahead));
        for completion in 0..=ahead {
            rig.request(thread, read(u64::from(completion)))?;
            if completion < ahead {
                silent(thread, "interrupts before the event", &irq)?;
            }
        }
        let came = comes(thread, &irq)?;
        thread.check(came, format!("an interrupt {} completions later", ahead + 1))?;
    }
    // The device asks in the same way to be rung: not more than once for what it has not seen.
    let chain = [rig.part(HEADER, 16, VIRTQ_DESC_F_NEXT), rig.part(STATUS, 1, VIRTQ_DESC_F_WRITE)];
    rig.header(VIRTIO_BLK_T_FLUSH, 0);
    let queue = rig.queue(0)?;
    queue.ring.add_raw(&chain).ok_or_else(|| Error::machine("the ring is full"))?;
    let wanted = queue.ring.publish();
    thread.check(wanted, "an idle device wants to be rung")?;
    queue.doorbell.ring(thread.machine())?;
    rig.used(thread, 0)?;
    rig.finish(thread)
}

fn suppression(thread: &mut TestThread<'_>) -> Outcome {
    let (mut rig, events) = with_events(thread, Start::default())?;
    let irq = event(&events, 0)?;
    for _ in 0..3 {
        rig.queue(0)?.ring.suppress_interrupts();
        rig.request(thread, read(1))?;
        silent(thread, "interrupts with VIRTQ_AVAIL_F_NO_INTERRUPT", &irq)?;
        one_read(thread, &mut rig, 0)?;
        let came = comes(thread, &irq)?;
        thread.check(came, "an interrupt without the flag")?;
    }
    rig.finish(thread)
}
