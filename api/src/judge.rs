//! How a canary is judged: `analysis.judge`.

use wingbeat_core::analysis::judge::{JudgeConfig, Mode, SinglePodPolicy};
use wingbeat_core::rollout::{NoData, PlanInput};
use wingbeat_xds_server::model::http::HealthChecks;

use super::decoder::{Decoder, Fields};
use super::duration::span;
use super::shape;
use super::yaml::Node;

/// Decodes the section over what is there. Returns the mode, if it names one.
pub(super) fn decode(
    decoder: &mut Decoder,
    node: &Node,
    path: &str,
    judge: &mut JudgeConfig,
    plan: &mut PlanInput,
    health_checks: &mut HealthChecks,
) -> Option<Mode> {
    let mut fields = decoder.fields(node, path, &shape::JUDGE)?;
    let mode = fields.take("mode").and_then(|(node, path)| {
        let text = decoder.text(node, &path)?;
        let modes = [("sequential", Mode::Sequential), ("guard", Mode::Guard), ("thresholds", Mode::Thresholds)];
        decoder.one_of(node.at, &path, &text, &modes)
    });
    let mut between = |fields: &mut Fields<'_>, name: &'static str, low: f64, high: f64, into: &mut f64| {
        let Some((node, path)) = fields.take(name) else { return };
        match decoder.float(node, &path) {
            Some(value) if (low..=high).contains(&value) => *into = value,
            Some(value) => decoder.wrong(node.at, &path, format!("{value} is out of range, use {low} to {high}")),
            None => {}
        }
    };
    between(&mut fields, "alpha", 1e-9, 0.5, &mut judge.alpha);
    between(&mut fields, "errorRatio", 1.0, 100.0, &mut judge.error_ratio);
    if let Some((node, path)) = fields.take("mustDetect")
        && let Some(mut must) = decoder.fields(node, &path, &shape::MUST_DETECT)
    {
        let mut factor = |must: &mut Fields<'_>, name: &'static str, into: &mut f64| {
            let Some((node, path)) = must.take(name) else { return };
            match decoder.float(node, &path) {
                Some(value) if value > 1.0 => *into = value,
                Some(value) => decoder.wrong(node.at, &path, format!("{value} is no regression, use more than 1")),
                None => {}
            }
        };
        factor(&mut must, "errors", &mut judge.must_detect.errors);
        factor(&mut must, "latency", &mut judge.must_detect.latency);
        if let Some((node, path)) = must.take("errorsAtLeast") {
            judge.must_detect.errors_at_least =
                decoder.percent(node, &path).unwrap_or(judge.must_detect.errors_at_least);
        }
        decoder.done(must);
    }
    if let Some((node, path)) = fields.take("errorFloor") {
        judge.error_floor = decoder.percent(node, &path).unwrap_or(judge.error_floor);
    }
    if let Some((node, path)) = fields.take("latency") {
        decode_latency(decoder, node, &path, judge);
    }
    if let Some((node, path)) = fields.take("minRequests") {
        let requests = decoder.within(node, &path, 0..=shape::MAX_REQUESTS);
        judge.min_requests = requests.and_then(|it| u64::try_from(it).ok()).unwrap_or(judge.min_requests);
    }
    if let Some((node, path)) = fields.take("warmup") {
        judge.warmup = decoder.duration(node, &path).map_or(judge.warmup, span);
    }
    if let Some((node, path)) = fields.take("earlyPromotion") {
        judge.early_promotion = decoder.truth(node, &path).unwrap_or(false);
    }
    plan.no_data = fields.take("noData").and_then(|(node, path)| {
        let text = decoder.text(node, &path)?;
        decoder.one_of(node.at, &path, &text, &[("hold", NoData::Hold), ("fail", NoData::Fail)])
    });
    let on_one_pod = fields.take("onOnePod").and_then(|(node, path)| {
        let text = decoder.text(node, &path)?;
        let words = [("suspect", SinglePodPolicy::Suspect), ("rollback", SinglePodPolicy::Rollback)];
        decoder.one_of(node.at, &path, &text, &words)
    });
    judge.on_one_pod = on_one_pod.unwrap_or(judge.on_one_pod);
    if let Some((node, path)) = fields.take("healthChecks")
        && let Some(mut fields) = decoder.fields(node, &path, &shape::HEALTH_CHECKS)
    {
        for (name, into) in [("userAgents", &mut health_checks.user_agents), ("paths", &mut health_checks.paths)] {
            let Some((node, path)) = fields.take(name) else { continue };
            into.clear();
            for (node, path) in decoder.list(node, &path) {
                let text = decoder.text(node, &path).unwrap_or_default();
                let right = !text.is_empty() && text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
                if !right || (name == "paths" && !text.starts_with('/')) {
                    let like = if name == "paths" { "a path like /healthz" } else { "how it begins, like kube-probe/" };
                    decoder.wrong(node.at, &path, format!("{text:?} tells no health check, write {like}"));
                }
                into.push(text);
            }
        }
        decoder.done(fields);
    }
    decoder.done(fields);
    mode
}

fn decode_latency(decoder: &mut Decoder, node: &Node, path: &str, judge: &mut JudgeConfig) {
    let Some(mut fields) = decoder.fields(node, path, &shape::LATENCY) else { return };
    if let Some((node, path)) = fields.take("quantiles") {
        let listed = decoder.list(node, &path);
        let quantiles: Vec<f64> = listed.into_iter().filter_map(|(node, path)| decoder.float(node, &path)).collect();
        if quantiles.is_empty() || quantiles.iter().any(|q| *q <= 0.0 || *q >= 1.0) {
            decoder.wrong(node.at, &path, "has to list numbers between 0 and 1, like [0.5, 0.99]");
        } else {
            judge.latency.quantiles = quantiles;
        }
    }
    if let Some((node, path)) = fields.take("tolerance") {
        judge.latency.tolerance = decoder.percent(node, &path).unwrap_or(judge.latency.tolerance);
    }
    if let Some((node, path)) = fields.take("floor") {
        judge.latency.floor = decoder.duration(node, &path).map_or(judge.latency.floor, span);
    }
    decoder.done(fields);
}
