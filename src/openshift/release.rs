//! How releases are named: architectures, tags, repositories and where the update service is asked.
//!
//! | what | repository under the destination | tag |
//! |---|---|---|
//! | payload | `openshift/release-images` | `4.16.1-x86_64` |
//! | component | `openshift/release` | `4.16.1-x86_64-cli` |
//! | KubeVirt disk | `openshift/release` | `4.16.1-x86_64-kube-virt-container[-s390x]` |
//! | graph data | `openshift/graph-image` | `latest` |
//!
//! Payloads of the community distribution (OKD) are named by the same rules.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::openshift::version::Version;
use crate::reference::{Reference, ReferenceError, Tag};

/// Where clusters of OpenShift Container Platform ask for updates.
pub const GRAPH_URL: &str = "https://api.openshift.com/api/upgrades_info/v1/graph";

/// Where clusters of the community distribution ask for updates.
pub const OKD_GRAPH_URL: &str = "https://origin-release.ci.openshift.org/graph";

/// Where the graph data are, as a packed directory.
pub const GRAPH_DATA_URL: &str = "https://api.openshift.com/api/upgrades_info/graph-data";

/// The catalogs that clusters have out of the box, tagged `v4.16`, in the order that people know them in.
pub const CATALOGS: [&str; 4] = [
    "registry.redhat.io/redhat/redhat-operator-index",
    "registry.redhat.io/redhat/certified-operator-index",
    "registry.redhat.io/redhat/community-operator-index",
    "registry.redhat.io/redhat/redhat-marketplace-index",
];

/// Where payloads of OpenShift Container Platform come from.
pub const PAYLOAD_SOURCE: &str = "quay.io/openshift-release-dev/ocp-release";

/// The repository of payloads, under the destination.
pub const PAYLOAD_REPOSITORY: &str = "openshift/release-images";

/// The repository of components, under the destination.
pub const COMPONENT_REPOSITORY: &str = "openshift/release";

/// The repository of the graph-data image, under the destination.
pub const GRAPH_REPOSITORY: &str = "openshift/graph-image";

/// The image that graph data are laid on.
pub const GRAPH_BASE_IMAGE: &str = "registry.access.redhat.com/ubi9/ubi:latest";

/// Where graph data lie in their image; every path of the packed directory goes under it, owned by user and group 0.
pub const GRAPH_DIRECTORY: &str = "/var/lib/cincinnati-graph-data";

/// What the graph-data image runs: it hands its content to the update service beside it.
pub const GRAPH_COMMAND: [&str; 3] = [
    "/bin/bash",
    "-c",
    "exec cp -rp /var/lib/cincinnati-graph-data/* /var/lib/cincinnati/graph-data",
];

/// A word that names no architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a release architecture: expected amd64, arm64, ppc64le, s390x or multi")]
pub struct ArchitectureError {
    /// What was read.
    pub text: String,
}

/// What a release is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Architecture {
    /// 64-bit x86.
    Amd64,
    /// 64-bit ARM.
    Arm64,
    /// IBM Power, little-endian.
    Ppc64le,
    /// IBM Z.
    S390x,
    /// A payload that is an index with an instance for each.
    Multi,
}

impl Architecture {
    /// All, in the order of their names.
    pub const ALL: [Self; 5] = [
        Self::Amd64,
        Self::Arm64,
        Self::Ppc64le,
        Self::S390x,
        Self::Multi,
    ];

    /// The word that configurations, images and the update service use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Ppc64le => "ppc64le",
            Self::S390x => "s390x",
            Self::Multi => "multi",
        }
    }

    /// The word that tags and boot images use.
    #[must_use]
    pub const fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
            other => other.name(),
        }
    }
}

impl FromStr for Architecture {
    type Err = ArchitectureError;

    /// Reads either word.
    fn from_str(text: &str) -> Result<Self, ArchitectureError> {
        Self::ALL
            .into_iter()
            .find(|one| one.name() == text || one.machine() == text)
            .ok_or_else(|| ArchitectureError {
                text: text.to_owned(),
            })
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The tag of a payload, from which those of its components derive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseTag(Tag);

impl ReleaseTag {
    /// `<version>-<machine>`. Build metadata has no place in a tag and is left out.
    pub fn new(version: &Version, architecture: Architecture) -> Result<Self, ReferenceError> {
        let version = version.clone().without_build();
        format!("{version}-{}", architecture.machine())
            .parse()
            .map(Self)
    }

    /// The tag of the name a payload was signed under; without one the digits of the digest stand for it.
    #[must_use]
    pub fn of(reference: &Reference) -> Option<Self> {
        match (&reference.tag, &reference.digest) {
            (Some(tag), _) => Some(Self(tag.clone())),
            (None, Some(digest)) => Some(Self::of_digest(digest)),
            (None, None) => None,
        }
    }

    /// The digits of a digest, for a payload whose name nobody signed.
    #[must_use]
    pub fn of_digest(digest: &Digest) -> Self {
        Self(digest.hex().parse().expect("64 digits are a tag"))
    }

    /// The tag of a component.
    pub fn component(&self, name: &str) -> Result<Tag, ReferenceError> {
        format!("{}-{name}", self.0).parse()
    }

    /// The tag of the payload itself.
    #[must_use]
    pub const fn tag(&self) -> &Tag {
        &self.0
    }

    /// The version and the architecture that a tag is made of, if it is.
    #[must_use]
    pub fn parts(&self) -> Option<(Version, Architecture)> {
        let (version, machine) = self.0.as_str().rsplit_once('-')?;
        let architecture = Architecture::ALL
            .into_iter()
            .find(|one| one.machine() == machine)?;
        Some((version.parse().ok()?, architecture))
    }
}

impl fmt::Display for ReleaseTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// The name of a boot disk among the components; it names its architecture only among several disks.
#[must_use]
pub fn disk_name(architecture: Architecture, among_several: bool) -> String {
    if among_several {
        format!("kube-virt-container-{}", architecture.machine())
    } else {
        "kube-virt-container".to_owned()
    }
}

/// The query that asks an update service for a channel: names and values, unescaped.
///
/// `Accept: application/json` must go with it. `version` is the release a cluster is at, which nobody here is.
#[must_use]
pub fn graph_query(channel: &str, architecture: Architecture) -> [(&'static str, String); 2] {
    [
        ("arch", architecture.name().to_owned()),
        ("channel", channel.to_owned()),
    ]
}

/// The file under which oc-mirror keeps an answer of the update service.
#[must_use]
pub fn saved_graph_name(channel: &str, architecture: Architecture) -> String {
    format!("{architecture}-{channel}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_has_two_words() {
        for (text, name, machine) in [
            ("amd64", "amd64", "x86_64"),
            ("x86_64", "amd64", "x86_64"),
            ("arm64", "arm64", "aarch64"),
            ("aarch64", "arm64", "aarch64"),
            ("ppc64le", "ppc64le", "ppc64le"),
            ("s390x", "s390x", "s390x"),
            ("multi", "multi", "multi"),
        ] {
            let found: Architecture = text.parse().unwrap();
            assert_eq!((found.name(), found.machine()), (name, machine), "{text}");
        }
        for text in ["", "AMD64", "386", "arm"] {
            assert!(
                text.parse::<Architecture>().is_err(),
                "{text:?} must be refused"
            );
        }
    }

    #[test]
    fn tags_are_made_of_version_architecture_and_component() {
        for (version, architecture, expected) in [
            ("4.16.1", Architecture::Amd64, "4.16.1-x86_64"),
            ("4.16.1+amd64", Architecture::Arm64, "4.16.1-aarch64"),
            ("4.12.0-rc.8", Architecture::Ppc64le, "4.12.0-rc.8-ppc64le"),
            ("4.16.1", Architecture::S390x, "4.16.1-s390x"),
            ("4.12.0-ec.1", Architecture::Multi, "4.12.0-ec.1-multi"),
            (
                "4.15.0-0.okd-2024-03-10-010116",
                Architecture::Amd64,
                "4.15.0-0.okd-2024-03-10-010116-x86_64",
            ),
        ] {
            let version: Version = version.parse().unwrap();
            let tag = ReleaseTag::new(&version, architecture).unwrap();
            assert_eq!(tag.to_string(), expected, "the tag of {version}");
            assert_eq!(
                tag.parts(),
                Some((version.without_build(), architecture)),
                "a tag can be taken apart"
            );
        }
        let signed: Reference = "quay.io/openshift-release-dev/ocp-release:4.16.1-x86_64"
            .parse()
            .unwrap();
        let tag = ReleaseTag::of(&signed).unwrap();
        assert_eq!(
            tag.component("agent-installer-api-server")
                .unwrap()
                .as_str(),
            "4.16.1-x86_64-agent-installer-api-server",
            "a component adds its name"
        );
        assert!(
            tag.component("").is_ok() && tag.component("a/b").is_err(),
            "what is no tag is refused"
        );
        let unsigned: Reference = format!("quay.io/r/p@sha256:{}", "a".repeat(64))
            .parse()
            .unwrap();
        assert_eq!(
            ReleaseTag::of(&unsigned).unwrap().to_string(),
            "a".repeat(64),
            "without a name the digits stand for it"
        );
        assert_eq!(
            ReleaseTag::of(&unsigned).unwrap().parts(),
            None,
            "digits have no version"
        );
    }

    #[test]
    fn a_disk_names_its_architecture_only_among_several() {
        assert_eq!(
            [
                disk_name(Architecture::Amd64, false),
                disk_name(Architecture::Amd64, true),
                disk_name(Architecture::S390x, true)
            ],
            [
                "kube-virt-container",
                "kube-virt-container-x86_64",
                "kube-virt-container-s390x"
            ],
            "the names clusters and scripts know"
        );
    }

    #[test]
    fn answers_are_asked_for_and_kept_by_architecture_and_channel() {
        assert_eq!(
            graph_query("stable-4.16", Architecture::Arm64),
            [
                ("arch", "arm64".to_owned()),
                ("channel", "stable-4.16".to_owned())
            ],
            "both are sent"
        );
        assert_eq!(
            saved_graph_name("stable-4.13", Architecture::Amd64),
            "amd64-stable-4.13.json",
            "oc-mirror finds the file under this name"
        );
    }
}
