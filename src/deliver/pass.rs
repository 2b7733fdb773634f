//! One pass over a medium: blobs go to a registry in whatever order they come by, while they are being proven.
//!
//! What is served is known from the beginning; what nobody placed is placed at the end; and nothing becomes visible
//! before [`Pushing::finish`], which hands over to [`push::push`] for manifests and tags.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::push::{self, Item, Manner, PushFailure, Pushed, Registry, Repository, Sent};
use crate::digest::Digest;
use crate::run::each;
use crate::run::event::{Event, Observer};
use crate::store::{Blob, Source, TransferError};

/// How often a blob that came damaged is read again.
const ATTEMPTS: u32 = 3;

/// A push that is under way: for whoever has the blobs go by in an order of their own.
///
/// What is served is known from the beginning ([`Pushing::begin`]); blobs are placed in any order, by any thread
/// ([`Pushing::place`]), the others at once ([`Pushing::rest`]); nothing becomes visible before
/// [`Pushing::finish`].
pub struct Pushing<'a> {
    items: &'a [Item],
    registry: &'a dyn Registry,
    lenders: &'a BTreeMap<Digest, BTreeSet<String>>,
    workers: usize,
    observer: Observer<'a>,
    stop: &'a AtomicBool,
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
        lenders: &'a BTreeMap<Digest, BTreeSet<String>>,
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
            let Some((root, _)) = item.manifests.last() else {
                return;
            };
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
            for (blob, foreign) in item
                .manifests
                .iter()
                .flat_map(|(_, manifest)| push::blobs_of(manifest))
            {
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
            lenders,
            workers,
            observer,
            stop,
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

    /// Puts the manifests, then the tags, if every blob is where it is needed; whatever is still missing is taken from
    /// `blobs`.
    #[must_use]
    pub fn finish(self, manifests: &dyn Source, blobs: &dyn Source) -> Pushed {
        let before = self.state.finish();
        if before.stopped || !before.failures.is_empty() || !before.missing.is_empty() {
            return before;
        }
        let after = push::push(&push::Request {
            items: self.items,
            registry: self.registry,
            manifests,
            blobs,
            lenders: self.lenders,
            manner: Manner::Together,
            workers: self.workers,
            observer: self.observer,
            stop: self.stop,
        });
        Pushed {
            sent: before.sent + after.sent,
            bytes: before.bytes + after.bytes,
            mounted: before.mounted + after.mounted,
            // What was placed above is found there below.
            present: before.present,
            ..after
        }
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
