//! What is written at constants: a number without its unit, and without what happens at it, is a riddle.

use std::path::Path;

use anyhow::bail;

use crate::lengths::Source;

/// The crates that users run. Of others, tests and benches, a name may do.
const PRODUCT: [&str; 10] =
    ["core", "api", "proto", "filter", "xds-server", "control", "controller", "kubernetes", "demo", "cli"];

/// Fails if constants of the product have no documentation, and names them.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let sources = Source::all(root)?;
    let product = sources.iter().filter(|source| is_of_product(&source.path) && !source.is_of_tests());
    let bare: Vec<String> = product
        .flat_map(|source| {
            let path = source.path.display();
            undocumented(&source.text).into_iter().map(move |(line, name)| format!("{path}:{line}: {name}"))
        })
        .collect();
    if !bare.is_empty() {
        bail!("say above each what it is, its unit, and what happens at it:\n{}", bare.join("\n"));
    }
    Ok(())
}

/// Returns true for sources of the crates that users run.
pub(crate) fn is_of_product(path: &Path) -> bool {
    let mut parts = path.components().map(std::path::Component::as_os_str);
    let (of, folder) = (parts.next(), parts.next());
    PRODUCT.iter().any(|name| of.is_some_and(|of| of == *name)) && folder.is_some_and(|folder| folder == "src")
}

/// Returns line and name of constants without a `///` above them and their attributes, tests at the end aside. What a trait
/// asks for is documented there, and the kind of a field of a document is a description.
fn undocumented(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (mut is_documented, mut in_impl_of_trait) = (false, false);
    for (number, line) in (1..).zip(text.lines()).take_while(|(_, line)| *line != "#[cfg(test)]") {
        if line.starts_with("impl") {
            in_impl_of_trait = line.contains(" for ");
        } else if line.starts_with('}') {
            in_impl_of_trait = false;
        }
        let code = line.trim_start();
        if let Some(name) =
            constant(code).filter(|_| !is_documented && !in_impl_of_trait && !code.contains(": Kind = "))
        {
            found.push((number, name.to_owned()));
        }
        is_documented = code.starts_with("///") || (is_documented && code.starts_with("#["));
    }
    found
}

/// Returns the name of the constant that a line declares.
fn constant(code: &str) -> Option<&str> {
    let code = match code.strip_prefix("pub") {
        Some(rest) => rest.trim_start_matches(|c: char| c == '(' || c == ')' || c.is_ascii_lowercase()).trim_start(),
        None => code,
    };
    let (name, _) = code.strip_prefix("const ").or_else(|| code.strip_prefix("static "))?.split_once(':')?;
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    (name != "_" && name.chars().all(is_name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_without_a_word_are_found() {
        let text = "/// Said.\nconst A: u8 = 1;\nconst B: u8 = 2;\n/// Said.\n#[cfg(unix)]\npub(crate) const C: u8 = 3;\n\
                    pub(super) static D: u8 = 4;\nconst _: () = ();\nconst fn e() {}\nimpl X for Y {\n    const F: u8 = 6;\n}\n\
                    impl Y {\n    const G: u8 = 7;\n}\nlet h = const { 8 };\n#[cfg(test)]\nconst I: u8 = 9;\n";
        let found = undocumented(text);
        assert_eq!(found, [(3, "B".to_owned()), (7, "D".to_owned()), (14, "G".to_owned())]);
    }

    #[test]
    fn the_product_is_what_users_run() {
        for (path, is) in [
            ("core/src/lib.rs", true),
            ("cli/src/serve.rs", true),
            ("cli/tests/serve.rs", false),
            ("xtask/src/main.rs", false),
        ] {
            assert_eq!(is_of_product(Path::new(path)), is, "{path}");
        }
    }
}
