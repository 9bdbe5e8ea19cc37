//! How many processors there are to work with.

use std::sync::OnceLock;

/// So many take the test thread, the device's thread, a worker of its block layer, and whatever
/// else the host does.
const MANY: usize = 4;

/// How many there are. Affinity and the quota of a container count.
pub fn count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Whether a thread that polls takes its processor from those it waits for.
pub fn are_few() -> bool {
    count() < MANY
}
