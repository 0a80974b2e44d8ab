//! All documents together: what must be right between them, and what is managed because of them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wingbeat_core::id::{CanaryName, Revision};
use wingbeat_xds_server::model::Listener;

use super::admit::{Admission, Document, admit};
use super::canary::CanaryDocument;
use super::decoder::{HostName, Reference};
use super::identity::{Classification, DocumentId, classify};
use super::metric::TemplateDocument;
use super::platform::{Platform, Severity};
use super::problem::Problem;
use super::report::Report;
use super::yaml::{self, Node, Position};
use crate::alert_provider::Channel;
use crate::desired_state::{CanaryConfig, DesiredState, InUse, MetricProvider, Workload};
use crate::hook::Hook;

/// What files say, with what is wrong.
#[derive(Debug, Clone, Default)]
pub struct Set {
    pub(super) canaries: BTreeMap<CanaryName, (Location, CanaryDocument)>,
    workloads: BTreeMap<CanaryName, (Location, Workload)>,
    pub(super) listeners: BTreeMap<String, (Location, Listener)>,
    channels: BTreeMap<CanaryName, (Location, Channel)>,
    templates: BTreeMap<CanaryName, (Location, TemplateDocument)>,
    /// Every document with its file, right or wrong: one mistake is not told as another one too.
    pub(super) declared: BTreeMap<DocumentId, Arc<str>>,
    /// Documents that are named and are not there.
    pub(super) dangling: BTreeSet<DocumentId>,
    /// Canaries of which a revision is gone that cannot go as long as it is in use.
    pub(super) held_by: BTreeSet<CanaryName>,
    /// How many documents were left out, as they are none of ours.
    pub left_out: usize,
    references: Vec<(Arc<str>, CanaryName, Reference)>,
    hosts: Vec<(Arc<str>, HostName)>,
    /// What is to carry it out.
    platform: Platform,
    /// What was found.
    pub report: Report,
}

/// Where a document is.
#[derive(Debug, Clone)]
pub(super) struct Location {
    pub(super) file: Arc<str>,
    pub(super) place: Position,
}

/// Text of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
    /// Which documents of it are read: all, or those of these that no source before it has.
    pub(super) only: Option<&'a BTreeSet<DocumentId>>,
}

impl<'a> Source<'a> {
    /// Returns a file of which all is read.
    pub(super) const fn whole(file: &'a str, text: &'a str) -> Self {
        Self { file, text, only: None }
    }
}

impl Set {
    /// Reads files and checks what they say together.
    pub fn of(texts: &BTreeMap<String, String>) -> Self {
        let sources = texts.iter().map(|(file, text)| Source::whole(file, text));
        Self::combined(sources, &Self::default(), &BTreeMap::new())
    }

    /// Reads files that are to replace what is in force. Of two documents that clash, the one that had before what
    /// both want is right.
    pub(super) fn combined<'a>(
        sources: impl IntoIterator<Item = Source<'a>>,
        before: &Self,
        in_use: &BTreeMap<CanaryName, InUse>,
    ) -> Self {
        let mut set = Self::default();
        set.add(sources, before);
        set.check(before);
        set.keep(in_use);
        set.report.errors.sort();
        set
    }

    /// Reads files as [`Set::of`] does, to look at what they say and not to serve it: documents of `flagger.app` may be
    /// for another server. What this one does not carry out is a warning then, and so is a document that is not there.
    pub fn lint(texts: &BTreeMap<String, String>) -> Self {
        let mut set = Self { platform: Platform::Undecided, ..Self::default() };
        set.add(texts.iter().map(|(file, text)| Source::whole(file, text)), &Self::default());
        set.check(&Self::default());
        set.report.errors.sort();
        set.report.warnings.sort();
        set
    }

    /// Reads a file; what must be right between documents is not looked at.
    pub(super) fn single(file: &str, text: &str) -> Self {
        let mut set = Self::default();
        set.add([Source::whole(file, text)], &Self::default());
        set
    }

    fn add<'a>(&mut self, sources: impl IntoIterator<Item = Source<'a>>, before: &Self) {
        for Source { file, text, only } in sources {
            let file: Arc<str> = file.into();
            match yaml::parse(text) {
                Ok(documents) => {
                    if documents.is_empty() {
                        let at = Location { file: file.clone(), place: Position { line: 1, column: 1 } };
                        let message = "there is no document in it: write one, or delete the file";
                        self.report.warnings.push(problem(&at, "", message));
                    }
                    documents.iter().for_each(|document| self.take(&file, document, only, before));
                }
                Err(broken) => {
                    let rendered = if text.contains("{{") || text.contains("${") {
                        "; where {{ }} or ${ } is to be filled in by something else, give what that writes"
                    } else {
                        ""
                    };
                    let message = format!("this is no YAML that can be read: {}{rendered}", broken.why);
                    self.report.errors.push(problem(&Location { file, place: broken.at }, "", &message));
                }
            }
        }
        self.report.errors.sort();
    }

    /// Takes a document, or those of a list.
    fn take(&mut self, file: &Arc<str>, node: &Node, only: Option<&BTreeSet<DocumentId>>, before: &Self) {
        match (classify(node), only) {
            (Classification::List(items), _) => items.iter().for_each(|item| self.take(file, item, only, before)),
            (Classification::Ours(_), None) => self.document(file, node, before),
            (Classification::Ours(id), Some(only)) => {
                if id.is_some_and(|id| only.contains(&id) && !self.declared.contains_key(&id)) {
                    self.document(file, node, before);
                }
            }
            (Classification::Foreign(why), None) => {
                self.left_out = self.left_out.saturating_add(1);
                self.report.warnings.push(problem(&Location { file: file.clone(), place: node.at }, "", &why));
            }
            (Classification::Foreign(_), Some(_)) => {}
        }
    }

    /// Returns what is managed.
    pub fn desired_state(&self, filter: Option<Arc<[u8]>>) -> DesiredState {
        let mut canaries = BTreeMap::new();
        let template = |name: &CanaryName| self.templates.get(name).map(|(_, template)| template.clone());
        for (name, (_, document)) in &self.canaries {
            let target = CanaryName::new(name.namespace.clone(), document.plan.target());
            let Some((_, workload)) = self.workloads.get(&target) else { continue };
            let alerts = document.alerts.iter().filter_map(|(provider, level)| {
                let (_, channel) = self.channels.get(provider)?;
                Some(Channel { level: *level, ..channel.clone() })
            });
            let metric_providers: Vec<MetricProvider> =
                document.metrics.iter().filter_map(|metric| metric.measure(template)).collect();
            let asked = (document.hooks.iter().map(Hook::digest), metric_providers.iter().map(MetricProvider::digest));
            let managed = CanaryConfig {
                plan: document.plan.clone().asking(asked.0, asked.1),
                judge: document.judge.clone(),
                workload: workload.clone(),
                service: document.service.clone(),
                audience: document.audience.clone(),
                hooks: document.hooks.clone(),
                metric_providers,
                alerts: alerts.collect(),
            };
            canaries.insert(name.clone(), managed);
        }
        let listeners = self.listeners.values().map(|(_, listener)| listener.clone()).collect();
        let files = self.canaries.iter().map(|(name, (at, _))| (name.clone(), at.file.clone())).collect();
        DesiredState { canaries, listeners, filter, files, ..DesiredState::default() }
    }

    /// Returns true if there is nothing to serve.
    pub fn is_empty(&self) -> bool {
        self.declared.is_empty()
    }

    /// Returns the number of files that have documents of ours.
    pub fn files(&self) -> usize {
        self.declared.values().collect::<BTreeSet<_>>().len()
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
            Some(problem(&Location { file: file.clone(), place: *at }, field, &message))
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
                self.held_by.insert(name.clone());
            }
            // Asking for another revision ends the rollout, unless nothing is to begin or change.
            if let Some(revision) = on_trial.as_ref().filter(is_gone)
                && document.plan.is_suspended()
            {
                let message = format!(
                    "{revision} is the canary of {name}, which is suspended, and is gone: keep it, or end suspend first"
                );
                self.report.errors.push(problem(at, "spec.revisions", &message));
                self.held_by.insert(name.clone());
            }
        }
    }

    fn document(&mut self, file: &Arc<str>, node: &Node, before: &Self) {
        let at = Location { file: file.clone(), place: node.at };
        let Admission { id, name, document, report, references, hosts } = admit(file, node, self.platform);
        self.report.errors.extend(report.errors);
        self.report.warnings.extend(report.warnings);
        self.hosts.extend(hosts.into_iter().map(|host| (file.clone(), host)));
        self.references.extend(references.into_iter().map(|reference| (file.clone(), name.clone(), reference)));
        // Of two with one name, the one in force stays: it has the name.
        let holder = id.as_ref().and_then(|id| before.declared.get(id));
        if let Some(id) = id {
            self.declared.entry(id).or_insert_with(|| file.clone());
        }
        let twice = match document {
            Some(Document::Canary(document)) => put(&mut self.canaries, name, &at, *document, holder),
            Some(Document::Workload(workload)) => put(&mut self.workloads, name, &at, workload, holder),
            Some(Document::Listener(listener)) => put(&mut self.listeners, name.name, &at, listener, holder),
            Some(Document::Channel(channel)) => put(&mut self.channels, name, &at, channel, holder),
            Some(Document::Template(template)) => put(&mut self.templates, name, &at, template, holder),
            None => None,
        };
        if let Some((newcomer, holder)) = twice {
            let message = format!("is also in {}:{}, give each its own name", holder.file, holder.place.line);
            self.report.errors.push(problem(&newcomer, "metadata.name", &message));
        }
    }

    /// Returns the documents that others name, with how bad it is if there is none, and what is told if it is not
    /// there.
    fn named(&self) -> Vec<(DocumentId, Severity, Problem)> {
        let named = self.references.iter().map(|(file, owner, reference)| {
            let Reference { kind, namespace, name, at, field, missing } = reference;
            let namespace = namespace.as_ref().unwrap_or(&owner.namespace);
            let id = DocumentId::new(*kind, CanaryName::new(namespace.clone(), name.clone()));
            let message = format!("there is no {kind} {name}, add it or name another");
            (id, *missing, problem(&Location { file: file.clone(), place: *at }, field, &message))
        });
        named.collect()
    }

    /// Returns what is wrong as some of these documents are named.
    pub(super) fn naming<V>(&self, gone: &BTreeMap<DocumentId, V>) -> Vec<Problem> {
        let named =
            self.named().into_iter().filter(|(id, missing, _)| *missing == Severity::Error && gone.contains_key(id));
        named.map(|(_, _, told)| told).collect()
    }

    /// What must be right between documents.
    fn check(&mut self, before: &Self) {
        let mut errors = Vec::new();
        for (id, missing, told) in self.named() {
            if !self.declared.contains_key(&id) {
                match missing {
                    Severity::Warning => self.report.warnings.push(told),
                    Severity::Error => {
                        errors.push(told);
                        self.dangling.insert(id);
                    }
                }
            }
        }
        let template = |name: &CanaryName| self.templates.get(name).map(|(_, template)| template.clone());
        for (at, document) in self.canaries.values() {
            for (place, field, message) in document.metrics.iter().flat_map(|metric| metric.misuse(template)) {
                errors.push(problem(&Location { file: at.file.clone(), place }, &field, &message));
            }
        }
        errors.extend(self.conflicts(before));
        self.report.errors.append(&mut errors);
    }
}

/// Puts a document under its name. Of two with one name, the one whose file had it before stays; the other one is
/// returned first.
fn put<K: Ord, V>(
    documents: &mut BTreeMap<K, (Location, V)>,
    name: K,
    at: &Location,
    document: V,
    holder: Option<&Arc<str>>,
) -> Option<(Location, Location)> {
    match documents.entry(name) {
        Entry::Vacant(free) => {
            free.insert((at.clone(), document));
            None
        }
        Entry::Occupied(mut taken) => {
            let there = taken.get().0.clone();
            let is_in = |file| holder == Some(file) && there.file != at.file;
            if is_in(&there.file) {
                return Some((at.clone(), there));
            }
            let clash = if is_in(&at.file) { (there, at.clone()) } else { (at.clone(), there) };
            taken.insert((at.clone(), document));
            Some(clash)
        }
    }
}

/// Returns what is wrong at a place.
pub(super) fn problem(at: &Location, field: &str, message: &str) -> Problem {
    let (line, column) = (at.place.line, at.place.column);
    Problem { file: at.file.to_string(), line, column, field: field.to_owned(), message: message.to_owned() }
}
