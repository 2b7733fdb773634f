//! Signatures that lie beside an image in its registry, made with a key by cosign.
//!
//! A signature is an image of its own, found by the tag `sha256-<hex>.sig` (or as a referrer of the image). Each of its
//! layers is a payload, with the signature over its bytes as an annotation:
//!
//! ```text
//! {"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"sha256:…","size":241,
//!  "annotations":{"dev.cosignproject.cosign/signature":"<base64>"}}
//!
//! {"critical":{"identity":{"docker-reference":"quay.io/a/b"},
//!              "image":{"docker-manifest-digest":"sha256:…"},
//!              "type":"cosign container image signature"},"optional":null}
//! ```
//!
//! Follows the cosign signature specification and the payload of containers-signature(5). Keys are ECDSA P-256 with
//! SHA-256 or ed25519, as PEM (SubjectPublicKeyInfo). Certificates and transparency logs (keyless signatures) are not
//! looked at: without a key that was given, nothing is believed.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::digest::Digest;
use crate::oci::Image;
use crate::reference::Tag;
use crate::store::Blob;

/// The media type of a payload.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The type of an artifact that holds signatures, where it is found as a referrer.
pub const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// The annotation that holds a signature.
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// What the payload of a signature calls itself.
const TYPE: &str = "cosign container image signature";

/// Largest payload; real ones have a few hundred bytes.
pub const PAYLOAD_LIMIT: u64 = 64 << 10;

/// What stands before the point of a P-256 key (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// What stands before the 32 bytes of an ed25519 key (RFC 8410).
const EDWARDS: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

const LABEL: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// Why a signature proves nothing, or a key is none.
#[derive(Debug, thiserror::Error)]
pub enum CosignError {
    /// A file has no public key.
    #[error("{name} has no public key (PEM, {LABEL})")]
    NoKey {
        /// The file.
        name: String,
    },
    /// A key is damaged, or of a kind that is not verified here.
    #[error("a key in {name} is neither ECDSA P-256 nor ed25519")]
    Key {
        /// The file.
        name: String,
    },
    /// The image holds no signature.
    #[error("it holds no signature")]
    Empty,
    /// An annotation is damaged.
    #[error("a signature in it is not base64")]
    Annotation,
    /// None of the keys made it.
    #[error("it is by none of the keys that are trusted")]
    Untrusted,
    /// A payload is damaged.
    #[error("what was signed is not the description of an image")]
    Payload(#[source] serde_json::Error),
    /// A payload is of another type.
    #[error("what was signed is a {found:?}")]
    Type {
        /// What it calls itself.
        found: String,
    },
    /// It is about another image.
    #[error("it is of {signed}, not of {image}")]
    OtherImage {
        /// The image that was signed.
        signed: String,
        /// The one that was meant.
        image: Digest,
    },
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// ECDSA over P-256: a point, uncompressed.
    Ecdsa(Vec<u8>),
    /// Ed25519.
    Edwards(Vec<u8>),
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ecdsa(_) => "Key(ECDSA P-256)",
            Self::Edwards(_) => "Key(ed25519)",
        })
    }
}

impl Key {
    /// Reads every public key of a PEM file; `name` is for errors.
    ///
    /// # Errors
    /// If it has none, or one is of another kind.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Self>, CosignError> {
        let text = String::from_utf8_lossy(bytes);
        let mut keys = Vec::new();
        for block in text.split(LABEL).skip(1) {
            let wrong = || CosignError::Key {
                name: name.to_owned(),
            };
            let (body, _) = block.split_once(END).ok_or_else(wrong)?;
            let digits: String = body.split_ascii_whitespace().collect();
            let der = STANDARD.decode(digits).map_err(|_| wrong())?;
            let key = match (der.strip_prefix(&P256[..]), der.strip_prefix(&EDWARDS[..])) {
                (Some(point), _) if point.len() == 65 && point[0] == 4 => {
                    Self::Ecdsa(point.to_owned())
                }
                (_, Some(key)) if key.len() == 32 => Self::Edwards(key.to_owned()),
                _ => return Err(wrong()),
            };
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(CosignError::NoKey {
                name: name.to_owned(),
            });
        }
        Ok(keys)
    }

    /// Whether this key made `signature` over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ecdsa(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
            }
            Self::Edwards(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
        }
        .is_ok()
    }
}

/// One payload of a signature image, and the signature over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The payload.
    pub payload: Blob,
    /// The signature.
    pub signature: Vec<u8>,
}

/// The tag under which the signatures of an image lie.
#[must_use]
pub fn tag(image: &Digest) -> Tag {
    format!("sha256-{}.sig", image.hex())
        .parse()
        .expect("letters, digits, a hyphen and a full stop make a tag")
}

/// The payloads of a signature image that are signed at all.
///
/// # Errors
/// If there are none, or an annotation is damaged.
pub fn signed(image: &Image) -> Result<Vec<Signed>, CosignError> {
    let mut found = Vec::new();
    for layer in &image.layers {
        if layer.media_type != PAYLOAD {
            continue;
        }
        let Some(text) = layer.annotations.get(ANNOTATION) else {
            continue;
        };
        let signature = STANDARD
            .decode(text.trim())
            .map_err(|_| CosignError::Annotation)?;
        found.push(Signed {
            payload: Blob::from(layer),
            signature,
        });
    }
    if found.is_empty() {
        return Err(CosignError::Empty);
    }
    Ok(found)
}

#[derive(Deserialize)]
struct Body {
    critical: Critical,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Subject,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Makes sure that one of `keys` signed `payload`, and that it is about `image`; answers the name that was signed.
///
/// # Errors
/// If it proves nothing of the kind.
pub fn verify(
    payload: &[u8],
    signature: &[u8],
    image: &Digest,
    keys: &[Key],
) -> Result<String, CosignError> {
    if !keys.iter().any(|key| key.verifies(payload, signature)) {
        return Err(CosignError::Untrusted);
    }
    let body: Body = serde_json::from_slice(payload).map_err(CosignError::Payload)?;
    if body.critical.kind != TYPE {
        return Err(CosignError::Type {
            found: body.critical.kind,
        });
    }
    if body.critical.image.digest != image.to_string() {
        return Err(CosignError::OtherImage {
            signed: body.critical.image.digest,
            image: *image,
        });
    }
    Ok(body.critical.identity.reference)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    };
    use proptest::prelude::*;

    fn pem(prefix: &[u8], key: &[u8]) -> String {
        let der = [prefix, key].concat();
        format!("{LABEL}\n{}\n{END}\n", STANDARD.encode(der))
    }

    fn payload(kind: &str, image: &Digest) -> Vec<u8> {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"quay.io/a/b"}},"image":{{"docker-manifest-digest":"{image}"}},"type":"{kind}"}},"optional":null}}"#
        )
        .into_bytes()
    }

    #[test]
    fn a_signature_by_either_kind_of_key_names_what_was_signed() {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let edwards = Ed25519KeyPair::generate().unwrap();
        let image = Digest::of(b"image");
        let other = Digest::of(b"other");
        let text = payload(TYPE, &image);
        let file =
            pem(&P256, pair.public_key().as_ref()) + &pem(&EDWARDS, edwards.public_key().as_ref());
        let keys = Key::parse("keys", file.as_bytes()).unwrap();
        assert_eq!(keys.len(), 2, "both keys of the file are read");
        let ecdsa = |text: &[u8]| pair.sign(&random, text).unwrap().as_ref().to_owned();
        for signature in [ecdsa(&text), edwards.sign(&text).as_ref().to_owned()] {
            assert_eq!(
                verify(&text, &signature, &image, &keys).unwrap(),
                "quay.io/a/b",
                "the name that was signed"
            );
        }
        let strange = payload("atomic container signature", &image);
        let cases = [
            (
                text.clone(),
                ecdsa(b"x"),
                image,
                &keys[..],
                "none of the keys",
            ),
            (
                text.clone(),
                ecdsa(&text),
                image,
                &keys[1..],
                "none of the keys",
            ),
            (
                text.clone(),
                ecdsa(&text),
                other,
                &keys[..],
                "not of sha256:",
            ),
            (
                strange.clone(),
                ecdsa(&strange),
                image,
                &keys[..],
                "is a \"atomic",
            ),
            (
                b"{}".to_vec(),
                ecdsa(b"{}"),
                image,
                &keys[..],
                "not the description",
            ),
        ];
        for (text, signature, image, keys, says) in cases {
            let error = verify(&text, &signature, &image, keys).unwrap_err();
            assert!(
                error.to_string().contains(says),
                "{error} must say {says:?}"
            );
        }
    }

    #[test]
    fn a_file_without_a_usable_key_is_named() {
        for (text, says) in [
            (String::new(), "no public key"),
            (pem(&P256, &[4; 64]), "neither"),
            (pem(&P256, &[2; 65]), "neither"),
            (pem(&EDWARDS, &[4; 33]), "neither"),
            (format!("{LABEL}\nAAAA"), "neither"),
            (format!("{LABEL}\n!\n{END}"), "neither"),
        ] {
            let error = Key::parse("the.pub", text.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("the.pub") && error.contains(says),
                "{error} must say {says:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_key_or_a_payload_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            let _ = Key::parse("x", &bytes);
            let _ = Key::parse("x", format!("{LABEL}{text}{END}").as_bytes());
            let key = Key::Ecdsa(bytes.clone());
            prop_assert!(!key.verifies(&bytes, text.as_bytes()), "no such key verifies anything");
        }
    }
}
