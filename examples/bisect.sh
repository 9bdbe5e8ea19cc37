#!/bin/sh
# For `git bisect run`: build the tree under test, replay a trace through it, tell good from bad.
#
#     git bisect start BAD GOOD
#     git bisect run /path/to/bisect.sh /path/to/trace.qtrace /path/to/want.raw 'make -j8'
#
# git reads the exit code: 0 good, 1 bad, 125 cannot be tested. qtrace's own codes map onto that:
# a divergence (1) or a timing threshold (6) is bad; everything else says nothing about the tree.
#
# usage: bisect.sh TRACE WANT_IMAGE [BUILD_COMMAND]
set -u
trace=$1 want=$2 build=${3:-true}
qtrace=${QTRACE:-qtrace}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sh -c "$build" || exit 125
"$qtrace" replay --test block-trace-virtio \
    "tracefile=$trace,target_img=$work/disk.qcow2,target_fmt=qcow2,comparison_img=$want"
code=$?
case $code in
    0) exit 0 ;;
    1 | 6) exit 1 ;;
    *) echo "qtrace could not tell (exit code $code)" >&2; exit 125 ;;
esac
