//! What an archive must carry, as sets.
//!
//! ```text
//! payload = manifests(L) ∪ ( C(L) \ ⋂ { C(b) : b ∈ bases } )          (no base: all of C(L))
//! ```
//!
//! A blob is left out only if *every* base has it. Therefore, for each base b, C(L) ⊆ C(b) ∪ payload: whoever has
//! adopted any one of the bases, and nothing else, can adopt L.
//!
//! ## Why not the union of all that was ever sent
//! It leaves a blob out if *any* earlier archive had it. One archive that is lost, or one blob that the far side
//! pruned, and the next does not apply.

use std::collections::BTreeSet;

use crate::store::Blob;

/// The blobs to carry for a closure on top of any one of `bases`.
///
/// `manifests` always travel. Every closure is in any order; a base is given by its closure.
#[must_use]
pub fn payload(manifests: &[Blob], closure: &[Blob], bases: &[&[Blob]]) -> BTreeSet<Blob> {
    let mut payload: BTreeSet<Blob> = closure.iter().copied().collect();
    if let Some((first, others)) = bases.split_first() {
        let mut common: BTreeSet<Blob> = first.iter().copied().collect();
        for other in others {
            let other: BTreeSet<Blob> = other.iter().copied().collect();
            common.retain(|blob| other.contains(blob));
        }
        payload.retain(|blob| !common.contains(blob));
    }
    payload.extend(manifests);
    payload
}

/// Brings `payload` into archive order: the manifests as they come in `order`, then the rest as it comes there.
///
/// `order` may name blobs several times and blobs that are not carried; the first time counts.
#[must_use]
pub fn in_archive_order(
    payload: &BTreeSet<Blob>,
    manifests: &[Blob],
    order: impl IntoIterator<Item = Blob>,
) -> Vec<Blob> {
    let mut taken = BTreeSet::new();
    let mut blobs = Vec::with_capacity(payload.len());
    for blob in manifests.iter().copied().chain(order) {
        if payload.contains(&blob) && taken.insert(blob.digest) {
            blobs.push(blob);
        }
    }
    blobs
}

/// What would be missing of `closure` at a destination that has adopted `base` and then stages `provides`.
#[must_use]
pub fn missing(closure: &[Blob], provides: &[Blob], base: &[Blob]) -> Vec<Blob> {
    let held: BTreeSet<&Blob> = provides.iter().chain(base).collect();
    closure
        .iter()
        .filter(|blob| !held.contains(blob))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blobs(names: &BTreeSet<u8>) -> Vec<Blob> {
        names.iter().map(|name| Blob::of(&[*name])).collect()
    }

    fn names() -> impl Strategy<Value = BTreeSet<u8>> {
        prop::collection::btree_set(0_u8..40, 0..40)
    }

    proptest! {
        #[test]
        fn on_top_of_any_one_base_nothing_is_missing(
            closure in names(),
            manifests in 0_u8..20,
            bases in prop::collection::vec(names(), 0..5),
        ) {
            let manifests: Vec<Blob> = blobs(&closure.iter().copied().filter(|name| *name < manifests).collect());
            let closure = blobs(&closure);
            let bases: Vec<Vec<Blob>> = bases.iter().map(blobs).collect();
            let given: Vec<&[Blob]> = bases.iter().map(Vec::as_slice).collect();
            let payload = payload(&manifests, &closure, &given);
            let provides = in_archive_order(&payload, &manifests, closure.iter().copied());
            prop_assert_eq!(provides.len(), payload.len(), "each digest once");
            prop_assert_eq!(&provides[..manifests.len()], &manifests[..], "manifests come first");
            for base in &bases {
                prop_assert_eq!(missing(&closure, &provides, base), vec![], "C(L) is within C(b) and the payload");
            }
            if bases.is_empty() {
                prop_assert_eq!(missing(&closure, &provides, &[]), vec![], "a full archive needs nothing");
            }
            for blob in &payload {
                let spared = !manifests.contains(blob) && !bases.is_empty()
                    && bases.iter().all(|base| base.contains(blob));
                prop_assert!(!spared, "what every base has is not carried");
            }
        }
    }
}
