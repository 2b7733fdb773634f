//! `list operators`: what a catalog has, before any of it is chosen. The catalog is read through the store, so a lock
//! after a look fetches nothing again; what its name stands for is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::arguments::{Format, ListOperators};
use super::site::Site;
use super::ui::{self, Failure, Progress, say};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::{MANIFEST_LIMIT, Manifest};
use crate::openshift::release::CATALOGS;
use crate::openshift::select::{self, ChannelSummary, Summary};
use crate::reference::{ImageName, Reference};
use crate::run::event::{Event, one_line};
use crate::run::resolve::catalog::{Seen, look};
use crate::run::resolve::means::{Exclusions, Means, Problem};
use crate::run::resolve::{Names, Resolver};
use crate::store::disk::{Access, Store};
use crate::store::{Blob, read};

/// Spaces between columns.
const GAP: usize = 2;

/// `imgbuild list operators`
pub(super) fn operators(
    site: &Site,
    arguments: &ListOperators,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let Some(name) = &arguments.catalog else {
        return catalogs(site, arguments);
    };
    let image: ImageName = name
        .parse()
        .map_err(|error: crate::reference::ReferenceError| {
            Failure::of(ui::USAGE, &error, error.hint())
        })?;
    let store = site.store(Access::Shared)?;
    let seen = see(site, &store, &image, arguments.package.as_deref(), stop)?;
    let Some(wanted) = &arguments.package else {
        all(arguments, name, &seen);
        return Ok(ui::DONE);
    };
    let Some(package) = seen.packages.first() else {
        let error = select::no_package(wanted, seen.names.iter().map(String::as_str));
        return Err(Failure::of(ui::ERROR, &error, error.hint()));
    };
    match &arguments.channel {
        None => one(arguments, name, &seen.digest, package, &store),
        Some(channel) => {
            let found = package.channels.iter().find(|one| one.name == *channel);
            let found = found.ok_or_else(|| {
                let names: Vec<&str> = package
                    .channels
                    .iter()
                    .map(|one| one.name.as_str())
                    .collect();
                Failure::new(
                    ui::ERROR,
                    format!("package {wanted:?} has no channel {channel:?}"),
                )
                .hint(format!("its channels are {}", names.join(", ")))
            })?;
            versions(arguments, name, &seen.digest, package, found);
        }
    }
    Ok(ui::DONE)
}

/// Reads the catalog.
fn see(
    site: &Site,
    store: &Store,
    image: &ImageName,
    package: Option<&str>,
    stop: &AtomicBool,
) -> Result<Seen, Failure> {
    let rules = site.rules()?;
    let live = site.upstream()?;
    let progress = Progress::new(
        site.common.quiet,
        site.common.verbose > 0,
        site.common.events.as_deref(),
    )?;
    let observer = |event| progress.observe(event);
    observer(Event::Phase { phase: "look" });
    let resolver = Resolver {
        rules: &rules,
        names: Some(&live),
        upstream: &live,
        store,
        limits: site.limits(),
        observer: &observer,
        stop,
        services: site.services()?,
        within: None,
        evidence: &|_, _| (),
    };
    let (exclusions, files) = (Exclusions::default(), BTreeMap::new());
    let means = Means::new(&resolver, &exclusions, &files, &[]);
    let seen = look(
        image,
        &|name| package.is_none_or(|package| package == name),
        &means,
    );
    progress.finish();
    seen.map_err(problem)
}

fn problem(problem: Problem) -> Failure {
    let failure = Failure::new(ui::ERROR, problem.text);
    match problem.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Lines of columns, each as wide as its widest cell; the last one as it is.
fn table(rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(index) {
                Some(known) => *known = width.max(*known),
                None => widths.push(width),
            }
        }
    }
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let gap = width - cell.chars().count() + GAP;
            line.push_str(cell);
            line.push_str(&" ".repeat(gap));
        }
        say(line.trim_end());
    }
}

fn headed(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    std::iter::once(head.iter().map(|cell| (*cell).to_owned()).collect())
        .chain(rows)
        .collect()
}

fn package_row(package: &Summary) -> Vec<String> {
    vec![
        package.name.clone(),
        package.display_name.clone(),
        package.default_channel.clone(),
    ]
}

const PACKAGES: [&str; 3] = ["NAME", "DISPLAY NAME", "DEFAULT CHANNEL"];

fn all(arguments: &ListOperators, name: &str, seen: &Seen) {
    if arguments.format == Format::Json {
        let rows: Vec<_> = seen
            .packages
            .iter()
            .map(|package| {
                json!({ "name": package.name, "displayName": package.display_name, "defaultChannel": package.default_channel })
            })
            .collect();
        say(
            json!({ "version": 1, "catalog": name, "digest": seen.digest, "packages": rows })
                .to_string(),
        );
        return;
    }
    table(&headed(&PACKAGES, seen.packages.iter().map(package_row)));
}

fn head(channel: &ChannelSummary) -> String {
    match &channel.head {
        Ok(bundle) => bundle.clone(),
        Err(reason) => format!("ERROR: {reason}"),
    }
}

fn one(arguments: &ListOperators, name: &str, digest: &Digest, package: &Summary, store: &Store) {
    let sizes: Vec<Option<u64>> = package
        .channels
        .iter()
        .map(|channel| size(channel, store))
        .collect();
    if arguments.format == Format::Json {
        let rows: Vec<_> = package
            .channels
            .iter()
            .zip(&sizes)
            .map(|(channel, bytes)| {
                json!({
                    "name": channel.name,
                    "head": channel.head.as_ref().ok(),
                    "error": channel.head.as_ref().err(),
                    "versions": channel.versions.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "headImages": channel.images.len(),
                    "headBytes": bytes,
                })
            })
            .collect();
        say(json!({
            "version": 1, "catalog": name, "digest": digest, "package": package.name,
            "displayName": package.display_name, "defaultChannel": package.default_channel, "channels": rows,
        })
        .to_string());
        return;
    }
    table(&headed(&PACKAGES, std::iter::once(package_row(package))));
    say("");
    // Sizes are known of what was locked or fetched before.
    let is_known = sizes.iter().any(Option::is_some);
    let mut columns = vec!["PACKAGE", "CHANNEL", "HEAD"];
    if is_known {
        columns.push("SIZE OF HEAD");
    }
    if arguments.versions {
        columns.push("VERSIONS");
    }
    let rows = package.channels.iter().zip(&sizes).map(|(channel, bytes)| {
        let mut row = vec![package.name.clone(), channel.name.clone(), head(channel)];
        if is_known {
            row.push(bytes.map_or_else(|| "unknown".to_owned(), ui::bytes));
        }
        if arguments.versions {
            let listed: Vec<String> = channel.versions.iter().map(ToString::to_string).collect();
            row.push(listed.join(" "));
        }
        row
    });
    table(&headed(&columns, rows));
}

fn versions(
    arguments: &ListOperators,
    name: &str,
    digest: &Digest,
    package: &Summary,
    channel: &ChannelSummary,
) {
    let listed: Vec<String> = channel.versions.iter().map(ToString::to_string).collect();
    if arguments.format == Format::Json {
        say(json!({
            "version": 1, "catalog": name, "digest": digest, "package": package.name, "channel": channel.name,
            "head": channel.head.as_ref().ok(), "versions": listed,
        })
        .to_string());
        return;
    }
    say("VERSIONS");
    for version in listed {
        say(version);
    }
}

/// The bytes of everything that the head of a channel needs, each blob once; `None` unless all of its manifests are in the
/// store.
fn size(channel: &ChannelSummary, store: &Store) -> Option<u64> {
    let mut blobs: BTreeSet<Blob> = BTreeSet::new();
    let mut open: Vec<Digest> = Vec::new();
    for image in &channel.images {
        open.push(image.parse::<Reference>().ok()?.digest?);
    }
    while let Some(digest) = open.pop() {
        let blob = Blob {
            digest,
            size: store.size_of(&digest).ok()??,
        };
        if !blobs.insert(blob) {
            continue;
        }
        let bytes = read(store, &blob, MANIFEST_LIMIT).ok()?;
        match Manifest::parse(&bytes, None).ok()? {
            Manifest::Image(image) => blobs.extend(image.blobs().map(Blob::from)),
            Manifest::Index(index) => {
                open.extend(index.manifests.iter().map(|child| child.digest));
            }
        }
    }
    (!blobs.is_empty()).then(|| blobs.iter().map(|blob| blob.size).sum())
}

/// `imgbuild list operators --catalogs`
fn catalogs(site: &Site, arguments: &ListOperators) -> Result<u8, Failure> {
    let version = arguments.version.as_deref().unwrap_or_default();
    let live = site.upstream()?;
    let mut found = Vec::new();
    for repository in CATALOGS {
        let name = format!("{repository}:v{version}");
        let image: ImageName =
            name.parse()
                .map_err(|error: crate::reference::ReferenceError| {
                    Failure::of(ui::USAGE, &error, error.hint())
                })?;
        let answer = live
            .resolve(&image)
            .map_err(|error| Failure::new(ui::ERROR, format!("{name}: {}", one_line(&error))))?;
        if answer.is_some() {
            found.push(name);
        }
    }
    if arguments.format == Format::Json {
        say(json!({ "version": 1, "minor": version, "catalogs": found }).to_string());
        return Ok(ui::DONE);
    }
    if found.is_empty() {
        return Err(Failure::new(
            ui::ERROR,
            format!("there are no catalogs for OpenShift {version}"),
        )
        .hint("name a minor version, as 4.16"));
    }
    say("Available OpenShift OperatorHub catalogs:");
    say(format!("OpenShift {version}:"));
    for name in found {
        say(name);
    }
    Ok(ui::DONE)
}
