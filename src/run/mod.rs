//! Running a plan: resolving what is unanswered, realising what is not here, and telling how it goes.

pub mod event;
pub mod realise;
pub mod resolve;
pub mod upstream;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
