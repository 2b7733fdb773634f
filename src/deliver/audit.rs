//! Everything that a lock stands for, derived again from bytes and compared: the audit.
//!
//! Nothing is asked of a network and nothing is believed: the lock is read and written again, its rule files and every
//! blob of its closure are hashed, every manifest is parsed and held to the sizes it is described by, and what was
//! recorded of archives is held to the chain. The report has no time, host or path in it and does not depend on what
//! else a store holds, so two auditors who look at the same lock, config and chain compare one SHA-256.
//!
//! ```text
//! imgbuild audit 1
//! lock sha256:… 1830 bytes
//! config sha256:… 3 requests
//! rule additional-image sha256:… 1402 bytes
//! image registry.example.test/app:1 sha256:… app:1
//! skip registry.example.test/old:1 "withdrawn; CHG-20418"
//! closure sha256:… 7 manifests, 21 blobs, 52344 bytes
//! archive prod 1 sha256:… lock sha256:…
//! carried prod 1 sha256:… sealed
//! destination 1 images, 3 manifests, 12 blobs, 52344 bytes
//! sound
//! ```
//!
//! The last line is `sound`, or the findings stand in its place, one `finding KIND ITEM: what` per line, sorted. What
//! stands behind `closure` is the SHA-256 of the closure's list, one `<64 digits> <size>` per line, ascending. How the
//! report may change: with the number in its first line.
//!
//! ## Why not stop at the first finding
//! An auditor wants to know how much is wrong, and a repair wants all of it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};
use serde::Serialize;

use super::holdings::Holdings;
use super::prove::{Problem, claims, prove};
use super::rederive::{Deviation, rederive};
use crate::archive::chain::{Chain, Line};
use crate::archive::manifest::Manifest as ArchiveManifest;
use crate::archive::seal::Trust;
use crate::archive::verify::{Options, verify};
use crate::archive::{ArchiveError, Set, Stream, list};
use crate::digest::{Digest, Hasher};
use crate::oci::MANIFEST_LIMIT;
use crate::plan::check;
use crate::plan::graph::{Plan, Root};
use crate::plan::key::BlockKey;
use crate::plan::lock::{Lock, Want};
use crate::plan::text;
use crate::run::built::{self, Built};
use crate::run::event::{Event, Observer, one_line};
use crate::run::resolve::{placements, release, roots, signed};
use crate::step::place::{Destination, Layout, refuse_collisions};
use crate::step::rule::Rules;
use crate::store::disk::Store;
use crate::store::{Blob, Source as _, StoreError, read};

/// The version of the report.
pub const VERSION: u32 = 1;

/// Bytes per read; larger ones measure no faster.
const BUFFER: usize = 256 << 10;

/// Largest rule file.
const RULE_LIMIT: u64 = 1 << 20;

/// What an audit looks at.
pub struct Subject<'a> {
    /// The bytes of the lock.
    pub lock: &'a [u8],
    /// The store that should have everything.
    pub store: &'a Store,
    /// The text of the chain, and the stream it is of; none where nothing was exported.
    pub chain: Option<(&'a Stream, &'a [u8])>,
    /// The digest of the config, and what it asks of a lock, given the rules that the lock names; none where there is
    /// no config, as on the far side of the gap.
    pub config: Option<Config<'a>>,
    /// A destination that should hold everything the lock names.
    pub destination: Option<Delivered<'a>>,
    /// Archives that should be whole, by their files and folders.
    pub archives: &'a [PathBuf],
    /// Whose seals these archives must have; `None` if nobody's.
    pub trust: Option<&'a Trust<'a>>,
    /// Who watches.
    pub observer: Observer<'a>,
    /// Set to stop.
    pub stop: &'a AtomicBool,
}

/// A destination, as an audit needs it. Its manifests are read; of blobs it is believed that it has them, as a registry
/// reads all bytes of one only to send them.
#[derive(Clone, Copy)]
pub struct Delivered<'a> {
    /// What it holds.
    pub holdings: &'a dyn Holdings,
    /// Where it is.
    pub place: &'a Destination,
    /// How repositories are named there.
    pub layout: &'a Layout,
    /// Questions at once.
    pub workers: usize,
}

/// What a config asks of a lock, or why it asks nothing that can be understood.
pub type Wanted = Result<BTreeMap<BlockKey, Want>, String>;

/// A config, as an audit needs it.
#[derive(Clone, Copy)]
pub struct Config<'a> {
    /// The digest of the file.
    pub digest: Digest,
    /// What it asks of a lock.
    pub wanted: &'a dyn Fn(&Lock, &Rules) -> Wanted,
}

/// What a finding is about. They stand in the report in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The lockfile itself.
    Lock,
    /// The config that the lock answers.
    Config,
    /// A rule file.
    Rule,
    /// Signatures that do not vouch for what they should.
    Signature,
    /// Where images go.
    Place,
    /// A manifest or an index.
    Manifest,
    /// Any other blob.
    Blob,
    /// A record of the memo.
    Memo,
    /// The chain of a stream.
    Chain,
    /// The stored manifest of an archive, or the lock it was made from.
    Archive,
    /// What a destination holds.
    Destination,
    /// A destination that gave no answer.
    Unanswered,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Lock => "lock",
            Self::Config => "config",
            Self::Rule => "rule",
            Self::Signature => "signature",
            Self::Place => "place",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Memo => "memo",
            Self::Chain => "chain",
            Self::Archive => "archive",
            Self::Destination => "destination",
            Self::Unanswered => "unanswered",
        })
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// Which: a digest, a block, a rule, or a stream with a sequence.
    pub item: String,
    /// What is wrong with it.
    pub what: String,
    /// The blocks of the lock that need it.
    pub owners: Vec<String>,
}

/// An image, and where it goes below any destination in the default layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placed {
    /// Its name, as the user wrote it.
    pub image: String,
    /// Its manifest.
    pub digest: Digest,
    /// Where it goes: `path:tag`.
    pub place: String,
}

/// An image that is left out on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its name.
    pub image: String,
    /// Why.
    pub reason: String,
}

/// Everything that a lock comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The SHA-256 of the list: one `<64 digits> <size>` per line, ascending.
    pub list: Digest,
    /// Manifests and indexes.
    pub manifests: usize,
    /// Everything else.
    pub blobs: usize,
    /// The bytes of both.
    pub bytes: u64,
}

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The lock.
    pub lock: Digest,
    /// Its bytes.
    pub size: u64,
    /// The config, and how many requests it makes.
    pub config: Option<(Digest, usize)>,
    /// The rule files that the lock names, and their sizes as far as they are there.
    pub rules: BTreeMap<String, (Digest, Option<u64>)>,
    /// Where images go.
    pub images: Vec<Placed>,
    /// What is left out.
    pub skips: Vec<Skipped>,
    /// What everything comes to, as far as manifests could be read.
    pub closure: Option<Listed>,
    /// The archives of the chain: stream, sequence, archive id and lock.
    pub archives: Vec<(String, u64, Digest, Digest)>,
    /// The archives that were read, byte for byte: stream, sequence, archive id, and whether a seal vouches for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub carried: Vec<(String, u64, Digest, bool)>,
    /// What was found at a destination: images that are whole, manifests and blobs by repository, and their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<(u64, u64, u64, u64)>,
    /// What is wrong, sorted.
    pub findings: Vec<Finding>,
}

/// Why an audit came to no report.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The store cannot be used.
    #[error("the store cannot be audited")]
    Store(#[from] StoreError),
    /// What was derived or built cannot be made again here.
    #[error("the work of the lock cannot be done again: {0}")]
    Work(String),
    /// It was told to stop.
    #[error("stopped before everything was looked at")]
    Stopped,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// The report as text, in its one form.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!(
            "imgbuild audit {VERSION}\nlock {} {} bytes\n",
            self.lock, self.size
        );
        let mut line = |line: fmt::Arguments<'_>| {
            // A name or a reason may hold anything; a line of the report stays a line.
            for letter in line.to_string().chars() {
                if letter.is_control() {
                    out.extend(letter.escape_default());
                } else {
                    out.push(letter);
                }
            }
            out.push('\n');
        };
        if let Some((digest, requests)) = self.config {
            line(format_args!("config {digest} {requests} requests"));
        }
        for (name, (digest, size)) in &self.rules {
            match size {
                Some(size) => line(format_args!("rule {name} {digest} {size} bytes")),
                None => line(format_args!("rule {name} {digest} absent")),
            }
        }
        for image in &self.images {
            line(format_args!(
                "image {} {} {}",
                image.image, image.digest, image.place
            ));
        }
        for skip in &self.skips {
            line(format_args!("skip {} {:?}", skip.image, skip.reason));
        }
        if let Some(closure) = self.closure {
            line(format_args!(
                "closure {} {} manifests, {} blobs, {} bytes",
                closure.list, closure.manifests, closure.blobs, closure.bytes
            ));
        }
        for (stream, sequence, id, lock) in &self.archives {
            line(format_args!("archive {stream} {sequence} {id} lock {lock}"));
        }
        for (stream, sequence, id, sealed) in &self.carried {
            let sealed = if *sealed { " sealed" } else { "" };
            line(format_args!("carried {stream} {sequence} {id}{sealed}"));
        }
        if let Some((images, manifests, blobs, bytes)) = self.destination {
            line(format_args!(
                "destination {images} images, {manifests} manifests, {blobs} blobs, {bytes} bytes"
            ));
        }
        for finding in &self.findings {
            let mut text = String::new();
            if !finding.owners.is_empty() {
                let _ = write!(text, "; needed by {}", finding.owners.join(", "));
            }
            line(format_args!(
                "finding {} {}: {}{text}",
                finding.kind, finding.item, finding.what
            ));
        }
        if self.is_sound() {
            line(format_args!("sound"));
        }
        out
    }

    /// The SHA-256 of [`Report::text`]: what two auditors compare.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }

    fn find(&mut self, kind: Kind, item: impl fmt::Display, what: impl Into<String>) {
        self.findings.push(Finding {
            kind,
            item: item.to_string(),
            what: what.into(),
            owners: Vec::new(),
        });
    }
}

/// Audits a lock against a store, its config and its chain.
///
/// # Errors
/// If the store cannot be listed, or on a stop. Whatever is merely wrong is in the report.
pub fn audit(subject: &Subject<'_>) -> Result<Report, AuditError> {
    (subject.observer)(Event::Phase { phase: "audit" });
    let mut report = Report {
        version: VERSION,
        lock: Digest::of(subject.lock),
        size: subject.lock.len() as u64,
        config: None,
        rules: BTreeMap::new(),
        images: Vec::new(),
        skips: Vec::new(),
        closure: None,
        archives: Vec::new(),
        carried: Vec::new(),
        destination: None,
        findings: Vec::new(),
    };
    if let Some(lock) = lock(subject, &mut report) {
        let rules = rules(subject.store, &lock, &mut report)?;
        let built = match &rules {
            Some(rules) => built(subject.store, &lock, rules, &mut report),
            None => Vec::new(),
        };
        if let Some(rules) = &rules {
            places(&lock, &built, rules, &mut report);
        }
        if let Some(config) = &subject.config {
            answers(&lock, rules.as_ref(), config, &mut report);
        }
        report.skips = lock
            .skips
            .iter()
            .map(|skip| Skipped {
                image: skip.image.clone(),
                reason: skip.reason.clone(),
            })
            .collect();
        for skip in &lock.skips {
            if skip.reason.trim().is_empty() {
                report.find(
                    Kind::Lock,
                    format!("skip {}", skip.image),
                    "it gives no reason",
                );
            }
        }
        if let Some(rules) = &rules {
            signatures(subject.store, &lock, rules, &mut report);
        }
        closure(subject, &lock, &built, &mut report)?;
        // Work on bytes that are not those of the lock would say nothing.
        let is_whole = report
            .findings
            .iter()
            .all(|finding| !matches!(finding.kind, Kind::Manifest | Kind::Blob | Kind::Rule));
        if let (true, Some(rules)) = (is_whole, &rules) {
            work(subject, &lock, rules, &mut report)?;
        }
        if let (Some(delivered), Some(rules)) = (&subject.destination, &rules) {
            destination(subject, delivered, &lock, &built, rules, &mut report)?;
        }
    }
    for path in subject.store.memo().unreadable()? {
        report.find(Kind::Memo, path, "the record is not what was written");
    }
    if let Some((stream, text)) = subject.chain {
        chain(subject.store, stream, text, &mut report)?;
    }
    if !subject.archives.is_empty() {
        carried(subject, &mut report)?;
    }
    report.findings.sort();
    report.findings.dedup();
    Ok(report)
}

/// Reads the lock, and writes it again.
fn lock(subject: &Subject<'_>, report: &mut Report) -> Option<Lock> {
    let Ok(written) = std::str::from_utf8(subject.lock) else {
        report.find(Kind::Lock, report.lock, "it is not text");
        return None;
    };
    let lock = match text::parse(written, "lock") {
        Ok(lock) => lock,
        Err(error) => {
            report.find(Kind::Lock, report.lock, one_line(&error));
            return None;
        }
    };
    if let Err(error) = text::is_canonical(written, &lock) {
        report.find(Kind::Lock, report.lock, one_line(&error));
    }
    // What is wrong with a lock by itself; its form has been said, and tags are placed below.
    for complaint in check::check(&lock, &text::emit(&lock), &|_, _, _| None) {
        report.find(Kind::Lock, report.lock, one_line(&complaint));
    }
    Some(lock)
}

/// The rule files that the lock names, from the store alone; `None` if they cannot be had.
fn rules(store: &Store, lock: &Lock, report: &mut Report) -> Result<Option<Rules>, AuditError> {
    let mut texts = Vec::new();
    for (name, digest) in &lock.rules {
        let size = store.size_of(digest)?;
        report.rules.insert(name.clone(), (*digest, size));
        let Some(size) = size else {
            report.find(Kind::Rule, name, format!("{digest} is not in the store"));
            continue;
        };
        let blob = Blob {
            digest: *digest,
            size,
        };
        match read(store, &blob, RULE_LIMIT) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => texts.push((name.clone(), text)),
                Err(_) => report.find(Kind::Rule, name, format!("{digest} is not text")),
            },
            Err(error) => report.find(Kind::Rule, name, one_line(&error)),
        }
    }
    if texts.len() < lock.rules.len() {
        return Ok(None);
    }
    match Rules::with(texts) {
        Ok(rules) => Ok(Some(rules)),
        Err(error) => {
            report.find(Kind::Rule, "all", one_line(&error));
            Ok(None)
        }
    }
}

/// Everything that was read out of bytes or built of them, done again: the lists of the lock and the memo.
fn work(
    subject: &Subject<'_>,
    lock: &Lock,
    rules: &Rules,
    report: &mut Report,
) -> Result<(), AuditError> {
    let deviations = rederive(subject.store, lock, rules, subject.stop)
        .map_err(|error| AuditError::Work(one_line(&error)))?;
    if subject.stop.load(Ordering::Relaxed) {
        return Err(AuditError::Stopped);
    }
    for deviation in deviations {
        match deviation {
            Deviation::Record { key, what } => report.find(Kind::Memo, key, what),
            Deviation::List { what } => report.find(Kind::Lock, report.lock, what),
            Deviation::Work { owner, what } => report.find(
                Kind::Lock,
                owner,
                format!("its list cannot be derived again: {what}"),
            ),
        }
    }
    Ok(())
}

/// That signatures are there and hold, wherever the lock demands them, with the keys that it names.
fn signatures(store: &Store, lock: &Lock, rules: &Rules, report: &mut Report) {
    let file = |digest: &Digest| {
        let size = store.size_of(digest).ok()??;
        let blob = Blob {
            digest: *digest,
            size,
        };
        read(store, &blob, RULE_LIMIT).ok()
    };
    for unvouched in signed::verify_pinned(lock, rules, store, &file).1 {
        report.findings.push(Finding {
            kind: Kind::Signature,
            item: unvouched.image,
            what: format!("{} ({})", unvouched.reason, unvouched.rule),
            owners: vec![unvouched.owner],
        });
    }
    for unsigned in release::unsigned(lock, rules, store, &file).1 {
        report.findings.push(Finding {
            kind: Kind::Signature,
            item: unsigned.image,
            what: unsigned.reason,
            owners: vec![format!("release {}", unsigned.version)],
        });
    }
}

/// What was made of the lock, as the store remembers it.
fn built(store: &Store, lock: &Lock, rules: &Rules, report: &mut Report) -> Vec<Built> {
    let known = built::recipes(lock, rules).and_then(|recipes| {
        let known = built::known(lock, rules, store)?;
        Ok((recipes, known))
    });
    match known {
        Ok((recipes, known)) => {
            for recipe in recipes {
                if !known.iter().any(|built| built.owner == recipe.owner) {
                    report.find(
                        Kind::Memo,
                        recipe.owner.to_string(),
                        "its image was never built here",
                    );
                }
            }
            known
        }
        Err(error) => {
            report.find(Kind::Rule, "all", one_line(&error));
            Vec::new()
        }
    }
}

/// Where every image goes, and that no two share a place.
fn places(lock: &Lock, built: &[Built], rules: &Rules, report: &mut Report) {
    let layout = Layout::default();
    match placements(lock, built, rules, &layout) {
        Ok(placements) => {
            if let Err(error) = refuse_collisions(&placements, "", &layout) {
                report.find(Kind::Place, "all", one_line(&error));
            }
            report.images = placements
                .iter()
                .map(|placement| Placed {
                    image: placement.origin.to_string(),
                    digest: placement.digest,
                    place: format!("{}:{}", placement.path, placement.tag),
                })
                .collect();
            report.images.sort_by(|a, b| {
                (&a.image, &a.place, a.digest).cmp(&(&b.image, &b.place, b.digest))
            });
        }
        Err(error) => report.find(Kind::Place, "all", one_line(&error)),
    }
}

/// That the lock answers its config, line by line.
fn answers(lock: &Lock, rules: Option<&Rules>, config: &Config<'_>, report: &mut Report) {
    let Some(rules) = rules else {
        report.find(
            Kind::Config,
            config.digest,
            "without its rule files nobody can say what it asks for",
        );
        return;
    };
    match (config.wanted)(lock, rules) {
        Ok(wanted) => {
            report.config = Some((config.digest, wanted.len()));
            for complaint in check::wants(lock, &wanted) {
                report.find(Kind::Config, config.digest, one_line(&complaint));
            }
        }
        Err(problem) => report.find(Kind::Config, config.digest, problem.replace('\n', " ")),
    }
}

/// Hashes one blob of the store; what is wrong with it, if anything.
fn hash(store: &Store, blob: &Blob, stop: &AtomicBool) -> Option<String> {
    let mut bytes = match store.open(blob, 0) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            return Some(match store.size_of(&blob.digest) {
                Ok(Some(size)) => format!(
                    "it has {size} bytes in the store, and {} were promised",
                    blob.size
                ),
                _ => "it is not in the store".to_owned(),
            });
        }
        Err(error) => return Some(unreadable(&error)),
    };
    let mut state = Hasher::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        match bytes.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => state.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Some(unreadable(&error)),
        }
    }
    let length = state.length();
    let found = state.finish();
    if found != blob.digest {
        return Some(format!("its bytes in the store are those of {found}"));
    }
    (length != blob.size).then(|| format!("it has {length} bytes, and {} were promised", blob.size))
}

/// The same words on every system.
fn unreadable(error: &io::Error) -> String {
    format!("it cannot be read ({})", error.kind())
}

/// Grows the plan from the store's manifests, then hashes everything it comes to.
fn closure(
    subject: &Subject<'_>,
    lock: &Lock,
    built: &[Built],
    report: &mut Report,
) -> Result<(), AuditError> {
    let store = subject.store;
    // Root by root: one that cannot be understood does not hide the others.
    let mut sound: Vec<Root> = Vec::new();
    let mut sizes: BTreeMap<Digest, u64> = BTreeMap::new();
    for root in roots(lock, built) {
        let blob = root.fetch.blob;
        let known = *sizes.entry(blob.digest).or_insert(blob.size);
        if known == blob.size {
            sound.push(root);
        } else {
            report.find(
                Kind::Lock,
                blob.digest,
                format!(
                    "{} gives it {} bytes, and another block {known}",
                    root.owner, blob.size
                ),
            );
        }
    }
    let mut plan = match Plan::of(sound) {
        Ok(plan) => plan,
        Err(error) => {
            report.find(Kind::Lock, report.lock, one_line(&error));
            return Ok(());
        }
    };
    let mut refused: BTreeSet<Digest> = BTreeSet::new();
    loop {
        let unread: Vec<Blob> = plan
            .unread()
            .into_iter()
            .map(|fetch| fetch.blob)
            .filter(|blob| !refused.contains(&blob.digest))
            .collect();
        if unread.is_empty() {
            break;
        }
        for blob in unread {
            // What cannot be read is found again below, with its owners.
            let Ok(bytes) = read(store, &blob, MANIFEST_LIMIT) else {
                refused.insert(blob.digest);
                continue;
            };
            if let Err(error) = plan.read(&blob.digest, &bytes) {
                refused.insert(blob.digest);
                let mut finding = Finding {
                    kind: Kind::Manifest,
                    item: blob.digest.to_string(),
                    what: one_line(&error),
                    owners: plan.owners(&blob.digest),
                };
                finding.owners.dedup();
                report.findings.push(finding);
            }
        }
    }
    let closure = match plan.closure() {
        Ok(closure) => closure,
        Err(error) => {
            report.find(Kind::Manifest, "all", one_line(&error));
            return Ok(());
        }
    };
    let manifests: BTreeSet<Digest> = closure.manifests.iter().map(|blob| blob.digest).collect();
    let mut all = closure.sorted();
    report.closure = Some(Listed {
        list: Digest::of(&list::print(&all)),
        manifests: closure.manifests.len(),
        blobs: closure.blobs.len(),
        bytes: closure.bytes(),
    });
    for blob in &all {
        (subject.observer)(Event::Planned {
            blobs: 1,
            bytes: blob.size,
        });
    }
    // The largest first, so that none of them is the last to begin.
    all.sort_by_key(|blob| (std::cmp::Reverse(blob.size), blob.digest));
    let mut damaged: Vec<(Blob, String)> = all
        .par_iter()
        .filter_map(|blob| {
            if subject.stop.load(Ordering::Relaxed) {
                return None;
            }
            let problem = hash(store, blob, subject.stop);
            (subject.observer)(Event::Done {
                digest: blob.digest,
                size: blob.size,
                present: true,
            });
            problem.map(|problem| (*blob, problem))
        })
        .collect();
    if subject.stop.load(Ordering::Relaxed) {
        return Err(AuditError::Stopped);
    }
    damaged.sort();
    for (blob, what) in damaged {
        let is_manifest = manifests.contains(&blob.digest);
        let below = if is_manifest {
            "; what it names was not looked at"
        } else {
            ""
        };
        report.findings.push(Finding {
            kind: if is_manifest {
                Kind::Manifest
            } else {
                Kind::Blob
            },
            item: blob.digest.to_string(),
            what: format!("{what}{below}"),
            owners: plan.owners(&blob.digest),
        });
    }
    Ok(())
}

/// Asks a destination for everything that the lock names.
fn destination(
    subject: &Subject<'_>,
    delivered: &Delivered<'_>,
    lock: &Lock,
    built: &[Built],
    rules: &Rules,
    report: &mut Report,
) -> Result<(), AuditError> {
    let claims = match claims(lock, built, rules, delivered.place, delivered.layout) {
        Ok(claims) => claims,
        Err(error) => {
            report.find(Kind::Place, "destination", one_line(&error));
            return Ok(());
        }
    };
    let proof = prove(
        &claims,
        delivered.holdings,
        false,
        delivered.workers,
        subject.observer,
        subject.stop,
    );
    if proof.stopped {
        return Err(AuditError::Stopped);
    }
    report.destination = Some((proof.whole, proof.manifests, proof.blobs, proof.bytes));
    for (problem, images) in proof.problems {
        let (item, kind) = match &problem {
            Problem::NoTag { at, .. }
            | Problem::OtherTag { at, .. }
            | Problem::NoManifest { at, .. }
            | Problem::NoBlob { at, .. }
            | Problem::Damaged { at, .. } => (at.clone(), Kind::Destination),
            Problem::Unknown { at, .. } => (at.clone(), Kind::Unanswered),
        };
        report.findings.push(Finding {
            kind,
            item,
            what: problem.to_string(),
            owners: images.into_iter().collect(),
        });
    }
    Ok(())
}

/// Holds the chain to itself, to what the store recorded of it, and to the archive manifests that are there.
fn chain(
    store: &Store,
    stream: &Stream,
    bytes: &[u8],
    report: &mut Report,
) -> Result<(), AuditError> {
    let name = stream.as_str();
    let chain = match std::str::from_utf8(bytes).map(Chain::parse) {
        Ok(Ok(chain)) => chain,
        Ok(Err(error)) => {
            report.find(Kind::Chain, name, one_line(&error));
            return Ok(());
        }
        Err(_) => {
            report.find(Kind::Chain, name, "it is not text");
            return Ok(());
        }
    };
    let records = store.stream(name)?;
    for line in chain.lines() {
        report
            .archives
            .push((name.to_owned(), line.sequence, line.archive_id, line.lock));
        archive(store, name, &chain, line, report)?;
    }
    let stored = records.read("chain")?.map(|bytes| {
        std::str::from_utf8(&bytes)
            .map_err(|_| ())
            .and_then(|text| Chain::parse(text).map_err(|_| ()))
    });
    match stored {
        None => {}
        Some(Err(())) => report.find(Kind::Chain, name, "the store's copy of it cannot be read"),
        Some(Ok(stored)) => {
            for line in stored.lines() {
                let item = format!("{name} {}", line.sequence);
                match chain.line(line.sequence) {
                    Some(ours) if ours == line => {}
                    Some(_) => report.find(
                        Kind::Chain,
                        item,
                        "the store recorded another line when it was exported",
                    ),
                    None => report.find(
                        Kind::Chain,
                        item,
                        "the store recorded a line that the chain does not have",
                    ),
                }
            }
        }
    }
    Ok(())
}

/// Reads archives, every byte, and holds them to the chain and to their seals.
fn carried(subject: &Subject<'_>, report: &mut Report) -> Result<(), AuditError> {
    // Where a file lies is nobody's business; what it is called is.
    let found = |report: &mut Report, error: &ArchiveError| {
        let mut what = one_line(error);
        for path in subject.archives {
            let folder = if path.is_dir() {
                Some(path.as_path())
            } else {
                path.parent()
            };
            if let Some(folder) = folder.map(|folder| folder.display().to_string())
                && !folder.is_empty()
            {
                what = what.replace(&format!("{}/", folder.trim_end_matches('/')), "");
            }
        }
        let (item, what) = match what.split_once(": ") {
            Some((item, what)) => (item.to_owned(), what.to_owned()),
            None => ("all".to_owned(), what),
        };
        report.find(Kind::Archive, item, what);
    };
    let chain = subject
        .chain
        .and_then(|(_, bytes)| std::str::from_utf8(bytes).ok())
        .and_then(|text| Chain::parse(text).ok());
    let set = match Set::open(subject.archives) {
        Ok(set) => set,
        Err(error) => {
            found(report, &error);
            return Ok(());
        }
    };
    if set.archives().is_empty() && set.broken().is_empty() {
        report.find(Kind::Archive, "all", "no archive is there");
        return Ok(());
    }
    let options = Options {
        chain: chain.as_ref(),
        trust: subject.trust,
        stop: Some(subject.stop),
        ..Options::default()
    };
    for archive in set.archives() {
        let verified = verify(archive, &options, &|_| ());
        if subject.stop.load(Ordering::Relaxed) {
            return Err(AuditError::Stopped);
        }
        match verified {
            Ok(verified) => report.carried.push((
                verified.stream.as_str().to_owned(),
                verified.sequence,
                verified.archive_id,
                verified.sealed.is_some(),
            )),
            Err(failures) => {
                for error in &failures.errors {
                    found(report, error);
                }
            }
        }
    }
    for error in set.broken() {
        found(report, error);
    }
    report.carried.sort();
    Ok(())
}

/// Holds one line of the chain to the archive manifest and the lock that are stored for it.
fn archive(
    store: &Store,
    name: &str,
    chain: &Chain,
    line: &Line,
    report: &mut Report,
) -> Result<(), AuditError> {
    let item = format!("{name} {}", line.sequence);
    let record = format!("manifest {:06}", line.sequence);
    if let Some(bytes) = store.stream(name)?.read(&record)? {
        let found = Digest::of(&bytes);
        match ArchiveManifest::parse(&bytes) {
            Err(error) => report.find(
                Kind::Archive,
                &item,
                format!("its stored manifest is none: {}", one_line(&error)),
            ),
            Ok(_) if found != line.archive_id => report.find(
                Kind::Archive,
                &item,
                format!(
                    "its stored manifest is {found}, and the chain says {}",
                    line.archive_id
                ),
            ),
            Ok(manifest) => {
                if let Err(error) = chain.check(&manifest) {
                    report.find(Kind::Chain, &item, one_line(&error));
                }
            }
        }
    }
    if let Some(size) = store.size_of(&line.lock)? {
        let blob = Blob {
            digest: line.lock,
            size,
        };
        if let Some(what) = hash(store, &blob, &AtomicBool::new(false)) {
            report.find(
                Kind::Archive,
                &item,
                format!("its lock {} is damaged: {what}", line.lock),
            );
        }
    }
    Ok(())
}
