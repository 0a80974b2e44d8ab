//! Random plans and events: the invariants hold whatever happens.

use proptest::prelude::*;
use wingbeat_core::id::Rev;
use wingbeat_core::rollout::{
    Answer, Command, Effect, Event, Facts, Handover, HookKind, MetricInput, MetricSource, Pace, Phase, Plan, PlanInput,
    Readiness, State, Ticket, next_timeout, project, question, step,
};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::{Counted, Doubt, Verdict};

use crate::world::{World, advance, down, harm, hooks, input, revision};

#[derive(Debug, Clone)]
enum Happening {
    Event(Event),
    /// The open question is answered.
    Answer(Answer),
    /// Some question that was open before is answered with yes.
    Late(usize),
    /// The spec is written anew.
    Rewrite(PlanInput),
    /// The controller is killed and started again.
    Restart,
}

fn any_readiness() -> impl Strategy<Value = Readiness> {
    prop_oneof![
        6 => Just(Readiness::Ready),
        1 => any::<bool>().prop_map(|hopeless| down("starting", hopeless)),
    ]
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let verdict = prop_oneof![
        12 => Just(advance()),
        1 => Just(harm()),
        2 => Just(Verdict::NoData(String::new())),
        2 => Just(Verdict::Continue(String::new())),
    ];
    let doubt = prop_oneof![18 => Just(None), 1 => Just(Some(Doubt::Harm)), 1 => Just(Some(Doubt::OnePod))];
    let (seldom, mostly) = (prop::bool::weighted(0.1), prop::bool::weighted(0.8));
    (
        any_readiness(),
        any_readiness(),
        mostly,
        verdict,
        (seldom, doubt, seldom),
        (any::<bool>(), prop::bool::weighted(0.05), prop::bool::weighted(0.05)),
    )
        .prop_map(
            |(primary, canary, propagation, verdict, (safe, doubt, uncounted), (intact, primary_gone, canary_gone))| {
                Facts {
                    primary_gone,
                    canary_gone,
                    primary,
                    canary,
                    propagation,
                    counted: if safe { Counted::Missing(3) } else { Counted::Sufficient },
                    verdict,
                    safe,
                    doubt,
                    uncounted,
                    intact,
                }
            },
        )
}

fn happening() -> impl Strategy<Value = Happening> {
    let command = prop_oneof![
        Just(Command::Pause),
        Just(Command::Resume),
        Just(Command::Approve),
        Just(Command::Abort),
        Just(Command::Promote),
        Just(Command::Retry),
    ];
    let answer = prop_oneof![
        6 => Just(Answer::Passed),
        1 => Just(Answer::Failed("no".into())),
        1 => Just(Answer::Unknown("?".into())),
        1 => Just(Answer::TooFew("few".into())),
    ];
    prop_oneof![
        2 => (1..4_u8).prop_map(|n| Happening::Event(revision(&n.to_string()))),
        20 => any_facts().prop_map(|facts| Happening::Event(Event::Tick(facts))),
        12 => answer.prop_map(Happening::Answer),
        2 => command.prop_map(|command| Happening::Event(Event::Command(command))),
        1 => (0..40_u64).prop_map(|rev| Happening::Event(Event::RevObserved(Rev::new(rev)))),
        1 => Just(Happening::Restart),
        2 => any::<usize>().prop_map(Happening::Late),
        2 => maybe_suspended().prop_map(Happening::Rewrite),
    ]
}

fn maybe_suspended() -> impl Strategy<Value = PlanInput> {
    (any_plan(), prop::bool::weighted(0.25)).prop_map(|(plan, suspend)| PlanInput { suspend, ..plan })
}

fn any_plan() -> impl Strategy<Value = PlanInput> {
    let shape = prop_oneof![
        Just(input()),
        Just(PlanInput { mirror: true, ..input() }),
        Just(PlanInput {
            step_weight: None,
            step_weights: vec![1, 10, 100],
            step_weight_promotion: Some(30),
            ..input()
        }),
        Just(PlanInput { step_weight: None, max_weight: None, iterations: Some(3), matches: true, ..input() }),
        Just(PlanInput { step_weight: None, max_weight: None, iterations: Some(2), ..input() }),
        Just(PlanInput { skip_analysis: true, ..input() }),
    ];
    let kinds = prop::sample::subsequence(HookKind::ALL.to_vec(), 0..=8);
    let source = prop_oneof![Just(MetricSource::Filters), Just(MetricSource::External)];
    let metrics = prop::collection::vec(("[ab]", source), 0..3);
    let promotion = (prop::option::of(1..40_i64), any::<bool>());
    (shape, kinds, any::<bool>(), metrics, promotion).prop_map(|(shape, kinds, checks, metrics, (step, copies))| {
        PlanInput {
            hooks: hooks(&kinds),
            pace: if checks { Pace::Checks } else { Pace::Evidence },
            metrics: metrics.into_iter().map(|(name, source)| MetricInput { name, source }).collect(),
            progress_deadline: Some(Span::from_secs(5)),
            step_weight_promotion: step,
            handover: if copies { Handover::Copy } else { Handover::Relabel },
            ..shape
        }
    })
}

/// Ticks until nothing follows any more. False if something always does.
fn comes_to_rest(plan: &Plan, state: &mut State, facts: &Facts, now: Timestamp) -> bool {
    (0..100).any(|_| {
        let next = step(plan, state, &Event::Tick(facts.clone()), now).state;
        let rests = next == *state;
        *state = next;
        rests
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Who looks when time is up, and whenever something else happens, misses nothing.
    #[test]
    fn before_its_timeout_time_alone_does_nothing(
        plan in maybe_suspended(),
        happenings in prop::collection::vec((happening(), 0..2_000_u64), 1..80),
        facts in any_facts(),
        later in prop::collection::vec(0..1_000_u64, 5),
    ) {
        let mut world = World::new(&plan);
        for (happening, millis) in happenings {
            world.pass(millis);
            match happening {
                Happening::Event(event) => drop(world.feed(&event)),
                Happening::Answer(answer) => {
                    if let Some(open) = question(&world.plan, &world.state) {
                        drop(world.feed(&Event::Answer(open.ticket, answer)));
                    }
                }
                Happening::Rewrite(input) => drop(world.rewrite(&input)),
                Happening::Restart => world.state = world.state.clone().resumed(),
                Happening::Late(_) => {}
            }
            let mut state = world.state.clone();
            if !comes_to_rest(&world.plan, &mut state, &facts, world.now) {
                continue;
            }
            let timeout = next_timeout(&world.plan, &state, world.now);
            prop_assert!(timeout.is_none_or(|timeout| timeout > world.now));
            // An hour stands for ever.
            let span = timeout.unwrap_or_else(|| world.now.plus(Span::from_secs(3_600))).since(world.now);
            let all = span.as_nanos().saturating_sub(1);
            let times = later.iter().map(|thousandths| all / 1_000 * thousandths).chain([all]);
            for after in times {
                let now = world.now.plus(Span::from_nanos(after));
                let looked = step(&world.plan, &state, &Event::Tick(facts.clone()), now);
                prop_assert_eq!(&looked.state, &state, "{:?} of {:?}", Span::from_nanos(after), span);
                prop_assert_eq!(looked.effects, []);
            }
        }
    }

    #[test]
    fn whatever_happens(plan in maybe_suspended(), happenings in prop::collection::vec((happening(), 0..2_000_u64), 1..80)) {
        let mut world = World::new(&plan);
        for (happening, millis) in happenings {
            world.pass(millis);
            let event = match happening {
                Happening::Event(event) => event,
                Happening::Answer(answer) => match question(&world.plan, &world.state) {
                    Some(open) => Event::Answer(open.ticket, answer),
                    None => continue,
                },
                Happening::Late(which) => {
                    let open = question(&world.plan, &world.state).map(|open| open.ticket);
                    let late: Vec<Ticket> =
                        world.questions.iter().map(|(ticket, _)| *ticket).filter(|it| Some(*it) != open).collect();
                    let Some(ticket) = late.get(which % late.len().max(1)) else { continue };
                    let before = world.state.clone();
                    world.feed(&Event::Answer(*ticket, Answer::Passed));
                    prop_assert_eq!(&world.state, &before, "what is not asked is not answered");
                    continue;
                }
                Happening::Rewrite(input) => {
                    let (share, on) = (project(&world.state), world.state.has_rollout());
                    let terms = world.plan.terms();
                    world.rewrite(&input);
                    prop_assert_eq!(project(&world.state), share, "writing moves nothing");
                    let now = world.plan.terms();
                    prop_assert!(!on || now == terms || world.plan.strategy() == Plan::try_new(&input).unwrap().strategy());
                    continue;
                }
                Happening::Restart => {
                    world.state = world.state.clone().resumed();
                    continue;
                }
            };
            // The invariants are checked within.
            world.feed(&event);
            let after = world.state.clone();
            // What is stored comes back as it was, and projects the same.
            let stored = serde_json::to_string(&after).unwrap();
            let restored: State = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(&restored, &after);
            // The same event again at the same time changes nothing, but for a stage that may follow at once.
            if !matches!(event, Event::Tick(_) | Event::Command(_)) {
                let again = step(&world.plan, &after, &event, world.now);
                prop_assert_eq!(&again.state, &after);
                prop_assert_eq!(again.effects, []);
            }
        }
    }

    /// A step that is adopted without being stored is none that a restart would miss: requests go to the same, and as much has failed,
    /// whenever that comes.
    #[test]
    fn a_restart_goes_on_from_what_is_stored(
        plan in maybe_suspended(),
        happenings in prop::collection::vec((happening(), 0..2_000_u64), 1..80),
    ) {
        let mut world = World::new(&plan);
        let mut stored = world.state.clone();
        for (happening, millis) in happenings {
            world.pass(millis);
            let event = match happening {
                Happening::Event(event) => event,
                Happening::Answer(answer) => match question(&world.plan, &world.state) {
                    Some(open) => Event::Answer(open.ticket, answer),
                    None => continue,
                },
                Happening::Late(_) | Happening::Rewrite(_) => continue,
                Happening::Restart => {
                    world.state = stored.clone().resumed();
                    continue;
                }
            };
            let before = world.state.clone();
            let effects = world.feed(&event);
            let is_told_alone = effects.iter().all(|effect| matches!(effect, Effect::Emit(..)));
            if !is_told_alone || !world.state.resumes_as(&before) {
                stored = world.state.clone();
            }
            prop_assert_eq!(project(&stored), project(&world.state));
            let found = |state: &State| {
                let state = state.clone().resumed();
                (state.rev, state.rollout, state.phase.as_str(), state.failed_checks(), state.unready().cloned())
            };
            prop_assert_eq!(found(&stored), found(&world.state));
            // A look begins anew: none goes on where an old one was, past what is asked before.
            if matches!(stored.phase, Phase::Progressing(_)) {
                prop_assert_eq!(question(&world.plan, &stored.clone().resumed()), None);
            }
        }
    }

    #[test]
    fn a_rollout_ends_when_everything_passes(plan in any_plan(), later in prop::collection::vec((any_plan(), 0..9), 0..4)) {
        let mut world = World::new(&plan);
        world.facts.verdict = advance();
        world.facts.counted = Counted::Sufficient;
        world.feed(&revision("2"));
        for (plan, intervals) in later {
            for _ in 0..intervals {
                world.settle();
                world.interval();
            }
            // In the middle of a look, too.
            world.pass(1_000);
            world.feed(&Event::Tick(world.facts.clone()));
            world.rewrite(&plan);
        }
        for _ in 0..150 {
            world.settle();
            world.interval();
        }
        prop_assert_eq!(world.phase(), "Succeeded");
        prop_assert_eq!(question(&world.plan, &world.state), None);
    }
}
