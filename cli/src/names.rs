//! Host names of endpoints: whether they have an address.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::net::lookup_host;

/// Names that are asked for at a time.
const MAX_CONCURRENT_LOOKUPS: usize = 32;
/// A resolver that takes longer has no answer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns those of these names that have no address, each with the reason.
pub(crate) async fn unresolved(names: BTreeSet<String>) -> BTreeMap<String, String> {
    let asked = stream::iter(names).map(async |name| {
        let why = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup_host((name.as_str(), 0))).await {
            Ok(Ok(mut addresses)) => addresses.next().is_none().then(|| "it has no address".to_owned()),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {LOOKUP_TIMEOUT:?}")),
        };
        Some((name, why?))
    });
    asked.buffer_unordered(MAX_CONCURRENT_LOOKUPS).filter_map(async |unresolved| unresolved).collect().await
}
