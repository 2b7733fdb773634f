//! The command line: the only place that prints, reads the environment or knows the clock.

mod arguments;
mod charts;
mod delivery;
mod demo;
mod destination;
mod emission;
mod extract;
mod inspect;
mod list;
mod locking;
mod operators;
mod review;
mod serving;
mod site;
mod tools;
mod trust;
mod ui;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

use crate::registry::settings::Environment;
use arguments::{Arguments, Command};
use site::Site;
use ui::Failure;

/// Runs the command that the process was started with; answers its exit code.
#[must_use]
pub fn main() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() {
                ui::USAGE
            } else {
                ui::DONE
            };
            // Nothing can be done where even this cannot be printed.
            drop(error.print());
            return code;
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    // The first interrupt stops where work can go on later; the second stops now.
    let handler = ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(ui::INCOMPLETE));
        }
        ui::remark("stopping; interrupt again to stop now");
    });
    if let Err(error) = handler {
        ui::remark(format!("warning: interrupts stop at once: {error}"));
    }
    match run(arguments, &stop) {
        Ok(code) => code,
        Err(failure) => {
            ui::remark(&failure.text);
            failure.code
        }
    }
}

fn run(arguments: Arguments, stop: &AtomicBool) -> Result<u8, Failure> {
    let environment = Environment {
        // A variable that is no text cannot be one of those that matter here.
        variables: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        home: std::env::home_dir(),
        uid: uid(),
        root: PathBuf::new(),
    };
    match &arguments.command {
        Command::Version(version) => return Ok(tools::version(version)),
        Command::Completion(completion) => return Ok(tools::completion(completion)),
        // It has settings of its own.
        Command::Demo(demo) => return demo::run(&arguments.common, demo, stop),
        Command::Key(arguments) => return trust::key(arguments),
        // Git calls these in the middle of a merge, when imgbuild.toml may be in conflict itself.
        Command::Textconv(arguments) => return review::textconv(arguments),
        Command::MergeDriver(arguments) => return review::merge_driver(arguments),
        _ => {}
    }
    let site = Site::new(arguments.common, environment)?;
    match &arguments.command {
        Command::Init(arguments) => tools::init(&site, arguments),
        Command::Lock(arguments) => locking::lock(&site, arguments, stop),
        Command::Plan(arguments) => locking::plan(&site, arguments, stop),
        Command::Diff(arguments) => review::diff(&site, arguments),
        Command::Why(arguments) => review::why(&site, arguments),
        Command::Audit(arguments) => review::audit(&site, arguments, stop),
        Command::Build(arguments) => locking::build(&site, arguments, stop),
        Command::Export(arguments) => delivery::export(&site, arguments, stop),
        Command::Seal(arguments) => trust::seal(&site, arguments, stop),
        Command::Verify(arguments) => match &arguments.registry {
            Some(registry) => destination::prove(&site, arguments, registry, stop),
            None => delivery::verify(&site, arguments, stop),
        },
        Command::Import(arguments) => delivery::import(&site, arguments, stop),
        Command::Show(arguments) => inspect::show(&site, arguments),
        Command::Takeover(arguments) => inspect::takeover(&site, arguments, stop),
        Command::Dossier(arguments) => inspect::dossier(&site, arguments),
        Command::Push(arguments) => {
            destination::deliver(&site, arguments, destination::Way::Store, stop)
        }
        Command::Mirror(arguments) => {
            destination::deliver(&site, arguments, destination::Way::Straight, stop)
        }
        Command::Delete(arguments) => destination::delete(&site, arguments, stop),
        Command::Emit(arguments) => emission::emit(&site, arguments),
        Command::Serve(arguments) => serving::serve(&site, arguments, stop),
        Command::Store(arguments) => tools::store(&site, arguments),
        Command::List(arguments) => list::list(&site, arguments, stop),
        Command::Extract(arguments) => extract::extract(&site, arguments, stop),
        Command::Rules(arguments) => tools::rules(&site, arguments),
        Command::Version(_)
        | Command::Completion(_)
        | Command::Demo(_)
        | Command::Key(_)
        | Command::Textconv(_)
        | Command::MergeDriver(_) => Ok(ui::DONE),
    }
}

/// The numeric user, where the system says.
fn uid() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self")
        .ok()
        .map(|found| found.uid())
}
