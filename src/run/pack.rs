//! Images that are made here: layers of files from the store, alone or on top of a base.
//!
//! A layer is a tar of sorted names, owned by 0:0, as old as the epoch, compressed with gzip at a fixed level; an image
//! keeps the media types of its base. So equal input yields equal bytes, on every machine and for any number of
//! workers; a test holds the bytes. What would move them (another compressor, too) is a new revision of the kind.
//!
//! Every instance of a base gets the same layers. Attestations in a base describe the base, so they are left out.
//!
//! Follows the OCI image specification 1.1 (`manifest.md`, `config.md`, `layer.md`) and Docker's `manifest-v2-2.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value as Json, json};
use tar::{EntryType, Header};

use crate::digest::{Digest, Hasher};
use crate::oci::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Image, MANIFEST_LIMIT, Manifest, ManifestError,
    OCI_INDEX, OCI_MANIFEST, Platform, PlatformName,
};
use crate::store::disk::{Draft, Store};
use crate::store::memo::Output;
use crate::store::{Blob, Source, StoreError, TransferError, Verified, read};

/// Media type of a layer in OCI images.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Media type of a layer in Docker images.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Largest image config that is read.
const CONFIG_LIMIT: u64 = 4 << 20;
/// The level that every layer is compressed with.
const LEVEL: u32 = 6;
/// The most bytes that an archive may unpack to, which becomes a layer.
const UNPACKED_LIMIT: u64 = 4 << 30;
/// The most entries of such an archive.
const ENTRY_LIMIT: usize = 1_000_000;
/// How deep indexes may stand in indexes.
const DEEPEST: usize = 4;

/// Why an image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Something that it is made of cannot be read.
    #[error("cannot read what it is made of")]
    Read(#[from] TransferError),
    /// The base is no image.
    #[error("the base {base} cannot be used")]
    Base {
        /// The manifest.
        base: Digest,
        /// Why.
        source: ManifestError,
    },
    /// The base's config makes no sense.
    #[error("the config {config} of the base cannot be used: {problem}")]
    Config {
        /// The config.
        config: Digest,
        /// What is wrong.
        problem: String,
    },
    /// The base has nothing for the platforms.
    #[error("the base {base} has no image for {platforms}")]
    NoInstance {
        /// The manifest.
        base: Digest,
        /// What was wanted.
        platforms: String,
    },
    /// An archive holds what a layer must not have.
    #[error("{archive}: the entry {entry:?} {problem}")]
    Entry {
        /// The archive.
        archive: Digest,
        /// Its name there.
        entry: String,
        /// What is wrong.
        problem: String,
    },
    /// An archive cannot be unpacked.
    #[error("{archive} cannot be unpacked")]
    Archive {
        /// The archive.
        archive: Digest,
        /// Why.
        source: io::Error,
    },
    /// A name that a layer cannot have.
    #[error("{path:?} cannot be a path in a layer")]
    Path {
        /// The path.
        path: String,
    },
    /// The store failed.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The layer could not be written.
    #[error("the layer cannot be written")]
    Write(#[from] io::Error),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

/// An image that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// What it stands on; without it, it is an artifact of its own.
    pub base: Option<Base>,
    /// What is added, the lowest first.
    pub layers: Vec<Layer>,
    /// How it runs.
    pub config: Config,
}

/// What an image stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its manifest or index.
    pub manifest: Blob,
    /// Only these instances; all, if empty.
    pub platforms: Vec<PlatformName>,
}

/// A layer that is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Takes these paths of the layers below away.
    Without(Vec<String>),
    /// Files, by their paths.
    Files(BTreeMap<String, Blob>),
    /// What a tar (plain or compressed with gzip) holds, under a folder.
    Unpacked {
        /// The tar.
        archive: Blob,
        /// The folder; empty for the root.
        under: String,
    },
    /// A blob as it is.
    Given {
        /// What it is.
        media_type: String,
        /// The blob.
        blob: Blob,
        /// What is said of it.
        annotations: BTreeMap<String, String>,
    },
}

/// How an image runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// As its base, but for this.
    OfBase {
        /// The command, if it is another one.
        command: Option<Vec<String>>,
        /// Labels that get these values where the base has them at all.
        labels: BTreeMap<String, String>,
    },
    /// A blob as it is.
    Given {
        /// What it is.
        media_type: String,
        /// The blob.
        blob: Blob,
    },
}

/// A layer as it was made.
#[derive(Clone)]
struct Made {
    blob: Blob,
    /// The digest of the uncompressed tar.
    content: Digest,
    /// Its media type and annotations, where they are given.
    given: Option<(String, BTreeMap<String, String>)>,
    /// What made it, for the history of the image.
    by: &'static str,
}

/// The blobs that must be in the store before an image can be made: the configs of the base's instances, and what the
/// layers are made of. The base's manifests must be there to tell.
///
/// # Errors
/// If a manifest of the base is not there, or is none.
pub fn inputs(pack: &Pack, store: &Store) -> Result<Vec<Blob>, PackError> {
    let mut all = BTreeSet::new();
    if let Some(base) = &pack.base {
        let manifest = manifest_at(store, base.manifest)?;
        for (_, instance) in instances(store, base, &manifest)? {
            all.extend(instance.config.as_ref().map(Blob::from));
        }
    }
    for layer in &pack.layers {
        match layer {
            Layer::Without(_) => {}
            Layer::Files(files) => all.extend(files.values()),
            Layer::Unpacked { archive, .. } => {
                all.insert(*archive);
            }
            Layer::Given { blob, .. } => {
                all.insert(*blob);
            }
        }
    }
    if let Config::Given { blob, .. } = &pack.config {
        all.insert(*blob);
    }
    Ok(all.into_iter().collect())
}

/// Makes an image in the store: its manifest or index first, then everything that was made for it.
///
/// # Errors
/// If something that it is made of is missing or malformed, or the store fails. Blobs that nothing names may stay.
pub fn pack(pack: &Pack, store: &Store, stop: &AtomicBool) -> Result<Vec<Output>, PackError> {
    let mut layers = Vec::new();
    for layer in &pack.layers {
        layers.push(make_layer(layer, store, stop)?);
    }
    let mut out = Vec::new();
    let top = match &pack.base {
        None => {
            let config = given_config(&pack.config);
            let manifest = manifest_of(OCI_MANIFEST, &config, &described(&layers, OCI_LAYER), None);
            insert(store, OCI_MANIFEST, &manifest, &mut out)?
        }
        Some(base) => on_base(pack, base, &layers, store, &mut out)?,
    };
    out.retain(|output| output.blob != top.blob);
    let mut outputs = vec![top];
    outputs.extend(out);
    outputs.extend(layers.iter().map(|layer| Output {
        media_type: layer.given.as_ref().map_or_else(
            || OCI_LAYER.to_owned(),
            |(media_type, _)| media_type.clone(),
        ),
        blob: layer.blob,
    }));
    Ok(outputs)
}

fn on_base(
    pack: &Pack,
    base: &Base,
    layers: &[Made],
    store: &Store,
    out: &mut Vec<Output>,
) -> Result<Output, PackError> {
    let manifest = manifest_at(store, base.manifest)?;
    let is_docker = manifest.media_type().contains("docker");
    let mut children = Vec::new();
    for (platform, instance) in instances(store, base, &manifest)? {
        let (found, output) = instance_of(pack, base, &instance, layers, store, out)?;
        children.push((platform.unwrap_or(found), output));
    }
    match (manifest, children.as_slice()) {
        (Manifest::Image(_), [(_, output)]) => Ok(output.clone()),
        (_, []) => Err(PackError::NoInstance {
            base: base.manifest.digest,
            platforms: base
                .platforms
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        }),
        _ => {
            let kind = if is_docker { DOCKER_LIST } else { OCI_INDEX };
            let manifests: Vec<Json> = children
                .iter()
                .map(|(platform, output)| {
                    json!({
                        "mediaType": output.media_type,
                        "digest": output.blob.digest,
                        "size": output.blob.size,
                        "platform": platform,
                    })
                })
                .collect();
            let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
            insert(store, kind, &index, out)
        }
    }
}

/// One instance of the base with the layers on top.
fn instance_of(
    pack: &Pack,
    base: &Base,
    image: &Image,
    layers: &[Made],
    store: &Store,
    out: &mut Vec<Output>,
) -> Result<(Platform, Output), PackError> {
    let is_docker = image.media_type == DOCKER_MANIFEST;
    let (manifest_type, layer_type) = if is_docker {
        (DOCKER_MANIFEST, DOCKER_LAYER)
    } else {
        (OCI_MANIFEST, OCI_LAYER)
    };
    let old = image.config.as_ref().ok_or_else(|| PackError::Config {
        config: base.manifest.digest,
        problem: "an instance of it has none".to_owned(),
    })?;
    let bytes = read(store, &Blob::from(old), CONFIG_LIMIT)?;
    let (config, platform) =
        config_on(&bytes, &pack.config, layers).map_err(|problem| PackError::Config {
            config: old.digest,
            problem,
        })?;
    let config = insert(store, &old.media_type, &config, out)?;
    let config = json!({
        "mediaType": config.media_type,
        "digest": config.blob.digest,
        "size": config.blob.size,
    });
    let mut all: Vec<Json> = image
        .layers
        .iter()
        .map(|layer| serde_json::to_value(layer).expect("a descriptor is JSON"))
        .collect();
    all.extend(described(layers, layer_type));
    let manifest = manifest_of(manifest_type, &config, &all, Some(&image.annotations));
    Ok((platform, insert(store, manifest_type, &manifest, out)?))
}

fn given_config(config: &Config) -> Json {
    match config {
        Config::Given { media_type, blob } => json!({
            "mediaType": media_type,
            "digest": blob.digest,
            "size": blob.size,
        }),
        Config::OfBase { .. } => Json::Null,
    }
}

fn described(layers: &[Made], layer_type: &str) -> Vec<Json> {
    layers
        .iter()
        .map(|layer| {
            let mut descriptor = json!({
                "mediaType": layer_type,
                "digest": layer.blob.digest,
                "size": layer.blob.size,
            });
            if let Some((media_type, annotations)) = &layer.given {
                descriptor["mediaType"] = json!(media_type);
                if !annotations.is_empty() {
                    descriptor["annotations"] = json!(annotations);
                }
            }
            descriptor
        })
        .collect()
}

fn manifest_of(
    media_type: &str,
    config: &Json,
    layers: &[Json],
    annotations: Option<&BTreeMap<String, String>>,
) -> Json {
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config,
        "layers": layers,
    });
    if let Some(annotations) = annotations.filter(|annotations| !annotations.is_empty()) {
        manifest["annotations"] = json!(annotations);
    }
    manifest
}

fn insert(
    store: &Store,
    media_type: &str,
    json: &Json,
    out: &mut Vec<Output>,
) -> Result<Output, PackError> {
    let bytes = serde_json::to_vec(json).expect("a JSON value prints");
    let output = Output {
        media_type: media_type.to_owned(),
        blob: store.insert(&bytes)?,
    };
    out.push(output.clone());
    Ok(output)
}

fn manifest_at(store: &Store, blob: Blob) -> Result<Manifest, PackError> {
    let bytes = read(store, &blob, MANIFEST_LIMIT)?;
    Manifest::parse(&bytes, None).map_err(|source| PackError::Base {
        base: blob.digest,
        source,
    })
}

/// The instances of a base that are taken, in its order; indexes in indexes are flattened.
fn instances(
    store: &Store,
    base: &Base,
    manifest: &Manifest,
) -> Result<Vec<(Option<Platform>, Image)>, PackError> {
    let mut out = Vec::new();
    gather_instances(store, base, manifest, None, DEEPEST, &mut out)?;
    Ok(out)
}

fn gather_instances(
    store: &Store,
    base: &Base,
    manifest: &Manifest,
    platform: Option<&Platform>,
    deeper: usize,
    out: &mut Vec<(Option<Platform>, Image)>,
) -> Result<(), PackError> {
    match manifest {
        Manifest::Image(image) => out.push((platform.cloned(), image.clone())),
        Manifest::Index(list) if deeper > 0 => {
            let is_instance = |child: &Descriptor| {
                child.describes().is_none()
                    && child
                        .platform
                        .as_ref()
                        .is_none_or(|platform| platform.os != "unknown")
            };
            for child in list
                .taken(&base.platforms)
                .into_iter()
                .filter(|child| is_instance(child))
            {
                let manifest = manifest_at(store, Blob::from(child))?;
                let platform = child.platform.as_ref().or(platform);
                gather_instances(store, base, &manifest, platform, deeper - 1, out)?;
            }
        }
        Manifest::Index(_) => {}
    }
    Ok(())
}

/// The config of a base as that of the image, and the platform that it is for.
fn config_on(bytes: &[u8], wanted: &Config, layers: &[Made]) -> Result<(Json, Platform), String> {
    let mut config: Json = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let all = config.as_object_mut().ok_or("it is no object")?;
    let text = |name: &str| all.get(name).and_then(Json::as_str).map(str::to_owned);
    let platform = Platform {
        os: text("os").unwrap_or_else(|| "linux".to_owned()),
        architecture: text("architecture").unwrap_or_else(|| "amd64".to_owned()),
        variant: text("variant").filter(|variant| !variant.is_empty()),
        os_version: text("os.version"),
    };
    let contents = all
        .get_mut("rootfs")
        .and_then(|rootfs| rootfs.get_mut("diff_ids"))
        .and_then(Json::as_array_mut)
        .ok_or("it has no rootfs.diff_ids")?;
    contents.extend(layers.iter().map(|layer| json!(layer.content)));
    // A history that is there must name every layer; one that is not need not begin.
    if let Some(history) = all.get_mut("history").and_then(Json::as_array_mut) {
        history.extend(layers.iter().map(|layer| json!({"created_by": layer.by})));
    }
    if let Config::OfBase { command, labels } = wanted {
        let inner = all
            .entry("config")
            .or_insert_with(|| Json::Object(Map::new()));
        if inner.is_null() {
            *inner = Json::Object(Map::new());
        }
        let inner = inner.as_object_mut().ok_or("its config is no object")?;
        if let Some(command) = command {
            inner.insert("Cmd".to_owned(), json!(command));
        }
        if let Some(there) = inner.get_mut("Labels").and_then(Json::as_object_mut) {
            for (name, value) in labels {
                if let Some(old) = there.get_mut(name) {
                    *old = json!(value);
                }
            }
        }
    }
    Ok((config, platform))
}

/// Takes bytes on their way: counts them into a digest, and stops when told to.
struct Watched<'a, W> {
    inner: W,
    state: Hasher,
    stop: &'a AtomicBool,
}

impl<W: Write> Write for Watched<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other(Halted));
        }
        let count = self.inner.write(bytes)?;
        self.state.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Marks the error of [`Watched`].
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Halted;

type Tar<'a> = tar::Builder<Watched<'a, GzEncoder<Draft>>>;

fn make_layer(layer: &Layer, store: &Store, stop: &AtomicBool) -> Result<Made, PackError> {
    if let Layer::Given {
        media_type,
        blob,
        annotations,
    } = layer
    {
        return Ok(Made {
            blob: *blob,
            content: blob.digest,
            given: Some((media_type.clone(), annotations.clone())),
            by: "imgbuild pack-image",
        });
    }
    let made = write_layer(layer, store, stop);
    if stop.load(Ordering::Relaxed) {
        return Err(PackError::Stopped);
    }
    made
}

fn write_layer(layer: &Layer, store: &Store, stop: &AtomicBool) -> Result<Made, PackError> {
    // No name and no time: only the bytes decide.
    let gzip = flate2::GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(store.draft()?, Compression::new(LEVEL));
    let mut tar = tar::Builder::new(Watched {
        inner: gzip,
        state: Hasher::default(),
        stop,
    });
    let by = match layer {
        Layer::Without(paths) => {
            let mut marks = BTreeSet::new();
            for path in paths {
                let path = clean(path)?;
                let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
                marks.insert(match folder {
                    "" => format!(".wh.{name}"),
                    _ => format!("{folder}/.wh.{name}"),
                });
            }
            folders(&mut tar, marks.iter().map(String::as_str))?;
            for mark in &marks {
                entry(&mut tar, mark, EntryType::Regular, 0o644, 0, io::empty())?;
            }
            "imgbuild pack-image: without"
        }
        Layer::Files(files) => {
            let files: BTreeMap<String, Blob> = files
                .iter()
                .map(|(path, blob)| Ok((clean(path)?, *blob)))
                .collect::<Result<_, PackError>>()?;
            folders(&mut tar, files.keys().map(String::as_str))?;
            for (path, blob) in &files {
                let bytes = open(store, *blob)?;
                entry(&mut tar, path, EntryType::Regular, 0o644, blob.size, bytes)?;
            }
            "imgbuild pack-image: files"
        }
        Layer::Unpacked { archive, under } => {
            unpack(&mut tar, *archive, &clean(under)?, store)?;
            "imgbuild pack-image: unpacked"
        }
        Layer::Given { .. } => unreachable!("it is not written"),
    };
    let watched = tar.into_inner()?;
    let content = watched.state.finish();
    let blob = watched.inner.finish()?.commit()?;
    Ok(Made {
        blob,
        content,
        given: None,
        by,
    })
}

/// Opens a blob that ends in an error unless its bytes are right.
fn open(store: &Store, blob: Blob) -> Result<Verified<'_>, PackError> {
    let bytes = store
        .open(&blob, 0)?
        .ok_or(TransferError::Absent { blob })?;
    Ok(Verified::new(bytes, blob))
}

/// A path in a layer: relative, without `.` and `..`.
fn clean(path: &str) -> Result<String, PackError> {
    let mut parts = Vec::new();
    for part in Path::new(path.trim_start_matches('/')).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::CurDir => {}
            _ => {
                return Err(PackError::Path {
                    path: path.to_owned(),
                });
            }
        }
    }
    Ok(parts.join("/"))
}

/// The folders that `paths` stand in, each before what is in it.
fn folders<'p>(tar: &mut Tar<'_>, paths: impl Iterator<Item = &'p str>) -> Result<(), PackError> {
    let mut all = BTreeSet::new();
    for path in paths {
        for (index, _) in path.match_indices('/') {
            all.insert(&path[..index]);
        }
    }
    for folder in all {
        entry(
            tar,
            &format!("{folder}/"),
            EntryType::Directory,
            0o755,
            0,
            io::empty(),
        )?;
    }
    Ok(())
}

fn entry(
    tar: &mut Tar<'_>,
    path: &str,
    kind: EntryType,
    mode: u32,
    size: u64,
    bytes: impl Read,
) -> Result<(), PackError> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    tar.append_data(&mut header, path, bytes)?;
    Ok(())
}

/// Writes what an archive holds under a folder: plain files and folders, in the order of the archive.
fn unpack(tar: &mut Tar<'_>, archive: Blob, under: &str, store: &Store) -> Result<(), PackError> {
    let broken = |source: io::Error| PackError::Archive {
        archive: archive.digest,
        source,
    };
    let mut bytes = BufReader::new(open(store, archive)?);
    let is_gzip = io::BufRead::fill_buf(&mut bytes)
        .map_err(broken)?
        .starts_with(&[0x1f, 0x8b]);
    let plain: Box<dyn Read> = if is_gzip {
        Box::new(MultiGzDecoder::new(bytes))
    } else {
        Box::new(bytes)
    };
    let mut reader = tar::Archive::new(plain.take(UNPACKED_LIMIT));
    let mut seen: BTreeMap<String, bool> = BTreeMap::new();
    if !under.is_empty() {
        let below = format!("{under}/.");
        folders(tar, std::iter::once(below.as_str()))?;
        for (index, _) in below.match_indices('/') {
            seen.insert(below[..index].to_owned(), true);
        }
    }
    let mut count = 0;
    for item in reader.entries().map_err(broken)? {
        let mut item = item.map_err(broken)?;
        let name = String::from_utf8_lossy(&item.path_bytes()).into_owned();
        let flaw = |problem: &str| PackError::Entry {
            archive: archive.digest,
            entry: name.clone(),
            problem: problem.to_owned(),
        };
        count += 1;
        if count > ENTRY_LIMIT {
            return Err(flaw("is one too many"));
        }
        let kind = item.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            continue;
        }
        if name.starts_with('/') {
            return Err(flaw("has an absolute name"));
        }
        let inside = clean(&name).map_err(|_| flaw("leaves its folder"))?;
        if inside.is_empty() {
            continue;
        }
        if inside.rsplit('/').any(|part| part.starts_with(".wh.")) {
            return Err(flaw("would hide another"));
        }
        let path = match under {
            "" => inside,
            _ => format!("{under}/{inside}"),
        };
        match kind {
            EntryType::Directory => match seen.insert(path.clone(), true) {
                None => entry(tar, &format!("{path}/"), kind, 0o755, 0, io::empty())?,
                Some(true) => {}
                Some(false) => return Err(flaw("is a file and a folder")),
            },
            EntryType::Regular | EntryType::Continuous => {
                for (index, _) in path.match_indices('/') {
                    let folder = &path[..index];
                    match seen.get(folder) {
                        Some(true) => {}
                        Some(false) => return Err(flaw("stands in a file")),
                        None => {
                            seen.insert(folder.to_owned(), true);
                            let folder = format!("{folder}/");
                            entry(tar, &folder, EntryType::Directory, 0o755, 0, io::empty())?;
                        }
                    }
                }
                if seen.insert(path.clone(), false).is_some() {
                    return Err(flaw("is there twice"));
                }
                let executable = item.header().mode().map_err(broken)? & 0o111 != 0;
                let mode = if executable { 0o755 } else { 0o644 };
                let size = item.size();
                entry(tar, &path, EntryType::Regular, mode, size, &mut item)?;
            }
            _ => return Err(flaw("is neither a file nor a folder")),
        }
    }
    // To the end, so that every byte is proven.
    io::copy(&mut reader.into_inner(), &mut io::sink()).map_err(broken)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::Access;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        (folder, store)
    }

    fn blob_json(media_type: &str, blob: Blob) -> Json {
        json!({"mediaType": media_type, "digest": blob.digest, "size": blob.size})
    }

    /// An image of one layer for an architecture, and its manifest.
    fn image(store: &Store, manifest_type: &str, architecture: &str) -> Blob {
        let layer = store.insert(b"a layer").unwrap();
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["old"], "Labels": {"there": "old", "kept": "yes"}},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
            "history": [{"created_by": "somebody"}],
        });
        let config = store.insert(&serde_json::to_vec(&config).unwrap()).unwrap();
        let (config_type, layer_type) = if manifest_type == DOCKER_MANIFEST {
            (
                "application/vnd.docker.container.image.v1+json",
                DOCKER_LAYER,
            )
        } else {
            ("application/vnd.oci.image.config.v1+json", OCI_LAYER)
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest_type,
            "config": blob_json(config_type, config),
            "layers": [blob_json(layer_type, layer)],
        });
        store
            .insert(&serde_json::to_vec(&manifest).unwrap())
            .unwrap()
    }

    fn index(store: &Store, kind: &str, children: &[(&str, Blob)]) -> Blob {
        let mut manifests: Vec<Json> = children
            .iter()
            .map(|(architecture, blob)| {
                let mut child = blob_json(OCI_MANIFEST, *blob);
                child["platform"] = json!({"os": "linux", "architecture": architecture});
                child
            })
            .collect();
        let mut attestation = blob_json(OCI_MANIFEST, children[0].1);
        attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        manifests.push(attestation);
        let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
        store.insert(&serde_json::to_vec(&index).unwrap()).unwrap()
    }

    fn tarball(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, kind, text) in entries {
            let mut header = Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o640);
            header.set_uid(1000);
            header.set_mtime(1_700_000_000);
            header.set_size(text.len() as u64);
            header.set_cksum();
            tar.append(&header, text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn made(store: &Store, wanted: &Pack) -> (Manifest, Vec<Output>) {
        let outputs = pack(wanted, store, &AtomicBool::new(false)).unwrap();
        let bytes = read(store, &outputs[0].blob, MANIFEST_LIMIT).unwrap();
        (Manifest::parse(&bytes, None).unwrap(), outputs)
    }

    fn names(store: &Store, layer: &Descriptor) -> Vec<String> {
        let bytes = store.open(&Blob::from(layer), 0).unwrap().unwrap();
        let mut tar = tar::Archive::new(MultiGzDecoder::new(bytes));
        tar.entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!(
                    (
                        header.uid().unwrap(),
                        header.gid().unwrap(),
                        header.mtime().unwrap()
                    ),
                    (0, 0, 0),
                    "nothing of the maker is in a layer"
                );
                String::from_utf8(entry.path_bytes().into_owned()).unwrap()
            })
            .collect()
    }

    fn on(base: Blob, layers: Vec<Layer>) -> Pack {
        Pack {
            base: Some(Base {
                manifest: base,
                platforms: Vec::new(),
            }),
            layers,
            config: Config::OfBase {
                command: Some(vec!["serve".to_owned()]),
                labels: BTreeMap::from([
                    ("there".to_owned(), "new".to_owned()),
                    ("absent".to_owned(), "new".to_owned()),
                ]),
            },
        }
    }

    #[test]
    fn every_instance_of_a_base_gets_the_layers_and_the_bytes_are_pinned() {
        let (_folder, store) = store();
        let children = ["amd64", "arm64"].map(|name| (name, image(&store, OCI_MANIFEST, name)));
        let base = index(&store, OCI_INDEX, &children);
        let file = store.insert(b"hello\n").unwrap();
        let wanted = on(
            base,
            vec![
                Layer::Without(vec!["/configs".to_owned(), "a/b".to_owned()]),
                Layer::Files(BTreeMap::from([(
                    "configs/one/catalog.json".to_owned(),
                    file,
                )])),
            ],
        );
        let (manifest, outputs) = made(&store, &wanted);
        let Manifest::Index(list) = manifest else {
            panic!("an index stays an index");
        };
        let architectures: Vec<&str> = list
            .manifests
            .iter()
            .map(|child| child.platform.as_ref().unwrap().architecture.as_str())
            .collect();
        assert_eq!(
            architectures,
            ["amd64", "arm64"],
            "attestations describe the base and are left out"
        );
        for child in &list.manifests {
            let bytes = read(&store, &Blob::from(child), MANIFEST_LIMIT).unwrap();
            let Manifest::Image(image) = Manifest::parse(&bytes, None).unwrap() else {
                panic!("a child is an image");
            };
            assert_eq!(image.layers.len(), 3, "the layers of the base stay below");
            assert_eq!(
                names(&store, &image.layers[1]),
                ["a/", ".wh.configs", "a/.wh.b"]
            );
            assert_eq!(
                names(&store, &image.layers[2]),
                ["configs/", "configs/one/", "configs/one/catalog.json"]
            );
            let config = Blob::from(image.config.as_ref().unwrap());
            let config: Json =
                serde_json::from_slice(&read(&store, &config, CONFIG_LIMIT).unwrap()).unwrap();
            assert_eq!(config["config"]["Cmd"], json!(["serve"]));
            assert_eq!(
                config["config"]["Labels"],
                json!({"there": "new", "kept": "yes"}),
                "a label is set only where the base has it"
            );
            assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
            assert_eq!(config["history"].as_array().unwrap().len(), 3);
        }
        for output in &outputs {
            assert!(
                crate::store::Sink::holds(&store, &output.blob).unwrap(),
                "what is said to be made is there"
            );
        }
        assert_eq!(
            outputs[0].blob.digest.to_string(),
            "sha256:e1a75f453f3df9d7f6e2d0f8673c8186f2486f491e8d042644c703418049bc7f",
            "bytes that move need a new revision of pack-image"
        );
        let again = pack(&wanted, &store, &AtomicBool::new(false)).unwrap();
        assert_eq!(again, outputs, "equal input, equal bytes");
    }

    #[test]
    fn a_docker_base_makes_a_docker_image() {
        let (_folder, store) = store();
        let base = image(&store, DOCKER_MANIFEST, "s390x");
        let archive = tarball(&[
            ("channels/", EntryType::Directory, ""),
            ("channels/a.yaml", EntryType::Regular, "a: 1\n"),
            ("raw/deep/b", EntryType::Regular, "b"),
        ]);
        let archive = store.insert(&archive).unwrap();
        let layer = Layer::Unpacked {
            archive,
            under: "var/lib/data".to_owned(),
        };
        let (manifest, outputs) = made(&store, &on(base, vec![layer]));
        let Manifest::Image(image) = manifest else {
            panic!("an image stays an image");
        };
        assert_eq!(outputs[0].media_type, DOCKER_MANIFEST);
        assert!(
            image
                .layers
                .iter()
                .all(|layer| layer.media_type == DOCKER_LAYER)
        );
        assert_eq!(
            names(&store, &image.layers[1]),
            [
                "var/",
                "var/lib/",
                "var/lib/data/",
                "var/lib/data/channels/",
                "var/lib/data/channels/a.yaml",
                "var/lib/data/raw/",
                "var/lib/data/raw/deep/",
                "var/lib/data/raw/deep/b"
            ]
        );
    }

    #[test]
    fn an_archive_that_does_what_a_layer_must_not_is_refused_by_entry() {
        let (_folder, store) = store();
        let base = image(&store, OCI_MANIFEST, "amd64");
        for (entries, part) in [
            (vec![("../x", EntryType::Regular, "x")], "leaves its folder"),
            (vec![("/x", EntryType::Regular, "x")], "absolute"),
            (
                vec![("x", EntryType::Symlink, "")],
                "neither a file nor a folder",
            ),
            (
                vec![("x", EntryType::Block, "")],
                "neither a file nor a folder",
            ),
            (
                vec![("a/.wh.x", EntryType::Regular, "")],
                "would hide another",
            ),
            (
                vec![
                    ("x", EntryType::Regular, "1"),
                    ("x", EntryType::Regular, "2"),
                ],
                "is there twice",
            ),
            (
                vec![
                    ("x", EntryType::Regular, "1"),
                    ("x/y", EntryType::Regular, "2"),
                ],
                "stands in a file",
            ),
        ] {
            let archive = store.insert(&tarball(&entries)).unwrap();
            let layer = Layer::Unpacked {
                archive,
                under: String::new(),
            };
            let error = pack(&on(base, vec![layer]), &store, &AtomicBool::new(false)).unwrap_err();
            assert!(
                error.to_string().contains(part),
                "{error} must say {part:?}"
            );
        }
    }

    #[test]
    fn an_artifact_stands_on_nothing() {
        let (_folder, store) = store();
        let chart = store.insert(b"a chart").unwrap();
        let config = store.insert(b"{}").unwrap();
        let wanted = Pack {
            base: None,
            layers: vec![Layer::Given {
                media_type: "application/vnd.cncf.helm.chart.content.v1.tar+gzip".to_owned(),
                blob: chart,
                annotations: BTreeMap::new(),
            }],
            config: Config::Given {
                media_type: "application/vnd.cncf.helm.config.v1+json".to_owned(),
                blob: config,
            },
        };
        assert_eq!(inputs(&wanted, &store).unwrap().len(), 2);
        let (manifest, _) = made(&store, &wanted);
        let Manifest::Image(image) = manifest else {
            panic!("an artifact is one manifest");
        };
        assert_eq!(
            image.layers[0].digest, chart.digest,
            "the blob is as it was"
        );
    }

    #[test]
    fn a_stop_leaves_no_layer() {
        let (_folder, store) = store();
        let base = image(&store, OCI_MANIFEST, "amd64");
        let file = store.insert(b"x").unwrap();
        let layer = Layer::Files(BTreeMap::from([("x".to_owned(), file)]));
        let error = pack(&on(base, vec![layer]), &store, &AtomicBool::new(true)).unwrap_err();
        assert!(matches!(error, PackError::Stopped), "{error}");
    }
}
