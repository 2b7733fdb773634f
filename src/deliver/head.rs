//! The head of a destination: what it has adopted last, kept by the destination itself.
//!
//! The store remembers heads, but a store can be lost, and a destination can be filled from two stores. So the head
//! is also a small OCI artifact at the destination: repository `imgbuild/head` under its prefix, tag = the stream. All
//! that it says is in its annotations, so one request reads it and any registry tool shows it:
//!
//! | annotation | value |
//! |---|---|
//! | `io.imgbuild.head.stream` | the stream |
//! | `io.imgbuild.head.sequence` | the sequence adopted |
//! | `io.imgbuild.head.archive` | the id of that archive |
//! | `io.imgbuild.head.lock` | the digest of its lock |
//! | `io.imgbuild.head.genesis` | the lock of the stream's first archive |
//! | `io.imgbuild.head.ancestors` | earlier archives, newest first: `6=sha256:… 5=sha256:…` |
//!
//! It is written after every tag, and before the store's own record. Where both are there and differ, the newer on one
//! chain counts; two that are on no common chain are a fork.
//!
//! Follows the OCI image specification 1.1, `manifest.md`, "Guidelines for Artifact Usage": an artifact without
//! content has the empty descriptor as its config and only layer.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::archive::Stream;
use crate::archive::chain::{Chain, Head as ChainHead};
use crate::digest::Digest;
use crate::oci::{Manifest, OCI_MANIFEST};
use crate::store::Blob;

/// The repository that heads are in, under the destination's prefix.
pub const REPOSITORY: &str = "imgbuild/head";

/// The type of the artifact.
pub const ARTIFACT_TYPE: &str = "application/vnd.imgbuild.head.v1";

/// The content of the OCI empty descriptor.
pub const EMPTY: &[u8] = b"{}";

const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const PREFIX: &str = "io.imgbuild.head.";

/// What was adopted last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptedHead {
    /// The lock of the stream's first archive.
    pub genesis: Digest,
    /// The sequence.
    pub sequence: u64,
    /// The id of that archive.
    pub archive_id: Digest,
    /// Its lock.
    pub lock: Digest,
    /// The archives before it that its manifest lists, newest first.
    pub ancestors: Vec<(u64, Digest)>,
}

/// Why an artifact is no head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It is another kind of manifest.
    #[error("the manifest is no {ARTIFACT_TYPE}")]
    Type,
    /// One of its annotations is absent or malformed.
    #[error("its annotation {PREFIX}{name} is absent or malformed")]
    Annotation {
        /// Its name, without the prefix.
        name: &'static str,
    },
    /// It speaks of another stream than its tag.
    #[error("it is the head of stream {found:?}")]
    Stream {
        /// What it says.
        found: String,
    },
}

impl AdoptedHead {
    /// What the decision about the next archive is made from.
    #[must_use]
    pub fn on_chain(&self, stream: &Stream) -> ChainHead {
        ChainHead {
            stream: stream.clone(),
            genesis: self.genesis,
            sequence: self.sequence,
            archive_id: self.archive_id,
            ancestors: self.ancestors.clone(),
        }
    }

    /// The artifact: the bytes of its manifest, which names the blob [`EMPTY`] and no other.
    #[must_use]
    pub fn artifact(&self, stream: &Stream) -> Vec<u8> {
        let empty = Blob::of(EMPTY);
        let empty = serde_json::json!({
            "mediaType": EMPTY_TYPE, "digest": empty.digest, "size": empty.size,
        });
        let ancestors: Vec<String> = self
            .ancestors
            .iter()
            .map(|(sequence, id)| format!("{sequence}={id}"))
            .collect();
        let annotations = BTreeMap::from([
            ("stream", stream.to_string()),
            ("sequence", self.sequence.to_string()),
            ("archive", self.archive_id.to_string()),
            ("lock", self.lock.to_string()),
            ("genesis", self.genesis.to_string()),
            ("ancestors", ancestors.join(" ")),
        ]);
        let annotations: BTreeMap<String, String> = annotations
            .into_iter()
            .map(|(name, value)| (format!("{PREFIX}{name}"), value))
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": empty,
            "layers": [empty],
            "annotations": annotations,
        });
        serde_json::to_vec(&manifest).expect("texts and numbers are always JSON")
    }

    /// Reads an artifact that is tagged `stream`.
    ///
    /// # Errors
    /// If it is something else, or incomplete.
    pub fn of_artifact(bytes: &[u8], stream: &Stream) -> Result<Self, HeadError> {
        let manifest = Manifest::parse(bytes, None).map_err(|_| HeadError::Type)?;
        let Manifest::Image(image) = manifest else {
            return Err(HeadError::Type);
        };
        if image.artifact_type.as_deref() != Some(ARTIFACT_TYPE) {
            return Err(HeadError::Type);
        }
        let text = |name| {
            image
                .annotations
                .get(&format!("{PREFIX}{name}"))
                .map(String::as_str)
                .ok_or(HeadError::Annotation { name })
        };
        fn value<T: FromStr>(text: &str, name: &'static str) -> Result<T, HeadError> {
            text.parse().map_err(|_| HeadError::Annotation { name })
        }
        let found = text("stream")?;
        if found != stream.as_str() {
            return Err(HeadError::Stream {
                found: found.to_owned(),
            });
        }
        let ancestors = text("ancestors")?
            .split_terminator(' ')
            .map(|ancestor| {
                let (sequence, id) = ancestor
                    .split_once('=')
                    .ok_or(HeadError::Annotation { name: "ancestors" })?;
                Ok((value(sequence, "ancestors")?, value(id, "ancestors")?))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            genesis: value(text("genesis")?, "genesis")?,
            sequence: value(text("sequence")?, "sequence")?,
            archive_id: value(text("archive")?, "archive")?,
            lock: value(text("lock")?, "lock")?,
            ancestors,
        })
    }
}

/// Two heads of one destination that cannot both be its past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forked {
    /// The place that both claim, or the older head's.
    pub sequence: u64,
    /// What the store knows there.
    pub ours: Digest,
    /// What the destination knows there.
    pub theirs: Digest,
}

/// Which of two memories of one destination counts: the newer one, where the other is in its past.
///
/// # Errors
/// If neither is in the other's past, as far as they and `chain` remember.
pub fn newer(
    ours: Option<AdoptedHead>,
    theirs: Option<AdoptedHead>,
    chain: Option<&Chain>,
) -> Result<Option<AdoptedHead>, Forked> {
    let (ours, theirs) = match (ours, theirs) {
        (Some(ours), Some(theirs)) => (ours, theirs),
        (ours, theirs) => return Ok(ours.or(theirs)),
    };
    if ours.archive_id == theirs.archive_id {
        return Ok(Some(ours));
    }
    let remembers = |newer: &AdoptedHead, older: &AdoptedHead| {
        let known = newer
            .ancestors
            .iter()
            .find(|(sequence, _)| *sequence == older.sequence);
        if let Some((_, id)) = known {
            return *id == older.archive_id;
        }
        let line = |head: &AdoptedHead| {
            chain
                .and_then(|chain| chain.line(head.sequence))
                .is_some_and(|line| line.archive_id == head.archive_id)
        };
        line(newer) && line(older)
    };
    let related = ours.genesis == theirs.genesis;
    if related && ours.sequence > theirs.sequence && remembers(&ours, &theirs) {
        return Ok(Some(ours));
    }
    if related && theirs.sequence > ours.sequence && remembers(&theirs, &ours) {
        return Ok(Some(theirs));
    }
    Err(Forked {
        sequence: ours.sequence.min(theirs.sequence),
        ours: ours.archive_id,
        theirs: theirs.archive_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(sequence: u64) -> Digest {
        Digest::of(&sequence.to_be_bytes())
    }

    fn head(sequence: u64, remembered: u64) -> AdoptedHead {
        let oldest = sequence.saturating_sub(remembered).max(1);
        AdoptedHead {
            genesis: id(0),
            sequence,
            archive_id: id(sequence),
            lock: Digest::of(b"lock"),
            ancestors: (oldest..sequence)
                .rev()
                .map(|past| (past, id(past)))
                .collect(),
        }
    }

    proptest! {
        #[test]
        fn a_head_survives_being_an_artifact(sequence in 1_u64..999_999, remembered in 0_u64..300) {
            let stream: Stream = "prod".parse().unwrap();
            let head = head(sequence, remembered);
            let artifact = head.artifact(&stream);
            prop_assert_eq!(AdoptedHead::of_artifact(&artifact, &stream), Ok(head));
            let other = "test".parse().unwrap();
            prop_assert!(AdoptedHead::of_artifact(&artifact, &other).is_err(), "it is no other stream's");
        }

        #[test]
        fn the_newer_of_one_chain_counts_whoever_remembers_it(a in 1_u64..20, b in 1_u64..20) {
            let (first, second) = (head(a, 256), head(b, 256));
            let newest = if a > b { &first } else { &second };
            let chosen = newer(Some(first.clone()), Some(second.clone()), None);
            prop_assert_eq!(chosen, Ok(Some(newest.clone())));
        }
    }

    #[test]
    fn heads_of_no_common_chain_are_a_fork() {
        let ours = head(5, 256);
        let mut other_past = head(7, 256);
        other_past.ancestors[1].1 = id(99);
        let mut same_place = head(5, 256);
        same_place.archive_id = id(98);
        let mut other_genesis = head(7, 256);
        other_genesis.genesis = id(97);
        let forgetful = head(7, 1);
        for theirs in [other_past, same_place, other_genesis, forgetful] {
            for (one, two) in [(&ours, &theirs), (&theirs, &ours)] {
                assert!(
                    newer(Some(one.clone()), Some(two.clone()), None).is_err(),
                    "nothing joins {one:?} and {two:?}"
                );
            }
        }
        for (ours, theirs) in [(Some(ours.clone()), None), (None, Some(ours))] {
            let known = ours.clone().or(theirs.clone());
            assert_eq!(newer(ours, theirs, None), Ok(known), "one memory is enough");
        }
    }

    #[test]
    fn another_artifact_is_no_head() {
        let stream: Stream = "prod".parse().unwrap();
        let good = String::from_utf8(head(3, 9).artifact(&stream)).unwrap();
        for bad in [
            String::new(),
            "{}".to_owned(),
            good.replace(ARTIFACT_TYPE, "application/vnd.other"),
            good.replace("\"3\"", "\"three\""),
            good.replace("head.lock", "head.block"),
            good.replace("2=sha256", "2:sha256"),
        ] {
            assert!(
                AdoptedHead::of_artifact(bad.as_bytes(), &stream).is_err(),
                "{bad} must not be believed"
            );
        }
    }
}
