//! What the measurements mean: ledger, sequential tests, verdicts.
