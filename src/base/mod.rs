//! What every other module stands on: units, the shared verbs, time, randomness, limits, errors.
//!
//! Nothing in here knows of traces, machines or images.

pub mod bus;
pub mod child;
pub mod clock;
pub mod error;
pub mod hash;
pub mod limits;
pub mod ops;
pub mod options;
pub mod prng;
pub mod processors;
pub mod shell;
pub mod stamp;
pub mod stop;
pub mod terminal;
pub mod ticks;
pub mod units;

pub use bus::{BusAccess, BusSpace};
pub use clock::{Clock, HostClock, ScaledClock, TimeGrade, VirtualClock};
pub use error::{Error, ErrorKind, Result};
pub use ops::{BlockOp, OpFlags};
pub use prng::Prng;
pub use ticks::Frequency;
pub use units::{ByteOffset, GuestAddr, Nanos, SECTOR_SIZE, Sector};
