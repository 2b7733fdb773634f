//! Taking over from other tools: what they mirrored becomes blobs of the store and a lock to go on from.
//!
//! Read are, as files or as the folders they were made from:
//!
//! | from | looks like |
//! |---|---|
//! | oc-mirror v2 archives | `mirror_000001.tar` with `docker/registry/v2/…` |
//! | oc-mirror v2 caches, folders of a registry, a tar (or tar.gz) of one | `…/docker/registry/v2/{blobs,repositories}/…` |
//! | oc-mirror v1 archives | `mirror_seq1_000000.tar` with `v2/<repository>/manifests/…` and `blobs/<digest>` |
//! | `oc image mirror --dir`, `oc adm release mirror --to-dir` | `…/v2/<repository>/{blobs,manifests}/…` |
//!
//! Nothing is extracted by name: names say what a file is, and its bytes go into the store under the digest they
//! have; one whose digest is not the one its name promises is damage. Every tag becomes an `[[image]]` of a lock, and so
//! does every manifest that no tag and no other manifest names. What a registry would not serve is left out: a manifest
//! counts for a repository only if the repository has it itself. Those archives are thin, as ours are: layers that came with an
//! earlier one are not in them, and the lock does not need them. It says what the destination that those tools filled
//! holds, so an archive made on top of it (`--base-lock`) carries only the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::export::{ExportError, plan_from};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::{Descriptor, MANIFEST_LIMIT, Manifest, PlatformName, REF_NAME};
use crate::plan::lock::{Image, Lock, Origin, Pin, Want};
use crate::reference::{ReferenceError, Repository, Tag, is_path};
use crate::store::disk::Store;
use crate::store::{Blob, Sink as _, StoreError, TransferError, read};

/// Longest link that is read.
const LINK_LIMIT: u64 = 200;
/// How a gzip stream begins (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Largest file of metadata that is read.
const METADATA_LIMIT: u64 = 256 << 20;

/// Why something cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing of the kind.
    #[error("no image is there")]
    Empty,
    /// The registry that images are named by is malformed.
    #[error("the registry cannot be named so")]
    Registry(#[from] ReferenceError),
    /// The store failed.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// A blob of the store cannot be read.
    #[error("the store cannot give what was taken")]
    Read(#[from] TransferError),
    /// What was taken cannot be planned.
    #[error("an image cannot be planned")]
    Plan(#[source] Box<ExportError>),
    /// It was told to stop.
    #[error("stopped; what was taken is kept")]
    Stopped,
}

impl From<ExportError> for TakeoverError {
    fn from(error: ExportError) -> Self {
        Self::Plan(Box::new(error))
    }
}

impl Hint for TakeoverError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Empty => Some("name oc-mirror archives (mirror_*.tar), its cache (.oc-mirror/.cache), the folder of a registry, or one that `oc image mirror --dir` wrote".to_owned()),
            Self::Stopped => Some("run the same command again to go on".to_owned()),
            Self::Store(source) => source.hint(),
            _ => None,
        }
    }
}

/// What was taken over.
#[derive(Debug, Default)]
pub struct Taken {
    /// A lock of every image.
    pub lock: Lock,
    /// One descriptor per image, named as in the lock.
    pub images: Vec<Descriptor>,
    /// Blobs that came into the store.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were there already.
    pub present: u64,
    /// Files whose bytes are not those that their names promise; they were not taken.
    pub damaged: Vec<String>,
    /// Images that are left out, and why.
    pub left_out: Vec<String>,
    /// Layers and configs of the lock that are not in the store, because an earlier archive brought them.
    pub elsewhere: u64,
    /// Files of its working directory that were kept.
    pub kept: u64,
    /// The sequences of oc-mirror v1 that were seen.
    pub sequences: BTreeSet<u64>,
}

/// What one name means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// The bytes of a blob.
    Blob(Digest),
    /// A manifest of a repository, by digest; the bytes may stand here.
    Revision(String, Digest),
    /// A tag; the digest is the content, or what it links to.
    Tag(String, Tag),
    /// The metadata of oc-mirror v1.
    Metadata,
    /// A file of oc-mirror v2's own, by its path: its working directory and the config that it was run with.
    Working(PathBuf),
    /// Nothing that is wanted.
    Other,
}

/// Reads `sha256:<hex>` as file names have it; some file systems take no colon.
fn digest_of(name: &str) -> Option<Digest> {
    let hex = name
        .strip_prefix("sha256:")
        .or_else(|| name.strip_prefix("sha256-"))?;
    Digest::from_hex(hex).ok()
}

/// What the file called `path` is, by its name alone.
fn meaning(path: &str) -> Meaning {
    let names: Vec<&str> = path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .collect();
    let repository = |names: &[&str]| {
        let path = names.join("/");
        is_path(&path).then_some(path)
    };
    let meaning = || -> Option<Meaning> {
        let distribution = names
            .array_windows()
            .rposition(|window| *window == ["docker", "registry", "v2"]);
        if let Some(at) = distribution {
            return match &names[at + 3..] {
                ["blobs", "sha256", _, hex, "data"] => {
                    Digest::from_hex(hex).ok().map(Meaning::Blob)
                }
                ["repositories", rest @ ..] => match rest {
                    [path @ .., "_manifests", "revisions", "sha256", hex, "link"] => Some(
                        Meaning::Revision(repository(path)?, Digest::from_hex(hex).ok()?),
                    ),
                    [path @ .., "_manifests", "tags", tag, "current", "link"] => {
                        Some(Meaning::Tag(repository(path)?, tag.parse().ok()?))
                    }
                    _ => None,
                },
                _ => None,
            };
        }
        if let [.., "publish", ".metadata.json"] = names.as_slice() {
            return Some(Meaning::Metadata);
        }
        let mirrored = names.iter().position(|name| *name == "v2");
        if let Some(at) = mirrored {
            return match &names[at + 1..] {
                [_, .., "blobs", name] => digest_of(name).map(Meaning::Blob),
                [path @ .., "manifests", name] => {
                    let path = repository(path)?;
                    Some(match digest_of(name) {
                        Some(digest) => Meaning::Revision(path, digest),
                        None => Meaning::Tag(path, name.parse().ok()?),
                    })
                }
                _ => None,
            };
        }
        match names.as_slice() {
            [.., "blobs", name] => digest_of(name).map(Meaning::Blob),
            [name] if name.starts_with("isc_") => Some(Meaning::Working(PathBuf::from(name))),
            ["working-dir", rest @ ..] if !rest.is_empty() && !names.contains(&"..") => {
                Some(Meaning::Working(names.iter().collect()))
            }
            _ => None,
        }
    };
    meaning().unwrap_or(Meaning::Other)
}

/// What stands at a name.
enum Content<'a> {
    File(&'a mut dyn Read, u64),
    /// A symbolic or hard link, by its target's last name.
    Link(String),
}

struct Reader<'a> {
    store: &'a Store,
    /// Where files of other kinds are kept.
    keep: Option<&'a Path>,
    stop: &'a AtomicBool,
    progress: &'a dyn Fn(u64),
    taken: Taken,
    /// Where a repository's tags point.
    tags: BTreeMap<(String, Tag), Digest>,
    revisions: BTreeSet<(String, Digest)>,
    /// Manifests that the metadata of oc-mirror v1 names, with its names for them.
    associated: BTreeMap<Digest, String>,
}

/// Takes over everything in `paths`. Images are named as of `registry` (`HOST[:PORT]`), since those tools do not keep
/// where they came from. The working directory that archives of oc-mirror v2 carry is written below `keep`, if that is
/// given: regular files, under their names in the archive.
///
/// # Errors
/// If a file cannot be read, or nothing is there. What is damaged is in the answer.
pub fn take(
    paths: &[PathBuf],
    registry: &str,
    store: &Store,
    keep: Option<&Path>,
    stop: &AtomicBool,
    progress: &dyn Fn(u64),
) -> Result<Taken, TakeoverError> {
    Repository::new(registry, "x")?;
    let mut reader = Reader {
        store,
        keep,
        stop,
        progress,
        taken: Taken::default(),
        tags: BTreeMap::new(),
        revisions: BTreeSet::new(),
        associated: BTreeMap::new(),
    };
    for path in paths {
        let metadata = fs::metadata(path).map_err(io_error(path))?;
        if metadata.is_dir() {
            reader.folder(path)?;
        } else {
            reader.tar(path)?;
        }
    }
    reader.finish(registry)
}

/// Writes a file whole, or not at all.
fn keep_file(target: &Path, bytes: &mut dyn Read) -> io::Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    io::copy(bytes, &mut file)?;
    file.as_file().sync_all()?;
    file.persist(target)?;
    Ok(())
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> TakeoverError {
    let path = path.to_owned();
    move |source| TakeoverError::Io { path, source }
}

impl Reader<'_> {
    fn heed(&self) -> Result<(), TakeoverError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(TakeoverError::Stopped);
        }
        Ok(())
    }

    /// Reads a folder and everything below it; archives that lie in it are read, too.
    fn folder(&mut self, root: &Path) -> Result<(), TakeoverError> {
        // Names begin where the tree does, so that a folder may be named from inside it.
        let absolute = fs::canonicalize(root).map_err(io_error(root))?;
        for entry in walkdir::WalkDir::new(&absolute).sort_by_file_name() {
            self.heed()?;
            let entry = entry.map_err(|error| {
                let path = error.path().unwrap_or(root).to_owned();
                io_error(&path)(error.into())
            })?;
            let path = entry.path();
            let Some(text) = path.to_str() else { continue };
            if entry.file_type().is_symlink() {
                let target = fs::read_link(path).map_err(io_error(path))?;
                let target = target
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned());
                self.entry(text, Content::Link(target.unwrap_or_default()), path)?;
            } else if entry.file_type().is_file() {
                let is_archive = entry.file_name().to_str().is_some_and(|name| {
                    name.contains("mirror_") && Path::new(name).extension() == Some("tar".as_ref())
                });
                if is_archive {
                    self.tar(path)?;
                    continue;
                }
                if meaning(text) == Meaning::Other {
                    continue;
                }
                let mut file = File::open(path).map_err(io_error(path))?;
                let size = file.metadata().map_err(io_error(path))?.len();
                self.entry(text, Content::File(&mut file, size), path)?;
            }
        }
        Ok(())
    }

    fn tar(&mut self, path: &Path) -> Result<(), TakeoverError> {
        let file = File::open(path).map_err(io_error(path))?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        let is_packed = file
            .fill_buf()
            .map_err(io_error(path))?
            .starts_with(&GZIP_MAGIC);
        let bytes: Box<dyn Read> = if is_packed {
            Box::new(flate2::bufread::MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let mut archive = tar::Archive::new(bytes);
        for entry in archive.entries().map_err(io_error(path))? {
            self.heed()?;
            let mut entry = entry.map_err(io_error(path))?;
            let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else {
                continue;
            };
            let kind = entry.header().entry_type();
            if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name().map_err(io_error(path))?;
                let target = target
                    .as_deref()
                    .and_then(Path::file_name)
                    .map(|name| name.to_string_lossy().into_owned());
                self.entry(&name, Content::Link(target.unwrap_or_default()), path)?;
            } else if kind.is_file() {
                let size = entry.size();
                self.entry(&name, Content::File(&mut entry, size), path)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        name: &str,
        content: Content<'_>,
        path: &Path,
    ) -> Result<(), TakeoverError> {
        // A small file with a digest in it, or a link to one.
        let link = |content: Content<'_>| -> io::Result<Option<Digest>> {
            Ok(match content {
                Content::Link(target) => digest_of(&target),
                Content::File(bytes, size) if size <= LINK_LIMIT => {
                    let mut text = String::new();
                    match bytes.take(LINK_LIMIT).read_to_string(&mut text) {
                        Ok(_) => text.trim().parse().ok(),
                        Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
                        Err(error) => return Err(error),
                    }
                }
                Content::File(..) => None,
            })
        };
        match meaning(name) {
            Meaning::Other => {}
            Meaning::Working(name) => {
                if let (Some(folder), Content::File(bytes, _)) = (self.keep, content) {
                    let target = folder.join(name);
                    keep_file(&target, bytes).map_err(io_error(&target))?;
                    self.taken.kept += 1;
                }
            }
            Meaning::Blob(digest) => {
                if let Content::File(bytes, size) = content {
                    self.blob(name, Some(digest), bytes, size, path)?;
                }
            }
            Meaning::Revision(repository, digest) => {
                match content {
                    // In a registry's folder there is a link; elsewhere the manifest itself stands here.
                    Content::File(bytes, size) if size > 71 => {
                        self.blob(name, Some(digest), bytes, size, path)?;
                    }
                    _ => {}
                }
                self.revisions.insert((repository, digest));
            }
            Meaning::Tag(repository, tag) => {
                let digest = match content {
                    Content::File(bytes, size) if size > LINK_LIMIT => {
                        let digest = self.blob(name, None, bytes, size, path)?;
                        self.revisions
                            .extend(digest.map(|digest| (repository.clone(), digest)));
                        digest
                    }
                    content => link(content).map_err(io_error(path))?,
                };
                if let Some(digest) = digest {
                    self.tags.insert((repository, tag), digest);
                } else {
                    self.taken.damaged.push(name.to_owned());
                }
            }
            Meaning::Metadata => {
                if let Content::File(bytes, size) = content
                    && size <= METADATA_LIMIT
                {
                    let value: serde_json::Value =
                        serde_json::from_reader(bytes).unwrap_or_default();
                    let sequence = value["pastMirror"]["sequence"].as_u64();
                    self.taken.sequences.extend(sequence);
                    let lists = [
                        &value["pastMirror"]["associations"],
                        &value["pastAssociations"],
                    ];
                    for row in lists.iter().filter_map(|list| list.as_array()).flatten() {
                        if let (Some(name), Some(Ok(digest))) = (
                            row["name"].as_str(),
                            row["id"].as_str().map(str::parse::<Digest>),
                        ) {
                            self.associated.insert(digest, name.to_owned());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Brings a file into the store; its digest, if it is what it should be.
    fn blob(
        &mut self,
        name: &str,
        expected: Option<Digest>,
        bytes: &mut dyn Read,
        size: u64,
        path: &Path,
    ) -> Result<Option<Digest>, TakeoverError> {
        if let Some(digest) = expected
            && self.store.size_of(&digest)? == Some(size)
        {
            self.taken.present += 1;
            return Ok(expected);
        }
        let mut draft = self.store.draft()?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            self.heed()?;
            match bytes.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    draft.append(&buffer[..count])?;
                    (self.progress)(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error(path)(error)),
            }
        }
        let found = draft.blob();
        if expected.is_some_and(|expected| expected != found.digest) {
            self.taken.damaged.push(name.to_owned());
            return Ok(None);
        }
        draft.commit()?;
        self.taken.blobs += 1;
        self.taken.bytes += found.size;
        Ok(Some(found.digest))
    }

    /// Makes the lock of everything that was found.
    fn finish(mut self, registry: &str) -> Result<Taken, TakeoverError> {
        let mut named: BTreeMap<(String, Option<Tag>), Digest> = BTreeMap::new();
        let mut reached: BTreeSet<(String, Digest)> = BTreeSet::new();
        for ((repository, tag), digest) in &self.tags {
            reached.insert((repository.clone(), *digest));
            named.insert((repository.clone(), Some(tag.clone())), *digest);
        }
        // What an index names is no image of its own.
        for (repository, digest) in self.revisions.iter().chain(&reached.clone()) {
            if let Some((_, Manifest::Index(index))) = self.manifest(digest)? {
                for child in &index.manifests {
                    reached.insert((repository.clone(), child.digest));
                }
            }
        }
        let mut untagged: Vec<(String, Digest)> = Vec::new();
        for revision in self.revisions.difference(&reached) {
            untagged.push(revision.clone());
        }
        let mut lock = Lock::default();
        let mut elsewhere = BTreeSet::new();
        let all = named
            .into_iter()
            .map(|((repository, tag), digest)| (repository, tag, digest))
            .chain(
                untagged
                    .into_iter()
                    .map(|(path, digest)| (path, None, digest)),
            );
        for (digest, name) in &self.associated {
            if !reached.iter().any(|(_, known)| known == digest)
                && self.store.size_of(digest)?.is_none()
            {
                self.taken.left_out.push(format!(
                    "{name}: its manifest {digest} came with an earlier archive; name that one, too"
                ));
            }
        }
        for (path, tag, digest) in all {
            let is_served = self.revisions.contains(&(path.clone(), digest));
            let repository = Repository::new(registry, &path)?;
            let reference = tag.as_ref().map_or_else(
                || format!("{repository}@{digest}"),
                |tag| format!("{repository}:{tag}"),
            );
            if !is_served {
                self.taken.left_out.push(format!(
                    "{reference}: its repository has no manifest {digest}"
                ));
                continue;
            }
            let Some((blob, manifest)) = self.manifest(&digest)? else {
                self.taken
                    .left_out
                    .push(format!("{reference}: its manifest {digest} is not there"));
                continue;
            };
            let mut pin = Pin::new(Origin::Registry(repository), digest, blob.size);
            if let Manifest::Index(index) = &manifest {
                pin.platforms = self.platforms(&path, index)?;
            }
            let image = Image {
                reference: reference.clone(),
                want: Want::default(),
                pin,
            };
            let alone = Lock {
                images: vec![image.clone()],
                ..Lock::default()
            };
            let closure = plan_from(&alone, &[], self.store, self.store)?
                .closure()
                .map_err(ExportError::from)?;
            if let Some(unread) = closure.unread.first() {
                self.taken.left_out.push(format!(
                    "{reference}: {} of its manifests are not there, the first of them {}",
                    closure.unread.len(),
                    unread.digest
                ));
                continue;
            }
            for blob in &closure.blobs {
                if !self
                    .store
                    .holds(blob)
                    .map_err(io_error(self.store.path()))?
                {
                    elsewhere.insert(blob.digest);
                }
            }
            self.taken.images.push(Descriptor {
                media_type: manifest.media_type().to_owned(),
                digest,
                size: blob.size,
                platform: None,
                artifact_type: None,
                urls: Vec::new(),
                annotations: BTreeMap::from([(REF_NAME.to_owned(), reference)]),
            });
            lock.images.push(image);
        }
        if lock.images.is_empty() && self.taken.left_out.is_empty() && self.taken.damaged.is_empty()
        {
            return Err(TakeoverError::Empty);
        }
        lock.sort();
        self.taken.elsewhere = elsewhere.len() as u64;
        self.taken.lock = lock;
        Ok(self.taken)
    }

    /// A manifest of the store.
    fn manifest(&self, digest: &Digest) -> Result<Option<(Blob, Manifest)>, TakeoverError> {
        let Some(size) = self.store.size_of(digest)? else {
            return Ok(None);
        };
        if size > MANIFEST_LIMIT {
            return Ok(None);
        }
        let blob = Blob {
            digest: *digest,
            size,
        };
        let bytes = read(self.store, &blob, MANIFEST_LIMIT)?;
        Ok(Manifest::parse(&bytes, None)
            .ok()
            .map(|manifest| (blob, manifest)))
    }

    /// The platforms of an index whose manifests are there; none where all of them are.
    fn platforms(
        &self,
        repository: &str,
        index: &crate::oci::Index,
    ) -> Result<Vec<PlatformName>, TakeoverError> {
        let mut platforms = BTreeSet::new();
        let mut is_sparse = false;
        for child in &index.manifests {
            let key = (repository.to_owned(), child.digest);
            if !self.revisions.contains(&key) || self.store.size_of(&child.digest)?.is_none() {
                is_sparse = true;
            } else if let Some(platform) = &child.platform
                && platform.os != "unknown"
            {
                platforms.insert(PlatformName {
                    os: platform.os.clone(),
                    architecture: platform.architecture.clone(),
                    variant: platform.variant.clone(),
                });
            }
        }
        Ok(if is_sparse {
            platforms.into_iter().collect()
        } else {
            Vec::new()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_file_is() {
        let hex = "0123456789abcdef".repeat(4);
        let digest = Digest::from_hex(&hex).unwrap();
        let tag = |path: &str, tag: &str| Meaning::Tag(path.to_owned(), tag.parse().unwrap());
        let revision = |path: &str| Meaning::Revision(path.to_owned(), digest);
        let table = [
            (
                format!("docker/registry/v2/blobs/sha256/01/{hex}/data"),
                Meaning::Blob(digest),
            ),
            (
                format!("/srv/.cache/docker/registry/v2/blobs/sha256/01/{hex}/data"),
                Meaning::Blob(digest),
            ),
            (
                format!(
                    "./docker/registry/v2/repositories/a/b/_manifests/revisions/sha256/{hex}/link"
                ),
                revision("a/b"),
            ),
            (
                "docker/registry/v2/repositories/a/b/_manifests/tags/v1/current/link".to_owned(),
                tag("a/b", "v1"),
            ),
            (
                format!(
                    "docker/registry/v2/repositories/a/b/_manifests/tags/v1/index/sha256/{hex}/link"
                ),
                Meaning::Other,
            ),
            (
                format!("docker/registry/v2/repositories/a/_layers/sha256/{hex}/link"),
                Meaning::Other,
            ),
            (
                format!("/mnt/v2/openshift/release/blobs/sha256:{hex}"),
                Meaning::Blob(digest),
            ),
            (
                format!("v2/openshift/release/manifests/sha256:{hex}"),
                revision("openshift/release"),
            ),
            (
                format!("v2/openshift/release/manifests/sha256-{hex}"),
                revision("openshift/release"),
            ),
            (
                "v2/openshift/release/manifests/4.16.1-x86_64".to_owned(),
                tag("openshift/release", "4.16.1-x86_64"),
            ),
            (format!("blobs/sha256:{hex}"), Meaning::Blob(digest)),
            ("publish/.metadata.json".to_owned(), Meaning::Metadata),
            (
                "working-dir/hold-release/release-manifests/x.json".to_owned(),
                Meaning::Working("working-dir/hold-release/release-manifests/x.json".into()),
            ),
            (
                "./isc_2026-11-01T10:00:00Z".to_owned(),
                Meaning::Working("isc_2026-11-01T10:00:00Z".into()),
            ),
            ("working-dir/../../x".to_owned(), Meaning::Other),
            ("working-dir".to_owned(), Meaning::Other),
            ("../../v2/../manifests/v1".to_owned(), Meaning::Other),
            (
                "docker/registry/v2/repositories/../_manifests/tags/v1/current/link".to_owned(),
                Meaning::Other,
            ),
            (format!("v2/blobs/sha256:{}", &hex[1..]), Meaning::Other),
        ];
        for (name, expected) in table {
            assert_eq!(meaning(&name), expected, "{name}");
        }
    }
}
