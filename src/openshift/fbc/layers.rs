//! The files of a catalog out of the layers of its image, without unpacking them.
//!
//! Layers are read top first, so an entry that is met is the one that counts unless a layer above replaced or
//! deleted it; nothing has to be undone. Of whiteouts, paths and kinds only what touches the catalog's folder is
//! kept. Follows the OCI image specification, `layer.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read};

use super::catalog::{Builder, Spool};
use super::{Catalog, FbcError, Limits};

/// The label of a file-based catalog: the folder it is in.
pub const CONFIGS_LABEL: &str = "operators.operatorframework.io.index.configs.v1";
/// The label of an sqlite catalog.
pub const DATABASE_LABEL: &str = "operators.operatorframework.io.index.database.v1";

/// Longest path, and longest list of extended headers, that is read.
const LONGEST_NAME: u64 = 1 << 20;

/// The folder that a catalog is in, by the labels of its image's config.
///
/// # Errors
/// If it is no catalog, or only one in an sqlite database.
pub fn configs_path(labels: &BTreeMap<String, String>) -> Result<String, FbcError> {
    let Some(path) = labels.get(CONFIGS_LABEL) else {
        return Err(match labels.get(DATABASE_LABEL) {
            Some(database) => FbcError::Sqlite {
                database: database.clone(),
            },
            None => FbcError::NoCatalog,
        });
    };
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if !path.starts_with('/') || parts.is_empty() || parts.contains(&"..") {
        return Err(FbcError::Label { path: path.clone() });
    }
    Ok(parts.join("/"))
}

/// Reads the catalog in folder `configs` (as [`configs_path`] gives it) of an image.
///
/// `layers` gives the blobs of the manifest's layers from the last to the first: tar, plain or compressed with gzip
/// or zstd. Each is read to its end, so a reader that checks a digest gets to check it.
///
/// # Errors
/// If a layer cannot be read or is larger than `limits`; if the folder holds anything but files and folders, or an
/// entry twice in one layer; if a file is not a catalog; if there is no file at all.
pub fn read_layers<'l, S: Spool>(
    configs: &str,
    layers: impl IntoIterator<Item = io::Result<Box<dyn Read + 'l>>>,
    spool: S,
    limits: Limits,
) -> Result<Catalog<S>, FbcError> {
    let mut walk = Walk {
        configs,
        limits,
        builder: Builder::new(spool, limits),
        above: Above::default(),
        entries: 0,
        unpacked: 0,
        members: 0,
    };
    for (index, layer) in layers.into_iter().enumerate() {
        let layer_number = index + 1;
        let failed = |source| FbcError::Layer {
            layer: layer_number,
            source,
        };
        let mut unpacked = unpack(layer.map_err(failed)?).map_err(failed)?;
        walk.layer(layer_number, &mut *unpacked)?;
    }
    if walk.members == 0 {
        return Err(FbcError::Empty {
            path: format!("/{configs}"),
        });
    }
    walk.builder.finish()
}

/// Undoes the compression, told by the first bytes.
fn unpack<'l>(layer: Box<dyn Read + 'l>) -> io::Result<Box<dyn Read + 'l>> {
    let mut layer = BufReader::with_capacity(128 << 10, layer);
    // A first read may be short of the magic number.
    let mut first = [0; 6];
    let mut have = 0;
    while have < first.len() {
        match layer.read(&mut first[have..]) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let first = first[..have].to_vec();
    let gzip = first.starts_with(&[0x1f, 0x8b]);
    let zstd = first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let other = [
        (&b"BZh"[..], "bzip2"),
        (&[0xfd, b'7', b'z', b'X', b'Z'][..], "xz"),
    ]
    .into_iter()
    .find(|(magic, _)| first.starts_with(magic));
    if let Some((_, name)) = other {
        return Err(io::Error::other(format!(
            "it is compressed with {name}; layers are plain, gzip or zstd"
        )));
    }
    let whole = io::Cursor::new(first).chain(layer);
    Ok(if gzip {
        Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(whole)))
    } else if zstd {
        Box::new(zstd::stream::Decoder::with_buffer(BufReader::new(whole))?)
    } else {
        Box::new(whole)
    })
}

/// What the layers above say about paths of this one.
#[derive(Default)]
struct Above {
    /// The path and everything below it is deleted or replaced.
    gone: BTreeSet<String>,
    /// Everything below the path is deleted.
    opaque: BTreeSet<String>,
    /// The path is a folder.
    folders: BTreeSet<String>,
}

impl Above {
    fn hides(&self, path: &str, folder: bool) -> bool {
        if !folder && self.folders.contains(path) {
            return true;
        }
        if self.gone.contains(path) {
            return true;
        }
        path.match_indices('/')
            .any(|(at, _)| self.gone.contains(&path[..at]) || self.opaque.contains(&path[..at]))
            || (!path.is_empty() && self.opaque.contains(""))
    }
}

struct Walk<'w, S> {
    configs: &'w str,
    limits: Limits,
    builder: Builder<S>,
    above: Above,
    entries: u64,
    unpacked: u64,
    members: u64,
}

/// How a path stands to the catalog's folder.
enum Relation<'p> {
    /// Below it; the rest of the path.
    Below(&'p str),
    /// It itself, or above it.
    Above,
    /// Neither.
    Beside,
}

impl<S: Spool> Walk<'_, S> {
    fn relation<'p>(&self, path: &'p str) -> Relation<'p> {
        if path.is_empty() || path == self.configs {
            return Relation::Above;
        }
        let below = |outer: &str, inner: &str| {
            inner.starts_with(outer) && inner.as_bytes().get(outer.len()) == Some(&b'/')
        };
        if below(self.configs, path) {
            Relation::Below(&path[self.configs.len() + 1..])
        } else if below(path, self.configs) {
            Relation::Above
        } else {
            Relation::Beside
        }
    }

    fn layer(&mut self, layer: usize, unpacked: &mut dyn Read) -> Result<(), FbcError> {
        let limit = self.limits.unpacked;
        let mut counted = Counted {
            reader: unpacked,
            left: limit.saturating_sub(self.unpacked),
            over: false,
        };
        let before = counted.left;
        let mut here = Here::default();
        let walked = {
            let mut archive = tar::Archive::new(&mut counted);
            self.entries(layer, &mut archive, &mut here)
        };
        let drained = match &walked {
            Ok(()) => io::copy(&mut counted, &mut io::sink()).map(|_| ()),
            Err(_) => Ok(()),
        };
        self.unpacked += before - counted.left;
        if counted.over {
            return Err(FbcError::Limit {
                place: format!("layer {layer} from the top"),
                what: "the unpacked size of all layers together",
                limit,
            });
        }
        walked?;
        drained.map_err(|source| FbcError::Layer { layer, source })?;
        self.above.gone.append(&mut here.gone);
        self.above.gone.append(&mut here.files);
        self.above.opaque.append(&mut here.opaque);
        self.above.folders.append(&mut here.folders);
        Ok(())
    }

    fn entries(
        &mut self,
        layer: usize,
        archive: &mut tar::Archive<&mut Counted<'_>>,
        here: &mut Here,
    ) -> Result<(), FbcError> {
        let failed = |source| FbcError::Layer { layer, source };
        let mut long_name: Option<Vec<u8>> = None;
        let mut extended_path: Option<Vec<u8>> = None;
        for entry in archive.entries().map_err(failed)?.raw(true) {
            let mut entry = entry.map_err(failed)?;
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(FbcError::Limit {
                    place: format!("layer {layer} from the top"),
                    what: "the number of entries of all layers together",
                    limit: self.limits.entries,
                });
            }
            let kind = entry.header().entry_type();
            let size = entry.header().entry_size().map_err(failed)?;
            let refuse = |name: &[u8], reason: String| FbcError::Entry {
                layer,
                entry: String::from_utf8_lossy(&name[..name.len().min(200)]).into_owned(),
                reason,
            };
            if kind.is_gnu_longname()
                || kind.is_gnu_longlink()
                || kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions()
            {
                if size > LONGEST_NAME {
                    let name = entry.path_bytes().into_owned();
                    return Err(refuse(
                        &name,
                        format!(
                            "an extended header of {size} bytes, over the limit of {LONGEST_NAME}"
                        ),
                    ));
                }
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(failed)?;
                if kind.is_gnu_longname() {
                    while bytes.last() == Some(&0) {
                        bytes.pop();
                    }
                    long_name = Some(bytes);
                } else if kind.is_pax_local_extensions() {
                    for (key, value) in records(&bytes).ok_or_else(|| {
                        refuse(b"(extended header)", "it cannot be read".to_owned())
                    })? {
                        match key {
                            b"path" => extended_path = Some(value.to_vec()),
                            b"size" => here.size = Some(value.to_vec()),
                            _ => {}
                        }
                    }
                }
                continue;
            }
            let name = extended_path
                .take()
                .or_else(|| long_name.take())
                .unwrap_or_else(|| entry.path_bytes().into_owned());
            long_name = None;
            if let Some(stated) = here.size.take()
                && stated != size.to_string().as_bytes()
            {
                return Err(refuse(
                    &name,
                    "two sizes are given for it, and readers differ about which counts".to_owned(),
                ));
            }
            if kind.is_gnu_sparse() {
                return Err(refuse(&name, "sparse files are not read".to_owned()));
            }
            let Some((path, text)) = normal(&name) else {
                return Err(refuse(&name, "the path leaves the image".to_owned()));
            };
            if size > self.limits.member && matches!(self.relation(&path), Relation::Below(_)) {
                let limit = self.limits.member;
                return Err(refuse(
                    &name,
                    format!("it is said to have {size} bytes, over the limit of {limit}"),
                ));
            }
            self.entry(layer, &path, text, kind, &mut entry, here)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        layer: usize,
        path: &str,
        is_text: bool,
        kind: tar::EntryType,
        reader: &mut dyn Read,
        here: &mut Here,
    ) -> Result<(), FbcError> {
        let refuse = |reason: &str| FbcError::Entry {
            layer,
            entry: path.to_owned(),
            reason: reason.to_owned(),
        };
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if let Some(hidden) = name.strip_prefix(".wh.") {
            let target = if name == ".wh..wh..opq" {
                folder.to_owned()
            } else if folder.is_empty() {
                hidden.to_owned()
            } else {
                format!("{folder}/{hidden}")
            };
            if !matches!(self.relation(&target), Relation::Beside) {
                if name == ".wh..wh..opq" {
                    here.opaque.insert(target);
                } else {
                    here.gone.insert(target);
                }
            }
            return Ok(());
        }
        let is_folder = kind.is_dir();
        match self.relation(path) {
            Relation::Beside => Ok(()),
            _ if self.above.hides(path, is_folder) => Ok(()),
            Relation::Above | Relation::Below(_) if is_folder => {
                here.folders.insert(path.to_owned());
                Ok(())
            }
            Relation::Above => Err(refuse(
                "the folder of the catalog, or one above it, is not a folder",
            )),
            Relation::Below(_) if !is_text => Err(refuse("the path is not UTF-8")),
            Relation::Below(_) if !(kind.is_file() || kind.is_contiguous()) => {
                Err(refuse(if kind.is_symlink() || kind.is_hard_link() {
                    "links are not followed"
                } else {
                    "neither a file nor a folder"
                }))
            }
            Relation::Below(relative) => {
                if !here.files.insert(path.to_owned()) {
                    return Err(refuse("the layer has it twice"));
                }
                self.members += 1;
                let mut relayed = Relayed {
                    reader,
                    failed: None,
                };
                let result = self.builder.member(relative, &mut relayed);
                match relayed.failed {
                    Some(source) => Err(FbcError::Layer { layer, source }),
                    None => result,
                }
            }
        }
    }
}

/// What the layer being read says to those below.
#[derive(Default)]
struct Here {
    gone: BTreeSet<String>,
    opaque: BTreeSet<String>,
    folders: BTreeSet<String>,
    files: BTreeSet<String>,
    /// What an extended header says about the size of the next entry.
    size: Option<Vec<u8>>,
}

/// A path from the image's root without `.` and empty parts, and whether it is UTF-8; `None` if it has `..`.
fn normal(name: &[u8]) -> Option<(String, bool)> {
    let text = String::from_utf8_lossy(name);
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") {
        return None;
    }
    let is_text = std::str::from_utf8(name).is_ok() && !name.contains(&0);
    Some((parts.join("/"), is_text))
}

/// The records of a PAX header: `length key=value\n`.
fn records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let space = memchr::memchr(b' ', bytes)?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = memchr::memchr(b'=', record)?;
        found.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[length..];
    }
    Some(found)
}

/// Counts what a layer unpacks to.
struct Counted<'r> {
    reader: &'r mut dyn Read,
    left: u64,
    over: bool,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let Some(left) = self.left.checked_sub(read as u64) else {
            self.over = true;
            return Err(io::Error::other("the layer unpacks to more than the limit"));
        };
        self.left = left;
        Ok(read)
    }
}

/// Tells an error of the layer from one of the file in it.
struct Relayed<'r> {
    reader: &'r mut dyn Read,
    failed: Option<io::Error>,
}

impl Read for Relayed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let told = io::Error::from(error.kind());
            self.failed = Some(error);
            told
        })
    }
}
