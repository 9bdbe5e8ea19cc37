//! A virtio device behind a vhost-user connection: its back-end serves the rings, and there is no
//! register. The device status is kept where the connection is, by the front-end.

use std::fmt::Display;
use std::sync::Arc;

use super::device::{RESET_PATIENCE, Wanted, reset};
use super::irq::Interrupts;
use super::queue::QueueLayout;
use super::spec::VIRTIO_MSI_NO_VECTOR;
use super::transport::{DeviceTransport, Doorbell};
use super::{CompletionMode, Transport};
use crate::base::{Error, Result};
use crate::machine::{Machine, Vring};

/// One device of the machine's.
#[derive(Debug)]
struct Vrings {
    device: usize,
    name: String,
    queues: u16,
}

/// The device, reset, and the calls of its queues.
pub(super) fn open(
    machine: &mut dyn Machine,
    wanted: Wanted<'_>,
) -> Result<(Box<dyn DeviceTransport>, Interrupts)> {
    let (device, count) = (wanted.index, machine.vrings()?.devices());
    if device >= count {
        return Err(Error::machine(format!(
            "there is no vhost-user device {device}: the machine has {count}"
        )));
    }
    if wanted.transport == Transport::Legacy {
        return Err(Error::machine("a vhost-user device has no legacy interface")
            .hint("use transport=modern, or leave transport= out"));
    }
    let vrings = machine.vrings()?;
    let (name, queues) = (vrings.name(device), vrings.queues(device)?);
    let mut transport = Box::new(Vrings { device, name, queues });
    reset(machine, &mut *transport, RESET_PATIENCE)?;
    let interrupts = match wanted.completion {
        CompletionMode::Poll => Interrupts::Polled,
        CompletionMode::Interrupt => {
            let vrings = machine.vrings()?;
            let calls = (0..wanted.queues.clamp(1, queues.max(1)))
                .map(|queue| vrings.call(device, queue))
                .collect::<Result<Vec<_>>>()?;
            Interrupts::Calls(calls)
        }
    };
    Ok((transport, interrupts))
}

impl DeviceTransport for Vrings {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn error(&self, what: &dyn Display) -> Error {
        Error::machine(format!("vhost-user device {}: {what}", self.name))
    }

    fn interface(&self) -> &'static str {
        "vhost-user"
    }

    fn is_legacy(&self) -> bool {
        false
    }

    fn device_features(&mut self, machine: &mut dyn Machine) -> Result<u64> {
        machine.vrings()?.features(self.device)
    }

    fn set_driver_features(&mut self, machine: &mut dyn Machine, features: u64) -> Result<()> {
        machine.vrings()?.set_features(self.device, features)
    }

    fn status(&mut self, machine: &mut dyn Machine) -> Result<u8> {
        machine.vrings()?.status(self.device)
    }

    fn set_status(&mut self, machine: &mut dyn Machine, status: u8) -> Result<()> {
        machine.vrings()?.set_status(self.device, status)
    }

    fn isr(&mut self, _machine: &mut dyn Machine) -> Result<u8> {
        Ok(0)
    }

    fn queues(&mut self, _machine: &mut dyn Machine) -> Result<u16> {
        Ok(self.queues)
    }

    fn queue_size_max(&mut self, machine: &mut dyn Machine, index: u16) -> Result<u16> {
        Ok(if index < self.queues { machine.vrings()?.ring_size_max() } else { 0 })
    }

    fn queue_size_is_ours(&self) -> bool {
        true
    }

    fn queue_setup(
        &mut self,
        machine: &mut dyn Machine,
        index: u16,
        layout: &QueueLayout,
        _vector: Option<u16>,
    ) -> Result<Doorbell> {
        let QueueLayout { size, desc, avail, used } = *layout;
        let vring = Vring { size, desc, avail, used };
        let kick = machine.vrings()?.set_vring(self.device, index, &vring)?;
        Ok(Doorbell::Event(Arc::clone(&kick)))
    }

    fn set_config_vector(&mut self, _machine: &mut dyn Machine, _vector: u16) -> Result<u16> {
        Ok(VIRTIO_MSI_NO_VECTOR)
    }

    fn config_generation(&mut self, machine: &mut dyn Machine) -> Result<u8> {
        machine.vrings()?.config_generation(self.device)
    }

    fn config_len(&self, _msix: bool) -> u64 {
        u64::MAX
    }

    fn config_field(
        &mut self,
        machine: &mut dyn Machine,
        _msix: bool,
        offset: u64,
        size: u8,
    ) -> Result<u32> {
        let mut bytes = [0; 4];
        let field = bytes.get_mut(..usize::from(size)).ok_or_else(|| self.error(&"no field"))?;
        machine.vrings()?.config(self.device, offset, field)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// A ring that was stopped is let go of; the memory goes with the connection.
    fn detach(&mut self, _machine: &mut dyn Machine) -> Result<()> {
        Ok(())
    }
}
