//! What registries serve: images that are generated, the same on every run, or read from layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use imgbuild::demo::World;
use imgbuild::digest::Digest;
use imgbuild::oci::{Descriptor, MANIFEST_LIMIT, Manifest, OCI_INDEX, OCI_MANIFEST, REF_NAME};
use imgbuild::registry::server::{Options, Repositories, Server};
use imgbuild::store::memory::Memory;
use imgbuild::store::{Blob, read};
use serde_json::{Value, json};

use super::registry::Registry;

/// Layers as (number, bytes): the same number and size is the same layer.
pub(crate) type Layers<'a> = &'a [(u64, usize)];

/// One tagged image.
#[derive(Clone, Debug)]
pub(crate) struct Tagged {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) descriptor: Descriptor,
}

impl Tagged {
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

/// Everything below an image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Below {
    /// Manifests, children first.
    pub(crate) manifests: Vec<(Blob, String)>,
    /// Configs and layers.
    pub(crate) blobs: BTreeSet<Blob>,
}

/// Images, their bytes, and who they belong to. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Content {
    pub(crate) memory: Arc<Memory>,
    pub(crate) repositories: Arc<Repositories>,
    images: Arc<Mutex<Vec<Tagged>>>,
}

/// Bytes that follow from a seed and do not compress (xorshift64*).
pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn name(text: &str) -> (&str, &str) {
    text.rsplit_once(':').expect("repository:tag")
}

impl Content {
    /// A layer: a gzipped tar of one file of noise. Answers its descriptor and the digest of the tar.
    fn layer(&self, number: u64, size: usize) -> (Value, Digest) {
        let mut tar = tar::Builder::new(Vec::new());
        let bytes = noise(number, size);
        let mut header = tar::Header::new_ustar();
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        tar.append_data(&mut header, format!("layer/{number}"), bytes.as_slice())
            .unwrap();
        let tar = tar.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let blob = self.memory.insert(&gzip.finish().unwrap());
        let descriptor = json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": blob.digest,
            "size": blob.size,
        });
        (descriptor, Digest::of(&tar))
    }

    fn manifest(&self, title: &str, platform: &str, layers: Layers<'_>) -> Blob {
        let (os, architecture) = platform.split_once('/').unwrap();
        let (layers, diff_ids): (Vec<Value>, Vec<Digest>) = layers
            .iter()
            .map(|(number, size)| self.layer(*number, *size))
            .unzip();
        let config = json!({
            "architecture": architecture,
            "os": os,
            "config": { "Labels": { "title": title } },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.memory.insert(config.to_string().as_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": config.size },
            "layers": layers,
        });
        self.memory.insert(manifest.to_string().as_bytes())
    }

    /// Publishes a manifest that is here as `repository:tag`; a tag that was there moves.
    pub(crate) fn publish(&self, text: &str, blob: Blob, media_type: &str) -> Digest {
        let (repository, tag) = name(text);
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest: blob.digest,
            size: blob.size,
            platform: None,
            artifact_type: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        };
        self.repositories
            .link_image(
                &*self.memory,
                repository,
                &descriptor,
                Some(&tag.parse().unwrap()),
            )
            .unwrap();
        let mut images = self.images.lock().unwrap();
        images.retain(|image| image.name() != text);
        images.push(Tagged {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            descriptor,
        });
        blob.digest
    }

    /// Publishes an image of one platform as `repository:tag`; a tag that was there moves.
    pub(crate) fn image(&self, text: &str, layers: Layers<'_>) -> Digest {
        let blob = self.manifest(text, "linux/amd64", layers);
        self.publish(text, blob, OCI_MANIFEST)
    }

    /// Publishes an index of an image for each platform (`os/arch`).
    pub(crate) fn index(&self, text: &str, children: &[(&str, Layers<'_>)]) -> Digest {
        let manifests: Vec<Value> = children
            .iter()
            .map(|(platform, layers)| {
                let (os, architecture) = platform.split_once('/').unwrap();
                let child = self.manifest(text, platform, layers);
                json!({ "mediaType": OCI_MANIFEST, "digest": child.digest, "size": child.size, "platform": { "os": os, "architecture": architecture } })
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        let blob = self.memory.insert(index.to_string().as_bytes());
        self.publish(text, blob, OCI_INDEX)
    }

    /// Publishes the complete images of a layout on disk into a repository. Those without a name of their own get
    /// one from their digest. Answers how many there were; none if there is no such layout.
    pub(crate) fn layout(&self, folder: &Path, repository: &str) -> usize {
        let Ok(index) = fs::read(folder.join("index.json")) else {
            return 0;
        };
        let blobs = folder.join("blobs/sha256");
        for entry in fs::read_dir(blobs).unwrap() {
            self.memory
                .insert(&fs::read(entry.unwrap().path()).unwrap());
        }
        let index: Value = serde_json::from_slice(&index).unwrap();
        let mut count = 0;
        for image in index["manifests"].as_array().unwrap() {
            let digest: Digest = image["digest"].as_str().unwrap().parse().unwrap();
            let blob = Blob {
                digest,
                size: image["size"].as_u64().unwrap(),
            };
            let media_type = image["mediaType"].as_str().unwrap_or(OCI_MANIFEST);
            if self.below(blob, media_type).is_none() {
                continue;
            }
            let tag = image["annotations"][REF_NAME]
                .as_str()
                .map_or_else(|| format!("d{}", &digest.hex()[..12]), str::to_owned);
            self.publish(&format!("{repository}:{tag}"), blob, media_type);
            count += 1;
        }
        count
    }

    /// Publishes every tagged image of a world.
    pub(crate) fn world(&self, world: &World) {
        for blob in world.blobs() {
            let mut bytes = Vec::new();
            world
                .reader(&blob.digest)
                .unwrap()
                .read_to_end(&mut bytes)
                .unwrap();
            self.memory.insert(&bytes);
        }
        for image in world.images() {
            let root = world.at(&image.repository, &image.tag).unwrap();
            self.publish(
                &format!("{}:{}", image.repository, image.tag),
                Blob::from(root),
                &root.media_type,
            );
        }
    }

    /// Everything below a manifest; `None` if some of it is not here, or it is no manifest.
    pub(crate) fn below(&self, root: Blob, media_type: &str) -> Option<Below> {
        let mut below = Below::default();
        self.descend(root, media_type, &mut below).then_some(below)
    }

    fn descend(&self, blob: Blob, media_type: &str, below: &mut Below) -> bool {
        if below.manifests.iter().any(|(known, _)| *known == blob) {
            return true;
        }
        let Ok(bytes) = read(&*self.memory, &blob, MANIFEST_LIMIT) else {
            return false;
        };
        let whole = match Manifest::parse(&bytes, Some(media_type)) {
            Err(_) => return false,
            Ok(Manifest::Index(index)) => index
                .manifests
                .iter()
                .all(|child| self.descend(Blob::from(child), &child.media_type, below)),
            Ok(Manifest::Image(image)) => image.blobs().all(|part| {
                let part = Blob::from(part);
                below.blobs.insert(part);
                self.bytes(&part).is_some()
            }),
        };
        below.manifests.push((blob, media_type.to_owned()));
        whole
    }

    /// The bytes of a blob.
    pub(crate) fn bytes(&self, blob: &Blob) -> Option<Vec<u8>> {
        use imgbuild::store::Source as _;
        let mut bytes = Vec::new();
        self.memory
            .open(blob, 0)
            .unwrap()?
            .read_to_end(&mut bytes)
            .unwrap();
        Some(bytes)
    }

    /// The images, in the order they were published.
    pub(crate) fn images(&self) -> Vec<Tagged> {
        self.images.lock().unwrap().clone()
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.images().iter().map(Tagged::name).collect()
    }

    /// The names of all images as `repository:tag`, with everything below each.
    pub(crate) fn all(&self) -> Vec<(Tagged, Below)> {
        self.images()
            .into_iter()
            .map(|image| {
                let below = self
                    .below(Blob::from(&image.descriptor), &image.descriptor.media_type)
                    .expect("published images are complete");
                (image, below)
            })
            .collect()
    }

    /// Serves it; every request is recorded.
    pub(crate) fn serve(&self, options: Options) -> Registry {
        let options = Options {
            record: true,
            grace: std::time::Duration::from_millis(200),
            ..options
        };
        let server =
            Server::start(options, self.memory.clone(), Arc::clone(&self.repositories)).unwrap();
        Registry::new(self.clone(), server)
    }

    /// Serves it as it is.
    pub(crate) fn served(&self) -> Registry {
        self.serve(Options::default())
    }
}

/// Publishes images that share layers: image `n` stands on one of five bases and one of eleven runtimes, and has a
/// layer of its own; every seventh is an index of two platforms.
pub(crate) fn many(content: &Content, count: u64, size: usize) {
    for number in 0..count {
        let name = format!("team{}/app{number}:1.{}", number % 4, number % 3);
        let layers = [
            (number % 5, size * 2),
            (100 + number % 11, size),
            (1000 + number, size / 2 + 1),
        ];
        if number % 7 == 3 {
            let other = [
                (50 + number % 5, size * 2),
                (150 + number % 11, size),
                (5000 + number, size / 2 + 1),
            ];
            content.index(&name, &[("linux/amd64", &layers), ("linux/arm64", &other)]);
        } else {
            content.image(&name, &layers);
        }
    }
}
