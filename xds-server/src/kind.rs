//! The types of resources.

/// The resource types that are served, in the order in which a change is sent: what is referred to comes before
/// what refers to it (xDS protocol, "Eventual consistency considerations").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Routes,
    /// ECDS.
    Extension,
}

impl Kind {
    /// Every type, in sending order.
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Routes, Self::Extension];

    /// Returns the type's URL.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        }
    }

    /// Returns the type of this URL.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// Returns true where a client that names nothing wants everything (xDS protocol, "Wildcard"). In state of the
    /// world, responses of these types carry all that is wanted: what is left out is gone.
    pub const fn has_wildcard(self) -> bool {
        match self {
            Self::Cluster | Self::Listener => true,
            Self::Endpoints | Self::Routes | Self::Extension => false,
        }
    }

    /// Returns the type whose resources refer to those of this one. What refers must go first.
    pub const fn referred_by(self) -> Option<Self> {
        match self {
            Self::Cluster | Self::Endpoints => Some(Self::Routes),
            Self::Routes | Self::Extension => Some(Self::Listener),
            Self::Listener => None,
        }
    }
}
