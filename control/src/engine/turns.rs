//! Many canaries, some at a time: each has its turn, and no round takes longer because there are more of them.

use std::collections::BTreeSet;
use std::ops::Bound;

use wingbeat_core::id::CanaryName;

/// Whose turn it was last.
#[derive(Debug, Default)]
pub(super) struct Turns(Option<CanaryName>);

impl Turns {
    /// Returns those whose turn it is, of these: at most so many, from the one after the last on.
    pub(super) fn next(&mut self, of: &BTreeSet<CanaryName>, most: usize) -> Vec<CanaryName> {
        let last = self.0.take();
        let after = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = last.as_ref().map(|last| of.range(..=last)).into_iter().flatten();
        let next: Vec<CanaryName> = of.range((after, Bound::Unbounded)).chain(rest).take(most).cloned().collect();
        self.0 = next.last().cloned().or(last);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn() {
        let name = |number: usize| CanaryName::new("prod", number.to_string());
        let mut of: BTreeSet<CanaryName> = (0..5).map(name).collect();
        let mut turns = Turns::default();
        let mut next = |of: &BTreeSet<CanaryName>| {
            turns.next(of, 2).iter().map(|name| name.name.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!([next(&of), next(&of), next(&of)], ["0 1", "2 3", "4 0"]);
        // Also where the last one is gone.
        of.remove(&name(0));
        assert_eq!(next(&of), "1 2");
        of = [name(3)].into();
        assert_eq!([next(&of), next(&of)], ["3", "3"]);
        of.clear();
        assert_eq!(next(&of), "");
    }
}
