//! A live registry as a place that images are put into.

use std::io;

use super::push::{Registry, Repository, Sent, Sparse, TagsOnly};
use crate::digest::Digest;
use crate::oci::{Descriptor, MANIFEST_TYPES, Manifest};
use crate::reference::{self, Tag};
use crate::registry::client::{Client, Push, RegistryError, Sent as ClientSent};
use crate::store::{Blob, Source, TransferError};

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
}

impl Registry for RegistryTarget {
    fn repository(&self, path: &str) -> io::Result<Box<dyn Repository + '_>> {
        let repository = reference::Repository::new(&self.host, path).map_err(io::Error::other)?;
        let push = self.client.push(&repository).map_err(io::Error::from)?;
        Ok(Box::new(LiveRepository { push }))
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
        from: Option<&str>,
        passed: &(dyn Fn(u64) + Sync),
    ) -> Result<Sent, TransferError> {
        Ok(match self.push.send(source, blob, from, passed)? {
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
