//! Writing a lock's content for other programs: as an OCI layout, or as the folder of a stock registry.
//!
//! The folder of a registry is the storage of CNCF Distribution (`registry:2`, `docker-registry`): below
//! `docker/registry/v2`, blobs once for all repositories, and links that say which repository has what:
//!
//! ```text
//! blobs/sha256/<2>/<hex>/data
//! repositories/<path>/_layers/sha256/<hex>/link
//! repositories/<path>/_manifests/revisions/sha256/<hex>/link
//! repositories/<path>/_manifests/tags/<tag>/current/link
//! repositories/<path>/_manifests/tags/<tag>/index/sha256/<hex>/link
//! ```
//!
//! Blobs share their bytes with the store where the file system can (a reflink, else a hard link), and are copied
//! where it cannot; a copy is held to its digest. Blobs come first, then links, tags last, so a registry that serves
//! the folder meanwhile never names what is not there. What was in the folder before stays.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::push::Item;
use crate::archive::layout::OCI_LAYOUT;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::{Descriptor, Manifest, REF_NAME};
use crate::store::disk::Store;
use crate::store::{Blob, Source as _, Verified, index};

/// Why a folder could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The store lacks a blob.
    #[error("blob {digest} is not in the store")]
    Absent {
        /// Which.
        digest: Digest,
    },
    /// The folder is something else.
    #[error("{} holds something else: {problem}", path.display())]
    Other {
        /// The folder.
        path: PathBuf,
        /// What is there.
        problem: String,
    },
    /// The file system failed.
    #[error("{} could not be written", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was told to stop.
    #[error("stopped; what is written is kept")]
    Stopped,
}

impl Hint for FolderError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Absent { .. } => Some("run `imgbuild build` first".to_owned()),
            Self::Other { .. } => {
                Some("name an empty folder, or one that was written this way".to_owned())
            }
            Self::Stopped => Some("run the same command again to go on".to_owned()),
            Self::Io { .. } => None,
        }
    }
}

/// How the blobs came into a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Blobs that were there.
    pub present: u64,
    /// Blobs that share their bytes with the store, each file its own.
    pub reflinked: u64,
    /// Blobs that are the store's own files.
    pub linked: u64,
    /// Blobs that were copied.
    pub copied: u64,
    /// Bytes that were copied.
    pub bytes: u64,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}

/// Puts a blob of `store` at `path`.
fn place(store: &Store, blob: &Blob, path: &Path, placed: &mut Placed) -> Result<(), FolderError> {
    if fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == blob.size) {
        placed.present += 1;
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    let origin = store.path_of(&blob.digest);
    let absent = || FolderError::Absent {
        digest: blob.digest,
    };
    let source = File::open(&origin).map_err(|_| absent())?;
    let temporary = tempfile::Builder::new()
        .prefix(".imgbuild-")
        .tempfile_in(folder)
        .map_err(io_error(path))?;
    let finish = |temporary: tempfile::NamedTempFile| -> Result<(), FolderError> {
        let file = temporary.as_file();
        file.set_permissions(fs::Permissions::from_mode(0o444))
            .and_then(|()| file.sync_all())
            .map_err(io_error(path))?;
        temporary
            .persist(path)
            .map_err(|error| io_error(path)(error.error))?;
        Ok(())
    };
    if rustix::fs::ioctl_ficlone(temporary.as_file(), &source).is_ok() {
        placed.reflinked += 1;
        return finish(temporary);
    }
    // A link has no half-written state; one that is in the way is of another size, and wrong.
    let beside = folder.join(format!(".imgbuild-{}", blob.digest.hex()));
    let _ = fs::remove_file(&beside);
    if fs::hard_link(&origin, &beside).is_ok() {
        fs::rename(&beside, path).map_err(io_error(path))?;
        placed.linked += 1;
        return Ok(());
    }
    let bytes = store
        .open(blob, 0)
        .map_err(io_error(&origin))?
        .ok_or_else(absent)?;
    let mut verified = Verified::new(bytes, *blob);
    copy(&mut verified, temporary.as_file()).map_err(io_error(path))?;
    placed.copied += 1;
    placed.bytes += blob.size;
    finish(temporary)
}

fn copy(bytes: &mut dyn Read, mut file: &File) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => io::Write::write_all(&mut file, &buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes a small file, whole or not at all; one that says the same is left alone.
fn write(path: &Path, content: &[u8]) -> Result<(), FolderError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    super::emit::replace(path, content)
        .map(|_| ())
        .map_err(io_error(path))
}

fn heed(stop: &AtomicBool) -> Result<(), FolderError> {
    if stop.load(Ordering::Relaxed) {
        return Err(FolderError::Stopped);
    }
    Ok(())
}

/// Writes `closure` and the index of `images` as an OCI layout. Images of other names that are there stay.
///
/// # Errors
/// If the store lacks a blob, the folder is something else, or the file system fails.
pub fn write_layout(
    folder: &Path,
    store: &Store,
    closure: &[Blob],
    images: &[Descriptor],
    stop: &AtomicBool,
) -> Result<Placed, FolderError> {
    let other = |problem: String| FolderError::Other {
        path: folder.to_owned(),
        problem,
    };
    let index_path = folder.join("index.json");
    let mut listed = match fs::read(&index_path) {
        Ok(bytes) => index::parse(&bytes).map_err(other)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(io_error(&index_path)(error)),
    };
    let is_layout = folder.join("oci-layout").exists();
    if !is_layout && fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some()) {
        return Err(other("it is not empty and no OCI layout".to_owned()));
    }
    write(&folder.join("oci-layout"), OCI_LAYOUT)?;
    let mut placed = Placed::default();
    for blob in closure {
        heed(stop)?;
        let path = folder.join("blobs/sha256").join(blob.digest.hex());
        place(store, blob, &path, &mut placed)?;
    }
    let name = |image: &Descriptor| image.annotations.get(REF_NAME).cloned();
    listed.retain(|old| images.iter().all(|new| name(new) != name(old)));
    listed.extend(images.iter().cloned());
    write(&index_path, index::print(&listed).as_bytes())?;
    Ok(placed)
}

/// Writes images as the folder of a stock registry, below `folder`.
///
/// # Errors
/// If the store lacks a blob, or the file system fails.
pub fn write_registry(
    folder: &Path,
    store: &Store,
    items: &[Item],
    stop: &AtomicBool,
) -> Result<Placed, FolderError> {
    let root = folder.join("docker/registry/v2");
    let mut placed = Placed::default();
    let mut blobs = std::collections::BTreeSet::new();
    for item in items {
        for (blob, manifest) in &item.manifests {
            blobs.insert(*blob);
            if let Manifest::Image(image) = manifest {
                blobs.extend(image.blobs().map(Blob::from));
            }
        }
    }
    for blob in &blobs {
        heed(stop)?;
        let hex = blob.digest.hex();
        let path = root
            .join("blobs/sha256")
            .join(&hex[..2])
            .join(&hex)
            .join("data");
        place(store, blob, &path, &mut placed)?;
    }
    let link = |item: &Item, place: &str, digest: &Digest| {
        let path = root.join("repositories").join(&item.path).join(place);
        write(&path.join("link"), digest.to_string().as_bytes())
    };
    for item in items {
        heed(stop)?;
        for (blob, manifest) in &item.manifests {
            if let Manifest::Image(image) = manifest {
                for blob in image.blobs() {
                    let place = format!("_layers/sha256/{}", blob.digest.hex());
                    link(item, &place, &blob.digest)?;
                }
            }
            let place = format!("_manifests/revisions/sha256/{}", blob.digest.hex());
            link(item, &place, &blob.digest)?;
        }
    }
    for item in items {
        let Some((blob, _)) = item.manifests.last() else {
            continue;
        };
        let tag = format!("_manifests/tags/{}", item.tag);
        let place = format!("{tag}/index/sha256/{}", blob.digest.hex());
        link(item, &place, &blob.digest)?;
        link(item, &format!("{tag}/current"), &blob.digest)?;
    }
    Ok(placed)
}
