//! Two replicas and one Lease.

use std::time::Duration;

use wingbeat_core::time::Span;
use wingbeat_kubernetes::edge::lease::{Elector, Leadership, lease};
use wingbeat_kubernetes::lease::Election;
use wingbeat_kubernetes::permit::Permits;

use crate::support::{DEADLINE, Place, until};

/// A replica of its own runtime and thread, which can be killed with all its tasks.
struct Replica {
    elector: Elector,
    permits: Permits,
}

impl Replica {
    async fn start(place: &Place, identity: &str) -> Self {
        let permits = Permits::default();
        let election = Election::new(&place.namespace, "wingbeat", identity);
        let of = lease(&place.namespace, "wingbeat");
        let elector = Elector::start(place.connect().await, place.clock, &of, election, permits.clone());
        Self { elector, permits }
    }

    async fn leads(&self, epoch: u64) {
        let mut leadership = self.elector.leadership();
        let wait = leadership.wait_for(|leadership| *leadership == Leadership::Leading { epoch });
        tokio::time::timeout(DEADLINE, wait).await.expect("it leads in time").expect("it runs");
    }

    fn has_permit(&self, place: &Place) -> bool {
        self.permits.at(place.clock.now()).is_some()
    }
}

#[tokio::test]
async fn real_kubernetes_a_released_lease_is_taken_within_a_second_and_a_killed_ones_after_its_duration() {
    let Some(place) = Place::begin("real_kubernetes_two_replicas").await else { return };
    let first = Replica::start(&place, "first").await;
    first.leads(0).await;
    let second = Replica::start(&place, "second").await;
    until("the second one waits", async || {
        let holder = second.elector.leadership().borrow().clone();
        (matches!(holder, Leadership::Following { .. }) && first.has_permit(&place) && !second.has_permit(&place))
            .then_some(())
    })
    .await;

    // SIGTERM: the lease is released.
    let released = place.clock.now();
    first.elector.release().await;
    second.leads(1).await;
    let taken = place.clock.now().since(released);
    assert!(taken < Span::from_secs(2), "taken after {taken}, with a second to spare for a busy machine");
    let spec = &place.get("lease", "wingbeat").await["spec"];
    assert_eq!(
        (&spec["holderIdentity"], &spec["leaseTransitions"], &spec["leaseDurationSeconds"]),
        (&"second".into(), &1.into(), &13.into())
    );

    // SIGKILL: nobody releases it.
    let third = Replica::start(&place, "third").await;
    // Long enough for a renewal, so that the third one observes a Lease that is alive.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(second.has_permit(&place) && !third.has_permit(&place));
    let killed = place.clock.now();
    let last_permit = second.permits.clone();
    second.elector.abort();
    third.leads(2).await;
    let taken = place.clock.now().since(killed);
    assert!(taken > Span::from_secs(10) && taken < Span::from_secs(18), "taken after {taken}");
    assert!(last_permit.at(place.clock.now()).is_none(), "the killed one's permit had ended before");
    writeln(&format!("a killed leader's lease was taken after {taken}"));
    third.elector.release().await;
}

/// Prints a figure, for who runs the test with `--nocapture`.
fn writeln(text: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{text}").expect("standard error");
}
