//! The NBD tap: a server of our own in front of an image, which records what its clients do.
//!
//! Protocol: NetworkBlockDevice/nbd `doc/proto.md`, cited by its headings. Fixed newstyle,
//! structured replies, `base:allocation`; not TLS, resizing or extended headers.
//!
//! - [`server`]: the socket, its connections and their end; `listen`: where it listens, with
//!   `private_folder` where nobody says;
//! - `handshake`: options; `request`: what may be asked, and the errors of the protocol;
//! - `connection`: one client's loop, with `input` (requests and their data as they come), `flight`
//!   (what is in progress), `backend` (how the image is asked) and `output` (replies as they go);
//! - `workers`: threads for what would hold a connection up; `buffers`: memory, bounded; `pace`: how
//!   long a client is waited for.
//!
//! A connection has one thread, which also does what the page cache answers at once: a reply is a
//! copy and no hand-over between threads. What waits for a disk goes to io_uring, or to a worker.

mod backend;
mod buffers;
mod connection;
mod export;
mod flight;
mod handshake;
mod holes;
mod input;
pub(crate) mod listen;
mod output;
mod pace;
mod private_folder;
mod request;
pub mod server;
mod stream;
mod workers;

pub use self::export::{Export, ExportOptions, header};
pub use self::listen::Listen;
pub use self::server::{Counts, Server};
