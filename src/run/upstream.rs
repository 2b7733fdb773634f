//! The live upstream: registries, OCI layouts on disk, and plain files.

use std::io::{self, Read};
use std::path::PathBuf;

use super::realise::Upstream;
use super::resolve::{Answer, Names};
use crate::oci::{Descriptor, MANIFEST_LIMIT, REF_NAME};
use crate::plan::lock::Origin as PinOrigin;
use crate::reference::{ImageName, LayoutName};
use crate::registry::client::Client;
use crate::step::{Content, Observe, Origin};
use crate::store::disk::{Access, Store};
use crate::store::{Blob, Source, read};

/// Everything outside: asked through one client.
pub struct Live {
    client: Client,
    base: PathBuf,
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
    pub const fn new(client: Client, base: PathBuf) -> Self {
        Self { client, base }
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
    fn resolve(&self, question: &Observe) -> io::Result<Option<Answer>> {
        match question {
            Observe::Tag(ImageName::Layout(name)) => self.resolve_layout(name),
            Observe::Tag(ImageName::Registry(reference)) => {
                let found = self.client.resolve(reference).map_err(io::Error::other)?;
                Ok(found.map(|found| Answer {
                    origin: PinOrigin::Registry(reference.repository.clone()),
                    media_type: Some(found.descriptor.media_type),
                    bytes: found.bytes,
                }))
            }
        }
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
            (Origin::Url(url), _) => Box::new(self.client.urls(vec![url.clone()])),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
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
