//! Several test threads against one machine.

use std::thread::ScopedJoinHandle;

use super::outcome::{Finding, Outcome};
use super::panics;
use super::thread::TestThread;
use crate::base::{Error, Nanos, Result};
use crate::machine::Machine;

/// Threads that a case may ask for: more than any machine has processors.
pub const THREADS_MAX: usize = 256;

/// What a further thread brings back.
type Brought<T> = (Outcome<T>, Vec<String>);

impl TestThread<'_> {
    /// Runs `work` in `count` further test threads against this machine at once, each with its
    /// number, and gathers what they return, in the order of their numbers; what they said is said
    /// in that order. Each has randomness of its own.
    ///
    /// # Errors
    /// The machine is driven by one thread only, or the system has no thread; else what the first
    /// thread that did not pass returned, and a finding when it panicked. All have ended then.
    pub fn threads<T: Send>(
        &mut self,
        count: usize,
        work: impl Fn(usize, &mut TestThread<'_>) -> Outcome<T> + Sync,
    ) -> Outcome<Vec<T>> {
        if count > THREADS_MAX {
            return Err(Error::usage(format!("{count} threads: at most {THREADS_MAX}")).into());
        }
        // All handles first: threads that wait for each other must all be there or none.
        let handles = (0..count).map(|_| self.machine().another_handle());
        let handles = handles.collect::<Result<Vec<_>>>()?;
        let seeds: Vec<u64> = (0..count).map(|_| self.prng().next_u64()).collect();
        let options = self.options().clone();
        let brought = std::thread::scope(|scope| {
            let (work, options) = (&work, &options);
            let mut running = Vec::with_capacity(count);
            for ((number, mut machine), seed) in handles.into_iter().enumerate().zip(seeds) {
                let thread = std::thread::Builder::new().name(format!("test thread {number}"));
                let run = move || {
                    let machine: &mut dyn Machine = &mut *machine;
                    let mut thread = TestThread::new(machine, options.clone(), seed);
                    let outcome = panics::catch(|| work(number, &mut thread));
                    let outcome =
                        outcome.unwrap_or_else(|text| panicked(number, text, thread.now()));
                    (outcome, thread.take_lines())
                };
                running.push(thread.spawn_scoped(scope, run));
            }
            running.into_iter().map(gather).collect::<Vec<_>>()
        });
        let mut results = Vec::with_capacity(count);
        for (outcome, lines) in brought {
            lines.into_iter().for_each(|line| self.say(line));
            results.push(outcome);
        }
        results.into_iter().collect()
    }
}

fn gather<T>(thread: std::io::Result<ScopedJoinHandle<'_, Brought<T>>>) -> Brought<T> {
    let failed = |error: Error| (Err(error.into()), Vec::new());
    match thread {
        Ok(thread) => {
            thread.join().unwrap_or_else(|_| failed(Error::machine("a test thread died")))
        }
        Err(e) => failed(Error::machine("no thread for a test").source(e)),
    }
}

fn panicked<T>(number: usize, got: String, time_ns: Nanos) -> Outcome<T> {
    let what = format!("test thread {number} panicked");
    Err(Finding { what, expected: String::new(), got, time_ns }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::options::Options;
    use crate::machine::builtin::{BuiltinConfig, BuiltinMachine};
    use crate::suite::Stop;

    #[test]
    fn results_and_lines_come_in_the_order_of_the_threads() {
        let mut machine = BuiltinMachine::new(BuiltinConfig::default()).unwrap().share();
        let mut thread = TestThread::new(&mut machine, Options::default(), 1);
        let ids = thread.threads(4, |number, thread| {
            thread.say(format!("thread {number}"));
            thread.outl(0xcf8, 0x8000_0000)?;
            Ok((number, thread.inl(0xcfc)? & 0xffff, thread.prng().next_u64()))
        });
        let ids = ids.unwrap();
        assert!(ids.iter().enumerate().all(|(at, id)| (id.0, id.1) == (at, 0x8086)));
        assert!(ids.windows(2).all(|pair| pair[0].2 != pair[1].2), "randomness of their own");
        let want: Vec<String> = (0..4).map(|number| format!("thread {number}")).collect();
        assert_eq!(thread.take_lines(), want);
    }

    #[test]
    fn the_first_that_fails_decides_after_all_have_ended() {
        let mut machine = BuiltinMachine::new(BuiltinConfig::default()).unwrap().share();
        let mut thread = TestThread::new(&mut machine, Options::default(), 1);
        let ended = std::sync::atomic::AtomicUsize::new(0);
        let outcome: Outcome<Vec<()>> = thread.threads(3, |number, thread| {
            ended.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            match number {
                0 => Ok(()),
                1 => panic!("thread {number}"),
                _ => thread.failed("x", "y", "z"),
            }
        });
        let Err(Stop::Failed(finding)) = outcome else { panic!("failed") };
        assert_eq!(finding.what, "test thread 1 panicked");
        assert_eq!(ended.into_inner(), 3);
    }

    #[test]
    fn a_machine_for_one_thread_says_so() {
        let mut machine = BuiltinMachine::new(BuiltinConfig::default()).unwrap();
        let mut thread = TestThread::new(&mut machine, Options::default(), 1);
        let outcome = thread.threads(1, |_, _| Ok(()));
        let Err(Stop::Error(error)) = outcome else { panic!("refused") };
        assert!(error.to_string().contains("one thread"), "{error}");
        let many = thread.threads(THREADS_MAX + 1, |_, _| Ok(()));
        assert!(matches!(many, Err(Stop::Error(e)) if e.kind().exit_code() == 2));
    }
}
