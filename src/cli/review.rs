//! `diff`, `why`, `audit`, `textconv`, `merge-driver`, and what `lock` asks of a policy: everything for a reviewer.
//!
//! A lock can be named in five ways, tried in this order:
//!
//! ```text
//! git:REV:PATH      a file as git has it; REV may be empty, for the index
//! PATH              a lockfile; an archive, or a folder of archives (the newest): the lock it carries
//! STREAM#SEQ        the lock that an archive of a stream was made from, by its chain, from the store
//! REV:PATH          as git:REV:PATH, where there is no such file
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use super::arguments::{
    AuditArguments, AuditFormat, DiffArguments, DiffFormat, Format, MergeDriverArguments,
    PlanArguments, PlanFormat, Subject, TextconvArguments, WhyArguments,
};
use super::charts;
use super::delivery;
use super::destination;
use super::locking::{fetch, resolve_failure, wanted};
use super::site::{Paths, Site, cannot, lock_failure, store_failure};
use super::trust;
use super::ui::{self, Failure, Progress, count, remark, say};
use crate::archive::read::Blobs;
use crate::archive::{FileName, Set, Stream};
use crate::canon::Key;
use crate::chart::survey::Needed;
use crate::config::{self, ImageSet, parse_size};
use crate::deliver::attest;
use crate::deliver::audit::{self, AuditError};
use crate::deliver::bill;
use crate::deliver::charts::file_of;
use crate::deliver::emit::replace;
use crate::deliver::head::AdoptedHead;
use crate::deliver::registry::RegistryTarget;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::MANIFEST_LIMIT;
use crate::plan::diff;
use crate::plan::graph::Plan;
use crate::plan::key::BlockKey;
use crate::plan::lines::lines;
use crate::plan::lock::{Block as LockBlock, Chart, Lock, Origin as PinOrigin, Pin};
use crate::plan::policy::{self, Policy, Violation};
use crate::plan::{merge, text, why};
use crate::reference::{ImageName, LayoutName, Reference, Repository, Tag};
use crate::run::built;
use crate::run::event::{Event, one_line};
use crate::run::realise::{Depot, Extent};
use crate::run::resolve::means::tag_list;
use crate::run::resolve::{self, Answer, Names, Request, ResolveError, Resolver};
use crate::run::upstream::Live;
use crate::step::place::Layout;
use crate::step::rule::Rules;
use crate::step::{Address, Observe};
use crate::store::disk::{Access, Store};
use crate::store::memo::{Memo, Output};
use crate::store::{Blob, Sink, Source, TransferError, Verified, read};

/// Largest lock that is read from git, an archive or the store.
const LOCK_LIMIT: u64 = 64 << 20;

/// Most violations and findings that a failure lists; the report has all.
const LISTED: usize = 20;

/// A lock, wherever it was.
struct Found {
    name: String,
    lock: Lock,
    bytes: Vec<u8>,
    /// The archive that carries it, whose manifests are at hand as well.
    archive: Option<Set>,
}

/// Reads the lock that `name` stands for.
fn lock_at(site: &Site, store: Option<&Store>, name: &str) -> Result<Found, Failure> {
    let (bytes, archive) = if let Some(object) = name.strip_prefix("git:") {
        (from_git(object)?, None)
    } else if Path::new(name).exists() {
        if let Some((bytes, set)) = carried(Path::new(name))? {
            (bytes, Some(set))
        } else {
            let path = Path::new(name);
            let bytes = fs::read(path).map_err(|error| cannot("read the lock", path, &error))?;
            (bytes, None)
        }
    } else if let Some((stream, sequence)) = in_stream(name) {
        (from_stream(site, store, &stream, sequence)?, None)
    } else if name.contains(':') {
        (from_git(name)?, None)
    } else {
        return Err(
            Failure::new(ui::ERROR, format!("there is no lock at {name}"))
                .hint("name a file, git:REV:PATH, an archive or STREAM#SEQ"),
        );
    };
    let written = std::str::from_utf8(&bytes)
        .map_err(|error| Failure::new(ui::ERROR, format!("{name} is no lock: {error}")))?;
    let lock = text::parse(written, name).map_err(|error| lock_failure(&error))?;
    Ok(Found {
        name: name.to_owned(),
        lock,
        bytes,
        archive,
    })
}

/// The lock alone that `name` stands for.
pub(super) fn lock_called(site: &Site, store: Option<&Store>, name: &str) -> Result<Lock, Failure> {
    lock_at(site, store, name).map(|found| found.lock)
}

/// The lock that an archive carries; `None` if the file is no archive.
fn carried(path: &Path) -> Result<Option<(Vec<u8>, Set)>, Failure> {
    let failed = |error: &crate::archive::ArchiveError| Failure::of(ui::ERROR, error, error.hint());
    if !path.is_dir() && !is_part(path) {
        return Ok(None);
    }
    let set = Set::open([path]).map_err(|error| failed(&error))?;
    if let Some(error) = set.broken().first() {
        return Err(failed(error));
    }
    let Some(newest) = set
        .archives()
        .iter()
        .max_by_key(|archive| archive.manifest().sequence)
    else {
        return Err(
            Failure::new(ui::ERROR, format!("no archive is in {}", path.display()))
                .hint("name a lockfile, or a folder that `imgbuild export -o` wrote to"),
        );
    };
    let streams: BTreeSet<&str> = set
        .archives()
        .iter()
        .map(|archive| archive.stream().as_str())
        .collect();
    if streams.len() > 1 {
        let names: Vec<&str> = streams.into_iter().collect();
        return Err(Failure::new(
            ui::ERROR,
            format!(
                "{} has archives of several streams: {}",
                path.display(),
                names.join(", ")
            ),
        )
        .hint("name one of its files"));
    }
    let lock = newest.metadata().map_err(|error| failed(&error))?.lock;
    Ok(Some((lock, set)))
}

/// Whether a file is a part of an archive, by its name.
fn is_part(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| FileName::parse(name).is_some())
}

/// Reads `REV:PATH` from git.
fn from_git(object: &str) -> Result<Vec<u8>, Failure> {
    let (revision, path) = object.split_once(':').unwrap_or((object, ""));
    if path.is_empty() || revision.starts_with('-') {
        return Err(
            Failure::new(ui::USAGE, format!("{object:?} names no file of a revision"))
                .hint("write git:REV:PATH, such as git:main:lockfiles/imageset.lock.toml"),
        );
    }
    let mut problem = String::new();
    // Git counts paths from the top of the repository; people in a folder of it may mean that folder.
    for object in [object.to_owned(), format!("{revision}:./{path}")] {
        let output = Command::new("git")
            .args(["cat-file", "blob", &object])
            .output()
            .map_err(|error| {
                Failure::new(ui::ERROR, format!("cannot run git: {error}"))
                    .hint("name a file, or install git")
            })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        if problem.is_empty() {
            String::from_utf8_lossy(&output.stderr)
                .trim()
                .clone_into(&mut problem);
        }
    }
    let mut failure = Failure::new(ui::ERROR, format!("git has no {object}"));
    let _ = write!(
        failure.text,
        "\n  because {}",
        problem.replace('\n', "\n  ")
    );
    Err(failure)
}

/// `STREAM#SEQ`, taken apart.
fn in_stream(name: &str) -> Option<(Stream, u64)> {
    let (stream, sequence) = name.split_once('#')?;
    Some((stream.parse().ok()?, sequence.parse().ok()?))
}

/// The lock of an archive that was exported or adopted here.
fn from_stream(
    site: &Site,
    store: Option<&Store>,
    stream: &Stream,
    sequence: u64,
) -> Result<Vec<u8>, Failure> {
    let nothing = Subject {
        mapping_file: None,
        config: None,
        lock: None,
    };
    let paths = site.paths_in(&nothing, Some(stream.as_str()));
    let path = delivery::chain_path(&paths, stream);
    let chain = delivery::chain(&path)?;
    let mut digest = chain.line(sequence).map(|line| line.lock);
    if let (None, Some(store)) = (digest, store) {
        digest = adopted(store, stream, sequence)?;
    }
    let Some(digest) = digest else {
        let last = chain.last().map_or(0, |line| line.sequence);
        return Err(Failure::new(
            ui::ERROR,
            format!(
                "stream {stream} has no sequence {sequence}: {} ends at {last}, and the store adopted none such",
                path.display()
            ),
        ));
    };
    let gone = || {
        Failure::new(
            ui::ERROR,
            format!("the lock of {stream} seq {sequence} ({digest}) is not in the store"),
        )
        .hint("find the commit that has it and name it as git:REV:PATH")
    };
    let store = store.ok_or_else(gone)?;
    let length = store
        .size_of(&digest)
        .map_err(|error| store_failure(&error))?
        .ok_or_else(gone)?;
    let blob = Blob {
        digest,
        size: length,
    };
    read(store, &blob, LOCK_LIMIT).map_err(|error| Failure::of(ui::UNVERIFIED, &error, None))
}

/// The lock of a sequence that some destination has adopted last, as the importer recorded it.
fn adopted(store: &Store, stream: &Stream, sequence: u64) -> Result<Option<Digest>, Failure> {
    let failed = |error: crate::store::StoreError| store_failure(&error);
    let records = store.stream(stream.as_str()).map_err(failed)?;
    for name in records.list().map_err(failed)? {
        if !name.starts_with("head ") {
            continue;
        }
        let head = records.read(&name).map_err(failed)?.unwrap_or_default();
        if let Ok(head) = serde_json::from_slice::<AdoptedHead>(&head)
            && head.sequence == sequence
        {
            return Ok(Some(head.lock));
        }
    }
    Ok(None)
}

/// The store, if there is one.
fn store_if_any(site: &Site) -> Result<Option<Store>, Failure> {
    if site.store_path()?.exists() {
        site.store(Access::ReadOnly).map(Some)
    } else {
        Ok(None)
    }
}

/// Where manifests are: the store, and archives that were named.
struct Places<'a> {
    store: Option<&'a Store>,
    archives: Vec<Blobs<'a>>,
}

impl Source for Places<'_> {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        if let Some(store) = self.store
            && let Some(bytes) = store.open(blob, from)?
        {
            return Ok(Some(bytes));
        }
        for archive in &self.archives {
            if let Some(bytes) = archive.open(blob, from)? {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// The plan of a lock as far as manifests are at hand, and how many are not.
fn plan_at(lock: &Lock, places: &Places<'_>) -> Result<(Plan, usize), Failure> {
    let failed =
        |error: crate::plan::graph::PlanError| Failure::of(ui::ERROR, &error, error.hint());
    let built = match places.store {
        Some(store) => built::remembered(lock, store)
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?,
        None => Vec::new(),
    };
    let mut plan = Plan::of(resolve::roots(lock, &built)).map_err(failed)?;
    let mut absent = BTreeSet::new();
    loop {
        let unread: Vec<Blob> = plan
            .unread()
            .into_iter()
            .map(|fetch| fetch.blob)
            .filter(|blob| !absent.contains(blob))
            .collect();
        if unread.is_empty() {
            return Ok((plan, absent.len()));
        }
        for blob in unread {
            match read(places, &blob, MANIFEST_LIMIT) {
                Ok(bytes) => {
                    plan.read(&blob.digest, &bytes).map_err(failed)?;
                }
                Err(TransferError::Absent { .. }) => {
                    absent.insert(blob);
                }
                Err(error) => {
                    return Err(Failure::of(
                        ui::UNVERIFIED,
                        &error,
                        Some("`imgbuild store fsck` finds every damaged blob".to_owned()),
                    ));
                }
            }
        }
    }
}

/// Whether standard output is a terminal that wants colours.
fn is_colourful(site: &Site) -> bool {
    let unset = |name: &str| site.environment.variable(name).is_none_or(str::is_empty);
    io::stdout().is_terminal()
        && unset("NO_COLOR")
        && site.environment.variable("TERM") != Some("dumb")
}

/// A difference with colours: titles bold, what came green, what went red, what changed yellow.
fn paint(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for line in text.lines() {
        let colour = match line.trim_start().chars().next() {
            _ if !line.starts_with(' ') => "1",
            Some('+') => "32",
            Some('-') => "31",
            Some('~') => "33",
            _ => "2",
        };
        let _ = writeln!(out, "\x1b[{colour}m{line}\x1b[0m");
    }
    out
}

/// `imgbuild diff`
pub(super) fn diff(site: &Site, arguments: &DiffArguments) -> Result<u8, Failure> {
    let store = store_if_any(site)?;
    let old = lock_at(site, store.as_ref(), &arguments.old)?;
    let new = lock_at(site, store.as_ref(), &arguments.new)?;
    let places = Places {
        store: store.as_ref(),
        archives: [&old, &new]
            .into_iter()
            .filter_map(|found| found.archive.as_ref())
            .map(Set::blobs)
            .collect(),
    };
    let mut closures = Vec::new();
    for found in [&old, &new] {
        let (plan, absent) = plan_at(&found.lock, &places)?;
        let closure = plan
            .closure()
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
        closures.push(diff::Closure {
            blobs: closure.sorted(),
            absent,
        });
    }
    // Asked for the older first, then for the newer.
    let next = AtomicUsize::new(0);
    let closure = |_: &Lock| {
        closures
            .get(next.fetch_add(1, Ordering::Relaxed))
            .cloned()
            .unwrap_or_default()
    };
    let difference = diff::diff(&old.lock, &new.lock, Some(&closure));
    let text = match arguments.format {
        DiffFormat::Text if is_colourful(site) => paint(&difference.text()),
        DiffFormat::Text => difference.text(),
        DiffFormat::Md => difference.markdown(),
        DiffFormat::Json => difference.json(),
    };
    say(text.trim_end());
    // As `diff` and `git diff` say it; an error has the same code and a message.
    Ok(if arguments.exit_code && !difference.is_empty() {
        ui::ERROR
    } else {
        ui::DONE
    })
}

/// `imgbuild textconv`
pub(super) fn textconv(arguments: &TextconvArguments) -> Result<u8, Failure> {
    let bytes = fs::read(&arguments.file)
        .map_err(|error| cannot("read the lock", &arguments.file, &error))?;
    let text = String::from_utf8_lossy(&bytes);
    // Git gives up on the whole difference if this fails, so what is no lock is shown as it is.
    match text::parse(&text, &arguments.file.display().to_string()) {
        Ok(lock) if !lock.is_newer() => say(lines(&lock).trim_end()),
        _ => say(text.trim_end_matches('\n')),
    }
    Ok(ui::DONE)
}

/// `imgbuild merge-driver`
pub(super) fn merge_driver(arguments: &MergeDriverArguments) -> Result<u8, Failure> {
    let name = arguments
        .path
        .clone()
        .unwrap_or_else(|| arguments.ours.display().to_string());
    let load = |path: &Path, side: &str| -> Result<Lock, String> {
        let bytes = fs::read(path).map_err(|error| format!("{side} cannot be read: {error}"))?;
        if bytes.is_empty() {
            return Ok(Lock::default());
        }
        let text = String::from_utf8_lossy(&bytes);
        text::parse(&text, side).map_err(|error| one_line(&error))
    };
    let sides = load(&arguments.base, "the common version").and_then(|base| {
        Ok((
            base,
            load(&arguments.ours, "our version")?,
            load(&arguments.theirs, "their version")?,
        ))
    });
    let merged = sides.and_then(|(base, ours, theirs)| {
        merge::merge(&base, &ours, &theirs).map_err(|error| error.to_string())
    });
    let merged = match merged {
        Ok(merged) => merged,
        Err(problem) => {
            // Line by line then, so that nothing is lost and every dispute is marked.
            remark(format!("{name}: {problem}; merged line by line"));
            let status = Command::new("git")
                .args(["merge-file", "-L", "ours", "-L", "base", "-L", "theirs"])
                .args([&arguments.ours, &arguments.base, &arguments.theirs])
                .status()
                .map_err(|error| Failure::new(ui::ERROR, format!("cannot run git: {error}")))?;
            return Ok(if status.success() {
                ui::DONE
            } else {
                ui::ERROR
            });
        }
    };
    replace(&arguments.ours, merged.text.as_bytes())
        .map_err(|error| cannot("write the merged lock", &arguments.ours, &error))?;
    if merged.conflicts.is_empty() {
        return Ok(ui::DONE);
    }
    for key in &merged.conflicts {
        remark(format!("{name}: both sides changed {key}"));
    }
    remark("hint: run `imgbuild lock`: it keeps what both sides agree on and resolves these anew");
    Ok(ui::ERROR)
}

/// What .gitattributes says of lockfiles and chains.
const ATTRIBUTES: [&str; 2] = [
    "lockfiles/*.lock.toml text eol=lf merge=imgbuild diff=imgbuild -linguist-generated",
    "lockfiles/*.chain text eol=lf",
];

/// Adds what is missing to .gitattributes, and says what git has to be told besides.
pub(super) fn attributes(site: &Site, folder: &Path) -> Result<u8, Failure> {
    let path = folder.join(".gitattributes");
    let before = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(cannot("read", &path, &error)),
    };
    let mut after = before.clone();
    if !after.is_empty() && !after.ends_with('\n') {
        after.push('\n');
    }
    for line in ATTRIBUTES {
        if !before.lines().any(|old| old.trim() == line) {
            after.push_str(line);
            after.push('\n');
        }
    }
    let changed = after != before;
    if changed {
        replace(&path, after.as_bytes()).map_err(|error| cannot("write", &path, &error))?;
    }
    if !site.common.quiet {
        let verb = match (changed, before.is_empty()) {
            (false, _) => "is as it should be:",
            (true, true) => "wrote",
            (true, false) => "added to",
        };
        if changed {
            say(format!("{verb} {}", path.display()));
        } else {
            say(format!("{} {verb} nothing to add", path.display()));
        }
        say(
            "each clone has to be told once what to run:\n  git config merge.imgbuild.name \"imgbuild lockfiles\"\n  git config merge.imgbuild.driver \"imgbuild merge-driver %O %A %B %P\"\n  git config diff.imgbuild.textconv \"imgbuild textconv\"",
        );
    }
    Ok(ui::DONE)
}

/// One answer of `why`.
struct Why {
    /// The digest of the file that asked for it, with --from.
    query: Option<Digest>,
    block: String,
    role: String,
    image: String,
    path: Vec<why::Hop>,
    /// The bundles that list it, and what each calls it.
    bundles: Vec<(String, String)>,
    /// How a chart names it: as it is written, by what it was found, and where.
    charted: Vec<Needed>,
}

/// `imgbuild why`
pub(super) fn why(site: &Site, arguments: &WhyArguments) -> Result<u8, Failure> {
    let paths = site.paths(&arguments.subject);
    let (lock, _) = site.lock(&paths.lock)?;
    let from = arguments.from.as_deref().map(mentioned).transpose()?;
    let what = arguments.what.clone().unwrap_or_default();
    let digits = what
        .strip_prefix("sha256:")
        .or_else(|| what.rsplit_once("@sha256:").map(|(_, digits)| digits))
        .unwrap_or(&what);
    let is_digest = (why::PREFIX_LENGTH..=64).contains(&digits.len())
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let names = |digest: &Digest| match &from {
        Some(wanted) => wanted.contains(digest),
        None => is_digest && digest.hex().starts_with(digits),
    };
    let shallow = match &from {
        Some(_) => why::holding(&lock, &names),
        None => why::why(&lock, &what),
    };
    let mut answers: Vec<Why> = shallow
        .into_iter()
        .map(|reason| Why {
            query: from.is_some().then_some(reason.digest),
            block: reason.block.to_string(),
            role: reason.role.to_string(),
            image: reason
                .pin
                .map_or_else(|| reason.digest.to_string(), crate::plan::lock::Pin::image),
            path: Vec::new(),
            bundles: match (&reason.block, reason.pin) {
                (BlockKey::Package { .. }, Some(pin)) if arguments.deep => {
                    bundles_of(site, &lock, &reason.block, pin)
                }
                _ => Vec::new(),
            },
            charted: match (lock.find(&reason.block), reason.pin) {
                (Some(LockBlock::Chart(chart)), Some(pin)) => charted(site, &lock, chart, pin),
                _ => Vec::new(),
            },
        })
        .collect();
    let mut absent = 0;
    let looks_deeper = arguments.deep || from.is_some() || answers.is_empty();
    if looks_deeper && (is_digest || from.is_some()) {
        let store = store_if_any(site)?;
        let places = Places {
            store: store.as_ref(),
            archives: Vec::new(),
        };
        let (plan, unread) = plan_at(&lock, &places)?;
        absent = unread;
        answers.extend(
            why::trace(&plan, &names)
                .into_iter()
                // A way of one hop is a pin, which has been said.
                .filter(|trace| trace.hops.len() > 1)
                .map(|trace| Why {
                    query: from.is_some().then_some(trace.found()),
                    block: trace.owner.clone(),
                    role: trace
                        .hops
                        .last()
                        .map(|hop| hop.role.clone())
                        .unwrap_or_default(),
                    image: trace.found().to_string(),
                    path: trace.hops,
                    bundles: Vec::new(),
                    charted: Vec::new(),
                }),
        );
    } else if arguments.deep && answers.iter().all(|answer| answer.bundles.is_empty()) {
        return Err(Failure::new(
            ui::USAGE,
            format!("--deep looks for digests, and {what:?} is none"),
        )
        .hint("give a digest, or 6 of its first digits or more"));
    }
    if from.is_some() {
        answers.sort_by_key(|answer| answer.query);
    }
    print_why(
        site,
        arguments,
        &paths,
        &lock,
        &answers,
        absent,
        from.as_ref(),
    );
    let found: BTreeSet<Digest> = answers.iter().filter_map(|answer| answer.query).collect();
    let lacking = from
        .as_ref()
        .map_or(answers.is_empty(), |wanted| found.len() < wanted.len());
    if absent > 0 && lacking {
        return Err(Failure::new(
            ui::INCOMPLETE,
            format!(
                "{} of this lock are not in the store, so what they name was not looked at",
                count(absent, "manifest")
            ),
        )
        .hint("run `imgbuild plan`, which fetches manifests, then ask again"));
    }
    if answers.is_empty() && from.is_none() {
        return Err(Failure::new(
            ui::ERROR,
            format!("nothing in {} is or has {what:?}", paths.lock.display()),
        )
        .hint("give a digest (6 digits or more), a repository, a tag or repository:tag"));
    }
    Ok(ui::DONE)
}

/// The bundles of a package that list a pin, as far as the store can tell.
fn bundles_of(site: &Site, lock: &Lock, key: &BlockKey, pin: &Pin) -> Vec<(String, String)> {
    let Some(LockBlock::Package(_, package)) = lock.find(key) else {
        return Vec::new();
    };
    let Ok(Some(store)) = store_if_any(site) else {
        return Vec::new();
    };
    match resolve::catalog::askers(package, pin, &store) {
        Ok(Some(found)) => found.into_iter().collect(),
        Ok(None) | Err(_) => Vec::new(),
    }
}

/// How a chart names a pin, as far as the store remembers.
fn charted(site: &Site, lock: &Lock, chart: &Chart, pin: &Pin) -> Vec<Needed> {
    let Ok(Some(store)) = store_if_any(site) else {
        return Vec::new();
    };
    match file_of(chart, &store) {
        Ok(file) => resolve::chart::found(chart, file, pin, lock, &store),
        Err(_) => Vec::new(),
    }
}

fn print_why(
    site: &Site,
    arguments: &WhyArguments,
    paths: &Paths,
    lock: &Lock,
    answers: &[Why],
    absent: usize,
    from: Option<&BTreeSet<Digest>>,
) {
    let at = positions(site, paths, lock);
    if arguments.format == Format::Json {
        let rows: Vec<_> = answers
            .iter()
            .map(|answer| {
                let path: Vec<_> = answer
                    .path
                    .iter()
                    .map(|hop| json!({ "role": hop.role, "digest": hop.blob.digest, "size": hop.blob.size }))
                    .collect();
                let mut row = json!({ "block": answer.block, "role": answer.role, "image": answer.image, "at": at.get(&answer.block) });
                if let Some(query) = answer.query {
                    row["query"] = json!(query);
                }
                if !path.is_empty() {
                    row["path"] = json!(path);
                }
                if !answer.bundles.is_empty() {
                    let bundles: Vec<_> = answer
                        .bundles
                        .iter()
                        .map(|(bundle, name)| json!({ "bundle": bundle, "relatedImage": name }))
                        .collect();
                    row["bundles"] = json!(bundles);
                }
                if !answer.charted.is_empty() {
                    row["found"] = json!(answer.charted);
                }
                row
            })
            .collect();
        let mut out = json!({ "version": 1, "reasons": rows, "unread": absent });
        if let Some(wanted) = from {
            let found: BTreeSet<Digest> =
                answers.iter().filter_map(|answer| answer.query).collect();
            out["absent"] = json!(wanted.difference(&found).collect::<Vec<_>>());
        }
        say(out.to_string());
        return;
    }
    let mut above = None;
    for answer in answers {
        if answer.query != above {
            above = answer.query;
            if let Some(query) = above {
                say(query.to_string());
            }
        }
        let indent = if answer.query.is_some() { "  " } else { "" };
        say(format!("{indent}{}", answer.block));
        say(format!("{indent}  {}  {}", answer.role, answer.image));
        for hop in answer.path.iter().rev().skip(1) {
            say(format!("{indent}    of {}  {}", hop.role, hop.blob.digest));
        }
        for needed in &answer.charted {
            let Needed {
                reference,
                by,
                place,
            } = needed;
            say(format!(
                "{indent}    found by {by}: {place}, as {reference}"
            ));
        }
        for (bundle, name) in &answer.bundles {
            if name.is_empty() {
                say(format!("{indent}    bundle {bundle}"));
            } else {
                say(format!(
                    "{indent}    bundle {bundle}, related image {name:?}"
                ));
            }
        }
        if let Some(at) = at.get(&answer.block) {
            say(format!("{indent}  asked for at {at}"));
        }
    }
    if let Some(wanted) = from {
        let found: BTreeSet<Digest> = answers.iter().filter_map(|answer| answer.query).collect();
        say(format!(
            "{} of {} in {}",
            found.len(),
            count(wanted.len(), "digest"),
            paths.lock.display()
        ));
    }
}

/// Every digest that a file mentions: 64 hexadecimal digits that stand alone or behind `sha256:`.
fn mentioned(path: &Path) -> Result<BTreeSet<Digest>, Failure> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(path)
    }
    .map_err(|error| cannot("read the list", path, &error))?;
    let digests: BTreeSet<Digest> = bytes
        .split(|byte| !byte.is_ascii_alphanumeric())
        .filter(|word| word.len() == 64)
        .filter_map(|word| {
            Digest::from_hex(&std::str::from_utf8(word).ok()?.to_ascii_lowercase()).ok()
        })
        .collect();
    if digests.is_empty() {
        return Err(
            Failure::new(ui::USAGE, format!("{} mentions no digest", path.display()))
                .hint("a digest has 64 hexadecimal digits, with or without sha256: before them"),
        );
    }
    Ok(digests)
}

/// Where blocks are asked for, by the block.
pub(super) fn asked_at(
    request: &Request,
    rules: &Rules,
    lock: &Lock,
) -> BTreeMap<BlockKey, String> {
    let mut at: BTreeMap<BlockKey, String> =
        resolve::expected(request, rules, &lock.skips, &mut Vec::new())
            .unwrap_or_default()
            .into_iter()
            .map(|expected| (expected.key, expected.at))
            .collect();
    // A package that no line names was asked for with its catalog.
    for block in lock.blocks() {
        let key = block.key();
        if let Some(parent) = key.parent().and_then(|parent| at.get(&parent).cloned()) {
            at.entry(key).or_insert(parent);
        }
    }
    at
}

/// Where blocks are asked for, by their text, if the config is at hand and can be read.
fn positions(site: &Site, paths: &Paths, lock: &Lock) -> BTreeMap<String, String> {
    site.quietly(|site| {
        let set = site.config(paths).ok()?;
        let rules = site.rules().ok()?;
        let request = site.request(&set, &paths.config, &rules).ok()?;
        Some(
            asked_at(&request, &rules, lock)
                .into_iter()
                .map(|(key, at)| (key.to_string(), at))
                .collect(),
        )
    })
    .unwrap_or_default()
}

/// `imgbuild audit`
pub(super) fn audit(
    site: &Site,
    arguments: &AuditArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let subject = Subject {
        mapping_file: None,
        config: arguments.config.clone(),
        lock: None,
    };
    let paths = site.paths_in(&subject, arguments.stream.as_deref());
    let stream = site.stream(&paths)?;
    let store = site.store(Access::ReadOnly)?;
    let lock_bytes = match &arguments.lock {
        // Bytes as they are: an auditor wants to be told what is wrong with them.
        Some(name) if Path::new(name).is_file() && carried(Path::new(name))?.is_none() => {
            fs::read(name).map_err(|error| cannot("read the lock", Path::new(name), &error))?
        }
        Some(name) => {
            let found = lock_at(site, Some(&store), name)?;
            if !site.common.quiet && arguments.format == AuditFormat::Text {
                remark(format!("note: auditing the lock of {}", found.name));
            }
            found.bytes
        }
        None => match fs::read(&paths.lock) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::new(
                    ui::STALE,
                    format!("there is no lock at {}", paths.lock.display()),
                )
                .hint("name one with --lock: a file, git:REV:PATH, an archive or STREAM#SEQ"));
            }
            Err(error) => return Err(cannot("read the lock", &paths.lock, &error)),
        },
    };
    let config_bytes = match fs::read(&paths.config) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound && arguments.config.is_none() => None,
        Err(error) => return Err(cannot("read the config", &paths.config, &error)),
    };
    let asks = |lock: &Lock, rules: &Rules| -> audit::Wanted {
        let understood = |failure: Failure| failure.text;
        site.quietly(|site| {
            let set = site.config(&paths).map_err(understood)?;
            let request = site
                .request(&set, &paths.config, rules)
                .map_err(understood)?;
            wanted(&request, rules, lock).map_err(understood)
        })
    };
    let chain_path = delivery::chain_path(&paths, &stream);
    let chain_bytes = match fs::read(&chain_path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(cannot("read the chain", &chain_path, &error)),
    };
    let created = created(arguments)?;
    if arguments.archives.is_empty() && !arguments.seals.require_seal.is_empty() {
        return Err(Failure::new(
            ui::USAGE,
            "--require-seal is about archives, and none are named",
        )
        .hint("add --archives DIR"));
    }
    let keys = trust::public_keys(&arguments.by)?;
    let secret = trust::secret_keys(arguments.attest.as_slice())?;
    let place = arguments
        .registry
        .as_deref()
        .map(|registry| site.destination(registry))
        .transpose()?;
    let shape = place.as_ref().map_or_else(Layout::default, |place| {
        destination::flags(
            site,
            place,
            arguments.layout.as_deref(),
            arguments.max_nested_paths,
        )
    });
    let target = match &place {
        Some(place) => Some(RegistryTarget::new(site.client()?, place.registry.clone())),
        None => None,
    };
    let progress = Progress::new(
        site.common.quiet,
        site.common.verbose > 0,
        site.common.events.as_deref(),
    )?;
    let observer = |event: Event| progress.observe(event);
    let trusted = trust::public_keys(&arguments.seals.require_seal)?;
    let trusted = trust::trust(
        &trusted,
        &arguments.seals.require_seal,
        arguments.seals.threshold,
    )?;
    let report = audit::audit(&audit::Subject {
        lock: &lock_bytes,
        store: &store,
        chain: chain_bytes.as_deref().map(|bytes| (&stream, bytes)),
        config: config_bytes.as_deref().map(|bytes| audit::Config {
            digest: Digest::of(bytes),
            wanted: &asks,
        }),
        destination: place
            .as_ref()
            .zip(target.as_ref())
            .map(|(place, target)| audit::Delivered {
                holdings: target,
                place,
                layout: &shape,
                workers: usize::from(site.common.jobs),
            }),
        archives: &arguments.archives,
        trust: trusted.as_ref(),
        observer: &observer,
        stop,
    });
    progress.finish();
    let report = report.map_err(|error| match &error {
        AuditError::Stopped => Failure::of(ui::INCOMPLETE, &error, None),
        AuditError::Work(_) => Failure::of(ui::ERROR, &error, None),
        AuditError::Store(source) => Failure::of(ui::ERROR, &error, source.hint()),
    })?;
    // What is not sound is no bill of anything; its findings are said below.
    let bill = match (
        bill_of(&lock_bytes, &report, arguments.format, &created),
        arguments.format,
    ) {
        (None, AuditFormat::Json) => {
            let mut out = json!(report);
            out["report"] = json!(report.digest());
            say(out.to_string());
            None
        }
        (None, AuditFormat::Text) => {
            if !site.common.quiet {
                say(report.text().trim_end());
            }
            say(format!("report {}", report.digest()));
            None
        }
        (None, _) => None,
        (Some(bill), _) => {
            say(format!("{bill:#}"));
            Some(bill)
        }
    };
    let statement = match bill.filter(|_| arguments.format == AuditFormat::Slsa) {
        Some(provenance) => provenance.to_string().into_bytes(),
        None => attest::statement(&report),
    };
    if let Some(path) = &arguments.attested {
        let bytes = fs::read(path).map_err(|error| cannot("read the attestation", path, &error))?;
        let signer = attest::check(&statement, &bytes, &keys)
            .map_err(|error| Failure::of(ui::UNVERIFIED, &error, None))?;
        if !site.common.quiet {
            remark(format!(
                "{} is of this report, by key {}",
                path.display(),
                signer.id()
            ));
        }
    }
    if report.is_sound() {
        if let Some(key) = secret.first() {
            let path = arguments
                .output
                .clone()
                .unwrap_or_else(|| PathBuf::from("audit.dsse.json"));
            let bytes = attest::attest(&report, &statement, key)
                .map_err(|error| Failure::of(ui::ERROR, &error, None))?;
            replace(&path, &bytes)
                .map_err(|error| cannot("write the attestation", &path, &error))?;
            if !site.common.quiet {
                remark(format!(
                    "wrote {}, by key {}",
                    path.display(),
                    key.public().id()
                ));
            }
        }
        if arguments.helm {
            let lock = text::parse(&String::from_utf8_lossy(&lock_bytes), "the lock")
                .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
            // What another program makes of a chart is no part of the report, which is equal everywhere.
            return charts::compare(&lock, &store, &|line| match arguments.format {
                AuditFormat::Text => say(line),
                _ => remark(line),
            });
        }
        return Ok(ui::DONE);
    }
    let unanswered = report
        .findings
        .iter()
        .all(|finding| finding.kind == audit::Kind::Unanswered);
    let code = if unanswered {
        ui::ERROR
    } else {
        ui::UNVERIFIED
    };
    let mut lines: Vec<String> = report
        .findings
        .iter()
        .take(LISTED)
        .map(|finding| format!("{} {}: {}", finding.kind, finding.item, finding.what))
        .collect();
    if report.findings.len() > LISTED {
        lines.push(format!("and {} more", report.findings.len() - LISTED));
    }
    Err(Failure::new(
        code,
        format!("the audit has {}:\n  {}", count(report.findings.len(), "finding"), lines.join("\n  ")),
    )
    .hint("lockfiles and chains come back from git, blobs with `imgbuild store fsck` and then `imgbuild build`"))
}

/// A sound audit in the form of other tools, if one of those was asked for.
fn bill_of(
    lock: &[u8],
    report: &audit::Report,
    format: AuditFormat,
    created: &str,
) -> Option<serde_json::Value> {
    // A report on what is no lock is not sound.
    let lock = text::parse(std::str::from_utf8(lock).ok()?, "lock").ok()?;
    match format {
        AuditFormat::Text | AuditFormat::Json => None,
        AuditFormat::Cyclonedx => bill::cyclonedx(&lock, report).ok(),
        AuditFormat::Spdx => bill::spdx(&lock, report, created).ok(),
        AuditFormat::Slsa => bill::slsa(&lock, report).ok(),
    }
}

/// The time of an SPDX document, as SPDX writes it.
fn created(arguments: &AuditArguments) -> Result<String, Failure> {
    let Some(text) = &arguments.created else {
        return Ok(bill::CREATED.to_owned());
    };
    if arguments.format != AuditFormat::Spdx {
        return Err(Failure::new(
            ui::USAGE,
            "--created is the time of an SPDX document, and none is asked for",
        )
        .hint("add --format spdx"));
    }
    text.parse::<jiff::Timestamp>()
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .map_err(|error| {
            Failure::new(ui::USAGE, format!("--created {text:?} is no time: {error}"))
                .hint("write it as 2026-11-20T18:00:00Z")
        })
}

/// The policy of the settings.
pub(super) fn policy(site: &Site) -> Result<Policy, Failure> {
    let rendered = |errors: &config::ConfigErrors| Failure {
        code: ui::ERROR,
        text: errors.render(),
    };
    site.settings
        .check_policy(&policy::KEYS)
        .map_err(|errors| rendered(&errors))?;
    let values = site
        .settings
        .policy
        .iter()
        .map(|(key, value)| (key.as_str(), &value.value));
    Policy::parse(values, &|text| parse_size(text).ok()).map_err(|error| {
        let position = site
            .settings
            .policy
            .get(&error.key)
            .map(|value| value.position)
            .unwrap_or_default();
        let diagnostic = site.settings.error(position, error.to_string(), None);
        match config::ConfigErrors::of([diagnostic]) {
            Some(errors) => rendered(&errors),
            None => Failure::of(ui::ERROR, &error, None),
        }
    })
}

/// Stops if a lock breaks the policy.
pub(super) fn enforce(
    policy: &Policy,
    lock: &Lock,
    asked: &BTreeMap<BlockKey, String>,
) -> Result<(), Failure> {
    refuse(&policy.violations(lock), asked)
}

fn refuse(violations: &[Violation], asked: &BTreeMap<BlockKey, String>) -> Result<(), Failure> {
    if violations.is_empty() {
        return Ok(());
    }
    let mut text = format!(
        "the policy forbids this lock, in {}",
        count(violations.len(), "place")
    );
    for violation in violations.iter().take(LISTED) {
        text.push_str("\n  ");
        if let Some(block) = &violation.block {
            if let Some(at) = asked.get(block) {
                let _ = write!(text, "{at}: ");
            }
            let _ = write!(text, "{block}: ");
        }
        let _ = write!(text, "{} (policy.{})", violation.finding, violation.rule);
    }
    if violations.len() > LISTED {
        let _ = write!(text, "\n  and {} more", violations.len() - LISTED);
    }
    Err(Failure::new(ui::ERROR, text)
        .hint("change what the config asks for, or have [policy] in imgbuild.toml changed; nothing was written"))
}

/// Stops if a lock adds more to what was delivered last than the policy allows.
#[allow(
    clippy::too_many_arguments,
    reason = "what a lock is compared with, and where"
)]
pub(super) fn enforce_growth(
    site: &Site,
    paths: &Paths,
    policy: &Policy,
    previous: Option<&Lock>,
    lock: &Lock,
    store: &Store,
    online: bool,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    if policy.max_growth.is_none() {
        return Ok(());
    }
    let stream = site.stream(paths)?;
    let chain = delivery::chain(&delivery::chain_path(paths, &stream))?;
    let (base, since) = match (chain.last(), previous) {
        (Some(line), previous) => {
            let name = format!("{stream}#{}", line.sequence);
            let base = match previous.filter(|lock| lock.digest() == line.lock) {
                Some(lock) => lock.clone(),
                None => lock_at(site, Some(store), &name)?.lock,
            };
            (base, format!("{stream} seq {}", line.sequence))
        }
        (None, Some(previous)) => (previous.clone(), "the lock that was there".to_owned()),
        // The first delivery is no increment.
        (None, None) => return Ok(()),
    };
    let closure = |lock: &Lock| -> Result<BTreeSet<Blob>, Failure> {
        let plan = if online {
            fetch(site, lock, None, store, Extent::Manifests, stop)?.plan
        } else {
            let places = Places {
                store: Some(store),
                archives: Vec::new(),
            };
            let (plan, absent) = plan_at(lock, &places)?;
            if absent > 0 {
                return Err(Failure::new(
                    ui::ERROR,
                    format!(
                        "policy.max-growth cannot be judged offline: {} are not in the store",
                        count(absent, "manifest")
                    ),
                ));
            }
            plan
        };
        let closure = plan
            .closure()
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
        Ok(closure.sorted().into_iter().collect())
    };
    let (before, after) = (closure(&base)?, closure(lock)?);
    let bytes = after.difference(&before).map(|blob| blob.size).sum();
    refuse(
        &policy.growth(bytes, &since).into_iter().collect::<Vec<_>>(),
        &BTreeMap::new(),
    )
}

/// What `plan --since` compares with: a name for people, and what that lock comes to. Pages are compared with the last
/// archive if nothing is named.
pub(super) fn since(
    site: &Site,
    paths: &Paths,
    arguments: &PlanArguments,
    store: &Store,
    stop: &AtomicBool,
) -> Result<Option<(String, BTreeSet<Digest>)>, Failure> {
    let is_page = matches!(arguments.format, PlanFormat::Html | PlanFormat::Mermaid);
    let name = match &arguments.since {
        Some(name) => name.clone(),
        None if is_page => {
            let stream = site.stream(paths)?;
            let chain = delivery::chain(&delivery::chain_path(paths, &stream))?;
            let Some(line) = chain.last() else {
                return Ok(None);
            };
            let name = format!("{stream}#{}", line.sequence);
            let known = store
                .size_of(&line.lock)
                .map_err(|error| store_failure(&error))?;
            if known.is_none() {
                remark(format!(
                    "note: the lock of {name} is not in the store, so nothing is marked new"
                ));
                return Ok(None);
            }
            name
        }
        None => return Ok(None),
    };
    let found = lock_at(site, Some(store), &name)?;
    let places = Places {
        store: Some(store),
        archives: found.archive.iter().map(Set::blobs).collect(),
    };
    let (mut plan, absent) = plan_at(&found.lock, &places)?;
    if absent > 0 {
        if arguments.offline {
            return Err(Failure::new(
                ui::INCOMPLETE,
                format!(
                    "what is new since {name} cannot be told: {} of it are not here",
                    count(absent, "manifest")
                ),
            )
            .hint("run it without --offline, which fetches them"));
        }
        plan = fetch(site, &found.lock, None, store, Extent::Manifests, stop)?.plan;
    }
    let closure = plan
        .closure()
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    let blobs = closure.sorted().iter().map(|blob| blob.digest).collect();
    Ok(Some((name, blobs)))
}

/// Two stores as one: what is there is read from the first, what is new is written to the second.
struct Overlay<'a> {
    below: Option<&'a Store>,
    above: &'a Store,
}

impl Source for Overlay<'_> {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        if let Some(below) = self.below
            && let Some(bytes) = below.open(blob, from)?
        {
            return Ok(Some(bytes));
        }
        self.above.open(blob, from)
    }
}

impl Sink for Overlay<'_> {
    fn holds(&self, blob: &Blob) -> io::Result<bool> {
        if let Some(below) = self.below
            && below.holds(blob)?
        {
            return Ok(true);
        }
        self.above.holds(blob)
    }

    fn write(&self, blob: &Blob, bytes: &mut Verified<'_>) -> io::Result<()> {
        self.above.write(blob, bytes)
    }
}

impl Memo for Overlay<'_> {
    fn get(&self, key: &Key) -> io::Result<Option<Vec<Output>>> {
        match self.below.map(|below| below.memo().get(key)) {
            Some(Ok(Some(outputs))) => Ok(Some(outputs)),
            Some(Err(error)) => Err(error),
            Some(Ok(None)) | None => self.above.memo().get(key),
        }
    }

    fn put(&self, key: &Key, outputs: &[Output]) -> io::Result<()> {
        self.above.memo().put(key, outputs)
    }
}

impl Depot for Overlay<'_> {
    fn size_of(&self, digest: &Digest) -> io::Result<Option<u64>> {
        if let Some(below) = self.below
            && let Some(size) = below.size_of(digest)?
        {
            return Ok(Some(size));
        }
        Ok(self.above.size_of(digest)?)
    }

    fn scratch(&self) -> io::Result<std::fs::File> {
        Ok(self.above.scratch()?)
    }
}

/// Names, and how often nobody could be asked.
struct Watched<'a> {
    names: &'a dyn Names,
    failures: AtomicUsize,
}

impl Watched<'_> {
    fn seen<T>(&self, answer: io::Result<T>) -> io::Result<T> {
        if answer.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }
}

impl Names for Watched<'_> {
    fn resolve(&self, name: &ImageName) -> io::Result<Option<Answer>> {
        self.seen(self.names.resolve(name))
    }

    fn get(&self, address: &Address, limit: u64) -> io::Result<Option<Vec<u8>>> {
        self.seen(self.names.get(address, limit))
    }

    fn referrers(&self, repository: &Repository, digest: &Digest) -> io::Result<Vec<Digest>> {
        self.seen(self.names.referrers(repository, digest))
    }

    fn tags(&self, repository: &Repository) -> io::Result<Option<Vec<Tag>>> {
        self.seen(self.names.tags(repository))
    }
}

/// `imgbuild lock --check --deep`: every list must follow from the bytes that are pinned.
pub(super) fn deep(
    site: &Site,
    paths: &Paths,
    set: &ImageSet,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let (lock, _) = site.lock(&paths.lock)?;
    let store = site.store(Access::Shared)?;
    let rules = site.rules_of(&lock, Some(&store))?;
    let request = site.quietly(|site| site.request(set, &paths.config, &rules))?;
    let live = site.upstream()?;
    let progress = Progress::new(
        site.common.quiet,
        site.common.verbose > 0,
        site.common.events.as_deref(),
    )?;
    let observer = |event| progress.observe(event);
    observer(Event::Phase { phase: "lock" });
    let complaints = resolve::recheck(
        &request,
        &lock,
        &Resolver {
            rules: &rules,
            names: None,
            upstream: &live,
            store: &store,
            limits: site.limits(),
            observer: &observer,
            stop,
            services: site.services()?,
            evidence: &|_, _| (),
            within: None,
        },
    );
    progress.finish();
    let path = paths.lock.display();
    let complaints = complaints.map_err(|error| resolve_failure(&error))?;
    if complaints.is_empty() {
        if !site.common.quiet {
            say(format!(
                "{path}: every list follows from what is pinned ({}, {})",
                count(lock.releases.len(), "release"),
                count(lock.charts.len(), "chart")
            ));
        }
        return Ok(());
    }
    Err(Failure::new(
        ui::STALE,
        format!(
            "{path} lists other images than what it pins needs:\n  {}",
            complaints.join("\n  ")
        ),
    )
    .hint("the lock was edited, or made by another version of a rule; `imgbuild lock --update` makes the lists again"))
}

/// `imgbuild lock --check --upstream`: what another `lock --update` would change. Nothing is written.
pub(super) fn drift(
    site: &Site,
    paths: &Paths,
    set: &ImageSet,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let (lock, _) = site.lock(&paths.lock)?;
    let store = store_if_any(site)?;
    let rules = site.rules_of(&lock, store.as_ref())?;
    let request = site.quietly(|site| site.request(set, &paths.config, &rules))?;
    let live = site.upstream()?;
    let scratch = tempfile::tempdir().map_err(|error| {
        Failure::new(
            ui::ERROR,
            format!("cannot make a temporary folder: {error}"),
        )
    })?;
    let above =
        Store::open(scratch.path(), Access::Shared).map_err(|error| store_failure(&error))?;
    let depot = Overlay {
        below: store.as_ref(),
        above: &above,
    };
    let names = Watched {
        names: &live,
        failures: AtomicUsize::new(0),
    };
    let answers: Mutex<BTreeMap<String, Option<Digest>>> = Mutex::default();
    let evidence = |question: &str, digest: Option<Digest>| {
        answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(question.to_owned(), digest);
    };
    let progress = Progress::new(
        site.common.quiet,
        site.common.verbose > 0,
        site.common.events.as_deref(),
    )?;
    let observer = |event| progress.observe(event);
    observer(Event::Phase { phase: "lock" });
    let resolver = Resolver {
        rules: &rules,
        names: Some(&names),
        within: None,
        upstream: &live,
        store: &depot,
        limits: site.limits(),
        observer: &observer,
        stop,
        services: site.services()?,
        evidence: &evidence,
    };
    let now = resolve::lock(&request, Some(&lock), &|_| true, &resolver);
    progress.finish();
    let path = paths.lock.display();
    let drifted = |text: String| {
        Failure::new(ui::STALE, format!("{path} has drifted from upstream:\n  {}", text.replace('\n', "\n  ")))
            .hint("what is locked stays as it is; `imgbuild lock --update` takes what is there now, for review")
    };
    match now {
        Ok(now) => {
            let difference = diff::diff(&lock, &now.lock, None);
            if difference.is_empty() {
                if !site.common.quiet {
                    say(format!("{path}: nothing has moved upstream"));
                }
                return Ok(ui::DONE);
            }
            Err(drifted(difference.text().trim_end().to_owned()))
        }
        // Names that mean nothing any more are drift; names that nobody could be asked about are an error.
        Err(ResolveError::Unanswered { problems, .. })
            if names.failures.load(Ordering::Relaxed) == 0 =>
        {
            let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
            let mut lines: Vec<String> = problems
                .into_iter()
                .map(|(at, problem)| format!("{at}: {}", problem.text))
                .collect();
            for expected in resolve::expected(&request, &rules, &lock.skips, &mut Vec::new())
                .unwrap_or_default()
            {
                let pinned = lock
                    .find(&expected.key)
                    .and_then(|block| block.pins().first().map(|(_, pin)| pin.digest));
                let Some(image) = &expected.image else {
                    continue;
                };
                if let (Some(pinned), Some(Some(found))) = (pinned, answers.get(&image.to_string()))
                    && pinned != *found
                {
                    lines.push(format!(
                        "{}: {image} has moved: {found} <- {pinned}",
                        expected.at
                    ));
                }
            }
            Err(drifted(lines.join("\n")))
        }
        Err(error) => Err(resolve_failure(&error)),
    }
}

/// Largest list of tags that is read again.
const TAGS_LIMIT: u64 = 64 << 20;

/// Names as an evidence log has them: the last answer to a question counts.
pub(super) struct Replay<'a> {
    path: PathBuf,
    answers: BTreeMap<String, Option<Digest>>,
    live: &'a Live,
    store: &'a Store,
}

/// What an evidence log does not say.
#[derive(Debug, thiserror::Error)]
#[error("{} has no answer for it", path.display())]
struct Unheard {
    path: PathBuf,
}

impl<'a> Replay<'a> {
    /// Reads an evidence log.
    pub(super) fn read(path: &Path, live: &'a Live, store: &'a Store) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)
            .map_err(|error| cannot("read the evidence log", path, &error))?;
        let mut answers = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let wrong = |what: &str| {
                Failure::new(
                    ui::ERROR,
                    format!("{}:{}: {what}", path.display(), number + 1),
                )
                .hint("an evidence log has lines of JSON, as imgbuild/evidence.jsonl in the store")
            };
            let entry: serde_json::Value = serde_json::from_str(line)
                .map_err(|error| wrong(&format!("this is not JSON: {error}")))?;
            let question = entry["question"]
                .as_str()
                .ok_or_else(|| wrong("there is no question"))?;
            let digest = match &entry["digest"] {
                serde_json::Value::Null => None,
                digest => Some(
                    digest
                        .as_str()
                        .and_then(|text| text.parse().ok())
                        .ok_or_else(|| wrong("the digest is none"))?,
                ),
            };
            answers.insert(question.to_owned(), digest);
        }
        Ok(Self {
            path: path.to_owned(),
            answers,
            live,
            store,
        })
    }

    fn answer(&self, name: &ImageName) -> io::Result<Option<Answer>> {
        let Some(digest) = self.answers.get(&name.to_string()) else {
            return Err(io::Error::other(Unheard {
                path: self.path.clone(),
            }));
        };
        let Some(digest) = *digest else {
            return Ok(None);
        };
        // The name has been answered; what is asked for now are bytes whose digest is known.
        let (origin, pinned) = match name {
            ImageName::Registry(name) => (
                PinOrigin::Registry(name.repository.clone()),
                ImageName::Registry(Reference {
                    repository: name.repository.clone(),
                    tag: None,
                    digest: Some(digest),
                }),
            ),
            ImageName::Layout(name) => (
                PinOrigin::Layout(name.path.clone()),
                ImageName::Layout(LayoutName {
                    path: name.path.clone(),
                    tag: None,
                    digest: Some(digest),
                }),
            ),
        };
        if let Some(size) = self.store.size_of(&digest).map_err(io::Error::from)? {
            let bytes = read(self.store, &Blob { digest, size }, MANIFEST_LIMIT)
                .map_err(io::Error::other)?;
            return Ok(Some(Answer {
                origin,
                media_type: None,
                bytes,
            }));
        }
        self.live.resolve(&pinned)
    }
}

impl Names for Replay<'_> {
    fn referrers(&self, repository: &Repository, digest: &Digest) -> io::Result<Vec<Digest>> {
        let question = Observe::Referrers(repository.clone(), *digest).to_string();
        let Some(Some(list)) = self.answers.get(&question) else {
            return Err(io::Error::other(Unheard {
                path: self.path.clone(),
            }));
        };
        let gone = || io::Error::other(format!("{list}, the answer to it, is not in the store"));
        let size = self.store.size_of(list).map_err(io::Error::from)?;
        let blob = Blob {
            digest: *list,
            size: size.ok_or_else(gone)?,
        };
        let bytes = read(self.store, &blob, MANIFEST_LIMIT).map_err(io::Error::other)?;
        let text = String::from_utf8_lossy(&bytes);
        text.lines()
            .map(|line| line.parse().map_err(|_| gone()))
            .collect()
    }

    fn resolve(&self, name: &ImageName) -> io::Result<Option<Answer>> {
        self.answer(name)
    }

    fn get(&self, address: &Address, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(digest) = self.answers.get(&address.to_string()) else {
            return Err(io::Error::other(Unheard {
                path: self.path.clone(),
            }));
        };
        let Some(digest) = *digest else {
            return Ok(None);
        };
        if let Some(size) = self.store.size_of(&digest).map_err(io::Error::from)? {
            return read(self.store, &Blob { digest, size }, limit)
                .map(Some)
                .map_err(io::Error::other);
        }
        // Nothing asks for a plain file by digest; what is there now may still be what was there then.
        let bytes = self.live.get(address, limit)?;
        match bytes {
            Some(bytes) if Digest::of(&bytes) == digest => Ok(Some(bytes)),
            _ => Err(io::Error::other(format!(
                "{address} is no longer {digest}, which is not in the store"
            ))),
        }
    }

    fn tags(&self, repository: &Repository) -> io::Result<Option<Vec<Tag>>> {
        let question = Observe::Tags(repository.clone()).to_string();
        let Some(digest) = self.answers.get(&question) else {
            return Err(io::Error::other(Unheard {
                path: self.path.clone(),
            }));
        };
        let Some(digest) = *digest else {
            return Ok(None);
        };
        if let Some(size) = self.store.size_of(&digest).map_err(io::Error::from)? {
            let bytes =
                read(self.store, &Blob { digest, size }, TAGS_LIMIT).map_err(io::Error::other)?;
            let tags = String::from_utf8_lossy(&bytes)
                .lines()
                .map(str::parse)
                .collect::<Result<Vec<Tag>, _>>()
                .map_err(io::Error::other)?;
            return Ok(Some(tags));
        }
        match self.live.tags(repository)? {
            Some(tags) if Digest::of(tag_list(&tags).as_bytes()) == digest => Ok(Some(tags)),
            _ => Err(io::Error::other(format!(
                "{question} are no longer {digest}, which is not in the store"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_do_not_change_what_is_said() {
        let text = "image ~ a\n  + b\n  - c\n  ~ d\n  = e\nin all: +1\n";
        let painted = paint(text);
        for (line, colour) in text.lines().zip(["1", "32", "31", "33", "2", "1"]) {
            assert!(
                painted.contains(&format!("\x1b[{colour}m{line}\x1b[0m\n")),
                "{line:?} has colour {colour} in {painted:?}"
            );
        }
    }

    #[test]
    fn a_list_of_any_form_gives_its_digests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let digest = Digest::of(b"a");
        let other = Digest::of(b"b");
        let text = format!(
            "CVE-2026-1,quay.io/a/b@{digest}\n{{\"d\":\"{}\"}}\nnot {}0\n",
            other.hex().to_uppercase(),
            Digest::of(b"c").hex()
        );
        fs::write(&path, text).unwrap();
        let found = mentioned(&path).ok().expect("there are digests");
        assert_eq!(
            found,
            BTreeSet::from([digest, other]),
            "whole digests only, in either case"
        );
        fs::write(&path, "none").unwrap();
        assert_eq!(
            mentioned(&path).err().map(|failure| failure.code),
            Some(ui::USAGE),
            "an empty list is a mistake"
        );
    }

    #[test]
    fn a_stream_and_its_sequence_are_told_from_paths() {
        assert_eq!(
            in_stream("prod#3").map(|(stream, sequence)| (stream.to_string(), sequence)),
            Some(("prod".to_owned(), 3)),
            "this is one"
        );
        for text in ["prod", "prod#", "prod#x", "a/b#3", "#3"] {
            assert!(in_stream(text).is_none(), "{text:?} is none");
        }
    }
}
