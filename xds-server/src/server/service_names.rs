//! Names of the discovery services.

use crate::kind::Kind;

/// Returns a service's name after `envoy.service.`, and the end of its methods' names.
pub(super) const fn names(only: Option<Kind>) -> (&'static str, &'static str) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_called_by_their_names() {
        assert_eq!(name(None), "AggregatedDiscoveryService");
        assert_eq!(name(Some(Kind::Routes)), "RouteDiscoveryService");
    }
}
