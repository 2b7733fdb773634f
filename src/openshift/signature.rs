//! Release signatures: who vouches that a payload is the release it claims to be.
//!
//! A signature is an *atomic container signature*: a binary OpenPGP message (RFC 4880), signed and not encrypted, perhaps
//! compressed, whose text is JSON:
//!
//! ```json
//! {"critical":{"image":{"docker-manifest-digest":"sha256:…"},"type":"atomic container signature",
//!   "identity":{"docker-reference":"quay.io/openshift-release-dev/ocp-release:4.16.1-x86_64"}},
//!  "optional":{"creator":"Red Hat OpenShift Signing Authority 0.0.1"}}
//! ```
//!
//! ## What is required
//! 1. The message is whole and of the form *literal text and signatures over it*; it holds at most
//!    [`MESSAGE_LIMIT`] bytes, unpacked. Nothing of the text is believed before the rest holds.
//! 2. At least one signature is by a key of the ring, or by a signing subkey that the key and the subkey bind to each
//!    other. Every signature and every key is tried. Of signatures over data only SHA-256, SHA-384 and SHA-512 count.
//! 3. The key was valid when the signature was made: made by then, not expired, not revoked. A key revoked as
//!    *superseded* or *retired* keeps the signatures it made before; one revoked for any other reason keeps none.
//! 4. The signed digest is that of the payload, the type is the one above, the name is an image reference, and
//!    there are no critical members that nobody here understands.
//!
//! ## What "now" changes
//! Releases outlive the keys they were signed with: a mirror of last year's release is as good as it was last year.
//! So without a time (`now` is `None`) signatures count as above, for ever. With a time, the signature and the key must not
//! have expired by then either, no revocation may have come, and a signature from the future (a day is allowed for
//! clocks) counts for nothing.
//!
//! ## Limits
//! Keys are trusted because they are in the ring; certifications by others are not looked at, and neither are
//! revocations by a designated revoker. What a key says about itself may rest on SHA-1, as keys of 2009 do; what binds
//! a subkey may not.

use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{LiteralData, Packet, PacketParser, Signature, SignatureType, SubpacketData};
use std::io::Read as _;

use jiff::Timestamp;
use serde::Deserialize;

use crate::digest::{Digest, DigestError};
use crate::hint::Hint;
use crate::reference::{Reference, ReferenceError};

pub mod key;
pub mod store;

pub use key::Keyring;

/// The largest signature that is read. Those in the field are below 2 KiB.
pub const SIGNATURE_LIMIT: usize = 256 << 10;

/// The most bytes a signature may unpack to.
pub const MESSAGE_LIMIT: u64 = 1 << 20;

/// How far a clock may be off, in seconds.
const CLOCK_SKEW: i64 = 24 * 60 * 60;

/// The type of an atomic container signature.
const TYPE: &str = "atomic container signature";

/// A signature that does not prove anything.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// It is too large.
    #[error("a signature of {length} bytes: expected at most {SIGNATURE_LIMIT}")]
    Large {
        /// Its length.
        length: usize,
    },
    /// It unpacks to too much.
    #[error("the signature unpacks to more than {MESSAGE_LIMIT} bytes")]
    Bomb,
    /// It is not an OpenPGP message of the expected form.
    #[error("not a signed OpenPGP message: {reason}")]
    Form {
        /// What is wrong.
        reason: String,
    },
    /// Nobody signed it.
    #[error("the message is not signed")]
    Unsigned,
    /// No signature counts.
    #[error("no signature counts: {}", rejections(.0))]
    NotTrusted(Vec<Rejection>),
    /// The signed text is not an atomic container signature.
    #[error("what was signed is not an {TYPE}")]
    Json {
        /// What is wrong, and where.
        #[source]
        source: serde_json::Error,
    },
    /// The signed text is of another type.
    #[error("what was signed is of type {found:?}; expected {TYPE:?}")]
    Type {
        /// What it says.
        found: String,
    },
    /// The signed digest cannot be read.
    #[error("the signed digest")]
    Digest {
        /// What is wrong with it.
        #[source]
        source: DigestError,
    },
    /// Another image was signed.
    #[error("the signature is for {signed}, not for {payload}")]
    OtherImage {
        /// What was signed.
        signed: Digest,
        /// What was asked about.
        payload: Digest,
    },
    /// The signed name is none.
    #[error("the signed name")]
    Identity {
        /// What is wrong with it.
        #[source]
        source: ReferenceError,
    },
}

fn rejections(list: &[Rejection]) -> String {
    let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

impl Hint for SignatureError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotTrusted(list)
                if list
                    .iter()
                    .all(|one| matches!(one.reason, Reason::UnknownKey)) =>
            {
                Some("releases of another vendor need that vendor's public key".to_owned())
            }
            Self::OtherImage { .. } => Some(
                "the signature belongs to another release; fetch that of this digest".to_owned(),
            ),
            Self::Form { reason } if reason.contains("armor") => {
                Some("unpack it with \"gpg --dearmor\"".to_owned())
            }
            _ => None,
        }
    }
}

/// A signature that does not count, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Who is said to have made it: a fingerprint or key id, as the signature has it.
    pub issuer: String,
    /// Why it does not count.
    pub reason: Reason,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.issuer, self.reason)
    }
}

/// Why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No key of the ring made it.
    #[error("not a key of the ring")]
    UnknownKey,
    /// The text or the signature was changed.
    #[error("does not match what was signed")]
    Broken,
    /// Its hash can be forged.
    #[error("made with {hash}; expected SHA256, SHA384 or SHA512")]
    WeakHash {
        /// The hash.
        hash: String,
    },
    /// It is a signature over something else than a file.
    #[error("not a signature over binary data")]
    Kind,
    /// It asks for something that nobody here understands.
    #[error("of a form that is not supported")]
    Unsupported,
    /// It does not say when it was made.
    #[error("does not say when it was made")]
    NoTime,
    /// It was made later than now.
    #[error("made at {made}, which is in the future")]
    Future {
        /// When it says it was made.
        made: Timestamp,
    },
    /// It was made before its key.
    #[error("made at {made}, before the key was, at {key}")]
    BeforeKey {
        /// When it was made.
        made: Timestamp,
        /// When the key was made.
        key: Timestamp,
    },
    /// It has expired.
    #[error("expired at {at}")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// Its key had expired when it was made, or has by now.
    #[error("the key expired at {at}")]
    KeyExpired {
        /// When.
        at: Timestamp,
    },
    /// Its key was revoked.
    #[error("the key was revoked at {at}")]
    KeyRevoked {
        /// When.
        at: Timestamp,
    },
    /// Its key does not say about itself what a key must say.
    #[error("the key is not bound to itself or to its primary key")]
    Unbound,
    /// Its key may not sign.
    #[error("the key is not for signing")]
    NotForSigning,
}

/// What a signature proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The image it is for.
    pub digest: Digest,
    /// The name the signer gave the image; tags and directories derive from it.
    pub identity: Reference,
    /// Who made the signatures that count; at least one.
    pub signers: Vec<Signer>,
    /// The signatures that do not count.
    pub rejected: Vec<Rejection>,
}

/// Who made a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The fingerprint of the primary key, in uppercase hexadecimal digits.
    pub fingerprint: String,
    /// The fingerprint of the key that signed: the same, or that of a subkey.
    pub signing_key: String,
    /// The first name in the key.
    pub name: Option<String>,
    /// When the signature was made.
    pub made: Timestamp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    critical: Critical,
    #[serde(rename = "optional")]
    _optional: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

/// Checks that a key of the ring signed the payload; `now` as the module says.
pub fn verify(
    signature: &[u8],
    payload: &Digest,
    ring: &Keyring,
    now: Option<Timestamp>,
) -> Result<Verified, SignatureError> {
    let (text, signatures) = open(signature)?;
    let mut signers = Vec::new();
    let mut rejected = Vec::new();
    for signature in &signatures {
        match judge(signature, text.data(), ring, now) {
            Ok(signer) => signers.push(signer),
            Err(reason) => rejected.push(Rejection {
                issuer: issuer(signature),
                reason,
            }),
        }
    }
    if signers.is_empty() {
        return Err(SignatureError::NotTrusted(rejected));
    }
    let body: Body =
        serde_json::from_slice(text.data()).map_err(|source| SignatureError::Json { source })?;
    if body.critical.kind != TYPE {
        return Err(SignatureError::Type {
            found: body.critical.kind,
        });
    }
    let signed: Digest = body
        .critical
        .image
        .digest
        .parse()
        .map_err(|source| SignatureError::Digest { source })?;
    if signed != *payload {
        return Err(SignatureError::OtherImage {
            signed,
            payload: *payload,
        });
    }
    let identity = body
        .critical
        .identity
        .reference
        .parse()
        .map_err(|source| SignatureError::Identity { source })?;
    Ok(Verified {
        digest: signed,
        identity,
        signers,
        rejected,
    })
}

/// Takes a message apart: one literal text and the signatures over it.
fn open(bytes: &[u8]) -> Result<(LiteralData, Vec<Signature>), SignatureError> {
    if bytes.len() > SIGNATURE_LIMIT {
        return Err(SignatureError::Large {
            length: bytes.len(),
        });
    }
    if bytes.starts_with(b"-----BEGIN") {
        return Err(form("it is ASCII armor"));
    }
    let mut packets = parse(bytes)?;
    if let [Packet::CompressedData(_)] = packets[..] {
        let Some(Packet::CompressedData(compressed)) = packets.pop() else {
            unreachable!("the slice pattern has just matched");
        };
        let mut inner = Vec::new();
        compressed
            .decompress()
            .map_err(|error| form(&plain(&error.to_string())))?
            .take(MESSAGE_LIMIT + 1)
            .read_to_end(&mut inner)
            .map_err(|error| form(&plain(&error.to_string())))?;
        if inner.len() as u64 > MESSAGE_LIMIT {
            return Err(SignatureError::Bomb);
        }
        packets = parse(&inner)?;
    }
    let mut announced = 0usize;
    let mut text = None;
    // Signatures may stand before the text (the old form) or, announced, after it.
    let mut signatures = Vec::new();
    let mut after = 0usize;
    for packet in packets {
        match packet {
            Packet::OnePassSignature(_) if text.is_none() => announced += 1,
            Packet::Signature(signature) => {
                after += usize::from(text.is_some());
                signatures.push(signature);
            }
            Packet::LiteralData(literal) if text.is_none() => text = Some(literal),
            Packet::Marker(_) | Packet::Padding(_) => {}
            Packet::PublicKeyEncryptedSessionKey(_)
            | Packet::SymKeyEncryptedSessionKey(_)
            | Packet::SymEncryptedData(_)
            | Packet::SymEncryptedProtectedData(_)
            | Packet::GnupgAeadData(_) => return Err(form("it is encrypted")),
            _ => return Err(form("it holds packets that have no place in it")),
        }
    }
    let Some(text) = text else {
        return Err(form("it holds no text"));
    };
    if announced != after {
        return Err(form(&format!(
            "{announced} signatures are announced and {after} follow"
        )));
    }
    if signatures.is_empty() {
        return Err(SignatureError::Unsigned);
    }
    Ok((text, signatures))
}

/// The first words of what the OpenPGP reader says; the rest may be a trace of its inside.
fn plain(text: &str) -> String {
    let first = text.split(['{', '\n']).next().unwrap_or_default();
    first
        .chars()
        .take(120)
        .collect::<String>()
        .trim()
        .to_owned()
}

fn form(reason: &str) -> SignatureError {
    SignatureError::Form {
        reason: reason.to_owned(),
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<Packet>, SignatureError> {
    let framed =
        reframe(bytes).ok_or_else(|| form("a packet is cut short or not framed as one"))?;
    let packets: Vec<Packet> = PacketParser::new(framed.as_slice())
        .collect::<Result<_, _>>()
        .map_err(|error| form(&plain(&error.to_string())))?;
    if packets.is_empty() {
        return Err(form("it holds no packets"));
    }
    Ok(packets)
}

/// Writes the same packets with one length each; `None` if the bytes are not a series of whole packets.
///
/// The signers of CI releases cut the text into parts shorter than the specification allows (RFC 9580, section
/// 4.2.1.4) and their signatures are good all the same: what is signed does not depend on the framing.
fn reframe(bytes: &[u8]) -> Option<Vec<u8>> {
    fn number(rest: &mut &[u8], bytes: usize) -> Option<usize> {
        let (number, after) = rest.split_at_checked(bytes)?;
        *rest = after;
        number.iter().try_fold(0usize, |sum, byte| {
            sum.checked_mul(256)?.checked_add(usize::from(*byte))
        })
    }
    fn body<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (body, after) = rest.split_at_checked(length)?;
        *rest = after;
        Some(body)
    }
    let mut rest = bytes;
    let mut framed = Vec::with_capacity(bytes.len() + 16);
    while !rest.is_empty() {
        let first = number(&mut rest, 1)?;
        if first & 0x80 == 0 {
            return None;
        }
        let mut whole: Vec<u8> = Vec::new();
        let tag;
        if first & 0x40 == 0 {
            tag = (first >> 2) & 0x0f;
            let length = match first & 3 {
                3 => rest.len(),
                size => number(&mut rest, 1 << size)?,
            };
            whole.extend(body(&mut rest, length)?);
        } else {
            tag = first & 0x3f;
            loop {
                let octet = number(&mut rest, 1)?;
                let (length, last) = match octet {
                    0..192 => (octet, true),
                    192..224 => (((octet - 192) << 8) + number(&mut rest, 1)? + 192, true),
                    255 => (number(&mut rest, 4)?, true),
                    _ => (1 << (octet & 0x1f), false),
                };
                whole.extend(body(&mut rest, length)?);
                if last {
                    break;
                }
            }
        }
        framed.push(0xc0 | u8::try_from(tag).ok()?);
        framed.push(0xff);
        framed.extend(u32::try_from(whole.len()).ok()?.to_be_bytes());
        framed.extend(whole);
    }
    Some(framed)
}

/// Who a signature says has made it.
fn issuer(signature: &Signature) -> String {
    let fingerprints = signature.issuer_fingerprint();
    let ids = signature.issuer_key_id();
    match (fingerprints.first(), ids.first()) {
        (Some(fingerprint), _) => format!("{fingerprint:X}"),
        (None, Some(id)) => id.to_string().to_uppercase(),
        (None, None) => "unknown issuer".to_owned(),
    }
}

/// A time as OpenPGP keeps it.
fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

/// Whether a signature over `data` counts, and whose it is.
fn judge(
    signature: &Signature,
    data: &[u8],
    ring: &Keyring,
    now: Option<Timestamp>,
) -> Result<Signer, Reason> {
    let config = signature.config().ok_or(Reason::Unsupported)?;
    if config.typ() != SignatureType::Binary {
        return Err(Reason::Kind);
    }
    if !is_strong(config.hash_alg) {
        return Err(Reason::WeakHash {
            hash: config.hash_alg.to_string(),
        });
    }
    if !is_understood(signature) {
        return Err(Reason::Unsupported);
    }
    let made = i64::from(signature.created().ok_or(Reason::NoTime)?.as_secs());
    if let Some(now) = now {
        if made > now.as_second().saturating_add(CLOCK_SKEW) {
            return Err(Reason::Future { made: time(made) });
        }
        let lasts = signature
            .signature_expiration_time()
            .map_or(0, |lasts| i64::from(lasts.as_secs()));
        if lasts > 0 && made + lasts <= now.as_second() {
            return Err(Reason::Expired {
                at: time(made + lasts),
            });
        }
    }
    ring.signer(signature, data, made, now)
}

/// Whether a hash may vouch for data.
fn is_strong(hash: HashAlgorithm) -> bool {
    matches!(
        hash,
        HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512
    )
}

/// Whether everything in a signature that must be understood is.
fn is_understood(signature: &Signature) -> bool {
    signature.config().is_some_and(|config| {
        config.hashed_subpackets().all(|subpacket| {
            !subpacket.is_critical
                || !matches!(
                    subpacket.data,
                    SubpacketData::Experimental(..)
                        | SubpacketData::Other(..)
                        | SubpacketData::Notation(_)
                )
        })
    })
}
