//! The roots: what garbage collection must not take.
//!
//! A root names a lock whose closure is kept, and says why. It is one file, `imgbuild/roots/<name>`, of two lines:
//!
//! ```text
//! working
//! sha256:<64 digits> <size>      of the lock
//! ```
//!
//! A root that cannot be read is an error and never passed over: without it, what it keeps would be swept.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::disk::Store;
use super::{Blob, StoreError, name};

/// Why a lock is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It is the lock of a working tree.
    Working,
    /// It is the lock of an archive.
    Archive,
    /// It is the lock that a destination has adopted.
    Adopted,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Working => "working",
            Self::Archive => "archive",
            Self::Adopted => "adopted",
        })
    }
}

/// A text that is no kind of root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a kind of root: expected working, archive or adopted")]
pub struct KindError {
    /// What was read.
    pub text: String,
}

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        match text {
            "working" => Ok(Self::Working),
            "archive" => Ok(Self::Archive),
            "adopted" => Ok(Self::Adopted),
            _ => Err(KindError {
                text: text.to_owned(),
            }),
        }
    }
}

/// A lock that is kept, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// Why.
    pub kind: Kind,
    /// The bytes of the lock.
    pub lock: Blob,
}

impl Root {
    fn print(&self) -> String {
        format!("{}\n{} {}\n", self.kind, self.lock.digest, self.lock.size)
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, lock) = text.strip_suffix('\n')?.split_once('\n')?;
        let (digest, size) = lock.split_once(' ')?;
        let root = Self {
            kind: kind.parse().ok()?,
            lock: Blob {
                digest: digest.parse().ok()?,
                size: size.parse().ok()?,
            },
        };
        (root.print() == text).then_some(root)
    }
}

/// The roots of a store.
#[derive(Clone, Copy)]
pub struct Roots<'s> {
    store: &'s Store,
}

impl<'s> Roots<'s> {
    pub(super) const fn of(store: &'s Store) -> Self {
        Self { store }
    }

    fn path(self, name: &str) -> Result<PathBuf, StoreError> {
        Ok(self.store.inside("roots").join(name::encode(name, "root")?))
    }

    /// Sets the root called `name`, atomically and after everything that is in the store by now.
    ///
    /// # Errors
    /// If the name is empty or too long; if the file system refuses.
    pub fn set(&self, name: &str, root: &Root) -> Result<(), StoreError> {
        self.store
            .replace(&self.path(name)?, root.print().as_bytes())
    }

    /// The root called `name`; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn get(&self, name: &str) -> Result<Option<Root>, StoreError> {
        let path = self.path(name)?;
        let Some(bytes) = Store::read_file(&path)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        match Root::parse(&text) {
            Some(root) => Ok(Some(root)),
            None => Err(StoreError::Malformed {
                path,
                problem: format!(
                    "expected a kind of root and a lock, found {:?}",
                    text.chars().take(80).collect::<String>()
                ),
            }),
        }
    }

    /// Removes the root called `name`; `false` if there was none.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn remove(&self, name: &str) -> Result<bool, StoreError> {
        self.store.remove(&self.path(name)?)
    }

    /// All roots by name, sorted.
    ///
    /// # Errors
    /// If any of them cannot be read.
    pub fn list(&self) -> Result<Vec<(String, Root)>, StoreError> {
        let folder = self.store.inside("roots");
        let mut roots = Vec::new();
        for file in Store::names(&folder)? {
            let name =
                file.to_str()
                    .and_then(name::decode)
                    .ok_or_else(|| StoreError::Malformed {
                        path: folder.join(&file),
                        problem: "its name is not one that a root has".to_owned(),
                    })?;
            if let Some(root) = self.get(&name)? {
                roots.push((name, root));
            }
        }
        roots.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::Access;

    #[test]
    fn a_root_is_what_was_set_last_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        let roots = store.roots();
        assert_eq!(roots.list().unwrap(), [], "a new store has no roots");
        for kind in [Kind::Working, Kind::Archive, Kind::Adopted] {
            let root = Root {
                kind,
                lock: Blob::of(kind.to_string().as_bytes()),
            };
            roots.set("lockfiles/prod.lock.toml", &root).unwrap();
            assert_eq!(
                roots.get("lockfiles/prod.lock.toml").unwrap(),
                Some(root),
                "the last one set counts"
            );
        }
        let other = Root {
            kind: Kind::Working,
            lock: Blob::of(b"other"),
        };
        roots.set("a", &other).unwrap();
        let names: Vec<String> = roots
            .list()
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            names,
            ["a", "lockfiles/prod.lock.toml"],
            "names come back as given, sorted"
        );
        assert!(roots.remove("a").unwrap(), "it was there");
        assert!(!roots.remove("a").unwrap(), "it is not there twice");
        assert_eq!(roots.get("a").unwrap(), None, "a removed root is gone");
    }

    #[test]
    fn a_root_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        for (file, content) in [
            ("torn", "working\nsha256:2cf24d"),
            ("empty", ""),
            ("kind", &format!("other\n{} 1\n", Blob::of(b"x").digest)),
            (
                ".hidden",
                &format!("working\n{} 1\n", Blob::of(b"x").digest),
            ),
        ] {
            let path = folder.path().join("imgbuild/roots").join(file);
            std::fs::write(&path, content).unwrap();
            let error = store.roots().list().unwrap_err();
            assert!(
                error.to_string().contains(file),
                "{error} must name the file, and garbage collection must not go on without it"
            );
            std::fs::remove_file(&path).unwrap();
        }
    }
}
