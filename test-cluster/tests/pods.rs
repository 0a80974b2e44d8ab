//! Pods as a real Kubernetes runs them: what later tests rest on, shown once.
#![expect(clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wingbeat_test_cluster::cluster::processes_in;
use wingbeat_test_cluster::{Cluster, Options};

/// Time for something to come about; it takes a second or two, but a busy machine may be slow.
const PATIENCE: Duration = Duration::from_mins(2);

/// Returns the cluster of these tests and a namespace in it, with the calling thread in its network; nothing where no cluster
/// can be had.
async fn begin(test: &str) -> Option<(Arc<Cluster>, Namespace)> {
    let cluster = Cluster::for_test(test).await.expect("a cluster")?;
    cluster.enter().expect("its network");
    let name = test.trim_start_matches("real_kubernetes_").replace('_', "-");
    cluster.kubectl(&["create", "namespace", &name]).await.expect("a namespace");
    Some((cluster.clone(), Namespace { cluster, name }))
}

/// A namespace of a test.
struct Namespace {
    cluster: Arc<Cluster>,
    name: String,
}

impl Namespace {
    async fn kubectl(&self, args: &[&str]) -> String {
        let all = [&["--namespace", &self.name], args].concat();
        self.cluster.kubectl(&all).await.unwrap_or_else(|error| panic!("{error:#}\n{}", self.cluster.log("kubelet")))
    }

    async fn apply(&self, documents: &str) {
        let documents = documents.replace("NAMESPACE", &self.name);
        self.cluster.apply(&documents).await.expect("documents are applied");
    }

    /// Waits until a path of an object has this value.
    async fn until(&self, object: &str, path: &str, value: &str) {
        let condition = format!("--for=jsonpath={path}={value}");
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        self.kubectl(&["wait", object, &condition, &timeout]).await;
    }

    /// Returns what a path of objects is, word by word.
    async fn words(&self, objects: &[&str], path: &str) -> Vec<String> {
        let output = format!("--output=jsonpath={path}");
        let printed = self.kubectl(&[&["get"], objects, &[output.as_str()]].concat()).await;
        printed.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until words are what they should be.
    async fn reached(&self, what: &str, objects: &[&str], path: &str, holds: impl Fn(&[String]) -> bool) {
        let mut poll = tokio::time::interval(Duration::from_millis(100));
        let mut last = Vec::new();
        let wait = async {
            loop {
                poll.tick().await;
                last = self.words(objects, path).await;
                if holds(&last) {
                    return;
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, wait).await;
        ended.unwrap_or_else(|_| panic!("{what}: it never came about; last {last:?}"));
    }

    /// Starts two Pods of the web service, ready when they answer, and waits until they are. Returns their addresses.
    async fn web(&self) -> Vec<SocketAddr> {
        self.apply(WEB).await;
        self.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]).await;
        let addresses = self.words(&["pods", "--selector=app=web"], "{.items[*].status.podIP}").await;
        addresses.iter().map(|address| format!("{address}:8080").parse().expect("an address")).collect()
    }
}

/// Two Pods and their Service.
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NAMESPACE}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: wingbeat.test/web:1.4.0
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NAMESPACE}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
";

/// Where the slices of the Service say that requests may go.
const READY: &str = "{range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]}{\"\\n\"}{end}";

/// Returns what comes back, status line and headers with it.
async fn ask(address: SocketAddr, method: &str, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    let head = format!("{method} {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn real_kubernetes_pods_become_ready_and_answer_at_their_addresses() {
    let Some((cluster, namespace)) = begin("real_kubernetes_pods_become_ready_and_answer_at_their_addresses").await
    else {
        return;
    };
    let pods = namespace.web().await;
    assert_eq!(pods.len(), 2);
    for pod in &pods {
        let version = ask(*pod, "GET", "/version").await.expect("it answers");
        assert!(version.starts_with("HTTP/1.1 200") && version.ends_with("\r\n\r\n1.4.0"), "{version}");
        let failed = ask(*pod, "GET", "/status/503").await.expect("it answers");
        assert!(failed.starts_with("HTTP/1.1 503") && failed.contains("x-revision: 1.4.0"), "{failed}");
        let late = ask(*pod, "GET", "/delay/0.01").await.expect("it answers");
        assert!(late.ends_with("{\"revision\":\"1.4.0\",\"status\":200}"), "{late}");
    }
    let mut addresses: Vec<String> = pods.iter().map(|pod| pod.ip().to_string()).collect();
    addresses.sort();
    let slices = ["endpointslices", "--selector=kubernetes.io/service-name=web"];
    namespace
        .reached("both are in the slice", &slices, READY, |ready| {
            let mut ready = ready.to_vec();
            ready.sort();
            ready == addresses
        })
        .await;
    let audit = cluster.audit().expect("an audit log");
    assert!(audit.count("kubelet/v1.36.3", "patch") > 0, "{:?}", audit.calls());
    assert!(audit.count("kube-controller-manager/v1.36.3", "create") > 0, "{:?}", audit.calls());
}

#[tokio::test]
async fn real_kubernetes_an_image_that_is_not_there_is_waited_for() {
    let Some((_, namespace)) = begin("real_kubernetes_an_image_that_is_not_there_is_waited_for").await else { return };
    let pods = namespace.web().await;
    namespace.kubectl(&["set", "image", "deployment/web", "web=wingbeat.test/never-there:1"]).await;
    let reasons = "{.items[*].status.containerStatuses[*].state.waiting.reason}";
    let selector = ["pods", "--selector=app=web"];
    namespace.reached("the pull backs off", &selector, reasons, |reasons| reasons == ["ImagePullBackOff"]).await;
    let events = ["events", "--field-selector=reason=Failed"];
    let messages = namespace.words(&events, "{.items[*].message}").await.join(" ");
    assert!(messages.contains("ErrImagePull") && messages.contains("not found"), "{messages}");
    // Those that were there stay, as many as the Deployment may not be without.
    for pod in pods {
        assert!(ask(pod, "GET", "/").await.expect("it answers").starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn real_kubernetes_a_container_that_exits_is_restarted_later_and_later() {
    let Some((_, namespace)) = begin("real_kubernetes_a_container_that_exits_is_restarted_later_and_later").await
    else {
        return;
    };
    namespace.web().await;
    namespace.kubectl(&["set", "image", "deployment/web", "web=wingbeat.test/crash-at-once:1"]).await;
    let reasons = "{.items[*].status.containerStatuses[*].state.waiting.reason}";
    let selector = ["pods", "--selector=app=web"];
    namespace.reached("the restart backs off", &selector, reasons, |reasons| reasons == ["CrashLoopBackOff"]).await;
    let ends = "{.items[*].status.containerStatuses[*].lastState.terminated.exitCode}";
    assert_eq!(namespace.words(&selector, ends).await, ["1"]);
    let restarts = "{.items[*].status.containerStatuses[*].restartCount}";
    let restarts = namespace.words(&selector, restarts).await;
    assert!(restarts.iter().any(|count| count.parse::<u32>().is_ok_and(|count| count > 0)), "{restarts:?}");
}

/// A Pod that ends only when its hook has run and it has been told: both write down when.
const SLOW: &str = "
apiVersion: v1
kind: Pod
metadata: {name: slow, namespace: NAMESPACE, labels: {app: slow}}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: slow
    image: wingbeat.test/web:1
    command: [sh, -c, 'trap \"echo told; sleep 1; echo done; exit 0\" TERM; echo began; while :; do sleep 0.05; done']
    lifecycle:
      preStop: {sleep: {seconds: 2}}
---
apiVersion: v1
kind: Pod
metadata: {name: deaf, namespace: NAMESPACE}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: deaf
    image: wingbeat.test/web:1
    command: [sh, -c, 'trap \"\" TERM; while :; do sleep 0.05; done']
    lifecycle:
      preStop: {exec: {command: [sh, -c, 'echo hook']}}
";

#[tokio::test]
async fn real_kubernetes_deletion_honours_grace_and_hooks() {
    let Some((cluster, namespace)) = begin("real_kubernetes_deletion_honours_grace_and_hooks").await else { return };
    namespace.apply(SLOW).await;
    for pod in ["pod/slow", "pod/deaf"] {
        namespace.until(pod, "{.status.phase}", "Running").await;
    }
    let log = |args: &'static [&'static str]| {
        let mut command = cluster.command(cluster.binaries().folder().join("kubectl"));
        command.args(["--namespace", &namespace.name, "logs", "slow"]).args(args);
        command
    };
    let begun = log(&[]).output().await.expect("kubectl runs");
    assert_eq!(String::from_utf8_lossy(&begun.stdout), "began\n", "{begun:?}");
    let follow = log(&["--follow"]).output();
    let delete = async {
        let started = tokio::time::Instant::now();
        namespace.kubectl(&["delete", "pod", "slow", "--timeout=60s"]).await;
        started.elapsed()
    };
    let (followed, took) = tokio::join!(follow, delete);
    // Two seconds of the hook, one of its own.
    assert!(took >= Duration::from_secs(3), "{took:?}");
    let followed = followed.expect("kubectl runs");
    assert_eq!(String::from_utf8_lossy(&followed.stdout), "began\ntold\ndone\n", "{followed:?}");
    // Whoever does not end when told is killed when its time is over.
    let started = tokio::time::Instant::now();
    namespace.kubectl(&["delete", "pod", "deaf", "--timeout=60s"]).await;
    let took = started.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(30)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn real_kubernetes_who_is_not_ready_leaves_the_slice() {
    let Some((_, namespace)) = begin("real_kubernetes_who_is_not_ready_leaves_the_slice").await else { return };
    let pods = namespace.web().await;
    let [first, second] = pods.as_slice() else { panic!("two Pods, not {pods:?}") };
    let slices = ["endpointslices", "--selector=kubernetes.io/service-name=web"];
    namespace.reached("both are in the slice", &slices, READY, |ready| ready.len() == 2).await;
    ask(*first, "POST", "/healthz/503").await.expect("it answers");
    let other = second.ip().to_string();
    namespace.reached("one is in the slice", &slices, READY, |ready| ready == [other.as_str()]).await;
    assert!(ask(*first, "GET", "/").await.expect("it answers").starts_with("HTTP/1.1 200"), "it still answers");
    ask(*first, "POST", "/healthz/200").await.expect("it answers");
    namespace.reached("both are in the slice again", &slices, READY, |ready| ready.len() == 2).await;
}

#[tokio::test]
async fn real_kubernetes_a_service_account_does_what_its_role_says() {
    let Some((cluster, namespace)) = begin("real_kubernetes_a_service_account_does_what_its_role_says").await else {
        return;
    };
    namespace.kubectl(&["create", "serviceaccount", "reader"]).await;
    namespace.kubectl(&["create", "role", "reader", "--verb=list", "--resource=pods"]).await;
    let account = format!("--serviceaccount={}:reader", namespace.name);
    namespace.kubectl(&["create", "rolebinding", "reader", "--role=reader", &account]).await;
    let kubeconfig = cluster.kubeconfig_of(&namespace.name, "reader").await.expect("a token");
    let before = cluster.audit().expect("an audit log");
    let list = async |resource: &str| {
        let mut kubectl = cluster.command(cluster.binaries().folder().join("kubectl"));
        kubectl.env("KUBECONFIG", &kubeconfig).args(["--namespace", &namespace.name, "get", resource]);
        kubectl.output().await.expect("kubectl runs")
    };
    assert!(list("pods").await.status.success());
    let refused = list("secrets").await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Forbidden"), "{refused:?}");
    let audit = cluster.audit().expect("an audit log").since(&before);
    let secrets = audit.calls().iter().find(|(call, _)| call.verb == "list" && call.resource == "secrets");
    assert!(secrets.is_some_and(|(call, _)| call.user_agent.starts_with("kubectl/")), "{:?}", audit.calls());
}

#[tokio::test]
async fn real_kubernetes_clusters_do_not_meet_and_leave_nothing() {
    let name = "real_kubernetes_clusters_do_not_meet_and_leave_nothing";
    let Some(shared) = Cluster::for_test(name).await.expect("a cluster") else { return };
    let other = Cluster::start(Options::default()).await.expect("a second cluster");
    let network = other.network().expect("a network");
    assert_ne!(shared.network().expect("a network"), network);
    // Same addresses, same ports; what is made in one is not in the other.
    other.kubectl(&["create", "namespace", "only-here"]).await.expect("a namespace");
    let absent = shared.kubectl(&["get", "namespace", "only-here"]).await.expect_err("it is not there");
    assert!(absent.to_string().contains("NotFound"), "{absent:#}");
    let pod = ["run", "web", "--image=wingbeat.test/web:2"];
    other.kubectl(&pod).await.expect("a Pod");
    let ready = ["wait", "pod/web", "--for=condition=Ready", "--timeout=120s"];
    other.kubectl(&ready).await.expect("it is ready");
    let address = other.kubectl(&["get", "pod", "web", "--output=jsonpath={.status.podIP}"]).await.expect("a Pod");
    let address: SocketAddr = format!("{address}:8080").parse().expect("an address");
    other.enter().expect("its network");
    assert!(ask(address, "GET", "/version").await.expect("it answers").ends_with("\r\n\r\n2"));

    // This thread has gone into the network itself, and is no process.
    let folder = other.kubeconfig().parent().expect("a folder").to_owned();
    let processes = other.processes().expect("it runs");
    assert!(processes.len() >= 5, "etcd, API server, controller manager, kubelet, a container: {processes:?}");
    other.stop().expect("it ends");
    assert_eq!(processes_in(&network).expect("/proc"), Vec::<u32>::new());
    assert!(processes.iter().all(|id| !std::path::Path::new(&format!("/proc/{id}")).exists()), "{processes:?}");
    assert!(!folder.exists(), "{}", folder.display());
    shared.kubectl(&["get", "nodes"]).await.expect("the other one is still there");
}
