//! The live upstream: registries, OCI layouts on disk, and plain files from servers or from disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::realise::Upstream;
use super::resolve::{Answer, Names};
use crate::digest::Digest;
use crate::oci::{Descriptor, MANIFEST_LIMIT, REF_NAME};
use crate::plan::lock::Origin as PinOrigin;
use crate::reference::{ImageName, LayoutName, Repository, Tag};
use crate::registry::client::{Client, GetOptions};
use crate::step::{Address, Content, Origin};
use crate::store::disk::{Access, Store};
use crate::store::{Blob, Source, read};

/// Everything outside: asked through one client.
pub struct Live {
    client: Client,
    base: PathBuf,
    places: Places,
}

/// Where files are, other than where their addresses say.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Files and folders that stand for URLs, and for all URLs that start with them.
    pub local: BTreeMap<String, String>,
    /// The stores of signatures: URLs or folders, in order.
    pub signatures: Vec<String>,
}

/// A file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The server does not give it.
    #[error("{address} answers with status {status}")]
    Status {
        /// What was asked.
        address: String,
        /// The HTTP status.
        status: u16,
    },
    /// It is too large.
    #[error("{address} has more than {limit} bytes")]
    Large {
        /// What was asked.
        address: String,
        /// The limit.
        limit: u64,
    },
    /// It is a folder.
    #[error("{} is a folder", path.display())]
    Folder {
        /// The path.
        path: PathBuf,
    },
    /// The disk fails.
    #[error("cannot read {}", path.display())]
    Disk {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        Self::other(error)
    }
}

/// An OCI layout is not there, or does not say which image is meant.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// There is no layout.
    #[error("there is no OCI layout at {path}")]
    None {
        /// Where it should be.
        path: String,
    },
    /// Several images, and the name does not choose one.
    #[error("{name} may be any of {count} images: {names}")]
    Ambiguous {
        /// The name.
        name: String,
        /// How many there are.
        count: usize,
        /// What they are called.
        names: String,
    },
}

impl Live {
    /// Asks through `client`; relative paths of layouts are under `base`.
    #[must_use]
    pub fn new(client: Client, base: PathBuf) -> Self {
        Self {
            client,
            base,
            places: Places::default(),
        }
    }

    /// The same, with files where `places` says.
    #[must_use]
    pub fn with_places(mut self, places: Places) -> Self {
        self.places = places;
        self
    }

    /// The path on disk that an address stands for, if it stands for one. What stands behind the part that is replaced
    /// follows the path.
    fn local(&self, address: &str) -> Option<PathBuf> {
        let matches = |prefix: &str| {
            address.strip_prefix(prefix).is_some_and(|rest| {
                prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/')
            })
        };
        let replaced = self
            .places
            .local
            .iter()
            .filter(|(from, _)| matches(from))
            .max_by_key(|(from, _)| from.len());
        if let Some((from, to)) = replaced {
            let rest = address[from.len()..].trim_start_matches('/');
            let to = self.base.join(to.strip_prefix("file://").unwrap_or(to));
            return Some(if rest.is_empty() { to } else { to.join(rest) });
        }
        match address.split_once("://") {
            Some(("file", path)) => Some(PathBuf::from(path)),
            Some(_) => None,
            None => Some(self.base.join(address)),
        }
    }

    fn layout(&self, path: &str) -> io::Result<Store> {
        let folder = self.base.join(path);
        if !folder.join("index.json").is_file() {
            let path = path.to_owned();
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                LayoutError::None { path },
            ));
        }
        Store::open(&folder, Access::ReadOnly).map_err(io::Error::from)
    }

    fn resolve_layout(&self, name: &LayoutName) -> io::Result<Option<Answer>> {
        let layout = self.layout(&name.path)?;
        let images = layout.index().map_err(io::Error::from)?;
        let Some(chosen) = choose(name, &images)? else {
            return Ok(None);
        };
        let bytes = read(&layout, &Blob::from(chosen), MANIFEST_LIMIT).map_err(io::Error::other)?;
        let media_type = (!chosen.media_type.is_empty()).then(|| chosen.media_type.clone());
        Ok(Some(Answer {
            origin: PinOrigin::Layout(name.path.clone()),
            media_type,
            bytes,
        }))
    }
}

/// The image of a layout that a name means: by digest, by its ref name (whole, or the tag behind its last colon), or the
/// only one there is. What may be several different images is refused.
fn choose<'a>(name: &LayoutName, images: &'a [Descriptor]) -> io::Result<Option<&'a Descriptor>> {
    if let Some(digest) = name.digest {
        return Ok(images.iter().find(|image| image.digest == digest));
    }
    let called = |image: &Descriptor| image.annotations.get(REF_NAME).cloned().unwrap_or_default();
    let candidates: Vec<&Descriptor> = match &name.tag {
        None => images.iter().collect(),
        Some(tag) => {
            let suffix = format!(":{tag}");
            match images.iter().find(|image| called(image) == tag.as_str()) {
                Some(exact) => vec![exact],
                None => images
                    .iter()
                    .filter(|image| called(image).ends_with(&suffix))
                    .collect(),
            }
        }
    };
    let Some(first) = candidates.first() else {
        return Ok(None);
    };
    if candidates.iter().all(|image| image.digest == first.digest) {
        return Ok(Some(first));
    }
    let names: Vec<String> = candidates
        .iter()
        .map(|image| format!("{} (@{})", called(image), image.digest))
        .take(10)
        .collect();
    Err(io::Error::other(LayoutError::Ambiguous {
        name: ImageName::Layout(name.clone()).to_string(),
        count: candidates.len(),
        names: names.join(", "),
    }))
}

impl Names for Live {
    fn referrers(&self, repository: &Repository, digest: &Digest) -> io::Result<Vec<Digest>> {
        let found = self.client.referrers(repository, *digest);
        let mut digests: Vec<Digest> = found
            .map_err(io::Error::other)?
            .into_iter()
            .map(|descriptor| descriptor.digest)
            .collect();
        digests.sort();
        digests.dedup();
        Ok(digests)
    }

    fn resolve(&self, name: &ImageName) -> io::Result<Option<Answer>> {
        match name {
            ImageName::Layout(name) => self.resolve_layout(name),
            ImageName::Registry(reference) => {
                let found = self.client.resolve(reference).map_err(io::Error::other)?;
                Ok(found.map(|found| Answer {
                    origin: PinOrigin::Registry(reference.repository.clone()),
                    media_type: Some(found.descriptor.media_type),
                    bytes: found.bytes,
                }))
            }
        }
    }

    fn get(&self, address: &Address, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let name = address.to_string();
        if let Some(path) = self.local(&address.base) {
            let path = match &address.file {
                Some(file) if path.is_dir() => path.join(file),
                _ => path,
            };
            let Some(file) = open(&path)? else {
                return Ok(None);
            };
            return bounded(Box::new(file), &name, limit).map(Some);
        }
        let mut url = address.base.clone();
        if !address.query.is_empty() {
            let query = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(&address.query)
                .finish();
            let mark = if url.contains('?') { '&' } else { '?' };
            url = format!("{url}{mark}{query}");
        }
        let options = GetOptions {
            accept: address.accept.clone(),
            limit: Some(limit),
            ..GetOptions::default()
        };
        let got = self.client.get(&url, &options).map_err(io::Error::other)?;
        match got.status {
            200 => bounded(got.body, &name, limit).map(Some),
            404 | 410 => Ok(None),
            status => Err(FileError::Status {
                address: name,
                status,
            }
            .into()),
        }
    }

    fn tags(&self, repository: &Repository) -> io::Result<Option<Vec<Tag>>> {
        self.client.tags(repository).map_err(io::Error::other)
    }
}

/// Reads at most so many bytes.
fn bounded(reader: Box<dyn Read + Send + '_>, name: &str, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::Large {
            address: name.to_owned(),
            limit,
        }
        .into());
    }
    Ok(bytes)
}

/// Opens a plain file; `None` if there is none.
fn open(path: &Path) -> io::Result<Option<File>> {
    let disk = |source| FileError::Disk {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk(error).into()),
    };
    if file.metadata().map_err(disk)?.is_dir() {
        return Err(FileError::Folder {
            path: path.to_owned(),
        }
        .into());
    }
    Ok(Some(file))
}

/// A file at the first of some places that has it.
struct Anywhere<'a> {
    live: &'a Live,
    places: Vec<String>,
}

impl Source for Anywhere<'_> {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        let mut urls = Vec::new();
        for place in &self.places {
            let Some(path) = self.live.local(place) else {
                urls.push(place.clone());
                continue;
            };
            if let Some(mut file) = open(&path)? {
                file.seek(SeekFrom::Start(from))?;
                return Ok(Some(Box::new(file)));
            }
        }
        let mut last = Ok(None);
        for url in urls {
            // Signatures are small, so they are read whole, and the place that has it whole is the one that counts.
            match self.live.client.urls(vec![url]).open(blob, from) {
                Ok(None) => {}
                Ok(Some(mut reader)) => {
                    let mut bytes = Vec::new();
                    reader.read_to_end(&mut bytes)?;
                    return Ok(Some(Box::new(io::Cursor::new(bytes))));
                }
                Err(error) => last = Err(error),
            }
        }
        last
    }
}

/// A layout that stays open while it is read.
struct Opened(Store);

impl Source for Opened {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        self.0.open(blob, from)
    }
}

impl Upstream for Live {
    fn source(&self, origin: &Origin, content: &Content) -> io::Result<Box<dyn Source + '_>> {
        Ok(match (origin, content) {
            (Origin::Repository(repository), Content::Manifest { .. }) => {
                Box::new(self.client.manifests(repository))
            }
            (Origin::Repository(repository), Content::Opaque) => {
                Box::new(self.client.blobs(repository))
            }
            (Origin::Layout(path), _) => Box::new(Opened(self.layout(path)?)),
            (Origin::Url(url), _) => match self.local(url) {
                Some(_) => Box::new(Anywhere {
                    live: self,
                    places: vec![url.clone()],
                }),
                None => Box::new(self.client.urls(vec![url.clone()])),
            },
            (Origin::Signature(path), _) => Box::new(Anywhere {
                live: self,
                places: self
                    .places
                    .signatures
                    .iter()
                    .map(|store| format!("{}/{path}", store.trim_end_matches('/')))
                    .collect(),
            }),
        })
    }

    fn manifest(&self, repository: &Repository, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let reference = repository.clone().with_digest(*digest);
        let found = self.client.resolve(&reference).map_err(io::Error::other)?;
        Ok(found.map(|found| found.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_name_chooses_one_image_of_a_layout() {
        let image = |letter: &str, name: &str| Descriptor {
            media_type: crate::oci::OCI_MANIFEST.to_owned(),
            digest: Digest::from_hex(&letter.repeat(64)).unwrap(),
            size: 1,
            platform: None,
            artifact_type: None,
            urls: Vec::new(),
            annotations: BTreeMap::from([(REF_NAME.to_owned(), name.to_owned())]),
        };
        let images = [image("a", "v1"), image("b", "quay.io/x/y:v2")];
        let chosen = |text: &str, images: &[Descriptor]| {
            let ImageName::Layout(name) = text.parse().unwrap() else {
                panic!("a layout")
            };
            choose(&name, images).map(|found| found.map(|image| image.digest.hex()[..1].to_owned()))
        };
        for (text, wanted) in [
            ("oci:///l:v1", Some("a")),
            ("oci:///l:v2", Some("b")),
            ("oci:///l:v3", None),
        ] {
            assert_eq!(chosen(text, &images).unwrap().as_deref(), wanted, "{text}");
        }
        assert_eq!(
            chosen("oci:///l", &images[..1]).unwrap().as_deref(),
            Some("a"),
            "the only one needs no name"
        );
        let same_tag = [image("a", "quay.io/x/y:v1"), image("b", "quay.io/x/z:v1")];
        for (text, images) in [("oci:///l", &images), ("oci:///l:v1", &same_tag)] {
            let error = chosen(text, images).unwrap_err().to_string();
            assert!(
                images
                    .iter()
                    .all(|image| error.contains(&image.annotations[REF_NAME])
                        && error.contains(&image.digest.to_string())),
                "{error} must list what there is"
            );
        }
    }
}
