//! Operator catalogs from upstream to a mirror behind a gap: a made catalog whose packages change, selected, locked, built
//! anew, carried and served, and every way in which a catalog can be wrong.

use std::collections::{BTreeMap, BTreeSet};

use imgbuild::demo::{Catalog, Form, Operator, Upstream, World};
use imgbuild::registry::server::Options;

use crate::site::{Connected, Run, Site, UPSTREAM};

/// Where the catalog is.
const INDEX: &str = "redhat/operator-index";

/// Its tag.
const TAG: &str = "v4.16";

fn operators() -> Vec<Operator> {
    vec![
        Operator::new("alpha", &["stable: 1.0.0 1.1.0 1.2.0", "fast: 1.2.0 2.0.0"]),
        Operator::new("beta", &["stable: 0.9.0 1.0.0"]).requiring("gamma", ">=2.0.0"),
        Operator::new("gamma", &["stable: 1.0.0 2.0.0 2.1.0"]),
        Operator::new("delta", &["stable: 3.0.0"]),
    ]
}

fn catalog(form: Form) -> Catalog<'static> {
    Catalog {
        host: UPSTREAM,
        repository: INDEX,
        tag: TAG,
        form,
        architectures: &["amd64", "arm64"],
    }
}

fn world(operators: &[Operator]) -> World {
    let mut world = World::new(5);
    world.catalog(&catalog(Form::Oci), operators).unwrap();
    world
}

fn upstream(operators: &[Operator]) -> Upstream {
    Upstream::start(world(operators), Options::default()).unwrap()
}

/// A config of one catalog with these packages, each as it stands in YAML (`name: x`), and further fields of the row.
fn wants(site: &Connected, fields: &[&str], packages: &[&str]) {
    let mut text = format!("  operators:\n  - catalog: {UPSTREAM}/{INDEX}:{TAG}\n");
    for field in fields {
        text += &format!("    {field}\n");
    }
    if !packages.is_empty() {
        text += "    packages:\n";
        for package in packages {
            text += &format!("    - {package}\n");
        }
    }
    site.config(&text);
}

/// The blocks of packages in a lock, by name.
fn packages(lock: &str) -> BTreeMap<String, String> {
    lock.split("[[catalog.package]]\n")
        .skip(1)
        .map(|block| {
            let block = block.split("\n[[").next().unwrap();
            let name = block.split('"').nth(1).unwrap();
            (name.to_owned(), block.to_owned())
        })
        .collect()
}

/// The bundles of a block.
fn bundles(block: &str) -> Vec<String> {
    block
        .lines()
        .filter(|line| line.contains("channels = [") && line.trim_start().starts_with("{ name"))
        .map(|line| line.split('"').nth(1).unwrap().to_owned())
        .collect()
}

#[test]
fn a_lock_names_what_is_selected_and_only_that_is_fetched() {
    let upstream = upstream(&operators());
    let near = Connected::at(&upstream.host());
    wants(
        &near,
        &[],
        &["name: alpha", "{name: delta, minVersion: 3.0.0}"],
    );
    let run = near.lock();
    let lock = near.lock_text();
    eprintln!("{}\n{lock}", run.story());
    let found = packages(&lock);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        ["alpha", "delta"],
        "the packages that are named"
    );
    assert_eq!(
        bundles(&found["alpha"]),
        ["alpha.v1.2.0"],
        "the head of the default channel"
    );
    near.lock().says(&["nothing changed"]);
}
