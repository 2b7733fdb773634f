//! The streams: what was written or adopted here, per line of archives.
//!
//! `imgbuild/streams/<stream>/` holds small named files (the chain, archive manifests, the head of each destination).
//! What is in them is the business of whoever names them; here they are read whole and replaced atomically, so a
//! reader sees the old bytes or the new ones.

use std::fs::{self, OpenOptions, TryLockError};
use std::path::PathBuf;

use super::disk::{Locked, Store};
use super::{StoreError, name};

/// Longest name of a stream.
const LONGEST: usize = 100;
/// The lock of a stream; no file can be called so, since a leading dot is escaped.
const FLOCK: &str = ".flock";

/// The streams of a store.
#[derive(Clone, Copy)]
pub struct Streams<'s> {
    store: &'s Store,
}

impl<'s> Streams<'s> {
    pub(super) const fn of(store: &'s Store) -> Self {
        Self { store }
    }

    /// The names of the streams that have a file here, sorted.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn list(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for file in Store::names(&self.store.inside("streams"))? {
            if let Ok(name) = file.into_string()
                && let Ok(stream) = self.get(&name)
                && !stream.list()?.is_empty()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The stream called `name`, which may not have been begun.
    ///
    /// # Errors
    /// If `name` is not of the form `[a-z0-9-]+`.
    pub fn get(&self, name: &str) -> Result<Stream<'s>, StoreError> {
        let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if name.is_empty() || name.len() > LONGEST || !name.bytes().all(is_good) {
            return Err(StoreError::Name {
                name: name.to_owned(),
                what: "stream",
                problem: "expected 1 to 100 lowercase letters, digits and hyphens",
            });
        }
        Ok(Stream {
            store: self.store,
            name: name.to_owned(),
        })
    }
}

/// One stream of a store.
#[derive(Clone)]
pub struct Stream<'s> {
    store: &'s Store,
    name: String,
}

/// A stream that no other process works on while this value lives.
#[derive(Debug)]
pub struct StreamLock {
    _file: Locked,
}

impl Stream<'_> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn folder(&self) -> PathBuf {
        self.store.inside("streams").join(&self.name)
    }

    fn path(&self, file: &str) -> Result<PathBuf, StoreError> {
        Ok(self.folder().join(name::encode(file, "file of a stream")?))
    }

    /// Reads the file called `file`, which may be any text; `None` if there is none.
    ///
    /// # Errors
    /// If the name is empty or too long; if the file system refuses.
    pub fn read(&self, file: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Store::read_file(&self.path(file)?)
    }

    /// Replaces the file called `file`, atomically and after everything that is in the store by now.
    ///
    /// # Errors
    /// If the name is empty or too long; if the file system refuses.
    pub fn write(&self, file: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.store.replace(&self.path(file)?, bytes)
    }

    /// Removes the file called `file`; `false` if there was none.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn remove(&self, file: &str) -> Result<bool, StoreError> {
        self.store.remove(&self.path(file)?)
    }

    /// The names of its files, sorted.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn list(&self) -> Result<Vec<String>, StoreError> {
        let mut names: Vec<String> = Store::names(&self.folder())?
            .iter()
            .filter_map(|file| name::decode(file.to_str()?))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Keeps other processes from doing the same, for whoever reads a file and replaces it by what follows from it.
    ///
    /// # Errors
    /// If another has it (this does not wait); if the file system refuses.
    pub fn lock(&self) -> Result<StreamLock, StoreError> {
        self.store.may_write("work on a stream")?;
        let folder = self.folder();
        fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        let path = folder.join(FLOCK);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(StreamLock {
                _file: Locked(file),
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::StreamBusy {
                stream: self.name.clone(),
                path: self.store.path().to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::Access;

    #[test]
    fn a_stream_keeps_small_files_by_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        let stream = store.stream("prod").unwrap();
        assert_eq!(stream.read("chain").unwrap(), None, "a new stream is empty");
        assert!(
            store.streams().list().unwrap().is_empty(),
            "looking does not begin a stream"
        );
        stream.write("chain", b"1\n").unwrap();
        stream.write("chain", b"1\n2\n").unwrap();
        stream
            .write("head/mirror.example.com:5000/ocp", b"2")
            .unwrap();
        let lock = stream.lock().unwrap();
        assert_eq!(
            stream.list().unwrap(),
            ["chain", "head/mirror.example.com:5000/ocp"],
            "names come back as given, sorted, and the lock is not a file"
        );
        assert_eq!(
            stream.read("chain").unwrap().unwrap(),
            b"1\n2\n",
            "the last bytes count"
        );
        assert_eq!(
            store.streams().list().unwrap(),
            ["prod"],
            "now it has begun"
        );
        let error = store.stream("prod").unwrap().lock().unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("another imgbuild is working on stream prod"),
            "{error} must say who is in the way"
        );
        drop(lock);
        store.stream("prod").unwrap().lock().unwrap();
        assert!(stream.remove("chain").unwrap(), "it was there");
        assert_eq!(
            stream.read("chain").unwrap(),
            None,
            "a removed file is gone"
        );
    }

    #[test]
    fn a_name_of_another_form_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        for name in ["", "..", "a/b", "Prod", "a b", &"x".repeat(101)] {
            assert!(
                matches!(store.stream(name), Err(StoreError::Name { .. })),
                "{name:?} must not be a stream"
            );
        }
    }
}
