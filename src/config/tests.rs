//! The config layer against real files, against every mistake it knows, and against noise.

use std::path::{Path, PathBuf};

use super::*;

const REAL: &str = "../shared/data/imagesetconfig";

/// What is refused among the real files, and why; all others load.
const REFUSED: &[(&str, &str)] = &[
    // Workflows that write a config somewhere inside.
    (
        "dmc5179+cost-onprem-chart/.github/workflows/lint-and-validate.yml",
        "apiVersion is missing",
    ),
    (
        "quay+quay/.github/workflows/ci-go.yaml",
        "apiVersion is missing",
    ),
    // A list where `operators:` was forgotten, so the next key ends it.
    ("dmc5179+cost-onprem-chart/imageset-config.yaml", "not YAML"),
    // Templates and files with placeholders.
    (
        "openshift+appliance/pkg/templates/scripts/mirror/imageset.yaml.template",
        "a key is text",
    ),
    (
        "internal/e2e/templates/isc_templates/additional_isc.yaml",
        "a key is text",
    ),
    (
        "internal/e2e/templates/isc_templates/release_isc.yaml",
        "a key is text",
    ),
    (
        "v1/test/e2e/configs/imageset-config-filter-multi-prune.yaml",
        "malformed repository path",
    ),
    (
        "v1/test/e2e/configs/imageset-config-filter-single.yaml",
        "malformed repository path",
    ),
    (
        "v1/test/e2e/configs/imageset-config-headsonly.yaml",
        "malformed repository path",
    ),
    (
        "v1/test/e2e/configs/imageset-config-oci-mirror-all.yaml",
        "malformed repository path",
    ),
    (
        "v1/test/e2e/configs/imageset-config-skip-deps.yaml",
        "malformed repository path",
    ),
    (
        "openshift+quay-image-builder/imageset-config.yaml",
        "minVersion is a version X.Y.Z",
    ),
    (
        "deploy-disconnected-registry/oc-mirror-config-edgecluster.yaml",
        "${OC_OCP_VERSION_MIN}",
    ),
    // Deliberately invalid.
    (
        "workloads/config-88132-invalid.yaml",
        "targetRepo is a repository path",
    ),
    // Several documents.
    (
        "v1/docs/examples/imageset-config-filter-catalog.yaml",
        "a second document",
    ),
];

fn files_under(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn notes(config: &Config) -> &[Diagnostic] {
    match config {
        Config::ImageSet(set) => &set.notes,
        Config::Delete(set) => &set.notes,
    }
}

#[test]
fn every_real_config_loads_or_is_refused_for_its_reason() {
    let root = Path::new(REAL);
    if !root.is_dir() {
        println!("skipped: {REAL} is absent");
        return;
    }
    let files = files_under(root);
    assert!(files.len() >= 90, "the real files are all there");
    let mut refused = 0;
    for file in files {
        let name = file.display().to_string();
        let expected = REFUSED.iter().find(|(path, _)| name.ends_with(path));
        let read = parse_bytes(&std::fs::read(&file).unwrap(), &name);
        match (read, expected) {
            (Ok(config), None) => {
                let printed = config.to_string();
                let again = parse(&printed, "printed").unwrap();
                assert_eq!(again, config, "printing {name} must keep what it asks for");
                assert_eq!(again.to_string(), printed, "one config prints one way");
            }
            (Err(errors), Some((_, reason))) => {
                refused += 1;
                assert!(
                    errors.to_string().contains(reason),
                    "{name} must be refused because {reason:?}, not:\n{}",
                    errors.render()
                );
            }
            (Ok(_), Some((_, reason))) => panic!("{name} must be refused: {reason}"),
            (Err(errors), None) => panic!("{name} must load:\n{}", errors.render()),
        }
    }
    assert_eq!(refused, REFUSED.len(), "each refusal in the table was met");
}

#[test]
fn what_older_tools_ignored_or_guessed_is_said() {
    let file =
        Path::new(REAL).join("files/openshift+oc-mirror/v1/pkg/config/testdata/config/valid.yaml");
    let Ok(bytes) = std::fs::read(&file) else {
        println!("skipped: {} is absent", file.display());
        return;
    };
    let config = parse_bytes(&bytes, "valid.yaml").unwrap();
    let said: Vec<String> = notes(&config).iter().map(ToString::to_string).collect();
    for part in [
        "valid.yaml:15:16: mirror.operators[].catalog: \"redhat-operators:v4.7\" is taken as docker.io/library/redhat-operators:v4.7",
        "valid.yaml:27:3: samples has no task here",
        "valid.yaml:31:3: the key \"additionalimages\" is taken as \"additionalImages\"",
    ] {
        assert!(
            said.iter().any(|note| note.starts_with(part)),
            "{part:?} must be among {said:#?}"
        );
    }
}
