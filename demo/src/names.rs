//! What the service of the demo and its revisions are called.

/// Namespace of the canary.
pub const NAMESPACE: &str = "demo";
/// Name of the canary and of its workload.
pub const NAME: &str = "backend";
/// Host of the requests.
pub const HOST: &str = "backend.local";
/// The revision that serves at first.
pub const PRIMARY: &str = "1.4.0";
/// The revision that is rolled out.
pub const CANARY: &str = "1.4.1";
