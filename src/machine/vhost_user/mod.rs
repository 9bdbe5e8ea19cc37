//! A vhost-user back-end as the machine: another process serves the rings of its devices, over
//! guest RAM that both map. There are vrings, their kicks and calls, and no ports.
//!
//! - `link`: messages of the protocol over a socket, each answered in time or not at all; `changes`:
//!   what the back-end says of itself.
//! - `device`: the front-end of one device: what is agreed, its rings, its status.
//! - `server`: a qemu-storage-daemon that is started for the purpose.
//! - `machine`: all of it as a [`Machine`](super::Machine).
//!
//! Numbers and layouts of messages come from the crate `vhost`. Its own front-end is not used: it
//! waits for a silent back-end for ever.

mod changes;
mod device;
mod link;
mod machine;
mod server;

#[cfg(test)]
mod tests;

pub use machine::{VhostUserConfig, VhostUserMachine};
pub use server::{
    ServedDisk, StorageDaemon, find as find_storage_daemon, version as storage_daemon_version,
};
