//! Slices of endpoints: which addresses of an arm are ready.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;

use serde_json::Value;
use wingbeat_core::id::Arm;

use crate::desire::{ARM_LABEL, CANARY_LABEL};
use crate::object::{is_true, list, text};

/// What is kept of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    /// The Canary, as its label has it.
    pub(super) canary: String,
    pub(super) arm: Arm,
    addresses: Vec<IpAddr>,
    ports: Vec<(String, u16)>,
}

impl Slice {
    /// Reads a slice; nothing if it is no Canary's.
    pub(super) fn read(slice: &Value) -> Option<Self> {
        let label = |key: &str| slice.pointer("/metadata/labels")?.get(key)?.as_str();
        let arm = Arm::ALL.into_iter().find(|arm| label(ARM_LABEL) == Some(arm.as_str()))?;
        let ready = list(slice, "/endpoints").iter().filter(|endpoint| is_ready(endpoint));
        let addresses = ready.flat_map(|endpoint| list(endpoint, "/addresses"));
        let addresses = addresses.filter_map(|address| address.as_str()?.parse().ok());
        let ports = list(slice, "/ports").iter().filter_map(|port| {
            let number = port.get("port")?.as_u64().and_then(|number| u16::try_from(number).ok())?;
            Some((text(port, "/name").unwrap_or_default().to_owned(), number))
        });
        Some(Self {
            canary: label(CANARY_LABEL)?.to_owned(),
            arm,
            addresses: addresses.collect(),
            ports: ports.collect(),
        })
    }

    /// Returns its ready addresses with the port of this name or, where no port is called so, of this number.
    pub(super) fn ready(&self, name: &str, number: u16) -> BTreeSet<SocketAddr> {
        let by_name = self.ports.iter().find(|(of, _)| of == name);
        let port = by_name.or_else(|| self.ports.iter().find(|(_, of)| *of == number));
        let Some((_, port)) = port else { return BTreeSet::new() };
        self.addresses.iter().map(|address| SocketAddr::new(*address, *port)).collect()
    }
}

/// Without a word about it, an endpoint is ready. One that is going away is not, even where its Service wants it shown.
fn is_ready(endpoint: &Value) -> bool {
    let ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
    ready && !is_true(endpoint, "/conditions/terminating")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_addresses_are_found_by_the_name_of_the_port() {
        let slice = json!({
            "metadata": {"labels": {"wingbeat.dev/arm": "canary", "wingbeat.dev/canary": "backend"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.4"], "conditions": {"ready": true, "terminating": true}},
                {"addresses": ["fd00::1", "no.address"]},
            ],
            "ports": [{"name": "http", "port": 9898}, {"name": "metrics", "port": 9797}, {"port": null}],
        });
        let slice = Slice::read(&slice).unwrap();
        assert_eq!((slice.canary.as_str(), slice.arm), ("backend", Arm::Canary));
        let at = |port: u16| -> BTreeSet<SocketAddr> {
            ["10.0.0.1", "10.0.0.2", "fd00::1"].map(|it| SocketAddr::new(it.parse().unwrap(), port)).into()
        };
        assert_eq!(slice.ready("metrics", 9898), at(9797));
        assert_eq!(slice.ready("renamed", 9898), at(9898));
        assert_eq!(slice.ready("renamed", 1), BTreeSet::new());
    }

    #[test]
    fn a_slice_of_nobody_is_left_out() {
        for labels in [json!({}), json!({"wingbeat.dev/arm": "third", "wingbeat.dev/canary": "a"})] {
            assert_eq!(Slice::read(&json!({"metadata": {"labels": labels}})), None);
        }
        assert_eq!(Slice::read(&json!(null)), None);
    }
}
