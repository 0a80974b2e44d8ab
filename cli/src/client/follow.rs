//! Events as they come, over restarts of the server.

use std::time::Duration;

use anyhow::bail;
use futures::StreamExt as _;

use super::api::{Client, Refused};
use crate::output::complain;

/// A server that went away is asked so soon, and later less often.
const MAX_RECONNECT_DELAY: Duration = Duration::from_millis(250);
/// And so often at least.
const MIN_RECONNECT_DELAY: Duration = Duration::from_secs(5);
/// Bytes of one event. A server sends no larger ones.
const MAX_LINE_LEN: usize = 4 * 1024 * 1024;

/// Shows events as they come, until one cannot be shown. Where the server goes away, it is waited for: events go on after
/// the last one that was shown.
pub(super) async fn follow(
    client: &Client,
    path: &str,
    mut show: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut reader = Reader::default();
    let mut outage = Outage::default();
    loop {
        match client.follow(path, reader.last.as_deref()).await {
            Err(error) if !outage.is_known || !Refused::may_pass(&error) => return Err(error),
            Err(_) => {}
            Ok(mut stream) => {
                outage.is_known = true;
                reader.begin();
                // An error of the stream is its end: the server went away.
                while let Some(Ok(bytes)) = stream.next().await {
                    outage.over();
                    reader.take(bytes.as_ref(), &mut show)?;
                }
            }
        }
        outage.wait("events go on after the last one shown").await?;
    }
}

/// A server that may be away for a while.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// It has answered before: it is waited for.
    pub(super) is_known: bool,
    wait: Option<Duration>,
}

impl Outage {
    /// Notes that it answers.
    pub(super) fn over(&mut self) {
        self.is_known = true;
        self.wait = None;
    }

    /// Waits a while after an error of a question that is asked again. One that the server had is waited for as well: a server
    /// that comes back shows it after a moment. Returns an error that does not pass, or that came before any answer.
    pub(super) async fn outlast(&mut self, error: anyhow::Error, then: &str) -> anyhow::Result<()> {
        if !self.is_known || !(Refused::may_pass(&error) || Refused::is_not_found(&error)) {
            return Err(error);
        }
        self.wait(then).await
    }

    /// Waits a while, the first time with a word.
    async fn wait(&mut self, then: &str) -> anyhow::Result<()> {
        if self.wait.is_none() {
            complain(&format!("wingbeat: the server went away and is waited for; {then}"))?;
        }
        let wait = self.wait.unwrap_or(MAX_RECONNECT_DELAY);
        self.wait = Some((wait * 2).min(MIN_RECONNECT_DELAY));
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Reads server-sent events.
#[derive(Debug, Default)]
struct Reader {
    /// The id of the last event.
    last: Option<String>,
    buffer: Vec<u8>,
    id: Option<String>,
    data: Vec<u8>,
}

impl Reader {
    /// Forgets what came of an event whose rest did not.
    fn begin(&mut self) {
        *self = Self { last: self.last.take(), ..Self::default() };
    }

    fn take(&mut self, bytes: &[u8], show: &mut impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.line(line.trim_ascii_end(), show)?;
        }
        if self.buffer.len().saturating_add(self.data.len()) > MAX_LINE_LEN {
            bail!("the server sends an event of more than {MAX_LINE_LEN} bytes: is it one of Wingbeat?");
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], show: &mut impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let value = |name: &[u8]| Some(line.strip_prefix(name)?.trim_ascii_start());
        if let Some(data) = value(b"data:") {
            self.data.extend_from_slice(data);
        } else if let Some(id) = value(b"id:") {
            self.id = Some(String::from_utf8_lossy(id).into_owned());
        } else if line.is_empty() && !self.data.is_empty() {
            show(&std::mem::take(&mut self.data))?;
            self.last = self.id.take().or_else(|| self.last.take());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let stream = b"id: 5-1\ndata: {\"a\":1}\n\n:\n\nid: 5-2\ndata: {\"a\":2}\n\nid: 5-3\ndata: {\"a\"";
        for size in 1..stream.len() {
            let (mut reader, mut shown) = (Reader::default(), Vec::new());
            for part in stream.chunks(size) {
                let mut show = |data: &[u8]| {
                    shown.push(String::from_utf8_lossy(data).into_owned());
                    Ok(())
                };
                reader.take(part, &mut show).unwrap();
            }
            assert_eq!(shown, [r#"{"a":1}"#, r#"{"a":2}"#], "in pieces of {size}");
            assert_eq!(reader.last.as_deref(), Some("5-2"), "the third is not whole");
        }
    }
}
