//! The layout of an archive: every member of every part and every byte's place, before the first is written.
//!
//! The part size is a hard limit on the file, everything counted. Members are placed next-fit in archive order: one
//! that does not fit closes the part. A blob larger than an empty part is cut into spans, each alone in its part
//! but the last, which opens a part that others fill; nothing else is ever cut. `part.json` grows with every entry,
//! so whether an entry fits counts the bytes of its own line there. A span that is not the last takes the largest
//! multiple of 512 bytes that fits.

use super::list::{check_sorted, check_unique, check_within, listed};
use super::manifest::{File, Format};
use super::member::{Entry, Member, PartHeader};
use super::{
    ArchiveError, Base, Built, FileKind, FileName, Flaw, Manifest, PART_LIMIT, SIZE_LIMIT, Stream,
    list, tar,
};
use crate::digest::Digest;
use crate::store::Blob;

/// The one content of `oci-layout`, as the OCI image specification has it.
pub const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Smallest span that is not the last one.
const LEAST_SPAN: u64 = tar::BLOCK;

/// What goes into an archive.
#[derive(Clone, Debug)]
pub struct Contents<'a> {
    /// The line of archives it belongs to.
    pub stream: &'a Stream,
    /// Its place there, counted from 1.
    pub sequence: u64,
    /// The lock of sequence 1.
    pub genesis: Digest,
    /// The id of the archive before it.
    pub parent: Option<Digest>,
    /// The stream's earlier archives, newest first; see [`super::chain::Chain::ancestors`].
    pub ancestors: Vec<(u64, Digest)>,
    /// The locks on top of which it applies, in any order.
    pub bases: Vec<Base>,
    /// The bytes of the lock.
    pub lock: &'a [u8],
    /// File name and bytes of each rule, in any order.
    pub rules: Vec<(String, Vec<u8>)>,
    /// Path and bytes of each resource made early, in any order.
    pub resources: Vec<(String, Vec<u8>)>,
    /// The bytes of `index.json`.
    pub index: Vec<u8>,
    /// Outputs of combined steps, in any order.
    pub built: Vec<Built>,
    /// Every blob of the lock, ascending by digest.
    pub closure: Vec<Blob>,
    /// Every blob to carry, in archive order: manifests first.
    pub provides: Vec<Blob>,
}

/// One part, laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartLayout {
    /// Every member behind `part.json`, in order.
    pub entries: Vec<Entry>,
    /// The size of the file, in bytes.
    pub size: u64,
}

/// An archive, laid out.
#[derive(Clone, Debug)]
pub struct Layout {
    manifest: Manifest,
    archive_id: Digest,
    part_size: u64,
    /// The members of part 1 that are no blobs, the manifest first.
    metadata: Metadata,
    parts: Vec<PartLayout>,
}

impl Layout {
    /// Lays out `contents` in parts of at most `part_size` bytes.
    ///
    /// # Errors
    /// If the contents contradict each other, or the part size does not do; then the error says which does.
    pub fn of(contents: &Contents<'_>, part_size: u64) -> Result<Self, ArchiveError> {
        let (manifest, metadata) = describe(contents).map_err(ArchiveError::Contents)?;
        let archive_id = Digest::of(&metadata[0].1);
        let part_size = part_size.min(SIZE_LIMIT);
        let split = |limit| Splitter::split(&metadata, &contents.provides, limit);
        let parts = match split(part_size) {
            Ok(parts) => parts,
            Err(Refused::Metadata { least }) => {
                return Err(ArchiveError::PartSize {
                    limit: part_size,
                    least,
                });
            }
            Err(Refused::TooMany) => {
                let carried: u64 = contents
                    .provides
                    .iter()
                    .fold(0_u64, |sum, blob| sum.saturating_add(blob.size));
                let mut works = part_size.max(carried / u64::from(PART_LIMIT));
                while split(works).is_err() && works < SIZE_LIMIT {
                    works = (works + works / 16 + tar::BLOCK).min(SIZE_LIMIT);
                }
                return Err(ArchiveError::Parts {
                    limit: part_size,
                    works,
                });
            }
        };
        Ok(Self {
            manifest,
            archive_id,
            part_size,
            metadata,
            parts,
        })
    }

    /// The archive's id.
    #[must_use]
    pub const fn archive_id(&self) -> Digest {
        self.archive_id
    }

    /// The manifest.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's bytes.
    #[must_use]
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.metadata[0].1
    }

    /// The limit that it was laid out for, in bytes.
    #[must_use]
    pub const fn part_size(&self) -> u64 {
        self.part_size
    }

    /// The parts, by number less one.
    #[must_use]
    pub fn parts(&self) -> &[PartLayout] {
        &self.parts
    }

    /// How many parts there are.
    #[must_use]
    pub fn of_parts(&self) -> u32 {
        u32::try_from(self.parts.len()).expect("no more than PART_LIMIT")
    }

    /// The bytes of all parts together.
    #[must_use]
    pub fn total_size(&self) -> u64 {
        self.parts
            .iter()
            .fold(0, |sum, part| sum.saturating_add(part.size))
    }

    /// The name of a file of the archive.
    #[must_use]
    pub fn file_name(&self, kind: FileKind) -> FileName {
        FileName {
            stream: self.manifest.stream.clone(),
            sequence: self.manifest.sequence,
            kind,
        }
    }

    /// The line that the chain gets for this archive.
    #[must_use]
    pub fn line(&self) -> super::chain::Line {
        super::chain::Line::of(&self.manifest, self.part_size)
    }

    /// The bytes of `part.json` of part `number`, counted from 1; `None` if there is no such part.
    #[must_use]
    pub fn part_header(&self, number: u32) -> Option<Vec<u8>> {
        let part = self.part(number)?;
        Some(
            PartHeader {
                archive: self.archive_id,
                entries: part.entries.clone(),
                of: self.of_parts(),
                part: number,
            }
            .print(),
        )
    }

    /// Part `number`, counted from 1.
    #[must_use]
    pub fn part(&self, number: u32) -> Option<&PartLayout> {
        self.parts
            .get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    /// The bytes of a member that is no blob.
    pub(super) fn content(&self, member: &Member) -> Option<&[u8]> {
        self.metadata
            .iter()
            .find(|(known, _)| known == member)
            .map(|(_, bytes)| bytes.as_slice())
    }
}

/// Members that are no blobs, with their bytes.
type Metadata = Vec<(Member, Vec<u8>)>;

/// The manifest of `contents`, and the members of part 1 that are no blobs.
fn describe(contents: &Contents<'_>) -> Result<(Manifest, Metadata), Flaw> {
    check_sorted(&contents.closure)?;
    check_unique(&contents.provides)?;
    check_within(&contents.provides, &contents.closure)?;
    let closure = list::print(&contents.closure);
    let provides = list::print(&contents.provides);

    let mut named = vec![
        (Member::OciLayout, OCI_LAYOUT.to_vec()),
        (Member::Index, contents.index.clone()),
    ];
    let rules = contents.rules.iter().map(|file| ("rules", file));
    let resources = contents.resources.iter().map(|file| ("resources", file));
    for (folder, (name, bytes)) in rules.chain(resources) {
        let member = Member::parse(&format!("imgbuild/{folder}/{name}"))?;
        named.push((member, bytes.clone()));
    }
    named.sort_by_cached_key(|(member, _)| member.to_string());
    let files = named
        .iter()
        .map(|(member, bytes)| File {
            member: member.clone(),
            blob: Blob::of(bytes),
        })
        .collect();

    let mut bases = contents.bases.clone();
    bases.sort_by_key(|base| (base.sequence.is_none(), *base));
    let mut built = contents.built.clone();
    built.sort_by(|a, b| (&a.step, &a.reference, a.digest).cmp(&(&b.step, &b.reference, b.digest)));
    let manifest = Manifest {
        ancestors: contents.ancestors.clone(),
        bases,
        built,
        closure: listed(&contents.closure, &closure)?,
        files,
        format: Format,
        genesis: contents.genesis,
        lock: Blob::of(contents.lock),
        parent: contents.parent,
        provides: listed(&contents.provides, &provides)?,
        sequence: contents.sequence,
        stream: contents.stream.clone(),
    };
    manifest.check()?;
    let bytes = manifest.print();
    // What is written must be what is read.
    Manifest::parse(&bytes)?;

    let mut given: Metadata = vec![
        (Member::Closure, closure),
        (Member::Provides, provides),
        (Member::Lock, contents.lock.to_vec()),
    ];
    given.extend(named);
    let mut metadata = vec![(Member::Manifest, bytes)];
    for (member, _) in manifest.members() {
        let at = given
            .iter()
            .position(|(known, _)| *known == member)
            .expect("the manifest names what was given");
        metadata.push(given.swap_remove(at));
    }
    Ok((manifest, metadata))
}

/// Why a part size does not do.
enum Refused {
    /// Part 1 cannot hold what it must.
    Metadata { least: u64 },
    /// More parts than have names.
    TooMany,
}

/// The part being filled.
struct Open {
    entries: Vec<Entry>,
    /// The length of `part.json` with these entries.
    header: u64,
    /// The bytes of these entries in the file.
    used: u64,
}

impl Open {
    const fn new() -> Self {
        Self {
            entries: Vec::new(),
            header: PartHeader::EMPTY_LENGTH,
            used: 0,
        }
    }

    /// The length of `part.json` with one more entry.
    fn header_with(&self, entry: &Entry) -> u64 {
        let comma = u64::from(!self.entries.is_empty());
        self.header + comma + entry.json_length()
    }

    /// The size of the file with one more entry.
    fn size_with(&self, entry: &Entry) -> u64 {
        tar::entry_size(self.header_with(entry))
            + self.used
            + tar::entry_size(entry.length)
            + tar::END
    }

    fn push(&mut self, entry: Entry) {
        self.header = self.header_with(&entry);
        self.used += tar::entry_size(entry.length);
        self.entries.push(entry);
    }

    fn size(&self) -> u64 {
        tar::entry_size(self.header) + self.used + tar::END
    }
}

struct Splitter {
    limit: u64,
    manifest_length: u64,
    parts: Vec<PartLayout>,
    open: Open,
    /// How many entries the open part must have.
    fixed: usize,
}

impl Splitter {
    fn split(
        metadata: &[(Member, Vec<u8>)],
        provides: &[Blob],
        limit: u64,
    ) -> Result<Vec<PartLayout>, Refused> {
        let mut open = Open::new();
        for (member, bytes) in metadata {
            open.push(Entry::whole(member.clone(), bytes.len() as u64));
        }
        // Where there are blobs, the lists of part 1 are longer than the least span and its line in part.json, so
        // a limit that fits part 1 also fits a part with a span.
        let least = open.size();
        if least > limit {
            return Err(Refused::Metadata { least });
        }
        let mut splitter = Self {
            limit,
            manifest_length: metadata[0].1.len() as u64,
            parts: Vec::new(),
            fixed: open.entries.len(),
            open,
        };
        for blob in provides {
            splitter.place(blob)?;
        }
        splitter.close()?;
        Ok(splitter.parts)
    }

    fn place(&mut self, blob: &Blob) -> Result<(), Refused> {
        let entry = Entry::whole(Member::Blob(blob.digest), blob.size);
        if self.open.size_with(&entry) <= self.limit {
            self.open.push(entry);
            return Ok(());
        }
        if self.parts.is_empty() || self.open.entries.len() > self.fixed {
            self.next()?;
        }
        if self.open.size_with(&entry) <= self.limit {
            self.open.push(entry);
            return Ok(());
        }
        self.cut(blob)
    }

    /// Cuts `blob` into spans, the first of them in the open part, which is empty.
    fn cut(&mut self, blob: &Blob) -> Result<(), Refused> {
        let span = |number, of, offset, length| Entry {
            member: Member::Span {
                digest: blob.digest,
                number,
                of,
            },
            offset,
            length,
        };
        let mut pieces = Vec::new();
        let mut offset = 0;
        while offset < blob.size {
            let rest = blob.size - offset;
            let fits = |length| self.open.size_with(&span(1, 1, offset, length)) <= self.limit;
            let length = if fits(rest) {
                rest
            } else {
                // The room for a piece whose line is as long as the longest possible, then what shorter lines add.
                let around = self.open.size_with(&span(1, 1, offset, rest)) - tar::padded(rest);
                let mut length = self.limit.saturating_sub(around) / tar::BLOCK * tar::BLOCK;
                while length + tar::BLOCK < rest && fits(length + tar::BLOCK) {
                    length += tar::BLOCK;
                }
                length.max(LEAST_SPAN)
            };
            pieces.push((offset, length));
            if pieces.len() + self.parts.len() > PART_LIMIT as usize {
                return Err(Refused::TooMany);
            }
            offset += length;
        }
        let of = u32::try_from(pieces.len()).expect("no more than PART_LIMIT");
        for (number, (offset, length)) in (1..).zip(pieces) {
            if number > 1 {
                self.next()?;
            }
            self.open.push(span(number, of, offset, length));
        }
        Ok(())
    }

    /// Closes the open part and opens the next.
    fn next(&mut self) -> Result<(), Refused> {
        self.close()?;
        self.open
            .push(Entry::whole(Member::Manifest, self.manifest_length));
        self.fixed = self.open.entries.len();
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refused> {
        let part = std::mem::replace(&mut self.open, Open::new());
        let size = part.size();
        debug_assert!(size <= self.limit, "the part size is a hard limit");
        self.parts.push(PartLayout {
            entries: part.entries,
            size,
        });
        if self.parts.len() > PART_LIMIT as usize {
            return Err(Refused::TooMany);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::Sample;
    use super::*;
    use proptest::prelude::*;

    fn blob(name: u64, size: u64) -> Blob {
        Blob {
            digest: Digest::of(&name.to_be_bytes()),
            size,
        }
    }

    /// A layout of blobs that need not exist.
    fn lay_out(sizes: &[u64], part_size: u64) -> Result<(Vec<Blob>, Layout), ArchiveError> {
        let sample = Sample::of(&[]);
        let mut contents = sample.contents();
        contents.provides = (0..)
            .zip(sizes)
            .map(|(name, size)| blob(name, *size))
            .collect();
        contents.closure = contents.provides.clone();
        contents.closure.sort_unstable();
        let layout = Layout::of(&contents, part_size)?;
        Ok((contents.provides, layout))
    }

    /// The least part size for these blobs.
    fn least(sizes: &[u64]) -> u64 {
        match lay_out(sizes, 1) {
            Err(ArchiveError::PartSize { least, .. }) => least,
            other => panic!("one byte is never enough: {other:?}"),
        }
    }

    fn check(provides: &[Blob], layout: &Layout, limit: u64) {
        let mut joined: Vec<(Blob, bool)> = Vec::new();
        for (number, part) in (1..).zip(layout.parts()) {
            let header = layout.part_header(number).unwrap();
            let size: u64 = part
                .entries
                .iter()
                .map(|entry| tar::entry_size(entry.length))
                .sum::<u64>()
                + tar::entry_size(header.len() as u64)
                + tar::END;
            assert_eq!(size, part.size, "the size of part {number} is exact");
            assert!(
                size <= limit,
                "the part size is a hard limit: {size} > {limit}"
            );
            let parsed = PartHeader::parse(&header).unwrap();
            parsed
                .check_against(layout.manifest(), layout.manifest_bytes().len() as u64)
                .unwrap();
            for entry in &part.entries {
                match &entry.member {
                    Member::Blob(digest) => joined.push((
                        Blob {
                            digest: *digest,
                            size: entry.length,
                        },
                        true,
                    )),
                    Member::Span { digest, number, of } => {
                        if *number == 1 {
                            joined.push((
                                Blob {
                                    digest: *digest,
                                    size: 0,
                                },
                                false,
                            ));
                        }
                        let (blob, whole) = joined.last_mut().unwrap();
                        assert_eq!(blob.digest, *digest, "spans follow one another");
                        assert_eq!(blob.size, entry.offset, "spans leave no gap");
                        blob.size += entry.length;
                        *whole = number == of;
                        if number != of {
                            assert_eq!(part.entries.len(), 2, "such a span is alone in its part");
                            assert_eq!(entry.length % 512, 0, "and of full blocks");
                            assert!(
                                part.size + 1024 > limit,
                                "and leaves no room: {} of {limit}",
                                part.size
                            );
                        }
                    }
                    _ => {}
                }
            }
        }
        let expected: Vec<(Blob, bool)> = provides.iter().map(|blob| (*blob, true)).collect();
        assert_eq!(joined, expected, "all blobs, whole, in order");
    }

    proptest! {
        #[test]
        fn no_part_exceeds_the_part_size_and_nothing_is_lost(
            sizes in prop::collection::vec(prop_oneof![0_u64..2000, 0_u64..40_000], 0..30),
            room in 0_u64..20_000,
        ) {
            let limit = least(&sizes) + room;
            let (provides, layout) = lay_out(&sizes, limit).unwrap();
            check(&provides, &layout, limit);
        }

        #[test]
        fn the_line_of_an_entry_has_the_length_that_was_counted(
            name in 0_u64..9, offset in any::<u64>(), length in any::<u64>(), number in 1_u32..9999,
        ) {
            let digest = Digest::of(&name.to_be_bytes());
            for member in [
                Member::Blob(digest),
                Member::Span { digest, number, of: 9999 },
                Member::Lock,
                Member::Rule("a.toml".to_owned()),
            ] {
                let entry = Entry { member, offset, length };
                prop_assert_eq!(serde_json::to_vec(&entry).unwrap().len() as u64, entry.json_length());
            }
        }
    }

    #[test]
    fn a_part_size_that_is_too_small_is_refused_with_the_least_that_works() {
        for sizes in [vec![], vec![0], vec![5000], vec![1; 100]] {
            let least = least(&sizes);
            assert!(lay_out(&sizes, least - 1).is_err(), "{least} is the least");
            let (provides, layout) = lay_out(&sizes, least).unwrap();
            check(&provides, &layout, least);
        }
    }

    #[test]
    fn too_many_parts_are_refused_with_a_part_size_that_works() {
        let sizes = [1 << 30; 3];
        let limit = least(&sizes);
        match lay_out(&sizes, limit) {
            Err(ArchiveError::Parts { works, .. }) => {
                let (provides, layout) = lay_out(&sizes, works).unwrap();
                check(&provides, &layout, works);
            }
            other => panic!("there are not so many part numbers: {other:?}"),
        }
    }

    #[test]
    fn sizes_near_the_limits_do_not_overflow() {
        let (provides, layout) = lay_out(&[8 << 30, 1 << 40, 0], 1 << 41).unwrap();
        check(&provides, &layout, 1 << 41);
        let (provides, layout) = lay_out(&[8 << 30, SIZE_LIMIT], u64::MAX).unwrap();
        check(&provides, &layout, SIZE_LIMIT);
        for sizes in [
            &[SIZE_LIMIT + 1][..],
            &[u64::MAX, u64::MAX],
            &[SIZE_LIMIT; 17],
        ] {
            assert!(
                matches!(lay_out(sizes, 1 << 50), Err(ArchiveError::Contents(_))),
                "{sizes:?} cannot be carried"
            );
        }
        assert!(
            matches!(
                lay_out(&[SIZE_LIMIT], 1 << 20),
                Err(ArchiveError::Parts { .. })
            ),
            "nor can so large a blob in so small parts"
        );
    }

    #[test]
    fn the_archive_id_does_not_depend_on_the_part_size() {
        let sizes = [700, 20_000, 300];
        let ids: Vec<Digest> = [least(&sizes), 14_000, 1 << 40]
            .into_iter()
            .map(|limit| lay_out(&sizes, limit).unwrap().1.archive_id())
            .collect();
        assert!(
            ids.windows(2).all(|pair| pair[0] == pair[1]),
            "the id covers what is inside: {ids:?}"
        );
    }

    #[test]
    fn contents_that_contradict_each_other_are_refused() {
        type Change = fn(&mut Contents<'_>);
        let sample = Sample::of(&[10, 20, 30, 40]);
        let table: [(&str, Change); 14] = [
            ("an unsorted closure", |contents| contents.closure.reverse()),
            ("a blob twice", |contents| {
                contents.provides[1] = contents.provides[0];
            }),
            ("a blob outside the closure", |contents| {
                contents.closure.remove(0);
            }),
            ("a size unlike the closure's", |contents| {
                contents.provides[0].size += 1;
            }),
            ("sequence 0", |contents| contents.sequence = 0),
            ("a sequence of seven digits", |contents| {
                contents.sequence = 1_000_000;
            }),
            ("no parent", |contents| contents.parent = None),
            ("a gap in the ancestors", |contents| {
                contents.ancestors.remove(0);
            }),
            ("ancestors cut short", |contents| {
                contents.ancestors.pop();
            }),
            ("a base that is not earlier", |contents| {
                contents.bases[1].sequence = Some(3);
            }),
            ("one base twice", |contents| {
                contents.bases[0].lock = contents.bases[1].lock;
            }),
            ("a rule that climbs", |contents| {
                contents.rules[0].0 = "../lock.toml".to_owned();
            }),
            ("a resource that climbs", |contents| {
                contents.resources[0].0 = "a/../b".to_owned();
            }),
            ("two rules of one name", |contents| {
                contents.rules[0].0 = contents.rules[1].0.clone();
            }),
        ];
        for (what, change) in table {
            let mut contents = sample.delta();
            Layout::of(&contents, 1 << 20).unwrap();
            change(&mut contents);
            assert!(
                matches!(
                    Layout::of(&contents, 1 << 20),
                    Err(ArchiveError::Contents(_))
                ),
                "{what} must be refused"
            );
        }
    }

    #[test]
    fn the_order_in_which_files_are_given_does_not_matter() {
        let sample = Sample::of(&[10, 20]);
        let contents = sample.delta();
        let mut other = sample.delta();
        other.rules.reverse();
        other.bases.reverse();
        assert_eq!(
            Layout::of(&contents, 1 << 20).unwrap().archive_id(),
            Layout::of(&other, 1 << 20).unwrap().archive_id(),
            "the same contents are the same archive"
        );
    }
}
