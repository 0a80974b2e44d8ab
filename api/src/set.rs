//! All documents together: what must be right between them, and what is managed because of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;
use wingbeat_core::id::{CanaryName, Revision};
use wingbeat_xds_server::model::Listener;

use super::canary::CanaryDocument;
use super::decoded::{Content, Decoded, Document, Item, Location, Replacement, problem};
use super::decoder::Reference;
use super::identity::DocumentId;
use super::metric::{MetricDocument, TemplateDocument};
use super::yaml::Position;
use crate::alert_provider::Channel;
use crate::desired_state::{CanaryConfig, Configured, DesiredState, InUse, MetricProvider, Workload};
use crate::hook::Hook;
use crate::platform::Platform;
use crate::platform::Severity;
use crate::problem::Problem;
use crate::report::Report;

/// The listeners, by name.
pub(super) type ListenersByName = RedBlackTreeMapSync<String, (Location, Arc<Listener>)>;

/// What files say, with what is wrong. A copy shares all that is the same in both: to copy it costs nothing, and to change a
/// copy costs as much as what is changed.
#[derive(Debug, Clone, Default)]
pub struct Set {
    pub(super) canaries: RedBlackTreeMapSync<CanaryName, (Location, Arc<CanaryDocument>)>,
    pub(super) workloads: RedBlackTreeMapSync<CanaryName, (Location, Arc<Workload>)>,
    pub(super) listeners: ListenersByName,
    pub(super) channels: RedBlackTreeMapSync<CanaryName, (Location, Arc<Channel>)>,
    pub(super) templates: RedBlackTreeMapSync<CanaryName, (Location, Arc<TemplateDocument>)>,
    /// Every document with its file, right or wrong: one mistake is not told as another one too.
    pub(super) declared: RedBlackTreeMapSync<DocumentId, Arc<str>>,
    /// Documents that are named and are not there.
    pub(super) dangling: BTreeSet<DocumentId>,
    /// Canaries of which a revision is gone that cannot go as long as it is in use.
    pub(super) held_by: BTreeSet<CanaryName>,
    /// How many documents were left out, as they are none of ours.
    pub left_out: usize,
    /// Fields that hold host names of endpoints, each with the name, its file and its place.
    hosts: RedBlackTreeMapSync<(String, Arc<str>, Position), String>,
    /// What was found.
    pub report: Report,
}

/// Documents of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) decoded: &'a Decoded,
    /// Which documents of it are taken: all, or those of these that no source before it has.
    pub(super) only: Option<&'a BTreeSet<DocumentId>>,
}

/// Finds the revisions of a canary that are in use, if there are any.
pub(super) type Uses<'a> = &'a dyn Fn(&CanaryName) -> Option<InUse>;

impl<'a> Source<'a> {
    /// Returns a file of which all is taken.
    pub(super) const fn whole(decoded: &'a Decoded) -> Self {
        Self { decoded, only: None }
    }
}

impl Set {
    /// Reads files and checks what they say together.
    pub fn of(texts: &BTreeMap<String, String>) -> Self {
        let decoded = decode(texts, Platform::Envoy);
        Self::combined(decoded.iter().map(Source::whole), &Self::default(), &|_| None)
    }

    /// Puts files together that are to replace what is in force. Of two documents that clash, the one that had before what
    /// both want is right.
    pub(super) fn combined<'a>(sources: impl IntoIterator<Item = Source<'a>>, before: &Self, in_use: Uses<'_>) -> Self {
        let mut set = Self::default();
        let references = set.add(sources, before);
        set.check(&references, before);
        set.keep(in_use);
        set.report.errors.sort();
        set
    }

    /// Reads files as [`Set::of`] does, to look at what they say and not to serve it: documents of `flagger.app` may be
    /// for another server. What this one does not carry out is a warning then, and so is a document that is not there.
    pub fn lint(texts: &BTreeMap<String, String>) -> Self {
        let decoded = decode(texts, Platform::Undecided);
        let mut set = Self::default();
        let references = set.add(decoded.iter().map(Source::whole), &Self::default());
        set.check(&references, &Self::default());
        set.report.errors.sort();
        set.report.warnings.sort();
        set
    }

    /// Takes a file; what must be right between files is not looked at.
    pub(super) fn single(decoded: &Decoded) -> Self {
        let mut set = Self::default();
        set.add([Source::whole(decoded)], &Self::default());
        set
    }

    /// Adds documents. Returns what they name.
    fn add<'a>(
        &mut self,
        sources: impl IntoIterator<Item = Source<'a>>,
        before: &Self,
    ) -> Vec<(&'a Document, &'a Reference)> {
        let mut references = Vec::new();
        for Source { decoded, only } in sources {
            if only.is_none() {
                self.report.errors.extend(decoded.report.errors.iter().cloned());
                self.report.warnings.extend(decoded.report.warnings.iter().cloned());
            }
            for item in &decoded.items {
                match (item, only) {
                    (Item::Document(document), None) => self.put(document, before, &mut references),
                    (Item::Document(document), Some(only)) => {
                        let is_wanted = |id: &DocumentId| only.contains(id) && !self.declared.contains_key(id);
                        if document.written.as_ref().is_some_and(is_wanted) {
                            self.put(document, before, &mut references);
                        }
                    }
                    (Item::Foreign(told), None) => {
                        self.left_out = self.left_out.saturating_add(1);
                        self.report.warnings.push(told.clone());
                    }
                    (Item::Foreign(_), Some(_)) => {}
                }
            }
        }
        self.report.errors.sort();
        references
    }

    /// Puts a document under its name, with what is wrong with it.
    fn put<'a>(&mut self, document: &'a Document, before: &Self, references: &mut Vec<(&'a Document, &'a Reference)>) {
        self.report.errors.extend(document.report.errors.iter().cloned());
        self.report.warnings.extend(document.report.warnings.iter().cloned());
        references.extend(document.references.iter().map(|reference| (document, reference)));
        let file = &document.at.file;
        for host in &document.hosts {
            self.hosts.insert_mut((host.name.clone(), file.clone(), host.at), host.field.clone());
        }
        let Some(id) = &document.id else { return };
        // Of two with one name, the one in force stays: it has the name.
        let holder = before.declared.get(id);
        if !self.declared.contains_key(id) {
            self.declared.insert_mut(id.clone(), file.clone());
        }
        let Some(content) = &document.content else { return };
        let (at, name) = (&document.at, &document.name);
        let twice = match content {
            Content::Canary(canary) => put(&mut self.canaries, name.clone(), at, canary, holder),
            Content::Workload(workload) => put(&mut self.workloads, name.clone(), at, workload, holder),
            Content::Listener(listener) => put(&mut self.listeners, name.name.to_string(), at, listener, holder),
            Content::Channel(channel) => put(&mut self.channels, name.clone(), at, channel, holder),
            Content::Template(template) => put(&mut self.templates, name.clone(), at, template, holder),
        };
        if let Some((newcomer, holder)) = twice {
            let message = format!("is also in {}:{}, give each its own name", holder.file, holder.place.line);
            self.report.errors.push(problem(&newcomer, "metadata.name", &message));
        }
    }

    /// Replaces the texts of files, where all are right, alone and with all others.
    pub(super) fn replace(&mut self, files: &[Replacement]) {
        let foreign = |decoded: &Decoded| decoded.items.iter().filter(|item| matches!(item, Item::Foreign(_))).count();
        // First all that goes: a document may go from one file to another.
        for old in files.iter().filter_map(|file| file.old.as_deref()) {
            self.left_out = self.left_out.saturating_sub(foreign(old));
            for document in old.documents() {
                for host in &document.hosts {
                    self.hosts.remove_mut(&(host.name.clone(), document.at.file.clone(), host.at));
                }
                if let Some(id) = &document.id {
                    self.remove(id, &document.name);
                }
            }
        }
        self.add(files.iter().map(|file| Source::whole(&file.new)), &Self::default());
        self.report = Report::default();
    }

    fn remove(&mut self, id: &DocumentId, name: &CanaryName) {
        self.declared.remove_mut(id);
        match id.kind.as_str() {
            "Canary" => self.canaries.remove_mut(name),
            "Workload" => self.workloads.remove_mut(name),
            "Listener" => self.listeners.remove_mut(&*name.name),
            "AlertProvider" => self.channels.remove_mut(name),
            "MetricTemplate" => self.templates.remove_mut(name),
            _ => false,
        };
    }

    /// Returns what is managed.
    pub fn desired_state(&self, filter: Option<Arc<[u8]>>) -> DesiredState {
        let canaries = self.canaries.keys().filter_map(|name| Some((name.clone(), self.managed(name)?))).collect();
        let files = self.canaries.iter().map(|(name, (at, _))| (name.clone(), at.file.clone())).collect();
        DesiredState { canaries, listeners: self.all_listeners(), filter, files, ..DesiredState::default() }
    }

    /// Returns all listeners.
    pub(super) fn all_listeners(&self) -> Vec<Listener> {
        self.listeners.values().map(|(_, listener)| Listener::clone(listener)).collect()
    }

    /// Returns how a canary is to be managed, if it is.
    pub(super) fn configured(&self, name: &CanaryName) -> Option<Configured> {
        let managed = Arc::new(self.managed(name)?);
        Some(Configured { config: managed, file: self.canaries.get(name).map(|(at, _)| at.file.clone()) })
    }

    fn managed(&self, name: &CanaryName) -> Option<CanaryConfig> {
        let (_, document) = self.canaries.get(name)?;
        let target = CanaryName::new(name.namespace.clone(), document.plan.target());
        let (_, workload) = self.workloads.get(&target)?;
        let channel = |name: &CanaryName| self.channels.get(name).map(|(_, channel)| Channel::clone(channel));
        Some(assemble(document, Workload::clone(workload), channel, |name| self.template(name)))
    }

    fn template(&self, name: &CanaryName) -> Option<TemplateDocument> {
        self.templates.get(name).map(|(_, template)| TemplateDocument::clone(template))
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
        self.hosts.keys().map(|(name, ..)| name.clone()).collect()
    }

    /// Returns what is wrong with the endpoints at these hosts, each of which has no address for some reason.
    pub fn unresolved(&self, hosts: &BTreeMap<String, String>) -> Vec<Problem> {
        let wrong = self.hosts.iter().filter_map(|((name, file, place), field)| {
            let message = format!(
                "{name} does not resolve ({}), use an address, or a name that this machine resolves too",
                hosts.get(name)?
            );
            Some(problem(&Location { file: file.clone(), place: *place }, field, &message))
        });
        wrong.collect()
    }

    /// Returns the canaries that are managed in another way than before, or not any more.
    pub(super) fn touched(&self, before: &Self) -> BTreeSet<CanaryName> {
        let all: BTreeSet<&CanaryName> = self.canaries.keys().chain(before.canaries.keys()).collect();
        all.into_iter().filter(|name| !self.is_same(before, name)).cloned().collect()
    }

    /// Returns true if all that says how a canary is managed is the very same as before.
    fn is_same(&self, before: &Self, name: &CanaryName) -> bool {
        let (Some((at, now)), Some((was_at, was))) = (self.canaries.get(name), before.canaries.get(name)) else {
            return false;
        };
        let target = CanaryName::new(name.namespace.clone(), now.plan.target());
        let mut channels = now.alerts.iter().map(|(provider, _)| provider.clone());
        let mut templates = now.metrics.iter().filter_map(MetricDocument::template);
        Arc::ptr_eq(now, was)
            && at.file == was_at.file
            && the_same(&self.workloads, &before.workloads, &target)
            && channels.all(|channel| the_same(&self.channels, &before.channels, &channel))
            && templates.all(|template| the_same(&self.templates, &before.templates, template))
    }

    /// Returns the documents of canaries.
    pub fn canaries(&self) -> impl Iterator<Item = (&CanaryName, &CanaryDocument)> {
        self.canaries.iter().map(|(name, (_, document))| (name, document.as_ref()))
    }

    /// Refuses to let go of revisions that carry users, or are about to.
    fn keep(&mut self, in_use: Uses<'_>) {
        for (name, (_, document)) in &self.canaries {
            let Some(InUse { bound, on_trial }) = in_use(name) else { continue };
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

    /// What must be right between documents.
    fn check(&mut self, references: &[(&Document, &Reference)], before: &Self) {
        let mut errors = Vec::new();
        for (document, reference) in references {
            let id = document.named(reference);
            if self.declared.contains_key(&id) {
                continue;
            }
            if reference.missing == Severity::Warning {
                self.report.warnings.push(document.dangles(reference));
            } else {
                errors.push(document.dangles(reference));
                self.dangling.insert(id);
            }
        }
        let template = |name: &CanaryName| self.template(name);
        for (at, document) in self.canaries.values() {
            for (place, field, message) in document.metrics.iter().flat_map(|metric| metric.misuse(template)) {
                errors.push(problem(&Location { file: at.file.clone(), place }, &field, &message));
            }
        }
        errors.extend(self.conflicts(before));
        self.report.errors.append(&mut errors);
    }
}

/// Puts together how a canary is managed, with what it names. What is not there is left out, and told where it is missed.
pub(super) fn assemble(
    document: &CanaryDocument,
    workload: Workload,
    channel: impl Fn(&CanaryName) -> Option<Channel>,
    template: impl Fn(&CanaryName) -> Option<TemplateDocument>,
) -> CanaryConfig {
    let alerts =
        document.alerts.iter().filter_map(|(provider, level)| Some(Channel { level: *level, ..channel(provider)? }));
    let metric_providers: Vec<MetricProvider> =
        document.metrics.iter().filter_map(|metric| metric.measure(&template)).collect();
    let asked = (document.hooks.iter().map(Hook::digest), metric_providers.iter().map(MetricProvider::digest));
    CanaryConfig {
        plan: document.plan.clone().asking(asked.0, asked.1),
        judge: document.judge.clone(),
        workload,
        service: document.service.clone(),
        audience: document.audience.clone(),
        hooks: document.hooks.clone(),
        metric_providers,
        alerts: alerts.collect(),
    }
}

fn decode(texts: &BTreeMap<String, String>, platform: Platform) -> Vec<Decoded> {
    texts.iter().map(|(file, text)| Decoded::new(file, text, platform)).collect()
}

/// Returns true if both have the very same document of this name, or both have none.
fn the_same<K: Ord, V>(
    now: &RedBlackTreeMapSync<K, (Location, Arc<V>)>,
    before: &RedBlackTreeMapSync<K, (Location, Arc<V>)>,
    name: &K,
) -> bool {
    match (now.get(name), before.get(name)) {
        (Some((_, now)), Some((_, before))) => Arc::ptr_eq(now, before),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Puts a document under its name. Of two with one name, the one whose file had it before stays; the other one is
/// returned first.
fn put<K: Ord, V>(
    documents: &mut RedBlackTreeMapSync<K, (Location, Arc<V>)>,
    name: K,
    at: &Location,
    document: &Arc<V>,
    holder: Option<&Arc<str>>,
) -> Option<(Location, Location)> {
    let Some((there, _)) = documents.get(&name) else {
        documents.insert_mut(name, (at.clone(), document.clone()));
        return None;
    };
    let there = there.clone();
    let is_in = |file| holder == Some(file) && there.file != at.file;
    if is_in(&there.file) {
        return Some((at.clone(), there));
    }
    let clash = if is_in(&at.file) { (there, at.clone()) } else { (at.clone(), there) };
    documents.insert_mut(name, (at.clone(), document.clone()));
    Some(clash)
}
