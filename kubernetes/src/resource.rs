//! The kinds that the controller reads and writes, and where an API server has their objects.

use std::fmt;

use crate::crds::Group;
use crate::world::Kind;

/// Where objects of a kind live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In none.
    Cluster,
}

/// A kind, as an API server serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// The group; empty for the core group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// The kind as it is in paths.
    pub plural: &'static str,
    /// Where its objects live.
    pub scope: Scope,
}

impl Resource {
    /// Deployments of `apps`.
    pub const DEPLOYMENT: Self = Self::namespaced("apps", "v1", "Deployment", "deployments");
    /// HorizontalPodAutoscalers of `autoscaling`, whatever version a Canary gives.
    pub const SCALER: Self =
        Self::namespaced("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers");
    /// Services of the core group.
    pub const SERVICE: Self = Self::namespaced("", "v1", "Service", "services");
    /// ConfigMaps of the core group.
    pub const CONFIG_MAP: Self = Self::namespaced("", "v1", "ConfigMap", "configmaps");
    /// Secrets of the core group.
    pub const SECRET: Self = Self::namespaced("", "v1", "Secret", "secrets");
    /// Pods of the core group.
    pub const POD: Self = Self::namespaced("", "v1", "Pod", "pods");
    /// Slices of `discovery.k8s.io`.
    pub const ENDPOINT_SLICE: Self = Self::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
    /// Events of `events.k8s.io`.
    pub const EVENT: Self = Self::namespaced("events.k8s.io", "v1", "Event", "events");
    /// Leases of `coordination.k8s.io`.
    pub const LEASE: Self = Self::namespaced("coordination.k8s.io", "v1", "Lease", "leases");
    /// CanaryStates, which are ours alone.
    pub const CANARY_STATE: Self = Self::namespaced("wingbeat.dev", "v1alpha1", "CanaryState", "canarystates");

    /// Namespaces of the core group.
    pub const NAMESPACE: Self = Self { scope: Scope::Cluster, ..Self::namespaced("", "v1", "Namespace", "namespaces") };

    const fn namespaced(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Self {
        Self { group, version, kind, plural, scope: Scope::Namespaced }
    }

    /// Returns the resource of a kind. Of a kind that both groups have it is this group's, in the version that is stored.
    pub const fn of(kind: Kind, group: Group) -> Self {
        let (name, version) = match group {
            Group::Wingbeat => ("wingbeat.dev", "v1alpha1"),
            Group::Flagger => ("flagger.app", "v1beta1"),
        };
        match kind {
            Kind::Canary => Self::namespaced(name, version, "Canary", "canaries"),
            Kind::MetricTemplate => Self::namespaced(name, version, "MetricTemplate", "metrictemplates"),
            Kind::AlertProvider => Self::namespaced(name, version, "AlertProvider", "alertproviders"),
            Kind::CanaryState => Self::CANARY_STATE,
            Kind::Listener => {
                Self { scope: Scope::Cluster, ..Self::namespaced("wingbeat.dev", "v1alpha1", "Listener", "listeners") }
            }
            Kind::Deployment => Self::DEPLOYMENT,
            Kind::HorizontalPodAutoscaler => Self::SCALER,
            Kind::Service => Self::SERVICE,
            Kind::EndpointSlice => Self::ENDPOINT_SLICE,
            Kind::ConfigMap => Self::CONFIG_MAP,
            Kind::Secret => Self::SECRET,
        }
    }

    /// Returns `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Returns how it is called among all kinds, like `canaries.wingbeat.dev`.
    pub fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Returns the path of all its objects, or of those in a namespace.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "api".to_owned() } else { format!("apis/{}", self.group) };
        match (self.scope, namespace) {
            (Scope::Namespaced, Some(namespace)) => {
                format!("/{root}/{}/namespaces/{namespace}/{}", self.version, self.plural)
            }
            (Scope::Namespaced, None) | (Scope::Cluster, _) => format!("/{root}/{}/{}", self.version, self.plural),
        }
    }

    /// Returns true if it is defined by a CustomResourceDefinition of ours.
    pub fn is_custom(&self) -> bool {
        [Group::Wingbeat, Group::Flagger].iter().any(|group| group.as_str() == self.group)
    }
}

/// One object, there or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// What it is.
    pub resource: Resource,
    /// Its namespace; empty if it is in none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectRef {
    /// Returns a reference to an object.
    pub fn new(resource: Resource, namespace: &str, name: &str) -> Self {
        Self { resource, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Returns the path of the objects among which it is.
    pub fn collection(&self) -> String {
        self.resource.path(Some(&self.namespace))
    }

    /// Returns its path.
    pub fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }
}

/// Writes it as messages have it: `Deployment backend.prod`.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, namespace, name } = self;
        let dot = if namespace.is_empty() { "" } else { "." };
        write!(f, "{} {name}{dot}{namespace}", resource.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_an_api_server() {
        for (kind, namespace, path) in [
            (Kind::Service, Some("prod"), "/api/v1/namespaces/prod/services"),
            (Kind::Service, None, "/api/v1/services"),
            (Kind::Canary, Some("prod"), "/apis/flagger.app/v1beta1/namespaces/prod/canaries"),
            (Kind::CanaryState, None, "/apis/wingbeat.dev/v1alpha1/canarystates"),
            (Kind::Listener, Some("prod"), "/apis/wingbeat.dev/v1alpha1/listeners"),
        ] {
            assert_eq!(Resource::of(kind, Group::Flagger).path(namespace), path);
        }
        let service = ObjectRef::new(Resource::SERVICE, "prod", "backend");
        assert_eq!(service.path(), "/api/v1/namespaces/prod/services/backend");
        assert_eq!(service.to_string(), "Service backend.prod");
        assert_eq!(
            (Resource::SERVICE.api_version(), Resource::LEASE.api_version()),
            ("v1".into(), "coordination.k8s.io/v1".into())
        );
        let listener = ObjectRef::new(Resource::of(Kind::Listener, Group::Wingbeat), "", "http");
        assert_eq!(listener.to_string(), "Listener http");
    }

    /// What the definitions say of their kinds is said here once more, to be constant.
    #[test]
    fn resources_are_those_of_the_definitions() {
        let kinds = [Kind::Canary, Kind::MetricTemplate, Kind::AlertProvider, Kind::CanaryState, Kind::Listener];
        for group in [Group::Wingbeat, Group::Flagger] {
            let definitions = group.definitions();
            for resource in kinds.map(|kind| Resource::of(kind, group)).iter().filter(|it| it.group == group.as_str()) {
                let text =
                    |value: &serde_json::Value, at: &str| value.pointer(at).unwrap().as_str().unwrap().to_owned();
                let of_kind = |it: &&serde_json::Value| text(it, "/spec/names/kind") == resource.kind;
                let definition = definitions.iter().find(of_kind).unwrap();
                assert_eq!(text(definition, "/metadata/name"), resource.full_name());
                assert_eq!(text(definition, "/spec/scope") == "Cluster", resource.scope == Scope::Cluster);
                let stored = definition.pointer("/spec/versions").unwrap().as_array().unwrap().iter();
                let stored = stored.filter(|version| version.pointer("/storage").unwrap() == true);
                assert_eq!(stored.map(|it| text(it, "/name")).collect::<Vec<_>>(), [resource.version]);
                assert!(resource.is_custom());
            }
        }
        assert!(!Resource::EVENT.is_custom());
    }
}
