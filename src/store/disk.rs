//! The store on disk (to be filled in).
