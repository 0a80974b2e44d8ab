//! Numbers that somebody else measured. Some are infinite or no number at all, and JSON has no way to write these.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number as Prometheus knows it. In JSON, what is not finite is a text: `"+Inf"`, `"-Inf"` or `"NaN"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number(f64);

/// Returns a number to six digits, without what floats leave behind: 0.0005, and not 0.0005000000000000001.
pub fn rounded(number: f64) -> f64 {
    format!("{number:.5e}").parse().unwrap_or(number)
}

impl Number {
    /// Returns this number.
    pub const fn new(value: f64) -> Self {
        Self(value)
    }

    /// Returns the number, which may be infinite or none.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Returns how Prometheus writes it, if JSON cannot.
    const fn unwritable(self) -> Option<&'static str> {
        if self.0.is_finite() {
            None
        } else if self.0.is_nan() {
            Some("NaN")
        } else if self.0 > 0.0 {
            Some("+Inf")
        } else {
            Some("-Inf")
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unwritable() {
            Some(text) => f.write_str(text),
            // With as many places as are asked for.
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.unwritable() {
            Some(text) => serializer.serialize_str(text),
            None => serializer.serialize_f64(self.0),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Finite(f64),
    Text(String),
    /// So it was written once.
    Null(()),
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Finite(value) => Ok(Self(value)),
            Written::Text(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
            Written::Null(()) => Ok(Self(f64::NAN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_write_them() {
        for (number, shown) in
            [(0.000_500_000_000_000_000_1, "0.0005"), (0.1 + 0.2, "0.3"), (1e-9, "0.000000001"), (33.5, "33.5")]
        {
            assert_eq!(rounded(number).to_string(), shown);
        }
    }

    #[test]
    fn every_number_comes_back_from_json() {
        for (value, json, shown) in [
            (0.5, "0.5", "0.50"),
            (-3.0, "-3.0", "-3.00"),
            (f64::INFINITY, r#""+Inf""#, "+Inf"),
            (f64::NEG_INFINITY, r#""-Inf""#, "-Inf"),
            (f64::NAN, r#""NaN""#, "NaN"),
        ] {
            let number = Number::new(value);
            assert_eq!(
                (serde_json::to_string(&number).unwrap().as_str(), format!("{number:.2}").as_str()),
                (json, shown)
            );
            let read: Number = serde_json::from_str(json).unwrap();
            assert!(read == number || (read.get().is_nan() && value.is_nan()), "{json}");
        }
        assert!(serde_json::from_str::<Number>("null").unwrap().get().is_nan());
        assert_eq!(serde_json::from_str::<Number>("7").unwrap(), Number::new(7.0));
        assert!(serde_json::from_str::<Number>(r#""many""#).is_err());
    }
}
