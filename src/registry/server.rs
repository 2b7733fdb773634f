//! The server (to be filled in).
