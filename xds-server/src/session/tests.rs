use std::ops::Range;

use serde::Deserialize;

use super::*;
use crate::client_event::CLUSTER_WAIT;
use crate::resource::Part;

#[derive(Deserialize)]
struct Protocol {
    script: Vec<Script>,
}

#[derive(Deserialize)]
struct Script {
    rule: String,
    only: Option<String>,
    steps: Vec<String>,
}

/// A client and the snapshots that it sees.
struct Player {
    session: Session,
    dialect: Dialect,
    names: BTreeMap<Kind, Vec<String>>,
    /// Nonces of the responses of each type, oldest first.
    nonces: BTreeMap<Kind, Vec<String>>,
    /// How long ago the stream began.
    now: Duration,
}

fn name_of(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::StateOfTheWorld => "sow",
        Dialect::Delta => "delta",
    }
}

fn kind(name: &str) -> Kind {
    match name {
        "CDS" => Kind::Cluster,
        "EDS" => Kind::Endpoints,
        "LDS" => Kind::Listener,
        "RDS" => Kind::Routes,
        "ECDS" => Kind::Extension,
        other => panic!("there is no type {other}"),
    }
}

fn resource(kind: Kind, text: &str) -> Resource {
    let (name, content) = text.split_once('=').expect("name=content");
    if content.contains(':') {
        return crate::render::routes(name, content.split('/').map(|text| Arc::new(part(text))).collect());
    }
    let body = content.as_bytes().to_vec().into();
    let refers_to = if kind == Kind::Routes { content.split(',').map(str::to_owned).collect() } else { Vec::new() };
    let version = Version::of([name.as_bytes(), content.as_bytes()]);
    Resource { name: name.to_owned(), body, version, refers_to, parts: Vec::new() }
}

/// Reads `name@domain.version:cluster,cluster`; the domain is the name if it is left out.
fn part(text: &str) -> Part {
    let (host, clusters) = text.split_once(':').expect("host:clusters");
    let (answers, _) = host.split_once('.').unwrap_or((host, ""));
    let (name, domain) = answers.split_once('@').unwrap_or((answers, answers));
    Part {
        name: name.to_owned(),
        body: text.as_bytes().to_vec().into(),
        version: Version::of([text.as_bytes()]),
        identity: Version::of([domain.as_bytes()]),
        refers_to: clusters.split(',').map(str::to_owned).collect(),
    }
}

fn shown(responses: &[Response]) -> String {
    let show = |response: &Response| {
        let kinds = ["CDS", "EDS", "LDS", "RDS", "ECDS"].into_iter().find(|name| kind(name) == response.kind);
        let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
        let parts =
            |resource: &Resource| resource.parts.iter().map(|part| text(&part.body)).collect::<Vec<_>>().join("/");
        let content = |resource: &Resource| {
            if resource.parts.is_empty() { text(&resource.body) } else { parts(resource) }
        };
        let resources = response.resources.iter().map(|resource| format!(" {}={}", resource.name, content(resource)));
        let removed = response.removed.iter().map(|name| format!(" -{name}"));
        kinds.unwrap_or_default().to_owned() + &resources.chain(removed).collect::<String>()
    };
    responses.iter().map(show).collect::<Vec<_>>().join("; ")
}

impl Player {
    fn new(dialect: Dialect) -> Self {
        let session = Session::new(dialect);
        Self { session, dialect, names: BTreeMap::new(), nonces: BTreeMap::new(), now: Duration::ZERO }
    }

    /// Plays a step and returns what was sent.
    fn play(&mut self, step: &str) -> String {
        let mut words = step.split_whitespace();
        let action = words.next().expect("an action");
        let responses = match action {
            "snapshot" => self.session.snapshot(&self.read_snapshot(step.trim_start_matches("snapshot")), self.now),
            "pass" => {
                self.now += Duration::from_secs(words.next().and_then(|text| text.parse().ok()).expect("seconds"));
                self.session.expire(self.now)
            }
            _ => {
                let kind = kind(words.next().expect("a type"));
                let rest: Vec<String> = words.map(str::to_owned).collect();
                self.request(kind, action, &rest)
            }
        };
        for response in &responses {
            self.nonces.entry(response.kind).or_default().push(response.nonce.clone());
        }
        shown(&responses)
    }

    /// What is the same as before is shared, as the store does it.
    fn read_snapshot(&self, text: &str) -> Arc<Snapshot> {
        let mut snapshot = Snapshot::default();
        for of_type in text.split('|').map(str::trim).filter(|text| !text.is_empty()) {
            let (name, resources) = of_type.split_once(' ').expect("a type and resources");
            for text in resources.split_whitespace() {
                snapshot.add(kind(name), resource(kind(name), text));
            }
        }
        Arc::new(match &self.session.snapshot {
            Some(earlier) => snapshot.sharing(earlier),
            None => snapshot,
        })
    }

    fn request(&mut self, kind: Kind, action: &str, rest: &[String]) -> Vec<Response> {
        let (mut more, mut less, mut held) = (Vec::new(), Vec::new(), Vec::new());
        match action {
            "want" => more = rest.to_vec(),
            "drop" => less = rest.to_vec(),
            "reconnect" => {
                let at = rest.iter().position(|word| word == "held").unwrap_or(rest.len());
                more = rest[..at].to_vec();
                held = rest[at..].iter().skip(1).map(|text| Arc::new(resource(kind, text))).collect();
            }
            "ack" | "nack" | "stale" => {}
            other => panic!("there is no action {other}"),
        }
        let wanted = self.names.entry(kind).or_default();
        wanted.extend(more.iter().cloned());
        wanted.retain(|name| !less.contains(name));
        let names = match self.dialect {
            Dialect::StateOfTheWorld => {
                let version = if held.is_empty() { String::new() } else { version_of_all(&held).to_string() };
                Names::All { names: wanted.clone(), version }
            }
            Dialect::Delta => {
                let initial = held.iter().map(|held| (held.name.clone(), held.version.to_string())).collect();
                Names::Change { subscribe: more, unsubscribe: less, initial }
            }
        };
        let nonces = self.nonces.get(&kind).map(Vec::as_slice).unwrap_or_default();
        let answers = match action {
            "ack" | "nack" => nonces.last().expect("a response to answer").clone(),
            "stale" => nonces.iter().rev().nth(1).expect("an earlier response").clone(),
            // State of the world: every request repeats the nonce; in delta, only answers do.
            _ if self.dialect == Dialect::StateOfTheWorld => nonces.last().cloned().unwrap_or_default(),
            _ => String::new(),
        };
        let refuses = matches!(action, "nack" | "stale");
        let request = Request { names, nonce: answers, error: refuses.then(|| format!("no {}", rest.join(" "))) };
        let reaction = self.session.request(kind, &request, self.now).expect("few names");
        assert_eq!(reaction.nack.is_some(), action == "nack", "a refusal is reported once");
        reaction.responses
    }
}

#[test]
fn the_protocol_is_kept() {
    let protocol: Protocol = toml::from_str(include_str!("protocol.toml")).expect("scripts");
    let mut played = 0;
    for script in &protocol.script {
        for dialect in [Dialect::StateOfTheWorld, Dialect::Delta] {
            let name = name_of(dialect);
            if script.only.as_deref().is_some_and(|only| only != name) {
                continue;
            }
            let mut player = Player::new(dialect);
            for step in &script.steps {
                let (step, expected) = step.split_once("=>").unwrap_or((step, ""));
                let mine = |text: &str| match text.trim().split_once(": ") {
                    Some((of, text)) => (of == name).then(|| text.trim().to_owned()),
                    None => Some(text.trim().to_owned()),
                };
                let Some(action) = mine(step) else { continue };
                let expected: Vec<String> =
                    expected.split(';').filter_map(mine).filter(|text| !text.is_empty()).collect();
                assert_eq!(player.play(&action), expected.join("; "), "{name}: {}: {step}", script.rule);
            }
            played += 1;
        }
    }
    assert!(played > 40, "{played} scripts");
}

/// Asks for the endpoints of so many clusters, after those of so many were asked for. Returns how many come.
fn ask_endpoints(session: &mut Session, before: usize, after: usize) -> Result<usize, TooManyNames> {
    let names = |clusters: Range<usize>| clusters.map(|number| format!("c{number}")).collect();
    let names = match session.dialect {
        Dialect::StateOfTheWorld => Names::All { names: names(0..after), version: String::new() },
        Dialect::Delta => {
            Names::Change { subscribe: names(before..after), unsubscribe: Vec::new(), initial: Vec::new() }
        }
    };
    let request = Request { names, ..Request::default() };
    let reaction = session.request(Kind::Endpoints, &request, Duration::ZERO)?;
    Ok(reaction.responses.iter().map(|response| response.resources.len()).sum())
}

fn with_endpoints(clusters: usize) -> Arc<Snapshot> {
    let mut snapshot = Snapshot::default();
    for number in 0..clusters {
        snapshot.add(Kind::Endpoints, resource(Kind::Endpoints, &format!("c{number}=1")));
    }
    Arc::new(snapshot)
}

#[test]
fn too_many_names_end_a_stream() {
    const MOST: usize = 1 + MAX_NAMES;
    for dialect in [Dialect::StateOfTheWorld, Dialect::Delta] {
        let mut session = Session::new(dialect);
        session.snapshot(&with_endpoints(1), Duration::ZERO);
        assert_eq!(ask_endpoints(&mut session, 0, MOST), Ok(1), "{dialect:?}: one of them is served");
        assert_eq!(ask_endpoints(&mut session, MOST, MOST + 1), Err(TooManyNames), "{dialect:?}");
    }
}

/// An Envoy asks for the endpoints of all clusters that it was sent, and would be cut off for good.
#[test]
fn names_of_what_is_served_are_never_too_many() {
    const SERVED: usize = 2 * MAX_NAMES;
    const ALL: usize = SERVED + MAX_NAMES;
    for dialect in [Dialect::StateOfTheWorld, Dialect::Delta] {
        let mut session = Session::new(dialect);
        session.snapshot(&with_endpoints(SERVED), Duration::ZERO);
        assert_eq!(ask_endpoints(&mut session, 0, SERVED), Ok(SERVED), "{dialect:?}");
        assert_eq!(ask_endpoints(&mut session, SERVED, ALL), Ok(0), "{dialect:?}: as many others as ever");
        // What was served and is gone, it has not let go of yet; but that is no reason to ask for more.
        session.snapshot(&with_endpoints(0), Duration::ZERO);
        assert!(ask_endpoints(&mut session, ALL, ALL).is_ok(), "{dialect:?}");
        assert_eq!(ask_endpoints(&mut session, ALL, ALL + 1), Err(TooManyNames), "{dialect:?}");

        // After a restart it comes before there is anything to be served.
        let mut early = Session::new(dialect);
        assert_eq!(ask_endpoints(&mut early, 0, SERVED), Ok(0), "{dialect:?}");
        let due = early.snapshot(&with_endpoints(SERVED), Duration::ZERO);
        assert_eq!(due.iter().map(|response| response.resources.len()).sum::<usize>(), SERVED, "{dialect:?}");
    }
}

#[test]
fn a_client_settles_when_it_has_accepted_all() {
    let mut player = Player::new(Dialect::Delta);
    player.play("snapshot RDS a=1 b=bad");
    player.play("want RDS a b");
    player.play("nack RDS");
    assert!(!player.session.is_settled(Kind::Routes));
    player.play("ack RDS");
    assert!(!player.session.is_settled(Kind::Routes), "b is refused");
    player.play("nack RDS");
    player.play("snapshot RDS a=1 b=2");
    player.play("ack RDS");
    assert!(player.session.is_settled(Kind::Routes));
}

/// Plays refusals, and returns whom they are told of.
fn blamed(player: &mut Player, answer: &str) -> (Option<Vec<String>>, Option<BTreeSet<String>>) {
    let nonce = player.nonces.get(&Kind::Routes).and_then(|nonces| nonces.last()).expect("a response").clone();
    let error = (answer == "nack").then(|| "no".to_owned());
    let names = match player.dialect {
        Dialect::StateOfTheWorld => Names::All { names: vec!["r".to_owned()], version: String::new() },
        Dialect::Delta => Names::Change { subscribe: Vec::new(), unsubscribe: Vec::new(), initial: Vec::new() },
    };
    let request = Request { names, nonce, error };
    let reaction = player.session.request(Kind::Routes, &request, Duration::ZERO).expect("few names");
    for response in &reaction.responses {
        player.nonces.entry(response.kind).or_default().push(response.nonce.clone());
    }
    (reaction.nack.and_then(|nack| nack.culprits), refused_hosts(player))
}

fn refused_hosts(player: &mut Player) -> Option<BTreeSet<String>> {
    let refused = player.session.take_changes().refused;
    refused.into_iter().find(|(kind, _)| *kind == Kind::Routes).map(|(_, hosts)| hosts)
}

#[test]
fn the_host_that_is_to_blame_is_told_until_it_is_mended() {
    for dialect in [Dialect::StateOfTheWorld, Dialect::Delta] {
        let mut player = Player::new(dialect);
        player.play("snapshot RDS r=a:1/b:1");
        player.play("want RDS r");
        player.play("ack RDS");
        player.play("snapshot RDS r=a.2:1/b.bad:1");
        let b = || vec!["b".to_owned()];
        assert_eq!(blamed(&mut player, "nack"), (Some(Vec::new()), None), "it is looked for");
        assert_eq!(blamed(&mut player, "ack"), (None, None));
        assert_eq!(blamed(&mut player, "nack"), (Some(b()), Some(b().into_iter().collect())));
        assert!(!player.session.is_settled(Kind::Routes), "b is refused");
        assert_eq!(player.play("snapshot RDS r=a.3:1/b.bad:1"), "RDS r=a.3:1/b:1");
        assert_eq!(blamed(&mut player, "ack"), (None, None));
        // Back to what it holds: there is nothing to be sent, and nothing to be blamed.
        assert_eq!(refused_hosts(&mut player), None);
        assert_eq!(player.play("snapshot RDS r=a.3:1/b:1"), "");
        assert_eq!(refused_hosts(&mut player), Some(BTreeSet::new()));
        player.play("snapshot RDS r=a.3:1/b.3:1");
        assert_eq!(blamed(&mut player, "ack"), (None, None));
        assert!(player.session.is_settled(Kind::Routes));
    }
}

/// One of a thousand clusters is refused, wherever it is: the others get through in few responses, and it alone is told.
#[test]
fn one_of_a_thousand_clusters_is_found() {
    for dialect in [Dialect::StateOfTheWorld, Dialect::Delta] {
        for bad in [0, 1, 499, 998, 999] {
            let mut player = Player::new(dialect);
            let name = |number: usize| format!("c{number:04}={}", if number == bad { "bad" } else { "1" });
            player.play(&format!("snapshot CDS {}", (0..1_000).map(name).collect::<Vec<_>>().join(" ")));
            let mut sent = player.play("want CDS");
            let mut asked = 0;
            while !sent.is_empty() {
                asked += 1;
                sent = player.play(if sent.contains("=bad") { "nack CDS" } else { "ack CDS" });
            }
            assert!(asked <= 13, "{asked} responses for {bad}");
            let refused = player.session.take_changes().refused;
            assert_eq!(refused, [(Kind::Cluster, BTreeSet::from([format!("c{bad:04}")]))]);
        }
    }
}

/// A client that takes clusters and asks for no endpoints is told, once, until it does.
#[test]
fn clusters_whose_endpoints_nobody_asks_for_are_told() {
    for dialect in [Dialect::StateOfTheWorld, Dialect::Delta] {
        let mut player = Player::new(dialect);
        player.play("snapshot CDS a=1 | EDS a=1 | RDS r=h:a");
        player.play("want CDS");
        player.play("ack CDS");
        assert_eq!((player.play("want RDS r").as_str(), player.session.expires()), ("", Some(CLUSTER_WAIT)));
        assert_eq!(player.session.take_changes(), Changes::default());
        assert_eq!(player.play("pass 5"), "RDS r=h:a");
        assert_eq!(player.session.take_changes().overdue, Some(BTreeSet::from(["a".to_owned()])));
        player.play("ack RDS");
        assert_eq!((player.session.take_changes().overdue, player.session.expires()), (None, None));
        player.play("want EDS a");
        assert_eq!(player.session.take_changes().overdue, Some(BTreeSet::new()));
    }
}

/// Routes that go before the client has resolved what they lead to are told, until it has taken them.
#[test]
fn routes_that_lead_to_what_is_not_there_yet_are_told() {
    let mut player = Player::new(Dialect::Delta);
    player.play("snapshot CDS a=1 b=1 | RDS r=h:a/i:b");
    player.play("reconnect CDS held a=1");
    assert_eq!(
        (player.play("reconnect RDS r held r=h:a").as_str(), player.session.expires()),
        ("", Some(CLUSTER_WAIT))
    );
    assert_eq!(player.session.take_changes(), Changes::default());
    assert_eq!(player.play("pass 5"), "RDS r=h:a/i:b");
    assert_eq!(player.session.take_changes().overdue, Some(BTreeSet::from(["b".to_owned()])));
    player.play("ack RDS");
    assert_eq!((player.session.take_changes().overdue, player.session.expires()), (Some(BTreeSet::new()), None));
}

/// A stream breaks while a cluster is refused: on the next one, the others go on.
#[test]
fn who_comes_back_with_a_refused_cluster_is_remembered() {
    let memory = ResumeCache::default();
    let mut player = Player::new(Dialect::StateOfTheWorld);
    player.session = Session::new(player.dialect).with_resume_cache(memory.clone());
    player.play("snapshot CDS a=1 b=1 bad=1 | RDS r=h:a/i:bad");
    player.play("want CDS");
    assert_eq!(player.play("nack CDS"), "CDS a=1");
    assert_eq!(player.play("ack CDS"), "CDS a=1 b=1");
    assert_eq!(player.play("ack CDS"), "CDS a=1 b=1 bad=1");
    assert_eq!(player.play("nack CDS"), "");

    let mut back = Player::new(player.dialect);
    back.session = Session::new(player.dialect).with_resume_cache(memory);
    back.play("snapshot CDS a=1 b=1 bad=1 | RDS r=h.2:b/i:bad");
    assert_eq!(back.play("reconnect CDS held a=1 b=1"), "CDS a=1 b=1 bad=1");
    assert_eq!(back.play("nack CDS"), "");
    assert_eq!(back.play("reconnect RDS r held r=h:a"), "RDS r=h.2:b/i:bad");
}

/// One of a thousand hosts is refused, wherever it is: the others get through, and few questions are asked.
#[test]
fn one_of_a_thousand_is_found() {
    let table = |bad: usize, generation: u32| {
        let host = |number: usize| format!("h{number:04}.{}:c", if number == bad { 0 } else { generation });
        (0..1_000).map(host).collect::<Vec<_>>().join("/")
    };
    for bad in [0, 1, 499, 500, 998, 999] {
        let mut player = Player::new(Dialect::Delta);
        player.play(&format!("snapshot RDS r={}", table(1_000, 1)));
        player.play("want RDS r");
        player.play("ack RDS");
        let mut sent = player.play(&format!("snapshot RDS r={}", table(bad, 2)));
        let mut asked = 0;
        while !sent.is_empty() {
            asked += 1;
            sent = player.play(if sent.contains(&format!("h{bad:04}.0:")) { "nack RDS" } else { "ack RDS" });
        }
        assert!(asked <= 13, "{asked} questions for {bad}");
        let table = player.session.tables.get("r").expect("a table");
        assert_eq!(table.refused().collect::<Vec<_>>(), [&format!("h{bad:04}")]);
    }
}

/// A stream breaks while a host is refused: on the next one, the others go on.
#[test]
fn who_comes_back_with_a_refused_host_is_remembered() {
    for dialect in [Dialect::StateOfTheWorld, Dialect::Delta] {
        let memory = ResumeCache::default();
        let mut player = Player::new(dialect);
        player.session = Session::new(dialect).with_resume_cache(memory.clone());
        player.play("snapshot RDS r=a:1/b:1");
        player.play("want RDS r");
        player.play("ack RDS");
        player.play("snapshot RDS r=a:1/b.bad:1");
        assert_eq!(player.play("nack RDS"), "");
        assert_eq!(player.play("snapshot RDS r=a.2:1/b.bad:1"), "RDS r=a.2:1/b:1");
        player.play("ack RDS");

        let mut back = Player::new(dialect);
        back.session = Session::new(dialect).with_resume_cache(memory);
        back.play("snapshot RDS r=a.3:1/b.bad:1");
        assert_eq!(back.play("reconnect RDS r held r=a.2:1/b:1"), "RDS r=a.3:1/b.bad:1");
        assert_eq!(back.play("nack RDS"), "RDS r=a.3:1/b:1");
    }
}

/// Who refuses everything is not asked for ever.
#[test]
fn the_search_has_an_end() {
    let table =
        |generation: u32| (0..200).map(|host| format!("h{host:03}.{generation}:c")).collect::<Vec<_>>().join("/");
    for first in ["ack RDS", "nack RDS"] {
        let mut player = Player::new(Dialect::Delta);
        player.play(&format!("snapshot RDS r={}", table(1)));
        player.play("want RDS r");
        let mut sent = player.play(first) + &player.play(&format!("snapshot RDS r={}", table(2)));
        let mut asked = 0;
        while !sent.is_empty() {
            asked += 1;
            assert!(asked < 1_000, "it ends");
            sent = player.play("nack RDS");
        }
        assert!(asked > 64);
        // Whoever gives in gets the rest.
        assert_ne!(player.play(&format!("snapshot RDS r={}", table(3))), "");
        player.play("ack RDS");
        assert!(player.session.is_settled(Kind::Routes));
    }
}
