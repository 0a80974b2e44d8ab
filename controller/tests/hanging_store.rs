//! The running control plane over a store that hangs: what is served stays, an abort goes out.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wingbeat_api::Set;
use wingbeat_control::engine::Engine;
use wingbeat_control::store::memory::Memory;
use wingbeat_control::store::{Entries, Store, StoreError, Write};
use wingbeat_controller::handle::Handle;
use wingbeat_controller::runtime::Runtime;
use wingbeat_controller::verb::Verb;
use wingbeat_core::id::CanaryName;
use wingbeat_xds_server::publisher::Publisher as Snapshots;

/// Longer than anything here takes.
const AT_MOST: Duration = Duration::from_secs(20);

/// Holds every commit up while it is shut.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn set(&self, shut: bool) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = shut;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let shut = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_while(shut, |shut| *shut));
    }
}

struct Hanging {
    memory: Memory,
    gate: Gate,
}

impl Store for Hanging {
    fn load(&mut self) -> Result<Entries, StoreError> {
        self.memory.load()
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.gate.pass();
        self.memory.commit(writes)
    }
}

fn documents(revision: &str) -> Set {
    let text = format!(
        "apiVersion: wingbeat.dev/v1alpha1
kind: Listener
metadata: {{name: public}}
spec: {{address: 127.0.0.1, port: 1}}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Workload
metadata: {{name: backend, namespace: prod}}
spec: {{revision: {revision}, revisions: {{'1': {{endpoints: ['127.0.0.1:2']}}, '2': {{endpoints: ['127.0.0.1:3']}}}}}}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Canary
metadata: {{name: backend, namespace: prod}}
spec:
  targetRef: {{kind: Workload, name: backend}}
  service: {{hosts: [backend.local], listeners: [public]}}
  analysis: {{stepWeight: 10, maxWeight: 50}}
"
    );
    let set = Set::of(&BTreeMap::from([("a.yaml".to_owned(), text)]));
    assert!(set.report.errors.is_empty(), "{:?}", set.report.errors);
    set
}

async fn shown(handle: &Handle, phase: &str, weight: f64) {
    let mut board = handle.watch();
    let is_there = board.wait_for(|board| {
        board.canaries.values().next().is_some_and(|view| view.phase == phase && (view.weight - weight).abs() < 1e-9)
    });
    let seen = tokio::time::timeout(AT_MOST, is_there).await;
    assert!(seen.is_ok(), "{phase} {weight} is not shown: {:?}", handle.status().canaries.values().next());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_goes_out_though_the_store_hangs_and_is_stored_once_it_does_not() {
    let (memory, gate) = (Memory::default(), Gate::default());
    let store = Hanging { memory: memory.clone(), gate: gate.clone() };
    let engine = Engine::open(&Entries::default(), [1; 32]).unwrap();
    let wanted = |revision: &str| documents(revision).desired_state(None);
    let runtime = Runtime::start(engine, Box::new(store), wanted("1"), Snapshots::default()).unwrap();
    let handle = runtime.handle().clone();
    shown(&handle, "Initialized", 0.0).await;
    handle.configure(wanted("2")).unwrap();
    shown(&handle, "Progressing", 10.0).await;

    gate.set(true);
    let name = CanaryName::new("prod", "backend");
    // It has to be stored first, and so has its answer.
    let pause = tokio::spawn({
        let (handle, name) = (handle.clone(), name.clone());
        async move { handle.command(name, Verb::Pause, "1".to_owned()).await }
    });
    let abort = handle.command(name.clone(), Verb::Abort, "2".to_owned());
    tokio::time::timeout(AT_MOST, abort).await.expect("it waits for nothing").unwrap();
    shown(&handle, "Failed", 0.0).await;
    assert!(handle.is_alive());

    gate.set(false);
    let paused = tokio::time::timeout(AT_MOST, pause).await.expect("it is answered").unwrap();
    assert!(paused.is_err() || handle.status().canaries.values().all(|view| view.phase == "Failed"));
    drop(runtime);
    let stored = memory.clone().load().unwrap();
    let record = String::from_utf8(stored["canary/prod/backend"].clone()).unwrap();
    assert!(record.contains("Failed"), "{record}");
}
