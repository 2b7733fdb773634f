//! A world that is served: a registry whose bytes are made when someone asks for them.

use std::io::{self, Read};
use std::sync::{Arc, PoisonError, RwLock};

use super::{World, WorldError};
use crate::digest::Digest;
use crate::registry::server::{Options, Repositories, Server};
use crate::store::{Blob, Sink, Source, Verified};

/// A registry that serves a world, read-only, and follows its changes.
#[derive(Debug)]
pub struct Upstream {
    world: Arc<Shelf>,
    server: Server,
}

/// A world as the place that a registry reads from.
#[derive(Debug)]
struct Shelf(RwLock<World>);

impl Shelf {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, World> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Shelf {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        // The recipe is taken out, so that a slow reader keeps nobody from changing the world.
        let reader = self.read().reader(&blob.digest);
        let Some(mut bytes) = reader else {
            return Ok(None);
        };
        io::copy(&mut bytes.by_ref().take(from), &mut io::sink())?;
        Ok(Some(bytes))
    }
}

impl Sink for Shelf {
    fn holds(&self, blob: &Blob) -> io::Result<bool> {
        Ok(self.read().reader(&blob.digest).is_some())
    }

    fn write(&self, _: &Blob, _: &mut Verified<'_>) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::ReadOnlyFilesystem,
            "this upstream takes no pushes",
        ))
    }
}

impl Upstream {
    /// Serves `world` as `options` say, except that pushes are refused.
    ///
    /// # Errors
    /// If the address or what else the options name cannot be used.
    pub fn start(world: World, options: Options) -> Result<Self, WorldError> {
        let repositories = Repositories::in_memory();
        world.show(&repositories)?;
        let world = Arc::new(Shelf(RwLock::new(world)));
        let options = Options {
            read_only: true,
            ..options
        };
        let server = Server::start(options, Arc::clone(&world) as _, repositories)?;
        Ok(Self { world, server })
    }

    /// The registry.
    #[must_use]
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// The host and port to ask.
    #[must_use]
    pub fn host(&self) -> String {
        self.server.address().to_string()
    }

    /// What is served now.
    #[must_use]
    pub fn world(&self) -> World {
        self.world.read().clone()
    }

    /// Changes the world and serves what it is then.
    ///
    /// # Errors
    /// Those of `change`, after which what is served is as far as it came.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut World) -> Result<T, WorldError>,
    ) -> Result<T, WorldError> {
        let mut world = self.world.0.write().unwrap_or_else(PoisonError::into_inner);
        let before: Vec<(String, Vec<Digest>)> = world
            .repositories
            .iter()
            .map(|(path, repository)| (path.clone(), repository.roots.keys().copied().collect()))
            .collect();
        let changed = change(&mut world);
        world.show(self.server.repositories())?;
        for (path, roots) in before {
            if world.repositories.contains_key(&path) {
                continue;
            }
            for digest in &roots {
                self.server.repositories().unlink_manifest(&path, digest)?;
            }
        }
        changed
    }
}
