//! The I/O APIC: registers in any order, at any time.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use qtrace::machine::builtin::device::MessageProbe;
use qtrace::machine::builtin::devices::ioapic::{IoApic, IoApicDevice};
use qtrace::machine::builtin::walk::{ByteSteps, walk};

fuzz_target!(|data: &[u8]| {
    let mut device = IoApicDevice(IoApic::new(Arc::new(MessageProbe::default())));
    walk(&mut device, &[0x1000], &mut ByteSteps(data));
});
