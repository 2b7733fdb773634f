//! The update graph: which releases there are, and which may follow which.
//!
//! A graph is read from the JSON that an update service answers (Cincinnati, schema version 1) or built from the
//! files that service is fed with ([`data`]). Whatever the order of nodes and edges in the document, the graph is
//! the same: releases ascend by version, edges by their ends.
//!
//! ```json
//! {"version":1,
//!  "nodes":[{"version":"4.16.1","payload":"quay.io/openshift-release-dev/ocp-release@sha256:…","metadata":{}}],
//!  "edges":[[0,1]],
//!  "conditionalEdges":[{"edges":[{"from":"4.15.1","to":"4.16.1"}],"risks":[{"name":"…","url":"…","message":"…","matchingRules":[]}]}]}
//! ```
//!
//! A **conditional edge** is an update that is discouraged on clusters a rule matches. Nobody here can evaluate
//! the rule, so no path crosses such an edge unless all its risks are accepted by name. An edge that is listed
//! both ways is conditional, as a cluster takes it. Several entries for one edge add up their risks.
//!
//! A node without a payload only says that some release once named it; it can be neither mirrored nor crossed
//! and is left out. So is a conditional edge whose ends are not both in the document.
//!
//! [`choose`] picks the releases that a configuration asks for.

// An error that names the versions it is about is large; graphs are read and walked a few times in a run.
#![allow(clippy::result_large_err)]

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::hint::Hint;
use crate::openshift::version::{Version, VersionError};
use crate::reference::{Reference, ReferenceError};

pub mod choose;
pub mod data;

/// The largest document that is read. The largest answers in the field are about 2 MiB.
pub const GRAPH_LIMIT: usize = 64 << 20;

/// The newest schema that is understood.
const SCHEMA: u64 = 1;

/// The prefix of the metadata that update services act on.
pub(crate) const METADATA_PREFIX: &str = "io.openshift.upgrades.graph.";

/// Names the channels a release is in, separated by commas.
pub const CHANNELS_KEY: &str = "io.openshift.upgrades.graph.release.channels";

/// The errata of a release.
pub const URL_KEY: &str = "url";

/// A document that is not an update graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The document is too large to be one.
    #[error("an update graph of {length} bytes: expected at most {GRAPH_LIMIT}")]
    Large {
        /// Its length.
        length: usize,
    },
    /// Not JSON of the expected shape.
    #[error("not an update graph")]
    Json {
        /// What is wrong, and where.
        #[source]
        source: serde_json::Error,
    },
    /// The service answered with an error instead of a graph.
    #[error("the update service refused: {kind}: {value}")]
    Refused {
        /// Its word for the error.
        kind: String,
        /// Its explanation.
        value: String,
    },
    /// A schema of the future.
    #[error("update graph schema {found}; this imgbuild reads up to {SCHEMA}")]
    Schema {
        /// What the document says it is.
        found: u64,
    },
    /// A version cannot be read.
    #[error("release {text:?} in the update graph")]
    Version {
        /// What was read.
        text: String,
        /// What is wrong with it.
        #[source]
        source: VersionError,
    },
    /// A payload is not an image reference.
    #[error("the payload of release {version} in the update graph")]
    Payload {
        /// Whose payload it is.
        version: Version,
        /// What is wrong with it.
        #[source]
        source: ReferenceError,
    },
    /// A version is listed twice.
    #[error("release {version} is in the update graph twice")]
    Twice {
        /// Which one.
        version: Version,
    },
    /// An edge has an end that is no node.
    #[error("edge {edge:?} of the update graph leads out of its {nodes} nodes")]
    Edge {
        /// The pair of indices.
        edge: (usize, usize),
        /// How many nodes there are.
        nodes: usize,
    },
}

impl Hint for GraphError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Schema { .. } => Some("upgrade imgbuild".to_owned()),
            Self::Version { source, .. } => source.hint(),
            Self::Payload { source, .. } => source.hint(),
            _ => None,
        }
    }
}

/// A release in an update graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its version. Graphs of several architectures carry the architecture as build metadata.
    pub version: Version,
    /// The image that is the release.
    pub payload: Reference,
    /// What the service says about it.
    pub metadata: BTreeMap<String, String>,
}

impl Release {
    /// The channels it says it is in.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        self.metadata
            .get(CHANNELS_KEY)
            .into_iter()
            .flat_map(|names| names.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
    }

    /// Where its errata are.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.metadata
            .get(URL_KEY)
            .map(String::as_str)
            .filter(|url| !url.is_empty())
    }
}

/// A rule that says which clusters a risk concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MatchingRule {
    /// `Always` or `PromQL`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The query of a `PromQL` rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promql: Option<Query>,
}

/// A Prometheus query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Query {
    /// Its text.
    pub promql: String,
}

/// A reason not to take an update.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Risk {
    /// The name by which it can be accepted.
    pub name: String,
    /// Where it is explained.
    #[serde(default)]
    pub url: String,
    /// What may happen.
    #[serde(default)]
    pub message: String,
    /// Which clusters it concerns.
    #[serde(default)]
    pub matching_rules: Vec<MatchingRule>,
}

/// Releases and the updates between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// Ascending by version; no version twice.
    releases: Vec<Release>,
    /// Pairs of indices into `releases`.
    edges: BTreeSet<(usize, usize)>,
    /// Edges that are in no cluster's interest without a look at their risks; none is in `edges`, none is empty.
    conditional: BTreeMap<(usize, usize), BTreeSet<Risk>>,
}

/// A conditional edge, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crossing {
    /// Where it starts.
    pub from: Version,
    /// Where it ends.
    pub to: Version,
    /// The names of its risks, ascending.
    pub risks: Vec<String>,
}

impl std::fmt::Display for Crossing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} to {} ({})",
            self.from,
            self.to,
            self.risks.join(", ")
        )
    }
}

/// A way from one release to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Indices into [`Graph::releases`], both ends included.
    pub steps: Vec<usize>,
    /// The conditional edges on it, all of whose risks were accepted.
    pub crossings: Vec<Crossing>,
}

/// Why there is no way from one release to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPath {
    /// Only over edges with risks that were not accepted; these are the fewest.
    Conditional(Vec<Crossing>),
    /// Not at all.
    None {
        /// The release nearest to the end that can be reached from the start.
        reached: Option<Version>,
        /// The release nearest to the start from which the end can be reached.
        before: Option<Version>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: Option<u64>,
    nodes: Option<Vec<Node>>,
    #[serde(default)]
    edges: Vec<(usize, usize)>,
    #[serde(default)]
    conditional_edges: Option<Vec<ConditionalEdges>>,
    kind: Option<String>,
    value: Option<String>,
}

#[derive(Deserialize)]
struct Node {
    version: String,
    payload: Option<String>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Serialize, Deserialize)]
struct ConditionalEdges {
    edges: Vec<NamedEdge>,
    risks: Vec<Risk>,
}

#[derive(Serialize, Deserialize)]
struct NamedEdge {
    from: String,
    to: String,
}

impl Graph {
    /// Reads what an update service answers.
    pub fn parse(bytes: &[u8]) -> Result<Self, GraphError> {
        if bytes.len() > GRAPH_LIMIT {
            return Err(GraphError::Large {
                length: bytes.len(),
            });
        }
        let document: Document =
            serde_json::from_slice(bytes).map_err(|source| GraphError::Json { source })?;
        let Some(nodes) = document.nodes else {
            return Err(match document.kind {
                Some(kind) => GraphError::Refused {
                    kind,
                    value: document.value.unwrap_or_default(),
                },
                None => GraphError::Json {
                    source: serde::de::Error::missing_field("nodes"),
                },
            });
        };
        if let Some(found) = document.version.filter(|version| *version > SCHEMA) {
            return Err(GraphError::Schema { found });
        }
        let mut releases = Vec::with_capacity(nodes.len());
        // Where a node of the document is in `releases`; nowhere if it has no payload.
        let mut places = Vec::with_capacity(nodes.len());
        for node in nodes {
            let version: Version = node.version.parse().map_err(|source| GraphError::Version {
                text: node.version.clone(),
                source,
            })?;
            let Some(payload) = node.payload.filter(|payload| !payload.is_empty()) else {
                places.push(None);
                continue;
            };
            let payload = payload.parse().map_err(|source| GraphError::Payload {
                version: version.clone(),
                source,
            })?;
            places.push(Some(releases.len()));
            releases.push(Release {
                version,
                payload,
                metadata: node.metadata.unwrap_or_default(),
            });
        }
        let mut edges = Vec::with_capacity(document.edges.len());
        for edge in document.edges {
            let place = |index: usize| {
                places.get(index).copied().ok_or(GraphError::Edge {
                    edge,
                    nodes: places.len(),
                })
            };
            if let (Some(from), Some(to)) = (place(edge.0)?, place(edge.1)?) {
                edges.push((from, to));
            }
        }
        let mut graph = Self::new(releases, edges)?;
        for group in document.conditional_edges.into_iter().flatten() {
            if group.risks.is_empty() {
                // Clusters drop such an entry as malformed.
                continue;
            }
            for edge in group.edges {
                let place = |text: &str| {
                    text.parse()
                        .map(|version| graph.position(&version))
                        .map_err(|source| GraphError::Version {
                            text: text.to_owned(),
                            source,
                        })
                };
                if let (Some(from), Some(to)) = (place(&edge.from)?, place(&edge.to)?) {
                    graph.make_conditional(from, to, group.risks.iter().cloned());
                }
            }
        }
        Ok(graph)
    }

    /// A graph of the given releases and unconditional edges (pairs of indices into them).
    pub fn new(
        releases: Vec<Release>,
        edges: impl IntoIterator<Item = (usize, usize)>,
    ) -> Result<Self, GraphError> {
        let mut order: Vec<usize> = (0..releases.len()).collect();
        order.sort_by(|a, b| releases[*a].version.cmp(&releases[*b].version));
        let mut places = vec![0; releases.len()];
        for (place, index) in order.iter().enumerate() {
            places[*index] = place;
        }
        let mut sorted = BTreeSet::new();
        for edge in edges {
            let place = |index: usize| {
                places.get(index).copied().ok_or(GraphError::Edge {
                    edge,
                    nodes: places.len(),
                })
            };
            sorted.insert((place(edge.0)?, place(edge.1)?));
        }
        let mut releases: Vec<Option<Release>> = releases.into_iter().map(Some).collect();
        let releases: Vec<Release> = order
            .into_iter()
            .filter_map(|index| releases[index].take())
            .collect();
        if let Some(pair) = releases
            .windows(2)
            .find(|pair| pair[0].version == pair[1].version)
        {
            return Err(GraphError::Twice {
                version: pair[0].version.clone(),
            });
        }
        Ok(Self {
            releases,
            edges: sorted,
            conditional: BTreeMap::new(),
        })
    }

    /// Puts risks on the edge from one index to another, whether or not it is there already.
    fn make_conditional(&mut self, from: usize, to: usize, risks: impl IntoIterator<Item = Risk>) {
        let mut risks = risks.into_iter().peekable();
        if risks.peek().is_some() {
            self.edges.remove(&(from, to));
            self.conditional
                .entry((from, to))
                .or_default()
                .extend(risks);
        } else if !self.conditional.contains_key(&(from, to)) {
            self.edges.insert((from, to));
        }
    }

    /// The releases, ascending by version.
    #[must_use]
    pub fn releases(&self) -> &[Release] {
        &self.releases
    }

    /// The edges that every cluster may take, as pairs of indices, ascending.
    pub fn edges(&self) -> impl Iterator<Item = (usize, usize)> {
        self.edges.iter().copied()
    }

    /// The conditional edges with their risks, ascending.
    pub fn conditional_edges(&self) -> impl Iterator<Item = ((usize, usize), &BTreeSet<Risk>)> {
        self.conditional.iter().map(|(edge, risks)| (*edge, risks))
    }

    /// Where a version is; build metadata only counts if the version asked for has some.
    #[must_use]
    pub fn position(&self, version: &Version) -> Option<usize> {
        let start = self
            .releases
            .partition_point(|release| release.version.precedence(version).is_lt());
        self.releases[start..]
            .iter()
            .take_while(|release| release.version.same_release(version))
            .position(|release| version.build.is_empty() || release.version == *version)
            .map(|offset| start + offset)
    }

    /// The releases next to a version: the greatest below it and the smallest above it.
    #[must_use]
    pub fn neighbours(&self, version: &Version) -> (Option<&Version>, Option<&Version>) {
        let below = self
            .releases
            .partition_point(|release| release.version.precedence(version).is_lt());
        let above = self
            .releases
            .partition_point(|release| release.version.precedence(version).is_le());
        let version_at = |index: usize| self.releases.get(index).map(|release| &release.version);
        (below.checked_sub(1).and_then(version_at), version_at(above))
    }

    /// Two releases that differ in nothing but build metadata, as graphs of several architectures have them.
    #[must_use]
    pub fn ambiguous(&self) -> Option<&Version> {
        self.releases
            .windows(2)
            .find(|pair| pair[0].version.same_release(&pair[1].version))
            .map(|pair| &pair[0].version)
    }

    fn crossing(&self, edge: (usize, usize)) -> Option<Crossing> {
        let risks = self.conditional.get(&edge)?;
        Some(Crossing {
            from: self.releases[edge.0].version.clone(),
            to: self.releases[edge.1].version.clone(),
            risks: risks
                .iter()
                .map(|risk| risk.name.clone())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        })
    }

    fn is_accepted(&self, edge: (usize, usize), accepted: &[String]) -> bool {
        self.conditional
            .get(&edge)
            .is_some_and(|risks| risks.iter().all(|risk| accepted.contains(&risk.name)))
    }

    /// What follows each release, highest first, over the edges that `walk` lets through.
    fn next(&self, walk: impl Fn((usize, usize)) -> bool) -> Vec<Vec<usize>> {
        let mut next = vec![Vec::new(); self.releases.len()];
        for edge in self
            .edges
            .iter()
            .chain(self.conditional.keys().filter(|edge| walk(**edge)))
        {
            next[edge.0].push(edge.1);
        }
        for list in &mut next {
            list.sort_unstable_by(|a, b| b.cmp(a));
        }
        next
    }

    /// Finds the shortest way from one index to another.
    ///
    /// Among ways of equal length the one with the higher next release wins. Conditional edges are crossed only if
    /// there is no way without them and all their risks are in `accepted`.
    pub fn shortest_path(
        &self,
        from: usize,
        to: usize,
        accepted: &[String],
    ) -> Result<Path, NoPath> {
        let plain = self.next(|_| false);
        if let Some(steps) = breadth_first(&plain, from, to) {
            return Ok(Path {
                steps,
                crossings: Vec::new(),
            });
        }
        let widened = self.next(|edge| self.is_accepted(edge, accepted));
        if let Some(steps) = breadth_first(&widened, from, to) {
            let crossings = steps
                .windows(2)
                .filter_map(|pair| self.crossing((pair[0], pair[1])))
                .collect();
            return Ok(Path { steps, crossings });
        }
        if let Some(steps) = self.least_risk(from, to, accepted) {
            return Err(NoPath::Conditional(
                steps
                    .windows(2)
                    .map(|pair| (pair[0], pair[1]))
                    .filter(|edge| !self.is_accepted(*edge, accepted))
                    .filter_map(|edge| self.crossing(edge))
                    .collect(),
            ));
        }
        let all = self.next(|_| true);
        let reached = reachable(&all, from)
            .into_iter()
            .filter(|index| *index != from && *index < to)
            .max();
        let mut back = vec![Vec::new(); all.len()];
        for (start, ends) in all.iter().enumerate() {
            for end in ends {
                back[*end].push(start);
            }
        }
        let before = reachable(&back, to)
            .into_iter()
            .filter(|index| *index != to && *index > from)
            .min();
        let version = |index: usize| self.releases[index].version.clone();
        Err(NoPath::None {
            reached: reached.map(version),
            before: before.map(version),
        })
    }

    /// The way over all edges that crosses the fewest edges not accepted; among those, the shortest.
    fn least_risk(&self, from: usize, to: usize, accepted: &[String]) -> Option<Vec<usize>> {
        let next = self.next(|_| true);
        let mut parents: Vec<Option<usize>> = vec![None; next.len()];
        let mut best = vec![(usize::MAX, usize::MAX); next.len()];
        let mut queue = BinaryHeap::new();
        best[from] = (0, 0);
        // Cheapest first; among equals the higher release first.
        queue.push((std::cmp::Reverse((0, 0)), from));
        while let Some((std::cmp::Reverse(cost), at)) = queue.pop() {
            if at == to {
                let mut steps = vec![to];
                while let Some(parent) = parents[steps[steps.len() - 1]] {
                    steps.push(parent);
                }
                steps.reverse();
                return Some(steps);
            }
            if cost > best[at] {
                continue;
            }
            for end in &next[at] {
                let edge = (at, *end);
                let risky =
                    self.conditional.contains_key(&edge) && !self.is_accepted(edge, accepted);
                let cost = (cost.0 + usize::from(risky), cost.1 + 1);
                if cost < best[*end] {
                    best[*end] = cost;
                    parents[*end] = Some(at);
                    queue.push((std::cmp::Reverse(cost), *end));
                }
            }
        }
        None
    }

    /// The graph as an update service would answer it; equal graphs have equal bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct NodeOut<'a> {
            version: &'a Version,
            payload: String,
            metadata: &'a BTreeMap<String, String>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Out<'a> {
            version: u64,
            nodes: Vec<NodeOut<'a>>,
            edges: Vec<(usize, usize)>,
            conditional_edges: Vec<ConditionalEdges>,
        }
        let mut groups: BTreeMap<&BTreeSet<Risk>, Vec<NamedEdge>> = BTreeMap::new();
        for ((from, to), risks) in &self.conditional {
            groups.entry(risks).or_default().push(NamedEdge {
                from: self.releases[*from].version.to_string(),
                to: self.releases[*to].version.to_string(),
            });
        }
        let out = Out {
            version: SCHEMA,
            nodes: self
                .releases
                .iter()
                .map(|release| NodeOut {
                    version: &release.version,
                    payload: release.payload.to_string(),
                    metadata: &release.metadata,
                })
                .collect(),
            edges: self.edges.iter().copied().collect(),
            conditional_edges: groups
                .into_iter()
                .map(|(risks, edges)| ConditionalEdges {
                    edges,
                    risks: risks.iter().cloned().collect(),
                })
                .collect(),
        };
        serde_json::to_vec(&out).expect("text, numbers and lists can always be written as JSON")
    }

    /// The part of a graph of several architectures that one channel shows to one architecture.
    ///
    /// Releases say in their metadata which channels they are in, and which architecture they are for; one that does not
    /// is for all. The architecture is dropped from the versions,
    /// as an update service drops it.
    #[must_use]
    pub fn channel(&self, name: &str, architecture: &str) -> Self {
        self.retain(|release| {
            data::architecture(release).is_none_or(|own| own == architecture)
                && release.channels().any(|channel| channel == name)
        })
        .without_architectures()
    }

    /// The part of the graph that has only the releases which `keep` says, and the edges between them.
    #[must_use]
    pub fn retain(&self, keep: impl Fn(&Release) -> bool) -> Self {
        let kept: Vec<usize> = (0..self.releases.len())
            .filter(|index| keep(&self.releases[*index]))
            .collect();
        let place = |index: usize| kept.binary_search(&index).ok();
        let edge = |edge: (usize, usize)| Some((place(edge.0)?, place(edge.1)?));
        Self {
            releases: kept
                .iter()
                .map(|index| self.releases[*index].clone())
                .collect(),
            edges: self.edges.iter().filter_map(|one| edge(*one)).collect(),
            conditional: self
                .conditional
                .iter()
                .filter_map(|(one, risks)| Some((edge(*one)?, risks.clone())))
                .collect(),
        }
    }

    /// The same graph with the build metadata dropped from its versions, as an update service drops it.
    #[must_use]
    pub fn without_architectures(mut self) -> Self {
        for release in &mut self.releases {
            release.version.build.clear();
        }
        self
    }
}

/// The shortest way over `next`; whoever is found first is a step's parent, so the order of the lists decides.
fn breadth_first(next: &[Vec<usize>], from: usize, to: usize) -> Option<Vec<usize>> {
    let mut parents: Vec<Option<usize>> = vec![None; next.len()];
    let mut queue = VecDeque::from([from]);
    while let Some(at) = queue.pop_front() {
        if at == to {
            let mut steps = vec![to];
            while steps[steps.len() - 1] != from {
                steps.push(parents[steps[steps.len() - 1]]?);
            }
            steps.reverse();
            return Some(steps);
        }
        for end in &next[at] {
            if parents[*end].is_none() && *end != from {
                parents[*end] = Some(at);
                queue.push_back(*end);
            }
        }
    }
    None
}

/// Everything that can be reached over `next`, the start included.
fn reachable(next: &[Vec<usize>], from: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::from([from]);
    let mut queue = vec![from];
    while let Some(at) = queue.pop() {
        for end in &next[at] {
            if found.insert(*end) {
                queue.push(*end);
            }
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A graph of the given versions and edges between them; an edge with risks is conditional.
    pub(crate) fn graph(edges: &[(&str, &str, &[&str])], alone: &[&str]) -> Graph {
        let mut versions: Vec<&str> = edges
            .iter()
            .flat_map(|(from, to, _)| [*from, *to])
            .chain(alone.iter().copied())
            .collect();
        versions.sort_unstable();
        versions.dedup();
        let releases = versions
            .iter()
            .map(|version| Release {
                version: version.parse().unwrap(),
                payload: format!("quay.io/r/release:{version}").parse().unwrap(),
                metadata: BTreeMap::new(),
            })
            .collect();
        let mut graph = Graph::new(releases, []).unwrap();
        for (from, to, risks) in edges {
            let place = |text: &str| graph.position(&text.parse().unwrap()).unwrap();
            let (from, to) = (place(from), place(to));
            graph.make_conditional(
                from,
                to,
                risks.iter().map(|name| Risk {
                    name: (*name).to_owned(),
                    url: String::new(),
                    message: String::new(),
                    matching_rules: Vec::new(),
                }),
            );
        }
        graph
    }

    fn way(graph: &Graph, from: &str, to: &str, accepted: &[&str]) -> Result<Vec<String>, NoPath> {
        let place = |text: &str| graph.position(&text.parse().unwrap()).unwrap();
        let accepted: Vec<String> = accepted.iter().map(|name| (*name).to_owned()).collect();
        graph
            .shortest_path(place(from), place(to), &accepted)
            .map(|path| {
                path.steps
                    .iter()
                    .map(|index| graph.releases()[*index].version.to_string())
                    .collect()
            })
    }

    const EDGES: &[(&str, &str, &[&str])] = &[
        ("4.14.5", "4.14.9", &[]),
        ("4.14.5", "4.14.12", &[]),
        ("4.14.5", "4.15.0", &[]),
        ("4.14.9", "4.14.12", &[]),
        ("4.14.12", "4.15.0", &[]),
        ("4.14.12", "4.15.3", &[]),
        ("4.15.0", "4.15.3", &[]),
    ];

    /// The worked example of the functional description, appendix C.3.
    #[test]
    fn among_equal_paths_the_highest_next_release_wins() {
        let whole = graph(EDGES, &[]);
        assert_eq!(
            way(&whole, "4.14.5", "4.15.3", &[]).unwrap(),
            ["4.14.5", "4.15.0", "4.15.3"],
            "4.15.0 is the highest first step"
        );
        let without_one = graph(&EDGES[..6], &[]);
        assert_eq!(
            way(&without_one, "4.14.5", "4.15.3", &[]).unwrap(),
            ["4.14.5", "4.14.12", "4.15.3"],
            "4.15.0 is now a dead end"
        );
        assert_eq!(
            way(&whole, "4.14.9", "4.14.9", &[]).unwrap(),
            ["4.14.9"],
            "standing still is a path"
        );
    }

    #[test]
    fn a_conditional_edge_is_crossed_only_when_its_risks_are_accepted() {
        let risky = graph(
            &[
                ("4.14.5", "4.14.12", &[]),
                ("4.14.12", "4.15.0", &["A", "B"]),
                ("4.14.5", "4.14.9", &["C"]),
                ("4.14.9", "4.15.0", &["C"]),
            ],
            &[],
        );
        let NoPath::Conditional(crossings) = way(&risky, "4.14.5", "4.15.0", &["A"]).unwrap_err()
        else {
            panic!("a path over conditional edges must be reported as such");
        };
        assert_eq!(
            crossings
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["4.14.12 to 4.15.0 (A, B)"],
            "the report must name the fewest edges and all their risks"
        );
        assert_eq!(
            way(&risky, "4.14.5", "4.15.0", &["A", "B"]).unwrap(),
            ["4.14.5", "4.14.12", "4.15.0"],
            "accepted risks are no obstacle"
        );
        let both = graph(
            &[
                ("1.0.0", "3.0.0", &["A"]),
                ("1.0.0", "2.0.0", &[]),
                ("2.0.0", "3.0.0", &[]),
            ],
            &[],
        );
        assert_eq!(
            way(&both, "1.0.0", "3.0.0", &["A"]).unwrap(),
            ["1.0.0", "2.0.0", "3.0.0"],
            "a longer way without risk is preferred to an accepted one"
        );
    }

    #[test]
    fn a_missing_path_names_the_nearest_releases() {
        let cut = graph(
            &[
                ("4.14.5", "4.14.9", &[]),
                ("4.14.9", "4.14.20", &[]),
                ("4.15.1", "4.15.3", &[]),
                ("4.14.30", "4.15.1", &[]),
            ],
            &[],
        );
        assert_eq!(
            way(&cut, "4.14.5", "4.15.3", &[]).unwrap_err(),
            NoPath::None {
                reached: Some("4.14.20".parse().unwrap()),
                before: Some("4.14.30".parse().unwrap()),
            },
            "both sides of the gap must be named"
        );
    }

    #[test]
    fn an_edge_listed_both_ways_is_conditional() {
        let bytes = br#"{"nodes":[{"version":"1.0.0","payload":"q.io/a/b:1"},{"version":"1.0.1","payload":"q.io/a/b:2"}],
            "edges":[[0,1]],
            "conditionalEdges":[
              {"edges":[{"from":"1.0.0","to":"1.0.1"},{"from":"0.9.0","to":"1.0.1"}],"risks":[{"name":"A","url":"u","message":"m","matchingRules":[{"type":"Always"}]}]},
              {"edges":[{"from":"1.0.0","to":"1.0.1"}],"risks":[{"name":"B","url":"u","message":"m","matchingRules":[]}]}]}"#;
        let graph = Graph::parse(bytes).unwrap();
        assert_eq!(
            graph.edges().count(),
            0,
            "the cluster takes it as conditional"
        );
        assert_eq!(
            graph.crossing((0, 1)).unwrap().risks,
            ["A", "B"],
            "the risks of several entries add up"
        );
    }

    #[test]
    fn documents_that_are_no_graphs_are_refused_by_name() {
        for (text, part) in [
            ("[]", "not an update graph"),
            ("{}", "not an update graph"),
            (
                r#"{"kind":"missing_params","value":"channel"}"#,
                "missing_params",
            ),
            (r#"{"version":2,"nodes":[],"edges":[]}"#, "schema 2"),
            (
                r#"{"nodes":[{"version":"v4.0.0-0.1","payload":"q.io/a/b:1"}],"edges":[]}"#,
                "v4.0.0-0.1",
            ),
            (
                r#"{"nodes":[{"version":"4-0-0+0.1","payload":"q.io/a/b:1"}],"edges":[]}"#,
                "4-0-0+0.1",
            ),
            (
                r#"{"nodes":[{"version":"4.0.0","payload":"B@D"}],"edges":[]}"#,
                "4.0.0",
            ),
            (r#"{"nodes":[],"edges":[[0,1]]}"#, "(0, 1)"),
            (
                r#"{"nodes":[{"version":"4.0.0","payload":"q.io/a/b:1"},{"version":"4.0.0","payload":"q.io/a/b:1"}],"edges":[]}"#,
                "twice",
            ),
        ] {
            let error = Graph::parse(text.as_bytes()).unwrap_err();
            assert!(
                error.to_string().contains(part),
                "{error} must contain {part:?}"
            );
        }
    }

    fn any_graph() -> impl Strategy<Value = Graph> {
        (
            prop::collection::btree_set((0u64..3, 0u64..4, 0u64..4), 1..12),
            prop::collection::vec(
                (
                    any::<prop::sample::Index>(),
                    any::<prop::sample::Index>(),
                    0u8..4,
                ),
                0..30,
            ),
        )
            .prop_map(|(versions, edges)| {
                let releases: Vec<Release> = versions
                    .iter()
                    .map(|(major, minor, patch)| Release {
                        version: Version::new(*major, *minor, *patch),
                        payload: format!("q.io/a/b:{major}.{minor}.{patch}").parse().unwrap(),
                        metadata: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
                    })
                    .collect();
                let count = releases.len();
                let mut graph = Graph::new(releases, []).unwrap();
                for (from, to, risk) in edges {
                    let risks = (risk > 1).then(|| Risk {
                        name: format!("R{risk}"),
                        url: String::new(),
                        message: String::new(),
                        matching_rules: Vec::new(),
                    });
                    graph.make_conditional(from.index(count), to.index(count), risks);
                }
                graph
            })
    }

    proptest! {
        #[test]
        fn a_graph_survives_printing(graph in any_graph()) {
            prop_assert_eq!(Graph::parse(&graph.to_json()).unwrap(), graph);
        }

        #[test]
        fn the_order_of_a_document_does_not_matter(graph in any_graph(), seed in any::<u64>()) {
            let mut document: serde_json::Value = serde_json::from_slice(&graph.to_json()).unwrap();
            let nodes = document["nodes"].as_array_mut().unwrap();
            let count = nodes.len();
            let turn = usize::try_from(seed % count as u64).unwrap();
            nodes.rotate_left(turn);
            let place = |value: &serde_json::Value| {
                (usize::try_from(value.as_u64().unwrap()).unwrap() + count - turn) % count
            };
            let edges = document["edges"].as_array_mut().unwrap();
            for edge in edges.iter_mut() {
                *edge = serde_json::json!([place(&edge[0]), place(&edge[1])]);
            }
            edges.reverse();
            document["conditionalEdges"].as_array_mut().unwrap().reverse();
            prop_assert_eq!(Graph::parse(&serde_json::to_vec(&document).unwrap()).unwrap(), graph);
        }

        #[test]
        fn a_path_is_made_of_edges_and_none_is_shorter(graph in any_graph()) {
            let count = graph.releases().len();
            let accepted = ["R2".to_owned()];
            for from in 0..count {
                for to in 0..count {
                    if let Ok(path) = graph.shortest_path(from, to, &accepted) {
                        prop_assert_eq!((path.steps[0], *path.steps.last().unwrap()), (from, to));
                        for pair in path.steps.windows(2) {
                            let edge = (pair[0], pair[1]);
                            prop_assert!(graph.edges.contains(&edge) || graph.is_accepted(edge, &accepted));
                        }
                        if path.crossings.is_empty() {
                            for step in &path.steps {
                                if let Ok(rest) = graph.shortest_path(*step, to, &[]) {
                                    let position = path.steps.iter().position(|one| one == step).unwrap();
                                    prop_assert!(rest.steps.len() >= path.steps.len() - position);
                                }
                            }
                        }
                    }
                }
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Graph::parse(&bytes);
        }
    }
}
