//! Who is called and told: webhooks and alerts.

use std::time::Duration;

use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::{AlertLevel, HookInput};

use super::decoder::Decoder;
use super::yaml::Node;
use super::{metric, shape};
use crate::alert_provider::{Channel, Format};
use crate::hook::Hook;
use crate::platform::Api;

/// Flagger's default timeout of a hook.
const HOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Decodes one of `analysis.webhooks`.
pub(super) fn decode_hook(decoder: &mut Decoder, node: &Node, path: &str) -> Option<(HookInput, Hook)> {
    let mut fields = decoder.fields(node, path, &shape::WEBHOOK)?;
    let name = fields.need("name", "name the hook", decoder).and_then(|(node, path)| decoder.text(node, &path));
    let kind = fields.take("type").and_then(|(node, path)| decoder.text(node, &path)).unwrap_or_default();
    let url = fields
        .need("url", "say where it is", decoder)
        .and_then(|(node, path)| decoder.url(node, &path, "http://127.0.0.1:8090/").map(String::from));
    let timeout = fields.take("timeout").and_then(|(node, path)| {
        let timeout = decoder.limit(node, &path)?;
        if timeout.is_zero() {
            decoder.wrong(node.at, &path, "leaves no time to answer, use more than 0s, or leave it out for 10s");
        }
        Some(timeout)
    });
    let retries =
        fields.take("retries").and_then(|(node, path)| decoder.within(node, &path, 0..=shape::MAX_HOOK_RETRIES));
    let mute_alert = fields.take("muteAlert").and_then(|(node, path)| decoder.truth(node, &path)).unwrap_or(false);
    let metadata = fields.take("metadata").map(|(node, path)| decoder.text_map(node, &path)).unwrap_or_default();
    decoder.done(fields);
    let retries = retries.and_then(|retries| u32::try_from(retries).ok()).unwrap_or(0);
    let hook = Hook { url: url?, timeout: timeout.unwrap_or(HOOK_TIMEOUT), retries, metadata };
    Some((HookInput { name: name?, kind, mute_alert }, hook))
}

/// Decodes one of `analysis.alerts`.
pub(super) fn decode_alert(
    decoder: &mut Decoder,
    node: &Node,
    path: &str,
    namespace: &str,
) -> Option<(CanaryName, AlertLevel)> {
    let mut fields = decoder.fields(node, path, &shape::ALERT)?;
    let severity = fields.take("severity").and_then(|(node, path)| {
        // Flagger takes nothing for "not set".
        let text = decoder.text(node, &path).filter(|text| !text.is_empty())?;
        decoder.one_of(
            node.at,
            &path,
            &text,
            &[("info", AlertLevel::Info), ("warn", AlertLevel::Warn), ("error", AlertLevel::Error)],
        )
    });
    let provider = fields.need("providerRef", "name the AlertProvider", decoder);
    let provider = provider.and_then(|(node, path)| {
        metric::named(decoder, ("AlertProvider", &shape::PROVIDER_REFERENCE), node, &path, namespace)
    });
    decoder.done(fields);
    Some((provider?, severity.unwrap_or(AlertLevel::Info)))
}

/// Decodes the spec of an `AlertProvider`.
pub(super) fn decode_channel(decoder: &mut Decoder, node: &Node) -> Option<Channel> {
    let mut fields = decoder.fields(node, "spec", &shape::ALERT_PROVIDER)?;
    let formats = Format::ALL.map(|format| (format.as_str(), format));
    let format = fields.need("type", "use slack, discord, rocket, msteams, gchat or generic", decoder);
    let format = format.and_then(|(node, path)| {
        let text = decoder.text(node, &path)?;
        decoder.one_of(node.at, &path, &text, &formats)
    });
    // With Flagger, a Secret may say it.
    let url = fields.need_here("address", "say where messages go", decoder);
    let url = url.and_then(|(node, path)| decoder.url(node, &path, "https://hooks.slack.com/…").map(String::from));
    let channel = fields.take("channel").and_then(|(node, path)| decoder.text(node, &path));
    let username = fields.take("username").and_then(|(node, path)| decoder.text(node, &path));
    decoder.done(fields);
    let sender = match decoder.terms.api {
        Api::Wingbeat => "wingbeat",
        Api::FlaggerV1Beta1 | Api::FlaggerV1Alpha3 => "flagger",
    };
    Some(Channel {
        format: format?,
        url: url?,
        token: None,
        channel: channel.unwrap_or_else(|| "general".to_owned()),
        username: username.unwrap_or_else(|| sender.to_owned()),
        level: AlertLevel::Info,
    })
}
