//! A request, as far as rules and users are concerned.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

/// Longest cookies that rules look at; longer ones match nothing.
pub const MAX_COOKIE_BYTES: usize = 64 * 1_024;

/// A request.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The method.
    pub method: Vec<u8>,
    /// The path with its query.
    pub path: Vec<u8>,
    /// The scheme.
    pub scheme: Vec<u8>,
    /// The host.
    pub authority: Vec<u8>,
    /// Names and values in order; names may come twice.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Request {
    /// Returns a request from its header lines, those that begin with a colon included, as proxies hold them.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let mut request = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                ":method" => request.method = value,
                ":path" => request.path = value,
                ":scheme" => request.scheme = value,
                ":authority" => request.authority = value,
                _ => request.headers.push((name, value)),
            }
        }
        request
    }

    /// Returns the values of a header. An absent header has none, an empty one has an empty one. Cookies may come in
    /// several headers, which are one list.
    pub(super) fn values(&self, name: &str) -> Vec<Cow<'_, [u8]>> {
        let values = self.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
        let values: Vec<&[u8]> = values.map(|(_, value)| value.as_slice()).collect();
        if name != "cookie" || values.is_empty() {
            return values.into_iter().map(Cow::Borrowed).collect();
        }
        let crumbs = values.join(&b"; "[..]);
        if crumbs.len() > MAX_COOKIE_BYTES { Vec::new() } else { [Cow::Owned(crumbs)].into() }
    }

    pub(super) fn uri(&self) -> &[u8] {
        self.path.split(|byte| *byte == b'?').next().unwrap_or_default()
    }

    pub(super) fn query<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let start = self.path.iter().position(|byte| *byte == b'?').map_or(self.path.len(), |at| at.saturating_add(1));
        let query = self.path.get(start..).unwrap_or_default();
        let query = query.split(|byte| *byte == b'#').next().unwrap_or_default();
        query.split(|byte| *byte == b'&').filter_map(move |pair| {
            let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (key, value) = pair.split_at_checked(end)?;
            (key == name.as_bytes()).then(|| value.get(1..).unwrap_or_default())
        })
    }

    /// Returns the first cookie of this name (RFC 6265, 4.2.1; its section 5.4 lets a client send several headers).
    pub(super) fn cookie<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        let lines = self.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case("cookie"));
        let crumbs = lines.flat_map(|(_, line)| line.split(|byte| *byte == b';'));
        crumbs.map(<[u8]>::trim_ascii).find_map(|crumb| {
            let end = crumb.iter().position(|byte| *byte == b'=')?;
            let (key, value) = crumb.split_at_checked(end)?;
            (key == name.as_bytes()).then(|| value.get(1..).unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;
    use alloc::vec;

    use super::*;

    fn request(headers: &[(&str, &[u8])]) -> Request {
        Request::from_pairs(headers.iter().map(|(name, value)| (name.to_string(), value.to_vec())))
    }

    #[test]
    fn proxies_hold_everything_in_one_list() {
        let request =
            request(&[(":method", b"GET"), ("a", b"1"), (":path", b"/x?y"), (":authority", b"shop"), ("a", b"2")]);
        assert_eq!(
            (&request.method[..], request.uri(), &request.authority[..]),
            (&b"GET"[..], &b"/x"[..], &b"shop"[..])
        );
        assert_eq!(request.headers, vec![("a".to_string(), b"1".to_vec()), ("a".to_string(), b"2".to_vec())]);
    }

    #[test]
    fn cookies_are_one_list_over_all_lines() {
        let request = request(&[("cookie", b"a=1; uid=\xff=;"), ("Cookie", b"uid=late; none"), ("cookie", b"")]);
        assert_eq!(request.cookie("uid"), Some(&b"\xff="[..]));
        assert_eq!(request.cookie("a"), Some(&b"1"[..]));
        assert_eq!(request.cookie("none"), None, "a crumb without = has no name");
        assert_eq!(request.cookie("A"), None, "names have case");
        assert_eq!(request.cookie(""), None);
    }
}
