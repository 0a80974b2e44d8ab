//! What several documents want for themselves: it is the one's that had it before.

use std::collections::BTreeMap;

use wingbeat_core::id::CanaryName;
use wingbeat_xds_server::model::Listener;

use super::canary::CanaryDocument;
use super::decoded::{Location, problem};
use super::set::Set;
use super::{hosts, listener};
use crate::problem::Problem;

impl Set {
    /// Returns what is wrong where documents clash, with `before` in force.
    pub(super) fn conflicts(&self, before: &Self) -> Vec<Problem> {
        let mut errors = self.clashing_canaries(&before.claims());
        errors.extend(self.clashing_listeners(before));
        errors
    }

    /// Returns what canaries have for themselves: each thing with the first canary that wants it.
    fn claims(&self) -> BTreeMap<Claimed, &CanaryName> {
        let mut claims = BTreeMap::new();
        for (name, (at, document)) in &self.canaries {
            for want in Claim::of(name, at, document) {
                claims.entry(want.thing).or_insert(name);
            }
        }
        claims
    }

    /// Returns what several canaries want for themselves: an error at each but the one that had it before.
    fn clashing_canaries(&self, before: &BTreeMap<Claimed, &CanaryName>) -> Vec<Problem> {
        let mut errors = Vec::new();
        let mut taken: BTreeMap<Claimed, Claim<'_>> = BTreeMap::new();
        for (name, (at, document)) in &self.canaries {
            for mine in Claim::of(name, at, document) {
                let Some(other) = taken.get(&mine.thing) else {
                    taken.insert(mine.thing.clone(), mine);
                    continue;
                };
                if before.get(&mine.thing).is_some_and(|holder| *holder == name) && other.canary != name {
                    errors.push(other.refused(name));
                    taken.insert(mine.thing.clone(), mine);
                } else {
                    errors.push(mine.refused(other.canary));
                }
            }
        }
        errors
    }

    /// Returns what is wrong with listeners at one address.
    fn clashing_listeners(&self, before: &Self) -> Vec<Problem> {
        let mut errors = Vec::new();
        let had_it = |name: &str, listener: &Listener| {
            let had = before.listeners.get(name);
            had.is_some_and(|(_, had)| had.port == listener.port && listener::meet(had, listener))
        };
        let mut ports: BTreeMap<u16, Vec<(&str, &Location, &Listener)>> = BTreeMap::new();
        for (name, (at, listener)) in &self.listeners {
            let others = ports.entry(listener.port).or_default();
            if let Some((other, its_at, its)) = others.iter().find(|(_, _, other)| listener::meet(other, listener)) {
                let (newcomer, holder) =
                    if had_it(name, listener) && !had_it(other, its) { (*its_at, name.as_str()) } else { (at, *other) };
                let message = format!(
                    "Listener {holder} has {}:{} already on the same proxies, use another port, or nodes that differ",
                    listener.address, listener.port
                );
                errors.push(problem(newcomer, "spec.port", &message));
            }
            others.push((name, at, listener));
        }
        errors
    }
}

/// What only one canary can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claimed {
    /// A workload.
    Target(CanaryName),
    /// A host, in the form by which hosts are compared, on a listener.
    Host(String, String),
}

/// That a canary wants it.
#[derive(Debug)]
struct Claim<'a> {
    thing: Claimed,
    canary: &'a CanaryName,
    at: Location,
    field: String,
    /// As it is written.
    written: &'a str,
}

impl Claimed {
    /// Returns what a canary has for itself.
    pub(super) fn of(name: &CanaryName, document: &CanaryDocument) -> Vec<Self> {
        let target = Self::Target(CanaryName::new(name.namespace.clone(), document.plan.target()));
        let hosts = document.service.listeners.iter().flat_map(|listener| {
            let hosts = document.service.hosts.iter();
            hosts.map(|host| Self::Host(listener.clone(), hosts::key(host)))
        });
        std::iter::once(target).chain(hosts).collect()
    }
}

impl<'a> Claim<'a> {
    fn of(canary: &'a CanaryName, at: &'a Location, document: &'a CanaryDocument) -> impl Iterator<Item = Self> {
        let at = move |place| Location { file: at.file.clone(), place };
        let target = document.plan.target();
        let thing = Claimed::Target(CanaryName::new(canary.namespace.clone(), target));
        let field = "spec.targetRef.name".to_owned();
        let workload = Self { thing, canary, at: at(document.target_at), field, written: target };
        let hosts = document.service.listeners.iter().flat_map(move |listener| {
            let hosts = document.service.hosts.iter().zip(&document.hosts_at).enumerate();
            hosts.map(move |(index, (host, place))| {
                let thing = Claimed::Host(listener.clone(), hosts::key(host));
                Self { thing, canary, at: at(*place), field: format!("spec.service.hosts[{index}]"), written: host }
            })
        });
        std::iter::once(workload).chain(hosts)
    }

    /// Returns what is wrong, as another canary has it.
    fn refused(&self, holder: &CanaryName) -> Problem {
        let message = match &self.thing {
            Claimed::Target(_) => format!("{holder} has the same target, give each canary its own"),
            Claimed::Host(listener, _) => {
                format!("{holder} answers to {} on {listener} already, use another host", self.written)
            }
        };
        problem(&self.at, &self.field, &message)
    }
}
