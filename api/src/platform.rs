//! All that depends on the platform, or on the API that a document is written for: what is an error there, and what a warning.

use wingbeat_core::rollout::Handover;

/// What is to carry out a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Platform {
    /// Plain Envoys, served from files.
    #[default]
    Envoy,
    /// Plain Envoys in front of a cluster's Deployments, served from objects of its API server.
    Cluster,
    /// Not decided: the document is only checked, and one of Flagger's may be for a mesh or a cluster.
    Undecided,
}

/// The API that a document is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Ours.
    Wingbeat,
    /// Flagger's of today.
    FlaggerV1Beta1,
    /// Flagger's of 2019.
    FlaggerV1Alpha3,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The document is refused.
    Error,
    /// It is taken all the same.
    Warning,
}

/// The rules by which a document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) api: Api,
    pub(crate) platform: Platform,
}

impl Api {
    /// Every one that is read.
    pub const ALL: [Self; 3] = [Self::Wingbeat, Self::FlaggerV1Beta1, Self::FlaggerV1Alpha3];

    /// Returns its `apiVersion`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wingbeat => "wingbeat.dev/v1alpha1",
            Self::FlaggerV1Beta1 => "flagger.app/v1beta1",
            Self::FlaggerV1Alpha3 => "flagger.app/v1alpha3",
        }
    }

    /// Returns the API of this `apiVersion`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|api| api.as_str() == text)
    }
}

impl Terms {
    /// Returns how bad it is to write what the API does not have, or what makes no sense in it. Flagger leaves such things
    /// out in silence, and its users' documents are taken as they are.
    pub(crate) const fn slip(self) -> Severity {
        match self.api {
            Api::Wingbeat => Severity::Error,
            Api::FlaggerV1Beta1 | Api::FlaggerV1Alpha3 => Severity::Warning,
        }
    }

    /// Returns how bad it is to ask for what plain Envoy cannot do, or not to say what it needs.
    pub(crate) const fn unsupported(self) -> Severity {
        match (self.platform, self.api) {
            (Platform::Undecided, Api::FlaggerV1Beta1 | Api::FlaggerV1Alpha3) => Severity::Warning,
            (Platform::Envoy | Platform::Cluster, _) | (Platform::Undecided, Api::Wingbeat) => Severity::Error,
        }
    }

    /// Returns how bad it is to leave out what files need and a cluster knows by itself: hosts, listeners, endpoints.
    pub(crate) const fn left_out(self) -> Severity {
        match self.platform {
            Platform::Cluster => Severity::Warning,
            Platform::Envoy | Platform::Undecided => self.unsupported(),
        }
    }

    /// Returns how a revision that passed becomes the primary: a Deployment beside the target takes it over in a cluster.
    pub(crate) const fn handover(self) -> Handover {
        match self.platform {
            Platform::Cluster => Handover::Copy,
            Platform::Envoy | Platform::Undecided => Handover::Relabel,
        }
    }
}
