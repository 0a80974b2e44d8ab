//! Clusters that come back before the client has let go of their endpoints.

use std::collections::BTreeSet;

use crate::session::subscription::SubscribedNames;

/// Clusters that were taken away and may be sent anew. Else, that a client asks for a cluster's endpoints tells that it has
/// taken the cluster, and routes may go to it; of these it asked for them before.
#[derive(Debug, Default)]
pub(super) struct ReaddedClusters {
    /// Taken away, and their endpoints are still asked for. No more than the client names.
    gone: BTreeSet<String>,
    /// Of these, those that were sent anew and not answered yet.
    sent: BTreeSet<String>,
}

impl ReaddedClusters {
    /// Notes which clusters are taken away from who asks for these endpoints.
    pub(super) fn take_away(&mut self, clusters: &[String], endpoints: Option<&SubscribedNames>) {
        let asked = |name: &&String| endpoints.is_some_and(|wanted| wanted.covers(name));
        self.gone.extend(clusters.iter().filter(asked).cloned());
    }

    /// Notes which clusters are sent.
    pub(super) fn send(&mut self, clusters: &[String]) {
        let returning: Vec<String> = clusters.iter().filter(|name| self.gone.remove(*name)).cloned().collect();
        self.sent.extend(returning);
    }

    /// Notes which endpoints are asked for.
    pub(super) fn ask(&mut self, endpoints: &SubscribedNames) {
        self.gone.retain(|name| endpoints.covers(name));
    }

    /// Notes that the client has taken what it was sent.
    pub(super) fn accept(&mut self) {
        self.sent.clear();
    }

    /// Notes that the client has refused what it was sent: none of these counts as there.
    pub(super) fn refuse(&mut self) {
        self.gone.append(&mut self.sent);
    }

    /// Returns true if nobody knows yet whether the client takes this one.
    pub(super) fn is_open(&self, cluster: &str) -> bool {
        self.sent.contains(cluster)
    }
}
