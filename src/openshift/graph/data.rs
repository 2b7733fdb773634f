//! The files an update service is fed with, and the graph they make.
//!
//! ```text
//! version                schema of the files, "1.x.y"
//! channels/<any>.yaml    name, versions[] (an entry may name an architecture: 4.2.14+amd64)
//! blocked-edges/<any>.yaml
//!                        to, from (a regular expression over "<version>+<architecture>"), and for a conditional
//!                        edge url, name, message, matchingRules[]
//! raw/metadata.json      version -> metadata added to that release
//! ```
//!
//! The candidates for edges come from the releases themselves: each lists in its payload
//! (`release-manifests/release-metadata`) which releases may precede it. [`candidates`] makes a graph of those,
//! [`GraphData::apply`] adds and removes edges, attaches risks and names channels. Files that do not follow
//! the layout (`OWNERS`, `LICENSE`, `build-suggestions/`) are ignored.
//!
//! An edge that one file removes outright and another makes conditional is removed. A file with rules but without
//! name, url or message removes outright, too: that is what services do with it.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde::Deserialize;

use super::{CHANNELS_KEY, Graph, GraphError, METADATA_PREFIX, MatchingRule, Release, Risk};
use crate::hint::Hint;
use crate::openshift::version::{Version, VersionError};
use crate::reference::Reference;

/// The largest single file that is read.
const FILE_LIMIT: usize = 8 << 20;

/// The architecture in the metadata of a scraped release.
const SCRAPED_ARCHITECTURE_KEY: &str = "io.openshift.upgrades.graph.release.arch";

/// The architecture that a release states about itself.
const STATED_ARCHITECTURE_KEY: &str = "release.openshift.io/architecture";

/// Graph data that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GraphDataError {
    /// A file is too large.
    #[error("{path}: {length} bytes; expected at most {FILE_LIMIT}")]
    Large {
        /// Which file.
        path: String,
        /// Its length.
        length: usize,
    },
    /// The files follow another schema.
    #[error("graph data of version {found:?}; this imgbuild reads 1.x")]
    Schema {
        /// What the file `version` says.
        found: String,
    },
    /// A YAML file is not what its place says.
    #[error("{path} is not graph data")]
    Yaml {
        /// Which file.
        path: String,
        /// What is wrong, and where.
        #[source]
        source: serde_yaml::Error,
    },
    /// The raw metadata are not a map of maps.
    #[error("{path} is not graph data")]
    Json {
        /// Which file.
        path: String,
        /// What is wrong, and where.
        #[source]
        source: serde_json::Error,
    },
    /// The expression for the start of an edge is none.
    #[error("{path}: {pattern:?} is not a regular expression")]
    Pattern {
        /// Which file.
        path: String,
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: regex::Error,
    },
    /// A version in the metadata cannot be read.
    #[error("{place}: version {text:?}")]
    Version {
        /// Where it stands.
        place: String,
        /// What was read.
        text: String,
        /// What is wrong with it.
        #[source]
        source: VersionError,
    },
    /// There is neither a channel nor a version file.
    #[error("no graph data among {files} files: expected channels/*.yaml and version")]
    Nothing {
        /// How many files there were.
        files: usize,
    },
}

impl Hint for GraphDataError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Schema { .. } => Some("upgrade imgbuild".to_owned()),
            _ => None,
        }
    }
}

/// A rule that removes edges into a release or attaches a risk to them.
#[derive(Debug)]
struct Block {
    to: Version,
    from: Regex,
    /// Without one the edges are removed.
    risk: Option<Risk>,
}

/// The content of a graph-data directory.
#[derive(Debug, Default)]
pub struct GraphData {
    channels: BTreeMap<String, Vec<Version>>,
    blocks: Vec<Block>,
    raw: BTreeMap<Version, BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct ChannelFile {
    name: String,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockFile {
    to: Version,
    from: String,
    url: Option<String>,
    name: Option<String>,
    message: Option<String>,
    matching_rules: Option<Vec<MatchingRule>>,
}

impl GraphData {
    /// Reads the files of a graph-data directory, each with its path in it.
    pub fn read<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, GraphDataError> {
        let mut data = Self::default();
        let mut count = 0;
        let mut versioned = false;
        // Files apply in the order of their paths, whatever order they come in.
        let files: BTreeMap<&str, &[u8]> = files
            .into_iter()
            .map(|(path, bytes)| (path.strip_prefix("./").unwrap_or(path), bytes))
            .collect();
        for (path, bytes) in files {
            count += 1;
            let is_yaml = path.strip_suffix(".yaml").is_some();
            let directory = path.split_once('/').map(|(directory, _)| directory);
            let wanted = match directory {
                Some("channels" | "blocked-edges") => is_yaml,
                _ => matches!(path, "version" | "raw/metadata.json"),
            };
            if !wanted {
                continue;
            }
            if bytes.len() > FILE_LIMIT {
                return Err(GraphDataError::Large {
                    path: path.to_owned(),
                    length: bytes.len(),
                });
            }
            let yaml = |source| GraphDataError::Yaml {
                path: path.to_owned(),
                source,
            };
            match directory {
                Some("channels") => {
                    let file: ChannelFile = serde_yaml::from_slice(bytes).map_err(yaml)?;
                    data.channels
                        .entry(file.name)
                        .or_default()
                        .extend(file.versions);
                }
                Some("blocked-edges") => {
                    let file: BlockFile = serde_yaml::from_slice(bytes).map_err(yaml)?;
                    let from =
                        Regex::new(&file.from).map_err(|source| GraphDataError::Pattern {
                            path: path.to_owned(),
                            pattern: file.from.clone(),
                            source,
                        })?;
                    let risk = match (file.name, file.url, file.message, file.matching_rules) {
                        (Some(name), Some(url), Some(message), Some(matching_rules)) => {
                            Some(Risk {
                                name,
                                url,
                                message,
                                matching_rules,
                            })
                        }
                        _ => None,
                    };
                    data.blocks.push(Block {
                        to: file.to,
                        from,
                        risk,
                    });
                }
                Some(_) => {
                    let raw: BTreeMap<String, BTreeMap<String, String>> =
                        serde_json::from_slice(bytes).map_err(|source| GraphDataError::Json {
                            path: path.to_owned(),
                            source,
                        })?;
                    for (text, metadata) in raw {
                        let version = text.parse().map_err(|source| GraphDataError::Version {
                            place: path.to_owned(),
                            text: text.clone(),
                            source,
                        })?;
                        data.raw.insert(version, metadata);
                    }
                }
                None => {
                    let found = String::from_utf8_lossy(bytes).trim().to_owned();
                    if found.parse::<Version>().map(|version| version.major) != Ok(1) {
                        return Err(GraphDataError::Schema { found });
                    }
                    versioned = true;
                }
            }
        }
        if !versioned && data.channels.is_empty() {
            return Err(GraphDataError::Nothing { files: count });
        }
        for versions in data.channels.values_mut() {
            versions.sort();
            versions.dedup();
        }
        Ok(data)
    }

    /// The channels, ascending by name.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        self.channels.keys().map(String::as_str)
    }

    /// The versions that a channel lists, ascending; `None` if there is no such channel.
    #[must_use]
    pub fn versions(&self, channel: &str) -> Option<&[Version]> {
        self.channels.get(channel).map(Vec::as_slice)
    }

    /// Turns candidates into an update graph: adds, blocks and conditions edges, and says which release is in which channel.
    ///
    /// The releases must carry their architecture as build metadata, as [`candidates`] makes them; the result
    /// still has all architectures in it ([`Graph::channel`] takes one out).
    pub fn apply(&self, mut graph: Graph) -> Result<Graph, GraphDataError> {
        for release in &mut graph.releases {
            for metadata in self
                .raw
                .iter()
                .filter(|(version, _)| version.same_release(&release.version))
                .map(|(_, metadata)| metadata)
            {
                for (key, value) in metadata {
                    release
                        .metadata
                        .entry(key.clone())
                        .and_modify(|there| *there = format!("{there},{value}"))
                        .or_insert_with(|| value.clone());
                }
            }
        }
        follow_metadata(&mut graph)?;
        for block in &self.blocks {
            apply_block(&mut graph, block, false);
        }
        for block in &self.blocks {
            apply_block(&mut graph, block, true);
        }
        for release in &mut graph.releases {
            let version = &release.version;
            let mut names: Vec<&str> = self
                .channels
                .iter()
                .filter(|(_, versions)| {
                    versions.iter().any(|listed| {
                        listed.same_release(version)
                            && (listed.build.is_empty() || listed.build == version.build)
                    })
                })
                .map(|(name, _)| name.as_str())
                .collect();
            if !names.is_empty() {
                names.sort_by_key(|name| (name.split_once('-').map(|(_, rest)| rest), *name));
                release
                    .metadata
                    .insert(CHANNELS_KEY.to_owned(), names.join(","));
            }
        }
        Ok(graph)
    }
}

/// Applies one rule; outright removals in the last pass, so that they win.
fn apply_block(graph: &mut Graph, block: &Block, removals: bool) {
    if block.risk.is_none() != removals {
        return;
    }
    // The early releases for s390x have their architecture in the pre-release part.
    let suffix = block
        .to
        .pre
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    let only = if !block.to.build.is_empty() {
        Some(block.to.build.clone())
    } else if suffix == ["s390x"] {
        Some(suffix)
    } else {
        None
    };
    let targets: Vec<usize> = graph
        .releases
        .iter()
        .enumerate()
        .filter(|(_, release)| {
            release.version.same_release(&block.to)
                && only
                    .as_ref()
                    .is_none_or(|build| *build == release.version.build)
        })
        .map(|(index, _)| index)
        .collect();
    for to in targets {
        for from in previous(graph, to) {
            if !block
                .from
                .is_match(&graph.releases[from].version.to_string())
            {
                continue;
            }
            match &block.risk {
                Some(risk) => graph.make_conditional(from, to, [risk.clone()]),
                None => remove(graph, from, to),
            }
        }
    }
}

/// The releases with an edge into one, conditional or not.
fn previous(graph: &Graph, to: usize) -> BTreeSet<usize> {
    graph
        .edges
        .iter()
        .chain(graph.conditional.keys())
        .filter(|(_, end)| *end == to)
        .map(|(start, _)| *start)
        .collect()
}

fn remove(graph: &mut Graph, from: usize, to: usize) {
    graph.edges.remove(&(from, to));
    graph.conditional.remove(&(from, to));
}

/// Adds, then removes the edges that releases ask for in their metadata.
fn follow_metadata(graph: &mut Graph) -> Result<(), GraphDataError> {
    for (word, adds, backwards) in [
        ("previous.add", true, true),
        ("next.add", true, false),
        ("previous.remove", false, true),
        ("previous.remove_regex", false, true),
        ("next.remove", false, false),
    ] {
        let key = format!("{METADATA_PREFIX}{word}");
        for index in 0..graph.releases.len() {
            let Some(value) = graph.releases[index].metadata.get(&key).cloned() else {
                continue;
            };
            let owner = graph.releases[index].version.clone();
            let others: Vec<usize> = if word == "previous.remove_regex" {
                let pattern = Regex::new(&value).map_err(|source| GraphDataError::Pattern {
                    path: format!("{key} of {owner}"),
                    pattern: value.clone(),
                    source,
                })?;
                previous(graph, index)
                    .into_iter()
                    .filter(|from| pattern.is_match(&graph.releases[*from].version.to_string()))
                    .collect()
            } else if !adds && value.trim() == "*" {
                (0..graph.releases.len()).collect()
            } else {
                let mut others = Vec::new();
                for text in value
                    .split(',')
                    .map(str::trim)
                    .filter(|text| !text.is_empty())
                {
                    let mut version: Version =
                        text.parse().map_err(|source| GraphDataError::Version {
                            place: format!("{key} of {owner}"),
                            text: text.to_owned(),
                            source,
                        })?;
                    if version.build.is_empty() {
                        version.build.clone_from(&owner.build);
                    }
                    // One that is not there is no error: the lists name releases that were withdrawn.
                    others.extend(graph.position(&version));
                }
                others
            };
            for other in others {
                let (from, to) = if backwards {
                    (other, index)
                } else {
                    (index, other)
                };
                if adds {
                    graph.make_conditional(from, to, []);
                } else {
                    remove(graph, from, to);
                }
            }
        }
    }
    Ok(())
}

/// The architecture of a release in a graph of several: its build metadata, else what its metadata say.
#[must_use]
pub fn architecture(release: &Release) -> Option<&str> {
    match release.version.build.first() {
        Some(build) => Some(build),
        None => release
            .metadata
            .get(SCRAPED_ARCHITECTURE_KEY)
            .or_else(|| release.metadata.get(STATED_ARCHITECTURE_KEY))
            .map(String::as_str),
    }
}

/// A release as its payload describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its version.
    pub version: Version,
    /// Its architecture in Cincinnati's words: `amd64`, `arm64`, `ppc64le`, `s390x` or `multi`.
    pub architecture: String,
    /// The image.
    pub payload: Reference,
    /// The releases it may follow.
    pub previous: Vec<Version>,
    /// The releases it may be followed by.
    pub next: Vec<Version>,
    /// What its release metadata say besides.
    pub metadata: BTreeMap<String, String>,
}

/// The graph of all edges that releases themselves propose, before graph data are applied.
///
/// An edge joins releases of one architecture; a release that is named but not there makes no edge.
pub fn candidates(releases: &[Described]) -> Result<Graph, GraphError> {
    let nodes = releases
        .iter()
        .map(|described| Release {
            version: Version {
                build: vec![described.architecture.clone()],
                ..described.version.clone()
            },
            payload: described.payload.clone(),
            metadata: described.metadata.clone(),
        })
        .collect();
    let mut graph = Graph::new(nodes, [])?;
    for described in releases {
        let place = |version: &Version| {
            graph.position(&Version {
                build: vec![described.architecture.clone()],
                ..version.clone()
            })
        };
        let Some(own) = place(&described.version) else {
            continue;
        };
        let before = described.previous.iter().filter_map(&place);
        let after = described.next.iter().filter_map(&place);
        let edges: Vec<(usize, usize)> = before
            .map(|from| (from, own))
            .chain(after.map(|to| (own, to)))
            .collect();
        graph.edges.extend(edges);
    }
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(version: &str, architecture: &str, previous: &[&str]) -> Described {
        Described {
            version: version.parse().unwrap(),
            architecture: architecture.to_owned(),
            payload: format!("quay.io/r/release:{version}-{architecture}")
                .parse()
                .unwrap(),
            previous: previous.iter().map(|text| text.parse().unwrap()).collect(),
            next: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }

    fn shown(graph: &Graph) -> (Vec<String>, Vec<String>) {
        let name = |index: usize| graph.releases()[index].version.to_string();
        (
            graph
                .edges()
                .map(|(from, to)| format!("{} > {}", name(from), name(to)))
                .collect(),
            graph
                .conditional_edges()
                .map(|((from, to), risks)| {
                    let risks: Vec<&str> = risks.iter().map(|risk| risk.name.as_str()).collect();
                    format!("{} > {} {}", name(from), name(to), risks.join(","))
                })
                .collect(),
        )
    }

    const FILES: &[(&str, &str)] = &[
        ("./version", "1.1.0\n"),
        ("./channels/OWNERS", "nobody: reads this\n"),
        (
            "./channels/a.yaml",
            "name: stable-4.2\nfeeder: {name: fast-4.2, delay: P1W}\nversions: [4.1.0, 4.2.0+amd64, 4.2.1, 4.2.2]\n",
        ),
        ("./channels/b.yaml", "name: stable-4.1\nversions: [4.1.0]\n"),
        (
            "./blocked-edges/x.yaml",
            "to: 4.2.1\nfrom: 4[.]1[.].*[+]amd64\nurl: u\nname: RiskA\nmessage: m\nmatchingRules:\n- type: Always\n",
        ),
        ("./blocked-edges/y.yaml", "to: 4.2.2\nfrom: 4[.]2[.]0\n"),
        (
            "./blocked-edges/z.yaml",
            "to: 4.2.2\nfrom: .*\nurl: u\nname: RiskB\nmessage: m\nfixedIn: 4.2.3\nmatchingRules:\n- type: PromQL\n  promql:\n    promql: up\n",
        ),
        (
            "./raw/metadata.json",
            r#"{"4.2.0": {"io.openshift.upgrades.graph.previous.add": "4.1.0"}}"#,
        ),
    ];

    fn read(files: &[(&str, &str)]) -> Result<GraphData, GraphDataError> {
        GraphData::read(files.iter().map(|(path, text)| (*path, text.as_bytes())))
    }

    #[test]
    fn files_add_block_and_condition_the_edges_that_releases_propose() {
        let releases: Vec<Described> = ["amd64", "s390x"]
            .iter()
            .flat_map(|architecture| {
                [
                    described("4.1.0", architecture, &[]),
                    described("4.2.0", architecture, &[]),
                    described("4.2.1", architecture, &["4.1.0", "4.2.0", "4.0.9"]),
                    described("4.2.2", architecture, &["4.2.0", "4.2.1"]),
                ]
            })
            .collect();
        let data = read(FILES).unwrap();
        let whole = data.apply(candidates(&releases).unwrap()).unwrap();
        let amd64 = whole.channel("stable-4.2", "amd64");
        assert_eq!(
            shown(&amd64),
            (
                vec!["4.1.0 > 4.2.0".to_owned(), "4.2.0 > 4.2.1".to_owned()],
                vec![
                    "4.1.0 > 4.2.1 RiskA".to_owned(),
                    "4.2.1 > 4.2.2 RiskB".to_owned()
                ],
            ),
            "an edge removed outright stays removed, others gain their risks"
        );
        let s390x = whole.channel("stable-4.2", "s390x");
        assert_eq!(
            shown(&s390x),
            (
                vec!["4.1.0 > 4.2.1".to_owned()],
                vec!["4.2.1 > 4.2.2 RiskB".to_owned()],
            ),
            "4.2.0 is in the channel for amd64 alone, and RiskA concerns amd64 alone"
        );
        assert_eq!(
            amd64.releases()[0].channels().collect::<Vec<_>>(),
            ["stable-4.1", "stable-4.2"],
            "a release names its channels by their version first"
        );
    }

    #[test]
    fn the_order_of_files_does_not_matter() {
        let releases = [
            described("4.1.0", "amd64", &[]),
            described("4.2.0", "amd64", &["4.1.0"]),
            described("4.2.2", "amd64", &["4.2.0", "4.1.0"]),
        ];
        let reversed: Vec<_> = FILES.iter().rev().copied().collect();
        let one = read(FILES)
            .unwrap()
            .apply(candidates(&releases).unwrap())
            .unwrap();
        let other = read(&reversed)
            .unwrap()
            .apply(candidates(&releases).unwrap())
            .unwrap();
        assert_eq!(one, other, "equal files make equal graphs");
    }

    #[test]
    fn files_that_are_no_graph_data_are_refused_by_name() {
        for (files, part) in [
            (&[("version", "2.0.0")][..], "2.0.0"),
            (&[("README.md", "x")][..], "no graph data"),
            (
                &[("version", "1.0.0"), ("channels/a.yaml", "x: y")][..],
                "channels/a.yaml",
            ),
            (
                &[
                    ("version", "1.0.0"),
                    ("blocked-edges/a.yaml", "_to: 4.1.10\nfrom: .*\n"),
                ][..],
                "blocked-edges/a.yaml",
            ),
            (
                &[
                    ("version", "1.0.0"),
                    ("blocked-edges/a.yaml", "to: 4.1.10\nfrom: '('\n"),
                ][..],
                "\"(\"",
            ),
            (
                &[("version", "1.0.0"), ("raw/metadata.json", "{\"x\":{}}")][..],
                "\"x\"",
            ),
            (
                &[("version", "1.0.0"), ("raw/metadata.json", "[]")][..],
                "raw/metadata.json",
            ),
        ] {
            let error = read(files).unwrap_err();
            assert!(
                error.to_string().contains(part),
                "{error} must contain {part:?}"
            );
        }
    }
}
