//! Random plans and events: the invariants hold whatever happens.

use proptest::prelude::*;
use wingbeat_core::id::Rev;
use wingbeat_core::rollout::{
    Answer, Command, Event, Facts, HookKind, Pace, PlanInput, Readiness, State, question, step,
};
use wingbeat_core::time::Span;
use wingbeat_core::verdict::{Counted, Verdict};

use crate::world::{World, advance, down, harm, hooks, input, revision};

#[derive(Debug, Clone)]
enum Happening {
    Event(Event),
    /// The open question is answered.
    Answer(Answer),
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
    let (seldom, mostly) = (prop::bool::weighted(0.1), prop::bool::weighted(0.8));
    (any_readiness(), any_readiness(), mostly, verdict, (seldom, seldom), any::<bool>()).prop_map(
        |(primary, canary, flowing, verdict, (safe, suspect), intact)| Facts {
            primary,
            canary,
            flowing,
            counted: if safe { Counted::Missing(3) } else { Counted::Enough },
            verdict,
            safe,
            suspect,
            intact,
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
        1 => (0..40_u64).prop_map(|rev| Happening::Event(Event::RevSeen(Rev::new(rev)))),
        1 => Just(Happening::Restart),
    ]
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
    (shape, kinds, any::<bool>(), 0..2_usize).prop_map(|(shape, kinds, checks, metrics)| PlanInput {
        hooks: hooks(&kinds),
        pace: if checks { Pace::Checks } else { Pace::Evidence },
        metrics: vec!["request-duration".into(); metrics],
        progress_deadline: Some(Span::from_secs(5)),
        ..shape
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_happens(plan in any_plan(), happenings in prop::collection::vec((happening(), 0..2_000_u64), 1..80)) {
        let mut world = World::new(&plan);
        for (happening, millis) in happenings {
            world.pass(millis);
            let event = match happening {
                Happening::Event(event) => event,
                Happening::Answer(answer) => match question(&world.plan, &world.state) {
                    Some(open) => Event::Answer(open.ticket, answer),
                    None => continue,
                },
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

    #[test]
    fn a_rollout_ends_when_everything_passes(plan in any_plan()) {
        let mut world = World::new(&plan);
        world.facts.verdict = advance();
        world.facts.counted = Counted::Enough;
        world.feed(&revision("2"));
        for _ in 0..60 {
            world.settle();
            world.interval();
        }
        prop_assert_eq!(world.phase(), "Succeeded");
        prop_assert_eq!(question(&world.plan, &world.state), None);
    }
}
