//! Names a worker.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{BootId, WorkerId};

/// Names a worker among all that there are: both numbers are random.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerKey {
    /// Its Envoy process.
    pub boot: BootId,
    /// The worker.
    pub worker: WorkerId,
}

impl fmt::Display for WorkerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.boot.get(), self.worker.get())
    }
}

impl WorkerKey {
    /// Returns the key of this text, as [`Display`](fmt::Display) gives it; nothing if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (boot, worker) = text.split_once('-')?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        Some(Self { boot: BootId::new(number(boot)?), worker: WorkerId::new(number(worker)?) })
    }
}
