//! Traces out: one file per foreign format.

pub mod json_lines;
