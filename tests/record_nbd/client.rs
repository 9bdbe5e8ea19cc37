//! An NBD client that says whatever it is told to, right or wrong (`doc/proto.md` of
//! NetworkBlockDevice/nbd).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use qtrace::image::nbd_proto::*;

/// A connection.
pub struct Client(pub UnixStream);

/// A reply to an option: its type and data.
pub type OptionReply = (u32, Vec<u8>);

/// A reply to a request: its cookie, its error (0: none), and what was read or the raw chunk.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub cookie: u64,
    pub error: u32,
    pub data: Vec<u8>,
}

impl Client {
    /// Connects and greets.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let mut client = Self(UnixStream::connect(socket)?);
        let greeting = client.take(18)?;
        assert_eq!(greeting[..8], NBDMAGIC.to_be_bytes());
        assert_eq!(greeting[8..16], IHAVEOPT.to_be_bytes());
        assert_eq!(greeting[16..], 3u16.to_be_bytes());
        client.0.write_all(&3u32.to_be_bytes())?;
        Ok(client)
    }

    /// Connects and enters the default export, with structured replies and `base:allocation`.
    pub fn enter(socket: &Path) -> io::Result<Self> {
        let mut client = Self::connect(socket)?;
        client.option(NBD_OPT_STRUCTURED_REPLY, &[])?;
        client.option(NBD_OPT_SET_META_CONTEXT, &contexts("", &["base:allocation"]))?;
        assert_eq!(client.option(NBD_OPT_GO, &info("", &[]))?.last().unwrap().0, NBD_REP_ACK);
        Ok(client)
    }

    /// As [`Client::enter`], with simple replies.
    pub fn enter_simply(socket: &Path) -> io::Result<Self> {
        let mut client = Self::connect(socket)?;
        assert_eq!(client.option(NBD_OPT_GO, &info("", &[]))?.last().unwrap().0, NBD_REP_ACK);
        Ok(client)
    }

    pub fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether the server has closed the connection; whatever it still says is dropped.
    pub fn is_closed(&mut self) -> bool {
        match io::copy(&mut self.0, &mut io::sink()) {
            Ok(_) => true,
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Sends an option as it is.
    pub fn send_option(&mut self, option: u32, len: u32, data: &[u8]) -> io::Result<()> {
        let mut message = IHAVEOPT.to_be_bytes().to_vec();
        message.extend(option.to_be_bytes());
        message.extend(len.to_be_bytes());
        message.extend(data);
        self.0.write_all(&message)
    }

    /// Sends an option; every reply to it, the final one last.
    pub fn option(&mut self, option: u32, data: &[u8]) -> io::Result<Vec<OptionReply>> {
        self.send_option(option, data.len() as u32, data)?;
        self.option_replies(option)
    }

    pub fn option_replies(&mut self, option: u32) -> io::Result<Vec<OptionReply>> {
        let mut replies = Vec::new();
        loop {
            assert_eq!(u64::from_be_bytes(self.number()?), NBD_OPT_REPLY_MAGIC);
            assert_eq!(u32::from_be_bytes(self.number()?), option);
            let kind = u32::from_be_bytes(self.number()?);
            let len = u32::from_be_bytes(self.number()?);
            replies.push((kind, self.take(len as usize)?));
            if kind == NBD_REP_ACK || kind & NBD_REP_FLAG_ERROR != 0 {
                return Ok(replies);
            }
        }
    }

    /// Sends a request.
    pub fn send(
        &mut self,
        command: u16,
        flags: u16,
        cookie: u64,
        (offset, len): (u64, u32),
        data: &[u8],
    ) -> io::Result<()> {
        let mut message = request(command, flags, cookie, (offset, len));
        message.extend(data);
        self.0.write_all(&message)
    }

    /// Reads one whole reply.
    pub fn reply(&mut self) -> io::Result<Reply> {
        self.reply_to(|_| 0)
    }

    /// As [`Client::reply`]; a simple reply to `cookie` is followed by `read(cookie)` bytes.
    pub fn reply_to(&mut self, read: impl Fn(u64) -> usize) -> io::Result<Reply> {
        match u32::from_be_bytes(self.number()?) {
            NBD_SIMPLE_REPLY_MAGIC => {
                let error = u32::from_be_bytes(self.number()?);
                let cookie = u64::from_be_bytes(self.number()?);
                let data = if error == 0 { self.take(read(cookie))? } else { Vec::new() };
                Ok(Reply { cookie, error, data })
            }
            NBD_STRUCTURED_REPLY_MAGIC => self.chunk(),
            magic => panic!("not a reply: {magic:#x}"),
        }
    }

    /// Our server sends each reply in one chunk.
    fn chunk(&mut self) -> io::Result<Reply> {
        let flags = u16::from_be_bytes(self.number()?);
        let kind = u16::from_be_bytes(self.number()?);
        let cookie = u64::from_be_bytes(self.number()?);
        let len = u32::from_be_bytes(self.number()?);
        let data = self.take(len as usize)?;
        assert_eq!(flags, NBD_REPLY_FLAG_DONE);
        Ok(match kind {
            NBD_REPLY_TYPE_ERROR => {
                let error = u32::from_be_bytes(data[..4].try_into().unwrap());
                assert_eq!(usize::from(u16::from_be_bytes([data[4], data[5]])), data.len() - 6);
                Reply { cookie, error, data: Vec::new() }
            }
            NBD_REPLY_TYPE_OFFSET_DATA => Reply { cookie, error: 0, data: data[8..].to_vec() },
            NBD_REPLY_TYPE_OFFSET_HOLE => {
                let len = u32::from_be_bytes(data[8..].try_into().unwrap());
                Reply { cookie, error: 0, data: vec![0; len as usize] }
            }
            NBD_REPLY_TYPE_NONE | NBD_REPLY_TYPE_BLOCK_STATUS => Reply { cookie, error: 0, data },
            kind => panic!("a chunk of unknown kind {kind}"),
        })
    }

    /// Sends a request and reads its reply: the error, and what came with it.
    pub fn ask(
        &mut self,
        command: Command,
        flags: u16,
        range: (u64, u32),
        data: &[u8],
    ) -> (u32, Vec<u8>) {
        self.send(command as u16, flags, 77, range, data).unwrap();
        let len = if command == Command::Read { range.1 as usize } else { 0 };
        let reply = self.reply_to(|_| len).unwrap();
        assert_eq!(reply.cookie, 77);
        (reply.error, reply.data)
    }

    /// Whether it still works.
    pub fn works(&mut self) -> bool {
        let (error, data) = self.ask(Command::Read, 0, (0, 512), &[]);
        error == 0 && data.len() == 512
    }
}

/// The header of a request.
pub fn request(command: u16, flags: u16, cookie: u64, (offset, len): (u64, u32)) -> Vec<u8> {
    let mut message = NBD_REQUEST_MAGIC.to_be_bytes().to_vec();
    message.extend(flags.to_be_bytes());
    message.extend(command.to_be_bytes());
    message.extend(cookie.to_be_bytes());
    message.extend(offset.to_be_bytes());
    message.extend(len.to_be_bytes());
    message
}

/// The data of `NBD_OPT_INFO` and `NBD_OPT_GO`.
pub fn info(name: &str, asked: &[u16]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((asked.len() as u16).to_be_bytes());
    asked.iter().for_each(|kind| data.extend(kind.to_be_bytes()));
    data
}

/// The data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
pub fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend((query.len() as u32).to_be_bytes());
        data.extend(query.as_bytes());
    }
    data
}
