//! The steps of a push: ask what is served, work out who needs which blob, place blobs, publish.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    Incomplete, Item, Manner, PushFailure, Pushed, Repository, Request, Sent, Sparse, TagsOnly,
    blobs_of,
};
use crate::digest::Digest;
use crate::oci::{MANIFEST_LIMIT, Manifest};
use crate::reference::Tag;
use crate::registry::client::Try;
use crate::run::each;
use crate::run::event::{Event, one_line};
use crate::store::{Blob, Source, TransferError, read};

/// How often a blob that came damaged is read again.
const ATTEMPTS: u32 = 3;

/// Failures without a success between them after which nothing more is tried: each stands for all the repetitions
/// that the client made, so this is a matter of minutes.
const PATIENCE: usize = 24;

/// Of how many repositories a blob is asked that nobody else has: those are said to hold it, and one may be wrong.
const LENDERS: usize = 8;

/// A push that is under way.
///
/// What is served is known from the beginning ([`Pushing::begin`]); blobs are placed in any order, by any thread
/// ([`Pushing::place`]), the others at once ([`Pushing::rest`]); nothing becomes visible before
/// [`Pushing::finish`].
pub struct Pushing<'a> {
    request: Request<'a>,
    served: Served<'a>,
    work: BTreeMap<Blob, Wanted<'a>>,
    /// Blobs of the work that somebody took up.
    taken: Mutex<HashSet<Digest>>,
    /// Blobs that are in the registry, and repositories that are still to get them.
    links: Mutex<Vec<(Blob, &'a str)>>,
    pushed: Mutex<Pushed>,
    /// What a repository does not have for sure, and why.
    spoilt: Mutex<HashMap<(&'a str, Digest), String>>,
    /// Where blobs came to.
    sent: Mutex<HashMap<Digest, BTreeSet<&'a str>>>,
    /// Manifests that were put.
    put: Mutex<HashSet<(&'a str, Digest)>>,
    tagged: Mutex<HashSet<(&'a str, &'a Tag)>>,
    in_a_row: AtomicUsize,
}

/// What the registry says it serves.
#[derive(Clone, Debug, Default)]
struct Served<'a> {
    /// Manifests by repository.
    manifests: HashSet<(&'a str, Digest)>,
    /// Tags that stand for what they should.
    tags: HashSet<(&'a str, &'a Tag)>,
    /// Repositories that serve something.
    used: HashSet<&'a str>,
}

/// Who needs a blob, and who has it.
#[derive(Clone, Debug, Default)]
struct Wanted<'a> {
    takers: BTreeSet<&'a str>,
    holders: BTreeSet<&'a str>,
    foreign: bool,
}

enum Brought {
    Here,
    Absent,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Pushing<'a> {
    /// Asks what is served already, and works out who needs which blob. What goes wrong is in the answer of
    /// [`Pushing::finish`].
    #[must_use]
    pub fn begin(request: Request<'a>) -> Self {
        let mut pushing = Self {
            request,
            served: Served::default(),
            work: BTreeMap::new(),
            taken: Mutex::default(),
            links: Mutex::default(),
            pushed: Mutex::default(),
            spoilt: Mutex::default(),
            sent: Mutex::default(),
            put: Mutex::default(),
            tagged: Mutex::default(),
            in_a_row: AtomicUsize::new(0),
        };
        let items: Vec<&Item> = request.items.iter().filter(|item| item.is_whole).collect();
        pushing.served = pushing.ask(&items);
        if !pushing.is_over() {
            pushing.plan();
        }
        pushing
    }

    /// Whether some repository needs `blob`, and nobody has placed it yet.
    #[must_use]
    pub fn wants(&self, blob: &Blob) -> bool {
        self.work.contains_key(blob) && !locked(&self.taken).contains(&blob.digest)
    }

    /// How many things failed so far.
    #[must_use]
    pub fn failed(&self) -> usize {
        locked(&self.pushed).failures.len()
    }

    /// Whether there is no point in going on: [`Pushing::finish`] would publish nothing more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        if self.request.stop.load(Ordering::Relaxed) || self.is_gone() {
            return true;
        }
        let pushed = locked(&self.pushed);
        self.request.manner == Manner::Together
            && (!pushed.failures.is_empty() || !pushed.missing.is_empty())
    }

    /// Puts the smallest of the indexes that a registry might not take, without its tag. If it is refused, nothing
    /// more is tried.
    pub(super) fn probe(&self, manifests: &dyn Source, blobs: &dyn Source) {
        if self.is_over() {
            return;
        }
        let is_fresh = |item: &&Item| {
            item.is_whole
                && item.manifests.iter().any(|(blob, _)| {
                    let key = (item.path.as_str(), blob.digest);
                    !self.served.manifests.contains(&key)
                })
        };
        let probe = self
            .request
            .items
            .iter()
            .filter(|item| item.is_sparse())
            .filter(is_fresh)
            .min_by_key(|item| (item.size(), &item.path, &item.tag));
        let Some(probe) = probe else { return };
        let needed: BTreeSet<Blob> = probe
            .manifests
            .iter()
            .flat_map(|(_, manifest)| blobs_of(manifest))
            .map(|(blob, _)| blob)
            .filter(|blob| self.wants(blob))
            .collect();
        self.place_all(&needed.iter().collect::<Vec<_>>(), blobs);
        if !self.is_spoiled(probe) && !self.is_over() {
            self.put(std::slice::from_ref(probe), manifests);
        }
    }

    /// Brings `blob` to a repository that needs it, and has the others linked to it later. What goes wrong is in the
    /// answer of [`Pushing::finish`].
    pub fn place(&self, blob: &Blob, source: &dyn Source) {
        let Some(wanted) = self.work.get(blob) else {
            return;
        };
        if !locked(&self.taken).insert(blob.digest) {
            return;
        }
        let mut takers = wanted.takers.iter().copied();
        while let Some(path) = takers.next() {
            if self.request.stop.load(Ordering::Relaxed) {
                return;
            }
            match self.arrive(blob, path, source) {
                Ok(true) => {
                    locked(&self.links).extend(takers.map(|path| (*blob, path)));
                    return;
                }
                Ok(false) => {}
                Err(error) => {
                    // Another repository may grant what this one denies; what is wrong with the source stays wrong.
                    let is_local = error.kind() == io::ErrorKind::PermissionDenied;
                    if !is_local || self.request.manner == Manner::Together {
                        let because = one_line(&error);
                        for path in takers.by_ref() {
                            self.spoil(path, blob.digest, &because);
                        }
                    }
                    self.fail(blob.digest.to_string(), path, blob.digest, error);
                }
            }
        }
    }

    /// Brings every blob that nobody has placed yet, the largest first, and links what several repositories need.
    pub fn rest(&self, source: &dyn Source) {
        if self.is_over() {
            return;
        }
        let mut rest: Vec<&Blob> = self.work.keys().filter(|blob| self.wants(blob)).collect();
        rest.sort_by_key(|blob| (std::cmp::Reverse(blob.size), blob.digest));
        self.place_all(&rest, source);
    }

    fn place_all(&self, blobs: &[&Blob], source: &dyn Source) {
        let (workers, stop) = (self.request.workers, self.request.stop);
        each(blobs.len(), workers, stop, |index| {
            self.place(blobs[index], source);
        });
        let mut links = std::mem::take(&mut *locked(&self.links));
        // One blob is linked once at a time, so neighbours should be different ones.
        links.sort_by_key(|(blob, path)| (*path, blob.digest));
        each(links.len(), workers, stop, |index| {
            let (blob, path) = &links[index];
            if let Err(error) = self.arrive(blob, path, source) {
                self.fail(blob.digest.to_string(), path, blob.digest, error);
            }
        });
    }

    /// Puts the manifests, then the tags, of what is complete; blobs that nobody placed are taken from `blobs`.
    #[must_use]
    pub fn finish(mut self, manifests: &dyn Source, blobs: &dyn Source) -> Pushed {
        self.publish(manifests, blobs);
        self.answer()
    }

    fn publish(&mut self, manifests: &dyn Source, blobs: &dyn Source) {
        let is_refused = |failure: &PushFailure| Sparse::is_in(&failure.source);
        if self.is_over() || locked(&self.pushed).failures.iter().any(is_refused) {
            return;
        }
        self.rest(blobs);
        if self.is_over() {
            return;
        }
        if !locked(&self.sent).is_empty() {
            // What vouched for blobs in the beginning may be gone.
            self.ask_again();
            self.rest(blobs);
            if self.is_over() {
                return;
            }
        }
        let items = self.request.items;
        self.put(items, manifests);
        if self.is_over() {
            return;
        }
        for second in [false, true] {
            let wave: Vec<&Item> = items
                .iter()
                .filter(|item| item.needs.is_empty() != second)
                .collect();
            let spoiled: HashSet<Digest> = items
                .iter()
                .filter(|item| self.is_spoiled(item))
                .filter_map(|item| item.root().map(|(root, _)| root.digest))
                .collect();
            each(
                wave.len(),
                self.request.workers,
                self.request.stop,
                |index| {
                    let item = wave[index];
                    if !self.is_spoiled(item)
                        && !item.needs.iter().any(|need| spoiled.contains(need))
                    {
                        self.tag(item, manifests);
                    }
                },
            );
            if self.is_over() {
                return;
            }
        }
    }

    /// Asks which manifests and tags of some images are served.
    fn ask(&self, items: &[&'a Item]) -> Served<'a> {
        let answer: Mutex<Served<'a>> = Mutex::default();
        each(
            items.len(),
            self.request.workers,
            self.request.stop,
            |index| {
                let item = items[index];
                let Some((root, _)) = item.root() else { return };
                let path = item.path.as_str();
                let ask = || -> io::Result<(Option<Digest>, Vec<Digest>)> {
                    let repository = self.request.registry.repository(path)?;
                    let tagged = repository.manifest(item.tag.as_str())?;
                    let mut found = Vec::new();
                    // An index may be there with fewer children than are wanted now.
                    for (blob, _) in item.manifests.iter().rev() {
                        let is_tagged = blob.digest == root.digest && tagged == Some(root.digest);
                        if is_tagged
                            || repository.manifest(&blob.digest.to_string())? == Some(blob.digest)
                        {
                            found.push(blob.digest);
                        } else if found.is_empty() {
                            break;
                        }
                    }
                    Ok((tagged, found))
                };
                match ask() {
                    Ok((tagged, found)) => {
                        let mut served = locked(&answer);
                        if tagged.is_some() || !found.is_empty() {
                            served.used.insert(path);
                        }
                        if tagged == Some(root.digest) {
                            served.tags.insert((path, &item.tag));
                        }
                        served
                            .manifests
                            .extend(found.into_iter().map(|digest| (path, digest)));
                    }
                    Err(error) => self.fail(root.digest.to_string(), path, root.digest, error),
                }
            },
        );
        answer.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks again for what was served in the beginning, and works out again who needs which blob.
    fn ask_again(&mut self) {
        let items: Vec<&Item> = self
            .request
            .items
            .iter()
            .filter(|item| {
                item.root().is_some_and(|(root, _)| {
                    let key = (item.path.as_str(), root.digest);
                    self.served.manifests.contains(&key)
                })
            })
            .collect();
        let used = std::mem::take(&mut self.served.used);
        self.served = self.ask(&items);
        self.served.used.extend(used);
        if !self.is_over() {
            self.plan();
        }
    }

    /// Works out which repositories need which blobs.
    fn plan(&mut self) {
        let request = self.request;
        let mut wanted: BTreeMap<Blob, Wanted<'a>> = BTreeMap::new();
        for item in request.items.iter().filter(|item| !self.is_spoiled(item)) {
            let path = item.path.as_str();
            for (manifest_blob, manifest) in &item.manifests {
                let key = (path, manifest_blob.digest);
                let is_served = self.served.manifests.contains(&key);
                for (blob, foreign) in blobs_of(manifest) {
                    let entry = wanted.entry(blob).or_insert_with(|| Wanted {
                        foreign: true,
                        ..Wanted::default()
                    });
                    entry.foreign &= foreign;
                    if is_served {
                        entry.holders.insert(path)
                    } else {
                        entry.takers.insert(path)
                    };
                }
            }
        }
        let sent = locked(&self.sent);
        for (blob, entry) in &mut wanted {
            let arrived = sent.get(&blob.digest);
            let has = |path: &&str| arrived.is_some_and(|paths| paths.contains(path));
            let holders = &entry.holders;
            entry
                .takers
                .retain(|path| !holders.contains(path) && !has(path));
        }
        drop(sent);
        wanted.retain(|_, entry| !entry.takers.is_empty());
        for (blob, entry) in &wanted {
            (request.observer)(Event::Planned {
                blobs: entry.takers.len() as u64,
                bytes: blob.size * entry.takers.len() as u64,
            });
        }
        self.work = wanted;
        locked(&self.taken).clear();
    }

    /// Brings a blob to one repository; false if it can be had nowhere, which is noted.
    fn arrive(&self, blob: &Blob, path: &'a str, source: &dyn Source) -> io::Result<bool> {
        if self.is_gone() {
            self.spoil(path, blob.digest, "not tried, since transfers kept failing");
            return Ok(false);
        }
        let Some(wanted) = self.work.get(blob) else {
            return Ok(false);
        };
        let repository = self.request.registry.repository(path)?;
        match self.bring(blob, wanted, path, &*repository, source) {
            Ok(Brought::Here) => {
                self.in_a_row.store(0, Ordering::Relaxed);
                locked(&self.sent)
                    .entry(blob.digest)
                    .or_default()
                    .insert(path);
                (self.request.observer)(Event::Done {
                    digest: blob.digest,
                    size: blob.size,
                    present: false,
                });
                Ok(true)
            }
            Ok(Brought::Absent) => {
                if !wanted.foreign {
                    let because = format!("blob {} is nowhere to be had", blob.digest);
                    self.spoil(path, blob.digest, &because);
                    locked(&self.pushed).missing.push(*blob);
                }
                Ok(false)
            }
            Err(error) => {
                (self.request.observer)(Event::Failed {
                    digest: blob.digest,
                    cause: one_line(&error),
                });
                Err(error)
            }
        }
    }

    /// Brings a blob to a repository by the cheapest way, and by the others if that one leads nowhere.
    fn bring(
        &self,
        blob: &Blob,
        wanted: &Wanted<'a>,
        path: &str,
        repository: &dyn Repository,
        source: &dyn Source,
    ) -> io::Result<Brought> {
        let lenders = self.request.lenders.get(&blob.digest);
        let lenders = || lenders.into_iter().flatten().map(String::as_str);
        let holders: Vec<&str> = {
            let sent = locked(&self.sent);
            let arrived = sent.get(&blob.digest);
            arrived
                .into_iter()
                .flatten()
                .chain(&wanted.holders)
                .copied()
                .chain(lenders())
                .filter(|holder| *holder != path)
                .take(LENDERS)
                .collect()
        };
        let mut others = holders.iter().copied();
        let first = if lenders().any(|lender| lender == path) {
            Try::Ask(others.next())
        } else if let Some(holder) = others.next() {
            Try::Link(holder)
        } else if self.request.is_first && !self.served.used.contains(path) {
            Try::Send
        } else {
            Try::Ask(None)
        };
        if let Brought::Here = self.attempt(blob, first, repository, source)? {
            return Ok(Brought::Here);
        }
        // Somebody else may have filled the registry with what this archive leaves out.
        if first == Try::Send
            && let Brought::Here = self.attempt(blob, Try::Ask(None), repository, source)?
        {
            return Ok(Brought::Here);
        }
        for holder in others {
            if let Brought::Here = self.attempt(blob, Try::Link(holder), repository, source)? {
                return Ok(Brought::Here);
            }
        }
        Ok(Brought::Absent)
    }

    fn attempt(
        &self,
        blob: &Blob,
        first: Try<'_>,
        repository: &dyn Repository,
        source: &dyn Source,
    ) -> io::Result<Brought> {
        let passed = |bytes| {
            (self.request.observer)(Event::Bytes {
                digest: blob.digest,
                bytes,
            });
        };
        for attempt in 1.. {
            match repository.send(source, blob, first, &passed) {
                Ok(sent) => {
                    let mut pushed = locked(&self.pushed);
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

    /// Puts the manifests of images, by digest.
    fn put(&self, items: &'a [Item], manifests: &dyn Source) {
        let request = self.request;
        let mut seen: HashSet<(&str, Digest)> = self.served.manifests.clone();
        let mut by_repository: BTreeMap<&'a str, Vec<&'a (Blob, Manifest)>> = BTreeMap::new();
        let mut roots: HashSet<(&str, Digest)> = HashSet::new();
        for item in items.iter().filter(|item| !self.is_spoiled(item)) {
            if let Some((root, _)) = item.root() {
                roots.insert((&item.path, root.digest));
            }
            for manifest in &item.manifests {
                if seen.insert((&item.path, manifest.0.digest))
                    && !self.has_put(&item.path, manifest.0.digest)
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
                        self.spoil(path, blob.digest, &because);
                    }
                    return self.note("a manifest".to_owned(), path, error);
                }
            };
            for (blob, manifest) in list {
                if request.stop.load(Ordering::Relaxed) || self.is_over() {
                    return;
                }
                if let Manifest::Index(named) = manifest {
                    let gone = named
                        .manifests
                        .iter()
                        .find_map(|child| self.spoilt(path, child.digest));
                    if let Some(because) = gone {
                        self.spoil(path, blob.digest, &because);
                        continue;
                    }
                }
                let bytes = match read(manifests, blob, MANIFEST_LIMIT) {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        let error = io::Error::other(error);
                        self.fail(blob.digest.to_string(), path, blob.digest, error);
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
                        self.in_a_row.store(0, Ordering::Relaxed);
                        locked(&self.put).insert((*path, blob.digest));
                        locked(&self.pushed).manifests += 1;
                    }
                    Err(error) => self.fail(blob.digest.to_string(), path, blob.digest, error),
                }
            }
        });
    }

    /// Gives an image its tag, unless it has it.
    fn tag(&self, item: &'a Item, manifests: &dyn Source) {
        let Some((root, manifest)) = item.root() else {
            return;
        };
        let key = (item.path.as_str(), &item.tag);
        let stands = self.served.tags.contains(&key);
        let attempt = || -> io::Result<()> {
            if stands {
                return Ok(());
            }
            let repository = self.request.registry.repository(&item.path)?;
            let bytes = read(manifests, root, MANIFEST_LIMIT).map_err(io::Error::other)?;
            repository.put_manifest(&bytes, manifest.media_type(), Some(&item.tag))
        };
        match attempt() {
            Ok(()) => {
                let mut pushed = locked(&self.pushed);
                pushed.tags += u64::from(!stands);
                pushed.complete += 1;
                drop(pushed);
                locked(&self.tagged).insert(key);
                (self.request.observer)(Event::Image {
                    image: item.name.clone(),
                });
            }
            Err(error) => self.fail(item.tag.to_string(), &item.path, root.digest, error),
        }
    }

    fn note(&self, what: String, repository: &str, source: io::Error) {
        let is_answer = matches!(
            source.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound | io::ErrorKind::InvalidData
        ) || Sparse::is_in(&source);
        if !is_answer {
            self.in_a_row.fetch_add(1, Ordering::Relaxed);
        }
        locked(&self.pushed).failures.push(PushFailure {
            what,
            repository: repository.to_owned(),
            source,
        });
    }

    fn spoil(&self, path: &'a str, digest: Digest, because: &str) {
        locked(&self.spoilt)
            .entry((path, digest))
            .or_insert_with(|| because.to_owned());
    }

    fn spoilt(&self, path: &str, digest: Digest) -> Option<String> {
        locked(&self.spoilt).get(&(path, digest)).cloned()
    }

    fn fail(&self, what: String, path: &'a str, digest: Digest, source: io::Error) {
        self.spoil(path, digest, &one_line(&source));
        self.note(what, path, source);
    }

    fn has_put(&self, path: &str, digest: Digest) -> bool {
        locked(&self.put).contains(&(path, digest))
    }

    /// Whether nothing gets through any more.
    fn is_gone(&self) -> bool {
        self.in_a_row.load(Ordering::Relaxed) >= PATIENCE
    }

    /// Why an image cannot be completed.
    fn reason(&self, item: &Item) -> Option<String> {
        if !item.is_whole || item.manifests.is_empty() {
            return Some("some of its manifests are not at hand".to_owned());
        }
        let spoilt = locked(&self.spoilt);
        if spoilt.is_empty() {
            return None;
        }
        let look = |digest: Digest| spoilt.get(&(item.path.as_str(), digest)).cloned();
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

    fn answer(self) -> Pushed {
        let stopped = self.request.stop.load(Ordering::Relaxed);
        let gone = self.is_gone();
        let mut incomplete = Vec::new();
        let tagged = locked(&self.tagged);
        let is_tagged = |item: &Item| tagged.contains(&(item.path.as_str(), &item.tag));
        let spoiled: HashMap<Digest, &str> = self
            .request
            .items
            .iter()
            .filter(|item| !is_tagged(item))
            .filter_map(|item| Some((item.root()?.0.digest, item.name.as_str())))
            .collect();
        for item in self.request.items.iter().filter(|item| !is_tagged(item)) {
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
