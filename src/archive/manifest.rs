//! The archive manifest: one page that commits to everything in an archive. Its SHA-256 is the archive's id.
//!
//! Shown in reading order; on disk it is canonical JSON (see [`super`]).
//!
//! ```text
//! {"format":"imgbuild-archive/1","stream":"prod","genesis":"sha256:…","seq":7,
//!  "parent":"sha256:<id of sequence 6>","ancestors":[[6,"sha256:…"],[5,"sha256:…"]],
//!  "bases":[[6,"sha256:<lock of sequence 6>"],["sha256:<a lock of no sequence>"]],
//!  "lock":{"digest":"sha256:…","size":812345},
//!  "built":[{"step":"pack-image","for":"registry.redhat.io/…:v4.16","digest":"sha256:…","size":1771}],
//!  "closure":{"count":13412,"bytes":358012345678,"list":"sha256:…"},
//!  "files":[["imgbuild/rules/graph-data.toml",2310,"sha256:…"],["index.json",91234,"sha256:…"]],
//!  "provides":{"count":4214,"bytes":6801234567,"list":"sha256:…"}}
//! ```
//!
//! * `parent` and `ancestors` are the stream's history without a gap: the ids of sequences `seq` - 1, `seq` - 2 and so on,
//!   down to 1 or until there are 256; the parent is the first of them. A full archive does not cut them, so that it
//!   shows where it belongs as any other does. Sequence 1 has none, and its lock is the stream's `genesis`.
//! * `bases` are the locks on top of which the archive applies, any one of them sufficing: first those with a
//!   sequence, ascending, then those given by file, ascending; none twice. A lock that came by file has no sequence and
//!   is a list of one, so that nobody takes it for an archive of this stream that could be brought. A full archive has
//!   no base, and provides its closure.
//! * `built` is ascending by step, then by what it is for.
//! * `files` commits to the members that nothing else commits to, ascending by name: `index.json` and `oci-layout`
//!   always, rules and resources where there are any. It does not name the lock and the two lists, whose digests stand
//!   in keys of their own; blobs and spans, which the lists name; nor `part.json`, which says how the archive is cut and
//!   not what is in it, so that another cut has the same id.
//! * Every key is always there, lists being empty rather than absent; the one exception is `parent`, which sequence 1 does
//!   not have. So there is one way to write each manifest, and `null` is in none.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::member::{Member, canonical, expect_canonical};
use super::{
    BLOB_LIMIT, FILE_LIMIT, Flaw, LIST_LIMIT, MANIFEST_LIMIT, SEQUENCE_LIMIT, SIZE_LIMIT, Stream,
};
use crate::digest::Digest;
use crate::store::Blob;

/// What the manifest says its format is.
pub const FORMAT: &str = "imgbuild-archive/1";

/// Most ancestors that a manifest lists.
pub const ANCESTOR_LIMIT: usize = 256;

/// The manifest of an archive, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The stream's earlier archives, newest first: sequence and id.
    pub ancestors: Vec<(u64, Digest)>,
    /// The locks on top of which it applies.
    pub bases: Vec<Base>,
    /// Where the outputs of combined steps are pinned.
    pub built: Vec<Built>,
    /// Every blob of the lock.
    pub closure: Listed,
    /// The members that nothing else commits to.
    pub files: Vec<File>,
    /// What the format is.
    pub format: Format,
    /// The lock of sequence 1.
    pub genesis: Digest,
    /// The lock.
    #[serde(with = "Promise")]
    pub lock: Blob,
    /// The id of the archive before it in the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
    /// Every blob carried.
    pub provides: Listed,
    /// Its place in the stream, counted from 1.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// The line of archives it belongs to.
    pub stream: Stream,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Blob", deny_unknown_fields)]
struct Promise {
    digest: Digest,
    size: u64,
}

/// [`FORMAT`], as a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format;

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(FORMAT)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == FORMAT {
            Ok(Self)
        } else {
            Err(serde::de::Error::custom("an unknown format"))
        }
    }
}

/// A lock on top of which an archive applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Base {
    /// The archive of the same stream that brought it; `None` for a lock given by file.
    pub sequence: Option<u64>,
    /// The lock.
    pub lock: Digest,
}

impl Serialize for Base {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.sequence {
            Some(sequence) => (sequence, self.lock).serialize(serializer),
            None => (self.lock,).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Base {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Sequence(u64, Digest),
            Lock((Digest,)),
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Sequence(sequence, lock) => Self {
                sequence: Some(sequence),
                lock,
            },
            Form::Lock((lock,)) => Self {
                sequence: None,
                lock,
            },
        })
    }
}

/// The output of a combined step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Built {
    /// The manifest that was built.
    pub digest: Digest,
    /// The reference it was built for.
    #[serde(rename = "for")]
    pub reference: String,
    /// The manifest's size.
    pub size: u64,
    /// The kind of step.
    pub step: String,
}

/// A blob list: how much it names, and the digest of the list itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// The sizes of all blobs named, added.
    pub bytes: u64,
    /// How many blobs it names.
    pub count: u64,
    /// The SHA-256 of the list.
    pub list: Digest,
}

/// A member of part 1 that is committed to by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// A rule, a resource, `oci-layout` or `index.json`.
    pub member: Member,
    /// Its content.
    pub blob: Blob,
}

impl Serialize for File {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.member, self.blob.size, self.blob.digest).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (member, size, digest) = Deserialize::deserialize(deserializer)?;
        Ok(Self {
            member,
            blob: Blob { digest, size },
        })
    }
}

impl Manifest {
    /// Reads a manifest, strictly.
    ///
    /// # Errors
    /// If the format is another one, a key is unknown, the form is not canonical, or values contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        #[derive(Deserialize)]
        struct Peek {
            #[serde(default)]
            format: String,
        }
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(Flaw::Limit {
                what: "bytes of the manifest",
                found: bytes.len() as u64,
                limit: MANIFEST_LIMIT,
            });
        }
        let peek: Peek = serde_json::from_slice(bytes).map_err(Flaw::Json)?;
        if peek.format != FORMAT {
            return Err(Flaw::Format { found: peek.format });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(Flaw::Json)?;
        expect_canonical(bytes, &manifest)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The canonical form.
    #[must_use]
    pub fn print(&self) -> Vec<u8> {
        canonical(self)
    }

    /// The archive's id: the SHA-256 of the canonical form.
    #[must_use]
    pub fn archive_id(&self) -> Digest {
        Digest::of(&self.print())
    }

    /// Whether the archive carries everything and applies on top of nothing.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bases.is_empty()
    }

    /// The members of part 1 behind the manifest, in order, with their sizes where the manifest has them.
    #[must_use]
    pub fn members(&self) -> Vec<(Member, Option<u64>)> {
        let mut members = vec![
            (Member::Closure, None),
            (Member::Provides, None),
            (Member::Lock, Some(self.lock.size)),
        ];
        let kinds: [fn(&Member) -> bool; 4] = [
            |member| matches!(member, Member::Rule(_)),
            |member| matches!(member, Member::Resource(_)),
            |member| *member == Member::OciLayout,
            |member| *member == Member::Index,
        ];
        for is_kind in kinds {
            members.extend(
                self.files
                    .iter()
                    .filter(|file| is_kind(&file.member))
                    .map(|file| (file.member.clone(), Some(file.blob.size))),
            );
        }
        members
    }

    /// What the manifest commits `member` to, where it is not a blob.
    #[must_use]
    pub fn commitment(&self, member: &Member) -> Option<Digest> {
        match member {
            Member::Closure => Some(self.closure.list),
            Member::Provides => Some(self.provides.list),
            Member::Lock => Some(self.lock.digest),
            _ => self
                .files
                .iter()
                .find(|file| file.member == *member)
                .map(|file| file.blob.digest),
        }
    }

    /// What holds for every archive. Writing and reading both ask.
    pub(super) fn check(&self) -> Result<(), Flaw> {
        let fail = |text: String| Err(Flaw::Inconsistent(text));
        if self.sequence == 0 || self.sequence > SEQUENCE_LIMIT {
            return Err(Flaw::sequence(self.sequence));
        }
        let mut expected = self.sequence;
        for (sequence, _) in &self.ancestors {
            expected -= 1;
            if *sequence != expected {
                return fail(format!(
                    "the ancestors have sequence {sequence} where {expected} must be"
                ));
            }
        }
        let known = self.ancestors.len() as u64;
        if known != (self.sequence - 1).min(ANCESTOR_LIMIT as u64) {
            return fail(format!(
                "sequence {} lists {known} ancestors",
                self.sequence
            ));
        }
        if self.parent != self.ancestors.first().map(|(_, id)| *id) {
            return fail("the parent is not the first of the ancestors".to_owned());
        }
        if self.sequence == 1 && self.genesis != self.lock.digest {
            return fail(format!(
                "sequence 1 has genesis {} and lock {}",
                self.genesis, self.lock.digest
            ));
        }
        let order = |base: &Base| (base.sequence.is_none(), base.sequence, base.lock);
        if let Some(pair) = self
            .bases
            .windows(2)
            .find(|pair| order(&pair[0]) >= order(&pair[1]) || pair[0].lock == pair[1].lock)
        {
            return fail(format!(
                "the bases are not in order at lock {}",
                pair[1].lock
            ));
        }
        if let Some(base) = self.bases.iter().find(|base| {
            base.sequence
                .is_some_and(|base| base == 0 || base >= self.sequence)
        }) {
            return fail(format!(
                "sequence {} cannot apply on top of sequence {}",
                self.sequence,
                base.sequence.unwrap_or_default()
            ));
        }
        let order = |built: &Built| (built.step.clone(), built.reference.clone(), built.digest);
        if let Some(pair) = self
            .built
            .windows(2)
            .find(|pair| order(&pair[0]) >= order(&pair[1]))
        {
            return fail(format!(
                "what is built is not in order at {:?}",
                pair[1].reference
            ));
        }
        for listed in [&self.closure, &self.provides] {
            if listed.count > BLOB_LIMIT {
                return Err(Flaw::blobs(listed.count));
            }
        }
        if self.provides.count > self.closure.count || self.provides.bytes > self.closure.bytes {
            return fail("it provides more than its closure has".to_owned());
        }
        let carried = |listed: &Listed| (listed.count, listed.bytes);
        if self.is_full() && carried(&self.provides) != carried(&self.closure) {
            return fail("it has no bases, but provides less than its closure has".to_owned());
        }
        if let Some(built) = self.built.iter().find(|built| built.size > SIZE_LIMIT) {
            return fail(format!("{} has {} bytes", built.digest, built.size));
        }
        self.check_files()
    }

    fn check_files(&self) -> Result<(), Flaw> {
        let mut names = Vec::new();
        let mut total = self.lock.size;
        let mut fixed = 0;
        for file in &self.files {
            match file.member {
                Member::Rule(_) | Member::Resource(_) => {}
                Member::OciLayout | Member::Index => fixed += 1,
                _ => {
                    return Err(Flaw::Inconsistent(format!(
                        "{} is not one of the files to name",
                        file.member
                    )));
                }
            }
            total = total.saturating_add(file.blob.size);
            names.push(file.member.to_string());
        }
        if let Some([_, name]) = names.array_windows().find(|[a, b]| a >= b) {
            return Err(Flaw::Inconsistent(format!(
                "the files are not in order at {name}"
            )));
        }
        if fixed != 2 {
            return Err(Flaw::Inconsistent(
                "the files do not name both oci-layout and index.json".to_owned(),
            ));
        }
        for (found, limit) in [
            (self.lock.size, FILE_LIMIT),
            (
                self.files
                    .iter()
                    .map(|file| file.blob.size)
                    .max()
                    .unwrap_or_default(),
                FILE_LIMIT,
            ),
            (total, 4 * FILE_LIMIT),
        ] {
            if found > limit {
                return Err(Flaw::Limit {
                    what: "bytes of the lock and the files of part 1",
                    found,
                    limit,
                });
            }
        }
        Ok(())
    }
}

/// The most bytes that `member` is read with.
pub(super) const fn member_limit(member: &Member) -> u64 {
    match member {
        Member::Closure | Member::Provides => LIST_LIMIT,
        Member::Manifest => MANIFEST_LIMIT,
        Member::Part => super::PART_HEADER_LIMIT,
        Member::Blob(_) | Member::Span { .. } => SIZE_LIMIT,
        _ => FILE_LIMIT,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest() -> impl Strategy<Value = Digest> {
        any::<[u8; 32]>().prop_map(Digest::from_bytes)
    }

    /// Manifests that can be.
    pub(in super::super) fn manifest() -> impl Strategy<Value = Manifest> {
        (
            ("[a-z0-9-]{1,64}", 1_u64..12, digest(), digest(), digest()),
            prop::collection::vec(digest(), 12),
            prop::collection::btree_set(1_u64..12, 0..4),
            prop::collection::btree_set(digest(), 0..8),
            prop::collection::btree_set(("[a-z-]{1,9}", ".{0,20}", digest(), 0..SIZE_LIMIT), 0..3),
            prop::collection::btree_map(
                "(rules/[a-z]{1,9}|resources/[a-z@:.]{1,9}/[a-z]{1,9})",
                (digest(), 0_u64..9999),
                0..4,
            ),
            (0_u64..9, 0_u64..9, 0_u64..1 << 60, digest(), digest()),
        )
            .prop_map(|(first, ids, sequences, locks, built, files, lists)| {
                let (stream, sequence, genesis, lock, closure) = first;
                let ancestors: Vec<(u64, Digest)> = (1..sequence).rev().zip(ids).collect();
                let mut locks = locks.into_iter();
                let mut bases: Vec<Base> = sequences
                    .into_iter()
                    .filter(|base| *base < sequence)
                    .filter_map(|sequence| {
                        Some(Base {
                            sequence: Some(sequence),
                            lock: locks.next()?,
                        })
                    })
                    .collect();
                bases.extend(locks.map(|lock| Base {
                    sequence: None,
                    lock,
                }));
                let mut files: Vec<File> = files
                    .into_iter()
                    .filter_map(|(name, (digest, size))| {
                        Some(File {
                            member: Member::parse(&format!("imgbuild/{name}")).ok()?,
                            blob: Blob { digest, size },
                        })
                    })
                    .collect();
                for member in [Member::OciLayout, Member::Index] {
                    let blob = Blob::of(b"x");
                    files.push(File { member, blob });
                }
                files.sort_by_key(|file| file.member.to_string());
                let (count, more, bytes, provides, list) = lists;
                let full = bases.is_empty();
                let lock = Blob {
                    digest: lock,
                    size: 12,
                };
                Manifest {
                    parent: ancestors.first().map(|(_, id)| *id),
                    ancestors,
                    bases,
                    built: built
                        .into_iter()
                        .map(|(step, reference, digest, size)| Built {
                            digest,
                            reference,
                            size,
                            step,
                        })
                        .collect(),
                    closure: Listed {
                        bytes,
                        count: if full { count } else { count + more },
                        list: closure,
                    },
                    files,
                    format: Format,
                    genesis: if sequence == 1 { lock.digest } else { genesis },
                    lock,
                    provides: Listed {
                        bytes: if full { bytes } else { bytes / 2 },
                        count,
                        list: if count == 0 { provides } else { list },
                    },
                    sequence,
                    stream: stream.parse().unwrap(),
                }
            })
    }

    /// The keys of a JSON object and of all objects in it, in the order they stand in the text.
    fn keys_ascend(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Object(map) => {
                map.keys().is_sorted() && map.values().all(keys_ascend)
            }
            serde_json::Value::Array(items) => items.iter().all(keys_ascend),
            _ => true,
        }
    }

    proptest! {
        #[test]
        fn a_manifest_survives_printing(manifest in manifest()) {
            let text = manifest.print();
            let parsed = Manifest::parse(&text).unwrap();
            prop_assert_eq!(&parsed, &manifest);
            prop_assert_eq!(parsed.archive_id(), Digest::of(&text), "the id is the SHA-256 of the text");
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            prop_assert!(keys_ascend(&value));
            let mut sorted = serde_json::to_vec(&value).unwrap();
            sorted.push(b'\n');
            prop_assert_eq!(sorted, text, "sorted keys, no spaces, one line feed");
        }

        #[test]
        fn a_changed_manifest_is_refused_or_another(manifest in manifest(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let text = manifest.print();
            let mut changed = text.clone();
            let at = at.index(changed.len());
            changed[at] = byte;
            if let Ok(parsed) = Manifest::parse(&changed) {
                prop_assert_eq!(parsed.print(), changed, "whatever is read has one form");
            }
        }
    }

    #[test]
    fn the_form_of_a_manifest_is_pinned() {
        let sample = super::super::samples::Sample::of(&[5, 6]);
        let layout = super::super::Layout::of(&sample.delta(), 1 << 20).unwrap();
        let text = String::from_utf8(layout.manifest_bytes().to_vec()).unwrap();
        insta::assert_snapshot!(text.replace("],", "],\n").replace("},", "},\n"), @r#"
        {"ancestors":[[2,"sha256:16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4"],
        [1,"sha256:a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"]],
        "bases":[[2,"sha256:36284ebaa2a05e07f6a8508ff2f4d37cf1e4f6a237234e8ee60613633e947201"],
        ["sha256:59e706580fe5a9d4a978beaee3473ec03c273bc83886424dae57d1806f4c3010"]],
        "built":[{"digest":"sha256:bf0e7878fa8e446117b46f827f1d0c97719a2abea22c04c464de006659132bf1","for":"registry.example/redhat/index:v4.16","size":5,"step":"pack-image"}],
        "closure":{"bytes":11,"count":2,"list":"sha256:f518c5bf15548a01a9bab711aea014543005e4e876d642a87fe24850b387f1d6"},
        "files":[["imgbuild/resources/site-a/idms-oc-mirror.yaml",27,"sha256:a6ea237c6e86f11e842f23fad2b2be6d836f446c73284d03d8be02a463f04c74"],
        ["imgbuild/rules/catalog.toml",7,"sha256:a59b054e8ef7a3a30bbc7135d8060cd4fad8572b6ef2332669f9798870f86caa"],
        ["imgbuild/rules/release.toml",9,"sha256:f39d7974dc79c3bf35d8ee6bae3d5342e9781f2d8c2d1a5b717a63713e75b88a"],
        ["index.json",34,"sha256:bc5857ac9458293d5111ab85c952172cd7f56bceb4e3014ddc4cafac8927b313"],
        ["oci-layout",30,"sha256:18f0797eab35a4597c1e9624aa4f15fd91f6254e5538c1e0d193b2a95dd4acc6"]],
        "format":"imgbuild-archive/1","genesis":"sha256:aeebad4a796fcc2e15dc4c6061b45ed9b373f26adfc798ca7d2d8cc58182718e","lock":{"digest":"sha256:dbab12665d98aef021ba64953c61b0ed8a908cfb56a1c01e2fcb4b052b71a2a1","size":12},
        "parent":"sha256:16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4","provides":{"bytes":5,"count":1,"list":"sha256:8195ab08df7322807a65ded8609c051cae846e51bf4325777ce74bdbc935639d"},
        "seq":3,"stream":"prod"}
        "#);
    }

    #[test]
    fn a_manifest_of_the_future_is_refused_by_name() {
        let sample = super::super::samples::Sample::of(&[5, 6]);
        let layout = super::super::Layout::of(&sample.delta(), 1 << 20).unwrap();
        let text = String::from_utf8(layout.manifest_bytes().to_vec()).unwrap();
        let future = text
            .replace(FORMAT, "imgbuild-archive/2")
            .replace("\"seq\"", "\"number\"");
        match Manifest::parse(future.as_bytes()) {
            Err(Flaw::Format { found }) => {
                assert_eq!(found, "imgbuild-archive/2", "the format is named");
            }
            other => panic!("this is another format: {other:?}"),
        }
        for (what, changed) in [
            (
                "an unknown key",
                text.replace("{\"ancestors\"", "{\"a\":1,\"ancestors\""),
            ),
            (
                "a null",
                text.replace("\"provides\"", "\"parity\":null,\"provides\""),
            ),
            ("a key that is missing", text.replace("\"seq\":3,", "")),
            ("a space", text.replacen(':', ": ", 1)),
            ("no line feed", text.trim_end().to_owned()),
            ("another stream", text.replace("\"prod\"", "\"Prod\"")),
            ("another digest", text.replacen("sha256:", "sha512:", 1)),
            (
                "a number as text",
                text.replace("\"seq\":3", "\"seq\":\"3\""),
            ),
            (
                "more provided than there is",
                text.replace("\"count\":1", "\"count\":3"),
            ),
            (
                "a member that is no file",
                text.replace("imgbuild/rules/catalog.toml", "imgbuild/lock.toml"),
            ),
            (
                "files in another order",
                text.replace("imgbuild/rules/catalog.toml", "zulu"),
            ),
        ] {
            assert_ne!(text, changed, "{what} is a change");
            assert!(
                Manifest::parse(changed.as_bytes()).is_err(),
                "{what} must be refused"
            );
        }
    }
}
