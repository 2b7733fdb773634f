//! The store in memory: the reference that the others are held against.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memo::{Memo, Output};
use super::{Blob, PrefixGone, Sink, Source, Verified};
use crate::canon::Key;
use crate::digest::Digest;

/// Blobs and memo records in memory. Nothing of a broken write is kept.
#[derive(Default)]
pub struct Memory {
    blobs: Mutex<BTreeMap<Digest, Arc<[u8]>>>,
    records: Mutex<BTreeMap<Key, Vec<Output>>>,
}

impl Memory {
    /// Stores `bytes` under their own name.
    pub fn insert(&self, bytes: &[u8]) -> Blob {
        let blob = Blob::of(bytes);
        lock(&self.blobs).insert(blob.digest, bytes.into());
        blob
    }

    /// The size of a blob that is here; `None` if it is not.
    #[must_use]
    pub fn size_of(&self, digest: &Digest) -> Option<u64> {
        lock(&self.blobs)
            .get(digest)
            .map(|bytes| bytes.len() as u64)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source for Memory {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        Ok(lock(&self.blobs).get(&blob.digest).cloned().map(|bytes| {
            let mut cursor = Cursor::new(bytes);
            cursor.set_position(from);
            Box::new(cursor) as Box<dyn Read + Send>
        }))
    }
}

impl Sink for Memory {
    fn holds(&self, blob: &Blob) -> io::Result<bool> {
        Ok(lock(&self.blobs)
            .get(&blob.digest)
            .is_some_and(|bytes| bytes.len() as u64 == blob.size))
    }

    fn write(&self, blob: &Blob, bytes: &mut Verified<'_>) -> io::Result<()> {
        bytes.is_for(blob)?;
        if bytes.start() > 0 {
            return Err(PrefixGone {
                blob: *blob,
                start: bytes.start(),
            }
            .into());
        }
        let mut out = Vec::new();
        bytes.read_to_end(&mut out)?;
        lock(&self.blobs).insert(blob.digest, out.into());
        Ok(())
    }
}

impl Memo for Memory {
    fn get(&self, key: &Key) -> io::Result<Option<Vec<Output>>> {
        Ok(lock(&self.records).get(key).cloned())
    }

    fn put(&self, key: &Key, outputs: &[Output]) -> io::Result<()> {
        lock(&self.records).insert(*key, outputs.to_vec());
        Ok(())
    }
}
