//! The ports and the lines they pull.

use super::bits::AcpiCommands;
use super::chip::{Request, SystemChip};
use crate::base::Nanos;
use crate::machine::builtin::device::{Device, Wire};
use crate::machine::builtin::devices::capture::Capture;
use crate::machine::builtin::devices::lanes;

const PORT92: usize = 0;
const APM: usize = 1;

/// Where the system control ports are connected.
#[derive(Clone, Debug)]
pub struct SystemWires {
    /// High while port 92h lets address line 20 pass (the i8042 has a line of its own; either opens
    /// the gate).
    pub a20: Wire,
    /// Pulsed by a fast reset.
    pub reset: Wire,
    /// ACPI mode: driven high by the enable command and low by the disable command.
    pub acpi: Wire,
}

impl SystemWires {
    /// All pins open.
    pub fn open() -> Self {
        Self { a20: Wire::open(), reset: Wire::open(), acpi: Wire::open() }
    }
}

/// System control. Windows: 0 is port 92h, 1 is ports B2h and B3h, 2 is port 80h.
#[derive(Debug)]
pub struct System {
    chip: SystemChip,
    wires: SystemWires,
    post: Capture,
}

impl System {
    /// The ports at power on, with the commands that switch ACPI mode.
    pub fn new(wires: SystemWires, commands: AcpiCommands) -> Self {
        Self { chip: SystemChip::new(commands), wires, post: Capture::default() }
    }

    /// The POST codes written to port 80h. (Linux writes there to pass a microsecond.)
    pub fn post_codes(&self) -> Capture {
        self.post.clone()
    }

    fn obey(&self, request: Option<Request>) {
        self.wires.a20.set(self.chip.a20());
        match request {
            Some(Request::Reset) => self.wires.reset.pulse(),
            Some(Request::Acpi(on)) => self.wires.acpi.set(on),
            None => {}
        }
    }
}

impl Device for System {
    fn name(&self) -> &'static str {
        "system"
    }

    fn read(&mut self, window: usize, offset: u64, size: u8, _now: Nanos) -> u64 {
        lanes::read(offset, size, |at| match window {
            PORT92 => self.chip.read_port92(),
            APM => self.chip.read_apm(at),
            // Nothing drives the bus at port 80h.
            _ => 0xff,
        })
    }

    fn write(&mut self, window: usize, offset: u64, size: u8, value: u64, _now: Nanos) {
        lanes::write(offset, size, value, |at, byte| {
            let request = match window {
                PORT92 => self.chip.write_port92(byte),
                APM => self.chip.write_apm(at, byte),
                _ => {
                    self.post.push(byte);
                    None
                }
            };
            self.obey(request);
        });
    }

    fn reset(&mut self, _now: Nanos) {
        self.chip.reset();
        self.wires.acpi.set(false);
        self.obey(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::Prng;
    use crate::machine::builtin::device::LineProbe;
    use crate::machine::builtin::devices::recorded;
    use crate::machine::builtin::walk::{SeededSteps, walk};

    fn system() -> (System, Arc<LineProbe>) {
        let probe = Arc::new(LineProbe::default());
        let wire = |line| Wire::new(probe.clone(), line, 0);
        let wires = SystemWires { a20: wire(0), reset: wire(1), acpi: wire(2) };
        (System::new(wires, AcpiCommands::PIIX4), probe)
    }

    #[test]
    fn lines_follow_the_ports() {
        let (mut system, probe) = system();
        let t = Nanos(0);
        system.write(0, 0, 1, 2, t);
        assert_eq!((probe.line(0), probe.line(1)), ((true, 1), (false, 0)));
        system.write(0, 0, 1, 3, t);
        assert_eq!(probe.line(1), (false, 1));
        // A 16-bit write reaches both APM registers, the command first.
        system.write(1, 0, 2, 0x12f1, t);
        assert_eq!((probe.line(2), system.read(1, 0, 2, t)), ((true, 1), 0x12f1));
        system.reset(t);
        assert_eq!((probe.line(2).0, probe.line(0).0, system.read(0, 0, 1, t)), (false, true, 2));
    }

    #[test]
    fn post_codes_are_kept_and_not_read_back() {
        let (mut system, _probe) = system();
        for code in [1, 2, 0x55] {
            system.write(2, 0, 1, code, Nanos(0));
        }
        assert_eq!(system.read(2, 0, 1, Nanos(0)), 0xff);
        assert_eq!(system.post_codes().take(), [1, 2, 0x55]);
    }

    #[test]
    fn walks_repeat() {
        let run = || walk(&mut system().0, &[1, 2, 1], &mut SeededSteps(Prng::new(2), 1_000_000));
        assert_eq!(run(), run());
    }

    #[test]
    fn seabios_and_linux_read_what_they_read_on_qemu() {
        for log in [
            "seabios/boot-tcg.log.xz",
            "seabios/boot-tcg-ts.log.xz",
            "guest/virtio-raw-mmio.trace.xz",
        ] {
            let Some(accesses) = recorded::accesses(log, &["port92", "apm-io"]) else { return };
            recorded::replay(&mut system().0, &[(0x92, 1), (0xb2, 2)], &accesses);
        }
    }
}
