//! Damaged and hostile files.
