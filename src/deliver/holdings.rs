//! What a destination holds, asked of the destination itself.

use std::io;

use crate::digest::Digest;
use crate::oci::Manifest;
use crate::reference::Tag;
use crate::store::{Blob, TransferError};

/// A registry whose content is looked at, and perhaps deleted. Paths are whole: prefix and path limit are applied.
pub trait Holdings: Sync {
    /// The paths of all its repositories, sorted; `None` if it does not list them.
    ///
    /// # Errors
    /// If it cannot be asked.
    fn repositories(&self) -> io::Result<Option<Vec<String>>>;

    /// The tags of a repository, sorted; `None` if there is no such repository.
    ///
    /// # Errors
    /// If it cannot be asked.
    fn tags(&self, path: &str) -> io::Result<Option<Vec<Tag>>>;

    /// The digest that a tag stands for, if it is there.
    ///
    /// # Errors
    /// If it cannot be asked.
    fn tag(&self, path: &str, tag: &Tag) -> io::Result<Option<Digest>>;

    /// A manifest, its bytes found to have that digest; `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be asked, or serves other bytes.
    fn manifest(&self, path: &str, digest: Digest) -> io::Result<Option<(Blob, Manifest)>>;

    /// Whether a repository says that it has a blob of that size.
    ///
    /// # Errors
    /// If it cannot be asked, or says another size.
    fn holds(&self, path: &str, blob: &Blob) -> io::Result<bool>;

    /// Reads all bytes of a blob and makes sure that they are right.
    ///
    /// # Errors
    /// If it is not there, or its bytes are others.
    fn read(
        &self,
        path: &str,
        blob: &Blob,
        passed: &(dyn Fn(u64) + Sync),
    ) -> Result<(), TransferError>;

    /// Deletes a manifest and every tag of it; false if it was not there.
    ///
    /// # Errors
    /// If it does not allow that, or cannot be asked.
    fn delete(&self, path: &str, digest: Digest) -> io::Result<bool>;
}

#[cfg(test)]
pub(crate) mod fake {
    //! A registry in memory, without rules of its own.

    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Mutex;

    use super::*;

    /// Manifests, tags and blobs by repository.
    #[derive(Default)]
    pub(crate) struct Fake {
        pub(crate) manifests: Mutex<BTreeMap<(String, Digest), Vec<u8>>>,
        pub(crate) tags: Mutex<BTreeMap<(String, Tag), Digest>>,
        pub(crate) blobs: Mutex<BTreeMap<(String, Digest), Vec<u8>>>,
        pub(crate) undeletable: Mutex<BTreeSet<Digest>>,
    }

    impl Fake {
        /// An image of one layer, under a tag if one is given; its digest.
        pub(crate) fn image(&self, path: &str, tag: Option<&str>, layer: &str) -> Digest {
            let of = |text: &str| {
                let blob = Blob::of(text.as_bytes());
                self.blobs
                    .lock()
                    .unwrap()
                    .insert((path.to_owned(), blob.digest), text.as_bytes().to_vec());
                format!(
                    r#"{{"mediaType":"x","digest":"{}","size":{}}}"#,
                    blob.digest, blob.size
                )
            };
            let manifest = format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
                of("config"),
                of(layer)
            );
            self.put(path, tag, &manifest)
        }

        /// An index of the given children.
        pub(crate) fn index(&self, path: &str, tag: Option<&str>, children: &[Digest]) -> Digest {
            let list: Vec<String> = children
                .iter()
                .map(|child| {
                    let size = self.manifests.lock().unwrap()[&(path.to_owned(), *child)].len();
                    format!(
                        r#"{{"mediaType":"{}","digest":"{child}","size":{size}}}"#,
                        crate::oci::OCI_MANIFEST
                    )
                })
                .collect();
            let manifest = format!(
                r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
                crate::oci::OCI_INDEX,
                list.join(",")
            );
            self.put(path, tag, &manifest)
        }

        fn put(&self, path: &str, tag: Option<&str>, manifest: &str) -> Digest {
            let digest = Digest::of(manifest.as_bytes());
            self.manifests
                .lock()
                .unwrap()
                .insert((path.to_owned(), digest), manifest.as_bytes().to_vec());
            if let Some(tag) = tag {
                self.tags
                    .lock()
                    .unwrap()
                    .insert((path.to_owned(), tag.parse().unwrap()), digest);
            }
            digest
        }
    }

    impl Holdings for Fake {
        fn repositories(&self) -> io::Result<Option<Vec<String>>> {
            let paths: BTreeSet<String> = self
                .manifests
                .lock()
                .unwrap()
                .keys()
                .map(|(path, _)| path.clone())
                .collect();
            Ok(Some(paths.into_iter().collect()))
        }

        fn tags(&self, path: &str) -> io::Result<Option<Vec<Tag>>> {
            let tags: Vec<Tag> = self
                .tags
                .lock()
                .unwrap()
                .keys()
                .filter(|(other, _)| other == path)
                .map(|(_, tag)| tag.clone())
                .collect();
            Ok((!tags.is_empty()).then_some(tags))
        }

        fn tag(&self, path: &str, tag: &Tag) -> io::Result<Option<Digest>> {
            Ok(self
                .tags
                .lock()
                .unwrap()
                .get(&(path.to_owned(), tag.clone()))
                .copied())
        }

        fn manifest(&self, path: &str, digest: Digest) -> io::Result<Option<(Blob, Manifest)>> {
            let manifests = self.manifests.lock().unwrap();
            let Some(bytes) = manifests.get(&(path.to_owned(), digest)) else {
                return Ok(None);
            };
            if Digest::of(bytes) != digest {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "other bytes"));
            }
            let manifest = Manifest::parse(bytes, None).map_err(io::Error::other)?;
            Ok(Some((Blob::of(bytes), manifest)))
        }

        fn holds(&self, path: &str, blob: &Blob) -> io::Result<bool> {
            Ok(self
                .blobs
                .lock()
                .unwrap()
                .contains_key(&(path.to_owned(), blob.digest)))
        }

        fn read(
            &self,
            path: &str,
            blob: &Blob,
            passed: &(dyn Fn(u64) + Sync),
        ) -> Result<(), TransferError> {
            let blobs = self.blobs.lock().unwrap();
            let Some(bytes) = blobs.get(&(path.to_owned(), blob.digest)) else {
                return Err(TransferError::Absent { blob: *blob });
            };
            passed(bytes.len() as u64);
            let mut bytes = crate::store::Verified::new(Box::new(bytes.as_slice()), *blob);
            io::copy(&mut bytes, &mut io::sink())
                .map_err(|error| TransferError::of(blob, error))?;
            Ok(())
        }

        fn delete(&self, path: &str, digest: Digest) -> io::Result<bool> {
            if self.undeletable.lock().unwrap().contains(&digest) {
                return Err(io::Error::other("not allowed"));
            }
            self.tags
                .lock()
                .unwrap()
                .retain(|(other, _), found| other != path || *found != digest);
            Ok(self
                .manifests
                .lock()
                .unwrap()
                .remove(&(path.to_owned(), digest))
                .is_some())
        }
    }
}
