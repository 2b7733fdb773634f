//! Release signatures: real ones with their known verdicts, and made ones for every rule of the policy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imgbuild::digest::Digest;
use imgbuild::openshift::signature::key::KeyringError;
use imgbuild::openshift::signature::store::{Verifier, VerifierError, parse_path};
use imgbuild::openshift::signature::{
    Keyring, Reason, SIGNATURE_LIMIT, SignatureError, Verified, verify,
};
use jiff::Timestamp;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/release")
        .join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(data(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn at(text: &str) -> Timestamp {
    format!("{text}T00:00:00Z").parse().unwrap()
}

/// The digest that the made signatures are for.
fn payload() -> Digest {
    Digest::from_hex(&"a".repeat(64)).unwrap()
}

fn ring(name: &str) -> Keyring {
    Keyring::parse(name, &read(&format!("made/{name}.key"))).unwrap()
}

fn made(signature: &str, key: &str, now: Option<&str>) -> Result<Verified, SignatureError> {
    verify(
        &read(&format!("made/{signature}.sig")),
        &payload(),
        &ring(key),
        now.map(at),
    )
}

/// The reason why the only signature does not count.
fn reason(signature: &str, key: &str, now: Option<&str>) -> Reason {
    match made(signature, key, now) {
        Err(SignatureError::NotTrusted(rejections)) => {
            assert_eq!(rejections.len(), 1, "{signature} holds one signature");
            rejections[0].reason.clone()
        }
        other => panic!("{signature} by {key} at {now:?}: {other:?}"),
    }
}

#[test]
fn real_signatures_have_their_known_verdicts() {
    let cases: Vec<BTreeMap<String, String>> =
        serde_json::from_slice(&read("signatures-expected.json")).unwrap();
    let mut everybody = Keyring::red_hat();
    everybody.extend(Keyring::community());
    let mut held = 0;
    for case in &cases {
        let file = &case["file"];
        let (digest, number) = parse_path(file).unwrap();
        assert_eq!(
            digest.to_string(),
            case["digest"],
            "{file} lies where it belongs"
        );
        let bytes = read(&format!(
            "signatures/sha256={}/signature-{number}",
            digest.hex()
        ));
        let verified = verify(&bytes, &digest, &everybody, None).unwrap();
        assert_eq!(
            verified.identity.to_string(),
            case["dockerReference"],
            "{file}: the name"
        );
        assert_eq!(verified.signers.len(), 1, "{file}: one signer");
        assert_eq!(
            verified.signers[0].fingerprint, case["keyFingerprint"],
            "{file}: the signer"
        );
        let today = verify(&bytes, &digest, &everybody, Some(at("2026-11-01")));
        if case["gpg"] == "good" {
            assert!(today.is_ok(), "{file}: good today as well: {today:?}");
        } else {
            let Err(SignatureError::NotTrusted(rejections)) = today else {
                panic!("{file}: the key has expired");
            };
            assert!(
                matches!(rejections[0].reason, Reason::KeyExpired { .. }),
                "{file}: {rejections:?}"
            );
        }
        let other = Digest::of(b"another image");
        assert!(
            matches!(
                verify(&bytes, &other, &everybody, None),
                Err(SignatureError::OtherImage { signed, payload }) if signed == digest && payload == other
            ),
            "{file}: a signature of one image says nothing about another"
        );
        held += 1;
    }
    println!(
        "signatures-expected.json: {held} of {} cases hold",
        cases.len()
    );
    assert_eq!(held, 2, "the table is complete");
}

#[test]
fn a_ring_takes_only_its_own_signatures() {
    let digest: Digest = "sha256:edd9824f0404f1a139688017e7001370e2f3fbc088b94da84506653b473fe140"
        .parse()
        .unwrap();
    let bytes = read(&format!("signatures/sha256={}/signature-1", digest.hex()));
    let error = verify(&bytes, &digest, &Keyring::red_hat(), None).unwrap_err();
    assert!(
        error
            .to_string()
            .to_uppercase()
            .contains("28B76E05B923888E"),
        "{error} must name the unknown key"
    );
    assert!(
        verify(&bytes, &digest, &Keyring::community(), None).is_ok(),
        "the right ring takes it"
    );
}

#[test]
fn embedded_keys_are_the_published_ones() {
    assert_eq!(
        Keyring::red_hat().fingerprints(),
        [
            "567E347AD0044ADE55BA8A5F199E2F91FD431D51",
            "B08B659EE86AF623BC90E8DB938A80CAF21541EB"
        ],
        "release key 2 and beta key 2"
    );
    assert_eq!(
        Keyring::community().fingerprints(),
        [
            "D04761B116203B0C0859B61628B76E05B923888E",
            "20CCC7AD272DCD3AA169F12A65C28371F55D29A9",
            "FE526D8F6FEDC123BE219E45CF4B45E2071F0337",
            "6A9588F07F2D3AE7973AD2A9193E53CCD2E2F7A4"
        ],
        "the four keys of the CI system"
    );
}

#[test]
fn good_signatures_count_whatever_their_packing() {
    for (signature, key) in [
        ("good", "plain"),
        ("uncompressed", "plain"),
        ("zlib", "plain"),
        ("sha512", "plain"),
        ("rsa", "rsa"),
        ("sub", "sub"),
        ("body-no-optional", "plain"),
    ] {
        let verified = made(signature, key, None).unwrap();
        assert_eq!(
            (verified.digest, verified.identity.to_string().as_str()),
            (payload(), "quay.io/r/release:4.16.1-x86_64"),
            "{signature}: what was signed"
        );
        assert_eq!(
            verified.signers[0].made,
            at("2020-06-01"),
            "{signature}: when"
        );
        assert_eq!(
            verified.signers[0].name.as_deref(),
            Some(format!("{key}@test").as_str()),
            "{signature}: by whom"
        );
    }
    let by_subkey = made("sub", "sub", Some("2026-01-01")).unwrap();
    assert_ne!(
        by_subkey.signers[0].fingerprint, by_subkey.signers[0].signing_key,
        "a subkey is named beside its primary key"
    );
}

#[test]
fn weak_hashes_count_for_nothing() {
    for (signature, hash) in [("sha1", "SHA1"), ("sha224", "SHA224")] {
        let Reason::WeakHash { hash: found } = reason(signature, "plain", None) else {
            panic!("{signature} must be refused for its hash");
        };
        assert_eq!(found, hash, "the hash is named");
    }
}

#[test]
fn every_signer_is_tried() {
    for key in ["plain", "other"] {
        let verified = made("two", key, None).unwrap();
        assert_eq!(
            (verified.signers.len(), verified.rejected.len()),
            (1, 1),
            "{key}: one signature counts, the other is reported"
        );
        assert_eq!(
            verified.rejected[0].reason,
            Reason::UnknownKey,
            "{key}: as unknown"
        );
    }
    let mut both = ring("plain");
    both.extend(ring("other"));
    let verified = verify(&read("made/two.sig"), &payload(), &both, None).unwrap();
    assert_eq!(verified.signers.len(), 2, "both count where both are known");
    assert_eq!(
        reason("other", "plain", None),
        Reason::UnknownKey,
        "a stranger does not count"
    );
}

#[test]
fn time_matters_as_the_policy_says() {
    // signature, key, now, whether it counts
    for (signature, key, now, counts) in [
        // A signature that expires after 30 days.
        ("expiring", "plain", None, true),
        ("expiring", "plain", Some("2020-06-30"), true),
        ("expiring", "plain", Some("2020-07-02"), false),
        // A key that expires in 2021.
        ("before-expiry", "expiring", None, true),
        ("before-expiry", "expiring", Some("2020-12-31"), true),
        ("before-expiry", "expiring", Some("2022-01-01"), false),
        ("after-expiry", "late", None, false),
        ("after-expiry", "late", Some("2022-06-02"), false),
        // From the future.
        ("good", "plain", Some("2020-05-01"), false),
        ("good", "plain", Some("2020-05-31"), true),
        // Keys revoked in June 2021: compromised, and superseded.
        ("hard-before", "hard", None, false),
        ("hard-after", "hard", None, false),
        ("hard-before", "hard", Some("2021-01-01"), false),
        ("soft-before", "soft", None, true),
        ("soft-before", "soft", Some("2021-01-01"), true),
        ("soft-before", "soft", Some("2022-01-01"), false),
        ("soft-after", "soft", None, false),
        // A signing subkey: as it was, expiring in 2021, revoked as compromised.
        ("sub", "sub", Some("2026-01-01"), true),
        ("sub-after", "sub", None, true),
        ("sub", "sub-expiring", None, true),
        ("sub", "sub-expiring", Some("2022-01-01"), false),
        ("sub-after", "sub-expiring", None, false),
        ("sub", "sub-revoked", None, false),
    ] {
        let result = made(signature, key, now);
        assert_eq!(
            result.is_ok(),
            counts,
            "{signature} by {key} at {now:?}: {result:?}"
        );
        if !counts {
            let found = reason(signature, key, now);
            assert!(
                matches!(
                    found,
                    Reason::Expired { .. }
                        | Reason::KeyExpired { .. }
                        | Reason::KeyRevoked { .. }
                        | Reason::Future { .. }
                ),
                "{signature} by {key} at {now:?}: {found}"
            );
        }
    }
}

#[test]
fn messages_of_another_form_are_refused() {
    for (signature, part) in [
        ("armored", "ASCII armor"),
        ("clear", "ASCII armor"),
        ("encrypted", "encrypted"),
        ("detached", "no text"),
        ("unsigned", "not signed"),
        ("bomb", "unpacks to more than"),
    ] {
        let error = made(signature, "plain", None).unwrap_err();
        assert!(
            error.to_string().contains(part),
            "{signature}: {error} must contain {part:?}"
        );
    }
    assert_eq!(
        reason("text", "plain", None),
        Reason::Kind,
        "text signatures are another kind"
    );
    for (bytes, part) in [
        (vec![], "no packets"),
        (b"hello".to_vec(), "not framed"),
        (vec![0; SIGNATURE_LIMIT + 1], "at most"),
    ] {
        let error = verify(&bytes, &payload(), &ring("plain"), None).unwrap_err();
        assert!(
            error.to_string().contains(part),
            "{error} must contain {part:?}"
        );
        assert!(
            !error.to_string().contains("backtrace"),
            "an error shows nothing of the inside"
        );
    }
}

#[test]
fn a_signed_text_must_be_what_it_should_be() {
    for (name, part) in [
        ("body-other-digest", "not for sha256:aaaa"),
        ("body-other-type", "cosign container image signature"),
        ("body-no-identity", "the signed name"),
        ("body-critical-member", "atomic container signature"),
        ("body-twice", "atomic container signature"),
        ("body-sha512-digest", "the signed digest"),
        ("body-no-json", "atomic container signature"),
    ] {
        let error = made(name, "plain", None).unwrap_err();
        assert!(
            error.to_string().contains(part),
            "{name}: {error} must contain {part:?}"
        );
        assert!(
            !matches!(error, SignatureError::NotTrusted(_)),
            "{name} was signed; its text is at fault"
        );
    }
}

#[test]
fn a_changed_byte_anywhere_is_noticed() {
    let mut everybody = Keyring::red_hat();
    everybody.extend(Keyring::community());
    everybody.extend(ring("plain"));
    let digest = |hex: &str| Digest::from_hex(hex).unwrap();
    let e3f1 = "e3f12513a4b22a2d7c0e7c9207f52128113758d9d68c7d06b11a0ac7672966f7";
    for (bytes, digest) in [
        (read("made/uncompressed.sig"), payload()),
        (read("made/good.sig"), payload()),
        (
            read(&format!("signatures/sha256={e3f1}/signature-1")),
            digest(e3f1),
        ),
    ] {
        let whole = verify(&bytes, &digest, &everybody, None).unwrap();
        for length in 0..bytes.len() {
            assert!(
                verify(&bytes[..length], &digest, &everybody, None).is_err(),
                "{length} of {} bytes are not the whole",
                bytes.len()
            );
        }
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 0x20;
            // Framing and the unsigned parts of a packet (a file name, a hint at the key) may change;
            // what was signed and by whom may not.
            if let Ok(verified) = verify(&changed, &digest, &everybody, None) {
                assert_eq!(
                    (&verified.digest, &verified.identity, &verified.signers),
                    (&whole.digest, &whole.identity, &whole.signers),
                    "a change of byte {place} must not change what is proven"
                );
            }
        }
    }
}

#[test]
fn keys_that_cannot_be_used_are_refused_by_name() {
    for (bytes, part) in [
        (&b""[..], "no OpenPGP public key"),
        (
            b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc",
            "does not end",
        ),
        (b"pub   4096R/FD431D51 2009-10-22", "mine"),
    ] {
        let error = Keyring::parse("mine", bytes).unwrap_err();
        assert!(
            error.to_string().contains(part),
            "{error} must contain {part:?}"
        );
    }
    let truncated = read("made/rsa.key");
    assert!(
        matches!(
            Keyring::parse("mine", &truncated[..200]),
            Err(KeyringError::Form { .. } | KeyringError::Empty { .. })
        ),
        "half a key is none"
    );
    let two = [
        include_str!("../src/openshift/keys/verifier-public-key-openshift-ci"),
        include_str!("../src/openshift/keys/verifier-public-key-redhat-release"),
    ]
    .concat();
    assert_eq!(
        Keyring::parse("two", two.as_bytes())
            .unwrap()
            .fingerprints()
            .len(),
        2,
        "every block is read"
    );
}

/// The manifests of library-go's own tests (`pkg/verify/testdata/manifests`).
#[test]
fn a_release_says_who_must_sign_it() {
    let find = |name: &str| {
        let bytes = read(&format!("verification-manifests/{name}.yaml"));
        Verifier::find([
            (
                "0000_00_other.yaml",
                &b"kind: ConfigMap\nmetadata: {name: x}\n"[..],
            ),
            (name, bytes.as_slice()),
        ])
    };
    let red_hat = ["567E347AD0044ADE55BA8A5F199E2F91FD431D51"];
    for name in ["loads-valid", "only-first-used"] {
        let verifier = find(name).unwrap().unwrap();
        let rings: Vec<(&str, Vec<String>)> = verifier
            .rings
            .iter()
            .map(|(name, ring)| (name.as_str(), ring.fingerprints()))
            .collect();
        assert_eq!(
            rings,
            [("redhat", red_hat.map(str::to_owned).to_vec())],
            "{name}: the first object counts"
        );
        assert_eq!(
            verifier.stores,
            BTreeMap::from([(
                "local".to_owned(),
                "file://../verify/testdata/signatures".to_owned()
            )]),
            "{name}: its stores"
        );
    }
    for name in ["requires-data", "requires-stores", "requires-verifiers"] {
        assert!(
            matches!(
                find(name),
                Err(VerifierError::NoKeys { .. }
                    | VerifierError::NoStores { .. }
                    | VerifierError::Yaml { .. })
            ),
            "{name} is refused"
        );
    }
    println!("library-go manifests: 5 of 5 cases hold");
    assert!(
        Verifier::find([("a.yaml", &b"kind: Secret\n"[..])])
            .unwrap()
            .is_none(),
        "a release without such an object names nobody"
    );
}

#[test]
fn every_ring_must_accept_a_signature() {
    let rings = |names: &[&str]| Verifier {
        rings: names
            .iter()
            .map(|name| ((*name).to_owned(), ring(name)))
            .collect(),
        stores: BTreeMap::new(),
    };
    let (plain, other, two) = (
        read("made/good.sig"),
        read("made/other.sig"),
        read("made/two.sig"),
    );
    let both = rings(&["plain", "other"]);
    for signatures in [&[plain.as_slice(), other.as_slice()][..], &[two.as_slice()]] {
        let proofs = both.verify(signatures, &payload(), None).unwrap();
        assert_eq!(proofs.len(), 2, "each ring has its proof");
    }
    let error = both.verify(&[&plain], &payload(), None).unwrap_err();
    assert!(
        error.to_string().contains("\"other\""),
        "{error} must name the ring that nobody satisfied"
    );
    assert!(
        both.verify(&[], &payload(), None).is_err(),
        "no signature, no proof"
    );
    assert_eq!(
        (
            Verifier::red_hat().stores.len(),
            Verifier::community().stores.len()
        ),
        (2, 1),
        "the stores clusters ask"
    );
}

/// A signature packet whose hashed part holds a signature, whose hashed part holds a signature, and so on.
fn nested(levels: usize) -> Vec<u8> {
    let mut inner: Vec<u8> = Vec::new();
    for _ in 0..levels {
        let mut hashed = Vec::new();
        if !inner.is_empty() {
            let length = inner.len() + 1;
            hashed.push(255);
            hashed.extend(u32::try_from(length).unwrap().to_be_bytes());
            hashed.push(32);
            hashed.extend(&inner);
        }
        // A primary key binding, the one type that may stand inside another; the outermost is of a file.
        let mut next = vec![4, 0x19, 1, 8];
        next.extend(u16::try_from(hashed.len()).unwrap().to_be_bytes());
        next.extend(hashed);
        next.extend([0, 0, 1, 2, 0, 8, 0x80]);
        inner = next;
    }
    inner[1] = 0;
    let mut packet = vec![0xc2, 0xff];
    packet.extend(u32::try_from(inner.len()).unwrap().to_be_bytes());
    packet.extend(inner);
    packet
}

#[test]
fn nested_signatures_do_not_exhaust_the_stack() {
    for levels in [1, 2, 3, 100, 1000, 3000] {
        let error = verify(&nested(levels), &payload(), &ring("plain"), None).unwrap_err();
        let text = error.to_string();
        assert!(
            text.len() < 250 && !text.contains("src/"),
            "{levels} levels: {text} must be short and show nothing of the inside"
        );
        println!("{levels}: {text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_change_of_a_message_or_a_key_panics(
        file in proptest::sample::select(vec![
            "made/good.sig", "made/uncompressed.sig", "made/two.sig", "made/encrypted.sig",
            "made/sub-revoked.key", "made/hard.key", "made/rsa.key",
        ]),
        edits in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 1..6),
        cut in proptest::prelude::any::<proptest::sample::Index>(),
    ) {
        let mut bytes = read(file);
        for (place, value) in edits {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(cut.index(bytes.len() * 4).max(1));
        let _ = verify(&bytes, &payload(), &ring("plain"), None);
        if let Ok(ring) = Keyring::parse(file, &bytes) {
            let _ = verify(&read("made/sub.sig"), &payload(), &ring, None);
            let _ = verify(&read("made/hard-before.sig"), &payload(), &ring, None);
        }
    }
}
