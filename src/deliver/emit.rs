//! Cluster resources: files that tell a cluster where to pull from.
//!
//! They are a pure function of (lock, rules, destination, layout), so both sides of a gap write the same bytes. The
//! rules carry the documents as trees; the rows they repeat over are computed here. The whole set is written each
//! time: a file that did not change is not touched, and one that an earlier set had and this one has not is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use crate::canon::Value;
use crate::config::{ConfigErrors, parse_samples};
use crate::hint::Hint;
use crate::openshift::cluster::{
    By, Mirrored, catalog_name, json_text, laid_over, mirror_rows, read_template, yaml_stream,
};
use crate::openshift::node::{Sets, entries};
use crate::openshift::release::PAYLOAD_REPOSITORY;
use crate::openshift::signature::SIGNATURE_LIMIT;
use crate::openshift::signature::store::{
    MapError, SignatureMap, aggregate, of_digest, of_digest_file,
};
use crate::plan::lock::Lock;
use crate::reference::{ImageName, ReferenceError};
use crate::run::built::Built;
use crate::run::resolve::{placements, rule_of};
use crate::step::hole::{HoleError, look_up};
use crate::step::place::{Destination, Layout, PlaceError, refuse_collisions};
use crate::step::rule::{MirrorSet, Rule, Rules, holds, is_plain_file};
use crate::store::{Blob, Source, TransferError, read};

/// Name of the file that lists what this program wrote into a folder, so that it removes nothing else.
const LISTING: &str = ".imgbuild-resources";

/// Why resources cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// An image has no place.
    #[error("the images cannot all be placed")]
    Place(#[from] PlaceError),
    /// A place at the destination is no repository.
    #[error("a placed image has no valid name at the destination")]
    Name(#[from] ReferenceError),
    /// A document does not fit its rows.
    #[error("rule {rule:?} cannot write {file}")]
    Hole {
        /// The rule.
        rule: String,
        /// The document's file.
        file: String,
        /// Why.
        source: HoleError,
    },
    /// A document asks for rows that nobody computes.
    #[error("rule {rule:?} repeats {file} for {table:?}, which is none of {}", TABLES.join(", "))]
    Table {
        /// The rule.
        rule: String,
        /// The document's file.
        file: String,
        /// What it asks for.
        table: String,
    },
    /// A signature that the lock pins cannot be had.
    #[error("signature {digest} of {image} cannot be read")]
    Signature {
        /// The signature.
        digest: crate::digest::Digest,
        /// What it is of.
        image: String,
        /// Why.
        source: Box<TransferError>,
    },
    /// A catalog cannot be told to a cluster by that name.
    #[error("{catalog}: {name:?} cannot name an object")]
    Object {
        /// The catalog.
        catalog: String,
        /// What it would be called.
        name: String,
    },
    /// The template of a CatalogSource cannot be had.
    #[error("{catalog}: its template {digest} cannot be used: {reason}")]
    Template {
        /// The catalog.
        catalog: String,
        /// The template.
        digest: String,
        /// Why.
        reason: String,
    },
    /// A file name does not come out as one.
    #[error("rule {rule:?} writes {file:?}, which is no plain file name")]
    FileName {
        /// The rule.
        rule: String,
        /// The file.
        file: String,
    },
    /// The values of a chart cannot be made, or its file cannot be written.
    #[error("chart {chart} cannot be told where its images are: {problem}")]
    Chart {
        /// The chart.
        chart: String,
        /// Why.
        problem: String,
    },
    /// A file that the lock pins cannot be had.
    #[error("{name} cannot be read")]
    File {
        /// The file.
        name: String,
        /// Why.
        source: Box<TransferError>,
    },
    /// The ConfigMap of sample image streams is malformed.
    #[error("the sample image streams cannot be read")]
    Samples(#[from] ConfigErrors),
    /// Too many signatures for one object.
    #[error("the signatures do not fit")]
    Signatures(#[from] MapError),
    /// A value that JSON cannot hold.
    #[error("{file} cannot be written as JSON")]
    Json {
        /// The file.
        file: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A value that YAML cannot hold.
    #[error("{file} cannot be written as YAML")]
    Yaml {
        /// The file.
        file: String,
        /// Why.
        source: serde_saphyr::ser::Error,
    },
    /// The folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Hint for EmitError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Place(source) => source.hint(),
            Self::Name(source) => source.hint(),
            Self::Signature { .. }
            | Self::Template { .. }
            | Self::Chart { .. }
            | Self::File { .. } => Some("run `imgbuild build` first".to_owned()),
            Self::Object { .. } => {
                Some("set targetCatalog or targetTag for this catalog".to_owned())
            }
            _ => None,
        }
    }
}

/// The compiled tables that documents may repeat over.
pub const TABLES: [&str; 7] = [
    "built",
    "catalogs",
    "digest-mirrors",
    "sample-streams",
    "signatures",
    "signatures-by-digest",
    "tag-mirrors",
];

/// Largest template of a CatalogSource that is read.
const TEMPLATE_LIMIT: u64 = 1 << 20;

/// The rule by which the ConfigMap of sample image streams is pinned.
const SAMPLES: &str = "samples";

/// Largest ConfigMap that is read; an API server takes none above 1 MiB.
const CONFIG_MAP_LIMIT: u64 = 4 << 20;

/// The images of a lock that mirror sets may list, each with its place.
///
/// # Errors
/// If an image has no place, or two collide.
pub fn mirrored(
    lock: &Lock,
    built: &[Built],
    rules: &Rules,
    destination: &Destination,
    layout: &Layout,
) -> Result<Vec<Mirrored>, EmitError> {
    let placements = placements(lock, built, rules, layout)?;
    refuse_collisions(&placements, &destination.prefix, layout)?;
    let mut images = Vec::new();
    for placement in &placements {
        // An image from a layout on disk has no name that a workload could use.
        let (Some(category), ImageName::Registry(origin)) =
            (&placement.category, &placement.origin)
        else {
            continue;
        };
        images.push(Mirrored {
            category: category.clone(),
            origin: origin.clone(),
            destination: crate::reference::Repository::new(
                &destination.registry,
                &layout.limit(&destination.join(&placement.path)),
            )?,
            by_digest: placement.by.contains(&MirrorSet::Digest),
            by_tag: placement.by.contains(&MirrorSet::Tag),
        });
    }
    Ok(images)
}

/// The mirror sets of a lock at a destination, for what nodes are told.
#[must_use]
pub fn mirror_sets(images: &[Mirrored], layout: &Layout, never_source: bool) -> Sets {
    let by_repository = layout.max_nested_paths > 0;
    Sets {
        by_digest: entries(
            &mirror_rows(images, By::Digest, by_repository),
            never_source,
        ),
        by_tag: entries(&mirror_rows(images, By::Tag, by_repository), never_source),
    }
}

/// The resources of a lock at a destination: file name to content. `source` has the signatures that the lock pins.
///
/// # Errors
/// If an image has no place there, two collide, a signature is not at hand, or a rule is at fault.
pub fn documents(
    lock: &Lock,
    built: &[Built],
    rules: &Rules,
    source: &dyn Source,
    destination: &Destination,
    layout: &Layout,
) -> Result<BTreeMap<String, String>, EmitError> {
    let images = mirrored(lock, built, rules, destination, layout)?;
    let by_repository = layout.max_nested_paths > 0;
    let mut files: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let shape = Value::map([("name", layout.name.as_str().into())]);
    for rule in rules.iter() {
        for document in &rule.documents {
            let rows = match document.each.as_deref() {
                None => vec![Value::map([])],
                Some("digest-mirrors") => {
                    with_policy(mirror_rows(&images, By::Digest, by_repository), destination)
                }
                Some("tag-mirrors") => {
                    with_policy(mirror_rows(&images, By::Tag, by_repository), destination)
                }
                Some("signatures") => signature_rows(lock, source)?,
                Some("signatures-by-digest") => signature_rows_by_digest(lock, source)?,
                Some("built") => built_rows(lock, built, rules, rule, destination, layout)?,
                Some("catalogs") => catalog_rows(lock, built, rules, source, destination, layout)?,
                Some("sample-streams") => sample_rows(lock, &images, source, destination)?,
                Some(table) => {
                    return Err(EmitError::Table {
                        rule: rule.name.clone(),
                        file: document.file.text().to_owned(),
                        table: table.to_owned(),
                    });
                }
            };
            for row in rows {
                let context = Value::map([
                    ("row", row),
                    ("destination", destination.join_registry().into()),
                    ("layout", shape.clone()),
                ]);
                if !holds(&document.when, &context) {
                    continue;
                }
                let hole = |source| EmitError::Hole {
                    rule: rule.name.clone(),
                    file: document.file.text().to_owned(),
                    source,
                };
                let file = document
                    .file
                    .fill_text(&context)
                    .map_err(hole)?
                    .unwrap_or_default();
                if !is_plain_file(&file) {
                    return Err(EmitError::FileName {
                        rule: rule.name.clone(),
                        file,
                    });
                }
                let filled = document.tree.fill(&context).map_err(hole)?;
                let under = document
                    .over
                    .as_deref()
                    .and_then(|path| look_up(&context, path));
                let laid = filled.map(|tree| match under {
                    Some(under) => laid_over(under, &tree),
                    None => tree,
                });
                files.entry(file).or_default().extend(laid);
            }
        }
    }
    let mut texts = if lock.charts.is_empty() {
        BTreeMap::new()
    } else {
        let placements = placements(lock, built, rules, layout)?;
        super::charts::values(lock, &placements, source, destination, layout)?
    };
    for (file, documents) in files {
        let text = if file.strip_suffix(".json").is_some() {
            json_text(&documents).map_err(|source| EmitError::Json {
                file: file.clone(),
                source,
            })?
        } else {
            yaml_stream(&documents).map_err(|source| EmitError::Yaml {
                file: file.clone(),
                source,
            })?
        };
        texts.insert(file, text);
    }
    Ok(texts)
}

/// The one row `{skipped}` with the sample image streams that do not have all of their images at their own paths, or none
/// if no samples were asked for.
fn sample_rows(
    lock: &Lock,
    images: &[Mirrored],
    source: &dyn Source,
    destination: &Destination,
) -> Result<Vec<Value>, EmitError> {
    let mut rows = Vec::new();
    for file in &lock.files {
        if file.want.text("rule") != Some(SAMPLES) {
            continue;
        }
        let bytes =
            read(source, &file.file, CONFIG_MAP_LIMIT).map_err(|source| EmitError::File {
                name: file.reference.clone(),
                source: Box::new(source),
            })?;
        let samples = parse_samples(&bytes, &file.reference)?;
        let is_here = |name: &ImageName| match name {
            ImageName::Layout(_) => false,
            // The operator replaces the registry and keeps the path.
            ImageName::Registry(name) => images.iter().any(|image| {
                image.origin == *name
                    && image.destination.path() == destination.join(name.repository.path())
            }),
        };
        let skipped: BTreeSet<&str> = samples
            .iter()
            .filter(|sample| !is_here(&sample.image))
            .map(|sample| sample.imagestream.as_str())
            .collect();
        let skipped = skipped.into_iter().map(Value::from).collect();
        rows.push(Value::map([("skipped", Value::List(skipped))]));
    }
    Ok(rows)
}

/// The rows with a `mirrorSourcePolicy` in each entry, where the destination has one.
fn with_policy(mut rows: Vec<Value>, destination: &Destination) -> Vec<Value> {
    let policy = match destination.asks_source {
        None => return rows,
        Some(true) => "AllowContactingSource",
        Some(false) => "NeverContactSource",
    };
    for row in &mut rows {
        let Value::Map(row) = row else { continue };
        let Some(Value::List(entries)) = row.get_mut("mirrors") else {
            continue;
        };
        for entry in entries {
            if let Value::Map(entry) = entry {
                entry.insert("mirrorSourcePolicy".to_owned(), policy.into());
            }
        }
    }
    rows
}

/// A row `{image, payloads}` for every image that a rule had made here: its name at the destination, by digest, and the
/// repository that release payloads have there.
fn built_rows(
    lock: &Lock,
    built: &[Built],
    rules: &Rules,
    rule: &Rule,
    destination: &Destination,
    layout: &Layout,
) -> Result<Vec<Value>, EmitError> {
    let of_rule: Vec<&Built> = built
        .iter()
        .filter(|built| {
            lock.find(&built.owner)
                .and_then(|block| rule_of(&block, rules))
                .is_some_and(|own| own.name == rule.name)
        })
        .collect();
    if of_rule.is_empty() {
        return Ok(Vec::new());
    }
    let placements = placements(lock, built, rules, layout)?;
    let repository = |path: &str| {
        let path = layout.limit(&destination.join(path));
        crate::reference::Repository::new(&destination.registry, &path)
    };
    let payload = lock
        .releases
        .iter()
        .flat_map(|release| &release.payloads)
        .next()
        .and_then(|payload| {
            placements
                .iter()
                .find(|placement| placement.digest == payload.pin.digest)
        });
    let payloads = repository(payload.map_or(PAYLOAD_REPOSITORY, |payload| &payload.path))?;
    let mut rows = Vec::new();
    for built in of_rule {
        let owner = built.owner.to_string();
        let placed = placements
            .iter()
            .filter(|placement| placement.owner == owner && placement.digest == built.blob.digest);
        for placement in placed {
            let image = format!("{}@{}", repository(&placement.path)?, placement.digest);
            rows.push(Value::map([
                ("image", image.into()),
                ("payloads", payloads.to_string().into()),
            ]));
        }
    }
    Ok(rows)
}

/// Every signature of a release payload that a lock pins, in lock order, each payload once.
fn signatures(
    lock: &Lock,
    source: &dyn Source,
) -> Result<Vec<(crate::digest::Digest, Vec<Vec<u8>>)>, EmitError> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for pin in lock
        .releases
        .iter()
        .flat_map(|release| &release.payloads)
        .map(|payload| &payload.pin)
        .filter(|pin| seen.insert(pin.digest))
    {
        let mut of_payload = Vec::new();
        for signature in &pin.signatures {
            let blob = Blob {
                digest: signature.digest,
                size: signature.size,
            };
            let bytes = read(source, &blob, SIGNATURE_LIMIT as u64).map_err(|source| {
                EmitError::Signature {
                    digest: signature.digest,
                    image: pin.image(),
                    source: Box::new(source),
                }
            })?;
            of_payload.push(bytes);
        }
        if !of_payload.is_empty() {
            found.push((pin.digest, of_payload));
        }
    }
    Ok(found)
}

fn data(map: &SignatureMap) -> Value {
    let data = map
        .data()
        .iter()
        .map(|(name, text)| (name.clone(), Value::Text(text.clone())))
        .collect();
    Value::Map(data)
}

/// The one row `{data}` with every signature of a release payload, or none if there are none.
fn signature_rows(lock: &Lock, source: &dyn Source) -> Result<Vec<Value>, EmitError> {
    let found = signatures(lock, source)?;
    let all: Vec<(crate::digest::Digest, &[u8])> = found
        .iter()
        .flat_map(|(digest, signatures)| signatures.iter().map(|bytes| (*digest, bytes.as_slice())))
        .collect();
    if all.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![Value::map([("data", data(&aggregate(&all)?))])])
}

/// A row `{name, file, data}` for every release payload that has signatures.
fn signature_rows_by_digest(lock: &Lock, source: &dyn Source) -> Result<Vec<Value>, EmitError> {
    signatures(lock, source)?
        .iter()
        .map(|(digest, signatures)| {
            let signatures: Vec<&[u8]> = signatures.iter().map(Vec::as_slice).collect();
            let map = of_digest(digest, &signatures)?;
            Ok(Value::map([
                ("name", map.name().into()),
                ("file", of_digest_file(digest).into()),
                ("data", data(&map)),
            ]))
        })
        .collect()
}

/// One row `{name, image, template?}` for each catalog that is served at a destination: by its tag, or by its digest
/// where it was asked for by nothing else.
fn catalog_rows(
    lock: &Lock,
    built: &[Built],
    rules: &Rules,
    source: &dyn Source,
    destination: &Destination,
    layout: &Layout,
) -> Result<Vec<Value>, EmitError> {
    let placements = placements(lock, built, rules, layout)?;
    let mut rows = Vec::new();
    for catalog in &lock.catalogs {
        let key = catalog.key().to_string();
        let Some(placed) = placements.iter().find(|placed| placed.owner == key) else {
            continue;
        };
        let repository = crate::reference::Repository::new(
            &destination.registry,
            &layout.limit(&destination.join(&placed.path)),
        )?;
        let is_digest_alone = match &placed.origin {
            ImageName::Registry(origin) => origin.tag.is_none(),
            ImageName::Layout(_) => false,
        } && catalog.target().is_none_or(|target| !target.contains(':'));
        let hex = placed.digest.hex();
        let (suffix, image) = if is_digest_alone {
            (Err(hex.as_str()), format!("{repository}@{}", placed.digest))
        } else {
            (
                Ok(placed.tag.as_str()),
                format!("{repository}:{}", placed.tag),
            )
        };
        let name = catalog_name(&repository, suffix).map_err(|name| EmitError::Object {
            catalog: key.clone(),
            name,
        })?;
        let mut row = BTreeMap::from([
            ("name".to_owned(), Value::Text(name)),
            ("image".to_owned(), Value::Text(image)),
            ("digest".to_owned(), Value::Digest(placed.digest)),
        ]);
        if let Some(digest) = catalog.want.text("template") {
            let failed = |reason: String| EmitError::Template {
                catalog: key.clone(),
                digest: digest.to_owned(),
                reason,
            };
            let file = lock
                .files
                .iter()
                .find(|file| file.file.digest.to_string() == digest)
                .ok_or_else(|| failed("the lock does not pin it".to_owned()))?;
            let bytes = read(source, &file.file, TEMPLATE_LIMIT)
                .map_err(|error| failed(error.to_string()))?;
            row.insert(
                "template".to_owned(),
                read_template(&bytes).map_err(failed)?,
            );
        }
        rows.push(Value::Map(row));
    }
    Ok(rows)
}

/// Writes a set of files into `folder`; answers the paths that changed.
///
/// # Errors
/// If the folder cannot be written. Each file is whole or as it was.
pub fn write_set(
    folder: &Path,
    files: &BTreeMap<String, String>,
) -> Result<Vec<PathBuf>, EmitError> {
    write_named_set(folder, LISTING, files, Audience::Everyone)
}

/// Who may read what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// It holds nothing secret.
    Everyone,
    /// It holds passwords.
    Owner,
}

/// The same for a set that keeps its own list under the file name `listing`, so that several sets can share a folder.
/// Names may have folders in them (`a/b.toml`).
///
/// # Errors
/// If the folder cannot be written. Each file is whole or as it was.
pub fn write_named_set(
    folder: &Path,
    listing: &str,
    files: &BTreeMap<String, String>,
    audience: Audience,
) -> Result<Vec<PathBuf>, EmitError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| EmitError::Write { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let mut changed = Vec::new();
    for (name, content) in files {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        if replace_for(&path, content.as_bytes(), audience).map_err(failed(&path))? {
            changed.push(path);
        }
    }
    let names: Vec<String> = files.keys().cloned().collect();
    changed.extend(sweep(folder, listing, &names)?);
    Ok(changed)
}

/// Removes what an earlier set had, by the list it kept under the file name `listing`, and `names` does not have; keeps
/// the list of `names`. Answers the paths that are gone.
///
/// # Errors
/// If the folder cannot be read or written.
pub(super) fn sweep(
    folder: &Path,
    listing: &str,
    names: &[String],
) -> Result<Vec<PathBuf>, EmitError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| EmitError::Write { path, source }
    };
    let listing = folder.join(listing);
    let earlier: Vec<String> = match fs::read_to_string(&listing) {
        Ok(text) => text.lines().map(str::to_owned).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(&listing)(error)),
    };
    let mut changed = Vec::new();
    for name in earlier {
        // The list is a file that anybody may have edited.
        let is_ours = Path::new(&name)
            .components()
            .all(|part| matches!(part, Component::Normal(part) if !part.as_encoded_bytes().starts_with(b".")));
        let path = folder.join(&name);
        if is_ours && !names.contains(&name) && path.is_file() {
            fs::remove_file(&path).map_err(failed(&path))?;
            changed.push(path);
        }
    }
    replace(&listing, (names.join("\n") + "\n").as_bytes()).map_err(failed(&listing))?;
    Ok(changed)
}

/// Replaces a file as a whole, unless it has that content already; answers whether it changed.
///
/// # Errors
/// If the folder cannot be written.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<bool> {
    replace_for(path, content, Audience::Everyone)
}

/// The same for a file that not everyone may read.
///
/// # Errors
/// If the folder cannot be written.
pub fn replace_for(path: &Path, content: &[u8], audience: Audience) -> io::Result<bool> {
    let is_private = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).is_ok_and(|found| found.permissions().mode().trailing_zeros() >= 6)
    };
    if fs::read(path).is_ok_and(|old| old == content)
        && (audience == Audience::Everyone || is_private(path))
    {
        return Ok(false);
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".imgbuild-")
        .tempfile_in(folder)?;
    file.write_all(content)?;
    // A temporary file is private; what replaces a user's file is readable as theirs was meant to be.
    if audience == Audience::Everyone {
        use std::os::unix::fs::PermissionsExt;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::lock::{Image, Origin, Pin, Want};

    const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn lock() -> Lock {
        let image = |reference: &str, target: Option<&str>| {
            let name: crate::reference::Reference = reference.parse().unwrap();
            Image {
                reference: reference.to_owned(),
                want: Want::new(target.map(|target| ("target", Value::from(target)))),
                pin: Pin::new(
                    Origin::Registry(name.repository),
                    crate::digest::Digest::from_hex(HEX).unwrap(),
                    7,
                ),
            }
        };
        let digest_only = format!("quay.io/a/b@sha256:{HEX}");
        Lock {
            images: vec![
                image("registry.redhat.io/ubi9/ubi:9.4", None),
                image(&digest_only, None),
                image("quay.io/x/y:1", Some("base/z:2")),
            ],
            ..Lock::default()
        }
    }

    #[test]
    fn the_resources_of_images_are_golden() {
        let rules = Rules::embedded().unwrap();
        let destination: Destination = "docker://mirror.example.test:5000/ocp".parse().unwrap();
        let store = crate::store::memory::Memory::default();
        let files = documents(
            &lock(),
            &[],
            &rules,
            &store,
            &destination,
            &Layout::default(),
        )
        .unwrap();
        assert_eq!(
            files.keys().collect::<Vec<_>>(),
            ["idms-oc-mirror.yaml", "itms-oc-mirror.yaml"],
            "both mirror sets have entries"
        );
        assert_eq!(
            files["idms-oc-mirror.yaml"],
            "---\napiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n  name: idms-generic-0\nspec:\n  imageDigestMirrors:\n  - mirrors:\n    - mirror.example.test:5000/ocp/a\n    source: quay.io/a\n",
            "the digest mirrors"
        );
        assert_eq!(
            files["itms-oc-mirror.yaml"],
            "---\napiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata:\n  name: itms-generic-0\nspec:\n  imageTagMirrors:\n  - mirrors:\n    - mirror.example.test:5000/ocp/base/z\n    source: quay.io/x/y\n  - mirrors:\n    - mirror.example.test:5000/ocp/ubi9\n    source: registry.redhat.io/ubi9\n",
            "the tag mirrors"
        );
    }

    #[test]
    fn a_set_of_files_replaces_the_one_before_and_touches_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let set = |names: &[&str]| {
            names
                .iter()
                .map(|name| ((*name).to_owned(), format!("{name}\n")))
                .collect::<BTreeMap<_, _>>()
        };
        fs::write(folder.path().join("mine.yaml"), "mine").unwrap();
        assert_eq!(
            write_set(folder.path(), &set(&["a.yaml", "b.yaml"]))
                .unwrap()
                .len(),
            2,
            "both are new"
        );
        assert_eq!(
            write_set(folder.path(), &set(&["a.yaml", "b.yaml"]))
                .unwrap()
                .len(),
            0,
            "an unchanged file is not rewritten"
        );
        write_set(folder.path(), &set(&["a.yaml"])).unwrap();
        assert!(
            !folder.path().join("b.yaml").exists(),
            "what the set has no more is gone"
        );
        assert!(
            folder.path().join("mine.yaml").exists(),
            "what somebody else wrote stays"
        );
    }
}
