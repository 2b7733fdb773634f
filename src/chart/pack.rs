//! A chart's directory as one file, the way `helm package` does it, but the same bytes on every machine and every day.
//!
//! ```text
//! gzip, stored blocks, no name, no time
//! └── tar (ustar)
//!     └── <chart>/<path>       ascending by path; mode 644, owner 0, time 0
//! ```
//!
//! What `.helmignore` names is left out. The blocks are stored and not compressed, since what a compressor makes of the
//! same bytes changes with its version.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use super::load::{Chart, ChartError, LoadLimits, directory_within};

/// Packs the chart in `directory`; answers it and its file.
///
/// # Errors
/// If the directory is no chart, or cannot be read.
pub fn pack(directory: &Path, limits: LoadLimits) -> Result<(Chart, Vec<u8>), ChartError> {
    let files = directory_within(directory, limits)?;
    let chart = Chart::from_files(files.clone(), limits)?;
    let bytes = archive(&chart.metadata().name, &files).map_err(|source| ChartError::Read {
        what: directory.display().to_string(),
        source,
    })?;
    Ok((chart, bytes))
}

/// The file of a chart called `name` that has these files, by their paths in it.
///
/// # Errors
/// If a path is too long for an archive.
pub fn archive(name: &str, files: &BTreeMap<String, Vec<u8>>) -> io::Result<Vec<u8>> {
    let gzip = flate2::GzBuilder::new()
        .operating_system(255)
        .write(Vec::new(), flate2::Compression::none());
    let mut builder = tar::Builder::new(gzip);
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, format!("{name}/{path}"), bytes.as_slice())?;
    }
    let mut gzip = builder.into_inner()?;
    gzip.flush()?;
    gzip.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn a_packed_directory_is_the_same_bytes_every_time_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("templates/b.yaml", "b: 1\n");
        write("templates/a.yaml", "a: 1\n");
        write(
            "Chart.yaml",
            "apiVersion: v2\nname: small\nversion: 1.2.3+x\n",
        );
        write("notes.bak", "not part of it");
        write(".helmignore", "*.bak\n");
        write("charts/sub/Chart.yaml", "name: sub\nversion: 0.1.0\n");
        let (_, bytes) = pack(folder.path(), LoadLimits::default()).unwrap();
        let (_, again) = pack(folder.path(), LoadLimits::default()).unwrap();
        assert_eq!(bytes, again, "nothing of the day is in the file");
        assert_eq!(
            Digest::of(&bytes).to_string(),
            "sha256:fe69135fe0a8dbcce5e39cbf75df71aed0f6d2d4daa2608dfce815500a3ca5ca",
            "the form is pinned: another machine must come to the same digest"
        );
        let chart = Chart::from_archive(bytes.as_slice(), LoadLimits::default()).unwrap();
        assert_eq!(chart.metadata().version, "1.2.3+x", "it is the chart");
        assert_eq!(chart.dependencies().len(), 1, "with what is inside of it");
        let names: Vec<String> = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()))
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "small/.helmignore",
                "small/Chart.yaml",
                "small/charts/sub/Chart.yaml",
                "small/templates/a.yaml",
                "small/templates/b.yaml"
            ],
            "in order, without what is ignored"
        );
    }
}
