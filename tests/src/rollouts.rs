//! One host of a fleet with rollout after rollout, each of a canary that is healthy or fails every request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use wingbeat_control::view::CanaryView;
use wingbeat_controller::verb::Verb;
use wingbeat_demo::clock::now;
use wingbeat_demo::load::Load;
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::visitor::Visitor;

use crate::PATIENCE;
use crate::fleet::Fleet;

/// A broken canary is watched for so long.
const WATCHED: Duration = Duration::from_secs(15);
/// No canary request for so long: no more are on their way.
const QUIET: Duration = Duration::from_millis(700);
/// Users of a host whose rollout is over are let go after so long.
const GRACE: Duration = Duration::from_millis(50);

/// What a canary does to every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 500.
    Status,
    /// Takes it and does not answer.
    Hang,
    /// Ends the connection or the stream.
    Reset,
    /// Begins an answer and stops.
    Stall,
    /// Answers with a gRPC status that blames the server; the healthy ones answer with status 0.
    Grpc,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Status, Self::Hang, Self::Reset, Self::Stall, Self::Grpc];

    /// Returns how it is served without the fault.
    pub fn healthy(self) -> Behaviour {
        Behaviour { grpc: (self == Self::Grpc).then_some(0), ..Behaviour::default() }
    }

    /// Returns how it is served with the fault.
    pub fn broken(self) -> Behaviour {
        let plain = Behaviour::default();
        match self {
            Self::Status => Behaviour { error_share: 1.0, ..plain },
            Self::Hang => Behaviour { hang: true, ..plain },
            Self::Reset => Behaviour { reset: true, ..plain },
            Self::Stall => Behaviour { stall: true, ..plain },
            Self::Grpc => Behaviour { grpc: Some(14), ..plain },
        }
    }
}

/// How a host is rolled out and used.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Name of the canary; its host is this with `.local`.
    pub name: String,
    /// `spec.analysis`: fields of YAML.
    pub analysis: String,
    /// True if the revisions speak HTTP/2.
    pub http2: bool,
    /// True if the canary gets copies before it gets users: these do not count.
    pub mirrored: bool,
    /// What its canary does where it is broken.
    pub fault: Fault,
    /// Users give up after so long, if at all.
    pub patience: Option<Duration>,
    /// Who they are.
    pub visitors: &'static [Visitor],
}

/// A host with two revisions at a time. The next rollout's canary is the one that does not serve.
#[derive(Debug)]
pub struct Host {
    spec: Spec,
    services: [Service; 2],
    /// Which of them serves, and as which revision.
    serving: (usize, u64),
    number: u64,
    users: Vec<(usize, Load)>,
    lost: u64,
}

/// How a rollout came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was rolled back.
    RolledBack,
    /// The canary serves.
    Promoted,
    /// It goes on.
    Not,
}

/// What came of a rollout.
#[derive(Debug, Clone)]
pub struct Played {
    /// How it ended.
    pub ended: Ended,
    /// From the fault, or the first request of users that it met, to the last one at the canary.
    pub out: Option<Duration>,
    /// Requests at the canary since then.
    pub requests: u64,
    /// What is shown of it.
    pub view: Arc<CanaryView>,
}

impl Host {
    /// Starts the revisions and has the first one serve.
    pub async fn open(fleet: &Fleet, spec: Spec) -> anyhow::Result<Self> {
        let start = async |name| Service::start(name, 1, spec.fault.healthy()).await;
        let services = [start("even").await?, start("odd").await?];
        let host = Self { spec, services, serving: (0, 0), number: 0, users: Vec::new(), lost: 0 };
        host.write(fleet, 0)?;
        host.until(fleet, "it serves", |view| view.phase == "Initialized").await?;
        Ok(host)
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Returns the revision that is rolled out, or would be.
    pub fn canary(&self) -> &Service {
        let [even, odd] = &self.services;
        if self.serving.0 == 0 { odd } else { even }
    }

    /// Returns the revision that serves.
    pub fn primary(&self) -> &Service {
        let [even, odd] = &self.services;
        if self.serving.0 == 0 { even } else { odd }
    }

    fn write(&self, fleet: &Fleet, wanted: u64) -> anyhow::Result<()> {
        let mut revisions = BTreeMap::from([(self.serving.1.to_string(), self.primary().address())]);
        if wanted != self.serving.1 {
            revisions.insert(wanted.to_string(), self.canary().address());
        }
        let workload = if self.spec.http2 { ", http2: true" } else { "" };
        let text = fleet.document(&self.spec.name, &wanted.to_string(), &revisions, &self.spec.analysis, workload);
        fleet.apply(&self.spec.name, text)
    }

    async fn until(
        &self,
        fleet: &Fleet,
        what: &str,
        wanted: impl Fn(&CanaryView) -> bool,
    ) -> anyhow::Result<Arc<CanaryView>> {
        let shown = fleet.shows(self.name(), PATIENCE, wanted).await;
        shown.with_context(|| format!("{}: {what}: it never came about: {:?}", self.name(), fleet.view(self.name())))
    }

    /// Has users send so many requests a second by an Envoy, or none any more.
    pub async fn load(&mut self, fleet: &Fleet, edge: usize, rate: u32) {
        if let Some(at) = self.users.iter().position(|(at, _)| *at == edge) {
            let (_, users) = self.users.swap_remove(at);
            self.lost += users.stop(GRACE).await.failed.len() as u64;
        }
        if rate > 0 {
            let users = fleet.users(edge, self.name(), rate, self.spec.patience, self.spec.visitors);
            self.users.push((edge, users));
        }
    }

    /// Lets all users go. Returns how many requests were lost.
    pub async fn close(mut self, fleet: &Fleet) -> anyhow::Result<u64> {
        for (_, users) in self.users.drain(..) {
            self.lost += users.stop(GRACE).await.failed.len() as u64;
        }
        fleet.remove(&self.spec.name)?;
        Ok(self.lost)
    }

    /// Starts a rollout and waits until users get the canary, which serves like this.
    pub async fn begin(&mut self, fleet: &Fleet, behaviour: Behaviour) -> anyhow::Result<Instant> {
        self.number += 1;
        self.canary().behave(behaviour);
        self.write(fleet, self.number)?;
        self.under_way(fleet).await
    }

    /// Starts a failed rollout again and waits until users get the canary, which serves like this.
    pub async fn again(&mut self, fleet: &Fleet, behaviour: Behaviour) -> anyhow::Result<Instant> {
        self.canary().behave(behaviour);
        let id = format!("{}-{}-again-{:?}", self.name(), self.number, now());
        fleet.command(self.name(), Verb::Retry, &id).await?;
        self.under_way(fleet).await
    }

    async fn under_way(&self, fleet: &Fleet) -> anyhow::Result<Instant> {
        let number = self.number.to_string();
        self.until(fleet, "the canary has a share", |view| {
            let ours = view.canary_revision.as_deref() == Some(&number) || view.primary_revision == number;
            ours && (view.weight > 0.0 || view.phase == "Failed" || view.phase == "Succeeded")
        })
        .await?;
        Ok(now())
    }

    /// Ends a rollout by command, whatever the canary does, and waits until it is over.
    pub async fn end(&mut self, fleet: &Fleet, verb: Verb) -> anyhow::Result<()> {
        let id = format!("{}-{}-{}", self.name(), self.number, verb.as_str());
        fleet.command(self.name(), verb, &id).await?;
        self.until(fleet, "it is over", |view| view.phase == "Failed" || view.phase == "Succeeded").await?;
        self.settle(fleet);
        Ok(())
    }

    /// Notes which revision serves.
    fn settle(&mut self, fleet: &Fleet) -> Ended {
        let Some(view) = fleet.view(self.name()) else { return Ended::Not };
        if view.primary_revision == self.number.to_string() {
            self.serving = (1 - self.serving.0, self.number);
            return Ended::Promoted;
        }
        if view.phase == "Failed" { Ended::RolledBack } else { Ended::Not }
    }

    /// Breaks the canary and waits until it is out, or has been watched for long enough. It was under way since `began`.
    pub async fn broken(&mut self, fleet: &Fleet, began: Instant) -> anyhow::Result<Played> {
        let behaviour = self.spec.fault.broken();
        let since = if self.canary().behaviour() == behaviour {
            // From the beginning: from the first request.
            let first = self.canary().first_since_change().unwrap_or(began);
            if self.spec.mirrored { first.max(began) } else { first }
        } else {
            self.canary().behave(behaviour)
        };
        let number = self.number.to_string();
        let over = |view: &CanaryView| view.phase == "Failed" || view.primary_revision == number;
        let over = fleet.shows(self.name(), WATCHED, over).await;
        if over.is_some() {
            let mut poll = tokio::time::interval(Duration::from_millis(10));
            let quiet = async {
                while self.canary().last_request().is_some_and(|last| last.elapsed() < QUIET) {
                    poll.tick().await;
                }
            };
            let _promoted = tokio::time::timeout(2 * QUIET, quiet).await;
        }
        let last = self.canary().last_request().filter(|last| *last >= since);
        let (requests, canary) = (self.canary().received_since_change(), self.canary().first_since_change());
        let first = canary.map_or(since, |first| first.max(since));
        let view = fleet.view(self.name()).context("it is shown")?;
        let ended = self.settle(fleet);
        let out = (ended == Ended::RolledBack).then(|| last.map_or(Duration::ZERO, |last| last.duration_since(first)));
        Ok(Played { ended, out, requests, view })
    }

    /// Watches a healthy canary for so long, or until it serves.
    pub async fn healthy(&mut self, fleet: &Fleet, long: Duration) -> anyhow::Result<Played> {
        let number = self.number.to_string();
        let over = |view: &CanaryView| view.phase == "Failed" || view.primary_revision == number;
        let _goes_on = fleet.shows(self.name(), long, over).await;
        let view = fleet.view(self.name()).context("it is shown")?;
        let requests = self.canary().received_since_change();
        Ok(Played { ended: self.settle(fleet), out: None, requests, view })
    }
}

impl Played {
    /// Returns the reason that is shown.
    pub fn reason(&self) -> String {
        let conditions = self.view.conditions.iter().map(|it| format!("{}={} {}", it.kind, it.status, it.message));
        let said = self.view.verdict.as_ref().map(|verdict| format!("{}: {}", verdict.kind, verdict.reason));
        said.into_iter().chain(conditions).collect::<Vec<_>>().join("; ")
    }
}
