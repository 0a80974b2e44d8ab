//! etcd, API server and controller manager: started in this order, ended in the other one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use crate::api::Api;
use crate::bind;
use crate::kubeconfig::{self, certificate};
use crate::namespace::NODE_ADDRESS;
use crate::options::{Controllers, Options};
use crate::process::Process;
use crate::wait::until;

/// Time for the API server to be ready; it takes two or three seconds, but a busy machine may be slow.
const API_SERVER_TIMEOUT: Duration = Duration::from_mins(2);
/// Time for the controllers to have begun. They do once the API server is ready.
const CONTROLLERS_TIMEOUT: Duration = Duration::from_mins(1);
/// Time for the admission policy to be in force. The API server reads it a moment after it was written.
const POLICY_TIMEOUT: Duration = Duration::from_mins(1);
/// Where etcd listens.
const ETCD: &str = "http://127.0.0.1:2379";
/// All but those that watch over nodes: the only one is there, or the test has a reason.
const CONTROLLERS: &str =
    "*,-nodeipam,-node-lifecycle-controller,-taint-eviction-controller,-pod-garbage-collector-controller";
/// The one that every namespace needs. The flag cannot be given twice to that end: the two lists would be joined.
const SERVICE_ACCOUNTS: &str = "serviceaccount-controller";

/// A running control plane.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    etcd: Process,
    api_server: Process,
    controller_manager: Option<Process>,
    restart: Restart,
}

/// What it takes to start etcd and the API server once more.
#[derive(Debug)]
struct Restart {
    binaries: PathBuf,
    logs: PathBuf,
    etcd_flags: Vec<String>,
    flags: Vec<String>,
    certificate: PathBuf,
    token: String,
}

/// What happens to a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// The API server is killed and started with these flags beside those that it had at first.
    RestartApiServer(Vec<String>),
    /// etcd does nothing any more, and its connections stay.
    PauseEtcd,
    /// It goes on.
    ResumeEtcd,
    /// It is killed.
    KillEtcd,
    /// It is started again, with what it had stored.
    StartEtcd,
}

impl ControlPlane {
    /// Starts it in this folder, and returns it with a client once Pods can be created and get a node.
    pub(crate) async fn start(folder: &Path, binaries: &Path, options: &Options) -> anyhow::Result<(Self, Api)> {
        // By default, Pods are made without a token of their account; and nobody would take the taint of a new node away.
        let unplugged = if options.has_account_tokens { "" } else { "ServiceAccount," };
        let token = write_credentials(folder)?;
        let logs = folder.join("log");
        let path = |name: &str| folder.join(name).display().to_string();
        // Nothing is to survive the machine's crash.
        let etcd_flags = vec![
            format!("--data-dir={}", path("etcd")),
            "--unsafe-no-fsync=true".to_owned(),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        ];
        let etcd = Process::start("etcd", binaries, &logs, etcd_flags.clone())?;
        let api_server = [
            format!("--etcd-servers={ETCD}"),
            format!("--cert-dir={}", path("certs")),
            "--secure-port=6443".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--advertise-address={NODE_ADDRESS}"),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", path("sa.pub")),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            format!("--disable-admission-plugins={unplugged}TaintNodesByCondition"),
            "--endpoint-reconciler-type=none".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--audit-policy-file={}", path("audit.json")),
            format!("--audit-log-path={}", logs.join("audit.jsonl").display()),
            // In megabytes; a log that is divided would be counted in part.
            "--audit-log-maxsize=1000".to_owned(),
        ];
        let flags: Vec<String> = api_server.into_iter().chain(options.api_server.iter().cloned()).collect();
        let api_server = Process::start("kube-apiserver", binaries, &logs, flags.clone())?;
        let (binaries_folder, certificate) = (binaries.to_owned(), certificate(folder));
        let (logs_folder, token_of_api) = (logs.clone(), token.clone());
        let restart = Restart {
            binaries: binaries_folder,
            logs: logs_folder,
            etcd_flags,
            flags,
            certificate,
            token: token_of_api,
        };
        let mut this = Self { etcd, api_server, controller_manager: None, restart };
        let api = match this.ready(folder, binaries, &logs, &token, options).await {
            Ok(api) => api,
            Err(error) => {
                let why = format!("the log of etcd ends with:\n{}", this.etcd.tail());
                this.kill().await;
                return Err(error).context(why);
            }
        };
        Ok((this, api))
    }

    async fn ready(
        &mut self,
        folder: &Path,
        binaries: &Path,
        logs: &Path,
        token: &str,
        options: &Options,
    ) -> anyhow::Result<Api> {
        // It signs a certificate for itself, and writes it before it listens.
        let certificate = certificate(folder);
        let server = &mut self.api_server;
        let api = until("the API server has a certificate", API_SERVER_TIMEOUT, server, async || {
            Api::new(&certificate, token).ok()
        });
        let api = api.await?;
        until("the API server is ready", API_SERVER_TIMEOUT, server, async || api.is_ok("/readyz").await.then_some(()))
            .await?;
        for (path, object) in bind::policy() {
            api.create(path, &object).await.context("no policy that gives Pods their node")?;
        }
        let controllers = match options.controllers {
            Controllers::All => CONTROLLERS,
            Controllers::ServiceAccounts => SERVICE_ACCOUNTS,
        };
        let manager = [
            format!("--kubeconfig={}", folder.join("kubeconfig").display()),
            format!("--service-account-private-key-file={}", folder.join("sa.key").display()),
            format!("--root-ca-file={}", certificate.display()),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--controllers={controllers}"),
        ];
        let manager = manager.into_iter().chain(options.controller_manager.iter().cloned());
        let manager = Process::start("kube-controller-manager", binaries, logs, manager)?;
        let manager = self.controller_manager.insert(manager);
        until("the controllers have begun", CONTROLLERS_TIMEOUT, manager, async || {
            api.is_ok("/api/v1/namespaces/default/serviceaccounts/default").await.then_some(())
        })
        .await?;
        until("Pods get a node when they are created", POLICY_TIMEOUT, server, async || {
            let made = api.create("/api/v1/namespaces/default/pods?dryRun=All", &bind::probe()).await.ok()?;
            (made.pointer("/spec/nodeName")? == bind::NODE).then_some(())
        })
        .await?;
        Ok(api)
    }

    /// Disturbs it. Where something goes on or is started, it is ready when this returns.
    pub(crate) async fn disturb(&mut self, disturbance: &Disturbance) -> anyhow::Result<()> {
        let Restart { binaries, logs, etcd_flags, flags: first, .. } = &self.restart;
        match disturbance {
            Disturbance::RestartApiServer(flags) => {
                self.api_server.kill().await;
                let flags = first.iter().chain(flags).cloned();
                self.api_server = Process::start("kube-apiserver", binaries, logs, flags)?;
            }
            Disturbance::PauseEtcd => return self.etcd.pause(true),
            Disturbance::ResumeEtcd => self.etcd.pause(false)?,
            Disturbance::KillEtcd => {
                self.etcd.kill().await;
                return Ok(());
            }
            Disturbance::StartEtcd => self.etcd = Process::start("etcd", binaries, logs, etcd_flags.clone())?,
        }
        self.until_ready().await
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let api = Api::new(&self.restart.certificate, &self.restart.token)?;
        until("the API server is ready again", API_SERVER_TIMEOUT, &mut self.api_server, async || {
            api.is_ok("/readyz").await.then_some(())
        })
        .await
    }

    /// Kills all of it. The API server goes before etcd: alone it would wait for it.
    pub(crate) async fn kill(&mut self) {
        if let Some(manager) = &mut self.controller_manager {
            manager.kill().await;
        }
        self.api_server.kill().await;
        self.etcd.kill().await;
    }
}

/// Writes keys, tokens, the audit policy and a kubeconfig. Returns the administrator's token.
fn write_credentials(folder: &Path) -> anyhow::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).context("no random bytes")?;
    let token = format!("{:032x}", u128::from_le_bytes(random));
    let key = rcgen::KeyPair::generate().context("no key for service accounts")?;
    let audit = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    });
    let files = [
        ("sa.key", key.serialize_pem()),
        ("sa.pub", key.public_key_pem()),
        ("tokens.csv", format!("{token},admin,admin,\"system:masters\"\n")),
        ("audit.json", audit.to_string()),
        ("kubeconfig", kubeconfig::of(folder, &token).to_string()),
    ];
    for (name, text) in files {
        std::fs::write(folder.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(token)
}
