//! Merging two locks that grew from a third: what git's merge driver runs.
//!
//! Three-way by block, then by line within a block. A line is one rule, one component, bundle or image of a list, a
//! `want`, or a pin; the lines of one pin (`image`, `tag`, `size`, …) are one, since they only mean something
//! together, and so are `fbc` and `from`. Where both sides changed the same line differently, the block is printed in
//! both versions between conflict markers, and everything else is merged. There is no other tie-break: neither side
//! is ever preferred for being newer.
//!
//! A merge that is clean here may still be stale (a package whose fragment is not in the catalog that the other side
//! chose): `lock --check` finds that, a text merge cannot.
//!
//! ```text
//! <<<<<<< ours
//! [[image]]
//! …
//! =======
//! [[image]]
//! …
//! >>>>>>> theirs
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::key::{BlockKey, bundle_order};
use super::lock::Lock;
use super::text::{Field, FieldValue, Part, head, parts, rule_line};

/// What became of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The file. Canonical if there are no conflicts, else with markers that
    /// [`parse_conflicted`](super::text::parse_conflicted) reads.
    pub text: String,
    /// The blocks that both sides changed differently, in the order of the file.
    pub conflicts: Vec<BlockKey>,
}

/// One of the locks has keys that are not known here, which a merge would lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a lock of revision {revision} cannot be merged: a newer imgbuild wrote it")]
pub struct Newer {
    /// The revision it has.
    pub revision: u32,
}

impl crate::hint::Hint for Newer {
    fn hint(&self) -> Option<String> {
        Some("upgrade imgbuild".to_owned())
    }
}

/// The order of keys within every kind of block.
const ORDER: [&str; 20] = [
    "channel",
    "ref",
    "name",
    "version",
    "arch",
    "want",
    "url",
    "file",
    "fbc",
    "from",
    "image",
    "tag",
    "size",
    "platforms",
    "signatures",
    "reason",
    "risks",
    "components",
    "bundles",
    "images",
];

/// Keys that only mean something together.
const TOGETHER: [&[&str]; 2] = [
    &[
        "name",
        "version",
        "url",
        "file",
        "image",
        "tag",
        "size",
        "platforms",
        "signatures",
    ],
    &["fbc", "from"],
];

/// What three versions of something become.
enum Outcome<T> {
    /// The sides agree, or only one changed it; `None` is its absence.
    Clean(Option<T>),
    /// Both changed it differently.
    Conflict,
}

fn pick<'a, T: PartialEq>(
    base: Option<&'a T>,
    ours: Option<&'a T>,
    theirs: Option<&'a T>,
) -> Outcome<&'a T> {
    if ours == theirs || theirs == base {
        Outcome::Clean(ours)
    } else if ours == base {
        Outcome::Clean(theirs)
    } else {
        Outcome::Conflict
    }
}

/// Merges `ours` and `theirs`, which both grew from `base`. With nothing in common, `base` is an empty lock.
///
/// # Errors
/// If one of them was written by a newer imgbuild.
pub fn merge(base: &Lock, ours: &Lock, theirs: &Lock) -> Result<Merged, Newer> {
    for lock in [base, ours, theirs] {
        if lock.is_newer() {
            return Err(Newer {
                revision: lock.revision.unwrap_or_default(),
            });
        }
    }
    let mut merged = Merged {
        text: head(
            ours.version.max(theirs.version),
            ours.revision.max(theirs.revision),
        ),
        conflicts: Vec::new(),
    };
    merged.rules(base, ours, theirs);
    let index = |lock: &Lock| -> BTreeMap<BlockKey, Part> {
        parts(&lock.canonical())
            .into_iter()
            .map(|part| (part.key.clone(), part))
            .collect()
    };
    let [base, ours, theirs] = [base, ours, theirs].map(index);
    let keys: BTreeSet<&BlockKey> = base
        .keys()
        .chain(ours.keys())
        .chain(theirs.keys())
        .collect();
    // Keys sort as blocks stand in the file: a release before its payloads, a catalog before its packages.
    let mut groups: Vec<Vec<&BlockKey>> = Vec::new();
    for key in keys {
        match groups.last_mut() {
            Some(group) if key.parent().as_ref() == group.first().copied() => group.push(key),
            _ => groups.push(vec![key]),
        }
    }
    for group in groups {
        let outcomes: Vec<(&BlockKey, Outcome<Part>)> = group
            .iter()
            .map(|key| (*key, part(base.get(key), ours.get(key), theirs.get(key))))
            .collect();
        let (head, head_outcome) = &outcomes[0];
        let is_torn = match head_outcome {
            Outcome::Clean(Some(_)) => false,
            Outcome::Clean(None) => outcomes
                .iter()
                .any(|(_, outcome)| !matches!(outcome, Outcome::Clean(None))),
            Outcome::Conflict => !ours.contains_key(head) || !theirs.contains_key(head),
        } || is_crossed(&group, &base, &ours, &theirs);
        if is_torn {
            // One side removed the whole, the other changed something in it. What stands in it cannot be printed
            // without it, so both versions are printed whole.
            let whole = |side: &BTreeMap<BlockKey, Part>| -> String {
                let parts: Vec<String> = group
                    .iter()
                    .filter_map(|key| side.get(key))
                    .map(written)
                    .collect();
                parts.join("\n")
            };
            merged.conflict(head, &whole(&ours), &whole(&theirs));
            continue;
        }
        for (key, outcome) in outcomes {
            match outcome {
                Outcome::Clean(None) => {}
                Outcome::Clean(Some(part)) => {
                    merged.text.push('\n');
                    part.write(&mut merged.text);
                }
                Outcome::Conflict => {
                    let side = |side: &BTreeMap<BlockKey, Part>| {
                        side.get(key).map(written).unwrap_or_default()
                    };
                    merged.conflict(key, &side(&ours), &side(&theirs));
                }
            }
        }
    }
    Ok(merged)
}

/// Whether one side asked something else of a release and the other changed what was found for it.
fn is_crossed(
    group: &[&BlockKey],
    base: &BTreeMap<BlockKey, Part>,
    ours: &BTreeMap<BlockKey, Part>,
    theirs: &BTreeMap<BlockKey, Part>,
) -> bool {
    let (Some((head, payloads)), true) = (
        group.split_first(),
        matches!(group.first(), Some(BlockKey::Release { .. })),
    ) else {
        return false;
    };
    let asks = |side: &BTreeMap<BlockKey, Part>| match (base.get(head), side.get(head)) {
        (Some(old), Some(new)) => old.fields != new.fields,
        _ => false,
    };
    let finds =
        |side: &BTreeMap<BlockKey, Part>| payloads.iter().any(|key| base.get(key) != side.get(key));
    let agree = group.iter().all(|key| ours.get(key) == theirs.get(key));
    !agree && (asks(ours) && finds(theirs) || asks(theirs) && finds(ours))
}

fn written(part: &Part) -> String {
    let mut text = String::new();
    part.write(&mut text);
    text
}

impl Merged {
    fn rules(&mut self, base: &Lock, ours: &Lock, theirs: &Lock) {
        let names: BTreeSet<&String> = ours.rules.keys().chain(theirs.rules.keys()).collect();
        let mut text = String::new();
        for name in names {
            let (mine, other) = (ours.rules.get(name), theirs.rules.get(name));
            let line = |digest| rule_line(name, digest);
            match pick(base.rules.get(name), mine, other) {
                Outcome::Clean(digest) => text.extend(digest.map(line)),
                Outcome::Conflict => {
                    let [mine, other] = [mine, other].map(|digest| digest.map(line));
                    text.push_str(&marked(
                        &mine.unwrap_or_default(),
                        &other.unwrap_or_default(),
                    ));
                    self.conflicts.push(BlockKey::Rule { name: name.clone() });
                }
            }
        }
        if !text.is_empty() {
            self.text.push_str("\n[rules]\n");
            self.text.push_str(&text);
        }
    }

    fn conflict(&mut self, key: &BlockKey, ours: &str, theirs: &str) {
        self.text.push('\n');
        self.text.push_str(&marked(ours, theirs));
        self.conflicts.push(key.clone());
    }
}

fn marked(ours: &str, theirs: &str) -> String {
    format!("<<<<<<< ours\n{ours}=======\n{theirs}>>>>>>> theirs\n")
}

fn part(base: Option<&Part>, ours: Option<&Part>, theirs: Option<&Part>) -> Outcome<Part> {
    match pick(base, ours, theirs) {
        Outcome::Clean(part) => Outcome::Clean(part.cloned()),
        Outcome::Conflict => match (ours, theirs) {
            (Some(ours), Some(theirs)) => match lines(base, ours, theirs) {
                Some(part) => Outcome::Clean(Some(part)),
                None => Outcome::Conflict,
            },
            _ => Outcome::Conflict,
        },
    }
}

/// Merges two versions of a block line by line; `None` if both changed the same line differently.
fn lines(base: Option<&Part>, ours: &Part, theirs: &Part) -> Option<Part> {
    let no_comments = Vec::new();
    let old_comments = base.map_or(&no_comments, |part| &part.comments);
    let Outcome::Clean(Some(comments)) = pick(
        Some(old_comments),
        Some(&ours.comments),
        Some(&theirs.comments),
    ) else {
        return None;
    };
    if let Some(base) = base {
        let single = |part: &Part| -> Vec<Field> {
            let lines = part.fields.iter();
            lines
                .filter(|field| matches!(field.value, FieldValue::Line(_)))
                .cloned()
                .collect()
        };
        let changed = |part: &Part| part.fields != base.fields;
        let asked_anew = |part: &Part| single(part) != single(base);
        if changed(ours)
            && changed(theirs)
            && ours.fields != theirs.fields
            && (asked_anew(ours) || asked_anew(theirs))
        {
            return None;
        }
    }
    let line = |part: Option<&Part>, key: &str| -> Option<String> {
        part?
            .fields
            .iter()
            .find(|field| field.key == key)
            .and_then(|field| match &field.value {
                FieldValue::Line(line) => Some(line.clone()),
                FieldValue::Items(_) => None,
            })
    };
    let items = |part: Option<&Part>, key: &str| -> BTreeMap<String, String> {
        part.and_then(|part| part.fields.iter().find(|field| field.key == key))
            .and_then(|field| match &field.value {
                FieldValue::Items(items) => Some(items.iter().cloned().collect()),
                FieldValue::Line(_) => None,
            })
            .unwrap_or_default()
    };
    let mut fields = Vec::new();
    for key in ORDER {
        let is_list = [ours, theirs].iter().any(|part| {
            part.fields
                .iter()
                .any(|field| field.key == key && matches!(field.value, FieldValue::Items(_)))
        });
        let value = if is_list {
            let [old, mine, other] = [base, Some(ours), Some(theirs)].map(|part| items(part, key));
            let names: BTreeSet<&String> = mine.keys().chain(other.keys()).collect();
            let mut merged = Vec::new();
            for name in names {
                match pick(old.get(name), mine.get(name), other.get(name)) {
                    Outcome::Clean(item) => {
                        merged.extend(item.map(|item| (name.clone(), item.clone())));
                    }
                    Outcome::Conflict => return None,
                }
            }
            if key == "bundles" {
                merged.sort_by(|(left, _), (right, _)| bundle_order(left, right));
            }
            Some(FieldValue::Items(merged))
        } else {
            let one = [key];
            let group: &[&str] = TOGETHER
                .into_iter()
                .find(|group| group.contains(&key))
                .unwrap_or(&one);
            let [old, mine, other] = [base, Some(ours), Some(theirs)]
                .map(|part| group.iter().map(|key| line(part, key)).collect::<Vec<_>>());
            let index = group
                .iter()
                .position(|other| *other == key)
                .expect("the group was chosen for having the key");
            match pick(base.map(|_| &old), Some(&mine), Some(&other)) {
                Outcome::Clean(chosen) => chosen
                    .and_then(|lines| lines[index].clone())
                    .map(FieldValue::Line),
                Outcome::Conflict => return None,
            }
        };
        fields.extend(value.map(|value| Field { key, value }));
    }
    Some(Part {
        key: ours.key.clone(),
        comments: comments.clone(),
        header: ours.header,
        fields,
    })
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
