//! The module that goes into every Envoy: what it exports and imports, and how large it is.

use std::collections::BTreeSet;

const MAX_BYTES: usize = 200 * 1024;

fn lines(list: &str) -> BTreeSet<String> {
    list.lines().map(str::to_owned).collect()
}

#[test]
fn exports_and_imports_are_the_checked_in_lists() {
    let module = walrus::Module::from_buffer(wingbeat::FILTER).expect("the filter is a wasm module");
    let exports: BTreeSet<String> = module.exports.iter().map(|export| export.name.clone()).collect();
    let imports: BTreeSet<String> =
        module.imports.iter().map(|import| format!("{}.{}", import.module, import.name)).collect();
    assert_eq!(exports, lines(include_str!("../../filter/exports.txt")));
    assert_eq!(imports, lines(include_str!("../../filter/imports.txt")));
}

#[test]
fn the_module_is_small() {
    assert!(wingbeat::FILTER.len() <= MAX_BYTES, "{} bytes", wingbeat::FILTER.len());
}
