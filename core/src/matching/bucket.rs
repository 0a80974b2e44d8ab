//! Sticky buckets: a user keeps an arm for the length of a rollout.
//!
//! A user's value is hashed to one of [`BUCKETS`] buckets; the canary has the highest ones, as many as its weight in
//! basis points. The share grows at its lower end, so that a rising weight moves users from the primary to the canary
//! and never back. The hash is SipHash-2-4 (Aumasson and Bernstein, 2012) under the rollout's key: it is published, the
//! same everywhere, and another rollout divides the users anew.

use core::hash::Hasher as _;

use siphasher::sip::SipHasher24;

use crate::weight::BasisPoints;

/// Buckets that users are divided into.
pub const BUCKETS: u64 = 10_000;

/// Groups of neighbouring buckets: what users of one do is counted together.
pub const GROUPS: u8 = 100;

/// Returns the bucket of a user's value, below [`BUCKETS`].
pub fn bucket(key: u64, value: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(key, 0);
    hasher.write(value);
    hasher.finish() % BUCKETS
}

/// Returns true if users of this bucket have the canary at this weight.
pub fn has_canary(bucket: u64, weight: BasisPoints) -> bool {
    bucket >= BUCKETS.saturating_sub(weight.get().into())
}

/// Returns the group of a bucket, below [`GROUPS`].
pub fn group_of(bucket: u64) -> u8 {
    u8::try_from(bucket / (BUCKETS / u64::from(GROUPS))).unwrap_or(GROUPS).min(GROUPS - 1)
}

/// Returns the `n`th number of an even sequence that begins with `seed` (splitmix64, Steele, Lea and Flood, 2014).
pub const fn mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    /// Published: other programs may rely on them.
    #[test]
    fn vectors() {
        let buckets = [(0, &b""[..]), (0, b"alice"), (1, b"alice"), (1, b"bob"), (u64::MAX, b"\xff\x00")];
        let buckets = buckets.map(|(key, value)| bucket(key, value));
        assert_eq!(buckets, [1_367, 7_471, 1_825, 6_385, 8_269]);
    }

    #[test]
    fn groups_are_neighbours() {
        assert_eq!([0, 99, 100, 9_999, u64::MAX].map(group_of), [0, 0, 1, 99, 99]);
    }

    #[test]
    fn users_only_ever_move_to_the_canary() {
        let weights = (0..=100).map(BasisPoints::from_percent);
        let mut before = [false; 500];
        for weight in weights {
            for (user, had) in before.iter_mut().enumerate() {
                let has = has_canary(bucket(7, format!("user-{user}").as_bytes()), weight);
                assert!(has || !*had);
                *had = has;
            }
        }
        assert!(before.iter().all(|has| *has));
    }

    #[test]
    fn shares_are_as_the_weight_says() {
        let weight = BasisPoints::from_percent(5);
        let users = (0..20_000_u32).filter(|user| has_canary(bucket(3, &user.to_le_bytes()), weight)).count();
        // 1,000 are expected; five standard deviations are 154.
        assert!((846..=1_154).contains(&users), "{users}");
    }
}
