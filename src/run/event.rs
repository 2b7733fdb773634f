//! What long work reports while it runs.
//!
//! The library hands events to a function and never prints; `cli` draws a progress line from them, or writes them
//! as JSON lines.

use serde::Serialize;

use crate::digest::Digest;
use crate::hint::Hint;
use crate::registry::client::RegistryError;
use crate::store::StoreError;

/// Most pieces of advice given at once: more are not read.
const ADVICE: usize = 5;

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

/// The advice of the first error in a chain that has some: what a registry or the store says of itself helps more
/// than what was being done.
#[must_use]
pub fn advice(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let hint = match error.downcast_ref::<RegistryError>() {
            Some(error) => error.hint(),
            None => error.downcast_ref::<StoreError>().and_then(Hint::hint),
        };
        if hint.is_some() {
            return hint;
        }
        // What an I/O error carries is not among its sources.
        let carried = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match carried {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    None
}

/// Joins the advice of several errors, each said once and in order; what has none gets `otherwise`.
#[must_use]
pub fn joined_advice(advice: impl IntoIterator<Item = Option<String>>, otherwise: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut is_general = false;
    for hint in advice {
        match hint {
            Some(hint) if !lines.contains(&hint) && lines.len() < ADVICE => lines.push(hint),
            Some(_) => {}
            None => is_general = true,
        }
    }
    if is_general || lines.is_empty() {
        lines.push(otherwise.to_owned());
    }
    lines.join("\n      ")
}

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
