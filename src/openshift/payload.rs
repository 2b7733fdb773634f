//! What a release payload says about itself: its components, its version, the updates into it, its boot disks.
//!
//! The three files lie in the payload's root file system:
//!
//! | file | is |
//! |---|---|
//! | `release-manifests/image-references` | an ImageStream (JSON): its name is the version, each tag a component by digest |
//! | `release-manifests/release-metadata` | JSON of kind `cincinnati-metadata-v0`: version, previous, next, metadata |
//! | `release-manifests/0000_50_installer_coreos-bootimages.yaml` | a ConfigMap with the CoreOS stream metadata (JSON) in it |

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::hint::Hint;
use crate::openshift::graph::data::Described;
use crate::openshift::release::{Architecture, disk_name};
use crate::openshift::version::{Version, VersionError};
use crate::reference::{Reference, ReferenceError};

/// Where a payload lists its components.
pub const IMAGE_REFERENCES: &str = "release-manifests/image-references";

/// Where a payload says what it is.
pub const RELEASE_METADATA: &str = "release-manifests/release-metadata";

/// Where a payload names its boot images.
pub const BOOT_IMAGES: &str = "release-manifests/0000_50_installer_coreos-bootimages.yaml";

/// The largest of these files that is read. The largest in the field are below 200 KiB.
pub const FILE_LIMIT: usize = 16 << 20;

/// The metadata key by which a payload overrides the architecture of its image.
const ARCHITECTURE_KEY: &str = "release.openshift.io/architecture";

/// The architectures that boot disks for KubeVirt exist for.
const DISK_ARCHITECTURES: [Architecture; 2] = [Architecture::Amd64, Architecture::S390x];

/// A payload that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// A file is too large.
    #[error("{file}: {length} bytes; expected at most {FILE_LIMIT}")]
    Large {
        /// Which file.
        file: &'static str,
        /// Its length.
        length: usize,
    },
    /// A file is not JSON of the expected shape.
    #[error("{file} cannot be read")]
    Json {
        /// Which file.
        file: &'static str,
        /// What is wrong, and where.
        #[source]
        source: serde_json::Error,
    },
    /// A file is not YAML of the expected shape.
    #[error("{file} cannot be read")]
    Yaml {
        /// Which file.
        file: &'static str,
        /// What is wrong, and where.
        #[source]
        source: serde_yaml::Error,
    },
    /// A file is something else.
    #[error("{file} is a {found:?}; expected {expected:?}")]
    Kind {
        /// Which file.
        file: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it says it is.
        found: String,
    },
    /// A version cannot be read.
    #[error("{file}: version {text:?}")]
    Version {
        /// Which file.
        file: &'static str,
        /// What was read.
        text: String,
        /// What is wrong with it.
        #[source]
        source: VersionError,
    },
    /// A component has no image, or something that is none.
    #[error("component {component} of the release")]
    Image {
        /// Which component.
        component: String,
        /// What is wrong with its image.
        #[source]
        source: ReferenceError,
    },
    /// A component is not an image by digest.
    #[error("component {component} of the release is {image}; expected an image by digest")]
    NotByDigest {
        /// Which component.
        component: String,
        /// What it is.
        image: String,
    },
    /// A component is listed twice.
    #[error("component {component} of the release is listed twice")]
    Twice {
        /// Which component.
        component: String,
    },
    /// There are no components.
    #[error("release {version} lists no components")]
    NoComponents {
        /// Which release.
        version: String,
    },
    /// The two files speak of different releases.
    #[error("the payload lists the components of {listed}, but calls itself {stated}")]
    Disagrees {
        /// The version of the list of components.
        listed: String,
        /// The version of the metadata.
        stated: String,
    },
    /// The release has no boot disk for any of the architectures.
    #[error("release has no KubeVirt disk for {}", named(architectures))]
    NoDisk {
        /// The architectures asked for.
        architectures: Vec<Architecture>,
    },
    /// The architecture is none that releases have.
    #[error("release for architecture {found:?}")]
    Architecture {
        /// What was found.
        found: String,
    },
}

fn named(architectures: &[Architecture]) -> String {
    let names: Vec<&str> = architectures.iter().map(|one| one.name()).collect();
    names.join(", ")
}

impl Hint for PayloadError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotByDigest { .. } => Some(
                "a mirror of it would depend on a name that can move; build the payload with digests"
                    .to_owned(),
            ),
            Self::NoDisk { .. } => Some(format!(
                "KubeVirt disks exist for {}",
                named(&DISK_ARCHITECTURES)
            )),
            _ => None,
        }
    }
}

fn json<'a, T: Deserialize<'a>>(file: &'static str, bytes: &'a [u8]) -> Result<T, PayloadError> {
    if bytes.len() > FILE_LIMIT {
        return Err(PayloadError::Large {
            file,
            length: bytes.len(),
        });
    }
    serde_json::from_slice(bytes).map_err(|source| PayloadError::Json { file, source })
}

fn version(file: &'static str, text: &str) -> Result<Version, PayloadError> {
    text.parse().map_err(|source| PayloadError::Version {
        file,
        text: text.to_owned(),
        source,
    })
}

/// An image that is part of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its name in the release, such as `cli`.
    pub name: String,
    /// The image, by digest.
    pub image: Reference,
    /// Where it was built from, among others.
    pub annotations: BTreeMap<String, String>,
}

/// The components of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReferences {
    /// The version of the release.
    pub version: Version,
    /// When it was put together, as the file has it.
    pub created: Option<String>,
    /// What the release says it was made from.
    pub annotations: BTreeMap<String, String>,
    /// Ascending by name; at least one.
    pub components: Vec<Component>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageStream {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: ImageStreamSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectMeta {
    #[serde(default)]
    name: String,
    creation_timestamp: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct ImageStreamSpec {
    #[serde(default)]
    tags: Vec<TagReference>,
}

#[derive(Deserialize)]
struct TagReference {
    name: String,
    annotations: Option<BTreeMap<String, String>>,
    from: Option<ObjectReference>,
}

#[derive(Deserialize)]
struct ObjectReference {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

impl ImageReferences {
    /// Reads [`IMAGE_REFERENCES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PayloadError> {
        let stream: ImageStream = json(IMAGE_REFERENCES, bytes)?;
        let found = format!("{} {}", stream.api_version, stream.kind);
        if found != "image.openshift.io/v1 ImageStream" {
            return Err(PayloadError::Kind {
                file: IMAGE_REFERENCES,
                expected: "image.openshift.io/v1 ImageStream",
                found,
            });
        }
        if stream.spec.tags.is_empty() {
            return Err(PayloadError::NoComponents {
                version: stream.metadata.name,
            });
        }
        let mut components = Vec::with_capacity(stream.spec.tags.len());
        let mut names = BTreeSet::new();
        for tag in stream.spec.tags {
            let from = tag.from.unwrap_or(ObjectReference {
                kind: String::new(),
                name: String::new(),
            });
            if from.kind != "DockerImage" {
                return Err(PayloadError::NotByDigest {
                    component: tag.name,
                    image: format!("a {:?} named {:?}", from.kind, from.name),
                });
            }
            let image: Reference = from.name.parse().map_err(|source| PayloadError::Image {
                component: tag.name.clone(),
                source,
            })?;
            if image.digest.is_none() {
                return Err(PayloadError::NotByDigest {
                    component: tag.name,
                    image: image.to_string(),
                });
            }
            if !names.insert(tag.name.clone()) {
                return Err(PayloadError::Twice {
                    component: tag.name,
                });
            }
            components.push(Component {
                name: tag.name,
                image,
                annotations: tag.annotations.unwrap_or_default(),
            });
        }
        components.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            version: version(IMAGE_REFERENCES, &stream.metadata.name)?,
            created: stream.metadata.creation_timestamp,
            annotations: stream.metadata.annotations.unwrap_or_default(),
            components,
        })
    }

    /// The component of that name.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components
            .binary_search_by(|component| component.name.as_str().cmp(name))
            .ok()
            .map(|index| &self.components[index])
    }
}

/// What a release says about the updates into and out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseMetadata {
    /// The version of the release.
    pub version: Version,
    /// The releases it may follow, ascending.
    pub previous: Vec<Version>,
    /// The releases it may be followed by, ascending.
    pub next: Vec<Version>,
    /// Its errata, among others.
    pub metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct MetadataFile {
    #[serde(default)]
    kind: String,
    version: String,
    previous: Option<Vec<String>>,
    next: Option<Vec<String>>,
    metadata: Option<BTreeMap<String, String>>,
}

impl ReleaseMetadata {
    /// Reads [`RELEASE_METADATA`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PayloadError> {
        let file: MetadataFile = json(RELEASE_METADATA, bytes)?;
        if file.kind != "cincinnati-metadata-v0" {
            return Err(PayloadError::Kind {
                file: RELEASE_METADATA,
                expected: "cincinnati-metadata-v0",
                found: file.kind,
            });
        }
        let versions = |list: Option<Vec<String>>| {
            let mut versions: Vec<Version> = list
                .unwrap_or_default()
                .iter()
                .map(|text| version(RELEASE_METADATA, text))
                .collect::<Result<_, _>>()?;
            versions.sort();
            versions.dedup();
            Ok::<_, PayloadError>(versions)
        };
        Ok(Self {
            version: version(RELEASE_METADATA, &file.version)?,
            previous: versions(file.previous)?,
            next: versions(file.next)?,
            metadata: file.metadata.unwrap_or_default(),
        })
    }

    /// What the release is built for.
    ///
    /// Its own word counts before that of its image (`config_architecture`); an index of more than one instance is
    /// [`Architecture::Multi`] whatever its instances say.
    pub fn architecture(
        &self,
        config_architecture: &str,
        instances: usize,
    ) -> Result<Architecture, PayloadError> {
        let stated = match self.metadata.get(ARCHITECTURE_KEY) {
            Some(stated) => stated,
            None if instances > 1 => return Ok(Architecture::Multi),
            None => config_architecture,
        };
        stated.parse().map_err(|_| PayloadError::Architecture {
            found: stated.to_owned(),
        })
    }
}

/// A release as its payload describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Its components.
    pub references: ImageReferences,
    /// The updates into and out of it.
    pub metadata: ReleaseMetadata,
}

impl Payload {
    /// Reads both files, which must speak of the same release.
    pub fn parse(image_references: &[u8], release_metadata: &[u8]) -> Result<Self, PayloadError> {
        let references = ImageReferences::parse(image_references)?;
        let metadata = ReleaseMetadata::parse(release_metadata)?;
        if references.version != metadata.version {
            return Err(PayloadError::Disagrees {
                listed: references.version.to_string(),
                stated: metadata.version.to_string(),
            });
        }
        Ok(Self {
            references,
            metadata,
        })
    }

    /// The release as a candidate for an update graph.
    #[must_use]
    pub fn described(&self, payload: Reference, architecture: Architecture) -> Described {
        Described {
            version: self.metadata.version.clone(),
            architecture: architecture.name().to_owned(),
            payload,
            previous: self.metadata.previous.clone(),
            next: self.metadata.next.clone(),
            metadata: self.metadata.metadata.clone(),
        }
    }
}

#[derive(Deserialize)]
struct ConfigMap {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Stream {
    #[serde(default)]
    architectures: BTreeMap<String, StreamArchitecture>,
}

#[derive(Deserialize)]
struct StreamArchitecture {
    #[serde(default)]
    images: StreamImages,
}

#[derive(Default, Deserialize)]
struct StreamImages {
    kubevirt: Option<StreamImage>,
}

#[derive(Deserialize)]
struct StreamImage {
    #[serde(rename = "digest-ref", default)]
    digest_ref: String,
}

/// The boot disks in [`BOOT_IMAGES`] for the architectures asked for, as further components of the release.
///
/// None asked for means x86-64, [`Architecture::Multi`] all there can be. Architectures without a disk are passed
/// over, but a release without any is an error.
pub fn disks(bytes: &[u8], wanted: &[Architecture]) -> Result<Vec<Component>, PayloadError> {
    if bytes.len() > FILE_LIMIT {
        return Err(PayloadError::Large {
            file: BOOT_IMAGES,
            length: bytes.len(),
        });
    }
    let map: ConfigMap = serde_yaml::from_slice(bytes).map_err(|source| PayloadError::Yaml {
        file: BOOT_IMAGES,
        source,
    })?;
    let Some(stream) = map.data.get("stream").filter(|_| map.kind == "ConfigMap") else {
        return Err(PayloadError::Kind {
            file: BOOT_IMAGES,
            expected: "ConfigMap with a stream",
            found: map.kind,
        });
    };
    let stream: Stream = json(BOOT_IMAGES, stream.as_bytes())?;
    let asked = |architecture: &Architecture| match wanted {
        [] => *architecture == Architecture::Amd64,
        _ => wanted.contains(architecture) || wanted.contains(&Architecture::Multi),
    };
    let mut found = Vec::new();
    for architecture in DISK_ARCHITECTURES.into_iter().filter(asked) {
        let Some(disk) = stream
            .architectures
            .get(architecture.machine())
            .and_then(|one| one.images.kubevirt.as_ref())
            .filter(|disk| !disk.digest_ref.is_empty())
        else {
            continue;
        };
        let component = disk_name(architecture, true);
        let image: Reference = disk
            .digest_ref
            .parse()
            .map_err(|source| PayloadError::Image {
                component: component.clone(),
                source,
            })?;
        if image.digest.is_none() {
            return Err(PayloadError::NotByDigest {
                component,
                image: image.to_string(),
            });
        }
        found.push((architecture, image));
    }
    if found.is_empty() {
        return Err(PayloadError::NoDisk {
            architectures: match wanted {
                [] => vec![Architecture::Amd64],
                _ => wanted.to_vec(),
            },
        });
    }
    let several = found.len() > 1;
    Ok(found
        .into_iter()
        .map(|(architecture, image)| Component {
            name: disk_name(architecture, several),
            image,
            annotations: BTreeMap::new(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(tags: &str) -> Vec<u8> {
        format!(
            r#"{{"kind":"ImageStream","apiVersion":"image.openshift.io/v1","metadata":{{"name":"4.16.1"}},"spec":{{"tags":[{tags}]}}}}"#
        )
        .into_bytes()
    }

    fn tag(name: &str, kind: &str, image: &str) -> String {
        format!(r#"{{"name":"{name}","from":{{"kind":"{kind}","name":"{image}"}}}}"#)
    }

    const IMAGE: &str =
        "quay.io/r/a@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn components_are_sorted_by_name() {
        let list = [
            tag("cli", "DockerImage", IMAGE),
            tag("aws", "DockerImage", IMAGE),
        ]
        .join(",");
        let references = ImageReferences::parse(&stream(&list)).unwrap();
        let names: Vec<&str> = references
            .components
            .iter()
            .map(|component| component.name.as_str())
            .collect();
        assert_eq!(
            names,
            ["aws", "cli"],
            "the order of the file does not matter"
        );
        assert_eq!(
            references.component("cli").unwrap().image.to_string(),
            IMAGE,
            "a component is found by name"
        );
        assert!(references.component("cl").is_none(), "absence is no error");
    }

    #[test]
    fn a_list_that_cannot_be_mirrored_is_refused_by_name() {
        for (list, part) in [
            (String::new(), "4.16.1 lists no components"),
            (
                tag("cli", "DockerImage", "quay.io/r/a:v1"),
                "component cli of the release is quay.io/r/a:v1",
            ),
            (tag("cli", "ImageStreamTag", "a:v1"), "\"ImageStreamTag\""),
            (r#"{"name":"cli"}"#.to_owned(), "component cli"),
            (tag("cli", "DockerImage", "Q@sha256:x"), "component cli"),
            (
                [
                    tag("cli", "DockerImage", IMAGE),
                    tag("cli", "DockerImage", IMAGE),
                ]
                .join(","),
                "component cli of the release is listed twice",
            ),
        ] {
            let error = ImageReferences::parse(&stream(&list)).unwrap_err();
            assert!(
                error.to_string().contains(part),
                "{error} must contain {part:?}"
            );
        }
        let error = ImageReferences::parse(br#"{"kind":"List","apiVersion":"v1"}"#).unwrap_err();
        assert!(error.to_string().contains("\"v1 List\""), "{error}");
    }

    #[test]
    fn metadata_are_read_and_sorted() {
        let metadata = ReleaseMetadata::parse(
            br#"{"kind":"cincinnati-metadata-v0","version":"4.16.1","previous":["4.16.0","4.15.9","4.16.0"],"metadata":{"url":"u"}}"#,
        )
        .unwrap();
        assert_eq!(
            metadata.previous,
            ["4.15.9", "4.16.0"].map(|text| text.parse().unwrap()),
            "ascending, none twice"
        );
        for (text, part) in [
            (r#"{"kind":"x","version":"1.0.0"}"#, "\"x\""),
            (
                r#"{"kind":"cincinnati-metadata-v0","version":"integration-test-release"}"#,
                "integration-test-release",
            ),
            ("[", "release-metadata cannot be read"),
        ] {
            let error = ReleaseMetadata::parse(text.as_bytes()).unwrap_err();
            assert!(
                error.to_string().contains(part),
                "{error} must contain {part:?}"
            );
        }
    }

    #[test]
    fn a_release_says_what_it_is_built_for() {
        let parse = |metadata: &str| {
            ReleaseMetadata::parse(
                format!(
                    r#"{{"kind":"cincinnati-metadata-v0","version":"1.0.0","metadata":{metadata}}}"#
                )
                .as_bytes(),
            )
            .unwrap()
        };
        let plain = parse("{}");
        let stated = parse(r#"{"release.openshift.io/architecture":"multi"}"#);
        for (metadata, config, instances, expected) in [
            (&plain, "amd64", 1, Architecture::Amd64),
            (&plain, "arm64", 1, Architecture::Arm64),
            (&plain, "amd64", 4, Architecture::Multi),
            (&stated, "amd64", 1, Architecture::Multi),
        ] {
            assert_eq!(
                metadata.architecture(config, instances).unwrap(),
                expected,
                "{config} with {instances} instances"
            );
        }
        assert!(
            plain.architecture("riscv64", 1).is_err(),
            "an unknown architecture is refused"
        );
    }

    fn boot_images(stream: &str) -> Vec<u8> {
        format!("apiVersion: v1\nkind: ConfigMap\ndata:\n  releaseVersion: 4.16.1\n  stream: '{stream}'\n")
            .into_bytes()
    }

    #[test]
    fn disks_are_named_by_their_number() {
        let both = format!(
            r#"{{"stream":"rhcos-4.16","architectures":{{"aarch64":{{"images":{{}}}},"s390x":{{"images":{{"kubevirt":{{"release":"1","image":"x","digest-ref":"{IMAGE}"}}}}}},"x86_64":{{"images":{{"kubevirt":{{"digest-ref":"{IMAGE}"}}}}}}}}}}"#
        );
        for (wanted, expected) in [
            (&[][..], &["kube-virt-container"][..]),
            (&[Architecture::Amd64], &["kube-virt-container"]),
            (&[Architecture::S390x], &["kube-virt-container"]),
            (
                &[Architecture::Amd64, Architecture::Arm64],
                &["kube-virt-container"],
            ),
            (
                &[Architecture::S390x, Architecture::Amd64],
                &["kube-virt-container-x86_64", "kube-virt-container-s390x"],
            ),
            (
                &[Architecture::Multi],
                &["kube-virt-container-x86_64", "kube-virt-container-s390x"],
            ),
        ] {
            let names: Vec<String> = disks(&boot_images(&both), wanted)
                .unwrap()
                .into_iter()
                .map(|component| component.name)
                .collect();
            assert_eq!(names, expected, "for {wanted:?}");
        }
        let error = disks(&boot_images(&both), &[Architecture::Arm64]).unwrap_err();
        assert!(
            error.to_string().contains("arm64"),
            "{error} must name the architecture"
        );
        for (text, part) in [
            (
                boot_images(
                    r#"{"architectures":{"x86_64":{"images":{"kubevirt":{"digest-ref":""}}}}}"#,
                ),
                "amd64",
            ),
            (
                boot_images(
                    r#"{"architectures":{"x86_64":{"images":{"kubevirt":{"digest-ref":"q.io/a/b:1"}}}}}"#,
                ),
                "q.io/a/b:1",
            ),
            (b"kind: Secret\n".to_vec(), "\"Secret\""),
            (boot_images("{"), "coreos-bootimages"),
        ] {
            let error = disks(&text, &[]).unwrap_err();
            assert!(
                error.to_string().contains(part),
                "{error} must contain {part:?}"
            );
        }
    }

    #[test]
    fn both_files_must_speak_of_one_release() {
        let references = stream(&tag("cli", "DockerImage", IMAGE));
        let metadata = br#"{"kind":"cincinnati-metadata-v0","version":"4.16.2"}"#;
        let error = Payload::parse(&references, metadata).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the payload lists the components of 4.16.1, but calls itself 4.16.2",
            "a mixed payload is refused"
        );
    }
}
