//! How a device's completions wake the driver.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::transport::DeviceTransport;
use crate::base::Result;
use crate::driver::pci::Function;
use crate::driver::pci::caps::Capability;
use crate::driver::pci::function::{COMMAND_INTX_DISABLE, reg};
use crate::driver::pci::msix::Msix;
use crate::machine::{Bus, Capabilities, IrqEvent, IrqSource, Machine};

/// A function's interrupts, as far as the driver uses them.
#[derive(Debug)]
pub enum Interrupts {
    /// None: the driver looks at the used rings.
    Polled,
    /// One event for each vector in use; queue n has vector n modulo their number.
    Msix(Box<Msix>, Vec<Arc<IrqEvent>>),
    /// The pin, shared by all queues.
    Intx(Arc<IrqEvent>),
    /// The calls of vrings, one for each queue.
    Calls(Vec<Arc<IrqEvent>>),
}

impl Interrupts {
    /// Turns a function's interrupts off.
    pub fn polled(bus: &mut dyn Bus, function: &Function) -> Self {
        function.command(bus, COMMAND_INTX_DISABLE, 0);
        Self::Polled
    }

    /// MSI-X with up to `vectors` vectors where the machine and the function have it, else INTx.
    ///
    /// # Errors
    /// A machine error when neither is there.
    pub fn wired(
        machine: &mut dyn Machine,
        function: &Function,
        capabilities: &[Capability],
        vectors: u16,
    ) -> Result<Self> {
        let facets = machine.capabilities();
        if facets.contains(Capabilities::MSIX)
            && let Some(mut msix) = Msix::find(machine.bus()?, function, capabilities)?
        {
            let count = vectors.clamp(1, msix.vectors());
            msix.place(machine.interrupts()?, count)?;
            let events = (0..count)
                .map(|vector| machine.interrupts()?.watch(msix.source(vector)))
                .collect::<Result<Vec<_>>>()?;
            msix.enable(machine.bus()?, count);
            return Ok(Self::Msix(Box::new(msix), events));
        }
        let bus = machine.bus()?;
        let pin = function.read(bus, reg::INTERRUPT_PIN, 1);
        let line = function.read(bus, reg::INTERRUPT_LINE, 1);
        // 255 is no connection (PCI 3.0 §6.2.4); on a PC 0 is the timer's, so that it is none either.
        if !facets.contains(Capabilities::INTX) || pin == 0 || matches!(line, 0 | 0xff) {
            return Err(function
                .error(format_args!("has no interrupt that machine '{}' delivers", machine.name()))
                .hint("poll for completions instead"));
        }
        function.command(bus, 0, COMMAND_INTX_DISABLE);
        let event = machine.interrupts()?.watch(IrqSource::Intx(line))?;
        Ok(Self::Intx(event))
    }

    /// Whether MSI-X is enabled, which moves the legacy configuration.
    pub fn is_msix(&self) -> bool {
        matches!(self, Self::Msix(..))
    }

    /// The vector of a queue, with MSI-X.
    pub fn vector(&self, queue: u16) -> Option<u16> {
        match self {
            Self::Msix(_, events) => Some(queue % u16::try_from(events.len()).unwrap_or(1).max(1)),
            Self::Polled | Self::Intx(_) | Self::Calls(_) => None,
        }
    }

    /// The descriptors to wait for.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Polled => Vec::new(),
            Self::Msix(_, events) | Self::Calls(events) => {
                events.iter().map(|event| event.fd()).collect()
            }
            Self::Intx(event) => vec![event.fd()],
        }
    }

    /// Takes what has come and acknowledges INTx at the device; whether anything had.
    ///
    /// # Errors
    /// A machine that is gone.
    pub fn acknowledge(
        &self,
        machine: &mut dyn Machine,
        transport: &mut dyn DeviceTransport,
    ) -> Result<bool> {
        Ok(match self {
            Self::Polled => false,
            // No short cut: every event is taken.
            Self::Msix(_, events) | Self::Calls(events) => {
                events.iter().filter(|event| event.take() > 0).count() > 0
            }
            Self::Intx(event) => {
                let came = event.take() > 0;
                if came {
                    // Level-triggered: reading the ISR lowers the line, so that the next
                    // completion makes an edge.
                    transport.isr(machine)?;
                }
                came
            }
        })
    }

    /// Turns them off for good, those of a PCI function.
    ///
    /// # Errors
    /// A machine that is gone.
    pub fn shutdown(&self, machine: &mut dyn Machine, function: Option<&Function>) -> Result<()> {
        let Some(function) = function else { return Ok(()) };
        let bus = machine.bus()?;
        if let Self::Msix(msix, _) = self {
            msix.disable(bus);
        }
        function.command(bus, COMMAND_INTX_DISABLE, 0);
        Ok(())
    }
}
