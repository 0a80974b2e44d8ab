//! Alerts: messages to people, in the form that their channel takes.

use serde_json::{Value, json};
use wingbeat_core::rollout::{Alert, AlertLevel};

/// Where alerts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// The form.
    pub format: Format,
    /// Where it is.
    pub url: String,
    /// Slack's channel.
    pub channel: String,
    /// The name that the message comes under.
    pub username: String,
    /// The least serious alerts that it gets.
    pub level: AlertLevel,
}

/// The form of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Slack, and what understands its messages.
    Slack,
    /// Ours: `{"canary","namespace","severity","message","fields":[{"name","value"}]}`.
    Generic,
}

/// What goes with an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its title.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Format {
    /// Returns the format of an `AlertProvider`'s `type`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "slack" => Some(Self::Slack),
            "generic" => Some(Self::Generic),
            _ => None,
        }
    }
}

impl Channel {
    /// Returns true if an alert of this level goes to the channel.
    pub fn takes(&self, level: AlertLevel) -> bool {
        level >= self.level
    }

    /// Returns the message.
    pub fn body(&self, namespace: &str, name: &str, alert: &Alert, fields: &[Field]) -> Value {
        match self.format {
            Format::Slack => {
                let color = match alert.level {
                    AlertLevel::Info | AlertLevel::Warn => "good",
                    AlertLevel::Error => "danger",
                };
                let fields: Vec<Value> = fields
                    .iter()
                    .map(|field| json!({"title": field.name, "value": field.value, "short": false}))
                    .collect();
                json!({
                    "channel": self.channel,
                    "username": self.username,
                    "icon_url": "",
                    "icon_emoji": ":rocket:",
                    "attachments": [{
                        "color": color,
                        "author_name": format!("{name}.{namespace}"),
                        "text": alert.text,
                        "mrkdwn_in": ["text"],
                        "fields": fields,
                    }],
                })
            }
            Format::Generic => {
                let fields: Vec<Value> =
                    fields.iter().map(|field| json!({"name": field.name, "value": field.value})).collect();
                json!({
                    "canary": name,
                    "namespace": namespace,
                    "severity": alert.level,
                    "message": alert.text,
                    "fields": fields,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(format: Format, level: AlertLevel) -> Channel {
        let (channel, username) = ("general".to_owned(), "wingbeat".to_owned());
        Channel { format, url: "http://127.0.0.1:9".to_owned(), channel, username, level }
    }

    #[test]
    fn slack_gets_flaggers_message() {
        let alert =
            Alert { level: AlertLevel::Error, text: "Failed checks threshold reached 2".into(), described: false };
        let field = Field { name: "Target".into(), value: "Deployment/backend.prod".into() };
        let body = channel(Format::Slack, AlertLevel::Info).body("prod", "backend", &alert, &[field]);
        assert_eq!(
            body,
            json!({
                "channel": "general", "username": "wingbeat", "icon_url": "", "icon_emoji": ":rocket:",
                "attachments": [{
                    "color": "danger", "author_name": "backend.prod", "text": "Failed checks threshold reached 2",
                    "mrkdwn_in": ["text"],
                    "fields": [{"title": "Target", "value": "Deployment/backend.prod", "short": false}],
                }],
            })
        );
    }

    #[test]
    fn channels_take_their_level_and_above() {
        let takes = |level| {
            [AlertLevel::Info, AlertLevel::Warn, AlertLevel::Error].map(|it| channel(Format::Generic, level).takes(it))
        };
        assert_eq!(takes(AlertLevel::Info), [true, true, true]);
        assert_eq!(takes(AlertLevel::Warn), [false, true, true]);
        assert_eq!(takes(AlertLevel::Error), [false, false, true]);
    }
}
