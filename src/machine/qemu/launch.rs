//! From a configuration to a machine that stands there: what is shared with QEMU, its process, its
//! first reset.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::clock::SteppedClock;
use super::config::{HarnessFds, QemuConfig, QemuDisk, Time, View};
use super::controllers::Controllers;
use super::machine::{Inner, QemuMachine, Shared};
use super::messages::Messages;
use super::probe::{self, Mode};
use super::rom;
use super::start::{Start, Started, start, stopped};
use super::waiting::Pace;
use crate::base::{Clock, Error, HostClock, Result, shell, stop};
use crate::machine::{Capabilities, GuestRam};

/// Guest RAM of a PC with the least space below its PCI hole (QEMU `hw/i386/pc_q35.c`: 2 GiB).
const RAM_BYTES_MAX: u64 = 2 << 30;
/// What it is called, and how it was started.
struct Names {
    description: String,
    command: String,
}

impl QemuMachine {
    /// Starts a QEMU.
    ///
    /// # Errors
    /// A machine error: none is here, or it does not start so, in its own words.
    pub fn new(mut config: QemuConfig) -> Result<Self> {
        if config.ram_bytes > RAM_BYTES_MAX {
            let what = format!("guest RAM of {} bytes", config.ram_bytes);
            return Err(Error::usage(what).hint("a PC has at most 2 GiB below its PCI hole"));
        }
        let controllers = match config.view {
            View::Lines => None,
            View::Controllers if config.cpus == 1 => Some(Controllers::new()?),
            View::Controllers => {
                let what = format!("interrupt controllers of {} CPUs", config.cpus);
                return Err(Error::usage(what).hint("they are seen where there is one"));
            }
        };
        let (binary, mode) = probe::choose(config.binary.as_deref(), config.mode)?;
        if config.time == Time::Stepped && mode != Mode::Qtest {
            return Err(Error::machine(format!(
                "QEMU in mode {mode} has no clock that tests move"
            ))
            .hint("clock=host, or a QEMU with the qtest accelerator"));
        }
        let ram = Arc::new(GuestRam::new(config.ram_bytes.next_multiple_of(4096))?);
        config.ram_bytes = ram.size();
        let shared = |memory: &File| {
            let fail = |e| Error::machine("guest RAM cannot be shared").source(e);
            memory.try_clone().map(OwnedFd::from).map_err(fail)
        };
        let ram_file = shared(ram.file())?;
        let messages = controllers.as_ref().map(|seen| shared(seen.file())).transpose()?;
        // A machine that runs no guest needs no firmware to be installed.
        let rom = if mode == Mode::Qtest { None } else { Some(rom::halting()?) };
        let log = config.keep.as_deref().map(|dir| create(&dir.join("qtest.log"))).transpose()?;
        let raw = |file: &File| file.as_raw_fd();
        let fds = HarnessFds {
            ram: ram_file.as_raw_fd(),
            rom: rom.as_ref().map(raw),
            messages: messages.as_ref().map(AsRawFd::as_raw_fd),
        };
        let mut args = config.machine_args(mode);
        let command = shell::join(
            std::iter::once(binary.to_string_lossy().as_ref())
                .chain(args.iter().map(String::as_str)),
        );
        args.extend(config.harness_args(mode, &fds));
        let memory = std::iter::once(ram_file).chain(messages).map(Arc::new).collect();
        let launch = Start::new(&binary, args, config.start_patience).fds(memory);
        let files = rom.into_iter().map(|file| Arc::new(OwnedFd::from(file)));
        let of_disks = config.disks.iter_mut().flat_map(|disk| std::mem::take(&mut disk.fds));
        let launch = launch.fds(files.chain(of_disks).collect());
        let mut started = start(launch)?;
        started.client.set_patience(config.patience);
        limit_workers(&config, &mut started);
        if let Some(log) = log {
            started.client.keep_log(log);
        }
        keep(&config, &command)?;
        let description = format!(
            "qemu {} {} ({mode})",
            started.qmp.version(),
            config.machine_type.as_deref().unwrap_or(config.board.name())
        );
        let names = Names { description, command };
        Self::connect(config, mode, ram, controllers, started, names)
    }

    fn connect(
        config: QemuConfig,
        mode: Mode,
        ram: Arc<GuestRam>,
        controllers: Option<Controllers>,
        started: Started,
        names: Names,
    ) -> Result<Self> {
        let Names { description, command } = names;
        let stepped = Arc::new(SteppedClock::default());
        let clock: Arc<dyn Clock> = match config.time {
            Time::Stepped => Arc::clone(&stepped) as Arc<dyn Clock>,
            Time::Host { .. } => Arc::new(HostClock::new()),
        };
        let mut capabilities = Capabilities::PIO
            | Capabilities::MMIO
            | Capabilities::MEMORY
            | Capabilities::MSIX
            | Capabilities::VIRTIO
            | Capabilities::QUEUE_EVENTS
            | Capabilities::DISK_IDS
            | Capabilities::THREADS
            | Capabilities::RESIZE;
        capabilities.set(Capabilities::TIMERS, mode != Mode::TcgPaused);
        capabilities.set(Capabilities::VIRTUAL_CLOCK, config.time == Time::Stepped);
        capabilities.set(Capabilities::INTX, controllers.is_none());
        let of_controllers = Capabilities::CPU_IRQ | Capabilities::APIC_MESSAGES;
        capabilities.set(of_controllers, controllers.is_some());
        let Started { process, client, qmp, .. } = started;
        let shared = Shared {
            clock,
            mode,
            time: config.time,
            capabilities,
            description,
            qtest_fd: client.raw_fd(),
            disks: config.disks.len(),
            has_disks: !config.disks.is_empty()
                || config.defaults.is_some()
                || !config.args.is_empty(),
            inner: Mutex::new(Inner {
                messages: Messages::new(Arc::clone(&ram)),
                controllers,
                pace: Pace::default(),
                client,
                qmp,
                process,
                stepped,
                command,
                keep: config.keep,
                end: None,
                ended: false,
                polls: 0,
            }),
            ram,
        };
        let machine = Self { shared: Arc::new(shared) };
        let mut inner = machine.lock();
        inner.prepare().map_err(|error| if stop::is_wanted() { stopped() } else { error })?;
        inner.client.heed_stop(false);
        inner.qmp.heed_stop(false);
        drop(inner);
        Ok(machine)
    }
}

/// Gives each disk's thread its number of workers. A QEMU before 7.1 has no such property: its
/// disks are only slower.
fn limit_workers(config: &QemuConfig, started: &mut Started) {
    for (index, disk) in config.disks.iter().enumerate() {
        let Some(workers) = disk.workers_max else { continue };
        let path = format!("/objects/{}", QemuDisk::thread_name(index));
        let value = json!({ "path": path, "property": "thread-pool-max", "value": workers });
        if let Err(error) = started.qmp.execute("qom-set", value) {
            tracing::debug!("{error}");
        }
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(|e| Error::incomplete("cannot be created").path(path).source(e))
}

/// Leaves the command line in the folder that was asked for.
fn keep(config: &QemuConfig, command: &str) -> Result<()> {
    use std::io::Write;
    let Some(dir) = &config.keep else { return Ok(()) };
    let path = dir.join("command");
    writeln!(create(&path)?, "{command}")
        .map_err(|e| Error::incomplete("cannot be written").path(&path).source(e))
}
