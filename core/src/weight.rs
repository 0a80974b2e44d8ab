//! Shares of traffic, exact to a hundredth of a percent.

use core::fmt;

use serde::{Deserialize, Serialize};

/// A share in hundredths of a percent, 0 to 10,000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct BasisPoints(u16);

impl BasisPoints {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// Everything.
    pub const FULL: Self = Self(10_000);
    /// The smallest share that is not nothing.
    pub const MIN_NONZERO: Self = Self(1);

    /// Returns the share, if it is at most [`BasisPoints::FULL`].
    pub const fn new(basis_points: u16) -> Option<Self> {
        if basis_points <= 10_000 { Some(Self(basis_points)) } else { None }
    }

    /// Returns a share of whole percents; more than 100 is 100.
    pub const fn from_percent(percent: u8) -> Self {
        if percent >= 100 { Self::FULL } else { Self(percent as u16 * 100) }
    }

    /// Returns the nearest share to a fraction of one, if it is at most the whole.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, and whole")]
    pub fn from_fraction(fraction: f64) -> Option<Self> {
        (0.0..=1.0).contains(&fraction).then(|| Self(libm::round(fraction * 10_000.0) as u16))
    }

    /// Returns the share in hundredths of a percent.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Returns the share as a fraction of one.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Returns the share in percent: the nearest number to what [`Display`](fmt::Display) writes, and so written alike.
    /// A fraction times a hundred is not: 7 % would be 7.000000000000001.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// Returns what is left of the whole.
    #[must_use]
    pub const fn complement(self) -> Self {
        Self(10_000 - self.0)
    }

    /// Returns the sum of both shares, at most the whole.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        let sum = self.0 + other.0;
        if sum > 10_000 { Self::FULL } else { Self(sum) }
    }

    /// Returns the share less `other`, at least nothing.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Returns true for no share at all.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl<'de> Deserialize<'de> for BasisPoints {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = u16::deserialize(deserializer)?;
        Self::new(raw).ok_or_else(|| serde::de::Error::custom("a share is at most 10,000 basis points"))
    }
}

/// Writes the share in percent, without needless digits: `5`, `12.5`.
impl fmt::Display for BasisPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        match (hundredths / 10, hundredths % 10) {
            (0, 0) => write!(f, "{whole}"),
            (tenths, 0) => write!(f, "{whole}.{tenths}"),
            _ => write!(f, "{whole}.{hundredths:02}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn shares_read_as_percent() {
        let shown = [0, 5, 50, 500, 1_250, 10_000].map(|raw| BasisPoints::new(raw).unwrap().to_string());
        assert_eq!(shown, ["0", "0.05", "0.5", "5", "12.5", "100"]);
    }

    #[test]
    fn a_number_of_percent_is_written_as_the_share_is() {
        for share in (0..=10_000).filter_map(BasisPoints::new) {
            assert_eq!(share.percent().to_string(), share.to_string());
        }
    }

    #[test]
    fn a_share_above_the_whole_does_not_exist() {
        assert_eq!(BasisPoints::new(10_001), None);
        assert!(serde_json::from_str::<BasisPoints>("10001").is_err());
        assert_eq!(BasisPoints::from_percent(200), BasisPoints::FULL);
        assert_eq!(BasisPoints::FULL.plus(BasisPoints::from_percent(1)), BasisPoints::FULL);
        assert_eq!(BasisPoints::from_percent(5).complement(), BasisPoints::from_percent(95));
    }
}
