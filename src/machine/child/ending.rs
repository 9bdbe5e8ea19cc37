//! What became of a process that is lost.

use std::time::Duration;

use super::Lost;
use super::process::Process;
use crate::machine::obituary::End;

/// Once a connection is closed the process is about to end.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How `process` came to its end, or why it had to be ended: it is gone afterwards. `lost` is what
/// its client saw.
pub fn of(process: &mut Process, lost: Option<Lost>) -> End {
    let by_itself = match &lost {
        None | Some(Lost::Closed | Lost::Io(_)) => process.wait(END_PATIENCE),
        Some(Lost::Silent(_) | Lost::Babble(_)) => process.try_wait(),
    };
    let end = match (by_itself, lost) {
        (Some(status), _) => End::of(status),
        (None, Some(Lost::Silent(time))) => {
            End::Hung { waited_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) }
        }
        (None, Some(Lost::Babble(line))) => End::Broken { why: format!("it sent {line:?}") },
        (None, _) => End::Broken { why: "it closed the connection and lives on".to_owned() },
    };
    process.kill();
    end
}
