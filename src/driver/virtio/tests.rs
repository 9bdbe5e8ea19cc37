//! The block driver over the fake machine: every combination, then every lie.

use super::spec::VIRTIO_F_VERSION_1;
use super::*;
use crate::base::{BlockOp, ErrorKind, Nanos, Prng};
use crate::driver::fake::FakeMachine;
use crate::driver::{BlockDriver, BlockRequest, BlockStatus, Completion, Submitted};
use crate::machine::{Capabilities, Machine};

fn request(op: BlockOp, sector: u64, sectors: u32) -> BlockRequest {
    BlockRequest { op, sector, sectors, unmap: false }
}

/// Every combination of the options that change how rings are used.
fn combinations() -> impl Iterator<Item = VirtioBlkOptions> {
    (0..64u32).map(|bits| VirtioBlkOptions {
        transport: if bits & 1 == 0 { Transport::Modern } else { Transport::Legacy },
        indirect: bits & 2 != 0,
        event_idx: bits & 4 != 0,
        completion: if bits & 8 == 0 { CompletionMode::Poll } else { CompletionMode::Interrupt },
        queues: if bits & 16 == 0 { 1 } else { 4 },
        queue_size: if bits & 32 == 0 { 16 } else { 0 },
        transfer_bytes_max: 256 << 10,
        ..VirtioBlkOptions::default()
    })
}

fn collect(driver: &mut VirtioBlk, machine: &mut FakeMachine, count: usize) -> Vec<Completion> {
    let mut done = Vec::new();
    driver.kick(machine).unwrap();
    while done.len() < count {
        driver.wait(machine, None).unwrap();
        driver.reap(machine, &mut done).unwrap();
    }
    done
}

/// One request of its own.
fn single(
    driver: &mut VirtioBlk,
    machine: &mut FakeMachine,
    request: &BlockRequest,
    fill: Option<&[u8]>,
) -> (BlockStatus, Vec<u8>) {
    let buffer = (!matches!(request.op, BlockOp::Flush)).then(|| {
        let mut buffer = driver.buffer(fill.map_or(256 << 10, <[u8]>::len)).unwrap();
        if let Some(fill) = fill {
            driver.bytes_mut(&mut buffer)[..fill.len()].copy_from_slice(fill);
        }
        buffer
    });
    assert_eq!(driver.submit(0, 9, request, buffer).unwrap(), Submitted::Queued);
    let done = collect(driver, machine, 1).remove(0);
    assert_eq!(done.token, 9);
    let data = done.buffer.map_or(Vec::new(), |buffer| {
        let data = driver.bytes(&buffer).to_vec();
        driver.release(buffer);
        data
    });
    (done.status, data)
}

/// The same work whatever is negotiated: random writes on all queues at full depth, large and
/// small, then everything read back, zeroed, and identified.
fn work(options: &VirtioBlkOptions, lazy: bool) {
    let mut machine = FakeMachine::new();
    machine.lazy = lazy;
    let driver = &mut VirtioBlk::probe(&mut machine, options).unwrap();
    assert_eq!(driver.is_legacy(), options.transport == Transport::Legacy);
    assert_eq!(driver.features() & VIRTIO_F_VERSION_1 == 0, driver.is_legacy());
    assert_eq!(driver.limits().queues, options.queues);
    let mut prng = Prng::new(3);
    let mut model = vec![0u8; 1 << 20];
    for round in 0..20u64 {
        let mut queued = 0;
        loop {
            let sectors = 1 + prng.below(if round % 5 == 0 { 512 } else { 8 }) as usize;
            let at = 512 * prng.below(2048 - sectors as u64) as usize;
            let Some(mut buffer) = driver.buffer(sectors * 512) else {
                break;
            };
            prng.fill(&mut driver.bytes_mut(&mut buffer)[..sectors * 512]);
            let data = driver.bytes(&buffer)[..sectors * 512].to_vec();
            let write = request(BlockOp::Write, at as u64 / 512, sectors as u32);
            // One queue a round: requests of different queues have no order.
            match driver.submit(round as u16, queued as u64, &write, Some(buffer)).unwrap() {
                Submitted::Queued => model[at..at + data.len()].copy_from_slice(&data),
                Submitted::Full(buffer) => {
                    driver.release(buffer.unwrap());
                    break;
                }
            }
            queued += 1;
        }
        assert!(queued > 0);
        assert_eq!(driver.in_flight(), queued);
        for (index, done) in collect(driver, &mut machine, queued).into_iter().enumerate() {
            assert_eq!((done.token, done.status), (index as u64, BlockStatus::Ok));
            driver.release(done.buffer.unwrap());
        }
    }
    assert!(machine.blk.disk == model);
    let read = request(BlockOp::Read, 100, 512);
    let (status, data) = single(driver, &mut machine, &read, None);
    assert_eq!(status, BlockStatus::Ok);
    assert!(data == model[100 * 512..][..256 << 10]);
    let (_, id) = single(driver, &mut machine, &request(BlockOp::GetId, 0, 0), Some(&[0; 20]));
    assert_eq!(&id[..10], b"fake-disk\0");
    for op in [BlockOp::Discard, BlockOp::WriteZeroes] {
        single(driver, &mut machine, &request(op, 7, 3), None);
        model[7 * 512..][..3 * 512].fill(0);
        assert!(machine.blk.disk == model);
    }
    assert_eq!(
        single(driver, &mut machine, &request(BlockOp::Flush, 0, 0), None).0,
        BlockStatus::Ok
    );
    assert_eq!(driver.pool.lent(), 0, "every buffer came back");
    if options.completion == CompletionMode::Poll {
        assert_eq!(machine.blk.interrupts, 0, "polling asks for no interrupts");
    } else if lazy {
        assert!(machine.blk.interrupts > 0);
    }
    driver.shutdown(&mut machine).unwrap();
    assert_eq!(machine.blk.status, 0);
    assert!(!machine.function().is_master());
    assert!(machine.strays.is_empty(), "{:?}", machine.strays);
}

#[test]
fn every_combination_does_the_same_work() {
    for options in combinations() {
        work(&options, false);
    }
}

#[test]
fn completions_that_come_later_are_waited_for() {
    for options in combinations() {
        work(&options, true);
    }
}

#[test]
fn intx_is_used_where_there_is_no_msix() {
    for event_idx in [false, true] {
        let mut machine = FakeMachine::new();
        machine.facets.remove(Capabilities::MSIX);
        machine.lazy = true;
        let completion = CompletionMode::Interrupt;
        let options = VirtioBlkOptions { completion, event_idx, ..VirtioBlkOptions::default() };
        let mut driver = VirtioBlk::probe(&mut machine, &options).unwrap();
        for _ in 0..3 {
            let flush = request(BlockOp::Flush, 0, 0);
            assert_eq!(single(&mut driver, &mut machine, &flush, None).0, BlockStatus::Ok);
            assert_eq!(machine.blk.isr, 0, "acknowledged, so that the next one is an edge");
        }
        assert_eq!(machine.blk.interrupts, 3);
    }
    let mut machine = FakeMachine::new();
    machine.facets.remove(Capabilities::MSIX | Capabilities::INTX);
    let options =
        VirtioBlkOptions { completion: CompletionMode::Interrupt, ..VirtioBlkOptions::default() };
    let error = VirtioBlk::probe(&mut machine, &options).unwrap_err();
    assert!(error.to_string().contains("no interrupt"), "{error}");
}

#[test]
fn one_notification_a_batch() {
    let mut machine = FakeMachine::new();
    let mut driver = VirtioBlk::probe(&mut machine, &VirtioBlkOptions::default()).unwrap();
    for token in 0..8 {
        driver.submit(0, token, &request(BlockOp::Flush, 0, 0), None).unwrap();
    }
    assert_eq!(machine.blk.notifications, 0);
    driver.kick(&mut machine).unwrap();
    driver.kick(&mut machine).unwrap();
    assert_eq!(machine.blk.notifications, 1);
}

#[test]
fn requests_outside_the_limits_are_refused_and_cost_no_buffer() {
    let mut machine = FakeMachine::new();
    let mut driver = VirtioBlk::probe(&mut machine, &VirtioBlkOptions::default()).unwrap();
    let limits = driver.limits().clone();
    assert_eq!(limits.transfer_bytes_max, 16 * (64 << 10), "seg_max segments of size_max");
    assert_eq!((limits.capacity_sectors, limits.discard_sectors_max), (2048, 1024));
    let mut bad = vec![
        request(BlockOp::Read, 2048, 1),
        request(BlockOp::Read, u64::MAX, 2),
        request(BlockOp::Write, 0, 0),
        request(BlockOp::Read, 0, 9),
        request(BlockOp::Discard, 0, 1025),
        request(BlockOp::WriteZeroes, 0, 513),
    ];
    bad.push(BlockRequest { unmap: true, ..request(BlockOp::Discard, 0, 1) });
    for request in bad {
        let buffer = driver.buffer(4096);
        let error = driver.submit(0, 1, &request, buffer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Machine);
        assert!(error.to_string().contains("outside what the device takes"), "{error}");
    }
    assert!(driver.submit(0, 1, &request(BlockOp::Write, 0, 1), None).is_err(), "no buffer");
    assert_eq!((driver.in_flight(), driver.pool.lent()), (0, 0));
}

#[test]
fn a_read_only_device_without_extras_offers_nothing_else() {
    let mut machine = FakeMachine::new();
    machine.blk.offered = (1 << 5) | VIRTIO_F_VERSION_1;
    let mut driver = VirtioBlk::probe(&mut machine, &VirtioBlkOptions::default()).unwrap();
    let limits = driver.limits().clone();
    assert!(limits.read_only && !limits.flush);
    assert_eq!((limits.discard_sectors_max, limits.write_zeroes_sectors_max), (0, 0));
    assert_eq!((limits.queues, limits.block_bytes, limits.depth_max), (1, 512, 64 / 3));
    for op in [BlockOp::Write, BlockOp::Flush, BlockOp::Discard, BlockOp::WriteZeroes] {
        let buffer = driver.buffer(4096);
        assert!(driver.submit(0, 0, &request(op, 0, 1), buffer).is_err(), "{op}");
    }
}

/// Probes a machine that `lie` spoilt; the error's text, which names the function.
fn refusal(options: &VirtioBlkOptions, lie: impl Fn(&mut FakeMachine)) -> String {
    let mut machine = FakeMachine::new();
    lie(&mut machine);
    let error = VirtioBlk::probe(&mut machine, options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Machine);
    let text = error.to_string();
    assert!(text.contains("00:04.0 1af4:1001"), "{text}");
    assert_eq!(machine.blk.status & 4, 0, "no DRIVER_OK");
    text
}

#[test]
fn lies_at_set_up_are_named() {
    type Lie = (&'static str, fn(&mut FakeMachine));
    let lies: [Lie; 12] = [
        ("does not take the features", |m| m.blk.refuses_features = true),
        ("VIRTIO_F_VERSION_1", |m| m.blk.offered &= !VIRTIO_F_VERSION_1),
        ("changes whenever it is read", |m| m.blk.restless_config = true),
        ("has no queue 0", |m| m.blk.queue_max = 0),
        ("logical blocks of 513 bytes", |m| m.blk.config[20] = 1),
        ("0 queues", |m| m.blk.config[34] = 0),
        ("0 segments", |m| m.blk.config[12] = 0),
        ("capacity of 18446744073709551615", |m| m.blk.config[..8].fill(0xff)),
        ("not one block", |m| m.blk.config[8..12].copy_from_slice(&31u32.to_le_bytes())),
        ("lies outside BAR 4", |m| m.function().put(0x78, &0xffff_fff0u32.to_le_bytes())),
        ("has 55 bytes where 56", |m| m.function().bytes[0x6c] = 55),
        ("too short for its features", |m| m.function().put(0xa0, &20u32.to_le_bytes())),
    ];
    let options = VirtioBlkOptions { queues: 4, ..VirtioBlkOptions::default() };
    for (expected, lie) in lies {
        let text = refusal(&options, lie);
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_device_without_vectors_for_us_is_an_error() {
    for transport in [Transport::Modern, Transport::Legacy] {
        let completion = CompletionMode::Interrupt;
        let options = VirtioBlkOptions { transport, completion, ..VirtioBlkOptions::default() };
        let text = refusal(&options, |m| m.blk.refuses_vectors = true);
        assert!(text.contains("no resources for MSI-X vector 0 of queue 0"), "{text}");
    }
}

#[test]
fn a_notify_offset_outside_its_structure_is_an_error() {
    let options = VirtioBlkOptions { queues: 4, ..VirtioBlkOptions::default() };
    let text = refusal(&options, |m| m.function().put(0x80, &u32::MAX.to_le_bytes()));
    assert!(text.contains("outside the notification structure"), "{text}");
}

#[test]
fn a_reset_that_never_ends_is_given_up() {
    let mut machine = FakeMachine::new();
    let mut driver = VirtioBlk::probe(&mut machine, &VirtioBlkOptions::default()).unwrap();
    machine.blk.never_resets = true;
    let device = &mut driver.device;
    let patience = std::time::Duration::from_millis(5);
    let error = device::reset(&mut machine, &mut *device.transport, patience);
    let text = error.unwrap_err().to_string();
    assert!(text.contains("does not finish its reset: its status reads 0x0f"), "{text}");
}

#[test]
fn missing_devices_and_interfaces_are_said() {
    let mut machine = FakeMachine::new();
    let options = VirtioBlkOptions { index: 1, ..VirtioBlkOptions::default() };
    let text = VirtioBlk::probe(&mut machine, &options).unwrap_err().to_string();
    assert!(text.contains("found: 00:00.0 8086:1237, 00:04.0 1af4:1001"), "{text}");
    let options = VirtioBlkOptions { transport: Transport::Legacy, ..VirtioBlkOptions::default() };
    let text = refusal(&options, |m| m.function().bar(0, 0, 0));
    assert!(text.contains("has no Legacy virtio interface"), "{text}");
}

/// A driver with one read submitted to a device that does nothing by itself.
fn one_pending(options: &VirtioBlkOptions) -> (FakeMachine, VirtioBlk) {
    let mut machine = FakeMachine::new();
    machine.lazy = true;
    let mut driver = VirtioBlk::probe(&mut machine, options).unwrap();
    let buffer = driver.buffer(4096);
    driver.submit(0, 5, &request(BlockOp::Read, 0, 8), buffer).unwrap();
    driver.kick(&mut machine).unwrap();
    (machine, driver)
}

#[test]
fn a_broken_ring_is_an_error_with_device_and_queue() {
    let (mut machine, mut driver) = one_pending(&VirtioBlkOptions::default());
    machine.blk.push_used(0, 60, 1);
    let text = driver.reap(&mut machine, &mut Vec::new()).unwrap_err().to_string();
    assert_eq!(
        text,
        "virtio-blk 00:04.0 1af4:1001, queue 0: device returned descriptor id 60 which is not in flight"
    );
}

#[test]
fn status_and_length_are_checked_as_the_interface_allows() {
    let legacy = VirtioBlkOptions { transport: Transport::Legacy, ..VirtioBlkOptions::default() };
    for (options, expected) in
        [(VirtioBlkOptions::default(), BlockStatus::BadLength(4096 + 2)), (legacy, BlockStatus::Ok)]
    {
        let (mut machine, mut driver) = one_pending(&options);
        machine.blk.used_extra = 1;
        assert_eq!(collect(&mut driver, &mut machine, 1)[0].status, expected);
        machine.blk.used_extra = 0;
        machine.blk.silent_status = true;
        let flush = request(BlockOp::Flush, 0, 0);
        let (status, _) = single(&mut driver, &mut machine, &flush, None);
        assert_eq!(status, BlockStatus::Bad(0xff));
    }
}

#[test]
fn a_device_that_gave_up_is_noticed_while_waiting() {
    for completion in [CompletionMode::Poll, CompletionMode::Interrupt] {
        let options = VirtioBlkOptions { completion, ..VirtioBlkOptions::default() };
        for (status, expected) in [(0x4b, "DEVICE_NEEDS_RESET"), (0, "lost its driver")] {
            let (mut machine, mut driver) = one_pending(&options);
            machine.blk.status = status;
            let deadline = machine.clock().now() + 50_000_000;
            let error = driver.wait(&mut machine, Some(deadline)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

#[test]
fn a_lost_interrupt_is_an_error() {
    for event_idx in [false, true] {
        let completion = CompletionMode::Interrupt;
        let options = VirtioBlkOptions { completion, event_idx, ..VirtioBlkOptions::default() };
        let (mut machine, mut driver) = one_pending(&options);
        machine.blk.loses_interrupts = true;
        driver.interrupt_patience_ns = 3_000_000;
        let text = driver.wait(&mut machine, None).unwrap_err().to_string();
        assert!(text.contains("without the interrupt that was asked for"), "{text}");
    }
}

#[test]
fn waiting_ends_at_the_deadline_and_idle_waiting_needs_one() {
    let (mut machine, mut driver) = one_pending(&VirtioBlkOptions::default());
    machine.blk.queues[0].enabled = false; // it will never answer
    for _ in 0..2 {
        let deadline = machine.clock().now() + 2_000_000;
        driver.wait(&mut machine, Some(deadline)).unwrap();
        assert!(machine.clock().now() >= deadline);
    }
    let mut machine = FakeMachine::new();
    let mut driver = VirtioBlk::probe(&mut machine, &VirtioBlkOptions::default()).unwrap();
    assert!(driver.wait(&mut machine, None).is_err());
    driver.wait(&mut machine, Some(Nanos(1))).unwrap();
}

#[test]
fn shutdown_takes_everything_back_and_a_second_probe_works() {
    let (mut machine, mut driver) = one_pending(&VirtioBlkOptions::default());
    driver.shutdown(&mut machine).unwrap();
    assert_eq!((driver.in_flight(), driver.pool.lent()), (0, 0));
    driver.shutdown(&mut machine).unwrap();
    let error = driver.submit(0, 0, &request(BlockOp::Flush, 0, 0), None).unwrap_err();
    assert!(error.to_string().contains("was shut down"), "{error}");
    let mut driver = VirtioBlk::probe(&mut machine, &VirtioBlkOptions::default()).unwrap();
    let flush = request(BlockOp::Flush, 0, 0);
    assert_eq!(single(&mut driver, &mut machine, &flush, None).0, BlockStatus::Ok);
}
