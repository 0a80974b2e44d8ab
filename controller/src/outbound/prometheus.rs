//! Questions to a Prometheus, as Flagger asks them, with Flagger's words for what came of them.

use std::time::Duration;

use reqwest::Client;
use serde::Deserialize;
use wingbeat_api::number::Number;
use wingbeat_api::query::{Origin, Query};
use wingbeat_core::analysis::threshold::Range;
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::Answer;

use super::webhook::{body, cause};

/// A Prometheus that takes longer is not waited for.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer is one number; one that is larger than this is no answer.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;
/// So much of an error is repeated.
const MAX_ERROR_LEN: usize = 500;

/// Why there is no number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryError {
    /// There are no samples, or the last is none.
    NoValues,
    /// It could not be asked, or gave no answer that can be understood.
    Unknown(String),
}

#[derive(Debug, Deserialize)]
struct Response {
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar((f64, String)),
    Vector(Vec<Sample>),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Debug, Deserialize)]
struct Sample {
    value: (f64, String),
}

/// Asks, once.
pub async fn ask(client: &Client, query: &Query) -> Result<f64, QueryError> {
    let mut url = query.address.clone();
    let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.query_pairs_mut().append_pair("query", &query.query);
    let request = client.get(url).headers(query.headers.clone()).timeout(TIMEOUT);
    // The URL may hold secrets: it is not part of what is told.
    let told = |error: reqwest::Error| QueryError::Unknown(cause(&error.without_url()));
    let response = request.send().await.map_err(told)?;
    let status = response.status();
    let (bytes, complete) = body(response, MAX_RESPONSE_BYTES).await.map_err(told)?;
    if status.is_client_error() || status.is_server_error() {
        let text: String = String::from_utf8_lossy(&bytes).trim().chars().take(MAX_ERROR_LEN).collect();
        return Err(QueryError::Unknown(format!("error response: Status {status}: {text}")));
    }
    if !complete {
        return Err(QueryError::Unknown(format!("the answer is longer than {MAX_RESPONSE_BYTES} bytes")));
    }
    number(&bytes)
}

/// Returns the number in an answer. Of several none is taken: which of them comes last is chance, and a series that is
/// bad would be hidden by one that is not.
fn number(bytes: &[u8]) -> Result<f64, QueryError> {
    let response: Response = serde_json::from_slice(bytes)
        .map_err(|error| QueryError::Unknown(format!("the answer is not Prometheus': {error}")))?;
    if let Some(error) = response.error {
        return Err(QueryError::Unknown(error.chars().take(MAX_ERROR_LEN).collect()));
    }
    let text = match response.data {
        Some(Data::Scalar((_, text))) => text,
        Some(Data::Vector(samples)) if samples.len() > 1 => {
            let why = format!("the query returned {} series, aggregate them, as with sum() or max()", samples.len());
            return Err(QueryError::Unknown(why));
        }
        Some(Data::Vector(samples)) => samples.into_iter().next().ok_or(QueryError::NoValues)?.value.1,
        Some(Data::Matrix(_)) => return Err(QueryError::Unknown("query returned multiple values".to_owned())),
        Some(Data::String(_)) => return Err(QueryError::Unknown("query returned a string".to_owned())),
        None => return Err(QueryError::NoValues),
    };
    match text.parse::<f64>() {
        Ok(number) if number.is_nan() => Err(QueryError::NoValues),
        Ok(number) => Ok(number),
        Err(_) => Err(QueryError::Unknown(format!("{text:?} is not a number"))),
    }
}

/// Returns what follows for a canary, in Flagger's words.
pub fn judge(canary: &CanaryName, query: &Query, found: Result<f64, QueryError>) -> Answer {
    let name = &query.metric;
    let value = match (found, query.origin) {
        (Ok(value), _) => value,
        (Err(QueryError::NoValues), Origin::Inline) => {
            return Answer::Unknown(format!("Halt advancement no values found for metric: {name}"));
        }
        (Err(QueryError::NoValues), Origin::Template) => {
            let text = format!("Halt advancement no values found for custom metric: {name}: no values found");
            return Answer::Unknown(text);
        }
        (Err(QueryError::Unknown(why)), Origin::Inline) => {
            return Answer::Unknown(format!("Prometheus query failed for {name}: {why}"));
        }
        (Err(QueryError::Unknown(why)), Origin::Template) => {
            return Answer::Unknown(format!("Metric query failed for {name}: {why}"));
        }
    };
    let Range { min, max } = query.range;
    let shown = Number::new(value);
    match (min.filter(|min| value < *min), max.filter(|max| value > *max)) {
        (Some(min), _) => Answer::Failed(format!("Halt {canary} advancement {name} {shown:.2} < {min}")),
        (None, Some(max)) => Answer::Failed(format!("Halt {canary} advancement {name} {shown:.2} > {max}")),
        (None, None) => Answer::Passed,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::http::{HeaderMap as Headers, StatusCode};
    use axum::response::{IntoResponse as _, Redirect, Response as Reply};
    use axum::routing::get;
    use axum::{Router, extract};

    use reqwest::header::HeaderMap;
    use wingbeat_core::analysis::signal::SignalMode;

    use super::*;
    use crate::outbound::webhook::client;

    /// Speaks Prometheus' API: the query says how.
    async fn answer(extract::Query(asked): extract::Query<BTreeMap<String, String>>, headers: Headers) -> Reply {
        let success = |data: &str| format!(r#"{{"status":"success","data":{data}}}"#).into_response();
        let samples = |values: &[&str]| {
            let samples: Vec<String> =
                values.iter().map(|value| format!(r#"{{"metric":{{"a":"b"}},"value":[1.5,"{value}"]}}"#)).collect();
            success(&format!(r#"{{"resultType":"vector","result":[{}]}}"#, samples.join(",")))
        };
        match asked.get("query").map(String::as_str).unwrap_or_default() {
            "vector(1)" => samples(&["1"]),
            "several" => samples(&["1", "2.5"]),
            "none" => samples(&[]),
            "nan" => samples(&["NaN"]),
            "infinite" => samples(&["+Inf"]),
            "words" => samples(&["many"]),
            "scalar" => success(r#"{"resultType":"scalar","result":[1.5,"7"]}"#),
            "range" => success(r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1,"2"]]}]}"#),
            "who" => samples(&[headers.get("authorization").map_or("0", |value| value.to_str().unwrap_or("0"))]),
            "bad" => {
                let body = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
                (StatusCode::BAD_REQUEST, body).into_response()
            }
            "quietly bad" => r#"{"status":"error","errorType":"execution","error":"it is too much"}"#.into_response(),
            "far" => Redirect::temporary("http://127.0.0.2:9/api/v1/query").into_response(),
            "large" => "x".repeat(MAX_RESPONSE_BYTES + 1).into_response(),
            "page" => "<html>".into_response(),
            other => (StatusCode::NOT_FOUND, other.to_owned()).into_response(),
        }
    }

    async fn asked(query: &str) -> (Result<f64, QueryError>, Query) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/prom/", listener.local_addr().unwrap());
        let routes = Router::new().route("/prom/api/v1/query", get(answer));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let query = Query {
            metric: "lag".into(),
            origin: Origin::Template,
            address: address.parse().unwrap(),
            headers: HeaderMap::from_iter([(reqwest::header::AUTHORIZATION, "42".parse().unwrap())]),
            query: query.into(),
            mode: SignalMode::Judge,
            range: Range { min: Some(1.0), max: Some(30.5) },
        };
        (ask(&client(), &query).await, query)
    }

    #[tokio::test]
    async fn numbers_and_what_is_none() {
        let unknown = |why: &str| Err(QueryError::Unknown(why.into()));
        for (query, expected) in [
            ("vector(1)", Ok(1.0)),
            ("several", unknown("the query returned 2 series, aggregate them, as with sum() or max()")),
            ("scalar", Ok(7.0)),
            ("who", Ok(42.0)),
            ("infinite", Ok(f64::INFINITY)),
            ("none", Err(QueryError::NoValues)),
            ("nan", Err(QueryError::NoValues)),
            ("words", unknown("\"many\" is not a number")),
            ("range", unknown("query returned multiple values")),
            (
                "bad",
                unknown(
                    r#"error response: Status 400 Bad Request: {"status":"error","errorType":"bad_data","error":"parse error"}"#,
                ),
            ),
            ("quietly bad", unknown("it is too much")),
            ("far", unknown("it redirects to another host")),
            ("large", unknown("the answer is longer than 1048576 bytes")),
        ] {
            assert_eq!(asked(query).await.0, expected, "{query}");
        }
        let (page, query) = asked("page").await;
        assert!(
            matches!(&page, Err(QueryError::Unknown(why)) if why.starts_with("the answer is not Prometheus'")),
            "{page:?}"
        );
        let nobody = Query { address: "http://me:hush@127.0.0.1:9/".parse().unwrap(), ..query };
        let refused = ask(&client(), &nobody).await;
        assert!(matches!(&refused, Err(QueryError::Unknown(why)) if !why.contains("hush")), "{refused:?}");
    }

    #[tokio::test]
    async fn words_are_flaggers() {
        let canary = CanaryName::new("prod", "backend");
        let (_, template) = asked("none").await;
        let inline = Query { origin: Origin::Inline, ..template.clone() };
        let failed = |text: &str| Answer::Failed(text.into());
        let unknown = |text: &str| Answer::Unknown(text.into());
        assert_eq!(judge(&canary, &template, Ok(31.0)), failed("Halt backend.prod advancement lag 31.00 > 30.5"));
        assert_eq!(judge(&canary, &template, Ok(0.126)), failed("Halt backend.prod advancement lag 0.13 < 1"));
        assert_eq!(judge(&canary, &template, Ok(30.5)), Answer::Passed, "bounds are included");
        // As Go writes it.
        let endless = judge(&canary, &template, Ok(f64::INFINITY));
        assert_eq!(endless, failed("Halt backend.prod advancement lag +Inf > 30.5"));
        let none = || Err(QueryError::NoValues);
        let away = || Err(QueryError::Unknown("no route".into()));
        assert_eq!(
            judge(&canary, &template, none()),
            unknown("Halt advancement no values found for custom metric: lag: no values found")
        );
        assert_eq!(judge(&canary, &inline, none()), unknown("Halt advancement no values found for metric: lag"));
        assert_eq!(judge(&canary, &template, away()), unknown("Metric query failed for lag: no route"));
        assert_eq!(judge(&canary, &inline, away()), unknown("Prometheus query failed for lag: no route"));
    }
}
