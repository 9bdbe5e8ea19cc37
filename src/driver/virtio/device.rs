//! Finding a virtio PCI function and bringing it up (virtio 1.2 §3.1.1).

use std::time::{Duration, Instant};

use super::irq::Interrupts;
use super::legacy::Legacy;
use super::modern::Modern;
use super::queue::{QueueLayout, SplitQueue};
use super::spec::{
    ACKNOWLEDGE, DEVICE_NEEDS_RESET, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, VIRTIO_F_EVENT_IDX,
    VIRTIO_F_VERSION_1, VIRTIO_PCI_VENDOR, VIRTQ_SIZE_MAX,
};
use super::transport::{DeviceTransport, Doorbell};
use super::{CompletionMode, Transport};
use crate::base::{Error, GuestAddr, Result};
use crate::driver::alloc::PageAllocator;
use crate::driver::pci::caps;
use crate::driver::pci::function::COMMAND_MASTER;
use crate::driver::pci::{ConfigAccess, Function, Window, enumerate, scan};
use crate::machine::{Bus, Capabilities, Machine};

/// How long a device may take for a reset; it has to let go of its I/O first.
const RESET_PATIENCE: Duration = Duration::from_secs(10);

/// Reads of a configuration that changes under the driver's eyes before it is called a lie.
const CONFIG_READS_MAX: usize = 64;

/// Where q35 firmware puts memory-mapped configuration space; used on machines without ports.
const ECAM_BASE: GuestAddr = GuestAddr(0xb000_0000);

/// A virtio device on PCI with a driver on it.
pub struct VirtioDevice {
    /// The PCI function.
    pub function: Function,
    /// Its registers.
    pub transport: Box<dyn DeviceTransport>,
    /// Its interrupts.
    pub interrupts: Interrupts,
    /// What was negotiated.
    pub features: u64,
}

impl VirtioDevice {
    /// Finds the `index`-th function with one of the device ids `ids`, enables it and its
    /// interrupts. `queues` is how many the driver will use at most.
    ///
    /// # Errors
    /// A machine error when there is none, or it lies about itself.
    pub fn open(
        machine: &mut dyn Machine,
        (ids, index): (&[u16], usize),
        transport: Transport,
        completion: CompletionMode,
        queues: u16,
    ) -> Result<Self> {
        let pio = machine.capabilities().contains(Capabilities::PIO);
        let access = if pio { ConfigAccess::Ports } else { ConfigAccess::Ecam(ECAM_BASE) };
        let bus = machine.bus()?;
        let found = enumerate(bus, access)?;
        let function = found
            .iter()
            .filter(|f| f.vendor == VIRTIO_PCI_VENDOR && ids.contains(&f.device))
            .nth(index)
            .ok_or_else(|| scan::missing("virtio device of this kind", index, &found))?
            .clone();
        function.enable(bus)?;
        let capabilities = caps::list(bus, &function)?;
        let mut transport: Box<dyn DeviceTransport> = match transport {
            Transport::Legacy => boxed(Legacy::find(&function)?),
            Transport::Modern => boxed(Modern::find(bus, &function, &capabilities)?),
            Transport::Auto => match boxed(Modern::find(bus, &function, &capabilities)?) {
                None => boxed(Legacy::find(&function)?),
                modern => modern,
            },
        }
        .ok_or_else(|| function.error(format_args!("has no {transport:?} virtio interface")))?;
        // Whatever drove it before must not raise interrupts any more when they are set up.
        reset(machine, &function, &mut *transport, RESET_PATIENCE)?;
        let interrupts = match completion {
            CompletionMode::Poll => Interrupts::polled(machine.bus()?, &function),
            CompletionMode::Interrupt => {
                Interrupts::wired(machine, &function, &capabilities, queues)?
            }
        };
        Ok(Self { function, transport, interrupts, features: 0 })
    }

    /// Steps 2 to 6 of §3.1.1: acknowledges the device and agrees on `wanted` ∩ offered.
    ///
    /// # Errors
    /// A device that does not take the features.
    pub fn negotiate(&mut self, bus: &mut dyn Bus, wanted: u64) -> Result<()> {
        let legacy = self.transport.is_legacy();
        self.transport.set_status(bus, ACKNOWLEDGE);
        self.transport.set_status(bus, ACKNOWLEDGE | DRIVER);
        let offered = self.transport.device_features(bus);
        if !legacy && offered & VIRTIO_F_VERSION_1 == 0 {
            return Err(self
                .function
                .error("its modern interface does not offer VIRTIO_F_VERSION_1"));
        }
        self.features = offered & wanted;
        self.transport.set_driver_features(bus, self.features);
        if legacy {
            return Ok(()); // FEATURES_OK came with 1.0
        }
        self.transport.set_status(bus, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        if self.transport.status(bus) & FEATURES_OK == 0 {
            return Err(self.function.error(format_args!(
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
        bus: &mut dyn Bus,
        fields: impl Fn(&mut ConfigReader<'_>) -> T,
    ) -> Result<T> {
        let window = self.transport.config(self.interrupts.is_msix());
        let mut former = None;
        for _ in 0..CONFIG_READS_MAX {
            let generation = self.transport.config_generation(bus);
            let mut reader = ConfigReader { bus, window, short: false };
            let config = fields(&mut reader);
            if reader.short {
                return Err(self.function.error(format_args!(
                    "its configuration of {} bytes is too short for its features {:#x}",
                    window.len(),
                    self.features
                )));
            }
            let same = self.transport.config_generation(bus) == generation;
            let again = former.as_ref() == Some(&config);
            if same && (again || !self.transport.is_legacy()) {
                return Ok(config);
            }
            former = Some(config);
        }
        Err(self.function.error("its configuration changes whenever it is read"))
    }

    /// Sets up queue `index` with at most `size` entries (0: as many as the device has).
    ///
    /// # Errors
    /// A queue that is not there, or memory that is used up.
    pub fn queue(
        &mut self,
        bus: &mut dyn Bus,
        pool: &mut PageAllocator,
        index: u16,
        size: u16,
    ) -> Result<(SplitQueue, Doorbell)> {
        let offered = self.transport.queue_size_max(bus, index);
        if offered == 0 {
            return Err(self.function.error(format_args!("has no queue {index}")));
        }
        let size = self.queue_size(index, offered, size)?;
        let layout = QueueLayout::new(pool.permanent(QueueLayout::bytes(size))?, size);
        let event_idx = self.features & VIRTIO_F_EVENT_IDX != 0;
        let queue = SplitQueue::new(pool.ram(), layout, event_idx)?;
        let vector = self.interrupts.vector(index);
        let doorbell = self.transport.queue_setup(bus, index, &layout, vector)?;
        Ok((queue, doorbell))
    }

    /// The size of a queue: a power of two, at most what the device offers and what is wanted.
    fn queue_size(&self, index: u16, offered: u16, wanted: u16) -> Result<u16> {
        let lie = || self.function.error(format_args!("queue {index} has the size {offered}"));
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
    pub fn driver_ok(&mut self, bus: &mut dyn Bus) -> Result<()> {
        let features_ok = if self.transport.is_legacy() { 0 } else { FEATURES_OK };
        self.transport.set_status(bus, ACKNOWLEDGE | DRIVER | features_ok | DRIVER_OK);
        self.check_alive(bus)
    }

    /// An error when the device has given up (`DEVICE_NEEDS_RESET`) or forgotten its driver.
    ///
    /// # Errors
    /// As said.
    pub fn check_alive(&mut self, bus: &mut dyn Bus) -> Result<()> {
        let status = self.transport.status(bus);
        if status & DEVICE_NEEDS_RESET != 0 && status != u8::MAX {
            return Err(self.function.error(format_args!(
                "reports DEVICE_NEEDS_RESET (status {status:#04x}): it met an error it cannot recover from"
            )));
        }
        if status & DRIVER_OK == 0 || status == u8::MAX {
            return Err(self.function.error(format_args!(
                "lost its driver: its status reads {status:#04x} without a reset by us"
            )));
        }
        Ok(())
    }

    /// Tells the device that the driver gave up on it, and takes the bus away from it: the memory
    /// it was shown is no longer its own.
    pub fn fail(&mut self, bus: &mut dyn Bus) {
        let status = self.transport.status(bus);
        self.transport.set_status(bus, status | FAILED);
        self.function.command(bus, 0, COMMAND_MASTER);
    }

    /// Resets the device and takes the bus away from it.
    ///
    /// # Errors
    /// A device that does not finish its reset.
    pub fn shutdown(&mut self, machine: &mut dyn Machine) -> Result<()> {
        let done = reset(machine, &self.function, &mut *self.transport, RESET_PATIENCE);
        let bus = machine.bus()?;
        self.interrupts.shutdown(bus, &self.function);
        self.function.command(bus, 0, COMMAND_MASTER);
        done
    }
}

impl std::fmt::Debug for VirtioDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtioDevice")
            .field("function", &self.function.name())
            .field("legacy", &self.transport.is_legacy())
            .field("features", &format_args!("{:#x}", self.features))
            .finish_non_exhaustive()
    }
}

/// Reads fields of a device configuration, each with the width it has (§4.1.3.1).
pub struct ConfigReader<'a> {
    bus: &'a mut dyn Bus,
    window: Window,
    short: bool,
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
        self.short |= !self.window.contains(offset, u64::from(size));
        self.window.read(self.bus, offset, size)
    }
}

fn boxed<T: DeviceTransport + 'static>(found: Option<T>) -> Option<Box<dyn DeviceTransport>> {
    found.map(|transport| Box::new(transport) as Box<dyn DeviceTransport>)
}

/// Writes status 0 and waits until the device reads back 0 (§4.1.4.3.2). A device that runs in
/// this thread is given time by polling the machine, one with its own thread by yielding.
pub(super) fn reset(
    machine: &mut dyn Machine,
    function: &Function,
    transport: &mut dyn DeviceTransport,
    patience: Duration,
) -> Result<()> {
    transport.set_status(machine.bus()?, 0);
    let start = Instant::now();
    loop {
        let status = transport.status(machine.bus()?);
        if status == 0 {
            return Ok(());
        }
        if start.elapsed() > patience {
            return Err(reset_failed(function, status, patience));
        }
        if !machine.poll()? {
            std::thread::yield_now();
        }
    }
}

fn reset_failed(function: &Function, status: u8, patience: Duration) -> Error {
    let what = if status == u8::MAX { "does not answer" } else { "does not finish its reset" };
    function.error(format_args!("{what}: its status reads {status:#04x} after {patience:?}"))
}
