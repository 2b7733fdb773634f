//! The image set configurations as typed values.
//!
//! One set of types for both schemas and both kinds: a key that a schema lacks is refused while reading, so
//! its field is simply empty. Text that others interpret (versions, paths, JSONPath) is kept as written after
//! a check of its form. Whatever a later layer may want to complain about is an [`At`] and knows its place.

use std::fmt;
use std::sync::Arc;

use super::diagnostic::{At, Diagnostic, Document, Position, Severity};
use crate::oci::PlatformName;
use crate::reference::{ImageName, Tag};

/// Bytes in the unit of `archiveSize`.
pub(super) const GIB: u64 = 1 << 30;

/// Which schema a config follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiVersion {
    /// `mirror.openshift.io/v1alpha2`
    V1Alpha2,
    /// `mirror.openshift.io/v2alpha1`
    V2Alpha1,
}

impl ApiVersion {
    /// The part behind the group.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::V1Alpha2 => "v1alpha2",
            Self::V2Alpha1 => "v2alpha1",
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "mirror.openshift.io/{}", self.short())
    }
}

/// What `-c` names: what to mirror, or what to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// `ImageSetConfiguration`
    ImageSet(ImageSet),
    /// `DeleteImageSetConfiguration`
    Delete(DeleteImageSet),
}

/// An `ImageSetConfiguration`.
///
/// Two are equal when they ask for the same in the same order; places, comments and notes do not count.
#[derive(Clone, Debug)]
pub struct ImageSet {
    /// The schema it follows.
    pub api_version: ApiVersion,
    /// Largest archive file in GiB; absent where the config leaves it to the default.
    pub archive_size: Option<At<u64>>,
    /// Accepted, without a task here.
    pub storage_config: Option<StorageConfig>,
    /// What to mirror.
    pub mirror: Mirror,
    /// What its author should know.
    pub notes: Vec<Diagnostic>,
    pub(super) document: Arc<Document>,
}

impl PartialEq for ImageSet {
    fn eq(&self, other: &Self) -> bool {
        self.api_version == other.api_version
            && self.archive_size == other.archive_size
            && self.storage_config == other.storage_config
            && self.mirror == other.mirror
    }
}

impl Eq for ImageSet {}

impl ImageSet {
    /// Largest archive file in bytes; absent where the config leaves it to the default.
    #[must_use]
    pub fn archive_bytes(&self) -> Option<u64> {
        self.archive_size.as_ref().map(|size| size.value * GIB)
    }

    /// An error of a later layer about a place in this config.
    pub fn error(
        &self,
        position: Position,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Diagnostic {
        self.document
            .diagnostic(Severity::Error, position, message, hint)
    }
}

/// A `DeleteImageSetConfiguration`, which is `v2alpha1` always.
///
/// Two are equal when they ask for the same in the same order.
#[derive(Clone, Debug)]
pub struct DeleteImageSet {
    /// What to delete.
    pub delete: Mirror,
    /// What its author should know.
    pub notes: Vec<Diagnostic>,
    pub(super) document: Arc<Document>,
}

impl PartialEq for DeleteImageSet {
    fn eq(&self, other: &Self) -> bool {
        self.delete == other.delete
    }
}

impl Eq for DeleteImageSet {}

impl DeleteImageSet {
    /// An error of a later layer about a place in this config.
    pub fn error(
        &self,
        position: Position,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Diagnostic {
        self.document
            .diagnostic(Severity::Error, position, message, hint)
    }
}

/// Where the older tool kept its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageConfig {
    /// `local.path`
    pub local_path: Option<At<String>>,
    /// `registry.imageURL`
    pub registry_image: Option<At<String>>,
    /// `registry.skipTLS`
    pub registry_skip_tls: Option<At<bool>>,
}

/// What a config asks for: the stanza `mirror:` or `delete:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    /// Releases.
    pub platform: Platform,
    /// Operator catalogs.
    pub operators: Vec<At<Operator>>,
    /// Single images.
    pub additional_images: Vec<At<AdditionalImage>>,
    /// Helm charts.
    pub helm: Helm,
    /// What to leave out; always empty in a `delete:` stanza.
    pub blocked_images: Vec<At<Pattern>>,
    /// Accepted, without a task here.
    pub samples: Vec<At<String>>,
}

/// Releases of OpenShift or OKD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// Publish the update graph.
    pub graph: At<bool>,
    /// Update channels; ignored where `release` names a payload.
    pub channels: Vec<At<ReleaseChannel>>,
    /// Architectures asked for, as written; see [`Platform::effective_architectures`].
    pub architectures: Vec<At<Architecture>>,
    /// Take the payload for all architectures, but only these instances of its images.
    pub platforms: Vec<At<PlatformName>>,
    /// One payload, by name.
    pub release: Option<At<ImageName>>,
    /// Also the disk image for virtual machines.
    pub kube_virt_container: At<bool>,
}

impl Platform {
    /// The architectures to ask the update service for: those listed; `multi` where `platforms` chooses
    /// instances; else `amd64`.
    #[must_use]
    pub fn effective_architectures(&self) -> Vec<Architecture> {
        if !self.platforms.is_empty() {
            vec![Architecture::Multi]
        } else if self.architectures.is_empty() {
            vec![Architecture::Amd64]
        } else {
            self.architectures
                .iter()
                .map(|architecture| architecture.value)
                .collect()
        }
    }
}

/// An architecture that releases exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Architecture {
    /// `amd64`
    Amd64,
    /// `arm64`
    Arm64,
    /// `ppc64le`
    Ppc64le,
    /// `s390x`
    S390x,
    /// `multi`: one payload for all of them.
    Multi,
}

pub(super) const ARCHITECTURES: &[(&str, Architecture)] = &[
    ("amd64", Architecture::Amd64),
    ("arm64", Architecture::Arm64),
    ("ppc64le", Architecture::Ppc64le),
    ("s390x", Architecture::S390x),
    ("multi", Architecture::Multi),
];

impl Architecture {
    /// As the config and the update service write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ARCHITECTURES
            .iter()
            .find(|(_, architecture)| *architecture == self)
            .map_or("", |(name, _)| name)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Whose releases a channel offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlatformType {
    /// OpenShift.
    #[default]
    Ocp,
    /// OKD.
    Okd,
}

impl fmt::Display for PlatformType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ocp => "ocp",
            Self::Okd => "okd",
        })
    }
}

/// One row of `platform.channels`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseChannel {
    /// `stable-4.16`
    pub name: At<String>,
    /// Whose.
    pub kind: At<PlatformType>,
    /// `X.Y.Z`, as written.
    pub min_version: Option<At<String>>,
    /// `X.Y.Z`, as written.
    pub max_version: Option<At<String>>,
    /// Only the versions on the shortest update path.
    pub shortest_path: At<bool>,
    /// From the first release of the channel on.
    pub full: At<bool>,
}

/// One row of `operators`: a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The catalog's image.
    pub catalog: At<ImageName>,
    /// Every version rather than the newest.
    pub full: At<bool>,
    /// Replaces the path at the destination.
    pub target_catalog: Option<At<String>>,
    /// Replaces the last part of the path (`v1alpha2`); `target_catalog` wins.
    pub target_name: Option<At<String>>,
    /// Replaces the tag at the destination.
    pub target_tag: Option<At<Tag>>,
    /// A file to make the CatalogSource from.
    pub target_catalog_source_template: Option<At<String>>,
    /// Leave out what the packages require.
    pub skip_dependencies: At<bool>,
    /// Accepted, without a task.
    pub original_ref: Option<At<String>>,
    /// Only these instances; all where empty.
    pub platforms: Vec<At<PlatformName>>,
    /// Only these packages; all where empty.
    pub packages: Vec<At<Package>>,
}

/// One row of `operators[].packages`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The name in the catalog.
    pub name: At<String>,
    /// Overrides the default channel of the catalog.
    pub default_channel: Option<At<String>>,
    /// As written.
    pub min_version: Option<At<String>>,
    /// As written.
    pub max_version: Option<At<String>>,
    /// The first bundle by name (`v1alpha2`).
    pub min_bundle: Option<At<String>>,
    /// Only these channels; which ones an empty list means, the selection decides.
    pub channels: Vec<At<OperatorChannel>>,
    /// Exactly these bundles.
    pub bundles: Vec<At<String>>,
}

/// One row of `operators[].packages[].channels`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorChannel {
    /// The name in the package.
    pub name: At<String>,
    /// As written.
    pub min_version: Option<At<String>>,
    /// As written.
    pub max_version: Option<At<String>>,
    /// The first bundle by name (`v1alpha2`).
    pub min_bundle: Option<At<String>>,
}

/// One row of `additionalImages`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdditionalImage {
    /// What to mirror.
    pub name: At<ImageName>,
    /// Replaces the path at the destination.
    pub target_repo: Option<At<String>>,
    /// Replaces the tag at the destination.
    pub target_tag: Option<At<Tag>>,
    /// Only these instances; all where empty.
    pub platforms: Vec<At<PlatformName>>,
}

/// Helm charts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Helm {
    /// From repositories.
    pub repositories: Vec<At<HelmRepository>>,
    /// From disk.
    pub local: Vec<At<LocalChart>>,
}

/// One row of `helm.repositories`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelmRepository {
    /// What the config calls it.
    pub name: At<String>,
    /// `http`, `https` or `oci`, as written.
    pub url: At<String>,
    /// These charts; absent means every chart of the repository.
    pub charts: Option<Vec<At<Chart>>>,
}

/// One row of `helm.repositories[].charts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chart {
    /// The name in the repository.
    pub name: At<String>,
    /// As written; absent means the newest.
    pub version: Option<At<String>>,
    /// Accepted, without effect on a chart of a repository.
    pub path: Option<At<String>>,
    /// Further JSONPath expressions that find images.
    pub image_paths: Vec<At<String>>,
    /// Only these instances; all where empty.
    pub platforms: Vec<At<PlatformName>>,
}

/// One row of `helm.local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalChart {
    /// What the config calls it.
    pub name: Option<At<String>>,
    /// A folder or an archive, as written.
    pub path: At<String>,
    /// Accepted, without effect: the chart says its version.
    pub version: Option<At<String>>,
    /// Further JSONPath expressions that find images.
    pub image_paths: Vec<At<String>>,
    /// Only these instances; all where empty.
    pub platforms: Vec<At<PlatformName>>,
}

/// A pattern of `blockedImages`: RE2 syntax, found anywhere in a name.
#[derive(Clone, Debug)]
pub struct Pattern(pub(super) regex::Regex);

impl Pattern {
    /// Whether it occurs in `name`.
    #[must_use]
    pub fn is_match(&self, name: &str) -> bool {
        self.0.is_match(name)
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Operator {
    /// What replaces the path at the destination, whichever key says it.
    #[must_use]
    pub fn target_path(&self) -> Option<String> {
        let (None, Some(name)) = (&self.target_catalog, &self.target_name) else {
            return self
                .target_catalog
                .as_ref()
                .map(|target| target.value.clone());
        };
        let path = match &self.catalog.value {
            ImageName::Registry(reference) => reference.repository.path(),
            ImageName::Layout(_) => "",
        };
        Some(match path.rsplit_once('/') {
            Some((parent, _)) => format!("{parent}/{}", name.value),
            None => name.value.clone(),
        })
    }

    /// What distinguishes it from the other catalogs: its name with what the targets replace.
    #[must_use]
    pub fn unique_name(&self) -> String {
        let (registry, path, mut tag, mut digest) = match &self.catalog.value {
            ImageName::Registry(reference) => (
                format!("{}/", reference.repository.registry()),
                reference.repository.path().to_owned(),
                reference.tag.clone(),
                reference.digest,
            ),
            ImageName::Layout(layout) => (
                "oci://".to_owned(),
                layout.path.clone(),
                layout.tag.clone(),
                layout.digest,
            ),
        };
        let (registry, path) = match (&self.target_catalog, &self.target_name) {
            (Some(target), _) if registry == "oci://" => (String::new(), target.value.clone()),
            (Some(target), _) => (registry, target.value.clone()),
            (None, Some(name)) => {
                let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                let path = if parent.is_empty() {
                    name.value.clone()
                } else {
                    format!("{parent}/{}", name.value)
                };
                (registry, path)
            }
            (None, None) => (registry, path),
        };
        if let Some(target) = &self.target_tag {
            (tag, digest) = (Some(target.value.clone()), None);
        }
        let mut name = registry + &path;
        if let Some(tag) = tag {
            name = format!("{name}:{tag}");
        }
        if let Some(digest) = digest {
            name = format!("{name}@{digest}");
        }
        name
    }
}
