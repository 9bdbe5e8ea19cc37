//! How many processors there are to work with.

use std::sync::OnceLock;

/// So many take the test thread, the device's thread, a worker of its block layer, and whatever
/// else the host does.
const MANY: usize = 4;

/// Whether a thread that polls takes its processor from those it waits for. Affinity and the quota
/// of a container count.
pub fn are_few() -> bool {
    static FEW: OnceLock<bool> = OnceLock::new();
    *FEW.get_or_init(|| std::thread::available_parallelism().map_or(true, |n| n.get() < MANY))
}
