//! Every test module.

use super::Module;

/// The modules, in the order in which they are listed and run. A further one is a file of
/// `suite` and a line here.
#[rustfmt::skip]
pub const MODULES: &[&dyn Module] = &[
    &super::rtc::Rtc,
    &super::pit::Pit,
    &super::hpet::Hpet,
    &super::acpi_pm::AcpiPm,
    &super::pic::Pic,
    &super::ioapic::IoApicTests,
    &super::lapic::Lapic,
    &super::serial::Serial,
    &super::i8042::I8042,
    &super::fw_cfg::FwCfg,
    &super::pci::Pci,
    &super::virtio_blk::VirtioBlk,
];
