//! Names and numbers that must not be mistaken for one another.

use alloc::sync::Arc;
use core::borrow::Borrow;
use core::fmt;

use serde::{Deserialize, Serialize};

/// The two revisions of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// The revision that serves.
    Primary,
    /// The revision under judgement.
    Canary,
}

impl Arm {
    /// Both arms, primary first.
    pub const ALL: [Self; 2] = [Self::Primary, Self::Canary];

    /// Returns the arm's name as it appears in outputs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Canary => "canary",
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a Canary object, ordered by its namespace first. Shown as Flagger shows it: `backend.prod`. Cheap to clone, as
/// all names are: one goes along with each report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "NameParts")]
pub struct CanaryName {
    /// How it begins. Comparisons begin with it, and most end: a map of ten thousand Canaries compares numbers.
    #[serde(skip)]
    beginning: u128,
    /// The namespace that it lives in.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

#[derive(Deserialize)]
struct NameParts {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl From<NameParts> for CanaryName {
    fn from(parts: NameParts) -> Self {
        Self::new(parts.namespace, parts.name)
    }
}

impl CanaryName {
    /// Returns the name made of both parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        let (namespace, name) = (namespace.into(), name.into());
        let mut beginning = [0; size_of::<u128>()];
        // A shorter namespace comes first, whatever the name is: none has a zero byte.
        let bytes = namespace.bytes().chain([0]).chain(name.bytes());
        beginning.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
        Self { beginning: u128::from_be_bytes(beginning), namespace, name }
    }
}

impl fmt::Display for CanaryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the identifier with this text.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Returns the identifier with this number.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// Returns the number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Returns the next number; the last one stays where it is.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

string_id! {
    /// A version of a workload: a key of `Workload.spec.revisions`, or a pod template hash.
    Revision
}
string_id! {
    /// An Envoy, by `node.id`.
    NodeId
}
string_id! {
    /// An Envoy cluster; ours are named per revision.
    ClusterName
}
number_id! {
    /// One attempt to replace the primary; never used twice for one canary.
    RolloutId
}
number_id! {
    /// One rollout of one canary, as filters and ledger know it: drawn so that no other rollout has the same, not even
    /// of a canary whose state was lost. 0 is no epoch.
    Epoch
}
number_id! {
    /// A counter per canary, raised by every change of its routes; travels as route metadata.
    Rev
}
number_id! {
    /// The version of what the filters are told.
    PolicyVersion
}
number_id! {
    /// Drawn at random by an Envoy process: a restarted one counts from zero.
    BootId
}
number_id! {
    /// Drawn at random by each worker of an Envoy: context ids repeat across workers.
    WorkerId
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Short names of few letters: many begin in the same way, or with a namespace that begins as another one does.
        #[test]
        fn names_are_ordered_by_namespace_and_name(
            one in ("[ab.-]{0,18}", "[ab.-]{0,18}"),
            other in ("[ab.-]{0,18}", "[ab.-]{0,18}"),
        ) {
            let ordered = one.cmp(&other);
            let [one, other] = [one, other].map(|(namespace, name)| CanaryName::new(namespace, name));
            prop_assert_eq!(one.cmp(&other), ordered);
            let again: CanaryName = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
            prop_assert_eq!(again, one);
        }
    }
}
