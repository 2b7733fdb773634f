//! What a manifest says: descriptors, image manifests, indexes.
//!
//! The bytes of a manifest are the truth and are kept as they came; this module only reads them. Unknown
//! fields are left alone. Media types of OCI 1.1 and Docker schema 2 are read alike; Docker schema 1 is
//! refused by name, since its digest does not cover what a registry serves.
//!
//! Follows the OCI image specification 1.1: `descriptor.md`, `manifest.md`, `image-index.md`; and the Docker
//! registry's `manifest-v2-2.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};
use crate::hint::Hint;

/// Largest manifest that is read; the limit that the OCI distribution specification recommends.
pub const MANIFEST_LIMIT: u64 = 4 << 20;

/// Media type of an OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI 1.1 release-candidate artifact manifest.
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
/// Media type of a Docker schema 2 manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of a Docker schema 1 manifest.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Media type of a signed Docker schema 1 manifest.
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// Every media type that a client accepts for a manifest, in the order it prefers them.
pub const MANIFEST_TYPES: [&str; 5] = [
    OCI_INDEX,
    OCI_MANIFEST,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_ARTIFACT,
];

/// Annotation that names an image in an OCI layout's index.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A pointer to bytes, with what is known of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    #[serde(default)]
    pub media_type: String,
    /// Their name.
    pub digest: Digest,
    /// Their number; a bound on every read.
    pub size: u64,
    /// The system that a child of an index runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The type of the artifact that a child of an index is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Where else the bytes are (foreign layers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free text by key.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Descriptor {
    /// A layer that its registry need not hold: the bytes are at [`Descriptor::urls`].
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        !self.urls.is_empty()
            && (self.media_type.contains("nondistributable") || self.media_type.contains("foreign"))
    }

    /// The manifest in the same index that this one describes (an attestation or a signature of it), if it says so.
    #[must_use]
    pub fn describes(&self) -> Option<Digest> {
        self.annotations
            .get("vnd.docker.reference.digest")
            .and_then(|text| text.parse().ok())
    }
}

/// The system that an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// As Go names it: `linux`, `windows`.
    pub os: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// `v7`, `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The build of Windows.
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
}

/// A choice of platforms: `os/arch` takes every variant, `os/arch/variant` that one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlatformName {
    /// As Go names it.
    pub os: String,
    /// As Go names it.
    pub architecture: String,
    /// Only this variant.
    pub variant: Option<String>,
}

impl PlatformName {
    /// Whether a child for `platform` is taken.
    #[must_use]
    pub fn matches(&self, platform: &Platform) -> bool {
        self.os == platform.os
            && self.architecture == platform.architecture
            && self
                .variant
                .as_ref()
                .is_none_or(|variant| platform.variant.as_ref() == Some(variant))
    }
}

/// A text that does not name a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a platform: expected os/architecture or os/architecture/variant")]
pub struct PlatformError {
    /// What was read.
    pub text: String,
}

impl FromStr for PlatformName {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let good = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        };
        match parts.as_slice() {
            [os, architecture] if parts.iter().all(good) => Ok(Self {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: None,
            }),
            [os, architecture, variant] if parts.iter().all(good) => Ok(Self {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: Some((*variant).to_owned()),
            }),
            _ => Err(PlatformError {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for PlatformName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(formatter, "/{variant}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(formatter, "/{variant}")?;
        }
        Ok(())
    }
}

/// A manifest, read.
#[allow(
    clippy::large_enum_variant,
    reason = "manifests are few and short-lived"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// One image or artifact.
    Image(Image),
    /// A choice of images.
    Index(Index),
}

/// A manifest of one image or artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its own media type.
    pub media_type: String,
    /// The config; an artifact manifest has none.
    pub config: Option<Descriptor>,
    /// The layers, or the blobs of an artifact, in order.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one refers to.
    pub subject: Option<Descriptor>,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// Free text by key.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest that names others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its own media type.
    pub media_type: String,
    /// The manifests it names, in order.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one refers to.
    pub subject: Option<Descriptor>,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// Free text by key.
    pub annotations: BTreeMap<String, String>,
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The format that was withdrawn.
    #[error(
        "the manifest is Docker schema 1, which cannot be mirrored: its digest does not cover the bytes that a registry serves"
    )]
    Schema1,
    /// Not JSON, or JSON of another shape.
    #[error("the manifest is malformed")]
    Json(#[source] serde_json::Error),
    /// JSON that names no children and no config.
    #[error("the manifest of type {media_type:?} has neither layers nor manifests")]
    Shape {
        /// What it says it is, perhaps nothing.
        media_type: String,
    },
    /// The header and the body disagree.
    #[error("the manifest says it is {body:?}, but it was served or described as {header:?}")]
    Type {
        /// The media type in the body.
        body: String,
        /// The media type it came with.
        header: String,
    },
    /// More than a manifest may have.
    #[error("the manifest has {size} bytes; at most {MANIFEST_LIMIT} are read")]
    Size {
        /// How many it has.
        size: u64,
    },
    /// A descriptor in it names bytes by something else than SHA-256.
    #[error("the manifest names bytes by an unusable digest")]
    Digest(#[source] DigestError),
}

impl Hint for ManifestError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Schema1 => Some("ask the publisher to push the image again, or pull and push it once with a current client".to_owned()),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: String,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: String,
}

impl Manifest {
    /// Reads a manifest. `media_type` is what it was served or described as, if that is known; the shape decides
    /// where neither it nor the body says more (as in the storage of a registry).
    ///
    /// # Errors
    /// If the bytes are no manifest, or one that cannot be mirrored.
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(ManifestError::Size {
                size: bytes.len() as u64,
            });
        }
        let version: Version = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        let header = media_type
            .map(|text| text.split(';').next().unwrap_or_default().trim())
            .filter(|text| MANIFEST_TYPES.contains(text));
        let says_schema1 = |text: &str| text == DOCKER_SCHEMA1 || text == DOCKER_SCHEMA1_SIGNED;
        if version.schema_version == Some(1)
            || says_schema1(&version.media_type)
            || media_type.is_some_and(says_schema1)
        {
            return Err(ManifestError::Schema1);
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        debug_assert_eq!(
            raw.schema_version, version.schema_version,
            "both read the same bytes"
        );
        if let Some(header) = header
            && !raw.media_type.is_empty()
            && raw.media_type != header
        {
            return Err(ManifestError::Type {
                body: raw.media_type,
                header: header.to_owned(),
            });
        }
        let named = if raw.media_type.is_empty() {
            header.unwrap_or_default().to_owned()
        } else {
            raw.media_type
        };
        let or = |default: &str| {
            if named.is_empty() {
                default.to_owned()
            } else {
                named.clone()
            }
        };
        match (raw.manifests, raw.layers, raw.blobs) {
            (Some(manifests), None, None)
                if !matches!(
                    named.as_str(),
                    OCI_MANIFEST | DOCKER_MANIFEST | OCI_ARTIFACT
                ) =>
            {
                Ok(Self::Index(Index {
                    media_type: or(OCI_INDEX),
                    manifests,
                    subject: raw.subject,
                    artifact_type: raw.artifact_type,
                    annotations: raw.annotations,
                }))
            }
            (None, layers, None)
                if raw.config.is_some() && !matches!(named.as_str(), OCI_INDEX | DOCKER_LIST) =>
            {
                Ok(Self::Image(Image {
                    media_type: or(OCI_MANIFEST),
                    config: raw.config,
                    layers: layers.unwrap_or_default(),
                    subject: raw.subject,
                    artifact_type: raw.artifact_type,
                    annotations: raw.annotations,
                }))
            }
            (None, None, blobs) if named == OCI_ARTIFACT => Ok(Self::Image(Image {
                media_type: named,
                config: None,
                layers: blobs.unwrap_or_default(),
                subject: raw.subject,
                artifact_type: raw.artifact_type,
                annotations: raw.annotations,
            })),
            _ => Err(ManifestError::Shape { media_type: named }),
        }
    }

    /// Its own media type.
    #[must_use]
    pub fn media_type(&self) -> &str {
        match self {
            Self::Image(image) => &image.media_type,
            Self::Index(index) => &index.media_type,
        }
    }

    /// The manifest that this one refers to.
    #[must_use]
    pub const fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Image(image) => image.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }
}

impl Image {
    /// Everything a destination must hold before it may hold this manifest: layers in order, then the config.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers.iter().chain(&self.config)
    }
}

impl Index {
    /// The children that are taken when only `platforms` are wanted (all, when that is empty).
    ///
    /// A child without a platform follows the one it describes; one that describes nothing is taken.
    #[must_use]
    pub fn taken(&self, platforms: &[PlatformName]) -> Vec<&Descriptor> {
        let matches = |child: &Descriptor| {
            child
                .platform
                .as_ref()
                .is_some_and(|platform| platforms.iter().any(|name| name.matches(platform)))
        };
        let is_known = |child: &Descriptor| {
            child.platform.as_ref().is_some_and(|platform| {
                platform.os != "unknown" || platform.architecture != "unknown"
            })
        };
        self.manifests
            .iter()
            .filter(|child| {
                if platforms.is_empty() {
                    return true;
                }
                match child.describes() {
                    Some(described) => self
                        .manifests
                        .iter()
                        .any(|other| other.digest == described && matches(other)),
                    None => !is_known(child) || matches(child),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: char) -> String {
        format!("sha256:{}", letter.to_string().repeat(64))
    }

    #[test]
    fn the_shape_decides_where_no_type_is_given() {
        let image = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{}","size":2}},"layers":[]}}"#,
            digest('a')
        );
        assert_eq!(
            Manifest::parse(image.as_bytes(), None)
                .unwrap()
                .media_type(),
            OCI_MANIFEST,
            "config and layers make an image"
        );
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(
            Manifest::parse(index.as_bytes(), None)
                .unwrap()
                .media_type(),
            OCI_INDEX,
            "manifests make an index"
        );
        assert_eq!(
            Manifest::parse(index.as_bytes(), Some("application/json"))
                .unwrap()
                .media_type(),
            OCI_INDEX,
            "a vague header says nothing"
        );
    }

    #[test]
    fn schema_1_is_refused_by_name() {
        for body in [
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            r#"{"mediaType":"application/vnd.docker.distribution.manifest.v1+json"}"#,
        ] {
            let error = Manifest::parse(body.as_bytes(), None).unwrap_err();
            assert!(
                error.to_string().contains("schema 1"),
                "{error} must name the format"
            );
        }
    }

    #[test]
    fn a_body_that_contradicts_its_header_is_refused() {
        let body = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        let error = Manifest::parse(body.as_bytes(), Some(DOCKER_LIST)).unwrap_err();
        assert!(
            matches!(error, ManifestError::Type { .. }),
            "{error} must be about the types"
        );
        let both = format!(
            r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{{"digest":"{}","size":1}}}}"#,
            digest('a')
        );
        assert!(
            matches!(
                Manifest::parse(both.as_bytes(), None),
                Err(ManifestError::Shape { .. })
            ),
            "two shapes at once are none"
        );
    }

    #[test]
    fn a_choice_of_platforms_takes_what_describes_the_chosen() {
        let child = |letter: char, platform: &str, annotations: &str| {
            format!(
                r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":1{platform}{annotations}}}"#,
                digest(letter)
            )
        };
        let arm = r#","platform":{"os":"linux","architecture":"arm","variant":"v7"}"#;
        let amd = r#","platform":{"os":"linux","architecture":"amd64"}"#;
        let unknown = r#","platform":{"os":"unknown","architecture":"unknown"}"#;
        let describes = |letter: char| {
            format!(
                r#","annotations":{{"vnd.docker.reference.digest":"{}"}}"#,
                digest(letter)
            )
        };
        let body = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{},{},{}]}}"#,
            child('a', amd, ""),
            child('b', arm, ""),
            child('c', unknown, &describes('a')),
            child('d', unknown, &describes('b')),
            child('e', "", "")
        );
        let Manifest::Index(index) = Manifest::parse(body.as_bytes(), None).unwrap() else {
            panic!("an index")
        };
        let taken = |names: &[&str]| -> String {
            let names: Vec<PlatformName> = names.iter().map(|name| name.parse().unwrap()).collect();
            index
                .taken(&names)
                .iter()
                .map(|child| char::from(child.digest.hex().as_bytes()[0]))
                .collect()
        };
        assert_eq!(taken(&[]), "abcde", "no choice takes all");
        assert_eq!(
            taken(&["linux/amd64"]),
            "ace",
            "the attestation of the chosen comes along"
        );
        assert_eq!(
            taken(&["linux/arm"]),
            "bde",
            "without a variant every variant matches"
        );
        assert_eq!(taken(&["linux/arm/v6"]), "e", "another variant does not");
    }
}
