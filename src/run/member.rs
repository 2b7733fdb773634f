//! A file out of an image: what a container of it would see at a path.
//!
//! Layers are read from the top down, and only as far as needed. A layer hides what lies below it by whiteouts
//! (`.wh.NAME`, and `.wh..wh..opq` for a whole folder) and by anything but a folder where a folder was. Layers are tar,
//! plain or compressed with gzip or Zstandard, whatever their media type says. Memory is bounded by the wanted files.
//!
//! Follows the OCI image specification 1.1, `layer.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use tar::{Archive, EntryType};

use crate::digest::Digest;
use crate::oci::Descriptor;

/// The most bytes that one layer may unpack to; the largest layers in the field have a tenth of it.
const UNPACKED_LIMIT: u64 = 64 << 30;

/// Prefix of a whiteout.
const WHITEOUT: &str = ".wh.";

/// Name of a whiteout for all that a folder holds in lower layers.
const OPAQUE: &str = ".wh..wh..opq";

/// Why a file cannot be read out of an image.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// A layer cannot be read.
    #[error("layer {layer} cannot be read")]
    Layer {
        /// Which layer.
        layer: Digest,
        /// Why.
        source: io::Error,
    },
    /// A layer unpacks to too much.
    #[error("layer {layer} unpacks to more than {UNPACKED_LIMIT} bytes")]
    Unpacked {
        /// Which layer.
        layer: Digest,
    },
    /// The file is too large.
    #[error("{path} has {size} bytes; at most {limit} are read")]
    Large {
        /// Which file.
        path: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The path, or a folder on it, is something else than files and folders.
    #[error("{path} is a {found} in layer {layer}; only plain files are read")]
    Kind {
        /// Which path.
        path: String,
        /// What it is.
        found: &'static str,
        /// In which layer.
        layer: Digest,
    },
}

/// Opens a layer's blob, which must end in an error unless its bytes are right.
pub type OpenLayer<'a> = &'a dyn Fn(&Descriptor) -> io::Result<Box<dyn Read + Send + 'a>>;

/// Reads the files at `wanted` (without a leading slash, of at most `limit` bytes each) out of `layers`, the lowest first.
/// Each comes as it is in the image, or as `None` where the image has no such file.
///
/// # Errors
/// If a layer cannot be read, or something in the way is no plain file.
pub fn read_members(
    layers: &[Descriptor],
    wanted: &[&str],
    limit: u64,
    open: OpenLayer<'_>,
) -> Result<Vec<Option<Vec<u8>>>, MemberError> {
    let mut out: Vec<Option<Vec<u8>>> = wanted.iter().map(|_| None).collect();
    let mut undecided: BTreeSet<usize> = (0..wanted.len()).collect();
    for layer in layers.iter().rev() {
        if undecided.is_empty() {
            break;
        }
        let sight = read_layer(layer, wanted, &undecided, limit, open)?;
        for (index, bytes) in sight.found {
            out[index] = Some(bytes);
            undecided.remove(&index);
        }
        undecided.retain(|index| !sight.hidden.contains(index));
    }
    Ok(out)
}

/// What one layer says of the wanted files.
#[derive(Default)]
struct Sight {
    found: BTreeMap<usize, Vec<u8>>,
    hidden: BTreeSet<usize>,
}

/// Stops a stream that unpacks to too much.
struct Bounded<R> {
    inner: R,
    left: u64,
}

/// Marks the error of [`Bounded`].
#[derive(Debug, thiserror::Error)]
#[error("too many bytes")]
struct TooMany;

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other(TooMany))?;
        Ok(count)
    }
}

fn read_layer(
    layer: &Descriptor,
    wanted: &[&str],
    undecided: &BTreeSet<usize>,
    limit: u64,
    open: OpenLayer<'_>,
) -> Result<Sight, MemberError> {
    let failed = |source: io::Error| {
        let is_bomb = source
            .get_ref()
            .is_some_and(|inner| inner.downcast_ref::<TooMany>().is_some());
        if is_bomb {
            MemberError::Unpacked {
                layer: layer.digest,
            }
        } else {
            MemberError::Layer {
                layer: layer.digest,
                source,
            }
        }
    };
    let mut raw = open(layer).map_err(failed)?;
    let mut start = [0; 4];
    let mut length = 0;
    while length < start.len() {
        let count = raw.read(&mut start[length..]).map_err(failed)?;
        if count == 0 {
            break;
        }
        length += count;
    }
    let whole = io::Cursor::new(start[..length].to_vec()).chain(&mut raw);
    let unpacked: Box<dyn Read + '_> = match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(whole).map_err(failed)?),
        _ => Box::new(whole),
    };
    let mut archive = Archive::new(Bounded {
        inner: unpacked,
        left: UNPACKED_LIMIT,
    });
    let mut sight = Sight::default();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let path = clean(&entry.path_bytes());
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            for index in undecided {
                let hides = if name == OPAQUE {
                    is_under(wanted[*index], folder)
                } else {
                    let gone = if folder.is_empty() {
                        hidden.to_owned()
                    } else {
                        format!("{folder}/{hidden}")
                    };
                    wanted[*index] == gone || is_under(wanted[*index], &gone)
                };
                if hides {
                    sight.hidden.insert(*index);
                }
            }
            continue;
        }
        let kind = entry.header().entry_type();
        for index in undecided {
            let target = wanted[*index];
            let found = match kind {
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => "file",
                EntryType::Directory => "folder",
                EntryType::Link => "hard link",
                EntryType::Symlink => "symbolic link",
                _ => "special file",
            };
            let wrong = || MemberError::Kind {
                path: path.clone(),
                found,
                layer: layer.digest,
            };
            if target == path {
                if found == "folder" {
                    sight.found.remove(index);
                    sight.hidden.insert(*index);
                    continue;
                }
                if found != "file" {
                    return Err(wrong());
                }
                let size = entry.size();
                if size > limit {
                    return Err(MemberError::Large { path, size, limit });
                }
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(failed)?;
                sight.found.insert(*index, bytes);
                break;
            }
            if found != "folder" && is_under(target, &path) {
                if found != "file" {
                    return Err(wrong());
                }
                sight.hidden.insert(*index);
            }
        }
    }
    // Only at its end does a layer prove that its bytes are right.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(failed)?;
    io::copy(&mut raw, &mut io::sink()).map_err(failed)?;
    Ok(sight)
}

/// A path as it is compared: without `./`, doubled or surrounding slashes.
fn clean(path: &[u8]) -> String {
    String::from_utf8_lossy(path)
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect::<Vec<_>>()
        .join("/")
}

/// Whether `path` lies in the folder `folder`; the root is the empty folder.
fn is_under(path: &str, folder: &str) -> bool {
    folder.is_empty()
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// One member of a layer: a path, and text, or what else it is.
    enum Made<'a> {
        File(&'a str, &'a str),
        Folder(&'a str),
        Link(&'a str),
    }

    fn layer(members: &[Made<'_>], packing: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for member in members {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            let (path, content) = match member {
                Made::File(path, content) => (*path, *content),
                Made::Folder(path) => {
                    header.set_entry_type(EntryType::Directory);
                    (*path, "")
                }
                Made::Link(path) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_link_name("elsewhere").unwrap();
                    (*path, "")
                }
            };
            header.set_size(content.len() as u64);
            builder
                .append_data(&mut header, path, content.as_bytes())
                .unwrap();
        }
        let plain = builder.into_inner().unwrap();
        match packing {
            "gzip" => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&plain).unwrap();
                encoder.finish().unwrap()
            }
            "zstd" => zstd::encode_all(plain.as_slice(), 1).unwrap(),
            _ => plain,
        }
    }

    fn read(layers: &[Vec<u8>], wanted: &[&str]) -> Result<Vec<Option<String>>, MemberError> {
        let descriptors: Vec<Descriptor> = layers
            .iter()
            .map(|bytes| Descriptor {
                media_type: String::new(),
                digest: Digest::of(bytes),
                size: bytes.len() as u64,
                platform: None,
                artifact_type: None,
                urls: Vec::new(),
                annotations: BTreeMap::new(),
            })
            .collect();
        let open = |descriptor: &Descriptor| {
            let bytes = layers
                .iter()
                .find(|bytes| Digest::of(bytes) == descriptor.digest);
            Ok(Box::new(io::Cursor::new(bytes.unwrap().clone())) as Box<dyn Read + Send>)
        };
        let found = read_members(&descriptors, wanted, 100, &open)?;
        Ok(found
            .into_iter()
            .map(|bytes| bytes.map(|bytes| String::from_utf8(bytes).unwrap()))
            .collect())
    }

    #[test]
    fn the_highest_layer_that_has_a_file_decides() {
        use Made::{File, Folder};
        for (what, upper, wanted) in [
            ("nothing", vec![File("x", "")], Some("low")),
            ("the file", vec![File("./a/b", "high")], Some("high")),
            (
                "the file twice",
                vec![File("a/b", "first"), File("a//b", "last")],
                Some("last"),
            ),
            ("a whiteout of the file", vec![File("a/.wh.b", "")], None),
            ("a whiteout of its folder", vec![File(".wh.a", "")], None),
            (
                "an opaque folder",
                vec![Folder("a"), File("a/.wh..wh..opq", "")],
                None,
            ),
            (
                "an opaque folder with the file",
                vec![File("a/.wh..wh..opq", ""), File("a/b", "new")],
                Some("new"),
            ),
            ("an opaque root", vec![File(".wh..wh..opq", "")], None),
            ("a file instead of its folder", vec![File("a", "")], None),
            ("a folder instead of it", vec![Folder("a/b")], None),
            (
                "a whiteout of another file",
                vec![File("a/.wh.bc", ""), File(".wh.ab", "")],
                Some("low"),
            ),
        ] {
            for packing in ["plain", "gzip", "zstd"] {
                let layers = [
                    layer(&[File("a/b", "low"), File("c", "")], packing),
                    layer(&upper, packing),
                ];
                let found = read(&layers, &["a/b", "c"]).unwrap();
                assert_eq!(
                    found[0].as_deref(),
                    wanted,
                    "{what} in the upper layer ({packing})"
                );
            }
        }
    }

    #[test]
    fn lower_layers_are_not_opened_once_all_is_known() {
        let layers = [
            b"no tar at all, and never read".to_vec(),
            layer(&[Made::File("a", "x")], "gzip"),
        ];
        assert_eq!(
            read(&layers, &["a"]).unwrap(),
            [Some("x".to_owned())],
            "the upper layer has it"
        );
        assert!(
            read(&layers, &["a", "b"]).is_err(),
            "what it lacks is looked for below"
        );
    }

    #[test]
    fn what_is_no_plain_file_is_refused_by_name() {
        let long = "x".repeat(101);
        for (members, part) in [
            (vec![Made::Link("a/b")], "a/b is a symbolic link"),
            (vec![Made::Link("a")], "a is a symbolic link"),
            (vec![Made::File("a/b", &long)], "a/b has 101 bytes"),
        ] {
            let error = read(&[layer(&members, "plain")], &["a/b"]).unwrap_err();
            assert!(error.to_string().contains(part), "{error} must say {part}");
        }
        let mut cut = layer(&[Made::File("a/b", "text")], "gzip");
        cut.truncate(cut.len() - 9);
        assert!(
            read(&[cut], &["a/b"]).is_err(),
            "a layer that is cut off proves nothing"
        );
    }

    #[test]
    fn what_unpacks_without_end_is_stopped() {
        let mut bounded = Bounded {
            inner: io::repeat(0),
            left: 1000,
        };
        let error = io::copy(&mut bounded, &mut io::sink()).unwrap_err();
        assert!(
            error.get_ref().unwrap().downcast_ref::<TooMany>().is_some(),
            "the limit is what stops it"
        );
    }
}
