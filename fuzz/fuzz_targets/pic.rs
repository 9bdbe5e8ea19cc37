//! The 8259A pair: registers in any order, at any time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qtrace::machine::builtin::device::Wire;
use qtrace::machine::builtin::devices::pic::{PicDevice, PicPair};
use qtrace::machine::builtin::walk::{ByteSteps, walk};

fuzz_target!(|data: &[u8]| {
    let mut device = PicDevice(PicPair::new(Wire::open()));
    walk(&mut device, &[2, 2, 2], &mut ByteSteps(data));
});
