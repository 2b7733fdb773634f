//! `init`, `store`, `rules`, `version`, `completion`: what surrounds the work.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use clap::CommandFactory;
use serde_json::json;

use super::arguments::{
    Arguments, CompletionArguments, Format, InitArguments, RulesArguments, StoreArguments,
    StoreCommand, VersionArguments,
};
use super::delivery::needed;
use super::locking::plan_of;
use super::review;
use super::site::{Site, cannot, store_failure};
use super::ui::{self, Failure, count, remark, say};
use crate::config::{self, ApiVersion};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::plan::text;
use crate::registry::server::{Repositories, RepositoriesError};
use crate::run::built::remembered;
use crate::store::disk::{Access, Store};
use crate::store::read;
use crate::store::roots::{Kind as RootKind, Root as StoreRoot};

/// Where below its folder a served registry keeps the names of its content.
pub(super) const REPOSITORIES: &str = "imgbuild/registry";

/// `imgbuild init`
pub(super) fn init(site: &Site, arguments: &InitArguments) -> Result<u8, Failure> {
    let folder = &arguments.folder;
    fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
    if arguments.git {
        return review::attributes(site, folder);
    }
    for (name, content) in [
        ("imageset.yaml", config::starter(ApiVersion::V2Alpha1)),
        ("imgbuild.toml", config::settings_starter()),
    ] {
        let path = folder.join(name);
        let mut file = match fs::File::create_new(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Failure::new(
                    ui::ERROR,
                    format!("{} is there already, and was not touched", path.display()),
                ));
            }
            Err(error) => return Err(cannot("write", &path, &error)),
        };
        file.write_all(content.as_bytes())
            .map_err(|error| cannot("write", &path, &error))?;
        if !site.common.quiet {
            say(format!("wrote {}", path.display()));
        }
    }
    review::attributes(site, folder)?;
    if !site.common.quiet {
        say("next: edit imageset.yaml, then run `imgbuild lock`");
    }
    Ok(ui::DONE)
}

/// `imgbuild store`
pub(super) fn store(site: &Site, arguments: &StoreArguments) -> Result<u8, Failure> {
    match &arguments.command {
        StoreCommand::Stat { format } => stat(site, *format),
        StoreCommand::Fsck { format } => fsck(site, *format),
        StoreCommand::Gc { dry_run, format } => gc(site, *dry_run, *format),
        StoreCommand::Root { add, remove } => root(site, add.as_deref(), remove.as_deref()),
    }
}

fn stat(site: &Site, format: Format) -> Result<u8, Failure> {
    let store = site.store(Access::ReadOnly)?;
    let stat = store.stat().map_err(|error| store_failure(&error))?;
    match format {
        Format::Json => say(json!({
            "version": 1, "path": store.path(), "blobs": stat.blobs, "bytes": stat.bytes, "images": stat.images,
            "partials": stat.partials, "partialBytes": stat.partial_bytes, "temporary": stat.temporary, "temporaryBytes": stat.temporary_bytes,
            "quarantined": stat.quarantined, "quarantinedBytes": stat.quarantined_bytes, "records": stat.records, "closures": stat.closures,
            "roots": stat.roots, "streams": stat.streams, "free": store.free_space(),
        })
        .to_string()),
        Format::Text => {
            say(store.path().display().to_string());
            say(format!("  blobs        {:>8}  {:>12}", stat.blobs, ui::bytes(stat.bytes)));
            say(format!("  unfinished   {:>8}  {:>12}", stat.partials + stat.temporary, ui::bytes(stat.partial_bytes + stat.temporary_bytes)));
            say(format!("  quarantined  {:>8}  {:>12}", stat.quarantined, ui::bytes(stat.quarantined_bytes)));
            say(format!("  images {}, roots {}, streams {}, closures {}, memo records {}", stat.images, stat.roots, stat.streams, stat.closures, stat.records));
            if let Some(free) = store.free_space() {
                say(format!("  free                   {:>12}", ui::bytes(free)));
            }
        }
    }
    Ok(ui::DONE)
}

/// Who needs a digest: the roots whose locks come to it.
fn who_needs(store: &Store, lost: &[Digest]) -> Result<Vec<(Digest, Vec<String>)>, Failure> {
    let mut owners: Vec<(Digest, Vec<String>)> =
        lost.iter().map(|digest| (*digest, Vec::new())).collect();
    for (name, root) in store
        .roots()
        .list()
        .map_err(|error| store_failure(&error))?
    {
        let Ok(bytes) = read(store, &root.lock, 64 << 20) else {
            continue;
        };
        let Ok(lock) = text::parse(&String::from_utf8_lossy(&bytes), &name) else {
            continue;
        };
        let Ok(built) = remembered(&lock, store) else {
            continue;
        };
        let Ok(plan) = plan_of(&lock, &built, store, store) else {
            continue;
        };
        for (digest, names) in &mut owners {
            names.extend(plan.owners(digest));
        }
    }
    let staged = crate::deliver::staged::kept(store).map_err(|error| store_failure(&error))?;
    for (digest, names) in &mut owners {
        names.extend(staged.get(digest).into_iter().flatten().cloned());
        names.sort();
        names.dedup();
    }
    Ok(owners)
}

fn fsck(site: &Site, format: Format) -> Result<u8, Failure> {
    let store = site.store(Access::Shared)?;
    let progress = ui::Progress::new(site.common.quiet, false, site.common.events.as_deref())?;
    progress.observe(crate::run::event::Event::Phase { phase: "fsck" });
    let total = store.stat().map_err(|error| store_failure(&error))?;
    progress.observe(crate::run::event::Event::Planned {
        blobs: total.blobs,
        bytes: total.bytes,
    });
    let passed = |blob: &crate::store::Blob| {
        progress.observe(crate::run::event::Event::Done {
            digest: blob.digest,
            size: blob.size,
            present: true,
        });
    };
    let checked = store.check(usize::from(site.common.jobs), &passed);
    progress.finish();
    let checked = checked.map_err(|error| store_failure(&error))?;
    let lost: Vec<Digest> = checked
        .damaged
        .iter()
        .map(|lost| lost.blob.digest)
        .collect();
    let owners = who_needs(&store, &lost)?;
    if format == Format::Json {
        let rows: Vec<_> = checked
            .damaged
            .iter()
            .zip(&owners)
            .map(|(lost, (_, names))| json!({ "digest": lost.blob.digest, "loss": lost.loss.to_string(), "quarantine": lost.quarantine, "neededBy": names }))
            .collect();
        say(json!({ "version": 1, "checked": checked.checked, "bytes": checked.bytes, "damaged": rows, "foreign": checked.foreign }).to_string());
    } else if !site.common.quiet {
        for path in &checked.foreign {
            remark(format!(
                "note: {} is no blob and was left alone",
                path.display()
            ));
        }
        say(format!(
            "{}, {} checked, {} damaged",
            count(
                usize::try_from(checked.checked).unwrap_or(usize::MAX),
                "blob"
            ),
            ui::bytes(checked.bytes),
            checked.damaged.len()
        ));
    }
    if checked.damaged.is_empty() {
        return Ok(ui::DONE);
    }
    let lines: Vec<String> = checked
        .damaged
        .iter()
        .zip(&owners)
        .map(|(lost, (_, names))| {
            let put = lost.quarantine.as_ref().map_or_else(String::new, |path| {
                format!("; it is now {}", path.display())
            });
            let needed = if names.is_empty() {
                "nothing that is known".to_owned()
            } else {
                names.join(", ")
            };
            format!(
                "{}: {}{put}; needed by {needed}",
                lost.blob.digest, lost.loss
            )
        })
        .collect();
    Err(Failure::new(
        ui::UNVERIFIED,
        format!(
            "{} in the store:\n  {}",
            count(lines.len(), "damaged blob"),
            lines.join("\n  ")
        ),
    )
    .hint(
        "run `imgbuild build` to fetch them again, or `imgbuild import` to take them from archives",
    ))
}

fn gc(site: &Site, dry_run: bool, format: Format) -> Result<u8, Failure> {
    let store = site.store(if dry_run {
        Access::ReadOnly
    } else {
        Access::Exclusive
    })?;
    let mut keep = needed(&store)?;
    // What `serve` keeps here is needed by whoever pulls it.
    let folder = store.path().join(REPOSITORIES);
    if folder.exists() {
        let failed = |error: RepositoriesError| Failure::of(ui::ERROR, &error, error.hint());
        let repositories = Repositories::open(&folder).map_err(failed)?;
        let unneeded = repositories.unneeded(&store);
        keep.extend(repositories.needed(&unneeded));
        if !dry_run {
            for (repository, digest) in &unneeded {
                repositories
                    .unlink_blob(repository, digest)
                    .map_err(failed)?;
            }
        }
    }
    let collected = store
        .collect(&|digest| keep.contains(digest), dry_run)
        .map_err(|error| store_failure(&error))?;
    match format {
        Format::Json => say(json!({
            "version": 1, "dryRun": dry_run, "kept": keep.len(), "blobs": collected.count, "bytes": collected.bytes,
            "unfinished": collected.unfinished, "unfinishedBytes": collected.unfinished_bytes, "records": collected.records,
            "closures": collected.closures, "images": collected.images,
        })
        .to_string()),
        Format::Text if !site.common.quiet => {
            let verb = if dry_run { "would go" } else { "went" };
            say(format!("{} ({}) {verb}, and {} ({}); {} are kept", count(usize::try_from(collected.count).unwrap_or(usize::MAX), "blob"), ui::bytes(collected.bytes), count(usize::try_from(collected.unfinished).unwrap_or(usize::MAX), "unfinished file"), ui::bytes(collected.unfinished_bytes), keep.len()));
        }
        Format::Text => {}
    }
    Ok(ui::DONE)
}

fn root(site: &Site, add: Option<&Path>, remove: Option<&str>) -> Result<u8, Failure> {
    if let Some(path) = add {
        let store = site.store(Access::Shared)?;
        let (_, bytes) = site.lock(path)?;
        let lock = store
            .insert(&bytes)
            .map_err(|error| store_failure(&error))?;
        let name = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        store
            .roots()
            .set(
                &name.display().to_string(),
                &StoreRoot {
                    kind: RootKind::Working,
                    lock,
                },
            )
            .map_err(|error| store_failure(&error))?;
        return Ok(ui::DONE);
    }
    if let Some(name) = remove {
        let store = site.store(Access::Shared)?;
        let removed = store
            .roots()
            .remove(name)
            .map_err(|error| store_failure(&error))?;
        if removed {
            return Ok(ui::DONE);
        }
        return Err(
            Failure::new(ui::ERROR, format!("no root is called {name:?}"))
                .hint("`imgbuild store root` lists them"),
        );
    }
    let store = site.store(Access::ReadOnly)?;
    for (name, root) in store
        .roots()
        .list()
        .map_err(|error| store_failure(&error))?
    {
        say(format!(
            "{:<8}  {}  {name}",
            root.kind.to_string(),
            root.lock.digest.short()
        ));
    }
    Ok(ui::DONE)
}

/// `imgbuild rules`
pub(super) fn rules(site: &Site, arguments: &RulesArguments) -> Result<u8, Failure> {
    let rules = site.rules()?;
    if let Some(name) = &arguments.name {
        let Some(rule) = rules.get(name) else {
            let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
            return Err(
                Failure::new(ui::ERROR, format!("no rule is called {name:?}"))
                    .hint(format!("the rules are {}", names.join(", "))),
            );
        };
        say(rule.text.trim_end());
        return Ok(ui::DONE);
    }
    for rule in rules.iter() {
        let reads = if rule.reads.is_empty() {
            "-".to_owned()
        } else {
            rule.reads.join(", ")
        };
        say(format!(
            "{}  {:<20} reads {reads}",
            rule.digest().short(),
            rule.name
        ));
    }
    Ok(ui::DONE)
}

/// `imgbuild version`
pub(super) fn version(arguments: &VersionArguments) -> u8 {
    let version = env!("CARGO_PKG_VERSION");
    match arguments.format {
        Format::Text => say(format!("imgbuild {version}")),
        Format::Json => say(json!({ "version": version, "lockVersion": crate::plan::lock::VERSION, "archiveFormat": crate::archive::manifest::FORMAT }).to_string()),
    }
    ui::DONE
}

/// `imgbuild completion`
pub(super) fn completion(arguments: &CompletionArguments) -> u8 {
    clap_complete::generate(
        arguments.shell,
        &mut Arguments::command(),
        "imgbuild",
        &mut std::io::stdout(),
    );
    ui::DONE
}
