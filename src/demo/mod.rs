//! A small upstream of one's own: worlds of images that follow from a seed, and where to put them.
//!
//! `imgbuild demo`, the tests and the measurements need a registry full of images without a network. A [`World`] is
//! that registry's content: real layers, configs, manifests and indexes that `skopeo` and `podman` accept. The same
//! seed and the same [`Spec`] give the same bytes on every machine.
//!
//! ```text
//! World::generate(seed, spec) ┬─ write_layout(folder)        an OCI image layout
//!   tag, move_tag, add, …     ├─ write_registry(folder)      what a distribution registry keeps on disk
//!   (a later epoch)           ├─ publish(repositories, sink) the registry of this crate
//!                             ├─ push(client, host)          any registry
//!                             └─ Upstream::start(world)      served straight from the recipe, nothing on disk
//! ```
//!
//! Layers are recipes, not bytes: they are made each time they are read, so a world of a gigabyte is small in memory.
//!
//! ## Why not real images
//! They are large, have licences of their own, and differ from day to day.

mod catalog;
mod generate;
mod layer;
mod place;
mod release;
mod signer;
#[cfg(test)]
mod tests;
mod upstream;
mod world;

use std::io;
use std::path::PathBuf;

pub use catalog::{Catalog, Operator};
pub use generate::Spec;
pub use layer::{Compression, Content, Layer, Member};
pub use release::{Product, Release, graph};
pub use signer::Signer;
pub use upstream::Upstream;
pub use world::{Form, Published, World};

use crate::digest::Digest;
use crate::reference::ReferenceError;
use crate::registry::client::RegistryError;
use crate::registry::server::{RepositoriesError, ServeError};
use crate::store::TransferError;

/// Why a world cannot be made or put somewhere.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A member of a layer does not fit a tar.
    #[error("{path:?} does not fit a tar header")]
    Member {
        /// Its path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Something is named that the world does not have.
    #[error("the world has no {what} {digest}")]
    Unknown {
        /// What it should be.
        what: &'static str,
        /// Its name.
        digest: Digest,
    },
    /// A tag is named that the world does not have.
    #[error("the world has no image {repository}:{tag}")]
    Untagged {
        /// The repository.
        repository: String,
        /// The tag.
        tag: String,
    },
    /// Docker's formats have no zstd.
    #[error("a Docker manifest cannot name the zstd layer {digest}")]
    Zstd {
        /// The layer.
        digest: Digest,
    },
    /// What an artifact or another made thing stands for cannot be made anew.
    #[error("{digest} is no image or index that can be built again")]
    Fixed {
        /// Which.
        digest: Digest,
    },
    /// A name is malformed.
    #[error("the name is malformed")]
    Name(#[from] ReferenceError),
    /// A repository's path is malformed.
    #[error("{path:?} is not the path of a repository")]
    Path {
        /// What was given.
        path: String,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A blob did not arrive.
    #[error("a blob did not arrive")]
    Transfer(#[from] TransferError),
    /// The repositories could not be changed.
    #[error("the repositories could not be changed")]
    Repositories(#[from] RepositoriesError),
    /// The registry did not take it.
    #[error("the registry did not take it")]
    Registry(#[from] RegistryError),
    /// The upstream could not be served.
    #[error("the upstream could not be served")]
    Serve(#[from] ServeError),
}
