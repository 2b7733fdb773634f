//! A signature under an audit: who saw that everything is sound.
//!
//! An in-toto statement (v1) about the lock, in a DSSE envelope (v1), signed with ed25519:
//!
//! ```text
//! {"_type":"https://in-toto.io/Statement/v1",
//!  "predicate":{"report":"sha256:…","sound":true,"version":1},
//!  "predicateType":"tag:imgbuild,2026:audit/v1",
//!  "subject":[{"digest":{"sha256":"<lock>"},"name":"lock"}]}
//! ```
//!
//! The statement follows from the report and has no time in it, so whoever audits the same things makes the same bytes
//! and needs nothing but a public key to tell that another auditor saw the same. Only a sound report is signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::audit::Report;
use crate::archive::key::{PublicKey, SecretKey};

/// The type of what is signed.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// What kind of statement it is.
pub const PREDICATE_TYPE: &str = "tag:imgbuild,2026:audit/v1";

/// A DSSE envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// Why an attestation does not stand for a report.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The report has findings.
    #[error("a report with findings is not attested")]
    Unsound,
    /// The file is no envelope.
    #[error("this is no DSSE envelope")]
    Form(#[source] serde_json::Error),
    /// The envelope holds something else.
    #[error("the attestation is of {found}, not of an audit")]
    Type {
        /// Its payload type.
        found: String,
    },
    /// It is about another report.
    #[error("the attestation is of another report than this one")]
    Other,
    /// Nobody who is trusted has signed it.
    #[error("none of its signatures is by a key that was given")]
    Unsigned,
}

/// What is signed for a report: the same bytes for everyone who has the same report.
#[must_use]
pub fn statement(report: &Report) -> Vec<u8> {
    // Its keys ascend, as in every JSON that is written here.
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "predicate": { "report": report.digest(), "sound": report.is_sound(), "version": report.version },
        "predicateType": PREDICATE_TYPE,
        "subject": [{ "digest": { "sha256": report.lock.hex() }, "name": "lock" }],
    })
    .to_string()
    .into_bytes()
}

/// The bytes under a DSSE signature (DSSE v1, "PAE").
fn encoded(payload: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "DSSEv1 {} {PAYLOAD_TYPE} {} ",
        PAYLOAD_TYPE.len(),
        payload.len()
    )
    .into_bytes();
    out.extend_from_slice(payload);
    out
}

/// Signs a statement about a sound report ([`statement`], or provenance as [`super::bill::slsa`] has it); answers the
/// bytes of the attestation.
///
/// # Errors
/// If the report has findings.
pub fn attest(report: &Report, payload: &[u8], key: &SecretKey) -> Result<Vec<u8>, AttestError> {
    if !report.is_sound() {
        return Err(AttestError::Unsound);
    }
    let envelope = Envelope {
        payload: STANDARD.encode(payload),
        payload_type: PAYLOAD_TYPE.to_owned(),
        signatures: vec![Signature {
            keyid: key.public().id().to_string(),
            sig: STANDARD.encode(key.sign(&encoded(payload))),
        }],
    };
    let mut bytes = serde_json::to_vec(&envelope).map_err(AttestError::Form)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Makes sure that an attestation is of this very statement, and says by which of `keys` it is.
///
/// # Errors
/// If it is of something else, or by nobody among them.
pub fn check(
    payload: &[u8],
    attestation: &[u8],
    keys: &[PublicKey],
) -> Result<PublicKey, AttestError> {
    let envelope: Envelope = serde_json::from_slice(attestation).map_err(AttestError::Form)?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(AttestError::Type {
            found: envelope.payload_type,
        });
    }
    if STANDARD.decode(&envelope.payload).ok().as_deref() != Some(payload) {
        return Err(AttestError::Other);
    }
    let message = encoded(payload);
    keys.iter()
        .find(|key| {
            envelope.signatures.iter().any(|signature| {
                STANDARD
                    .decode(&signature.sig)
                    .is_ok_and(|bytes| key.verifies(&message, &bytes))
            })
        })
        .copied()
        .ok_or(AttestError::Unsigned)
}
