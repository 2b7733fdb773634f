//! The contract of each endpoint, over real connections.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};

use super::*;
use crate::digest::Digest;
use crate::oci::{DOCKER_MANIFEST, Descriptor, OCI_INDEX, OCI_MANIFEST};
use crate::store::memory::Memory;
use crate::store::{Blob, Source};

mod clients;
mod faults;

/// An answer as it came off the wire.
#[derive(Debug)]
struct Heard {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Heard {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of the first error.
    fn code(&self) -> String {
        self.json()["errors"][0]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Whether as many bytes came as were announced.
    fn is_whole(&self) -> bool {
        self.header("content-length") == self.body.len().to_string()
    }

    fn read(mut stream: impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let result = stream.read_to_end(&mut bytes);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            result?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Ok(Self {
            status: status.parse().unwrap(),
            headers,
            body: bytes.split_off(end + 4),
        })
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let has_length = headers
        .iter()
        .any(|(name, _)| ["Content-Length", "Transfer-Encoding"].contains(name));
    if !has_length && !matches!(method, "GET" | "HEAD") {
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend(body);
    bytes
}

fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Heard> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&request(method, path, headers, body))?;
    Heard::read(stream)
}

/// A registry in memory, and what a test asks of it.
struct Site {
    server: Server,
    store: Arc<Memory>,
}

impl Site {
    fn new(options: Options) -> Self {
        let store = Arc::new(Memory::default());
        let server = Server::start(
            Options {
                record: true,
                ..options
            },
            store.clone(),
            Repositories::in_memory(),
        )
        .unwrap();
        Self { server, store }
    }

    fn plain() -> Self {
        Self::new(Options::default())
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Heard {
        send(self.server.address(), method, path, headers, body).unwrap()
    }

    fn get(&self, path: &str) -> Heard {
        self.ask("GET", path, &[], b"")
    }

    fn head(&self, path: &str) -> Heard {
        self.ask("HEAD", path, &[], b"")
    }

    fn delete(&self, path: &str) -> Heard {
        self.ask("DELETE", path, &[], b"")
    }

    /// Pushes a blob in one request.
    fn push(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let heard = self.ask("POST", &path, &[], bytes);
        assert_eq!(heard.status, 201, "a blob can be pushed in one request");
        digest
    }

    fn put(&self, repository: &str, reference: &str, media_type: &str, body: &[u8]) -> Heard {
        self.ask(
            "PUT",
            &format!("/v2/{repository}/manifests/{reference}"),
            &[("Content-Type", media_type)],
            body,
        )
    }

    /// Pushes an image of one layer; returns its manifest.
    fn image(&self, repository: &str, tag: &str, layer: &[u8]) -> Vec<u8> {
        self.push(repository, b"{}");
        self.push(repository, layer);
        let manifest = image(layer);
        let heard = self.put(repository, tag, OCI_MANIFEST, &manifest);
        assert_eq!(heard.status, 201, "an image can be pushed");
        manifest
    }

    fn start(&self, repository: &str) -> String {
        let heard = self.ask(
            "POST",
            &format!("/v2/{repository}/blobs/uploads/"),
            &[],
            b"",
        );
        assert_eq!(heard.status, 202, "an upload can be started");
        heard.header("location").to_owned()
    }

    fn finish(&self, location: &str, digest: &Digest, body: &[u8]) -> Heard {
        self.ask("PUT", &format!("{location}&digest={digest}"), &[], body)
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len() })
}

fn image(layer: &[u8]) -> Vec<u8> {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })
    .to_string()
    .into_bytes()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn basic(user: &str, password: &str) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {text}")
}

#[test]
fn the_registry_says_that_it_is_there() {
    let site = Site::plain();
    let heard = site.get("/v2/");
    assert_eq!(
        (heard.status, heard.json()),
        (200, json!({})),
        "the API answers"
    );
    assert_eq!(
        heard.header("docker-distribution-api-version"),
        "registry/2.0",
        "older clients look for the version"
    );
    for (method, path, status) in [
        ("HEAD", "/v2/", 200),
        ("GET", "/v2", 200),
        ("GET", "/", 200),
        ("GET", "/healthz", 200),
        ("POST", "/healthz", 405),
        ("GET", "/v1/", 404),
        ("GET", "/token", 404),
        ("GET", "/v2/a/nothing", 404),
        ("POST", "/v2/", 405),
        ("PUT", "/v2/a/blobs/uploads/", 405),
        ("PATCH", "/v2/a/tags/list", 405),
        ("GET", "/v2/A/tags/list", 400),
        ("GET", "/v2/a//b/tags/list", 400),
        ("GET", "/v2/a/blobs/sha256:00", 400),
    ] {
        let heard = site.ask(method, path, &[], b"");
        assert_eq!(heard.status, status, "{method} {path}: the status is fixed");
        assert!(
            !heard.header("content-length").is_empty(),
            "{method} {path}: every answer says how long it is"
        );
        if status >= 400 && method != "HEAD" {
            let error = &heard.json()["errors"][0];
            assert!(
                error["code"].is_string() && error["message"].is_string(),
                "{method} {path}: errors are as the specification has them"
            );
        }
    }
    assert_eq!(
        site.ask("PATCH", "/v2/a/tags/list", &[], b"")
            .header("allow"),
        "GET",
        "a refused method learns which are allowed"
    );
    assert_eq!(
        site.server.address().ip(),
        std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
        "nobody outside is served unless asked"
    );
}

#[test]
fn a_blob_arrives_by_every_way_of_pushing() {
    let site = Site::plain();
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let digest = Digest::of(&bytes);
    let (left, right) = bytes.split_at(100_001);
    let check = |repository: &str, how: &str, heard: &Heard| {
        assert_eq!(heard.status, 201, "{how}: the blob is created");
        let path = format!("/v2/{repository}/blobs/{digest}");
        assert_eq!(heard.header("location"), path, "{how}: it is where it says");
        assert_eq!(
            heard.header("docker-content-digest"),
            digest.to_string(),
            "{how}: its name is confirmed"
        );
        let heard = site.get(&path);
        assert_eq!(heard.status, 200, "{how}: it can be pulled");
        assert!(heard.body == bytes, "{how}: pulling yields what was pushed");
        assert_eq!(
            heard.header("etag"),
            format!("\"{digest}\""),
            "{how}: it can be cached"
        );
        let heard = site.head(&path);
        assert_eq!(
            (
                heard.status,
                heard.header("content-length"),
                heard.body.len()
            ),
            (200, "300000", 0),
            "{how}: HEAD tells the size alone"
        );
    };
    let path = format!("/v2/once/blobs/uploads/?digest={digest}");
    check("once", "one POST", &site.ask("POST", &path, &[], &bytes));

    let location = site.start("put");
    check(
        "put",
        "POST and PUT",
        &site.finish(&location, &digest, &bytes),
    );

    let location = site.start("stream");
    let mut chunked = Vec::new();
    for piece in bytes.chunks(70_000) {
        chunked.extend(format!("{:x}\r\n", piece.len()).bytes());
        chunked.extend(piece);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    let heard = site.ask(
        "PATCH",
        &location,
        &[("Transfer-Encoding", "chunked")],
        &chunked,
    );
    assert_eq!(
        (heard.status, heard.header("range")),
        (202, "0-299999"),
        "a stream of unknown length is taken"
    );
    check(
        "stream",
        "POST, PATCH, PUT",
        &site.finish(heard.header("location"), &digest, b""),
    );

    let location = site.start("chunks");
    let heard = site.ask("PATCH", &location, &[("Content-Range", "0-100000")], left);
    assert_eq!(
        (heard.status, heard.header("range")),
        (202, "0-100000"),
        "a first chunk is taken"
    );
    let location = heard.header("location").to_owned();
    let heard = site.get(&location);
    assert_eq!(
        (heard.status, heard.header("range")),
        (204, "0-100000"),
        "an upload says how far it is"
    );
    check(
        "chunks",
        "a PATCH and a last chunk with PUT",
        &site.finish(&location, &digest, right),
    );
    assert_eq!(site.get(&location).status, 404, "a finished upload is gone");

    let location = site.start("unsized");
    let heard = site.ask(
        "PUT",
        &format!("{location}&digest={digest}"),
        &[("Transfer-Encoding", "chunked")],
        &chunked,
    );
    check("unsized", "PUT of unknown length", &heard);

    let empty = Digest::of(b"");
    let location = site.start("empty");
    assert_eq!(
        site.finish(&location, &empty, b"").status,
        201,
        "no bytes are a blob too"
    );
    assert_eq!(
        site.get(&format!("/v2/empty/blobs/{empty}")).body,
        b"",
        "no bytes are served as such"
    );
}

#[test]
fn uploads_spooled_to_disk_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let site = Site::new(Options {
        spool: Some(spool.clone()),
        ..Options::default()
    });
    let location = site.start("a");
    let heard = site.ask("PATCH", &location, &[], b"hello ");
    assert_eq!(heard.status, 202, "a chunk is taken");
    let heard = site.ask("PATCH", &location, &[("Content-Range", "6-10")], b"world");
    assert_eq!(heard.status, 202, "another chunk is taken");
    let wrong = site.ask("PATCH", &location, &[("Content-Range", "11-20")], b"!");
    assert_eq!(
        (wrong.status, wrong.code().as_str()),
        (400, "SIZE_INVALID"),
        "a chunk of another length is refused"
    );
    let digest = Digest::of(b"hello world");
    assert_eq!(
        site.finish(&location, &digest, b"").status,
        201,
        "what was spooled becomes a blob"
    );
    let left = site.start("a");
    site.ask("PATCH", &left, &[], b"never finished");
    site.server.stop();
    assert_eq!(
        std::fs::read_dir(&spool).unwrap().count(),
        0,
        "the spool is empty afterwards"
    );
}

#[test]
fn a_push_that_goes_wrong_stores_nothing() {
    let site = Site::plain();
    let digest = Digest::of(b"right");
    let absent = |how: &str| {
        assert_eq!(
            site.head(&format!("/v2/a/blobs/{digest}")).status,
            404,
            "{how}: nothing is there"
        );
        let blob = Blob::of(b"right");
        assert!(
            site.store.open(&blob, 0).unwrap().is_none(),
            "{how}: nothing is in the store"
        );
    };
    let refused = |how: &str, heard: &Heard| {
        assert_eq!(
            (heard.status, heard.code().as_str()),
            (400, "DIGEST_INVALID"),
            "{how}: wrong bytes are refused"
        );
        absent(how);
    };
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    refused("one POST", &site.ask("POST", &path, &[], b"wrong"));
    let location = site.start("a");
    refused("PUT", &site.finish(&location, &digest, b"wrong"));
    assert_eq!(
        site.get(&location).status,
        404,
        "an upload of wrong bytes is over"
    );
    let location = site.start("a");
    site.ask("PATCH", &location, &[], b"wr");
    refused("PATCH and PUT", &site.finish(&location, &digest, b"ong"));
    let location = site.start("a");
    let heard = site.ask("PUT", &location, &[], b"right");
    assert_eq!(
        (heard.status, heard.code().as_str()),
        (400, "DIGEST_INVALID"),
        "a digest must be named"
    );
    for name in ["sha512:00", "sha256:xyz", "right"] {
        let heard = site.ask("PUT", &format!("{location}&digest={name}"), &[], b"right");
        assert_eq!(
            (heard.status, heard.code().as_str()),
            (400, "DIGEST_INVALID"),
            "{name} is no digest"
        );
    }
    absent("after all");
    assert_eq!(
        site.finish(&location, &digest, b"right").status,
        201,
        "the upload could still be finished"
    );
}

#[test]
fn an_upload_goes_on_where_it_stopped() {
    let site = Site::plain();
    let location = site.start("a");
    let heard = site.ask("PATCH", &location, &[("Content-Range", "5-9")], b"world");
    assert_eq!(
        (heard.status, heard.header("range")),
        (416, "0-0"),
        "a chunk after a gap is refused"
    );
    assert!(
        heard
            .header("location")
            .starts_with(location.split('?').next().unwrap()),
        "and told where the upload is"
    );
    let heard = site.ask("PATCH", &location, &[("Content-Range", "nonsense")], b"x");
    assert_eq!(heard.status, 400, "a malformed range is refused");
    let heard = site.ask("PATCH", &location, &[("Content-Range", "0-5")], b"hello ");
    assert_eq!(heard.status, 202, "the first chunk is taken");
    let heard = site.ask("PATCH", &location, &[("Content-Range", "0-5")], b"hello ");
    assert_eq!(
        (heard.status, heard.header("range")),
        (416, "0-5"),
        "a chunk that came already is refused"
    );

    // A connection that breaks half way keeps what came.
    let mut stream = TcpStream::connect(site.server.address()).unwrap();
    let half = request("PATCH", &location, &[("Content-Length", "100")], b"wor");
    stream.write_all(&half).unwrap();
    drop(stream);
    let heard = loop {
        let heard = site.get(&location);
        if heard.header("range") != "0-5" {
            break heard;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(
        (heard.status, heard.header("range")),
        (204, "0-8"),
        "what came before the connection broke is kept"
    );
    let heard = site.ask("PATCH", &location, &[("Content-Range", "9-10")], b"ld");
    assert_eq!(heard.status, 202, "the rest is taken");
    assert_eq!(
        site.finish(&location, &Digest::of(b"hello world"), b"")
            .status,
        201,
        "all of it makes the blob"
    );

    // A connection that is silent does not keep the next from going on.
    let location = site.start("a");
    let mut silent = TcpStream::connect(site.server.address()).unwrap();
    let half = request(
        "PATCH",
        &location,
        &[("Content-Length", "100"), ("Expect", "100-continue")],
        b"",
    );
    silent.write_all(&half).unwrap();
    silent.read_exact(&mut [0; 25]).unwrap();
    assert_eq!(
        site.get(&location).header("range"),
        "0-0",
        "an upload says how far it is while it is written to"
    );
    let heard = site.ask("PATCH", &location, &[("Content-Range", "0-4")], b"hello");
    assert_eq!(heard.status, 202, "the next request takes over");
    assert_eq!(
        Heard::read(silent).unwrap().status,
        408,
        "the silent one is told that it is over"
    );
    assert_eq!(
        site.finish(&location, &Digest::of(b"hello"), b"").status,
        201,
        "the upload is not disturbed"
    );

    let location = site.start("a");
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(
        site.get(&elsewhere).status,
        404,
        "an upload belongs to its repository"
    );
    assert_eq!(
        site.delete(&location).status,
        204,
        "an upload can be given up"
    );
    for (method, code) in [("GET", 404), ("PATCH", 404), ("PUT", 404), ("DELETE", 404)] {
        let heard = site.ask(method, &location, &[], b"");
        assert_eq!(
            (heard.status, heard.code().as_str()),
            (code, "BLOB_UPLOAD_UNKNOWN"),
            "{method}: an upload that was given up is gone"
        );
    }
}

#[test]
fn many_clients_may_push_the_same_at_once() {
    let spool = tempfile::tempdir().unwrap();
    let site = Site::new(Options {
        spool: Some(spool.path().to_owned()),
        ..Options::default()
    });
    let blobs: Vec<Vec<u8>> = (0..6_u8).map(|number| vec![number; 200_000]).collect();
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (site, blobs) = (&site, &blobs);
            scope.spawn(move || {
                for bytes in blobs {
                    let digest = Digest::of(bytes);
                    let location = site.start("a");
                    let heard = if client % 2 == 0 {
                        site.finish(&location, &digest, bytes)
                    } else {
                        site.ask("PATCH", &location, &[], bytes);
                        site.finish(&location, &digest, b"")
                    };
                    assert_eq!(heard.status, 201, "every push succeeds");
                    let heard = site.get(&format!("/v2/a/blobs/{digest}"));
                    assert!(heard.body == *bytes, "every pull yields the bytes");
                }
            });
        }
    });
}

#[test]
fn a_part_of_a_blob_can_be_had() {
    let site = Site::plain();
    let digest = site.push("a", b"0123456789");
    let path = format!("/v2/a/blobs/{digest}");
    let etag = format!("\"{digest}\"");
    for (headers, status, range, body) in [
        (vec![("Range", "bytes=2-4")], 206, "bytes 2-4/10", "234"),
        (vec![("Range", "bytes=7-")], 206, "bytes 7-9/10", "789"),
        (vec![("Range", "bytes=-2")], 206, "bytes 8-9/10", "89"),
        (
            vec![("Range", "bytes=0-99")],
            206,
            "bytes 0-9/10",
            "0123456789",
        ),
        (vec![("Range", "bytes=1-2,4-5")], 200, "", "0123456789"),
        (vec![("Range", "lines=1-2")], 200, "", "0123456789"),
        (
            vec![("Range", "bytes=2-4"), ("If-Range", &etag)],
            206,
            "bytes 2-4/10",
            "234",
        ),
        (
            vec![("Range", "bytes=2-4"), ("If-Range", "\"x\"")],
            200,
            "",
            "0123456789",
        ),
    ] {
        let heard = site.ask("GET", &path, &headers, b"");
        assert_eq!(
            heard.status, status,
            "{headers:?}: the status says what is sent"
        );
        assert_eq!(
            (heard.header("content-range"), heard.body.as_slice()),
            (range, body.as_bytes()),
            "{headers:?}: the part is the one that was asked for"
        );
        assert!(heard.is_whole(), "{headers:?}: the length is the part's");
        assert_eq!(heard.header("accept-ranges"), "bytes", "ranges are offered");
    }
    let heard = site.ask("GET", &path, &[("Range", "bytes=10-")], b"");
    assert_eq!(
        (heard.status, heard.header("content-range")),
        (416, "bytes */10"),
        "bytes beyond the end are refused, with the size"
    );
    let heard = site.ask("GET", &path, &[("If-None-Match", &etag)], b"");
    assert_eq!(
        (heard.status, heard.body.len()),
        (304, 0),
        "what the client has is not sent again"
    );
    let encoded = path.replace(':', "%3A");
    assert_eq!(
        site.get(&encoded).status,
        200,
        "an encoded colon is a colon"
    );
}

#[test]
fn a_manifest_is_served_as_it_was_pushed() {
    let site = Site::plain();
    let manifest = site.image("a/b", "v1", b"layer");
    let digest = Digest::of(&manifest).to_string();
    for reference in ["v1", &digest] {
        let path = format!("/v2/a/b/manifests/{reference}");
        let heard = site.get(&path);
        assert_eq!(heard.status, 200, "{reference}: the manifest is there");
        assert_eq!(heard.body, manifest, "{reference}: byte for byte");
        for (name, value) in [
            ("content-type", OCI_MANIFEST),
            ("docker-content-digest", &digest),
            ("etag", &format!("\"{digest}\"")),
        ] {
            assert_eq!(heard.header(name), value, "{reference}: {name} is set");
        }
        let told = site.head(&path);
        for name in [
            "content-type",
            "docker-content-digest",
            "content-length",
            "etag",
        ] {
            assert_eq!(
                (told.status, told.header(name)),
                (200, heard.header(name)),
                "{reference}: HEAD says the same of {name}"
            );
        }
        let etag = heard.header("etag");
        let heard = site.ask("GET", &path, &[("If-None-Match", etag)], b"");
        assert_eq!(heard.status, 304, "{reference}: it can be cached");
    }
    for reference in ["v2", ".invalid", &Digest::of(b"other").to_string()] {
        let heard = site.get(&format!("/v2/a/b/manifests/{reference}"));
        assert_eq!(
            (heard.status, heard.code().as_str()),
            (404, "MANIFEST_UNKNOWN"),
            "{reference} is not there"
        );
    }
    let heard = site.get("/v2/a/manifests/v1");
    assert_eq!(heard.status, 404, "another repository does not have it");
    let again = site.put("a/b", "v2", OCI_MANIFEST, &manifest);
    assert_eq!(
        (again.status, again.header("location")),
        (201, format!("/v2/a/b/manifests/{digest}").as_str()),
        "a second tag may point at it"
    );
}

#[test]
fn a_manifest_that_does_not_fit_is_refused() {
    let site = Site::new(Options {
        sparse_indexes: false,
        ..Options::default()
    });
    site.push("a", b"{}");
    let missing = image(b"layer");
    let heard = site.put("a", "v1", OCI_MANIFEST, &missing);
    assert_eq!(
        (heard.status, heard.code().as_str()),
        (400, "MANIFEST_BLOB_UNKNOWN"),
        "the layer must be there first"
    );
    assert_eq!(
        heard.json()["errors"][0]["detail"]["digests"],
        json!([Digest::of(b"layer").to_string()]),
        "the answer names what is missing"
    );
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_MANIFEST, &missing)],
    })
    .to_string();
    let heard = site.put("a", "v1", OCI_INDEX, index.as_bytes());
    assert_eq!(
        (heard.status, heard.code().as_str()),
        (400, "MANIFEST_BLOB_UNKNOWN"),
        "the children must be there first"
    );
    let sparse = Site::plain();
    assert_eq!(
        sparse.put("a", "v1", OCI_INDEX, index.as_bytes()).status,
        201,
        "a sparse index is taken by default"
    );
    let foreign = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor("application/vnd.docker.container.image.v1+json", b"{}"),
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": Digest::of(b"elsewhere").to_string(),
            "size": 9,
            "urls": ["https://example.com/layer"],
        }],
    })
    .to_string();
    let heard = site.put("a", "foreign", DOCKER_MANIFEST, foreign.as_bytes());
    assert_eq!(heard.status, 201, "a foreign layer may be elsewhere");
    site.push("a", b"layer");
    let wrong = Digest::of(b"another").to_string();
    let large = vec![b' '; (4 << 20) + 1];
    for (how, reference, media_type, body, status, code) in [
        (
            "another digest",
            wrong.as_str(),
            OCI_MANIFEST,
            missing.as_slice(),
            400,
            "DIGEST_INVALID",
        ),
        (
            "no digest",
            "sha256:1",
            OCI_MANIFEST,
            &missing,
            400,
            "DIGEST_INVALID",
        ),
        ("no tag", "-v1", OCI_MANIFEST, &missing, 400, "TAG_INVALID"),
        (
            "another type",
            "v1",
            OCI_INDEX,
            &missing,
            400,
            "MANIFEST_INVALID",
        ),
        ("no JSON", "v1", OCI_MANIFEST, b"{", 400, "MANIFEST_INVALID"),
        (
            "no manifest",
            "v1",
            OCI_MANIFEST,
            b"{}",
            400,
            "MANIFEST_INVALID",
        ),
        ("too large", "v1", OCI_MANIFEST, &large, 413, "SIZE_INVALID"),
    ] {
        let heard = site.put("a", reference, media_type, body);
        assert_eq!(
            (heard.status, heard.code().as_str()),
            (status, code),
            "{how}: the manifest is refused"
        );
    }
    assert_eq!(
        site.get("/v2/a/tags/list").json()["tags"],
        json!(["foreign"]),
        "no refused manifest left a tag"
    );
    let heard = site.ask("PUT", "/v2/a/manifests/untyped", &[], &missing);
    assert_eq!(heard.status, 201, "the type may be left to the manifest");
    assert_eq!(
        site.head("/v2/a/manifests/untyped").header("content-type"),
        OCI_MANIFEST,
        "then the manifest says what it is"
    );
}

#[test]
fn lists_come_in_pages() {
    let site = Site::plain();
    for name in ["b", "a/x", "c"] {
        site.image(name, "v1", b"layer");
    }
    let manifest = image(b"layer");
    for tag in ["v10", "B", "a", "c", "b"] {
        site.put("b", tag, OCI_MANIFEST, &manifest);
    }
    let tags = json!(["a", "B", "b", "c", "v1", "v10"]);
    assert_eq!(
        site.get("/v2/b/tags/list").json(),
        json!({ "name": "b", "tags": tags }),
        "tags are sorted without regard to case"
    );
    assert_eq!(
        site.get("/v2/_catalog").json(),
        json!({ "repositories": ["a/x", "b", "c"] }),
        "names are sorted"
    );
    for (first, list, expected) in [
        ("/v2/b/tags/list?n=4", "tags", tags),
        ("/v2/_catalog?n=2", "repositories", json!(["a/x", "b", "c"])),
        ("/v2/_catalog?n=3", "repositories", json!(["a/x", "b", "c"])),
    ] {
        let mut found = Vec::new();
        let mut next = first.to_owned();
        let mut pages = 0;
        loop {
            let heard = site.get(&next);
            found.extend(heard.json()[list].as_array().unwrap().clone());
            pages += 1;
            let Some(link) = heard.headers.get("link") else {
                break;
            };
            next = link
                .strip_prefix('<')
                .and_then(|link| link.strip_suffix(">; rel=\"next\""))
                .unwrap()
                .to_owned();
        }
        assert_eq!(
            json!(found),
            expected,
            "{first}: the pages make up the list"
        );
        let least = if first.ends_with("n=3") { 1 } else { 2 };
        assert_eq!(pages, least, "{first}: no page is without need");
    }
    let heard = site.get("/v2/b/tags/list?n=0");
    assert_eq!(
        (heard.json()["tags"].clone(), heard.header("link")),
        (json!([]), ""),
        "no tags are given to who wants none"
    );
    assert_eq!(
        site.get("/v2/b/tags/list?last=b").json()["tags"],
        json!(["c", "v1", "v10"]),
        "a list may start anywhere"
    );
    let heard = site.get("/v2/b/tags/list?n=many");
    assert_eq!(
        (heard.status, heard.code().as_str()),
        (400, "PAGINATION_NUMBER_INVALID"),
        "a number must be a number"
    );
    let heard = site.get("/v2/nobody/tags/list");
    assert_eq!(
        (heard.status, heard.code().as_str()),
        (404, "NAME_UNKNOWN"),
        "a repository that is not there has no list"
    );
    let paged = Site::new(Options {
        page_limit: Some(1),
        ..Options::default()
    });
    paged.image("a", "v1", b"layer");
    paged.image("a", "v2", b"layer");
    let heard = paged.get("/v2/a/tags/list");
    assert_eq!(
        (heard.json()["tags"].clone(), heard.header("link")),
        (json!(["v1"]), "</v2/a/tags/list?n=1&last=v1>; rel=\"next\""),
        "a server may insist on pages"
    );
}

#[test]
fn what_is_deleted_is_gone() {
    let site = Site::plain();
    let manifest = site.image("a", "v1", b"layer");
    site.put("a", "v2", OCI_MANIFEST, &manifest);
    site.image("b", "v1", b"layer");
    let digest = Digest::of(&manifest);
    assert_eq!(
        site.delete("/v2/a/manifests/v1").status,
        202,
        "a tag can be deleted"
    );
    assert_eq!(
        (
            site.head("/v2/a/manifests/v1").status,
            site.head("/v2/a/manifests/v2").status
        ),
        (404, 200),
        "a deleted tag leaves the others"
    );
    assert_eq!(
        site.delete(&format!("/v2/a/manifests/{digest}")).status,
        202,
        "a manifest can be deleted"
    );
    for reference in ["v2", &digest.to_string()] {
        assert_eq!(
            site.head(&format!("/v2/a/manifests/{reference}")).status,
            404,
            "{reference}: a deleted manifest takes its tags along"
        );
    }
    assert_eq!(
        site.get("/v2/a/tags/list").json()["tags"],
        json!([]),
        "a repository without tags is still one"
    );
    let layer = format!("/v2/a/blobs/{}", Digest::of(b"layer"));
    assert_eq!(site.delete(&layer).status, 202, "a blob can be deleted");
    for path in [
        layer.as_str(),
        "/v2/a/manifests/v1",
        &format!("/v2/a/manifests/{digest}"),
    ] {
        assert_eq!(
            site.delete(path).status,
            404,
            "{path}: what is gone is gone"
        );
    }
    assert_eq!(
        site.get(&format!("/v2/b/blobs/{}", Digest::of(b"layer")))
            .status,
        200,
        "other repositories keep theirs"
    );
    site.delete(&format!("/v2/a/blobs/{}", Digest::of(b"{}")));
    assert_eq!(
        site.get("/v2/_catalog").json(),
        json!({ "repositories": ["b"] }),
        "an empty repository is none"
    );
}

#[test]
fn referrers_are_found_by_what_they_refer_to() {
    let site = Site::plain();
    let subject = site.image("a", "v1", b"layer");
    let digest = Digest::of(&subject);
    let path = format!("/v2/a/referrers/{digest}");
    let heard = site.get(&path);
    assert_eq!(
        (
            heard.status,
            heard.header("content-type"),
            heard.json()["manifests"].clone()
        ),
        (200, OCI_INDEX, json!([])),
        "nothing refers to it yet"
    );
    let mut expected = BTreeMap::new();
    for (artifact_type, note) in [("text/sbom", "one"), ("text/signature", "two")] {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": [],
            "subject": descriptor(OCI_MANIFEST, &subject),
            "annotations": { "note": note },
        })
        .to_string();
        let name = Digest::of(manifest.as_bytes()).to_string();
        let heard = site.put("a", &name, OCI_MANIFEST, manifest.as_bytes());
        assert_eq!(
            (heard.status, heard.header("oci-subject")),
            (201, digest.to_string().as_str()),
            "the registry confirms that it keeps the reference"
        );
        expected.insert(
            name.clone(),
            json!({
                "mediaType": OCI_MANIFEST,
                "digest": name,
                "size": manifest.len(),
                "artifactType": artifact_type,
                "annotations": { "note": note },
            }),
        );
    }
    let all: Vec<&Value> = expected.values().collect();
    let heard = site.get(&path);
    assert_eq!(heard.json()["manifests"], json!(all), "both are listed");
    assert_eq!(
        heard.header("oci-filters-applied"),
        "",
        "no filter, no claim"
    );
    let heard = site.get(&format!("{path}?artifactType=text%2Fsbom"));
    assert_eq!(
        heard.header("oci-filters-applied"),
        "artifactType",
        "the filter is confirmed"
    );
    let of_type: Vec<&Value> = expected
        .values()
        .filter(|value| value["artifactType"] == "text/sbom")
        .collect();
    assert_eq!(
        heard.json()["manifests"],
        json!(of_type),
        "the filter is applied"
    );
    let name = of_type[0]["digest"].as_str().unwrap();
    site.delete(&format!("/v2/a/manifests/{name}"));
    assert_eq!(
        site.get(&path).json()["manifests"]
            .as_array()
            .unwrap()
            .len(),
        1,
        "a deleted manifest refers to nothing"
    );
    assert_eq!(
        site.get("/v2/a/referrers/v1").status,
        400,
        "a subject is named by digest"
    );
    let without = Site::new(Options {
        referrers: false,
        ..Options::default()
    });
    assert_eq!(
        without.get(&path).status,
        404,
        "a registry may be one of those without referrers"
    );
}

#[test]
fn a_blob_is_seen_where_it_was_pushed_or_mounted() {
    let site = Site::plain();
    let digest = site.push("a", b"blob");
    assert_eq!(
        site.head(&format!("/v2/b/blobs/{digest}")).status,
        404,
        "another repository does not see it"
    );
    let heard = site.ask(
        "POST",
        &format!("/v2/b/blobs/uploads/?mount={digest}&from=a"),
        &[],
        b"",
    );
    assert_eq!(
        (heard.status, heard.header("location")),
        (201, format!("/v2/b/blobs/{digest}").as_str()),
        "it can be mounted"
    );
    assert_eq!(
        site.get(&format!("/v2/b/blobs/{digest}")).body,
        b"blob",
        "then it is seen"
    );
    for query in [
        format!("mount={}&from=a", Digest::of(b"other")),
        format!("mount={digest}&from=nobody"),
        format!("mount={digest}"),
    ] {
        let heard = site.ask("POST", &format!("/v2/c/blobs/uploads/?{query}"), &[], b"");
        assert_eq!(heard.status, 202, "{query}: else an upload is started");
        assert!(
            heard.header("location").starts_with("/v2/c/blobs/uploads/"),
            "{query}: the upload can go on"
        );
    }
    site.store.insert(b"in the store");
    assert_eq!(
        site.get(&format!("/v2/a/blobs/{}", Digest::of(b"in the store")))
            .status,
        404,
        "what is merely in the store is not seen"
    );
    site.server
        .repositories()
        .link_blob("a", &Blob::of(b"lost"))
        .unwrap();
    assert_eq!(
        site.head(&format!("/v2/a/blobs/{}", Digest::of(b"lost")))
            .status,
        404,
        "what the store has lost is not there, so that it is pushed again"
    );
}

#[test]
fn a_read_only_registry_only_reads() {
    let store = Arc::new(Memory::default());
    let layer = store.insert(b"layer");
    store.insert(b"{}");
    let manifest = image(b"layer");
    let blob = store.insert(&manifest);
    let repositories = Arc::new(Repositories::in_memory());
    let root = Descriptor {
        media_type: OCI_MANIFEST.to_owned(),
        digest: blob.digest,
        size: blob.size,
        platform: None,
        artifact_type: None,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
    };
    let tag = "v1".parse().unwrap();
    repositories
        .link_image(&*store, "a", &root, Some(&tag))
        .unwrap();
    let server = Server::start(
        Options {
            read_only: true,
            ..Options::default()
        },
        store,
        Arc::clone(&repositories),
    )
    .unwrap();
    let ask = |method: &str, path: &str| send(server.address(), method, path, &[], b"").unwrap();
    assert_eq!(
        ask("GET", "/v2/a/manifests/v1").body,
        manifest,
        "what was linked is served"
    );
    assert_eq!(
        ask("GET", &format!("/v2/a/blobs/{}", layer.digest)).body,
        b"layer",
        "and what it needs"
    );
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/"),
        ("PUT", "/v2/a/manifests/v1"),
        ("DELETE", "/v2/a/manifests/v1"),
        ("PATCH", "/v2/a/blobs/uploads/x"),
    ] {
        let heard = ask(method, path);
        assert_eq!(
            (heard.status, heard.code().as_str()),
            (405, "UNSUPPORTED"),
            "{method}: nothing can be changed"
        );
    }
    let mut linked = vec![layer, blob, Blob::of(b"{}")];
    linked.sort();
    assert_eq!(
        repositories.linked(),
        linked,
        "what a collection of garbage must keep is known"
    );
}

#[test]
fn a_blob_above_the_limit_is_refused() {
    let site = Site::new(Options {
        upload_limit: Some(10),
        ..Options::default()
    });
    site.push("a", b"0123456789");
    let bytes = b"0123456789a";
    let digest = Digest::of(bytes);
    let too_large = |how: &str, heard: &Heard| {
        assert_eq!(
            (heard.status, heard.code().as_str()),
            (413, "SIZE_INVALID"),
            "{how}: it is too large"
        );
    };
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    too_large("one POST", &site.ask("POST", &path, &[], bytes));
    let location = site.start("a");
    too_large("PUT", &site.finish(&location, &digest, bytes));
    let location = site.start("a");
    site.ask("PATCH", &location, &[], b"0123456789");
    too_large("PATCH", &site.ask("PATCH", &location, &[], b"a"));
    let location = site.start("a");
    let chunked = [("Transfer-Encoding", "chunked")];
    too_large(
        "stream",
        &site.ask(
            "PATCH",
            &location,
            &chunked,
            b"b\r\n0123456789a\r\n0\r\n\r\n",
        ),
    );
    assert_eq!(
        site.get(&location).status,
        404,
        "an upload that is too large is over"
    );
}

#[test]
fn only_users_get_in() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    let htpasswd: Htpasswd = format!("# people\n\nann:{hash}\n").parse().unwrap();
    let site = Site::new(Options {
        users: Some(htpasswd),
        ..Options::default()
    });
    let status = |header: Option<String>| {
        let headers: Vec<(&str, &str)> = header
            .iter()
            .map(|header| ("Authorization", header.as_str()))
            .collect();
        site.ask("GET", "/v2/", &headers, b"").status
    };
    for (how, header, expected) in [
        ("nobody", None, 401),
        ("the user", Some(basic("ann", "secret")), 200),
        ("the user again", Some(basic("ann", "secret")), 200),
        ("a wrong password", Some(basic("ann", "Secret")), 401),
        ("a stranger", Some(basic("bob", "secret")), 401),
        ("a bearer", Some(bearer("secret")), 401),
        ("nonsense", Some("Basic !".to_owned()), 401),
    ] {
        assert_eq!(status(header), expected, "{how}: only the user gets in");
    }
    let heard = site.get("/v2/a/tags/list");
    assert_eq!(
        (
            heard.status,
            heard.code().as_str(),
            heard.header("www-authenticate")
        ),
        (401, "UNAUTHORIZED", "Basic realm=\"imgbuild\""),
        "whoever is not known is asked for a password"
    );
    assert_eq!(site.get("/healthz").status, 200, "health is for everyone");
}

#[test]
fn an_htpasswd_file_is_read_or_refused_by_line() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    for (text, expected) in [
        (format!("ann:{hash}\nbob:{hash}"), Ok(())),
        (
            format!("ann:{hash}\nbob:$apr1$x$y"),
            Err(HtpasswdError::Hash {
                line: 2,
                user: "bob".to_owned(),
            }),
        ),
        ("ann".to_owned(), Err(HtpasswdError::Form { line: 1 })),
        (format!(":{hash}"), Err(HtpasswdError::Form { line: 1 })),
        (
            format!("ann:{hash}\nann:{hash}"),
            Err(HtpasswdError::Twice {
                line: 2,
                user: "ann".to_owned(),
            }),
        ),
        ("# none\n".to_owned(), Err(HtpasswdError::Empty)),
    ] {
        let read = text.parse::<Htpasswd>();
        assert!(
            read.as_ref().is_err() || !format!("{read:?}").contains("$2"),
            "no hash is ever shown"
        );
        assert_eq!(read.map(|_| ()), expected, "{text}: the line is named");
    }
}

#[test]
fn a_token_is_good_for_what_it_was_asked_for() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    let site = Site::new(Options {
        users: Some(format!("ann:{hash}").parse().unwrap()),
        tokens: Some(Tokens {
            anonymous_pull: true,
            ..Tokens::default()
        }),
        ..Options::default()
    });
    let heard = site.get("/v2/a/tags/list");
    assert_eq!(
        (heard.status, heard.header("www-authenticate")),
        (
            401,
            "Bearer realm=\"http://localhost/token\",service=\"imgbuild\",scope=\"repository:a:pull\""
        ),
        "whoever has no token learns where to get one"
    );
    let heard = site.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    assert!(
        heard
            .header("www-authenticate")
            .contains("scope=\"repository:a:pull,push\""),
        "a push needs more"
    );
    let ann = basic("ann", "secret");
    let token = |query: &str, header: Option<&str>| {
        let headers: Vec<(&str, &str)> = header
            .iter()
            .map(|header| ("Authorization", *header))
            .collect();
        let heard = site.ask("GET", &format!("/token?{query}"), &headers, b"");
        assert_eq!(heard.status, 200, "{query}: a token is given");
        assert_eq!(heard.json()["expires_in"], 300, "the lifetime is told");
        heard.json()["token"].as_str().unwrap().to_owned()
    };
    let use_it = |token: &str, method: &str, path: &str| {
        let header = bearer(token);
        let heard = site.ask(method, path, &[("Authorization", &header)], b"");
        (heard.status, heard.header("www-authenticate").to_owned())
    };
    let push = token("service=imgbuild&scope=repository:a:pull,push", Some(&ann));
    assert_eq!(
        use_it(&push, "POST", "/v2/a/blobs/uploads/").0,
        202,
        "it lets push"
    );
    assert_eq!(
        use_it(&push, "GET", "/v2/").0,
        200,
        "any token is good for the base"
    );
    let (status, challenge) = use_it(&push, "POST", "/v2/b/blobs/uploads/");
    assert_eq!(status, 401, "not elsewhere");
    assert!(
        challenge.contains("error=\"insufficient_scope\""),
        "and says why: {challenge}"
    );
    let anonymous = token("scope=repository:a:pull,push", None);
    assert_eq!(
        use_it(&anonymous, "POST", "/v2/a/blobs/uploads/").0,
        401,
        "a stranger's token lets only pull"
    );
    assert_eq!(
        use_it(&anonymous, "GET", "/v2/a/tags/list").0,
        404,
        "but that it does"
    );
    let everything = token("scope=repository:a:*&scope=registry:catalog:*", Some(&ann));
    assert_eq!(
        use_it(&everything, "DELETE", "/v2/a/manifests/x").0,
        404,
        "a star is all"
    );
    assert_eq!(
        use_it(&everything, "GET", "/v2/_catalog").0,
        200,
        "scopes add up"
    );
    let (status, challenge) = use_it("made-up", "GET", "/v2/a/tags/list");
    assert!(
        status == 401 && challenge.contains("error=\"invalid_token\""),
        "a made-up token is none: {challenge}"
    );
    let wrong = basic("ann", "wrong");
    for (path, header) in [
        ("/token", Some(wrong.as_str())),
        ("/token?service=other", Some(&ann)),
    ] {
        let headers: Vec<(&str, &str)> = header
            .iter()
            .map(|header| ("Authorization", *header))
            .collect();
        assert!(
            site.ask("GET", path, &headers, b"").status >= 400,
            "{path}: no token is given to the wrong"
        );
    }
    let brief = Site::new(Options {
        tokens: Some(Tokens {
            lifetime: Duration::ZERO,
            ..Tokens::default()
        }),
        ..Options::default()
    });
    let heard = brief.get("/token?scope=repository:a:pull");
    let header = bearer(heard.json()["token"].as_str().unwrap());
    let heard = brief.ask("GET", "/v2/a/tags/list", &[("Authorization", &header)], b"");
    assert!(
        heard.header("www-authenticate").contains("invalid_token"),
        "a token ends with its time"
    );
}

#[test]
fn repositories_on_disk_outlive_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Memory::default());
    let open = || Repositories::open(folder.path());
    let start = || Server::start(Options::default(), store.clone(), open().unwrap()).unwrap();
    let site = Site {
        server: start(),
        store: store.clone(),
    };
    let subject = site.image("a/b", "v1", b"layer");
    site.put("a/b", "V1", OCI_MANIFEST, &subject);
    site.image("a", "gone", b"other");
    let referrer = json!({
        "schemaVersion": 2,
        "config": descriptor("text/x", b"{}"),
        "layers": [],
        "subject": descriptor(OCI_MANIFEST, &subject),
    })
    .to_string();
    let name = Digest::of(referrer.as_bytes());
    site.put("a/b", &name.to_string(), OCI_MANIFEST, referrer.as_bytes());
    assert_eq!(
        site.delete("/v2/a/manifests/gone").status,
        202,
        "a tag is deleted"
    );
    assert!(
        matches!(open(), Err(RepositoriesError::Busy { .. })),
        "two servers must not share a folder"
    );
    let paths = [
        "/v2/_catalog".to_owned(),
        "/v2/a/tags/list".to_owned(),
        "/v2/a/b/tags/list".to_owned(),
        format!("/v2/a/b/referrers/{}", Digest::of(&subject)),
        "/v2/a/b/manifests/v1".to_owned(),
        format!("/v2/a/b/blobs/{}", Digest::of(b"layer")),
    ];
    let look =
        |site: &Site| -> Vec<Vec<u8>> { paths.iter().map(|path| site.get(path).body).collect() };
    let before = look(&site);
    site.server.stop();
    std::fs::write(folder.path().join("_tmp/unfinished"), "x").unwrap();
    let site = Site {
        server: start(),
        store: store.clone(),
    };
    assert_eq!(look(&site), before, "a restart changes nothing");
    assert_eq!(
        std::fs::read_dir(folder.path().join("_tmp"))
            .unwrap()
            .count(),
        0,
        "unfinished writes are swept away"
    );
    site.server.stop();
    let tag = folder.path().join("a/b/_tags/v1");
    std::fs::write(&tag, "sha256:zz").unwrap();
    assert!(
        matches!(open(), Err(RepositoriesError::Damaged { path, .. }) if path == tag),
        "damage is named"
    );
    std::fs::remove_file(&tag).unwrap();
    let stray = folder.path().join("a/Stray");
    std::fs::write(&stray, "").unwrap();
    assert!(
        matches!(open(), Err(RepositoriesError::Stray { path }) if path == stray),
        "what does not belong there is named"
    );
}

#[test]
fn requests_are_counted_and_reported() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log: Log = {
        let seen = seen.clone();
        Arc::new(move |exchange: &Exchange| seen.lock().unwrap().push(exchange.clone()))
    };
    let site = Site::new(Options {
        log: Some(log),
        ..Options::default()
    });
    let digest = site.push("a", b"0123456789");
    let path = format!("/v2/a/blobs/{digest}");
    site.get(&path);
    site.get(&path);
    site.get("/v2/a/manifests/v1");
    let counts = site.server.counts();
    let count = |method: &str, kind, status| {
        counts
            .get(&(method.to_owned(), kind, status))
            .copied()
            .unwrap_or_default()
    };
    assert_eq!(count("GET", Kind::Blob, 200), 2, "each GET is counted");
    assert_eq!(count("GET", Kind::Manifest, 404), 1, "with its status");
    let requests = site.server.requests();
    let paths: Vec<(&str, &str)> = requests
        .iter()
        .map(|exchange| (exchange.method.as_str(), exchange.path.as_str()))
        .collect();
    assert_eq!(
        paths,
        [
            ("POST", "/v2/a/blobs/uploads/"),
            ("GET", &path),
            ("GET", &path),
            ("GET", "/v2/a/manifests/v1")
        ],
        "each request is kept in order"
    );
    site.server.stop();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4, "each request is reported once");
    assert!(
        seen.iter()
            .any(|exchange| exchange.path == path && exchange.bytes == 10),
        "with the bytes that were sent"
    );
}

#[test]
fn a_failing_store_is_told_to_the_operator_alone() {
    struct Broken;
    impl Source for Broken {
        fn open(&self, _: &Blob, _: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
            Err(io::Error::other("the disk at /secret is on fire"))
        }
    }
    impl Sink for Broken {
        fn holds(&self, _: &Blob) -> io::Result<bool> {
            Err(io::Error::other("the disk at /secret is on fire"))
        }
        fn write(&self, _: &Blob, _: &mut crate::store::Verified<'_>) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }
    let repositories = Repositories::in_memory();
    let blob = Blob::of(b"x");
    repositories.link_blob("a", &blob).unwrap();
    let server = Server::start(
        Options {
            record: true,
            ..Options::default()
        },
        Arc::new(Broken),
        repositories,
    )
    .unwrap();
    let path = format!("/v2/a/blobs/{}", blob.digest);
    let heard = send(server.address(), "GET", &path, &[], b"").unwrap();
    assert_eq!(heard.status, 500, "the registry admits that it failed");
    assert!(
        !String::from_utf8_lossy(&heard.body).contains("secret"),
        "the client is told no more"
    );
    assert_eq!(
        server.requests()[0].problem.as_deref(),
        Some("the disk at /secret is on fire"),
        "the operator is told why"
    );
}

#[test]
fn a_store_that_lies_does_not_end_an_answer_well() {
    struct Short(Memory);
    impl Source for Short {
        fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
            Ok(self
                .0
                .open(blob, from)?
                .map(|bytes| Box::new(bytes.take(5)) as Box<dyn Read + Send>))
        }
    }
    impl Sink for Short {
        fn holds(&self, blob: &Blob) -> io::Result<bool> {
            self.0.holds(blob)
        }
        fn write(&self, blob: &Blob, bytes: &mut crate::store::Verified<'_>) -> io::Result<()> {
            self.0.write(blob, bytes)
        }
    }
    let memory = Memory::default();
    let blob = memory.insert(b"0123456789");
    let repositories = Repositories::in_memory();
    repositories.link_blob("a", &blob).unwrap();
    let server = Server::start(Options::default(), Arc::new(Short(memory)), repositories).unwrap();
    let path = format!("/v2/a/blobs/{}", blob.digest);
    let heard = send(server.address(), "GET", &path, &[], b"");
    assert!(
        heard.is_err() || !heard.unwrap().is_whole(),
        "a client must notice that bytes are missing"
    );
}

#[test]
fn stopping_lets_a_request_end() {
    let site = Site::plain();
    let address = site.server.address();
    let location = site.start("a");
    let mut stream = TcpStream::connect(address).unwrap();
    let digest = Digest::of(b"hello");
    let headers = [("Content-Length", "5"), ("Expect", "100-continue")];
    let path = format!("{location}&digest={digest}");
    stream
        .write_all(&request("PUT", &path, &headers, b""))
        .unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(
        &go_on, b"HTTP/1.1 100 Continue\r\n\r\n",
        "the server has the request and waits for the body"
    );
    let store = site.store.clone();
    let stopping = std::thread::spawn(move || site.server.stop());
    while TcpStream::connect(address).is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
    stream.write_all(b"hello").unwrap();
    let heard = Heard::read(stream).unwrap();
    assert_eq!(heard.status, 201, "a request under way ends well");
    stopping.join().unwrap();
    assert!(
        store.holds(&Blob::of(b"hello")).unwrap(),
        "and what it did is done"
    );
}

#[test]
fn an_address_in_use_is_refused_by_name() {
    let site = Site::plain();
    let error = Server::start(
        Options {
            address: site.server.address(),
            ..Options::default()
        },
        Arc::new(Memory::default()),
        Repositories::in_memory(),
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot listen on {}", site.server.address()),
        "the address is named"
    );
    assert!(error.hint().is_some(), "and what to do about it is said");
    for (certificate, key) in [("", ""), ("nonsense", "nonsense")] {
        let error = Server::start(
            Options {
                tls: Some(Tls {
                    certificate: certificate.into(),
                    key: key.into(),
                }),
                ..Options::default()
            },
            Arc::new(Memory::default()),
            Repositories::in_memory(),
        )
        .unwrap_err();
        assert!(
            matches!(error, ServeError::Certificate(_)),
            "a certificate that is none is refused"
        );
    }
}
