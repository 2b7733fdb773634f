//! Importing archives: prove, stage, adopt.
//!
//! 1. Every byte of the parts at hand is proven ([`crate::archive::verify`]); a damaged archive changes nothing.
//! 2. The newest archive that continues what was adopted here is chosen.
//! 3. Its blobs go where they belong, straight from the archive; what a destination has is not sent.
//! 4. Only when its whole closure is there do manifests, then tags, appear, and the head moves.
//!
//! Arrival in another order is therefore no error: what is there is staged, and [`Outcome::Incomplete`] says what to
//! bring. Repeating an import sends only what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::export::{ExportError, plan_from};
use super::push::{Item, PushFailure, Pushed, Registry, push};
use crate::archive::chain::{Chain, Decision, Head, Unrelated, decide};
use crate::archive::read::Metadata;
use crate::archive::verify::{self, Options};
use crate::archive::{Archive, ArchiveError, Failures, Manifest as ArchiveManifest, Set, Stream};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::Descriptor;
use crate::plan::graph::{Plan, PlanError, Root};
use crate::plan::lock::Lock;
use crate::plan::text::{self, LockError};
use crate::reference::ReferenceError;
use crate::run::each;
use crate::run::event::{Event, Observer};
use crate::run::resolve::release::{Unsigned, verify_pinned};
use crate::run::resolve::{placements, roots};
use crate::step::place::{Destination, Layout, PlaceError, refuse_collisions};
use crate::step::rule::{RuleError, Rules};
use crate::step::{Content, Fetch};
use crate::store::disk::Store;
use crate::store::roots::{Kind, Root as StoreRoot};
use crate::store::{Blob, Sink, Source, StoreError, TransferError, index, transfer};

/// Where an archive goes.
pub enum Target<'a> {
    /// The store itself.
    Store,
    /// An OCI layout on disk.
    Layout(&'a Store),
    /// A registry.
    Registry {
        /// The registry.
        registry: &'a dyn Registry,
        /// Its name and prefix.
        destination: &'a Destination,
    },
}

/// How to import.
pub struct Request<'a> {
    /// The parts at hand.
    pub set: &'a Set,
    /// The local store: it keeps locks, rules, manifests and heads; layers only where it is the target.
    pub store: &'a Store,
    /// Where to.
    pub target: Target<'a>,
    /// The name of that place in the store's records.
    pub site: String,
    /// How a registry is laid out.
    pub layout: Layout,
    /// Adopt an older archive than the head.
    pub allow_rollback: bool,
    /// Adopt a full archive of another chain.
    pub rebase: bool,
    /// The chain that joins what lies further apart than manifests remember.
    pub chain: Option<&'a Chain>,
    /// Transfers at once.
    pub workers: usize,
    /// Who watches.
    pub observer: Observer<'a>,
    /// Set to stop.
    pub stop: &'a AtomicBool,
}

/// What was adopted last, as the store keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHead {
    genesis: Digest,
    sequence: u64,
    archive_id: Digest,
    lock: Digest,
    ancestors: Vec<(u64, Digest)>,
}

/// One archive that was dealt with.
#[derive(Debug)]
pub struct Imported {
    /// The stream.
    pub stream: Stream,
    /// The sequence.
    pub sequence: u64,
    /// The archive's id.
    pub archive_id: Digest,
    /// The lock, to emit resources from.
    pub lock: Lock,
    /// The rules it names.
    pub rules: Rules,
    /// Whether it had been adopted before.
    pub already: bool,
    /// Sequences that were passed over because this one is newer.
    pub passed_over: Vec<u64>,
    /// Blobs that were sent.
    pub sent: u64,
    /// Bytes that were sent.
    pub bytes: u64,
    /// Blobs that were there or mounted.
    pub present: u64,
}

/// What came of one stream's archives.
#[derive(Debug)]
pub enum Outcome {
    /// One was adopted, or had been.
    Adopted(Box<Imported>),
    /// What is here is staged, but something is missing.
    Incomplete {
        /// The archive that comes next.
        manifest: Box<ArchiveManifest>,
        /// What is adopted, if anything is.
        adopted: Option<u64>,
        /// Parts of it that are not at hand.
        parts: Vec<u32>,
        /// Blobs that are nowhere, where that can be told.
        missing: Vec<Blob>,
    },
}

/// Why an import was refused.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is no archive.
    #[error("no archive is there")]
    Empty,
    /// A file has the name of a part but is none.
    #[error("a file cannot be taken into an archive")]
    Broken(#[source] Box<ArchiveError>),
    /// The archive does not prove itself.
    #[error("{stream} seq {sequence} is damaged")]
    Unproven {
        /// The stream.
        stream: Stream,
        /// The sequence.
        sequence: u64,
        /// What is wrong.
        source: Box<Failures>,
    },
    /// Two archives claim one place.
    #[error(
        "{stream} seq {sequence}: archive {theirs} claims the place of {ours}, which this site knows"
    )]
    Fork {
        /// The stream.
        stream: Stream,
        /// The place.
        sequence: u64,
        /// What is known here.
        ours: Digest,
        /// What claims it.
        theirs: Digest,
    },
    /// It is older than what was adopted.
    #[error("{stream} seq {sequence} is older than seq {adopted}, which this site has adopted")]
    Rollback {
        /// The stream.
        stream: Stream,
        /// The archive's.
        sequence: u64,
        /// What is adopted.
        adopted: u64,
    },
    /// Nothing shows that it continues what was adopted.
    #[error("{stream} seq {sequence} does not continue what this site has adopted: {}", why(*reason))]
    Unrelated {
        /// The stream.
        stream: Stream,
        /// The archive's.
        sequence: u64,
        /// Why.
        reason: Unrelated,
    },
    /// A member of a proven archive cannot be read.
    #[error("the archive cannot be read")]
    Archive(#[from] ArchiveError),
    /// The carried lock cannot be read.
    #[error("the carried lock cannot be read")]
    Lock(#[source] LockError),
    /// A carried rule file cannot be read.
    #[error("a carried rule file cannot be used")]
    Rule(#[from] RuleError),
    /// A rule file that the lock names is not in the archive, or is another.
    #[error("the archive does not carry rule file {rule} as the lock names it ({digest})")]
    RuleFile {
        /// The rule.
        rule: String,
        /// What the lock says.
        digest: Digest,
    },
    /// A signature that the lock pins does not hold.
    #[error("a carried release cannot be trusted")]
    Signature(#[from] Unsigned),
    /// The plan cannot be made.
    #[error("the carried lock cannot be planned")]
    Plan(#[from] PlanError),
    /// The manifests do not come to what the archive says.
    #[error("the carried manifests come to {found} blobs, the archive says {expected}")]
    Closure {
        /// What the archive says.
        expected: usize,
        /// What the manifests say.
        found: usize,
    },
    /// An image has no place.
    #[error("the images cannot all be placed")]
    Place(#[from] PlaceError),
    /// A place is no repository.
    #[error("a placed image has no valid name at the destination")]
    Name(#[from] ReferenceError),
    /// A blob could not be moved.
    #[error("a blob could not be staged")]
    Transfer(#[from] TransferError),
    /// The plan of a stored lock cannot be made.
    #[error("the lock that is adopted cannot be planned")]
    Stored(#[from] ExportError),
    /// The registry refused something.
    #[error("{} could not be put; no tag was moved", failures.len())]
    Push {
        /// What, and why.
        failures: Vec<PushFailure>,
    },
    /// The store failed.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The store failed in another way.
    #[error("the store cannot be used")]
    Io(#[from] io::Error),
    /// A record of the store has another form.
    #[error("the record of what {site} has adopted is malformed")]
    Record {
        /// The site.
        site: String,
        /// Why.
        source: serde_json::Error,
    },
    /// It was told to stop.
    #[error("stopped; what was sent is kept")]
    Stopped,
}

const fn why(reason: Unrelated) -> &'static str {
    match reason {
        Unrelated::Stream => "it is of another stream",
        Unrelated::Genesis => "its stream began with another lock",
        Unrelated::Distance => "the adopted archive is older than those it remembers",
    }
}

impl ImportError {
    /// Whether it is about trust: the archive is damaged, forked, older or unrelated.
    #[must_use]
    pub const fn is_verification(&self) -> bool {
        matches!(
            self,
            Self::Broken(_)
                | Self::Unproven { .. }
                | Self::Fork { .. }
                | Self::Rollback { .. }
                | Self::Unrelated { .. }
                | Self::RuleFile { .. }
                | Self::Signature(_)
                | Self::Closure { .. }
                | Self::Archive(_)
        )
    }
}

impl Hint for ImportError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Broken(source) => source.hint(),
            Self::Unproven { source, .. } => source.hint(),
            Self::Fork { .. } => Some("two exports were made from one point; find out which is right, and have the other side export again".to_owned()),
            Self::Rollback { .. } => Some("add --allow-rollback if this site is to go back".to_owned()),
            Self::Unrelated { .. } => Some("have the other side export with --full, and import that with --rebase".to_owned()),
            Self::Archive(source) => source.hint(),
            Self::Store(source) => source.hint(),
            Self::Place(source) => source.hint(),
            Self::Stopped => Some("run the same import again to go on".to_owned()),
            Self::Push { .. } => Some("mend the cause and run the same import again: it sends only what is missing".to_owned()),
            _ => None,
        }
    }
}

/// Imports every stream of a set, each to its newest complete archive.
///
/// # Errors
/// If an archive is damaged, forked, older or unrelated, or a place fails. What is visible at the destination is then
/// as it was before.
pub fn import(request: &Request<'_>) -> Result<Vec<Outcome>, ImportError> {
    if let Some(error) = request.set.broken().first() {
        return Err(ImportError::Broken(Box::new(copy_of(error))));
    }
    if request.set.archives().is_empty() {
        return Err(ImportError::Empty);
    }
    let mut streams: BTreeMap<&Stream, Vec<&Archive>> = BTreeMap::new();
    for archive in request.set.archives() {
        streams.entry(archive.stream()).or_default().push(archive);
    }
    streams
        .into_iter()
        .map(|(stream, archives)| import_stream(request, stream, &archives))
        .collect()
}

/// The set keeps its errors; what is reported is their text and place.
fn copy_of(error: &ArchiveError) -> ArchiveError {
    ArchiveError::Io {
        path: error
            .file()
            .map(std::path::Path::to_owned)
            .unwrap_or_default(),
        doing: "taken into an archive",
        source: io::Error::new(
            io::ErrorKind::InvalidData,
            crate::run::event::one_line(error),
        ),
    }
}

fn head_name(site: &str) -> String {
    format!("head {site}")
}

fn import_stream(
    request: &Request<'_>,
    stream: &Stream,
    archives: &[&Archive],
) -> Result<Outcome, ImportError> {
    let records = request.store.stream(stream.as_str())?;
    let _lock = records.lock()?;
    let stored: Option<StoredHead> = match records.read(&head_name(&request.site))? {
        None => None,
        Some(bytes) => {
            Some(
                serde_json::from_slice(&bytes).map_err(|source| ImportError::Record {
                    site: request.site.clone(),
                    source,
                })?,
            )
        }
    };
    let head = stored.as_ref().map(|stored| Head {
        stream: stream.clone(),
        genesis: stored.genesis,
        sequence: stored.sequence,
        archive_id: stored.archive_id,
        ancestors: stored.ancestors.clone(),
    });
    let mut candidates = Vec::new();
    let mut older = None;
    for archive in archives {
        let manifest = archive.manifest();
        match decide(head.as_ref(), manifest, request.chain) {
            Decision::First | Decision::Next | Decision::AlreadyAdopted => {
                candidates.push(*archive)
            }
            Decision::Older if request.allow_rollback => candidates.push(*archive),
            Decision::Older => older = Some(manifest.sequence),
            Decision::Fork {
                sequence,
                ours,
                theirs,
            } => {
                return Err(ImportError::Fork {
                    stream: stream.clone(),
                    sequence,
                    ours,
                    theirs,
                });
            }
            Decision::Unrelated(_) if request.rebase && manifest.is_full() => {
                candidates.push(*archive)
            }
            Decision::Unrelated(reason) => {
                return Err(ImportError::Unrelated {
                    stream: stream.clone(),
                    sequence: manifest.sequence,
                    reason,
                });
            }
        }
    }
    // Two archives at hand that claim one place are a fork, too, whatever was adopted.
    for pair in candidates.windows(2) {
        if pair[0].manifest().sequence == pair[1].manifest().sequence {
            return Err(ImportError::Fork {
                stream: stream.clone(),
                sequence: pair[0].manifest().sequence,
                ours: pair[0].archive_id(),
                theirs: pair[1].archive_id(),
            });
        }
    }
    let Some(newest) = candidates.last().copied() else {
        let adopted = stored.as_ref().map_or(0, |stored| stored.sequence);
        return Err(ImportError::Rollback {
            stream: stream.clone(),
            sequence: older.unwrap_or(0),
            adopted,
        });
    };
    for archive in archives {
        prove(request, archive)?;
    }
    let adopted = stored.as_ref().map(|stored| stored.sequence);
    let mut last = None;
    // The newest whose closure is complete; those between count as passed over.
    for archive in candidates.iter().rev().copied() {
        match adopt(request, archive, archives, stored.as_ref())? {
            Outcome::Adopted(mut imported) => {
                imported.passed_over = archives
                    .iter()
                    .map(|other| other.manifest().sequence)
                    .filter(|sequence| *sequence < imported.sequence)
                    .collect();
                let head = StoredHead {
                    genesis: archive.manifest().genesis,
                    sequence: imported.sequence,
                    archive_id: imported.archive_id,
                    lock: archive.manifest().lock.digest,
                    ancestors: archive.manifest().ancestors.clone(),
                };
                let bytes = serde_json::to_vec(&head).map_err(io::Error::from)?;
                let root = StoreRoot {
                    kind: Kind::Adopted,
                    lock: archive.manifest().lock,
                };
                request
                    .store
                    .roots()
                    .set(&format!("adopted {stream} {}", request.site), &root)?;
                records.write(&head_name(&request.site), &bytes)?;
                return Ok(Outcome::Adopted(imported));
            }
            Outcome::Incomplete {
                manifest,
                parts,
                missing,
                ..
            } => {
                if archive.archive_id() == newest.archive_id() {
                    last = Some(Outcome::Incomplete {
                        manifest,
                        adopted,
                        parts,
                        missing,
                    });
                }
                // Falling back never goes behind what is adopted already.
                if adopted.is_some_and(|adopted| archive.manifest().sequence <= adopted) {
                    break;
                }
            }
        }
    }
    last.ok_or(ImportError::Empty)
}

/// Proves every byte of the parts at hand.
fn prove(request: &Request<'_>, archive: &Archive) -> Result<(), ImportError> {
    (request.observer)(Event::Phase { phase: "verify" });
    let bytes: u64 = archive.parts().map(crate::archive::Part::size).sum();
    (request.observer)(Event::Planned {
        blobs: archive.parts().count() as u64,
        bytes,
    });
    let options = Options {
        stop: Some(request.stop),
        ..Options::default()
    };
    let id = archive.archive_id();
    let progress = |bytes| (request.observer)(Event::Bytes { digest: id, bytes });
    match verify::verify(archive, &options, &progress) {
        Ok(_) => Ok(()),
        Err(mut failures) => {
            if failures
                .errors
                .iter()
                .any(|error| matches!(error, ArchiveError::Stopped))
            {
                return Err(ImportError::Stopped);
            }
            // A part that is still to come is no damage.
            failures
                .errors
                .retain(|error| !matches!(error, ArchiveError::Missing { .. }));
            if failures.errors.is_empty() && failures.more == 0 {
                return Ok(());
            }
            let manifest = archive.manifest();
            Err(ImportError::Unproven {
                stream: manifest.stream.clone(),
                sequence: manifest.sequence,
                source: Box::new(failures),
            })
        }
    }
}

/// Stages one archive and adopts it if nothing is missing.
fn adopt(
    request: &Request<'_>,
    archive: &Archive,
    at_hand: &[&Archive],
    stored: Option<&StoredHead>,
) -> Result<Outcome, ImportError> {
    let manifest = archive.manifest();
    let incomplete = |parts: Vec<u32>, missing: Vec<Blob>| Outcome::Incomplete {
        manifest: Box::new(manifest.clone()),
        adopted: None,
        parts,
        missing,
    };
    if archive.part(1).is_none() {
        return Ok(incomplete(archive.missing(), Vec::new()));
    }
    let metadata = archive.metadata()?;
    let (lock, rules) = read_lock(&metadata)?;
    let blobs = crate::archive::read::Blobs::of(at_hand.iter().copied());
    (request.observer)(Event::Phase { phase: "import" });
    // Manifests, lock and rules are small, and everything that follows is computed from them.
    let carried: BTreeSet<Blob> = metadata.provides.iter().copied().collect();
    request.store.insert(&metadata.lock)?;
    for (_, bytes) in &metadata.rules {
        request.store.insert(bytes)?;
    }
    let Some(plan) = stage_manifests(request.store, &lock, &blobs)? else {
        return Ok(incomplete(archive.missing(), Vec::new()));
    };
    let closure = plan.closure()?;
    let rule_blobs: Vec<Blob> = metadata
        .rules
        .iter()
        .map(|(_, bytes)| Blob::of(bytes))
        .collect();
    let mut all: BTreeSet<Blob> = closure.sorted().into_iter().collect();
    all.extend(&rule_blobs);
    if !all.iter().eq(metadata.closure.iter()) {
        return Err(ImportError::Closure {
            expected: metadata.closure.len(),
            found: all.len(),
        });
    }
    // Signatures, keys and other files stay in the local store, wherever the images go: they are small, and belong to no
    // repository.
    let missing = stage_files(request.store, &lock, &blobs)?;
    if !missing.is_empty() {
        return Ok(incomplete(archive.missing(), missing));
    }
    verify_pinned(&lock, &rules, request.store, &|digest| {
        let size = request.store.size_of(digest).ok()??;
        let blob = Blob {
            digest: *digest,
            size,
        };
        crate::store::read(request.store, &blob, 1 << 20).ok()
    })?;
    let result = match &request.target {
        Target::Store => stage(request, request.store, &metadata.closure, &carried, &blobs)?,
        Target::Layout(layout) => stage(request, layout, &metadata.closure, &carried, &blobs)?,
        Target::Registry {
            registry,
            destination,
        } => {
            let items = items(&lock, &rules, &plan, destination, &request.layout)?;
            let lenders = lenders(request, stored, destination)?;
            let pushed = push(
                &items,
                *registry,
                request.store,
                &blobs,
                &lenders,
                request.workers,
                request.observer,
                request.stop,
            )?;
            Staged::of(pushed)?
        }
    };
    if !result.missing.is_empty() {
        return Ok(incomplete(archive.missing(), result.missing));
    }
    let descriptors = index::parse(&metadata.index)
        .map_err(|text| ImportError::Io(io::Error::new(io::ErrorKind::InvalidData, text)))?;
    match &request.target {
        Target::Store => publish(request.store, descriptors)?,
        Target::Layout(layout) => publish(layout, descriptors)?,
        Target::Registry { .. } => {}
    }
    Ok(Outcome::Adopted(Box::new(Imported {
        stream: manifest.stream.clone(),
        sequence: manifest.sequence,
        archive_id: archive.archive_id(),
        lock,
        rules,
        already: stored.is_some_and(|stored| stored.archive_id == archive.archive_id()),
        passed_over: Vec::new(),
        sent: result.sent,
        bytes: result.bytes,
        present: result.present,
    })))
}

/// The lock and the rules that an archive carries, each the very one that the lock names.
fn read_lock(metadata: &Metadata) -> Result<(Lock, Rules), ImportError> {
    let text = String::from_utf8_lossy(&metadata.lock);
    let lock = text::parse(&text, "imgbuild/lock.toml").map_err(ImportError::Lock)?;
    let mut texts = Vec::new();
    for (rule, digest) in &lock.rules {
        let file = PathBuf::from(format!("{rule}.toml"));
        let carried = metadata
            .rules
            .iter()
            .find(|(name, bytes)| PathBuf::from(name) == file && Digest::of(bytes) == *digest);
        let Some((_, bytes)) = carried else {
            return Err(ImportError::RuleFile {
                rule: rule.clone(),
                digest: *digest,
            });
        };
        texts.push((rule.clone(), String::from_utf8_lossy(bytes).into_owned()));
    }
    Ok((lock, Rules::with(texts)?))
}

/// Brings the manifests into the store and makes the plan; `None` if some of them are in a part that is not at hand.
fn stage_manifests(
    store: &Store,
    lock: &Lock,
    blobs: &dyn Source,
) -> Result<Option<Plan>, ImportError> {
    let mut plan = Plan::of(roots(lock))?;
    loop {
        let unread = plan.unread();
        if unread.is_empty() {
            return Ok(Some(plan));
        }
        for fetch in unread {
            match transfer(blobs, store, &fetch.blob, &|_| ()) {
                Ok(_) => {}
                Err(TransferError::Absent { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            let bytes = crate::store::read(store, &fetch.blob, crate::oci::MANIFEST_LIMIT)?;
            plan.read(&fetch.blob.digest, &bytes)?;
        }
    }
}

/// Brings what is no part of an image into the store; answers what is nowhere.
fn stage_files(store: &Store, lock: &Lock, blobs: &dyn Source) -> Result<Vec<Blob>, ImportError> {
    let mut missing = Vec::new();
    for root in roots(lock) {
        if root.fetch.content != Content::Opaque {
            continue;
        }
        match transfer(blobs, store, &root.fetch.blob, &|_| ()) {
            Ok(_) => {}
            Err(TransferError::Absent { blob }) => missing.push(blob),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(missing)
}

/// What staging brought.
#[derive(Default)]
struct Staged {
    sent: u64,
    bytes: u64,
    present: u64,
    missing: Vec<Blob>,
}

impl Staged {
    fn of(pushed: Pushed) -> Result<Self, ImportError> {
        if pushed.stopped {
            return Err(ImportError::Stopped);
        }
        if !pushed.failures.is_empty() {
            return Err(ImportError::Push {
                failures: pushed.failures,
            });
        }
        Ok(Self {
            sent: pushed.sent,
            bytes: pushed.bytes,
            present: pushed.present + pushed.mounted,
            missing: pushed.missing,
        })
    }
}

/// Brings blobs into a store or a layout.
fn stage(
    request: &Request<'_>,
    sink: &Store,
    closure: &[Blob],
    carried: &BTreeSet<Blob>,
    blobs: &dyn Source,
) -> Result<Staged, ImportError> {
    let mut wanted: Vec<Blob> = closure
        .iter()
        .copied()
        .filter(|blob| carried.contains(blob))
        .collect();
    wanted.extend(
        closure
            .iter()
            .copied()
            .filter(|blob| !carried.contains(blob)),
    );
    for blob in &wanted {
        (request.observer)(Event::Planned {
            blobs: 1,
            bytes: blob.size,
        });
    }
    let staged = Mutex::new(Staged::default());
    let failed: Mutex<Option<TransferError>> = Mutex::new(None);
    let halt = AtomicBool::new(false);
    let local = Both {
        first: blobs,
        second: request.store,
    };
    each(wanted.len(), request.workers, &halt, |index| {
        let blob = &wanted[index];
        if request.stop.load(std::sync::atomic::Ordering::Relaxed) {
            halt.store(true, std::sync::atomic::Ordering::Relaxed);
            return;
        }
        let passed = |bytes| {
            (request.observer)(Event::Bytes {
                digest: blob.digest,
                bytes,
            })
        };
        let outcome = transfer(&local, sink, blob, &passed);
        let mut staged = staged.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(crate::store::Moved::Present) => staged.present += 1,
            Ok(crate::store::Moved::Written(bytes)) => {
                staged.sent += 1;
                staged.bytes += bytes;
            }
            Err(TransferError::Absent { .. }) => staged.missing.push(*blob),
            Err(error) => {
                failed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
                halt.store(true, std::sync::atomic::Ordering::Relaxed);
                return;
            }
        }
        (request.observer)(Event::Done {
            digest: blob.digest,
            size: blob.size,
            present: false,
        });
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error.into());
    }
    if request.stop.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(ImportError::Stopped);
    }
    let mut staged = staged.into_inner().unwrap_or_else(PoisonError::into_inner);
    staged.missing.sort();
    Ok(staged)
}

/// Two places, asked in turn.
struct Both<'a> {
    first: &'a dyn Source,
    second: &'a dyn Source,
}

impl Source for Both<'_> {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        match self.first.open(blob, from)? {
            Some(bytes) => Ok(Some(bytes)),
            None => self.second.open(blob, from),
        }
    }
}

/// Makes images visible in a store or layout: those of other streams stay.
fn publish(store: &Store, images: Vec<Descriptor>) -> Result<(), ImportError> {
    let name = |image: &Descriptor| image.annotations.get(crate::oci::REF_NAME).cloned();
    let names: BTreeSet<Option<String>> = images.iter().map(name).collect();
    let mut index = store.index()?;
    index.retain(|image| {
        !names.contains(&name(image)) && store.holds(&Blob::from(image)).unwrap_or(false)
    });
    index.extend(images);
    store.write_index(&index)?;
    Ok(())
}

/// The images of a lock at their places in a registry.
///
/// # Errors
/// If one has no place, or two collide there.
pub fn items(
    lock: &Lock,
    rules: &Rules,
    plan: &Plan,
    destination: &Destination,
    layout: &Layout,
) -> Result<Vec<Item>, ImportError> {
    let placements = placements(lock, rules, layout)?;
    refuse_collisions(&placements, &destination.prefix, layout)?;
    let mut items = Vec::new();
    for placement in placements {
        let path = layout.limit(&destination.join(&placement.path));
        crate::reference::Repository::new(&destination.registry, &path)?;
        let root = Root {
            owner: placement.owner,
            fetch: Fetch {
                blob: Blob {
                    digest: placement.digest,
                    size: placement.size,
                },
                content: Content::Manifest {
                    media_type: None,
                    platforms: placement.platforms,
                },
                origins: Vec::new(),
            },
        };
        let manifests = plan
            .manifests_of(&root)?
            .into_iter()
            .map(|(blob, manifest)| (blob, manifest.clone()))
            .collect();
        items.push(Item {
            name: placement.origin.to_string(),
            path,
            tag: placement.tag,
            manifests,
        });
    }
    Ok(items)
}

/// Repositories that hold blobs already, because the adopted lock placed them there.
fn lenders(
    request: &Request<'_>,
    stored: Option<&StoredHead>,
    destination: &Destination,
) -> Result<BTreeMap<Digest, BTreeSet<String>>, ImportError> {
    let mut lenders: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    let Some(stored) = stored else {
        return Ok(lenders);
    };
    let Some(size) = request.store.size_of(&stored.lock)? else {
        return Ok(lenders);
    };
    let bytes = crate::store::read(
        request.store,
        &Blob {
            digest: stored.lock,
            size,
        },
        64 << 20,
    )?;
    let Ok(lock) = text::parse(&String::from_utf8_lossy(&bytes), "the adopted lock") else {
        return Ok(lenders);
    };
    let texts: Option<Vec<(String, String)>> = lock
        .rules
        .iter()
        .map(|(name, digest)| {
            let size = request.store.size_of(digest).ok()??;
            let bytes = crate::store::read(
                request.store,
                &Blob {
                    digest: *digest,
                    size,
                },
                1 << 20,
            )
            .ok()?;
            Some((name.clone(), String::from_utf8(bytes).ok()?))
        })
        .collect();
    let Some(texts) = texts else {
        return Ok(lenders);
    };
    let rules = Rules::with(texts)?;
    let plan = plan_from(&lock, request.store, request.store)?;
    for item in items(&lock, &rules, &plan, destination, &request.layout)? {
        for (_, manifest) in &item.manifests {
            if let crate::oci::Manifest::Image(image) = manifest {
                for blob in image.blobs() {
                    lenders
                        .entry(blob.digest)
                        .or_default()
                        .insert(item.path.clone());
                }
            }
        }
    }
    Ok(lenders)
}

/// What to do about an archive that is not complete, for people.
#[must_use]
pub fn what_to_bring(
    manifest: &ArchiveManifest,
    adopted: Option<u64>,
    parts: &[u32],
    missing: &[Blob],
) -> String {
    use std::fmt::Write as _;
    let stream = &manifest.stream;
    let sequence = manifest.sequence;
    let bytes: u64 = missing.iter().map(|blob| blob.size).sum();
    let mut text = if missing.is_empty() {
        format!("{stream} seq {sequence} cannot be adopted yet: parts of it are not here.")
    } else {
        format!(
            "{stream} seq {sequence} is staged but cannot be adopted: {} blobs ({bytes} bytes) are not here.",
            missing.len()
        )
    };
    let _ = match adopted {
        Some(adopted) => write!(text, "\n  adopted here: seq {adopted}."),
        None => write!(text, "\n  adopted here: nothing."),
    };
    if !parts.is_empty() {
        let parts: Vec<String> = parts.iter().map(|part| format!("{part:04}")).collect();
        let _ = write!(
            text,
            "\n  bring the missing parts of this archive: {}",
            parts.join(", ")
        );
    }
    if !missing.is_empty() && !manifest.bases.is_empty() {
        let names: Vec<String> = manifest
            .bases
            .iter()
            .map(|base| {
                base.sequence.map_or_else(
                    || format!("the lock {}", base.lock.short()),
                    |sequence| format!("seq {sequence}"),
                )
            })
            .collect();
        let _ = write!(
            text,
            "\n  this archive applies on top of {}.",
            names.join(" or ")
        );
        let archives: Vec<String> = manifest
            .bases
            .iter()
            .filter_map(|base| base.sequence)
            .filter_map(|sequence| {
                manifest
                    .ancestors
                    .iter()
                    .find(|(ancestor, _)| *ancestor == sequence)
            })
            .map(|(sequence, id)| format!("{stream}_seq{sequence:06} (id {})", id.short()))
            .collect();
        if !archives.is_empty() {
            let _ = write!(text, "\n  bring {}", archives.join(" or "));
        }
        let command = adopted.map_or_else(
            || "imgbuild export --full".to_owned(),
            |adopted| format!("imgbuild export --for {adopted}    (or --full)"),
        );
        let _ = write!(text, "\n  or one archive made with:  {command}");
    }
    text
}
