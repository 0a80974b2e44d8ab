//! The definitions that a cluster is given: one truth with the decoder, a form that API servers take, and no more than
//! Flagger's.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "what is not there fails the test")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use wingbeat_kubernetes::crds::Group;

mod decoder;
mod documents;
mod paths;
mod structure;

/// A version of a definition.
#[derive(Debug)]
struct Version {
    group: Group,
    kind: String,
    name: String,
    schema: Value,
}

impl Version {
    /// Returns every version of every kind.
    fn all() -> Vec<Self> {
        let of_group = |group: Group| group.definitions().into_iter().map(move |definition| (group, definition));
        let definitions = [Group::Wingbeat, Group::Flagger].into_iter().flat_map(of_group);
        let versions = definitions.flat_map(|(group, definition)| {
            let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
            let versions = definition["spec"]["versions"].as_array().unwrap().clone();
            versions.into_iter().map(move |version| Self {
                group,
                kind: kind.clone(),
                name: version["name"].as_str().unwrap().to_owned(),
                schema: version["schema"]["openAPIV3Schema"].clone(),
            })
        });
        versions.collect()
    }

    /// Returns the one of this name.
    fn of(api_version: &str, kind: &str) -> Self {
        Self::all().into_iter().find(|version| version.api_version() == api_version && version.kind == kind).unwrap()
    }

    fn api_version(&self) -> String {
        format!("{}/{}", self.group.as_str(), self.name)
    }
}

#[test]
fn the_kinds_are_those_of_the_two_groups() {
    let shown: Vec<String> = Version::all().iter().map(|it| format!("{} {}", it.api_version(), it.kind)).collect();
    assert_eq!(
        shown,
        [
            "wingbeat.dev/v1alpha1 Canary",
            "wingbeat.dev/v1alpha1 MetricTemplate",
            "wingbeat.dev/v1alpha1 AlertProvider",
            "wingbeat.dev/v1alpha1 CanaryState",
            "wingbeat.dev/v1alpha1 Listener",
            "flagger.app/v1beta1 Canary",
            "flagger.app/v1alpha3 Canary",
            "flagger.app/v1beta1 MetricTemplate",
            "flagger.app/v1alpha3 MetricTemplate",
            "flagger.app/v1beta1 AlertProvider",
            "flagger.app/v1alpha3 AlertProvider",
        ]
    );
}

#[test]
fn one_version_is_stored_and_all_are_served_without_a_webhook() {
    for definition in [Group::Wingbeat, Group::Flagger].into_iter().flat_map(Group::definitions) {
        let spec = &definition["spec"];
        assert_eq!(spec["conversion"], json!({"strategy": "None"}));
        let versions = spec["versions"].as_array().unwrap();
        assert!(versions.iter().all(|it| it["served"] == true && it["subresources"] == json!({"status": {}})));
        let stored: Vec<&Value> = versions.iter().filter(|it| it["storage"] == true).map(|it| &it["name"]).collect();
        let expected = if spec["group"] == "flagger.app" { "v1beta1" } else { "v1alpha1" };
        assert_eq!(stored, [expected], "{}", definition["metadata"]["name"]);
    }
}

/// The columns of the guide, and Flagger's wide ones.
#[test]
fn canaries_are_printed_as_flaggers_are() {
    for definition in [Group::Wingbeat, Group::Flagger].into_iter().map(|group| group.definitions().remove(0)) {
        let columns = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap();
        let names = |is_wide: bool| -> Vec<String> {
            let of_kind = columns.iter().filter(|column| (column["priority"] == 1) == is_wide);
            of_kind.map(|column| column["name"].as_str().unwrap().to_ascii_uppercase()).collect()
        };
        assert_eq!(names(false), ["STATUS", "WEIGHT", "LASTTRANSITIONTIME"]);
        let wide = ["SUSPENDED", "FAILEDCHECKS", "INTERVAL", "MIRROR", "STEPWEIGHT", "STEPWEIGHTS", "MAXWEIGHT"];
        assert_eq!(names(true), wide);
        assert_eq!(definition["spec"]["names"]["categories"], json!(["all"]));
        for column in columns {
            let path = column["jsonPath"].as_str().unwrap().split('.').skip(1);
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let found = path.fold(schema, |schema, name| &schema["properties"][name]);
            assert!(found.is_object(), "{column} is a column of nothing");
        }
    }
}

/// Beyond 256 KiB, `kubectl apply` has no room for the copy that it keeps in an annotation.
#[test]
fn kubectl_can_apply_them() {
    for definition in [Group::Wingbeat, Group::Flagger].into_iter().flat_map(Group::definitions) {
        let bytes = definition.to_string().len();
        println!("{}: {bytes} bytes", definition["metadata"]["name"]);
        assert!(bytes < 240 * 1024, "{}: {bytes} bytes", definition["metadata"]["name"]);
    }
}

#[test]
fn the_manifest_is_what_the_definitions_are() {
    for group in [Group::Wingbeat, Group::Flagger] {
        let read = wingbeat_api::yaml::parse(&group.manifest()).unwrap();
        let read: Vec<Value> = read.iter().map(wingbeat_api::yaml::Node::to_json).collect();
        assert_eq!(read, group.definitions());
    }
}
