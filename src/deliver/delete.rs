//! Deleting from a destination in two phases: a plan that people review, and its execution to the letter.
//!
//! A registry deletes manifests, and with a manifest every tag that stands for it. So a plan looks at the destination
//! itself: of each repository it touches it reads every tag, and what a tag that stays stands for (an index with its
//! children) is not deleted, whoever else names it. Whatever a kept lock needs stays; signatures and attestations
//! (`sha256-<hex>.sig` and the like) stay or go with the image they are about.
//!
//! The plan file is a `DeleteImageList` as the incumbents write it, so either side reads the other's:
//!
//! ```yaml
//! # imgbuild delete --execute FILE deletes exactly this from docker://mirror.example.com:5000/ocp.
//! # Stays:
//! #   mirror.example.com:5000/ocp/ubi9/ubi:9.4: image registry.redhat.io/ubi9/ubi:9.4 of prod.lock.toml
//! apiVersion: mirror.openshift.io/v2alpha1
//! kind: DeleteImageList
//! items:
//! - imageName: quay.io/a/b:1@sha256:2cf2…
//!   imageReference: docker://mirror.example.com:5000/ocp/a/b:1
//!   type: generic
//! ```
//!
//! `imageName` ends in the digest that the tag stood for when the plan was made. [`execute`] deletes nothing at all if
//! a tag stands for something else by then, or if something new needs what would go.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::holdings::Holdings;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::Manifest;
use crate::reference::{Reference, ReferenceError, Repository, Tag};
use crate::run::each;

/// The schema of a plan file.
const API_VERSION: &str = "mirror.openshift.io/v2alpha1";

/// What a plan file is.
const KIND: &str = "DeleteImageList";

/// Deepest nesting of indexes that is followed.
const DEPTH_LIMIT: usize = 8;

/// Why a deletion is not planned or not carried out.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// The destination lists no repositories.
    #[error("{registry} does not list its repositories")]
    NoList {
        /// The registry.
        registry: String,
    },
    /// The destination cannot be asked.
    #[error("{at} cannot be looked at")]
    Ask {
        /// What.
        at: String,
        /// Why.
        source: io::Error,
    },
    /// The file is no plan.
    #[error("{file} is no DeleteImageList")]
    Form {
        /// The file.
        file: String,
        /// Why.
        source: serde_yaml::Error,
    },
    /// The file is of another kind or schema.
    #[error("{file} is a {kind} of {api_version}, expected a {KIND} of {API_VERSION}")]
    Kind {
        /// The file.
        file: String,
        /// What it says it is.
        kind: String,
        /// The schema it names.
        api_version: String,
    },
    /// A row names no image at a destination.
    #[error("{file}: {text:?} is not docker://HOST/REPOSITORY:TAG")]
    Reference {
        /// The file.
        file: String,
        /// What it says.
        text: String,
        /// Why not.
        source: Option<ReferenceError>,
    },
    /// A row does not say what the tag stood for.
    #[error(
        "{file}: {image} has no digest, so nothing shows that its tag is still what was planned"
    )]
    NoDigest {
        /// The file.
        file: String,
        /// The image.
        image: String,
    },
    /// A row is outside the destination.
    #[error("{file}: {reference} is not under {destination}")]
    Elsewhere {
        /// The file.
        file: String,
        /// The row.
        reference: String,
        /// The destination.
        destination: String,
    },
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

impl Hint for DeleteError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoList { .. } => Some("say what to delete with -c DeleteImageSetConfiguration instead of --keep alone".to_owned()),
            Self::NoDigest { .. } => Some("make the plan with `imgbuild delete --plan`, which writes the digest that each tag stands for".to_owned()),
            _ => None,
        }
    }
}

/// What somebody wants deleted.
#[derive(Clone, Debug)]
pub enum Wishes {
    /// These images.
    These(Vec<Wish>),
    /// Everything in the repositories below a prefix.
    Under {
        /// How their paths start (with `/` at its end, unless it is empty).
        prefix: String,
        /// Repositories there that are never touched: the destination's own records.
        except: BTreeSet<String>,
    },
}

/// An image that somebody wants deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wish {
    /// Its repository at the destination, whole.
    pub path: String,
    /// Its tag there.
    pub tag: Tag,
    /// Its name upstream.
    pub name: String,
    /// What kind of image, as the incumbents call it.
    pub kind: String,
}

/// An image that must stay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// Its repository at the destination, whole.
    pub path: String,
    /// Its tag there.
    pub tag: Tag,
    /// Its manifest.
    pub digest: Digest,
    /// Who needs it.
    pub because: String,
}

/// One row of a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Where it is.
    pub repository: Repository,
    /// Its tag.
    pub tag: Tag,
    /// What the tag stands for.
    pub digest: Digest,
    /// Its name upstream, without a digest.
    pub name: String,
    /// What kind of image.
    pub kind: String,
}

impl Row {
    fn at(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

/// What is to be deleted, and what is not although it was wished for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What goes, sorted.
    pub rows: Vec<Row>,
    /// What stays, by its place at the destination, with the reason.
    pub stays: BTreeMap<String, String>,
    /// What was wished for and is not there.
    pub absent: BTreeSet<String>,
    /// What must stay in the repositories that were looked at, or under the prefix, and is not there.
    pub unkept: BTreeSet<String>,
}

/// What a repository has.
#[derive(Debug, Default)]
struct Shelf {
    tags: BTreeMap<Tag, Digest>,
}

/// Reads every tag of the given repositories.
fn shelves(
    paths: &BTreeSet<String>,
    holdings: &dyn Holdings,
    workers: usize,
    stop: &AtomicBool,
) -> Result<BTreeMap<String, Shelf>, DeleteError> {
    let paths: Vec<&String> = paths.iter().collect();
    let failure: Mutex<Option<DeleteError>> = Mutex::default();
    let fail = |at: String, source: io::Error| {
        failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(DeleteError::Ask { at, source });
    };
    let listed: Mutex<Vec<(&String, Tag)>> = Mutex::default();
    each(paths.len(), workers, stop, |index| {
        match holdings.tags(paths[index]) {
            Ok(tags) => listed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(tags.into_iter().flatten().map(|tag| (paths[index], tag))),
            Err(error) => fail(paths[index].clone(), error),
        }
    });
    let listed = listed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let shelves: Mutex<BTreeMap<String, Shelf>> = Mutex::default();
    each(listed.len(), workers, stop, |index| {
        let (path, tag) = &listed[index];
        match holdings.tag(path, tag) {
            // A list of tags may be behind the tags.
            Ok(None) => {}
            Ok(Some(digest)) => {
                shelves
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry((*path).clone())
                    .or_default()
                    .tags
                    .insert(tag.clone(), digest);
            }
            Err(error) => fail(format!("{path}:{tag}"), error),
        }
    });
    if stop.load(Ordering::Relaxed) {
        return Err(DeleteError::Stopped);
    }
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(shelves.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Adds what a manifest names to what is protected, with a reason; a manifest that is not there protects only itself.
fn protect(
    path: &str,
    digest: Digest,
    because: &str,
    holdings: &dyn Holdings,
    protected: &mut HashMap<Digest, String>,
    depth: usize,
) -> Result<(), DeleteError> {
    if depth > DEPTH_LIMIT || protected.contains_key(&digest) {
        return Ok(());
    }
    protected.insert(digest, because.to_owned());
    let found = holdings
        .manifest(path, digest)
        .map_err(|source| DeleteError::Ask {
            at: format!("{path}@{digest}"),
            source,
        })?;
    if let Some((_, Manifest::Index(list))) = found {
        for child in &list.manifests {
            protect(path, child.digest, because, holdings, protected, depth + 1)?;
        }
    }
    Ok(())
}

/// The digest that a tag like `sha256-<hex>.sig` is about; also `sha256-<hex>` where it stands for something else, a
/// list of what refers to that digest.
fn subject(tag: &Tag, stands_for: Digest) -> Option<Digest> {
    let rest = tag.as_str().strip_prefix("sha256-")?;
    let (hex, suffix) = rest.split_at_checked(64)?;
    let digest = Digest::from_hex(hex).ok()?;
    match suffix {
        "" => (digest != stands_for).then_some(digest),
        suffix => suffix.starts_with('.').then_some(digest),
    }
}

/// Plans a deletion.
///
/// # Errors
/// If the destination cannot be looked at.
pub fn plan(
    registry: &str,
    wishes: &Wishes,
    kept: &[Kept],
    holdings: &dyn Holdings,
    workers: usize,
    stop: &AtomicBool,
) -> Result<Plan, DeleteError> {
    let (paths, asked): (BTreeSet<String>, BTreeMap<(&str, &Tag), &Wish>) = match wishes {
        Wishes::These(wishes) => (
            wishes.iter().map(|wish| wish.path.clone()).collect(),
            wishes
                .iter()
                .map(|wish| ((wish.path.as_str(), &wish.tag), wish))
                .collect(),
        ),
        Wishes::Under { prefix, except } => {
            let all = holdings
                .repositories()
                .map_err(|source| DeleteError::Ask {
                    at: format!("the list of repositories of {registry}"),
                    source,
                })?
                .ok_or_else(|| DeleteError::NoList {
                    registry: registry.to_owned(),
                })?;
            let under = all
                .into_iter()
                .filter(|path| path.starts_with(prefix) && !except.contains(path));
            (under.collect(), BTreeMap::new())
        }
    };
    let takes_all = matches!(wishes, Wishes::Under { .. });
    let shelves = shelves(&paths, holdings, workers, stop)?;
    let mut plan = Plan::default();
    for (path, shelf) in &shelves {
        let kept_here: Vec<&Kept> = kept.iter().filter(|kept| kept.path == *path).collect();
        let kept_tag = |tag: &Tag| kept_here.iter().find(|kept| kept.tag == *tag);
        let goes = |tag: &Tag, digest: Digest| {
            subject(tag, digest).is_none()
                && (takes_all || asked.contains_key(&(path.as_str(), tag)))
        };
        // What stays, with all that it names.
        let mut protected = HashMap::new();
        for kept in &kept_here {
            protect(
                path,
                kept.digest,
                &kept.because,
                holdings,
                &mut protected,
                0,
            )?;
        }
        for (tag, digest) in &shelf.tags {
            let because = match kept_tag(tag) {
                Some(kept) => kept.because.clone(),
                None if goes(tag, *digest) || subject(tag, *digest).is_some() => continue,
                None => format!("{path}:{tag} is not asked for and is it, or needs it"),
            };
            protect(path, *digest, &because, holdings, &mut protected, 0)?;
        }
        let mut leaving: BTreeMap<Digest, (String, String)> = BTreeMap::new();
        let mut rows = Vec::new();
        let mut stay = |tag: &Tag, because: &str| {
            plan.stays
                .insert(format!("{registry}/{path}:{tag}"), because.to_owned());
        };
        let row =
            |tag: &Tag, digest: Digest, name: String, kind: String| -> Result<Row, DeleteError> {
                let repository =
                    Repository::new(registry, path).map_err(|source| DeleteError::Reference {
                        file: "the plan".to_owned(),
                        text: format!("{registry}/{path}"),
                        source: Some(source),
                    })?;
                Ok(Row {
                    repository,
                    tag: tag.clone(),
                    digest,
                    name,
                    kind,
                })
            };
        for (tag, digest) in &shelf.tags {
            if !goes(tag, *digest) {
                continue;
            }
            if let Some(kept) = kept_tag(tag) {
                stay(tag, &kept.because);
            } else if let Some(because) = protected.get(digest) {
                stay(tag, because);
            } else {
                let wish = asked.get(&(path.as_str(), tag));
                let name = wish.map_or_else(
                    || format!("{registry}/{path}:{tag}"),
                    |wish| wish.name.clone(),
                );
                let kind = wish.map_or_else(|| "generic".to_owned(), |wish| wish.kind.clone());
                leaving.insert(*digest, (name.clone(), kind.clone()));
                rows.push(row(tag, *digest, name, kind)?);
            }
        }
        for (tag, digest) in &shelf.tags {
            let Some(about) = subject(tag, *digest) else {
                continue;
            };
            if let Some(kept) = kept_tag(tag) {
                stay(tag, &kept.because);
            } else if let Some(because) = protected.get(&about).or_else(|| protected.get(digest)) {
                if takes_all {
                    stay(tag, because);
                }
            } else if leaving.contains_key(&about) {
                let kind = leaving[&about].1.clone();
                rows.push(row(tag, *digest, format!("{registry}/{path}:{tag}"), kind)?);
            } else if takes_all {
                rows.push(row(
                    tag,
                    *digest,
                    format!("{registry}/{path}:{tag}"),
                    "generic".to_owned(),
                )?);
            }
        }
        plan.rows.extend(rows);
    }
    for (path, tag) in asked.keys() {
        let is_there = shelves
            .get(*path)
            .is_some_and(|shelf| shelf.tags.contains_key(tag));
        if !is_there {
            plan.absent.insert(format!("{registry}/{path}:{tag}"));
        }
    }
    for kept in kept {
        let is_looked_at = match wishes {
            Wishes::These(_) => paths.contains(&kept.path),
            Wishes::Under { prefix, .. } => kept.path.starts_with(prefix),
        };
        let is_there = shelves
            .get(&kept.path)
            .is_some_and(|shelf| shelf.tags.contains_key(&kept.tag));
        if is_looked_at && !is_there {
            plan.unkept
                .insert(format!("{registry}/{}:{}", kept.path, kept.tag));
        }
    }
    plan.rows.sort_by_key(Row::at);
    Ok(plan)
}

impl Plan {
    /// The plan file. `destination` is named in its first line.
    #[must_use]
    pub fn text(&self, destination: &str) -> String {
        use std::fmt::Write as _;
        let mut out = format!(
            "# imgbuild delete --execute FILE deletes exactly this from {destination}.\n# Each imageName ends in the digest that the tag stood for when this was written.\n"
        );
        for (title, lines) in [
            (
                "Stays",
                self.stays
                    .iter()
                    .map(|(at, because)| format!("{at}: {because}"))
                    .collect::<Vec<_>>(),
            ),
            ("Was not there", self.absent.iter().cloned().collect()),
            (
                "Is to be kept, but was not there",
                self.unkept.iter().cloned().collect(),
            ),
        ] {
            if !lines.is_empty() {
                let _ = writeln!(out, "# {title}:");
                for line in lines {
                    let _ = writeln!(out, "#   {}", line.replace(['\n', '\r'], " "));
                }
            }
        }
        let _ = write!(out, "apiVersion: {API_VERSION}\nkind: {KIND}\n");
        if self.rows.is_empty() {
            out.push_str("items: []\n");
            return out;
        }
        out.push_str("items:\n");
        for row in &self.rows {
            // References and kinds have no letter that YAML reads as something else.
            let _ = write!(
                out,
                "- imageName: {}@{}\n  imageReference: docker://{}\n  type: {}\n",
                row.name,
                row.digest,
                row.at(),
                row.kind
            );
        }
        out
    }
}

impl Plan {
    /// What goes as the older tool's dry run lists it (`prune-plan.json`): manifests by repository; `None` if nothing
    /// goes.
    #[must_use]
    pub fn pruning(&self, registry: &str) -> Option<String> {
        #[derive(Serialize)]
        struct Pruning<'a> {
            registry: &'a str,
            repositories: Vec<Pruned<'a>>,
        }
        #[derive(Serialize)]
        struct Pruned<'a> {
            name: &'a str,
            manifests: BTreeSet<Digest>,
        }
        let mut manifests: BTreeMap<&str, BTreeSet<Digest>> = BTreeMap::new();
        for row in &self.rows {
            manifests
                .entry(row.repository.path())
                .or_default()
                .insert(row.digest);
        }
        if manifests.is_empty() {
            return None;
        }
        let pruning = Pruning {
            registry,
            repositories: manifests
                .into_iter()
                .map(|(name, manifests)| Pruned { name, manifests })
                .collect(),
        };
        let mut out = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let mut writer = serde_json::Serializer::with_formatter(&mut out, indent);
        pruning
            .serialize(&mut writer)
            .expect("text and lists can always be written as JSON");
        out.push(b'\n');
        Some(String::from_utf8(out).expect("JSON is UTF-8"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Option<Vec<FileRow>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileRow {
    image_name: String,
    image_reference: String,
    #[serde(default)]
    r#type: String,
}

/// Reads a plan file; `file` is its name in messages. `destination` (`HOST[/PREFIX]`) is what every row must be under.
///
/// # Errors
/// If it is no plan, a row names no image, or does not say what its tag stood for.
pub fn parse(text: &str, file: &str, destination: Option<&str>) -> Result<Vec<Row>, DeleteError> {
    let parsed: File = serde_yaml::from_str(text).map_err(|source| DeleteError::Form {
        file: file.to_owned(),
        source,
    })?;
    if parsed.api_version != API_VERSION || parsed.kind != KIND {
        return Err(DeleteError::Kind {
            file: file.to_owned(),
            kind: parsed.kind,
            api_version: parsed.api_version,
        });
    }
    let mut rows = Vec::new();
    for row in parsed.items.unwrap_or_default() {
        let wrong = |source| DeleteError::Reference {
            file: file.to_owned(),
            text: row.image_reference.clone(),
            source,
        };
        let bare = row
            .image_reference
            .strip_prefix("docker://")
            .ok_or_else(|| wrong(None))?;
        let reference: Reference = bare.parse().map_err(|source| wrong(Some(source)))?;
        let tag = reference.tag.ok_or_else(|| wrong(None))?;
        if reference.digest.is_some() {
            return Err(wrong(None));
        }
        let (name, digest) = row
            .image_name
            .rsplit_once('@')
            .and_then(|(name, digest)| Some((name.to_owned(), digest.parse().ok()?)))
            .ok_or_else(|| DeleteError::NoDigest {
                file: file.to_owned(),
                image: row.image_name.clone(),
            })?;
        if let Some(destination) = destination {
            let inside = reference
                .repository
                .to_string()
                .strip_prefix(destination)
                .is_some_and(|rest| rest.starts_with('/'));
            if !inside {
                return Err(DeleteError::Elsewhere {
                    file: file.to_owned(),
                    reference: row.image_reference.clone(),
                    destination: destination.to_owned(),
                });
            }
        }
        rows.push(Row {
            repository: reference.repository,
            tag,
            digest,
            name,
            kind: row.r#type,
        });
    }
    Ok(rows)
}

/// What is no longer as it was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// A tag stands for something else.
    Moved {
        /// The tag.
        at: String,
        /// What was planned.
        planned: Digest,
        /// What it is.
        found: Digest,
    },
    /// Something that is not in the plan is, or names, what would go.
    Needed {
        /// What is in the plan.
        at: String,
        /// What needs it.
        by: String,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved { at, planned, found } => {
                write!(formatter, "{at} is {found} now, planned was {planned}")
            }
            Self::Needed { at, by } => write!(formatter, "{at} is, or is part of, {by}"),
        }
    }
}

/// What came of an execution.
#[derive(Debug, Default)]
pub struct Deleted {
    /// Manifests that were deleted.
    pub manifests: u64,
    /// Tags that are gone with them.
    pub tags: u64,
    /// Rows whose tag was not there any more.
    pub gone: u64,
    /// What could not be deleted, and why.
    pub failures: Vec<(String, io::Error)>,
    /// What is not as it was planned; nothing was deleted then.
    pub drift: Vec<Drift>,
    /// Whether it was told to stop.
    pub stopped: bool,
}

/// Carries out a plan for one registry, or nothing of it.
///
/// # Errors
/// If the destination cannot be looked at; nothing was deleted then.
pub fn execute(
    rows: &[Row],
    holdings: &dyn Holdings,
    workers: usize,
    stop: &AtomicBool,
) -> Result<Deleted, DeleteError> {
    let paths: BTreeSet<String> = rows
        .iter()
        .map(|row| row.repository.path().to_owned())
        .collect();
    let shelves = shelves(&paths, holdings, workers, stop)?;
    let mut deleted = Deleted::default();
    let mut work: BTreeMap<(&str, Digest), u64> = BTreeMap::new();
    for row in rows {
        let path = row.repository.path();
        match shelves.get(path).and_then(|shelf| shelf.tags.get(&row.tag)) {
            None => deleted.gone += 1,
            Some(found) if *found == row.digest => {
                *work.entry((path, row.digest)).or_default() += 1;
            }
            Some(found) => deleted.drift.push(Drift::Moved {
                at: row.at(),
                planned: row.digest,
                found: *found,
            }),
        }
    }
    for (path, shelf) in &shelves {
        let planned: BTreeSet<&Tag> = rows
            .iter()
            .filter(|row| row.repository.path() == path)
            .map(|row| &row.tag)
            .collect();
        let mut protected = HashMap::new();
        for (tag, digest) in &shelf.tags {
            if !planned.contains(tag) {
                let by = format!("{path}:{tag}");
                protect(path, *digest, &by, holdings, &mut protected, 0)?;
            }
        }
        for row in rows.iter().filter(|row| row.repository.path() == path) {
            if let Some(by) = protected.get(&row.digest) {
                deleted.drift.push(Drift::Needed {
                    at: row.at(),
                    by: by.clone(),
                });
            }
        }
    }
    if !deleted.drift.is_empty() {
        return Ok(deleted);
    }
    let work: Vec<((&str, Digest), u64)> = work.into_iter().collect();
    let state = Mutex::new(deleted);
    each(work.len(), workers, stop, |index| {
        let ((path, digest), tags) = work[index];
        let outcome = holdings.delete(path, digest);
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(true) => {
                state.manifests += 1;
                state.tags += tags;
            }
            Ok(false) => state.gone += tags,
            Err(error) => state.failures.push((format!("{path}@{digest}"), error)),
        }
    });
    let mut deleted = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    deleted.failures.sort_by(|a, b| a.0.cmp(&b.0));
    deleted.stopped = stop.load(Ordering::Relaxed);
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::super::holdings::fake::Fake;
    use super::*;

    /// What happens between a plan and its execution.
    type Change = dyn Fn(&Fake);

    fn wish(path: &str, tag: &str) -> Wish {
        Wish {
            path: path.to_owned(),
            tag: tag.parse().unwrap(),
            name: format!("quay.io/{path}:{tag}"),
            kind: "generic".to_owned(),
        }
    }

    fn kept(path: &str, tag: &str, digest: Digest) -> Kept {
        Kept {
            path: path.to_owned(),
            tag: tag.parse().unwrap(),
            digest,
            because: "image x of kept.lock.toml".to_owned(),
        }
    }

    fn planned(wishes: &Wishes, kept: &[Kept], fake: &Fake) -> Plan {
        plan("r.example", wishes, kept, fake, 3, &AtomicBool::new(false)).unwrap()
    }

    fn tags(plan: &Plan) -> Vec<String> {
        plan.rows
            .iter()
            .map(|row| format!("{}:{}", row.repository.path(), row.tag))
            .collect()
    }

    #[test]
    fn what_a_kept_lock_needs_stays() {
        let fake = Fake::default();
        let shared = fake.image("m/a", Some("1"), "one");
        fake.image("m/a", Some("2"), "two");
        let child = fake.image("m/b", Some("child"), "three");
        let index = fake.index("m/b", Some("list"), &[child]);
        fake.image("m/b", Some("old"), "four");
        let wishes = Wishes::These(vec![
            wish("m/a", "1"),
            wish("m/a", "2"),
            wish("m/a", "3"),
            wish("m/b", "child"),
            wish("m/b", "old"),
        ]);
        // By another tag than the one that is there.
        let keep = [kept("m/a", "stable", shared), kept("m/b", "list", index)];
        let plan = planned(&wishes, &keep, &fake);
        assert_eq!(
            tags(&plan),
            ["m/a:2", "m/b:old"],
            "the rest stays: {plan:?}"
        );
        assert_eq!(
            plan.stays.keys().collect::<Vec<_>>(),
            ["r.example/m/a:1", "r.example/m/b:child"],
            "a needed digest and the child of a needed index stay"
        );
        assert_eq!(
            plan.absent.iter().collect::<Vec<_>>(),
            ["r.example/m/a:3"],
            "what is not there is named"
        );
    }

    #[test]
    fn what_an_unknown_tag_stands_for_stays() {
        let fake = Fake::default();
        fake.image("m/a", Some("1"), "one");
        fake.image("m/a", Some("somebody-elses"), "one");
        let plan = planned(&Wishes::These(vec![wish("m/a", "1")]), &[], &fake);
        assert!(
            plan.rows.is_empty() && plan.stays.len() == 1,
            "deleting it would take the other tag along: {plan:?}"
        );
    }

    #[test]
    fn everything_that_nobody_keeps_goes_and_signatures_follow_their_images() {
        let fake = Fake::default();
        let stays = fake.image("m/a", Some("1"), "one");
        let goes = fake.image("m/a", Some("2"), "two");
        for digest in [stays, goes] {
            let tag = format!("sha256-{}.sig", digest.hex());
            fake.image("m/a", Some(&tag), &format!("signature of {digest}"));
        }
        fake.image("other/a", Some("1"), "not ours");
        fake.image("m/records", Some("1"), "what the destination remembers");
        let plan = planned(
            &Wishes::Under {
                prefix: "m/".to_owned(),
                except: BTreeSet::from(["m/records".to_owned()]),
            },
            &[kept("m/a", "1", stays)],
            &fake,
        );
        assert_eq!(
            tags(&plan),
            ["m/a:2".to_owned(), format!("m/a:sha256-{}.sig", goes.hex())],
            "only under the prefix, and only what nobody needs: {plan:?}"
        );
    }

    #[test]
    fn a_plan_survives_writing() {
        let fake = Fake::default();
        fake.image("m/a", Some("1"), "one");
        fake.image("m/b", Some("1"), "two");
        let wishes = Wishes::These(vec![wish("m/a", "1"), wish("m/b", "1"), wish("m/c", "1")]);
        let plan = planned(&wishes, &[], &fake);
        let text = plan.text("docker://r.example/m");
        assert_eq!(
            parse(&text, "plan", Some("r.example/m")).unwrap(),
            plan.rows,
            "parsing must undo writing:\n{text}"
        );
        assert!(
            parse(&text, "plan", Some("r.example/mm")).is_err(),
            "another destination is refused"
        );
        let value: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(
            value["items"][0]["imageReference"].as_str(),
            Some("docker://r.example/m/a:1"),
            "the incumbents' reader finds its fields"
        );
        for (bad, why) in [
            (text.replace("DeleteImageList", "Other"), "kind"),
            (
                text.replace("docker://r.example/m/a:1", "docker://r.example/m/a"),
                "tag",
            ),
            (text.replace("@sha256:", "-sha256-"), "digest"),
        ] {
            assert!(
                parse(&bad, "plan", None).is_err(),
                "a wrong {why} is refused"
            );
        }
    }

    #[test]
    fn an_execution_is_the_plan_or_nothing() {
        let setting = || {
            let fake = Fake::default();
            fake.image("m/a", Some("1"), "one");
            fake.image("m/a", Some("2"), "two");
            let wishes = Wishes::These(vec![wish("m/a", "1"), wish("m/a", "2")]);
            let plan = planned(&wishes, &[], &fake);
            assert_eq!(plan.rows.len(), 2, "{plan:?}");
            (fake, plan)
        };
        let stop = AtomicBool::new(false);
        let (fake, plan) = setting();
        let deleted = execute(&plan.rows, &fake, 2, &stop).unwrap();
        assert_eq!((deleted.manifests, deleted.tags), (2, 2), "{deleted:?}");
        let again = execute(&plan.rows, &fake, 2, &stop).unwrap();
        assert_eq!((again.manifests, again.gone), (0, 2), "it can be repeated");
        let cases: [(&str, &Change); 3] = [
            ("now, planned was", &|fake| {
                fake.image("m/a", Some("2"), "changed");
            }),
            ("m/a:new", &|fake| {
                fake.image("m/a", Some("new"), "two");
            }),
            ("m/a:list", &|fake| {
                let child = fake.image("m/a", None, "two");
                fake.index("m/a", Some("list"), &[child]);
            }),
        ];
        for (expected, change) in cases {
            let (fake, plan) = setting();
            change(&fake);
            let deleted = execute(&plan.rows, &fake, 2, &stop).unwrap();
            assert_eq!(deleted.manifests, 0, "nothing goes: {deleted:?}");
            let text = deleted.drift[0].to_string();
            assert!(text.contains(expected), "{text} must say {expected:?}");
            assert!(fake.tag("m/a", &"1".parse().unwrap()).unwrap().is_some());
        }
        let (fake, plan) = setting();
        fake.undeletable.lock().unwrap().insert(plan.rows[0].digest);
        let deleted = execute(&plan.rows, &fake, 2, &stop).unwrap();
        assert_eq!(
            (deleted.manifests, deleted.failures.len()),
            (1, 1),
            "what cannot go is reported, the rest goes: {deleted:?}"
        );
    }
}
