//! Proves an archive without extracting it.
//!
//! What holds when [`verify`] succeeds: every part is there; every byte of every part is what the manifest, the
//! blobs and the form make it, and not one byte more; the parts carry the blobs of the `provides` list, each once,
//! in that order, with those digests and sizes; the lock, the lists and the files are those that the manifest
//! commits to; a full archive provides its whole closure; the checksum file, where there is one, agrees; the archive
//! fits the chain, where one is given; and on top of each base whose closure is given, nothing is missing.
//!
//! Every part is read once, front to back. Reading, hashing the part and hashing its members run side by side; and
//! whoever wants blobs takes them as they go by ([`Taker`]), so that proving and unloading a medium are one pass. A
//! part that is damaged does not stop the others: every failure is reported, at its file, member and byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::chain::Chain;
pub use super::flow::Passing;
use super::flow::{CHUNK, CHUNKS, Chunk, Chunks, Input, Pool, Share, fill};
use super::member::{Entry, Member};
use super::read::{Archive, Metadata, Part, Set, Walk};
use super::seal::Trust;
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
    /// Whom to trust; `None` leaves seals unread.
    pub trust: Option<&'a Trust<'a>>,
    /// Closures of base locks, by lock.
    pub base_closures: &'a [(Digest, &'a [Blob])],
    /// Stops between two chunks once it is true.
    pub stop: Option<&'a AtomicBool>,
    /// Who takes blobs as they go by. Nobody does with `quick`.
    pub taker: Option<&'a dyn Taker>,
    /// On how many threads they are taken; at least one.
    pub takers: usize,
}

/// Takes blobs while they are verified, so that a medium is read once.
///
/// Reading waits for the slowest: at most so many blobs are under way as there are threads to take them, and a
/// bounded number of buffers.
pub trait Taker: Sync {
    /// Whether it takes `blob`. Asked for each whole blob that goes by, in archive order, until damage is found.
    fn wants(&self, blob: &Blob) -> bool;

    /// Takes `blob`, whose bytes go by in `bytes`. Those that are not read are passed over.
    ///
    /// Of the bytes nothing is proven yet: whoever takes them verifies them, and makes nothing visible that rests on
    /// an archive before that is proven as a whole.
    fn take(&self, blob: &Blob, bytes: Passing);
}

/// A blob that is on its way to a taker.
type Handed = (Blob, Passing);

/// Where blobs are handed over.
#[derive(Clone)]
struct Hand<'a> {
    taker: &'a dyn Taker,
    threads: usize,
    handed: SyncSender<Handed>,
    sizes: &'a BTreeMap<Digest, u64>,
    /// No blob is handed over after damage was found.
    closed: &'a AtomicBool,
}

impl Hand<'_> {
    /// Where the bytes of a blob go, if it is wanted. Waits for a thread that takes it.
    fn offer(&self, digest: Digest) -> Option<Sender<Share>> {
        let size = *self.sizes.get(&digest)?;
        let blob = Blob { digest, size };
        if self.closed.load(Ordering::Relaxed) || !self.taker.wants(&blob) {
            return None;
        }
        let (to, arriving) = channel();
        self.handed.send((blob, Passing::new(arriving))).ok()?;
        Some(to)
    }
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
    /// The seal that vouches for it, if one was asked for.
    pub sealed: Option<PathBuf>,
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
    let Some(taker) = options.taker.filter(|_| !options.quick) else {
        return examine(archive, options, progress, None);
    };
    let sizes: BTreeMap<Digest, u64> = archive
        .metadata()
        .map(|metadata| metadata.provides)
        .unwrap_or_default()
        .into_iter()
        .map(|blob| (blob.digest, blob.size))
        .collect();
    let closed = AtomicBool::new(false);
    let threads = options.takers.max(1);
    // Nothing waits in it: a blob that is handed over has a thread, so no buffer is held by one that is not taken.
    let (handed, taken) = sync_channel::<Handed>(0);
    let taken: Mutex<Receiver<Handed>> = Mutex::new(taken);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((blob, bytes)) = next else { break };
                    taker.take(&blob, bytes);
                }
            });
        }
        let hand = Hand {
            taker,
            threads,
            handed,
            sizes: &sizes,
            closed: &closed,
        };
        examine(archive, options, progress, Some(hand))
    })
}

fn examine(
    archive: &Archive,
    options: &Options<'_>,
    progress: &dyn Fn(u64),
    hand: Option<Hand<'_>>,
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
        let before = found.count();
        check_order(archive, metadata, &mut found);
        if let Some(hand) = hand.as_ref().filter(|_| found.count() > before) {
            hand.closed.store(true, Ordering::Relaxed);
        }
    }

    let sealed = options.trust.and_then(|trust| match archive.sealed(trust) {
        Ok(sealed) => Some(sealed),
        Err(error) => {
            found.add(error);
            None
        }
    });

    let mut parts = Vec::new();
    let mut join = Join::default();
    for part in archive.parts() {
        if options
            .stop
            .is_some_and(|stop| stop.load(Ordering::Relaxed))
        {
            found.add(ArchiveError::Stopped);
            break;
        }
        let check = Check {
            part,
            quick: options.quick,
            stop: options.stop,
            progress,
            hand: hand.as_ref(),
        };
        let mut sums = sums_of(archive, part);
        if let Some((path, sealed)) = &sealed {
            let kind = FileKind::Part(part.header().part);
            sums.extend(sealed.get(&kind).map(|sum| (path.clone(), *sum)));
        }
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
        if let Some(hand) = hand.as_ref().filter(|_| found.count() > before) {
            hand.closed.store(true, Ordering::Relaxed);
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
    }
    found.finish(Report {
        archive_id: archive.archive_id(),
        stream: manifest.stream.clone(),
        sequence: manifest.sequence,
        parts,
        blobs: manifest.provides.count,
        bytes: manifest.provides.bytes,
        in_chain,
        sealed: sealed.map(|(path, _)| path),
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
    open: Option<Spans>,
}

struct Spans {
    blob: Digest,
    /// The last one that went by.
    last: u32,
    /// What the bytes hash to so far.
    hasher: Hasher,
    /// Who takes the bytes.
    taken: Option<Sender<Share>>,
}

struct Check<'a> {
    part: &'a Part,
    quick: bool,
    stop: Option<&'a AtomicBool>,
    progress: &'a dyn Fn(u64),
    hand: Option<&'a Hand<'a>>,
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
            walk(self.part, BufReader::new(file), None, None, found);
            return (None, false);
        }
        if self.part.size() <= CHUNK as u64 && self.hand.is_none() {
            return self.run_small(file, join, found);
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
            let hand = self.hand.cloned();
            let threads = hand.as_ref().map_or(0, |hand| hand.threads);
            let walking = scope.spawn(move || {
                let mut found = Found::default();
                walk(part, Chunks::new(walked), join, hand.as_ref(), &mut found);
                found
            });
            // Those who take blobs hold some of the buffers.
            let size = usize::try_from(self.part.size()).map_or(CHUNK, |size| size.clamp(1, CHUNK));
            let pool = Pool::of(CHUNKS + 2 * threads, size);
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

impl Check<'_> {
    /// The same for a part of one chunk, where there is nothing to do side by side.
    fn run_small(&self, file: File, join: &mut Join, found: &mut Found) -> (Option<Digest>, bool) {
        let mut bytes = Vec::new();
        // One byte more than there should be shows that there is more.
        let most = self.part.size() + 1;
        if let Err(error) = file.take(most).read_to_end(&mut bytes) {
            found.add(Flaw::Io(error).at(self.part.path(), None, 0));
            return (None, false);
        }
        (self.progress)(bytes.len() as u64);
        let join = (!self.quick).then_some(join);
        walk(
            self.part,
            BufReader::new(Cursor::new(&bytes)),
            join,
            None,
            found,
        );
        (Some(Digest::of(&bytes)), !self.quick)
    }
}

/// Walks over all bytes of a part. Hashes its members but, without `join`, its blobs; hands over those that are wanted.
fn walk(
    part: &Part,
    input: impl Input,
    join: Option<&mut Join>,
    hand: Option<&Hand<'_>>,
    found: &mut Found,
) {
    if let Err(error) = try_walk(part, input, join, hand, found) {
        found.add(error);
    }
}

fn try_walk(
    part: &Part,
    input: impl Input,
    mut join: Option<&mut Join>,
    hand: Option<&Hand<'_>>,
    found: &mut Found,
) -> Result<(), ArchiveError> {
    let offer = |digest| hand.and_then(|hand| hand.offer(digest));
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
                        Some(open) if (open.blob, open.last + 1) == (*digest, *number) => {
                            Some(open)
                        }
                        _ => (*number == 1).then(|| Spans {
                            blob: *digest,
                            last: 0,
                            hasher: Hasher::default(),
                            taken: offer(*digest),
                        }),
                    };
                    // Without the spans before it, this one proves nothing; that they are missing is reported.
                    let Some(mut open) = open else { continue };
                    walk.hash_into(&mut open.hasher, open.taken.as_ref())?;
                    if number < of {
                        open.last = *number;
                        join.open = Some(open);
                    } else {
                        let (expected, joined) = (*digest, open.hasher.finish());
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
            let taken = member.digest().and_then(offer);
            let mut hasher = Hasher::default();
            walk.hash_into(&mut hasher, taken.as_ref())?;
            let found_digest = hasher.finish();
            if found_digest != expected {
                if let Some(hand) = hand {
                    hand.closed.store(true, Ordering::Relaxed);
                }
                found.add(fail(Flaw::Wrong {
                    expected,
                    found: found_digest,
                }));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::chain::Line;
    use super::super::samples::{Members, Sample, forge, noise, only_archive, patch_header};
    use super::super::{Contents, Layout};
    use super::*;
    use std::error::Error as _;
    use std::fs;

    /// Part 1 holds the first blob, part 2 one span of the second, part 3 the other span and the rest.
    const SIZES: [usize; 4] = [300, 12_000, 100, 40];
    const PART_SIZE: u64 = 14_336;

    fn all(folder: &Path, options: &Options<'_>) -> Result<Vec<Report>, Failures> {
        let set = Set::open([folder]).map_err(|error| Failures {
            errors: vec![error],
            more: 0,
        })?;
        verify_all(set, options, &|_| ())
    }

    fn failures(folder: &Path) -> Failures {
        match all(folder, &Options::default()) {
            Err(failures) => failures,
            Ok(report) => panic!("this must be refused: {report:?}"),
        }
    }

    /// Everything the failures say, sources included.
    fn text(failures: &Failures) -> String {
        let mut text = String::new();
        for error in &failures.errors {
            text += &error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            text += "\n";
        }
        text
    }

    fn sample() -> (tempfile::TempDir, Vec<PathBuf>) {
        let sample = Sample::of(&SIZES);
        let folder = tempfile::tempdir().unwrap();
        let parts = sample.export(&sample.contents(), PART_SIZE, folder.path());
        assert_eq!(parts.len(), 3, "the sample has three parts");
        (folder, parts)
    }

    fn remove_sums(folder: &Path) {
        fs::remove_file(folder.join("prod_seq000001.sha256")).unwrap();
    }

    #[test]
    fn a_good_archive_is_reported_in_full() {
        let (folder, parts) = sample();
        let reports = all(folder.path(), &Options::default()).unwrap();
        assert_eq!(reports.len(), 1, "one archive, one report");
        let report = &reports[0];
        assert_eq!(report.blobs, 4, "every blob is counted");
        assert_eq!(report.bytes, 12_440, "and every byte of them");
        for (part, path) in report.parts.iter().zip(&parts) {
            let bytes = fs::read(path).unwrap();
            assert_eq!(part.size, bytes.len() as u64, "the size is the file's");
            assert_eq!(
                part.sha256,
                Some(Digest::of(&bytes)),
                "the checksum is the file's"
            );
            assert!(part.listed && part.hashed, "it was looked at in full");
        }
        let quick = Options {
            quick: true,
            ..Options::default()
        };
        let reports = all(folder.path(), &quick).unwrap();
        assert!(
            reports[0]
                .parts
                .iter()
                .all(|part| part.listed && !part.hashed),
            "in a hurry the checksums vouch for the parts"
        );
        remove_sums(folder.path());
        let reports = all(folder.path(), &quick).unwrap();
        assert!(
            reports[0]
                .parts
                .iter()
                .all(|part| part.sha256.is_none() && !part.hashed),
            "and without them the report says that nobody looked"
        );
        let reports = all(folder.path(), &Options::default()).unwrap();
        assert!(
            reports[0]
                .parts
                .iter()
                .all(|part| part.hashed && !part.listed),
            "the checksum file is not needed"
        );
    }

    /// Takes what it is told to, and remembers it.
    #[derive(Default)]
    struct Everything {
        but: Vec<Blob>,
        /// Blobs whose bytes it does not look at.
        bored: Vec<Blob>,
        taken: Mutex<BTreeMap<Blob, Vec<u8>>>,
    }

    impl Taker for Everything {
        fn wants(&self, blob: &Blob) -> bool {
            !self.but.contains(blob)
        }

        fn take(&self, blob: &Blob, mut bytes: Passing) {
            let mut all = Vec::new();
            if !self.bored.contains(blob) {
                bytes.read_to_end(&mut all).unwrap();
            }
            self.taken.lock().unwrap().insert(*blob, all);
        }
    }

    fn taking<'a>(taker: &'a Everything, takers: usize) -> Options<'a> {
        Options {
            taker: Some(taker),
            takers,
            ..Options::default()
        }
    }

    #[test]
    fn blobs_are_taken_while_they_are_proven_cut_or_not() {
        let large = 9 << 20;
        let sizes = [300, 12_000, 0, 40, large, 5_000_000, 7];
        let sample = Sample::of(&sizes);
        for part_size in [16 << 10, 1 << 20, 6 << 20, 1 << 30] {
            for takers in [0, 1, 3, 16] {
                let folder = tempfile::tempdir().unwrap();
                if part_size == 16 << 10 && takers != 3 {
                    continue;
                }
                sample.export(&sample.contents(), part_size, folder.path());
                let taker = Everything {
                    but: vec![sample.blobs[1]],
                    bored: vec![sample.blobs[5]],
                    ..Everything::default()
                };
                all(folder.path(), &taking(&taker, takers)).unwrap();
                let taken = taker.taken.into_inner().unwrap();
                for (name, (blob, size)) in (1..).zip(sample.blobs.iter().zip(sizes)) {
                    let expected = match name {
                        2 => None,
                        6 => Some(Vec::new()),
                        name => Some(noise(name, size)),
                    };
                    assert!(
                        taken.get(blob) == expected.as_ref(),
                        "blob {name} in parts of {part_size}, {takers} takers: each that is wanted comes whole"
                    );
                }
            }
        }
    }

    #[test]
    fn taking_does_not_change_what_is_found() {
        let (folder, parts) = sample();
        for path in &parts {
            let good = fs::read(path).unwrap();
            for at in (0..good.len()).step_by(173) {
                let mut bad = good.clone();
                bad[at] ^= 1;
                fs::write(path, bad).unwrap();
                let alone = text(&failures(folder.path()));
                let taker = Everything::default();
                let taking = all(folder.path(), &taking(&taker, 2)).unwrap_err();
                assert_eq!(text(&taking), alone, "byte {at} of {}", path.display());
            }
            fs::write(path, good).unwrap();
        }
    }

    #[test]
    fn any_bit_that_flips_is_found_in_its_file() {
        let (folder, mut files) = sample();
        files.push(folder.path().join("prod_seq000001.sha256"));
        for path in &files {
            let good = fs::read(path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            for at in (0..good.len()).step_by(29) {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                fs::write(path, bad).unwrap();
                let failures = failures(folder.path());
                let text = text(&failures);
                assert!(
                    text.contains(name),
                    "byte {at} of {name} flipped, but only this was said: {text}"
                );
            }
            fs::write(path, good).unwrap();
        }
        all(folder.path(), &Options::default()).unwrap();
    }

    #[test]
    fn any_bit_that_flips_is_found_without_checksums_and_with_its_place() {
        let (folder, parts) = sample();
        remove_sums(folder.path());
        for path in &parts {
            let good = fs::read(path).unwrap();
            let part = Part::open(path).unwrap();
            // Where each member begins, its header counted.
            let mut starts: Vec<u64> = part.places().map(|(_, at)| at - tar::BLOCK).collect();
            starts.push(part.size() - tar::END);
            let before_members = starts[1];
            // Every byte of the last part, which has members of every kind; of the others one in eleven.
            let step = if part.header().part == 3 { 1 } else { 11 };
            for at in (0..good.len()).step_by(step) {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                fs::write(path, bad).unwrap();
                let failures = failures(folder.path());
                let at = at as u64;
                if at < before_members {
                    // What a part says of itself decides where it is counted; that it is damaged is enough.
                    continue;
                }
                let begin = starts.iter().rev().find(|start| **start <= at).unwrap();
                let end = starts
                    .iter()
                    .find(|start| **start > at)
                    .unwrap_or(&u64::MAX);
                let cut = part.places().any(|(entry, start)| {
                    matches!(entry.member, Member::Span { .. })
                        && (start..start + entry.length).contains(&at)
                });
                let found = failures.errors.iter().any(|error| match error {
                    ArchiveError::Damaged { flaw, .. } if cut => {
                        matches!(**flaw, Flaw::Joined { .. })
                    }
                    ArchiveError::Damaged { file, offset, .. } => {
                        file == path && (begin..end).contains(&offset)
                    }
                    _ => false,
                });
                assert!(
                    found,
                    "byte {at} of {} flipped, but the place was not named: {}",
                    path.display(),
                    text(&failures)
                );
            }
            fs::write(path, good).unwrap();
        }
        all(folder.path(), &Options::default()).unwrap();
    }

    #[test]
    fn a_part_that_is_cut_or_continued_is_refused() {
        let (folder, parts) = sample();
        remove_sums(folder.path());
        let quick = Options {
            quick: true,
            ..Options::default()
        };
        for path in &parts {
            let good = fs::read(path).unwrap();
            let mut wrong: Vec<Vec<u8>> = (0..good.len())
                .step_by(97)
                .chain([good.len() - 1, good.len() - 512, good.len() - 1024])
                .map(|length| good[..length].to_vec())
                .collect();
            for more in [&[0_u8][..], &[0; 512], &[0; 10_240], b"x"] {
                wrong.push([&good, more].concat());
            }
            for bytes in wrong {
                fs::write(path, &bytes).unwrap();
                let failures = all(folder.path(), &quick).unwrap_err();
                assert!(
                    failures
                        .errors
                        .iter()
                        .any(|error| error.file() == Some(path)),
                    "{} of {} bytes: {}",
                    bytes.len(),
                    good.len(),
                    text(&failures)
                );
            }
            fs::write(path, good).unwrap();
        }
    }

    #[test]
    fn a_part_that_changes_after_it_was_opened_is_refused() {
        type Change = fn(&mut Vec<u8>);
        let (folder, parts) = sample();
        let archive = only_archive(folder.path());
        let good = fs::read(&parts[2]).unwrap();
        let changes: [(&str, Change); 5] = [
            ("the two zero blocks", |bytes| {
                bytes.truncate(bytes.len() - 1024);
            }),
            ("the two zero blocks", |bytes| {
                bytes.truncate(bytes.len() - 1);
            }),
            ("behind the two zero blocks", |bytes| bytes.push(0)),
            ("the file ends", |bytes| bytes.truncate(5000)),
            ("expected", |bytes| bytes[600] ^= 1),
        ];
        for (expected, change) in changes {
            let mut bytes = good.clone();
            change(&mut bytes);
            fs::write(&parts[2], bytes).unwrap();
            for quick in [false, true] {
                let options = Options {
                    quick,
                    ..Options::default()
                };
                let failures = verify(&archive, &options, &|_| ()).unwrap_err();
                assert!(
                    text(&failures).contains(expected),
                    "{expected:?}: {}",
                    text(&failures)
                );
            }
        }
    }

    #[test]
    fn large_parts_are_read_as_small_ones_are() {
        let mut sample = Sample::of(&[300, CHUNK + 77, 5000]);
        sample.blobs.push(sample.store.insert(&noise(9, 3 * CHUNK)));
        let folder = tempfile::tempdir().unwrap();
        let part_size = 2 * CHUNK as u64;
        let parts = sample.export(&sample.contents(), part_size, folder.path());
        all(folder.path(), &Options::default()).unwrap();
        for path in &parts {
            let good = fs::read(path).unwrap();
            let part = Part::open(path).unwrap();
            let places: Vec<(Entry, u64)> = part
                .places()
                .map(|(entry, start)| (entry.clone(), start))
                .collect();
            for (entry, start) in places {
                for at in [start - 512, start, start + entry.length - 1] {
                    let mut bad = good.clone();
                    bad[usize::try_from(at).unwrap()] ^= 1;
                    fs::write(path, bad).unwrap();
                    let found = failures(folder.path());
                    assert!(
                        text(&found).contains(path.file_name().unwrap().to_str().unwrap()),
                        "byte {at}: {}",
                        text(&found)
                    );
                }
            }
            fs::write(path, good).unwrap();
        }
        let archive = only_archive(folder.path());
        for length in [0, 600, CHUNK, CHUNK + 1] {
            let good = fs::read(&parts[1]).unwrap();
            fs::write(&parts[1], &good[..length]).unwrap();
            let found = verify(&archive, &Options::default(), &|_| ()).unwrap_err();
            assert!(
                text(&found).contains("the file ends there"),
                "{length}: {}",
                text(&found)
            );
            fs::write(&parts[1], good).unwrap();
        }
        let stop = AtomicBool::new(true);
        let options = Options {
            stop: Some(&stop),
            ..Options::default()
        };
        let found = verify(&archive, &options, &|_| ()).unwrap_err();
        assert!(
            matches!(found.errors[..], [ArchiveError::Stopped]),
            "{}",
            text(&found)
        );
    }

    #[test]
    fn missing_swapped_and_repeated_parts_are_named() {
        let (folder, parts) = sample();
        let good: Vec<Vec<u8>> = parts.iter().map(|path| fs::read(path).unwrap()).collect();
        for number in 0..3 {
            fs::remove_file(&parts[number]).unwrap();
            let failures = failures(folder.path());
            let name = format!("000{} is missing", number + 1);
            assert!(text(&failures).contains(&name), "{}", text(&failures));
            assert!(
                failures.errors.len() == 1,
                "the others are as they must be: {}",
                text(&failures)
            );
            fs::write(&parts[number], &good[number]).unwrap();
        }
        // Two files under each other's names.
        fs::write(&parts[1], &good[2]).unwrap();
        fs::write(&parts[2], &good[1]).unwrap();
        let found = failures(folder.path());
        assert!(
            text(&found).contains("holds what belongs in prod_seq000001_0003.tar"),
            "{}",
            text(&found)
        );
        // One part twice.
        fs::write(&parts[2], &good[2]).unwrap();
        let found = failures(folder.path());
        assert!(
            matches!(&found.errors[..], [ArchiveError::Missing { parts, .. }, ArchiveError::Renamed { .. }] if *parts == [2]),
            "{}",
            text(&found)
        );
        fs::write(&parts[1], &good[1]).unwrap();
        // A second copy in another folder is no failure.
        let other = tempfile::tempdir().unwrap();
        let copy = other.path().join(parts[1].file_name().unwrap());
        fs::write(&copy, &good[1]).unwrap();
        let set = Set::open([folder.path(), other.path()]).unwrap();
        let reports = verify_all(set, &Options::default(), &|_| ()).unwrap();
        assert_eq!(reports[0].copies, [copy], "it is mentioned");
    }

    #[test]
    fn parts_of_two_packagings_do_not_mix() {
        let sample = Sample::of(&SIZES);
        let (folder, parts) = self::sample();
        let other = tempfile::tempdir().unwrap();
        let others = sample.export(&sample.contents(), PART_SIZE + 1024, other.path());
        assert_eq!(others.len(), 3, "as many parts, but cut elsewhere");
        fs::copy(&others[1], &parts[1]).unwrap();
        let found = failures(folder.path());
        assert!(
            found
                .errors
                .iter()
                .any(|error| matches!(error, ArchiveError::Damaged { flaw, .. } if matches!(**flaw, Flaw::Order { .. }))),
            "{}",
            text(&found)
        );
        let whole = tempfile::tempdir().unwrap();
        let whole = sample.export(&sample.contents(), 1 << 20, whole.path());
        fs::copy(&whole[0], &parts[0]).unwrap();
        let found = failures(folder.path());
        assert!(
            text(&found).contains("split in two ways"),
            "{}",
            text(&found)
        );
    }

    type Change = Box<dyn Fn(&mut Members)>;

    #[test]
    fn members_that_the_archive_does_not_provide_are_refused() {
        let strange = || {
            let bytes = noise(99, 80);
            (Member::Blob(Digest::of(&bytes)).to_string(), bytes)
        };
        let last = |members: &mut Members| members.pop().unwrap();
        let table: Vec<(&str, usize, &str, Change)> = vec![
            (
                "an extra blob",
                2,
                "is not in this archive's list",
                Box::new(move |members| members.push(strange())),
            ),
            (
                "another blob in the place of one",
                2,
                "is not in this archive's list",
                Box::new(move |members| {
                    last(members);
                    members.push(strange());
                }),
            ),
            (
                "a blob left out at the end",
                2,
                "the end of the last part is there",
                Box::new(move |members| {
                    last(members);
                }),
            ),
            (
                "a blob left out in the middle",
                2,
                "where the list of what the archive provides has",
                Box::new(|members| {
                    members.remove(2);
                }),
            ),
            (
                "two blobs in another order",
                2,
                "where the list of what the archive provides has",
                Box::new(|members| members.swap(2, 3)),
            ),
            (
                "a blob twice",
                2,
                "twice",
                Box::new(|members| members.push(members[3].clone())),
            ),
            (
                "a shorter blob",
                0,
                "where the list of what the archive provides has",
                Box::new(|members| {
                    members.last_mut().unwrap().1.pop();
                }),
            ),
            (
                "a shorter span",
                2,
                "where the list of what the archive provides has",
                Box::new(|members| {
                    members[1].1.pop();
                }),
            ),
            (
                "a span and a blob in one part",
                1,
                "out of place",
                Box::new(move |members| members.push(strange())),
            ),
            (
                "a span behind a blob",
                2,
                "out of place",
                Box::new(|members| members.swap(1, 2)),
            ),
            (
                "another lock",
                0,
                "expected sha256:",
                Box::new(|members| {
                    members[3].1[0] ^= 1;
                }),
            ),
            (
                "a longer lock",
                0,
                "expected imgbuild/lock.toml with 12 bytes",
                Box::new(|members| members[3].1.push(0)),
            ),
            (
                "another rule",
                0,
                "expected sha256:",
                Box::new(|members| members[4].1[0] ^= 1),
            ),
            (
                "a rule left out",
                0,
                "expected imgbuild/rules/catalog.toml",
                Box::new(|members| {
                    members.remove(4);
                }),
            ),
            (
                "a rule that the manifest does not name",
                0,
                "found imgbuild/rules/other.toml",
                Box::new(|members| {
                    members.insert(6, ("imgbuild/rules/other.toml".to_owned(), vec![]));
                }),
            ),
            (
                "another manifest",
                1,
                "expected sha256:",
                Box::new(|members| members[0].1[3] ^= 1),
            ),
            (
                "a list of blobs that the manifest does not commit to",
                0,
                "expected sha256:",
                Box::new(|members| members[2].1[0] ^= 1),
            ),
            (
                "a path that climbs",
                2,
                "is not the name of an archive's member",
                Box::new(|members| members.push(("../../etc/passwd".to_owned(), vec![]))),
            ),
            (
                "an absolute path",
                2,
                "is not the name of an archive's member",
                Box::new(|members| members.push(("/etc/passwd".to_owned(), vec![]))),
            ),
            (
                "a resource that climbs",
                2,
                "is not the name of an archive's member",
                Box::new(|members| {
                    members.push(("imgbuild/resources/../../x".to_owned(), vec![]));
                }),
            ),
            (
                "a folder",
                2,
                "is not the name of an archive's member",
                Box::new(|members| members.push(("blobs/".to_owned(), vec![]))),
            ),
            (
                "a second part.json",
                2,
                "out of place",
                Box::new(|members| members.push(("imgbuild/part.json".to_owned(), vec![]))),
            ),
            (
                "an index in a later part",
                2,
                "out of place",
                Box::new(|members| members.push(("index.json".to_owned(), vec![]))),
            ),
        ];
        for (what, number, expected, change) in table {
            let (folder, parts) = sample();
            remove_sums(folder.path());
            forge(&parts[number], change);
            for quick in [false, true] {
                let options = Options {
                    quick,
                    ..Options::default()
                };
                let Err(found) = all(folder.path(), &options) else {
                    panic!("{what} must be refused (quick: {quick})");
                };
                assert!(
                    text(&found).contains(expected),
                    "{what} must be named as {expected:?}: {}",
                    text(&found)
                );
                assert!(
                    text(&found).contains(&format!("prod_seq000001_000{}.tar", number + 1)),
                    "{what} must be placed: {}",
                    text(&found)
                );
            }
        }
    }

    #[test]
    fn tar_headers_that_other_readers_would_follow_are_refused() {
        type Change = fn(&mut [u8]);
        let table: [(&str, Change); 15] = [
            ("name", |block| block[90] = b'x'),
            ("expected blobs/sha256/", |block| {
                block[..100].fill(0);
                block[..9].copy_from_slice(b"../../etc");
            }),
            ("expected blobs/sha256/", |block| {
                block[..100].fill(0);
                block[..6].copy_from_slice(b"/etc/x");
            }),
            ("name prefix", |block| {
                block[345..350].copy_from_slice(b"blobs");
            }),
            ("type flag", |block| block[156] = b'1'),
            ("type flag", |block| block[156] = b'2'),
            ("type flag", |block| block[156] = b'3'),
            ("type flag", |block| block[156] = b'5'),
            ("type flag", |block| block[156] = b'L'),
            ("type flag", |block| block[156] = b'x'),
            ("type flag", |block| block[156] = b'g'),
            ("type flag", |block| block[156] = b'S'),
            ("link name", |block| {
                block[157..168].copy_from_slice(b"/etc/passwd");
            }),
            ("bytes", |block| {
                block[124..136].copy_from_slice(b"77777777777\0");
            }),
            ("size", |block| {
                block[124..136].copy_from_slice(b"-0000000001\0");
            }),
        ];
        for (expected, change) in table {
            let (folder, parts) = sample();
            remove_sums(folder.path());
            let member = {
                let part = Part::open(&parts[2]).unwrap();
                part.header().entries[2].member.to_string()
            };
            patch_header(&parts[2], &member, change);
            for quick in [false, true] {
                let options = Options {
                    quick,
                    ..Options::default()
                };
                let found = all(folder.path(), &options).unwrap_err();
                assert!(
                    text(&found).contains(expected),
                    "{expected:?}: {}",
                    text(&found)
                );
            }
        }
    }

    #[test]
    fn an_archive_must_fit_the_chain_that_is_given() {
        let sample = Sample::of(&SIZES);
        let folder = tempfile::tempdir().unwrap();
        let contents = sample.contents();
        sample.export(&contents, PART_SIZE, folder.path());
        let archive = only_archive(folder.path());
        let line = Layout::of(&contents, PART_SIZE).unwrap().line();
        let mut chain = Chain::default();
        let check = |chain: &Chain| {
            let options = Options {
                chain: Some(chain),
                ..Options::default()
            };
            verify(&archive, &options, &|_| ()).map(|report| report.in_chain)
        };
        assert!(check(&chain).is_err(), "it is not in an empty chain");
        chain.append(line.clone()).unwrap();
        assert_eq!(check(&chain).unwrap(), Some(true), "it is in its own");
        let changes: [fn(&mut Line); 3] = [
            |line| line.archive_id = Digest::of(b"other"),
            |line| line.lock = Digest::of(b"other"),
            |line| line.provides += 1,
        ];
        for change in changes {
            let mut line = line.clone();
            change(&mut line);
            let mut chain = Chain::default();
            chain.append(line).unwrap();
            assert!(check(&chain).is_err(), "nor in one that records another");
        }
    }

    #[test]
    fn an_archive_must_apply_on_top_of_each_base_whose_closure_is_known() {
        let sample = Sample::of(&SIZES);
        let folder = tempfile::tempdir().unwrap();
        let contents: Contents<'_> = sample.delta();
        sample.export(&contents, PART_SIZE, folder.path());
        let archive = only_archive(folder.path());
        let lock = contents.bases[1].lock;
        let rest: Vec<Blob> = sample.blobs[2..].to_vec();
        let check = |closure: &[Blob]| {
            let options = Options {
                base_closures: &[(lock, closure), (Digest::of(b"no base of it"), &[])],
                ..Options::default()
            };
            verify(&archive, &options, &|_| ()).map(|report| report.proven_bases)
        };
        assert_eq!(
            check(&rest).unwrap(),
            [lock],
            "the base has what is left out"
        );
        let error = check(&rest[1..]).unwrap_err();
        assert!(
            matches!(
                error.errors[..],
                [ArchiveError::Baseline {
                    count: 1,
                    bytes: 100,
                    ..
                }]
            ),
            "{}",
            text(&error)
        );
        let mut full = sample.contents();
        full.provides.pop();
        assert!(
            matches!(Layout::of(&full, PART_SIZE), Err(ArchiveError::Contents(_))),
            "an archive without bases must be whole"
        );
    }

    #[test]
    fn failures_are_counted_but_not_all_kept() {
        let mut found = Found::default();
        for _ in 0..Failures::LIMIT + 5 {
            found.add(ArchiveError::Stopped);
        }
        let failures = found.finish(()).unwrap_err();
        assert_eq!(
            (failures.errors.len(), failures.more),
            (Failures::LIMIT, 5),
            "memory is bounded"
        );
    }
}
