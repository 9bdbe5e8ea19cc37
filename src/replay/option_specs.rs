//! The options of `--test block-trace-virtio`: names, forms, defaults, and what they do.

use crate::base::options::OptionSpec;

/// The options, in the order help lists them.
pub const SPECS: &[OptionSpec] = &[
    OptionSpec::new("tracefile", "FILE", "", "the trace to replay (required)"),
    OptionSpec::new(
        "target_img",
        "FILE",
        "",
        "the disk it is replayed onto: created when missing, else written in place",
    ),
    OptionSpec::new(
        "target_fmt",
        "FORMAT",
        "",
        "raw, qcow2, ..., or null or mem, which need no target_img; an existing target is probed",
    ),
    OptionSpec::new(
        "target_size",
        "SIZE",
        "",
        "size of a new target; as the trace says when not given",
    ),
    OptionSpec::new(
        "snapshot",
        "on|off",
        "off",
        "leave an existing target untouched: writes go to a temporary overlay",
    ),
    OptionSpec::new(
        "comparison_img",
        "FILE",
        "",
        "the image that the target must equal after the run",
    ),
    OptionSpec::new("comparison_fmt", "FORMAT", "", "its format; probed when not given"),
    OptionSpec::new(
        "verify",
        "full|reads|none",
        "full",
        "check every read and the final image, only the reads, or nothing",
    ),
    OptionSpec::new(
        "image_sha256",
        "auto|on|off",
        "auto",
        "SHA-256 of the target after the run; auto: with verify=full, up to 64 GiB",
    ),
    OptionSpec::new(
        "oracle_memory",
        "SIZE",
        "1G",
        "memory of the model before it spills to a temporary file",
    ),
    OptionSpec::new("iodepth", "N", "32", "device requests in flight at most"),
    OptionSpec::new(
        "pacing",
        "no_stall|recorded|closed",
        "no_stall",
        "as fast as iodepth allows; at recorded times; after what had completed before",
    ),
    OptionSpec::new("time_scale", "PERCENT", "100", "50 is twice as fast; implies pacing=recorded"),
    OptionSpec::new(
        "lag_budget",
        "TIME",
        "1ms",
        "p99 lateness past which a timed run is INVALID for timing",
    ),
    OptionSpec::new("on_lag", "warn|fail", "warn", "fail: such a run exits with 6"),
    OptionSpec::new(
        "clock",
        "host|virtual",
        "host",
        "virtual: time passes only while the test waits; on the builtin machine run log and report \
         then repeat byte for byte",
    ),
    OptionSpec::new("loops", "N", "1", "passes over the trace; each writes new stamps"),
    OptionSpec::new(
        "events",
        "A-B",
        "",
        "only events A up to, not including, B; either may be left out",
    ),
    OptionSpec::new(
        "time",
        "A-B",
        "",
        "only this part of the recorded time (s; ms, us, ns as suffix)",
    ),
    OptionSpec::new("device", "NAME|all", "", "which device, where the trace holds several"),
    OptionSpec::new("offset", "error|wrap|clip", "error", "requests past the end of the disk"),
    OptionSpec::new("unaligned", "round|error", "round", "requests that are not whole blocks"),
    OptionSpec::new(
        "overlap",
        "hold|allow",
        "hold",
        "requests that overlap one in flight wait for it, or go",
    ),
    OptionSpec::new(
        "cache",
        "none|writeback|unsafe",
        "writeback",
        "O_DIRECT; page cache; page cache and no flush",
    ),
    OptionSpec::new(
        "aio",
        "auto|sync|threads|native|io_uring",
        "auto",
        "how a raw target is read and written; threads and native: by QEMU; sync: not by QEMU",
    ),
    OptionSpec::new(
        "allow_backing",
        "on|off",
        "off",
        "open backing files outside the image's own folder",
    ),
    OptionSpec::new(
        "num_queues",
        "N",
        "1",
        "request queues of the device; each stream of the trace goes to one, that of its recording or the next in turn",
    ),
    OptionSpec::new("queue_size", "N", "256", "entries of each ring, a power of two"),
    OptionSpec::new(
        "iothread",
        "auto|on|off",
        "auto",
        "the device runs in its own thread; auto: of QEMU's with clock=host",
    ),
    OptionSpec::new(
        "completion",
        "poll|irq",
        "poll",
        "notice completions in the used ring, or by interrupt",
    ),
    OptionSpec::new("transport", "auto|modern|legacy", "auto", "the virtio PCI interface to use"),
    OptionSpec::new("board", "pc|q35", "pc", "the machine's board: the same as its option type="),
    OptionSpec::new("indirect", "on|off", "on", "negotiate indirect descriptors"),
    OptionSpec::new("event_idx", "on|off", "on", "negotiate the event index"),
    OptionSpec::new(
        "transfer_max",
        "SIZE",
        "1M",
        "largest read or write; larger ones are cut into pieces",
    ),
    OptionSpec::new("ram", "SIZE", "128M", "guest memory: the same as the machine's option ram="),
    OptionSpec::new("seed", "N", "1", "seed of the stamps that stand for data the trace lacks"),
    OptionSpec::new(
        "deadline",
        "TIME",
        "30s",
        "no completion for so long means that the device hangs",
    ),
    OptionSpec::new("report", "FILE", "", "write the JSON report there too"),
    OptionSpec::new("runlog", "FILE", "", "write the run log there"),
    OptionSpec::new("strict", "on|off", "off", "a trace that is cut short makes the exit code 7"),
    OptionSpec::new(
        "fault",
        "KIND:N",
        "",
        "drop, tear, flip, swap or error at write N to the image, counted from 0 (each piece of \
         a split request counts); builtin machine only",
    ),
];

/// The options as help prints them.
pub fn help() -> String {
    let width = SPECS.iter().map(|s| s.name.len() + s.value.len() + 1).max().unwrap_or(0);
    let mut text = String::from(
        "block-trace-virtio: replay a block trace through a virtio-blk device and check the result\n\n\
         Options (key=value,key=value; write ,, for a comma inside a value):\n",
    );
    for spec in SPECS {
        let form = format!("{}={}", spec.name, spec.value);
        let default = match spec.default {
            "" => String::new(),
            default => format!(" [{default}]"),
        };
        text.push_str(&format!("  {form:width$}  {}{default}\n", spec.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_option() {
        let help = help();
        assert!(SPECS.iter().all(|spec| help.contains(&format!("  {}=", spec.name))));
    }
}
