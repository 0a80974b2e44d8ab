//! Whether there is harm, whichever node is left out.

use crate::analysis::config::{Comparison, Mode};
use crate::analysis::jackknife::Opinion;
use crate::analysis::judge::{HarmFound, Judge};
use crate::analysis::presence::{self, ExpectedShare};
use crate::analysis::quorum::{REPORTED_WITHIN, ThinQuorum};
use crate::analysis::sequential::count;
use crate::analysis::signal::Signal;
use crate::analysis::test_suite::TestSuite;
use crate::analysis::weighted_evidence::WeightedEvidence;
use crate::analysis::window::NodeGroup;
use crate::time::{Span, Timestamp};
use crate::verdict::Doubt;
use crate::weight::BasisPoints;

/// Nodes that carry next to nothing may contradict for so long after a step began: the short memory of who carries traffic
/// is full by then. A canary that fails everything at the only node that has any is gone within three seconds, detection
/// included.
const CONTRADICT_WITHIN: Span = Span::from_millis(1_600);

/// Harm that one node may hide is believed after so long: by then every trial has taken in more.
const HIDDEN_FOR: Span = Span::from_secs(1);

/// And after so long if it is not plain. Where a node makes harm up out of the few errors that others see, those that saw
/// fewer by chance look for a while as if they hid it.
const BARELY_HIDDEN_FOR: Span = Span::from_secs(60);

/// Hidden harm is plain with so much evidence beyond what it needs: chance does not divide errors so unevenly.
const PLAIN: f64 = 140.0;

impl Judge {
    /// Returns what stands against it that the canary is given more. Where checks alone decide, nothing does.
    pub(super) fn doubt(&self, now: Timestamp) -> Option<Doubt> {
        match self.config.mode {
            Mode::Thresholds => None,
            Mode::Sequential | Mode::Guard => {
                let of_one_pod = self.suspected(now).map(|_| Doubt::OnePod);
                of_one_pod.or_else(|| self.outage.is_in_doubt(now).then_some(Doubt::Harm))
            }
        }
    }

    /// Notes harm that has crossed, whichever node is left out.
    pub(super) fn test_for_harm(&mut self, now: Timestamp) {
        if self.crossed.as_ref().is_some_and(|crossed| crossed.hard) {
            return;
        }
        let decisive = self.config.decision_threshold();
        let (shares, level) = (self.shares(), self.level());
        let weighted = WeightedEvidence::of_trial(&self.trial, &shares, level);
        self.weighted = Some(weighted).into();
        let total = weighted.total(&shares, |_| true);
        let over_all = total >= decisive;
        if over_all {
            self.jackknife.flush(&self.config);
        }
        self.decided = over_all.then(|| self.decided.unwrap_or(now));
        // What they saw of it has to arrive.
        let is_heard = self.decided.is_some_and(|since| now.since(since) >= REPORTED_WITHIN);
        let waited = is_heard && now.since(self.step.began) >= CONTRADICT_WITHIN;
        let may_contradict = |node_group: NodeGroup| !waited || self.presence.may_contradict(node_group, now);
        let without = |trial: &TestSuite| WeightedEvidence::of_trial(trial, &shares, level).total(&shares, |_| true);
        let has_quorum = self.presence.has_quorum();
        let opinion = has_quorum.then(|| self.jackknife.harm((total, decisive), may_contradict, without));
        let hidden_by = self.hidden_by.take();
        let rests_on = self.rests_on.take();
        let found = match opinion {
            None => over_all && !self.quorum.delays_rollback(now),
            Some(Opinion::Harm) => over_all || !self.jackknife.is_empty(),
            Some(Opinion::Unopposed) => self.has_grown(total, decisive),
            Some(Opinion::None) => false,
            Some(Opinion::HiddenBy { node_group, beyond }) => {
                let since = hidden_by.filter(|(_, before)| *before == node_group).map_or(now, |(since, _)| since);
                self.hidden_by = Some((since, node_group));
                now.since(since) >= if beyond >= PLAIN { HIDDEN_FOR } else { BARELY_HIDDEN_FOR }
            }
            Some(Opinion::RestsOn(node_group)) => {
                let since = rests_on.filter(|(_, before)| *before == node_group).map_or(now, |(since, _)| since);
                self.rests_on = over_all.then_some((since, node_group));
                false
            }
        };
        match opinion {
            // Others that carry traffic contradict what was seen up to now.
            Some(Opinion::RestsOn(_) | Opinion::HiddenBy { .. } | Opinion::None) if over_all && waited => {
                self.contested = Some(total);
            }
            Some(_) | None if !over_all => self.contested = None,
            Some(_) | None => {}
        }
        if !found {
            return;
        }
        let hard = weighted.total(&shares, |signal| !signal.is_rate_comparison()) >= decisive;
        let at = self.crossed.as_ref().map_or(now, |crossed| crossed.at);
        if self.crossed.is_none() || hard {
            let reason = match opinion {
                Some(Opinion::HiddenBy { node_group, .. }) => self.hidden(node_group),
                Some(Opinion::Harm | Opinion::Unopposed | Opinion::RestsOn(_) | Opinion::None) | None => {
                    self.harm_reason(&shares)
                }
            };
            self.crossed = Some(HarmFound { at, hard, reason });
        }
    }

    /// Returns true if evidence that nobody contradicts any more would decide without what others contradicted while they
    /// carried traffic: they have left since, and what one node made up before is not true for that.
    fn has_grown(&mut self, total: f64, decisive: f64) -> bool {
        self.contested = self.contested.map(|contested| contested.min(total));
        self.contested.is_none_or(|contested| total >= contested + decisive)
    }

    /// Returns true if something holds over all node groups but one, whichever it is. Where the others carry next to nothing for as
    /// long as the long memory reaches back, they are gone, and are not waited for.
    pub(super) fn whichever_is_left_out(&self, now: Timestamp, holds: impl Fn(&TestSuite) -> bool) -> bool {
        let is_over = now.since(self.step.began) >= presence::LONG_MEMORY;
        !self.presence.has_quorum()
            || self.jackknife.all(|node_group| !is_over || self.presence.must_agree(node_group, now), holds)
    }

    /// Returns why it is too early to say that there is no harm, if what few say is all there is: others may have had no
    /// time to report, or one alone may outvote a second. With three, leaving one out tells (P24).
    pub(super) fn rests_on_thin_quorum(&self, now: Timestamp) -> Option<ThinQuorum> {
        if self.presence.has_quorum() {
            return None;
        }
        let (shares, level, decisive) = (self.shares(), self.level(), self.config.decision_threshold());
        let (guard, limit) = (self.limit_of(Signal::Guard), self.limit_of(Signal::ErrorLimit));
        let alone = self.config.comparison == Comparison::BeforeAfter || self.step.primary == 0;
        let known = |trial: &TestSuite| match self.config.error_limit {
            Some(_) if alone => count(trial.observed_requests()) >= trial.until_limit_decides(limit),
            Some(_) | None => trial.guard_missing(guard).is_some_and(|factor| factor <= 1.0),
        };
        let harmed =
            |trial: &TestSuite| WeightedEvidence::of_trial(trial, &shares, level).total(&shares, |_| true) >= decisive;
        let carrying = self.presence.carrying(now);
        self.quorum.thin_quorum(now, carrying.len().max(1)).or_else(|| {
            carrying.into_iter().find_map(|node_group| {
                let without = self.jackknife.without(node_group)?;
                (harmed(without) || !known(without)).then_some(ThinQuorum::One(node_group))
            })
        })
    }

    /// Returns how many of a node's requests are due to be the canary's.
    pub(super) const fn due(&self) -> ExpectedShare {
        match self.config.comparison {
            Comparison::Randomised | Comparison::Affinity if self.step.weight.get() < BasisPoints::FULL.get() => {
                ExpectedShare::Share(self.step.weight)
            }
            Comparison::Randomised | Comparison::Affinity | Comparison::Absolute | Comparison::BeforeAfter => {
                ExpectedShare::Canary
            }
        }
    }
}
