//! Whatever came before: the index is the one that is built from what there is, and who was concerned was told.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Something that an API server tells.
#[derive(Debug, Clone)]
enum Event {
    Apply(Kind, Value),
    Delete(Kind, String, String),
}

const KINDS: [Kind; 8] = [
    Kind::Canary,
    Kind::CanaryState,
    Kind::MetricTemplate,
    Kind::AlertProvider,
    Kind::Listener,
    Kind::Deployment,
    Kind::Service,
    Kind::EndpointSlice,
];

fn small_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "a-primary", "a-canary"]).prop_map(str::to_owned)
}

fn namespace() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["x", "y"]).prop_map(str::to_owned)
}

fn event() -> impl Strategy<Value = Event> {
    let parts =
        (prop::sample::select(KINDS.to_vec()), namespace(), small_name(), small_name(), 0_u64..3, any::<bool>());
    parts.prop_map(|(kind, namespace, name, other, number, is_gone)| {
        let namespace = if kind == Kind::Listener { String::new() } else { namespace };
        if is_gone && number == 0 {
            return Event::Delete(kind, namespace, name);
        }
        let object = match kind {
            Kind::Canary => canary(&namespace, &name, json!({
                "targetRef": {"kind": "Deployment", "name": other},
                "service": {"name": if number == 0 { "" } else { "a" }, "listeners": if number == 1 { vec!["a"] } else { vec![] }},
                "analysis": {"metrics": [{"templateRef": {"name": other, "namespace": "x"}}]},
            })),
            Kind::EndpointSlice => {
                let arm = if number == 0 { "primary" } else { "canary" };
                slice(&namespace, &name, &other, arm, &format!("10.0.0.{number}"))
            }
            Kind::CanaryState
            | Kind::MetricTemplate
            | Kind::AlertProvider
            | Kind::Listener
            | Kind::Deployment
            | Kind::HorizontalPodAutoscaler
            | Kind::Service
            | Kind::ConfigMap
            | Kind::Secret => object(&namespace, &name, number),
        };
        Event::Apply(kind, object)
    })
}

/// Returns what a Canary is evaluated by.
fn shown(world: &World, name: &CanaryName) -> (Vec<Option<Value>>, Vec<BTreeSet<SocketAddr>>) {
    let own = [Kind::Canary, Kind::CanaryState].map(|kind| ObjectKey::new(kind, &name.namespace, &name.name));
    let canary = world.get(&own[0]);
    let target =
        canary.as_ref().and_then(|it| it.pointer("/spec/targetRef/name")).and_then(Value::as_str).unwrap_or("");
    let others = [target.to_owned(), format!("{target}-primary")]
        .map(|target| ObjectKey::new(Kind::Deployment, &name.namespace, &target));
    let objects = own.iter().chain(&others).map(|key| world.get(key)).collect();
    (objects, Arm::ALL.map(|arm| world.endpoints(name, arm, "http", 0)).to_vec())
}

proptest! {
    #[test]
    fn the_index_is_that_of_what_there_is(events in prop::collection::vec(event(), 0..60)) {
        let mut world = World::default();
        let mut there: BTreeMap<ObjectKey, Value> = BTreeMap::new();
        for event in events {
            let before = world.clone();
            let concerned = match event {
                Event::Apply(kind, object) => {
                    there.insert(ObjectKey::of(kind, &object).unwrap(), object.clone());
                    world.apply(kind, &object)
                }
                Event::Delete(kind, namespace, name) => {
                    let key = ObjectKey::new(kind, &namespace, &name);
                    there.remove(&key);
                    world.delete(&key)
                }
            };
            // Who is evaluated by something else than before was told.
            let all: BTreeSet<CanaryName> = before.canaries().chain(world.canaries()).cloned().collect();
            for name in all.difference(&concerned) {
                prop_assert_eq!(shown(&before, name), shown(&world, name), "{} was not told", name);
            }
        }
        let mut fresh = World::default();
        for (key, object) in &there {
            fresh.apply(key.kind, object);
        }
        prop_assert_eq!(&world, &fresh);
        for (key, object) in &there {
            prop_assert_eq!(world.apply(key.kind, object), BTreeSet::new(), "nothing is different");
        }
        prop_assert_eq!(&world, &fresh);
    }
}
