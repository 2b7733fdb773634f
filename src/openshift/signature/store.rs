//! Where signatures are kept: the layout of a signature store, the objects clusters read, and who must sign.
//!
//! ```text
//! <store>/sha256=<hex>/signature-1      and -2, -3 ... while there are more
//! ```
//!
//! A cluster finds signatures in ConfigMaps of the namespace `openshift-config-managed` with the label
//! `release.openshift.io/verification-signatures`, under keys of `binaryData` that start with `sha256-<hex>-`. There are two
//! forms, and clusters take both: one map for all ([`aggregate`]) and one per digest ([`of_digest`]).
//!
//! Which keys must have signed a release, and which stores are asked, is in the release itself: the first
//! ConfigMap among its manifests with the annotation `release.openshift.io/verification-config-map` ([`Verifier`]).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::key::{Keyring, KeyringError};
use super::{SignatureError, Verified, verify};
use crate::digest::Digest;
use crate::hint::Hint;

/// The stores of Red Hat's signatures, the first choice first.
pub const RED_HAT_STORES: [&str; 2] = [
    "https://mirror.openshift.com/pub/openshift-v4/signatures/openshift/release",
    "https://storage.googleapis.com/openshift-release/official/signatures/openshift/release",
];

/// The store of signatures for OKD and CI releases.
pub const COMMUNITY_STORES: [&str; 1] =
    ["https://storage.googleapis.com/openshift-ci-release/releases/signatures/openshift/release"];

/// How many signatures of one digest are looked for.
pub const SIGNATURES_PER_DIGEST: u32 = 9;

/// What one object may hold in a cluster's database, in bytes.
pub const MAP_LIMIT: usize = 1 << 20;

/// The annotation of the object that says who must sign.
const VERIFICATION_ANNOTATION: &str = "release.openshift.io/verification-config-map";

/// The path of a signature in a store; `number` counts from 1.
#[must_use]
pub fn path(digest: &Digest, number: u32) -> String {
    format!("sha256={}/signature-{number}", digest.hex())
}

/// The address of a signature in a store, which may be written with or without a closing slash.
#[must_use]
pub fn address(store: &str, digest: &Digest, number: u32) -> String {
    format!("{}/{}", store.trim_end_matches('/'), path(digest, number))
}

/// The path of a signature in the graph-data image, where an update service in the cluster looks for it.
#[must_use]
pub fn graph_data_path(digest: &Digest, number: u32) -> String {
    format!("signatures/sha256/{}/signature-{number}", digest.hex())
}

/// The digest and the number that a path in a store stands for.
#[must_use]
pub fn parse_path(path: &str) -> Option<(Digest, u32)> {
    let (directory, file) = path.rsplit_once('/')?;
    let directory = directory.rsplit('/').next()?;
    let digest = Digest::from_hex(directory.strip_prefix("sha256=")?).ok()?;
    let number: u32 = file.strip_prefix("signature-")?.parse().ok()?;
    (number > 0 && file == format!("signature-{number}")).then_some((digest, number))
}

/// The file under which oc-mirror keeps a signature: `<release tag>-sha256-<hex>`.
#[must_use]
pub fn saved_name(release_tag: &str, digest: &Digest) -> String {
    format!("{release_tag}-sha256-{}", digest.hex())
}

/// The release tag and the digest in a name made by [`saved_name`].
#[must_use]
pub fn parse_saved_name(name: &str) -> Option<(&str, Digest)> {
    let (tag, hex) = name.rsplit_once("-sha256-")?;
    Some((tag, Digest::from_hex(hex).ok()?))
}

/// Signatures that do not fit into one object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{count} signatures take {size} bytes in one ConfigMap; clusters accept {MAP_LIMIT}")]
pub struct MapError {
    /// How many there are.
    pub count: usize,
    /// What they take, encoded.
    pub size: usize,
}

impl Hint for MapError {
    fn hint(&self) -> Option<String> {
        Some("write one ConfigMap per release".to_owned())
    }
}

/// A ConfigMap with signatures in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SignatureMap {
    api_version: &'static str,
    kind: &'static str,
    metadata: MapMetadata,
    binary_data: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct MapMetadata {
    name: String,
    namespace: &'static str,
    labels: BTreeMap<&'static str, &'static str>,
}

impl SignatureMap {
    fn new(name: String, signatures: Vec<(String, &[u8])>) -> Result<Self, MapError> {
        let count = signatures.len();
        let binary_data: BTreeMap<String, String> = signatures
            .into_iter()
            .map(|(key, bytes)| (key, STANDARD.encode(bytes)))
            .collect();
        let size = binary_data
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if size > MAP_LIMIT {
            return Err(MapError { count, size });
        }
        Ok(Self {
            api_version: "v1",
            kind: "ConfigMap",
            metadata: MapMetadata {
                name,
                namespace: "openshift-config-managed",
                labels: BTreeMap::from([("release.openshift.io/verification-signatures", "")]),
            },
            binary_data,
        })
    }

    /// The name of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// What it holds: keys and Base64.
    #[must_use]
    pub const fn data(&self) -> &BTreeMap<String, String> {
        &self.binary_data
    }

    /// The object as indented JSON with a closing newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self)
            .expect("a map of texts can always be written as JSON");
        text.push('\n');
        text
    }

    /// The object as YAML with a closing newline.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("a map of texts can always be written as YAML")
    }
}

/// The one object with all signatures, as oc-mirror v2 writes it (`signature-configmap.json` and `.yaml`).
///
/// Keys are numbered through in the order given, so give a stable one.
pub fn aggregate(signatures: &[(Digest, &[u8])]) -> Result<SignatureMap, MapError> {
    SignatureMap::new(
        "mirrored-release-signatures".to_owned(),
        signatures
            .iter()
            .enumerate()
            .map(|(index, (digest, bytes))| {
                (format!("sha256-{}-{}", digest.hex(), index + 1), *bytes)
            })
            .collect(),
    )
}

/// The object with the signatures of one release, as `oc adm release mirror` and oc-mirror v1 write it.
pub fn of_digest(digest: &Digest, signatures: &[&[u8]]) -> Result<SignatureMap, MapError> {
    SignatureMap::new(
        format!("sha256-{}", digest.hex()),
        signatures
            .iter()
            .enumerate()
            .map(|(index, bytes)| (format!("sha256-{}-{}", digest.hex(), index + 1), *bytes))
            .collect(),
    )
}

/// Signatures in an object that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadMapError {
    /// It is neither YAML nor JSON of the expected shape.
    #[error("not a ConfigMap")]
    Yaml {
        /// What is wrong, and where.
        #[source]
        source: serde_yaml::Error,
    },
    /// It is another object.
    #[error("the object is a {found:?}; expected a ConfigMap")]
    Kind {
        /// What it says it is.
        found: String,
    },
    /// A key does not name a digest.
    #[error("key {key:?} does not start with \"sha256-\" and 64 hexadecimal digits")]
    Key {
        /// The key.
        key: String,
    },
    /// A value is not Base64.
    #[error("the value of key {key:?} is not Base64")]
    Value {
        /// The key.
        key: String,
        /// What is wrong, and where.
        #[source]
        source: base64::DecodeError,
    },
}

/// Reads the signatures in an object of either form, as YAML or JSON; ascending by digest, then by key.
pub fn read_map(bytes: &[u8]) -> Result<Vec<(Digest, Vec<u8>)>, ReadMapError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Map {
        #[serde(default)]
        kind: String,
        binary_data: Option<BTreeMap<String, String>>,
    }
    let map: Map = serde_yaml::from_slice(bytes).map_err(|source| ReadMapError::Yaml { source })?;
    if map.kind != "ConfigMap" {
        return Err(ReadMapError::Kind { found: map.kind });
    }
    map.binary_data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| {
            let digest = key
                .strip_prefix("sha256-")
                .and_then(|rest| rest.get(..64))
                .and_then(|hex| Digest::from_hex(hex).ok())
                .ok_or_else(|| ReadMapError::Key { key: key.clone() })?;
            let signature = STANDARD
                .decode(value.trim())
                .map_err(|source| ReadMapError::Value { key, source })?;
            Ok((digest, signature))
        })
        .collect()
}

/// The file that [`of_digest`] goes into.
#[must_use]
pub fn of_digest_file(digest: &Digest) -> String {
    format!("signature-sha256-{}.json", &digest.hex()[..16])
}

/// A manifest that does not say who must sign.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// It is not YAML.
    #[error("the manifest {name} cannot be read")]
    Yaml {
        /// Which one.
        name: String,
        /// What is wrong, and where.
        #[source]
        source: serde_yaml::Error,
    },
    /// A key in it cannot be read.
    #[error("the manifest {name} has a key that cannot be used")]
    Key {
        /// Which one.
        name: String,
        /// What is wrong with it.
        #[source]
        source: KeyringError,
    },
    /// It names no keys.
    #[error("the manifest {name} has no verifier-public-key-*")]
    NoKeys {
        /// Which one.
        name: String,
    },
    /// It names no stores.
    #[error("the manifest {name} has no store-*")]
    NoStores {
        /// Which one.
        name: String,
    },
}

/// A ring that accepts none of the signatures.
#[derive(Debug, thiserror::Error)]
#[error("none of {count} signatures is by the key {ring:?}")]
pub struct RingError {
    /// The name of the ring.
    pub ring: String,
    /// How many signatures there were.
    pub count: usize,
    /// What was wrong with the last one.
    #[source]
    pub source: Option<SignatureError>,
}

/// Who must sign a release, and where signatures are.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// By name; each must accept a signature.
    pub rings: BTreeMap<String, Keyring>,
    /// Addresses by name.
    pub stores: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Manifest {
    kind: Option<String>,
    metadata: Option<ManifestMetadata>,
    data: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct ManifestMetadata {
    annotations: Option<BTreeMap<String, String>>,
}

impl Verifier {
    /// Red Hat's keys, any of which will do, and stores.
    #[must_use]
    pub fn red_hat() -> Self {
        Self::of("redhat", Keyring::red_hat(), &RED_HAT_STORES)
    }

    /// The keys and the store of OKD and CI releases.
    #[must_use]
    pub fn community() -> Self {
        Self::of("openshift-ci", Keyring::community(), &COMMUNITY_STORES)
    }

    fn of(name: &str, ring: Keyring, stores: &[&str]) -> Self {
        Self {
            rings: BTreeMap::from([(name.to_owned(), ring)]),
            stores: stores
                .iter()
                .enumerate()
                .map(|(index, store)| (format!("{name}-{}", index + 1), (*store).to_owned()))
                .collect(),
        }
    }

    /// Finds the object that says who must sign among a release's manifests, each with its file name.
    ///
    /// The first one counts; `None` if there is none. A file may hold several documents; those that are no objects of
    /// this kind are passed over.
    pub fn find<'a>(
        manifests: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Option<Self>, VerifierError> {
        for (name, bytes) in manifests {
            if !contains(bytes, VERIFICATION_ANNOTATION.as_bytes()) {
                continue;
            }
            for document in serde_yaml::Deserializer::from_slice(bytes) {
                let manifest = Option::<Manifest>::deserialize(document).map_err(|source| {
                    VerifierError::Yaml {
                        name: name.to_owned(),
                        source,
                    }
                })?;
                let Some(manifest) = manifest else { continue };
                let marked = manifest
                    .metadata
                    .and_then(|metadata| metadata.annotations)
                    .is_some_and(|annotations| annotations.contains_key(VERIFICATION_ANNOTATION));
                if marked && manifest.kind.as_deref() == Some("ConfigMap") {
                    return Self::from_data(name, &manifest.data.unwrap_or_default()).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn from_data(name: &str, data: &BTreeMap<String, String>) -> Result<Self, VerifierError> {
        let mut rings = BTreeMap::new();
        let mut stores = BTreeMap::new();
        for (key, value) in data {
            if let Some(ring) = key.strip_prefix("verifier-public-key-") {
                let keys =
                    Keyring::parse(key, value.as_bytes()).map_err(|source| VerifierError::Key {
                        name: name.to_owned(),
                        source,
                    })?;
                rings.insert(ring.to_owned(), keys);
            } else if let Some(store) = key.strip_prefix("store-") {
                stores.insert(store.to_owned(), value.trim().to_owned());
            }
        }
        if rings.is_empty() {
            return Err(VerifierError::NoKeys {
                name: name.to_owned(),
            });
        }
        if stores.is_empty() {
            return Err(VerifierError::NoStores {
                name: name.to_owned(),
            });
        }
        Ok(Self { rings, stores })
    }

    /// Checks that every ring accepts one of the signatures; gives the proof of each ring, by name.
    pub fn verify(
        &self,
        signatures: &[&[u8]],
        payload: &Digest,
        now: Option<Timestamp>,
    ) -> Result<BTreeMap<String, Verified>, RingError> {
        self.rings
            .iter()
            .map(|(name, ring)| {
                let mut last = None;
                for signature in signatures {
                    match verify(signature, payload, ring, now) {
                        Ok(verified) => return Ok((name.clone(), verified)),
                        Err(error) => last = Some(error),
                    }
                }
                Err(RingError {
                    ring: name.clone(),
                    count: signatures.len(),
                    source: last,
                })
            })
            .collect()
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(bytes, part).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digit: &str) -> Digest {
        Digest::from_hex(&digit.repeat(64)).unwrap()
    }

    #[test]
    fn a_store_has_one_layout() {
        let a = digest("a");
        let expected = format!("https://host/x/sha256={}/signature-2", "a".repeat(64));
        for store in ["https://host/x", "https://host/x/", "https://host/x//"] {
            assert_eq!(address(store, &a, 2), expected, "{store}");
        }
        assert_eq!(
            parse_path(&expected),
            Some((a, 2)),
            "a path can be read back"
        );
        for wrong in [
            format!("sha256={}/signature-0", "a".repeat(64)),
            format!("sha256={}/signature-01", "a".repeat(64)),
            format!("sha256={}/signature-", "a".repeat(64)),
            format!("sha256={}/signature-1.sig", "a".repeat(64)),
            format!("sha512={}/signature-1", "a".repeat(64)),
            "signature-1".to_owned(),
        ] {
            assert_eq!(parse_path(&wrong), None, "{wrong} is no place in a store");
        }
    }

    #[test]
    fn a_saved_signature_is_found_by_its_name() {
        let a = digest("a");
        let name = saved_name("4.16.1-x86_64", &a);
        assert_eq!(
            parse_saved_name(&name),
            Some(("4.16.1-x86_64", a)),
            "a name can be read back"
        );
        assert_eq!(
            parse_saved_name("4.16.1-x86_64"),
            None,
            "others are passed over"
        );
    }

    #[test]
    fn one_object_holds_all_signatures() {
        let map = aggregate(&[(digest("b"), b"one"), (digest("a"), b"two")]).unwrap();
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        assert_eq!(
            map.to_yaml(),
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: mirrored-release-signatures\n  namespace: openshift-config-managed\n  labels:\n    release.openshift.io/verification-signatures: \"\"\nbinaryData:\n  sha256-{a}-2: dHdv\n  sha256-{b}-1: b25l\n"
            ),
            "the object is pinned"
        );
        let json: serde_json::Value = serde_json::from_str(&map.to_json()).unwrap();
        let yaml: serde_json::Value = serde_yaml::from_str(&map.to_yaml()).unwrap();
        assert_eq!(json, yaml, "both files hold one object");
        assert!(
            map.to_json().ends_with("}\n"),
            "a text file ends with a newline"
        );
    }

    #[test]
    fn one_object_per_release_is_named_after_it() {
        let a = digest("a");
        let map = of_digest(&a, &[b"one", b"two"]).unwrap();
        let json: serde_json::Value = serde_json::from_str(&map.to_json()).unwrap();
        let hex = "a".repeat(64);
        assert_eq!(
            json,
            serde_json::json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": format!("sha256-{hex}"),
                    "namespace": "openshift-config-managed",
                    "labels": {"release.openshift.io/verification-signatures": ""},
                },
                "binaryData": {
                    format!("sha256-{hex}-1"): "b25l",
                    format!("sha256-{hex}-2"): "dHdv",
                },
            }),
            "keys are numbered per digest"
        );
        assert_eq!(
            (map.name(), of_digest_file(&a).as_str()),
            (
                format!("sha256-{hex}").as_str(),
                "signature-sha256-aaaaaaaaaaaaaaaa.json"
            ),
            "the names scripts look for"
        );
    }

    #[test]
    fn signatures_can_be_read_back() {
        let (a, b) = (digest("a"), digest("b"));
        let map = aggregate(&[(b, b"one"), (a, b"two")]).unwrap();
        let expected = vec![(a, b"two".to_vec()), (b, b"one".to_vec())];
        for text in [map.to_yaml(), map.to_json()] {
            assert_eq!(read_map(text.as_bytes()).unwrap(), expected, "{text}");
        }
        assert_eq!(
            read_map(b"kind: ConfigMap\nbinaryData: {}\n").unwrap(),
            [],
            "an empty object holds none"
        );
        for (text, part) in [
            ("kind: Secret", "\"Secret\""),
            ("[]", "not a ConfigMap"),
            ("kind: ConfigMap\nbinaryData: {x: ''}", "\"x\""),
            (
                &format!(
                    "kind: ConfigMap\nbinaryData: {{sha256-{}-1: '?'}}",
                    "a".repeat(64)
                ),
                "not Base64",
            ),
        ] {
            let error = read_map(text.as_bytes()).unwrap_err();
            assert!(
                error.to_string().contains(part),
                "{error} must contain {part:?}"
            );
        }
        assert_eq!(
            graph_data_path(&a, 1),
            format!("signatures/sha256/{}/signature-1", "a".repeat(64)),
            "the place in the graph-data image"
        );
    }

    #[test]
    fn signatures_that_do_not_fit_are_refused() {
        let big = vec![0; MAP_LIMIT];
        let error = aggregate(&[(digest("a"), &big)]).unwrap_err();
        assert!(error.hint().is_some(), "{error} has a way out");
    }
}
