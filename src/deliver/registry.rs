//! A live registry as a place that images are put into.

use std::io;

use super::push::{Registry, Repository};
use crate::digest::Digest;
use crate::oci::MANIFEST_TYPES;
use crate::reference::{self, Tag};
use crate::registry::client::{Client, Push};
use crate::store::{Blob, Sink, Verified};

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

/// The registry refused an index because some of its children are not there.
#[derive(Debug, thiserror::Error)]
#[error("the registry does not take an index of which only some images are mirrored")]
struct Sparse(#[source] io::Error);

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

impl Sink for LiveRepository {
    fn holds(&self, blob: &Blob) -> io::Result<bool> {
        self.push.holds(blob)
    }

    fn write(&self, blob: &Blob, bytes: &mut Verified<'_>) -> io::Result<()> {
        self.push.write(blob, bytes)
    }
}

impl Repository for LiveRepository {
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

    fn mount(&self, blob: &Blob, from: &str) -> io::Result<bool> {
        self.push.mount(blob, from).map_err(io::Error::from)
    }

    fn put_manifest(&self, bytes: &[u8], media_type: &str, tag: Option<&Tag>) -> io::Result<()> {
        let is_index = media_type == MANIFEST_TYPES[0] || media_type == MANIFEST_TYPES[2];
        match self.push.put_manifest(bytes, media_type, tag) {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = io::Error::from(error);
                // Its children that are mirrored were put before it, so only those that are not can be unknown.
                let unknown = crate::run::event::one_line(&error).to_lowercase();
                if is_index
                    && (unknown.contains("unknown") || unknown.contains("manifest_blob_unknown"))
                {
                    return Err(io::Error::other(Sparse(error)));
                }
                Err(error)
            }
        }
    }
}
