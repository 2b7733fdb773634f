//! The bench of operator catalogs: a made catalog of the size of the largest known one, read by `list` and `lock`.
//!
//! `cargo bench --bench catalog` makes 430 packages with 29,000 documents in 900 MB of JSON (`IMGBUILD_BENCH_MB` chooses
//! another size), in one gzip layer of an OCI layout on disk, and prints the time and the peak memory of `list operators`,
//! of `lock` with 25 packages, of a second `lock`, and of one after three packages changed, beside `gunzip` of the layer. It
//! judges nothing: figures of a shared machine are read by people.

#![allow(
    clippy::cast_precision_loss,
    reason = "figures for people have three digits"
)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use imgbuild::demo::{Catalog, Form, Operator, Upstream, World};
use imgbuild::digest::{Digest, Hasher};
use imgbuild::registry::server::Options;
use serde_json::json;

/// Packages of the catalog.
const PACKAGES: usize = 430;
/// Documents of the catalog.
const DOCUMENTS: usize = 29_000;
/// Packages that are locked.
const WANTED: usize = 25;

/// Writes, counts and hashes.
struct Hashed<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Text that compresses about as the descriptions, the specifications and the icons of real bundles do.
fn words(seed: u64, size: usize) -> String {
    const WORDS: [&str; 24] = [
        "operator",
        "cluster",
        "namespace",
        "\\n",
        "manages",
        "the",
        "a",
        "workload",
        "storage",
        "of",
        "and",
        "metrics",
        "\\\"kind\\\":",
        "\\\"spec\\\":",
        "{",
        "}",
        "apiVersion",
        "annotation",
        "replicas",
        "resources",
        "limits",
        "upgrade",
        "certificate",
        "webhook",
    ];
    let mut text = String::with_capacity(size + 16);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while text.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let random = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        if random.is_multiple_of(37) {
            let _ = write!(text, "{random:016x}");
        } else {
            text.push_str(WORDS[usize::try_from(random >> 33).unwrap() % WORDS.len()]);
        }
        text.push(' ');
    }
    text
}

/// One package as a catalog file: every bundle has one image.
fn package(number: usize, bundles: usize, size: usize, image: &str, state: u64) -> String {
    let name = format!("made-operator-{number:03}");
    let bundle = |index: usize| format!("{name}.v1.{index}.0");
    let entries: Vec<_> = (0..bundles)
        .map(|index| match index {
            0 => json!({ "name": bundle(0) }),
            _ => json!({ "name": bundle(index), "replaces": bundle(index - 1) }),
        })
        .collect();
    let head = json!({ "schema": "olm.package", "name": name, "defaultChannel": "stable" });
    let channel =
        json!({ "schema": "olm.channel", "package": name, "name": "stable", "entries": entries });
    let mut text = format!("{head:#}\n{channel:#}\n");
    for index in 0..bundles {
        let seed = (number * 1000 + index) as u64 + state * 1_000_000;
        let _ = writeln!(
            text,
            "{{\n    \"schema\": \"olm.bundle\",\n    \"name\": \"{}\",\n    \"package\": \"{name}\",\n    \"image\": \"{image}\",\n    \"properties\": [\n        {{\n            \"type\": \"olm.package\",\n            \"value\": {{\n                \"packageName\": \"{name}\",\n                \"version\": \"1.{index}.0\"\n            }}\n        }},\n        {{\n            \"type\": \"olm.csv.metadata\",\n            \"value\": {{\n                \"displayName\": \"Made {number}\",\n                \"description\": \"{}\"\n            }}\n        }}\n    ],\n    \"relatedImages\": [\n        {{\n            \"name\": \"\",\n            \"image\": \"{image}\"\n        }}\n    ]\n}}",
            bundle(index),
            words(seed, size),
        );
    }
    text
}

struct Made {
    layer: PathBuf,
    content: u64,
    packed: u64,
}

/// Writes an OCI layout of one catalog image; packages below `changed` are in another state.
fn layout(folder: &Path, megabytes: usize, image: &str, changed: usize) -> Made {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let bundles = (DOCUMENTS - 2 * PACKAGES) / PACKAGES;
    let size = megabytes * 1_000_000 / (bundles * PACKAGES) - 700;
    let temporary = folder.join("layer");
    let file = Hashed {
        inner: BufWriter::new(File::create(&temporary).unwrap()),
        hasher: Hasher::default(),
        size: 0,
    };
    let gzip = flate2::write::GzEncoder::new(file, flate2::Compression::default());
    let mut tar = tar::Builder::new(gzip);
    let mut content = 0;
    for number in 0..PACKAGES {
        let state = u64::from(number < changed);
        let text = package(number, bundles, size, image, state);
        content += text.len() as u64;
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        let path = format!("configs/made-operator-{number:03}/catalog.json");
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let file = tar.into_inner().unwrap().finish().unwrap();
    let (packed, digest) = (file.size, file.hasher.finish());
    drop(file.inner);
    let layer = blobs.join(digest.hex());
    fs::rename(&temporary, &layer).unwrap();
    let keep = |text: String| {
        let digest = Digest::of(text.as_bytes());
        fs::write(blobs.join(digest.hex()), &text).unwrap();
        (digest, text.len())
    };
    let (config, config_size) = keep(
        json!({ "architecture": "amd64", "os": "linux", "config": { "Labels": { "operators.operatorframework.io.index.configs.v1": "/configs" } }, "rootfs": { "type": "layers", "diff_ids": [digest] } })
            .to_string(),
    );
    let (manifest, manifest_size) = keep(
        json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": packed }],
        })
        .to_string(),
    );
    let index = json!({ "schemaVersion": 2, "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": manifest_size }] });
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    Made {
        layer,
        content,
        packed,
    }
}

fn peak(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Runs a command to its end and prints what it took.
fn run(name: &str, command: &mut Command) -> f64 {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    let code = loop {
        most = most.max(peak(&child));
        if let Some(code) = child.try_wait().unwrap() {
            break code;
        }
        thread::sleep(Duration::from_millis(2));
    };
    assert!(code.success(), "{name} ended with {code}");
    let seconds = start.elapsed().as_secs_f64();
    println!("{name:<44} {seconds:>7.2} s  {:>6} MiB", most / 1024);
    seconds
}

fn main() {
    let megabytes: usize = std::env::var("IMGBUILD_BENCH_MB")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(900);
    let work = tempfile::tempdir().unwrap();
    let path = |name: &str| work.path().join(name);
    // The bundles all have one image, which is served here.
    let mut world = World::new(1);
    let small = Catalog {
        host: "",
        repository: "made/index",
        tag: "v1",
        form: Form::Oci,
        architectures: &["amd64"],
    };
    let image = world
        .catalog(&small, &[Operator::new("small", &["stable: 1.0.0"])])
        .unwrap();
    let upstream = Upstream::start(world, Options::default()).unwrap();
    let name = format!("{}/made/index@{}", upstream.host(), image.digest);
    let made = layout(&path("catalog"), megabytes, &name, 0);
    println!(
        "{PACKAGES} packages, {DOCUMENTS} documents, {} MB in a layer of {} MB\n",
        made.content / 1_000_000,
        made.packed / 1_000_000
    );
    let mut config = String::from(
        "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  operators:\n  - catalog: oci:catalog\n    packages:\n",
    );
    for number in 0..WANTED {
        let _ = writeln!(config, "    - name: made-operator-{:03}", number * 7);
    }
    fs::write(path("imageset.yaml"), config).unwrap();
    fs::write(
        path("registries.conf"),
        format!(
            "[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
            upstream.host()
        ),
    )
    .unwrap();
    fs::write(path("auth.json"), "{}").unwrap();
    let imgbuild = |line: &str, store: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgbuild"));
        command
            .args(line.split_whitespace())
            .arg("-q")
            .current_dir(work.path())
            .env("IMGBUILD_STORE", work.path().join(store))
            .env("REGISTRY_AUTH_FILE", path("auth.json"))
            .env("CONTAINERS_REGISTRIES_CONF", path("registries.conf"));
        command
    };
    // Once unmeasured: the page cache is the same for all that follow.
    fs::read(&made.layer).unwrap();
    let floor = run(
        "gunzip of the layer",
        Command::new("gzip").arg("-dc").arg(&made.layer),
    );
    let start = Instant::now();
    let layer = io::BufReader::new(File::open(&made.layer).unwrap());
    io::copy(&mut flate2::bufread::GzDecoder::new(layer), &mut io::sink()).unwrap();
    let own = start.elapsed().as_secs_f64();
    println!(
        "{:<44} {own:>7.2} s",
        "the same with the library that is used"
    );
    run(
        "list operators (every package decoded)",
        &mut imgbuild("list operators --catalog oci:catalog", "store-a"),
    );
    let lock = run(
        &format!("lock with {WANTED} packages"),
        &mut imgbuild("lock", "store-b"),
    );
    println!(
        "{:<44} {:>7.2} of gunzip, {:.2} of the library's",
        "",
        lock / floor,
        lock / own
    );
    run(
        "the same again, everything asked anew",
        &mut imgbuild("lock --update", "store-b"),
    );
    fs::remove_dir_all(path("catalog")).unwrap();
    // Numbers 0, 7 and 14 are wanted and in another state now.
    layout(&path("catalog"), megabytes, &name, 15);
    run(
        "lock --update after three of them changed",
        &mut imgbuild("lock --update", "store-b"),
    );
}
