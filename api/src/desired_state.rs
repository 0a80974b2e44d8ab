//! The desired state: canaries with their workloads, and where the Envoys listen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wingbeat_core::analysis::judge::JudgeConfig;
use wingbeat_core::analysis::signal::SignalMode;
use wingbeat_core::analysis::threshold::Check;
use wingbeat_core::id::{Arm, CanaryName, ClusterName, Revision};
use wingbeat_core::matching::assignment::Identity;
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::rollout::{Phase, Plan, Readiness, State};
use wingbeat_core::time::Span;
use wingbeat_core::weight::BasisPoints;
use wingbeat_xds_server::model::http::HttpOptions;
use wingbeat_xds_server::model::traffic::TrafficPolicy;
use wingbeat_xds_server::model::{Listener, Retries};
use wingbeat_xds_server::version::Version;

use crate::alert_provider::Channel;
use crate::hook::Hook;
use crate::part::Part;
use crate::query::Query;
use crate::refused_file::RefusedFileView;

/// What is told of a workload whose template is not the one that it should have yet, in Flagger's words.
const OUTDATED: &str = "waiting for rollout to finish: observed deployment generation less than desired generation";

/// What is told of a workload that is ready, and of whose endpoints none is yet.
const NO_ENDPOINT: &str = "waiting for rollout to finish: no endpoint is ready";

/// The desired state of everything that is configured.
#[derive(Debug, Clone, Default)]
pub struct DesiredState {
    /// The canaries, each with what it needs.
    pub canaries: BTreeMap<CanaryName, CanaryConfig>,
    /// Where the Envoys listen.
    pub listeners: Vec<Listener>,
    /// The filter's module.
    pub filter: Option<Arc<[u8]>>,
    /// Which file a canary is from, where it is from one.
    pub files: BTreeMap<CanaryName, Arc<str>>,
    /// Files whose present text is wrong; what they said before goes on.
    pub refused_files: Vec<RefusedFileView>,
    /// The texts of files that are in force, to be stored.
    pub texts: BTreeMap<String, Vec<Part>>,
    /// How the workloads of canaries stand, where a cluster runs them.
    pub observed: BTreeMap<CanaryName, Arc<ObservedArms>>,
}

/// What is managed in another way from now on, of all that is.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Canaries that are new or different; none for those that are not managed any more.
    pub canaries: BTreeMap<CanaryName, Option<Configured>>,
    /// All listeners, if one of them is different.
    pub listeners: Option<Vec<Listener>>,
    /// All files whose present text is wrong, if those are others than before.
    pub refused_files: Option<Vec<RefusedFileView>>,
    /// The texts of files that are in force, to be stored, where they are different; none for files that are gone.
    pub texts: BTreeMap<String, Option<Vec<Part>>>,
    /// How the workloads of canaries stand, where that is different and a cluster runs them.
    pub observed: BTreeMap<CanaryName, Arc<ObservedArms>>,
}

/// A canary, and where it is from.
#[derive(Debug, Clone)]
pub struct Configured {
    /// How it is managed.
    pub config: Arc<CanaryConfig>,
    /// The file that it is from, where it is from one.
    pub file: Option<Arc<str>>,
}

impl Change {
    /// Adds a later change: of what both change, it is as the later one says.
    pub fn then(&mut self, later: Self) {
        let Self { canaries, listeners, refused_files, texts, observed } = later;
        self.canaries.extend(canaries);
        self.observed.extend(observed);
        self.texts.extend(texts);
        self.listeners = listeners.or_else(|| self.listeners.take());
        self.refused_files = refused_files.or_else(|| self.refused_files.take());
    }

    /// Returns true if nothing is different.
    pub fn is_empty(&self) -> bool {
        let Self { canaries, listeners, refused_files, texts, observed } = self;
        canaries.is_empty() && listeners.is_none() && refused_files.is_none() && texts.is_empty() && observed.is_empty()
    }
}

/// The configuration of a canary, with its workload.
#[derive(Debug, Clone)]
pub struct CanaryConfig {
    /// How its rollouts go.
    pub plan: Plan,
    /// How they are judged.
    pub judge: JudgeConfig,
    /// What is deployed.
    pub workload: Workload,
    /// How it is reached.
    pub service: Service,
    /// Who gets the canary.
    pub audience: Targeting,
    /// The plan's hooks, in the same places.
    pub hooks: Vec<Hook>,
    /// The plan's metrics, in the same places.
    pub metric_providers: Vec<MetricProvider>,
    /// Channels that people are alerted by.
    pub alerts: Vec<Channel>,
}

/// Where a metric is measured.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricProvider {
    /// From what the filters report.
    Filters(Check),
    /// By asking somebody else; outside of what the judge promises.
    Prometheus(Arc<Query>),
}

impl MetricProvider {
    /// Returns a digest of what is asked and of what counts as good. Secrets that go along are no part of it.
    pub fn digest(&self) -> u64 {
        Version::of([format!("{self:?}").as_bytes()]).get()
    }

    /// Returns true if a value that is not good moves a rollout.
    pub fn judges(&self) -> bool {
        let mode = match self {
            Self::Filters(check) => check.mode,
            Self::Prometheus(query) => query.mode,
        };
        mode == SignalMode::Judge
    }
}

/// Which requests are routed to the canary, of those that its weight is for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub enum Targeting {
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
    /// Chance decides among the requests that match; all others stay with the primary.
    Served(Entries),
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

/// The workloads behind the arms of a canary, as a cluster runs them: the primary's takes a revision over once it passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedArms {
    /// Which object the canary is: one that is made anew under its name is another one.
    pub uid: Arc<str>,
    /// Who gets requests by the name of the target: its own pods, until the primary has taken over.
    pub entry: Arm,
    /// The primary's.
    pub primary: ObservedWorkload,
    /// The target, whose pods are the canary's. Its revision is the one that is wanted.
    pub target: ObservedWorkload,
}

/// A workload, as it was observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedWorkload {
    /// The revision of its template; nothing if there is no such workload, or its template is none that is known.
    pub revision: Option<Revision>,
    /// Whether all of its pods are of that revision and available.
    pub readiness: Readiness,
    /// Host and port of its endpoints that are ready.
    pub endpoints: Vec<(String, u16)>,
}

impl ObservedWorkload {
    /// Returns whether it can serve as this revision.
    pub fn serves(&self, revision: &Revision) -> Readiness {
        let not_ready = |reason: &str| Readiness::NotReady { reason: reason.to_owned(), hopeless: false };
        // What is said of it is said of another revision.
        if self.revision.as_ref() != Some(revision) {
            return not_ready(OUTDATED);
        }
        if self.readiness.is_ready() && self.endpoints.is_empty() {
            return not_ready(NO_ENDPOINT);
        }
        self.readiness.clone()
    }
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

/// The revisions of a canary that carry users or are about to: they cannot go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InUse {
    /// Those that carry users whatever the workload asks for.
    pub bound: BTreeSet<Revision>,
    /// The one under judgement. It may go together with a change that asks for another one, which ends its rollout.
    pub on_trial: Option<Revision>,
}

impl InUse {
    /// Returns the revisions that are in use in a state.
    pub fn of(state: &State) -> Self {
        let bound = |revisions: &[&Revision]| revisions.iter().map(|revision| (*revision).clone()).collect();
        match &state.phase {
            Phase::Initializing => Self::default(),
            Phase::Initialized { primary }
            | Phase::Finalising { primary, .. }
            | Phase::Succeeded { primary, .. }
            | Phase::Failed { primary, on_canary: false, .. } => Self { bound: bound(&[primary]), on_trial: None },
            Phase::Failed { primary, canary, on_canary: true, .. } => {
                Self { bound: bound(&[primary, canary]), on_trial: None }
            }
            Phase::Waiting(waiting) => {
                Self { bound: bound(&[&waiting.primary]), on_trial: Some(waiting.canary.clone()) }
            }
            Phase::Progressing(progress) => {
                Self { bound: bound(&[&progress.primary]), on_trial: Some(progress.canary.clone()) }
            }
            // What is being promoted is promoted first, whatever is asked for meanwhile.
            Phase::Promoting(promotion) => {
                Self { bound: bound(&[&promotion.primary, &promotion.canary]), on_trial: None }
            }
        }
    }
}

/// Returns the name of a revision's cluster.
pub fn cluster_name(plan: &Plan, revision: &Revision) -> ClusterName {
    ClusterName::new(format!("{}/{}/{revision}", plan.name().namespace, plan.target()))
}
