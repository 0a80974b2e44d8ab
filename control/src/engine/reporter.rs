//! A node that reports.

use wingbeat_core::time::Timestamp;

use crate::view::ProxyRouteView;

/// A node that reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reporter {
    /// When it reported last.
    pub last: Option<Timestamp>,
    /// The routes that it shows, of canaries whose rollouts are on.
    pub routes: Vec<ProxyRouteView>,
}
