//! Commands, as an annotation gives them.

use serde_json::Value;
use wingbeat_controller::verb::Verb;
use wingbeat_core::foreign::ForeignText;

/// Where a command is written, like `abort/incident-17`: a verb, and what tells it from the same at another time.
const COMMAND_ANNOTATION: &str = "wingbeat.dev/command";
/// Bytes of a command's id, as over HTTP.
const MAX_COMMAND_ID_LEN: usize = 128;
/// Returns the command that a Canary's annotation gives, as it is written.
pub(super) fn given(canary: &Value) -> Option<&str> {
    canary.pointer("/metadata/annotations")?.get(COMMAND_ANNOTATION)?.as_str()
}

/// Reads a command, or says what is wrong with it.
pub(super) fn parse(given: &str) -> Result<(Verb, String), String> {
    let (verb, id) = given.split_once('/').unwrap_or((given, ""));
    let is_id = (1..=MAX_COMMAND_ID_LEN).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    match Verb::parse(verb) {
        Some(verb) if is_id => Ok((verb, id.to_owned())),
        Some(verb) => Err(format!(
            "metadata.annotations[{COMMAND_ANNOTATION}]: {} lacks an id of 1 to {MAX_COMMAND_ID_LEN} printable characters, write \
             {}/ANYTHING-UNIQUE",
            verb.as_str(),
            verb.as_str()
        )),
        None => {
            let verbs = Verb::ALL.map(Verb::as_str).join(", ");
            let verb = ForeignText::new(verb, MAX_COMMAND_ID_LEN);
            Err(format!("metadata.annotations[{COMMAND_ANNOTATION}]: there is no verb {verb}; there are {verbs}"))
        }
    }
}
