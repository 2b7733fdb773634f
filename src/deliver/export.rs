//! Preparing an archive: what it carries, on top of what, and the line that the chain gets.
//!
//! An export is a pure function of the lock, the rules, the chain and the bases: the same line can be exported again
//! on another machine, and [`Prepared::again`] proves it by the archive id.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::archive::chain::{Chain, Line, LineBase};
use crate::archive::{self, ArchiveError, Base, Contents, Layout, Stream, bases};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::{Descriptor, MANIFEST_LIMIT, OCI_MANIFEST, REF_NAME};
use crate::plan::graph::{Closure, Plan, PlanError};
use crate::plan::lock::{Block, Lock, Origin};
use crate::plan::text::{self, LockError};
use crate::reference::ImageName;
use crate::run::built::{BuildError, Built, remembered};
use crate::run::resolve::roots;
use crate::step::Kind;
use crate::step::rule::Rules;
use crate::store::disk::Store;
use crate::store::index;
use crate::store::{Blob, Sink, Source, StoreError, TransferError, read};

/// Largest lock that is read from a store.
const LOCK_LIMIT: u64 = 64 << 20;

/// Why an archive cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The plan cannot be made.
    #[error("the lock cannot be planned")]
    Plan(#[from] PlanError),
    /// A base is not known here.
    #[error("the lock of {base} ({lock}) is not in the store")]
    BaseLock {
        /// The sequence or the file.
        base: String,
        /// The lock's digest.
        lock: Digest,
    },
    /// A base's manifests are not known here.
    #[error("{count} manifests of {base} are not in the store, so what it holds is not known")]
    BaseManifests {
        /// The sequence or the file.
        base: String,
        /// How many.
        count: usize,
    },
    /// A base is no sequence of the chain.
    #[error("stream {stream} has no sequence {sequence}; it ends at {last}")]
    Sequence {
        /// The stream.
        stream: String,
        /// What was asked for.
        sequence: u64,
        /// The last there is.
        last: u64,
    },
    /// The lock's own manifests are not all here.
    #[error("{count} manifests of the lock are not in the store")]
    Manifests {
        /// How many.
        count: usize,
    },
    /// A stored lock cannot be read.
    #[error("the stored lock of {base} cannot be read")]
    Lock {
        /// The sequence or the file.
        base: String,
        /// Why.
        source: LockError,
    },
    /// A blob of the store cannot be read.
    #[error("the store cannot give what the archive needs")]
    Read(#[from] TransferError),
    /// The store failed.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The store failed in another way.
    #[error("the store cannot be used")]
    Io(#[from] io::Error),
    /// What was made of a lock cannot be told.
    #[error("what was built cannot be told")]
    Built(#[from] BuildError),
    /// The archive cannot be laid out.
    #[error("the archive cannot be laid out")]
    Archive(#[from] ArchiveError),
    /// What comes out is not what the chain says.
    #[error(
        "exporting sequence {sequence} again yields archive {found}, but the chain says {expected}"
    )]
    Differs {
        /// The sequence.
        sequence: u64,
        /// The id in the chain.
        expected: Digest,
        /// The id that came out.
        found: Digest,
    },
}

impl Hint for ExportError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::BaseLock { .. } | Self::BaseManifests { .. } => Some(
                "export on the machine whose store has it, name another base with --for or --base-lock, or carry everything with --full".to_owned(),
            ),
            Self::Manifests { .. } => Some("run `imgbuild build` first".to_owned()),
            Self::Archive(source) => source.hint(),
            Self::Built(source) => source.hint(),
            Self::Store(source) => source.hint(),
            Self::Plan(source) => source.hint(),
            Self::Differs { .. } => Some("imgbuild.toml (destinations, rules) or this program differ from what the archive was first made with".to_owned()),
            _ => None,
        }
    }
}

/// On top of what an archive shall apply.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// On top of nothing.
    pub full: bool,
    /// On top of any of the last N+1 archives.
    pub overlap: usize,
    /// On top of any of these archives.
    pub sequences: Vec<u64>,
    /// On top of any of these locks: a name for messages, and the bytes.
    pub locks: Vec<(String, Vec<u8>)>,
    /// Where nothing is asked for: on top of what sites have confirmed, any of it; else of the last archive.
    pub confirmed: Vec<u64>,
}

impl Ask {
    /// Whether nothing in particular is asked for.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        !self.full && self.overlap == 0 && self.sequences.is_empty() && self.locks.is_empty()
    }
}

/// What an archive is made from.
pub struct Subject<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// What was exported so far.
    pub chain: &'a Chain,
    /// The lock.
    pub lock: &'a Lock,
    /// Its bytes.
    pub lock_bytes: &'a [u8],
    /// The rules it names.
    pub rules: &'a Rules,
    /// What was made of it.
    pub built: &'a [Built],
    /// Its plan, wholly read.
    pub plan: &'a Plan,
    /// Resources made early: path and bytes.
    pub resources: Vec<(String, Vec<u8>)>,
    /// Where locks and manifests of bases are.
    pub store: &'a Store,
    /// Largest part, in bytes.
    pub part_size: u64,
}

/// An archive, ready to be written.
#[derive(Debug)]
pub struct Prepared {
    /// Every byte's place.
    pub layout: Layout,
    /// Its line in the chain.
    pub line: Line,
    /// Everything the lock comes to.
    pub closure: Vec<Blob>,
}

/// Makes the plan of a lock and of what was made of it, as far as its manifests are in a place.
///
/// # Errors
/// If a manifest that is there cannot be used.
pub fn plan_from(
    lock: &Lock,
    built: &[Built],
    source: &dyn Source,
    sink: &dyn Sink,
) -> Result<Plan, ExportError> {
    let mut plan = Plan::of(roots(lock, built))?;
    grow_from(&mut plan, source, sink)?;
    Ok(plan)
}

/// Reads what a plan has not read yet, as far as it is in a place.
///
/// # Errors
/// If a manifest that is there cannot be used.
pub fn grow_from(plan: &mut Plan, source: &dyn Source, sink: &dyn Sink) -> Result<(), ExportError> {
    let mut absent = BTreeSet::new();
    loop {
        let unread: Vec<_> = plan
            .unread()
            .into_iter()
            .filter(|fetch| !absent.contains(&fetch.blob))
            .collect();
        if unread.is_empty() {
            return Ok(());
        }
        for fetch in unread {
            if sink.holds(&fetch.blob)? {
                let bytes = read(source, &fetch.blob, MANIFEST_LIMIT)?;
                plan.read(&fetch.blob.digest, &bytes)?;
            } else {
                absent.insert(fetch.blob);
            }
        }
    }
}

/// The rule files of a lock, as blobs.
fn rule_blobs(rules: &Rules) -> Vec<Blob> {
    rules
        .iter()
        .map(|rule| Blob::of(rule.text.as_bytes()))
        .collect()
}

/// Everything that a lock comes to, sorted: manifests, configs, layers, files and rule files.
fn whole(closure: &Closure, rules: &[Blob]) -> Vec<Blob> {
    let mut all: BTreeSet<Blob> = closure.sorted().into_iter().collect();
    all.extend(rules);
    all.into_iter().collect()
}

/// What a destination that has adopted a stored lock holds.
fn base_closure(name: &str, lock: Digest, store: &Store) -> Result<Vec<Blob>, ExportError> {
    if let Some(known) = store.closures().get(&lock)? {
        return Ok(known);
    }
    let missing = || ExportError::BaseLock {
        base: name.to_owned(),
        lock,
    };
    let size = store.size_of(&lock)?.ok_or_else(missing)?;
    let bytes = read(store, &Blob { digest: lock, size }, LOCK_LIMIT)?;
    closure_of_lock(name, &bytes, store)
}

/// The closure of a lock, given by its bytes.
fn closure_of_lock(name: &str, bytes: &[u8], store: &Store) -> Result<Vec<Blob>, ExportError> {
    let text = String::from_utf8_lossy(bytes);
    let lock = text::parse(&text, name).map_err(|source| ExportError::Lock {
        base: name.to_owned(),
        source,
    })?;
    // What was built is part of it as far as it is known; what is not counts as absent: safe, only larger.
    let built = remembered(&lock, store)?;
    let closure = plan_from(&lock, &built, store, store)?.closure()?;
    if !closure.unread.is_empty() {
        return Err(ExportError::BaseManifests {
            base: name.to_owned(),
            count: closure.unread.len(),
        });
    }
    // A rule file that is not here counts as absent there: safe, only larger.
    let mut rules = Vec::new();
    for digest in lock.rules.values() {
        if let Some(size) = store.size_of(digest)? {
            rules.push(Blob {
                digest: *digest,
                size,
            });
        }
    }
    let whole = whole(&closure, &rules);
    store.closures().put(&Digest::of(bytes), &whole)?;
    Ok(whole)
}

/// Prepares the next archive; `None` if there is nothing to carry, because the last archive has the same lock.
///
/// # Errors
/// If a base is not known, or the part size does not do.
pub fn prepare(subject: Subject<'_>, ask: &Ask) -> Result<Option<Prepared>, ExportError> {
    let chain = subject.chain;
    let lock_digest = Digest::of(subject.lock_bytes);
    if let Some(last) = chain.last() {
        let plain = !ask.full && ask.sequences.is_empty() && ask.locks.is_empty();
        if last.lock == lock_digest && plain {
            return Ok(None);
        }
    }
    let mut chosen: BTreeMap<Base, Vec<Blob>> = BTreeMap::new();
    let sequence = |sequence: u64| {
        let last = chain.last().map_or(0, |line| line.sequence);
        let line = chain.line(sequence).ok_or(ExportError::Sequence {
            stream: subject.stream.to_string(),
            sequence,
            last,
        })?;
        let name = format!("{} seq {sequence}", subject.stream);
        Ok::<_, ExportError>((
            Base {
                sequence: Some(sequence),
                lock: line.lock,
            },
            base_closure(&name, line.lock, subject.store)?,
        ))
    };
    if !ask.full {
        for (name, bytes) in &ask.locks {
            chosen.insert(
                Base {
                    sequence: None,
                    lock: Digest::of(bytes),
                },
                closure_of_lock(name, bytes, subject.store)?,
            );
        }
        for wanted in &ask.sequences {
            let (base, closure) = sequence(*wanted)?;
            chosen.insert(base, closure);
        }
        if ask.is_default() && !ask.confirmed.is_empty() {
            for confirmed in &ask.confirmed {
                let (base, closure) = sequence(*confirmed)?;
                chosen.insert(base, closure);
            }
        } else if ask.locks.is_empty() && ask.sequences.is_empty() {
            for line in chain.lines().iter().rev().take(ask.overlap + 1) {
                let (base, closure) = sequence(line.sequence)?;
                chosen.insert(base, closure);
            }
        }
    }
    // One lock is one base, though it was exported, left and taken up again.
    let mut newest: BTreeMap<Digest, Option<u64>> = BTreeMap::new();
    for base in chosen.keys() {
        let known = newest.entry(base.lock).or_default();
        *known = (*known).max(base.sequence);
    }
    chosen.retain(|base, _| newest.get(&base.lock) == Some(&base.sequence));
    let next = chain.last().map_or(1, |line| line.sequence + 1);
    lay_out(subject, next, &chosen).map(Some)
}

/// Prepares an earlier archive again.
///
/// # Errors
/// If the chain has no such line, a base is not known, or something else comes out than the chain says.
pub fn again(subject: Subject<'_>, sequence: u64) -> Result<Prepared, ExportError> {
    let last = subject.chain.last().map_or(0, |line| line.sequence);
    let line = subject
        .chain
        .line(sequence)
        .cloned()
        .ok_or(ExportError::Sequence {
            stream: subject.stream.to_string(),
            sequence,
            last,
        })?;
    let mut chosen = BTreeMap::new();
    for base in &line.bases {
        let (base, name) = match base {
            LineBase::Sequence(base) => {
                let earlier = subject.chain.line(*base).ok_or(ExportError::Sequence {
                    stream: subject.stream.to_string(),
                    sequence: *base,
                    last,
                })?;
                (
                    Base {
                        sequence: Some(*base),
                        lock: earlier.lock,
                    },
                    format!("{} seq {base}", subject.stream),
                )
            }
            LineBase::Lock(lock) => (
                Base {
                    sequence: None,
                    lock: *lock,
                },
                "a base lock".to_owned(),
            ),
        };
        chosen.insert(base, base_closure(&name, base.lock, subject.store)?);
    }
    let prepared = lay_out(subject, sequence, &chosen)?;
    if prepared.line.archive_id != line.archive_id {
        return Err(ExportError::Differs {
            sequence,
            expected: line.archive_id,
            found: prepared.line.archive_id,
        });
    }
    Ok(prepared)
}

fn lay_out(
    subject: Subject<'_>,
    sequence: u64,
    chosen: &BTreeMap<Base, Vec<Blob>>,
) -> Result<Prepared, ExportError> {
    let closure = subject.plan.closure()?;
    if !closure.unread.is_empty() {
        return Err(ExportError::Manifests {
            count: closure.unread.len(),
        });
    }
    let rule_blobs = rule_blobs(subject.rules);
    let all = whole(&closure, &rule_blobs);
    let base_closures: Vec<&[Blob]> = chosen.values().map(Vec::as_slice).collect();
    let payload = bases::payload(&closure.manifests, &all, &base_closures);
    let order = closure.blobs.iter().chain(&rule_blobs).copied();
    let provides = bases::in_archive_order(&payload, &closure.manifests, order);
    let contents = Contents {
        stream: subject.stream,
        sequence,
        genesis: subject
            .chain
            .genesis()
            .unwrap_or_else(|| Digest::of(subject.lock_bytes)),
        parent: subject.chain.line(sequence - 1).map(|line| line.archive_id),
        ancestors: subject.chain.ancestors(sequence),
        bases: chosen.keys().copied().collect(),
        lock: subject.lock_bytes,
        rules: subject
            .rules
            .iter()
            .map(|rule| {
                (
                    format!("{}.toml", rule.name),
                    rule.text.clone().into_bytes(),
                )
            })
            .collect(),
        resources: subject.resources,
        index: index::print(&index(subject.lock, subject.plan)).into_bytes(),
        built: subject
            .built
            .iter()
            .map(|built| archive::manifest::Built {
                digest: built.blob.digest,
                reference: built.reference.clone(),
                size: built.blob.size,
                step: Kind::PackImage.name().to_owned(),
            })
            .collect(),
        closure: all.clone(),
        provides,
    };
    let layout = Layout::of(&contents, subject.part_size)?;
    let line = Line::of(layout.manifest(), subject.part_size);
    Ok(Prepared {
        layout,
        line,
        closure: all,
    })
}

/// One descriptor per image of a lock, named by its source.
#[must_use]
pub fn index(lock: &Lock, plan: &Plan) -> Vec<Descriptor> {
    let mut images = Vec::new();
    for block in lock.blocks() {
        let asked = match block {
            Block::Image(image) => image.reference.parse::<ImageName>().ok(),
            _ => None,
        };
        for (_, pin) in block.pins() {
            let name = match (&asked, &pin.origin) {
                (Some(ImageName::Registry(name)), _) if name.tag.is_some() => name
                    .tag
                    .as_ref()
                    .map(|tag| format!("{}:{tag}", name.repository))
                    .unwrap_or_default(),
                (Some(name @ ImageName::Layout(_)), _) => name.to_string(),
                (_, Origin::Registry(repository)) => match &pin.tag {
                    Some(tag) => format!("{repository}:{tag}"),
                    None => format!("{repository}@{}", pin.digest),
                },
                (_, Origin::Layout(path)) => format!("oci://{path}@{}", pin.digest),
            };
            let media_type = plan
                .get(&pin.digest)
                .and_then(|node| node.manifest.as_ref())
                .map_or(OCI_MANIFEST, |manifest| manifest.media_type());
            images.push(Descriptor {
                media_type: media_type.to_owned(),
                digest: pin.digest,
                size: pin.size,
                platform: None,
                artifact_type: None,
                urls: Vec::new(),
                annotations: BTreeMap::from([(REF_NAME.to_owned(), name)]),
            });
        }
    }
    images.sort_by(|a, b| {
        (a.annotations.get(REF_NAME), a.digest).cmp(&(b.annotations.get(REF_NAME), b.digest))
    });
    images.dedup();
    images
}
