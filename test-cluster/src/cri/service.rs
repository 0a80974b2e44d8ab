//! What kubelet asks, answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::cri::container::{Container, Phase, name_of, now};
use crate::cri::store::{Sandbox, Store};
use crate::cri::v1::image_service_server::ImageService;
use crate::cri::v1::runtime_service_server::RuntimeService;
use crate::cri::v1::{self as api};

/// Time for a command that has none of its own, such as a hook. Kubelet's own limit is the grace period of its Pod.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(10);

/// What an answer is.
type Answer<T> = Result<Response<T>, Status>;

/// Answers for both services of the interface.
#[derive(Debug, Clone)]
pub(super) struct Service {
    store: Arc<Mutex<Store>>,
}

impl Service {
    pub(super) fn new(store: Store) -> Self {
        Self { store: Arc::new(Mutex::new(store)) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<api::VersionRequest>) -> Answer<api::VersionResponse> {
        Ok(Response::new(api::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "wingbeat-test-cluster".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn status(&self, _: Request<api::StatusRequest>) -> Answer<api::StatusResponse> {
        let conditions = ["RuntimeReady", "NetworkReady"].map(|kind| api::RuntimeCondition {
            r#type: kind.to_owned(),
            status: true,
            ..api::RuntimeCondition::default()
        });
        let status = Some(api::RuntimeStatus { conditions: conditions.into() });
        Ok(Response::new(api::StatusResponse { status }))
    }

    async fn runtime_config(&self, _: Request<api::RuntimeConfigRequest>) -> Answer<api::RuntimeConfigResponse> {
        let linux = Some(api::LinuxRuntimeConfiguration { cgroup_driver: api::CgroupDriver::Cgroupfs.into() });
        Ok(Response::new(api::RuntimeConfigResponse { linux }))
    }

    async fn update_runtime_config(
        &self,
        _: Request<api::UpdateRuntimeConfigRequest>,
    ) -> Answer<api::UpdateRuntimeConfigResponse> {
        Ok(Response::new(api::UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(&self, request: Request<api::RunPodSandboxRequest>) -> Answer<api::RunPodSandboxResponse> {
        let config = request.into_inner().config.ok_or_else(|| Status::invalid_argument("no config"))?;
        let pod_sandbox_id = self.lock().add_sandbox(config)?;
        Ok(Response::new(api::RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<api::StopPodSandboxRequest>,
    ) -> Answer<api::StopPodSandboxResponse> {
        let containers = self.lock().stop_sandbox(&request.get_ref().pod_sandbox_id);
        for container in containers {
            container.stop(Duration::ZERO).await?;
        }
        Ok(Response::new(api::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<api::RemovePodSandboxRequest>,
    ) -> Answer<api::RemovePodSandboxResponse> {
        let id = &request.get_ref().pod_sandbox_id;
        let containers = self.lock().stop_sandbox(id);
        for container in containers {
            container.stop(Duration::ZERO).await?;
        }
        self.lock().remove_sandbox(id);
        Ok(Response::new(api::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<api::PodSandboxStatusRequest>,
    ) -> Answer<api::PodSandboxStatusResponse> {
        let status = self.lock().sandbox(&request.get_ref().pod_sandbox_id)?.status();
        Ok(Response::new(api::PodSandboxStatusResponse { status: Some(status) }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<api::ListPodSandboxRequest>,
    ) -> Answer<api::ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let items = self.lock().sandboxes(&filter).map(sandbox_item).collect();
        Ok(Response::new(api::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<api::CreateContainerRequest>,
    ) -> Answer<api::CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| Status::invalid_argument("no config"))?;
        let container_id = self.lock().add_container(&request.pod_sandbox_id, config)?;
        Ok(Response::new(api::CreateContainerResponse { container_id }))
    }

    async fn start_container(
        &self,
        request: Request<api::StartContainerRequest>,
    ) -> Answer<api::StartContainerResponse> {
        let container = self.lock().container(&request.get_ref().container_id)?;
        container.start()?;
        Ok(Response::new(api::StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<api::StopContainerRequest>) -> Answer<api::StopContainerResponse> {
        let request = request.into_inner();
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or_default());
        let container = self.lock().container(&request.container_id);
        // One that is gone is stopped.
        if let Ok(container) = container {
            container.stop(grace).await?;
        }
        Ok(Response::new(api::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<api::RemoveContainerRequest>,
    ) -> Answer<api::RemoveContainerResponse> {
        let removed = self.lock().remove_container(&request.get_ref().container_id);
        if let Some(container) = removed {
            container.stop(Duration::ZERO).await?;
        }
        Ok(Response::new(api::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<api::ListContainersRequest>,
    ) -> Answer<api::ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let containers = self.lock().containers(&filter).map(|container| container_item(container)).collect();
        Ok(Response::new(api::ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<api::ContainerStatusRequest>,
    ) -> Answer<api::ContainerStatusResponse> {
        let container = self.lock().container(&request.get_ref().container_id)?;
        Ok(Response::new(api::ContainerStatusResponse { status: Some(container_status(&container)) }))
    }

    async fn exec_sync(&self, request: Request<api::ExecSyncRequest>) -> Answer<api::ExecSyncResponse> {
        let request = request.into_inner();
        let container = self.lock().container(&request.container_id)?;
        let bound = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0);
        let output = container.run(&request.cmd, bound.map_or(COMMAND_TIMEOUT, Duration::from_secs)).await?;
        let exit_code = output.status.code().unwrap_or(-1);
        Ok(Response::new(api::ExecSyncResponse { stdout: output.stdout, stderr: output.stderr, exit_code }))
    }

    async fn container_stats(
        &self,
        request: Request<api::ContainerStatsRequest>,
    ) -> Answer<api::ContainerStatsResponse> {
        let container = self.lock().container(&request.get_ref().container_id)?;
        Ok(Response::new(api::ContainerStatsResponse { stats: Some(container_stats(&container)) }))
    }

    async fn list_container_stats(
        &self,
        _: Request<api::ListContainerStatsRequest>,
    ) -> Answer<api::ListContainerStatsResponse> {
        let all = api::ContainerFilter::default();
        let stats = self.lock().containers(&all).map(|container| container_stats(container)).collect();
        Ok(Response::new(api::ListContainerStatsResponse { stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<api::PodSandboxStatsRequest>,
    ) -> Answer<api::PodSandboxStatsResponse> {
        let stats = sandbox_stats(self.lock().sandbox(&request.get_ref().pod_sandbox_id)?);
        Ok(Response::new(api::PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        _: Request<api::ListPodSandboxStatsRequest>,
    ) -> Answer<api::ListPodSandboxStatsResponse> {
        let all = api::PodSandboxFilter::default();
        let stats = self.lock().sandboxes(&all).map(sandbox_stats).collect();
        Ok(Response::new(api::ListPodSandboxStatsResponse { stats }))
    }
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(&self, _: Request<api::ListImagesRequest>) -> Answer<api::ListImagesResponse> {
        let images = self.lock().pulled.iter().map(|name| image(name)).collect();
        Ok(Response::new(api::ListImagesResponse { images }))
    }

    async fn image_status(&self, request: Request<api::ImageStatusRequest>) -> Answer<api::ImageStatusResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let found = self.lock().pulled.contains(&name).then(|| image(&name));
        Ok(Response::new(api::ImageStatusResponse { image: found }))
    }

    async fn pull_image(&self, request: Request<api::PullImageRequest>) -> Answer<api::PullImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let mut store = self.lock();
        store.images.program(&name).map_err(Status::not_found)?;
        store.pulled.insert(name.clone());
        Ok(Response::new(api::PullImageResponse { image_ref: name }))
    }

    async fn remove_image(&self, request: Request<api::RemoveImageRequest>) -> Answer<api::RemoveImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        self.lock().pulled.remove(&name);
        Ok(Response::new(api::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<api::ImageFsInfoRequest>) -> Answer<api::ImageFsInfoResponse> {
        let usage = api::FilesystemUsage {
            timestamp: now(),
            fs_id: Some(api::FilesystemIdentifier { mountpoint: "/".to_owned() }),
            used_bytes: Some(api::UInt64Value { value: 1 }),
            inodes_used: Some(api::UInt64Value { value: 1 }),
        };
        let (image_filesystems, container_filesystems) = (vec![usage.clone()], vec![usage]);
        Ok(Response::new(api::ImageFsInfoResponse { image_filesystems, container_filesystems }))
    }
}

fn sandbox_item(sandbox: &Sandbox) -> api::PodSandbox {
    let api::PodSandboxStatus { id, metadata, state, created_at, labels, annotations, .. } = sandbox.status();
    api::PodSandbox { id, metadata, state, created_at, labels, annotations }
}

fn sandbox_stats(sandbox: &Sandbox) -> api::PodSandboxStats {
    let api::PodSandboxStatus { id, metadata, labels, annotations, .. } = sandbox.status();
    api::PodSandboxStats { attributes: Some(api::PodSandboxAttributes { id, metadata, labels, annotations }) }
}

fn container_item(container: &Container) -> api::Container {
    let api::ContainerStatus {
        id, metadata, state, created_at, image, image_ref, labels, annotations, image_id, ..
    } = container_status(container);
    let pod_sandbox_id = container.sandbox.clone();
    api::Container { id, pod_sandbox_id, metadata, image, image_ref, state, created_at, labels, annotations, image_id }
}

fn container_stats(container: &Container) -> api::ContainerStats {
    let api::ContainerStatus { id, metadata, labels, annotations, .. } = container_status(container);
    api::ContainerStats { attributes: Some(api::ContainerAttributes { id, metadata, labels, annotations }) }
}

fn container_status(container: &Container) -> api::ContainerStatus {
    let phase = container.phase();
    let (started_at, finished_at, exit_code, reason) = match phase {
        Phase::Created => (0, 0, 0, ""),
        Phase::Running { since, .. } => (since, 0, 0, ""),
        Phase::Exited { since, at, code: 0 } => (since, at, 0, "Completed"),
        Phase::Exited { since, at, code } => (since, at, code, "Error"),
    };
    let config = &container.config;
    let name = config.image.as_ref().map(name_of).unwrap_or_default().to_owned();
    api::ContainerStatus {
        id: container.id.clone(),
        metadata: config.metadata.clone(),
        state: phase.state().into(),
        created_at: container.created,
        started_at,
        finished_at,
        exit_code,
        image: Some(api::ImageSpec { image: name.clone(), ..api::ImageSpec::default() }),
        image_ref: name.clone(),
        reason: reason.to_owned(),
        message: String::new(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        log_path: container.log_path.display().to_string(),
        image_id: name,
    }
}

/// An image has a size: kubelet does not believe in one without.
fn image(name: &str) -> api::Image {
    api::Image {
        id: name.to_owned(),
        repo_tags: vec![name.to_owned()],
        repo_digests: Vec::new(),
        size: 1,
        spec: Some(api::ImageSpec { image: name.to_owned(), ..api::ImageSpec::default() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::image::Images;

    fn spec(image: &str) -> api::ImageSpec {
        api::ImageSpec { image: image.to_owned(), ..api::ImageSpec::default() }
    }

    #[tokio::test]
    async fn a_pod_is_an_address_and_processes() {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::new(Store::new(Images::default().with("sleep", "sleep")));
        let options = Some(api::NamespaceOption { pid: 1, ..api::NamespaceOption::default() });
        let config = api::PodSandboxConfig {
            log_directory: folder.path().display().to_string(),
            linux: Some(api::LinuxPodSandboxConfig {
                security_context: Some(api::LinuxSandboxSecurityContext { namespace_options: options.clone() }),
            }),
            ..api::PodSandboxConfig::default()
        };
        let request = Request::new(api::RunPodSandboxRequest { config: Some(config) });
        let sandbox = service.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
        let of_sandbox = || Request::new(api::PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone() });
        let status = service.pod_sandbox_status(of_sandbox()).await.unwrap().into_inner().status.unwrap();
        assert_eq!(status.network.unwrap().ip, "10.244.1.1");
        assert_eq!(status.linux.unwrap().namespaces.unwrap().options, options);

        let config = Some(api::ContainerConfig {
            image: Some(spec("sleep:1")),
            args: vec!["1000".to_owned()],
            log_path: "0.log".to_owned(),
            ..api::ContainerConfig::default()
        });
        let request = Request::new(api::CreateContainerRequest { pod_sandbox_id: sandbox.clone(), config });
        let container_id = service.create_container(request).await.unwrap().into_inner().container_id;
        let request = Request::new(api::StartContainerRequest { container_id: container_id.clone() });
        service.start_container(request).await.unwrap();
        let of_container = || Request::new(api::ContainerStatusRequest { container_id: container_id.clone() });
        let status = service.container_status(of_container()).await.unwrap().into_inner().status.unwrap();
        assert_eq!((status.state(), status.image_ref.as_str()), (api::ContainerState::ContainerRunning, "sleep:1"));
        let request = Request::new(api::StopContainerRequest { container_id: container_id.clone(), timeout: 30 });
        service.stop_container(request).await.unwrap();
        let status = service.container_status(of_container()).await.unwrap().into_inner().status.unwrap();
        assert_eq!((status.state(), status.exit_code), (api::ContainerState::ContainerExited, 143));
        assert_eq!(status.reason, "Error");

        let request = Request::new(api::RemovePodSandboxRequest { pod_sandbox_id: sandbox.clone() });
        service.remove_pod_sandbox(request).await.unwrap();
        assert!(service.pod_sandbox_status(of_sandbox()).await.is_err());
        assert!(service.container_status(of_container()).await.is_err());
    }

    #[tokio::test]
    async fn an_image_is_there_once_it_was_pulled() {
        let service = Service::new(Store::new(Images::default()));
        let status = || Request::new(api::ImageStatusRequest { image: Some(spec("crash-soon:1")) });
        assert_eq!(service.image_status(status()).await.unwrap().into_inner().image, None);
        let absent =
            service.pull_image(Request::new(api::PullImageRequest { image: Some(spec("never-there:1")) })).await;
        assert_eq!(absent.unwrap_err().code(), tonic::Code::NotFound);
        service.pull_image(Request::new(api::PullImageRequest { image: Some(spec("crash-soon:1")) })).await.unwrap();
        let found = service.image_status(status()).await.unwrap().into_inner().image.unwrap();
        assert!(found.id == "crash-soon:1" && found.size > 0);
        service
            .remove_image(Request::new(api::RemoveImageRequest { image: Some(spec("crash-soon:1")) }))
            .await
            .unwrap();
        assert_eq!(service.image_status(status()).await.unwrap().into_inner().image, None);
    }
}
