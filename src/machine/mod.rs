//! Machines: what stands on the other side of a driver.
//!
//! A machine offers facets, each optional and each listed in its [`Capabilities`]: a bus, guest
//! memory, interrupts, a clock. A test module says what it needs and is skipped, with the reason,
//! where the machine lacks it.

pub mod apic_messages;
pub mod builtin;
pub mod child;
pub mod obituary;
pub mod qemu;
pub mod ram;
pub mod vhost_user;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bitflags::bitflags;

use crate::base::{Clock, Error, GuestAddr, Nanos, Result};
pub use apic_messages::ApicMessage;
pub use obituary::Obituary;
pub use ram::{DeviceMemory, GuestRam};

bitflags! {
    /// The facets a machine has.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Capabilities: u32 {
        /// Port I/O.
        const PIO = 1 << 0;
        /// Memory-mapped I/O.
        const MMIO = 1 << 1;
        /// Guest RAM shared with the test thread.
        const MEMORY = 1 << 2;
        /// INTx lines as file descriptors.
        const INTX = 1 << 3;
        /// MSI-X vectors as file descriptors.
        const MSIX = 1 << 4;
        /// A clock the test moves.
        const VIRTUAL_CLOCK = 1 << 5;
        /// A CPU's interrupt pins, and the acknowledge cycle that takes a vector.
        const CPU_IRQ = 1 << 7;
        /// A vhost-user ring interface instead of a bus.
        const VRINGS = 1 << 6;
        /// Several test threads may drive it at once.
        const THREADS = 1 << 8;
        /// Its disks can be given another size while it runs.
        const RESIZE = 1 << 9;
        /// Timers that run, by whichever clock.
        const TIMERS = 1 << 10;
        /// Messages for local APICs are seen on the bus.
        const APIC_MESSAGES = 1 << 11;
        /// Virtio devices, whichever transport they have.
        const VIRTIO = 1 << 12;
        /// An event for each queue of a virtio device: MSI-X vectors, or the calls of vrings.
        const QUEUE_EVENTS = 1 << 13;
        /// Disks whose identifiers are chosen by who builds it.
        const DISK_IDS = 1 << 14;
    }
}

/// Port and memory-mapped I/O as a vCPU makes it. Sizes are 1, 2, 4 and, for MMIO, 8; values are
/// little endian in the low bits. Reads that nothing answers return all ones of the size.
pub trait Bus {
    /// `in` of `size` bytes.
    fn pio_read(&mut self, port: u16, size: u8) -> u32;
    /// `out` of `size` bytes.
    fn pio_write(&mut self, port: u16, size: u8, value: u32);
    /// A load of `size` bytes.
    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64;
    /// A store of `size` bytes.
    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64);
    /// An `out` whose effect the caller does not wait for: a doorbell. It takes effect before any
    /// later access does.
    fn pio_post(&mut self, port: u16, size: u8, value: u32) {
        self.pio_write(port, size, value);
    }
    /// A store whose effect the caller does not wait for.
    fn mmio_post(&mut self, addr: GuestAddr, size: u8, value: u64) {
        self.mmio_write(addr, size, value);
    }
}

/// An interrupt source a test can watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqSource {
    /// A legacy PCI pin as the board routes it: global interrupt number.
    Intx(u32),
    /// The INTR request of a CPU: a vector can be taken by [`Interrupts::acknowledge`].
    Intr {
        /// Number of the CPU, from 0.
        cpu: u8,
    },
    /// The NMI pin of a CPU.
    Nmi {
        /// Number of the CPU, from 0.
        cpu: u8,
    },
    /// An MSI or MSI-X message, by the address and data programmed into the device.
    Msi {
        /// Message address.
        addr: u64,
        /// Message data.
        data: u32,
    },
}

/// Interrupts as eventfds.
pub trait Interrupts {
    /// An eventfd that counts each time `source` fires (a line or pin: each rising edge; INTR once
    /// more when another request stands after a vector was taken). Calling it twice for one source
    /// gives the same descriptor.
    fn watch(&mut self, source: IrqSource) -> Result<Arc<IrqEvent>>;
    /// The level of an INTx line now.
    fn intx_level(&self, irq: u32) -> bool;
    /// The interrupt acknowledge cycle of a CPU: the vector it would enter, and `None` when no
    /// interrupt is requested. Machines without [`Capabilities::CPU_IRQ`] have none.
    fn acknowledge(&mut self, cpu: u8) -> Option<u8> {
        let _ = cpu;
        None
    }
    /// Messages for local APICs since the last call, oldest first; the first call begins to keep
    /// them. Machines without [`Capabilities::APIC_MESSAGES`] have none.
    ///
    /// # Errors
    /// More came than are kept.
    fn apic_messages(&mut self) -> Result<Vec<ApicMessage>> {
        Ok(Vec::new())
    }
    /// Where a function (its routing id) is to send the message of its `vector`, and with which
    /// data, so that it can be watched: distinct for every vector of every function. `None` where
    /// the local APIC's addresses do (see [`crate::driver::pci::msix`]).
    ///
    /// # Errors
    /// A machine that has no place left for one.
    fn message(&mut self, function: u16, vector: u16) -> Result<Option<(u64, u32)>> {
        let _ = (function, vector);
        Ok(None)
    }
}

/// Where a ring lies in guest RAM (virtio 1.2 §2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vring {
    /// Entries: a power of two, at most 32768.
    pub size: u16,
    /// Descriptor table.
    pub desc: GuestAddr,
    /// Available ring.
    pub avail: GuestAddr,
    /// Used ring.
    pub used: GuestAddr,
}

/// The rings of devices that vhost-user back-ends serve, as a front-end drives them. Devices are
/// numbered from 0.
pub trait Vrings {
    /// How many there are.
    fn devices(&self) -> usize;
    /// The name of a device in reports.
    fn name(&self, device: usize) -> String;
    /// Virtio feature bits that it offers.
    ///
    /// # Errors
    /// As all of these: no such device, a back-end that refuses, breaks the protocol, or is gone.
    fn features(&mut self, device: usize) -> Result<u64>;
    /// Takes some of them.
    fn set_features(&mut self, device: usize, features: u64) -> Result<()>;
    /// Queues that it has.
    fn queues(&mut self, device: usize) -> Result<u16>;
    /// Entries of the largest ring that back-ends are known to take.
    fn ring_size_max(&self) -> u16;
    /// Hands a ring to it, which must be stopped; what it is kicked by. It is served from
    /// `DRIVER_OK` on.
    fn set_vring(&mut self, device: usize, queue: u16, vring: &Vring) -> Result<Arc<IrqEvent>>;
    /// What counts the calls of a ring: its back-end has returned something and was to tell.
    fn call(&mut self, device: usize, queue: u16) -> Result<Arc<IrqEvent>>;
    /// The device status (virtio 1.2 §2.1), which the front-end keeps. `DEVICE_NEEDS_RESET` is set
    /// when the back-end reported an error of a ring.
    fn status(&mut self, device: usize) -> Result<u8>;
    /// Writes the status: `DRIVER_OK` starts the rings that were handed over, 0 stops all.
    fn set_status(&mut self, device: usize, status: u8) -> Result<()>;
    /// Fills `buf` from byte `offset` of its configuration.
    fn config(&mut self, device: usize, offset: u64, buf: &mut [u8]) -> Result<()>;
    /// Counts the changes of its configuration that it told of.
    fn config_generation(&mut self, device: usize) -> Result<u8>;
}

/// A request on an image of a machine's own that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoFailure {
    /// `read`, `write`.
    pub operation: String,
    /// The host's words.
    pub reason: String,
    /// There is no space left where the image is.
    pub no_space: bool,
}

/// A watched interrupt.
#[derive(Debug)]
pub struct IrqEvent(vmm_sys_util::eventfd::EventFd);

impl IrqEvent {
    /// Wraps a nonblocking eventfd.
    pub fn new() -> std::io::Result<Self> {
        let flags = libc::EFD_NONBLOCK | libc::EFD_CLOEXEC;
        vmm_sys_util::eventfd::EventFd::new(flags).map(Self)
    }

    /// Counts one interrupt. Never blocks: at the counter's end the wake-up is already pending.
    pub fn signal(&self) {
        let _ = self.0.write(1);
    }

    /// Takes the count since the last call; 0 when none came.
    pub fn take(&self) -> u64 {
        self.0.read().unwrap_or(0)
    }

    /// For poll(2): readable when the count is not 0.
    pub fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is owned by `self.0`, which the returned borrow keeps alive.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// A machine. One test thread drives it through `&mut self`.
pub trait Machine {
    /// `builtin`, `qemu`, …
    fn name(&self) -> &str;
    /// The facets it has.
    fn capabilities(&self) -> Capabilities;
    /// Port and memory-mapped I/O.
    fn bus(&mut self) -> Result<&mut dyn Bus>;
    /// The rings of vhost-user devices.
    ///
    /// # Errors
    /// A machine without [`Capabilities::VRINGS`].
    fn vrings(&mut self) -> Result<&mut dyn Vrings> {
        Err(Error::machine(format!("machine '{}' has no vhost-user devices", self.name())))
    }
    /// Guest RAM, shared: cheap to clone, keeps the mapping alive.
    fn ram(&self) -> Result<Arc<GuestRam>>;
    /// Interrupts on file descriptors.
    fn interrupts(&mut self) -> Result<&mut dyn Interrupts>;
    /// The machine's clock, host or virtual.
    fn clock(&self) -> Arc<dyn Clock>;
    /// A handle of the same machine for another test thread. The machine lives as long as any.
    ///
    /// # Errors
    /// A machine without [`Capabilities::THREADS`].
    fn another_handle(&self) -> Result<Box<dyn Machine + Send>> {
        Err(Error::machine(format!("machine '{}' is driven by one thread", self.name())))
    }
    /// Gives the `disk`-th disk another size, as whoever runs the machine may do at any time. The
    /// guest is told by a configuration change.
    ///
    /// # Errors
    /// A machine without [`Capabilities::RESIZE`], a disk that is not there, or a size that it
    /// cannot have.
    fn resize_disk(&mut self, disk: usize, bytes: u64) -> Result<()> {
        let _ = (disk, bytes);
        Err(Error::machine(format!("machine '{}' has no disks to resize", self.name())))
    }
    /// One line for reports: kind, version, mode.
    fn describe(&self) -> String {
        self.name().to_owned()
    }
    /// How it came to its end, for a machine that is a process and has ended unasked: what it did
    /// is a finding then, and no error of ours.
    fn obituary(&self) -> Option<Obituary> {
        None
    }
    /// Lets devices that run in the test thread make progress (finish image I/O, fire timers).
    /// Returns whether anything happened. Cheap when there is nothing to do.
    fn poll(&mut self) -> Result<bool>;
    /// Waits until a device can make progress, one of `fds` is readable, or the clock reaches
    /// `deadline`; then makes that progress. Under a virtual clock nothing is waited for: time
    /// steps to the next device deadline, or to `deadline`.
    ///
    /// # Errors
    /// A machine that died, or (virtual clock) no deadline and nothing that could ever happen.
    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()>;
    /// What it has to say of requests on images that it opened itself and that failed, since it
    /// was asked last: the device's answer tells nothing but that they did.
    fn io_failures(&mut self) -> Vec<IoFailure> {
        Vec::new()
    }
    /// Lets time pass towards `to`, by one step at least; devices act at their moments. The caller
    /// looks at nothing before its next access, so that a machine in another process may be told
    /// so and not be waited for.
    ///
    /// # Errors
    /// As [`Machine::wait`].
    fn advance(&mut self, to: Nanos) -> Result<()> {
        self.wait(&[], Some(to))
    }
    /// Returns when everything that was posted has taken effect and the I/O that it began is done,
    /// where that takes the host's time and not the machine's. Devices that run in the test thread
    /// have nothing under way.
    ///
    /// # Errors
    /// A machine that died.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
    /// Ends the machine in good order: when it returns, its images are flushed, closed and
    /// unlocked. Nothing can be done with it afterwards. A machine in this process just stops.
    ///
    /// # Errors
    /// It did not end, or not as it was told to.
    fn quit(&mut self) -> Result<()> {
        Ok(())
    }
}
