//! Putting images into a registry so that at every instant what is visible is whole.
//!
//! 1. A manifest that a repository already serves vouches for its blobs; nothing is asked of those.
//! 2. Of the indexes that name images nobody wants, the smallest goes first, untagged: a registry that takes no such
//!    index is found out before the long work.
//! 3. Every other blob is uploaded once, to the first repository that needs it, and mounted into the others.
//! 4. What can be had nowhere is found out before the first manifest is put.
//! 5. Manifests by digest, children before their index; tags last, and of these last the ones of images that need
//!    other images ([`Item::needs`]).
//!
//! So a push that is killed leaves blobs that nothing names, and the old tags. Running it again sends only what is
//! missing.
//!
//! What fails poisons what needs it: with [`Manner::Together`] everything, with [`Manner::Apart`] the images whose
//! content or whose needs it is; those keep the tags they had.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::digest::Digest;
use crate::oci::{MANIFEST_LIMIT, Manifest};
use crate::reference::Tag;
use crate::run::each;
use crate::run::event::{Event, Observer, one_line};
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
    /// Makes sure that it may be written to, without writing anything.
    ///
    /// # Errors
    /// If it cannot be reached, or may not be written to.
    fn check(&self) -> io::Result<()>;

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
pub struct Request<'a> {
    /// The images.
    pub items: &'a [Item],
    /// Where to.
    pub registry: &'a dyn Registry,
    /// Where manifests are read.
    pub manifests: &'a dyn Source,
    /// Where blobs are read.
    pub blobs: &'a dyn Source,
    /// More repositories of the registry that may hold blobs already.
    pub lenders: &'a BTreeMap<Digest, BTreeSet<String>>,
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

/// How often a blob that came damaged is read again.
const ATTEMPTS: u32 = 3;

/// Failures without a success between them after which nothing more is tried: each stands for all the repetitions
/// that the client made, so this is a matter of minutes.
const PATIENCE: usize = 24;

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

/// Puts images into a registry. What goes wrong is in the answer.
#[must_use]
pub fn push(request: &Request<'_>) -> Pushed {
    let (items, registry, workers, stop) = (
        request.items,
        request.registry,
        request.workers,
        request.stop,
    );
    let state = State::new(request);
    // 1: what is served already.
    let served: Mutex<HashSet<(&str, Digest)>> = Mutex::default();
    each(items.len(), workers, stop, |index| {
        let item = &items[index];
        if !item.is_whole {
            return;
        }
        let ask = || -> io::Result<Vec<Digest>> {
            let repository = registry.repository(&item.path)?;
            let mut found = Vec::new();
            // An index may be there with fewer children than are wanted now.
            for (blob, _) in item.manifests.iter().rev() {
                if repository.manifest(&blob.digest.to_string())? == Some(blob.digest) {
                    found.push(blob.digest);
                } else if found.is_empty() {
                    break;
                }
            }
            Ok(found)
        };
        match ask() {
            Ok(found) => {
                let mut served = served.lock().unwrap_or_else(PoisonError::into_inner);
                served.extend(found.into_iter().map(|digest| (item.path.as_str(), digest)));
            }
            Err(error) => {
                if let Some((root, _)) = item.root() {
                    state.fail(root.digest.to_string(), &item.path, root.digest, error);
                }
            }
        }
    });
    let served = served.into_inner().unwrap_or_else(PoisonError::into_inner);
    if state.is_over() {
        return state.finish();
    }
    // 2: an index that the registry might not take.
    let is_fresh = |item: &&Item| {
        item.is_whole
            && item
                .manifests
                .iter()
                .any(|(blob, _)| !served.contains(&(item.path.as_str(), blob.digest)))
    };
    let probe = items
        .iter()
        .filter(|item| item.is_sparse())
        .filter(is_fresh)
        .min_by_key(|item| (item.size(), &item.path, &item.tag));
    if let Some(probe) = probe {
        let one = std::slice::from_ref(probe);
        send(&state, one, &served);
        if !state.is_spoiled(probe) && !state.is_over() {
            put(&state, one, &served);
        }
        let is_refused = |failure: &PushFailure| Sparse::is_in(&failure.source);
        if state.lock().failures.iter().any(is_refused) {
            return state.finish();
        }
        if state.is_over() {
            return state.finish();
        }
    }
    // 3 and 4: blobs.
    send(&state, items, &served);
    if state.is_over() {
        return state.finish();
    }
    // 5: manifests, then tags.
    put(&state, items, &served);
    if state.is_over() {
        return state.finish();
    }
    for second in [false, true] {
        let wave: Vec<&Item> = items
            .iter()
            .filter(|item| item.needs.is_empty() != second)
            .collect();
        let spoiled: HashSet<Digest> = items
            .iter()
            .filter(|item| state.is_spoiled(item))
            .filter_map(|item| item.root().map(|(root, _)| root.digest))
            .collect();
        each(wave.len(), workers, stop, |index| {
            let item = wave[index];
            if state.is_spoiled(item) || item.needs.iter().any(|need| spoiled.contains(need)) {
                return;
            }
            tag(&state, item);
        });
        if state.is_over() {
            return state.finish();
        }
    }
    state.finish()
}

/// Brings the blobs of images to the repositories that need them.
fn send(state: &State<'_>, items: &[Item], served: &HashSet<(&str, Digest)>) {
    let request = state.request;
    let mut wanted: BTreeMap<Blob, Wanted> = BTreeMap::new();
    for item in items.iter().filter(|item| !state.is_spoiled(item)) {
        for (manifest_blob, manifest) in &item.manifests {
            let is_served = served.contains(&(item.path.as_str(), manifest_blob.digest));
            for (blob, foreign) in blobs_of(manifest) {
                let entry = wanted.entry(blob).or_insert_with(|| Wanted {
                    foreign: true,
                    ..Wanted::default()
                });
                entry.foreign &= foreign;
                if is_served {
                    entry.holders.insert(item.path.clone())
                } else {
                    entry.takers.insert(item.path.clone())
                };
            }
        }
    }
    for (blob, entry) in &mut wanted {
        let holders = entry.holders.clone();
        let arrived = state.arrived(blob);
        entry
            .takers
            .retain(|path| !holders.contains(path) && !arrived.contains(path));
        entry.holders.extend(arrived);
        if let Some(paths) = request.lenders.get(&blob.digest) {
            entry.holders.extend(paths.iter().cloned());
        }
    }
    let mut work: Vec<(Blob, Wanted)> = wanted
        .into_iter()
        .filter(|(_, entry)| !entry.takers.is_empty())
        .collect();
    work.sort_by_key(|(blob, _)| (std::cmp::Reverse(blob.size), blob.digest));
    for (blob, entry) in &work {
        (request.observer)(Event::Planned {
            blobs: entry.takers.len() as u64,
            bytes: blob.size * entry.takers.len() as u64,
        });
    }
    each(work.len(), request.workers, request.stop, |index| {
        let (blob, entry) = &work[index];
        place_blob(blob, entry, state);
    });
}

/// Puts the manifests of images, by digest.
fn put(state: &State<'_>, items: &[Item], served: &HashSet<(&str, Digest)>) {
    let request = state.request;
    let mut seen: HashSet<(&str, Digest)> = served.clone();
    let mut by_repository: BTreeMap<&str, Vec<&(Blob, Manifest)>> = BTreeMap::new();
    let mut roots: HashSet<(&str, Digest)> = HashSet::new();
    for item in items.iter().filter(|item| !state.is_spoiled(item)) {
        if let Some((root, _)) = item.root() {
            roots.insert((&item.path, root.digest));
        }
        for manifest in &item.manifests {
            if seen.insert((&item.path, manifest.0.digest))
                && !state.has_put(&item.path, manifest.0.digest)
            {
                by_repository.entry(&item.path).or_default().push(manifest);
            }
        }
    }
    let repositories: Vec<_> = by_repository.into_iter().collect();
    each(repositories.len(), request.workers, request.stop, |index| {
        let (path, list) = &repositories[index];
        let repository = match request.registry.repository(path) {
            Ok(repository) => repository,
            Err(error) => {
                let because = one_line(&error);
                for (blob, _) in list {
                    state.spoil(path, blob.digest, &because);
                }
                return state.note("a manifest".to_owned(), path, error);
            }
        };
        for (blob, manifest) in list {
            if request.stop.load(Ordering::Relaxed) || state.is_over() {
                return;
            }
            if let Manifest::Index(named) = manifest {
                let gone = named
                    .manifests
                    .iter()
                    .find_map(|child| state.spoilt(path, child.digest));
                if let Some(because) = gone {
                    state.spoil(path, blob.digest, &because);
                    continue;
                }
            }
            let bytes = match read(request.manifests, blob, MANIFEST_LIMIT) {
                Ok(bytes) => bytes,
                Err(error) => {
                    let error = io::Error::other(error);
                    state.fail(blob.digest.to_string(), path, blob.digest, error);
                    continue;
                }
            };
            let mut outcome = repository.put_manifest(&bytes, manifest.media_type(), None);
            if outcome.as_ref().is_err_and(TagsOnly::is_in) {
                // What gets a tag in the end needs no other before.
                outcome = if roots.contains(&(*path, blob.digest)) {
                    Ok(())
                } else {
                    let tag = format!("sha256-{}", blob.digest.hex())
                        .parse()
                        .expect("a digest makes a tag");
                    repository.put_manifest(&bytes, manifest.media_type(), Some(&tag))
                };
            }
            match outcome {
                Ok(()) => {
                    state.in_a_row.store(0, Ordering::Relaxed);
                    state
                        .put
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(((*path).to_owned(), blob.digest));
                    state.lock().manifests += 1;
                }
                Err(error) => state.fail(blob.digest.to_string(), path, blob.digest, error),
            }
        }
    });
}

/// Gives an image its tag, unless it has it.
fn tag(state: &State<'_>, item: &Item) {
    let request = state.request;
    let Some((root, manifest)) = item.root() else {
        return;
    };
    let attempt = || -> io::Result<bool> {
        let repository = request.registry.repository(&item.path)?;
        if repository.manifest(item.tag.as_str())? == Some(root.digest) {
            return Ok(false);
        }
        let bytes = read(request.manifests, root, MANIFEST_LIMIT).map_err(io::Error::other)?;
        repository.put_manifest(&bytes, manifest.media_type(), Some(&item.tag))?;
        Ok(true)
    };
    match attempt() {
        Ok(moved) => {
            let mut pushed = state.lock();
            pushed.tags += u64::from(moved);
            pushed.complete += 1;
            drop(pushed);
            state
                .tagged
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert((item.path.clone(), item.tag.clone()));
            (request.observer)(Event::Image {
                image: item.name.clone(),
            });
        }
        Err(error) => state.fail(item.tag.to_string(), &item.path, root.digest, error),
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
    request: &'a Request<'a>,
    pushed: Mutex<Pushed>,
    /// What a repository does not have for sure, and why.
    spoilt: Mutex<HashMap<(String, Digest), String>>,
    /// Where blobs came to.
    sent: Mutex<HashMap<Digest, BTreeSet<String>>>,
    /// Manifests that were put.
    put: Mutex<HashSet<(String, Digest)>>,
    tagged: Mutex<HashSet<(String, Tag)>>,
    in_a_row: AtomicUsize,
}

impl<'a> State<'a> {
    fn new(request: &'a Request<'a>) -> Self {
        Self {
            request,
            pushed: Mutex::default(),
            spoilt: Mutex::default(),
            sent: Mutex::default(),
            put: Mutex::default(),
            tagged: Mutex::default(),
            in_a_row: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pushed> {
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, what: String, repository: &str, source: io::Error) {
        let is_answer = matches!(
            source.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound | io::ErrorKind::InvalidData
        ) || Sparse::is_in(&source);
        if !is_answer {
            self.in_a_row.fetch_add(1, Ordering::Relaxed);
        }
        self.lock().failures.push(PushFailure {
            what,
            repository: repository.to_owned(),
            source,
        });
    }

    fn spoil(&self, path: &str, digest: Digest, because: &str) {
        self.spoilt
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((path.to_owned(), digest))
            .or_insert_with(|| because.to_owned());
    }

    fn spoilt(&self, path: &str, digest: Digest) -> Option<String> {
        self.spoilt
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(path.to_owned(), digest))
            .cloned()
    }

    fn fail(&self, what: String, repository: &str, digest: Digest, source: io::Error) {
        self.spoil(repository, digest, &one_line(&source));
        self.note(what, repository, source);
    }

    fn arrived(&self, blob: &Blob) -> BTreeSet<String> {
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&blob.digest)
            .cloned()
            .unwrap_or_default()
    }

    fn has_put(&self, path: &str, digest: Digest) -> bool {
        self.put
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&(path.to_owned(), digest))
    }

    /// Whether nothing gets through any more.
    fn is_gone(&self) -> bool {
        self.in_a_row.load(Ordering::Relaxed) >= PATIENCE
    }

    /// Whether there is no point in going on.
    fn is_over(&self) -> bool {
        if self.request.stop.load(Ordering::Relaxed) || self.is_gone() {
            return true;
        }
        let pushed = self.lock();
        self.request.manner == Manner::Together
            && (!pushed.failures.is_empty() || !pushed.missing.is_empty())
    }

    /// Why an image cannot be completed.
    fn reason(&self, item: &Item) -> Option<String> {
        if !item.is_whole || item.manifests.is_empty() {
            return Some("some of its manifests are not at hand".to_owned());
        }
        let spoilt = self.spoilt.lock().unwrap_or_else(PoisonError::into_inner);
        let look = |digest: Digest| spoilt.get(&(item.path.clone(), digest)).cloned();
        item.manifests.iter().find_map(|(blob, manifest)| {
            look(blob.digest).or_else(|| {
                blobs_of(manifest)
                    .into_iter()
                    .find_map(|(blob, _)| look(blob.digest))
            })
        })
    }

    fn is_spoiled(&self, item: &Item) -> bool {
        self.reason(item).is_some()
    }

    fn finish(self) -> Pushed {
        let stopped = self.request.stop.load(Ordering::Relaxed);
        let gone = self.is_gone();
        let mut incomplete = Vec::new();
        let tagged = self.tagged.lock().unwrap_or_else(PoisonError::into_inner);
        let spoiled: HashMap<Digest, &str> = self
            .request
            .items
            .iter()
            .filter(|item| !tagged.contains(&(item.path.clone(), item.tag.clone())))
            .filter_map(|item| Some((item.root()?.0.digest, item.name.as_str())))
            .collect();
        for item in self.request.items {
            if tagged.contains(&(item.path.clone(), item.tag.clone())) {
                continue;
            }
            let need = item.needs.iter().find_map(|need| spoiled.get(need));
            let because = match (self.reason(item), need) {
                (Some(reason), _) => reason,
                (None, Some(need)) => format!("it needs {need}, which is not complete"),
                (None, None) if stopped => "stopped before".to_owned(),
                (None, None) if gone => "not tried, since transfers kept failing".to_owned(),
                (None, None) => "not tried, since something else failed".to_owned(),
            };
            incomplete.push(Incomplete {
                image: item.name.clone(),
                path: item.path.clone(),
                tag: item.tag.clone(),
                because,
            });
        }
        drop(tagged);
        incomplete.sort();
        let mut pushed = self
            .pushed
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        pushed.incomplete = incomplete;
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
fn place_blob(blob: &Blob, wanted: &Wanted, state: &State<'_>) {
    let request = state.request;
    let mut holders: Vec<String> = wanted.holders.iter().cloned().collect();
    let mut takers = wanted.takers.iter();
    while let Some(path) = takers.next() {
        if request.stop.load(Ordering::Relaxed) {
            return;
        }
        if state.is_gone() {
            return state.spoil(path, blob.digest, "not tried, since transfers kept failing");
        }
        let outcome = match request.registry.repository(path) {
            Ok(repository) => bring(blob, &holders, &*repository, state),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(Brought::Here) => {
                state.in_a_row.store(0, Ordering::Relaxed);
                holders.insert(0, path.clone());
                state
                    .sent
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(blob.digest)
                    .or_default()
                    .insert(path.clone());
                (request.observer)(Event::Done {
                    digest: blob.digest,
                    size: blob.size,
                    present: false,
                });
            }
            Ok(Brought::Absent) if wanted.foreign => {}
            Ok(Brought::Absent) => {
                let because = format!("blob {} is nowhere to be had", blob.digest);
                state.spoil(path, blob.digest, &because);
                state.lock().missing.push(*blob);
            }
            Err(error) => {
                (request.observer)(Event::Failed {
                    digest: blob.digest,
                    cause: one_line(&error),
                });
                // Another repository may grant what this one denies; what is wrong with the source stays wrong.
                let is_local = error.kind() == io::ErrorKind::PermissionDenied;
                if !is_local || request.manner == Manner::Together {
                    let because = one_line(&error);
                    for path in takers.by_ref() {
                        state.spoil(path, blob.digest, &because);
                    }
                }
                state.fail(blob.digest.to_string(), path, blob.digest, error);
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
    state: &State<'_>,
) -> io::Result<Brought> {
    let passed = |bytes| {
        (state.request.observer)(Event::Bytes {
            digest: blob.digest,
            bytes,
        });
    };
    let from = holders.first().map(String::as_str);
    for attempt in 1.. {
        match repository.send(state.request.blobs, blob, from, &passed) {
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
            from: Option<&str>,
            passed: &(dyn Fn(u64) + Sync),
        ) -> Result<Sent, TransferError> {
            if self.0.denied == Some(self.1.as_str()) {
                return Err(TransferError::Io {
                    blob: *blob,
                    source: io::Error::new(io::ErrorKind::PermissionDenied, "not yours"),
                });
            }
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
        push(&Request {
            items,
            registry,
            manifests,
            blobs,
            lenders: &BTreeMap::new(),
            manner,
            workers: 4,
            observer: &|_| (),
            stop: &AtomicBool::new(false),
        })
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
}
