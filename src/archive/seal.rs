//! Seals: who vouches for an archive, beside it and outside its id.
//!
//! `<stream>_seq000007.seal.json` is a DSSE envelope (secure-systems-lab/dsse, version 1.0.2) over the archive's id and
//! the name, size and SHA-256 of every part; any number of ed25519 keys may have signed it. It is the only place of
//! an archive that holds a time. What it protects against is everything that a checksum does not: another archive in
//! place of this one, and one that is too old.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use super::key::{PublicKey, SecretKey};
use super::member::{canonical, expect_canonical};
use super::sums::Sums;
use super::{FileKind, FileName};
use crate::digest::Digest;

/// The type of what is signed.
pub const PAYLOAD_TYPE: &str = "application/vnd.imgbuild.seal.v1+json";

/// Most bytes of a seal that are read: ten thousand parts, twice encoded.
pub const LIMIT: u64 = 4 << 20;

/// Why a seal does not vouch for an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no seal.
    #[error("there is no seal beside it")]
    None,
    /// The file is no seal.
    #[error("{file} is not a seal: {problem}")]
    Form {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// It is the seal of another archive.
    #[error("{file} seals archive {found}")]
    Archive {
        /// The file.
        file: String,
        /// What it seals.
        found: Digest,
    },
    /// It names other parts.
    #[error("{file} seals other parts: {problem}")]
    Parts {
        /// The file.
        file: String,
        /// The first difference.
        problem: String,
    },
    /// Too few keys signed it that are trusted here.
    #[error(
        "{file} has {found} good signatures of keys that are trusted here; {threshold} must have signed"
    )]
    Untrusted {
        /// The file.
        file: String,
        /// How many there are.
        found: usize,
        /// How many there must be.
        threshold: usize,
    },
    /// Its time is over.
    #[error("{file} expired at {expires}")]
    Expired {
        /// The file.
        file: String,
        /// When.
        expires: Timestamp,
    },
}

/// One sealed part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedPart {
    /// The file's name.
    pub name: String,
    /// Its checksum.
    pub sha256: Digest,
    /// Its size, in bytes.
    pub size: u64,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The archive's id.
    pub archive: Digest,
    /// When the statement was made.
    #[serde(with = "time")]
    pub created: Timestamp,
    /// When it ceases to count; `None` if never.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "some_time")]
    pub expires: Option<Timestamp>,
    /// Every part, by number.
    pub parts: Vec<SealedPart>,
}

mod time {
    use super::{Deserialize, Timestamp};
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

mod some_time {
    use super::Timestamp;
    use serde::{Deserializer, Serializer};

    #[allow(clippy::ref_option, reason = "serde decides the signature")]
    pub(super) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::time::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        super::time::deserialize(deserializer).map(Some)
    }
}

/// An envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    statement: Statement,
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<Signature>,
}

/// Whom to trust, and when it is.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// The keys.
    pub keys: &'a [PublicKey],
    /// How many of them must have signed; at least one.
    pub threshold: usize,
    /// The time.
    pub now: Timestamp,
}

/// The bytes that are signed (DSSE, "pre-authentication encoding").
fn encode(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "DSSEv1 {} {PAYLOAD_TYPE} {} ",
        PAYLOAD_TYPE.len(),
        payload.len()
    )
    .into_bytes();
    bytes.extend(payload);
    bytes
}

impl Seal {
    /// An envelope that nobody has signed yet.
    #[must_use]
    pub fn new(statement: Statement) -> Self {
        Self {
            payload: canonical(&statement),
            statement,
            signatures: Vec::new(),
        }
    }

    /// What is signed.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// How many signatures there are, good or not.
    #[must_use]
    pub const fn signatures(&self) -> usize {
        self.signatures.len()
    }

    /// Adds the signature of `key`, in place of an earlier one of the same key.
    pub fn sign(&mut self, key: &SecretKey) {
        let keyid = key.public().id().to_string();
        self.signatures.retain(|signature| signature.keyid != keyid);
        self.signatures.push(Signature {
            keyid,
            sig: STANDARD.encode(key.sign(&encode(&self.payload))),
        });
        self.signatures.sort_by(|a, b| a.keyid.cmp(&b.keyid));
    }

    /// The bytes of the file.
    #[must_use]
    pub fn print(&self) -> Vec<u8> {
        canonical(&Envelope {
            payload: STANDARD.encode(&self.payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: self.signatures.clone(),
        })
    }

    /// Reads an envelope, whoever wrote it.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let envelope: Envelope =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(format!(
                "expected payloadType {PAYLOAD_TYPE}, found {:?}",
                envelope.payload_type
            ));
        }
        let payload = STANDARD
            .decode(envelope.payload)
            .map_err(|error| format!("the payload is not Base64: {error}"))?;
        let statement: Statement =
            serde_json::from_slice(&payload).map_err(|error| error.to_string())?;
        expect_canonical(&payload, &statement).map_err(|flaw| flaw.to_string())?;
        Ok(Self {
            statement,
            payload,
            signatures: envelope.signatures,
        })
    }

    /// The trusted keys that signed it. A key counts once, and whatever `keyid` says: it is only a hint.
    #[must_use]
    pub fn signers(&self, keys: &[PublicKey]) -> BTreeSet<PublicKey> {
        let message = encode(&self.payload);
        let signatures: Vec<Vec<u8>> = self
            .signatures
            .iter()
            .filter_map(|signature| STANDARD.decode(&signature.sig).ok())
            .collect();
        keys.iter()
            .filter(|key| {
                signatures
                    .iter()
                    .any(|signature| key.verifies(&message, signature))
            })
            .copied()
            .collect()
    }

    /// Whether it vouches for the archive `id` whose parts have these names and sizes; yields their checksums.
    ///
    /// # Errors
    /// Says why not.
    pub fn check(
        &self,
        file: &str,
        id: Digest,
        of: u32,
        at_hand: &[(FileName, u64)],
        trust: &Trust<'_>,
    ) -> Result<Sums, SealError> {
        let file = file.to_owned();
        let threshold = trust.threshold.max(1);
        let found = self.signers(trust.keys).len();
        if found < threshold {
            return Err(SealError::Untrusted {
                file,
                found,
                threshold,
            });
        }
        if self.statement.archive != id {
            return Err(SealError::Archive {
                file,
                found: self.statement.archive,
            });
        }
        if let Some(expires) = self.statement.expires.filter(|time| *time <= trust.now) {
            return Err(SealError::Expired { file, expires });
        }
        let sealed = self.statement.parts.len();
        if sealed != of as usize {
            return Err(SealError::Parts {
                file,
                problem: format!("it names {sealed} parts, the archive has {of}"),
            });
        }
        let mut sums = Sums::new();
        for (number, part) in (1..).zip(&self.statement.parts) {
            let kind = FileKind::Part(number);
            if FileName::parse(&part.name).is_none_or(|name| name.kind != kind) {
                return Err(SealError::Parts {
                    file,
                    problem: format!("{:?} is not the name of part {number}", part.name),
                });
            }
            sums.insert(kind, part.sha256);
        }
        for (name, size) in at_hand {
            let text = name.to_string();
            if !self
                .statement
                .parts
                .iter()
                .any(|part| part.name == text && part.size == *size)
            {
                return Err(SealError::Parts {
                    file,
                    problem: format!("it does not name {text} with {size} bytes"),
                });
            }
        }
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> FileName {
        FileName {
            stream: "prod".parse().unwrap(),
            sequence: 7,
            kind: FileKind::Part(number),
        }
    }

    fn statement() -> Statement {
        Statement {
            archive: Digest::of(b"manifest"),
            created: "2026-11-01T10:00:00Z".parse().unwrap(),
            expires: Some("2027-02-01T00:00:00Z".parse().unwrap()),
            parts: (1..=2)
                .map(|number| SealedPart {
                    name: name(number).to_string(),
                    sha256: Digest::of(&[1]),
                    size: 1024,
                })
                .collect(),
        }
    }

    fn check(
        seal: &Seal,
        keys: &[PublicKey],
        threshold: usize,
        now: &str,
    ) -> Result<Sums, SealError> {
        let trust = Trust {
            keys,
            threshold,
            now: now.parse().unwrap(),
        };
        let id = Digest::of(b"manifest");
        seal.check("seal", id, 2, &[(name(1), 1024), (name(2), 1024)], &trust)
    }

    const NOW: &str = "2026-12-01T00:00:00Z";

    #[test]
    fn as_many_trusted_keys_as_are_asked_for_must_have_signed() {
        let keys: Vec<SecretKey> = (0..3).map(|_| SecretKey::generate().unwrap()).collect();
        let public: Vec<PublicKey> = keys.iter().map(SecretKey::public).collect();
        let mut seal = Seal::new(statement());
        let untrusted = |seal: &Seal, threshold| {
            matches!(
                check(seal, &public[..2], threshold, NOW),
                Err(SealError::Untrusted { .. })
            )
        };
        assert!(
            untrusted(&seal, 0),
            "an envelope without signatures vouches for nothing"
        );
        seal.sign(&keys[2]);
        assert!(
            untrusted(&seal, 1),
            "a key that is not trusted does not count"
        );
        seal.sign(&keys[0]);
        seal.sign(&keys[0]);
        assert_eq!(seal.signatures(), 2, "a key signs once");
        let seal = Seal::parse(&seal.print()).unwrap();
        assert_eq!(check(&seal, &public[..2], 1, NOW).unwrap().len(), 2);
        let doubled = [public[0], public[0]];
        assert!(
            check(&seal, &doubled, 2, NOW).is_err(),
            "naming a key twice does not double it"
        );
        assert!(untrusted(&seal, 2), "two are asked for");
        let mut seal = seal;
        seal.sign(&keys[1]);
        check(&seal, &public[..2], 2, NOW).unwrap();
    }

    #[test]
    fn a_seal_counts_for_its_archive_its_parts_and_its_time() {
        let key = SecretKey::generate().unwrap();
        let keys = [key.public()];
        let sealed = |change: fn(&mut Statement)| {
            let mut statement = statement();
            change(&mut statement);
            let mut seal = Seal::new(statement);
            seal.sign(&key);
            check(&seal, &keys, 1, NOW)
        };
        assert!(sealed(|_| ()).is_ok());
        assert!(sealed(|statement| statement.expires = None).is_ok());
        let table: [(&str, fn(&mut Statement)); 6] = [
            ("another archive", |statement| {
                statement.archive = Digest::of(b"")
            }),
            ("over", |statement| {
                statement.expires = Some(NOW.parse().unwrap())
            }),
            ("a part less", |statement| drop(statement.parts.pop())),
            ("another size", |statement| statement.parts[1].size += 1),
            ("another order", |statement| statement.parts.reverse()),
            ("another stream", |statement| {
                statement.parts[0].name = "test_seq000007_0001.tar".to_owned();
            }),
        ];
        for (what, change) in table {
            assert!(sealed(change).is_err(), "{what}");
        }
    }

    #[test]
    fn a_changed_seal_is_not_one() {
        let key = SecretKey::generate().unwrap();
        let mut seal = Seal::new(statement());
        seal.sign(&key);
        let good = seal.print();
        assert_eq!(
            Seal::parse(&good).unwrap(),
            seal,
            "parsing must undo printing"
        );
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            if let Ok(read) = Seal::parse(&bad) {
                let same = read.statement() == seal.statement();
                assert!(
                    same || check(&read, &[key.public()], 1, NOW).is_err(),
                    "byte {at}: what was signed cannot be changed"
                );
            }
        }
    }
}
