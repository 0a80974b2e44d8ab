//! What all documents have around their `spec`.

use super::{Field, Kind, Object, Text};

/// Names of Kubernetes, as far as a pattern tells.
const NAME: Kind = Kind::Text(Text::Pattern("^[a-z0-9.-]{1,253}$", "lower case letters, digits, - and ."));
/// What the API server writes, and what is for people.
const OF_KUBERNETES: &str = "it is Kubernetes' own";

/// A document.
pub(crate) static DOCUMENT: Object = Object::of(&[
    Field::new("apiVersion", Kind::TEXT, "The API that the document is written for.").required(),
    Field::new("kind", Kind::TEXT, "What the document is.").required(),
    Field::new("metadata", Kind::Object(&METADATA), "What the document is called.").required(),
    Field::new("spec", Kind::Anything, "What is wanted.").required(),
    Field::new("status", Kind::Anything, "What came of it in a cluster.").moot(OF_KUBERNETES),
]);

/// `metadata`.
pub(crate) static METADATA: Object = Object::of(&[
    Field::new("name", NAME, "Its name; one document of a kind and namespace has it.").required().example("backend"),
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
]);
