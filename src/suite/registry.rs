//! Every test module.

use super::Module;

/// The modules, in the order in which they are listed and run. A further one is a file of
/// `suite` and a line here.
pub const MODULES: &[&dyn Module] = &[
    &super::rtc::Rtc,
    &super::pit::Pit,
    &super::hpet::Hpet,
    &super::pic::Pic,
    &super::ioapic::IoApicTests,
    &super::lapic::Lapic,
];
