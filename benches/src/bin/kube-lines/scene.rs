//! What a line begins with: a Deployment and its Canary, behind an Envoy, as tests have them but for what the line needs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::Instant;
use wingbeat_e2e::gateway::{Controller, Gateway, Log, Pod, Role, beside, enter, objects};
use wingbeat_test_cluster::Cluster;

/// The Canary, as kubectl is given it.
pub(crate) const CANARY: &str = "canaries.wingbeat.dev/backend";
/// Its target.
pub(crate) const TARGET: &str = "deployment/backend";
/// What is made for it.
pub(crate) const PRIMARY: &str = "deployment/backend-primary";
/// How many Pods each of them has.
pub(crate) const REPLICAS: usize = 2;
/// Requests of users a second.
pub(crate) const RATE: u32 = 1_000;
/// Time for what takes some seconds, or a minute where Pods are slow; a busy machine takes longer.
pub(crate) const PHASE: Duration = Duration::from_mins(4);
/// Users who have asked by then are answered within this time.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// The container of a Deployment.
const CONTAINER: &str = "/spec/template/spec/containers/0";
/// Has the Pods of a primary behave otherwise than those of its target, as environments say: they never answer, or they crash as
/// long as there is a file.
const SCRIPT: &str = r#"
case "$HOSTNAME" in *-primary-*)
  if [ -n "$NEVER_AS_PRIMARY" ]; then exec sleep 86400; fi
  if [ -n "$CRASHES_WITH" ]; then
    "$WEB" & web=$!
    while [ ! -e "$CRASHES_WITH" ] && kill -0 $web; do sleep 0.2; done
    exit 1
  fi;;
esac
exec "$WEB"
"#;

/// Objects that are not in a cluster yet.
#[derive(Debug)]
pub(crate) struct Scene {
    name: String,
    deployment: Value,
    canary: Value,
    more: Vec<Value>,
}

impl Scene {
    /// Returns those of tests, in a namespace of this name.
    pub(crate) fn new(name: &str, analysis: &Value) -> Self {
        let (deployment, canary) = (objects::deployment(name), objects::canary(name, analysis, name));
        Self { name: name.to_owned(), deployment, canary, more: Vec::new() }
    }

    /// Gives the Deployment a field of what is at a path.
    pub(crate) fn deployment(mut self, path: &str, field: &str, value: Value) -> anyhow::Result<Self> {
        put(&mut self.deployment, path, field, value)?;
        Ok(self)
    }

    /// Gives the Canary a field of what is at a path.
    pub(crate) fn canary(mut self, path: &str, field: &str, value: Value) -> anyhow::Result<Self> {
        put(&mut self.canary, path, field, value)?;
        Ok(self)
    }

    /// Has another object made before them.
    pub(crate) fn with(mut self, object: Value) -> Self {
        self.more.push(object);
        self
    }

    /// Has Pods that take this long to be ready.
    pub(crate) fn ready_after(self, time: Duration) -> anyhow::Result<Self> {
        let probe = format!("{CONTAINER}/readinessProbe");
        self.deployment(&probe, "initialDelaySeconds", json!(time.as_secs()))
    }

    /// Has Pods with these variables beside others.
    pub(crate) fn with_env(mut self, more: &[Value]) -> anyhow::Result<Self> {
        let env = self.deployment.pointer_mut(CONTAINER).and_then(|container| container.get_mut("env"));
        env.and_then(Value::as_array_mut).context("the container has an environment")?.extend_from_slice(more);
        Ok(self)
    }

    /// Has Pods of which those of the primary do what `NEVER_AS_PRIMARY` and `CRASHES_WITH` in their environment say.
    pub(crate) fn scripted(self) -> anyhow::Result<Self> {
        let web = json!({"name": "WEB", "value": beside("wingbeat-test-web").display().to_string()});
        self.with_env(&[web])?.deployment(CONTAINER, "command", json!(["sh", "-c", SCRIPT]))
    }

    /// Makes all of it, with a controller that keeps to the namespace. Its Canary is initialised, and its target has no Pods.
    pub(crate) async fn open(self, cluster: &Arc<Cluster>) -> Gateway {
        let role = Role::of_test(&self.name);
        prepare(cluster, &role).await;
        self.open_as(cluster, role).await
    }

    /// The same with a controller whose role is there.
    pub(crate) async fn open_as(self, cluster: &Arc<Cluster>, role: Role) -> Gateway {
        let log = Log::default();
        let controller = Controller::start(cluster, &role, Pod::make(), &log).await;
        let items = self.more.into_iter().chain([self.deployment, self.canary]).collect();
        let gateway = Gateway::of_objects(cluster.clone(), role, controller, log, items).await;
        gateway.until_phase("Initialized", PHASE).await;
        scaled_down(&gateway).await;
        gateway
    }
}

/// Installs definitions and a role.
pub(crate) async fn prepare(cluster: &Cluster, role: &Role) {
    enter(cluster).await;
    objects::install(cluster, &[]).await;
    objects::install_role(cluster, role).await;
}

/// Waits until the target has no Pods.
pub(crate) async fn scaled_down(gateway: &Gateway) {
    gateway.until_within("the target is scaled down", TARGET, "{.spec.replicas}", "0", PHASE).await;
}

/// Returns a Deployment of another name, with so many Pods, and its Canary.
pub(crate) fn small(namespace: &str, name: &str, replicas: usize, listener: &str) -> anyhow::Result<[Value; 2]> {
    let mut deployment = objects::deployment(namespace);
    put(&mut deployment, "/metadata", "name", json!(name))?;
    put(&mut deployment, "/metadata", "labels", json!({"is": "target"}))?;
    put(&mut deployment, "/spec", "replicas", json!(replicas))?;
    put(&mut deployment, "/spec/selector/matchLabels", "app", json!(name))?;
    put(&mut deployment, "/spec/template/metadata/labels", "app", json!(name))?;
    let analysis = json!({"interval": "1s", "threshold": 3, "stepWeights": [50], "judge": {"mode": "guard"}});
    let mut canary = objects::canary(namespace, &analysis, listener);
    put(&mut canary, "/metadata", "name", json!(name))?;
    put(&mut canary, "/spec/targetRef", "name", json!(name))?;
    Ok([deployment, canary])
}

/// Returns objects as a list of Kubernetes.
pub(crate) fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Gives an object a field of what is at a path.
pub(crate) fn put(object: &mut Value, path: &str, field: &str, value: Value) -> anyhow::Result<()> {
    let fields = object.pointer_mut(path).and_then(Value::as_object_mut);
    fields.with_context(|| format!("{path} has no fields"))?.insert(field.to_owned(), value);
    Ok(())
}

/// Changes the target's image, to this version of it.
pub(crate) async fn release(gateway: &Gateway, version: &str) {
    gateway.kubectl(&["set", "image", TARGET, &format!("web=wingbeat.test/web:{version}")]).await;
}

/// Returns seconds from one moment to another one, which are negative if that was before.
pub(crate) fn seconds(from: Instant, to: Instant) -> f64 {
    if to >= from { to.duration_since(from).as_secs_f64() } else { -from.duration_since(to).as_secs_f64() }
}
