//! How a request ended: the classes that a filter counts and a judge compares.

use serde::{Deserialize, Serialize};

/// How a request ended, seen by the Envoy that sent it. Every request that Envoy logs falls into
/// exactly one class; the numbers travel in reports and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Outcome {
    /// HTTP 1xx or 2xx, or gRPC 0.
    Success = 0,
    /// HTTP 3xx.
    Redirect = 1,
    /// HTTP 4xx, or a gRPC status that blames the caller.
    ClientFault = 2,
    /// HTTP 5xx sent by the upstream, or a gRPC status that blames the server.
    ServerFault = 3,
    /// The upstream reset the connection before its response began (`UC`, `LR`, `UR`).
    Reset = 4,
    /// No connection to the upstream (`UF`).
    ConnectFailure = 5,
    /// The route's timeout passed (`UT`), also the stream's idle and longest duration (`SI`, `UMSDR`).
    Timeout = 6,
    /// No healthy host (`UH`), cluster gone (`NC`), circuit breaker (`UO`), retries used up (`URX`).
    Unavailable = 7,
    /// The response broke off after its headers (`UPE` or a reset after the start).
    Truncated = 8,
    /// The client left before response headers.
    DisconnectBeforeResponse = 9,
    /// The client left while the response ran, which was no 5xx.
    DisconnectMidResponse = 10,
    /// Answered by Envoy itself; the request never reached an upstream.
    NotSent = 11,
}

impl Outcome {
    /// Every class, in the order of its number.
    pub const ALL: [Self; 12] = [
        Self::Success,
        Self::Redirect,
        Self::ClientFault,
        Self::ServerFault,
        Self::Reset,
        Self::ConnectFailure,
        Self::Timeout,
        Self::Unavailable,
        Self::Truncated,
        Self::DisconnectBeforeResponse,
        Self::DisconnectMidResponse,
        Self::NotSent,
    ];

    /// Returns the number of the class, which is its place in [`Outcome::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns true where the server is to blame: what the error tests count.
    pub const fn is_error(self) -> bool {
        match self {
            Self::ServerFault
            | Self::Reset
            | Self::ConnectFailure
            | Self::Timeout
            | Self::Unavailable
            | Self::Truncated => true,
            Self::Success
            | Self::Redirect
            | Self::ClientFault
            | Self::DisconnectBeforeResponse
            | Self::DisconnectMidResponse
            | Self::NotSent => false,
        }
    }

    /// Returns true where the request says something about the upstream: neither the client left
    /// nor did Envoy answer by itself.
    pub const fn is_judged(self) -> bool {
        match self {
            Self::DisconnectBeforeResponse | Self::DisconnectMidResponse | Self::NotSent => false,
            Self::Success
            | Self::Redirect
            | Self::ClientFault
            | Self::ServerFault
            | Self::Reset
            | Self::ConnectFailure
            | Self::Timeout
            | Self::Unavailable
            | Self::Truncated => true,
        }
    }

    /// Returns the class's name in outputs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Redirect => "redirect",
            Self::ClientFault => "client_fault",
            Self::ServerFault => "server_fault",
            Self::Reset => "reset",
            Self::ConnectFailure => "connect_failure",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Truncated => "truncated",
            Self::DisconnectBeforeResponse => "disconnect_before_response",
            Self::DisconnectMidResponse => "disconnect_mid_response",
            Self::NotSent => "not_sent",
        }
    }
}

/// Where a request came from, as far as comparing is concerned (P7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Stratum {
    /// Traffic of the judged virtual host: the only one that the arms are compared on.
    Judged = 0,
    /// Traffic that called an arm by its own name: load testers and probes.
    Direct = 1,
}

impl Stratum {
    /// Every stratum, in the order of its number.
    pub const ALL: [Self; 2] = [Self::Judged, Self::Direct];

    /// Returns the number of the stratum, which is its place in [`Stratum::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        assert!(Outcome::ALL.iter().enumerate().all(|(place, outcome)| outcome.index() == place));
        assert!(Stratum::ALL.iter().enumerate().all(|(place, stratum)| stratum.index() == place));
    }
}
