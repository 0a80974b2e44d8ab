//! CanaryStates: written by compare-and-swap, owned by their Canary, and left alone where they cannot be read.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use wingbeat_control::store::{Entries, Store, StoreError, Write};
use wingbeat_controller::disk::Disk;
use wingbeat_core::id::CanaryName;
use wingbeat_core::time::Span;
use wingbeat_kubernetes::crds::Group;
use wingbeat_kubernetes::edge::lease::lease;
use wingbeat_kubernetes::edge::state::{ClusterStore, Noted, States};

use crate::support::{Place, until};

async fn states(place: &Place, epoch: u64) -> Arc<States> {
    let permits = place.permit(epoch, Span::from_secs(600));
    let groups = [Group::Wingbeat, Group::Flagger];
    Arc::new(States::new(place.connect().await, place.clock, permits, &groups, Some(&place.namespace)))
}

/// A record with what an API server would not keep as a number.
fn record(share: f64) -> Vec<u8> {
    json!({"version": 3, "content": {"id": u64::MAX, "share": share, "none": null}}).to_string().into_bytes()
}

fn name(place: &Place, name: &str) -> CanaryName {
    CanaryName::new(place.namespace.as_str(), name)
}

fn put(name: &CanaryName, share: f64) -> Vec<(CanaryName, Option<Vec<u8>>)> {
    vec![(name.clone(), Some(record(share)))]
}

fn entries(records: &[(&CanaryName, f64)]) -> Entries {
    records.iter().map(|(name, share)| (format!("canary/{}/{}", name.namespace, name.name), record(*share))).collect()
}

#[tokio::test]
async fn real_kubernetes_a_decision_is_read_as_it_was_written_and_goes_with_its_canary() {
    let Some(place) = Place::begin("real_kubernetes_a_decision").await else { return };
    place.create(&[place.canary("a"), place.canary("b")]).await;
    let (a, b) = (name(&place, "a"), name(&place, "b"));
    let first = states(&place, 4).await;
    assert_eq!(first.load().await.expect("loaded"), Entries::new());
    let notes = Map::from_iter([("scaledFor".to_owned(), json!("1/Progressing"))]);
    assert_eq!(first.note(&a, &notes).await.expect("noted"), Noted::Pending);
    first.commit(&[put(&a, 0.1), put(&b, 0.2)].concat()).await.expect("written");
    first.commit(&put(&a, 0.300_000_000_000_000_04)).await.expect("written");
    let fence = Map::from_iter([("fence".to_owned(), json!({"uid": "u", "generation": 7, "replicaSet": "2"}))]);
    assert_eq!(first.note(&a, &fence).await.expect("noted"), Noted::Written);
    let stored = place.get("canarystates", "a").await;
    assert_eq!(stored["metadata"]["ownerReferences"][0]["name"], "a");
    let version = &stored["metadata"]["resourceVersion"];
    // The same again is no write.
    first.commit(&put(&a, 0.300_000_000_000_000_04)).await.expect("written");
    assert_eq!(&place.get("canarystates", "a").await["metadata"]["resourceVersion"], version);

    let second = states(&place, 5).await;
    assert_eq!(second.load().await.expect("loaded"), entries(&[(&a, 0.300_000_000_000_000_04), (&b, 0.2)]));
    assert_eq!(second.max_epoch().await, Some(4));
    assert_eq!(second.notes(&a).await, notes.into_iter().chain(fence).collect());

    place.kubectl(&["delete", "canaries.wingbeat.dev", "a"]).await;
    until("its state goes with it", async || {
        let names = place.kubectl(&["get", "canarystates", "--output=jsonpath={.items[*].metadata.name}"]).await;
        (names == "b").then_some(())
    })
    .await;
    // Nothing is kept of who is not there.
    first.commit(&put(&a, 0.5)).await.expect_err("it was deleted by somebody else");
    first.commit(&put(&a, 0.5)).await.expect("there is nothing to keep");
    second.commit(&[(b, None)]).await.expect("deleted");
    assert_eq!(place.kubectl(&["get", "canarystates", "--output=name"]).await, "");
}

#[tokio::test]
async fn real_kubernetes_a_conflict_says_who_and_a_later_leader_ends_it() {
    let Some(place) = Place::begin("real_kubernetes_a_conflict").await else { return };
    place.create(&[place.canary("a"), place.canary("b")]).await;
    let (a, b) = (name(&place, "a"), name(&place, "b"));
    let first = states(&place, 1).await;
    first.commit(&[put(&a, 0.1), put(&b, 0.1)].concat()).await.expect("written");

    // Somebody edits it: what is wanted is written the next time.
    place.kubectl(&["annotate", "canarystates", "a", "team=x", "--field-manager=kubectl-edit"]).await;
    let error = first.commit(&put(&a, 0.2)).await.expect_err("a conflict");
    assert!(
        matches!(&error, StoreError::Conflict { object, by } if *object == format!("CanaryState a.{}", place.namespace) && by.contains("kubectl-edit")),
        "{error}"
    );
    // It holds up no other one.
    first.commit(&put(&b, 0.2)).await.expect("written");
    first.commit(&put(&a, 0.2)).await.expect("written");
    assert_eq!(place.get("canarystates", "a").await["metadata"]["annotations"]["team"], "x");

    // A later leader raises the epoch of what is not at rest before anything else.
    let second = states(&place, 2).await;
    second.load().await.expect("loaded");
    second.raise(std::slice::from_ref(&a)).await.expect("raised");
    let error = first.commit(&put(&a, 0.3)).await.expect_err("it is late");
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    for _ in 0..2 {
        let error = first.commit(&put(&a, 0.3)).await.expect_err("it is late").to_string();
        assert!(error.contains("epoch 2"), "{error}");
    }
    second.commit(&put(&a, 0.4)).await.expect("written");
    assert_eq!(states(&place, 3).await.load().await.expect("loaded"), entries(&[(&a, 0.4), (&b, 0.2)]));
}

#[tokio::test]
async fn real_kubernetes_what_a_later_version_wrote_is_left_alone_and_others_go_on() {
    let Some(place) = Place::begin("real_kubernetes_a_later_version").await else { return };
    place.create(&[place.canary("a"), place.canary("b")]).await;
    let (a, b) = (name(&place, "a"), name(&place, "b"));
    let first = states(&place, 1).await;
    first.commit(&[put(&a, 0.1), put(&b, 0.1)].concat()).await.expect("written");
    let later = json!({"status": {"format": 9, "record": "of a later version"}}).to_string();
    place.kubectl(&["patch", "canarystates", "a", "--subresource=status", "--type=merge", "--patch", &later]).await;

    let states = states(&place, 1).await;
    assert_eq!(states.load().await.expect("loaded"), entries(&[(&b, 0.1)]));
    let refused = states.refused().await;
    assert!(refused[&a].starts_with("CanaryState a.") && refused[&a].contains("format 9"), "{refused:?}");
    let error = states.commit(&[put(&a, 0.2), put(&b, 0.2)].concat()).await.expect_err("refused").to_string();
    assert!(error.contains("CanaryState a.") && error.contains("format 9"), "{error}");
    assert_eq!(place.get("canarystates", "a").await["status"]["record"], "of a later version");
    assert_eq!(states.load().await.expect("loaded"), entries(&[(&b, 0.2)]));
}

#[tokio::test]
async fn real_kubernetes_without_a_permit_nothing_is_decided() {
    let Some(place) = Place::begin("real_kubernetes_nothing_is_decided").await else { return };
    place.create(&[place.canary("a")]).await;
    let a = name(&place, "a");
    let permits = place.permit(1, Span::ZERO);
    let states = States::new(place.connect().await, place.clock, permits, &[Group::Wingbeat], Some(&place.namespace));
    let error = states.commit(&put(&a, 0.1)).await.expect_err("no permit").to_string();
    assert!(error.contains("does not lead"), "{error}");
    assert_eq!(place.kubectl(&["get", "canarystates", "--output=name"]).await, "");
}

/// As the committer's thread uses it: records in the cluster, all else on the disk.
#[tokio::test]
async fn real_kubernetes_the_engines_entries_are_divided_and_come_back_whole() {
    let Some(place) = Place::begin("real_kubernetes_the_engines_entries").await else { return };
    place.create(&[place.canary("a")]).await;
    let a = name(&place, "a");
    let folder = tempfile::tempdir().expect("a folder");
    let open = |path: &Path, states: Arc<States>, runtime: Handle| {
        let disk: Box<dyn Store> = Box::new(Disk::open(path).expect("a disk"));
        ClusterStore::new(states, &lease("wingbeat", "wingbeat"), disk, runtime)
    };
    let key = format!("canary/{}/a", place.namespace);
    let ledger = Write::Put("ledger/1".into(), b"counts".to_vec());
    let writes = vec![Write::Put(key.clone(), record(0.1)), ledger];
    let (path, first, runtime) = (folder.path().to_owned(), states(&place, 1).await, Handle::current());
    let written = tokio::task::spawn_blocking(move || {
        let mut store = open(&path, first, runtime);
        store.commit(&writes).expect("stored");
        // Batches that failed in part are committed one by one.
        store.commit(&writes[..1]).expect("stored");
    });
    written.await.expect("no panic");
    let (path, second, runtime) = (folder.path().to_owned(), states(&place, 2).await, Handle::current());
    let loaded = tokio::task::spawn_blocking(move || open(&path, second, runtime).load().expect("loaded"));
    let expected = Entries::from([(key, record(0.1)), ("ledger/1".to_owned(), b"counts".to_vec())]);
    let mut loaded = loaded.await.expect("no panic");
    // Of the installation, whichever disk it is: proxies that one leader configured are the next one's.
    let lineage = loaded.remove("lineage").expect("a lineage");
    assert_eq!(loaded, expected);
    let (empty, third, runtime) = (tempfile::tempdir().expect("a folder"), states(&place, 2).await, Handle::current());
    let path = empty.path().to_owned();
    let elsewhere = tokio::task::spawn_blocking(move || open(&path, third, runtime).load().expect("loaded"));
    assert_eq!(elsewhere.await.expect("no panic").get("lineage"), Some(&lineage));
    let status: Value = place.get("canarystates", &a.name).await["status"].clone();
    assert_eq!((&status["format"], &status["epoch"]), (&json!(3), &json!(1)));
}
