//! The fields of an event by name, as tools print them that do not use the event's own format:
//!
//! ```text
//! dev=8388608 sector=2048 nr_sector=8 rwbs=WS comm=fio cmd=          trace-cmd report -R
//! dev=0x800000 (8388608) sector=0x800 (2048) … rwbs=WS comm=fio      tracefs, with the option fields
//! [FAILED TO PARSE] dev=8388608 sector=2048 …                       a format that it cannot read
//! dev: 8388608, sector: 2048, nr_sector: 8, rwbs: "WS", …           perf trace; leaves out zeroes
//! ```

use crate::import::lines::c_number;

/// Whether an event's arguments are its fields: what the kernel prints of these events itself
/// begins with a number or a verb.
pub(in crate::import) fn are_fields(args: &[u8]) -> bool {
    let name = args.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_');
    let rest = args.get(name.count()..).unwrap_or_default();
    args.starts_with(b"[FAILED TO PARSE]")
        || args.first().is_some_and(u8::is_ascii_lowercase)
            && (rest.starts_with(b"=") || rest.starts_with(b": "))
}

/// The value of a field, without quotes.
pub(in crate::import) fn value<'l>(args: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(args.get(from..)?, name) {
        let start = from + at;
        from = start + name.len();
        let begins = start == 0 || matches!(args.get(start - 1), Some(b' ' | b','));
        let rest = args.get(from..)?;
        if begins && let Some(value) = rest.strip_prefix(b"=") {
            return value.split(|byte| *byte == b' ').next();
        }
        if begins && let Some(value) = rest.strip_prefix(b": ") {
            return match value.strip_prefix(b"\"") {
                Some(quoted) => quoted.split(|byte| *byte == b'"').next(),
                None => value.split(|byte| *byte == b',').next(),
            };
        }
    }
    None
}

/// The same, for a number; a field that is left out is 0.
pub(in crate::import) fn number_or_zero(args: &[u8], name: &[u8]) -> Option<u64> {
    value(args, name).map_or(Some(0), c_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_tools() {
        let text = |args: &'static str, name: &str| {
            value(args.as_bytes(), name.as_bytes()).map(|value| str::from_utf8(value).unwrap())
        };
        let trace_cmd = "dev=8388608 sector=16 nr_sector=8 rwbs=WS comm=my job cmd=";
        assert_eq!(text(trace_cmd, "sector"), Some("16"));
        assert_eq!(text(trace_cmd, "nr_sector"), Some("8"));
        assert_eq!(text(trace_cmd, "cmd"), Some(""));
        assert_eq!(text(trace_cmd, "ector"), None);
        let perf = "dev: 8388608, nr_sector: 8, rwbs: \"WS\", comm: \"a, b\", cmd: \"\"";
        assert_eq!(text(perf, "rwbs"), Some("WS"));
        assert_eq!(text(perf, "comm"), Some("a, b"));
        assert_eq!(text(perf, "dev"), Some("8388608"));
        assert_eq!(number_or_zero(perf.as_bytes(), b"sector"), Some(0));
        assert_eq!(number_or_zero(perf.as_bytes(), b"rwbs"), None);
    }

    #[test]
    fn what_are_fields() {
        for args in ["dev=1", "dev: 1, x", "[FAILED TO PARSE] dev=1", "rw=1 port=1"] {
            assert!(are_fields(args.as_bytes()), "{args}");
        }
        for args in ["8,0 W 0 () 0 + 8 [a=b]", "pio_write at 0x70", "mmio read len 4", "", "A=b"] {
            assert!(!are_fields(args.as_bytes()), "{args}");
        }
    }
}
