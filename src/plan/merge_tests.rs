//! Tests of merging: against git, and by law.

use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::plan::any::{any_lock, edited as edited_at_random};
use crate::plan::lock::{NewBlock, Package};
use crate::plan::text::{emit, is_canonical, parse, parse_conflicted};

const SAMPLE: &str = include_str!("../../tests/data/lock/sample.lock.toml");

fn sample() -> Lock {
    parse(SAMPLE, "sample").unwrap()
}

/// What one branch does to a lock.
type Edit = fn(&mut Lock);

const EDITS: [(&str, Edit); 9] = [
    ("rule", |lock| {
        lock.rules
            .insert("helm-chart".to_owned(), Digest::of(b"rule"));
    }),
    ("payload", |lock| {
        let payload = &mut lock.releases[0].payloads[0];
        payload.components[2].pin.digest = Digest::of(b"etcd");
    }),
    ("release", |lock| {
        let mut payload = lock.releases[0].payloads[1].clone();
        payload.version = "4.16.14".to_owned();
        payload.pin.digest = Digest::of(b"4.16.14");
        lock.releases[0].payloads.push(payload);
    }),
    ("catalog", |lock| {
        lock.catalogs[0].pin.digest = Digest::of(b"catalog");
    }),
    ("first package", |lock| {
        let package = &mut lock.catalogs[0].packages[0];
        package.fbc = Digest::of(b"fbc");
        package.images[0].digest = Digest::of(b"image");
    }),
    ("second package", |lock| {
        let package = &mut lock.catalogs[0].packages[1];
        package.bundles.remove(0);
        package.images.remove(1);
    }),
    ("image", |lock| {
        lock.images[0].pin.digest = Digest::of(b"ubi");
    }),
    ("chart", |lock| {
        let mut pin = lock.charts[0].images[0].clone();
        pin.digest = Digest::of(b"another");
        lock.charts[0].images.push(pin);
    }),
    ("skip", |lock| lock.skips.clear()),
];

fn edited(edits: &[Edit]) -> Lock {
    let mut lock = sample();
    for edit in edits {
        edit(&mut lock);
    }
    lock.canonical()
}

/// What git makes of three texts; `None` if it reports a conflict, or is not here.
fn git(base: &str, ours: &str, theirs: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("base", base), ("ours", ours), ("theirs", theirs)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let output = Command::new("git")
        .args(["merge-file", "-p", "ours", "base", "theirs"])
        .current_dir(folder.path())
        .output()
        .ok()?;
    (output.status.code() == Some(0)).then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn disjoint_edits_merge_as_git_merges_them() {
    if Command::new("git").arg("--version").output().is_err() {
        println!("skipped: git is not here");
        return;
    }
    let base = sample();
    for (index, (left, ours)) in EDITS.iter().enumerate() {
        for (right, theirs) in &EDITS[index + 1..] {
            let (mine, other) = (edited(&[*ours]), edited(&[*theirs]));
            let merged = merge(&base, &mine, &other).unwrap();
            assert_eq!(merged.conflicts, [], "{left} and {right} are disjoint");
            assert_eq!(
                merged.text,
                emit(&edited(&[*ours, *theirs])),
                "{left} and {right}: both edits, nothing else"
            );
            assert_eq!(
                git(SAMPLE, &emit(&mine), &emit(&other)),
                Some(merged.text),
                "{left} and {right}: git agrees"
            );
        }
    }
}

#[test]
fn packages_that_git_sees_in_one_gap_are_merged() {
    let add = |name: &str| {
        let mut lock = sample();
        let mut package = lock.catalogs[0].packages[0].clone();
        package.name = name.to_owned();
        package.fbc = Digest::of(name.as_bytes());
        lock.catalogs[0].packages.push(package);
        lock.canonical()
    };
    let (ours, theirs) = (add("b-operator"), add("c-operator"));
    assert_eq!(
        git(SAMPLE, &emit(&ours), &emit(&theirs)),
        None,
        "git alone cannot: that is what the driver is for"
    );
    let merged = merge(&sample(), &ours, &theirs).unwrap();
    assert_eq!(merged.conflicts, [], "they are two blocks");
    let lock = parse(&merged.text, "merged").unwrap();
    let names: Vec<&str> = lock.catalogs[0]
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "aws-load-balancer-operator",
            "b-operator",
            "c-operator",
            "odf-operator"
        ],
        "both are there, in order"
    );
}

#[test]
fn lines_of_one_block_are_merged_one_by_one() {
    let mut ours = sample();
    let mut theirs = sample();
    ours.catalogs[0].packages[1].bundles.remove(0);
    let package = &mut theirs.catalogs[0].packages[1];
    let mut bundle = package.bundles[1].clone();
    bundle.name = "odf-operator.v4.16.10-rhodf".to_owned();
    package.bundles.push(bundle);
    package.images.remove(0);
    let merged = merge(&sample(), &ours, &theirs).unwrap();
    assert_eq!(merged.conflicts, [], "no line was changed twice");
    let lock = parse(&merged.text, "merged").unwrap();
    let bundles: Vec<&str> = lock.catalogs[0].packages[1]
        .bundles
        .iter()
        .map(|bundle| bundle.name.as_str())
        .collect();
    assert_eq!(
        bundles,
        ["odf-operator.v4.16.3-rhodf", "odf-operator.v4.16.10-rhodf"],
        "one went, one came, and versions are in order"
    );
    assert_eq!(is_canonical(&merged.text, &lock), Ok(()), "ready to commit");
}

#[test]
fn two_answers_to_one_question_are_a_conflict_in_that_block_alone() {
    let pin = |seed: &[u8]| {
        let mut lock = sample();
        lock.images[0].pin.digest = Digest::of(seed);
        lock
    };
    let mut ours = pin(b"one");
    EDITS[0].1(&mut ours);
    let theirs = pin(b"two");
    let merged = merge(&sample(), &ours, &theirs).unwrap();
    assert_eq!(merged.conflicts, [sample().images[0].key()], "that block");
    assert_eq!(
        merged.text.matches("<<<<<<< ours\n[[image]]\n").count(),
        1,
        "both versions are printed:\n{}",
        merged.text
    );
    assert_eq!(merged.text.matches("[[image]]").count(), 2, "both versions");
    let read = parse_conflicted(&merged.text, "merged").unwrap();
    assert_eq!(
        read.disputed, merged.conflicts,
        "what is written as a conflict is read as one"
    );
    let mut expected = ours.clone();
    expected.images.clear();
    assert_eq!(read.lock, expected, "everything else is merged");
    let error = parse(&merged.text, "merged").unwrap_err();
    assert!(
        error.to_string().contains("merge conflict markers"),
        "{error}"
    );
}

#[test]
fn every_kind_of_conflict_is_found() {
    fn package(lock: &mut Lock) -> &mut Package {
        &mut lock.catalogs[0].packages[1]
    }
    let odf = sample().catalogs[0].package_key("odf-operator");
    let payload = sample().releases[0].payload_key(&sample().releases[0].payloads[0]);
    let cases: [(&str, Edit, Edit, BlockKey); 10] = [
        (
            "a rule",
            |lock| {
                lock.rules.insert("release".to_owned(), Digest::of(b"1"));
            },
            |lock| {
                lock.rules.remove("release");
            },
            BlockKey::Rule {
                name: "release".to_owned(),
            },
        ),
        (
            "a fragment",
            |lock| package(lock).fbc = Digest::of(b"1"),
            |lock| package(lock).from = None,
            odf.clone(),
        ),
        (
            "a size and an image are one line",
            |lock| lock.catalogs[0].pin.digest = Digest::of(b"1"),
            |lock| lock.catalogs[0].pin.size = 7,
            sample().catalogs[0].key(),
        ),
        (
            "a line of a list",
            |lock| package(lock).images[0].size = 1,
            |lock| package(lock).images[0].size = 2,
            odf.clone(),
        ),
        (
            "a wish of one beside what the other found",
            |lock| package(lock).want = None,
            |lock| {
                package(lock).bundles.remove(0);
            },
            odf.clone(),
        ),
        (
            "a wish for a release beside a payload that the other found",
            |lock| lock.releases[0].want = crate::plan::lock::Want::default(),
            |lock| {
                lock.releases[0].payloads.remove(0);
            },
            sample().releases[0].key(),
        ),
        (
            "removed and changed",
            |lock| {
                lock.catalogs[0].packages.remove(1);
            },
            |lock| package(lock).images[0].size = 2,
            odf,
        ),
        (
            "a component",
            |lock| lock.releases[0].payloads[0].components[0].pin.size = 1,
            |lock| {
                lock.releases[0].payloads[0].components.remove(0);
            },
            payload,
        ),
        (
            "a catalog removed whole, a package in it changed",
            |lock| lock.catalogs.clear(),
            |lock| package(lock).images[0].size = 2,
            sample().catalogs[0].key(),
        ),
        (
            "a release removed whole, and changed",
            |lock| lock.releases[0].arch = "arm64".to_owned(),
            |lock| lock.releases[0].payloads[0].pin.size = 2,
            sample().releases[0].key(),
        ),
    ];
    for (name, ours, theirs, key) in cases {
        for (ours, theirs) in [(ours, theirs), (theirs, ours)] {
            let (ours, theirs) = (edited(&[ours]), edited(&[theirs]));
            let merged = merge(&sample(), &ours, &theirs).unwrap();
            assert_eq!(merged.conflicts, std::slice::from_ref(&key), "{name}");
            let read = parse_conflicted(&merged.text, "merged").unwrap();
            let disputed = key.parent().filter(|_| key.kind() == "payload");
            assert!(
                read.disputed.contains(&disputed.unwrap_or(key.clone())),
                "{name}: {:?} must be read as disputed",
                read.disputed
            );
        }
    }
}

#[test]
fn a_comment_is_merged_with_its_block() {
    let key = sample().images[0].key();
    let note = |text: &str| {
        let mut lock = sample();
        lock.comments.insert(key.clone(), vec![text.to_owned()]);
        lock
    };
    let mut theirs = sample();
    EDITS[6].1(&mut theirs);
    let merged = merge(&sample(), &note(" ours"), &theirs).unwrap();
    assert_eq!(merged.conflicts, [], "a comment and a pin are two lines");
    assert!(
        merged.text.contains("#: ours\n[[image]]\n"),
        "the comment is kept"
    );
    let merged = merge(&sample(), &note(" ours"), &note(" theirs")).unwrap();
    assert_eq!(
        merged.conflicts,
        std::slice::from_ref(&key),
        "two comments are not"
    );
}

#[test]
fn a_lock_of_a_newer_revision_is_not_merged() {
    let newer = Lock {
        revision: Some(crate::plan::lock::REVISION + 1),
        ..sample()
    };
    assert!(
        merge(&sample(), &newer, &sample()).is_err(),
        "its unknown keys would be lost"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn merging_keeps_its_laws(
        base in any_lock(),
        left in prop::collection::vec(any::<u8>(), 1..40),
        right in prop::collection::vec(any::<u8>(), 1..40),
        unrelated in prop::option::weighted(0.2, any_lock()),
    ) {
        let base = base.canonical();
        let ours = edited_at_random(&base, &left);
        let theirs = unrelated.map_or_else(|| edited_at_random(&base, &right), |lock| lock.canonical());
        let clean = |lock: &Lock| Merged { text: emit(lock), conflicts: Vec::new() };
        prop_assert_eq!(merge(&base, &ours, &base).unwrap(), clean(&ours), "only we changed it");
        prop_assert_eq!(merge(&base, &base, &theirs).unwrap(), clean(&theirs), "only they changed it");
        prop_assert_eq!(merge(&base, &ours, &ours).unwrap(), clean(&ours), "both did the same");
        let (one, two) = (merge(&base, &ours, &theirs).unwrap(), merge(&base, &theirs, &ours).unwrap());
        prop_assert_eq!(&one.conflicts, &two.conflicts, "neither side is preferred");
        if one.conflicts.is_empty() {
            prop_assert_eq!(&one.text, &two.text, "neither side is preferred");
            let lock = parse(&one.text, "merged");
            prop_assert!(lock.is_ok(), "a clean merge is a lock: {:?} in\n{}", lock, one.text);
            prop_assert_eq!(emit(&lock.unwrap()), one.text, "and canonical");
        } else {
            let read = parse_conflicted(&one.text, "merged");
            prop_assert!(read.is_ok(), "both sides are locks: {:?} in\n{}", read, one.text);
            let disputed = read.unwrap().disputed;
            for key in &one.conflicts {
                let key = if key.kind() == "payload" { key.parent().unwrap() } else { key.clone() };
                prop_assert!(disputed.contains(&key), "{} is read as disputed", key);
            }
        }
    }

    #[test]
    fn edits_of_different_blocks_never_conflict(base in any_lock(), seed in any::<u8>()) {
        let mut ours = base.clone();
        let mut theirs = base.clone();
        for (index, image) in base.images.iter().enumerate() {
            let mut image = image.clone();
            image.pin.digest = Digest::of(&[seed, 1]);
            let side = if (usize::from(seed) >> index) & 1 == 0 { &mut ours } else { &mut theirs };
            side.put(NewBlock::Image(image)).unwrap();
        }
        let merged = merge(&base, &ours, &theirs).unwrap();
        prop_assert_eq!(merged.conflicts, Vec::new());
        let expected: Vec<Digest> = vec![Digest::of(&[seed, 1]); base.images.len()];
        let found: Vec<Digest> = parse(&merged.text, "merged").unwrap().images.iter().map(|image| image.pin.digest).collect();
        prop_assert_eq!(found, expected, "every edit is there");
    }
}
