//! The ports of Services.

use serde_json::{Map, Value, json};

use super::problem::Problems;
use crate::object::{is_true, list, put, text};

/// Containers of meshes, whose ports are nobody's business.
const SIDECARS: [&str; 2] = ["istio-proxy", "envoy"];
/// Flagger's name of a port that has none.
const DEFAULT_NAME: &str = "http";
/// What a Service can have.
const PORTS: std::ops::RangeInclusive<u64> = 1..=65_535;

/// What ports are made from.
pub(super) struct Source<'a> {
    /// What the Canary is called in messages.
    pub(super) canary: &'a str,
    /// `spec.service`.
    pub(super) service: &'a Value,
    /// What the target is called in messages.
    pub(super) target: &'a str,
    /// What its Pods consist of.
    pub(super) containers: &'a [Value],
}

/// A port of a container.
struct ContainerPort<'a> {
    container: &'a str,
    /// Its place among those of its container.
    place: usize,
    name: Option<&'a str>,
    number: u64,
    protocol: &'a str,
}

impl Source<'_> {
    /// Returns the ports that a Service has, the one of the Canary first.
    pub(super) fn desire(&self, problems: &mut Problems) -> Option<Vec<Value>> {
        let field = "spec.service.port";
        let Some(port) = self.service.get("port").and_then(whole) else {
            problems.add(self.canary, field, "is missing", "say which port the Services have, like 80");
            return None;
        };
        if !PORTS.contains(&port) {
            problems.add(self.canary, field, format!("is {port}"), "use a number from 1 to 65535");
            return None;
        }
        let name = text(self.service, "/portName").filter(|name| !name.is_empty()).unwrap_or(DEFAULT_NAME);
        let target = self.target_port(port, problems)?;
        let mut first = Map::from_iter([
            ("name".to_owned(), json!(name)),
            ("protocol".to_owned(), json!("TCP")),
            ("port".to_owned(), json!(port)),
            ("targetPort".to_owned(), target.clone()),
        ]);
        let protocol = text(self.service, "/appProtocol").filter(|protocol| !protocol.is_empty());
        put(&mut first, "appProtocol", protocol.map(Value::from));
        let mut ports = vec![Value::Object(first)];
        if is_true(self.service, "/portDiscovery") {
            self.discover(&target, &mut ports, problems);
        }
        Some(ports)
    }

    /// Returns `targetPort`, which is `port` unless it is said. A number need not be declared by a container, a name must.
    fn target_port(&self, port: u64, problems: &mut Problems) -> Option<Value> {
        let field = "spec.service.targetPort";
        let given = self.service.get("targetPort").filter(|it| !it.is_null());
        match given.map(|given| (whole(given), given.as_str())) {
            // Flagger takes 0 for "not set".
            None | Some((Some(0), _)) => Some(json!(port)),
            Some((Some(number), _)) if PORTS.contains(&number) => Some(json!(number)),
            Some((Some(number), _)) => {
                problems.add(self.canary, field, format!("is {number}"), "use a number from 1 to 65535, or a name");
                None
            }
            Some((None, Some(name))) => {
                let named: Vec<&str> = self.all().iter().filter_map(|port| port.name).collect();
                if named.contains(&name) {
                    return Some(json!(name));
                }
                let mend = match named.as_slice() {
                    [] => "name a port there, or use its number".to_owned(),
                    _ => format!("use one of {}, or a number", named.join(", ")),
                };
                problems.add(
                    self.canary,
                    field,
                    format!("is {name}, which no port of {} is called", self.target),
                    mend,
                );
                None
            }
            Some((None, None)) => {
                problems.add(self.canary, field, "is neither a number nor a name", "use one like 9898 or http");
                None
            }
        }
    }

    /// Adds the other ports of the containers, but for that which is served already.
    fn discover(&self, target: &Value, ports: &mut Vec<Value>, problems: &mut Problems) {
        for found in self.all() {
            let is_served = match target.as_str() {
                Some(name) => found.name == Some(name),
                None => *target == json!(found.number),
            };
            if is_served {
                continue;
            }
            let name = found.name.map_or_else(|| format!("tcp-{}-{}", found.container, found.place), str::to_owned);
            let meets = |port: &&Value| {
                port.get("name") == Some(&json!(name))
                    || (port.get("port") == Some(&json!(found.number))
                        && text(port, "/protocol") == Some(found.protocol))
            };
            if let Some(other) = ports.iter().find(meets) {
                let other = format!("{} of the Service", text(other, "/name").unwrap_or_default());
                let wrong =
                    format!("finds port {name} ({}) of {}, which meets port {other}", found.number, found.container);
                let mend = "use another portName or port, or leave out portDiscovery";
                problems.add(self.canary, "spec.service.portDiscovery", wrong, mend);
                continue;
            }
            ports.push(json!({
                "name": name, "protocol": found.protocol, "port": found.number, "targetPort": found.number,
            }));
        }
    }

    fn all(&self) -> Vec<ContainerPort<'_>> {
        let containers = self.containers.iter().map(|it| (text(it, "/name").unwrap_or_default(), it));
        let containers = containers.filter(|(name, _)| !SIDECARS.contains(name));
        let ports = containers.flat_map(|(container, it)| {
            list(it, "/ports").iter().enumerate().filter_map(move |(place, port)| {
                Some(ContainerPort {
                    container,
                    place,
                    name: text(port, "/name").filter(|name| !name.is_empty()),
                    number: port.get("containerPort").and_then(whole)?,
                    protocol: text(port, "/protocol").unwrap_or("TCP"),
                })
            })
        });
        ports.collect()
    }
}

/// Flagger's definitions say `number`, so that `9898.0` is one too.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it has no fraction, and the cast saturates"
)]
fn whole(value: &Value) -> Option<u64> {
    let of_float = || value.as_f64().filter(|it| it.fract() == 0.0 && *it >= 0.0).map(|it| it as u64);
    value.as_u64().or_else(of_float)
}
