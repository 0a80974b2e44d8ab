//! What the lines print: rows as they come, and their main figures at the end.

use std::io::Write as _;

use serde_json::{Map, Value, json};
use wingbeat_benches::table::Table;
use wingbeat_demo::load::Tally;
use wingbeat_e2e::gateway::Gateway;

/// The rows and figures of all lines.
#[derive(Debug, Default)]
pub(crate) struct Report {
    table: Table,
    line: &'static str,
    failed_before: usize,
    figures: Map<String, Value>,
}

impl Report {
    /// Begins with a line: rows are its own from now on.
    pub(crate) fn begin(&mut self, line: &'static str) {
        self.line = line;
        self.failed_before = self.table.failed();
    }

    /// Prints a row: what was done, what came of it, what may come of it at most, and whether that holds.
    pub(crate) fn row(&mut self, what: &str, figure: &str, bound: &str, holds: bool) -> anyhow::Result<()> {
        Ok(self.table.row(&format!("{} | {what}", self.line), figure, bound, holds)?)
    }

    /// Prints how many requests of users failed, and adds them to a figure.
    pub(crate) fn users(&mut self, name: &str, what: &str, tally: &Tally, at_most: usize) -> anyhow::Result<()> {
        let failed = tally.failed.len();
        self.add(name, failed);
        let bound = if at_most == 0 { "0".to_owned() } else { format!("≤ {at_most}") };
        let holds = failed <= at_most && tally.finished > 0;
        self.row(what, &format!("{failed} of {} requests failed", tally.finished), &bound, holds)
    }

    /// Adds to a figure that is a count.
    pub(crate) fn add(&mut self, name: &str, count: usize) {
        let before = self.figures.get(name).and_then(Value::as_u64).unwrap_or_default();
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.figures.insert(name.to_owned(), json!(before.saturating_add(count)));
    }

    /// Takes a figure, of which the largest counts.
    pub(crate) fn worst(&mut self, name: &str, value: f64) {
        let before = self.figures.get(name).and_then(Value::as_f64);
        self.figures.insert(name.to_owned(), json!(before.map_or(value, |before| before.max(value))));
    }

    /// Takes a figure, of which the smallest counts.
    pub(crate) fn least(&mut self, name: &str, value: f64) {
        let before = self.figures.get(name).and_then(Value::as_f64);
        self.figures.insert(name.to_owned(), json!(before.map_or(value, |before| before.min(value))));
    }

    /// Writes what the controller logged to standard error, where a row of the line is out of its bound.
    pub(crate) fn explain(&self, gateway: &Gateway) -> anyhow::Result<()> {
        if self.table.failed() > self.failed_before {
            writeln!(std::io::stderr(), "{}", gateway.said())?;
        }
        Ok(())
    }

    /// Returns the main figures of all lines.
    pub(crate) fn figures(mut self) -> Value {
        self.figures.insert("failed".to_owned(), json!(self.table.failed()));
        Value::Object(self.figures)
    }
}
