//! Fuzz targets of the readers: seeded, bounded in number, over files that the writers made.
//!
//! A case damages good files in one to four ways, as media fail or as somebody would who knows the format: bits, blocks,
//! tar headers with a right checksum, members with a `part.json` that announces just them, and the tokens of the texts.
//! What a reader then accepts must be what was written, and nothing may panic, run away or be written elsewhere.
//!
//! The number of a case is its seed. `IMGBUILD_FUZZ` is how many cases each target has (a small number by default; ten
//! times as many where they are texts), and `IMGBUILD_FUZZ_FROM` the first of them: `IMGBUILD_FUZZ=1 IMGBUILD_FUZZ_FROM=4711 cargo test archive::fuzz` repeats
//! one. Cases are counted rather than timed, so that a run is the same everywhere.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::chain::{Chain, Line};
use super::key::SecretKey;
use super::member::PartHeader;
use super::parity::{self, Covered};
use super::samples::{Sample, forge, noise};
use super::seal::{Seal, SealedPart, Statement};
use super::verify::{self, Options};
use super::{Manifest, Member, Part, Set, list, sums, tar};
use crate::digest::Digest;

/// Cases per target unless the environment says otherwise: some seconds for all of them without optimisation.
const CASES: u64 = 400;

/// How many cases of a text cost as much as one of an archive.
const TEXTS: u64 = 10;

fn cases(share: u64) -> Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let first = number("IMGBUILD_FUZZ_FROM").unwrap_or(0);
    let count = number("IMGBUILD_FUZZ")
        .unwrap_or(CASES)
        .saturating_mul(share);
    first..first.saturating_add(count)
}

/// A generator of numbers (splitmix64): small, and the same for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if there is none.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % (end.max(1) as u64)).unwrap()
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// Names that lead elsewhere, or look like another.
const NAMES: [&str; 22] = [
    "../../etc/passwd",
    "/etc/passwd",
    "./index.json",
    "index.json/",
    "index.json/.",
    "INDEX.JSON",
    "index.json ",
    "index\u{feff}.json",
    "blobs\\sha256\\x",
    "blobs/sha256/",
    "blobs/sha256/..",
    "blobs//sha256/x",
    "blobs/sha256/0000000000000000000000000000000000000000000000000000000000000000",
    "blobs/sha512/00",
    "imgbuild/part.json",
    "imgbuild/manifest.json",
    "imgbuild/rules/../../x",
    "imgbuild/resources//x",
    "imgbuild/spans/00.0001-of-0001",
    "C:\\x",
    "",
    "\u{1}",
];

/// Pieces of texts that readers stumble over.
const TOKENS: [&str; 20] = [
    "18446744073709551616",
    "18446744073709551615",
    "9223372036854775808",
    "-1",
    "0",
    "00",
    "1e9",
    "1.0",
    "null",
    "[]",
    "{}",
    "\"\"",
    "\\u0000",
    "\\ud800",
    ",",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "\n",
    " ",
    "\u{0}",
    "sha256:0000000000000000000000000000000000000000000000000000000000000000",
];

/// Damages bytes as a medium or an editor would.
fn scratch(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len());
    let block = at / 512 * 512;
    let end = (block + 512 * (1 + dice.below(3))).min(bytes.len());
    match dice.below(12) {
        0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
        2 if !bytes.is_empty() => bytes[at] = *dice.of(b"\0\xff07/.\"\\\n -:"),
        3 => {
            let end = (at + dice.below(32)).min(bytes.len());
            bytes[at..end].fill_with(|| dice.roll().to_le_bytes()[0]);
        }
        4 => bytes.truncate(at),
        5 => bytes.truncate(block),
        6 => {
            let fill = *dice.of(&[0, 0xff]);
            bytes.resize(bytes.len() + 1 + dice.below(2048), fill);
        }
        7 => drop(bytes.drain(block..end)),
        8 => {
            let copy = bytes[block..end].to_vec();
            bytes.splice(block..block, copy);
        }
        9 => {
            let to = dice.below(bytes.len()) / 512 * 512;
            for offset in 0..512 {
                if block + offset < bytes.len() && to + offset < bytes.len() {
                    bytes.swap(block + offset, to + offset);
                }
            }
        }
        10 if !other.is_empty() => {
            let from = dice.below(other.len()) / 512 * 512;
            let piece = &other[from..(from + 512).min(other.len())];
            let end = (block + piece.len()).min(bytes.len());
            bytes.splice(block..end, piece.iter().copied());
        }
        _ => retell(bytes, dice),
    }
}

/// Changes a text: puts a token in, or in the place of a number.
fn retell(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let token = dice.of(&TOKENS).bytes();
    let mut from = dice.below(bytes.len());
    let mut to = from;
    if dice.below(2) == 0 {
        let digits = |at: &usize| bytes.get(*at).is_some_and(u8::is_ascii_digit);
        from = (from..bytes.len()).find(|at| digits(at)).unwrap_or(from);
        to = (from..bytes.len())
            .find(|at| !digits(at))
            .unwrap_or(bytes.len());
    }
    bytes.splice(from..to, token);
}

/// Changes one tar header, and makes its checksum right again.
fn mislead(bytes: &mut [u8], dice: &mut Dice) {
    let headers: Vec<usize> = (0..bytes.len() / 512)
        .map(|block| block * 512)
        .filter(|at| &bytes[at + 257..at + 262] == b"ustar")
        .collect();
    if headers.is_empty() {
        return;
    }
    let at = *dice.of(&headers);
    let block = &mut bytes[at..at + 512];
    let mut set = |range: Range<usize>, text: &[u8]| {
        let field = &mut block[range];
        field.fill(0);
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
    };
    let octal = [
        "77777777777\0",
        "00000000000\0",
        "00000001000\0",
        "-0000000001\0",
        "           \0",
        "\u{1}",
    ];
    match dice.below(8) {
        0 | 1 => set(0..100, dice.of(&NAMES).as_bytes()),
        // Links, devices, folders, fifos, sparse files, what other archivers extend the format with.
        2 => set(156..157, &[*dice.of(b"\x001234567ADEGIKLMNSVXgx\xff")]),
        3 => set(124..136, dice.of(&octal).as_bytes()),
        4 => {
            let mut huge = [0xff; 12];
            huge[0] = *dice.of(&[0x80, 0xff]);
            set(124..136, &huge);
        }
        5 => set(157..257, dice.of(&NAMES).as_bytes()),
        6 => set(345..500, dice.of(&NAMES).as_bytes()),
        _ => {
            let field = dice.of(&[100..108, 108..116, 116..124, 136..148, 265..297, 297..329]);
            set(field.clone(), dice.of(&octal).as_bytes());
        }
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Writes a part again with other members, and a `part.json` that announces just these.
fn rewrite(path: &Path, other: &[(String, Vec<u8>)], dice: &mut Dice) {
    forge(path, |members| {
        let at = dice.below(members.len());
        match dice.below(8) {
            0 => drop(members.remove(at)),
            1 => members.push(members[at].clone()),
            2 => {
                let to = dice.below(members.len());
                members.swap(at, to);
            }
            3 => members[at].0 = (*dice.of(&NAMES)).to_owned(),
            4 => members.insert(at, ((*dice.of(&NAMES)).to_owned(), Vec::new())),
            5 => members.insert(at, dice.of(other).clone()),
            6 => members[at] = dice.of(other).clone(),
            _ => {
                let mut bytes = std::mem::take(&mut members[at].1);
                scratch(&mut bytes, &[], dice);
                members[at].1 = bytes;
            }
        }
    });
}

/// Three parts of one archive, in which blobs are cut; and the members of another archive.
struct World {
    folder: tempfile::TempDir,
    parts: Vec<PathBuf>,
    good: Vec<Vec<u8>>,
    sums: (PathBuf, Vec<u8>),
    others: Vec<(String, Vec<u8>)>,
}

impl World {
    fn new() -> Self {
        let sample = Sample::of(&[120, 12_000, 20, 300]);
        let folder = tempfile::tempdir().unwrap();
        let parts = sample.export(&sample.contents(), 13_000, folder.path());
        let aside = tempfile::tempdir().unwrap();
        let others = sample
            .export(&sample.delta(), 13_000, aside.path())
            .iter()
            .flat_map(|path| {
                let bytes = fs::read(path).unwrap();
                let part = Part::open(path).unwrap();
                let members: Vec<(String, Vec<u8>)> = part
                    .places()
                    .map(|(entry, start)| {
                        let start = usize::try_from(start).unwrap();
                        let end = start + usize::try_from(entry.length).unwrap();
                        (entry.member.to_string(), bytes[start..end].to_vec())
                    })
                    .collect();
                members
            })
            .chain([(Member::Blob(Digest::of(b"")).to_string(), Vec::new())])
            .collect();
        let good = parts.iter().map(|path| fs::read(path).unwrap()).collect();
        let sums = folder.path().join("prod_seq000001.sha256");
        let listed = fs::read(&sums).unwrap();
        Self {
            folder,
            parts,
            good,
            sums: (sums, listed),
            others,
        }
    }

    fn restore(&self) {
        for (path, bytes) in self.parts.iter().zip(&self.good) {
            fs::write(path, bytes).unwrap();
        }
        fs::write(&self.sums.0, &self.sums.1).unwrap();
    }
}

#[test]
fn an_archive_that_was_tampered_with_is_refused() {
    let world = World::new();
    let mut refused = 0;
    let range = cases(1);
    for case in range.clone() {
        let mut dice = Dice(case);
        world.restore();
        // Somebody who changes parts would leave no checksums that tell.
        if dice.below(3) > 0 {
            fs::remove_file(&world.sums.0).unwrap();
        }
        let number = dice.below(world.parts.len());
        let path = &world.parts[number];
        if dice.below(3) == 0 {
            rewrite(path, &world.others, &mut dice);
        }
        let mut bytes = fs::read(path).unwrap();
        for _ in 0..=dice.below(3) {
            match dice.below(3) {
                0 => mislead(&mut bytes, &mut dice),
                _ => scratch(&mut bytes, dice.of::<Vec<u8>>(&world.good), &mut dice),
            }
        }
        fs::write(path, &bytes).unwrap();
        let is_changed = bytes != world.good[number];
        for quick in [false, true] {
            let options = Options {
                quick,
                ..Options::default()
            };
            let Ok(set) = Set::open([world.folder.path()]) else {
                refused += 1;
                continue;
            };
            for archive in set.archives() {
                drop(archive.metadata());
                let blobs = archive.blobs();
                for blob in archive.metadata().map_or(Vec::new(), |read| read.closure) {
                    // Whatever the parts say of it, a blob that is read has its digest.
                    if let Ok(bytes) = crate::store::read(&blobs, &blob, 1 << 20) {
                        assert_eq!(Digest::of(&bytes), blob.digest, "case {case}");
                    }
                }
            }
            let verified = verify::verify_all(set, &options, &|_| ());
            refused += usize::from(verified.is_err());
            assert!(
                verified.is_err() || !is_changed || quick,
                "case {case}: part {} was changed and verified: {verified:?}",
                number + 1
            );
        }
        let found: BTreeSet<String> = fs::read_dir(world.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(
            found.len() <= world.parts.len() + 1,
            "case {case}: reading writes nothing: {found:?}"
        );
    }
    if range.start == 0 {
        assert!(refused > 0, "the cases do damage");
    }
}

/// What a text reader takes for good, written again.
type Again = Box<dyn Fn(&[u8]) -> Option<Vec<u8>>>;

#[test]
fn a_text_that_is_read_is_the_one_that_would_be_written() {
    let sample = Sample::of(&[120, 12_000, 20, 300]);
    let folder = tempfile::tempdir().unwrap();
    let parts = sample.export(&sample.delta(), 1 << 20, folder.path());
    let part = Part::open(&parts[0]).unwrap();
    let stream = sample.stream.clone();
    let written = sums::parse(
        &stream,
        3,
        &fs::read_to_string(folder.path().join("prod_seq000003.sha256")).unwrap(),
    )
    .unwrap();
    let mut chain = Chain::default();
    let first = Line::of(
        Part::open(&sample.export(&sample.contents(), 1 << 20, folder.path())[0])
            .unwrap()
            .manifest(),
        1 << 20,
    );
    chain.append(first).unwrap();
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let readers: Vec<(&str, Vec<u8>, Again)> = vec![
        (
            "manifest",
            part.manifest().print(),
            Box::new(|bytes| Manifest::parse(bytes).ok().map(|read| read.print())),
        ),
        (
            "part.json",
            part.header().print(),
            Box::new(|bytes| PartHeader::parse(bytes).ok().map(|read| read.print())),
        ),
        (
            "list",
            list::print(&sample.blobs),
            Box::new(|bytes| list::parse(bytes).ok().map(|read| list::print(&read))),
        ),
        (
            "sums",
            sums::print(&stream, 3, &written).into_bytes(),
            Box::new(move |bytes| {
                let read = sums::parse(&stream, 3, &text(bytes)?).ok()?;
                Some(sums::print(&stream, 3, &read).into_bytes())
            }),
        ),
        (
            "chain",
            chain.to_string().into_bytes(),
            Box::new(move |bytes| Some(Chain::parse(&text(bytes)?).ok()?.to_string().into_bytes())),
        ),
        (
            "tar header",
            tar::header("blobs/sha256/x", 1 << 34).to_vec(),
            Box::new(|bytes| {
                let block = bytes.try_into().ok()?;
                let (name, size) = tar::parse(block).ok()?;
                Some(tar::header(name, size).to_vec())
            }),
        ),
    ];
    for (what, good, again) in readers {
        assert_eq!(
            again(&good).as_ref(),
            Some(&good),
            "{what}: the good one is read"
        );
        for case in cases(TEXTS) {
            let mut dice = Dice(case);
            let mut bytes = good.clone();
            for _ in 0..=dice.below(3) {
                match dice.below(4) {
                    0 | 1 => retell(&mut bytes, &mut dice),
                    2 if what == "tar header" => mislead(&mut bytes, &mut dice),
                    _ => scratch(&mut bytes, &good, &mut dice),
                }
            }
            if let Some(written) = again(&bytes) {
                assert!(
                    written == bytes,
                    "{what}, case {case}: there is one way to write what was read: {}",
                    String::from_utf8_lossy(&bytes)
                );
            }
        }
    }
}

#[test]
fn a_seal_that_was_changed_vouches_for_nothing_else() {
    // The example key of RFC 8410, so that every run signs alike.
    let key = SecretKey::of_pem(
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    let mut seal = Seal::new(Statement {
        archive: Digest::of(b"manifest"),
        created: "2026-11-01T10:00:00Z".parse().unwrap(),
        expires: None,
        parts: vec![SealedPart {
            name: "prod_seq000001_0001.tar".to_owned(),
            sha256: Digest::of(b"part"),
            size: 1024,
        }],
    });
    seal.sign(&key);
    let good = seal.print();
    let statement = Seal::parse(&good).unwrap().statement().clone();
    for case in cases(TEXTS) {
        let mut dice = Dice(case);
        let mut bytes = good.clone();
        for _ in 0..=dice.below(3) {
            match dice.below(2) {
                0 => retell(&mut bytes, &mut dice),
                _ => scratch(&mut bytes, &good, &mut dice),
            }
        }
        if let Ok(read) = Seal::parse(&bytes)
            && !read.signers(&[key.public()]).is_empty()
        {
            assert_eq!(
                *read.statement(),
                statement,
                "case {case}: what is signed is what was said"
            );
        }
    }
}

#[test]
fn what_damaged_parity_restores_is_right() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let world = World::new();
    let covered: Vec<Covered> = world
        .parts
        .iter()
        .zip(&world.good)
        .map(|(path, bytes)| Covered {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            sha256: Digest::of(bytes),
            size: bytes.len() as u64,
        })
        .collect();
    let id = Part::open(&world.parts[0]).unwrap().manifest().archive_id();
    let folder = world.folder.path();
    let written = parity::write(folder, id, &covered, 60, 13_000, &STOP, &|_| ()).unwrap();
    let files: Vec<PathBuf> = written.iter().map(|file| folder.join(&file.name)).collect();
    let good: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    let mut restored = 0;
    let range = cases(1);
    for case in range.clone() {
        let mut dice = Dice(case);
        for (path, bytes) in files.iter().zip(&good) {
            fs::write(path, bytes).unwrap();
        }
        world.restore();
        let hit = dice.below(files.len());
        let mut bytes = good[hit].clone();
        for _ in 0..=dice.below(3) {
            scratch(&mut bytes, dice.of::<Vec<u8>>(&good), &mut dice);
        }
        fs::write(&files[hit], &bytes).unwrap();
        let lost = dice.below(world.parts.len());
        let mut wreck = world.good[lost].clone();
        scratch(&mut wreck, &noise(case, 700), &mut dice);
        fs::write(&world.parts[lost], &wreck).unwrap();
        let outcome = parity::repair(&files, &STOP, &|_| ());
        restored += usize::from(outcome.is_ok());
        for (number, (path, good)) in world.parts.iter().zip(&world.good).enumerate() {
            let found = fs::read(path).unwrap();
            assert!(
                found == *good || (number == lost && outcome.is_err() && found == wreck),
                "case {case}: part {} is right, or as it was, and then it is said: {outcome:?}",
                number + 1
            );
        }
    }
    if range.start == 0 {
        assert!(restored > 0, "some parity survives");
    }
}
