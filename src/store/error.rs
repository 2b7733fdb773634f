//! What can go wrong with a store on disk.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::Access;
use crate::hint::Hint;

/// A store on disk could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// A verb, and what stands between it and the path.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// Another process uses the store in a way that excludes this one.
    #[error("{} {}", match access {
        Access::Exclusive => "another imgbuild is using the store at",
        Access::Shared | Access::ReadOnly => "another imgbuild is collecting garbage in the store at",
    }, path.display())]
    Busy {
        /// The store.
        path: PathBuf,
        /// The access that was asked for.
        access: Access,
    },
    /// Another process works on the stream.
    #[error("another imgbuild is working on stream {stream} in the store at {}", path.display())]
    StreamBusy {
        /// The stream.
        stream: String,
        /// The store.
        path: PathBuf,
    },
    /// The store was written by a later version.
    #[error("the store at {} has version {found}; this imgbuild reads up to {reads}", path.display())]
    Version {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The latest version that is read.
        reads: u64,
    },
    /// There is nothing at the path, and it was opened to be read only.
    #[error("there is no store at {}", path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Something else lives at the path.
    #[error("{} is not a store: expected an OCI image layout or an empty directory, found {found:?} in it", path.display())]
    NotAStore {
        /// Where it was looked for.
        path: PathBuf,
        /// A file that a store does not have.
        found: String,
    },
    /// A file of the store does not have its form.
    #[error("{} is malformed: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The expectation and the finding.
        problem: String,
    },
    /// A name that cannot be one.
    #[error("{name:?} cannot name a {what}: {problem}")]
    Name {
        /// The name.
        name: String,
        /// What it was to name.
        what: &'static str,
        /// The expectation.
        problem: &'static str,
    },
    /// The store was opened to be read only.
    #[error("cannot {action}: the store at {} was opened to be read only", path.display())]
    ReadOnly {
        /// What was asked.
        action: &'static str,
        /// The store.
        path: PathBuf,
    },
    /// The store was opened to be shared, and the work needs it alone.
    #[error("cannot {action}: the store at {} was not opened for exclusive use", path.display())]
    NotExclusive {
        /// What was asked.
        action: &'static str,
        /// The store.
        path: PathBuf,
    },
}

impl StoreError {
    /// Says what was done to `path` when the file system refused; for `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// The error of a store that `error` carries, if it carries one.
    #[must_use]
    pub fn in_error(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }

    /// Its kind, as the file system has them.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } => source.kind(),
            Self::Busy { .. } | Self::StreamBusy { .. } => io::ErrorKind::ResourceBusy,
            Self::Version { .. } => io::ErrorKind::Unsupported,
            Self::Absent { .. } => io::ErrorKind::NotFound,
            Self::NotAStore { .. } | Self::Malformed { .. } => io::ErrorKind::InvalidData,
            Self::Name { .. } => io::ErrorKind::InvalidInput,
            Self::ReadOnly { .. } => io::ErrorKind::ReadOnlyFilesystem,
            Self::NotExclusive { .. } => io::ErrorKind::PermissionDenied,
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl Hint for StoreError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge => {
                    "free space on that disk (`imgbuild store gc` may), or choose another place with --store; what is finished stays"
                }
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                    "the store is read-only here: choose another place with --store"
                }
                _ => return None,
            },
            Self::Busy { .. } | Self::StreamBusy { .. } => "try again when it is done",
            Self::Version { .. } => "upgrade imgbuild",
            Self::Absent { .. } => "name the store with --store",
            Self::NotAStore { .. } => {
                "choose an empty directory, or one that does not exist yet, with --store"
            }
            Self::Malformed { .. }
            | Self::Name { .. }
            | Self::ReadOnly { .. }
            | Self::NotExclusive { .. } => return None,
        };
        Some(text.to_owned())
    }
}
