//! Where a world can be put: an OCI image layout, the disk of a distribution registry, the registry of this crate, or
//! any registry.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::WorldError;
use super::world::{Repository, World, descriptor};
use crate::digest::Digest;
use crate::oci::{Descriptor, MANIFEST_TYPES, Manifest, OCI_INDEX, REF_NAME};
use crate::reference::{self, Tag};
use crate::registry::client::{Client, Push, Try};
use crate::registry::server::Repositories;
use crate::store::{Blob, Sink, transfer};

fn write(path: &Path, bytes: &[u8]) -> Result<(), WorldError> {
    let wrong = |source| WorldError::Io {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(wrong)?;
    }
    fs::write(path, bytes).map_err(wrong)
}

/// An index of `manifests`.
fn index_of(manifests: &[Descriptor]) -> Vec<u8> {
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": manifests,
    });
    serde_json::to_vec(&index).expect("descriptors are JSON")
}

impl World {
    /// Writes a blob to `path` unless it is there. It appears whole, but is not synced: a world can be made again.
    fn write_blob(&self, blob: &Blob, path: &Path) -> Result<(), WorldError> {
        if fs::metadata(path).is_ok_and(|found| found.len() == blob.size) {
            return Ok(());
        }
        let wrong = |source| WorldError::Io {
            path: path.to_owned(),
            source,
        };
        let mut bytes = self.reader(&blob.digest).ok_or(WorldError::Unknown {
            what: "blob",
            digest: blob.digest,
        })?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(wrong)?;
        }
        let unfinished = path.with_extension("unfinished");
        let mut file = File::create(&unfinished).map_err(wrong)?;
        io::copy(&mut bytes, &mut file).map_err(wrong)?;
        fs::rename(&unfinished, path).map_err(wrong)
    }

    /// Writes everything that some repository has as an OCI image layout. An image is named `repository:tag` there;
    /// what has no tag is listed without a name. (`skopeo` selects only OCI media types from a layout, so it does not
    /// find those of Docker there.)
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write_layout(&self, folder: &Path) -> Result<(), WorldError> {
        let blobs = folder.join("blobs/sha256");
        for blob in self.blobs() {
            self.write_blob(&blob, &blobs.join(blob.digest.hex()))?;
        }
        let mut listed = Vec::new();
        for (path, repository) in &self.repositories {
            let tagged: BTreeSet<&Digest> = repository.tags.values().collect();
            for (tag, digest) in &repository.tags {
                let root = &repository.roots[digest];
                listed.push(Descriptor {
                    annotations: BTreeMap::from([(REF_NAME.to_owned(), format!("{path}:{tag}"))]),
                    ..root.clone()
                });
            }
            let untagged = repository.roots.values();
            listed.extend(
                untagged
                    .filter(|root| !tagged.contains(&root.digest))
                    .cloned(),
            );
        }
        write(&folder.join("index.json"), &index_of(&listed))?;
        write(
            &folder.join("oci-layout"),
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        )
    }

    /// Writes what a registry of the distribution project keeps below its root directory (`docker/registry/v2`), so
    /// that one which is started there serves this world. Artifacts are listed by a tag made from their subject,
    /// since that registry keeps no list of referrers.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write_registry(&self, folder: &Path) -> Result<(), WorldError> {
        let root = folder.join("docker/registry/v2");
        let data = |digest: &Digest| {
            let hex = digest.hex();
            root.join("blobs/sha256")
                .join(&hex[..2])
                .join(hex)
                .join("data")
        };
        for blob in self.blobs() {
            self.write_blob(&blob, &data(&blob.digest))?;
        }
        for (path, repository) in &self.repositories {
            let place = root.join("repositories").join(path);
            let link = |of: &str, digest: &Digest| {
                let path = place.join(of).join(digest.hex()).join("link");
                write(&path, digest.to_string().as_bytes())
            };
            let revision = |digest: &Digest| link("_manifests/revisions/sha256", digest);
            let tag = |name: &str, digest: &Digest| {
                let tag = place.join("_manifests/tags").join(name);
                write(&tag.join("current/link"), digest.to_string().as_bytes())?;
                let index = tag.join("index/sha256").join(digest.hex()).join("link");
                write(&index, digest.to_string().as_bytes())
            };
            for digest in repository.roots.keys() {
                self.walk(digest, &mut |blob, is_manifest| {
                    if is_manifest {
                        revision(&blob.digest)
                    } else {
                        link("_layers/sha256", &blob.digest)
                    }
                })?;
            }
            for (name, digest) in &repository.tags {
                tag(name, digest)?;
            }
            for (subject, referrers) in self.referrers(repository) {
                let index = index_of(&referrers);
                let digest = Digest::of(&index);
                write(&data(&digest), &index)?;
                revision(&digest)?;
                tag(&format!("sha256-{}", subject.hex()), &digest)?;
            }
        }
        Ok(())
    }

    /// Writes everything to `sink` and shows it in `repositories`. Tags that are no longer in this world's
    /// repositories are taken away; what they pointed at stays.
    ///
    /// # Errors
    /// If either cannot be written.
    pub fn publish(&self, repositories: &Repositories, sink: &dyn Sink) -> Result<(), WorldError> {
        for blob in self.blobs() {
            transfer(self, sink, &blob, &|_| ())?;
        }
        self.show(repositories)
    }

    /// Shows everything in `repositories`, whose depot has the bytes by other means.
    pub(super) fn show(&self, repositories: &Repositories) -> Result<(), WorldError> {
        for (path, repository) in &self.repositories {
            for root in repository.roots.values() {
                repositories.link_image(self, path, root, None)?;
            }
            for (tag, digest) in &repository.tags {
                repositories.link_tag(path, &tag.parse()?, digest)?;
            }
            for tag in repositories.tags(path, None).unwrap_or_default() {
                if !repository.tags.contains_key(&tag) {
                    repositories.unlink_tag(path, &tag)?;
                }
            }
        }
        Ok(())
    }

    /// Pushes everything to the registry `host`, below `prefix` if one is given (`mirror/a`).
    ///
    /// # Errors
    /// If the registry does not take it.
    pub fn push(&self, client: &Client, host: &str, prefix: &str) -> Result<(), WorldError> {
        for (path, repository) in &self.repositories {
            let path = if prefix.is_empty() {
                path.clone()
            } else {
                format!("{prefix}/{path}")
            };
            let place = client.push(&reference::Repository::new(host, &path)?)?;
            for root in repository.roots.values() {
                self.push_image(&place, root, None)?;
            }
            for (tag, digest) in &repository.tags {
                self.push_image(&place, &repository.roots[digest], Some(&tag.parse()?))?;
            }
        }
        Ok(())
    }

    /// Pushes one manifest, what is below it first.
    fn push_image(
        &self,
        place: &Push,
        root: &Descriptor,
        tag: Option<&Tag>,
    ) -> Result<(), WorldError> {
        let unknown = || WorldError::Unknown {
            what: "manifest",
            digest: root.digest,
        };
        let bytes = self.bytes(&root.digest).ok_or_else(unknown)?;
        let manifest = Manifest::parse(bytes, Some(&root.media_type)).map_err(|_| unknown())?;
        match &manifest {
            Manifest::Image(image) => {
                for blob in image.blobs() {
                    place.send(self, &Blob::from(blob), Try::Ask(None), &|_| ())?;
                }
            }
            Manifest::Index(index) => {
                for child in &index.manifests {
                    self.push_image(place, child, None)?;
                }
            }
        }
        let put = place.put_manifest(bytes, &root.media_type, tag)?;
        if let Some(subject) = manifest.subject()
            && put.subject.is_none()
        {
            place.refer(subject.digest, root)?;
        }
        Ok(())
    }

    /// Tells `seen` of everything below a manifest and of itself, last, with whether it is a manifest.
    fn walk(
        &self,
        digest: &Digest,
        seen: &mut dyn FnMut(&Blob, bool) -> Result<(), WorldError>,
    ) -> Result<(), WorldError> {
        let unknown = || WorldError::Unknown {
            what: "manifest",
            digest: *digest,
        };
        let bytes = self.bytes(digest).ok_or_else(unknown)?;
        match Manifest::parse(bytes, None).map_err(|_| unknown())? {
            Manifest::Image(image) => {
                for blob in image.blobs() {
                    seen(&Blob::from(blob), false)?;
                }
            }
            Manifest::Index(index) => {
                for child in &index.manifests {
                    if MANIFEST_TYPES.contains(&child.media_type.as_str()) {
                        self.walk(&child.digest, seen)?;
                    } else {
                        seen(&Blob::from(child), false)?;
                    }
                }
            }
        }
        seen(&Blob::of(bytes), true)
    }

    /// What refers to which manifest in a repository.
    fn referrers(&self, repository: &Repository) -> BTreeMap<Digest, Vec<Descriptor>> {
        let mut found: BTreeMap<Digest, Vec<Descriptor>> = BTreeMap::new();
        for root in repository.roots.values() {
            let subject = self
                .bytes(&root.digest)
                .and_then(|bytes| Manifest::parse(bytes, Some(&root.media_type)).ok())
                .and_then(|manifest| manifest.subject().map(|subject| subject.digest));
            if let Some(subject) = subject {
                found.entry(subject).or_default().push(Descriptor {
                    artifact_type: root.artifact_type.clone(),
                    ..descriptor(
                        &root.media_type,
                        Blob {
                            digest: root.digest,
                            size: root.size,
                        },
                    )
                });
            }
        }
        found
    }
}
