//! The bootstrap of a plain Envoy: it only says where we are.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::render::CONTROL_CLUSTER;

/// What a bootstrap is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// `node.id`: names the Envoy in reports.
    pub node_id: String,
    /// `node.cluster`: listeners can be meant for one.
    pub node_cluster: String,
    /// Host of the control plane, a name or an IP address.
    pub host: String,
    /// Port of the control plane.
    pub port: u16,
    /// Where Envoy's own administration interface listens, if at all.
    pub admin: Option<SocketAddr>,
}

impl Bootstrap {
    /// Returns the bootstrap as JSON, which Envoy reads as it reads YAML.
    pub fn render(&self) -> Value {
        let mut bootstrap = json!({
            "node": {"id": self.node_id, "cluster": self.node_cluster},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    // A node message is 61 KB: once a stream is enough.
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": CONTROL_CLUSTER}}],
                },
                "lds_config": {"ads": {}, "resource_api_version": "V3"},
                "cds_config": {"ads": {}, "resource_api_version": "V3"},
            },
            "static_resources": {"clusters": [{
                "name": CONTROL_CLUSTER,
                "type": "STRICT_DNS",
                "connect_timeout": "1s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {
                            // A control plane that vanished without a word is noticed after 15 s.
                            "connection_keepalive": {"interval": "10s", "timeout": "5s"},
                        }},
                    },
                },
                "load_assignment": {
                    "cluster_name": CONTROL_CLUSTER,
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
                        "address": self.host, "port_value": self.port,
                    }}}}]}],
                },
            }]},
        });
        if let (Some(admin), Some(fields)) = (self.admin, bootstrap.as_object_mut()) {
            let socket = json!({"address": admin.ip().to_string(), "port_value": admin.port()});
            fields.insert("admin".to_owned(), json!({"address": {"socket_address": socket}}));
        }
        bootstrap
    }
}
