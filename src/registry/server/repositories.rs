//! What belongs to which repository.
//!
//! The bytes are in a store; here are only the names that make them visible: which blobs and manifests a
//! repository has, which tags point at them, which manifests refer to which. A blob is seen in the repositories
//! it was pushed to, mounted to or linked to, and in no other.
//!
//! Kept in memory, or under a folder as well:
//!
//! ```text
//! folder/
//! ├── _lock                        held while a server uses the folder
//! ├── _tmp/                        unfinished writes; emptied on opening
//! └── a/b/                         a repository (its segments never open with '_')
//!     ├── _blobs/<64 digits>       the size in bytes
//!     ├── _manifests/<64 digits>   the descriptor and the subject, as JSON
//!     └── _tags/<tag>              a digest
//! ```
//!
//! Each file is written to `_tmp`, synced, renamed, and its folder synced, so what is there is whole; an
//! unchanged one is not written again. A manifest is recorded before a tag points at it and forgotten after.
//!
//! ## Why not one file per repository
//! A release has hundreds of blobs in one repository. One small file each keeps every change atomic without
//! rewriting the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};
use crate::hint::Hint;
use crate::oci::{Descriptor, MANIFEST_LIMIT, MANIFEST_TYPES, Manifest, ManifestError};
use crate::reference::{Tag, is_path};
use crate::store::{self, Blob, Source, TransferError};

/// Longest repository name, from the OCI distribution specification.
const NAME_LENGTH: usize = 255;

const LOCK: &str = "_lock";
const UNFINISHED: &str = "_tmp";
const BLOBS: &str = "_blobs";
const MANIFESTS: &str = "_manifests";
const TAGS: &str = "_tags";

/// Whether `text` may name a repository.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= NAME_LENGTH && is_path(text)
}

/// Why a repository could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RepositoriesError {
    /// The name is malformed.
    #[error(
        "{name:?} is not a repository name: expected at most 255 lowercase letters, digits and single separators ('.', '_', '__', '-') between slashes"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// A file could not be read or written.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that no registry puts there.
    #[error("{} does not belong in a folder of repositories", path.display())]
    Stray {
        /// Which.
        path: PathBuf,
    },
    /// A file says something else than its place demands.
    #[error("{} should hold {expected}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// Another server uses the folder.
    #[error("the repositories in {} are in use by another server", folder.display())]
    Busy {
        /// Which.
        folder: PathBuf,
    },
    /// The bytes are no manifest.
    #[error("{repository}: {digest} cannot be linked as a manifest")]
    Manifest {
        /// Where it was to be linked.
        repository: String,
        /// Which.
        digest: Digest,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A tag was to point at a manifest that is not there.
    #[error("{repository} has no manifest {digest} that the tag {tag} could point at")]
    Dangling {
        /// Where.
        repository: String,
        /// The tag.
        tag: String,
        /// The manifest.
        digest: Digest,
    },
    /// A manifest could not be read from the store.
    #[error("{repository}: a manifest cannot be read from the store")]
    Store {
        /// Where it was to be linked.
        repository: String,
        /// Why.
        source: Box<TransferError>,
    },
}

impl Hint for RepositoriesError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Stray { path } => Some(format!("move {} away", path.display())),
            Self::Damaged { path, .. } => Some(format!(
                "remove {} and push what it named again",
                path.display()
            )),
            Self::Busy { .. } => Some("stop the other server, or use another folder".to_owned()),
            _ => None,
        }
    }
}

/// A manifest of a repository, as it is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// The media type it was pushed as, its digest and size; and what a list of referrers says of it.
    pub(super) descriptor: Descriptor,
    /// The manifest that it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Digest>,
}

impl Held {
    /// Describes `manifest`, whose bytes are `blob`.
    fn new(manifest: &Manifest, blob: Blob, media_type: &str) -> Self {
        let (artifact_type, annotations) = match manifest {
            Manifest::Image(image) => (
                image.artifact_type.clone().or_else(|| {
                    image
                        .config
                        .as_ref()
                        .map(|config| config.media_type.clone())
                }),
                image.annotations.clone(),
            ),
            Manifest::Index(index) => (index.artifact_type.clone(), index.annotations.clone()),
        };
        Self {
            descriptor: Descriptor {
                media_type: media_type.to_owned(),
                digest: blob.digest,
                size: blob.size,
                platform: None,
                artifact_type: artifact_type.filter(|text| !text.is_empty()),
                urls: Vec::new(),
                annotations,
            },
            subject: manifest.subject().map(|subject| subject.digest),
        }
    }

    /// The promise of its bytes.
    pub(super) fn blob(&self) -> Blob {
        Blob::from(&self.descriptor)
    }
}

/// The order of tags in a list: letters before their case, as the OCI distribution specification asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TagOrder(String, String);

impl TagOrder {
    fn of(tag: &str) -> Self {
        Self(tag.to_ascii_lowercase(), tag.to_owned())
    }
}

/// What one repository has.
#[derive(Debug, Default)]
struct Contents {
    blobs: BTreeMap<Digest, u64>,
    manifests: BTreeMap<Digest, Held>,
    tags: BTreeMap<TagOrder, Digest>,
    referrers: BTreeMap<Digest, BTreeSet<Digest>>,
}

impl Contents {
    fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.manifests.is_empty() && self.tags.is_empty()
    }

    fn hold(&mut self, held: Held) {
        if let Some(subject) = held.subject {
            self.referrers
                .entry(subject)
                .or_default()
                .insert(held.descriptor.digest);
        }
        self.manifests.insert(held.descriptor.digest, held);
    }

    fn release(&mut self, digest: &Digest) {
        if let Some(subject) = self.manifests.remove(digest).and_then(|held| held.subject)
            && let Some(referrers) = self.referrers.get_mut(&subject)
        {
            referrers.remove(digest);
            if referrers.is_empty() {
                self.referrers.remove(&subject);
            }
        }
    }
}

/// The repositories of a registry.
#[derive(Debug, Default)]
pub struct Repositories {
    contents: RwLock<BTreeMap<String, Contents>>,
    folder: Option<Folder>,
}

impl Repositories {
    /// Keeps them in memory alone.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Keeps them under `folder` as well, which is made if need be, and reads what is there.
    ///
    /// # Errors
    /// If the folder cannot be used, is in use, or holds what no registry wrote.
    pub fn open(folder: &Path) -> Result<Self, RepositoriesError> {
        let folder = Folder::open(folder)?;
        let contents = folder.read()?;
        Ok(Self {
            contents: RwLock::new(contents),
            folder: Some(folder),
        })
    }

    /// Makes `blob` visible in `repository`. Its bytes may come later; until then it is absent to whoever asks.
    ///
    /// # Errors
    /// If the name is malformed or the folder cannot be written.
    pub fn link_blob(&self, repository: &str, blob: &Blob) -> Result<(), RepositoriesError> {
        check_name(repository)?;
        let _writing = self.writing();
        if self.blob(repository, &blob.digest) == Some(*blob) {
            return Ok(());
        }
        if let Some(folder) = &self.folder {
            folder.write(
                repository,
                BLOBS,
                &blob.digest.hex(),
                format!("{}\n", blob.size).as_bytes(),
            )?;
        }
        self.change(repository, |contents| {
            contents.blobs.insert(blob.digest, blob.size);
        });
        Ok(())
    }

    /// Makes the manifest whose bytes are `bytes` visible in `repository`; returns its descriptor.
    ///
    /// `media_type` is what it is served as; without it, or where that is no manifest's, the manifest decides.
    /// Its bytes must be in the store to be served; its children and blobs are linked on their own.
    ///
    /// # Errors
    /// If the bytes are no manifest, the name is malformed or the folder cannot be written.
    pub fn link_manifest(
        &self,
        repository: &str,
        bytes: &[u8],
        media_type: Option<&str>,
    ) -> Result<Descriptor, RepositoriesError> {
        let blob = Blob::of(bytes);
        let manifest =
            Manifest::parse(bytes, media_type).map_err(|source| RepositoriesError::Manifest {
                repository: repository.to_owned(),
                digest: blob.digest,
                source,
            })?;
        self.hold(repository, &manifest, blob, media_type)
    }

    /// Points `tag` of `repository` at one of its manifests.
    ///
    /// # Errors
    /// If the manifest is not linked there, the name is malformed or the folder cannot be written.
    pub fn link_tag(
        &self,
        repository: &str,
        tag: &Tag,
        manifest_digest: &Digest,
    ) -> Result<(), RepositoriesError> {
        check_name(repository)?;
        let _writing = self.writing();
        if self.manifest(repository, manifest_digest).is_none() {
            return Err(RepositoriesError::Dangling {
                repository: repository.to_owned(),
                tag: tag.to_string(),
                digest: *manifest_digest,
            });
        }
        if self.tag(repository, tag.as_str()) == Some(*manifest_digest) {
            return Ok(());
        }
        if let Some(folder) = &self.folder {
            folder.write(
                repository,
                TAGS,
                tag.as_str(),
                format!("{manifest_digest}\n").as_bytes(),
            )?;
        }
        self.change(repository, |contents| {
            contents
                .tags
                .insert(TagOrder::of(tag.as_str()), *manifest_digest);
        });
        Ok(())
    }

    /// Makes everything below `root` that `source` has visible in `repository`, children first, and points `tag`
    /// at it.
    ///
    /// Children of an index that `source` does not have are left out, as in a sparse index.
    ///
    /// # Errors
    /// If `source` cannot give the root or gives a damaged manifest, or the folder cannot be written.
    pub fn link_image(
        &self,
        source: &dyn Source,
        repository: &str,
        root: &Descriptor,
        tag: Option<&Tag>,
    ) -> Result<(), RepositoriesError> {
        check_name(repository)?;
        let mut known = BTreeSet::from([root.digest]);
        let mut waiting = vec![root.clone()];
        let mut found: Vec<(Manifest, Blob, String)> = Vec::new();
        while let Some(descriptor) = waiting.pop() {
            let blob = Blob::from(&descriptor);
            let bytes = match store::read(source, &blob, MANIFEST_LIMIT) {
                Ok(bytes) => bytes,
                Err(TransferError::Absent { .. }) if blob.digest != root.digest => continue,
                Err(error) => {
                    return Err(RepositoriesError::Store {
                        repository: repository.to_owned(),
                        source: Box::new(error),
                    });
                }
            };
            let manifest =
                Manifest::parse(&bytes, Some(&descriptor.media_type)).map_err(|source| {
                    RepositoriesError::Manifest {
                        repository: repository.to_owned(),
                        digest: blob.digest,
                        source,
                    }
                })?;
            match &manifest {
                Manifest::Image(image) => {
                    for blob in image.blobs() {
                        self.link_blob(repository, &Blob::from(blob))?;
                    }
                }
                Manifest::Index(index) => {
                    for child in &index.manifests {
                        if !MANIFEST_TYPES.contains(&child.media_type.as_str()) {
                            self.link_blob(repository, &Blob::from(child))?;
                        } else if known.insert(child.digest) {
                            waiting.push(child.clone());
                        }
                    }
                }
            }
            found.push((manifest, blob, descriptor.media_type));
        }
        for (manifest, blob, media_type) in found.iter().rev() {
            self.hold(repository, manifest, *blob, Some(media_type))?;
        }
        match tag {
            Some(tag) => self.link_tag(repository, tag, &root.digest),
            None => Ok(()),
        }
    }

    /// Everything that some repository has, each once, sorted: what a collection of garbage must keep.
    #[must_use]
    pub fn linked(&self) -> Vec<Blob> {
        let contents = self.read();
        let linked: BTreeSet<Blob> = contents
            .values()
            .flat_map(|contents| {
                let blobs = contents.blobs.iter().map(|(digest, size)| Blob {
                    digest: *digest,
                    size: *size,
                });
                blobs.chain(contents.manifests.values().map(Held::blob))
            })
            .collect();
        linked.into_iter().collect()
    }

    /// The blobs that no manifest of their own repository names: left by deletions, or by pushes that never ended. The
    /// manifests are read from `source`; a repository with one that cannot be read is left alone.
    #[must_use]
    pub fn unneeded(&self, source: &dyn Source) -> BTreeSet<(String, Digest)> {
        let contents = self.read();
        let mut unneeded = BTreeSet::new();
        for (repository, contents) in contents.iter() {
            let mut named: BTreeSet<Digest> = BTreeSet::new();
            let is_known = contents.manifests.values().all(|held| {
                let Ok(bytes) = store::read(source, &held.blob(), MANIFEST_LIMIT) else {
                    return false;
                };
                match Manifest::parse(&bytes, Some(&held.descriptor.media_type)) {
                    Ok(Manifest::Image(image)) => {
                        named.extend(image.blobs().map(|blob| blob.digest));
                        true
                    }
                    Ok(Manifest::Index(index)) => {
                        named.extend(index.manifests.iter().map(|child| child.digest));
                        true
                    }
                    Err(_) => false,
                }
            });
            if is_known {
                let blobs = contents.blobs.keys();
                let left = blobs.filter(|digest| !named.contains(digest));
                unneeded.extend(left.map(|digest| (repository.clone(), *digest)));
            }
        }
        unneeded
    }

    /// The digests that some repository has, but for these blobs of these repositories.
    #[must_use]
    pub fn needed(&self, unneeded: &BTreeSet<(String, Digest)>) -> BTreeSet<Digest> {
        let contents = self.read();
        let mut needed = BTreeSet::new();
        for (repository, contents) in contents.iter() {
            needed.extend(contents.manifests.keys().copied());
            let blobs = contents.blobs.keys().copied();
            needed.extend(blobs.filter(|digest| {
                let link = (repository.clone(), *digest);
                !unneeded.contains(&link)
            }));
        }
        needed
    }

    /// Takes `blob` out of `repository`; whether it was there.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn unlink_blob(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<bool, RepositoriesError> {
        let _writing = self.writing();
        if self.blob(repository, digest).is_none() {
            return Ok(false);
        }
        if let Some(folder) = &self.folder {
            folder.remove(repository, BLOBS, &digest.hex())?;
        }
        self.change(repository, |contents| {
            contents.blobs.remove(digest);
        });
        Ok(true)
    }

    /// Takes a manifest out of `repository`, and every tag that points at it; whether it was there.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn unlink_manifest(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<bool, RepositoriesError> {
        let _writing = self.writing();
        if self.manifest(repository, digest).is_none() {
            return Ok(false);
        }
        let tags: Vec<TagOrder> = self
            .with(repository, |contents| {
                let pointing = contents.tags.iter().filter(|(_, other)| *other == digest);
                pointing.map(|(tag, _)| tag.clone()).collect()
            })
            .unwrap_or_default();
        if let Some(folder) = &self.folder {
            for tag in &tags {
                folder.remove(repository, TAGS, &tag.1)?;
            }
            folder.remove(repository, MANIFESTS, &digest.hex())?;
        }
        self.change(repository, |contents| {
            for tag in &tags {
                contents.tags.remove(tag);
            }
            contents.release(digest);
        });
        Ok(true)
    }

    /// Takes a tag out of `repository`; whether it was there.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn unlink_tag(&self, repository: &str, tag: &str) -> Result<bool, RepositoriesError> {
        let _writing = self.writing();
        if self.tag(repository, tag).is_none() {
            return Ok(false);
        }
        if let Some(folder) = &self.folder {
            folder.remove(repository, TAGS, tag)?;
        }
        self.change(repository, |contents| {
            contents.tags.remove(&TagOrder::of(tag));
        });
        Ok(true)
    }

    /// The names of the repositories that hold something, sorted, after `last`.
    #[must_use]
    pub fn names(&self, last: Option<&str>) -> Vec<String> {
        let contents = self.read();
        contents
            .keys()
            .filter(|name| last.is_none_or(|last| name.as_str() > last))
            .cloned()
            .collect()
    }

    /// The tags of `repository`, sorted, after `last`; `None` if there is no such repository.
    #[must_use]
    pub fn tags(&self, repository: &str, last: Option<&str>) -> Option<Vec<String>> {
        let last = last.map(TagOrder::of);
        self.with(repository, |contents| {
            let tags = contents.tags.keys();
            let after = tags.filter(|tag| last.as_ref().is_none_or(|last| *tag > last));
            after.map(|tag| tag.1.clone()).collect()
        })
    }

    pub(super) fn blob(&self, repository: &str, digest: &Digest) -> Option<Blob> {
        self.with(repository, |contents| contents.blobs.get(digest).copied())?
            .map(|size| Blob {
                digest: *digest,
                size,
            })
    }

    pub(super) fn manifest(&self, repository: &str, digest: &Digest) -> Option<Held> {
        self.with(repository, |contents| {
            contents.manifests.get(digest).cloned()
        })?
    }

    pub(super) fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.with(repository, |contents| {
            contents.tags.get(&TagOrder::of(tag)).copied()
        })?
    }

    /// The manifests of `repository` that refer to `subject`, by digest.
    pub(super) fn referrers(&self, repository: &str, subject: &Digest) -> Vec<Descriptor> {
        self.with(repository, |contents| {
            let digests = contents.referrers.get(subject).into_iter().flatten();
            let held = digests.filter_map(|digest| contents.manifests.get(digest));
            held.map(|held| held.descriptor.clone()).collect()
        })
        .unwrap_or_default()
    }

    /// Records a manifest that was read.
    pub(super) fn hold(
        &self,
        repository: &str,
        manifest: &Manifest,
        blob: Blob,
        media_type: Option<&str>,
    ) -> Result<Descriptor, RepositoriesError> {
        check_name(repository)?;
        let media_type = media_type
            .filter(|text| MANIFEST_TYPES.contains(text))
            .unwrap_or_else(|| manifest.media_type());
        let held = Held::new(manifest, blob, media_type);
        let descriptor = held.descriptor.clone();
        let _writing = self.writing();
        if self.manifest(repository, &blob.digest).as_ref() == Some(&held) {
            return Ok(descriptor);
        }
        if let Some(folder) = &self.folder {
            let mut line = serde_json::to_vec(&held).expect("a descriptor is plain JSON");
            line.push(b'\n');
            folder.write(repository, MANIFESTS, &blob.digest.hex(), &line)?;
        }
        self.change(repository, |contents| contents.hold(held));
        Ok(descriptor)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Contents>> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, repository: &str, look: impl FnOnce(&Contents) -> T) -> Option<T> {
        self.read().get(repository).map(look)
    }

    fn change(&self, repository: &str, change: impl FnOnce(&mut Contents)) {
        let mut all = self
            .contents
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let contents = all.entry(repository.to_owned()).or_default();
        change(contents);
        if contents.is_empty() {
            all.remove(repository);
        }
    }

    /// Held while files and memory are brought from one state to the next, so that both see changes in one order.
    fn writing(&self) -> Option<std::sync::MutexGuard<'_, ()>> {
        self.folder.as_ref().map(|folder| {
            folder
                .writing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        })
    }
}

fn check_name(name: &str) -> Result<(), RepositoriesError> {
    if is_name(name) {
        Ok(())
    } else {
        Err(RepositoriesError::Name {
            name: name.to_owned(),
        })
    }
}

/// Where repositories are kept on disk.
#[derive(Debug)]
struct Folder {
    root: PathBuf,
    writing: Mutex<()>,
    /// Closing it ends the lock.
    _lock: File,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RepositoriesError + '_ {
    |source| RepositoriesError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Folder {
    fn open(root: &Path) -> Result<Self, RepositoriesError> {
        let unfinished = root.join(UNFINISHED);
        fs::create_dir_all(&unfinished).map_err(at(&unfinished))?;
        let path = root.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(at(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(RepositoriesError::Busy {
                    folder: root.to_owned(),
                });
            }
            Err(fs::TryLockError::Error(source)) => {
                return Err(RepositoriesError::Io { path, source });
            }
        }
        for (path, _) in entries(&unfinished)? {
            fs::remove_file(&path).map_err(at(&path))?;
        }
        Ok(Self {
            root: root.to_owned(),
            writing: Mutex::new(()),
            _lock: lock,
        })
    }

    fn write(
        &self,
        repository: &str,
        list: &str,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), RepositoriesError> {
        let folder = self.root.join(repository).join(list);
        if !folder.is_dir() {
            fs::create_dir_all(&folder).map_err(at(&folder))?;
            // Each new folder is an entry of the one above it.
            for above in folder
                .ancestors()
                .skip(1)
                .take_while(|above| above.starts_with(&self.root))
            {
                sync(above)?;
            }
        }
        let unfinished = self.root.join(UNFINISHED);
        let mut file = tempfile::NamedTempFile::new_in(&unfinished).map_err(at(&unfinished))?;
        let path = folder.join(name);
        file.write_all(bytes).map_err(at(&path))?;
        file.as_file().sync_all().map_err(at(&path))?;
        file.persist(&path)
            .map_err(|error| at(&path)(error.error))?;
        sync(&folder)
    }

    fn remove(&self, repository: &str, list: &str, name: &str) -> Result<(), RepositoriesError> {
        let folder = self.root.join(repository).join(list);
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
            _ => {}
        }
        sync(&folder)
    }

    fn read(&self) -> Result<BTreeMap<String, Contents>, RepositoriesError> {
        let mut all = BTreeMap::new();
        let mut waiting = vec![String::new()];
        while let Some(repository) = waiting.pop() {
            let folder = self.root.join(&repository);
            let mut contents = Contents::default();
            for (path, name) in entries(&folder)? {
                match name.as_str() {
                    LOCK | UNFINISHED if repository.is_empty() => {}
                    BLOBS | MANIFESTS | TAGS if is_name(&repository) => {
                        read_list(&path, &name, &mut contents)?;
                    }
                    _ => {
                        let below = if repository.is_empty() {
                            name
                        } else {
                            format!("{repository}/{name}")
                        };
                        if !is_name(&below) || !path.is_dir() {
                            return Err(RepositoriesError::Stray { path });
                        }
                        waiting.push(below);
                    }
                }
            }
            if !contents.is_empty() {
                all.insert(repository, contents);
            }
        }
        Ok(all)
    }
}

fn read_list(folder: &Path, list: &str, contents: &mut Contents) -> Result<(), RepositoriesError> {
    for (path, name) in entries(folder)? {
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        let text = text.trim_end_matches('\n');
        let digest = || {
            Digest::from_hex(&name)
                .map_err(|_: DigestError| RepositoriesError::Stray { path: path.clone() })
        };
        let damaged = |expected| RepositoriesError::Damaged {
            path: path.clone(),
            expected,
        };
        match list {
            BLOBS => {
                let size = text.parse().map_err(|_| damaged("a size in bytes"))?;
                contents.blobs.insert(digest()?, size);
            }
            MANIFESTS => {
                let held: Held = serde_json::from_str(text)
                    .map_err(|_| damaged("the descriptor of a manifest"))?;
                if held.descriptor.digest != digest()? {
                    return Err(damaged("the descriptor of the manifest it is named after"));
                }
                contents.hold(held);
            }
            _ => {
                Tag::from_str(&name)
                    .map_err(|_| RepositoriesError::Stray { path: path.clone() })?;
                let digest = text.parse().map_err(|_| damaged("a digest"))?;
                contents.tags.insert(TagOrder::of(&name), digest);
            }
        }
    }
    Ok(())
}

/// What is in `folder`, sorted by name.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, String)>, RepositoriesError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.map(str::to_owned) else {
            return Err(RepositoriesError::Stray { path });
        };
        found.push((path, name));
    }
    found.sort();
    Ok(found)
}

fn sync(folder: &Path) -> Result<(), RepositoriesError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at(folder))
}
