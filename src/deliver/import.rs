//! Importing archives: prove, stage, adopt.
//!
//! 1. The newest archive that continues what was adopted here is chosen; its lock, rules and manifests, which are
//!    small, are read first, each held to its digest, and tell where every blob belongs.
//! 2. Every byte of the parts at hand is proven ([`crate::archive::verify`]) in one pass from front to back; blobs
//!    that the destination lacks go there as they pass, straight from the archive.
//! 3. A blob that came another way, or is there already, is asked for or mounted.
//! 4. Only when every byte was proven and the whole closure is there do manifests, then tags, appear, and the head
//!    moves. A damaged archive leaves blobs that nothing names, each of them right, and changes nothing else.
//!
//! Parts may come one after another, a disk at a time. What part 1 says is kept in the store; blobs are staged at the
//! destination, where nothing names them yet; spans of blobs that were cut are kept in the store until the last of them
//! is here ([`super::staged`]). Whichever disk completes the closure adopts it.
//!
//! What is read twice: the manifests; a blob whose upload broke off; and where the newest archive is incomplete and
//! an older one is adopted instead, what only that one needs.
//!
//! Arrival in another order is therefore no error: what is there is staged, and [`Outcome::Incomplete`] says what to
//! bring. Repeating an import sends only what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::export::{ExportError, plan_from};
use super::head::{self, AdoptedHead, HeadError};
use super::push::{self, Item, Manner, PushFailure, Pushed, Pushing, Registry};
use super::staged;
use crate::archive::chain::{Chain, Decision, Unrelated, decide};
use crate::archive::read::Blobs;
use crate::archive::read::Metadata;
use crate::archive::seal::Trust;
use crate::archive::verify::{self, Options, Passing, Taker};
use crate::archive::{Archive, ArchiveError, Failures, Manifest as ArchiveManifest, Set, Stream};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::Descriptor;
use crate::plan::graph::{Plan, PlanError, Root};
use crate::plan::lock::{Block, ChartSource, Lock};
use crate::plan::text::{self, LockError};
use crate::reference::{ReferenceError, Tag};
use crate::registry::client::Try;
use crate::run::built::{self, BuildError, Built};
use crate::run::each;
use crate::run::event::{Event, Observer, advice, joined_advice};
use crate::run::resolve::release::{Unsigned, verify_pinned};
use crate::run::resolve::signed::{self, Unvouched};
use crate::run::resolve::{placements, roots};
use crate::step::place::{Destination, Layout, PlaceError, refuse_collisions};
use crate::step::rule::{RuleError, Rules};
use crate::step::{Content, Fetch};
use crate::store::disk::Store;
use crate::store::memory::Memory;
use crate::store::roots::{Kind, Root as StoreRoot};
use crate::store::{Blob, Moved, Sink, Source, StoreError, TransferError, index, transfer};

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
    /// The chain that joins what lies further apart than manifests remember; archives on it must be the ones it records.
    pub chain: Option<&'a Chain>,
    /// Whom to trust: each archive must then be sealed.
    pub trust: Option<&'a Trust<'a>>,
    /// Transfers at once.
    pub workers: usize,
    /// Who watches.
    pub observer: Observer<'a>,
    /// Set to stop.
    pub stop: &'a AtomicBool,
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
    /// The digest of its lock.
    pub lock_digest: Digest,
    /// The lock, to emit resources from.
    pub lock: Lock,
    /// What was made of it.
    pub built: Vec<Built>,
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
    /// Why the destination does not keep its head itself, if it refused to.
    pub no_head: Option<String>,
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
    /// What was built does not answer the lock.
    #[error("what was built does not answer the lock")]
    Built(#[from] BuildError),
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
    /// An image that must be signed is not.
    #[error("a carried image cannot be trusted")]
    Unvouched(#[from] Unvouched),
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
    Stored(#[source] Box<ExportError>),
    /// The registry refused something.
    #[error("{} could not be put; no tag was moved", failures.len())]
    Push {
        /// What, and why.
        failures: Vec<PushFailure>,
        /// Whether blobs are staged there, by this run or an earlier one.
        is_staged: bool,
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
    /// What the destination keeps as its head is something else.
    #[error("{place} is not what this site has adopted")]
    Head {
        /// Where it is.
        place: String,
        /// Why.
        source: HeadError,
    },
    /// The destination cannot be asked for its head.
    #[error("{place} cannot be read")]
    HeadUnread {
        /// Where it is.
        place: String,
        /// Why.
        source: io::Error,
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

impl From<ExportError> for ImportError {
    fn from(error: ExportError) -> Self {
        Self::Stored(Box::new(error))
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
                | Self::Unvouched(_)
                | Self::Head { .. }
                | Self::Closure { .. }
                | Self::Archive(_)
        )
    }
}

impl ImportError {
    /// Whether something is staged, and running the same import again may complete it. What was refused stays refused
    /// until somebody changes it, so that is an error.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        match self {
            Self::Stopped => true,
            Self::Push {
                failures,
                is_staged,
            } => {
                *is_staged
                    && failures
                        .iter()
                        .all(|failure| !push::is_refusal(&failure.source))
            }
            _ => false,
        }
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
            Self::Head { place, .. } => Some(format!("look at {place}; if nobody needs it, delete it there and import again")),
            Self::Stopped => Some("run the same import again to go on".to_owned()),
            Self::HeadUnread { source, .. } => Some(joined_advice(
                [advice(source), None],
                "mend the cause and run the same import again: it sends only what is missing",
            )),
            Self::Push { failures, .. } => Some(joined_advice(
                failures.iter().map(|failure| advice(&failure.source)).chain([None]),
                "mend the cause and run the same import again: it sends only what is missing",
            )),
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

/// The repository of a registry that keeps heads, and its name for people.
fn head_place(request: &Request<'_>, destination: &Destination) -> (String, String) {
    let path = request.layout.limit(&destination.join(head::REPOSITORY));
    let place = format!("{}/{path}", destination.registry);
    (path, place)
}

/// What the destination itself says it has adopted; a store is its own record.
fn read_head(request: &Request<'_>, stream: &Stream) -> Result<Option<AdoptedHead>, ImportError> {
    let (place, bytes) = match &request.target {
        Target::Store => return Ok(None),
        Target::Layout(layout) => {
            let name = format!("{}:{stream}", head::REPOSITORY);
            let index = layout.index()?;
            let found = index
                .iter()
                .find(|image| image.annotations.get(crate::oci::REF_NAME) == Some(&name));
            let bytes = match found {
                Some(image) => Some(crate::store::read(
                    *layout,
                    &Blob::from(image),
                    crate::oci::MANIFEST_LIMIT,
                )?),
                None => None,
            };
            (format!("{name} in {}", layout.path().display()), bytes)
        }
        Target::Registry {
            registry,
            destination,
        } => {
            let (path, place) = head_place(request, destination);
            let tag = head_tag(stream)?;
            let bytes = registry
                .repository(&path)
                .and_then(|repository| repository.tagged(&tag))
                .map_err(|source| ImportError::HeadUnread {
                    place: format!("{place}:{stream}"),
                    source,
                })?;
            (format!("{place}:{stream}"), bytes)
        }
    };
    bytes
        .map(|bytes| AdoptedHead::of_artifact(&bytes, stream))
        .transpose()
        .map_err(|source| ImportError::Head { place, source })
}

fn head_tag(stream: &Stream) -> Result<Tag, ImportError> {
    // A stream's name is a tag unless it begins with a hyphen.
    Ok(stream.as_str().parse()?)
}

/// Has the destination keep its head; why it would not, if it refused.
fn write_head(
    request: &Request<'_>,
    stream: &Stream,
    adopted: &AdoptedHead,
) -> Result<Option<String>, ImportError> {
    let artifact = adopted.artifact(stream);
    match &request.target {
        Target::Store => Ok(None),
        Target::Layout(layout) => {
            layout.insert(head::EMPTY)?;
            let blob = layout.insert(&artifact)?;
            let name = format!("{}:{stream}", head::REPOSITORY);
            let image = Descriptor {
                media_type: crate::oci::OCI_MANIFEST.to_owned(),
                digest: blob.digest,
                size: blob.size,
                platform: None,
                artifact_type: Some(head::ARTIFACT_TYPE.to_owned()),
                urls: Vec::new(),
                annotations: BTreeMap::from([(crate::oci::REF_NAME.to_owned(), name)]),
            };
            publish(layout, vec![image])?;
            Ok(None)
        }
        Target::Registry {
            registry,
            destination,
        } => {
            let (path, _) = head_place(request, destination);
            let tag = head_tag(stream)?;
            let empty = Memory::default();
            let blob = empty.insert(head::EMPTY);
            let put = || -> io::Result<()> {
                let repository = registry.repository(&path)?;
                repository
                    .send(&empty, &blob, Try::Ask(None), &|_| ())
                    .map_err(io::Error::other)?;
                repository.put_manifest(&artifact, crate::oci::OCI_MANIFEST, Some(&tag))
            };
            // The images are adopted, whatever the registry thinks of artifacts.
            Ok(put().err().map(|error| crate::run::event::one_line(&error)))
        }
    }
}

fn import_stream(
    request: &Request<'_>,
    stream: &Stream,
    archives: &[&Archive],
) -> Result<Outcome, ImportError> {
    let records = request.store.stream(stream.as_str())?;
    let _lock = records.lock()?;
    // An archive that nobody vouches for is not even looked into.
    if let Some(trust) = request.trust {
        for archive in archives {
            archive.sealed(trust)?;
        }
    }
    let ours: Option<AdoptedHead> = match records.read(&head_name(&request.site))? {
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
    let theirs = read_head(request, stream)?;
    let stored = head::newer(ours, theirs.clone(), request.chain).map_err(|forked| {
        let head::Forked {
            sequence,
            ours,
            theirs,
        } = forked;
        ImportError::Fork {
            stream: stream.clone(),
            sequence,
            ours,
            theirs,
        }
    })?;
    let head = stored.as_ref().map(|stored| stored.on_chain(stream));
    let mut candidates = Vec::new();
    let mut older = None;
    for archive in archives {
        let manifest = archive.manifest();
        match decide(head.as_ref(), manifest, request.chain) {
            Decision::First | Decision::Next | Decision::AlreadyAdopted => {
                candidates.push(*archive);
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
                candidates.push(*archive);
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
    let begun = format!("begun {}", request.site);
    let is_first = stored.is_none() && records.read(&begun)?.is_none();
    if is_first {
        records.write(&begun, b"")?;
    }
    let mut proof = Proof {
        request,
        archives,
        is_made: false,
    };
    let adopted = stored.as_ref().map(|stored| stored.sequence);
    let mut last = None;
    // The newest whose closure is complete; those between count as passed over.
    for archive in candidates.iter().rev().copied() {
        if !archive.missing().is_empty() {
            // Before anything is staged, so that it is kept from then on.
            staged::begin(&records, archive, &request.site)?;
        }
        match adopt(
            request,
            archive,
            archives,
            stored.as_ref(),
            is_first,
            &mut proof,
        )? {
            Outcome::Adopted(mut imported) => {
                imported.passed_over = archives
                    .iter()
                    .map(|other| other.manifest().sequence)
                    .filter(|sequence| *sequence < imported.sequence)
                    .collect();
                let adopted = AdoptedHead {
                    genesis: archive.manifest().genesis,
                    sequence: imported.sequence,
                    archive_id: imported.archive_id,
                    lock: archive.manifest().lock.digest,
                    ancestors: archive.manifest().ancestors.clone(),
                };
                let bytes = serde_json::to_vec(&adopted).map_err(io::Error::from)?;
                if theirs.as_ref() != Some(&adopted) {
                    imported.no_head = write_head(request, stream, &adopted)?;
                }
                let root = StoreRoot {
                    kind: Kind::Adopted,
                    lock: archive.manifest().lock,
                };
                request
                    .store
                    .roots()
                    .set(&format!("adopted {stream} {}", request.site), &root)?;
                records.write(&head_name(&request.site), &bytes)?;
                staged::forget(request.store, &records, imported.sequence, &request.site)?;
                return Ok(Outcome::Adopted(imported));
            }
            Outcome::Incomplete {
                manifest, missing, ..
            } => {
                let mut parts = Vec::new();
                if !archive.missing().is_empty() {
                    staged::keep_spans(request.store, archive)?;
                    // Without part 1 nobody knew where the blobs go: these parts must come again.
                    parts = if missing.is_empty() {
                        archive.missing()
                    } else {
                        staged::note_parts(&records, archive, &request.site)?
                    };
                }
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

/// The proof of every byte of the parts at hand, made once.
struct Proof<'a> {
    request: &'a Request<'a>,
    archives: &'a [&'a Archive],
    is_made: bool,
}

impl Proof<'_> {
    /// Reads every part at hand, unless that was done. `taker` gets what goes by; `halt` is set to give up.
    fn make(&mut self, taker: Option<&dyn Taker>, halt: &AtomicBool) -> Result<(), ImportError> {
        if self.is_made {
            return Ok(());
        }
        let request = self.request;
        let phase = if taker.is_some() { "import" } else { "verify" };
        (request.observer)(Event::Phase { phase });
        for archive in self.archives {
            let bytes: u64 = archive.parts().map(crate::archive::Part::size).sum();
            (request.observer)(Event::Planned {
                blobs: archive.parts().count() as u64,
                bytes,
            });
        }
        for archive in self.archives {
            let sequence = archive.manifest().sequence;
            let options = Options {
                stop: Some(halt),
                chain: request.chain.filter(|chain| chain.line(sequence).is_some()),
                trust: request.trust,
                taker,
                takers: request.workers,
                ..Options::default()
            };
            let earlier = match archive.part(1) {
                Some(_) => None,
                None => staged::metadata(request.store, archive)?,
            };
            let options = Options {
                metadata: earlier.as_ref(),
                ..options
            };
            let id = archive.archive_id();
            let progress = |bytes| {
                (request.observer)(Event::Bytes { digest: id, bytes });
                if request.stop.load(Ordering::Relaxed) {
                    halt.store(true, Ordering::Relaxed);
                }
            };
            if let Err(failures) = verify::verify(archive, &options, &progress) {
                judge(archive, failures)?;
            }
        }
        self.is_made = true;
        Ok(())
    }
}

/// Whether failures are more than parts that are still to come.
fn judge(archive: &Archive, mut failures: Failures) -> Result<(), ImportError> {
    let is_stopped = |error: &ArchiveError| matches!(error, ArchiveError::Stopped);
    let was_stopped = failures.errors.iter().any(is_stopped);
    failures
        .errors
        .retain(|error| !is_stopped(error) && !matches!(error, ArchiveError::Missing { .. }));
    if failures.errors.is_empty() && failures.more == 0 {
        return if was_stopped {
            Err(ImportError::Stopped)
        } else {
            Ok(())
        };
    }
    let manifest = archive.manifest();
    Err(ImportError::Unproven {
        stream: manifest.stream.clone(),
        sequence: manifest.sequence,
        source: Box::new(failures),
    })
}

/// A blob that goes by once; and where it is read again, should it be asked for twice or from its middle.
struct GoingBy<'a> {
    blob: Blob,
    passing: Mutex<Option<Passing>>,
    again: &'a dyn Source,
}

impl<'a> GoingBy<'a> {
    const fn new(blob: Blob, passing: Passing, again: &'a dyn Source) -> Self {
        Self {
            blob,
            passing: Mutex::new(Some(passing)),
            again,
        }
    }
}

impl Source for GoingBy<'_> {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        let passing = self
            .passing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match passing {
            Some(passing) if from == 0 && *blob == self.blob => Ok(Some(Box::new(passing))),
            _ => self.again.open(blob, from),
        }
    }
}

/// After so many failures nothing more is tried.
const ENOUGH: usize = 10;

/// Brings what goes by into a registry.
struct ToRegistry<'a, 'b> {
    pushing: &'a Pushing<'b>,
    again: &'a dyn Source,
    halt: &'a AtomicBool,
}

impl Taker for ToRegistry<'_, '_> {
    fn wants(&self, blob: &Blob) -> bool {
        self.pushing.wants(blob)
    }

    fn take(&self, blob: &Blob, bytes: Passing) {
        self.pushing
            .place(blob, &GoingBy::new(*blob, bytes, self.again));
        if self.pushing.failed() >= ENOUGH {
            self.halt.store(true, Ordering::Relaxed);
        }
    }
}

/// Brings what goes by into a store or a layout.
struct ToStore<'a> {
    sink: &'a Store,
    closure: &'a BTreeSet<Blob>,
    again: &'a dyn Source,
    staged: Mutex<Staged>,
    failed: Mutex<Option<TransferError>>,
    halt: &'a AtomicBool,
    stop: &'a AtomicBool,
}

impl ToStore<'_> {
    fn fail(&self, error: TransferError) {
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.halt.store(true, Ordering::Relaxed);
    }

    fn count(&self, moved: Moved) {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        match moved {
            Moved::Present => staged.present += 1,
            Moved::Written(bytes) => {
                staged.sent += 1;
                staged.bytes += bytes;
            }
        }
    }

    /// Brings what did not go by, as far as it is anywhere.
    fn rest(&self, local: &dyn Source, workers: usize) {
        let sent = self
            .staged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .taken
            .clone();
        let rest: Vec<Blob> = self.closure.difference(&sent).copied().collect();
        each(rest.len(), workers, self.stop, |index| {
            let blob = &rest[index];
            if self.halt.load(Ordering::Relaxed) {
                return;
            }
            match transfer(local, self.sink, blob, &|_| ()) {
                Ok(moved) => self.count(moved),
                Err(TransferError::Absent { .. }) => self
                    .staged
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .missing
                    .push(*blob),
                Err(error) => self.fail(error),
            }
        });
    }
}

impl Taker for ToStore<'_> {
    fn wants(&self, blob: &Blob) -> bool {
        // Where the place cannot tell, writing will say why.
        self.closure.contains(blob) && !self.sink.holds(blob).unwrap_or(false)
    }

    fn take(&self, blob: &Blob, bytes: Passing) {
        let source = GoingBy::new(*blob, bytes, self.again);
        match transfer(&source, self.sink, blob, &|_| ()) {
            Ok(moved) => {
                self.count(moved);
                self.staged
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .taken
                    .insert(*blob);
            }
            // The proof finds the same damage, and its place.
            Err(TransferError::Damaged { .. }) => {}
            Err(error) => self.fail(error),
        }
    }
}

/// What is known of an archive before its blobs are read.
struct Prepared {
    lock: Lock,
    rules: Rules,
    built: Vec<Built>,
    plan: Plan,
    closure: BTreeSet<Blob>,
    images: Vec<Descriptor>,
}

/// Reads what is small, and works out from it what the destination must hold; `None` if part of it is not at hand.
fn prepare(
    request: &Request<'_>,
    archive: &Archive,
    blobs: &Blobs<'_>,
) -> Result<Option<Prepared>, ImportError> {
    let metadata = match archive.part(1) {
        Some(_) => archive.metadata()?,
        None => match staged::metadata(request.store, archive)? {
            Some(metadata) => metadata,
            None => return Ok(None),
        },
    };
    let (lock, rules) = read_lock(&metadata)?;
    // Manifests, lock and rules are small, and everything that follows is computed from them.
    request.store.insert(&metadata.lock)?;
    for (_, bytes) in &metadata.rules {
        request.store.insert(bytes)?;
    }
    if !archive.missing().is_empty() {
        staged::keep_metadata(request.store, &metadata)?;
    }
    let said: Vec<(String, Blob)> = archive
        .manifest()
        .built
        .iter()
        .map(|built| {
            let blob = Blob {
                digest: built.digest,
                size: built.size,
            };
            (built.reference.clone(), blob)
        })
        .collect();
    let built = built::expect(&lock, &rules, &said)?;
    let Some(plan) = stage_manifests(request.store, &lock, &built, blobs)? else {
        return Ok(None);
    };
    let mut closure: BTreeSet<Blob> = plan.closure()?.sorted().into_iter().collect();
    closure.extend(metadata.rules.iter().map(|(_, bytes)| Blob::of(bytes)));
    if !closure.iter().eq(metadata.closure.iter()) {
        return Err(ImportError::Closure {
            expected: metadata.closure.len(),
            found: closure.len(),
        });
    }
    built::learn(&lock, &rules, &built, &plan, request.store)?;
    let images = index::parse(&metadata.index)
        .map_err(|text| ImportError::Io(io::Error::new(io::ErrorKind::InvalidData, text)))?;
    Ok(Some(Prepared {
        lock,
        rules,
        built,
        plan,
        closure,
        images,
    }))
}

/// Stages one archive and adopts it if nothing is missing.
fn adopt(
    request: &Request<'_>,
    archive: &Archive,
    at_hand: &[&Archive],
    stored: Option<&AdoptedHead>,
    is_first: bool,
    proof: &mut Proof<'_>,
) -> Result<Outcome, ImportError> {
    let manifest = archive.manifest();
    let incomplete = |missing: Vec<Blob>| Outcome::Incomplete {
        manifest: Box::new(manifest.clone()),
        adopted: None,
        parts: archive.missing(),
        missing,
    };
    let spans = staged::spans(request.store, archive.archive_id())?;
    let blobs = Blobs::with_kept(at_hand.iter().copied(), &spans);
    let halt = AtomicBool::new(false);
    let prepared = match prepare(request, archive, &blobs) {
        Ok(Some(prepared)) => prepared,
        // What is wrong is best said by the proof, which names every place.
        outcome => {
            proof.make(None, &halt)?;
            outcome?;
            return Ok(incomplete(Vec::new()));
        }
    };
    // What is wrong with the archive says more than what follows from it.
    let files = vouch(request, &prepared, &blobs);
    if !matches!(&files, Ok(missing) if missing.is_empty()) {
        proof.make(None, &halt)?;
        return Ok(incomplete(files?));
    }
    let result = match &request.target {
        Target::Store => stage(request, request.store, &prepared, &blobs, proof)?,
        Target::Layout(layout) => stage(request, layout, &prepared, &blobs, proof)?,
        Target::Registry {
            registry,
            destination,
        } => {
            let Prepared {
                lock,
                rules,
                built,
                plan,
                ..
            } = &prepared;
            let items = items(lock, built, rules, plan, destination, &request.layout)?;
            let lenders = match stored {
                Some(stored) => lenders(request.store, stored.lock, destination, &request.layout)?,
                None => BTreeMap::new(),
            };
            // Reading is what is watched: its end is known.
            let observer = |event| match event {
                Event::Image { .. } | Event::Failed { .. } => (request.observer)(event),
                _ => {}
            };
            let pushing = Pushing::begin(push::Request {
                items: &items,
                registry: *registry,
                lenders: &lenders,
                is_first,
                manner: Manner::Together,
                workers: request.workers,
                observer: &observer,
                stop: request.stop,
            });
            let taker = ToRegistry {
                pushing: &pushing,
                again: &blobs,
                halt: &halt,
            };
            // A registry that lets nobody in is no reason to read an archive.
            if !pushing.is_over() {
                match proof.make(Some(&taker), &halt) {
                    // It gave up by itself; why is among the failures, and nothing becomes visible.
                    Err(ImportError::Stopped) if pushing.failed() > 0 => {}
                    outcome => outcome?,
                }
            }
            Staged::of(pushing.finish(request.store, &blobs))?
        }
    };
    if !result.missing.is_empty() {
        return Ok(incomplete(result.missing));
    }
    match &request.target {
        Target::Store => publish(request.store, prepared.images)?,
        Target::Layout(layout) => publish(layout, prepared.images)?,
        Target::Registry { .. } => {}
    }
    Ok(Outcome::Adopted(Box::new(Imported {
        stream: manifest.stream.clone(),
        sequence: manifest.sequence,
        archive_id: archive.archive_id(),
        lock_digest: manifest.lock.digest,
        lock: prepared.lock,
        built: prepared.built,
        rules: prepared.rules,
        already: stored.is_some_and(|stored| stored.archive_id == archive.archive_id()),
        passed_over: Vec::new(),
        sent: result.sent,
        bytes: result.bytes,
        present: result.present,
        no_head: None,
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
            .find(|(name, bytes)| Path::new(name) == file && Digest::of(bytes) == *digest);
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
    built: &[Built],
    blobs: &dyn Source,
) -> Result<Option<Plan>, ImportError> {
    let mut plan = Plan::of(roots(lock, built))?;
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

/// Brings signatures, keys and other files into the local store, wherever the images go (they are small, and belong to
/// no repository), and verifies every pinned signature again; answers what is nowhere.
fn vouch(
    request: &Request<'_>,
    prepared: &Prepared,
    blobs: &dyn Source,
) -> Result<Vec<Blob>, ImportError> {
    let missing = stage_files(request.store, &prepared.lock, blobs)?;
    if !missing.is_empty() {
        return Ok(missing);
    }
    let file = |digest: &Digest| {
        let size = request.store.size_of(digest).ok()??;
        let blob = Blob {
            digest: *digest,
            size,
        };
        crate::store::read(request.store, &blob, 1 << 20).ok()
    };
    verify_pinned(&prepared.lock, &prepared.rules, request.store, &file)?;
    // Those that lie beside images are images themselves, and may go by without being stored.
    let either = Either(request.store, blobs);
    let (_, unvouched) = signed::verify_pinned(&prepared.lock, &prepared.rules, &either, &file);
    match unvouched.into_iter().next() {
        None => Ok(missing),
        Some(first) => Err(first.into()),
    }
}

/// Two places that bytes may be in.
struct Either<'a>(&'a dyn Source, &'a dyn Source);

impl Source for Either<'_> {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        match self.0.open(blob, from)? {
            None => self.1.open(blob, from),
            found => Ok(found),
        }
    }
}

/// Brings what is no part of an image into the store; answers what is nowhere.
fn stage_files(store: &Store, lock: &Lock, blobs: &dyn Source) -> Result<Vec<Blob>, ImportError> {
    let mut missing = Vec::new();
    for root in roots(lock, &[]) {
        if root.fetch.content != Content::Opaque {
            continue;
        }
        match transfer(blobs, store, &root.fetch.blob, &|_| ()) {
            Ok(_) => {}
            Err(TransferError::Absent { blob }) => missing.push(blob),
            Err(error) => return Err(error.into()),
        }
    }
    // The files of charts that are images: values for the mirror are made of them.
    for chart in &lock.charts {
        let Ok(file) = super::charts::file_of(chart, store) else {
            continue;
        };
        match transfer(blobs, store, &file, &|_| ()) {
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
    /// Blobs that were taken as they went by.
    taken: BTreeSet<Blob>,
}

impl Staged {
    fn of(pushed: Pushed) -> Result<Self, ImportError> {
        if pushed.stopped {
            return Err(ImportError::Stopped);
        }
        if !pushed.failures.is_empty() {
            return Err(ImportError::Push {
                failures: pushed.failures,
                is_staged: pushed.sent + pushed.mounted + pushed.present > 0,
            });
        }
        Ok(Self {
            sent: pushed.sent,
            bytes: pushed.bytes,
            present: pushed.present + pushed.mounted,
            missing: pushed.missing,
            taken: BTreeSet::new(),
        })
    }
}

/// Brings a closure into a store or a layout.
fn stage(
    request: &Request<'_>,
    sink: &Store,
    prepared: &Prepared,
    blobs: &Blobs<'_>,
    proof: &mut Proof<'_>,
) -> Result<Staged, ImportError> {
    let halt = AtomicBool::new(false);
    let taker = ToStore {
        sink,
        closure: &prepared.closure,
        again: blobs,
        staged: Mutex::default(),
        failed: Mutex::default(),
        halt: &halt,
        stop: request.stop,
    };
    let proven = proof.make(Some(&taker), &halt);
    let failed = |taker: ToStore<'_>| {
        let failed = taker.failed.into_inner();
        failed.unwrap_or_else(PoisonError::into_inner)
    };
    match proven {
        Err(ImportError::Stopped) => {
            return Err(failed(taker).map_or(ImportError::Stopped, ImportError::from));
        }
        outcome => outcome?,
    }
    let local = Both {
        first: blobs,
        second: request.store,
    };
    taker.rest(&local, request.workers);
    let mut staged =
        std::mem::take(&mut *taker.staged.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(error) = failed(taker) {
        return Err(error.into());
    }
    if request.stop.load(Ordering::Relaxed) {
        return Err(ImportError::Stopped);
    }
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
    built: &[Built],
    rules: &Rules,
    plan: &Plan,
    destination: &Destination,
    layout: &Layout,
) -> Result<Vec<Item>, ImportError> {
    let placements = placements(lock, built, rules, layout)?;
    refuse_collisions(&placements, &destination.prefix, layout)?;
    let needs = needs(lock, built);
    // The plan may take more of an image than the lock says.
    let planned: BTreeMap<(&str, Digest), &Root> = plan
        .roots()
        .iter()
        .map(|root| ((root.owner.as_str(), root.fetch.blob.digest), root))
        .collect();
    let mut items = Vec::new();
    for placement in placements {
        let path = layout.limit(&destination.join(&placement.path));
        crate::reference::Repository::new(&destination.registry, &path)?;
        let planned = planned
            .get(&(placement.owner.as_str(), placement.digest))
            .copied();
        let root = planned.cloned().unwrap_or_else(|| Root {
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
        });
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
            is_whole: plan.content_of(&root)?.unread.is_empty(),
            needs: needs.get(&placement.digest).cloned().unwrap_or_default(),
        });
    }
    Ok(items)
}

/// The images that others make no sense without: the components of payloads, what the packages of catalogs name, and the
/// images of charts.
fn needs(lock: &Lock, built: &[Built]) -> BTreeMap<Digest, BTreeSet<Digest>> {
    let mut needs: BTreeMap<Digest, BTreeSet<Digest>> = BTreeMap::new();
    for block in lock.blocks() {
        let whole = match block {
            Block::Payload(_, payload) => payload.pin.digest,
            Block::Package(catalog, _) => catalog.pin.digest,
            Block::Chart(chart) => match &chart.source {
                ChartSource::Image(pin) => pin.digest,
                ChartSource::File { .. } => {
                    match built.iter().find(|built| built.owner == block.key()) {
                        Some(built) => built.blob.digest,
                        None => continue,
                    }
                }
            },
            _ => continue,
        };
        let parts = block.pins().into_iter().map(|(_, pin)| pin.digest);
        needs
            .entry(whole)
            .or_default()
            .extend(parts.filter(|digest| *digest != whole));
    }
    needs
}

/// Repositories that hold blobs already, because a lock that was delivered there placed them; none where that lock or
/// its rules are not in the store.
///
/// # Errors
/// If the store fails, or what it has of that lock makes no sense.
pub fn lenders(
    store: &Store,
    delivered: Digest,
    destination: &Destination,
    layout: &Layout,
) -> Result<BTreeMap<Digest, BTreeSet<String>>, ImportError> {
    let mut lenders: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    let Some(size) = store.size_of(&delivered)? else {
        return Ok(lenders);
    };
    let bytes = crate::store::read(
        store,
        &Blob {
            digest: delivered,
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
            let size = store.size_of(digest).ok()??;
            let bytes = crate::store::read(
                store,
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
    let built = built::known(&lock, &rules, store)?;
    let plan = plan_from(&lock, &built, store, store)?;
    for item in items(&lock, &built, &rules, &plan, destination, layout)? {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_incomplete_only_if_something_is_staged_and_nothing_was_refused() {
        let failure = |kind: io::ErrorKind| PushFailure {
            what: "sha256:1".to_owned(),
            repository: "a/b".to_owned(),
            source: kind.into(),
        };
        let broken = io::ErrorKind::ConnectionReset;
        let denied = io::ErrorKind::PermissionDenied;
        for (is_staged, kinds, expected) in [
            (true, vec![broken], true),
            (true, vec![broken, denied], false),
            (false, vec![broken], false),
            (false, vec![denied], false),
        ] {
            let error = ImportError::Push {
                failures: kinds.iter().copied().map(failure).collect(),
                is_staged,
            };
            assert_eq!(
                error.is_incomplete(),
                expected,
                "staged: {is_staged}, then {kinds:?}"
            );
        }
        assert!(ImportError::Stopped.is_incomplete(), "it can go on");
        assert!(!ImportError::Empty.is_incomplete(), "nothing is there");
    }
}
