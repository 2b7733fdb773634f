//! Tests of diff: what people and machines read, as files.
//!
//! The files in `tests/data/lock` are written anew when `IMGBUILD_BLESS` is set; review them like code.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::plan::any::{any_lock, edited};
use crate::plan::lock::{Blocked, ChartSource, File, NewBlock, Risk, Skip};
use crate::plan::text::parse;

const SAMPLE: &str = include_str!("../../tests/data/lock/sample.lock.toml");
#[path = "../../tests/site/schema.rs"]
mod schema;

use schema::follows;

const SCHEMA: &str = include_str!("../../tests/data/lock/diff.schema.json");

fn sample() -> Lock {
    parse(SAMPLE, "sample").unwrap()
}

/// The sample after a week in which a bit of everything happened.
fn later() -> Lock {
    let mut lock = sample();
    lock.rules
        .insert("release".to_owned(), Digest::of(b"a newer rule"));
    let release = &mut lock.releases[0];
    let mut payload = release.payloads[1].clone();
    payload.version = "4.16.14".to_owned();
    payload.pin.digest = Digest::of(b"4.16.14");
    payload.components[2].pin.digest = Digest::of(b"etcd");
    release.payloads.push(payload);
    release.payloads.remove(0);
    release.want = Want::new([
        ("min", Value::from("4.16.10")),
        ("max", Value::from("4.16.14")),
    ]);
    release.risks.push(Risk {
        name: "SlowBoot".to_owned(),
        url: "https://example.test/slow".to_owned(),
    });

    let catalog = &mut lock.catalogs[0];
    catalog.pin.digest = Digest::of(b"a newer catalog");
    let odf = &mut catalog.packages[1];
    odf.fbc = Digest::of(b"a newer fragment");
    odf.bundles[0].channels.push("stable-4.17".to_owned());
    let mut bundle = odf.bundles[1].clone();
    bundle.name = "odf-operator.v4.16.10-rhodf".to_owned();
    bundle.pin.digest = Digest::of(b"a newer bundle");
    odf.bundles.push(bundle);
    odf.images.remove(0);
    let mut package = catalog.packages[1].clone();
    package.name = "odf-multicluster-orchestrator".to_owned();
    package.want = Some(Want::new([("required", Value::Bool(true))]));
    catalog.packages.push(package);

    lock.images[0].pin.digest = Digest::of(b"a newer ubi");
    if let ChartSource::File { file, .. } = &mut lock.charts[0].source {
        file.digest = Digest::of(b"a newer chart");
    }
    lock.charts[0].images[0].tag = Some("v1.9.1".parse().unwrap());
    let skip = lock.skips[0].key();
    assert!(lock.remove(&skip), "the sample has a skip");
    for block in [
        NewBlock::File(File {
            reference: "https://example.test/graph.tar.gz".to_owned(),
            want: Want::new([("rule", Value::from("graph-data"))]),
            file: Blob::of(b"graph"),
        }),
        NewBlock::Skip(Skip {
            image: "registry.example.invalid/a|b:1".to_owned(),
            reason: "<b>gone</b> | `x`".to_owned(),
        }),
        NewBlock::Blocked(Blocked {
            name: "alpine".to_owned(),
        }),
    ] {
        lock.put(block).unwrap();
    }
    lock
}

/// Every manifest, and two layers of one megabyte for each, one of which all share.
fn closure(lock: &Lock) -> Closure {
    let mut blobs = vec![Blob {
        digest: Digest::of(b"shared layer"),
        size: 1_000_000,
    }];
    for (_, pin) in lock.owners().flat_map(|(_, pins)| pins) {
        blobs.push(pin.blob());
        blobs.push(Blob {
            digest: Digest::of(pin.digest.as_bytes()),
            size: 1_000_000,
        });
    }
    Closure { blobs, absent: 0 }
}

fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/lock")
        .join(name);
    if std::env::var_os("IMGBUILD_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name} is what people read");
}

#[test]
fn a_diff_reads_as_its_files_say() {
    let diff = diff(&sample(), &later(), Some(&closure));
    golden("diff.txt", &diff.text());
    golden("diff.md", &diff.markdown());
    golden("diff.json", &diff.json());
}

#[test]
fn a_diff_back_reads_as_its_file_says() {
    let diff = diff(&later(), &sample(), None);
    golden("diff-back.txt", &diff.text());
}

#[test]
fn everything_is_new_against_an_empty_lock() {
    let diff = diff(&Lock::default(), &sample(), Some(&closure));
    golden("diff-new.txt", &diff.text());
}

#[test]
fn equal_locks_do_not_differ() {
    let mut commented = sample();
    let key = commented.images[0].key();
    commented.comments.insert(key, vec![" a note".to_owned()]);
    let diff = diff(&sample(), &commented, Some(&closure));
    assert!(diff.is_empty(), "a comment is not a difference");
    assert_eq!(diff.text(), "no differences\n", "and it says so");
    let json: Json = serde_json::from_str(&diff.json()).unwrap();
    assert_eq!(json["blocks"], Json::Array(Vec::new()), "to machines too");
}

#[test]
fn bytes_are_exact_or_unknown() {
    let unknown = |lock: &Lock| Closure {
        absent: 3,
        ..closure(lock)
    };
    for (closures, says) in [
        (
            Some(&unknown as Closures<'_>),
            "new blobs unknown (6 manifests absent)",
        ),
        (Some(&closure as Closures<'_>), "(manifests present: exact)"),
        (None, "new blobs unknown (28 manifests absent)"),
    ] {
        let text = diff(&sample(), &later(), closures).text();
        assert!(
            text.trim_end().ends_with(says),
            "expected {says:?} at the end of\n{text}"
        );
    }
}

#[test]
fn sizes_are_rounded_once() {
    for (count, text) in [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1049, "1.0 kB"),
        (1050, "1.1 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (6_800_000_000, "6.8 GB"),
        (u64::MAX, "18446.7 PB"),
    ] {
        assert_eq!(bytes(count), text, "{count} bytes");
    }
}

#[test]
fn the_schema_refuses_what_is_not_a_diff() {
    let schema: Json = serde_json::from_str(SCHEMA).unwrap();
    let good: Json = serde_json::from_str(&diff(&sample(), &later(), None).json()).unwrap();
    assert_eq!(follows(&schema, &good), Ok(()), "it is one");
    for (pointer, wrong) in [
        ("/version", Json::from(2)),
        ("/blocks/0/kind", Json::from("payload")),
        ("/blocks/1/added/0/size", Json::from("1")),
        ("/blocks/1/added/0/role", Json::from("fragment")),
        (
            "/blobs",
            serde_json::json!({"added": {"count": 1, "bytes": 2}}),
        ),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = wrong;
        assert!(follows(&schema, &bad).is_err(), "{pointer} is checked");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_diff_follows_the_schema_and_has_one_line_per_thing(
        before in any_lock(),
        choices in prop::collection::vec(any::<u8>(), 1..40),
        unrelated in prop::option::weighted(0.3, any_lock()),
    ) {
        let after = unrelated.unwrap_or_else(|| edited(&before, &choices));
        let schema: Json = serde_json::from_str(SCHEMA).unwrap();
        let found = diff(&before, &after, Some(&closure));
        let json: Json = serde_json::from_str(&found.json()).unwrap();
        prop_assert_eq!(follows(&schema, &json), Ok(()));
        prop_assert_eq!(found.is_empty(), found.blocks.is_empty());
        // Text and Markdown of anything can be made, and Markdown opens and closes what it folds.
        let _ = found.text();
        let markdown = found.markdown();
        prop_assert_eq!(
            markdown.matches("\n<details>\n").count(),
            markdown.matches("\n</details>\n").count()
        );
        let back = diff(&after, &before, None);
        prop_assert_eq!(
            (back.images.added, back.images.removed),
            (found.images.removed, found.images.added),
            "the way back is the same way"
        );
        prop_assert!(diff(&before, &before.canonical(), None).is_empty(), "nothing differs from itself");
    }
}
