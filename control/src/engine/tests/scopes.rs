//! Nodes are told of, waited for and heard on what their listeners lead to, and nothing else.

use wingbeat_proto::v1::Policy;
use wingbeat_xds_server::model::Listener;
use wingbeat_xds_server::model::traffic::Front;

use super::*;

/// Two A/B tests: `shop` on the listener `left`, `pay` on `right`.
fn two(revision: &str, left: &[&str], right: &[&str]) -> DesiredState {
    let template = rules::by_rules(revision).canaries.remove(&name()).unwrap();
    let canary = |canary: &str, listener: &str| {
        let name = CanaryName::new("prod", canary);
        let input = PlanInput {
            name: Some(name.clone()),
            target: canary.into(),
            interval: Some(Span::from_secs(1)),
            matches: true,
            iterations: Some(30),
            ..PlanInput::default()
        };
        let mut config = CanaryConfig { plan: Plan::try_new(&input).unwrap(), ..template.clone() };
        config.service.hosts = vec![format!("{canary}.local")];
        config.service.listeners = vec![listener.to_owned()];
        (name, config)
    };
    let listener = |name: &str, nodes: &[&str]| Listener {
        name: name.to_owned(),
        address: "127.0.0.1".to_owned(),
        port: 80,
        node_clusters: nodes.iter().map(ToString::to_string).collect(),
        access_log: None,
        front: Front::default(),
    };
    DesiredState {
        canaries: BTreeMap::from([canary("shop", "left"), canary("pay", "right")]),
        listeners: vec![listener("left", left), listener("right", right)],
        ..DesiredState::default()
    }
}

/// Rollouts of both.
fn both(left: &[&str], right: &[&str]) -> World {
    let mut world = World::over(Memory::default());
    for revision in ["1", "2"] {
        world.engine.configure(two(revision, left, right), world.now);
        world.tick();
    }
    world
}

/// A worker of one node, which serves requests of these canaries.
struct Worker {
    node: &'static str,
    cluster: &'static str,
    canaries: &'static [&'static str],
    policy: u64,
    sequence: u64,
    requests: u64,
}

impl Worker {
    const fn new(node: &'static str, cluster: &'static str, canaries: &'static [&'static str]) -> Self {
        Self { node, cluster, canaries, policy: 0, sequence: 0, requests: 0 }
    }

    /// Reports 50 requests more of each arm. Returns the policy that it is told, if it is.
    fn report(&mut self, world: &mut World) -> Option<Policy> {
        self.sequence += 1;
        self.requests += 50;
        let clusters = self.canaries.iter().flat_map(|canary| ["1", "2"].map(|revision| (canary, revision)));
        let clusters = clusters.map(|(canary, revision)| {
            let of = &world.engine.canaries.all()[&CanaryName::new("prod", *canary)];
            let mut outcomes = vec![0; Outcome::ALL.len()];
            outcomes[Outcome::Success.index()] = self.requests;
            ClusterReport {
                cluster: format!("prod/{canary}/{revision}"),
                started: self.requests,
                finished: self.requests,
                outcomes,
                latency: vec![Count { key: 700, count: self.requests }],
                rev: of.state.rev.get(),
                rev_started: self.requests,
                epoch: of.epoch().get(),
                first_sequence: 1,
                ..ClusterReport::default()
            }
        });
        let request = ReportRequest {
            node_id: self.node.to_owned(),
            node_cluster: self.cluster.to_owned(),
            boot_id: Version::of([self.node.as_bytes()]).get(),
            worker_id: 1,
            sequence: self.sequence,
            policy_version: self.policy,
            automaton_format: AUTOMATON_FORMAT,
            clusters: clusters.collect(),
            ..ReportRequest::default()
        };
        let policy = report(&mut world.engine, &request, world.now).unwrap().policy;
        self.policy = policy.as_ref().map_or(self.policy, |policy| policy.version);
        policy
    }
}

fn pass(world: &mut World, workers: &mut [&mut Worker], tenths: u32) {
    for _ in 0..tenths {
        world.now = world.now.plus(Span::from_millis(100));
        for worker in &mut *workers {
            worker.report(world);
        }
        world.tick();
    }
}

/// Returns what a filter of these nodes is told, from nothing on.
fn take_events(world: &mut World, node_cluster: &'static str) -> Policy {
    Worker::new("somebody", node_cluster, &[]).report(world).expect("it has none")
}

fn canary<'a>(world: &'a World, canary: &str) -> &'a Canary {
    &world.engine.canaries.all()[&CanaryName::new("prod", canary)]
}

fn contains(policy: &Policy, text: &str) -> bool {
    let bytes = prost::Message::encode_to_vec(policy);
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_filter_is_told_of_what_its_node_is_served_and_of_nothing_else() {
    let mut world = both(&["a"], &["b"]);
    let tokens = ["shop", "pay"].map(|name| canary(&world, name).arm_token());
    let [shop, pay] = &tokens;
    for (node, right, wrong) in
        [("a", ("prod/shop", shop), ("prod/pay", pay)), ("b", ("prod/pay", pay), ("prod/shop", shop))]
    {
        let policy = take_events(&mut world, node);
        assert_eq!((policy.clusters.len(), policy.hosts.len()), (2, 1), "{node}");
        assert!(contains(&policy, right.0) && contains(&policy, right.1), "{node}");
        assert!(!contains(&policy, wrong.0) && !contains(&policy, wrong.1), "{node}");
    }
    let nothing = take_events(&mut world, "c");
    assert_eq!((nothing.clusters.len(), nothing.hosts.len(), nothing.automata.len()), (0, 0, 0));
    // Where no listener says whom it is for, all are told all.
    let mut world = both(&[], &[]);
    let policies = ["a", ""].map(|node| take_events(&mut world, node));
    assert_eq!((policies[0].clusters.len(), &policies[0]), (4, &policies[1]));
}

#[test]
fn a_change_of_one_scope_brings_no_policy_to_another() {
    let mut world = both(&["a"], &["b"]);
    let (mut left, mut right) = (Worker::new("one", "a", &["shop"]), Worker::new("two", "b", &[]));
    pass(&mut world, &mut [&mut left, &mut right], 1);
    // The first test begins, which is another division for those who serve it.
    let mut changes = [0, 0];
    for _ in 0..30 {
        world.now = world.now.plus(Span::from_millis(100));
        for (worker, changes) in [&mut left, &mut right].into_iter().zip(&mut changes) {
            *changes += u32::from(worker.report(&mut world).is_some());
        }
        world.tick();
    }
    assert!(changes[0] > 0 && changes[1] == 0, "{changes:?}");
}

#[test]
fn a_canary_waits_only_for_workers_that_serve_it() {
    let mut world = both(&["a"], &["b"]);
    // Of the second scope, a worker never learns anything.
    let (mut left, mut deaf) = (Worker::new("one", "a", &["shop"]), Worker::new("two", "b", &["pay"]));
    let verdict = |world: &mut World, canary: &str| {
        let board = world.engine.status(true, world.now);
        let view = board.canaries[&("prod".to_owned(), canary.to_owned())].clone();
        view.verdict.clone().map(|verdict| (verdict.kind, verdict.reason)).unwrap_or_default()
    };
    for _ in 0..40 {
        pass(&mut world, &mut [&mut left], 1);
        deaf.policy = 0;
        deaf.report(&mut world);
    }
    let ((shop, why), (pay, because)) = (verdict(&mut world, "shop"), verdict(&mut world, "pay"));
    assert!(shop != "no-data" && pay == "no-data" && because.contains("two"), "{shop} {why}; {pay} {because}");
    // Once the listener is for it too, it is waited for, and no longer than until it knows.
    world.engine.configure(two("2", &["a", "b"], &["b"]), world.now);
    world.tick();
    assert_eq!(verdict(&mut world, "shop").0, "no-data", "of nobody it is known what is served");
    for known in [false, true] {
        for _ in 0..3 {
            pass(&mut world, &mut [&mut left], 1);
            deaf.policy = if known { deaf.policy } else { 0 };
            deaf.report(&mut world);
        }
        pass(&mut world, &mut [&mut left], 1);
        let (kind, why) = verdict(&mut world, "shop");
        assert_eq!(kind != "no-data", known, "{why}");
    }
}

#[test]
fn counts_from_outside_of_a_scope_are_left_out_and_counted() {
    let mut world = both(&["a"], &["b"]);
    let mut liar = Worker::new("liar", "b", &["shop"]);
    pass(&mut world, &mut [&mut liar], 10);
    let started = |world: &World| canary(world, "shop").totals.primary.started;
    assert_eq!((started(&world), world.left_out()), (0, 20));
    let mut honest = Worker::new("honest", "a", &["shop"]);
    pass(&mut world, &mut [&mut honest], 10);
    assert!(started(&world) > 0);
    assert_eq!(world.left_out(), 20);
}

/// What was on its way when a listener was taken from a node is of the rollout, and its filter is told what to count of it.
#[test]
fn what_a_node_that_lost_its_scope_still_counts_is_taken_for_a_while() {
    let mut world = both(&["a", "b"], &["b"]);
    let (mut stays, mut goes) = (Worker::new("one", "b", &["shop"]), Worker::new("two", "a", &["shop"]));
    pass(&mut world, &mut [&mut stays, &mut goes], 20);
    let reported = |world: &World| {
        let batches = world.engine.windows.open();
        let open = batches.iter().map(|(_, batch)| batch.judged.primary.started).sum::<u64>();
        canary(world, "shop").totals.primary.started + open
    };
    let before = reported(&world);
    assert!(before > 0);
    world.engine.configure(two("2", &["b"], &["b"]), world.now);
    goes.report(&mut world);
    assert_eq!((reported(&world), world.left_out()), (before + 50, 0));
    assert!(contains(&take_events(&mut world, "a"), "prod/shop"), "else what is under way would not be counted");
    // Nobody waits for it: its share goes.
    pass(&mut world, &mut [&mut stays], 10);
    let board = world.engine.status(true, world.now);
    let verdict = board.canaries[&("prod".to_owned(), "shop".to_owned())].verdict.clone().unwrap();
    assert_ne!(verdict.kind, "no-data", "{}", verdict.reason);
    world.now = world.now.plus(Span::from_secs(700));
    pass(&mut world, &mut [&mut stays], 5);
    goes.report(&mut world);
    assert_eq!(world.left_out(), 2);
    assert!(!contains(&take_events(&mut world, "a"), "prod/shop"));
}

/// Who cannot say anything of a canary is not waited for before few are believed (P24).
#[test]
fn voices_are_those_of_nodes_that_are_served() {
    let mut world = both(&["a"], &["b"]);
    for (stream, node_cluster) in [(1, "a"), (2, "b"), (3, "b"), (4, "b"), (5, "c")] {
        let what =
            ClientEventKind::Connected { source: Some(format!("10.0.0.{stream}")), node_cluster: node_cluster.into() };
        world.engine.observe(&ClientEvent { node: format!("edge-{stream}"), stream, what }, world.now);
    }
    let sources = |world: &World, of: &str| {
        let policies = &world.engine.policies;
        let sources = world.engine.clients.sources(|node_cluster| policies.place_of(node_cluster), world.now);
        policies.sources(&sources).of(&canary(world, of).config.service.listeners).count
    };
    assert_eq!((sources(&world, "shop"), sources(&world, "pay")), (1, 3));
    // One that takes no configuration, and one that does by then.
    let (mut more, mut same) = (Worker::new("more", "a", &["shop"]), Worker::new("10.0.0.1", "a", &["shop"]));
    pass(&mut world, &mut [&mut more, &mut same], 3);
    assert_eq!((sources(&world, "shop"), sources(&world, "pay")), (2, 3));
    world.engine.observe(&ClientEvent { node: "edge-2".to_owned(), stream: 2, what: ClientEventKind::Left }, world.now);
    world.now = world.now.plus(Span::from_secs(20));
    pass(&mut world, &mut [&mut same], 10);
    assert_eq!((sources(&world, "shop"), sources(&world, "pay")), (1, 2));
}

/// A worker that reports as often as a neighbour's rules change never has the latest policy. Those of this canary it has.
#[test]
fn a_neighbour_whose_rules_change_all_the_time_holds_nobody_up() {
    let mut world = both(&["a"], &["a"]);
    let mut worker = Worker::new("edge-1", "a", &["shop"]);
    pass(&mut world, &mut [&mut worker], 20);
    assert_ne!(kind(&mut world, "shop"), "no-data");
    let (mut first, mut last, mut versions) = (None, None, BTreeSet::new());
    for number in 3..40 {
        let mut desired = two("2", &["a"], &["a"]);
        let pay = desired.canaries.get_mut(&CanaryName::new("prod", "pay")).unwrap();
        pay.workload.revision = Revision::new(number.to_string());
        world.engine.configure(desired, world.now);
        pass(&mut world, &mut [&mut worker], 1);
        versions.insert(worker.policy);
        assert_ne!(kind(&mut world, "shop"), "no-data", "{number}");
        last = canary(&world, "shop").state.phase.clone().into();
        first = first.or_else(|| last.clone());
    }
    assert_ne!(first, last, "it moves on");
    assert!(versions.len() > 30, "each rollout of the other one has its own token: {}", versions.len());
}

fn kind(world: &mut World, of: &str) -> String {
    let board = world.engine.status(true, world.now);
    board.canaries[&("prod".to_owned(), of.to_owned())].verdict.clone().unwrap().kind
}
