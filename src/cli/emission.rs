//! `emit`: what a cluster, its nodes and its installer are told about a mirror; and the files of a dry run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::arguments::{EmitArguments, EmitKind, PlanArguments};
use super::destination::{any_store, flags, write_or_remove};
use super::locking::{io_failure, unbuilt};
use super::site::{Site, cannot};
use super::ui::{self, Failure, count, remark, say};
use crate::deliver::charts;
use crate::deliver::emit::{
    Audience, EmitError, documents, mirror_sets, mirrored, replace, replace_for, write_named_set,
    write_set,
};
use crate::deliver::import::items;
use crate::hint::Hint;
use crate::oci::Manifest;
use crate::openshift::cluster::yaml_stream;
use crate::openshift::install::{self, Sources};
use crate::openshift::node;
use crate::openshift::trust::{self, TrustError};
use crate::plan::graph::Plan;
use crate::plan::lock::Lock;
use crate::run::built::{self, Built};
use crate::step::rule::Rules;
use crate::store::Source;
use crate::store::disk::Store;
use crate::store::memory::Memory;
use crate::store::{Blob, Sink};

/// The drop-in's name: late, so that it wins over what comes with the system.
const DROP_IN: &str = "registries.conf.d/999-mirror.conf";

/// The config of the samples operator.
const SAMPLES_CONFIG: &str = "samples-config.yaml";

/// The file that the next hop is given.
const NEXT_HOP: &str = "next-hop-registries.conf";

/// Most pairs that are named in a warning.
const PAIRS: usize = 10;

impl EmitKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Icsp => "icsp",
            Self::HostsToml => "hosts-toml",
            Self::RegistriesConf => "registries-conf",
            Self::NextHop => "next-hop",
            Self::Trust => "trust",
            Self::PullSecret => "pull-secret",
            Self::Blueprint => "blueprint",
            Self::Samples => "samples",
            Self::InstallConfig => "install-config",
        }
    }
}

fn trust_failure(error: &TrustError) -> Failure {
    Failure::of(ui::ERROR, error, error.hint())
}

fn emit_failure(error: &EmitError) -> Failure {
    Failure::of(ui::ERROR, error, error.hint())
}

/// Refuses a flag that none of the kinds reads.
fn check_flags(arguments: &EmitArguments) -> Result<(), Failure> {
    use EmitKind::{
        Blueprint, Cluster, HostsToml, InstallConfig, NextHop, PullSecret, RegistriesConf, Trust,
    };
    let is_any = |kinds: &[EmitKind]| kinds.iter().any(|kind| arguments.kind.contains(kind));
    for (flag, is_given, kinds) in [
        (
            "--never-contact-source",
            arguments.never_contact_source,
            &[Cluster, HostsToml, RegistriesConf, NextHop][..],
        ),
        ("--ca", !arguments.ca.is_empty(), &[Trust, InstallConfig]),
        (
            "--pull-secret",
            !arguments.pull_secret.is_empty(),
            &[PullSecret, HostsToml],
        ),
        (
            "--secret-file",
            arguments.secret_file.is_some(),
            &[PullSecret],
        ),
        ("--filter", !arguments.filter.is_empty(), &[Blueprint]),
    ] {
        if is_given && !is_any(kinds) {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            return Err(Failure::new(ui::USAGE, format!("{flag} says nothing here"))
                .hint(format!("it goes with --kind {}", names.join(" or "))));
        }
    }
    for (kind, flag, is_given) in [
        (Trust, "--ca FILE", !arguments.ca.is_empty()),
        (
            PullSecret,
            "--pull-secret FILE",
            !arguments.pull_secret.is_empty(),
        ),
        (
            PullSecret,
            "--secret-file FILE",
            arguments.secret_file.is_some(),
        ),
    ] {
        if arguments.kind.contains(&kind) && !is_given {
            return Err(Failure::new(
                ui::USAGE,
                format!("--kind {} needs {flag}", kind.name()),
            ));
        }
    }
    Ok(())
}

/// The texts of files, with their names.
fn texts(paths: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    paths
        .iter()
        .map(|path| match fs::read_to_string(path) {
            Ok(text) => Ok((path.display().to_string(), text)),
            Err(error) => Err(cannot("read", path, &error)),
        })
        .collect()
}

/// `imgbuild emit`
pub(super) fn emit(site: &Site, arguments: &EmitArguments) -> Result<u8, Failure> {
    check_flags(arguments)?;
    let mut kinds = arguments.kind.clone();
    kinds.dedup();
    let mut changed = Vec::new();
    let mut written = 0;
    if kinds.contains(&EmitKind::PullSecret) {
        changed.extend(pull_secret(arguments)?);
        written += 1;
        kinds.retain(|kind| *kind != EmitKind::PullSecret);
    }
    if !kinds.is_empty() {
        let paths = site.paths(&arguments.subject);
        let (lock, _) = site.lock(&paths.lock)?;
        let store = any_store(site)?;
        let rules = site.rules_of(&lock, store.as_ref())?;
        let nothing = Memory::default();
        let source: &dyn Source = match &store {
            Some(store) => store,
            None => &nothing,
        };
        let built = match &store {
            Some(store) => built::known(&lock, &rules, store),
            None => built::known(&lock, &rules, &nothing),
        }
        .map_err(|error| unbuilt(&error))?;
        for kind in kinds {
            let (files, audience) = files(site, arguments, kind, &lock, &built, &rules, source)?;
            written += files.len();
            let output = &arguments.output;
            changed.extend(
                match kind {
                    EmitKind::Cluster => write_set(output, &files).and_then(|mut written| {
                        written.extend(charts::write(output, &lock, source)?);
                        Ok(written)
                    }),
                    kind => {
                        let listing = format!(".imgbuild-{}", kind.name());
                        write_named_set(output, &listing, &files, audience)
                    }
                }
                .map_err(|error| emit_failure(&error))?,
            );
        }
    }
    if !site.common.quiet {
        for path in &changed {
            say(format!("wrote {}", path.display()));
        }
        if changed.is_empty() {
            say(format!(
                "{} is as it was ({})",
                arguments.output.display(),
                count(written, "file")
            ));
        }
    }
    Ok(ui::DONE)
}

/// Merges pull secrets into the one file that is named for it.
fn pull_secret(arguments: &EmitArguments) -> Result<Option<PathBuf>, Failure> {
    let Some(file) = &arguments.secret_file else {
        return Ok(None);
    };
    let merged = trust::merge_pull_secrets(&texts(&arguments.pull_secret)?)
        .map_err(|error| trust_failure(&error))?;
    let changed = replace_for(file, merged.as_bytes(), Audience::Owner)
        .map_err(|error| cannot("write the pull secret", file, &error))?;
    Ok(changed.then(|| file.clone()))
}

/// The files of one kind.
fn files(
    site: &Site,
    arguments: &EmitArguments,
    kind: EmitKind,
    lock: &Lock,
    built: &[Built],
    rules: &Rules,
    source: &dyn Source,
) -> Result<(BTreeMap<String, String>, Audience), Failure> {
    let one = |name: &str, text: String| BTreeMap::from([(name.to_owned(), text)]);
    if kind == EmitKind::Blueprint {
        let pins: Vec<_> = lock
            .blocks()
            .flat_map(|block| block.pins())
            .filter_map(|(_, pin)| Some((pin.repository()?, pin.digest)))
            .collect();
        let text = install::blueprint(pins, &arguments.filter);
        if text.is_empty() {
            return Err(Failure::new(
                ui::ERROR,
                "no image of the lock is in a registry and fits --filter",
            ));
        }
        return Ok((one("blueprint-containers.toml", text), Audience::Everyone));
    }
    let Some(registry) = &arguments.registry else {
        return Err(Failure::new(
            ui::USAGE,
            format!("--kind {} needs --registry HOST/PREFIX", kind.name()),
        ));
    };
    let mut place = site.destination(registry)?;
    if arguments.never_contact_source {
        place.asks_source = Some(false);
    }
    let shape = site.shape(&arguments.shape, &place);
    let never_source = place.asks_source == Some(false);
    let yaml = |name: &str, documents: &[crate::canon::Value]| match yaml_stream(documents) {
        Ok(text) => Ok(one(name, text)),
        Err(source) => Err(emit_failure(&EmitError::Yaml {
            file: name.to_owned(),
            source,
        })),
    };
    let wrong = |file: &str| {
        let file = file.to_owned();
        move |source| emit_failure(&EmitError::Yaml { file, source })
    };
    let images =
        || mirrored(lock, built, rules, &place, &shape).map_err(|error| emit_failure(&error));
    let sets = || images().map(|images| mirror_sets(&images, &shape, never_source));
    let authorities = || -> Result<Option<String>, Failure> {
        if arguments.ca.is_empty() {
            return Ok(None);
        }
        trust::bundle(&texts(&arguments.ca)?)
            .map(Some)
            .map_err(|error| trust_failure(&error))
    };
    let files = match kind {
        EmitKind::Cluster => documents(lock, built, rules, source, &place, &shape)
            .map_err(|error| emit_failure(&error))?,
        EmitKind::Icsp => {
            let name = "imageContentSourcePolicy.yaml";
            let documents =
                install::content_source_policies(&images()?, shape.max_nested_paths > 0)
                    .map_err(wrong(name))?;
            yaml(name, &documents)?
        }
        EmitKind::HostsToml => {
            let sets = sets()?;
            warn_of_renamed(&sets);
            let secrets = texts(&arguments.pull_secret)?;
            let mut login = None;
            for (file, text) in &secrets {
                login = trust::login(file, text, &place.registry)
                    .map_err(|error| trust_failure(&error))?
                    .or(login);
            }
            if !secrets.is_empty() && login.is_none() {
                return Err(Failure::new(
                    ui::ERROR,
                    format!("the pull secret has no entry for {}", place.registry),
                ));
            }
            let authorization = |registry: &str| {
                let login = login.as_ref()?;
                (registry == place.registry).then(|| format!("Basic {login}"))
            };
            let files = node::hosts_toml(&sets, &authorization)
                .into_iter()
                .map(|(host, text)| (format!("hosts/{host}/hosts.toml"), text))
                .collect();
            let audience = if login.is_some() {
                Audience::Owner
            } else {
                Audience::Everyone
            };
            return Ok((files, audience));
        }
        EmitKind::RegistriesConf | EmitKind::NextHop => {
            let insecure: Vec<String> = site
                .common
                .insecure
                .iter()
                .filter(|host| **host == place.registry)
                .cloned()
                .collect();
            let mut sets = sets()?;
            if kind == EmitKind::NextHop {
                // However an image was asked for, the next hop asks for it by digest.
                sets.by_digest.append(&mut sets.by_tag);
            }
            let mut tables = node::registries(&sets, &insecure, &[]);
            // The registry's own table says only what its mirrors say already, but a direct pull needs it.
            tables.retain(|table| !table.mirrors.is_empty() || table.is_insecure);
            let file = if kind == EmitKind::NextHop {
                NEXT_HOP
            } else {
                DROP_IN
            };
            one(file, node::registries_conf(&tables))
        }
        EmitKind::Trust => {
            let authorities = authorities()?.unwrap_or_default();
            yaml(
                "additional-trusted-ca.yaml",
                &trust::documents(&place.registry, &authorities),
            )?
        }
        EmitKind::Samples => {
            let mut all = documents(lock, built, rules, source, &place, &shape)
                .map_err(|error| emit_failure(&error))?;
            // Where the lock knows sample streams, their rule says more.
            match all.remove(SAMPLES_CONFIG) {
                Some(text) => one(SAMPLES_CONFIG, text),
                None => yaml(SAMPLES_CONFIG, &[install::samples(&place.join_registry())])?,
            }
        }
        EmitKind::InstallConfig => {
            let (sets, authorities) = (sets()?, authorities()?);
            let mut files = BTreeMap::new();
            for (name, sources) in [
                ("install-config-mirror.yaml", Sources::Digest),
                ("install-config-mirror-4.13.yaml", Sources::Content),
            ] {
                let text =
                    install::install_config(&sets.by_digest, sources, authorities.as_deref())
                        .map_err(wrong(name))?;
                files.insert(name.to_owned(), text);
            }
            files
        }
        EmitKind::PullSecret | EmitKind::Blueprint => BTreeMap::new(),
    };
    Ok((files, Audience::Everyone))
}

/// `imgbuild plan --mapping FILE --missing FILE`: every image as `source=destination`, with transports, sorted.
pub(super) fn dry_run(
    site: &Site,
    arguments: &PlanArguments,
    lock: &Lock,
    built: &[Built],
    rules: &Rules,
    plan: &Plan,
    store: &Store,
) -> Result<(), Failure> {
    let Some(registry) = &arguments.registry else {
        return Ok(());
    };
    if arguments.mapping.is_none() && arguments.missing.is_none() {
        return Err(Failure::new(ui::USAGE, "--registry says nothing here")
            .hint("it goes with --mapping or --missing"));
    }
    let place = site.destination(registry)?;
    let shape = flags(
        site,
        &place,
        arguments.layout.as_deref(),
        arguments.max_nested_paths,
    );
    let items = items(lock, built, rules, plan, &place, &shape)
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    let mut mapping = Vec::new();
    let mut missing = Vec::new();
    for item in &items {
        let source = if item.name.contains("://") {
            item.name.clone()
        } else {
            format!("docker://{}", item.name)
        };
        let line = format!(
            "{source}=docker://{}/{}:{}",
            place.registry, item.path, item.tag
        );
        let mut is_whole = item.is_whole;
        for (manifest_blob, manifest) in &item.manifests {
            let mut wanted = vec![*manifest_blob];
            if let Manifest::Image(image) = manifest {
                wanted.extend(image.blobs().map(Blob::from));
            }
            for blob in wanted {
                is_whole &= store
                    .holds(&blob)
                    .map_err(|error| io_failure("the store cannot be used", &error))?;
            }
        }
        if !is_whole {
            missing.push(line.clone());
        }
        mapping.push(line);
    }
    let text = |lines: &mut Vec<String>| {
        lines.sort();
        lines.push(String::new());
        lines.join("\n")
    };
    if let Some(path) = &arguments.mapping {
        replace(path, text(&mut mapping).as_bytes())
            .map_err(|error| cannot("write the mapping", path, &error))?;
    }
    if let Some(path) = &arguments.missing {
        let missing = (!missing.is_empty()).then(|| text(&mut missing));
        write_or_remove(path, missing.as_deref())?;
    }
    Ok(())
}

/// Says which images containerd would not find.
fn warn_of_renamed(sets: &node::Sets) {
    let renamed = node::renamed(sets);
    if renamed.is_empty() {
        return;
    }
    let pairs: Vec<String> = renamed
        .iter()
        .take(PAIRS)
        .map(|row| format!("  {} -> {}", row.source, row.mirror))
        .collect();
    let more = renamed.len().saturating_sub(PAIRS);
    let more = if more > 0 {
        format!("\n  and {more} more")
    } else {
        String::new()
    };
    remark(format!(
        "warning: hosts.toml redirects whole registries, so {} will not be found where the path at the mirror is another:\n{}{more}",
        count(renamed.len(), "source"),
        pairs.join("\n")
    ));
}
