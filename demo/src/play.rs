//! A scene, played.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use wingbeat_control::view::CanaryView;

use crate::clock::now;
use crate::envoy::{self, Binary};
use crate::load::{Load, LoadConfig, Rules, Tally};
use crate::names::{CANARY, HOST, PRIMARY};
use crate::scene::{Outcome, Scenario, Scene, Sight, Spectator};
use crate::stage::Stage;
use crate::summary::{Ended, Summary};
use crate::visitor::{ANYONE, AUDIENCE};

/// The canary stays up so long after the verdict, so that stragglers are seen.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// Without traffic, a canary that was held for so long was held.
const HOLD_WITHOUT_TRAFFIC: Duration = Duration::from_secs(20);

/// Users who still wait so long after the last request was sent have lost theirs.
const GRACE: Duration = Duration::from_secs(2);

/// Time between two sights of the scene: a person sees no more.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// Time for the first answered request, and for a canary's first request.
const STARTED_WITHIN: Duration = Duration::from_secs(30);

impl Scene {
    /// Plays the scene to a spectator.
    pub async fn play(&self, filter: &'static [u8], spectator: Spectator<'_>) -> anyhow::Result<Outcome> {
        let say = |text: &str| spectator(Sight::Line(None, text));
        let binary = Binary::locate(self.envoy.as_deref(), envoy::DEFAULT_VERSION, &say).await?;
        let stage = Stage::build(self, &binary, filter).await?;
        let load = (self.scenario != Scenario::NoTraffic).then(|| {
            Load::start(LoadConfig {
                target: stage.entry(),
                host: HOST.to_owned(),
                rate: self.rps,
                patience: self.patience,
                visitors: if self.scenario == Scenario::Ab { AUDIENCE } else { ANYONE },
            })
        });
        if let Some(load) = &load {
            within(STARTED_WITHIN, "no request was answered", || load.tally().finished > 0).await?;
        }
        say(&format!("revision {PRIMARY} serves at {} rps through Envoy on {}", self.rps, stage.entry()));
        self.rollout(&stage, load, filter, spectator).await
    }

    async fn rollout(
        &self,
        stage: &Stage,
        load: Option<Load>,
        filter: &'static [u8],
        spectator: Spectator<'_>,
    ) -> anyhow::Result<Outcome> {
        let began = now();
        // Before there are any.
        let mut events = stage.handle().events().follow();
        let mut board = stage.handle().watch();
        stage.handle().configure(stage.desired_state(self, CANARY, filter)?)?;
        let mut shown = tokio::time::interval(SHOW_EVERY);
        let mut fault = Fault::planned(self);
        let mut given_up = false;
        let ended = loop {
            tokio::select! {
                changed = board.changed() => changed.context("the control plane ended")?,
                Ok(event) = events.recv() => {
                    spectator(Sight::Line(Some(began.elapsed()), &event.message));
                    continue;
                }
                _ = shown.tick() => {
                    if let Some(view) = stage.view() {
                        spectator(Sight::View(began.elapsed(), &of_the_rollout(view)));
                    }
                }
            }
            let Some(view) = stage.view() else { continue };
            fault.advance(self, stage, load.as_ref(), &view);
            let idle_enough = began.elapsed() >= HOLD_WITHOUT_TRAFFIC;
            match view.phase.as_str() {
                "Failed" => break Ended::RolledBack,
                "Succeeded" => break Ended::Promoted,
                _ if self.scenario == Scenario::NoTraffic && idle_enough => break Ended::NoData,
                _ if began.elapsed() >= self.max_duration => {
                    given_up = true;
                    break Ended::NoData;
                }
                _ => {}
            }
        };
        let decided = now();
        if let Some(load) = &load {
            load.ask_for_errors(false);
        }
        let duration = began.elapsed();
        let mut why = stage.view().map(|view| reason(&view)).unwrap_or_default();
        if given_up {
            why = format!("nothing was decided within {:?}: {why}", self.max_duration);
        }
        let afterwards = tokio::time::sleep(AFTERWARDS);
        tokio::pin!(afterwards);
        loop {
            tokio::select! {
                () = &mut afterwards => break,
                Ok(event) = events.recv() => spectator(Sight::Line(Some(began.elapsed()), &event.message)),
                _ = shown.tick() => {}
            }
            // The time stands: it is that of the verdict.
            if let Some(view) = stage.view() {
                spectator(Sight::View(duration, &of_the_rollout(view)));
            }
        }
        let serves = stage.view().map(|view| view.primary_revision);
        let promoted = ended != Ended::Promoted || serves.as_deref() == Some(CANARY);
        let (tally, misrouted, answered) = match load {
            Some(load) => {
                let (misrouted, Tally { finished, sent, .. }) = (load.misrouted(), load.tally());
                (load.stop(GRACE).await, misrouted, (finished, sent))
            }
            None => (Tally::default(), 0, (0, 0)),
        };
        let unanswered = tally.failed.iter().filter(|revision| revision.is_none()).count();
        let unanswered = u64::try_from(unanswered).unwrap_or(u64::MAX);
        let summary = Summary { misrouted, ..fault.summary(self, stage, ended, decided, duration, &tally) };
        let good = summary.false_verdicts == 0 && summary.misrouted == 0;
        let as_it_should = !given_up && ended == self.scenario.should_end() && good && promoted;
        Ok(Outcome { summary, reason: why, as_it_should, unanswered, answered })
    }
}

/// The fault on its way: when the share began to flow, and when the canary began to misbehave.
enum Fault {
    /// This scene has none.
    None,
    /// It waits for the share to flow.
    Waiting,
    /// The share has flowed since then.
    Flowing(Instant),
    /// The canary misbehaves since then.
    On { since: Instant, weight: f64 },
}

impl Fault {
    const fn planned(scene: &Scene) -> Self {
        match scene.scenario {
            Scenario::Errors | Scenario::Latency | Scenario::Hang | Scenario::Stall | Scenario::Ab => Self::Waiting,
            Scenario::Promote | Scenario::NoTraffic => Self::None,
        }
    }

    fn advance(&mut self, scene: &Scene, stage: &Stage, load: Option<&Load>, view: &CanaryView) {
        match self {
            Self::Waiting if scene.fault_after.is_zero() => {
                // Broken all along: time zero is its first request.
                if let Some(since) = stage.canary().first_request() {
                    *self = Self::On { since, weight: view.weight };
                }
            }
            Self::Waiting if flows(view) => {
                if let Some(load) = load
                    && scene.scenario == Scenario::Ab
                {
                    load.watch(Rules::On);
                }
                *self = Self::Flowing(now());
            }
            Self::Flowing(since) if since.elapsed() >= scene.fault_after => {
                if let Some(behaviour) = scene.fault() {
                    if let Some(load) = load {
                        load.mark();
                        if scene.scenario == Scenario::Ab {
                            load.watch(Rules::Changing);
                            load.ask_for_errors(true);
                        }
                    }
                    *self = Self::On { since: stage.canary().behave(behaviour), weight: view.weight };
                }
            }
            Self::None | Self::Waiting | Self::Flowing(_) | Self::On { .. } => {}
        }
    }

    fn summary(
        &self,
        scene: &Scene,
        stage: &Stage,
        ended: Ended,
        decided: Instant,
        duration: Duration,
        tally: &Tally,
    ) -> Summary {
        let on = match self {
            Self::On { since, weight } => Some((*since, *weight)),
            Self::None | Self::Waiting | Self::Flowing(_) => None,
        };
        let after = on.map(|_| stage.canary().received_since_change());
        let last = on.map(|(since, _)| match (after, stage.canary().last_request()) {
            (Some(1..), Some(last)) => millis(last.saturating_duration_since(since)),
            (Some(_) | None, _) => 0,
        });
        let primary = tally.failed.iter().filter(|revision| revision.as_deref() == Some(PRIMARY)).count();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Summary {
            scenario: scene.scenario.as_str(),
            result: ended,
            rps: scene.rps,
            weight_at_fault: on.map(|(_, weight)| weight),
            fault_to_verdict_ms: on.map(|(since, _)| millis(decided.saturating_duration_since(since))),
            fault_to_last_canary_request_ms: last,
            canary_requests_after_fault: after,
            requests: tally.sent,
            failed_requests: count(tally.failed.len()),
            failed_requests_canary: count(tally.failed.len().saturating_sub(primary)),
            failed_requests_primary: count(primary),
            misrouted: 0,
            false_verdicts: u64::from(ended == Ended::RolledBack && on.is_none()),
            duration_ms: millis(duration),
        }
    }
}

/// Returns true once the share reaches the proxies: the judge has data.
fn flows(view: &CanaryView) -> bool {
    let judged = view.verdict.as_ref().is_some_and(|verdict| verdict.kind != "no-data");
    judged && view.measured().canary.requests > 0
}

/// Returns a view that names the revisions as they were in the rollout: what is counted stays theirs, whichever serves.
fn of_the_rollout(view: CanaryView) -> CanaryView {
    CanaryView { primary_revision: PRIMARY.to_owned(), canary_revision: Some(CANARY.to_owned()), ..view }
}

fn reason(view: &CanaryView) -> String {
    let failed = view.conditions.iter().find(|condition| condition.reason == "Failed");
    let verdict = view.verdict.as_ref().map(|verdict| verdict.reason.clone());
    failed.map(|condition| condition.message.clone()).or(verdict).unwrap_or_default()
}

async fn within(limit: Duration, otherwise: &str, holds: impl Fn() -> bool) -> anyhow::Result<()> {
    let mut poll = tokio::time::interval(Duration::from_millis(5));
    let wait = async {
        while !holds() {
            poll.tick().await;
        }
    };
    tokio::time::timeout(limit, wait).await.map_err(|_| anyhow::anyhow!("{otherwise} within {limit:?}"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
