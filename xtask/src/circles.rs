//! Files of a crate that need each other: where there is a circle, none of them can be understood, tested or moved without
//! the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail};
use syn::visit::{self, Visit};

use crate::lengths::Source;

/// The path of a module within its crate.
type Module = Vec<String>;

/// What the files of a crate name of each other.
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// Fails if there is a circle, and names its files.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let circles = all(root)?;
    if !circles.is_empty() {
        bail!("files in circles:\n{}", circles.join("\n"));
    }
    Ok(())
}

/// Returns the circles of all crates, each as a line.
pub(crate) fn all(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut crates: BTreeMap<String, Vec<(Module, syn::File)>> = BTreeMap::new();
    for source in Source::all(root)?.iter().filter(|source| !source.is_of_tests()) {
        let Some((name, module)) = place(&source.path) else { continue };
        let parsed = syn::parse_file(&source.text).with_context(|| source.path.display().to_string())?;
        crates.entry(name).or_default().push((module, parsed));
    }
    let lines = crates.iter().flat_map(|(name, files)| {
        let line = move |circle: BTreeSet<Module>| {
            let files: Vec<String> = circle.iter().map(shown).collect();
            format!("{name}: {}", files.join(", "))
        };
        circles(&graph(files)).into_iter().map(line)
    });
    Ok(lines.collect())
}

/// Returns the crate of a file, and its module; nothing for what is no part of a library or program of ours.
fn place(path: &Path) -> Option<(String, Module)> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let src = parts.iter().position(|part| *part == "src")?;
    let (name, module) = (parts.get(..src)?.join("/"), parts.get(src + 1..)?);
    let (last, folders) = module.split_last()?;
    let mut module: Module = folders.iter().map(|part| (*part).to_owned()).collect();
    let last = last.strip_suffix(".rs")?;
    if !(module.is_empty() && matches!(last, "lib" | "main")) {
        module.push(last.to_owned());
    }
    Some((name, module))
}

fn shown(module: &Module) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("/") }
}

fn graph(files: &[(Module, syn::File)]) -> Graph {
    let modules: BTreeSet<&Module> = files.iter().map(|(module, _)| module).collect();
    let named = |(module, file): &(Module, syn::File)| {
        let mut names = Names::of(module, &modules);
        names.visit_file(file);
        names.note_handed_on();
        let needed = names.paths.into_iter().filter_map(|path| {
            let longest = (0..=path.len()).rev().map(|length| path.iter().take(length).cloned().collect::<Module>());
            longest.into_iter().find(|prefix| modules.contains(prefix))
        });
        (module.clone(), needed.filter(|needed| needed != module).collect())
    };
    files.iter().map(named).collect()
}

/// The paths that a file names within its crate, from the crate's root.
struct Names<'a> {
    module: &'a Module,
    modules: &'a BTreeSet<&'a Module>,
    paths: BTreeSet<Module>,
    /// What is handed on under a name: needed only if the file uses the name itself.
    handed_on: Vec<(String, Vec<String>)>,
    /// The words that paths of the file begin with.
    words: BTreeSet<String>,
}

impl<'a> Names<'a> {
    fn of(module: &'a Module, modules: &'a BTreeSet<&'a Module>) -> Self {
        Self { module, modules, paths: BTreeSet::new(), handed_on: Vec::new(), words: BTreeSet::new() }
    }

    /// Notes what is handed on and used, too.
    fn note_handed_on(&mut self) {
        for (name, path) in std::mem::take(&mut self.handed_on) {
            if self.words.contains(&name) {
                self.note(&path);
            }
        }
    }

    /// Notes a path, if it is one within the crate.
    fn note(&mut self, path: &[String]) {
        let (mut from, mut rest) = match path.split_first() {
            Some((first, rest)) if first == "crate" => (Module::new(), rest),
            Some((first, rest)) if first == "self" => (self.module.clone(), rest),
            Some((first, _)) if first == "super" => (self.module.clone(), path),
            // A module below this one may be named without a word before it.
            Some((first, _)) if self.modules.contains(&[&self.module[..], std::slice::from_ref(first)].concat()) => {
                (self.module.clone(), path)
            }
            Some(_) | None => return,
        };
        while let Some((_, others)) = rest.split_first().filter(|(first, _)| *first == "super") {
            from.pop();
            rest = others;
        }
        from.extend(rest.iter().cloned());
        self.paths.insert(from);
    }
}

/// Returns what a declaration names, each path with the name that it has in the file.
fn leaves(before: &[String], tree: &syn::UseTree) -> Vec<(String, Vec<String>)> {
    let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
    match tree {
        syn::UseTree::Path(path) => leaves(&with(&path.ident), &path.tree),
        syn::UseTree::Name(name) if name.ident == "self" => {
            vec![(before.last().cloned().unwrap_or_default(), before.to_vec())]
        }
        syn::UseTree::Name(name) => vec![(name.ident.to_string(), with(&name.ident))],
        syn::UseTree::Rename(rename) => vec![(rename.rename.to_string(), with(&rename.ident))],
        syn::UseTree::Glob(_) => vec![("*".to_owned(), before.to_vec())],
        syn::UseTree::Group(group) => group.items.iter().flat_map(|item| leaves(before, item)).collect(),
    }
}

fn is_of_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if is_of_tests(&item.attrs) {
            return;
        }
        let leaves = leaves(&[], &item.tree);
        match item.vis {
            syn::Visibility::Inherited => leaves.iter().for_each(|(_, path)| self.note(path)),
            syn::Visibility::Public(_) | syn::Visibility::Restricted(_) => self.handed_on.extend(leaves),
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_of_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_of_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.note(&segments);
        }
        self.words.extend(segments.into_iter().next());
        visit::visit_path(self, path);
    }

    /// `pub(in crate::engine)` says who may use it, not what it uses.
    fn visit_visibility(&mut self, _visibility: &'ast syn::Visibility) {}
}

/// Returns the largest sets of modules each of which needs all others of its set, directly or not.
fn circles(graph: &Graph) -> Vec<BTreeSet<Module>> {
    let needs: BTreeMap<&Module, BTreeSet<&Module>> =
        graph.keys().map(|module| (module, reached(graph, module))).collect();
    let circle = |module: &Module| -> BTreeSet<Module> {
        let others = needs.get(module).into_iter().flatten();
        others
            .filter(|other| needs.get(*other).is_some_and(|back| back.contains(module)))
            .map(|other| (*other).clone())
            .collect()
    };
    let found: BTreeSet<BTreeSet<Module>> = graph.keys().map(circle).filter(|circle| !circle.is_empty()).collect();
    found.into_iter().collect()
}

/// Returns all that a module needs, directly or not.
fn reached<'a>(graph: &'a Graph, from: &'a Module) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        open.extend(graph.get(module).into_iter().flatten().filter(|needed| reached.insert(*needed)));
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles_of(files: &[(&str, &str)]) -> Vec<BTreeSet<Module>> {
        let parsed = files.iter().map(|(path, text)| {
            let (_, module) = place(Path::new(path)).unwrap();
            (module, syn::parse_file(text).unwrap())
        });
        circles(&graph(&parsed.collect::<Vec<_>>()))
    }

    #[test]
    fn files_that_need_each_other_are_found_however_they_say_it() {
        let set = |names: &[&str]| -> BTreeSet<Module> {
            names.iter().map(|name| name.split('/').map(str::to_owned).collect()).collect()
        };
        let through_a_third = [
            ("x/src/lib.rs", "mod a; mod b; mod c;"),
            ("x/src/a.rs", "use crate::{b::B, d};"),
            ("x/src/b.rs", "fn f() { super::c::g() }"),
            ("x/src/c.rs", "use super::a::{self, A as Other};"),
        ];
        assert_eq!(circles_of(&through_a_third), [set(&["a", "b", "c"])]);
        for named in ["use self::b::B;", "use b::B;", "fn f() { b::g() }"] {
            let with_its_child = [("x/src/a.rs", named), ("x/src/a/b.rs", "impl super::A {}")];
            assert_eq!(circles_of(&with_its_child), [set(&["a", "a/b"])], "{named}");
        }
    }

    #[test]
    fn what_is_only_handed_on_is_not_needed() {
        let child = ("x/src/a/b.rs", "impl super::A {}");
        assert!(circles_of(&[("x/src/a.rs", "pub use b::B;"), child]).is_empty());
        assert_eq!(circles_of(&[("x/src/a.rs", "pub use b::B; fn f() -> B { todo!() }"), child]).len(), 1);
    }

    #[test]
    fn what_tests_need_makes_no_circle() {
        let files = [
            ("x/src/a.rs", "use crate::b::B; #[cfg(test)] mod tests { use super::*; }"),
            ("x/src/b.rs", "pub(in crate::a) struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
        ];
        assert!(circles_of(&files).is_empty());
    }
}
