//! A QEMU as a [`Machine`].

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use serde_json::{Value, json};

use super::client::{Client, Failure};
use super::clock::SteppedClock;
use super::command::{Command, Size};
use super::config::{QemuDisk, Time};
use super::controllers::{self, Controllers};
use super::messages::Messages;
use super::probe::Mode;
use super::waiting::Pace;
use crate::base::{Clock, Error, GuestAddr, Nanos, Result};
use crate::machine::child::qmp::{Event, Qmp};
use crate::machine::child::{Lost, Process, ending};
use crate::machine::obituary::Obituary;
use crate::machine::{
    ApicMessage, Bus, Capabilities, GuestRam, Interrupts, IoFailure, IrqEvent, IrqSource, Machine,
};

/// How long it may take to write its images out when asked to quit.
const QUIT_PATIENCE: Duration = Duration::from_secs(600);
/// All ones of any size.
const ONES: u64 = u64::MAX;

/// A handle of a QEMU; several test threads may drive it, each through its own clone. QEMU ends
/// with the last of them.
#[derive(Clone)]
pub struct QemuMachine {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub inner: Mutex<Inner>,
    pub clock: Arc<dyn Clock>,
    pub ram: Arc<GuestRam>,
    pub mode: Mode,
    pub time: Time,
    pub capabilities: Capabilities,
    pub description: String,
    /// For waiting without the lock.
    pub qtest_fd: i32,
    pub disks: usize,
    pub has_disks: bool,
}

pub(super) struct Inner {
    pub client: Client,
    pub qmp: Qmp,
    pub messages: Messages,
    pub controllers: Option<Controllers>,
    pub pace: Pace,
    pub process: Process,
    pub stepped: Arc<SteppedClock>,
    pub command: String,
    pub keep: Option<PathBuf>,
    pub end: Option<Obituary>,
    pub ended: bool,
    pub polls: u32,
}

impl QemuMachine {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A thread that panicked was in one command; its answer is read by the next.
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has disks, whose I/O takes the host's time: ours, or any of the user's.
    pub(super) fn has_disks(&self) -> bool {
        self.shared.has_disks
    }

    /// The number of QEMU's process.
    pub fn process_id(&self) -> u32 {
        self.lock().process.id()
    }

    /// Uses the qtest connection as it is.
    ///
    /// # Errors
    /// Those of the commands, or QEMU is gone.
    pub fn qtest<T>(&self, work: impl FnOnce(&mut Client) -> Result<T, Failure>) -> Result<T> {
        self.lock().with(work)
    }

    /// Runs a monitor command.
    ///
    /// # Errors
    /// QEMU refused it, or is gone.
    pub fn qmp(&self, command: &str, arguments: serde_json::Value) -> Result<serde_json::Value> {
        self.lock().monitor(command, arguments)
    }
}

impl Inner {
    pub fn monitor(
        &mut self,
        command: &str,
        arguments: serde_json::Value,
    ) -> Result<serde_json::Value> {
        self.alive()?;
        self.qmp.execute(command, arguments).map_err(|error| match self.qmp.take_lost() {
            Some(lost) => self.bury(Some(lost)),
            None => error,
        })
    }

    /// An error when QEMU is gone.
    pub fn alive(&self) -> Result<()> {
        match &self.end {
            Some(end) => Err(Error::machine(end.summary())),
            None if self.ended => Err(Error::machine("the QEMU was quit")),
            None => Ok(()),
        }
    }

    /// Does something with the client unless QEMU is gone.
    pub fn with<T>(&mut self, work: impl FnOnce(&mut Client) -> Result<T, Failure>) -> Result<T> {
        self.alive()?;
        let result = work(&mut self.client);
        if let Some(seen) = &mut self.controllers {
            seen.look();
        }
        result.map_err(|failure| self.failed(failure))
    }

    /// What a failure means.
    pub fn failed(&mut self, failure: Failure) -> Error {
        match failure {
            Failure::Lost(lost) => self.bury(Some(lost)),
            other => other.into(),
        }
    }

    /// QEMU is lost: sees how it ended, or ends it.
    fn bury(&mut self, lost: Option<Lost>) -> Error {
        if let Some(end) = &self.end {
            return Error::machine(end.summary());
        }
        let what = ending::of(&mut self.process, lost);
        let obituary = Obituary {
            program: "QEMU".to_owned(),
            what,
            stderr: self.process.stderr(),
            last_commands: self.client.history(),
            command: self.command.clone(),
        };
        let error = Error::machine(obituary.summary());
        self.end = Some(obituary);
        self.keep_stderr();
        error
    }

    fn keep_stderr(&self) {
        if let Some(dir) = &self.keep {
            // The report has it too: what cannot be written here is not lost.
            let _ = std::fs::write(dir.join("stderr"), self.process.stderr());
        }
    }

    fn io_failures(&mut self) -> Vec<IoFailure> {
        // One that is gone has said what it had to say.
        let _ = self.qmp.drain();
        self.qmp.take_events().iter().filter_map(io_failure).collect()
    }

    fn quit(&mut self) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.alive()?;
        let settled = self.client.settle();
        settled.map_err(|failure| self.failed(failure))?;
        // Its answer and its end may come in either order.
        let told = self.qmp.tell("quit");
        let status = self.process.wait(QUIT_PATIENCE);
        match status {
            Some(status) if status.success() && told.is_ok() => {
                self.ended = true;
                self.keep_stderr();
                Ok(())
            }
            Some(_) => Err(self.bury(None)),
            None => Err(self.bury(Some(Lost::Silent(QUIT_PATIENCE)))),
        }
    }

    /// Looks at what came in; whether an interrupt did.
    pub fn look(&mut self) -> Result<bool> {
        let lines = self.with(Client::drain)?;
        Ok(self.messages.look() | lines)
    }
}

/// What a host without space says. The event's own `nospace` is set only where that stops the
/// machine.
const NO_SPACE: [Errno; 3] = [Errno::ENOSPC, Errno::EDQUOT, Errno::EFBIG];

/// `BLOCK_IO_ERROR` of `qapi/block-core.json`. Its reason is strerror(3)'s, in no language but the
/// library's own: QEMU sets none.
fn io_failure(event: &Event) -> Option<IoFailure> {
    let text = |key: &str| event.data.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    (event.name == "BLOCK_IO_ERROR").then(|| {
        let (operation, reason) = (text("operation"), text("reason"));
        let no_space = NO_SPACE.iter().any(|errno| errno.desc() == reason);
        IoFailure { operation, reason, no_space }
    })
}

impl Bus for QemuMachine {
    // An access to a QEMU that is gone reads as a bus that nobody drives; whoever made it learns
    // of the end by the next `bus`, `poll` or `wait`.
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        let command = Command::In(port, Size::of(size));
        self.lock().with(|client| client.value(&command)).unwrap_or(ONES) as u32
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        let command = Command::Out(port, Size::of(size), value);
        let _ = self.lock().with(|client| client.order(&command));
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        let size = Size::of(size);
        let command = Command::Load(addr.0, size);
        self.lock().with(|client| client.value(&command)).unwrap_or(ONES) & size.ones()
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        let command = Command::Store(addr.0, Size::of(size), value);
        let _ = self.lock().with(|client| client.order(&command));
    }

    fn pio_post(&mut self, port: u16, size: u8, value: u32) {
        let command = Command::Out(port, Size::of(size), value);
        let mut inner = self.lock();
        inner.pace.kicked();
        let _ = inner.with(|client| client.post(&command));
    }

    fn mmio_post(&mut self, addr: GuestAddr, size: u8, value: u64) {
        let command = Command::Store(addr.0, Size::of(size), value);
        let mut inner = self.lock();
        inner.pace.kicked();
        let _ = inner.with(|client| client.post(&command));
    }
}

impl Interrupts for QemuMachine {
    fn watch(&mut self, source: IrqSource) -> Result<Arc<IrqEvent>> {
        let mut inner = self.lock();
        inner.look()?;
        match source {
            IrqSource::Intr { cpu: 0 } if inner.controllers.is_some() => {
                inner.client.lines().watch(controllers::INTR)
            }
            IrqSource::Intx(line) if inner.controllers.is_some() => {
                let what = format!("interrupt line {line}: this QEMU reports INTR");
                Err(Error::machine(what))
            }
            IrqSource::Intx(line) => inner.client.lines().watch(line),
            IrqSource::Msi { addr, data } => inner.messages.watch(addr, data),
            IrqSource::Intr { .. } | IrqSource::Nmi { .. } => {
                Err(Error::machine("QEMU does not tell of a CPU's interrupt pins"))
            }
        }
    }

    fn intx_level(&self, irq: u32) -> bool {
        let mut inner = self.lock();
        // Whether it is gone is told by the next access.
        let _ = inner.look();
        inner.controllers.is_none() && inner.client.lines().level(irq)
    }

    fn acknowledge(&mut self, cpu: u8) -> Option<u8> {
        let mut inner = self.lock();
        inner.look().ok()?;
        if cpu != 0 || !inner.client.lines().level(controllers::INTR) {
            return None;
        }
        let mut seen = inner.controllers.take()?;
        let before = inner.client.lines().changes();
        let vector = inner.with(|client| seen.acknowledge(client));
        inner.controllers = Some(seen);
        let lines = inner.client.lines();
        if lines.level(controllers::INTR) && lines.changes() == before {
            lines.again(controllers::INTR);
        }
        vector.ok().flatten()
    }

    fn apic_messages(&mut self) -> Result<Vec<ApicMessage>> {
        let mut inner = self.lock();
        inner.look()?;
        inner.controllers.as_mut().map_or(Ok(Vec::new()), Controllers::take)
    }

    fn message(&mut self, function: u16, vector: u16) -> Result<Option<(u64, u32)>> {
        match self.lock().messages.message(function, vector) {
            Some(message) => Ok(Some(message)),
            None => Err(Error::machine("no more words of guest RAM for interrupt messages")),
        }
    }
}

impl Machine for QemuMachine {
    fn name(&self) -> &str {
        "qemu"
    }

    fn describe(&self) -> String {
        self.shared.description.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        self.lock().alive()?;
        Ok(self)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        Ok(Arc::clone(&self.shared.ram))
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        self.lock().look()?;
        Ok(self)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.shared.clock)
    }

    fn another_handle(&self) -> Result<Box<dyn Machine + Send>> {
        Ok(Box::new(self.clone()))
    }

    fn resize_disk(&mut self, disk: usize, bytes: u64) -> Result<()> {
        if disk >= self.shared.disks {
            return Err(Error::machine(format!("there is no disk {disk} to resize")));
        }
        let node = QemuDisk::node_name(disk);
        self.qmp("block_resize", json!({ "node-name": node, "size": bytes })).map(|_| ())
    }

    fn io_failures(&mut self) -> Vec<IoFailure> {
        self.lock().io_failures()
    }

    fn quit(&mut self) -> Result<()> {
        self.lock().quit()
    }

    fn obituary(&self) -> Option<Obituary> {
        self.lock().end.clone()
    }

    fn poll(&mut self) -> Result<bool> {
        /// A driver that spins asks very often, and each look at the socket is a system call.
        const LOOKS: u32 = 16;
        let mut inner = self.lock();
        inner.polls = inner.polls.wrapping_add(1);
        if self.shared.time == Time::Stepped || inner.polls.is_multiple_of(LOOKS) {
            return inner.look();
        }
        inner.alive()?;
        Ok(inner.messages.look())
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        self.wait_for(fds, deadline)
    }

    fn advance(&mut self, to: Nanos) -> Result<()> {
        match self.shared.time {
            Time::Stepped => self.lock().post_step(to),
            Time::Host { .. } => self.wait_for(&[], Some(to)),
        }
    }

    fn settle(&mut self) -> Result<()> {
        let has_disks = self.has_disks();
        self.lock().settle(has_disks)
    }
}
