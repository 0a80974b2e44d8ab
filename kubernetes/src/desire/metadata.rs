//! Which labels and annotations are copied, and which are not.

use std::collections::BTreeMap;

/// What a Service and its EndpointSlices say of the arm that they are for.
pub const ARM_LABEL: &str = "wingbeat.dev/arm";
/// What a Service and its EndpointSlices say of the Canary that they belong to.
pub const CANARY_LABEL: &str = "wingbeat.dev/canary";
/// Keys of Flux: what has them belongs to a Kustomization or a Helm release, which would delete or revert a copy.
const TOOLKIT: &str = "toolkit.fluxcd.io";
/// What keeps Flux from reverting objects that it finds in its own inventory.
pub(crate) const FLUX_ANNOTATIONS: [&str; 2] =
    ["kustomize.toolkit.fluxcd.io/reconcile", "helm.toolkit.fluxcd.io/driftDetection"];

/// Labels or annotations.
pub(super) type Texts = BTreeMap<String, String>;

/// Returns those that are not of Flux.
pub(super) fn without_toolkit(texts: Texts) -> Texts {
    texts.into_iter().filter(|(key, _)| !key.contains(TOOLKIT)).collect()
}

/// Returns those that a primary gets.
pub(super) fn copied(texts: Texts, prefixes: &[String]) -> Texts {
    let is_copied = |key: &str| prefixes.iter().any(|it| it == "*" || (!it.is_empty() && key.starts_with(it.as_str())));
    without_toolkit(texts).into_iter().filter(|(key, _)| is_copied(key)).collect()
}

/// Returns them with those that keep Flux away.
pub(super) fn left_by_flux(mut texts: Texts) -> Texts {
    texts.extend(FLUX_ANNOTATIONS.map(|key| (key.to_owned(), "disabled".to_owned())));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(keys: &[&str]) -> Texts {
        keys.iter().map(|key| ((*key).to_owned(), "x".to_owned())).collect()
    }

    #[test]
    fn only_prefixes_are_copied_and_nothing_of_flux() {
        let all = texts(&["team", "team/a", "cost", "kustomize.toolkit.fluxcd.io/name"]);
        for (prefixes, kept) in [
            (&[][..], &[][..]),
            (&[""], &[]),
            (&["team"], &["team", "team/a"]),
            (&["team/", "cost"], &["cost", "team/a"]),
            (&["*"], &["cost", "team", "team/a"]),
        ] {
            let prefixes: Vec<String> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
            assert_eq!(copied(all.clone(), &prefixes), texts(kept), "{prefixes:?}");
        }
    }
}
