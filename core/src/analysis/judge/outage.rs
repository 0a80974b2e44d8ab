//! Whether the canary fails most requests right now. To decide on that takes some twenty of them; to wait with the next step
//! until it is decided takes a few.

use serde::{Deserialize, Serialize};

use crate::analysis::guard::{stalled, with_hangs};
use crate::analysis::window::Arms;

/// Canary requests that fail or stall, from which on an outage is likely. A canary that fails 1 % comes to that in windows of
/// one request each once in 10¹⁰ windows.
const FEW: u64 = 5;

/// Canary requests that failed or stalled in the latest windows, since one in which most did not, or those of the primary did
/// too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outage(u64);

impl Outage {
    /// Takes in a window. One without canary requests says nothing.
    pub(super) fn observe(&mut self, arms: &Arms) {
        let (broken, stalled) = (with_hangs(arms), stalled(arms));
        let canary_bad = broken.canary_bad.saturating_add(stalled.canary_bad);
        let canary = broken.canary.saturating_add(stalled.canary_bad);
        let primary_bad = broken.primary_bad.saturating_add(stalled.primary_bad);
        let primary = broken.primary.saturating_add(stalled.primary_bad);
        if canary == 0 {
            return;
        }
        let is_most = |bad: u64, all: u64| bad.saturating_mul(2) > all;
        let is_outage = is_most(canary_bad, canary) && !is_most(primary_bad, primary);
        self.0 = if is_outage { self.0.saturating_add(canary_bad) } else { 0 };
    }

    /// Returns true if it is likely.
    pub(super) const fn is_likely(&self) -> bool {
        self.0 >= FEW
    }
}
