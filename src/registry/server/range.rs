//! Which bytes a request wants or brings: `Range` (RFC 9110, section 14.2) and the `Content-Range` of a chunk
//! (OCI distribution specification, "Pushing a blob in chunks": `<first>-<last>`).

/// Which part of a blob is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: nothing was said, or nothing that can be met in one piece.
    Whole,
    /// From `first`, before `end`.
    Part {
        /// Offset of the first byte.
        first: u64,
        /// Offset after the last byte.
        end: u64,
    },
    /// A part that the blob does not have.
    Unsatisfiable,
}

/// Reads a `Range` header against a blob of `size` bytes.
///
/// Several ranges, other units and malformed values are answered with the whole, as RFC 9110 allows.
pub(super) fn wanted(header: &str, size: u64) -> Wanted {
    let Some((unit, set)) = header.split_once('=') else {
        return Wanted::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else {
        return Wanted::Whole;
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Wanted::Whole,
        (Some(first), _) if first >= size && (last.is_empty() || number(last).is_some()) => {
            Wanted::Unsatisfiable
        }
        (Some(first), Some(last)) => Wanted::Part {
            first,
            end: last.saturating_add(1).min(size),
        },
        (Some(first), None) if last.is_empty() => Wanted::Part { first, end: size },
        (None, Some(count)) if first.is_empty() => {
            if count == 0 || size == 0 {
                Wanted::Unsatisfiable
            } else {
                Wanted::Part {
                    first: size.saturating_sub(count),
                    end: size,
                }
            }
        }
        _ => Wanted::Whole,
    }
}

/// Reads the `Content-Range` of a chunk: its first and last byte. `bytes ` before and `/total` after are taken too.
pub(super) fn chunk(header: &str) -> Option<(u64, u64)> {
    let text = header.trim();
    let text = text.strip_prefix("bytes").unwrap_or(text);
    let text = text.split('/').next()?;
    let (first, last) = text.trim().trim_start_matches('=').split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && last < u64::MAX).then_some((first, last))
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_printed_range_is_read_back(first in 0_u64..1 << 40, length in 1_u64..1 << 40, more in 0_u64..1 << 40) {
            let last = first + length - 1;
            let size = last + 1 + more;
            let part = Wanted::Part { first, end: last + 1 };
            prop_assert_eq!(wanted(&format!("bytes={first}-{last}"), size), part);
            prop_assert_eq!(chunk(&format!("{first}-{last}")), Some((first, last)));
        }

        #[test]
        fn no_text_yields_bytes_that_are_not_there(text in ".{0,24}", size in 0_u64..100) {
            if let Wanted::Part { first, end } = wanted(&text, size) {
                prop_assert!(first < end && end <= size, "{first}..{end} of {size}");
            }
        }
    }

    #[test]
    fn a_range_is_met_refused_or_ignored() {
        let part = |first, end| Wanted::Part { first, end };
        for (header, size, expected) in [
            ("bytes=0-3", 10, part(0, 4)),
            ("bytes=4-", 10, part(4, 10)),
            ("bytes=-4", 10, part(6, 10)),
            ("bytes=-40", 10, part(0, 10)),
            ("bytes=9-99", 10, part(9, 10)),
            ("bytes=0-18446744073709551615", 10, part(0, 10)),
            ("Bytes=0-0", 10, part(0, 1)),
            ("bytes=10-", 10, Wanted::Unsatisfiable),
            ("bytes=10-12", 10, Wanted::Unsatisfiable),
            ("bytes=-0", 10, Wanted::Unsatisfiable),
            ("bytes=0-", 0, Wanted::Unsatisfiable),
            ("bytes=-1", 0, Wanted::Unsatisfiable),
            ("bytes=4-3", 10, Wanted::Whole),
            ("bytes=12-11", 10, Wanted::Whole),
            ("bytes=0-1,4-5", 10, Wanted::Whole),
            ("bytes=-", 10, Wanted::Whole),
            ("bytes=a-b", 10, Wanted::Whole),
            ("bytes=+1-2", 10, Wanted::Whole),
            ("items=0-1", 10, Wanted::Whole),
            ("", 10, Wanted::Whole),
        ] {
            assert_eq!(
                wanted(header, size),
                expected,
                "{header:?} of {size} bytes follows RFC 9110"
            );
        }
    }

    #[test]
    fn a_chunk_says_where_it_belongs() {
        for (header, expected) in [
            ("0-99", Some((0, 99))),
            ("bytes 100-199/*", Some((100, 199))),
            ("bytes=5-5", Some((5, 5))),
            ("5-4", None),
            ("5-", None),
            ("-5", None),
            ("a-b", None),
            ("0-18446744073709551615", None),
            ("", None),
        ] {
            assert_eq!(
                chunk(header),
                expected,
                "{header:?} is first-last or nothing"
            );
        }
    }
}
