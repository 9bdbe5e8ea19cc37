//! `qtrace record nbd`: real clients, the protocol's error cases, and recorders that are killed.

#[path = "../common/mod.rs"]
mod common;

mod client;
mod clients;
mod force;
mod kills;
mod protocol;
mod served;
