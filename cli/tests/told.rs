//! What `wingbeat serve` tells of what it does: in its log, to those who ask, and after a restart.
#![expect(clippy::expect_used, reason = "tests")]

use std::path::Path;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;
use wingbeat_test_support::server::{Server, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wingbeat");

fn documents(name: &str, revision: &str) -> String {
    format!(
        r#"apiVersion: wingbeat.dev/v1alpha1
kind: Workload
metadata: {{name: {name}, namespace: prod}}
spec:
  revision: "{revision}"
  revisions: {{"1": {{endpoints: ["127.0.0.1:9001"]}}, "2": {{endpoints: ["127.0.0.1:9002"]}}}}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Canary
metadata: {{name: {name}, namespace: prod}}
spec:
  targetRef: {{kind: Workload, name: {name}}}
  service: {{hosts: [{name}.local], listeners: [public]}}
  analysis: {{interval: 1s, stepWeight: 5}}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Listener
metadata: {{name: {name}}}
spec: {{address: 127.0.0.1, port: 10000}}
"#
    )
    .replace("listeners: [public]", &format!("listeners: [{name}]"))
}

/// Replaces a file, as editors do.
fn write(folder: &Path, name: &str, text: &str) {
    let next = folder.join("next");
    std::fs::write(&next, text).expect("the file is written");
    std::fs::rename(next, folder.join(name)).expect("the file is replaced");
}

fn serve(folder: &Path, more: &[&str]) -> Server {
    let (config, state) = (folder.display().to_string(), folder.join("state").display().to_string());
    let args = ["--listen-xds", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--config", &config, "--state", &state];
    Server::start(PROGRAM, args.iter().chain(more))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_file_is_shown_and_logged_and_holds_no_other_one_back() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "a.yaml", &documents("a", "1"));
    let other = documents("b", "1").replace("10000", "10001");
    write(folder.path(), "b.yaml", &other);
    let server = serve(folder.path(), &["--log-format", "json"]);
    until("both serve", || server.client(&["get"]).1.matches("Initialized").count() == 2).await;
    write(folder.path(), "a.yaml", &documents("a", "1").replace("a.local", "b.local:80"));
    until("the file is refused", || server.condition("Accepted").is_some()).await;
    let told = server.condition("Accepted").expect("it is there");
    assert!(told.contains("a.yaml:13:21: spec.service.hosts[0]: \"b.local:80\" has a port"), "{told}");
    let (code, described) = server.client(&["describe"]);
    assert!(code == Some(0) && described.contains("Refused Files") && described.contains("has a port"), "{described}");
    write(folder.path(), "b.yaml", &other.replace("revision: \"1\"", "revision: \"2\""));
    until("the other one goes on", || server.client(&["get"]).1.contains("Progressing")).await;
    write(folder.path(), "a.yaml", &documents("a", "1"));
    until("it is mended", || server.condition("Accepted").is_none()).await;

    let lines = server.said();
    let logged: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let says = |level: &str, text: &str| {
        let is_it = |line: &&Value| {
            let of = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
            of("level") == level && of("message").contains(text)
        };
        logged.iter().find(is_it).cloned()
    };
    for (level, text) in [
        ("INFO", "listening"),
        ("INFO", "file taken"),
        ("ERROR", "has a port"),
        ("WARN", "what was right before goes on"),
    ] {
        assert!(says(level, text).is_some(), "{level} {text} is not in\n{lines}");
    }
    let rollout = says("INFO", "New revision detected").expect("the rollout is logged");
    assert_eq!(
        (rollout.get("canary"), rollout.get("namespace")),
        (Some(&"b".into()), Some(&"prod".into())),
        "{rollout}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_there_after_a_kill_and_are_streamed() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "a.yaml", &documents("a", "1"));
    let server = serve(folder.path(), &[]);
    until("it serves", || server.phase() == "Initialized").await;
    write(folder.path(), "a.yaml", &documents("a", "2"));
    until("a rollout is on", || server.phase() == "Progressing").await;
    assert_eq!(server.client(&["pause", "prod/a"]).0, Some(0));
    // Whoever was answered finds it, however soon the server dies.
    drop(server);
    let server = serve(folder.path(), &[]);
    let (_, events) = server.client(&["events", "prod/a"]);
    for told in ["Initialization done! a.prod", "New revision detected! Scaling up a.prod", "Paused a.prod by command"]
    {
        assert_eq!(events.matches(told).count(), 1, "{told}:\n{events}");
    }

    let mut watching = std::process::Command::new(PROGRAM)
        .args(["events", "prod/a", "--follow", "--output", "json", "--server", &server.http])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let streamed = std::io::BufReader::new(watching.stdout.take().expect("standard output"));
    until("the server has its state", || server.client(&["resume", "prod/a"]).0 == Some(0)).await;
    let line = std::io::BufRead::lines(streamed)
        .map_while(Result::ok)
        .find(|line| line.contains("Resumed a.prod by command"))
        .expect("the event is streamed");
    let _ended = watching.kill();
    let _ended = watching.wait();
    let event: Value = serde_json::from_str(&line).expect("an object a line");
    for field in ["t", "type", "reason", "message", "namespace", "name"] {
        assert!(event.get(field).is_some_and(Value::is_string), "{field}: {line}");
    }
}

/// Says something to a port, and waits until it hangs up: what a peer said that is gone may never be read.
fn say(port: std::net::SocketAddr, bytes: &[u8]) {
    let mut peer = std::net::TcpStream::connect(port).expect("a connection");
    std::io::Write::write_all(&mut peer, bytes).expect("it is sent");
    peer.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a limit");
    let _reset = std::io::Read::read_to_end(&mut peer, &mut Vec::new());
}

/// Otherwise both ends look as if nobody were there.
#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_tls_to_a_port_in_plain_text_is_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "a.yaml", &documents("a", "1"));
    let server = serve(folder.path(), &[]);
    until("nobody is there", || server.condition("Connected").is_some_and(|why| why.contains("start one with"))).await;
    let hello = [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0];
    (0..20).for_each(|_| say(server.xds, &hello));
    let mend = "127.0.0.1: it speaks TLS to a port in plain text: start the server with --tls-cert and --tls-key";
    until("it is shown", || server.condition("Connected").is_some_and(|why| why.contains(mend))).await;
    let metrics = async || {
        let response = reqwest::get(format!("http://{}/metrics", server.http)).await.expect("an answer");
        response.text().await.expect("a text")
    };
    let counted = r#"wingbeat_refused_peers_total{cause="tls-mismatch"} 20"#;
    while !metrics().await.contains(counted) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(server.said().matches("speaks TLS to a port in plain text").count(), 1, "{}", server.said());
    let (code, said) = server.client(&["proxies"]);
    assert!(code == Some(0) && said.contains("No Envoy takes configuration"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_this_machine_http_is_served_over_tls_and_only_by_known_names() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "a.yaml", &documents("a", "1"));
    let names = ["127.0.0.1", "localhost"].map(str::to_owned);
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("a certificate");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("cert.pem"), cert.pem()).expect("a file");
    std::fs::write(path("key.pem"), signing_key.serialize_pem()).expect("a file");
    let (config, certificate, key) = (path("a.yaml"), path("cert.pem"), path("key.pem"));
    let args = ["--listen-xds", "127.0.0.1:0", "--listen-http", "0.0.0.0:0", "--config", &config];
    let server = Server::start(PROGRAM, args.iter().chain(&["--tls-cert", &certificate, "--tls-key", &key]));
    let port = server.http.rsplit(':').next().expect("a port");
    let trusted = reqwest::Certificate::from_pem(cert.pem().as_bytes()).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([trusted]).build().expect("a client");
    let at = |path: &str| format!("https://127.0.0.1:{port}{path}");
    let status = async |host: Option<&str>, path: &str| {
        let request = client.get(at(path));
        let request = host.into_iter().fold(request, |request, host| request.header("host", host));
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(status(None, "/api/v1/canaries").await, 200);
    assert_eq!(status(Some("evil.example"), "/api/v1/canaries").await, 421);
    assert!(reqwest::get(format!("http://127.0.0.1:{port}/healthz")).await.is_err(), "nothing in plain text");
    // Envoys that speak plain text are told of.
    say(server.xds, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let canary = async || {
        let response = client.get(at("/api/v1/canaries")).send().await.expect("an answer");
        response.text().await.expect("a text")
    };
    let told =
        "127.0.0.1: it speaks plain text to a port with TLS: let the peer speak TLS (wingbeat bootstrap --tls-ca";
    while !canary().await.contains(told) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(server.said().matches("speaks plain text to a port with TLS").count() >= 2, "each port: {}", server.said());
}
