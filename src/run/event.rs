//! What long work reports while it runs.
//!
//! The library hands events to a function and never prints; `cli` draws a progress line from them, or writes them
//! as JSON lines.

use serde::Serialize;

use crate::digest::Digest;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A phase began: `lock`, `build`, `export`, `verify`, `import`, `push`.
    Phase {
        /// Its name.
        phase: &'static str,
    },
    /// More work became known.
    Planned {
        /// So many blobs more.
        blobs: u64,
        /// So many bytes more.
        bytes: u64,
    },
    /// Bytes of a blob went by.
    Bytes {
        /// The blob.
        digest: Digest,
        /// How many.
        bytes: u64,
    },
    /// A blob is where it belongs.
    Done {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// Whether it had been there before.
        present: bool,
    },
    /// A blob did not arrive; others go on.
    Failed {
        /// The blob.
        digest: Digest,
        /// Why, in one line.
        cause: String,
    },
    /// One image is complete.
    Image {
        /// Its name.
        image: String,
    },
}

/// Where events go.
pub type Observer<'a> = &'a (dyn Fn(Event) + Sync);

/// Writes an error and its causes as one line.
#[must_use]
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = error.source();
    }
    line.replace('\n', " ")
}
