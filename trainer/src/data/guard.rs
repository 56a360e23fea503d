//! Libraries that panic on some broken files: here that is an error like any other.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread does guarded work: what it panics with becomes an error, and is not printed.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives, or the panic's own words. Whatever `work` changes must be thrown away after a panic.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| set_hook(quiet(take_hook())));
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    result.map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it is broken").to_owned()
    })
}

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// A hook that passes on every panic but those of guarded work.
fn quiet(loud: Hook) -> Hook {
    Box::new(move |panic| {
        if !GUARDED.get() {
            loud(panic);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn only_guarded_panics_are_silent() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (listener, default) = (heard.clone(), take_hook());
        set_hook(quiet(Box::new(move |panic| match panic.payload().downcast_ref::<&str>() {
            Some(words) if words.starts_with("guard test") => {
                listener.lock().unwrap().push((*words).to_owned())
            }
            _ => default(panic),
        })));
        assert_eq!(guarded(|| -> u8 { panic!("guard test: inside") }), Err("guard test: inside".to_owned()));
        assert_eq!(guarded(|| 3), Ok(3));
        assert!(catch_unwind(|| panic!("guard test: afterwards")).is_err());
        // Another thread is not guarded, whatever waits for it.
        let other = guarded(|| std::thread::spawn(|| panic!("guard test: elsewhere")).join().is_err());
        assert_eq!(other, Ok(true));
        assert_eq!(*heard.lock().unwrap(), ["guard test: afterwards", "guard test: elsewhere"]);
    }
}
