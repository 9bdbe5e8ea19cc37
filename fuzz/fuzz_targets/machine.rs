//! Whole machines, `pc` and `q35` by turns: ports, memory, interrupts and time, in any order.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use qtrace::base::VirtualClock;
use qtrace::image::mem;
use qtrace::machine::builtin::walk::{ByteSteps, walk_machine};
use qtrace::machine::builtin::{Board, BuiltinConfig, BuiltinMachine, Chips, DiskConfig};

fuzz_target!(|data: &[u8]| {
    let Some((first, steps)) = data.split_first() else { return };
    let config = BuiltinConfig {
        ram_bytes: 1 << 20,
        board: if first & 1 == 0 { Board::Pc } else { Board::Q35 },
        chips: Chips::FULL,
        clock: Arc::new(VirtualClock::new()),
        cpus: 2,
        disks: vec![DiskConfig { queues: 2, ..DiskConfig::new(mem(1 << 20)) }],
        ..BuiltinConfig::default()
    };
    let mut machine = BuiltinMachine::new(config).expect("a machine");
    walk_machine(&mut machine, &mut ByteSteps(steps)).expect("a machine that lives");
});
