//! `[[image]]`: one image by name.

use super::means::{Means, Problem};
use super::{Expected, Found};
use crate::oci::PlatformName;
use crate::plan::key::BlockKey;
use crate::plan::lock::{Image, NewBlock};

/// Answers an image block: asks what its name stands for, and pins that.
///
/// # Errors
/// If the name stands for nothing, or for nothing that can be mirrored.
pub fn answer(expected: &Expected, means: &Means<'_>) -> Result<Found, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let (BlockKey::Image { reference, .. }, Some(image)) = (&expected.key, &expected.image) else {
        return Err(one(Problem::new("this is no image")));
    };
    let named = means
        .resolve(image)
        .map_err(one)?
        .ok_or_else(|| one(Problem::new(format!("{image} is not there"))))?;
    let pin = means
        .pin(named.origin, named.stored, &expected.platforms)
        .map_err(one)?;
    Ok(Found {
        block: NewBlock::Image(Image {
            reference: reference.clone(),
            want: expected.want.clone(),
            pin,
        }),
        notes: Vec::new(),
    })
}

/// Platforms by name, as a `want` has them.
///
/// # Errors
/// With the first that is none.
pub fn platforms(names: &[String]) -> Result<Vec<PlatformName>, crate::oci::PlatformError> {
    names.iter().map(|name| name.parse()).collect()
}
