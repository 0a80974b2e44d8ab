//! All documents together: what must be right between them, and what is managed because of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use wingbeat_core::foreign::unfit_name;
use wingbeat_core::id::{CanaryName, Revision};
use wingbeat_xds_server::model::Listener;

use super::canary::{self, Api, CanaryDocument};
use super::decoder::{Decoder, HostName, Problem, Reference, Report};
use super::hosts;
use super::listener;
use super::metric::{self, TemplateDocument};
use super::outgoing;
use super::yaml::{self, Node, Place};
use crate::outbound::alert::Channel;
use crate::outbound::webhook::Hook;
use crate::setup::{InUse, Managed, Measure, Setup, Workload};

/// What there is.
const KINDS: &str = "Canary, Workload, Listener, MetricTemplate or AlertProvider";

/// So many files are tried one by one for what is wrong: each time all are read.
const TRIED_ALONE: usize = 16;

/// What files say, with what is wrong.
#[derive(Debug, Clone, Default)]
pub struct Set {
    canaries: BTreeMap<CanaryName, (At, CanaryDocument)>,
    workloads: BTreeMap<CanaryName, (At, Workload)>,
    listeners: BTreeMap<String, (At, Listener)>,
    channels: BTreeMap<(String, String), (At, Channel)>,
    templates: BTreeMap<CanaryName, (At, TemplateDocument)>,
    /// Every document by kind and name, right or wrong: one mistake is not told as another one too.
    declared: BTreeSet<(String, CanaryName)>,
    references: Vec<(Arc<str>, CanaryName, Reference)>,
    hosts: Vec<(Arc<str>, HostName)>,
    /// True if nothing of it will be served.
    looks: bool,
    /// What was found.
    pub report: Report,
}

/// Where a document is.
#[derive(Debug, Clone)]
struct At {
    file: Arc<str>,
    place: Place,
}

/// The last good text of every file: one that breaks is refused, and what it said before goes on.
#[derive(Debug, Clone, Default)]
pub struct Files {
    good: BTreeMap<String, String>,
}

impl Files {
    /// Takes the present text of all files. Returns what is managed and what is wrong; files with errors keep their
    /// last good text, new ones with errors are left out. `in_use` names the revisions that carry users, or are
    /// about to: none of them may go. `unresolved` are host names without an address, with the reason: a file that has one is wrong.
    pub fn update(
        &mut self,
        texts: &BTreeMap<String, String>,
        in_use: &BTreeMap<CanaryName, InUse>,
        unresolved: &BTreeMap<String, String>,
    ) -> (Set, Report) {
        let mut report = Report::default();
        let mut candidate: BTreeMap<String, String> = BTreeMap::new();
        for (file, text) in texts {
            let mut alone = Set::read([(file.as_str(), text.as_str())]);
            alone.report.errors.extend(alone.unresolved(unresolved));
            if alone.report.errors.is_empty() {
                candidate.insert(file.clone(), text.clone());
            } else {
                report.errors.extend(alone.report.errors);
                if let Some(good) = self.good.get(file) {
                    candidate.insert(file.clone(), good.clone());
                }
            }
        }
        let mut set = Set::together(&candidate, in_use);
        // Right alone, wrong together: the files that are named go on as they were, so that they hold no other one back.
        while !set.report.errors.is_empty() {
            let back = self.culprits(&candidate, &set.report.errors, in_use);
            report.errors.append(&mut set.report.errors);
            if back.is_empty() {
                break;
            }
            back.into_iter().for_each(|file| self.revert(file, &mut candidate));
            set = Set::together(&candidate, in_use);
        }
        self.good = candidate;
        report.errors.sort();
        report.errors.dedup();
        report.warnings.clone_from(&set.report.warnings);
        (set, report)
    }

    /// Returns the changed files that are to blame for what is wrong together: those that are named, or else one without
    /// which less is wrong, or else all.
    fn culprits(
        &self,
        candidate: &BTreeMap<String, String>,
        errors: &[Problem],
        in_use: &BTreeMap<CanaryName, InUse>,
    ) -> Vec<String> {
        let named: BTreeSet<&str> = errors.iter().map(|problem| problem.file.as_str()).collect();
        let is_changed = |file: &&String| candidate.get(*file) != self.good.get(*file);
        let changed: BTreeSet<&String> = candidate.keys().chain(self.good.keys()).filter(is_changed).collect();
        let blamed: Vec<String> =
            changed.iter().filter(|file| named.contains(file.as_str())).map(ToString::to_string).collect();
        if !blamed.is_empty() {
            return blamed;
        }
        // What is wrong is in files that were good before others changed, or went.
        let mends = |file: &&&String| {
            let mut without = candidate.clone();
            self.revert((**file).clone(), &mut without);
            Set::together(&without, in_use).report.errors.len() < errors.len()
        };
        match changed.iter().take(TRIED_ALONE).find(mends) {
            Some(file) => vec![(*file).clone()],
            None => changed.into_iter().cloned().collect(),
        }
    }

    fn revert(&self, file: String, texts: &mut BTreeMap<String, String>) {
        match self.good.get(&file) {
            Some(good) => texts.insert(file, good.clone()),
            None => texts.remove(&file),
        };
    }
}

impl Set {
    /// Reads files and checks what they say together.
    pub fn of(texts: &BTreeMap<String, String>) -> Self {
        let mut set = Self::read(texts.iter().map(|(file, text)| (file.as_str(), text.as_str())));
        set.check();
        set.report.errors.sort();
        set
    }

    /// Reads files that are to replace what is served.
    fn together(texts: &BTreeMap<String, String>, in_use: &BTreeMap<CanaryName, InUse>) -> Self {
        let mut set = Self::of(texts);
        set.keep(in_use);
        set
    }

    /// Reads files as [`Set::of`] does, to look at what they say and not to serve it: documents of `flagger.app` may be
    /// for another server. What this one does not carry out is a warning then, and so is a document that is not there.
    pub fn look(texts: &BTreeMap<String, String>) -> Self {
        let mut set = Self { looks: true, ..Self::default() };
        set.add(texts.iter().map(|(file, text)| (file.as_str(), text.as_str())));
        set.check();
        set.report.errors.sort();
        set.report.warnings.sort();
        set
    }

    /// Reads files; what must be right between documents is not looked at.
    fn read<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut set = Self::default();
        set.add(texts);
        set
    }

    fn add<'a>(&mut self, texts: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let set = self;
        for (file, text) in texts {
            match yaml::parse(text) {
                Ok(documents) => {
                    let file: Arc<str> = file.into();
                    documents.iter().for_each(|document| set.document(&file, document));
                }
                Err(broken) => {
                    let message = format!("this is no YAML that can be read: {}", broken.why);
                    set.report.errors.push(problem(&At { file: file.into(), place: broken.at }, "", &message));
                }
            }
        }
        set.report.errors.sort();
    }

    /// Returns what is managed.
    pub fn setup(&self, filter: Option<Arc<[u8]>>) -> Setup {
        let mut canaries = BTreeMap::new();
        let template = |name: &CanaryName| self.templates.get(name).map(|(_, template)| template.clone());
        for (name, (_, document)) in &self.canaries {
            let target = CanaryName::new(name.namespace.clone(), document.plan.target());
            let Some((_, workload)) = self.workloads.get(&target) else { continue };
            let alerts = document.alerts.iter().filter_map(|(provider, level)| {
                let (_, channel) = self.channels.get(&(name.namespace.clone(), provider.clone()))?;
                Some(Channel { level: *level, ..channel.clone() })
            });
            let measures: Vec<Measure> =
                document.metrics.iter().filter_map(|metric| metric.measure(template)).collect();
            let asked = (document.hooks.iter().map(Hook::digest), measures.iter().map(Measure::digest));
            let managed = Managed {
                plan: document.plan.clone().asking(asked.0, asked.1),
                judge: document.judge.clone(),
                workload: workload.clone(),
                service: document.service.clone(),
                audience: document.audience.clone(),
                hooks: document.hooks.clone(),
                measures,
                alerts: alerts.collect(),
            };
            canaries.insert(name.clone(), managed);
        }
        let listeners = self.listeners.values().map(|(_, listener)| listener.clone()).collect();
        let files = self.canaries.iter().map(|(name, (at, _))| (name.clone(), at.file.clone())).collect();
        Setup { canaries, listeners, filter, files, refused_files: Vec::new() }
    }

    /// Returns the host names of endpoints.
    pub fn host_names(&self) -> BTreeSet<String> {
        self.hosts.iter().map(|(_, host)| host.name.clone()).collect()
    }

    /// Returns what is wrong with the endpoints at these hosts, each of which has no address for some reason.
    pub fn unresolved(&self, hosts: &BTreeMap<String, String>) -> Vec<Problem> {
        let wrong = self.hosts.iter().filter_map(|(file, host)| {
            let HostName { name, at, field } = host;
            let message = format!(
                "{name} does not resolve ({}), use an address, or a name that this machine resolves too",
                hosts.get(name)?
            );
            Some(problem(&At { file: file.clone(), place: *at }, field, &message))
        });
        wrong.collect()
    }

    /// Returns the documents of canaries.
    pub fn canaries(&self) -> impl Iterator<Item = (&CanaryName, &CanaryDocument)> {
        self.canaries.iter().map(|(name, (_, document))| (name, document))
    }

    /// Refuses to let go of revisions that carry users, or are about to.
    fn keep(&mut self, in_use: &BTreeMap<CanaryName, InUse>) {
        for (name, InUse { bound, on_trial }) in in_use {
            let Some((_, document)) = self.canaries.get(name) else { continue };
            let target = CanaryName::new(name.namespace.clone(), document.plan.target());
            let Some((at, workload)) = self.workloads.get(&target) else { continue };
            let is_gone = |revision: &&Revision| !workload.revisions.contains_key(*revision);
            for revision in bound.iter().filter(is_gone) {
                let message = format!("{revision} serves {name} and is gone, keep it until another one is promoted");
                self.report.errors.push(problem(at, "spec.revisions", &message));
            }
            // Asking for another revision ends the rollout, unless nothing is to begin or change.
            if let Some(revision) = on_trial.as_ref().filter(is_gone)
                && document.plan.is_suspended()
            {
                let message = format!(
                    "{revision} is the canary of {name}, which is suspended, and is gone: keep it, or end suspend first"
                );
                self.report.errors.push(problem(at, "spec.revisions", &message));
            }
        }
    }

    fn document(&mut self, file: &Arc<str>, node: &Node) {
        let at = At { file: file.clone(), place: node.at };
        let mut decoder = Decoder::new(file, true);
        self.decode(&mut decoder, &at, node);
        self.report.errors.append(&mut decoder.report.errors);
        self.report.warnings.append(&mut decoder.report.warnings);
    }

    fn decode(&mut self, decoder: &mut Decoder, at: &At, node: &Node) {
        let Some(mut fields) = decoder.fields(node, "") else { return };
        let api = fields.need("apiVersion", "use wingbeat.dev/v1alpha1", decoder);
        let kind = fields.need("kind", &format!("use {KINDS}"), decoder);
        let metadata = fields.need("metadata", "name the document", decoder);
        let spec = fields.need("spec", "say what is wanted", decoder);
        let api = api.and_then(|(node, path)| {
            let text = decoder.text(node, &path)?;
            match text.as_str() {
                "wingbeat.dev/v1alpha1" => Some(Api::Wingbeat),
                "flagger.app/v1beta1" | "flagger.app/v1alpha3" => Some(Api::Flagger),
                _ => {
                    decoder.wrong(node.at, &path, format!("there is no {text}, use wingbeat.dev/v1alpha1"));
                    None
                }
            }
        });
        decoder.strict = api != Some(Api::Flagger);
        decoder.elsewhere = self.looks && api == Some(Api::Flagger);
        fields.take("status");
        decoder.done(fields);
        let name = metadata.and_then(|(node, path)| self::metadata(decoder, node, &path));
        let (Some(api), Some((kind, path)), Some((spec, _))) = (api, kind, spec) else { return };
        let Some(kind_text) = decoder.text(kind, &path) else { return };
        let is_named = name.is_some();
        // Without a name nothing comes of it, but what else is wrong is told too.
        let name = name.unwrap_or_else(|| CanaryName::new("default", "unnamed"));
        if is_named {
            self.declared.insert((kind_text.clone(), name.clone()));
        }
        let owner = name.clone();
        let twice = match kind_text.as_str() {
            "Canary" => canary::decode(decoder, name.clone(), spec, api)
                .filter(|_| is_named)
                .and_then(|document| self.canaries.insert(name, (at.clone(), document)).map(|(at, _)| at)),
            "Workload" => workload(decoder, spec)
                .filter(|_| is_named)
                .and_then(|workload| self.workloads.insert(name, (at.clone(), workload)).map(|(at, _)| at)),
            "Listener" => listener::decode(decoder, spec, &name.name)
                .filter(|_| is_named)
                .and_then(|listener| self.listeners.insert(name.name, (at.clone(), listener)).map(|(at, _)| at)),
            "AlertProvider" => outgoing::decode_channel(decoder, spec).filter(|_| is_named).and_then(|channel| {
                self.channels.insert((name.namespace, name.name), (at.clone(), channel)).map(|(at, _)| at)
            }),
            "MetricTemplate" => metric::decode_template(decoder, spec)
                .filter(|_| is_named)
                .and_then(|template| self.templates.insert(name, (at.clone(), template)).map(|(at, _)| at)),
            other => {
                let message = format!("there is no {other}, use {KINDS}");
                decoder.wrong(kind.at, &path, message);
                None
            }
        };
        // Whose namespace is not known refers to nobody.
        let named = std::mem::take(&mut decoder.references).into_iter().filter(|_| is_named);
        self.hosts.extend(decoder.hosts.drain(..).map(|host| (at.file.clone(), host)));
        self.references.extend(named.map(|reference| (at.file.clone(), owner.clone(), reference)));
        if let Some(before) = twice {
            let message = format!("is also in {}:{}, give each its own name", before.file, before.place.line);
            decoder.wrong(at.place, "metadata.name", message);
        }
    }

    /// What must be right between documents.
    fn check(&mut self) {
        let mut errors = Vec::new();
        for (file, owner, reference) in &self.references {
            let Reference { kind, namespace, name, at, field, elsewhere } = reference;
            let namespace = namespace.as_ref().unwrap_or(&owner.namespace);
            // Listeners serve all namespaces.
            let is_it = |(k, n): &(String, CanaryName)| {
                k == kind && n.name == *name && (*kind == "Listener" || n.namespace == *namespace)
            };
            if !self.declared.iter().any(is_it) {
                let message = format!("there is no {kind} {name}, add it or name another");
                let problems = if *elsewhere { &mut self.report.warnings } else { &mut errors };
                problems.push(problem(&At { file: file.clone(), place: *at }, field, &message));
            }
        }
        let template = |name: &CanaryName| self.templates.get(name).map(|(_, template)| template.clone());
        let mut hosts: BTreeMap<(&str, String), &CanaryName> = BTreeMap::new();
        let mut targets: BTreeMap<CanaryName, &CanaryName> = BTreeMap::new();
        for (name, (at, document)) in &self.canaries {
            let mut wrong = |place: Place, field: &str, message: String| {
                errors.push(problem(&At { file: at.file.clone(), place }, field, &message));
            };
            let target = CanaryName::new(name.namespace.clone(), document.plan.target());
            if let Some(other) = targets.insert(target, name) {
                let message = format!("{other} has the same target, give each canary its own");
                wrong(document.target_at, "spec.targetRef.name", message);
            }
            for (place, field, message) in document.metrics.iter().flat_map(|metric| metric.misuse(template)) {
                wrong(place, &field, message);
            }
            for listener in &document.service.listeners {
                for (place, (host, at)) in document.service.hosts.iter().zip(&document.hosts_at).enumerate() {
                    if let Some(other) = hosts.insert((listener, hosts::key(host)), name) {
                        let message = format!("{other} answers to {host} on {listener} already, use another host");
                        wrong(*at, &format!("spec.service.hosts[{place}]"), message);
                    }
                }
            }
        }
        let mut ports: BTreeMap<u16, Vec<(&str, &Listener)>> = BTreeMap::new();
        for (name, (at, listener)) in &self.listeners {
            let before = ports.entry(listener.port).or_default();
            if let Some((other, _)) = before.iter().find(|(_, other)| listener::meet(other, listener)) {
                let message = format!(
                    "Listener {other} has {}:{} already on the same proxies, use another port, or nodes that differ",
                    listener.address, listener.port
                );
                errors.push(problem(at, "spec.port", &message));
            }
            before.push((name, listener));
        }
        self.report.errors.append(&mut errors);
    }
}

fn problem(at: &At, field: &str, message: &str) -> Problem {
    let (line, column) = (at.place.line, at.place.column);
    Problem { file: at.file.to_string(), line, column, field: field.to_owned(), message: message.to_owned() }
}

fn metadata(decoder: &mut Decoder, node: &Node, path: &str) -> Option<CanaryName> {
    let mut fields = decoder.fields(node, path)?;
    let name = fields.need("name", "name the document", decoder);
    let namespace = fields.take("namespace");
    for ignored in ["labels", "annotations", "creationTimestamp", "generation", "resourceVersion", "uid", "finalizers"]
    {
        fields.take(ignored);
    }
    let label = |decoder: &mut Decoder, taken: Option<(&Node, String)>| {
        let (node, path) = taken?;
        let text = decoder.text(node, &path)?;
        let right = !text.is_empty()
            && text.len() <= 253
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
        if !right {
            decoder.wrong(node.at, &path, format!("{text:?} is not a name, use lower case letters, digits, - and ."));
        }
        right.then_some(text)
    };
    let name = label(decoder, name);
    let namespace = if namespace.is_some() { label(decoder, namespace) } else { Some("default".to_owned()) };
    decoder.done(fields);
    Some(CanaryName::new(namespace?, name?))
}

/// Bytes of a revision's name, as of any other name in Kubernetes.
const LONGEST_REVISION: usize = 253;

fn workload(decoder: &mut Decoder, node: &Node) -> Option<Workload> {
    let mut fields = decoder.fields(node, "spec")?;
    let revision = fields.need("revision", "name the one that is wanted", decoder);
    let revision = revision.and_then(|(node, path)| Some((node.at, decoder.text(node, &path)?)));
    let http2 = fields.take("http2").and_then(|(node, path)| decoder.truth(node, &path)).unwrap_or(false);
    let mut revisions = BTreeMap::new();
    if let Some((node, path)) = fields.need("revisions", "list them with their endpoints", decoder)
        && let Some(mut named) = decoder.fields(node, &path)
    {
        for (name, _, node, path) in named.rest() {
            // It is a part of the cluster's name, which every report repeats.
            if let Some(unfit) = unfit_name("the revision's name", name, LONGEST_REVISION) {
                decoder.wrong(node.at, &path, unfit);
                continue;
            }
            let Some(mut fields) = decoder.fields(node, &path) else { continue };
            let listed = fields.need("endpoints", "list them like [\"127.0.0.1:9001\"]", decoder);
            let mend = "list them like [\"127.0.0.1:9001\"]";
            let listed = listed.map(|(node, path)| decoder.some(node, &path, mend)).unwrap_or_default();
            let endpoints = listed.into_iter().filter_map(|(node, path)| endpoint(decoder, node, &path)).collect();
            decoder.done(fields);
            revisions.insert(Revision::new(name), endpoints);
        }
    }
    decoder.done(fields);
    let (at, revision) = revision?;
    let revision = Revision::new(revision);
    if !revisions.contains_key(&revision) {
        let message = format!("{revision} is not among the revisions, add it there");
        decoder.wrong(at, "spec.revision", message);
        return None;
    }
    Some(Workload { revision, revisions, http2 })
}

/// Takes `host:port`, `1.2.3.4:80` or `[::1]:80`.
fn endpoint(decoder: &mut Decoder, node: &Node, path: &str) -> Option<(String, u16)> {
    let text = decoder.text(node, path)?;
    let port = text.rsplit_once(':').map(|(_, port)| port).filter(|port| port.bytes().all(|c| c.is_ascii_digit()));
    if let Some(port) = port.filter(|port| !port.is_empty() && !matches!(port.parse(), Ok(1..=u16::MAX))) {
        decoder.wrong(node.at, path, format!("{port} is not a port, use one from 1 to 65535"));
        return None;
    }
    let parsed: Option<(String, u16)> = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
        let good = host.parse::<IpAddr>().is_ok()
            || (!host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')));
        good.then(|| (host.to_owned(), port))
    });
    if let Some((host, _)) = parsed.as_ref().filter(|(host, _)| host.parse::<IpAddr>().is_err()) {
        decoder.hosts.push(HostName { name: host.clone(), at: node.at, field: path.to_owned() });
    }
    if parsed.is_none() {
        decoder.wrong(node.at, path, format!("{text:?} is not an endpoint, write host:port, like 127.0.0.1:9001"));
    }
    parsed
}
