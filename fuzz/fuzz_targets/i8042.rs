//! The keyboard controller: registers in any order, at any time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qtrace::machine::builtin::device::Wire;
use qtrace::machine::builtin::devices::i8042::I8042;
use qtrace::machine::builtin::walk::{ByteSteps, walk};

fuzz_target!(|data: &[u8]| {
    let mut device = I8042::new(Wire::open(), Wire::open(), Wire::open(), Wire::open());
    walk(&mut device, &[1, 1], &mut ByteSteps(data));
});
