//! Running a plan: resolving what is unanswered, realising what is not here, and telling how it goes.

pub mod event;
pub mod realise;
