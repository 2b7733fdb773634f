//! What only a store on disk does: count itself, check itself, and collect garbage.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::iter::{ParallelBridge as _, ParallelIterator as _};

use super::disk::{Access, Store};
use super::memo::Records;
use super::{BUFFER, Blob, StoreError};
use crate::digest::{Digest, Hasher};

/// What is in a store. Sizes are in bytes and count contents, not blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Finished blobs.
    pub blobs: u64,
    /// Their size.
    pub bytes: u64,
    /// Blobs of which a start is kept, and spans of blobs whose others are still to come.
    pub partials: u64,
    /// The size of what is kept of them.
    pub partial_bytes: u64,
    /// Unfinished writes of unknown digest.
    pub temporary: u64,
    /// Their size.
    pub temporary_bytes: u64,
    /// Damaged files that fsck put aside.
    pub quarantined: u64,
    /// Their size.
    pub quarantined_bytes: u64,
    /// Records of the memo.
    pub records: u64,
    /// Closures.
    pub closures: u64,
    /// Roots.
    pub roots: u64,
    /// Streams.
    pub streams: u64,
    /// Images that `index.json` names.
    pub images: u64,
}

/// What garbage collection removed, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Finished blobs.
    pub count: u64,
    /// Their size, in bytes.
    pub bytes: u64,
    /// Unfinished, temporary and quarantined files.
    pub unfinished: u64,
    /// Their size, in bytes.
    pub unfinished_bytes: u64,
    /// Records of the memo whose outputs are not kept.
    pub records: u64,
    /// Closures whose lock is not kept.
    pub closures: u64,
    /// Images that `index.json` names no more, since their manifest is not kept.
    pub images: u64,
}

/// What checking a store found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Blobs that were read.
    pub checked: u64,
    /// Their size, in bytes.
    pub bytes: u64,
    /// Blobs that are lost, by digest.
    pub damaged: Vec<Lost>,
    /// Files among the blobs that no blob has the name of, sorted; they are left alone.
    pub foreign: Vec<PathBuf>,
}

/// A blob that is lost.
#[derive(Debug)]
pub struct Lost {
    /// Its digest, and the size of what was found under that name.
    pub blob: Blob,
    /// What is wrong with it.
    pub loss: Loss,
    /// Where the damaged file is now; `None` if it was left in place.
    pub quarantine: Option<PathBuf>,
}

/// What is wrong with a file that should be a blob.
#[derive(Debug, thiserror::Error)]
pub enum Loss {
    /// Its bytes have another digest.
    #[error("its bytes are those of {found}")]
    Wrong {
        /// The digest they have.
        found: Digest,
    },
    /// It cannot be read.
    #[error("it cannot be read")]
    Unreadable {
        /// Why.
        source: io::Error,
    },
}

impl Store {
    /// Counts what is here.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn stat(&self) -> Result<Stat, StoreError> {
        let mut stat = Stat {
            records: self.memo().list()?.len() as u64,
            closures: self.closures().list()?.len() as u64,
            roots: self.roots().list()?.len() as u64,
            streams: self.streams().list()?.len() as u64,
            images: self.index()?.len() as u64,
            ..Stat::default()
        };
        for blob in self.blobs()? {
            stat.blobs += 1;
            stat.bytes += blob?.size;
        }
        for (folder, count, bytes) in [
            ("partial", &mut stat.partials, &mut stat.partial_bytes),
            ("tmp", &mut stat.temporary, &mut stat.temporary_bytes),
            (
                "quarantine",
                &mut stat.quarantined,
                &mut stat.quarantined_bytes,
            ),
        ] {
            for (_, size) in files(&self.inside(folder))? {
                *count += 1;
                *bytes += size;
            }
        }
        for (folder, _) in self.span_folders()? {
            for (_, size) in files(&folder)? {
                stat.partials += 1;
                stat.partial_bytes += size;
            }
        }
        Ok(stat)
    }

    /// Removes every blob that is not to be kept, and what follows from that: records of the memo, closures, entries
    /// of `index.json`; besides unfinished writes (but not the start of a blob that is to be kept) and quarantined
    /// files. Spans are kept by the digest that their folder is named by. With `dry_run` only says what it would remove.
    ///
    /// What names a blob goes before the blob, so that a collection cut short leaves nothing that points nowhere.
    ///
    /// # Errors
    /// If the store was not opened with [`Access::Exclusive`] and this is no dry run; if the file system refuses.
    pub fn collect(
        &self,
        keep: &dyn Fn(&Digest) -> bool,
        dry_run: bool,
    ) -> Result<Collected, StoreError> {
        if !dry_run && self.access() != Access::Exclusive {
            return Err(StoreError::NotExclusive {
                action: "collect garbage",
                path: self.path().to_owned(),
            });
        }
        let mut collected = Collected::default();
        let remove = |path: &Path| -> Result<(), StoreError> {
            if dry_run {
                return Ok(());
            }
            match fs::remove_file(path) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(StoreError::io("remove", path)(error)),
            }
        };

        let mut images = self.index()?;
        let before = images.len();
        images.retain(|image| keep(&image.digest));
        collected.images = (before - images.len()) as u64;
        if !dry_run && collected.images > 0 {
            self.write_index(&images)?;
        }
        for path in self.memo().list()? {
            let stays = match Records::outputs_at(&path) {
                None => false,
                Some(outputs) => {
                    let mut stays = true;
                    for output in outputs {
                        stays = stays
                            && keep(&output.blob.digest)
                            && self.size_of(&output.blob.digest)? == Some(output.blob.size);
                    }
                    stays
                }
            };
            if !stays {
                remove(&path)?;
                collected.records += 1;
            }
        }
        for (path, lock) in self.closures().list()? {
            if !lock.is_some_and(|lock| keep(&lock)) {
                remove(&path)?;
                collected.closures += 1;
            }
        }
        // Listed before the first is removed: what a listing shows of a directory that changes is undefined.
        let mut garbage = Vec::new();
        for blob in self.blobs()? {
            let blob = blob?;
            if !keep(&blob.digest) {
                garbage.push(blob);
            }
        }
        for blob in garbage {
            remove(&self.path_of(&blob.digest))?;
            collected.count += 1;
            collected.bytes += blob.size;
        }
        for folder in ["tmp", "quarantine", "partial"] {
            for (path, size) in files(&self.inside(folder))? {
                let digest = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .and_then(|name| Digest::from_hex(name).ok());
                if folder == "partial"
                    && let Some(digest) = digest
                    && keep(&digest)
                    && self.size_of(&digest)?.is_none()
                {
                    continue;
                }
                remove(&path)?;
                collected.unfinished += 1;
                collected.unfinished_bytes += size;
            }
        }
        for (folder, digest) in self.span_folders()? {
            if digest.is_some_and(|digest| keep(&digest)) {
                continue;
            }
            for (path, size) in files(&folder)? {
                remove(&path)?;
                collected.unfinished += 1;
                collected.unfinished_bytes += size;
            }
            if !dry_run {
                // Something else in it is nobody's business here.
                let _ = fs::remove_dir(&folder);
            }
        }
        Ok(collected)
    }

    /// The folders of spans, with the digests that they are named by.
    fn span_folders(&self) -> Result<Vec<(PathBuf, Option<Digest>)>, StoreError> {
        let spans = self.inside("spans");
        let folders = Self::names(&spans)?.into_iter().map(|name| {
            let digest = name.to_str().and_then(|name| Digest::from_hex(name).ok());
            (spans.join(name), digest)
        });
        Ok(folders.filter(|(path, _)| path.is_dir()).collect())
    }

    /// Reads every blob again with `jobs` threads, and puts aside those whose bytes are not what their name says or
    /// that the disk fails to give back, so that they are fetched again. `passed` is told of each blob that was read.
    ///
    /// A store that is read only is only reported on. A file that cannot be read for another reason (permissions, too
    /// many open files) is reported and stays.
    ///
    /// # Errors
    /// If the blobs cannot be listed, or no threads can be had. A blob that cannot be read is a finding.
    pub fn check(
        &self,
        jobs: usize,
        passed: &(dyn Fn(&Blob) + Sync),
    ) -> Result<Checked, StoreError> {
        let folder = self.blobs_path();
        let mut checked = Checked::default();
        for name in Self::names(&folder)? {
            let is_blob = name
                .to_str()
                .is_some_and(|name| Digest::from_hex(name).is_ok())
                && fs::symlink_metadata(folder.join(&name)).is_ok_and(|found| !found.is_dir());
            if !is_blob {
                checked.foreign.push(folder.join(name));
            }
        }
        let mut blobs = self.blobs()?.collect::<Result<Vec<_>, _>>()?;
        // The largest first, so that none of them is the last to begin; the bridge hands them out in this order.
        blobs.sort_unstable_by_key(|blob| (std::cmp::Reverse(blob.size), blob.digest));
        let damaged = Mutex::new(Vec::new());
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(jobs.max(1))
            .build()
            .map_err(|error| StoreError::io("check", self.path())(io::Error::other(error)))?;
        pool.install(|| {
            blobs.iter().par_bridge().for_each(|blob| {
                if let Some(lost) = self.check_blob(blob) {
                    damaged
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push(lost);
                }
                passed(blob);
            });
        });
        checked.checked = blobs.len() as u64;
        checked.bytes = blobs.iter().map(|blob| blob.size).sum();
        checked.damaged = damaged
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        checked.damaged.sort_by_key(|lost| lost.blob);
        Ok(checked)
    }

    /// Reads one blob again; `None` if it is what its name says, or gone.
    fn check_blob(&self, blob: &Blob) -> Option<Lost> {
        let path = self.path_of(&blob.digest);
        let mut inode = None;
        let mut read = || -> io::Result<Digest> {
            let mut file = File::open(&path)?;
            inode = Some(file.metadata()?.ino());
            let mut state = Hasher::default();
            let mut buffer = vec![0; BUFFER];
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => return Ok(state.finish()),
                    Ok(count) => state.update(&buffer[..count]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        };
        let loss = match read() {
            Ok(found) if found == blob.digest => return None,
            Ok(found) => Loss::Wrong { found },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(source) => Loss::Unreadable { source },
        };
        let is_damaged = match &loss {
            Loss::Wrong { .. } => true,
            Loss::Unreadable { source } => {
                source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
            }
        };
        let mut quarantine = None;
        // Another process may have put the right bytes in place meanwhile.
        let is_same = fs::metadata(&path).is_ok_and(|found| Some(found.ino()) == inode);
        if self.access() != Access::ReadOnly && is_damaged && (is_same || inode.is_none()) {
            let folder = self.inside("quarantine");
            let aside = folder.join(blob.digest.hex());
            if fs::create_dir_all(&folder).is_ok() && fs::rename(&path, &aside).is_ok() {
                quarantine = Some(aside);
            }
        }
        Some(Lost {
            blob: *blob,
            loss,
            quarantine,
        })
    }
}

/// The files of a directory with their sizes, sorted; none if it is not there.
fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>, StoreError> {
    let mut found = Vec::new();
    for name in Store::names(folder)? {
        let path = folder.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_dir() => found.push((path, metadata.len())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("look at", &path)(error)),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::{Key, Value};
    use crate::oci::{Descriptor, OCI_MANIFEST};
    use crate::store::memo::{Memo as _, Output};
    use crate::store::roots::{Kind, Root};
    use crate::store::{Sink as _, Source, transfer};
    use std::collections::BTreeMap;

    fn image(blob: Blob) -> Descriptor {
        Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest: blob.digest,
            size: blob.size,
            platform: None,
            artifact_type: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// Yields the first three bytes of a blob, then nothing.
    struct Broken;

    impl Source for Broken {
        fn open(&self, _: &Blob, from: u64) -> io::Result<Option<Box<dyn io::Read + Send + '_>>> {
            Ok(Some(Box::new(
                &b"abc"[usize::try_from(from).unwrap().min(3)..],
            )))
        }
    }

    #[test]
    fn collecting_keeps_what_is_to_be_kept_and_nothing_that_points_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        let (kept, gone) = (
            store.insert(b"kept").unwrap(),
            store.insert(b"to go").unwrap(),
        );
        let key = |text: &str| Key::of("imgbuild test", &Value::from(text));
        let output = |blob| Output {
            media_type: "text/plain".to_owned(),
            blob,
        };
        store.memo().put(&key("kept"), &[output(kept)]).unwrap();
        store
            .memo()
            .put(&key("gone"), &[output(kept), output(gone)])
            .unwrap();
        store
            .memo()
            .put(&key("never"), &[output(Blob::of(b"never came"))])
            .unwrap();
        store.closures().put(&kept.digest, &[kept]).unwrap();
        store.closures().put(&gone.digest, &[gone]).unwrap();
        store.write_index(&[image(kept), image(gone)]).unwrap();
        store
            .roots()
            .set(
                "kept",
                &Root {
                    kind: Kind::Working,
                    lock: kept,
                },
            )
            .unwrap();
        let (wanted, unwanted) = (Blob::of(b"abcd"), Blob::of(b"abce"));
        for blob in [wanted, unwanted] {
            transfer(&Broken, &store, &blob, &|_| ()).unwrap_err();
        }
        fs::write(folder.path().join("imgbuild/tmp/killed"), b"12345").unwrap();
        fs::write(store.partial_of(&kept.digest), b"k").unwrap();
        fs::write(folder.path().join("blobs/sha256/notes.txt"), b"mine").unwrap();
        let keep = |digest: &Digest| {
            [kept.digest, wanted.digest, Blob::of(b"never came").digest].contains(digest)
        };
        let expected = Collected {
            count: 1,
            bytes: 5,
            unfinished: 3,
            unfinished_bytes: 3 + 5 + 1,
            records: 2,
            closures: 1,
            images: 1,
        };

        assert!(
            matches!(
                store.collect(&keep, false),
                Err(StoreError::NotExclusive { .. })
            ),
            "others may be at work"
        );
        let before = store.stat().unwrap();
        assert_eq!(
            before,
            Stat {
                blobs: 2,
                bytes: 9,
                partials: 3,
                partial_bytes: 7,
                temporary: 1,
                temporary_bytes: 5,
                records: 3,
                closures: 2,
                roots: 1,
                images: 2,
                ..Stat::default()
            },
            "everything is counted"
        );
        assert_eq!(
            store.collect(&keep, true).unwrap(),
            expected,
            "a dry run says what would go"
        );
        assert_eq!(store.stat().unwrap(), before, "a dry run removes nothing");
        drop(store);

        let store = Store::open(folder.path(), Access::Exclusive).unwrap();
        assert_eq!(
            store.collect(&keep, false).unwrap(),
            expected,
            "the real run removes just that"
        );
        assert!(
            store.holds(&kept).unwrap() && !store.holds(&gone).unwrap(),
            "only garbage is removed"
        );
        assert!(
            store.memo().get(&key("kept")).unwrap().is_some(),
            "its record stays"
        );
        assert_eq!(
            store.memo().get(&key("gone")).unwrap(),
            None,
            "a record of a removed output goes"
        );
        assert_eq!(
            store.index().unwrap(),
            [image(kept)],
            "the index names only what is here"
        );
        assert!(
            store.kept(&wanted).unwrap().is_some(),
            "the start of a wanted blob stays"
        );
        assert!(
            store.kept(&unwanted).unwrap().is_none(),
            "the start of an unwanted blob goes"
        );
        assert!(
            folder.path().join("blobs/sha256/notes.txt").exists(),
            "a foreign file is not ours to remove"
        );
        assert_eq!(
            store.collect(&keep, false).unwrap(),
            Collected::default(),
            "there is nothing left to collect"
        );
    }

    #[test]
    fn checking_finds_every_flipped_bit_and_puts_the_file_aside() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        let blobs: Vec<Blob> = (0..20_u8)
            .map(|number| store.insert(&vec![number; 1000]).unwrap())
            .collect();
        let damage = |blob: &Blob, at: usize| {
            let path = store.path_of(&blob.digest);
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= 1;
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        };
        damage(&blobs[3], 0);
        damage(&blobs[7], 999);
        let foreign = folder.path().join("blobs/sha256/notes.txt");
        fs::write(&foreign, b"mine").unwrap();
        let mut lost = vec![blobs[3], blobs[7]];
        lost.sort();

        let reader = Store::open(folder.path(), Access::ReadOnly).unwrap();
        for (store, puts_aside) in [(&reader, false), (&store, true)] {
            let passed = Mutex::new(0);
            let found = store
                .check(2, &|blob| *passed.lock().unwrap() += blob.size)
                .unwrap();
            assert_eq!(
                (found.checked, found.bytes, *passed.lock().unwrap()),
                (20, 20_000, 20_000),
                "all are read"
            );
            assert_eq!(
                found.foreign,
                std::slice::from_ref(&foreign),
                "foreign files are mentioned"
            );
            let names: Vec<Blob> = found.damaged.iter().map(|lost| lost.blob).collect();
            assert_eq!(names, lost, "the damaged ones are named, sorted");
            for one in &found.damaged {
                assert!(
                    matches!(one.loss, Loss::Wrong { found } if found != one.blob.digest),
                    "and what they are"
                );
                assert_eq!(
                    one.quarantine.is_some(),
                    puts_aside,
                    "only who may write puts aside"
                );
                assert_eq!(
                    store.holds(&one.blob).unwrap(),
                    !puts_aside,
                    "what was put aside is fetched again"
                );
            }
        }
        assert!(
            store.check(1, &|_| ()).unwrap().damaged.is_empty(),
            "the rest is whole"
        );
        assert_eq!(store.stat().unwrap().quarantined, 2, "they are counted");
    }
}
