//! Files that are followed: what is in force when they break, clash, vanish and come back.

use wingbeat_api::files::{GRACE, Part};

use super::*;

fn listener(name: &str, port: u16) -> String {
    format!(
        "apiVersion: wingbeat.dev/v1alpha1\nkind: Listener\nmetadata: {{name: {name}}}\nspec: {{address: 127.0.0.1, port: \
         {port}}}\n"
    )
}

/// A canary with its workload.
fn canary(name: &str, host: &str) -> String {
    format!(
        "apiVersion: wingbeat.dev/v1alpha1\nkind: Canary\nmetadata: {{name: {name}}}\nspec:\n  targetRef: {{kind: \
         Workload, name: {name}}}\n  service: {{hosts: [{host}], listeners: [public]}}\n  analysis: {{stepWeight: \
         5}}\n---\napiVersion: wingbeat.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec: {{revision: r1, \
         revisions: {{r1: {{endpoints: [\"127.0.0.1:1\"]}}, r2: {{endpoints: [\"127.0.0.1:2\"]}}}}}}\n"
    )
}

fn texts(files: &[(&str, String)]) -> BTreeMap<String, String> {
    files.iter().map(|(file, text)| ((*file).to_owned(), text.clone())).collect()
}

/// Files at work, and a clock.
struct World {
    files: Files,
    now: Timestamp,
}

impl World {
    fn new(first: &[(&str, String)]) -> Self {
        let mut world = Self { files: Files::default(), now: Timestamp::from_millis(1) };
        let taken = world.see(first);
        assert_eq!((taken.report.errors, taken.missed), (Vec::new(), Vec::new()));
        world
    }

    fn see(&mut self, files: &[(&str, String)]) -> InForce {
        let texts = texts(files);
        self.files.update(Observation { now: self.now, ..seen(&texts) })
    }

    fn later(&mut self, span: Span) -> &mut Self {
        self.now = self.now.plus(span);
        self
    }
}

/// What is in force, in short: canaries with their hosts, and listeners.
fn in_force(taken: &InForce) -> String {
    let setup = taken.set.desired_state(None);
    let canaries =
        setup.canaries.iter().map(|(name, managed)| format!("{}={}", name.name, managed.service.hosts.join("+")));
    let listeners = setup.listeners.iter().map(|listener| format!("{}:{}", listener.name, listener.port));
    canaries.chain(listeners).collect::<Vec<_>>().join(" ")
}

fn told(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn two() -> [(&'static str, String); 2] {
    [("a", canary("a", "a.local")), ("b", canary("b", "b.local") + "---\n" + &listener("public", 80))]
}

/// `> file`, `git checkout`, `rsync --delete`, an editor that moves the file away first: nothing of it is a removal.
#[test]
fn what_vanishes_for_a_moment_goes_on() {
    let all = "a=a.local b=b.local public:80";
    let [a, b] = two();
    for (what, left) in [
        ("the file is gone", vec![b.clone()]),
        ("it is empty", vec![("a", String::new()), b.clone()]),
        ("it is cut off", vec![("a", "---\n# to be written\n".to_owned()), b.clone()]),
        ("all are gone", vec![]),
        ("documents are gone", vec![a.clone(), ("b", listener("public", 80))]),
    ] {
        let mut world = World::new(&two());
        let began = world.now;
        for wait in [Span::ZERO, GRACE.minus(Span::from_millis(1))] {
            let taken = world.later(wait).see(&left);
            assert_eq!(in_force(&taken), all, "{what}");
            assert_eq!(taken.again, Some(began.plus(GRACE)), "{what}");
            let told = told(&taken.missed);
            assert!(told.contains("is in no file any more: it goes on for 10 s"), "{what}: {told}");
            assert_eq!(taken.removed.len(), 0);
        }
        let taken = world.see(&two());
        assert_eq!(
            (in_force(&taken).as_str(), taken.again, taken.missed),
            (all, None, Vec::new()),
            "{what}, and is back"
        );
        // Time that has gone by before does not count.
        let taken = world.later(GRACE).see(&left);
        assert_eq!((in_force(&taken).as_str(), taken.again), (all, Some(world.now.plus(GRACE))), "{what} again");
    }
}

#[test]
fn what_stays_away_is_removed() {
    let [a, b] = two();
    let mut world = World::new(&two());
    let without =
        [("a", canary("a", "a.local").replace("revision: r1", "revision: r2")), ("b", listener("public", 80))];
    let taken = world.see(&without);
    assert_eq!(in_force(&taken), "a=a.local b=b.local public:80");
    assert_eq!(told(&taken.missed).lines().count(), 1, "once a file: {:?}", taken.missed);
    let revision = |taken: &InForce| {
        taken.set.desired_state(None).canaries[&CanaryName::new("default", "a")].workload.revision.clone()
    };
    assert_eq!(revision(&taken), Revision::new("r2"), "other changes wait for nothing");
    let taken = world.later(GRACE).see(&without);
    assert_eq!((in_force(&taken).as_str(), taken.again), ("a=a.local public:80", None));
    let removed: Vec<String> = taken.removed.iter().map(ToString::to_string).collect();
    assert_eq!(removed, ["Canary b.default", "Workload b.default"]);
    // Or at once, if somebody says so.
    let mut world = World::new(&[a.clone(), b.clone()]);
    let left = texts(&[b]);
    let taken = world.files.update(Observation { absence: Removal::Confirmed, ..seen(&left) });
    assert_eq!((in_force(&taken).as_str(), taken.missed), ("b=b.local public:80", Vec::new()));
}

#[test]
fn a_document_in_another_file_is_not_missed() {
    let [a, b] = two();
    let mut world = World::new(&two());
    let taken = world.see(&[b.clone(), ("z", a.1.clone())]);
    assert_eq!((in_force(&taken).as_str(), taken.missed), ("a=a.local b=b.local public:80", Vec::new()));
    let setup = taken.set.desired_state(None);
    assert_eq!(&*setup.files[&CanaryName::new("default", "a")], "z");
    // In two steps, and changed on the way.
    world.later(Span::from_secs(1)).see(std::slice::from_ref(&b));
    let taken = world.later(Span::from_secs(1)).see(&[b, ("0", canary("a", "new.local"))]);
    assert_eq!((in_force(&taken).as_str(), taken.missed), ("a=new.local b=b.local public:80", Vec::new()));
}

#[test]
fn what_others_name_is_not_removed() {
    let [a, b] = two();
    let mut world = World::new(&two());
    world.see(std::slice::from_ref(&a));
    let taken = world.later(GRACE).see(std::slice::from_ref(&a));
    assert_eq!((in_force(&taken).as_str(), taken.again), ("a=a.local public:80", None), "a is on that listener");
    let missed = told(&taken.missed);
    assert_eq!(
        missed,
        "b: Listener public is in no file any more: it goes on, as other documents name it; put it back to keep it"
    );
    let taken = world.see(&[]);
    assert_eq!(in_force(&taken), "a=a.local public:80");
    let taken = world.later(GRACE).see(&[]);
    assert_eq!(in_force(&taken), "", "nobody needs it any more");
    assert_eq!(in_force(&world.see(&[a, b])), "a=a.local b=b.local public:80");
}

/// Documents that go on because they are missed are for those that named them before.
#[test]
fn a_new_text_names_nothing_that_is_missed() {
    let mut world = World::new(&two());
    let renamed = [two()[0].clone(), ("b", two()[1].1.replace("name: public}", "name: other}"))];
    for wait in [Span::ZERO, GRACE] {
        let taken = world.later(wait).see(&renamed);
        assert_eq!(in_force(&taken), "a=a.local b=b.local public:80");
        let told = told(&taken.report.errors);
        assert!(told.contains("b:6:43: spec.service.listeners[0]: there is no Listener public"), "{told}");
    }
}

/// A file that is refused keeps what it had; once it is taken, what it has no longer goes.
#[test]
fn a_file_that_is_refused_removes_nothing() {
    let [a, b] = two();
    let mut world = World::new(&two());
    let clash = canary("c", "a.local") + "---\n" + &listener("public", 80);
    world.see(&[a.clone(), ("b", clash.clone())]);
    let taken = world.later(GRACE).see(&[a.clone(), ("b", clash)]);
    assert_eq!(in_force(&taken), "a=a.local b=b.local public:80");
    assert!(told(&taken.report.errors).contains("a.default answers to a.local on public already"), "{taken:?}");
    let taken = world.see(&[a, ("b", canary("c", "c.local") + "---\n" + &listener("public", 80))]);
    assert_eq!(in_force(&taken), "a=a.local c=c.local public:80");
    drop(b);
}

/// Whatever two documents want, it is the one's that had it, wherever both stand, and whatever else changes.
#[test]
fn who_was_there_first_is_right() {
    let old = canary("m", "m.local") + "---\n" + &listener("public", 80);
    for (what, newcomer, field, message) in [
        ("name", canary("m", "other.local"), "metadata.name", "is also in m:"),
        (
            "target",
            canary("x", "x.local").replace("kind: Workload, name: x", "kind: Workload, name: m"),
            "spec.targetRef.name",
            "m.default has the same target",
        ),
        (
            "target",
            canary("a", "a.local").replacen("kind: Workload, name: a", "kind: Workload, name: m", 1),
            "spec.targetRef.name",
            "m.default has the same target",
        ),
        ("host", canary("a", "m.local"), "spec.service.hosts[0]", "m.default answers to m.local on public already"),
        ("host", canary("x", "M.local"), "spec.service.hosts[0]", "m.default answers to M.local on public already"),
        ("port", listener("a", 80), "spec.port", "Listener public has 127.0.0.1:80 already"),
        ("port", listener("x", 80), "spec.port", "Listener public has 127.0.0.1:80 already"),
    ] {
        for (file, m) in
            [("0", old.clone()), ("z", old.clone()), ("0", old.replace("r1,", "r2,")), ("z", old.replace("r1,", "r2,"))]
        {
            let mut world = World::new(&[("m", old.clone())]);
            let third = ("third", canary("third", "third.local"));
            let mut seen = vec![(file, newcomer.clone()), ("m", m.clone()), third];
            for _ in 0..2 {
                let taken = world.see(&seen);
                assert_eq!(in_force(&taken), "m=m.local third=third.local public:80", "{what} in {file}: {taken:?}");
                let revision =
                    &taken.set.desired_state(None).canaries[&CanaryName::new("default", "m")].workload.revision;
                assert_eq!(m.contains("revision: r2"), *revision == Revision::new("r2"), "its own changes are taken");
                assert!(!taken.report.errors.is_empty());
                for error in &taken.report.errors {
                    assert_eq!((error.file.as_str(), error.field.as_str()), (file, field), "{what}: {error}");
                    assert!(error.message.contains(message), "{what}: {error}");
                }
            }
            // Once it is free, who waited has it.
            seen.remove(1);
            if what == "port" {
                seen.truncate(1);
            }
            world.see(&seen);
            let taken = world.later(GRACE).see(&seen);
            assert!(!in_force(&taken).contains("m=m.local"), "{what}: {}", in_force(&taken));
        }
    }
}

/// Files take from each other what they have: all that changed is refused, and all that did not stays.
#[test]
fn nobody_takes_what_another_one_has() {
    let [a, b] = two();
    let mut world = World::new(&two());
    // They change places: each host is free, had the other one not been in force.
    let swapped = [("a", a.1.replace("a.local", "b.local")), ("b", b.1.replace("b.local", "a.local"))];
    let taken = world.see(&swapped);
    assert_eq!((in_force(&taken).as_str(), taken.report.errors), ("a=b.local b=a.local public:80", Vec::new()));
    // Two newcomers want the same: the first by name has it.
    let both = [swapped[0].clone(), swapped[1].clone(), ("c", canary("c", "c.local")), ("d", canary("d", "c.local"))];
    let taken = world.see(&both);
    assert_eq!(in_force(&taken), "a=b.local b=a.local c=c.local public:80");
    assert_eq!(taken.report.errors.len(), 1);
    assert_eq!(taken.report.errors[0].file, "d");
}

/// What was refused for revisions in use says for whose.
#[test]
fn a_refusal_says_whose_state_it_rests_on() {
    let name = CanaryName::new("default", "a");
    let uses = |bound: &[&str]| {
        let bound = bound.iter().map(|revision| Revision::new(*revision)).collect();
        BTreeMap::from([(name.clone(), InUse { bound, on_trial: None })])
    };
    let [a, b] = two();
    let mut world = World::new(&two());
    let without = texts(&[("a", a.1.replace("r1: {endpoints: [\"127.0.0.1:1\"]}, ", "").replace("r1", "r2")), b]);
    let in_use = uses(&["r1", "r2"]);
    let taken = world.files.update(Observation { in_use: &in_use, ..seen(&without) });
    assert_eq!((taken.report.errors.len(), taken.rests_on), (1, [name.clone()].into()));
    let in_use = uses(&["r2"]);
    let taken = world.files.update(Observation { in_use: &in_use, ..seen(&without) });
    assert_eq!((taken.report.errors, taken.rests_on), (Vec::new(), BTreeSet::new()));
}

/// After a restart, files that broke meanwhile are what they were, and those that vanished go on for a while.
#[test]
fn what_was_in_force_is_there_after_a_restart() {
    let [a, b] = two();
    let mut world = World::new(&two());
    world.see(&[("b", listener("public", 80)), a.clone()]);
    let parts: BTreeMap<String, Vec<Part>> =
        serde_json::from_str(&serde_json::to_string(&world.files.parts()).unwrap()).unwrap();
    let restore = || {
        let (files, report) = Files::restore(parts.clone(), Timestamp::EPOCH);
        assert_eq!(report, Report::default());
        World { files, now: Timestamp::EPOCH }
    };
    let broken = "kind: [".to_owned();
    let mut world = restore();
    let taken = world.see(&[("a", broken.clone()), ("b", broken.clone()), ("new", broken.clone())]);
    assert_eq!((in_force(&taken).as_str(), taken.report.errors.len()), ("a=a.local b=b.local public:80", 3));
    let taken = world.later(GRACE).see(&[("a", broken.clone()), ("b", broken), ("new", canary("n", "n.local"))]);
    assert_eq!(in_force(&taken), "a=a.local n=n.local public:80", "b was missed before");
    // A newcomer takes nothing from who was there before the restart.
    let mut world = restore();
    let taken = world.see(&[("0", canary("z", "a.local")), a, b]);
    assert_eq!(in_force(&taken), "a=a.local b=b.local public:80");
    assert_eq!(taken.report.errors[0].file, "0");
    // What another version took and this one does not.
    let strange = BTreeMap::from([("a".to_owned(), vec![Part { text: "kind: [".to_owned(), only: None }])]);
    let (files, report) = Files::restore(strange, Timestamp::EPOCH);
    assert_eq!((files.texts().len(), report.errors.len()), (0, 1));
}

/// Documents of others stand beside ours: each is left out with one warning.
#[test]
fn documents_of_others_are_left_out_with_a_warning() {
    let others = [
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: ${NAME}\nspec:\n  replicas: ${N}\n",
            "Deployment of apps/v1",
        ),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n", "Service of v1"),
        ("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n", "Kustomization of"),
        ("resources: [a.yaml]\nnamePrefix: a-\n", "what has neither apiVersion nor kind"),
        ("kind: Kustomization\n", "Kustomization without apiVersion"),
        ("apiVersion: canaries.flanksource.com/v1\nkind: Canary\nspec: {}\n", "Canary of canaries.flanksource.com/v1"),
        (
            "apiVersion: flagger.app/v1alpha1\nkind: Canary\nspec: {}\n",
            "flagger.app/v1alpha1 is not read, and this document is left out: write flagger.app/v1beta1",
        ),
    ];
    for (other, told) in others {
        let text = format!("{}---\n{other}", canary("a", "a.local") + "---\n" + &listener("public", 80));
        let set = read(&text);
        assert_eq!((set.report.errors.as_slice(), set.left_out, set.files()), (&[][..], 1, 1), "{other}");
        let [warning] = set.report.warnings.as_slice() else { panic!("{other}: {:?}", set.report.warnings) };
        assert!(warning.line > 10 && warning.message.contains(told), "{warning}");
    }
    assert_eq!(
        told(&read("# nothing yet\n").report.warnings),
        "canary.yaml:1:1: there is no document in it: write one, or delete the file"
    );
    // What may be a slip in one of ours is told as such.
    for slip in [
        "apiVersion: wingbeat.dev/v1beta1\nkind: Canary\nspec: {}\n",
        "apiVersion: wingbaet.dev/v1alpha1\nkind: Canary\nspec: {}\n",
        "apiVersion: v1\nkind: Canary\nspec: {}\n",
        "kind: Workload\nspec: {}\n",
        "metadata: {name: a}\nspec: {}\n",
    ] {
        assert!(!read(slip).report.errors.is_empty(), "{slip}");
    }
}

/// As `kubectl get -o yaml` writes several of them.
#[test]
fn a_list_is_its_items() {
    let item = |text: &str| {
        text.split("---\n")
            .map(|document| format!("- {}", document.trim_end().replace('\n', "\n  ")))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let all = canary("a", "a.local") + "---\n" + &listener("public", 80) + "---\napiVersion: v1\nkind: Pod\n";
    for (api, kind) in [("v1", "List"), ("wingbeat.dev/v1alpha1", "CanaryList")] {
        let set = read(&format!(
            "apiVersion: {api}\nkind: {kind}\nmetadata: {{resourceVersion: \"\"}}\nitems:\n{}\n",
            item(&all)
        ));
        assert_eq!((set.report.errors.as_slice(), set.left_out), (&[][..], 1), "{kind}");
        assert_eq!((set.canaries().count(), set.desired_state(None).listeners.len()), (1, 1));
    }
    let wrong =
        read(&format!("apiVersion: v1\nkind: List\nitems:\n{}\n", item(&all).replace("stepWeight", "stepWieght")));
    let field = "spec.analysis.stepWieght";
    assert!(wrong.report.errors.iter().any(|error| (error.line, error.field.as_str()) == (10, field)), "{wrong:?}");
}

/// What something else fills in is told as that, once, and not as every value that it is not.
#[test]
fn what_is_still_to_be_filled_in_is_told_once() {
    let analysis = "analysis:\n    stepWeight: ${STEP}\n    maxWeight: ${MAX:=50}";
    let text = canary("a", "a.local").replace("analysis: {stepWeight: 5}", analysis);
    let set = read(&(text + "---\n" + &listener("public", 80)));
    let told = told(&set.report.errors);
    assert_eq!(told, "canary.yaml:8:17: ${STEP} is to be filled in by something else, give what that writes");
    // Where any text is right, it is no matter.
    let hook =
        "webhooks: [{name: load, url: \"http://127.0.0.1/\", metadata: {cmd: \"hey -z ${TIME}\"}}], stepWeight: 5";
    let set = read(&(canary("a", "a.local").replace("stepWeight: 5", hook) + "---\n" + &listener("public", 80)));
    assert_eq!(set.report.errors, []);
    let helm = read("apiVersion: wingbeat.dev/v1alpha1\nkind: Listener\nmetadata: {name: {{ .Values.name }}}\n");
    assert!(
        self::told(&helm.report.errors).contains("where {{ }} or ${ } is to be filled in by something else"),
        "{:?}",
        helm.report
    );
}
