//! Command operators of Envoy, `%NAME(arguments):length%`, in access logs and in values of headers. Envoy refuses the
//! whole listener or route for one that it does not know; here it is told by its place.

use super::decoder::nearest;

/// Operators that Envoy 1.40 knows, tried one by one. Older ones lack some; what they refuse is told when they do.
const SUPPORTED_OPERATORS: &str = "\
    ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_RETRANSMITTED BYTES_SENT CEL CLUSTER_METADATA COMMON_DURATION \
    CONNECTION_ID CONNECTION_TERMINATION_DETAILS CUSTOM_FLAGS DOWNSTREAM_CX_RTT \
    DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT \
    DOWNSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_DIRECT_LOCAL_ADDRESS \
    DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT \
    DOWNSTREAM_DIRECT_LOCAL_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS \
    DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_PORT \
    DOWNSTREAM_HANDSHAKE_DURATION DOWNSTREAM_HEADER_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT \
    DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT \
    DOWNSTREAM_LOCAL_CLOSE_REASON DOWNSTREAM_LOCAL_DNS_SAN DOWNSTREAM_LOCAL_EMAIL_SAN \
    DOWNSTREAM_LOCAL_IP_SAN DOWNSTREAM_LOCAL_OTHERNAME_SAN DOWNSTREAM_LOCAL_PORT \
    DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_CERT_V_END \
    DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1 \
    DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256 DOWNSTREAM_PEER_CHAIN_SERIALS DOWNSTREAM_PEER_DNS_SAN \
    DOWNSTREAM_PEER_EMAIL_SAN DOWNSTREAM_PEER_FINGERPRINT_1 DOWNSTREAM_PEER_FINGERPRINT_256 \
    DOWNSTREAM_PEER_IP_SAN DOWNSTREAM_PEER_ISSUER DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256 \
    DOWNSTREAM_PEER_ISSUER_SERIAL DOWNSTREAM_PEER_OTHERNAME_SAN DOWNSTREAM_PEER_SERIAL \
    DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_REMOTE_ADDRESS \
    DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT DOWNSTREAM_TLS_CIPHER \
    DOWNSTREAM_TLS_GROUP DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_TLS_VERSION \
    DOWNSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_WIRE_BYTES_SENT \
    DURATION DYNAMIC_METADATA EMIT_TIME ENVIRONMENT FILTER_CHAIN_NAME FILTER_STATE GRPC_STATUS \
    GRPC_STATUS_NUMBER HOSTNAME LISTENER_NAME LOCAL_REPLY_BODY METADATA PACKETS_RETRANSMITTED PATH \
    PROTOCOL QUERY_PARAM QUERY_PARAMS REQ REQUESTED_SERVER_NAME REQUEST_DURATION REQUEST_HEADER \
    REQUEST_HEADERS_BYTES REQUEST_TX_DURATION RESP RESPONSE_CODE RESPONSE_CODE_DETAILS RESPONSE_DURATION \
    RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_HEADER RESPONSE_HEADERS_BYTES RESPONSE_TRAILER \
    RESPONSE_TRAILERS_BYTES RESPONSE_TX_DURATION ROUNDTRIP_DURATION ROUTE_NAME ROUTE_RESOLUTION_COUNT \
    ROUTE_RESOLUTION_TIME_US SPAN_ID START_TIME START_TIME_LOCAL STREAM_ID TLS_JA3_FINGERPRINT \
    TLS_JA4_FINGERPRINT TRACE_ID TRAILER UNIQUE_ID UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW \
    UPSTREAM_CONNECTION_ID UPSTREAM_CONNECTION_IDS_ATTEMPTED UPSTREAM_CONNECTION_POOL_READY_DURATION \
    UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT \
    UPSTREAM_DETECTED_CLOSE_TYPE UPSTREAM_FILTER_STATE UPSTREAM_HEADER_BYTES_RECEIVED \
    UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HOST UPSTREAM_HOSTS_ATTEMPTED \
    UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT UPSTREAM_HOST_NAME UPSTREAM_HOST_NAMES_ATTEMPTED \
    UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT UPSTREAM_HOST_NAME_WITHOUT_PORT UPSTREAM_LOCAL_ADDRESS \
    UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_LOCAL_CLOSE_REASON UPSTREAM_LOCAL_DNS_SAN \
    UPSTREAM_LOCAL_IP_SAN UPSTREAM_LOCAL_PORT UPSTREAM_LOCAL_URI_SAN UPSTREAM_METADATA \
    UPSTREAM_PEER_CERT UPSTREAM_PEER_CERT_V_END UPSTREAM_PEER_CERT_V_START UPSTREAM_PEER_DNS_SAN \
    UPSTREAM_PEER_IP_SAN UPSTREAM_PEER_ISSUER UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_URI_SAN \
    UPSTREAM_PROTOCOL UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID \
    UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT UPSTREAM_REQUEST_ATTEMPT_COUNT \
    UPSTREAM_SERVER_NAME UPSTREAM_TLS_CIPHER UPSTREAM_TLS_GROUP UPSTREAM_TLS_SESSION_ID \
    UPSTREAM_TLS_VERSION UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_WIRE_BYTES_RECEIVED \
    UPSTREAM_WIRE_BYTES_SENT VIRTUAL_CLUSTER_NAME";

/// Returns what is wrong with a text, and what would be right; nothing if its operators are fine.
pub(super) fn unsupported_operator(text: &str) -> Option<String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(literal) = after.strip_prefix('%') {
            rest = literal;
            continue;
        }
        let Some((name, end)) = operator(after) else {
            let begin: String = after.chars().take(20).collect();
            return Some(format!(
                "has no operator at %{begin}, write one like %DURATION% or %REQ(USER-AGENT)%, and %% for a percent sign"
            ));
        };
        if !SUPPORTED_OPERATORS.split_whitespace().any(|known| known == name) {
            let hint = nearest(name, SUPPORTED_OPERATORS.split_whitespace())
                .map_or_else(|| "see Envoy's list of them".to_owned(), |near| format!("did you mean %{near}%?"));
            return Some(format!("has the operator %{name}%, which Envoy 1.40 does not know, {hint}"));
        }
        rest = end;
    }
    None
}

/// Returns the name of the operator that begins here, after its percent sign, and what follows it.
fn operator(text: &str) -> Option<(&str, &str)> {
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let (name, mut rest) = text.split_at_checked(text.find(|c: char| !is_name(c))?)?;
    if let Some(arguments) = rest.strip_prefix('(') {
        // They may hold percent signs (of times), and parentheses (of CEL): what ends them is what may follow.
        rest =
            arguments.match_indices(')').find_map(|(at, _)| after_length(arguments.get(at..)?.strip_prefix(')')?))?;
    } else {
        rest = after_length(rest)?;
    }
    (!name.is_empty()).then_some((name, rest))
}

/// Takes `:12%` or `%`, and returns what follows.
fn after_length(text: &str) -> Option<&str> {
    let text = match text.strip_prefix(':') {
        Some(length) => {
            let rest = length.trim_start_matches(|c: char| c.is_ascii_digit());
            (rest.len() < length.len()).then_some(rest)?
        }
        None => text,
    };
    text.strip_prefix('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_envoy_takes_and_refuses_them() {
        for fine in [
            "",
            "plain",
            "100 %% of %REQ(:PATH)%",
            "%DURATION%",
            "%REQ(x):5%",
            "%REQ(X-FORWARDED-FOR?USER-AGENT)%",
            "%START_TIME(%s.%3f)%",
            "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
            "%CEL(has(request.headers) ? 1 : 2)%",
        ] {
            assert_eq!(unsupported_operator(fine), None, "{fine}");
        }
        for wrong in
            ["100%", "%DURATION", "%duration%", "% %", "%REQ(x", "%REQ(x):%", "%REQ(x?y):z%", "%RE-Q(a)%", "%()%"]
        {
            assert!(
                unsupported_operator(wrong).is_some_and(|told| told.starts_with("has no operator at %")),
                "{wrong}"
            );
        }
        assert_eq!(
            unsupported_operator("%DURATON%").unwrap(),
            "has the operator %DURATON%, which Envoy 1.40 does not know, did you mean %DURATION%?"
        );
    }
}
