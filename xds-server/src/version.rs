//! Versions of what is served.

use sha2::{Digest as _, Sha256};

/// A version made from content: the same content has the same version, also after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version([u8; 8]);

impl Version {
    /// Returns the version of these pieces, in this order.
    pub fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for piece in pieces {
            hash.update(u64::try_from(piece.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(piece);
        }
        let mut short = [0; 8];
        for (to, from) in short.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Self(short)
    }

    /// Reads what [`Version`] displays as.
    pub fn parse(text: &str) -> Option<Self> {
        let number = (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())??;
        Some(Self(number.to_be_bytes()))
    }

    /// Returns the version as a number.
    pub const fn get(self) -> u64 {
        u64::from_le_bytes(self.0)
    }

    /// Returns the bytes of the version.
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
