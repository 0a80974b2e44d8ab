//! One principal or host, however many nodes it says it is, decides nothing where others carry traffic (P24).

use super::*;

/// What somebody reports each tenth of a second: `(requests, errors)` of primary and canary.
type Said = [(u64, u64); 2];

struct Source {
    host: u8,
    /// The host's address, or what its certificate names.
    principal: String,
    nodes: u64,
    says: Said,
    total: Said,
    sequence: u64,
}

impl Source {
    /// A host that says it is so many nodes.
    fn new(host: u8, nodes: u64, says: Said) -> Self {
        let principal = format!("10.0.0.{host}");
        Self { host, principal, nodes, says, total: [(0, 0); 2], sequence: 0 }
    }

    fn connect(&self, world: &mut World, stream: u64) {
        let node = format!("edge-{stream}");
        let what = ClientEventKind::Connected { source: Some(self.principal.clone()), node_cluster: String::new() };
        world.engine.observe(&ClientEvent { node, stream, what }, world.now);
    }

    fn report(&mut self, world: &mut World) {
        self.sequence += 1;
        for (total, more) in self.total.iter_mut().zip(self.says) {
            *total = (total.0 + more.0, total.1 + more.1);
        }
        (world.primary, world.canary) = (self.total[0], self.total[1]);
        for number in 0..self.nodes {
            let node_id = format!("{}-{number}", self.principal);
            let boot_id = u64::from(self.host) * 1_000 + number;
            let request = ReportRequest { node_id, boot_id, sequence: self.sequence, ..world.request() };
            world.engine.report(&self.principal, &request, world.now).unwrap();
        }
    }
}

/// A rollout of so many seconds, in which the forger is heard first and alone for one. Returns its phases.
fn run(honest: u8, truth: Said, lie: Said, seconds: u64) -> BTreeSet<&'static str> {
    let mut world = World::new();
    let mut honest: Vec<Source> = (1..=honest).map(|host| Source::new(host, 1, truth)).collect();
    honest.iter().zip(1..).for_each(|(source, stream)| source.connect(&mut world, stream));
    world.rollout();
    let mut forger = Source::new(99, 20, lie);
    let mut phases = BTreeSet::new();
    for tenth in 0..seconds * 10 {
        world.now = world.now.plus(Span::from_millis(100));
        forger.report(&mut world);
        if tenth >= 10 {
            honest.iter_mut().for_each(|source| source.report(&mut world));
        }
        world.tick();
        phases.insert(world.phase());
    }
    phases
}

const HEALTHY: Said = [(95, 0), (5, 0)];
const BROKEN: Said = [(95, 0), (5, 5)];

#[test]
fn a_forger_with_any_number_of_nodes_promotes_nothing_beside_others() {
    for honest in 1..=3 {
        for lie in [[(95, 0), (5, 0)], [(100_000, 0), (100_000, 0)], [(5_000, 5_000), (5_000, 0)]] {
            let phases = run(honest, BROKEN, lie, 60);
            assert!(!phases.contains("Promoting") && !phases.contains("Succeeded"), "{honest} {lie:?}: {phases:?}");
        }
    }
}

#[test]
fn a_forger_with_any_number_of_nodes_rolls_nothing_back_beside_three() {
    for lie in [[(95, 0), (5, 5)], [(100_000, 0), (100_000, 100_000)], [(0, 0), (5, 5)]] {
        let phases = run(3, HEALTHY, lie, 60);
        assert!(!phases.contains("Failed"), "{lie:?}: {phases:?}");
    }
}

/// Three that report every tenth of a second whether they have requests or not, and one that lies.
struct LateReports {
    world: World,
    honest: Vec<Source>,
    forger: Source,
    phases: BTreeSet<&'static str>,
}

impl LateReports {
    fn new(truth: Said, lie: Said) -> Self {
        let world = World::new();
        let honest = (1..=3).map(|host| Source::new(host, 1, truth)).collect();
        let mut held = Self { world, honest, forger: Source::new(99, 20, lie), phases: BTreeSet::new() };
        held.honest.iter().zip(1..).for_each(|(source, stream)| source.connect(&mut held.world, stream));
        held
    }

    fn tenths(&mut self, tenths: u32, who: &[usize]) {
        for _ in 0..tenths {
            self.world.now = self.world.now.plus(Span::from_millis(100));
            self.forger.report(&mut self.world);
            who.iter().for_each(|place| self.honest[*place].report(&mut self.world));
            self.world.tick();
            self.phases.insert(self.world.phase());
        }
    }

    /// The same with reports that show no requests.
    fn idle(&mut self, tenths: u32, who: &[usize]) {
        let says: Vec<Said> = self.honest.iter_mut().map(|source| std::mem::take(&mut source.says)).collect();
        self.tenths(tenths, who);
        self.honest.iter_mut().zip(says).for_each(|(source, says)| source.says = says);
    }
}

/// On a busy machine reports are late, and one that lies is not. Whose reports have not come does not say that it has no
/// requests.
#[test]
fn a_forger_rolls_nothing_back_while_the_reports_of_others_are_late() {
    for lie in [[(95, 0), (5, 5)], [(100_000, 0), (100_000, 100_000)], [(40_000, 0), (40_000, 40_000)]] {
        for before in [10, 30, 100] {
            for late in [8, 12, 20, 30, 45] {
                let mut held = LateReports::new(HEALTHY, lie);
                held.world.rollout();
                held.tenths(before, &[0, 1, 2]);
                for _ in 0..3 {
                    held.tenths(late, &[]);
                    held.tenths(10, &[0, 1, 2]);
                }
                assert!(!held.phases.contains("Failed"), "{lie:?} {before} {late}: {:?}", held.world.texts);
            }
        }
    }
}

#[test]
fn a_forger_rolls_nothing_back_while_the_first_reports_of_others_are_late() {
    for late in [5, 15, 25, 45] {
        for silent_before in [0, 5, 10] {
            let mut held = LateReports::new(HEALTHY, [(40_000, 0), (40_000, 40_000)]);
            held.idle(10, &[0, 1, 2]);
            held.idle(silent_before, &[]);
            held.world.rollout();
            held.tenths(late - silent_before.min(late), &[]);
            held.tenths(100, &[0, 1, 2]);
            assert!(!held.phases.contains("Failed"), "{late} {silent_before}: {:?}", held.world.texts);
        }
    }
}

/// Who left, or says that it has no requests, is not waited for, and who is silent is not for long.
#[test]
fn who_reports_no_more_holds_up_no_rollback() {
    #[derive(Debug, Clone, Copy)]
    enum Gone {
        Left,
        Idle,
        Silent,
    }
    for (gone, bound) in [(Gone::Left, 25), (Gone::Idle, 25), (Gone::Silent, 70)] {
        let mut held = LateReports::new(HEALTHY, HEALTHY);
        // Nobody lies.
        held.forger.says = [(0, 0); 2];
        held.world.rollout();
        held.tenths(50, &[0, 1, 2]);
        assert!(!held.phases.contains("Failed"));
        if matches!(gone, Gone::Left) {
            for stream in [2, 3] {
                let news = ClientEvent { node: format!("edge-{stream}"), stream, what: ClientEventKind::Left };
                held.world.engine.observe(&news, held.world.now);
            }
        }
        held.honest[0].says = BROKEN;
        [1, 2].iter().for_each(|place| held.honest[*place].says = [(0, 0); 2]);
        let reporting: &[usize] = if matches!(gone, Gone::Idle) { &[0, 1, 2] } else { &[0] };
        let mut tenths = 0;
        while !held.phases.contains("Failed") {
            held.tenths(1, reporting);
            tenths += 1;
            assert!(tenths <= bound, "{gone:?}: {:?}", held.world.texts);
        }
    }
}

/// Who waits for others does not wait for ever: a broken canary leaves also where one of three carries all requests.
#[test]
fn where_one_of_three_carries_all_traffic_it_decides_in_the_end() {
    let mut world = World::new();
    let idle = [(0, 0), (0, 0)];
    let mut sources = [Source::new(1, 1, BROKEN), Source::new(2, 1, idle), Source::new(3, 1, idle)];
    sources.iter().zip(1..).for_each(|(source, stream)| source.connect(&mut world, stream));
    world.rollout();
    let began = world.now;
    while world.phase() != "Failed" {
        world.now = world.now.plus(Span::from_millis(100));
        sources.iter_mut().for_each(|source| source.report(&mut world));
        world.tick();
        assert!(world.now.since(began) < Span::from_secs(10), "{:?}", world.texts);
    }
    assert!(world.now.since(began) >= Span::from_secs(2), "the others are waited for");
}

/// Alone, nobody is waited for; and many pods of one service account are one source.
#[test]
fn one_principal_is_one_voice_whatever_its_certificate_is_shown_for() {
    let mut world = World::new();
    world.rollout();
    let mut fleet = Source { principal: "spiffe://mesh/edge".to_owned(), ..Source::new(1, 5, BROKEN) };
    for _ in 0..5 {
        world.now = world.now.plus(Span::from_millis(100));
        fleet.report(&mut world);
        world.tick();
    }
    assert_eq!(world.phase(), "Failed", "all that there is says so");
    let view = world.engine.status(true, world.now).canaries.values().next().cloned().unwrap();
    assert_eq!(view.nodes.len(), 5, "each of them is shown");
}

/// After a restart, who is heard first is not all that there is: one of three that shows an abort may make it up, two do not.
#[test]
fn one_of_three_makes_up_no_abort_by_being_first_after_a_restart() {
    let mut world = World::new();
    let mut sources = [1, 2, 3].map(|host| Source::new(host, 1, HEALTHY));
    world.rollout();
    for _ in 0..30 {
        world.now = world.now.plus(Span::from_millis(100));
        sources.iter_mut().for_each(|source| source.report(&mut world));
        world.tick();
    }
    let mut world = world.restart();
    world.rollout();
    let abort = world.engine.canaries.all()[&name()].state.unstored_abort().get();
    let mut phase_once_shown = |source: &mut Source| {
        world.now = world.now.plus(Span::from_millis(100));
        source.sequence += 1;
        source.total[0].0 += 100;
        world.primary = source.total[0];
        world.canary = source.total[1];
        let (node_id, boot_id) = (format!("{}-0", source.principal), u64::from(source.host) * 1_000);
        let mut request = ReportRequest { node_id, boot_id, sequence: source.sequence, ..world.request() };
        request.clusters.iter_mut().for_each(|cluster| cluster.rev = abort);
        world.engine.report(&source.principal, &request, world.now).unwrap();
        world.tick();
        world.phase()
    };
    let [first, second, _] = &mut sources;
    assert_eq!(phase_once_shown(first), "Progressing");
    assert_eq!(phase_once_shown(first), "Progressing", "however often it says so");
    assert_eq!(phase_once_shown(second), "Failed");
}
