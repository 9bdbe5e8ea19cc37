#!/bin/sh
# Did it get slower? Replays one trace onto two targets (two formats, two builds, two file systems)
# and compares the latencies. Exit code 6: the second is slower than allowed.
#
# usage: compare-timing.sh TRACE [EXPRESSION]     EXPRESSION, say: 'p99>25%' or 'write.p50>10%'
set -eu
trace=$1 limit=${2:-p99>25%}
qtrace=${QTRACE:-qtrace}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

run() { # NAME FORMAT
    "$qtrace" replay --test block-trace-virtio \
        "tracefile=$trace,target_img=$work/$1,target_fmt=$2,verify=none,loops=3,report=$work/$1.json" \
        >"$work/$1.txt"
}
run before raw
run after qcow2

# Reports hold whole histograms, not just percentiles; `qtrace diff` knows them by their content.
"$qtrace" diff "$work/before.json" "$work/after.json" --fail-if "$limit"
