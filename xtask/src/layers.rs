//! Which crate may depend on what. Where a rule of the architecture can be a failing build, it is one.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::run::{cargo, output};

/// What a crate must not depend on, directly or through others.
struct Layer {
    package: &'static str,
    /// Of ours.
    may_use: &'static [&'static str],
    never: &'static [&'static str],
}

const LAYERS: [Layer; 9] = [
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
    Layer { package: "wingbeat-api", may_use: &["wingbeat-core", "wingbeat-xds-server"], never: &PURE },
    Layer {
        package: "wingbeat-control",
        may_use: &["wingbeat-core", "wingbeat-api", "wingbeat-proto", "wingbeat-xds-server"],
        never: &PURE,
    },
    Layer {
        package: "wingbeat-controller",
        may_use: &["wingbeat-core", "wingbeat-api", "wingbeat-proto", "wingbeat-xds-server", "wingbeat-control"],
        never: &["wingbeat-demo", "kube"],
    },
    Layer {
        package: "wingbeat-kubernetes",
        may_use: &[
            "wingbeat-core",
            "wingbeat-api",
            "wingbeat-proto",
            "wingbeat-xds-server",
            "wingbeat-control",
            "wingbeat-controller",
        ],
        never: &["wingbeat-demo"],
    },
    // It is no client of ours that says whether a cluster is there.
    Layer { package: "wingbeat-test-cluster", may_use: &[], never: &["kube", "envoy-types"] },
];

/// What nothing depends on that decides and does not act.
const PURE: [&str; 12] = [
    "tokio",
    "tonic",
    "hyper",
    "axum",
    "reqwest",
    "kube",
    "redb",
    "getrandom",
    "envoy-types",
    "prometheus-client",
    "notify",
    "mio",
];

/// Crates whose source names no clock, no thread, no task and nothing of the system.
const WITHOUT_IO: [&str; 4] = ["core", "api", "control", "kubernetes"];

/// What of them acts: as thin as it can be, since no test of it is told the time.
const EDGES: [&str; 2] = ["kubernetes/src/edge", "kubernetes/src/edge.rs"];

/// What such a source does not name.
const IO: [&str; 13] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::io",
    "SystemTime",
    "Instant::now",
    "println!",
    "eprintln!",
    "tokio::",
    "kube::",
    "async fn",
];

/// Checks every crate, alone: what another one brings along hides nothing.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let mut broken = Vec::new();
    for layer in &LAYERS {
        let args = ["tree", "--locked", "--edges", "normal", "--prefix", "none", "--package", layer.package];
        broken.extend(violations(layer, &output(&mut cargo(root, &args))?));
    }
    for (file, text) in
        WITHOUT_IO.iter().map(|name| sources(&root.join(name).join("src"))).collect::<Result<Vec<_>, _>>()?.concat()
    {
        let shown = file.strip_prefix(root).unwrap_or(&file);
        if EDGES.iter().any(|edge| shown.starts_with(edge)) {
            continue;
        }
        let shown = shown.display().to_string();
        broken.extend(io_in(&shown, &text));
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

/// Returns the sources below a folder, but for tests.
fn sources(folder: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            found.append(&mut sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            found.push((path, text));
        }
    }
    Ok(found)
}

/// Returns what a source names that only those who act may. Its tests, at its end, may name anything.
fn io_in(file: &str, text: &str) -> Vec<String> {
    let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").enumerate();
    let code = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
    let named = code.filter_map(|(number, line)| Some((number, IO.into_iter().find(|name| line.contains(name))?)));
    named.map(|(number, name)| format!("{file}:{}: {name} is for crates that act", number + 1)).collect()
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

    #[test]
    fn io_in_a_crate_without_is_named() {
        let text = "// std::fs is not used\nlet now = Instant::now();\n#[cfg(test)]\nuse std::fs;\n";
        assert_eq!(io_in("control/src/x.rs", text), ["control/src/x.rs:2: Instant::now is for crates that act"]);
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
