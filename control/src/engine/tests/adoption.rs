//! Proxies that have routes of another state.

use wingbeat_xds_server::lineage::Unmarked;

use super::*;

fn foreign(hosts: &[&str]) -> ClientEvent {
    let hosts = hosts.iter().map(ToString::to_string).collect();
    ClientEvent { node: "edge-1".to_owned(), stream: 1, what: ClientEventKind::Foreign(hosts) }
}

impl World {
    fn adoption(&self) -> Adoption {
        let unadopted = self.engine.model().unadopted;
        unadopted.get("public").and_then(|hosts| hosts.get("prod/backend")).copied().unwrap_or_default()
    }

    fn pass(&mut self, secs: u64) {
        for _ in 0..secs * 10 {
            self.now = self.now.plus(Span::from_millis(100));
            self.tick();
        }
    }

    fn condition(&mut self) -> Option<String> {
        let board = self.engine.status(true, self.now);
        let view = board.canaries.values().next()?;
        view.conditions.iter().find(|condition| condition.kind == "Adopted").map(|condition| condition.message.clone())
    }
}

#[test]
fn a_canary_is_held_until_it_is_approved_also_across_restarts() {
    let mut world = World::new();
    assert_eq!((world.adoption(), world.condition()), (Adoption::Open, None));
    world.engine.observe(&foreign(&["prod/other", "what"]), world.now);
    assert_eq!(world.adoption(), Adoption::Open);
    world.engine.observe(&foreign(&["prod/backend"]), world.now);
    world.engine.observe(&foreign(&["prod/backend"]), world.now);
    world.pass(1);
    let told =
        world.texts.iter().filter(|text| text.contains("Envoy edge-1 came with routes of another state")).count();
    assert_eq!((world.adoption(), told), (Adoption::Contested, 1));
    for _ in 0..2 {
        let shown = world.condition().expect("it is shown");
        assert!(shown.contains("`wingbeat approve prod/backend` makes revision 1 the primary"), "{shown}");
        world.engine.configure(desired_state("2"), world.now);
        world.pass(10);
        assert_eq!((world.phase(), world.weight()), ("Initialized", BasisPoints::ZERO), "nothing begins");
        world = world.restart();
        world.engine.configure(desired_state("2"), world.now);
        assert_eq!(world.adoption(), Adoption::Contested);
    }
    let refused = world.engine.command(&name(), Command::Promote, "1", world.now);
    assert!(refused.is_err_and(|why| why.contains("wingbeat approve")));
    world.store.set_full(true);
    assert!(world.engine.command(&name(), Command::Approve, "2", world.now).is_err(), "what is not stored is not done");
    assert_eq!(world.adoption(), Adoption::Contested);
    world.store.set_full(false);
    world.pass(1);
    for _ in 0..2 {
        assert_eq!(world.engine.command(&name(), Command::Approve, "3", world.now), Ok(()));
    }
    assert_eq!((world.adoption(), world.condition()), (Adoption::Adopted, None));
    assert!(world.serve());
    world = world.restart();
    world.engine.configure(desired_state("2"), world.now);
    world.engine.observe(&foreign(&["prod/backend"]), world.now);
    assert_eq!((world.adoption(), world.condition()), (Adoption::Adopted, None), "it was approved");
    world.pass(2);
    assert_eq!(world.phase(), "Progressing");
}

/// The share is frozen, and what harms still leaves.
#[test]
fn a_rollout_that_is_held_moves_only_back() {
    let mut world = World::new();
    world.rollout();
    while world.weight() == BasisPoints::ZERO {
        world.traffic((90, 0), (0, 0));
    }
    let weight = world.weight();
    world.engine.observe(&foreign(&["prod/backend"]), world.now);
    for _ in 0..1_500 {
        world.traffic((90, 0), (10, 0));
    }
    assert_eq!((world.phase(), world.weight()), ("Progressing", weight));
    for _ in 0..20 {
        world.traffic((90, 0), (10, 10));
    }
    assert_eq!((world.phase(), world.weight()), ("Failed", BasisPoints::ZERO));
    assert_eq!(world.adoption(), Adoption::Contested, "that decided nothing");
}

/// A rollout that ended here was decided here: who comes with other routes comes too late.
#[test]
fn what_was_decided_here_is_not_contested() {
    let mut world = World::new();
    world.rollout();
    while world.phase() == "Progressing" {
        world.traffic((90, 0), (10, 10));
    }
    assert_eq!((world.phase(), world.adoption()), ("Failed", Adoption::Adopted));
    world.engine.observe(&foreign(&["prod/backend"]), world.now);
    assert_eq!(world.adoption(), Adoption::Adopted);
}

#[test]
fn a_state_has_one_lineage_from_when_it_was_made() {
    let world = World::new();
    let lineage = world.engine.lineage();
    assert_eq!(lineage.unmarked, Unmarked::Foreign, "it never served versions without");
    let world = world.restart();
    assert_eq!(world.engine.lineage(), lineage);
    let other = Immediate::open(Box::new(Memory::default()), [2; 32]).unwrap().lineage();
    assert_ne!(other, lineage);
    // Where it cannot be stored at first, it is with the first change that can.
    let store = Memory::default();
    store.set_full(true);
    let mut world = World::over(store.clone());
    store.set_full(false);
    let lineage = world.engine.lineage();
    world.engine.configure(desired_state("1"), world.now);
    assert_eq!(world.restart().engine.lineage(), lineage);
}

/// A state of a version that knew no lineages goes on as it was, and so do the proxies that it served.
#[test]
fn a_state_of_before_takes_over_what_it_served() {
    let mut store = Memory::default();
    let mut world = World::over(store.clone());
    world.engine.configure(desired_state("1"), world.now);
    let key = "canary/prod/backend".to_owned();
    let mut stored: serde_json::Value = serde_json::from_slice(&store.load().unwrap()[&key]).unwrap();
    stored["content"].as_object_mut().unwrap().remove("adoption");
    store.commit(&[Write::Delete("lineage".to_owned()), Write::Put(key, stored.to_string().into_bytes())]).unwrap();
    let mut world = world.restart();
    assert_eq!(world.engine.lineage().unmarked, Unmarked::Own);
    world.engine.configure(desired_state("1"), world.now);
    assert_eq!(world.adoption(), Adoption::Adopted);
}

/// Who may not report may claim routes of another state, too: that holds nothing.
#[test]
fn a_client_without_a_voice_contests_nothing() {
    let mut world = World::new();
    let connected = |source| ClientEventKind::Connected { source, node_cluster: String::new() };
    let comes = |world: &mut World, stream, source| {
        world.engine.observe(&ClientEvent { node: "edge-1".to_owned(), stream, what: connected(source) }, world.now);
        world.engine.observe(&ClientEvent { stream, ..foreign(&["prod/backend"]) }, world.now);
        world.adoption()
    };
    assert_eq!(comes(&mut world, 7, None), Adoption::Open);
    assert_eq!(comes(&mut world, 8, Some("10.0.0.1".to_owned())), Adoption::Contested);
}
