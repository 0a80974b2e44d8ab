use envoy_types::pb::google::protobuf::Any;

use super::*;

fn resource(name: &str, content: &str) -> Arc<Resource> {
    let body = Any { type_url: String::new(), value: content.as_bytes().to_vec() };
    let version = Version::of([name.as_bytes(), content.as_bytes()]);
    Arc::new(Resource { name: name.into(), body, version })
}

/// A snapshot of `(type, name, content)`.
fn snapshot(resources: &[(Kind, &str, &str)]) -> Arc<Snapshot> {
    let mut snapshot = Snapshot::default();
    for (kind, name, content) in resources {
        snapshot.add(*kind, resource(name, content));
    }
    Arc::new(snapshot)
}

fn first(names: &[&str]) -> Request {
    Request { names: names.iter().map(|name| (*name).to_owned()).collect(), ..Request::default() }
}

fn ack(response: &Response, names: &[&str]) -> Request {
    Request { nonce: response.nonce.clone(), version: response.version.to_string(), ..first(names) }
}

fn nack(response: &Response, names: &[&str]) -> Request {
    Request { error: Some("no".into()), ..ack(response, names) }
}

fn names(response: &Response) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

fn kinds(responses: &[Response]) -> Vec<Kind> {
    responses.iter().map(|response| response.kind).collect()
}

#[test]
fn nothing_is_answered_before_the_first_snapshot() {
    let mut session = Session::new("");
    assert_eq!(session.request(Kind::Cluster, &first(&[])), Reaction::default());
    let responses = session.snapshot(&snapshot(&[(Kind::Cluster, "a", "1")]));
    assert_eq!(kinds(&responses), [Kind::Cluster]);
}

#[test]
fn an_acknowledged_version_is_not_sent_again() {
    let mut session = Session::new("");
    session.snapshot(&snapshot(&[(Kind::Listener, "a", "1")]));
    let sent = session.request(Kind::Listener, &first(&[])).responses;
    assert_eq!(session.request(Kind::Listener, &ack(&sent[0], &[])), Reaction::default());
    assert_eq!(session.accepted(Kind::Listener), Some(sent[0].version));
    assert_eq!(session.snapshot(&snapshot(&[(Kind::Listener, "a", "1")])), []);
    assert_eq!(session.snapshot(&snapshot(&[(Kind::Listener, "a", "2")])).len(), 1);
}

#[test]
fn one_response_is_outstanding_and_the_newest_wins() {
    let mut session = Session::new("");
    session.snapshot(&snapshot(&[(Kind::Listener, "a", "1")]));
    let sent = session.request(Kind::Listener, &first(&[])).responses;
    assert_eq!(session.snapshot(&snapshot(&[(Kind::Listener, "a", "2")])), []);
    assert_eq!(session.snapshot(&snapshot(&[(Kind::Listener, "a", "3")])), []);
    let next = session.request(Kind::Listener, &ack(&sent[0], &[])).responses;
    assert_eq!(next[0].resources[0].body.value, b"3");
}

#[test]
fn a_refused_version_is_reported_once_and_not_sent_again() {
    let mut session = Session::new("");
    session.snapshot(&snapshot(&[(Kind::Listener, "a", "1")]));
    let sent = session.request(Kind::Listener, &first(&[])).responses;
    let reaction = session.request(Kind::Listener, &nack(&sent[0], &[]));
    assert_eq!(reaction.nack, Some(Nack { kind: Kind::Listener, version: sent[0].version, error: "no".into() }));
    assert_eq!((reaction.responses.len(), session.accepted(Kind::Listener)), (0, None));
    assert_eq!(session.request(Kind::Listener, &nack(&sent[0], &[])), Reaction::default());
    // Something new may be better.
    assert_eq!(session.snapshot(&snapshot(&[(Kind::Listener, "a", "2")])).len(), 1);
}

#[test]
fn a_stale_nonce_changes_nothing() {
    let mut session = Session::new("");
    session.snapshot(&snapshot(&[(Kind::Listener, "a", "1")]));
    let sent = session.request(Kind::Listener, &first(&[])).responses;
    let stale = Request { nonce: "another".into(), ..ack(&sent[0], &[]) };
    assert_eq!(session.request(Kind::Listener, &stale), Reaction::default());
    assert_eq!(session.snapshot(&snapshot(&[(Kind::Listener, "a", "2")])), [], "still outstanding");
}

#[test]
fn names_that_do_not_exist_yet_are_remembered() {
    let mut session = Session::new("");
    session.snapshot(&snapshot(&[]));
    let sent = session.request(Kind::Routes, &first(&["r"])).responses;
    assert_eq!(names(&sent[0]), Vec::<&str>::new());
    session.request(Kind::Routes, &ack(&sent[0], &["r"]));
    let later = session.snapshot(&snapshot(&[(Kind::Routes, "r", "1"), (Kind::Routes, "s", "1")]));
    assert_eq!(names(&later[0]), ["r"]);
}

#[test]
fn newly_named_resources_are_sent_even_if_unchanged() {
    let mut session = Session::new("");
    session.snapshot(&snapshot(&[(Kind::Routes, "r", "1"), (Kind::Routes, "s", "1")]));
    let sent = session.request(Kind::Routes, &first(&["r"])).responses;
    let more = session.request(Kind::Routes, &ack(&sent[0], &["r", "s"])).responses;
    assert_eq!(names(&more[0]), ["r", "s"]);
    session.request(Kind::Routes, &ack(&more[0], &["r", "s"]));
    // Fewer names are a smaller set, hence another version; nobody needs to be told twice.
    let fewer = session.request(Kind::Routes, &ack(&more[0], &["s"])).responses;
    assert_eq!(names(&fewer[0]), ["s"]);
}

#[test]
fn no_names_mean_all_until_something_was_named() {
    let mut session = Session::new("");
    session.snapshot(&snapshot(&[(Kind::Cluster, "a", "1"), (Kind::Cluster, "b", "1")]));
    let all = session.request(Kind::Cluster, &first(&[])).responses;
    assert_eq!(names(&all[0]), ["a", "b"]);
    let one = session.request(Kind::Cluster, &ack(&all[0], &["a"])).responses;
    assert_eq!(names(&one[0]), ["a"]);
    let none = session.request(Kind::Cluster, &ack(&one[0], &[])).responses;
    assert_eq!(names(&none[0]), Vec::<&str>::new());
}

#[test]
fn clusters_come_before_what_refers_to_them_and_endpoints_with_them() {
    let mut session = Session::new("");
    session.snapshot(&snapshot(&[(Kind::Cluster, "a", "1"), (Kind::Endpoints, "a", "1"), (Kind::Routes, "r", "a")]));
    let mut sent = Vec::new();
    for (kind, names) in [(Kind::Routes, &["r"][..]), (Kind::Endpoints, &["a"]), (Kind::Cluster, &[])] {
        sent.extend(session.request(kind, &first(names)).responses);
    }
    for response in &sent {
        let names: &[&str] = match response.kind {
            Kind::Routes => &["r"],
            Kind::Endpoints => &["a"],
            Kind::Cluster | Kind::Listener | Kind::Extension => &[],
        };
        for response in session.request(response.kind, &ack(response, names)).responses {
            session.request(response.kind, &ack(&response, names));
        }
    }
    let changed = snapshot(&[(Kind::Cluster, "a", "2"), (Kind::Endpoints, "a", "1"), (Kind::Routes, "r", "b")]);
    assert_eq!(kinds(&session.snapshot(&changed)), [Kind::Cluster, Kind::Endpoints, Kind::Routes]);
}

#[test]
fn a_cluster_stays_until_the_routes_without_it_are_accepted() {
    let mut session = Session::new("");
    session.snapshot(&snapshot(&[(Kind::Cluster, "a", "1"), (Kind::Cluster, "b", "1"), (Kind::Routes, "r", "a b")]));
    let clusters = session.request(Kind::Cluster, &first(&[])).responses;
    session.request(Kind::Cluster, &ack(&clusters[0], &[]));
    let routes = session.request(Kind::Routes, &first(&["r"])).responses;
    session.request(Kind::Routes, &ack(&routes[0], &["r"]));

    let changed = session.snapshot(&snapshot(&[(Kind::Cluster, "a", "1"), (Kind::Routes, "r", "a")]));
    assert_eq!(kinds(&changed), [Kind::Routes], "b is still there");
    let after = session.request(Kind::Routes, &ack(&changed[0], &["r"])).responses;
    assert_eq!(names(&after[0]), ["a"]);
}

#[test]
fn a_refused_route_keeps_its_clusters() {
    let mut session = Session::new("");
    session.snapshot(&snapshot(&[(Kind::Cluster, "a", "1"), (Kind::Routes, "r", "a")]));
    let clusters = session.request(Kind::Cluster, &first(&[])).responses;
    session.request(Kind::Cluster, &ack(&clusters[0], &[]));
    let routes = session.request(Kind::Routes, &first(&["r"])).responses;
    session.request(Kind::Routes, &ack(&routes[0], &["r"]));
    let changed = session.snapshot(&snapshot(&[(Kind::Cluster, "b", "1"), (Kind::Routes, "r", "b")]));
    assert_eq!(names(&changed[0]), ["a", "b"]);
    session.request(Kind::Cluster, &ack(&changed[0], &[]));
    assert_eq!(session.request(Kind::Routes, &nack(&changed[1], &["r"])).responses, [], "a stays in use");
}

#[test]
fn listeners_go_to_the_nodes_that_they_are_for() {
    let mut content = Snapshot::default();
    content.add_listener(resource("edge", "1"), vec!["edge".into()]);
    content.add_listener(resource("all", "1"), Vec::new());
    let content = Arc::new(content);
    for (cluster, expected) in [("edge", vec!["all", "edge"]), ("other", vec!["all"])] {
        let mut session = Session::new(cluster);
        session.snapshot(&content);
        assert_eq!(names(&session.request(Kind::Listener, &first(&[])).responses[0]), expected);
    }
}
