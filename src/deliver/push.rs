//! Putting images into a registry so that at every instant what is visible is whole.
//!
//! 1. A manifest that a repository already serves vouches for its blobs; nothing is asked of those.
//! 2. Every other blob is uploaded once, to the first repository that needs it, and mounted into the others.
//! 3. What can be had nowhere is found out before the first manifest is put.
//! 4. Manifests by digest, children before their index; tags last, when everything else is in place.
//!
//! So a push that is killed leaves blobs that nothing names, and the old tags. Running it again sends only what is
//! missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::digest::Digest;
use crate::oci::{MANIFEST_LIMIT, Manifest};
use crate::reference::Tag;
use crate::run::each;
use crate::run::event::{Event, Observer};
use crate::store::{Blob, Source, TransferError, read};

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
    /// Makes sure that the repository has a blob: asks for it, links it from the repository `from` of the same
    /// registry, or sends it from `source`. `passed` is told of bytes as they go.
    ///
    /// # Errors
    /// If the source has not got it or gives other bytes, or the registry does not answer properly.
    fn send(
        &self,
        source: &dyn Source,
        blob: &Blob,
        from: Option<&str>,
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

    /// Puts a manifest, by digest or by tag.
    ///
    /// # Errors
    /// If the registry refuses it.
    fn put_manifest(&self, bytes: &[u8], media_type: &str, tag: Option<&Tag>) -> io::Result<()>;
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
}

impl Item {
    fn root(&self) -> Option<&(Blob, Manifest)> {
        self.manifests.last()
    }

    /// Everything that its manifests need in the repository; foreign layers a registry need not hold.
    fn blobs(&self) -> impl Iterator<Item = (Blob, bool)> + '_ {
        self.manifests
            .iter()
            .flat_map(|(_, manifest)| match manifest {
                Manifest::Image(image) => image
                    .blobs()
                    .map(|blob| (Blob::from(blob), blob.is_foreign()))
                    .collect::<Vec<_>>(),
                Manifest::Index(_) => Vec::new(),
            })
    }
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
    /// Blobs that neither the source nor the registry has. Nothing was made visible then.
    pub missing: Vec<Blob>,
    /// Blobs and manifests that failed for another reason. Nothing was tagged then.
    pub failures: Vec<PushFailure>,
    /// Whether it was told to stop.
    pub stopped: bool,
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

/// How often a blob that came damaged is read again.
const ATTEMPTS: u32 = 3;

/// Puts `items` into `registry`. Blobs come from `blobs`, manifests from `manifests`; `lenders` are more repositories
/// of the registry that may hold blobs already.
///
/// # Errors
/// Only if a manifest cannot be read; what the registry does wrong is in the answer.
pub fn push(
    items: &[Item],
    registry: &dyn Registry,
    manifests: &dyn Source,
    blobs: &dyn Source,
    lenders: &BTreeMap<Digest, BTreeSet<String>>,
    workers: usize,
    observer: Observer<'_>,
    stop: &AtomicBool,
) -> Result<Pushed, TransferError> {
    let pushing = Pushing::begin(items, registry, lenders, workers, observer, stop);
    pushing.rest(blobs);
    pushing.finish(manifests)
}

/// A push that is under way: for whoever has the blobs go by in an order of their own.
///
/// What is served is known from the beginning ([`Pushing::begin`]); blobs are placed in any order, by any thread
/// ([`Pushing::place`]), the others at once ([`Pushing::rest`]); nothing becomes visible before
/// [`Pushing::finish`].
pub struct Pushing<'a> {
    items: &'a [Item],
    registry: &'a dyn Registry,
    workers: usize,
    served: Vec<bool>,
    work: BTreeMap<Blob, Wanted>,
    placed: Mutex<BTreeSet<Digest>>,
    state: State<'a>,
}

impl<'a> Pushing<'a> {
    /// Asks what is served already.
    #[must_use]
    pub fn begin(
        items: &'a [Item],
        registry: &'a dyn Registry,
        lenders: &BTreeMap<Digest, BTreeSet<String>>,
        workers: usize,
        observer: Observer<'a>,
        stop: &'a AtomicBool,
    ) -> Self {
        let state = State {
            pushed: Mutex::new(Pushed::default()),
            stop,
            observer,
        };
        // 1: what is served already.
        let served: Vec<AtomicBool> = items.iter().map(|_| AtomicBool::new(false)).collect();
        each(items.len(), workers, stop, |index| {
            let item = &items[index];
            let Some((root, _)) = item.root() else { return };
            match registry
                .repository(&item.path)
                .and_then(|repository| repository.manifest(&root.digest.to_string()))
            {
                Ok(found) => served[index].store(found == Some(root.digest), Ordering::Relaxed),
                Err(error) => state.fail(root.digest.to_string(), &item.path, error),
            }
        });
        let served: Vec<bool> = served.into_iter().map(AtomicBool::into_inner).collect();
        // 2: who needs which blob, and who has it.
        let mut wanted: BTreeMap<Blob, Wanted> = BTreeMap::new();
        for (item, served) in items.iter().zip(&served) {
            for (blob, foreign) in item.blobs() {
                let entry = wanted.entry(blob).or_insert_with(|| Wanted {
                    foreign: true,
                    ..Wanted::default()
                });
                entry.foreign &= foreign;
                if *served {
                    entry.holders.insert(item.path.clone())
                } else {
                    entry.takers.insert(item.path.clone())
                };
            }
        }
        for (blob, entry) in &mut wanted {
            let holders = entry.holders.clone();
            entry.takers.retain(|path| !holders.contains(path));
            if let Some(paths) = lenders.get(&blob.digest) {
                entry.holders.extend(paths.iter().cloned());
            }
        }
        wanted.retain(|_, entry| !entry.takers.is_empty());
        for (blob, entry) in &wanted {
            observer(Event::Planned {
                blobs: entry.takers.len() as u64,
                bytes: blob.size * entry.takers.len() as u64,
            });
        }
        Self {
            items,
            registry,
            workers,
            served,
            work: wanted,
            placed: Mutex::default(),
            state,
        }
    }

    /// Whether some repository needs `blob`, and nobody has placed it yet.
    #[must_use]
    pub fn wants(&self, blob: &Blob) -> bool {
        self.work.contains_key(blob) && !self.placed().contains(&blob.digest)
    }

    /// How many things failed so far.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.state.lock().failures.len()
    }

    /// Brings `blob` to every repository that needs it. What goes wrong is in the answer of [`Pushing::finish`].
    pub fn place(&self, blob: &Blob, source: &dyn Source) {
        if let Some(entry) = self.work.get(blob)
            && self.placed().insert(blob.digest)
        {
            place_blob(blob, entry, self.registry, source, &self.state);
        }
    }

    /// Brings every blob that nobody has placed yet, the largest first.
    pub fn rest(&self, source: &dyn Source) {
        if !self.state.lock().failures.is_empty() {
            return;
        }
        let mut rest: Vec<&Blob> = self.work.keys().filter(|blob| self.wants(blob)).collect();
        rest.sort_by_key(|blob| (std::cmp::Reverse(blob.size), blob.digest));
        each(rest.len(), self.workers, self.state.stop, |index| {
            self.place(rest[index], source);
        });
    }

    fn placed(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the manifests, then the tags, if every blob is where it is needed.
    ///
    /// # Errors
    /// Only if a manifest cannot be read; what the registry does wrong is in the answer.
    pub fn finish(self, manifests: &dyn Source) -> Result<Pushed, TransferError> {
        let Self {
            items,
            registry,
            workers,
            served,
            state,
            ..
        } = self;
        let (observer, stop) = (state.observer, state.stop);
        // 3: nothing becomes visible unless everything is there.
        if state.is_broken() {
            return Ok(state.finish());
        }
        // 4: manifests, then tags.
        let fresh: Vec<&Item> = items
            .iter()
            .zip(&served)
            .filter(|(_, served)| !**served)
            .map(|(item, _)| item)
            .collect();
        let mut bytes_of: HashMap<Digest, Vec<u8>> = HashMap::new();
        let put: Vec<_> = fresh
            .iter()
            .map(|item| (item.path.as_str(), &item.manifests))
            .collect();
        let mut seen = BTreeSet::new();
        let mut by_repository: BTreeMap<&str, Vec<&(Blob, Manifest)>> = BTreeMap::new();
        for (path, manifests_of_item) in put {
            for manifest in manifests_of_item {
                if seen.insert((path, manifest.0.digest)) {
                    by_repository.entry(path).or_default().push(manifest);
                }
                if let std::collections::hash_map::Entry::Vacant(entry) =
                    bytes_of.entry(manifest.0.digest)
                {
                    entry.insert(read(manifests, &manifest.0, MANIFEST_LIMIT)?);
                }
            }
        }
        let repositories: Vec<_> = by_repository.into_iter().collect();
        each(repositories.len(), workers, stop, |index| {
            let (path, list) = &repositories[index];
            let repository = match registry.repository(path) {
                Ok(repository) => repository,
                Err(error) => return state.fail("a manifest".to_owned(), path, error),
            };
            for (blob, manifest) in list {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                match repository.put_manifest(&bytes_of[&blob.digest], manifest.media_type(), None)
                {
                    Ok(()) => state.lock().manifests += 1,
                    Err(error) => return state.fail(blob.digest.to_string(), path, error),
                }
            }
        });
        if state.is_broken() {
            return Ok(state.finish());
        }
        each(items.len(), workers, stop, |index| {
            let item = &items[index];
            let Some((root, manifest)) = item.root() else {
                return;
            };
            let repository = match registry.repository(&item.path) {
                Ok(repository) => repository,
                Err(error) => return state.fail(item.tag.to_string(), &item.path, error),
            };
            let outcome = match repository.manifest(item.tag.as_str()) {
                Ok(Some(digest)) if digest == root.digest => Ok(false),
                Ok(_) => match bytes_of.get(&root.digest) {
                    Some(bytes) => repository
                        .put_manifest(bytes, manifest.media_type(), Some(&item.tag))
                        .map(|()| true),
                    None => match read(manifests, root, MANIFEST_LIMIT) {
                        Ok(bytes) => repository
                            .put_manifest(&bytes, manifest.media_type(), Some(&item.tag))
                            .map(|()| true),
                        Err(error) => Err(io::Error::other(error)),
                    },
                },
                Err(error) => Err(error),
            };
            match outcome {
                Ok(moved) => {
                    state.lock().tags += u64::from(moved);
                    observer(Event::Image {
                        image: item.name.clone(),
                    });
                }
                Err(error) => state.fail(item.tag.to_string(), &item.path, error),
            }
        });
        Ok(state.finish())
    }
}

/// Who needs a blob, and who has it.
#[derive(Clone, Debug, Default)]
struct Wanted {
    takers: BTreeSet<String>,
    holders: BTreeSet<String>,
    foreign: bool,
}

struct State<'a> {
    pushed: Mutex<Pushed>,
    stop: &'a AtomicBool,
    observer: Observer<'a>,
}

impl State<'_> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Pushed> {
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, what: String, repository: &str, source: io::Error) {
        self.lock().failures.push(PushFailure {
            what,
            repository: repository.to_owned(),
            source,
        });
    }

    fn is_broken(&self) -> bool {
        let pushed = self.lock();
        !pushed.failures.is_empty()
            || !pushed.missing.is_empty()
            || self.stop.load(Ordering::Relaxed)
    }

    fn finish(self) -> Pushed {
        let stopped = self.stop.load(Ordering::Relaxed);
        let mut pushed = self
            .pushed
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        pushed.stopped = stopped;
        pushed.missing.sort();
        pushed.missing.dedup();
        pushed
            .failures
            .sort_by(|a, b| (&a.repository, &a.what).cmp(&(&b.repository, &b.what)));
        pushed
    }
}

/// Brings one blob to every repository that needs it: an upload for the first, mounts for the others.
fn place_blob(
    blob: &Blob,
    wanted: &Wanted,
    registry: &dyn Registry,
    blobs: &dyn Source,
    state: &State<'_>,
) {
    let mut holders: Vec<String> = wanted.holders.iter().cloned().collect();
    for path in &wanted.takers {
        if state.stop.load(Ordering::Relaxed) {
            return;
        }
        let repository = match registry.repository(path) {
            Ok(repository) => repository,
            Err(error) => return state.fail(blob.digest.to_string(), path, error),
        };
        match bring(blob, &holders, &*repository, blobs, state) {
            Ok(Brought::Here) => {
                holders.insert(0, path.clone());
                (state.observer)(Event::Done {
                    digest: blob.digest,
                    size: blob.size,
                    present: false,
                });
            }
            Ok(Brought::Absent) if wanted.foreign => {}
            Ok(Brought::Absent) => state.lock().missing.push(*blob),
            Err(error) => {
                let text = crate::run::event::one_line(&error);
                (state.observer)(Event::Failed {
                    digest: blob.digest,
                    cause: text,
                });
                state.fail(blob.digest.to_string(), path, error);
                return;
            }
        }
    }
}

enum Brought {
    Here,
    Absent,
}

fn bring(
    blob: &Blob,
    holders: &[String],
    repository: &dyn Repository,
    blobs: &dyn Source,
    state: &State<'_>,
) -> io::Result<Brought> {
    let passed = |bytes| {
        (state.observer)(Event::Bytes {
            digest: blob.digest,
            bytes,
        });
    };
    let from = holders.first().map(String::as_str);
    for attempt in 1.. {
        match repository.send(blobs, blob, from, &passed) {
            Ok(sent) => {
                let mut pushed = state.lock();
                match sent {
                    Sent::Present => pushed.present += 1,
                    Sent::Mounted => pushed.mounted += 1,
                    Sent::Uploaded(bytes) => {
                        pushed.sent += 1;
                        pushed.bytes += bytes;
                    }
                }
                return Ok(Brought::Here);
            }
            Err(TransferError::Absent { .. }) => return Ok(Brought::Absent),
            Err(TransferError::Damaged { .. }) if attempt < ATTEMPTS => {}
            Err(TransferError::Io { source, .. }) => return Err(source),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    unreachable!("the last attempt answers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;
    use crate::store::{Moved, Sink, Verified, transfer};
    use std::sync::atomic::AtomicUsize;

    /// A registry in memory that insists on order and isolation, as real ones do.
    #[derive(Default)]
    struct Fake {
        blobs: Mutex<BTreeSet<(String, Digest)>>,
        manifests: Mutex<BTreeMap<(String, String), Digest>>,
        uploads: AtomicUsize,
        log: Mutex<Vec<String>>,
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
        fn send(
            &self,
            source: &dyn Source,
            blob: &Blob,
            from: Option<&str>,
            passed: &(dyn Fn(u64) + Sync),
        ) -> Result<Sent, TransferError> {
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

        fn manifest(&self, name: &str) -> io::Result<Option<Digest>> {
            Ok(self
                .0
                .manifests
                .lock()
                .unwrap()
                .get(&(self.1.clone(), name.to_owned()))
                .copied())
        }

        fn tagged(&self, _: &Tag) -> io::Result<Option<Vec<u8>>> {
            Err(io::ErrorKind::Unsupported.into())
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
                return Err(io::Error::other("manifest refers to something absent"));
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
        }
    }

    fn run(items: &[Item], registry: &Fake, blobs: &Memory, manifests: &Memory) -> Pushed {
        push(
            items,
            registry,
            manifests,
            blobs,
            &BTreeMap::new(),
            4,
            &|_| (),
            &AtomicBool::new(false),
        )
        .unwrap()
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
}
