//! How results reach a person or a script.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;
use wingbeat_api::yaml::to_yaml;

/// The form of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a person
    Text,
    /// One JSON value, or one a line where the verb streams; of `demo`, the last line
    Json,
    /// YAML documents
    Yaml,
}

/// How a verb ended; becomes the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 0
    Done,
    /// 1: what was asked for did not come about
    Unmet,
    /// 2: bad input
    BadInput,
    /// 3: what is waited for did not come about in time
    NotInTime,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Unmet => Self::FAILURE,
            Outcome::BadInput => Self::from(2),
            Outcome::NotInTime => Self::from(3),
        }
    }
}

/// Wrong usage or bad input: the program ends with 2.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

/// Nobody reads standard output any more, as after `| head`: the program ends without a word.
#[derive(Debug)]
pub(crate) struct Unread;

impl Unread {
    /// What shells see of a program that such a pipe has ended: 128 + SIGPIPE.
    pub(crate) fn exit_code() -> ExitCode {
        ExitCode::from(141)
    }
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads standard output any more")
    }
}

impl std::error::Error for Unread {}

/// Writes a line to standard output.
pub(crate) fn print_line(text: &str) -> anyhow::Result<()> {
    print(&format!("{text}\n"))
}

/// Writes a line to standard error. If nobody reads it, there is nobody to tell.
pub(crate) fn complain(text: &str) -> anyhow::Result<()> {
    written(writeln!(std::io::stderr().lock(), "{text}"), "standard error")
        .or_else(|error| if error.is::<Unread>() { Ok(()) } else { Err(error) })
}

/// Writes text as it is to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()), "standard output")
}

fn written(written: std::io::Result<()>, to: &str) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Unread.into()),
        written => written.with_context(|| format!("cannot write to {to}")),
    }
}

/// Writes a value to standard output.
pub(crate) fn emit<T: Serialize>(format: Format, value: &T) -> anyhow::Result<()> {
    match format {
        Format::Text | Format::Json => print_line(&serde_json::to_string(value)?),
        // Every JSON value is a YAML value; blocks make it one that people read.
        Format::Yaml => print(&format!("---\n{}", to_yaml(&serde_json::to_value(value)?))),
    }
}

/// Lays rows out in columns, three spaces apart, as kubectl does.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect::<Vec<_>>();
        out.push_str(cells.join("   ").trim_end());
        out.push('\n');
    }
    out
}

/// Returns a time in its two largest units.
pub(crate) fn lasting(millis: u64) -> String {
    let seconds = millis / 1_000;
    let two = |large: u64, unit: &str, small: u64, rest: &str| {
        if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {rest}") }
    };
    match seconds {
        0..10 => format!("{}.{} s", seconds, millis % 1_000 / 100),
        10..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        _ => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_their_two_largest_units() {
        for (millis, text) in [
            (700, "0.7 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (133_000, "2 min 13 s"),
            (7_980_000, "2 h 13 min"),
            (86_400_000, "24 h"),
        ] {
            assert_eq!(lasting(millis), text);
        }
    }
}
