//! The wall clock, read in one place. Everything that must not jump (timeouts, ages) uses `tokio::time::Instant`.

use std::time::SystemTime;

use moorline_model::Timestamp;

/// The moment now, in whole seconds.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}
