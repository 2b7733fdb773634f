//! A live registry as a place that images are put into.

use std::io;

use super::holdings::Holdings;
use super::push::{Registry, Repository, Sent, Sparse, TagsOnly};
use crate::digest::{Digest, Hasher};
use crate::oci::{Descriptor, MANIFEST_TYPES, Manifest};
use crate::reference::{self, Tag};
use crate::registry::client::{Client, Push, RegistryError, Sent as ClientSent, Try};
use crate::store::{Blob, Sink, Source, TransferError, Verified};

/// A registry, reached through a client.
pub struct RegistryTarget {
    client: Client,
    host: String,
}

impl RegistryTarget {
    /// The registry at `host` (`HOST[:PORT]`).
    #[must_use]
    pub const fn new(client: Client, host: String) -> Self {
        Self { client, host }
    }
}

struct LiveRepository {
    push: Push,
    reads: Client,
}

impl Registry for RegistryTarget {
    fn repository(&self, path: &str) -> io::Result<Box<dyn Repository + '_>> {
        let repository = reference::Repository::new(&self.host, path).map_err(io::Error::other)?;
        let push = self.client.push(&repository).map_err(io::Error::from)?;
        // What stands there is read there, not from a mirror of it.
        let reads = self.client.direct();
        Ok(Box::new(LiveRepository { push, reads }))
    }
}

impl RegistryTarget {
    fn named(&self, path: &str) -> io::Result<reference::Repository> {
        reference::Repository::new(&self.host, path).map_err(io::Error::other)
    }
}

impl Holdings for RegistryTarget {
    fn repositories(&self) -> io::Result<Option<Vec<String>>> {
        self.client
            .repositories(&self.named("any")?)
            .map_err(io::Error::from)
    }

    fn tags(&self, path: &str) -> io::Result<Option<Vec<Tag>>> {
        self.client
            .direct()
            .tags(&self.named(path)?)
            .map_err(io::Error::from)
    }

    fn tag(&self, path: &str, tag: &Tag) -> io::Result<Option<Digest>> {
        let found = self
            .client
            .direct()
            .head_manifest(&self.named(path)?.with_tag(tag.clone()));
        Ok(found
            .map_err(io::Error::from)?
            .map(|descriptor| descriptor.digest))
    }

    fn manifest(&self, path: &str, digest: Digest) -> io::Result<Option<(Blob, Manifest)>> {
        let found = self
            .client
            .direct()
            .resolve(&self.named(path)?.with_digest(digest))
            .map_err(io::Error::from)?;
        let Some(found) = found else { return Ok(None) };
        let manifest = Manifest::parse(&found.bytes, Some(&found.descriptor.media_type))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some((Blob::from(&found.descriptor), manifest)))
    }

    fn holds(&self, path: &str, blob: &Blob) -> io::Result<bool> {
        let push = self
            .client
            .push(&self.named(path)?)
            .map_err(io::Error::from)?;
        Sink::holds(&push, blob)
    }

    fn read(
        &self,
        path: &str,
        blob: &Blob,
        passed: &(dyn Fn(u64) + Sync),
    ) -> Result<(), TransferError> {
        let failed = |error| TransferError::of(blob, error);
        let source = self
            .client
            .direct()
            .blobs(&self.named(path).map_err(failed)?);
        let bytes = source
            .open(blob, 0)
            .map_err(failed)?
            .ok_or(TransferError::Absent { blob: *blob })?;
        let mut bytes = Verified::resumed(bytes, *blob, Hasher::default(), passed);
        io::copy(&mut bytes, &mut io::sink()).map_err(failed)?;
        Ok(())
    }

    fn delete(&self, path: &str, digest: Digest) -> io::Result<bool> {
        let push = self
            .client
            .push(&self.named(path)?)
            .map_err(io::Error::from)?;
        push.delete_manifest(digest).map_err(io::Error::from)
    }
}

impl Repository for LiveRepository {
    fn check(&self) -> io::Result<()> {
        self.push.check().map_err(io::Error::from)
    }

    fn send(
        &self,
        source: &dyn Source,
        blob: &Blob,
        first: Try<'_>,
        passed: &(dyn Fn(u64) + Sync),
    ) -> Result<Sent, TransferError> {
        Ok(match self.push.send(source, blob, first, passed)? {
            ClientSent::Present => Sent::Present,
            ClientSent::Mounted => Sent::Mounted,
            ClientSent::Uploaded(bytes) => Sent::Uploaded(bytes),
        })
    }

    fn manifest(&self, name: &str) -> io::Result<Option<Digest>> {
        let found = match name.parse::<Digest>() {
            Ok(digest) => self.push.head_manifest(digest),
            Err(_) => self
                .push
                .head_tag(&name.parse::<Tag>().map_err(io::Error::other)?),
        };
        Ok(found
            .map_err(io::Error::from)?
            .map(|descriptor| descriptor.digest))
    }

    fn tagged(&self, tag: &Tag) -> io::Result<Option<Vec<u8>>> {
        let reference = self.push.repository().clone().with_tag(tag.clone());
        let found = self.reads.resolve(&reference).map_err(io::Error::from)?;
        Ok(found.map(|found| found.bytes))
    }

    fn put_manifest(&self, bytes: &[u8], media_type: &str, tag: Option<&Tag>) -> io::Result<()> {
        let is_index = media_type == MANIFEST_TYPES[0] || media_type == MANIFEST_TYPES[2];
        let put = match self.push.put_manifest(bytes, media_type, tag) {
            Ok(put) => put,
            Err(error) => {
                let refuses_untagged = tag.is_none() && wants_a_tag(&error);
                let error = io::Error::from(error);
                // Its children that are mirrored were put before it, so only those that are not can be unknown.
                if is_index
                    && crate::run::event::one_line(&error)
                        .to_lowercase()
                        .contains("unknown")
                {
                    return Err(io::Error::other(Sparse(error)));
                }
                if refuses_untagged {
                    return Err(io::Error::other(TagsOnly(error)));
                }
                return Err(error);
            }
        };
        let manifest = Manifest::parse(bytes, Some(media_type)).map_err(io::Error::other)?;
        let Some(subject) = manifest.subject() else {
            return Ok(());
        };
        if put.subject == Some(subject.digest) {
            return Ok(());
        }
        self.push
            .refer(
                subject.digest,
                &listed(&manifest, put.digest, bytes.len() as u64),
            )
            .map_err(io::Error::from)
    }
}

/// Whether a registry refused a manifest because it came without a tag.
fn wants_a_tag(error: &RegistryError) -> bool {
    match error {
        RegistryError::Server { status, code, .. } => match status {
            405 | 501 => true,
            400 | 404 | 415 => matches!(code.as_deref(), Some("UNSUPPORTED" | "TAG_INVALID")),
            _ => false,
        },
        _ => false,
    }
}

/// A manifest as it stands in the list of its subject.
fn listed(manifest: &Manifest, digest: Digest, size: u64) -> Descriptor {
    let (artifact_type, annotations) = match manifest {
        Manifest::Image(image) => (
            // Without a type of its own an artifact is known by its config (OCI image specification 1.1).
            image
                .artifact_type
                .clone()
                .or_else(|| Some(image.config.as_ref()?.media_type.clone())),
            &image.annotations,
        ),
        Manifest::Index(index) => (index.artifact_type.clone(), &index.annotations),
    };
    Descriptor {
        media_type: manifest.media_type().to_owned(),
        digest,
        size,
        platform: None,
        artifact_type,
        urls: Vec::new(),
        annotations: annotations.clone(),
    }
}
