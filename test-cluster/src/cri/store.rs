//! What the runtime has: sandboxes, containers and images.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use tonic::Status;

use crate::cri::address::Addresses;
use crate::cri::container::{Container, Parts, now};
use crate::cri::image::Images;
use crate::cri::v1::{
    ContainerConfig, ContainerFilter, LinuxPodSandboxStatus, Namespace, PodSandboxConfig, PodSandboxFilter,
    PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
};

/// A Pod's sandbox: an address.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) id: String,
    pub(super) config: PodSandboxConfig,
    pub(super) created: i64,
    pub(super) state: PodSandboxState,
    address: Ipv4Addr,
}

/// All there is.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) images: Images,
    pub(super) pulled: BTreeSet<String>,
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Arc<Container>>,
    addresses: Addresses,
    ids: u64,
}

impl Store {
    pub(super) fn new(images: Images) -> Self {
        Self { images, ..Self::default() }
    }

    /// Makes a sandbox with an address and returns its id.
    pub(super) fn add_sandbox(&mut self, config: PodSandboxConfig) -> Result<String, Status> {
        let address = self.addresses.take();
        let address = address.ok_or_else(|| Status::resource_exhausted("all addresses of Pods are taken"))?;
        let id = self.id();
        let state = PodSandboxState::SandboxReady;
        let sandbox = Sandbox { id: id.clone(), config, created: now(), state, address };
        self.sandboxes.insert(id.clone(), sandbox);
        Ok(id)
    }

    pub(super) fn sandbox(&self, id: &str) -> Result<&Sandbox, Status> {
        self.sandboxes.get(id).ok_or_else(|| Status::not_found(format!("no sandbox {id}")))
    }

    /// Marks a sandbox as stopped, and returns the containers to be stopped.
    pub(super) fn stop_sandbox(&mut self, id: &str) -> Vec<Arc<Container>> {
        if let Some(sandbox) = self.sandboxes.get_mut(id) {
            sandbox.state = PodSandboxState::SandboxNotready;
        }
        self.containers.values().filter(|container| container.sandbox == id).cloned().collect()
    }

    /// Removes a sandbox and its containers.
    pub(super) fn remove_sandbox(&mut self, id: &str) {
        if let Some(sandbox) = self.sandboxes.remove(id) {
            self.addresses.release(sandbox.address);
        }
        self.containers.retain(|_, container| container.sandbox != id);
    }

    /// Returns the sandboxes that a filter lets through.
    pub(super) fn sandboxes(&self, filter: &PodSandboxFilter) -> impl Iterator<Item = &Sandbox> {
        self.sandboxes.values().filter(move |sandbox| {
            (filter.id.is_empty() || filter.id == sandbox.id)
                && filter.state.is_none_or(|wanted| wanted.state() == sandbox.state)
                && has_labels(&sandbox.config.labels, &filter.label_selector)
        })
    }

    /// Makes a container that does not run yet, and returns its id.
    pub(super) fn add_container(&mut self, sandbox: &str, config: ContainerConfig) -> Result<String, Status> {
        let image = config.image.as_ref().map(|image| image.image.as_str()).unwrap_or_default();
        let program = self.images.program(image).map_err(Status::not_found)?;
        let id = self.id();
        let of = self.sandbox(sandbox)?;
        let parts = Parts {
            id: id.clone(),
            sandbox: of.id.clone(),
            logs: PathBuf::from(&of.config.log_directory),
            program,
            address: of.address,
            hostname: of.config.hostname.clone(),
            config,
        };
        self.containers.insert(id.clone(), Arc::new(Container::new(parts)));
        Ok(id)
    }

    pub(super) fn container(&self, id: &str) -> Result<Arc<Container>, Status> {
        self.containers.get(id).cloned().ok_or_else(|| Status::not_found(format!("no container {id}")))
    }

    pub(super) fn remove_container(&mut self, id: &str) -> Option<Arc<Container>> {
        self.containers.remove(id)
    }

    /// Returns the containers that a filter lets through.
    pub(super) fn containers(&self, filter: &ContainerFilter) -> impl Iterator<Item = &Arc<Container>> {
        self.containers.values().filter(move |container| {
            (filter.id.is_empty() || filter.id == container.id)
                && (filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == container.sandbox)
                && filter.state.is_none_or(|wanted| wanted.state() == container.phase().state())
                && has_labels(&container.config.labels, &filter.label_selector)
        })
    }

    fn id(&mut self) -> String {
        self.ids += 1;
        format!("{:064x}", self.ids)
    }
}

impl Sandbox {
    /// Returns what kubelet is shown of it.
    pub(super) fn status(&self) -> PodSandboxStatus {
        let security = self.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let options = security.and_then(|security| security.namespace_options.clone());
        PodSandboxStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state.into(),
            created_at: self.created,
            network: Some(PodSandboxNetworkStatus { ip: self.address.to_string() }),
            // Kubelet makes a Pod anew whose namespaces are others than it asked for.
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        }
    }
}

/// Returns true if all wanted labels are there.
fn has_labels(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::v1::{ImageSpec, PodSandboxStateValue};

    #[test]
    fn a_filter_lets_through_what_it_names() {
        let mut store = Store::new(Images::default().with("web", "true"));
        let config = |app: &str| PodSandboxConfig {
            labels: [("app".to_owned(), app.to_owned())].into(),
            ..PodSandboxConfig::default()
        };
        let (first, second) = (store.add_sandbox(config("a")).unwrap(), store.add_sandbox(config("b")).unwrap());
        assert_ne!(store.sandbox(&first).unwrap().address, store.sandbox(&second).unwrap().address);
        let image = Some(ImageSpec { image: "web:1".to_owned(), ..ImageSpec::default() });
        let container = ContainerConfig { image, ..ContainerConfig::default() };
        let of_first = store.add_container(&first, container.clone()).unwrap();
        assert!(store.add_container("none", container).is_err());
        assert_eq!(store.stop_sandbox(&first).len(), 1);

        let ids = |filter: PodSandboxFilter| -> Vec<String> {
            store.sandboxes(&filter).map(|sandbox| sandbox.id.clone()).collect()
        };
        let state = |state: PodSandboxState| Some(PodSandboxStateValue { state: state.into() });
        assert_eq!(ids(PodSandboxFilter::default()), [first.as_str(), &second]);
        let ready = PodSandboxFilter { state: state(PodSandboxState::SandboxReady), ..PodSandboxFilter::default() };
        assert_eq!(ids(ready), [second.as_str()]);
        let labels = [("app".to_owned(), "a".to_owned())].into();
        let labelled = PodSandboxFilter { label_selector: labels, ..PodSandboxFilter::default() };
        assert_eq!(ids(labelled), [first.as_str()]);
        let of = |sandbox: &str| {
            let filter = ContainerFilter { pod_sandbox_id: sandbox.to_owned(), ..ContainerFilter::default() };
            store.containers(&filter).map(|container| container.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!((of(&first), of(&second)), (vec![of_first.clone()], vec![]));

        store.remove_sandbox(&first);
        assert!(store.container(&of_first).is_err() && store.sandbox(&first).is_err());
    }
}
