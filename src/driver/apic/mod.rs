//! APICs as an operating system programs them: the I/O APIC's redirection table (82093AA data
//! sheet §3), the local APIC's registers (Intel SDM volume 3, chapter 11).

pub mod ioapic;
pub mod local;
#[cfg(test)]
mod tests;

pub use ioapic::{IoApic, Redirection};
pub use local::{Ipi, LocalApic, TimerMode};

/// What an interrupt is to its destination (SDM §11.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryMode {
    /// The vector.
    #[default]
    Fixed,
    /// The vector, at the one destination that is the least busy.
    LowestPriority,
    /// System management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up, with the page where the CPU begins as its vector.
    StartUp,
    /// The i8259A has the vector.
    ExtInt,
}

impl DeliveryMode {
    /// Its code, in bits 10:8 of most registers.
    pub fn code(self) -> u8 {
        match self {
            Self::Fixed => 0,
            Self::LowestPriority => 1,
            Self::Smi => 2,
            Self::Nmi => 4,
            Self::Init => 5,
            Self::StartUp => 6,
            Self::ExtInt => 7,
        }
    }

    /// The mode of a code; the reserved one is taken as fixed.
    pub fn of_code(code: u8) -> Self {
        match code & 7 {
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => Self::Fixed,
        }
    }
}

/// Whom an interrupt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The APIC with this ID; ffh is all of them.
    Physical(u8),
    /// Those whose logical destination register matches.
    Logical(u8),
}

impl Default for Destination {
    fn default() -> Self {
        Self::Physical(0)
    }
}

impl Destination {
    /// The destination field.
    pub fn field(self) -> u8 {
        match self {
            Self::Physical(field) | Self::Logical(field) => field,
        }
    }

    /// Whether it is logical.
    pub fn is_logical(self) -> bool {
        matches!(self, Self::Logical(_))
    }

    /// From its two fields.
    pub fn of_fields(field: u8, logical: bool) -> Self {
        if logical { Self::Logical(field) } else { Self::Physical(field) }
    }
}
