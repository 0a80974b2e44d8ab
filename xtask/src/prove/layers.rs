//! The shape of the code: layers, circles between files, and what is largest.

use std::path::Path;

use syn::visit::{self, Visit};

use crate::lengths::Source;
use crate::prove::told::told;
use crate::run::say;
use crate::{circles, layers};

pub(super) const NAME: &str = "layers";

const SHOWN: usize = 10;

/// Prints the circles, the largest files and the types with most fields; true if there is no circle and the layers are kept.
pub(super) fn run(root: &Path) -> anyhow::Result<bool> {
    let sources = Source::all(root)?;
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut fields = Fields::default();
    for source in sources.iter().filter(|source| !source.is_of_tests()) {
        lines.push((source.lines(), source.path.display().to_string()));
        fields.file = source.path.display().to_string();
        fields.visit_file(&syn::parse_file(&source.text)?);
    }
    for (what, mut counted) in [("lines without tests", lines), ("fields", fields.counted)] {
        counted.sort_by(|a, b| b.cmp(a));
        for (count, place) in counted.iter().take(SHOWN) {
            say(&format!("    {count:>4} {what}: {place}"))?;
        }
    }
    let found = circles::all(root)?;
    for circle in &found {
        say(&format!("    in a circle: {circle}"))?;
    }
    let layers = layers::check(root);
    let kept = layers.as_ref().map_or_else(ToString::to_string, |()| "kept".to_owned());
    let figures = format!("layers {kept}, {} circles between files", found.len());
    told(NAME, "cargo xtask lint", &figures, "kept, none", layers.is_ok() && found.is_empty())
}

/// How many fields each type of a file has.
#[derive(Default)]
struct Fields {
    file: String,
    counted: Vec<(usize, String)>,
}

impl<'ast> Visit<'ast> for Fields {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.counted.push((item.fields.len(), format!("{} in {}", item.ident, self.file)));
        visit::visit_item_struct(self, item);
    }
}
