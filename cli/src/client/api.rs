//! The server's HTTP API, as clients of any version use it.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::{Stream, StreamExt as _};
use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wingbeat_controller::http::{CommandBody, ErrorBody};
use wingbeat_controller::verb::Verb;

use super::args::{Name, ServerArgs};

/// A server that cannot be connected to within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream of events says every 15 s that it is still there. One that does not is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(45);

/// A server.
pub(super) struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
    within: Option<Duration>,
}

/// The server answered, and will not do it.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    why: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// Returns true for an error that another try may not have.
    pub(super) fn may_pass(error: &anyhow::Error) -> bool {
        error.downcast_ref::<Self>().is_none_or(|refused| refused.status.is_server_error())
    }

    /// Returns true if what was asked for is not there.
    pub(super) fn is_not_found(error: &anyhow::Error) -> bool {
        error.downcast_ref::<Self>().is_some_and(|refused| refused.status == StatusCode::NOT_FOUND)
    }
}

impl Client {
    pub(super) fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        let server = args.server.trim_end_matches('/');
        let server = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build()?;
        let within = Some(args.request_timeout).filter(|within| !within.is_zero());
        Ok(Self { http, server, token: args.token.clone(), within })
    }

    /// Returns what is at a path, as JSON.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.http.get(format!("{}{path}", self.server));
        self.limited(async {
            let response = self.send(request).await?;
            response.json().await.context("the server's answer is no JSON")
        })
        .await
    }

    /// Returns the list at a path. What is in it may be of another version.
    pub(super) async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        match self.get(path).await? {
            Value::Array(list) => Ok(list),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                let shown: String = other.to_string().chars().take(100).collect();
                Err(anyhow!("the server's answer is no list, but {shown}"))
            }
        }
    }

    /// Follows server-sent events, after the one of this id if there is one. Returns the bytes as they come.
    pub(super) async fn follow(
        &self,
        path: &str,
        after: Option<&str>,
    ) -> anyhow::Result<impl Stream<Item = reqwest::Result<impl AsRef<[u8]> + use<>>> + Unpin + use<>> {
        let request = self.http.get(format!("{}{path}", self.server));
        let request = after.into_iter().fold(request, |request, id| request.header("last-event-id", id));
        let response = self.limited(self.send(request)).await?;
        Ok(response.bytes_stream().boxed())
    }

    /// Sends a command. Returns why it was not carried out, if so.
    pub(super) async fn command(&self, name: &Name, verb: Verb, id: &str) -> anyhow::Result<()> {
        let url = format!("{}/api/v1/canaries/{}/{}/{}", self.server, name.namespace, name.name, verb.as_str());
        let request = self.http.post(url).json(&CommandBody { id: Some(id.to_owned()) });
        let sent = self.limited(self.send(request)).await;
        sent.map(drop)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await.with_context(|| {
            format!(
                "no answer from {}; is `wingbeat serve` running there? (--server, or $WINGBEAT_SERVER)",
                self.server
            )
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let why = response.json::<ErrorBody>().await;
        let why = why.map_or_else(|_| format!("{} answers {status} without a reason", self.server), |body| body.error);
        Err(Refused { status, why }.into())
    }

    async fn limited<T>(&self, answer: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let Some(within) = self.within else { return answer.await };
        tokio::time::timeout(within, answer).await.unwrap_or_else(|_| {
            Err(anyhow!(
                "no answer from {} within {within:?}: the server is there and hangs, or something else listens there \
                 (--request-timeout waits longer, --server asks another one)",
                self.server
            ))
        })
    }
}

/// Reads what this version knows of a value: a field that it cannot read is left out, and told.
pub(super) fn lenient<T: DeserializeOwned>(value: &Value) -> (Option<T>, Option<String>) {
    let whole = match T::deserialize(value) {
        Ok(read) => return (Some(read), None),
        Err(error) => error,
    };
    let Value::Object(fields) = value else { return (None, Some(whole.to_string())) };
    let mut readable = fields.clone();
    let mut told = Vec::new();
    for field in fields.keys() {
        let Some(taken) = readable.remove(field) else { continue };
        // Those before it are readable, or gone: what is wrong now is wrong with this one.
        let alone: serde_json::Map<String, Value> = [(field.clone(), taken.clone())].into_iter().collect();
        match T::deserialize(&Value::Object(alone)) {
            Ok(_) => drop(readable.insert(field.clone(), taken)),
            Err(error) => told.push(format!("{field}: {error}")),
        }
    }
    match T::deserialize(&Value::Object(readable)) {
        Ok(read) => (Some(read), Some(told.join("; "))),
        Err(_) => (None, Some(whole.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wingbeat_control::view::CanaryView;

    use super::*;

    #[test]
    fn what_a_later_version_says_otherwise_hides_nothing_else() {
        let value =
            json!({"namespace": "prod", "name": "a", "phase": "Levitating", "weight": {"percent": 5}, "new": [1]});
        let (read, told): (Option<CanaryView>, _) = lenient(&value);
        let read = read.unwrap();
        assert_eq!((read.name.as_str(), read.phase.as_str(), read.weight), ("a", "Levitating", 0.0));
        assert!(told.is_some_and(|told| told.starts_with("weight: ") && !told.contains(';')));
        let (read, told): (Option<CanaryView>, _) = lenient(&json!({"namespace": "prod", "name": "a", "extra": 1}));
        assert!(read.is_some() && told.is_none());
        let (read, told): (Option<CanaryView>, _) = lenient(&json!("canary"));
        assert!(read.is_none() && told.is_some());
    }
}
