//! Whether a cluster will take a package: the rules of the catalog server, and what each breach is called.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::graph::Graph;
use super::model::Model;
use crate::openshift::fbc::{FbcError, Fragment};
use crate::openshift::version::Range;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flaw {
    /// The channel; `None` for the package as a whole.
    pub channel: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.channel {
            Some(channel) => write!(formatter, "channel {channel:?} {}", self.fault),
            None => write!(formatter, "it {}", self.fault),
        }
    }
}

/// A breach of the rules of file-based catalogs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Not exactly one `olm.package`.
    Packages {
        /// How many there are.
        count: usize,
    },
    /// The default channel is not among the channels, or not set.
    DefaultChannel {
        /// Its name; empty where it is not set.
        name: String,
        /// The channels there are.
        channels: Vec<String>,
    },
    /// Two channels of one name.
    ChannelTwice,
    /// Two bundles of one name.
    BundleTwice {
        /// The name.
        bundle: String,
    },
    /// A bundle without a usable version.
    Version {
        /// The bundle.
        bundle: String,
        /// Why it has none.
        reason: String,
    },
    /// A bundle that is in no channel.
    Unlisted {
        /// The bundle.
        bundle: String,
    },
    /// A channel without entries.
    NoEntry,
    /// Two entries of one name.
    EntryTwice {
        /// The name.
        bundle: String,
    },
    /// Entries whose bundle is not in the catalog.
    NoBundle {
        /// Their names.
        bundles: Vec<String>,
    },
    /// An entry that replaces or skips itself.
    Itself {
        /// Its name.
        bundle: String,
        /// `replaces` or `skips`.
        how: &'static str,
    },
    /// An entry that skips nothing, by an empty name.
    EmptySkip {
        /// Its name.
        bundle: String,
    },
    /// A skip range that is none.
    SkipRange {
        /// The entry.
        bundle: String,
        /// Why.
        reason: String,
    },
    /// Every entry is replaced or skipped by another.
    NoHead,
    /// More than one entry is the newest.
    Heads {
        /// Their names.
        bundles: Vec<String>,
    },
    /// Entries that replace or skip each other in a circle.
    Cycle {
        /// Each replaces or skips the next, the last the first.
        bundles: Vec<String>,
    },
    /// Entries that no update leads to.
    Stranded {
        /// The newest entry.
        head: String,
        /// Those that it does not lead down to.
        bundles: Vec<String>,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages { count } => {
                write!(formatter, "has {count} olm.package documents, expected one")
            }
            Self::DefaultChannel { name, channels } if name.is_empty() => write!(
                formatter,
                "has no default channel (channels: {})",
                channels.join(", ")
            ),
            Self::DefaultChannel { name, channels } => write!(
                formatter,
                "has default channel {name:?}, which is not among its channels ({})",
                channels.join(", ")
            ),
            Self::ChannelTwice => formatter.write_str("is there twice"),
            Self::BundleTwice { bundle } => write!(formatter, "has bundle {bundle:?} twice"),
            Self::Version { bundle, reason } => {
                write!(
                    formatter,
                    "has bundle {bundle:?} without a version: {reason}"
                )
            }
            Self::Unlisted { bundle } => {
                write!(formatter, "has bundle {bundle:?}, which is in no channel")
            }
            Self::NoEntry => formatter.write_str("has no entries"),
            Self::EntryTwice { bundle } => write!(formatter, "has entry {bundle:?} twice"),
            Self::NoBundle { bundles } => write!(
                formatter,
                "has entries without a bundle: {}",
                bundles.join(", ")
            ),
            Self::Itself { bundle, how } => {
                write!(formatter, "has entry {bundle:?}, which {how} itself")
            }
            Self::EmptySkip { bundle } => {
                write!(formatter, "has entry {bundle:?}, which skips an empty name")
            }
            Self::SkipRange { bundle, reason } => write!(
                formatter,
                "has entry {bundle:?} with a skipRange that cannot be read: {reason}"
            ),
            Self::NoHead => {
                formatter.write_str("has no head: every entry is replaced or skipped by another")
            }
            Self::Heads { bundles } => {
                write!(formatter, "has more than one head: {}", bundles.join(", "))
            }
            Self::Cycle { bundles } => write!(
                formatter,
                "has entries that replace or skip each other in a circle: {}",
                bundles.join(" -> ")
            ),
            Self::Stranded { head, bundles } => write!(
                formatter,
                "has entries that head {head} does not lead down to: {}",
                bundles.join(", ")
            ),
        }
    }
}

/// Everything that keeps a cluster from taking a package, in a fixed order; empty for a good one.
///
/// # Errors
/// If a document has not the form of its schema.
pub fn validate(fragment: &Fragment) -> Result<Vec<Flaw>, FbcError> {
    Ok(flaws(&Model::read(fragment)?))
}

pub(super) fn flaws(model: &Model) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let mut package = |fault| {
        flaws.push(Flaw {
            channel: None,
            fault,
        });
    };
    if model.packages.len() != 1 {
        package(Fault::Packages {
            count: model.packages.len(),
        });
    }
    if let Some(document) = model.packages.first() {
        let channels: Vec<String> = model
            .channels
            .iter()
            .map(|channel| channel.name.clone())
            .collect();
        if !channels.contains(&document.default_channel) {
            package(Fault::DefaultChannel {
                name: document.default_channel.clone(),
                channels,
            });
        }
    }
    let mut listed: BTreeSet<&str> = BTreeSet::new();
    for channel in &model.channels {
        listed.extend(channel.entries.iter().map(|entry| entry.name.as_str()));
    }
    for pair in model.bundles.windows(2) {
        if pair[0].name == pair[1].name {
            package(Fault::BundleTwice {
                bundle: pair[0].name.clone(),
            });
        }
    }
    for bundle in &model.bundles {
        if let Some(Err(reason)) = model.versions.get(&bundle.name) {
            package(Fault::Version {
                bundle: bundle.name.clone(),
                reason: reason.clone(),
            });
        }
        if !listed.contains(bundle.name.as_str()) {
            package(Fault::Unlisted {
                bundle: bundle.name.clone(),
            });
        }
    }
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for channel in &model.channels {
        let seen = names.entry(&channel.name).or_default();
        *seen += 1;
        let mut faults = Vec::new();
        if *seen == 2 {
            faults.push(Fault::ChannelTwice);
        }
        faults.extend(Graph::new(&channel.entries).faults());
        let absent: BTreeSet<String> = channel
            .entries
            .iter()
            .filter(|entry| !model.versions.contains_key(&entry.name))
            .map(|entry| entry.name.clone())
            .collect();
        if !absent.is_empty() {
            faults.push(Fault::NoBundle {
                bundles: absent.into_iter().collect(),
            });
        }
        for entry in &channel.entries {
            if entry.skip_range.is_empty() {
                continue;
            }
            if let Err(error) = entry.skip_range.parse::<Range>() {
                let reason = match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                };
                faults.push(Fault::SkipRange {
                    bundle: entry.name.clone(),
                    reason,
                });
            }
        }
        flaws.extend(faults.into_iter().map(|fault| Flaw {
            channel: Some(channel.name.clone()),
            fault,
        }));
    }
    flaws
}
