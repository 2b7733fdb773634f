//! Archives across an air gap, told with the program itself: a registry upstream, sites that have only what was
//! carried to them, and everything that can go wrong on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use imgbuild::digest::Digest;
use imgbuild::oci::{Descriptor, OCI_MANIFEST};
use imgbuild::registry::server::{Kind, Options, Repositories, Server};
use imgbuild::store::memory::Memory;

/// A registry in memory.
struct Registry {
    memory: Arc<Memory>,
    server: Server,
}

impl Registry {
    fn start() -> Self {
        let memory = Arc::new(Memory::default());
        let options = Options {
            record: true,
            ..Options::default()
        };
        let server = Server::start(options, memory.clone(), Repositories::in_memory()).unwrap();
        Self { memory, server }
    }

    fn host(&self) -> String {
        self.server.address().to_string()
    }

    /// Puts an image of these layers there.
    fn image(&self, repository: &str, tag: &str, layers: &[Vec<u8>]) -> Digest {
        let descriptor = |bytes: &[u8], kind: &str| {
            let blob = self.memory.insert(bytes);
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{}","size":{}}}"#,
                blob.digest, blob.size
            )
        };
        let config =
            format!(r#"{{"architecture":"amd64","os":"linux","name":"{repository}:{tag}"}}"#);
        let config = descriptor(config.as_bytes(), "config.v1+json");
        let layers: Vec<String> = layers
            .iter()
            .map(|layer| descriptor(layer, "layer.v1.tar"))
            .collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[{}]}}"#,
            layers.join(",")
        );
        let blob = self.memory.insert(manifest.as_bytes());
        let root = Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest: blob.digest,
            size: blob.size,
            platform: None,
            artifact_type: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        };
        self.server
            .repositories()
            .link_image(
                &*self.memory,
                repository,
                &root,
                Some(&tag.parse().unwrap()),
            )
            .unwrap();
        blob.digest
    }

    /// Every tag of every repository but the site's own records, with the digest of what it names.
    fn tags(&self) -> BTreeMap<String, Digest> {
        let mut tags = BTreeMap::new();
        let repositories = self.server.repositories();
        for repository in repositories.names(None) {
            if repository.ends_with("imgbuild/head") {
                continue;
            }
            for tag in repositories.tags(&repository, None).unwrap_or_default() {
                let url = format!("/v2/{repository}/manifests/{tag}");
                tags.insert(format!("{repository}:{tag}"), self.head(&url));
            }
        }
        tags
    }

    fn head(&self, path: &str) -> Digest {
        let answer = request(&self.host(), "HEAD", path);
        let line = answer
            .lines()
            .find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("docker-content-digest: ")
                    .map(str::to_owned)
            })
            .unwrap_or_else(|| panic!("{path} is not served: {answer}"));
        line.trim().parse().unwrap()
    }

    /// How many blobs were uploaded so far.
    fn uploads(&self) -> u64 {
        self.server
            .counts()
            .iter()
            .filter(|((method, kind, status), _)| {
                method == "PUT" && *kind == Kind::Upload && *status == 201
            })
            .map(|(_, count)| count)
            .sum()
    }
}

/// One request over a connection of its own.
fn request(host: &str, method: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let accept = imgbuild::oci::MANIFEST_TYPES.join(", ");
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Bytes that do not repeat, the same ones for the same name.
fn noise(name: u64, size: usize) -> Vec<u8> {
    let mut state = name.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A working directory with a store of its own.
struct Place {
    folder: tempfile::TempDir,
    insecure: Vec<String>,
}

impl Place {
    fn new(registries: &[&Registry]) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            insecure: registries.iter().map(|registry| registry.host()).collect(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgbuild"));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .args(["--store", "store"]);
        for host in &self.insecure {
            command.args(["--insecure", host]);
        }
        command.args(arguments).output().unwrap()
    }

    /// Runs a command that must end with `code`; what it said.
    fn expect(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(
            output.status.code(),
            Some(code),
            "imgbuild {}\n{text}",
            arguments.join(" ")
        );
        text
    }

    /// Asks for these images of a registry, and locks them.
    fn want(&self, upstream: &Registry, images: &[&str]) {
        let names: String = images
            .iter()
            .map(|image| format!("    - name: {}/{image}\n", upstream.host()))
            .collect();
        fs::write(
            self.path("prod.yaml"),
            format!(
                "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  additionalImages:\n{names}"
            ),
        )
        .unwrap();
        self.expect(0, &["lock", "-c", "prod.yaml", "--update"]);
    }
}

/// The files of an archive in a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_flipped_bit_anywhere_changes_nothing_that_is_visible() {
    let (upstream, site) = (Registry::start(), Registry::start());
    let near = Place::new(&[&upstream]);
    let base = noise(1, 30_000);
    upstream.image("team/one", "v1", &[base.clone(), noise(2, 9_000)]);
    upstream.image("team/two", "v1", &[base.clone(), noise(3, 700)]);
    near.want(&upstream, &["team/one:v1", "team/two:v1"]);
    near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "disk",
            "--part-size",
            "24000",
        ],
    );
    upstream.image("team/two", "v1", &[base, noise(4, 800)]);
    near.want(&upstream, &["team/one:v1", "team/two:v1"]);
    near.expect(0, &["export", "-c", "prod.yaml", "-o", "next"]);

    let far = Place::new(&[&site]);
    let to = format!("docker://{}/mirror", site.host());
    let disk = near.path("disk");
    let import =
        |code, folder: &Path| far.expect(code, &["import", folder.to_str().unwrap(), "--to", &to]);
    import(0, &disk);
    let before = site.tags();
    assert_eq!(before.len(), 2, "both images are there: {before:?}");
    let heads = |site: &Registry| {
        site.server
            .repositories()
            .tags("mirror/imgbuild/head", None)
    };
    let head = heads(&site);

    let next = near.path("next");
    assert_eq!(files(&next).len(), 2, "one part and its checksum");
    for name in files(&next) {
        let path = next.join(name);
        let good = fs::read(&path).unwrap();
        let step = (good.len() / 12).max(1);
        for at in (0..good.len()).step_by(step) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, bad).unwrap();
            let said = import(4, &next);
            assert!(said.contains("prod_seq000002"), "the file is named: {said}");
            assert_eq!(site.tags(), before, "byte {at} of {}", path.display());
            assert_eq!(heads(&site), head, "no head has moved");
        }
        fs::write(&path, good).unwrap();
    }
    let uploads = site.uploads();
    import(0, &next);
    assert_ne!(site.tags(), before, "the good archive is adopted");
    assert!(
        site.uploads() - uploads <= 3,
        "what had been sent is not sent again: {} uploads",
        site.uploads() - uploads
    );
}

#[test]
fn a_cut_blob_is_joined_on_its_way_to_a_registry_a_layout_and_a_store() {
    let (upstream, site) = (Registry::start(), Registry::start());
    let near = Place::new(&[&upstream]);
    upstream.image("team/one", "v1", &[noise(1, 100_000), noise(2, 3_000)]);
    near.want(&upstream, &["team/one:v1"]);
    near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "disk",
            "--part-size",
            "30000",
        ],
    );
    let disk = near.path("disk");
    let disk = disk.to_str().unwrap();
    let far = Place::new(&[&site]);
    far.expect(0, &["import", disk]);
    far.expect(0, &["import", disk, "--to", "oci:layout"]);
    far.expect(
        0,
        &["import", disk, "--to", &format!("docker://{}", site.host())],
    );
    for blob in [noise(1, 100_000), noise(2, 3_000)] {
        let digest = Digest::of(&blob);
        for place in ["store", "layout"] {
            let path = far.path(place).join("blobs/sha256").join(digest.hex());
            assert!(
                fs::read(path).unwrap() == blob,
                "{place} has the joined blob"
            );
        }
        let answer = request(
            &site.host(),
            "HEAD",
            &format!("/v2/team/one/blobs/{digest}"),
        );
        assert!(
            answer.starts_with("HTTP/1.1 200"),
            "the registry has it: {answer}"
        );
    }
    assert_eq!(
        site.uploads(),
        4,
        "two layers, a config and the head, once each"
    );
}
