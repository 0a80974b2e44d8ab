//! Gives memory back to the system that many workers took who are gone.
//!
//! The allocator of glibc keeps what is freed below something that is not: after a hundred thousand workers, nine tenths of
//! the resident memory are free and stay. Others give it back by themselves.

use wingbeat_core::time::{Span, Timestamp};

/// Workers that take little: tens of MiB.
const TRIM_MIN_WORKERS: usize = 4_096;
/// Memory is given back once so small a part is left of the workers that were held.
const PART: usize = 4;
/// And so long after: by then they are deleted from the disk, too, part by part, and the state is compacted.
const TRIM_DELAY: Span = Span::from_secs(30);

/// Canaries that were configured at once from which on memory is given back: what they were made of is gone.
const MANY_CANARIES: usize = 1_000;

/// And so long after: by then they are stored, and shown.
const AFTER_CANARIES: Span = Span::from_secs(2);

/// How many workers are held, and were.
#[derive(Debug, Default)]
pub(crate) struct AllocatorTrim {
    /// The most since memory was given back last.
    most: usize,
    due: Option<Timestamp>,
}

impl AllocatorTrim {
    /// Notes that so many canaries were configured.
    pub(crate) fn configured(&mut self, canaries: usize, now: Timestamp) {
        if canaries >= MANY_CANARIES {
            self.due = Some(now.plus(AFTER_CANARIES));
        }
    }

    /// Notes how many workers are held. Returns true if it is time to [`give_back`] what others took.
    pub(crate) fn follow(&mut self, held: usize, now: Timestamp) -> bool {
        self.most = self.most.max(held);
        if self.most > TRIM_MIN_WORKERS && held <= self.most / PART {
            self.most = held;
            self.due = Some(now.plus(TRIM_DELAY));
        }
        self.due.take_if(|due| *due <= now).is_some()
    }
}

/// Gives free memory back, on a thread of its own: that takes milliseconds for each hundred MiB.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    let _gave_back = std::thread::Builder::new().name("memory".to_owned()).spawn(trim);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a function of glibc that no crate wraps")]
fn trim() {
    // SAFETY: it takes a number, and may be called at any time by any thread.
    let _gave_back = unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_most_of_many_are_gone() {
        let mut crowd = AllocatorTrim::default();
        let at = |seconds| Timestamp::EPOCH.plus(Span::from_secs(seconds));
        let given = |crowd: &mut AllocatorTrim, held, seconds: std::ops::Range<u64>| -> Vec<u64> {
            seconds.filter(|second| crowd.follow(held, at(*second))).collect()
        };
        assert_eq!(given(&mut crowd, TRIM_MIN_WORKERS, 0..10), [0; 0]);
        assert_eq!(given(&mut crowd, 0, 10..100), [0; 0], "few take little");
        assert_eq!(given(&mut crowd, 60_000, 100..110), [0; 0]);
        assert_eq!(given(&mut crowd, 16_000, 110..200), [0; 0], "more than a part of them is there");
        assert_eq!(given(&mut crowd, 15_000, 200..400), [230]);
        assert_eq!(given(&mut crowd, 3_000, 400..500), [430]);
        assert_eq!(given(&mut crowd, 0, 500..600), [0; 0]);
        crowd.configured(MANY_CANARIES - 1, at(600));
        assert_eq!(given(&mut crowd, 0, 600..700), [0; 0], "few take little");
        crowd.configured(MANY_CANARIES, at(700));
        assert_eq!(given(&mut crowd, 0, 700..800), [702]);
        give_back();
    }
}
