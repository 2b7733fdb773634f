//! The memo (to be filled in).
