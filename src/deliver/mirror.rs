//! Straight from upstream to a destination: blobs are read where the plan says they may be had, and are kept nowhere
//! on the way.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use crate::digest::Digest;
use crate::plan::graph::Plan;
use crate::run::realise::Upstream;
use crate::step::{Content, Origin};
use crate::store::{Blob, Source};

/// The blobs of a plan, each from the first place that has it: a store, then where upstream has it.
pub struct Straight<'a> {
    store: &'a dyn Source,
    places: Vec<Box<dyn Source + 'a>>,
    /// For each blob the places, by their number.
    where_of: HashMap<Digest, Vec<usize>>,
}

impl<'a> Straight<'a> {
    /// The blobs of `plan`. A place that cannot be used is passed over; what only that place has is then absent.
    #[must_use]
    pub fn new(plan: &Plan, store: &'a dyn Source, upstream: &'a dyn Upstream) -> Self {
        let mut places: Vec<Box<dyn Source + 'a>> = Vec::new();
        let mut numbers: BTreeMap<(&Origin, bool), Option<usize>> = BTreeMap::new();
        let mut where_of: HashMap<Digest, Vec<usize>> = HashMap::new();
        for node in plan.nodes() {
            let fetch = &node.fetch;
            let is_manifest = matches!(fetch.content, Content::Manifest { .. });
            for origin in &fetch.origins {
                let number = numbers.entry((origin, is_manifest)).or_insert_with(|| {
                    places.push(upstream.source(origin, &fetch.content).ok()?);
                    Some(places.len() - 1)
                });
                where_of
                    .entry(fetch.blob.digest)
                    .or_default()
                    .extend(*number);
            }
        }
        Self {
            store,
            places,
            where_of,
        }
    }
}

impl Source for Straight<'_> {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        if let Some(bytes) = self.store.open(blob, from)? {
            return Ok(Some(bytes));
        }
        let mut failure = None;
        for number in self.where_of.get(&blob.digest).into_iter().flatten() {
            match self.places[*number].open(blob, from) {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => {}
                // What could not be asked may have it, but the next place may have it, too.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::graph::Root;
    use crate::step::Fetch;
    use crate::store::memory::Memory;

    struct Places<'a>(BTreeMap<&'static str, Option<&'a Memory>>);

    impl Upstream for Places<'_> {
        fn source(&self, origin: &Origin, _: &Content) -> io::Result<Box<dyn Source + '_>> {
            struct Borrowed<'a>(&'a Memory);
            impl Source for Borrowed<'_> {
                fn open(
                    &self,
                    blob: &Blob,
                    from: u64,
                ) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
                    self.0.open(blob, from)
                }
            }
            let Origin::Layout(name) = origin else {
                return Err(io::Error::other("no such place"));
            };
            match self.0.get(name.as_str()) {
                Some(Some(memory)) => Ok(Box::new(Borrowed(memory))),
                _ => Err(io::Error::other("no such place")),
            }
        }
    }

    #[test]
    fn a_blob_comes_from_the_first_place_that_has_it() {
        let (store, first, second) = (Memory::default(), Memory::default(), Memory::default());
        let here = store.insert(b"here");
        let there = second.insert(b"there");
        let nowhere = Blob::of(b"nowhere");
        let origins = ["closed", "first", "second"]
            .map(|name| Origin::Layout(name.to_owned()))
            .to_vec();
        let roots = [here, there, nowhere]
            .map(|blob| Root {
                owner: blob.digest.short(),
                fetch: Fetch {
                    blob,
                    content: Content::Opaque,
                    origins: origins.clone(),
                },
            })
            .to_vec();
        let plan = Plan::of(roots).unwrap();
        let upstream = Places(BTreeMap::from([
            ("closed", None),
            ("first", Some(&first)),
            ("second", Some(&second)),
        ]));
        let straight = Straight::new(&plan, &store, &upstream);
        for (blob, wanted) in [
            (here, Some("here")),
            (there, Some("there")),
            (nowhere, None),
        ] {
            let found = crate::store::read(&straight, &blob, 100).ok();
            assert_eq!(
                found.as_deref(),
                wanted.map(str::as_bytes),
                "the places are asked in order"
            );
        }
    }
}
