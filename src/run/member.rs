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
    /// Links lead in a circle.
    #[error("links lead from {path} to no file")]
    Circle {
        /// Where they begin.
        path: String,
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
        let mut found: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        let sight = read_layer(
            layer,
            wanted,
            &undecided,
            open,
            &mut |index, member, bytes| {
                if member.size > limit {
                    return Err(Taken::Refused(MemberError::Large {
                        path: wanted[index].to_owned(),
                        size: member.size,
                        limit,
                    }));
                }
                let mut content = Vec::new();
                bytes.read_to_end(&mut content).map_err(Taken::Read)?;
                found.insert(index, content);
                Ok(())
            },
        )?;
        if let Some(link) = sight.links.into_values().next() {
            return Err(MemberError::Kind {
                path: link.path,
                found: if link.is_hard {
                    "hard link"
                } else {
                    "symbolic link"
                },
                layer: layer.digest,
            });
        }
        for index in sight.found {
            out[index] = found.remove(&index);
            undecided.remove(&index);
        }
        undecided.retain(|index| !sight.hidden.contains(index));
    }
    Ok(out)
}

/// What is known of a file before its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its length in bytes.
    pub size: u64,
    /// When it was last changed, in seconds since 1970.
    pub modified: u64,
}

/// Takes the bytes of a file as they come. Called again, it starts anew: only what came last counts, and only once the
/// reading has ended well.
pub type TakeMember<'a> = &'a mut dyn FnMut(&Member, &mut dyn Read) -> io::Result<()>;

/// Hands the file at `path` (without a leading slash) of `layers`, the lowest first, to `take` in one pass, however long
/// it is. Links are followed, inside the image only. `None` where the image has no such file.
///
/// # Errors
/// If a layer cannot be read, `take` fails, links lead in a circle, or something in the way is neither file nor link.
pub fn stream_member(
    layers: &[Descriptor],
    path: &str,
    open: OpenLayer<'_>,
    take: TakeMember<'_>,
) -> Result<Option<Member>, MemberError> {
    let mut wanted = clean(path.as_bytes());
    // A hard link names a file of its own layer or of one below.
    let mut top = layers.len();
    for _ in 0..LINKS_LIMIT {
        let mut next = None;
        for (number, layer) in layers[..top].iter().enumerate().rev() {
            let mut member = None;
            let undecided = BTreeSet::from([0]);
            let sight = read_layer(
                layer,
                &[wanted.as_str()],
                &undecided,
                open,
                &mut |_, found, bytes| {
                    member = Some(*found);
                    take(found, bytes).map_err(Taken::Read)
                },
            )?;
            if sight.found.contains(&0) {
                return Ok(member);
            }
            if let Some(link) = sight.links.get(&0) {
                next = Some((
                    link.follow(&wanted),
                    if link.is_hard {
                        number + 1
                    } else {
                        layers.len()
                    },
                ));
                break;
            }
            if sight.hidden.contains(&0) {
                return Ok(None);
            }
        }
        match next {
            None => return Ok(None),
            Some((path, from)) => (wanted, top) = (path, from),
        }
    }
    Err(MemberError::Circle {
        path: path.to_owned(),
    })
}

/// Most links that are followed on the way to a file, as kernels do it.
const LINKS_LIMIT: usize = 40;

/// A link that stands where a wanted file, or a folder on its path, should be.
struct Link {
    path: String,
    target: String,
    is_hard: bool,
}

impl Link {
    /// Where the way to `wanted`, which leads over this link, goes on.
    fn follow(&self, wanted: &str) -> String {
        let rest = wanted.strip_prefix(&self.path).unwrap_or_default();
        let folder = match self.path.rsplit_once('/') {
            Some((folder, _)) if !self.is_hard && !self.target.starts_with('/') => folder,
            _ => "",
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in folder
            .split('/')
            .chain(self.target.split('/'))
            .chain(rest.split('/'))
        {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.join("/")
    }
}

/// What one layer says of the wanted files.
#[derive(Default)]
struct Sight {
    found: BTreeSet<usize>,
    hidden: BTreeSet<usize>,
    links: BTreeMap<usize, Link>,
}

/// Why a file was not taken.
enum Taken {
    /// Its bytes could not be read, or not be put where they go.
    Read(io::Error),
    /// It is not wanted as it is.
    Refused(MemberError),
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
    open: OpenLayer<'_>,
    take: &mut dyn FnMut(usize, &Member, &mut dyn Read) -> Result<(), Taken>,
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
            let link = || {
                let target = entry.link_name_bytes().unwrap_or_default();
                Link {
                    path: path.clone(),
                    target: String::from_utf8_lossy(&target).into_owned(),
                    is_hard: kind == EntryType::Link,
                }
            };
            let is_link = matches!(kind, EntryType::Link | EntryType::Symlink);
            let wrong = || MemberError::Kind {
                path: path.clone(),
                found,
                layer: layer.digest,
            };
            if target == path {
                sight.links.remove(index);
                if found == "folder" {
                    sight.found.remove(index);
                    sight.hidden.insert(*index);
                    continue;
                }
                if is_link {
                    sight.found.remove(index);
                    sight.links.insert(*index, link());
                    continue;
                }
                if found != "file" {
                    return Err(wrong());
                }
                let member = Member {
                    size: entry.size(),
                    modified: entry.header().mtime().unwrap_or(0),
                };
                match take(*index, &member, &mut entry) {
                    Ok(()) => {}
                    Err(Taken::Read(source)) => return Err(failed(source)),
                    Err(Taken::Refused(error)) => return Err(error),
                }
                sight.found.insert(*index);
                break;
            }
            if found != "folder" && is_under(target, &path) {
                if is_link {
                    sight.links.insert(*index, link());
                    continue;
                }
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

    fn described(bytes: &[u8]) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            platform: None,
            artifact_type: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }

    fn read(layers: &[Vec<u8>], wanted: &[&str]) -> Result<Vec<Option<String>>, MemberError> {
        let descriptors: Vec<Descriptor> = layers.iter().map(|bytes| described(bytes)).collect();
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

    /// A layer with links in it: (path, target, whether it is a hard one).
    fn linked(links: &[(&str, &str, bool)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, target, is_hard) in links {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o777);
            header.set_size(0);
            header.set_entry_type(if *is_hard {
                EntryType::Link
            } else {
                EntryType::Symlink
            });
            builder.append_link(&mut header, path, target).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn links_are_followed_inside_the_image() {
        use Made::File;
        let base = || layer(&[File("usr/bin/oc", "program"), File("opt/x", "x")], "gzip");
        let (soft, hard) = (false, true);
        for (what, layers, wanted) in [
            ("no link", vec![base()], Some("program")),
            (
                "relative",
                vec![base(), linked(&[("usr/bin/oc", "../../opt/x", soft)])],
                Some("x"),
            ),
            (
                "absolute",
                vec![base(), linked(&[("usr/bin/oc", "/opt/x", soft)])],
                Some("x"),
            ),
            (
                "a folder",
                vec![
                    base(),
                    linked(&[("usr/bin", "../srv", soft)]),
                    layer(&[File("srv/oc", "new")], "plain"),
                ],
                Some("new"),
            ),
            (
                "beyond the root",
                vec![base(), linked(&[("usr/bin/oc", "../../../../opt/x", soft)])],
                Some("x"),
            ),
            (
                "hard, to a layer below",
                vec![
                    base(),
                    linked(&[("usr/bin/oc", "opt/x", hard)]),
                    layer(&[File("opt/.wh.x", "")], "plain"),
                ],
                Some("x"),
            ),
            (
                "symbolic, to what is gone",
                vec![
                    base(),
                    linked(&[("usr/bin/oc", "/opt/x", soft)]),
                    layer(&[File("opt/.wh.x", "")], "plain"),
                ],
                None,
            ),
            (
                "two",
                vec![
                    base(),
                    linked(&[("usr/bin/oc", "a", soft), ("usr/bin/a", "/opt/x", soft)]),
                ],
                Some("x"),
            ),
            (
                "replaced again",
                vec![
                    base(),
                    linked(&[("usr/bin/oc", "/opt/x", soft)]),
                    layer(&[File("usr/bin/oc", "new")], "zstd"),
                ],
                Some("new"),
            ),
            (
                "removed",
                vec![base(), layer(&[File("usr/.wh.bin", "")], "plain")],
                None,
            ),
        ] {
            let descriptors: Vec<Descriptor> =
                layers.iter().map(|bytes| described(bytes)).collect();
            let open = |descriptor: &Descriptor| {
                let bytes = layers
                    .iter()
                    .find(|bytes| Digest::of(bytes) == descriptor.digest);
                Ok(Box::new(io::Cursor::new(bytes.unwrap().clone())) as Box<dyn Read + Send>)
            };
            let mut content = String::new();
            let found = stream_member(&descriptors, "usr/bin/oc", &open, &mut |member, bytes| {
                content.clear();
                let read = bytes.read_to_string(&mut content)?;
                assert_eq!(read as u64, member.size, "the size comes first");
                Ok(())
            })
            .unwrap();
            assert_eq!(found.map(|_| content.as_str()), wanted, "{what}");
        }
        let circle = linked(&[("usr/bin/oc", "a", soft), ("usr/bin/a", "oc", soft)]);
        let open =
            |_: &Descriptor| Ok(Box::new(io::Cursor::new(circle.clone())) as Box<dyn Read + Send>);
        let error = stream_member(&[described(&circle)], "usr/bin/oc", &open, &mut |_, _| {
            Ok(())
        })
        .unwrap_err();
        assert!(matches!(error, MemberError::Circle { .. }), "{error}");
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
