//! What processes hold in memory.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// KiB of address space that V8 keeps behind the memory of a module, at least: whatever an instruction adds to an address
/// hits what nobody may read.
const GUARD: u64 = 1 << 20;

/// Returns the resident memory of a process, in KiB.
pub fn resident(process: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it has memory")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

/// Returns the resident memory of the wasm modules in an Envoy, in KiB.
pub fn modules(process: u32) -> anyhow::Result<u64> {
    Ok(guarded(&std::fs::read_to_string(format!("/proc/{process}/smaps"))?))
}

/// Returns the KiB that are resident of mappings with a guard right behind them.
fn guarded(smaps: &str) -> u64 {
    let (mut sum, mut before) = (0, Mapping::default());
    for mapping in mappings(smaps) {
        if before.writable && mapping.guards && mapping.begin == before.end && mapping.size() >= GUARD {
            sum += before.resident;
        }
        before = mapping;
    }
    sum
}

#[derive(Debug, Default)]
struct Mapping {
    begin: u64,
    end: u64,
    writable: bool,
    guards: bool,
    resident: u64,
}

impl Mapping {
    /// Returns its size, in KiB.
    const fn size(&self) -> u64 {
        (self.end - self.begin) / 1_024
    }

    /// Reads `7f00-7f10 rw-p …`.
    fn headed(line: &str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (begin, end) = range.split_once('-')?;
        let at = |text| u64::from_str_radix(text, 16).ok();
        let (writable, guards) = (rest.starts_with("rw-p"), rest.starts_with("---p"));
        Some(Self { begin: at(begin)?, end: at(end)?, writable, guards, resident: 0 })
    }
}

fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        if let Some(mapping) = Mapping::headed(line) {
            mappings.push(mapping);
        } else if let (Some(last), Some(size)) = (mappings.last_mut(), line.strip_prefix("Rss:")) {
            last.resident = size.trim().trim_end_matches(" kB").parse().unwrap_or_default();
        }
    }
    mappings
}

/// Returns the bytes that an Envoy has allocated: what it holds, whatever its allocator keeps beside it.
pub async fn allocated(admin: SocketAddr) -> anyhow::Result<u64> {
    let mut connection = TcpStream::connect(admin).await?;
    connection.write_all(b"GET /memory HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let value = answer.split_once("\"allocated\": \"").context("it says what is allocated")?.1;
    Ok(value.split('"').next().unwrap_or_default().parse()?)
}

/// Returns the bytes that this process has allocated, where its allocator tells.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a function of glibc that no crate wraps")]
pub fn allocated_here() -> Option<u64> {
    // SAFETY: it takes nothing, and may be called at any time by any thread.
    let figures = unsafe { libc::mallinfo2() };
    u64::try_from(figures.uordblks.saturating_add(figures.hblkhd)).ok()
}

/// Returns the bytes that this process has allocated, where its allocator tells: here it does not.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn allocated_here() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_modules_has_a_guard_behind_it() {
        let smaps = "10000000-10100000 rw-p 00000000 00:00 0 \nSize: 1024 kB\nRss:      900 kB\n\
                     10100000-210000000 ---p 00000000 00:00 0 \nRss:        0 kB\n\
                     300000000-300100000 rw-p 00000000 00:00 0 [heap]\nRss:      50 kB\n\
                     300100000-300101000 ---p 00000000 00:00 0 \nRss:        0 kB\n";
        assert_eq!(guarded(smaps), 900);
    }

    #[test]
    fn what_is_allocated_here_grows_by_what_is_held() {
        let Some(before) = allocated_here() else { return };
        let held = vec![1_u8; 8 << 20];
        assert!(allocated_here() >= Some(before + (8 << 20)));
        drop(held);
    }
}
