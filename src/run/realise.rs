//! Realising a plan: everything it names is fetched into a store, by bounded workers.
//!
//! One coordinator owns the plan and locks nothing: it hands fetches to workers and takes what they report. Manifests
//! go first, since they make the plan grow; then the largest blob first. Of one host at most so many fetches run at
//! once. A digest is fetched once, whatever refers to it, and not at all if the store has it.
//!
//! A failed fetch poisons what stands on it; everything else finishes, and [`Report`] groups the failures by cause.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};

use super::event::{Event, Observer, one_line};
use crate::digest::Digest;
use crate::oci::MANIFEST_LIMIT;
use crate::plan::graph::{Plan, PlanError};
use crate::reference::Repository;
use crate::step::{Content, Fetch, Origin};
use crate::store::disk::Store;
use crate::store::memo::Memo;
use crate::store::memory::Memory;
use crate::store::{Blob, Damage, Moved, Sink, Source, TransferError, read, transfer};

/// A place that holds blobs, both ways, and remembers what work yielded.
pub trait Depot: Source + Sink + Memo {
    /// The size of a blob that is here; `None` if it is not.
    ///
    /// # Errors
    /// If the place cannot tell.
    fn size_of(&self, digest: &Digest) -> io::Result<Option<u64>>;

    /// An empty file for work in progress, gone with its handle.
    ///
    /// # Errors
    /// If the place cannot be written.
    fn scratch(&self) -> io::Result<std::fs::File>;
}

impl Depot for Store {
    fn size_of(&self, digest: &Digest) -> io::Result<Option<u64>> {
        Self::size_of(self, digest).map_err(io::Error::from)
    }

    fn scratch(&self) -> io::Result<std::fs::File> {
        Self::scratch(self).map_err(io::Error::from)
    }
}

impl Depot for Memory {
    fn size_of(&self, digest: &Digest) -> io::Result<Option<u64>> {
        Ok(Self::size_of(self, digest))
    }

    fn scratch(&self) -> io::Result<std::fs::File> {
        tempfile::tempfile()
    }
}

/// Where fetches go for their bytes.
pub trait Upstream: Sync {
    /// The place that an origin names, for content of that kind.
    ///
    /// # Errors
    /// If there is no such place (a layout that is no layout).
    fn source(&self, origin: &Origin, content: &Content) -> io::Result<Box<dyn Source + '_>>;

    /// The manifest of that digest, whose size nobody knows yet; `None` if the repository has not got it. Whoever asks
    /// verifies.
    ///
    /// # Errors
    /// If the repository cannot be asked.
    fn manifest(&self, repository: &Repository, digest: &Digest) -> io::Result<Option<Vec<u8>>>;
}

/// How many at once, and how often again.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Fetches at once.
    pub workers: usize,
    /// Fetches at once from one host.
    pub per_host: usize,
    /// How often a blob that came damaged is asked for again.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        // Registries throttle above eight connections from one client; below it the link is idle.
        Self {
            workers: 16,
            per_host: 8,
            attempts: 6,
        }
    }
}

/// One thing that did not arrive.
#[derive(Debug)]
pub struct Failure {
    /// What.
    pub blob: Blob,
    /// Who asked for it.
    pub owners: Vec<String>,
    /// Why.
    pub error: FetchError,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody had it.
    #[error("{} is at none of {}", blob.digest, places.join(", "))]
    Absent {
        /// What was wanted.
        blob: Blob,
        /// Where it was looked for.
        places: Vec<String>,
    },
    /// It could not be moved.
    #[error("cannot fetch {} from {place}", blob.digest)]
    Transfer {
        /// What was wanted.
        blob: Blob,
        /// Where from.
        place: String,
        /// Why.
        source: TransferError,
    },
    /// The place cannot be used.
    #[error("cannot use {place}")]
    Place {
        /// Which place.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// What arrived makes no sense.
    #[error("cannot use what was fetched")]
    Plan(#[source] PlanError),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Blobs that were in the store already.
    pub present: u64,
    /// Blobs that were fetched.
    pub fetched: u64,
    /// Bytes that were fetched.
    pub bytes: u64,
    /// What did not arrive.
    pub failures: Vec<Failure>,
    /// Whether it was told to stop.
    pub stopped: bool,
}

impl Report {
    /// The failures by their last cause, with everyone who is affected; most affected first.
    #[must_use]
    pub fn by_cause(&self) -> Vec<(String, Vec<&Failure>)> {
        let mut groups: BTreeMap<String, Vec<&Failure>> = BTreeMap::new();
        for failure in &self.failures {
            let mut error: &dyn std::error::Error = &failure.error;
            while let Some(source) = error.source() {
                error = source;
            }
            groups.entry(error.to_string()).or_default().push(failure);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(cause, failures)| (Reverse(failures.len()), cause.clone()));
        groups
    }
}

/// The host that a fetch loads.
fn host(origin: &Origin) -> String {
    match origin {
        Origin::Repository(repository) => repository.registry().to_owned(),
        Origin::Layout(path) => path.clone(),
        Origin::Url(url) => url.split('/').nth(2).unwrap_or_default().to_owned(),
        Origin::Signature(_) => "the signature stores".to_owned(),
    }
}

/// The name of an origin, for people.
fn place(origin: &Origin) -> String {
    match origin {
        Origin::Repository(repository) => repository.to_string(),
        Origin::Layout(path) => format!("oci:{path}"),
        Origin::Url(url) => url.clone(),
        Origin::Signature(path) => format!("{path} in the signature stores"),
    }
}

/// Which fetches of the plan are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Manifests only: enough to know every size.
    Manifests,
    /// Everything.
    All,
}

/// Fetches what the plan names into `store`, growing the plan as manifests arrive.
///
/// # Errors
/// Only if the store cannot be read; what upstream does wrong is in the report.
pub fn realise(
    plan: &mut Plan,
    extent: Extent,
    upstream: &dyn Upstream,
    store: &(dyn Depot + Sync),
    limits: Limits,
    observer: Observer<'_>,
    stop: &AtomicBool,
) -> io::Result<Report> {
    let mut report = Report::default();
    let mut coordinator = Coordinator::new(extent, limits);
    for fetch in plan
        .nodes()
        .map(|node| node.fetch.clone())
        .collect::<Vec<_>>()
    {
        coordinator.admit(fetch, plan, store, &mut report, observer)?;
    }
    let tasks = Tasks::default();
    let (results, inbox) = mpsc::channel::<(Fetch, Result<Moved, FetchError>)>();
    let outcome = std::thread::scope(|scope| {
        for _ in 0..limits.workers.max(1) {
            let (tasks, results) = (&tasks, results.clone());
            scope.spawn(move || {
                while let Some(fetch) = tasks.next() {
                    let outcome =
                        fetch_one(&fetch, upstream, store, limits.attempts, observer, stop);
                    if results.send((fetch, outcome)).is_err() {
                        break;
                    }
                }
            });
        }
        let outcome = loop {
            if stop.load(Ordering::Relaxed) {
                report.stopped = true;
            } else {
                coordinator.dispatch(&tasks);
            }
            if coordinator.running == 0 {
                break Ok(());
            }
            let Ok((fetch, outcome)) = inbox.recv() else {
                break Ok(());
            };
            if let Err(error) = coordinator.take(fetch, outcome, plan, store, &mut report, observer)
            {
                break Err(error);
            }
        };
        tasks.close();
        outcome
    });
    outcome?;
    report.stopped |= stop.load(Ordering::Relaxed);
    for failure in &mut report.failures {
        failure.owners = plan.owners(&failure.blob.digest);
    }
    report.failures.sort_by_key(|failure| failure.blob);
    Ok(report)
}

/// Owns the queue.
struct Coordinator {
    extent: Extent,
    limits: Limits,
    known: HashSet<Digest>,
    queue: BinaryHeap<Queued>,
    busy: HashMap<String, usize>,
    running: usize,
    admitted: u64,
}

/// A fetch that waits: manifests before blobs, the largest blob first, then in the order of the plan.
struct Queued {
    fetch: Fetch,
    order: u64,
}

impl Queued {
    fn rank(&self) -> (bool, u64, Reverse<u64>) {
        let is_manifest = matches!(self.fetch.content, Content::Manifest { .. });
        (
            is_manifest,
            if is_manifest { 0 } else { self.fetch.blob.size },
            Reverse(self.order),
        )
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Coordinator {
    fn new(extent: Extent, limits: Limits) -> Self {
        Self {
            extent,
            limits,
            known: HashSet::new(),
            queue: BinaryHeap::new(),
            busy: HashMap::new(),
            running: 0,
            admitted: 0,
        }
    }

    /// Takes a fetch in: what the store has is read at once, the rest waits.
    fn admit(
        &mut self,
        fetch: Fetch,
        plan: &mut Plan,
        store: &dyn Depot,
        report: &mut Report,
        observer: Observer<'_>,
    ) -> io::Result<()> {
        let mut pending = vec![fetch];
        while let Some(fetch) = pending.pop() {
            let is_manifest = matches!(fetch.content, Content::Manifest { .. });
            if !is_manifest && self.extent == Extent::Manifests
                || !self.known.insert(fetch.blob.digest)
            {
                continue;
            }
            observer(Event::Planned {
                blobs: 1,
                bytes: fetch.blob.size,
            });
            if !store.holds(&fetch.blob)? {
                self.admitted += 1;
                self.queue.push(Queued {
                    order: self.admitted,
                    fetch,
                });
                continue;
            }
            report.present += 1;
            observer(Event::Done {
                digest: fetch.blob.digest,
                size: fetch.blob.size,
                present: true,
            });
            if is_manifest {
                match grow(plan, &fetch.blob, store)? {
                    Ok(new) => pending.extend(new.into_iter().rev()),
                    Err(error) => fail(fetch.blob, error, report, observer),
                }
            }
        }
        Ok(())
    }

    /// Hands out what may run now.
    fn dispatch(&mut self, tasks: &Tasks) {
        let mut held_back = Vec::new();
        while self.running < self.limits.workers.max(1) {
            let Some(queued) = self.queue.pop() else {
                break;
            };
            let host = queued.fetch.origins.first().map(host).unwrap_or_default();
            let busy = self.busy.entry(host).or_default();
            if *busy >= self.limits.per_host.max(1) {
                held_back.push(queued);
                continue;
            }
            *busy += 1;
            self.running += 1;
            tasks.push(queued.fetch);
        }
        self.queue.extend(held_back);
    }

    /// Takes a result in.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a fetch that is over belongs to nobody else"
    )]
    fn take(
        &mut self,
        fetch: Fetch,
        outcome: Result<Moved, FetchError>,
        plan: &mut Plan,
        store: &dyn Depot,
        report: &mut Report,
        observer: Observer<'_>,
    ) -> io::Result<()> {
        self.running -= 1;
        if let Some(busy) = self
            .busy
            .get_mut(&fetch.origins.first().map(host).unwrap_or_default())
        {
            *busy -= 1;
        }
        match outcome {
            Err(error) => {
                fail(fetch.blob, error, report, observer);
                return Ok(());
            }
            Ok(Moved::Present) => {
                report.present += 1;
                observer(Event::Done {
                    digest: fetch.blob.digest,
                    size: fetch.blob.size,
                    present: true,
                });
            }
            Ok(Moved::Written(bytes)) => {
                report.fetched += 1;
                report.bytes += bytes;
                observer(Event::Done {
                    digest: fetch.blob.digest,
                    size: fetch.blob.size,
                    present: false,
                });
            }
        }
        if matches!(fetch.content, Content::Manifest { .. }) {
            match grow(plan, &fetch.blob, store)? {
                Ok(new) => {
                    for fetch in new {
                        self.admit(fetch, plan, store, report, observer)?;
                    }
                }
                Err(error) => fail(fetch.blob, error, report, observer),
            }
        }
        Ok(())
    }
}

/// Reads a manifest that the store has, and grows the plan by it.
fn grow(
    plan: &mut Plan,
    blob: &Blob,
    store: &dyn Depot,
) -> io::Result<Result<Vec<Fetch>, FetchError>> {
    if plan
        .get(&blob.digest)
        .is_some_and(|node| node.manifest.is_some())
    {
        return Ok(Ok(Vec::new()));
    }
    match read(store, blob, MANIFEST_LIMIT) {
        Ok(bytes) => Ok(plan.read(&blob.digest, &bytes).map_err(FetchError::Plan)),
        Err(TransferError::Io { source, .. }) if source.kind() != io::ErrorKind::FileTooLarge => {
            Err(source)
        }
        Err(source) => Ok(Err(FetchError::Transfer {
            blob: *blob,
            place: "the store".to_owned(),
            source,
        })),
    }
}

fn fail(blob: Blob, error: FetchError, report: &mut Report, observer: Observer<'_>) {
    observer(Event::Failed {
        digest: blob.digest,
        cause: one_line(&error),
    });
    report.failures.push(Failure {
        blob,
        owners: Vec::new(),
        error,
    });
}

/// The fetches that workers wait for.
#[derive(Default)]
struct Tasks {
    state: Mutex<(Vec<Fetch>, bool)>,
    changed: Condvar,
}

impl Tasks {
    fn push(&self, fetch: Fetch) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .insert(0, fetch);
        self.changed.notify_one();
    }

    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }

    fn next(&self) -> Option<Fetch> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(fetch) = state.0.pop() {
                return Some(fetch);
            }
            if state.1 {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Ends a read early when told to stop; what came so far can be resumed.
struct Stoppable<'a> {
    inner: Box<dyn Read + Send + 'a>,
    stop: &'a AtomicBool,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            // Not `Interrupted`: readers take that for a signal and go on.
            return Err(io::Error::other("stopped"));
        }
        self.inner.read(buffer)
    }
}

/// A source whose readers end when told to stop.
struct StoppableSource<'a> {
    inner: &'a dyn Source,
    stop: &'a AtomicBool,
}

impl Source for StoppableSource<'_> {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        Ok(self.inner.open(blob, from)?.map(|inner| {
            Box::new(Stoppable {
                inner,
                stop: self.stop,
            }) as Box<dyn Read + Send + '_>
        }))
    }
}

/// Fetches one blob from the first of its origins that has it right.
pub(super) fn fetch_one(
    fetch: &Fetch,
    upstream: &dyn Upstream,
    store: &dyn Depot,
    attempts: u32,
    observer: Observer<'_>,
    stop: &AtomicBool,
) -> Result<Moved, FetchError> {
    let blob = fetch.blob;
    let digest = blob.digest;
    let mut last = None;
    let passed = |bytes| observer(Event::Bytes { digest, bytes });
    for origin in &fetch.origins {
        let source = match upstream.source(origin, &fetch.content) {
            Ok(source) => source,
            Err(source) => {
                last = Some(FetchError::Place {
                    place: place(origin),
                    source,
                });
                continue;
            }
        };
        let source = StoppableSource {
            inner: &*source,
            stop,
        };
        for attempt in 1..=attempts.max(1) {
            match transfer(&source, store, &blob, &passed) {
                Ok(moved) => return Ok(moved),
                Err(TransferError::Absent { .. }) => break,
                Err(error) => {
                    let again = attempt < attempts
                        && is_worth_another(&error)
                        && !stop.load(Ordering::Relaxed);
                    last = Some(FetchError::Transfer {
                        blob,
                        place: place(origin),
                        source: error,
                    });
                    if !again {
                        break;
                    }
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| FetchError::Absent {
        blob,
        places: fetch.origins.iter().map(place).collect(),
    }))
}

/// Whether the same place may do better: bytes that came wrong may come right.
fn is_worth_another(error: &TransferError) -> bool {
    match error {
        TransferError::Damaged { source, .. } => matches!(
            source,
            Damage::Wrong { .. } | Damage::Short { .. } | Damage::Long { .. }
        ),
        TransferError::Absent { .. } | TransferError::Io { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::graph::Root;
    use crate::store::memory::Memory;
    use std::sync::atomic::AtomicU32;

    /// An upstream in memory that lies now and then, and counts what it is asked.
    struct Fake {
        memory: Memory,
        lies: u32,
        asked: AtomicU32,
    }

    impl Source for Fake {
        fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
            let count = self.asked.fetch_add(1, Ordering::Relaxed);
            let Some(mut reader) = self.memory.open(blob, 0)? else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            if self.lies > 0 && count.is_multiple_of(self.lies) {
                bytes[0] ^= 1;
            }
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
            Ok(Some(Box::new(io::Cursor::new(bytes.split_off(from)))))
        }
    }

    impl Upstream for Fake {
        fn source(&self, _: &Origin, _: &Content) -> io::Result<Box<dyn Source + '_>> {
            struct By<'a>(&'a Fake);
            impl Source for By<'_> {
                fn open(
                    &self,
                    blob: &Blob,
                    from: u64,
                ) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
                    self.0.open(blob, from)
                }
            }
            Ok(Box::new(By(self)))
        }

        fn manifest(&self, _: &Repository, _: &Digest) -> io::Result<Option<Vec<u8>>> {
            Ok(None)
        }
    }

    fn world(lies: u32) -> (Fake, Vec<Root>) {
        let fake = Fake {
            memory: Memory::default(),
            lies,
            asked: AtomicU32::new(0),
        };
        let descriptor = |blob: Blob| {
            format!(
                r#"{{"mediaType":"x","digest":"{}","size":{}}}"#,
                blob.digest, blob.size
            )
        };
        let roots = (0..20_u8)
            .map(|image| {
                let layers: Vec<String> = (0..5_u8)
                    .map(|layer| descriptor(fake.memory.insert(&[image / 4, layer].repeat(1000))))
                    .collect();
                let config = descriptor(fake.memory.insert(format!("config {image}").as_bytes()));
                let manifest = format!(
                    r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#,
                    layers.join(",")
                );
                Root {
                    owner: format!("image {image}"),
                    fetch: Fetch {
                        blob: fake.memory.insert(manifest.as_bytes()),
                        content: Content::Manifest {
                            media_type: None,
                            platforms: Vec::new(),
                        },
                        origins: vec![Origin::Repository("quay.io/a/b".parse().unwrap())],
                    },
                }
            })
            .collect();
        (fake, roots)
    }

    fn run(fake: &Fake, roots: &[Root], store: &Memory, workers: usize) -> (Plan, Report) {
        let mut plan = Plan::of(roots.to_vec()).unwrap();
        let limits = Limits {
            workers,
            ..Limits::default()
        };
        let report = realise(
            &mut plan,
            Extent::All,
            fake,
            store,
            limits,
            &|_| (),
            &AtomicBool::new(false),
        )
        .unwrap();
        (plan, report)
    }

    #[test]
    fn every_digest_is_asked_for_once_whatever_refers_to_it() {
        let (fake, roots) = world(0);
        let store = Memory::default();
        let (plan, report) = run(&fake, &roots, &store, 16);
        assert!(
            report.failures.is_empty(),
            "nothing fails: {:?}",
            report.failures
        );
        let closure = plan.closure().unwrap();
        assert_eq!(
            closure.count() as u64,
            report.fetched,
            "everything is fetched"
        );
        assert_eq!(
            u64::from(fake.asked.load(Ordering::Relaxed)),
            report.fetched,
            "and each of it once"
        );
        let (_, again) = run(&fake, &roots, &store, 16);
        assert_eq!(
            (again.fetched, again.present),
            (0, report.fetched),
            "a repeated run asks for nothing"
        );
    }

    #[test]
    fn bytes_that_came_wrong_are_asked_for_again_and_never_stored() {
        let (fake, roots) = world(5);
        let store = Memory::default();
        let (plan, report) = run(&fake, &roots, &store, 4);
        assert!(
            report.failures.is_empty(),
            "a lie in five is outlived: {:?}",
            report.failures
        );
        for blob in plan.closure().unwrap().sorted() {
            read(&store, &blob, u64::MAX).expect("what is stored keeps its promise");
        }
    }

    #[test]
    fn a_failure_poisons_its_owners_and_nothing_else() {
        let (fake, mut roots) = world(0);
        roots.push(Root {
            owner: "missing".to_owned(),
            fetch: Fetch {
                blob: Blob::of(b"nowhere"),
                ..roots[0].fetch.clone()
            },
        });
        let store = Memory::default();
        let (_, report) = run(&fake, &roots, &store, 3);
        assert_eq!(report.failures.len(), 1, "one thing is missing");
        assert_eq!(
            report.failures[0].owners,
            ["missing"],
            "and one owner is affected"
        );
        assert!(
            report.failures[0].error.to_string().contains("quay.io/a/b"),
            "the error names where it looked"
        );
        assert_eq!(report.fetched, 20 + 20 + 25, "everything else arrived");
    }
}
