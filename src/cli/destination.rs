//! `push`, `mirror`, `verify --registry`, `delete`: what is done to a registry that is reached from here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::arguments::{DeleteArguments, Format, PushArguments, Shape, Subject, VerifyArguments};
use super::locking::{finish_build, incomplete, io_failure, matching, unbuilt};
use super::site::{Site, cannot, store_failure};
use super::ui::{self, Failure, Progress, count, remark, say};
use crate::config::{self, Config, DeleteImageSet, Position};
use crate::deliver::charts;
use crate::deliver::delete::{self, DeleteError, Kept, Wish, Wishes};
use crate::deliver::emit::{documents, replace, write_set};
use crate::deliver::export::{ExportError, grow_from};
use crate::deliver::head;
use crate::deliver::import::{items, lenders};
use crate::deliver::mirror::Straight;
use crate::deliver::prove::{self, Problem, Proof, claims};
use crate::deliver::push::{self, Item, Manner, Pushed, Registry, Sparse, doors};
use crate::deliver::registry::RegistryTarget;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::openshift::release::{Architecture, disk_name};
use crate::plan::graph::Plan;
use crate::plan::key::BlockKey;
use crate::plan::lock::{Block, Lock, Payload};
use crate::reference::ImageName;
use crate::registry::client::RegistryError;
use crate::run::built::{self, Built};
use crate::run::event::{Event, one_line};
use crate::run::realise::{Extent, Report, realise};
use crate::run::resolve::{self, Request, placements, want_value};
use crate::step::Content;
use crate::step::place::{self, Destination, Layout, place, refuse_collisions};
use crate::step::rule::{Rule, Rules};
use crate::store::disk::{Access, Store};
use crate::store::memory::Memory;
use crate::store::roots::{Kind as RootKind, Root as StoreRoot};
use crate::store::{Blob, Source, StoreError};

/// Which way images take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the store, which is filled first.
    Store,
    /// From upstream, past the store.
    Straight,
}

/// Most lines that a report on the terminal has of one kind.
const LINES: usize = 20;

/// What a registry did wrong, with the advice of the client.
fn registry_failure(code: u8, what: &str, error: &io::Error) -> Failure {
    let hint = RegistryError::in_error(error)
        .and_then(Hint::hint)
        .or_else(|| StoreError::in_error(error).and_then(Hint::hint));
    let mut failure = Failure::new(code, what);
    let _ = write!(failure.text, "\n  because {}", one_line(error));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn lines(all: &[String]) -> String {
    let mut text = all[..all.len().min(LINES)].join("\n  ");
    if all.len() > LINES {
        let _ = write!(text, "\n  and {} more", all.len() - LINES);
    }
    text
}

/// `imgbuild push` and `imgbuild mirror`
pub(super) fn deliver(
    site: &Site,
    arguments: &PushArguments,
    way: Way,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let paths = site.paths(&arguments.subject);
    let place = site.destination(&arguments.destination)?;
    let shape = site.shape(&arguments.shape, &place);
    let store = site.store(Access::Shared)?;
    let (lock, lock_bytes, rules) = matching(site, &paths, arguments.subject.is_named(), &store)?;
    let client = site.client()?;
    let registry = RegistryTarget::new(client.clone(), place.registry.clone());
    preflight(&lock, &rules, &place, &shape, &registry)?;
    let progress = Progress::new(
        site.common.quiet,
        site.common.verbose > 0,
        site.common.events.as_deref(),
    )?;
    let observer = |event| progress.observe(event);
    let mut roots = resolve::roots(&lock, &[]);
    if arguments.all_platforms {
        for root in &mut roots {
            if let Content::Manifest { platforms, .. } = &mut root.fetch.content {
                platforms.clear();
            }
        }
    }
    let mut plan = Plan::of(roots).map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    let live = site.upstream()?;
    observer(Event::Phase { phase: "build" });
    let extent = match way {
        Way::Store => Extent::All,
        Way::Straight => Extent::Manifests,
    };
    let report = realise(
        &mut plan,
        extent,
        &live,
        &store,
        site.limits(),
        &observer,
        stop,
    );
    let report = report.map_err(|error| {
        progress.finish();
        io_failure("the store cannot be used", &error)
    })?;
    if report.stopped {
        progress.finish();
        return Err(incomplete(&report));
    }
    if way == Way::Straight {
        // What is no part of an image is needed here: the resources are made of it.
        let mut files = Plan::of(
            resolve::roots(&lock, &[])
                .into_iter()
                .filter(|root| root.fetch.content == Content::Opaque)
                .collect(),
        )
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
        let fetched = realise(
            &mut files,
            Extent::All,
            &live,
            &store,
            site.limits(),
            &observer,
            stop,
        );
        let fetched = fetched.map_err(|error| {
            progress.finish();
            io_failure("the store cannot be used", &error)
        })?;
        if fetched.stopped || !fetched.failures.is_empty() {
            progress.finish();
            return Err(incomplete(&fetched));
        }
    }
    // What is made of what did not arrive cannot be made either.
    let built = if report.failures.is_empty() {
        built::make(
            &lock,
            &rules,
            &built::Means {
                store: &store,
                upstream: &live,
                limits: site.limits(),
                observer: &observer,
                stop,
            },
        )
    } else {
        built::known(&lock, &rules, &store)
    };
    let built = built.map_err(|error| {
        progress.finish();
        unbuilt(&error)
    })?;
    if !built.is_empty() {
        plan.add(built.iter().map(Built::root).collect())
            .map_err(ExportError::from)
            .and_then(|()| grow_from(&mut plan, &store, &store))
            .map_err(|error| {
                progress.finish();
                Failure::of(ui::ERROR, &error, error.hint())
            })?;
    }
    if way == Way::Store && report.failures.is_empty() {
        finish_build(&store, &paths, &lock, &lock_bytes, &rules, &plan)?;
    }
    let lock_blob = store
        .insert(&lock_bytes)
        .map_err(|error| store_failure(&error))?;
    for rule in rules.iter() {
        store
            .insert(rule.text.as_bytes())
            .map_err(|error| store_failure(&error))?;
    }
    let items = items(&lock, &built, &rules, &plan, &place, &shape)
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    let root_name = format!("delivered {}", place.join_registry());
    let known = lent(&store, &root_name, &place, &shape)?;
    let straight = Straight::new(&plan, &store, &live);
    let blobs: &dyn Source = match way {
        Way::Store => &store,
        Way::Straight => &straight,
    };
    observer(Event::Phase { phase: "push" });
    let request = push::Request {
        items: &items,
        registry: &registry,
        lenders: &known,
        is_first: false,
        manner: Manner::Apart,
        workers: usize::from(site.common.jobs),
        observer: &observer,
        stop,
    };
    let pushed = push::push(request, &store, blobs);
    progress.finish();
    let is_complete = pushed.incomplete.is_empty() && report.failures.is_empty();
    let mut written = Vec::new();
    if is_complete && !pushed.stopped {
        store
            .roots()
            .set(
                &root_name,
                &StoreRoot {
                    kind: RootKind::Adopted,
                    lock: lock_blob,
                },
            )
            .map_err(|error| store_failure(&error))?;
        let files = documents(&lock, &built, &rules, &store, &place, &shape)
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
        written = write_set(&arguments.output, &files)
            .and_then(|mut written| {
                written.extend(charts::write(&arguments.output, &lock, &store)?);
                Ok(written)
            })
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    }
    match arguments.format {
        Format::Json => say(json_pushed(&place, &items, &pushed, &report).to_string()),
        Format::Text if !site.common.quiet => {
            let fetched = match way {
                Way::Store if report.fetched > 0 => format!(
                    "; {} were fetched first ({})",
                    report.fetched,
                    ui::bytes(report.bytes)
                ),
                _ => String::new(),
            };
            say(format!(
                "{place}: {} complete, {} set; {} sent ({}), {} mounted, {} were there{fetched}",
                count(number(pushed.complete), "image"),
                count(number(pushed.tags), "tag"),
                count(number(pushed.sent), "blob"),
                ui::bytes(pushed.bytes),
                pushed.mounted,
                pushed.present
            ));
            for path in &written {
                say(format!("  wrote {}", path.display()));
            }
        }
        Format::Text => {}
    }
    if is_complete {
        return Ok(ui::DONE);
    }
    Err(undelivered(&pushed, &report))
}

fn number(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Makes sure that every image has a place, and that the registry lets us in, before the first byte goes.
fn preflight(
    lock: &Lock,
    rules: &Rules,
    destination: &Destination,
    layout: &Layout,
    registry: &dyn Registry,
) -> Result<(), Failure> {
    let failed =
        |error: crate::step::place::PlaceError| Failure::of(ui::ERROR, &error, error.hint());
    let placements = placements(lock, &[], rules, layout).map_err(failed)?;
    refuse_collisions(&placements, &destination.prefix, layout).map_err(failed)?;
    let paths: BTreeSet<String> = placements
        .iter()
        .map(|placement| layout.limit(&destination.join(&placement.path)))
        .collect();
    for path in doors(&paths) {
        registry
            .repository(path)
            .and_then(|repository| repository.check())
            .map_err(|error| {
                let what = format!(
                    "{}/{path} cannot be pushed to; nothing was sent",
                    destination.registry
                );
                registry_failure(ui::ERROR, &what, &error)
            })?;
    }
    Ok(())
}

/// What the lock that was delivered last placed at the destination.
fn lent(
    store: &Store,
    root_name: &str,
    place: &Destination,
    shape: &Layout,
) -> Result<BTreeMap<Digest, BTreeSet<String>>, Failure> {
    let roots = store
        .roots()
        .list()
        .map_err(|error| store_failure(&error))?;
    match roots.into_iter().find(|(name, _)| name == root_name) {
        Some((_, root)) => lenders(store, root.lock.digest, place, shape)
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint())),
        None => Ok(BTreeMap::new()),
    }
}

fn json_pushed(
    place: &Destination,
    items: &[Item],
    pushed: &Pushed,
    report: &Report,
) -> serde_json::Value {
    let incomplete: Vec<_> = pushed
        .incomplete
        .iter()
        .map(|image| {
            json!({
                "image": image.image,
                "at": format!("{}/{}:{}", place.registry, image.path, image.tag),
                "because": image.because,
            })
        })
        .collect();
    json!({
        "version": 1,
        "destination": place.to_string(),
        "images": items.len(),
        "complete": pushed.complete,
        "tags": pushed.tags,
        "sent": pushed.sent,
        "bytes": pushed.bytes,
        "mounted": pushed.mounted,
        "present": pushed.present,
        "manifests": pushed.manifests,
        "fetched": report.fetched,
        "incomplete": incomplete,
        "stopped": pushed.stopped,
    })
}

/// Images that did not arrive: exit 5.
fn undelivered(pushed: &Pushed, report: &Report) -> Failure {
    if pushed.stopped {
        return Failure::new(ui::INCOMPLETE, "stopped; what was sent is kept")
            .hint("run the same command again to go on");
    }
    let images: Vec<String> = pushed
        .incomplete
        .iter()
        .map(|image| {
            format!(
                "{} ({}:{}): {}",
                image.image, image.path, image.tag, image.because
            )
        })
        .collect();
    let mut text = format!(
        "{} did not become complete; what their tags stood for before is untouched:\n  {}",
        count(images.len(), "image"),
        lines(&images)
    );
    if !report.failures.is_empty() {
        let below = incomplete(report).text;
        let below = below.split("\n\nhint:").next().unwrap_or_default();
        let _ = write!(
            text,
            "\n\n{}",
            below.strip_prefix("error: ").unwrap_or(below)
        );
    }
    let is_sparse = pushed
        .failures
        .iter()
        .any(|failure| Sparse::is_in(&failure.source));
    let advice = pushed
        .failures
        .iter()
        .find_map(|failure| RegistryError::in_error(&failure.source).and_then(Hint::hint));
    let hint = if is_sparse {
        "this registry takes an index only with all its images: add --all-platforms, or allow such indexes there (distribution: validation.manifests.indexes.platforms: none)".to_owned()
    } else {
        let again = "run the same command again: it sends only what is missing";
        advice.map_or_else(
            || format!("mend the cause and {again}"),
            |advice| format!("{advice}; then {again}"),
        )
    };
    Failure::new(ui::INCOMPLETE, text).hint(hint)
}

/// `imgbuild verify --registry`
pub(super) fn prove(
    site: &Site,
    arguments: &VerifyArguments,
    registry: &str,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let paths = site.paths(&Subject {
        mapping_file: None,
        config: arguments.config.clone(),
        lock: arguments.lock.clone(),
    });
    let place = site.destination(registry)?;
    let shape = flags(
        site,
        &place,
        arguments.layout.as_deref(),
        arguments.max_nested_paths,
    );
    let (lock, lock_bytes) = site.lock(&paths.lock)?;
    let store = any_store(site)?;
    let rules = site.rules_of(&lock, store.as_ref())?;
    let built = match &store {
        Some(store) => built::all_known(&lock, &rules, store),
        None => built::all_known(&lock, &rules, &Memory::default()),
    }
    .map_err(|error| unbuilt(&error))?;
    let claims = claims(&lock, &built, &rules, &place, &shape)
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    let target = RegistryTarget::new(site.client()?, place.registry.clone());
    let progress = Progress::new(site.common.quiet, false, site.common.events.as_deref())?;
    let observer = |event| progress.observe(event);
    observer(Event::Phase { phase: "verify" });
    let proof = prove::prove(
        &claims,
        &target,
        arguments.deep,
        usize::from(site.common.jobs),
        &observer,
        stop,
    );
    progress.finish();
    match arguments.format {
        Format::Json => say(json_proof(&place, &lock_bytes, &proof).to_string()),
        Format::Text if !site.common.quiet && !proof.stopped => {
            let depth = if arguments.deep {
                format!("; {} were read and are right", ui::bytes(proof.read))
            } else {
                String::new()
            };
            say(format!(
                "{place}: {} of {} whole; {}, {} ({}){depth}",
                proof.whole,
                count(number(proof.images), "image"),
                count(number(proof.manifests), "manifest"),
                count(number(proof.blobs), "blob"),
                ui::bytes(proof.bytes)
            ));
        }
        Format::Text => {}
    }
    if proof.stopped {
        return Err(Failure::new(ui::INCOMPLETE, "stopped; nothing is proven"));
    }
    if proof.problems.is_empty() {
        return Ok(ui::DONE);
    }
    let wrong: Vec<String> = proof
        .problems
        .iter()
        .map(|(problem, images)| {
            let names: Vec<&str> = images.iter().map(String::as_str).collect();
            match names.as_slice() {
                [] => problem.to_string(),
                [one] => format!("{problem}; of {one}"),
                [one, rest @ ..] => format!("{problem}; of {one} and {} more", rest.len()),
            }
        })
        .collect();
    let unanswered = proof
        .problems
        .keys()
        .all(|problem| matches!(problem, Problem::Unknown { .. }));
    let (code, what) = if unanswered {
        (ui::ERROR, "the destination did not answer")
    } else {
        (ui::UNVERIFIED, "the destination does not hold the lock")
    };
    // The whole list is the report, so none of it is left out.
    Err(
        Failure::new(code, format!("{what}:\n  {}", wrong.join("\n  ")))
            .hint("`imgbuild push` or `imgbuild mirror` brings what is missing"),
    )
}

fn json_proof(place: &Destination, lock: &[u8], proof: &Proof) -> serde_json::Value {
    let problems: Vec<_> = proof
        .problems
        .iter()
        .map(|(problem, images)| {
            let mut row = json!(problem);
            row["images"] = json!(images);
            row
        })
        .collect();
    json!({
        "version": 1,
        "destination": place.to_string(),
        "lock": Digest::of(lock),
        "images": proof.images,
        "whole": proof.whole,
        "manifests": proof.manifests,
        "blobs": proof.blobs,
        "bytes": proof.bytes,
        "bytesRead": proof.read,
        "problems": problems,
    })
}

pub(super) fn flags(
    site: &Site,
    place: &Destination,
    name: Option<&str>,
    max_nested_paths: Option<usize>,
) -> Layout {
    let shape = Shape {
        layout: name.map(str::to_owned),
        max_nested_paths,
    };
    site.shape(&shape, place)
}

/// The store, if there is one.
pub(super) fn any_store(site: &Site) -> Result<Option<Store>, Failure> {
    if site.store_path()?.exists() {
        site.store(Access::ReadOnly).map(Some)
    } else {
        Ok(None)
    }
}

fn delete_failure(error: &DeleteError) -> Failure {
    let hint = error.hint().or_else(|| match error {
        DeleteError::Ask { source, .. } => RegistryError::in_error(source).and_then(Hint::hint),
        _ => None,
    });
    let code = match error {
        DeleteError::Stopped => ui::INCOMPLETE,
        _ => ui::ERROR,
    };
    Failure::of(code, error, hint)
}

/// `imgbuild delete`
pub(super) fn delete(
    site: &Site,
    arguments: &DeleteArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    match (&arguments.plan, &arguments.execute, &arguments.destination) {
        (_, Some(file), place) => execute(site, file, place.as_deref(), stop),
        (Some(file), None, Some(place)) => plan(site, arguments, file, place, stop),
        _ => Err(Failure::new(ui::USAGE, "say where to delete from")),
    }
}

fn plan(
    site: &Site,
    arguments: &DeleteArguments,
    file: &Path,
    place: &str,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    if arguments.config.is_none() && arguments.keep.is_empty() {
        return Err(Failure::new(ui::USAGE, "say what goes, or what stays").hint(
            "-c DeleteImageSetConfiguration says what goes; --keep LOCK alone lets everything else go",
        ));
    }
    let place = site.destination(place)?;
    let shape = flags(
        site,
        &place,
        arguments.layout.as_deref(),
        arguments.max_nested_paths,
    );
    let store = any_store(site)?;
    let mut kept = Vec::new();
    for path in &arguments.keep {
        let (lock, _) = site.lock(path)?;
        kept.extend(keeps(
            site,
            &lock,
            &path.display().to_string(),
            store.as_ref(),
            &place,
            &shape,
        )?);
    }
    let wishes = match &arguments.config {
        None => {
            let prefix = &place.prefix;
            Wishes::Under {
                prefix: if prefix.is_empty() {
                    String::new()
                } else {
                    format!("{prefix}/")
                },
                except: [
                    place.join(head::REPOSITORY),
                    shape.limit(&place.join(head::REPOSITORY)),
                ]
                .into(),
            }
        }
        Some(config) => {
            let (wishes, rest) = wished(
                site,
                config,
                arguments.lock.as_deref(),
                store.as_ref(),
                &place,
                &shape,
            )?;
            kept.extend(rest);
            Wishes::These(wishes)
        }
    };
    let target = RegistryTarget::new(site.client()?, place.registry.clone());
    let plan = delete::plan(
        &place.registry,
        &wishes,
        &kept,
        &target,
        usize::from(site.common.jobs),
        stop,
    )
    .map_err(|error| delete_failure(&error))?;
    if arguments.config.is_none() && !kept.is_empty() && plan.unkept.len() == kept.len() {
        return Err(Failure::new(
            ui::ERROR,
            format!("nothing of what is to be kept is at {place}, so the plan would delete everything there"),
        )
        .hint("check the destination, --layout and --max-nested-paths"));
    }
    replace(file, plan.text(&place.to_string()).as_bytes())
        .map_err(|error| cannot("write the plan", file, &error))?;
    if let Some(path) = &arguments.prune_plan {
        write_or_remove(path, plan.pruning(&place.registry).as_deref())?;
    }
    if !site.common.quiet {
        say(format!(
            "{}: {} would go, {} stay",
            file.display(),
            count(plan.rows.len(), "tag"),
            plan.stays.len()
        ));
        if !plan.absent.is_empty() {
            say(format!(
                "  {} that the config names are not there",
                plan.absent.len()
            ));
        }
        if !plan.unkept.is_empty() {
            remark(format!(
                "warning: {} that must stay {} not at {place}; if that is not so, check --layout and --max-nested-paths",
                count(plan.unkept.len(), "image"),
                if plan.unkept.len() == 1 { "is" } else { "are" }
            ));
        }
        say(format!(
            "next: review it, then run `imgbuild delete --execute {}`",
            file.display()
        ));
    }
    Ok(ui::DONE)
}

/// Writes a list, or removes the one that an earlier run left where there is nothing to list.
pub(super) fn write_or_remove(path: &Path, text: Option<&str>) -> Result<(), Failure> {
    match text {
        Some(text) => {
            replace(path, text.as_bytes())
                .map_err(|error| cannot("write the list", path, &error))?;
        }
        None => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(cannot("remove", path, &error));
            }
            _ => {}
        },
    }
    Ok(())
}

/// What a lock needs at a destination.
fn keeps(
    site: &Site,
    lock: &Lock,
    file: &str,
    store: Option<&Store>,
    place: &Destination,
    shape: &Layout,
) -> Result<Vec<Kept>, Failure> {
    let rules = site.rules_of(lock, store)?;
    let built = match store {
        Some(store) => built::known(lock, &rules, store).map_err(|error| unbuilt(&error))?,
        None => Vec::new(),
    };
    kept_of(lock, &built, &rules, file, place, shape)
}

fn kept_of(
    lock: &Lock,
    built: &[Built],
    rules: &Rules,
    file: &str,
    place: &Destination,
    shape: &Layout,
) -> Result<Vec<Kept>, Failure> {
    let claims = claims(lock, built, rules, place, shape)
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    Ok(claims
        .into_iter()
        .map(|claim| Kept {
            path: claim.path,
            tag: claim.tag,
            digest: claim.digest,
            because: format!("{} of {file}", claim.name),
        })
        .collect())
}

/// The kind of an image as the incumbents call it, by what it is to its block.
fn kind(role: &str) -> &'static str {
    match role {
        "payload" => "ocpRelease",
        "component" => "ocpReleaseContent",
        "catalog" => "operatorCatalog",
        "bundle" => "operatorBundle",
        "related" => "operatorRelatedImage",
        "chart" | "chart-image" => "helmImage",
        "graph" => "cincinnatiGraph",
        _ => "generic",
    }
}

/// What a DeleteImageSetConfiguration asks for, and what the rest of the lock needs.
fn wished(
    site: &Site,
    config: &Path,
    named_lock: Option<&Path>,
    store: Option<&Store>,
    place: &Destination,
    shape: &Layout,
) -> Result<(Vec<Wish>, Vec<Kept>), Failure> {
    let set = read_delete(config)?;
    if !site.common.quiet {
        for note in &set.notes {
            remark(note.render());
        }
    }
    let lock = match named_lock {
        Some(path) => Some((site.lock(path)?.0, path.display().to_string())),
        None => None,
    };
    let rules = match &lock {
        Some((lock, _)) => {
            let mut texts: BTreeMap<String, String> = site
                .rules()?
                .iter()
                .map(|rule| (rule.name.clone(), rule.text.clone()))
                .collect();
            texts.extend(
                site.rules_of(lock, store)?
                    .iter()
                    .map(|rule| (rule.name.clone(), rule.text.clone())),
            );
            Rules::with(texts).map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?
        }
        None => site.rules()?,
    };
    let mut wishes = images(
        &set,
        config,
        &rules,
        lock.as_ref().map(|(lock, _)| lock),
        place,
        shape,
    )?;
    let needs_lock: Vec<_> = set
        .sections()
        .into_iter()
        .filter(|section| section.name != "delete.additionalImages")
        .collect();
    let Some((lock, file)) = lock else {
        if let Some(section) = needs_lock.first() {
            let error = set.error(
                section.position,
                format!("{} says nothing about images by itself", section.name),
                Some("name the lock that was delivered with --lock FILE: it knows what belongs to it".to_owned()),
            );
            return Err(Failure {
                code: ui::ERROR,
                text: config::ConfigErrors::of(vec![error])
                    .map_or_else(String::new, |errors| errors.render()),
            });
        }
        return Ok((wishes, Vec::new()));
    };
    let (gone, rest) = divide(&lock, &set, &rules, config)?;
    let failed =
        |error: crate::step::place::PlaceError| Failure::of(ui::ERROR, &error, error.hint());
    let is_graph = |owner: &str| {
        let mut graphs = gone.images.iter().filter(|image| {
            let rule = image.want.text("rule");
            rule == Some("graph-image")
        });
        graphs.any(|image| image.key().to_string() == owner)
    };
    let made = made(&gone, &rules)?;
    for placement in placements(&gone, &made, &rules, shape).map_err(failed)? {
        let role = if is_graph(&placement.owner) {
            "graph"
        } else {
            &placement.role
        };
        wishes.push(Wish {
            path: shape.limit(&place.join(&placement.path)),
            tag: placement.tag.clone(),
            name: bare(&placement.origin),
            kind: kind(role).to_owned(),
        });
    }
    wishes.sort();
    wishes.dedup_by(|a, b| (&a.path, &a.tag) == (&b.path, &b.tag));
    let made = self::made(&rest, &rules)?;
    let kept = kept_of(&rest, &made, &rules, &file, place, shape)?;
    Ok((wishes, kept))
}

/// What is made for a lock, for the sake of its places: which image it is, is not known here.
fn made(lock: &Lock, rules: &Rules) -> Result<Vec<Built>, Failure> {
    let recipes = built::recipes(lock, rules).map_err(|error| unbuilt(&error))?;
    Ok(recipes
        .into_iter()
        .map(|recipe| Built {
            reference: recipe.owner.to_string(),
            owner: recipe.owner,
            blob: Blob {
                digest: Digest::from_bytes([0; 32]),
                size: 0,
            },
        })
        .collect())
}

fn read_delete(path: &Path) -> Result<DeleteImageSet, Failure> {
    let bytes = fs::read(path).map_err(|error| cannot("read the config", path, &error))?;
    let config =
        config::parse_bytes(&bytes, &path.display().to_string()).map_err(|errors| Failure {
            code: ui::ERROR,
            text: errors.render(),
        })?;
    match config {
        Config::Delete(set) => Ok(set),
        Config::ImageSet(_) => Err(Failure::new(
            ui::ERROR,
            format!(
                "{} is an ImageSetConfiguration; a deletion takes a DeleteImageSetConfiguration",
                path.display()
            ),
        )),
    }
}

/// The name of an image without its digest.
fn bare(name: &ImageName) -> String {
    let text = name.to_string();
    text.split('@').next().unwrap_or_default().to_owned()
}

/// The additional images that a deletion names, at their places.
fn images(
    set: &DeleteImageSet,
    config: &Path,
    rules: &Rules,
    lock: Option<&Lock>,
    place_at: &Destination,
    shape: &Layout,
) -> Result<Vec<Wish>, Failure> {
    let rows = set.rows("delete.additionalImages").unwrap_or_default();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rule) = rules.serving("mirror.additionalImages").next() else {
        return Err(Failure::new(
            ui::ERROR,
            "no rule in force serves mirror.additionalImages",
        ));
    };
    let request = Request {
        asked: rows.iter().map(|row| asked(rule, row, config)).collect(),
        ..Request::default()
    };
    let expected = resolve::expected(&request, rules, &[], &mut Vec::new())
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    let mut wishes = Vec::new();
    for expected in expected {
        let pinned = match lock.and_then(|lock| lock.find(&expected.key)) {
            Some(Block::Image(image)) => Some(&image.pin),
            _ => None,
        };
        let Some(image) = &expected.image else {
            continue;
        };
        let named = match image {
            ImageName::Registry(name) => name.digest,
            ImageName::Layout(name) => name.digest,
        };
        // Only places of images named by digest are made from one.
        let digest = named
            .or_else(|| pinned.map(|pin| pin.digest))
            .unwrap_or_else(|| Digest::from_bytes([0; 32]));
        let subject = place::Subject {
            source: pinned.and_then(|pin| pin.repository()),
            ..place::Subject::alone(image, want_value(&expected.want), Blob { digest, size: 0 })
        };
        let placement = place(rule, shape, &subject)
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
        wishes.push(Wish {
            path: shape.limit(&place_at.join(&placement.path)),
            tag: placement.tag,
            name: bare(image),
            kind: kind(&placement.role).to_owned(),
        });
    }
    Ok(wishes)
}

/// Divides a lock into what a deletion names and the rest. What both have, stays.
fn divide(
    lock: &Lock,
    set: &DeleteImageSet,
    rules: &Rules,
    config: &Path,
) -> Result<(Lock, Lock), Failure> {
    let mirror = &set.delete;
    let mut gone = Lock {
        rules: lock.rules.clone(),
        ..Lock::default()
    };
    let mut rest = lock.clone();
    let mut unserved = Vec::new();
    let unknown = |position, what: String| {
        set.error(
            position,
            format!("{what} is not in the lock"),
            Some("name the lock that was delivered with --lock FILE".to_owned()),
        )
    };
    let named: BTreeSet<String> = mirror
        .additional_images
        .iter()
        .map(|row| row.value.name.value.to_string())
        .collect();
    rest.images.retain(|image| {
        let is_named = image
            .reference
            .parse::<ImageName>()
            .is_ok_and(|name| named.contains(&name.to_string()));
        !is_named
    });
    // What belongs to one request as a whole is known by the block that answered it.
    for section in set.sections() {
        let divided = [
            "delete.additionalImages",
            "delete.platform.channels",
            "delete.platform.kubeVirtContainer",
            "delete.operators",
        ];
        if divided.contains(&section.name.as_str()) {
            continue;
        }
        let keys = requested(set, &section.name, rules, config)?;
        let Some(keys) = keys else {
            unserved.push(set.error(
                section.position,
                format!("no rule in force serves {}", section.name),
                Some("list the images one by one under additionalImages".to_owned()),
            ));
            continue;
        };
        for (key, position) in keys {
            let found: Vec<BlockKey> = lock
                .blocks()
                .map(|block| block.key())
                .filter(|known| is_answer(known, &key))
                .collect();
            if found.is_empty() {
                unserved.push(unknown(position, key.to_string()));
            }
            for key in found {
                if let Some(block) = lock.find(&key).and_then(resolve::copied) {
                    gone.put(block).expect("no package is put alone");
                    rest.remove(&key);
                }
            }
        }
    }
    for row in &mirror.platform.channels {
        let channel = &row.value;
        let mut found = false;
        for release in &mut rest.releases {
            if release.name.as_str() != channel.name.value {
                continue;
            }
            let (leaving, staying): (Vec<Payload>, Vec<Payload>) =
                release.payloads.drain(..).partition(|payload| {
                    is_within(
                        &payload.version,
                        channel.min_version.as_ref().map(|at| at.value.as_str()),
                        channel.max_version.as_ref().map(|at| at.value.as_str()),
                    )
                });
            release.payloads = staying;
            if !leaving.is_empty() {
                found = true;
                let mut part = release.clone();
                part.payloads = leaving;
                gone.releases.push(part);
            }
        }
        if !found {
            unserved.push(unknown(
                row.position,
                format!("a release of {}", channel.name.value),
            ));
        }
    }
    // A path across channels has releases of theirs; those that leave their channel leave it, too.
    let left: BTreeSet<(String, String)> = gone
        .releases
        .iter()
        .flat_map(|release| {
            let versions = release.payloads.iter();
            versions.map(|payload| (release.arch.clone(), payload.version.clone()))
        })
        .collect();
    let stays: BTreeSet<(String, String)> = rest
        .releases
        .iter()
        .filter(|release| !is_path(release))
        .flat_map(|release| {
            let versions = release.payloads.iter();
            versions.map(|payload| (release.arch.clone(), payload.version.clone()))
        })
        .collect();
    for release in rest.releases.iter_mut().filter(|release| is_path(release)) {
        let arch = release.arch.clone();
        release.payloads.retain(|payload| {
            let one = (arch.clone(), payload.version.clone());
            !left.contains(&one) || stays.contains(&one)
        });
    }
    rest.releases.retain(|release| !release.payloads.is_empty());
    // Disks go with their releases; asked for alone, they go from all of them.
    if mirror.platform.kube_virt_container.value
        && mirror.platform.channels.is_empty()
        && mirror.platform.release.is_none()
    {
        let mut found = false;
        for release in &mut rest.releases {
            let mut part = release.clone();
            for payload in &mut release.payloads {
                payload
                    .components
                    .retain(|component| !is_disk(&component.name));
            }
            // The payloads are in both parts, so they stay.
            part.payloads.retain_mut(|payload| {
                payload
                    .components
                    .retain(|component| is_disk(&component.name));
                !payload.components.is_empty()
            });
            if !part.payloads.is_empty() {
                found = true;
                gone.releases.push(part);
            }
        }
        if !found {
            unserved.push(unknown(
                mirror.platform.kube_virt_container.position,
                "a disk for virtual machines".to_owned(),
            ));
        }
    }
    for row in &mirror.operators {
        let operator = &row.value;
        let reference = operator.catalog.value.to_string();
        let mut found = false;
        for catalog in &mut rest.catalogs {
            let same = catalog.reference == reference
                || catalog
                    .reference
                    .parse::<ImageName>()
                    .is_ok_and(|name| name == operator.catalog.value);
            if !same {
                continue;
            }
            let mut part = catalog.clone();
            if operator.packages.is_empty() {
                catalog.packages.clear();
                found = true;
            } else {
                part.packages.clear();
                for wanted in &operator.packages {
                    let wanted = &wanted.value;
                    let narrowed = wanted.min_version.is_some()
                        || wanted.max_version.is_some()
                        || !wanted.bundles.is_empty()
                        || !wanted.channels.is_empty();
                    let Some(at) = catalog
                        .packages
                        .iter()
                        .position(|package| package.name == wanted.name.value)
                    else {
                        unserved.push(unknown(
                            row.position,
                            format!("package {} of {reference}", wanted.name.value),
                        ));
                        found = true;
                        continue;
                    };
                    found = true;
                    if !narrowed {
                        part.packages.push(catalog.packages.remove(at));
                        continue;
                    }
                    // Which related image belongs to which bundle is not in the lock, so those stay while a bundle does.
                    let package = &mut catalog.packages[at];
                    let mut leaving = package.clone();
                    let goes = |bundle: &crate::plan::lock::Bundle| {
                        let version = bundle
                            .name
                            .split_once(".v")
                            .or_else(|| bundle.name.split_once('.'))
                            .map(|(_, version)| version);
                        let in_channels = wanted.channels.is_empty()
                            || bundle.channels.iter().all(|name| {
                                wanted.channels.iter().any(|channel| {
                                    channel.value.name.value == *name
                                        && channel.value.min_version.is_none()
                                        && channel.value.max_version.is_none()
                                })
                            });
                        let listed = wanted.bundles.is_empty()
                            || wanted.bundles.iter().any(|name| name.value == bundle.name);
                        let bounded = wanted.min_version.is_none() && wanted.max_version.is_none()
                            || version.is_some_and(|version| {
                                is_within(
                                    version,
                                    wanted.min_version.as_ref().map(|at| at.value.as_str()),
                                    wanted.max_version.as_ref().map(|at| at.value.as_str()),
                                )
                            });
                        in_channels && listed && bounded
                    };
                    leaving.bundles.retain(|bundle| goes(bundle));
                    package.bundles.retain(|bundle| !goes(bundle));
                    if package.bundles.is_empty() {
                        catalog.packages.remove(at);
                    } else {
                        leaving.images.clear();
                    }
                    part.packages.push(leaving);
                }
            }
            gone.catalogs.push(part);
        }
        if !found {
            unserved.push(unknown(
                row.position,
                format!("what is asked of {reference}"),
            ));
        }
    }
    // A catalog without packages left goes with them.
    rest.catalogs.retain(|catalog| {
        !catalog.packages.is_empty()
            || !gone.catalogs.iter().any(|part| part.key() == catalog.key())
    });
    match config::ConfigErrors::of(unserved) {
        Some(errors) => Err(Failure {
            code: ui::ERROR,
            text: errors.render(),
        }),
        None => Ok((gone, rest)),
    }
}

/// The blocks that the rows of a section come to, each with its place; `None` where no rule serves it.
fn requested(
    set: &DeleteImageSet,
    section: &str,
    rules: &Rules,
    config: &Path,
) -> Result<Option<Vec<(BlockKey, Position)>>, Failure> {
    let mirrored = section.replacen("delete.", "mirror.", 1);
    let serving: Vec<&Rule> = rules
        .serving(&mirrored)
        .filter(|rule| rule.block.is_some())
        .collect();
    if serving.is_empty() {
        return Ok(None);
    }
    let mut keys = Vec::new();
    for row in set.rows(section).unwrap_or_default() {
        for rule in &serving {
            let request = Request {
                asked: vec![asked(rule, &row, config)],
                ..Request::default()
            };
            let expected = resolve::expected(&request, rules, &[], &mut Vec::new())
                .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
            keys.extend(
                expected
                    .into_iter()
                    .map(|expected| (expected.key, row.position)),
            );
        }
    }
    Ok(Some(keys))
}

fn asked(rule: &Rule, row: &config::Row, config: &Path) -> resolve::Asked {
    resolve::Asked {
        rule: rule.name.clone(),
        row: row.value(),
        at: format!(
            "{}:{}:{}",
            config.display(),
            row.position.line,
            row.position.column
        ),
    }
}

/// Whether a block is what a deletion names: a chart without a version is every version of it.
fn is_answer(known: &BlockKey, named: &BlockKey) -> bool {
    match (known, named) {
        (
            BlockKey::Chart { reference, .. },
            BlockKey::Chart {
                reference: other,
                version: None,
            },
        ) => reference == other,
        _ => known == named,
    }
}

/// Whether a block is the path across several channels.
fn is_path(release: &crate::plan::lock::Release) -> bool {
    release.want.get("across").is_some()
}

/// Whether a component of a release is a boot disk for virtual machines.
fn is_disk(name: &str) -> bool {
    let disk = disk_name(Architecture::Amd64, false);
    name.strip_prefix(&disk)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Whether a version is between two others, both included; a text that is no version is only itself.
fn is_within(version: &str, min: Option<&str>, max: Option<&str>) -> bool {
    use crate::openshift::version::Version;
    let (Ok(version), Some(min), Some(max)) = (
        version.parse::<Version>(),
        min.map_or(Some(None), |text| text.parse::<Version>().ok().map(Some)),
        max.map_or(Some(None), |text| text.parse::<Version>().ok().map(Some)),
    ) else {
        return false;
    };
    min.is_none_or(|min| min <= version) && max.is_none_or(|max| version <= max)
}

fn execute(
    site: &Site,
    file: &Path,
    place: Option<&str>,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let text = fs::read_to_string(file).map_err(|error| cannot("read the plan", file, &error))?;
    let place = place.map(|place| site.destination(place)).transpose()?;
    let under = place.as_ref().map(Destination::join_registry);
    let rows = delete::parse(&text, &file.display().to_string(), under.as_deref())
        .map_err(|error| delete_failure(&error))?;
    let mut by_registry: BTreeMap<String, Vec<delete::Row>> = BTreeMap::new();
    for row in rows {
        by_registry
            .entry(row.repository.registry().to_owned())
            .or_default()
            .push(row);
    }
    if by_registry.len() > 1 {
        let names: Vec<&str> = by_registry.keys().map(String::as_str).collect();
        return Err(Failure::new(
            ui::ERROR,
            format!(
                "{} names more than one registry: {}",
                file.display(),
                names.join(", ")
            ),
        )
        .hint("make one plan per destination"));
    }
    let Some((registry, rows)) = by_registry.into_iter().next() else {
        if !site.common.quiet {
            say(format!("{}: nothing to delete", file.display()));
        }
        return Ok(ui::DONE);
    };
    let target = RegistryTarget::new(site.client()?, registry.clone());
    let deleted = delete::execute(&rows, &target, usize::from(site.common.jobs), stop)
        .map_err(|error| delete_failure(&error))?;
    if !deleted.drift.is_empty() {
        let drift: Vec<String> = deleted.drift.iter().map(ToString::to_string).collect();
        return Err(Failure::new(
            ui::STALE,
            format!(
                "{registry} is not as it was planned, so nothing was deleted:\n  {}",
                lines(&drift)
            ),
        )
        .hint("make and review the plan again"));
    }
    if !site.common.quiet {
        say(format!(
            "{registry}: {} deleted with {}, {} were gone already",
            count(number(deleted.manifests), "manifest"),
            count(number(deleted.tags), "tag"),
            deleted.gone
        ));
        if deleted.manifests > 0 {
            remark("note: the registry frees the space when its own garbage collection runs");
        }
    }
    if deleted.stopped {
        return Err(
            Failure::new(ui::INCOMPLETE, "stopped; what is deleted is deleted")
                .hint("run the same command again to go on"),
        );
    }
    if deleted.failures.is_empty() {
        return Ok(ui::DONE);
    }
    let failures: Vec<String> = deleted
        .failures
        .iter()
        .map(|(at, error)| format!("{at}: {}", one_line(error)))
        .collect();
    let forbids = deleted.failures.iter().any(|(_, error)| {
        matches!(
            RegistryError::in_error(error),
            Some(RegistryError::Server { status: 405, .. })
        )
    });
    let advice = deleted
        .failures
        .iter()
        .find_map(|(_, error)| RegistryError::in_error(error).and_then(Hint::hint));
    let failure = Failure::new(
        ui::INCOMPLETE,
        format!(
            "{} could not be deleted:\n  {}",
            count(failures.len(), "manifest"),
            lines(&failures)
        ),
    );
    Err(if forbids {
        failure.hint(
            "this registry does not allow deletions (distribution: storage.delete.enabled: true)",
        )
    } else {
        match advice {
            Some(advice) => failure.hint(advice),
            None => failure,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::key::ReleaseName;
    use crate::plan::lock::{
        Bundle, Catalog, Chart, ChartSource, Component, Image, Origin, Package, Pin, Release, Want,
    };

    fn pin(text: &str) -> Pin {
        let repository = format!("quay.io/a/{text}").parse().unwrap();
        Pin::new(
            Origin::Registry(repository),
            Digest::of(text.as_bytes()),
            text.len() as u64,
        )
    }

    fn lock() -> Lock {
        let payload = |version: &str| Payload {
            version: version.to_owned(),
            pin: pin(&format!("release-{version}")),
            components: ["cli", "kube-virt-container", "kube-virt-container-s390x"]
                .map(|name| Component {
                    name: name.to_owned(),
                    pin: pin(name),
                })
                .to_vec(),
        };
        let bundle = |name: &str, channel: &str| Bundle {
            name: name.to_owned(),
            channels: vec![channel.to_owned()],
            pin: pin(name),
        };
        let package = |name: &str, bundles: Vec<Bundle>| Package {
            name: name.to_owned(),
            want: None,
            fbc: Digest::of(name.as_bytes()),
            from: None,
            bundles,
            images: vec![pin(&format!("{name}-operand"))],
        };
        Lock {
            releases: vec![
                Release {
                    name: ReleaseName::Channel("stable-4.16".to_owned()),
                    arch: "amd64".to_owned(),
                    want: Want::default(),
                    risks: Vec::new(),
                    payloads: ["4.16.1", "4.16.2", "4.16.10"].map(payload).to_vec(),
                },
                Release {
                    name: ReleaseName::Reference("quay.io/a/release:4.17.0".to_owned()),
                    arch: "amd64".to_owned(),
                    want: Want::default(),
                    risks: Vec::new(),
                    payloads: vec![payload("4.17.0")],
                },
            ],
            catalogs: vec![Catalog {
                reference: "quay.io/a/index:v4.16".to_owned(),
                want: Want::default(),
                pin: pin("index"),
                packages: vec![
                    package(
                        "one",
                        vec![bundle("one.v1.0.0", "a"), bundle("one.v2.0.0", "b")],
                    ),
                    package("two", vec![bundle("two.v1.0.0", "a")]),
                ],
            }],
            images: vec![Image {
                reference: "quay.io/a/image:1".to_owned(),
                want: Want::default(),
                pin: pin("image"),
            }],
            ..Lock::default()
        }
    }

    fn divided(delete: &str) -> Result<(Lock, Lock), String> {
        let text = format!(
            "apiVersion: mirror.openshift.io/v2alpha1\nkind: DeleteImageSetConfiguration\ndelete:\n{delete}"
        );
        let Config::Delete(set) = config::parse(&text, "delete.yaml").unwrap() else {
            panic!("a deletion")
        };
        let rules = Rules::embedded().unwrap();
        divide(&lock(), &set, &rules, Path::new("delete.yaml")).map_err(|failure| failure.text)
    }

    fn versions(lock: &Lock) -> Vec<&str> {
        lock.releases
            .iter()
            .flat_map(|release| &release.payloads)
            .map(|payload| payload.version.as_str())
            .collect()
    }

    fn bundles(lock: &Lock) -> Vec<&str> {
        lock.catalogs
            .iter()
            .flat_map(|catalog| &catalog.packages)
            .flat_map(|package| &package.bundles)
            .map(|bundle| bundle.name.as_str())
            .collect()
    }

    #[test]
    fn disks_go_alone_or_with_their_releases() {
        let names = |lock: &Lock| -> Vec<String> {
            lock.releases
                .iter()
                .flat_map(|release| &release.payloads)
                .flat_map(|payload| &payload.components)
                .map(|component| component.name.clone())
                .collect()
        };
        let (gone, rest) = divided("  platform:\n    kubeVirtContainer: true\n").unwrap();
        assert_eq!(names(&gone).len(), 8, "two disks of each of four releases");
        assert_eq!(names(&rest), ["cli"; 4], "everything else stays");
        assert_eq!(
            versions(&rest).len(),
            4,
            "no release goes for the sake of its disk"
        );
        let (gone, rest) = divided(
            "  platform:\n    kubeVirtContainer: true\n    channels:\n    - name: stable-4.16\n      minVersion: 4.16.1\n      maxVersion: 4.16.1\n",
        )
        .unwrap();
        assert_eq!(names(&gone).len(), 3, "all of one release");
        assert_eq!(names(&rest).len(), 9, "nothing of the others");
    }

    #[test]
    fn a_path_across_channels_keeps_no_release_that_its_channel_loses() {
        let mut lock = lock();
        let mut path = lock.releases[0].clone();
        path.name = ReleaseName::Channel("stable-4.15+stable-4.16".to_owned());
        path.want = Want::new([("across", crate::canon::Value::List(Vec::new()))]);
        lock.releases.push(path);
        let text = "apiVersion: mirror.openshift.io/v2alpha1\nkind: DeleteImageSetConfiguration\ndelete:\n  platform:\n    channels:\n    - name: stable-4.16\n      maxVersion: 4.16.1\n";
        let Config::Delete(set) = config::parse(text, "delete.yaml").unwrap() else {
            panic!("a deletion")
        };
        let rules = Rules::embedded().unwrap();
        let (gone, rest) = divide(&lock, &set, &rules, Path::new("delete.yaml"))
            .map_err(|failure| failure.text)
            .unwrap();
        assert_eq!(versions(&gone), ["4.16.1"]);
        assert_eq!(
            versions(&rest)
                .iter()
                .filter(|version| **version == "4.16.1")
                .count(),
            0,
            "nothing of it is left"
        );
    }

    #[test]
    fn charts_go_in_every_version_or_in_one() {
        let mut lock = lock();
        for version in ["1.0.0", "2.0.0"] {
            lock.charts.push(Chart {
                reference: "https://charts.example/stable#app".to_owned(),
                want: Want::new([("version", version.into())]),
                name: Some("app".to_owned()),
                version: Some(version.to_owned()),
                source: ChartSource::File {
                    url: None,
                    file: Blob::of(version.as_bytes()),
                },
                images: vec![pin(&format!("app-{version}"))],
            });
        }
        let divided = |charts: &str| {
            let text = format!(
                "apiVersion: mirror.openshift.io/v2alpha1\nkind: DeleteImageSetConfiguration\ndelete:\n  helm:\n    repositories:\n    - name: stable\n      url: https://charts.example/stable\n      charts:\n{charts}"
            );
            let Config::Delete(set) = config::parse(&text, "delete.yaml").unwrap() else {
                panic!("a deletion")
            };
            let rules = Rules::embedded().unwrap();
            divide(&lock, &set, &rules, Path::new("delete.yaml")).map_err(|failure| failure.text)
        };
        let versions = |lock: &Lock| -> Vec<String> {
            let charts = lock.charts.iter();
            charts.filter_map(|chart| chart.version.clone()).collect()
        };
        let (gone, rest) = divided("      - name: app\n        version: 1.0.0\n").unwrap();
        assert_eq!(
            (versions(&gone), versions(&rest)),
            (vec!["1.0.0".to_owned()], vec!["2.0.0".to_owned()])
        );
        let rules = Rules::embedded().unwrap();
        let made = made(&gone, &rules).ok().unwrap();
        let mut places: Vec<String> = placements(&gone, &made, &rules, &Layout::default())
            .unwrap()
            .iter()
            .map(|placement| {
                format!(
                    "{}:{} {}",
                    placement.path,
                    placement.tag,
                    kind(&placement.role)
                )
            })
            .collect();
        places.sort();
        assert_eq!(places.len(), 2, "the chart and its image: {places:?}");
        assert!(
            places[1].starts_with("charts/app:1.0.0 helmImage")
                || places[0].starts_with("charts/app:1.0.0 helmImage"),
            "{places:?}"
        );
        let (gone, rest) = divided("      - name: app\n").unwrap();
        assert_eq!(versions(&gone).len(), 2, "every version");
        assert!(rest.charts.is_empty(), "and none is left");
        let error = divided("      - name: other\n").unwrap_err();
        assert!(
            error.contains("#other") && error.contains("is not in the lock"),
            "{error}"
        );
    }

    #[test]
    fn a_release_by_name_goes_as_a_whole() {
        let (gone, rest) = divided("  platform:\n    release: quay.io/a/release:4.17.0\n").unwrap();
        assert_eq!(versions(&gone), ["4.17.0"], "the one that is named");
        assert_eq!(versions(&rest), ["4.16.1", "4.16.2", "4.16.10"]);
        let error = divided("  platform:\n    release: quay.io/a/release:4.18.0\n").unwrap_err();
        assert!(
            error.contains("release:4.18.0 amd64 is not in the lock"),
            "{error}"
        );
    }

    #[test]
    fn releases_are_divided_by_their_versions() {
        let (gone, rest) = divided(
            "  platform:\n    channels:\n    - name: stable-4.16\n      minVersion: 4.16.2\n      maxVersion: 4.16.9\n",
        )
        .unwrap();
        assert_eq!(versions(&gone), ["4.16.2"], "versions are no texts");
        assert_eq!(versions(&rest), ["4.16.1", "4.16.10", "4.17.0"]);
        assert_eq!(rest.images.len(), 1, "what is not named stays");
    }

    #[test]
    fn packages_are_divided_and_shared_images_stay_with_the_rest() {
        let row = |packages: &str| {
            format!("  operators:\n  - catalog: quay.io/a/index:v4.16\n{packages}")
        };
        let (gone, rest) = divided(&row(
            "    packages:\n    - name: one\n      maxVersion: 1.5.0\n",
        ))
        .unwrap();
        assert_eq!(bundles(&gone), ["one.v1.0.0"]);
        assert_eq!(bundles(&rest), ["one.v2.0.0", "two.v1.0.0"]);
        assert!(
            gone.catalogs[0].packages[0].images.is_empty(),
            "an operand may be that of the bundle that stays"
        );
        let (gone, rest) = divided(&row("    packages:\n    - name: two\n")).unwrap();
        assert_eq!(
            gone.catalogs[0].packages[0].images.len(),
            1,
            "a whole package goes"
        );
        assert_eq!(rest.catalogs.len(), 1, "the catalog has another package");
        let (gone, rest) = divided(&row("")).unwrap();
        assert_eq!(bundles(&gone).len(), 3);
        assert!(
            rest.catalogs.is_empty(),
            "a bare catalog goes with its image"
        );
    }

    #[test]
    fn what_the_lock_does_not_have_is_said() {
        for (delete, said) in [
            (
                "  platform:\n    channels:\n    - name: stable-4.17\n",
                "stable-4.17",
            ),
            (
                "  operators:\n  - catalog: quay.io/a/other:v1\n",
                "quay.io/a/other:v1",
            ),
            (
                "  operators:\n  - catalog: quay.io/a/index:v4.16\n    packages:\n    - name: three\n",
                "package three",
            ),
        ] {
            let error = divided(delete).unwrap_err();
            assert!(error.contains(said), "{error} must name {said}");
        }
    }
}
