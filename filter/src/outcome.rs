//! Which [`Outcome`] a logged request has, from what Envoy says of it.
//!
//! The flags are bits of `response.flags`; their meaning is Envoy's (`envoy/stream_info/stream_info.h`), and what
//! each failure looks like was observed on 1.36.4, 1.39.3 and 1.40.0.

use wingbeat_core::outcome::Outcome;

/// Local health check failed.
const LH: u64 = 0x1;
/// No healthy upstream.
const UH: u64 = 0x2;
/// Upstream request timeout.
const UT: u64 = 0x4;
/// Local reset.
const LR: u64 = 0x8;
/// Upstream remote reset.
const UR: u64 = 0x10;
/// Upstream connection failure.
const UF: u64 = 0x20;
/// Upstream connection termination.
const UC: u64 = 0x40;
/// Upstream overflow: a circuit breaker is open.
const UO: u64 = 0x80;
/// Downstream connection termination.
const DC: u64 = 0x4000;
/// Upstream retry limit exceeded.
const URX: u64 = 0x8000;
/// Stream idle timeout.
const SI: u64 = 0x1_0000;
/// Upstream maximum stream duration reached.
const UMSDR: u64 = 0x8_0000;
/// Upstream protocol error.
const UPE: u64 = 0x80_0000;
/// No cluster of this name.
const NC: u64 = 0x100_0000;
/// The name of the upstream did not resolve.
const DF: u64 = 0x400_0000;
/// Downstream remote reset (HTTP/2).
const DR: u64 = 0x1000_0000;

/// The connection has become a WebSocket or another tunnel.
pub const SWITCHING_PROTOCOLS: u64 = 101;
/// Envoy's answer to a request that did not come to its end in time.
const REQUEST_TIMEOUT: u64 = 408;

/// gRPC statuses that blame the server, as Envoy and Istio count them: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED,
/// INTERNAL, UNAVAILABLE, DATA_LOSS.
const GRPC_SERVER_FAULTS: [u64; 6] = [2, 4, 12, 13, 14, 15];

/// What Envoy says of a request when it logs it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Logged {
    /// HTTP status; absent if there was no response.
    pub code: Option<u64>,
    /// Response flags.
    pub flags: u64,
    /// gRPC status, where the response is gRPC.
    pub grpc: Option<u64>,
}

/// The status that Envoy derives where a response carries none: UNKNOWN.
pub const GRPC_UNKNOWN: u64 = 2;

/// Returns true if a response of this content type is gRPC: its status is then in trailers or headers, and UNKNOWN where
/// it is in neither. gRPC-Web is not: its status is in the body.
pub fn is_grpc(content_type: &[u8]) -> bool {
    let name = b"application/grpc";
    let is_named = content_type.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
    is_named && matches!(content_type.get(name.len()), None | Some(b'+' | b';' | b' '))
}

/// Returns how the request ended. Total: unheard-of values are a success only with a status below 400.
pub fn classify(logged: Logged) -> Outcome {
    let flagged = |bits: u64| logged.flags & bits != 0;
    // A client that left explains whatever else is flagged, but no 5xx: many leave as soon as they see one, before its
    // body has come (`curl -f`, proxies that retry).
    if flagged(DC | DR) && logged.code.is_none_or(|code| code < 500) {
        return if logged.code.is_some() { Outcome::DisconnectMidResponse } else { Outcome::DisconnectBeforeResponse };
    }
    if flagged(UT | UMSDR) {
        return Outcome::Timeout;
    }
    if flagged(SI) {
        return match logged.code {
            // Nothing came for too long, and the request was not complete: the client paused.
            Some(REQUEST_TIMEOUT) => Outcome::ClientFault,
            // Both sides were silent, as they may be.
            Some(SWITCHING_PROTOCOLS) => Outcome::Success,
            Some(_) | None => Outcome::Timeout,
        };
    }
    if flagged(UF) {
        return Outcome::ConnectFailure;
    }
    if flagged(UH | NC | UO | LH | DF) {
        return Outcome::Unavailable;
    }
    // Every upgraded connection that the upstream closes is logged as if it had broken off, in order or not: Envoy knows
    // no end of it.
    if logged.code == Some(SWITCHING_PROTOCOLS) && logged.flags == UC {
        return Outcome::Success;
    }
    // A response had begun, and was not an error, when the upstream broke off.
    let begun = logged.code.is_some_and(|code| code < 500);
    if flagged(UPE | UC | UR | LR) {
        return if begun { Outcome::Truncated } else { Outcome::Reset };
    }
    if flagged(URX) {
        return Outcome::Unavailable;
    }
    match (logged.code, logged.grpc) {
        (None, _) => Outcome::NotSent,
        (Some(200..300), Some(0)) => Outcome::Success,
        (Some(200..300), Some(status)) if GRPC_SERVER_FAULTS.contains(&status) => Outcome::ServerFault,
        (Some(200..300), Some(_)) => Outcome::ClientFault,
        (Some(code), _) => match code {
            0..300 => Outcome::Success,
            300..400 => Outcome::Redirect,
            400..500 => Outcome::ClientFault,
            500.. => Outcome::ServerFault,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_what_its_content_type_says() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("application/grp", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(content_type.as_bytes()), expected, "{content_type}");
        }
    }

    #[test]
    fn as_envoy_logs_it() {
        let logged = |code, flags| Logged { code, flags, grpc: None };
        let grpc = |status| Logged { code: Some(200), flags: 0, grpc: Some(status) };
        for (case, logged, outcome) in [
            ("a response", logged(Some(200), 0), Outcome::Success),
            ("a redirect", logged(Some(302), 0), Outcome::Redirect),
            ("not found", logged(Some(404), 0), Outcome::ClientFault),
            ("upstream 5xx", logged(Some(503), 0), Outcome::ServerFault),
            ("route timeout", logged(Some(504), UT), Outcome::Timeout),
            ("reset before headers", logged(Some(503), UC), Outcome::Reset),
            ("connect refused", logged(Some(503), UF), Outcome::ConnectFailure),
            ("connect refused, retried", logged(Some(503), UF | URX), Outcome::ConnectFailure),
            ("reset in mid-body, HTTP/1", logged(Some(200), UPE), Outcome::Truncated),
            ("reset in mid-body, HTTP/2", logged(Some(200), UR), Outcome::Truncated),
            ("WebSocket closed by the upstream", logged(Some(101), UC), Outcome::Success),
            ("WebSocket left by the client", logged(Some(101), DC), Outcome::DisconnectMidResponse),
            ("WebSocket idle too long", logged(Some(101), SI), Outcome::Success),
            ("upload idle too long", logged(Some(408), SI), Outcome::ClientFault),
            ("response idle too long", logged(Some(504), SI), Outcome::Timeout),
            ("response idle too long after it began", logged(Some(200), SI), Outcome::Timeout),
            ("WebSocket reset, HTTP/2", logged(Some(101), UR), Outcome::Truncated),
            ("no healthy host", logged(Some(503), UH), Outcome::Unavailable),
            ("unknown cluster", logged(Some(503), NC), Outcome::Unavailable),
            ("circuit breaker", logged(Some(503), UO), Outcome::Unavailable),
            ("5xx, retries used up", logged(Some(503), URX), Outcome::Unavailable),
            ("client left mid-stream", logged(Some(200), DC), Outcome::DisconnectMidResponse),
            ("client left before headers", logged(None, DC), Outcome::DisconnectBeforeResponse),
            ("client reset its HTTP/2 stream", logged(None, DR), Outcome::DisconnectBeforeResponse),
            ("client left at a 5xx", logged(Some(500), DC), Outcome::ServerFault),
            ("client reset its HTTP/2 stream at a 5xx", logged(Some(503), DR), Outcome::ServerFault),
            ("client left at the route's timeout", logged(Some(504), UT | DC), Outcome::Timeout),
            ("client left at a 4xx", logged(Some(404), DC), Outcome::DisconnectMidResponse),
            // There is no trailer yet, and Envoy's status is one that it derived.
            (
                "client left a call of gRPC",
                Logged { grpc: Some(GRPC_UNKNOWN), ..logged(Some(200), DR) },
                Outcome::DisconnectMidResponse,
            ),
            ("no response, no flag", logged(None, 0), Outcome::NotSent),
            ("gRPC fine", grpc(0), Outcome::Success),
            ("gRPC not found", grpc(5), Outcome::ClientFault),
            ("gRPC unimplemented", grpc(12), Outcome::ServerFault),
            ("gRPC unavailable", grpc(14), Outcome::ServerFault),
        ] {
            assert_eq!(classify(logged), outcome, "{case}");
        }
    }
}
