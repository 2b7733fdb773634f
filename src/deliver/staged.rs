//! What is kept of an archive that comes one disk at a time, until the last of its disks is here.
//!
//! ```text
//! streams/<stream>/staged <archive id> <site>   the archive's manifest: what follows is kept for it
//! streams/<stream>/seen <archive id> <site>     the numbers of the parts that were here
//! blobs/sha256/…                                what part 1 says, and the blobs themselves where they go to a store
//! spans/<archive id>/<blob>-<offset>            spans of blobs of which others are still to come
//! ```
//!
//! Garbage collection takes none of it ([`kept`]). It goes when a site adopts that archive or a later one of its
//! stream, and no other site waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::path::PathBuf;

use crate::archive::list;
use crate::archive::read::{KeptSpan, Metadata};
use crate::archive::{Archive, LIST_LIMIT, Manifest};
use crate::digest::Digest;
use crate::store::disk::Store;
use crate::store::streams::Stream;
use crate::store::{Blob, StoreError, TransferError};

const STAGED: &str = "staged ";

fn staged_name(archive_id: Digest, site: &str) -> String {
    format!("{STAGED}{} {site}", archive_id.hex())
}

fn seen_name(archive_id: Digest, site: &str) -> String {
    format!("seen {} {site}", archive_id.hex())
}

/// Notes that an archive is being staged for a site.
///
/// # Errors
/// If the store cannot be written.
pub fn begin(records: &Stream<'_>, archive: &Archive, site: &str) -> Result<(), StoreError> {
    let name = staged_name(archive.archive_id(), site);
    if records.read(&name)?.is_none() {
        records.write(&name, &archive.manifest().print())?;
    }
    Ok(())
}

/// Reads what a store keeps by digest, whatever its size says.
fn kept_bytes(store: &Store, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
    let Some(size) = store.size_of(digest)? else {
        return Ok(None);
    };
    let blob = Blob {
        digest: *digest,
        size,
    };
    match crate::store::read(store, &blob, LIST_LIMIT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(TransferError::Damaged { .. } | TransferError::Absent { .. }) => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// What part 1 of an archive says, if it was here earlier.
///
/// # Errors
/// If the store cannot be read.
pub fn metadata(store: &Store, archive: &Archive) -> io::Result<Option<Metadata>> {
    archive.metadata_from(&|digest| kept_bytes(store, digest))
}

/// Keeps what part 1 says, for the parts that come after it. Lock and rules are kept by whoever reads them.
///
/// # Errors
/// If the store cannot be written.
pub fn keep_metadata(store: &Store, metadata: &Metadata) -> Result<(), StoreError> {
    store.insert(&list::print(&metadata.closure))?;
    store.insert(&list::print(&metadata.provides))?;
    store.insert(&metadata.index)?;
    store.insert(crate::archive::layout::OCI_LAYOUT)?;
    for (_, bytes) in &metadata.resources {
        store.insert(bytes)?;
    }
    Ok(())
}

fn spans_folder(store: &Store, archive_id: Digest) -> PathBuf {
    store.path().join("imgbuild/spans").join(archive_id.hex())
}

/// The spans of an archive that were kept.
///
/// # Errors
/// If the store cannot be read.
pub fn spans(store: &Store, archive_id: Digest) -> io::Result<Vec<KeptSpan>> {
    let folder = spans_folder(store, archive_id);
    let listing = match fs::read_dir(&folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut spans = Vec::new();
    for entry in listing {
        let entry = entry?;
        let name = entry.file_name();
        let named = name.to_str().and_then(|name| {
            let (hex, offset) = name.split_once('-')?;
            Some((Digest::from_hex(hex).ok()?, offset.parse().ok()?))
        });
        if let Some((digest, offset)) = named {
            spans.push(KeptSpan {
                archive_id,
                digest,
                offset,
                length: entry.metadata()?.len(),
                path: entry.path(),
            });
        }
    }
    spans.sort_by_key(|span| (span.digest, span.offset));
    Ok(spans)
}

/// Keeps spans of blobs that have others in parts still to come.
///
/// # Errors
/// If a part cannot be read, or the store cannot be written.
pub fn keep_spans(store: &Store, archive: &Archive) -> io::Result<()> {
    let folder = spans_folder(store, archive.archive_id());
    for span in archive.loose_spans() {
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}-{}", span.digest.hex(), span.offset));
        let mut part = fs::File::open(span.part)?;
        part.seek(io::SeekFrom::Start(span.start))?;
        let mut kept = tempfile::NamedTempFile::new_in(&folder)?;
        let count = io::copy(&mut part.take(span.length), &mut kept)?;
        if count != span.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        kept.as_file().sync_all()?;
        kept.persist(&path)?;
    }
    Ok(())
}

/// Remembers that the parts at hand were here; the numbers of those that never were.
///
/// # Errors
/// If the store cannot be read or written.
pub fn note_parts(
    records: &Stream<'_>,
    archive: &Archive,
    site: &str,
) -> Result<Vec<u32>, StoreError> {
    let name = seen_name(archive.archive_id(), site);
    let known = records.read(&name)?.unwrap_or_default();
    let mut seen: BTreeSet<u32> = String::from_utf8_lossy(&known)
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    seen.extend(archive.parts().map(|part| part.header().part));
    let text: Vec<String> = seen.iter().map(ToString::to_string).collect();
    records.write(&name, text.join(" ").as_bytes())?;
    let missing = archive.missing();
    let never: Vec<u32> = missing
        .iter()
        .copied()
        .filter(|part| !seen.contains(part))
        .collect();
    // All were here, and still something is gone: any of them may be it.
    Ok(if never.is_empty() { missing } else { never })
}

/// The archives that are being staged: the sites that wait for each, and its manifest.
fn staged(records: &Stream<'_>) -> Result<BTreeMap<Digest, (Vec<String>, Manifest)>, StoreError> {
    let mut found: BTreeMap<Digest, (Vec<String>, Manifest)> = BTreeMap::new();
    for name in records.list()? {
        let named = name.strip_prefix(STAGED).and_then(|rest| {
            let (hex, site) = rest.split_once(' ')?;
            Some((Digest::from_hex(hex).ok()?, site.to_owned()))
        });
        let Some((archive_id, site)) = named else {
            continue;
        };
        let manifest = records
            .read(&name)?
            .and_then(|bytes| Manifest::parse(&bytes).ok())
            .filter(|manifest| manifest.archive_id() == archive_id);
        // A record that is no manifest keeps nothing; the disks are then asked for again.
        if let Some(manifest) = manifest {
            found
                .entry(archive_id)
                .or_insert_with(|| (Vec::new(), manifest))
                .0
                .push(site);
        }
    }
    Ok(found)
}

/// Forgets what was kept for a site that has adopted `sequence`: of that archive, and of those before it.
///
/// # Errors
/// If the store cannot be read or written.
pub fn forget(
    store: &Store,
    records: &Stream<'_>,
    sequence: u64,
    site: &str,
) -> Result<(), StoreError> {
    for (archive_id, (sites, manifest)) in staged(records)? {
        if manifest.sequence > sequence || !sites.iter().any(|other| other == site) {
            continue;
        }
        if sites.len() == 1 {
            let folder = spans_folder(store, archive_id);
            match fs::remove_dir_all(&folder) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::Io {
                        action: "remove",
                        path: folder,
                        source,
                    });
                }
                _ => {}
            }
        }
        records.remove(&seen_name(archive_id, site))?;
        records.remove(&staged_name(archive_id, site))?;
    }
    Ok(())
}

/// What archives that are being staged need kept, each digest with their names. Their ids are among them: what they keep
/// that is no blob has those names.
///
/// # Errors
/// If the store cannot be read.
pub fn kept(store: &Store) -> Result<BTreeMap<Digest, BTreeSet<String>>, StoreError> {
    let mut kept: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    for stream in store.streams().list()? {
        for (archive_id, (_, manifest)) in staged(&store.stream(&stream)?)? {
            let name = format!("{stream} seq {}, which is being staged", manifest.sequence);
            let mut digests = vec![
                archive_id,
                manifest.lock.digest,
                manifest.closure.list,
                manifest.provides.list,
            ];
            digests.extend(manifest.files.iter().map(|file| file.blob.digest));
            let closure = kept_bytes(store, &manifest.closure.list)
                .ok()
                .flatten()
                .and_then(|bytes| list::parse(&bytes).ok());
            digests.extend(closure.into_iter().flatten().map(|blob| blob.digest));
            for digest in digests {
                kept.entry(digest).or_default().insert(name.clone());
            }
        }
    }
    Ok(kept)
}
