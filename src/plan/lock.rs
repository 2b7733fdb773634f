//! The lock as values: who asked for what, and which digests answered.
//!
//! ```text
//! Lock
//! ├── rules                       rule name -> sha256 of the rule file
//! ├── releases    Release         a channel (or a reference) for one architecture
//! │   └── payloads  Payload       one version: its image and its components
//! ├── catalogs    Catalog         an operator catalog: its image
//! │   └── packages  Package       one package: its fragment, bundles, related images
//! ├── images      Image           one additional image
//! ├── charts      Chart           one Helm chart: a file or an image, and the images it needs
//! ├── files       File            one plain file
//! ├── blocked     Blocked         a pattern of images nobody gets
//! └── skips       Skip            one image that is left out on purpose
//! ```
//!
//! What is promised:
//! * A block holds its request (`want`) beside everything that was found for it, and nothing of any other block,
//!   so it can be updated, merged or deleted alone.
//! * [`BlockKey`] names a block, and keys sort as their blocks stand in the file.
//! * [`Lock::canonical`] is the one order in which a lock is written; [`super::text`] writes it.
//! * There is no time, host, tool version or credential in a lock.
//!
//! ## Why not one record per image
//! An image that five packages list stands in five blocks. A shared record with a list of owners would be shorter,
//! but every second merge of two branches would conflict in it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::key::{BlockKey, ReleaseName, Role, Version, bundle_order};
use crate::canon::Value;
use crate::digest::{Digest, DigestError};
use crate::oci::PlatformName;
use crate::reference::{ReferenceError, Repository, Tag};
use crate::store::Blob;

/// The newest version of the format that is read, and the one that is written.
pub const VERSION: u32 = 1;

/// The newest revision of that version whose keys are all known.
pub const REVISION: u32 = 0;

/// Every question of a config, answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The version of the format.
    pub version: u32,
    /// The revision of that version, if it is not the first.
    pub revision: Option<u32>,
    /// The rule files that were in force, by the name of the rule.
    pub rules: BTreeMap<String, Digest>,
    /// Releases of a platform.
    pub releases: Vec<Release>,
    /// Operator catalogs.
    pub catalogs: Vec<Catalog>,
    /// Additional images.
    pub images: Vec<Image>,
    /// Helm charts.
    pub charts: Vec<Chart>,
    /// Plain files.
    pub files: Vec<File>,
    /// Patterns of images that nobody gets.
    pub blocked: Vec<Blocked>,
    /// Images that are left out on purpose.
    pub skips: Vec<Skip>,
    /// The owner's comments above a block, one entry per line, without the opening `#:`.
    pub comments: BTreeMap<BlockKey, Vec<String>>,
}

impl Default for Lock {
    fn default() -> Self {
        Self {
            version: VERSION,
            revision: None,
            rules: BTreeMap::new(),
            releases: Vec::new(),
            catalogs: Vec::new(),
            images: Vec::new(),
            charts: Vec::new(),
            files: Vec::new(),
            blocked: Vec::new(),
            skips: Vec::new(),
            comments: BTreeMap::new(),
        }
    }
}

/// What a block answers: settings by name, with everything its content depends on.
///
/// Two wants are equal exactly when they say the same; the order they were written in does not count.
/// A [`Value::Digest`] is kept as its text, which is what the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Want(BTreeMap<String, Value>);

impl Want {
    /// A want of the given entries.
    pub fn new<N: Into<String>>(entries: impl IntoIterator<Item = (N, Value)>) -> Self {
        Self(
            entries
                .into_iter()
                .map(|(name, value)| (name.into(), textual(value)))
                .collect(),
        )
    }

    /// The same with one more setting, which replaces that of the same name.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.to_owned(), textual(value));
        self
    }

    /// The setting called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The setting called `name`, if it is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether it asks for nothing in particular.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The settings, ascending by name.
    #[must_use]
    pub const fn settings(&self) -> &BTreeMap<String, Value> {
        &self.0
    }

    /// The names whose settings differ from those of `other`, ascending.
    #[must_use]
    pub fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let mut names: Vec<&str> = self
            .0
            .keys()
            .chain(other.0.keys())
            .map(String::as_str)
            .filter(|name| self.get(name) != other.get(name))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn textual(value: Value) -> Value {
    match value {
        Value::Digest(digest) => Value::Text(digest.to_string()),
        Value::List(items) => Value::List(items.into_iter().map(textual).collect()),
        Value::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(name, value)| (name, textual(value)))
                .collect(),
        ),
        plain @ (Value::Bool(_) | Value::Integer(_) | Value::Text(_)) => plain,
    }
}

/// The order in which the keys of a want are written: ascending, but `min` stands before `max`.
pub(super) fn want_order(
    entries: &BTreeMap<String, Value>,
) -> impl Iterator<Item = (&str, &Value)> {
    let mut sorted: Vec<(&str, &Value)> = entries
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    sorted.sort_by_key(|(name, _)| match *name {
        "min" => ("max", 0),
        "max" => ("max", 1),
        name => (name, 0),
    });
    sorted.into_iter()
}

/// Where the bytes of a pin were found: a hint, since its digest decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A repository in a registry.
    Registry(Repository),
    /// An OCI layout on disk, by its path as the user wrote it.
    Layout(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(repository) => fmt::Display::fmt(repository, formatter),
            Self::Layout(path) => write!(formatter, "oci://{path}"),
        }
    }
}

impl FromStr for Origin {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        match text.strip_prefix("oci://") {
            Some("") => Err(ReferenceError::Empty),
            Some(path) => Ok(Self::Layout(path.to_owned())),
            None => text.parse().map(Self::Registry),
        }
    }
}

/// Why a text does not name one image for ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// There is no digest in it.
    #[error("{text:?} pins nothing: expected repository@sha256:…")]
    Unpinned {
        /// What was read.
        text: String,
    },
    /// The part before the digest is malformed.
    #[error("{text:?} names no repository")]
    Origin {
        /// What was read.
        text: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// The digest is malformed.
    #[error("{text:?} has a malformed digest")]
    Digest {
        /// What was read.
        text: String,
        /// What is wrong with it.
        source: DigestError,
    },
}

/// Reads `repository@sha256:…` or `oci://path@sha256:…`.
///
/// # Errors
/// If either part is malformed.
pub fn parse_image(text: &str) -> Result<(Origin, Digest), PinError> {
    let (origin, digest) = text.rsplit_once('@').ok_or_else(|| PinError::Unpinned {
        text: text.to_owned(),
    })?;
    let digest = digest.parse().map_err(|source| PinError::Digest {
        text: text.to_owned(),
        source,
    })?;
    let origin = origin.parse().map_err(|source| PinError::Origin {
        text: text.to_owned(),
        source,
    })?;
    Ok((origin, digest))
}

/// One image, for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    /// Where it was found.
    pub origin: Origin,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// The size of that manifest in bytes.
    pub size: u64,
    /// The tag it was asked for by, where the block's `ref` does not say it.
    pub tag: Option<Tag>,
    /// The children that are taken, where only some children of an index are; empty means all.
    pub platforms: Vec<PlatformName>,
    /// The signatures that were found when the pin was made.
    pub signatures: Vec<Signature>,
}

impl Pin {
    /// A pin of all of `digest`, without tag or signatures.
    #[must_use]
    pub const fn new(origin: Origin, digest: Digest, size: u64) -> Self {
        Self {
            origin,
            digest,
            size,
            tag: None,
            platforms: Vec::new(),
            signatures: Vec::new(),
        }
    }

    /// The repository it was found in, unless that is a layout on disk.
    #[must_use]
    pub const fn repository(&self) -> Option<&Repository> {
        match &self.origin {
            Origin::Registry(repository) => Some(repository),
            Origin::Layout(_) => None,
        }
    }

    /// `repository@digest`, as the file has it.
    #[must_use]
    pub fn image(&self) -> String {
        format!("{}@{}", self.origin, self.digest)
    }

    /// The promise of its manifest.
    #[must_use]
    pub const fn blob(&self) -> Blob {
        Blob {
            digest: self.digest,
            size: self.size,
        }
    }

    fn sort(&mut self) {
        self.platforms.sort();
        self.platforms.dedup();
        self.signatures
            .sort_by(|left, right| (&left.from, left).cmp(&(&right.from, right)));
        self.signatures.dedup();
    }
}

/// A signature that was found when a pin was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature {
    /// The signature, or the manifest that holds it.
    pub digest: Digest,
    /// The size of that in bytes.
    pub size: u64,
    /// Which of the places that were looked at had it.
    pub from: String,
}

/// The releases chosen for one channel and architecture.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The channel or the payload that was asked for.
    pub name: ReleaseName,
    /// The architecture, as the update graph spells it.
    pub arch: String,
    /// The request.
    pub want: Want,
    /// Risks of update paths that somebody accepted.
    pub risks: Vec<Risk>,
    /// What was chosen.
    pub payloads: Vec<Payload>,
}

/// A risk of an update path that somebody accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Risk {
    /// Its name in the update graph.
    pub name: String,
    /// Where it is explained.
    pub url: String,
}

/// One version of a release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Payload {
    /// The version.
    pub version: String,
    /// The image that names the components.
    pub pin: Pin,
    /// The images it is made of.
    pub components: Vec<Component>,
}

/// One image of a release payload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component {
    /// Its name in the payload.
    pub name: String,
    /// The image.
    pub pin: Pin,
}

/// An operator catalog.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Catalog {
    /// Its name, as the user wrote it.
    pub reference: String,
    /// The request.
    pub want: Want,
    /// The snapshot.
    pub pin: Pin,
    /// What is taken from it.
    pub packages: Vec<Package>,
}

/// One package of an operator catalog.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// The request; none where the catalog's own asks for all packages.
    pub want: Option<Want>,
    /// The digest of its own unfiltered catalog fragment in canonical JSON.
    pub fbc: Digest,
    /// A catalog image that holds that fragment, where the block's does not.
    pub from: Option<Digest>,
    /// The bundles that were chosen.
    pub bundles: Vec<Bundle>,
    /// The other images that they name.
    pub images: Vec<Pin>,
}

/// One version of a package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bundle {
    /// Its name.
    pub name: String,
    /// The channels it is offered in.
    pub channels: Vec<String>,
    /// The image.
    pub pin: Pin,
}

/// One additional image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    /// Its name, as the user wrote it.
    pub reference: String,
    /// The request.
    pub want: Want,
    /// What that name stood for.
    pub pin: Pin,
}

/// One Helm chart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chart {
    /// Its repository and name, or its `oci://` reference, as the user wrote it.
    pub reference: String,
    /// The request.
    pub want: Want,
    /// What the chart calls itself; absent in locks that were written before it was recorded.
    pub name: Option<String>,
    /// Its version, which the request may give as a range or not at all.
    pub version: Option<String>,
    /// The chart itself.
    pub source: ChartSource,
    /// The images it needs.
    pub images: Vec<Pin>,
}

/// A chart itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChartSource {
    /// A packed file.
    File {
        /// Where it was; none for a local folder, which is packed.
        url: Option<String>,
        /// The file.
        file: Blob,
    },
    /// An image.
    Image(Pin),
}

/// One plain file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    /// Its URL or path, as the user wrote it.
    pub reference: String,
    /// The request.
    pub want: Want,
    /// The file.
    pub file: Blob,
}

/// A pattern of images that nobody gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocked {
    /// The pattern, as the user wrote it.
    pub name: String,
}

/// An image that is left out on purpose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skip {
    /// The image, as it was written.
    pub image: String,
    /// Why.
    pub reason: String,
}

/// A block of a lock.
#[derive(Clone, Copy, Debug)]
pub enum Block<'a> {
    /// A release, with its payloads.
    Release(&'a Release),
    /// One payload of a release.
    Payload(&'a Release, &'a Payload),
    /// A catalog, without its packages.
    Catalog(&'a Catalog),
    /// One package of a catalog.
    Package(&'a Catalog, &'a Package),
    /// An additional image.
    Image(&'a Image),
    /// A chart.
    Chart(&'a Chart),
    /// A plain file.
    File(&'a File),
    /// A pattern of blocked images.
    Blocked(&'a Blocked),
    /// An image that is left out.
    Skip(&'a Skip),
}

impl<'a> Block<'a> {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> BlockKey {
        match self {
            Self::Release(release) => release.key(),
            Self::Payload(release, payload) => release.payload_key(payload),
            Self::Catalog(catalog) => catalog.key(),
            Self::Package(catalog, package) => catalog.package_key(&package.name),
            Self::Image(image) => image.key(),
            Self::Chart(chart) => chart.key(),
            Self::File(file) => file.key(),
            Self::Blocked(blocked) => blocked.key(),
            Self::Skip(skip) => skip.key(),
        }
    }

    /// The request it answers; none for a payload, a blocked pattern, a skip, or a package that was not asked for alone.
    #[must_use]
    pub const fn want(&self) -> Option<&'a Want> {
        match self {
            Self::Release(release) => Some(&release.want),
            Self::Catalog(catalog) => Some(&catalog.want),
            Self::Package(_, package) => package.want.as_ref(),
            Self::Image(image) => Some(&image.want),
            Self::Chart(chart) => Some(&chart.want),
            Self::File(file) => Some(&file.want),
            Self::Payload(..) | Self::Blocked(_) | Self::Skip(_) => None,
        }
    }

    /// The images it holds, each with what it is to the block, in the order of the file.
    #[must_use]
    pub fn pins(&self) -> Vec<(Role<'a>, &'a Pin)> {
        fn payload(payload: &Payload) -> impl Iterator<Item = (Role<'_>, &Pin)> {
            let version = payload.version.as_str();
            std::iter::once((Role::Payload { version }, &payload.pin)).chain(
                payload.components.iter().map(move |component| {
                    let name = component.name.as_str();
                    (Role::Component { version, name }, &component.pin)
                }),
            )
        }
        match self {
            Self::Release(release) => release.payloads.iter().flat_map(payload).collect(),
            Self::Payload(_, one) => payload(one).collect(),
            Self::Catalog(catalog) => vec![(Role::Catalog, &catalog.pin)],
            Self::Package(_, package) => package
                .bundles
                .iter()
                .map(|bundle| (Role::Bundle { name: &bundle.name }, &bundle.pin))
                .chain(package.images.iter().map(|pin| (Role::Related, pin)))
                .collect(),
            Self::Image(image) => vec![(Role::Image, &image.pin)],
            Self::Chart(chart) => {
                let own = match &chart.source {
                    ChartSource::Image(pin) => Some((Role::Chart, pin)),
                    ChartSource::File { .. } => None,
                };
                own.into_iter()
                    .chain(chart.images.iter().map(|pin| (Role::ChartImage, pin)))
                    .collect()
            }
            Self::File(_) | Self::Blocked(_) | Self::Skip(_) => Vec::new(),
        }
    }

    /// The file it holds, if it holds one.
    #[must_use]
    pub const fn file(&self) -> Option<Blob> {
        match self {
            Self::File(file) => Some(file.file),
            Self::Chart(Chart {
                source: ChartSource::File { file, .. },
                ..
            }) => Some(*file),
            _ => None,
        }
    }
}

/// A block on its way into a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewBlock {
    /// A release, with its payloads.
    Release(Release),
    /// A catalog; packages it holds replace those of the same name, the others stay.
    Catalog(Catalog),
    /// A package, for the catalog of that name and target, which must be there.
    Package {
        /// The catalog's name as the user wrote it.
        catalog: String,
        /// The name the catalog is published by, if one was asked for.
        target: Option<String>,
        /// The package.
        package: Package,
    },
    /// An additional image.
    Image(Image),
    /// A chart.
    Chart(Chart),
    /// A plain file.
    File(File),
    /// A pattern of blocked images.
    Blocked(Blocked),
    /// An image that is left out.
    Skip(Skip),
}

/// A package was to enter a catalog that the lock does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {catalog} to hold package {package}")]
pub struct NoCatalog {
    /// The catalog.
    pub catalog: BlockKey,
    /// The package.
    pub package: String,
}

/// Where the target of a want is.
const TARGET: &str = "target";

impl Release {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> BlockKey {
        BlockKey::Release {
            name: self.name.clone(),
            arch: self.arch.clone(),
        }
    }

    /// The name of one of its payloads.
    #[must_use]
    pub fn payload_key(&self, payload: &Payload) -> BlockKey {
        BlockKey::Payload {
            release: self.name.clone(),
            arch: self.arch.clone(),
            version: payload.version.clone(),
        }
    }
}

impl Catalog {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> BlockKey {
        BlockKey::Catalog {
            reference: self.reference.clone(),
            target: self.target().map(str::to_owned),
        }
    }

    /// The name it is published by, if one was asked for.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.want.text(TARGET)
    }

    /// The name of its package called `name`.
    #[must_use]
    pub fn package_key(&self, name: &str) -> BlockKey {
        BlockKey::Package {
            catalog: self.reference.clone(),
            target: self.target().map(str::to_owned),
            name: name.to_owned(),
        }
    }
}

impl Image {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> BlockKey {
        BlockKey::Image {
            reference: self.reference.clone(),
            target: self.want.text(TARGET).map(str::to_owned),
        }
    }
}

impl Chart {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> BlockKey {
        BlockKey::Chart {
            reference: self.reference.clone(),
            version: self.want.text("version").map(str::to_owned),
        }
    }
}

impl File {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> BlockKey {
        BlockKey::File {
            reference: self.reference.clone(),
        }
    }
}

impl Blocked {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> BlockKey {
        BlockKey::Blocked {
            name: self.name.clone(),
        }
    }
}

impl Skip {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> BlockKey {
        BlockKey::Skip {
            image: self.image.clone(),
        }
    }
}

impl Lock {
    /// Whether a newer imgbuild wrote it, with keys that are not known here. Such a lock can be built from, but what
    /// was not read cannot be written, so it is never rewritten.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        self.revision.is_some_and(|revision| revision > REVISION)
    }

    /// Every block, in the order of the file if the lock is canonical. A release stands for its payloads; a catalog is
    /// followed by its packages.
    pub fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        self.owners_only()
            .chain(self.blocked.iter().map(Block::Blocked))
            .chain(self.skips.iter().map(Block::Skip))
    }

    fn owners_only(&self) -> impl Iterator<Item = Block<'_>> {
        self.releases
            .iter()
            .map(Block::Release)
            .chain(self.catalogs.iter().flat_map(|catalog| {
                std::iter::once(Block::Catalog(catalog)).chain(
                    catalog
                        .packages
                        .iter()
                        .map(move |package| Block::Package(catalog, package)),
                )
            }))
            .chain(self.images.iter().map(Block::Image))
            .chain(self.charts.iter().map(Block::Chart))
            .chain(self.files.iter().map(Block::File))
    }

    /// Every block that may hold images, with those it holds. A plain file has none; see [`Lock::file_pins`].
    pub fn owners(&self) -> impl Iterator<Item = (BlockKey, Vec<(Role<'_>, &Pin)>)> {
        self.owners_only().map(|block| (block.key(), block.pins()))
    }

    /// Every pinned file: plain ones, and charts that are files.
    pub fn file_pins(&self) -> impl Iterator<Item = (BlockKey, Blob)> {
        self.owners_only()
            .filter_map(|block| Some((block.key(), block.file()?)))
    }

    /// The block called `key`; `None` if there is none, and for a rule, which is a line of [`Lock::rules`].
    #[must_use]
    pub fn find(&self, key: &BlockKey) -> Option<Block<'_>> {
        match key {
            BlockKey::Rule { .. } => None,
            BlockKey::Release { name, arch } => self.release(name, arch).map(Block::Release),
            BlockKey::Payload {
                release,
                arch,
                version,
            } => {
                let release = self.release(release, arch)?;
                release
                    .payloads
                    .iter()
                    .find(|payload| payload.version == *version)
                    .map(|payload| Block::Payload(release, payload))
            }
            BlockKey::Catalog { reference, target } => self
                .catalog(reference, target.as_deref())
                .map(Block::Catalog),
            BlockKey::Package {
                catalog,
                target,
                name,
            } => {
                let catalog = self.catalog(catalog, target.as_deref())?;
                catalog
                    .packages
                    .iter()
                    .find(|package| package.name == *name)
                    .map(|package| Block::Package(catalog, package))
            }
            BlockKey::Image { reference, target } => self
                .images
                .iter()
                .find(|image| {
                    image.reference == *reference && image.want.text(TARGET) == target.as_deref()
                })
                .map(Block::Image),
            BlockKey::Chart { reference, version } => self
                .charts
                .iter()
                .find(|chart| {
                    chart.reference == *reference
                        && chart.want.text("version") == version.as_deref()
                })
                .map(Block::Chart),
            BlockKey::File { reference } => self
                .files
                .iter()
                .find(|file| file.reference == *reference)
                .map(Block::File),
            BlockKey::Blocked { name } => self
                .blocked
                .iter()
                .find(|blocked| blocked.name == *name)
                .map(Block::Blocked),
            BlockKey::Skip { image } => self
                .skips
                .iter()
                .find(|skip| skip.image == *image)
                .map(Block::Skip),
        }
    }

    fn release(&self, name: &ReleaseName, arch: &str) -> Option<&Release> {
        self.releases
            .iter()
            .find(|release| release.name == *name && release.arch == arch)
    }

    /// The catalog of that name and target.
    #[must_use]
    pub fn catalog(&self, reference: &str, target: Option<&str>) -> Option<&Catalog> {
        self.catalogs
            .iter()
            .find(|catalog| catalog.reference == reference && catalog.target() == target)
    }

    /// Puts a block in the place of the one with the same key, or adds it. No other block changes; the owner's
    /// comments above it stay.
    ///
    /// # Errors
    /// If it is a package of a catalog that is not there.
    pub fn put(&mut self, block: NewBlock) -> Result<(), NoCatalog> {
        fn put_in<T>(list: &mut Vec<T>, item: T, same: impl Fn(&T, &T) -> bool) {
            match list.iter_mut().find(|old| same(old, &item)) {
                Some(old) => *old = item,
                None => list.push(item),
            }
        }
        match block {
            NewBlock::Release(release) => put_in(&mut self.releases, release, |old, new| {
                old.name == new.name && old.arch == new.arch
            }),
            NewBlock::Catalog(mut catalog) => {
                let same = self.catalogs.iter_mut().find(|old| {
                    old.reference == catalog.reference && old.target() == catalog.target()
                });
                match same {
                    Some(old) => {
                        let mut packages = std::mem::take(&mut old.packages);
                        for package in std::mem::take(&mut catalog.packages) {
                            put_in(&mut packages, package, |old, new| old.name == new.name);
                        }
                        catalog.packages = packages;
                        *old = catalog;
                    }
                    None => self.catalogs.push(catalog),
                }
            }
            NewBlock::Package {
                catalog,
                target,
                package,
            } => {
                let Some(home) = self
                    .catalogs
                    .iter_mut()
                    .find(|old| old.reference == catalog && old.target() == target.as_deref())
                else {
                    return Err(NoCatalog {
                        catalog: BlockKey::Catalog {
                            reference: catalog,
                            target,
                        },
                        package: package.name,
                    });
                };
                put_in(&mut home.packages, package, |old, new| old.name == new.name);
            }
            NewBlock::Image(image) => {
                put_in(&mut self.images, image, |old, new| old.key() == new.key());
            }
            NewBlock::Chart(chart) => {
                put_in(&mut self.charts, chart, |old, new| old.key() == new.key());
            }
            NewBlock::File(file) => put_in(&mut self.files, file, |old, new| {
                old.reference == new.reference
            }),
            NewBlock::Blocked(blocked) => {
                put_in(&mut self.blocked, blocked, |old, new| old.name == new.name);
            }
            NewBlock::Skip(skip) => {
                put_in(&mut self.skips, skip, |old, new| old.image == new.image);
            }
        }
        Ok(())
    }

    /// Takes the block called `key` out, with what stands in it and its comments; false if there was none.
    pub fn remove(&mut self, key: &BlockKey) -> bool {
        fn remove_from<T>(list: &mut Vec<T>, gone: impl Fn(&T) -> bool) -> bool {
            let before = list.len();
            list.retain(|item| !gone(item));
            list.len() != before
        }
        self.comments
            .retain(|owner, _| owner != key && owner.parent().as_ref() != Some(key));
        match key {
            BlockKey::Rule { name } => self.rules.remove(name).is_some(),
            BlockKey::Release { .. } => {
                remove_from(&mut self.releases, |release| release.key() == *key)
            }
            BlockKey::Payload {
                release,
                arch,
                version,
            } => self
                .releases
                .iter_mut()
                .filter(|home| home.name == *release && home.arch == *arch)
                .any(|home| remove_from(&mut home.payloads, |payload| payload.version == *version)),
            BlockKey::Catalog { .. } => {
                remove_from(&mut self.catalogs, |catalog| catalog.key() == *key)
            }
            BlockKey::Package {
                catalog,
                target,
                name,
            } => self
                .catalogs
                .iter_mut()
                .filter(|home| home.reference == *catalog && home.target() == target.as_deref())
                .any(|home| remove_from(&mut home.packages, |package| package.name == *name)),
            BlockKey::Image { .. } => remove_from(&mut self.images, |image| image.key() == *key),
            BlockKey::Chart { .. } => remove_from(&mut self.charts, |chart| chart.key() == *key),
            BlockKey::File { .. } => remove_from(&mut self.files, |file| file.key() == *key),
            BlockKey::Blocked { name } => {
                remove_from(&mut self.blocked, |blocked| blocked.name == *name)
            }
            BlockKey::Skip { image } => remove_from(&mut self.skips, |skip| skip.image == *image),
        }
    }

    /// The same lock in the one order in which it is written.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let mut lock = self.clone();
        lock.sort();
        lock
    }

    /// Brings the lock into the one order in which it is written: releases by channel and architecture, payloads by
    /// version, components by name, catalogs by `ref`, packages by name, bundles by version then name, images by
    /// their text and tag, everything else by `ref`. Entries of a list that are wholly equal become one, and comments
    /// without a block go.
    pub fn sort(&mut self) {
        fn sort_pins(pins: &mut Vec<Pin>) {
            pins.iter_mut().for_each(Pin::sort);
            pins.sort();
            pins.sort_by_cached_key(|pin| (pin.image(), pin.tag.clone()));
            pins.dedup();
        }
        for release in &mut self.releases {
            release.risks.sort();
            release.risks.dedup();
            for payload in &mut release.payloads {
                payload.pin.sort();
                for component in &mut payload.components {
                    component.pin.sort();
                }
                payload.components.sort();
                payload.components.dedup();
            }
            release.payloads.sort_by(|left, right| {
                (Version::of(&left.version), left).cmp(&(Version::of(&right.version), right))
            });
        }
        for catalog in &mut self.catalogs {
            catalog.pin.sort();
            for package in &mut catalog.packages {
                for bundle in &mut package.bundles {
                    bundle.pin.sort();
                    bundle.channels.sort();
                    bundle.channels.dedup();
                }
                package.bundles.sort_by(|left, right| {
                    bundle_order(&left.name, &right.name).then_with(|| left.cmp(right))
                });
                package.bundles.dedup();
                sort_pins(&mut package.images);
            }
            catalog.packages.sort();
        }
        for image in &mut self.images {
            image.pin.sort();
        }
        for chart in &mut self.charts {
            if let ChartSource::Image(pin) = &mut chart.source {
                pin.sort();
            }
            sort_pins(&mut chart.images);
        }
        self.releases.sort();
        self.releases.sort_by_cached_key(Release::key);
        self.catalogs.sort();
        self.catalogs.sort_by_cached_key(Catalog::key);
        self.images.sort();
        self.images.sort_by_cached_key(Image::key);
        self.charts.sort();
        self.charts.sort_by_cached_key(Chart::key);
        self.files.sort();
        self.blocked.sort();
        self.blocked.dedup();
        self.skips.sort();
        self.skips.dedup();
        let comments = std::mem::take(&mut self.comments);
        self.comments = comments
            .into_iter()
            .filter(|(key, _)| self.find(key).is_some())
            .map(|(key, lines)| (key, lines.iter().flat_map(|line| clean(line)).collect()))
            .filter(|(_, lines): &(_, Vec<String>)| !lines.is_empty())
            .collect();
    }

    /// The lock's identity: the sha256 of the bytes it is written as. Those of a file with [`Lock::is_newer`] are
    /// not known here: name them with [`Digest::of`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(super::text::emit(self).as_bytes())
    }
}

/// The lines of a comment, without what a TOML comment cannot hold.
fn clean(line: &str) -> impl Iterator<Item = String> {
    line.split('\n').map(|line| {
        line.chars()
            .filter(|character| *character == '\t' || !character.is_ascii_control())
            .collect()
    })
}
