//! Interrupts of a virtio function: ISR status, vectors, and the need of a reset. Shared with an
//! iothread.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bits::*;
use crate::machine::builtin::pci::interrupts::PciInterrupts;

/// What a device calls when it has something to tell the driver.
pub struct VirtioInterrupts {
    pci: Arc<PciInterrupts>,
    /// ISR status. The pin changes under this lock, so that a read that clears the one cannot
    /// leave the other high.
    isr: Mutex<u8>,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
    running: AtomicBool,
    needs_reset: AtomicBool,
}

impl VirtioInterrupts {
    /// For a function with `queues` queues.
    pub fn new(pci: Arc<PciInterrupts>, queues: u16) -> Self {
        Self {
            pci,
            isr: Mutex::new(0),
            config_vector: AtomicU16::new(VIRTIO_MSI_NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(VIRTIO_MSI_NO_VECTOR)).collect(),
            running: AtomicBool::new(false),
            needs_reset: AtomicBool::new(false),
        }
    }

    fn isr(&self) -> MutexGuard<'_, u8> {
        self.isr.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue has used buffers (§4.1.5.3): its vector, or the ISR bit and the pin.
    pub fn queue(&self, index: u16) {
        if self.pci.msix_enabled() {
            let vector = self.queue_vectors.get(usize::from(index));
            self.fire(vector.map_or(VIRTIO_MSI_NO_VECTOR, |v| v.load(Ordering::Acquire)));
        } else {
            let mut isr = self.isr();
            *isr |= VIRTIO_PCI_ISR_INTR;
            self.pci.set_pin(true);
        }
    }

    /// The device cannot go on (§2.1.2). A running driver is told by a configuration change.
    pub fn set_needs_reset(&self) {
        let before = self.needs_reset.swap(true, Ordering::AcqRel);
        if !before {
            self.set_config_changed();
        }
    }

    /// The configuration is another one: a running driver is told.
    pub fn set_config_changed(&self) {
        if self.running.load(Ordering::Acquire) {
            self.config_changed();
        }
    }

    /// A configuration change notification (§4.1.5.4): the ISR bit is set with MSI-X too.
    fn config_changed(&self) {
        let mut isr = self.isr();
        *isr |= VIRTIO_PCI_ISR_CONFIG;
        if self.pci.msix_enabled() {
            self.fire(self.config_vector.load(Ordering::Acquire));
        } else {
            self.pci.set_pin(true);
        }
    }

    fn fire(&self, vector: u16) {
        if vector != VIRTIO_MSI_NO_VECTOR {
            self.pci.fire(vector);
        }
    }

    /// Whether the device is in need of a reset.
    pub fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// The driver reads ISR status: it clears, and the pin falls (§4.1.4.5).
    pub fn read_isr(&self) -> u8 {
        let mut isr = self.isr();
        self.pci.set_pin(false);
        std::mem::take(&mut *isr)
    }

    /// The driver assigned vectors.
    pub fn set_vectors(&self, config: u16, queues: impl Iterator<Item = u16>) {
        self.config_vector.store(config, Ordering::Release);
        for (cell, vector) in self.queue_vectors.iter().zip(queues) {
            cell.store(vector, Ordering::Release);
        }
    }

    /// The driver set DRIVER_OK.
    pub fn set_running(&self) {
        self.running.store(true, Ordering::Release);
    }

    /// Device reset: nothing pending, no vectors.
    pub fn reset(&self) {
        self.running.store(false, Ordering::Release);
        self.needs_reset.store(false, Ordering::Release);
        let none = std::iter::repeat(VIRTIO_MSI_NO_VECTOR);
        self.set_vectors(VIRTIO_MSI_NO_VECTOR, none);
        self.read_isr();
    }
}
