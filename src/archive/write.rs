//! Writing an archive: part by part, each whole or not there.
//!
//! A part is written to `.<name>.tmp`, synced, then renamed. `<stream>_seq000007.progress` has one line per
//! finished part, as the checksum file has them; a later export of the same layout to the same directory keeps
//! those parts and writes the others. It is also the lock that keeps two exports apart. The checksum file comes
//! last, and the progress file goes.
//!
//! Every byte read from the source is held to its digest, before the part that carries it gets its name. A blob
//! that is cut is read twice: once whole, which also names each span, and again span by span; so a span is right
//! whichever parts are written in this run.
//!
//! Reading, hashing blobs, hashing the part, writing and handing over to the disk run side by side. Hashing twice is
//! what an export costs: once for the digests of the blobs, once for the checksum of the part.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use super::flow::{CHUNK, Chunk, Pool, fill};
use super::layout::{Layout, PartLayout};
use super::member::{Entry, Member};
use super::sums::{self, Sums};
use super::{ArchiveError, FileKind, FileName, tar};
use crate::digest::{Digest, Hasher};
use crate::store::{Blob, Damage, Source};

/// After so many bytes the disk is told to begin, so that little is left to wait for at the end.
const FLUSH: usize = 32 << 20;

/// How to export.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Only these parts, counted from 1; all where `None`.
    pub only_parts: Option<&'a [u32]>,
    /// Stops between two chunks once it is true; what is finished is kept.
    pub stop: Option<&'a AtomicBool>,
}

/// What happens during an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// An earlier run finished that part.
    Kept {
        /// The file.
        name: &'a str,
        /// Its size, in bytes.
        size: u64,
    },
    /// A part is begun.
    Begun {
        /// The file.
        name: &'a str,
        /// Its size, in bytes.
        size: u64,
    },
    /// That many further bytes of the part went by.
    Bytes(u64),
    /// That many further bytes of a cut blob were hashed ahead of its first span.
    Hashed(u64),
    /// The part has its name.
    Finished {
        /// The file.
        name: &'a str,
        /// Its checksum.
        sha256: Digest,
    },
}

/// A part that stands in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenPart {
    /// Which part.
    pub number: u32,
    /// The file's name.
    pub name: String,
    /// Its size, in bytes.
    pub size: u64,
    /// Its checksum.
    pub sha256: Digest,
    /// Whether an earlier run wrote it.
    pub kept: bool,
}

/// What an export left in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The archive's id.
    pub archive_id: Digest,
    /// The parts that stand there, by number. All of them, unless only some were asked for.
    pub parts: Vec<WrittenPart>,
    /// The checksum file, which names exactly these parts.
    pub sums: PathBuf,
}

/// Writes the parts of `layout` to `directory`, with blobs from `source`.
///
/// # Errors
/// If the source lacks a blob or gives other bytes, or the file system fails. Finished parts stay, and are kept by
/// the next run.
pub fn export(
    layout: &Layout,
    source: &dyn Source,
    directory: &Path,
    options: &Options<'_>,
    progress: &dyn Fn(Event<'_>),
) -> Result<Written, ArchiveError> {
    let of = layout.of_parts();
    let wanted: BTreeSet<u32> = match options.only_parts {
        None => (1..=of).collect(),
        Some(parts) => parts.iter().copied().collect(),
    };
    if let Some(&part) = wanted.iter().find(|part| layout.part(**part).is_none()) {
        return Err(ArchiveError::NoSuchPart { part, of });
    }
    fs::create_dir_all(directory).map_err(io_error(directory, "created"))?;
    refuse_strays(layout, directory)?;
    let mut log = Log::open(layout, directory)?;

    let sums_path = directory.join(layout.file_name(FileKind::Sums).to_string());
    let mut finished = log.finished(layout, directory)?;
    if options.only_parts.is_some() {
        for (part, digest) in listed(layout, directory, &sums_path)? {
            if !wanted.contains(&part) {
                finished.entry(part).or_insert(digest);
            }
        }
    }
    log.rewrite(layout, &finished)?;
    match fs::remove_file(&sums_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error(&sums_path, "removed")(error));
        }
        _ => {}
    }

    let mut parts = Vec::new();
    let mut cut = BTreeMap::new();
    for (number, part) in (1..).zip(layout.parts()) {
        let name = layout.file_name(FileKind::Part(number)).to_string();
        let kept = finished.get(&number).copied();
        let sha256 = match kept {
            Some(sha256) => {
                progress(Event::Kept {
                    name: &name,
                    size: part.size,
                });
                sha256
            }
            None if wanted.contains(&number) => {
                progress(Event::Begun {
                    name: &name,
                    size: part.size,
                });
                let job = Job {
                    layout,
                    source,
                    stop: options.stop,
                    progress,
                };
                let sha256 = job.write_part(number, part, directory, &name, &mut cut)?;
                log.append(layout, number, sha256)?;
                progress(Event::Finished {
                    name: &name,
                    sha256,
                });
                sha256
            }
            None => continue,
        };
        parts.push(WrittenPart {
            number,
            name,
            size: part.size,
            sha256,
            kept: kept.is_some(),
        });
    }
    let standing: Sums = parts
        .iter()
        .map(|part| (FileKind::Part(part.number), part.sha256))
        .collect();
    let manifest = layout.manifest();
    let text = sums::print(&manifest.stream, manifest.sequence, &standing);
    write_whole(directory, &sums_path, text.as_bytes())?;
    log.close(directory)?;
    Ok(Written {
        archive_id: layout.archive_id(),
        parts,
        sums: sums_path,
    })
}

fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io {
        path,
        doing,
        source,
    }
}

fn unfinished(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!(".{name}.tmp"))
}

/// Makes a rename last.
fn sync_directory(directory: &Path) -> Result<(), ArchiveError> {
    match File::open(directory).and_then(|directory| directory.sync_all()) {
        // Some file systems of removable media know no such thing.
        Err(error) if is_unsupported(&error) => Ok(()),
        result => result.map_err(io_error(directory, "synced")),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
    )
}

/// Writes a small file under its name, whole or not at all.
fn write_whole(directory: &Path, path: &Path, bytes: &[u8]) -> Result<(), ArchiveError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = unfinished(directory, &name);
    let mut file = File::create(&temporary).map_err(io_error(&temporary, "created"))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io_error(&temporary, "written"))?;
    fs::rename(&temporary, path).map_err(io_error(path, "put in place"))?;
    sync_directory(directory)
}

/// Refuses a directory where parts of another packaging of this archive would be left over.
fn refuse_strays(layout: &Layout, directory: &Path) -> Result<(), ArchiveError> {
    let of = layout.of_parts();
    let manifest = layout.manifest();
    let mut strays: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory).map_err(io_error(directory, "listed"))? {
        let entry = entry.map_err(io_error(directory, "listed"))?;
        let stray = entry.file_name().to_str().and_then(FileName::parse);
        if stray.is_some_and(|name| {
            name.stream == manifest.stream
                && name.sequence == manifest.sequence
                && matches!(name.kind, FileKind::Part(number) if number > of)
        }) {
            strays.push(entry.path());
        }
    }
    match strays.into_iter().min() {
        Some(path) => Err(ArchiveError::Stray { path, of }),
        None => Ok(()),
    }
}

/// Whether `path` is part `number` of this very layout, as far as its size and its `part.json` tell.
fn is_part(layout: &Layout, number: u32, path: &Path) -> Result<bool, ArchiveError> {
    let (Some(part), Some(header)) = (layout.part(number), layout.part_header(number)) else {
        return Ok(false);
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error(path, "opened")(error)),
    };
    let read = |error| io_error(path, "read")(error);
    if file.metadata().map_err(read)?.len() != part.size {
        return Ok(false);
    }
    let block = tar::header(&Member::Part.to_string(), header.len() as u64);
    for expected in [&block[..], &header[..]] {
        let mut found = vec![0; expected.len()];
        let count = fill(&mut file, &mut found).map_err(|error| io_error(path, "read")(error))?;
        if found[..count] != *expected {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The parts that a checksum file in `directory` names and that stand there.
fn listed(
    layout: &Layout,
    directory: &Path,
    path: &Path,
) -> Result<BTreeMap<u32, Digest>, ArchiveError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(io_error(path, "read")(error)),
    };
    let manifest = layout.manifest();
    let sums = sums::parse(&manifest.stream, manifest.sequence, &text).unwrap_or_default();
    standing(layout, directory, sums)
}

fn standing(
    layout: &Layout,
    directory: &Path,
    sums: Sums,
) -> Result<BTreeMap<u32, Digest>, ArchiveError> {
    let mut parts = BTreeMap::new();
    for (kind, digest) in sums {
        if let FileKind::Part(number) = kind {
            let path = directory.join(layout.file_name(kind).to_string());
            if is_part(layout, number, &path)? {
                parts.insert(number, digest);
            }
        }
    }
    Ok(parts)
}

/// The progress file, locked.
struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    fn open(layout: &Layout, directory: &Path) -> Result<Self, ArchiveError> {
        let name = layout.file_name(FileKind::Sums).to_string();
        let path = directory.join(name.replace(".sha256", ".progress"));
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(io_error(&path, "opened"))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(ArchiveError::Busy { path }),
                Err(TryLockError::Error(error)) if is_unsupported(&error) => {}
                Err(TryLockError::Error(error)) => return Err(io_error(&path, "locked")(error)),
            }
            // Another export may have finished and removed the file between the two steps above.
            if is_same(&file, &path).map_err(io_error(&path, "read"))? {
                return Ok(Self { path, file });
            }
        }
    }

    /// The finished parts of this layout. A line that is cut short, and what follows it, counts for nothing.
    fn finished(
        &mut self,
        layout: &Layout,
        directory: &Path,
    ) -> Result<BTreeMap<u32, Digest>, ArchiveError> {
        let mut text = Vec::new();
        (&self.file)
            .take(sums::LIMIT)
            .read_to_end(&mut text)
            .map_err(io_error(&self.path, "read"))?;
        let text = String::from_utf8_lossy(&text);
        let manifest = layout.manifest();
        let mut recorded = Sums::new();
        for line in text.split_inclusive('\n') {
            match sums::parse(&manifest.stream, manifest.sequence, line) {
                Ok(sums) => recorded.extend(sums),
                Err(_) => break,
            }
        }
        standing(layout, directory, recorded)
    }

    fn rewrite(
        &mut self,
        layout: &Layout,
        parts: &BTreeMap<u32, Digest>,
    ) -> Result<(), ArchiveError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)).map(|_| ()))
            .map_err(io_error(&self.path, "emptied"))?;
        for (number, digest) in parts {
            self.append(layout, *number, *digest)?;
        }
        Ok(())
    }

    fn append(&mut self, layout: &Layout, number: u32, digest: Digest) -> Result<(), ArchiveError> {
        let manifest = layout.manifest();
        let line = Sums::from([(FileKind::Part(number), digest)]);
        let line = sums::print(&manifest.stream, manifest.sequence, &line);
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_all())
            .map_err(io_error(&self.path, "written"))
    }

    /// Removes the file while the lock is held.
    fn close(self, directory: &Path) -> Result<(), ArchiveError> {
        fs::remove_file(&self.path).map_err(io_error(&self.path, "removed"))?;
        sync_directory(directory)
    }
}

/// Whether `file` is still what `path` names.
#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(theirs) => Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether `file` is still what `path` names: an open file cannot be removed here.
#[cfg(not(unix))]
fn is_same(_: &File, path: &Path) -> io::Result<bool> {
    path.try_exists()
}

/// What the bytes of a member must be.
struct Promise {
    blob: Blob,
    /// The blob's digest, or the span's own.
    digest: Digest,
}

/// Some bytes of one member, in a chunk; with its promise, if they are the last.
struct Segment {
    range: Range<usize>,
    end: Option<Promise>,
}

/// A blob that is cut.
struct Cut {
    blob: Blob,
    /// The digest of each span's own bytes, in order.
    spans: Vec<Digest>,
}

type Checked = (Arc<Chunk>, Vec<Segment>);

struct Job<'a> {
    layout: &'a Layout,
    source: &'a dyn Source,
    stop: Option<&'a AtomicBool>,
    progress: &'a dyn Fn(Event<'_>),
}

impl Job<'_> {
    fn write_part(
        &self,
        number: u32,
        part: &PartLayout,
        directory: &Path,
        name: &str,
        cut: &mut BTreeMap<Digest, Cut>,
    ) -> Result<Digest, ArchiveError> {
        for entry in &part.entries {
            if let Member::Span { digest, .. } = entry.member
                && !cut.contains_key(&digest)
            {
                // Spans of one blob stand in consecutive parts: no other blob's will be asked for again.
                cut.clear();
                cut.insert(digest, self.name_spans(digest)?);
            }
        }
        let temporary = unfinished(directory, name);
        let path = directory.join(name);
        let result = self.fill_part(number, part, &temporary, cut);
        if result.is_err() {
            // The first error is the one to report; a leftover is overwritten by the next run.
            let _ = fs::remove_file(&temporary);
        }
        let sha256 = result?;
        fs::rename(&temporary, &path).map_err(io_error(&path, "put in place"))?;
        sync_directory(directory)?;
        Ok(sha256)
    }

    fn fill_part(
        &self,
        number: u32,
        part: &PartLayout,
        path: &Path,
        cut: &BTreeMap<Digest, Cut>,
    ) -> Result<Digest, ArchiveError> {
        let mut file = File::create(path).map_err(io_error(path, "created"))?;
        let disk = file.try_clone().map_err(io_error(path, "created"))?;
        // A small part needs no large buffers.
        let size = usize::try_from(part.size).map_or(CHUNK, |size| size.clamp(1, CHUNK));
        let (to_sum, summed) = channel::<Arc<Chunk>>();
        let (to_write, written) = channel::<Arc<Chunk>>();
        let (to_check, checked) = channel::<Checked>();
        std::thread::scope(|scope| {
            let sum = scope.spawn(move || {
                let mut hasher = Hasher::default();
                for chunk in summed {
                    hasher.update(&chunk);
                }
                hasher
            });
            let (to_disk, due) = sync_channel::<()>(0);
            // An error that is reported here is not reported again by the last sync.
            let flush = scope.spawn(move || due.iter().try_for_each(|()| disk.sync_data()));
            let write = scope.spawn(move || -> io::Result<()> {
                let mut waiting = 0;
                for chunk in written {
                    file.write_all(&chunk)?;
                    waiting += chunk.len();
                    // Nobody waits here: while the disk is busy, more comes together.
                    if waiting >= FLUSH && to_disk.try_send(()).is_ok() {
                        waiting = 0;
                    }
                }
                drop(to_disk);
                file.sync_all()
            });
            let check = scope.spawn(move || check(checked));
            let pool = Pool::new(size);
            let mut feed = Feed {
                buffer: pool.take(),
                pool,
                filled: 0,
                segments: Vec::new(),
                to_sum,
                to_write,
                to_check,
                job: self,
            };
            let outcome = self
                .feed_part(number, part, cut, &mut feed)
                .and_then(|()| feed.flush());
            drop(feed);
            let sum = sum.join().expect("hashing does not panic");
            let write = write.join().expect("writing does not panic");
            let flush = flush.join().expect("syncing does not panic");
            let check = check.join().expect("checking does not panic");
            match outcome {
                // Why somebody hung up is in that thread's own result.
                Ok(()) | Err(Stop::HungUp) => {}
                Err(Stop::Error(error)) => return Err(error),
            }
            check?;
            write.and(flush).map_err(io_error(path, "written"))?;
            assert_eq!(sum.length(), part.size, "the layout is exact");
            Ok(sum.finish())
        })
    }

    fn feed_part(
        &self,
        number: u32,
        part: &PartLayout,
        cut: &BTreeMap<Digest, Cut>,
        feed: &mut Feed<'_>,
    ) -> Result<(), Stop> {
        let header = self
            .layout
            .part_header(number)
            .expect("the part is one of the layout's");
        feed.member(&Member::Part, header.len() as u64)?;
        feed.put(&header)?;
        feed.pad(header.len() as u64)?;
        drop(header);
        for entry in &part.entries {
            feed.member(&entry.member, entry.length)?;
            if entry.member.digest().is_some() {
                self.feed_blob(entry, cut, feed)?;
            } else {
                let content = self.layout.content(&entry.member);
                feed.put(content.expect("the layout has what it lays out"))?;
            }
            feed.pad(entry.length)?;
        }
        feed.put(&[0; 2 * 512])
    }

    fn feed_blob(
        &self,
        entry: &Entry,
        cut: &BTreeMap<Digest, Cut>,
        feed: &mut Feed<'_>,
    ) -> Result<(), Stop> {
        let (blob, digest) = if let Member::Span { digest, number, .. } = entry.member {
            let Cut { blob, spans } = &cut[&digest];
            (*blob, spans[number as usize - 1])
        } else {
            let digest = entry.member.digest().expect("other members are content");
            let size = entry.length;
            (Blob { digest, size }, digest)
        };
        let mut bytes = self.open(&blob, entry.offset)?;
        let mut left = entry.length;
        while left > 0 {
            let space = feed.space()?;
            let most = space
                .len()
                .min(usize::try_from(left).unwrap_or(space.len()));
            let count = match bytes.read(&mut space[..most]) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ArchiveError::Source { blob, source }.into()),
            };
            if count == 0 {
                let found = entry.offset + entry.length - left;
                let promise = blob;
                return Err(damaged(blob, Damage::Short { promise, found }).into());
            }
            feed.wrote(count, None);
            left -= count as u64;
        }
        feed.wrote(0, Some(Promise { blob, digest }));
        if entry.offset + entry.length == blob.size && !is_at_end(&mut *bytes, &blob)? {
            return Err(damaged(blob, Damage::Long { promise: blob }).into());
        }
        Ok(())
    }

    fn spans(&self, digest: Digest) -> impl Iterator<Item = &Entry> {
        self.layout
            .parts()
            .iter()
            .flat_map(|part| part.entries.iter().take(2))
            .filter(
                move |entry| matches!(entry.member, Member::Span { digest: cut, .. } if cut == digest),
            )
    }

    /// Holds a blob that is cut to its digest, and names each of its spans.
    fn name_spans(&self, digest: Digest) -> Result<Cut, ArchiveError> {
        let size = self.spans(digest).map(|entry| entry.length).sum();
        let blob = Blob { digest, size };
        let mut bytes = self.open(&blob, 0)?;
        let mut buffer = vec![0; CHUNK];
        let mut whole = Hasher::default();
        let mut spans = Vec::new();
        for entry in self.spans(digest) {
            let mut span = Hasher::default();
            while span.length() < entry.length {
                self.check_stop()?;
                let left = entry.length - span.length();
                let most = buffer.len().min(usize::try_from(left).unwrap_or(CHUNK));
                let count = fill(&mut *bytes, &mut buffer[..most])
                    .map_err(|source| ArchiveError::Source { blob, source })?;
                if count == 0 {
                    let found = whole.length();
                    let promise = blob;
                    return Err(damaged(blob, Damage::Short { promise, found }));
                }
                let read = &buffer[..count];
                // Side by side: the two are all that this pass costs.
                rayon::join(|| span.update(read), || whole.update(read));
                (self.progress)(Event::Hashed(count as u64));
            }
            spans.push(span.finish());
        }
        if !is_at_end(&mut *bytes, &blob)? {
            return Err(damaged(blob, Damage::Long { promise: blob }));
        }
        let found = whole.finish();
        if found != digest {
            let promise = blob;
            return Err(damaged(blob, Damage::Wrong { promise, found }));
        }
        Ok(Cut { blob, spans })
    }

    fn open(&self, blob: &Blob, from: u64) -> Result<Box<dyn Read + Send + '_>, ArchiveError> {
        self.source
            .open(blob, from)
            .map_err(|source| ArchiveError::Source {
                blob: *blob,
                source,
            })?
            .ok_or(ArchiveError::Absent { blob: *blob })
    }

    fn check_stop(&self) -> Result<(), ArchiveError> {
        match self.stop {
            Some(stop) if stop.load(Ordering::Relaxed) => Err(ArchiveError::Stopped),
            _ => Ok(()),
        }
    }
}

fn damaged(blob: Blob, source: Damage) -> ArchiveError {
    ArchiveError::BlobDamaged { blob, source }
}

fn is_at_end(bytes: &mut dyn Read, blob: &Blob) -> Result<bool, ArchiveError> {
    fill(bytes, &mut [0])
        .map(|count| count == 0)
        .map_err(|source| ArchiveError::Source {
            blob: *blob,
            source,
        })
}

/// Holds the members that pass by to their promises.
fn check(arriving: Receiver<Checked>) -> Result<(), ArchiveError> {
    let mut hasher = Hasher::default();
    for (chunk, segments) in arriving {
        for segment in segments {
            hasher.update(&chunk[segment.range]);
            if let Some(Promise { blob, digest }) = segment.end {
                let found = std::mem::take(&mut hasher).finish();
                if found != digest {
                    let promise = blob;
                    return Err(damaged(blob, Damage::Wrong { promise, found }));
                }
            }
        }
    }
    Ok(())
}

/// Why feeding ended early.
enum Stop {
    Error(ArchiveError),
    /// A reader is gone, for a reason of its own.
    HungUp,
}

impl From<ArchiveError> for Stop {
    fn from(error: ArchiveError) -> Self {
        Self::Error(error)
    }
}

/// The bytes of a part, on their way to everyone who needs them.
struct Feed<'a> {
    pool: Pool,
    buffer: Vec<u8>,
    filled: usize,
    segments: Vec<Segment>,
    to_sum: Sender<Arc<Chunk>>,
    to_write: Sender<Arc<Chunk>>,
    to_check: Sender<Checked>,
    job: &'a Job<'a>,
}

impl Feed<'_> {
    /// Room for at least one byte.
    fn space(&mut self) -> Result<&mut [u8], Stop> {
        if self.filled == self.buffer.len() {
            self.flush()?;
            self.buffer = self.pool.take();
        }
        Ok(&mut self.buffer[self.filled..])
    }

    /// The first `count` bytes of the space are bytes of a blob; its last ones, where there is a promise.
    fn wrote(&mut self, count: usize, end: Option<Promise>) {
        let range = self.filled..self.filled + count;
        self.filled += count;
        self.segments.push(Segment { range, end });
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn member(&mut self, member: &Member, length: u64) -> Result<(), Stop> {
        self.put(&tar::header(&member.to_string(), length))
    }

    fn pad(&mut self, length: u64) -> Result<(), Stop> {
        let zeros = usize::try_from(tar::padded(length) - length).expect("less than a block");
        self.put(&[0; 512][..zeros])
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.job.check_stop()?;
        let filled = std::mem::take(&mut self.filled);
        let chunk = self.pool.chunk(std::mem::take(&mut self.buffer), filled);
        let segments = std::mem::take(&mut self.segments);
        (self.job.progress)(Event::Bytes(filled as u64));
        let sent = self.to_sum.send(Arc::clone(&chunk)).is_ok()
            && self.to_write.send(Arc::clone(&chunk)).is_ok()
            && self.to_check.send((chunk, segments)).is_ok();
        if sent { Ok(()) } else { Err(Stop::HungUp) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, noise, only_archive};
    use super::super::{Contents, verify};
    use super::*;
    use crate::store::memory::Memory;
    use proptest::prelude::*;
    use std::cell::RefCell;

    const SIZES: [usize; 7] = [700, 300, 9000, 0, 512, 20_000, 1];
    type Change = fn(&Path, &Path);

    const PART_SIZE: u64 = 13_000;

    fn read_all(paths: &[PathBuf]) -> Vec<Vec<u8>> {
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn export_with(
        contents: &Contents<'_>,
        source: &dyn Source,
        directory: &Path,
        options: &Options<'_>,
    ) -> Result<(Written, Vec<String>), ArchiveError> {
        let begun = RefCell::new(Vec::new());
        let layout = Layout::of(contents, PART_SIZE).unwrap();
        let written = export(&layout, source, directory, options, &|event| {
            if let Event::Begun { name, .. } = event {
                begun.borrow_mut().push(name.to_owned());
            }
        })?;
        Ok((written, begun.into_inner()))
    }

    #[test]
    fn two_runs_give_the_same_bytes_and_these_are_pinned() {
        let sample = Sample::of(&SIZES);
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = sample.export(&sample.delta(), PART_SIZE, one.path());
        let second = sample.export(&sample.delta(), PART_SIZE, two.path());
        assert_eq!(
            read_all(&first),
            read_all(&second),
            "nothing written depends on who, when, where or how fast"
        );
        let full = sample.export(&sample.contents(), PART_SIZE, one.path());
        let pinned: Vec<String> = [first, full]
            .concat()
            .iter()
            .map(|path| {
                let bytes = fs::read(path).unwrap();
                format!(
                    "{} {} {}",
                    path.file_name().unwrap().to_str().unwrap(),
                    bytes.len(),
                    Digest::of(&bytes).hex()
                )
            })
            .collect();
        insta::assert_snapshot!(pinned.join("\n"), @r"
        prod_seq000003_0001.tar 12800 348c81c823ed3b1bf29db030ede15c624b74c87ec97e7ce158a0d15118f0e75a
        prod_seq000003_0002.tar 7168 24af9a21d1b482f0e9ab45c0c70029b93f01cffbf0af4507cf6d0a201efa8126
        prod_seq000003_0003.tar 12800 ec735fc10f755d9b2a75612aea5dc892a5f11867b367216d7e8d087164fd53ae
        prod_seq000003_0004.tar 7168 033271d7cd7612286a750db888e3ad54e8dc63cb8852c4f77c2d5d847ba45dae
        prod_seq000001_0001.tar 12288 6b222e4263837f41932c23a2402d24e5f8c03a85af2637f326da08bcdad242e3
        prod_seq000001_0002.tar 6656 56f7f05f00416a45d457276287c6d5b7dd0e3b09b79570c9ebf0e243d2b5cf95
        prod_seq000001_0003.tar 12800 a96de3e9a77eddd9f10907397e3d3821c5821b5407836e06c63b68d540b72d27
        prod_seq000001_0004.tar 7168 241f1f23c956991c87d8595bf6c595b149f609f817a8572aac0ea461c4cfcb37
        prod_seq000001_0005.tar 12800 34c6aededdbc7013950daedfc56baade8fdefc20624f3247b20961ddc15c7e18
        prod_seq000001_0006.tar 12800 1202554e3256fc2b1da48405c8f0485cac8f6be5211eb74de608c76cf3194002
        prod_seq000001_0007.tar 9728 115f3f8e058a3f0168211017ee2d8758af41b45ae11938b5e63d281fb4148810
        ");
    }

    #[test]
    fn an_export_leaves_the_parts_and_their_checksums_and_nothing_else() {
        let sample = Sample::of(&SIZES);
        let folder = tempfile::tempdir().unwrap();
        let parts = sample.export(&sample.contents(), PART_SIZE, folder.path());
        assert!(parts.len() >= 4, "the sample has several parts");
        let mut expected: Vec<String> = (1..=parts.len())
            .map(|number| format!("prod_seq000001_{number:04}.tar"))
            .collect();
        expected.insert(0, "prod_seq000001.sha256".to_owned());
        expected.sort();
        assert_eq!(names(folder.path()), expected, "no other file is left");
        let output = std::process::Command::new("sha256sum")
            .args(["--check", "--strict", "prod_seq000001.sha256"])
            .current_dir(folder.path())
            .output();
        match output {
            Ok(output) => assert!(output.status.success(), "sha256sum agrees"),
            Err(_) => println!("skipped: there is no sha256sum here"),
        }
    }

    #[test]
    fn only_the_parts_that_are_asked_for_are_written() {
        let sample = Sample::of(&SIZES);
        let whole = tempfile::tempdir().unwrap();
        let parts = sample.export(&sample.contents(), PART_SIZE, whole.path());
        let folder = tempfile::tempdir().unwrap();
        let last = u32::try_from(parts.len()).unwrap();
        for number in (1..=last).rev() {
            let options = Options {
                only_parts: Some(&[number]),
                stop: None,
            };
            let (written, begun) =
                export_with(&sample.contents(), &sample.store, folder.path(), &options).unwrap();
            assert_eq!(begun.len(), 1, "one part at a time");
            assert_eq!(
                written.parts.len(),
                (last - number + 1) as usize,
                "those written before are still listed"
            );
        }
        assert_eq!(
            names(folder.path()),
            names(whole.path()),
            "all parts together are the archive"
        );
        for name in names(whole.path()) {
            assert_eq!(
                fs::read(whole.path().join(&name)).unwrap(),
                fs::read(folder.path().join(&name)).unwrap(),
                "{name} is a function of the contents, the part size and its number"
            );
        }
        let options = Options {
            only_parts: Some(&[last + 1]),
            stop: None,
        };
        assert!(
            matches!(
                export_with(&sample.contents(), &sample.store, folder.path(), &options),
                Err(ArchiveError::NoSuchPart { .. })
            ),
            "a part that is not there is named"
        );
    }

    /// A source that loses a blob, or lies about it.
    struct Faulty<'a> {
        store: &'a Memory,
        blob: Blob,
        bytes: Option<Vec<u8>>,
    }

    impl Source for Faulty<'_> {
        fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
            if *blob == self.blob {
                let from = usize::try_from(from).unwrap();
                return Ok(self.bytes.as_ref().map(|bytes| {
                    Box::new(bytes.get(from..).unwrap_or_default()) as Box<dyn Read + Send>
                }));
            }
            self.store.open(blob, from)
        }
    }

    #[test]
    fn a_source_that_lies_leaves_no_part_that_holds_the_lie() {
        let sample = Sample::of(&SIZES);
        let layout = Layout::of(&sample.contents(), PART_SIZE).unwrap();
        for blob in &sample.blobs {
            let mut good = Vec::new();
            let mut bytes = sample.store.open(blob, 0).unwrap().unwrap();
            bytes.read_to_end(&mut good).unwrap();
            let mut flipped = good.clone();
            if let Some(last) = flipped.last_mut() {
                *last ^= 1;
            }
            let longer = [good.clone(), vec![0]].concat();
            let shorter = good[..good.len().saturating_sub(1)].to_vec();
            for bytes in [None, Some(flipped), Some(longer), Some(shorter)] {
                if bytes.as_ref() == Some(&good) {
                    continue;
                }
                let folder = tempfile::tempdir().unwrap();
                let source = Faulty {
                    store: &sample.store,
                    blob: *blob,
                    bytes,
                };
                let error = export(
                    &layout,
                    &source,
                    folder.path(),
                    &Options::default(),
                    &|_| (),
                )
                .unwrap_err();
                match (&source.bytes, &error) {
                    (None, ArchiveError::Absent { blob: named })
                    | (Some(_), ArchiveError::BlobDamaged { blob: named, .. }) => {
                        assert_eq!(named, blob, "the blob is named");
                    }
                    _ => panic!("unexpected: {error}"),
                }
                let carrying = layout
                    .parts()
                    .iter()
                    .position(|part| {
                        part.entries
                            .iter()
                            .any(|entry| entry.member.digest() == Some(blob.digest))
                    })
                    .unwrap();
                let mut expected: Vec<String> = (1..=carrying)
                    .map(|number| format!("prod_seq000001_{number:04}.tar"))
                    .collect();
                expected.insert(0, "prod_seq000001.progress".to_owned());
                expected.sort();
                assert_eq!(
                    names(folder.path()),
                    expected,
                    "the parts before it stand, and are recorded"
                );
                let (written, begun) = export_with(
                    &sample.contents(),
                    &sample.store,
                    folder.path(),
                    &Options::default(),
                )
                .unwrap();
                assert_eq!(
                    begun.len() + carrying,
                    written.parts.len(),
                    "the next run keeps what is finished"
                );
                verify::verify(
                    &only_archive(folder.path()),
                    &verify::Options::default(),
                    &|_| (),
                )
                .unwrap();
            }
        }
    }

    #[test]
    fn a_progress_file_counts_only_for_parts_that_stand() {
        let sample = Sample::of(&SIZES);
        let folder = tempfile::tempdir().unwrap();
        let parts = sample.export(&sample.contents(), PART_SIZE, folder.path());
        let progress = folder.path().join("prod_seq000001.progress");
        let sums = folder.path().join("prod_seq000001.sha256");
        let bytes = read_all(&parts);
        let changes: [(&str, usize, Change); 5] = [
            ("nothing", 0, |_, _| ()),
            ("a part is gone", 1, |part, _| {
                fs::remove_file(part).unwrap();
            }),
            ("a part is cut", 1, |part, _| {
                let bytes = fs::read(part).unwrap();
                fs::write(part, &bytes[..bytes.len() - 1]).unwrap();
            }),
            ("a part is another's", 1, |part, _| {
                let mut bytes = fs::read(part).unwrap();
                bytes[530] ^= 1;
                fs::write(part, bytes).unwrap();
            }),
            ("the last line is cut", 1, |_, progress| {
                let text = fs::read(progress).unwrap();
                fs::write(progress, &text[..text.len() - 5]).unwrap();
            }),
        ];
        for (what, rewritten, change) in changes {
            fs::rename(&sums, &progress).unwrap();
            change(&parts[1], &progress);
            let (_, begun) = export_with(
                &sample.contents(),
                &sample.store,
                folder.path(),
                &Options::default(),
            )
            .unwrap();
            assert_eq!(
                begun.len(),
                rewritten,
                "{what}: no more than that is written"
            );
            assert_eq!(read_all(&parts), bytes, "{what}: and all is as it was");
            assert!(!progress.exists(), "{what}: no progress file is left");
        }
        let (_, begun) = export_with(
            &sample.contents(),
            &sample.store,
            folder.path(),
            &Options::default(),
        )
        .unwrap();
        assert_eq!(
            begun.len(),
            parts.len(),
            "a finished archive that is exported again is written again"
        );
    }

    #[test]
    fn two_exports_of_one_archive_do_not_meet() {
        let sample = Sample::of(&SIZES);
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(&sample.contents(), PART_SIZE).unwrap();
        let held = Log::open(&layout, folder.path()).unwrap();
        let error = export(
            &layout,
            &sample.store,
            folder.path(),
            &Options::default(),
            &|_| (),
        )
        .unwrap_err();
        assert!(matches!(error, ArchiveError::Busy { .. }), "{error}");
        drop(held);
        sample.export(&sample.contents(), PART_SIZE, folder.path());
    }

    #[test]
    fn parts_of_another_packaging_are_in_the_way() {
        let sample = Sample::of(&SIZES);
        let folder = tempfile::tempdir().unwrap();
        let parts = sample.export(&sample.contents(), PART_SIZE, folder.path());
        let layout = Layout::of(&sample.contents(), 1 << 20).unwrap();
        let error = export(
            &layout,
            &sample.store,
            folder.path(),
            &Options::default(),
            &|_| (),
        )
        .unwrap_err();
        assert!(
            matches!(&error, ArchiveError::Stray { path, of: 1 } if *path == parts[1]),
            "{error}"
        );
    }

    #[test]
    fn a_stopped_export_goes_on_where_it_stopped() {
        let sample = Sample::of(&SIZES);
        let folder = tempfile::tempdir().unwrap();
        let stop = AtomicBool::new(false);
        let layout = Layout::of(&sample.contents(), PART_SIZE).unwrap();
        let options = Options {
            only_parts: None,
            stop: Some(&stop),
        };
        let error = export(&layout, &sample.store, folder.path(), &options, &|event| {
            if matches!(event, Event::Finished { .. }) {
                stop.store(true, Ordering::Relaxed);
            }
        })
        .unwrap_err();
        assert!(matches!(error, ArchiveError::Stopped), "{error}");
        let (written, begun) = export_with(
            &sample.contents(),
            &sample.store,
            folder.path(),
            &Options::default(),
        )
        .unwrap();
        assert_eq!(
            begun.len() + 1,
            written.parts.len(),
            "one part was finished"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_is_written_is_what_was_laid_out(
            sizes in prop::collection::vec(0_usize..30_000, 1..12),
            room in 0_u64..30_000,
        ) {
            let sample = Sample::of(&sizes);
            let contents = sample.contents();
            let Err(ArchiveError::PartSize { least, .. }) = Layout::of(&contents, 1) else {
                panic!("one byte is never enough");
            };
            let layout = Layout::of(&contents, least + room).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let paths = sample.export(&contents, least + room, folder.path());
            for (part, path) in layout.parts().iter().zip(&paths) {
                prop_assert_eq!(fs::metadata(path).unwrap().len(), part.size);
                prop_assert!(part.size <= least + room);
            }
            let archive = only_archive(folder.path());
            verify::verify(&archive, &verify::Options::default(), &|_| ()).unwrap();
            let blobs = archive.blobs();
            let sink = Memory::default();
            for blob in archive.metadata().unwrap().provides {
                crate::store::transfer(&blobs, &sink, &blob, &|_| ()).unwrap();
            }
            for (name, blob) in (1..).zip(&sample.blobs) {
                let mut found = Vec::new();
                sink.open(blob, 0).unwrap().unwrap().read_to_end(&mut found).unwrap();
                prop_assert_eq!(Blob::of(&found), *blob, "blob {} arrives", name);
            }
        }
    }

    #[test]
    fn a_blob_larger_than_any_buffer_is_carried() {
        let sample = Sample::of(&[100]);
        let large = noise(7, 3 * CHUNK + 77);
        let blob = sample.store.insert(&large);
        let mut contents = sample.contents();
        contents.provides.push(blob);
        contents.closure.push(blob);
        contents.closure.sort_unstable();
        for part_size in [1 << 30, 700_000] {
            let folder = tempfile::tempdir().unwrap();
            sample.export(&contents, part_size, folder.path());
            let archive = only_archive(folder.path());
            verify::verify(&archive, &verify::Options::default(), &|_| ()).unwrap();
            for from in [0, 1, 699_999, blob.size - 1, blob.size] {
                let mut found = Vec::new();
                let blobs = archive.blobs();
                let mut bytes = blobs.open(&blob, from).unwrap().unwrap();
                bytes.read_to_end(&mut found).unwrap();
                assert_eq!(
                    found,
                    large[usize::try_from(from).unwrap()..],
                    "the blob can be opened at {from}"
                );
            }
        }
    }
}
