//! Which releases a configuration asks for.
//!
//! One channel gives the releases from a lower to an upper bound, or the shortest path between the two:
//!
//! | minimum | maximum | full | from | to |
//! |---|---|---|---|---|
//! | - | - | no | head | head |
//! | - | - | yes | first | head |
//! | set | - | any | minimum | head |
//! | - | set | any | first | maximum |
//! | set | set | any | minimum | maximum |
//!
//! *Head* and *first* are the greatest and the smallest version of all releases in the channel's graph, which has
//! releases of earlier minors in it. Several channels of OpenShift Container Platform give, besides, the path from the
//! smallest bound of all to the greatest of all, through the channels between them ([`between`]).
//!
//! ## Where this differs from oc-mirror
//! oc-mirror walks no conditional edge and does not say so; here a path that would need one is an error that
//! names it, unless the risks are accepted. A `shortestPath` that does not exist is an error here and two unconnected
//! releases there; so is a range with nothing in it, or a minimum above its maximum. The path *across* channels
//! stays a courtesy, as it is there: what is missing of it is a [`Note`], because two channels may well be wanted
//! for clusters that have nothing to do with each other. Ties between channels are broken by name, not by the order of the list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use regex::Regex;

use super::{Crossing, Graph, NoPath, Release};
use crate::hint::Hint;
use crate::openshift::version::Version;
use crate::reference::Reference;

/// How many names an error proposes.
const NEAR: usize = 3;

/// The product a channel belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    /// OpenShift Container Platform.
    #[default]
    Ocp,
    /// The community distribution. It has no part in paths across channels.
    Okd,
}

/// What is wanted of one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// The channel, such as `stable-4.16`.
    pub channel: String,
    /// The product it belongs to.
    pub product: Product,
    /// The lower bound.
    pub min: Option<Version>,
    /// The upper bound.
    pub max: Option<Version>,
    /// Whether a missing lower bound is the first release and not the head.
    pub full: bool,
    /// Whether only the releases on the shortest path are wanted.
    pub shortest_path: bool,
}

/// What holds for all channels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The risks that conditional edges may have and still be crossed, by name.
    pub accepted: &'a [String],
    /// Which versions count when the head and the first release of a channel are looked for; all, if not given.
    pub counted: Option<&'a Regex>,
    /// Names of channels that exist, for proposals in errors; those the graphs name are known anyway.
    pub known: &'a [String],
}

/// A release that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its version.
    pub version: Version,
    /// The image that is the release.
    pub payload: Reference,
    /// The channels it was chosen from, ascending.
    pub channels: BTreeSet<String>,
    /// Its errata.
    pub url: Option<String>,
}

/// The releases that were chosen, and what should be said about the choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// By ascending version, then payload; no payload twice.
    pub releases: Vec<Chosen>,
    /// Ascending, none twice.
    pub notes: Vec<Note>,
}

/// Something to know about a choice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// An extended-update channel spans several minors; releases between them may not be in it.
    ExtendedUpdates {
        /// The channel.
        channel: String,
        /// Where the range starts.
        min: Version,
        /// Where it ends.
        max: Version,
    },
    /// A path crosses an edge whose risks were accepted.
    Crossed {
        /// The channel whose graph was walked.
        channel: String,
        /// The edge.
        crossing: Crossing,
    },
    /// A chosen release can be reached from the lower bound only over edges with risks that were not accepted.
    OnlyConditional {
        /// The channel whose graph was walked.
        channel: String,
        /// The release.
        version: Version,
        /// The edges in the way.
        crossings: Vec<Crossing>,
    },
    /// The path across channels has a gap: the release is not in the next channel.
    NotInNext {
        /// The last release on the path.
        version: Version,
        /// The channel that lacks it.
        channel: String,
        /// What the path was meant to reach.
        wanted: Version,
    },
    /// The path across channels has a gap inside one channel.
    NoWay {
        /// The channel.
        channel: String,
        /// Where the missing part starts.
        from: Version,
        /// Where it ends.
        to: Version,
        /// The edges with risks that would close the gap; none if nothing would.
        crossings: Vec<Crossing>,
    },
    /// The two channels cannot be joined: the second is of an earlier minor or another major.
    Apart {
        /// The channel of the smallest bound.
        from: String,
        /// The channel of the greatest bound.
        to: String,
    },
}

fn listed(crossings: &[Crossing]) -> String {
    crossings
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExtendedUpdates { channel, min, max } => write!(
                formatter,
                "channel {channel} from {min} to {max} may lack releases in between; compare it with the update graph"
            ),
            Self::Crossed { channel, crossing } => {
                write!(
                    formatter,
                    "channel {channel}: accepted the risk of {crossing}"
                )
            }
            Self::OnlyConditional {
                channel,
                version,
                crossings,
            } => write!(
                formatter,
                "channel {channel}: {version} can only be reached by conditional updates: {}",
                listed(crossings)
            ),
            Self::NotInNext {
                version,
                channel,
                wanted,
            } => write!(
                formatter,
                "no update path to {wanted}: {version} is not in channel {channel}"
            ),
            Self::NoWay {
                channel,
                from,
                to,
                crossings,
            } if crossings.is_empty() => write!(
                formatter,
                "channel {channel} has no update path from {from} to {to}"
            ),
            Self::NoWay {
                channel,
                from,
                to,
                crossings,
            } => write!(
                formatter,
                "channel {channel} has only conditional updates from {from} to {to}: {}",
                listed(crossings)
            ),
            Self::Apart { from, to } => {
                write!(
                    formatter,
                    "no update path from channel {from} to channel {to}"
                )
            }
        }
    }
}

/// A wish that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// A channel without releases: services answer so for one that does not exist.
    #[error("no releases in channel {channel}")]
    NoReleases {
        /// The channel.
        channel: String,
        /// Channels with a similar name.
        near: Vec<String>,
    },
    /// None of the releases in a channel counts.
    #[error("the version filter leaves no release in channel {channel}")]
    NoneCounts {
        /// The channel.
        channel: String,
    },
    /// The graph of a channel was not handed in.
    #[error("the update graph of channel {channel} is missing")]
    NoGraph {
        /// The channel.
        channel: String,
    },
    /// A graph holds several architectures.
    #[error("the update graph of channel {channel} has {version} twice; expected one architecture")]
    SeveralArchitectures {
        /// The channel.
        channel: String,
        /// A version that is there twice.
        version: Version,
    },
    /// The bounds are the wrong way round.
    #[error("channel {channel}: minimum {min} is above maximum {max}")]
    MinAboveMax {
        /// The channel.
        channel: String,
        /// The lower bound.
        min: Version,
        /// The upper bound.
        max: Version,
    },
    /// The lower bound is above everything.
    #[error("channel {channel}: minimum {min} is above its head {head}")]
    MinAboveHead {
        /// The channel.
        channel: String,
        /// The lower bound.
        min: Version,
        /// The greatest version there is.
        head: Version,
    },
    /// The upper bound is below everything.
    #[error("channel {channel}: maximum {max} is below its first release {first}")]
    MaxBelowFirst {
        /// The channel.
        channel: String,
        /// The upper bound.
        max: Version,
        /// The smallest version there is.
        first: Version,
    },
    /// A range holds nothing.
    #[error("channel {channel} has no release from {min} to {max}")]
    NothingInRange {
        /// The channel.
        channel: String,
        /// The lower bound.
        min: Version,
        /// The upper bound.
        max: Version,
        /// The releases on both sides of the range.
        near: Vec<Version>,
    },
    /// The end of a path is not in the channel.
    #[error("release {version} is not in channel {channel}")]
    UnknownVersion {
        /// The channel.
        channel: String,
        /// The version.
        version: Version,
        /// The releases on both sides of it.
        near: Vec<Version>,
    },
    /// A path would need risks that were not accepted.
    #[error(
        "channel {channel}: only conditional updates lead from {from} to {to}: {}",
        listed(crossings)
    )]
    Conditional {
        /// The channel.
        channel: String,
        /// Where the path starts.
        from: Version,
        /// Where it ends.
        to: Version,
        /// The fewest edges with risks that were not accepted.
        crossings: Vec<Crossing>,
    },
    /// There is no path.
    #[error("channel {channel}: no update path from {from} to {to}{}", gap(reached.as_ref(), before.as_ref()))]
    NoPath {
        /// The channel.
        channel: String,
        /// Where the path starts.
        from: Version,
        /// Where it should end.
        to: Version,
        /// The greatest release below the end that can be reached.
        reached: Option<Version>,
        /// The smallest release above the start from which the end can be reached.
        before: Option<Version>,
    },
    /// A name without a version in it cannot take part in a path across channels.
    #[error(
        "channel {channel:?} is not named <stream>-<major>.<minor>, so no path can lead through it"
    )]
    Name {
        /// The channel.
        channel: String,
    },
}

fn gap(reached: Option<&Version>, before: Option<&Version>) -> String {
    let reached = reached.map(|version| format!("; {version} is as far as one gets"));
    let before =
        before.map(|version| format!("; {version} is the first from which one gets there"));
    reached.into_iter().chain(before).collect()
}

impl Hint for ChooseError {
    fn hint(&self) -> Option<String> {
        let names = |near: &[Version]| {
            let near: Vec<String> = near.iter().map(ToString::to_string).collect();
            (!near.is_empty()).then(|| format!("nearest in the channel: {}", near.join(", ")))
        };
        match self {
            Self::NoReleases { near, .. } if !near.is_empty() => {
                Some(format!("similar channels: {}", near.join(", ")))
            }
            Self::NothingInRange { near, .. } | Self::UnknownVersion { near, .. } => names(near),
            Self::Conditional { crossings, .. } => {
                let risks: BTreeSet<&str> = crossings
                    .iter()
                    .flat_map(|crossing| crossing.risks.iter().map(String::as_str))
                    .collect();
                let risks: Vec<&str> = risks.into_iter().collect();
                Some(format!(
                    "read what the risks are, then accept them by name: {}",
                    risks.join(", ")
                ))
            }
            Self::NoPath { .. } => Some(
                "take shortestPath out to mirror the whole range, or choose other bounds"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// A want with its bounds filled in.
struct Bounded<'a> {
    want: &'a Want,
    graph: &'a Graph,
    min: Version,
    max: Version,
}

/// Chooses releases, given the graph of every wanted channel and of every channel [`between`] them.
///
/// The result does not depend on the order of `wants`.
pub fn choose(
    wants: &[Want],
    graphs: &BTreeMap<String, Graph>,
    options: Options<'_>,
) -> Result<Selection, ChooseError> {
    let mut collected = Collected::default();
    let bounded = bound(wants, graphs, options)?;
    for one in &bounded {
        collected.channel(one, options)?;
    }
    if let Some((first, last)) = ends(&bounded) {
        collected.across(first, last, graphs, options)?;
    }
    Ok(collected.finish())
}

/// Chooses only what the path from the smallest bound of all channels to the greatest crosses; nothing, if fewer than two
/// of the channels take part in such a path.
pub fn across(
    wants: &[Want],
    graphs: &BTreeMap<String, Graph>,
    options: Options<'_>,
) -> Result<Selection, ChooseError> {
    let mut collected = Collected::default();
    let bounded = bound(wants, graphs, options)?;
    if let Some((first, last)) = ends(&bounded) {
        collected.across(first, last, graphs, options)?;
    }
    Ok(collected.finish())
}

/// The channels besides the wanted ones whose graphs a path across channels walks, ascending by minor.
pub fn between(
    wants: &[Want],
    graphs: &BTreeMap<String, Graph>,
    options: Options<'_>,
) -> Result<Vec<String>, ChooseError> {
    let bounded = bound(wants, graphs, options)?;
    let Some((first, last)) = ends(&bounded) else {
        return Ok(Vec::new());
    };
    if first.want.channel == last.want.channel {
        return Ok(Vec::new());
    }
    let (stream, start) = parse_name(&first.want.channel)?;
    let (_, end) = parse_name(&last.want.channel)?;
    if start.0 != end.0 {
        return Ok(Vec::new());
    }
    Ok((start.1 + 1..end.1)
        .map(|minor| format!("{stream}-{}.{minor}", start.0))
        .collect())
}

impl Selection {
    /// Joins the choices of several architectures.
    #[must_use]
    pub fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut collected = Collected::default();
        for part in parts {
            for chosen in part.releases {
                collected.add(chosen);
            }
            collected.notes.extend(part.notes);
        }
        collected.finish()
    }
}

/// Fills in the bounds of every want.
fn bound<'a>(
    wants: &'a [Want],
    graphs: &'a BTreeMap<String, Graph>,
    options: Options<'_>,
) -> Result<Vec<Bounded<'a>>, ChooseError> {
    let mut bounded = Vec::with_capacity(wants.len());
    let mut wants: Vec<&Want> = wants.iter().collect();
    wants.sort_by(|a, b| a.channel.cmp(&b.channel));
    for want in wants {
        let channel = want.channel.clone();
        let graph = graphs.get(&channel).ok_or_else(|| ChooseError::NoGraph {
            channel: channel.clone(),
        })?;
        let (first, head) = extremes(&channel, graph, graphs, options)?;
        if let Some(version) = graph.ambiguous() {
            return Err(ChooseError::SeveralArchitectures {
                channel,
                version: version.clone(),
            });
        }
        let min = match (&want.min, &want.max) {
            (Some(min), _) => min.clone(),
            (None, None) if !want.full => head.clone(),
            (None, _) => first.clone(),
        };
        let max = want.max.clone().unwrap_or_else(|| head.clone());
        if min.precedence(&max).is_gt() {
            return Err(match (&want.min, &want.max) {
                (Some(_), Some(_)) => ChooseError::MinAboveMax { channel, min, max },
                (Some(_), None) => ChooseError::MinAboveHead {
                    channel,
                    min,
                    head: max,
                },
                _ => ChooseError::MaxBelowFirst {
                    channel,
                    max,
                    first: min,
                },
            });
        }
        bounded.push(Bounded {
            want,
            graph,
            min,
            max,
        });
    }
    Ok(bounded)
}

/// The smallest and the greatest version of a channel that count.
fn extremes<'a>(
    channel: &str,
    graph: &'a Graph,
    graphs: &BTreeMap<String, Graph>,
    options: Options<'_>,
) -> Result<(&'a Version, &'a Version), ChooseError> {
    if graph.releases().is_empty() {
        return Err(ChooseError::NoReleases {
            channel: channel.to_owned(),
            near: similar(channel, graphs, options.known),
        });
    }
    let mut counted = graph
        .releases()
        .iter()
        .map(|release| &release.version)
        .filter(|version| {
            options
                .counted
                .is_none_or(|pattern| pattern.is_match(&version.to_string()))
        });
    let first = counted.next().ok_or_else(|| ChooseError::NoneCounts {
        channel: channel.to_owned(),
    })?;
    Ok((first, counted.next_back().unwrap_or(first)))
}

/// The wants with the smallest lower and the greatest upper bound, if there is more than one to compare.
fn ends<'a, 'b>(bounded: &'b [Bounded<'a>]) -> Option<(&'b Bounded<'a>, &'b Bounded<'a>)> {
    let ours = || {
        bounded
            .iter()
            .filter(|one| one.want.product == Product::Ocp)
    };
    if ours().count() < 2 {
        return None;
    }
    // Sorted by name, so the first of equals is the one with the smallest name.
    let first = ours().min_by(|a, b| a.min.precedence(&b.min))?;
    let last = ours().rev().max_by(|a, b| a.max.precedence(&b.max))?;
    Some((first, last))
}

/// Splits `<stream>-<major>.<minor>` at the last hyphen.
pub fn parse_name(channel: &str) -> Result<(&str, (u64, u64)), ChooseError> {
    channel
        .rsplit_once('-')
        .and_then(|(stream, version)| {
            let version = Version::parse_tolerant(version).ok()?;
            Some((stream, (version.major, version.minor)))
        })
        .ok_or_else(|| ChooseError::Name {
            channel: channel.to_owned(),
        })
}

#[derive(Default)]
struct Collected {
    /// By payload.
    releases: BTreeMap<Reference, Chosen>,
    notes: BTreeSet<Note>,
}

impl Collected {
    fn add(&mut self, chosen: Chosen) {
        match self.releases.get_mut(&chosen.payload) {
            Some(there) => there.channels.extend(chosen.channels),
            None => {
                self.releases.insert(chosen.payload.clone(), chosen);
            }
        }
    }

    fn release(&mut self, channel: &str, release: &Release) {
        self.add(Chosen {
            version: release.version.clone(),
            payload: release.payload.clone(),
            channels: BTreeSet::from([channel.to_owned()]),
            url: release.url().map(str::to_owned),
        });
    }

    fn finish(self) -> Selection {
        let mut releases: Vec<Chosen> = self.releases.into_values().collect();
        releases.sort_by(|a, b| {
            a.version
                .cmp(&b.version)
                .then_with(|| a.payload.cmp(&b.payload))
        });
        Selection {
            releases,
            notes: self.notes.into_iter().collect(),
        }
    }

    /// Adds what one channel gives by itself.
    fn channel(&mut self, one: &Bounded<'_>, options: Options<'_>) -> Result<(), ChooseError> {
        let channel = &one.want.channel;
        if channel.contains("eus") && one.max.minor.saturating_sub(one.min.minor) >= 2 {
            self.notes.insert(Note::ExtendedUpdates {
                channel: channel.clone(),
                min: one.min.clone(),
                max: one.max.clone(),
            });
        }
        if one.want.shortest_path {
            let from = position(channel, one.graph, &one.min)?;
            let to = position(channel, one.graph, &one.max)?;
            let path = one
                .graph
                .shortest_path(from, to, options.accepted)
                .map_err(|reason| {
                    let (channel, from, to) = (channel.clone(), one.min.clone(), one.max.clone());
                    match reason {
                        NoPath::Conditional(crossings) => ChooseError::Conditional {
                            channel,
                            from,
                            to,
                            crossings,
                        },
                        NoPath::None { reached, before } => ChooseError::NoPath {
                            channel,
                            from,
                            to,
                            reached,
                            before,
                        },
                    }
                })?;
            self.path(channel, one.graph, path);
            return Ok(());
        }
        let within: Vec<usize> = one
            .graph
            .releases()
            .iter()
            .enumerate()
            .filter(|(_, release)| {
                release.version.precedence(&one.min).is_ge()
                    && release.version.precedence(&one.max).is_le()
            })
            .map(|(index, _)| index)
            .collect();
        let Some(start) = within.first().copied() else {
            return Err(ChooseError::NothingInRange {
                channel: channel.clone(),
                min: one.min.clone(),
                max: one.max.clone(),
                near: near(one.graph, &one.min),
            });
        };
        for index in within {
            let release = &one.graph.releases()[index];
            self.release(channel, release);
            if let Err(NoPath::Conditional(crossings)) =
                one.graph.shortest_path(start, index, options.accepted)
            {
                self.notes.insert(Note::OnlyConditional {
                    channel: channel.clone(),
                    version: release.version.clone(),
                    crossings,
                });
            }
        }
        Ok(())
    }

    fn path(&mut self, channel: &str, graph: &Graph, path: super::Path) {
        for step in path.steps {
            self.release(channel, &graph.releases()[step]);
        }
        for crossing in path.crossings {
            self.notes.insert(Note::Crossed {
                channel: channel.to_owned(),
                crossing,
            });
        }
    }

    /// Adds the path inside one channel that is part of a longer one; without a path, its ends.
    fn part(
        &mut self,
        channel: &str,
        graph: &Graph,
        (from, to): (&Version, &Version),
        options: Options<'_>,
    ) -> Result<(), ChooseError> {
        let start = position(channel, graph, from)?;
        let end = position(channel, graph, to)?;
        match graph.shortest_path(start, end, options.accepted) {
            Ok(path) => self.path(channel, graph, path),
            Err(reason) => {
                self.release(channel, &graph.releases()[start]);
                self.release(channel, &graph.releases()[end]);
                self.notes.insert(Note::NoWay {
                    channel: channel.to_owned(),
                    from: from.clone(),
                    to: to.clone(),
                    crossings: match reason {
                        NoPath::Conditional(crossings) => crossings,
                        NoPath::None { .. } => Vec::new(),
                    },
                });
            }
        }
        Ok(())
    }

    /// Adds the path from the smallest bound to the greatest through the channels between them.
    fn across(
        &mut self,
        first: &Bounded<'_>,
        last: &Bounded<'_>,
        graphs: &BTreeMap<String, Graph>,
        options: Options<'_>,
    ) -> Result<(), ChooseError> {
        let (source, target) = (&first.want.channel, &last.want.channel);
        if source == target {
            // A bound of a range need not be a release; then the range is all there is.
            if let (Some(_), Some(_)) = (
                first.graph.position(&first.min),
                last.graph.position(&last.max),
            ) {
                self.part(source, first.graph, (&first.min, &last.max), options)?;
            }
            return Ok(());
        }
        let (stream, start) = parse_name(source)?;
        let (_, end) = parse_name(target)?;
        let end_position = position(target, last.graph, &last.max)?;
        let end_release = &last.graph.releases()[end_position];
        if start.0 != end.0 || start.1 > end.1 {
            self.notes.insert(Note::Apart {
                from: source.clone(),
                to: target.clone(),
            });
            self.release(target, end_release);
            return Ok(());
        }
        let mut at = first.min.clone();
        if start.1 < end.1 {
            let (_, head) = extremes(source, first.graph, graphs, options)?;
            self.part(source, first.graph, (&at, head), options)?;
            at = head.clone();
        }
        for minor in start.1..end.1 {
            let minor = minor + 1;
            let name;
            let (channel, graph, goal) = if minor == end.1 {
                (target, last.graph, &last.max)
            } else {
                name = format!("{stream}-{}.{minor}", start.0);
                let graph = graphs.get(&name).ok_or_else(|| ChooseError::NoGraph {
                    channel: name.clone(),
                })?;
                if graph.releases().is_empty() {
                    self.blocked(&at, &name, target, last, end_release);
                    return Ok(());
                }
                let (_, head) = extremes(&name, graph, graphs, options)?;
                (&name, graph, head)
            };
            if graph.position(&at).is_none() {
                self.blocked(&at, channel, target, last, end_release);
                return Ok(());
            }
            self.part(channel, graph, (&at, goal), options)?;
            at = goal.clone();
        }
        if start.1 == end.1 {
            if last.graph.position(&at).is_none() {
                self.blocked(&at, target, target, last, end_release);
            } else {
                self.part(target, last.graph, (&at, &last.max), options)?;
            }
        }
        Ok(())
    }

    fn blocked(
        &mut self,
        at: &Version,
        channel: &str,
        target: &str,
        last: &Bounded<'_>,
        release: &Release,
    ) {
        self.notes.insert(Note::NotInNext {
            version: at.clone(),
            channel: channel.to_owned(),
            wanted: last.max.clone(),
        });
        self.release(target, release);
    }
}

fn position(channel: &str, graph: &Graph, version: &Version) -> Result<usize, ChooseError> {
    graph
        .position(version)
        .ok_or_else(|| ChooseError::UnknownVersion {
            channel: channel.to_owned(),
            version: version.clone(),
            near: near(graph, version),
        })
}

fn near(graph: &Graph, version: &Version) -> Vec<Version> {
    let (below, above) = graph.neighbours(version);
    below.into_iter().chain(above).cloned().collect()
}

/// The channels whose names are most like `channel`: of those that are known, and those that releases say they are in.
#[must_use]
pub fn similar(channel: &str, graphs: &BTreeMap<String, Graph>, known: &[String]) -> Vec<String> {
    let mut names: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    for (name, graph) in graphs {
        if !graph.releases().is_empty() {
            names.insert(name);
        }
        names.extend(graph.releases().iter().flat_map(Release::channels));
    }
    names.remove(channel);
    let mut ranked: Vec<(usize, &str)> = names
        .into_iter()
        .map(|name| (distance(channel, name), name))
        .filter(|(distance, _)| *distance <= channel.len() / 3)
        .collect();
    ranked.sort_unstable();
    ranked
        .into_iter()
        .take(NEAR)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// How many letters must be inserted, deleted or replaced to turn one text into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let cost = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::tests::graph;
    use super::*;

    fn graphs() -> BTreeMap<String, Graph> {
        BTreeMap::from([
            (
                "stable-4.14".to_owned(),
                graph(
                    &[
                        ("4.13.9", "4.14.5", &[]),
                        ("4.14.5", "4.14.12", &[]),
                        ("4.14.12", "4.14.40", &[]),
                        ("4.14.5", "4.14.20", &["Slow"]),
                    ],
                    &["4.14.30"],
                ),
            ),
            (
                "stable-4.15".to_owned(),
                graph(
                    &[("4.14.40", "4.15.7", &[]), ("4.15.7", "4.15.30", &[])],
                    &["4.15.1"],
                ),
            ),
            (
                "stable-4.16".to_owned(),
                graph(
                    &[("4.15.30", "4.16.0", &[]), ("4.16.0", "4.16.3", &[])],
                    &["4.16.9", "4.16.1-rc.1"],
                ),
            ),
            (
                "fast-4.16".to_owned(),
                graph(&[("4.16.3", "4.16.9", &["Fire"])], &[]),
            ),
            (
                "eus-4.16".to_owned(),
                graph(&[("4.14.40", "4.16.3", &[])], &[]),
            ),
            ("nothing-4.16".to_owned(), Graph::default()),
        ])
    }

    fn want(channel: &str, min: &str, max: &str) -> Want {
        Want {
            channel: channel.to_owned(),
            min: (!min.is_empty()).then(|| min.parse().unwrap()),
            max: (!max.is_empty()).then(|| max.parse().unwrap()),
            ..Want::default()
        }
    }

    fn shortest(channel: &str, min: &str, max: &str) -> Want {
        Want {
            shortest_path: true,
            ..want(channel, min, max)
        }
    }

    fn full(channel: &str) -> Want {
        Want {
            full: true,
            ..want(channel, "", "")
        }
    }

    fn versions(selection: &Selection) -> Vec<String> {
        selection
            .releases
            .iter()
            .map(|chosen| chosen.version.to_string())
            .collect()
    }

    fn notes(selection: &Selection) -> Vec<String> {
        selection.notes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn bounds_are_filled_in_as_the_table_says() {
        for (case, expected) in [
            (want("stable-4.16", "", ""), &["4.16.9"][..]),
            (
                full("stable-4.16"),
                &["4.15.30", "4.16.0", "4.16.1-rc.1", "4.16.3", "4.16.9"],
            ),
            (want("stable-4.16", "4.16.2", ""), &["4.16.3", "4.16.9"]),
            (want("stable-4.16", "", "4.16.0"), &["4.15.30", "4.16.0"]),
            (
                want("stable-4.16", "4.16.0", "4.16.3"),
                &["4.16.0", "4.16.1-rc.1", "4.16.3"],
            ),
            (
                shortest("stable-4.14", "4.14.5", "4.14.40"),
                &["4.14.5", "4.14.12", "4.14.40"],
            ),
            (shortest("stable-4.16", "", ""), &["4.16.9"]),
        ] {
            let selection =
                choose(std::slice::from_ref(&case), &graphs(), Options::default()).unwrap();
            assert_eq!(versions(&selection), expected, "{case:?}");
        }
    }

    #[test]
    fn a_wish_that_cannot_be_met_says_why_and_what_is_near() {
        for (case, error, hint) in [
            (
                want("stable-4.16", "4.16.3", "4.16.0"),
                "channel stable-4.16: minimum 4.16.3 is above maximum 4.16.0",
                "",
            ),
            (
                want("stable-4.16", "4.17.0", ""),
                "channel stable-4.16: minimum 4.17.0 is above its head 4.16.9",
                "",
            ),
            (
                want("stable-4.16", "", "4.1.0"),
                "channel stable-4.16: maximum 4.1.0 is below its first release 4.15.30",
                "",
            ),
            (
                want("stable-4.16", "4.16.4", "4.16.8"),
                "channel stable-4.16 has no release from 4.16.4 to 4.16.8",
                "nearest in the channel: 4.16.3, 4.16.9",
            ),
            (
                shortest("stable-4.16", "4.16.2", "4.16.9"),
                "release 4.16.2 is not in channel stable-4.16",
                "nearest in the channel: 4.16.1-rc.1, 4.16.3",
            ),
            (
                want("nothing-4.16", "", ""),
                "no releases in channel nothing-4.16",
                "",
            ),
            (
                want("stabel-4.16", "", ""),
                "the update graph of channel stabel-4.16 is missing",
                "",
            ),
            (
                shortest("stable-4.14", "4.14.5", "4.14.20"),
                "channel stable-4.14: only conditional updates lead from 4.14.5 to 4.14.20: 4.14.5 to 4.14.20 (Slow)",
                "read what the risks are, then accept them by name: Slow",
            ),
            (
                shortest("stable-4.14", "4.14.5", "4.14.30"),
                "channel stable-4.14: no update path from 4.14.5 to 4.14.30; 4.14.20 is as far as one gets",
                "take shortestPath out to mirror the whole range, or choose other bounds",
            ),
        ] {
            let found = choose(&[case], &graphs(), Options::default()).unwrap_err();
            assert_eq!(found.to_string(), error, "the error names the thing");
            assert_eq!(
                found.hint().unwrap_or_default(),
                hint,
                "the hint helps: {error}"
            );
        }
        let mut with_typo = graphs();
        with_typo.insert("stabel-4.16".to_owned(), Graph::default());
        let found = choose(
            &[want("stabel-4.16", "", "")],
            &with_typo,
            Options::default(),
        )
        .unwrap_err();
        assert_eq!(
            found.hint().unwrap(),
            "similar channels: stable-4.16, stable-4.14, stable-4.15",
            "a channel that is not there is most often a misspelt one"
        );
    }

    #[test]
    fn risks_are_never_taken_silently() {
        let accepted = ["Slow".to_owned()];
        let selection = choose(
            &[shortest("stable-4.14", "4.14.5", "4.14.20")],
            &graphs(),
            Options {
                accepted: &accepted,
                ..Options::default()
            },
        )
        .unwrap();
        assert_eq!(
            (versions(&selection), notes(&selection)),
            (
                vec!["4.14.5".to_owned(), "4.14.20".to_owned()],
                vec![
                    "channel stable-4.14: accepted the risk of 4.14.5 to 4.14.20 (Slow)".to_owned()
                ],
            ),
            "an accepted risk is crossed and reported"
        );
        let range = choose(
            &[want("stable-4.14", "4.14.5", "4.14.20")],
            &graphs(),
            Options::default(),
        )
        .unwrap();
        assert_eq!(
            (versions(&range).len(), notes(&range)),
            (
                3,
                vec![
                    "channel stable-4.14: 4.14.20 can only be reached by conditional updates: 4.14.5 to 4.14.20 (Slow)"
                        .to_owned()
                ],
            ),
            "a range keeps the release and says what reaching it takes"
        );
    }

    /// The worked example of the functional description, appendix C.4.
    #[test]
    fn several_channels_are_joined_by_a_path() {
        let wants = [
            shortest("stable-4.14", "4.14.5", "4.14.5"),
            shortest("stable-4.16", "4.16.3", "4.16.3"),
        ];
        assert_eq!(
            between(&wants, &graphs(), Options::default()).unwrap(),
            ["stable-4.15"],
            "the channel between must be fetched"
        );
        let selection = choose(&wants, &graphs(), Options::default()).unwrap();
        assert_eq!(
            versions(&selection),
            [
                "4.14.5", "4.14.12", "4.14.40", "4.15.7", "4.15.30", "4.16.0", "4.16.3"
            ],
            "from the smallest bound to each head, then to the greatest bound"
        );
        assert_eq!(
            notes(&selection),
            Vec::<String>::new(),
            "nothing is missing"
        );
        let turned: Vec<Want> = wants.iter().rev().cloned().collect();
        assert_eq!(
            choose(&turned, &graphs(), Options::default()).unwrap(),
            selection,
            "the order of the list does not matter"
        );
    }

    #[test]
    fn a_gap_between_channels_is_reported() {
        let mut graphs = graphs();
        graphs.insert(
            "stable-4.15".to_owned(),
            graph(&[("4.14.40", "4.15.31", &[])], &[]),
        );
        let selection = choose(
            &[
                want("stable-4.14", "4.14.5", ""),
                shortest("stable-4.16", "4.16.3", "4.16.3"),
            ],
            &graphs,
            Options::default(),
        )
        .unwrap();
        assert_eq!(
            notes(&selection).last().unwrap(),
            "no update path to 4.16.3: 4.15.31 is not in channel stable-4.16",
            "the gap is named"
        );
        assert_eq!(
            versions(&selection).last().unwrap(),
            "4.16.3",
            "what was asked for is chosen all the same"
        );
        graphs.insert("stable-4.15".to_owned(), Graph::default());
        let selection = choose(
            &[
                want("stable-4.14", "4.14.5", ""),
                shortest("stable-4.16", "4.16.3", "4.16.3"),
            ],
            &graphs,
            Options::default(),
        )
        .unwrap();
        assert!(
            notes(&selection).contains(
                &"no update path to 4.16.3: 4.14.40 is not in channel stable-4.15".to_owned()
            ),
            "an empty channel is a gap, too"
        );
        graphs.remove("stable-4.15");
        assert_eq!(
            choose(
                &[
                    want("stable-4.14", "4.14.5", ""),
                    want("stable-4.16", "", "4.16.3")
                ],
                &graphs,
                Options::default(),
            )
            .unwrap_err(),
            ChooseError::NoGraph {
                channel: "stable-4.15".to_owned()
            },
            "a graph that was not fetched is not an empty one"
        );
    }

    #[test]
    fn channels_of_one_minor_are_joined_in_the_second() {
        let selection = choose(
            &[
                shortest("stable-4.16", "4.16.3", "4.16.3"),
                shortest("fast-4.16", "4.16.9", "4.16.9"),
            ],
            &graphs(),
            Options::default(),
        )
        .unwrap();
        assert_eq!(
            notes(&selection),
            [
                "channel fast-4.16 has only conditional updates from 4.16.3 to 4.16.9: 4.16.3 to 4.16.9 (Fire)"
            ],
            "the path leads through fast-4.16"
        );
    }

    /// The table of oc-mirror's own test (`internal/pkg/release/find_test.go`).
    #[test]
    fn the_ends_of_a_path_are_the_smallest_and_the_greatest_bound() {
        let graphs = BTreeMap::from([
            (
                "one-channel".to_owned(),
                graph(&[], &["4.0.0-5", "4.0.0-6"]),
            ),
            (
                "another-channel".to_owned(),
                graph(&[], &["4.0.0-5", "4.0.0-6"]),
            ),
        ]);
        let wants = [
            want("one-channel", "4.0.0-5", "4.0.0-5"),
            want("another-channel", "4.0.0-6", "4.0.0-6"),
        ];
        let bounded = bound(&wants, &graphs, Options::default()).unwrap();
        let (first, last) = ends(&bounded).unwrap();
        assert_eq!(
            (first.want.channel.as_str(), first.min.to_string().as_str()),
            ("one-channel", "4.0.0-5"),
            "the smallest lower bound"
        );
        assert_eq!(
            (last.want.channel.as_str(), last.max.to_string().as_str()),
            ("another-channel", "4.0.0-6"),
            "the greatest upper bound"
        );
        assert!(ends(&[]).is_none(), "no channels, no path");
    }

    #[test]
    fn names_without_a_version_cannot_be_joined() {
        let mut graphs = graphs();
        graphs.insert("fast:4.2".to_owned(), graph(&[], &["4.2.0"]));
        assert_eq!(
            choose(
                &[want("stable-4.16", "", ""), want("fast:4.2", "", "")],
                &graphs,
                Options::default()
            )
            .unwrap_err(),
            ChooseError::Name {
                channel: "fast:4.2".to_owned()
            },
            "the name is the fault"
        );
        let okd = Want {
            product: Product::Okd,
            ..want("fast:4.2", "", "")
        };
        let selection = choose(
            &[want("stable-4.16", "", ""), okd],
            &graphs,
            Options::default(),
        )
        .unwrap();
        assert_eq!(
            versions(&selection),
            ["4.2.0", "4.16.9"],
            "the community distribution has no part in paths across channels"
        );
    }

    #[test]
    fn extended_update_channels_come_with_a_warning() {
        let selection = choose(&[full("eus-4.16")], &graphs(), Options::default()).unwrap();
        assert_eq!(
            notes(&selection),
            [
                "channel eus-4.16 from 4.14.40 to 4.16.3 may lack releases in between; compare it with the update graph"
            ],
            "two minors lie between"
        );
    }

    #[test]
    fn a_filter_counts_for_head_and_first_alone() {
        let pattern = Regex::new("^4[.]16[.][0-3]$").unwrap();
        let selection = choose(
            &[full("stable-4.16")],
            &graphs(),
            Options {
                counted: Some(&pattern),
                ..Options::default()
            },
        )
        .unwrap();
        assert_eq!(
            versions(&selection),
            ["4.16.0", "4.16.1-rc.1", "4.16.3"],
            "what lies between the bounds stays"
        );
        let nothing = Regex::new("^5").unwrap();
        assert_eq!(
            choose(
                &[full("stable-4.16")],
                &graphs(),
                Options {
                    counted: Some(&nothing),
                    ..Options::default()
                },
            )
            .unwrap_err(),
            ChooseError::NoneCounts {
                channel: "stable-4.16".to_owned()
            },
            "a filter that leaves nothing is the fault"
        );
    }

    #[test]
    fn architectures_are_joined_without_repeating_a_payload() {
        let one = choose(
            &[want("stable-4.16", "", "")],
            &graphs(),
            Options::default(),
        )
        .unwrap();
        assert_eq!(
            Selection::join([one.clone(), one.clone()]),
            one,
            "a payload is chosen once"
        );
    }
}
