//! How a cluster may differ from others.

use crate::cri::Images;

/// How a cluster is to be.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which program a container of an image is.
    pub images: Images,
    /// More flags of the API server.
    pub api_server: Vec<String>,
    /// More flags of the controller manager: for hundreds of objects its 20 calls a second are few.
    pub controller_manager: Vec<String>,
    /// Whether Pods have the token of their service account, at its path: who makes one waits for the account.
    pub has_account_tokens: bool,
}
