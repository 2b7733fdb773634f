//! What is wrong with a lock, as far as the lock itself and its config tell.
//!
//! [`check`] needs no network, no store and no rules: it looks at the form, at names, at what was to be left out, and
//! at the tags that images would be published by, which the caller computes. [`wants`] compares the requests of the
//! lock with those of the config, [`unused`] finds decisions that no longer matter. A complaint is one sentence that
//! names its block.

use std::collections::{BTreeMap, BTreeSet};

use super::key::{BlockKey, Role};
use super::lock::{Block, Lock, Pin, Want};
use super::text::{NotCanonical, is_canonical};
use crate::canon::Value;
use crate::digest::Digest;
use crate::hint::Hint;

/// Something wrong with a lock.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Complaint {
    /// The file is not as imgbuild writes it.
    #[error("the file was edited by hand")]
    Form(#[source] NotCanonical),
    /// Two blocks have the same name.
    #[error("{key} is there twice")]
    Duplicate {
        /// The block.
        key: BlockKey,
    },
    /// An image that was to be left out is there.
    #[error("{request} leaves {image} out, but {block} has it")]
    Held {
        /// The skip or the blocked pattern.
        request: BlockKey,
        /// The image.
        image: String,
        /// The block that has it.
        block: BlockKey,
    },
    /// A blocked pattern is not a regular expression.
    #[error("{key} is not a regular expression")]
    Pattern {
        /// The blocked pattern.
        key: BlockKey,
        /// What is wrong with it.
        source: regex::Error,
    },
    /// Two images would be published by the same tag.
    #[error("{path}:{tag} would stand for {}", listed(claims))]
    Tag {
        /// The repository at the destination.
        path: String,
        /// The tag there.
        tag: String,
        /// Each digest, with the first block that claims the tag for it.
        claims: Vec<(Digest, BlockKey)>,
    },
    /// The config asks for something that the lock does not have.
    #[error("{key} is asked for, but it is not in the lock")]
    Missing {
        /// The block.
        key: BlockKey,
    },
    /// The lock has something that the config does not ask for.
    #[error("{key} is in the lock, but nothing asks for it")]
    Orphan {
        /// The block.
        key: BlockKey,
    },
    /// The lock answers another request than the one that is made.
    #[error("{key} answers another request: {} changed", names.join(", "))]
    Changed {
        /// The block.
        key: BlockKey,
        /// The keys of the want that differ.
        names: Vec<String>,
    },
    /// A decision that no longer matches anything.
    #[error("{key} matches nothing any more")]
    Unused {
        /// The skip or the blocked pattern.
        key: BlockKey,
    },
}

fn listed(claims: &[(Digest, BlockKey)]) -> String {
    claims
        .iter()
        .map(|(digest, key)| format!("{digest} ({key})"))
        .collect::<Vec<_>>()
        .join(" and ")
}

impl Hint for Complaint {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Form(form) => form.hint(),
            Self::Missing { .. } | Self::Orphan { .. } | Self::Changed { .. } => {
                Some("run `imgbuild lock`".to_owned())
            }
            Self::Tag { .. } => Some("give one of them another target name or tag".to_owned()),
            Self::Unused { .. } => Some("run `imgbuild lock`, which drops it".to_owned()),
            Self::Held { .. } => {
                Some("run `imgbuild lock`, which derives the block again".to_owned())
            }
            Self::Duplicate { .. } | Self::Pattern { .. } => None,
        }
    }
}

/// Says which repository and tag an image of a block is published by; `None` where it is published by digest alone.
pub type Placement<'a> = &'a dyn Fn(&BlockKey, Role<'_>, &Pin) -> Option<(String, String)>;

/// What is wrong with `lock`, which was read from `text`: its form, names that occur twice, images that were to be
/// left out, and tags that would stand for two digests.
#[must_use]
pub fn check(lock: &Lock, text: &str, placement: Placement<'_>) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    if let Err(form) = is_canonical(text, lock) {
        complaints.push(Complaint::Form(form));
    }
    duplicates(lock, &mut complaints);
    held(lock, &mut complaints);
    tags(lock, placement, &mut complaints);
    complaints
}

fn duplicates(lock: &Lock, complaints: &mut Vec<Complaint>) {
    let payloads = lock.releases.iter().flat_map(|release| {
        release
            .payloads
            .iter()
            .map(|payload| release.payload_key(payload))
    });
    let mut seen = BTreeMap::new();
    for key in lock.blocks().map(|block| block.key()).chain(payloads) {
        *seen.entry(key).or_insert(0) += 1;
    }
    for (key, count) in seen {
        if count > 1 {
            complaints.push(Complaint::Duplicate { key });
        }
    }
}

/// The names that an image of a block has, as a skip or a blocked pattern may write them.
fn names(block: &Block<'_>, role: Role<'_>, pin: &Pin) -> Vec<String> {
    let mut names = vec![pin.image()];
    if let Some(tag) = &pin.tag {
        names.push(format!("{}:{tag}", pin.origin));
    }
    let own = match (block, role) {
        (Block::Release(release), Role::Payload { .. }) => match &release.name {
            super::key::ReleaseName::Reference(reference) => Some(reference),
            super::key::ReleaseName::Channel(_) => None,
        },
        (Block::Catalog(catalog), _) => Some(&catalog.reference),
        (Block::Image(image), _) => Some(&image.reference),
        (Block::Chart(chart), Role::Chart) => Some(&chart.reference),
        _ => None,
    };
    names.extend(own.map(|name| name.strip_prefix("docker://").unwrap_or(name).to_owned()));
    names
}

fn held(lock: &Lock, complaints: &mut Vec<Complaint>) {
    let skips: BTreeMap<&str, BlockKey> = lock
        .skips
        .iter()
        .map(|skip| {
            let image = skip.image.strip_prefix("docker://").unwrap_or(&skip.image);
            (image, skip.key())
        })
        .collect();
    let mut patterns = Vec::new();
    for blocked in &lock.blocked {
        match regex::Regex::new(&blocked.name) {
            Ok(pattern) => patterns.push((pattern, blocked.key())),
            Err(source) => complaints.push(Complaint::Pattern {
                key: blocked.key(),
                source,
            }),
        }
    }
    if skips.is_empty() && patterns.is_empty() {
        return;
    }
    for block in lock.blocks() {
        for (role, pin) in block.pins() {
            for image in names(&block, role, pin) {
                let requests = skips.get(image.as_str()).into_iter().chain(
                    patterns
                        .iter()
                        .filter(|(pattern, _)| pattern.is_match(&image))
                        .map(|(_, key)| key),
                );
                for request in requests {
                    complaints.push(Complaint::Held {
                        request: request.clone(),
                        image: image.clone(),
                        block: block.key(),
                    });
                }
            }
        }
    }
}

fn tags(lock: &Lock, placement: Placement<'_>, complaints: &mut Vec<Complaint>) {
    let mut claims: BTreeMap<(String, String), BTreeMap<Digest, BlockKey>> = BTreeMap::new();
    for (key, pins) in lock.owners() {
        for (role, pin) in pins {
            if let Some(name) = placement(&key, role, pin) {
                claims
                    .entry(name)
                    .or_default()
                    .entry(pin.digest)
                    .or_insert_with(|| key.clone());
            }
        }
    }
    for ((path, tag), claims) in claims {
        if claims.len() > 1 {
            complaints.push(Complaint::Tag {
                path,
                tag,
                claims: claims.into_iter().collect(),
            });
        }
    }
}

/// Where the requests of `lock` and those that are made differ, in the order of the file.
///
/// `expected` has every request: releases, catalogs, packages that are named, images, charts, files, and what rules
/// ask for, each with its want; blocked patterns with an empty one. Packages that nobody named alone (those of a
/// catalog that is wanted whole, and those that others require) are judged by their catalog. Skips are decisions of
/// the lock, not requests: see [`unused`].
#[must_use]
pub fn wants(lock: &Lock, expected: &BTreeMap<BlockKey, Want>) -> Vec<Complaint> {
    let nothing = Want::default();
    let mut found: BTreeMap<BlockKey, (Option<&Want>, bool)> = BTreeMap::new();
    for block in lock.blocks() {
        let key = block.key();
        let named = match block {
            Block::Skip(_) => continue,
            Block::Package(..) => block
                .want()
                .is_some_and(|want| want.get("required") != Some(&Value::Bool(true))),
            Block::Blocked(_) => {
                found.insert(key, (Some(&nothing), true));
                continue;
            }
            _ => true,
        };
        found.insert(key, (block.want(), named));
    }
    let mut complaints = BTreeMap::new();
    for (key, want) in expected {
        let complaint = match found.get(key) {
            None => Complaint::Missing { key: key.clone() },
            Some((Some(have), _)) => {
                let names = have.differing(want);
                if names.is_empty() {
                    continue;
                }
                Complaint::Changed {
                    key: key.clone(),
                    names: names.into_iter().map(str::to_owned).collect(),
                }
            }
            // Locked as one of all packages, now asked for by name.
            Some((None, _)) => Complaint::Changed {
                key: key.clone(),
                names: if want.is_empty() {
                    vec!["want".to_owned()]
                } else {
                    want.settings().keys().cloned().collect()
                },
            },
        };
        complaints.insert(key.clone(), complaint);
    }
    for (key, (_, named)) in found {
        let asked = expected.contains_key(&key)
            || (!named
                && key
                    .parent()
                    .is_some_and(|parent| expected.contains_key(&parent)));
        if !asked {
            complaints.insert(key.clone(), Complaint::Orphan { key });
        }
    }
    complaints.into_values().collect()
}

/// The skips of `lock` that are not among `used`: the decisions that a resolution found nothing for.
#[must_use]
pub fn unused(lock: &Lock, used: &BTreeSet<BlockKey>) -> Vec<Complaint> {
    lock.skips
        .iter()
        .map(super::lock::Skip::key)
        .filter(|key| !used.contains(key))
        .map(|key| Complaint::Unused { key })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::lock::{Blocked, NewBlock, Skip};
    use crate::plan::text::{emit, parse};

    const SAMPLE: &str = include_str!("../../tests/data/lock/sample.lock.toml");

    fn sample() -> Lock {
        parse(SAMPLE, "sample").unwrap()
    }

    fn sentences(complaints: &[Complaint]) -> Vec<String> {
        complaints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_lock_as_imgbuild_writes_it_gives_no_complaint() {
        assert_eq!(
            check(&sample(), SAMPLE, &|_, _, _| None),
            [],
            "the sample is good"
        );
    }

    #[test]
    fn a_hand_edit_is_a_complaint() {
        let text = SAMPLE.replace("[[image]]", "# mine\n[[image]]");
        let complaints = check(&parse(&text, "a").unwrap(), &text, &|_, _, _| None);
        assert!(
            matches!(complaints.as_slice(), [Complaint::Form(form)] if form.line == 79),
            "{complaints:?}"
        );
    }

    #[test]
    fn one_tag_stands_for_one_digest() {
        let lock = sample();
        // By repository alone, as a careless layout would.
        let careless = |_: &BlockKey, role: Role<'_>, pin: &Pin| {
            matches!(role, Role::Payload { .. } | Role::Image).then(|| {
                (
                    pin.repository().unwrap().path().to_owned(),
                    "latest".to_owned(),
                )
            })
        };
        let complaints = check(&lock, SAMPLE, &careless);
        assert_eq!(
            sentences(&complaints),
            ["openshift-release-dev/ocp-release:latest would stand for \
                 sha256:b5030584d9a2455572cb7d3d89a76e9d27449482606421692330637748b4b54e (release stable-4.16 amd64) and \
                 sha256:f9ebdaec3784199a45501b50031560fe4a6ccf639f6bbedc32162cc414174316 (release stable-4.16 amd64)"],
            "two payloads, one tag"
        );
        let same = |_: &BlockKey, role: Role<'_>, _: &Pin| {
            matches!(role, Role::Component { name: "etcd", .. })
                .then(|| ("a".to_owned(), "etcd".to_owned()))
        };
        assert_eq!(
            check(&lock, SAMPLE, &same),
            [],
            "the same digest twice is one claim"
        );
    }

    #[test]
    fn what_is_left_out_must_not_be_there() {
        let mut lock = sample();
        for (image, reason) in [
            ("docker://registry.redhat.io/ubi9/ubi:9.4", "x"),
            ("gcr.io/projectsigstore/cosigned:v1.9.0", "y"),
        ] {
            lock.put(NewBlock::Skip(Skip {
                image: image.to_owned(),
                reason: reason.to_owned(),
            }))
            .unwrap();
        }
        for name in [
            "^registry.redhat.io/odf4/odf-console",
            "nothing-like-this",
            "(",
        ] {
            lock.put(NewBlock::Blocked(Blocked {
                name: name.to_owned(),
            }))
            .unwrap();
        }
        lock.sort();
        let found = sentences(&check(&lock, &emit(&lock), &|_, _, _| None));
        assert_eq!(
            found,
            [
                "blocked ( is not a regular expression",
                "blocked ^registry.redhat.io/odf4/odf-console leaves registry.redhat.io/odf4/odf-console-rhel9@sha256:e6040bfb9aebfcb1d4f5b80bb83cd9e373d69c32e04f3c278907d502f84c0120 out, but package odf-operator in registry.redhat.io/redhat/redhat-operator-index:v4.16 has it",
                "skip docker://registry.redhat.io/ubi9/ubi:9.4 leaves registry.redhat.io/ubi9/ubi:9.4 out, but image registry.redhat.io/ubi9/ubi:9.4 as base/ubi9:9.4 has it",
                "skip gcr.io/projectsigstore/cosigned:v1.9.0 leaves gcr.io/projectsigstore/cosigned:v1.9.0 out, but chart https://sigstore.github.io/helm-charts#cosigned 0.1.23 has it",
            ],
            "a skip or a pattern that is not honoured is named"
        );
    }

    #[test]
    fn a_block_that_is_there_twice_is_named() {
        let mut lock = sample();
        let image = lock.images[0].clone();
        lock.images.push(image);
        let payload = lock.releases[0].payloads[0].clone();
        lock.releases[0].payloads.push(payload);
        let text = emit(&lock);
        assert_eq!(
            sentences(&check(&lock, &text, &|_, _, _| None)),
            [
                "payload 4.16.10 in stable-4.16 amd64 is there twice",
                "image registry.redhat.io/ubi9/ubi:9.4 as base/ubi9:9.4 is there twice"
            ],
            "names are unique"
        );
    }

    #[test]
    fn requests_and_answers_are_compared_block_by_block() {
        let lock = sample();
        let mut expected: BTreeMap<BlockKey, Want> = lock
            .blocks()
            .filter_map(|block| Some((block.key(), block.want()?.clone())))
            .collect();
        assert_eq!(wants(&lock, &expected), [], "a lock answers its own wants");

        let release = lock.releases[0].key();
        expected.insert(
            release,
            Want::new([
                ("min", Value::from("4.16.10")),
                ("max", Value::from("4.16.14")),
                ("full", Value::Bool(true)),
                ("path", Value::from("shortest")),
            ]),
        );
        expected.remove(&lock.images[0].key());
        let file = BlockKey::File {
            reference: "https://example.test/a".to_owned(),
        };
        expected.insert(file, Want::default());
        expected.insert(
            BlockKey::Blocked {
                name: "alpine".to_owned(),
            },
            Want::default(),
        );
        assert_eq!(
            sentences(&wants(&lock, &expected)),
            [
                "release stable-4.16 amd64 answers another request: full, max changed",
                "image registry.redhat.io/ubi9/ubi:9.4 as base/ubi9:9.4 is in the lock, but nothing asks for it",
                "file https://example.test/a is asked for, but it is not in the lock",
                "blocked alpine is asked for, but it is not in the lock",
            ],
            "missing, orphaned and changed, in the order of the file"
        );
    }

    #[test]
    fn a_package_nobody_named_stands_with_its_catalog() {
        let mut lock = sample();
        lock.catalogs[0].packages[0].want = None;
        lock.catalogs[0].packages[1].want = Some(Want::new([("required", Value::Bool(true))]));
        let catalog = lock.catalogs[0].key();
        let mut expected: BTreeMap<BlockKey, Want> = lock
            .blocks()
            .filter(|block| !matches!(block, Block::Package(..)))
            .filter_map(|block| Some((block.key(), block.want()?.clone())))
            .collect();
        assert_eq!(
            wants(&lock, &expected),
            [],
            "the catalog's request covers them"
        );
        expected.remove(&catalog);
        assert_eq!(
            wants(&lock, &expected).len(),
            3,
            "without the catalog all three are orphans"
        );
        let named = lock.catalogs[0].package_key("aws-load-balancer-operator");
        expected.insert(catalog, lock.catalogs[0].want.clone());
        expected.insert(named.clone(), Want::default());
        assert_eq!(
            wants(&lock, &expected),
            [Complaint::Changed {
                key: named,
                names: vec!["want".to_owned()]
            }],
            "to be asked for by name is another request"
        );
    }

    #[test]
    fn a_skip_that_matched_nothing_is_named() {
        let lock = sample();
        let key = lock.skips[0].key();
        assert_eq!(
            unused(&lock, &BTreeSet::from([key.clone()])),
            [],
            "a used skip stays"
        );
        assert_eq!(
            unused(&lock, &BTreeSet::new()),
            [Complaint::Unused { key }],
            "an unused one is named"
        );
    }
}
