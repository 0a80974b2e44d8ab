//! As much of a client as it takes to await that a cluster is ready: kubectl would be started for each question.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Certificate, Client, Method};
use serde_json::Value;

/// Where the API server listens in its namespace.
pub(crate) const SERVER: &str = "https://127.0.0.1:6443";
/// What it is called in the audit log.
const USER_AGENT: &str = "wingbeat-test-cluster";
/// Time for one answer. Then it is asked anew.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A client of the API server, as its administrator.
#[derive(Debug)]
pub(crate) struct Api {
    client: Client,
    token: String,
}

impl Api {
    /// Returns a client that trusts the certificate in this file.
    pub(crate) fn new(certificate: &Path, token: &str) -> anyhow::Result<Self> {
        let pem = std::fs::read(certificate).with_context(|| format!("cannot read {}", certificate.display()))?;
        let trusted = Certificate::from_pem_bundle(&pem).context("the API server's certificate is unreadable")?;
        let client =
            Client::builder().user_agent(USER_AGENT).tls_certs_only(trusted).no_proxy().timeout(TIMEOUT).build();
        Ok(Self { client: client.context("no client for the API server")?, token: token.to_owned() })
    }

    /// Returns true if the path answers that all is well.
    pub(crate) async fn is_ok(&self, path: &str) -> bool {
        self.request(Method::GET, path).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// Returns an object, if it is there.
    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        let answer = self.request(Method::GET, path).send().await.ok()?.error_for_status().ok()?;
        answer.json().await.ok()
    }

    /// Creates an object and returns what became of it.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        let answer = self.request(Method::POST, path).json(object).send().await;
        let answer = answer.with_context(|| format!("{path} cannot be reached"))?;
        let status = answer.status();
        let body = answer.text().await.with_context(|| format!("{path} did not answer to the end"))?;
        if !status.is_success() {
            bail!("{path} answered {status}: {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("{path} answered no JSON"))
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{SERVER}{path}")).bearer_auth(&self.token)
    }
}
