//! The discovery services: ADS for all types, and one service per type.

use std::future::ready;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::routing::{MethodRouter, post};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tonic::Status;

use crate::kind::Kind;
use crate::server::Intake;
use crate::server::stream::{Dialogue, Discovery};

/// Adds the methods of all discovery services.
pub(super) fn add<I: Intake>(mut router: axum::Router, discovery: &Arc<Discovery<I>>) -> axum::Router {
    for only in [None].into_iter().chain(Kind::ALL.map(Some)) {
        let (service, what) = names(only);
        let path = |form: &str| format!("/envoy.service.{service}/{form}{what}");
        router = router
            .route(&path("Stream"), converse::<DiscoveryRequest, I>(discovery.clone(), only))
            .route(&path("Delta"), converse::<DeltaDiscoveryRequest, I>(discovery.clone(), only))
            .route(&path("Fetch"), post(|| ready(polled())));
    }
    router
}

/// Returns a service's name after `envoy.service.`, and the end of its methods' names.
const fn names(only: Option<Kind>) -> (&'static str, &'static str) {
    match only {
        None => ("discovery.v3.AggregatedDiscoveryService", "AggregatedResources"),
        Some(Kind::Cluster) => ("cluster.v3.ClusterDiscoveryService", "Clusters"),
        Some(Kind::Endpoints) => ("endpoint.v3.EndpointDiscoveryService", "Endpoints"),
        Some(Kind::Listener) => ("listener.v3.ListenerDiscoveryService", "Listeners"),
        Some(Kind::Routes) => ("route.v3.RouteDiscoveryService", "Routes"),
        Some(Kind::Extension) => ("extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs"),
    }
}

/// Returns a service's name as people and Envoy's documentation write it.
pub(super) fn name(only: Option<Kind>) -> &'static str {
    let (service, _) = names(only);
    service.rsplit_once('.').map_or(service, |(_, name)| name)
}

fn converse<M: Dialogue, I: Intake>(discovery: Arc<Discovery<I>>, only: Option<Kind>) -> MethodRouter {
    post(move |request: Request| ready(discovery.open::<M>(only, request).unwrap_or_else(Status::into_http)))
}

fn polled() -> http::Response<Body> {
    Status::unimplemented("polling is not served: use api_type GRPC or DELTA_GRPC").into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_called_by_their_names() {
        assert_eq!(name(None), "AggregatedDiscoveryService");
        assert_eq!(name(Some(Kind::Routes)), "RouteDiscoveryService");
    }
}
