//! Room for connections: each takes a descriptor, of which a process has so many and no more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wingbeat_controller::http::Bounds;
use wingbeat_xds_server::server::Limits;

/// How many descriptors there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room(u64);

impl Room {
    /// Raises the soft limit to the hard one, which needs no privilege. What is left of them besides connections is for
    /// files, hooks and queries.
    pub(super) fn make() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        // No limit is one, too.
        let (soft, hard) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
        let raised = soft < hard && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
        let room = Self(if raised { hard } else { soft });
        tracing::debug!(descriptors = room.0, "room for connections");
        room
    }

    /// Half of it is for Envoys.
    pub(super) fn xds(self) -> Limits {
        let usual = Limits::default();
        Limits { most: self.part(2).min(usual.most), ..usual }
    }

    /// An eighth of it is for the HTTP API.
    pub(super) fn http(self) -> Bounds {
        let usual = Bounds::default();
        Bounds { most: self.part(8).min(usual.most), ..usual }
    }

    fn part(self, of: u64) -> usize {
        usize::try_from(self.0 / of).unwrap_or(usize::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_files() {
        for (descriptors, xds, http) in
            [(1_024, 512, 128), (20_000, 10_000, 1_024), (1_048_576, 65_536, 1_024), (4, 2, 1)]
        {
            let room = Room(descriptors);
            assert_eq!((room.xds().most, room.http().most), (xds, http), "{descriptors}");
        }
    }
}
