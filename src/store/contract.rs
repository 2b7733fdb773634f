//! What every place that blobs are written to must do; run over each of them.

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Blob, Damage, Moved, PrefixGone, Sink, Source, TransferError, Verified, transfer};
use crate::digest::Hasher;

/// A place that blobs are written to and read from.
pub(crate) trait Place: Source + Sink {}

impl<T: Source + Sink> Place for T {}

/// Bytes that differ for each `seed`.
pub(crate) fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// What a place holds as `blob`; `None` if nothing.
pub(crate) fn held(place: &dyn Place, blob: &Blob) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    Source::open(place, blob, 0)
        .unwrap()?
        .read_to_end(&mut bytes)
        .unwrap();
    Some(bytes)
}

/// How a source misbehaves.
#[derive(Clone, Debug)]
pub(crate) enum Lie {
    /// It does not.
    None,
    /// It ends after so many bytes of what it was asked for.
    Ends(usize),
    /// Its connection breaks after so many bytes of what it was asked for.
    Breaks(usize),
    /// It has a byte changed, counted from the start of the blob.
    Flips(usize),
    /// It has more bytes.
    Adds(usize),
    /// It always sends everything, wherever it was asked to start.
    IgnoresStart,
    /// It does not have the blob.
    Lacks,
}

/// A source of one blob that yields pieces of at most `piece` bytes.
pub(crate) struct Liar {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lie: Lie,
    pub(crate) piece: usize,
    pub(crate) sent: AtomicU64,
}

impl Liar {
    pub(crate) fn new(bytes: &[u8], lie: Lie) -> Self {
        Self {
            bytes: bytes.to_vec(),
            lie,
            piece: 1 << 16,
            sent: AtomicU64::new(0),
        }
    }
}

struct Pieces<'a> {
    bytes: Cursor<Vec<u8>>,
    breaks: bool,
    source: &'a Liar,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.source.piece);
        let count = self.bytes.read(&mut buffer[..most])?;
        self.source.sent.fetch_add(count as u64, Ordering::Relaxed);
        if count == 0 && self.breaks {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "it broke"));
        }
        Ok(count)
    }
}

impl Source for Liar {
    fn open(&self, _: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        let mut bytes = self.bytes.clone();
        let mut from = usize::try_from(from).unwrap();
        assert!(
            from == 0 || from < bytes.len(),
            "a source is only asked for bytes that a blob has"
        );
        let mut breaks = false;
        match self.lie {
            Lie::None => {}
            Lie::Ends(count) => bytes.truncate(from.saturating_add(count)),
            Lie::Breaks(count) => {
                bytes.truncate(from.saturating_add(count));
                breaks = true;
            }
            Lie::Flips(at) => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1;
                }
            }
            Lie::Adds(count) => bytes.extend(vec![0; count]),
            Lie::IgnoresStart => from = 0,
            Lie::Lacks => return Ok(None),
        }
        Ok(Some(Box::new(Pieces {
            bytes: Cursor::new(bytes.split_off(from)),
            breaks,
            source: self,
        })))
    }
}

/// Runs the contract over `place`, in which it leaves some blobs.
pub(crate) fn contract(place: &dyn Place) {
    absent_blobs_are_none(place);
    written_blobs_are_read_back_from_any_byte(place);
    a_broken_promise_leaves_nothing(place);
    a_broken_connection_is_reported_and_gone_on_from(place);
    a_start_that_was_never_kept_is_refused(place);
    a_reader_of_another_blob_is_refused(place);
    writers_of_one_blob_do_not_disturb_each_other(place);
    whatever_a_source_does_the_place_is_right_or_empty(place);
}

fn absent_blobs_are_none(place: &dyn Place) {
    let blob = Blob::of(b"contract: never written");
    assert!(!place.holds(&blob).unwrap(), "it was never written");
    assert!(
        Source::open(place, &blob, 0).unwrap().is_none(),
        "absence is no error"
    );
    assert!(place.kept(&blob).unwrap().is_none(), "nothing was begun");
    place.forget(&blob).unwrap();
}

fn written_blobs_are_read_back_from_any_byte(place: &dyn Place) {
    for size in [0, 1, 100, (1 << 16) + 1, 1_000_000] {
        let bytes = content(1, size);
        let blob = Blob::of(&bytes);
        let source = Liar::new(&bytes, Lie::None);
        let moved = transfer(&source, place, &blob, &|_| ()).unwrap();
        assert!(
            matches!(moved, Moved::Written(count) if count == blob.size) || size == 0,
            "{size} bytes came from the source"
        );
        assert!(place.holds(&blob).unwrap(), "what was written is there");
        assert_eq!(
            transfer(&source, place, &blob, &|_| ()).unwrap(),
            Moved::Present,
            "a finished blob is never written again"
        );
        assert_eq!(
            source.sent.load(Ordering::Relaxed),
            blob.size,
            "nor read again"
        );
        for from in [0, size / 3, size.saturating_sub(1)] {
            let mut found = Vec::new();
            Source::open(place, &blob, from as u64)
                .unwrap()
                .unwrap()
                .read_to_end(&mut found)
                .unwrap();
            assert!(
                found == bytes[from..],
                "{size} bytes are read back from byte {from}"
            );
        }
        let other = Blob {
            size: blob.size + 1,
            ..blob
        };
        assert!(
            !place.holds(&other).unwrap(),
            "a promise of another size is another promise"
        );
    }
}

fn a_broken_promise_leaves_nothing(place: &dyn Place) {
    let bytes = content(2, 100_000);
    let blob = Blob::of(&bytes);
    for lie in [
        Lie::Ends(0),
        Lie::Ends(70_000),
        Lie::Flips(0),
        Lie::Flips(99_999),
        Lie::Adds(1),
    ] {
        let error = transfer(&Liar::new(&bytes, lie.clone()), place, &blob, &|_| ()).unwrap_err();
        let TransferError::Damaged { source, .. } = error else {
            panic!("{error} must be about the damage of {lie:?}");
        };
        assert_eq!(
            matches!(source, Damage::Short { .. }),
            matches!(lie, Lie::Ends(_)),
            "{source} must say how the promise was broken by {lie:?}"
        );
        assert!(
            !place.holds(&blob).unwrap(),
            "a broken promise must leave no blob"
        );
        assert!(
            Source::open(place, &blob, 0).unwrap().is_none(),
            "nor one that can be read"
        );
        assert!(
            matches!(lie, Lie::Ends(70_000)) || place.kept(&blob).unwrap().is_none(),
            "false bytes are no start, nor are none: {lie:?}"
        );
        place.forget(&blob).unwrap();
        assert!(
            place.kept(&blob).unwrap().is_none(),
            "what is forgotten is not offered"
        );
    }
    let error = transfer(&Liar::new(&bytes, Lie::Lacks), place, &blob, &|_| ()).unwrap_err();
    assert!(
        matches!(error, TransferError::Absent { .. }),
        "{error} must say that it is not there"
    );
}

fn a_broken_connection_is_reported_and_gone_on_from(place: &dyn Place) {
    let bytes = content(3, 300_000);
    let blob = Blob::of(&bytes);
    let source = Liar::new(&bytes, Lie::Breaks(200_000));
    let error = transfer(&source, place, &blob, &|_| ()).unwrap_err();
    let TransferError::Io { source: error, .. } = error else {
        panic!("{error} must be about the connection");
    };
    assert_eq!(
        error.kind(),
        io::ErrorKind::ConnectionReset,
        "the error of the reader comes out unchanged"
    );
    assert!(!place.holds(&blob).unwrap(), "part of a blob is no blob");
    let kept = place.kept(&blob).unwrap().map_or(0, |mut kept| {
        let mut found = Vec::new();
        kept.read_to_end(&mut found).unwrap();
        assert!(
            bytes.starts_with(&found),
            "what is kept is the start of the blob"
        );
        found.len() as u64
    });
    let source = Liar::new(&bytes, Lie::None);
    let moved = transfer(&source, place, &blob, &|_| ()).unwrap();
    assert_eq!(
        moved,
        Moved::Written(blob.size - kept),
        "what is kept is not fetched again"
    );
    assert_eq!(
        source.sent.load(Ordering::Relaxed),
        blob.size - kept,
        "not a byte of it"
    );
    assert!(
        held(place, &blob).unwrap() == bytes,
        "the two halves make the blob"
    );
}

fn a_start_that_was_never_kept_is_refused(place: &dyn Place) {
    let bytes = content(4, 1000);
    let blob = Blob::of(&bytes);
    let mut state = Hasher::default();
    state.update(&bytes[..500]);
    let rest = Box::new(&bytes[500..]);
    let error = place
        .write(&blob, &mut Verified::resumed(rest, blob, state, &|_| ()))
        .unwrap_err();
    assert!(
        PrefixGone::is_in(&error),
        "{error} must say that the start is missing"
    );
    assert!(!place.holds(&blob).unwrap(), "the end of a blob is no blob");
}

fn a_reader_of_another_blob_is_refused(place: &dyn Place) {
    let (blob, other) = (Blob::of(b"contract: wanted"), Blob::of(b"contract: other"));
    let mut reader = Verified::new(Box::new(&b"contract: other"[..]), other);
    assert!(
        place.write(&blob, &mut reader).is_err(),
        "the reader vouches for other bytes"
    );
    assert!(
        !place.holds(&blob).unwrap(),
        "they must not get the wrong name"
    );
}

fn writers_of_one_blob_do_not_disturb_each_other(place: &dyn Place) {
    let bytes = content(5, 400_000);
    let blob = Blob::of(&bytes);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let mut source = Liar::new(
                &bytes,
                if writer == 0 {
                    Lie::Breaks(300_000)
                } else {
                    Lie::None
                },
            );
            source.piece = 1000 + writer;
            scope.spawn(move || {
                let result = transfer(&source, place, &blob, &|_| ());
                if writer > 0 {
                    result.unwrap();
                }
            });
        }
    });
    assert!(
        held(place, &blob).unwrap() == bytes,
        "the blob is whole whoever came first"
    );
    // Small blobs, so that the moments of taking up, finishing and forgetting meet.
    for number in 0..100 {
        let bytes = content(1_000 + number, 500);
        let blob = Blob::of(&bytes);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let lie = match writer {
                    0 => Lie::Flips(400),
                    1 => Lie::Breaks(300),
                    _ => Lie::None,
                };
                let source = Liar::new(&bytes, lie);
                scope.spawn(move || {
                    let result = transfer(&source, place, &blob, &|_| ());
                    if writer > 1 {
                        result.unwrap();
                    }
                });
            }
        });
        assert!(
            held(place, &blob).unwrap() == bytes,
            "the blob is whole whoever came first"
        );
    }
}

fn any_lie() -> impl Strategy<Value = Lie> {
    prop_oneof![
        3 => Just(Lie::None),
        3 => (0..3000_usize).prop_map(Lie::Ends),
        3 => (0..3000_usize).prop_map(Lie::Breaks),
        2 => (0..3000_usize).prop_map(Lie::Flips),
        1 => (1..100_usize).prop_map(Lie::Adds),
        2 => Just(Lie::IgnoresStart),
        1 => Just(Lie::Lacks),
    ]
}

fn whatever_a_source_does_the_place_is_right_or_empty(place: &dyn Place) {
    let mut runner = TestRunner::new(Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    });
    let cases = (
        any::<u64>(),
        0..3000_usize,
        1..1000_usize,
        prop::collection::vec(any_lie(), 1..6),
    );
    let outcome = runner.run(&cases, |(seed, size, piece, lies)| {
        let bytes = content(seed, size);
        let blob = Blob::of(&bytes);
        for lie in lies.into_iter().chain([Lie::None]) {
            let mut source = Liar::new(&bytes, lie.clone());
            source.piece = piece;
            let came = AtomicU64::new(0);
            let result = transfer(&source, place, &blob, &|count| {
                came.fetch_add(count, Ordering::Relaxed);
            });
            let holds = place.holds(&blob).unwrap();
            prop_assert_eq!(
                held(place, &blob),
                holds.then(|| bytes.clone()),
                "right bytes or nothing"
            );
            prop_assert_eq!(
                result.is_ok(),
                holds,
                "{:?}: the result says which: {:?}",
                lie,
                result
            );
            let sent = source.sent.load(Ordering::Relaxed);
            prop_assert!(
                came.load(Ordering::Relaxed) <= sent,
                "no byte is reported that was not sent"
            );
            if matches!(lie, Lie::None | Lie::IgnoresStart) {
                prop_assert!(holds, "a source that has the bytes is enough: {:?}", result);
            }
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
