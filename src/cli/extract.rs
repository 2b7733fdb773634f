//! `extract`: tools and files out of a release.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::arguments::{ExtractArguments, Format};
use super::site::Site;
use super::ui::{self, Failure, Progress, remark, say};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::openshift::tools::{self, Machine, Target, Tool};
use crate::plan::lock::Lock;
use crate::plan::text;
use crate::reference::Reference;
use crate::run::event::Event;
use crate::run::extract::{
    CHECKSUMS, Form, Nowhere, RELEASE_TEXT, Release, Written, checksums, write,
};
use crate::run::realise::Upstream;
use crate::run::resolve::Resolver;
use crate::run::resolve::means::{Exclusions, Means, Problem};
use crate::store::disk::Access;

/// `imgbuild extract`
pub(super) fn extract(
    site: &Site,
    arguments: &ExtractArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let commands = tools::commands();
    for command in &arguments.commands {
        if !commands.contains(&command.as_str()) {
            return Err(
                Failure::new(ui::USAGE, format!("no release has a tool {command:?}"))
                    .hint(format!("there are {}", commands.join(", "))),
            );
        }
    }
    let target = match &arguments.command_os {
        Some(text) => text
            .parse()
            .map_err(|error: tools::TargetError| Failure::of(ui::USAGE, &error, None))?,
        None if arguments.tools => Target::All,
        None => here()?,
    };
    let payload = payload(arguments)?;
    let rules = site.rules()?;
    let store = site.store(Access::Shared)?;
    let progress = Progress::new(
        site.common.quiet,
        site.common.verbose > 0,
        site.common.events.as_deref(),
    )?;
    let observer = |event| progress.observe(event);
    observer(Event::Phase { phase: "extract" });
    let live = site.upstream()?;
    let upstream: &dyn Upstream = if arguments.offline { &Nowhere } else { &live };
    let nothing = |_: &str, _: Option<Digest>| {};
    let resolver = Resolver {
        rules: &rules,
        names: None,
        upstream,
        store: &store,
        limits: site.limits(),
        observer: &observer,
        stop,
        services: site.services()?,
        evidence: &nothing,
        within: None,
    };
    let (exclusions, files) = (Exclusions::default(), BTreeMap::new());
    let means = Means::new(&resolver, &exclusions, &files, &[]);
    let outcome = Release::open(&means, &payload)
        .map_err(|problem| failure(problem, stop))
        .and_then(|release| {
            if let Some(name) = &arguments.file {
                let bytes = release
                    .manifest(name)
                    .map_err(|problem| failure(problem, stop))?;
                return Ok(Outcome::File(bytes));
            }
            take(arguments, &target, &release, stop)
                .map(|written| Outcome::Tools(release.version(), written))
        });
    progress.finish();
    match outcome? {
        Outcome::File(bytes) => {
            use std::io::Write as _;
            let mut out = std::io::stdout().lock();
            out.write_all(&bytes)
                .and_then(|()| out.flush())
                .map_err(|error| {
                    Failure::new(ui::ERROR, format!("cannot write the file: {error}"))
                })?;
        }
        Outcome::Tools(version, written) => tell(site, arguments, &payload, &version, &written),
    }
    Ok(ui::DONE)
}

/// What an extraction comes to.
enum Outcome {
    File(Vec<u8>),
    Tools(String, Vec<Written>),
}

fn failure(problem: Problem, stop: &AtomicBool) -> Failure {
    if stop.load(Ordering::Relaxed) {
        return Failure::new(ui::INCOMPLETE, "stopped; what was fetched is kept")
            .hint("run the same command again to go on");
    }
    let failure = Failure::new(ui::ERROR, problem.text);
    match problem.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The system that this program runs on.
fn here() -> Result<Target, Failure> {
    format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)
        .parse()
        .map_err(|error: tools::TargetError| {
            Failure::of(
                ui::USAGE,
                &error,
                Some("name one with --command-os".to_owned()),
            )
        })
}

/// The payload, which must be named by digest: a tool that is pinned to a tag would be pinned to nothing.
fn payload(arguments: &ExtractArguments) -> Result<Reference, Failure> {
    let payload: Reference =
        arguments
            .from
            .parse()
            .map_err(|error: crate::reference::ReferenceError| {
                Failure::of(ui::USAGE, &error, error.hint())
            })?;
    if payload.digest.is_some() {
        return Ok(payload);
    }
    let known = payload.tag.as_ref().and_then(|tag| {
        let folder = std::fs::read_dir("lockfiles").ok()?;
        let mut paths: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths
            .iter()
            .filter_map(|path| read(path))
            .find_map(|lock| pinned(&lock, tag.as_str()))
    });
    let hint = match known {
        Some(digest) => format!(
            "the lock has {}@{digest} under that version",
            payload.repository
        ),
        None => {
            "`skopeo inspect` tells the digest behind a tag; the lock has those of its releases"
                .to_owned()
        }
    };
    Err(Failure::new(
        ui::USAGE,
        format!("{payload} is no payload by digest, and a tag can move"),
    )
    .hint(hint))
}

fn read(path: &Path) -> Option<Lock> {
    let text = std::fs::read_to_string(path).ok()?;
    text::parse(&text, &path.display().to_string()).ok()
}

/// The payload that a lock has under a tag such as `4.16.1-x86_64`.
fn pinned(lock: &Lock, tag: &str) -> Option<Digest> {
    lock.releases.iter().find_map(|release| {
        let machine: crate::openshift::release::Architecture = release.arch.parse().ok()?;
        release
            .payloads
            .iter()
            .find(|payload| {
                tag == payload.version
                    || tag == format!("{}-{}", payload.version, machine.machine())
            })
            .map(|payload| payload.pin.digest)
    })
}

fn take(
    arguments: &ExtractArguments,
    target: &Target,
    release: &Release<'_>,
    stop: &AtomicBool,
) -> Result<Vec<Written>, Failure> {
    let of = release.architecture().name();
    let mut chosen: Vec<&Tool> = Vec::new();
    if arguments.tools {
        chosen.extend(tools::choose(None, target, of));
    }
    for command in &arguments.commands {
        let found = tools::choose(Some(command), target, of);
        if found.is_empty() {
            return Err(Failure::new(
                ui::ERROR,
                format!("there is no {command} for {target} in a release for {of}"),
            )
            .hint("--command-os names another system"));
        }
        for tool in found {
            if !chosen.contains(&tool) {
                chosen.push(tool);
            }
        }
    }
    let as_archives = arguments.tools || *target == Target::All;
    // What a release has not got is an error where it was asked for by name, and a note where everything was.
    let several = as_archives && chosen.len() > 1;
    let mut written = Vec::new();
    let mut absent = Vec::new();
    for tool in chosen {
        let machine = match (tool.machine, target) {
            (Machine::Named(machine), _) => machine,
            (Machine::Release, Target::One { machine, .. }) => machine.as_str(),
            (Machine::Release, Target::All) if of == "multi" => "amd64",
            (Machine::Release, Target::All) => of,
        };
        let form = if as_archives {
            Form::Archive
        } else {
            Form::File
        };
        let taken = release
            .take(tool, machine, form, &arguments.output)
            .map_err(|problem| failure(problem, stop))?;
        let name = tool.archive(&release.version());
        match taken {
            Some(file) => written.push(file),
            None if several => absent.push(name),
            None => {
                return Err(Failure::new(
                    ui::ERROR,
                    format!(
                        "the release has no {}: no /{} in image {}",
                        tool.command, tool.path, tool.image
                    ),
                )
                .hint("`--file image-references` lists its images"));
            }
        }
    }
    if written.is_empty() {
        return Err(Failure::new(
            ui::ERROR,
            "the release has none of these tools",
        ));
    }
    for name in absent {
        remark(format!("note: the release has not got {name}"));
    }
    if as_archives {
        let put = |name: &str, text: &str| {
            write(&arguments.output, name, text.as_bytes()).map_err(|error| {
                Failure::new(
                    ui::ERROR,
                    format!(
                        "cannot write {}: {error}",
                        arguments.output.join(name).display()
                    ),
                )
            })
        };
        written.push(put(RELEASE_TEXT, &release.describe())?);
        put(CHECKSUMS, &checksums(&written))?;
    }
    Ok(written)
}

fn tell(
    site: &Site,
    arguments: &ExtractArguments,
    payload: &Reference,
    version: &str,
    written: &[Written],
) {
    for note in written.iter().flat_map(|file| &file.notes) {
        remark(format!("warning: {note}"));
    }
    if arguments.format == Format::Json {
        let rows: Vec<_> = written
            .iter()
            .map(|file| json!({ "path": file.path, "size": file.size, "sha256": file.sha256.hex(), "notes": file.notes }))
            .collect();
        say(json!({ "version": 1, "release": version, "payload": payload.to_string(), "files": rows }).to_string());
    } else if !site.common.quiet {
        for file in written {
            say(format!("{}  {}", file.sha256.hex(), file.path.display()));
        }
    }
}
