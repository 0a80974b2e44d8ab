//! A cluster, a controller and an Envoy with a filter, on a clock that only the test moves.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wingbeat_api::desired_state::{Change, DesiredState};
use wingbeat_control::immediate::Immediate;
use wingbeat_control::store::Store as _;
use wingbeat_control::store::memory::Memory;
use wingbeat_controller::verb::{Refusal, Verb};
use wingbeat_core::id::CanaryName;
use wingbeat_core::outcome::Outcome as Response;
use wingbeat_core::rollout::Command;
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_kubernetes::desire::Settings;
use wingbeat_kubernetes::reconcile::{Commanded, Reconciler};
use wingbeat_kubernetes::world::Kind;
use wingbeat_proto::v1::{ClusterReport, Count, ReportRequest};
use wingbeat_xds_server::client_event::{ClientEvent, ClientEventKind};
use wingbeat_xds_server::model::{ServedHost, Split};

use crate::api_server::{ApiServer, image, merge, observed};

/// What a round is made of.
pub(crate) const TICK: Span = Span::from_millis(100);

/// Where in a round the controller dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Before anything was written, or after so many writes.
    Writes(usize),
    /// After the engine stored a step, and before anybody is told.
    Engine,
}

pub(crate) struct Cluster {
    pub(crate) api: ApiServer,
    pub(crate) reconciler: Reconciler,
    pub(crate) settings: Settings,
    pub(crate) engine: Immediate,
    store: Memory,
    pub(crate) now: Timestamp,
    configured: bool,
    pub(crate) hosts: BTreeMap<String, ServedHost>,
    /// What requests to a canary with this in its image come to: errors of so many in ten.
    pub(crate) errors: u64,
    counts: BTreeMap<String, (u64, u64)>,
    epoch: u64,
    sequence: u64,
    boot: u64,
    /// Phases and weights that the routes went through.
    pub(crate) weights: Vec<u16>,
    pub(crate) rounds: usize,
    pub(crate) crash: Option<(usize, Crash)>,
    pub(crate) due: Option<Timestamp>,
    /// The ids of commands that were given.
    pub(crate) commands: Vec<String>,
    /// Pods are lost, so that requests may have nowhere to go.
    pub(crate) skips_checks: bool,
    /// Nothing is stored any more: what is in the objects stays there.
    pub(crate) freezes_states: bool,
}

pub(crate) fn name() -> CanaryName {
    CanaryName::new("prod", "backend")
}

pub(crate) fn target(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "backend", "namespace": "prod"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "backend"}},
            "template": {
                "metadata": {"labels": {"app": "backend"}},
                "spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 9898}]}]},
            },
        },
    })
}

pub(crate) fn canary() -> Value {
    json!({
        "apiVersion": "wingbeat.dev/v1alpha1", "kind": "Canary",
        "metadata": {"name": "backend", "namespace": "prod"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "backend"},
            "progressDeadlineSeconds": 60,
            "service": {"port": 9898},
            "analysis": {"interval": "1s", "threshold": 3, "stepWeight": 10, "maxWeight": 50, "judge": {"mode": "guard"}},
        },
    })
}

impl Cluster {
    /// Returns a cluster with a Listener and nothing else.
    pub(crate) fn new() -> Self {
        let mut api = ApiServer::default();
        let listener = json!({
            "apiVersion": "wingbeat.dev/v1alpha1", "kind": "Listener",
            "spec": {"address": "0.0.0.0", "port": 8080, "default": true},
        });
        api.edit(Kind::Listener, "public", |it| merge(it, &listener));
        let store = Memory::default();
        let mut cluster = Self {
            api,
            reconciler: Reconciler::new(Settings::default()),
            settings: Settings::default(),
            engine: Immediate::open(Box::new(store.clone()), [1; 32]).unwrap(),
            store,
            now: Timestamp::from_millis(1_764_500_000_000),
            configured: false,
            hosts: BTreeMap::new(),
            errors: 0,
            counts: BTreeMap::new(),
            epoch: 0,
            sequence: 0,
            boot: 1,
            weights: Vec::new(),
            rounds: 0,
            crash: None,
            due: None,
            commands: Vec::new(),
            skips_checks: false,
            freezes_states: false,
        };
        cluster.connect();
        cluster
    }

    /// Returns a cluster with a canary that is at rest.
    pub(crate) fn initialized() -> Self {
        let mut cluster = Self::new();
        cluster.create();
        cluster.run_until(100, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
        cluster
    }

    /// Makes a Canary and its target.
    pub(crate) fn create(&mut self) {
        self.api.edit(Kind::Deployment, "backend", |it| merge(it, &target("app:1")));
        self.api.edit(Kind::Canary, "backend", |it| merge(it, &canary()));
    }

    pub(crate) fn set_image(&mut self, image: &str) {
        self.api.edit(Kind::Deployment, "backend", |it| {
            it["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        });
    }

    pub(crate) fn phase(&self) -> String {
        self.api.at(Kind::Canary, "backend", "/status/phase").as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn replicas(&self, name: &str) -> u64 {
        self.api.at(Kind::Deployment, name, "/spec/replicas").as_u64().unwrap_or(0)
    }

    pub(crate) fn image(&self, name: &str) -> String {
        self.api.get(Kind::Deployment, name).map(image).unwrap_or_default()
    }

    /// Runs until something holds, within so many rounds.
    #[track_caller]
    pub(crate) fn run_until(&mut self, rounds: usize, holds: impl Fn(&Self) -> bool) {
        for _ in 0..rounds {
            if holds(self) {
                return;
            }
            self.round();
        }
        assert!(
            holds(self),
            "phase {}, primary {}, {:#?}, {:#?}",
            self.phase(),
            self.image("backend-primary"),
            self.api.log,
            self.api.events
        );
    }

    pub(crate) fn run(&mut self, rounds: usize) {
        (0..rounds).for_each(|_| self.round());
    }

    /// A tenth of a second.
    pub(crate) fn round(&mut self) {
        self.rounds += 1;
        self.now = self.now.plus(TICK);
        let crash = self.crash.filter(|(round, _)| *round == self.rounds).map(|(_, crash)| crash);
        self.api.run_controllers();
        self.watch();
        let output = self.reconciler.poll(self.now);
        self.due = self.reconciler.next_due();
        self.configure(output.change);
        for read in &output.reads {
            let result = self.api.read(read);
            self.reconciler.read(&read.key, result, self.now);
        }
        for query in &output.pods {
            let pods = self.api.list(query);
            self.reconciler.pods(query, Ok(pods), self.now);
        }
        for Commanded { canary, verb, id } in output.commands {
            assert_eq!(verb, Verb::Abort, "no test gives another one");
            let answer = self.engine.command(&canary, Command::Abort, &id, self.now).map_err(Refusal::Conflict);
            self.commands.push(id);
            self.reconciler.answered(&canary, &answer, self.now);
        }
        for (place, write) in output.writes.iter().enumerate() {
            if crash == Some(Crash::Writes(place)) {
                return self.restart();
            }
            let outcome = self.api.carry_out(write);
            let is_silent = self.api.is_silent.is_some_and(|silent| self.api.log.last().is_some_and(|it| it == silent));
            if !is_silent {
                self.reconciler.written(&write.key(), outcome, self.now);
            }
        }
        if matches!(crash, Some(Crash::Writes(_))) {
            return self.restart();
        }
        self.traffic();
        self.engine.tick(self.now);
        self.serve();
        self.engine.tick(self.now);
        self.store_states();
        if crash == Some(Crash::Engine) {
            return self.restart();
        }
        for event in self.engine.take_retold().into_iter().chain(self.engine.take_events()) {
            self.reconciler.event(&event);
        }
        for (name, standing) in self.engine.standings() {
            self.reconciler.standing(&name, standing, self.now);
        }
        let _board = self.engine.status(true, self.now);
        for (name, conditions) in self.engine.route_blockers() {
            self.reconciler.route_blockers(&name, conditions, self.now);
        }
        self.check();
    }

    fn watch(&mut self) {
        for (key, object) in self.api.watch() {
            match object {
                Some(object) => self.reconciler.apply(key.kind, &object),
                None => self.reconciler.delete(&key),
            }
        }
    }

    fn configure(&mut self, mut change: Change) {
        if self.configured {
            return self.engine.apply_change(&mut change, usize::MAX, self.now);
        }
        self.configured = true;
        let canaries = change.canaries.into_iter();
        let desired = DesiredState {
            canaries: canaries.filter_map(|(name, it)| Some((name, it?.config.as_ref().clone()))).collect(),
            listeners: change.listeners.unwrap_or_default(),
            observed: change.observed,
            ..DesiredState::default()
        };
        self.engine.configure(desired, self.now);
        self.engine.stop_learning();
    }

    /// All that was stored is lost, and so is the controller.
    pub(crate) fn lose_state(&mut self) {
        self.api.delete(Kind::CanaryState, "backend");
        self.store = Memory::default();
        self.restart();
    }

    /// The controller is another process from now on: it knows what is stored.
    pub(crate) fn restart(&mut self) {
        self.engine = Immediate::open(Box::new(self.store.clone()), [2; 32]).unwrap();
        self.reconciler = Reconciler::new(self.settings.clone());
        self.configured = false;
        self.api.objects.iter().for_each(|(key, object)| self.reconciler.apply(key.kind, &observed(key, object)));
        self.connect();
    }

    /// Something happens to the Envoy.
    pub(crate) fn envoy(&mut self, what: ClientEventKind) {
        self.engine.observe(&ClientEvent { node: "edge-1".to_owned(), stream: 1, what }, self.now);
    }

    /// The Envoy takes configuration.
    pub(crate) fn connect(&mut self) {
        self.envoy(ClientEventKind::Connected { source: Some("10.0.0.1".to_owned()), node_cluster: String::new() });
    }

    /// What the engine stored is in the objects that it is stored in.
    fn store_states(&mut self) {
        if self.freezes_states {
            return;
        }
        for (key, record) in self.store.load().unwrap() {
            let Some((_, name)) = key.strip_prefix("canary/").and_then(|it| it.split_once('/')) else { continue };
            let record = String::from_utf8(record).unwrap();
            if self.api.at(Kind::CanaryState, name, "/status/record") != json!(record) {
                self.api.store(&CanaryName::new("prod", name), Some(&record));
            }
        }
    }

    fn serve(&mut self) {
        let Some(change) = self.engine.take_route_changes() else { return };
        for (name, host) in change.hosts {
            match host {
                Some(host) => drop(self.hosts.insert(name.to_string(), host.as_ref().clone())),
                None => drop(self.hosts.remove(&*name)),
            }
        }
        let weight = self.weight();
        if self.weights.last() != Some(&weight) {
            self.weights.push(weight);
        }
    }

    pub(crate) fn split(&self) -> Option<Split> {
        Some(self.hosts.get("prod\0backend")?.host.as_ref()?.split.clone())
    }

    /// Returns percent of requests that the canary gets.
    pub(crate) fn weight(&self) -> u16 {
        match self.split() {
            Some(Split::Weighted { weight, .. }) => weight.get() / 100,
            _ => 0,
        }
    }

    /// Returns the addresses that a cluster leads to.
    pub(crate) fn endpoints(&self, cluster: &str) -> Vec<String> {
        let clusters = self.hosts.get("prod\0backend").map(|it| it.clusters.as_slice()).unwrap_or_default();
        let found = clusters.iter().find(|it| it.name.as_str() == cluster);
        found.map(|it| it.endpoints.iter().map(|(host, _)| host.clone()).collect()).unwrap_or_default()
    }

    /// A hundred requests, reported by a filter as its policy says.
    fn traffic(&mut self) {
        let Some(Split::Weighted { primary, canary, weight, .. }) = self.split() else { return };
        let of_canary = u64::from(weight.get() / 100);
        for (cluster, requests, errors) in
            [(primary, 100 - of_canary, 0), (canary, of_canary, of_canary * self.errors / 10)]
        {
            let counts = self.counts.entry(cluster.to_string()).or_default();
            *counts = (counts.0 + requests, counts.1 + errors);
        }
        let asked =
            ReportRequest { node_id: "edge".into(), boot_id: self.boot, worker_id: 1, ..ReportRequest::default() };
        let first = ReportRequest { sequence: self.next(), ..asked.clone() };
        let reply = self.engine.report("edge", &first, self.now);
        let Some(policy) = reply.unwrap().policy else { return };
        let epoch = policy.clusters.first().map_or(0, |told| told.epoch);
        if epoch != self.epoch {
            // Counts of one rollout are never those of another.
            self.epoch = epoch;
            self.counts.clear();
        }
        let rev = self.hosts.get("prod\0backend").and_then(|it| it.host.as_ref()).map_or(0, |host| host.rev.get());
        let clusters = policy.clusters.iter().map(|told| {
            let (requests, errors) = self.counts.get(&told.cluster).copied().unwrap_or_default();
            let mut outcomes = vec![0; Response::ALL.len()];
            outcomes[Response::Success.index()] = requests - errors;
            outcomes[Response::ServerFault.index()] = errors;
            ClusterReport {
                cluster: told.cluster.clone(),
                started: requests,
                finished: requests,
                outcomes,
                latency: vec![Count { key: 700, count: requests }],
                rev,
                rev_started: requests,
                epoch: told.epoch,
                first_sequence: 1,
                ..ClusterReport::default()
            }
        });
        let clusters = clusters.collect();
        let request = ReportRequest { sequence: self.next(), clusters, policy_version: policy.version, ..asked };
        self.engine.report("edge", &request, self.now).unwrap();
    }

    fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// What holds at any time.
    fn check(&self) {
        if self.skips_checks {
            return;
        }
        match self.split() {
            Some(Split::Weighted { primary, canary, weight, .. }) => {
                assert_ne!(self.endpoints(primary.as_str()), Vec::<String>::new(), "requests have somewhere to go");
                if !weight.is_zero() {
                    assert_ne!(self.endpoints(canary.as_str()), Vec::<String>::new(), "requests have somewhere to go");
                }
            }
            Some(Split::Single(cluster)) => {
                assert_ne!(self.endpoints(cluster.as_str()), Vec::<String>::new(), "requests have somewhere to go");
            }
            Some(Split::Header { .. } | Split::Mirror { .. }) | None => {}
        }
    }
}
