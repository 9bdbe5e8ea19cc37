//! The ACPI power management block: registers in any order, at any time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qtrace::machine::builtin::device::Wire;
use qtrace::machine::builtin::devices::pm::Pm;
use qtrace::machine::builtin::walk::{ByteSteps, walk};

fuzz_target!(|data: &[u8]| {
    let mut device = Pm::new(Wire::open());
    walk(&mut device, &[64, 4], &mut ByteSteps(data));
});
