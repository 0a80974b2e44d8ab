//! What a scene is played on: two revisions, a control plane, a real Envoy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use wingbeat_api::desired_state::{CanaryConfig, DesiredState, Service as Route, Targeting, Workload};
use wingbeat_control::engine::Engine;
use wingbeat_control::store::memory::Memory;
use wingbeat_control::view::CanaryView;
use wingbeat_controller::handle::Handle;
use wingbeat_controller::runtime::{Runtime, random};
use wingbeat_core::analysis::judge::{Comparison, JudgeConfig};
use wingbeat_core::id::{CanaryName, Revision};
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::rollout::{Plan, PlanInput};
use wingbeat_core::time::Span;
use wingbeat_core::weight::BasisPoints;
use wingbeat_xds_server::bootstrap::Bootstrap;
use wingbeat_xds_server::model::Listener;
use wingbeat_xds_server::model::http::HttpOptions;
use wingbeat_xds_server::model::traffic::{Front, TrafficPolicy};
use wingbeat_xds_server::publisher::Publisher as Snapshots;
use wingbeat_xds_server::server;

use crate::envoy::{Binary, Envoy};
use crate::names::{CANARY, HOST, NAME, NAMESPACE, PRIMARY};
use crate::port::Port;
use crate::scene::{Scenario, Scene};
use crate::service::{Behaviour, Service};
use crate::visitor;

/// The Listener that Envoy serves the service by.
const LISTENER: &str = "public";
/// Steps of an A/B test.
const ITERATIONS: i64 = 10;

/// Everything that a scene is played on. Dropping it ends all of it.
#[derive(Debug)]
pub struct Stage {
    entry: Port,
    primary: Service,
    canary: Service,
    runtime: Runtime,
    envoy: Envoy,
    _stop: oneshot::Sender<()>,
}

impl Stage {
    /// Starts both revisions, the control plane and Envoy; the primary serves.
    pub async fn build(scene: &Scene, binary: &Binary, filter: &'static [u8]) -> anyhow::Result<Self> {
        let healthy = Behaviour { error_share: scene.primary_errors, ..Behaviour::default() };
        let primary = Service::start(PRIMARY, scene.seed, healthy).await?;
        let from_start = scene.fault().filter(|_| scene.fault_after.is_zero());
        let canary = Service::start(CANARY, scene.seed ^ 1, from_start.unwrap_or_default()).await?;
        let entry = Port::hold()?;
        let control = TcpListener::bind(("127.0.0.1", 0)).await?;
        let control_address = control.local_addr()?;

        let mut memory = Memory::default();
        let engine = Engine::load(&mut memory, random()?)?;
        let snapshots = Snapshots::of(engine.lineage());
        let setup = desired_state(scene, PRIMARY, filter, entry.address(), [&primary, &canary])?;
        let runtime = Runtime::start(engine, Box::new(memory), setup, snapshots.clone())?;
        let (stop, stopped) = oneshot::channel::<()>();
        let intake = Arc::new(runtime.handle().clone());
        tokio::spawn(async move {
            let until = async {
                let _dropped = stopped.await;
            };
            if let Err(error) = server::serve(control, server::Security::default(), snapshots, intake, until).await {
                tracing::error!(%error, "the xDS server ended");
            }
        });
        let bootstrap = Bootstrap {
            node_id: "demo-envoy".to_owned(),
            node_cluster: "demo".to_owned(),
            host: control_address.ip().to_string(),
            port: control_address.port(),
            admin: None,
            delta: false,
            tls: None,
            authorization: None,
        };
        let envoy = binary.start(bootstrap.render(), entry.address()).await?;
        Ok(Self { entry, primary, canary, runtime, envoy, _stop: stop })
    }

    /// Returns where users connect.
    pub const fn entry(&self) -> SocketAddr {
        self.entry.address()
    }

    /// Returns the revision that serves at first.
    pub const fn primary(&self) -> &Service {
        &self.primary
    }

    /// Returns the new revision.
    pub const fn canary(&self) -> &Service {
        &self.canary
    }

    /// Returns the Envoy.
    pub const fn envoy(&self) -> &Envoy {
        &self.envoy
    }

    /// Returns the way to the control plane.
    pub const fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Returns what is shown of the canary.
    pub fn view(&self) -> Option<CanaryView> {
        let board = self.handle().status();
        board.canaries.get(&(NAMESPACE.to_owned(), NAME.to_owned())).map(|view| view.as_ref().clone())
    }

    /// Returns the setup that asks for this revision.
    pub fn desired_state(&self, scene: &Scene, revision: &str, filter: &'static [u8]) -> anyhow::Result<DesiredState> {
        desired_state(scene, revision, filter, self.entry(), [&self.primary, &self.canary])
    }
}

fn desired_state(
    scene: &Scene,
    revision: &str,
    filter: &'static [u8],
    entry: SocketAddr,
    [primary, canary]: [&Service; 2],
) -> anyhow::Result<DesiredState> {
    let name = CanaryName::new(NAMESPACE, NAME);
    let interval = match scene.scenario {
        Scenario::Promote => Span::from_millis(500),
        // So long the primary is measured before; its iterations are enough for the fault to meet one.
        Scenario::Ab => Span::from_secs(1),
        // Long enough that the fault meets the first step.
        Scenario::Errors | Scenario::Latency | Scenario::Hang | Scenario::Stall | Scenario::NoTraffic => {
            Span::from_secs(60)
        }
    };
    let by_rules = scene.scenario == Scenario::Ab;
    let weighted = (!by_rules).then(|| i64::from(scene.weight));
    let plan = Plan::try_new(&PlanInput {
        name: Some(name.clone()),
        target: NAME.to_owned(),
        interval: Some(interval),
        step_weight: weighted,
        max_weight: weighted.map(|weight| weight.max(50)),
        matches: by_rules,
        iterations: by_rules.then_some(ITERATIONS),
        ..PlanInput::default()
    })
    .map_err(complaint)?;
    let audience = if by_rules {
        let canary = Entries::try_new(&visitor::rules()).map_err(complaint)?;
        Targeting::Rules { rules: Rules { served: Entries::default(), canary }, holdback: BasisPoints::ZERO }
    } else {
        Targeting::Chance
    };
    let endpoint = |service: &Service| vec![(service.address().ip().to_string(), service.address().port())];
    let managed = CanaryConfig {
        plan,
        judge: JudgeConfig {
            comparison: if by_rules { Comparison::Absolute } else { Comparison::Randomised },
            ..JudgeConfig::default()
        },
        workload: Workload {
            revision: Revision::new(revision),
            revisions: BTreeMap::from([
                (Revision::new(PRIMARY), endpoint(primary)),
                (Revision::new(CANARY), endpoint(canary)),
            ]),
            http2: false,
        },
        service: Route {
            hosts: vec![HOST.to_owned()],
            listeners: vec![LISTENER.to_owned()],
            timeout: None,
            retries: None,
            http: HttpOptions::default(),
            traffic: TrafficPolicy::default(),
        },
        audience,
        hooks: Vec::new(),
        metric_providers: Vec::new(),
        alerts: Vec::new(),
    };
    Ok(DesiredState {
        canaries: BTreeMap::from([(name, managed)]),
        listeners: vec![Listener {
            name: LISTENER.to_owned(),
            address: entry.ip().to_string(),
            port: entry.port(),
            node_clusters: Vec::new(),
            access_log: None,
            front: Front::default(),
        }],
        filter: Some(Arc::from(filter)),
        ..DesiredState::default()
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn complaint(errors: Vec<impl ToString>) -> anyhow::Error {
    anyhow::anyhow!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}
