//! What follows from a locked catalog: the fragments that the mirror serves, who lists an image; and a look at one that
//! is not locked yet.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::selection::{filter, settings_of_block};
use super::snapshot::{FRAGMENT_LIMIT, Snapshot, store_problem, stored};
use crate::canon::Value;
use crate::digest::Digest;
use crate::oci::PlatformName;
use crate::openshift::fbc::Fragment;
use crate::openshift::select;
use crate::plan::lock::{Catalog, Package, Pin};
use crate::reference::{ImageName, Reference};
use crate::run::event::one_line;
use crate::run::resolve::means::{Means, Problem};
use crate::store::Blob;

/// Everything that decides what a catalog that is built from a block serves, besides the image below it.
#[must_use]
pub fn recipe(catalog: &Catalog) -> Value {
    let packages = catalog
        .packages
        .iter()
        .map(|package| {
            Value::map([
                ("name", package.name.as_str().into()),
                ("fbc", Value::Digest(package.fbc)),
                ("want", Value::Map(settings_of_block(catalog, package))),
            ])
        })
        .collect();
    Value::List(packages)
}

/// The selected fragments of a locked catalog, by package, and the documents of no package under the empty name: what
/// the catalog that is built from it serves. From the store where that has them, else from the pinned snapshots.
///
/// # Errors
/// If a fragment is neither in the store nor in the snapshot that should hold it.
pub fn selected(
    catalog: &Catalog,
    image: &ImageName,
    platforms: &[PlatformName],
    means: &Means<'_>,
) -> Result<BTreeMap<String, Blob>, Problem> {
    let pin = &catalog.pin;
    let home = stored(&pin.origin, &pin.digest, image, means)?;
    let mut snapshots = BTreeMap::from([(
        pin.digest,
        Snapshot::new(pin.origin.clone(), home, platforms, means),
    )]);
    let store = means.resolver().store;
    let mut out = BTreeMap::new();
    let mut open: BTreeMap<Digest, BTreeSet<&str>> = BTreeMap::new();
    let mut fragments: BTreeMap<&str, Blob> = BTreeMap::new();
    for package in &catalog.packages {
        let size = store
            .size_of(&package.fbc)
            .map_err(|error| store_problem(&error))?;
        if let Some(size) = size {
            let digest = package.fbc;
            fragments.insert(&package.name, Blob { digest, size });
        } else {
            let from = package.from.unwrap_or(pin.digest);
            open.entry(from).or_default().insert(&package.name);
        }
    }
    for (from, names) in &open {
        if !snapshots.contains_key(from) {
            let held = stored(&pin.origin, from, image, means)?;
            let snapshot = Snapshot::new(pin.origin.clone(), held, platforms, means);
            snapshots.insert(*from, snapshot);
        }
        let read = snapshots[from].fragments(names)?;
        for package in catalog
            .packages
            .iter()
            .filter(|package| names.contains(package.name.as_str()))
        {
            let blob = read
                .get(&package.name)
                .filter(|blob| blob.digest == package.fbc)
                .ok_or_else(|| {
                    Problem::new(format!(
                        "package {:?}: {}@{from} does not hold the fragment {} that is pinned",
                        package.name, pin.origin, package.fbc
                    ))
                })?;
            fragments.insert(&package.name, *blob);
        }
    }
    let listed: Vec<Result<(String, Blob), Problem>> = catalog
        .packages
        .par_iter()
        .map(|package| {
            let settings = settings_of_block(catalog, package);
            let listing = filter(
                means,
                &package.name,
                &fragments[package.name.as_str()],
                &settings,
            )?;
            Ok((package.name.clone(), listing.blob()))
        })
        .collect();
    for one in listed {
        let (name, blob) = one?;
        out.insert(name, blob);
    }
    out.insert(String::new(), snapshots[&pin.digest].globals()?);
    Ok(out)
}

/// What a catalog has, without choosing any of it: the packages that `wanted` names, summed up.
///
/// # Errors
/// If the catalog is not there or cannot be read, or a package makes no sense.
pub fn look(
    image: &ImageName,
    wanted: &(dyn Fn(&str) -> bool + Sync),
    means: &Means<'_>,
) -> Result<Seen, Problem> {
    let named = means
        .resolve(image)?
        .ok_or_else(|| Problem::new(format!("{image} is not there")))?;
    let digest = named.stored.blob.digest;
    let snapshot = Snapshot::new(named.origin, named.stored, &[], means);
    let catalog = snapshot.catalog()?;
    let packages = catalog.each(wanted, |fragment| {
        select::summary(&fragment).map_err(Problem::from)
    })?;
    Ok(Seen {
        digest,
        names: catalog.packages().map(str::to_owned).collect(),
        packages,
    })
}

/// What was seen of a catalog.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The image that its name stands for.
    pub digest: Digest,
    /// Every package there is, ascending.
    pub names: Vec<String>,
    /// Those that were asked for.
    pub packages: Vec<select::Summary>,
}

/// Which of the locked bundles of a package list an image, and what each calls it (nothing, for its own image), ascending;
/// `None` where the package's fragment is not in the store.
///
/// # Errors
/// If the fragment cannot be read.
pub fn askers(
    package: &Package,
    pin: &Pin,
    store: &dyn crate::run::realise::Depot,
) -> Result<Option<BTreeSet<(String, String)>>, Problem> {
    let size = store
        .size_of(&package.fbc)
        .map_err(|error| store_problem(&error))?;
    let Some(size) = size else { return Ok(None) };
    let blob = Blob {
        digest: package.fbc,
        size,
    };
    let bytes = crate::store::read(store, &blob, FRAGMENT_LIMIT)
        .map_err(|error| Problem::new(one_line(&error)))?;
    let fragment = Fragment::parse(&package.name, &bytes)?;
    let is_it = |image: &str| {
        image.parse::<Reference>().is_ok_and(|reference| {
            pin.repository() == Some(&reference.repository)
                && match reference.digest {
                    Some(digest) => digest == pin.digest,
                    None => reference.tag == pin.tag,
                }
        })
    };
    let mut found = BTreeSet::new();
    for bundle in fragment.bundles()? {
        if !package.bundles.iter().any(|one| one.name == bundle.name) {
            continue;
        }
        if is_it(&bundle.image) {
            found.insert((bundle.name.clone(), String::new()));
        }
        for related in bundle.related_images {
            if related.image != bundle.image && is_it(&related.image) {
                found.insert((bundle.name.clone(), related.name));
            }
        }
    }
    Ok(Some(found))
}
