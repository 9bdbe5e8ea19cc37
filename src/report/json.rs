//! A report as JSON, and back.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::Formatter;

use super::bus::BUS_SCHEMA;
use super::qtest_log::QTEST_LOG_SCHEMA;
use super::{Report, SCHEMA};
use crate::base::{Error, Result};

/// The JSON text of a report: indented, keys in the order of [`Report`], a newline at the end.
///
/// # Errors
/// None that a report can cause; the serialiser's own.
pub fn to_string(report: &Report) -> Result<String> {
    to_text(report)
}

/// Any value in the same form.
///
/// # Errors
/// As [`to_string`].
pub fn to_text(value: &impl Serialize) -> Result<String> {
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::incomplete("cannot write the report as JSON").source(e)
    };
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Layout::default());
    value.serialize(&mut serializer).map_err(|e| failed(e.into()))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|e| failed(e.into()))
}

/// Objects indented, a line for each key; numbers and short words of an array on one line, so that
/// the buckets of a histogram do not take thousands.
#[derive(Default)]
struct Layout {
    /// For each open object or array: whether it is an array, and whether anything stands in it.
    open: Vec<(bool, bool)>,
}

impl Layout {
    fn new_line<W: ?Sized + Write>(&self, out: &mut W, depth: usize) -> io::Result<()> {
        out.write_all(b"\n")?;
        (0..depth).try_for_each(|_| out.write_all(b"  "))
    }

    /// Marks that something stands in the innermost; whether something did before.
    fn used(&mut self) -> bool {
        self.open.last_mut().is_some_and(|(_, used)| std::mem::replace(used, true))
    }
}

impl Formatter for Layout {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open.push((true, false));
        out.write_all(b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open.pop();
        out.write_all(b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, _: bool) -> io::Result<()> {
        if self.used() { out.write_all(b", ") } else { Ok(()) }
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open.push((false, false));
        out.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        if let Some((_, true)) = self.open.pop() {
            self.new_line(out, self.open.len())?;
        }
        out.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, _: bool) -> io::Result<()> {
        if self.used() {
            out.write_all(b",")?;
        }
        self.new_line(out, self.open.len())
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// Whether `first_bytes` of a file may be a report at all: a JSON object.
pub fn probe(first_bytes: &[u8]) -> bool {
    first_bytes.trim_ascii_start().first() == Some(&b'{')
}

/// Whether `head`, the first bytes of a file, are those of a report of a replay, of any version.
pub fn begins_report(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    let value = text
        .split_once("\"schema\"")
        .and_then(|(_, rest)| rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"'));
    let family = value.and_then(|value| value.split_once('/')).map(|(name, _)| name);
    let ours = [SCHEMA, BUS_SCHEMA, QTEST_LOG_SCHEMA]
        .map(|schema| schema.split_once('/').map(|(name, _)| name));
    probe(head) && family.is_some() && ours.contains(&family)
}

/// Reads a report.
///
/// # Errors
/// `Input` for anything that is not a report, or one of a version that is not understood.
pub fn from_slice(bytes: &[u8]) -> Result<Report> {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(default)]
        schema: String,
        #[serde(default)]
        qtrace: String,
    }
    let damaged = |e| Error::input("not a report, or a damaged one").source(e);
    let head: Head = serde_json::from_slice(bytes).map_err(damaged)?;
    if head.schema != SCHEMA {
        let error = Error::input(match head.schema.as_str() {
            "" => "JSON without a \"schema\": not a report".to_owned(),
            other => format!("a report of schema \"{other}\", and this program reads \"{SCHEMA}\""),
        });
        return Err(match head.qtrace.as_str() {
            "" => error,
            version => error.hint(format!("qtrace {version} wrote it and reads it")),
        });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}
