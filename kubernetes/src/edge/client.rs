//! Calls of an API server, as JSON.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http::{HeaderName, HeaderValue, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{Status, WatchEvent};
use kube::{Client, Config};
use serde_json::Value;

use crate::failure::{Failure, Refusal};

/// Time for a connection to an API server. One that takes longer is tried again by who needs it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// What objects are asked for as JSON.
pub(super) const JSON: &str = "application/json";
/// What is asked for metadata alone.
pub(super) const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// The same of a list.
pub(super) const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// Where the API server is, and who we are to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// As a file says.
    Kubeconfig(PathBuf),
    /// As the environment says: a kubeconfig of who started the program or, in a Pod, its service account.
    Environment,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read.
    #[error("{path} is no kubeconfig that can be used ({why}): name another one")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Neither is there.
    #[error("there is neither a kubeconfig nor a service account ({0}): run in a Pod, or set KUBECONFIG")]
    Environment(String),
    /// It cannot be used.
    #[error("the API server's address or certificates cannot be used ({0}): mend the kubeconfig")]
    Client(String),
}

/// A client of an API server. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Connection {
    client: Client,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// Returns a client that calls itself by this name in the API server's audit log, like `wingbeat/0.1.0`. It connects when
    /// it is used.
    pub async fn open(access: &Access, user_agent: &str) -> Result<Self, AccessError> {
        let mut config = match access {
            Access::Kubeconfig(path) => from_file(path).await?,
            Access::Environment => {
                Config::infer().await.map_err(|error| AccessError::Environment(error.to_string()))?
            }
        };
        let unusable = |error: &dyn std::error::Error| AccessError::Client(chain(error));
        let agent = HeaderValue::from_str(user_agent).map_err(|error| unusable(&error))?;
        config.headers.push((HeaderName::from_static("user-agent"), agent));
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // A write that is sent again must have a permit again.
        config.default_retry = false;
        // More than one is compiled in by libraries, and none is chosen then; one that was chosen before stays.
        let _chosen = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_from(config).map_err(|error| unusable(&error))?;
        Ok(Self { client })
    }

    /// Watches, and returns what is observed as it comes.
    pub(super) async fn watch(
        &self,
        accept: &'static str,
        uri: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<Value>, Failure>> + use<>, Failure> {
        let request = Request::builder().method("GET").uri(uri).header("accept", accept).body(Vec::new());
        let request = request.map_err(|error| Failure::Invalid(error.to_string()))?;
        let events = self.client.request_events::<Value>(request).await.map_err(|error| failure(&error))?;
        Ok(events.map(|event| event.map_err(|error| failure(&error))))
    }

    /// Makes a call and returns what came of the object. Nothing is tried again.
    pub async fn call(
        &self,
        method: &str,
        uri: &str,
        content_type: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Value, Failure> {
        let request = Request::builder().method(method).uri(uri).header("accept", JSON);
        let request = if body.is_empty() { request } else { request.header("content-type", content_type) };
        self.send_request(request.body(body), timeout).await
    }

    async fn send_request(
        &self,
        request: Result<Request<Vec<u8>>, http::Error>,
        timeout: Duration,
    ) -> Result<Value, Failure> {
        let request = request.map_err(|error| Failure::Invalid(error.to_string()))?;
        match tokio::time::timeout(timeout, self.client.request::<Value>(request)).await {
            Ok(answer) => answer.map_err(|error| failure(&error)),
            Err(_) => Err(Failure::Timeout),
        }
    }

    /// Reads an object or a list.
    pub async fn get(&self, uri: &str, timeout: Duration) -> Result<Value, Failure> {
        self.call("GET", uri, "", Vec::new(), timeout).await
    }

    /// Reads an object or a list in another form.
    pub(super) async fn get_as(&self, accept: &'static str, uri: &str, timeout: Duration) -> Result<Value, Failure> {
        let request = Request::builder().method("GET").uri(uri).header("accept", accept);
        self.send_request(request.body(Vec::new()), timeout).await
    }

    /// Creates or replaces an object. A replacement is refused if the object has another version than the one in it.
    pub async fn send(&self, method: &str, uri: &str, object: &Value, timeout: Duration) -> Result<Value, Failure> {
        self.call(method, uri, "application/json", object.to_string().into_bytes(), timeout).await
    }
}

async fn from_file(path: &Path) -> Result<Config, AccessError> {
    let unreadable =
        |error: &dyn std::error::Error| AccessError::Kubeconfig { path: path.to_owned(), why: chain(error) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unreadable(&error))?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unreadable(&error))
}

/// Returns what an error means.
pub(super) fn failure(error: &kube::Error) -> Failure {
    if let kube::Error::Api(status) = error {
        return Failure::of(refusal(status));
    }
    if matches!(error, kube::Error::BuildRequest(_) | kube::Error::HttpError(_)) {
        return Failure::Invalid(chain(error));
    }
    // Whatever else there is happened on the way.
    Failure::Unreachable(chain(error))
}

/// Returns an answer that is no success.
pub(super) fn refusal(status: &Status) -> Refusal {
    let details = status.details.as_ref();
    let causes = details.map(|details| details.causes.iter().map(|cause| cause.reason.clone()).collect());
    Refusal {
        code: status.code,
        reason: status.reason.clone(),
        message: status.message.clone(),
        causes: causes.unwrap_or_default(),
        retry_after: details.map(|details| details.retry_after_seconds).filter(|secs| *secs > 0),
    }
}

/// Returns an error with what led to it: the outermost often says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let deeper = error.to_string();
        if !text.contains(&deeper) {
            text = format!("{text}: {deeper}");
        }
        cause = error.source();
    }
    text
}
