//! Small archives for the tests of this layer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::layout::{Contents, Layout};
use super::manifest::{Base, Built};
use super::write::{self, Options};
use super::{Set, Stream};
use crate::digest::Digest;
use crate::store::Blob;
use crate::store::memory::Memory;

/// Blobs, and what an archive of them says.
pub(super) struct Sample {
    pub(super) stream: Stream,
    pub(super) store: Memory,
    pub(super) blobs: Vec<Blob>,
    pub(super) lock: Vec<u8>,
    pub(super) index: Vec<u8>,
}

/// Bytes that do not repeat, the same ones for the same name.
pub(super) fn noise(name: u64, size: usize) -> Vec<u8> {
    let mut state = name.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

impl Sample {
    /// Blobs of these sizes, in archive order. Each is unlike every other, so at most one may be empty.
    pub(super) fn of(sizes: &[usize]) -> Self {
        let store = Memory::default();
        let blobs: Vec<Blob> = (1..)
            .zip(sizes)
            .map(|(name, size)| store.insert(&noise(name, *size)))
            .collect();
        let mut unique = BTreeSet::new();
        let blobs = blobs
            .into_iter()
            .filter(|blob| unique.insert(blob.digest))
            .collect();
        Self {
            stream: "prod".parse().unwrap(),
            store,
            blobs,
            lock: b"version = 1\n".to_vec(),
            index: br#"{"schemaVersion":2,"manifests":[]}"#.to_vec(),
        }
    }

    /// Sequence 1, full.
    pub(super) fn contents(&self) -> Contents<'_> {
        let mut closure = self.blobs.clone();
        closure.sort_unstable();
        Contents {
            stream: &self.stream,
            sequence: 1,
            genesis: Digest::of(&self.lock),
            parent: None,
            ancestors: Vec::new(),
            bases: Vec::new(),
            lock: &self.lock,
            rules: vec![
                ("release.toml".to_owned(), b"[[step]]\n".to_vec()),
                ("catalog.toml".to_owned(), b"# none\n".to_vec()),
            ],
            resources: vec![(
                "site-a/idms-oc-mirror.yaml".to_owned(),
                b"kind: ImageDigestMirrorSet\n".to_vec(),
            )],
            index: self.index.clone(),
            built: Vec::new(),
            closure,
            provides: self.blobs.clone(),
        }
    }

    /// Sequence 3, on top of sequence 2 and a lock by file, with the first half of the blobs.
    pub(super) fn delta(&self) -> Contents<'_> {
        let id = |text: &str| Digest::of(text.as_bytes());
        let mut contents = self.contents();
        contents.sequence = 3;
        contents.genesis = id("genesis");
        contents.parent = Some(id("second"));
        contents.ancestors = vec![(2, id("second")), (1, id("first"))];
        contents.bases = vec![
            Base {
                sequence: None,
                lock: id("by file"),
            },
            Base {
                sequence: Some(2),
                lock: id("second lock"),
            },
        ];
        contents.built = vec![Built {
            digest: self.blobs[0].digest,
            reference: "registry.example/redhat/index:v4.16".to_owned(),
            size: self.blobs[0].size,
            step: "pack-image".to_owned(),
        }];
        contents.provides.truncate(self.blobs.len().div_ceil(2));
        contents
    }

    /// Writes `contents` to `directory`; the paths of the parts.
    pub(super) fn export(
        &self,
        contents: &Contents<'_>,
        part_size: u64,
        directory: &Path,
    ) -> Vec<PathBuf> {
        let layout = Layout::of(contents, part_size).unwrap();
        let written = write::export(
            &layout,
            &self.store,
            directory,
            &Options::default(),
            &|_| (),
        )
        .unwrap();
        written
            .parts
            .iter()
            .map(|part| directory.join(&part.name))
            .collect()
    }
}

/// The one archive in `directory`.
pub(super) fn only_archive(directory: &Path) -> super::Archive {
    let set = Set::open([directory]).unwrap();
    assert!(
        set.broken().is_empty(),
        "nothing is broken: {:?}",
        set.broken()
    );
    assert_eq!(set.archives().len(), 1, "there is one archive");
    set.archives()[0].clone()
}

/// The members of a part as anybody could write them: names and contents, without `part.json`.
pub(super) type Members = Vec<(String, Vec<u8>)>;

/// Writes a part again with other members, and a `part.json` that announces just these. What it says of the
/// archive stays.
pub(super) fn forge(path: &Path, change: impl FnOnce(&mut Members)) {
    let part = super::Part::open(path).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let mut members: Members = part
        .places()
        .map(|(entry, start)| {
            let start = usize::try_from(start).unwrap();
            let end = start + usize::try_from(entry.length).unwrap();
            (entry.member.to_string(), bytes[start..end].to_vec())
        })
        .collect();
    let offsets: BTreeMap<String, u64> = part
        .places()
        .map(|(entry, _)| (entry.member.to_string(), entry.offset))
        .collect();
    change(&mut members);
    let entries: Vec<String> = members
        .iter()
        .map(|(name, bytes)| {
            let offset = offsets.get(name).copied().unwrap_or_default();
            format!("[{name:?},{offset},{}]", bytes.len())
        })
        .collect();
    let header = part.header();
    let json = format!(
        "{{\"archive\":\"{}\",\"entries\":[{}],\"of\":\"{:04}\",\"part\":\"{:04}\"}}\n",
        header.archive,
        entries.join(","),
        header.of,
        header.part
    );
    std::fs::write(path, tar_of(json.as_bytes(), &members)).unwrap();
}

/// A tar file of `part.json` and these members.
pub(super) fn tar_of(header: &[u8], members: &Members) -> Vec<u8> {
    let mut tar = Vec::new();
    let mut put = |name: &str, bytes: &[u8]| {
        tar.extend(super::tar::header(name, bytes.len() as u64));
        tar.extend(bytes);
        tar.resize(tar.len().next_multiple_of(512), 0);
    };
    put("imgbuild/part.json", header);
    for (name, bytes) in members {
        put(name, bytes);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// Changes the tar header of a member where it stands, and makes its checksum right again.
pub(super) fn patch_header(path: &Path, member: &str, change: impl FnOnce(&mut [u8])) {
    let mut bytes = std::fs::read(path).unwrap();
    let mut name = member.as_bytes().to_vec();
    name.resize(100, 0);
    let at = bytes
        .chunks(512)
        .position(|block| block.starts_with(&name))
        .unwrap()
        * 512;
    let block = &mut bytes[at..at + 512];
    change(block);
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    std::fs::write(path, bytes).unwrap();
}
