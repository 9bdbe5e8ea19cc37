//! The registers, apart from where their lines go.

use super::bits::*;

/// What a write asked of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Pulse the CPU's reset.
    Reset,
    /// Switch ACPI mode on or off (`PM1_CNT.SCI_EN`).
    Acpi(bool),
}

/// Ports 92h, B2h and B3h.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemChip {
    commands: AcpiCommands,
    port92: u8,
    apmc: u8,
    apms: u8,
}

impl SystemChip {
    /// All registers zero.
    pub fn new(commands: AcpiCommands) -> Self {
        Self { commands, port92: 0, apmc: 0, apms: 0 }
    }

    /// Whether port 92h lets address line 20 pass.
    pub fn a20(&self) -> bool {
        self.port92 & PORT92_A20 != 0
    }

    /// Reads port 92h.
    pub fn read_port92(&self) -> u8 {
        self.port92
    }

    /// Writes port 92h. The bits besides the two of `bits` are storage.
    #[must_use]
    pub fn write_port92(&mut self, value: u8) -> Option<Request> {
        let rising = value & !self.port92 & PORT92_RESET != 0;
        self.port92 = value;
        rising.then_some(Request::Reset)
    }

    /// Reads an APM register.
    pub fn read_apm(&self, offset: u64) -> u8 {
        if offset == APMC { self.apmc } else { self.apms }
    }

    /// Writes an APM register. There is no SMI handler here: the two ACPI commands are carried out
    /// by the board, as QEMU does, and every other one is only kept.
    #[must_use]
    pub fn write_apm(&mut self, offset: u64, value: u8) -> Option<Request> {
        if offset == APMS {
            self.apms = value;
            return None;
        }
        self.apmc = value;
        let AcpiCommands { enable, disable } = self.commands;
        let on = value == enable;
        (on || value == disable).then_some(Request::Acpi(on))
    }

    /// The board's reset line. The A20 bit survives, as the memory behind it must.
    pub fn reset(&mut self) {
        *self = Self { port92: self.port92 & !PORT92_RESET, ..Self::new(self.commands) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_92_resets_on_the_rising_edge_only() {
        let mut chip = SystemChip::new(AcpiCommands::PIIX4);
        assert_eq!(chip.write_port92(PORT92_A20), None);
        assert!(chip.a20());
        assert_eq!(chip.write_port92(PORT92_RESET), Some(Request::Reset));
        assert_eq!(chip.write_port92(PORT92_RESET | PORT92_A20), None);
        chip.reset();
        assert_eq!((chip.read_port92(), chip.a20()), (PORT92_A20, true));
    }

    #[test]
    fn apm_commands_are_kept_and_two_switch_acpi() {
        for commands in [AcpiCommands::PIIX4, AcpiCommands::ICH9] {
            let AcpiCommands { enable, disable } = commands;
            let mut chip = SystemChip::new(commands);
            assert_eq!(chip.write_apm(APMS, enable), None);
            assert_eq!(chip.write_apm(APMC, 0xb5), None);
            assert_eq!((chip.read_apm(APMC), chip.read_apm(APMS)), (0xb5, enable));
            assert_eq!(chip.write_apm(APMC, enable), Some(Request::Acpi(true)));
            assert_eq!(chip.write_apm(APMC, disable), Some(Request::Acpi(false)));
            chip.reset();
            assert_eq!(chip, SystemChip::new(commands));
        }
    }
}
