//! The one place of the demo that reads a clock.

use std::time::Instant;

/// Returns the time.
#[expect(clippy::disallowed_methods, reason = "this is where time enters the demo")]
pub fn now() -> Instant {
    Instant::now()
}
