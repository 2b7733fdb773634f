//! Tests of the lock's text: one form, one place for every error.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::plan::any::{any_image, any_lock, any_package};
use crate::plan::lock::NewBlock;

const SAMPLE: &str = include_str!("../../tests/data/lock/sample.lock.toml");

fn sample() -> Lock {
    parse(SAMPLE, "sample.lock.toml").unwrap()
}

#[test]
fn the_sample_is_a_fixed_point() {
    let lock = sample();
    assert_eq!(emit(&lock), SAMPLE, "emit must undo parse");
    assert_eq!(
        lock.digest(),
        Digest::of(SAMPLE.as_bytes()),
        "a lock's identity is that of its bytes"
    );
    assert_eq!(
        is_canonical(SAMPLE, &lock),
        Ok(()),
        "what emit writes is canonical"
    );
    let keys: Vec<String> = lock.blocks().map(|block| block.key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "release stable-4.16 amd64",
            "catalog registry.redhat.io/redhat/redhat-operator-index:v4.16",
            "package aws-load-balancer-operator in registry.redhat.io/redhat/redhat-operator-index:v4.16",
            "package odf-operator in registry.redhat.io/redhat/redhat-operator-index:v4.16",
            "image registry.redhat.io/ubi9/ubi:9.4 as base/ubi9:9.4",
            "chart https://sigstore.github.io/helm-charts#cosigned 0.1.23",
            "skip registry.example.invalid/withdrawn/agent:2.1",
        ],
        "every block has a name that people can read"
    );
    for block in lock.blocks() {
        let found = lock.find(&block.key()).map(|found| found.key());
        assert_eq!(found, Some(block.key()), "a key must find its block");
    }
}

#[test]
fn an_owners_comment_stays_with_its_block() {
    let text = SAMPLE
        .replace(
            "[[image]]\n",
            "#: pinned for site B\n#:  until CHG-7\n[[image]]\n",
        )
        .replace(
            "[[release.payload]]\nversion = \"4.16.12\"",
            "#: last of this line\n[[release.payload]]\nversion = \"4.16.12\"",
        );
    let mut lock = parse(&text, "a").unwrap();
    assert_eq!(emit(&lock), text, "comments must survive");
    let image = Image {
        pin: Pin {
            size: 1,
            ..lock.images[0].pin.clone()
        },
        ..lock.images[0].clone()
    };
    lock.put(NewBlock::Image(image)).unwrap();
    assert!(
        emit(&lock).contains("#:  until CHG-7\n[[image]]\n"),
        "a block that is resolved again keeps its comment"
    );
    let key = lock.images[0].key();
    assert!(lock.remove(&key), "the block was there");
    assert!(
        !emit(&lock).contains("CHG-7"),
        "a comment goes with its block"
    );
}

#[test]
fn what_is_not_canonical_is_named_by_its_first_line() {
    for (text, line, found) in [
        (
            SAMPLE.replace("size = 1485", "size = 1_485"),
            83,
            Some("size = 1_485"),
        ),
        (
            SAMPLE.replace('\n', "\r\n"),
            1,
            Some(
                "# imgbuild lockfile, written by `imgbuild lock`. Review it and merge it; do not edit it by hand.\r",
            ),
        ),
        (
            SAMPLE.replace("[[image]]\n", "# a note\n[[image]]\n"),
            79,
            Some("# a note"),
        ),
        (SAMPLE.trim_end().to_owned(), 99, None),
        (format!("{SAMPLE}\n"), 100, Some("")),
        (
            SAMPLE.replace("[[image]]\n", "[[image]] \n"),
            79,
            Some("[[image]] "),
        ),
    ] {
        let lock = parse(&text, "a").unwrap();
        let error = is_canonical(&text, &lock).unwrap_err();
        assert_eq!(
            (error.line, error.found.as_deref()),
            (line, found),
            "{error}"
        );
    }
}

#[test]
fn an_error_names_line_column_and_finding() {
    let pin = "ref = \"registry.redhat.io/ubi9/ubi:9.4\"";
    let block = &SAMPLE[SAMPLE.find("[[image]]").unwrap()..SAMPLE.find("[[chart]]").unwrap()];
    let package = "[[catalog.package]]\nname = \"odf-operator\"";
    for (change, text, at, says, hint) in [
        ("broken TOML", SAMPLE.replace("size = 1485", "size = "), "83:8", "this is not TOML", Some("imgbuild lock")),
        ("an open string", SAMPLE.replace("size = 1485", "size = \"1"), "83:10", "this is not TOML", None),
        ("a short digest", SAMPLE.replace("file = \"sha256:cc57", "file = \"sha256:cc5"), "90:8", "file is not a digest", None),
        ("a short digest in a pin", SAMPLE.replace("ubi@sha256:b7", "ubi@sha256:b"), "82:9", "image is not a pinned image", None),
        ("a tag instead of a pin", SAMPLE.replace("image = \"gcr.io/projectsigstore/cosigned@sha256:59f5eae64585bb2483b57c4618b144e92011ba0656565003a42db23f029f8bd5\"", "image = \"gcr.io/a/b:1\""), "93:13", "image is not a pinned image", None),
        ("a slip in a key", SAMPLE.replace("size = 1485", "siez = 1485"), "83:1", "unknown key \"siez\" in [[image]]", Some("did you mean \"size\"?")),
        ("a slip in an optional key", SAMPLE.replace("platforms = [\"linux/amd64\", \"linux/arm64\"]\n\n", "platform = [\"linux/amd64\"]\n\n"), "84:1", "unknown key \"platform\" in [[image]]", Some("did you mean \"platforms\"?")),
        ("an unknown key at the top", SAMPLE.replace("version = 1\n", "version = 1\nowner = 2\n"), "3:1", "unknown key \"owner\" in the lock", None),
        ("an unknown table", SAMPLE.replace("[[skip]]", "[[skips]]"), "96:3", "unknown key \"skips\" in the lock", Some("did you mean \"skip\"?")),
        ("an unknown key in a component", SAMPLE.replace("size = 1478 },", "size = 1478, sum = 1 },"), "22:185", "unknown key \"sum\" in a component", None),
        ("a missing key", SAMPLE.replace("size = 1485\n", ""), "79:1", "[[image]] has no size", None),
        ("no version", SAMPLE.replace("version = 1\n", ""), "1:1", "the lock has no version", None),
        ("a future version", SAMPLE.replace("version = 1\n", "version = 4\nnews = 1\n"), "2:11", "lock version 4; this imgbuild reads up to 1: upgrade imgbuild", None),
        ("a version that is no number", SAMPLE.replace("version = 1\n", "version = \"1\"\n"), "2:11", "version is a text: expected a whole number", None),
        ("a negative size", SAMPLE.replace("size = 1485", "size = -1"), "83:8", "size is -1: expected a whole number from 0", None),
        ("a size with a point", SAMPLE.replace("size = 1485", "size = 1.5"), "83:8", "size is a number with a point", None),
        ("an empty ref", SAMPLE.replace(pin, "ref = \"\""), "80:7", "ref is empty", None),
        ("a block of another type", SAMPLE.replace("[[image]]", "[image]"), "79:1", "image is a table: expected a list", None),
        ("a float in a want", SAMPLE.replace("min = \"4.16.1\"", "min = 4.16"), "66:44", "min is a number with a point", None),
        ("a platform", SAMPLE.replace("platforms = [\"linux/amd64\", \"linux/arm64\"]\n\n", "platforms = [\"linux\"]\n\n"), "84:14", "platforms is not a platform", None),
        ("a repeated block", format!("{SAMPLE}\n{block}"), "100:1", "image registry.redhat.io/ubi9/ubi:9.4 as base/ubi9:9.4 is there twice: first in line 79", None),
        ("a repeated package", SAMPLE.replace(package, "[[catalog.package]]\nname = \"aws-load-balancer-operator\""), "64:1", "is there twice: first in line 51", None),
        ("a repeated component", SAMPLE.replace("name = \"etcd\"", "name = \"hyperkube\""), "25:3", "components names hyperkube twice: first in line 24", None),
        ("a channel and a ref", SAMPLE.replace("arch = \"amd64\"\n", "arch = \"amd64\"\nref = \"a\"\n"), "11:1", "[[release]] has both channel and ref", None),
        ("a chart with neither", SAMPLE.replace("file = \"sha256:cc57fc1903e444cf6a726490b43b27ee9f87facc037f86872201847c565b45fb\"\n", ""), "86:1", "[[chart]] has no file or image", None),
        ("markers", SAMPLE.replace("size = 1485\n", "<<<<<<< ours\nsize = 1485\n=======\nsize = 1\n>>>>>>> theirs\n"), "83:1", "the lock has merge conflict markers", Some("imgbuild lock")),
    ] {
        let error = parse(&text, "prod.lock.toml").unwrap_err();
        let printed = error.to_string();
        assert!(
            printed.starts_with(&format!("prod.lock.toml:{at}: ")),
            "{change}: expected {at} in {printed}"
        );
        assert!(printed.contains(says), "{change}: expected {says:?} in {printed}");
        if let Some(hint) = hint {
            let given = error.hint().unwrap_or_default();
            assert!(given.contains(hint), "{change}: expected {hint:?} in {given:?}");
        }
        if let Some(source) = std::error::Error::source(&error) {
            assert!(
                !printed.contains(&source.to_string()),
                "{change}: the source must not be printed twice"
            );
        }
    }
}

#[test]
fn a_bottomless_value_is_refused() {
    for opening in ["[", "{ a = "] {
        let text = SAMPLE.replace(
            "want = { version",
            &format!("want = {}", opening.repeat(50_000)),
        );
        let error = parse(&text, "a").unwrap_err();
        assert_eq!(error.at.line, 88, "it ends in an error, not in a crash");
    }
}

#[test]
fn a_newer_revision_is_read_past_its_unknown_keys() {
    let text = SAMPLE
        .replace("version = 1\n", "version = 1\nrevision = 9\n")
        .replace("size = 1485", "size = 1485\nweight = 2")
        .replace("[[skip]]", "[[other]]");
    let lock = parse(&text, "a").unwrap();
    assert!(lock.is_newer(), "it must say that it cannot be rewritten");
    assert_eq!(
        is_canonical(&text, &lock),
        Ok(()),
        "its form is not ours to judge"
    );
    assert_eq!(
        (&lock.catalogs, &lock.images),
        (&sample().catalogs, &sample().images),
        "what is known is read"
    );
}

#[test]
fn a_file_with_conflict_markers_keeps_what_is_undisputed() {
    let odf = "fbc = \"sha256:e6c81c443861f76e856026113df21ff4f22580379bc4d108da7aa6f7046b96d6\"\n";
    let rule =
        "release = \"sha256:a4d451ec23463726f72c43d64c710968f6b602cd653b4de8adee1b556240a829\"\n";
    let mut other = odf.replace("e6c81c", "000000");
    let base = format!("||||||| base\n{}", odf.replace("e6c81c", "111111"));
    for base in ["", &base] {
        let text = SAMPLE
            .replace(odf, &format!("<<<<<<< ours\n{odf}{base}=======\n{other}>>>>>>> theirs\n"))
            .replace(rule, &format!("<<<<<<< ours\n{rule}=======\n>>>>>>> theirs\n"))
            .replace("[[skip]]\n", "<<<<<<< ours\n[[file]]\nref = \"a\"\nwant = {}\nfile = \"sha256:cc57fc1903e444cf6a726490b43b27ee9f87facc037f86872201847c565b45fb\"\nsize = 1\n\n=======\n>>>>>>> theirs\n#: kept\n[[skip]]\n");
        let read = parse_conflicted(&text, "a").unwrap();
        let disputed: Vec<String> = read.disputed.iter().map(ToString::to_string).collect();
        assert_eq!(
            disputed,
            [
                "rule release",
                "package odf-operator in registry.redhat.io/redhat/redhat-operator-index:v4.16",
                "file a"
            ],
            "only what the sides do not agree on is disputed"
        );
        let mut expected = sample();
        for key in &read.disputed {
            expected.remove(key);
        }
        expected
            .comments
            .insert(expected.skips[0].key(), vec![" kept".to_owned()]);
        assert_eq!(read.lock, expected, "every undisputed block is kept");
    }

    other.replace_range(0..3, "fbx");
    let text = SAMPLE.replace(
        odf,
        &format!("<<<<<<< ours\n{odf}=======\n{other}>>>>>>> theirs\n"),
    );
    let error = parse_conflicted(&text, "a").unwrap_err();
    assert_eq!(
        (error.at.line, error.at.column),
        (70, 1),
        "a line of a side is counted in the file: {error}"
    );
    let unlabelled = SAMPLE.replace(odf, &format!("<<<<<<<\n{odf}=======\n>>>>>>>\n"));
    let error = parse(&unlabelled, "a").unwrap_err();
    assert_eq!(
        (error.at.line, error.problem.as_ref()),
        (67, &Problem::Conflicted),
        "a marker needs no label"
    );
    for text in [
        "<<<<<<< a\n",
        "=======\n",
        ">>>>>>> a\n",
        "<<<<<<< a\n<<<<<<< b\n",
    ] {
        assert!(
            parse_conflicted(text, "a").is_err(),
            "unmatched markers in {text:?} are refused"
        );
    }
    assert_eq!(
        parse_conflicted(SAMPLE, "a").unwrap(),
        Conflicted {
            lock: sample(),
            disputed: Vec::new()
        },
        "without markers nothing is disputed"
    );
}

#[test]
fn a_disputed_catalog_keeps_its_undisputed_packages() {
    let text = SAMPLE.replace(
        "size = 1596\n",
        "<<<<<<< ours\nsize = 1596\n=======\nsize = 2\n>>>>>>> theirs\n",
    );
    let read = parse_conflicted(&text, "a").unwrap();
    assert_eq!(read.disputed, [sample().catalogs[0].key()], "the head is");
    assert_eq!(read.lock, sample(), "its packages are not");
}

#[test]
fn order_follows_versions_not_digits() {
    let sorted = [
        "4.9.0",
        "4.16.0-ec.1",
        "4.16.0-rc.2",
        "4.16.0-rc.10",
        "4.16.0-rc.x",
        "4.16.0",
        "4.16.0+a",
        "4.16.2",
        "v4.16.3",
        "4.16.10",
        "5",
        "10.0.0",
        "not-a-version",
    ];
    for pair in sorted.windows(2) {
        assert!(
            crate::plan::key::Version::of(pair[0]) < crate::plan::key::Version::of(pair[1]),
            "{} stands before {}",
            pair[0],
            pair[1]
        );
    }
    let bundles = [
        "b-operator.v0.9.4",
        "a-operator.v1.2.0",
        "x.y.v1.10.0-0.17",
        "a.v1.10.0",
        "plain",
    ];
    for pair in bundles.windows(2) {
        assert!(
            crate::plan::key::bundle_order(pair[0], pair[1]).is_lt(),
            "{} stands before {}",
            pair[0],
            pair[1]
        );
    }
}

#[test]
fn a_large_lock_is_a_fixed_point() {
    let mut lock = sample();
    let package = lock.catalogs[0].packages[0].clone();
    let pin = package.images[0].clone();
    lock.catalogs[0].packages = (0..500u32)
        .map(|number| Package {
            name: format!("package-{number}"),
            images: (0..100u32)
                .map(|image| Pin {
                    digest: Digest::of(&[number.to_be_bytes(), image.to_be_bytes()].concat()),
                    ..pin.clone()
                })
                .collect(),
            ..package.clone()
        })
        .collect();
    let text = emit(&lock);
    let read = parse(&text, "large").unwrap();
    assert_eq!(
        read.owners().map(|(_, pins)| pins.len()).sum::<usize>(),
        50_000 + 500 + 14 + 1 + 1 + 1,
        "no pin is lost"
    );
    assert!(emit(&read) == text, "emit must undo parse");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_lock_survives_writing(lock in any_lock()) {
        let text = emit(&lock);
        let read = match parse(&text, "random") {
            Ok(read) => read,
            Err(error) => return Err(TestCaseError::fail(format!("{error} in\n{text}"))),
        };
        prop_assert_eq!(&read, &lock.canonical(), "parse must undo emit of\n{}", text);
        prop_assert_eq!(emit(&read), text, "emit must undo parse");
    }

    #[test]
    fn the_order_of_the_input_does_not_show(lock in any_lock()) {
        let mut other = lock.clone();
        other.releases.reverse();
        for release in &mut other.releases {
            release.payloads.reverse();
            release.risks.reverse();
            for payload in &mut release.payloads {
                payload.components.reverse();
                payload.pin.signatures.reverse();
                payload.pin.platforms.reverse();
            }
        }
        other.catalogs.reverse();
        for catalog in &mut other.catalogs {
            catalog.packages.reverse();
            for package in &mut catalog.packages {
                package.bundles.reverse();
                package.images.reverse();
            }
        }
        other.images.reverse();
        other.charts.reverse();
        for chart in &mut other.charts {
            chart.images.reverse();
        }
        other.files.reverse();
        other.blocked.reverse();
        other.skips.reverse();
        prop_assert_eq!(emit(&other), emit(&lock), "only what is in a lock may show");
    }

    #[test]
    fn a_change_of_one_block_changes_no_line_of_another(lock in any_lock(), image in any_image(), package in any_package()) {
        let texts = |lock: &Lock| -> BTreeMap<BlockKey, String> {
            parts(&lock.canonical())
                .into_iter()
                .map(|part| {
                    let mut text = String::new();
                    part.write(&mut text);
                    (part.key, text)
                })
                .collect()
        };
        let mut changed = lock.clone();
        let mut touched = BTreeSet::from([image.key()]);
        changed.put(NewBlock::Image(image)).unwrap();
        if let Some(catalog) = lock.catalogs.first() {
            touched.insert(catalog.package_key(&package.name));
            changed.put(NewBlock::Package {
                catalog: catalog.reference.clone(),
                target: catalog.target().map(str::to_owned),
                package,
            }).unwrap();
        }
        let (before, after) = (texts(&lock), texts(&changed));
        for key in before.keys().chain(after.keys()) {
            if !touched.contains(key) {
                prop_assert_eq!(before.get(key), after.get(key), "{} was not touched", key);
            }
        }
        // What the file has is exactly the head and those blocks.
        let whole: usize = after.values().map(|text| text.len() + 1).sum();
        let head = emit(&Lock { rules: changed.rules.clone(), ..Lock::default() }).len();
        prop_assert_eq!(emit(&changed).len(), head + whole, "no line belongs to no block");
    }

    #[test]
    fn keys_sort_as_their_blocks_stand_in_the_file(lock in any_lock()) {
        let keys: Vec<BlockKey> = parts(&lock.canonical()).into_iter().map(|part| part.key).collect();
        let mut sorted = keys.clone();
        sorted.sort();
        prop_assert_eq!(keys, sorted, "the order of keys is the order of the file");
    }

    #[test]
    fn no_text_makes_the_reader_panic(cut in 0..SAMPLE.len(), with in "\\PC{0,3}", mut length in 0..60usize) {
        while !SAMPLE.is_char_boundary((cut + length).min(SAMPLE.len())) {
            length += 1;
        }
        let text = format!("{}{with}{}", &SAMPLE[..cut], &SAMPLE[(cut + length).min(SAMPLE.len())..]);
        if let Err(error) = parse(&text, "a") {
            let lines = text.lines().count().max(1);
            prop_assert!((1..=lines + 1).contains(&error.at.line), "{} lies in the file", error);
        }
    }
}
