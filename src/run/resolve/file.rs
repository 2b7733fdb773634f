//! `[[file]]`: a plain file that other blocks depend on, and that the archive must carry.

use super::means::{Means, Problem};
use super::{Expected, Found};
use crate::plan::key::BlockKey;
use crate::plan::lock::{File, NewBlock};

/// Answers a file block from the files at hand.
///
/// # Errors
/// If the file is not at hand, or the store fails.
pub fn answer(expected: &Expected, means: &Means<'_>) -> Result<Found, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let BlockKey::File { reference } = &expected.key else {
        return Err(one(Problem::new("this is no file")));
    };
    let bytes = expected
        .want
        .text("sha256")
        .and_then(|text| text.parse().ok())
        .and_then(|digest| means.file(&digest))
        .ok_or_else(|| one(Problem::new(format!("{reference} is not at hand"))))?;
    Ok(Found {
        block: NewBlock::File(File {
            reference: reference.clone(),
            want: expected.want.clone(),
            file: means.keep(&bytes.1).map_err(one)?,
        }),
        notes: Vec::new(),
    })
}
