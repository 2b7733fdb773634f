//! Debian's docker-registry, started for one test, with its storage in a folder of its own.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use imgbuild::digest::Digest;

use super::content::Content;
use super::wire;

/// A stock registry; it ends with the value.
pub(crate) struct Stock {
    child: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Stock {
    /// Starts one, empty or with everything of `content`; `None`, with a remark, where it is not installed.
    pub(crate) fn start(content: Option<&Content>) -> Option<Self> {
        let folder = super::folder("stock");
        if let Some(content) = content {
            seed(&folder.path().join("data/docker/registry/v2"), content);
        }
        // Another process may take the port in between; then another is tried.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let address = format!("127.0.0.1:{port}");
            let conf = folder.path().join("config.yml");
            fs::write(
                &conf,
                format!(
                    "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n    maxthreads: 100\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
                    folder.path().join("data").display()
                ),
            )
            .unwrap();
            let log = fs::File::create(folder.path().join("log")).unwrap();
            let child = Command::new("docker-registry")
                .arg("serve")
                .arg(&conf)
                .env_clear()
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn();
            let mut child = match child {
                Ok(child) => child,
                Err(error) => {
                    eprintln!("skipped: docker-registry is not usable here: {error}");
                    return None;
                }
            };
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(30) {
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                if wire::ask("GET", &address, "/v2/").is_ok_and(|answer| answer.status == 200) {
                    return Some(Self {
                        child,
                        address,
                        folder,
                    });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            drop(child.kill());
            drop(child.wait());
        }
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        panic!("docker-registry does not start\n{log}");
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its storage, as the configuration names it: `docker/registry/v2` is below.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Every file of its storage that a client can see the effect of.
    pub(crate) fn links(&self) -> Vec<PathBuf> {
        super::tree(&self.folder.path().join("data"))
            .into_keys()
            .filter(|name| !name.contains("_uploads"))
            .map(PathBuf::from)
            .collect()
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn link(path: &Path, digest: &Digest) {
    put(&path.join("link"), digest.to_string().as_bytes());
}

/// Writes content as the registry's file system driver keeps it.
fn seed(root: &Path, content: &Content) {
    for (image, below) in content.all() {
        let repository = root.join("repositories").join(&image.repository);
        let manifests = below.manifests.iter().map(|(blob, _)| blob);
        for blob in manifests.clone().chain(&below.blobs) {
            let hex = blob.digest.hex();
            let data = root
                .join("blobs/sha256")
                .join(&hex[..2])
                .join(&hex)
                .join("data");
            if !data.exists() {
                put(&data, &content.bytes(blob).unwrap());
            }
        }
        for blob in &below.blobs {
            link(
                &repository.join("_layers/sha256").join(blob.digest.hex()),
                &blob.digest,
            );
        }
        for blob in manifests {
            let revision = repository
                .join("_manifests/revisions/sha256")
                .join(blob.digest.hex());
            link(&revision, &blob.digest);
        }
        let digest = image.descriptor.digest;
        let tag = repository.join("_manifests/tags").join(&image.tag);
        link(&tag.join("current"), &digest);
        link(&tag.join("index/sha256").join(digest.hex()), &digest);
    }
}
