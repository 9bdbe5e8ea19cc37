//! Finding a virtio device on the PCI bus (virtio 1.2 §4.1).

use super::device::{RESET_PATIENCE, Wanted, reset};
use super::irq::Interrupts;
use super::legacy::Legacy;
use super::modern::Modern;
use super::spec::VIRTIO_PCI_VENDOR;
use super::transport::DeviceTransport;
use super::{CompletionMode, Transport};
use crate::base::{GuestAddr, Result};
use crate::driver::pci::{ConfigAccess, caps, enumerate, scan};
use crate::machine::{Capabilities, Machine};

/// Where q35 firmware puts memory-mapped configuration space; used on machines without ports.
const ECAM_BASE: GuestAddr = GuestAddr(0xb000_0000);

/// The function's registers and its interrupts; it is enabled, and was reset.
pub(super) fn open(
    machine: &mut dyn Machine,
    wanted: Wanted<'_>,
) -> Result<(Box<dyn DeviceTransport>, Interrupts)> {
    let pio = machine.capabilities().contains(Capabilities::PIO);
    let access = if pio { ConfigAccess::Ports } else { ConfigAccess::Ecam(ECAM_BASE) };
    let bus = machine.bus()?;
    let found = enumerate(bus, access)?;
    let function = found
        .iter()
        .filter(|f| f.vendor == VIRTIO_PCI_VENDOR && wanted.ids.contains(&f.device))
        .nth(wanted.index)
        .ok_or_else(|| scan::missing("virtio device of this kind", wanted.index, &found))?
        .clone();
    function.enable(bus)?;
    let capabilities = caps::list(bus, &function)?;
    let interface = wanted.transport;
    let mut transport: Box<dyn DeviceTransport> = match interface {
        Transport::Legacy => boxed(Legacy::find(&function)?),
        Transport::Modern => boxed(Modern::find(bus, &function, &capabilities)?),
        Transport::Auto => match boxed(Modern::find(bus, &function, &capabilities)?) {
            None => boxed(Legacy::find(&function)?),
            modern => modern,
        },
    }
    .ok_or_else(|| function.error(format_args!("has no {interface:?} virtio interface")))?;
    // Whatever drove it before must not raise interrupts any more when they are set up.
    reset(machine, &mut *transport, RESET_PATIENCE)?;
    let interrupts = match wanted.completion {
        CompletionMode::Poll => Interrupts::polled(machine.bus()?, &function),
        CompletionMode::Interrupt => {
            Interrupts::wired(machine, &function, &capabilities, wanted.queues)?
        }
    };
    Ok((transport, interrupts))
}

fn boxed<T: DeviceTransport + 'static>(found: Option<T>) -> Option<Box<dyn DeviceTransport>> {
    found.map(|transport| Box::new(transport) as Box<dyn DeviceTransport>)
}
