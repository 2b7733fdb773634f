//! The memo: what came of work that was done before.
//!
//! A record says that the step of some key yielded some output. It is a claim about work, not about presence:
//! [`recall`] is a hit only if the output and its children are still there. Losing a record costs the work again and
//! nothing else, so a record that is torn, edited or misplaced is simply not there.
//!
//! On disk a record is a file of text lines, `imgbuild/memo/<2 digits>/<key>`, the output first, then its children:
//!
//! ```text
//! imgbuild-memo 1
//! sha256:<64 digits> <size> <media type>
//! check <64 digits>                        BLAKE3 over the key and the lines above
//! ```
//!
//! ## Why not a database
//! Several processes share a store, `ls` and `cat` read it, and garbage collection is `unlink`. An embedded database
//! gives up the first or needs a server for it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::Store;
use super::{Blob, Sink, StoreError};
use crate::canon::Key;
use crate::digest::hex;

/// The domain of the check line.
const CONTEXT: &str = "imgbuild 2026-11 memo record v1";
/// First line of a record.
const OPENING: &str = "imgbuild-memo 1\n";

/// A blob that work yielded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Output {
    /// What it is.
    pub media_type: String,
    /// Its promise.
    pub blob: Blob,
}

/// A place that remembers what work yielded: the output first, then the children it names.
pub trait Memo: Sync {
    /// What the work of `key` yielded; `None` if that is not known.
    ///
    /// # Errors
    /// If the place cannot tell.
    fn get(&self, key: &Key) -> io::Result<Option<Vec<Output>>>;

    /// Remembers that the work of `key` yielded `outputs`; the last one to say so is believed.
    ///
    /// # Errors
    /// If the place fails, or cannot write such a media type.
    fn put(&self, key: &Key, outputs: &[Output]) -> io::Result<()>;
}

/// What the work of `key` yielded, if `memo` knows and `place` still holds all of it.
///
/// # Errors
/// If either place cannot tell.
pub fn recall(memo: &dyn Memo, place: &dyn Sink, key: &Key) -> io::Result<Option<Vec<Output>>> {
    let Some(outputs) = memo.get(key)? else {
        return Ok(None);
    };
    for output in &outputs {
        if !place.holds(&output.blob)? {
            return Ok(None);
        }
    }
    Ok(Some(outputs))
}

/// The memo of a store on disk.
#[derive(Clone, Copy)]
pub struct Records<'s> {
    store: &'s Store,
}

impl<'s> Records<'s> {
    pub(super) const fn of(store: &'s Store) -> Self {
        Self { store }
    }

    fn path(self, key: &Key) -> PathBuf {
        let digits = key.hex();
        self.store.inside("memo").join(&digits[..2]).join(&digits)
    }

    /// Every file of the memo, sorted.
    pub(super) fn list(self) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.store.inside("memo");
        let mut found = Vec::new();
        for entry in walkdir::WalkDir::new(&folder).sort_by_file_name() {
            match entry {
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) => found.push(entry.into_path()),
                Err(error)
                    if error
                        .io_error()
                        .is_some_and(|error| error.kind() == io::ErrorKind::NotFound) => {}
                Err(error) => return Err(StoreError::io("read", &folder)(error.into())),
            }
        }
        Ok(found)
    }

    /// The file names of records that are not as they were written, sorted: torn, edited, or under another key.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn unreadable(self) -> Result<Vec<String>, StoreError> {
        let records = self.list()?.into_iter();
        Ok(records
            .filter(|path| Self::outputs_at(path).is_none())
            .map(|path| {
                path.file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect())
    }

    /// What a file of the memo records; `None` if nothing.
    pub(super) fn outputs_at(path: &Path) -> Option<Vec<Output>> {
        let key = Key::from_hex(path.file_name()?.to_str()?)?;
        parse(&key, &fs::read(path).ok()?)
    }
}

impl Memo for Records<'_> {
    fn get(&self, key: &Key) -> io::Result<Option<Vec<Output>>> {
        let path = self.path(key);
        match fs::read(&path) {
            Ok(bytes) => Ok(parse(key, &bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path)(error).into()),
        }
    }

    fn put(&self, key: &Key, outputs: &[Output]) -> io::Result<()> {
        self.store.may_write("remember work")?;
        if let Some(output) = outputs
            .iter()
            .find(|output| !is_one_line(&output.media_type))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("media type {:?} is not one line of text", output.media_type),
            ));
        }
        // Not synced: a record that a crash tears fails its check and is not there.
        Ok(self
            .store
            .replace_loosely(&self.path(key), print(key, outputs).as_bytes())?)
    }
}

fn is_one_line(text: &str) -> bool {
    !text.contains(char::is_control)
}

fn check(key: &Key, body: &str) -> String {
    hex(&blake3::derive_key(
        CONTEXT,
        format!("{key}\n{body}").as_bytes(),
    ))
}

fn print(key: &Key, outputs: &[Output]) -> String {
    let mut text = OPENING.to_owned();
    for Output { media_type, blob } in outputs {
        writeln!(text, "{} {} {media_type}", blob.digest, blob.size)
            .expect("writing to a string cannot fail");
    }
    let check = check(key, &text);
    writeln!(text, "check {check}").expect("writing to a string cannot fail");
    text
}

fn parse(key: &Key, bytes: &[u8]) -> Option<Vec<Output>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let end = text.rfind("check ")?;
    let body = &text[..end];
    if text[end..] != format!("check {}\n", check(key, body)) {
        return None;
    }
    body.strip_prefix(OPENING)?
        .split_terminator('\n')
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            Some(Output {
                blob: Blob {
                    digest: words.next()?.parse().ok()?,
                    size: words.next()?.parse().ok()?,
                },
                media_type: words.next()?.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::Value;
    use crate::digest::Digest;
    use crate::store::disk::Access;
    use crate::store::memory::Memory;
    use proptest::prelude::*;

    fn key(text: &str) -> Key {
        Key::of("imgbuild test", &Value::from(text))
    }

    fn any_outputs() -> impl Strategy<Value = Vec<Output>> {
        prop::collection::vec(
            ("[ -~é]{0,20}", any::<[u8; 32]>(), any::<u64>()).prop_map(
                |(media_type, digest, size)| Output {
                    media_type,
                    blob: Blob {
                        digest: Digest::from_bytes(digest),
                        size,
                    },
                },
            ),
            0..4,
        )
    }

    proptest! {
        #[test]
        fn a_record_survives_printing_and_no_edit(outputs in any_outputs(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut bytes = print(&key("a"), &outputs).into_bytes();
            prop_assert_eq!(parse(&key("a"), &bytes), Some(outputs), "parse must undo print");
            prop_assert_eq!(parse(&key("b"), &bytes), None, "a record under another key is not there");
            let at = at.index(bytes.len());
            prop_assert_eq!(parse(&key("a"), &bytes[..at]), None, "a torn record is not there");
            bytes[at] ^= flip;
            prop_assert_eq!(parse(&key("a"), &bytes), None, "an edited record is not there");
        }
    }

    #[test]
    fn every_memo_remembers_the_last_answer() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        let memory = Memory::default();
        let records = store.memo();
        for memo in [&memory as &dyn Memo, &records] {
            assert_eq!(
                memo.get(&key("a")).unwrap(),
                None,
                "nothing is remembered at first"
            );
            for content in [&b"one"[..], b"two"] {
                let outputs = vec![Output {
                    media_type: "text/plain".to_owned(),
                    blob: Blob::of(content),
                }];
                memo.put(&key("a"), &outputs).unwrap();
                assert_eq!(
                    memo.get(&key("a")).unwrap(),
                    Some(outputs),
                    "the last answer counts"
                );
            }
            assert_eq!(
                memo.get(&key("b")).unwrap(),
                None,
                "no other key is answered"
            );
        }
    }

    #[test]
    fn recall_hits_only_while_all_outputs_are_there() {
        let memory = Memory::default();
        let output = |blob| Output {
            media_type: String::new(),
            blob,
        };
        let here = memory.insert(b"here");
        let outputs = vec![output(here), output(Blob::of(b"child"))];
        memory.put(&key("a"), &outputs).unwrap();
        assert_eq!(
            recall(&memory, &memory, &key("a")).unwrap(),
            None,
            "a child is missing"
        );
        memory.insert(b"child");
        assert_eq!(
            recall(&memory, &memory, &key("a")).unwrap(),
            Some(outputs),
            "now it is here"
        );
    }

    #[test]
    fn a_media_type_of_two_lines_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        let output = Output {
            media_type: "a\nb".to_owned(),
            blob: Blob::of(b""),
        };
        let error = store.memo().put(&key("a"), &[output]).unwrap_err();
        assert!(
            error.to_string().contains("one line"),
            "{error} must say what is wrong"
        );
    }
}
