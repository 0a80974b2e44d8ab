//! Everything under which a canary that fails every request was once not rolled back.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use wingbeat_benches::row;
use wingbeat_controller::verb::Verb;
use wingbeat_demo::visitor::ANYONE;
use wingbeat_e2e::control::free;
use wingbeat_e2e::fleet::Fleet;
use wingbeat_e2e::rollouts::{Ended, Fault, Host, Played, Spec};
use wingbeat_e2e::{PATIENCE, reached};

use crate::{BOUND, millis};

/// One step, long enough that the fault meets it.
const ONE_STEP: &str = "interval: 1m, stepWeight: 10, maxWeight: 50";
/// Requests a second where nothing else is said: 40 of them the canary's.
const RATE: u32 = 400;
/// Rollouts before the one that counts.
const EARLIER: u64 = 70;
/// A healthy canary is watched for so long.
const WATCHED: Duration = Duration::from_secs(6);
/// From the first share to the fault.
const HEALTHY_AT_FIRST: Duration = Duration::from_millis(800);
/// Requests that a canary fails while the control plane is away.
const FAILED_MEANWHILE: u64 = 60;
/// Attempts at one revision, each charged with its own failures only.
const ATTEMPTS: u64 = 3;
/// A revision name that is longer than what reports could hold.
const LONG_NAME: usize = 1_100;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) cells: u64,
    pub(crate) failed: u64,
    pub(crate) slowest: Option<Duration>,
}

/// Something under which a broken canary was once not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    AfterManyRollouts,
    BesideALostHost,
    AttemptAfterRestart,
    TwoLeave,
    TwoIdle,
    OneOfThreeCarries,
    Http2Status,
    Http2Reset,
    Http2Hang,
    GuardAtAQuarter,
    GuardAtHalf,
    Stall,
    Hang,
    Grpc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Broken,
    Healthy,
}

impl Cell {
    const ALL: [Self; 14] = [
        Self::AfterManyRollouts,
        Self::BesideALostHost,
        Self::AttemptAfterRestart,
        Self::TwoLeave,
        Self::TwoIdle,
        Self::OneOfThreeCarries,
        Self::Http2Status,
        Self::Http2Reset,
        Self::Http2Hang,
        Self::GuardAtAQuarter,
        Self::GuardAtHalf,
        Self::Stall,
        Self::Hang,
        Self::Grpc,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::AfterManyRollouts => "after 70 rollouts on one Envoy",
            Self::BesideALostHost => "an Envoy joins while the cluster of another host is refused",
            Self::AttemptAfterRestart => "attempt after attempt, each failed while the controller was away",
            Self::TwoLeave => "two of three Envoys leave as it breaks",
            Self::TwoIdle => "two of three Envoys fall idle as it breaks",
            Self::OneOfThreeCarries => "three Envoys at 300:2:2 requests a second",
            Self::Http2Status => "http2: true, plain 200 and 500",
            Self::Http2Reset => "http2: true, streams are reset",
            Self::Http2Hang => "http2: true, streams hang",
            Self::GuardAtAQuarter => "mode: guard without metrics, 25 and 50 %, 50 requests a second",
            Self::GuardAtHalf => "mode: guard without metrics, 50 %, 50 requests a second",
            Self::Stall => "answers begin and stop",
            Self::Hang => "answers do not begin",
            Self::Grpc => "http2: true, 200 with a gRPC status that blames the server",
        }
    }

    const fn fault(self) -> Fault {
        match self {
            Self::AfterManyRollouts
            | Self::BesideALostHost
            | Self::AttemptAfterRestart
            | Self::TwoLeave
            | Self::TwoIdle
            | Self::OneOfThreeCarries
            | Self::Http2Status
            | Self::GuardAtAQuarter
            | Self::GuardAtHalf => Fault::Status,
            Self::Http2Reset => Fault::Reset,
            Self::Http2Hang | Self::Hang => Fault::Hang,
            Self::Stall => Fault::Stall,
            Self::Grpc => Fault::Grpc,
        }
    }

    const fn analysis(self) -> &'static str {
        match self {
            Self::GuardAtAQuarter => "interval: 1s, stepWeight: 25, maxWeight: 50, judge: {mode: guard}",
            Self::GuardAtHalf => "interval: 1s, stepWeight: 50, maxWeight: 50, judge: {mode: guard}",
            Self::AfterManyRollouts
            | Self::BesideALostHost
            | Self::AttemptAfterRestart
            | Self::TwoLeave
            | Self::TwoIdle
            | Self::OneOfThreeCarries
            | Self::Http2Status
            | Self::Http2Reset
            | Self::Http2Hang
            | Self::Stall
            | Self::Hang
            | Self::Grpc => ONE_STEP,
        }
    }

    /// Requests a second by each Envoy.
    const fn rates(self) -> &'static [u32] {
        match self {
            Self::TwoLeave | Self::TwoIdle => &[300, 300, 300],
            Self::OneOfThreeCarries => &[300, 2, 2],
            // The first one was there before the other host was lost, and carries nothing.
            Self::BesideALostHost => &[0, RATE],
            Self::GuardAtAQuarter | Self::GuardAtHalf => &[50],
            Self::AfterManyRollouts
            | Self::AttemptAfterRestart
            | Self::Http2Status
            | Self::Http2Reset
            | Self::Http2Hang
            | Self::Stall
            | Self::Hang
            | Self::Grpc => &[RATE],
        }
    }

    fn spec(self) -> Spec {
        Spec {
            name: "backend".to_owned(),
            analysis: self.analysis().to_owned(),
            http2: matches!(self, Self::Http2Status | Self::Http2Reset | Self::Http2Hang | Self::Grpc),
            mirrored: false,
            fault: self.fault(),
            patience: None,
            visitors: ANYONE,
        }
    }

    /// Plays it. Returns what came of the canary, and how many requests of users were lost.
    async fn play(self, health: Health) -> anyhow::Result<(Played, u64)> {
        let rates = self.rates();
        let mut fleet = Fleet::start(rates.len()).await?;
        let mut host = Host::open(&fleet, self.spec()).await?;
        self.prepare(&mut fleet).await?;
        for (edge, rate) in rates.iter().enumerate() {
            fleet.join(edge).await?;
            host.load(&fleet, edge, *rate).await;
        }
        reached(|| host.primary().received_since_change() > 0).await;
        let began = self.begin(&mut fleet, &mut host, health).await?;
        let played = match health {
            Health::Broken => host.broken(&fleet, began).await?,
            Health::Healthy => host.healthy(&fleet, WATCHED).await?,
        };
        Ok((played, host.close(&fleet).await?))
    }

    /// What comes before the Envoys that carry users.
    async fn prepare(self, fleet: &mut Fleet) -> anyhow::Result<()> {
        if self == Self::BesideALostHost {
            fleet.join(0).await?;
            let lost = Spec { name: "lost".to_owned(), ..self.spec() };
            let _lost = Host::open(fleet, lost).await?;
            fleet.spoil("lost")?;
            reached(|| fleet.refusals() > 0).await;
        }
        Ok(())
    }

    /// Brings the rollout that counts under way, as far as the fault. Returns since when users have the canary.
    async fn begin(self, fleet: &mut Fleet, host: &mut Host, health: Health) -> anyhow::Result<Instant> {
        let (healthy, broken) = (self.fault().healthy(), self.fault().broken());
        match self {
            Self::AfterManyRollouts => {
                for number in 0..EARLIER {
                    host.begin(fleet, healthy).await?;
                    reached(|| host.canary().received_since_change() > 0).await;
                    host.end(fleet, if number % 2 == 0 { Verb::Promote } else { Verb::Abort }).await?;
                }
                let began = host.begin(fleet, healthy).await?;
                tokio::time::sleep(HEALTHY_AT_FIRST).await;
                Ok(began)
            }
            Self::AttemptAfterRestart => {
                let mut began = host.begin(fleet, healthy).await?;
                for _ in 0..ATTEMPTS {
                    reached(|| host.canary().received_since_change() > FAILED_MEANWHILE).await;
                    fleet.close();
                    host.canary().behave(broken);
                    reached(|| host.canary().received_since_change() > FAILED_MEANWHILE).await;
                    fleet.open().await?;
                    // Envoy takes its time to connect again, and serves what it has until then.
                    let failed = fleet.shows(host.name(), PATIENCE, |view| view.phase == "Failed").await;
                    failed.context("what failed while the controller was away counts when it is back")?;
                    reached(|| fleet.connected() == 1).await;
                    began = host.again(fleet, healthy).await?;
                }
                Ok(began)
            }
            Self::TwoLeave | Self::TwoIdle => {
                let began = host.begin(fleet, healthy).await?;
                reached(|| fleet.view(host.name()).is_some_and(|view| view.nodes.len() == 3)).await;
                tokio::time::sleep(3 * HEALTHY_AT_FIRST).await;
                for edge in 0..2 {
                    host.load(fleet, edge, 0).await;
                    if self == Self::TwoLeave {
                        fleet.leave(edge);
                    }
                }
                Ok(began)
            }
            // From the first request on.
            Self::GuardAtAQuarter | Self::GuardAtHalf => {
                host.begin(fleet, if health == Health::Broken { broken } else { healthy }).await
            }
            Self::BesideALostHost
            | Self::OneOfThreeCarries
            | Self::Http2Status
            | Self::Http2Reset
            | Self::Http2Hang
            | Self::Stall
            | Self::Hang
            | Self::Grpc => {
                let began = host.begin(fleet, healthy).await?;
                tokio::time::sleep(HEALTHY_AT_FIRST).await;
                Ok(began)
            }
        }
    }
}

/// Plays the cells whose names have this in them, or all.
pub(crate) async fn play(only: Option<&str>) -> anyhow::Result<Found> {
    let mut found = Found::default();
    for cell in Cell::ALL.into_iter().filter(|cell| only.is_none_or(|only| cell.name().contains(only))) {
        let (broken, lost) = cell.play(Health::Broken).await.with_context(|| cell.name())?;
        let (healthy, _) = cell.play(Health::Healthy).await.with_context(|| cell.name())?;
        let holds = broken.ended == Ended::RolledBack
            && broken.out.is_some_and(|out| out < BOUND)
            && healthy.ended != Ended::RolledBack
            && healthy.requests > 0;
        found.cells += 1;
        found.failed += u64::from(!holds);
        found.slowest = found.slowest.max(broken.out);
        let out = broken.out.map_or_else(|| format!("{:?}", broken.ended), |out| format!("{} ms", millis(out)));
        let figure = format!(
            "out after {out}, {} canary requests, {lost} lost; its twin: {:?}, {} requests",
            broken.requests, healthy.ended, healthy.requests
        );
        row(cell.name(), &figure, "< 3 s, never promoted; twin not rolled back", holds)?;
        if !holds {
            row("", &format!("broken: {}; healthy: {}", broken.reason(), healthy.reason()), "", holds)?;
        }
    }
    if only.is_none() {
        let holds = long_names().await?;
        found.cells += 1;
        found.failed += u64::from(!holds);
    }
    Ok(found)
}

/// A name that no report could hold is refused before it is served.
async fn long_names() -> anyhow::Result<bool> {
    let fleet = Fleet::start(1).await?;
    let program = std::env::current_exe()?.with_file_name("wingbeat");
    let folder = tempfile::tempdir()?;
    let mut said = Vec::new();
    for length in [LONG_NAME, 100] {
        let name = "1".repeat(length);
        let revisions = [(name.clone(), free().await)].into();
        let file = folder.path().join(format!("{length}.yaml"));
        let listener = "apiVersion: wingbeat.dev/v1alpha1\nkind: Listener\nmetadata: {name: edge-1}\nspec: {address: 127.0.0.1, port: 10000}\n---\n";
        std::fs::write(&file, format!("{listener}{}", fleet.document("backend", &name, &revisions, ONE_STEP, "")))?;
        let output =
            Command::new(&program).arg("check").arg(&file).output().context("wingbeat is built beside this")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        said.push((output.status.code(), text));
    }
    let refused = matches!(said.first(), Some((Some(2), text)) if text.contains("spec.revision"));
    let taken = matches!(said.get(1), Some((Some(0), _)));
    let codes: Vec<Option<i32>> = said.iter().map(|(code, _)| *code).collect();
    row(
        "wingbeat check: a revision name of 1,100 characters",
        &format!("exit codes {codes:?} for 1,100 and 100 characters"),
        "refused by its field; its twin is taken",
        refused && taken,
    )?;
    Ok(refused && taken)
}
