//! Channels that people are alerted by.

use wingbeat_core::rollout::AlertLevel;

/// Where alerts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// The form.
    pub format: Format,
    /// Where it is.
    pub url: String,
    /// What a message is posted with as a bearer token.
    pub token: Option<String>,
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
    /// Discord, which takes Slack's at a path of their own.
    Discord,
    /// Rocket.Chat, which takes Slack's with colours of its own.
    Rocket,
    /// Microsoft Teams: a message card.
    Teams,
    /// Google Chat: a card.
    GoogleChat,
    /// Ours: `{"canary","namespace","severity","message","fields":[{"name","value"}]}`.
    Generic,
}

impl Format {
    /// Every form.
    pub const ALL: [Self; 6] = [Self::Slack, Self::Discord, Self::Rocket, Self::Teams, Self::GoogleChat, Self::Generic];

    /// Returns the `type` of an `AlertProvider` that has this form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Discord => "discord",
            Self::Rocket => "rocket",
            Self::Teams => "msteams",
            Self::GoogleChat => "gchat",
            Self::Generic => "generic",
        }
    }

    /// Returns the format of an `AlertProvider`'s `type`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }
}

impl Channel {
    /// Returns true if an alert of this level goes to the channel.
    pub fn takes(&self, level: AlertLevel) -> bool {
        level >= self.level
    }
}
