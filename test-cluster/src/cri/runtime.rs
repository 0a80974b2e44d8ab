//! The runtime: a server on a Unix socket, and all that it has started.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::cri::image::Images;
use crate::cri::service::Service;
use crate::cri::store::Store;
use crate::cri::v1::ContainerFilter;
use crate::cri::v1::image_service_server::ImageServiceServer;
use crate::cri::v1::runtime_service_server::RuntimeServiceServer;

/// A running container runtime.
#[derive(Debug)]
pub(crate) struct Runtime {
    service: Service,
    server: JoinHandle<()>,
}

impl Runtime {
    /// Serves kubelet at this socket.
    pub(crate) fn serve(socket: &Path, images: Images) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
        let service = Service::new(Store::new(images));
        let server = Server::builder()
            .add_service(RuntimeServiceServer::new(service.clone()))
            .add_service(ImageServiceServer::new(service.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener));
        let server = tokio::spawn(async move {
            // Kubelet says what it misses.
            let _ended = server.await;
        });
        Ok(Self { service, server })
    }

    /// Ends the server, and kills all containers.
    pub(crate) async fn kill(&mut self) {
        self.server.abort();
        let containers: Vec<_> = self.service.lock().containers(&ContainerFilter::default()).cloned().collect();
        for container in containers {
            let _hangs = container.stop(Duration::ZERO).await;
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.server.abort();
    }
}
