//! Leave to write, which ends by itself: a process that was paused finds that it has none when it goes on.

use std::sync::{Arc, Mutex, PoisonError};

use wingbeat_core::time::Timestamp;

/// Leave to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// How often the lease had changed hands when this leader took it. Whatever a leader of a lower epoch does is late.
    pub epoch: u64,
    /// When it ends. What is sent before must be answered, or given up, by then.
    pub until: Timestamp,
}

/// The permit of this process, shared by whoever leads and whoever writes.
#[derive(Debug, Clone, Default)]
pub struct Permits {
    current: Arc<Mutex<Option<Permit>>>,
}

impl Permits {
    /// Replaces the permit; nothing: there is none from now on.
    pub fn set(&self, permit: Option<Permit>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }

    /// Returns the permit, if there is one at this moment.
    pub fn at(&self, now: Timestamp) -> Option<Permit> {
        let permit = *self.current.lock().unwrap_or_else(PoisonError::into_inner);
        permit.filter(|permit| now < permit.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_ends_by_itself() {
        let (permits, at) = (Permits::default(), Timestamp::from_millis);
        assert_eq!(permits.at(at(0)), None);
        let permit = Permit { epoch: 3, until: at(10) };
        permits.clone().set(Some(permit));
        assert_eq!((permits.at(at(9)), permits.at(at(10))), (Some(permit), None));
        permits.set(None);
        assert_eq!(permits.at(at(9)), None);
    }
}
