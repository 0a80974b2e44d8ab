//! What a table says of a field.

use crate::platform::Api;

/// Nothing on its way to a user takes longer: a year. As it is written.
pub(crate) const MAX_DURATION: &str = "8760h";

/// The fields of a mapping.
#[derive(Debug)]
pub struct Object {
    /// What it is called in schemas.
    pub name: &'static str,
    /// In the order of the reference.
    pub fields: &'static [Field],
}

/// A field.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be left out.
    pub presence: Presence,
    /// What holds where it is left out, as it would be written.
    pub default: Option<&'static str>,
    /// What holds where it is left out of a `flagger.app` document, if that differs.
    pub flaggers_default: Option<&'static str>,
    /// One value, as it is written in YAML.
    pub example: Option<&'static str>,
    /// What it does, and when to change it.
    pub doc: &'static str,
    /// What plain Envoy makes of it.
    pub support: Support,
    /// What it holds in a cluster, if that is something else, or something that plain Envoy does not look into.
    pub cluster_kind: Option<Kind>,
    /// Whether it may be left out in a cluster, if that differs.
    pub cluster_presence: Option<Presence>,
    /// What a cluster makes of it, where plain Envoy ignores it.
    pub cluster_use: ClusterUse,
}

/// What a cluster makes of a field that plain Envoy ignores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterUse {
    /// Nothing either.
    Ignored,
    /// Its objects are made from it.
    Objects,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A text of this form.
    Text(Text),
    /// `true` or `false`.
    Truth,
    /// A whole number within these bounds.
    Whole {
        /// The lowest.
        low: i64,
        /// The highest.
        high: i64,
    },
    /// A number.
    Number(Bounds),
    /// A duration, as Go writes it, at least and at most this long.
    Duration {
        /// The shortest, as it is written; `0s` if there is none.
        shortest: &'static str,
        /// The longest, as it is written.
        longest: Option<&'static str>,
    },
    /// A share in percent, below this one or, without, up to `100%`.
    Percent {
        /// The lowest that is too much.
        below: Option<u8>,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list.
    List {
        /// What its entries are.
        of: &'static Self,
        /// How few entries it has.
        least: u8,
    },
    /// A mapping from names that the user chooses.
    Map(&'static Self),
    /// A mapping with these fields.
    Object(&'static Object),
    /// Either of two.
    Either(&'static Self, &'static Self),
    /// Not looked into.
    Anything,
}

/// The form of a text.
#[derive(Debug, Clone, Copy)]
pub enum Text {
    /// Any.
    Any,
    /// Any that matches this pattern of ECMA 262, with its name.
    Pattern(&'static str, &'static str),
    /// One whose form no pattern tells, with its name.
    Form(&'static str),
}

/// Bounds of a number.
#[derive(Debug, Clone, Copy)]
pub enum Bounds {
    /// None.
    Free,
    /// Both are allowed.
    Within(f64, f64),
    /// Neither is allowed.
    Between(f64, f64),
    /// It has to be above.
    Above(f64),
}

/// Whether a field may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It may.
    Optional,
    /// It must be there.
    Required,
    /// It must be there where the document is served by plain Envoy; Flagger's documents may be for something else.
    RequiredHere,
}

/// What plain Envoy makes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It is carried out.
    Full,
    /// It needs nothing to be done: why. No warning, as nothing is missed.
    Moot(&'static str),
    /// It has no effect, which is a warning: why.
    Ignored(&'static str),
    /// It cannot be left out without harm: an error where the document is served, a warning where a document of Flagger's is
    /// checked, which may be for another platform. What is said.
    Refused(&'static str),
}

impl Object {
    pub(crate) const fn of(name: &'static str, fields: &'static [Field]) -> Self {
        Self { name, fields }
    }

    /// Returns the field of this name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Field {
    pub(crate) const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self {
            name,
            kind,
            presence: Presence::Optional,
            default: None,
            flaggers_default: None,
            example: None,
            doc,
            support: Support::Full,
            cluster_kind: None,
            cluster_presence: None,
            cluster_use: ClusterUse::Ignored,
        }
    }

    /// A cluster's objects are made from it.
    pub(crate) const fn makes_objects(mut self) -> Self {
        self.cluster_use = ClusterUse::Objects;
        self
    }

    pub(crate) const fn required(mut self) -> Self {
        self.presence = Presence::Required;
        self
    }

    pub(crate) const fn required_here(mut self) -> Self {
        self.presence = Presence::RequiredHere;
        self
    }

    pub(crate) const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    pub(crate) const fn flaggers_default(mut self, default: &'static str) -> Self {
        self.flaggers_default = Some(default);
        self
    }

    pub(crate) const fn example(mut self, example: &'static str) -> Self {
        self.example = Some(example);
        self
    }

    /// Says what it holds in a cluster.
    pub(crate) const fn in_cluster(mut self, kind: Kind) -> Self {
        self.cluster_kind = Some(kind);
        self
    }

    /// In a cluster, something else stands in for it.
    pub(crate) const fn optional_in_cluster(mut self) -> Self {
        self.cluster_presence = Some(Presence::Optional);
        self
    }

    /// Only a cluster needs it.
    pub(crate) const fn required_in_cluster(mut self) -> Self {
        self.cluster_presence = Some(Presence::Required);
        self
    }

    pub(crate) const fn moot(mut self, why: &'static str) -> Self {
        self.support = Support::Moot(why);
        self
    }

    /// A field that is taken and not looked into.
    pub(crate) const fn ignored(name: &'static str, doc: &'static str, why: &'static str) -> Self {
        let mut field = Self::new(name, Kind::Anything, doc);
        field.support = Support::Ignored(why);
        field
    }

    /// A field that is not taken where it would be served.
    pub(crate) const fn refused(name: &'static str, doc: &'static str, said: &'static str) -> Self {
        let mut field = Self::new(name, Kind::Anything, doc);
        field.support = Support::Refused(said);
        field
    }

    /// Returns what holds in an API where the field is left out.
    pub const fn default_in(&self, api: Api) -> Option<&'static str> {
        match (api, self.flaggers_default) {
            (Api::FlaggerV1Beta1 | Api::FlaggerV1Alpha3, Some(default)) => Some(default),
            (Api::Wingbeat | Api::FlaggerV1Beta1 | Api::FlaggerV1Alpha3, _) => self.default,
        }
    }
}

impl Kind {
    /// Any text.
    pub(crate) const TEXT: Self = Self::Text(Text::Any);
    /// Any duration.
    pub(crate) const DURATION: Self = Self::Duration { shortest: "0s", longest: None };
    /// How long something on the way to a user may take.
    pub(crate) const LIMIT: Self = Self::Duration { shortest: "0s", longest: Some(MAX_DURATION) };
    /// Any share.
    pub(crate) const PERCENT: Self = Self::Percent { below: None };
    /// A count that has 32 bits.
    pub(crate) const COUNT: Self = Self::Whole { low: 0, high: u32::MAX as i64 };

    /// A list, empty or not.
    pub(crate) const fn list(of: &'static Self) -> Self {
        Self::List { of, least: 0 }
    }

    /// A list that must not be empty.
    pub(crate) const fn some(of: &'static Self) -> Self {
        Self::List { of, least: 1 }
    }
}
