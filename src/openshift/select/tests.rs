//! The scenarios of the documentation, the rules of the catalog server, and channels at random.

use std::fmt::Write as _;
use std::fs;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::openshift::fbc::tests::{catalog, files, public};

fn table(name: &str) -> Json {
    let path = format!("{}/tests/data/fbc/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn infinispan() -> Fragment {
    let path = format!(
        "{}/tests/data/fbc/infinispan.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    Fragment::parse("infinispan", &fs::read(path).unwrap()).unwrap()
}

fn options(selection: Selection) -> Options {
    Options {
        selection,
        prereleases: None,
    }
}

fn text(value: &Json, key: &str) -> Option<String> {
    value[key].as_str().map(str::to_owned)
}

fn want(value: &Json) -> Want {
    let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
    Want {
        full: value["full"] == true,
        default_channel: text(value, "default"),
        min: text(value, "min"),
        max: text(value, "max"),
        min_bundle: text(value, "minBundle"),
        channels: list("channels")
            .iter()
            .map(|channel| WantChannel {
                name: text(channel, "name").unwrap(),
                min: text(channel, "min"),
                max: text(channel, "max"),
                min_bundle: text(channel, "minBundle"),
            })
            .collect(),
        bundles: list("bundles")
            .iter()
            .map(|bundle| bundle.as_str().unwrap().to_owned())
            .collect(),
        since: BTreeMap::new(),
    }
}

fn wanted(json: &str) -> Want {
    want(&serde_json::from_str(json).unwrap())
}

/// Versions by channel.
fn shape(selected: &Selected) -> BTreeMap<String, Vec<String>> {
    let mut shape: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for bundle in &selected.bundles {
        for channel in &bundle.channels {
            shape
                .entry(channel.clone())
                .or_default()
                .push(bundle.version.to_string());
        }
    }
    shape
}

/// A fragment of package `p` out of channels of `name < replaces | skips, skips`; the name is the version.
fn package(default_channel: &str, channels: &[(&str, &str)]) -> Fragment {
    let mut out =
        format!(r#"{{"schema":"olm.package","name":"p","defaultChannel":"{default_channel}"}}"#);
    let mut names = BTreeSet::new();
    for (channel, entries) in channels {
        let mut rows = Vec::new();
        for entry in entries
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            let (entry, skips) = entry.split_once('|').unwrap_or((entry, ""));
            let (name, replaces) = entry.split_once('<').unwrap_or((entry, ""));
            let name = name.trim();
            names.insert(name.to_owned());
            let skips: Vec<String> = skips
                .split(',')
                .map(str::trim)
                .filter(|skip| !skip.is_empty())
                .map(|skip| format!("p.v{skip}"))
                .collect();
            let replaces = match replaces.trim() {
                "" => String::new(),
                replaces => format!("p.v{replaces}"),
            };
            rows.push(serde_json::json!({"name": format!("p.v{name}"), "replaces": replaces, "skips": skips}));
        }
        let document = serde_json::json!({"schema": "olm.channel", "package": "p", "name": channel, "entries": rows});
        write!(out, "{document}").unwrap();
    }
    for name in names {
        write!(out, "{}", bundle("p", &name)).unwrap();
    }
    Fragment::parse("p", out.as_bytes()).unwrap()
}

fn bundle(package: &str, version: &str) -> Json {
    serde_json::json!({
        "schema": "olm.bundle", "package": package, "name": format!("{package}.v{version}"),
        "image": format!("q.io/{package}-bundle:v{version}"),
        "properties": [{"type": "olm.package", "value": {"packageName": package, "version": version}}],
        "relatedImages": [
            {"name": "", "image": format!("q.io/{package}-bundle:v{version}")},
            {"name": "operator", "image": format!("q.io/{package}:v{version}")},
            {"name": "proxy", "image": "q.io/proxy@sha256:0"},
        ],
    })
}

/// The channel of the worked example.
const EXAMPLE: &str = "6.1.0 < 6.0.1 | 6.0.2
    6.0.2 < 6.0.1
    6.0.1 < 5.9.0
    5.9.0 < 5.8.0
    5.8.0";

#[test]
fn the_seventeen_scenarios_select_what_is_documented() {
    let fragment = infinispan();
    for case in table("scenarios.json").as_array().unwrap() {
        let want = want(&case["want"]);
        for selection in Selection::ALL {
            let expected = &case["expected"][selection.as_str()];
            let what = format!(
                "scenario {} ({}), {selection}",
                case["scenario"], case["what"]
            );
            match select(&fragment, &want, options(selection)) {
                Ok(selected) => {
                    let found = serde_json::to_value(shape(&selected)).unwrap();
                    assert_eq!(&found, expected, "{what}");
                    let again = select(&selected.fragment, &want, options(selection)).unwrap();
                    assert_eq!(
                        again.fragment, selected.fragment,
                        "{what}: filtering twice is filtering once"
                    );
                }
                Err(error) => {
                    let part = expected["error"].as_str().unwrap_or("no error");
                    assert!(
                        error.to_string().contains(part),
                        "{what}: {error} must say {part:?}"
                    );
                    assert!(
                        error.hint().is_some(),
                        "{what}: {error} must say what to do"
                    );
                }
            }
        }
    }
}

#[test]
fn the_graphs_of_the_catalog_server_are_judged_as_it_does() {
    let table = table("channel-tables.json");
    let fragment = |case: &Json| {
        let rows: Vec<Json> = case["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                let name = |value: &Json| match value.as_str().unwrap() {
                    "" => String::new(),
                    version => format!("foo.v{version}"),
                };
                let skips: Vec<String> = row[2].as_array().unwrap().iter().map(name).collect();
                serde_json::json!({"name": name(&row[0]), "replaces": name(&row[1]), "skips": skips})
            })
            .collect();
        let mut out = format!(
            "{}{}",
            serde_json::json!({"schema": "olm.package", "name": "foo", "defaultChannel": "c"}),
            serde_json::json!({"schema": "olm.channel", "package": "foo", "name": "c", "entries": rows})
        );
        let names: BTreeSet<&str> = case["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row[0].as_str().unwrap())
            .collect();
        for version in names {
            write!(out, "{}", bundle("foo", version)).unwrap();
        }
        Fragment::parse("foo", out.as_bytes()).unwrap()
    };
    for case in table["graphs"].as_array().unwrap() {
        let fragment = fragment(case);
        let flaws = validate(&fragment).unwrap();
        if let Some(head) = case["head"].as_str() {
            assert_eq!(flaws, [], "{}", case["name"]);
            let selected = select(&fragment, &Want::default(), Options::default()).unwrap();
            assert_eq!(
                selected.bundles[0].name,
                format!("foo.v{head}"),
                "{}",
                case["name"]
            );
        } else {
            let part = case["error"].as_str().unwrap();
            assert!(
                list(&flaws).contains(part),
                "{}: {flaws:?} must say {part:?}",
                case["name"]
            );
        }
    }
    for case in table["ranges"].as_array().unwrap() {
        let want = Want {
            min: case["range"][0].as_str().map(str::to_owned),
            max: case["range"][1].as_str().map(str::to_owned),
            ..Want::default()
        };
        let names = |key: &str| -> Vec<String> {
            let list = case[key].as_array().cloned().unwrap_or_default();
            list.iter()
                .map(|version| version.as_str().unwrap().to_owned())
                .collect()
        };
        match select(&fragment(case), &want, options(Selection::EveryChannel)) {
            Ok(selected) => {
                let found: Vec<String> = selected
                    .bundles
                    .iter()
                    .map(|bundle| bundle.version.to_string())
                    .collect();
                assert_eq!(found, names("expected"), "{}", case["name"]);
                let outside: Vec<String> = selected
                    .notes
                    .iter()
                    .filter_map(|note| match note {
                        Note::Outside { bundle, .. } => {
                            bundle.strip_prefix("foo.v").map(str::to_owned)
                        }
                        _ => None,
                    })
                    .collect();
                if case.get("outside").is_some() {
                    assert_eq!(outside, names("outside"), "{}", case["name"]);
                }
            }
            Err(error) => assert!(
                names("expected").is_empty() && matches!(error, SelectError::Empty { .. }),
                "{}: {error}",
                case["name"]
            ),
        }
    }
}

#[test]
fn the_worked_example_comes_out_as_written_down() {
    let fragment = package("c", &[("c", EXAMPLE)]);
    for (want, every, default) in [
        (
            r#"{"max":"6.0.1"}"#,
            "5.8.0 5.9.0 6.0.1",
            "5.8.0 5.9.0 6.0.1",
        ),
        (
            r#"{"max":"6.0.2"}"#,
            "5.8.0 5.9.0 6.0.1 6.0.2 6.1.0",
            "5.8.0 5.9.0 6.0.1 6.0.2",
        ),
        (
            r#"{"min":"5.9.0","max":"6.0.1"}"#,
            "5.9.0 6.0.1",
            "5.9.0 6.0.1",
        ),
        (r#"{"min":"6.0.2"}"#, "6.0.2 6.1.0", "6.0.2 6.1.0"),
        (r#"{"min":"6.0.2","max":"6.0.2"}"#, "6.0.2 6.1.0", "6.0.2"),
        (
            r#"{"min":"7.0.0"}"#,
            "the closest versions are 6.0.2, 6.1.0",
            "the closest versions are 6.0.2, 6.1.0",
        ),
        ("{}", "6.1.0", "6.1.0"),
        (
            r#"{"bundles":["p.v6.0.2","p.v6.0.1"]}"#,
            "6.0.1 6.0.2",
            "6.0.1 6.0.2",
        ),
        (
            r#"{"bundles":["p.v6.1.0","p.v5.8.0"]}"#,
            "add bundles p.v5.9.0, p.v6.0.1",
            "add bundles p.v5.9.0, p.v6.0.1",
        ),
        (
            r#"{"bundles":["p.v9.9.9"]}"#,
            "did you mean p.v5.9.0?",
            "did you mean p.v5.9.0?",
        ),
    ] {
        for (selection, expected) in [
            (Selection::EveryChannel, every),
            (Selection::DefaultChannel, default),
        ] {
            let found = match select(&fragment, &wanted(want), options(selection)) {
                Ok(selected) => shape(&selected)["c"].join(" "),
                Err(error) => error.hint().unwrap(),
            };
            assert!(
                found.starts_with(expected),
                "{want}, {selection}: {found:?} must be {expected:?}"
            );
        }
    }
    let dangling = select(&fragment, &wanted(r#"{"min":"5.9.0"}"#), Options::default()).unwrap();
    let channel = &dangling.fragment.channels().unwrap()[0];
    let last = channel
        .entries
        .iter()
        .find(|entry| entry.name == "p.v5.9.0")
        .unwrap();
    assert_eq!(last.replaces, "p.v5.8.0", "kept entries stay as they are");
}

#[test]
fn the_first_tools_walk_takes_the_way_up_to_the_head() {
    let fragment = package("c", &[("c", EXAMPLE), ("d", "6.1.0 < 6.0.1\n6.0.1")]);
    let v1 = options(Selection::V1);
    for (want, expected) in [
        ("{}", r#"{"c":["6.1.0"],"d":["6.1.0"]}"#),
        (
            r#"{"min":"5.9.0"}"#,
            r#"{"c":["5.9.0","6.0.1","6.0.2","6.1.0"]}"#,
        ),
        (r#"{"min":"6.0.2"}"#, r#"{"c":["6.0.2","6.1.0"]}"#),
        (
            r#"{"min":"6.0.1"}"#,
            r#"{"c":["6.0.1","6.0.2","6.1.0"],"d":["6.0.1","6.1.0"]}"#,
        ),
        (
            r#"{"minBundle":"p.v5.9.0"}"#,
            r#"{"c":["5.9.0","6.0.1","6.0.2","6.1.0"]}"#,
        ),
        (
            r#"{"channels":[{"name":"c","minBundle":"p.v6.0.2"}]}"#,
            r#"{"c":["6.0.2","6.1.0"]}"#,
        ),
        (
            r#"{"max":"6.0.1"}"#,
            r#"{"c":["5.8.0","5.9.0","6.0.1"],"d":["6.0.1"]}"#,
        ),
    ] {
        let selected = select(&fragment, &wanted(want), v1).unwrap();
        assert_eq!(
            serde_json::to_string(&shape(&selected)).unwrap(),
            expected,
            "{want}"
        );
    }
    for (want, part) in [
        (
            r#"{"channels":[{"name":"c","min":"6.0.3"}]}"#,
            "channel \"c\" has no version 6.0.3",
        ),
        (
            r#"{"channels":[{"name":"c"},{"name":"d","minBundle":"p.v5.8.0"}]}"#,
            "channel \"d\" has no bundle \"p.v5.8.0\"",
        ),
        (r#"{"min":"6.0"}"#, "minVersion cannot be read"),
        (r#"{"min":"9.0.0"}"#, "nothing is in the range from 9.0.0"),
    ] {
        let error = select(&fragment, &wanted(want), v1).unwrap_err();
        assert!(
            error.to_string().contains(part),
            "{want}: {error} must say {part:?}"
        );
    }
    let respun = package("c", &[("c", "2.3.0-1 < 2.2.0-0\n2.2.0-0 < 2.1.0\n2.1.0")]);
    let selected = select(&respun, &wanted(r#"{"min":"2.2.0"}"#), v1).unwrap();
    assert_eq!(
        shape(&selected)["c"],
        ["2.2.0-0", "2.3.0-1"],
        "2.2.0 is found in 2.2.0-0"
    );

    let first = select(&fragment, &Want::default(), v1).unwrap();
    let grown = EXAMPLE.replace("6.1.0 <", "6.2.0 < 6.1.0\n6.1.0 <");
    let grown = package(
        "c",
        &[("c", &grown), ("d", "6.1.0 < 6.0.1\n6.0.1"), ("e", "6.2.0")],
    );
    let later = Want {
        since: first.lowest(),
        ..Want::default()
    };
    let selected = select(&grown, &later, v1).unwrap();
    assert_eq!(
        serde_json::to_string(&shape(&selected)).unwrap(),
        r#"{"c":["6.1.0","6.2.0"],"d":["6.1.0"],"e":["6.2.0"]}"#,
        "from what was mirrored before up to the new head; new channels start at theirs"
    );
    let vanished = Want {
        since: BTreeMap::from([("c".to_owned(), "5.9.5".parse().unwrap())]),
        ..Want::default()
    };
    let selected = select(&grown, &vanished, v1).unwrap();
    assert_eq!(
        shape(&selected)["c"],
        ["6.0.1", "6.0.2", "6.1.0", "6.2.0"],
        "the next that is still there"
    );
}

#[test]
fn what_cannot_be_is_said_with_its_remedy() {
    let fragment = package(
        "stable",
        &[
            ("stable", EXAMPLE),
            ("fast", "6.1.0"),
            ("loose", "1.2.0 | 1.1.0, 1.0.0\n1.1.0\n1.0.0"),
        ],
    );
    for (want, error, hint) in [
        (
            r#"{"channels":[{"name":"stabel"}]}"#,
            "package \"p\" has no channel \"stabel\"",
            "did you mean stable?",
        ),
        (
            r#"{"defaultChannel":"x","default":"nightly"}"#,
            "package \"p\" has no channel \"nightly\"",
            "did you mean fast or loose or stable?",
        ),
        (
            r#"{"channels":[{"name":"fast"}]}"#,
            "package \"p\": default channel \"stable\" is not selected",
            "set defaultChannel: fast, or add channel \"stable\"",
        ),
        (
            r#"{"channels":[{"name":"fast"},{"name":"loose"}]}"#,
            "package \"p\": default channel \"stable\" is not selected",
            "set defaultChannel to one of fast, loose, or add channel \"stable\"",
        ),
        (
            r#"{"bundles":["p.v6.1.O"]}"#,
            "package \"p\" has no bundle \"p.v6.1.O\"",
            "did you mean p.v6.1.0 or p.v1.1.0 or p.v6.0.1?",
        ),
        (
            r#"{"channels":[{"name":"stable"},{"name":"loose","max":"1.1.0"}]}"#,
            "package \"p\": a cluster would refuse the selection: channel \"loose\" has more than one head: p.v1.0.0, p.v1.1.0",
            "set maxVersion to 1.2.0 for channel \"loose\" (adds p.v1.2.0)",
        ),
        (
            r#"{"min":"5.9.x"}"#,
            "package \"p\": minVersion cannot be read",
            "",
        ),
        (
            r#"{"channels":[{"name":"stable","max":"4.0.0"}]}"#,
            "package \"p\", channel \"stable\": nothing is in the range up to 4.0.0",
            "the closest versions are 5.8.0, 5.9.0",
        ),
        (
            r#"{"min":"5.9.0","minBundle":"p.v5.9.0"}"#,
            "package \"p\": minVersion cannot be combined with minBundle",
            "keep one of them",
        ),
        (
            r#"{"bundles":["p.v6.1.0"],"max":"7.0.0"}"#,
            "package \"p\": bundles cannot be combined with a range",
            "keep one of them",
        ),
        (
            r#"{"bundles":["p.v6.1.0"],"full":true}"#,
            "package \"p\": full cannot be combined with bundles",
            "leave out full",
        ),
        (
            r#"{"max":"7.0.0","channels":[{"name":"stable","min":"5.0.0"}]}"#,
            "package \"p\": a range for the package cannot be combined with a range for a channel",
            "keep the ranges of the channels",
        ),
    ] {
        let found = select(&fragment, &wanted(want), Options::default()).unwrap_err();
        assert_eq!(found.to_string(), error, "{want}");
        assert_eq!(found.hint().unwrap_or_default(), hint, "{want}");
    }
    let error = no_package(
        "elasticsearch-operater",
        ["elasticsearch-operator", "odf-operator"],
    );
    assert_eq!(
        error.hint().unwrap(),
        "did you mean elasticsearch-operator?"
    );
}

#[test]
fn a_mended_config_is_accepted() {
    let fragment = infinispan();
    let stable = |max: &str| {
        wanted(&format!(
            r#"{{"channels":[{{"name":"stable","max":"{max}"}}]}}"#
        ))
    };
    let error = select(&fragment, &stable("2.3.7"), Options::default()).unwrap_err();
    assert_eq!(
        error.hint().unwrap(),
        "set maxVersion to 2.3.8 for channel \"stable\" (adds infinispan-operator.v2.3.8)"
    );
    assert!(
        select(&fragment, &stable("2.3.8"), Options::default()).is_ok(),
        "the advice must help"
    );
    let bundles = |names: &[&str]| Want {
        bundles: names
            .iter()
            .map(|name| format!("infinispan-operator.v{name}"))
            .collect(),
        ..Want::default()
    };
    let error = select(
        &fragment,
        &bundles(&["2.5.10", "2.5.13"]),
        Options::default(),
    )
    .unwrap_err();
    assert_eq!(
        error.hint().unwrap(),
        "add bundles infinispan-operator.v2.5.11, infinispan-operator.v2.5.12"
    );
    let joined = bundles(&["2.5.10", "2.5.13", "2.5.11", "2.5.12"]);
    assert!(
        select(&fragment, &joined, Options::default()).is_ok(),
        "the advice must help"
    );
}

#[test]
fn pre_releases_are_told_about() {
    let fragment = package("c", &[("c", "5.8.3-4 < 5.8.2-1\n5.8.2-1 < 5.7.0\n5.7.0")]);
    let from = |min: &str| wanted(&format!(r#"{{"min":"{min}"}}"#));
    let error = select(&fragment, &from("5.8.0"), options(Selection::EveryChannel)).unwrap_err();
    assert_eq!(
        error.hint().unwrap(),
        "p.v5.8.2-1, p.v5.8.3-4 would be in it, but are pre-releases: end a bound in \"-0\" to take them"
    );
    let included = Options {
        selection: Selection::EveryChannel,
        prereleases: Some(Prereleases::Include),
    };
    for selected in [
        select(
            &fragment,
            &from("5.8.0-0"),
            options(Selection::EveryChannel),
        ),
        select(&fragment, &from("5.8.0"), included),
        select(&fragment, &from("5.8.0"), Options::default()),
    ] {
        assert_eq!(shape(&selected.unwrap())["c"], ["5.8.2-1", "5.8.3-4"]);
    }
    let selected = select(&fragment, &from("5.8.2"), Options::default()).unwrap();
    assert_eq!(
        selected.notes,
        [Note::BeforeMinimum {
            channel: "c".to_owned(),
            bundle: "p.v5.8.2-1".to_owned()
        }],
        "5.8.2-1 orders before 5.8.2, which nobody expects"
    );
}

#[test]
fn everything_else_of_a_package_survives() {
    let mut text =
        String::from_utf8(package("c", &[("c", EXAMPLE), ("d", "6.0.2")]).to_bytes()).unwrap();
    text.push_str(
        r#"{"schema":"olm.deprecations","package":"p","x":1,"entries":[
            {"reference":{"schema":"olm.package"},"message":"a"},
            {"reference":{"schema":"olm.channel","name":"c"},"message":"b"},
            {"reference":{"schema":"olm.channel","name":"d"},"message":"c"},
            {"reference":{"schema":"olm.bundle","name":"p.v6.1.0"},"message":"d"},
            {"reference":{"schema":"olm.bundle","name":"p.v5.8.0"},"message":"e"}]}
        {"schema":"my.schema","package":"p","name":"n","value":[1.50,null]}"#,
    );
    let fragment = Fragment::parse("p", text.as_bytes()).unwrap();
    let selected = select(&fragment, &Want::default(), Options::default()).unwrap();
    let kept: Vec<(String, String)> = selected
        .fragment
        .documents()
        .iter()
        .map(|document| (document.head().schema.clone(), document.head().name.clone()))
        .collect();
    let names = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(schema, name)| ((*schema).to_owned(), (*name).to_owned()))
            .collect()
    };
    assert_eq!(
        kept,
        names(&[
            (PACKAGE, "p"),
            (CHANNEL, "c"),
            (BUNDLE, "p.v6.1.0"),
            (DEPRECATIONS, ""),
            ("my.schema", "n")
        ])
    );
    let messages: Vec<String> = selected.fragment.deprecations().unwrap()[0]
        .entries
        .iter()
        .map(|entry| entry.message.clone())
        .collect();
    assert_eq!(messages, ["a", "b", "d"], "what is gone is not deprecated");
    let json: Vec<&str> = selected
        .fragment
        .documents()
        .iter()
        .map(Document::json)
        .collect();
    assert!(
        json[3].contains(r#""x":1"#),
        "unknown fields survive: {}",
        json[3]
    );
    assert_eq!(
        json[4],
        r#"{"name":"n","package":"p","schema":"my.schema","value":[1.50,null]}"#
    );

    assert_eq!(selected.images.len(), 3, "{:?}", selected.images);
    let proxy = select(&fragment, &wanted(r#"{"full":true}"#), Options::default())
        .unwrap()
        .images
        .into_iter()
        .find(|image| image.image == "q.io/proxy@sha256:0")
        .unwrap();
    assert_eq!(
        proxy.asked.len(),
        5,
        "an image is listed once, with all who asked"
    );
    assert_eq!(
        selected.images[0].asked,
        [("p.v6.1.0".to_owned(), String::new())],
        "the bundle's own image is nobody's related image"
    );
    let full = select(&fragment, &wanted(r#"{"full":true}"#), Options::default()).unwrap();
    assert_eq!(full.fragment, fragment, "full changes nothing");
    let renamed = select(
        &fragment,
        &wanted(r#"{"full":true,"default":"d"}"#),
        Options::default(),
    )
    .unwrap();
    assert_eq!(renamed.fragment.packages().unwrap()[0].default_channel, "d");
}

#[test]
fn damaged_packages_are_described() {
    let text = r#"{"schema":"olm.package","name":"p","defaultChannel":"gone"}
        {"schema":"olm.channel","package":"p","name":"c","entries":[
            {"name":"a","replaces":"b","skips":[""]},{"name":"b","replaces":"a"},{"name":"h","skipRange":"<1.x ||"},{"name":"no"}]}
        {"schema":"olm.channel","package":"p","name":"c","entries":null}
        {"schema":"olm.bundle","package":"p","name":"a","image":"i","properties":[{"type":"olm.package","value":{"packageName":"p","version":"1.0"}}]}
        {"schema":"olm.bundle","package":"p","name":"b","image":"i"}
        {"schema":"olm.bundle","package":"p","name":"h","image":"i","properties":[{"type":"olm.package","value":{"packageName":"q","version":"1.0.0"}}]}
        {"schema":"olm.bundle","package":"p","name":"h","image":"i","properties":[{"type":"olm.package","value":{"packageName":"p","version":"1.0.0"}}]}
        {"schema":"olm.bundle","package":"p","name":"z","image":"i","properties":[{"type":"olm.package","value":{"packageName":"p","version":"2.0.0"}}]}"#;
    let fragment = Fragment::parse("p", text.as_bytes()).unwrap();
    let found = list(&validate(&fragment).unwrap());
    for part in [
        "it has default channel \"gone\", which is not among its channels (c, c)",
        "it has bundle \"h\" twice",
        "it has bundle \"a\" without a version: \"1.0\" is not a version",
        "it has bundle \"b\" without a version: expected exactly one property olm.package",
        "it has bundle \"z\", which is in no channel",
        "channel \"c\" is there twice",
        "channel \"c\" has no entries",
        "channel \"c\" has entry \"a\", which skips an empty name",
        "channel \"c\" has entries that replace or skip each other in a circle: a -> b",
        "channel \"c\" has more than one head: h, no",
        "channel \"c\" has entries without a bundle: no",
        "channel \"c\" has entry \"h\" with a skipRange that cannot be read",
    ] {
        assert!(found.contains(part), "{found}\nmust say {part:?}");
    }
    for want in ["{}", r#"{"channels":[{"name":"c"}]}"#, r#"{"full":true}"#] {
        let error = select(&fragment, &wanted(want), Options::default()).unwrap_err();
        assert!(
            matches!(
                error,
                SelectError::Invalid { broken: true, .. } | SelectError::DefaultChannel { .. }
            ),
            "{want}: {error}"
        );
    }
    let stranded = package("c", &[("c", "3.0.0 < 2.0.0 | 2.0.0\n2.0.0 < 1.0.0\n1.0.0")]);
    assert_eq!(
        list(&validate(&stranded).unwrap()),
        "channel \"c\" has entries that head p.v3.0.0 does not lead down to: p.v1.0.0",
        "the server's chain ends at an entry that is skipped"
    );
    for (field, part) in [
        (r#""entries":{}"#, "olm.channel \"c\" cannot be read"),
        (
            r#""entries":[{"name":1}]"#,
            "olm.channel \"c\" cannot be read",
        ),
    ] {
        let text = format!(r#"{{"schema":"olm.channel","package":"p","name":"c",{field}}}"#);
        let fragment = Fragment::parse("p", text.as_bytes()).unwrap();
        let error = select(&fragment, &Want::default(), Options::default()).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let local = String::from_utf8(package("c", &[("c", "1.0.0")]).to_bytes()).unwrap();
    let local = local.replace("q.io/p:v1.0.0", "oci:///tmp/p");
    let fragment = Fragment::parse("p", local.as_bytes()).unwrap();
    let error = select(&fragment, &Want::default(), Options::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("bundle p.v1.0.0 needs \"oci:///tmp/p\""),
        "{error}"
    );
}

#[test]
fn what_bundles_require_is_there_or_named() {
    let with = |name: &str, version: &str, properties: &str| {
        let text = format!(
            r#"{{"schema":"olm.package","name":"{name}","defaultChannel":"c"}}
            {{"schema":"olm.channel","package":"{name}","name":"c","entries":[{{"name":"{name}.v{version}"}}]}}
            {{"schema":"olm.bundle","package":"{name}","name":"{name}.v{version}","image":"i","properties":[
                {{"type":"olm.package","value":{{"packageName":"{name}","version":"{version}"}}}}{properties}]}}"#
        );
        Fragment::parse(name, text.as_bytes()).unwrap()
    };
    let asks = with(
        "asks",
        "1.0.0",
        r#",{"type":"olm.package.required","value":{"packageName":"gives","versionRange":">=2.0.0 <3.0.0"}},
           {"type":"olm.gvk.required","value":{"group":"g.io","kind":"Thing","version":"v1"}},
           {"type":"olm.constraint","value":{"failureMessage":"x"}}"#,
    );
    let thing = r#",{"type":"olm.gvk","value":{"group":"g.io","kind":"Thing","version":"v1"}}"#;
    let texts = |fragments: &[&Fragment]| -> Vec<String> {
        unmet(fragments.iter().copied())
            .unwrap()
            .iter()
            .map(Unmet::to_string)
            .collect()
    };
    assert_eq!(
        texts(&[&asks, &with("give", "2.1.0", "")]),
        [
            "package gives >=2.0.0 <3.0.0 is not selected, but required by asks.v1.0.0 (package asks)",
            "API Thing of g.io/v1 is not selected, but required by asks.v1.0.0 (package asks)",
        ]
    );
    assert_eq!(
        unmet([&asks, &with("give", "2.1.0", "")]).unwrap()[0].near,
        ["give"]
    );
    assert_eq!(
        texts(&[&asks, &with("gives", "1.9.0", thing)]),
        [
            "package gives >=2.0.0 <3.0.0 is not selected, but required by asks.v1.0.0 (package asks); selected are only 1.9.0"
        ]
    );
    let hint = |fragments: &[&Fragment]| unmet(fragments.iter().copied()).unwrap()[0].hint();
    assert_eq!(hint(&[&asks]).unwrap(), "add package gives");
    assert_eq!(
        hint(&[&asks, &with("gives", "1.9.0", thing)]).unwrap(),
        "select a version >=2.0.0 <3.0.0 of package gives"
    );
    let gives = with("gives", "2.1.0", thing);
    assert_eq!(
        texts(&[&asks, &gives]),
        Vec::<String>::new(),
        "both are there"
    );
    for (requirement, expected) in [
        (
            Requirement::Package {
                name: "gives".into(),
                range: ">=2.0.0".into(),
            },
            true,
        ),
        (
            Requirement::Package {
                name: "gives".into(),
                range: ">2.1.0".into(),
            },
            false,
        ),
        (
            Requirement::Package {
                name: "other".into(),
                range: String::new(),
            },
            false,
        ),
        (
            Requirement::Api {
                group: "g.io".into(),
                version: "v1".into(),
                kind: "Thing".into(),
            },
            true,
        ),
        (
            Requirement::Api {
                group: "g.io".into(),
                version: "v2".into(),
                kind: "Thing".into(),
            },
            false,
        ),
    ] {
        let found = satisfying(&gives, &requirement).unwrap();
        let expected = expected.then(|| ("gives.v2.1.0".to_owned(), "c".to_owned()));
        assert_eq!(found, expected, "{requirement}");
    }
    let wrong = with(
        "asks",
        "1.0.0",
        r#",{"type":"olm.package.required","value":{"packageName":"x","versionRange":"~> 1"}}"#,
    );
    assert!(
        unmet([&wrong])
            .unwrap_err()
            .to_string()
            .contains("olm.package.required"),
        "a range that is none is an error"
    );
}

#[test]
fn public_catalogs_are_valid_and_every_selection_of_them_is() {
    let Some(root) = public("") else { return };
    let (mut packages, mut selections, mut refused, mut flawed) = (0, 0, BTreeMap::new(), 0);
    for path in files(&root) {
        let read = catalog(&[("c", &fs::read(&path).unwrap())]).unwrap();
        for name in read.packages() {
            let fragment = read.fragment(name).unwrap().unwrap();
            let flaws = validate(&fragment).unwrap();
            packages += 1;
            if !flaws.is_empty() {
                flawed += 1;
                println!(
                    "{name} in {}: {}",
                    path.strip_prefix(&root).unwrap().display(),
                    list(&flaws)
                );
                continue;
            }
            let model = Model::read(&fragment).unwrap();
            let mut versions: Vec<Version> = model.versions.values().flatten().cloned().collect();
            versions.sort();
            let middle = versions[versions.len() / 2].to_string();
            for want in [
                "{}".to_owned(),
                r#"{"full":true}"#.to_owned(),
                format!(r#"{{"min":"{middle}"}}"#),
                format!(r#"{{"max":"{middle}"}}"#),
            ] {
                for selection in Selection::ALL {
                    match select(&fragment, &wanted(&want), options(selection)) {
                        Ok(selected) => {
                            selections += 1;
                            assert_eq!(
                                validate(&selected.fragment).unwrap(),
                                [],
                                "{name} {want} {selection}"
                            );
                            let again =
                                select(&selected.fragment, &wanted(&want), options(selection))
                                    .unwrap();
                            assert_eq!(
                                again.fragment, selected.fragment,
                                "{name} {want} {selection}"
                            );
                        }
                        Err(error) => {
                            *refused.entry(selection).or_insert(0) += 1;
                            if !matches!(
                                error,
                                SelectError::Empty { .. } | SelectError::DefaultChannel { .. }
                            ) {
                                println!("{name} {want} {selection}: {error} ({:?})", error.hint());
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{packages} packages ({flawed} flawed), {selections} selections, refused {refused:?}");
    assert!(
        packages >= 60 && selections > 500,
        "{packages} packages, {selections} selections"
    );
}

/// An entry, what it replaces, what it skips.
type Row = (usize, Option<usize>, Vec<usize>);

/// Entries at random: mostly a chain, with jumps, skips, ghosts and pre-releases.
fn any_channels() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let entry = |at: usize| {
        (
            Just(at),
            prop_oneof![
                8 => Just(at.checked_sub(1)),
                1 => Just(at.checked_sub(2)),
                1 => Just(None),
                1 => prop::option::of(0..14usize),
            ],
            prop_oneof![
                6 => Just(Vec::new()),
                2 => Just(at.checked_sub(1).into_iter().collect::<Vec<_>>()),
                2 => prop::collection::vec(0..14usize, 0..4),
            ],
        )
    };
    let channel = (0..4usize, 1..9usize)
        .prop_flat_map(move |(from, length)| (from..from + length).map(entry).collect::<Vec<_>>());
    prop::collection::vec(channel, 1..4)
}

fn version_of(at: usize) -> String {
    // Every third is a re-spin.
    if at % 3 == 2 {
        format!("1.{}.0-{at}", at / 2)
    } else {
        format!("1.{}.{}", at / 2, at % 2)
    }
}

fn built(channels: &[Vec<Row>]) -> Fragment {
    let mut texts = vec![String::new(); channels.len()];
    for (text, entries) in texts.iter_mut().zip(channels) {
        for (at, replaces, skips) in entries {
            let skips: Vec<String> = skips.iter().map(|skip| version_of(*skip)).collect();
            let replaces = replaces.map(version_of).unwrap_or_default();
            writeln!(
                text,
                "{} < {replaces} | {}",
                version_of(*at),
                skips.join(",")
            )
            .unwrap();
        }
    }
    let names = ["a", "b", "c"];
    let pairs: Vec<(&str, &str)> = names
        .iter()
        .copied()
        .zip(texts.iter().map(String::as_str))
        .collect();
    package("a", &pairs)
}

fn any_want() -> impl Strategy<Value = Want> {
    let bound = || prop::option::of((0..14usize).prop_map(version_of));
    let range = prop_oneof![Just((None, None)), (bound(), bound())];
    (
        prop::bool::weighted(0.1),
        range,
        prop::collection::btree_map(
            prop::sample::select(vec!["a", "b", "c"]),
            (bound(), bound()),
            0..3,
        ),
        prop::collection::vec(
            (0..14usize).prop_map(|at| format!("p.v{}", version_of(at))),
            0..3,
        ),
        prop::option::of(prop::sample::select(vec!["a".to_owned(), "b".to_owned()])),
        0..3u8,
    )
        .prop_map(
            |(full, (min, max), channels, bundles, default_channel, which)| Want {
                full,
                default_channel,
                min: min.filter(|_| which == 0),
                max: max.filter(|_| which == 0),
                channels: channels
                    .into_iter()
                    .filter(|_| which == 1)
                    .map(|(name, (min, max))| WantChannel {
                        name: name.to_owned(),
                        min,
                        max,
                        min_bundle: None,
                    })
                    .collect(),
                bundles: if which == 2 { bundles } else { Vec::new() },
                ..Want::default()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_is_selected_is_a_package_that_a_cluster_takes(
        channels in any_channels(), want in any_want(), selection in prop::sample::select(Selection::ALL.to_vec())
    ) {
        let fragment = built(&channels);
        match select(&fragment, &want, options(selection)) {
            Ok(selected) => {
                let back = Fragment::parse("p", &selected.fragment.to_bytes()).unwrap();
                prop_assert_eq!(&back, &selected.fragment, "it reads back");
                prop_assert_eq!(validate(&back).unwrap(), Vec::<Flaw>::new());
                for channel in back.channels().unwrap() {
                    // Counted here once more, the simple way.
                    let heads = channel.entries.iter().filter(|entry| {
                        !channel.entries.iter().any(|other| other.replaces == entry.name || other.skips.contains(&entry.name))
                    });
                    prop_assert_eq!(heads.count(), 1, "one head in {}", channel.name);
                }
                prop_assert!(!selected.bundles.is_empty(), "something is selected");
                let emptied = selected.notes.iter().any(|note| matches!(note, Note::Emptied { .. }));
                if !emptied || want.channels.is_empty() {
                    let again = select(&selected.fragment, &want, options(selection));
                    match again {
                        Ok(again) => prop_assert_eq!(again.fragment, selected.fragment, "twice is once"),
                        // A default channel that is not there any more cannot be looked for again.
                        Err(error) => prop_assert!(false, "twice is refused: {}", error),
                    }
                }
            }
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                if let SelectError::Invalid { flaws, broken, .. } = &error {
                    prop_assert!(!flaws.is_empty());
                    if validate(&fragment).unwrap().is_empty() {
                        prop_assert!(!broken, "a good catalog is not blamed: {}", error);
                    }
                }
            }
        }
    }

    #[test]
    fn a_channel_that_is_valid_gives_its_head_and_its_whole(channels in any_channels()) {
        let fragment = built(&channels);
        if validate(&fragment).unwrap().is_empty() {
            for selection in Selection::ALL {
                prop_assert!(select(&fragment, &Want::default(), options(selection)).is_ok());
                let full = Want { full: true, ..Want::default() };
                prop_assert_eq!(&select(&fragment, &full, options(selection)).unwrap().fragment, &fragment);
                let from = Want { min: Some("0.0.1-0".to_owned()), max: Some("99.0.0".to_owned()), ..Want::default() };
                prop_assert!(select(&fragment, &from, options(selection)).is_ok());
            }
        }
    }

    #[test]
    fn adding_a_package_never_changes_another(channels in any_channels(), other in any_channels(), want in any_want()) {
        let one = built(&channels).to_bytes();
        let two = String::from_utf8(built(&other).to_bytes()).unwrap()
            .replace("\"package\":\"p\"", "\"package\":\"q\"")
            .replace("\"name\":\"p\"", "\"name\":\"q\"");
        let alone = catalog(&[("x", &one)]).unwrap().fragment("p").unwrap().unwrap();
        let mixed: Vec<u8> = [two.as_bytes(), &one].concat();
        let beside = catalog(&[("x", &mixed)]).unwrap().fragment("p").unwrap().unwrap();
        prop_assert_eq!(alone.digest(), beside.digest());
        let left = select(&alone, &want, Options::default());
        let right = select(&beside, &want, Options::default());
        prop_assert_eq!(format!("{left:?}"), format!("{right:?}"));
    }
}
