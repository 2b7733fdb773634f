//! Checksum files: `<stream>_seq000007.sha256`, as `sha256sum -c` reads them.
//!
//! One line per file, `<64 hexadecimal digits>  <file name>`, ascending by name, each ended by a line feed. Only
//! files of the same archive are named, and no path.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{FileKind, FileName, Flaw, Stream};
use crate::digest::Digest;

/// Most bytes of a checksum file that are read: ten thousand parts and as many parity files.
pub const LIMIT: u64 = 4 << 20;

/// Checksums of the files of one archive.
pub type Sums = BTreeMap<FileKind, Digest>;

/// Prints the checksums of files of `stream` and `sequence`.
#[must_use]
pub fn print(stream: &Stream, sequence: u64, sums: &Sums) -> String {
    let mut text = String::new();
    for (kind, digest) in sums {
        let name = FileName {
            stream: stream.clone(),
            sequence,
            kind: *kind,
        };
        writeln!(text, "{}  {name}", digest.hex()).expect("a String takes everything");
    }
    text
}

/// Reads what [`print()`] wrote.
///
/// # Errors
/// Names the first line that is malformed, out of order, or about a file of another archive.
pub fn parse(stream: &Stream, sequence: u64, text: &str) -> Result<Sums, Flaw> {
    let mut sums = Sums::new();
    let mut rest = text;
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let read = rest.split_once('\n').and_then(|(line, rest)| {
            let (hex, name) = line.split_once("  ")?;
            let name = FileName::parse(name)
                .filter(|name| name.stream == *stream && name.sequence == sequence)?;
            let digest = Digest::from_hex(hex).ok()?;
            let ascends = sums.keys().next_back().is_none_or(|last| *last < name.kind);
            ascends.then_some((name.kind, digest, rest))
        });
        let Some((kind, digest, behind)) = read else {
            return Err(Flaw::Line {
                number,
                expected: "64 hexadecimal digits, two spaces, and the name of the archive's next file",
            });
        };
        sums.insert(kind, digest);
        rest = behind;
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_survive_printing() {
        let stream: Stream = "prod".parse().unwrap();
        let sums = Sums::from([
            (FileKind::Part(1), Digest::of(b"1")),
            (FileKind::Part(2), Digest::of(b"2")),
            (FileKind::Parity(1), Digest::of(b"3")),
        ]);
        let text = print(&stream, 7, &sums);
        assert_eq!(
            parse(&stream, 7, &text).unwrap(),
            sums,
            "parsing must undo printing"
        );
        for wrong in [
            text.replace("prod", "test"),
            text.replace("seq000007", "seq000008"),
            text.replace("  ", " "),
            text.replace("  ", " *"),
            text.replace('\n', "\r\n"),
            text.trim_end().to_owned(),
            format!("{text}{text}"),
            text.replace("prod_", "./prod_"),
        ] {
            assert!(
                matches!(parse(&stream, 7, &wrong), Err(Flaw::Line { .. })),
                "{wrong:?} is no checksum file of this archive"
            );
        }
    }
}
