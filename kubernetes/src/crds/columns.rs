//! What `kubectl get` prints of an object.

use serde_json::{Value, json};
use wingbeat_api::Api;

/// A column.
struct Column {
    name: &'static str,
    /// What kubectl takes the value for.
    value: &'static str,
    path: &'static str,
    /// Whether it takes `-o wide` to see it.
    is_wide: bool,
}

impl Column {
    const fn of(name: &'static str, path: &'static str) -> Self {
        Self { name, value: "string", path, is_wide: false }
    }

    const fn wide(name: &'static str, value: &'static str, path: &'static str) -> Self {
        Self { name, value, path, is_wide: true }
    }
}

/// Those of Flagger, in its order. `$` is the path of `analysis`.
const CANARY: [Column; 10] = [
    Column::of("Status", ".status.phase"),
    Column::of("Weight", ".status.canaryWeight"),
    Column::wide("Suspended", "boolean", ".spec.suspend"),
    Column::wide("FailedChecks", "string", ".status.failedChecks"),
    Column::wide("Interval", "string", "$.interval"),
    Column::wide("Mirror", "boolean", "$.mirror"),
    Column::wide("StepWeight", "string", "$.stepWeight"),
    Column::wide("StepWeights", "string", "$.stepWeights"),
    Column::wide("MaxWeight", "string", "$.maxWeight"),
    Column::of("LastTransitionTime", ".status.lastTransitionTime"),
];
/// What each of these asks.
const METRIC_TEMPLATE: [Column; 1] = [Column::of("Provider", ".spec.provider.type")];
/// What each of these is.
const ALERT_PROVIDER: [Column; 1] = [Column::of("Type", ".spec.type")];
/// Where each of these listens.
const LISTENER: [Column; 2] = [
    Column::of("Address", ".spec.address"),
    Column { name: "Port", value: "integer", path: ".spec.port", is_wide: false },
];
/// Who wrote each of these, as far as the record tells.
const CANARY_STATE: [Column; 3] = [
    Column { name: "Format", value: "integer", path: ".status.format", is_wide: false },
    Column { name: "Epoch", value: "integer", path: ".status.epoch", is_wide: false },
    Column { name: "Age", value: "date", path: ".metadata.creationTimestamp", is_wide: false },
];

/// Returns the columns of a kind, as a definition has them.
pub(super) fn of_kind(kind: &str, api: Api) -> Vec<Value> {
    let columns: &[Column] = match kind {
        "Canary" => &CANARY,
        "MetricTemplate" => &METRIC_TEMPLATE,
        "AlertProvider" => &ALERT_PROVIDER,
        "Listener" => &LISTENER,
        "CanaryState" => &CANARY_STATE,
        _ => &[],
    };
    let analysis = match api {
        Api::Wingbeat | Api::FlaggerV1Beta1 => ".spec.analysis",
        Api::FlaggerV1Alpha3 => ".spec.canaryAnalysis",
    };
    let rendered = columns.iter().map(|column| {
        let path = column.path.replace('$', analysis);
        let mut rendered = json!({"name": column.name, "type": column.value, "jsonPath": path});
        if let Value::Object(fields) = &mut rendered
            && column.is_wide
        {
            fields.insert("priority".to_owned(), json!(1));
        }
        rendered
    });
    rendered.collect()
}
