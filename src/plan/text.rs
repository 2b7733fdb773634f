//! The lock as text: TOML, with an emitter of its own so that every byte is under control.
//!
//! ```toml
//! # imgbuild lockfile, written by `imgbuild lock`. Review it and merge it; do not edit it by hand.
//! version = 1
//!
//! [rules]
//! release = "sha256:…"
//!
//! #: a comment of the owner stays with the block below it
//! [[image]]
//! ref = "registry.example.test/ubi:9"
//! want = { platforms = ["linux/amd64"] }
//! image = "registry.example.test/ubi@sha256:…"
//! size = 1485
//! platforms = ["linux/amd64"]
//! ```
//!
//! What is promised:
//! * **One form.** `emit(parse(file)) == file` for every file that `emit` wrote, and [`is_canonical`] names the first
//!   line of any other file that would read differently.
//! * **Locality.** No line depends on more than one block. Lists that grow (components, bundles, images, risks) have
//!   one element per line and a trailing comma, so an element is a line. Empty lists are left out. The keys of a
//!   `want` ascend, but `min` stands before `max`.
//! * **Errors point.** Every one has a line and a column, and quotes what was found there.
//!
//! Keys are known or refused. A file with a greater `revision` than [`REVISION`] may hold unknown keys: it is read,
//! and never rewritten ([`Lock::is_newer`]). A file with a greater `version` than [`VERSION`] is refused by name.
//!
//! ## How the format may change
//! A new optional key raises `revision`; anything an older reader would misunderstand raises `version`. Reading the
//! next version ships at least one minor release before anything writes it.
//!
//! ## Why not serde
//! A derived reader gives one error without the names of nested keys, cannot say which block was repeated, and drops
//! comments. The tree that the `toml` crate parses has the place of every key and value, so it is walked by hand.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::key::BlockKey;
use super::key::ReleaseName;
use super::lock::Block;
use super::lock::{
    Blocked, Bundle, Catalog, Chart, ChartSource, Component, File, Image, Lock, Package, Payload,
    Pin, PinError, REVISION, Release, Risk, Signature, Skip, VERSION, Want, parse_image,
    want_order,
};
use crate::canon::Value;
use crate::digest::{Digest, DigestError};
use crate::hint::Hint;
use crate::oci::{PlatformError, PlatformName};
use crate::reference::{ReferenceError, Tag};
use crate::store::Blob;

/// The line every lock opens with.
pub(super) const TITLE: &str = "# imgbuild lockfile, written by `imgbuild lock`. Review it and merge it; do not edit it by hand.";

/// What opens a comment that belongs to the owner of the file.
const OWNER_COMMENT: &str = "#:";

/// Longest piece of the file that an error quotes, in characters.
const QUOTED: usize = 120;

/// A block as lines, for writing and for merging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) key: BlockKey,
    /// Lines of the owner's comment, without `#:`.
    pub(super) comments: Vec<String>,
    /// `release.payload`, between the brackets.
    pub(super) header: &'static str,
    pub(super) fields: Vec<Field>,
}

/// One key of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) value: FieldValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FieldValue {
    /// What stands behind the `=`.
    Line(String),
    /// A list with an element per line: what tells it from the others, and the element.
    Items(Vec<(String, String)>),
}

impl Part {
    /// Appends the block, without the empty line above it.
    pub(super) fn write(&self, out: &mut String) {
        for line in &self.comments {
            out.push_str(OWNER_COMMENT);
            out.push_str(line);
            out.push('\n');
        }
        out.push_str("[[");
        out.push_str(self.header);
        out.push_str("]]\n");
        for field in &self.fields {
            match &field.value {
                FieldValue::Line(line) => {
                    out.push_str(field.key);
                    out.push_str(" = ");
                    out.push_str(line);
                    out.push('\n');
                }
                FieldValue::Items(items) if items.is_empty() => {}
                FieldValue::Items(items) => {
                    out.push_str(field.key);
                    out.push_str(" = [\n");
                    for (_, item) in items {
                        out.push_str("  ");
                        out.push_str(item);
                        out.push_str(",\n");
                    }
                    out.push_str("]\n");
                }
            }
        }
    }
}

/// Writes a lock, in its one form.
///
/// A lock that [`Lock::is_newer`] loses what was not read: do not write it over its file.
#[must_use]
pub fn emit(lock: &Lock) -> String {
    let lock = lock.canonical();
    let mut out = head(lock.version, lock.revision);
    if !lock.rules.is_empty() {
        out.push_str("\n[rules]\n");
        for (name, digest) in &lock.rules {
            out.push_str(&rule_line(name, digest));
        }
    }
    for part in parts(&lock) {
        out.push('\n');
        part.write(&mut out);
    }
    out
}

/// The lines above everything else.
pub(super) fn head(version: u32, revision: Option<u32>) -> String {
    let mut out = format!("{TITLE}\nversion = {version}\n");
    if let Some(revision) = revision {
        writeln!(out, "revision = {revision}").expect("writing to a String cannot fail");
    }
    out
}

/// The line of one rule.
pub(super) fn rule_line(name: &str, digest: &Digest) -> String {
    let mut out = String::new();
    write_key(name, &mut out);
    writeln!(out, " = \"{digest}\"").expect("writing to a String cannot fail");
    out
}

/// The blocks of a canonical lock as lines, in the order of the file. Payloads are parts of their own, behind their
/// release.
pub(super) fn parts(lock: &Lock) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut push = |key: BlockKey, header, fields: Fields| {
        parts.push(Part {
            comments: lock.comments.get(&key).cloned().unwrap_or_default(),
            key,
            header,
            fields: fields.0,
        });
    };
    for block in lock.blocks() {
        let mut fields = Fields::default();
        let key = block.key();
        match block {
            Block::Release(release) => {
                match &release.name {
                    ReleaseName::Channel(channel) => fields.text("channel", channel),
                    ReleaseName::Reference(reference) => fields.text("ref", reference),
                }
                fields.text("arch", &release.arch);
                fields.want(&release.want);
                fields.items(
                    "risks",
                    release.risks.iter().map(|risk| {
                        let mut item = Inline::default();
                        item.text("name", &risk.name);
                        item.text("url", &risk.url);
                        (risk.name.clone(), item.finish())
                    }),
                );
                push(key, "release", fields);
                for payload in &release.payloads {
                    let mut fields = Fields::default();
                    fields.text("version", &payload.version);
                    fields.pin(&payload.pin);
                    fields.items(
                        "components",
                        payload.components.iter().map(|component| {
                            let mut item = Inline::default();
                            item.text("name", &component.name);
                            item.pin(&component.pin);
                            (component.name.clone(), item.finish())
                        }),
                    );
                    push(release.payload_key(payload), "release.payload", fields);
                }
                continue;
            }
            Block::Catalog(catalog) => {
                fields.text("ref", &catalog.reference);
                fields.want(&catalog.want);
                fields.pin(&catalog.pin);
            }
            Block::Package(_, package) => {
                fields.text("name", &package.name);
                if let Some(want) = &package.want {
                    fields.want(want);
                }
                fields.digest("fbc", &package.fbc);
                if let Some(from) = &package.from {
                    fields.digest("from", from);
                }
                fields.items(
                    "bundles",
                    package.bundles.iter().map(|bundle| {
                        let mut item = Inline::default();
                        item.text("name", &bundle.name);
                        item.key("channels");
                        write_texts(&bundle.channels, &mut item.0);
                        item.pin(&bundle.pin);
                        (bundle.name.clone(), item.finish())
                    }),
                );
                fields.images(&package.images);
            }
            Block::Image(image) => {
                fields.text("ref", &image.reference);
                fields.want(&image.want);
                fields.pin(&image.pin);
            }
            Block::Chart(chart) => {
                fields.text("ref", &chart.reference);
                if let Some(name) = &chart.name {
                    fields.text("name", name);
                }
                if let Some(version) = &chart.version {
                    fields.text("version", version);
                }
                fields.want(&chart.want);
                match &chart.source {
                    ChartSource::File { url, file } => {
                        if let Some(url) = url {
                            fields.text("url", url);
                        }
                        fields.file(file);
                    }
                    ChartSource::Image(pin) => fields.pin(pin),
                }
                fields.images(&chart.images);
            }
            Block::File(file) => {
                fields.text("ref", &file.reference);
                fields.want(&file.want);
                fields.file(&file.file);
            }
            Block::Blocked(blocked) => fields.text("name", &blocked.name),
            Block::Skip(skip) => {
                fields.text("image", &skip.image);
                fields.text("reason", &skip.reason);
            }
            Block::Payload(..) => unreachable!("payloads come with their release"),
        }
        let header = match &key {
            BlockKey::Package { .. } => "catalog.package",
            other => other.kind(),
        };
        push(key, header, fields);
    }
    parts
}

/// The keys of a block, as they are collected.
#[derive(Default)]
struct Fields(Vec<Field>);

impl Fields {
    fn line(&mut self, key: &'static str, line: String) {
        self.0.push(Field {
            key,
            value: FieldValue::Line(line),
        });
    }

    fn text(&mut self, key: &'static str, text: &str) {
        let mut line = String::with_capacity(text.len() + 2);
        write_text(text, &mut line);
        self.line(key, line);
    }

    fn digest(&mut self, key: &'static str, digest: &Digest) {
        self.line(key, format!("\"{digest}\""));
    }

    fn want(&mut self, want: &Want) {
        let mut line = String::new();
        write_map(want.settings(), &mut line);
        self.line("want", line);
    }

    fn pin(&mut self, pin: &Pin) {
        self.text("image", &pin.image());
        if let Some(tag) = &pin.tag {
            self.text("tag", tag.as_str());
        }
        self.line("size", pin.size.to_string());
        if !pin.platforms.is_empty() {
            let mut line = String::new();
            write_platforms(&pin.platforms, &mut line);
            self.line("platforms", line);
        }
        if !pin.signatures.is_empty() {
            let mut line = String::new();
            write_signatures(&pin.signatures, &mut line);
            self.line("signatures", line);
        }
    }

    fn file(&mut self, file: &Blob) {
        self.digest("file", &file.digest);
        self.line("size", file.size.to_string());
    }

    fn items(&mut self, key: &'static str, items: impl Iterator<Item = (String, String)>) {
        self.0.push(Field {
            key,
            value: FieldValue::Items(items.collect()),
        });
    }

    fn images(&mut self, images: &[Pin]) {
        self.items(
            "images",
            images.iter().map(|pin| {
                let mut item = Inline::default();
                item.pin(pin);
                (image_item(pin), item.finish())
            }),
        );
    }
}

/// What tells one element of a list of images from the others: the same image may stand there under two tags.
/// These names sort as their images do.
fn image_item(pin: &Pin) -> String {
    match &pin.tag {
        Some(tag) => format!("{}\0{tag}", pin.image()),
        None => pin.image(),
    }
}

/// An inline table, as it is written.
#[derive(Default)]
struct Inline(String);

impl Inline {
    fn key(&mut self, key: &str) {
        self.0.push_str(if self.0.is_empty() { "{ " } else { ", " });
        self.0.push_str(key);
        self.0.push_str(" = ");
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        write_text(text, &mut self.0);
    }

    fn pin(&mut self, pin: &Pin) {
        self.text("image", &pin.image());
        if let Some(tag) = &pin.tag {
            self.text("tag", tag.as_str());
        }
        self.key("size");
        self.0.push_str(&pin.size.to_string());
        if !pin.platforms.is_empty() {
            self.key("platforms");
            write_platforms(&pin.platforms, &mut self.0);
        }
        if !pin.signatures.is_empty() {
            self.key("signatures");
            write_signatures(&pin.signatures, &mut self.0);
        }
    }

    fn finish(mut self) -> String {
        self.0.push_str(" }");
        self.0
    }
}

/// Appends a basic string.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            control if control.is_ascii_control() => {
                write!(out, "\\u{:04X}", u32::from(control))
                    .expect("writing to a String cannot fail");
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

/// Appends a key, bare where TOML allows it.
fn write_key(key: &str, out: &mut String) {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !key.is_empty() && key.bytes().all(bare) {
        out.push_str(key);
    } else {
        write_text(key, out);
    }
}

fn write_list<T>(items: &[T], out: &mut String, mut write: impl FnMut(&T, &mut String)) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write(item, out);
    }
    out.push(']');
}

fn write_texts(texts: &[String], out: &mut String) {
    write_list(texts, out, |text, out| write_text(text, out));
}

fn write_platforms(platforms: &[PlatformName], out: &mut String) {
    write_list(platforms, out, |platform, out| {
        write_text(&platform.to_string(), out);
    });
}

fn write_signatures(signatures: &[Signature], out: &mut String) {
    write_list(signatures, out, |signature, out| {
        write!(
            out,
            "{{ digest = \"{}\", size = {}, from = ",
            signature.digest, signature.size
        )
        .expect("writing to a String cannot fail");
        write_text(&signature.from, out);
        out.push_str(" }");
    });
}

fn write_map(entries: &BTreeMap<String, Value>, out: &mut String) {
    if entries.is_empty() {
        out.push_str("{}");
        return;
    }
    for (index, (name, value)) in want_order(entries).enumerate() {
        out.push_str(if index == 0 { "{ " } else { ", " });
        write_key(name, out);
        out.push_str(" = ");
        write_value(value, out);
    }
    out.push_str(" }");
}

/// Appends a setting of a want.
pub(super) fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Integer(value) => out.push_str(&value.to_string()),
        Value::Text(text) => write_text(text, out),
        Value::Digest(digest) => write_text(&digest.to_string(), out),
        Value::List(items) => write_list(items, out, write_value),
        Value::Map(entries) => write_map(entries, out),
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The file, as the caller calls it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Why a text is not a lock, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockError {
    /// Where.
    pub at: Position,
    /// What stands there, up to the end of its line.
    pub text: String,
    /// What is wrong with it.
    pub problem: Box<Problem>,
}

impl fmt::Display for LockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.at, self.problem)
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(self.problem.as_ref())
    }
}

/// What is wrong with a lock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is not TOML.
    #[error("this is not TOML: {message}")]
    Syntax {
        /// What the TOML parser says.
        message: String,
    },
    /// Git left two versions of something in it.
    #[error("the lock has merge conflict markers")]
    Conflicted,
    /// It does not say which version of the format it has.
    #[error("the lock has no version: expected `version = {VERSION}`")]
    NoVersion,
    /// A newer imgbuild wrote it.
    #[error("lock version {found}; this imgbuild reads up to {VERSION}: upgrade imgbuild")]
    Version {
        /// The version it has.
        found: String,
    },
    /// A key that means nothing here.
    #[error("unknown key {key:?} in {table}")]
    UnknownKey {
        /// The key.
        key: String,
        /// The table it stands in.
        table: &'static str,
        /// The known key that it resembles.
        nearest: Option<&'static str>,
    },
    /// A key is missing.
    #[error("{table} has no {key}")]
    MissingKey {
        /// The key, or the keys of which one must be there.
        key: &'static str,
        /// The table it is missing in.
        table: &'static str,
    },
    /// Two keys that exclude each other.
    #[error("{table} has both {one} and {other}: expected one of them")]
    Both {
        /// The table they stand in.
        table: &'static str,
        /// A key.
        one: &'static str,
        /// The other key.
        other: &'static str,
    },
    /// A value of another type.
    #[error("{key} is {found}: expected {expected}")]
    Type {
        /// The key.
        key: String,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A number that is out of bounds.
    #[error("{key} is {found}: expected a whole number from {least} to {most}")]
    Range {
        /// The key.
        key: String,
        /// The number.
        found: String,
        /// The least that is accepted.
        least: i64,
        /// The greatest that is accepted.
        most: i64,
    },
    /// A text that must not be empty.
    #[error("{key} is empty")]
    Empty {
        /// The key.
        key: String,
    },
    /// A malformed digest.
    #[error("{key} is not a digest")]
    Digest {
        /// The key.
        key: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// A malformed image.
    #[error("{key} is not a pinned image")]
    Pin {
        /// The key.
        key: String,
        /// What is wrong with it.
        source: PinError,
    },
    /// A malformed tag.
    #[error("{key} is not a tag")]
    Tag {
        /// The key.
        key: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// A malformed platform.
    #[error("{key} is not a platform")]
    Platform {
        /// The key.
        key: String,
        /// What is wrong with it.
        source: PlatformError,
    },
    /// Two blocks have the same name.
    #[error("{key} is there twice: first in line {first}")]
    Duplicate {
        /// The block.
        key: BlockKey,
        /// The line that the first of the two opens in.
        first: usize,
    },
    /// Two elements of a list have the same name.
    #[error("{list} names {name} twice: first in line {first}")]
    Repeated {
        /// The list.
        list: &'static str,
        /// The name.
        name: String,
        /// The line of the first of the two.
        first: usize,
    },
}

impl Hint for LockError {
    fn hint(&self) -> Option<String> {
        match self.problem.as_ref() {
            Problem::Conflicted => Some(
                "run `imgbuild lock`: it keeps what both sides agree on and resolves the rest again"
                    .to_owned(),
            ),
            Problem::UnknownKey {
                nearest: Some(nearest),
                ..
            } => Some(format!("did you mean {nearest:?}?")),
            Problem::Syntax { .. } => Some(
                "take the last committed lock and run `imgbuild lock`: it is not meant to be edited by hand"
                    .to_owned(),
            ),
            Problem::Duplicate { .. } => {
                Some("keep the one that was reviewed, or remove both and run `imgbuild lock`".to_owned())
            }
            _ => None,
        }
    }
}

/// Reads a lock; `file` is what errors call it.
///
/// # Errors
/// If it is not a lock that this version reads.
pub fn parse(text: &str, file: &str) -> Result<Lock, LockError> {
    Reader {
        text,
        file,
        lines: None,
        lenient: false,
    }
    .lock()
}

/// A file that is a lock, but not in the form in which locks are written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line} is not as imgbuild writes it: expected {}, found {}",
    quoted(expected.as_deref()),
    quoted(found.as_deref())
)]
pub struct NotCanonical {
    /// The first line that differs, from 1.
    pub line: usize,
    /// What `emit` writes there; none behind its end.
    pub expected: Option<String>,
    /// What is there; none behind the end of the file.
    pub found: Option<String>,
}

fn quoted(line: Option<&str>) -> String {
    match line {
        Some(line) => format!("{line:?}"),
        None => "the end of the file".to_owned(),
    }
}

impl Hint for NotCanonical {
    fn hint(&self) -> Option<String> {
        Some(
            match &self.found {
                Some(found) if found.ends_with('\r') => {
                    "the file has the line ends of Windows: set `lockfiles/*.lock.toml text eol=lf` in .gitattributes"
                }
                _ => "run `imgbuild lock`; comments that are to stay open with `#:` directly above a block",
            }
            .to_owned(),
        )
    }
}

/// Whether `text`, which was read as `lock`, is byte for byte as [`emit`] writes it. A lock that
/// [`Lock::is_newer`] is taken as it is.
///
/// # Errors
/// If it is not; with the first line that differs.
pub fn is_canonical(text: &str, lock: &Lock) -> Result<(), NotCanonical> {
    if lock.is_newer() {
        return Ok(());
    }
    let expected = emit(lock);
    if expected == text {
        return Ok(());
    }
    let (mut expected, mut found) = (expected.split('\n'), text.split('\n'));
    let mut line = 0;
    loop {
        line += 1;
        let (expected, found) = (expected.next(), found.next());
        if expected != found || expected.is_none() {
            return Err(NotCanonical {
                line,
                expected: expected.map(str::to_owned),
                found: found.map(str::to_owned),
            });
        }
    }
}

/// A lock with merge conflict markers, as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicted {
    /// What both sides agree on. A disputed catalog that has undisputed packages is here as our side has it.
    pub lock: Lock,
    /// The blocks they do not agree on, in the order of the file. A release is disputed as a whole.
    pub disputed: Vec<BlockKey>,
}

/// Reads a lock that git left conflict markers in: what both sides agree on, and the names of the rest.
///
/// A block that only one side has is disputed too, since the file does not say whether it was added or removed.
/// A file without markers is read as [`parse`] reads it, with nothing disputed.
///
/// # Errors
/// If either side is not a lock, or the markers do not match.
pub fn parse_conflicted(text: &str, file: &str) -> Result<Conflicted, LockError> {
    let [ours, theirs] = sides(text, file)?;
    let read = |(text, lines): &(String, Vec<usize>)| {
        Reader {
            text,
            file,
            lines: Some(lines),
            lenient: false,
        }
        .lock()
    };
    let (mut lock, theirs) = (read(&ours)?, read(&theirs)?);
    lock.revision = lock.revision.max(theirs.revision);
    let mut disputed = std::collections::BTreeSet::new();
    for name in lock.rules.keys().chain(theirs.rules.keys()) {
        if lock.rules.get(name) != theirs.rules.get(name) {
            disputed.insert(BlockKey::Rule { name: name.clone() });
        }
    }
    let by_key = |lock: &Lock| -> BTreeMap<BlockKey, Part> {
        parts(lock)
            .into_iter()
            .map(|part| (part.key.clone(), part))
            .collect()
    };
    let (mine, other) = (by_key(&lock), by_key(&theirs));
    for key in mine.keys().chain(other.keys()) {
        if mine.get(key) != other.get(key) {
            disputed.insert(match key {
                BlockKey::Payload { .. } => key.parent().expect("a payload stands in a release"),
                key => key.clone(),
            });
        }
    }
    for key in &disputed {
        let keeps_packages = matches!(key, BlockKey::Catalog { .. })
            && mine
                .keys()
                .any(|other| other.parent().as_ref() == Some(key) && !disputed.contains(other));
        if !keeps_packages {
            lock.remove(key);
        }
    }
    Ok(Conflicted {
        lock,
        disputed: disputed.into_iter().collect(),
    })
}

/// Whether the text has conflict markers, and the first line with one.
fn marker(text: &str) -> Option<usize> {
    text.lines()
        .position(|line| is_marker(line, "<<<<<<<") || is_marker(line, ">>>>>>>"))
        .map(|index| index + 1)
}

/// Whether a line is the conflict marker `sign`, with or without a label.
fn is_marker(line: &str, sign: &str) -> bool {
    line.strip_prefix(sign)
        .is_some_and(|label| label.trim_end().is_empty() || label.starts_with(' '))
}

/// Both sides of a text with conflict markers, each with the number every line has in the file.
#[allow(
    clippy::type_complexity,
    reason = "a side is a text and its line numbers, here only"
)]
fn sides(text: &str, file: &str) -> Result<[(String, Vec<usize>); 2], LockError> {
    #[derive(PartialEq)]
    enum Within {
        Both,
        Ours,
        Base,
        Theirs,
    }
    let mut sides = [(String::new(), Vec::new()), (String::new(), Vec::new())];
    let mut within = Within::Both;
    let unmatched = |line: usize, text: &str| LockError {
        at: Position {
            file: file.to_owned(),
            line,
            column: 1,
        },
        text: text.trim_end().to_owned(),
        problem: Box::new(Problem::Syntax {
            message: "a conflict marker without its counterpart".to_owned(),
        }),
    };
    let mut last = (1, "");
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let number = index + 1;
        let next = if is_marker(line, "<<<<<<<") {
            Some((Within::Both, Within::Ours))
        } else if is_marker(line, "|||||||") {
            Some((Within::Ours, Within::Base))
        } else if line.trim_end() == "=======" {
            Some((Within::Ours, Within::Theirs))
        } else if is_marker(line, ">>>>>>>") {
            Some((Within::Theirs, Within::Both))
        } else {
            None
        };
        if let Some((from, to)) = next {
            let in_base = within == Within::Base && to == Within::Theirs;
            if within != from && !in_base {
                return Err(unmatched(number, line));
            }
            within = to;
            last = (number, line);
            continue;
        }
        for (side, (text, lines)) in [Within::Ours, Within::Theirs].iter().zip(&mut sides) {
            if within == Within::Both || within == *side {
                text.push_str(line);
                lines.push(number);
            }
        }
    }
    if within == Within::Both {
        Ok(sides)
    } else {
        Err(unmatched(last.0, last.1))
    }
}

/// The word among `known` that `text` most resembles, if any does.
pub(super) fn nearest<'a>(text: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |other: &str| {
        let other: Vec<char> = other.chars().collect();
        let mut row: Vec<usize> = (0..=other.len()).collect();
        for (above, left) in text.chars().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], above + 1);
            for (column, right) in other.iter().enumerate() {
                let changed = diagonal + usize::from(left != *right);
                diagonal = row[column + 1];
                row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
            }
        }
        row[other.len()]
    };
    known
        .iter()
        .map(|word| (distance(word), *word))
        .min()
        .filter(|(distance, word)| *distance <= (word.chars().count() / 2).clamp(1, 3))
        .map(|(_, word)| word)
}

/// A text on its way to a lock.
struct Reader<'t> {
    text: &'t str,
    file: &'t str,
    /// The number each line has in the file, where that is not its number in `text`.
    lines: Option<&'t [usize]>,
    /// Unknown keys are passed over.
    lenient: bool,
}

type Node<'t> = Spanned<DeValue<'t>>;

impl<'t> Reader<'t> {
    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let index = memchr::memchr_iter(b'\n', before).count();
        match self.lines {
            Some(lines) => lines
                .get(index)
                .or(lines.last())
                .copied()
                .unwrap_or_default()
                .max(1),
            None => index + 1,
        }
    }

    fn error(&self, span: &Range<usize>, problem: Problem) -> LockError {
        let start = span.start.min(self.text.len());
        let opens = self.text[..start].rfind('\n').map_or(0, |end| end + 1);
        LockError {
            at: Position {
                file: self.file.to_owned(),
                line: self.line(start),
                column: self.text[opens..start].chars().count() + 1,
            },
            text: self.text[start..]
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(QUOTED)
                .collect(),
            problem: Box::new(problem),
        }
    }

    /// The owner's comment that ends directly above `offset`.
    fn comments(&self, offset: usize) -> Vec<String> {
        let Some(end) = self.text[..offset].rfind('\n') else {
            return Vec::new();
        };
        let mut lines: Vec<String> = self.text[..end]
            .rsplit('\n')
            .map_while(|line| line.strip_prefix(OWNER_COMMENT))
            .map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned())
            .collect();
        lines.reverse();
        lines
    }

    fn lock(mut self) -> Result<Lock, LockError> {
        let table = DeTable::parse(self.text).map_err(|error| match marker(self.text) {
            Some(number) => {
                let start = self
                    .text
                    .split_inclusive('\n')
                    .take(number - 1)
                    .map(str::len)
                    .sum();
                self.error(&(start..start), Problem::Conflicted)
            }
            None => self.error(
                &error.span().unwrap_or(0..0),
                Problem::Syntax {
                    message: error.message().to_owned(),
                },
            ),
        })?;
        let span = table.span();
        let mut entries = table.into_inner();
        let version = self.version(&mut entries)?;
        let revision = match entries.remove("revision") {
            None => None,
            Some(node) => {
                let revision = self.number(&node, "revision", 1, i64::from(u32::MAX))?;
                u32::try_from(revision).ok()
            }
        };
        self.lenient = revision.is_some_and(|revision| revision > REVISION);
        let mut lock = Lock {
            version,
            revision,
            ..Lock::default()
        };
        let mut top = Table {
            reader: &self,
            name: "the lock",
            span,
            entries,
        };
        if let Some(rules) = top.entries.remove("rules") {
            let rules = self.table(rules, "[rules]", "rules")?;
            for (name, node) in rules.entries {
                let digest = self.digest(&node, name.get_ref())?;
                lock.rules.insert(name.into_inner().into_owned(), digest);
            }
        }
        let mut names = Names::new(&self);
        for table in top.tables("release", "[[release]]")? {
            let release = self.release(table, &mut names, &mut lock.comments)?;
            lock.releases.push(release);
        }
        for table in top.tables("catalog", "[[catalog]]")? {
            let catalog = self.catalog(table, &mut names, &mut lock.comments)?;
            lock.catalogs.push(catalog);
        }
        for mut table in top.tables("image", "[[image]]")? {
            let image = Image {
                reference: table.filled("ref")?,
                want: table.want()?,
                pin: table.pin()?,
            };
            names.add(image.key(), &table.span, &mut lock.comments)?;
            table.finish(&[
                "ref",
                "want",
                "image",
                "tag",
                "size",
                "platforms",
                "signatures",
            ])?;
            lock.images.push(image);
        }
        for mut table in top.tables("chart", "[[chart]]")? {
            let chart = Chart {
                reference: table.filled("ref")?,
                want: table.want()?,
                name: table.optional("name", |reader, node| reader.filled(node, "name"))?,
                version: table
                    .optional("version", |reader, node| reader.filled(node, "version"))?,
                source: self.chart_source(&mut table)?,
                images: table.images()?,
            };
            names.add(chart.key(), &table.span, &mut lock.comments)?;
            table.finish(&[
                "ref",
                "want",
                "name",
                "version",
                "url",
                "file",
                "image",
                "tag",
                "size",
                "platforms",
                "signatures",
                "images",
            ])?;
            lock.charts.push(chart);
        }
        for mut table in top.tables("file", "[[file]]")? {
            let file = File {
                reference: table.filled("ref")?,
                want: table.want()?,
                file: table.file()?,
            };
            names.add(file.key(), &table.span, &mut lock.comments)?;
            table.finish(&["ref", "want", "file", "size"])?;
            lock.files.push(file);
        }
        for mut table in top.tables("blocked", "[[blocked]]")? {
            let blocked = Blocked {
                name: table.filled("name")?,
            };
            names.add(blocked.key(), &table.span, &mut lock.comments)?;
            table.finish(&["name"])?;
            lock.blocked.push(blocked);
        }
        for mut table in top.tables("skip", "[[skip]]")? {
            let skip = Skip {
                image: table.filled("image")?,
                reason: table.required("reason", |reader, node| reader.string(node, "reason"))?,
            };
            names.add(skip.key(), &table.span, &mut lock.comments)?;
            table.finish(&["image", "reason"])?;
            lock.skips.push(skip);
        }
        top.finish(&[
            "version", "revision", "rules", "release", "catalog", "image", "chart", "file",
            "blocked", "skip",
        ])?;
        lock.sort();
        Ok(lock)
    }

    fn version(&self, entries: &mut DeTable<'t>) -> Result<u32, LockError> {
        let Some(node) = entries.remove("version") else {
            return Err(self.error(&(0..0), Problem::NoVersion));
        };
        let version = self.number(&node, "version", 1, i64::MAX)?;
        match u32::try_from(version) {
            Ok(version) if version <= VERSION => Ok(version),
            _ => Err(self.error(
                &node.span(),
                Problem::Version {
                    found: version.to_string(),
                },
            )),
        }
    }

    fn release(
        &self,
        mut table: Table<'_, 't>,
        names: &mut Names<'_, 't>,
        comments: &mut BTreeMap<BlockKey, Vec<String>>,
    ) -> Result<Release, LockError> {
        let channel = table.optional("channel", |reader, node| reader.filled(node, "channel"))?;
        let reference = table.optional("ref", |reader, node| reader.filled(node, "ref"))?;
        let name = match (channel, reference) {
            (Some(channel), None) => ReleaseName::Channel(channel),
            (None, Some(reference)) => ReleaseName::Reference(reference),
            (Some(_), Some(_)) => {
                return Err(self.error(
                    &table.span,
                    Problem::Both {
                        table: table.name,
                        one: "channel",
                        other: "ref",
                    },
                ));
            }
            (None, None) => return Err(table.missing("channel or ref")),
        };
        let mut release = Release {
            name,
            arch: table.filled("arch")?,
            want: table.want()?,
            risks: Vec::new(),
            payloads: Vec::new(),
        };
        names.add(release.key(), &table.span, comments)?;
        let mut seen = Seen::new(self, "risks");
        for mut risk in table.tables("risks", "a risk")? {
            let read = Risk {
                name: risk.filled("name")?,
                url: risk.required("url", |reader, node| reader.string(node, "url"))?,
            };
            seen.add(&read.name, &risk.span)?;
            risk.finish(&["name", "url"])?;
            release.risks.push(read);
        }
        for mut inner in table.tables("payload", "[[release.payload]]")? {
            let mut payload = Payload {
                version: inner.filled("version")?,
                pin: inner.pin()?,
                components: Vec::new(),
            };
            names.add(release.payload_key(&payload), &inner.span, comments)?;
            let mut seen = Seen::new(self, "components");
            for mut item in inner.tables("components", "a component")? {
                let component = Component {
                    name: item.filled("name")?,
                    pin: item.pin()?,
                };
                seen.add(&component.name, &item.span)?;
                item.finish(&["name", "image", "tag", "size", "platforms", "signatures"])?;
                payload.components.push(component);
            }
            inner.finish(&[
                "version",
                "image",
                "tag",
                "size",
                "platforms",
                "signatures",
                "components",
            ])?;
            release.payloads.push(payload);
        }
        table.finish(&["channel", "ref", "arch", "want", "risks", "payload"])?;
        Ok(release)
    }

    fn catalog(
        &self,
        mut table: Table<'_, 't>,
        names: &mut Names<'_, 't>,
        comments: &mut BTreeMap<BlockKey, Vec<String>>,
    ) -> Result<Catalog, LockError> {
        let mut catalog = Catalog {
            reference: table.filled("ref")?,
            want: table.want()?,
            pin: table.pin()?,
            packages: Vec::new(),
        };
        names.add(catalog.key(), &table.span, comments)?;
        for mut inner in table.tables("package", "[[catalog.package]]")? {
            let mut package = Package {
                name: inner.filled("name")?,
                want: inner.optional("want", Self::want)?,
                fbc: inner.required("fbc", |reader, node| reader.digest(node, "fbc"))?,
                from: inner.optional("from", |reader, node| reader.digest(node, "from"))?,
                bundles: Vec::new(),
                images: inner.images()?,
            };
            names.add(catalog.package_key(&package.name), &inner.span, comments)?;
            let mut seen = Seen::new(self, "bundles");
            for mut item in inner.tables("bundles", "a bundle")? {
                let bundle = Bundle {
                    name: item.filled("name")?,
                    channels: item.required("channels", |reader, node| {
                        reader
                            .list(node, "channels")?
                            .iter()
                            .map(|node| reader.filled(node, "channels"))
                            .collect()
                    })?,
                    pin: item.pin()?,
                };
                seen.add(&bundle.name, &item.span)?;
                item.finish(&[
                    "name",
                    "channels",
                    "image",
                    "tag",
                    "size",
                    "platforms",
                    "signatures",
                ])?;
                package.bundles.push(bundle);
            }
            inner.finish(&["name", "want", "fbc", "from", "bundles", "images"])?;
            catalog.packages.push(package);
        }
        table.finish(&[
            "ref",
            "want",
            "image",
            "tag",
            "size",
            "platforms",
            "signatures",
            "package",
        ])?;
        Ok(catalog)
    }

    fn chart_source(&self, table: &mut Table<'_, 't>) -> Result<ChartSource, LockError> {
        let both = |one, other| {
            self.error(
                &table.span,
                Problem::Both {
                    table: table.name,
                    one,
                    other,
                },
            )
        };
        match (
            table.entries.contains_key("file"),
            table.entries.contains_key("image"),
        ) {
            (true, true) => Err(both("file", "image")),
            (false, true) if table.entries.contains_key("url") => Err(both("url", "image")),
            (false, true) => table.pin().map(ChartSource::Image),
            (true, false) => Ok(ChartSource::File {
                url: table.optional("url", |reader, node| reader.filled(node, "url"))?,
                file: table.file()?,
            }),
            (false, false) => Err(table.missing("file or image")),
        }
    }

    fn wrong(&self, node: &Node<'t>, key: &str, expected: &'static str) -> LockError {
        let found = match node.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(
            &node.span(),
            Problem::Type {
                key: key.to_owned(),
                expected,
                found,
            },
        )
    }

    fn string(&self, node: &Node<'t>, key: &str) -> Result<String, LockError> {
        match node.get_ref() {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            _ => Err(self.wrong(node, key, "a text")),
        }
    }

    fn filled(&self, node: &Node<'t>, key: &str) -> Result<String, LockError> {
        let text = self.string(node, key)?;
        if text.is_empty() {
            let key = key.to_owned();
            return Err(self.error(&node.span(), Problem::Empty { key }));
        }
        Ok(text)
    }

    fn number(&self, node: &Node<'t>, key: &str, least: i64, most: i64) -> Result<i64, LockError> {
        let DeValue::Integer(number) = node.get_ref() else {
            return Err(self.wrong(node, key, "a whole number"));
        };
        i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|value| (least..=most).contains(value))
            .ok_or_else(|| {
                self.error(
                    &node.span(),
                    Problem::Range {
                        key: key.to_owned(),
                        found: number.to_string(),
                        least,
                        most,
                    },
                )
            })
    }

    fn size(&self, node: &Node<'t>) -> Result<u64, LockError> {
        let size = self.number(node, "size", 0, i64::MAX)?;
        Ok(u64::try_from(size).expect("the range starts at zero"))
    }

    fn digest(&self, node: &Node<'t>, key: &str) -> Result<Digest, LockError> {
        self.string(node, key)?.parse().map_err(|source| {
            self.error(
                &node.span(),
                Problem::Digest {
                    key: key.to_owned(),
                    source,
                },
            )
        })
    }

    fn list<'n>(&self, node: &'n Node<'t>, key: &str) -> Result<&'n DeArray<'t>, LockError> {
        match node.get_ref() {
            DeValue::Array(items) => Ok(items),
            _ => Err(self.wrong(node, key, "a list")),
        }
    }

    fn table<'r>(
        &'r self,
        node: Node<'t>,
        name: &'static str,
        key: &str,
    ) -> Result<Table<'r, 't>, LockError> {
        if !matches!(node.get_ref(), DeValue::Table(_)) {
            return Err(self.wrong(&node, key, "a table"));
        }
        let span = node.span();
        let DeValue::Table(entries) = node.into_inner() else {
            unreachable!("it was found to be a table")
        };
        Ok(Table {
            reader: self,
            name,
            span,
            entries,
        })
    }

    fn want(&self, node: &Node<'t>) -> Result<Want, LockError> {
        match self.value(node, "want")? {
            Value::Map(entries) => Ok(Want::new(entries)),
            _ => Err(self.wrong(node, "want", "a table")),
        }
    }

    fn value(&self, node: &Node<'t>, key: &str) -> Result<Value, LockError> {
        match node.get_ref() {
            DeValue::String(text) => Ok(Value::Text(text.clone().into_owned())),
            DeValue::Integer(_) => self
                .number(node, key, i64::MIN, i64::MAX)
                .map(Value::Integer),
            DeValue::Boolean(value) => Ok(Value::Bool(*value)),
            DeValue::Array(items) => items
                .iter()
                .map(|item| self.value(item, key))
                .collect::<Result<_, _>>()
                .map(Value::List),
            DeValue::Table(entries) => entries
                .iter()
                .map(|(name, node)| {
                    let value = self.value(node, name.get_ref())?;
                    Ok((name.get_ref().clone().into_owned(), value))
                })
                .collect::<Result<_, _>>()
                .map(Value::Map),
            DeValue::Float(_) | DeValue::Datetime(_) => Err(self.wrong(
                node,
                key,
                "a text, a whole number, true or false, a list or a table",
            )),
        }
    }
}

/// A table whose keys are taken out one by one.
struct Table<'r, 't> {
    reader: &'r Reader<'t>,
    name: &'static str,
    span: Range<usize>,
    entries: DeTable<'t>,
}

impl<'r, 't> Table<'r, 't> {
    fn missing(&self, key: &'static str) -> LockError {
        let table = self.name;
        self.reader
            .error(&self.span, Problem::MissingKey { key, table })
    }

    fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Reader<'t>, &Node<'t>) -> Result<T, LockError>,
    ) -> Result<Option<T>, LockError> {
        self.entries
            .remove(key)
            .map(|node| read(self.reader, &node))
            .transpose()
    }

    fn required<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Reader<'t>, &Node<'t>) -> Result<T, LockError>,
    ) -> Result<T, LockError> {
        if let Some(value) = self.optional(key, read)? {
            return Ok(value);
        }
        // A key that is one slip away from the missing one is the better thing to point at.
        let slip = self
            .entries
            .keys()
            .find(|name| !self.reader.lenient && nearest(name.get_ref(), &[key]).is_some());
        Err(match slip {
            Some(name) => self.reader.error(
                &name.span(),
                Problem::UnknownKey {
                    key: name.get_ref().clone().into_owned(),
                    table: self.name,
                    nearest: Some(key),
                },
            ),
            None => self.missing(key),
        })
    }

    fn filled(&mut self, key: &'static str) -> Result<String, LockError> {
        self.required(key, |reader, node| reader.filled(node, key))
    }

    fn want(&mut self) -> Result<Want, LockError> {
        self.required("want", Reader::want)
    }

    fn file(&mut self) -> Result<Blob, LockError> {
        Ok(Blob {
            digest: self.required("file", |reader, node| reader.digest(node, "file"))?,
            size: self.required("size", Reader::size)?,
        })
    }

    fn pin(&mut self) -> Result<Pin, LockError> {
        let (origin, digest) = self.required("image", |reader, node| {
            parse_image(&reader.string(node, "image")?).map_err(|source| {
                let key = "image".to_owned();
                reader.error(&node.span(), Problem::Pin { key, source })
            })
        })?;
        let tag = self.optional("tag", |reader, node| {
            reader
                .string(node, "tag")?
                .parse::<Tag>()
                .map_err(|source| {
                    let key = "tag".to_owned();
                    reader.error(&node.span(), Problem::Tag { key, source })
                })
        })?;
        let size = self.required("size", Reader::size)?;
        let platforms = self.optional("platforms", |reader, node| {
            reader
                .list(node, "platforms")?
                .iter()
                .map(|node| {
                    let text = reader.string(node, "platforms")?;
                    text.parse().map_err(|source| {
                        let key = "platforms".to_owned();
                        reader.error(&node.span(), Problem::Platform { key, source })
                    })
                })
                .collect()
        })?;
        let mut signatures = Vec::new();
        for mut table in self.tables("signatures", "a signature")? {
            signatures.push(Signature {
                digest: table.required("digest", |reader, node| reader.digest(node, "digest"))?,
                size: table.required("size", Reader::size)?,
                from: table.required("from", |reader, node| reader.string(node, "from"))?,
            });
            table.finish(&["digest", "size", "from"])?;
        }
        Ok(Pin {
            origin,
            digest,
            size,
            tag,
            platforms: platforms.unwrap_or_default(),
            signatures,
        })
    }

    fn images(&mut self) -> Result<Vec<Pin>, LockError> {
        let mut seen = Seen::new(self.reader, "images");
        let mut images = Vec::new();
        for mut table in self.tables("images", "an image")? {
            let pin = table.pin()?;
            seen.add(&image_item(&pin), &table.span)?;
            table.finish(&["image", "tag", "size", "platforms", "signatures"])?;
            images.push(pin);
        }
        Ok(images)
    }

    /// The tables of the list called `key`; none if it is absent.
    fn tables(
        &mut self,
        key: &'static str,
        name: &'static str,
    ) -> Result<Vec<Table<'r, 't>>, LockError> {
        let Some(node) = self.entries.remove(key) else {
            return Ok(Vec::new());
        };
        self.reader.list(&node, key)?;
        let DeValue::Array(items) = node.into_inner() else {
            unreachable!("it was found to be a list")
        };
        items
            .into_iter()
            .map(|item| self.reader.table(item, name, key))
            .collect()
    }

    /// Refuses what was not taken out.
    fn finish(self, known: &[&'static str]) -> Result<(), LockError> {
        if self.reader.lenient {
            return Ok(());
        }
        let first = self
            .entries
            .into_iter()
            .min_by_key(|(name, _)| name.span().start);
        match first {
            None => Ok(()),
            Some((name, _)) => Err(self.reader.error(
                &name.span(),
                Problem::UnknownKey {
                    nearest: nearest(name.get_ref(), known),
                    key: name.into_inner().into_owned(),
                    table: self.name,
                },
            )),
        }
    }
}

/// The blocks that were read.
struct Names<'r, 't> {
    reader: &'r Reader<'t>,
    seen: BTreeMap<BlockKey, usize>,
}

impl<'r, 't> Names<'r, 't> {
    const fn new(reader: &'r Reader<'t>) -> Self {
        Self {
            reader,
            seen: BTreeMap::new(),
        }
    }

    /// Takes a block that opens at `span`, with the owner's comment above it.
    fn add(
        &mut self,
        key: BlockKey,
        span: &Range<usize>,
        comments: &mut BTreeMap<BlockKey, Vec<String>>,
    ) -> Result<(), LockError> {
        if let Some(first) = self.seen.get(&key) {
            let first = self.reader.line(*first);
            return Err(self.reader.error(span, Problem::Duplicate { key, first }));
        }
        let lines = self.reader.comments(span.start);
        if !lines.is_empty() {
            comments.insert(key.clone(), lines);
        }
        self.seen.insert(key, span.start);
        Ok(())
    }
}

/// The elements of a list that were read.
struct Seen<'r, 't> {
    reader: &'r Reader<'t>,
    list: &'static str,
    names: BTreeMap<String, usize>,
}

impl<'r, 't> Seen<'r, 't> {
    const fn new(reader: &'r Reader<'t>, list: &'static str) -> Self {
        Self {
            reader,
            list,
            names: BTreeMap::new(),
        }
    }

    fn add(&mut self, name: &str, span: &Range<usize>) -> Result<(), LockError> {
        match self.names.insert(name.to_owned(), span.start) {
            None => Ok(()),
            Some(first) => Err(self.reader.error(
                span,
                Problem::Repeated {
                    list: self.list,
                    name: name.replace('\0', " "),
                    first: self.reader.line(first),
                },
            )),
        }
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
