//! Whether the answers were right: a pure function of trace, run log and images.
