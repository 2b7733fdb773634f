//! Putting images into a registry so that at every instant what is visible is whole.
//!
//! 1. Each image is asked for by its tag, and by its digest where the tag stands for another. A manifest that a
//!    repository already serves vouches for its blobs; nothing is asked of those.
//! 2. Of the indexes that name images nobody wants, the smallest goes first, untagged: a registry that takes no such
//!    index is found out before the long work.
//! 3. Every other blob is uploaded once, to the first repository that needs it, and mounted into the others.
//! 4. What can be had nowhere is found out before the first manifest is put. What was served in the beginning is asked
//!    for again if anything was sent since: that may have taken a day.
//! 5. Manifests by digest, children before their index; tags last, and of these last the ones of images that need
//!    other images ([`Item::needs`]). A tag that stood right is left alone.
//!
//! So a push that is killed leaves blobs that nothing names, and the old tags. Running it again sends only what is
//! missing; where nothing is, it asks once per image and child.
//!
//! What fails poisons what needs it: with [`Manner::Together`] everything, with [`Manner::Apart`] the images whose
//! content or whose needs it is; those keep the tags they had.
//!
//! [`push`] drives the steps for whoever can read any blob at any time. [`Pushing`] is the steps, for whoever has the
//! blobs go by in an order of their own, such as an archive that is read once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::atomic::AtomicBool;

mod steps;

pub use self::steps::Pushing;
use crate::digest::Digest;
use crate::oci::Manifest;
use crate::reference::Tag;
use crate::registry::client::{RegistryError, Try};
use crate::run::event::Observer;
use crate::store::{Blob, Source, TransferError};

/// A registry that images are put into. Paths are whole: prefix and path limit are applied.
pub trait Registry: Sync {
    /// One repository of it.
    ///
    /// # Errors
    /// If the path is no repository, or the registry may not be used.
    fn repository(&self, path: &str) -> io::Result<Box<dyn Repository + '_>>;
}

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was there.
    Present,
    /// It was linked from another repository.
    Mounted,
    /// So many bytes were sent.
    Uploaded(u64),
}

/// One repository that images are put into.
pub trait Repository {
    /// Makes sure that it may be written to, without writing anything.
    ///
    /// # Errors
    /// If it cannot be reached, or may not be written to.
    fn check(&self) -> io::Result<()>;

    /// Makes sure that the repository has a blob: asks for it, links it from another repository of the same
    /// registry, or sends it from `source`, in the order that `first` says. `passed` is told of bytes as they go.
    ///
    /// # Errors
    /// If the source has not got it or gives other bytes, or the registry does not answer properly.
    fn send(
        &self,
        source: &dyn Source,
        blob: &Blob,
        first: Try<'_>,
        passed: &(dyn Fn(u64) + Sync),
    ) -> Result<Sent, TransferError>;

    /// The digest of the manifest called `name` (a tag or a digest), if it is served.
    ///
    /// # Errors
    /// If the registry does not answer properly.
    fn manifest(&self, name: &str) -> io::Result<Option<Digest>>;

    /// The bytes of the manifest called `tag`, if it is served. They are not held to a digest: a tag has none.
    ///
    /// # Errors
    /// If the registry does not answer properly.
    fn tagged(&self, tag: &Tag) -> io::Result<Option<Vec<u8>>>;

    /// Puts a manifest, by digest or by tag; one that has a subject is then listed under it.
    ///
    /// # Errors
    /// If the registry refuses it: with [`Sparse`] inside where an index names what is not there, with [`TagsOnly`]
    /// inside where only a tag would do.
    fn put_manifest(&self, bytes: &[u8], media_type: &str, tag: Option<&Tag>) -> io::Result<()>;
}

/// The registry refused an index because some of its children are not there.
#[derive(Debug, thiserror::Error)]
#[error("the registry does not take an index of which only some images are mirrored")]
pub struct Sparse(#[source] pub io::Error);

impl Sparse {
    /// Whether that is what an error says.
    #[must_use]
    pub fn is_in(error: &io::Error) -> bool {
        error
            .get_ref()
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

/// The registry takes manifests by tag alone.
#[derive(Debug, thiserror::Error)]
#[error("the registry does not take a manifest without a tag")]
pub struct TagsOnly(#[source] pub io::Error);

impl TagsOnly {
    /// Whether that is what an error says.
    #[must_use]
    pub fn is_in(error: &io::Error) -> bool {
        error
            .get_ref()
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

/// Whether a registry refused, rather than failed: asked again, it says the same.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    let is_final = |error: &RegistryError| {
        matches!(
            error,
            RegistryError::Unauthorized { .. }
                | RegistryError::Forbidden { .. }
                | RegistryError::Tls { .. }
                | RegistryError::Blocked { .. }
                | RegistryError::Settings(_)
        )
    };
    error.kind() == io::ErrorKind::PermissionDenied
        || Sparse::is_in(error)
        || RegistryError::in_error(error).is_some_and(is_final)
}

/// One image to put.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name for people.
    pub name: String,
    /// The repository, whole.
    pub path: String,
    /// Its tag there.
    pub tag: Tag,
    /// Its manifests, children before their index, the last being its own.
    pub manifests: Vec<(Blob, Manifest)>,
    /// Whether all its manifests are at hand; one that is not whole is not put.
    pub is_whole: bool,
    /// The images that it makes no sense without (the components of a release payload, the bundles of a catalog), by
    /// the digests of their own manifests. It is tagged after them, and only if they are all there.
    pub needs: BTreeSet<Digest>,
}

impl Item {
    /// Its own manifest.
    fn root(&self) -> Option<&(Blob, Manifest)> {
        self.manifests.last()
    }

    /// Whether an index of it names an image that it leaves out.
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        let ours: HashSet<Digest> = self.manifests.iter().map(|(blob, _)| blob.digest).collect();
        self.manifests.iter().any(|(_, manifest)| match manifest {
            Manifest::Index(list) => list
                .manifests
                .iter()
                .any(|child| !ours.contains(&child.digest)),
            Manifest::Image(_) => false,
        })
    }

    fn size(&self) -> u64 {
        self.manifests
            .iter()
            .flat_map(|(_, manifest)| blobs_of(manifest))
            .map(|(blob, _)| blob.size)
            .sum()
    }
}

/// What a manifest needs in its repository; foreign layers a registry need not hold.
pub(super) fn blobs_of(manifest: &Manifest) -> Vec<(Blob, bool)> {
    match manifest {
        Manifest::Image(image) => image
            .blobs()
            .map(|blob| (Blob::from(blob), blob.is_foreign()))
            .collect(),
        Manifest::Index(_) => Vec::new(),
    }
}

/// What a failure spoils.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Everything: nothing becomes visible unless all of it can.
    Together,
    /// What needs it: every image that is complete becomes visible.
    Apart,
}

/// What to put, and how.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The images.
    pub items: &'a [Item],
    /// Where to.
    pub registry: &'a dyn Registry,
    /// More repositories of the registry that may hold blobs already.
    pub lenders: &'a BTreeMap<Digest, BTreeSet<String>>,
    /// Whether nobody here ever sent anything to the registry. Blobs then go unasked into repositories that serve
    /// nothing of what is wanted; where that is wrong, they are sent once more than needed.
    pub is_first: bool,
    /// What a failure spoils.
    pub manner: Manner,
    /// Transfers at once.
    pub workers: usize,
    /// Who watches.
    pub observer: Observer<'a>,
    /// Set to stop.
    pub stop: &'a AtomicBool,
}

/// What came of a push.
#[derive(Debug, Default)]
pub struct Pushed {
    /// Blobs that were sent.
    pub sent: u64,
    /// Bytes that were sent.
    pub bytes: u64,
    /// Blobs that were linked from another repository.
    pub mounted: u64,
    /// Blobs that were there.
    pub present: u64,
    /// Manifests that were put, tags apart.
    pub manifests: u64,
    /// Tags that were set or moved.
    pub tags: u64,
    /// Images that are complete at the destination, with their tag.
    pub complete: u64,
    /// Images that are not, sorted; they keep the tag they had.
    pub incomplete: Vec<Incomplete>,
    /// Blobs that neither the source nor the registry has.
    pub missing: Vec<Blob>,
    /// Blobs and manifests that failed for another reason.
    pub failures: Vec<PushFailure>,
    /// Whether it was told to stop.
    pub stopped: bool,
}

/// An image that could not be completed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incomplete {
    /// Its name for people.
    pub image: String,
    /// The repository.
    pub path: String,
    /// Its tag.
    pub tag: Tag,
    /// Why, in one line.
    pub because: String,
}

/// One thing that could not be put.
#[derive(Debug, thiserror::Error)]
#[error("{what} could not be put into {repository}")]
pub struct PushFailure {
    /// A digest or a tag.
    pub what: String,
    /// Where.
    pub repository: String,
    /// Why.
    pub source: io::Error,
}

/// One repository per first part of the paths, where a registry might ask for other rights: the first in order.
#[must_use]
pub fn doors(paths: &BTreeSet<String>) -> Vec<&str> {
    let mut doors: BTreeMap<&str, &str> = BTreeMap::new();
    for path in paths {
        let project = path.split('/').next().unwrap_or_default();
        doors.entry(project).or_insert(path);
    }
    doors.into_values().collect()
}

/// Puts images into a registry; manifests and blobs are read where they are asked for. What goes wrong is in the answer.
#[must_use]
pub fn push(request: Request<'_>, manifests: &dyn Source, blobs: &dyn Source) -> Pushed {
    let pushing = Pushing::begin(request);
    pushing.probe(manifests, blobs);
    pushing.finish(manifests, blobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;
    use crate::store::{Moved, Sink, Verified, transfer};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A registry in memory that insists on order and isolation, as real ones do.
    #[derive(Default)]
    struct Fake {
        blobs: Mutex<BTreeSet<(String, Digest)>>,
        manifests: Mutex<BTreeMap<(String, String), Digest>>,
        uploads: AtomicUsize,
        log: Mutex<Vec<String>>,
        /// Takes no manifest by digest.
        tags_only: bool,
        /// Takes nothing into this repository.
        denied: Option<&'static str>,
        /// Questions for manifests and tags.
        asked: AtomicUsize,
        /// What was tried first, by repository.
        tried: Mutex<Vec<(String, String)>>,
    }

    struct FakeRepository<'a>(&'a Fake, String);

    impl Registry for Fake {
        fn repository(&self, path: &str) -> io::Result<Box<dyn Repository + '_>> {
            Ok(Box::new(FakeRepository(self, path.to_owned())))
        }
    }

    impl Sink for FakeRepository<'_> {
        fn holds(&self, blob: &Blob) -> io::Result<bool> {
            Ok(self
                .0
                .blobs
                .lock()
                .unwrap()
                .contains(&(self.1.clone(), blob.digest)))
        }

        fn write(&self, blob: &Blob, bytes: &mut Verified<'_>) -> io::Result<()> {
            io::copy(bytes, &mut io::sink())?;
            self.0.uploads.fetch_add(1, Ordering::Relaxed);
            self.0
                .blobs
                .lock()
                .unwrap()
                .insert((self.1.clone(), blob.digest));
            Ok(())
        }
    }

    impl Repository for FakeRepository<'_> {
        fn check(&self) -> io::Result<()> {
            Ok(())
        }

        fn send(
            &self,
            source: &dyn Source,
            blob: &Blob,
            first: Try<'_>,
            passed: &(dyn Fn(u64) + Sync),
        ) -> Result<Sent, TransferError> {
            if self.0.denied == Some(self.1.as_str()) {
                return Err(TransferError::Io {
                    blob: *blob,
                    source: io::Error::new(io::ErrorKind::PermissionDenied, "not yours"),
                });
            }
            self.0
                .tried
                .lock()
                .unwrap()
                .push((self.1.clone(), format!("{first:?}")));
            let from = match first {
                Try::Ask(from) => from,
                Try::Link(from) => Some(from),
                Try::Send => None,
            };
            let lender = from.map(|from| (from.to_owned(), blob.digest));
            let linked = lender.is_some_and(|key| self.0.blobs.lock().unwrap().contains(&key));
            if linked {
                self.0
                    .blobs
                    .lock()
                    .unwrap()
                    .insert((self.1.clone(), blob.digest));
                return Ok(Sent::Mounted);
            }
            Ok(match transfer(source, self, blob, passed)? {
                Moved::Present => Sent::Present,
                Moved::Written(bytes) => Sent::Uploaded(bytes),
            })
        }

        fn tagged(&self, _: &Tag) -> io::Result<Option<Vec<u8>>> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn manifest(&self, name: &str) -> io::Result<Option<Digest>> {
            self.0.asked.fetch_add(1, Ordering::Relaxed);
            Ok(self
                .0
                .manifests
                .lock()
                .unwrap()
                .get(&(self.1.clone(), name.to_owned()))
                .copied())
        }

        fn put_manifest(
            &self,
            bytes: &[u8],
            media_type: &str,
            tag: Option<&Tag>,
        ) -> io::Result<()> {
            let digest = Digest::of(bytes);
            let manifest = Manifest::parse(bytes, Some(media_type)).map_err(io::Error::other)?;
            let mut manifests = self.0.manifests.lock().unwrap();
            let all_here = match &manifest {
                Manifest::Image(image) => image.blobs().all(|blob| {
                    self.0
                        .blobs
                        .lock()
                        .unwrap()
                        .contains(&(self.1.clone(), blob.digest))
                }),
                Manifest::Index(index) => index.manifests.iter().all(|child| {
                    manifests.contains_key(&(self.1.clone(), child.digest.to_string()))
                }),
            };
            if !all_here {
                let error = io::Error::other("manifest refers to something absent");
                return Err(match manifest {
                    Manifest::Image(_) => error,
                    Manifest::Index(_) => io::Error::other(Sparse(error)),
                });
            }
            if self.0.tags_only && tag.is_none() {
                return Err(io::Error::other(TagsOnly(io::Error::other("tag invalid"))));
            }
            self.0
                .log
                .lock()
                .unwrap()
                .push(tag.map_or("manifest".to_owned(), |tag| format!("tag {tag}")));
            manifests.insert((self.1.clone(), digest.to_string()), digest);
            if let Some(tag) = tag {
                manifests.insert((self.1.clone(), tag.to_string()), digest);
            }
            Ok(())
        }
    }

    fn item(memory: &Memory, path: &str, layers: &[&str]) -> Item {
        let descriptor = |text: &str| {
            let blob = memory.insert(text.as_bytes());
            format!(
                r#"{{"mediaType":"x","digest":"{}","size":{}}}"#,
                blob.digest, blob.size
            )
        };
        let layers: Vec<String> = layers.iter().map(|layer| descriptor(layer)).collect();
        let child = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            descriptor(path),
            layers.join(",")
        );
        let child_blob = memory.insert(child.as_bytes());
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{}","size":{}}}]}}"#,
            crate::oci::OCI_MANIFEST,
            child_blob.digest,
            child_blob.size
        );
        let parse = |text: &str| Manifest::parse(text.as_bytes(), None).unwrap();
        Item {
            name: path.to_owned(),
            path: path.to_owned(),
            tag: "v1".parse().unwrap(),
            manifests: vec![
                (child_blob, parse(&child)),
                (memory.insert(index.as_bytes()), parse(&index)),
            ],
            is_whole: true,
            needs: BTreeSet::new(),
        }
    }

    fn run_as(
        manner: Manner,
        items: &[Item],
        registry: &Fake,
        blobs: &Memory,
        manifests: &Memory,
    ) -> Pushed {
        let request = Request {
            items,
            registry,
            lenders: &BTreeMap::new(),
            is_first: false,
            manner,
            workers: 4,
            observer: &|_| (),
            stop: &AtomicBool::new(false),
        };
        push(request, manifests, blobs)
    }

    fn run(items: &[Item], registry: &Fake, blobs: &Memory, manifests: &Memory) -> Pushed {
        run_as(Manner::Together, items, registry, blobs, manifests)
    }

    fn tags(registry: &Fake) -> Vec<String> {
        let manifests = registry.manifests.lock().unwrap();
        manifests
            .keys()
            .filter(|(_, name)| !name.contains(':'))
            .map(|(path, name)| format!("{path}:{name}"))
            .collect()
    }

    #[test]
    fn what_fails_poisons_only_what_needs_it() {
        let (all, some) = (Memory::default(), Memory::default());
        let mut items = [
            item(&all, "a/one", &["base", "x"]),
            item(&all, "b/two", &["base", "y"]),
            item(&all, "c/payload", &["base"]),
            item(&all, "d/other", &["base"]),
        ];
        let digest = |item: &Item| item.root().unwrap().0.digest;
        items[2].needs = BTreeSet::from([digest(&items[1])]);
        items[3].needs = BTreeSet::from([digest(&items[0])]);
        for text in ["base", "x", "a/one", "b/two", "c/payload", "d/other"] {
            some.insert(text.as_bytes());
        }
        let registry = Fake::default();
        let pushed = run_as(Manner::Apart, &items, &registry, &some, &all);
        assert_eq!(
            tags(&registry),
            ["a/one:v1", "d/other:v1"],
            "complete images are tagged, and those whose needs are complete"
        );
        let reasons: Vec<_> = pushed
            .incomplete
            .iter()
            .map(|incomplete| (incomplete.image.as_str(), incomplete.because.as_str()))
            .collect();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(
            reasons[0].1.contains("nowhere to be had"),
            "the cause is named: {reasons:?}"
        );
        assert!(
            reasons[1].1.contains("it needs b/two"),
            "the need is named: {reasons:?}"
        );
        let again = run_as(Manner::Apart, &items, &registry, &all, &all);
        assert_eq!(
            (again.complete, again.tags, again.incomplete.len()),
            (4, 2, 0),
            "with the rest at hand the others follow: {again:?}"
        );
    }

    #[test]
    fn a_denied_repository_does_not_stop_the_others() {
        let memory = Memory::default();
        let items = [
            item(&memory, "a/one", &["base"]),
            item(&memory, "b/two", &["base"]),
        ];
        let registry = Fake {
            denied: Some("a/one"),
            ..Fake::default()
        };
        let pushed = run_as(Manner::Apart, &items, &registry, &memory, &memory);
        assert_eq!(tags(&registry), ["b/two:v1"], "{pushed:?}");
        assert!(
            pushed.incomplete[0].because.contains("not yours"),
            "the cause is named: {pushed:?}"
        );
    }

    #[test]
    fn an_index_that_is_refused_for_what_it_leaves_out_is_found_out_first() {
        let memory = Memory::default();
        let mut items = [
            item(&memory, "a/one", &["base"]),
            item(&memory, "b/two", &["small"]),
        ];
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{}","size":3}}]}}"#,
            crate::oci::OCI_MANIFEST,
            Digest::of(b"elsewhere")
        );
        let last = items[1].manifests.len() - 1;
        items[1].manifests[last] = (
            memory.insert(index.as_bytes()),
            Manifest::parse(index.as_bytes(), None).unwrap(),
        );
        assert!(items[1].is_sparse(), "one child is left out");
        for manner in [Manner::Together, Manner::Apart] {
            let registry = Fake::default();
            let pushed = run_as(manner, &items, &registry, &memory, &memory);
            assert!(
                pushed
                    .failures
                    .iter()
                    .any(|failure| Sparse::is_in(&failure.source)),
                "the refusal is told apart: {pushed:?}"
            );
            assert_eq!(
                pushed.sent, 2,
                "only that image was sent before: {pushed:?}"
            );
            assert!(tags(&registry).is_empty(), "nothing is tagged");
        }
    }

    #[test]
    fn a_registry_that_takes_tags_alone_gets_tags() {
        let memory = Memory::default();
        let items = [item(&memory, "a/one", &["base"])];
        let registry = Fake {
            tags_only: true,
            ..Fake::default()
        };
        let pushed = run(&items, &registry, &memory, &memory);
        assert_eq!(pushed.complete, 1, "{pushed:?}");
        let child = items[0].manifests[0].0.digest.hex();
        assert_eq!(
            tags(&registry),
            [format!("a/one:sha256-{child}"), "a/one:v1".to_owned()],
            "the child of the index has a tag, too"
        );
        // Such a registry serves by digest what it has by tag.
        let again = run(&items, &registry, &memory, &memory);
        assert_eq!(again.tags, 0, "a second push changes nothing: {again:?}");
    }

    #[test]
    fn an_index_that_gained_a_child_gets_it() {
        let memory = Memory::default();
        let whole = item(&memory, "a/one", &["base"]);
        let registry = Fake::default();
        let index = whole.root().unwrap().0.digest;
        // Served before with none of its children, as a registry may allow.
        registry
            .manifests
            .lock()
            .unwrap()
            .insert(("a/one".to_owned(), index.to_string()), index);
        let pushed = run(std::slice::from_ref(&whole), &registry, &memory, &memory);
        assert_eq!(
            (pushed.sent, pushed.manifests),
            (2, 1),
            "the child and its blobs are put: {pushed:?}"
        );
    }

    #[test]
    fn each_blob_is_sent_once_and_mounted_elsewhere() {
        let memory = Memory::default();
        let items = [
            item(&memory, "a/one", &["base", "x"]),
            item(&memory, "b/two", &["base", "y"]),
            item(&memory, "c/three", &["base", "z"]),
        ];
        let registry = Fake::default();
        let pushed = run(&items, &registry, &memory, &memory);
        assert!(
            pushed.failures.is_empty() && pushed.missing.is_empty(),
            "all is well: {pushed:?}"
        );
        assert_eq!(
            (pushed.sent, pushed.mounted, pushed.tags),
            (7, 2, 3),
            "the shared layer goes up once: {pushed:?}"
        );
        let log = registry.log.lock().unwrap().clone();
        let first_tag = log
            .iter()
            .position(|entry| entry.starts_with("tag"))
            .unwrap();
        assert!(
            log[first_tag..]
                .iter()
                .all(|entry| entry.starts_with("tag")),
            "tags come last: {log:?}"
        );
        let again = run(&items, &registry, &memory, &memory);
        assert_eq!(
            (again.sent, again.mounted, again.manifests, again.tags),
            (0, 0, 0, 0),
            "a second push changes nothing"
        );
    }

    #[test]
    fn what_can_be_had_nowhere_is_found_before_anything_is_visible() {
        let (all, some) = (Memory::default(), Memory::default());
        let items = [
            item(&all, "a/one", &["base", "x"]),
            item(&all, "b/two", &["base", "y"]),
        ];
        for text in ["base", "x", "a/one"] {
            some.insert(text.as_bytes());
        }
        let registry = Fake::default();
        let pushed = run(&items, &registry, &some, &all);
        let mut missing = vec![Blob::of(b"y"), Blob::of(b"b/two")];
        missing.sort();
        assert_eq!(pushed.missing, missing, "the missing blobs are named");
        assert!(
            registry.manifests.lock().unwrap().is_empty(),
            "no manifest was put"
        );
        let pushed = run(&items, &registry, &all, &all);
        assert_eq!(
            pushed.sent, 2,
            "with the rest at hand only the rest is sent"
        );
    }

    fn asked(registry: &Fake) -> usize {
        registry.asked.swap(0, Ordering::Relaxed)
    }

    #[test]
    fn a_second_push_asks_once_per_tag_and_child() {
        let memory = Memory::default();
        let items = [
            item(&memory, "a/one", &["base", "x"]),
            item(&memory, "b/two", &["base", "y"]),
        ];
        let registry = Fake::default();
        let _ = run(&items, &registry, &memory, &memory);
        assert_eq!(asked(&registry), 4, "each tag and each index; no child");
        registry.tried.lock().unwrap().clear();
        let again = run(&items, &registry, &memory, &memory);
        assert_eq!((again.complete, again.tags), (2, 0), "{again:?}");
        assert_eq!(asked(&registry), 4, "each tag, and each child of its index");
        assert!(
            registry.tried.lock().unwrap().is_empty(),
            "nothing is asked of blobs that a manifest vouches for"
        );
    }

    #[test]
    fn what_is_next_door_is_linked_unasked_and_what_nobody_ever_sent_is_sent_unasked() {
        let memory = Memory::default();
        let items = [
            item(&memory, "a/one", &["base"]),
            item(&memory, "b/two", &["base"]),
        ];
        for (is_first, expected) in [(true, "Send"), (false, "Ask(None)")] {
            let registry = Fake::default();
            let request = Request {
                items: &items,
                registry: &registry,
                lenders: &BTreeMap::new(),
                is_first,
                manner: Manner::Together,
                workers: 1,
                observer: &|_| (),
                stop: &AtomicBool::new(false),
            };
            let pushed = push(request, &memory, &memory);
            assert_eq!((pushed.sent, pushed.mounted), (3, 1), "{pushed:?}");
            let mut tried = registry.tried.lock().unwrap().clone();
            tried.sort();
            let mut expected = [
                ("a/one", expected),
                ("a/one", expected),
                ("b/two", expected),
                ("b/two", "Link(\"a/one\")"),
            ]
            .map(|(path, first)| (path.to_owned(), first.to_owned()));
            expected.sort();
            assert_eq!(tried, expected, "one way per blob and repository");
        }
        // A repository that serves something else under the tag was filled by somebody: it is asked.
        let registry = Fake::default();
        registry
            .manifests
            .lock()
            .unwrap()
            .insert(("a/one".to_owned(), "v1".to_owned()), Digest::of(b"other"));
        let request = Request {
            items: &items[..1],
            registry: &registry,
            lenders: &BTreeMap::new(),
            is_first: true,
            manner: Manner::Together,
            workers: 1,
            observer: &|_| (),
            stop: &AtomicBool::new(false),
        };
        let _ = push(request, &memory, &memory);
        assert!(
            registry
                .tried
                .lock()
                .unwrap()
                .iter()
                .all(|(_, first)| first == "Ask(None)"),
            "what may be there is asked for"
        );
    }

    #[test]
    fn a_lender_that_lost_the_blob_is_passed_over_for_the_next() {
        let (all, none) = (Memory::default(), Memory::default());
        let one = item(&all, "a/one", &[]);
        let config = Blob::of(b"a/one");
        let registry = Fake::default();
        registry
            .blobs
            .lock()
            .unwrap()
            .insert(("z/last".to_owned(), config.digest));
        let lenders = BTreeMap::from([(
            config.digest,
            ["a/one", "m/gone", "z/last"].map(str::to_owned).into(),
        )]);
        let request = Request {
            items: std::slice::from_ref(&one),
            registry: &registry,
            lenders: &lenders,
            is_first: false,
            manner: Manner::Together,
            workers: 1,
            observer: &|_| (),
            stop: &AtomicBool::new(false),
        };
        let pushed = push(request, &all, &none);
        assert_eq!(
            (pushed.mounted, pushed.complete, pushed.missing.len()),
            (1, 1, 0),
            "what is anywhere in the registry is not missing: {pushed:?}"
        );
        assert_eq!(
            registry.tried.lock().unwrap()[0].1,
            "Ask(Some(\"m/gone\"))",
            "a repository that is said to have it is asked first"
        );
    }

    #[test]
    fn what_vouched_in_the_beginning_and_is_gone_in_the_end_is_made_good() {
        let memory = Memory::default();
        let items = [
            item(&memory, "a/one", &["base", "x"]),
            item(&memory, "b/two", &["y"]),
        ];
        let registry = Fake::default();
        let _ = run(&items[..1], &registry, &memory, &memory);
        let lenders = BTreeMap::new();
        let stop = AtomicBool::new(false);
        let pushing = Pushing::begin(Request {
            items: &items,
            registry: &registry,
            lenders: &lenders,
            is_first: false,
            manner: Manner::Together,
            workers: 2,
            observer: &|_| (),
            stop: &stop,
        });
        assert!(
            !pushing.wants(&Blob::of(b"x")) && pushing.wants(&Blob::of(b"y")),
            "the first image is served"
        );
        pushing.place(&Blob::of(b"y"), &memory);
        assert!(!pushing.wants(&Blob::of(b"y")), "it is placed");
        // Meanwhile somebody cleans up.
        registry.manifests.lock().unwrap().clear();
        registry
            .blobs
            .lock()
            .unwrap()
            .retain(|(path, _)| path != "a/one");
        let pushed = pushing.finish(&memory, &memory);
        assert_eq!(
            (pushed.complete, pushed.tags, pushed.failures.len()),
            (2, 2, 0),
            "both are whole: {pushed:?}"
        );
    }

    #[test]
    fn nothing_is_visible_before_the_end() {
        let memory = Memory::default();
        let items = [item(&memory, "a/one", &["base", "x"])];
        let registry = Fake::default();
        let lenders = BTreeMap::new();
        let stop = AtomicBool::new(false);
        let pushing = Pushing::begin(Request {
            items: &items,
            registry: &registry,
            lenders: &lenders,
            is_first: true,
            manner: Manner::Together,
            workers: 2,
            observer: &|_| (),
            stop: &stop,
        });
        pushing.place(&Blob::of(b"x"), &memory);
        pushing.rest(&memory);
        assert!(
            registry.manifests.lock().unwrap().is_empty()
                && registry.blobs.lock().unwrap().len() == 3,
            "blobs are staged, and nothing names them"
        );
        drop(pushing);
        assert!(registry.manifests.lock().unwrap().is_empty(), "still");
    }
}
