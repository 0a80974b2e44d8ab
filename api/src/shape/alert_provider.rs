//! The `AlertProvider`.

use super::cluster::SECRET_REFERENCE;
use super::field::{Field, Kind, Object, Text};

/// What a channel of Flagger's may have that needs something that this server has not.
pub(crate) const NOT_CARRIED_OUT: &str = "is not carried out by this server yet, leave it out";

const URL: Kind = Kind::Text(Text::Form("URL of http or https"));

/// `spec` of an `AlertProvider`.
pub(crate) static ALERT_PROVIDER: Object = Object::of("AlertProvider", &[
    Field::new(
        "type",
        Kind::Choice(&["slack", "discord", "rocket", "msteams", "gchat", "generic"]),
        "The form of its messages; `generic` is JSON with `canary`, `namespace`, `severity`, `message` and `fields`.",
    )
    .required()
    .example("slack"),
    Field::new("address", URL, "Where messages are posted. A secret: it is never logged.")
        .required_here()
        .optional_in_cluster()
        .example("https://hooks.slack.com/services/T0/B0/x"),
    Field::new("channel", Kind::TEXT, "The channel of Slack and Rocket.Chat.").default("general").example("on-call"),
    Field::new("username", Kind::TEXT, "The name that messages come under.")
        .default("wingbeat")
        .flaggers_default("flagger")
        .example("rollouts"),
    Field::refused("secretRef", "A Secret with the address.", NOT_CARRIED_OUT)
        .in_cluster(Kind::Object(&SECRET_REFERENCE)),
    Field::refused("proxy", "A proxy on the way to the address.", NOT_CARRIED_OUT).in_cluster(Kind::TEXT),
]);
