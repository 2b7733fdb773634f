//! Running a plan: resolving what is unanswered, realising what is not here, and telling how it goes.

pub mod built;
pub mod event;
pub mod extract;
pub mod member;
pub mod pack;
pub mod realise;
pub mod resolve;
pub mod upstream;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Runs `work` for every index below `count` on at most `workers` threads; hands out no more once told to stop.
pub(crate) fn each(count: usize, workers: usize, stop: &AtomicBool, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, count.max(1)) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    work(index);
                }
            });
        }
    });
}

/// The same with results, in the order of the indices; `None` if it was told to stop.
pub(crate) fn gather<T: Send>(
    count: usize,
    workers: usize,
    stop: &AtomicBool,
    work: impl Fn(usize) -> T + Sync,
) -> Option<Vec<T>> {
    let results: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::new(None)).collect();
    each(count, workers, stop, |index| {
        let result = work(index);
        *results[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(result);
    });
    results
        .into_iter()
        .map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect()
}
