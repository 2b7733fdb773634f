//! The client (to be filled in).
