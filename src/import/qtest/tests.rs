use super::*;
use crate::base::{BusAccess, BusSpace, ErrorKind};
use crate::import::testing::{Memory, import_bytes, losses, sample, sample_folder};
use crate::import::{ImportOptions, ImportReport};
use crate::trace::{Event, MemoryOp};

#[track_caller]
fn import(text: &str) -> (ImportReport, Memory) {
    import_bytes(text.as_bytes()).unwrap()
}

/// Each event in a few words.
fn brief(out: &Memory) -> Vec<String> {
    let line = |event: &Event| {
        let (name, time) = (out.stream_name(event), event.time().0);
        let what = match event {
            Event::Bus(bus) => {
                let BusAccess { write, addr, size, value, .. } = bus.access;
                let arrow = if write { "<-" } else { "->" };
                format!("{addr:x}/{size} {arrow} {value:x}")
            }
            Event::Memory(m) => match m.op {
                MemoryOp::Fill => format!("{:x}+{:x} fill {:x}", m.addr, m.len, m.fill),
                op => format!("{:x}+{:x} {} {:x?}", m.addr, m.len, op.name(), out.data(m.payload)),
            },
            Event::Irq(irq) => format!("{} {}", irq.line, if irq.high { "high" } else { "low" }),
            Event::Clock(step) => format!("to {}", step.to.0),
            other => panic!("{other:?}"),
        };
        format!("{time} {name}: {what}")
    };
    out.events.iter().map(line).collect()
}

#[test]
fn commands_alone() {
    let (report, out) = import(
        "outl 0xcf8 0x80001010\ninw 0xcfc\nwriteq 0xfe000000 0x1\nreadb 0xfe000004\n\
         write 0x1000 0x2 0x0102\nmemset 0x2000 0x1000 0xff\nread 0x1000 0x2\nclock_step 500\n\
         outb 0x70 0xa\nclock_set 1000\n",
    );
    assert_eq!(
        brief(&out),
        [
            "0 port: cf8/4 <- 80001010",
            "0 port: cfc/2 -> 0",
            "0 mmio: fe000000/8 <- 1",
            "0 mmio: fe000004/1 -> 0",
            "0 memory: 1000+2 write [1, 2]",
            "0 memory: 2000+1000 fill ff",
            "0 memory: 1000+2 read []",
            "0 clock: to 500",
            "500 port: 70/1 <- a",
            "500 clock: to 1000",
        ]
    );
    use NotRecorded as N;
    let lacks = N::CPUS | N::REGIONS | N::READ_VALUES | N::IRQS;
    assert_eq!(report.summary.not_recorded, lacks);
    assert!(report.summary.losses.is_empty() && report.summary.notes.is_empty());
}

const LOG: &str = "[I 0.000000] OPENED\n[R +0.010000] irq_intercept_in ioapic\n[S +0.010010] OK\n\
                   [R +0.020000] outb 0x70 0x0c\n[S +0.020001] IRQ raise 8\n[S +0.020010] OK\n\
                   [R +0.030000] inb 0x71\n[S +0.030001] IRQ lower 8\n[S +0.030010] OK 0x00c0\n\
                   [R +0.040000] clock_step\n[S +0.040001] IRQ raise 0\n[S +0.040010] OK 54925\n\
                   [R +0.050000] b64read 0x1000 3\n[S +0.050010] OK AQID\n\
                   [R +0.060000] inl 0xcfc\n[S +0.060010] OK 0x12378086\n[I +0.070000] CLOSED\n";

#[test]
fn a_log_with_answers() {
    let (report, out) = import(LOG);
    assert_eq!(
        brief(&out),
        [
            "0 port: 70/1 <- c",
            "0 ioapic: 8 high",
            "0 port: 71/1 -> c0",
            "0 ioapic: 8 low",
            "0 clock: to 54925",
            "54925 ioapic: 0 high",
            "54925 memory: 1000+3 read [1, 2, 3]",
            "54925 port: cfc/4 -> 12378086",
        ]
    );
    assert_eq!(report.summary.not_recorded, NotRecorded::CPUS | NotRecorded::REGIONS);
    assert_eq!(
        report.summary.notes,
        ["1 command of set-up (endianness, irq_intercept, …) left out"]
    );
    assert!(report.summary.losses.is_empty());
}

#[test]
fn a_transcript_and_a_log_with_its_echo_give_the_same() {
    let unmarked = |line: &str| {
        let body = line.split_once("] ").map(|(_, body)| body).filter(|_| !line.starts_with("[I"));
        body.map(str::to_owned)
    };
    let transcript: String = LOG.lines().filter_map(unmarked).map(|line| line + "\n").collect();
    assert!(!transcript.contains('['), "{transcript}");
    let echo = |line: &str| match unmarked(line).filter(|_| line.starts_with("[S")) {
        Some(body) => format!("{body}\n{line}\n"),
        None => format!("{line}\n"),
    };
    let echoed: String = LOG.lines().map(echo).collect();
    let want = brief(&import(LOG).1);
    assert_eq!(brief(&import(&transcript).1), want);
    assert_eq!(brief(&import(&echoed).1), want);
}

#[test]
fn a_script_with_a_here_document() {
    let (report, out) = import(
        "Reproducer:\ncat << EOF | ./qemu-system-i386 -M q35 -nodefaults \\\n-device x -qtest stdio\n\
         outl 0xcf8 \\\n0x80001010\nwrite 0x0 0x4 0x0102\\\n0304\nEOF\nThis crashes.\n",
    );
    assert_eq!(brief(&out), ["0 port: cf8/4 <- 80001010", "0 memory: 0+4 write [1, 2, 3, 4]"]);
    assert!(report.interpretation.contains(
        &"machine: ./qemu-system-i386 -M q35 -nodefaults -device x -qtest stdio".to_owned()
    ));
    assert_eq!(
        losses(&report),
        [
            ("line that is no qtest command", 1, "line 1"),
            ("line after the end of the here-document", 1, "line 9")
        ]
    );
}

#[test]
fn data_is_taken_as_qemu_takes_it() {
    let (report, out) = import(
        "write 0x10 0x4 0x01020\nwrite 0x20 0x1 0x010203\nwrite 0x30 0x2 0x0\nb64write 0x40 2 AQID\n\
         write 0x50 0x0 0x01\nwrite 0x60 0x2 0x01zz\nwrite 0x60 0x2 010203\nb64write 0x60 9 AQID\n\
         write 0x60 0xffffffffffffffff 0x01\nmemset 0x0 0xffffffffffffffff 0\nb64write 0 3 A*ID\n",
    );
    assert_eq!(
        brief(&out),
        [
            "0 memory: 10+2 write [1, 2]",
            "0 memory: 12+2 fill 0",
            "0 memory: 20+1 write [1]",
            "0 memory: 30+2 fill 0",
            "0 memory: 40+2 write [1, 2]",
        ]
    );
    assert_eq!(
        losses(&report),
        [
            ("data that is not hexadecimal", 1, "line 6"),
            ("data that does not begin with 0x", 1, "line 7"),
            ("data shorter than its length", 1, "line 8"),
            ("range past the end of any memory", 2, "line 9"),
            ("data that is not base64", 1, "line 11"),
        ]
    );
    assert!(report.summary.notes[0].starts_with("5 writes have less or more data"));
}

/// A size is a number: it costs no memory, however large it is.
#[test]
fn huge_sizes_cost_nothing() {
    let (_, out) = import("memset 0x0 0x1000000000000000 0xaa\nwrite 0x0 0x100000000000 0x0102\n");
    assert_eq!(
        brief(&out),
        [
            "0 memory: 0+1000000000000000 fill aa",
            "0 memory: 0+2 write [1, 2]",
            "0 memory: 2+ffffffffffe fill 0"
        ]
    );
}

#[test]
fn long_lines_are_read_and_longer_ones_are_an_error() {
    let data = "5a".repeat(1 << 20);
    let (_, out) = import(&format!("outb 0x80 1\nwrite 0x0 0x100000 0x{data}\n"));
    let Some(Event::Memory(memory)) = out.events.last() else { panic!("a write") };
    assert_eq!((memory.len, out.data(memory.payload).len()), (1 << 20, 1 << 20));
    let error = import_bytes(format!("outb 0x80 1\nwrite 0x0 0x1 0x{}", data.repeat(8)).as_bytes());
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert_eq!(error.to_string(), "test-input: line 2: line longer than 16777216 bytes");
}

#[test]
fn reads_have_values_all_or_none() {
    let (report, out) = import("[R +0.1] inb 0x71\n[S +0.1] OK 0x26\n[R +0.2] inb 0x72\n");
    assert_eq!(brief(&out), ["0 port: 71/1 -> 26"]);
    assert_eq!(losses(&report), [("read without an answer", 1, "line 3")]);
    let (report, out) = import("inb 0x71\ninb 0x72\nOK 0x26\n");
    assert_eq!(brief(&out), ["0 port: 71/1 -> 0"]);
    assert_eq!(losses(&report), [("read whose like had none", 1, "line 2")]);
    assert!(report.summary.not_recorded.contains(NotRecorded::READ_VALUES));
}

#[test]
fn what_qemu_refused_or_nobody_can_know_is_lost() {
    let (report, out) = import(
        "outb 0x80 1\nclock_step\noutb 0x80 2\nclock_step 5\nFAIL Unknown command 'clock_step'\n\
         readl 0x0\nOK nonsense\nread 0x0 2\nOK 0x010203\nclock_step\nOK 77\nclock_set 5\n\
         set_irq_in ioapic unnamed-gpio-in 3 1\nOK\nendianness\nOK little\n\
         rtas x 1 2 3\nERR\noutb 0x10000 1\n",
    );
    assert_eq!(brief(&out), ["0 port: 80/1 <- 1", "0 port: 80/1 <- 2", "0 clock: to 77"]);
    assert_eq!(
        losses(&report),
        [
            ("clock_step to a deadline that no answer tells", 1, "line 2"),
            ("command that QEMU refused", 1, "line 4"),
            ("answer that is no number", 1, "line 6"),
            ("answer that is not the data asked for", 1, "line 8"),
            ("clock that goes back or cannot be read", 1, "line 12"),
            ("set_irq_in: a line that the test drives", 1, "line 13"),
            ("line that is no qtest command", 1, "line 17"),
            ("port beyond 0xffff (QEMU aborts)", 1, "line 19"),
        ]
    );
}

#[test]
fn one_stream_can_be_asked_for() {
    let options = ImportOptions { device: Some("port".to_owned()), ..ImportOptions::default() };
    let (report, out) =
        crate::import::testing::import_with(b"outb 0x80 1\nwritel 0x0 1\n", &options).unwrap();
    assert_eq!(brief(&out), ["0 port: 80/1 <- 1"]);
    assert_eq!(losses(&report), [("another device than the one asked for", 1, "line 2")]);
}

#[test]
fn interrupts_in_one_command_are_bounded() {
    let text = format!("inb 0x71\n{}OK 0x1\n", "IRQ raise 1\nIRQ lower 1\n".repeat(5000));
    let (report, out) = import(&text);
    assert_eq!(out.events.len(), 1 + 4096);
    assert_eq!(losses(&report), [("interrupt change, too many in one command", 5904, "line 4098")]);
}

/// Command counts of the fuzzers' reports, from the table beside them.
#[test]
fn the_reproducers() {
    let Some(table) = sample("reproducers/results.tsv") else { return };
    let table = String::from_utf8(table).unwrap();
    let mut imported = 0;
    for row in table.lines().skip(1) {
        let columns: Vec<_> = row.split('\t').collect();
        let (id, commands) = (columns[0], columns[3].parse::<u64>().unwrap());
        let data = sample(&format!("reproducers/{id}.qtest")).unwrap();
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!(report.format, "qtest", "{id}");
        assert!(report.summary.losses.is_empty(), "{id}: {:?}", report.summary.losses);
        let bus = &report.ops.bus;
        // A write with less data than its length is followed by a fill.
        assert_eq!(bus.accesses() + bus.memory[0] + bus.memory[2], commands, "{id}");
        assert!(bus.memory[1] <= 3 && bus.irqs == [0, 0] && bus.steps == 0, "{id}");
        let machine = |line: &&String| line.starts_with("machine: ") && line.contains('-');
        assert_eq!(out.header.unwrap().interpretation.iter().filter(machine).count(), 1, "{id}");
        imported += 1;
    }
    let files = sample_folder().unwrap().join("reproducers").read_dir().unwrap();
    assert_eq!(imported + 1, files.count(), "every file and the table");
    assert_eq!(imported, 26);
}

#[test]
fn what_a_probe_says() {
    let probe = |text: &str| Qtest.probe(&Probe { head: text.as_bytes(), name: "x" });
    assert_eq!(probe(LOG), Some(Confidence::Certain));
    assert_eq!(probe("# x\noutb 0x80 1\n"), Some(Confidence::Likely));
    assert_eq!(probe("a\nb\nc\noutb 0x80 1\n"), Some(Confidence::Possible));
    assert_eq!(probe("a\ncat << EOF | qemu -qtest stdio\n"), Some(Confidence::Likely));
    assert_eq!(probe("cat << EOF | sort\nb\n"), None);
    assert_eq!(probe("outb\nread me\n"), None);
    let access = access_of(&import("outw 0x1f0 0x10203\n").1);
    assert_eq!(
        access,
        BusAccess { space: BusSpace::Pio, write: true, addr: 0x1f0, size: 2, value: 0x203 }
    );
}

fn access_of(out: &Memory) -> BusAccess {
    out.accesses()[0].2
}

#[test]
fn trace_events_within_a_log_are_beside_it() {
    let text = "[I +0.000001] OPENED\n[R +0.02] outw 0x176 0x3538\n\
        7@5.6:ide_exec_cmd IDE exec cmd: bus 0x1; state 0x2; cmd 0x35\nOK\n[S +0.03] OK\n\
        qemu: hw/ide/core.c:724: Assertion failed.\n";
    let (report, out) = import_bytes(text.as_bytes()).unwrap();
    assert_eq!((report.format.as_str(), out.events.len()), ("qtest", 1));
    assert_eq!(losses(&report), [("line beside those of the log", 2, "line 3")]);
}

#[test]
fn reports_are_known_through_what_mail_and_comments_put_before_their_lines() {
    let lines = ["cat << EOF | qemu -M q35 \\", "-qtest stdio", "outb 1 2", "EOF"];
    for (before, after) in [("> > ", ""), (" * ", " */\nint main(void)\n"), ("    ", "")] {
        let text: String = lines.map(|line| format!("{before}{line}\n")).concat() + after;
        let (report, out) = import(&text);
        assert_eq!((report.format.as_str(), out.events.len()), ("qtest", 1), "{text}");
        let events =
            format!("{text}7@5.6:ide_exec_cmd IDE exec cmd: bus 0x1; state 0x2; cmd 0xe7\n");
        assert_eq!(import(&events).0.format, "qtest");
    }
    let wrapped = "> > cat << EOF | qemu -M q35\n> \\\n> > -qtest stdio\n> > outb 1 2\n> > EOF\n";
    let (report, _) = import(wrapped);
    assert!(
        report.interpretation.contains(&"machine: qemu -M q35 -qtest stdio".to_owned()),
        "{:?}",
        report.interpretation
    );
}
