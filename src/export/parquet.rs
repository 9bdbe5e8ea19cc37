//! Apache Parquet, so that DuckDB, Spark, DataFusion and the like take over: a row for each event.
//! Behind the cargo feature `parquet`.
//!
//! | column | type | what |
//! |---|---|---|
//! | `event` | uint64 | number of the event |
//! | `time_ns` | uint64 | nanoseconds since the trace's time origin |
//! | `stream` | uint32 | stream |
//! | `device` | string | its device |
//! | `kind` | string | `issue`, `complete`, `mark`, `bus`, `memory`, `irq`, `ack`, `clock` |
//! | `op` | string? | `read` … of an issue; `in`, `out`, `mmio-read`, `mmio-write` of an access; `write`, `fill`, `read` of memory |
//! | `flags` | string? | of an issue, `+`-joined; null for none |
//! | `addr` | uint64? | byte on the disk; address of an access or memory; line of an interrupt |
//! | `len` | uint64? | bytes of an issue, an access, memory, a whole mark |
//! | `tag` | uint64? | joins issue and completion |
//! | `status` | uint32? | of a completion: 0 or a Linux errno |
//! | `cpu` | uint32? | where it is known |
//! | `value` | uint64? | of an access; byte of a fill; 1 or 0 of an interrupt that fired or went low; vector of an acknowledge; nanoseconds that the clock read afterwards |
//! | `text` | string? | of a mark |
//! | `data` | boolean | whether data was recorded; it stays in the trace |
//!
//! Numbers that grow are packed as differences (DELTA_BINARY_PACKED), words as dictionaries, pages
//! with zstd; a row group has 2^20 rows, or fewer with many texts. The file's metadata has `qtrace.source`,
//! `qtrace.origin_unix_ns` and `qtrace.not_recorded`.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::{WriterProperties, WriterVersion};
use ::parquet::file::writer::{
    SerializedColumnWriter, SerializedFileWriter, SerializedRowGroupWriter,
};
use ::parquet::schema::parser::parse_message_type;
use ::parquet::schema::types::ColumnPath;

use super::job::{Job, Out};
use super::json_lines::{TEXT_BYTES_MAX, has_place};
use super::registry::Exporter;
use crate::base::{BlockOp, BusSpace, Error, OpFlags, Result};
use crate::trace::{Event, Mark, MemoryOp, PayloadRef, Trace};

/// Rows of a row group: what engines read at once, and some 100 MiB while it is gathered.
const GROUP_ROWS: usize = 1 << 20;

/// Bytes of texts that a row group may have.
const GROUP_TEXT_BYTES: usize = 16 << 20;

/// Rows turned into columns at once.
const BATCH_ROWS: usize = 1 << 13;

/// zstd's fastest ordinary level, as the container's.
const ZSTD_LEVEL: i32 = 1;

const SCHEMA: &str = "
message event {
  required int64 event (INTEGER(64,false));
  required int64 time_ns (INTEGER(64,false));
  required int32 stream (INTEGER(32,false));
  required binary device (STRING);
  required binary kind (STRING);
  optional binary op (STRING);
  optional binary flags (STRING);
  optional int64 addr (INTEGER(64,false));
  optional int64 len (INTEGER(64,false));
  optional int64 tag (INTEGER(64,false));
  optional int32 status (INTEGER(32,false));
  optional int32 cpu (INTEGER(32,false));
  optional int64 value (INTEGER(64,false));
  optional binary text (STRING);
  required boolean data;
}";

/// Columns of numbers that are packed as differences.
const DELTAS: [&str; 4] = ["event", "time_ns", "addr", "tag"];

/// The exporter.
pub struct Parquet;

impl Exporter for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn description(&self) -> &'static str {
        "Apache Parquet: a row for each event, for DuckDB, Spark, DataFusion"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["parquet"]
    }

    fn lacks(&self) -> Option<&'static str> {
        None
    }

    fn export(&self, job: &mut Job<'_>) -> Result<()> {
        let name = job.name().to_owned();
        let failed = |error: ParquetError| {
            Error::incomplete("cannot write the export").path(&name).source(error)
        };
        let mut file = begin(job.take_out()?, job.trace).map_err(failed)?;
        let words = Words::new(job.trace);
        let mut batch = Batch::default();
        let mut events = job.events();
        while let Some(row) = events.next(job)? {
            batch.push(row, job)?;
            if batch.is_full() {
                batch.write(&mut file, &words).map_err(failed)?;
                job.count(batch.take());
            }
        }
        if !batch.rows.is_empty() {
            batch.write(&mut file, &words).map_err(failed)?;
            job.count(batch.take());
        }
        file.close().map_err(failed).map(drop)
    }
}

type File<'t> = SerializedFileWriter<Out<'t>>;
type Row = (u64, Event);

fn begin<'t>(out: Out<'t>, trace: &Trace) -> Result<File<'t>, ParquetError> {
    let header = trace.header();
    let pair = |key: &str, value: Option<String>| KeyValue::new(key.to_owned(), value);
    let about = vec![
        pair("qtrace.source", Some(header.source_format.clone())),
        pair("qtrace.origin_unix_ns", header.origin_unix_ns.map(|origin| origin.to_string())),
        pair("qtrace.not_recorded", Some(trace.summary().not_recorded.names().join(" "))),
    ];
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("qtrace ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_key_value_metadata(Some(about));
    for column in DELTAS {
        let path = ColumnPath::from(column);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    SerializedFileWriter::new(out, schema, Arc::new(properties.build()))
}

/// Words that stand in many rows, each held once.
struct Words {
    devices: Vec<ByteArray>,
    /// By their bits.
    flags: Vec<ByteArray>,
    others: BTreeMap<&'static str, ByteArray>,
}

impl Words {
    fn new(trace: &Trace) -> Self {
        let device = |device: &String| ByteArray::from(device.clone().into_bytes());
        let flags = |bits| ByteArray::from(OpFlags::from_bits_truncate(bits).names().into_bytes());
        let words = KINDS.into_iter().chain(ACCESSES).chain(BlockOp::ALL.map(BlockOp::name));
        let words = words.chain(MemoryOp::ALL.map(MemoryOp::name));
        Self {
            devices: trace.streams().iter().map(|info| device(&info.device)).collect(),
            flags: (0..=OpFlags::all().bits()).map(flags).collect(),
            others: words.map(|word| (word, ByteArray::from(word))).collect(),
        }
    }

    fn device(&self, event: &Event) -> ByteArray {
        self.devices.get(event.stream().0 as usize).cloned().unwrap_or_default()
    }

    fn flags(&self, event: &Event) -> Option<ByteArray> {
        let Event::Issue(issue) = event else { return None };
        let set = !issue.flags.is_empty();
        set.then(|| self.flags.get(usize::from(issue.flags.bits())).cloned()).flatten()
    }

    fn word(&self, word: &'static str) -> ByteArray {
        self.others.get(word).cloned().unwrap_or_else(|| ByteArray::from(word))
    }
}

/// Rows of a group to be.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    /// Of the marks among them, in order.
    texts: Vec<ByteArray>,
    text_bytes: usize,
}

impl Batch {
    fn push(&mut self, row: Row, job: &mut Job<'_>) -> Result<()> {
        match &row.1 {
            Event::Mark(mark) => {
                let text = text(row.0, mark, job)?;
                self.text_bytes += text.len();
                self.texts.push(text.into_bytes().into());
            }
            event if has_data(event) => job.lose("data (it stays in the trace)", row.0),
            _ => {}
        }
        self.rows.push(row);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= GROUP_ROWS || self.text_bytes >= GROUP_TEXT_BYTES
    }

    /// Forgets the rows; how many there were.
    fn take(&mut self) -> u64 {
        let rows = self.rows.len() as u64;
        self.rows.clear();
        self.texts.clear();
        self.text_bytes = 0;
        rows
    }

    /// Writes a row group, column by column in the order of the schema.
    fn write(&self, file: &mut File<'_>, words: &Words) -> Result<(), ParquetError> {
        let mut writer = file.next_row_group()?;
        let (group, rows) = (&mut writer, &self.rows);
        required::<Int64Type>(group, rows, |row| row.0 as i64)?;
        required::<Int64Type>(group, rows, |row| row.1.time().0 as i64)?;
        required::<Int32Type>(group, rows, |row| row.1.stream().0 as i32)?;
        required::<ByteArrayType>(group, rows, |row| words.device(&row.1))?;
        required::<ByteArrayType>(group, rows, |row| words.word(kind(&row.1)))?;
        optional::<ByteArrayType>(group, rows, |row| op(&row.1).map(|op| words.word(op)))?;
        optional::<ByteArrayType>(group, rows, |row| words.flags(&row.1))?;
        optional::<Int64Type>(group, rows, |row| addr(&row.1).map(|addr| addr as i64))?;
        optional::<Int64Type>(group, rows, |row| len(&row.1).map(|len| len as i64))?;
        optional::<Int64Type>(group, rows, |row| tag(&row.1).map(|tag| tag as i64))?;
        optional::<Int32Type>(group, rows, |row| match &row.1 {
            Event::Complete(complete) => Some(complete.status.into()),
            _ => None,
        })?;
        optional::<Int32Type>(group, rows, |row| cpu(&row.1).map(i32::from))?;
        optional::<Int64Type>(group, rows, |row| value(&row.1).map(|value| value as i64))?;
        let mut texts = self.texts.iter().cloned();
        optional::<ByteArrayType>(group, rows, |row| match &row.1 {
            Event::Mark(_) => texts.next(),
            _ => None,
        })?;
        required::<BoolType>(group, rows, |row| has_data(&row.1))?;
        writer.close().map(drop)
    }
}

/// The text of a mark, or the beginning of a long one.
fn text(number: u64, mark: &Mark, job: &mut Job<'_>) -> Result<String> {
    if mark.text == PayloadRef::Absent {
        return Ok(String::new());
    }
    if mark.text_len > TEXT_BYTES_MAX {
        job.lose("rest of a long text", number);
    }
    let mut text = vec![0; mark.text_len.min(TEXT_BYTES_MAX) as usize];
    job.trace.read_payload(mark.text, mark.text_len, 0, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

type Group<'g, 't> = SerializedRowGroupWriter<'g, Out<'t>>;

fn column<'g>(group: &'g mut Group<'_, '_>) -> Result<SerializedColumnWriter<'g>, ParquetError> {
    let missing = || ParquetError::General("the schema has fewer columns".to_owned());
    group.next_column()?.ok_or_else(missing)
}

fn required<T: DataType>(
    group: &mut Group<'_, '_>,
    rows: &[Row],
    get: impl Fn(&Row) -> T::T,
) -> Result<(), ParquetError> {
    let mut column = column(group)?;
    let mut values = Vec::with_capacity(BATCH_ROWS);
    for batch in rows.chunks(BATCH_ROWS) {
        values.clear();
        values.extend(batch.iter().map(&get));
        column.typed::<T>().write_batch(&values, None, None)?;
    }
    column.close()
}

fn optional<T: DataType>(
    group: &mut Group<'_, '_>,
    rows: &[Row],
    mut get: impl FnMut(&Row) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let mut column = column(group)?;
    let (mut values, mut levels) = (Vec::with_capacity(BATCH_ROWS), Vec::new());
    for batch in rows.chunks(BATCH_ROWS) {
        values.clear();
        levels.clear();
        for value in batch.iter().map(&mut get) {
            levels.push(i16::from(value.is_some()));
            values.extend(value);
        }
        column.typed::<T>().write_batch(&values, Some(&levels), None)?;
    }
    column.close()
}

const KINDS: [&str; 8] = ["issue", "complete", "mark", "bus", "memory", "irq", "ack", "clock"];

fn kind(event: &Event) -> &'static str {
    let [issue, complete, mark, bus, memory, irq, ack, clock] = KINDS;
    match event {
        Event::Issue(_) => issue,
        Event::Complete(_) => complete,
        Event::Mark(_) => mark,
        Event::Bus(_) => bus,
        Event::Memory(_) => memory,
        Event::Irq(_) => irq,
        Event::Ack(_) => ack,
        Event::Clock(_) => clock,
    }
}

const ACCESSES: [&str; 4] = ["in", "out", "mmio-read", "mmio-write"];

fn op(event: &Event) -> Option<&'static str> {
    match event {
        Event::Issue(issue) => Some(issue.op.name()),
        Event::Bus(bus) => {
            let [pio_read, pio_write, mmio_read, mmio_write] = ACCESSES;
            Some(match (bus.access.space, bus.access.write) {
                (BusSpace::Pio, false) => pio_read,
                (BusSpace::Pio, true) => pio_write,
                (BusSpace::Mmio, false) => mmio_read,
                (BusSpace::Mmio, true) => mmio_write,
            })
        }
        Event::Memory(memory) => Some(memory.op.name()),
        _ => None,
    }
}

fn addr(event: &Event) -> Option<u64> {
    match event {
        Event::Issue(issue) => has_place(issue).then_some(issue.offset),
        Event::Bus(bus) => Some(bus.access.addr),
        Event::Memory(memory) => Some(memory.addr),
        Event::Irq(irq) => Some(irq.line.into()),
        _ => None,
    }
}

fn len(event: &Event) -> Option<u64> {
    match event {
        Event::Issue(issue) => has_place(issue).then_some(issue.len),
        Event::Bus(bus) => Some(bus.access.size.into()),
        Event::Memory(memory) => Some(memory.len),
        Event::Mark(mark) => Some(mark.text_len),
        _ => None,
    }
}

fn tag(event: &Event) -> Option<u64> {
    match event {
        Event::Issue(issue) => Some(issue.tag),
        Event::Complete(complete) => Some(complete.tag),
        _ => None,
    }
}

fn cpu(event: &Event) -> Option<u16> {
    match event {
        Event::Issue(issue) => issue.cpu,
        Event::Bus(bus) => bus.cpu,
        Event::Ack(ack) => Some(ack.cpu),
        _ => None,
    }
}

fn value(event: &Event) -> Option<u64> {
    match event {
        Event::Bus(bus) => Some(bus.access.value),
        Event::Memory(memory) => (memory.op == MemoryOp::Fill).then_some(memory.fill.into()),
        Event::Irq(irq) => Some(irq.high.into()),
        Event::Ack(ack) => ack.vector.map(u64::from),
        Event::Clock(step) => Some(step.to.0),
        Event::Issue(_) | Event::Complete(_) | Event::Mark(_) => None,
    }
}

fn has_data(event: &Event) -> bool {
    let payload = match event {
        Event::Issue(issue) => issue.payload,
        Event::Complete(complete) => complete.payload,
        Event::Memory(memory) => memory.payload,
        _ => PayloadRef::Absent,
    };
    payload != PayloadRef::Absent
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    use ::parquet::record::RowAccessor;

    use super::*;
    use crate::export::testing::{Made, complete, issue};
    use crate::export::{ExportOptions, ExportReport};
    use crate::trace::Issue;

    fn exported(made: &Made) -> (SerializedFileReader<std::fs::File>, ExportReport) {
        let (bytes, report) = made.export_bytes(&Parquet, &ExportOptions::default());
        let report = report.unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes.unwrap()).unwrap();
        (SerializedFileReader::new(file).unwrap(), report)
    }

    fn column(name: &str) -> usize {
        let schema = parse_message_type(SCHEMA).unwrap();
        schema.get_fields().iter().position(|field| field.name() == name).unwrap()
    }

    #[test]
    fn rows_are_events_and_times_are_packed_as_differences() {
        let mut made = Made::new(&["vda", "vdb"]);
        let flags = OpFlags::FUA | OpFlags::SYNC;
        let first = Issue { flags, tag: u64::MAX, ..issue(5, 1, BlockOp::Write, 4096, 512) };
        made.event(Event::Issue(first));
        made.event(Event::Complete(complete(9, 1, u64::MAX)));
        made.event(Event::Issue(issue(10, 0, BlockOp::Flush, 0, 0)));
        made.mark("mkfs \"done\"");
        let (reader, report) = exported(&made);
        assert_eq!((report.records, report.losses.len()), (4, 0));
        let group = reader.metadata().row_group(0);
        assert_eq!(group.num_rows(), 4);
        for name in DELTAS {
            let packed = |encoding| encoding == Encoding::DELTA_BINARY_PACKED;
            assert!(group.column(column(name)).encodings().any(packed), "{name}");
        }
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
        let text = |row: usize, name| rows[row].get_string(column(name)).unwrap().as_str();
        assert_eq!(rows[0].get_ulong(column("time_ns")).unwrap(), 5);
        assert_eq!((text(0, "device"), text(0, "kind"), text(0, "op")), ("vdb", "issue", "write"));
        assert_eq!(text(0, "flags"), "fua+sync");
        assert_eq!(rows[0].get_ulong(column("tag")).unwrap(), u64::MAX);
        assert_eq!(rows[1].get_uint(column("status")).unwrap(), 0);
        assert!(rows[2].get_ulong(column("addr")).is_err(), "a flush has no offset");
        assert!(!rows[2].get_bool(column("data")).unwrap());
        assert_eq!((text(3, "kind"), text(3, "text")), ("mark", "mkfs \"done\""));
        assert!(rows[2].get_string(column("text")).is_err());
    }

    #[test]
    fn long_texts_begin_and_many_make_smaller_groups() {
        let mut made = Made::new(&["vda"]);
        let texts = 2 * GROUP_TEXT_BYTES / TEXT_BYTES_MAX as usize;
        let long = "x".repeat(TEXT_BYTES_MAX as usize + 1);
        (0..texts).for_each(|n| made.mark(&format!("{n:04}{}", &long[4..])));
        let (reader, report) = exported(&made);
        assert_eq!(reader.num_row_groups(), 2);
        assert_eq!(report.losses.len(), 1);
        assert_eq!(report.losses[0].count, texts as u64);
        for row in reader.get_row_iter(None).unwrap() {
            let row = row.unwrap();
            assert_eq!(row.get_string(column("text")).unwrap().len() as u64, TEXT_BYTES_MAX);
            assert_eq!(row.get_ulong(column("len")).unwrap(), TEXT_BYTES_MAX + 1);
        }
    }
}
