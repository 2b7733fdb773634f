//! Selecting from an operator catalog: which versions of a package are mirrored, in which channels.
//!
//! [`select`] takes the fragment of one package and what the config wants of it, and yields a smaller fragment that
//! a cluster accepts, with the bundles and images that have to be mirrored for it. It depends on nothing but its
//! arguments, so one package never changes another. Requirements between packages are for [`unmet`].
//!
//! ## The three selections
//!
//! | want | [`Selection::DefaultChannel`] | [`Selection::EveryChannel`] | [`Selection::V1`] |
//! |---|---|---|---|
//! | nothing more | head of the default channel | head of each channel | head of each channel; from the lowest version mirrored before, where there was one |
//! | `full` | every entry of every channel | same | same |
//! | channels | head of each | same | same |
//! | a range | of the default channel: entries whose version is in the range | of each channel: the shortest piece of the chain that has them all | minimum alone: that version and the chain from it to the head; else entries in the range |
//! | channels, each with a range | the same in each | same | same; a minimum must be there |
//! | channels and a range for the package | refused | the range, in each named channel | the range has no effect |
//! | bundles | exactly these | same | same |
//! | `full` with a range, bundles with either | refused | refused | a range overrules `full` |
//!
//! The piece of a chain: along `replaces` from the head, from the lowest entry below which everything in the range
//! lies down to the highest below which nothing does; with what these entries skip, if it is in the range. It may
//! hold entries outside of the range, which [`Note::Outside`] tells.
//!
//! Kept entries stay as they are, even where they replace or skip what is gone: clusters that still run it need that.
//!
//! ## Where this differs from what it replaces
//! A package, channel or bundle that does not exist is an error, not silence. A name that is only replaced or
//! skipped, without an entry, is not counted by [`Selection::EveryChannel`]; it could not be served. Whether an
//! emptied channel is the default one is asked of the default channel that was chosen, not of the original. One
//! version as minimum and maximum is an ordinary range.

mod bounds;
mod graph;
mod mend;
mod model;
mod near;
mod require;
mod summary;
mod validity;

#[cfg(test)]
mod tests;

pub use require::{Requirement, Unmet, satisfying, unmet};
pub use summary::{ChannelSummary, Summary, summary};
pub use validity::{Fault, Flaw, validate};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::hint::Hint;
use crate::openshift::fbc::{
    BUNDLE, CHANNEL, Channel, DEPRECATIONS, Document, FbcError, Fragment, PACKAGE, Value,
};
use crate::openshift::version::{Version, VersionError};
use bounds::{Bound, Bounds, Standing};
use graph::Graph;
use model::Model;
use near::near;

/// Which rules choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selection {
    /// `default-channel`: as OpenShift 4.16 documents it.
    #[default]
    DefaultChannel,
    /// `every-channel`: as oc-mirror does since 4.18.
    EveryChannel,
    /// `v1`: as the first oc-mirror did.
    V1,
}

impl Selection {
    /// Every selection.
    pub const ALL: [Self; 3] = [Self::DefaultChannel, Self::EveryChannel, Self::V1];

    /// As `imgbuild.toml` writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DefaultChannel => "default-channel",
            Self::EveryChannel => "every-channel",
            Self::V1 => "v1",
        }
    }

    /// What it makes of pre-releases unless told otherwise.
    #[must_use]
    pub const fn prereleases(self) -> Prereleases {
        match self {
            Self::EveryChannel => Prereleases::Exclude,
            Self::DefaultChannel | Self::V1 => Prereleases::Include,
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text that names no selection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a selection: expected default-channel, every-channel or v1")]
pub struct NoSelection {
    /// What was read.
    pub text: String,
}

impl FromStr for Selection {
    type Err = NoSelection;

    fn from_str(text: &str) -> Result<Self, NoSelection> {
        Self::ALL
            .into_iter()
            .find(|selection| selection.as_str() == text)
            .ok_or_else(|| NoSelection {
                text: text.to_owned(),
            })
    }
}

/// Whether a version such as `5.8.3-4` can be in a range whose ends are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prereleases {
    /// By its order alone: `5.8.3-4` lies between `5.8.2` and `5.8.3`.
    Include,
    /// Only if an end of the range is a pre-release too.
    Exclude,
}

/// How to select.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which rules choose.
    pub selection: Selection,
    /// What becomes of pre-releases; by default what the selection says.
    pub prereleases: Option<Prereleases>,
}

/// What a config wants of one package, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Every version rather than the newest.
    pub full: bool,
    /// Overrides the default channel of the catalog.
    pub default_channel: Option<String>,
    /// `minVersion`
    pub min: Option<String>,
    /// `maxVersion`
    pub max: Option<String>,
    /// `minBundle`
    pub min_bundle: Option<String>,
    /// Only these channels.
    pub channels: Vec<WantChannel>,
    /// Exactly these bundles.
    pub bundles: Vec<String>,
    /// The lowest version mirrored before, by channel; only [`Selection::V1`] asks.
    pub since: BTreeMap<String, Version>,
}

/// What a config wants of one channel, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantChannel {
    /// Its name.
    pub name: String,
    /// `minVersion`
    pub min: Option<String>,
    /// `maxVersion`
    pub max: Option<String>,
    /// `minBundle`
    pub min_bundle: Option<String>,
}

/// What was selected of one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// What is left of its fragment.
    pub fragment: Fragment,
    /// The bundles, by version, then by name.
    pub bundles: Vec<SelectedBundle>,
    /// Every image that a bundle needs, itself included, by name.
    pub images: Vec<SelectedImage>,
    /// What the user should know, in a fixed order.
    pub notes: Vec<Note>,
}

impl Selected {
    /// The lowest version in each channel: what `since` is next time.
    #[must_use]
    pub fn lowest(&self) -> BTreeMap<String, Version> {
        let mut lowest = BTreeMap::new();
        for bundle in &self.bundles {
            for channel in &bundle.channels {
                lowest
                    .entry(channel.clone())
                    .or_insert_with(|| bundle.version.clone());
            }
        }
        lowest
    }
}

/// A bundle that was selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedBundle {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// The channels that were kept and have it, ascending.
    pub channels: Vec<String>,
    /// Its image as the catalog writes it; empty where the bundle is inlined.
    pub image: String,
}

/// An image that selected bundles need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedImage {
    /// As the catalog writes it.
    pub image: String,
    /// Who asked: the bundle, and what it calls the image (empty for the bundle's own), ascending.
    pub asked: Vec<(String, String)>,
}

/// Something that was done and might surprise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// A bundle is left out for nothing but being a pre-release.
    Prerelease {
        /// The channel.
        channel: String,
        /// The bundle.
        bundle: String,
    },
    /// A re-spin of the minimum is left out, for it orders before it.
    BeforeMinimum {
        /// The channel.
        channel: String,
        /// The bundle.
        bundle: String,
    },
    /// A bundle outside of the range is kept, for others hang on it.
    Outside {
        /// The channel.
        channel: String,
        /// The bundle.
        bundle: String,
    },
    /// Nothing of a channel is in the range, so it is gone.
    Emptied {
        /// The channel.
        channel: String,
    },
    /// Bundles of one version, which newer catalog servers refuse.
    SameVersion {
        /// The version.
        version: Version,
        /// The bundles.
        bundles: Vec<String>,
    },
    /// An entry of a bundle's related images names no image.
    NoImage {
        /// The bundle.
        bundle: String,
        /// What it calls the image.
        name: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prerelease { channel, bundle } => write!(
                formatter,
                "channel {channel:?}: {bundle} is left out, for it is a pre-release and neither end of the range is"
            ),
            Self::BeforeMinimum { channel, bundle } => write!(
                formatter,
                "channel {channel:?}: {bundle} is left out, for a pre-release orders before its version; a minimum that ends in -0 takes it"
            ),
            Self::Outside { channel, bundle } => write!(
                formatter,
                "channel {channel:?}: {bundle} is outside of the range and kept, for bundles in the range hang on it"
            ),
            Self::Emptied { channel } => {
                write!(
                    formatter,
                    "channel {channel:?} has nothing in the range and is left out"
                )
            }
            Self::SameVersion { version, bundles } => {
                write!(
                    formatter,
                    "{} have the same version {version}",
                    bundles.join(", ")
                )
            }
            Self::NoImage { bundle, name } => {
                write!(
                    formatter,
                    "{bundle} lists related image {name:?} without saying where it is"
                )
            }
        }
    }
}

/// Nothing can be selected as it was wanted.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The fragment cannot be read.
    #[error(transparent)]
    Fragment(#[from] FbcError),
    /// Two wishes that exclude each other.
    #[error("package {package:?}: {first} cannot be combined with {second}")]
    Combination {
        /// The package.
        package: String,
        /// One of the two.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// A version of the config is none.
    #[error("package {package:?}{}: {key} cannot be read", in_channel(channel.as_deref()))]
    Version {
        /// The package.
        package: String,
        /// The channel, where it stands in one.
        channel: Option<String>,
        /// `minVersion` or `maxVersion`.
        key: &'static str,
        /// What is wrong with it.
        source: Box<VersionError>,
    },
    /// A package is not in the catalog.
    #[error("package {package:?} is not in the catalog")]
    NoPackage {
        /// The package.
        package: String,
        /// Names that were probably meant.
        near: Vec<String>,
    },
    /// A channel is not in the package.
    #[error("package {package:?} has no channel {channel:?}")]
    NoChannel {
        /// The package.
        package: String,
        /// The channel.
        channel: String,
        /// Names that were probably meant, or else all there are.
        near: Vec<String>,
    },
    /// A bundle is not in the package, or not in the channel.
    #[error("package {package:?}{} has no bundle {bundle:?}", in_channel(channel.as_deref()))]
    NoBundle {
        /// The package.
        package: String,
        /// The channel, where only one was looked at.
        channel: Option<String>,
        /// The bundle.
        bundle: String,
        /// Names that were probably meant, or else the newest there are.
        near: Vec<String>,
    },
    /// A version that must be there is not.
    #[error("package {package:?}{} has no version {version}", in_channel(channel.as_deref()))]
    NoVersion {
        /// The package.
        package: String,
        /// The channel, where only one was looked at.
        channel: Option<String>,
        /// The version.
        version: String,
        /// The versions around it.
        near: Vec<String>,
    },
    /// Nothing is left.
    #[error("package {package:?}{}: nothing is in the range{}", in_channel(channel.as_deref()), spaced(range))]
    Empty {
        /// The package.
        package: String,
        /// The channel, where it is about one.
        channel: Option<String>,
        /// The range.
        range: String,
        /// Versions that come closest.
        near: Box<[String]>,
        /// Bundles that are left out for nothing but being pre-releases.
        prereleases: Box<[String]>,
    },
    /// The default channel is not among those that are kept.
    #[error("package {package:?}: default channel {channel:?} is not selected")]
    DefaultChannel {
        /// The package.
        package: String,
        /// The default channel; the catalog's, or the one asked for.
        channel: String,
        /// The channels that are kept.
        kept: Vec<String>,
    },
    /// An image that nobody else can pull.
    #[error(
        "package {package:?}: bundle {bundle} needs {image:?}, which is a path of the machine that built the catalog"
    )]
    LocalImage {
        /// The package.
        package: String,
        /// The bundle.
        bundle: String,
        /// The image.
        image: String,
    },
    /// A cluster would refuse what was selected.
    #[error("package {package:?}: {}{}", if *broken { "the catalog is broken: " } else { "a cluster would refuse the selection: " }, list(flaws))]
    Invalid {
        /// The package.
        package: String,
        /// What is wrong.
        flaws: Vec<Flaw>,
        /// Whether the catalog is already wrong without any selection.
        broken: bool,
        /// The smallest change of the config that makes it right, if one is known.
        mend: Option<String>,
    },
}

fn in_channel(channel: Option<&str>) -> String {
    channel.map_or_else(String::new, |channel| format!(", channel {channel:?}"))
}

fn spaced(range: &str) -> String {
    if range.is_empty() {
        String::new()
    } else {
        format!(" {range}")
    }
}

fn list(flaws: &[Flaw]) -> String {
    let texts: Vec<String> = flaws.iter().map(Flaw::to_string).collect();
    texts.join("; ")
}

fn meant(near: &[String]) -> Option<String> {
    (!near.is_empty()).then(|| format!("did you mean {}?", near.join(" or ")))
}

impl Hint for SelectError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Fragment(error) => error.hint(),
            Self::Combination { instead, .. } => Some((*instead).to_owned()),
            Self::Version { source, .. } => source.hint(),
            Self::NoPackage { near, .. }
            | Self::NoChannel { near, .. }
            | Self::NoBundle { near, .. } => meant(near),
            Self::NoVersion { near, .. } => {
                (!near.is_empty()).then(|| format!("the closest are {}", near.join(", ")))
            }
            Self::Empty {
                near, prereleases, ..
            } => {
                if !prereleases.is_empty() {
                    return Some(format!(
                        "{} would be in it, but are pre-releases: end a bound in \"-0\" to take them",
                        prereleases.join(", ")
                    ));
                }
                (!near.is_empty()).then(|| format!("the closest versions are {}", near.join(", ")))
            }
            Self::DefaultChannel { channel, kept, .. } => Some(match &kept[..] {
                [] => format!("add channel {channel:?}"),
                [only] => format!("set defaultChannel: {only}, or add channel {channel:?}"),
                several => format!(
                    "set defaultChannel to one of {}, or add channel {channel:?}",
                    several.join(", ")
                ),
            }),
            Self::LocalImage { .. } => None,
            Self::Invalid { mend, broken, .. } => mend.clone().or_else(|| {
                broken.then(|| {
                    "select channels or versions that leave the broken part out".to_owned()
                })
            }),
        }
    }
}

/// The error for a package that the catalog does not have.
#[must_use]
pub fn no_package<'c>(package: &str, catalog: impl IntoIterator<Item = &'c str>) -> SelectError {
    SelectError::NoPackage {
        package: package.to_owned(),
        near: near(package, catalog),
    }
}

/// Selects from one package.
///
/// # Errors
/// If the wishes exclude each other or name what is not there, if nothing is left, or if a cluster would refuse the
/// result; see [`SelectError`].
pub fn select(fragment: &Fragment, want: &Want, options: Options) -> Result<Selected, SelectError> {
    let chooser = Chooser {
        package: fragment.package(),
        model: &Model::read(fragment)?,
        want,
        selection: options.selection,
        prereleases: options
            .prereleases
            .unwrap_or_else(|| options.selection.prereleases()),
    };
    chooser.combination()?;
    let mut notes = BTreeSet::new();
    let kept = chooser.kept(&mut notes)?;
    let default_channel = chooser.default_channel(&kept)?;
    let filtered = trim(fragment, &kept, &default_channel)?;
    let model = Model::read(&filtered)?;
    let flaws = validity::flaws(&model);
    if !flaws.is_empty() {
        return Err(chooser.invalid(flaws, &kept));
    }
    let (bundles, images) = chooser.listed(&model, &mut notes)?;
    Ok(Selected {
        fragment: filtered,
        bundles,
        images,
        notes: notes.into_iter().collect(),
    })
}

/// Names of entries by channel.
type Kept = BTreeMap<String, BTreeSet<String>>;

struct Chooser<'s> {
    package: &'s str,
    model: &'s Model,
    want: &'s Want,
    selection: Selection,
    prereleases: Prereleases,
}

impl Chooser<'_> {
    fn combination(&self) -> Result<(), SelectError> {
        let want = self.want;
        let refuse = |first, second, instead| {
            Err(SelectError::Combination {
                package: self.package.to_owned(),
                first,
                second,
                instead,
            })
        };
        let range = want.min.is_some() || want.max.is_some() || want.min_bundle.is_some();
        let of_channel = |channel: &WantChannel| {
            channel.min.is_some() || channel.max.is_some() || channel.min_bundle.is_some()
        };
        let channel_range = want.channels.iter().any(of_channel);
        let both = |min: &Option<String>, min_bundle: &Option<String>| {
            min.is_some() && min_bundle.is_some()
        };
        if both(&want.min, &want.min_bundle)
            || want
                .channels
                .iter()
                .any(|channel| both(&channel.min, &channel.min_bundle))
        {
            return refuse("minVersion", "minBundle", "keep one of them");
        }
        if range && channel_range {
            return refuse(
                "a range for the package",
                "a range for a channel",
                "keep the ranges of the channels",
            );
        }
        if !want.bundles.is_empty() {
            if want.full {
                return refuse("full", "bundles", "leave out full");
            }
            if range || channel_range {
                return refuse("bundles", "a range", "keep one of them");
            }
            if !want.channels.is_empty() && self.selection == Selection::DefaultChannel {
                return refuse(
                    "bundles",
                    "channels",
                    "leave out the channels: a bundle brings its own",
                );
            }
        }
        if want.full && (range || channel_range) && self.selection != Selection::V1 {
            return refuse("full", "a range", "leave out full");
        }
        if range && !want.channels.is_empty() && self.selection == Selection::DefaultChannel {
            return refuse(
                "a range for the package",
                "channels",
                "give each channel its own minVersion and maxVersion",
            );
        }
        Ok(())
    }

    fn bounds(
        &self,
        channel: Option<&str>,
        min: Option<&str>,
        max: Option<&str>,
    ) -> Result<Bounds, SelectError> {
        let read = |key, text: Option<&str>| {
            text.map(|text| {
                Bound::parse(text, self.selection).map_err(|source| SelectError::Version {
                    package: self.package.to_owned(),
                    channel: channel.map(str::to_owned),
                    key,
                    source: Box::new(source),
                })
            })
            .transpose()
        };
        Ok(Bounds {
            min: read("minVersion", min)?,
            max: read("maxVersion", max)?,
        })
    }

    /// The channels to look at, in the catalog's order of names.
    fn candidates(&self) -> Result<Vec<(&Channel, Option<&WantChannel>)>, SelectError> {
        let want = self.want;
        let no_channel = |name: &str| {
            let names = || {
                self.model
                    .channels
                    .iter()
                    .map(|channel| channel.name.as_str())
            };
            let mut near = near(name, names());
            if near.is_empty() && self.model.channels.len() <= 6 {
                near = names().map(str::to_owned).collect();
            }
            SelectError::NoChannel {
                package: self.package.to_owned(),
                channel: name.to_owned(),
                near,
            }
        };
        let find = |name: &str| self.model.channel(name).ok_or_else(|| no_channel(name));
        if let Some(name) = &want.default_channel {
            find(name)?;
        }
        if !want.channels.is_empty() {
            let mut found: BTreeMap<&str, (&Channel, Option<&WantChannel>)> = BTreeMap::new();
            for wanted in &want.channels {
                found.insert(&wanted.name, (find(&wanted.name)?, Some(wanted)));
            }
            return Ok(found.into_values().collect());
        }
        if self.selection == Selection::DefaultChannel && !want.full && want.bundles.is_empty() {
            let name = want.default_channel.as_deref().or_else(|| {
                self.model
                    .packages
                    .first()
                    .map(|package| package.default_channel.as_str())
            });
            return match name.and_then(|name| self.model.channel(name)) {
                Some(channel) => Ok(vec![(channel, None)]),
                None => Err(self.broken()),
            };
        }
        Ok(self
            .model
            .channels
            .iter()
            .map(|channel| (channel, None))
            .collect())
    }

    /// The error for a catalog that is wrong before anything was selected.
    fn broken(&self) -> SelectError {
        SelectError::Invalid {
            package: self.package.to_owned(),
            flaws: validity::flaws(self.model),
            broken: true,
            mend: None,
        }
    }

    fn kept(&self, notes: &mut BTreeSet<Note>) -> Result<Kept, SelectError> {
        let want = self.want;
        let candidates = self.candidates()?;
        self.bundles_exist()?;
        let package_bounds = self.bounds(None, want.min.as_deref(), want.max.as_deref())?;
        let mut kept = Kept::new();
        let mut emptied: Vec<&str> = Vec::new();
        let mut prereleases: BTreeSet<String> = BTreeSet::new();
        for (channel, wanted) in &candidates {
            if channel.entries.is_empty() {
                return Err(self.broken());
            }
            let (bounds, min_bundle) = match wanted {
                Some(wanted)
                    if wanted.min.is_some()
                        || wanted.max.is_some()
                        || wanted.min_bundle.is_some() =>
                {
                    let bounds = self.bounds(
                        Some(&wanted.name),
                        wanted.min.as_deref(),
                        wanted.max.as_deref(),
                    )?;
                    (bounds, wanted.min_bundle.as_deref())
                }
                // The first oc-mirror let the names of channels switch the range off.
                Some(_) if self.selection == Selection::V1 => (Bounds::default(), None),
                _ => (package_bounds.clone(), want.min_bundle.as_deref()),
            };
            let entries = if !want.bundles.is_empty() {
                channel
                    .entries
                    .iter()
                    .map(|entry| entry.name.clone())
                    .filter(|name| want.bundles.contains(name))
                    .collect()
            } else if !bounds.is_empty() || min_bundle.is_some() {
                let bounds = self.with_bundle(channel, bounds, min_bundle, wanted.is_some())?;
                match bounds {
                    None => BTreeSet::new(),
                    Some((bounds, start)) => self.ranged(
                        channel,
                        &bounds,
                        start,
                        wanted.is_some(),
                        notes,
                        &mut prereleases,
                    )?,
                }
            } else if want.full {
                channel
                    .entries
                    .iter()
                    .map(|entry| entry.name.clone())
                    .collect()
            } else {
                self.heads(channel)?
            };
            if entries.is_empty() {
                emptied.push(&channel.name);
            } else {
                kept.insert(channel.name.clone(), entries);
            }
        }
        let default_channel = self.wanted_default();
        let fatal = emptied.iter().copied().find(|name| {
            let named = candidates
                .iter()
                .any(|(channel, wanted)| channel.name == *name && wanted.is_some());
            match self.selection {
                _ if !want.bundles.is_empty() => false,
                Selection::DefaultChannel => true,
                Selection::EveryChannel => default_channel == *name,
                Selection::V1 => named,
            }
        });
        if fatal.is_some() || kept.is_empty() {
            let channel = fatal.or(match &emptied[..] {
                [only] => Some(*only),
                _ => None,
            });
            return Err(self.empty(channel, &candidates, prereleases));
        }
        if want.bundles.is_empty() {
            notes.extend(emptied.into_iter().map(|channel| Note::Emptied {
                channel: channel.to_owned(),
            }));
        }
        Ok(kept)
    }

    fn wanted_default(&self) -> &str {
        match &self.want.default_channel {
            Some(name) => name,
            None => self
                .model
                .packages
                .first()
                .map_or("", |package| &package.default_channel),
        }
    }

    fn bundles_exist(&self) -> Result<(), SelectError> {
        for bundle in &self.want.bundles {
            if !self.model.versions.contains_key(bundle) {
                return Err(self.no_bundle(None, bundle));
            }
        }
        Ok(())
    }

    fn no_bundle(&self, channel: Option<&Channel>, bundle: &str) -> SelectError {
        let names: Vec<&str> = match channel {
            Some(channel) => channel
                .entries
                .iter()
                .map(|entry| entry.name.as_str())
                .collect(),
            None => self.model.versions.keys().map(String::as_str).collect(),
        };
        SelectError::NoBundle {
            package: self.package.to_owned(),
            channel: channel.map(|channel| channel.name.clone()),
            bundle: bundle.to_owned(),
            near: near(bundle, names),
        }
    }

    /// Bounds with `minBundle` resolved, and the bundles to start from; `None` where the channel does not take part.
    fn with_bundle<'c>(
        &self,
        channel: &'c Channel,
        mut bounds: Bounds,
        min_bundle: Option<&str>,
        named: bool,
    ) -> Result<Option<(Bounds, Vec<&'c str>)>, SelectError> {
        let Some(bundle) = min_bundle else {
            let start = match (&bounds.min, &bounds.max) {
                (Some(min), None) if self.selection == Selection::V1 => channel
                    .entries
                    .iter()
                    .filter(|entry| {
                        self.model
                            .version(&entry.name)
                            .is_some_and(|version| min.is(version))
                    })
                    .map(|entry| entry.name.as_str())
                    .collect(),
                _ => Vec::new(),
            };
            return Ok(Some((bounds, start)));
        };
        if !self.model.versions.contains_key(bundle) {
            return Err(self.no_bundle(None, bundle));
        }
        let Some(entry) = channel.entries.iter().find(|entry| entry.name == bundle) else {
            return if named {
                Err(self.no_bundle(Some(channel), bundle))
            } else {
                Ok(None)
            };
        };
        let Some(version) = self.model.version(bundle) else {
            return Err(self.broken());
        };
        bounds.min = Some(
            Bound::parse(&version.to_string(), Selection::V1).map_err(|source| {
                SelectError::Version {
                    package: self.package.to_owned(),
                    channel: Some(channel.name.clone()),
                    key: "minBundle",
                    source: Box::new(source),
                }
            })?,
        );
        let start = if bounds.max.is_none() {
            vec![entry.name.as_str()]
        } else {
            Vec::new()
        };
        Ok(Some((bounds, start)))
    }

    /// The one head of a channel of the catalog.
    fn head<'c>(&self, graph: &Graph<'c>) -> Result<&'c str, SelectError> {
        match graph.heads()[..] {
            [head] => Ok(head),
            _ => Err(self.broken()),
        }
    }

    fn heads(&self, channel: &Channel) -> Result<BTreeSet<String>, SelectError> {
        let graph = Graph::new(&channel.entries);
        let head = self.head(&graph)?;
        if self.selection == Selection::V1
            && let Some(since) = self.want.since.get(&channel.name)
        {
            // The version mirrored first, or the next that is still there, and what leads from it to the head.
            let start = channel
                .entries
                .iter()
                .filter_map(|entry| Some((self.model.version(&entry.name)?, &entry.name)))
                .filter(|(version, _)| version.precedence(since).is_ge())
                .min();
            if let Some((_, start)) = start {
                return Ok(climb(&graph, head, [start.as_str()]));
            }
        }
        Ok(BTreeSet::from([head.to_owned()]))
    }

    fn ranged(
        &self,
        channel: &Channel,
        bounds: &Bounds,
        start: Vec<&str>,
        named: bool,
        notes: &mut BTreeSet<Note>,
        prereleases: &mut BTreeSet<String>,
    ) -> Result<BTreeSet<String>, SelectError> {
        let graph = Graph::new(&channel.entries);
        let mut inside: BTreeSet<&str> = BTreeSet::new();
        for entry in &channel.entries {
            let Some(version) = self.model.versions.get(&entry.name) else {
                continue;
            };
            let Ok(version) = version else {
                return Err(self.broken());
            };
            match bounds.standing(version, self.selection, self.prereleases) {
                Standing::In => {
                    inside.insert(&entry.name);
                }
                Standing::Out => {
                    if let Some(min) = &bounds.min
                        && !version.pre.is_empty()
                        && min.version.pre.is_empty()
                        && min.is(version)
                    {
                        notes.insert(Note::BeforeMinimum {
                            channel: channel.name.clone(),
                            bundle: entry.name.clone(),
                        });
                    }
                }
                Standing::Prerelease => {
                    prereleases.insert(entry.name.clone());
                    notes.insert(Note::Prerelease {
                        channel: channel.name.clone(),
                        bundle: entry.name.clone(),
                    });
                }
            }
        }
        if self.selection == Selection::V1
            && bounds.max.is_none()
            && let Some(min) = &bounds.min
        {
            if start.is_empty() {
                if !named {
                    return Ok(BTreeSet::new());
                }
                return Err(SelectError::NoVersion {
                    package: self.package.to_owned(),
                    channel: Some(channel.name.clone()),
                    version: min.version.to_string(),
                    near: self.closest([channel], bounds),
                });
            }
            // The walk takes no heed of the order of versions.
            notes.retain(|note| !matches!(note, Note::BeforeMinimum { .. }));
            let head = self.head(&graph)?;
            return Ok(climb(&graph, head, start));
        }
        if self.selection != Selection::EveryChannel {
            return Ok(inside.into_iter().map(str::to_owned).collect());
        }
        let head = self.head(&graph)?;
        let piece = piece(&graph, head, &inside);
        notes.extend(
            piece
                .iter()
                .filter(|name| !inside.contains(name.as_str()))
                .map(|name| Note::Outside {
                    channel: channel.name.clone(),
                    bundle: name.clone(),
                }),
        );
        for name in &piece {
            prereleases.remove(name);
            notes.remove(&Note::Prerelease {
                channel: channel.name.clone(),
                bundle: name.clone(),
            });
        }
        Ok(piece)
    }

    /// Up to four versions around the bounds.
    fn closest<'c>(
        &self,
        channels: impl IntoIterator<Item = &'c Channel>,
        bounds: &Bounds,
    ) -> Vec<String> {
        let versions: BTreeSet<&Version> = channels
            .into_iter()
            .flat_map(|channel| &channel.entries)
            .filter_map(|entry| self.model.version(&entry.name))
            .collect();
        let low = bounds.min.as_ref().or(bounds.max.as_ref());
        let high = bounds.max.as_ref().or(bounds.min.as_ref());
        let below = versions
            .iter()
            .rev()
            .filter(|version| low.is_some_and(|low| version.precedence(&low.version).is_lt()))
            .take(2);
        let above = versions
            .iter()
            .filter(|version| high.is_some_and(|high| version.precedence(&high.version).is_gt()))
            .take(2);
        let near: BTreeSet<&Version> = below.chain(above).copied().collect();
        near.into_iter().map(Version::to_string).collect()
    }

    fn empty(
        &self,
        channel: Option<&str>,
        candidates: &[(&Channel, Option<&WantChannel>)],
        prereleases: BTreeSet<String>,
    ) -> SelectError {
        let about: Vec<_> = candidates
            .iter()
            .filter(|(found, _)| channel.is_none_or(|name| found.name == name))
            .collect();
        let wanted = match about[..] {
            [(_, Some(wanted))] if wanted.min.is_some() || wanted.max.is_some() => {
                (wanted.min.as_deref(), wanted.max.as_deref())
            }
            _ => (self.want.min.as_deref(), self.want.max.as_deref()),
        };
        let bounds = self.bounds(channel, wanted.0, wanted.1).unwrap_or_default();
        let range = match wanted {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("from {min}"),
            (None, Some(max)) => format!("up to {max}"),
            (None, None) => String::new(),
        };
        SelectError::Empty {
            package: self.package.to_owned(),
            channel: channel.map(str::to_owned),
            range,
            near: self
                .closest(about.iter().map(|(channel, _)| *channel), &bounds)
                .into(),
            prereleases: prereleases.into_iter().collect(),
        }
    }

    fn default_channel(&self, kept: &Kept) -> Result<String, SelectError> {
        let channel = self.wanted_default();
        if kept.contains_key(channel) {
            return Ok(channel.to_owned());
        }
        Err(SelectError::DefaultChannel {
            package: self.package.to_owned(),
            channel: channel.to_owned(),
            kept: kept.keys().cloned().collect(),
        })
    }

    fn invalid(&self, flaws: Vec<Flaw>, kept: &Kept) -> SelectError {
        let source = validity::flaws(self.model);
        let same = |flaw: &Flaw| {
            source.iter().any(|other| {
                other.channel == flaw.channel
                    && std::mem::discriminant(&other.fault) == std::mem::discriminant(&flaw.fault)
            })
        };
        let broken = flaws.iter().all(same);
        let mend = if broken {
            None
        } else {
            self.mend(&flaws, kept)
        };
        SelectError::Invalid {
            package: self.package.to_owned(),
            flaws,
            broken,
            mend,
        }
    }

    fn listed(
        &self,
        model: &Model,
        notes: &mut BTreeSet<Note>,
    ) -> Result<(Vec<SelectedBundle>, Vec<SelectedImage>), SelectError> {
        let mut bundles = Vec::new();
        let mut images: BTreeMap<&str, BTreeSet<(String, String)>> = BTreeMap::new();
        for bundle in &model.bundles {
            let Some(version) = model.version(&bundle.name) else {
                continue;
            };
            let channels = model
                .channels
                .iter()
                .filter(|channel| {
                    channel
                        .entries
                        .iter()
                        .any(|entry| entry.name == bundle.name)
                })
                .map(|channel| channel.name.clone())
                .collect();
            bundles.push(SelectedBundle {
                name: bundle.name.clone(),
                version: version.clone(),
                channels,
                image: bundle.image.clone(),
            });
            if !bundle.image.is_empty() {
                images
                    .entry(&bundle.image)
                    .or_default()
                    .insert((bundle.name.clone(), String::new()));
            }
            for related in &bundle.related_images {
                if related.image.is_empty() {
                    notes.insert(Note::NoImage {
                        bundle: bundle.name.clone(),
                        name: related.name.clone(),
                    });
                } else if related.image != bundle.image {
                    images
                        .entry(&related.image)
                        .or_default()
                        .insert((bundle.name.clone(), related.name.clone()));
                }
            }
            let local = std::iter::once(&bundle.image)
                .chain(bundle.related_images.iter().map(|related| &related.image))
                .find(|image| image.starts_with("oci:"));
            if let Some(image) = local {
                return Err(SelectError::LocalImage {
                    package: self.package.to_owned(),
                    bundle: bundle.name.clone(),
                    image: image.clone(),
                });
            }
        }
        bundles
            .sort_by(|left, right| (&left.version, &left.name).cmp(&(&right.version, &right.name)));
        for same in bundles.chunk_by(|left, right| left.version == right.version) {
            if same.len() > 1 {
                notes.insert(Note::SameVersion {
                    version: same[0].version.clone(),
                    bundles: same.iter().map(|bundle| bundle.name.clone()).collect(),
                });
            }
        }
        let images = images
            .into_iter()
            .map(|(image, asked)| SelectedImage {
                image: image.to_owned(),
                asked: asked.into_iter().collect(),
            })
            .collect();
        Ok((bundles, images))
    }
}

/// Each start, everything above it along `replaces`, and the head.
fn climb<'s>(
    graph: &Graph<'_>,
    head: &str,
    starts: impl IntoIterator<Item = &'s str>,
) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = starts
        .into_iter()
        .flat_map(|start| graph.upward(start))
        .map(str::to_owned)
        .collect();
    found.insert(head.to_owned());
    found
}

/// The shortest piece of the chain that has everything in the range at or below its upper end; see the module.
fn piece(graph: &Graph<'_>, head: &str, inside: &BTreeSet<&str>) -> BTreeSet<String> {
    let chain = graph.chain(head);
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut counts = vec![0; chain.len()];
    for (at, entry) in chain.iter().enumerate().rev() {
        let own = std::iter::once(&entry.name).chain(&entry.skips);
        seen.extend(own.map(String::as_str).filter(|name| inside.contains(name)));
        counts[at] = seen.len();
    }
    let most = counts.first().copied().unwrap_or_default();
    let upper = counts
        .iter()
        .rposition(|count| *count == most)
        .unwrap_or_default();
    let lower = counts
        .iter()
        .position(|count| *count == 0)
        .unwrap_or(chain.len());
    chain
        .get(upper..lower)
        .unwrap_or_default()
        .iter()
        .flat_map(|entry| {
            let skipped = entry
                .skips
                .iter()
                .filter(|name| inside.contains(name.as_str()) && graph.has(name));
            std::iter::once(&entry.name).chain(skipped)
        })
        .cloned()
        .collect()
}

/// The documents of what is kept, changed as little as that takes.
fn trim(fragment: &Fragment, kept: &Kept, default_channel: &str) -> Result<Fragment, FbcError> {
    let bundles: BTreeSet<&str> = kept.values().flatten().map(String::as_str).collect();
    let mut documents = Vec::new();
    for document in fragment.documents() {
        let head = document.head();
        let changed = match head.schema.as_str() {
            PACKAGE => {
                let mut value = document.value();
                let is = value.get("defaultChannel").and_then(Value::as_text);
                if is == Some(default_channel) {
                    None
                } else {
                    if let Value::Map(entries) = &mut value {
                        let name = Value::Text(default_channel.to_owned());
                        entries.insert("defaultChannel".to_owned(), name);
                    }
                    Some(value)
                }
            }
            CHANNEL => {
                let Some(entries) = kept.get(&head.name) else {
                    continue;
                };
                let mut value = document.value();
                keep_rows(&mut value, |entry| {
                    entry
                        .get("name")
                        .and_then(Value::as_text)
                        .is_some_and(|name| entries.contains(name))
                })
            }
            BUNDLE if !bundles.contains(head.name.as_str()) => continue,
            DEPRECATIONS => {
                let mut value = document.value();
                let changed = keep_rows(&mut value, |entry| {
                    let text = |key| {
                        entry
                            .get("reference")
                            .and_then(|reference| reference.get(key))
                            .and_then(Value::as_text)
                    };
                    let name = text("name").unwrap_or_default();
                    match text("schema") {
                        Some(BUNDLE) => bundles.contains(name),
                        Some(CHANNEL) => kept.contains_key(name),
                        _ => true,
                    }
                });
                if let Some(Value::List(rows)) =
                    changed.as_ref().and_then(|value| value.get("entries"))
                    && rows.is_empty()
                {
                    continue;
                }
                changed
            }
            _ => None,
        };
        documents.push(match changed {
            None => document.clone(),
            Some(value) => Document::new(&value).map_err(|reason| FbcError::Field {
                package: head.package.clone(),
                schema: head.schema.clone(),
                name: head.name.clone(),
                reason,
            })?,
        });
    }
    Fragment::new(fragment.package(), documents)
}

/// Drops rows of `entries`; `None` if all stay.
fn keep_rows(value: &mut Value, keep: impl Fn(&Value) -> bool) -> Option<Value> {
    let Some(Value::List(rows)) = value.get_mut("entries") else {
        return None;
    };
    let before = rows.len();
    rows.retain(keep);
    (rows.len() < before).then(|| value.clone())
}
