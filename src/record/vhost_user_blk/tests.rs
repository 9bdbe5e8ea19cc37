//! A front-end of the tests' own, honest or not, against the back-end.

use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::*;
use crate::base::{BlockOp, GuestAddr, OpFlags};
use crate::image;
use crate::machine::GuestRam;
use crate::record::recording::{Options, Recording};
use crate::trace::{Event, Issue, StreamInfo, Trace};

const LONG: Duration = Duration::from_secs(30);
const DISK_BYTES: u64 = 64 << 20;
const RAM_BYTES: u64 = 16 << 20;
const SIZE: u16 = 8;
const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const HEADER: u64 = 0x4000;
const STATUS: u64 = 0x5000;
const DATA: u64 = 0x10_0000;
/// What the front-end calls address 0 of its guest.
const USER: u64 = 0x7700_0000_0000;
/// Protocol features: MQ, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, CONFIGURE_MEM_SLOTS.
const PROTOCOL: u64 = 1 | 8 | 0x20 | 0x200 | 0x1000 | 0x8000;
const FEATURES: u64 = 1 << 30 | 1 << 32;
const WRITEBACK: u64 = 1 << 9;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

/// The back-end and its recording.
struct Rig {
    server: Option<Server>,
    recording: Arc<Recording>,
    image: Arc<dyn Image>,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = image::mem(DISK_BYTES);
        let path = dir.path().join("t.qtrace");
        let recording = Recording::start(&path, header(&*image), &Options::default()).unwrap();
        let recording = Arc::new(recording);
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let options = DiskOptions { queues: 2, block_bytes: 512, serial: "a-serial".to_owned() };
        let taps = Arc::clone(&recording);
        let new_tap: NewTap = Box::new(move |queue| {
            taps.stream(StreamInfo { queue: Some(queue.into()), ..StreamInfo::default() })
        });
        let server = serve(listener, Arc::clone(&image), &options, new_tap).unwrap();
        Self { server: Some(server), recording, image, dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Ends it: what was recorded, and what happened besides.
    fn end(mut self) -> (Trace, Vec<String>) {
        let news = self.server.take().unwrap().stop();
        let path = self.recording.path().to_path_buf();
        Arc::into_inner(self.recording).expect("nobody else has it").finish().unwrap();
        (Trace::open(&path).unwrap(), news)
    }

    fn byte(&self, offset: u64) -> u8 {
        let mut byte = [0];
        self.image.read(&mut [IoSliceMut::new(&mut byte)], offset).unwrap();
        byte[0]
    }
}

/// A front-end with a ring of [`SIZE`].
struct Front {
    stream: UnixStream,
    channel: UnixStream,
    ram: GuestRam,
    kick: EventFd,
    call: EventFd,
    error: EventFd,
    avail: u16,
}

/// One descriptor: address, length, flags, next.
type Desc = (u64, u32, u16, u16);

impl Front {
    fn connect(rig: &Rig) -> Self {
        let event = || EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let (channel, theirs) = UnixStream::pair().unwrap();
        let stream = UnixStream::connect(rig.socket()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        // Its size can be changed, other than of RAM of our own making.
        let file = tempfile::tempfile().unwrap();
        file.set_len(RAM_BYTES).unwrap();
        let ram = GuestRam::from_file(file, RAM_BYTES).unwrap();
        let (kick, call, error) = (event(), event(), event());
        let mut front = Self { stream, channel, ram, kick, call, error, avail: 0 };
        front.ask(1, &[]);
        front.tell(16, &PROTOCOL.to_ne_bytes(), &[]);
        front.tell(21, &[], &[theirs.as_raw_fd()]);
        front
    }

    /// Connects, and starts queue 0 with features besides the necessary ones.
    fn start(rig: &Rig, features: u64) -> Self {
        let mut front = Self::connect(rig);
        front.tell(2, &(FEATURES | features).to_ne_bytes(), &[]);
        front.share(RAM_BYTES);
        front.start_ring(0);
        front
    }

    fn send(&mut self, request: u32, body: &[u8], fds: &[RawFd]) {
        let header = [request, 1 | 8, body.len() as u32].map(u32::to_ne_bytes);
        let bytes = [header.as_flattened(), body].concat();
        self.stream.send_with_fds(&[&bytes[..]], fds).unwrap();
    }

    /// The answer to the last message; `None` when the back-end hung up.
    fn answer(&mut self) -> Option<Vec<u8>> {
        let mut header = [0; 12];
        self.stream.read_exact(&mut header).ok()?;
        let size = u32::from_ne_bytes(header[8..].try_into().unwrap());
        let mut body = vec![0; size as usize];
        self.stream.read_exact(&mut body).ok()?;
        Some(body)
    }

    /// Sends a message that is acknowledged; whether it was done.
    fn try_tell(&mut self, request: u32, body: &[u8], fds: &[RawFd]) -> bool {
        self.send(request, body, fds);
        self.answer() == Some(vec![0; 8])
    }

    fn tell(&mut self, request: u32, body: &[u8], fds: &[RawFd]) {
        assert!(self.try_tell(request, body, fds), "request {request}");
    }

    fn ask(&mut self, request: u32, body: &[u8]) -> Vec<u8> {
        self.send(request, body, &[]);
        self.answer().expect("an answer")
    }

    fn share(&mut self, bytes: u64) {
        let words = [1, 0, bytes, USER, 0];
        self.tell(5, words.map(u64::to_ne_bytes).as_flattened(), &[self.ram.file().as_raw_fd()]);
    }

    fn start_ring(&mut self, base: u16) {
        let pair = |num: u32| [0, num].map(u32::to_ne_bytes).as_flattened().to_vec();
        self.tell(8, &pair(SIZE.into()), &[]);
        self.tell(10, &pair(base.into()), &[]);
        let places = [0, USER + DESC, USER + USED, USER + AVAIL, 0].map(u64::to_ne_bytes);
        self.tell(9, places.as_flattened(), &[]);
        let fds = [self.error.as_raw_fd(), self.call.as_raw_fd(), self.kick.as_raw_fd()];
        for (request, fd) in [14, 13, 12].into_iter().zip(fds) {
            self.tell(request, &0u64.to_ne_bytes(), &[fd]);
        }
        self.tell(18, &pair(1), &[]);
    }

    /// Stops the ring; its base.
    fn stop_ring(&mut self) -> u32 {
        let answer = self.ask(11, &[0; 8]);
        u32::from_ne_bytes(answer[4..].try_into().unwrap())
    }

    fn put(&self, descriptors: &[Desc]) {
        for (at, (addr, len, flags, next)) in (0u64..).zip(descriptors) {
            let mut bytes = addr.to_le_bytes().to_vec();
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&flags.to_le_bytes());
            bytes.extend_from_slice(&next.to_le_bytes());
            assert!(self.ram.write(GuestAddr(DESC + 16 * at), &bytes));
        }
    }

    fn announce(&mut self, head: u16, count: u16) {
        let slot = AVAIL + 4 + 2 * u64::from(self.avail % SIZE);
        self.ram.store_u16(GuestAddr(slot), head);
        self.avail = self.avail.wrapping_add(count);
        self.ram.store_u16(GuestAddr(AVAIL + 2), self.avail);
    }

    fn used(&self) -> u16 {
        self.ram.load_u16(GuestAddr(USED + 2))
    }

    /// Waits for an event; `false`: the back-end hung up first.
    fn wait(&self, event: &EventFd) -> bool {
        let entry =
            |fd: &dyn AsRawFd, events| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
        let mut fds = [entry(event, libc::POLLIN), entry(&self.stream, libc::POLLIN)];
        // SAFETY: two valid entries for the duration of the call.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, LONG.as_millis() as libc::c_int) };
        assert!(ready > 0, "nothing came");
        event.read().is_ok()
    }

    /// Makes a chain available and rings.
    fn submit(&mut self, descriptors: &[Desc]) {
        self.put(descriptors);
        self.announce(0, 1);
        self.kick.write(1).unwrap();
    }

    fn header(&self, op: u32, sector: u64) {
        let bytes = [u64::from(op).to_le_bytes(), sector.to_le_bytes()];
        assert!(self.ram.write(GuestAddr(HEADER), bytes.as_flattened()));
        self.ram.write(GuestAddr(STATUS), &[0xff]);
    }

    /// A request with these data descriptors; status and used length.
    fn request(&mut self, op: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
        self.header(op, sector);
        let mut descriptors = vec![(HEADER, 16, NEXT, 1)];
        for (addr, len, write) in data {
            let next = descriptors.len() as u16 + 1;
            let flags = NEXT | if *write { WRITE } else { 0 };
            descriptors.push((*addr, *len, flags, next));
        }
        descriptors.push((STATUS, 1, WRITE, 0));
        self.chain(&descriptors)
    }

    fn chain(&mut self, descriptors: &[Desc]) -> (u8, u32) {
        self.submit(descriptors);
        assert!(self.wait(&self.call), "the back-end hung up");
        assert_eq!(self.used(), self.avail);
        let slot = USED + 4 + 8 * u64::from(self.avail.wrapping_sub(1) % SIZE);
        let (mut len, mut status) = ([0; 4], [0]);
        self.ram.read(GuestAddr(slot + 4), &mut len);
        self.ram.read(GuestAddr(STATUS), &mut status);
        (status[0], u32::from_le_bytes(len))
    }

    fn fill(&self, len: usize, byte: u8) {
        assert!(self.ram.write(GuestAddr(DATA), &vec![byte; len]));
    }

    /// Whether the back-end hung up.
    fn is_gone(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}

fn issues(trace: &Trace) -> Vec<Issue> {
    let mut cursor = trace.cursor(0);
    let mut issues = Vec::new();
    while let Some((_, event)) = cursor.next().unwrap() {
        if let Event::Issue(issue) = event {
            issues.push(issue);
        }
    }
    issues
}

/// What reads returned, in order of completion.
fn read_data(trace: &Trace) -> Vec<Vec<u8>> {
    let mut cursor = trace.cursor(0);
    let (mut lens, mut data) = (std::collections::HashMap::new(), Vec::new());
    while let Some((_, event)) = cursor.next().unwrap() {
        match event {
            Event::Issue(issue) if issue.op == BlockOp::Read => {
                lens.insert(issue.tag, issue.len);
            }
            Event::Complete(done) => {
                if let Some(len) = lens.remove(&done.tag) {
                    let mut bytes = vec![0; len as usize];
                    trace.read_payload(done.payload, len, 0, &mut bytes).unwrap();
                    data.push(bytes);
                }
            }
            _ => {}
        }
    }
    data
}

#[test]
fn requests_are_carried_out_and_recorded_with_their_data() {
    let rig = Rig::new();
    let mut front = Front::start(&rig, WRITEBACK | DISCARD | WRITE_ZEROES);
    front.fill(4096, 0x5a);
    assert_eq!(front.request(OUT, 8, &[(DATA, 4096, false)]), (0, 1));
    // In three pieces, the first of which is not a sector.
    let pieces = [(DATA, 100, true), (DATA + 0x2000, 412, true), (DATA + 0x4000, 1024, true)];
    assert_eq!(front.request(IN, 7, &pieces), (0, 1537));
    let mut got = [0; 1024];
    front.ram.read(GuestAddr(DATA + 0x4000), &mut got);
    assert_eq!(got, [0x5a; 1024]);
    assert_eq!(front.request(FLUSH, 0, &[]), (0, 1));
    assert_eq!(front.request(GET_ID, 0, &[(DATA, 20, true)]), (0, 21));
    let mut id = [0; 20];
    front.ram.read(GuestAddr(DATA), &mut id);
    assert_eq!(&id[..9], b"a-serial\0");
    // Two ranges of a write-zeroes, the second of which may be unmapped; then a discard.
    let range = |sector: u64, sectors: u32, flags: u32| {
        let mut bytes = sector.to_le_bytes().to_vec();
        bytes.extend_from_slice(&sectors.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes
    };
    front.ram.write(GuestAddr(DATA), &[range(8, 1, 0), range(10, 2, 1)].concat());
    assert_eq!(front.request(13, 0, &[(DATA, 32, false)]), (0, 1));
    front.ram.write(GuestAddr(DATA), &range(100, 8, 0));
    assert_eq!(front.request(11, 0, &[(DATA, 16, false)]), (0, 1));
    assert_eq!([8, 9, 10, 12].map(|sector| rig.byte(sector * 512)), [0, 0x5a, 0, 0x5a]);
    assert_eq!(front.stop_ring(), 6);
    drop(front);
    let (trace, news) = rig.end();
    assert_eq!(news, Vec::<String>::new());
    let issues = issues(&trace);
    let ops: Vec<(BlockOp, u64, u64)> =
        issues.iter().map(|issue| (issue.op, issue.offset, issue.len)).collect();
    assert_eq!(
        ops,
        [
            (BlockOp::Write, 4096, 4096),
            (BlockOp::Read, 3584, 1536),
            (BlockOp::Flush, 0, 0),
            (BlockOp::GetId, 0, 0),
            (BlockOp::WriteZeroes, 4096, 512),
            (BlockOp::WriteZeroes, 5120, 1024),
            (BlockOp::Discard, 51200, 4096),
        ]
    );
    assert_eq!(issues[5].flags, OpFlags::UNMAP);
    let mut written = vec![0; 4096];
    trace.read_payload(issues[0].payload, 4096, 0, &mut written).unwrap();
    assert_eq!(written, vec![0x5a; 4096]);
    assert_eq!(read_data(&trace), [[vec![0; 512], vec![0x5a; 1024]].concat()]);
    assert_eq!(trace.streams()[0].queue, Some(0));
    assert_eq!(trace.totals()[0].completes, 7);
    assert!(trace.truncation().is_none());
}

#[test]
fn a_front_end_that_cannot_flush_gets_a_write_through_cache() {
    let rig = Rig::new();
    let mut front = Front::start(&rig, 0);
    assert_eq!(front.request(OUT, 0, &[(DATA, 512, false)]), (0, 1));
    let (trace, _) = rig.end();
    assert_eq!(issues(&trace)[0].flags, OpFlags::FUA);
}

#[test]
fn what_a_disk_cannot_do_is_answered_and_not_recorded() {
    let rig = Rig::new();
    let mut front = Front::start(&rig, WRITEBACK | DISCARD);
    let (io_error, unsupported) = (1, 2);
    let end = DISK_BYTES / 512;
    let big = RAM_BYTES as u32 - DATA as u32;
    for (op, sector, data, want) in [
        (IN, end, vec![(DATA, 512, true)], io_error),
        (OUT, end - 1, vec![(DATA, 1024, false)], io_error),
        (OUT, u64::MAX, vec![(DATA, 512, false)], io_error),
        (IN, 0, vec![(DATA, 100, true)], io_error),
        (IN, 0, vec![(DATA, big, true); 3], io_error),
        (OUT, 0, vec![(DATA, big, false); 3], io_error),
        (13, 0, vec![(DATA, 16, false)], unsupported),
        (11, 0, vec![(DATA, 17, false)], io_error),
        (11, 0, vec![], io_error),
        (0xffff, 0, vec![(DATA, 512, true)], unsupported),
    ] {
        assert_eq!(front.request(op, sector, &data), (want, 1), "{op} {sector} {data:x?}");
    }
    // Half a header.
    front.header(OUT, 0);
    assert_eq!(front.chain(&[(HEADER, 8, NEXT, 1), (STATUS, 1, WRITE, 0)]), (io_error, 1));
    let (trace, news) = rig.end();
    assert_eq!(trace.events(), 0);
    assert_eq!(news, ["11 requests were refused, and are not recorded"]);
}

#[test]
fn a_broken_ring_is_told_of_and_can_be_started_again() {
    let rig = Rig::new();
    let mut front = Front::start(&rig, WRITEBACK);
    let head = (HEADER, 16, NEXT, 1);
    let chains: [(&str, Vec<Desc>); 9] = [
        ("it loops", vec![head, (DATA, 512, NEXT, 0)]),
        ("it leaves the table", vec![(HEADER, 16, NEXT, SIZE)]),
        ("it is outside memory", vec![head, (RAM_BYTES, 512, WRITE, 0)]),
        ("it ends outside", vec![head, (RAM_BYTES - 1, 512, WRITE, 0)]),
        ("it wraps around", vec![head, (u64::MAX - 8, 512, WRITE, 0)]),
        ("it is too long", vec![head, (0, u32::MAX, WRITE, 0)]),
        ("it turns back", vec![head, (STATUS, 1, WRITE | NEXT, 2), (DATA, 8, 0, 0)]),
        ("it is indirect", vec![(DATA, 32, 4, 0)]),
        ("there is no status", vec![(HEADER, 16, 0, 0)]),
    ];
    for (what, chain) in chains {
        front.header(IN, 0);
        front.submit(&chain);
        assert!(front.wait(&front.error), "{what}: hung up");
        assert_eq!(front.used(), front.avail - 1, "{what}: it was answered");
        // The driver resets its device.
        let base = front.stop_ring();
        let taken = u32::from(what == "there is no status");
        assert_eq!(base, u32::from(front.avail) - 1 + taken, "{what}");
        front.avail = front.used();
        front.ram.store_u16(GuestAddr(AVAIL + 2), front.avail);
        front.start_ring(front.avail);
        assert_eq!(front.request(FLUSH, 0, &[]), (0, 1), "{what}");
    }
    // More entries than there are.
    front.announce(0, SIZE + 1);
    front.kick.write(1).unwrap();
    assert!(front.wait(&front.error));
    let (trace, news) = rig.end();
    assert_eq!(issues(&trace).len(), 9);
    assert_eq!(news.len(), 10, "{news:?}");
    assert!(news.iter().all(|line| line.starts_with("queue 0: ")), "{news:?}");
}

#[test]
fn memory_that_is_taken_away_ends_the_connection_and_nothing_else() {
    let rig = Rig::new();
    let mut front = Front::start(&rig, WRITEBACK);
    assert_eq!(front.request(FLUSH, 0, &[]), (0, 1));
    front.ram.file().set_len(4096).unwrap();
    front.kick.write(1).unwrap();
    assert!(front.is_gone());
    let mut front = Front::start(&rig, WRITEBACK);
    assert_eq!(front.request(FLUSH, 0, &[]), (0, 1));
    assert_eq!(rig.server().sessions(), 2);
    let (trace, news) = rig.end();
    assert_eq!(issues(&trace).len(), 2);
    assert!(news[0].contains("took away memory"), "{news:?}");
}

#[test]
fn hostile_messages_end_the_connection_and_nothing_else() {
    let rig = Rig::new();
    let pair = |index: u32, num: u32| [index, num].map(u32::to_ne_bytes).as_flattened().to_vec();
    let regular = tempfile::tempfile().unwrap();
    let short = GuestRam::new(4096).unwrap();
    let region = |guest: u64, len: u64, offset: u64| {
        [1, guest, len, USER, offset].map(u64::to_ne_bytes).as_flattened().to_vec()
    };
    let fd = [regular.as_raw_fd()];
    let small = [short.file().as_raw_fd()];
    let hostile: Vec<(u32, Vec<u8>, &[RawFd])> = vec![
        (2, u64::MAX.to_ne_bytes().to_vec(), &[]),
        (5, region(0, RAM_BYTES, 0), &small),
        (5, region(0, 4096, 4096), &small),
        (5, region(u64::MAX - 1, 4096, 0), &small),
        (5, region(0, 0, 0), &small),
        (5, region(0, 4096, 0), &[]),
        (5, vec![0xff; 4096 - 12], &[]),
        (8, pair(0, 3), &[]),
        (8, pair(0, 0x1_0000), &[]),
        (8, pair(9, 8), &[]),
        (10, pair(0, 0x1_0000), &[]),
        (11, pair(9, 0), &[]),
        (12, 0u64.to_ne_bytes().to_vec(), &fd),
        (12, 0x100u64.to_ne_bytes().to_vec(), &[]),
        (13, 0u64.to_ne_bytes().to_vec(), &fd),
        (14, 0u64.to_ne_bytes().to_vec(), &fd),
        (21, vec![], &[]),
        (31, [4096u64, 0, 0x0008_0002].map(u64::to_ne_bytes).as_flattened().to_vec(), &fd),
        (31, [u64::MAX, u64::MAX, 0x0008_0002].map(u64::to_ne_bytes).as_flattened().to_vec(), &fd),
        (6, vec![0; 16], &fd),
        (0, vec![], &[]),
        (1000, vec![], &[]),
    ];
    for (request, body, fds) in &hostile {
        let mut front = Front::connect(&rig);
        front.send(*request, body, fds);
        match front.answer() {
            // Refused in words, or by hanging up.
            Some(answer) => assert_ne!(answer, vec![0; 8], "{request}"),
            None => assert!(front.is_gone(), "{request}"),
        }
    }
    // Half a message, and none.
    let mut front = Front::connect(&rig);
    front.stream.write_all(&[2, 0, 0, 0, 1]).unwrap();
    drop(front);
    drop(UnixStream::connect(rig.socket()).unwrap());
    let mut front = Front::start(&rig, WRITEBACK);
    assert_eq!(front.request(FLUSH, 0, &[]), (0, 1));
    let (trace, news) = rig.end();
    assert_eq!(issues(&trace).len(), 1);
    assert!(!news.is_empty());
}

#[test]
fn a_message_that_never_ends_does_not_hold_up_the_end() {
    let rig = Rig::new();
    let mut front = Front::connect(&rig);
    front.stream.write_all(&[2, 0, 0, 0, 1]).unwrap();
    let start = Instant::now();
    rig.end();
    assert!(start.elapsed() < LONG);
    assert!(front.is_gone());
}

#[test]
fn a_disk_of_another_size_is_told_of() {
    let rig = Rig::new();
    let mut front = Front::start(&rig, WRITEBACK);
    let capacity = |front: &mut Front| {
        let mut body = [0u32, 60, 0].map(u32::to_ne_bytes).as_flattened().to_vec();
        body.resize(72, 0);
        let answer = front.ask(24, &body);
        u64::from_le_bytes(answer[12..20].try_into().unwrap())
    };
    assert_eq!(capacity(&mut front), DISK_BYTES / 512);
    let larger = image::mem(2 * DISK_BYTES);
    rig.server().reopen(&|| Ok(Arc::clone(&larger))).unwrap();
    let mut message = [0; 12];
    front.channel.read_exact(&mut message).unwrap();
    assert_eq!(message, *[2u32, 1, 0].map(u32::to_ne_bytes).as_flattened());
    assert_eq!(capacity(&mut front), 2 * DISK_BYTES / 512);
    front.fill(512, 7);
    assert_eq!(front.request(OUT, DISK_BYTES / 512, &[(DATA, 512, false)]), (0, 1));
    let mut byte = [0];
    larger.read(&mut [IoSliceMut::new(&mut byte)], DISK_BYTES).unwrap();
    assert_eq!(byte, [7]);
}

#[test]
fn a_successor_carries_out_what_was_taken_and_not_answered() {
    let rig = Rig::new();
    let mut front = Front::connect(&rig);
    front.tell(2, &(FEATURES | WRITEBACK).to_ne_bytes(), &[]);
    front.share(RAM_BYTES);
    // A predecessor took a write at head 0 and was killed.
    let file = inflight::create(2, SIZE).unwrap();
    let bytes = inflight::total_bytes(2, SIZE);
    let memory = inflight::Inflight::new(&file, bytes, 0, 2, SIZE).unwrap();
    let mut predecessor = memory.queue(0, SIZE).unwrap();
    assert_eq!(predecessor.resume(0), None);
    predecessor.taken(0);
    front.header(OUT, 3);
    front.fill(512, 0x77);
    front.put(&[(HEADER, 16, NEXT, 1), (DATA, 512, NEXT, 2), (STATUS, 1, WRITE, 0)]);
    front.announce(0, 1);
    let body = [bytes, 0, 2 | u64::from(SIZE) << 16].map(u64::to_ne_bytes);
    front.tell(32, body.as_flattened(), &[file.as_raw_fd()]);
    // What a front-end knows of a back-end that died: the used index.
    front.start_ring(0);
    assert!(front.wait(&front.call));
    assert_eq!((front.used(), rig.byte(3 * 512)), (1, 0x77));
    assert_eq!(front.request(FLUSH, 0, &[]), (0, 1));
    assert_eq!(front.stop_ring(), 2);
    let mut successor = memory.queue(0, SIZE).unwrap();
    assert_eq!(successor.resume(2), Some(vec![]));
    // Memory of the back-end's own making holds what was asked for.
    front.send(31, body.as_flattened(), &[]);
    let mut answer = [0; 12 + 24];
    let mut fds = [-1];
    let mut iov = [libc::iovec { iov_base: answer.as_mut_ptr().cast(), iov_len: answer.len() }];
    // SAFETY: one buffer of the length that it says, which outlives the call.
    let (_, count) = unsafe { front.stream.recv_with_fds(&mut iov, &mut fds) }.unwrap();
    assert_eq!(count, 1);
    let (trace, _) = rig.end();
    assert_eq!(issues(&trace).len(), 2);
}
