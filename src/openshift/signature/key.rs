//! The keys that signatures are held against.

use std::fmt;

use jiff::Timestamp;
use pgp::composed::{Deserializable as _, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{RevocationCode, Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, Tag};

use super::{Reason, Signer, is_strong, is_understood, plain, time};

/// The largest file of keys that is read.
const RING_LIMIT: usize = 4 << 20;

/// How an armored key starts.
const ARMOR: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// How an armored key ends.
const ARMOR_END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

const RED_HAT: [(&str, &str); 2] = [
    (
        "redhat-release",
        include_str!("../keys/verifier-public-key-redhat-release"),
    ),
    (
        "redhat-beta-2",
        include_str!("../keys/verifier-public-key-redhat-beta-2"),
    ),
];

const COMMUNITY: [(&str, &str); 4] = [
    (
        "openshift-ci",
        include_str!("../keys/verifier-public-key-openshift-ci"),
    ),
    (
        "openshift-ci-2",
        include_str!("../keys/verifier-public-key-openshift-ci-2"),
    ),
    (
        "openshift-ci-3",
        include_str!("../keys/verifier-public-key-openshift-ci-3"),
    ),
    (
        "openshift-ci-4",
        include_str!("../keys/verifier-public-key-openshift-ci-4"),
    ),
];

/// A text that holds no usable keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// It is too large.
    #[error("keys {name:?}: {length} bytes; expected at most {RING_LIMIT}")]
    Large {
        /// Where it is from.
        name: String,
        /// Its length.
        length: usize,
    },
    /// A key cannot be read.
    #[error("keys {name:?}: {reason}")]
    Form {
        /// Where it is from.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no key.
    #[error("keys {name:?}: no OpenPGP public key in it")]
    Empty {
        /// Where it is from.
        name: String,
    },
}

/// Keys, each of which may vouch for a release.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.fingerprints()).finish()
    }
}

impl Keyring {
    /// The keys Red Hat signs releases and betas with.
    #[must_use]
    pub fn red_hat() -> Self {
        Self::embedded(&RED_HAT)
    }

    /// The keys OKD and CI releases have been signed with.
    #[must_use]
    pub fn community() -> Self {
        Self::embedded(&COMMUNITY)
    }

    fn embedded(files: &[(&str, &str)]) -> Self {
        let mut ring = Self::default();
        for (name, text) in files {
            ring.extend(
                Self::parse(name, text.as_bytes()).expect("the embedded keys are read by a test"),
            );
        }
        ring
    }

    /// Reads public keys, armored (several blocks are all read) or binary; `name` is for errors.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, KeyringError> {
        if bytes.len() > RING_LIMIT {
            return Err(KeyringError::Large {
                name: name.to_owned(),
                length: bytes.len(),
            });
        }
        let wrong = |error: pgp::errors::Error| KeyringError::Form {
            name: name.to_owned(),
            reason: plain(&error.to_string()),
        };
        let mut keys = Vec::new();
        match std::str::from_utf8(bytes) {
            Ok(text) if text.contains(ARMOR) => {
                for block in text.split(ARMOR).skip(1) {
                    let Some((inside, _)) = block.split_once(ARMOR_END) else {
                        return Err(KeyringError::Form {
                            name: name.to_owned(),
                            reason: "an armored key does not end".to_owned(),
                        });
                    };
                    let block = format!("{ARMOR}{inside}{ARMOR_END}\n");
                    let (found, _) =
                        SignedPublicKey::from_armor_many(block.as_bytes()).map_err(wrong)?;
                    for key in found {
                        keys.push(key.map_err(wrong)?);
                    }
                }
            }
            _ => {
                for key in SignedPublicKey::from_bytes_many(bytes).map_err(wrong)? {
                    keys.push(key.map_err(wrong)?);
                }
            }
        }
        if keys.is_empty() {
            return Err(KeyringError::Empty {
                name: name.to_owned(),
            });
        }
        Ok(Self { keys })
    }

    /// Adds the keys of another ring.
    pub fn extend(&mut self, other: Self) {
        self.keys.extend(other.keys);
    }

    /// The fingerprints of the primary keys, in uppercase hexadecimal digits.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys
            .iter()
            .map(|key| format!("{:X}", key.fingerprint()))
            .collect()
    }

    /// Finds the key that made a signature over `data` at `made`, and checks that it could.
    pub(super) fn signer(
        &self,
        signature: &Signature,
        data: &[u8],
        made: i64,
        now: Option<Timestamp>,
    ) -> Result<Signer, Reason> {
        let mut worst = Reason::UnknownKey;
        for key in &self.keys {
            let outcomes = std::iter::once(
                claims(signature, &key.primary_key)
                    .then(|| by_primary(key, signature, data, made, now)),
            )
            .chain(key.public_subkeys.iter().map(|subkey| {
                claims(signature, &subkey.key)
                    .then(|| by_subkey(key, subkey, signature, data, made, now))
            }));
            for outcome in outcomes.flatten() {
                match outcome {
                    Ok(signer) => return Ok(signer),
                    // A key that made the signature but may not have says more than one that did not.
                    Err(Reason::Broken) if worst != Reason::UnknownKey => {}
                    Err(reason) => worst = reason,
                }
            }
        }
        Err(worst)
    }
}

/// Whether a signature could be by `key`, going by what it says itself.
fn claims(signature: &Signature, key: &impl KeyDetails) -> bool {
    let fingerprints = signature.issuer_fingerprint();
    let ids = signature.issuer_key_id();
    if fingerprints.is_empty() && ids.is_empty() {
        return true;
    }
    let (fingerprint, id) = (key.fingerprint(), key.legacy_key_id());
    fingerprints.iter().any(|one| **one == fingerprint) || ids.iter().any(|one| **one == id)
}

fn signer(key: &SignedPublicKey, signing_key: String, made: i64) -> Signer {
    Signer {
        fingerprint: format!("{:X}", key.fingerprint()),
        signing_key,
        name: key
            .details
            .users
            .first()
            .and_then(|user| user.id.as_str())
            .map(str::to_owned),
        made: time(made),
    }
}

fn by_primary(
    key: &SignedPublicKey,
    signature: &Signature,
    data: &[u8],
    made: i64,
    now: Option<Timestamp>,
) -> Result<Signer, Reason> {
    signature
        .verify(&key.primary_key, data)
        .map_err(|_| Reason::Broken)?;
    let binding = primary_state(key)?;
    binding.check(made, now)?;
    if !binding.may_sign {
        return Err(Reason::NotForSigning);
    }
    Ok(signer(key, format!("{:X}", key.fingerprint()), made))
}

fn by_subkey(
    key: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    signature: &Signature,
    data: &[u8],
    made: i64,
    now: Option<Timestamp>,
) -> Result<Signer, Reason> {
    signature
        .verify(&subkey.key, data)
        .map_err(|_| Reason::Broken)?;
    primary_state(key)?.check(made, now)?;
    let state = subkey_state(key, subkey)?;
    state.check(made, now)?;
    if !state.may_sign {
        return Err(Reason::NotForSigning);
    }
    Ok(signer(key, format!("{:X}", subkey.key.fingerprint()), made))
}

/// What a key says about itself, as far as it is proven.
struct State {
    /// When it was made.
    made: i64,
    /// When it ends.
    expires: Option<i64>,
    /// When it was revoked, and whether its earlier signatures are void.
    revocations: Vec<(i64, bool)>,
    may_sign: bool,
}

impl State {
    /// Whether the key was valid when it signed, and is now if that matters.
    fn check(&self, signed: i64, now: Option<Timestamp>) -> Result<(), Reason> {
        if signed < self.made {
            return Err(Reason::BeforeKey {
                made: time(signed),
                key: time(self.made),
            });
        }
        let latest = now.map_or(signed, |now| now.as_second().max(signed));
        for (at, voids) in &self.revocations {
            if *voids || *at <= latest {
                return Err(Reason::KeyRevoked { at: time(*at) });
            }
        }
        match self.expires {
            Some(at) if at <= latest => Err(Reason::KeyExpired { at: time(at) }),
            _ => Ok(()),
        }
    }
}

/// Whether a hash may vouch for what a primary key says about itself.
fn is_tolerable(hash: HashAlgorithm) -> bool {
    is_strong(hash) || hash == HashAlgorithm::Sha1
}

fn created(signature: &Signature) -> i64 {
    signature
        .created()
        .map_or(0, |created| i64::from(created.as_secs()))
}

fn has_hash(signature: &Signature, accepted: fn(HashAlgorithm) -> bool) -> bool {
    signature
        .config()
        .is_some_and(|config| accepted(config.hash_alg))
}

/// Whether a binding lets its key sign; one that says nothing about it does if `unsaid`.
fn may_sign(binding: &Signature, unsaid: bool) -> bool {
    let said = binding.config().is_some_and(|config| {
        config
            .hashed_subpackets()
            .any(|subpacket| matches!(subpacket.data, SubpacketData::KeyFlags(_)))
    });
    if said {
        binding.key_flags().sign()
    } else {
        unsaid
    }
}

fn expiry(key_made: i64, binding: &Signature) -> Option<i64> {
    binding
        .key_expiration_time()
        .map(|lasts| i64::from(lasts.as_secs()))
        .filter(|lasts| *lasts > 0)
        .map(|lasts| key_made + lasts)
}

/// When a revocation came, and whether it voids what was signed before.
fn revocation(signature: &Signature) -> (i64, bool) {
    let soft = matches!(
        signature.revocation_reason_code(),
        Some(RevocationCode::KeySuperseded | RevocationCode::KeyRetired)
    );
    (created(signature), !soft)
}

/// The newest self-signature of a primary key decides.
fn primary_state(key: &SignedPublicKey) -> Result<State, Reason> {
    let primary = &key.primary_key;
    let own =
        |signature: &&Signature| has_hash(signature, is_tolerable) && is_understood(signature);
    let mut bindings: Vec<&Signature> = key
        .details
        .direct_signatures
        .iter()
        .filter(own)
        .filter(|signature| {
            signature.typ() == Some(SignatureType::Key) && signature.verify_key(primary).is_ok()
        })
        .collect();
    for user in &key.details.users {
        let proven: Vec<&Signature> = user
            .signatures
            .iter()
            .filter(own)
            .filter(|signature| {
                signature
                    .verify_certification(primary, Tag::UserId, &user.id)
                    .is_ok()
            })
            .collect();
        let is_revocation =
            |signature: &Signature| signature.typ() == Some(SignatureType::CertRevocation);
        let revoked = proven
            .iter()
            .filter(|signature| is_revocation(signature))
            .map(|signature| created(signature))
            .max();
        bindings.extend(proven.into_iter().filter(|signature| {
            !is_revocation(signature) && revoked.is_none_or(|at| at < created(signature))
        }));
    }
    let newest = bindings
        .into_iter()
        .max_by_key(|signature| created(signature))
        .ok_or(Reason::Unbound)?;
    let made = i64::from(primary.created_at().as_secs());
    Ok(State {
        made,
        expires: expiry(made, newest),
        revocations: key
            .details
            .revocation_signatures
            .iter()
            .filter(own)
            .filter(|signature| signature.verify_key(primary).is_ok())
            .map(revocation)
            .collect(),
        may_sign: may_sign(newest, true),
    })
}

/// The newest binding of a subkey decides; the subkey must have agreed to it.
fn subkey_state(key: &SignedPublicKey, subkey: &SignedPublicSubKey) -> Result<State, Reason> {
    let primary = &key.primary_key;
    let proven: Vec<&Signature> = subkey
        .signatures
        .iter()
        .filter(|signature| {
            has_hash(signature, is_strong)
                && is_understood(signature)
                && signature
                    .verify_subkey_binding(primary, &subkey.key)
                    .is_ok()
        })
        .collect();
    let newest = proven
        .iter()
        .filter(|signature| signature.typ() == Some(SignatureType::SubkeyBinding))
        .max_by_key(|signature| created(signature))
        .ok_or(Reason::Unbound)?;
    let may_sign = may_sign(newest, false);
    if may_sign {
        newest
            .embedded_signature()
            .filter(|back| has_hash(back, is_strong) && is_understood(back))
            .filter(|back| {
                back.verify_primary_key_binding(&subkey.key, primary)
                    .is_ok()
            })
            .ok_or(Reason::Unbound)?;
    }
    let made = i64::from(subkey.key.created_at().as_secs());
    Ok(State {
        made,
        expires: expiry(made, newest),
        revocations: proven
            .iter()
            .filter(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation))
            .map(|signature| revocation(signature))
            .collect(),
        may_sign,
    })
}
