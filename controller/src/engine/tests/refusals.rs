//! What Envoys refuse.

use super::*;

fn refused(stream: u64, kind: Kind, name: &str) -> News {
    let nack = Nack { kind, names: vec![name.to_owned()], hosts: None, error: "no".to_owned() };
    News { node: format!("edge-{stream}"), stream, what: Happened::Refused(nack) }
}

/// A hundred Envoys that refuse the same are told once; the condition stays until the last of them accepts or leaves.
#[test]
fn refusals_are_told_once_and_shown_as_long_as_they_last() {
    let mut world = World::new();
    let cluster = "prod/backend/1";
    let programmed = |engine: &mut Engine| {
        let board = engine.board(true, Timestamp::EPOCH);
        let view = &board.canaries[&("prod".to_owned(), "backend".to_owned())];
        let found = view.conditions.iter().find(|condition| condition.kind == "Programmed");
        (found.map(|condition| condition.message.clone()), board.clients.refusals)
    };
    world.engine.told();
    for stream in 1..=100 {
        world.engine.heard(&refused(stream, Kind::Cluster, cluster), world.now);
    }
    let told: Vec<String> = world.engine.told().into_iter().map(|told| told.text).collect();
    let text = "Envoy edge-1 refuses clusters and goes on with the last good ones: no";
    assert_eq!(told, [text]);
    assert_eq!(programmed(&mut world.engine), (Some(text.to_owned()), 100));
    for stream in 1..=100 {
        assert!(programmed(&mut world.engine).0.is_some());
        let what = if stream % 2 == 0 { Happened::Left } else { Happened::Settled(Kind::Cluster) };
        world.engine.heard(&News { node: String::new(), stream, what }, world.now);
    }
    assert_eq!(programmed(&mut world.engine), (None, 0));
    // What another canary needs is not told of this one.
    world.engine.heard(&refused(1, Kind::Cluster, "prod/other/1"), world.now);
    assert_eq!((world.engine.told().len(), programmed(&mut world.engine).0), (0, None));
}

/// Of hosts that are refused together, the one to blame is told, and no other.
#[test]
fn only_the_host_that_is_to_blame_is_told() {
    let mut world = World::new();
    world.engine.told();
    let nack = |stream, hosts: &[&str]| {
        let hosts = Some(hosts.iter().map(ToString::to_string).collect());
        let nack = Nack { kind: Kind::Routes, names: vec!["public".to_owned()], hosts, error: "no".to_owned() };
        News { node: format!("edge-{stream}"), stream, what: Happened::Refused(nack) }
    };
    let refuses = |stream, hosts: &[&str]| News {
        node: String::new(),
        stream,
        what: Happened::RefusesHosts(hosts.iter().map(ToString::to_string).collect()),
    };
    let shown = |world: &mut World| {
        let board = world.engine.board(true, Timestamp::EPOCH);
        let view = &board.canaries[&("prod".to_owned(), "backend".to_owned())];
        view.conditions.iter().any(|condition| condition.kind == "Programmed")
    };
    for (hosts, is_told) in [(&[][..], false), (&["prod/other"], false), (&["prod/backend"], true)] {
        world.engine.heard(&nack(1, hosts), world.now);
        let mine = world.engine.told().iter().filter(|told| told.canary == name()).count();
        assert_eq!((mine, shown(&mut world)), (usize::from(is_told), is_told), "{hosts:?}");
    }
    world.engine.heard(&nack(2, &["prod/backend"]), world.now);
    assert_eq!(world.engine.told().len(), 0, "it is known");
    world.engine.heard(&refuses(1, &["prod/other"]), world.now);
    assert!(shown(&mut world), "the other Envoy still refuses it");
    world.engine.heard(&refuses(2, &[]), world.now);
    assert!(!shown(&mut world));
    assert_eq!(world.engine.board(true, Timestamp::EPOCH).clients.refusals, 1);
    world.engine.heard(&News { node: String::new(), stream: 1, what: Happened::Settled(Kind::Routes) }, world.now);
    assert_eq!(world.engine.board(true, Timestamp::EPOCH).clients.refusals, 0);
}
