//! Every importer against arbitrary input.

#![no_main]

use std::io::{Cursor, Read, copy, sink};

use libfuzzer_sys::fuzz_target;
use qtrace::base::{BlockOp, Error, Nanos, Result};
use qtrace::import::job::Sink;
use qtrace::import::registry::IMPORTERS;
use qtrace::import::source::{Meter, Source};
use qtrace::import::{ImportOptions, run};
use qtrace::trace::format::{Record, RecordBounds};
use qtrace::trace::{Event, PayloadRef, StreamId, StreamInfo, TraceHeader};

/// Checks each event by the container's rules and keeps nothing.
#[derive(Default)]
struct Checker {
    begun: bool,
    streams: u32,
    payloads: u32,
}

impl Sink for Checker {
    fn begin(&mut self, _: TraceHeader) -> Result<()> {
        assert!(!self.begun, "begun twice");
        self.begun = true;
        Ok(())
    }

    fn stream(&mut self, _: StreamInfo) -> Result<StreamId> {
        assert!(self.begun);
        self.streams += 1;
        Ok(StreamId(self.streams - 1))
    }

    fn payload(&mut self, data: &[u8]) -> Result<PayloadRef> {
        self.payload_from(data.len() as u64, &mut &data[..])
    }

    fn payload_from(&mut self, len: u64, source: &mut dyn Read) -> Result<PayloadRef> {
        assert!(self.begun);
        match copy(&mut source.take(len), &mut sink()) {
            Ok(copied) if copied == len => {
                self.payloads += 1;
                Ok(PayloadRef::Stored(self.payloads))
            }
            _ => Err(Error::input("the source is short")),
        }
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        assert!(self.begun);
        let next_payload = u64::from(self.payloads) + 1;
        let bounds = RecordBounds { streams: self.streams, next_payload };
        if let Err(why) = Record::encode(event, bounds) {
            panic!("{event:?} has {why}");
        }
        Ok(())
    }

    fn earlier_origin(&mut self, _: Nanos) -> Result<()> {
        assert!(self.begun);
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, input)) = data.split_first() else { return };
    let from = IMPORTERS.get(usize::from(*choice)).map(|importer| importer.name().to_owned());
    // An option that means nothing to a format is an error of usage.
    let uncounted = from.as_deref() == Some("dm-log-writes") && input.len().is_multiple_of(2);
    // What libCacheSim's format does not say must be told.
    let silent = from.as_deref() == Some("oracle-general");
    let (op, unit_bytes) = (silent.then_some(BlockOp::Read), silent.then_some(512));
    let options = ImportOptions { from, uncounted, op, unit_bytes, ..ImportOptions::default() };
    let Ok(source) = Source::from_read("fuzz".into(), Box::new(Cursor::new(input.to_vec()))) else {
        return;
    };
    let mut checker = Checker::default();
    let _ = run(vec![source], &options, Meter::default(), &mut checker, &mut |_| {});
});
