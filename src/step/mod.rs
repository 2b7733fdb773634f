//! Steps: the units of work, in three classes that types keep apart.
//!
//! | class | asks | example |
//! |---|---|---|
//! | [`Observe`] | a mutable name; only `lock` may | which manifest is `quay.io/a/b:v1` today |
//! | [`Fetch`] | bytes whose SHA-256 is already known | that manifest, its layers |
//! | [`Derive`] | nothing: a pure function of bytes | a file out of an image, the cluster resources of a lock |
//!
//! A step yields one blob. Its [`Key`] is the BLAKE3 of its recipe: kind, revision of the kind's algorithm,
//! parameters, and inputs by digest. Where the bytes of a fetch may be had is a hint and not part of the recipe.

pub mod hole;
pub mod place;
pub mod rule;

use std::fmt;

use crate::canon::{Key, Value};
use crate::digest::Digest;
use crate::oci::PlatformName;
use crate::reference::{ImageName, Repository};
use crate::store::Blob;

/// Domain of step keys.
const KEY_CONTEXT: &str = "imgbuild 2026-11 step v1";

/// What a step does, and in which class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Asks which releases an update channel leads to.
    ResolveRelease,
    /// Asks which manifest a tag (or a layout on disk) names.
    ResolveTag,
    /// Asks which version of a chart there is, and where.
    ResolveChart,
    /// Asks what is at an address.
    ResolveFile,
    /// Asks which signatures there are of an image.
    FindSignature,
    /// Fetches a manifest or an index.
    FetchManifest,
    /// Fetches a config, a layer or any other blob.
    FetchBlob,
    /// Fetches a plain file.
    FetchFile,
    /// Reads a file out of the layers of an image.
    ReadMember,
    /// Takes a catalog apart: the names of its packages, and what it says about each.
    SplitCatalog,
    /// Selects from one package of a catalog.
    FilterCatalog,
    /// Renders a chart and lists the images that it needs.
    RenderChart,
    /// Makes an image of files and a base.
    PackImage,
    /// Writes the cluster resources of a lock.
    EmitManifest,
}

/// Whether a step may ask, fetch or compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Asks a mutable name.
    Observe,
    /// Fetches bytes of a known digest.
    Fetch,
    /// Computes bytes from bytes.
    Derive,
}

impl Kind {
    /// Every kind, in the order of the design.
    pub const ALL: [Self; 14] = [
        Self::ResolveRelease,
        Self::ResolveTag,
        Self::ResolveChart,
        Self::ResolveFile,
        Self::FindSignature,
        Self::FetchManifest,
        Self::FetchBlob,
        Self::FetchFile,
        Self::ReadMember,
        Self::SplitCatalog,
        Self::FilterCatalog,
        Self::RenderChart,
        Self::PackImage,
        Self::EmitManifest,
    ];

    /// The name that rules and people use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResolveRelease => "resolve-release",
            Self::ResolveTag => "resolve-tag",
            Self::ResolveChart => "resolve-chart",
            Self::ResolveFile => "resolve-file",
            Self::FindSignature => "find-signature",
            Self::FetchManifest => "fetch-manifest",
            Self::FetchBlob => "fetch-blob",
            Self::FetchFile => "fetch-file",
            Self::ReadMember => "read-member",
            Self::SplitCatalog => "split-catalog",
            Self::FilterCatalog => "filter-catalog",
            Self::RenderChart => "render-chart",
            Self::PackImage => "pack-image",
            Self::EmitManifest => "emit-manifest",
        }
    }

    /// The class it belongs to.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::ResolveRelease
            | Self::ResolveTag
            | Self::ResolveChart
            | Self::ResolveFile
            | Self::FindSignature => Class::Observe,
            Self::FetchManifest | Self::FetchBlob | Self::FetchFile => Class::Fetch,
            Self::ReadMember
            | Self::SplitCatalog
            | Self::FilterCatalog
            | Self::RenderChart
            | Self::PackImage
            | Self::EmitManifest => Class::Derive,
        }
    }

    /// The revision of its algorithm: raised whenever the same recipe would yield other bytes than before.
    #[must_use]
    pub const fn revision(self) -> i64 {
        match self {
            Self::ResolveRelease
            | Self::ResolveTag
            | Self::ResolveChart
            | Self::ResolveFile
            | Self::FindSignature
            | Self::FetchManifest
            | Self::FetchBlob
            | Self::FetchFile
            | Self::ReadMember
            | Self::SplitCatalog
            | Self::FilterCatalog
            | Self::RenderChart
            | Self::PackImage
            | Self::EmitManifest => 1,
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Names the work of `kind` on `inputs` (role and blob, in any order) with `parameters`.
#[must_use]
pub fn key(kind: Kind, parameters: &Value, inputs: &[(&str, Blob)]) -> Key {
    let mut inputs: Vec<(&str, Blob)> = inputs.to_vec();
    inputs.sort();
    let inputs = inputs
        .into_iter()
        .map(|(role, blob)| {
            let size = i64::try_from(blob.size).unwrap_or(i64::MAX);
            Value::List(vec![role.into(), blob.digest.into(), Value::Integer(size)])
        })
        .collect();
    let recipe = Value::map([
        ("kind", kind.name().into()),
        ("rev", Value::Integer(kind.revision())),
        ("with", parameters.clone()),
        ("input", Value::List(inputs)),
    ]);
    Key::of(KEY_CONTEXT, &recipe)
}

/// A question to a mutable name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Observe {
    /// Which manifest does this name mean now?
    Tag(ImageName),
    /// What is at this address now?
    File(Address),
    /// What refers to this manifest now?
    Referrers(Repository, Digest),
    /// Which tags does this repository have now?
    Tags(Repository),
}

impl fmt::Display for Observe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(image) => fmt::Display::fmt(image, formatter),
            Self::File(address) => fmt::Display::fmt(address, formatter),
            Self::Referrers(repository, digest) => {
                write!(formatter, "referrers of {repository}@{digest}")
            }
            Self::Tags(repository) => write!(formatter, "the tags of {repository}"),
        }
    }
}

/// Where a file is asked for: a URL, or a path on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// `http://`, `https://`, `file://` or a path; without the query.
    pub base: String,
    /// Names and values, unescaped, that are sent with it.
    pub query: Vec<(String, String)>,
    /// The media type that is wanted.
    pub accept: Option<String>,
    /// The file to read where `base` turns out to be a folder.
    pub file: Option<String>,
}

impl Address {
    /// An address without anything besides.
    #[must_use]
    pub fn plain(base: impl Into<String>) -> Self {
        Self {
            base: base.into(),
            query: Vec::new(),
            accept: None,
            file: None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.base)?;
        for (index, (name, value)) in self.query.iter().enumerate() {
            let mark = if index == 0 { '?' } else { '&' };
            write!(formatter, "{mark}{name}={value}")?;
        }
        Ok(())
    }
}

/// A fetch of bytes that are known by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// What is fetched.
    pub blob: Blob,
    /// Whether it is a manifest (with what it was described as) or any other blob.
    pub content: Content,
    /// Where it may be had; a hint, tried in order.
    pub origins: Vec<Origin>,
}

/// What fetched bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A manifest or an index; of an index, the children for these platforms (all, when empty) are fetched next.
    Manifest {
        /// What it was described as.
        media_type: Option<String>,
        /// Which children are taken.
        platforms: Vec<PlatformName>,
    },
    /// Bytes that name nothing else.
    Opaque,
}

/// A place where the bytes of a fetch may be had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A repository of a registry.
    Repository(Repository),
    /// An OCI layout on disk.
    Layout(String),
    /// An address (foreign layers, files), or a path on disk.
    Url(String),
    /// A path in the stores of signatures, whichever are in use.
    Signature(String),
}

/// A computation on bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Derive {
    /// A file out of the layers of an image.
    ReadMember {
        /// The manifest of the image.
        image: Blob,
        /// The file, without a leading slash.
        path: String,
    },
    /// What a catalog says about one package (about none, where the name is empty), in canonical form; without a
    /// name, which packages it has.
    SplitCatalog {
        /// The manifest of the catalog's instance.
        image: Blob,
        /// The package.
        package: Option<String>,
    },
    /// What is selected of one package: a listing, and the fragment that is left.
    FilterCatalog {
        /// The whole fragment, canonical.
        fragment: Blob,
        /// What is wanted of it, and by which rules.
        want: Value,
    },
    /// The images that a chart needs.
    RenderChart {
        /// Its file.
        chart: Blob,
        /// The values it is rendered with, later ones over earlier ones.
        values: Vec<Blob>,
        /// What the cluster can do, and where else to look for images.
        parameters: Value,
    },
    /// The cluster resources of a lock for one destination.
    EmitManifest {
        /// The lock.
        lock: Blob,
        /// The rule files by name.
        rules: Vec<(String, Blob)>,
        /// The destination and how it is laid out.
        parameters: Value,
    },
}

impl Derive {
    /// The name of this work.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::ReadMember { image, path } => key(
                Kind::ReadMember,
                &Value::map([("path", path.as_str().into())]),
                &[("image", *image)],
            ),
            Self::SplitCatalog { image, package } => {
                let package = package.as_deref().map(|name| ("package", name.into()));
                key(
                    Kind::SplitCatalog,
                    &Value::map(package),
                    &[("image", *image)],
                )
            }
            Self::FilterCatalog { fragment, want } => {
                key(Kind::FilterCatalog, want, &[("fragment", *fragment)])
            }
            Self::RenderChart {
                chart,
                values,
                parameters,
            } => {
                // The order of the values counts, so their roles have numbers.
                let roles: Vec<String> = (1..=values.len())
                    .map(|number| format!("values {number}"))
                    .collect();
                let mut inputs = vec![("chart", *chart)];
                inputs.extend(roles.iter().map(String::as_str).zip(values.iter().copied()));
                key(Kind::RenderChart, parameters, &inputs)
            }
            Self::EmitManifest {
                lock,
                rules,
                parameters,
            } => {
                let mut inputs = vec![("lock", *lock)];
                inputs.extend(rules.iter().map(|(name, blob)| (name.as_str(), *blob)));
                key(Kind::EmitManifest, parameters, &inputs)
            }
        }
    }
}

impl Fetch {
    /// The kind of this fetch.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.content {
            Content::Manifest { .. } => Kind::FetchManifest,
            Content::Opaque => Kind::FetchBlob,
        }
    }

    /// The name of this work; where the bytes are had is not part of it.
    #[must_use]
    pub fn key(&self) -> Key {
        key(self.kind(), &Value::map([]), &[("bytes", self.blob)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_each_kind_is_pinned() {
        let blob = Blob::of(b"hello");
        let keys: Vec<String> = Kind::ALL
            .iter()
            .map(|kind| {
                format!(
                    "{} {}",
                    kind.name(),
                    &key(*kind, &Value::map([("a", "b".into())]), &[("input", blob)]).hex()[..16]
                )
            })
            .collect();
        assert_eq!(
            keys,
            [
                "resolve-release 0223e03caea81987",
                "resolve-tag 1337e7583eaf5db7",
                "resolve-chart 452c0d5d21834a85",
                "resolve-file 593e063a73c6d1b5",
                "find-signature 55f26970fff30d61",
                "fetch-manifest 88535845f1ec722a",
                "fetch-blob 0d319767b305f828",
                "fetch-file 845d005bf1a2c1b5",
                "read-member a638a6748d1803c6",
                "split-catalog 1ed93d2111facf64",
                "filter-catalog b94fa0dde2eeae6f",
                "render-chart b0e6e8f56a91af0f",
                "pack-image b2c00abe267401ec",
                "emit-manifest 3521c18b6a6e3b85"
            ],
            "a key that moves loses every memo: raise the kind's revision only when its output changes"
        );
    }

    #[test]
    fn where_bytes_come_from_is_not_part_of_a_key() {
        let fetch = |origin: &str| Fetch {
            blob: Blob::of(b"x"),
            content: Content::Opaque,
            origins: vec![Origin::Url(origin.to_owned())],
        };
        assert_eq!(
            fetch("https://a/").key(),
            fetch("https://b/").key(),
            "any mirror may supply the bytes"
        );
    }

    #[test]
    fn the_order_of_inputs_is_not_part_of_a_key() {
        let (a, b) = (("a", Blob::of(b"1")), ("b", Blob::of(b"2")));
        let none = Value::map([]);
        assert_eq!(
            key(Kind::EmitManifest, &none, &[a, b]),
            key(Kind::EmitManifest, &none, &[b, a]),
            "roles name inputs"
        );
        let swapped = [("a", Blob::of(b"2")), ("b", Blob::of(b"1"))];
        assert_ne!(
            key(Kind::EmitManifest, &none, &[a, b]),
            key(Kind::EmitManifest, &none, &swapped),
            "a role is part of the recipe"
        );
    }
}
