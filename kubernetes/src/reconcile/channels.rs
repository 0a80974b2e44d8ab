//! Secrets that AlertProviders refer to: where messages go is for those alone who may read Secrets.
//!
//! What is kept of one is its address and its token, as long as a Canary's alerts go there.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wingbeat_api::object::Object;
use wingbeat_core::id::CanaryName;

use crate::object::{list, text};
use crate::world::{Kind, ObjectKey, World};

/// The fields of a Canary that name AlertProviders.
const ANALYSES: [&str; 2] = ["/spec/analysis", "/spec/canaryAnalysis"];

/// What is known of the Secrets of AlertProviders.
#[derive(Debug, Default)]
pub(super) struct ChannelSecrets {
    wanted: BTreeMap<CanaryName, BTreeSet<ObjectKey>>,
    /// Those that were read, or could not be.
    known: BTreeMap<ObjectKey, Known>,
}

#[derive(Debug, PartialEq, Eq)]
enum Known {
    Is(ChannelSecret),
    /// It cannot be used, for this reason.
    Unusable(String),
}

#[derive(Debug, PartialEq, Eq)]
struct ChannelSecret {
    address: String,
    token: Option<String>,
}

/// An AlertProvider, with what its Secret holds.
#[derive(Debug)]
pub(super) enum Provider {
    Complete(Object),
    /// Its Secret is being read.
    Pending,
    /// Its Secret cannot be used, for this reason.
    Incomplete(String),
}

impl ChannelSecrets {
    /// Notes which Secrets a Canary's alerts need from now on, and returns those that are to be read.
    pub(super) fn depend(&mut self, canary: &CanaryName, wanted: BTreeSet<ObjectKey>) -> Vec<ObjectKey> {
        let unread: Vec<ObjectKey> = wanted.iter().filter(|key| !self.known.contains_key(*key)).cloned().collect();
        let before =
            if wanted.is_empty() { self.wanted.remove(canary) } else { self.wanted.insert(canary.clone(), wanted) };
        for key in before.into_iter().flatten() {
            if !self.is_wanted(&key) {
                self.known.remove(&key);
            }
        }
        unread
    }

    /// Returns true if alerts of somebody need a Secret.
    pub(super) fn is_wanted(&self, key: &ObjectKey) -> bool {
        key.kind == Kind::Secret && self.wanted.values().any(|wanted| wanted.contains(key))
    }

    /// Returns true while a Canary's alerts need a Secret that is being read.
    pub(super) fn is_pending(&self, canary: &CanaryName) -> bool {
        self.wanted.get(canary).into_iter().flatten().any(|key| !self.known.contains_key(key))
    }

    /// Takes a Secret as it was read; nothing: it is not there. Returns true if that is news.
    pub(super) fn take(&mut self, key: &ObjectKey, object: Option<&Value>) -> bool {
        let missing = || Known::Unusable("is not there, make it".to_owned());
        self.put(key, object.map_or_else(missing, read))
    }

    /// Takes it that a Secret cannot be read. What was read before counts. Returns true if that is news.
    pub(super) fn fail(&mut self, key: &ObjectKey, why: &str) -> bool {
        let is_known = matches!(self.known.get(key), Some(Known::Is(_)));
        !is_known && self.put(key, Known::Unusable(format!("cannot be read: {why}")))
    }

    fn put(&mut self, key: &ObjectKey, known: Known) -> bool {
        let is_news = self.known.get(key) != Some(&known);
        self.known.insert(key.clone(), known);
        is_news
    }

    /// Returns an AlertProvider with what its Secret holds.
    pub(super) fn complete(&self, provider: &Value) -> Provider {
        let Some(key) = secret_of(provider) else { return Provider::Complete(Object::read(provider)) };
        match self.known.get(&key) {
            None => Provider::Pending,
            Some(Known::Unusable(why)) => Provider::Incomplete(format!("Secret {}.{} {why}", key.name, key.namespace)),
            Some(Known::Is(ChannelSecret { address, token })) => {
                let mut provider = provider.clone();
                if let Some(spec) = provider.get_mut("spec").and_then(Value::as_object_mut) {
                    spec.remove("secretRef");
                    spec.insert("address".to_owned(), json!(address));
                }
                Provider::Complete(Object::read(&provider).with_token(token.clone()))
            }
        }
    }
}

/// Returns the Secrets that a Canary's alerts need.
pub(super) fn wanted(canary: &Value, name: &CanaryName, world: &World) -> BTreeSet<ObjectKey> {
    let alerts = ANALYSES.iter().flat_map(|analysis| list(canary, &format!("{analysis}/alerts")));
    let providers = alerts.filter_map(|alert| provider_of(alert, &name.namespace));
    providers.filter_map(|key| secret_of(&world.get(&key)?)).collect()
}

/// Returns a Canary without the alerts that go to these AlertProviders.
pub(super) fn without_alerts(canary: &Value, namespace: &str, providers: &BTreeSet<ObjectKey>) -> Value {
    let mut canary = canary.clone();
    for analysis in ANALYSES {
        if let Some(alerts) = canary.pointer_mut(&format!("{analysis}/alerts")).and_then(Value::as_array_mut) {
            alerts.retain(|alert| provider_of(alert, namespace).is_none_or(|key| !providers.contains(&key)));
        }
    }
    canary
}

fn provider_of(alert: &Value, namespace: &str) -> Option<ObjectKey> {
    let namespace = text(alert, "/providerRef/namespace").filter(|it| !it.is_empty()).unwrap_or(namespace);
    Some(ObjectKey::new(Kind::AlertProvider, namespace, text(alert, "/providerRef/name")?))
}

/// Returns the Secret that an AlertProvider refers to. It is in the same namespace.
fn secret_of(provider: &Value) -> Option<ObjectKey> {
    let name = text(provider, "/spec/secretRef/name").filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(Kind::Secret, text(provider, "/metadata/namespace").unwrap_or_default(), name))
}

/// Reads the fields that Flagger reads. What is in them is in no message.
fn read(secret: &Value) -> Known {
    let of = |field: &str| {
        let bytes = STANDARD.decode(text(secret, &format!("/data/{field}"))?).ok()?;
        let value = String::from_utf8(bytes).ok()?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    };
    let Some(address) = of("address") else {
        return Known::Unusable("has no address in its data, add where messages are posted".to_owned());
    };
    let provider = json!({
        "apiVersion": "wingbeat.dev/v1alpha1", "kind": "AlertProvider", "metadata": {"name": "a", "namespace": "a"},
        "spec": {"type": "generic", "address": address},
    });
    if Object::read(&provider).errors().is_empty() {
        Known::Is(ChannelSecret { address, token: of("token") })
    } else {
        Known::Unusable("has an address that is no URL of http or https, mend it".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(fields: &[(&str, &str)]) -> Value {
        let data = fields.iter().map(|(field, value)| ((*field).to_owned(), json!(STANDARD.encode(value))));
        json!({"data": data.collect::<serde_json::Map<String, Value>>()})
    }

    #[test]
    fn a_secret_has_an_address_and_no_message_has_it() {
        let usable = |address: &str, token: Option<&str>| {
            Known::Is(ChannelSecret { address: address.to_owned(), token: token.map(str::to_owned) })
        };
        // Whoever writes one with `echo` writes an end of line, too.
        let read_fields = |fields: &[(&str, &str)]| read(&secret(fields));
        assert_eq!(read_fields(&[("address", "https://a/b\n")]), usable("https://a/b", None));
        let both = read_fields(&[("address", "https://a/b"), ("token", "t")]);
        assert_eq!(both, usable("https://a/b", Some("t")));
        for wrong in [&[("token", "s3cr3t")][..], &[("address", "s3cr3t")], &[("address", "ftp://s3cr3t")]] {
            let Known::Unusable(why) = read_fields(wrong) else { panic!("{wrong:?} is of no use") };
            assert!(why.contains("address") && !why.contains("s3cr3t"), "{why}");
        }
    }

    #[test]
    fn what_nobody_needs_is_forgotten() {
        let (mut secrets, key) = (ChannelSecrets::default(), ObjectKey::new(Kind::Secret, "ops", "slack"));
        let [one, other] = ["one", "other"].map(|name| CanaryName::new("prod", name));
        for canary in [&one, &other] {
            assert_eq!(secrets.depend(canary, BTreeSet::from([key.clone()])), std::slice::from_ref(&key));
        }
        assert!(secrets.is_pending(&one) && secrets.take(&key, Some(&secret(&[("address", "https://a/")]))));
        assert!(!secrets.is_pending(&one) && !secrets.fail(&key, "timeout"), "what was read counts");
        secrets.depend(&one, BTreeSet::new());
        assert!(secrets.is_wanted(&key) && !secrets.known.is_empty());
        secrets.depend(&other, BTreeSet::new());
        assert!(!secrets.is_wanted(&key) && secrets.known.is_empty() && secrets.wanted.is_empty());
    }
}
