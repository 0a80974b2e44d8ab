//! A spec that was right once, without what is missing since.

use serde_json::Value;

/// What is taken out of a spec, so that a canary that was served goes on to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relax {
    Nothing,
    /// Alerts: nobody is told of it.
    Alerts,
    /// Metrics that are defined elsewhere, too. Without them nothing is moved on, and harm is still acted on.
    Metrics,
}

impl Relax {
    /// Returns a spec without it.
    pub(super) fn apply(self, mut spec: Value) -> Value {
        let Some(fields) = spec.as_object_mut() else { return spec };
        let analysis = fields.get_mut("analysis").and_then(Value::as_object_mut);
        match (self, analysis) {
            (Self::Nothing, _) | (_, None) => {}
            (Self::Alerts, Some(analysis)) => drop(analysis.remove("alerts")),
            (Self::Metrics, Some(analysis)) => {
                analysis.remove("alerts");
                if let Some(metrics) = analysis.get_mut("metrics").and_then(Value::as_array_mut) {
                    metrics.retain(|metric| metric.get("templateRef").is_none());
                }
                fields.insert("suspend".to_owned(), Value::Bool(true));
            }
        }
        spec
    }
}
