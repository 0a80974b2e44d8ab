//! The discovery services: ADS for all types, and one service per type.

use envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_server::ClusterDiscoveryService;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::endpoint::v3::endpoint_discovery_service_server::EndpointDiscoveryService;
use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_server::ExtensionConfigDiscoveryService;
use envoy_types::pb::envoy::service::listener::v3::listener_discovery_service_server::ListenerDiscoveryService;
use envoy_types::pb::envoy::service::route::v3::route_discovery_service_server::RouteDiscoveryService;
use tonic::{Request, Response, Status, Streaming};

use crate::resource::Kind;
use crate::server::Intake;
use crate::server::stream::{Discovery, Responses};

#[tonic::async_trait]
impl<I: Intake> AggregatedDiscoveryService for Discovery<I> {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open(None, request)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open(None, request)
    }
}

/// A service of one type: its trait, its kind, and the names of the trait's streams and methods.
macro_rules! service {
    ($service:ident, $kind:expr, $stream:ident $stream_of:ident, $delta:ident $delta_of:ident, $fetch:ident) => {
        #[tonic::async_trait]
        impl<I: Intake> $service for Discovery<I> {
            type $stream_of = Responses<DiscoveryResponse>;
            type $delta_of = Responses<DeltaDiscoveryResponse>;

            async fn $stream(
                &self,
                request: Request<Streaming<DiscoveryRequest>>,
            ) -> Result<Response<Self::$stream_of>, Status> {
                self.open(Some($kind), request)
            }

            async fn $delta(
                &self,
                request: Request<Streaming<DeltaDiscoveryRequest>>,
            ) -> Result<Response<Self::$delta_of>, Status> {
                self.open(Some($kind), request)
            }

            async fn $fetch(&self, _request: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
                Err(Status::unimplemented("polling is not served: use api_type GRPC or DELTA_GRPC"))
            }
        }
    };
}

service!(
    ClusterDiscoveryService, Kind::Cluster,
    stream_clusters StreamClustersStream, delta_clusters DeltaClustersStream, fetch_clusters
);
service!(
    EndpointDiscoveryService, Kind::Endpoints,
    stream_endpoints StreamEndpointsStream, delta_endpoints DeltaEndpointsStream, fetch_endpoints
);
service!(
    ListenerDiscoveryService, Kind::Listener,
    stream_listeners StreamListenersStream, delta_listeners DeltaListenersStream, fetch_listeners
);
service!(
    RouteDiscoveryService, Kind::Routes,
    stream_routes StreamRoutesStream, delta_routes DeltaRoutesStream, fetch_routes
);
service!(
    ExtensionConfigDiscoveryService, Kind::Extension,
    stream_extension_configs StreamExtensionConfigsStream,
    delta_extension_configs DeltaExtensionConfigsStream, fetch_extension_configs
);
