//! What is stored and recorded is named as it was: names of the code may change, those on disk may not.

use serde_json::{Value, json};
use wingbeat_core::analysis::judge::{Judge, JudgeConfig};
use wingbeat_core::analysis::window::Batch;
use wingbeat_core::id::NodeId;
use wingbeat_core::rollout::MetricSource;
use wingbeat_core::time::Timestamp;

#[test]
fn a_batch_keeps_its_names_in_recordings() {
    let written = serde_json::to_value(Batch::default()).unwrap();
    for name in ["end", "span", "warmup", "overdue", "judged", "direct", "seat", "by_seat"] {
        assert!(written.get(name).is_some(), "{name}: {written}");
    }
}

#[test]
fn evidence_of_earlier_versions_is_read_and_written_under_its_names() {
    let mut judge = Judge::new(JudgeConfig::default());
    judge.node_group(&NodeId::new("edge-1"), Timestamp::from_millis(1_000));
    let mut written = serde_json::to_value(&judge).unwrap();
    assert!(written["seats"]["nodes"]["edge-1"].get("seat").is_some(), "{}", written["seats"]);
    assert!(written["presence"].get("seats").is_some(), "{}", written["presence"]);
    for limit in ["Document", "Before", "MustDetect", "MostBearable"] {
        written["limit_from"] = json!(limit);
        let read: Judge = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written, "{limit}");
    }
}

#[test]
fn a_plan_keeps_its_names_in_states() {
    let names = ["Filters", "Elsewhere"].map(|name| Value::String(name.to_owned()));
    let read = names.clone().map(|name| serde_json::from_value::<MetricSource>(name).unwrap());
    assert_eq!(read, [MetricSource::Filters, MetricSource::External]);
    assert_eq!(read.map(|source| serde_json::to_value(source).unwrap()), names);
}
