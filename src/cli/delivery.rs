//! `export`, `verify`, `import`, `emit`: archives and what follows from them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::arguments::{ExportArguments, ExportForm, Format, ImportArguments, VerifyArguments};
use super::locking::{Fetched, fetch, finish_build, matching, plan_of, unbuilt};
use super::site::{Paths, Site, cannot, configured, layout, lock_failure, store_failure};
use super::trust::{self, public_keys, secret_keys};
use super::ui::{self, Failure, Progress, count, remark, say};
use crate::archive::chain::Chain;
use crate::archive::key::SecretKey;
use crate::archive::write::{self, Event as Written};
use crate::archive::{Failures, FileKind, Set, Stream, parity, verify};
use crate::config::parse_size;
use crate::deliver::charts;
use crate::deliver::emit::{documents, replace, write_set};
use crate::deliver::export::{self, Ask, ExportError, Prepared, Subject};
use crate::deliver::import::{self, ImportError, Outcome, Request, Target};
use crate::deliver::receipt::{self, Receipt, ReceiptError, SiteName};
use crate::deliver::registry::RegistryTarget;
use crate::deliver::registry_fs;
use crate::deliver::staged;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::plan::graph::Plan;
use crate::plan::lock::Lock;
use crate::plan::text;
use crate::run::built::{self, Built};
use crate::run::event::Event;
use crate::run::realise::Extent;
use crate::step::place::Destination;
use crate::step::rule::Rules;
use crate::store::disk::{Access, Store};
use crate::store::roots::{Kind as RootKind, Root as StoreRoot};
use crate::store::{Blob, read};

/// Largest part where nothing says otherwise: what oc-mirror takes by default.
const PART_SIZE: u64 = 500 << 30;

/// The part size: flag, else settings, else the config's archiveSize, else 500 GiB.
pub(super) fn part_size(
    site: &Site,
    flag: Option<&str>,
    paths: &Paths,
    stream: &Stream,
) -> Result<u64, Failure> {
    if let Some(text) = flag {
        return parse_size(text).map_err(|error| {
            Failure::new(ui::USAGE, error.to_string())
                .hint("write a number and a unit: 4.7GB, 4GiB, 500GiB")
        });
    }
    if let Some(size) = site
        .settings
        .streams
        .get(stream.as_str())
        .and_then(|settings| settings.value.part_size.as_ref())
    {
        return Ok(size.value);
    }
    if paths.config.exists()
        && let Some(size) = site.config(paths)?.archive_bytes()
    {
        return Ok(size);
    }
    Ok(PART_SIZE)
}

/// Where the chain of a stream is kept.
pub(super) fn chain_path(paths: &Paths, stream: &Stream) -> PathBuf {
    paths
        .lock
        .parent()
        .unwrap_or(Path::new(""))
        .join(format!("{stream}.chain"))
}

/// Reads the chain of a stream.
pub(super) fn chain(path: &Path) -> Result<Chain, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Chain::parse(&text).map_err(|error| {
            Failure::of(
                ui::UNVERIFIED,
                &error,
                Some(format!(
                    "{} is append-only and kept in git; restore it from there",
                    path.display()
                )),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Chain::default()),
        Err(error) => Err(cannot("read the chain", path, &error)),
    }
}

fn export_failure(error: &ExportError) -> Failure {
    let code = if matches!(error, ExportError::Differs { .. }) {
        ui::UNVERIFIED
    } else {
        ui::ERROR
    };
    Failure::of(code, error, error.hint())
}

/// Resources for the destinations that the settings name.
fn early_resources(
    site: &Site,
    stream: &Stream,
    lock: &Lock,
    built: &[Built],
    rules: &Rules,
    store: &Store,
) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut files = Vec::new();
    for (name, place) in &site.settings.destinations {
        let place = &place.value;
        if place
            .stream
            .as_ref()
            .is_some_and(|only| only.value != stream.as_str())
        {
            continue;
        }
        let layout = configured(place);
        let destination = site.destination(&place.registry.value)?;
        let documents = documents(lock, built, rules, store, &destination, &layout)
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
        files.extend(
            documents
                .into_iter()
                .map(|(file, text)| (format!("{name}/{file}"), text.into_bytes())),
        );
    }
    Ok(files)
}

/// What the next archive would be.
pub(super) struct Forecast {
    stream: String,
    sequence: u64,
    blobs: u64,
    bytes: u64,
    parts: Vec<(String, u64)>,
    part_size: u64,
    known: bool,
    problem: Option<String>,
}

impl Forecast {
    pub(super) fn sentence(&self) -> String {
        if let Some(problem) = &self.problem {
            return format!("  next archive  unknown: {problem}");
        }
        if !self.known {
            return format!(
                "  next archive  nothing to carry: {} seq {} has this lock",
                self.stream, self.sequence
            );
        }
        format!(
            "  next archive  {} seq {}: {} blobs, {}, in {} of at most {}",
            self.stream,
            self.sequence,
            self.blobs,
            ui::bytes(self.bytes),
            count(self.parts.len(), "part"),
            ui::bytes(self.part_size)
        )
    }

    /// One line for each medium: what to write on it, and how full it gets.
    pub(super) fn labels(&self) -> Vec<String> {
        let of = self.parts.len();
        self.parts
            .iter()
            .enumerate()
            .map(|(index, (name, size))| {
                format!(
                    "  medium {} of {of}  {:>12}  {:>3} % full  label: {} seq {} {}/{of}  ({name})",
                    index + 1,
                    ui::bytes(*size),
                    self.percent(*size),
                    self.stream,
                    self.sequence,
                    index + 1
                )
            })
            .collect()
    }

    /// How full a medium gets, in percent, rounded up.
    fn percent(&self, size: u64) -> u64 {
        let full = u128::from(size) * 100;
        let percent = full.div_ceil(u128::from(self.part_size.max(1)));
        u64::try_from(percent).unwrap_or(u64::MAX)
    }

    pub(super) fn json(&self) -> serde_json::Value {
        json!({
            "stream": self.stream,
            "sequence": self.sequence,
            "nothing": !self.known && self.problem.is_none(),
            "unknown": self.problem,
            "blobs": self.blobs,
            "bytes": self.bytes,
            "parts": self.parts.len(),
            "media": self.parts.iter().map(|(name, size)| json!({ "name": name, "size": size, "percent": self.percent(*size) })).collect::<Vec<_>>(),
            "partSize": self.part_size,
        })
    }
}

/// Lays the next archive out without writing it.
pub(super) fn forecast(
    site: &Site,
    paths: &Paths,
    stream: &Stream,
    lock: &Lock,
    lock_bytes: &[u8],
    rules: &Rules,
    built: &[Built],
    plan: &Plan,
    store: &Store,
    part_size: u64,
    ask: &Ask,
) -> Result<Forecast, Failure> {
    let chain = chain(&chain_path(paths, stream))?;
    let mut ask = ask.clone();
    if ask.is_default() {
        let records = store
            .stream(stream.as_str())
            .map_err(|error| store_failure(&error))?;
        let receipts = known_receipts(&records, &chain)?;
        ask.confirmed = receipts.iter().map(|receipt| receipt.sequence).collect();
    }
    let resources = early_resources(site, stream, lock, built, rules, store)?;
    let subject = Subject {
        stream,
        chain: &chain,
        lock,
        lock_bytes,
        rules,
        built,
        plan,
        resources,
        store,
        part_size,
    };
    let mut forecast = Forecast {
        stream: stream.to_string(),
        sequence: chain.last().map_or(0, |line| line.sequence),
        blobs: 0,
        bytes: 0,
        parts: Vec::new(),
        part_size,
        known: false,
        problem: None,
    };
    match export::prepare(subject, &ask) {
        Ok(None) => {}
        Ok(Some(prepared)) => {
            forecast.known = true;
            forecast.sequence = prepared.line.sequence;
            forecast.blobs = prepared.line.provides;
            forecast.bytes = prepared.layout.parts().iter().map(|part| part.size).sum();
            let layout = &prepared.layout;
            forecast.parts = (1..)
                .zip(layout.parts())
                .map(|(number, part)| {
                    let name = layout.file_name(FileKind::Part(number));
                    (name.to_string(), part.size)
                })
                .collect();
        }
        Err(error) => forecast.problem = Some(crate::run::event::one_line(&error)),
    }
    Ok(forecast)
}

/// `imgbuild export`
pub(super) fn export(
    site: &Site,
    arguments: &ExportArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    if let Some(form) = arguments.form {
        return export_as(site, arguments, form, stop);
    }
    let share = arguments
        .parity
        .as_deref()
        .map(parity::parse_share)
        .transpose()
        .map_err(|error| Failure::of(ui::USAGE, &error, error.hint()))?;
    let paths = site.paths_in(&arguments.subject, arguments.stream.as_deref());
    let stream = site.stream(&paths)?;
    let store = site.store(Access::Shared)?;
    let records = store
        .stream(stream.as_str())
        .map_err(|error| store_failure(&error))?;
    let _alone = records.lock().map_err(|error| store_failure(&error))?;
    let chain_path = chain_path(&paths, &stream);
    let mut chain = chain(&chain_path)?;
    let (lock, lock_bytes, rules, again) = match arguments.seq {
        None => {
            let (lock, bytes, rules) =
                matching(site, &paths, arguments.subject.is_named(), &store)?;
            (lock, bytes, rules, None)
        }
        Some(sequence) => {
            let (lock, bytes) = earlier_lock(&paths, &store, &chain, &stream, sequence)?;
            let rules = site.rules_of(&lock, Some(&store))?;
            (lock, bytes, rules, Some(sequence))
        }
    };
    let Fetched { plan, built, .. } = fetch(site, &lock, Some(&rules), &store, Extent::All, stop)?;
    if again.is_none() {
        finish_build(&store, &paths, &lock, &lock_bytes, &rules, &plan)?;
    } else {
        // The archive carries them; on another machine than the first they are not in the store yet.
        for rule in rules.iter() {
            store
                .insert(rule.text.as_bytes())
                .map_err(|error| store_failure(&error))?;
        }
    }
    let part_size = match again.and_then(|sequence| chain.line(sequence)) {
        Some(line) => line.part_size,
        None => part_size(site, arguments.part_size.as_deref(), &paths, &stream)?,
    };
    let signers = secret_keys(&arguments.seal)?;
    let resources = early_resources(site, &stream, &lock, &built, &rules, &store)?;
    let mut ask = ask(arguments)?;
    let mut receipts = Vec::new();
    if again.is_none() && ask.is_default() {
        receipts = confirmed(arguments, &records, &stream, &chain)?;
        ask.confirmed = receipts.iter().map(|receipt| receipt.sequence).collect();
    }
    let subject = Subject {
        stream: &stream,
        chain: &chain,
        lock: &lock,
        lock_bytes: &lock_bytes,
        rules: &rules,
        built: &built,
        plan: &plan,
        resources,
        store: &store,
        part_size,
    };
    let prepared = match again {
        Some(sequence) => {
            Some(export::again(subject, sequence).map_err(|error| export_failure(&error))?)
        }
        None => export::prepare(subject, &ask).map_err(|error| export_failure(&error))?,
    };
    let Some(prepared) = prepared else {
        if !site.common.quiet {
            let last = chain.last().map_or(0, |line| line.sequence);
            say(format!(
                "nothing to carry: {stream} seq {last} has this lock"
            ));
        }
        return Ok(ui::DONE);
    };
    if !site.common.quiet && again.is_none() {
        remark(assumption(&prepared, &stream, &receipts));
    }
    let written = write_parts(site, arguments, &prepared, &store, stop)?;
    let parities = match share {
        Some(share) => write_parity(site, arguments, &prepared, &written, share, stop)?,
        None => Vec::new(),
    };
    let sealed = seal_written(arguments, &prepared, &written, &signers)?;
    if again.is_none() {
        record(
            &store,
            &records,
            &chain_path,
            &mut chain,
            &prepared,
            &stream,
            &lock_bytes,
            site.kept_archives(&stream),
        )?;
    }
    if !site.common.quiet {
        for part in &written.parts {
            let kept = if part.kept { "  (was there)" } else { "" };
            say(format!(
                "{}  {:>10}{kept}",
                arguments.output.join(&part.name).display(),
                ui::bytes(part.size)
            ));
        }
        for file in &parities {
            let path = arguments.output.join(&file.name);
            say(format!("{}  {:>10}", path.display(), ui::bytes(file.size)));
        }
        if let Some(path) = sealed {
            say(format!(
                "{}  {}",
                path.display(),
                count(signers.len(), "signature")
            ));
        }
        say(format!(
            "{stream} seq {}: {}, {}, archive {}",
            prepared.line.sequence,
            count(
                usize::try_from(prepared.line.provides).unwrap_or(usize::MAX),
                "blob"
            ),
            ui::bytes(prepared.line.bytes),
            prepared.line.archive_id
        ));
    }
    Ok(ui::DONE)
}

/// Adds parity to parts that were written.
fn write_parity(
    site: &Site,
    arguments: &ExportArguments,
    prepared: &Prepared,
    written: &write::Written,
    share: u8,
    stop: &AtomicBool,
) -> Result<Vec<parity::WrittenParity>, Failure> {
    if written.parts.len() != prepared.layout.parts().len() {
        return Err(Failure::new(
            ui::ERROR,
            "parity is made over a whole archive, and parts of this one are not here",
        ));
    }
    let covered: Vec<parity::Covered> = written
        .parts
        .iter()
        .map(|part| parity::Covered {
            name: part.name.clone(),
            sha256: part.sha256,
            size: part.size,
        })
        .collect();
    let progress = Progress::new(site.common.quiet, false, site.common.events.as_deref())?;
    progress.observe(Event::Phase { phase: "parity" });
    progress.observe(Event::Planned {
        blobs: 1,
        bytes: covered.iter().map(|part| part.size).sum(),
    });
    let digest = prepared.line.archive_id;
    let passed = |bytes| progress.observe(Event::Bytes { digest, bytes });
    let files = parity::write(
        &arguments.output,
        digest,
        &covered,
        share,
        prepared.layout.part_size(),
        stop,
        &passed,
    );
    progress.finish();
    files.map_err(|error| parity_failure(&error))
}

fn parity_failure(error: &parity::ParityError) -> Failure {
    use parity::ParityError as E;
    let code = match error {
        E::Stopped => ui::INCOMPLETE,
        E::TooMuch { .. } | E::Wrong { .. } | E::Form { .. } => ui::UNVERIFIED,
        _ => ui::ERROR,
    };
    Failure::of(code, error, error.hint())
}

/// Restores damaged and missing parts.
fn repair(site: &Site, paths: &[PathBuf], stop: &AtomicBool) -> Result<(), Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let listing = fs::read_dir(path).map_err(|error| cannot("list", path, &error))?;
            for entry in listing {
                files.push(entry.map_err(|error| cannot("list", path, &error))?.path());
            }
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    let progress = Progress::new(site.common.quiet, false, site.common.events.as_deref())?;
    progress.observe(Event::Phase { phase: "repair" });
    let digest = Digest::of(b"");
    let passed = |bytes| progress.observe(Event::Bytes { digest, bytes });
    let repaired = parity::repair(&files, stop, &passed);
    progress.finish();
    for part in repaired.map_err(|error| parity_failure(&error))? {
        let what = if part.was_missing {
            "missing"
        } else {
            "damaged"
        };
        say(format!(
            "{} was {what} and is restored: {} computed anew",
            part.name,
            count(usize::try_from(part.blocks).unwrap_or(usize::MAX), "block")
        ));
    }
    Ok(())
}

/// `imgbuild export --as`
fn export_as(
    site: &Site,
    arguments: &ExportArguments,
    form: ExportForm,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let shape = crate::step::place::Layout {
        name: arguments.layout.clone().unwrap_or_else(|| "v2".to_owned()),
        max_nested_paths: arguments.max_nested_paths.unwrap_or(0),
    };
    let is_shaped = arguments.layout.is_some() || arguments.max_nested_paths.is_some();
    if form == ExportForm::OciLayout && is_shaped {
        return Err(Failure::new(
            ui::USAGE,
            "an OCI layout names images by where they came from: --layout and --max-nested-paths are for --as registry-fs",
        ));
    }
    let paths = site.paths_in(&arguments.subject, arguments.stream.as_deref());
    let store = site.store(Access::Shared)?;
    let (lock, bytes, rules) = matching(site, &paths, arguments.subject.is_named(), &store)?;
    let Fetched { plan, built, .. } = fetch(site, &lock, Some(&rules), &store, Extent::All, stop)?;
    finish_build(&store, &paths, &lock, &bytes, &rules, &plan)?;
    let folder = &arguments.output;
    fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
    let written = match form {
        ExportForm::OciLayout => {
            let closure = plan
                .closure()
                .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
            let images = export::index(&lock, &plan);
            registry_fs::write_layout(folder, &store, &closure.sorted(), &images, stop)
        }
        ExportForm::RegistryFs => {
            let nowhere = Destination {
                registry: "registry.invalid".to_owned(),
                prefix: String::new(),
                asks_source: None,
            };
            let items = import::items(&lock, &built, &rules, &plan, &nowhere, &shape)
                .map_err(|error| import_failure(&error))?;
            registry_fs::write_registry(folder, &store, &items, stop)
        }
    };
    let placed = written.map_err(|error| {
        let code = if matches!(error, registry_fs::FolderError::Stopped) {
            ui::INCOMPLETE
        } else {
            ui::ERROR
        };
        Failure::of(code, &error, error.hint())
    })?;
    if !site.common.quiet {
        say(format!(
            "{}: {} blobs shared with the store, {} copied ({}), {} were there",
            folder.display(),
            placed.reflinked + placed.linked,
            placed.copied,
            ui::bytes(placed.bytes),
            placed.present
        ));
    }
    Ok(ui::DONE)
}

fn ask(arguments: &ExportArguments) -> Result<Ask, Failure> {
    let locks = arguments
        .base_lock
        .iter()
        .map(|path| match fs::read(path) {
            Ok(bytes) => Ok((path.display().to_string(), bytes)),
            Err(error) => Err(cannot("read the base lock", path, &error)),
        })
        .collect::<Result<_, _>>()?;
    Ok(Ask {
        full: arguments.full,
        overlap: arguments.overlap.unwrap_or(0),
        sequences: arguments.for_sequences.clone(),
        locks,
        confirmed: Vec::new(),
    })
}

/// The lock that an earlier archive was made from.
pub(super) fn earlier_lock(
    paths: &Paths,
    store: &Store,
    chain: &Chain,
    stream: &Stream,
    sequence: u64,
) -> Result<(Lock, Vec<u8>), Failure> {
    let Some(line) = chain.line(sequence) else {
        let last = chain.last().map_or(0, |line| line.sequence);
        return Err(Failure::new(
            ui::USAGE,
            format!("stream {stream} has no sequence {sequence}; it ends at {last}"),
        ));
    };
    let bytes = match store
        .size_of(&line.lock)
        .map_err(|error| store_failure(&error))?
    {
        Some(size) => read(
            store,
            &Blob {
                digest: line.lock,
                size,
            },
            64 << 20,
        )
        .map_err(|error| Failure::of(ui::ERROR, &error, None))?,
        None => match fs::read(&paths.lock) {
            Ok(bytes) if Digest::of(&bytes) == line.lock => bytes,
            _ => {
                return Err(Failure::new(ui::ERROR, format!("the lock of {stream} seq {sequence} ({}) is neither in the store nor at {}", line.lock, paths.lock.display()))
                    .hint("check that version of the lock out of git and name it with --lock"));
            }
        },
    };
    let lock = text::parse(
        &String::from_utf8_lossy(&bytes),
        &format!("{stream} seq {sequence}"),
    )
    .map_err(|error| lock_failure(&error))?;
    Ok((lock, bytes))
}

/// On top of what the archive applies, as a sentence.
fn assumption(prepared: &Prepared, stream: &Stream, receipts: &[Receipt]) -> String {
    let bases = &prepared.layout.manifest().bases;
    if bases.is_empty() {
        return format!(
            "{stream} seq {}: full, applies on top of nothing",
            prepared.line.sequence
        );
    }
    let names: Vec<String> = bases
        .iter()
        .map(|base| {
            base.sequence.map_or_else(
                || format!("lock {}", base.lock.short()),
                |sequence| format!("seq {sequence}"),
            )
        })
        .collect();
    let sites: Vec<String> = receipts
        .iter()
        .map(|receipt| format!("{} (seq {})", receipt.site, receipt.sequence))
        .collect();
    let known = if sites.is_empty() {
        String::new()
    } else {
        format!(", as confirmed by {}", sites.join(", "))
    };
    format!(
        "{stream} seq {}: applies where {} has been adopted{known}",
        prepared.line.sequence,
        names.join(" or ")
    )
}

/// Vouches for the parts that were written, if there are keys.
fn seal_written(
    arguments: &ExportArguments,
    prepared: &Prepared,
    written: &write::Written,
    keys: &[SecretKey],
) -> Result<Option<PathBuf>, Failure> {
    let path = arguments
        .output
        .join(prepared.layout.file_name(FileKind::Seal).to_string());
    if keys.is_empty() {
        return Ok(None);
    }
    if written.parts.len() != prepared.layout.parts().len() {
        return Err(Failure::new(ui::ERROR, "only a whole archive can be sealed, and parts of this one are not here")
            .hint("the parts that were asked for are written; leave --seal out, the earlier seal still counts"));
    }
    let parts = written
        .parts
        .iter()
        .map(|part| (part.name.clone(), part.size, part.sha256));
    let statement = trust::statement(
        prepared.line.archive_id,
        parts,
        arguments.expires.as_deref(),
    )?;
    trust::seal_with(&path, statement, keys)?;
    Ok(Some(path))
}

fn write_parts(
    site: &Site,
    arguments: &ExportArguments,
    prepared: &Prepared,
    store: &Store,
    stop: &AtomicBool,
) -> Result<write::Written, Failure> {
    let progress = Progress::new(
        site.common.quiet,
        site.common.verbose > 0,
        site.common.events.as_deref(),
    )?;
    let id = prepared.line.archive_id;
    progress.observe(Event::Phase { phase: "export" });
    for part in prepared.layout.parts() {
        progress.observe(Event::Planned {
            blobs: 1,
            bytes: part.size,
        });
    }
    let observe = |event: Written<'_>| match event {
        Written::Bytes(bytes) => progress.observe(Event::Bytes { digest: id, bytes }),
        Written::Finished { name, .. } => progress.observe(Event::Image {
            image: name.to_owned(),
        }),
        Written::Kept { size, .. } => progress.observe(Event::Bytes {
            digest: id,
            bytes: size,
        }),
        Written::Begun { .. } | Written::Hashed(_) => {}
    };
    let options = write::Options {
        only_parts: (!arguments.only_parts.is_empty()).then_some(arguments.only_parts.as_slice()),
        stop: Some(stop),
    };
    let written = write::export(
        &prepared.layout,
        store,
        &arguments.output,
        &options,
        &observe,
    );
    progress.finish();
    written.map_err(|error| {
        let code = if matches!(error, crate::archive::ArchiveError::Stopped) {
            ui::INCOMPLETE
        } else {
            ui::ERROR
        };
        Failure::of(code, &error, error.hint())
    })
}

/// Writes down that an archive exists, last of all: first what it needs, then the line in the committed chain.
fn record(
    store: &Store,
    records: &crate::store::streams::Stream<'_>,
    chain_path: &Path,
    chain: &mut Chain,
    prepared: &Prepared,
    stream: &Stream,
    lock_bytes: &[u8],
    keep: u64,
) -> Result<(), Failure> {
    let failed = |error: crate::store::StoreError| store_failure(&error);
    let sequence = prepared.line.sequence;
    store
        .closures()
        .put(&prepared.line.lock, &prepared.closure)
        .map_err(failed)?;
    records
        .write(
            &format!("manifest {sequence:06}"),
            prepared.layout.manifest_bytes(),
        )
        .map_err(failed)?;
    let lock = store.insert(lock_bytes).map_err(failed)?;
    store
        .roots()
        .set(
            &format!("archive {stream} {sequence:06}"),
            &StoreRoot {
                kind: RootKind::Archive,
                lock,
            },
        )
        .map_err(failed)?;
    chain
        .append(prepared.line.clone())
        .map_err(|error| Failure::of(ui::ERROR, &error, None))?;
    if let Some(folder) = chain_path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
    }
    replace(chain_path, chain.to_string().as_bytes())
        .map_err(|error| cannot("write the chain", chain_path, &error))?;
    records
        .write("chain", chain.to_string().as_bytes())
        .map_err(failed)?;
    let prefix = format!("archive {stream} ");
    for (name, _) in store.roots().list().map_err(failed)? {
        let old = name.strip_prefix(&prefix).and_then(|old| old.parse().ok());
        if old.is_some_and(|old: u64| old.saturating_add(keep) <= sequence) {
            store.roots().remove(&name).map_err(failed)?;
        }
    }
    Ok(())
}

/// Failures of archives, one per line.
pub(super) fn unverified(failures: &Failures) -> Failure {
    let lines: Vec<String> = failures
        .errors
        .iter()
        .map(|error| crate::run::event::one_line(error))
        .collect();
    let more = if failures.more > 0 {
        format!("\n  and {} more", failures.more)
    } else {
        String::new()
    };
    let failure = Failure::new(
        ui::UNVERIFIED,
        format!("verification failed:\n  {}{more}", lines.join("\n  ")),
    );
    match failures.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// `imgbuild verify`
pub(super) fn verify(
    site: &Site,
    arguments: &VerifyArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    if arguments.repair {
        repair(site, &arguments.paths, stop)?;
    }
    let set = open(site, &arguments.paths)?;
    if set.archives().is_empty() && set.broken().is_empty() {
        return Err(Failure::new(ui::ERROR, "no archive is there")
            .hint("give the folder that `imgbuild export -o` wrote to, or its parts"));
    }
    let chain = arguments.chain.as_deref().map(chain).transpose()?;
    let progress = Progress::new(site.common.quiet, false, site.common.events.as_deref())?;
    progress.observe(Event::Phase { phase: "verify" });
    let total = set
        .archives()
        .iter()
        .flat_map(crate::archive::Archive::parts)
        .map(crate::archive::Part::size)
        .sum();
    progress.observe(Event::Planned {
        blobs: 1,
        bytes: total,
    });
    let id = Digest::of(b"");
    let passed = |bytes| progress.observe(Event::Bytes { digest: id, bytes });
    let keys = public_keys(&arguments.seals.require_seal)?;
    let trusted = trust::trust(
        &keys,
        &arguments.seals.require_seal,
        arguments.seals.threshold,
    )?;
    if trusted.is_none()
        && set
            .archives()
            .iter()
            .any(|archive| !archive.seals().is_empty())
        && !site.common.quiet
    {
        remark(
            "note: there are seals, which nobody looks at unless --require-seal names the keys to trust",
        );
    }
    let options = verify::Options {
        quick: arguments.quick,
        chain: chain.as_ref(),
        trust: trusted.as_ref(),
        stop: Some(stop),
        ..verify::Options::default()
    };
    let reports = verify::verify_all(set, &options, &passed);
    progress.finish();
    let reports = reports.map_err(|failures| unverified(&failures))?;
    match arguments.format {
        Format::Json => {
            let rows: Vec<_> = reports
                .iter()
                .map(|report| {
                    let parts: Vec<_> = report
                        .parts
                        .iter()
                        .map(|part| json!({ "name": part.name, "size": part.size, "sha256": part.sha256, "listed": part.listed, "hashed": part.hashed }))
                        .collect();
                    json!({
                        "stream": report.stream.as_str(),
                        "sequence": report.sequence,
                        "id": report.archive_id,
                        "blobs": report.blobs,
                        "bytes": report.bytes,
                        "inChain": report.in_chain,
                        "sealed": report.sealed.is_some(),
                        "parts": parts,
                    })
                })
                .collect();
            say(json!({ "version": 1, "archives": rows }).to_string());
        }
        Format::Text if !site.common.quiet => {
            for report in &reports {
                let depth = if arguments.quick {
                    "form and checksums"
                } else {
                    "every byte"
                };
                say(format!(
                    "{} seq {}: {} proven in {}, {}, {}; archive {}",
                    report.stream,
                    report.sequence,
                    depth,
                    count(report.parts.len(), "part"),
                    count(usize::try_from(report.blobs).unwrap_or(usize::MAX), "blob"),
                    ui::bytes(report.bytes),
                    report.archive_id
                ));
                if report.in_chain == Some(true) {
                    say("  on the chain");
                }
                if let Some(path) = &report.sealed {
                    say(format!("  sealed by {} as it must be", path.display()));
                }
            }
        }
        Format::Text => {}
    }
    Ok(ui::DONE)
}

/// Opens archives, and mentions the files that are none.
pub(super) fn open(site: &Site, paths: &[PathBuf]) -> Result<Set, Failure> {
    let set = Set::open(paths).map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    if !site.common.quiet {
        for file in set.foreign() {
            remark(format!(
                "note: {} is no part of an archive and was not read",
                file.display()
            ));
        }
    }
    Ok(set)
}

fn import_failure(error: &ImportError) -> Failure {
    let code = if error.is_verification() {
        ui::UNVERIFIED
    } else if error.is_incomplete() {
        ui::INCOMPLETE
    } else {
        ui::ERROR
    };
    match error {
        ImportError::Unproven {
            source,
            stream,
            sequence,
        } => {
            let mut failure = unverified(source);
            failure.text = failure.text.replacen(
                "verification failed",
                &format!("{stream} seq {sequence} is damaged, and nothing was changed"),
                1,
            );
            failure
        }
        ImportError::Push { failures, .. } => {
            let lines: Vec<String> = failures
                .iter()
                .take(20)
                .map(|failure| crate::run::event::one_line(failure))
                .collect();
            let more = failures.len().saturating_sub(20);
            let more = if more > 0 {
                format!("\n  and {more} more")
            } else {
                String::new()
            };
            let failure = Failure::new(code, format!("{error}:\n  {}{more}", lines.join("\n  ")));
            match error.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        error => Failure::of(code, error, error.hint()),
    }
}

/// `imgbuild import`
pub(super) fn import(
    site: &Site,
    arguments: &ImportArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let set = open(site, &arguments.paths)?;
    let keys = public_keys(&arguments.seals.require_seal)?;
    let trusted = trust::trust(
        &keys,
        &arguments.seals.require_seal,
        arguments.seals.threshold,
    )?;
    let joining = match &arguments.chain {
        None => None,
        Some(path) if !path.exists() => {
            let absent = io::ErrorKind::NotFound.into();
            return Err(cannot("read the chain", path, &absent));
        }
        Some(path) => Some(chain(path)?),
    };
    let signer = secret_keys(arguments.key.as_slice())?.pop();
    let site_name = site_name(site, arguments)?;
    let store = site.store(Access::Shared)?;
    let shape = match arguments.to.as_deref() {
        Some(to) if !to.starts_with("oci:") => site.shape(&arguments.shape, &site.destination(to)?),
        _ => layout(&arguments.shape, &crate::step::place::Layout::default()),
    };
    let progress = Progress::new(
        site.common.quiet,
        site.common.verbose > 0,
        site.common.events.as_deref(),
    )?;
    let observer = |event| progress.observe(event);
    // Blobs go by once: each that is taken needs a connection at once, or it would hold up the one that is read.
    let workers = usize::from(site.common.jobs).min(connections(site, arguments.to.as_deref()));
    let request = |target, name: String| Request {
        set: &set,
        store: &store,
        target,
        site: name,
        layout: shape.clone(),
        allow_rollback: arguments.allow_rollback,
        rebase: arguments.rebase,
        chain: joining.as_ref(),
        trust: trusted.as_ref(),
        workers,
        observer: &observer,
        stop,
    };
    let mut destination = None;
    let outcomes = match arguments.to.as_deref() {
        None => import::import(&request(Target::Store, "store".to_owned())),
        Some(to) if to.starts_with("oci:") => {
            let path = to.trim_start_matches("oci:").trim_start_matches("//");
            let path = if to.starts_with("oci:///") {
                format!("/{}", path.trim_start_matches('/'))
            } else {
                path.to_owned()
            };
            let folder = Store::open(Path::new(&path), Access::Shared)
                .map_err(|error| store_failure(&error))?;
            import::import(&request(Target::Layout(&folder), format!("oci:{path}")))
        }
        Some(to) => {
            let place = site.destination(to)?;
            let registry = RegistryTarget::new(site.client()?, place.registry.clone());
            let outcomes = import::import(&request(
                Target::Registry {
                    registry: &registry,
                    destination: &place,
                },
                place.join_registry(),
            ));
            destination = Some(place);
            outcomes
        }
    };
    progress.finish();
    let outcomes = outcomes.map_err(|error| import_failure(&error))?;
    let mut code = ui::DONE;
    let mut rows = Vec::new();
    let mut receipts = Vec::new();
    for outcome in outcomes {
        match outcome {
            Outcome::Incomplete {
                manifest,
                adopted,
                parts,
                missing,
            } => {
                code = ui::INCOMPLETE;
                remark(import::what_to_bring(&manifest, adopted, &parts, &missing));
                rows.push(json!({
                    "stream": manifest.stream.as_str(), "sequence": manifest.sequence, "adopted": false,
                    "missingParts": parts, "missingBlobs": missing.len(), "missingBytes": missing.iter().map(|blob| blob.size).sum::<u64>(),
                }));
            }
            Outcome::Adopted(imported) => {
                let mut changed = Vec::new();
                if let Some(place) = &destination {
                    let files = documents(
                        &imported.lock,
                        &imported.built,
                        &imported.rules,
                        &store,
                        place,
                        &shape,
                    )
                    .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
                    changed = write_set(&arguments.output, &files)
                        .and_then(|mut written| {
                            written.extend(charts::write(
                                &arguments.output,
                                &imported.lock,
                                &store,
                            )?);
                            Ok(written)
                        })
                        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
                }
                if arguments.format == Format::Text && !site.common.quiet {
                    let what = if imported.already && imported.sent == 0 {
                        "was adopted before"
                    } else {
                        "adopted"
                    };
                    say(format!(
                        "{} seq {}: {what}; {} sent ({}), {} were there",
                        imported.stream,
                        imported.sequence,
                        count(usize::try_from(imported.sent).unwrap_or(usize::MAX), "blob"),
                        ui::bytes(imported.bytes),
                        imported.present
                    ));
                    if !imported.passed_over.is_empty() {
                        let list: Vec<String> = imported
                            .passed_over
                            .iter()
                            .map(ToString::to_string)
                            .collect();
                        say(format!("  passed over seq {}", list.join(", ")));
                    }
                    for path in &changed {
                        say(format!("  wrote {}", path.display()));
                    }
                }
                if let Some(problem) = &imported.no_head {
                    remark(format!(
                        "warning: the destination does not keep what it has adopted; only the store here knows: {problem}"
                    ));
                }
                let receipt = Receipt::new(
                    imported.stream.clone(),
                    site_name.clone(),
                    imported.sequence,
                    imported.archive_id,
                    imported.lock_digest,
                );
                let receipt = match &signer {
                    Some(key) => receipt.signed(key),
                    None => receipt,
                };
                if arguments.format == Format::Text && !site.common.quiet {
                    say(format!("  receipt  {receipt}"));
                }
                rows.push(json!({
                    "receipt": receipt.to_string(),
                    "stream": imported.stream.as_str(), "sequence": imported.sequence, "id": imported.archive_id, "adopted": true,
                    "already": imported.already, "sent": imported.sent, "bytes": imported.bytes, "present": imported.present, "passedOver": imported.passed_over,
                }));
                receipts.push(receipt);
            }
        }
    }
    if let Some(path) = &arguments.receipt {
        keep_receipts(path, &receipts)?;
    }
    if arguments.format == Format::Json {
        say(json!({ "version": 1, "archives": rows }).to_string());
    }
    Ok(code)
}

/// How many connections the destination takes at once.
fn connections(site: &Site, to: Option<&str>) -> usize {
    let place = to.and_then(|to| to.parse::<Destination>().ok());
    let limit = place
        .and_then(|place| site.settings.registries.get(&place.registry))
        .and_then(|limits| limits.value.connections.as_ref())
        .and_then(|connections| usize::try_from(connections.value).ok());
    limit.map_or(usize::MAX, |limit| limit.max(1))
}

/// What this site is called in receipts.
fn site_name(site: &Site, arguments: &ImportArguments) -> Result<SiteName, Failure> {
    let default = match arguments.to.as_deref() {
        None => "store".to_owned(),
        Some(to) if to.starts_with("oci:") => "layout".to_owned(),
        Some(to) => site.destination(to)?.registry,
    };
    let text = arguments.site.clone().unwrap_or(default);
    text.parse().map_err(|error: ReceiptError| {
        Failure::of(
            ui::USAGE,
            &error,
            Some("name the site with --site NAME".to_owned()),
        )
    })
}

/// Writes receipts to a file; those of other streams and sites in it stay.
fn keep_receipts(path: &Path, receipts: &[Receipt]) -> Result<(), Failure> {
    let mut all = match fs::read_to_string(path) {
        Ok(text) => receipt::parse_all(&text).map_err(|error| {
            Failure::of(
                ui::ERROR,
                &error,
                Some(format!(
                    "{} is another file; name one for receipts",
                    path.display()
                )),
            )
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(cannot("read the receipts", path, &error)),
    };
    for receipt in receipts {
        all.retain(|old| (&old.stream, &old.site) != (&receipt.stream, &receipt.site));
        all.push(receipt.clone());
    }
    all.sort_by(|a, b| (&a.stream, &a.site).cmp(&(&b.stream, &b.site)));
    let mut text = all
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    text.push('\n');
    replace(path, text.as_bytes()).map_err(|error| cannot("write the receipt", path, &error))?;
    Ok(())
}

/// The receipts that a stream goes by: those in the files, and those that were given before; the newest of each site.
fn confirmed(
    arguments: &ExportArguments,
    records: &crate::store::streams::Stream<'_>,
    stream: &Stream,
    chain: &Chain,
) -> Result<Vec<Receipt>, Failure> {
    let failed = |error: ReceiptError| {
        let hint = error.hint();
        Failure::of(ui::UNVERIFIED, &error, hint)
    };
    let keys = public_keys(&arguments.receipt_keys)?;
    for path in &arguments.receipt {
        let text =
            fs::read_to_string(path).map_err(|error| cannot("read the receipts", path, &error))?;
        let mut found = 0;
        for receipt in receipt::parse_all(&text).map_err(failed)? {
            if receipt.stream != *stream {
                continue;
            }
            found += 1;
            if !keys.is_empty() {
                receipt.check_signature(&keys).map_err(failed)?;
            }
            receipt.check_chain(chain).map_err(failed)?;
            let name = format!("receipt {}", receipt.site);
            let known = remembered(records, &name)?;
            if known.is_none_or(|known| known.sequence <= receipt.sequence) {
                records
                    .write(&name, receipt.to_string().as_bytes())
                    .map_err(|error| store_failure(&error))?;
            }
        }
        if found == 0 {
            return Err(Failure::new(
                ui::ERROR,
                format!("{} has no receipt for stream {stream}", path.display()),
            ));
        }
    }
    known_receipts(records, chain)
}

/// The newest receipt of each site, as far as they fit the chain.
fn known_receipts(
    records: &crate::store::streams::Stream<'_>,
    chain: &Chain,
) -> Result<Vec<Receipt>, Failure> {
    let mut receipts = Vec::new();
    for name in records.list().map_err(|error| store_failure(&error))? {
        if name.starts_with("receipt ") {
            let receipt = remembered(records, &name)?;
            receipts.extend(receipt);
        }
    }
    for receipt in &receipts {
        receipt
            .check_chain(chain)
            .map_err(|error| Failure::of(ui::UNVERIFIED, &error, error.hint()))?;
    }
    Ok(receipts)
}

fn remembered(
    records: &crate::store::streams::Stream<'_>,
    name: &str,
) -> Result<Option<Receipt>, Failure> {
    let bytes = records.read(name).map_err(|error| store_failure(&error))?;
    bytes
        .map(|bytes| String::from_utf8_lossy(&bytes).parse())
        .transpose()
        .map_err(|error: ReceiptError| Failure::of(ui::ERROR, &error, None))
}

/// Everything that the roots of a store need, and the roots whose locks cannot be read.
pub(super) fn needed(store: &Store) -> Result<std::collections::BTreeSet<Digest>, Failure> {
    let staged = staged::kept(store).map_err(|error| store_failure(&error))?;
    let mut keep: std::collections::BTreeSet<Digest> = staged.into_keys().collect();
    for (name, root) in store
        .roots()
        .list()
        .map_err(|error| store_failure(&error))?
    {
        keep.insert(root.lock.digest);
        let bytes = read(store, &root.lock, 64 << 20)
            .map_err(|error| Failure::of(ui::ERROR, &error, Some(format!("root {name:?} names a lock that is not there; `imgbuild store root --remove` lets it go"))))?;
        let lock = text::parse(&String::from_utf8_lossy(&bytes), &name)
            .map_err(|error| lock_failure(&error))?;
        keep.extend(lock.rules.values());
        let built = built::remembered(&lock, store).map_err(|error| unbuilt(&error))?;
        let closure = plan_of(&lock, &built, store, store)?
            .closure()
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
        keep.extend(
            closure
                .manifests
                .iter()
                .chain(&closure.blobs)
                .map(|blob| blob.digest),
        );
    }
    Ok(keep)
}
