//! What containers write, in the form that kubelet reads: `time stream F line`.

use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// Bytes of a line, after which it is divided.
const MAX_LINE: usize = 16_384;

/// The log of a container.
#[derive(Debug, Clone)]
pub(super) struct Log {
    file: Option<Arc<Mutex<File>>>,
}

impl Log {
    /// Opens a log, to write behind what is in it. Without a file, what is written is lost.
    pub(super) fn open(path: &std::path::Path) -> Self {
        let file = File::options().create(true).append(true).open(path).ok();
        Self { file: file.map(|file| Arc::new(Mutex::new(file))) }
    }

    /// Copies a stream until it ends.
    pub(super) async fn copy(self, stream: impl AsyncRead + Unpin, name: &'static str) {
        let mut reader = BufReader::with_capacity(MAX_LINE, stream);
        loop {
            let Ok(bytes) = reader.fill_buf().await else { return };
            if bytes.is_empty() {
                return;
            }
            let (part, ends) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => (bytes.get(..end).unwrap_or_default(), true),
                None => (bytes, false),
            };
            self.write(&entry(Timestamp::now(), name, part, ends));
            let taken = part.len() + usize::from(ends);
            reader.consume(taken);
        }
    }

    fn write(&self, entry: &[u8]) {
        if let Some(file) = &self.file {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let _full = file.write_all(entry);
        }
    }
}

/// Returns a line of the log: F where a line of the stream ends, P where it goes on.
fn entry(at: Timestamp, stream: &str, part: &[u8], ends: bool) -> Vec<u8> {
    let mut entry = format!("{at:.9} {stream} {} ", if ends { 'F' } else { 'P' }).into_bytes();
    entry.extend_from_slice(part);
    entry.push(b'\n');
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_have_time_and_stream() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let log = Log::open(&path);
        log.clone().copy(&b"one\n\ntwo"[..], "stdout").await;
        log.copy(&b"three\n"[..], "stderr").await;
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, ["stdout F one", "stdout F ", "stdout P two", "stderr F three"]);
        assert_eq!(entry(Timestamp::UNIX_EPOCH, "stdout", b"x", true), b"1970-01-01T00:00:00.000000000Z stdout F x\n");
    }
}
