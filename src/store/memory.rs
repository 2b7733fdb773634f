//! The store in memory: the reference that the others are held against.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Blob, Sink, Source, Verified};
use crate::digest::Digest;

/// Blobs in memory.
#[derive(Default)]
pub struct Memory {
    blobs: Mutex<BTreeMap<Digest, Arc<[u8]>>>,
}

impl Memory {
    /// Stores `bytes` under their own name.
    pub fn insert(&self, bytes: &[u8]) -> Blob {
        let blob = Blob::of(bytes);
        self.lock().insert(blob.digest, bytes.into());
        blob
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Arc<[u8]>>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Memory {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        Ok(self.lock().get(&blob.digest).cloned().map(|bytes| {
            let mut cursor = Cursor::new(bytes);
            cursor.set_position(from);
            Box::new(cursor) as Box<dyn Read + Send>
        }))
    }
}

impl Sink for Memory {
    fn holds(&self, blob: &Blob) -> io::Result<bool> {
        Ok(self.lock().contains_key(&blob.digest))
    }

    fn write(&self, blob: &Blob, bytes: &mut Verified<'_>) -> io::Result<()> {
        let mut out = Vec::new();
        bytes.read_to_end(&mut out)?;
        self.lock().insert(blob.digest, out.into());
        Ok(())
    }
}
