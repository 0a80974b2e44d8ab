//! Alerts: messages to people, in the form that their channel takes.

use serde_json::{Value, json};
use wingbeat_api::alert_provider::{Channel, Format};
use wingbeat_core::rollout::{Alert, AlertLevel, Plan, Strategy};
use wingbeat_core::weight::BasisPoints;

/// What goes with an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its title.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Returns the weights of a rollout: one number where each is a step more than the one before, but for the last, which may be less.
fn weights(plan: &Plan) -> String {
    let weights = (1..plan.positions()).filter_map(|place| Some(plan.share(place)?.shown()));
    // What is mirrored is no weight.
    let weights: Vec<BasisPoints> = weights.filter(|weight| !weight.is_zero()).collect();
    let (first, max) = (weights.first().copied().unwrap_or_default(), weights.last().copied().unwrap_or_default());
    let rising = (1_u16..).map(|step| first.get().saturating_mul(step).min(max.get()));
    if weights.iter().zip(rising).all(|(weight, by_step)| weight.get() == by_step) {
        return format!("Weight step: {first} max: {max}");
    }
    let weights: Vec<String> = weights.iter().map(ToString::to_string).collect();
    format!("Weight steps: {} max: {max}", weights.join(","))
}

/// Returns the plan in short, as Flagger puts it into alerts.
pub(crate) fn fields(plan: &Plan) -> Vec<Field> {
    let field = |name: &str, value: String| Field { name: name.to_owned(), value };
    let routing = match plan.strategy() {
        Strategy::AbTesting => "A/B Testing".to_owned(),
        Strategy::BlueGreen => "Blue/Green".to_owned(),
        Strategy::Weighted => weights(plan),
    };
    vec![
        field("Target", format!("{}/{}.{}", plan.kind(), plan.target(), plan.name().namespace)),
        field("Failed checks threshold", plan.threshold().to_string()),
        field("Progress deadline", format!("{}s", plan.deadline().as_millis() / 1_000)),
        field("Traffic routing", routing),
    ]
}

/// Returns where messages are sent.
pub fn target(channel: &Channel) -> String {
    let at = channel.url.trim_end_matches('/');
    match channel.format {
        Format::Discord if !at.ends_with("/slack") => format!("{at}/slack"),
        Format::Discord | Format::Slack | Format::Rocket | Format::Teams | Format::GoogleChat | Format::Generic => {
            channel.url.clone()
        }
    }
}

/// Returns the message.
pub fn body(channel: &Channel, namespace: &str, name: &str, alert: &Alert, fields: &[Field]) -> Value {
    let author = format!("{name}.{namespace}");
    let bad = match alert.level {
        AlertLevel::Info | AlertLevel::Warn => false,
        AlertLevel::Error => true,
    };
    match channel.format {
        Format::Slack | Format::Discord => slack(channel, &author, alert, fields, if bad { "danger" } else { "good" }),
        Format::Rocket => slack(channel, &author, alert, fields, if bad { "#FF0000" } else { "#0076D7" }),
        Format::Teams => json!({
            "@type": "MessageCard",
            "@context": "http://schema.org/extensions",
            "themeColor": if bad { "FF0000" } else { "0076D7" },
            "summary": author,
            "sections": [{
                "activityTitle": alert.text,
                "activitySubtitle": author,
                "facts": named(fields),
            }],
        }),
        Format::GoogleChat => {
            let text = |text: String| json!({"widgets": [{"textParagraph": {"text": text}}]});
            let strong = |text: &str| format!("<font color=#848484><strong>{}</strong></font>", escaped(text));
            let fields =
                fields.iter().map(|field| text(format!("{}<br>{}", escaped(&field.name), strong(&field.value))));
            let sections: Vec<Value> = [text(strong(&alert.text))].into_iter().chain(fields).collect();
            json!({"cards": [{
                "header": {"title": channel.username, "subtitle": author},
                "sections": sections,
            }]})
        }
        Format::Generic => json!({
            "canary": name,
            "namespace": namespace,
            "severity": alert.level,
            "message": alert.text,
            "fields": named(fields),
        }),
    }
}

fn slack(channel: &Channel, author: &str, alert: &Alert, fields: &[Field], color: &str) -> Value {
    let fields: Vec<Value> =
        fields.iter().map(|field| json!({"title": field.name, "value": field.value, "short": false})).collect();
    json!({
        "channel": channel.channel,
        "username": channel.username,
        "icon_url": "",
        "icon_emoji": ":rocket:",
        "attachments": [{
            "color": color,
            "author_name": author,
            "text": alert.text,
            "mrkdwn_in": ["text"],
            "fields": fields,
        }],
    })
}

fn named(fields: &[Field]) -> Vec<Value> {
    fields.iter().map(|field| json!({"name": field.name, "value": field.value})).collect()
}

/// Google Chat takes a kind of HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use wingbeat_core::id::CanaryName;
    use wingbeat_core::rollout::PlanInput;

    use super::*;

    fn channel(format: Format, level: AlertLevel) -> Channel {
        let (channel, username) = ("general".to_owned(), "wingbeat".to_owned());
        Channel { format, url: "http://127.0.0.1:9".to_owned(), token: None, channel, username, level }
    }

    #[test]
    fn slack_gets_flaggers_message() {
        let field = Field { name: "Target".into(), value: "Deployment/backend.prod".into() };
        for (level, color) in [(AlertLevel::Info, "good"), (AlertLevel::Warn, "good"), (AlertLevel::Error, "danger")] {
            let alert = Alert { level, text: "Failed checks threshold reached 2".into(), described: false };
            let fields = std::slice::from_ref(&field);
            let body = body(&channel(Format::Slack, AlertLevel::Info), "prod", "backend", &alert, fields);
            let expected = json!({
                "channel": "general", "username": "wingbeat", "icon_url": "", "icon_emoji": ":rocket:",
                "attachments": [{
                    "color": color, "author_name": "backend.prod", "text": "Failed checks threshold reached 2",
                    "mrkdwn_in": ["text"],
                    "fields": [{"title": "Target", "value": "Deployment/backend.prod", "short": false}],
                }],
            });
            assert_eq!(body, expected);
        }
    }

    #[test]
    fn the_weights_of_a_plan_are_in_flaggers_words() {
        let planned = |step_weight, step_weights: &[i64], max_weight| {
            let input = PlanInput {
                name: Some(CanaryName::new("prod", "backend")),
                target: "backend".into(),
                step_weight,
                step_weights: step_weights.to_vec(),
                max_weight,
                ..PlanInput::default()
            };
            weights(&Plan::try_new(&input).unwrap())
        };
        assert_eq!(planned(Some(5), &[], Some(50)), "Weight step: 5 max: 50");
        assert_eq!(planned(Some(20), &[], Some(50)), "Weight step: 20 max: 50", "the last one is less");
        assert_eq!(planned(None, &[1, 10, 50], None), "Weight steps: 1,10,50 max: 50");
    }

    #[test]
    fn each_format_has_its_form() {
        let alert = Alert { level: AlertLevel::Error, text: "p99 > 5ms".into(), described: false };
        let fields = [Field { name: "Target".into(), value: "Workload/backend.prod".into() }];
        let body = |format, level| {
            let alert = Alert { level, ..alert.clone() };
            body(&channel(format, AlertLevel::Info), "prod", "backend", &alert, &fields)
        };
        assert_eq!(body(Format::Discord, AlertLevel::Error), body(Format::Slack, AlertLevel::Error));
        let color = |level| body(Format::Rocket, level).pointer("/attachments/0/color").cloned().unwrap();
        assert_eq!((color(AlertLevel::Warn), color(AlertLevel::Error)), (json!("#0076D7"), json!("#FF0000")));
        assert_eq!(
            body(Format::Teams, AlertLevel::Error),
            json!({
                "@type": "MessageCard", "@context": "http://schema.org/extensions", "themeColor": "FF0000",
                "summary": "backend.prod",
                "sections": [{
                    "activityTitle": "p99 > 5ms", "activitySubtitle": "backend.prod",
                    "facts": [{"name": "Target", "value": "Workload/backend.prod"}],
                }],
            })
        );
        let text = |text: &str| json!({"widgets": [{"textParagraph": {"text": text}}]});
        assert_eq!(
            body(Format::GoogleChat, AlertLevel::Info),
            json!({"cards": [{
                "header": {"title": "wingbeat", "subtitle": "backend.prod"},
                "sections": [
                    text("<font color=#848484><strong>p99 &gt; 5ms</strong></font>"),
                    text("Target<br><font color=#848484><strong>Workload/backend.prod</strong></font>"),
                ],
            }]})
        );
    }

    #[test]
    fn discord_takes_slacks_messages_at_a_path_of_their_own() {
        let target = |url: &str| {
            let url = url.to_owned();
            target(&Channel { url, ..channel(Format::Discord, AlertLevel::Info) })
        };
        assert_eq!(target("https://discord.com/api/webhooks/1/x"), "https://discord.com/api/webhooks/1/x/slack");
        assert_eq!(target("https://discord.com/api/webhooks/1/x/slack"), "https://discord.com/api/webhooks/1/x/slack");
        assert_eq!(super::target(&channel(Format::Slack, AlertLevel::Info)), "http://127.0.0.1:9");
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
