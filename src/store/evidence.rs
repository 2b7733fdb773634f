//! The evidence log: what was asked of mutable names and what they answered, with the time, never committed to git.
//!
//! `imgbuild/evidence.jsonl` is a file of JSON lines that only grows. A line is one write, under a lock, after the
//! bytes of the line before; a line that a crash tore stays behind alone and is passed over by readers.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};

use super::StoreError;
use super::disk::{Locked, Store};

/// The evidence log of a store.
#[derive(Clone, Copy)]
pub struct Evidence<'s> {
    store: &'s Store,
}

impl<'s> Evidence<'s> {
    pub(super) const fn of(store: &'s Store) -> Self {
        Self { store }
    }

    /// Appends one line, a JSON object without a line feed.
    ///
    /// # Errors
    /// If `line` has a line feed; if the file system refuses, and then nothing was appended.
    pub fn append(&self, line: &str) -> Result<(), StoreError> {
        self.store.may_write("append to the evidence log")?;
        if line.contains('\n') {
            return Err(StoreError::Name {
                name: line.chars().take(80).collect(),
                what: "line of evidence",
                problem: "it is more than one line",
            });
        }
        let path = self.store.inside("evidence.jsonl");
        let failed = |action| StoreError::io(action, &path);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(failed("open"))?;
        file.lock().map_err(failed("lock"))?;
        let file = Locked(file);
        let before = file.metadata().map_err(failed("look at"))?.len();
        let mut bytes = Vec::with_capacity(line.len() + 2);
        if before > 0 {
            let mut last = [0];
            (&*file)
                .seek(SeekFrom::Start(before - 1))
                .and_then(|_| (&*file).read_exact(&mut last))
                .map_err(failed("read"))?;
            if last != *b"\n" {
                bytes.push(b'\n');
            }
        }
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        (&*file).write_all(&bytes).map_err(|error| {
            // A full disk takes part of a line.
            let _ = file.set_len(before);
            failed("write")(error)
        })
    }

    /// Its lines that are JSON, oldest first.
    ///
    /// # Errors
    /// If the file system refuses; later, per line.
    pub fn lines(
        &self,
    ) -> Result<impl Iterator<Item = Result<String, StoreError>> + 's, StoreError> {
        let path = self.store.inside("evidence.jsonl");
        let file = match File::open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        Ok(file
            .into_iter()
            .flat_map(|file| BufReader::new(file).split(b'\n'))
            .filter_map(move |line| match line {
                Ok(line) => {
                    let line = String::from_utf8(line).ok()?;
                    serde_json::from_str::<serde::de::IgnoredAny>(&line).ok()?;
                    Some(Ok(line))
                }
                Err(error) => Some(Err(StoreError::io("read", &path)(error))),
            }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::Access;

    #[test]
    fn a_torn_line_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        let lines = || -> Vec<String> {
            store
                .evidence()
                .lines()
                .unwrap()
                .map(Result::unwrap)
                .collect()
        };
        assert!(lines().is_empty(), "a new store has no evidence");
        store.evidence().append(r#"{"a":1}"#).unwrap();
        OpenOptions::new()
            .append(true)
            .open(folder.path().join("imgbuild/evidence.jsonl"))
            .unwrap()
            .write_all(br#"{"torn":"#)
            .unwrap();
        store.evidence().append(r#"{"b":2}"#).unwrap();
        assert_eq!(
            lines(),
            [r#"{"a":1}"#, r#"{"b":2}"#],
            "whole lines are read, in order"
        );
        assert!(
            store.evidence().append("{}\n{}").is_err(),
            "two lines are not one"
        );
    }

    #[test]
    fn lines_of_many_writers_stay_whole() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = folder.path();
                scope.spawn(move || {
                    let store = Store::open(path, Access::Shared).unwrap();
                    for line in 0..25 {
                        let filler = "x".repeat(line * 40);
                        store
                            .evidence()
                            .append(&format!(
                                r#"{{"writer":{writer},"line":{line},"filler":"{filler}"}}"#
                            ))
                            .unwrap();
                    }
                });
            }
        });
        let store = Store::open(folder.path(), Access::ReadOnly).unwrap();
        assert_eq!(
            store.evidence().lines().unwrap().count(),
            100,
            "no line may be lost or torn"
        );
    }
}
