use super::event::MALFORMED;
use super::*;
use crate::base::ErrorKind;
use crate::import::testing::{import_bytes, losses, plain_sample, sample};
use crate::trace::Event as TraceEvent;

fn access(space: BusSpace, write: bool, addr: u64, size: u8, value: u64) -> BusAccess {
    BusAccess { space, write, addr, size, value }
}

/// Events of one thread, as a tool prints them.
fn text(prefix: impl Fn(usize) -> String, events: &[&str]) -> Vec<u8> {
    let line = |(n, event): (usize, &&str)| format!("{}{event}\n", prefix(n));
    events.iter().enumerate().map(line).collect::<String>().into_bytes()
}

fn ftrace(n: usize) -> String {
    format!(" qemu-system-x86-27125   [001] .....  2034.{n:06}: ")
}

#[test]
fn fields_in_place_of_the_kernels_format() {
    let raw = [
        "kvm_pio: rw=1 port=112 size=1 count=1 val=143",
        "kvm_pio: rw=0 port=1297 size=2 count=3 val=7",
        "kvm_mmio: type=2 len=4 gpa=0xfee000f0 val=511",
        "kvm_mmio: type=0 len=4 gpa=4096 val=0",
        "kvm_mmio: type=1 len=4 gpa=4096 val=5",
    ];
    let prefix = |n| format!("  a.dat:  CPU 2/KVM-9   [001]-0x0  2034.{n:06}: ");
    let perf = "\
        0.000 CPU 2/KVM/9 kvm:kvm_pio(rw: 1, port: 112, size: 1, count: 1, val: 143)\n\
        0.001 CPU 2/KVM/9 kvm:kvm_pio(port: 1297, size: 2, count: 3, val: 7)\n\
        0.002 CPU 2/KVM/9 kvm:kvm_mmio(type: 2, len: 4, gpa: 4276093168, val: 511)\n\
        0.003 CPU 2/KVM/9 kvm:kvm_mmio(len: 4, gpa: 4096)\n\
        0.004 CPU 2/KVM/9 kvm:kvm_mmio(type: 1, len: 4, gpa: 4096, val: 5)\n";
    let want = [
        (0, access(BusSpace::Pio, true, 0x70, 1, 143)),
        (1000, access(BusSpace::Pio, false, 0x511, 2, 7)),
        (2000, access(BusSpace::Mmio, true, 0xfee0_00f0, 4, 511)),
        (4000, access(BusSpace::Mmio, false, 4096, 4, 5)),
    ];
    for text in [text(prefix, &raw), perf.as_bytes().to_vec()] {
        let (report, out) = import_bytes(&text).unwrap();
        assert_eq!(report.format, "kvm-bus");
        let got = out.events.iter().map(|event| match event {
            TraceEvent::Bus(bus) => {
                assert_eq!(bus.cpu, Some(2));
                (bus.time.0, bus.access)
            }
            other => panic!("{other:?}"),
        });
        let got: Vec<_> = got.collect();
        assert_eq!(got, want);
        assert_eq!(losses(&report).len(), 1, "string I/O");
    }
}

#[test]
fn ports_and_memory_in_the_texts_of_three_tools() {
    let events = [
        "kvm_userspace_exit: reason KVM_EXIT_IO (2)",
        "kvm_pio: pio_write at 0x70 size 1 count 1 val 0x8f ",
        "kvm_pio: pio_read at 0xcfc size 4 count 1 val 0x12378086 ",
        "kvm_mmio: mmio write len 4 gpa 0xfee000f0 val 0x1ff",
        "kvm_mmio: mmio unsatisfied-read len 2 gpa 0xfebf0000 val 0x0",
        "kvm_mmio: mmio read len 2 gpa 0xfebf0000 val 0x1234aa55",
        "kvm_mmio: mmio read len 8 gpa 0xfee00030 val 0xffffffff00050014",
    ];
    let want = [
        ("port", 0, access(BusSpace::Pio, true, 0x70, 1, 0x8f)),
        ("port", 1000, access(BusSpace::Pio, false, 0xcfc, 4, 0x1237_8086)),
        ("mmio", 2000, access(BusSpace::Mmio, true, 0xfee0_00f0, 4, 0x1ff)),
        ("mmio", 4000, access(BusSpace::Mmio, false, 0xfebf_0000, 2, 0xaa55)),
        ("mmio", 5000, access(BusSpace::Mmio, false, 0xfee0_0030, 8, 0xffff_ffff_0005_0014)),
    ];
    let perf = |n| format!("CPU 3/KVM   777/779 [001]  2034.{n:06}: kvm:");
    let trace_cmd = |n| format!("       CPU 3/KVM-779   [001]  2034.{n:06}: ");
    for (text, cpu) in [
        (text(ftrace, &events), None),
        (text(perf, &events), Some(3)),
        (text(trace_cmd, &events), Some(3)),
    ] {
        let (report, out) = import_bytes(&text).unwrap();
        assert_eq!(report.format, "kvm-bus");
        assert_eq!(out.accesses(), want);
        let cpus = out.events.iter().map(|event| match event {
            TraceEvent::Bus(bus) => bus.cpu,
            other => panic!("{other:?}"),
        });
        assert!(cpus.into_iter().all(|of| of == cpu));
        assert_eq!(losses(&report), [("other event: kvm_userspace_exit", 1, "line 1")]);
        let lacks = report.summary.not_recorded;
        use NotRecorded as N;
        assert!(lacks.contains(N::MEMORY | N::IRQS | N::REGIONS));
        assert_eq!(lacks.contains(N::CPUS), cpu.is_none());
        assert!(report.summary.notes.is_empty(), "{:?}", report.summary.notes);
    }
}

#[test]
fn what_has_no_value_is_counted_and_never_made_up() {
    let (report, out) = import_bytes(&text(
        ftrace,
        &[
            "kvm_pio: pio_read at 0x511 size 1 count 4 val 0x3 (...)",
            "kvm_pio: pio_write at 0x80 size 1 count 1",
            "kvm_fast_mmio: fast mmio at gpa 0xfe003000",
            "kvm_mmio: mmio unsatisfied-read len 4 gpa 0xfebf0000 val 0x0",
            "kvm_mmio: mmio unsatisfied-read len 4 gpa 0xfebf0004 val 0x0",
            "kvm_mmio: mmio write len 16 gpa 0xfebf0010 val 0x0",
            "kvm_mmio: mmio write len 3 gpa 0xfebf0010 val 0x0",
            "kvm_pio: pio_read at 0x10000 size 1 count 1 val 0x3",
            "kvm_pio: pio_read at 0x80 size 8 count 1 val 0x3",
            "kvm_mmio: mmio frobnicate len 4 gpa 0x10 val 0x0",
        ],
    ))
    .unwrap();
    assert_eq!(out.accesses(), [("port", 0, access(BusSpace::Pio, false, 0x511, 1, 3))]);
    assert_eq!(
        losses(&report),
        [
            ("element of string I/O after the first: KVM keeps no value of it", 3, "line 1"),
            ("port access without its value (Linux before 3.15)", 1, "line 2"),
            ("doorbell taken by KVM (kvm_fast_mmio): no size and no value", 1, "line 3"),
            ("read whose answer is not in the trace", 2, "line 4"),
            ("access that is not of 1, 2, 4 or 8 bytes", 2, "line 6"),
            (MALFORMED, 3, "line 8"),
        ]
    );
    assert_eq!(report.summary.notes.len(), 2);
}

#[test]
fn vcpus_have_reads_of_their_own() {
    let line = |tid: u32, n: u32, what: &str| {
        format!("q-{tid} [000] ..... 1.{n:06}: kvm_mmio: mmio {what} len 4 gpa 0x1000 val 0x5\n")
    };
    let text = [
        line(1, 1, "unsatisfied-read"),
        line(2, 2, "unsatisfied-read"),
        line(2, 3, "read"),
        line(1, 4, "read"),
        line(1, 2, "write"),
    ]
    .concat();
    let (report, out) = import_bytes(text.as_bytes()).unwrap();
    let times: Vec<_> = out.accesses().iter().map(|access| access.1).collect();
    assert_eq!(times, [0, 1000, 1000]);
    assert!(report.summary.losses.is_empty());
    assert!(report.summary.notes[0].contains("several threads"));
    assert!(report.summary.notes[1].starts_with("1 time goes back"));
}

#[test]
fn threads_that_are_named_after_their_vcpu() {
    for (comm, cpu) in [
        ("CPU 0/KVM", Some(0)),
        ("CPU 12/KVM", Some(12)),
        ("CPU 1/TCG", None),
        ("fc_vcpu 1", Some(1)),
        ("crosvm_vcpu7", Some(7)),
        ("vcpu2", Some(2)),
        ("vcpu", None),
        ("CPU 3/KV", Some(3)),
        ("CPU 12/K", Some(12)),
        ("CPU 3/TCG", None),
        ("host.dat: CPU 3/KVM", Some(3)),
        ("qemu-system-x86", None),
    ] {
        assert_eq!(vcpu_of(comm.as_bytes()), cpu, "{comm}");
    }
}

#[test]
fn a_text_of_both_kinds_is_the_users_to_choose() {
    let both = text(
        ftrace,
        &[
            "kvm_pio: pio_write at 0x70 size 1 count 1 val 0x8f",
            "block_rq_issue: 8,0 R 4096 () 8 + 8 [f]",
        ],
    );
    let error = import_bytes(&both).unwrap_err();
    assert_eq!(error.to_string(), "test-input: could be any of ftrace, kvm-bus");
    let none = text(ftrace, &["kvm_exit: vcpu 0 reason IO_INSTRUCTION rip 0xfff0"]);
    let options = ImportOptions { from: Some("kvm-bus".into()), ..ImportOptions::default() };
    let error = crate::import::testing::import_with(&none, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Nothing);
}

#[test]
fn the_sample_of_a_real_guest() {
    let name = "traces/kvm-pio-mmio/kvm_pio+kvm_mmio.ftrace.txt.gz";
    let (Some(data), Some(plain)) = (sample(name), plain_sample(name)) else { return };
    let plain = String::from_utf8(plain).unwrap();
    let count = |word: &str| plain.lines().filter(|line| line.contains(word)).count() as u64;
    let (report, out) = import_bytes(&data).unwrap();
    assert_eq!(report.format, "kvm-bus");
    let bus = &report.ops.bus;
    let ports = [count("pio_read"), count("pio_write")];
    assert_eq!(ports, [443, 2470]);
    assert_eq!(bus.ports, ports);
    assert_eq!(bus.mmio, [count("mmio read"), count("mmio write")]);
    assert_eq!(out.events.len(), 443 + 2470 + 258 + 4561);
    // One string access, of which three elements have no value.
    let lost = losses(&report);
    assert_eq!((lost.len(), lost[0].1), (1, 3));
}
