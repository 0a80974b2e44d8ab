//! A site that runs `wingbeat serve`: two revisions, their documents, an Envoy and users.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use wingbeat_demo::envoy::{Binary, DEFAULT_VERSION, Envoy};
use wingbeat_demo::load::{Load, LoadConfig};
use wingbeat_demo::port::Port;
use wingbeat_demo::service::{Behaviour, Service};
use wingbeat_demo::visitor::ANYONE;
use wingbeat_test_support::server::Server;
use wingbeat_xds_server::bootstrap::Bootstrap;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_wingbeat");

/// Starts the program over a folder with documents, state and recordings.
pub(crate) fn serve(folder: &Path, xds: SocketAddr) -> Server {
    serve_with(folder, xds, &[])
}

/// The same with more arguments.
pub(crate) fn serve_with(folder: &Path, xds: SocketAddr, more: &[&str]) -> Server {
    let (config, state, record) = (folder.join("canary.yaml"), folder.join("state"), folder.join("record"));
    let xds = xds.to_string();
    let args = ["--listen-xds", &xds, "--listen-http", "127.0.0.1:0", "--config"];
    let args = args.map(OsStr::new).into_iter().chain([
        config.as_os_str(),
        OsStr::new("--state"),
        state.as_os_str(),
        OsStr::new("--record"),
        record.as_os_str(),
    ]);
    Server::start(PROGRAM, args.chain(more.iter().map(OsStr::new)))
}

/// Two revisions, a folder with their documents, and users.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    analysis: &'static str,
    entry: Port,
    pub(crate) old: Service,
    pub(crate) new: Service,
}

impl Site {
    /// Starts both revisions; `analysis` is the canary's.
    pub(crate) async fn build(analysis: &'static str) -> Self {
        let old = Service::start("1", 1, Behaviour::default()).await.expect("a service");
        let new = Service::start("2", 2, Behaviour::default()).await.expect("a service");
        let folder = tempfile::tempdir().expect("a folder");
        let site = Self { folder, analysis, entry: Port::hold().expect("a port"), old, new };
        site.write("1");
        site
    }

    /// Asks for a revision. Editors replace files, and so does this.
    pub(crate) fn write(&self, revision: &str) {
        let analysis = self.analysis;
        let (old, new, port) = (self.old.address(), self.new.address(), self.entry.address().port());
        let text = format!(
            r#"
apiVersion: wingbeat.dev/v1alpha1
kind: Listener
metadata: {{name: public}}
spec: {{address: 127.0.0.1, port: {port}}}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Workload
metadata: {{name: backend, namespace: prod}}
spec:
  revision: "{revision}"
  revisions:
    "1": {{endpoints: ["{old}"]}}
    "2": {{endpoints: ["{new}"]}}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Canary
metadata: {{name: backend, namespace: prod}}
spec:
  targetRef: {{apiVersion: wingbeat.dev/v1alpha1, kind: Workload, name: backend}}
  service: {{port: 80, hosts: [backend.local], listeners: [public]}}
  analysis: {{{analysis}}}
"#
        );
        let (written, file) = (self.path().join("next"), self.path().join("canary.yaml"));
        std::fs::write(&written, text).expect("the file is written");
        std::fs::rename(written, file).expect("the file is replaced");
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Starts an Envoy that finds its control plane there.
    pub(crate) async fn envoy(&self, xds: SocketAddr) -> Envoy {
        self.envoy_that_says(xds, None).await
    }

    /// The same with something in `authorization`.
    pub(crate) async fn envoy_that_says(&self, xds: SocketAddr, authorization: Option<String>) -> Envoy {
        self.envoy_by(&Bootstrap { authorization, ..Self::bootstrap(xds) }).await
    }

    /// Starts an Envoy with this bootstrap.
    pub(crate) async fn envoy_by(&self, bootstrap: &Bootstrap) -> Envoy {
        let binary = Binary::locate(None, DEFAULT_VERSION, &|_: &str| {}).await.expect("an Envoy");
        binary.start(bootstrap.render(), self.entry.address()).await.expect("Envoy starts")
    }

    /// Returns the bootstrap of an Envoy that finds its control plane there.
    pub(crate) fn bootstrap(xds: SocketAddr) -> Bootstrap {
        Bootstrap {
            node_id: "edge-1".to_owned(),
            node_cluster: "edge".to_owned(),
            host: xds.ip().to_string(),
            port: xds.port(),
            admin: None,
            delta: false,
            tls: None,
            authorization: None,
        }
    }

    pub(crate) fn users(&self) -> Load {
        let host = "backend.local".to_owned();
        Load::start(LoadConfig { target: self.entry.address(), host, rate: 300, patience: None, visitors: ANYONE })
    }
}
