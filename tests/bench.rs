//! The bench: one whole run on a generated world, each step beside its floor.
//!
//! `cargo bench` prints, for about 1 GB in 200 images (`IMGBUILD_BENCH_MB` and `IMGBUILD_BENCH_IMAGES` choose others):
//! lock, build, export, verify and import with wall time, peak memory and the requests that the source registry logged,
//! beside `skopeo copy --all` image by image, `cp` and `sha256sum`. It judges nothing: figures of a shared machine are
//! read by people. It needs Debian's `docker-registry` and `skopeo`.

#![allow(
    clippy::cast_precision_loss,
    reason = "figures for people have three digits"
)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use imgbuild::demo::{Spec, World};

/// One finished command.
struct Run {
    seconds: f64,
    peak_kib: u64,
}

/// Runs a command to its end, watching its largest memory.
fn run(command: &mut Command) -> Run {
    let start = Instant::now();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    loop {
        if let Ok(text) = fs::read_to_string(&status) {
            let high = text
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:"))
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            peak_kib = peak_kib.max(high.unwrap_or(0));
        }
        match child.try_wait().expect("the child can be waited for") {
            Some(code) if code.success() => break,
            Some(code) => {
                let mut text = String::new();
                if let Some(mut stderr) = child.stderr.take() {
                    drop(std::io::Read::read_to_string(&mut stderr, &mut text));
                }
                panic!("{command:?} ended with {code}: {text}");
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    }
    Run {
        seconds: start.elapsed().as_secs_f64(),
        peak_kib,
    }
}

/// Debian's registry, on a free port, over a folder.
struct Registry {
    child: Child,
    host: String,
    log: PathBuf,
}

impl Registry {
    fn start(work: &Path, name: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let host = format!("127.0.0.1:{port}");
        let root = work.join(name);
        fs::create_dir_all(&root).unwrap();
        let config = work.join(format!("{name}.yml"));
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: false}}}}\nstorage: {{filesystem: {{rootdirectory: {}, maxthreads: 100}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"{host}\"}}\n",
                root.display()
            ),
        )
        .unwrap();
        let log = work.join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        for _ in 0..100 {
            if std::net::TcpStream::connect(&host).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        Self { child, host, log }
    }

    /// The access log since `from` (in bytes): manifest GETs, blob GETs, everything.
    fn requests(&self, from: usize) -> (usize, usize, usize) {
        let text = fs::read(&self.log).unwrap();
        let text = String::from_utf8_lossy(&text[from.min(text.len())..]).into_owned();
        let all: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("HTTP/1.1\"") || line.contains("HTTP/2.0\""))
            .collect();
        let count = |mark: &str| {
            all.iter()
                .filter(|line| line.contains("\"GET ") && line.contains(mark))
                .count()
        };
        (count("/manifests/"), count("/blobs/"), all.len())
    }

    fn logged(&self) -> usize {
        fs::metadata(&self.log).map_or(0, |found| {
            usize::try_from(found.len()).unwrap_or(usize::MAX)
        })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn row(what: &str, run: &Run, beside: &str) {
    println!(
        "| {what:<34} | {:>8.2} | {:>9.1} | {beside:<46} |",
        run.seconds,
        run.peak_kib as f64 / 1024.0
    );
}

fn main() {
    // `cargo test --benches` asks for nothing to be measured.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    if !has("docker-registry") || !has("skopeo") {
        println!("the bench needs docker-registry and skopeo");
        return;
    }
    let megabytes = number("IMGBUILD_BENCH_MB", 1000);
    let images = usize::try_from(number("IMGBUILD_BENCH_IMAGES", 200)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path();
    let spec = Spec {
        images,
        bases: 12,
        base_layers: 3,
        layers: 1..=4,
        layer_size: 20_000..=2_000_000,
        total: Some(megabytes * 1_000_000),
        ..Spec::default()
    };
    let world = World::generate(7, &spec);
    world.write_registry(&work.join("up")).unwrap();
    let blobs = world.blobs();
    let bytes: u64 = blobs.iter().map(|blob| blob.size).sum();
    let up = Registry::start(work, "up");
    let down = Registry::start(work, "down");
    let floor = Registry::start(work, "floor");
    fs::write(work.join("imageset.yaml"), world.imageset(&up.host)).unwrap();
    println!(
        "{images} images, {} blobs, {:.1} MB; wall seconds, peak memory in MiB\n",
        blobs.len(),
        bytes as f64 / 1e6
    );
    println!(
        "| {:<34} | {:>8} | {:>9} | {:<46} |",
        "step", "s", "MiB", ""
    );
    println!("|{:-<36}|{:->9}:|{:->10}:|{:-<48}|", "", "", "", "");

    let at = |store: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgbuild"));
        command
            .current_dir(work)
            .env("HOME", work)
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_CONFIG_HOME");
        command.arg("--quiet");
        for registry in [&up, &down] {
            command.args(["--insecure", &registry.host]);
        }
        command.args(["--store", store]).args(arguments);
        command
    };
    let imgbuild = |arguments: &[&str]| at("store", arguments);
    let from = up.logged();
    let lock = run(&mut imgbuild(&["lock"]));
    let asked = up.requests(from);
    row(
        "lock",
        &lock,
        &format!(
            "{} manifest GETs, {} blob GETs, {} in all",
            asked.0, asked.1, asked.2
        ),
    );
    let from = up.logged();
    let build = run(&mut imgbuild(&["build"]));
    let asked = up.requests(from);
    row(
        "build",
        &build,
        &format!(
            "{} manifest GETs, {} blob GETs, {} in all",
            asked.0, asked.1, asked.2
        ),
    );
    let from = up.logged();
    let again = run(&mut imgbuild(&["build"]));
    row(
        "build again",
        &again,
        &format!("{} requests", up.requests(from).2),
    );
    let export = run(&mut imgbuild(&["export", "-o", "out"]));
    row("export", &export, "");
    let verify = run(&mut imgbuild(&["verify", "out"]));
    row("verify", &verify, "");
    let target = format!("docker://{}/mirror", down.host);
    let from = down.logged();
    let import = run(&mut at("far", &["import", "out", "--to", &target]));
    let far_bytes: u64 = walk(&work.join("far"));
    row(
        "import",
        &import,
        &format!(
            "{} requests, {:.1} MB of disk besides",
            down.requests(from).2,
            far_bytes as f64 / 1e6
        ),
    );
    let from = down.logged();
    let reimport = run(&mut at("far", &["import", "out", "--to", &target]));
    row(
        "import again",
        &reimport,
        &format!("{} requests", down.requests(from).2),
    );

    // The floors.
    let parts: Vec<PathBuf> = fs::read_dir(work.join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
        .collect();
    let copy = run(Command::new("cp").args(&parts).arg(work.join("copy.tar")));
    row(
        "cp of the archive",
        &copy,
        &format!("export is {:.2} times this", export.seconds / copy.seconds),
    );
    let synced = run(Command::new("sh")
        .arg("-c")
        .arg("cp \"$1\" \"$2\" && sync \"$2\"")
        .arg("sh")
        .args(&parts)
        .arg(work.join("synced.tar")));
    row(
        "cp and sync of the archive",
        &synced,
        &format!(
            "export is {:.2} times this",
            export.seconds / synced.seconds
        ),
    );
    let sums = run(Command::new("sha256sum").args(&parts));
    row(
        "sha256sum of the archive",
        &sums,
        &format!("verify is {:.2} times this", verify.seconds / sums.seconds),
    );
    let mut seen = BTreeSet::new();
    let (mut pull, mut push) = (
        Run {
            seconds: 0.0,
            peak_kib: 0,
        },
        Run {
            seconds: 0.0,
            peak_kib: 0,
        },
    );
    let from = up.logged();
    for image in world.images() {
        let name = format!("{}:{}", image.repository, image.tag);
        if !seen.insert(name.clone()) {
            continue;
        }
        let skopeo = || {
            let mut command = Command::new("skopeo");
            command.args([
                "--insecure-policy",
                "copy",
                "--all",
                "-q",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
            ]);
            command
        };
        let layout = format!(
            "oci:{}:{}",
            work.join("layout").display(),
            name.replace(['/', ':'], "-")
        );
        let step = run(skopeo()
            .arg(format!("docker://{}/{name}", up.host))
            .arg(&layout));
        pull.seconds += step.seconds;
        pull.peak_kib = pull.peak_kib.max(step.peak_kib);
        let step = run(skopeo()
            .arg(&layout)
            .arg(format!("docker://{}/mirror/{name}", floor.host)));
        push.seconds += step.seconds;
        push.peak_kib = push.peak_kib.max(step.peak_kib);
    }
    row(
        "skopeo copy --all to a layout, each",
        &pull,
        &format!(
            "build is {:.1} times as fast, {} requests",
            pull.seconds / build.seconds,
            up.requests(from).2
        ),
    );
    row(
        "skopeo copy --all to a registry, each",
        &push,
        &format!(
            "import is {:.1} times as fast",
            push.seconds / import.seconds
        ),
    );
}

/// The bytes of all files below a folder.
fn walk(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                walk(&path)
            } else {
                entry.metadata().map_or(0, |found| found.len())
            }
        })
        .sum()
}
