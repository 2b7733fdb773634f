//! The name of bytes: their SHA-256, as OCI writes it (`sha256:` and 64 lowercase hexadecimal digits).
//!
//! Work is named by another type with another hash, [`crate::canon::Key`], so the two can never be mixed up.
//! Follows the OCI image specification, `descriptor.md`, section "Digests". Only `sha256` is a name here:
//! every registry in the field serves it, and a second algorithm would give one blob two names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// The SHA-256 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Another algorithm than the one in use.
    #[error("digest {text:?} uses algorithm {algorithm:?}; only sha256 is supported")]
    Algorithm {
        /// What was read.
        text: String,
        /// The part before the colon.
        algorithm: String,
    },
    /// The form is wrong.
    #[error("{text:?} is not a digest: expected \"sha256:\" and 64 lowercase hexadecimal digits")]
    Form {
        /// What was read.
        text: String,
    },
}

impl Digest {
    /// Names `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Takes the 32 bytes of a finished hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 digits without the algorithm, as file names have them.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// The first 12 digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }

    /// Reads the 64 digits without the algorithm.
    ///
    /// # Errors
    /// If the text is not exactly 64 lowercase hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        unhex(text).map(Self).ok_or_else(|| DigestError::Form {
            text: text.to_owned(),
        })
    }
}

/// Lowercase hexadecimal digits of `bytes`.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The 32 bytes that 64 lowercase hexadecimal digits stand for.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text.split_once(':') {
            Some(("sha256", digits)) => unhex(digits).map(Self).ok_or_else(|| DigestError::Form {
                text: text.to_owned(),
            }),
            Some((algorithm, _)) if !algorithm.is_empty() => Err(DigestError::Algorithm {
                text: text.to_owned(),
                algorithm: algorithm.to_owned(),
            }),
            _ => Err(DigestError::Form {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes bytes as they pass by.
#[derive(Clone, Default)]
pub struct Hasher {
    state: sha2::Sha256,
    length: u64,
}

impl Hasher {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// How many bytes have passed.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The name of everything that has passed.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Hasher")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_printing() {
        let text = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest.to_string(), text, "printing must undo parsing");
        assert_eq!(
            digest,
            Digest::of(b"hello"),
            "the name is the SHA-256 of the bytes"
        );
        assert_eq!(
            Digest::from_hex(&digest.hex()).unwrap(),
            digest,
            "hex must undo from_hex"
        );
    }

    #[test]
    fn a_digest_of_another_form_is_refused_by_name() {
        for text in [
            "",
            "sha256:",
            "sha256:ABC",
            "2cf24d",
            &format!("sha256:{}", "G".repeat(64)),
            &format!("sha256:{}", "A".repeat(64)),
        ] {
            let error = text.parse::<Digest>().unwrap_err();
            assert!(
                error.to_string().contains(&format!("{text:?}")),
                "{error} must quote {text:?}"
            );
        }
        let error = format!("sha512:{}", "a".repeat(128))
            .parse::<Digest>()
            .unwrap_err();
        assert!(
            error.to_string().contains("\"sha512\""),
            "{error} must name the algorithm"
        );
    }

    #[test]
    fn a_hasher_names_what_passed_whatever_the_pieces() {
        let mut hasher = Hasher::default();
        for piece in b"hello".chunks(2) {
            hasher.update(piece);
        }
        assert_eq!(
            (hasher.length(), hasher.finish()),
            (5, Digest::of(b"hello")),
            "pieces must not matter"
        );
    }
}
