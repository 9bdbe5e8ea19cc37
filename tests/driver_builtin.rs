//! The virtio block driver on the builtin machine: one body of work over every combination of
//! interface, ring features, queues, completion mode and threading.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use qtrace::base::{BlockOp, Clock, HostClock, Prng, VirtualClock};
use qtrace::driver::virtio::spec::{
    VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC, VIRTIO_F_VERSION_1,
};
use qtrace::driver::virtio::{CompletionMode, Transport, VirtioBlk, VirtioBlkOptions};
use qtrace::driver::{BlockDriver, BlockRequest, BlockStatus, Completion, Submitted};
use qtrace::image::{self, Image};
use qtrace::machine::Machine;
use qtrace::machine::builtin::{Board, BuiltinConfig, BuiltinMachine, DiskConfig, Personality};

const DISK_BYTES: usize = 4 << 20;
const DISK_SECTORS: u64 = DISK_BYTES as u64 / 512;

/// One way to run a disk.
#[derive(Clone, Copy, Debug)]
struct Case {
    board: Board,
    personality: Personality,
    transport: Transport,
    indirect: bool,
    event_idx: bool,
    completion: CompletionMode,
    queues: u16,
    iothread: bool,
    aio_depth: usize,
    virtual_clock: bool,
}

/// Every combination the machine has: a thread's time is the host's, never a virtual clock's.
fn cases() -> impl Iterator<Item = Case> {
    let interfaces = [
        (Board::Pc, Personality::Transitional, Transport::Legacy),
        (Board::Q35, Personality::Transitional, Transport::Modern),
        (Board::Pc, Personality::Modern, Transport::Auto),
    ];
    let all = interfaces.into_iter().flat_map(|(board, personality, transport)| {
        (0..128u32).map(move |bits| {
            let bit = |index: u32| bits & (1 << index) != 0;
            Case {
                board,
                personality,
                transport,
                indirect: bit(0),
                event_idx: bit(1),
                completion: if bit(2) { CompletionMode::Interrupt } else { CompletionMode::Poll },
                queues: if bit(3) { 4 } else { 1 },
                iothread: bit(4),
                aio_depth: if bit(5) { 8 } else { 0 },
                virtual_clock: bit(6),
            }
        })
    });
    all.filter(|case| !(case.iothread && case.virtual_clock))
}

fn build(case: &Case, image: Arc<dyn Image>) -> (BuiltinMachine, VirtioBlk) {
    let disk = DiskConfig {
        queues: case.queues,
        queue_size: 64,
        iothread: case.iothread,
        serial: "QT0001".into(),
        personality: case.personality,
        aio_depth: case.aio_depth,
        ..DiskConfig::new(image)
    };
    let clock: Arc<dyn Clock> = match case.virtual_clock {
        true => Arc::new(VirtualClock::new()),
        false => Arc::new(HostClock::new()),
    };
    let board = case.board;
    let config = BuiltinConfig {
        ram_bytes: 16 << 20,
        clock,
        board,
        disks: vec![disk],
        ..Default::default()
    };
    let mut machine = BuiltinMachine::new(config).unwrap();
    let options = VirtioBlkOptions {
        transport: case.transport,
        queues: case.queues,
        queue_size: 64,
        completion: case.completion,
        indirect: case.indirect,
        event_idx: case.event_idx,
        transfer_bytes_max: 256 << 10,
        ..VirtioBlkOptions::default()
    };
    let driver = VirtioBlk::probe(&mut machine, &options).unwrap();
    (machine, driver)
}

fn request(op: BlockOp, sector: u64, sectors: u32) -> BlockRequest {
    BlockRequest { op, sector, sectors, unmap: false }
}

/// Kicks, and waits for `count` completions, which must all be good.
fn finish(driver: &mut VirtioBlk, machine: &mut BuiltinMachine, count: usize) -> Vec<Completion> {
    let mut done = Vec::new();
    driver.kick(machine).unwrap();
    driver.reap(machine, &mut done).unwrap();
    while done.len() < count {
        driver.wait(machine, None).unwrap();
        driver.reap(machine, &mut done).unwrap();
    }
    assert_eq!((done.len(), driver.in_flight()), (count, 0));
    assert!(done.iter().all(|done| done.status == BlockStatus::Ok), "{done:?}");
    done
}

/// Fills the rings with writes that do not overlap, round after round, and keeps a model.
fn write_rounds(driver: &mut VirtioBlk, machine: &mut BuiltinMachine, model: &mut [u8]) {
    let mut prng = Prng::new(11);
    for round in 0..6u64 {
        let mut queued = 0u64;
        let mut sector = prng.below(64);
        while sector < DISK_SECTORS {
            let largest = if round == 0 { 512 } else { 24 };
            let sectors = (1 + prng.below(largest)).min(DISK_SECTORS - sector);
            let bytes = sectors as usize * 512;
            let Some(mut buffer) = driver.buffer(bytes) else { break };
            prng.fill(&mut driver.bytes_mut(&mut buffer)[..bytes]);
            let data = driver.bytes(&buffer)[..bytes].to_vec();
            let write = request(BlockOp::Write, sector, sectors as u32);
            match driver.submit(queued as u16, queued, &write, Some(buffer)).unwrap() {
                Submitted::Queued => model[sector as usize * 512..][..bytes].copy_from_slice(&data),
                Submitted::Full(buffer) => {
                    driver.release(buffer.unwrap());
                    break;
                }
            }
            queued += 1;
            sector += sectors + prng.below(40);
        }
        assert!(queued > 8, "{queued}");
        let mut tokens: Vec<_> = finish(driver, machine, queued as usize)
            .into_iter()
            .map(|done| {
                driver.release(done.buffer.unwrap());
                done.token
            })
            .collect();
        tokens.sort_unstable();
        assert!(tokens.into_iter().eq(0..queued));
    }
}

/// Submits one request alone and gives its data back.
fn alone(driver: &mut VirtioBlk, machine: &mut BuiltinMachine, request: &BlockRequest) -> Vec<u8> {
    let with_data = matches!(request.op, BlockOp::Read | BlockOp::GetId);
    let buffer = with_data.then(|| driver.buffer(256 << 10).unwrap());
    assert_eq!(driver.submit(0, 1, request, buffer).unwrap(), Submitted::Queued);
    let buffer = finish(driver, machine, 1).remove(0).buffer;
    buffer.map_or(Vec::new(), |buffer| {
        let data = driver.bytes(&buffer).to_vec();
        driver.release(buffer);
        data
    })
}

fn body(case: &Case) {
    let image = image::mem(DISK_BYTES as u64);
    let (mut machine, mut driver) = build(case, image.clone());
    let (machine, driver) = (&mut machine, &mut driver);
    let features = driver.features();
    assert_eq!(features & VIRTIO_F_VERSION_1 == 0, case.transport == Transport::Legacy);
    assert_eq!(features & VIRTIO_F_INDIRECT_DESC != 0, case.indirect);
    assert_eq!(features & VIRTIO_F_EVENT_IDX != 0, case.event_idx);
    let limits = driver.limits().clone();
    assert_eq!((limits.queues, limits.capacity_sectors), (case.queues, DISK_SECTORS));
    assert!(limits.flush && limits.discard_sectors_max > 0 && !limits.read_only);

    let mut model = vec![0; DISK_BYTES];
    write_rounds(driver, machine, &mut model);
    alone(driver, machine, &request(BlockOp::Flush, 0, 0));
    alone(driver, machine, &request(BlockOp::WriteZeroes, 100, 77));
    model[100 * 512..][..77 * 512].fill(0);
    alone(driver, machine, &request(BlockOp::Discard, 1024, 8));
    model[1024 * 512..][..8 * 512].fill(0);
    for sector in (0..DISK_SECTORS).step_by(512) {
        let data = alone(driver, machine, &request(BlockOp::Read, sector, 512));
        assert!(data == model[sector as usize * 512..][..256 << 10], "sector {sector}");
    }
    let id = alone(driver, machine, &request(BlockOp::GetId, 0, 0));
    assert_eq!(&id[..7], b"QT0001\0");

    driver.shutdown(machine).unwrap();
    let mut bytes = vec![0; DISK_BYTES];
    image.read(&mut [IoSliceMut::new(&mut bytes)], 0).unwrap();
    assert!(bytes == model, "the image differs from what was written");
}

#[test]
fn every_combination_does_the_same_work() {
    for case in cases() {
        // The panic message of a failing body does not know the case.
        let run = std::panic::catch_unwind(|| body(&case));
        assert!(run.is_ok(), "failed: {case:?}");
    }
}

#[test]
fn two_disks_have_two_drivers_in_one_machine() {
    use qtrace::driver::alloc::PageAllocator;
    let images = [image::mem(1 << 20), image::mem(2 << 20)];
    let config = BuiltinConfig {
        ram_bytes: 32 << 20,
        disks: images.iter().map(|image| DiskConfig::new(image.clone())).collect(),
        ..BuiltinConfig::default()
    };
    let mut machine = BuiltinMachine::new(config).unwrap();
    let mut drivers: Vec<_> = [0u64, 1]
        .into_iter()
        .map(|index| {
            let completion = CompletionMode::Interrupt;
            let options = VirtioBlkOptions {
                index: index as usize,
                completion,
                ..VirtioBlkOptions::default()
            };
            let start = (1 + index * 8) << 20;
            let ram = machine.ram().unwrap();
            let pool = PageAllocator::with_range(ram, start, start + (8 << 20), 1 << 20).unwrap();
            VirtioBlk::probe_in(&mut machine, &options, pool).unwrap()
        })
        .collect();
    for (index, driver) in drivers.iter_mut().enumerate() {
        let mut buffer = driver.buffer(512).unwrap();
        driver.bytes_mut(&mut buffer)[..512].fill(index as u8 + 1);
        let write = request(BlockOp::Write, 3, 1);
        assert_eq!(driver.submit(0, 0, &write, Some(buffer)).unwrap(), Submitted::Queued);
        finish(driver, &mut machine, 1);
    }
    for (index, image) in images.iter().enumerate() {
        let mut sector = [0; 512];
        image.read(&mut [IoSliceMut::new(&mut sector)], 3 * 512).unwrap();
        assert_eq!(sector, [index as u8 + 1; 512]);
    }
    assert_ne!(drivers[0].name(), drivers[1].name());
}

#[test]
fn after_a_shutdown_a_second_driver_takes_over() {
    let case = Case {
        board: Board::Pc,
        personality: Personality::Transitional,
        transport: Transport::Auto,
        indirect: false,
        event_idx: false,
        completion: CompletionMode::Poll,
        queues: 1,
        iothread: false,
        aio_depth: 0,
        virtual_clock: true,
    };
    let image = image::mem(1 << 20);
    image.write(&[IoSlice::new(&[7; 512])], 512).unwrap();
    let (mut machine, mut driver) = build(&case, image);
    driver.shutdown(&mut machine).unwrap();
    assert!(driver.submit(0, 0, &request(BlockOp::Flush, 0, 0), None).is_err());
    let options = VirtioBlkOptions::default();
    let mut driver = VirtioBlk::probe(&mut machine, &options).unwrap();
    let data = alone(&mut driver, &mut machine, &request(BlockOp::Read, 1, 1));
    assert_eq!(data[..512], [7; 512]);
}
