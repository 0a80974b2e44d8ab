//! Targets for fuzzers: each takes bytes, makes events of them, and checks what must hold after every one. They panic if
//! it does not.
//!
//! The same functions are driven by ordinary tests, with what is in `corpus/` and at random (`tests/targets.rs`), and by
//! libFuzzer, which is led by coverage (`cargo xtask prove fuzz`).

mod document;
mod ledger;
mod report;
mod session;
mod step;

/// A target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Takes an input.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 5] = [
    Target { name: "step", run: step::run },
    Target { name: "session", run: session::run },
    Target { name: "report", run: report::run },
    Target { name: "ledger", run: ledger::run },
    Target { name: "document", run: document::run },
];

impl Target {
    /// Returns the target of this name.
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.into_iter().find(|target| target.name == name)
    }
}
