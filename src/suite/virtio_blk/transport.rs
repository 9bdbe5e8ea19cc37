//! Negotiation, reset, queues that are not there, and interrupts.

use std::sync::Arc;

use super::rig::{HEADER, Request, Rig, STATUS, Start, USUAL, comes};
use super::{MULTIQUEUE, NEEDS, case};
use crate::base::{Error, GuestAddr};
use crate::driver::virtio::irq::Interrupts;
use crate::driver::virtio::queue::QueueLayout;
use crate::driver::virtio::spec::*;
use crate::driver::virtio::{CompletionMode, Transport};
use crate::machine::{Capabilities, IrqEvent};
use crate::suite::module::Case;
use crate::suite::outcome::Outcome;
use crate::suite::setup::TestDisk;
use crate::suite::thread::TestThread;

const MSIX: Capabilities = NEEDS.union(Capabilities::MSIX);

pub(super) const CASES: [Case; 7] = [
    case("features", "any subset of the features offered is taken and works", features),
    case("reset", "a reset lets go of the rings and forgets all", reset),
    case("nxvirtq", "queues that do not exist do no harm", nonexistent_queue),
    case("nxvirtq-legacy", "the same by the legacy interface", nonexistent_legacy_queue)
        .needs(NEEDS.union(Capabilities::PIO)),
    case("msix", "each queue has its vector; a masked one waits", msix).needs(MSIX),
    case("event-idx", "an interrupt comes when the index passes the event", event_idx).needs(MSIX),
    case("suppression", "without EVENT_IDX a flag silences interrupts", suppression).needs(MSIX),
];

fn read(sector: u64) -> Request<'static> {
    Request { kind: VIRTIO_BLK_T_IN, sector, out: &[], into: 512 }
}

fn works(thread: &mut TestThread<'_>, rig: &mut Rig, what: &str) -> Outcome {
    let mut want = [0; 512];
    TestDisk::pattern(0, &mut want);
    rig.expect_sectors(thread, what, 0, &want)
}

fn features(thread: &mut TestThread<'_>) -> Outcome {
    /// Those that change neither rings nor doorbells beyond what the driver knows (§5.2.3, §6).
    const OPTIONAL: [u32; 12] = [1, 2, 4, 6, 9, 10, 11, 12, 13, 14, 28, 29];
    let optional = OPTIONAL.iter().fold(0, |all, bit| all | 1u64 << bit);
    let all = Start { features: VIRTIO_F_VERSION_1 | optional, ..Start::default() };
    let rig = Rig::start(thread, all)?;
    let offered = rig.device.features;
    rig.finish(thread)?;
    for _ in 0..32 {
        let wanted = thread.prng().next_u64() & optional | VIRTIO_F_VERSION_1;
        let mut rig = Rig::start(thread, Start { features: wanted, ..Start::default() })?;
        thread.expect("features taken", rig.device.features, wanted & offered)?;
        let status = rig.status(thread)?;
        thread.expect("status", status, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)?;
        works(thread, &mut rig, &format!("a read with features {wanted:#x}"))?;
        rig.finish(thread)?;
    }
    Ok(())
}

fn reset(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    works(thread, &mut rig, "a read before")?;
    rig.reset(thread)?;
    // The old ring is the driver's again: offering a chain on it does nothing.
    let old = *rig.queue(0)?.ring.layout();
    let before = rig.ram.load_u16(old.used + 2);
    let chain = rig.chain(&read(1));
    rig.send(thread, 0, &chain)?;
    let used = rig.take(thread, 0)?;
    thread.check(used.is_none(), "a device that was reset answers nothing")?;
    thread.expect("used index after a reset", rig.ram.load_u16(old.used + 2), before)?;
    rig.restart(thread)?;
    works(thread, &mut rig, "a read after")?;
    rig.finish(thread)
}

fn nonexistent_queue(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    let bus = thread.machine().bus()?;
    let queues = rig.device.transport.queues(bus);
    for index in [queues, queues.saturating_add(1), 0x7fff, 0xffff] {
        let size = rig.device.transport.queue_size_max(bus, index);
        if size != 0 {
            return thread.failed(format!("queue_size of queue {index}"), "0", size.to_string());
        }
        // Setting it up is for nothing; refusing it is as well.
        let layout = QueueLayout::new(GuestAddr(0x10_0000), 8);
        let _ = rig.device.transport.queue_setup(bus, index, &layout, None);
    }
    works(thread, &mut rig, "a read by a queue that exists")?;
    rig.finish(thread)
}

fn nonexistent_legacy_queue(thread: &mut TestThread<'_>) -> Outcome {
    /// Registers of the legacy interface (§4.1.4.10).
    const QUEUE_ADDRESS: u64 = 8;
    const QUEUE_SIZE: u64 = 12;
    const QUEUE_SELECT: u64 = 14;
    const QUEUE_NOTIFY: u64 = 16;
    let mut rig = Rig::start(thread, Start { transport: Transport::Legacy, ..Start::default() })?;
    let registers = rig.device.function.window(0, 0, 20)?;
    let bus = thread.machine().bus()?;
    for index in [1, 2, 0xffff] {
        registers.write(bus, QUEUE_SELECT, 2, index);
        let size = registers.read(bus, QUEUE_SIZE, 2);
        registers.write(bus, QUEUE_ADDRESS, 4, 1);
        registers.write(bus, QUEUE_NOTIFY, 2, index);
        if size != 0 {
            return thread.failed(format!("QUEUE_SIZE of queue {index}"), "0", size.to_string());
        }
    }
    works(thread, &mut rig, "a read by a queue that exists")?;
    rig.finish(thread)
}

/// A disk with MSI-X, and the events of its vectors.
fn with_msix(thread: &mut TestThread<'_>, start: Start) -> Outcome<(Rig, Vec<Arc<IrqEvent>>)> {
    let rig = Rig::start(thread, Start { completion: CompletionMode::Interrupt, ..start })?;
    match &rig.device.interrupts {
        Interrupts::Msix(_, events) => {
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

fn event(events: &[Arc<IrqEvent>], index: usize) -> Outcome<Arc<IrqEvent>> {
    let event = events.get(index).ok_or_else(|| Error::machine("no event for the vector"))?;
    Ok(Arc::clone(event))
}

fn msix(thread: &mut TestThread<'_>) -> Outcome {
    const QUEUES: u16 = 4;
    let features = USUAL | VIRTIO_BLK_F_MQ;
    let start = Start { disk: MULTIQUEUE, queues: QUEUES, features, ..Start::default() };
    let (mut rig, events) = with_msix(thread, start)?;
    for index in 0..QUEUES.into() {
        one_read(thread, &mut rig, index)?;
        let came = comes(thread, &*event(&events, index)?)?;
        thread.check(came, format!("the vector of queue {index} fires"))?;
        let others = events.iter().enumerate().filter(|(other, _)| *other != index);
        let strays: Vec<usize> =
            others.filter(|(_, event)| event.take() > 0).map(|(other, _)| other).collect();
        thread.expect("vectors of other queues that fired", strays, Vec::new())?;
    }
    // A masked vector is pending, and fires when it is unmasked (PCI 3.0 §6.8.3.4).
    let Interrupts::Msix(table, _) = &rig.device.interrupts else { return Ok(()) };
    let table = table.clone();
    table.mask(thread.machine().bus()?, 1, true);
    one_read(thread, &mut rig, 1)?;
    let masked = event(&events, 1)?;
    thread.expect("interrupts while masked", masked.take(), 0)?;
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
    let (mut rig, events) = with_msix(thread, Start { features, ..Start::default() })?;
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
                thread.expect("interrupts before the event", irq.take(), 0)?;
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
    queue.doorbell.ring(thread.machine().bus()?);
    rig.used(thread, 0)?;
    rig.finish(thread)
}

fn suppression(thread: &mut TestThread<'_>) -> Outcome {
    let (mut rig, events) = with_msix(thread, Start::default())?;
    let irq = event(&events, 0)?;
    for _ in 0..3 {
        rig.queue(0)?.ring.suppress_interrupts();
        rig.request(thread, read(1))?;
        thread.expect("interrupts with VIRTQ_AVAIL_F_NO_INTERRUPT", irq.take(), 0)?;
        one_read(thread, &mut rig, 0)?;
        let came = comes(thread, &irq)?;
        thread.check(came, "an interrupt without the flag")?;
    }
    rig.finish(thread)
}
