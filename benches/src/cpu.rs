//! The CPU time of processes.

use std::time::Duration;

use anyhow::Context as _;

/// Units of the CPU times that Linux shows to programs, on every machine that it runs on.
const TICKS_A_SECOND: u64 = 100;

/// Returns the CPU time that a process has used, by all of its threads that there are or were.
pub fn used(process: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name of the program, in parentheses, may have spaces.
    let (_, fields) = stat.rsplit_once(')').context("a name")?;
    let ticks =
        |place: usize| -> anyhow::Result<u64> { Ok(fields.split_whitespace().nth(place).context("a field")?.parse()?) };
    // utime and stime are fields 14 and 15 of proc(5), and the state, the first one here, is field 3.
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 1_000 / TICKS_A_SECOND))
}
