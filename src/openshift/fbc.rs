//! File-based operator catalogs: reading them, and one canonical fragment for each package.
//!
//! A catalog is a tree of files. Each is a stream of JSON objects or of YAML documents, in any mix and whatever it
//! is called; how documents are spread over files means nothing. Every document has a `schema`; it belongs to the
//! package named by `package` (`olm.package`: by `name`), or to none. Files that `.indexignore` names are left out.
//!
//! ```text
//! layers, top first --> members below the label's path --> documents --> Catalog (offsets into a Spool)
//!                                                                          `-- fragment(package) --> Fragment
//! ```
//!
//! [`Catalog`] knows of each document its package and where it lies, nothing more; a package is decoded when it is
//! asked for. Memory is bounded by the largest document while reading and by one package per thread afterwards.
//!
//! ## The canonical form of a fragment
//! What `fbc` in a lock names is the SHA-256 of these bytes:
//!
//! * one document per line, ended by a line feed, without other white space;
//! * documents in the order `olm.package`, `olm.channel`, `olm.bundle`, `olm.deprecations`, then other schemas by
//!   name; within a schema by `name`, then by their own bytes;
//! * the keys of an object ascend by their UTF-8 bytes; lists keep their order; nothing is added or left out, so
//!   unknown schemas and fields survive;
//! * a number is written with the digits it was read with (`1.0` stays `1.0`); YAML forms that JSON lacks (`0x10`,
//!   `1_000`, `.5`) become the decimal number they stand for;
//! * in strings only `"`, `\` and the characters below U+0020 are escaped, the latter as `\b \t \n \f \r` or
//!   `\u00xx`; everything else is plain UTF-8.
//!
//! The same documents as YAML, as JSON, in one file or in many have the same fragment. A fragment reads back as a
//! catalog file, and the fragment of a package does not depend on what else is in its catalog.
//!
//! ## What is refused
//! An object with two values for one key, a document without a schema, text that is not UTF-8 or holds half a surrogate
//! pair, YAML tags beyond the core ones: each has readers that disagree about its meaning, and a digest over a
//! disagreement is worth nothing.
//!
//! Plain YAML scalars are resolved as the catalogs' own tools do (`yes` and `on` are true, `0777` is octal), which
//! is YAML 1.1 and not what [`crate::config`] does.

mod catalog;
mod document;
mod fragment;
mod ignore;
mod layers;
mod read;
mod value;
mod yaml;

#[cfg(test)]
pub(in crate::openshift) mod tests;

pub use catalog::{Builder, Catalog, Spool};
pub use document::{
    Bundle, Channel, Deprecation, Deprecations, Entry, Package, Property, Reference, RelatedImage,
};
pub use fragment::{Document, Fragment};
pub use layers::{CONFIGS_LABEL, DATABASE_LABEL, configs_path, read_layers};
pub use read::{Documents, Format, Head, RawDocument};
pub use value::Value;

use std::fmt;
use std::io;

use crate::hint::Hint;

/// Every bundle belongs to one; it names the default channel.
pub const PACKAGE: &str = "olm.package";
/// An update channel: entries and how they replace each other.
pub const CHANNEL: &str = "olm.channel";
/// One version of an operator.
pub const BUNDLE: &str = "olm.bundle";
/// What is deprecated, and the reason.
pub const DEPRECATIONS: &str = "olm.deprecations";

/// How much is read before it is refused.
///
/// The largest catalog known has 0.4 GiB in 30,000 documents, on a base image of 0.5 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of all layers together.
    pub entries: u64,
    /// Bytes of all layers together, uncompressed.
    pub unpacked: u64,
    /// Bytes of one file of the catalog.
    pub member: u64,
    /// Bytes of one document.
    pub document: u64,
    /// Bytes of all files of the catalog together.
    pub catalog: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            unpacked: 32 << 30,
            member: 4 << 30,
            document: 64 << 20,
            catalog: 8 << 30,
        }
    }
}

/// Where a document stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub member: String,
    /// Its line, from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.member, self.line)
    }
}

/// Something is not a catalog, or not one that can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum FbcError {
    /// A document cannot be read.
    #[error("{place}: {reason}")]
    Document {
        /// Where.
        place: Place,
        /// What was expected and what was found.
        reason: String,
    },
    /// A field of a document has not the form its schema gives it.
    #[error("package {package:?}: {schema} {name:?} cannot be read: {reason}")]
    Field {
        /// The package.
        package: String,
        /// The document's schema.
        schema: String,
        /// The document's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A document stands in the fragment of another package.
    #[error("{schema} {name:?} belongs to package {found:?}, not to {package:?}")]
    Foreign {
        /// Whose fragment it is.
        package: String,
        /// The document's schema.
        schema: String,
        /// The document's name.
        name: String,
        /// Whose document it is.
        found: String,
    },
    /// A package name that cannot be a folder.
    #[error(
        "{name:?} cannot name a package: expected 1 to 253 printable characters without slashes"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Something is larger than anything known by far.
    #[error("{place}: {what} is over the limit of {limit}")]
    Limit {
        /// Where.
        place: String,
        /// What is too much.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// An entry of a layer that a catalog has no use for.
    #[error("layer {layer} from the top, entry {entry:?}: {reason}")]
    Entry {
        /// Which layer, from 1, the last of the manifest first.
        layer: usize,
        /// The path as the layer writes it.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer cannot be read.
    #[error("layer {layer} from the top cannot be read")]
    Layer {
        /// Which layer, from 1, the last of the manifest first.
        layer: usize,
        /// The cause.
        source: io::Error,
    },
    /// A file or the spool cannot be read or written.
    #[error("{place} cannot be read")]
    Io {
        /// What.
        place: String,
        /// The cause.
        source: io::Error,
    },
    /// The image holds a catalog of the kind that was given up with OpenShift 4.11.
    #[error("the catalog is an sqlite database ({database}); only file-based catalogs can be read")]
    Sqlite {
        /// Where in the image.
        database: String,
    },
    /// The image has neither kind of catalog.
    #[error("the image is not a catalog: its config has no label {CONFIGS_LABEL}")]
    NoCatalog,
    /// The label names no folder of the image.
    #[error("label {CONFIGS_LABEL} is {path:?}: expected an absolute path without \"..\"")]
    Label {
        /// What it says.
        path: String,
    },
    /// The folder that the label names holds no document.
    #[error("no file of a catalog below {path:?}")]
    Empty {
        /// What the label says.
        path: String,
    },
}

impl Hint for FbcError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Sqlite { .. } => Some(
                "convert it with `opm migrate`, or take the catalog of a newer OpenShift version"
                    .to_owned(),
            ),
            Self::NoCatalog => {
                Some("list an image that is no catalog under additionalImages".to_owned())
            }
            _ => None,
        }
    }
}
