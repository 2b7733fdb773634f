//! A live registry as a place that images are put into.

use std::io;

use super::push::{Registry, Repository, Sent};
use crate::digest::Digest;
use crate::oci::MANIFEST_TYPES;
use crate::reference::{self, Tag};
use crate::registry::client::{Client, Push, Sent as ClientSent};
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

/// The registry refused an index because some of its children are not there.
#[derive(Debug, thiserror::Error)]
#[error("the registry does not take an index of which only some images are mirrored")]
struct Sparse(#[source] io::Error);

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

impl Repository for LiveRepository {
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

    fn tagged(&self, tag: &Tag) -> io::Result<Option<Vec<u8>>> {
        let reference = self.push.repository().clone().with_tag(tag.clone());
        let found = self.reads.resolve(&reference).map_err(io::Error::from)?;
        Ok(found.map(|found| found.bytes))
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
