//! Places that a tool's build leaves free, and that whoever hands the tool out writes into.
//!
//! A marker is a zero byte, a word between underscores, a zero byte, a run of `X` and a zero byte. A value goes over its
//! start and ends in a zero byte; what stands behind it stays, so the length of the file does not change.
//!
//! | marker | length | value |
//! |---|---|---|
//! | `_RELEASE_IMAGE_LOCATION_` | 327 | the payload, by digest |
//! | `_RELEASE_VERSION_LOCATION_` | 93 | the version |
//! | `_RELEASE_ARCHITECTURE_LOCATION_` | 98 | the architecture |

use std::io::{self, Read, Write};
use std::ops::Range;

use memchr::memmem::Finder;

/// How much is read at a time.
const CHUNK: usize = 1 << 20;

/// A place for one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// For the payload.
    Image,
    /// For the version.
    Version,
    /// For the architecture.
    Architecture,
}

impl Marker {
    /// The word in it, and how much room it has behind.
    const fn parts(self) -> (&'static str, usize) {
        match self {
            Self::Image => ("_RELEASE_IMAGE_LOCATION_", 300),
            Self::Version => ("_RELEASE_VERSION_LOCATION_", 64),
            Self::Architecture => ("_RELEASE_ARCHITECTURE_LOCATION_", 64),
        }
    }

    /// The word in it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.parts().0
    }

    /// The bytes of it.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let (word, room) = self.parts();
        let mut bytes = vec![0];
        bytes.extend_from_slice(word.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len() + room, b'X');
        bytes.push(0);
        bytes
    }
}

/// A value that does not fit its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} has {} bytes; {} has room for {room}", value.len(), marker.word())]
pub struct MarkerError {
    /// The place.
    pub marker: Marker,
    /// The value.
    pub value: String,
    /// How many bytes fit.
    pub room: usize,
}

/// A value for a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    marker: Marker,
    bytes: Vec<u8>,
}

impl Replacement {
    /// Writes `value` where `marker` is.
    ///
    /// # Errors
    /// If it does not fit, or has a zero byte in it.
    pub fn new(marker: Marker, value: &str) -> Result<Self, MarkerError> {
        let room = marker.bytes().len() - 1;
        if value.len() > room || value.contains('\0') {
            return Err(MarkerError {
                marker,
                value: value.to_owned(),
                room,
            });
        }
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        Ok(Self { marker, bytes })
    }

    /// Where it goes.
    #[must_use]
    pub const fn marker(&self) -> Marker {
        self.marker
    }
}

/// Copies `input` to `output` with each value in the first place that there is for it. Answers where each went, in the
/// order given; `None` where there is no place. Memory is bounded by a buffer.
///
/// # Errors
/// If reading or writing fails.
pub fn replace(
    input: &mut dyn Read,
    output: &mut dyn Write,
    replacements: &[Replacement],
) -> io::Result<Vec<Option<Range<u64>>>> {
    let needles: Vec<Vec<u8>> = replacements
        .iter()
        .map(|replacement| replacement.marker.bytes())
        .collect();
    let finders: Vec<Finder<'_>> = needles.iter().map(Finder::new).collect();
    // A marker may begin in one chunk and end in the next.
    let overlap = needles.iter().map(Vec::len).max().unwrap_or(1) - 1;
    let mut found: Vec<Option<Range<u64>>> = vec![None; replacements.len()];
    let mut window: Vec<u8> = Vec::with_capacity(CHUNK + overlap);
    let mut start: u64 = 0;
    loop {
        let kept = window.len();
        window.resize(kept + CHUNK, 0);
        let mut filled = kept;
        while filled < window.len() {
            match input.read(&mut window[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let is_end = filled < window.len();
        window.truncate(filled);
        for (index, finder) in finders.iter().enumerate() {
            if found[index].is_some() {
                continue;
            }
            let Some(at) = finder.find(&window) else {
                continue;
            };
            let value = &replacements[index].bytes;
            window[at..at + value.len()].copy_from_slice(value);
            let from = start + at as u64;
            found[index] = Some(from..from + value.len() as u64);
        }
        let done = if is_end {
            window.len()
        } else {
            window.len() - overlap.min(window.len())
        };
        output.write_all(&window[..done])?;
        window.drain(..done);
        start += done as u64;
        if is_end {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives few bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn markers_have_the_lengths_that_tools_are_built_with() {
        for (marker, length) in [
            (Marker::Image, 327),
            (Marker::Version, 93),
            (Marker::Architecture, 98),
        ] {
            assert_eq!(marker.bytes().len(), length, "{}", marker.word());
            let longest = "v".repeat(length - 1);
            assert!(
                Replacement::new(marker, &longest).is_ok(),
                "{} bytes and a zero byte fit {}",
                length - 1,
                marker.word()
            );
            assert!(
                Replacement::new(marker, &format!("{longest}v")).is_err(),
                "one more does not fit {}",
                marker.word()
            );
        }
        assert!(
            Replacement::new(Marker::Version, "4\0").is_err(),
            "a zero byte would end the value early"
        );
    }

    #[test]
    fn only_the_first_place_is_written_and_its_rest_stays() {
        let marker = Marker::Version.bytes();
        let input = [b"head".as_slice(), &marker, b"middle", &marker, b"tail"].concat();
        let mut output = Vec::new();
        let replacements = [
            Replacement::new(Marker::Version, "4.16.1").unwrap(),
            Replacement::new(Marker::Image, "quay.io/a/b").unwrap(),
        ];
        let found = replace(&mut input.as_slice(), &mut output, &replacements).unwrap();
        assert_eq!(found, [Some(4..11), None], "one place, and none");
        let mut wanted = input.clone();
        wanted[4..11].copy_from_slice(b"4.16.1\0");
        assert_eq!(output, wanted, "nothing else changes");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_place_is_found_wherever_chunks_end(before in CHUNK - 400..CHUNK + 40, drip in 1_usize..70_000) {
            let marker = Marker::Image.bytes();
            let input = [vec![7; before], marker, vec![9; 50]].concat();
            let mut output = Vec::new();
            let replacements = [Replacement::new(Marker::Image, "m.example/x@sha256:aa").unwrap()];
            let found = replace(&mut Drip(&input, drip), &mut output, &replacements).unwrap();
            let at = before as u64;
            prop_assert_eq!(&found, &[Some(at..at + 22)]);
            let mut wanted = input;
            wanted[before..before + 22].copy_from_slice(b"m.example/x@sha256:aa\0");
            prop_assert!(output == wanted, "nothing else changes");
        }
    }
}
