//! Signatures of made releases: a key that everybody knows, and messages that it signs.
//!
//! Both are OpenPGP (RFC 9580) in its oldest form that is still in use, version 4 with EdDSA, so that other programs
//! read them. The same text gives the same bytes on every machine and any day: times are written down, not looked up.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// When the key was made and every signature with it: 14 November 2023.
const TIME: u32 = 1_700_000_000;

/// EdDSA over Curve25519, by its first number.
const ALGORITHM: u8 = 22;

/// SHA-256.
const HASH: u8 = 8;

/// The object identifier of Ed25519, as keys have it.
const CURVE: [u8; 9] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

const SIGNATURE: u8 = 2;
const ONE_PASS: u8 = 4;
const PUBLIC_KEY: u8 = 6;
const LITERAL: u8 = 11;
const USER: u8 = 13;

/// A signature over bytes.
const BINARY: u8 = 0x00;

/// A signature over a key and its user.
const CERTIFICATION: u8 = 0x13;

/// Who signs. The key is no secret: it vouches for nothing but that the story is consistent.
pub struct Signer {
    pair: Ed25519KeyPair,
    user: String,
}

impl Signer {
    /// The signer of that name; the key follows from it.
    #[must_use]
    pub fn new(user: &str) -> Self {
        let seed: [u8; 32] = Sha256::digest(user.as_bytes()).into();
        Self {
            pair: Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes are a seed"),
            user: user.to_owned(),
        }
    }

    /// The public key, armored.
    #[must_use]
    pub fn public_key(&self) -> String {
        let key = self.key();
        let mut certified = framed(0x99, &key, 2);
        certified.extend(framed(0xb4, self.user.as_bytes(), 4));
        // May certify and sign.
        let flags = [2, 27, 0x03];
        let bytes = [
            packet(PUBLIC_KEY, &key),
            packet(USER, self.user.as_bytes()),
            packet(
                SIGNATURE,
                &self.signature(CERTIFICATION, &certified, &flags),
            ),
        ]
        .concat();
        let text = STANDARD.encode(&bytes);
        let mut out = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n".to_owned();
        for line in text.as_bytes().chunks(64) {
            out.push_str(&String::from_utf8_lossy(line));
            out.push('\n');
        }
        let sum = checksum(&bytes).to_be_bytes();
        out + "=" + &STANDARD.encode(&sum[1..]) + "\n-----END PGP PUBLIC KEY BLOCK-----\n"
    }

    /// The signature of a payload under the name `reference`, as stores of signatures keep it.
    #[must_use]
    pub fn sign(&self, payload: &Digest, reference: &str) -> Vec<u8> {
        let body = json!({
            "critical": {
                "image": { "docker-manifest-digest": payload },
                "type": "atomic container signature",
                "identity": { "docker-reference": reference },
            },
            "optional": { "creator": self.user },
        })
        .to_string();
        let mut literal = vec![b'b', 0];
        literal.extend_from_slice(&TIME.to_be_bytes());
        literal.extend_from_slice(body.as_bytes());
        let mut announced = vec![3, BINARY, HASH, ALGORITHM];
        announced.extend_from_slice(&self.fingerprint()[12..]);
        announced.push(1);
        [
            packet(ONE_PASS, &announced),
            packet(LITERAL, &literal),
            packet(SIGNATURE, &self.signature(BINARY, body.as_bytes(), &[])),
        ]
        .concat()
    }

    /// The body of the packet of the public key.
    fn key(&self) -> Vec<u8> {
        let mut key = vec![4];
        key.extend_from_slice(&TIME.to_be_bytes());
        key.extend_from_slice(&[ALGORITHM, 9]);
        key.extend_from_slice(&CURVE);
        let point = [&[0x40], self.pair.public_key().as_ref()].concat();
        key.extend(number(&point));
        key
    }

    fn fingerprint(&self) -> [u8; 20] {
        let framed = framed(0x99, &self.key(), 2);
        let mut fingerprint = [0; 20];
        fingerprint.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &framed).as_ref());
        fingerprint
    }

    /// The body of the packet of a signature over `data`, with further claims that it covers.
    fn signature(&self, kind: u8, data: &[u8], claims: &[u8]) -> Vec<u8> {
        let fingerprint = self.fingerprint();
        let mut covered = vec![5, 2];
        covered.extend_from_slice(&TIME.to_be_bytes());
        covered.extend_from_slice(&[22, 33, 4]);
        covered.extend_from_slice(&fingerprint);
        covered.extend_from_slice(claims);
        let mut body = vec![4, kind, ALGORITHM, HASH];
        body.extend(counted(&covered));
        let mut hasher = Sha256::new();
        hasher.update(data);
        hasher.update(&body);
        hasher.update([4, 0xff]);
        hasher.update(
            u32::try_from(body.len())
                .expect("a short body")
                .to_be_bytes(),
        );
        let hash = hasher.finalize();
        let signed = self.pair.sign(&hash);
        let mut open = vec![9, 16];
        open.extend_from_slice(&fingerprint[12..]);
        body.extend(counted(&open));
        body.extend_from_slice(&hash[..2]);
        let (first, second) = signed.as_ref().split_at(32);
        body.extend(number(first));
        body.extend(number(second));
        body
    }
}

/// A packet of a kind.
fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("packets are short");
    let mut out = vec![0xc0 | kind, 0xff];
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// Bytes after their length, in two bytes.
fn counted(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a short list");
    [&length.to_be_bytes(), bytes].concat()
}

/// Bytes as signatures over keys frame them: a mark, their length in so many bytes, and they.
fn framed(mark: u8, bytes: &[u8], width: usize) -> Vec<u8> {
    let length = u32::try_from(bytes.len())
        .expect("a short text")
        .to_be_bytes();
    [&[mark], &length[4 - width..], bytes].concat()
}

/// A large number: its length in bits, and its bytes without leading zeros.
fn number(bytes: &[u8]) -> Vec<u8> {
    let start = bytes
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(bytes.len());
    let bytes = &bytes[start..];
    let bits = bytes.first().map_or(0, |first| {
        bytes.len() * 8 - usize::try_from(first.leading_zeros()).expect("at most eight")
    });
    let bits = u16::try_from(bits).expect("256 bits and a few");
    [&bits.to_be_bytes(), bytes].concat()
}

/// The checksum of armor (CRC-24).
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = 0x00b7_04ce;
    for byte in bytes {
        sum ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            sum <<= 1;
            if sum & 0x0100_0000 != 0 {
                sum ^= 0x0186_4cfb;
            }
        }
    }
    sum & 0x00ff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openshift::signature::{Keyring, verify};

    #[test]
    fn what_is_signed_can_be_verified_and_is_the_same_every_time() {
        let signer = Signer::new("Demo Releases <releases@example.test>");
        let payload = Digest::of(b"payload");
        let bytes = signer.sign(&payload, "registry.example.test/shop/release:1.4.0-x86_64");
        let ring = Keyring::parse("demo", signer.public_key().as_bytes()).unwrap();
        verify(&bytes, &payload, &ring, None).unwrap();
        assert_eq!(
            bytes,
            Signer::new("Demo Releases <releases@example.test>")
                .sign(&payload, "registry.example.test/shop/release:1.4.0-x86_64"),
            "nothing depends on the day"
        );
        assert!(
            verify(&bytes, &Digest::of(b"another"), &ring, None).is_err(),
            "it is for this payload alone"
        );
        let other = Keyring::parse("other", Signer::new("Other").public_key().as_bytes()).unwrap();
        assert!(
            verify(&bytes, &payload, &other, None).is_err(),
            "and by this key alone"
        );
        let place = |text: &[u8]| bytes.windows(text.len()).position(|part| part == text);
        for at in place(b"{\"").unwrap()..place(b"\"}}").unwrap() + 3 {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(
                verify(&changed, &payload, &ring, None).is_err(),
                "byte {at} is covered"
            );
        }
    }
}
