//! What Envoys refuse.

use super::*;

fn refused(stream: u64, kind: Kind, name: &str) -> ClientEvent {
    let nack = Nack { kind, names: vec![name.to_owned()], culprits: None, error: "no".to_owned() };
    ClientEvent { node: format!("edge-{stream}"), stream, what: ClientEventKind::Refused(nack) }
}

/// An Envoy that may report.
fn connected() -> ClientEventKind {
    ClientEventKind::Connected { source: Some("10.0.0.1".to_owned()), node_cluster: String::new() }
}

/// A hundred Envoys that refuse the same are told once; the condition stays until the last of them accepts or leaves.
#[test]
fn refusals_are_told_once_and_shown_as_long_as_they_last() {
    let mut world = World::new();
    let cluster = "prod/backend/1";
    let programmed = |engine: &mut Immediate| {
        let board = engine.status(true, Timestamp::EPOCH);
        let view = &board.canaries[&("prod".to_owned(), "backend".to_owned())];
        let found = view.conditions.iter().find(|condition| condition.kind == "Programmed");
        (found.map(|condition| condition.message.clone()), board.clients.refusals)
    };
    world.engine.take_events();
    for stream in 1..=100 {
        world.engine.observe(&refused(stream, Kind::Cluster, cluster), world.now);
    }
    let told: Vec<String> = world.engine.take_events().into_iter().map(|told| told.text).collect();
    let text = "Envoy edge-1 refuses clusters and goes on with the last good ones: no";
    assert_eq!(told, [text]);
    assert_eq!(programmed(&mut world.engine), (Some(text.to_owned()), 100));
    for stream in 1..=100 {
        assert!(programmed(&mut world.engine).0.is_some());
        let what = if stream % 2 == 0 { ClientEventKind::Left } else { ClientEventKind::Settled(Kind::Cluster) };
        world.engine.observe(&ClientEvent { node: String::new(), stream, what }, world.now);
    }
    assert_eq!(programmed(&mut world.engine), (None, 0));
    // What another canary needs is not told of this one.
    world.engine.observe(&refused(1, Kind::Cluster, "prod/other/1"), world.now);
    assert_eq!((world.engine.take_events().len(), programmed(&mut world.engine).0), (0, None));
}

/// Of hosts that are refused together, the one to blame is told, and no other.
#[test]
fn only_the_host_that_is_to_blame_is_told() {
    let mut world = World::new();
    world.engine.take_events();
    let nack = |stream, hosts: &[&str]| {
        let culprits = Some(hosts.iter().map(ToString::to_string).collect());
        let nack = Nack { kind: Kind::Routes, names: vec!["public".to_owned()], culprits, error: "no".to_owned() };
        ClientEvent { node: format!("edge-{stream}"), stream, what: ClientEventKind::Refused(nack) }
    };
    let refuses = |stream, hosts: &[&str]| ClientEvent {
        node: String::new(),
        stream,
        what: ClientEventKind::Refuses(Kind::Routes, hosts.iter().map(ToString::to_string).collect()),
    };
    let shown = |world: &mut World| {
        let board = world.engine.status(true, Timestamp::EPOCH);
        let view = &board.canaries[&("prod".to_owned(), "backend".to_owned())];
        view.conditions.iter().any(|condition| condition.kind == "Programmed")
    };
    for (hosts, is_told) in [(&[][..], false), (&["prod/other"], false), (&["prod/backend"], true)] {
        world.engine.observe(&nack(1, hosts), world.now);
        let mine = world.engine.take_events().iter().filter(|told| told.canary == name()).count();
        assert_eq!((mine, shown(&mut world)), (usize::from(is_told), is_told), "{hosts:?}");
    }
    world.engine.observe(&nack(2, &["prod/backend"]), world.now);
    assert_eq!(world.engine.take_events().len(), 0, "it is known");
    world.engine.observe(&refuses(1, &["prod/other"]), world.now);
    assert!(shown(&mut world), "the other Envoy still refuses it");
    world.engine.observe(&refuses(2, &[]), world.now);
    assert!(!shown(&mut world));
    assert_eq!(world.engine.status(true, Timestamp::EPOCH).clients.refusals, 1);
    world.engine.observe(
        &ClientEvent { node: String::new(), stream: 1, what: ClientEventKind::Settled(Kind::Routes) },
        world.now,
    );
    assert_eq!(world.engine.status(true, Timestamp::EPOCH).clients.refusals, 0);
}

fn conditions(world: &mut World) -> Vec<(String, String, String)> {
    let board = world.engine.status(true, world.now);
    let view = &board.canaries[&("prod".to_owned(), "backend".to_owned())];
    let shown = view.conditions.iter().filter(|condition| condition.kind != "Promoted");
    shown.map(|it| (it.kind.clone(), it.reason.clone(), it.message.clone())).collect()
}

fn news(stream: u64, what: ClientEventKind) -> ClientEvent {
    ClientEvent { node: format!("edge-{stream}"), stream, what }
}

/// Of clusters and listeners that are refused together, those to blame are shown where they are needed, until they are
/// refused no longer.
#[test]
fn only_who_needs_what_is_to_blame_is_told() {
    for (kind, mine, other) in [(Kind::Cluster, "prod/backend/2", "prod/other/1"), (Kind::Listener, "public", "other")]
    {
        let mut world = World::new();
        world.engine.take_events();
        world.engine.observe(&news(1, connected()), world.now);
        let nack = |culprits: &[&str]| {
            let names = vec![mine.to_owned(), other.to_owned()];
            let culprits = Some(culprits.iter().map(ToString::to_string).collect());
            news(1, ClientEventKind::Refused(Nack { kind, names, culprits, error: "no".to_owned() }))
        };
        for (culprits, told) in [(&[][..], 0), (&[other], 0), (&[mine], 1), (&[mine], 0)] {
            world.engine.observe(&nack(culprits), world.now);
            assert_eq!(world.engine.take_events().len(), told, "{kind:?} {culprits:?}");
        }
        let shown = conditions(&mut world);
        assert_eq!((shown.len(), shown[0].1.as_str(), shown[0].2.contains(mine)), (1, "Refused", true), "{shown:?}");
        world.engine.observe(&news(1, ClientEventKind::Refuses(kind, BTreeSet::from([other.to_owned()]))), world.now);
        assert_eq!(conditions(&mut world), []);
    }
}

#[test]
fn clusters_that_a_proxy_does_not_ask_for_further_are_told() {
    let mut world = World::new();
    world.engine.take_events();
    world.engine.observe(&news(1, connected()), world.now);
    let overdue =
        |clusters: &[&str]| news(1, ClientEventKind::Overdue(clusters.iter().map(ToString::to_string).collect()));
    for (clusters, told) in
        [(&["prod/other/1"][..], 0), (&["prod/backend/1", "prod/other/1"], 1), (&["prod/backend/1"], 0)]
    {
        world.engine.observe(&overdue(clusters), world.now);
        assert_eq!(world.engine.take_events().len(), told, "{clusters:?}");
    }
    assert!(conditions(&mut world)[0].2.contains("prod/backend/1"));
    world.engine.observe(&overdue(&[]), world.now);
    assert_eq!(conditions(&mut world), []);
}

/// A revision that serves is gone from what is configured: that is told once, and shown until it is back.
#[test]
fn routes_to_a_cluster_that_is_missing_are_told() {
    let mut world = World::new();
    world.engine.observe(&news(1, connected()), world.now);
    world.engine.tick(world.now);
    world.engine.take_events();
    let mut without = desired_state("1");
    without.canaries.get_mut(&name()).unwrap().workload.revisions.remove(&Revision::new("1"));
    world.engine.configure(without, world.now);
    let text = "Routes of backend.local lead to cluster prod/backend/1, which is not there: proxies keep the routes that \
                they have";
    for told in [vec![text.to_owned()], vec![]] {
        world.engine.tick(world.now);
        world.now = world.now.plus(Span::from_secs(1));
        assert_eq!(world.engine.take_events().into_iter().map(|told| told.text).collect::<Vec<_>>(), told);
        let shown = ("Programmed".to_owned(), "ClusterMissing".to_owned(), text.to_owned());
        assert_eq!(conditions(&mut world), [shown]);
    }
    world.engine.configure(desired_state("1"), world.now);
    world.engine.tick(world.now);
    assert_eq!(conditions(&mut world), []);
}

/// Without a proxy, nothing of a rollout can be measured: that is shown at once, and told after a while.
#[test]
fn it_is_told_that_there_is_no_proxy() {
    let mut world = World::new();
    world.engine.configure(desired_state("2"), world.now);
    let mut told = Vec::new();
    for _ in 0..40 {
        world.engine.tick(world.now);
        told.extend(world.engine.take_events().into_iter().filter(|told| told.text.starts_with("No Envoy")));
        world.now = world.now.plus(Span::from_millis(500));
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(conditions(&mut world).iter().any(|(kind, reason, _)| kind == "Connected" && reason == "NoProxies"));
    world.engine.observe(&news(1, connected()), world.now);
    assert!(conditions(&mut world).iter().all(|(kind, ..)| kind != "Connected"));
}

/// A client that leaves and comes back, and refuses something for another reason each time: some of it is told.
#[test]
fn what_one_client_refuses_again_and_again_is_no_flood_of_events() {
    let mut world = World::new();
    world.engine.take_events();
    let cycle = |world: &mut World, stream: u64, source: Option<String>| {
        let news = |what| ClientEvent { node: "edge-1".to_owned(), stream, what };
        world.engine.observe(&news(ClientEventKind::Connected { source, node_cluster: String::new() }), world.now);
        let error = format!("no: {stream}");
        let nack = Nack { kind: Kind::Extension, names: vec!["wingbeat".to_owned()], culprits: None, error };
        world.engine.observe(&news(ClientEventKind::Refused(nack)), world.now);
        let shown = conditions(world).iter().any(|(kind, ..)| kind == "Programmed");
        world.engine.observe(&news(ClientEventKind::Left), world.now);
        assert!(shown, "{stream}");
        world.engine.take_events().len()
    };
    let source = || Some("10.0.0.1".to_owned());
    assert_eq!((1..=1_000).map(|stream| cycle(&mut world, stream, source())).sum::<usize>(), 10);
    world.now = world.now.plus(Span::from_secs(60));
    assert_eq!(cycle(&mut world, 1_001, source()), 1, "a minute later it is told again");
    // One that may not report says it to the log only.
    world.now = world.now.plus(Span::from_secs(60));
    assert_eq!((2_001..=2_010).map(|stream| cycle(&mut world, stream, None)).sum::<usize>(), 0);
}
