#!/usr/bin/env python3
"""Reads an export with DuckDB and with pyarrow, and compares both with the trace's JSON lines.

    qtrace export t.qtrace -o t.parquet
    qtrace export t.qtrace -o t.jsonl
    python3 -m venv venv && venv/bin/pip install duckdb pyarrow
    venv/bin/python check-parquet.py t.parquet t.jsonl

Exit code 0: both agree on every count and sum; 1: they do not.
"""
import json
import sys

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# Rows are counted by these, and these are summed up; of the text, its length.
WORDS = ["device", "kind", "op", "flags", "data"]
NUMBERS = ["event", "time_ns", "stream", "addr", "len", "tag", "status", "cpu", "value"]


def as_row(event, streams):
    """An event of the JSON lines as a row of the table."""
    kind = event["kind"]
    row = {name: event.get(name) for name in NUMBERS}
    row["device"] = streams[event["stream"]]["device"]
    row["kind"] = kind
    row["addr"] = event.get("offset", event.get("addr"))
    row["op"] = event.get("op")
    row["flags"] = "+".join(event["flags"]) if "flags" in event else None
    row["data"] = event.get("payload", False)
    row["text"] = event.get("text")
    if kind == "bus":
        verbs = {"port": ("in", "out"), "mmio": ("mmio-read", "mmio-write")}
        row["op"] = verbs[event["space"]][event["write"]]
        row["len"] = event["size"]
    elif kind == "memory":
        row["value"] = event.get("fill")
    elif kind == "irq":
        row["addr"], row["value"] = event["line"], int(event["high"])
    elif kind == "ack":
        row["value"] = event.get("vector")
    elif kind == "clock":
        row["value"] = event["to_ns"]
    elif kind == "mark":
        row["len"] = len(row["text"].encode()) + event.get("text_bytes_left", 0)
    return row


def of_json_lines(path):
    """Counts by words, the sums of the numbers, and the characters of the texts."""
    counts, sums = {}, dict.fromkeys(NUMBERS + ["text"], 0)
    with open(path) as lines:
        streams = json.loads(next(lines))["streams"]
        for line in lines:
            row = as_row(json.loads(line), streams)
            key = tuple(row[name] for name in WORDS)
            counts[key] = counts.get(key, 0) + 1
            for name in NUMBERS:
                sums[name] += row[name] or 0
            sums["text"] += len(row["text"] or "")
    return counts, sums


def of_duckdb(path):
    columns = [f"coalesce(sum({name}::hugeint), 0)" for name in NUMBERS]
    columns.append("coalesce(sum(length(text)), 0)")
    table = f"read_parquet('{path}')"
    words = ", ".join(WORDS)
    rows = duckdb.sql(f"select {words}, count(*) from {table} group by all").fetchall()
    [sums] = duckdb.sql(f"select {', '.join(columns)} from {table}").fetchall()
    return {row[:-1]: row[-1] for row in rows}, dict(zip(NUMBERS + ["text"], map(int, sums)))


def of_pyarrow(path):
    counts, sums = {}, dict.fromkeys(NUMBERS + ["text"], 0)
    for batch in pq.ParquetFile(path).iter_batches():
        for row in zip(*(batch[name].to_pylist() for name in WORDS)):
            counts[row] = counts.get(row, 0) + 1
        for name in NUMBERS:
            # As decimals: sums of 64-bit numbers do not fit 64 bits.
            column = batch[name].cast(pa.decimal128(20)).cast(pa.decimal128(38))
            sums[name] += int(pc.sum(column).as_py() or 0)
        sums["text"] += pc.sum(pc.utf8_length(batch["text"])).as_py() or 0
    return counts, sums


def main():
    parquet, lines = sys.argv[1:3]
    want = of_json_lines(lines)
    ok = True
    for name, found in (("duckdb", of_duckdb(parquet)), ("pyarrow", of_pyarrow(parquet))):
        same = found == want
        ok &= same
        print(f"{name}: {sum(found[0].values())} rows, {'agrees' if same else 'DIFFERS'}")
        if not same:
            print(f"  found {found}\n  want  {want}")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
