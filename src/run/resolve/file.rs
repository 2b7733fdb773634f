//! `[[file]]`: a plain file that other blocks depend on, and that the archive must carry: one at hand, which the want
//! names by digest, or what is at an address now.

use super::means::{Means, Problem};
use super::{Expected, Found};
use crate::plan::key::BlockKey;
use crate::plan::lock::{File, NewBlock};
use crate::step::Address;
use crate::store::Blob;

/// Answers a file block.
///
/// # Errors
/// If the file is not at hand, or nothing is at its address, or the store fails.
pub fn answer(expected: &Expected, means: &Means<'_>) -> Result<Found, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let BlockKey::File { reference } = &expected.key else {
        return Err(one(Problem::new("this is no file")));
    };
    let file = if expected.want.get("sha256").is_some() {
        let (_, bytes) = expected
            .want
            .text("sha256")
            .and_then(|text| text.parse().ok())
            .and_then(|digest| means.file(&digest))
            .ok_or_else(|| one(Problem::new(format!("{reference} is not at hand"))))?;
        means.keep(bytes).map_err(one)?
    } else {
        let services = &means.resolver().services;
        if let (Some(advice), None) = (services.withheld.get(reference), means.within()) {
            return Err(one(Problem::new(format!(
                "{reference} is not asked where another update service is in charge (UPDATE_URL_OVERRIDE)"
            ))
            .hint(advice.as_str())));
        }
        let bytes = means
            .get(&Address::plain(reference.as_str()))
            .map_err(one)?
            .ok_or_else(|| one(Problem::new(format!("{reference} is not there"))))?;
        Blob::of(&bytes)
    };
    Ok(Found {
        block: NewBlock::File(File {
            reference: reference.clone(),
            want: expected.want.clone(),
            file,
        }),
        notes: Vec::new(),
    })
}
