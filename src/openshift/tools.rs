//! The tools that a release carries in its images: clients and installers, for several systems.
//!
//! Which image has which tool at which path, what its archive is called, and what is written into it: that table is
//! what `oc adm release extract` goes by, so scripts that look for a file name find it.
//!
//! ```text
//! image-references --image--> layers --path--> binary --marker--> pinned binary --pack--> tar.gz or zip
//!                                                       └ macho: its signature made good again
//! ```

pub mod macho;
pub mod marker;
pub mod pack;

use std::fmt;
use std::str::FromStr;

/// What a tool runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// Linux.
    Linux,
    /// macOS.
    Mac,
    /// Windows.
    Windows,
}

/// The machine that a tool runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// That of the release; any of them, where a release is for several.
    Release,
    /// This one, by the word that images use.
    Named(&'static str),
}

/// A tool, in one of its forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// What users call it; variants for older systems have a suffix (`oc.rhel8`).
    pub command: &'static str,
    /// What it runs on.
    pub system: System,
    /// Which machine.
    pub machine: Machine,
    /// The component that has it.
    pub image: &'static str,
    /// Where it is in that image.
    pub path: &'static str,
    /// What its archive is called before the version.
    pub archive: &'static str,
    /// What else it is called inside its archive.
    pub link: Option<&'static str>,
    /// Whether it is told which payload it belongs to, besides the version and the architecture.
    pub knows_payload: bool,
    /// Whether it is told the version.
    pub knows_version: bool,
    /// Whether it comes only when asked for by name.
    pub by_name_only: bool,
}

impl Tool {
    /// The name of the file, as the system has it.
    #[must_use]
    pub fn file(&self) -> String {
        let name = self
            .command
            .strip_suffix(".rhel8")
            .or_else(|| self.command.strip_suffix(".rhel9"))
            .unwrap_or(self.command);
        match self.system {
            System::Windows => format!("{name}.exe"),
            System::Linux | System::Mac => name.to_owned(),
        }
    }

    /// The name of its archive.
    #[must_use]
    pub fn archive(&self, version: &str) -> String {
        let suffix = match self.system {
            System::Windows => "zip",
            System::Linux | System::Mac => "tar.gz",
        };
        format!("{}-{version}.{suffix}", self.archive)
    }

    /// The text that lies beside it in its archive.
    #[must_use]
    pub fn readme(&self) -> String {
        let file = self.file();
        let (title, what, source) = if self.command.starts_with("oc") {
            (
                "OpenShift client",
                "talks to OpenShift and Kubernetes clusters",
                "https://github.com/openshift/oc",
            )
        } else if self.command.starts_with("ccoctl") {
            (
                "Cloud credentials for OpenShift",
                "makes the cloud credentials of a cluster whose credential mode is Manual",
                "https://github.com/openshift/cloud-credential-operator",
            )
        } else {
            (
                "OpenShift installer",
                "installs OpenShift clusters",
                "https://github.com/openshift/installer",
            )
        };
        let link = self.link.map_or_else(String::new, |link| {
            format!("`{link}` is the same program under the name that Kubernetes uses.\n")
        });
        let text = format!(
            "# {title}\n\n`{file}` {what}.\n{link}\nPut it into a folder that is on the PATH, or call it by its path.\nDocumentation: https://docs.openshift.com\n\nIt was taken unchanged from a release, but for the version, architecture and release\nimage written into it, and is under the Apache License 2.0. Source: {source}\n"
        );
        match self.system {
            System::Windows => text.replace('\n', "\r\n"),
            System::Linux | System::Mac => text,
        }
    }
}

const OC: Tool = Tool {
    command: "oc",
    system: System::Linux,
    machine: Machine::Release,
    image: "cli",
    path: "usr/bin/oc",
    archive: "openshift-client-linux",
    link: Some("kubectl"),
    knows_payload: false,
    knows_version: true,
    by_name_only: false,
};

const INSTALL: Tool = Tool {
    command: "openshift-install",
    image: "installer",
    path: "usr/bin/openshift-install",
    archive: "openshift-install-linux",
    link: None,
    knows_payload: true,
    ..OC
};

const CREDENTIALS: Tool = Tool {
    command: "ccoctl",
    image: "cloud-credential-operator",
    path: "usr/bin/ccoctl",
    archive: "ccoctl-linux",
    knows_payload: false,
    knows_version: false,
    ..INSTALL
};

const fn client(
    command: &'static str,
    system: System,
    machine: &'static str,
    path: &'static str,
    archive: &'static str,
) -> Tool {
    Tool {
        command,
        system,
        machine: Machine::Named(machine),
        image: "cli-artifacts",
        path,
        archive,
        link: match system {
            System::Windows => None,
            System::Linux | System::Mac => Some("kubectl"),
        },
        ..OC
    }
}

const fn installer(
    system: System,
    machine: &'static str,
    path: &'static str,
    archive: &'static str,
) -> Tool {
    Tool {
        system,
        machine: Machine::Named(machine),
        image: "installer-artifacts",
        path,
        archive,
        ..INSTALL
    }
}

/// Every tool in every form.
#[rustfmt::skip]
pub const TOOLS: &[Tool] = &[
    OC,
    client("oc", System::Linux, "amd64", "usr/share/openshift/linux_amd64/oc", "openshift-client-linux-amd64"),
    client("oc.rhel8", System::Linux, "amd64", "usr/share/openshift/linux_amd64/oc.rhel8", "openshift-client-linux-amd64-rhel8"),
    client("oc.rhel9", System::Linux, "amd64", "usr/share/openshift/linux_amd64/oc.rhel9", "openshift-client-linux-amd64-rhel9"),
    client("oc", System::Linux, "arm64", "usr/share/openshift/linux_arm64/oc", "openshift-client-linux-arm64"),
    client("oc.rhel8", System::Linux, "arm64", "usr/share/openshift/linux_arm64/oc.rhel8", "openshift-client-linux-arm64-rhel8"),
    client("oc.rhel9", System::Linux, "arm64", "usr/share/openshift/linux_arm64/oc.rhel9", "openshift-client-linux-arm64-rhel9"),
    client("oc", System::Linux, "ppc64le", "usr/share/openshift/linux_ppc64le/oc", "openshift-client-linux-ppc64le"),
    client("oc.rhel8", System::Linux, "ppc64le", "usr/share/openshift/linux_ppc64le/oc.rhel8", "openshift-client-linux-ppc64le-rhel8"),
    client("oc.rhel9", System::Linux, "ppc64le", "usr/share/openshift/linux_ppc64le/oc.rhel9", "openshift-client-linux-ppc64le-rhel9"),
    client("oc", System::Linux, "s390x", "usr/share/openshift/linux_s390x/oc", "openshift-client-linux-s390x"),
    client("oc", System::Mac, "amd64", "usr/share/openshift/mac/oc", "openshift-client-mac"),
    client("oc", System::Mac, "arm64", "usr/share/openshift/mac_arm64/oc", "openshift-client-mac-arm64"),
    client("oc", System::Windows, "amd64", "usr/share/openshift/windows/oc.exe", "openshift-client-windows"),
    INSTALL,
    installer(System::Linux, "amd64", "usr/share/openshift/linux_amd64/openshift-install", "openshift-install-linux-amd64"),
    installer(System::Linux, "arm64", "usr/share/openshift/linux_arm64/openshift-install", "openshift-install-linux-arm64"),
    installer(System::Mac, "amd64", "usr/share/openshift/mac/openshift-install", "openshift-install-mac"),
    installer(System::Mac, "arm64", "usr/share/openshift/mac_arm64/openshift-install", "openshift-install-mac-arm64"),
    Tool { command: "openshift-baremetal-install", image: "baremetal-installer", archive: "openshift-baremetal-install-linux", by_name_only: true, ..INSTALL },
    Tool { command: "openshift-install-fips", image: "baremetal-installer", archive: "openshift-install-rhel", by_name_only: true, ..INSTALL },
    CREDENTIALS,
    Tool { command: "ccoctl.rhel8", path: "usr/bin/ccoctl.rhel8", archive: "ccoctl-linux-rhel8", ..CREDENTIALS },
    Tool { command: "ccoctl.rhel9", path: "usr/bin/ccoctl.rhel9", archive: "ccoctl-linux-rhel9", ..CREDENTIALS },
];

/// The commands there are, sorted.
#[must_use]
pub fn commands() -> Vec<&'static str> {
    let mut names: Vec<&str> = TOOLS.iter().map(|tool| tool.command).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The systems that tools are wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every one of them.
    All,
    /// One.
    One {
        /// The system.
        system: System,
        /// The machine, by the word that images use.
        machine: String,
    },
}

/// A word that names no system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no system: expected linux, mac or windows, with /ARCHITECTURE or without, or *"
)]
pub struct TargetError {
    /// What was read.
    pub text: String,
}

impl FromStr for Target {
    type Err = TargetError;

    /// Reads `linux`, `mac/arm64`, `windows`, `*` and the like; no machine means amd64.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text == "*" {
            return Ok(Self::All);
        }
        let (system, machine) = text.split_once('/').unwrap_or((text, "amd64"));
        let system = match system {
            "linux" => System::Linux,
            "mac" | "macos" | "darwin" => System::Mac,
            "windows" => System::Windows,
            _ => {
                return Err(TargetError {
                    text: text.to_owned(),
                });
            }
        };
        let known = ["amd64", "arm64", "ppc64le", "s390x"];
        let machine = match machine {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other if known.contains(&other) => other,
            _ => {
                return Err(TargetError {
                    text: text.to_owned(),
                });
            }
        };
        Ok(Self::One {
            system,
            machine: machine.to_owned(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("every system"),
            Self::One { system, machine } => {
                let system = match system {
                    System::Linux => "linux",
                    System::Mac => "mac",
                    System::Windows => "windows",
                };
                write!(formatter, "{system}/{machine}")
            }
        }
    }
}

/// The forms of a command (of all that come without being named, if it is `None`) for a target, out of a release for
/// the architecture `release` (`amd64`, `multi` and so on). Where the release's own form serves, no other is taken.
#[must_use]
pub fn choose(command: Option<&str>, target: &Target, release: &str) -> Vec<&'static Tool> {
    let is_own = |machine: &str| release == "multi" || machine == release;
    let fits = |tool: &Tool| match (target, tool.machine) {
        (Target::All, _) => true,
        (Target::One { system, machine }, Machine::Named(named)) => {
            tool.system == *system && named == machine
        }
        (Target::One { system, machine }, Machine::Release) => {
            tool.system == *system && is_own(machine)
        }
    };
    let asked = |tool: &Tool| command.map_or(!tool.by_name_only, |command| tool.command == command);
    let found: Vec<&Tool> = TOOLS
        .iter()
        .filter(|tool| asked(tool) && fits(tool))
        .collect();
    // The release's own form and the one for its machine are the same program.
    found
        .iter()
        .filter(|tool| {
            let Machine::Named(machine) = tool.machine else {
                return true;
            };
            let same = |own: &Tool| {
                own.machine == Machine::Release
                    && own.command == tool.command
                    && own.system == tool.system
            };
            let doubled = match target {
                Target::All => machine == release,
                Target::One { .. } => is_own(machine),
            };
            !(doubled && found.iter().any(|own| same(own)))
        })
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archives(command: Option<&str>, target: &str, release: &str) -> Vec<String> {
        choose(command, &target.parse().unwrap(), release)
            .iter()
            .map(|tool| tool.archive("4.16.1"))
            .collect()
    }

    #[test]
    fn a_command_has_one_form_per_system_and_machine() {
        for (command, target, release, wanted) in [
            (
                "oc",
                "linux",
                "amd64",
                "openshift-client-linux-4.16.1.tar.gz",
            ),
            (
                "oc",
                "linux/arm64",
                "amd64",
                "openshift-client-linux-arm64-4.16.1.tar.gz",
            ),
            (
                "oc",
                "linux/aarch64",
                "arm64",
                "openshift-client-linux-4.16.1.tar.gz",
            ),
            (
                "oc",
                "linux/s390x",
                "multi",
                "openshift-client-linux-4.16.1.tar.gz",
            ),
            ("oc", "mac", "amd64", "openshift-client-mac-4.16.1.tar.gz"),
            (
                "oc",
                "darwin/arm64",
                "s390x",
                "openshift-client-mac-arm64-4.16.1.tar.gz",
            ),
            (
                "oc",
                "windows",
                "amd64",
                "openshift-client-windows-4.16.1.zip",
            ),
            (
                "oc.rhel9",
                "linux",
                "amd64",
                "openshift-client-linux-amd64-rhel9-4.16.1.tar.gz",
            ),
            (
                "openshift-install",
                "linux",
                "arm64",
                "openshift-install-linux-amd64-4.16.1.tar.gz",
            ),
            (
                "openshift-install-fips",
                "linux",
                "amd64",
                "openshift-install-rhel-4.16.1.tar.gz",
            ),
            ("ccoctl", "linux", "amd64", "ccoctl-linux-4.16.1.tar.gz"),
        ] {
            assert_eq!(
                archives(Some(command), target, release),
                [wanted],
                "{command} for {target} out of a release for {release}"
            );
        }
        for (command, target, release) in [
            ("ccoctl", "mac", "amd64"),
            ("openshift-install", "windows", "amd64"),
            ("openshift-baremetal-install", "linux/arm64", "amd64"),
            ("kubectl", "linux", "amd64"),
        ] {
            assert!(
                archives(Some(command), target, release).is_empty(),
                "there is no {command} for {target} in {release}"
            );
        }
    }

    #[test]
    fn all_tools_have_different_archives() {
        for release in ["amd64", "arm64", "multi"] {
            let mut names = archives(None, "*", release);
            let count = names.len();
            assert!(count > 15, "{count} tools");
            assert!(
                !names.contains(&format!("openshift-client-linux-{release}-4.16.1.tar.gz")),
                "the release's own form is enough for {release}"
            );
            names.sort();
            names.dedup();
            assert_eq!(
                names.len(),
                count,
                "each has a name of its own for {release}"
            );
        }
        let mut all: Vec<&str> = TOOLS.iter().map(|tool| tool.archive).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(
            all.len(),
            TOOLS.len(),
            "no two forms share an archive's name"
        );
    }

    #[test]
    fn a_target_is_read_as_scripts_write_it() {
        for text in ["", "linux/", "linux/mips", "amd64", "bsd", "linux/amd64/v8"] {
            assert!(text.parse::<Target>().is_err(), "{text:?} names no system");
        }
        assert_eq!("*".parse::<Target>().unwrap(), Target::All);
        assert_eq!(
            "mac/arm64".parse::<Target>().unwrap().to_string(),
            "mac/arm64",
            "printing undoes parsing"
        );
    }

    #[test]
    fn a_file_is_called_as_its_system_calls_it() {
        for tool in TOOLS {
            let file = tool.file();
            assert_eq!(
                file.strip_suffix(".exe").is_some(),
                tool.system == System::Windows,
                "{file}"
            );
            assert!(!file.contains("rhel"), "{file} goes under its plain name");
            assert_eq!(
                tool.readme().contains("\r\n"),
                tool.system == System::Windows,
                "lines end as on the system of {file}"
            );
        }
    }
}
