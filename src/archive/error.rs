//! What can be wrong with an archive, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::chain::ChainError;
use super::seal::SealError;
use super::{BLOB_LIMIT, PART_LIMIT, SEQUENCE_LIMIT, Stream};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::store::{Blob, Damage};

/// Why an archive cannot be written or must not be trusted.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A text that does not name a stream.
    #[error(
        "{text:?} is not a stream name: expected 1 to {} lowercase letters, digits and hyphens",
        Stream::LIMIT
    )]
    StreamName {
        /// What was read.
        text: String,
    },
    /// What is to be exported is no archive.
    #[error("the archive cannot be laid out")]
    Contents(#[source] Flaw),
    /// The part size leaves no room for what part 1 must hold.
    #[error("a part size of {limit} bytes is too small: part 1 needs {least}")]
    PartSize {
        /// The part size asked for.
        limit: u64,
        /// The least that works.
        least: u64,
    },
    /// The part size asks for more parts than have names.
    #[error("a part size of {limit} bytes needs more than {PART_LIMIT} parts; {works} works")]
    Parts {
        /// The part size asked for.
        limit: u64,
        /// A part size that works.
        works: u64,
    },
    /// A part was asked for that the archive has not got.
    #[error("there is no part {part}: the archive has {of}")]
    NoSuchPart {
        /// What was asked for.
        part: u32,
        /// How many there are.
        of: u32,
    },
    /// The source has not got a blob that is to be carried.
    #[error("blob {} is not there", blob.digest)]
    Absent {
        /// What is to be carried.
        blob: Blob,
    },
    /// The source could not read a blob that is to be carried.
    #[error("blob {} could not be read", blob.digest)]
    Source {
        /// What is to be carried.
        blob: Blob,
        /// Why.
        source: io::Error,
    },
    /// The source gave other bytes.
    #[error("blob {} is damaged where it comes from", blob.digest)]
    BlobDamaged {
        /// What is to be carried.
        blob: Blob,
        /// What came.
        source: Damage,
    },
    /// Somebody else is writing the same archive to the same directory.
    #[error("{} is locked: another export is writing this archive here", path.display())]
    Busy {
        /// The progress file.
        path: PathBuf,
    },
    /// The directory has a part of another packaging of the same archive.
    #[error("{} is in the way: the archive to be written has {of} parts", path.display())]
    Stray {
        /// The file.
        path: PathBuf,
        /// How many parts are to be written.
        of: u32,
    },
    /// The caller asked to stop.
    #[error("stopped; what is finished is kept")]
    Stopped,
    /// The file system failed.
    #[error("{} could not be {doing}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as a participle.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file of an archive is not what it must be.
    #[error("{} is damaged at byte {offset}{}", file.display(), in_member(member.as_ref()))]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The member of the tar file, where one is known.
        member: Option<String>,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong there.
        #[source]
        flaw: Box<Flaw>,
    },
    /// A file has the name of another.
    #[error("{} holds what belongs in {expected}", file.display())]
    Renamed {
        /// The file.
        file: PathBuf,
        /// What it would have to be called.
        expected: String,
    },
    /// A file's name is none of an archive's.
    #[error("{} is not the name of an archive's part", file.display())]
    FileName {
        /// The file.
        file: PathBuf,
    },
    /// Two files belong to the same archive but not to the same packaging.
    #[error("{} and {} are parts of one archive, split in two ways", file.display(), other.display())]
    Packaging {
        /// A file.
        file: PathBuf,
        /// Another.
        other: PathBuf,
    },
    /// Parts are not at hand.
    #[error("{stream} sequence {sequence} (id {}): of {of} parts {} missing", archive_id.short(), are(parts))]
    Missing {
        /// The stream.
        stream: Stream,
        /// The sequence.
        sequence: u64,
        /// The archive's id.
        archive_id: Digest,
        /// Which are not here.
        parts: Vec<u32>,
        /// How many there should be.
        of: u32,
    },
    /// A part is not what its checksum says.
    #[error("{} has checksum {}, but {} says {}", file.display(), found.hex(), sums.display(), expected.hex())]
    Checksum {
        /// The part.
        file: PathBuf,
        /// The checksum file.
        sums: PathBuf,
        /// What it says.
        expected: Digest,
        /// What the part has.
        found: Digest,
    },
    /// Nobody who is trusted vouches for the archive.
    #[error("{stream} sequence {sequence} (id {}) is not sealed as it must be", archive_id.short())]
    Unsealed {
        /// The stream.
        stream: Stream,
        /// The sequence.
        sequence: u64,
        /// The archive's id.
        archive_id: Digest,
        /// Why.
        source: Box<SealError>,
    },
    /// The archive does not fit the chain.
    #[error("{stream} sequence {sequence} (id {}) does not fit the chain", archive_id.short())]
    Chain {
        /// The stream.
        stream: Stream,
        /// The sequence.
        sequence: u64,
        /// The archive's id.
        archive_id: Digest,
        /// Why.
        source: Box<ChainError>,
    },
    /// The archive does not apply on top of a base that it names.
    #[error(
        "on top of lock {lock}, {count} blobs ({bytes} bytes) would be missing, the first of them {first}"
    )]
    Baseline {
        /// The base lock.
        lock: Digest,
        /// How many blobs neither the archive nor the base has.
        count: u64,
        /// Their bytes.
        bytes: u64,
        /// One of them.
        first: Digest,
    },
}

fn in_member(member: Option<&String>) -> String {
    member.map_or_else(String::new, |member| format!(", in {member}"))
}

/// `0003 is` or `0002, 0003 and 7 more are`.
fn are(parts: &[u32]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = parts
        .iter()
        .take(SHOWN)
        .map(|part| format!("{part:04}"))
        .collect();
    let verb = if parts.len() == 1 { "is" } else { "are" };
    match parts.len().saturating_sub(SHOWN) {
        0 => format!("{} {verb}", shown.join(", ")),
        more => format!("{} and {more} more {verb}", shown.join(", ")),
    }
}

impl Hint for ArchiveError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::PartSize { least, .. } => Some(format!("use a part size of at least {least}")),
            Self::Parts { works, .. } => Some(format!("use a part size of {works} or more")),
            Self::Stray { .. } => Some("remove it, or export to another directory".to_owned()),
            Self::Unsealed { source, .. } => match **source {
                SealError::None => Some("bring the .seal.json file along with the parts".to_owned()),
                SealError::Expired { .. } => Some("have the archive sealed again, or bring a newer one".to_owned()),
                _ => Some("find out who made this archive before it is used".to_owned()),
            },
            Self::Stopped => Some("run the same export again to go on".to_owned()),
            Self::BlobDamaged { .. } => Some("check the store, then build again".to_owned()),
            Self::Damaged { flaw, .. } if matches!(**flaw, Flaw::Format { .. }) => {
                Some("upgrade imgbuild".to_owned())
            }
            Self::Damaged { file, .. } | Self::Checksum { file, .. } => Some(format!(
                "copy {} again, or export that part again",
                file.display()
            )),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => {
                Some("the file system takes no file of that size: use a smaller part size (FAT: below 4 GiB)".to_owned())
            }
            Self::Renamed { expected, .. } => Some(format!("rename it to {expected}")),
            _ => None,
        }
    }
}

impl ArchiveError {
    /// The file that this is about, if it is about one.
    #[must_use]
    pub fn file(&self) -> Option<&std::path::Path> {
        match self {
            Self::Io { path: file, .. }
            | Self::Damaged { file, .. }
            | Self::Renamed { file, .. }
            | Self::FileName { file }
            | Self::Packaging { file, .. }
            | Self::Checksum { file, .. }
            | Self::Busy { path: file }
            | Self::Stray { path: file, .. } => Some(file),
            _ => None,
        }
    }
}

/// What is wrong with the bytes at one place of an archive.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// Not JSON, or JSON of another shape.
    #[error("it is not the JSON that is expected there")]
    Json(#[source] serde_json::Error),
    /// A format of the future, or none.
    #[error(
        "its format is {found:?}; this imgbuild reads {:?}",
        super::manifest::FORMAT
    )]
    Format {
        /// What it says.
        found: String,
    },
    /// The right content, written another way.
    #[error("it is not in canonical form from its byte {offset} on")]
    NotCanonical {
        /// The first byte that differs from the canonical form.
        offset: u64,
    },
    /// Values that contradict each other.
    #[error("{0}")]
    Inconsistent(String),
    /// A member's name is none of the format.
    #[error("{name:?} is not the name of an archive's member")]
    MemberName {
        /// What was read.
        name: String,
    },
    /// A tar header is not the one way to write it.
    #[error("the {field} of the tar header is b\"{}\"; expected b\"{}\"", found.escape_ascii(), expected.escape_ascii())]
    Header {
        /// The field.
        field: &'static str,
        /// Its canonical bytes.
        expected: Vec<u8>,
        /// Its bytes.
        found: Vec<u8>,
    },
    /// Another member than `part.json` announces.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What must be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Bytes behind a member that are not zero.
    #[error("the padding behind the member is not zero")]
    Padding,
    /// The two zero blocks are not there.
    #[error("the two zero blocks that end the file are not there")]
    End,
    /// Bytes behind the end.
    #[error("there are bytes behind the two zero blocks that end the file")]
    Trailing,
    /// The file ends in the middle.
    #[error("the file ends there")]
    Short,
    /// The file has another size than follows from its `part.json`.
    #[error("the file has {found} bytes; its part.json makes it {expected}")]
    FileSize {
        /// What must be.
        expected: u64,
        /// What is.
        found: u64,
    },
    /// The bytes have another name.
    #[error("expected {expected}, found {found}")]
    Wrong {
        /// What must be.
        expected: Digest,
        /// What is.
        found: Digest,
    },
    /// A blob that was cut is another one when its spans are joined.
    #[error("its {spans} spans, joined, are {found}; expected {expected}")]
    Joined {
        /// How many spans there are.
        spans: u32,
        /// What must be.
        expected: Digest,
        /// What is.
        found: Digest,
    },
    /// More than is read.
    #[error("{what}: {found}; at most {limit} is read")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How much it is.
        found: u64,
        /// How much it may be.
        limit: u64,
    },
    /// A line of a list or of a checksum file is malformed.
    #[error("line {number} is malformed: expected {expected}")]
    Line {
        /// Counted from 1.
        number: u64,
        /// The form it should have.
        expected: &'static str,
    },
    /// A blob that the archive's `provides` list does not name.
    #[error("{member} is not in this archive's list of what it provides")]
    Unlisted {
        /// The member.
        member: String,
    },
    /// A blob at another place than the `provides` list puts it.
    #[error("{found} is there, where the list of what the archive provides has {expected}")]
    Order {
        /// What the list has.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The file system failed.
    #[error("it could not be read")]
    Io(#[source] io::Error),
}

impl Flaw {
    pub(super) fn sequence(sequence: u64) -> Self {
        Self::Inconsistent(format!(
            "sequence {sequence} is out of range: expected 1 to {SEQUENCE_LIMIT}"
        ))
    }

    pub(super) fn blobs(found: u64) -> Self {
        Self::Limit {
            what: "number of blobs",
            found,
            limit: BLOB_LIMIT,
        }
    }

    /// This flaw, at a place.
    pub(super) fn at(
        self,
        file: impl Into<PathBuf>,
        member: Option<&dyn fmt::Display>,
        offset: u64,
    ) -> ArchiveError {
        ArchiveError::Damaged {
            file: file.into(),
            member: member.map(ToString::to_string),
            offset,
            flaw: Box::new(self),
        }
    }
}

/// Everything that is wrong with an archive; never empty.
#[derive(Debug)]
pub struct Failures {
    /// The first ones found, in the order of the parts.
    pub errors: Vec<ArchiveError>,
    /// How many more were found but not kept.
    pub more: u64,
}

impl Failures {
    /// How many failures are kept. Whoever has so many needs no further ones.
    pub const LIMIT: usize = 1000;
}

impl fmt::Display for Failures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.errors.len() as u64 + self.more;
        match self.errors.first() {
            Some(first) if count == 1 => fmt::Display::fmt(first, formatter),
            Some(first) => write!(formatter, "{first} ({count} failures in all)"),
            None => formatter.write_str("no failure"),
        }
    }
}

impl std::error::Error for Failures {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.errors.first().and_then(std::error::Error::source)
    }
}

impl Hint for Failures {
    fn hint(&self) -> Option<String> {
        self.errors.iter().find_map(Hint::hint)
    }
}
