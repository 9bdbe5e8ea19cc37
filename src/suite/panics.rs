//! Panics of test threads: caught with their message and place, and not printed.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `f`; a panic in it is an error that says what and where.
pub(super) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    install();
    let before = CATCHING.replace(true);
    // What a panicking test leaves half done is its machine, which is not used again.
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    CATCHING.set(before);
    result.map_err(|payload| {
        let told = CAUGHT.take();
        told.unwrap_or_else(|| message(payload.as_ref()).to_owned())
    })
}

/// The process has one panic hook: ours keeps quiet for threads that catch, and passes the others
/// on to the hook that was there.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let former = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                CAUGHT.replace(Some(describe(info)));
            } else {
                former(info);
            }
        }));
    });
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = message(info.payload());
    match info.location() {
        Some(place) => format!("{message} (at {}:{})", place.file(), place.line()),
        None => message.to_owned(),
    }
}

fn message(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_tells_what_and_where() {
        let list: Vec<u8> = Vec::new();
        let text = catch(|| list[list.len() + 3]).unwrap_err();
        assert!(text.contains("index is 3") && text.contains("panics.rs:"), "{text}");
        assert_eq!(catch(|| 5), Ok(5));
    }
}
