//! A random walk over a device's registers: accesses of any size at any offset, time that passes,
//! deadlines that come. Nothing a program can do to a device may make it panic; the tests of every
//! chip and its fuzz target walk.

use super::device::Device;
use crate::base::{BusAccess, Nanos, Prng};

/// Where the steps of a walk come from.
pub trait Steps {
    /// The next 64 bits of choice; `None` ends the walk.
    fn next(&mut self) -> Option<u64>;
}

/// Steps from a seeded generator: the first field; the second says how many are left.
#[derive(Debug)]
pub struct SeededSteps(pub Prng, pub u64);

impl Steps for SeededSteps {
    fn next(&mut self) -> Option<u64> {
        self.1 = self.1.checked_sub(1)?;
        Some(self.0.next_u64())
    }
}

/// Steps from a fuzzer's bytes, eight at a time.
#[derive(Debug)]
pub struct ByteSteps<'a>(pub &'a [u8]);

impl Steps for ByteSteps<'_> {
    fn next(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }
}

/// Walks over `device`, whose windows have these lengths in bytes, from time `now` on. Returns a
/// hash of every value read, for comparing two walks.
///
/// # Panics
/// When the device breaks a promise of [`Device`]: a deadline in the past after
/// [`Device::run`], or a read wider than its access.
pub fn walk(device: &mut dyn Device, windows: &[u64], steps: &mut dyn Steps) -> u64 {
    let (mut now, mut hash) = (Nanos(0), 0u64);
    while let Some(choice) = steps.next() {
        let window = (choice >> 8) as usize % windows.len().max(1);
        let len = windows.get(window).copied().unwrap_or(1).max(1);
        let size = 1u8 << (choice & 3);
        // Most steps are accesses; the others let time pass, a little or a lot.
        match choice >> 4 & 15 {
            0 => now = Nanos(now.0.saturating_add(choice >> 32)),
            1 => now = device.deadline().filter(|d| d.0 < 1 << 62).unwrap_or(now).max(now),
            2 if choice >> 56 == 0 => device.reset(now),
            _ => {}
        }
        if device.deadline().is_some_and(|deadline| deadline <= now) {
            device.run(now);
            let next = device.deadline();
            assert!(next.is_none_or(|next| next > now), "{}: {next:?} at {now:?}", device.name());
        }
        if u64::from(size) > len {
            continue;
        }
        let offset = (choice >> 16 & 0xffff) % (len - u64::from(size) + 1);
        if choice & 4 != 0 {
            device.write(window, offset, size, (choice >> 32) & BusAccess::ones(size), now);
        } else {
            let value = device.read(window, offset, size, now);
            assert!(value <= BusAccess::ones(size), "{}: {value:#x}", device.name());
            hash = crate::base::prng::mix(hash ^ value);
        }
    }
    hash
}
