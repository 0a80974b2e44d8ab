//! The backend of the gitops-istio guide, as it is written for Flagger, where `wingbeat controller --flagger-api` is in its place.

use std::process::Stdio;
use std::time::Duration;

use wingbeat_e2e::gateway::Gateway;

/// The backend as it was written in 2019, and as it is today.
const V1ALPHA3: &str = include_str!("../../kubernetes/tests/crds/guide-v1alpha3.yaml");
const V1BETA1: &str = include_str!("../../kubernetes/tests/crds/guide-v1beta1.yaml");
/// Where the guide has its load tester, which is a name in a cluster, and where this test has it.
const LOAD_TESTER: [&str; 2] = ["http://loadtester.prod/", "http://127.0.0.1:8099/"];
const BACKEND: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: backend, namespace: prod, labels: {app: backend}}
spec:
  replicas: 2
  selector: {matchLabels: {app: backend}}
  template:
    metadata: {labels: {app: backend}}
    spec:
      containers:
        - name: backend
          image: wingbeat.test/web:1.4.0
          ports: [{containerPort: 9898}]
          env: [{name: PORT, value: '9898'}]
          readinessProbe: {httpGet: {path: /healthz, port: 9898}, periodSeconds: 1}
          lifecycle: {preStop: {sleep: {seconds: 2}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: backend, namespace: prod}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: backend}
  minReplicas: 2
  maxReplicas: 4
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 99}}}]
---
";
const METRIC_TEMPLATES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: flagger.app/v1beta1
kind: MetricTemplate
metadata: {name: error-rate, namespace: istio-system}
spec: {provider: {type: prometheus, address: 'http://127.0.0.1:9'}, query: 'vector(0)'}
---
apiVersion: flagger.app/v1beta1
kind: MetricTemplate
metadata: {name: latency, namespace: istio-system}
spec: {provider: {type: prometheus, address: 'http://127.0.0.1:9'}, query: 'vector(0)'}
";
/// Requests a second: a twentieth of them in ten seconds is enough for a check.
const RATE: u32 = 200;
/// Ten steps of ten seconds, or ten checks that fail, on a busy machine, too.
const ROLLOUT: Duration = Duration::from_mins(4);

/// Returns the texts of events, the earliest first, but for those that tell which Pods are waited for.
async fn events(gateway: &Gateway) -> Vec<String> {
    let path = "--output=jsonpath={range .items[*]}{.eventTime} {.reportingController} {.note}\n{end}";
    let printed = gateway.kubectl(&["get", "events.events.k8s.io", "--sort-by=.eventTime", path]).await;
    let ours = printed.lines().filter_map(|line| line.split_once(" flagger ").map(|(_, note)| note.to_owned()));
    let ours = ours.filter(|note| !note.contains("not ready: waiting for rollout to finish"));
    // On a busy machine a look may come before enough of the requests.
    let ours = ours.filter(|note| !note.contains(" are too few for "));
    // How many requests it took is another number each time.
    ours.map(|note| note.split(" hard guard: ").next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn real_kubernetes_the_backend_of_the_guide_is_taken_over_as_it_is() {
    let documents = [BACKEND, &V1ALPHA3.replace(LOAD_TESTER[0], LOAD_TESTER[1])].concat();
    let test = "real_kubernetes_the_backend_of_the_guide_is_taken_over_as_it_is";
    let Some(gateway) = Gateway::flaggers(test, &documents).await else { return };
    let _load_tester = gateway
        .command("wingbeat-test-web")
        .env("POD_IP", "127.0.0.1")
        .env("PORT", "8099")
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    let names = gateway.kubectl(&["get", "canaries,deployments,hpa,services", "--output=name"]).await;
    assert_eq!(
        names.split_whitespace().collect::<Vec<_>>(),
        [
            "canary.flagger.app/backend",
            "deployment.apps/backend",
            "deployment.apps/backend-primary",
            "horizontalpodautoscaler.autoscaling/backend",
            "horizontalpodautoscaler.autoscaling/backend-primary",
            "service/backend",
            "service/backend-canary",
            "service/backend-primary",
        ]
    );
    let columns = gateway.kubectl(&["get", "canaries"]).await;
    let rows: Vec<Vec<&str>> = columns.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "STATUS", "WEIGHT", "LASTTRANSITIONTIME"], "{columns}");
    assert_eq!(rows[1][..3], ["backend", "Initialized", "0"], "{columns}");

    let users = gateway.users_at(RATE);
    gateway.kubectl(&["set", "image", "deployment/backend", "backend=wingbeat.test/web:1.4.1"]).await;
    gateway.until_phase("Progressing", ROLLOUT).await;
    gateway.until_phase("Succeeded", ROLLOUT).await;
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    let tally = users.tally();
    assert_eq!(tally.failed, [], "of {} requests\n{}", tally.finished, gateway.said());
    let promotion = events(&gateway).await;
    assert_eq!(promotion.join("\n"), include_str!("golden/guide-promotion.txt").trim_end());

    gateway.kubectl(&["set", "env", "deployment/backend", "STATUS=500"]).await;
    gateway.until_phase("Failed", ROLLOUT).await;
    let failed = users.tally().failed.len();
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    assert_eq!(users.stop(Duration::from_secs(5)).await.failed.len(), failed, "nobody failed after that");
    let rollback = events(&gateway).await.split_off(promotion.len());
    assert_eq!(rollback.join("\n"), include_str!("golden/guide-rollback.txt").trim_end());

    // The same as it is written today is the same Canary, and nothing is rolled out for that.
    gateway.apply(METRIC_TEMPLATES).await;
    gateway.apply(&V1BETA1.replace(LOAD_TESTER[0], LOAD_TESTER[1])).await;
    let generation = gateway.words("canary/backend", "{.metadata.generation}").await;
    gateway.until("it is read", "canary/backend", "{.status.observedGeneration}", &generation[0]).await;
    let accepted = r#"{.status.conditions[?(@.type=="Accepted")].status}"#;
    gateway.until("it is accepted", "canary/backend", accepted, "True").await;
    assert_eq!(gateway.words("canary/backend", "{.status.phase}").await, ["Failed"]);
}
