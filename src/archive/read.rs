//! Reading archives where they stand: no member is extracted, no file is written.
//!
//! A [`Part`] is opened by reading its two first members; from `part.json` follows the place of every further byte,
//! so the size of the file is checked at once and any member can be read by seeking. [`Part::entries`] streams the
//! members in order and holds every byte outside their contents to the one form there is. [`Set`] finds the parts
//! in files and folders and groups them by archive; [`Blobs`] makes an archive a [`Source`], from which blobs go
//! straight to a registry: in archive order that is one pass over the parts, spans joined on the way.
//!
//! The bytes of a blob are held to their digest by whoever takes them ([`crate::store::transfer`]); those of the
//! lock, the lists and the files by [`Archive::metadata`]; all of them by [`super::verify`].
//!
//! ## Limits
//! Nothing is allocated on the word of a header. `part.json` and the other files of part 1 are read up to the
//! limits in [`super`], and only as bytes come; a set keeps at most about half of the bytes of the `part.json`
//! files that are really there, and one manifest per archive.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::flow::{Input, Share};
use super::list::{check_sorted, check_within, listed};
use super::manifest::member_limit;
use super::member::{Entry, Member, PartHeader};
use super::seal::{self, Seal, SealError, Trust};
use super::sums::{self, Sums};
use super::{ArchiveError, FileKind, FileName, Flaw, Manifest, Stream, list, tar};
use crate::digest::{Digest, Hasher};
use crate::store::{Blob, Source};

/// Bytes read at a time where one thread does it all.
const BUFFER: usize = 256 << 10;

/// One part of an archive, opened.
#[derive(Clone, Debug)]
pub struct Part {
    path: PathBuf,
    header: PartHeader,
    header_length: u64,
    header_digest: Digest,
    manifest: Arc<Manifest>,
    size: u64,
}

impl Part {
    /// Opens a part: reads what it says of itself, and holds its size to that.
    ///
    /// # Errors
    /// If its name is none of a part's, it is not what its name says, or its opening is not canonical.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        Self::open_known(path, None)
    }

    /// The same, where the manifest of `known` may be the part's own, and is then shared.
    fn open_known(path: &Path, known: Option<&Arc<Manifest>>) -> Result<Self, ArchiveError> {
        let name = file_name(path).filter(|name| matches!(name.kind, FileKind::Part(_)));
        let Some(name) = name else {
            return Err(ArchiveError::FileName {
                file: path.to_owned(),
            });
        };
        let failed = |source| ArchiveError::Io {
            path: path.to_owned(),
            doing: "opened",
            source,
        };
        let metadata = fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::other("it is no regular file")));
        }
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let part = Self::read(path, BufReader::with_capacity(BUFFER, file), size, known)?;
        let expected = part.file_name();
        if expected != name {
            return Err(ArchiveError::Renamed {
                file: path.to_owned(),
                expected: expected.to_string(),
            });
        }
        Ok(part)
    }

    /// Reads the opening of a part of `size` bytes.
    pub(super) fn read(
        path: &Path,
        input: impl Input,
        size: u64,
        known: Option<&Arc<Manifest>>,
    ) -> Result<Self, ArchiveError> {
        let mut raw = Raw { path, input, at: 0 };
        let start = tar::BLOCK;
        let bytes = raw.small(&Member::Part)?;
        let header =
            PartHeader::parse(&bytes).map_err(|flaw| flaw.at(path, Some(&Member::Part), start))?;
        let (header_length, header_digest) = (bytes.len() as u64, Digest::of(&bytes));
        drop(bytes);

        let start = raw.at + tar::BLOCK;
        let in_manifest = |flaw: Flaw| flaw.at(path, Some(&Member::Manifest), start);
        let bytes = raw.small(&Member::Manifest)?;
        let found = Digest::of(&bytes);
        if found != header.archive {
            let expected = header.archive;
            return Err(in_manifest(Flaw::Wrong { expected, found }));
        }
        let manifest = match known {
            Some(known) if known.archive_id() == found => Arc::clone(known),
            _ => Arc::new(Manifest::parse(&bytes).map_err(in_manifest)?),
        };
        let in_header = |flaw: Flaw| flaw.at(path, Some(&Member::Part), tar::BLOCK);
        header
            .check_against(&manifest, bytes.len() as u64)
            .map_err(in_header)?;
        let expected = header.file_size(header_length).ok_or_else(|| {
            in_header(Flaw::Inconsistent(
                "the sizes of its entries overflow".to_owned(),
            ))
        })?;
        if expected != size {
            let offset = size.min(expected);
            let found = size;
            return Err(Flaw::FileSize { expected, found }.at(path, None, offset));
        }
        Ok(Self {
            path: path.to_owned(),
            header,
            header_length,
            header_digest,
            manifest,
            size,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the part says of itself.
    #[must_use]
    pub const fn header(&self) -> &PartHeader {
        &self.header
    }

    /// The manifest of its archive.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The size of the file, in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The name that the file has.
    #[must_use]
    pub fn file_name(&self) -> FileName {
        FileName {
            stream: self.manifest.stream.clone(),
            sequence: self.manifest.sequence,
            kind: FileKind::Part(self.header.part),
        }
    }

    /// The members behind `part.json`, each with the place of its first byte in the file.
    pub fn places(&self) -> impl Iterator<Item = (&Entry, u64)> {
        let mut at = tar::entry_size(self.header_length);
        self.header.entries.iter().map(move |entry| {
            let start = at + tar::BLOCK;
            at += tar::entry_size(entry.length);
            (entry, start)
        })
    }

    /// Streams the members in order. `visit` may read all of a member, some of it, or nothing.
    ///
    /// # Errors
    /// Those of `visit`; also if a byte outside the members' contents is not what it must be.
    pub fn entries<E: From<ArchiveError>>(
        &self,
        mut visit: impl FnMut(&mut EntryReader<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let file = self.open_file(0)?;
        let mut walk = Walk::new(self, BufReader::with_capacity(BUFFER, file));
        walk.start()?;
        while let Some((entry, start)) = walk.next()? {
            let mut reader = EntryReader {
                entry,
                start,
                bytes: &mut walk,
            };
            visit(&mut reader)?;
        }
        Ok(())
    }

    fn open_file(&self, from: u64) -> Result<File, ArchiveError> {
        open_at(&self.path, from).map_err(|source| ArchiveError::Io {
            path: self.path.clone(),
            doing: "opened",
            source,
        })
    }

    /// Reads a small member into memory, and holds it to what the manifest commits to.
    fn content(&self, member: &Member) -> Result<Vec<u8>, ArchiveError> {
        let (entry, start) = self
            .places()
            .find(|(entry, _)| entry.member == *member)
            .expect("the part was held to its manifest when it was opened");
        let fail = |flaw: Flaw| flaw.at(&self.path, Some(member), start);
        check_length(member, entry.length).map_err(fail)?;
        let mut bytes = Vec::new();
        self.open_file(start)?
            .take(entry.length)
            .read_to_end(&mut bytes)
            .map_err(|error| fail(Flaw::Io(error)))?;
        if (bytes.len() as u64) < entry.length {
            return Err(Flaw::Short.at(&self.path, Some(member), start + bytes.len() as u64));
        }
        let found = Digest::of(&bytes);
        match self.manifest.commitment(member) {
            Some(expected) if expected != found => Err(fail(Flaw::Wrong { expected, found })),
            _ => Ok(bytes),
        }
    }
}

fn file_name(path: &Path) -> Option<FileName> {
    FileName::parse(path.file_name()?.to_str()?)
}

fn open_at(path: &Path, from: u64) -> io::Result<File> {
    let mut file = File::open(path)?;
    if from > 0 {
        file.seek(SeekFrom::Start(from))?;
    }
    Ok(file)
}

fn check_length(member: &Member, length: u64) -> Result<(), Flaw> {
    let limit = member_limit(member);
    if length > limit {
        return Err(Flaw::Limit {
            what: "bytes of the member",
            found: length,
            limit,
        });
    }
    Ok(())
}

/// A member of a part, to be read.
pub struct EntryReader<'a> {
    /// What `part.json` says of it.
    pub entry: &'a Entry,
    /// Where its first byte stands in the file.
    pub start: u64,
    bytes: &'a mut (dyn BufRead + Send),
}

impl Read for EntryReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer)
    }
}

impl BufRead for EntryReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.bytes.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.bytes.consume(count);
    }
}

/// A tar file of which nothing is known yet.
struct Raw<'p, I> {
    path: &'p Path,
    input: I,
    at: u64,
}

impl<I: Input> Raw<'_, I> {
    /// Reads the next member, which must be `member`, whole.
    fn small(&mut self, member: &Member) -> Result<Vec<u8>, ArchiveError> {
        let from = self.at;
        let fail = |flaw: Flaw| flaw.at(self.path, None, from);
        let block: [u8; 512] = read_block(&mut self.input)
            .map_err(fail)?
            .ok_or_else(|| fail(Flaw::Short))?;
        let length = expect_member(&block, &member.to_string(), None).map_err(fail)?;
        check_length(member, length).map_err(fail)?;
        let start = from + tar::BLOCK;
        let inside = |flaw: Flaw, at: u64| flaw.at(self.path, Some(member), start + at);
        let mut bytes = Vec::new();
        (&mut self.input)
            .take(tar::padded(length))
            .read_to_end(&mut bytes)
            .map_err(|error| inside(Flaw::Io(error), 0))?;
        if (bytes.len() as u64) < tar::padded(length) {
            return Err(inside(Flaw::Short, bytes.len() as u64));
        }
        let length = usize::try_from(length).expect("it was read into memory");
        if let Some(at) = bytes[length..].iter().position(|byte| *byte != 0) {
            return Err(inside(Flaw::Padding, (length + at) as u64));
        }
        bytes.truncate(length);
        self.at = start + tar::padded(length as u64);
        Ok(bytes)
    }
}

/// The next block; `None` where the input ends.
fn read_block(input: &mut impl Read) -> Result<Option<[u8; 512]>, Flaw> {
    let mut block = [0; 512];
    let count = super::flow::fill(input, &mut block).map_err(Flaw::Io)?;
    Ok((count == block.len()).then_some(block))
}

/// Holds a header to a member's name, and to its length where that is known; yields the length.
fn expect_member(block: &[u8; 512], name: &str, length: Option<u64>) -> Result<u64, Flaw> {
    if let Some(length) = length
        && *block == tar::header(name, length)
    {
        return Ok(length);
    }
    if block.iter().all(|byte| *byte == 0) {
        return Err(Flaw::Unexpected {
            expected: name.to_owned(),
            found: "the end of the archive".to_owned(),
        });
    }
    let (found_name, found_length) = tar::parse(block)?;
    if found_name == name && length.is_none_or(|length| length == found_length) {
        return Ok(found_length);
    }
    let bytes = |length: u64| format!(" with {length} bytes");
    Err(Flaw::Unexpected {
        expected: format!("{name}{}", length.map(bytes).unwrap_or_default()),
        found: format!("{found_name:?}{}", bytes(found_length)),
    })
}

/// A walk over all bytes of a part, front to back.
pub(super) struct Walk<'p, I> {
    part: &'p Part,
    input: I,
    at: u64,
    next: usize,
    /// Bytes of the current member's content that were not read yet.
    left: u64,
    /// Zeros behind them.
    padding: u64,
    current: Option<&'p Member>,
}

impl<'p, I: Input> Walk<'p, I> {
    pub(super) const fn new(part: &'p Part, input: I) -> Self {
        Self {
            part,
            input,
            at: 0,
            next: 0,
            left: 0,
            padding: 0,
            current: None,
        }
    }

    fn fail(&self, flaw: Flaw) -> ArchiveError {
        let member = self.current.map(|member| member as &dyn std::fmt::Display);
        flaw.at(&self.part.path, member, self.at)
    }

    /// Reads `part.json`, which must be what it was when the part was opened.
    pub(super) fn start(&mut self) -> Result<(), ArchiveError> {
        self.header(&Member::Part, self.part.header_length)?;
        let start = self.at;
        let expected = self.part.header_digest;
        let found = self.hash()?;
        if found != expected {
            return Err(Flaw::Wrong { expected, found }.at(
                &self.part.path,
                Some(&Member::Part),
                start,
            ));
        }
        Ok(())
    }

    /// Goes on to the next member: the entry, and the place of its first byte. After the last, holds the end of
    /// the file to its form.
    pub(super) fn next(&mut self) -> Result<Option<(&'p Entry, u64)>, ArchiveError> {
        self.finish()?;
        let part = self.part;
        let Some(entry) = part.header.entries.get(self.next) else {
            self.end()?;
            return Ok(None);
        };
        self.next += 1;
        self.header(&entry.member, entry.length)?;
        self.current = Some(&entry.member);
        Ok(Some((entry, self.at)))
    }

    /// Hashes what is left of the current member.
    pub(super) fn hash(&mut self) -> Result<Digest, ArchiveError> {
        let mut hasher = Hasher::default();
        self.hash_into(&mut hasher, None)?;
        Ok(hasher.finish())
    }

    /// Hashes what is left of the current member, behind what `hasher` has seen; whoever is at the other end of
    /// `taken` gets the same bytes.
    pub(super) fn hash_into(
        &mut self,
        hasher: &mut Hasher,
        taken: Option<&Sender<Share>>,
    ) -> Result<(), ArchiveError> {
        while self.left > 0 {
            let count = match self.fill_buf() {
                Ok(bytes) => {
                    hasher.update(bytes);
                    bytes.len()
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.fail(Flaw::Short));
                }
                Err(error) => return Err(self.fail(Flaw::Io(error))),
            };
            if let Some(taken) = taken
                && let Some(share) = self.input.share(count)
            {
                // Who has enough of it hangs up.
                let _ = taken.send(share);
            }
            self.consume(count);
        }
        Ok(())
    }

    fn header(&mut self, member: &Member, length: u64) -> Result<(), ArchiveError> {
        self.current = None;
        let block = read_block(&mut self.input)
            .map_err(|flaw| self.fail(flaw))?
            .ok_or_else(|| self.fail(Flaw::Short))?;
        expect_member(&block, &member.to_string(), Some(length)).map_err(|flaw| self.fail(flaw))?;
        self.at += tar::BLOCK;
        self.left = length;
        self.padding = tar::padded(length) - length;
        Ok(())
    }

    /// Leaves the current member: skips what nobody read, and holds the padding to zeros.
    fn finish(&mut self) -> Result<(), ArchiveError> {
        if self.left > 0 {
            self.input
                .skip(self.left)
                .map_err(|error| self.fail(Flaw::Io(error)))?;
            self.at += std::mem::take(&mut self.left);
        }
        let padding = usize::try_from(std::mem::take(&mut self.padding)).expect("under a block");
        let mut zeros = [0; 512];
        let count = super::flow::fill(&mut self.input, &mut zeros[..padding])
            .map_err(|error| self.fail(Flaw::Io(error)))?;
        if let Some(at) = zeros[..count].iter().position(|byte| *byte != 0) {
            self.at += at as u64;
            return Err(self.fail(Flaw::Padding));
        }
        self.at += count as u64;
        if count < padding {
            return Err(self.fail(Flaw::Short));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        self.current = None;
        for _ in 0..tar::END / tar::BLOCK {
            let block = read_block(&mut self.input).map_err(|flaw| self.fail(flaw))?;
            if block != Some([0; 512]) {
                return Err(self.fail(Flaw::End));
            }
            self.at += tar::BLOCK;
        }
        let more = super::flow::fill(&mut self.input, &mut [0])
            .map_err(|error| self.fail(Flaw::Io(error)))?;
        if more > 0 {
            return Err(self.fail(Flaw::Trailing));
        }
        Ok(())
    }
}

impl<I: Input> BufRead for Walk<'_, I> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = self.input.fill_buf()?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        Ok(&bytes[..bytes.len().min(most)])
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.left -= count as u64;
        self.at += count as u64;
    }
}

impl<I: Input> Read for Walk<'_, I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// The parts of one archive that are at hand, and its checksum file.
#[allow(
    clippy::struct_field_names,
    reason = "an archive id is called that everywhere"
)]
#[derive(Clone, Debug)]
pub struct Archive {
    archive_id: Digest,
    manifest: Arc<Manifest>,
    of: u32,
    parts: BTreeMap<u32, Part>,
    copies: Vec<PathBuf>,
    sums: Vec<(PathBuf, Sums)>,
    seals: Vec<PathBuf>,
    /// Whole blobs that the parts list.
    listed: u64,
}

/// What an archive says, apart from its blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The bytes of the lock.
    pub lock: Vec<u8>,
    /// File name and bytes of each rule.
    pub rules: Vec<(String, Vec<u8>)>,
    /// Path and bytes of each resource.
    pub resources: Vec<(String, Vec<u8>)>,
    /// The bytes of `index.json`.
    pub index: Vec<u8>,
    /// Every blob of the lock, ascending by digest.
    pub closure: Vec<Blob>,
    /// Every blob carried, in archive order.
    pub provides: Vec<Blob>,
}

impl Archive {
    /// The archive's id.
    #[must_use]
    pub const fn archive_id(&self) -> Digest {
        self.archive_id
    }

    /// Its manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The stream it belongs to.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.manifest.stream
    }

    /// How many parts it has.
    #[must_use]
    pub const fn of_parts(&self) -> u32 {
        self.of
    }

    /// The parts at hand, by number.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.values()
    }

    /// The part of that number, if it is at hand.
    #[must_use]
    pub fn part(&self, number: u32) -> Option<&Part> {
        self.parts.get(&number)
    }

    /// The numbers of the parts that are not at hand.
    #[must_use]
    pub fn missing(&self) -> Vec<u32> {
        (1..=self.of)
            .filter(|number| !self.parts.contains_key(number))
            .collect()
    }

    /// Further copies of parts at hand, which are not read.
    #[must_use]
    pub fn copies(&self) -> &[PathBuf] {
        &self.copies
    }

    /// The checksum files beside the parts, with what they say.
    #[must_use]
    pub fn sums(&self) -> &[(PathBuf, Sums)] {
        &self.sums
    }

    /// The seals beside the parts, which were not read.
    #[must_use]
    pub fn seals(&self) -> &[PathBuf] {
        &self.seals
    }

    /// Holds the archive to its seals: one of them must vouch for it. Yields that file, and the checksums in it.
    ///
    /// # Errors
    /// If none does; says why the last one does not.
    pub fn sealed(&self, trust: &Trust<'_>) -> Result<(PathBuf, Sums), ArchiveError> {
        let mut problem = SealError::None;
        for path in &self.seals {
            match self.check_seal(path, trust) {
                Ok(sums) => return Ok((path.clone(), sums)),
                Err(error) => problem = error,
            }
        }
        Err(ArchiveError::Unsealed {
            stream: self.manifest.stream.clone(),
            sequence: self.manifest.sequence,
            archive_id: self.archive_id,
            source: Box::new(problem),
        })
    }

    fn check_seal(&self, path: &Path, trust: &Trust<'_>) -> Result<Sums, SealError> {
        let file = path.display().to_string();
        let form = |problem| SealError::Form {
            file: file.clone(),
            problem,
        };
        let bytes = read_small(path, seal::LIMIT).map_err(|error| form(error.to_string()))?;
        let parts: Vec<(FileName, u64)> = self
            .parts()
            .map(|part| (part.file_name(), part.size))
            .collect();
        Seal::parse(&bytes)
            .map_err(form)?
            .check(&file, self.archive_id, self.of, &parts, trust)
    }

    /// The error that names the missing parts, if there are any.
    #[must_use]
    pub fn missing_error(&self) -> Option<ArchiveError> {
        let parts = self.missing();
        (!parts.is_empty()).then(|| ArchiveError::Missing {
            stream: self.manifest.stream.clone(),
            sequence: self.manifest.sequence,
            archive_id: self.archive_id,
            parts,
            of: self.of,
        })
    }

    /// Reads the lock, the rules, the resources, the index and the two lists, each held to the manifest.
    ///
    /// # Errors
    /// If part 1 is not at hand, or one of them is damaged.
    pub fn metadata(&self) -> Result<Metadata, ArchiveError> {
        let part = self.parts.get(&1).ok_or_else(|| ArchiveError::Missing {
            stream: self.manifest.stream.clone(),
            sequence: self.manifest.sequence,
            archive_id: self.archive_id,
            parts: vec![1],
            of: self.of,
        })?;
        let manifest = &self.manifest;
        let mut metadata = Metadata {
            lock: part.content(&Member::Lock)?,
            rules: Vec::new(),
            resources: Vec::new(),
            index: part.content(&Member::Index)?,
            closure: Vec::new(),
            provides: Vec::new(),
        };
        for file in &manifest.files {
            match &file.member {
                Member::Rule(name) => metadata
                    .rules
                    .push((name.clone(), part.content(&file.member)?)),
                Member::Resource(path) => metadata
                    .resources
                    .push((path.clone(), part.content(&file.member)?)),
                other => drop(part.content(other)?),
            }
        }
        let place = |member: &Member, flaw: Flaw| {
            let start = part
                .places()
                .find(|(entry, _)| entry.member == *member)
                .map_or(0, |(_, start)| start);
            flaw.at(&part.path, Some(member), start)
        };
        let list = |member: Member, said| {
            let bytes = part.content(&member)?;
            list::parse(&bytes)
                .and_then(|blobs| {
                    let found = listed(&blobs, &bytes)?;
                    if found != said {
                        return Err(Flaw::Inconsistent(format!(
                            "it lists {} blobs of {} bytes; the manifest says {} of {}",
                            found.count, found.bytes, said.count, said.bytes
                        )));
                    }
                    if member == Member::Closure {
                        check_sorted(&blobs)?;
                    }
                    Ok(blobs)
                })
                .map_err(|flaw| place(&member, flaw))
        };
        metadata.closure = list(Member::Closure, manifest.closure)?;
        metadata.provides = list(Member::Provides, manifest.provides)?;
        check_within(&metadata.provides, &metadata.closure)
            .map_err(|flaw| place(&Member::Provides, flaw))?;
        Ok(metadata)
    }

    /// The blobs in the parts at hand, as a source.
    #[must_use]
    pub fn blobs(&self) -> Blobs<'_> {
        Blobs::of([self])
    }

    fn add(&mut self, mut part: Part) -> Result<(), ArchiveError> {
        part.manifest = Arc::clone(&self.manifest);
        let any = self.parts.values().next();
        if part.header.of != self.of {
            return Err(ArchiveError::Packaging {
                file: part.path,
                other: any.map(|any| any.path.clone()).unwrap_or_default(),
            });
        }
        if let Some(known) = self.parts.get(&part.header.part) {
            if known.header_digest != part.header_digest {
                return Err(ArchiveError::Packaging {
                    file: part.path,
                    other: known.path.clone(),
                });
            }
            self.copies.push(part.path);
            return Ok(());
        }
        // The bound on memory: all parts together list no more than the manifest commits to.
        self.listed += part
            .header
            .entries
            .iter()
            .filter(|entry| matches!(entry.member, Member::Blob(_)))
            .count() as u64;
        if self.listed > self.manifest.provides.count {
            let flaw = Flaw::Inconsistent(format!(
                "with it the parts list {} blobs; the manifest says {}",
                self.listed, self.manifest.provides.count
            ));
            return Err(flaw.at(&part.path, Some(&Member::Part), tar::BLOCK));
        }
        self.parts.insert(part.header.part, part);
        Ok(())
    }
}

/// Every archive in some files and folders.
#[derive(Debug, Default)]
pub struct Set {
    archives: Vec<Archive>,
    foreign: Vec<PathBuf>,
    broken: Vec<ArchiveError>,
}

impl Set {
    /// Opens files and folders. Folders are not searched below their own files.
    ///
    /// A part that cannot be opened does not stop the others; see [`Set::broken`].
    ///
    /// # Errors
    /// If a path is not there or a folder cannot be listed.
    pub fn open<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self, ArchiveError> {
        let mut files = Vec::new();
        for path in paths {
            let path = path.as_ref();
            let failed = |doing| {
                move |source| ArchiveError::Io {
                    path: path.to_owned(),
                    doing,
                    source,
                }
            };
            if fs::metadata(path).map_err(failed("opened"))?.is_dir() {
                let mut names = Vec::new();
                for entry in fs::read_dir(path).map_err(failed("listed"))? {
                    names.push(entry.map_err(failed("listed"))?.path());
                }
                names.sort();
                files.append(&mut names);
            } else {
                files.push(path.to_owned());
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        files.retain(|path| seen.insert(path.clone()));

        let mut set = Self::default();
        let (mut sums, mut seals) = (Vec::new(), Vec::new());
        for path in files {
            match file_name(&path) {
                Some(name) => match name.kind {
                    FileKind::Part(_) => {
                        if let Err(error) = set.add(&path) {
                            set.broken.push(error);
                        }
                    }
                    FileKind::Sums => sums.push((path, name)),
                    FileKind::Seal => seals.push((path, name)),
                    // Read by whoever repairs.
                    FileKind::Parity(_) => {}
                },
                None => set.foreign.push(path),
            }
        }
        set.archives.sort_by(|a, b| {
            let key = |archive: &Archive| {
                let manifest = &archive.manifest;
                (
                    manifest.stream.clone(),
                    manifest.sequence,
                    archive.archive_id,
                )
            };
            key(a).cmp(&key(b))
        });
        for (path, name) in sums {
            set.add_sums(&path, &name);
        }
        for (path, name) in seals {
            for archive in &mut set.archives {
                let manifest = &archive.manifest;
                if manifest.stream == name.stream && manifest.sequence == name.sequence {
                    archive.seals.push(path.clone());
                }
            }
        }
        Ok(set)
    }

    fn add(&mut self, path: &Path) -> Result<(), ArchiveError> {
        // Files come sorted by name, so the part before is most likely of the same archive.
        let known = self.archives.last().map(|archive| &archive.manifest);
        let part = Part::open_known(path, known)?;
        let archive_id = part.header.archive;
        let known = |archive: &Archive| archive.archive_id == archive_id;
        if !self.archives.iter().any(known) {
            self.archives.push(Archive {
                archive_id,
                manifest: Arc::clone(&part.manifest),
                of: part.header.of,
                parts: BTreeMap::new(),
                copies: Vec::new(),
                sums: Vec::new(),
                seals: Vec::new(),
                listed: 0,
            });
        }
        let archive = self
            .archives
            .iter_mut()
            .find(|archive| known(archive))
            .expect("it was put there where it was not");
        archive.add(part)
    }

    fn add_sums(&mut self, path: &Path, name: &FileName) {
        let read = || -> Result<Sums, ArchiveError> {
            let mut bytes = Vec::new();
            File::open(path)
                .and_then(|file| file.take(sums::LIMIT + 1).read_to_end(&mut bytes))
                .map_err(|error| Flaw::Io(error).at(path, None, 0))?;
            if bytes.len() as u64 > sums::LIMIT {
                let flaw = Flaw::Limit {
                    what: "bytes of a checksum file",
                    found: bytes.len() as u64,
                    limit: sums::LIMIT,
                };
                return Err(flaw.at(path, None, 0));
            }
            sums::parse(
                &name.stream,
                name.sequence,
                &String::from_utf8_lossy(&bytes),
            )
            .map_err(|flaw| flaw.at(path, None, 0))
        };
        match read() {
            // Parts of two archives that share a name stand in two folders; each checksum file speaks of its own.
            Ok(sums) => {
                for archive in &mut self.archives {
                    if archive.manifest.stream == name.stream
                        && archive.manifest.sequence == name.sequence
                    {
                        archive.sums.push((path.to_owned(), sums.clone()));
                    }
                }
            }
            Err(error) => self.broken.push(error),
        }
    }

    /// The archives, by stream and sequence.
    #[must_use]
    pub fn archives(&self) -> &[Archive] {
        &self.archives
    }

    /// The archive of that id.
    #[must_use]
    pub fn archive(&self, archive_id: Digest) -> Option<&Archive> {
        self.archives
            .iter()
            .find(|archive| archive.archive_id == archive_id)
    }

    /// Files whose names are none of an archive's. They were not read.
    #[must_use]
    pub fn foreign(&self) -> &[PathBuf] {
        &self.foreign
    }

    /// What is wrong with files that have an archive's names but could not be taken into one.
    #[must_use]
    pub fn broken(&self) -> &[ArchiveError] {
        &self.broken
    }

    /// The same, for whoever reports it.
    #[must_use]
    pub fn into_broken(self) -> Vec<ArchiveError> {
        self.broken
    }

    /// The blobs of all archives, as one source.
    #[must_use]
    pub fn blobs(&self) -> Blobs<'_> {
        Blobs::of(&self.archives)
    }
}

/// Reads a file of at most `limit` bytes.
fn read_small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let text = format!("it has more than the {limit} bytes that are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// The blobs in the parts of archives, wherever they stand there.
///
/// Nothing is trusted but the digest that the caller checks: `part.json` says where to read. Opened in the order of
/// an archive's `provides` list, the blobs are read front to back.
#[derive(Debug)]
pub struct Blobs<'a> {
    paths: Vec<&'a Path>,
    /// Ascending by digest, then archive, then offset.
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    digest: Digest,
    archive: u32,
    offset: u64,
    length: u64,
    path: u32,
    start: u64,
}

impl<'a> Blobs<'a> {
    /// The blobs of `archives`, as one source.
    #[must_use]
    pub fn of(archives: impl IntoIterator<Item = &'a Archive>) -> Self {
        let mut paths = Vec::new();
        let mut pieces = Vec::new();
        for (archive, parts) in (0..).zip(archives) {
            for part in parts.parts.values() {
                let path = u32::try_from(paths.len()).expect("so many files cannot be named");
                paths.push(part.path());
                for (entry, start) in part.places() {
                    if let Some(digest) = entry.member.digest() {
                        pieces.push(Piece {
                            digest,
                            archive,
                            offset: entry.offset,
                            length: entry.length,
                            path,
                            start,
                        });
                    }
                }
            }
        }
        pieces.sort_unstable();
        Self { paths, pieces }
    }

    /// The pieces that make up `blob`, in order; `None` unless one archive has them all.
    fn pieces(&self, blob: &Blob) -> Option<&[Piece]> {
        let from = self
            .pieces
            .partition_point(|piece| piece.digest < blob.digest);
        let rest = &self.pieces[from..];
        let here = rest.partition_point(|piece| piece.digest == blob.digest);
        rest[..here]
            .chunk_by(|a, b| a.archive == b.archive)
            .find(|pieces| {
                let end = pieces.iter().try_fold(0_u64, |end, piece| {
                    (piece.offset == end).then(|| end.saturating_add(piece.length))
                });
                end == Some(blob.size)
            })
    }

    /// Whether all of `blob` is here.
    #[must_use]
    pub fn holds(&self, blob: &Blob) -> bool {
        self.pieces(blob).is_some()
    }
}

impl Source for Blobs<'_> {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        let Some(pieces) = self.pieces(blob) else {
            return Ok(None);
        };
        let mut rest = Vec::new();
        for piece in pieces.iter().rev() {
            let end = piece.offset + piece.length;
            let skipped = from.clamp(piece.offset, end) - piece.offset;
            if skipped < piece.length {
                rest.push(Piece {
                    start: piece.start + skipped,
                    length: piece.length - skipped,
                    ..*piece
                });
            }
        }
        Ok(Some(Box::new(Pieces {
            paths: &self.paths,
            rest,
            current: None,
        })))
    }
}

/// The bytes of one blob, joined.
struct Pieces<'a> {
    paths: &'a [&'a Path],
    /// Last piece first.
    rest: Vec<Piece>,
    current: Option<(io::Take<File>, &'a Path)>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let named = |path: &Path, error: &io::Error| {
            let text: Cow<'_, str> = path.to_string_lossy();
            io::Error::new(error.kind(), format!("{text}: {error}"))
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some((file, path)) = &mut self.current {
                let count = file.read(buffer).map_err(|error| named(path, &error))?;
                if count > 0 {
                    return Ok(count);
                }
                if file.limit() > 0 {
                    // The file was cut after it was opened: what follows would be other bytes.
                    return Ok(0);
                }
            }
            let Some(piece) = self.rest.pop() else {
                return Ok(0);
            };
            let path = self.paths[piece.path as usize];
            let file = open_at(path, piece.start).map_err(|error| named(path, &error))?;
            self.current = Some((file.take(piece.length), path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{Sample, noise, only_archive, tar_of};
    use super::super::{Layout, SIZE_LIMIT};
    use super::*;
    use crate::oci::{OCI_INDEX, OCI_MANIFEST, REF_NAME};
    use crate::store::memory::Memory;
    use crate::store::{self, Verified};
    use proptest::prelude::*;
    use std::fmt::Write as _;
    use std::io::Write as _;
    use std::process::Command;

    const SIZES: [usize; 4] = [300, 12_000, 100, 40];
    const PART_SIZE: u64 = 14_336;

    #[test]
    fn what_was_put_in_comes_out() {
        let sample = Sample::of(&SIZES);
        let folder = tempfile::tempdir().unwrap();
        let contents = sample.delta();
        sample.export(&contents, PART_SIZE, folder.path());
        let archive = only_archive(folder.path());
        let metadata = archive.metadata().unwrap();
        let mut rules = contents.rules.clone();
        rules.sort();
        assert_eq!(
            metadata,
            Metadata {
                lock: contents.lock.to_vec(),
                rules,
                resources: contents.resources.clone(),
                index: contents.index.clone(),
                closure: contents.closure.clone(),
                provides: contents.provides.clone(),
            },
            "reading undoes writing"
        );
        let blobs = archive.blobs();
        for blob in &sample.blobs {
            assert_eq!(
                blobs.holds(blob),
                contents.provides.contains(blob),
                "it has what it provides, and nothing else"
            );
        }
        let mut wrong = contents.provides[0];
        wrong.size += 1;
        assert!(!blobs.holds(&wrong), "a blob of another size is another");
    }

    #[test]
    fn members_stream_in_archive_order() {
        let sample = Sample::of(&SIZES);
        let folder = tempfile::tempdir().unwrap();
        sample.export(&sample.contents(), PART_SIZE, folder.path());
        let archive = only_archive(folder.path());
        let sink = Memory::default();
        let mut order = Vec::new();
        for part in archive.parts() {
            part.entries(|entry| -> Result<(), ArchiveError> {
                match entry.entry.member {
                    Member::Blob(digest) => {
                        let blob = Blob {
                            digest,
                            size: entry.entry.length,
                        };
                        order.push(blob);
                        let mut bytes = Verified::new(Box::new(entry), blob);
                        store::Sink::write(&sink, &blob, &mut bytes).unwrap();
                    }
                    // Some bytes of it, to be skipped over.
                    _ => entry.read_exact(&mut [0; 7]).unwrap(),
                }
                Ok(())
            })
            .unwrap();
        }
        let whole: Vec<Blob> = [0, 2, 3].map(|at| sample.blobs[at]).to_vec();
        assert_eq!(order, whole, "the whole blobs, in order");
    }

    #[test]
    fn a_blob_is_only_there_when_all_its_spans_are() {
        let sample = Sample::of(&SIZES);
        let folder = tempfile::tempdir().unwrap();
        let parts = sample.export(&sample.contents(), PART_SIZE, folder.path());
        let cut = sample.blobs[1];
        for gone in &parts[1..] {
            let rest = parts.iter().filter(|path| *path != gone);
            let set = Set::open(rest).unwrap();
            let blobs = set.blobs();
            assert!(
                blobs.open(&cut, 0).unwrap().is_none(),
                "half a blob is none"
            );
            assert!(blobs.holds(&sample.blobs[0]), "the others are there");
        }
    }

    #[test]
    fn a_blob_that_one_archive_lacks_a_span_of_is_read_from_another() {
        let sample = Sample::of(&SIZES);
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let parts = sample.export(&sample.contents(), PART_SIZE, one.path());
        fs::remove_file(&parts[1]).unwrap();
        sample.export(&sample.delta(), PART_SIZE + 512, two.path());
        let set = Set::open([one.path(), two.path()]).unwrap();
        let sink = Memory::default();
        let cut = sample.blobs[1];
        store::transfer(&set.blobs(), &sink, &cut, &|_| ()).unwrap();
        assert!(store::Sink::holds(&sink, &cut).unwrap(), "it arrives whole");
    }

    #[test]
    fn a_part_with_a_blob_of_more_than_8_gib_is_read() {
        let sample = Sample::of(&SIZES);
        let mut contents = sample.contents();
        // Nobody hashes these zeros here, so the name need not be theirs.
        let large = Blob {
            digest: Digest::of(b"9 GiB"),
            size: 9 << 30,
        };
        contents.provides = vec![large, sample.blobs[0]];
        contents.closure = contents.provides.clone();
        contents.closure.sort_unstable();
        let layout = Layout::of(&contents, 1 << 40).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prod_seq000001_0001.tar");
        let mut file = File::create(&path).unwrap();
        let header = layout.part_header(1).unwrap();
        let mut put = |name: &Member, length: u64, bytes: &[u8]| {
            file.write_all(&tar::header(&name.to_string(), length))
                .unwrap();
            file.write_all(bytes).unwrap();
            let behind = tar::padded(length) - bytes.len() as u64;
            file.seek_relative(i64::try_from(behind).unwrap()).unwrap();
        };
        put(&Member::Part, header.len() as u64, &header);
        for entry in &layout.parts()[0].entries {
            let mut bytes = Vec::new();
            if entry.member == Member::Blob(sample.blobs[0].digest) {
                let mut blob = sample.store.open(&sample.blobs[0], 0).unwrap().unwrap();
                blob.read_to_end(&mut bytes).unwrap();
            } else if let Some(content) = layout.content(&entry.member) {
                bytes = content.to_vec();
            }
            put(&entry.member, entry.length, &bytes);
        }
        file.set_len(layout.parts()[0].size).unwrap();
        let archive = only_archive(folder.path());
        let quick = super::super::verify::Options {
            quick: true,
            ..Default::default()
        };
        super::super::verify::verify(&archive, &quick, &|_| ()).unwrap();
        let sink = Memory::default();
        store::transfer(&archive.blobs(), &sink, &sample.blobs[0], &|_| ()).unwrap();
        match Command::new("tar").arg("-tvf").arg(&path).output() {
            Ok(output) => {
                let text = String::from_utf8(output.stdout).unwrap();
                assert!(
                    output.status.success() && text.contains(" 9663676416 "),
                    "tar reads the size alike: {text}"
                );
            }
            Err(_) => println!("skipped: there is no tar here"),
        }
    }

    #[test]
    fn a_set_tells_archives_apart_and_reads_no_foreign_file() {
        let sample = Sample::of(&SIZES);
        let folder = tempfile::tempdir().unwrap();
        sample.export(&sample.contents(), PART_SIZE, folder.path());
        sample.export(&sample.delta(), 1 << 20, folder.path());
        for name in [
            "README.txt",
            "mirror_000001.tar",
            ".prod_seq000001_0001.tar.tmp",
        ] {
            fs::write(folder.path().join(name), "not read").unwrap();
        }
        fs::create_dir(folder.path().join("folder")).unwrap();
        let set = Set::open([folder.path(), folder.path()]).unwrap();
        let found: Vec<(u64, usize)> = set
            .archives()
            .iter()
            .map(|archive| (archive.manifest().sequence, archive.parts().count()))
            .collect();
        assert_eq!(found, [(1, 3), (3, 1)], "by stream and sequence");
        assert_eq!(set.foreign().len(), 4, "{:?}", set.foreign());
        assert!(set.broken().is_empty(), "{:?}", set.broken());
        for blob in &sample.blobs {
            assert!(set.blobs().holds(blob), "one source for all");
        }
        for archive in set.archives() {
            assert!(archive.missing_error().is_none(), "nothing is missing");
            assert_eq!(archive.sums().len(), 1, "each has its own checksums");
        }
        fs::create_dir(folder.path().join("prod_seq000009_0001.tar")).unwrap();
        let set = Set::open([folder.path()]).unwrap();
        assert_eq!(set.broken().len(), 1, "a folder is no part");
        assert!(
            Set::open([folder.path().join("nothing")]).is_err(),
            "a path that is not there is an error"
        );
    }

    /// Opens bytes as the first part of an archive.
    fn open(bytes: &[u8]) -> Result<Part, ArchiveError> {
        Part::read(
            Path::new("prod_seq000001_0001.tar"),
            BufReader::new(io::Cursor::new(bytes)),
            bytes.len() as u64,
            None,
        )
    }

    fn flaw(bytes: &[u8]) -> String {
        match open(bytes) {
            Err(ArchiveError::Damaged { flaw, .. }) => flaw.to_string(),
            other => panic!("this must be refused: {other:?}"),
        }
    }

    #[test]
    fn sizes_that_nobody_could_carry_are_refused_before_they_are_read() {
        let sample = Sample::of(&SIZES);
        let layout = Layout::of(&sample.contents(), 1 << 20).unwrap();
        let manifest = layout.manifest_bytes().to_vec();
        let json = String::from_utf8(layout.part_header(1).unwrap()).unwrap();
        let members = vec![("imgbuild/manifest.json".to_owned(), manifest)];
        let forged = |json: &str| flaw(&tar_of(json.as_bytes(), &members));
        for size in [SIZE_LIMIT + 1, u64::MAX] {
            let found = forged(&json.replace(",12000]", &format!(",{size}]")));
            assert!(found.contains("at most"), "{size}: {found}");
        }
        for text in [
            ",18446744073709551616]",
            ",-1]",
            ",1e3]",
            ",12000.0]",
            ",null]",
        ] {
            let found = forged(&json.replace(",12000]", text));
            assert!(found.contains("not the JSON"), "{text}: {found}");
        }
        let found = forged(&json.replace(",12000]", &format!(",{SIZE_LIMIT}]")));
        assert!(
            found.contains("overflow") || found.contains("part.json makes it"),
            "{found}"
        );
        for (limit, name) in [
            (member_limit(&Member::Part), "imgbuild/part.json"),
            (1 << 40, "imgbuild/part.json"),
            (u64::MAX, "imgbuild/part.json"),
        ] {
            // A header that announces more than there is, or more than is read.
            let found = flaw(&tar::header(name, limit));
            assert!(
                found.contains("at most") || found.contains("ends there"),
                "{limit}: {found}"
            );
        }
    }

    #[test]
    fn a_million_entries_are_refused_where_the_manifest_names_four() {
        let sample = Sample::of(&SIZES);
        let layout = Layout::of(&sample.contents(), 1 << 20).unwrap();
        let json = String::from_utf8(layout.part_header(1).unwrap()).unwrap();
        let members = vec![(
            "imgbuild/manifest.json".to_owned(),
            layout.manifest_bytes().to_vec(),
        )];
        for (count, expected) in [
            (100, "the whole archive has 4"),
            (1 << 20, "number of blobs"),
        ] {
            let mut entries = String::new();
            for number in 0_u64..count {
                let digest = Digest::from_bytes(
                    [number.to_be_bytes(), [7; 8], [7; 8], [7; 8]]
                        .concat()
                        .try_into()
                        .unwrap(),
                );
                write!(entries, ",[\"blobs/sha256/{}\",0,1]", digest.hex()).unwrap();
            }
            let json = json.replace("],\"of\"", &format!("{entries}],\"of\""));
            let found = flaw(&tar_of(json.as_bytes(), &members));
            assert!(found.contains(expected), "{count}: {found}");
        }
    }

    #[test]
    fn part_json_has_one_form() {
        let sample = Sample::of(&SIZES);
        let layout = Layout::of(&sample.contents(), 1 << 20).unwrap();
        let json = String::from_utf8(layout.part_header(1).unwrap()).unwrap();
        let members = vec![(
            "imgbuild/manifest.json".to_owned(),
            layout.manifest_bytes().to_vec(),
        )];
        for (what, changed) in [
            ("a space", json.replacen(',', ", ", 1)),
            ("no line feed", json.trim_end().to_owned()),
            ("two line feeds", format!("{json}\n")),
            ("another line end", json.replace('\n', "\r\n")),
            (
                "an escape",
                json.replace("imgbuild/lock", "imgbuild\\/lock"),
            ),
            (
                "another escape",
                json.replace("imgbuild/lock", "imgbuild\\u002flock"),
            ),
            (
                "a NUL",
                json.replace("imgbuild/lock.toml", "imgbuild/lock.toml\\u0000"),
            ),
            (
                "an unknown key",
                json.replace("{\"archive\"", "{\"a\":1,\"archive\""),
            ),
            (
                "a key twice",
                json.replace("\"of\":", "\"of\":\"0001\",\"of\":"),
            ),
            ("three digits", json.replace("\"0001\"", "\"001\"")),
            ("a number", json.replace("\"of\":\"0001\"", "\"of\":1")),
            (
                "part 0",
                json.replace("\"part\":\"0001\"", "\"part\":\"0000\""),
            ),
            (
                "part 2 of 1",
                json.replace("\"part\":\"0001\"", "\"part\":\"0002\""),
            ),
            ("an offset", json.replace(",0,12000]", ",1,12000]")),
            ("leading zeros", json.replace(",0,12000]", ",0,012000]")),
            ("a longer entry", json.replace(",0,12000]", ",0,12000,1]")),
        ] {
            assert_ne!(json, changed, "{what} is a change");
            flaw(&tar_of(changed.as_bytes(), &members));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn any_bytes_are_opened_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert!(open(&bytes).is_err(), "noise is no archive");
        }

        #[test]
        fn a_part_spliced_from_others_is_refused_or_read_as_it_is(
            cuts in prop::collection::vec((0_usize..13_000, 0_usize..13_000), 1..4),
            byte in any::<u8>(),
        ) {
            let sample = Sample::of(&SIZES);
            let folder = tempfile::tempdir().unwrap();
            let parts = sample.export(&sample.contents(), PART_SIZE, folder.path());
            let good = fs::read(&parts[0]).unwrap();
            let mut bytes = good.clone();
            for (from, to) in cuts {
                let (from, to) = (from % bytes.len(), to % good.len());
                let tail = good[to..].to_vec();
                bytes.truncate(from);
                bytes.push(byte);
                bytes.extend(tail);
            }
            fs::write(&parts[0], &bytes).unwrap();
            if let Ok(part) = Part::open(&parts[0]) {
                let _ = part.entries(|_| Ok::<(), ArchiveError>(()));
            }
        }
    }

    /// One image, as an index would have it: layer, config, manifest and `index.json`.
    fn image(tag: &str, layer: &[u8]) -> (Vec<Vec<u8>>, String) {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::of(layer)
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
            Digest::of(config.as_bytes()),
            config.len(),
            Digest::of(layer),
            layer.len()
        );
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":{},"annotations":{{"{REF_NAME}":"{tag}"}}}}]}}"#,
            Digest::of(manifest.as_bytes()),
            manifest.len()
        );
        (
            vec![manifest.into_bytes(), layer.to_vec(), config.into_bytes()],
            index,
        )
    }

    #[test]
    fn tar_extracts_all_parts_into_a_layout_that_skopeo_reads() {
        if ["tar", "skopeo"]
            .iter()
            .any(|tool| Command::new(tool).arg("--version").output().is_err())
        {
            println!("skipped: tar and skopeo are not both here");
            return;
        }
        let (blobs, index) = image("quay.io/site/app:v1", &noise(3, 30_000));
        let mut sample = Sample::of(&[]);
        sample.blobs = blobs
            .iter()
            .map(|bytes| sample.store.insert(bytes))
            .collect();
        sample.index = index.into_bytes();
        let folder = tempfile::tempdir().unwrap();
        let parts = sample.export(&sample.contents(), 14_000, folder.path());
        assert!(parts.len() > 3, "the layer is cut");
        let layout = tempfile::tempdir().unwrap();
        let mut listed = Vec::new();
        for path in &parts {
            let part = Part::open(path).unwrap();
            let output = Command::new("tar").arg("-tf").arg(path).output().unwrap();
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "tar has nothing to say: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            let mut expected = "imgbuild/part.json\n".to_owned();
            for entry in &part.header().entries {
                writeln!(expected, "{}", entry.member).unwrap();
            }
            assert_eq!(
                String::from_utf8(output.stdout).unwrap(),
                expected,
                "tar lists what part.json announces"
            );
            let status = Command::new("tar")
                .arg("-xf")
                .arg(path)
                .arg("-C")
                .arg(layout.path())
                .status()
                .unwrap();
            assert!(status.success(), "tar extracts {}", path.display());
            listed.extend(part.header().entries.clone());
        }
        // `cat imgbuild/spans/<hex>.* > blobs/sha256/<hex>`
        let spans: Vec<Member> = listed
            .into_iter()
            .map(|entry| entry.member)
            .filter(|member| matches!(member, Member::Span { .. }))
            .collect();
        assert!(spans.len() > 1, "there is something to join");
        let joined: Vec<u8> = spans
            .iter()
            .flat_map(|span| fs::read(layout.path().join(span.to_string())).unwrap())
            .collect();
        let digest = spans[0].digest().unwrap();
        assert_eq!(Digest::of(&joined), digest, "spans in order are the blob");
        let path = layout.path().join(Member::Blob(digest).to_string());
        fs::write(path, joined).unwrap();

        let name = format!("oci:{}:quay.io/site/app:v1", layout.path().display());
        let output = Command::new("skopeo")
            .args(["inspect", "--raw", &name])
            .output()
            .unwrap();
        assert_eq!(
            (output.status.success(), output.stdout),
            (true, blobs[0].clone()),
            "skopeo reads the manifest: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let copy = layout.path().join("copy");
        let output = Command::new("skopeo")
            .args(["copy", "--insecure-policy", &name])
            .arg(format!("oci:{}", copy.display()))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "and copies the image: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
