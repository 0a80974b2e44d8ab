//! The Helm chart: what it makes, what it refuses, and that it runs in a real Kubernetes.
#![expect(clippy::expect_used, reason = "tests")]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wingbeat_e2e::chart::{CHART, Charts, ENVOY, IMAGE, repository};
use wingbeat_e2e::gateway::beside;

/// All that the chart can make.
const EVERYTHING: &str = r#"
flaggerApi: true
leaderElection: {replicaCount: 2}
allowedHosts: [wingbeat.example.com, www.example.com]
tls: {extraNames: [wingbeat.example.com]}
service: {type: LoadBalancer, annotations: {example.com/of: service}}
serviceAccount: {annotations: {example.com/of: account}}
controlplane: {kubeconfig: {secretName: remote}}
image: {tag: "2", pullSecret: registry}
podAnnotations: {example.com/of: pod}
podLabels: {example.com/of: pod}
podPriorityClassName: system-cluster-critical
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: dedicated, operator: Exists}]
affinity: {nodeAffinity: {}}
env: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]
serviceMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
listener: {create: true}
meshProvider: envoy
gateway:
  enabled: true
  service: {annotations: {example.com/of: gateway}}
  podDisruptionBudget: {enabled: true, minAvailable: 50%}
  podAnnotations: {example.com/of: gateway}
  podLabels: {example.com/of: gateway}
  nodeSelector: {kubernetes.io/os: linux}
  tolerations: [{key: dedicated, operator: Exists}]
  affinity: {nodeAffinity: {}}
"#;

/// What is set, and what of it a refusal names.
const REFUSED: [(&str, &str); 18] = [
    ("imgae.tag=1", "additional properties 'imgae' not allowed"),
    ("tls.secret=wingbeat", "additional properties 'secret' not allowed"),
    ("leaderElection.replicaCount=0", "/leaderElection/replicaCount"),
    ("logFormat=xml", "/logFormat"),
    ("gateway.ports=8080", "/gateway/ports"),
    ("namespace=Prod", "/namespace"),
    ("slack.url=https://hooks.slack.com/x", "Write an AlertProvider of type slack"),
    ("msteams.url=https://example.com", "Write an AlertProvider of type msteams"),
    ("metricsServer=http://prometheus:9090", "Write a MetricTemplate"),
    ("meshProvider=istio", "istio is not supported yet"),
    ("leaderElection.enabled=false", "always holds a Lease"),
    ("podDisruptionBudget.enabled=true", "would hold up every drain"),
    ("noCrossNamespaceRefs=true", "value noCrossNamespaceRefs"),
    ("listener.create=true", "helm upgrade --reset-then-reuse-values --set listener.create=true"),
    ("state.persistence.enabled=true,leaderElection.replicaCount=2", "each replica needs its own"),
    ("tls.enabled=false,tls.secretName=mine", "value tls.secretName"),
    ("tls.clientCA.secretName=clients,gateway.enabled=true", "the chart's gateway has none"),
    ("tls.clientCA.nodes=a", "value tls.clientCA.nodes"),
];

#[tokio::test]
async fn real_kubernetes_chart_says_what_it_does_not_do() {
    let Some(charts) = Charts::start("real_kubernetes_chart_says_what_it_does_not_do").await else { return };
    charts.done(&["lint", "--strict", CHART]).await;
    for (values, why) in REFUSED {
        let refused = charts.template(&["--set", values]).await.refused;
        assert!(refused.as_ref().is_some_and(|text| text.contains(why)), "{values}: {refused:?}");
    }
}

#[tokio::test]
async fn real_kubernetes_chart_makes_what_the_api_server_takes() {
    let Some(charts) = Charts::start("real_kubernetes_chart_makes_what_the_api_server_takes").await else { return };
    charts.define_all().await;
    charts.kubectl(&["create", "namespace", "wingbeat"]).await;
    let all = charts.file("everything.yaml", EVERYTHING).display().to_string();
    let known = "--api-versions=wingbeat.dev/v1alpha1/Listener";
    let few =
        "crd.create=false,rbac.create=false,serviceAccount.create=false,token.secretName=mine,tls.secretName=mine";
    let cases: [(&str, &[&str]); 7] = [
        ("default", &[]),
        ("everything", &["--values", &all, known]),
        ("plain", &["--set", "tls.enabled=false,gateway.enabled=true"]),
        ("given", &["--set", few]),
        ("clients", &["--set", "tls.clientCA.secretName=clients,tls.clientCA.nodes=spiffe://example.com/edge edge-*"]),
        ("disk", &["--set", "state.persistence.enabled=true,state.persistence.storageClass=fast"]),
        ("namespace", &["--set", "namespace=default,securityContext.enabled=false"]),
    ];
    for (name, flags) in cases {
        let made = charts.template(flags).await;
        assert_eq!(made.refused, None, "{name}");
        let file = charts.file(&format!("{name}.made.yaml"), &made.text).display().to_string();
        // Fields that the API server does not know are errors.
        let apply = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--field-manager=helm"];
        let applied = charts.kubectl(&[&apply[..], &["--filename", &file]].concat()).await;
        assert!(applied.contains("deployment.apps/wingbeat serverside-applied"), "{name}: {applied}");
        let has = |object: &str| applied.contains(object);
        let is_all = name == "everything";
        for object in
            ["servicemonitor", "prometheusrule", "listener.wingbeat.dev/", "canaries.flagger.app", "poddisruption"]
        {
            assert_eq!(has(object), is_all, "{name}: {object}: {applied}");
        }
        assert_eq!(has("deployment.apps/wingbeat-gateway"), is_all || name == "plain", "{name}: {applied}");
        assert_eq!(has("secret/"), name != "given", "{name}: {applied}");
        assert_eq!(has("persistentvolumeclaim/wingbeat-state"), name == "disk", "{name}: {applied}");
    }
}

/// Who installs by kustomize may do what who installs by Helm may, and nothing else.
#[tokio::test]
async fn real_kubernetes_chart_is_as_the_kustomization() {
    let Some(charts) = Charts::start("real_kubernetes_chart_is_as_the_kustomization").await else { return };
    let made = charts.template(&["--set", "flaggerApi=true", "--show-only", "templates/rbac.yaml"]).await;
    assert_eq!(made.refused, None);
    let made = charts.file("rbac.yaml", &made.text);
    let (ours, kustomized) =
        (charts.objects(&made).await, charts.objects(&repository("deploy/kustomize/rbac.yaml")).await);
    let described = |objects: &[Value]| {
        let mut all: Vec<String> = objects
            .iter()
            .map(|object| {
                let name = object.pointer("/metadata/name");
                let of = ["kind", "rules", "roleRef", "subjects"].map(|field| object.get(field));
                json!({"name": name, "of": of}).to_string()
            })
            .collect();
        all.sort();
        all
    };
    assert_eq!(ours.len(), 5);
    assert_eq!(described(&ours), described(&kustomized));
    let container = async |file: std::path::PathBuf| {
        let object = charts
            .objects(&file)
            .await
            .into_iter()
            .find(|object| object["kind"] == "Deployment")
            .expect("a Deployment");
        let container = object.pointer("/spec/template/spec/containers/0").cloned().expect("a container");
        let of = ["args", "livenessProbe", "readinessProbe", "resources", "securityContext", "volumeMounts"];
        (object["spec"]["strategy"].clone(), of.map(|field| container[field].clone()))
    };
    let made = charts.template(&["--show-only", "templates/controller.yaml"]).await;
    let (made, ordered) = (charts.file("controller.yaml", &made.text), repository("deploy/kustomize/controller.yaml"));
    assert_eq!(container(made).await, container(ordered).await, "the same arguments, probes and rights");
    // Without Flagger's API, nothing of Flagger's.
    let made = charts.template(&["--show-only", "templates/rbac.yaml"]).await.text;
    assert!(!made.contains("flagger.app") && made.contains("canarystates"), "{made}");
}

/// Envoys of the chart have the bootstrap that `wingbeat bootstrap` prints.
#[tokio::test]
async fn real_kubernetes_chart_has_the_bootstrap_of_the_program() {
    let Some(charts) = Charts::start("real_kubernetes_chart_has_the_bootstrap_of_the_program").await else { return };
    for (is_tls, tls) in [(true, &["--tls-ca", "/etc/wingbeat/tls/ca.crt"][..]), (false, &[])] {
        let values = format!("gateway.enabled=true,gateway.cluster=edge,tls.enabled={is_tls}");
        let made = charts.template(&["--set", &values, "--show-only", "templates/gateway.yaml"]).await;
        assert_eq!(made.refused, None);
        let objects = charts.objects(&charts.file("gateway.yaml", &made.text)).await;
        let held = objects.iter().find_map(|object| object.pointer("/data/envoy.yaml")?.as_str()).expect("a bootstrap");
        let mut bootstrap = tokio::process::Command::new(beside("wingbeat"));
        bootstrap.args([
            "bootstrap",
            "--node=gateway",
            "--cluster=edge",
            "--xds=wingbeat.wingbeat.svc:18000",
            "--token",
        ]);
        let printed = bootstrap.args(tls).output().await.expect("the program runs");
        let parsed = |text: &str| {
            let documents = wingbeat_api::yaml::parse(text).unwrap_or_else(|error| panic!("{error:?}: {text}"));
            documents.first().expect("a document").to_json()
        };
        assert_eq!(parsed(held), parsed(&String::from_utf8_lossy(&printed.stdout)), "tls: {is_tls}");
    }
}

/// Where the chart's controllers and gateways run.
const NAMESPACE: &str = "wingbeat";
/// The Pods of the controller.
const CONTROLLER: &str = "--selector=app.kubernetes.io/component=controller";
/// Those of the gateway.
const GATEWAY: &str = "--selector=app.kubernetes.io/component=gateway";
/// Where a Listener of the test is: Pods of the cluster share a network.
const ENTRY: u16 = 8082;

/// A Deployment and its Canary.
const BACKEND: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: backend, namespace: prod}
spec:
  selector: {matchLabels: {app: backend}}
  template:
    metadata: {labels: {app: backend}}
    spec:
      containers:
      - name: web
        image: wingbeat.test/web:1.4.0
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Canary
metadata: {name: backend, namespace: prod}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: backend}
  service: {port: 80, targetPort: http, hosts: [backend.example.com]}
  analysis: {interval: 500ms, threshold: 3, stepWeight: 50, maxWeight: 50, judge: {mode: guard}}
";

/// Returns the two commands of README's section on Kubernetes, for the images of the test.
fn commands() -> [Vec<String>; 2] {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("\n## In Kubernetes\n").expect("the section");
    let block = section.split("```").nth(1).and_then(|block| block.strip_prefix("console\n")).expect("its commands");
    let here = [
        ("deploy/helm/wingbeat", CHART),
        ("registry.example.com/wingbeat", IMAGE),
        ("example.com/backend", "wingbeat.test/web"),
    ];
    let words = |line: &str| {
        let line = here.iter().fold(line.to_owned(), |line, (written, here)| line.replace(written, here));
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    };
    let programs: Vec<&str> = block.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(programs, ["helm", "kubectl"]);
    let commands: Vec<Vec<String>> = block.lines().map(words).collect();
    commands.try_into().expect("two commands")
}

#[tokio::test]
async fn real_kubernetes_chart_is_installed_upgraded_and_uninstalled() {
    let Some(charts) = Charts::start_alone("real_kubernetes_chart_is_installed_upgraded_and_uninstalled").await else {
        return;
    };
    charts.cluster.enter().expect("its network");
    // Nothing leads from a Service's address to a Pod here, also not from that of the API server.
    let server = "env[0].name=KUBERNETES_SERVICE_HOST,env[0].value=127.0.0.1,env[1].name=KUBERNETES_SERVICE_PORT";
    let port = "env[1].value=6443";
    let [install, set_image] = commands();
    let install: Vec<&str> = install.iter().map(String::as_str).collect();
    let notes = charts.done(&[&install[..], &["--set", server, "--set-string", port]].concat()).await;
    assert!(notes.contains("kind: Listener") && notes.contains("--xds wingbeat.wingbeat.svc:18000"), "{notes}");
    charts.wait(NAMESPACE, &["deployment/wingbeat", "--for=condition=Available"]).await;
    let (secrets, pod) = (secrets(&charts).await, names(&charts, CONTROLLER).await);
    assert_eq!((secrets.len(), pod.len()), (3, 1), "{pod:?}");

    // A Listener can be made now, and a gateway.
    charts.kubectl(&["create", "namespace", "prod"]).await;
    charts.cluster.apply(BACKEND).await.expect("objects are made");
    let entry = format!(
        "listener.create=true,listener.port={ENTRY},gateway.enabled=true,gateway.image.repository={ENVOY},\
         gateway.replicaCount=1,gateway.drainSeconds=1,gateway.ports[0].name=http,gateway.ports[0].port=80,\
         gateway.ports[0].targetPort={ENTRY}"
    );
    upgrade(&charts, &entry).await;
    charts.wait("prod", &["canary.wingbeat.dev/backend", "--for=jsonpath={.status.phase}=Initialized"]).await;
    assert_eq!(secrets, self::secrets(&charts).await, "an upgrade keeps certificates and token");
    assert_eq!(pod, names(&charts, CONTROLLER).await, "and does not start the controller anew");

    // There is no server of names: the gateway's Pods are told where the controller is.
    resolve(&charts).await;
    charts.wait(NAMESPACE, &["deployment/wingbeat-gateway", "--for=condition=Available"]).await;
    let answer = async || {
        let pods = charts.kubectl(&["--namespace", NAMESPACE, "get", "pods", GATEWAY, ADDRESSES]).await;
        let Some(pod) = pods.split_whitespace().next() else { return String::new() };
        ask(&format!("{pod}:{ENTRY}"), "backend.example.com").await.unwrap_or_default()
    };
    charts.reached(NAMESPACE, "users are answered", async || answer().await.ends_with("\r\n\r\n1.4.0")).await;
    charts.kubectl(&set_image.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let load = async || answer().await.ends_with("\r\n\r\n1.4.1") && phase(&charts).await == "Succeeded";
    charts.reached(NAMESPACE, "a release is promoted", load).await;

    // Another name needs another certificate, by the same CA, and the controller begins anew with it.
    upgrade(&charts, "tls.extraNames[0]=wingbeat.example.com").await;
    let is_other = async || {
        let now = names(&charts, CONTROLLER).await;
        now.len() == 1 && now != pod
    };
    charts.reached(NAMESPACE, "the controller is another one", is_other).await;
    charts.wait(NAMESPACE, &["deployment/wingbeat", "--for=condition=Available"]).await;
    let renewed = self::secrets(&charts).await;
    let differ: Vec<&String> =
        secrets.iter().zip(&renewed).filter(|(old, new)| old != new).map(|((name, _), _)| name).collect();
    assert_eq!(differ, ["wingbeat-tls"]);
    let ca =
        |secrets: &[(String, Value)]| secrets.iter().find_map(|(_, data)| data.get("ca.crt").cloned()).expect("a CA");
    assert_eq!(ca(&secrets), ca(&renewed));

    // One of two leads; when it goes, the other one does.
    upgrade(&charts, "leaderElection.replicaCount=2").await;
    charts.reached(NAMESPACE, "two replicas", async || names(&charts, CONTROLLER).await.len() == 2).await;
    let leader = ready(&charts).await;
    charts.kubectl(&["--namespace", NAMESPACE, "delete", "pod", &leader, "--wait=false"]).await;
    let follows = async || {
        let now = ready(&charts).await;
        !now.is_empty() && now != leader
    };
    charts.reached(NAMESPACE, "another one leads", follows).await;

    let finalizers = async || {
        let path = "--output=jsonpath={.metadata.finalizers}";
        charts.kubectl(&["--namespace=prod", "get", "canary.wingbeat.dev/backend", path]).await
    };
    assert!(finalizers().await.contains("wingbeat.dev/finalizer"));
    charts.done(&["uninstall", "wingbeat", "--namespace", NAMESPACE]).await;
    // Its Canaries are let go, and what serves belongs to nobody.
    assert_eq!(finalizers().await, "");
    let owners = "--output=jsonpath={.items[*].metadata.ownerReferences}";
    assert_eq!(charts.kubectl(&["--namespace=prod", "get", "deployments,services", owners]).await, "");
    let hooks = ["--namespace", NAMESPACE, "get", "jobs,roles,rolebindings", "--output=name"];
    assert_eq!(charts.kubectl(&hooks).await, "");
    let definitions = charts.kubectl(&["get", "customresourcedefinitions", "--output=name"]).await;
    for kind in ["canaries", "canarystates", "listeners", "metrictemplates", "alertproviders"] {
        assert!(definitions.contains(&format!("{kind}.wingbeat.dev")), "{kind} is missing in:\n{definitions}");
    }
    charts.kubectl(&["--namespace=prod", "get", "canary.wingbeat.dev/backend"]).await;
    assert_eq!(self::secrets(&charts).await, []);
    let roles = charts.kubectl(&["get", "clusterroles,clusterrolebindings", "--output=name"]).await;
    assert!(!roles.contains("wingbeat"), "{roles}");
}

/// Where Pods are.
const ADDRESSES: &str = "--output=jsonpath={.items[*].status.podIP}";

/// Upgrades to these values beside those that are in force.
async fn upgrade(charts: &Charts, values: &str) {
    let upgrade =
        ["upgrade", "wingbeat", CHART, "--namespace", NAMESPACE, "--reset-then-reuse-values", "--set", values];
    charts.done(&upgrade).await;
}

/// Returns the Secrets that the chart made, by name. Helm's own are of another type.
async fn secrets(charts: &Charts) -> Vec<(String, Value)> {
    let selector = "--selector=app.kubernetes.io/name=wingbeat";
    let list = charts.object(&["--namespace", NAMESPACE, "get", "secrets", selector]).await;
    let items = list.get("items").and_then(Value::as_array).expect("a list");
    let of = |item: &Value| {
        let name = item.pointer("/metadata/name").and_then(Value::as_str).expect("a name").to_owned();
        (name, item.get("data").cloned().unwrap_or_default())
    };
    items.iter().map(of).collect()
}

/// Returns the names of Pods that do not end.
async fn names(charts: &Charts, selector: &str) -> Vec<String> {
    let list = charts.object(&["--namespace", NAMESPACE, "get", "pods", selector]).await;
    let items = list.get("items").and_then(Value::as_array).expect("a list");
    let stays = items.iter().filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
    stays.filter_map(|pod| pod.pointer("/metadata/name")?.as_str().map(str::to_owned)).collect()
}

/// Returns the name of the controller's Pod that is ready, if one is.
async fn ready(charts: &Charts) -> String {
    let path = "--output=jsonpath={.items[?(@.status.containerStatuses[0].ready==true)].metadata.name}";
    charts.kubectl(&["--namespace", NAMESPACE, "get", "pods", CONTROLLER, path]).await
}

async fn phase(charts: &Charts) -> String {
    charts
        .kubectl(&["--namespace=prod", "get", "canary.wingbeat.dev/backend", "--output=jsonpath={.status.phase}"])
        .await
}

/// Has the gateway's Pods know the controller's name.
async fn resolve(charts: &Charts) {
    let address = charts.kubectl(&["--namespace", NAMESPACE, "get", "pods", CONTROLLER, ADDRESSES]).await;
    let alias = json!({"ip": address.trim(), "hostnames": ["wingbeat.wingbeat.svc"]});
    let patch = json!({"spec": {"template": {"spec": {"hostAliases": [alias]}}}}).to_string();
    charts.kubectl(&["--namespace", NAMESPACE, "patch", "deployment/wingbeat-gateway", "--patch", &patch]).await;
}

/// Returns what a host answers at an address.
async fn ask(address: &str, host: &str) -> std::io::Result<String> {
    let wait = async {
        let mut connection = TcpStream::connect(address).await?;
        let head = format!("GET /version HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await?
}
