//! The kinds of documents, and what all of them have around their `spec`.

use super::alert_provider::ALERT_PROVIDER;
use super::canary::CANARY;
use super::field::{Field, Kind, Object, Text};
use super::listener::LISTENER;
use super::metric_template::METRIC_TEMPLATE;
use super::workload::WORKLOAD;
use crate::platform::Api;

/// A kind of document in an API.
#[derive(Debug, Clone, Copy)]
pub struct Document {
    /// `apiVersion`.
    pub api: Api,
    /// `kind`.
    pub kind: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// `spec`.
    pub spec: &'static Object,
}

/// Names of Kubernetes, as far as a pattern tells.
const NAME: Kind = Kind::Text(Text::Pattern("^[a-z0-9.-]{1,253}$", "lower case letters, digits, - and ."));
/// What the API server writes, and what is for people.
const OF_KUBERNETES: &str = "it is Kubernetes' own";

/// A document.
pub(crate) static DOCUMENT: Object = Object::of(
    "Document",
    &[
        Field::new("apiVersion", Kind::TEXT, "The API that the document is written for.").required(),
        Field::new("kind", Kind::TEXT, "What the document is.").required(),
        Field::new("metadata", Kind::Object(&METADATA), "What the document is called.").required(),
        Field::new("spec", Kind::Anything, "What is wanted.").required(),
        Field::new("status", Kind::Anything, "What came of it in a cluster.").moot(OF_KUBERNETES),
    ],
);

/// `metadata`.
pub(crate) static METADATA: Object = Object::of(
    "Metadata",
    &[
        Field::new("name", NAME, "Its name; one document of a kind and namespace has it.")
            .required()
            .example("backend"),
        Field::new("namespace", NAME, "The namespace of the name. Listeners serve all namespaces and are in none.")
            .default("default")
            .example("prod"),
        Field::new("labels", Kind::Anything, "For people and tools.").moot(OF_KUBERNETES),
        Field::new("annotations", Kind::Anything, "For people and tools.").moot(OF_KUBERNETES),
        Field::new("creationTimestamp", Kind::Anything, "Written by Kubernetes.").moot(OF_KUBERNETES),
        Field::new("generation", Kind::Anything, "Written by Kubernetes.").moot(OF_KUBERNETES),
        Field::new("resourceVersion", Kind::Anything, "Written by Kubernetes.").moot(OF_KUBERNETES),
        Field::new("uid", Kind::Anything, "Written by Kubernetes.").moot(OF_KUBERNETES),
        Field::new("finalizers", Kind::Anything, "Written by controllers.").moot(OF_KUBERNETES),
    ],
);

impl Document {
    /// Every kind, in every API that has it.
    pub const ALL: [Self; 11] = [
        Self::canary(Api::Wingbeat),
        Self::workload(),
        Self::listener(),
        Self::metric_template(Api::Wingbeat),
        Self::alert_provider(Api::Wingbeat),
        Self::canary(Api::FlaggerV1Beta1),
        Self::metric_template(Api::FlaggerV1Beta1),
        Self::alert_provider(Api::FlaggerV1Beta1),
        Self::canary(Api::FlaggerV1Alpha3),
        Self::metric_template(Api::FlaggerV1Alpha3),
        Self::alert_provider(Api::FlaggerV1Alpha3),
    ];

    const fn canary(api: Api) -> Self {
        let doc = "How revisions of a workload are rolled out: who gets the canary, how it is judged, what ends it.";
        Self { api, kind: "Canary", doc, spec: &CANARY }
    }

    const fn workload() -> Self {
        let doc = "What is deployed: named revisions with their endpoints. Stands in for a Deployment of Kubernetes.";
        Self { api: Api::Wingbeat, kind: "Workload", doc, spec: &WORKLOAD }
    }

    const fn listener() -> Self {
        let doc = "Where plain Envoys accept connections, and how they speak with clients.";
        Self { api: Api::Wingbeat, kind: "Listener", doc, spec: &LISTENER }
    }

    const fn metric_template(api: Api) -> Self {
        let doc = "A query to a Prometheus that canaries refer to.";
        Self { api, kind: "MetricTemplate", doc, spec: &METRIC_TEMPLATE }
    }

    const fn alert_provider(api: Api) -> Self {
        Self { api, kind: "AlertProvider", doc: "A channel that people are alerted by.", spec: &ALERT_PROVIDER }
    }
}
