//! The test thread: plan, pacing, in-flight table, engine, run log.
