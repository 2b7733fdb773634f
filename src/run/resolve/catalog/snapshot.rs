//! Catalog images, read when they have to be: which packages there are, and what is said about each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::canon::Key;
use crate::digest::Digest;
use crate::oci::{Descriptor, PlatformName};
use crate::openshift::fbc::{self, Fragment};
use crate::plan::lock::Origin as PinOrigin;
use crate::reference::ImageName;
use crate::run::event::one_line;
use crate::run::resolve::means::{Instance, Means, Problem, Stored, origin_of};
use crate::step::Derive;
use crate::store::memo::{Output, recall};
use crate::store::{Blob, Source, Verified, read};

/// Largest image config that is read.
const CONFIG_LIMIT: u64 = 4 << 20;

/// Largest fragment, and largest listing of what was selected, that is read back.
pub(super) const FRAGMENT_LIMIT: u64 = 1 << 30;

/// The media type of a fragment.
const FRAGMENT_TYPE: &str = "application/vnd.operatorframework.catalog.v1+json";

/// The media type of lists of packages and of selections.
pub(super) const LISTING_TYPE: &str = "application/json";

/// One catalog image, read when it has to be.
pub(super) struct Snapshot<'m> {
    means: &'m Means<'m>,
    pub(super) origin: PinOrigin,
    pub(super) stored: Stored,
    pub(super) platforms: &'m [PlatformName],
    instance: OnceLock<Result<Instance, Problem>>,
    catalog: OnceLock<Result<fbc::Catalog<File>, Problem>>,
    names: OnceLock<Result<Vec<String>, Problem>>,
}

/// The packages of a catalog, as the memo keeps them.
#[derive(Serialize, Deserialize)]
pub(super) struct Names {
    packages: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct ImageConfig {
    #[serde(default)]
    config: Runtime,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Runtime {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl From<fbc::FbcError> for Problem {
    fn from(error: fbc::FbcError) -> Self {
        Self::of(&error)
    }
}

pub(super) fn store_problem(error: &io::Error) -> Problem {
    Problem::new(format!("the store: {}", one_line(error)))
}

impl<'m> Snapshot<'m> {
    pub(super) fn new(
        origin: PinOrigin,
        stored: Stored,
        platforms: &'m [PlatformName],
        means: &'m Means<'m>,
    ) -> Self {
        Self {
            means,
            origin,
            stored,
            platforms,
            instance: OnceLock::new(),
            catalog: OnceLock::new(),
            names: OnceLock::new(),
        }
    }

    pub(super) fn digest(&self) -> Digest {
        self.stored.blob.digest
    }

    fn instance(&self) -> Result<&Instance, Problem> {
        self.instance
            .get_or_init(|| {
                self.means
                    .instance(&self.origin, self.stored, self.platforms)
            })
            .as_ref()
            .map_err(Problem::clone)
    }

    /// Reads the catalog out of its layers, which are fetched first; those of one instance only.
    pub(super) fn catalog(&self) -> Result<&fbc::Catalog<File>, Problem> {
        self.catalog
            .get_or_init(|| {
                let instance = self.instance()?;
                read_catalog(&self.origin, instance, self.means)
                    .map_err(|problem| problem.about(format!("{}@{}", self.origin, self.digest())))
            })
            .as_ref()
            .map_err(Problem::clone)
    }

    fn split_key(&self, package: Option<&str>) -> Result<Key, Problem> {
        Ok(Derive::SplitCatalog {
            image: self.instance()?.blob,
            package: package.map(str::to_owned),
        }
        .key())
    }

    /// The names of its packages, ascending.
    pub(super) fn names(&self) -> Result<&[String], Problem> {
        self.names
            .get_or_init(|| {
                let store = self.means.resolver().store;
                let key = self.split_key(None)?;
                let known = recall(store, store, &key).map_err(|error| store_problem(&error))?;
                if let Some([output, ..]) = known.as_deref() {
                    let names: Names = read_json(self.means, &output.blob)?;
                    return Ok(names.packages);
                }
                let names = Names {
                    packages: self.catalog()?.packages().map(str::to_owned).collect(),
                };
                let blob = keep_json(self.means, &names)?;
                remember(self.means, &key, LISTING_TYPE, &[blob])?;
                Ok(names.packages)
            })
            .as_deref()
            .map_err(Problem::clone)
    }

    /// The fragments of those of `wanted` that it has.
    pub(super) fn fragments(
        &self,
        wanted: &BTreeSet<&str>,
    ) -> Result<BTreeMap<String, Blob>, Problem> {
        let store = self.means.resolver().store;
        let names = self.names()?;
        let mut found = BTreeMap::new();
        let mut open = BTreeSet::new();
        for name in wanted {
            if names
                .binary_search_by(|known| known.as_str().cmp(name))
                .is_err()
            {
                continue;
            }
            let key = self.split_key(Some(name))?;
            match recall(store, store, &key)
                .map_err(|error| store_problem(&error))?
                .as_deref()
            {
                Some([output, ..]) => {
                    found.insert((*name).to_owned(), output.blob);
                }
                _ => {
                    open.insert(*name);
                }
            }
        }
        if open.is_empty() {
            return Ok(found);
        }
        let read = self
            .catalog()?
            .each(|name| open.contains(name), |fragment| self.hold(&fragment))?;
        found.extend(read);
        Ok(found)
    }

    /// The documents that belong to no package.
    pub(super) fn globals(&self) -> Result<Blob, Problem> {
        let store = self.means.resolver().store;
        let key = self.split_key(Some(""))?;
        let known = recall(store, store, &key).map_err(|error| store_problem(&error))?;
        if let Some([output, ..]) = known.as_deref() {
            return Ok(output.blob);
        }
        Ok(self.hold(&self.catalog()?.globals()?)?.1)
    }

    fn hold(&self, fragment: &Fragment) -> Result<(String, Blob), Problem> {
        if self.means.stop().load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Problem::new("stopped"));
        }
        let name = fragment.package().to_owned();
        let blob = self.means.keep(&fragment.to_bytes())?;
        remember(
            self.means,
            &self.split_key(Some(&name))?,
            FRAGMENT_TYPE,
            &[blob],
        )?;
        Ok((name, blob))
    }
}

/// Reads a catalog out of the layers of an instance.
pub(super) fn read_catalog(
    origin: &PinOrigin,
    instance: &Instance,
    means: &Means<'_>,
) -> Result<fbc::Catalog<File>, Problem> {
    let store = means.resolver().store;
    let config = instance
        .image
        .config
        .as_ref()
        .ok_or_else(|| Problem::new("it has no config, so it is no image that runs"))?;
    let blob = Blob::from(config);
    means.blob(blob, vec![origin_of(origin)])?;
    let bytes = read(store, &blob, CONFIG_LIMIT).map_err(|error| Problem::new(one_line(&error)))?;
    let config: ImageConfig = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(format!("its config cannot be read: {error}")))?;
    let configs = fbc::configs_path(&config.config.labels.unwrap_or_default())?;
    let layers: Vec<&Descriptor> = instance.image.layers.iter().rev().collect();
    let fetched = means.gather(layers.len(), means.resolver().limits.workers, |index| {
        means.blob(Blob::from(layers[index]), vec![origin_of(origin)])
    })?;
    fetched.into_iter().collect::<Result<Vec<()>, _>>()?;
    let spool = store.scratch().map_err(|error| store_problem(&error))?;
    let open = |layer: &&Descriptor| -> io::Result<Box<dyn Read + '_>> {
        let blob = Blob::from(*layer);
        let bytes = Source::open(store, &blob, 0)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is gone"))?;
        Ok(Box::new(Stoppable {
            inner: Verified::new(bytes, blob),
            means,
        }))
    };
    Ok(fbc::read_layers(
        &configs,
        layers.iter().map(open),
        spool,
        fbc::Limits::default(),
    )?)
}

/// A reader that ends when the run does.
pub(super) struct Stoppable<'m, R> {
    inner: R,
    means: &'m Means<'m>,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.means.stop().load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        self.inner.read(buffer)
    }
}

pub(super) fn keep_json(means: &Means<'_>, value: &impl Serialize) -> Result<Blob, Problem> {
    let bytes = serde_json::to_vec(value).expect("texts, lists and numbers are JSON");
    means.keep(&bytes)
}

pub(super) fn read_json<T: for<'de> Deserialize<'de>>(
    means: &Means<'_>,
    blob: &Blob,
) -> Result<T, Problem> {
    let bytes = read(means.resolver().store, blob, FRAGMENT_LIMIT)
        .map_err(|error| Problem::new(one_line(&error)))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(format!("{} cannot be read: {error}", blob.digest)))
}

pub(super) fn remember(
    means: &Means<'_>,
    key: &Key,
    media_type: &str,
    blobs: &[Blob],
) -> Result<(), Problem> {
    let outputs: Vec<Output> = blobs
        .iter()
        .enumerate()
        .map(|(index, blob)| Output {
            media_type: if index == 0 {
                media_type
            } else {
                FRAGMENT_TYPE
            }
            .to_owned(),
            blob: *blob,
        })
        .collect();
    means
        .resolver()
        .store
        .put(key, &outputs)
        .map_err(|error| store_problem(&error))
}

pub(super) fn read_fragment(
    means: &Means<'_>,
    package: &str,
    blob: &Blob,
) -> Result<Fragment, Problem> {
    let bytes = read(means.resolver().store, blob, FRAGMENT_LIMIT)
        .map_err(|error| Problem::new(one_line(&error)))?;
    Ok(Fragment::parse(package, &bytes)?)
}

/// The manifest of a catalog image that is known by digest.
pub(super) fn stored(
    origin: &PinOrigin,
    digest: &Digest,
    image: &ImageName,
    means: &Means<'_>,
) -> Result<Stored, Problem> {
    let gone = || {
        Problem::new(format!("{origin}@{digest} is not there any more")).hint(format!(
            "take the newest with `imgbuild lock --update catalog:{image}`"
        ))
    };
    if let PinOrigin::Registry(repository) = origin {
        return means.manifest(repository, digest)?.ok_or_else(gone);
    }
    if let Some(size) = means
        .resolver()
        .store
        .size_of(digest)
        .map_err(|error| store_problem(&error))?
    {
        return Ok(Stored {
            blob: Blob {
                digest: *digest,
                size,
            },
        });
    }
    // A layout on disk is asked as a whole.
    match means.resolve(image)? {
        Some(named) if named.stored.blob.digest == *digest => Ok(named.stored),
        _ => Err(gone()),
    }
}
