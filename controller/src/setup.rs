//! What is to be managed: canaries with their workloads, and where the Envoys listen.

use std::collections::BTreeMap;
use std::sync::Arc;

use wingbeat_core::analysis::judge::JudgeConfig;
use wingbeat_core::analysis::signal::SignalMode;
use wingbeat_core::analysis::threshold::Check;
use wingbeat_core::id::{CanaryName, ClusterName, Revision};
use wingbeat_core::matching::division::Identity;
use wingbeat_core::matching::rule::Rules;
use wingbeat_core::rollout::Plan;
use wingbeat_core::time::Span;
use wingbeat_core::weight::BasisPoints;
use wingbeat_xds_server::model::http::HttpOptions;
use wingbeat_xds_server::model::traffic::TrafficPolicy;
use wingbeat_xds_server::model::{Listener, Retries};

use crate::outbound::alert::Channel;
use crate::outbound::prometheus::Query;
use crate::outbound::webhook::Hook;
use crate::view::RefusedFileView;

/// Everything that is managed.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// The canaries, each with what it needs.
    pub canaries: BTreeMap<CanaryName, Managed>,
    /// Where the Envoys listen.
    pub listeners: Vec<Listener>,
    /// The filter's module.
    pub filter: Option<Arc<[u8]>>,
    /// Which file a canary is from, where it is from one.
    pub files: BTreeMap<CanaryName, Arc<str>>,
    /// Files whose present text is wrong; what they said before goes on.
    pub refused_files: Vec<RefusedFileView>,
}

/// A canary and its workload.
#[derive(Debug, Clone)]
pub struct Managed {
    /// How its rollouts go.
    pub plan: Plan,
    /// How they are judged.
    pub judge: JudgeConfig,
    /// What is deployed.
    pub workload: Workload,
    /// How it is reached.
    pub service: Service,
    /// Who gets the canary.
    pub audience: Audience,
    /// The plan's hooks, in the same places.
    pub hooks: Vec<Hook>,
    /// The plan's metrics, in the same places.
    pub measures: Vec<Measure>,
    /// Channels that people are alerted by.
    pub alerts: Vec<Channel>,
}

/// How a metric is looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// From what the filters report.
    Filters(Check),
    /// By asking somebody else; outside of what the judge promises.
    Prometheus(Arc<Query>),
}

impl Measure {
    /// Returns true if a value that is not good moves a rollout.
    pub fn judges(&self) -> bool {
        let mode = match self {
            Self::Filters(check) => check.mode,
            Self::Prometheus(query) => query.mode,
        };
        mode == SignalMode::Judge
    }
}

/// Who gets the canary, of those that its share is for.
#[derive(Debug, Clone, Default)]
pub enum Audience {
    /// Chance decides, request by request.
    #[default]
    Chance,
    /// Requests that match.
    Rules {
        /// Which ones do.
        rules: Rules,
        /// This share of them stays with the primary, by chance.
        holdback: BasisPoints,
    },
    /// Users, who keep their arm.
    Users(Identity),
}

/// Named revisions with their endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The revision that is wanted; changing it starts a rollout.
    pub revision: Revision,
    /// Host and port of the endpoints of every revision.
    pub revisions: BTreeMap<Revision, Vec<(String, u16)>>,
    /// True if the revisions speak HTTP/2.
    pub http2: bool,
}

/// How requests reach a canary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Domains.
    pub hosts: Vec<String>,
    /// Listeners that serve them.
    pub listeners: Vec<String>,
    /// Longest time for a request.
    pub timeout: Option<Span>,
    /// Retries by Envoy.
    pub retries: Option<Retries>,
    /// How requests and responses are changed.
    pub http: HttpOptions,
    /// How its endpoints are used.
    pub traffic: TrafficPolicy,
}

/// Returns the name of a revision's cluster.
pub fn cluster_name(plan: &Plan, revision: &Revision) -> ClusterName {
    ClusterName::new(format!("{}/{}/{revision}", plan.name().namespace, plan.target()))
}
