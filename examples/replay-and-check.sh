#!/bin/sh
# Regression: replay a recorded workload onto a fresh disk and prove the result.
#
# The guest-visible content of the finished disk must have a known SHA-256 (the golden hash), and
# every byte must equal a golden image when one is given. Exit code 0: as before; 1: the data
# changed (the findings are printed); anything else: the check itself could not be made.
#
# usage: replay-and-check.sh TRACE GOLDEN_SHA256 [GOLDEN_IMAGE]
set -eu
trace=$1 golden=$2 image=${3:-}
qtrace=${QTRACE:-qtrace}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# No target exists yet, so qtrace creates it with the trace's size. Reads are checked while the
# replay runs, the whole image afterwards (verify=full is the default).
"$qtrace" replay --test block-trace-virtio \
    "tracefile=$trace,target_img=$work/disk.qcow2,target_fmt=qcow2,iodepth=8,report=$work/report.json"

# The report holds the hash of the guest-visible content: the same for raw, qcow2 or any format.
got=$(sed -n 's/.*"image_sha256": *"\([0-9a-f]*\)".*/\1/p' "$work/report.json")
if [ "$got" != "$golden" ]; then
    echo "the disk's content changed: expected $golden, got $got" >&2
    exit 1
fi

# With a golden image at hand, say exactly which extents differ and which event wrote them.
if [ -n "$image" ]; then
    "$qtrace" diff "$work/disk.qcow2" "$image" --trace "$trace"
fi
echo "content is as expected"
