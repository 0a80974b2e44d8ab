//! What the engine costs with many canaries: 10,000 of them are managed, 1,000 are in rollouts, and a worker of its own
//! reports on each of these ten times a second.
//!
//! The clock is virtual: what is measured is the CPU time that the engine's thread needs for a second of theirs, which
//! is the number of cores that it keeps busy.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use serde_json::json;
use wingbeat_api::desired_state::{CanaryConfig, DesiredState, Service, Targeting, Workload};
use wingbeat_benches::{print, quantile};
use wingbeat_control::immediate::Immediate;
use wingbeat_control::store::memory::Memory;
use wingbeat_core::analysis::judge::JudgeConfig;
use wingbeat_core::id::{CanaryName, Revision};
use wingbeat_core::matching::pattern::AUTOMATON_FORMAT;
use wingbeat_core::outcome::Outcome;
use wingbeat_core::rollout::{Command, Plan, PlanInput};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_proto::v1::{ClusterReport, Count, ReportRequest};
use wingbeat_xds_server::model::Listener;
use wingbeat_xds_server::model::http::HttpOptions;
use wingbeat_xds_server::model::traffic::{Front, TrafficPolicy};
use wingbeat_xds_server::publisher::Publisher;
use wingbeat_xds_server::render::Renderer;

const CANARIES: usize = 10_000;
const ROLLOUTS: usize = 1_000;
/// Virtual seconds: those that warm up, and those that are measured.
const WARM_UP: u64 = 2;
const SECONDS: u64 = 10;
/// The engine's thread takes what has come so often.
const ROUNDS_A_SECOND: u64 = 50;
/// Each canary is reported in every so-many-eth round.
const ROUNDS_A_REPORT: u64 = 5;
/// Requests of a report, of either arm.
const PRIMARY: u64 = 19;
const CANARY: u64 = 1;
/// Rollouts that are ended at last, one by one.
const ABORTS: usize = 20;

/// Returns the CPU time of this thread, in nanoseconds.
fn used() -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split(' ').next().context("schedstat is empty")?.parse()?)
}

/// Returns what something came to, and what it cost.
fn cost<T>(spent: &mut u64, f: impl FnOnce() -> T) -> anyhow::Result<T> {
    let before = used()?;
    let result = f();
    *spent += used()?.saturating_sub(before);
    Ok(result)
}

fn name(number: usize) -> CanaryName {
    CanaryName::new("prod", format!("canary-{number:05}"))
}

fn managed(number: usize, revision: &str) -> anyhow::Result<CanaryConfig> {
    let name = name(number);
    let plan = Plan::try_new(&PlanInput {
        name: Some(name.clone()),
        target: name.name.to_string(),
        interval: Some(Span::from_secs(2)),
        step_weight: Some(5),
        max_weight: Some(50),
        ..PlanInput::default()
    });
    let endpoints = |port| vec![("127.0.0.1".to_owned(), port)];
    Ok(CanaryConfig {
        plan: plan.ok().context("a plan")?,
        judge: JudgeConfig::default(),
        workload: Workload {
            revision: Revision::new(revision),
            revisions: BTreeMap::from([(Revision::new("1"), endpoints(1)), (Revision::new("2"), endpoints(2))]),
            http2: false,
        },
        service: Service {
            hosts: vec![format!("{}.local", name.name)],
            listeners: vec!["public".to_owned()],
            timeout: None,
            retries: None,
            http: HttpOptions::default(),
            traffic: TrafficPolicy::default(),
        },
        audience: Targeting::Chance,
        hooks: Vec::new(),
        metric_providers: Vec::new(),
        alerts: Vec::new(),
    })
}

/// Returns a setup in which the first so many ask for the new revision.
fn desired_state(canaries: usize, rolled_out: usize) -> anyhow::Result<DesiredState> {
    let canaries = (0..canaries).map(|number| {
        let revision = if number < rolled_out { "2" } else { "1" };
        Ok((name(number), managed(number, revision)?))
    });
    let listener = Listener {
        name: "public".to_owned(),
        address: "127.0.0.1".to_owned(),
        port: 1,
        node_clusters: Vec::new(),
        access_log: None,
        front: Front::default(),
    };
    Ok(DesiredState {
        canaries: canaries.collect::<anyhow::Result<_>>()?,
        listeners: vec![listener],
        ..DesiredState::default()
    })
}

/// Returns the report of a worker that has reported so often before and has this policy. Latencies differ a little, as
/// they do.
fn report(number: usize, sequence: u64, rev: u64, policy_version: u64) -> anyhow::Result<ReportRequest> {
    let cluster = |revision: &str, each: u64| {
        let requests = each * sequence;
        let mut outcomes = vec![0; Outcome::ALL.len()];
        if let Some(good) = outcomes.get_mut(Outcome::Success.index()) {
            *good = requests;
        }
        let latency = (0..each).map(|place| Count { key: 700 + u32::try_from(place).unwrap_or(0), count: sequence });
        ClusterReport {
            cluster: format!("prod/canary-{number:05}/{revision}"),
            started: requests,
            finished: requests,
            outcomes,
            latency: latency.collect(),
            rev,
            rev_started: each,
            ..ClusterReport::default()
        }
    };
    Ok(ReportRequest {
        node_id: format!("node-{number:05}"),
        boot_id: u64::try_from(number)? + 1,
        worker_id: 1,
        sequence,
        policy_version,
        automaton_format: AUTOMATON_FORMAT,
        clusters: vec![cluster("1", PRIMARY), cluster("2", CANARY)],
        ..ReportRequest::default()
    })
}

/// CPU time by what it was spent on, in nanoseconds.
#[derive(Default)]
struct Spent {
    reports: u64,
    ticks: u64,
    shown: u64,
}

fn main() -> anyhow::Result<()> {
    let args: Vec<usize> = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let (canaries, rollouts) = match args.as_slice() {
        [] => (CANARIES, ROLLOUTS),
        [canaries, rollouts] if rollouts <= canaries => (*canaries, *rollouts),
        _ => anyhow::bail!("usage: engine [CANARIES ROLLOUTS]"),
    };
    let mut engine = Immediate::open(Box::new(Memory::default()), [7; 32])?;
    let mut now = Timestamp::from_millis(1_000_000_000);
    let mut setting_up = 0;
    cost(&mut setting_up, || -> anyhow::Result<()> {
        engine.configure(desired_state(canaries, 0)?, now);
        engine.configure(desired_state(canaries, rollouts)?, now);
        engine.tick(now);
        Ok(())
    })??;
    let (snapshots, mut renderer) = (Publisher::default(), Renderer::default());
    let mut policies = vec![0; rollouts];
    let mut revs = Vec::new();
    let (mut spent, mut reports, mut ticks, mut new_policies) = (Spent::default(), 0_u64, 0_u64, 0_u64);
    for round in 0..(WARM_UP + SECONDS) * ROUNDS_A_SECOND {
        now = now.plus(Span::from_millis(1_000 / ROUNDS_A_SECOND));
        if round == WARM_UP * ROUNDS_A_SECOND {
            (spent, reports, ticks, new_policies) = (Spent::default(), 0, 0, 0);
        }
        let turn = usize::try_from(round % ROUNDS_A_REPORT)?;
        let requests = (turn..rollouts).step_by(usize::try_from(ROUNDS_A_REPORT)?);
        let requests = requests.map(|number| {
            let rev = revs.get(number).copied().unwrap_or_default();
            report(number, round / ROUNDS_A_REPORT + 1, rev, policies.get(number).copied().unwrap_or_default())
        });
        let requests: Vec<ReportRequest> = requests.collect::<anyhow::Result<_>>()?;
        let replies: Result<Vec<_>, _> = cost(&mut spent.reports, || {
            requests.iter().map(|request| engine.report(&request.node_id, request, now)).collect()
        })?;
        let places = policies.iter_mut().skip(turn).step_by(usize::try_from(ROUNDS_A_REPORT)?);
        for (reply, version) in replies.map_err(anyhow::Error::msg)?.into_iter().zip(places) {
            reports += 1;
            if let Some(policy) = reply.policy {
                new_policies += 1;
                *version = policy.version;
            }
        }
        cost(&mut spent.ticks, || engine.tick(now))?;
        ticks += 1;
        let board = cost(&mut spent.shown, || Arc::new(engine.status(true, now)))?;
        ensure!(board.canaries.size() == canaries, "all are shown");
        revs = board.canaries.values().take(rollouts).map(|canary| canary.rev).collect();
        engine.take_events();
        engine.alerts();
    }
    let board = engine.status(true, now);
    let going_on = board.canaries.values().filter(|canary| canary.phase == "Progressing").count();
    ensure!(going_on == rollouts, "{going_on} rollouts go on");
    // What is between the word that ends a rollout and the routes that every Envoy is to have.
    let mut aborts = Vec::new();
    let change = engine.take_route_changes().context("it was never served")?;
    snapshots.publish(renderer.render(change));
    for number in 0..ABORTS.min(rollouts) {
        let mut spent = 0;
        cost(&mut spent, || -> Result<(), String> {
            engine.command(&name(number), Command::Abort, "abort", now)?;
            let change = engine.take_route_changes().ok_or("an abort changes routes")?;
            snapshots.publish(renderer.render(change));
            Ok(())
        })?
        .map_err(anyhow::Error::msg)?;
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of minutes")]
        aborts.push(spent as f64 / 1e6);
    }
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of minutes")]
    let cores = |nanos: u64| nanos as f64 / 1e9 / SECONDS as f64;
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of minutes")]
    let micros_each = |nanos: u64, count: u64| nanos as f64 / 1e3 / count.max(1) as f64;
    Ok(print(&json!({
        "canaries": canaries,
        "rollouts": rollouts,
        "reports_a_second": reports / SECONDS,
        "report_us": micros_each(spent.reports, reports),
        "tick_us": micros_each(spent.ticks, ticks),
        "new_policies_a_second": new_policies / SECONDS,
        "abort_ms": quantile(&mut aborts, 0.5),
        "shown_us": micros_each(spent.shown, ticks),
        "set_up_ms": micros_each(setting_up, 1_000),
        "cores_reports": cores(spent.reports),
        "cores_ticks": cores(spent.ticks),
        "cores_shown": cores(spent.shown),
        "cores": cores(spent.reports + spent.ticks + spent.shown),
    }))?)
}
