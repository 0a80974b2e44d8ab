//! A change of some files comes to the same as all of them looked at anew: in force, told and managed.

use proptest::prelude::*;
use wingbeat_api::desired_state::{CanaryConfig, Change};
use wingbeat_api::files::{Extent, Part};

use super::*;

/// Files of a world.
const FILES: usize = 4;

/// A document, or what is none.
#[derive(Debug, Clone)]
enum Piece {
    Listener { name: u8, port: u16 },
    Canary { name: u8, host: u8, target: u8, extra: u8 },
    Workload { name: u8, revision: u8, revisions: u8, http2: bool },
    Template { variables: bool },
    Provider { url: u8 },
    Foreign,
    Wrong,
    Broken,
}

/// What happens to a file, and how much later.
#[derive(Debug, Clone)]
struct Edit {
    file: usize,
    /// None if it goes.
    pieces: Option<Vec<Piece>>,
    seconds: u64,
    /// Which revisions are in use, of those that there are.
    uses: u8,
    absence: bool,
}

impl Piece {
    fn text(&self) -> String {
        let ours = "apiVersion: wingbeat.dev/v1alpha1\nkind:";
        match self {
            Self::Listener { name, port } => {
                format!("{ours} Listener\nmetadata: {{name: l{name}}}\nspec: {{address: 127.0.0.1, port: {port}}}\n")
            }
            Self::Canary { name, host, target, extra } => {
                let extra = match extra {
                    0 => "",
                    1 => ", alerts: [{name: told, providerRef: {name: channel}}]",
                    2 => ", metrics: [{name: own, templateRef: {name: template}, thresholdRange: {max: 1}}]",
                    3 => {
                        ", metrics: [{name: own, templateRef: {name: template}, thresholdRange: {max: 1}, \
                         templateVariables: {which: one}}]"
                    }
                    _ => ", threshold: 3",
                };
                format!(
                    "{ours} Canary\nmetadata: {{name: c{name}}}\nspec:\n  targetRef: {{kind: Workload, name: c{target}}}\n  \
                     service: {{hosts: [h{host}.local], listeners: [l{}]}}\n  analysis: {{stepWeight: 5{extra}}}\n",
                    host % 2
                )
            }
            Self::Workload { name, revision, revisions, http2 } => {
                let all: Vec<String> = (0..=*revisions.max(revision))
                    .map(|number| format!("r{number}: {{endpoints: [\"127.0.0.1:{}\"]}}", number + 1))
                    .collect();
                format!(
                    "{ours} Workload\nmetadata: {{name: c{name}}}\nspec: {{revision: r{revision}, http2: {http2}, revisions: \
                     {{{}}}}}\n",
                    all.join(", ")
                )
            }
            Self::Template { variables } => {
                let query = if *variables { "{{ variables.which }}" } else { "up" };
                format!(
                    "{ours} MetricTemplate\nmetadata: {{name: template}}\nspec: {{provider: {{type: prometheus, address: \
                     \"http://127.0.0.1:9090\"}}, query: \"{query}\"}}\n"
                )
            }
            Self::Provider { url } => format!(
                "{ours} AlertProvider\nmetadata: {{name: channel}}\nspec: {{type: slack, channel: c, address: \
                 \"http://127.0.0.1/{url}\"}}\n"
            ),
            Self::Foreign => "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n".to_owned(),
            Self::Wrong => format!("{ours} Listener\nmetadata: {{name: wrong}}\nspec: {{port: 0}}\n"),
            Self::Broken => "kind: [\n".to_owned(),
        }
    }
}

fn pieces() -> impl Strategy<Value = Piece> {
    prop_oneof![
        4 => (0..2_u8, 80..83_u16).prop_map(|(name, port)| Piece::Listener { name, port }),
        8 => (0..4_u8, 0..4_u8, 0..4_u8, 0..5_u8, prop::bool::weighted(0.9)).prop_map(
            |(name, host, target, extra, own)| Piece::Canary {
                name,
                host: if own { name } else { host },
                target: if own { name } else { target },
                extra,
            }
        ),
        8 => (0..4_u8, 0..2_u8, 0..3_u8, any::<bool>())
            .prop_map(|(name, revision, revisions, http2)| Piece::Workload { name, revision, revisions, http2 }),
        2 => any::<bool>().prop_map(|variables| Piece::Template { variables }),
        2 => (0..2_u8).prop_map(|url| Piece::Provider { url }),
        1 => Just(Piece::Foreign),
        1 => Just(Piece::Wrong),
        1 => Just(Piece::Broken),
    ]
}

fn edits() -> impl Strategy<Value = Edit> {
    let pieces = prop::option::weighted(0.95, prop::collection::vec(pieces(), 0..4));
    (0..FILES, pieces, prop_oneof![3 => Just(0), 1 => 0..12_u64], any::<u8>(), prop::bool::weighted(0.02))
        .prop_map(|(file, pieces, seconds, uses, absence)| Edit { file, pieces, seconds, uses, absence })
}

/// A world in which all is right: two listeners, four canaries with their workloads, a template, a provider.
fn first() -> BTreeMap<String, String> {
    let whole = |pieces: &[Piece]| pieces.iter().map(Piece::text).collect::<Vec<_>>().join("---\n");
    let canary = |name: u8, extra: u8| {
        let canary = Piece::Canary { name, host: name, target: name, extra };
        [canary, Piece::Workload { name, revision: 0, revisions: 1, http2: false }]
    };
    BTreeMap::from([
        ("f0".to_owned(), whole(&canary(0, 0))),
        ("f1".to_owned(), whole(&[canary(1, 1), canary(2, 3)].concat())),
        ("f2".to_owned(), whole(&canary(3, 3))),
        (
            "f3".to_owned(),
            whole(&[
                Piece::Listener { name: 0, port: 80 },
                Piece::Listener { name: 1, port: 81 },
                Piece::Template { variables: true },
                Piece::Provider { url: 0 },
            ]),
        ),
    ])
}

/// What is managed, in words: nothing else of it can be compared.
fn words(managed: &CanaryConfig, file: Option<&str>) -> String {
    format!("{file:?} {managed:?}")
}

/// What the engine manages that is told changes alone.
#[derive(Debug, Default)]
struct Managing {
    canaries: BTreeMap<CanaryName, String>,
    listeners: String,
    texts: BTreeMap<String, Vec<Part>>,
}

impl Managing {
    fn take(&mut self, change: Change) {
        for (name, configured) in change.canaries {
            match configured {
                Some(configured) => {
                    let words = words(&configured.config, configured.file.as_deref());
                    self.canaries.insert(name, words)
                }
                None => self.canaries.remove(&name),
            };
        }
        if let Some(listeners) = change.listeners {
            self.listeners = format!("{listeners:?}");
        }
        for (file, parts) in change.texts {
            match parts {
                Some(parts) => self.texts.insert(file, parts),
                None => self.texts.remove(&file),
            };
        }
    }

    /// Holds what it was told against all that there is.
    fn check(&self, files: &Files, taken: &InForce) -> Result<(), TestCaseError> {
        let setup = taken.set.desired_state(None);
        let canaries = setup.canaries.iter().map(|(name, managed)| {
            let file = setup.files.get(name).map(|file| &**file);
            (name.clone(), words(managed, file))
        });
        prop_assert_eq!(&self.canaries, &canaries.collect::<BTreeMap<_, _>>());
        prop_assert_eq!(&self.listeners, &format!("{:?}", setup.listeners));
        prop_assert_eq!(&self.texts, &files.parts());
        Ok(())
    }
}

/// What is looked at of a change, and what is managed in another way because of it.
#[test]
fn a_change_concerns_what_it_has_to_do_with() {
    let mut texts = first();
    let mut files = Files::default();
    let taken = files.update(seen(&texts));
    assert_eq!((taken.extent, taken.report.errors), (Extent::Everything, Vec::new()));
    let canaries = |change: &Change| change.canaries.keys().map(|name| name.name.clone()).collect::<Vec<_>>().join(" ");
    for (what, file, from, to, concerned) in [
        ("a revision", "f0", "revision: r0", "revision: r1", "c0"),
        ("a host", "f0", "h0.local", "new.local", "c0"),
        ("one of a file", "f1", "h1.local", "other.local", "c1"),
        ("what metrics ask", "f3", "{{ variables.which }}", "up + {{ variables.which }}", "c2 c3"),
        ("what is wrong by itself", "f2", "stepWeight: 5", "stepWeight: none", ""),
        ("nothing", "f0", "new.local", "new.local", ""),
    ] {
        let text = texts[file].replace(from, to);
        texts.insert(file.to_owned(), text);
        let taken = files.update(seen(&texts));
        assert!(matches!(taken.extent, Extent::Files(_)), "{what}: {:?}", taken.extent);
        assert_eq!(canaries(&taken.change()), concerned, "{what}");
    }
    // Who is to blame is found among all.
    texts.insert("f4".to_owned(), Piece::Listener { name: 2, port: 80 }.text());
    let taken = files.update(seen(&texts));
    assert_eq!((taken.extent, taken.report.errors.len()), (Extent::Everything, 3), "{:?}", taken.report);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_change_comes_to_the_same_as_all_looked_at_anew(edits in prop::collection::vec(edits(), 1..12)) {
        let mut texts = first();
        let (mut files, mut whole) = (Files::default(), Files::default());
        let mut managing = Managing { listeners: "[]".to_owned(), ..Managing::default() };
        // A name that nobody has: while some name has no address, all files are looked at.
        let unresolved = BTreeMap::from([("nobody.example".to_owned(), "no address".to_owned())]);
        let (mut now, mut in_use) = (Timestamp::EPOCH, BTreeMap::new());
        for edit in std::iter::once(None).chain(edits.into_iter().map(Some)) {
            let mut absence = Removal::Deferred;
            let mut uses = 0;
            if let Some(edit) = edit {
                let file = format!("f{}", edit.file);
                match edit.pieces {
                    Some(pieces) => {
                        let text: Vec<String> = pieces.iter().map(Piece::text).collect();
                        texts.insert(file, text.join("---\n"));
                    }
                    None => drop(texts.remove(&file)),
                }
                now = now.plus(Span::from_secs(edit.seconds));
                uses = edit.uses;
                if edit.absence {
                    absence = Removal::Confirmed;
                }
            }
            let seen = Observation { in_use: &in_use, absence, now, ..seen(&texts) };
            let taken = files.update(seen);
            let expected = whole.update(Observation { unresolved: &unresolved, ..seen });
            prop_assert_eq!(&expected.extent, &Extent::Everything);
            prop_assert_eq!(&taken.report.errors, &expected.report.errors);
            prop_assert_eq!(&taken.missed, &expected.missed);
            prop_assert_eq!(&taken.removed, &expected.removed);
            prop_assert_eq!(&taken.rests_on, &expected.rests_on);
            prop_assert_eq!(taken.again, expected.again);
            let of_extent = |problem: &&Problem| match &taken.extent {
                Extent::Everything => true,
                Extent::Files(files) => files.contains(&problem.file),
            };
            let warnings: Vec<&Problem> = expected.report.warnings.iter().filter(of_extent).collect();
            let told: Vec<&Problem> = taken.report.warnings.iter().collect();
            prop_assert!(told.iter().all(|warning| warnings.contains(warning)), "{told:?} of {warnings:?}");
            prop_assert_eq!(taken.set.left_out, expected.set.left_out);
            prop_assert_eq!(taken.set.host_names(), expected.set.host_names());
            prop_assert_eq!(files.parts(), whole.parts());
            managing.take(taken.change());
            managing.check(&files, &expected)?;
            let uses_of = |(place, (name, managed)): (usize, (&CanaryName, &CanaryConfig))| {
                let bound = managed.workload.revisions.keys().skip(usize::from(uses >> (place % 8) & 1));
                (name.clone(), InUse { bound: bound.take(1).cloned().collect(), on_trial: None })
            };
            in_use = taken.set.desired_state(None).canaries.iter().enumerate().map(uses_of).collect();
        }
    }
}
