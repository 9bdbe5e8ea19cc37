//! The virtio 1.x PCI transport (§4.1): structures found through vendor capabilities.

use std::fmt::Display;

use super::queue::QueueLayout;
use super::spec::VIRTIO_MSI_NO_VECTOR;
use super::transport::{DeviceTransport, Doorbell};
use crate::base::{Error, Result};
use crate::driver::pci::caps::{CAP_ID_VENDOR, Capability};
use crate::driver::pci::function::COMMAND_MASTER;
use crate::driver::pci::{Function, Window};
use crate::machine::{Bus, Machine};

/// `cfg_type` of a vendor capability (§4.1.4).
const VIRTIO_PCI_CAP_COMMON_CFG: u8 = 1;
const VIRTIO_PCI_CAP_NOTIFY_CFG: u8 = 2;
const VIRTIO_PCI_CAP_ISR_CFG: u8 = 3;
const VIRTIO_PCI_CAP_DEVICE_CFG: u8 = 4;

/// Offsets in a vendor capability (§4.1.4).
mod cap {
    pub const CFG_TYPE: u16 = 3;
    pub const BAR: u16 = 4;
    pub const OFFSET: u16 = 8;
    pub const LENGTH: u16 = 12;
    /// `notify_off_multiplier` of the notification capability.
    pub const NOTIFY_OFF_MULTIPLIER: u16 = 16;
}

/// Offsets in the common configuration structure (§4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    /// Bytes up to `queue_device`'s end: what every 1.x device has.
    pub const BYTES: u64 = 0x38;
}

/// The structures of a modern device.
#[derive(Debug)]
pub struct Modern {
    function: Function,
    common: Window,
    notify: Window,
    notify_off_multiplier: u32,
    isr: Window,
    device: Window,
}

impl Modern {
    /// The modern interface of `function`, or `None` when it has no common configuration.
    ///
    /// # Errors
    /// A machine error when a structure is missing, too short, or outside its BAR.
    pub fn find(
        bus: &mut dyn Bus,
        function: &Function,
        capabilities: &[Capability],
    ) -> Result<Option<Self>> {
        let mut find = |cfg_type| Structure::find(bus, function, capabilities, cfg_type);
        let Some(common) = find(VIRTIO_PCI_CAP_COMMON_CFG) else {
            return Ok(None);
        };
        let missing = |what| function.error(format_args!("has no virtio {what} structure"));
        let notify = find(VIRTIO_PCI_CAP_NOTIFY_CFG).ok_or_else(|| missing("notification"))?;
        let isr = find(VIRTIO_PCI_CAP_ISR_CFG).ok_or_else(|| missing("ISR"))?;
        let device =
            find(VIRTIO_PCI_CAP_DEVICE_CFG).ok_or_else(|| missing("device configuration"))?;
        let notify_off_multiplier =
            function.read(bus, notify.offset + cap::NOTIFY_OFF_MULTIPLIER, 4);
        Ok(Some(Self {
            common: common.window(function, common::BYTES)?,
            notify: notify.window(function, 2)?,
            isr: isr.window(function, 1)?,
            device: device.window(function, 0)?,
            notify_off_multiplier,
            function: function.clone(),
        }))
    }

    fn select(&self, bus: &mut dyn Bus, queue: u16) {
        self.common.write(bus, common::QUEUE_SELECT, 2, u32::from(queue));
    }

    /// The doorbell of the selected queue (§4.1.4.4).
    fn doorbell(&self, bus: &mut dyn Bus, queue: u16) -> Result<Doorbell> {
        let queue_notify_off = self.common.read(bus, common::QUEUE_NOTIFY_OFF, 2) as u16;
        let offset = u64::from(queue_notify_off) * u64::from(self.notify_off_multiplier);
        self.notify.doorbell(offset, queue).ok_or_else(|| {
            self.function.error(format_args!(
                "queue {queue} is notified at {offset:#x}, outside the notification structure of {} bytes",
                self.notify.len()
            ))
        })
    }
}

/// A vendor capability as read, not yet believed.
struct Structure {
    /// The capability's own place in configuration space.
    offset: u16,
    bar: u8,
    start: u32,
    len: u32,
}

impl Structure {
    /// The first capability of `cfg_type` whose BAR exists. Ones with a reserved BAR number are
    /// passed over, as §4.1.4.1 demands.
    fn find(
        bus: &mut dyn Bus,
        function: &Function,
        capabilities: &[Capability],
        cfg_type: u8,
    ) -> Option<Self> {
        let vendor = capabilities.iter().filter(|cap| cap.id == CAP_ID_VENDOR);
        for cap in vendor {
            let bar = function.read(bus, cap.offset + cap::BAR, 1) as u8;
            if function.read(bus, cap.offset + cap::CFG_TYPE, 1) as u8 == cfg_type && bar < 6 {
                return Some(Self {
                    offset: cap.offset,
                    bar,
                    start: function.read(bus, cap.offset + cap::OFFSET, 4),
                    len: function.read(bus, cap.offset + cap::LENGTH, 4),
                });
            }
        }
        None
    }

    fn window(&self, function: &Function, bytes_min: u64) -> Result<Window> {
        if u64::from(self.len) < bytes_min {
            return Err(function.error(format_args!(
                "a virtio structure has {} bytes where {bytes_min} are needed",
                self.len
            )));
        }
        function.window(self.bar, u64::from(self.start), u64::from(self.len))
    }
}

impl DeviceTransport for Modern {
    fn name(&self) -> String {
        self.function.name()
    }

    fn error(&self, what: &dyn Display) -> Error {
        self.function.error(what)
    }

    fn function(&self) -> Option<&Function> {
        Some(&self.function)
    }

    fn interface(&self) -> &'static str {
        "modern"
    }

    fn is_legacy(&self) -> bool {
        false
    }

    fn device_features(&mut self, machine: &mut dyn Machine) -> Result<u64> {
        let bus = machine.bus()?;
        let mut half = |select| {
            self.common.write(bus, common::DEVICE_FEATURE_SELECT, 4, select);
            u64::from(self.common.read(bus, common::DEVICE_FEATURE, 4))
        };
        Ok(half(0) | half(1) << 32)
    }

    fn set_driver_features(&mut self, machine: &mut dyn Machine, features: u64) -> Result<()> {
        let bus = machine.bus()?;
        for select in 0..2 {
            self.common.write(bus, common::DRIVER_FEATURE_SELECT, 4, select);
            let half = (features >> (32 * select)) as u32;
            self.common.write(bus, common::DRIVER_FEATURE, 4, half);
        }
        Ok(())
    }

    fn status(&mut self, machine: &mut dyn Machine) -> Result<u8> {
        Ok(self.common.read(machine.bus()?, common::DEVICE_STATUS, 1) as u8)
    }

    fn set_status(&mut self, machine: &mut dyn Machine, status: u8) -> Result<()> {
        self.common.write(machine.bus()?, common::DEVICE_STATUS, 1, u32::from(status));
        Ok(())
    }

    fn isr(&mut self, machine: &mut dyn Machine) -> Result<u8> {
        Ok(self.isr.read(machine.bus()?, 0, 1) as u8)
    }

    fn queues(&mut self, machine: &mut dyn Machine) -> Result<u16> {
        Ok(self.common.read(machine.bus()?, common::NUM_QUEUES, 2) as u16)
    }

    fn queue_size_max(&mut self, machine: &mut dyn Machine, index: u16) -> Result<u16> {
        let bus = machine.bus()?;
        self.select(bus, index);
        Ok(self.common.read(bus, common::QUEUE_SIZE, 2) as u16)
    }

    fn queue_size_is_ours(&self) -> bool {
        true
    }

    fn queue_setup(
        &mut self,
        machine: &mut dyn Machine,
        index: u16,
        layout: &QueueLayout,
        vector: Option<u16>,
    ) -> Result<Doorbell> {
        let bus = machine.bus()?;
        self.select(bus, index);
        self.common.write(bus, common::QUEUE_SIZE, 2, u32::from(layout.size));
        if let Some(vector) = vector {
            self.common.write(bus, common::QUEUE_MSIX_VECTOR, 2, u32::from(vector));
            let got = self.common.read(bus, common::QUEUE_MSIX_VECTOR, 2) as u16;
            check_vector(&self.function, index, vector, got)?;
        }
        self.common.write_u64(bus, common::QUEUE_DESC, layout.desc.0);
        self.common.write_u64(bus, common::QUEUE_DRIVER, layout.avail.0);
        self.common.write_u64(bus, common::QUEUE_DEVICE, layout.used.0);
        let doorbell = self.doorbell(bus, index)?;
        self.common.write(bus, common::QUEUE_ENABLE, 2, 1);
        Ok(doorbell)
    }

    fn set_config_vector(&mut self, machine: &mut dyn Machine, vector: u16) -> Result<u16> {
        let bus = machine.bus()?;
        self.common.write(bus, common::CONFIG_MSIX_VECTOR, 2, u32::from(vector));
        Ok(self.common.read(bus, common::CONFIG_MSIX_VECTOR, 2) as u16)
    }

    fn config_generation(&mut self, machine: &mut dyn Machine) -> Result<u8> {
        Ok(self.common.read(machine.bus()?, common::CONFIG_GENERATION, 1) as u8)
    }

    fn config_len(&self, _msix: bool) -> u64 {
        self.device.len()
    }

    fn config_field(
        &mut self,
        machine: &mut dyn Machine,
        _msix: bool,
        offset: u64,
        size: u8,
    ) -> Result<u32> {
        Ok(self.device.read(machine.bus()?, offset, size))
    }

    fn detach(&mut self, machine: &mut dyn Machine) -> Result<()> {
        self.function.command(machine.bus()?, 0, COMMAND_MASTER);
        Ok(())
    }
}

/// Checks a vector as read back: `VIRTIO_MSI_NO_VECTOR` means that the device could not take it
/// (§4.1.5.1.2.1).
pub(super) fn check_vector(function: &Function, queue: u16, set: u16, got: u16) -> Result<()> {
    if got == set {
        return Ok(());
    }
    let text = if got == VIRTIO_MSI_NO_VECTOR {
        format!("has no resources for MSI-X vector {set} of queue {queue}")
    } else {
        format!("reads back MSI-X vector {got:#x} of queue {queue} where {set} was set")
    };
    Err(function.error(text).hint("poll for completions instead of waiting for interrupts"))
}
