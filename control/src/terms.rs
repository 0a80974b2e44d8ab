//! What of a canary's spec is in force while a rollout is on, and which of its changes wait for the next one.
//!
//! The plan's own part is told in `wingbeat_core::rollout::plan`. What is here follows the same rule: what makes evidence
//! comparable from the beginning of a rollout to its end stays as it was, everything else changes as it is written.

use serde::{Deserialize, Serialize};
use wingbeat_api::desired_state::{CanaryConfig, Service, Targeting, Workload};
use wingbeat_core::analysis::judge::JudgeConfig;
use wingbeat_core::rollout::{Amendment, PlanTerms};

/// What a rollout keeps of the spec under which it began. Stored with it: a restarted server goes on under the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Terms {
    plan: PlanTerms,
    judge: JudgeConfig,
    audience: Targeting,
}

impl Terms {
    /// Returns what a rollout keeps that begins under this.
    pub(crate) fn of(config: &CanaryConfig) -> Self {
        let (judge, audience) = (config.judge.clone(), config.audience.clone());
        Self { plan: config.plan.terms(), judge, audience }
    }

    /// Returns what is in force where this is written, and the fields below `spec` whose changes wait for the next
    /// rollout.
    pub(crate) fn amend(&self, written: &CanaryConfig) -> (CanaryConfig, Vec<&'static str>) {
        let mut amendment = Amendment::default();
        // Taken apart field by field: a new one does not compile before it is said here when a change of it holds.
        let CanaryConfig { plan, judge: written_judge, workload, service, audience, hooks, metric_providers, alerts } =
            written.clone();
        let Workload { revision, revisions, http2 } = workload;
        let Service { hosts, listeners, timeout, retries, http, traffic } = service;
        self.note_audience(&audience, &mut amendment);
        let config = CanaryConfig {
            plan: plan.under(&self.plan, &mut amendment),
            judge: judge(self.judge.clone(), &written_judge, &mut amendment),
            workload: Workload {
                // Another revision begins another rollout.
                revision: amendment.now(revision),
                revisions: amendment.now(revisions),
                http2: amendment.now(http2),
            },
            service: Service {
                hosts: amendment.now(hosts),
                listeners: amendment.now(listeners),
                timeout: amendment.now(timeout),
                retries: amendment.now(retries),
                http: amendment.now(http),
                traffic: amendment.now(traffic),
            },
            audience: self.audience.clone(),
            hooks: amendment.now(hooks),
            metric_providers: amendment.now(metric_providers),
            alerts: amendment.now(alerts),
        };
        (config, amendment.waiting())
    }

    /// Whoever had the canary keeps it, and whoever is compared stays who it was: the audience changes as a whole.
    fn note_audience(&self, written: &Targeting, amendment: &mut Amendment) {
        match (&self.audience, written) {
            (Targeting::Rules { rules, holdback }, Targeting::Rules { rules: new, holdback: held }) => {
                amendment.next_rollout("service.match", rules.served.written(), &new.served.written());
                amendment.next_rollout("analysis.match", rules.canary.written(), &new.canary.written());
                amendment.next_rollout("analysis.holdback", *holdback, held);
            }
            (Targeting::Users(identity), Targeting::Users(new)) => {
                amendment.next_rollout("analysis.affinity", identity, &new);
            }
            (Targeting::Served(entries), Targeting::Served(new)) => {
                amendment.next_rollout("service.match", entries.written(), &new.written());
            }
            (Targeting::Chance, Targeting::Chance) => {}
            (Targeting::Users(_), Targeting::Chance | Targeting::Rules { .. } | Targeting::Served(_))
            | (Targeting::Chance | Targeting::Rules { .. } | Targeting::Served(_), Targeting::Users(_)) => {
                amendment.next_rollout("analysis.affinity", true, &false);
            }
            (Targeting::Chance | Targeting::Served(_), Targeting::Rules { .. })
            | (Targeting::Rules { .. }, Targeting::Chance | Targeting::Served(_)) => {
                amendment.next_rollout("analysis.match", true, &false);
            }
            (Targeting::Chance, Targeting::Served(_)) | (Targeting::Served(_), Targeting::Chance) => {
                amendment.next_rollout("service.match", true, &false);
            }
        }
    }
}

/// Evidence that was gathered under one test is none under another: all of it stays.
fn judge(in_force: JudgeConfig, written: &JudgeConfig, amendment: &mut Amendment) -> JudgeConfig {
    let JudgeConfig {
        mode,
        comparison,
        alpha,
        attempt,
        error_ratio,
        error_floor,
        error_limit,
        latency_limit,
        latency,
        must_detect,
        min_requests,
        early_promotion,
        warmup,
        on_one_pod,
        modes,
    } = in_force;
    JudgeConfig {
        mode: amendment.next_rollout("analysis.judge.mode", mode, &written.mode),
        // Follows from the audience and the strategy, of which the same is told.
        comparison,
        alpha: amendment.next_rollout("analysis.judge.alpha", alpha, &written.alpha),
        // Set by the state.
        attempt,
        error_ratio: amendment.next_rollout("analysis.judge.errorRatio", error_ratio, &written.error_ratio),
        error_floor: amendment.next_rollout("analysis.judge.errorFloor", error_floor, &written.error_floor),
        // Ranges of metrics, and what a metric may do, are the judge's where evidence decides.
        error_limit: amendment.next_rollout("analysis.metrics", error_limit, &written.error_limit),
        latency_limit: amendment.next_rollout("analysis.metrics", latency_limit, &written.latency_limit),
        modes: amendment.next_rollout("analysis.metrics", modes, &written.modes),
        latency: amendment.next_rollout("analysis.judge.latency", latency, &written.latency),
        must_detect: amendment.next_rollout("analysis.judge.mustDetect", must_detect, &written.must_detect),
        min_requests: amendment.next_rollout("analysis.judge.minRequests", min_requests, &written.min_requests),
        early_promotion: amendment.next_rollout(
            "analysis.judge.earlyPromotion",
            early_promotion,
            &written.early_promotion,
        ),
        warmup: amendment.next_rollout("analysis.judge.warmup", warmup, &written.warmup),
        on_one_pod: amendment.next_rollout("analysis.judge.onOnePod", on_one_pod, &written.on_one_pod),
    }
}
