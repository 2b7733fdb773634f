//! What people see: errors, progress, tables. The only place that prints.
//!
//! An error is rendered once: an `error:` line, its causes as `  because …`, an empty line, and `hint: …`.
//! Progress is one line on a terminal and silence elsewhere; `--events FILE` has everything as JSON lines.

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::digest::Digest;
use crate::run::event::Event;

/// Done.
pub(super) const DONE: u8 = 0;
/// An error.
pub(super) const ERROR: u8 = 1;
/// The command line was wrong.
pub(super) const USAGE: u8 = 2;
/// The lock is stale, or names have drifted.
pub(super) const STALE: u8 = 3;
/// Verification failed.
pub(super) const UNVERIFIED: u8 = 4;
/// Something did not arrive.
pub(super) const INCOMPLETE: u8 = 5;

/// Why a command ended without success.
pub(super) struct Failure {
    /// The exit code.
    pub(super) code: u8,
    /// What to print, already rendered.
    pub(super) text: String,
}

impl Failure {
    /// A failure with a sentence of its own.
    pub(super) fn new(code: u8, text: impl Into<String>) -> Self {
        Self {
            code,
            text: format!("error: {}", text.into()),
        }
    }

    /// The same with advice.
    pub(super) fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.text.push_str("\n\nhint: ");
        self.text.push_str(hint.as_ref());
        self
    }

    /// A failure from an error and its causes.
    pub(super) fn of(code: u8, error: &(dyn Error + 'static), hint: Option<String>) -> Self {
        let mut text = format!("error: {error}");
        let mut said = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let sentence = cause.to_string();
            if !said.ends_with(&sentence) {
                text.push_str("\n  because ");
                text.push_str(&sentence.replace('\n', "\n  "));
            }
            said = sentence;
            source = cause.source();
        }
        let failure = Self { code, text };
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Bytes for people.
pub(super) use crate::plan::diff::bytes;

/// A noun with its number.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

/// Prints a line on standard output; a reader that went away is no error.
pub(super) fn say(line: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    // `imgbuild … | head` closes the pipe early, and that is the reader's right.
    drop(writeln!(out, "{}", line.as_ref()));
}

/// Prints a remark on standard error.
pub(super) fn remark(line: impl AsRef<str>) {
    drop(writeln!(io::stderr().lock(), "{}", line.as_ref()));
}

/// Shows how long work goes.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    events: Option<Mutex<File>>,
    state: Mutex<State>,
    verbose: bool,
}

#[derive(Default)]
struct State {
    blobs: u64,
    done: u64,
    total: u64,
    passed: u64,
    open: HashMap<Digest, u64>,
}

impl Progress {
    /// A line on the terminal, unless `quiet`; and the events in a file, if one is given.
    pub(super) fn new(quiet: bool, verbose: bool, events: Option<&Path>) -> Result<Self, Failure> {
        let bar = (!quiet && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template("{prefix:>8} {bar:24} {decimal_bytes:>10} of {decimal_total_bytes:10} {decimal_bytes_per_sec:>12}  {msg}  {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let events = events
            .map(|path| {
                File::options()
                    .create(true)
                    .append(true)
                    .open(path)
                    .map(Mutex::new)
                    .map_err(|error| {
                        Failure::of(ERROR, &error, None).hint(format!(
                            "--events {} must be a file that can be written",
                            path.display()
                        ))
                    })
            })
            .transpose()?;
        Ok(Self {
            bar,
            events,
            state: Mutex::default(),
            verbose,
        })
    }

    /// Takes an event.
    pub(super) fn observe(&self, event: Event) {
        if let Some(file) = &self.events
            && let Ok(mut line) = serde_json::to_string(&event)
        {
            line.push('\n');
            drop(
                file.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .write_all(line.as_bytes()),
            );
        }

        if self.verbose {
            match &event {
                Event::Image { image } => self.line(&format!("  {image}")),
                Event::Failed { digest, cause } => self.line(&format!("  {digest}: {cause}")),
                _ => {}
            }
        }
        let Some(bar) = &self.bar else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Phase { phase } => {
                *state = State::default();
                bar.reset();
                bar.set_prefix(phase);
            }
            Event::Planned { blobs, bytes } => {
                state.blobs += blobs;
                state.total += bytes;
                bar.set_length(state.total);
            }
            Event::Bytes { digest, bytes } => {
                *state.open.entry(digest).or_default() += bytes;
                state.passed += bytes;
                bar.set_position(state.passed.min(state.total));
            }
            Event::Done { digest, size, .. } => {
                let seen = state.open.remove(&digest).unwrap_or(0);
                state.passed = state.passed.saturating_sub(seen) + size;
                state.done += 1;
                bar.set_position(state.passed.min(state.total));
                bar.set_message(format!("{} of {} blobs", state.done, state.blobs));
            }
            Event::Failed { .. } => state.done += 1,
            Event::Image { image } => bar.set_message(image),
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| remark(text)),
            None => remark(text),
        }
    }

    /// Takes the line away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
