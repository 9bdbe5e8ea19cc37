//! Recorders that are killed under load.

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use qtrace::base::{BlockOp, Prng};
use qtrace::image::nbd_proto::Command as Nbd;

use super::client::{Client, request};
use super::common::kills::{DEPTH, Log, Sent, Victim, fill, kill_many};

const NBD: Victim = Victim { tap: "nbd", client: load };

fn send(client: &mut Client, prng: &mut Prng, number: u64, sent: Sent) -> std::io::Result<()> {
    let command = match sent.op {
        BlockOp::Read => Nbd::Read,
        BlockOp::Flush => Nbd::Flush,
        BlockOp::WriteZeroes => Nbd::WriteZeroes,
        BlockOp::Discard => Nbd::Trim,
        _ => Nbd::Write,
    };
    let mut message = request(command as u16, 0, number, (sent.offset, sent.len as u32));
    if command == Nbd::Write {
        let start = message.len();
        message.resize(start + sent.len as usize, 0);
        fill(&mut message[start..], number, prng);
    }
    client.0.write_all(&message)
}

/// Works until the server is gone.
fn load(socket: &Path, seed: u64) -> Log {
    let mut prng = Prng::new(seed);
    let mut log = Log::default();
    let mut client = Client::enter(socket).expect("enters");
    let mut in_flight = VecDeque::new();
    loop {
        while in_flight.len() < DEPTH {
            let (number, sent) = log.choose(&mut prng);
            in_flight.push_back(number);
            if send(&mut client, &mut prng, number, sent).is_err() {
                break;
            }
        }
        // What had been sent to us before the server was killed is still there to be read.
        let Ok(reply) = client.reply() else { return log };
        assert_eq!(reply.error, 0);
        log.told.push((reply.cookie, Instant::now()));
        in_flight.retain(|number| *number != reply.cookie);
    }
}

#[test]
fn a_killed_recorder_leaves_what_the_client_was_told() {
    kill_many(&NBD, 6, "raw");
    kill_many(&NBD, 4, "qcow2");
}

/// Minutes: `cargo test --test record_nbd -- --ignored hundred`.
#[test]
#[ignore = "takes minutes"]
fn a_hundred_killed_recorders() {
    kill_many(&NBD, 50, "raw");
    kill_many(&NBD, 50, "qcow2");
}
