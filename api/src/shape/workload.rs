//! The Workload.

use super::field::{Field, Kind, Object, Text};

/// `host:port`.
const ENDPOINT: Kind = Kind::Text(Text::Form("host:port"));

/// `spec` of a Workload.
pub(crate) static WORKLOAD: Object = Object::of("Workload", &[
    Field::new(
        "revision",
        Kind::TEXT,
        "The revision that is wanted, one of `revisions`. The first one becomes the primary at once; changing it starts a \
         rollout.",
    )
    .required()
    .example("\"1.4.1\""),
    Field::new(
        "revisions",
        Kind::Map(&Kind::Object(&REVISION)),
        "Every revision that is deployed, by name. One that carries requests cannot be removed.",
    )
    .required()
    .example("{\"1.4.1\": {endpoints: [\"127.0.0.1:9002\"]}}"),
    Field::new("http2", Kind::Truth, "The endpoints speak HTTP/2 without TLS; set it for gRPC.").default("false"),
]);

/// A revision.
pub(crate) static REVISION: Object = Object::of(
    "Revision",
    &[Field::new("endpoints", Kind::some(&ENDPOINT), "Where it listens. Host names are resolved by the proxies.")
        .required()
        .example("[\"127.0.0.1:9001\"]")],
);
