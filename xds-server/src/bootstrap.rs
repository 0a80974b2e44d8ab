//! The bootstrap of a plain Envoy: it only says where we are.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::render::CONTROL_CLUSTER;

/// Instructions of RE2 up to which Envoy takes a regex. RE2 has at most about ten for one state of those that
/// [`captures`](wingbeat_core::matching::compile::captures) counts, of which it allows for a tenth of this.
const MAX_RE2_PROGRAM_SIZE: u32 = 100_000;

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
    /// True for the delta form of xDS.
    pub delta: bool,
    /// How the control plane is reached; none means plain text.
    pub tls: Option<ClientTls>,
    /// What Envoy says in `authorization` with all that it sends to the control plane, its filters' reports included.
    /// Envoy replaces command operators in it: `%ENVIRONMENT(NAME)%` keeps a secret out of the file.
    pub authorization: Option<String>,
}

/// What Envoy needs for TLS, as paths of PEM files on its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// Who signs the certificate of the control plane.
    pub ca: String,
    /// Envoy's own certificate and key, if the control plane asks for them.
    pub identity: Option<(String, String)>,
}

impl Bootstrap {
    /// Returns the bootstrap as JSON, which Envoy reads as it reads YAML.
    pub fn render(&self) -> Value {
        let mut http = json!({
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {
                // A control plane that vanished without a word is noticed after 15 s.
                "connection_keepalive": {"interval": "10s", "timeout": "5s"},
            }},
        });
        if let (Some(value), Some(fields)) = (&self.authorization, http.as_object_mut()) {
            fields.insert("http_filters".to_owned(), says("authorization", value));
        }
        let mut bootstrap = json!({
            "node": {"id": self.node_id, "cluster": self.node_cluster},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": if self.delta { "DELTA_GRPC" } else { "GRPC" },
                    "transport_api_version": "V3",
                    // A node message is 61 KB: once a stream is enough.
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {
                        "cluster_name": CONTROL_CLUSTER,
                        // By default a client waits up to 30 s after a control plane was away, and an abort with it.
                        "retry_policy": {"retry_back_off": {"base_interval": "0.5s", "max_interval": "1s"}},
                    }}],
                },
                "lds_config": {"ads": {}, "resource_api_version": "V3"},
                "cds_config": {"ads": {}, "resource_api_version": "V3"},
            },
            "static_resources": {"clusters": [{
                "name": CONTROL_CLUSTER,
                // Of a name, addresses of both families are tried, and the one that answers first is taken: localhost is
                // ::1 too, where a server on 127.0.0.1 does not listen.
                "type": if self.host.parse::<IpAddr>().is_ok() { "STATIC" } else { "LOGICAL_DNS" },
                "dns_lookup_family": "ALL",
                "connect_timeout": "1s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http,
                },
                "load_assignment": {
                    "cluster_name": CONTROL_CLUSTER,
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
                        "address": self.host, "port_value": self.port,
                    }}}}]}],
                },
            }]},
            // Up to 1.36 and by default, Envoy refuses all routes of a listener for one regex of more than 100 instructions.
            // `check` refuses those that are far too large. What is set by hand at its administration interface goes above.
            "layered_runtime": {"layers": [
                {"name": "wingbeat", "static_layer": {"re2": {"max_program_size": {
                    "error_level": MAX_RE2_PROGRAM_SIZE, "warn_level": MAX_RE2_PROGRAM_SIZE,
                }}}},
                {"name": "admin", "admin_layer": {}},
            ]},
        });
        let cluster = bootstrap.pointer_mut("/static_resources/clusters/0").and_then(Value::as_object_mut);
        if let (Some(tls), Some(cluster)) = (&self.tls, cluster) {
            cluster.insert("transport_socket".to_owned(), tls.render(&self.host));
        }
        if let (Some(admin), Some(fields)) = (self.admin, bootstrap.as_object_mut()) {
            let socket = json!({"address": admin.ip().to_string(), "port_value": admin.port()});
            fields.insert("admin".to_owned(), json!({"address": {"socket_address": socket}}));
        }
        bootstrap
    }
}

/// Returns filters that set a header in all requests of a cluster.
fn says(header: &str, value: &str) -> Value {
    json!([
        {"name": "envoy.filters.http.header_mutation", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [{"append": {
                "header": {"key": header, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }}]},
        }},
        {"name": "envoy.filters.http.upstream_codec", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
        }},
    ])
}

impl ClientTls {
    /// Returns the transport socket of the cluster that leads to `host`, whose certificate must bear this name.
    fn render(&self, host: &str) -> Value {
        let san_type = if host.parse::<IpAddr>().is_ok() { "IP_ADDRESS" } else { "DNS" };
        let mut common = json!({
            "alpn_protocols": ["h2"],
            "validation_context": {
                "trusted_ca": {"filename": self.ca},
                "match_typed_subject_alt_names": [{"san_type": san_type, "matcher": {"exact": host}}],
            },
        });
        if let (Some((certificate, key)), Some(fields)) = (&self.identity, common.as_object_mut()) {
            let files = json!({"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}});
            fields.insert("tls_certificates".to_owned(), json!([files]));
        }
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": common,
                "sni": if san_type == "DNS" { host } else { "" },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(host: &str) -> Value {
        let (node_id, node_cluster) = ("edge-1".to_owned(), String::new());
        let host = host.to_owned();
        Bootstrap {
            node_id,
            node_cluster,
            host,
            port: 18_000,
            admin: None,
            delta: false,
            tls: None,
            authorization: None,
        }
        .render()
    }

    /// localhost is ::1 too, where a server on 127.0.0.1 does not listen.
    #[test]
    fn of_a_name_both_families_are_tried() {
        let cluster = |host| rendered(host).pointer("/static_resources/clusters/0").cloned().unwrap();
        let name = cluster("localhost");
        assert_eq!((&name["type"], &name["dns_lookup_family"]), (&json!("LOGICAL_DNS"), &json!("ALL")));
        assert_eq!(cluster("127.0.0.1")["type"], json!("STATIC"));
    }

    /// RE2 has about ten instructions for a state of those that `check` counts and refuses above its bound.
    #[test]
    fn envoy_takes_every_regex_that_check_takes() {
        let size = rendered("::1").pointer("/layered_runtime/layers/0/static_layer/re2/max_program_size").cloned();
        let size = size.unwrap();
        assert_eq!(
            (&size["error_level"], &size["warn_level"]),
            (&json!(MAX_RE2_PROGRAM_SIZE), &json!(MAX_RE2_PROGRAM_SIZE))
        );
        let states = u32::try_from(wingbeat_core::matching::compile::MAX_RE2_PROGRAM_SIZE).unwrap();
        assert!(states * 10 <= MAX_RE2_PROGRAM_SIZE);
    }
}
