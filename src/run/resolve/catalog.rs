//! `[[catalog]]`: an operator catalog, what is selected of its packages, and every image that the selection needs.
//!
//! ```text
//! reference --resolve--> image --split-catalog--> fragments --filter-catalog--> selections --> bundles, related images
//!               once               only the wanted ones        one per package                 pinned, all at once
//! ```
//!
//! 1. The catalog's image is asked for only where its block is new or to be updated. Otherwise the pinned snapshot stays,
//!    and a package that is new in the config is taken from it. A package that is updated alone comes from the newest
//!    snapshot, which its `from` names.
//! 2. A catalog is read at most once: the memo knows its packages by name, and of each the fragment that was read. What
//!    was selected from a fragment is known, too, so only fragments that changed are filtered again.
//! 3. What the selected bundles require of other packages must be among the packages of the block. What is missing is an
//!    error, or is added where that was asked for; a package that was added stays as long as something requires it.
//! 4. Images are pinned; those that upstream no longer has are told of together.
//!
//! A catalog that is wanted whole (`packages = "all"` and `full`) is read for its images, and copied as it is.
//!
//! A `want` of a catalog has
//!
//! | key | is |
//! |---|---|
//! | `packages` | `all`, where the config names none |
//! | `full` | every version rather than the newest |
//! | `selection` | the rules that choose; absent: those of the default channel |
//! | `prereleases` | `include` or `exclude`; absent: what the rules say |
//! | `platforms` | only these instances of the catalog, of bundles and of related images |
//! | `skip-dependencies` | what bundles require is not looked at |
//! | `template` | the SHA-256 of the file that its CatalogSource is made from |
//! | `target` | the repository and tag at destinations |
//!
//! A `want` of a package repeats what its content depends on: `full`, `selection`, `prereleases`; `default` (the default
//! channel), `min`, `max`, `min-bundle`, `channels`, `bundles`. One that others require has `required`, the bundles that
//! were chosen for that, and the default channel that goes with them.
//!
//! ## Why not pin the whole catalog and nothing else
//! A catalog changes every day, a package seldom. With a fragment per package one of them can move while the others stay,
//! and a review shows what moved.

mod selection;
mod served;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

pub use served::{Seen, askers, look, recipe, selected};

use super::means::{Means, Named, Problem, Stored};
use super::{Expected, Found};
use crate::canon::Value;
use crate::digest::Digest;
use crate::openshift::cluster::check_template;
use crate::openshift::select::{self, Requirement, Selection, Unmet, satisfying, unmet};
use crate::plan::key::BlockKey;
use crate::plan::lock::{Bundle, Catalog, NewBlock, Origin as PinOrigin, Package, Pin, Want};
use crate::reference::{ImageName, Reference};
use crate::step::place::{Layout, Subject, place};
use crate::step::rule::Rule;
use crate::store::Blob;
use selection::{ListedImage, Listing, common, filter, required_settings, settings_of};
use snapshot::{Snapshot, read_fragment, store_problem, stored};

/// Rounds of adding what is required; each adds a package or a bundle, and real chains are two or three long.
const ROUNDS: usize = 64;

/// Whether a catalog is mirrored as it is rather than built anew.
#[must_use]
pub fn is_copied(want: &Want) -> bool {
    is_whole(want) && want.get("full") == Some(&Value::Bool(true))
}

fn is_whole(want: &Want) -> bool {
    want.text("packages") == Some("all")
}

fn is_required(want: Option<&Want>) -> bool {
    want.is_some_and(|want| want.get("required") == Some(&Value::Bool(true)))
}

/// A catalog with its packages, and what is known of them.
pub struct Question<'a> {
    /// The catalog.
    pub catalog: &'a Expected,
    /// The packages that the config names.
    pub packages: Vec<&'a Expected>,
    /// What the previous lock has.
    pub previous: Option<&'a Catalog>,
    /// Whether the image is asked for again though it is known.
    pub renews_all: bool,
    /// Packages that are taken from the newest snapshot.
    pub renewed: BTreeSet<String>,
    /// Whether other images are left out than before.
    pub excludes_anew: bool,
    /// Whether packages that others require are added.
    pub adds_required: bool,
}

impl<'a> Question<'a> {
    /// The question that a catalog and the packages of its want come to.
    pub fn new(
        catalog: &'a Expected,
        wanted: &'a [Expected],
        previous: Option<&'a Catalog>,
        renew: &dyn Fn(&BlockKey) -> bool,
        excludes_anew: bool,
        adds_required: bool,
    ) -> Self {
        let packages: Vec<&Expected> = wanted
            .iter()
            .filter(|expected| expected.key.parent().as_ref() == Some(&catalog.key))
            .collect();
        let mut renewed: BTreeSet<String> = packages
            .iter()
            .filter(|expected| renew(&expected.key))
            .filter_map(|expected| name_of(&expected.key))
            .map(str::to_owned)
            .collect();
        if let Some(previous) = previous {
            renewed.extend(
                previous
                    .packages
                    .iter()
                    .filter(|package| renew(&previous.package_key(&package.name)))
                    .map(|package| package.name.clone()),
            );
        }
        Self {
            catalog,
            packages,
            previous,
            renews_all: renew(&catalog.key),
            renewed,
            excludes_anew,
            adds_required,
        }
    }

    /// Whether the name of the catalog is asked for.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.previous.is_none() || self.renews_all || !self.renewed.is_empty()
    }

    /// Whether the previous lock answers it.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        let Some(previous) = self.previous else {
            return false;
        };
        let known = |name: &str| previous.packages.iter().find(|one| one.name == name);
        let named: BTreeSet<&str> = self
            .packages
            .iter()
            .filter_map(|expected| name_of(&expected.key))
            .collect();
        !self.asks()
            && !self.excludes_anew
            && previous.want == self.catalog.want
            && self.packages.iter().all(|expected| {
                name_of(&expected.key)
                    .and_then(known)
                    .is_some_and(|package| package.want.as_ref() == Some(&expected.want))
            })
            && previous.packages.iter().all(|package| {
                named.contains(package.name.as_str())
                    || is_required(package.want.as_ref())
                    || package.want.is_none() && is_whole(&previous.want)
            })
    }

    fn known(&self, name: &str) -> Option<&'a Package> {
        self.previous?.packages.iter().find(|one| one.name == name)
    }
}

fn name_of(key: &BlockKey) -> Option<&str> {
    match key {
        BlockKey::Package { name, .. } => Some(name),
        _ => None,
    }
}

/// A package on its way into the block.
#[derive(Clone)]
struct Task<'a> {
    name: String,
    /// As the block repeats it.
    want: Option<Want>,
    /// What the selection depends on.
    settings: BTreeMap<String, Value>,
    /// Which snapshot it comes from.
    snapshot: usize,
    /// The fragment that is pinned already and stays.
    pinned: Option<&'a Package>,
    /// Where it was asked for.
    at: Option<&'a str>,
}

struct Picked<'a> {
    task: Task<'a>,
    fragment: Blob,
    listing: Listing,
}

struct Work<'a, 'm> {
    question: &'a Question<'a>,
    rule: &'a Rule,
    means: &'m Means<'m>,
    /// The one that the block pins comes first.
    snapshots: Vec<Snapshot<'m>>,
    /// The newest, where one was asked for.
    newest: usize,
}

/// Answers a catalog block with its packages.
///
/// # Errors
/// With everything that is in the way: the catalog is not there or cannot be read, packages are not in it, a cluster
/// would refuse what is selected, something that is required is missing, images are not there.
pub fn answer(
    question: &Question<'_>,
    rule: &Rule,
    means: &Means<'_>,
) -> Result<Found, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let expected = question.catalog;
    let (BlockKey::Catalog { reference, .. }, Some(image)) = (&expected.key, &expected.image)
    else {
        return Err(one(Problem::new("this is no catalog")));
    };
    if let Some(digest) = expected.want.text("template") {
        let file = digest.parse().ok().and_then(|digest| means.file(&digest));
        let (name, bytes) = file.ok_or_else(|| {
            one(Problem::new(format!(
                "the template {digest} is not at hand"
            )))
        })?;
        check_template(bytes).map_err(|reason| {
            one(Problem::new(format!("template {name}: {reason}"))
                .hint("it must be one CatalogSource that pulls an image (sourceType grpc)"))
        })?;
    }
    let newest = |means: &Means<'_>| -> Result<Named, Problem> {
        means
            .resolve(image)?
            .ok_or_else(|| Problem::new(format!("{image} is not there")))
    };
    let platforms = expected.platforms.as_slice();
    let home = match question.previous {
        Some(previous) if !question.renews_all => (
            previous.pin.origin.clone(),
            stored(&previous.pin.origin, &previous.pin.digest, image, means).map_err(one)?,
        ),
        _ => {
            let named = newest(means).map_err(one)?;
            (named.origin, named.stored)
        }
    };
    let pin = means.pin(home.0.clone(), home.1, platforms).map_err(one)?;
    let mut work = Work {
        question,
        rule,
        means,
        snapshots: vec![Snapshot::new(home.0, home.1, platforms, means)],
        newest: 0,
    };
    if !question.renewed.is_empty() && !question.renews_all {
        let named = newest(means).map_err(one)?;
        work.newest = work.snapshot(named.origin, named.stored);
    }
    let tasks = work.tasks(image)?;
    let mut picked = work.pick(tasks)?;
    let mut notes = Vec::new();
    if !is_whole(&expected.want)
        && expected.want.get("skip-dependencies") != Some(&Value::Bool(true))
    {
        work.require(&mut picked, &mut notes)?;
    }
    picked.sort_by(|left, right| left.task.name.cmp(&right.task.name));
    let packages = work.pinned(&picked, &mut notes)?;
    Ok(Found {
        block: NewBlock::Catalog(Catalog {
            reference: reference.clone(),
            want: expected.want.clone(),
            pin,
            packages,
        }),
        notes,
    })
}

impl<'a> Work<'a, '_> {
    /// The place of a snapshot in the list.
    fn snapshot(&mut self, origin: PinOrigin, stored: Stored) -> usize {
        if let Some(at) = self
            .snapshots
            .iter()
            .position(|known| known.stored == stored)
        {
            return at;
        }
        let platforms = self.snapshots[0].platforms;
        self.snapshots
            .push(Snapshot::new(origin, stored, platforms, self.means));
        self.snapshots.len() - 1
    }

    /// Which snapshot a package comes from, and what stays of it.
    fn place(&mut self, name: &str, image: &ImageName) -> (usize, Option<&'a Package>) {
        let question = self.question;
        if question.renews_all {
            return (0, None);
        }
        if question.renewed.contains(name) {
            return (self.newest, None);
        }
        let known = question.known(name);
        let Some(from) = known.and_then(|known| known.from) else {
            return (0, known);
        };
        // The fragment may be at hand though the snapshot is not; that is seen when it is needed.
        let origin = self.snapshots[0].origin.clone();
        let at = match stored(&origin, &from, image, self.means) {
            Ok(stored) => self.snapshot(origin, stored),
            Err(_) => 0,
        };
        (at, known)
    }

    /// What is asked for: packages by name, or all there are.
    fn tasks(&mut self, image: &ImageName) -> Result<Vec<Task<'a>>, Vec<Problem>> {
        let one = |problem: Problem| vec![problem];
        let question = self.question;
        let mut tasks = Vec::new();
        if is_whole(&question.catalog.want) {
            let common = common(&question.catalog.want);
            for name in self.snapshots[0].names().map_err(one)?.to_vec() {
                let (snapshot, pinned) = self.place(&name, image);
                let settings = settings_of(&common, question.known(&name));
                tasks.push(Task {
                    name,
                    want: None,
                    settings,
                    snapshot,
                    pinned,
                    at: None,
                });
            }
            return Ok(tasks);
        }
        for expected in &question.packages {
            let Some(name) = name_of(&expected.key) else {
                continue;
            };
            let (snapshot, pinned) = self.place(name, image);
            tasks.push(Task {
                name: name.to_owned(),
                want: Some(expected.want.clone()),
                settings: settings_of(expected.want.settings(), question.known(name)),
                snapshot,
                pinned,
                at: Some(&expected.at),
            });
        }
        Ok(tasks)
    }

    /// The fragment of each task: the pinned one where it is at hand, else that of its snapshot.
    fn fragments(&self, tasks: &[Task<'a>]) -> Result<Vec<Result<Blob, Problem>>, Problem> {
        let store = self.means.resolver().store;
        let mut at_hand: BTreeMap<&str, Blob> = BTreeMap::new();
        let mut open: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        for task in tasks {
            let pinned = task.pinned.map(|package| package.fbc);
            let size = match &pinned {
                Some(digest) => store
                    .size_of(digest)
                    .map_err(|error| store_problem(&error))?,
                None => None,
            };
            match (pinned, size) {
                (Some(digest), Some(size)) => {
                    at_hand.insert(&task.name, Blob { digest, size });
                }
                _ => {
                    open.entry(task.snapshot).or_default().insert(&task.name);
                }
            }
        }
        let mut read: BTreeMap<(usize, String), Blob> = BTreeMap::new();
        for (snapshot, names) in open {
            for (name, blob) in self.snapshots[snapshot].fragments(&names)? {
                read.insert((snapshot, name), blob);
            }
        }
        tasks
            .iter()
            .map(|task| {
                if let Some(blob) = at_hand.get(task.name.as_str()) {
                    return Ok(Ok(*blob));
                }
                let Some(blob) = read.get(&(task.snapshot, task.name.clone())) else {
                    let names = self.snapshots[task.snapshot].names()?;
                    let error = select::no_package(&task.name, names.iter().map(String::as_str));
                    return Ok(Err(Problem::of(&error)));
                };
                if let Some(pinned) = task.pinned
                    && pinned.fbc != blob.digest
                {
                    return Ok(Err(Problem::new(format!(
                        "package {:?}: {}@{} does not hold the fragment {} that is pinned",
                        task.name,
                        self.snapshots[task.snapshot].origin,
                        self.snapshots[task.snapshot].digest(),
                        pinned.fbc
                    ))
                    .hint(format!(
                        "take the newest with `imgbuild lock --update package:{}`",
                        task.name
                    ))));
                }
                Ok(Ok(*blob))
            })
            .collect()
    }

    /// Selects from each package, several at a time.
    fn pick(&self, tasks: Vec<Task<'a>>) -> Result<Vec<Picked<'a>>, Vec<Problem>> {
        let fragments = self.fragments(&tasks).map_err(|problem| vec![problem])?;
        let found: Vec<Result<Picked<'a>, Problem>> = tasks
            .into_par_iter()
            .zip(fragments)
            .map(|(task, fragment)| {
                let at = task.at;
                let picked = fragment.and_then(|fragment| {
                    let listing = filter(self.means, &task.name, &fragment, &task.settings)?;
                    Ok(Picked {
                        task,
                        fragment,
                        listing,
                    })
                });
                picked.map_err(|problem| match at {
                    Some(at) => problem.at(at),
                    None => problem,
                })
            })
            .collect();
        let mut picked = Vec::new();
        let mut problems = Vec::new();
        for one in found {
            match one {
                Ok(one) => picked.push(one),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            Ok(picked)
        } else {
            Err(problems)
        }
    }

    /// Adds what bundles require, where that is wanted or was so before; refuses what stays open.
    fn require(
        &self,
        picked: &mut Vec<Picked<'a>>,
        notes: &mut Vec<String>,
    ) -> Result<(), Vec<Problem>> {
        let one = |problem: Problem| vec![problem];
        let mut open = Vec::new();
        for _ in 0..ROUNDS {
            let fragments = picked
                .par_iter()
                .map(|picked| read_fragment(self.means, &picked.task.name, &picked.listing.blob()))
                .collect::<Result<Vec<_>, Problem>>()
                .map_err(one)?;
            open = unmet(&fragments).map_err(|error| one(error.into()))?;
            let mut added = false;
            for missing in &open {
                let Some(task) = self.addition(missing, picked).map_err(one)? else {
                    continue;
                };
                notes.push(format!(
                    "package {} is taken besides, since {} requires {}",
                    task.name, missing.by[0].1, missing.requirement
                ));
                picked.retain(|other| other.task.name != task.name);
                picked.extend(self.pick(vec![task])?);
                added = true;
                // What was added may fulfil others, too.
                break;
            }
            if !added {
                break;
            }
        }
        let problems: Vec<Problem> = open
            .iter()
            .map(|missing| {
                use crate::hint::Hint as _;
                let at = missing.by.first().and_then(|(package, _)| {
                    let one = picked.iter().find(|one| one.task.name == *package)?;
                    one.task.at
                });
                let mut advice = missing.hint().unwrap_or_default();
                if !missing.near.is_empty() {
                    advice = format!("{advice} (selected is {})", missing.near.join(", "));
                }
                let problem = Problem::new(missing.to_string()).hint(format!(
                    "{advice}, or let `imgbuild lock --add-required` add it; skipDependencies: true leaves it to the cluster"
                ));
                match at {
                    Some(at) => problem.at(at),
                    None => problem,
                }
            })
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    /// A package that fulfils a requirement, if one may be added.
    fn addition(
        &self,
        missing: &Unmet,
        picked: &[Picked<'a>],
    ) -> Result<Option<Task<'a>>, Problem> {
        let question = self.question;
        let selection = question.catalog.want.text("selection");
        let adds = question.adds_required || selection == Some(Selection::V1.as_str());
        let earlier: BTreeSet<&str> = question
            .previous
            .iter()
            .flat_map(|previous| &previous.packages)
            .filter(|package| is_required(package.want.as_ref()))
            .map(|package| package.name.as_str())
            .collect();
        let home = &self.snapshots[0];
        let candidates: Vec<&str> = match &missing.requirement {
            Requirement::Package { name, .. } => vec![name.as_str()],
            Requirement::Api { .. } if adds => home.names()?.iter().map(String::as_str).collect(),
            Requirement::Api { .. } => earlier.iter().copied().collect(),
        };
        let free: BTreeSet<&str> = candidates
            .into_iter()
            .filter(|name| adds || earlier.contains(name))
            .filter(|name| {
                picked
                    .iter()
                    .find(|one| one.task.name == **name)
                    .is_none_or(|one| is_required(one.task.want.as_ref()))
            })
            .collect();
        for name in free {
            let known = question
                .known(name)
                .filter(|package| is_required(package.want.as_ref()));
            let stays = known.filter(|_| !question.renews_all && !question.renewed.contains(name));
            let snapshot = if question.renewed.contains(name) {
                self.newest
            } else {
                0
            };
            let mut task = Task {
                name: name.to_owned(),
                want: None,
                settings: BTreeMap::new(),
                snapshot,
                pinned: stays,
                at: None,
            };
            let before = picked.iter().find(|one| one.task.name == name);
            // One that was added before comes as it was, if that is enough.
            if before.is_none()
                && let Some(want) = stays.and_then(|package| package.want.clone())
            {
                task.settings = required_settings(&want);
                task.want = Some(want);
                return Ok(Some(task));
            }
            let Some(Ok(blob)) = self
                .fragments(std::slice::from_ref(&task))?
                .into_iter()
                .next()
            else {
                continue;
            };
            let fragment = read_fragment(self.means, name, &blob)?;
            let Some((bundle, channel)) = satisfying(&fragment, &missing.requirement)? else {
                continue;
            };
            let mut bundles: BTreeSet<String> = BTreeSet::from([bundle]);
            if let Some(before) = before {
                bundles.extend(
                    before
                        .listing
                        .bundles
                        .iter()
                        .map(|bundle| bundle.name.clone()),
                );
                if bundles.len() == before.listing.bundles.len() {
                    continue;
                }
            }
            let bundles = bundles.into_iter().map(Value::Text).collect();
            let want = Want::new([
                ("required", Value::Bool(true)),
                ("bundles", Value::List(bundles)),
                ("default", channel.into()),
            ]);
            task.settings = required_settings(&want);
            task.want = Some(want);
            return Ok(Some(task));
        }
        Ok(None)
    }

    /// The packages as blocks: every image that is not left out, pinned.
    fn pinned(
        &self,
        picked: &[Picked<'a>],
        notes: &mut Vec<String>,
    ) -> Result<Vec<Package>, Vec<Problem>> {
        let one = |problem: Problem| vec![problem];
        let mut asked: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut left_out: BTreeSet<&str> = BTreeSet::new();
        for one in picked {
            let name = &one.task.name;
            notes.extend(
                one.listing
                    .notes
                    .iter()
                    .map(|note| format!("package {name:?}: {note}")),
            );
            for image in &one.listing.images {
                let is_bundle = one
                    .listing
                    .bundles
                    .iter()
                    .any(|bundle| bundle.image == image.image);
                let role = if is_bundle { "bundle" } else { "related" };
                let why = self.means.exclusions().excludes(
                    &[&image.image],
                    self.place_of(&image.image, role).as_deref(),
                );
                if let Some(why) = why {
                    if left_out.insert(&image.image) {
                        notes.push(format!(
                            "{} ({}) {why}; the catalog still lists it",
                            image.image,
                            asker(name, image)
                        ));
                    }
                    continue;
                }
                asked
                    .entry(&image.image)
                    .or_default()
                    .push(asker(name, image));
            }
        }
        let wanted: Vec<(&str, &[String])> = asked
            .iter()
            .map(|(image, askers)| (*image, askers.as_slice()))
            .collect();
        let workers = self.means.resolver().limits.workers;
        let found = self
            .means
            .gather(wanted.len(), workers, |index| self.pin(wanted[index].0))
            .map_err(one)?;
        let mut pins: BTreeMap<&str, Pin> = BTreeMap::new();
        let mut problems = Vec::new();
        for ((image, askers), pinned) in wanted.into_iter().zip(found) {
            match pinned {
                Ok(pin) => {
                    pins.insert(image, pin);
                }
                Err(problem) => problems.push(Problem {
                    text: format!("{}; needed by {}", problem.text, some(askers)),
                    ..problem
                }),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(picked.iter().map(|one| self.package(one, &pins)).collect())
    }

    fn package(&self, picked: &Picked<'a>, pins: &BTreeMap<&str, Pin>) -> Package {
        let task = &picked.task;
        let listing = &picked.listing;
        let bundles: Vec<Bundle> = listing
            .bundles
            .iter()
            .filter_map(|bundle| {
                Some(Bundle {
                    name: bundle.name.clone(),
                    channels: bundle.channels.clone(),
                    pin: pins.get(bundle.image.as_str())?.clone(),
                })
            })
            .collect();
        let images = listing
            .images
            .iter()
            .filter(|image| {
                listing
                    .bundles
                    .iter()
                    .all(|bundle| bundle.image != image.image)
            })
            .filter_map(|image| pins.get(image.image.as_str()).cloned())
            .collect();
        let from = match task.pinned {
            Some(pinned) => pinned.from,
            None => (task.snapshot != 0).then(|| self.snapshots[task.snapshot].digest()),
        };
        let package = Package {
            name: task.name.clone(),
            want: task.want.clone(),
            fbc: picked.fragment.digest,
            from,
            bundles,
            images,
        };
        // A newer snapshot that says the same is no change.
        match self.question.known(&task.name) {
            Some(known) if !self.question.renews_all && known.fbc == package.fbc => Package {
                from: known.from,
                ..package
            },
            _ => package,
        }
    }

    fn place_of(&self, image: &str, role: &str) -> Option<String> {
        let origin: ImageName = image.parse().ok()?;
        let ImageName::Registry(reference) = &origin else {
            return None;
        };
        let subject = Subject {
            owner: self.question.catalog.key.to_string(),
            origin: &origin,
            role,
            name: None,
            version: None,
            block: super::block_value(&self.question.catalog.key),
            want: super::want_value(&self.question.catalog.want),
            source: Some(&reference.repository),
            blob: Blob {
                digest: reference
                    .digest
                    .unwrap_or_else(|| Digest::from_bytes([0; 32])),
                size: 0,
            },
            platforms: &[],
        };
        let placed = place(self.rule, &Layout::default(), &subject).ok()?;
        Some(format!("{}:{}", placed.path, placed.tag))
    }

    /// Pins one image as the catalog writes it: the digest decides where there is one.
    fn pin(&self, image: &str) -> Result<Pin, Problem> {
        let reference: Reference = image
            .parse()
            .map_err(|error: crate::reference::ReferenceError| Problem::of(&error).about(image))?;
        let platforms = self.snapshots[0].platforms;
        let mut pin = if let Some(digest) = &reference.digest {
            let stored = self
                .means
                .manifest(&reference.repository, digest)?
                .ok_or_else(|| Problem::new(format!("{image} is not there")))?;
            let origin = PinOrigin::Registry(reference.repository.clone());
            self.means.pin(origin, stored, platforms)?
        } else {
            let named = self
                .means
                .resolve(&ImageName::Registry(reference.clone()))?
                .ok_or_else(|| Problem::new(format!("{image} is not there")))?;
            self.means.pin(named.origin, named.stored, platforms)?
        };
        pin.tag = reference.tag;
        Ok(pin)
    }
}

fn asker(package: &str, image: &ListedImage) -> String {
    match image.asked.first() {
        Some((bundle, name)) if name.is_empty() => format!("package {package}: bundle {bundle}"),
        Some((bundle, name)) => format!("package {package}: bundle {bundle} calls it {name:?}"),
        None => format!("package {package}"),
    }
}

fn some(askers: &[String]) -> String {
    match askers {
        [] => String::new(),
        [first] => first.clone(),
        [first, rest @ ..] => format!("{first}, and {} more", rest.len()),
    }
}

/// What a block asks, for people.
#[must_use]
pub fn question(expected: &Expected) -> String {
    match &expected.key {
        BlockKey::Package { name, catalog, .. } => format!("package {name} of {catalog}"),
        other => other.to_string(),
    }
}
