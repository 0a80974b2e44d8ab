//! Who takes what proxies have to say.

use wingbeat_proto::v1::{ReportRequest, ReportResponse};

use crate::client_event::ClientEvent;
use crate::report_refusal::ReportRefusal;
use crate::server::access::Cause;
use crate::server::identity::Peer;

/// Takes what proxies have to say.
pub trait Intake: Send + Sync + 'static {
    /// Takes one report. Its sender may speak for the node. The error says why it was not taken; then nothing of it counts.
    fn report(
        &self,
        peer: Peer,
        request: ReportRequest,
    ) -> impl Future<Output = Result<ReportResponse, ReportRefusal>> + Send;

    /// Takes news of a client. Must not block.
    fn news(&self, news: ClientEvent);

    /// Notes that somebody was refused. Must not block.
    fn refused(&self, _cause: Cause) {}
}
