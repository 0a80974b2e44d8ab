//! The Helm chart in a cluster: what people type, and what comes of it.
#![expect(clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION};
use wingbeat_test_cluster::cri::Images;
use wingbeat_test_cluster::{Cluster, Options};

use crate::gateway::beside;

/// Where the chart is.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/wingbeat");
/// The image that is the program.
pub const IMAGE: &str = "wingbeat.test/wingbeat";
/// The image that is Envoy.
pub const ENVOY: &str = "wingbeat.test/envoy";
/// Time for something to come about; it takes some seconds, but a busy machine may be slow.
const DEADLINE: Duration = Duration::from_mins(2);

/// What helm did.
#[derive(Debug)]
pub struct Ran {
    /// What it printed.
    pub text: String,
    /// What it complained about, if it failed.
    pub refused: Option<String>,
}

/// A cluster, and helm.
#[derive(Debug)]
pub struct Charts {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    helm: PathBuf,
    home: TempDir,
}

impl Charts {
    /// Returns one in the cluster that tests share; nothing where no cluster can be had.
    pub async fn start(test: &str) -> Option<Self> {
        Some(Self::of(Cluster::for_test(test).await.expect("a cluster")?).await)
    }

    /// Returns one in a cluster of this test alone, whose Pods have tokens, and where the images of the chart are there.
    pub async fn start_alone(test: &str) -> Option<Self> {
        let envoy = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
        let images = Images::default().with(IMAGE, beside("wingbeat")).with(ENVOY, envoy.path());
        let options = Options { images, has_account_tokens: true, ..Options::default() };
        Some(Self::of(Cluster::for_test_with(test, options).await.expect("a cluster")?).await)
    }

    async fn of(cluster: Arc<Cluster>) -> Self {
        let helm = cluster.binaries().helm().await.expect("helm");
        Self { cluster, helm, home: tempfile::tempdir().expect("a folder") }
    }

    /// Runs helm.
    pub async fn helm(&self, args: &[&str]) -> Ran {
        let home = |name: &str| self.home.path().join(name);
        let mut helm = self.cluster.command(&self.helm);
        helm.env("HELM_CACHE_HOME", home("cache")).env("HELM_CONFIG_HOME", home("config"));
        helm.env("HELM_DATA_HOME", home("data")).args(args);
        let output = helm.output().await.expect("helm runs");
        let said = || String::from_utf8_lossy(&output.stderr).into_owned();
        let refused = (!output.status.success()).then(said);
        Ran { text: String::from_utf8_lossy(&output.stdout).into_owned(), refused }
    }

    /// Runs helm to its success and returns what it printed.
    pub async fn done(&self, args: &[&str]) -> String {
        let Ran { text, refused } = self.helm(args).await;
        refused.map_or(text, |why| panic!("helm {}: {why}", args.join(" ")))
    }

    /// Returns what the chart makes with these flags.
    pub async fn template(&self, flags: &[&str]) -> Ran {
        self.helm(&[&["template", "wingbeat", CHART, "--namespace", "wingbeat"], flags].concat()).await
    }

    /// Writes documents into a file of this test.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// Runs kubectl to its success.
    pub async fn kubectl(&self, args: &[&str]) -> String {
        self.cluster.kubectl(args).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Returns an object, or a list of them.
    pub async fn object(&self, args: &[&str]) -> Value {
        let printed = self.kubectl(&[args, &["--output=json"]].concat()).await;
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
    }

    /// Returns the objects of a file, as kubectl reads it.
    pub async fn objects(&self, file: &Path) -> Vec<Value> {
        let file = file.display().to_string();
        let printed = self.kubectl(&["create", "--dry-run=client", "--output=json", "--filename", &file]).await;
        // They come one after another.
        let objects: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&printed).into_iter().collect();
        objects.unwrap_or_else(|error| panic!("{error}: {printed}"))
    }

    /// Returns what API server and kubelet say of the Pods of a namespace, and what the Pods say.
    pub async fn said(&self, namespace: &str) -> String {
        let mut said = self.kubectl(&["--namespace", namespace, "get", "pods,events", "--output=wide"]).await;
        let pods = self.kubectl(&["--namespace", namespace, "get", "pods", "--output=name"]).await;
        for pod in pods.lines() {
            let log = self.cluster.kubectl(&["--namespace", namespace, "logs", pod, "--tail=50"]).await;
            let log = log.unwrap_or_else(|error| format!("{error:#}"));
            said = [&said, "\n", pod, ":\n", &log].concat();
        }
        said
    }

    /// Waits for what `kubectl wait` waits for.
    pub async fn wait(&self, namespace: &str, args: &[&str]) {
        let timeout = format!("--timeout={}s", DEADLINE.as_secs());
        let all = [&["--namespace", namespace, "wait", timeout.as_str()], args].concat();
        if let Err(error) = self.cluster.kubectl(&all).await {
            panic!("{error:#}\n{}", self.said(namespace).await);
        }
    }

    /// Waits until something is what it should be.
    pub async fn reached(&self, namespace: &str, what: &str, holds: impl AsyncFn() -> bool) {
        let mut poll = tokio::time::interval(Duration::from_millis(100));
        let wait = async {
            while !holds().await {
                poll.tick().await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        assert!(waited.is_ok(), "{what}: it never came about\n{}", self.said(namespace).await);
    }

    /// Applies the definitions that the chart's objects need, of others in the least form, and waits until they are served.
    pub async fn define_all(&self) {
        let ours = self.template(&["--show-only", "templates/crds.yaml", "--set", "flaggerApi=true"]).await;
        let others = ["servicemonitors", "prometheusrules"].map(others_definition);
        self.cluster.apply(&ours.text).await.expect("our definitions");
        for definition in others {
            self.cluster.apply(&definition.to_string()).await.expect("others' definitions");
        }
        // Of one that has no conditions yet, `--for=condition` is an error.
        let established = r#"--for=jsonpath={.status.conditions[?(@.type=="Established")].status}=True"#;
        let wait = ["wait", established, "customresourcedefinitions", "--all", "--timeout=60s"];
        self.kubectl(&wait).await;
    }
}

/// Returns a definition of the Prometheus operator's that takes anything.
fn others_definition(plural: &str) -> Value {
    let kind = if plural == "servicemonitors" { "ServiceMonitor" } else { "PrometheusRule" };
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

/// Returns a file of the repository.
pub fn repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}
