//! One NBD connection: handshake, requests and replies, one at a time.
//!
//! Protocol: NetworkBlockDevice/nbd `doc/proto.md`; fixed newstyle, `NBD_OPT_GO`, structured
//! replies and the `base:allocation` context where the server has them. All numbers are big
//! endian. No length that the server sends is trusted before it is compared with what was asked.

use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;

use super::nbd_proto::*;

/// Longest text or option reply that is read.
const TEXT_BYTES_MAX: u32 = 64 << 10;
/// Extents one block-status reply may hold; one was asked for.
const STATUS_BYTES_MAX: u32 = 1 << 20;

/// A connection past its handshake.
pub struct Connection {
    stream: UnixStream,
    /// Bytes of the export.
    pub size: u64,
    /// `NBD_FLAG_*` of the export.
    pub flags: u16,
    structured: bool,
    /// The server's number for `base:allocation`.
    allocation: Option<u32>,
    cookie: u64,
    /// The stream is out of step: nothing more can be read from it.
    broken: bool,
}

fn protocol(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("NBD server: {what}"))
}

fn number<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_u16(stream: &mut impl Read) -> io::Result<u16> {
    Ok(u16::from_be_bytes(number(stream)?))
}

fn read_u32(stream: &mut impl Read) -> io::Result<u32> {
    Ok(u32::from_be_bytes(number(stream)?))
}

fn read_u64(stream: &mut impl Read) -> io::Result<u64> {
    Ok(u64::from_be_bytes(number(stream)?))
}

fn read_bytes(stream: &mut impl Read, len: u32, max: u32) -> io::Result<Vec<u8>> {
    if len > max {
        return Err(protocol("a reply is longer than it may be"));
    }
    let mut bytes = vec![0; len as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl Connection {
    /// Shakes hands and enters the default export.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        let mut this = Self {
            stream,
            size: 0,
            flags: 0,
            structured: false,
            allocation: None,
            cookie: 0,
            broken: false,
        };
        if read_u64(&mut this.stream)? != NBDMAGIC || read_u64(&mut this.stream)? != IHAVEOPT {
            return Err(protocol("it does not speak the newstyle protocol"));
        }
        let offered = read_u16(&mut this.stream)?;
        if offered & NBD_FLAG_FIXED_NEWSTYLE == 0 {
            return Err(protocol("it does not speak the fixed newstyle protocol"));
        }
        let flags = u32::from(offered & (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
        this.stream.write_all(&flags.to_be_bytes())?;
        this.structured = this.option(NBD_OPT_STRUCTURED_REPLY, &[], |_, _| Ok(()))?;
        if this.structured {
            this.ask_for_allocation()?;
        }
        this.go()?;
        Ok(this)
    }

    /// Sends an option and hands every reply but the last to `each`; `false` when it is refused.
    fn option(
        &mut self,
        option: u32,
        data: &[u8],
        mut each: impl FnMut(u32, &[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut message = Vec::with_capacity(16 + data.len());
        message.extend(IHAVEOPT.to_be_bytes());
        message.extend(option.to_be_bytes());
        message.extend((data.len() as u32).to_be_bytes());
        message.extend(data);
        self.stream.write_all(&message)?;
        loop {
            let magic = read_u64(&mut self.stream)?;
            let (answered, kind) = (read_u32(&mut self.stream)?, read_u32(&mut self.stream)?);
            let len = read_u32(&mut self.stream)?;
            if magic != NBD_OPT_REPLY_MAGIC || answered != option {
                return Err(protocol("an option's reply is not one"));
            }
            let data = read_bytes(&mut self.stream, len, TEXT_BYTES_MAX)?;
            match kind {
                NBD_REP_ACK => return Ok(true),
                kind if kind & NBD_REP_FLAG_ERROR != 0 => return Ok(false),
                kind => each(kind, &data)?,
            }
        }
    }

    fn ask_for_allocation(&mut self) -> io::Result<()> {
        const CONTEXT: &[u8] = BASE_ALLOCATION.as_bytes();
        let mut query = Vec::new();
        query.extend(0u32.to_be_bytes()); // the default export's name
        query.extend(1u32.to_be_bytes());
        query.extend((CONTEXT.len() as u32).to_be_bytes());
        query.extend(CONTEXT);
        let mut id = None;
        self.option(NBD_OPT_SET_META_CONTEXT, &query, |kind, data| {
            if kind == NBD_REP_META_CONTEXT && data.get(4..) == Some(CONTEXT) {
                id = Some(read_u32(&mut &*data)?);
            }
            Ok(())
        })?;
        self.allocation = id;
        Ok(())
    }

    fn go(&mut self) -> io::Result<()> {
        let mut export = None;
        // The default export's name, and no information beyond the mandatory.
        let accepted = self.option(NBD_OPT_GO, &[0; 6], |kind, data| {
            let mut data = data;
            if kind == NBD_REP_INFO && read_u16(&mut data)? == NBD_INFO_EXPORT {
                export = Some((read_u64(&mut data)?, read_u16(&mut data)?));
            }
            Ok(())
        })?;
        match export {
            Some((size, flags)) if accepted => (self.size, self.flags) = (size, flags),
            _ => return Err(protocol("it refuses the export")),
        }
        Ok(())
    }

    /// Whether the server tells where there is data.
    pub fn has_block_status(&self) -> bool {
        self.allocation.is_some()
    }

    /// Runs `exchange`, after which, if it failed half-way, nothing else can be exchanged.
    fn exchange<T>(
        &mut self,
        exchange: impl FnOnce(&mut Self) -> io::Result<Result<T, io::Error>>,
    ) -> io::Result<T> {
        if self.broken {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the connection to the NBD server is lost",
            ));
        }
        match exchange(self) {
            Ok(result) => result,
            Err(e) => {
                self.broken = true;
                Err(e)
            }
        }
    }

    fn send(
        &mut self,
        command: Command,
        flags: u16,
        offset: u64,
        len: u32,
        data: &[u8],
    ) -> io::Result<()> {
        self.cookie = self.cookie.wrapping_add(1);
        let mut head = [0; 28];
        head[0..4].copy_from_slice(&NBD_REQUEST_MAGIC.to_be_bytes());
        head[4..6].copy_from_slice(&flags.to_be_bytes());
        head[6..8].copy_from_slice(&(command as u16).to_be_bytes());
        head[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        head[16..24].copy_from_slice(&offset.to_be_bytes());
        head[24..28].copy_from_slice(&len.to_be_bytes());
        let sent = self.stream.write_vectored(&[IoSlice::new(&head), IoSlice::new(data)])?;
        if sent < head.len() {
            self.stream.write_all(&head[sent..])?;
        }
        self.stream.write_all(&data[sent.saturating_sub(head.len()).min(data.len())..])
    }

    /// A command that carries no data either way.
    pub fn command(
        &mut self,
        command: Command,
        flags: u16,
        offset: u64,
        len: u32,
    ) -> io::Result<()> {
        self.exchange(|this| {
            this.send(command, flags, offset, len, &[])?;
            this.reply(&mut NoData)
        })
    }

    /// Writes `data`.
    pub fn write(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        self.exchange(|this| {
            this.send(Command::Write, 0, offset, data.len() as u32, data)?;
            this.reply(&mut NoData)
        })
    }

    /// Fills `buf`.
    pub fn read(&mut self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.exchange(|this| {
            this.send(Command::Read, 0, offset, buf.len() as u32, &[])?;
            this.reply(&mut Reading { buf, offset, got: 0 })
        })
    }

    /// Whether the range from `offset` reads as zeros, and for how many bytes that is known.
    pub fn block_status(&mut self, offset: u64, len: u32) -> io::Result<(bool, u64)> {
        let Some(context) = self.allocation else { return Ok((false, len.into())) };
        self.exchange(|this| {
            this.send(Command::BlockStatus, NBD_CMD_FLAG_REQ_ONE, offset, len, &[])?;
            let mut status = Status { context, first: None };
            let result = this.reply(&mut status)?;
            Ok(result.and_then(|()| match status.first {
                Some((extent, flags)) if extent > 0 => {
                    Ok((flags & NBD_STATE_ZERO != 0, extent.into()))
                }
                _ => Err(protocol("a block status without extents")),
            }))
        })
    }

    /// Says goodbye; there is no reply.
    pub fn disconnect(&mut self) {
        if !self.broken {
            self.broken = true;
            // The server may be gone already: there is nobody left to tell.
            let _ = self.send(Command::Disconnect, 0, 0, 0, &[]);
        }
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// The reply to the request just sent: the outer error breaks the connection, the inner one
    /// is the server's answer.
    fn reply(&mut self, into: &mut dyn Payload) -> io::Result<Result<(), io::Error>> {
        let mut failure = None;
        loop {
            match read_u32(&mut self.stream)? {
                NBD_SIMPLE_REPLY_MAGIC => {
                    let error = read_u32(&mut self.stream)?;
                    self.check_cookie()?;
                    if error != 0 {
                        return Ok(Err(server_error(error)));
                    }
                    into.simple(&mut self.stream)?;
                    return Ok(Ok(()));
                }
                NBD_STRUCTURED_REPLY_MAGIC if self.structured => {
                    let flags = read_u16(&mut self.stream)?;
                    let kind = read_u16(&mut self.stream)?;
                    self.check_cookie()?;
                    let len = read_u32(&mut self.stream)?;
                    if kind & NBD_REPLY_TYPE_ERROR_BIT != 0 {
                        let data = read_bytes(&mut self.stream, len, TEXT_BYTES_MAX)?;
                        failure = Some(read_u32(&mut &*data)?);
                    } else if kind != NBD_REPLY_TYPE_NONE {
                        into.chunk(kind, len, &mut self.stream)?;
                    } else if len != 0 {
                        return Err(protocol("an empty chunk with content"));
                    }
                    if flags & NBD_REPLY_FLAG_DONE == 0 {
                        continue;
                    }
                    return match failure {
                        Some(error) => Ok(Err(server_error(error))),
                        None => into.done().map(Ok),
                    };
                }
                _ => return Err(protocol("a reply is not one")),
            }
        }
    }

    fn check_cookie(&mut self) -> io::Result<()> {
        if read_u64(&mut self.stream)? == self.cookie {
            Ok(())
        } else {
            Err(protocol("a reply to something else"))
        }
    }
}

/// NBD's error numbers are Linux's.
fn server_error(error: u32) -> io::Error {
    io::Error::from_raw_os_error(i32::try_from(error).unwrap_or(libc::EIO))
}

/// Where a reply's content goes.
trait Payload {
    /// What follows a simple reply.
    fn simple(&mut self, stream: &mut UnixStream) -> io::Result<()>;
    /// One chunk of a structured reply.
    fn chunk(&mut self, kind: u16, len: u32, stream: &mut UnixStream) -> io::Result<()>;
    /// All chunks have come.
    fn done(&mut self) -> io::Result<()>;
}

struct NoData;

impl Payload for NoData {
    fn simple(&mut self, _stream: &mut UnixStream) -> io::Result<()> {
        Ok(())
    }

    fn chunk(&mut self, _kind: u16, _len: u32, _stream: &mut UnixStream) -> io::Result<()> {
        Err(protocol("content that was not asked for"))
    }

    fn done(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Reading<'a> {
    buf: &'a mut [u8],
    offset: u64,
    got: u64,
}

impl Reading<'_> {
    /// The part of the buffer for `len` bytes at `at`.
    fn part(&mut self, at: u64, len: u64) -> io::Result<&mut [u8]> {
        let from = at.checked_sub(self.offset);
        let to = from.and_then(|from| from.checked_add(len));
        let part = match (from, to) {
            (Some(from), Some(to)) => self.buf.get_mut(from as usize..to as usize),
            _ => None,
        };
        self.got = self.got.saturating_add(len);
        part.ok_or_else(|| protocol("data that was not asked for"))
    }
}

impl Payload for Reading<'_> {
    fn simple(&mut self, stream: &mut UnixStream) -> io::Result<()> {
        stream.read_exact(self.buf)
    }

    fn chunk(&mut self, kind: u16, len: u32, stream: &mut UnixStream) -> io::Result<()> {
        match kind {
            NBD_REPLY_TYPE_OFFSET_DATA if len > 8 => {
                let at = read_u64(stream)?;
                stream.read_exact(self.part(at, u64::from(len) - 8)?)
            }
            NBD_REPLY_TYPE_OFFSET_HOLE if len == 12 => {
                let (at, len) = (read_u64(stream)?, read_u32(stream)?);
                self.part(at, len.into())?.fill(0);
                Ok(())
            }
            _ => Err(protocol("a chunk of an unknown kind")),
        }
    }

    fn done(&mut self) -> io::Result<()> {
        // Chunks must not overlap, so their sum says whether all has come.
        if self.got == self.buf.len() as u64 {
            Ok(())
        } else {
            Err(protocol("a part of the data is missing"))
        }
    }
}

struct Status {
    context: u32,
    first: Option<(u32, u32)>,
}

impl Payload for Status {
    fn simple(&mut self, _stream: &mut UnixStream) -> io::Result<()> {
        Err(protocol("a block status without content"))
    }

    fn chunk(&mut self, kind: u16, len: u32, stream: &mut UnixStream) -> io::Result<()> {
        if kind != NBD_REPLY_TYPE_BLOCK_STATUS {
            return Err(protocol("a chunk of an unknown kind"));
        }
        let data = read_bytes(stream, len, STATUS_BYTES_MAX)?;
        let mut data = &*data;
        if read_u32(&mut data)? == self.context {
            self.first = Some((read_u32(&mut data)?, read_u32(&mut data)?));
        }
        Ok(())
    }

    fn done(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that has sent `script` and takes whatever it is told.
    fn connect(script: &[u8]) -> io::Result<Connection> {
        let (ours, mut theirs) = UnixStream::pair()?;
        theirs.write_all(script)?;
        let reader = std::thread::spawn(move || {
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            // Until our side is gone.
            let _ = io::copy(&mut theirs, &mut io::sink());
        });
        let connection = Connection::new(ours);
        if connection.is_err() {
            reader.join().unwrap();
        }
        connection
    }

    fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = NBD_OPT_REPLY_MAGIC.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    fn greeting() -> Vec<u8> {
        let mut bytes = NBDMAGIC.to_be_bytes().to_vec();
        bytes.extend(IHAVEOPT.to_be_bytes());
        bytes.extend(3u16.to_be_bytes());
        bytes
    }

    /// The handshake of a server with structured replies and a disk of 4096 bytes.
    fn handshake() -> Vec<u8> {
        let mut bytes = greeting();
        bytes.extend(reply(NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, &[]));
        let context = [&7u32.to_be_bytes()[..], b"base:allocation"].concat();
        bytes.extend(reply(NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, &context));
        bytes.extend(reply(NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, &[]));
        let export =
            [&0u16.to_be_bytes()[..], &4096u64.to_be_bytes(), &1u16.to_be_bytes()].concat();
        bytes.extend(reply(NBD_OPT_GO, NBD_REP_INFO, &export));
        bytes.extend(reply(NBD_OPT_GO, NBD_REP_ACK, &[]));
        bytes
    }

    fn chunk(flags: u16, kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
        let mut bytes = NBD_STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    fn data_at(at: u64, data: &[u8]) -> Vec<u8> {
        [&at.to_be_bytes()[..], data].concat()
    }

    fn read_after(script: &[u8]) -> io::Result<[u8; 4]> {
        let mut connection = connect(&[&handshake()[..], script].concat())?;
        assert_eq!((connection.size, connection.has_block_status()), (4096, true));
        let mut buf = [9; 4];
        connection.read(&mut buf, 100).map(|()| buf)
    }

    #[test]
    fn chunks_come_in_any_order() {
        let script = [
            chunk(0, NBD_REPLY_TYPE_OFFSET_DATA, 1, &data_at(102, &[3, 4])),
            chunk(1, NBD_REPLY_TYPE_OFFSET_HOLE, 1, &data_at(100, &2u32.to_be_bytes())),
        ];
        assert_eq!(read_after(&script.concat()).unwrap(), [0, 0, 3, 4]);
    }

    #[test]
    fn an_error_of_the_server_is_that_error() {
        let error = [&5u32.to_be_bytes()[..], &[0, 0]].concat();
        let script = chunk(1, NBD_REPLY_TYPE_ERROR_BIT | 1, 1, &error);
        assert_eq!(read_after(&script).unwrap_err().raw_os_error(), Some(libc::EIO));
    }

    #[test]
    fn replies_that_lie_are_refused() {
        let lies = [
            chunk(1, NBD_REPLY_TYPE_OFFSET_DATA, 2, &data_at(100, &[1; 4])),
            chunk(1, NBD_REPLY_TYPE_OFFSET_DATA, 1, &data_at(99, &[1; 4])),
            chunk(1, NBD_REPLY_TYPE_OFFSET_DATA, 1, &data_at(101, &[1; 4])),
            chunk(1, NBD_REPLY_TYPE_OFFSET_DATA, 1, &data_at(u64::MAX, &[1; 4])),
            chunk(1, NBD_REPLY_TYPE_OFFSET_DATA, 1, &data_at(100, &[1; 3])),
            chunk(1, NBD_REPLY_TYPE_OFFSET_HOLE, 1, &data_at(100, &u32::MAX.to_be_bytes())),
            chunk(1, NBD_REPLY_TYPE_BLOCK_STATUS, 1, &[0; 12]),
            chunk(1, NBD_REPLY_TYPE_NONE, 1, &[1]),
            chunk(1, NBD_REPLY_TYPE_NONE, 1, &[]),
            vec![0; 64],
            vec![],
        ];
        for (n, lie) in lies.iter().enumerate() {
            assert!(read_after(lie).is_err(), "lie {n}");
        }
    }

    #[test]
    fn after_a_lie_nothing_more_is_believed() {
        let good = chunk(1, NBD_REPLY_TYPE_OFFSET_DATA, 2, &data_at(100, &[1; 4]));
        let mut connection = connect(&[handshake(), vec![0; 4], good].concat()).unwrap();
        assert!(connection.read(&mut [0; 4], 100).is_err());
        let error = connection.read(&mut [0; 4], 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }

    #[test]
    fn every_cut_and_every_flip_of_the_handshake_is_an_answer() {
        let good = handshake();
        for len in 0..good.len() {
            assert!(connect(&good[..len]).is_err(), "{len}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x80;
            // Some flips do no harm; none may panic, hang or allocate what it says.
            drop(connect(&bad));
        }
    }
}
