//! What stands between peers and the intake.

use std::sync::Arc;

use tonic::Status;

use crate::client_event::{ClientEvent, ClientEventKind};
use crate::server::access::{Access, Cause, RefusalLog};
use crate::server::connections::OnMismatch;
use crate::server::identity::Peer;
use crate::server::intake::Intake;

/// What stands between peers and the intake.
pub(super) struct Gate<I> {
    pub(super) intake: Arc<I>,
    pub(super) access: Arc<Access>,
    pub(super) log: RefusalLog,
}

impl<I> Clone for Gate<I> {
    fn clone(&self) -> Self {
        Self { intake: self.intake.clone(), access: self.access.clone(), log: self.log.clone() }
    }
}

impl<I: Intake> Gate<I> {
    /// Counts a refusal and logs it, if it is time to. Returns what the peer is told.
    pub(super) fn refuse(&self, peer: &Peer, (cause, status): (Cause, Status)) -> Status {
        self.intake.refused(cause);
        self.log.note(cause, peer, status.message());
        status
    }

    /// Returns what counts those that speak something else than the port, and tells of them when they are logged.
    pub(super) fn on_mismatch(&self) -> OnMismatch {
        let gate = self.clone();
        OnMismatch::new(move |address, mend| {
            let peer = Peer::Uncertified(address.to_canonical());
            gate.intake.refused(Cause::Tls);
            if gate.log.note(Cause::Tls, &peer, mend).is_some() {
                let what = ClientEventKind::Mismatched(mend.to_owned());
                gate.intake.news(ClientEvent { node: peer.to_string(), stream: 0, what });
            }
        })
    }
}

/// Returns who sent a request.
pub(super) fn peer_of(extensions: &http::Extensions) -> Result<Peer, Status> {
    extensions.get::<Peer>().cloned().ok_or_else(|| Status::internal("nothing is known of the connection"))
}
