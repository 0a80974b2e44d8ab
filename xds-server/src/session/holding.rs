//! What a client holds of one type, as far as its answers tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::resource::{Resource, Version};
use crate::snapshot::Resources;

/// What was sent, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Holding {
    resources: BTreeMap<String, Held>,
    outstanding: Option<Outstanding>,
    /// Nonce of the latest response.
    last_nonce: Option<String>,
    /// Refused together with others: to be sent alone.
    suspects: BTreeSet<String>,
}

/// What an answer was about.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    /// Names of what was accepted, or of what was refused and not accepted before.
    pub(super) names: Vec<String>,
    /// True if the response carried nothing else.
    pub(super) alone: bool,
}

/// A response that is not answered yet.
#[derive(Debug, Clone)]
pub(super) struct Outstanding {
    pub(super) nonce: String,
    pub(super) resources: Vec<(String, Version)>,
}

#[derive(Debug, Default)]
struct Held {
    /// Sent last; none if the client holds something that we do not know.
    sent: Option<Version>,
    accepted: Option<Version>,
    refused: Option<Version>,
}

impl Held {
    fn may_be_used(&self) -> bool {
        self.accepted.is_some() || self.refused != self.sent
    }
}

impl Holding {
    /// Takes the answer to a response, if it is the one that was waited for.
    pub(super) fn answer(&mut self, nonce: &str, refused: bool) -> Option<Answered> {
        let answered = self.outstanding.take_if(|outstanding| outstanding.nonce == nonce)?;
        let alone = answered.resources.len() <= 1;
        let mut names = Vec::new();
        for (name, version) in answered.resources {
            let held = self.resources.entry(name.clone()).or_default();
            if !refused {
                held.accepted = Some(version);
                held.refused = None;
                self.suspects.remove(&name);
            } else if held.accepted == Some(version) {
                continue;
            } else {
                held.refused = Some(version);
                if alone {
                    self.suspects.remove(&name);
                } else {
                    self.suspects.insert(name.clone());
                }
            }
            names.push(name);
        }
        Some(Answered { names, alone })
    }

    /// Returns true for the nonce of a response that is not the latest one.
    pub(super) fn is_stale(&self, nonce: &str) -> bool {
        !nonce.is_empty() && self.last_nonce.as_deref().is_some_and(|last| last != nonce)
    }

    /// Notes a response. A whole set replaces what was held.
    pub(super) fn sent(&mut self, outstanding: Outstanding, whole: bool) {
        if whole {
            let names: BTreeSet<&String> = outstanding.resources.iter().map(|(name, _)| name).collect();
            self.resources.retain(|name, _| names.contains(name));
            self.suspects.clear();
        }
        for (name, version) in &outstanding.resources {
            self.resources.entry(name.clone()).or_default().sent = Some(*version);
        }
        self.last_nonce = Some(outstanding.nonce.clone());
        self.outstanding = Some(outstanding);
    }

    pub(super) const fn is_outstanding(&self) -> bool {
        self.outstanding.is_some()
    }

    /// Notes what the client holds from an earlier stream.
    pub(super) fn assume(&mut self, name: &str, version: Option<Version>) {
        self.resources.insert(name.to_owned(), Held { sent: version, accepted: version, refused: None });
    }

    /// Returns true if the client holds some version of this.
    pub(super) fn has(&self, name: &str) -> bool {
        self.resources.contains_key(name)
    }

    /// Returns true if the client has accepted this very version.
    pub(super) fn has_accepted(&self, resource: &Resource) -> bool {
        self.resources.get(&resource.name).is_some_and(|held| held.accepted == Some(resource.version))
    }

    /// Returns true if this version was never sent.
    pub(super) fn lacks(&self, resource: &Resource) -> bool {
        self.resources
            .get(&resource.name)
            .is_none_or(|held| held.sent != Some(resource.version) && held.refused != Some(resource.version))
    }

    /// Returns true if something that the client is to hold may refer to this: it was sent, and some version of it
    /// was not refused.
    pub(super) fn may_be_used(&self, name: &str) -> bool {
        self.resources.get(name).is_some_and(Held::may_be_used)
    }

    /// Returns true if the client has refused the only version of this that it was sent.
    pub(super) fn is_refused(&self, name: &str) -> bool {
        self.resources.get(name).is_some_and(|held| held.refused.is_some() && !held.may_be_used())
    }

    /// Returns the names of what the client holds and is not to hold.
    pub(super) fn without(&self, target: &Resources) -> Vec<String> {
        self.resources.keys().filter(|name| !target.contains_key(*name)).cloned().collect()
    }

    /// Returns one that was refused together with others and has not changed since.
    pub(super) fn suspect(&mut self, target: &Resources) -> Option<Arc<Resource>> {
        let resources = &self.resources;
        self.suspects.retain(|name| {
            let refused = resources.get(name).and_then(|held| held.refused);
            refused.is_some() && target.get(name).map(|resource| resource.version) == refused
        });
        self.suspects.first().and_then(|name| target.get(name)).cloned()
    }

    pub(super) fn drop_names(&mut self, names: &[String]) {
        for name in names {
            self.resources.remove(name);
            self.suspects.remove(name);
        }
    }

    /// Forgets resources that the client no longer wants.
    pub(super) fn forget(&mut self, unwanted: impl Fn(&String) -> bool) {
        self.resources.retain(|name, _| !unwanted(name));
    }
}
