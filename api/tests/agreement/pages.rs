//! Documents that people copy: those of the examples and pages.

use wingbeat_api::yaml;

use super::*;

/// Returns the YAML in a page: fenced blocks, and what shells are told to write to files.
fn blocks(page: &str) -> Vec<&str> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced
        .filter_map(|block| {
            let (language, text) = block.split_once('\n')?;
            match language {
                "yaml" => Some(text),
                _ => Some(text.split_once("<<'END'\n")?.1.split_once("\nEND\n")?.0),
            }
        })
        .collect()
}

#[test]
fn documents_that_people_copy_are_right_by_decoder_and_schema() {
    let root = format!("{}/..", env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).unwrap();
    let examples = ["backend", "gated", "insiders"].map(|name| read(&format!("deploy/examples/{name}.yaml")));
    let pages = ["README.md", "docs/tutorial.md", "docs/operating.md", "docs/documents.md"].map(read);
    let texts = examples.iter().map(String::as_str).chain(pages.iter().flat_map(|page| blocks(page)));
    let validator = jsonschema::validator_for(&wingbeat_api::shape::bundle()).unwrap();
    let mut count = 0;
    // Some blocks show a part of a document.
    for text in texts.filter(|text| text.contains("apiVersion:")) {
        let documents = yaml::parse(text).unwrap();
        let set = Set::of(&BTreeMap::from([("a.yaml".to_owned(), text.to_owned())]));
        assert_eq!(set.report.errors, [], "{text}");
        for document in documents.iter().map(yaml::Node::to_json) {
            let told: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
            assert_eq!(told, Vec::<String>::new(), "{document}");
            count += 1;
        }
    }
    assert!(count >= 14, "{count} documents");
    println!("{count} documents of examples and pages are right by decoder and schema");
}
