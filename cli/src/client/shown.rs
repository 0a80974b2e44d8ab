//! Canaries and events, as people read them.

use serde_json::Value;
use wingbeat_api::number::{Number, rounded};
use wingbeat_control::view::{ArmView, CanaryView, EventView};

use super::api::lenient;
use crate::output::{complain, table};

/// Returns the canaries as this version knows them. What it cannot read of one is told, and hides nothing else.
pub(super) fn known(canaries: &[Value]) -> anyhow::Result<Vec<CanaryView>> {
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or("?").to_owned();
    let mut known = Vec::new();
    for value in canaries {
        let (read, told) = lenient(value);
        let (namespace, name) = (text(value, "namespace"), text(value, "name"));
        if let Some(told) = told {
            complain(&format!(
                "{namespace}/{name} is not shown in full, the server is of another version ({told}); --output json \
                 shows it as it is"
            ))?;
        }
        known.push(read.unwrap_or_else(|| CanaryView {
            namespace,
            name,
            phase: "?".to_owned(),
            ..CanaryView::default()
        }));
    }
    Ok(known)
}

pub(super) fn summary(canaries: &[CanaryView], all_namespaces: bool, with_header: bool) -> String {
    let mut rows = Vec::new();
    if with_header {
        rows.push(["NAMESPACE", "NAME", "STATUS", "WEIGHT", "LASTTRANSITIONTIME"].map(str::to_owned).to_vec());
    }
    rows.extend(canaries.iter().map(|canary| {
        vec![
            canary.namespace.clone(),
            canary.name.clone(),
            canary.phase.clone(),
            canary.weight.to_string(),
            canary.last_transition_time.clone(),
        ]
    }));
    if !all_namespaces {
        rows.iter_mut().for_each(|row| drop(row.remove(0)));
    }
    table(&rows)
}

/// Returns an event as a line.
pub(super) fn line(event: &EventView) -> String {
    let EventView { t, kind, namespace, name, .. } = event;
    format!("{t}  {kind:<7}  {namespace}/{name}  {}\n", counted(event))
}

/// Returns the text of an event, with how often it happened.
fn counted(event: &EventView) -> String {
    match event.count {
        0 | 1 => event.message.clone(),
        count => format!("{} (x{count} up to {})", event.message, event.last),
    }
}

pub(super) fn description(canary: &CanaryView, events: &[EventView]) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![
        ("Name", canary.name.clone()),
        ("Namespace", canary.namespace.clone()),
        ("Target", canary.target.clone()),
        ("Phase", canary.phase.clone()),
        ("Canary Weight", canary.weight.to_string()),
        ("Failed Checks", canary.failed_checks.to_string()),
        ("Iterations", canary.iterations.to_string()),
        ("Primary", canary.primary_revision.clone()),
        ("Canary", or_none(&canary.canary_revision)),
        ("Judge", canary.mode.clone()),
    ];
    // After the end, a condition says how it ended.
    if let Some(verdict) = canary.verdict.as_ref().filter(|_| canary.is_judged()) {
        rows.push(("Verdict", verdict.kind.clone()));
        rows.push(("Because", verdict.reason.clone()));
        rows.push(("Compared", verdict.comparison.clone()));
    }
    if let Some(evidence) = &canary.evidence {
        rows.push(("Evidence", format!("{:.2} of {:.2}", evidence.harm, evidence.decisive)));
    }
    let shares = canary.alpha.shares.iter().map(|of| format!("{} {:.1} %", of.signal, of.share * 100.0));
    let shares: Vec<String> = shares.collect();
    if !shares.is_empty() {
        rows.push(("Alpha", format!("{} ({})", rounded(canary.alpha.total), shares.join(", "))));
    }
    if !canary.alpha.outside.is_empty() {
        rows.push(("Outside Alpha", canary.alpha.outside.join(", ")));
    }
    for (metric, value) in &canary.metrics {
        rows.push(("Metric", format!("{metric} {}", in_words(*value))));
    }
    let mut out = table(&rows.into_iter().map(|(name, value)| vec![format!("{name}:"), value]).collect::<Vec<_>>());
    let arms = canary.measured();
    out.push_str("Arms:\n");
    let header = ["", "REQUESTS", "ERRORS", "OVERDUE", "RATE/S", "P50", "P90", "P99"].map(str::to_owned).to_vec();
    out.push_str(&table(&[header, arm_row("primary", &arms.primary), arm_row("canary", &arms.canary)]));
    out.push_str("Conditions:\n");
    let conditions = canary.conditions.iter().map(|condition| {
        vec![
            format!("  {}", condition.kind),
            condition.status.clone(),
            condition.reason.clone(),
            condition.message.clone(),
        ]
    });
    out.push_str(&table(&conditions.collect::<Vec<_>>()));
    out.push_str("Events:\n");
    let events = events.iter().map(|event| vec![format!("  {}", event.kind), event.t.clone(), counted(event)]);
    out.push_str(&table(&events.collect::<Vec<_>>()));
    out
}

/// Returns what somebody else measured, as people write numbers. What is not finite is written as Prometheus does.
fn in_words(number: Number) -> String {
    Number::new(rounded(number.get())).to_string()
}

fn arm_row(name: &str, arm: &ArmView) -> Vec<String> {
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}ms"));
    vec![
        format!("  {name}"),
        arm.requests.to_string(),
        arm.errors.to_string(),
        arm.overdue.to_string(),
        format!("{:.0}", arm.rate),
        ms(arm.p50_ms),
        ms(arm.p90_ms),
        ms(arm.p99_ms),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_measure_is_shown_without_the_noise_of_floats() {
        let metrics = [("lag".to_owned(), Number::new(0.1 + 0.2)), ("lost".to_owned(), Number::new(f64::NAN))].into();
        let text = description(&CanaryView { metrics, ..CanaryView::default() }, &[]);
        let shown: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Metric:")).map(str::trim).collect();
        assert_eq!(shown, ["lag 0.3", "lost NaN"]);
    }

    #[test]
    fn columns_are_kubectls() {
        let canary = CanaryView {
            namespace: "prod".into(),
            name: "backend".into(),
            phase: "Progressing".into(),
            weight: 5.0,
            last_transition_time: "2026-11-23T10:00:00Z".into(),
            ..CanaryView::default()
        };
        insta::assert_snapshot!(summary(std::slice::from_ref(&canary), false, true), @r"
        NAME      STATUS        WEIGHT   LASTTRANSITIONTIME
        backend   Progressing   5        2026-11-23T10:00:00Z
        ");
        insta::assert_snapshot!(summary(&[canary], true, true), @r"
        NAMESPACE   NAME      STATUS        WEIGHT   LASTTRANSITIONTIME
        prod        backend   Progressing   5        2026-11-23T10:00:00Z
        ");
    }
}
