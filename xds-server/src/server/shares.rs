//! Divides what there is among peers, so that none can take it all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something of which there is so much, and who has how much of it.
///
/// Nobody may have more than is left for all others (the dynamic thresholds of Choudhury and Hahne, 1998). One peer alone
/// gets half of it at most; and as long as there is any left, who has nothing gets some.
#[derive(Debug, Clone)]
pub struct Shares {
    total: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_owner: BTreeMap<String, usize>,
}

/// What somebody has. It goes back when dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    owner: String,
    amount: usize,
}

impl Shares {
    /// Returns a whole that nobody has any of.
    pub fn new(total: usize) -> Self {
        Self { total, held: Arc::default() }
    }

    /// Gives some of it to a peer; nothing if it would then have more than is left.
    pub fn take(&self, owner: &str, amount: usize) -> Option<Share> {
        let mut share = Share { shares: self.clone(), owner: owner.to_owned(), amount: 0 };
        share.grow_to(amount).then_some(share)
    }

    // A std mutex, never held across an await: two sums and a look-up are all there is.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Makes it as large as this. Returns false, and leaves it as it is, if the owner would have more than is left.
    pub fn grow_to(&mut self, amount: usize) -> bool {
        let mut held = self.shares.lock();
        let others = held.all.saturating_sub(self.amount);
        let own = held.by_owner.get(&self.owner).copied().unwrap_or_default().saturating_sub(self.amount);
        let left = self.shares.total.saturating_sub(others).checked_sub(amount);
        let own = own.saturating_add(amount);
        // To give some back is always possible.
        if amount > self.amount && left.is_none_or(|left| own > left) {
            return false;
        }
        held.all = others.saturating_add(amount);
        if own == 0 {
            held.by_owner.remove(&self.owner);
        } else {
            held.by_owner.insert(self.owner.clone(), own);
        }
        drop(held);
        self.amount = amount;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _given_back = self.grow_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_and_who_has_nothing_gets_some() {
        let shares = Shares::new(60);
        let greedy: Vec<Share> = std::iter::from_fn(|| shares.take("greedy", 1)).collect();
        assert_eq!(greedy.len(), 30, "half of it");
        let second: Vec<Share> = std::iter::from_fn(|| shares.take("second", 1)).collect();
        assert_eq!(second.len(), 15, "half of what was left");
        let small: Vec<Share> = (0..7).filter_map(|number| shares.take(&format!("{number}"), 1)).collect();
        assert_eq!(small.len(), 7, "who has nothing gets some");
        drop(greedy);
        assert!(shares.take("greedy", 15).is_some(), "what was given back can be had");
        drop((second, small));
        assert!(shares.lock().by_owner.is_empty() && shares.lock().all == 0, "nothing is kept of who has nothing");
    }

    #[test]
    fn a_share_grows_and_shrinks() {
        let shares = Shares::new(100);
        let mut share = shares.take("a", 10).unwrap();
        assert!(share.grow_to(50));
        assert!(!share.grow_to(51), "more than would be left");
        assert_eq!(shares.lock().all, 50);
        assert!(share.grow_to(5));
        assert_eq!(shares.lock().by_owner["a"], 5);
    }
}
