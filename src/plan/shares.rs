//! What parts of a lock cost: each alone, and what it adds to everything else.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Closure, Root};
use crate::store::Blob;

/// What the images of one owner cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The owner, as roots name it.
    pub owner: String,
    /// Bytes of everything that its images need.
    pub alone: u64,
    /// Those of them that nothing else in the lock needs: what would be saved without it.
    pub adds: u64,
}

/// The shares of those owners that `counts` names, in the order of their first image. A blob counts once.
#[must_use]
pub fn shares(images: &[(&Root, Closure)], counts: impl Fn(&str) -> bool) -> Vec<Share> {
    let mut order: Vec<&str> = Vec::new();
    let mut needs: BTreeMap<&str, BTreeSet<Blob>> = BTreeMap::new();
    for (root, content) in images {
        let owner = root.owner.as_str();
        if !needs.contains_key(owner) {
            order.push(owner);
        }
        needs.entry(owner).or_default().extend(content.sorted());
    }
    let mut users: BTreeMap<Blob, usize> = BTreeMap::new();
    for blobs in needs.values() {
        for blob in blobs {
            *users.entry(*blob).or_default() += 1;
        }
    }
    order
        .into_iter()
        .filter(|owner| counts(owner))
        .map(|owner| {
            let blobs = &needs[owner];
            Share {
                owner: owner.to_owned(),
                alone: blobs.iter().map(|blob| blob.size).sum(),
                adds: blobs
                    .iter()
                    .filter(|blob| users[*blob] == 1)
                    .map(|blob| blob.size)
                    .sum(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::{Content, Fetch};

    #[test]
    fn what_is_shared_is_added_by_nobody() {
        let blob = |text: &str| Blob::of(text.as_bytes());
        let root = |owner: &str| Root {
            owner: owner.to_owned(),
            fetch: Fetch {
                blob: blob(owner),
                content: Content::Opaque,
                origins: Vec::new(),
            },
        };
        let (a, b, c) = (root("package a"), root("package b"), root("image c"));
        let content = |texts: &[&str]| Closure {
            blobs: texts.iter().map(|text| blob(text)).collect(),
            ..Closure::default()
        };
        let images = [
            (&a, content(&["1", "22"])),
            (&a, content(&["1", "333"])),
            (&b, content(&["22", "4444"])),
            (&c, content(&["333", "55555"])),
        ];
        assert_eq!(
            shares(&images, |owner| owner.starts_with("package ")),
            [
                Share {
                    owner: "package a".to_owned(),
                    alone: 6,
                    adds: 1
                },
                Share {
                    owner: "package b".to_owned(),
                    alone: 6,
                    adds: 4
                },
            ],
            "a blob of one owner counts once, a shared one is added by neither"
        );
    }
}
