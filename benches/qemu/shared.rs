//! The program's own driver: everything in shared RAM, doorbells in batches.

use std::time::Instant;

use qtrace::base::BlockOp;
use qtrace::driver::virtio::{VirtioBlk, VirtioBlkOptions};
use qtrace::driver::{BlockDriver, BlockRequest, BlockStatus, Submitted};
use qtrace::machine::Machine;

use crate::{REQUEST_BYTES, sector};

pub struct Driver(VirtioBlk);

impl Driver {
    pub fn new(machine: &mut dyn Machine) -> Self {
        Self(VirtioBlk::probe(machine, &VirtioBlkOptions::default()).expect("a disk"))
    }

    /// Reads a second.
    pub fn read(&mut self, machine: &mut dyn Machine, depth: usize, count: u64) -> f64 {
        self.run(machine, BlockOp::Read, depth, count)
    }

    /// Reads or writes a second.
    pub fn run(&mut self, machine: &mut dyn Machine, op: BlockOp, depth: usize, count: u64) -> f64 {
        let start = Instant::now();
        let (mut submitted, mut completed) = (0, 0);
        let mut done = Vec::new();
        while completed < count {
            while submitted < count && self.0.in_flight() < depth {
                self.submit(op, submitted);
                submitted += 1;
            }
            self.0.kick(machine).expect("kicked");
            self.0.wait(machine, None).expect("waited");
            self.0.reap(machine, &mut done).expect("reaped");
            for completion in done.drain(..) {
                assert_eq!(completion.status, BlockStatus::Ok);
                self.0.release(completion.buffer.expect("a buffer"));
                completed += 1;
            }
        }
        count as f64 / start.elapsed().as_secs_f64()
    }

    fn submit(&mut self, op: BlockOp, n: u64) {
        let buffer = self.0.buffer(REQUEST_BYTES as usize).expect("a buffer");
        let sectors = REQUEST_BYTES / 512;
        let request = BlockRequest { op, sector: sector(n), sectors, unmap: false };
        let queued = self.0.submit(0, n, &request, Some(buffer)).expect("submitted");
        assert_eq!(queued, Submitted::Queued);
    }

    pub fn shutdown(mut self, machine: &mut dyn Machine) {
        self.0.shutdown(machine).expect("shut down");
    }
}
