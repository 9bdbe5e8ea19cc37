//! Registers of a PC's system control ports (IBM PS/2 Hardware Interface Technical Reference,
//! "System Control Port A"; Intel 82371AB data sheet, "Advanced Power Management Registers";
//! ACPI 6.5 §5.2.9, `SMI_CMD`).

/// System control port A, port 92h, bit 0: a rising edge resets the CPU.
pub const PORT92_RESET: u8 = 1 << 0;
/// Bit 1: address line 20 passes.
pub const PORT92_A20: u8 = 1 << 1;

/// Advanced power management control, port B2h: a command to the firmware's SMI handler.
pub const APMC: u64 = 0;
/// Advanced power management status, port B3h: storage between firmware and operating system.
pub const APMS: u64 = 1;

/// Commands that switch ACPI mode, as firmware announces them (FADT, `SMI_CMD` port B2h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcpiCommands {
    /// `ACPI_ENABLE`.
    pub enable: u8,
    /// `ACPI_DISABLE`.
    pub disable: u8,
}

impl AcpiCommands {
    /// Those of virtual PCs with a PIIX4.
    pub const PIIX4: Self = Self { enable: 0xf1, disable: 0xf0 };
    /// Those of virtual PCs with an ICH9.
    pub const ICH9: Self = Self { enable: 0x02, disable: 0x03 };
}
