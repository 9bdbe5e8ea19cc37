//! A report as JSON, and back.

use super::{Report, SCHEMA};
use crate::base::{Error, Result};

/// The JSON text of a report: indented, keys in the order of [`Report`], a newline at the end.
///
/// # Errors
/// None that a report can cause; the serialiser's own.
pub fn to_string(report: &Report) -> Result<String> {
    let mut text = serde_json::to_string_pretty(report)
        .map_err(|e| Error::incomplete("cannot write the report as JSON").source(e))?;
    text.push('\n');
    Ok(text)
}

/// Whether `first_bytes` of a file may be a report at all: a JSON object.
pub fn probe(first_bytes: &[u8]) -> bool {
    first_bytes.trim_ascii_start().first() == Some(&b'{')
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
