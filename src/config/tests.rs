//! The config layer against real files, against every mistake it knows, and against noise.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::canon::Value;

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

fn rendered(name: &str, input: &str) -> String {
    let errors = if name.starts_with("settings: ") {
        Settings::parse(input, "imgbuild.toml").map(drop)
    } else {
        parse(input, "imageset.yaml").map(drop)
    };
    match errors {
        Ok(()) => panic!("{name} must be refused"),
        Err(errors) => errors.render(),
    }
}

#[test]
fn every_kind_of_mistake_is_said_with_its_place() {
    let golden = include_str!("../../tests/data/imagesetconfig/errors.txt");
    let mut cases = 0;
    for case in golden.split("=== ").skip(1) {
        let (name, rest) = case.split_once('\n').unwrap();
        let (input, expected) = rest.split_once("---->\n").unwrap();
        assert_eq!(
            rendered(name, input),
            expected.trim_end_matches('\n'),
            "what is said about {name}"
        );
        cases += 1;
    }
    assert_eq!(
        cases, 82,
        "the golden file has one case per kind of mistake"
    );
}

const LOADABLE: &[(&str, &str)] = &[
    (
        "config-72917.yaml",
        include_str!("../../tests/data/imagesetconfig/config-72917.yaml"),
    ),
    (
        "config-72949-2.yaml",
        include_str!("../../tests/data/imagesetconfig/config-72949-2.yaml"),
    ),
    (
        "config-72972.yaml",
        include_str!("../../tests/data/imagesetconfig/config-72972.yaml"),
    ),
    (
        "config-88132-digest.yaml",
        include_str!("../../tests/data/imagesetconfig/config-88132-digest.yaml"),
    ),
    (
        "isc-sparse-full-multi.yaml",
        include_str!("../../tests/data/imagesetconfig/isc-sparse-full-multi.yaml"),
    ),
    (
        "isc-generic-error.yaml",
        include_str!("../../tests/data/imagesetconfig/isc-generic-error.yaml"),
    ),
    (
        "isc-parallel-images.yaml",
        include_str!("../../tests/data/imagesetconfig/isc-parallel-images.yaml"),
    ),
    (
        "readme-block1.yaml",
        include_str!("../../tests/data/imagesetconfig/readme-block1.yaml"),
    ),
    (
        "v1-valid.yaml",
        include_str!("../../tests/data/imagesetconfig/v1-valid.yaml"),
    ),
];

#[test]
fn the_configs_that_come_along_load_or_are_refused() {
    for (name, text) in LOADABLE {
        let config = parse(text, name).unwrap_or_else(|errors| panic!("{}", errors.render()));
        assert!(!config.sections().is_empty(), "{name} asks for something");
        assert_eq!(
            parse(&config.to_string(), name).unwrap(),
            config,
            "printing {name} must keep what it asks for"
        );
    }
    for (name, text, reason) in [
        (
            "config-88132-invalid.yaml",
            include_str!("../../tests/data/imagesetconfig/config-88132-invalid.yaml"),
            "config-88132-invalid.yaml:6:19: mirror.additionalImages[].targetRepo is a repository path",
        ),
        (
            "v1-filter-catalog.yaml",
            include_str!("../../tests/data/imagesetconfig/v1-filter-catalog.yaml"),
            "v1-filter-catalog.yaml:16:1: a second document",
        ),
        (
            "release_isc.template.yaml",
            include_str!("../../tests/data/imagesetconfig/release_isc.template.yaml"),
            "release_isc.template.yaml:1:2: a key is text",
        ),
    ] {
        let errors = parse(text, name).unwrap_err().to_string();
        assert!(
            errors.starts_with(reason),
            "{name} is refused at its place: {errors}"
        );
    }
}

#[test]
fn every_example_and_every_section_of_one_loads() {
    for (file, sections) in [
        (
            "images.yaml",
            vec!["mirror.additionalImages", "mirror.blockedImages"],
        ),
        ("images-one-platform.yaml", vec!["mirror.additionalImages"]),
        ("images-v1alpha2.yaml", vec!["mirror.additionalImages"]),
        ("delete-images.yaml", vec!["delete.additionalImages"]),
    ] {
        let bytes = std::fs::read(Path::new("examples").join(file)).unwrap();
        let config =
            parse_bytes(&bytes, file).unwrap_or_else(|errors| panic!("{}", errors.render()));
        let used: Vec<String> = config
            .sections()
            .into_iter()
            .map(|section| section.name)
            .collect();
        assert_eq!(used, sections, "the sections of {file}");
    }
}

/// Uses every key of the schema.
const EVERYTHING: &str = "\
apiVersion: mirror.openshift.io/v2alpha1
kind: ImageSetConfiguration
archiveSize: 4
mirror:
  platform:
    graph: true
    kubeVirtContainer: true
    architectures: [amd64, arm64]
    channels:
    - {name: stable-4.16, minVersion: 4.16.1, maxVersion: 4.16.10, shortestPath: true}
    - {name: 4-stable, type: okd, full: true}
  operators:
  - catalog: registry.example.com/redhat/index:v4.16
    targetCatalog: mirror-ns/op-index
    targetTag: v1
    targetCatalogSourceTemplate: ./cs.yaml
    platforms: [{os: linux, architecture: amd64}]
    packages:
    - name: logging
      defaultChannel: stable-5.8
      channels:
      - {name: stable-5.8, minVersion: 4.10}
    - name: serverless
      bundles: [{name: serverless.v1.0.0}]
  - catalog: oci:///srv/catalogs/my-index
    full: true
  additionalImages:
  - name: docker://registry.example.com/ubi9/ubi:latest
    targetRepo: base/ubi9
    targetTag: rel1
  helm:
    repositories:
    - name: podinfo
      url: https://charts.example.com/podinfo
      charts:
      - {name: podinfo, version: 5.0.0, imagePaths: [\"{.spec.custom[*].image}\"]}
    - {name: all, url: oci://charts.example.com/all}
    - {name: none, url: https://charts.example.com/none, charts: []}
    local:
    - {name: mychart, path: ./charts/mychart-1.2.3.tgz}
  blockedImages:
  - name: .*alpine.*
  samples:
  - name: ruby
";

#[test]
fn every_key_of_the_schema_becomes_a_typed_value_with_its_place() {
    let Config::ImageSet(set) = parse(EVERYTHING, "all.yaml").unwrap() else {
        panic!("this is an image set");
    };
    let mirror = &set.mirror;
    assert_eq!(
        set.archive_bytes(),
        Some(4 << 30),
        "archiveSize counts in GiB"
    );
    let channel = &mirror.platform.channels[0];
    let max = channel.max_version.as_ref().unwrap();
    assert_eq!(
        (max.as_str(), max.line(), max.column()),
        ("4.16.10", 10, 59),
        "a version is kept as written, with its place"
    );
    assert_eq!(
        *channel.kind,
        PlatformType::Ocp,
        "ocp is what is meant where nothing is said"
    );
    assert_eq!(
        *mirror.platform.channels[1].kind,
        PlatformType::Okd,
        "the type as written"
    );
    let package = &mirror.operators[0].packages[0];
    assert_eq!(
        package.channels[0].min_version.as_ref().unwrap().as_str(),
        "4.10",
        "4.10 is text, not the number 4.1"
    );
    assert_eq!(
        mirror.operators[0].unique_name(),
        "registry.example.com/mirror-ns/op-index:v1",
        "targets replace path and tag"
    );
    assert_eq!(
        mirror.operators[1].unique_name(),
        "oci:///srv/catalogs/my-index",
        "a layout is its path"
    );
    assert_eq!(
        mirror.additional_images[0].name.to_string(),
        "registry.example.com/ubi9/ubi:latest",
        "the transport is no part of a name"
    );
    let charts: Vec<Option<usize>> = mirror
        .helm
        .repositories
        .iter()
        .map(|row| row.charts.as_ref().map(Vec::len))
        .collect();
    assert_eq!(
        charts,
        [Some(1), None, Some(0)],
        "no list of charts means all, an empty one none"
    );
    assert!(
        mirror.blocked_images[0].is_match("quay.io/alpine:3"),
        "patterns are found anywhere"
    );
    assert_eq!(
        set.notes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["all.yaml:43:3: samples has no task here: it names sample images but not where they are"],
        "what has no task gets a note, what has one gets none"
    );
    let error = set.error(channel.name.position, "no such channel", None);
    assert_eq!(
        error.render(),
        "error: no such channel\n  --> all.yaml:10:14\n   |\n10 |     - {name: stable-4.16, minVersion: 4.16.1, maxVersion: 4.16.10, shortestPath: true}\n   |              ^^^^^^^^^^^",
        "a later layer points at the line of the file"
    );
}

#[test]
fn rules_read_lists_by_path_and_fields_by_name() {
    let Config::ImageSet(set) = parse(EVERYTHING, "all.yaml").unwrap() else {
        panic!("this is an image set");
    };
    let sections: Vec<(String, usize)> = set
        .sections()
        .into_iter()
        .map(|section| (section.name, section.position.line))
        .collect();
    let expected = [
        ("mirror.platform.channels", 10),
        ("mirror.platform.graph", 6),
        ("mirror.platform.kubeVirtContainer", 7),
        ("mirror.operators", 13),
        ("mirror.additionalImages", 28),
        ("mirror.helm.repositories", 37),
        ("mirror.helm.repositories.charts", 36),
        ("mirror.helm.local", 40),
        ("mirror.blockedImages", 42),
    ]
    .map(|(name, line)| (name.to_owned(), line));
    assert_eq!(
        sections, expected,
        "the sections in use and where; samples are in none"
    );
    for list in LISTS {
        assert!(
            set.rows(&format!("mirror.{list}")).is_some(),
            "{list} is a list"
        );
    }
    assert_eq!(
        set.rows("mirror.images"),
        None,
        "what is no list is told from an empty one"
    );
    assert_eq!(
        set.rows("delete.operators"),
        None,
        "an image set has no delete stanza"
    );

    let rows = set.rows("mirror.additionalImages").unwrap();
    assert_eq!(
        rows[0].value(),
        Value::map([
            ("name", "registry.example.com/ubi9/ubi:latest".into()),
            ("targetRepo", "base/ubi9".into()),
            ("targetTag", "rel1".into()),
        ]),
        "fields are spelled as in the file, absent ones absent"
    );
    assert_eq!(
        rows[0].position_of("targetRepo").line,
        29,
        "each field knows its place"
    );
    assert_eq!(
        rows[0].position_of("platforms"),
        rows[0].position,
        "an absent one has the row's"
    );

    let channels = set.rows("mirror.platform.channels").unwrap();
    assert_eq!(
        channels[1].value(),
        Value::map([
            ("name", "4-stable".into()),
            ("type", "okd".into()),
            ("full", true.into()),
            (
                "architectures",
                Value::List(vec!["amd64".into(), "arm64".into()])
            ),
        ]),
        "a channel carries what its platform says"
    );
    let packages = set.rows("mirror.operators.packages").unwrap();
    assert_eq!(packages.len(), 2, "packages of all catalogs");
    assert_eq!(
        packages[1].fields["catalog"],
        "registry.example.com/redhat/index:v4.16".into(),
        "a package carries its catalog"
    );
    let charts = set.rows("mirror.helm.repositories.charts").unwrap();
    assert_eq!(
        charts[0].fields["url"],
        "https://charts.example.com/podinfo".into(),
        "and a chart its repository"
    );
    let reference = |path: &str| -> Vec<String> {
        let rows = set.rows(path).unwrap();
        rows.iter()
            .map(|row| match &row.fields["ref"] {
                Value::Text(text) => text.clone(),
                other => panic!("{other:?} is no name"),
            })
            .collect()
    };
    assert_eq!(
        (
            reference("mirror.helm.repositories.charts"),
            reference("mirror.helm.local")
        ),
        (
            vec!["https://charts.example.com/podinfo#podinfo".to_owned()],
            vec!["./charts/mychart-1.2.3.tgz".to_owned()]
        ),
        "charts have the names that the lock calls them by"
    );
}

#[test]
fn a_release_by_name_replaces_the_channels() {
    let text = "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  platform:\n    release: quay.io/a/release:1\n    channels:\n    - name: stable-4.16\n";
    let config = parse(text, "release.yaml").unwrap();
    let used: Vec<String> = config
        .sections()
        .into_iter()
        .map(|section| section.name)
        .collect();
    assert_eq!(
        used,
        ["mirror.platform.release"],
        "the channels are in no section"
    );
    assert_eq!(
        notes(&config)[0].to_string(),
        "release.yaml:6:5: the channels are ignored: release names quay.io/a/release:1 alone",
        "and a note says so"
    );
}

#[test]
fn yaml_is_read_in_all_its_forms() {
    let plain = "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  additionalImages:\n  - name: quay.io/a/b:1\n    targetTag: x\n  - name: quay.io/a/c:1\n    targetTag: x\n";
    let expected = parse(plain, "plain").unwrap();
    for (form, text) in [
        ("CRLF", plain.replace('\n', "\r\n")),
        ("a byte order mark", format!("\u{feff}{plain}")),
        ("document marks and comments", format!("# a\n---\n{plain}...\n# b\n")),
        (
            "JSON",
            r#"{"apiVersion": "mirror.openshift.io/v2alpha1", "kind": "ImageSetConfiguration", "mirror":
                {"additionalImages": [{"name": "quay.io/a/b:1", "targetTag": "x"},
                                      {"name": "quay.io\/a\/c:1", "targetTag": "x"}]}}"#
                .to_owned(),
        ),
        (
            "JSON with tabs",
            "{\n\t\"apiVersion\": \"mirror.openshift.io/v2alpha1\",\n\t\"kind\": \"ImageSetConfiguration\",\n\t\"mirror\": {\"additionalImages\": [{\"name\": \"quay.io/a/b:1\", \"targetTag\": \"x\"}, {\"name\": \"quay.io/a/c:1\", \"targetTag\": \"x\"}]}\n}\n".to_owned(),
        ),
        (
            "anchors",
            plain.replace("targetTag: x\n  -", "targetTag: &tag x\n  -").replace("c:1\n    targetTag: x", "c:1\n    targetTag: *tag"),
        ),
        (
            "a merge key",
            plain
                .replace("  - name: quay.io/a/b:1", "  - &first\n    name: quay.io/a/b:1")
                .replace("c:1\n    targetTag: x", "c:1\n    <<: *first"),
        ),
        (
            "merge keys from a list",
            plain
                .replace("  - name: quay.io/a/b:1", "  - &first\n    name: quay.io/a/b:1")
                .replace("c:1\n    targetTag: x", "c:1\n    <<: [{platforms: []}, *first]"),
        ),
        ("quotes", plain.replace(": x", ": \"\\x78\"").replace("quay.io/a/b:1", "'quay.io/a/b:1'")),
        ("folded text", plain.replace("name: quay.io/a/b:1", "name: >-\n      quay.io/a/b:1")),
        ("nulls", plain.replace("mirror:\n", "storageConfig:\nmirror:\n  operators: ~\n  helm: null\n")),
        ("keys in another case", plain.replace("additionalImages", "ADDITIONALIMAGES").replace("kind", "Kind")),
    ] {
        let config = parse(&text, form).unwrap_or_else(|errors| panic!("{form}:\n{}", errors.render()));
        assert_eq!(config, expected, "{form} must say the same");
    }
}

#[test]
fn positions_do_not_depend_on_the_ends_of_lines() {
    let text = "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  additionalImages:\n  - name: nginx\n";
    let expected = parse(text, "a").unwrap_err();
    for form in [
        text.replace('\n', "\r\n"),
        text.replace('\n', "\r"),
        format!("\u{feff}{text}"),
    ] {
        assert_eq!(
            parse(&form, "a").unwrap_err(),
            expected,
            "the same place in {form:?}"
        );
    }
}

#[test]
fn hostile_yaml_is_refused_without_being_expanded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{items}]").unwrap();
    }
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for level in 1..200 {
        writeln!(chain, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
    }
    let text = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(1 << 20),
        vec!["*a"; 100].join(", ")
    );
    for (text, part) in [
        (bomb, "aliases of this file stand for more"),
        (chain, "aliases of this file stand for more"),
        (text, "aliases of this file stand for more"),
        ("[".repeat(20_000), "not YAML"),
        ("- ".repeat(20_000), "not YAML"),
        ("{a: ".repeat(20_000), "not YAML"),
        (" ".repeat((16 << 20) + 1), "a config has at most"),
    ] {
        let errors = parse(&text, "hostile").unwrap_err().to_string();
        assert!(
            errors.contains(part),
            "{part:?} must be said, not {errors:.200}"
        );
    }
}

#[test]
fn what_is_no_text_is_refused_where_it_stops_being_text() {
    let mut utf16 = vec![0xff, 0xfe];
    utf16.extend(
        "kind: ImageSetConfiguration"
            .encode_utf16()
            .flat_map(u16::to_le_bytes),
    );
    for (bytes, place, hint) in [
        (
            b"kind: a\nb: \xe4\n".to_vec(),
            "f:2:4: not UTF-8 text",
            "save the file as UTF-8",
        ),
        (
            utf16,
            "f:1:1: not UTF-8 text",
            "this is UTF-16: save the file as UTF-8",
        ),
        (
            vec![0x1f, 0x8b, 8, 0],
            "f:1:2: not UTF-8 text",
            "this is gzip: give the file inside",
        ),
    ] {
        let errors = parse_bytes(&bytes, "f").unwrap_err();
        assert_eq!(
            errors.to_string(),
            place,
            "the first byte that is no text is named"
        );
        assert_eq!(
            errors.diagnostics()[0].hint.as_deref(),
            Some(hint),
            "and what to do"
        );
    }
    let tabs = "apiVersion: mirror.openshift.io/v2alpha1\nmirror:\n\tplatform: {}\n";
    let errors = parse(tabs, "f").unwrap_err();
    assert!(
        errors.diagnostics()[0]
            .hint
            .as_deref()
            .is_some_and(|hint| hint.contains("spaces")),
        "tabs are named: {}",
        errors.render()
    );
}

#[test]
fn versions_are_checked_for_their_form_alone() {
    for (text, strict, lenient) in [
        ("4.16.1", true, true),
        ("4.16.0-rc.2", true, true),
        ("26.4.6-opr.1", true, true),
        ("4.19.0-202509300824", true, true),
        ("1.0.0+build.007", true, true),
        ("0.10.0-mas-2", true, true),
        ("4.10", false, true),
        ("4", false, true),
        ("v1.2.3", false, true),
        ("04.010.0", false, true),
        ("4.10-rc.1", false, false),
        ("1.0.0-01", false, false),
        ("1.0.0-", false, false),
        ("1.0.0+", false, false),
        ("1.0.0.0", false, false),
        ("1..0", false, false),
        ("", false, false),
        ("latest", false, false),
        (">=1.0.0", false, false),
        ("99999999999999999999.0.0", false, false),
    ] {
        assert_eq!(
            decode::version_form(text, true).is_ok(),
            strict,
            "{text:?} as a release"
        );
        assert_eq!(
            decode::version_form(text, false).is_ok(),
            lenient,
            "{text:?} as a bundle"
        );
    }
}

#[test]
fn settings_are_typed_and_readable_by_name() {
    let text = "\
store = \"../store\"
[stream.prod]
config = \"imageset.yaml\"
part-size = \"4.7GB\"
keep = 5
[stream.small]
part-size = 0x100000
[destination.site-a]
registry = \"docker://[::1]:5000/mirror/a\"
source-policy = \"AllowContactingSource\"
max-nested-paths = 0
[registry.\"quay.io\"]
connections = 8
[url.\"https://a.example/b\"]
location = \"https://c.example/d\"
[catalog.\"quay.io/a/index:v1\"]
selection = \"any\"
[chart.\"https://charts.example.com#a\"]
values = { b = [1, 2.5, \"x\"], a = { c = true } }
values-files = [\"v.yaml\"]
strict = false
[samples]
configmap = \"samples.yaml\"
[graph]
data = \"graph-data.tar.gz\"
base = \"quay.io/a/base:9\"
[signatures.\"quay.io/a\"]
policy = \"require\"
keys = [\"k.asc\"]
referrers = true
[policy]
max-age = 30
registries = [\"quay.io\"]
";
    let settings = Settings::parse(text, "imgbuild.toml")
        .unwrap_or_else(|errors| panic!("{}", errors.render()));
    assert_eq!(
        settings.streams["prod"].part_size.as_ref().unwrap().value,
        4_700_000_000,
        "a size in bytes"
    );
    assert_eq!(
        settings.streams["small"].part_size.as_ref().unwrap().value,
        1 << 20,
        "a bare number is bytes"
    );
    assert_eq!(
        settings.destinations["site-a"].registry.as_str(),
        "[::1]:5000/mirror/a",
        "without the scheme"
    );
    assert_eq!(
        settings.charts["https://charts.example.com#a"]
            .values
            .as_ref()
            .unwrap()
            .as_str(),
        r#"{"a":{"c":true},"b":[1,2.5,"x"]}"#,
        "values are one JSON text with sorted keys"
    );
    let graph = &settings.graph.as_ref().unwrap().value;
    assert_eq!(
        graph.base.as_ref().unwrap().value.to_string(),
        "quay.io/a/base:9",
        "an image by name"
    );
    assert_eq!(
        settings.registries["quay.io"].position.line, 12,
        "each table knows its place"
    );
    let row = &settings.rows("signatures").unwrap()[0];
    assert_eq!(
        row.value(),
        Value::map([
            ("name", "quay.io/a".into()),
            ("policy", "require".into()),
            ("keys", Value::List(vec!["k.asc".into()])),
            ("referrers", true.into()),
        ]),
        "a row has its table's name and keys"
    );
    for table in [
        "stream",
        "destination",
        "registry",
        "url",
        "catalog",
        "chart",
        "graph",
        "samples",
        "policy",
    ] {
        assert!(
            !settings.rows(table).unwrap().is_empty(),
            "{table} has rows"
        );
    }
    assert_eq!(
        settings.rows("streams"),
        None,
        "what is no table is told from an empty one"
    );
    assert_eq!(
        settings.check_policy(&["max-age", "registries"]),
        Ok(()),
        "known keys pass"
    );
    let errors = settings
        .check_policy(&["maxage", "registries"])
        .unwrap_err();
    assert_eq!(
        errors.render(),
        "error: unknown key \"max-age\" in policy\n  --> imgbuild.toml:32:1\n   |\n32 | max-age = 30\n   | ^^^^^^^\nhint: did you mean \"maxage\"?",
        "the lock says which keys there are"
    );
    assert!(
        Settings::parse("", "imgbuild.toml")
            .unwrap()
            .store
            .is_none(),
        "every line is optional"
    );
}

mod any {
    //! Any config at all, by value.

    use proptest::option::of;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::*;
    use crate::oci::PlatformName;

    fn at<T>(value: T) -> At<T> {
        At::new(value, Position::default())
    }

    /// Text that is awkward in YAML.
    #[rustfmt::skip]
    fn text() -> impl Strategy<Value = At<String>> {
        let awkward = [
            "true", "no", "~", "null", "4.10", "010", "0x10", "1e3", ".inf", "2024-01-01", "12:30", "<<", "=", "- a",
            "a: b", "a:", "#a", "a #b", " a ", "\t", "\n", "a\nb", "\r\n", "'", "\"", "\\", "{", "[", "&a", "*a", "!a", "|",
            ">", "%a", "@a", "`", "?", "-", "---", "...", "\u{feff}", "\u{85}", "\u{2028}", "\0", "\u{1f600}", "日本",
        ];
        prop_oneof![
            "[a-z][a-z0-9.-]{0,8}",
            select(awkward.to_vec()).prop_map(str::to_owned),
            "\\PC{1,6}",
            any::<String>().prop_filter("a text is not empty", |text| !text.is_empty()),
        ]
        .prop_map(at)
    }

    /// Names that differ.
    fn names(most: usize) -> impl Strategy<Value = Vec<At<String>>> {
        prop::collection::btree_set(text().prop_map(|name| name.value), 0..most)
            .prop_map(|names| names.into_iter().map(at).collect())
    }

    fn flag() -> impl Strategy<Value = At<bool>> {
        any::<bool>().prop_map(at)
    }

    fn version() -> impl Strategy<Value = Option<At<String>>> {
        of("[1-9][0-9]?\\.[1-9]0?\\.(0|[1-9][0-9]?)(-(rc\\.[1-9]|mas))?".prop_map(at))
    }

    fn image() -> impl Strategy<Value = At<crate::reference::ImageName>> {
        prop_oneof![
            "(quay\\.io|localhost:5000|\\[::1\\]:5000)/[a-z]{1,3}(/[a-z]{1,3})?:[a-zA-Z0-9]{1,4}",
            "quay\\.io/[a-z]{1,3}@sha256:[0-9a-f]{64}",
            "oci:///[a-z]{1,3}(/[a-z]{1,3})?(:v[0-9])?",
        ]
        .prop_map(|name| at(name.parse().unwrap()))
    }

    fn path() -> impl Strategy<Value = Option<At<String>>> {
        of("[a-z]{1,3}(/[a-z0-9]{1,3})?".prop_map(at))
    }

    fn tag() -> impl Strategy<Value = Option<At<crate::reference::Tag>>> {
        of("[a-z0-9_][a-z0-9.]{0,3}".prop_map(|tag| at(tag.parse().unwrap())))
    }

    fn platforms() -> impl Strategy<Value = Vec<At<PlatformName>>> {
        prop::sample::subsequence(vec!["linux/amd64", "linux/386", "windows/arm64"], 0..3).prop_map(
            |names| {
                names
                    .into_iter()
                    .map(|name| at(name.parse().unwrap()))
                    .collect()
            },
        )
    }

    fn channel() -> impl Strategy<Value = ReleaseChannel> {
        let kind = select(vec![PlatformType::Ocp, PlatformType::Okd]).prop_map(at);
        (kind, version(), version(), flag(), flag()).prop_map(
            |(kind, min_version, max_version, shortest_path, full)| ReleaseChannel {
                name: at(String::new()),
                kind,
                min_version,
                max_version,
                shortest_path,
                full,
            },
        )
    }

    fn platform(two: bool) -> impl Strategy<Value = Platform> {
        let architectures = prop::sample::subsequence(
            vec![
                Architecture::Amd64,
                Architecture::S390x,
                Architecture::Multi,
            ],
            0..3,
        );
        (
            flag(),
            prop::collection::vec(channel(), 0..3),
            architectures,
            platforms(),
            of(image()),
            flag(),
        )
            .prop_map(
                move |(graph, channels, architectures, platforms, release, kube_virt_container)| {
                    let mut channels: Vec<_> = channels.into_iter().map(at).collect();
                    for (index, channel) in channels.iter_mut().enumerate() {
                        channel.value.name = at(format!("stable-4.{index}0"));
                    }
                    let platforms = if architectures.is_empty() && two {
                        platforms
                    } else {
                        Vec::new()
                    };
                    Platform {
                        graph,
                        channels,
                        architectures: architectures.into_iter().map(at).collect(),
                        platforms,
                        release: release.filter(|_| two),
                        kube_virt_container: at(*kube_virt_container && two),
                    }
                },
            )
    }

    fn package(two: bool) -> impl Strategy<Value = Package> {
        (
            text(),
            of(text()),
            version(),
            version(),
            names(3),
            names(3),
            version(),
            of(text()),
        )
            .prop_map(
                move |(
                    name,
                    default,
                    min_version,
                    max_version,
                    channels,
                    bundles,
                    channel_min,
                    min_bundle,
                )| {
                    let ranged = min_version.is_some() || max_version.is_some();
                    let channels: Vec<_> = channels
                        .into_iter()
                        .map(|name| {
                            at(OperatorChannel {
                                name,
                                min_version: channel_min.clone().filter(|_| !ranged),
                                max_version: None,
                                min_bundle: min_bundle
                                    .clone()
                                    .filter(|_| !two && channel_min.is_none()),
                            })
                        })
                        .collect();
                    let default_channel = if two {
                        default
                    } else {
                        channels.first().map(|row| row.name.clone())
                    };
                    let bundles = if two && !ranged && channels.is_empty() {
                        bundles
                    } else {
                        Vec::new()
                    };
                    Package {
                        name,
                        default_channel,
                        min_bundle: min_bundle.filter(|_| !two && min_version.is_none()),
                        min_version,
                        max_version,
                        channels,
                        bundles,
                    }
                },
            )
    }

    fn operator(two: bool) -> impl Strategy<Value = Operator> {
        let packages = prop::collection::vec(package(two), 0..3).prop_map(|packages| {
            let packages: std::collections::BTreeMap<_, _> = packages
                .into_iter()
                .map(|package| (package.name.value.clone(), package))
                .collect();
            packages.into_values().map(at).collect::<Vec<_>>()
        });
        (
            image(),
            flag(),
            path(),
            path(),
            tag(),
            of(text()),
            flag(),
            platforms(),
            packages,
        )
            .prop_map(
                move |(
                    catalog,
                    full,
                    target_catalog,
                    target_name,
                    target_tag,
                    template,
                    skip,
                    platforms,
                    packages,
                )| {
                    Operator {
                        catalog,
                        full,
                        target_catalog,
                        target_name: target_name.filter(|_| !two),
                        target_tag,
                        target_catalog_source_template: template.clone().filter(|_| two),
                        skip_dependencies: skip,
                        original_ref: template.filter(|_| !two),
                        platforms: if two { platforms } else { Vec::new() },
                        packages,
                    }
                },
            )
    }

    fn additional(two: bool) -> impl Strategy<Value = AdditionalImage> {
        (image(), path(), tag(), platforms()).prop_map(
            move |(name, target_repo, target_tag, platforms)| {
                if two {
                    AdditionalImage {
                        name,
                        target_repo,
                        target_tag,
                        platforms,
                    }
                } else {
                    AdditionalImage {
                        name,
                        target_repo: None,
                        target_tag: None,
                        platforms: Vec::new(),
                    }
                }
            },
        )
    }

    fn helm(two: bool) -> impl Strategy<Value = Helm> {
        let chart = (text(), of(text()), of(text()), names(3), platforms()).prop_map(
            move |(name, version, path, image_paths, platforms)| {
                at(Chart {
                    name,
                    version,
                    path,
                    image_paths,
                    platforms: if two { platforms } else { Vec::new() },
                })
            },
        );
        let url = select(vec![
            "https://a.example/b",
            "http://a.example:80",
            "oci://a.example/b/c",
        ]);
        let repository = (text(), url, of(prop::collection::vec(chart, 0..3))).prop_map(
            |(name, url, charts)| {
                at(HelmRepository {
                    name,
                    url: at(url.to_owned()),
                    charts,
                })
            },
        );
        let local = (of(text()), text(), of(text()), names(3)).prop_map(
            |(name, path, version, image_paths)| {
                at(LocalChart {
                    name,
                    path,
                    version,
                    image_paths,
                    platforms: Vec::new(),
                })
            },
        );
        (
            prop::collection::vec(repository, 0..3),
            prop::collection::vec(local, 0..3),
        )
            .prop_map(|(repositories, local)| Helm {
                repositories,
                local,
            })
    }

    fn mirror(two: bool) -> impl Strategy<Value = Mirror> {
        let pattern = text().prop_map(|text| text.map(|text| regex::escape(&text)));
        let operators = prop::collection::vec(operator(two), 0..3).prop_map(|operators| {
            let operators: std::collections::BTreeMap<_, _> = operators
                .into_iter()
                .map(|operator| (operator.unique_name(), operator))
                .collect();
            operators.into_values().map(at).collect::<Vec<_>>()
        });
        let images = prop::collection::vec(additional(two), 0..3);
        (
            platform(two),
            operators,
            images,
            helm(two),
            prop::collection::vec(pattern, 0..3),
            names(3),
        )
            .prop_map(
                |(platform, operators, images, helm, patterns, samples)| Mirror {
                    platform,
                    operators,
                    additional_images: images.into_iter().map(at).collect(),
                    helm,
                    blocked_images: patterns
                        .into_iter()
                        .map(|pattern| at(Pattern(regex::Regex::new(&pattern).unwrap())))
                        .collect(),
                    samples,
                },
            )
    }

    fn storage() -> impl Strategy<Value = Option<StorageConfig>> {
        of((of(text()), of(text()), of(flag())).prop_map(
            |(local_path, registry_image, registry_skip_tls)| StorageConfig {
                local_path,
                registry_image,
                registry_skip_tls,
            },
        ))
    }

    pub(super) fn image_set() -> impl Strategy<Value = ImageSet> {
        any::<bool>().prop_flat_map(|two| {
            (of(1..1_000_000_u64), storage(), mirror(two)).prop_map(
                move |(size, storage_config, mirror)| ImageSet {
                    api_version: if two {
                        ApiVersion::V2Alpha1
                    } else {
                        ApiVersion::V1Alpha2
                    },
                    archive_size: size.map(at),
                    storage_config,
                    mirror,
                    notes: Vec::new(),
                    document: Arc::new(Document::new("any", "")),
                },
            )
        })
    }

    pub(super) fn delete_set() -> impl Strategy<Value = DeleteImageSet> {
        mirror(true).prop_map(|mut delete| {
            delete.blocked_images.clear();
            DeleteImageSet {
                delete,
                notes: Vec::new(),
                document: Arc::new(Document::new("any", "")),
            }
        })
    }
}

/// One edit of a text, by what it does.
#[derive(Clone, Debug)]
enum Edit {
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, String),
    Repeat(prop::sample::Index, usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let index = any::<prop::sample::Index>;
    let words = prop::sample::select(vec![
        ":",
        "- ",
        "\n",
        "  ",
        "\t",
        "#",
        "&a ",
        "*a",
        "<<: *a",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "\"",
        "'",
        "|\n",
        ">\n",
        "---\n",
        "...\n",
        "%YAML 1.1\n",
        "!x ",
        "? ",
        "~",
        "null",
        "true",
        "4.10",
        "name: ",
        "mirror:",
        "\r",
        "\u{feff}",
        "\u{85}",
        "\0",
        "日",
        "\\",
    ]);
    let edit = prop_oneof![
        (index(), 1..40_usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        (index(), words.prop_map(str::to_owned)).prop_map(|(at, word)| Edit::Insert(at, word)),
        (index(), any::<String>()).prop_map(|(at, text)| Edit::Insert(at, text)),
        (index(), 1..200_usize).prop_map(|(at, length)| Edit::Repeat(at, length)),
    ];
    prop::collection::vec(edit, 1..6)
}

fn edited(text: &str, edits: &[Edit]) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for edit in edits {
        let (Edit::Remove(at, _) | Edit::Insert(at, _) | Edit::Repeat(at, _)) = edit;
        let start = at.index(characters.len() + 1);
        match edit {
            Edit::Remove(_, length) => {
                characters.drain(start..(start + length).min(characters.len()));
            }
            Edit::Insert(_, text) => {
                characters.splice(start..start, text.chars());
            }
            Edit::Repeat(_, length) => {
                let part = characters[start..(start + length).min(characters.len())].to_vec();
                characters.splice(start..start, part);
            }
        }
    }
    characters.into_iter().collect()
}

fn check_places(errors: &ConfigErrors, lines: usize) -> Result<(), TestCaseError> {
    prop_assert!(!errors.diagnostics().is_empty(), "a refusal says why");
    for diagnostic in errors.diagnostics() {
        prop_assert!(
            diagnostic.line >= 1 && diagnostic.line <= lines,
            "{diagnostic} is in the file"
        );
        prop_assert!(
            diagnostic.column >= 1 && diagnostic.length >= 1,
            "{diagnostic} has a place"
        );
        prop_assert!(diagnostic.render().contains('^'), "the place is marked");
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_image_set_survives_printing(set in any::image_set()) {
        let text = set.to_string();
        let read = parse(&text, "printed").map_err(|errors| TestCaseError::fail(format!("{}\n{text}", errors.render())))?;
        prop_assert_eq!(&read, &Config::ImageSet(set), "printed as\n{}", text);
        prop_assert_eq!(read.to_string(), text, "one config prints one way");
    }

    #[test]
    fn any_delete_config_survives_printing(set in any::delete_set()) {
        let text = set.to_string();
        let read = parse(&text, "printed").map_err(|errors| TestCaseError::fail(format!("{}\n{text}", errors.render())))?;
        prop_assert_eq!(read, Config::Delete(set), "printed as\n{}", text);
    }

    #[test]
    fn a_damaged_config_is_read_or_refused_at_a_place(
        base in prop::sample::select(LOADABLE.iter().map(|(_, text)| *text).chain([EVERYTHING]).collect::<Vec<_>>()),
        edits in edits(),
    ) {
        let text = edited(base, &edits);
        match parse(&text, "damaged") {
            Ok(config) => {
                let printed = config.to_string();
                let again = parse(&printed, "printed").map_err(|errors| TestCaseError::fail(errors.render()))?;
                prop_assert_eq!(again, config, "what was read is what is printed");
            }
            Err(errors) => check_places(&errors, text.lines().count() + text.matches('\r').count() + 1)?,
        }
    }

    #[test]
    fn damaged_settings_are_read_or_refused_at_a_place(edits in edits()) {
        let text = edited(&settings_starter().replace("\n#", "\n"), &edits);
        if let Err(errors) = Settings::parse(&text, "damaged") {
            check_places(&errors, text.lines().count() + text.matches('\r').count() + 1)?;
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(errors) = parse_bytes(&bytes, "noise") {
            check_places(&errors, bytes.len() + 1)?;
        }
    }
}

#[test]
fn what_other_readers_take_for_something_else_is_printed_in_quotes() {
    let text = "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  operators:\n  - catalog: quay.io/a/index:v1\n    packages:\n    - name: 'no'\n      defaultChannel: 4.10\n      channels:\n      - name: 4.10\n        minVersion: 4.10\n      - name: \"a: b\"\n";
    let printed = parse(text, "a").unwrap().to_string();
    assert_eq!(
        printed,
        "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  operators:\n  - catalog: quay.io/a/index:v1\n    packages:\n    - name: \"no\"\n      defaultChannel: \"4.10\"\n      channels:\n      - name: \"4.10\"\n        minVersion: \"4.10\"\n      - name: \"a: b\"\n",
        "a printed config means the same to every reader"
    );
}
