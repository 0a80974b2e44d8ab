//! The discovery services: ADS for all types, and one service per type.

use std::future::ready;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::routing::{MethodRouter, post};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tonic::Status;

use crate::kind::Kind;
use crate::server::intake::Intake;
use crate::server::service_names::names;
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

fn converse<M: Dialogue, I: Intake>(discovery: Arc<Discovery<I>>, only: Option<Kind>) -> MethodRouter {
    post(move |request: Request| ready(discovery.open::<M>(only, request).unwrap_or_else(Status::into_http)))
}

fn polled() -> http::Response<Body> {
    Status::unimplemented("polling is not served: use api_type GRPC or DELTA_GRPC").into_http()
}
