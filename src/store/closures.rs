//! The closures: the flattened blob list of a lock, so that a base is known without reading its manifests again.
//!
//! A cache, always recomputable. `imgbuild/closures/<lock digest>.zst` holds lines `hex size`, sorted, each digest
//! once, under zstd; before them, in a skippable frame that `zstd -dc` passes over, a BLAKE3 over the digest of the
//! lock and the lines. A file that is torn, edited or misplaced is not there.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::PathBuf;

use super::disk::Store;
use super::{Blob, StoreError};
use crate::digest::Digest;

/// The domain of the check.
const CONTEXT: &str = "imgbuild 2026-11 closure v1";
/// A zstd skippable frame (RFC 8878, 3.1.2) of the 32 bytes that follow: its magic number and its length.
const SKIPPABLE: [u8; 8] = [0x50, 0x2a, 0x4d, 0x18, 32, 0, 0, 0];
/// Compression level; above it the list of hashes gets no smaller.
const LEVEL: i32 = 3;

/// The closures of a store.
#[derive(Clone, Copy)]
pub struct Closures<'s> {
    store: &'s Store,
}

impl<'s> Closures<'s> {
    pub(super) const fn of(store: &'s Store) -> Self {
        Self { store }
    }

    fn path(self, lock: &Digest) -> PathBuf {
        self.store
            .inside("closures")
            .join(format!("{}.zst", lock.hex()))
    }

    /// The blobs of the closure of `lock`, sorted; `None` if it is not known here.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn get(&self, lock: &Digest) -> Result<Option<Vec<Blob>>, StoreError> {
        Ok(Store::read_file(&self.path(lock))?.and_then(|bytes| parse(lock, &bytes)))
    }

    /// Remembers the closure of `lock`; order and repetition do not matter.
    ///
    /// # Errors
    /// If the store is read only or the file system refuses.
    pub fn put(&self, lock: &Digest, blobs: &[Blob]) -> Result<(), StoreError> {
        let path = self.path(lock);
        let bytes = print(lock, blobs).map_err(StoreError::io("compress", &path))?;
        self.store.replace_loosely(&path, &bytes)
    }

    /// Every file here, with the digest of its lock if it has the name of one; sorted.
    pub(super) fn list(self) -> Result<Vec<(PathBuf, Option<Digest>)>, StoreError> {
        let folder = self.store.inside("closures");
        Ok(Store::names(&folder)?
            .into_iter()
            .map(|file| {
                let lock = file
                    .to_str()
                    .and_then(|file| file.strip_suffix(".zst"))
                    .and_then(|digits| Digest::from_hex(digits).ok());
                (folder.join(file), lock)
            })
            .filter(|(path, _)| fs::metadata(path).is_ok_and(|found| found.is_file()))
            .collect())
    }
}

fn checker(lock: &Digest) -> blake3::Hasher {
    let mut state = blake3::Hasher::new_derive_key(CONTEXT);
    state.update(lock.as_bytes());
    state
}

fn print(lock: &Digest, blobs: &[Blob]) -> io::Result<Vec<u8>> {
    let mut blobs = blobs.to_vec();
    blobs.sort_unstable();
    blobs.dedup();
    let mut text = String::with_capacity(blobs.len() * 75);
    for blob in &blobs {
        writeln!(text, "{} {}", blob.digest.hex(), blob.size)
            .expect("writing to a string cannot fail");
    }
    let mut bytes = SKIPPABLE.to_vec();
    bytes.extend(checker(lock).update(text.as_bytes()).finalize().as_bytes());
    zstd::stream::copy_encode(text.as_bytes(), &mut bytes, LEVEL)?;
    Ok(bytes)
}

fn parse(lock: &Digest, bytes: &[u8]) -> Option<Vec<Blob>> {
    let (check, compressed) = bytes.strip_prefix(&SKIPPABLE)?.split_at_checked(32)?;
    let mut state = checker(lock);
    let mut lines = BufReader::new(zstd::stream::Decoder::new(compressed).ok()?);
    let mut blobs: Vec<Blob> = Vec::new();
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line).ok()? == 0 {
            break;
        }
        state.update(line.as_bytes());
        let (digits, size) = line.strip_suffix('\n')?.split_once(' ')?;
        blobs.push(Blob {
            digest: Digest::from_hex(digits).ok()?,
            size: size.parse().ok()?,
        });
    }
    (state.finalize() == *<&[u8; 32]>::try_from(check).ok()?).then_some(blobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::Access;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_closure_survives_printing_and_no_edit(
            contents in prop::collection::vec(any::<[u8; 4]>(), 0..20),
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let lock = Digest::of(b"lock");
            let mut blobs: Vec<Blob> = contents.iter().map(|bytes| Blob::of(bytes)).collect();
            let mut bytes = print(&lock, &blobs).unwrap();
            blobs.sort_unstable();
            blobs.dedup();
            prop_assert_eq!(&bytes, &print(&lock, &blobs).unwrap(), "order and repetition must not show");
            prop_assert_eq!(parse(&lock, &bytes), Some(blobs.clone()), "parse must undo print");
            prop_assert_eq!(parse(&Digest::of(b"other"), &bytes), None, "a misplaced closure is not there");
            let at = at.index(bytes.len());
            let torn = parse(&lock, &bytes[..at]);
            prop_assert!(torn.is_none() || torn == Some(blobs.clone()), "a torn closure must not be believed");
            bytes[at] ^= flip;
            let edited = parse(&lock, &bytes);
            prop_assert!(edited.is_none() || edited == Some(blobs), "an edited closure must not be believed");
        }
    }

    #[test]
    fn a_closure_is_kept_by_the_digest_of_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        let (lock, other) = (Digest::of(b"lock"), Digest::of(b"other"));
        let mut blobs = vec![Blob::of(b"a"), Blob::of(b"b")];
        store.closures().put(&lock, &blobs).unwrap();
        blobs.sort();
        assert_eq!(
            store.closures().get(&lock).unwrap(),
            Some(blobs),
            "what was put comes back, sorted"
        );
        assert_eq!(
            store.closures().get(&other).unwrap(),
            None,
            "no other lock is answered"
        );
    }
}
