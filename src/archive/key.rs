//! Ed25519 keys that seal archives and sign receipts (RFC 8032).
//!
//! A secret key is PKCS #8 and a public key SubjectPublicKeyInfo, both as PEM (RFC 8410, RFC 7468), so `openssl pkey`
//! and `openssl pkeyutl -rawin` read them and verification never depends on this program. A secret key is in no `Debug`
//! output and no error.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Digest;

/// What stands before the 32 bytes of a secret key in PKCS #8 (RFC 8410, section 7).
const SECRET: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// What stands before the 32 bytes of a public key (RFC 8410, section 4).
const PUBLIC: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no PEM block of that label.
    #[error("expected {expected}, found none")]
    None {
        /// The block.
        expected: &'static str,
    },
    /// A block is damaged, or of another kind of key.
    #[error("{expected} is not an ed25519 key")]
    Form {
        /// The block.
        expected: &'static str,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

const SECRET_LABEL: &str = "-----BEGIN PRIVATE KEY-----";
const PUBLIC_LABEL: &str = "-----BEGIN PUBLIC KEY-----";

/// A key that signs.
pub struct SecretKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("SecretKey")
            .field(&self.public().id())
            .finish()
    }
}

impl SecretKey {
    /// A new key.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| KeyError::Random)?;
        Self::of(seed).ok_or(KeyError::Random)
    }

    fn of(seed: [u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
        Some(Self { seed, pair })
    }

    /// Reads the first secret key of a PEM text.
    ///
    /// # Errors
    /// If there is none, or it is of another kind.
    pub fn of_pem(text: &str) -> Result<Self, KeyError> {
        let expected = SECRET_LABEL;
        let block = blocks(text, expected)
            .next()
            .ok_or(KeyError::None { expected })?;
        inside(block, &SECRET)
            .and_then(Self::of)
            .ok_or(KeyError::Form { expected })
    }

    /// The PEM text. Whoever has it can sign.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem(SECRET_LABEL, &SECRET, &self.seed)
    }

    /// The key that verifies.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let bytes = self.pair.public_key().as_ref();
        PublicKey(bytes.try_into().expect("an ed25519 key has 32 bytes"))
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(message);
        let bytes = signature.as_ref();
        bytes.try_into().expect("an ed25519 signature has 64 bytes")
    }
}

/// A key that verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads every public key of a PEM text.
    ///
    /// # Errors
    /// If there is none, or one is of another kind.
    pub fn all_of_pem(text: &str) -> Result<Vec<Self>, KeyError> {
        let expected = PUBLIC_LABEL;
        let keys: Vec<Self> = blocks(text, expected)
            .map(|block| inside(block, &PUBLIC).map(Self))
            .collect::<Option<_>>()
            .ok_or(KeyError::Form { expected })?;
        if keys.is_empty() {
            return Err(KeyError::None { expected });
        }
        Ok(keys)
    }

    /// The PEM text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem(PUBLIC_LABEL, &PUBLIC, &self.0)
    }

    /// The SHA-256 of its SubjectPublicKeyInfo: what `openssl pkey -pubin -outform DER | sha256sum` says.
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(&[&PUBLIC[..], &self.0].concat())
    }

    /// Whether `signature` is this key's for `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .is_ok()
    }
}

/// The Base64 texts between the lines `label` and its end.
fn blocks<'t>(text: &'t str, label: &'static str) -> impl Iterator<Item = &'t str> {
    text.split(label)
        .skip(1)
        .map(|rest| rest.split("-----END").next().unwrap_or(rest))
}

/// The 32 bytes behind `prefix` in a block.
fn inside(block: &str, prefix: &[u8]) -> Option<[u8; 32]> {
    let text: String = block.split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(text).ok()?;
    bytes.strip_prefix(prefix)?.try_into().ok()
}

fn pem(label: &str, prefix: &[u8], bytes: &[u8; 32]) -> String {
    let text = STANDARD.encode([prefix, bytes].concat());
    let end = label.replace("BEGIN", "END");
    format!("{label}\n{text}\n{end}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410, section 10.
    const RFC_SECRET: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const RFC_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn the_keys_of_the_specification_are_read_and_written() {
        let key = SecretKey::of_pem(RFC_SECRET).unwrap();
        assert_eq!(key.to_pem(), RFC_SECRET, "printing must undo parsing");
        assert_eq!(
            key.public().to_pem(),
            RFC_PUBLIC,
            "and yield its public key"
        );
        assert_eq!(
            PublicKey::all_of_pem(&format!("a note\n{RFC_PUBLIC}{RFC_PUBLIC}")).unwrap(),
            [key.public(); 2],
            "a file may hold several"
        );
    }

    #[test]
    fn only_the_signed_message_verifies() {
        let (key, other) = (
            SecretKey::generate().unwrap(),
            SecretKey::generate().unwrap(),
        );
        let mut signature = key.sign(b"message");
        assert!(key.public().verifies(b"message", &signature));
        assert!(
            !key.public().verifies(b"massage", &signature),
            "another message"
        );
        assert!(
            !other.public().verifies(b"message", &signature),
            "another key"
        );
        signature[9] ^= 1;
        assert!(
            !key.public().verifies(b"message", &signature),
            "another signature"
        );
        assert!(
            !key.public().verifies(b"message", &signature[..63]),
            "a short one"
        );
    }

    #[test]
    fn other_texts_are_no_keys() {
        let rsa = RFC_PUBLIC.replace("MCowBQYDK2Vw", "MCowBQYDK2Vu");
        for text in ["", "key", RFC_SECRET, &rsa, &RFC_PUBLIC.replace("ZuE=", "")] {
            assert!(PublicKey::all_of_pem(text).is_err(), "{text:?}");
        }
        for text in ["", RFC_PUBLIC, &RFC_SECRET.replace("VhC", "VhD=")] {
            assert!(SecretKey::of_pem(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_secret_key_is_not_shown() {
        let key = SecretKey::of_pem(RFC_SECRET).unwrap();
        assert_eq!(
            format!("{key:?}"),
            format!("SecretKey({:?})", key.public().id())
        );
    }
}
