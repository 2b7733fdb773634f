//! Parity over the parts of an archive: damage that copying again cannot mend, because the other side is far away.
//!
//! `<stream>_seq000007_p0001.parity …` hold Reed-Solomon parity over the bytes of all parts, whatever they are. Every
//! part is cut into `segments` segments of equal length (the same for all parts; what a part is too short for counts
//! as zeros), which are the data shards: as many as there are parts where those are many, more where they are few, so
//! that ten percent of parity costs ten percent. With as many parity shards as a part has segments, a lost part comes
//! back whole. Shards are coded in stripes: byte ranges at the same offset of every segment; a stripe survives as many
//! lost or damaged blocks as there are parity shards.
//!
//! ```text
//! {"archive":"sha256:…","block":65536,…}⏎      the header: canonical JSON, one line
//! <64 hex digits>⏎                              its BLAKE3
//! per stripe:
//!   16 bytes × data shards                      BLAKE3 of each data block, cut short, to find the damaged ones
//!   per parity shard of this file:
//!     16 bytes                                  BLAKE3 of the block, cut short
//!     the block
//! ```
//!
//! The checks find damage; what was restored is believed only when the part's whole SHA-256 is right. Files are
//! written and read front to back, and memory holds one stripe: at most about 64 MiB, however large the parts are.
//!
//! The code is that of the `reed-solomon-simd` crate, version 3 (Leopard-RS over GF(2^16), fixed bytes for fixed input);
//! `format` would change with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};
use serde::{Deserialize, Serialize};

use super::member::{canonical, expect_canonical};
use super::sums::{self, Sums};
use super::{FileKind, FileName, PART_LIMIT};
use crate::digest::{Digest, Hasher};

const FORMAT: &str = "imgbuild-parity/1";
/// Bytes of a check.
const CHECK: usize = 16;
/// Bytes of all blocks of a stripe, about.
const STRIPE: u64 = 32 << 20;
/// Largest and smallest block.
const BLOCK: (u64, u64) = (1 << 20, 4 << 10);
/// Data shards that are aimed at where there are fewer parts.
const SHARDS: usize = 100;
/// Most bytes of a header: ten thousand parts.
const HEADER_LIMIT: u64 = 4 << 20;
/// Files that are kept open at once.
const OPEN: usize = 200;

/// Why parity cannot be made, or does not help.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// A share that is none.
    #[error("{text:?} is no share: expected a percentage from 1% to 100%")]
    Share {
        /// What was read.
        text: String,
    },
    /// There are too many parts.
    #[error("{parts} parts with {share} % of parity are more than can be coded together")]
    Shards {
        /// How many parts.
        parts: usize,
        /// How much parity.
        share: u8,
    },
    /// A parity file is not one.
    #[error("{} is not a parity file: {problem}", file.display())]
    Form {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is none.
    #[error("there is no parity file of this archive")]
    None,
    /// More is gone than parity can bring back.
    #[error(
        "stripe {stripe} of {stripes} has lost {lost} blocks, and {left} of its parity blocks are left"
    )]
    TooMuch {
        /// Which stripe, counted from 1.
        stripe: u64,
        /// Of how many.
        stripes: u64,
        /// Data blocks that are lost.
        lost: usize,
        /// Parity blocks that are not.
        left: usize,
    },
    /// What was restored is something else.
    #[error("{name} was restored, but as {found}; expected {expected}")]
    Wrong {
        /// The part.
        name: String,
        /// What must be.
        expected: Digest,
        /// What came out.
        found: Digest,
    },
    /// A file cannot be used.
    #[error("{} could not be {doing}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried, as a participle.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The coding itself failed.
    #[error("the parity cannot be computed")]
    Code(#[source] reed_solomon_simd::Error),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

impl crate::hint::Hint for ParityError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooMuch { .. } => Some("bring further copies of the damaged parts, or have them exported again: `imgbuild export --seq N --only-parts …`".to_owned()),
            Self::None => Some("parity is made with `imgbuild export --parity 10%`".to_owned()),
            Self::Shards { .. } => Some("use a larger part size".to_owned()),
            _ => None,
        }
    }
}

fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> ParityError {
    let path = path.to_owned();
    move |source| ParityError::Io {
        path,
        doing,
        source,
    }
}

/// Reads a share: `10%`.
///
/// # Errors
/// If it is none from 1% to 100%.
pub fn parse_share(text: &str) -> Result<u8, ParityError> {
    let share = text.strip_suffix('%').unwrap_or(text).parse().ok();
    share
        .filter(|share| (1..=100).contains(share))
        .ok_or_else(|| ParityError::Share {
            text: text.to_owned(),
        })
}

/// A part that parity is made over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Covered {
    /// The file's name.
    pub name: String,
    /// Its checksum.
    pub sha256: Digest,
    /// Its size, in bytes.
    pub size: u64,
}

/// What a parity file says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    archive: Digest,
    /// Bytes of a block.
    block: u64,
    /// How many parity shards this file has.
    count: u64,
    /// Its first parity shard, counted from 0.
    first: u64,
    format: String,
    /// All parity shards.
    parity: u64,
    parts: Vec<Covered>,
    /// Bytes of a segment: a multiple of the block.
    segment: u64,
    /// Segments of a part.
    segments: u64,
}

impl Header {
    fn data(&self) -> usize {
        self.parts.len() * usize::try_from(self.segments).unwrap_or(usize::MAX)
    }

    fn stripes(&self) -> u64 {
        self.segment / self.block
    }

    /// The part that data shard `shard` is of, and where it begins there.
    fn place(&self, shard: usize) -> (usize, u64) {
        let segments = usize::try_from(self.segments).unwrap_or(usize::MAX);
        (shard / segments, (shard % segments) as u64 * self.segment)
    }

    fn print(&self) -> Vec<u8> {
        let mut bytes = canonical(self);
        let check = blake3::hash(&bytes).to_hex();
        bytes.extend(check.as_bytes());
        bytes.push(b'\n');
        bytes
    }

    fn check(&self) -> Result<(), String> {
        let shards = self.data() as u64 + self.parity;
        let largest = self.parts.iter().map(|part| part.size).max().unwrap_or(0);
        let covers = self.segment.checked_mul(self.segments);
        let good = self.format == FORMAT
            && !self.parts.is_empty()
            && self.parts.len() <= PART_LIMIT as usize
            && (1..=100).contains(&self.segments)
            && self.block > 0
            && self.block <= BLOCK.0
            && self.block.is_multiple_of(64)
            && self.segment > 0
            && self.segment.is_multiple_of(self.block)
            && covers.is_some_and(|covers| covers >= largest)
            && self
                .first
                .checked_add(self.count)
                .is_some_and(|end| end <= self.parity)
            && shards <= 65_536
            && self.block * shards <= 2 * STRIPE + BLOCK.1 * 65_536;
        let named = self.parts.iter().zip(1..).all(|(part, number)| {
            FileName::parse(&part.name).is_some_and(|name| name.kind == FileKind::Part(number))
        });
        if good && named {
            Ok(())
        } else {
            Err("its header contradicts itself".to_owned())
        }
    }
}

/// A parity file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenParity {
    /// The file's name.
    pub name: String,
    /// Its size, in bytes.
    pub size: u64,
    /// Its checksum.
    pub sha256: Digest,
}

/// How the shards are cut: segments per part, bytes of a segment and of a block, parity shards.
fn plan(parts: &[Covered], share: u8) -> Result<(u64, u64, u64, usize), ParityError> {
    let refused = || ParityError::Shards {
        parts: parts.len(),
        share,
    };
    let segments = SHARDS.div_ceil(parts.len()).max(1);
    let data = parts.len() * segments;
    let parity = (data * usize::from(share)).div_ceil(100).max(1);
    if !ReedSolomonEncoder::supports(data, parity) || data + parity > 65_536 {
        return Err(refused());
    }
    let largest = parts.iter().map(|part| part.size).max().unwrap_or(0).max(1);
    let exact = largest.div_ceil(segments as u64);
    let block = (STRIPE / (data + parity) as u64)
        .clamp(BLOCK.1, BLOCK.0)
        .min(exact)
        .next_multiple_of(64);
    Ok((
        segments as u64,
        exact.next_multiple_of(block),
        block,
        parity,
    ))
}

/// The bytes of the parts, by shard and stripe.
struct Shards<'a> {
    header: &'a Header,
    folder: &'a Path,
    open: BTreeMap<usize, Option<File>>,
}

impl<'a> Shards<'a> {
    fn new(header: &'a Header, folder: &'a Path) -> Self {
        Self {
            header,
            folder,
            open: BTreeMap::new(),
        }
    }

    /// Reads a block; `None` if its part is not there or cannot be read. Behind the end of a part there are zeros.
    fn read(&mut self, shard: usize, stripe: u64, block: &mut [u8]) -> Option<()> {
        let (part, begin) = self.header.place(shard);
        let covered = &self.header.parts[part];
        let from = begin + stripe * self.header.block;
        let length = covered.size.saturating_sub(from).min(block.len() as u64);
        let length = usize::try_from(length).ok()?;
        block[length..].fill(0);
        if length == 0 {
            return Some(());
        }
        if self.open.len() >= OPEN && !self.open.contains_key(&part) {
            self.open.pop_first();
        }
        let folder = self.folder;
        let file = self
            .open
            .entry(part)
            .or_insert_with(|| File::open(folder.join(&covered.name)).ok());
        file.as_ref()?
            .read_exact_at(&mut block[..length], from)
            .ok()
    }
}

fn check_of(block: &[u8]) -> [u8; CHECK] {
    let mut check = [0; CHECK];
    check.copy_from_slice(&blake3::hash(block).as_bytes()[..CHECK]);
    check
}

/// Writes parity over parts that stand in `folder`, in files of at most `part_size` bytes, and adds these to the
/// checksum file. `progress` is told of bytes that were read.
///
/// # Errors
/// If a part is not there or not what `parts` says, or the file system fails.
pub fn write(
    folder: &Path,
    archive: Digest,
    parts: &[Covered],
    share: u8,
    part_size: u64,
    stop: &AtomicBool,
    progress: &dyn Fn(u64),
) -> Result<Vec<WrittenParity>, ParityError> {
    let (segments, segment, block, parity) = plan(parts, share)?;
    let Some(name) = parts.first().and_then(|part| FileName::parse(&part.name)) else {
        return Err(ParityError::None);
    };
    let stripes = segment / block;
    let mut header = Header {
        archive,
        block,
        count: 0,
        first: 0,
        format: FORMAT.to_owned(),
        parity: parity as u64,
        parts: parts.to_vec(),
        segment,
        segments,
    };
    // As many shards in a file as fit.
    let data = header.data();
    let fixed = header.print().len() as u64 + 40 + stripes * (data * CHECK) as u64;
    let each = stripes * (CHECK as u64 + block);
    let fit = part_size.saturating_sub(fixed) / each.max(1);
    let fit = fit.clamp(1, parity as u64);
    let mut files = Vec::new();
    let mut first = 0;
    while first < parity as u64 {
        let count = fit.min(parity as u64 - first);
        (header.first, header.count) = (first, count);
        let number = u32::try_from(files.len() + 1).unwrap_or(u32::MAX);
        let file_name = FileName {
            kind: FileKind::Parity(number),
            ..name.clone()
        }
        .to_string();
        let temporary = folder.join(format!(".{file_name}.tmp"));
        let file = File::create(&temporary).map_err(io_error(&temporary, "created"))?;
        let mut out = Out {
            file: BufWriter::with_capacity(1 << 20, file),
            hasher: Hasher::default(),
            path: temporary,
            first,
            count,
        };
        out.put(&header.print())?;
        files.push((file_name, out));
        first += count;
    }
    let size = usize::try_from(block).unwrap_or(usize::MAX);
    let mut encoder = ReedSolomonEncoder::new(data, parity, size).map_err(ParityError::Code)?;
    let mut shards = Shards::new(&header, folder);
    let mut buffer = vec![0; size];
    for stripe in 0..stripes {
        if stop.load(Ordering::Relaxed) {
            return Err(ParityError::Stopped);
        }
        let mut checks = Vec::with_capacity(data * CHECK);
        for shard in 0..data {
            let path = folder.join(&header.parts[header.place(shard).0].name);
            shards
                .read(shard, stripe, &mut buffer)
                .ok_or_else(|| io_error(&path, "read")(io::ErrorKind::UnexpectedEof.into()))?;
            checks.extend(check_of(&buffer));
            encoder
                .add_original_shard(&buffer)
                .map_err(ParityError::Code)?;
        }
        progress(data as u64 * block);
        let coded = encoder.encode().map_err(ParityError::Code)?;
        let mut blocks = coded.recovery_iter();
        for (_, out) in &mut files {
            out.put(&checks)?;
            for _ in 0..out.count {
                let block = blocks.next().expect("there are as many as were asked for");
                out.put(&check_of(block))?;
                out.put(block)?;
            }
        }
    }
    let mut written = Vec::new();
    for (file_name, out) in files {
        let (size, sha256) = (out.hasher.length(), out.hasher.clone().finish());
        out.finish(&folder.join(&file_name))?;
        written.push(WrittenParity {
            name: file_name,
            size,
            sha256,
        });
    }
    list(folder, &name, &written)?;
    Ok(written)
}

struct Out {
    file: BufWriter<File>,
    hasher: Hasher,
    path: PathBuf,
    first: u64,
    count: u64,
}

impl Out {
    fn put(&mut self, bytes: &[u8]) -> Result<(), ParityError> {
        self.hasher.update(bytes);
        self.file
            .write_all(bytes)
            .map_err(io_error(&self.path, "written"))
    }

    fn finish(self, path: &Path) -> Result<(), ParityError> {
        debug_assert!(self.count > 0, "file from {} has shards", self.first);
        let file = self
            .file
            .into_inner()
            .map_err(|error| io_error(&self.path, "written")(error.into_error()))?;
        file.sync_all().map_err(io_error(&self.path, "synced"))?;
        fs::rename(&self.path, path).map_err(io_error(path, "put in place"))
    }
}

/// Adds parity files to the checksum file of their archive.
fn list(folder: &Path, name: &FileName, written: &[WrittenParity]) -> Result<(), ParityError> {
    let sums_name = FileName {
        kind: FileKind::Sums,
        ..name.clone()
    };
    let path = folder.join(sums_name.to_string());
    let text = fs::read_to_string(&path).map_err(io_error(&path, "read"))?;
    let mut sums: Sums = sums::parse(&name.stream, name.sequence, &text)
        .map_err(|flaw| io_error(&path, "read")(io::Error::other(flaw)))?;
    sums.retain(|kind, _| !matches!(kind, FileKind::Parity(_)));
    for file in written {
        if let Some(name) = FileName::parse(&file.name) {
            sums.insert(name.kind, file.sha256);
        }
    }
    let text = sums::print(&name.stream, name.sequence, &sums);
    let temporary = folder.join(format!(".{sums_name}.tmp"));
    let mut file = File::create(&temporary).map_err(io_error(&temporary, "created"))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io_error(&temporary, "written"))?;
    fs::rename(&temporary, &path).map_err(io_error(&path, "put in place"))
}

/// A parity file, opened behind its header.
struct Opened {
    header: Header,
    file: BufReader<File>,
    /// Bytes of a stripe in this file.
    stride: u64,
    /// Where the first stripe begins.
    start: u64,
}

fn open(path: &Path) -> Result<Opened, ParityError> {
    let form = |problem: String| ParityError::Form {
        file: path.to_owned(),
        problem,
    };
    let file = File::open(path).map_err(io_error(path, "opened"))?;
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut line = |limit: u64| -> Result<Vec<u8>, ParityError> {
        let mut bytes = Vec::new();
        (&mut file)
            .take(limit)
            .read_until(b'\n', &mut bytes)
            .map_err(io_error(path, "read"))?;
        Ok(bytes)
    };
    let text = line(HEADER_LIMIT)?;
    let check = line(65)?;
    if check != format!("{}\n", blake3::hash(&text).to_hex()).as_bytes() {
        return Err(form("its header is damaged".to_owned()));
    }
    let header: Header = serde_json::from_slice(&text).map_err(|error| form(error.to_string()))?;
    expect_canonical(&text, &header).map_err(|flaw| form(flaw.to_string()))?;
    header.check().map_err(form)?;
    let stride = (header.data() * CHECK) as u64 + header.count * (CHECK as u64 + header.block);
    let start = (text.len() + check.len()) as u64;
    Ok(Opened {
        header,
        file,
        stride,
        start,
    })
}

/// A part that was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The file's name.
    pub name: String,
    /// Its size, in bytes.
    pub size: u64,
    /// How many blocks of it were computed anew; the others were good.
    pub blocks: u64,
    /// Whether it was not there at all.
    pub was_missing: bool,
}

/// Restores every damaged or missing part of the archives whose parity files are among `files`. Damaged parts are
/// replaced, each when it is right as a whole. Parity files that are damaged themselves help as far as they are good.
///
/// # Errors
/// If there is no parity, too much is lost, or the file system fails. Nothing was replaced then but what is right.
pub fn repair(
    files: &[PathBuf],
    stop: &AtomicBool,
    progress: &dyn Fn(u64),
) -> Result<Vec<Repaired>, ParityError> {
    let mut groups: BTreeMap<(PathBuf, Digest), Vec<Opened>> = BTreeMap::new();
    let mut problem = None;
    for path in files {
        let name = path
            .file_name()
            .and_then(|name| FileName::parse(name.to_str()?));
        if !matches!(
            name,
            Some(FileName {
                kind: FileKind::Parity(_),
                ..
            })
        ) {
            continue;
        }
        match open(path) {
            Ok(opened) => {
                let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                groups
                    .entry((folder, opened.header.archive))
                    .or_default()
                    .push(opened);
            }
            Err(error) => problem = Some(error),
        }
    }
    if groups.is_empty() {
        return Err(problem.unwrap_or(ParityError::None));
    }
    let mut repaired = Vec::new();
    for ((folder, _), mut opened) in groups {
        // Parity of one archive may have been made twice; what belongs together says the same but for its own shards.
        let first = opened[0].header.clone();
        opened.retain(|other| {
            let header = Header {
                first: first.first,
                count: first.count,
                ..other.header.clone()
            };
            header == first
        });
        repaired.extend(repair_archive(&folder, opened, stop, progress)?);
    }
    Ok(repaired)
}

fn sha256_of(
    path: &Path,
    stop: &AtomicBool,
    progress: &dyn Fn(u64),
) -> Result<Option<(u64, Digest)>, ParityError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "opened")(error)),
    };
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(ParityError::Stopped);
        }
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                progress(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A sector that cannot be read is a damaged part.
            Err(_) => break,
        }
    }
    Ok(Some((hasher.length(), hasher.finish())))
}

fn repair_archive(
    folder: &Path,
    mut opened: Vec<Opened>,
    stop: &AtomicBool,
    progress: &dyn Fn(u64),
) -> Result<Vec<Repaired>, ParityError> {
    let header = opened[0].header.clone();
    let mut broken: BTreeMap<usize, Repaired> = BTreeMap::new();
    for (index, part) in header.parts.iter().enumerate() {
        let found = sha256_of(&folder.join(&part.name), stop, progress)?;
        if found != Some((part.size, part.sha256)) {
            let repaired = Repaired {
                name: part.name.clone(),
                size: part.size,
                blocks: 0,
                was_missing: found.is_none(),
            };
            broken.insert(index, repaired);
        }
    }
    if broken.is_empty() {
        return Ok(Vec::new());
    }
    let temporary = |name: &str| folder.join(format!(".{name}.tmp"));
    let mut out: BTreeMap<usize, File> = BTreeMap::new();
    for (index, part) in &broken {
        let path = temporary(&part.name);
        let file = File::create(&path).map_err(io_error(&path, "created"))?;
        file.set_len(part.size)
            .map_err(io_error(&path, "written"))?;
        out.insert(*index, file);
    }
    let result = restore(
        folder,
        &header,
        &mut opened,
        &mut broken,
        &out,
        stop,
        progress,
    )
    .and_then(|()| settle(folder, &header, &broken, out, stop));
    if result.is_err() {
        for part in broken.values() {
            // The first error is the one to report.
            let _ = fs::remove_file(temporary(&part.name));
        }
    }
    result?;
    Ok(broken.into_values().collect())
}

/// Puts restored parts in place, each when it is right.
fn settle(
    folder: &Path,
    header: &Header,
    broken: &BTreeMap<usize, Repaired>,
    out: BTreeMap<usize, File>,
    stop: &AtomicBool,
) -> Result<(), ParityError> {
    let mut wrong = None;
    for (index, file) in out {
        let covered = &header.parts[index];
        let path = folder.join(format!(".{}.tmp", broken[&index].name));
        file.sync_all().map_err(io_error(&path, "synced"))?;
        let found = sha256_of(&path, stop, &|_| ())?;
        if found == Some((covered.size, covered.sha256)) {
            let place = folder.join(&covered.name);
            fs::rename(&path, &place).map_err(io_error(&place, "put in place"))?;
        } else {
            wrong = Some(ParityError::Wrong {
                name: covered.name.clone(),
                expected: covered.sha256,
                found: found.map_or(covered.sha256, |(_, found)| found),
            });
        }
    }
    wrong.map_or(Ok(()), Err)
}

fn restore(
    folder: &Path,
    header: &Header,
    opened: &mut [Opened],
    broken: &mut BTreeMap<usize, Repaired>,
    out: &BTreeMap<usize, File>,
    stop: &AtomicBool,
    progress: &dyn Fn(u64),
) -> Result<(), ParityError> {
    let data = header.data();
    let parity = usize::try_from(header.parity).unwrap_or(usize::MAX);
    let size = usize::try_from(header.block).unwrap_or(usize::MAX);
    let stripes = header.stripes();
    let mut decoder = ReedSolomonDecoder::new(data, parity, size).map_err(ParityError::Code)?;
    let mut shards = Shards::new(header, folder);
    let mut block = vec![0; size];
    for stripe in 0..stripes {
        if stop.load(Ordering::Relaxed) {
            return Err(ParityError::Stopped);
        }
        let (checks, blocks) = read_stripe(header, opened, stripe);
        // A block is good if any copy of the table knows it so.
        let good = |shard: usize, block: &[u8]| {
            let found = check_of(block);
            checks
                .iter()
                .any(|table| table[shard * CHECK..(shard + 1) * CHECK] == found)
        };
        let mut lost = BTreeSet::new();
        let mut kept = Vec::new();
        for shard in 0..data {
            let (part, _) = header.place(shard);
            let read = shards.read(shard, stripe, &mut block);
            if read.is_some() && (!broken.contains_key(&part) || good(shard, &block)) {
                if let Some(file) = out.get(&part) {
                    put(file, header, shard, stripe, &block)
                        .map_err(io_error(&folder.join(&header.parts[part].name), "written"))?;
                }
                kept.push(shard);
                decoder
                    .add_original_shard(shard, &block)
                    .map_err(ParityError::Code)?;
            } else {
                lost.insert(shard);
            }
        }
        progress(data as u64 * header.block);
        if lost.len() > blocks.len() {
            return Err(ParityError::TooMuch {
                stripe: stripe + 1,
                stripes,
                lost: lost.len(),
                left: blocks.len(),
            });
        }
        for (index, block) in blocks.iter().take(lost.len()) {
            decoder
                .add_recovery_shard(*index, block)
                .map_err(ParityError::Code)?;
        }
        let restored = decoder.decode().map_err(ParityError::Code)?;
        for (shard, block) in restored.restored_original_iter() {
            let (part, _) = header.place(shard);
            if let (Some(file), Some(repaired)) = (out.get(&part), broken.get_mut(&part)) {
                put(file, header, shard, stripe, block)
                    .map_err(io_error(&folder.join(&header.parts[part].name), "written"))?;
                repaired.blocks += 1;
            }
        }
    }
    Ok(())
}

/// The tables of checks and the good parity blocks of a stripe, as far as they can be read.
fn read_stripe(
    header: &Header,
    opened: &mut [Opened],
    stripe: u64,
) -> (Vec<Vec<u8>>, Vec<(usize, Vec<u8>)>) {
    let (mut checks, mut blocks) = (Vec::new(), Vec::new());
    for parity in opened {
        let from = parity.start + stripe * parity.stride;
        if parity.file.seek(SeekFrom::Start(from)).is_err() {
            continue;
        }
        let mut table = vec![0; header.data() * CHECK];
        if parity.file.read_exact(&mut table).is_ok() {
            checks.push(table);
        }
        let size = usize::try_from(header.block).unwrap_or(usize::MAX);
        for index in 0..parity.header.count {
            let mut check = [0; CHECK];
            let mut block = vec![0; size];
            let read = parity
                .file
                .read_exact(&mut check)
                .and_then(|()| parity.file.read_exact(&mut block));
            if read.is_err() {
                break;
            }
            if check_of(&block) == check {
                let shard = usize::try_from(parity.header.first + index).unwrap_or(usize::MAX);
                blocks.push((shard, block));
            }
        }
    }
    (checks, blocks)
}

/// Writes a block to its place in a part, as far as the part goes.
fn put(file: &File, header: &Header, shard: usize, stripe: u64, block: &[u8]) -> io::Result<()> {
    let (part, begin) = header.place(shard);
    let from = begin + stripe * header.block;
    let length = header.parts[part]
        .size
        .saturating_sub(from)
        .min(block.len() as u64);
    let length = usize::try_from(length).unwrap_or(0);
    file.write_all_at(&block[..length], from)
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, only_archive};
    use super::super::verify::{self, Options};
    use super::*;
    use proptest::prelude::*;

    static STOP: AtomicBool = AtomicBool::new(false);

    struct World {
        folder: tempfile::TempDir,
        parts: Vec<PathBuf>,
        parity: Vec<PathBuf>,
    }

    fn world(sizes: &[usize], part_size: u64, share: u8) -> World {
        let sample = Sample::of(sizes);
        let folder = tempfile::tempdir().unwrap();
        let parts = sample.export(&sample.contents(), part_size, folder.path());
        let report =
            verify::verify(&only_archive(folder.path()), &Options::default(), &|_| ()).unwrap();
        let covered: Vec<Covered> = report
            .parts
            .iter()
            .map(|part| Covered {
                name: part.name.clone(),
                sha256: part.sha256.unwrap(),
                size: part.size,
            })
            .collect();
        let id = report.archive_id;
        let written = write(
            folder.path(),
            id,
            &covered,
            share,
            part_size,
            &STOP,
            &|_| (),
        )
        .unwrap();
        let parity = written
            .iter()
            .map(|file| folder.path().join(&file.name))
            .collect();
        World {
            folder,
            parts,
            parity,
        }
    }

    fn contents(paths: &[PathBuf]) -> Vec<Vec<u8>> {
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    #[test]
    fn a_lost_part_comes_back_byte_for_byte() {
        let world = world(&[300, 12_000, 5_000, 4_000, 9_000, 40], 14_336, 40);
        let before = contents(&world.parts);
        assert!(before.len() >= 3, "the sample has parts");
        for (index, path) in world.parts.iter().enumerate() {
            fs::remove_file(path).unwrap();
            let repaired = repair(&world.parity, &STOP, &|_| ()).unwrap();
            assert_eq!(repaired.len(), 1, "only what is broken is touched");
            assert!(repaired[0].was_missing && repaired[0].blocks > 0);
            assert!(
                contents(&world.parts) == before,
                "part {} is back",
                index + 1
            );
        }
        assert_eq!(
            repair(&world.parity, &STOP, &|_| ()).unwrap(),
            [],
            "nothing is left to do"
        );
        let options = Options::default();
        verify::verify(&only_archive(world.folder.path()), &options, &|_| ()).unwrap();
    }

    #[test]
    fn parity_costs_about_what_was_asked_for_and_is_the_same_every_time() {
        let sizes = [900_000, 1_100_000, 1_000_000];
        let (one, two) = (world(&sizes, 1 << 20, 10), world(&sizes, 1 << 20, 10));
        assert!(
            contents(&one.parity) == contents(&two.parity),
            "equal parts, equal parity"
        );
        let bytes = |paths: &[PathBuf]| contents(paths).iter().map(Vec::len).sum::<usize>();
        let (parts, parity) = (bytes(&one.parts), bytes(&one.parity));
        assert!(
            parity > parts / 10 && parity < parts / 6,
            "{parity} bytes of parity over {parts}"
        );
        for path in &one.parity {
            assert!(
                fs::metadata(path).unwrap().len() <= 1 << 20,
                "a parity file fits the medium too"
            );
        }
    }

    #[test]
    fn more_damage_than_parity_is_refused_and_changes_nothing() {
        let world = world(&[300, 12_000, 5_000, 4_000], 14_336, 5);
        fs::remove_file(&world.parts[0]).unwrap();
        let before = contents(&world.parts[1..]);
        let error = repair(&world.parity, &STOP, &|_| ()).unwrap_err();
        assert!(matches!(error, ParityError::TooMuch { .. }), "{error}");
        assert!(contents(&world.parts[1..]) == before);
        assert!(
            !world.parts[0].exists(),
            "nothing half restored has the name"
        );
        let leftovers = fs::read_dir(world.folder.path())
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with('.')
            })
            .count();
        assert_eq!(leftovers, 0, "and nothing is left lying about");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn scattered_damage_is_mended(
            holes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1_usize..300), 1..8),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let world = world(&[300, 12_000, 5_000, 4_000, 9_000, 40], 14_336, 50);
            let before = contents(&world.parts);
            for (part, at, length) in holes {
                let path = part.get(&world.parts);
                let mut bytes = fs::read(path).unwrap();
                let at = at.index(bytes.len());
                let end = (at + length).min(bytes.len());
                bytes[at..end].iter_mut().for_each(|byte| *byte = !*byte);
                fs::write(path, bytes).unwrap();
            }
            if let Some(cut) = cut {
                let path = world.parts.last().unwrap();
                let bytes = fs::read(path).unwrap();
                fs::write(path, &bytes[..cut.index(bytes.len())]).unwrap();
            }
            repair(&world.parity, &STOP, &|_| ()).unwrap();
            prop_assert!(contents(&world.parts) == before, "every part is what it was");
        }
    }

    #[test]
    fn damaged_parity_is_never_believed() {
        let world = world(&[300, 12_000, 5_000], 14_336, 100);
        let before = contents(&world.parts);
        let good = contents(&world.parity);
        for (path, good) in world.parity.iter().zip(&good) {
            for at in (0..good.len()).step_by(good.len() / 9) {
                let mut bad = good.clone();
                bad[at] ^= 4;
                fs::write(path, &bad).unwrap();
                fs::write(&world.parts[1], b"gone").unwrap();
                // It is restored or refused, but never wrong.
                if repair(&world.parity, &STOP, &|_| ()).is_err() {
                    fs::write(&world.parts[1], &before[1]).unwrap();
                }
                assert!(
                    contents(&world.parts) == before,
                    "byte {at} of {}",
                    path.display()
                );
            }
            fs::write(path, good).unwrap();
        }
    }

    #[test]
    fn a_share_is_a_percentage() {
        for (text, share) in [
            ("10%", Some(10)),
            ("1%", Some(1)),
            ("100", Some(100)),
            ("0%", None),
            ("101%", None),
            ("10 %", None),
            ("", None),
        ] {
            assert_eq!(parse_share(text).ok(), share, "{text:?}");
        }
    }
}
