//! What a QEMU needs before a test can use it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::command::{Command, Name};
use super::machine::Inner;
use crate::base::{Error, Result};

/// A reset takes milliseconds.
const RESET_PATIENCE: Duration = Duration::from_secs(20);

impl Inner {
    /// Has the lines of the I/O APIC reported, or INTR, and learns their levels by a reset.
    pub fn prepare(&mut self) -> Result<()> {
        let Some(seen) = self.controllers.take() else {
            if let Some(ioapic) = Name::new("ioapic") {
                let intercepted = self.client.intercept_in(ioapic);
                intercepted.map_err(|failure| self.failed(failure))?;
            }
            return self.reset();
        };
        let pic = self.first_pic()?;
        if let Some(pic) = Name::new(&pic) {
            self.with(|client| client.order(&Command::InterceptOut(pic)))?;
        }
        self.reset()?;
        let placed = self.with(|client| seen.place(client))?;
        self.controllers = Some(seen);
        let what = "the memory for interrupt messages is not where local APICs are";
        if placed { Ok(()) } else { Err(Error::machine(what)) }
    }

    /// The 8259A whose output is INTR.
    fn first_pic(&mut self) -> Result<String> {
        const PLACE: &str = "/machine/unattached";
        let children = self.monitor("qom-list", json!({ "path": PLACE }))?;
        let text = |child: &Value, key: &str| child.get(key)?.as_str().map(str::to_owned);
        for child in children.as_array().into_iter().flatten() {
            let kind = text(child, "type").unwrap_or_default();
            let (Some(name), "child<isa-i8259>") = (text(child, "name"), &*kind) else { continue };
            let path = format!("{PLACE}/{name}");
            let master = json!({ "path": path, "property": "master" });
            if self.monitor("qom-get", master)? == json!(true) {
                return Ok(path);
            }
        }
        Err(Error::machine("this QEMU has no 8259A whose output could be watched"))
    }

    /// Resets the machine.
    fn reset(&mut self) -> Result<()> {
        self.qmp.take_events();
        self.monitor("system_reset", serde_json::Value::Null)?;
        let end = Instant::now() + RESET_PATIENCE;
        // The main loop resets it before it takes another command once the event was sent.
        loop {
            let events = self.qmp.take_events();
            let came = |name: &str| events.iter().any(|event| event.name == name);
            if came("RESET") {
                break;
            }
            if came("SHUTDOWN") || Instant::now() > end {
                return Err(Error::machine("QEMU does not reset its machine when asked to")
                    .hint("are there arguments such as -no-reboot or -action reboot=shutdown?"));
            }
            self.monitor("query-name", serde_json::Value::Null)?;
        }
        self.client.order(&Command::Endianness).map_err(|failure| self.failed(failure))
    }
}
