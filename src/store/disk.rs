//! The store on disk: an OCI image layout, and beside it what `imgbuild` remembers.
//!
//! ```text
//! store/
//! ├── oci-layout                  {"imageLayoutVersion":"1.0.0"}
//! ├── index.json                  one descriptor per image, named by its source: see `store::index`
//! ├── blobs/sha256/2cf24dba5f…    the bytes; the path is their digest, and the file is whole
//! └── imgbuild/
//!     ├── version                 of this layout
//!     ├── flock                   locked shared by whoever works here, exclusively by garbage collection
//!     ├── tmp/                    unfinished writes of unknown digest; worthless once their process is gone
//!     ├── partial/2cf24dba5f…     the start of a blob that is being written, or whose write broke
//!     ├── quarantine/2cf24dba5f…  files that fsck found damaged; until the next garbage collection
//!     ├── memo/                   see `store::memo`
//!     ├── roots/                  see `store::roots`
//!     ├── closures/               see `store::closures`
//!     ├── streams/                see `store::streams`
//!     └── evidence.jsonl          see `store::evidence`
//! ```
//!
//! Promises:
//!
//! * A path under `blobs` is whole and right: the bytes are hashed on the way to `partial` or `tmp`, bound by the
//!   declared size, synced, and only then renamed. `sha256sum` of a blob prints its own name.
//! * A process that is killed loses what it had not yet handed to the kernel. Its `partial` is taken up by whoever
//!   writes that blob next, after its bytes have been hashed again; a finished blob is never written again.
//! * What names blobs (roots, streams, the index) is synced after them: each such write first syncs the directory of
//!   the blobs. After a power cut there may be blobs that nothing names, never the reverse.
//! * Any number of processes work in one store. Two that write one blob at once do not interleave: the first has
//!   the `partial` (a lock on the file itself, gone with its process), the second a file of its own in `tmp`.
//! * Blobs are read-only files, so that an editor asks before it breaks one.
//!
//! `skopeo`, `crane` and `oras` read it. An image is selected by what `index.json` calls it, colons and all, so the
//! path of the store must not have a colon itself:
//!
//! ```text
//! skopeo copy oci:/srv/store:quay.io/a/b:v1 dir:/tmp/b
//! skopeo inspect oci:/srv/store:quay.io/a/b@sha256:2cf2…
//! ```
//!
//! (Its grammar of names has no brackets, so it cannot select what came from a registry named by an IPv6 address.)
//!
//! ## Why not wait for the other writer
//! Another process that is stopped, or whose registry hangs, would hang this one too. Fetching the same blob twice at
//! the same moment is rare and costs only bytes.
//!
//! ## Why not spread blobs over subdirectories
//! The image layout specification names the path. Today's file systems look up one name among millions as fast.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::NamedTempFile;

use super::closures::Closures;
use super::evidence::Evidence;
use super::memo::Records;
use super::roots::Roots;
use super::streams::{Stream, Streams};
use super::{BUFFER, Blob, Damage, PrefixGone, Sink, Source, StoreError, Verified};
use crate::digest::{Digest, Hasher};

/// The version of the layout that is written; also the latest that is read.
const VERSION: u64 = 1;
/// The file that makes a directory an OCI image layout (image specification, `image-layout.md`).
const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// Mode of a finished blob.
const BLOB_MODE: u32 = 0o444;
/// Mode of every other file, before the umask.
const FILE_MODE: u32 = 0o666;

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read and write, beside others who do the same.
    Shared,
    /// To collect garbage, alone.
    Exclusive,
    /// To read. Nothing is created and no file is opened for writing, so a read-only file system will do, and so will
    /// an image layout that another tool wrote.
    ReadOnly,
}

/// A store on disk.
///
/// Others are kept from collecting its garbage for as long as this value lives.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    access: Access,
    lock: Option<Arc<Locked>>,
}

impl Store {
    /// Opens the store at `path`; unless [`Access::ReadOnly`], creates it in a directory that is empty or not there.
    ///
    /// # Errors
    /// If the store is in use in a way that excludes this one (it does not wait), is of a later version, or is something else;
    /// if the file system refuses.
    pub fn open(path: &Path, access: Access) -> Result<Self, StoreError> {
        if access == Access::ReadOnly {
            Self::recognise(path)?;
        } else {
            fs::create_dir_all(path).map_err(StoreError::io("create the store", path))?;
            Self::recognise(path)?;
            let inside = path.join("imgbuild");
            fs::create_dir_all(&inside).map_err(StoreError::io("create", &inside))?;
        }
        let store = Self {
            path: path.to_owned(),
            access,
            lock: Self::lock(path, access)?.map(Arc::new),
        };
        store.check_version()?;
        if access != Access::ReadOnly {
            store.create()?;
        }
        Ok(store)
    }

    /// Passes if `path` is an image layout, a store that was about to become one, or (to be created) empty.
    fn recognise(path: &Path) -> Result<(), StoreError> {
        let listing = match fs::read_dir(path) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Absent {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(StoreError::io("open the store", path)(error)),
        };
        let layout = path.join("oci-layout");
        match fs::read(&layout) {
            Ok(bytes) => {
                let value: serde_json::Value =
                    serde_json::from_slice(&bytes).unwrap_or(serde_json::Value::Null);
                if value["imageLayoutVersion"] == "1.0.0" {
                    return Ok(());
                }
                return Err(StoreError::Malformed {
                    path: layout,
                    problem: format!(
                        "expected {OCI_LAYOUT}, found {:?}",
                        String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
                    ),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("read", &layout)(error)),
        }
        let mut found = Vec::new();
        for entry in listing {
            let entry = entry.map_err(StoreError::io("read", path))?;
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
        // A new file system has `lost+found`. `imgbuild` alone is a store whose creation was cut short.
        found.retain(|name| name != "lost+found");
        found.sort();
        if found.iter().any(|name| name == "imgbuild") {
            return Ok(());
        }
        match found.into_iter().next() {
            None => Ok(()),
            Some(found) => Err(StoreError::NotAStore {
                path: path.to_owned(),
                found,
            }),
        }
    }

    fn lock(path: &Path, access: Access) -> Result<Option<Locked>, StoreError> {
        let flock = path.join("imgbuild/flock");
        let file = match File::open(&flock) {
            Ok(file) => file,
            // Nobody who honours the lock was ever here, or may be kept away by one who can only read.
            Err(_) if access == Access::ReadOnly => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&flock)
                .map_err(StoreError::io("create", &flock))?,
            Err(error) => return Err(StoreError::io("open", &flock)(error)),
        };
        let locked = match access {
            Access::Exclusive => file.try_lock(),
            Access::Shared | Access::ReadOnly => file.try_lock_shared(),
        };
        match locked {
            Ok(()) => Ok(Some(Locked(file))),
            Err(TryLockError::WouldBlock) => Err(StoreError::Busy {
                path: path.to_owned(),
                access,
            }),
            // A read-only export of a file system without locks is still readable.
            Err(TryLockError::Error(_)) if access == Access::ReadOnly => Ok(None),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &flock)(error)),
        }
    }

    fn check_version(&self) -> Result<(), StoreError> {
        let path = self.inside("version");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        match text.trim_end().parse() {
            Ok(VERSION) => Ok(()),
            Ok(found) if found > VERSION => Err(StoreError::Version {
                path: self.path.clone(),
                found,
                reads: VERSION,
            }),
            _ => Err(StoreError::Malformed {
                path,
                problem: format!("expected a version number, found {text:?}"),
            }),
        }
    }

    fn create(&self) -> Result<(), StoreError> {
        let blobs = self.path.join("blobs/sha256");
        for path in [blobs].into_iter().chain(
            ["tmp", "partial", "memo", "roots", "closures", "streams"]
                .map(|name| self.inside(name)),
        ) {
            fs::create_dir_all(&path).map_err(StoreError::io("create", &path))?;
        }
        // The version first: what has an `oci-layout` also says which store it is.
        for (path, content) in [
            (self.inside("version"), format!("{VERSION}\n")),
            (self.path.join("index.json"), super::index::print(&[])),
            (self.path.join("oci-layout"), OCI_LAYOUT.to_owned()),
        ] {
            if !path.exists() {
                self.replace(&path, content.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it was opened.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// Where the bytes named `digest` are, or would be.
    #[must_use]
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.blobs_path().join(digest.hex())
    }

    /// How many bytes named `digest` are here; `None` if they are not.
    ///
    /// # Errors
    /// If the file system cannot tell.
    pub fn size_of(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        size_at(&self.path_of(digest))
    }

    /// Every blob that is here, in no order. Files that are not named by a digest are passed over.
    ///
    /// # Errors
    /// If the directory cannot be read; later, per item.
    pub fn blobs(&self) -> Result<impl Iterator<Item = Result<Blob, StoreError>> + '_, StoreError> {
        let path = self.blobs_path();
        let listing = match fs::read_dir(&path) {
            Ok(listing) => Some(listing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        Ok(listing.into_iter().flatten().filter_map(move |entry| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(Err(StoreError::io("read", &path)(error))),
            };
            let digest = Digest::from_hex(entry.file_name().to_str()?).ok()?;
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => Some(Ok(Blob {
                    digest,
                    size: metadata.len(),
                })),
                Ok(_) => None,
                // Removed between the listing and now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => Some(Err(StoreError::io("look at", &entry.path())(error))),
            }
        }))
    }

    /// Stores `bytes` under their own name.
    ///
    /// # Errors
    /// If the store is read only or the file system refuses.
    pub fn insert(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        let blob = Blob::of(bytes);
        if self.size_of(&blob.digest)? == Some(blob.size) {
            return Ok(blob);
        }
        let mut draft = self.draft()?;
        draft.append(bytes)?;
        draft.commit()
    }

    /// Stores a copy of the file at `path` under the name of its bytes.
    ///
    /// # Errors
    /// If the file cannot be read, the store is read only or the file system refuses.
    pub fn insert_file(&self, path: &Path) -> Result<Blob, StoreError> {
        let mut file = File::open(path).map_err(StoreError::io("open", path))?;
        let mut draft = self.draft()?;
        let mut buffer = vec![0; BUFFER];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return draft.commit(),
                Ok(count) => draft.append(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::io("read", path)(error)),
            }
        }
    }

    /// Begins bytes whose name is known only when all have been written.
    ///
    /// # Errors
    /// If the store is read only or the file system refuses.
    pub fn draft(&self) -> Result<Draft, StoreError> {
        self.may_write("write a blob")?;
        Ok(Draft {
            blobs: self.blobs_path(),
            _lock: self.lock.clone(),
            file: self.temporary()?,
            state: Hasher::default(),
        })
    }

    /// The memo.
    #[must_use]
    pub const fn memo(&self) -> Records<'_> {
        Records::of(self)
    }

    /// The roots that garbage collection starts from.
    #[must_use]
    pub const fn roots(&self) -> Roots<'_> {
        Roots::of(self)
    }

    /// The flattened blob lists of locks.
    #[must_use]
    pub const fn closures(&self) -> Closures<'_> {
        Closures::of(self)
    }

    /// The log of what was asked and answered.
    #[must_use]
    pub const fn evidence(&self) -> Evidence<'_> {
        Evidence::of(self)
    }

    /// The streams that are known here.
    #[must_use]
    pub const fn streams(&self) -> Streams<'_> {
        Streams::of(self)
    }

    /// The stream called `name`, which may not have been begun.
    ///
    /// # Errors
    /// If `name` is not of the form `[a-z0-9-]+`.
    pub fn stream(&self, name: &str) -> Result<Stream<'_>, StoreError> {
        self.streams().get(name)
    }

    /// Bytes that can still be written where the store is; `None` if the file system does not say.
    #[must_use]
    pub fn free_space(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.path).ok()?;
        found.f_bavail.checked_mul(found.f_frsize)
    }

    pub(super) fn inside(&self, name: &str) -> PathBuf {
        self.path.join("imgbuild").join(name)
    }

    pub(super) fn blobs_path(&self) -> PathBuf {
        self.path.join("blobs/sha256")
    }

    pub(super) fn partial_of(&self, digest: &Digest) -> PathBuf {
        self.inside("partial").join(digest.hex())
    }

    pub(super) fn may_write(&self, action: &'static str) -> Result<(), StoreError> {
        if self.access == Access::ReadOnly {
            return Err(StoreError::ReadOnly {
                action,
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    fn temporary(&self) -> Result<NamedTempFile, StoreError> {
        let folder = self.inside("tmp");
        tempfile::Builder::new()
            .prefix("")
            .permissions(fs::Permissions::from_mode(FILE_MODE))
            .tempfile_in(&folder)
            .map_err(StoreError::io("create a file in", &folder))
    }

    /// An empty file of no name for work in progress, on the disk of the store; it is gone with its handle.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn scratch(&self) -> Result<fs::File, StoreError> {
        self.may_write("work")?;
        let folder = self.inside("tmp");
        tempfile::tempfile_in(&folder).map_err(StoreError::io("create a file in", &folder))
    }

    /// Puts a small file in place, after everything it may name; one that has these bytes already is left alone.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.put_file(path, bytes, true)
    }

    /// The same, for a file that checks itself and may get lost in a power cut.
    pub(super) fn replace_loosely(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.put_file(path, bytes, false)
    }

    fn put_file(&self, path: &Path, bytes: &[u8], durably: bool) -> Result<(), StoreError> {
        self.may_write("write")?;
        let folder = path
            .parent()
            .expect("every file of a store is in a directory of it");
        if fs::read(path).is_ok_and(|found| found == bytes) {
            if durably {
                // Whoever wrote it may have been killed before it did this.
                sync_folder(&self.blobs_path())?;
                sync_folder(folder)?;
            }
            return Ok(());
        }
        let mut file = self.temporary()?;
        file.write_all(bytes)
            .map_err(StoreError::io("write", file.path()))?;
        if durably {
            file.as_file()
                .sync_all()
                .map_err(StoreError::io("sync", file.path()))?;
            sync_folder(&self.blobs_path())?;
        }
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        file.persist(path)
            .map_err(|error| StoreError::io("put in place", path)(error.error))?;
        if durably {
            sync_folder(folder)?;
        }
        Ok(())
    }

    /// Removes a small file; `false` if it was not there.
    pub(super) fn remove(&self, path: &Path) -> Result<bool, StoreError> {
        self.may_write("remove a file")?;
        match fs::remove_file(path) {
            Ok(()) => {
                if let Some(folder) = path.parent() {
                    sync_folder(folder)?;
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("remove", path)(error)),
        }
    }

    /// Reads a small file; `None` if it is not there.
    pub(super) fn read_file(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", path)(error)),
        }
    }

    /// The names in a directory, sorted; none if it is not there.
    pub(super) fn names(path: &Path) -> Result<Vec<std::ffi::OsString>, StoreError> {
        let listing = match fs::read_dir(path) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
        let mut names = Vec::new();
        for entry in listing {
            names.push(entry.map_err(StoreError::io("read", path))?.file_name());
        }
        names.sort();
        Ok(names)
    }

    /// Takes the `partial` of a blob for this writer alone.
    fn take_partial(&self, digest: &Digest, create: bool) -> Result<Partial, StoreError> {
        let path = self.partial_of(digest);
        let mut made_writable = false;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(create)
                .truncate(false)
                .open(&path);
            let file = match file {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !create => {
                    return Ok(Partial::Absent);
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    // The mode of a blob: its writer was killed just before the rename. Or it belongs to another user.
                    let mode = fs::Permissions::from_mode(0o644);
                    if made_writable || fs::set_permissions(&path, mode).is_err() {
                        return Ok(Partial::Taken);
                    }
                    made_writable = true;
                    continue;
                }
                Err(error) => return Err(StoreError::io("open", &path)(error)),
            };
            let file = match file.try_lock() {
                Ok(()) => Locked(file),
                // Without locks nobody can have it alone.
                Err(_) => return Ok(Partial::Taken),
            };
            // Whoever had it before may have renamed or removed it; then the lock is on no `partial` any more.
            let inode = file
                .metadata()
                .map_err(StoreError::io("look at", &path))?
                .ino();
            if fs::metadata(&path).is_ok_and(|found| found.ino() == inode) {
                return Ok(Partial::Mine(file));
            }
        }
    }

    /// Goes on at the end of `file`, whose first bytes must be the ones that `bytes` was told are kept.
    fn seek_to_start(mut file: &File, path: &Path, bytes: &Verified<'_>) -> io::Result<()> {
        let failed = |action| StoreError::io(action, path);
        let start = bytes.start();
        let mut state = Hasher::default();
        let mut buffer = vec![0; BUFFER];
        file.seek(SeekFrom::Start(0)).map_err(failed("read"))?;
        while state.length() < start {
            let most = usize::try_from(start - state.length())
                .unwrap_or(BUFFER)
                .min(BUFFER);
            match file.read(&mut buffer[..most]) {
                Ok(0) => break,
                Ok(count) => state.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("read")(error).into()),
            }
        }
        if state.length() != start || (start > 0 && state.finish() != bytes.prefix()) {
            return Err(PrefixGone {
                blob: bytes.promise(),
                start,
            }
            .into());
        }
        file.set_len(start).map_err(failed("shorten"))?;
        file.seek(SeekFrom::Start(start)).map_err(failed("write"))?;
        Ok(())
    }
}

/// What became of an attempt to take the `partial` of a blob.
enum Partial {
    /// It is there, and nobody else writes it while this file is open.
    Mine(Locked),
    /// Somebody else is writing it.
    Taken,
    /// It is not there.
    Absent,
}

/// An open file with a lock on it, which goes when this value does.
///
/// Closing would not do: a process that is being started holds a copy of every open file for a moment, and the lock
/// with it.
#[derive(Debug)]
pub(super) struct Locked(pub(super) File);

impl Drop for Locked {
    fn drop(&mut self) {
        // If it cannot be let go here, it goes with the process.
        let _ = self.0.unlock();
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

/// Makes the bytes of a written file durable and the file read-only.
///
/// After an error it is unknown whether they are on the disk, and asking again may not tell: the file is useless.
fn finish(file: &File, path: &Path) -> Result<(), StoreError> {
    file.set_permissions(fs::Permissions::from_mode(BLOB_MODE))
        .map_err(StoreError::io("change the mode of", path))?;
    file.sync_all().map_err(StoreError::io("sync", path))
}

/// Puts a written file, known to be right, in place as the blob at `path`.
fn publish(temporary: NamedTempFile, path: &Path) -> Result<(), StoreError> {
    finish(temporary.as_file(), temporary.path())?;
    match temporary.persist(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(StoreError::io("put in place", path)(error.error)),
    }
}

/// The size of the file at `path`; `None` if there is none.
fn size_at(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("look for", path)(error)),
    }
}

/// Makes the names in a directory durable.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("sync", path)(error)),
    }
}

/// Moves all of `bytes` to `file`; the errors of the reader come out unchanged.
fn copy(bytes: &mut Verified<'_>, mut file: &File, path: &Path) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => file
                .write_all(&buffer[..count])
                .map_err(StoreError::io("write", path))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Source for Store {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        let path = self.path_of(&blob.digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &path)(error).into()),
        };
        if from > 0 {
            file.seek(SeekFrom::Start(from))
                .map_err(StoreError::io("read", &path))?;
        }
        Ok(Some(Box::new(Named {
            file: Box::new(file),
            path,
        })))
    }
}

/// A file whose errors name it.
struct Named<F> {
    file: F,
    path: PathBuf,
}

impl<F: Deref<Target = File>> Read for Named<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.file).read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            StoreError::io("read", &self.path)(error).into()
        })
    }
}

impl Sink for Store {
    fn holds(&self, blob: &Blob) -> io::Result<bool> {
        Ok(self.size_of(&blob.digest)? == Some(blob.size))
    }

    fn write(&self, blob: &Blob, bytes: &mut Verified<'_>) -> io::Result<()> {
        self.may_write("write a blob")?;
        bytes.is_for(blob)?;
        if self.holds(blob)? {
            return Ok(());
        }
        let start = bytes.start();
        let file = match self.take_partial(&blob.digest, start == 0)? {
            Partial::Mine(file) => file,
            Partial::Taken if start == 0 => {
                let temporary = self.temporary()?;
                let path = temporary.path().to_owned();
                copy(bytes, temporary.as_file(), &path)?;
                return Ok(publish(temporary, &self.path_of(&blob.digest))?);
            }
            Partial::Taken | Partial::Absent => {
                return Err(PrefixGone { blob: *blob, start }.into());
            }
        };
        let path = self.partial_of(&blob.digest);
        let remove = |error: io::Error| -> io::Error {
            let _ = fs::remove_file(&path);
            error
        };
        // Whoever had it before this writer may have finished it.
        if self.holds(blob)? {
            let _ = fs::remove_file(&path);
            return Ok(());
        }
        Self::seek_to_start(&file, &path, bytes)?;
        if let Err(error) = copy(bytes, &file, &path) {
            let is_false = matches!(
                Damage::in_error(&error),
                Some(Damage::Wrong { .. } | Damage::Long { .. })
            );
            if is_false || file.metadata().is_ok_and(|found| found.len() == 0) {
                return Err(remove(error));
            }
            // What came so far is worth a power cut too; if it cannot be synced it is checked when it is taken up.
            let _ = file.sync_data();
            return Err(error);
        }
        if let Err(error) = finish(&file, &path) {
            return Err(remove(error.into()));
        }
        let place = self.path_of(&blob.digest);
        fs::rename(&path, &place).map_err(StoreError::io("put in place", &place))?;
        Ok(())
    }

    fn kept(&self, blob: &Blob) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        if self.access == Access::ReadOnly {
            return Ok(None);
        }
        Ok(match self.take_partial(&blob.digest, false)? {
            Partial::Mine(file) => Some(Box::new(Named {
                file,
                path: self.partial_of(&blob.digest),
            })),
            Partial::Taken | Partial::Absent => None,
        })
    }

    fn forget(&self, blob: &Blob) -> io::Result<()> {
        self.may_write("forget the start of a blob")?;
        match self.take_partial(&blob.digest, false)? {
            Partial::Mine(_file) => {
                let path = self.partial_of(&blob.digest);
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            }
            // Somebody else is writing it anew, and will find out.
            Partial::Taken | Partial::Absent => {}
        }
        Ok(())
    }
}

/// Bytes on their way into a store, whose name is known only when all have been written.
///
/// Dropped without [`Draft::commit`], it leaves nothing. It may outlive its store and keeps garbage from being
/// collected meanwhile, so a server can hold it between requests.
#[derive(Debug)]
pub struct Draft {
    blobs: PathBuf,
    _lock: Option<Arc<Locked>>,
    file: NamedTempFile,
    state: Hasher,
}

impl Draft {
    /// Takes more bytes.
    ///
    /// # Errors
    /// If the file system refuses; the draft is useless then.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.state.update(bytes);
        self.file
            .as_file_mut()
            .write_all(bytes)
            .map_err(StoreError::io("write", self.file.path()))
    }

    /// What has been written so far.
    #[must_use]
    pub fn blob(&self) -> Blob {
        Blob {
            digest: self.state.clone().finish(),
            size: self.state.length(),
        }
    }

    /// Makes what was written a blob of the store.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn commit(self) -> Result<Blob, StoreError> {
        let blob = self.blob();
        let path = self.blobs.join(blob.digest.hex());
        if size_at(&path)? != Some(blob.size) {
            publish(self.file, &path)?;
        }
        Ok(blob)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
