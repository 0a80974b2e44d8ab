//! The kinds that a cluster is given, as CustomResourceDefinitions.
//!
//! Fields come from the tables in `wingbeat_api::shape`, which the decoder reads too: there is no second list of them. What a
//! structural schema cannot tell, rules in CEL tell; what neither can, the controller tells by a condition.

mod columns;
mod rules;
mod schema;
mod status;

use serde_json::{Map, Value, json};
use wingbeat_api::Api;
use wingbeat_api::shape::Document;
use wingbeat_api::yaml::to_yaml;

/// What definitions need of each other and of the controller. One that needs a higher level than it finds is not ready; a
/// lower one is no harm, as fields are only added.
pub const LEVEL: u32 = 1;
/// The annotation that holds [`LEVEL`].
pub const LEVEL_ANNOTATION: &str = "wingbeat.dev/level";

/// A group of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// `wingbeat.dev`: strict.
    Wingbeat,
    /// `flagger.app`: takes whatever Flagger's own definitions take.
    Flagger,
}

/// Where objects of a kind live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Namespaced,
    Cluster,
}

/// A kind.
struct Resource {
    kind: &'static str,
    plural: &'static str,
    scope: Scope,
    /// Whether `kubectl get all` shows its objects.
    is_in_all: bool,
    /// What it is for, where no document has it.
    doc: &'static str,
}

/// What Flagger has.
const FLAGGERS: [Resource; 3] = [
    Resource::shown("Canary", "canaries"),
    Resource::shown("MetricTemplate", "metrictemplates"),
    Resource::shown("AlertProvider", "alertproviders"),
];
/// What only we have.
const OWN: [Resource; 2] = [
    Resource {
        kind: "CanaryState",
        plural: "canarystates",
        scope: Scope::Namespaced,
        is_in_all: false,
        doc: "What the controller decided about the Canary of this name. It is the truth about a rollout; leave it alone.",
    },
    Resource { kind: "Listener", plural: "listeners", scope: Scope::Cluster, is_in_all: false, doc: "" },
];

impl Resource {
    const fn shown(kind: &'static str, plural: &'static str) -> Self {
        Self { kind, plural, scope: Scope::Namespaced, is_in_all: true, doc: "" }
    }

    /// Returns its definition.
    fn definition(&self, group: Group) -> Value {
        let versions: Vec<Value> = group.apis().iter().map(|api| self.version(*api)).collect();
        let mut names = json!({
            "kind": self.kind,
            "listKind": format!("{}List", self.kind),
            "plural": self.plural,
            "singular": self.kind.to_ascii_lowercase(),
        });
        if let Value::Object(names) = &mut names
            && self.is_in_all
        {
            names.insert("categories".to_owned(), json!(["all"]));
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{}.{}", self.plural, group.as_str()),
                "annotations": {"helm.sh/resource-policy": "keep", LEVEL_ANNOTATION: LEVEL.to_string()},
            },
            "spec": {
                "group": group.as_str(),
                "scope": match self.scope {
                    Scope::Namespaced => "Namespaced",
                    Scope::Cluster => "Cluster",
                },
                "names": names,
                "conversion": {"strategy": "None"},
                "versions": versions,
            },
        })
    }

    fn version(&self, api: Api) -> Value {
        let (_, name) = api.as_str().split_once('/').unwrap_or_default();
        let is_old = api == Api::FlaggerV1Alpha3;
        let mut version = json!({
            "name": name,
            "served": true,
            "storage": !is_old,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": self.schema(api)},
        });
        if let Value::Object(version) = &mut version {
            let columns = columns::of_kind(self.kind, api);
            if !columns.is_empty() {
                version.insert("additionalPrinterColumns".to_owned(), Value::Array(columns));
            }
            if is_old {
                let warning = format!(
                    "{} {} is read as in 2019; write {}",
                    api.as_str(),
                    self.kind,
                    Api::FlaggerV1Beta1.as_str()
                );
                version.insert("deprecated".to_owned(), json!(true));
                version.insert("deprecationWarning".to_owned(), json!(warning));
            }
        }
        version
    }

    fn schema(&self, api: Api) -> Value {
        let document = Document::ALL.into_iter().find(|it| it.api == api && it.kind == self.kind);
        let mut properties = Map::from_iter([
            ("apiVersion".to_owned(), json!({"type": "string"})),
            ("kind".to_owned(), json!({"type": "string"})),
            ("metadata".to_owned(), json!({"type": "object"})),
            ("status".to_owned(), status::of_kind(self.kind)),
        ]);
        let mut required = Vec::new();
        if let Some(document) = document {
            properties.insert("spec".to_owned(), schema::of_object(document.spec, api));
            required.push("spec");
        }
        let doc = document.map_or(self.doc, |document| document.doc);
        let mut schema = json!({"type": "object", "description": doc, "properties": properties});
        if let Value::Object(schema) = &mut schema
            && !required.is_empty()
            && api == Api::Wingbeat
        {
            schema.insert("required".to_owned(), json!(required));
        }
        schema
    }
}

impl Group {
    /// Returns its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wingbeat => "wingbeat.dev",
            Self::Flagger => "flagger.app",
        }
    }

    /// Returns its versions, the one that is stored first.
    const fn apis(self) -> &'static [Api] {
        match self {
            Self::Wingbeat => &[Api::Wingbeat],
            Self::Flagger => &[Api::FlaggerV1Beta1, Api::FlaggerV1Alpha3],
        }
    }

    /// Returns the definitions of its kinds.
    pub fn definitions(self) -> Vec<Value> {
        let own: &[Resource] = match self {
            Self::Wingbeat => &OWN,
            Self::Flagger => &[],
        };
        FLAGGERS.iter().chain(own).map(|resource| resource.definition(self)).collect()
    }

    /// Returns the same as YAML, one document each.
    pub fn manifest(self) -> String {
        self.definitions().iter().flat_map(|definition| ["---\n".to_owned(), to_yaml(definition)]).collect()
    }
}
