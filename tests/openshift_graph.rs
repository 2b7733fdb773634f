//! The update graph against real answers of the update service and the incumbents' own test tables.

#![allow(clippy::result_large_err)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use imgbuild::openshift::graph::choose::{
    ChooseError, Note, Options, Want, between, choose, parse_name,
};
use imgbuild::openshift::graph::data::{GraphData, architecture};
use imgbuild::openshift::graph::{CHANNELS_KEY, Graph, NoPath, Release};
use imgbuild::openshift::version::{Range, Version};
use serde_json::Value;

fn own(name: &str) -> Vec<u8> {
    std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/cincinnati")
            .join(name),
    )
    .unwrap()
}

/// A file of the shared collection of real data; `None`, with a message, where it is not at hand.
fn shared(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["../shared/data", "../../shared/data"]
        .iter()
        .map(|base| root.join(base).join(name))
        .find(|path| path.exists());
    if found.is_none() {
        println!("skipped: {name} is not at hand");
    }
    found
}

/// The cases of one of the tables, by the name of its test.
fn table(test: &str) -> Vec<Value> {
    let document: Value = serde_json::from_slice(&own("oc-mirror-release-tables.json")).unwrap();
    let table = document["tables"]
        .as_array()
        .unwrap()
        .iter()
        .find(|table| table["test"] == test)
        .unwrap();
    table["cases"].as_array().unwrap().clone()
}

fn mock_graphs() -> BTreeMap<String, Graph> {
    let document: BTreeMap<String, Value> =
        serde_json::from_slice(&own("oc-mirror-release-graphs.json")).unwrap();
    document
        .into_iter()
        .map(|(channel, graph)| {
            (
                channel,
                Graph::parse(&serde_json::to_vec(&graph).unwrap()).unwrap(),
            )
        })
        .collect()
}

/// The version in a transcribed Go value: a text, a call with a text, or an update with a version.
fn version(value: &Value) -> Version {
    match value {
        Value::String(text) => text.parse().unwrap(),
        Value::Object(map) if map.contains_key("Version") => version(&map["Version"]),
        Value::Object(map) => version(&map["args"][0]),
        _ => panic!("{value} has no version"),
    }
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_default()
}

fn versions(value: &Value) -> Vec<Version> {
    value
        .as_array()
        .map_or_else(Vec::new, |list| list.iter().map(version).collect())
}

fn walked(graph: &Graph, from: &Version, to: &Version) -> Result<Vec<Version>, NoPath> {
    let (from, to) = (graph.position(from).unwrap(), graph.position(to).unwrap());
    let path = graph.shortest_path(from, to, &[])?;
    Ok(path
        .steps
        .iter()
        .map(|step| graph.releases()[*step].version.clone())
        .collect())
}

fn report(table: &str, held: usize, cases: usize) {
    println!("{table}: {held} of {cases} cases hold");
    assert_eq!(held, cases, "every case of {table} holds");
}

#[test]
fn paths_inside_a_channel_are_those_of_oc_mirror() {
    let graphs = mock_graphs();
    let graph = &graphs["stable-4.0"];
    let cases = table("TestGetUpdates");
    let mut held = 0;
    for case in &cases {
        let (from, to) = (version(&case["version"]), version(&case["reqVer"]));
        let absent = [&from, &to]
            .into_iter()
            .find(|version| graph.position(version).is_none());
        held += usize::from(if let Some(absent) = absent {
            text(case, "err").contains(&absent.to_string())
        } else {
            let expected = versions(&case["available"]);
            match walked(graph, &from, &to) {
                Ok(steps) => steps == expected,
                // There: no error and no path. Here: the caller learns it.
                Err(NoPath::None { .. }) => expected.is_empty(),
                Err(NoPath::Conditional(_)) => false,
            }
        });
    }
    report("TestGetUpdates", held, cases.len());
}

#[test]
fn heads_ranges_and_lists_are_those_of_oc_mirror() {
    let graphs = mock_graphs();
    let graph = &graphs["stable-4.0"];
    let chosen = |full: bool| {
        let want = Want {
            channel: "stable-4.0".to_owned(),
            full,
            ..Want::default()
        };
        let selection = choose(&[want], &graphs, Options::default()).unwrap();
        selection.releases[0].version.clone()
    };
    let cases = table("TestGetMinorMax");
    let held = cases
        .iter()
        .filter(|case| {
            let first = case["min"].as_bool().unwrap_or(false);
            chosen(first) == version(&case["version"])
        })
        .count();
    report("TestGetMinorMax", held, cases.len());

    let cases = table("TestGetVersions");
    let held = cases
        .iter()
        .filter(|case| {
            let channel = text(case, "channel");
            let listed: Vec<Version> = graphs[channel]
                .releases()
                .iter()
                .map(|release| release.version.clone())
                .collect();
            if text(case, "err").is_empty() {
                listed == versions(&case["versions"]["args"][0])
            } else {
                let want = Want {
                    channel: channel.to_owned(),
                    ..Want::default()
                };
                matches!(
                    choose(&[want], &graphs, Options::default()),
                    Err(ChooseError::NoReleases { channel: named, .. }) if named == channel
                )
            }
        })
        .count();
    report("TestGetVersions", held, cases.len());

    let cases = table("TestGetUpdatesInRange");
    let held = cases
        .iter()
        .filter(|case| {
            let range: Range = text(&case["releaseRange"]["args"], "")
                .parse()
                .or_else(|_| case["releaseRange"]["args"][0].as_str().unwrap().parse())
                .unwrap();
            let within: Vec<Version> = graph
                .releases()
                .iter()
                .map(|release| release.version.clone())
                .filter(|version| range.contains(version))
                .collect();
            within == versions(&case["versions"])
        })
        .count();
    report("TestGetUpdatesInRange", held, cases.len());
}

#[test]
fn paths_across_channels_are_those_of_oc_mirror() {
    let graphs = mock_graphs();
    let cases = table("TestCalculateUpgrades");
    let mut held = 0;
    for case in &cases {
        let bound = |key: &str, at: &str| Want {
            channel: text(case, key).to_owned(),
            min: Some(version(&case[at])),
            max: Some(version(&case[at])),
            shortest_path: true,
            ..Want::default()
        };
        let wants = [
            bound("sourceChannel", "curr"),
            bound("targetChannel", "req"),
        ];
        for channel in between(&wants, &graphs, Options::default()).unwrap() {
            assert!(
                graphs.contains_key(&channel),
                "{channel} is there to be walked"
            );
        }
        let result = choose(&wants, &graphs, Options::default());
        held += usize::from(if text(case, "err").is_empty() {
            let selection = result.unwrap();
            let mut expected = versions(&case["neededUpdates"]);
            expected.extend([&case["currentUpdate"], &case["requestedUpdate"]].map(version));
            expected.sort();
            expected.dedup();
            let found: Vec<Version> = selection
                .releases
                .iter()
                .map(|chosen| chosen.version.clone())
                .collect();
            let gap = selection
                .notes
                .iter()
                .any(|note| matches!(note, Note::NotInNext { .. } | Note::NoWay { .. }));
            found == expected && gap == text(case, "name").starts_with("SuccessWithWarning")
        } else {
            let Err(ChooseError::UnknownVersion { version, .. }) = result else {
                panic!("{case} must be refused");
            };
            text(case, "err").contains(&version.to_string())
        });
    }
    report("TestCalculateUpgrades", held, cases.len());

    let cases = table("TestHandleBlockedEdges");
    let held = cases
        .iter()
        .filter(|case| {
            let target = &graphs[text(case, "targetChannel")];
            target.position(&version(&case["last"])).is_none() == case["exp"].as_bool().unwrap()
        })
        .count();
    report("TestHandleBlockedEdges", held, cases.len());

    let cases = table("TestGetSemVerFromChannel");
    let held = cases
        .iter()
        .filter(|case| {
            let names = ["sourceChannel", "targetChannel"].map(|key| parse_name(text(case, key)));
            match names {
                [Ok((stream, source)), Ok((_, target))] => {
                    let minor = |key: &str| {
                        let version = version(&case[key]);
                        (version.major, version.minor)
                    };
                    stream == text(case, "expPrefix")
                        && (source, target) == (minor("expSource"), minor("expTarget"))
                }
                [_, Err(ChooseError::Name { channel })] => text(case, "err").contains(&channel),
                _ => false,
            }
        })
        .count();
    report("TestGetSemVerFromChannel", held, cases.len());
}

/// Edges every cluster may take, and conditional ones with the names of their risks.
type Edges = (
    BTreeSet<(String, String)>,
    BTreeMap<(String, String), BTreeSet<String>>,
);

/// What a cluster's operator may do from one release, read straight from a document.
fn naive(document: &Value) -> Edges {
    let name = |index: &Value| {
        text(
            &document["nodes"][usize::try_from(index.as_u64().unwrap()).unwrap()],
            "version",
        )
        .to_owned()
    };
    let mut conditional: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for group in document["conditionalEdges"]
        .as_array()
        .into_iter()
        .flatten()
    {
        for edge in group["edges"].as_array().unwrap() {
            conditional
                .entry((text(edge, "from").to_owned(), text(edge, "to").to_owned()))
                .or_default()
                .extend(
                    group["risks"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|risk| text(risk, "name").to_owned()),
                );
        }
    }
    let edges = document["edges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| (name(&edge[0]), name(&edge[1])))
        .filter(|edge| !conditional.contains_key(edge))
        .collect();
    (edges, conditional)
}

/// The same of a graph.
fn shown(graph: &Graph) -> Edges {
    let name = |index: usize| graph.releases()[index].version.to_string();
    (
        graph
            .edges()
            .map(|(from, to)| (name(from), name(to)))
            .collect(),
        graph
            .conditional_edges()
            .map(|((from, to), risks)| {
                (
                    (name(from), name(to)),
                    risks.iter().map(|risk| risk.name.clone()).collect(),
                )
            })
            .collect(),
    )
}

#[test]
fn real_answers_are_read_whole() {
    let mut documents = vec![
        own("amd64-stable-4.13.json"),
        own("multi-candidate-4.12.json"),
    ];
    for name in [
        "cincinnati/cincinnati-tests/HEAD/e2e/tests/testdata/134475077ed4eeaedf3c339f12915b9cdaf7d194_stable-4.7_amd64_v1.json",
        "cincinnati/cincinnati-tests/HEAD/e2e/tests/testdata/134475077ed4eeaedf3c339f12915b9cdaf7d194_stable-4.8_amd64_v1.json",
        "cincinnati/derived-graphs/candidate-4.14-amd64.derived.json",
        "cincinnati/derived-graphs/eus-4.14-amd64.derived.json",
        "cincinnati/derived-graphs/fast-4.14-amd64.derived.json",
        "cincinnati/derived-graphs/stable-4.12-amd64.derived.json",
        "cincinnati/derived-graphs/stable-4.14-amd64.derived.json",
    ] {
        documents.extend(shared(name).map(|path| std::fs::read(path).unwrap()));
    }
    println!("{} answers", documents.len());
    for bytes in documents {
        let graph = Graph::parse(&bytes).unwrap();
        let mut document: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            graph.releases().len(),
            document["nodes"].as_array().unwrap().len(),
            "every release is read"
        );
        assert_eq!(shown(&graph), naive(&document), "every edge is read");
        assert!(
            graph.ambiguous().is_none(),
            "an answer is of one architecture"
        );
        assert_eq!(
            Graph::parse(&graph.to_json()).unwrap(),
            graph,
            "printing loses nothing"
        );
        let count = graph.releases().len();
        let turned = |index: &Value| count - 1 - usize::try_from(index.as_u64().unwrap()).unwrap();
        document["nodes"].as_array_mut().unwrap().reverse();
        for edge in document["edges"].as_array_mut().unwrap() {
            *edge = serde_json::json!([turned(&edge[0]), turned(&edge[1])]);
        }
        assert_eq!(
            Graph::parse(&serde_json::to_vec(&document).unwrap())
                .unwrap()
                .to_json(),
            graph.to_json(),
            "the order of the nodes does not matter"
        );
    }
}

#[test]
fn a_real_channel_is_walked_without_its_risks() {
    let graphs = BTreeMap::from([(
        "stable-4.13".to_owned(),
        Graph::parse(&own("amd64-stable-4.13.json")).unwrap(),
    )]);
    let graph = &graphs["stable-4.13"];
    assert_eq!(
        (
            graph.releases().len(),
            graph.edges().count(),
            graph.conditional_edges().count()
        ),
        (98, 1035, 2394),
        "1171 edges are listed, 136 of them are conditional, too"
    );
    let want = |min: &str, max: &str, shortest_path: bool| Want {
        channel: "stable-4.13".to_owned(),
        min: Some(min.parse().unwrap()),
        max: Some(max.parse().unwrap()),
        shortest_path,
        ..Want::default()
    };
    let mut outcomes = BTreeMap::new();
    let count = graph.releases().len();
    for from in 0..count {
        for to in (from..count).step_by(4) {
            let [min, max] = [from, to].map(|index| graph.releases()[index].version.to_string());
            let outcome = match choose(&[want(&min, &max, true)], &graphs, Options::default()) {
                Ok(selection) => {
                    assert!(
                        selection.notes.is_empty(),
                        "{min} to {max}: nothing was accepted"
                    );
                    for pair in selection.releases.windows(2) {
                        let ends = [&pair[0], &pair[1]]
                            .map(|chosen| graph.position(&chosen.version).unwrap());
                        assert!(
                            graph.edges().any(|edge| edge == (ends[0], ends[1])),
                            "{min} to {max}: every step is an unconditional edge"
                        );
                    }
                    "path"
                }
                Err(ChooseError::Conditional { crossings, .. }) => {
                    let accepted: Vec<String> = crossings
                        .iter()
                        .flat_map(|crossing| crossing.risks.clone())
                        .collect();
                    let options = Options {
                        accepted: &accepted,
                        ..Options::default()
                    };
                    let selection = choose(&[want(&min, &max, true)], &graphs, options).unwrap();
                    assert!(
                        !selection.notes.is_empty(),
                        "{min} to {max}: accepting what the error names is enough, and is reported"
                    );
                    "conditional"
                }
                Err(ChooseError::NoPath { .. }) => "none",
                Err(error) => panic!("{min} to {max}: {error}"),
            };
            *outcomes.entry(outcome).or_insert(0) += 1;
        }
    }
    println!("stable-4.13, one pair in four: {outcomes:?}");
    assert!(
        ["path", "conditional", "none"]
            .iter()
            .all(|kind| outcomes.contains_key(kind)),
        "all three happen in the field"
    );
}

/// The files in a packed graph-data directory.
fn unpacked(path: &Path) -> Vec<(String, Vec<u8>)> {
    let file = std::fs::File::open(path).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (name, bytes)
        })
        .collect()
}

fn graph_data(files: &[(String, Vec<u8>)]) -> GraphData {
    GraphData::read(
        files
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes.as_slice())),
    )
    .unwrap()
}

/// The answer of a service, taken back to what it was made from: all edges unconditional, no channels, the
/// architecture in the versions.
fn taken_back(answer: &Graph, name: &str) -> Graph {
    let releases = answer
        .releases()
        .iter()
        .map(|release| {
            let mut release = release.clone();
            release.version.build = vec![name.to_owned()];
            release.metadata.remove(CHANNELS_KEY);
            release
                .metadata
                .retain(|key, _| !key.starts_with("io.openshift.upgrades.graph.previous."));
            release
        })
        .collect();
    let conditional: Vec<(usize, usize)> =
        answer.conditional_edges().map(|(edge, _)| edge).collect();
    Graph::new(releases, answer.edges().chain(conditional)).unwrap()
}

#[test]
fn graph_data_make_the_answers_that_services_gave() {
    let Some(packed) = shared("cincinnati/graph-data-134475077ed4.tar.gz") else {
        return;
    };
    let data = graph_data(&unpacked(&packed));
    for (channel, name, path) in [
        ("stable-4.7", "amd64", "stable-4.7_amd64"),
        ("stable-4.8", "amd64", "stable-4.8_amd64"),
        ("candidate-4.12", "multi", "candidate-4.12_multi"),
    ] {
        let Some(path) = shared(&format!(
            "cincinnati/cincinnati-tests/HEAD/e2e/tests/testdata/134475077ed4eeaedf3c339f12915b9cdaf7d194_{path}_v1.json"
        )) else {
            return;
        };
        let answer = Graph::parse(&std::fs::read(path).unwrap()).unwrap();
        let made = data
            .apply(taken_back(&answer, name))
            .unwrap()
            .channel(channel, name);
        assert_eq!(
            shown(&made),
            shown(&answer),
            "{channel}: the edges and their risks"
        );
        let mut differ = 0;
        for (made, given) in made.releases().iter().zip(answer.releases()) {
            assert_eq!(
                (&made.version, &made.payload),
                (&given.version, &given.payload),
                "{channel}: the releases"
            );
            differ +=
                usize::from(made.metadata.get(CHANNELS_KEY) != given.metadata.get(CHANNELS_KEY));
        }
        assert_eq!(differ, 0, "{channel}: the channels of every release");
        println!(
            "{channel} {name}: {} releases as the service gave them",
            made.releases().len()
        );
    }
}

#[test]
fn the_golden_triple_of_the_update_service_holds() {
    let base = "cincinnati/cincinnati-tests/HEAD/cincinnati/src/plugins/internal/graph_builder/openshift_secondary_metadata_parser/test_fixtures";
    let Some(fixtures) = shared(base) else {
        return;
    };
    let fixture = fixtures.join("20200220.104838");
    let parse = |name: &str| Graph::parse(&std::fs::read(fixture.join(name)).unwrap()).unwrap();
    let files: Vec<(String, Vec<u8>)> =
        walkdir::WalkDir::new(fixture.join("cincinnati-graph-data"))
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| {
                let path = entry.path();
                let name = path
                    .strip_prefix(fixture.join("cincinnati-graph-data"))
                    .unwrap();
                (
                    name.to_string_lossy().into_owned(),
                    std::fs::read(path).unwrap(),
                )
            })
            .collect();
    let made = graph_data(&files)
        .apply(parse("graph-gb-raw.json"))
        .unwrap();
    // The expectation carries its additions and removals as labels; they are followed by the same rules.
    let expected = GraphData::read([("version", &b"1.0.0"[..])])
        .unwrap()
        .apply(parse("graph-gb-with-quay-metadata.json"))
        .unwrap();
    assert_eq!(shown(&made), shown(&expected), "every edge");
    let plain = |release: &Release| {
        let mut metadata = release.metadata.clone();
        metadata.retain(|key, _| !key.contains(".previous.remove"));
        (release.version.clone(), release.payload.clone(), metadata)
    };
    for (made, expected) in made.releases().iter().zip(expected.releases()) {
        assert_eq!(plain(made), plain(expected), "every release");
        assert!(
            architecture(made).is_some(),
            "every release has an architecture"
        );
    }
    println!(
        "golden triple: {} releases, {} edges",
        made.releases().len(),
        made.edges().count()
    );

    let broken = fixtures.join("invalid0/cincinnati-graph-data");
    let bytes = std::fs::read(broken.join("blocked-edges/invalid_format.yaml")).unwrap();
    let error = GraphData::read([
        ("version", &b"1.0.0"[..]),
        ("blocked-edges/invalid_format.yaml", bytes.as_slice()),
    ])
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("blocked-edges/invalid_format.yaml"),
        "a broken file is refused by name, not passed over"
    );
}

#[test]
fn every_file_of_real_graph_data_is_read() {
    for (packed, channels) in [
        ("cincinnati/graph-data-134475077ed4.tar.gz", 38),
        ("cincinnati/graph-data-2024-10-01.tar.gz", 56),
    ] {
        let Some(packed) = shared(packed) else {
            return;
        };
        let files = unpacked(&packed);
        let data = graph_data(&files);
        let named: Vec<&str> = data.channels().collect();
        assert_eq!(named.len(), channels, "every channel is read: {named:?}");
        let stable = data.versions("stable-4.11").unwrap();
        assert!(
            stable.windows(2).all(|pair| pair[0] < pair[1]),
            "a channel lists each release once, in order"
        );
        assert!(
            data.versions("stable-9.99").is_none(),
            "absence is no error"
        );
    }
    let (Some(packed), Some(later)) = (
        shared("cincinnati/graph-data-2024-10-01.tar.gz"),
        shared("cincinnati/derived-graphs"),
    ) else {
        return;
    };
    // Graphs made from a later state of the same files hold what the channels listed before.
    let data = graph_data(&unpacked(&packed));
    for channel in ["candidate-4.14", "fast-4.14", "stable-4.12", "stable-4.14"] {
        let bytes = std::fs::read(later.join(format!("{channel}-amd64.derived.json"))).unwrap();
        let graph = Graph::parse(&bytes).unwrap();
        for version in data.versions(channel).unwrap() {
            assert!(
                graph.position(&version.clone().without_build()).is_some(),
                "{channel} holds {version}"
            );
        }
    }
}
