//! The protocol's error cases, and clients that do not keep to it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use qtrace::base::{BlockOp, Prng};
use qtrace::image::nbd_proto::*;
use qtrace::image::{self, OpenOptions};

use super::client::{Client, contexts, info, request};
use super::served::{SIZE, Served};

const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOVERFLOW: u32 = 75;
const ENOTSUP: u32 = 95;

#[test]
fn options_are_answered_as_the_protocol_says() {
    let served = Served::new();
    let mut client = Client::connect(served.socket()).unwrap();
    let mut last = |option, data: &[u8]| client.option(option, data).unwrap().pop().unwrap().0;
    // Contexts are of structured replies.
    let query = contexts("", &["base:allocation"]);
    assert_eq!(last(NBD_OPT_SET_META_CONTEXT, &query), NBD_REP_ERR_INVALID);
    assert_eq!(last(NBD_OPT_STARTTLS, &[]), NBD_REP_ERR_UNSUP);
    assert_eq!(last(NBD_OPT_STARTTLS, &[1]), NBD_REP_ERR_INVALID);
    assert_eq!(last(4242, b"whatever"), NBD_REP_ERR_UNSUP);
    assert_eq!(last(NBD_OPT_LIST, &[1]), NBD_REP_ERR_INVALID);
    assert_eq!(last(NBD_OPT_STRUCTURED_REPLY, &[1]), NBD_REP_ERR_INVALID);
    assert_eq!(last(NBD_OPT_INFO, &info("other", &[])), NBD_REP_ERR_UNKNOWN);
    assert_eq!(last(NBD_OPT_GO, &info("other", &[])), NBD_REP_ERR_UNKNOWN);
    for bad in
        [&b""[..], &[0; 5], &[0; 7], &[0, 0, 0, 9, 0, 0], &[255; 6], &[0, 0, 0, 0, 0, 2, 0, 1]]
    {
        assert_eq!(last(NBD_OPT_GO, bad), NBD_REP_ERR_INVALID, "{bad:?}");
    }
    assert_eq!(last(NBD_OPT_STRUCTURED_REPLY, &[]), NBD_REP_ACK);
    assert_eq!(last(NBD_OPT_SET_META_CONTEXT, &query[..query.len() - 1]), NBD_REP_ERR_INVALID);
    let other = contexts("other", &["base:allocation"]);
    assert_eq!(last(NBD_OPT_SET_META_CONTEXT, &other), NBD_REP_ERR_UNKNOWN);
    assert_eq!(last(NBD_OPT_LIST_META_CONTEXT, &[255; 8]), NBD_REP_ERR_INVALID);
    // One that is too long is skipped, and the next one is heard.
    assert_eq!(last(4242, &vec![0; 100 << 10]), NBD_REP_ERR_TOO_BIG);
    let listed = client.option(NBD_OPT_LIST, &[]).unwrap();
    assert_eq!(listed, [(NBD_REP_SERVER, vec![0; 4]), (NBD_REP_ACK, vec![])]);
    for (queries, found) in [
        (&[][..], true),
        (&["base:"][..], true),
        (&["base:allocation"], true),
        (&["qemu:x"], false),
    ] {
        let replies = client.option(NBD_OPT_LIST_META_CONTEXT, &contexts("", queries)).unwrap();
        assert_eq!(replies.len() == 2, found, "{queries:?}");
    }
    assert_eq!(client.option(NBD_OPT_ABORT, &[]).unwrap(), [(NBD_REP_ACK, vec![])]);
    assert!(client.is_closed());
    served.end();
}

#[test]
fn an_export_says_what_it_is() {
    let served = Served::new();
    let mut client = Client::connect(served.socket()).unwrap();
    let asked = [NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE, 999];
    let replies = client.option(NBD_OPT_INFO, &info("", &asked)).unwrap();
    let (last, infos) = replies.split_last().unwrap();
    assert_eq!(last.0, NBD_REP_ACK);
    let kinds: Vec<_> =
        infos.iter().map(|(_, data)| u16::from_be_bytes([data[0], data[1]])).collect();
    let want = [NBD_INFO_EXPORT, NBD_INFO_BLOCK_SIZE, NBD_INFO_NAME, NBD_INFO_DESCRIPTION];
    assert_eq!(kinds, want);
    assert_eq!(infos[0].1[2..10], SIZE.to_be_bytes());
    let sizes: Vec<u8> = [512u32, 4096, 32 << 20].iter().flat_map(|n| n.to_be_bytes()).collect();
    assert_eq!(infos[1].1[2..], sizes);
    // The oldest way in, with and without the zeros.
    for (flags, len) in [(1u32, 134), (3, 10)] {
        let mut stream = UnixStream::connect(served.socket()).unwrap();
        stream.read_exact(&mut [0; 18]).unwrap();
        stream.write_all(&flags.to_be_bytes()).unwrap();
        let mut client = Client(stream);
        client.send_option(NBD_OPT_EXPORT_NAME, 0, &[]).unwrap();
        assert_eq!(client.take(len).unwrap()[..8], SIZE.to_be_bytes());
        assert!(client.works());
    }
    let mut client = Client::connect(served.socket()).unwrap();
    client.send_option(NBD_OPT_EXPORT_NAME, 5, b"other").unwrap();
    assert!(client.is_closed());
    served.end();
}

#[test]
fn handshakes_that_are_none_end_their_connection_only() {
    let served = Served::new();
    let mut good = Client::enter(served.socket()).unwrap();
    let greeted = || {
        let mut stream = UnixStream::connect(served.socket()).unwrap();
        stream.read_exact(&mut [0; 18]).unwrap();
        Client(stream)
    };
    let mut unknown_flags = greeted();
    unknown_flags.0.write_all(&4u32.to_be_bytes()).unwrap();
    assert!(unknown_flags.is_closed());
    let mut no_option = greeted();
    no_option.0.write_all(b"\0\0\0\x03GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(no_option.is_closed());
    let mut endless = greeted();
    endless.0.write_all(&3u32.to_be_bytes()).unwrap();
    endless.send_option(NBD_OPT_GO, u32::MAX, &[]).unwrap();
    assert!(endless.is_closed());
    let mut flood = Client::connect(served.socket()).unwrap();
    let refused = (0..10_000).find(|_| flood.option(4242, &[]).is_err());
    assert!(refused.is_some());
    // In the middle of an option, and before the first byte.
    let mut cut = greeted();
    cut.0.write_all(&[0, 0, 0, 3, 0x49, 0x48]).unwrap();
    drop(cut);
    drop(UnixStream::connect(served.socket()).unwrap());
    assert!(good.works());
    let (counts, _) = served.end();
    assert!(counts.broken >= 5, "{counts:?}");
}

#[test]
fn requests_that_cannot_be_have_their_errors_and_change_nothing() {
    let served = Served::new();
    let mut client = Client::enter(served.socket()).unwrap();
    let end = SIZE;
    let block = vec![9; 512];
    /// Command, flags, range, data, and the error.
    type Case<'a> = (Command, u16, (u64, u32), &'a [u8], u32);
    let cases: &[Case<'_>] = &[
        (Command::Read, 0, (end, 512), &[], EINVAL),
        (Command::Read, 0, (u64::MAX - 511, 512), &[], EINVAL),
        (Command::Read, 0, (0, (32 << 20) + 512), &[], EINVAL),
        (Command::Read, NBD_CMD_FLAG_DF, (0, (32 << 20) + 512), &[], EOVERFLOW),
        (Command::Read, NBD_CMD_FLAG_NO_HOLE, (0, 512), &[], EINVAL),
        (Command::Read, 0, (1, 512), &[], EINVAL),
        (Command::Write, 0, (end, 512), &block, ENOSPC),
        (Command::Write, 0, (end - 256, 512), &block, ENOSPC),
        (Command::Write, 0, (100, 512), &block, EINVAL),
        (Command::Write, NBD_CMD_FLAG_REQ_ONE, (0, 512), &block, EINVAL),
        (Command::WriteZeroes, 0, (end - 512, 1024), &[], ENOSPC),
        (Command::WriteZeroes, NBD_CMD_FLAG_DF, (0, 512), &[], EINVAL),
        // An image in memory has no faster way than to write.
        (Command::WriteZeroes, NBD_CMD_FLAG_FAST_ZERO, (0, 512), &[], ENOTSUP),
        (Command::Trim, 0, (end, 512), &[], EINVAL),
        (Command::Flush, 0, (0, 512), &[], EINVAL),
        (Command::Cache, 0, (end, 512), &[], EINVAL),
        (Command::BlockStatus, 0, (0, 0), &[], EINVAL),
        (Command::BlockStatus, 0, (end, 512), &[], EINVAL),
    ];
    for (command, flags, range, data, error) in cases {
        let answer = client.ask(*command, *flags, *range, data);
        assert_eq!(answer, (*error, vec![]), "{command:?} {flags} {range:?}");
        assert!(client.works(), "after {command:?} {range:?}");
    }
    client.send(4711, 0, 1, (0, 0), &[]).unwrap();
    assert_eq!(client.reply().unwrap().error, EINVAL);
    // The data of a write that is too long is taken, and dropped.
    let long = vec![1; (32 << 20) + 512];
    assert_eq!(client.ask(Command::Write, 0, (0, long.len() as u32), &long).0, EINVAL);
    assert_eq!(client.ask(Command::Read, 0, (0, 512), &[]), (0, vec![0; 512]));
    let (counts, trace) = served.end();
    assert_eq!(counts.refused, cases.len() as u64 - 1 + 2);
    assert_eq!(trace.totals()[0].issues[BlockOp::Write.index()], 0);
    assert_eq!(trace.totals()[0].end_bytes, 512);
}

#[test]
fn without_structured_replies_everything_still_works() {
    let served = Served::new();
    let mut client = Client::enter_simply(served.socket()).unwrap();
    let data: Vec<u8> = (0..8192u32).map(|n| n as u8).collect();
    assert_eq!(client.ask(Command::Write, NBD_CMD_FLAG_FUA, (4096, 8192), &data).0, 0);
    assert_eq!(client.ask(Command::Read, 0, (4096, 8192), &[]), (0, data));
    assert_eq!(client.ask(Command::Read, 0, (0, 4096), &[]), (0, vec![0; 4096]));
    assert_eq!(client.ask(Command::Read, NBD_CMD_FLAG_DF, (0, 512), &[]).0, EINVAL);
    assert_eq!(client.ask(Command::BlockStatus, 0, (0, 512), &[]).0, EINVAL);
    assert_eq!(client.ask(Command::Read, 0, (SIZE, 512), &[]).0, EINVAL);
    assert_eq!(client.ask(Command::Read, 0, (0, 0), &[]), (0, vec![]));
    assert_eq!(client.ask(Command::Write, 0, (0, 0), &[]).0, 0);
    assert_eq!(client.ask(Command::Flush, 0, (0, 0), &[]).0, 0);
    served.end();
}

#[test]
fn every_command_does_what_it_says_and_is_recorded() {
    let served = Served::new();
    let mut client = Client::enter(served.socket()).unwrap();
    let data = vec![7; 64 << 10];
    assert_eq!(client.ask(Command::Write, 0, (0, 64 << 10), &data).0, 0);
    assert_eq!(client.ask(Command::Write, NBD_CMD_FLAG_FUA, (1 << 20, 64 << 10), &data).0, 0);
    assert_eq!(client.ask(Command::WriteZeroes, NBD_CMD_FLAG_NO_HOLE, (4096, 4096), &[]).0, 0);
    assert_eq!(client.ask(Command::WriteZeroes, NBD_CMD_FLAG_FUA, (1 << 20, 4096), &[]).0, 0);
    assert_eq!(client.ask(Command::Trim, 0, (8192, 4096), &[]).0, 0);
    assert_eq!(client.ask(Command::Cache, 0, (0, 1 << 20), &[]).0, 0);
    assert_eq!(client.ask(Command::Flush, NBD_CMD_FLAG_FUA, (0, 0), &[]).0, 0);
    let (error, read) = client.ask(Command::Read, NBD_CMD_FLAG_DF, (0, 16 << 10), &[]);
    assert_eq!((error, read.len()), (0, 16 << 10));
    assert_eq!((read[0], read[4096], read[12288]), (7, 0, 7));
    let (error, status) = client.ask(Command::BlockStatus, 0, (0, 2 << 20), &[]);
    assert_eq!((error, &status[..4]), (0, &1u32.to_be_bytes()[..]));
    let lengths: u32 =
        status[4..].chunks(8).map(|e| u32::from_be_bytes(e[..4].try_into().unwrap())).sum();
    assert_eq!(lengths, 2 << 20);
    let (_, one) = client.ask(Command::BlockStatus, NBD_CMD_FLAG_REQ_ONE, (0, 2 << 20), &[]);
    assert_eq!(one.len(), 12);
    client.send(Command::Disconnect as u16, 0, 0, (0, 0), &[]).unwrap();
    assert!(client.is_closed());
    let (counts, trace) = served.end();
    assert_eq!(trace.totals()[0].issues, [1, 2, 1, 1, 2, 0]);
    assert_eq!((counts.unsaid, counts.broken), (3, 0));
}

#[test]
fn a_read_only_export_refuses_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.raw");
    std::fs::write(&path, vec![3; 1 << 20]).unwrap();
    let served = Served::of(image::open(&path, &OpenOptions::default()).unwrap());
    let mut client = Client::enter(served.socket()).unwrap();
    for (command, data) in
        [(Command::Write, &[1; 512][..]), (Command::Trim, &[]), (Command::WriteZeroes, &[])]
    {
        assert_eq!(client.ask(command, 0, (0, 512), data).0, EPERM);
    }
    assert_eq!(client.ask(Command::Flush, 0, (0, 0), &[]).0, 0);
    assert_eq!(client.ask(Command::Read, 0, (0, 512), &[]), (0, vec![3; 512]));
    drop(client);
    served.end();
    assert_eq!(std::fs::read(&path).unwrap(), vec![3; 1 << 20]);
}

#[test]
fn many_requests_are_in_flight_and_each_is_answered_once() {
    let served = Served::new();
    let mut client = Client::enter(served.socket()).unwrap();
    let mut sender = Client(client.0.try_clone().unwrap());
    const REQUESTS: u64 = 3000;
    let sending = std::thread::spawn(move || {
        for n in 0..REQUESTS {
            let at = (n % 1000 * 8192, 8192);
            match n % 3 {
                0 => sender.send(Command::Write as u16, 0, n, at, &[n as u8; 8192]),
                1 => sender.send(Command::Read as u16, 0, n, at, &[]),
                _ => sender.send(Command::Flush as u16, 0, n, (0, 0), &[]),
            }
            .unwrap();
        }
    });
    let mut seen = vec![false; REQUESTS as usize];
    for _ in 0..REQUESTS {
        let reply = client.reply().unwrap();
        assert_eq!(reply.error, 0);
        assert!(!std::mem::replace(&mut seen[reply.cookie as usize], true));
        let want = if reply.cookie % 3 == 1 { 8192 } else { 0 };
        assert_eq!(reply.data.len(), want);
    }
    sending.join().unwrap();
    let (_, trace) = served.end();
    assert_eq!(trace.events(), 2 * REQUESTS);
}

#[test]
fn a_client_that_vanishes_harms_nobody() {
    let served = Served::new();
    let mut good = Client::enter(served.socket()).unwrap();
    let write = request(Command::Write as u16, 0, 1, (0, 1 << 20));
    for cut in [1, 4, 27, 28, 29, 1000, 500_000] {
        let mut bad = Client::enter(served.socket()).unwrap();
        let whole = [&write[..], &vec![5; 1 << 20]].concat();
        bad.0.write_all(&whole[..cut]).unwrap();
        if cut % 2 == 0 {
            bad.0.shutdown(Shutdown::Write).unwrap();
            assert!(bad.is_closed());
        }
    }
    // Not a request at all.
    let mut bad = Client::enter(served.socket()).unwrap();
    bad.0.write_all(&[0x55; 28]).unwrap();
    assert!(bad.is_closed());
    // Replies that nobody takes.
    let mut deaf = Client::enter(served.socket()).unwrap();
    for n in 0..200 {
        deaf.send(Command::Read as u16, NBD_CMD_FLAG_DF, n, (0, 1 << 20), &[]).unwrap();
    }
    assert_eq!(good.ask(Command::Read, 0, (0, 1 << 20), &[]), (0, vec![0; 1 << 20]));
    drop(deaf);
    assert!(good.works());
    let (_, trace) = served.end();
    assert_eq!(trace.totals()[0].issues[BlockOp::Write.index()], 0);
}

#[test]
fn ten_thousand_connections_leave_room_for_one_more() {
    let served = Served::new();
    let mut idle = Vec::new();
    for n in 0..10_000 {
        let stream = UnixStream::connect(served.socket()).unwrap();
        if n % 16 == 0 {
            idle.push(stream);
        }
    }
    let mut good = Client::enter(served.socket()).unwrap();
    assert!(good.works());
    drop(idle);
    let (counts, _) = served.end();
    assert_eq!(counts.connections, 10_001);
}

#[test]
fn one_client_too_many_is_turned_away_and_counted() {
    const MOST: usize = 256;
    let served = Served::new();
    let mut clients: Vec<Client> =
        (0..MOST).map(|_| Client::enter(served.socket()).unwrap()).collect();
    assert!(clients.iter_mut().all(Client::works));
    assert!(Client::enter(served.socket()).is_err());
    let (counts, _) = served.end();
    assert_eq!((counts.turned_away, counts.broken), (1, 1));
}

#[test]
fn noise_is_survived() {
    let served = Served::new();
    let mut prng = Prng::new(20);
    for round in 0..400 {
        let mut client = if round % 2 == 0 {
            Client::connect(served.socket()).unwrap()
        } else {
            Client::enter(served.socket()).unwrap()
        };
        let mut noise: Vec<u8> = (0..prng.below(600)).map(|_| prng.below(256) as u8).collect();
        if round % 4 == 1 && noise.len() > 28 {
            // A request's header with anything in it.
            let at = prng.below(2 * SIZE);
            let head = request(
                prng.below(9) as u16,
                prng.below(64) as u16,
                round,
                (at, prng.below(1 << 14) as u32),
            );
            noise[..28].copy_from_slice(&head);
        } else if round % 4 == 0 && noise.len() > 16 {
            noise[..8].copy_from_slice(&IHAVEOPT.to_be_bytes());
            noise[8..16].copy_from_slice(&[
                0,
                0,
                0,
                prng.below(12) as u8,
                0,
                0,
                0,
                prng.below(99) as u8,
            ]);
        }
        // It may be gone before all is said.
        let _ = client.0.write_all(&noise);
        let _ = client.0.shutdown(Shutdown::Write);
        let _ = client.0.read_to_end(&mut Vec::new());
    }
    assert!(Client::enter(served.socket()).unwrap().works());
    served.end();
}

#[test]
fn a_server_that_ends_answers_what_it_was_asked() {
    let served = Served::new();
    let mut client = Client::enter(served.socket()).unwrap();
    for n in 0..64 {
        client.send(Command::Write as u16, 0, n, (n * 4096, 4096), &[1; 4096]).unwrap();
    }
    let idle = UnixStream::connect(served.socket()).unwrap();
    let reader = std::thread::spawn(move || {
        let mut errors = Vec::new();
        while let Ok(reply) = client.reply() {
            errors.push(reply.error);
        }
        errors
    });
    let (_, trace) = served.end();
    let errors = reader.join().unwrap();
    drop(idle);
    const ESHUTDOWN: u32 = 108;
    assert!(errors.iter().all(|error| matches!(*error, 0 | ESHUTDOWN)), "{errors:?}");
    let done = errors.iter().filter(|error| **error == 0).count() as u64;
    assert_eq!(trace.totals()[0].completes, done);
}
