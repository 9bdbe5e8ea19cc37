//! The numbers of the NBD protocol, for both sides of it: NetworkBlockDevice/nbd `doc/proto.md`,
//! whose names they have. All are big endian on the wire.

/// First of what a server says ("Newstyle negotiation").
pub const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second of what a server says, and first of every option.
pub const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
/// First of every option's reply.
pub const NBD_OPT_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First of every request.
pub const NBD_REQUEST_MAGIC: u32 = 0x2560_9513;
/// First of a simple reply.
pub const NBD_SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First of every chunk of a structured reply.
pub const NBD_STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Handshake flag of both sides: the fixed newstyle.
pub const NBD_FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
/// Handshake flag of both sides: no 124 zeros after `NBD_OPT_EXPORT_NAME`.
pub const NBD_FLAG_NO_ZEROES: u16 = 1 << 1;

/// Options ("Option types").
pub const NBD_OPT_EXPORT_NAME: u32 = 1;
/// Ends the connection.
pub const NBD_OPT_ABORT: u32 = 2;
/// Asks for the names of exports.
pub const NBD_OPT_LIST: u32 = 3;
/// Asks for TLS.
pub const NBD_OPT_STARTTLS: u32 = 5;
/// Asks what an export is.
pub const NBD_OPT_INFO: u32 = 6;
/// Enters an export.
pub const NBD_OPT_GO: u32 = 7;
/// Asks for structured replies.
pub const NBD_OPT_STRUCTURED_REPLY: u32 = 8;
/// Asks which metadata contexts there are.
pub const NBD_OPT_LIST_META_CONTEXT: u32 = 9;
/// Chooses metadata contexts.
pub const NBD_OPT_SET_META_CONTEXT: u32 = 10;

/// Replies to options ("Option reply types").
pub const NBD_REP_ACK: u32 = 1;
/// An export's name.
pub const NBD_REP_SERVER: u32 = 2;
/// One of `NBD_INFO_*`.
pub const NBD_REP_INFO: u32 = 3;
/// A metadata context: its number and name.
pub const NBD_REP_META_CONTEXT: u32 = 4;
/// Set in every reply that is an error.
pub const NBD_REP_FLAG_ERROR: u32 = 1 << 31;
/// The option is not known.
pub const NBD_REP_ERR_UNSUP: u32 = NBD_REP_FLAG_ERROR | 1;
/// The option is malformed, or out of place.
pub const NBD_REP_ERR_INVALID: u32 = NBD_REP_FLAG_ERROR | 3;
/// There is no such export.
pub const NBD_REP_ERR_UNKNOWN: u32 = NBD_REP_FLAG_ERROR | 6;
/// The server is going down.
pub const NBD_REP_ERR_SHUTDOWN: u32 = NBD_REP_FLAG_ERROR | 7;
/// The option is too long.
pub const NBD_REP_ERR_TOO_BIG: u32 = NBD_REP_FLAG_ERROR | 9;

/// Size and transmission flags of an export ("Information types").
pub const NBD_INFO_EXPORT: u16 = 0;
/// The name of an export.
pub const NBD_INFO_NAME: u16 = 1;
/// A description of an export.
pub const NBD_INFO_DESCRIPTION: u16 = 2;
/// Least, best and greatest length of a request.
pub const NBD_INFO_BLOCK_SIZE: u16 = 3;

/// Transmission flag: there are flags at all.
pub const NBD_FLAG_HAS_FLAGS: u16 = 1 << 0;
/// The export refuses writes.
pub const NBD_FLAG_READ_ONLY: u16 = 1 << 1;
/// The export knows flush.
pub const NBD_FLAG_SEND_FLUSH: u16 = 1 << 2;
/// The export knows FUA.
pub const NBD_FLAG_SEND_FUA: u16 = 1 << 3;
/// The export knows trim.
pub const NBD_FLAG_SEND_TRIM: u16 = 1 << 5;
/// The export knows write-zeroes.
pub const NBD_FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// The export can be told not to fragment what it sends.
pub const NBD_FLAG_SEND_DF: u16 = 1 << 7;
/// A flush on one connection covers what completed on any.
pub const NBD_FLAG_CAN_MULTI_CONN: u16 = 1 << 8;
/// The export knows cache.
pub const NBD_FLAG_SEND_CACHE: u16 = 1 << 10;
/// The export can be asked to write zeroes fast or not at all.
pub const NBD_FLAG_SEND_FAST_ZERO: u16 = 1 << 11;

/// Chunks ("Structured reply flags", "Structured reply types").
pub const NBD_REPLY_FLAG_DONE: u16 = 1 << 0;
/// Nothing but the end.
pub const NBD_REPLY_TYPE_NONE: u16 = 0;
/// An offset and data.
pub const NBD_REPLY_TYPE_OFFSET_DATA: u16 = 1;
/// An offset and how many zeros stand there.
pub const NBD_REPLY_TYPE_OFFSET_HOLE: u16 = 2;
/// A context's number and extents.
pub const NBD_REPLY_TYPE_BLOCK_STATUS: u16 = 5;
/// Set in every chunk that is an error.
pub const NBD_REPLY_TYPE_ERROR_BIT: u16 = 1 << 15;
/// An error and its text.
pub const NBD_REPLY_TYPE_ERROR: u16 = NBD_REPLY_TYPE_ERROR_BIT | 1;

/// Durable before it is answered ("Command flags").
pub const NBD_CMD_FLAG_FUA: u16 = 1 << 0;
/// Write zeroes without giving the space back.
pub const NBD_CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// Send what is read in one chunk.
pub const NBD_CMD_FLAG_DF: u16 = 1 << 2;
/// One extent is enough.
pub const NBD_CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// Write zeroes only if that is faster than writing data.
pub const NBD_CMD_FLAG_FAST_ZERO: u16 = 1 << 4;

/// The only metadata context that both sides of ours know.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// The range takes no space (`base:allocation`).
pub const NBD_STATE_HOLE: u32 = 1 << 0;
/// The range reads as zeros (`base:allocation`).
pub const NBD_STATE_ZERO: u32 = 1 << 1;

/// Requests ("Request types").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    /// `NBD_CMD_READ`
    Read = 0,
    /// `NBD_CMD_WRITE`
    Write = 1,
    /// `NBD_CMD_DISC`
    Disconnect = 2,
    /// `NBD_CMD_FLUSH`
    Flush = 3,
    /// `NBD_CMD_TRIM`
    Trim = 4,
    /// `NBD_CMD_CACHE`
    Cache = 5,
    /// `NBD_CMD_WRITE_ZEROES`
    WriteZeroes = 6,
    /// `NBD_CMD_BLOCK_STATUS`
    BlockStatus = 7,
}

impl Command {
    /// The request with this number, if there is one.
    pub fn from_u16(number: u16) -> Option<Self> {
        use Command::{BlockStatus, Cache, Disconnect, Flush, Read, Trim, Write, WriteZeroes};
        [Read, Write, Disconnect, Flush, Trim, Cache, WriteZeroes, BlockStatus]
            .into_iter()
            .find(|command| *command as u16 == number)
    }
}
