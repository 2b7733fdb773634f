//! The chain file of a stream: one line per archive, linked by archive ids.
//!
//! ```text
//! 7 id=sha256:… parent=sha256:… bases=6 lock=sha256:… provides=4214 bytes=6801234567 part=8589934592
//! ```
//!
//! Lines ascend from sequence 1 without a gap; the first has `parent=-`, a full archive has `bases=-`, and a base
//! that no archive brought is given by its lock digest. `part` is the part size. Each id is the SHA-256 of a
//! manifest that names its parent's id, so whoever holds the newest id can verify every line.
//!
//! Whether an archive may follow what a destination has adopted is [`decide`], a function of the two and nothing
//! else.

use std::fmt;

use super::list::decimal;
use super::manifest::ANCESTOR_LIMIT;
use super::{Base, Manifest, SEQUENCE_LIMIT, SIZE_LIMIT, Stream};
use crate::digest::Digest;

/// A chain file that is not one, or an archive that does not fit it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A line has another form.
    #[error(
        "line {line} of the chain is malformed: expected \"{}\"",
        "<sequence> id=… parent=… bases=… lock=… provides=… bytes=… part=…"
    )]
    Form {
        /// Counted from 1.
        line: u64,
    },
    /// A sequence is missing or out of order.
    #[error("the chain has sequence {found} where {expected} must be")]
    Sequence {
        /// What must be there.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A line does not name the one before it as its parent.
    #[error("sequence {sequence} has parent {}, but the archive before it is {}", or_dash(found.as_ref()), or_dash(expected.as_ref()))]
    Parent {
        /// The line.
        sequence: u64,
        /// The id of the archive before it.
        expected: Option<Digest>,
        /// The parent it names.
        found: Option<Digest>,
    },
    /// A base is no earlier sequence.
    #[error("sequence {sequence} cannot apply on top of sequence {base}")]
    Base {
        /// The line.
        sequence: u64,
        /// The base it names.
        base: u64,
    },
    /// The chain has no line for the archive.
    #[error("the chain ends at sequence {last} and has no line for sequence {sequence}")]
    Absent {
        /// The archive's sequence.
        sequence: u64,
        /// The chain's last.
        last: u64,
    },
    /// The archive is another one than the chain records.
    #[error("the chain records {expected} as sequence {sequence}")]
    Other {
        /// The sequence of the archive, or of one of its ancestors.
        sequence: u64,
        /// What the chain has.
        expected: Digest,
    },
    /// The archive's manifest says something else than the chain's line.
    #[error("the chain's line for sequence {sequence} differs from the manifest: {field}")]
    Differs {
        /// The sequence.
        sequence: u64,
        /// The first field that differs.
        field: &'static str,
    },
}

fn or_dash(digest: Option<&Digest>) -> String {
    digest.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// A base, as a chain line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LineBase {
    /// The lock of that sequence.
    Sequence(u64),
    /// A lock that no archive of the stream brought.
    Lock(Digest),
}

impl From<&Base> for LineBase {
    fn from(base: &Base) -> Self {
        base.sequence.map_or(Self::Lock(base.lock), Self::Sequence)
    }
}

/// One archive of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its place, counted from 1.
    pub sequence: u64,
    /// Its id.
    pub archive_id: Digest,
    /// The id of the one before it.
    pub parent: Option<Digest>,
    /// What it applies on top of; nothing for a full archive.
    pub bases: Vec<LineBase>,
    /// Its lock.
    pub lock: Digest,
    /// How many blobs it carries.
    pub provides: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The part size it was exported with.
    pub part_size: u64,
}

impl Line {
    /// The line of the archive that `manifest` describes, exported with `part_size`.
    #[must_use]
    pub fn of(manifest: &Manifest, part_size: u64) -> Self {
        Self {
            sequence: manifest.sequence,
            archive_id: manifest.archive_id(),
            parent: manifest.parent,
            bases: manifest.bases.iter().map(LineBase::from).collect(),
            lock: manifest.lock.digest,
            provides: manifest.provides.count,
            bytes: manifest.provides.bytes,
            part_size,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let sequence = decimal(words.next()?)?;
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
        let archive_id = value("id")?.parse().ok()?;
        let parent = match value("parent")? {
            "-" => None,
            digest => Some(digest.parse().ok()?),
        };
        let bases = match value("bases")? {
            "-" => Vec::new(),
            bases => bases
                .split(',')
                .map(|base| match decimal(base) {
                    Some(sequence) => Some(LineBase::Sequence(sequence)),
                    None => base.parse().ok().map(LineBase::Lock),
                })
                .collect::<Option<_>>()?,
        };
        let line = Self {
            sequence,
            archive_id,
            parent,
            bases,
            lock: value("lock")?.parse().ok()?,
            provides: decimal(value("provides")?)?,
            bytes: decimal(value("bytes")?)?,
            part_size: decimal(value("part")?).filter(|size| *size <= SIZE_LIMIT)?,
        };
        let ascends = line.bases.windows(2).all(|pair| pair[0] < pair[1]);
        (words.next().is_none() && ascends).then_some(line)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} id={} parent={} bases=",
            self.sequence,
            self.archive_id,
            or_dash(self.parent.as_ref())
        )?;
        if self.bases.is_empty() {
            formatter.write_str("-")?;
        }
        for (index, base) in self.bases.iter().enumerate() {
            if index > 0 {
                formatter.write_str(",")?;
            }
            match base {
                LineBase::Sequence(sequence) => write!(formatter, "{sequence}")?,
                LineBase::Lock(lock) => write!(formatter, "{lock}")?,
            }
        }
        write!(
            formatter,
            " lock={} provides={} bytes={} part={}",
            self.lock, self.provides, self.bytes, self.part_size
        )
    }
}

/// The archives of a stream, from sequence 1 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    lines: Vec<Line>,
}

impl Chain {
    /// Reads a chain file, strictly.
    ///
    /// # Errors
    /// Names the first line that is malformed or does not follow the one before it.
    pub fn parse(text: &str) -> Result<Self, ChainError> {
        let mut chain = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let malformed = ChainError::Form {
                line: chain.lines.len() as u64 + 1,
            };
            let (line, behind) = rest.split_once('\n').ok_or_else(|| malformed.clone())?;
            chain.append(Line::parse(line).ok_or(malformed)?)?;
            rest = behind;
        }
        Ok(chain)
    }

    /// Appends the line of the next archive.
    ///
    /// # Errors
    /// If its sequence or its parent does not follow the last line, or a base is not earlier.
    pub fn append(&mut self, line: Line) -> Result<(), ChainError> {
        let expected = self.lines.len() as u64 + 1;
        if line.sequence != expected || expected > SEQUENCE_LIMIT {
            return Err(ChainError::Sequence {
                expected,
                found: line.sequence,
            });
        }
        let parent = self.lines.last().map(|line| line.archive_id);
        if line.parent != parent {
            return Err(ChainError::Parent {
                sequence: line.sequence,
                expected: parent,
                found: line.parent,
            });
        }
        for base in &line.bases {
            if let LineBase::Sequence(base) = base
                && (*base == 0 || *base >= line.sequence)
            {
                return Err(ChainError::Base {
                    sequence: line.sequence,
                    base: *base,
                });
            }
        }
        self.lines.push(line);
        Ok(())
    }

    /// The lines, by sequence.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The line of `sequence`.
    #[must_use]
    pub fn line(&self, sequence: u64) -> Option<&Line> {
        self.lines
            .get(usize::try_from(sequence.checked_sub(1)?).ok()?)
    }

    /// The newest line.
    #[must_use]
    pub fn last(&self) -> Option<&Line> {
        self.lines.last()
    }

    /// The lock of sequence 1.
    #[must_use]
    pub fn genesis(&self) -> Option<Digest> {
        self.lines.first().map(|line| line.lock)
    }

    /// What the manifest of `sequence` lists as its ancestors: newest first, at most 256.
    #[must_use]
    pub fn ancestors(&self, sequence: u64) -> Vec<(u64, Digest)> {
        self.lines
            .iter()
            .rev()
            .filter(|line| line.sequence < sequence)
            .take(ANCESTOR_LIMIT)
            .map(|line| (line.sequence, line.archive_id))
            .collect()
    }

    /// Holds an archive to the chain: its own line and its whole history.
    ///
    /// # Errors
    /// If the chain has no line for it, or records something else.
    pub fn check(&self, manifest: &Manifest) -> Result<(), ChainError> {
        let sequence = manifest.sequence;
        let absent = ChainError::Absent {
            sequence,
            last: self.lines.len() as u64,
        };
        let line = self.line(sequence).ok_or(absent)?;
        let found = Line::of(manifest, line.part_size);
        for (sequence, archive_id) in &manifest.ancestors {
            if let Some(known) = self.line(*sequence)
                && known.archive_id != *archive_id
            {
                return Err(ChainError::Other {
                    sequence: *sequence,
                    expected: known.archive_id,
                });
            }
        }
        if line.archive_id != found.archive_id {
            return Err(ChainError::Other {
                sequence,
                expected: line.archive_id,
            });
        }
        let differs = |field| Err(ChainError::Differs { sequence, field });
        if line.lock != found.lock {
            return differs("lock");
        }
        if line.bases != found.bases {
            return differs("bases");
        }
        if (line.provides, line.bytes) != (found.provides, found.bytes) {
            return differs("provides");
        }
        if self.genesis() != Some(manifest.genesis) {
            return differs("genesis");
        }
        Ok(())
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines
            .iter()
            .try_for_each(|line| writeln!(formatter, "{line}"))
    }
}

/// What a destination has adopted last from a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The stream.
    pub stream: Stream,
    /// The lock of its sequence 1.
    pub genesis: Digest,
    /// The sequence adopted.
    pub sequence: u64,
    /// The id of that archive.
    pub archive_id: Digest,
    /// The ancestors that its manifest lists, newest first.
    pub ancestors: Vec<(u64, Digest)>,
}

impl Head {
    /// The head of a destination that has adopted the archive of `manifest`.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            stream: manifest.stream.clone(),
            genesis: manifest.genesis,
            sequence: manifest.sequence,
            archive_id: manifest.archive_id(),
            ancestors: manifest.ancestors.clone(),
        }
    }
}

/// What an archive is to a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing was adopted yet; any archive may be the start.
    First,
    /// It comes later in the same history; its closure decides.
    Next,
    /// It is the head itself.
    AlreadyAdopted,
    /// It is of this history and older than the head: skipped where a newer one is at hand, else a rollback.
    Older,
    /// It claims a place in the history that another archive has.
    Fork {
        /// The place.
        sequence: u64,
        /// The archive that has it here.
        ours: Digest,
        /// The archive that claims it.
        theirs: Digest,
    },
    /// Nothing shows that it continues what was adopted.
    Unrelated(Unrelated),
}

/// Why nothing shows that an archive continues what was adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrelated {
    /// It is of another stream.
    Stream,
    /// Its stream began with another lock.
    Genesis,
    /// The head is older than its list of ancestors, it is not full, and no chain joins the two.
    Distance,
}

/// Tells what the archive of `manifest` is to a destination whose head is `head`. A `chain` given by the operator
/// joins what lies further apart than manifests remember.
#[must_use]
pub fn decide(head: Option<&Head>, manifest: &Manifest, chain: Option<&Chain>) -> Decision {
    let Some(head) = head else {
        return Decision::First;
    };
    if head.stream != manifest.stream {
        return Decision::Unrelated(Unrelated::Stream);
    }
    if head.genesis != manifest.genesis {
        return Decision::Unrelated(Unrelated::Genesis);
    }
    let archive_id = manifest.archive_id();
    let fork = |sequence, ours, theirs| Decision::Fork {
        sequence,
        ours,
        theirs,
    };
    // Everything that either side remembers must agree, wherever both remember.
    let newest_first = |ancestors: &[(u64, Digest)], own: (u64, Digest)| {
        let mut known = vec![own];
        known.extend_from_slice(ancestors);
        known
    };
    let ours = newest_first(&head.ancestors, (head.sequence, head.archive_id));
    let theirs = newest_first(&manifest.ancestors, (manifest.sequence, archive_id));
    let at = |known: &[(u64, Digest)], sequence: u64| {
        known
            .iter()
            .find(|(known, _)| *known == sequence)
            .map(|(_, id)| *id)
    };
    for (sequence, theirs) in theirs.iter().rev() {
        if let Some(ours) = at(&ours, *sequence)
            && ours != *theirs
        {
            return fork(*sequence, ours, *theirs);
        }
    }
    match manifest.sequence.cmp(&head.sequence) {
        std::cmp::Ordering::Equal => Decision::AlreadyAdopted,
        std::cmp::Ordering::Less => Decision::Older,
        std::cmp::Ordering::Greater => {
            if at(&theirs, head.sequence).is_some() || manifest.is_full() {
                return Decision::Next;
            }
            let Some(chain) = chain else {
                return Decision::Unrelated(Unrelated::Distance);
            };
            let mut joined = [false; 2];
            for (joined, known) in joined.iter_mut().zip([&ours, &theirs]) {
                for (sequence, id) in known {
                    if let Some(line) = chain.line(*sequence) {
                        if line.archive_id != *id {
                            return fork(*sequence, line.archive_id, *id);
                        }
                        *joined = true;
                    }
                }
            }
            // The chain must reach the head itself, not only something before it.
            if joined == [true; 2] && chain.line(head.sequence).is_some() {
                Decision::Next
            } else {
                Decision::Unrelated(Unrelated::Distance)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::super::samples::Sample;
    use super::super::{Contents, Layout};
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn lines() -> impl Strategy<Value = Chain> {
        let base = prop_oneof![
            (1_u64..9).prop_map(LineBase::Sequence),
            any::<[u8; 32]>().prop_map(|bytes| LineBase::Lock(Digest::from_bytes(bytes))),
        ];
        let line = (
            any::<[[u8; 32]; 2]>(),
            prop::collection::btree_set(base, 0..4),
            any::<[u64; 2]>(),
            0..=SIZE_LIMIT,
        );
        prop::collection::vec(line, 0..6).prop_map(|lines| {
            let mut chain = Chain::default();
            for (sequence, ([archive_id, lock], bases, [provides, bytes], part_size)) in
                (1..).zip(lines)
            {
                let line = Line {
                    sequence,
                    archive_id: Digest::from_bytes(archive_id),
                    parent: chain.last().map(|line| line.archive_id),
                    bases: bases
                        .into_iter()
                        .filter(
                            |base| !matches!(base, LineBase::Sequence(base) if *base >= sequence),
                        )
                        .collect(),
                    lock: Digest::from_bytes(lock),
                    provides,
                    bytes,
                    part_size,
                };
                chain.append(line).unwrap();
            }
            chain
        })
    }

    proptest! {
        #[test]
        fn a_chain_survives_printing(chain in lines()) {
            prop_assert_eq!(Chain::parse(&chain.to_string()).unwrap(), chain);
        }

        #[test]
        fn a_changed_chain_is_refused_or_another(chain in lines(), at in any::<prop::sample::Index>(), byte in 0_u8..127) {
            let mut text = chain.to_string().into_bytes();
            if !text.is_empty() {
                let at = at.index(text.len());
                text[at] = byte;
                let text = String::from_utf8(text).unwrap();
                if let Ok(parsed) = Chain::parse(&text) {
                    prop_assert_eq!(parsed.to_string(), text, "whatever is read has one form");
                }
            }
        }

        #[test]
        fn every_archive_fits_a_chain_that_ends_with_its_line(manifest in manifest()) {
            let head = Head::of(&manifest);
            prop_assert_eq!(decide(Some(&head), &manifest, None), Decision::AlreadyAdopted);
            prop_assert_eq!(decide(None, &manifest, None), Decision::First);
            let line = Line::of(&manifest, 1 << 30);
            prop_assert_eq!(Line::parse(&line.to_string()), Some(line));
        }
    }

    #[test]
    fn a_line_has_the_form_that_reviews_depend_on() {
        let chain = history("", 2).1;
        insta::assert_snapshot!(chain, @r"
        1 id=sha256:a1f8866ff7a3902daae3378db4595cc945712545b0cb8038080b9da83b9596a9 parent=- bases=- lock=sha256:a5cf689bd5e551ac22b4a5cee21584d0635b4bc7a67cd2f25ba5e38b3457fd89 provides=2 bytes=30 part=1048576
        2 id=sha256:f694df5bc2620b483226e71b5c8f52ef7407dbde3894e863c32d8b3fe02f8517 parent=sha256:a1f8866ff7a3902daae3378db4595cc945712545b0cb8038080b9da83b9596a9 bases=1 lock=sha256:73b902b5b08b69aafd847120f75ce0a2969e87e9e3349adab73b0396b4fd6805 provides=2 bytes=30 part=1048576
        ");
    }

    #[test]
    fn a_chain_that_is_broken_is_refused_with_the_place() {
        let good = history("", 4).1.to_string();
        let lines: Vec<&str> = good.lines().collect();
        for (text, expected) in [
            (good.replace('\n', "\r\n"), "line 1"),
            (good.trim_end().to_owned(), "line 4"),
            (good.replacen("1 id", "01 id", 1), "line 1"),
            (good.replacen(" lock=", "  lock=", 1), "line 1"),
            (good.replacen("parent=-", "parent=", 1), "line 1"),
            (good.replacen("bases=1", "bases=1,", 1), "line 2"),
            (good.replacen("bases=1", "bases=1,1", 1), "line 2"),
            (format!("<<<<<<< HEAD\n{good}"), "line 1"),
            (
                format!("{}\n{}\n", lines[0], lines[2]),
                "sequence 3 where 2 must be",
            ),
            (format!("{}\n", lines[1]), "sequence 2 where 1 must be"),
            (
                good.replacen(
                    &lines[1][..40],
                    &format!("2 id={}", &id("x").to_string()[..35]),
                    1,
                ),
                "sequence 3 has parent",
            ),
            (
                good.replacen("parent=-", &format!("parent={}", id("x")), 1),
                "sequence 1 has parent",
            ),
            (
                good.replacen("bases=1", "bases=2", 1),
                "on top of sequence 2",
            ),
            (
                good.replacen("bases=1", "bases=0", 1),
                "on top of sequence 0",
            ),
        ] {
            let error = Chain::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} must say {expected:?}");
        }
    }

    /// The manifests of a stream's first archives, each on top of the one before it, and its chain. Another `salt`
    /// gives other archives after the second.
    fn history(salt: &str, length: u64) -> (Vec<Manifest>, Chain) {
        let sample = Sample::of(&[10, 20]);
        let locks: Vec<String> = (1..=length)
            .map(|sequence| {
                let salt = if sequence > 2 { salt } else { "" };
                format!("version = 1\n# {sequence}{salt}\n")
            })
            .collect();
        let mut chain = Chain::default();
        let mut manifests = Vec::new();
        for (sequence, lock) in (1..).zip(&locks) {
            let mut contents: Contents<'_> = sample.contents();
            contents.sequence = sequence;
            contents.lock = lock.as_bytes();
            contents.genesis = id(&locks[0]);
            contents.ancestors = chain.ancestors(sequence);
            contents.parent = chain.last().map(|line| line.archive_id);
            if let Some(last) = chain.last() {
                contents.bases = vec![Base {
                    sequence: Some(last.sequence),
                    lock: last.lock,
                }];
            }
            let layout = Layout::of(&contents, 1 << 20).unwrap();
            chain.append(layout.line()).unwrap();
            manifests.push(layout.manifest().clone());
        }
        (manifests, chain)
    }

    #[test]
    fn a_chain_holds_each_of_its_archives_and_no_other() {
        let (manifests, chain) = history("", 5);
        let (others, _) = history(" other", 5);
        for (ours, theirs) in manifests.iter().zip(&others) {
            assert_eq!(chain.check(ours), Ok(()), "its own archives fit");
            if ours.sequence > 2 {
                assert!(
                    matches!(
                        chain.check(theirs),
                        Err(ChainError::Other { sequence, .. }) if sequence > 2
                    ),
                    "another archive with the same number does not"
                );
            }
        }
        let first = chain.to_string();
        let first = Chain::parse(first.split_inclusive('\n').next().unwrap()).unwrap();
        assert_eq!(
            first.check(&manifests[3]),
            Err(ChainError::Absent {
                sequence: 4,
                last: 1
            }),
            "a chain that ends before it cannot tell"
        );
    }

    #[test]
    fn what_an_archive_is_to_a_destination() {
        let (ours, chain) = history("", 300);
        let (theirs, other_chain) = history(" other", 300);
        let at = |manifests: &[Manifest], sequence: usize| manifests[sequence - 1].clone();
        let head = |sequence| Some(Head::of(&at(&ours, sequence)));
        let fork = |sequence: usize| Decision::Fork {
            sequence: sequence as u64,
            ours: at(&ours, sequence).archive_id(),
            theirs: at(&theirs, sequence).archive_id(),
        };
        let full = |sequence| {
            let mut manifest = at(&ours, sequence);
            manifest.bases.clear();
            manifest
        };
        let mut stranger = at(&ours, 9);
        stranger.stream = "other".parse().unwrap();
        let mut reborn = at(&ours, 9);
        reborn.genesis = id("another genesis");
        let table = [
            (
                "nothing was adopted",
                None,
                at(&ours, 7),
                None,
                Decision::First,
            ),
            (
                "the head",
                head(7),
                at(&ours, 7),
                None,
                Decision::AlreadyAdopted,
            ),
            ("the next", head(7), at(&ours, 8), None, Decision::Next),
            ("a later one", head(7), at(&ours, 12), None, Decision::Next),
            ("an older one", head(7), at(&ours, 4), None, Decision::Older),
            (
                "one so old that nobody remembers",
                head(290),
                at(&ours, 4),
                None,
                Decision::Older,
            ),
            (
                "another with the head's number",
                head(7),
                at(&theirs, 7),
                None,
                fork(3),
            ),
            (
                "one after another with the head's number",
                head(7),
                at(&theirs, 9),
                None,
                fork(3),
            ),
            (
                "an older one of another line",
                head(7),
                at(&theirs, 4),
                None,
                fork(3),
            ),
            (
                "another at the first difference",
                head(3),
                at(&theirs, 3),
                None,
                fork(3),
            ),
            (
                "another stream",
                head(7),
                stranger,
                None,
                Decision::Unrelated(Unrelated::Stream),
            ),
            (
                "another beginning",
                head(7),
                reborn,
                None,
                Decision::Unrelated(Unrelated::Genesis),
            ),
            (
                "the last that remembers the head",
                head(7),
                at(&ours, 263),
                None,
                Decision::Next,
            ),
            (
                "too far away",
                head(7),
                at(&ours, 264),
                None,
                Decision::Unrelated(Unrelated::Distance),
            ),
            (
                "too far away, but full",
                head(7),
                full(264),
                None,
                Decision::Next,
            ),
            (
                "too far away, but on one chain",
                head(7),
                at(&ours, 264),
                Some(&chain),
                Decision::Next,
            ),
            (
                "too far away, on another chain",
                head(7),
                at(&ours, 264),
                Some(&other_chain),
                fork(7),
            ),
        ];
        for (what, head, manifest, chain, expected) in table {
            let found = decide(head.as_ref(), &manifest, chain);
            match (&found, &expected) {
                // Where the two sides of a chain stand is told by the numbers.
                (Decision::Fork { sequence: a, .. }, Decision::Fork { sequence: b, .. }) => {
                    assert_eq!(a, b, "{what}");
                }
                _ => assert_eq!(found, expected, "{what}"),
            }
        }
        let short = Chain {
            lines: chain.lines()[..5].to_vec(),
        };
        assert_eq!(
            decide(head(7).as_ref(), &at(&ours, 264), Some(&short)),
            Decision::Unrelated(Unrelated::Distance),
            "a chain that ends before the head joins nothing"
        );
    }
}
