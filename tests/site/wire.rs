//! A request over the wire, with nothing of the program under test in between.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What manifests a client takes.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Asks `address` for `path`; HTTP/1.1 without keep-alive.
pub(crate) fn ask(method: &str, address: &str, path: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {ACCEPT}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(|| std::io::Error::other("no head"))?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| std::io::Error::other("no status"))?;
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = bytes[end + 4..].to_vec();
    if headers
        .get("transfer-encoding")
        .is_some_and(|encoding| encoding == "chunked")
    {
        body = unchunked(&body);
    }
    Ok(Answer {
        status,
        headers,
        body,
    })
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let text = String::from_utf8_lossy(&rest[..end]).into_owned();
        let size = usize::from_str_radix(text.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    body
}

/// The bytes of a manifest by tag or digest; `None` if it is not served.
pub(crate) fn manifest(address: &str, repository: &str, name: &str) -> Option<Vec<u8>> {
    let answer = ask(
        "GET",
        address,
        &format!("/v2/{repository}/manifests/{name}"),
    )
    .unwrap();
    match answer.status {
        200 => Some(answer.body),
        404 => None,
        status => panic!(
            "{repository}:{name} at {address}: {status} {}",
            String::from_utf8_lossy(&answer.body)
        ),
    }
}

/// The size of a blob, if it is served.
pub(crate) fn blob_size(address: &str, repository: &str, digest: &str) -> Option<u64> {
    let answer = ask("HEAD", address, &format!("/v2/{repository}/blobs/{digest}")).unwrap();
    (answer.status == 200).then(|| answer.headers["content-length"].parse().unwrap())
}
