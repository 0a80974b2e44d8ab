//! The three Services: who asks for the target by its name gets the primary, and each arm has a name of its own.

use serde_json::{Map, Value, json};
use wingbeat_core::id::Arm;

use super::metadata::{ARM_LABEL, CANARY_LABEL, Texts, left_by_flux};
use super::observed::Observed;
use super::owner::{Canary, Existing, MAX_LABEL_LEN, controller_of, label_value};
use super::ports::Source;
use super::primary::selector;
use super::problem::Problems;
use super::target::Target;
use crate::object::{is_true, list, put, text, texts, to_json};

/// The Services, as they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// That of the target's name.
    pub apex: Value,
    /// That of the primary.
    pub primary: Value,
    /// That of the canary.
    pub canary: Value,
}

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Apex,
    Of(Arm),
}

impl Role {
    /// Returns the name of the Service.
    fn name(self, apex: &str) -> String {
        match self {
            Self::Apex => apex.to_owned(),
            Self::Of(arm) => format!("{apex}-{arm}"),
        }
    }

    /// Returns the field of `service` that holds its labels and annotations.
    const fn field(self) -> &'static str {
        match self {
            Self::Apex => "apex",
            Self::Of(arm) => arm.as_str(),
        }
    }

    /// Returns the labels of the Pods that it chooses. Nobody gets the canary who does not ask for it.
    fn pods(self, target: &Target<'_>, primary: &Texts) -> Texts {
        match self {
            Self::Apex | Self::Of(Arm::Primary) => primary.clone(),
            Self::Of(Arm::Canary) => Texts::from([(target.label.key.clone(), target.label.value.clone())]),
        }
    }
}

/// Returns the Services; nothing if there is something in their way, which is among the problems.
pub(super) fn desire(
    observed: &Observed<'_>,
    canary: &Canary<'_>,
    target: &Target<'_>,
    problems: &mut Problems,
) -> Option<Services> {
    let service = canary.service();
    let apex = text(service, "/name").filter(|name| !name.is_empty()).unwrap_or(target.name);
    let longest = Role::Of(Arm::Primary).name(apex);
    if longest.len() > MAX_LABEL_LEN || !apex.starts_with(|c: char| c.is_ascii_lowercase()) || apex.contains('.') {
        let wrong = format!("would make a Service {longest}, which is no name of one");
        let mend = "use at most 55 lower case letters, digits and -, a letter first";
        problems.add(&canary.shown(), "spec.service.name", wrong, mend);
        return None;
    }
    let (shown, target_shown) = (canary.shown(), format!("Deployment {}.{}", target.name, canary.namespace));
    let source = Source { canary: &shown, service, target: &target_shown, containers: target.containers() };
    let ports = source.desire(problems);
    let primary = selector(canary.find(observed.existing, "Deployment", &target.primary_name()), target);
    let mut make = |role: Role| {
        let existing = existing(observed, canary, &role.name(apex), problems)?;
        Some(one(role, apex, existing, canary, (target, &primary), ports.clone()?))
    };
    let (apex, primary, canary) = (make(Role::Apex), make(Role::Of(Arm::Primary)), make(Role::Of(Arm::Canary)));
    Some(Services { apex: apex?, primary: primary?, canary: canary? })
}

fn existing<'a>(
    observed: &Observed<'a>,
    canary: &Canary<'a>,
    name: &str,
    problems: &mut Problems,
) -> Option<Existing<'a>> {
    let existing = canary.find(observed.existing, "Service", name);
    let (wrong, mend) = match existing {
        Existing::Foreign(object) => {
            let wrong = format!("belongs to {}, and {} needs it", controller_of(object), canary.shown());
            (wrong, "give one of both another spec.service.name")
        }
        Existing::Former => canary.former(),
        Existing::Absent | Existing::Owned(_) | Existing::Unowned(_) => return Some(existing),
    };
    problems.add(&format!("Service {name}.{}", canary.namespace), "", wrong, mend);
    None
}

/// Returns one of them. What nobody made for us is taken over, with its labels, type and owners as they are.
fn one(
    role: Role,
    apex: &str,
    existing: Existing<'_>,
    canary: &Canary<'_>,
    (target, primary): (&Target<'_>, &Texts),
    ports: Vec<Value>,
) -> Value {
    let service = canary.service();
    let name = role.name(apex);
    let is_adopted = matches!(existing, Existing::Unowned(_));
    let given = |what: &str| {
        if is_adopted { Texts::new() } else { texts(service, &format!("/{}/{what}", role.field())) }
    };
    let is_left = |what: &str, key: &str| {
        list(service, &format!("/unmanagedMetadata/{what}")).iter().any(|left| left.as_str() == Some(key))
    };
    let mut labels = given("labels");
    if !is_adopted {
        labels.insert(target.label.key.clone(), name.clone());
    }
    let mut annotations = left_by_flux(given("annotations"));
    labels.retain(|key, _| !is_left("labels", key));
    annotations.retain(|key, _| !is_left("annotations", key));
    // Slices of endpoints are found by what their Service says.
    labels.insert(CANARY_LABEL.to_owned(), label_value(canary.name));
    if let Role::Of(arm) = role {
        labels.insert(ARM_LABEL.to_owned(), arm.as_str().to_owned());
    }
    let mut metadata = Map::from_iter([
        ("name".to_owned(), json!(name)),
        ("namespace".to_owned(), json!(canary.namespace)),
        ("labels".to_owned(), to_json(labels)),
        ("annotations".to_owned(), to_json(annotations)),
    ]);
    let mut spec = Map::from_iter([
        ("selector".to_owned(), to_json(role.pods(target, primary))),
        ("ports".to_owned(), Value::Array(ports)),
    ]);
    if !is_adopted {
        metadata.insert("ownerReferences".to_owned(), canary.reference());
        spec.insert("type".to_owned(), json!("ClusterIP"));
        let distribution = text(service, "/trafficDistribution").filter(|it| !it.is_empty());
        put(&mut spec, "trafficDistribution", distribution.map(Value::from));
        // An address that is there cannot be taken away.
        let has_address =
            matches!(existing, Existing::Owned(object) if text(object, "/spec/clusterIP") != Some("None"));
        put(&mut spec, "clusterIP", (is_true(service, "/headless") && !has_address).then(|| json!("None")));
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}
