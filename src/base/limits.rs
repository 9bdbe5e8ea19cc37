//! Every limit in the program, with its reason. A hostile length is compared with one of these
//! before anything is allocated for it.

/// Largest bincode header, footer or index that is decoded: an index entry takes about 40 bytes
/// for 64 KiB of records, so this covers traces of some 10^10 events.
pub const METADATA_BYTES_MAX: usize = 256 << 20;

/// Records in one event frame: 1365 × 48 B stays just under 64 KiB, the block over which a CRC is
/// computed at full speed and the most that a truncation loses beyond the last flush.
pub const FRAME_EVENTS_MAX: usize = 1365;

/// Largest body of a frame, but for summary and index ([`METADATA_BYTES_MAX`]); a bigger length in a
/// frame header is corruption.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// A payload longer than this is stored as a list of pieces of this size, so that a write of
/// gigabytes (a logged write-zeroes) is imported and replayed in bounded memory.
pub const PAYLOAD_PIECE_BYTES: usize = 1 << 20;

/// Raw bytes collected before a payload frame is compressed: large enough for zstd to work,
/// small enough that reading one old payload back stays cheap.
pub const PAYLOAD_FRAME_BYTES: usize = 256 << 10;

/// Distinct payloads remembered for deduplication (16 bytes each); past it the oldest half is
/// forgotten and a payload may be stored a second time.
pub const DEDUP_ENTRIES_MAX: usize = 2 << 20;

/// Decoded payload frames kept by a reader.
pub const PAYLOAD_CACHE_BYTES: usize = 16 << 20;

/// Longest line of a text trace; a longer one is an error, not an allocation.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Largest length one request of a trace may have: beyond any disk that exists, and small enough
/// that offset + length cannot overflow a signed 64-bit file offset.
pub const REQUEST_BYTES_MAX: u64 = 1 << 60;

/// Largest disk we create or open.
pub const DISK_BYTES_MAX: u64 = 1 << 60;

/// Streams (device, queue pairs) in one trace: their descriptions are held in memory.
pub const STREAMS_MAX: usize = 1 << 20;

/// Events an importer holds to put a nearly sorted source into time order.
pub const SORT_WINDOW_EVENTS: usize = 1 << 18;

/// Rows of a data set that an importer holds (48 bytes each), hence may mend the order of: more
/// disorder than any of the public sets has.
pub const SORT_WINDOW_ROWS: usize = 1 << 17;

/// The same for each of many inputs, however many they are.
pub const SORT_WINDOW_INPUT_ROWS_MIN: usize = 1 << 10;

/// Requests in flight that an import remembers the ends of (24 bytes each): a response time of
/// years must not hold every request.
pub const IMPORT_IN_FLIGHT_MAX: usize = 1 << 20;

/// Events too late for the window of an import that are sorted in memory (64 bytes each) before
/// they go to a file.
pub const LATE_EVENTS_HELD: usize = 1 << 18;

/// What reading them back may take, all runs of them together.
pub const LATE_MERGE_BYTES: usize = 32 << 20;

/// Requests a replay keeps in flight at most; a virtqueue has at most 32,768 descriptors.
pub const IODEPTH_MAX: usize = 4096;

/// Findings kept whole in a report; further ones are counted.
pub const FINDINGS_MAX: usize = 100;

/// Distinct mark texts and loss reasons kept by an import summary.
pub const SUMMARY_REASONS_MAX: usize = 256;

/// Longest line of a qtest log: a `write` holds its data as text, and the tests that move the most
/// write some megabytes at once.
pub const QTEST_LINE_BYTES_MAX: usize = 16 << 20;

/// Longest command line of a machine in a report, and the most that variables may make of one:
/// people's have up to some kilobytes.
pub const QTEST_MACHINE_BYTES_MAX: usize = 64 << 10;

/// Most that one command of a replayed qtest log writes or fills: QEMU holds it in memory, and
/// aborts when it gets none.
pub const QTEST_WRITE_BYTES_MAX: u64 = 1 << 30;

/// Most that one command of a replayed qtest log reads: the answer has two digits a byte.
pub const QTEST_READ_BYTES_MAX: u64 = 1 << 20;

/// Longest report that is kept in a temporary file, because it is read twice and came through a
/// pipe.
pub const QTEST_SPOOL_BYTES_MAX: u64 = 1 << 30;

/// Lines of a report that are shown, of those that were not sent for one reason.
pub const QTEST_SHOWN_LINES_MAX: usize = 3;

/// Bytes that wait in a recording's queue unless the user says otherwise: a tenth of a second of
/// what a fast disk is sent, so that a killed recorder loses little and a stall of the file system
/// is not felt at once.
pub const RECORD_QUEUE_BYTES: usize = 64 << 20;

/// Requests whose completion is waited for when a trace is shown, edited, exported or examined:
/// some 64 MiB; no device has so many in flight.
pub const IN_FLIGHT_MAX: usize = 1 << 20;

/// Items that wait while the oldest request among them waits for its answer: some 20 MiB.
pub const JOINED_MAX: usize = 1 << 17;
