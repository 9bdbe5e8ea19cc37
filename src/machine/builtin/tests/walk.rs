//! A random walk over whole machines: nothing that a program does may panic or hang one.

use crate::base::{Prng, VirtualClock};
use crate::machine::builtin::walk::{SeededSteps, walk_machine};
use crate::machine::builtin::*;

fn walk(board: Board, seed: u64, steps: u64) -> u64 {
    let disk = DiskConfig { queues: 2, ..DiskConfig::new(crate::image::mem(1 << 20)) };
    let config = BuiltinConfig {
        ram_bytes: 1 << 20,
        board,
        chips: Chips::FULL,
        clock: Arc::new(VirtualClock::new()),
        cpus: 2,
        disks: vec![disk],
        ..BuiltinConfig::default()
    };
    let mut machine = BuiltinMachine::new(config).unwrap();
    walk_machine(&mut machine, &mut SeededSteps(Prng::new(seed), steps)).unwrap()
}

#[test]
fn a_million_steps_over_each_full_board_repeat() {
    for board in [Board::Pc, Board::Q35] {
        assert_eq!(walk(board, 7, 1_000_000), walk(board, 7, 1_000_000));
        assert_ne!(walk(board, 7, 1000), walk(board, 8, 1000));
    }
}
