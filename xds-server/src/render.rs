//! Puts a [`Model`] into Envoy's messages. The same model gives the same bytes.

use crate::model::{Model, ModelChange};
use crate::scoped_snapshots::ScopedSnapshots;

pub(crate) use extension::CONTROL_CLUSTER;
pub use renderer::Renderer;
pub(crate) use route::routes;

mod access_log;
mod cluster;
mod cors;
mod duration;
mod extension;
mod http;
mod listener;
mod renderer;
mod route;

/// Returns what serves this model.
pub fn render(model: &Model) -> ScopedSnapshots {
    Renderer::default().render(ModelChange::from(model))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
    use prost::Message as _;
    use wingbeat_core::id::{ClusterName, Rev};

    use super::*;
    use crate::kind::Kind;
    use crate::model::http::HttpOptions;
    use crate::model::traffic::Front;
    use crate::model::{Listener, Split, VirtualHost};

    fn host(name: &str, rev: u64) -> Arc<VirtualHost> {
        Arc::new(VirtualHost {
            name: name.to_owned(),
            domains: vec![format!("{name}.local")],
            listeners: vec!["l".to_owned()],
            timeout: None,
            retries: None,
            http: HttpOptions::default(),
            split: Split::Single(ClusterName::new(name)),
            rev: Rev::new(rev),
            filter: true,
        })
    }

    fn model(hosts: &[Arc<VirtualHost>]) -> Model {
        let listener = Listener {
            name: "l".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: 80,
            node_clusters: Vec::new(),
            access_log: None,
            front: Front::default(),
        };
        Model { listeners: vec![listener], hosts: hosts.to_vec(), ..Model::default() }
    }

    #[test]
    fn what_is_put_together_from_parts_is_envoys_message() {
        let hosts = [host("a", 1), host("b", 7)];
        let snapshot = render(&model(&hosts)).of_node("");
        let resource = snapshot.of(Kind::Routes).get("l").unwrap();
        let message = RouteConfiguration::decode(resource.body.clone()).unwrap();
        assert_eq!(message.name, "l");
        assert_eq!(message.virtual_hosts, hosts.map(|host| route::virtual_host(&host)));
        assert_eq!(message.encode_to_vec(), resource.body, "and nothing else");
        assert!(message.ignore_port_in_host_matching);
        let other = render(&model(&[host("a", 2), host("b", 7)])).of_node("");
        assert_ne!(other.of(Kind::Routes).get("l").unwrap().version, resource.version);
    }
}
