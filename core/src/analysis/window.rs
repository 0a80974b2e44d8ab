//! Cuts what arrives into batches that tests can take in.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::counts::Counts;
use crate::id::{Arm, CanaryName};
use crate::outcome::Stratum;
use crate::time::{Span, Timestamp};

/// Length of a window. Windows are aligned, so that all nodes share them.
pub const WINDOW: Span = Span::from_millis(200);

/// Requests of both arms that arrived within one window, summed over all nodes: pairing the arms
/// node by node would cost most of the power where there are many (P23).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The end of the window.
    pub end: Timestamp,
    /// Its length.
    pub span: Span,
    /// True while pods are new: the batch counts for the hard guard only.
    pub warmup: bool,
    /// Traffic of the judged virtual host.
    pub judged: Arms,
    /// Its requests on new upstream connections, compared among themselves (P6).
    pub new_connection: Arms,
    /// Traffic that called an arm by its own name: it shows that there is some, and is never
    /// compared (P7).
    pub direct: Arms,
}

/// Counts of both arms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arms {
    /// What the primary served.
    pub primary: Counts,
    /// What the canary served.
    pub canary: Counts,
}

/// Open windows of all canaries.
#[derive(Debug, Clone, Default)]
pub struct Windows {
    open: BTreeMap<(Timestamp, CanaryName), Batch>,
}

impl Arms {
    /// Returns the counts of one arm.
    pub const fn arm(&self, arm: Arm) -> &Counts {
        match arm {
            Arm::Primary => &self.primary,
            Arm::Canary => &self.canary,
        }
    }

    const fn arm_mut(&mut self, arm: Arm) -> &mut Counts {
        match arm {
            Arm::Primary => &mut self.primary,
            Arm::Canary => &mut self.canary,
        }
    }
}

impl Windows {
    /// Returns windows without content.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds counts to the window of their arrival. Clocks of other machines play no part (P10).
    pub fn add(&mut self, canary: &CanaryName, arm: Arm, stratum: Stratum, counts: &Counts, arrived: Timestamp) {
        let start = arrived.window_start(WINDOW);
        let batch = self.open.entry((start, canary.clone())).or_insert_with(|| Batch {
            end: start.plus(WINDOW),
            span: WINDOW,
            ..Batch::default()
        });
        let arms = match stratum {
            Stratum::Judged => &mut batch.judged,
            Stratum::NewConnection => &mut batch.new_connection,
            Stratum::Direct | Stratum::Shadow => &mut batch.direct,
        };
        arms.arm_mut(arm).merge(counts);
    }

    /// Returns the windows that are over, in order of time, and forgets them.
    pub fn close(&mut self, now: Timestamp) -> Vec<(CanaryName, Batch)> {
        let mut closed = Vec::new();
        while let Some(entry) = self.open.first_entry() {
            if entry.get().end > now {
                break;
            }
            let ((_, canary), batch) = entry.remove_entry();
            closed.push((canary, batch));
        }
        closed
    }

    /// Returns the windows that are open, to be written down with the ledger: what is in one is in neither the
    /// judge's evidence nor, after the ledger's mark, in any report to come.
    pub fn open(&self) -> Vec<(CanaryName, Batch)> {
        self.open.iter().map(|((_, canary), batch)| (canary.clone(), batch.clone())).collect()
    }

    /// Returns windows with what was written down.
    pub fn restore(open: Vec<(CanaryName, Batch)>) -> Self {
        let open = open.into_iter().map(|(canary, batch)| ((batch.end.minus(batch.span), canary), batch));
        Self { open: open.collect() }
    }

    /// Returns when the next window is over, if one is open.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.open.values().next().map(|batch| batch.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(count: u64) -> Counts {
        Counts { started: count, ..Counts::default() }
    }

    #[test]
    fn windows_are_cut_by_arrival_and_closed_once() {
        let canary = CanaryName::new("prod", "backend");
        let at = Timestamp::from_millis;
        let mut windows = Windows::new();
        for (millis, arm, stratum) in [
            (1_050, Arm::Primary, Stratum::Judged),
            (1_199, Arm::Canary, Stratum::Judged),
            (1_199, Arm::Canary, Stratum::Direct),
            (1_200, Arm::Canary, Stratum::NewConnection),
        ] {
            windows.add(&canary, arm, stratum, &started(3), at(millis));
        }
        assert_eq!(windows.next_end(), Some(at(1_200)));
        assert!(windows.close(at(1_199)).is_empty());
        let closed = windows.close(at(1_200));
        assert_eq!(closed.len(), 1);
        let batch = &closed[0].1;
        assert_eq!(Arm::ALL.map(|arm| batch.judged.arm(arm).started), [3, 3]);
        assert_eq!(batch.direct.canary.started, 3);
        assert_eq!(batch.new_connection, Arms::default());
        assert_eq!(windows.close(at(9_999))[0].1.new_connection.canary.started, 3);
        assert_eq!(windows.next_end(), None);
    }
}
