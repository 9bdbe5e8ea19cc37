//! The client against servers that behave, and that do not.

use std::io::{BufRead, BufReader};
use std::thread::JoinHandle;

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// A server that answers each line by `answer`, until the client goes.
fn server(
    mut answer: impl FnMut(&str) -> String + Send + 'static,
) -> (Client, JoinHandle<Vec<String>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut out = theirs.try_clone().unwrap();
        let mut seen = Vec::new();
        for line in BufReader::new(theirs).lines() {
            let Ok(line) = line else { break };
            let text = answer(&line);
            seen.push(line);
            if out.write_all(text.as_bytes()).is_err() {
                break;
            }
        }
        seen
    });
    (Client::new(ours, LONG).unwrap(), thread)
}

#[test]
fn answers_belong_to_their_commands() {
    let mut n = 0;
    let (mut client, server) = server(move |_| {
        n += 1;
        format!("OK {n:#x}\n")
    });
    client.post(&Command::Endianness).unwrap();
    client.post(&Command::Endianness).unwrap();
    assert_eq!(client.port_in(0x71, Size::Byte).unwrap(), 3);
    assert_eq!(client.value(&Command::Load(0, Size::Quad)).unwrap(), 4);
    assert_eq!((client.sent(), client.answered()), (4, 4));
    drop(client);
    assert_eq!(server.join().unwrap().len(), 4);
}

#[test]
fn interrupt_lines_come_at_any_moment() {
    let (mut client, _server) = server(|line| match line {
        "inb 0x1" => "IRQ raise 8\nOK 0x1\nIRQ lower 8\nIRQ raise 8\n".to_owned(),
        _ => "OK\n".to_owned(),
    });
    let event = client.lines().watch(8).unwrap();
    client.port_in(1, Size::Byte).unwrap();
    client.order(&Command::Endianness).unwrap();
    assert_eq!(event.take(), 2);
    assert!(client.lines().level(8));
}

/// Both sides' buffers full is where a client that only writes, and then only reads, hangs.
#[test]
fn a_flood_in_both_directions_does_not_deadlock() {
    let (mut client, _server) = server(|_| "IRQ raise 1\nIRQ lower 1\n".repeat(200) + "OK\n");
    let bytes = vec![0x5a; 64 << 10];
    for _ in 0..300 {
        client.post(&Command::Write(0, &bytes)).unwrap();
    }
    client.settle().unwrap();
    assert_eq!((client.answered(), client.lines().changes()), (300, 300 * 400));
}

#[test]
fn bulk_transfers_are_cut() {
    let len = TRANSFER_BYTES_MAX + 5;
    let (mut client, server) = server(move |line| {
        let size = line.rsplit(' ').next().unwrap();
        match line.starts_with("b64read") {
            true => {
                let len = usize::from_str_radix(size.strip_prefix("0x").unwrap(), 16).unwrap();
                let mut text = b"OK ".to_vec();
                crate::import::qtest::data::to_base64(&vec![7; len], &mut text);
                String::from_utf8(text).unwrap() + "\n"
            }
            false => "OK\n".to_owned(),
        }
    });
    let mut buf = vec![0; len];
    client.read(0x1000, &mut buf).unwrap();
    assert!(buf.iter().all(|byte| *byte == 7));
    client.write(0x1000, &buf).unwrap();
    drop(client);
    let seen = server.join().unwrap();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[1], format!("b64read {:#x} 0x5", 0x1000 + TRANSFER_BYTES_MAX));
}

#[test]
fn refusals_are_errors_and_posted_ones_are_counted() {
    let (mut client, _server) = server(|_| "FAIL Unknown device\n".to_owned());
    client.post(&Command::Endianness).unwrap();
    let error = Error::from(client.order(&Command::ClockStep(None)).unwrap_err()).to_string();
    assert_eq!(error, "QEMU answered 'FAIL Unknown device' to 'clock_step'");
    assert_eq!(client.refused(), (1, Some("Unknown device")));
    // The last one that is waited for is no exception.
    client.post(&Command::Endianness).unwrap();
    client.settle().unwrap();
    assert_eq!(client.refused().0, 2);
    assert!(matches!(
        client.order(&Command::Write(0, &[])).unwrap_err(),
        Failure::NotSent("a write of nothing")
    ));
}

#[test]
fn silence_an_end_and_babble_are_told_apart() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = Client::new(ours, Duration::from_millis(5)).unwrap();
    let failure = client.order(&Command::Endianness).unwrap_err();
    assert!(matches!(failure, Failure::Lost(Lost::Silent(_))), "{failure:?}");
    assert_eq!(client.history(), [("endianness".to_owned(), false)]);
    drop(theirs);
    let failure = client.order(&Command::Endianness).unwrap_err();
    assert!(matches!(failure, Failure::Lost(Lost::Closed)), "{failure:?}");
    for babble in ["hello\n", "OK\nOK\n"] {
        let (mut client, _server) = server(move |_| babble.to_owned());
        let failure =
            client.order(&Command::Endianness).and_then(|()| client.settle()).and_then(|()| {
                // The second answer may come a moment later.
                client.order(&Command::Endianness).and_then(|()| client.order(&Command::Endianness))
            });
        assert!(matches!(failure, Err(Failure::Lost(Lost::Babble(_)))), "{babble}: {failure:?}");
    }
}

#[test]
fn a_line_without_an_end_is_not_gathered_for_ever() {
    let (mut client, _server) = server(|_| "x".repeat(LINE_BYTES_MAX * 2));
    let failure = client.order(&Command::Endianness).unwrap_err();
    assert!(matches!(failure, Failure::Lost(Lost::Babble(_))), "{failure:?}");
}

#[test]
fn the_last_commands_are_kept() {
    let (mut client, _server) = server(|_| "OK 0x0\n".to_owned());
    for port in 0..100 {
        client.port_in(port, Size::Byte).unwrap();
    }
    let history = client.history();
    assert_eq!(history.len(), HISTORY);
    assert_eq!(history.last().unwrap(), &("inb 0x63".to_owned(), true));
}
