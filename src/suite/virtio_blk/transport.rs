//! Negotiation, reset, queues that are not there, and a capacity that changes.

use super::requests::{CONFIG_CAPACITY, field};
use super::rig::{Request, Rig, Start, comes, settled, silent};
use super::{DISK_BYTES, NEEDS, PLAIN, REGISTERS, SCRATCH, case, interrupts};
use crate::base::GuestAddr;
use crate::driver::virtio::Transport;
use crate::driver::virtio::queue::QueueLayout;
use crate::driver::virtio::spec::*;
use crate::machine::Capabilities;
use crate::suite::module::Case;
use crate::suite::outcome::Outcome;
use crate::suite::setup::TestDisk;
use crate::suite::thread::TestThread;

const RESIZE: Capabilities = NEEDS.union(Capabilities::RESIZE);
const RESIZE_MSIX: Capabilities = REGISTERS.union(Capabilities::RESIZE).union(Capabilities::MSIX);

pub(super) const CASES: [Case; 6] = [
    case("features", "any subset of the features offered is taken and works", features),
    case("reset", "a reset lets go of the rings and forgets all", reset),
    case("nxvirtq", "queues that do not exist do no harm", nonexistent_queue).needs(REGISTERS),
    case("nxvirtq-legacy", "the same by the legacy interface", nonexistent_legacy_queue)
        .needs(REGISTERS.union(Capabilities::PIO)),
    case("resize", "a running disk gets another capacity and says so", resize).needs(RESIZE),
    case("resize-msix", "a new capacity fires the configuration's vector", resize_msix)
        .needs(RESIZE_MSIX),
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
    let machine = thread.machine();
    let queues = rig.device.transport.queues(machine)?;
    for index in [queues, queues.saturating_add(1), 0x7fff, 0xffff] {
        let size = rig.device.transport.queue_size_max(machine, index)?;
        if size != 0 {
            return thread.failed(format!("queue_size of queue {index}"), "0", size.to_string());
        }
        // Setting it up is for nothing; refusing it is as well.
        let layout = QueueLayout::new(GuestAddr(0x10_0000), 8);
        let _ = rig.device.transport.queue_setup(machine, index, &layout, None);
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
    let registers = rig.device.function()?.window(0, 0, 20)?;
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

/// ISR status: the configuration changed (§4.1.4.5).
const ISR_CONFIG: u8 = 2;

fn resize(thread: &mut TestThread<'_>) -> Outcome {
    let mut rig = Rig::usual(thread)?;
    let full = DISK_BYTES / 512;
    for sectors in [SCRATCH, SCRATCH + 8, full] {
        let generation = rig.device.transport.config_generation(thread.machine())?;
        thread.machine().resize_disk(PLAIN, sectors * 512)?;
        if rig.device.function().is_ok() {
            let isr = rig.device.transport.isr(thread.machine())?;
            thread.expect("ISR status, configuration bit", isr & ISR_CONFIG, ISR_CONFIG)?;
        }
        let changed = settled(thread, |thread| {
            let now = rig.device.transport.config_generation(thread.machine())?;
            Ok((now != generation).then_some(()))
        })?;
        thread.check(changed.is_some(), "config_generation changes")?;
        let capacity = field(thread, &mut rig, CONFIG_CAPACITY, 8)?;
        thread.expect("capacity", capacity, sectors)?;
        rig.expect(thread, "read of the last sector", read(sectors - 1), VIRTIO_BLK_S_OK)?;
        rig.expect(thread, "read behind it", read(sectors), VIRTIO_BLK_S_IOERR)?;
        works(thread, &mut rig, "a read of what stays")?;
    }
    rig.finish(thread)
}

fn resize_msix(thread: &mut TestThread<'_>) -> Outcome {
    const CONFIG_VECTOR: u16 = 1;
    let start = Start { more_vectors: 1, ..Start::default() };
    let (mut rig, events) = interrupts::with_events(thread, start)?;
    let taken = rig.device.transport.set_config_vector(thread.machine(), CONFIG_VECTOR)?;
    thread.expect("config_msix_vector reads back", taken, CONFIG_VECTOR)?;
    let (queue, config) = (interrupts::event(&events, 0)?, interrupts::event(&events, 1)?);
    for bytes in [DISK_BYTES / 2, DISK_BYTES] {
        thread.machine().resize_disk(PLAIN, bytes)?;
        let came = comes(thread, &config)?;
        thread.check(came, "the configuration's vector fires")?;
        silent(thread, "interrupts of the queue", &queue)?;
    }
    works(thread, &mut rig, "a read afterwards")?;
    rig.finish(thread)
}
