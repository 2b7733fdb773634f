//! Archives: thin OCI layouts in tar files, with a short manifest whose SHA-256 is the archive's id.
//!
//! ```text
//! prod_seq000007_0001.tar      part 1
//! ├── imgbuild/part.json       {archive, entries, of, part}: what this file carries, in order
//! ├── imgbuild/manifest.json   the archive manifest; its SHA-256 is the archive's id; in every part
//! ├── imgbuild/closure         every blob of the lock: lines `hex size`, sorted
//! ├── imgbuild/provides        every blob carried here, in archive order
//! ├── imgbuild/lock.toml
//! ├── imgbuild/rules/…         the rule files of the lock
//! ├── imgbuild/resources/…     cluster resources made early
//! ├── oci-layout
//! ├── index.json               one descriptor per image of the lock
//! └── blobs/sha256/<hex>       manifests first
//! prod_seq000007_0002.tar      part.json, manifest.json, blobs; or one span of a blob too large for a part
//! prod_seq000007_p0001.parity  what damaged or lost parts are restored from, if it was asked for ([`parity`])
//! prod_seq000007.sha256        what `sha256sum -c` reads
//! prod_seq000007.seal.json     who vouches for it, if anybody does ([`seal`])
//! ```
//!
//! Goals: recovery needs nothing but `tar`; the id covers what is inside and not how it is split; equal contents
//! give equal bytes on any machine; a reader knows every byte's meaning before it reads it, and extracts nothing
//! by name. Each part is a pure function of the contents, the part size and its number ([`layout`]), so every
//! byte outside the blobs can be made again from `part.json` and compared, which is what [`verify`] does.
//!
//! ## Canonical JSON
//! `part.json` and `manifest.json` have sorted keys, no spaces, an absent key where there is no value, and one
//! line feed at the end. Readers print what they parsed and refuse the file if the bytes differ, so there is one
//! way to write each.
//!
//! ## How the format may change
//! The manifest's `format` is `imgbuild-archive/1`. Any addition raises the number: an unknown format or an
//! unknown key stops the reader, since nothing can be negotiated across an air gap.
//!
//! ## Why not the `tar` crate
//! A header is 512 bytes of which three fields vary. Reading is a comparison with the header that must be there,
//! so the extensions that make tar readers hard to trust (PAX, long names, links, sparse files) are not parsed
//! and refused but simply never equal.

pub mod bases;
pub mod chain;
mod error;
mod flow;
pub mod key;
pub mod layout;
pub mod list;
pub mod manifest;
pub mod member;
pub mod parity;
pub mod read;
pub mod seal;
pub mod sums;
pub mod tar;
pub mod verify;
pub mod write;

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;
#[cfg(test)]
mod samples;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use error::{ArchiveError, Failures, Flaw};
pub use layout::{Contents, Layout};
pub use manifest::{Base, Built, Manifest};
pub use member::{Entry, Member, PartHeader};
pub use read::{Archive, Part, Set};

/// Most blobs in a closure. Fifty thousand images have a few hundred thousand; at 40 bytes each the list stays
/// under 42 MB in memory.
pub const BLOB_LIMIT: u64 = 1 << 20;

/// Largest blob and largest part, in bytes. No medium is near it, and any sum of two stays far from overflow.
pub const SIZE_LIMIT: u64 = 1 << 60;

/// Most parts of an archive: their number has four digits.
pub const PART_LIMIT: u32 = 9999;

/// Highest sequence: it has six digits.
pub const SEQUENCE_LIMIT: u64 = 999_999;

/// Largest `part.json` that is read: a million entries of 105 bytes.
pub const PART_HEADER_LIMIT: u64 = 128 << 20;

/// Largest `manifest.json` that is read. It is repeated in every part, and a page long unless it names thousands
/// of resources.
pub const MANIFEST_LIMIT: u64 = 4 << 20;

/// Largest blob list that is read: a million lines of at most 86 bytes.
pub const LIST_LIMIT: u64 = 96 << 20;

/// Largest other file of part 1 that is read into memory (a lock of fifty thousand pins has 7 MB), and also the
/// most that all of them may have together, four times over.
pub const FILE_LIMIT: u64 = 64 << 20;

/// The name of a line of archives: lowercase letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream(String);

impl Stream {
    /// Longest name. With it, no file name of an archive exceeds 90 bytes.
    pub const LIMIT: usize = 64;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Stream {
    type Err = ArchiveError;

    fn from_str(text: &str) -> Result<Self, ArchiveError> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > Self::LIMIT || !text.bytes().all(good) {
            return Err(ArchiveError::StreamName {
                text: text.to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for Stream {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Stream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The name of one file of an archive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    /// The line of archives it belongs to.
    pub stream: Stream,
    /// Its place in that line.
    pub sequence: u64,
    /// What the file is.
    pub kind: FileKind,
}

/// What a file of an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A part, by number.
    Part(u32),
    /// Parity over the parts, by number.
    Parity(u32),
    /// The checksums of the parts.
    Sums,
    /// The signature envelope.
    Seal,
}

impl FileName {
    /// Reads a file name; `None` where it is none of an archive's.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (stream, rest) = name.split_once("_seq")?;
        let (sequence, rest) = rest.split_at_checked(6)?;
        let sequence = digits(sequence)?;
        let number = |text: &str| {
            (text.len() == 4)
                .then(|| digits(text))?
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| *number > 0)
        };
        let kind = if rest == ".sha256" {
            FileKind::Sums
        } else if rest == ".seal.json" {
            FileKind::Seal
        } else if let Some(text) = rest
            .strip_prefix("_p")
            .and_then(|rest| rest.strip_suffix(".parity"))
        {
            FileKind::Parity(number(text)?)
        } else {
            FileKind::Part(number(rest.strip_prefix('_')?.strip_suffix(".tar")?)?)
        };
        Some(Self {
            stream: stream.parse().ok()?,
            sequence: (sequence > 0).then_some(sequence)?,
            kind,
        })
    }
}

/// The number that only decimal digits stand for.
fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}_seq{:06}", self.stream, self.sequence)?;
        match self.kind {
            FileKind::Part(number) => write!(formatter, "_{number:04}.tar"),
            FileKind::Parity(number) => write!(formatter, "_p{number:04}.parity"),
            FileKind::Sums => formatter.write_str(".sha256"),
            FileKind::Seal => formatter.write_str(".seal.json"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_survives_printing() {
        for name in [
            "prod_seq000007_0001.tar",
            "a-1_seq999999_9999.tar",
            "prod_seq000001.sha256",
            "prod_seq000001.seal.json",
            "prod_seq000012_p0003.parity",
        ] {
            let parsed = FileName::parse(name).unwrap();
            assert_eq!(parsed.to_string(), name, "printing must undo parsing");
        }
    }

    #[test]
    fn other_file_names_are_nobodys() {
        for name in [
            "",
            "mirror_000001.tar",
            "Prod_seq000007_0001.tar",
            "prod_seq7_0001.tar",
            "prod_seq000007_1.tar",
            "prod_seq000007_0000.tar",
            "prod_seq000000_0001.tar",
            "prod_seq0000071_0001.tar",
            "prod_seq000007_00011.tar",
            "prod_seq+00007_0001.tar",
            "prod_seq000007_+001.tar",
            "prod_seq000007_0001.tar.gz",
            ".prod_seq000007_0001.tar.tmp",
            "_seq000007_0001.tar",
            "prod_seq00000é_0001.tar",
            "prod_seq000007.sha512",
        ] {
            assert_eq!(
                FileName::parse(name),
                None,
                "{name:?} is not a name of section 1"
            );
        }
    }
}
