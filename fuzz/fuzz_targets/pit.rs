//! The 8254 and port 61h: registers in any order, at any time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qtrace::machine::builtin::device::Wire;
use qtrace::machine::builtin::devices::pit::Pit;
use qtrace::machine::builtin::walk::{ByteSteps, walk};

fuzz_target!(|data: &[u8]| {
    let mut device = Pit::new(Wire::open());
    walk(&mut device, &[4, 1], &mut ByteSteps(data));
});
