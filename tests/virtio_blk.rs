//! The guest driver against the builtin device, in every way the two can be put together: they
//! were written apart, each from the specification.

use std::sync::Arc;

use qtrace::base::{BlockOp, Clock, HostClock, Prng, VirtualClock};
use qtrace::driver::virtio::blk::{CompletionMode, Transport, VirtioBlk, VirtioBlkOptions};
use qtrace::driver::{BlockDriver, BlockRequest, BlockStatus, Buffer, Completion, Submitted};
use qtrace::image::{self, Image};
use qtrace::machine::builtin::{Board, BuiltinConfig, BuiltinMachine, DiskConfig, Personality};

const SECTORS: u64 = 4096;
const DEPTH: usize = 16;

struct Setup {
    board: Board,
    personality: Personality,
    iothread: bool,
    aio_depth: usize,
    clock: Arc<dyn Clock>,
    options: VirtioBlkOptions,
}

impl Setup {
    fn host() -> Self {
        Self {
            board: Board::Pc,
            personality: Personality::Transitional,
            iothread: false,
            aio_depth: 0,
            clock: Arc::new(HostClock::new()),
            options: VirtioBlkOptions { queues: 2, queue_size: 64, ..Default::default() },
        }
    }

    fn machine(&self, image: Arc<dyn Image>) -> BuiltinMachine {
        let disk = DiskConfig {
            queues: 2,
            queue_size: 64,
            iothread: self.iothread,
            aio_depth: self.aio_depth,
            personality: self.personality,
            ..DiskConfig::new(image)
        };
        let (board, clock) = (self.board, Arc::clone(&self.clock));
        let config = BuiltinConfig {
            ram_bytes: 64 << 20,
            board,
            clock,
            disks: vec![disk],
            ..Default::default()
        };
        BuiltinMachine::new(config).unwrap()
    }

    /// Runs a seeded mix of requests, none overlapping another in flight, against a model.
    fn round_trip(&self, image: Arc<dyn Image>, requests: u64) {
        let mut machine = self.machine(image);
        let mut disk = VirtioBlk::probe(&mut machine, &self.options).unwrap();
        assert_eq!(disk.limits().capacity_sectors, SECTORS);
        let mut guest = Guest {
            model: vec![0; SECTORS as usize * 512],
            prng: Prng::new(7),
            in_flight: Vec::new(),
        };
        let (mut issued, mut finished) = (0, 0);
        let mut done: Vec<Completion> = Vec::new();
        while finished < requests {
            while issued < requests && guest.submit(&mut disk, issued) {
                issued += 1;
            }
            disk.kick(&mut machine).unwrap();
            disk.wait(&mut machine, None).unwrap();
            disk.reap(&mut machine, &mut done).unwrap();
            for completion in done.drain(..) {
                guest.check(&mut disk, completion);
                finished += 1;
            }
        }
        disk.shutdown(&mut machine).unwrap();
    }
}

struct Guest {
    model: Vec<u8>,
    prng: Prng,
    in_flight: Vec<(u64, BlockRequest)>,
}

fn bytes_of(request: &BlockRequest) -> std::ops::Range<usize> {
    let from = request.sector as usize * 512;
    from..from + request.sectors as usize * 512
}

impl Guest {
    fn request(&mut self) -> BlockRequest {
        let sectors = 1 + self.prng.below(64);
        let sector = self.prng.below(SECTORS - sectors + 1);
        let op = match self.prng.below(16) {
            0 => BlockOp::Flush,
            1..8 => BlockOp::Write,
            _ => BlockOp::Read,
        };
        match op {
            BlockOp::Flush => BlockRequest { op, sector: 0, sectors: 0, unmap: false },
            _ => BlockRequest { op, sector, sectors: sectors as u32, unmap: false },
        }
    }

    /// Submits one more request; `false` when it would pass the depth or overlap one in flight.
    fn submit(&mut self, disk: &mut VirtioBlk, token: u64) -> bool {
        let request = self.request();
        let range = bytes_of(&request);
        let clash = |other: &BlockRequest| {
            let other = bytes_of(other);
            range.start < other.end && other.start < range.end
        };
        if self.in_flight.len() == DEPTH || self.in_flight.iter().any(|(_, r)| clash(r)) {
            return false;
        }
        let buffer = (request.op != BlockOp::Flush).then(|| {
            let mut buffer: Buffer = disk.buffer(range.len()).unwrap();
            if request.op == BlockOp::Write {
                let bytes = &mut disk.bytes_mut(&mut buffer)[..range.len()];
                self.prng.fill(bytes);
                self.model[range.clone()].copy_from_slice(bytes);
            }
            buffer
        });
        let submitted = disk.submit(token as u16 % 2, token, &request, buffer).unwrap();
        assert_eq!(submitted, Submitted::Queued);
        self.in_flight.push((token, request));
        true
    }

    fn check(&mut self, disk: &mut VirtioBlk, completion: Completion) {
        assert_eq!(completion.status, BlockStatus::Ok);
        let at = self.in_flight.iter().position(|(t, _)| *t == completion.token).unwrap();
        let (_, request) = self.in_flight.swap_remove(at);
        if let Some(buffer) = completion.buffer {
            let range = bytes_of(&request);
            assert!(disk.bytes(&buffer)[..range.len()] == self.model[range], "{request:?}");
            disk.release(buffer);
        }
    }
}

#[test]
fn every_transport_completion_and_ring_feature() {
    for transport in [Transport::Modern, Transport::Legacy] {
        for completion in [CompletionMode::Poll, CompletionMode::Interrupt] {
            for features in 0..4 {
                let mut setup = Setup::host();
                let (indirect, event_idx) = (features & 1 != 0, features & 2 != 0);
                let base = setup.options.clone();
                setup.options =
                    VirtioBlkOptions { transport, completion, indirect, event_idx, ..base };
                setup.round_trip(image::mem(SECTORS * 512), 500);
                setup.iothread = true;
                setup.round_trip(image::mem(SECTORS * 512), 500);
            }
        }
    }
}

#[test]
fn every_board_and_personality_in_virtual_time() {
    for board in [Board::Pc, Board::Q35] {
        for personality in [Personality::Transitional, Personality::Modern] {
            let clock = Arc::new(VirtualClock::new());
            let setup = Setup { board, personality, clock, ..Setup::host() };
            setup.round_trip(image::mem(SECTORS * 512), 1000);
        }
    }
}

#[test]
fn asynchronous_raw_images_inline_and_in_an_iothread() {
    let folder = tempfile::tempdir().unwrap();
    for (iothread, name) in [(false, "inline.raw"), (true, "thread.raw")] {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(SECTORS * 512).unwrap();
        let options = image::OpenOptions {
            format: Some("raw".into()),
            writable: true,
            aio: image::AioMode::IoUring,
            ..Default::default()
        };
        let setup = Setup { iothread, aio_depth: 8, ..Setup::host() };
        setup.round_trip(image::open(&path, &options).unwrap(), 1000);
    }
}
