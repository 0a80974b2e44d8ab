//! Hosts that a canary answers to, as Envoy takes them.
//!
//! All canaries of a listener are in one route table, which Envoy refuses as a whole for one domain that it does not
//! take. So nothing that Envoy would refuse gets through here, nor what it would take and never match.

use core::net::Ipv6Addr;

use super::decoder::Decoder;
use super::yaml::{Node, Position};

/// The longest name in DNS, and so the longest host.
const MAX_HOST_LEN: usize = 253;

/// Decodes a list of hosts, each with its place.
pub(super) fn decode(decoder: &mut Decoder, node: &Node, path: &str) -> Vec<(String, Position)> {
    let mut hosts: Vec<(String, Position)> = Vec::new();
    for (node, path) in decoder.some(node, path, "list the hosts that it answers to, like backend.local") {
        let Some(host) = decoder.text(node, &path) else { continue };
        if let Err(message) = check(&host) {
            decoder.wrong(node.at, &path, message);
        } else if hosts.iter().any(|(other, _)| same(other, &host)) {
            decoder.wrong(
                node.at,
                &path,
                format!("{host} is there twice (upper and lower case are the same), keep one"),
            );
        } else {
            hosts.push((host, node.at));
        }
    }
    hosts
}

/// Returns the form in which hosts are compared: Envoy does not tell upper from lower case.
pub(super) fn key(host: &str) -> String {
    host.to_ascii_lowercase()
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// Returns what is wrong with a host, and what would be right.
fn check(host: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{host:?} {what}"));
    if host.is_empty() {
        return wrong("is empty, write a host like backend.local, or * for all");
    }
    if host.len() > MAX_HOST_LEN {
        return Err(format!("has {} characters, use at most {MAX_HOST_LEN}", host.len()));
    }
    if host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return wrong("has blanks or line ends in it, leave them out");
    }
    if host.contains("://") || host.contains('/') {
        return wrong("is a URL, write the host alone, like backend.local");
    }
    if !host.is_ascii() {
        return wrong("has letters beyond ASCII, write it as browsers send it, beginning with xn--");
    }
    if host == "*" {
        return Ok(());
    }
    if let Some(address) = host.strip_prefix('[') {
        return match address.split_once(']') {
            Some((address, "")) if address.parse::<Ipv6Addr>().is_ok() => Ok(()),
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() && port.starts_with(':') => {
                wrong("has a port, leave it out: a host is the same on every port")
            }
            _ => wrong("is no IPv6 address, write one like [::1]"),
        };
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("{host} is an IPv6 address, write it as clients send it: [{host}]"));
    }
    if host.contains(':') {
        return wrong("has a port, leave it out: a host is the same on every port");
    }
    let name = match (host.strip_prefix('*'), host.strip_suffix('*')) {
        (Some(rest), None) | (None, Some(rest)) => rest,
        (None, None) => host,
        (Some(_), Some(_)) => return wrong("has * twice, use it once, as in *.local or backend.*"),
    };
    if name.contains('*') {
        return wrong(
            "has * in its middle, where it stands for nothing; use it at one end, as in *.local or backend.*",
        );
    }
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if let Some(other) = name.bytes().find(|byte| !is_known(*byte)) {
        return wrong(&format!("has {:?} in it, use letters, digits, - and .", char::from(other)));
    }
    // Where the wildcard is, a label is not whole.
    let ends = (host.starts_with('*'), host.ends_with('*'));
    let begins_empty = name.starts_with('.') && !ends.0;
    let ends_empty = name.ends_with('.') && !ends.1;
    if begins_empty || ends_empty || name.contains("..") || name == "." {
        return wrong("has an empty label, write at least one letter before and after each dot");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_envoy_takes_and_matches_are_taken() {
        for host in [
            "backend.local",
            "Backend.Local",
            "b",
            "10.0.0.1",
            "[::1]",
            "*",
            "*.local",
            "*-a.local",
            "backend.*",
            "a_b",
            "xn--bcher-kva.example",
        ] {
            assert_eq!(check(host), Ok(()), "{host}");
        }
    }

    #[test]
    fn what_it_refuses_or_never_matches_is_not() {
        let long = "a".repeat(254);
        for (host, told) in [
            ("", "is empty"),
            ("a b", "blanks"),
            ("a\n", "blanks"),
            ("a\u{0}", "blanks"),
            ("http://a", "is a URL"),
            ("a/b", "is a URL"),
            ("bücher.example", "xn--"),
            ("a:80", "has a port"),
            ("[::1]:80", "has a port"),
            ("[::1", "is no IPv6 address"),
            ("[a]", "is no IPv6 address"),
            ("::1", "[::1]"),
            ("**", "has * twice"),
            ("*.a.*", "has * twice"),
            ("a.*.b", "in its middle"),
            ("*a*b", "in its middle"),
            ("a,b", "has ',' in it"),
            ("a..b", "empty label"),
            (".a", "empty label"),
            ("a.", "empty label"),
            ("*.", "empty label"),
            (long.as_str(), "at most 253"),
        ] {
            let wrong = check(host).expect_err(host);
            assert!(wrong.contains(told), "{host}: {wrong}");
        }
    }
}
