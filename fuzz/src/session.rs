//! An xDS stream with a client that behaves as Envoy does, and refuses what is marked as bad.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use wingbeat_xds_server::kind::Kind;
use wingbeat_xds_server::resource::{Part, Resource};
use wingbeat_xds_server::session::{Dialect, MAX_NAMES, Names, Request, Response, ResumeCache, Session};
use wingbeat_xds_server::snapshot::Snapshot;
use wingbeat_xds_server::version::Version;

const CLUSTERS: usize = 4;
/// The cluster that has no endpoints of its own.
const BY_NAME: usize = 0;
const HOSTS: usize = 3;
const LISTENERS: [&str; 2] = ["front", "side"];
/// In the content of what a client refuses.
const BAD: &str = "bad";
/// So many answers settle any snapshot: what is refused is found by halves, in five types.
const ANSWERS: usize = 400;
/// Length of the machine's state in text, whatever came before: names are few, and so is what is kept of them.
const LARGEST: usize = 400_000;

#[derive(Debug, Arbitrary)]
enum Happening {
    Publish(World),
    /// The client takes the oldest response that it has not answered yet, and names what it refuses, or not.
    Answer {
        names_it: bool,
    },
    AnswerAll,
    Pass {
        millis: u16,
    },
    /// The stream breaks and another one begins; a control plane that was restarted remembers nothing.
    Reconnect {
        restarted: bool,
    },
    /// A request with a nonce of before.
    Stale {
        kind: u8,
    },
}

/// What is to be served.
#[derive(Debug, Arbitrary)]
struct World {
    clusters: [Content; CLUSTERS],
    listeners: [Content; 2],
    hosts: [[Host; HOSTS]; 2],
}

#[derive(Debug, Arbitrary)]
struct Host {
    content: Content,
    cluster: u8,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Content {
    Absent,
    First,
    Second,
    Third,
    Bad,
    BadToo,
}

impl Content {
    const fn text(self) -> Option<&'static str> {
        match self {
            Self::Absent => None,
            Self::First => Some("1"),
            Self::Second => Some("2"),
            Self::Third => Some("3"),
            Self::Bad => Some("bad 1"),
            Self::BadToo => Some("bad 2"),
        }
    }
}

fn plain(name: &str, content: &str) -> Resource {
    let version = Version::of([name.as_bytes(), content.as_bytes()]);
    let body = content.as_bytes().to_vec().into();
    Resource { name: name.to_owned(), body, version, refers_to: Vec::new(), parts: Vec::new() }
}

fn table(name: &str, parts: Vec<Arc<Part>>) -> Resource {
    let versions: Vec<[u8; 8]> = parts.iter().map(|part| part.version.bytes()).collect();
    let version = Version::of([name.as_bytes()].into_iter().chain(versions.iter().map(<[u8; 8]>::as_slice)));
    let refers_to = parts.iter().flat_map(|part| part.refers_to.iter().cloned()).collect();
    Resource { version, refers_to, parts, ..plain(name, "") }
}

fn part(place: usize, content: &str, cluster: u8) -> Part {
    let (name, cluster) = (format!("host-{place}"), format!("cluster-{}", usize::from(cluster) % CLUSTERS));
    let content = format!("{name} {content} {cluster}");
    Part {
        version: Version::of([content.as_bytes()]),
        identity: Version::of([name.as_bytes()]),
        body: content.into_bytes().into(),
        refers_to: vec![cluster],
        name,
    }
}

impl World {
    fn snapshot(self, earlier: &Snapshot) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (place, content) in self.clusters.into_iter().enumerate() {
            let Some(content) = content.text() else { continue };
            let name = format!("cluster-{place}");
            snapshot.add(Kind::Cluster, plain(&name, content));
            // Endpoints are good, and change with their cluster. Those of one are names, which the client resolves.
            if place != BY_NAME {
                snapshot.add(Kind::Endpoints, plain(&name, &content.replace(BAD, "of")));
            }
        }
        for ((name, content), hosts) in LISTENERS.into_iter().zip(self.listeners).zip(self.hosts) {
            let Some(content) = content.text() else { continue };
            snapshot.add(Kind::Listener, plain(name, content));
            let parts = hosts
                .into_iter()
                .enumerate()
                .filter_map(|(place, host)| Some(Arc::new(part(place, host.content.text()?, host.cluster))));
            snapshot.add(Kind::Routes, table(name, parts.collect()));
        }
        snapshot.sharing(earlier)
    }
}

fn is_bad(resource: &Resource) -> bool {
    let bad = |body: &[u8]| String::from_utf8_lossy(body).contains(BAD);
    bad(&resource.body) || resource.parts.iter().any(|part| bad(&part.body))
}

/// What the server knows of what the client held when its stream began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Known,
    Unknown,
}

struct Client {
    dialect: Dialect,
    session: Session,
    memory: ResumeCache,
    snapshot: Arc<Snapshot>,
    now: Duration,
    /// Tables of listeners that were gone meanwhile: not in use until they come anew.
    idle: BTreeSet<String>,
    /// What it has accepted.
    held: BTreeMap<Kind, BTreeMap<String, Arc<Resource>>>,
    /// Good clusters of a set that it refused: Envoy takes clusters one by one, and refuses a set for those that it did not.
    taken: BTreeSet<String>,
    /// Versions of whole sets and of single resources that it accepted last.
    versions: BTreeMap<Kind, String>,
    /// Nonces that it answered last.
    nonces: BTreeMap<Kind, String>,
    asked: BTreeMap<Kind, BTreeSet<String>>,
    waiting: VecDeque<Response>,
    /// What it refused alone, and is not to see again until it changes.
    refused: BTreeSet<(Kind, String, Version)>,
    origin: Origin,
}

/// Plays a stream.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let Ok(delta) = bool::arbitrary(&mut input) else { return };
    let memory = ResumeCache::default();
    let dialect = if delta { Dialect::Delta } else { Dialect::StateOfTheWorld };
    let mut client = Client {
        dialect,
        session: Session::new(dialect).with_resume_cache(memory.clone()),
        memory,
        snapshot: Arc::default(),
        now: Duration::ZERO,
        idle: BTreeSet::new(),
        held: BTreeMap::new(),
        taken: BTreeSet::new(),
        versions: BTreeMap::new(),
        nonces: BTreeMap::new(),
        asked: BTreeMap::new(),
        waiting: VecDeque::new(),
        refused: BTreeSet::new(),
        origin: Origin::Known,
    };
    client.begin();
    while !input.is_empty() {
        let Ok(happening) = Happening::arbitrary(&mut input) else { break };
        client.happen(happening);
        client.holds();
    }
    client.settle();
    client.is_right();
}

impl Client {
    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Publish(world) => {
                self.snapshot = Arc::new(world.snapshot(&self.snapshot));
                let served = self.snapshot.clone();
                self.refused.retain(|(kind, name, version)| {
                    served.of(*kind).get(name).is_some_and(|resource| resource.version == *version)
                });
                let responses = self.session.snapshot(&served, self.now);
                self.take(responses);
            }
            Happening::Answer { names_it } => self.answer(names_it),
            Happening::AnswerAll => {
                for _ in 0..self.waiting.len() {
                    self.answer(true);
                }
            }
            Happening::Pass { millis } => self.pass(Duration::from_millis(millis.into())),
            Happening::Reconnect { restarted } => self.reconnect(restarted),
            Happening::Stale { kind } => {
                let Some(kind) = Kind::ALL.get(usize::from(kind) % Kind::ALL.len()).copied() else { return };
                if self.asked.contains_key(&kind) {
                    self.request(kind, "0", None);
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
        let responses = self.session.expire(self.now);
        self.take(responses);
    }

    fn begin(&mut self) {
        for kind in [Kind::Cluster, Kind::Listener] {
            self.asked.insert(kind, BTreeSet::new());
            self.request(kind, "", None);
        }
        self.follow(Kind::Cluster);
        self.follow(Kind::Listener);
    }

    fn reconnect(&mut self, restarted: bool) {
        if restarted {
            self.memory = ResumeCache::default();
        }
        // Of what it says that it holds, the server knows the version at most.
        self.origin = if self.versions.is_empty() { Origin::Known } else { Origin::Unknown };
        self.session = Session::new(self.dialect).with_resume_cache(self.memory.clone());
        self.now = Duration::ZERO;
        (self.nonces, self.asked) = (BTreeMap::new(), BTreeMap::new());
        self.waiting.clear();
        self.refused.clear();
        let served = self.snapshot.clone();
        let responses = self.session.snapshot(&served, self.now);
        self.take(responses);
        self.begin();
    }

    /// Sends what it wants of a type, and what it says to a response.
    fn request(&mut self, kind: Kind, nonce: &str, error: Option<String>) {
        let first = !self.nonces.contains_key(&kind);
        let wants = self.wants(kind);
        let before = self.asked.insert(kind, wants.clone()).unwrap_or_default();
        let names = match self.dialect {
            Dialect::StateOfTheWorld => {
                let version = self.versions.get(&kind).cloned().unwrap_or_default();
                Names::All { names: wants.iter().cloned().collect(), version }
            }
            Dialect::Delta => {
                let held = self.held.get(&kind).into_iter().flatten();
                let initial = held.filter(|_| first).map(|(name, held)| (name.clone(), held.version.to_string()));
                Names::Change {
                    subscribe: wants.difference(&before).cloned().collect(),
                    unsubscribe: before.difference(&wants).cloned().collect(),
                    initial: initial.collect(),
                }
            }
        };
        self.nonces.entry(kind).or_default();
        // Of a request that crosses a response, the server knows nothing: who asks again in time has never dropped it.
        let crosses = self.dialect == Dialect::StateOfTheWorld && self.waiting.iter().any(|it| it.kind == kind);
        if !kind.has_wildcard() && !crosses {
            self.held.entry(kind).or_default().retain(|name, _| wants.contains(name));
        }
        self.refused.retain(|(of, name, _)| *of != kind || kind.has_wildcard() || wants.contains(name));
        let nonce = nonce.to_owned();
        let reaction = self.session.request(kind, &Request { names, nonce, error }, self.now);
        let Ok(reaction) = reaction else {
            assert!(wants.len() > MAX_NAMES, "a client that names {wants:?} is cut off");
            return;
        };
        assert!(!(reaction.nack.is_some() && reaction.settled.is_some()), "what is refused is not settled");
        self.take(reaction.responses);
    }

    fn wants(&self, kind: Kind) -> BTreeSet<String> {
        let referring = match kind {
            Kind::Cluster | Kind::Listener | Kind::Extension => return BTreeSet::new(),
            Kind::Endpoints => Kind::Cluster,
            Kind::Routes => Kind::Listener,
        };
        self.held.get(&referring).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    fn take(&mut self, responses: Vec<Response>) {
        assert!(responses.len() <= Kind::ALL.len(), "one response of a type at a time");
        for response in responses {
            let open = self.waiting.iter().any(|waiting| waiting.kind == response.kind);
            assert!(!open, "{:?} is sent before the one before it is answered", response.kind);
            for resource in &response.resources {
                let refused = (response.kind, resource.name.clone(), resource.version);
                assert!(!self.refused.contains(&refused), "what is refused is sent again: {refused:?}");
            }
            self.waiting.push_back(response);
        }
    }

    fn answer(&mut self, names_it: bool) {
        let Some(response) = self.waiting.pop_front() else { return };
        let kind = response.kind;
        let bad: Vec<&str> =
            response.resources.iter().filter(|resource| is_bad(resource)).map(|it| it.name.as_str()).collect();
        let error = if bad.is_empty() {
            None
        } else if names_it {
            Some(format!("refused: {}", bad.join(", ")))
        } else {
            Some("refused".to_owned())
        };
        if error.is_none() {
            self.accept(&response);
        } else {
            self.refuse(&response);
        }
        self.request(kind, &response.nonce, error);
        self.nonces.insert(kind, response.nonce);
        self.follow(kind);
    }

    fn accept(&mut self, response: &Response) {
        let held = self.held.entry(response.kind).or_default();
        if self.dialect == Dialect::StateOfTheWorld && response.kind.has_wildcard() {
            held.clear();
        }
        for resource in &response.resources {
            held.insert(resource.name.clone(), resource.clone());
        }
        for name in &response.removed {
            held.remove(name);
        }
        self.versions.insert(response.kind, response.version.to_string());
        let listeners = self.wants(Kind::Routes);
        self.idle.extend(LISTENERS.into_iter().filter(|name| !listeners.contains(*name)).map(str::to_owned));
        if response.kind == Kind::Cluster {
            self.let_go(response);
        }
        if response.kind == Kind::Routes {
            self.idle.retain(|name| response.resources.iter().all(|resource| resource.name != *name));
        }
    }

    /// Lets go of clusters that it took out of sets that it refused, and that are in this one no more.
    fn let_go(&mut self, response: &Response) {
        match self.dialect {
            Dialect::StateOfTheWorld => self.taken.clear(),
            Dialect::Delta => self.taken.retain(|name| !response.removed.contains(name)),
        }
    }

    fn refuse(&mut self, response: &Response) {
        if response.kind == Kind::Routes {
            return;
        }
        if response.kind == Kind::Cluster {
            self.let_go(response);
            let good = response.resources.iter().filter(|resource| !is_bad(resource));
            self.taken.extend(good.map(|resource| resource.name.clone()));
        }
        let held = self.held.get(&response.kind);
        let is_new = |resource: &&Arc<Resource>| held.and_then(|held| held.get(&resource.name)) != Some(*resource);
        let mut new = response.resources.iter().filter(is_new);
        if let (Some(alone), None, Origin::Known) = (new.next(), new.next(), self.origin) {
            // What is not served any more by now is forgotten.
            if self.snapshot.of(response.kind).get(&alone.name) == Some(alone) {
                self.refused.insert((response.kind, alone.name.clone(), alone.version));
            }
        }
    }

    /// Asks for what the resources of a type refer to.
    fn follow(&mut self, kind: Kind) {
        let next = match kind {
            Kind::Cluster => Kind::Endpoints,
            Kind::Listener => Kind::Routes,
            Kind::Endpoints | Kind::Routes | Kind::Extension => return,
        };
        let wants = self.wants(next);
        let asks = self.asked.get(&next).map_or(!wants.is_empty(), |asked| *asked != wants);
        if asks {
            let nonce = self.nonces.get(&next).cloned().unwrap_or_default();
            self.request(next, &nonce, None);
        }
    }

    /// Answers all, and waits for as long as the server does.
    fn settle(&mut self) {
        let mut left = ANSWERS;
        for _ in 0..CLUSTERS.saturating_add(2) {
            while !self.waiting.is_empty() {
                assert!(left > 0, "what is refused is sent again and again");
                left = left.saturating_sub(1);
                self.answer(true);
                self.holds();
            }
            let ends = self.session.expires().unwrap_or_default();
            self.pass(ends.saturating_sub(self.now));
        }
        assert!(self.waiting.is_empty(), "it does not settle");
    }

    fn has(&self, kind: Kind, resource: &Arc<Resource>) -> bool {
        self.held.get(&kind).and_then(|held| held.get(&resource.name)) == Some(resource)
    }

    /// What holds at any time.
    fn holds(&self) {
        let text = format!("{:?}", self.session).len();
        assert!(text <= LARGEST, "the machine has grown to {text}");
        for kind in Kind::ALL {
            let is_open = self.waiting.iter().any(|waiting| waiting.kind == kind);
            if !is_open && self.asked.contains_key(&kind) && self.session.is_settled(kind) {
                let wanted = self.asked.get(&kind).cloned().unwrap_or_default();
                for (name, resource) in self.snapshot.of(kind).iter() {
                    let is_wanted = kind.has_wildcard() || wanted.contains(name);
                    assert!(!is_wanted || self.has(kind, resource), "settled without {kind:?} {name}");
                }
            }
        }
        if self.origin == Origin::Known {
            let clusters = self.held.get(&Kind::Cluster);
            let tables = self.held.get(&Kind::Routes).into_iter().flat_map(BTreeMap::values);
            let tables = tables.filter(|table| !self.idle.contains(&table.name));
            for cluster in tables.flat_map(|table| &table.refers_to) {
                let held = clusters.is_some_and(|held| held.contains_key(cluster));
                assert!(
                    held || self.taken.contains(cluster),
                    "a route leads to {cluster}, which the client was told to let go of, or never got"
                );
            }
        }
    }

    /// What holds in the end: the client has all that is good, and of what it refuses what it had.
    fn is_right(&self) {
        if self.origin == Origin::Unknown {
            // Nothing can be left out for who refuses a set of which nobody knows what it replaces.
            return;
        }
        for kind in [Kind::Cluster, Kind::Endpoints, Kind::Listener] {
            for (name, resource) in self.snapshot.of(kind).iter() {
                let is_wanted = kind.has_wildcard() || self.wants(kind).contains(name);
                let is_good = !is_bad(resource);
                assert!(!(is_wanted && is_good) || self.has(kind, resource), "{kind:?} {name} never came");
            }
            let held = self.held.get(&kind).into_iter().flat_map(BTreeMap::values);
            for held in held.filter(|_| kind == Kind::Listener) {
                assert!(self.snapshot.of(kind).contains_key(&held.name), "{} stays", held.name);
            }
        }
        for (name, served) in self.snapshot.of(Kind::Routes).iter() {
            let Some(held) = self.held.get(&Kind::Routes).and_then(|held| held.get(name)) else { continue };
            for part in &served.parts {
                let is_bad = String::from_utf8_lossy(&part.body).contains(BAD);
                let ready = part.refers_to.iter().all(|cluster| {
                    self.snapshot.of(Kind::Cluster).get(cluster).is_some_and(|it| self.has(Kind::Cluster, it))
                });
                let has = held.parts.contains(part);
                assert!(is_bad || !ready || has, "{} of {name} never came", part.name);
                assert!(!(is_bad && has), "a host that is refused is held");
            }
        }
    }
}
