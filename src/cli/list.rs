//! `list`: a look before the choice. What is seen is printed and forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::arguments::{Format, ListArguments, ListCommand, ListReleases};
use super::operators::operators;
use super::site::Site;
use super::ui::{self, Failure, say};
use crate::hint::Hint;
use crate::openshift::graph::choose::Product;
use crate::openshift::graph::{GRAPH_LIMIT, Graph};
use crate::openshift::release::{Architecture, PAYLOAD_SOURCE};
use crate::openshift::version::Version;
use crate::run::event::one_line;
use crate::run::resolve::Names;
use crate::run::resolve::release::{graph_address, read_graph};

/// `imgbuild list`
pub(super) fn list(
    site: &Site,
    arguments: &ListArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    match &arguments.command {
        ListCommand::Releases(arguments) if arguments.channels => channels(site, arguments),
        ListCommand::Releases(arguments) => releases(site, arguments),
        ListCommand::Channels(arguments) => channels(site, arguments),
        ListCommand::Operators(arguments) => operators(site, arguments, stop),
        ListCommand::Charts(arguments) => super::charts::list(site, arguments),
    }
}

/// The architectures to ask for: those named, else amd64.
fn architectures(arguments: &ListReleases) -> Result<Vec<Architecture>, Failure> {
    if arguments.filter_by_archs.is_empty() {
        return Ok(vec![Architecture::Amd64]);
    }
    arguments
        .filter_by_archs
        .iter()
        .map(|name| {
            name.parse::<Architecture>()
                .map_err(|error| Failure::of(ui::USAGE, &error, None))
        })
        .collect()
}

/// The graph of a channel, if the update service has one.
fn graph(
    site: &Site,
    arguments: &ListReleases,
    channel: &str,
    architecture: Architecture,
) -> Result<Graph, Failure> {
    let services = site.services()?;
    let base = match product(arguments) {
        Product::Ocp => &services.graph,
        Product::Okd => &services.okd_graph,
    };
    let address = graph_address(base, channel, architecture);
    let bytes = site
        .upstream()?
        .get(&address, GRAPH_LIMIT as u64)
        .map_err(|error| Failure::new(ui::ERROR, format!("{address}: {}", one_line(&error))))?;
    let nothing = || {
        Failure::new(
            ui::ERROR,
            format!("no releases in channel {channel} for {architecture}"),
        )
        .hint("`imgbuild list channels --version X.Y` names the channels there are")
    };
    let bytes = bytes.ok_or_else(nothing)?;
    let graph = read_graph(&bytes, channel, architecture).map_err(|problem| {
        Failure::new(ui::ERROR, format!("channel {channel}: {}", problem.text))
    })?;
    if graph.releases().is_empty() {
        return Err(nothing());
    }
    Ok(graph)
}

const fn product(arguments: &ListReleases) -> Product {
    if arguments.okd {
        Product::Okd
    } else {
        Product::Ocp
    }
}

/// `imgbuild list releases`
fn releases(site: &Site, arguments: &ListReleases) -> Result<u8, Failure> {
    let channel = match (&arguments.channel, &arguments.version) {
        (Some(channel), _) => channel.clone(),
        (None, Some(version)) => format!("stable-{version}"),
        (None, None) => return minors(site, arguments),
    };
    let mut found: BTreeMap<Architecture, Vec<String>> = BTreeMap::new();
    for architecture in architectures(arguments)? {
        let graph = graph(site, arguments, &channel, architecture)?;
        let versions = graph
            .releases()
            .iter()
            .map(|release| release.version.to_string())
            .collect();
        found.insert(architecture, versions);
    }
    if arguments.format == Format::Json {
        let rows: Vec<_> = found
            .iter()
            .map(|(architecture, versions)| {
                json!({ "channel": channel, "architecture": architecture.name(), "versions": versions })
            })
            .collect();
        say(json!({ "version": 1, "releases": rows }).to_string());
        return Ok(ui::DONE);
    }
    if channel.starts_with("stable") {
        say("Listing stable channels. Use --channel NAME for another.");
        say("Use imgbuild list channels --version X.Y to see which there are.");
        say("");
    }
    for (index, (architecture, versions)) in found.iter().enumerate() {
        if index > 0 {
            say("");
        }
        say(format!("Channel: {channel}"));
        say(format!("Architecture: {architecture}"));
        for version in versions {
            say(version);
        }
    }
    Ok(ui::DONE)
}

/// The minors that payloads are tagged for.
fn minors(site: &Site, arguments: &ListReleases) -> Result<u8, Failure> {
    if arguments.okd {
        return Err(
            Failure::new(ui::USAGE, "OKD has no list of minors to look at")
                .hint("name a channel with --channel"),
        );
    }
    let repository =
        PAYLOAD_SOURCE
            .parse()
            .map_err(|error: crate::reference::ReferenceError| {
                Failure::of(ui::ERROR, &error, error.hint())
            })?;
    let tags = site
        .client()?
        .tags(&repository)
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?
        .ok_or_else(|| Failure::new(ui::ERROR, format!("{repository} is not there")))?;
    let minors: BTreeSet<(u64, u64)> = tags
        .iter()
        .map(crate::reference::Tag::as_str)
        .filter(|tag| tag.strip_suffix(".sig").is_none() && !tag.starts_with("sha256-"))
        .filter_map(minor)
        .collect();
    let names: Vec<String> = minors
        .iter()
        .map(|(major, minor)| format!("{major}.{minor}"))
        .collect();
    if arguments.format == Format::Json {
        say(json!({ "version": 1, "minors": names }).to_string());
        return Ok(ui::DONE);
    }
    say("Available OpenShift Container Platform release versions:");
    for name in names {
        say(format!("  {name}"));
    }
    Ok(ui::DONE)
}

/// The minor that a tag (`4.16.1-x86_64`) is for.
fn minor(tag: &str) -> Option<(u64, u64)> {
    let version = tag.rsplit_once('-').map_or(tag, |(version, _)| version);
    let version: Version = version.parse().ok()?;
    Some((version.major, version.minor))
}

/// `imgbuild list channels`
fn channels(site: &Site, arguments: &ListReleases) -> Result<u8, Failure> {
    let Some(version) = &arguments.version else {
        return Err(
            Failure::new(ui::USAGE, "channels are listed for a minor version")
                .hint("name one: --version 4.16"),
        );
    };
    let channel = arguments
        .channel
        .clone()
        .unwrap_or_else(|| format!("stable-{version}"));
    let mut names: BTreeSet<String> = BTreeSet::new();
    for architecture in architectures(arguments)? {
        let graph = graph(site, arguments, &channel, architecture)?;
        for release in graph.releases() {
            names.extend(release.channels().map(str::to_owned));
        }
    }
    if arguments.format == Format::Json {
        say(json!({ "version": 1, "minor": version, "channels": names }).to_string());
        return Ok(ui::DONE);
    }
    say(format!("Listing channels for version {version}:"));
    say("");
    for name in names {
        say(name);
    }
    Ok(ui::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_its_minor() {
        for (tag, wanted) in [
            ("4.16.1-x86_64", Some((4, 16))),
            ("4.12.0-rc.8-ppc64le", Some((4, 12))),
            ("4.9.0-multi", Some((4, 9))),
            ("latest", None),
            ("4.9", None),
        ] {
            assert_eq!(minor(tag), wanted, "{tag}");
        }
    }
}
