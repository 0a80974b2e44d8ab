//! Whose routes a client came with, and whether it may be given others.
//!
//! A client that has routes of another state keeps all that it has, until somebody has said that this state may take over:
//! as a whole, since of its routes nothing is known here but the names. One that comes with nothing is served, unless
//! clients with routes of another state were seen: it would show what nobody has approved.

use std::collections::BTreeSet;

use crate::kind::Kind;
use crate::lineage::{Adoption, HeldVersion};
use crate::resource::Resource;
use crate::snapshot::Snapshot;

/// What a client came with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum RouteOrigin {
    /// Nothing, and it was sent nothing yet.
    #[default]
    Fresh,
    /// Something of this state: it may be sent what this state says.
    Own,
    /// Something of another state, or of somebody else.
    Foreign,
}

impl RouteOrigin {
    /// Notes a version that the client came with. One that is foreign is enough.
    pub(super) fn note(&mut self, held: HeldVersion) {
        *self = match (*self, held) {
            (_, HeldVersion::Foreign) | (Self::Foreign, HeldVersion::Own(_)) => Self::Foreign,
            (Self::Fresh | Self::Own, HeldVersion::Own(_)) => Self::Own,
        };
    }
}

impl RouteOrigin {
    /// Returns true if the client is sent nothing for now of what there is to be served.
    pub(super) fn is_held(self, snapshot: Option<&Snapshot>) -> bool {
        match self {
            Self::Own => false,
            Self::Fresh => unadopted(snapshot).any(|(_, adoption)| adoption == Adoption::Contested),
            // Where this state has nothing to serve, there is nothing that anybody could approve.
            Self::Foreign => serves_no_host(snapshot) || unadopted(snapshot).next().is_some(),
        }
    }

    /// Returns the hosts that the client has from another state, as far as it is held for them.
    pub(super) fn foreign(self, snapshot: Option<&Snapshot>) -> BTreeSet<String> {
        match self {
            Self::Fresh | Self::Own => BTreeSet::new(),
            Self::Foreign => unadopted(snapshot).map(|(host, _)| host.clone()).collect(),
        }
    }
}

/// Returns the hosts of the client's listeners that are not adopted.
fn unadopted(snapshot: Option<&Snapshot>) -> impl Iterator<Item = (&String, Adoption)> {
    let of_listener = move |listener: &str| snapshot?.unadopted().get(listener);
    let hosts = listeners(snapshot).filter_map(move |listener| of_listener(&listener.name)).flatten();
    hosts.map(|(host, adoption)| (host, *adoption)).filter(|(_, adoption)| *adoption != Adoption::Adopted)
}

fn serves_no_host(snapshot: Option<&Snapshot>) -> bool {
    let Some(tables) = snapshot.map(|snapshot| snapshot.of(Kind::Routes)) else { return true };
    listeners(snapshot).filter_map(|listener| tables.get(&listener.name)).all(|table| table.parts.is_empty())
}

/// Returns the listeners that are for the client, whether it asks for them or not.
fn listeners(snapshot: Option<&Snapshot>) -> impl Iterator<Item = &Resource> {
    snapshot.into_iter().flat_map(|snapshot| snapshot.of(Kind::Listener).values()).map(AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::lineage::{Lineage, Unmarked};
    use crate::resource::Part;
    use crate::session::{Changes, Dialect, Names, Request, Session};
    use crate::version::Version;

    const NOW: Duration = Duration::ZERO;
    const HERE: Lineage = Lineage { id: 1, unmarked: Unmarked::Foreign };
    const ELSEWHERE: Lineage = Lineage { id: 2, unmarked: Unmarked::Foreign };

    fn plain(name: &str) -> Resource {
        Resource {
            name: name.to_owned(),
            body: name.as_bytes().to_vec().into(),
            version: Version::of([name.as_bytes()]),
            refers_to: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// One listener with one host, that leads to `cluster`.
    fn snapshot(cluster: &str, adoption: Option<Adoption>) -> Arc<Snapshot> {
        let mut snapshot = Snapshot::default();
        snapshot.add(Kind::Cluster, plain(cluster));
        snapshot.add(Kind::Listener, plain("public"));
        let part = Part {
            name: "prod/a".to_owned(),
            body: cluster.as_bytes().to_vec().into(),
            version: Version::of([cluster.as_bytes()]),
            identity: Version::of([&b"a"[..]]),
            refers_to: vec![cluster.to_owned()],
        };
        snapshot.add(Kind::Routes, crate::render::routes("public", vec![Arc::new(part)]));
        let on =
            |listener: &str, host: &str, adoption| (listener.to_owned(), BTreeMap::from([(host.to_owned(), adoption)]));
        let mine = adoption.map(|adoption| on("public", "prod/a", adoption));
        // What others listen on is none of the client's business.
        let others = on("other", "prod/b", Adoption::Contested);
        snapshot.hold(mine.into_iter().chain([others]).collect());
        Arc::new(snapshot)
    }

    fn session(dialect: Dialect, snapshot: &Arc<Snapshot>) -> Session {
        let mut session = Session::new(dialect).of_lineage(HERE);
        assert_eq!(session.snapshot(snapshot, NOW), []);
        session
    }

    /// A client that holds cluster `old`, the listener and its routes of this state. Returns how many responses it gets.
    fn comes(session: &mut Session, held: Option<Lineage>) -> usize {
        let mut responses = 0;
        for (kind, name, names) in [
            (Kind::Cluster, "old", &[][..]),
            (Kind::Listener, "public", &[][..]),
            (Kind::Routes, "public", &["public".to_owned()][..]),
        ] {
            let version = held.map(|held| held.mark(Version::of([&b"what it holds"[..]])));
            let names = match session.dialect {
                Dialect::StateOfTheWorld => Names::All { names: names.to_vec(), version: version.unwrap_or_default() },
                Dialect::Delta => Names::Change {
                    subscribe: names.to_vec(),
                    unsubscribe: Vec::new(),
                    initial: version.into_iter().map(|version| (name.to_owned(), version)).collect(),
                },
            };
            let request = Request { names, ..Request::default() };
            responses += session.request(kind, &request, NOW).unwrap().responses.len();
        }
        responses
    }

    fn told(session: &mut Session) -> Option<Vec<String>> {
        session.take_changes().foreign.map(|hosts| hosts.into_iter().collect())
    }

    #[test]
    fn who_is_held_depends_on_what_it_came_with() {
        use Adoption::{Adopted, Contested, Open};
        for dialect in [Dialect::StateOfTheWorld, Dialect::Delta] {
            for (held, adoption, is_held, is_foreign) in [
                (None, None, false, false),
                (None, Some(Open), false, false),
                (None, Some(Contested), true, false),
                (Some(HERE), Some(Open), false, false),
                (Some(HERE), Some(Contested), false, false),
                (Some(ELSEWHERE), None, false, false),
                (Some(ELSEWHERE), Some(Adopted), false, false),
                (Some(ELSEWHERE), Some(Open), true, true),
                (Some(ELSEWHERE), Some(Contested), true, true),
            ] {
                let mut session = session(dialect, &snapshot("new", adoption));
                let case = format!("{dialect:?} {held:?} {adoption:?}");
                assert_eq!(comes(&mut session, held) == 0, is_held, "{case}");
                let hosts = is_foreign.then(|| vec!["prod/a".to_owned()]);
                assert_eq!((told(&mut session), told(&mut session)), (hosts, None), "{case}");
            }
        }
    }

    #[test]
    fn what_a_client_holds_of_another_state_stays_until_that_is_approved() {
        for dialect in [Dialect::StateOfTheWorld, Dialect::Delta] {
            let mut session = session(dialect, &snapshot("new", Some(Adoption::Open)));
            assert_eq!(comes(&mut session, Some(ELSEWHERE)), 0);
            assert_eq!(told(&mut session), Some(vec!["prod/a".to_owned()]));
            for (cluster, adoption) in [("newer", Adoption::Open), ("newest", Adoption::Contested)] {
                assert_eq!(session.snapshot(&snapshot(cluster, Some(adoption)), NOW), [], "{dialect:?}");
                assert_eq!(session.expire(Duration::from_mins(1)), []);
                assert_eq!(session.take_changes(), Changes::default());
            }
            // What it needs comes first, what it has leaves last.
            let sent = session.snapshot(&snapshot("newest", None), NOW);
            assert_eq!(told(&mut session), Some(Vec::new()));
            let (mut kinds, mut removed, mut sent) = (Vec::new(), Vec::new(), VecDeque::from(sent));
            while let Some(response) = sent.pop_front() {
                kinds.push(response.kind);
                assert!(response.removed.is_empty() || kinds.contains(&Kind::Routes), "its routes still lead to it");
                removed.extend(response.removed.iter().cloned());
                let names = match dialect {
                    Dialect::StateOfTheWorld => {
                        let names = if response.kind == Kind::Routes { vec!["public".to_owned()] } else { Vec::new() };
                        Names::All { names, version: HERE.mark(response.version) }
                    }
                    Dialect::Delta => {
                        Names::Change { subscribe: Vec::new(), unsubscribe: Vec::new(), initial: Vec::new() }
                    }
                };
                let request = Request { names, nonce: response.nonce.clone(), error: None };
                let reaction = session.request(response.kind, &request, NOW).unwrap();
                sent.extend(reaction.responses);
            }
            assert_eq!(kinds.get(..3), Some([Kind::Cluster, Kind::Listener, Kind::Routes].as_slice()), "{dialect:?}");
            let expected: &[&str] = if dialect == Dialect::Delta { &["old"] } else { &[] };
            assert_eq!(removed, expected);
            // From now on it is one of ours, whatever comes.
            session.snapshot(&snapshot("other", Some(Adoption::Contested)), NOW);
            assert!(!session.origin.is_held(session.snapshot.as_deref()));
        }
    }

    /// Nobody has anything to approve, and nothing is taken away from who has something.
    #[test]
    fn where_nothing_is_served_a_client_keeps_what_it_has() {
        let empty = Arc::new(Snapshot::default());
        let mut foreign = session(Dialect::Delta, &empty);
        assert_eq!(comes(&mut foreign, Some(ELSEWHERE)), 0);
        let mut own = session(Dialect::Delta, &empty);
        assert!(comes(&mut own, Some(HERE)) > 0);
    }
}
