//! `lock`, `diff`, `why`, `plan`, `build`: everything before an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::arguments::{BuildArguments, LockArguments, PlanArguments, PlanFormat};
use super::review;
use super::site::{Paths, Site, cannot, compare, lock_failure, store_failure};
use super::ui::{self, Failure, Progress, count, remark, say};
use crate::deliver::emit::replace;
use crate::deliver::export::{self, Ask};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::{Descriptor, REF_NAME};
use crate::plan::graph::{Closure, Plan, Root};
use crate::plan::key::BlockKey;
use crate::plan::lock::{Lock, Want};
use crate::plan::page::{self, Since};
use crate::plan::policy::Policy;
use crate::plan::selector::Selector;
use crate::plan::shares::{Share, shares};
use crate::plan::{diff, text};
use crate::run::built::{self, BuildError, Built};
use crate::run::event::{Event, advice, joined_advice, one_line};
use crate::run::realise::{Extent, Report, realise};
use crate::run::resolve::within::Vetted;
use crate::run::resolve::{self, Names, Request, ResolveError, Resolver};
use crate::step::place::Layout;
use crate::step::rule::Rules;
use crate::store::disk::{Access, Store};
use crate::store::roots::{Kind as RootKind, Root as StoreRoot};
use crate::store::{Blob, Sink, Source};

/// `imgbuild lock`
pub(super) fn lock(
    site: &Site,
    arguments: &LockArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let paths = site.paths(&arguments.subject);
    let set = site.config(&paths)?;
    let policy = review::policy(site)?;
    if arguments.check {
        let code = check(site, &paths, &set, &policy, arguments.within.as_deref())?;
        if arguments.deep {
            review::deep(site, &paths, &set, stop)?;
        }
        if arguments.upstream {
            return review::drift(site, &paths, &set, stop);
        }
        return Ok(code);
    }
    let selectors = arguments
        .update
        .iter()
        .flatten()
        .map(|text| {
            text.parse::<Selector>()
                .map_err(|error| Failure::of(ui::USAGE, &error, error.hint()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    // A replay repeats a decision, and that is every answer of it.
    let everything =
        arguments.update.as_ref().is_some_and(Vec::is_empty) || arguments.replay.is_some();
    let store = site.store(Access::Shared)?;
    let (previous, disputed) = previous(&paths.lock)?;
    let rules = rules_for(
        site,
        previous.as_ref(),
        arguments.update.as_ref().is_some_and(Vec::is_empty)
            || selectors
                .iter()
                .any(|selector| matches!(selector, Selector::Rules)),
        &store,
    )?;
    let mut request = site.request(&set, &paths.config, &rules)?;
    if let Some(reason) = &arguments.reason {
        request.skips = arguments
            .skip
            .iter()
            .map(|image| (image.clone(), reason.clone()))
            .collect();
    }
    request.risks.clone_from(&arguments.accept_risk);
    request.adds_required = arguments.add_required;
    if let (false, Some(previous)) = (selectors.is_empty(), &previous) {
        for (selector, written) in selectors.iter().zip(arguments.update.iter().flatten()) {
            let matches = matches!(selector, Selector::Rules)
                || previous
                    .blocks()
                    .any(|block| selector.matches(&block.key()));
            if !matches {
                return Err(Failure::new(
                    ui::USAGE,
                    format!(
                        "--update {written} matches no block of {}",
                        paths.lock.display()
                    ),
                ));
            }
        }
    }
    let renew =
        |key: &BlockKey| everything || selectors.iter().any(|selector| selector.matches(key));
    let progress = Progress::new(
        site.common.quiet,
        site.common.verbose > 0,
        site.common.events.as_deref(),
    )?;
    let observer = |event| progress.observe(event);
    observer(Event::Phase { phase: "lock" });
    let live = site.upstream()?;
    let replay = arguments
        .replay
        .as_deref()
        .map(|path| review::Replay::read(path, &live, &store))
        .transpose()?;
    let names: &dyn Names = match &replay {
        Some(replay) => replay,
        None => &live,
    };
    let other = arguments
        .within
        .as_deref()
        .map(|name| review::lock_called(site, Some(&store), name))
        .transpose()?;
    let vetted = match (&other, &arguments.within) {
        (Some(lock), Some(name)) => Some(Vetted::new(lock, name)),
        _ => None,
    };
    // Where another lock answers, only an update service that is named on purpose is asked.
    let asks = !arguments.offline && (vetted.is_none() || site.graph_override().is_some());
    let evidence = |question: &str, digest: Option<Digest>| {
        if replay.is_some() {
            return;
        }
        let answer = json!({ "time": jiff::Timestamp::now().to_string(), "question": question, "digest": digest });
        if let Err(error) = store.evidence().append(&answer.to_string()) {
            remark(format!(
                "warning: the answer for {question} is not in the evidence log: {}",
                one_line(&error)
            ));
        }
    };
    let resolver = Resolver {
        rules: &rules,
        names: asks.then_some(names),
        within: vetted.as_ref(),
        upstream: &live,
        store: &store,
        limits: site.limits(),
        observer: &observer,
        stop,
        services: site.services()?,
        evidence: &evidence,
    };
    let locked = resolve::lock(&request, previous.as_ref(), &renew, &resolver);
    progress.finish();
    let locked = locked.map_err(|error| resolve_failure(&error))?;
    let asked = review::asked_at(&request, &rules, &locked.lock);
    review::enforce(&policy, &locked.lock, &asked)?;
    review::enforce_growth(
        site,
        &paths,
        &policy,
        previous.as_ref(),
        &locked.lock,
        &store,
        !arguments.offline,
        stop,
    )?;
    let written = text::emit(&locked.lock);
    // What another machine needs to read this lock stays with it.
    let lock_blob = store
        .insert(written.as_bytes())
        .map_err(|error| store_failure(&error))?;
    for rule in rules
        .iter()
        .filter(|rule| locked.lock.rules.contains_key(&rule.name))
    {
        store
            .insert(rule.text.as_bytes())
            .map_err(|error| store_failure(&error))?;
    }
    if let Some(folder) = paths
        .lock
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
    }
    let changed = replace(&paths.lock, written.as_bytes())
        .map_err(|error| cannot("write the lock", &paths.lock, &error))?;
    keep_working(&store, &paths.lock, lock_blob)?;
    if site.common.quiet {
        return Ok(ui::DONE);
    }
    for note in &locked.notes {
        remark(format!("note: {note}"));
    }
    for key in &disputed {
        remark(format!(
            "note: {key} was in conflict and has been resolved anew"
        ));
    }
    for rule in newer_rules(site, &locked.lock)? {
        remark(format!(
            "note: a newer rule {rule} came with this program; `imgbuild lock --update rules` takes it"
        ));
    }
    let path = paths.lock.display();
    if changed {
        say(format!(
            "{path}: {}: {} new, {} moved, {} the same",
            count(locked.new + locked.moved + locked.same, "pin"),
            locked.new,
            locked.moved,
            locked.same
        ));
        if let Some(previous) = previous {
            say(diff::diff(&previous, &locked.lock, None).text().trim_end());
        }
    } else {
        say(format!(
            "{path}: nothing changed ({})",
            count(locked.same, "pin")
        ));
    }
    Ok(ui::DONE)
}

/// The lock that is there, and the blocks that a merge left in conflict.
fn previous(path: &Path) -> Result<(Option<Lock>, Vec<BlockKey>), Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, Vec::new())),
        Err(error) => return Err(cannot("read the lock", path, &error)),
    };
    let conflicted = text::parse_conflicted(&text, &path.display().to_string())
        .map_err(|error| lock_failure(&error))?;
    let mut lock = conflicted.lock;
    if lock.is_newer() {
        return Err(Failure::new(
            ui::ERROR,
            format!(
                "{} was written by a newer imgbuild; this one reads it but does not rewrite it",
                path.display()
            ),
        )
        .hint("upgrade imgbuild"));
    }
    for key in &conflicted.disputed {
        match key {
            BlockKey::Rule { name } => {
                lock.rules.remove(name);
            }
            key => {
                lock.remove(key);
            }
        }
    }
    Ok((Some(lock), conflicted.disputed))
}

/// The rules to lock with: those the lock names, and the rules in force for what it does not name.
fn rules_for(
    site: &Site,
    previous: Option<&Lock>,
    renew: bool,
    store: &Store,
) -> Result<Rules, Failure> {
    let current = site.rules()?;
    let Some(previous) = previous.filter(|_| !renew) else {
        return Ok(current);
    };
    let mut texts: BTreeMap<String, String> = current
        .iter()
        .map(|rule| (rule.name.clone(), rule.text.clone()))
        .collect();
    texts.extend(
        site.rules_of(previous, Some(store))?
            .iter()
            .map(|rule| (rule.name.clone(), rule.text.clone())),
    );
    Rules::with(texts).map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))
}

/// The rules that come with the program and differ from those that a lock names.
fn newer_rules(site: &Site, lock: &Lock) -> Result<Vec<String>, Failure> {
    let current = site.rules()?;
    Ok(current
        .iter()
        .filter(|rule| {
            lock.rules
                .get(&rule.name)
                .is_some_and(|digest| *digest != rule.digest())
        })
        .map(|rule| rule.name.clone())
        .collect())
}

pub(super) fn resolve_failure(error: &ResolveError) -> Failure {
    match error {
        ResolveError::Incomplete { report } => incomplete(report),
        ResolveError::Stopped => Failure::of(
            ui::INCOMPLETE,
            error,
            Some("run the same command again to go on".to_owned()),
        ),
        error if error.is_trust() => Failure::of(ui::UNVERIFIED, error, error.hint()),
        error => Failure::of(ui::ERROR, error, error.hint()),
    }
}

/// A run that did not bring everything, grouped by root cause.
pub(super) fn incomplete(report: &Report) -> Failure {
    if report.stopped && report.failures.is_empty() {
        return Failure::new(ui::INCOMPLETE, "stopped; what was fetched is kept")
            .hint("run the same command again to go on");
    }
    let mut text = format!("{} did not arrive", count(report.failures.len(), "blob"));
    for (cause, failures) in report.by_cause() {
        let _ = write!(text, "\n\n  {cause}");
        for failure in failures.iter().take(10) {
            let _ = write!(text, "\n    {}", one_line(&failure.error));
            if !failure.owners.is_empty() {
                let _ = write!(text, "\n      needed by {}", some(&failure.owners));
            }
        }
        if failures.len() > 10 {
            let _ = write!(text, "\n    and {} more", failures.len() - 10);
        }
    }
    let hint = joined_advice(
        report
            .failures
            .iter()
            .map(|failure| advice(&failure.error))
            .chain([None]),
        "what did arrive is kept: run the same command again to fetch only the rest, or leave an image out with `imgbuild lock --skip IMAGE --reason TEXT`",
    );
    Failure::new(ui::INCOMPLETE, text).hint(hint)
}

fn some(names: &[String]) -> String {
    match names.len() {
        0..=3 => names.join(", "),
        more => format!("{} and {} more", names[..3].join(", "), more - 3),
    }
}

/// Keeps what a working lock needs from being collected.
fn keep_working(store: &Store, path: &Path, lock: Blob) -> Result<(), Failure> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let root = StoreRoot {
        kind: RootKind::Working,
        lock,
    };
    store
        .roots()
        .set(&absolute.display().to_string(), &root)
        .map_err(|error| store_failure(&error))
}

/// What a config asks of a lock.
pub(super) fn wanted(
    request: &Request,
    rules: &Rules,
    lock: &Lock,
) -> Result<BTreeMap<BlockKey, Want>, Failure> {
    let expected = resolve::expected(request, rules, &lock.skips, &mut Vec::new())
        .map_err(|error| resolve_failure(&error))?;
    let blocked = request
        .blocked
        .iter()
        .map(|name| (BlockKey::Blocked { name: name.clone() }, Want::default()));
    Ok(expected
        .into_iter()
        .map(|expected| (expected.key, expected.want))
        .chain(blocked)
        .collect())
}

/// `imgbuild lock --check`
fn check(
    site: &Site,
    paths: &Paths,
    set: &crate::config::ImageSet,
    policy: &Policy,
    within: Option<&str>,
) -> Result<u8, Failure> {
    let (lock, bytes) = site.lock(&paths.lock)?;
    let store_path = site.store_path()?;
    let store = if store_path.exists() {
        Some(site.store(Access::ReadOnly)?)
    } else {
        None
    };
    let mut complaints = Vec::new();
    let text = String::from_utf8_lossy(&bytes);
    if let Err(error) = text::is_canonical(&text, &lock) {
        complaints.push(error.to_string());
    }
    let rules = site.rules_of(&lock, store.as_ref())?;
    complaints.extend(stale(site, &lock, set, paths, &rules)?);
    match resolve::placements(&lock, &[], &rules, &Layout::default()) {
        Ok(placements) => {
            if let Err(error) =
                crate::step::place::refuse_collisions(&placements, "", &Layout::default())
            {
                complaints.push(error.to_string());
            }
        }
        Err(error) => complaints.push(error.to_string()),
    }
    if let Some(name) = within {
        let other = review::lock_called(site, store.as_ref(), name)?;
        let vetted = Vetted::new(&other, name);
        complaints.extend(lock.blocks().filter_map(|block| {
            let image = vetted.missing(&block)?;
            Some(format!("{}: {name} does not pin {image}", block.key()))
        }));
    }
    let path = paths.lock.display();
    if complaints.is_empty() {
        if !policy.is_empty() {
            let request = site.quietly(|site| site.request(set, &paths.config, &rules))?;
            review::enforce(policy, &lock, &review::asked_at(&request, &rules, &lock))?;
        }
        if !site.common.quiet {
            for rule in newer_rules(site, &lock)? {
                remark(format!(
                    "note: a newer rule {rule} came with this program; `imgbuild lock --update rules` takes it"
                ));
            }
            say(format!("{path} answers {}", paths.config.display()));
        }
        return Ok(ui::DONE);
    }
    Err(Failure::new(
        ui::STALE,
        format!(
            "{path} does not answer {}:\n  {}",
            paths.config.display(),
            complaints.join("\n  ")
        ),
    )
    .hint("run `imgbuild lock` and review what changes"))
}

/// What a lock lacks to answer its config.
fn stale(
    site: &Site,
    lock: &Lock,
    set: &crate::config::ImageSet,
    paths: &Paths,
    rules: &Rules,
) -> Result<Vec<String>, Failure> {
    let request = site.request(set, &paths.config, rules)?;
    let complaints = compare(lock, &wanted(&request, rules, lock)?);
    Ok(complaints)
}

/// Reads the lock of a command that builds, and makes sure that it answers its config (exit 3 if not).
pub(super) fn matching(
    site: &Site,
    paths: &Paths,
    named: bool,
    store: &Store,
) -> Result<(Lock, Vec<u8>, Rules), Failure> {
    let (lock, bytes) = site.lock(&paths.lock)?;
    let rules = site.rules_of(&lock, Some(store))?;
    if paths.config.exists() || named {
        let set = site.config(paths)?;
        let request = site.request(&set, &paths.config, &rules)?;
        let complaints = compare(&lock, &wanted(&request, &rules, &lock)?);
        keep_files(store, &lock, &request)?;
        if !complaints.is_empty() {
            let text = format!(
                "{} does not answer {}:\n  {}",
                paths.lock.display(),
                paths.config.display(),
                complaints.join("\n  ")
            );
            return Err(Failure::new(ui::STALE, text)
                .hint("run `imgbuild lock`, review what changes, then run this again"));
        }
    } else if !site.common.quiet {
        remark(format!(
            "note: {} is not here, so the lock is taken as it is",
            paths.config.display()
        ));
    }
    Ok((lock, bytes, rules))
}

/// Keeps the files at hand that a lock names: what was not fetched from anywhere is only here.
fn keep_files(store: &Store, lock: &Lock, request: &Request) -> Result<(), Failure> {
    let named: BTreeSet<Digest> = lock.file_pins().map(|(_, blob)| blob.digest).collect();
    for (_, bytes) in &request.files {
        let blob = Blob::of(bytes);
        if named.contains(&blob.digest)
            && store.access() != Access::ReadOnly
            && !Sink::holds(store, &blob).unwrap_or(false)
        {
            store.insert(bytes).map_err(|error| store_failure(&error))?;
        }
    }
    Ok(())
}

/// Makes the plan of a lock, and of what was made of it, from the manifests that a place has.
pub(super) fn plan_of(
    lock: &Lock,
    built: &[Built],
    source: &dyn Source,
    sink: &dyn Sink,
) -> Result<Plan, Failure> {
    export::plan_from(lock, built, source, sink)
        .map_err(|error| Failure::of(ui::ERROR, &error, None))
}

/// What came of fetching and building.
pub(super) struct Fetched {
    /// Everything that the lock comes to.
    pub plan: Plan,
    /// What was made here.
    pub built: Vec<Built>,
    /// How the fetching went.
    pub report: Report,
}

/// Fetches what a lock needs into the store; where that is all of it, and its rules are given, makes what is to be made
/// of it as well. Otherwise what was made before is known again.
pub(super) fn fetch(
    site: &Site,
    lock: &Lock,
    rules: Option<&Rules>,
    store: &Store,
    extent: Extent,
    stop: &AtomicBool,
) -> Result<Fetched, Failure> {
    let mut plan = Plan::of(resolve::roots(lock, &[]))
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    let live = site.upstream()?;
    let progress = Progress::new(
        site.common.quiet,
        site.common.verbose > 0,
        site.common.events.as_deref(),
    )?;
    let observer = |event| progress.observe(event);
    observer(Event::Phase { phase: "build" });
    let report = realise(
        &mut plan,
        extent,
        &live,
        store,
        site.limits(),
        &observer,
        stop,
    );
    let report = report.map_err(|error| {
        progress.finish();
        io_failure("the store cannot be used", &error)
    })?;
    if report.stopped || !report.failures.is_empty() {
        progress.finish();
        return Err(incomplete(&report));
    }
    let built = match (extent, rules) {
        (Extent::All, Some(rules)) => built::make(
            lock,
            rules,
            &built::Means {
                store,
                upstream: &live,
                limits: site.limits(),
                observer: &observer,
                stop,
            },
        ),
        _ => built::remembered(lock, store),
    };
    progress.finish();
    let built = built.map_err(|error| unbuilt(&error))?;
    if !built.is_empty() {
        plan = plan_of(lock, &built, store, store)?;
    }
    Ok(Fetched {
        plan,
        built,
        report,
    })
}

/// What could not be made here.
pub(super) fn unbuilt(error: &BuildError) -> Failure {
    let code = match error {
        BuildError::Stopped | BuildError::Input { .. } => ui::INCOMPLETE,
        _ => ui::ERROR,
    };
    Failure::of(code, error, error.hint())
}

/// An error of a place, with the advice of the store where it has one.
pub(super) fn io_failure(what: &str, error: &io::Error) -> Failure {
    let hint = crate::store::StoreError::in_error(error).and_then(Hint::hint);
    let mut failure = Failure::new(ui::ERROR, what);
    let _ = write!(failure.text, "\n  because {}", one_line(error));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// `imgbuild build`
pub(super) fn build(
    site: &Site,
    arguments: &BuildArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let paths = site.paths(&arguments.subject);
    let store = site.store(Access::Shared)?;
    let (lock, bytes, rules) = matching(site, &paths, arguments.subject.is_named(), &store)?;
    let Fetched {
        plan,
        built,
        report,
    } = fetch(site, &lock, Some(&rules), &store, Extent::All, stop)?;
    finish_build(&store, &paths, &lock, &bytes, &rules, &plan)?;
    if !site.common.quiet {
        say(format!(
            "{}: {} in the store, {} fetched ({})",
            paths.lock.display(),
            count(
                usize::try_from(report.present + report.fetched).unwrap_or(usize::MAX),
                "blob"
            ),
            report.fetched,
            ui::bytes(report.bytes)
        ));
        for image in &built {
            say(format!(
                "  built {} for {}",
                image.blob.digest, image.reference
            ));
        }
    }
    Ok(ui::DONE)
}

/// What every build leaves behind: the lock and its rules in the store, a root, and the index that other tools read.
pub(super) fn finish_build(
    store: &Store,
    paths: &Paths,
    lock: &Lock,
    bytes: &[u8],
    rules: &Rules,
    plan: &Plan,
) -> Result<(), Failure> {
    let blob = store.insert(bytes).map_err(|error| store_failure(&error))?;
    for rule in rules.iter() {
        store
            .insert(rule.text.as_bytes())
            .map_err(|error| store_failure(&error))?;
    }
    keep_working(store, &paths.lock, blob)?;
    let mut index = store.index().map_err(|error| store_failure(&error))?;
    let ours = export::index(lock, plan);
    let name = |image: &Descriptor| image.annotations.get(REF_NAME).cloned();
    let names: BTreeSet<Option<String>> = ours.iter().map(name).collect();
    index.retain(|image| !names.contains(&name(image)));
    index.extend(ours);
    store
        .write_index(&index)
        .map_err(|error| store_failure(&error))
}

/// `imgbuild plan`
pub(super) fn plan(
    site: &Site,
    arguments: &PlanArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let paths = site.paths_in(&arguments.subject, arguments.stream.as_deref());
    let store = site.store(if arguments.offline {
        Access::ReadOnly
    } else {
        Access::Shared
    })?;
    let (lock, bytes, rules) = matching(site, &paths, arguments.subject.is_named(), &store)?;
    let (plan, built) = if arguments.offline {
        let built = built::known(&lock, &rules, &store).map_err(|error| unbuilt(&error))?;
        (plan_of(&lock, &built, &store, &store)?, built)
    } else {
        let fetched = fetch(site, &lock, Some(&rules), &store, Extent::Manifests, stop)?;
        (fetched.plan, fetched.built)
    };
    super::emission::dry_run(site, arguments, &lock, &built, &rules, &plan, &store)?;
    let closure = plan
        .closure()
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    let since = review::since(site, &paths, arguments, &store, stop)?;
    let base = since.as_ref().map(|(name, blobs)| Since { name, blobs });
    let drawn = match arguments.format {
        PlanFormat::Dot => Some(dot(&plan, base)),
        PlanFormat::Html => Some(page::html(&plan, &Digest::of(&bytes), base)),
        PlanFormat::Mermaid => Some(page::mermaid(&plan, &Digest::of(&bytes), base)),
        PlanFormat::Text | PlanFormat::Json => None,
    };
    if let Some(drawn) = drawn {
        say(drawn.trim_end());
        return Ok(ui::DONE);
    }
    let new: Option<Vec<Blob>> = base.map(|base| {
        let all = closure.sorted().into_iter();
        all.filter(|blob| !base.blobs.contains(&blob.digest))
            .collect()
    });
    let mut absent = Closure::default();
    for blob in closure.manifests.iter().chain(&closure.blobs) {
        if !store
            .holds(blob)
            .map_err(|error| io_failure("the store cannot be used", &error))?
        {
            absent.blobs.push(*blob);
        }
    }
    let stream = site.stream(&paths)?;
    let part_size = super::delivery::part_size(site, arguments.media.as_deref(), &paths, &stream)?;
    let ask = Ask::default();
    let next = super::delivery::forecast(
        site, &paths, &stream, &lock, &bytes, &rules, &built, &plan, &store, part_size, &ask,
    )?;
    let mut images = Vec::new();
    for root in plan.roots() {
        images.push((
            root,
            plan.content_of(root)
                .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?,
        ));
    }
    let shared = sharing(&images);
    let packages: BTreeSet<String> = lock
        .catalogs
        .iter()
        .flat_map(|catalog| {
            let keys = catalog.packages.iter();
            keys.map(|package| catalog.package_key(&package.name).to_string())
        })
        .collect();
    let operators = shares(&images, |owner| packages.contains(owner));
    if arguments.format == PlanFormat::Json {
        let mut out = json_plan(
            &lock, &bytes, &closure, &absent, &images, &shared, &operators, &next, &store,
        );
        if let (Some(base), Some(new)) = (base, &new) {
            let bytes: u64 = new.iter().map(|blob| blob.size).sum();
            out["since"] = json!({ "base": base.name, "blobs": new.len(), "bytes": bytes });
        }
        say(out.to_string());
    } else {
        say(format!("{}  {}", paths.lock.display(), Digest::of(&bytes)));
        let unknown = if closure.unread.is_empty() {
            String::new()
        } else {
            format!(
                "  and what {} name, which are not here",
                count(closure.unread.len(), "manifest")
            )
        };
        say(format!("  images     {:>8}", images.len()));
        say(format!(
            "  manifests  {:>8}  {:>12}",
            closure.manifests.len(),
            ui::bytes(closure.manifests.iter().map(|blob| blob.size).sum())
        ));
        say(format!(
            "  blobs      {:>8}  {:>12}{unknown}",
            closure.blobs.len(),
            ui::bytes(closure.blobs.iter().map(|blob| blob.size).sum())
        ));
        say(format!(
            "  to fetch   {:>8}  {:>12}",
            absent.blobs.len(),
            ui::bytes(absent.bytes())
        ));
        if let (Some(base), Some(new)) = (base, &new) {
            say(format!(
                "  new        {:>8}  {:>12}  since {}",
                new.len(),
                ui::bytes(new.iter().map(|blob| blob.size).sum()),
                base.name
            ));
        }
        if let Some(free) = store.free_space() {
            let enough = if free >= absent.bytes() {
                ""
            } else {
                "  NOT ENOUGH"
            };
            say(format!(
                "  store                {:>12} free at {}{enough}",
                ui::bytes(free),
                store.path().display()
            ));
        }
        say(next.sentence());
        if arguments.media.is_some() {
            for label in next.labels() {
                say(label);
            }
        }
        if !operators.is_empty() {
            say("  operators         alone  adds to all");
        }
        for share in &operators {
            say(format!(
                "  {:>21}  {:>11}  {}",
                ui::bytes(share.alone),
                ui::bytes(share.adds),
                share.owner
            ));
        }
        if site.common.verbose > 0 {
            for ((root, content), alone) in images.iter().zip(&shared) {
                say(format!(
                    "  {:>12}  {:>12} alone  {}",
                    ui::bytes(content.bytes()),
                    ui::bytes(*alone),
                    root.owner
                ));
            }
        }
    }
    Ok(ui::DONE)
}

/// For each image the bytes that no other image needs.
fn sharing(images: &[(&Root, Closure)]) -> Vec<u64> {
    let mut users: BTreeMap<Blob, usize> = BTreeMap::new();
    for (_, content) in images {
        for blob in content.sorted() {
            *users.entry(blob).or_default() += 1;
        }
    }
    images
        .iter()
        .map(|(_, content)| {
            content
                .sorted()
                .iter()
                .filter(|blob| users[blob] == 1)
                .map(|blob| blob.size)
                .sum()
        })
        .collect()
}

fn json_plan(
    lock: &Lock,
    bytes: &[u8],
    closure: &Closure,
    absent: &Closure,
    images: &[(&Root, Closure)],
    shared: &[u64],
    operators: &[Share],
    next: &super::delivery::Forecast,
    store: &Store,
) -> serde_json::Value {
    let rows: Vec<_> = images
        .iter()
        .zip(shared)
        .map(|((root, content), alone)| {
            json!({
                "block": root.owner,
                "digest": root.fetch.blob.digest,
                "manifests": content.manifests.len(),
                "blobs": content.blobs.len(),
                "bytes": content.bytes(),
                "alone": alone,
            })
        })
        .collect();
    json!({
        "version": 1,
        "lock": Digest::of(bytes),
        "skipped": lock.skips.len(),
        "closure": { "manifests": closure.manifests.len(), "blobs": closure.blobs.len(), "bytes": closure.bytes(), "unread": closure.unread.len() },
        "fetch": { "blobs": absent.blobs.len(), "bytes": absent.bytes() },
        "store": { "free": store.free_space() },
        "archive": next.json(),
        "images": rows,
        "operators": operators.iter().map(|share| json!({ "block": share.owner, "bytes": share.alone, "adds": share.adds })).collect::<Vec<_>>(),
    })
}

/// The plan for Graphviz: one box per manifest, one line per reference; what a base does not have is drawn bold.
fn dot(plan: &Plan, since: Option<Since<'_>>) -> String {
    let mut out = String::from(
        "digraph plan {\n  rankdir = LR;\n  node [shape = box, fontname = \"monospace\"];\n",
    );
    for root in plan.roots() {
        let _ = writeln!(
            out,
            "  {:?} [shape = plain];\n  {:?} -> {:?};",
            root.owner,
            root.owner,
            root.fetch.blob.digest.short()
        );
    }
    for node in plan.nodes() {
        let kind = node.fetch.kind().name();
        let is_new = since.is_some_and(|since| !since.blobs.contains(&node.fetch.blob.digest));
        let new = if is_new { ", style = bold" } else { "" };
        let label = format!(
            "{} {}",
            node.fetch.blob.digest.short(),
            ui::bytes(node.fetch.blob.size)
        );
        let _ = writeln!(
            out,
            "  {:?} [label = {label:?}, tooltip = {kind:?}{new}];",
            node.fetch.blob.digest.short()
        );
    }
    let edges: BTreeSet<(String, String)> = plan
        .edges()
        .map(|(from, to)| (from.short(), to.short()))
        .collect();
    for (from, to) in edges {
        let _ = writeln!(out, "  {from:?} -> {to:?};");
    }
    out.push_str("}\n");
    out
}
