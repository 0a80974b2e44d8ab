//! Field by field beside what Flagger 1.44 wrote on an API server of 1.36, for the same target and Canary.
//!
//! The files hold what it wrote. What API server and controller manager add to every object (uid, clusterIP, status and the
//! like) is left out of them.

use std::collections::BTreeSet;

use super::*;

/// Returns the objects of a file by kind and name.
fn objects(text: &str) -> BTreeMap<String, Value> {
    let documents = wingbeat_api::yaml::parse(text).unwrap();
    let named = documents.iter().map(|document| {
        let object = document.to_json();
        let of = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
        (format!("{} {}", of("/kind"), of("/metadata/name")), object)
    });
    named.collect()
}

/// Returns the paths at which two values differ.
fn differences(path: &str, ours: &Value, theirs: &Value) -> BTreeSet<String> {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let none = Value::Null;
            let inner = keys.into_iter().map(|key| {
                differences(&format!("{path}/{key}"), a.get(key).unwrap_or(&none), b.get(key).unwrap_or(&none))
            });
            inner.flatten().collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.flat_map(|(place, (a, b))| differences(&format!("{path}/{place}"), a, b)).collect()
        }
        _ if ours == theirs => BTreeSet::new(),
        _ => BTreeSet::from([path.to_owned()]),
    }
}

/// Where ours differ from Flagger's, and why.
const DIFFERENCES: [(&str, &str); 6] = [
    (
        "Deployment backend-primary/metadata/annotations",
        "Flagger copies all of the target's annotations where it makes the primary, and drops them at the first promotion. \
         What kubectl and the controller manager wrote of another object is of no use there; prefixes say what is copied.",
    ),
    ("Service backend/metadata/labels/wingbeat.dev/canary", "who reads the cluster sees what the Service is for"),
    ("Service backend-primary/metadata/labels/wingbeat.dev/canary", "slices of endpoints are found by it"),
    ("Service backend-primary/metadata/labels/wingbeat.dev/arm", "slices of endpoints are found by it"),
    ("Service backend-canary/metadata/labels/wingbeat.dev/canary", "slices of endpoints are found by it"),
    ("Service backend-canary/metadata/labels/wingbeat.dev/arm", "slices of endpoints are found by it"),
];

fn ours(given: &BTreeMap<String, Value>, promotion: &str, existing: &[&Value]) -> BTreeMap<String, Value> {
    let (canary, target) = (&given["Canary backend"], &given["Deployment backend"]);
    let observed = Observed { canary, target, existing, promotion, renames: &Renames::new() };
    let Desired { primary, services, .. } = Desired::of(&observed, &Settings::default()).unwrap();
    let mut sized = primary.object;
    // Given in a write of its own.
    sized["spec"]["replicas"] = primary.replicas.into();
    let of_target = &given["HorizontalPodAutoscaler backend"];
    let scaling = Scaling {
        canary,
        of_target: Some(of_target),
        of_primary: existing.iter().copied().find(|it| it["kind"] == of_target["kind"]),
        primary: "backend-primary",
        source: Source::Target,
        floor: None,
    };
    let scaler = scaling.desired(&Settings::default()).unwrap().unwrap();
    let all = [sized, services.apex, services.primary, services.canary, scaler];
    let named = all.into_iter().map(|object| {
        let of = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
        (format!("{} {}", of("/kind"), of("/metadata/name")), object)
    });
    named.collect()
}

fn found(ours: &BTreeMap<String, Value>, theirs: &BTreeMap<String, Value>) -> BTreeSet<String> {
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    names.into_iter().flat_map(|name| differences(name, &ours[name], &theirs[name])).collect()
}

#[test]
fn what_is_made_differs_from_flaggers_in_named_fields_alone() {
    let given = objects(include_str!("given.yaml"));
    let theirs = objects(include_str!("flagger-initialized.yaml"));
    let ours = ours(&given, "12e04cd2-22f6-48dc-ae50-331f144360d4", &[]);
    assert_eq!(ours.len(), 5);
    let expected: BTreeSet<String> = DIFFERENCES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(found(&ours, &theirs), expected);
    for (path, why) in DIFFERENCES {
        println!("{path}: {why}");
    }
}

/// After a promotion the annotations are the same, too.
#[test]
fn what_is_promoted_differs_less() {
    let mut given = objects(include_str!("given.yaml"));
    let mut theirs = objects(include_str!("flagger-initialized.yaml"));
    let image = "/spec/template/spec/containers/0/image";
    *given.get_mut("Deployment backend").unwrap().pointer_mut(image).unwrap() = json!("app:1.4.1");
    let primary = theirs.get_mut("Deployment backend-primary").unwrap();
    *primary.pointer_mut(image).unwrap() = json!("app:1.4.1");
    *primary.pointer_mut("/spec/template/metadata/annotations/flagger-id").unwrap() =
        json!("6db919be-6933-4db4-b7b7-075b0bd5195c");
    primary.pointer_mut("/metadata").unwrap().as_object_mut().unwrap().remove("annotations");
    // The scaler of the guide has the primary's size.
    primary.pointer_mut("/spec").unwrap().as_object_mut().unwrap().remove("replicas");
    let there = theirs.clone();
    let existing: Vec<&Value> = there.values().collect();
    let ours = ours(&given, "6db919be-6933-4db4-b7b7-075b0bd5195c", &existing);
    let expected: BTreeSet<String> = DIFFERENCES.iter().skip(1).map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(found(&ours, &theirs), expected);
}
