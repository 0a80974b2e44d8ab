//! The page: files that are part of the program, and what a browser lets them do.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use wingbeat_xds_server::version::Version;

/// A file of the page.
struct File {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

/// What a browser shows first.
const INDEX: File = File::new("index.html", "text/html; charset=utf-8", include_str!("../page/index.html"));
/// What that refers to. The modules are in the order in which one builds on those before.
const FILES: [File; 10] = [
    File::new("style.css", "text/css; charset=utf-8", include_str!("../page/style.css")),
    File::script("dom.js", include_str!("../page/dom.js")),
    File::script("words.js", include_str!("../page/words.js")),
    File::script("server.js", include_str!("../page/server.js")),
    File::script("commands.js", include_str!("../page/commands.js")),
    File::script("list.js", include_str!("../page/list.js")),
    File::script("chart.js", include_str!("../page/chart.js")),
    File::script("detail.js", include_str!("../page/detail.js")),
    File::script("site.js", include_str!("../page/site.js")),
    File::script("main.js", include_str!("../page/main.js")),
];

/// What a browser lets the page do: nothing that is not in its files, and requests to this server alone. Nobody shows it
/// within a page of theirs, where a click could be led to a button.
const POLICY: &str = "default-src 'none'; connect-src 'self'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Which page it is: another one has another version.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let files = [&INDEX].into_iter().chain(&FILES);
    format!("\"{}\"", Version::of(files.map(|file| file.text.as_bytes())))
});

impl File {
    const fn new(name: &'static str, kind: &'static str, text: &'static str) -> Self {
        Self { name, kind, text }
    }

    const fn script(name: &'static str, text: &'static str) -> Self {
        Self::new(name, "text/javascript; charset=utf-8", text)
    }

    /// Answers with it, or says that who asks has it already.
    fn answer(&self, asked: &HeaderMap) -> Response {
        let headers = [
            (header::CONTENT_TYPE, self.kind),
            // All files belong together: none is used without asking whether it still is the present one.
            (header::CACHE_CONTROL, "no-cache"),
            (header::ETAG, VERSION.as_str()),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        let headers = headers.map(|(name, value): (HeaderName, &str)| (name, value.to_owned()));
        let has =
            asked.get(header::IF_NONE_MATCH).is_some_and(|had: &HeaderValue| had.as_bytes() == VERSION.as_bytes());
        if has { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, self.text).into_response() }
    }
}

/// Answers with the page itself.
pub(super) fn index(asked: &HeaderMap) -> Response {
    INDEX.answer(asked)
}

/// Answers with a file of the page, if there is one of this name.
pub(super) fn file(name: &str, asked: &HeaderMap) -> Option<Response> {
    FILES.iter().find(|file| file.name == name).map(|file| file.answer(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module that is not served, or a file that nothing asks for, would show in a browser only.
    #[test]
    fn the_page_refers_to_its_files_and_no_others() {
        let all: String = [&INDEX].into_iter().chain(&FILES).map(|file| file.text).collect();
        for file in &FILES {
            assert!(
                all.contains(&format!("/page/{}\"", file.name)) || all.contains(&format!("./{}\"", file.name)),
                "{}",
                file.name
            );
        }
        let imports = all.split(" from \"./").skip(1).filter_map(|rest| rest.split('"').next());
        for import in imports {
            assert!(FILES.iter().any(|file| file.name == import), "{import}");
        }
    }

    /// Whatever a canary, a hook or a proxy says is text, and the policy needs no exception.
    #[test]
    fn no_text_becomes_markup() {
        for file in [&INDEX].into_iter().chain(&FILES) {
            for word in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=\"", " onclick="]
            {
                assert!(!file.text.contains(word), "{}: {word}", file.name);
            }
        }
        assert!(!POLICY.contains("unsafe"));
    }
}
