//! Where the server is, and which canary is meant.

use std::time::Duration;

use clap::Args;

use crate::demo::duration;

/// How often it is looked for changes.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// Address of the server's HTTP API
    #[arg(long, env = "WINGBEAT_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub(super) server: String,
    /// Token for commands, where the server has one
    #[arg(long, env = "WINGBEAT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// A server that does not answer within this time is given up; 0: never
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration)]
    pub(super) request_timeout: Duration,
}

/// A canary by name.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Name {
    /// Returns true if these are its parts.
    pub(crate) fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace == namespace && self.name == name
    }
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            Some(_) | None => Err(format!("{text:?} is not of the form NAMESPACE/NAME, for example prod/backend")),
        }
    }
}
