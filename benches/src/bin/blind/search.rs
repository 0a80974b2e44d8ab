//! A random search: spec, mode, fleet, history and fault are drawn, and each draw is a rollout through real Envoys.
//!
//! A round has some hosts on the same Envoys, each a draw of its own; what befalls control plane and Envoys is drawn for the
//! round. Envoys and control plane are kept from round to round. What is drawn is bounded where the statistics cannot
//! decide within three seconds by design:
//! - the canary has 30 to 40 requests of users a second, also of those Envoys that are left when some went: the hard guard
//!   needs about twenty failures, and a stalled answer is one after a second;
//! - who is held back has eight requests a second: that the primary works is known by these alone. Fourteen where answers
//!   stall, which is known only after one and a half seconds: with eight, and an equal half of them at each of two Envoys,
//!   the canary is out after some four seconds;
//! - of three Envoys either each carries a third, or one carries all but a few: where two have little, yet enough to have a
//!   say, the verdict waits until these few show the fault;
//! - where the control plane is restarted, the fault comes when all Envoys are connected again;
//! - a canary that breaks later does so three seconds before its promotion at the latest: a draw in which it took longer to
//!   bring the others under way is void; one that is broken from the beginning may have any interval;
//! - latency is left out: it takes no fixed number of requests.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use draw::{Draw, Earlier, Event, Health, Round};
use futures::future::try_join_all;
use rand::SeedableRng as _;
use rand_pcg::Pcg64Mcg;
use wingbeat_benches::{row, seed};
use wingbeat_controller::verb::Verb;
use wingbeat_demo::clock::now;
use wingbeat_demo::service::Behaviour;
use wingbeat_e2e::fleet::Fleet;
use wingbeat_e2e::reached;
use wingbeat_e2e::rollouts::{Ended, Host, Played};

use crate::{BOUND, millis};

mod draw;

/// Healthy canaries are watched for so long.
const WATCHED: Duration = Duration::from_secs(6);
/// Envoys at most.
const ENVOYS: usize = 3;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) seed: u64,
    pub(crate) draws: u64,
    pub(crate) broken: u64,
    pub(crate) healthy: u64,
    pub(crate) late: u64,
    pub(crate) promoted: u64,
    pub(crate) rolled_back: u64,
    /// Draws in which the canary was over before the fault, or nearly.
    pub(crate) void: u64,
    pub(crate) median: Option<Duration>,
    pub(crate) slowest: Option<Duration>,
}

/// Plays so many draws, in rounds.
pub(crate) async fn play(draws: u64) -> anyhow::Result<Found> {
    let mut number = seed()?;
    let mut found = Found { seed: number, ..Found::default() };
    if draws == 0 {
        return Ok(found);
    }
    let mut outs = Vec::new();
    let mut fleet = Fleet::start(ENVOYS).await?;
    while found.draws < draws {
        let round = Round::random(&mut Pcg64Mcg::seed_from_u64(number), number);
        let played = round.play(&mut fleet).await.with_context(|| format!("seed {number}: {round:?}"))?;
        for (draw, played) in round.draws.iter().zip(played) {
            found.take(&round, draw, played, &mut outs)?;
        }
        number += 1;
    }
    outs.sort_unstable();
    found.median = outs.get(outs.len() / 2).copied();
    found.slowest = outs.last().copied();
    Ok(found)
}

impl Found {
    fn take(
        &mut self,
        round: &Round,
        draw: &Draw,
        (played, lost): (Option<Played>, u64),
        outs: &mut Vec<Duration>,
    ) -> anyhow::Result<()> {
        let done = format!("seed {} {}", round.seed, draw.say(round));
        let Some(played) = played else {
            self.void += 1;
            row(&done, "over before the fault", "no bound", true)?;
            return Ok(());
        };
        self.draws += 1;
        let bound = match draw.health {
            Health::Healthy => "not rolled back",
            Health::Broken | Health::BrokenAtOnce => "< 3 s, never promoted",
        };
        let (figure, holds) = match (draw.health, played.ended, played.out) {
            (Health::Healthy, ended, _) => {
                self.healthy += 1;
                self.rolled_back += u64::from(ended == Ended::RolledBack);
                (format!("{ended:?}, {} canary requests", played.requests), ended != Ended::RolledBack)
            }
            (Health::Broken | Health::BrokenAtOnce, Ended::RolledBack, Some(out)) => {
                self.broken += 1;
                self.late += u64::from(out >= BOUND);
                outs.push(out);
                (format!("out after {} ms, {} canary requests, {lost} lost", millis(out), played.requests), out < BOUND)
            }
            (Health::Broken | Health::BrokenAtOnce, ended, _) => {
                self.broken += 1;
                self.late += 1;
                self.promoted += u64::from(ended == Ended::Promoted);
                (format!("{ended:?}, {} canary requests, {lost} lost", played.requests), false)
            }
        };
        row(&done, &figure, bound, holds)?;
        if !holds {
            row("", &played.reason(), "", holds)?;
        }
        Ok(())
    }
}

impl Round {
    /// Plays all draws of the round at a time. Nothing for a draw that was over before its fault.
    async fn play(&self, fleet: &mut Fleet) -> anyhow::Result<Vec<(Option<Played>, u64)>> {
        for edge in 0..ENVOYS {
            if edge < self.envoys - usize::from(self.event == Event::Join) {
                fleet.join(edge).await?;
            } else {
                fleet.leave(edge);
            }
        }
        reached(|| fleet.connected() == self.envoys - usize::from(self.event == Event::Join)).await;
        let here: &Fleet = fleet;
        // All begin at a time: else the first ones were over before the longest history is.
        let opened = self.draws.iter().map(|draw| draw.open(here, self));
        let hosts: Vec<Host> = try_join_all(opened).await?;
        let begun = self.draws.iter().zip(hosts).map(|(draw, host)| draw.begin_ahead(here, host));
        let mut hosts: Vec<(Host, Instant)> = try_join_all(begun).await?;
        self.happen(fleet, &mut hosts).await?;
        let here: &Fleet = fleet;
        let played = self.draws.iter().zip(hosts).map(|(draw, (host, began))| draw.finish(here, host, began));
        try_join_all(played).await
    }

    /// What befalls control plane and Envoys, in mid-rollout.
    async fn happen(&self, fleet: &mut Fleet, hosts: &mut [(Host, Instant)]) -> anyhow::Result<()> {
        let last = self.envoys - 1;
        match self.event {
            Event::Nothing => {}
            Event::Restart => {
                fleet.close();
                fleet.open().await?;
                reached(|| fleet.connected() == self.envoys && fleet.is_ready()).await;
            }
            Event::Leave | Event::Idle => {
                for ((host, _), draw) in hosts.iter_mut().zip(&self.draws) {
                    for edge in 0..self.envoys {
                        host.load(fleet, edge, draw.rate(self, edge, true)).await;
                    }
                }
                if self.event == Event::Leave {
                    fleet.leave(last);
                }
            }
            Event::Join => {
                fleet.join(last).await?;
                for ((host, _), draw) in hosts.iter_mut().zip(&self.draws) {
                    for edge in 0..self.envoys {
                        host.load(fleet, edge, draw.rate(self, edge, true)).await;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Draw {
    /// Has the host serve and lives through its history.
    async fn open(&self, fleet: &Fleet, round: &Round) -> anyhow::Result<Host> {
        let mut host = Host::open(fleet, self.spec()).await?;
        for edge in 0..round.envoys {
            host.load(fleet, edge, self.rate(round, edge, false)).await;
        }
        reached(|| host.primary().received_since_change() > 0).await;
        let (healthy, broken) = (self.fault.healthy(), self.fault.broken());
        for earlier in &self.earlier {
            match earlier {
                Earlier::Promoted | Earlier::Aborted => {
                    host.begin(fleet, healthy).await?;
                    reached(|| host.canary().received_since_change() > 0).await;
                    host.end(fleet, if *earlier == Earlier::Promoted { Verb::Promote } else { Verb::Abort }).await?;
                }
                Earlier::Failed => {
                    let began = host.begin(fleet, broken).await?;
                    let played = host.broken(fleet, began).await?;
                    ensure!(played.ended == Ended::RolledBack, "earlier: {}", played.reason());
                }
            }
        }
        Ok(host)
    }

    /// Brings the rollout that counts under way, unless its canary is broken from the beginning.
    async fn begin_ahead(&self, fleet: &Fleet, mut host: Host) -> anyhow::Result<(Host, Instant)> {
        let began = match self.health {
            Health::BrokenAtOnce => now(),
            Health::Healthy | Health::Broken => self.begin(fleet, &mut host, self.fault.healthy()).await?,
        };
        Ok((host, began))
    }

    async fn begin(&self, fleet: &Fleet, host: &mut Host, behaviour: Behaviour) -> anyhow::Result<Instant> {
        // The canary that failed last is mended and tried again.
        match self.earlier.last() {
            Some(Earlier::Failed) => host.again(fleet, behaviour).await,
            Some(Earlier::Promoted | Earlier::Aborted) | None => host.begin(fleet, behaviour).await,
        }
    }

    /// Breaks the canary if it is to break, and sees what comes of it.
    async fn finish(&self, fleet: &Fleet, mut host: Host, mut began: Instant) -> anyhow::Result<(Option<Played>, u64)> {
        let played = match self.health {
            Health::Healthy => Some(host.healthy(fleet, WATCHED).await?),
            Health::BrokenAtOnce => {
                began = self.begin(fleet, &mut host, self.fault.broken()).await?;
                Some(host.broken(fleet, began).await?)
            }
            Health::Broken => {
                tokio::time::sleep(self.after).await;
                // The promotion is nearer than it takes to see an answer that stalls.
                let over = began.elapsed() + BOUND > self.lasts();
                if over { None } else { Some(host.broken(fleet, began).await?) }
            }
        };
        Ok((played, host.close(fleet).await?))
    }
}
