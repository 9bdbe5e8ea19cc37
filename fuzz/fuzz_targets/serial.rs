//! The 16550: registers in any order, at any time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qtrace::machine::builtin::device::Wire;
use qtrace::machine::builtin::devices::serial::Serial;
use qtrace::machine::builtin::walk::{ByteSteps, walk};

fuzz_target!(|data: &[u8]| {
    let mut device = Serial::new(Wire::open());
    walk(&mut device, &[8], &mut ByteSteps(data));
});
