//! Which crate may depend on what. Where a rule of the architecture can be a failing build, it is one.

use std::path::Path;

use anyhow::bail;

use crate::run::{cargo, output};

/// What a crate must not depend on, directly or through others.
struct Layer {
    package: &'static str,
    /// Of ours.
    may_use: &'static [&'static str],
    never: &'static [&'static str],
}

const LAYERS: [Layer; 5] = [
    Layer {
        package: "wingbeat-core",
        may_use: &[],
        never: &["tokio", "tonic", "prost", "kube", "rand", "getrandom", "std"],
    },
    Layer { package: "wingbeat-proto", may_use: &["wingbeat-core"], never: &["tonic", "tokio"] },
    Layer {
        package: "wingbeat-filter",
        may_use: &["wingbeat-core", "wingbeat-proto"],
        never: &["tonic", "tokio", "envoy-types"],
    },
    Layer { package: "wingbeat-xds-server", may_use: &["wingbeat-core", "wingbeat-proto"], never: &["kube"] },
    Layer {
        package: "wingbeat-controller",
        may_use: &["wingbeat-core", "wingbeat-proto", "wingbeat-xds-server"],
        never: &["wingbeat-demo"],
    },
];

/// Checks every crate, alone: what another one brings along hides nothing.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let mut broken = Vec::new();
    for layer in &LAYERS {
        let args = ["tree", "--locked", "--edges", "normal", "--prefix", "none", "--package", layer.package];
        broken.extend(violations(layer, &output(&mut cargo(root, &args))?));
    }
    if !broken.is_empty() {
        bail!("{}", broken.join("\n"));
    }
    Ok(())
}

fn violations(layer: &Layer, tree: &str) -> Vec<String> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let forbidden = names.filter(|name| {
        let ours = name.starts_with("wingbeat") && *name != layer.package && !layer.may_use.contains(name);
        ours || layer.never.contains(name)
    });
    let mut forbidden: Vec<String> =
        forbidden.map(|name| format!("{} must not depend on {name}", layer.package)).collect();
    forbidden.sort();
    forbidden.dedup();
    forbidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_dependency_is_named() {
        let layer = Layer { package: "wingbeat-filter", may_use: &["wingbeat-core"], never: &["tokio"] };
        let tree = "wingbeat-filter v0.1.0 (/x)\nwingbeat-core v0.1.0\nlibm v0.2.16\n";
        assert_eq!(violations(&layer, tree), Vec::<String>::new());
        let tree = format!("{tree}tokio v1.0.0\nwingbeat-controller v0.1.0\ntokio v1.0.0 (*)\n");
        assert_eq!(
            violations(&layer, &tree),
            ["wingbeat-filter must not depend on tokio", "wingbeat-filter must not depend on wingbeat-controller"]
        );
    }

    /// A dependency that is added anywhere below a crate shows in its tree, and is a violation; what is there now is none.
    #[test]
    fn every_rule_can_fail() {
        for layer in &LAYERS {
            let ours = LAYERS.iter().map(|other| other.package).chain(["wingbeat", "wingbeat-demo", "wingbeat-fuzz"]);
            let forbidden = ours.filter(|name| *name != layer.package && !layer.may_use.contains(name));
            for name in forbidden.chain(layer.never.iter().copied()) {
                let tree = format!("{} v0.1.0 (/x)\nserde v1.0.0\n{name} v1.2.3\n", layer.package);
                assert_eq!(violations(layer, &tree), [format!("{} must not depend on {name}", layer.package)]);
            }
            let tree: String = layer.may_use.iter().flat_map(|name| [name, " v0.1.0 (/x)\n"]).collect();
            assert_eq!(violations(layer, &tree), Vec::<String>::new());
        }
    }
}
