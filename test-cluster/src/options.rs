//! How a cluster may differ from others.

use crate::cri::Images;

/// How a cluster is to be.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which program a container of an image is.
    pub images: Images,
    /// More flags of the API server.
    pub api_server: Vec<String>,
    /// Which of Kubernetes' controllers run.
    pub controllers: Controllers,
    /// More flags of the controller manager: for hundreds of objects its 20 calls a second are few.
    pub controller_manager: Vec<String>,
    /// Whether Pods have the token of their service account, at its path: who makes one waits for the account.
    pub has_account_tokens: bool,
}

/// Which of Kubernetes' controllers run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Controllers {
    /// Those that a cluster of one node needs.
    #[default]
    All,
    /// Only the one that gives namespaces their service account: whoever has thousands of Deployments says of each that it
    /// is ready, and where it serves.
    ServiceAccounts,
}
