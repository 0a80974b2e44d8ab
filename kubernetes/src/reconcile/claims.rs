//! What only one canary can have: a target, and a host of a listener. Who has it keeps it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use wingbeat_api::object::{Exposure, host_key};
use wingbeat_core::id::CanaryName;

use super::configuration::{names_of_service, own_hosts};

/// Something that only one canary can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// A Deployment, by namespace and name.
    Target(String, String),
    /// A host of a listener.
    Host {
        /// As hosts are compared.
        host: String,
        listener: String,
    },
}

/// Who has what, and who waits for it. As large as what canaries want.
#[derive(Debug, Default)]
pub(super) struct Claims {
    holders: BTreeMap<Claim, CanaryName>,
    held: BTreeMap<CanaryName, BTreeSet<Claim>>,
    waiting: BTreeMap<Claim, BTreeSet<CanaryName>>,
}

impl Claim {
    /// Returns all that a canary wants for itself.
    pub(super) fn of(canary: &CanaryName, target: &str, exposure: &Exposure) -> BTreeSet<Self> {
        let target = Self::Target(canary.namespace.to_string(), target.to_owned());
        let hosts = exposure.listeners.iter().flat_map(|listener| {
            let host = |host: &String| Self::Host { host: host_key(host), listener: listener.clone() };
            exposure.hosts.iter().map(host)
        });
        std::iter::once(target).chain(hosts).collect()
    }

    /// Returns what is wrong, as another canary has it.
    pub(super) fn refused(&self, holder: &CanaryName) -> String {
        match self {
            Self::Target(..) => format!("spec.targetRef.name: {holder} has the same target, give each canary its own"),
            Self::Host { host, listener } => {
                format!("spec.service.hosts: {holder} answers to {host} on {listener} already, use another host")
            }
        }
    }
}

impl Claims {
    /// Has a canary hold these and no others. If another one has some of them, it keeps what it had, and is to be evaluated
    /// again when they are free: `Err` says who has which. `Ok` are the canaries that waited for what it gave up.
    pub(super) fn take(
        &mut self,
        canary: &CanaryName,
        wanted: &BTreeSet<Claim>,
    ) -> Result<BTreeSet<CanaryName>, Vec<(Claim, CanaryName)>> {
        self.stop_waiting(canary);
        let others = wanted.iter().filter_map(|claim| {
            let holder = self.holders.get(claim).filter(|holder| *holder != canary)?;
            Some((claim.clone(), holder.clone()))
        });
        let others: Vec<(Claim, CanaryName)> = others.collect();
        if !others.is_empty() {
            for (claim, _) in &others {
                self.waiting.entry(claim.clone()).or_default().insert(canary.clone());
            }
            return Err(others);
        }
        let before = self.held.insert(canary.clone(), wanted.clone()).unwrap_or_default();
        for claim in wanted {
            self.holders.insert(claim.clone(), canary.clone());
        }
        Ok(self.give_up(before.difference(wanted)))
    }

    /// Has a canary evaluated again when one of these hosts is free, which it is served without.
    pub(super) fn wait(&mut self, canary: &CanaryName, hosts: &BTreeSet<String>, listeners: &[String]) {
        for (host, listener) in hosts.iter().flat_map(|host| listeners.iter().map(move |listener| (host, listener))) {
            let claim = Claim::Host { host: host_key(host), listener: listener.clone() };
            self.waiting.entry(claim).or_default().insert(canary.clone());
        }
    }

    /// Returns the names of a canary's Service that another one answers to, on any listener. It is served without them: nobody has
    /// written them, and in another namespace there may be a Service of the same name.
    pub(super) fn taken_names(&self, canary: &CanaryName, object: &Value) -> BTreeSet<String> {
        let own = own_hosts(object);
        let is_taken = |host: &String| {
            let key = host_key(host);
            let of_host = |claim: &Claim| matches!(claim, Claim::Host { host, .. } if *host == key);
            let first = Claim::Host { host: key.clone(), listener: String::new() };
            let holders = self.holders.range(first..).take_while(|(claim, _)| of_host(claim));
            !own.contains(&key) && holders.into_iter().any(|(_, holder)| holder != canary)
        };
        names_of_service(object, &canary.namespace).into_iter().filter(is_taken).collect()
    }

    /// Has a canary hold nothing. Returns those that waited for what it had.
    pub(super) fn release(&mut self, canary: &CanaryName) -> BTreeSet<CanaryName> {
        self.stop_waiting(canary);
        let held = self.held.remove(canary).unwrap_or_default();
        self.give_up(held.iter())
    }

    fn give_up<'a>(&mut self, claims: impl Iterator<Item = &'a Claim>) -> BTreeSet<CanaryName> {
        let mut waited = BTreeSet::new();
        for claim in claims {
            self.holders.remove(claim);
            waited.extend(self.waiting.get(claim).into_iter().flatten().cloned());
        }
        waited
    }

    fn stop_waiting(&mut self, canary: &CanaryName) {
        self.waiting.retain(|_, waiting| {
            waiting.remove(canary);
            !waiting.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> CanaryName {
        CanaryName::new("prod", name)
    }

    fn claims(canary: &str, hosts: &[&str]) -> BTreeSet<Claim> {
        let exposure =
            Exposure { hosts: hosts.iter().map(|it| (*it).to_owned()).collect(), listeners: vec!["public".to_owned()] };
        Claim::of(&name(canary), canary, &exposure)
    }

    #[test]
    fn who_has_it_keeps_it_and_who_waits_is_told_when_it_is_free() {
        let mut all = Claims::default();
        assert_eq!(all.take(&name("a"), &claims("a", &["Shop.local"])), Ok(BTreeSet::new()));
        let host = Claim::Host { host: "shop.local".into(), listener: "public".into() };
        assert_eq!(all.take(&name("b"), &claims("b", &["shop.local"])), Err(vec![(host.clone(), name("a"))]));
        assert_eq!(
            host.refused(&name("a")),
            "spec.service.hosts: a.prod answers to shop.local on public already, use another host"
        );
        assert_eq!(all.take(&name("a"), &claims("a", &["other.local"])), Ok(BTreeSet::from([name("b")])));
        assert_eq!(all.take(&name("b"), &claims("b", &["shop.local"])), Ok(BTreeSet::new()));
        assert!(all.take(&name("a"), &claims("a", &["shop.local"])).is_err());
        // It keeps what it had.
        assert!(all.take(&name("c"), &claims("c", &["other.local"])).is_err());
        assert_eq!(all.release(&name("a")), BTreeSet::from([name("c")]));
        assert_eq!(all.release(&name("b")), BTreeSet::new());
    }

    #[test]
    fn nothing_is_left_of_who_is_gone() {
        let mut all = Claims::default();
        assert!(all.take(&name("a"), &claims("a", &["x"])).is_ok());
        assert!(all.take(&name("b"), &claims("b", &["x"])).is_err());
        all.release(&name("b"));
        all.release(&name("a"));
        assert!(all.holders.is_empty() && all.held.is_empty() && all.waiting.is_empty());
    }
}
