//! What changed between two locks, for people and for machines.
//!
//! ```text
//! release stable-4.16 amd64
//!   + 4.16.12   192 components: 141 same as 4.16.10, 51 changed
//! catalog registry.example.test/redhat-operator-index:v4.16   image ec53d7b8 <- 081706cc
//!   ~ odf-operator   4.16.1-rhodf -> 4.16.1-rhodf, 4.16.3-rhodf   images +9 -0
//!   = 28 packages unchanged
//! image registry.example.test/ubi:9.4   b7b4fe78 <- 5a1c09e2   (tag moved, same want)
//! in all: +61 -1 images; new blobs 214, 6.8 GB (manifests present: exact)
//! ```
//!
//! A new value stands left of the arrow `<-`, as the first thing to read. The Markdown form says the same, folded, with
//! every image that comes or goes. The JSON form is versioned; its schema is `tests/data/lock/diff.schema.json`. How it
//! may change: a new optional key may appear at any time, anything else raises `version`.
//!
//! Bytes are counted from manifests, which a lock does not hold: the caller says which blobs a lock implies, and how
//! many manifests it could not read. While one is absent the count is "unknown"; nothing is estimated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use super::key::{BlockKey, Role, Version, bundle_version};
use super::lock::{Block, Bundle, Catalog, Chart, Lock, Package, Payload, Pin, Release, Want};
use super::text::write_value;
use crate::canon::Value;
use crate::digest::Digest;
use crate::store::Blob;

/// The version of the JSON form.
pub const JSON_VERSION: u32 = 1;

/// What stands between the parts of a line.
const GAP: &str = "   ";

/// Digits of a digest that people are shown.
const SHORT: usize = 8;

/// Every blob that a lock implies, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// The blobs, in any order; a blob that occurs twice counts once.
    pub blobs: Vec<Blob>,
    /// How many manifests could not be read.
    pub absent: usize,
}

/// Says what a lock implies.
pub type Closures<'a> = &'a dyn Fn(&Lock) -> Closure;

/// What happened to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It says something else.
    Changed,
}

impl Change {
    const fn mark(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Changed => '~',
        }
    }
}

/// A block that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockChange {
    /// Its name. Payloads are told with their release.
    pub key: BlockKey,
    /// What happened.
    pub change: Change,
}

/// How many came and went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Those that are new.
    pub added: usize,
    /// Those that are gone.
    pub removed: usize,
}

/// Some blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub count: usize,
    /// Their bytes together.
    pub bytes: u64,
}

/// The blobs that came and went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Blobs {
    /// Every manifest was read.
    Exact {
        /// Those that are new.
        added: Amount,
        /// Those that are gone.
        removed: Amount,
    },
    /// Some manifests could not be read, so nothing is said.
    Unknown {
        /// How many, in both locks together.
        absent: usize,
    },
}

/// What changed between two locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    before: Lock,
    after: Lock,
    /// The blocks that changed, in the order of the file.
    pub blocks: Vec<BlockChange>,
    /// Images that came and went, each counted once however many blocks have it.
    pub images: Counts,
    /// Files that came and went, each counted once.
    pub files: Counts,
    /// Blobs that came and went.
    pub blobs: Blobs,
}

/// Compares two locks. Comments, format revisions and the order of lists do not count.
///
/// Without `closures` no manifest is present, and the bytes are unknown.
#[must_use]
pub fn diff(before: &Lock, after: &Lock, closures: Option<Closures<'_>>) -> Diff {
    let (before, after) = (before.canonical(), after.canonical());
    let mut keys: BTreeSet<BlockKey> = BTreeSet::new();
    for lock in [&before, &after] {
        keys.extend(lock.blocks().map(|block| block.key()));
        keys.extend(
            lock.rules
                .keys()
                .map(|name| BlockKey::Rule { name: name.clone() }),
        );
    }
    let index = |lock: &'_ Lock| -> BTreeMap<BlockKey, usize> {
        lock.blocks()
            .enumerate()
            .map(|(index, block)| (block.key(), index))
            .collect()
    };
    let (old_index, new_index) = (index(&before), index(&after));
    let (old_blocks, new_blocks): (Vec<Block<'_>>, Vec<Block<'_>>) =
        (before.blocks().collect(), after.blocks().collect());
    let mut blocks = Vec::new();
    for key in keys {
        let old = old_index.get(&key).map(|index| &old_blocks[*index]);
        let new = new_index.get(&key).map(|index| &new_blocks[*index]);
        let change = match (&key, old, new) {
            (BlockKey::Rule { name }, ..) => {
                match (before.rules.get(name), after.rules.get(name)) {
                    (None, _) => Change::Added,
                    (_, None) => Change::Removed,
                    (old, new) if old != new => Change::Changed,
                    _ => continue,
                }
            }
            (_, None, _) => Change::Added,
            (_, _, None) => Change::Removed,
            (_, Some(old), Some(new)) if !same(old, new) => Change::Changed,
            _ => continue,
        };
        blocks.push(BlockChange { key, change });
    }
    let images = counts(&before, &after, |lock| {
        lock.owners()
            .flat_map(|(_, pins)| pins)
            .map(|(_, pin)| pin.image())
            .collect()
    });
    let files = counts(&before, &after, |lock| {
        lock.file_pins()
            .map(|(_, file)| file.digest.to_string())
            .collect()
    });
    let blobs = blobs(&before, &after, closures);
    Diff {
        before,
        after,
        blocks,
        images,
        files,
        blobs,
    }
}

/// Whether two blocks say the same; a catalog speaks without its packages.
fn same(old: &Block<'_>, new: &Block<'_>) -> bool {
    match (old, new) {
        (Block::Release(old), Block::Release(new)) => old == new,
        (Block::Catalog(old), Block::Catalog(new)) => old.want == new.want && old.pin == new.pin,
        (Block::Package(_, old), Block::Package(_, new)) => old == new,
        (Block::Image(old), Block::Image(new)) => old == new,
        (Block::Chart(old), Block::Chart(new)) => old == new,
        (Block::File(old), Block::File(new)) => old == new,
        (Block::Blocked(old), Block::Blocked(new)) => old == new,
        (Block::Skip(old), Block::Skip(new)) => old == new,
        _ => false,
    }
}

fn counts(before: &Lock, after: &Lock, names: impl Fn(&Lock) -> BTreeSet<String>) -> Counts {
    let (old, new) = (names(before), names(after));
    Counts {
        added: new.difference(&old).count(),
        removed: old.difference(&new).count(),
    }
}

fn blobs(before: &Lock, after: &Lock, closures: Option<Closures<'_>>) -> Blobs {
    let Some(closures) = closures else {
        let manifests: BTreeSet<Digest> = [before, after]
            .into_iter()
            .flat_map(Lock::owners)
            .flat_map(|(_, pins)| pins)
            .map(|(_, pin)| pin.digest)
            .collect();
        return Blobs::Unknown {
            absent: manifests.len(),
        };
    };
    let (old, new) = (closures(before), closures(after));
    if old.absent + new.absent > 0 {
        return Blobs::Unknown {
            absent: old.absent + new.absent,
        };
    }
    let index = |closure: &Closure| -> BTreeMap<Digest, u64> {
        closure
            .blobs
            .iter()
            .map(|blob| (blob.digest, blob.size))
            .collect()
    };
    let (old, new) = (index(&old), index(&new));
    let amount = |here: &BTreeMap<Digest, u64>, there: &BTreeMap<Digest, u64>| {
        let sizes: Vec<u64> = here
            .iter()
            .filter(|(digest, _)| !there.contains_key(digest))
            .map(|(_, size)| *size)
            .collect();
        Amount {
            count: sizes.len(),
            bytes: sizes.iter().fold(0, |sum, size| sum.saturating_add(*size)),
        }
    };
    Blobs::Exact {
        added: amount(&new, &old),
        removed: amount(&old, &new),
    }
}

/// A block that changed, as people are told.
struct Entry {
    kind: &'static str,
    /// Left out where the block only changed.
    mark: Option<char>,
    name: String,
    detail: String,
    lines: Vec<Line>,
    pins: Vec<(char, String, String)>,
}

/// A part of a block that changed.
struct Line {
    mark: char,
    name: String,
    detail: String,
}

impl Diff {
    /// Whether nothing changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The pins that a block has now and had not before, and those it had and has no more, each with what it is to
    /// the block. One that stays in the block in another role (a component that two payloads share) is in neither.
    #[must_use]
    #[allow(
        clippy::type_complexity,
        reason = "the same list twice, as owners() gives it"
    )]
    pub fn pins(&self, key: &BlockKey) -> (Vec<(Role<'_>, &Pin)>, Vec<(Role<'_>, &Pin)>) {
        let (old, new) = self.sides(key);
        let [mut old, mut new] =
            [old, new].map(|block| block.map_or(Vec::new(), |block| block.pins()));
        let [had, has] =
            [&old, &new].map(|pins| pins.iter().map(|(_, pin)| *pin).collect::<BTreeSet<_>>());
        old.retain(|(_, pin)| !has.contains(pin));
        new.retain(|(_, pin)| !had.contains(pin));
        (new, old)
    }

    fn sides(&self, key: &BlockKey) -> (Option<Block<'_>>, Option<Block<'_>>) {
        (self.before.find(key), self.after.find(key))
    }

    /// The last line: everything together.
    fn total(&self) -> String {
        let mut text = format!("+{} -{} images", self.images.added, self.images.removed);
        if self.files != Counts::default() {
            write!(
                text,
                ", +{} -{} files",
                self.files.added, self.files.removed
            )
            .expect("writing to a String cannot fail");
        }
        match self.blobs {
            Blobs::Exact { added, .. } => write!(
                text,
                "; new blobs {}, {} (manifests present: exact)",
                added.count,
                bytes(added.bytes)
            ),
            Blobs::Unknown { absent } => {
                write!(
                    text,
                    "; new blobs unknown ({} absent)",
                    plural(absent, "manifest")
                )
            }
        }
        .expect("writing to a String cannot fail");
        text
    }

    fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        // The catalog that the last entry is about, and how many of its packages changed.
        let mut catalog: Option<BlockKey> = None;
        for BlockChange { key, change } in &self.blocks {
            if let BlockKey::Package { name, .. } = key {
                let home = key.parent().expect("a package stands in a catalog");
                if catalog.as_ref() != Some(&home) {
                    entries.push(self.entry(&home, Change::Changed));
                    catalog = Some(home);
                }
                let entry = entries.last_mut().expect("its catalog was pushed");
                entry.lines.push(Line {
                    mark: change.mark(),
                    name: name.clone(),
                    detail: self.package(key),
                });
                entry.pins.extend(self.pin_lines(key, &format!("{name}: ")));
                continue;
            }
            self.close(&mut entries, catalog.take());
            entries.push(self.entry(key, *change));
            if matches!(key, BlockKey::Catalog { .. }) {
                catalog = Some(key.clone());
            }
        }
        self.close(&mut entries, catalog);
        entries
    }

    /// Ends the entry of a catalog: says how many of its packages did not change.
    fn close(&self, entries: &mut [Entry], catalog: Option<BlockKey>) {
        let (Some(catalog), Some(entry)) = (catalog, entries.last_mut()) else {
            return;
        };
        let (Some(Block::Catalog(old)), Some(Block::Catalog(new))) = self.sides(&catalog) else {
            return;
        };
        let old: BTreeMap<&str, &Package> = old
            .packages
            .iter()
            .map(|package| (package.name.as_str(), package))
            .collect();
        let unchanged = new
            .packages
            .iter()
            .filter(|package| old.get(package.name.as_str()) == Some(package))
            .count();
        if unchanged > 0 {
            entry.lines.push(Line {
                mark: '=',
                name: format!("{} unchanged", plural(unchanged, "package")),
                detail: String::new(),
            });
        }
    }

    fn pin_lines(&self, key: &BlockKey, prefix: &str) -> Vec<(char, String, String)> {
        let (added, removed) = self.pins(key);
        let line =
            |mark| move |(role, pin): (Role<'_>, &Pin)| (mark, pin.image(), role.to_string());
        added
            .into_iter()
            .map(line('+'))
            .chain(removed.into_iter().map(line('-')))
            .map(|(mark, image, role)| (mark, image, format!("{prefix}{role}")))
            .collect()
    }

    fn entry(&self, key: &BlockKey, change: Change) -> Entry {
        let kind = key.kind();
        let mut entry = Entry {
            kind,
            mark: (change != Change::Changed).then(|| change.mark()),
            name: key.to_string()[kind.len() + 1..].to_owned(),
            detail: String::new(),
            lines: Vec::new(),
            pins: self.pin_lines(key, ""),
        };
        if let BlockKey::Rule { name } = key {
            entry.detail = arrow(self.before.rules.get(name), self.after.rules.get(name));
            return entry;
        }
        let (old, new) = self.sides(key);
        let wants = want_changes(
            old.and_then(|block| block.want()),
            new.and_then(|block| block.want()),
        );
        if change == Change::Changed && !wants.is_empty() {
            entry.lines.push(Line {
                mark: '~',
                name: "want".to_owned(),
                detail: wants.join(", "),
            });
        }
        match (old, new) {
            (Some(Block::Skip(old)), Some(Block::Skip(new))) if old != new => {
                entry.mark = Some('~');
                entry.name = format!("{}  {:?} <- {:?}", new.image, new.reason, old.reason);
            }
            (Some(Block::Skip(skip)), _) | (_, Some(Block::Skip(skip))) => {
                entry.name = format!("{}  {:?}", skip.image, skip.reason);
            }
            (Some(Block::Release(old)), Some(Block::Release(new))) => {
                release(Some(old), Some(new), &mut entry);
            }
            (Some(Block::Release(old)), None) => release(Some(old), None, &mut entry),
            (None, Some(Block::Release(new))) => release(None, Some(new), &mut entry),
            (old, new) => {
                let mut details = Vec::new();
                if let Some(detail) = pin_change(old.and_then(own_pin), new.and_then(own_pin)) {
                    let label = match key {
                        BlockKey::Image { .. } => "",
                        _ => "image ",
                    };
                    details.push(format!("{label}{detail}"));
                }
                let file = |block: Option<Block<'_>>| block.and_then(|block| block.file());
                let (old_file, new_file) = (file(old), file(new));
                if old_file != new_file {
                    let detail = arrow(
                        old_file.map(|file| file.digest).as_ref(),
                        new_file.map(|file| file.digest).as_ref(),
                    );
                    let label = match key {
                        BlockKey::File { .. } => "",
                        _ => "file ",
                    };
                    details.push(format!("{label}{detail}"));
                }
                if let (Some(Block::Chart(old)), Some(Block::Chart(new))) = (old, new) {
                    if let (Some(from), Some(to)) = (&old.version, &new.version)
                        && from != to
                    {
                        details.push(format!("{from} -> {to}"));
                    }
                    let (came, went) = difference(&old.images, &new.images);
                    if came + went > 0 {
                        details.push(format!("images +{came} -{went}"));
                    }
                    if old_file == new_file && old.source != new.source && old_file.is_some() {
                        details.push("from another url".to_owned());
                    }
                } else if let (Some(Block::Chart(chart)), _) | (_, Some(Block::Chart(chart))) =
                    (old, new)
                {
                    if let (Some(name), Some(version)) = (&chart.name, &chart.version) {
                        details.push(format!("{name} {version}"));
                    }
                    if !chart.images.is_empty() {
                        details.push(plural(chart.images.len(), "image"));
                    }
                }
                if let (Some(Block::Image(old)), Some(Block::Image(new))) = (old, new)
                    && old.pin.digest != new.pin.digest
                    && old.want == new.want
                {
                    details.push("(tag moved, same want)".to_owned());
                }
                entry.detail = details.join(GAP);
            }
        }
        // A new or removed catalog says what is in it, even if that is nothing.
        if let (Some(Block::Catalog(Catalog { packages, .. })), None)
        | (None, Some(Block::Catalog(Catalog { packages, .. }))) = (old, new)
        {
            write!(entry.detail, "{GAP}{}", plural(packages.len(), "package"))
                .expect("writing to a String cannot fail");
        }
        entry
    }

    fn package(&self, key: &BlockKey) -> String {
        let package = |block: Option<Block<'_>>| match block {
            Some(Block::Package(_, package)) => Some(package.clone()),
            _ => None,
        };
        let (old, new) = self.sides(key);
        let (old, new) = (package(old), package(new));
        let versions = |package: &Package| -> String {
            let versions: Vec<&str> = package
                .bundles
                .iter()
                .map(|bundle| bundle_version(&bundle.name).unwrap_or(&bundle.name))
                .collect();
            if versions.is_empty() {
                "no bundle".to_owned()
            } else {
                versions.join(", ")
            }
        };
        let mut details = Vec::new();
        match (&old, &new) {
            (Some(old), Some(new)) => {
                let (before, after) = (versions(old), versions(new));
                if before != after {
                    details.push(format!("{before} -> {after}"));
                }
                if old.fbc != new.fbc {
                    details.push(format!(
                        "fragment {}",
                        arrow(Some(&old.fbc), Some(&new.fbc))
                    ));
                }
                let wants = want_changes(old.want.as_ref(), new.want.as_ref());
                if !wants.is_empty() {
                    details.push(format!("want {}", wants.join(", ")));
                }
                let channels = |bundle: &Bundle| (bundle.name.clone(), bundle.channels.clone());
                let before: BTreeMap<_, _> = old.bundles.iter().map(channels).collect();
                let moved = new
                    .bundles
                    .iter()
                    .filter(|bundle| {
                        before
                            .get(&bundle.name)
                            .is_some_and(|channels| *channels != bundle.channels)
                    })
                    .count();
                if moved > 0 {
                    details.push(format!("channels of {} changed", plural(moved, "bundle")));
                }
                if old.from != new.from {
                    details.push(match &new.from {
                        Some(from) => format!("from catalog {}", short(from)),
                        None => "from the catalog above".to_owned(),
                    });
                }
            }
            (Some(one), None) | (None, Some(one)) => details.push(versions(one)),
            (None, None) => {}
        }
        let images = |package: Option<&Package>| -> Vec<Pin> {
            package.map_or(Vec::new(), |package| {
                let bundles = package.bundles.iter().map(|bundle| &bundle.pin);
                bundles.chain(&package.images).cloned().collect()
            })
        };
        let (came, went) = difference(&images(old.as_ref()), &images(new.as_ref()));
        if came + went > 0 {
            details.push(format!("images +{came} -{went}"));
        }
        if details.is_empty() {
            details.push("the same images, told differently".to_owned());
        }
        details.join(GAP)
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        if self.is_empty() {
            return "no differences\n".to_owned();
        }
        let mut out = String::new();
        for entry in self.entries() {
            printable(&entry.title(), &mut out);
            out.push('\n');
            for line in &entry.lines {
                out.push_str("  ");
                out.push(line.mark);
                out.push(' ');
                printable(&spaced(&line.name, &line.detail), &mut out);
                out.push('\n');
            }
        }
        writeln!(out, "in all: {}", self.total()).expect("writing to a String cannot fail");
        out
    }

    /// For a change request on a forge.
    #[must_use]
    pub fn markdown(&self) -> String {
        if self.is_empty() {
            return "**No differences.**\n".to_owned();
        }
        let mut out = format!("**In all: {}**\n", self.total());
        for entry in self.entries() {
            entry.markdown(&mut out);
        }
        out
    }

    /// For machines: one JSON document, versioned, with a final line end.
    #[must_use]
    pub fn json(&self) -> String {
        let blocks = self
            .blocks
            .iter()
            .map(|BlockChange { key, change }| self.json_block(key, *change))
            .collect();
        let document = JsonDiff {
            version: JSON_VERSION,
            blocks,
            images: self.images,
            files: self.files,
            blobs: self.blobs,
        };
        let mut text =
            serde_json::to_string_pretty(&document).expect("texts and numbers are always JSON");
        text.push('\n');
        text
    }

    fn json_block<'a>(&'a self, key: &'a BlockKey, change: Change) -> JsonBlock<'a> {
        let (added, removed) = self.pins(key);
        let (old, new) = self.sides(key);
        let mut digests = Vec::new();
        let mut digest = |role, before: Option<Digest>, after: Option<Digest>| {
            if before != after {
                digests.push(JsonDigest {
                    role,
                    before,
                    after,
                });
            }
        };
        if let BlockKey::Rule { name } = key {
            digest(
                Role::Rule.kind(),
                self.before.rules.get(name).copied(),
                self.after.rules.get(name).copied(),
            );
        }
        let file = |block: Option<Block<'_>>| Some(block?.file()?.digest);
        digest(Role::File.kind(), file(old), file(new));
        let fragment = |block: Option<Block<'_>>| match block {
            Some(Block::Package(_, package)) => (Some(package.fbc), package.from),
            _ => (None, None),
        };
        let (old_fragment, new_fragment) = (fragment(old), fragment(new));
        digest(Role::Fragment.kind(), old_fragment.0, new_fragment.0);
        digest(Role::FragmentSource.kind(), old_fragment.1, new_fragment.1);
        let want = |block: Option<Block<'_>>| block.and_then(|block| block.want()).map(json_want);
        let (old_want, new_want) = (want(old), want(new));
        let reason = |block: Option<Block<'_>>| match block {
            Some(Block::Skip(skip)) => Some(skip.reason.clone()),
            _ => None,
        };
        let (old_reason, new_reason) = (reason(old), reason(new));
        let (old_risks, new_risks) = (old.and_then(json_risks), new.and_then(json_risks));
        JsonBlock {
            kind: key.kind(),
            key: key.parts(),
            change,
            want: (old_want != new_want).then_some(JsonPair {
                before: old_want,
                after: new_want,
            }),
            reason: (old_reason != new_reason).then_some(JsonPair {
                before: old_reason,
                after: new_reason,
            }),
            risks: (old_risks != new_risks).then_some(JsonPair {
                before: old_risks,
                after: new_risks,
            }),
            digests,
            added: added.into_iter().map(json_pin).collect(),
            removed: removed.into_iter().map(json_pin).collect(),
        }
    }
}

impl Entry {
    fn title(&self) -> String {
        let mut out = self.kind.to_owned();
        if let Some(mark) = self.mark {
            out.push(' ');
            out.push(mark);
        }
        out.push(' ');
        out.push_str(&spaced(&self.name, &self.detail));
        out
    }

    fn markdown(&self, out: &mut String) {
        out.push_str("\n<details>\n<summary>");
        out.push_str(&escaped(&self.title()));
        out.push_str("</summary>\n");
        if !self.lines.is_empty() {
            out.push_str("\n| | what | change |\n|---|---|---|\n");
            for line in &self.lines {
                row(out, line.mark, &line.name, &line.detail);
            }
        }
        if !self.pins.is_empty() {
            out.push_str("\n| | image | as |\n|---|---|---|\n");
            for (mark, image, role) in &self.pins {
                row(out, *mark, image, role);
            }
        }
        out.push_str("\n</details>\n");
    }
}

fn row(out: &mut String, mark: char, name: &str, detail: &str) {
    writeln!(
        out,
        "| `{mark}` | {} | {} |",
        escaped(name),
        escaped(detail)
    )
    .expect("writing to a String cannot fail");
}

/// Appends text without what would move a terminal's cursor or end the line.
fn printable(text: &str, out: &mut String) {
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
}

/// Text that neither Markdown nor HTML takes for markup, on one line.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut previous = ' ';
    for character in text.replace(GAP, "; ").chars() {
        let is_markup = match character {
            '&' | '<' | '>' | '|' | '`' | '*' | '_' | '[' | ']' | '\\' | '~' | '#' => true,
            // Elsewhere than behind a word it calls somebody.
            '@' => !previous.is_alphanumeric(),
            _ => false,
        };
        if is_markup {
            write!(out, "&#{};", u32::from(character)).expect("writing to a String cannot fail");
        } else {
            out.push(if character.is_control() {
                ' '
            } else {
                character
            });
        }
        previous = character;
    }
    out
}

fn spaced(name: &str, detail: &str) -> String {
    if detail.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{GAP}{detail}")
    }
}

pub(super) fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Bytes in decimal units, as people compare them with media and links: the one way in which this program shows sizes.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut unit = 0;
    let mut scale = 1000;
    // One decimal, rounded half up; 999.95 of a unit is one of the next.
    let tenths = |scale: u64| (u128::from(count) * 10 + u128::from(scale) / 2) / u128::from(scale);
    while tenths(scale) >= 10_000 && unit + 1 < UNITS.len() {
        unit += 1;
        scale *= 1000;
    }
    let tenths = tenths(scale);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

fn short(digest: &Digest) -> String {
    let mut digits = digest.hex();
    digits.truncate(SHORT);
    digits
}

/// `new <- old`, or the one there is.
fn arrow(old: Option<&Digest>, new: Option<&Digest>) -> String {
    match (old, new) {
        (Some(old), Some(new)) => format!("{} <- {}", short(new), short(old)),
        (Some(one), None) | (None, Some(one)) => short(one),
        (None, None) => String::new(),
    }
}

/// The image that a block is about.
const fn own_pin(block: Block<'_>) -> Option<&Pin> {
    match block {
        Block::Payload(_, payload) => Some(&payload.pin),
        Block::Catalog(catalog) => Some(&catalog.pin),
        Block::Image(image) => Some(&image.pin),
        Block::Chart(Chart {
            source: super::lock::ChartSource::Image(pin),
            ..
        }) => Some(pin),
        _ => None,
    }
}

/// What changed about a pin, in words; `None` if nothing did.
fn pin_change(old: Option<&Pin>, new: Option<&Pin>) -> Option<String> {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) if old != new => (old, new),
        (Some(_), Some(_)) | (None, None) => return None,
        (old, new) => {
            return Some(arrow(
                old.map(|pin| &pin.digest),
                new.map(|pin| &pin.digest),
            ));
        }
    };
    let mut parts = Vec::new();
    if old.digest != new.digest {
        parts.push(arrow(Some(&old.digest), Some(&new.digest)));
    }
    if old.origin != new.origin {
        parts.push(format!("from {} (was {})", new.origin, old.origin));
    }
    if old.platforms != new.platforms {
        let names = |pin: &Pin| {
            if pin.platforms.is_empty() {
                return "all".to_owned();
            }
            let names: Vec<String> = pin.platforms.iter().map(ToString::to_string).collect();
            names.join(", ")
        };
        parts.push(format!("platforms {} -> {}", names(old), names(new)));
    }
    if old.tag != new.tag {
        let name = |pin: &Pin| {
            pin.tag
                .as_ref()
                .map_or("none".to_owned(), ToString::to_string)
        };
        parts.push(format!("tag {} -> {}", name(old), name(new)));
    }
    if old.signatures != new.signatures {
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (
            old.signatures.iter().collect(),
            new.signatures.iter().collect(),
        );
        parts.push(format!(
            "signatures +{} -{}",
            new.difference(&old).count(),
            old.difference(&new).count()
        ));
    }
    if parts.is_empty() {
        parts.push(format!("size {} -> {}", old.size, new.size));
    }
    Some(parts.join(GAP))
}

/// How many of `new` are not in `old`, and how many of `old` are not in `new`.
fn difference(old: &[Pin], new: &[Pin]) -> (usize, usize) {
    let (old, new): (BTreeSet<&Pin>, BTreeSet<&Pin>) = (old.iter().collect(), new.iter().collect());
    (new.difference(&old).count(), old.difference(&new).count())
}

/// Each setting that differs, as `name old -> new`.
fn want_changes(old: Option<&Want>, new: Option<&Want>) -> Vec<String> {
    let nothing = Want::default();
    let (had, has) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
    let written = |value: Option<&Value>| {
        value.map_or("unset".to_owned(), |value| {
            let mut text = String::new();
            write_value(value, &mut text);
            text
        })
    };
    let mut changes: Vec<String> = had
        .differing(has)
        .into_iter()
        .map(|name| {
            format!(
                "{name} {} -> {}",
                written(had.get(name)),
                written(has.get(name))
            )
        })
        .collect();
    if changes.is_empty() && old.is_some() != new.is_some() {
        changes.push(
            if new.is_some() {
                "named alone"
            } else {
                "no longer named alone"
            }
            .to_owned(),
        );
    }
    changes
}

fn release(old: Option<&Release>, new: Option<&Release>, entry: &mut Entry) {
    let payloads = |release: Option<&Release>| -> BTreeMap<String, Payload> {
        release.map_or(BTreeMap::new(), |release| {
            release
                .payloads
                .iter()
                .map(|payload| (payload.version.clone(), payload.clone()))
                .collect()
        })
    };
    let (before, after) = (payloads(old), payloads(new));
    let mut versions: Vec<&String> = before.keys().chain(after.keys()).collect();
    versions.sort_by_key(|version| Version::of(version));
    versions.dedup();
    for version in versions {
        let (mark, detail) = match (before.get(version), after.get(version)) {
            (None, Some(payload)) => ('+', new_payload(payload, &before, &after)),
            (Some(payload), None) => ('-', plural(payload.components.len(), "component")),
            (Some(was), Some(is)) if was != is => {
                let mut details: Vec<String> = pin_change(Some(&was.pin), Some(&is.pin))
                    .map(|detail| format!("image {detail}"))
                    .into_iter()
                    .collect();
                let components = |payload: &Payload| -> BTreeSet<_> {
                    payload.components.iter().cloned().collect()
                };
                let (was, is) = (components(was), components(is));
                if was != is {
                    details.push(format!(
                        "components +{} -{}",
                        is.difference(&was).count(),
                        was.difference(&is).count()
                    ));
                }
                ('~', details.join(GAP))
            }
            _ => continue,
        };
        entry.lines.push(Line {
            mark,
            name: version.clone(),
            detail,
        });
    }
    let risks = |release: Option<&Release>| -> BTreeSet<(String, String)> {
        release.map_or(BTreeSet::new(), |release| {
            release
                .risks
                .iter()
                .map(|risk| (risk.name.clone(), risk.url.clone()))
                .collect()
        })
    };
    let (before, after) = (risks(old), risks(new));
    for (mark, risks) in [
        ('+', after.difference(&before)),
        ('-', before.difference(&after)),
    ] {
        entry.lines.extend(risks.map(|(name, url)| Line {
            mark,
            name: format!("accepted risk {name}"),
            detail: url.clone(),
        }));
    }
}

/// What a new payload has in common with the one before it.
fn new_payload(
    payload: &Payload,
    before: &BTreeMap<String, Payload>,
    after: &BTreeMap<String, Payload>,
) -> String {
    let count = plural(payload.components.len(), "component");
    let version = Version::of(&payload.version);
    let previous = before
        .values()
        .chain(after.values())
        .filter(|other| Version::of(&other.version) < version)
        .max_by(|left, right| Version::of(&left.version).cmp(&Version::of(&right.version)));
    let Some(previous) = previous else {
        return count;
    };
    let known: BTreeMap<&str, Digest> = previous
        .components
        .iter()
        .map(|component| (component.name.as_str(), component.pin.digest))
        .collect();
    let same = payload
        .components
        .iter()
        .filter(|component| known.get(component.name.as_str()) == Some(&component.pin.digest))
        .count();
    format!(
        "{count}: {same} same as {}, {} changed",
        previous.version,
        payload.components.len() - same
    )
}

#[derive(Serialize)]
struct JsonDiff<'a> {
    version: u32,
    blocks: Vec<JsonBlock<'a>>,
    images: Counts,
    files: Counts,
    blobs: Blobs,
}

#[derive(Serialize)]
struct JsonBlock<'a> {
    kind: &'static str,
    key: Vec<&'a str>,
    change: Change,
    #[serde(skip_serializing_if = "Option::is_none")]
    want: Option<JsonPair<serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<JsonPair<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    risks: Option<JsonPair<Vec<JsonRisk<'a>>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    digests: Vec<JsonDigest>,
    added: Vec<JsonPin<'a>>,
    removed: Vec<JsonPin<'a>>,
}

#[derive(Serialize)]
struct JsonPair<T> {
    before: Option<T>,
    after: Option<T>,
}

#[derive(PartialEq, Serialize)]
struct JsonRisk<'a> {
    name: &'a str,
    url: &'a str,
}

#[derive(Serialize)]
struct JsonDigest {
    role: &'static str,
    before: Option<Digest>,
    after: Option<Digest>,
}

#[derive(Serialize)]
struct JsonPin<'a> {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    image: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    platforms: Vec<String>,
}

fn json_pin<'a>((role, pin): (Role<'a>, &'a Pin)) -> JsonPin<'a> {
    let (version, name) = match role {
        Role::Payload { version } => (Some(version), None),
        Role::Component { version, name } => (Some(version), Some(name)),
        Role::Bundle { name } => (None, Some(name)),
        _ => (None, None),
    };
    JsonPin {
        role: role.kind(),
        version,
        name,
        image: pin.image(),
        size: pin.size,
        tag: pin.tag.as_ref().map(crate::reference::Tag::as_str),
        platforms: pin.platforms.iter().map(ToString::to_string).collect(),
    }
}

/// The risks of a release, if it has any.
fn json_risks(block: Block<'_>) -> Option<Vec<JsonRisk<'_>>> {
    match block {
        Block::Release(Release { risks, .. }) if !risks.is_empty() => Some(
            risks
                .iter()
                .map(|risk| JsonRisk {
                    name: &risk.name,
                    url: &risk.url,
                })
                .collect(),
        ),
        _ => None,
    }
}

fn json_want(want: &Want) -> serde_json::Value {
    fn json(value: &Value) -> serde_json::Value {
        match value {
            Value::Bool(value) => (*value).into(),
            Value::Integer(value) => (*value).into(),
            Value::Text(text) => text.as_str().into(),
            Value::Digest(digest) => digest.to_string().into(),
            Value::List(items) => items.iter().map(json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|(name, value)| (name.clone(), json(value)))
                .collect(),
        }
    }
    want.settings()
        .iter()
        .map(|(name, value)| (name.clone(), json(value)))
        .collect()
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
