//! The legacy PCI transport (virtio 1.2 §4.1.4.10): one structure in I/O BAR 0, in the guest's own
//! byte order, which is little endian on the machines driven here.

use std::fmt::Display;

use super::modern::check_vector;
use super::queue::QueueLayout;
use super::spec::LEGACY_QUEUE_ALIGN;
use super::transport::{DeviceTransport, Doorbell};
use crate::base::{Error, Result};
use crate::driver::pci::function::COMMAND_MASTER;
use crate::driver::pci::{BarKind, Function, Window};
use crate::machine::{Bus, Machine};

const DEVICE_FEATURES: u64 = 0;
const DRIVER_FEATURES: u64 = 4;
/// `QUEUE_PFN`: the queue's address in units of 4096 bytes.
const QUEUE_ADDRESS: u64 = 8;
const QUEUE_SIZE: u64 = 12;
const QUEUE_SELECT: u64 = 14;
const QUEUE_NOTIFY: u64 = 16;
const DEVICE_STATUS: u64 = 18;
const ISR_STATUS: u64 = 19;
const CONFIG_VECTOR: u64 = 20;
const QUEUE_VECTOR: u64 = 22;
/// Where the device configuration begins without MSI-X …
const CONFIG_WITHOUT_MSIX: u64 = 20;
/// … and with it, when the two vector registers come before.
const CONFIG_WITH_MSIX: u64 = 24;

/// The registers of a legacy or transitional device.
#[derive(Debug)]
pub struct Legacy {
    function: Function,
    registers: Window,
}

impl Legacy {
    /// The legacy interface of `function`, or `None` when BAR 0 is not I/O space.
    ///
    /// # Errors
    /// A machine error when BAR 0 is too short.
    pub fn find(function: &Function) -> Result<Option<Self>> {
        let Some(bar) = function.bars[0].filter(|bar| bar.kind == BarKind::Io) else {
            return Ok(None);
        };
        function.window(0, 0, CONFIG_WITH_MSIX)?;
        let registers = function.window(0, 0, bar.size)?;
        Ok(Some(Self { function: function.clone(), registers }))
    }

    /// The device-specific configuration.
    fn config(&self, msix: bool) -> Window {
        self.registers.skip(if msix { CONFIG_WITH_MSIX } else { CONFIG_WITHOUT_MSIX })
    }

    fn select(&self, bus: &mut dyn Bus, queue: u16) {
        self.registers.write(bus, QUEUE_SELECT, 2, u32::from(queue));
    }
}

impl DeviceTransport for Legacy {
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
        "legacy"
    }

    fn is_legacy(&self) -> bool {
        true
    }

    fn device_features(&mut self, machine: &mut dyn Machine) -> Result<u64> {
        Ok(u64::from(self.registers.read(machine.bus()?, DEVICE_FEATURES, 4)))
    }

    fn set_driver_features(&mut self, machine: &mut dyn Machine, features: u64) -> Result<()> {
        self.registers.write(machine.bus()?, DRIVER_FEATURES, 4, features as u32);
        Ok(())
    }

    fn status(&mut self, machine: &mut dyn Machine) -> Result<u8> {
        Ok(self.registers.read(machine.bus()?, DEVICE_STATUS, 1) as u8)
    }

    fn set_status(&mut self, machine: &mut dyn Machine, status: u8) -> Result<()> {
        self.registers.write(machine.bus()?, DEVICE_STATUS, 1, u32::from(status));
        Ok(())
    }

    fn isr(&mut self, machine: &mut dyn Machine) -> Result<u8> {
        Ok(self.registers.read(machine.bus()?, ISR_STATUS, 1) as u8)
    }

    fn queues(&mut self, _machine: &mut dyn Machine) -> Result<u16> {
        Ok(u16::MAX)
    }

    fn queue_size_max(&mut self, machine: &mut dyn Machine, index: u16) -> Result<u16> {
        let bus = machine.bus()?;
        self.select(bus, index);
        Ok(self.registers.read(bus, QUEUE_SIZE, 2) as u16)
    }

    fn queue_size_is_ours(&self) -> bool {
        false
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
        if let Some(vector) = vector {
            self.registers.write(bus, QUEUE_VECTOR, 2, u32::from(vector));
            let got = self.registers.read(bus, QUEUE_VECTOR, 2) as u16;
            check_vector(&self.function, index, vector, got)?;
        }
        let page = u32::try_from(layout.desc.0 / LEGACY_QUEUE_ALIGN).map_err(|e| {
            self.function.error("its legacy interface cannot address the ring").source(e)
        })?;
        self.registers.write(bus, QUEUE_ADDRESS, 4, page);
        let got = self.registers.read(bus, QUEUE_ADDRESS, 4);
        if got != page {
            return Err(self.function.error(format_args!(
                "reads back ring page {got:#x} of queue {index} where {page:#x} was set"
            )));
        }
        self.registers
            .doorbell(QUEUE_NOTIFY, index)
            .ok_or_else(|| self.function.error("its BAR 0 ends before QueueNotify"))
    }

    fn set_config_vector(&mut self, machine: &mut dyn Machine, vector: u16) -> Result<u16> {
        let bus = machine.bus()?;
        self.registers.write(bus, CONFIG_VECTOR, 2, u32::from(vector));
        Ok(self.registers.read(bus, CONFIG_VECTOR, 2) as u16)
    }

    fn config_generation(&mut self, _machine: &mut dyn Machine) -> Result<u8> {
        Ok(0)
    }

    fn config_len(&self, msix: bool) -> u64 {
        self.config(msix).len()
    }

    fn config_field(
        &mut self,
        machine: &mut dyn Machine,
        msix: bool,
        offset: u64,
        size: u8,
    ) -> Result<u32> {
        Ok(self.config(msix).read(machine.bus()?, offset, size))
    }

    fn detach(&mut self, machine: &mut dyn Machine) -> Result<()> {
        self.function.command(machine.bus()?, 0, COMMAND_MASTER);
        Ok(())
    }
}
