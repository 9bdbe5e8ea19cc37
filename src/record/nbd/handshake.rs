//! The handshake: what a client and we agree on ("Newstyle negotiation", "Option types").

use std::io::{self, Read, Write};

use super::export::{BLOCK_BYTES, BLOCK_BYTES_BEST, Export, REQUEST_DATA_BYTES_MAX};
use super::request::Agreed;
use crate::image::nbd_proto::*;

/// Longest option that is read: the longest name and queries that the protocol speaks of, and
/// more. Longer ones are skipped.
const OPTION_BYTES_MAX: u32 = 64 << 10;

/// A longer one ends the connection: it is no option any more.
const OPTION_SKIP_MAX: u32 = 1 << 20;

/// Options in one handshake: clients use about five.
const OPTIONS_MAX: u32 = 1000;

/// Longest string ("String values").
const STRING_BYTES_MAX: u32 = 4096;

/// Our number for `base:allocation`.
pub(super) const ALLOCATION_CONTEXT: u32 = 1;

/// How a handshake ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shaken {
    /// Requests come next.
    Go(Agreed),
    /// The client has said goodbye.
    Aborted,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn number<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Shakes hands with the client behind `stream`.
///
/// # Errors
/// What ends the connection: it speaks something else, or not at all.
pub(super) fn shake(stream: &mut (impl Read + Write), export: &Export) -> io::Result<Shaken> {
    let mut greeting = NBDMAGIC.to_be_bytes().to_vec();
    greeting.extend(IHAVEOPT.to_be_bytes());
    greeting.extend((NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES).to_be_bytes());
    stream.write_all(&greeting)?;
    let flags = u32::from_be_bytes(number(stream)?);
    if flags & !u32::from(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES) != 0 {
        return Err(broken("unknown handshake flags"));
    }
    let zeroes = flags & u32::from(NBD_FLAG_NO_ZEROES) == 0;
    let mut shake = Shake { stream, export, zeroes, agreed: Agreed::default() };
    for _ in 0..OPTIONS_MAX {
        if let Some(shaken) = shake.option()? {
            return Ok(shaken);
        }
    }
    Err(broken("too many options"))
}

struct Shake<'a, S> {
    stream: &'a mut S,
    export: &'a Export,
    /// The client wants 124 zeros after `NBD_OPT_EXPORT_NAME`.
    zeroes: bool,
    agreed: Agreed,
}

/// What is wrong with an option's data.
const MALFORMED: (u32, &str) = (NBD_REP_ERR_INVALID, "the option is malformed");
const NO_EXPORT: (u32, &str) = (NBD_REP_ERR_UNKNOWN, "there is no export of that name");

impl<S: Read + Write> Shake<'_, S> {
    /// Answers one option.
    fn option(&mut self) -> io::Result<Option<Shaken>> {
        if u64::from_be_bytes(number(self.stream)?) != IHAVEOPT {
            return Err(broken("an option does not begin as one"));
        }
        let option = u32::from_be_bytes(number(self.stream)?);
        let len = u32::from_be_bytes(number(self.stream)?);
        if len > OPTION_BYTES_MAX {
            return self.skip(option, len).map(|()| None);
        }
        let mut data = vec![0; len as usize];
        self.stream.read_exact(&mut data)?;
        match option {
            NBD_OPT_EXPORT_NAME => return self.export_name(&data).map(Some),
            NBD_OPT_ABORT => {
                // The client may be gone already.
                let _ = self.reply(option, NBD_REP_ACK, &[]);
                return Ok(Some(Shaken::Aborted));
            }
            NBD_OPT_GO if self.info(option, &data)? => return Ok(Some(Shaken::Go(self.agreed))),
            NBD_OPT_GO => {}
            NBD_OPT_INFO => drop(self.info(option, &data)?),
            NBD_OPT_LIST => self.list(&data)?,
            NBD_OPT_STRUCTURED_REPLY if data.is_empty() => {
                self.agreed.structured = true;
                self.reply(option, NBD_REP_ACK, &[])?;
            }
            NBD_OPT_LIST_META_CONTEXT | NBD_OPT_SET_META_CONTEXT => self.contexts(option, &data)?,
            NBD_OPT_STARTTLS | NBD_OPT_STRUCTURED_REPLY if !data.is_empty() => {
                self.error(option, MALFORMED)?;
            }
            _ => self.error(option, (NBD_REP_ERR_UNSUP, "the option is not supported"))?,
        }
        Ok(None)
    }

    fn skip(&mut self, option: u32, len: u32) -> io::Result<()> {
        if len > OPTION_SKIP_MAX || option == NBD_OPT_EXPORT_NAME {
            return Err(broken("an option is too long"));
        }
        let skipped = io::copy(&mut (&mut *self.stream).take(len.into()), &mut io::sink())?;
        if skipped < u64::from(len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.error(option, (NBD_REP_ERR_TOO_BIG, "the option is too long"))
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut message = Vec::with_capacity(20 + data.len());
        message.extend(NBD_OPT_REPLY_MAGIC.to_be_bytes());
        message.extend(option.to_be_bytes());
        message.extend(kind.to_be_bytes());
        message.extend((data.len() as u32).to_be_bytes());
        message.extend(data);
        self.stream.write_all(&message)
    }

    fn error(&mut self, option: u32, (kind, why): (u32, &str)) -> io::Result<()> {
        self.reply(option, kind, why.as_bytes())
    }

    /// The oldest way in: it has no reply that could be an error.
    fn export_name(&mut self, name: &[u8]) -> io::Result<Shaken> {
        if name != self.export.name.as_bytes() {
            return Err(broken("there is no export of that name"));
        }
        let mut message = self.export.size().to_be_bytes().to_vec();
        message.extend(self.export.flags(self.agreed.structured).to_be_bytes());
        if self.zeroes {
            message.extend([0; 124]);
        }
        self.stream.write_all(&message)?;
        Ok(Shaken::Go(self.agreed))
    }

    fn list(&mut self, data: &[u8]) -> io::Result<()> {
        if !data.is_empty() {
            return self.error(NBD_OPT_LIST, MALFORMED);
        }
        let name = self.export.name.as_bytes();
        let entry = [&(name.len() as u32).to_be_bytes()[..], name].concat();
        self.reply(NBD_OPT_LIST, NBD_REP_SERVER, &entry)?;
        self.reply(NBD_OPT_LIST, NBD_REP_ACK, &[])
    }

    /// `NBD_OPT_INFO` and `NBD_OPT_GO`; whether the export is there.
    fn info(&mut self, option: u32, data: &[u8]) -> io::Result<bool> {
        let Some((name, asked)) = parse_info(data) else {
            return self.error(option, MALFORMED).map(|()| false);
        };
        if name != self.export.name.as_bytes() {
            return self.error(option, NO_EXPORT).map(|()| false);
        }
        let mut export = NBD_INFO_EXPORT.to_be_bytes().to_vec();
        export.extend(self.export.size().to_be_bytes());
        export.extend(self.export.flags(self.agreed.structured).to_be_bytes());
        self.reply(option, NBD_REP_INFO, &export)?;
        let mut sizes = NBD_INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [BLOCK_BYTES, BLOCK_BYTES_BEST, REQUEST_DATA_BYTES_MAX] {
            sizes.extend(size.to_be_bytes());
        }
        self.reply(option, NBD_REP_INFO, &sizes)?;
        let info = self.export.image.info();
        let description = format!("{} recorded by qtrace", info.format);
        let texts =
            [(NBD_INFO_NAME, self.export.name.as_str()), (NBD_INFO_DESCRIPTION, &description)];
        for (kind, text) in texts.into_iter().filter(|(kind, _)| asked.contains(kind)) {
            self.reply(option, NBD_REP_INFO, &[&kind.to_be_bytes(), text.as_bytes()].concat())?;
        }
        self.reply(option, NBD_REP_ACK, &[]).map(|()| true)
    }

    /// `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
    fn contexts(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        let sets = option == NBD_OPT_SET_META_CONTEXT;
        if sets {
            // Whatever comes of it, what was chosen before is no more.
            self.agreed.allocation = false;
        }
        let queries = match parse_contexts(data) {
            Some((name, _)) if name != self.export.name.as_bytes() => {
                return self.error(option, NO_EXPORT);
            }
            Some((_, queries)) if self.agreed.structured || !sets => queries,
            _ => return self.error(option, MALFORMED),
        };
        let meant =
            |query: &&[u8]| *query == BASE_ALLOCATION.as_bytes() || (!sets && *query == b"base:");
        // To list without a query is to list all; to choose without one is to choose none.
        if queries.iter().any(meant) || (!sets && queries.is_empty()) {
            self.agreed.allocation |= sets;
            let number = if sets { ALLOCATION_CONTEXT } else { 0 };
            let context = [&number.to_be_bytes()[..], BASE_ALLOCATION.as_bytes()].concat();
            self.reply(option, NBD_REP_META_CONTEXT, &context)?;
        }
        self.reply(option, NBD_REP_ACK, &[])
    }
}

/// A string with its length before it.
fn string<'d>(data: &mut &'d [u8]) -> Option<&'d [u8]> {
    let len = u32::from_be_bytes(number(data).ok()?);
    if len > STRING_BYTES_MAX {
        return None;
    }
    let (string, rest) = data.split_at_checked(len as usize)?;
    *data = rest;
    Some(string)
}

fn parse_info(mut data: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let name = string(&mut data)?;
    let count = u16::from_be_bytes(number(&mut data).ok()?);
    let (pairs, rest) = data.as_chunks::<2>();
    let whole = rest.is_empty() && pairs.len() == usize::from(count);
    whole.then(|| (name, pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect()))
}

fn parse_contexts(mut data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let name = string(&mut data)?;
    let count = u32::from_be_bytes(number(&mut data).ok()?);
    let mut queries = Vec::new();
    for _ in 0..count {
        // Each takes four bytes of an option that is in memory.
        queries.push(string(&mut data)?);
    }
    data.is_empty().then_some((name, queries))
}
