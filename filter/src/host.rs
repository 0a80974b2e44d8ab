//! What the filter asks of Envoy.

/// The host calls that the filter needs. Each costs microseconds in Envoy: they are made where they matter.
pub trait Host {
    /// Returns an attribute of the current stream, or none if Envoy has no value for it. The path is as it is handed to
    /// Envoy: names with a zero byte between them.
    fn property(&self, path: &str) -> Option<Vec<u8>>;

    /// Returns an attribute that is a number: eight bytes, little-endian.
    fn number(&self, path: &str) -> Option<u64> {
        let bytes: [u8; 8] = self.property(path)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Returns the status of a response that is logged; none where there was no response.
    fn status(&self) -> Option<u64> {
        self.number("response\0code")
    }

    /// Returns the header lines of the current request, those that begin with a colon included. Only while its headers
    /// are at hand.
    fn request_headers(&self) -> Vec<(String, Vec<u8>)>;

    /// Sets a header of the current request, or removes it, and has its route chosen anew.
    fn set_request_header(&self, name: &str, value: Option<&[u8]>);

    /// Makes `stream` the one that [`Host::property`] reads from. False if it is gone.
    fn enter(&self, stream: u32) -> bool;

    /// Returns nanoseconds of a clock that never runs backwards.
    fn monotonic_nanos(&self) -> u64;

    /// Asks for the next tick, and all after it, this many milliseconds apart.
    fn set_tick(&self, millis: u64);

    /// Sends a serialized report. False if Envoy does not take it.
    fn send(&self, report: &[u8]) -> bool;
}

/// Returns an attribute that is text; none also where it is not UTF-8.
pub fn text(host: &dyn Host, path: &str) -> Option<String> {
    host.property(path).and_then(|bytes| String::from_utf8(bytes).ok())
}
