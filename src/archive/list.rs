//! Blob lists: `imgbuild/closure` and `imgbuild/provides`.
//!
//! One line per blob, `<64 hexadecimal digits> <size>`, each ended by a line feed. A closure ascends by digest;
//! what an archive provides is in archive order. No digest stands in a list twice.

use std::fmt::Write as _;

use super::manifest::Listed;
use super::{BLOB_LIMIT, Flaw, LIST_LIMIT, SIZE_LIMIT, digits};
use crate::digest::Digest;
use crate::store::Blob;

/// Prints `blobs` as they stand.
#[must_use]
pub fn print(blobs: &[Blob]) -> Vec<u8> {
    let mut text = String::with_capacity(blobs.len() * 76);
    for blob in blobs {
        writeln!(text, "{} {}", blob.digest.hex(), blob.size).expect("a String takes everything");
    }
    text.into_bytes()
}

/// Reads what [`print()`] wrote.
///
/// # Errors
/// Names the first line that is malformed, or the first digest that stands there twice.
pub fn parse(bytes: &[u8]) -> Result<Vec<Blob>, Flaw> {
    if bytes.len() as u64 > LIST_LIMIT {
        return Err(Flaw::Limit {
            what: "bytes of a blob list",
            found: bytes.len() as u64,
            limit: LIST_LIMIT,
        });
    }
    let mut blobs = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let number = blobs.len() as u64 + 1;
        if number > BLOB_LIMIT {
            return Err(Flaw::blobs(number));
        }
        let malformed = Flaw::Line {
            number,
            expected: "64 hexadecimal digits, a space, a size and a line feed",
        };
        let end = memchr::memchr(b'\n', rest);
        let Some(blob) = end.and_then(|end| blob(&rest[..end])) else {
            return Err(malformed);
        };
        blobs.push(blob);
        rest = &rest[end.unwrap_or_default() + 1..];
    }
    check_unique(&blobs)?;
    Ok(blobs)
}

fn blob(line: &[u8]) -> Option<Blob> {
    let (hex, size) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let size = decimal(size).filter(|size| *size <= SIZE_LIMIT)?;
    let digest = Digest::from_hex(hex).ok()?;
    Some(Blob { digest, size })
}

/// A number without a sign or leading zeros.
pub(super) fn decimal(text: &str) -> Option<u64> {
    (text == "0" || !text.starts_with('0')).then(|| digits(text))?
}

/// Refuses a digest that stands in `blobs` twice.
pub(super) fn check_unique(blobs: &[Blob]) -> Result<(), Flaw> {
    let mut digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest).collect();
    digests.sort_unstable();
    match digests.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Flaw::Inconsistent(format!(
            "the list names {} twice",
            pair[0]
        ))),
        None => Ok(()),
    }
}

/// Refuses `blobs` unless they ascend by digest.
pub(super) fn check_sorted(blobs: &[Blob]) -> Result<(), Flaw> {
    match blobs
        .windows(2)
        .find(|pair| pair[0].digest >= pair[1].digest)
    {
        Some(pair) => Err(Flaw::Inconsistent(format!(
            "the list does not ascend at {}",
            pair[1].digest
        ))),
        None => Ok(()),
    }
}

/// Refuses `part` unless every blob of it is in `whole`, with the same size. `whole` ascends by digest.
pub(super) fn check_within(part: &[Blob], whole: &[Blob]) -> Result<(), Flaw> {
    for blob in part {
        let found = whole
            .binary_search_by_key(&blob.digest, |blob| blob.digest)
            .map(|at| whole[at].size);
        if found != Ok(blob.size) {
            return Err(Flaw::Inconsistent(format!(
                "{} with {} bytes is provided but not in the closure",
                blob.digest, blob.size
            )));
        }
    }
    Ok(())
}

/// The commitment to a list, from its blobs and its text.
///
/// # Errors
/// If there are too many blobs, or their sizes are beyond counting.
pub(super) fn listed(blobs: &[Blob], text: &[u8]) -> Result<Listed, Flaw> {
    let count = blobs.len() as u64;
    if count > BLOB_LIMIT {
        return Err(Flaw::blobs(count));
    }
    let mut bytes = 0_u64;
    for blob in blobs {
        if blob.size > SIZE_LIMIT {
            return Err(Flaw::Limit {
                what: "size of a blob",
                found: blob.size,
                limit: SIZE_LIMIT,
            });
        }
        bytes = bytes
            .checked_add(blob.size)
            .ok_or_else(|| Flaw::Inconsistent("the sizes of all blobs overflow".to_owned()))?;
    }
    Ok(Listed {
        bytes,
        count,
        list: Digest::of(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_malformed_line_is_named() {
        let hex = "a".repeat(64);
        for (text, line) in [
            (format!("{hex} 1"), 1),
            (format!("{hex} 1\n{hex} 2\r\n"), 2),
            (format!("{hex}  1\n"), 1),
            (format!("{hex} 01\n"), 1),
            (format!("{hex} +1\n"), 1),
            (format!("{hex} 99999999999999999999\n"), 1),
            (format!("{hex} {}\n", SIZE_LIMIT + 1), 1),
            (format!("{} 1\n", hex.to_uppercase()), 1),
            ("\n".to_owned(), 1),
        ] {
            match parse(text.as_bytes()) {
                Err(Flaw::Line { number, .. }) => {
                    assert_eq!(number, line, "{text:?} is at fault in that line");
                }
                other => panic!("{text:?} is malformed: {other:?}"),
            }
        }
        let twice = format!("{hex} 1\n{hex} 1\n");
        assert!(
            matches!(parse(twice.as_bytes()), Err(Flaw::Inconsistent(_))),
            "one digest, one line"
        );
    }

    proptest! {
        #[test]
        fn a_list_survives_printing(sizes in prop::collection::btree_map(any::<[u8; 32]>(), 0..=SIZE_LIMIT, 0..9)) {
            let blobs: Vec<Blob> = sizes
                .into_iter()
                .map(|(digest, size)| Blob { digest: Digest::from_bytes(digest), size })
                .collect();
            let text = print(&blobs);
            prop_assert_eq!(parse(&text).unwrap(), blobs);
        }

        #[test]
        fn any_text_is_read_without_panic(text in "([0-9a-f]{62,66} [0-9]{0,22}\n?){0,3}") {
            if let Ok(blobs) = parse(text.as_bytes()) {
                prop_assert_eq!(print(&blobs), text.as_bytes(), "there is one way to write a list");
            }
        }
    }
}
