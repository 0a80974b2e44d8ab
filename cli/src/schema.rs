//! `wingbeat schema`: what editors complete and check documents by.

use clap::ValueEnum;
use wingbeat_api::Api;
use wingbeat_api::shape::{self, Document};

use crate::output::{self, Outcome, Wrong};

/// Of which kind.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: wingbeat schema Canary > canary.json")]
pub(crate) struct Args {
    /// The kind; without it, of all kinds and APIs, for files that hold several
    kind: Option<String>,
    /// The API that documents of the kind are written for
    #[arg(long, value_enum, default_value = "wingbeat.dev/v1alpha1")]
    api_version: ApiVersion,
}

/// An API, by its name in documents.
#[derive(Debug, Clone, Copy)]
struct ApiVersion(Api);

impl ValueEnum for ApiVersion {
    fn value_variants<'a>() -> &'a [Self] {
        const { &[Self(Api::Wingbeat), Self(Api::FlaggerV1Beta1), Self(Api::FlaggerV1Alpha3)] }
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.as_str()))
    }
}

/// Prints the schema.
pub(crate) fn print(args: &Args) -> anyhow::Result<Outcome> {
    let schema = match &args.kind {
        None => shape::bundle(),
        Some(kind) => shape::schema(&document(kind, args.api_version.0)?),
    };
    output::print(&format!("{schema:#}\n"))?;
    Ok(Outcome::Done)
}

/// Returns the kind of a name, in any case of its letters.
fn document(kind: &str, api: Api) -> Result<Document, Wrong> {
    let of_api = || Document::ALL.into_iter().filter(|document| document.api == api);
    let found = of_api().find(|document| document.kind.eq_ignore_ascii_case(kind));
    found.ok_or_else(|| {
        let known: Vec<&str> = of_api().map(|document| document.kind).collect();
        Wrong(format!("there is no {kind} in {}, use one of {}", api.as_str(), known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_their_names() {
        assert_eq!(document("canary", Api::FlaggerV1Beta1).unwrap().kind, "Canary");
        let wrong = document("Listener", Api::FlaggerV1Beta1).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "there is no Listener in flagger.app/v1beta1, use one of Canary, MetricTemplate, AlertProvider"
        );
    }
}
