//! Requests per second against the number of test threads.

use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::NEEDS;
use super::rig::{Queue, Rig, Start, USUAL};
use crate::base::options::{OptionSpec, Options};
use crate::base::{Error, GuestAddr, Nanos, Result};
use crate::driver::virtio::queue::RawDescriptor;
use crate::driver::virtio::spec::*;
use crate::machine::Capabilities;
use crate::suite::module::Case;
use crate::suite::outcome::Outcome;
use crate::suite::setup::TestDisk;
use crate::suite::thread::TestThread;
use crate::suite::threads::THREADS_MAX;

const OPTIONS: &[OptionSpec] = &[
    option("threads", "2", "test threads: measured for 1, 2, … up to this many"),
    option("queues", "2", "request queues of the disk; thread n drives queue n modulo them"),
    option("requests", "20000", "reads of 512 bytes that each thread makes"),
    option("depth", "32", "reads that a queue holds at once, at most 256"),
];

const fn option(name: &'static str, default: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, value: "N", default, help }
}

pub(super) const CASES: [Case; 1] =
    [Case::new("scale", "requests per second for 1 to N threads, in real time", scale)
        .options(OPTIONS)
        .needs(NEEDS.union(Capabilities::THREADS))
        .real_time()];

const SCALE_DISK_BYTES: u64 = 1 << 20;

/// Chains of three descriptors in a queue of 1024.
const QUEUE_SIZE: u16 = 1024;
const DEPTH_MAX: u64 = 256;

/// Where a read of a queue's slot has its header, status and data; a cache line or more apart.
const SLOT_BYTES: u64 = 1024;
const SLOT_STATUS: u64 = 64;
const SLOT_DATA: u64 = 512;

/// Looks at a ring before the thread offers its processor to another.
const SPINS: u32 = 200;
/// How long a device may take for an answer by the machine's clock.
const PATIENCE: Nanos = Nanos(10_000_000_000);

#[derive(Clone, Copy)]
struct Plan {
    threads: usize,
    queues: u16,
    requests: u64,
    depth: u64,
}

impl Plan {
    fn of(options: &Options) -> Result<Self> {
        let plan = Self {
            threads: options.number("threads", 2)?,
            queues: options.number("queues", 2)?,
            requests: options.number("requests", 20_000)?,
            depth: options.number("depth", 32)?,
        };
        let within = |name: &str, value: u64, most: u64| {
            let valid = (1..=most).contains(&value);
            let error = || Error::usage(format!("option {name}={value}: expected 1 to {most}"));
            valid.then_some(()).ok_or_else(error)
        };
        within("threads", plan.threads as u64, THREADS_MAX as u64)?;
        within("queues", plan.queues.into(), 256)?;
        within("requests", plan.requests, u64::MAX)?;
        within("depth", plan.depth, DEPTH_MAX)?;
        Ok(plan)
    }
}

/// The disk that a measurement has to itself.
pub(super) fn disks(options: &Options) -> Result<Vec<TestDisk>> {
    let queues = Plan::of(options)?.queues;
    let disk = TestDisk::new("qtrace-scale", SCALE_DISK_BYTES);
    Ok(vec![TestDisk { queues, concurrent_queues: true, ..disk }])
}

/// A queue with memory for its reads.
struct Lane {
    queue: Queue,
    memory: GuestAddr,
}

fn scale(thread: &mut TestThread<'_>) -> Outcome {
    let plan = Plan::of(thread.options())?;
    // A server that was there before has the queues that it has.
    if thread.machine().capabilities().contains(Capabilities::VRINGS)
        && thread.machine().vrings()?.queues(0)? < plan.queues
    {
        return thread.skip("the server's disk has fewer queues: queues=1 measures one");
    }
    let features = USUAL | VIRTIO_BLK_F_MQ;
    let start = Start { queues: plan.queues, queue_size: QUEUE_SIZE, features, ..Start::default() };
    let mut rig = Rig::start(thread, start)?;
    if plan.queues > 1 && rig.device.features & VIRTIO_BLK_F_MQ == 0 {
        return thread.skip("the device does not offer several queues");
    }
    let mut lanes = Vec::new();
    for queue in std::mem::take(&mut rig.queues) {
        let memory = rig.memory(plan.depth * SLOT_BYTES)?;
        lanes.push(Mutex::new(Lane { queue, memory }));
    }
    for threads in 1..=plan.threads {
        let taken = measure(thread, &lanes, plan, threads)?;
        let requests = plan.requests.saturating_mul(threads as u64);
        let rate = requests as f64 / taken.as_secs_f64().max(1e-9);
        thread.say(format!(
            "threads {threads} queues {} depth {} requests {requests} seconds {:.6} requests_per_second {rate:.0}",
            plan.queues,
            plan.depth,
            taken.as_secs_f64()
        ));
    }
    rig.finish(thread)
}

/// From the start of the first of `threads` threads to the end of the last.
fn measure(
    thread: &mut TestThread<'_>,
    lanes: &[Mutex<Lane>],
    plan: Plan,
    threads: usize,
) -> Outcome<Duration> {
    let line = Barrier::new(threads);
    let times = thread.threads(threads, |number, thread| {
        line.wait();
        let start = Instant::now();
        let lane = lanes.get(number % lanes.len().max(1));
        let lane = lane.ok_or_else(|| Error::machine("a disk without queues"))?;
        let mut left = plan.requests;
        while left > 0 {
            let batch = left.min(plan.depth);
            let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
            lane.reads(thread, batch)?;
            left -= batch;
        }
        Ok((start, Instant::now()))
    })?;
    let first = times.iter().map(|(start, _)| *start).min();
    let last = times.iter().map(|(_, end)| *end).max();
    Ok(first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first))
}

impl Lane {
    /// `count` reads at once, each checked.
    fn reads(&mut self, thread: &mut TestThread<'_>, count: u64) -> Outcome {
        let ram = thread.ram()?;
        let mut sectors = [0; DEPTH_MAX as usize];
        for (slot, sector) in sectors.iter_mut().enumerate().take(count as usize) {
            *sector = thread.prng().below(SCALE_DISK_BYTES / 512);
            let at = self.memory + slot as u64 * SLOT_BYTES;
            ram.write(at, &u64::from(VIRTIO_BLK_T_IN).to_le_bytes());
            ram.write(at + 8, &sector.to_le_bytes());
            ram.write(at + SLOT_STATUS, &[0xff]);
            let part =
                |offset, len, flags| RawDescriptor { addr: at.0 + offset, len, flags, next: None };
            let chain = [
                part(0, 16, VIRTQ_DESC_F_NEXT),
                part(SLOT_DATA, 512, VIRTQ_DESC_F_WRITE | VIRTQ_DESC_F_NEXT),
                part(SLOT_STATUS, 1, VIRTQ_DESC_F_WRITE),
            ];
            let added = self.queue.ring.add_raw(&chain);
            added.ok_or_else(|| Error::machine("the ring is full"))?;
        }
        if self.queue.ring.publish() {
            self.queue.doorbell.ring(thread.machine())?;
        }
        self.collect(thread, count)?;
        for (slot, sector) in sectors.iter().enumerate().take(count as usize) {
            let at = self.memory + slot as u64 * SLOT_BYTES;
            let (mut status, mut got, mut want) = ([0xff], [0; 8], [0; 8]);
            ram.read(at + SLOT_STATUS, &mut status);
            thread.expect("status", status, [VIRTIO_BLK_S_OK])?;
            ram.read(at + SLOT_DATA, &mut got);
            TestDisk::pattern(sector * 512, &mut want);
            thread.expect("the sector's first bytes", got, want)?;
        }
        Ok(())
    }

    /// Takes `count` chains back.
    fn collect(&mut self, thread: &mut TestThread<'_>, count: u64) -> Outcome {
        let (mut taken, mut spins) = (0, 0);
        let end = thread.now() + PATIENCE.0;
        while taken < count {
            if self.queue.ring.pop()?.is_some() {
                (taken, spins) = (taken + 1, 0);
                continue;
            }
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else if thread.now() > end {
                return thread.failed("requests answered", count.to_string(), taken.to_string());
            } else if !thread.machine().poll()? {
                std::thread::yield_now();
            }
        }
        Ok(())
    }
}
