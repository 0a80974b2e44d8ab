use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::resource::Resource;

const fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + millis)
}

fn service(name: &str) -> ObjectRef {
    ObjectRef::new(Resource::SERVICE, "prod", name)
}

/// An apply of this content, decided at this version.
fn apply(name: &str, content: u64, basis: Option<&str>) -> Write {
    let change = Change::Apply(json!({"spec": content}));
    Write { object: service(name), change, basis: basis.map(str::to_owned) }
}

fn queued(queue: &mut Queue, write: Write, now: Timestamp) -> Ticket {
    match queue.put(write, now) {
        Accepted::Queued(ticket) => ticket,
        other @ (Accepted::UnderWay | Accepted::Repeated | Accepted::Full) => panic!("{other:?}"),
    }
}

fn one(queue: &mut Queue, now: Timestamp) -> Job {
    let mut jobs = queue.take(now, 10);
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.remove(0)
}

#[test]
fn the_newest_of_an_object_wins_and_one_call_is_made_at_a_time() {
    let mut queue = Queue::default();
    queued(&mut queue, apply("a", 1, None), at(0));
    let second = queued(&mut queue, apply("a", 2, None), at(1));
    queued(&mut queue, Write { object: service("a"), change: Change::Scale(3), basis: None }, at(1));
    let job = one(&mut queue, at(1));
    assert_eq!(job, Job { ticket: second, write: apply("a", 2, None) });
    // What comes meanwhile waits, and the last of it wins.
    queued(&mut queue, apply("a", 3, None), at(2));
    queued(&mut queue, apply("a", 4, None), at(3));
    assert_eq!((queue.take(at(3), 10), queue.next_due(), queue.len()), (vec![], None, 3));
    let report = queue.done(&job, Ok(Some("7".into())), at(5), 0).unwrap();
    assert_eq!((report.ticket, report.result), (second, Ok(Some("7".into()))));
    let scale = one(&mut queue, at(5));
    assert_eq!(scale.write.change, Change::Scale(3));
    assert!(queue.done(&scale, Ok(None), at(6), 0).is_some());
    assert_eq!(one(&mut queue, at(6)).write, apply("a", 4, None));
}

#[test]
fn one_objects_failure_delays_no_other() {
    let mut queue = Queue::default();
    queued(&mut queue, apply("a", 1, None), at(0));
    let job = one(&mut queue, at(0));
    queued(&mut queue, apply("b", 1, None), at(0));
    assert_eq!(queue.done(&job, Err(Failure::Timeout), at(10), 0), None, "it is tried again");
    let job = one(&mut queue, at(10));
    assert_eq!(job.write.object, service("b"));
    assert!(queue.done(&job, Ok(None), at(11), 0).is_some());
    assert_eq!(queue.next_due(), Some(at(110)));
    assert_eq!(queue.take(at(109), 10), []);
    assert_eq!(one(&mut queue, at(110)).write.object, service("a"));
}

#[test]
fn what_may_help_is_tried_for_a_minute_and_what_cannot_once() {
    for (failure, attempts) in [
        (Failure::Timeout, MAX_ATTEMPTS),
        (Failure::Server { code: 503, message: String::new() }, MAX_ATTEMPTS),
        (Failure::Invalid("why".into()), 1),
        (Failure::Forbidden("why".into()), 1),
        (Failure::NoPermit, 1),
    ] {
        let mut queue = Queue::default();
        let ticket = queued(&mut queue, apply("a", 1, None), at(0));
        let (mut now, mut made) = (at(0), 0);
        let report = loop {
            let job = one(&mut queue, now);
            made += 1;
            if let Some(report) = queue.done(&job, Err(failure.clone()), now, JITTER_PARTS) {
                break report;
            }
            now = queue.next_due().unwrap();
        };
        assert_eq!((report.ticket, made), (ticket, attempts), "{failure:?}");
        assert_eq!(report.result, Err(CallError { action: "applied", object: service("a"), failure }));
        assert!(attempts == 1 || (40..=90).contains(&(now.since(at(0)).as_millis() / 1_000)), "{now:?}");
        assert!(queue.is_empty());
    }
}

#[test]
fn a_server_that_wants_peace_gets_it() {
    let mut queue = Queue::default();
    queued(&mut queue, apply("a", 1, None), at(0));
    let job = one(&mut queue, at(0));
    queue.done(&job, Err(Failure::Throttled { after: Some(Span::from_secs(7)) }), at(0), 0);
    assert_eq!(queue.next_due(), Some(at(7_000)));
}

#[test]
fn the_same_is_written_once_until_something_was_observed() {
    let mut queue = Queue::default();
    queued(&mut queue, apply("a", 1, Some("5")), at(0));
    assert_eq!(queue.put(apply("a", 1, Some("5")), at(0)), Accepted::UnderWay, "it waits");
    let job = one(&mut queue, at(0));
    assert_eq!(queue.put(apply("a", 1, Some("5")), at(1)), Accepted::UnderWay, "it is under way");
    queue.done(&job, Ok(Some("6".into())), at(2), 0);
    assert_eq!(queue.put(apply("a", 1, Some("5")), at(3)), Accepted::Repeated, "nothing was observed since");
    // Somebody has changed it back: it is written once a minute.
    queued(&mut queue, apply("a", 1, Some("7")), at(4));
    assert_eq!(queue.next_due(), Some(at(60_002)));
    // Another content is written at once.
    queued(&mut queue, apply("a", 2, Some("7")), at(5));
    assert_eq!(one(&mut queue, at(5)).write, apply("a", 2, Some("7")));
}

#[test]
fn what_was_refused_comes_later_and_later_and_what_is_mended_at_once() {
    let mut queue = Queue::default();
    let mut waits = Vec::new();
    let mut now = at(0);
    for _ in 0..12 {
        queued(&mut queue, apply("a", 1, None), now);
        let due = queue.next_due().unwrap();
        waits.push(due.since(now).as_millis());
        now = due;
        let job = one(&mut queue, now);
        queue.done(&job, Err(Failure::Invalid("why".into())), now, 0);
    }
    assert_eq!(waits, [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 15_000, 15_000, 15_000]);
    queued(&mut queue, apply("a", 2, None), now);
    assert_eq!(queue.next_due(), Some(now));
}

#[test]
fn an_event_whose_answer_was_lost_is_not_a_failure() {
    let mut queue = Queue::default();
    let write = || Write { object: service("a"), change: Change::Create(json!({})), basis: None };
    queued(&mut queue, write(), at(0));
    let job = one(&mut queue, at(0));
    queue.done(&job, Err(Failure::Timeout), at(0), 0);
    let job = one(&mut queue, at(1_000));
    assert_eq!(queue.done(&job, Err(Failure::Exists), at(1_000), 0).unwrap().result, Ok(None));
    // One that was there before is.
    let mut queue = Queue::default();
    queued(&mut queue, write(), at(0));
    let job = one(&mut queue, at(0));
    assert!(queue.done(&job, Err(Failure::Exists), at(0), 0).unwrap().result.is_err());
}

#[test]
fn what_waits_and_what_is_kept_is_bounded() {
    let mut queue = Queue::default();
    for number in 0..MAX_WAITING {
        queued(&mut queue, apply(&number.to_string(), 1, None), at(0));
    }
    assert_eq!(queue.put(apply("one more", 1, None), at(0)), Accepted::Full);
    queued(&mut queue, apply("7", 2, None), at(0));
    // An hour of a thousand new objects a minute.
    let mut queue = Queue::default();
    for minute in 0..60_u64 {
        let now = at(minute * 60_000);
        for number in 0..1_000 {
            queued(&mut queue, apply(&format!("{minute}-{number}"), 1, None), now);
            let job = one(&mut queue, now);
            queue.done(&job, Ok(None), now, 0);
        }
    }
    assert!(queue.last.len() <= 3_000, "{}", queue.last.len());
}

proptest! {
    /// However writes, failures and answers come: each object is written at most once at a time, the last content is what is
    /// written in the end, and every job is answered or tried again.
    #[test]
    fn the_last_content_is_what_stays(
        steps in prop::collection::vec((0_u8..4, 0_u8..3, 0_u64..3, 0_u64..400), 1..200)
    ) {
        let mut queue = Queue::default();
        let mut stored = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        let mut flying: Vec<Job> = Vec::new();
        let (mut now, mut version) = (0, 0_u64);
        let finish = |queue: &mut Queue, stored: &mut BTreeMap<ObjectRef, Change>, job: Job, fails: bool, now| {
            if !fails {
                stored.insert(job.write.object.clone(), job.write.change.clone());
            }
            queue.done(&job, if fails { Err(Failure::Timeout) } else { Ok(None) }, now, 500);
        };
        for (action, name, content, pause) in steps {
            now += pause;
            match action {
                0 | 1 => {
                    version += u64::from(action);
                    let write = apply(&name.to_string(), content, Some(&version.to_string()));
                    wanted.insert(write.object.clone(), write.change.clone());
                    queue.put(write, at(now));
                }
                2 => flying.extend(queue.take(at(now), 2)),
                _ => if let Some(job) = flying.pop() {
                    finish(&mut queue, &mut stored, job, content == 0, at(now));
                },
            }
            let objects: BTreeSet<_> = flying.iter().map(|job| job.write.object.clone()).collect();
            prop_assert_eq!(objects.len(), flying.len());
        }
        for _ in 0..1_000 {
            flying.extend(queue.take(at(now), 10));
            flying.drain(..).for_each(|job| finish(&mut queue, &mut stored, job, false, at(now)));
            let Some(due) = queue.next_due() else { break };
            now = now.max(due.as_millis() - at(0).as_millis());
        }
        prop_assert!(queue.is_empty());
        prop_assert_eq!(stored, wanted);
    }
}
