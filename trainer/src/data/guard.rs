//! Libraries that panic on some broken files: here that is an error like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `work` gives, or the panic's own words. Whatever `work` changes must be thrown away after a panic.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it is broken").to_owned()
    })
}
