//! A world: layers, documents, and the repositories that name them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Cursor, Read};
use std::sync::Arc;

use serde::Serialize;

use super::layer::{Compression, Content, Layer, Member};
use super::{Spec, WorldError};
use crate::digest::Digest;
use crate::oci::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Manifest, OCI_INDEX, OCI_MANIFEST, Platform,
};
use crate::reference::{Tag, is_path};
use crate::store::{Blob, Source};

/// When everything was created.
const CREATED: &str = "1970-01-01T00:00:00Z";
/// The media type of nothing (OCI image specification, `manifest.md`, "Guidance for an Empty Descriptor").
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The bytes of nothing.
const EMPTY: &[u8] = b"{}";

/// Whose media types a manifest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// The OCI image specification's.
    Oci,
    /// Docker schema 2.
    Docker,
}

impl Form {
    const fn manifest(self) -> &'static str {
        match self {
            Self::Oci => OCI_MANIFEST,
            Self::Docker => DOCKER_MANIFEST,
        }
    }

    const fn index(self) -> &'static str {
        match self {
            Self::Oci => OCI_INDEX,
            Self::Docker => DOCKER_LIST,
        }
    }

    const fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    /// The media type of a layer; Docker's formats have none for zstd.
    const fn layer(self, compression: Compression) -> Option<&'static str> {
        Some(match (self, compression) {
            (Self::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Self::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Self::Oci, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Self::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Self::Docker, Compression::Gzip) => {
                "application/vnd.docker.image.rootfs.diff.tar.gzip"
            }
            (Self::Docker, Compression::Zstd) => return None,
        })
    }
}

/// An image that a tag names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// The path of its repository.
    pub repository: String,
    /// Its tag.
    pub tag: String,
    /// Its digest.
    pub digest: Digest,
}

/// How a manifest was built, to build it again.
#[derive(Clone, Debug)]
enum Built {
    Image {
        form: Form,
        platform: Platform,
        layers: Vec<Digest>,
        labels: BTreeMap<String, String>,
    },
    Index {
        form: Form,
        children: Vec<Descriptor>,
    },
}

/// What one repository has: manifests, and tags that point at them.
#[derive(Clone, Debug, Default)]
pub(super) struct Repository {
    pub(super) roots: BTreeMap<Digest, Descriptor>,
    pub(super) tags: BTreeMap<String, Digest>,
}

/// Images, and the repositories that name them.
///
/// Everything in it follows from what it was told; a repository keeps what its tags pointed at before, as a registry
/// does.
#[derive(Clone, Debug, Default)]
pub struct World {
    seed: u64,
    layers: BTreeMap<Digest, Layer>,
    documents: BTreeMap<Digest, Arc<[u8]>>,
    built: BTreeMap<Digest, Built>,
    pub(super) repositories: BTreeMap<String, Repository>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageDocument<'a> {
    schema_version: u8,
    media_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexDocument<'a> {
    schema_version: u8,
    media_type: &'a str,
    manifests: &'a [Descriptor],
}

#[derive(Serialize)]
struct ConfigDocument<'a> {
    created: &'a str,
    #[serde(flatten)]
    platform: &'a Platform,
    config: Runtime<'a>,
    rootfs: Root,
    history: Vec<Event>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Runtime<'a> {
    cmd: [&'a str; 1],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Root {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<Digest>,
}

#[derive(Serialize)]
struct Event {
    created: &'static str,
    created_by: String,
}

/// A descriptor without extras.
pub(super) fn descriptor(media_type: &str, blob: Blob) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: blob.digest,
        size: blob.size,
        platform: None,
        artifact_type: None,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
    }
}

impl World {
    /// An empty world. What it builds later on its own ([`World::move_tag`]) follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// A world of images as `spec` describes them, all of whose bytes follow from `seed` and `spec`.
    #[must_use]
    pub fn generate(seed: u64, spec: &Spec) -> Self {
        super::generate::generate(seed, spec)
    }

    /// What it was made from.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds a layer; returns its digest.
    ///
    /// # Errors
    /// If a member does not fit a tar.
    pub fn layer(
        &mut self,
        members: &[Member],
        compression: Compression,
    ) -> Result<Digest, WorldError> {
        Ok(self.hold_layer(Layer::new(members, compression)?))
    }

    pub(super) fn hold_layer(&mut self, layer: Layer) -> Digest {
        let digest = layer.blob().digest;
        self.layers.insert(digest, layer);
        digest
    }

    fn hold(&mut self, bytes: Vec<u8>) -> Blob {
        let blob = Blob::of(&bytes);
        self.documents.insert(blob.digest, bytes.into());
        blob
    }

    fn hold_json(&mut self, document: &impl Serialize) -> Blob {
        self.hold(serde_json::to_vec(document).expect("documents are JSON"))
    }

    /// Adds an image of `layers`, the lowest first; returns what an index or a tag needs of it.
    ///
    /// # Errors
    /// If a layer is not in this world, or is zstd in a Docker image.
    pub fn image(
        &mut self,
        form: Form,
        platform: &Platform,
        layers: &[Digest],
        labels: &BTreeMap<String, String>,
    ) -> Result<Descriptor, WorldError> {
        let mut listed = Vec::with_capacity(layers.len());
        let mut diff_ids = Vec::with_capacity(layers.len());
        for digest in layers {
            let layer = self.layers.get(digest).ok_or(WorldError::Unknown {
                what: "layer",
                digest: *digest,
            })?;
            let media_type = form
                .layer(layer.compression())
                .ok_or(WorldError::Zstd { digest: *digest })?;
            listed.push(descriptor(media_type, layer.blob()));
            diff_ids.push(layer.diff_id());
        }
        let history = (1..=layers.len())
            .map(|number| Event {
                created: CREATED,
                created_by: format!("imgbuild demo: layer {number}"),
            })
            .collect();
        let config = self.hold_json(&ConfigDocument {
            created: CREATED,
            platform,
            config: Runtime {
                cmd: ["/app/run"],
                labels,
            },
            rootfs: Root {
                kind: "layers",
                diff_ids,
            },
            history,
        });
        let blob = self.hold_json(&ImageDocument {
            schema_version: 2,
            media_type: form.manifest(),
            artifact_type: None,
            config: descriptor(form.config(), config),
            layers: listed,
            subject: None,
        });
        self.built.insert(
            blob.digest,
            Built::Image {
                form,
                platform: platform.clone(),
                layers: layers.to_vec(),
                labels: labels.clone(),
            },
        );
        Ok(Descriptor {
            platform: Some(platform.clone()),
            ..descriptor(form.manifest(), blob)
        })
    }

    /// Adds an index of `children`, in their order.
    ///
    /// # Errors
    /// If a child is not in this world.
    pub fn index(&mut self, form: Form, children: &[Descriptor]) -> Result<Descriptor, WorldError> {
        for child in children {
            self.document(&child.digest, "manifest")?;
        }
        let blob = self.hold_json(&IndexDocument {
            schema_version: 2,
            media_type: form.index(),
            manifests: children,
        });
        self.built.insert(
            blob.digest,
            Built::Index {
                form,
                children: children.to_vec(),
            },
        );
        Ok(descriptor(form.index(), blob))
    }

    /// Adds an artifact with one blob, which refers to `subject` if one is given. [`World::attach`] shows it.
    ///
    /// # Errors
    /// If the subject is not in this world.
    pub fn artifact(
        &mut self,
        artifact_type: &str,
        payload_type: &str,
        payload: &[u8],
        subject: Option<&Descriptor>,
    ) -> Result<Descriptor, WorldError> {
        self.annotated(
            artifact_type,
            payload_type,
            payload,
            &BTreeMap::new(),
            subject,
        )
    }

    /// The same with annotations of that blob, as signatures have them.
    ///
    /// # Errors
    /// If the subject is not in this world.
    pub fn annotated(
        &mut self,
        artifact_type: &str,
        payload_type: &str,
        payload: &[u8],
        annotations: &BTreeMap<String, String>,
        subject: Option<&Descriptor>,
    ) -> Result<Descriptor, WorldError> {
        if let Some(subject) = subject {
            self.document(&subject.digest, "manifest")?;
        }
        let config = self.hold(EMPTY.to_vec());
        let payload = self.hold(payload.to_vec());
        let payload = Descriptor {
            annotations: annotations.clone(),
            ..descriptor(payload_type, payload)
        };
        let blob = self.hold_json(&ImageDocument {
            schema_version: 2,
            media_type: OCI_MANIFEST,
            artifact_type: Some(artifact_type),
            config: descriptor(EMPTY_TYPE, config),
            layers: vec![payload],
            subject: subject.map(|subject| {
                descriptor(
                    &subject.media_type,
                    Blob {
                        digest: subject.digest,
                        size: subject.size,
                    },
                )
            }),
        });
        Ok(Descriptor {
            artifact_type: Some(artifact_type.to_owned()),
            ..descriptor(OCI_MANIFEST, blob)
        })
    }

    fn document(&self, digest: &Digest, what: &'static str) -> Result<&Arc<[u8]>, WorldError> {
        self.documents.get(digest).ok_or(WorldError::Unknown {
            what,
            digest: *digest,
        })
    }

    /// Shows `manifest` in a repository, by its digest alone.
    ///
    /// # Errors
    /// If the path is malformed or the manifest is not in this world.
    pub fn attach(&mut self, repository: &str, manifest: &Descriptor) -> Result<(), WorldError> {
        self.document(&manifest.digest, "manifest")?;
        if !is_path(repository) {
            return Err(WorldError::Path {
                path: repository.to_owned(),
            });
        }
        let plain = Descriptor {
            platform: None,
            ..manifest.clone()
        };
        self.repositories
            .entry(repository.to_owned())
            .or_default()
            .roots
            .insert(manifest.digest, plain);
        Ok(())
    }

    /// Points a tag at `manifest`, wherever it pointed before.
    ///
    /// # Errors
    /// If a name is malformed or the manifest is not in this world.
    pub fn tag(
        &mut self,
        repository: &str,
        tag: &str,
        manifest: &Descriptor,
    ) -> Result<(), WorldError> {
        tag.parse::<Tag>()?;
        self.attach(repository, manifest)?;
        let tags = &mut self
            .repositories
            .get_mut(repository)
            .expect("it was attached")
            .tags;
        tags.insert(tag.to_owned(), manifest.digest);
        Ok(())
    }

    /// What a tag points at.
    #[must_use]
    pub fn at(&self, repository: &str, tag: &str) -> Option<&Descriptor> {
        let repository = self.repositories.get(repository)?;
        repository.roots.get(repository.tags.get(tag)?)
    }

    /// Takes a tag away; what it pointed at stays.
    ///
    /// # Errors
    /// If there is no such tag.
    pub fn untag(&mut self, repository: &str, tag: &str) -> Result<(), WorldError> {
        let removed = self
            .repositories
            .get_mut(repository)
            .and_then(|repository| repository.tags.remove(tag));
        removed.map(|_| ()).ok_or_else(|| WorldError::Untagged {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        })
    }

    /// Takes a repository away with all it has; whether it was there.
    pub fn remove(&mut self, repository: &str) -> bool {
        self.repositories.remove(repository).is_some()
    }

    /// Publishes a new version of an image under its tag: the same layers but the last, which is new and as large.
    /// Every platform of an index gets one. Returns the new digest; the old one stays pullable.
    ///
    /// # Errors
    /// If there is no such tag, or it points at an artifact.
    pub fn move_tag(&mut self, repository: &str, tag: &str) -> Result<Digest, WorldError> {
        let old = self
            .at(repository, tag)
            .cloned()
            .ok_or_else(|| WorldError::Untagged {
                repository: repository.to_owned(),
                tag: tag.to_owned(),
            })?;
        let new = self.rebuild(&old)?;
        self.tag(repository, tag, &new)?;
        Ok(new.digest)
    }

    /// A new version of `old`.
    fn rebuild(&mut self, old: &Descriptor) -> Result<Descriptor, WorldError> {
        let fixed = WorldError::Fixed { digest: old.digest };
        match self.built.get(&old.digest).cloned().ok_or(fixed)? {
            Built::Index { form, children } => {
                let children = children
                    .iter()
                    .map(|child| {
                        let new = self.rebuild(child)?;
                        Ok(Descriptor {
                            digest: new.digest,
                            size: new.size,
                            ..child.clone()
                        })
                    })
                    .collect::<Result<Vec<_>, WorldError>>()?;
                self.index(form, &children)
            }
            Built::Image {
                form,
                platform,
                mut layers,
                labels,
            } => {
                let last = layers.pop();
                let (size, compression) = last
                    .and_then(|digest| self.layers.get(&digest))
                    .map_or((0, Compression::Gzip), |layer| {
                        (layer.content(), layer.compression())
                    });
                let name = format!("{}/after {}", self.seed, old.digest);
                let members = members(&name, "app", size, 1);
                layers.push(self.layer(&members, compression)?);
                self.image(form, &platform, &layers, &labels)
            }
        }
    }

    /// Every image that a tag names, in order.
    #[must_use]
    pub fn images(&self) -> Vec<Published> {
        let each = self.repositories.iter().flat_map(|(path, repository)| {
            repository.tags.iter().map(|(tag, digest)| Published {
                repository: path.clone(),
                tag: tag.clone(),
                digest: *digest,
            })
        });
        each.collect()
    }

    /// Everything that `digest` comes to: manifests, configs and layers, itself among them; `None` if it is no
    /// manifest of this world.
    #[must_use]
    pub fn closure(&self, digest: &Digest) -> Option<BTreeSet<Blob>> {
        let bytes = self.documents.get(digest)?;
        let mut found = BTreeSet::from([Blob {
            digest: *digest,
            size: bytes.len() as u64,
        }]);
        match Manifest::parse(bytes, None).ok()? {
            Manifest::Image(image) => found.extend(image.blobs().map(Blob::from)),
            Manifest::Index(index) => {
                for child in &index.manifests {
                    found.extend(self.closure(&child.digest)?);
                }
            }
        }
        Some(found)
    }

    /// Everything that some repository has, each once.
    #[must_use]
    pub fn blobs(&self) -> BTreeSet<Blob> {
        self.repositories
            .values()
            .flat_map(|repository| repository.roots.keys())
            .filter_map(|digest| self.closure(digest))
            .flatten()
            .collect()
    }

    /// How many bytes the files of all layers have together.
    #[must_use]
    pub fn contents(&self) -> u64 {
        self.layers.values().map(Layer::content).sum()
    }

    /// The bytes of a manifest, a config or an artifact's payload; layers are not among them.
    #[must_use]
    pub fn bytes(&self, digest: &Digest) -> Option<&[u8]> {
        self.documents.get(digest).map(|bytes| &**bytes)
    }

    /// Makes the bytes of anything in this world, from the first.
    #[must_use]
    pub fn reader(&self, digest: &Digest) -> Option<Box<dyn Read + Send>> {
        if let Some(bytes) = self.documents.get(digest) {
            return Some(Box::new(Cursor::new(Arc::clone(bytes))));
        }
        self.layers.get(digest).map(Layer::bytes)
    }

    /// An `ImageSetConfiguration` that asks for every image of this world at the registry `host`, by tag.
    #[must_use]
    pub fn imageset(&self, host: &str) -> String {
        let mut text = String::from(
            "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  additionalImages:\n",
        );
        for image in self.images() {
            let _ = writeln!(
                text,
                "    - name: {host}/{}:{}",
                image.repository, image.tag
            );
        }
        text
    }
}

impl Source for World {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        let Some(mut bytes) = self.reader(&blob.digest) else {
            return Ok(None);
        };
        io::copy(&mut bytes.by_ref().take(from), &mut io::sink())?;
        Ok(Some(bytes))
    }
}

/// A folder with a few words about it and `size` bytes in `files` files, all of which follow from `name`.
pub(super) fn members(name: &str, folder: &str, size: u64, files: u64) -> Vec<Member> {
    let files = files.clamp(1, size.max(1));
    let mut members = vec![Member::Folder {
        path: folder.to_owned(),
    }];
    for file in 0..files {
        // The last one takes what does not divide.
        let share = size / files;
        let share = if file + 1 == files {
            size - share * (files - 1)
        } else {
            share
        };
        members.push(Member::File {
            path: format!("{folder}/data-{file}"),
            content: Content::made(&format!("{name}/{file}"), share),
        });
    }
    members
}
