//! A row of the table.

/// A fault and what shows that it is mended.
pub(super) struct Row {
    /// Its number.
    pub(super) id: &'static str,
    /// What was wrong.
    pub(super) fault: &'static str,
    /// Names of tests, without their modules.
    pub(super) tests: &'static [&'static str],
}

pub(super) const fn row(id: &'static str, fault: &'static str, tests: &'static [&'static str]) -> Row {
    Row { id, fault, tests }
}
