//! Proves an archive without extracting it.
//!
//! What holds when [`verify`] succeeds: every part is there; every byte of every part is what the manifest, the
//! blobs and the form make it, and not one byte more; the parts carry the blobs of the `provides` list, each once,
//! in that order, with those digests and sizes; the lock, the lists and the files are those that the manifest
//! commits to; the checksum file, where there is one, agrees; the archive fits the chain, where one is given; and
//! on top of each base whose closure is given, nothing is missing.
//!
//! Every part is read once. Reading, hashing the part and hashing its members run side by side. A part that is
//! damaged does not stop the others: every failure is reported, at its file, member and byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use super::chain::Chain;
use super::flow::{CHUNK, Chunk, Chunks, Input, Pool, fill};
use super::member::{Entry, Member};
use super::read::{Archive, Metadata, Part, Set, Walk};
use super::{ArchiveError, Failures, FileKind, Flaw, bases, tar};
use crate::digest::{Digest, Hasher};
use crate::store::Blob;

/// What to verify with.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Leaves out the hashes of blobs. A part without a checksum is then not read but for its form.
    pub quick: bool,
    /// The stream's chain.
    pub chain: Option<&'a Chain>,
    /// Closures of base locks, by lock.
    pub base_closures: &'a [(Digest, &'a [Blob])],
    /// Stops between two chunks once it is true.
    pub stop: Option<&'a AtomicBool>,
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The archive's id.
    pub archive_id: Digest,
    /// The stream.
    pub stream: super::Stream,
    /// The sequence.
    pub sequence: u64,
    /// Every part, by number.
    pub parts: Vec<PartReport>,
    /// How many blobs it carries.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether it was found in the chain that was given; `None` if none was.
    pub in_chain: Option<bool>,
    /// The base locks on top of which nothing is missing.
    pub proven_bases: Vec<Digest>,
    /// Further copies of parts, which were not read.
    pub copies: Vec<PathBuf>,
}

/// What was verified of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartReport {
    /// The file's name.
    pub name: String,
    /// Its size, in bytes.
    pub size: u64,
    /// Its checksum; `None` where nothing asked for the bytes to be read.
    pub sha256: Option<Digest>,
    /// Whether a checksum file named it, and agreed.
    pub listed: bool,
    /// Whether every member was hashed.
    pub hashed: bool,
}

/// Verifies every archive of `set`, in order; and fails for every file that has an archive's name but is none.
///
/// # Errors
/// All failures, by archive.
pub fn verify_all(
    set: Set,
    options: &Options<'_>,
    progress: &dyn Fn(u64),
) -> Result<Vec<Report>, Failures> {
    let mut found = Found::default();
    let mut reports = Vec::new();
    for archive in set.archives() {
        match verify(archive, options, progress) {
            Ok(report) => reports.push(report),
            Err(failures) => {
                found.more += failures.more;
                failures
                    .errors
                    .into_iter()
                    .for_each(|error| found.add(error));
            }
        }
    }
    set.into_broken()
        .into_iter()
        .for_each(|error| found.add(error));
    found.finish(reports)
}

/// Verifies `archive`. `progress` is told of bytes as they go by.
///
/// # Errors
/// All failures, by part.
pub fn verify(
    archive: &Archive,
    options: &Options<'_>,
    progress: &dyn Fn(u64),
) -> Result<Report, Failures> {
    let mut found = Found::default();
    let manifest = archive.manifest();
    found.errors.extend(archive.missing_error());

    let metadata = match archive.metadata() {
        Ok(metadata) => Some(metadata),
        Err(ArchiveError::Missing { .. }) => None,
        Err(error) => {
            found.add(error);
            None
        }
    };
    if let Some(metadata) = &metadata {
        check_order(archive, metadata, &mut found);
    }

    let mut parts = Vec::new();
    let mut join = Join::default();
    for part in archive.parts() {
        let check = Check {
            part,
            quick: options.quick,
            stop: options.stop,
            progress,
        };
        let sums = sums_of(archive, part);
        let before = found.count();
        let (sha256, hashed) = check.run(!sums.is_empty(), &mut join, &mut found);
        let mut listed = false;
        if let Some(sha256) = sha256 {
            for (path, expected) in &sums {
                listed = true;
                if *expected != sha256 {
                    found.add(ArchiveError::Checksum {
                        file: part.path().to_owned(),
                        sums: path.clone(),
                        expected: *expected,
                        found: sha256,
                    });
                }
            }
        }
        parts.push(PartReport {
            name: part.file_name().to_string(),
            size: part.size(),
            sha256,
            listed: listed && found.count() == before,
            hashed,
        });
        if matches!(found.errors.last(), Some(ArchiveError::Stopped)) {
            break;
        }
    }

    let chain_error = |source| ArchiveError::Chain {
        stream: manifest.stream.clone(),
        sequence: manifest.sequence,
        archive_id: archive.archive_id(),
        source: Box::new(source),
    };
    let in_chain = options.chain.map(|chain| match chain.check(manifest) {
        Ok(()) => true,
        Err(error) => {
            found.add(chain_error(error));
            false
        }
    });
    let mut proven_bases = Vec::new();
    if let Some(metadata) = &metadata {
        for (lock, closure) in options.base_closures {
            if !manifest.bases.iter().any(|base| base.lock == *lock) {
                continue;
            }
            let missing = bases::missing(&metadata.closure, &metadata.provides, closure);
            match missing.first() {
                None => proven_bases.push(*lock),
                Some(first) => found.add(ArchiveError::Baseline {
                    lock: *lock,
                    count: missing.len() as u64,
                    bytes: missing
                        .iter()
                        .fold(0, |sum, blob| sum.saturating_add(blob.size)),
                    first: first.digest,
                }),
            }
        }
        // Without bases everything must be inside.
        if manifest.is_full() {
            let missing = bases::missing(&metadata.closure, &metadata.provides, &[]);
            if let (Some(first), Some(part)) = (missing.first(), archive.part(1)) {
                let flaw = Flaw::Inconsistent(format!(
                    "the archive has no bases, but {} blobs of its closure are not inside, the first of them {}",
                    missing.len(),
                    first.digest
                ));
                found.add(flaw.at(part.path(), Some(&Member::Provides), tar::BLOCK));
            }
        }
    }
    found.finish(Report {
        archive_id: archive.archive_id(),
        stream: manifest.stream.clone(),
        sequence: manifest.sequence,
        parts,
        blobs: manifest.provides.count,
        bytes: manifest.provides.bytes,
        in_chain,
        proven_bases,
        copies: archive.copies().to_vec(),
    })
}

/// What the checksum files beside a part say of it. One in another folder counts only if none is beside it.
fn sums_of(archive: &Archive, part: &Part) -> Vec<(PathBuf, Digest)> {
    let kind = FileKind::Part(part.header().part);
    let naming: Vec<(&PathBuf, Digest)> = archive
        .sums()
        .iter()
        .filter_map(|(path, sums)| Some((path, *sums.get(&kind)?)))
        .collect();
    let beside = |path: &Path| path.parent() == part.path().parent();
    let any_beside = naming.iter().any(|(path, _)| beside(path));
    naming
        .into_iter()
        .filter(|(path, _)| !any_beside || beside(path))
        .map(|(path, digest)| (path.clone(), digest))
        .collect()
}

/// Failures, as they are found.
#[derive(Default)]
struct Found {
    errors: Vec<ArchiveError>,
    more: u64,
}

impl Found {
    fn add(&mut self, error: ArchiveError) {
        if self.errors.len() < Failures::LIMIT {
            self.errors.push(error);
        } else {
            self.more += 1;
        }
    }

    fn count(&self) -> u64 {
        self.errors.len() as u64 + self.more
    }

    fn finish<T>(self, good: T) -> Result<T, Failures> {
        if self.errors.is_empty() {
            return Ok(good);
        }
        Err(Failures {
            errors: self.errors,
            more: self.more,
        })
    }
}

/// Holds the entries of all parts at hand to the `provides` list: each blob once, in that order, and whole.
fn check_order(archive: &Archive, metadata: &Metadata, found: &mut Found) {
    let provides = &metadata.provides;
    let places: BTreeMap<Digest, usize> = provides
        .iter()
        .enumerate()
        .map(|(place, blob)| (blob.digest, place))
        .collect();
    // The place in the list, and the bytes of the blob there that were already seen.
    let (mut next, mut seen) = (0, 0);
    let mut last_part = 0;
    let mut number = 0;
    for part in archive.parts() {
        let gap = part.header().part > last_part + 1;
        last_part = part.header().part;
        let mut after_gap = gap;
        for (entry, start) in part.places() {
            let Some(digest) = entry.member.digest() else {
                continue;
            };
            let fail = |flaw: Flaw| flaw.at(part.path(), Some(&entry.member), start);
            let Some(&place) = places.get(&digest) else {
                let member = entry.member.to_string();
                found.add(fail(Flaw::Unlisted { member }));
                return;
            };
            if std::mem::take(&mut after_gap) {
                // What the missing parts carry is unknown; the list only goes forward.
                if place < next {
                    let flaw = order(provides, next, entry);
                    found.add(fail(flaw));
                    return;
                }
                (next, seen) = (place, entry.offset);
                number = match entry.member {
                    Member::Span { number, .. } => number - 1,
                    _ => 0,
                };
            }
            let size = provides[place].size;
            let follows = match entry.member {
                Member::Span {
                    number: this, of, ..
                } => {
                    let ends = entry.offset + entry.length == size;
                    let follows = this == number + 1 && (this == of) == ends;
                    number = if this == of { 0 } else { this };
                    follows && entry.offset + entry.length <= size
                }
                _ => entry.length == size,
            };
            if place != next || entry.offset != seen || !follows {
                let flaw = order(provides, next, entry);
                found.add(fail(flaw));
                return;
            }
            seen += entry.length;
            if seen == size {
                (next, seen) = (next + 1, 0);
            }
        }
    }
    let complete = last_part == archive.of_parts();
    if complete && (next != provides.len() || seen != 0) {
        let part = archive.parts().last().expect("the last part is at hand");
        let expected = provides
            .get(next)
            .map_or_else(|| "nothing".to_owned(), |blob| blob.digest.to_string());
        let flaw = Flaw::Order {
            expected,
            found: "the end of the last part".to_owned(),
        };
        found.add(flaw.at(part.path(), Some(&Member::Part), tar::BLOCK));
    }
}

fn order(provides: &[Blob], next: usize, entry: &Entry) -> Flaw {
    Flaw::Order {
        expected: provides.get(next).map_or_else(
            || "nothing more".to_owned(),
            |blob| format!("{} with {} bytes", blob.digest, blob.size),
        ),
        found: format!(
            "{} with {} bytes at offset {}",
            entry.member, entry.length, entry.offset
        ),
    }
}

/// A cut blob whose spans go by, from part to part.
#[derive(Default)]
struct Join {
    /// The blob, its last span that went by, and what its bytes hash to so far.
    open: Option<(Digest, u32, Hasher)>,
}

struct Check<'a> {
    part: &'a Part,
    quick: bool,
    stop: Option<&'a AtomicBool>,
    progress: &'a dyn Fn(u64),
}

impl Check<'_> {
    /// Reads the part; its checksum, if it was read whole, and whether every member was hashed.
    fn run(&self, listed: bool, join: &mut Join, found: &mut Found) -> (Option<Digest>, bool) {
        let mut file = match File::open(self.part.path()) {
            Ok(file) => file,
            Err(error) => {
                found.add(Flaw::Io(error).at(self.part.path(), None, 0));
                return (None, false);
            }
        };
        if self.quick && !listed {
            walk(self.part, BufReader::new(file), None, found);
            return (None, false);
        }
        let (to_sum, summed) = channel::<Arc<Chunk>>();
        let (to_walk, walked) = channel::<Arc<Chunk>>();
        std::thread::scope(|scope| {
            let sum = scope.spawn(move || {
                let mut hasher = Hasher::default();
                for chunk in summed {
                    hasher.update(&chunk);
                }
                hasher
            });
            let join = (!self.quick).then_some(join);
            let part = self.part;
            let walking = scope.spawn(move || {
                let mut found = Found::default();
                walk(part, Chunks::new(walked), join, &mut found);
                found
            });
            let size = usize::try_from(self.part.size()).map_or(CHUNK, |size| size.clamp(1, CHUNK));
            let pool = Pool::new(size);
            let mut at = 0;
            let broken = loop {
                if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                    break Some(ArchiveError::Stopped);
                }
                let mut buffer = pool.take();
                let count = match fill(&mut file, &mut buffer) {
                    Ok(0) => break None,
                    Ok(count) => count,
                    Err(error) => break Some(Flaw::Io(error).at(self.part.path(), None, at)),
                };
                at += count as u64;
                let chunk = pool.chunk(buffer, count);
                (self.progress)(count as u64);
                // A walk that ended has said why; the checksum is still worth having.
                let _ = to_walk.send(Arc::clone(&chunk));
                let _ = to_sum.send(chunk);
            };
            drop((to_sum, to_walk));
            let sum = sum.join().expect("hashing does not panic");
            let walking = walking.join().expect("walking does not panic");
            if let Some(error) = broken {
                found.add(error);
                return (None, false);
            }
            found.more += walking.more;
            walking
                .errors
                .into_iter()
                .for_each(|error| found.add(error));
            (Some(sum.finish()), !self.quick)
        })
    }
}

/// Walks over all bytes of a part. Hashes its members but, without `join`, its blobs.
fn walk(part: &Part, input: impl Input, join: Option<&mut Join>, found: &mut Found) {
    if let Err(error) = try_walk(part, input, join, found) {
        found.add(error);
    }
}

fn try_walk(
    part: &Part,
    input: impl Input,
    mut join: Option<&mut Join>,
    found: &mut Found,
) -> Result<(), ArchiveError> {
    let mut before = join.as_mut().and_then(|join| join.open.take());
    let mut walk = Walk::new(part, input);
    walk.start()?;
    while let Some((entry, start)) = walk.next()? {
        let member = &entry.member;
        let fail = |flaw: Flaw| flaw.at(part.path(), Some(member), start);
        let expected = match member {
            Member::Span { digest, number, of } => {
                if let Some(join) = join.as_mut() {
                    let open = match before.take() {
                        Some((open, last, hasher)) if (open, last + 1) == (*digest, *number) => {
                            Some(hasher)
                        }
                        _ => (*number == 1).then(Hasher::default),
                    };
                    // Without the spans before it, this one proves nothing; that they are missing is reported.
                    let Some(mut hasher) = open else { continue };
                    walk.hash_into(&mut hasher)?;
                    if number < of {
                        join.open = Some((*digest, *number, hasher));
                    } else {
                        let (expected, joined) = (*digest, hasher.finish());
                        if joined != expected {
                            found.add(fail(Flaw::Joined {
                                spans: *of,
                                expected,
                                found: joined,
                            }));
                        }
                    }
                }
                continue;
            }
            Member::Blob(digest) if join.is_some() => Some(*digest),
            Member::Blob(_) => None,
            Member::Manifest => Some(part.header().archive),
            other => part.manifest().commitment(other),
        };
        if let Some(expected) = expected {
            let found_digest = walk.hash()?;
            if found_digest != expected {
                found.add(fail(Flaw::Wrong {
                    expected,
                    found: found_digest,
                }));
            }
        }
    }
    Ok(())
}
