//! What an error advises, kept apart from what it says.
//!
//! An error's text names the thing, the expectation and the finding; the advice, if there is any, is its
//! [`Hint`]. `cli` prints the two in different places.

/// Advice for the person who reads an error.
pub trait Hint {
    /// What to do about it; `None` where nothing useful can be said.
    fn hint(&self) -> Option<String>;
}
