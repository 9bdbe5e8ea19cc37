//! A bus trace on two machines at once, compared access by access, whatever the recording says.
//!
//! Both machines get the same accesses at the same moments of their clocks; compared are what each
//! read returns, the levels of the interrupt lines, and, where the trace tells of them, interrupts
//! and the memory that devices wrote. A recording has no branches: what is done does not depend on
//! what either machine answered.
//!
//! - [`accepted`]: differences that a specification allows, and bugs that have a name;
//! - [`engine`]: both machines, event by event; [`irqs`]: their interrupts;
//! - [`session`]: a whole comparison.

pub mod accepted;
pub mod engine;
pub mod irqs;
pub mod session;

#[cfg(test)]
mod tests;
