//! Bringing a virtio device up, whichever transport it has (virtio 1.2 §3.1.1).

use std::fmt::Display;
use std::time::{Duration, Instant};

use super::irq::Interrupts;
use super::queue::{QueueLayout, SplitQueue};
use super::spec::{
    ACKNOWLEDGE, DEVICE_NEEDS_RESET, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, VIRTIO_F_EVENT_IDX,
    VIRTIO_F_VERSION_1, VIRTQ_SIZE_MAX,
};
use super::transport::{DeviceTransport, Doorbell};
use super::{CompletionMode, Transport, on_pci, on_vrings};
use crate::base::{Error, Result};
use crate::driver::alloc::PageAllocator;
use crate::driver::pci::Function;
use crate::machine::{Capabilities, Machine};

/// How long a device may take for a reset; it has to let go of its I/O first.
pub(super) const RESET_PATIENCE: Duration = Duration::from_secs(10);

/// Reads of a configuration that changes under the driver's eyes before it is called a lie.
const CONFIG_READS_MAX: usize = 64;

/// A virtio device with a driver on it.
pub struct VirtioDevice {
    /// The way to it.
    pub transport: Box<dyn DeviceTransport>,
    /// Its interrupts.
    pub interrupts: Interrupts,
    /// What was negotiated.
    pub features: u64,
}

/// Which device is wanted, and how it is to be driven.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// PCI device ids of its kind.
    pub ids: &'a [u16],
    /// Which of the machine's devices of the kind.
    pub index: usize,
    /// Register interface, on PCI.
    pub transport: Transport,
    /// How completions are learnt of.
    pub completion: CompletionMode,
    /// How many queues the driver will use at most.
    pub queues: u16,
}

impl VirtioDevice {
    /// Finds the device, by the vhost-user connection that the machine has, or else on its PCI
    /// bus; resets it, and enables it and its interrupts.
    ///
    /// # Errors
    /// A machine error when there is none, or it lies about itself.
    pub fn open(machine: &mut dyn Machine, wanted: Wanted<'_>) -> Result<Self> {
        let (transport, interrupts) = match machine.capabilities().contains(Capabilities::VRINGS) {
            true => on_vrings::open(machine, wanted)?,
            false => on_pci::open(machine, wanted)?,
        };
        Ok(Self { transport, interrupts, features: 0 })
    }

    /// Its name in reports: `00:04.0 1af4:1001`.
    pub fn name(&self) -> String {
        self.transport.name()
    }

    /// A machine error about it.
    pub fn error(&self, what: impl Display) -> Error {
        self.transport.error(&what)
    }

    /// The PCI function.
    ///
    /// # Errors
    /// It is none.
    pub fn function(&self) -> Result<&Function> {
        self.transport.function().ok_or_else(|| self.error("is no PCI function"))
    }

    /// Steps 2 to 6 of §3.1.1: acknowledges the device and agrees on `wanted` ∩ offered.
    ///
    /// # Errors
    /// A device that does not take the features.
    pub fn negotiate(&mut self, machine: &mut dyn Machine, wanted: u64) -> Result<()> {
        let legacy = self.transport.is_legacy();
        self.transport.set_status(machine, ACKNOWLEDGE)?;
        self.transport.set_status(machine, ACKNOWLEDGE | DRIVER)?;
        let offered = self.transport.device_features(machine)?;
        if !legacy && offered & VIRTIO_F_VERSION_1 == 0 {
            return Err(self.error("its modern interface does not offer VIRTIO_F_VERSION_1"));
        }
        self.features = offered & wanted;
        self.transport.set_driver_features(machine, self.features)?;
        if legacy {
            return Ok(()); // FEATURES_OK came with 1.0
        }
        self.transport.set_status(machine, ACKNOWLEDGE | DRIVER | FEATURES_OK)?;
        if self.transport.status(machine)? & FEATURES_OK == 0 {
            return Err(self.error(format_args!(
                "does not take the features {:#x} of the {offered:#x} it offers",
                self.features
            )));
        }
        Ok(())
    }

    /// Reads the device configuration with `fields`, again until no change came between (§2.5.1),
    /// which a legacy device shows only by two equal readings.
    ///
    /// # Errors
    /// A configuration that is too short for the fields, or never settles.
    pub fn read_config<T: PartialEq>(
        &mut self,
        machine: &mut dyn Machine,
        fields: impl Fn(&mut ConfigReader<'_>) -> T,
    ) -> Result<T> {
        let (msix, len) = (self.interrupts.is_msix(), self.config_len());
        let mut former = None;
        for _ in 0..CONFIG_READS_MAX {
            let generation = self.transport.config_generation(machine)?;
            let transport = &mut *self.transport;
            let mut reader =
                ConfigReader { machine: &mut *machine, transport, msix, len, failed: None };
            let config = fields(&mut reader);
            match reader.failed {
                Some(Unread::Short) => {
                    return Err(self.error(format_args!(
                        "its configuration of {len} bytes is too short for its features {:#x}",
                        self.features
                    )));
                }
                Some(Unread::Failed(error)) => return Err(error),
                None => {}
            }
            let same = self.transport.config_generation(machine)? == generation;
            let again = former.as_ref() == Some(&config);
            if same && (again || !self.transport.is_legacy()) {
                return Ok(config);
            }
            former = Some(config);
        }
        Err(self.error("its configuration changes whenever it is read"))
    }

    /// Bytes of the device configuration.
    fn config_len(&self) -> u64 {
        self.transport.config_len(self.interrupts.is_msix())
    }

    /// Sets up queue `index` with at most `size` entries (0: as many as the device has).
    ///
    /// # Errors
    /// A queue that is not there, or memory that is used up.
    pub fn queue(
        &mut self,
        machine: &mut dyn Machine,
        pool: &mut PageAllocator,
        index: u16,
        size: u16,
    ) -> Result<(SplitQueue, Doorbell)> {
        let offered = self.transport.queue_size_max(machine, index)?;
        if offered == 0 {
            return Err(self.error(format_args!("has no queue {index}")));
        }
        let size = self.queue_size(index, offered, size)?;
        let layout = QueueLayout::new(pool.permanent(QueueLayout::bytes(size))?, size);
        let event_idx = self.features & VIRTIO_F_EVENT_IDX != 0;
        let queue = SplitQueue::new(pool.ram(), layout, event_idx)?;
        let vector = self.interrupts.vector(index);
        let doorbell = self.transport.queue_setup(machine, index, &layout, vector)?;
        Ok((queue, doorbell))
    }

    /// The size of a queue: a power of two, at most what the device offers and what is wanted.
    fn queue_size(&self, index: u16, offered: u16, wanted: u16) -> Result<u16> {
        let lie = || self.error(format_args!("queue {index} has the size {offered}"));
        if !self.transport.queue_size_is_ours() {
            let valid = offered.is_power_of_two() && offered <= VIRTQ_SIZE_MAX;
            return if valid { Ok(offered) } else { Err(lie()) };
        }
        let limit = if wanted == 0 { offered } else { wanted.min(offered) };
        Ok(1 << limit.min(VIRTQ_SIZE_MAX).ilog2())
    }

    /// Step 8: the device is live.
    ///
    /// # Errors
    /// A device that says at once that it needs a reset.
    pub fn driver_ok(&mut self, machine: &mut dyn Machine) -> Result<()> {
        let features_ok = if self.transport.is_legacy() { 0 } else { FEATURES_OK };
        self.transport.set_status(machine, ACKNOWLEDGE | DRIVER | features_ok | DRIVER_OK)?;
        self.check_alive(machine)
    }

    /// An error when the device has given up (`DEVICE_NEEDS_RESET`) or forgotten its driver.
    ///
    /// # Errors
    /// As said.
    pub fn check_alive(&mut self, machine: &mut dyn Machine) -> Result<()> {
        let status = self.transport.status(machine)?;
        if status & DEVICE_NEEDS_RESET != 0 && status != u8::MAX {
            return Err(self.error(format_args!(
                "reports DEVICE_NEEDS_RESET (status {status:#04x}): it met an error it cannot recover from"
            )));
        }
        if status & DRIVER_OK == 0 || status == u8::MAX {
            return Err(self.error(format_args!(
                "lost its driver: its status reads {status:#04x} without a reset by us"
            )));
        }
        Ok(())
    }

    /// Tells the device that the driver gave up on it, and takes guest RAM away from it: the memory
    /// it was shown is no longer its own.
    ///
    /// # Errors
    /// A machine that is gone.
    pub fn fail(&mut self, machine: &mut dyn Machine) -> Result<()> {
        let status = self.transport.status(machine)?;
        self.transport.set_status(machine, status | FAILED)?;
        self.transport.detach(machine)
    }

    /// Resets the device and takes guest RAM away from it.
    ///
    /// # Errors
    /// A device that does not finish its reset.
    pub fn shutdown(&mut self, machine: &mut dyn Machine) -> Result<()> {
        let done = reset(machine, &mut *self.transport, RESET_PATIENCE);
        self.interrupts.shutdown(machine, self.transport.function())?;
        self.transport.detach(machine)?;
        done
    }
}

impl std::fmt::Debug for VirtioDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtioDevice")
            .field("name", &self.name())
            .field("legacy", &self.transport.is_legacy())
            .field("features", &format_args!("{:#x}", self.features))
            .finish_non_exhaustive()
    }
}

/// Reads fields of a device configuration, each with the width it has (§4.1.3.1).
pub struct ConfigReader<'a> {
    machine: &'a mut dyn Machine,
    transport: &'a mut dyn DeviceTransport,
    msix: bool,
    len: u64,
    failed: Option<Unread>,
}

/// Why a field could not be read.
enum Unread {
    /// It lies past the end.
    Short,
    Failed(Error),
}

impl ConfigReader<'_> {
    /// An 8-bit field.
    pub fn u8(&mut self, offset: u64) -> u8 {
        self.field(offset, 1) as u8
    }

    /// A 16-bit field.
    pub fn u16(&mut self, offset: u64) -> u16 {
        self.field(offset, 2) as u16
    }

    /// A 32-bit field.
    pub fn u32(&mut self, offset: u64) -> u32 {
        self.field(offset, 4)
    }

    /// A 64-bit field, in two halves.
    pub fn u64(&mut self, offset: u64) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset + 4)) << 32
    }

    fn field(&mut self, offset: u64, size: u8) -> u32 {
        let within = offset.checked_add(size.into()).is_some_and(|end| end <= self.len);
        let field = match (&self.failed, within) {
            (Some(_), _) => return u32::MAX,
            (None, false) => Err(Unread::Short),
            (None, true) => self
                .transport
                .config_field(self.machine, self.msix, offset, size)
                .map_err(Unread::Failed),
        };
        field.unwrap_or_else(|why| {
            self.failed = Some(why);
            u32::MAX
        })
    }
}

/// Writes status 0 and waits until the device reads back 0 (§4.1.4.3.2). A device that runs in
/// this thread is given time by polling the machine, one with its own thread by yielding.
pub(super) fn reset(
    machine: &mut dyn Machine,
    transport: &mut dyn DeviceTransport,
    patience: Duration,
) -> Result<()> {
    transport.set_status(machine, 0)?;
    let start = Instant::now();
    loop {
        let status = transport.status(machine)?;
        if status == 0 {
            return Ok(());
        }
        if start.elapsed() > patience {
            let what =
                if status == u8::MAX { "does not answer" } else { "does not finish its reset" };
            return Err(transport.error(&format_args!(
                "{what}: its status reads {status:#04x} after {patience:?}"
            )));
        }
        if !machine.poll()? {
            std::thread::yield_now();
        }
    }
}
