#!/bin/sh
# Does a machine still answer a guest's port accesses as it did? Imports a QEMU trace log (plain
# or compressed) and replays its port accesses on the builtin machine, checking every read.
#
# Make the log on any QEMU with the log backend, times included:
#   qemu-system-x86_64 -M pc … -msg timestamp=on -D boot.log \
#       -trace memory_region_ops_read -trace memory_region_ops_write
#
# Exit code 0: at least so many percent of the reads from devices that we model are equal; 1: fewer
# (they are listed by region and register); anything else: the check itself could not be made.
#
# usage: replay-boot.sh LOG [PERCENT [OPTIONS]]
#   OPTIONS as in: qtrace replay --test port-trace '?'
set -eu
log=$1 percent=${2:-100} options=${3:-}
qtrace=${QTRACE:-qtrace}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What the log does not hold (memory, interrupts, doorbells) is said here.
"$qtrace" import "$log" -o "$work/boot.qtrace"

"$qtrace" replay --test port-trace \
    "tracefile=$work/boot.qtrace,fail_below=$percent${options:+,$options}"
