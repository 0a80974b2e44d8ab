//! Canaries on trial: each with a host of its own, all behind one Envoy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wingbeat_api::desired_state::{CanaryConfig, DesiredState, Targeting};
use wingbeat_control::view::{ArmView, ArmsView, CanaryView};
use wingbeat_core::analysis::judge::{Comparison, JudgeConfig, Mode};
use wingbeat_core::id::{CanaryName, Revision};
use wingbeat_core::matching::request::Request;
use wingbeat_core::rollout::{Plan, PlanInput};
use wingbeat_core::time::Span;
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION, Envoy};
use wingbeat_demo::names::{CANARY, NAMESPACE, PRIMARY};
use wingbeat_demo::scene::{Scenario, Scene};
use wingbeat_demo::stage::Stage;
use wingbeat_xds_server::model::http::HttpOptions;
use wingbeat_xds_server::model::{AccessLog, Listener, Retries};

use crate::{Answer, PATIENCE, config, send};

/// A canary on trial. Nobody rolls it back, whatever it does.
#[derive(Debug, Clone)]
pub struct Test {
    /// Its name. Its host is this with `.local`.
    pub name: String,
    /// Who gets the canary.
    pub audience: Targeting,
    /// Where the revision is that serves, if it is not the demo's service.
    pub primary: Option<SocketAddr>,
    /// Where the new revision is, if it is not the demo's service.
    pub canary: Option<SocketAddr>,
    /// Longest time for a request.
    pub timeout: Option<Span>,
    /// How requests and responses are changed.
    pub http: HttpOptions,
    /// Retries by Envoy.
    pub retries: Option<Retries>,
    /// True if both revisions speak HTTP/2.
    pub http2: bool,
    /// Percent of the requests that the canary gets, where chance decides.
    pub weight: i64,
    /// True if there is no rollout: the primary serves.
    pub settled: bool,
}

/// An Envoy with canaries on trial.
#[derive(Debug)]
pub struct Lab {
    stage: Stage,
    setup: DesiredState,
}

/// Returns a scene to be changed.
pub fn scene(scenario: Scenario) -> Scene {
    Scene {
        scenario,
        rps: 400,
        weight: 50,
        canary_errors: 1.0,
        primary_errors: 0.0,
        latency: Duration::ZERO,
        patience: None,
        fault_after: Duration::from_millis(500),
        max_duration: Duration::from_mins(1),
        seed: 4,
        envoy: None,
    }
}

/// Returns the bytes of a request.
pub fn bytes(request: &Request, host: &str) -> Vec<u8> {
    let mut bytes = [&request.method[..], b" ", &request.path, b" HTTP/1.1\r\nconnection: close\r\nhost: "].concat();
    bytes.extend_from_slice(host.as_bytes());
    for (name, value) in &request.headers {
        bytes.extend_from_slice(&[b"\r\n", name.as_bytes(), b": ", value].concat());
    }
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes
}

/// Returns what a revision of the demo answers.
pub fn answered_by(revision: &str) -> Answer {
    Answer { status: Some(200), revision: Some(revision.to_owned()) }
}

impl Test {
    /// Returns a trial of the demo's new revision.
    pub fn new(name: &str, audience: Targeting) -> Self {
        Self {
            name: name.to_owned(),
            audience,
            primary: None,
            canary: None,
            timeout: None,
            http: HttpOptions::default(),
            retries: None,
            http2: false,
            weight: 50,
            settled: false,
        }
    }

    fn managed(&self, shared: &CanaryConfig) -> CanaryConfig {
        let by_rules = matches!(self.audience, Targeting::Rules { .. });
        let input = PlanInput {
            name: Some(CanaryName::new(NAMESPACE, self.name.as_str())),
            target: self.name.clone(),
            // The judge never lets a step end; by rules, one is measured before them.
            interval: Some(Span::from_millis(200)),
            step_weight: (!by_rules).then_some(self.weight),
            max_weight: (!by_rules).then_some(self.weight),
            matches: by_rules,
            iterations: by_rules.then_some(10),
            ..PlanInput::default()
        };
        let mut managed = CanaryConfig {
            plan: Plan::try_new(&input).expect("a plan"),
            judge: JudgeConfig { mode: Mode::Thresholds, comparison: Comparison::Absolute, ..JudgeConfig::default() },
            audience: self.audience.clone(),
            ..shared.clone()
        };
        managed.service.hosts = vec![format!("{}.local", self.name)];
        managed.service.timeout = self.timeout;
        managed.service.retries.clone_from(&self.retries);
        managed.service.http.clone_from(&self.http);
        managed.workload.http2 = self.http2;
        if self.settled {
            managed.workload.revision = Revision::new(PRIMARY);
        }
        for (revision, address) in [(PRIMARY, self.primary), (CANARY, self.canary)] {
            if let Some(address) = address {
                let endpoint = (address.ip().to_string(), address.port());
                managed.workload.revisions.insert(Revision::new(revision), vec![endpoint]);
            }
        }
        managed
    }
}

impl Lab {
    /// Starts an Envoy, rolls the canaries out, and waits until all workers know whom to mark; the test named in
    /// `probe` finds that out by its request, which has to reach the canary.
    pub async fn open(tests: &[Test], probe: (&str, &[u8])) -> Self {
        Self::open_logging(tests, probe, None).await
    }

    /// The same, with an access log.
    pub async fn open_logging(tests: &[Test], probe: (&str, &[u8]), log: Option<&AccessLog>) -> Self {
        let binary = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
        let scene = scene(Scenario::NoTraffic);
        let stage = Stage::build(&scene, &binary, wingbeat::FILTER).await.expect("a stage");
        let desired_state = |revision: &str| {
            let template = stage.desired_state(&scene, revision, wingbeat::FILTER).expect("a setup");
            let shared = template.canaries.values().next().expect("one").clone();
            let listeners = template.listeners.iter().cloned();
            let listeners = listeners.map(|listener| Listener { access_log: log.cloned(), ..listener }).collect();
            let managed =
                tests.iter().map(|test| (CanaryName::new(NAMESPACE, test.name.as_str()), test.managed(&shared)));
            DesiredState { canaries: managed.collect(), listeners, ..template }
        };
        stage.handle().configure(desired_state(PRIMARY)).expect("they are managed");
        // Of two setups that come at once the latter counts: there would be nothing to roll out.
        let mut boards = stage.handle().watch();
        let began = boards
            .wait_for(|board| tests.iter().all(|test| board.canaries.values().any(|view| view.name == test.name)));
        drop(tokio::time::timeout(PATIENCE, began).await.expect("they are managed in time").expect("a controller"));
        let setup = desired_state(CANARY);
        stage.handle().configure(setup.clone()).expect("they are managed");
        let lab = Self { stage, setup };
        // By time, not by number: what the workers learn comes on their tick, however fast the requests are.
        let probing = async {
            // Where rules decide, the primary is measured before; requests that match none will do.
            let mut waiting: Vec<&Test> = tests.iter().filter(|test| !test.settled).collect();
            while !waiting.is_empty() {
                for test in &waiting {
                    let host = &test.name;
                    let plain = format!("GET / HTTP/1.1\r\nhost: {host}.local\r\nconnection: close\r\n\r\n");
                    send(lab.entry(), plain.as_bytes()).await;
                }
                waiting.retain(|test| !lab.view(&test.name).is_some_and(|view| view.weight > 0.0));
            }
            while !lab.flows(probe.0) {
                send(lab.entry(), probe.1).await;
            }
        };
        let _late = tokio::time::timeout(PATIENCE, probing).await;
        assert!(lab.flows(probe.0), "{:?}", lab.view(probe.0));
        lab
    }

    /// Installs the filter or takes it away, and waits until Envoy has done so.
    pub async fn install(&self, filter: Option<&'static [u8]>) {
        let setup = DesiredState { filter: filter.map(Arc::from), ..self.setup.clone() };
        self.stage.handle().configure(setup).expect("they are managed");
        let installed =
            async { while self.config("dynamic_listeners").await.contains("config_discovery") != filter.is_some() {} };
        tokio::time::timeout(PATIENCE, installed).await.expect("Envoy takes the listener");
    }

    /// Returns what Envoy says of its configuration, as it is on the wire.
    pub async fn config(&self, resource: &str) -> String {
        config(self.envoy(), &format!("?resource={resource}")).await
    }

    /// Returns the Envoy.
    pub const fn envoy(&self) -> &Envoy {
        self.stage.envoy()
    }

    /// Returns where users connect.
    pub const fn entry(&self) -> SocketAddr {
        self.stage.entry()
    }

    /// Returns what was measured of a canary.
    pub fn canary(&self, name: &str) -> ArmView {
        self.arms(name).canary
    }

    /// Returns what was measured of both arms.
    pub fn arms(&self, name: &str) -> ArmsView {
        self.view(name).map(|view| view.measured()).unwrap_or_default()
    }

    fn flows(&self, name: &str) -> bool {
        self.view(name).and_then(|view| view.verdict.clone()).is_some_and(|verdict| verdict.kind != "no-data")
    }

    fn view(&self, name: &str) -> Option<Arc<CanaryView>> {
        let board = self.stage.handle().status();
        board.canaries.get(&(NAMESPACE.to_owned(), name.to_owned())).cloned()
    }
}
