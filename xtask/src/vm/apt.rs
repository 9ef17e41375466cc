//! A private configuration of apt below the cache: packages of Debian releases that are not this machine's, without a
//! change to its list of sources.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::command::output;

/// Keyring of Debian's archive, from the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with sources, lists and cache of its own. What is installed is the machine's.
pub(crate) struct Apt {
    directory: PathBuf,
}

impl Apt {
    /// Writes the configuration into `directory`; `suites` are suites of Debian, such as `bullseye-security`.
    pub(crate) fn configure(directory: &Path, suites: &[&str]) -> Result<Self> {
        ensure!(Path::new(KEYRING).exists(), "{KEYRING} is missing: install the package debian-archive-keyring");
        fs::create_dir_all(directory.join("lists/partial"))?;
        fs::create_dir_all(directory.join("cache/archives/partial"))?;
        let mirror = mirror()?;
        let sources: String = suites.iter().map(|suite| source(&mirror, suite)).collect();
        fs::write(directory.join("sources.list"), sources)?;
        let apt = Self { directory: directory.to_owned() };
        fs::write(apt.configuration(), configuration(directory))?;
        Ok(apt)
    }

    /// Fetches the lists of packages.
    pub(crate) fn update(&self) -> Result<()> {
        self.run("apt-get", &["update", "--quiet=2"], Path::new(".")).map(drop).context("fetching lists of packages")
    }

    /// Names of all packages that begin with `prefix`.
    pub(crate) fn packages(&self, prefix: &str) -> Result<Vec<String>> {
        let names = self.run("apt-cache", &["pkgnames", prefix], Path::new("."))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads the newest version of `package` into `directory`.
    pub(crate) fn download(&self, package: &str, directory: &Path) -> Result<()> {
        self.run("apt-get", &["download", "--quiet=2", package], directory).map(drop)
    }

    /// Installs `package` on this machine, from `suite`. Needs root.
    pub(crate) fn install(&self, package: &str, suite: &str) -> Result<()> {
        let words = ["install", "--yes", "--quiet=2", "--no-install-recommends", "--target-release", suite, package];
        self.run("apt-get", &words, Path::new(".")).map(drop)
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("apt.conf")
    }

    fn run(&self, program: &str, words: &[&str], directory: &Path) -> Result<String> {
        let mut command = Command::new(program);
        command.args(words).current_dir(directory);
        command.env("APT_CONFIG", self.configuration()).env("DEBIAN_FRONTEND", "noninteractive");
        output(&mut command)
    }
}

/// Where this machine takes Debian's packages from: the address before `debian` and `debian-security`.
fn mirror() -> Result<String> {
    let sites = output(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))?;
    let mirror = mirror_of(&sites)
        .context("no source of this machine's apt ends with `/debian`: it has no archive of Debian")?;
    Ok(mirror.to_owned())
}

fn mirror_of(sites: &str) -> Option<&str> {
    sites.lines().find_map(|site| site.trim().trim_end_matches('/').strip_suffix("/debian"))
}

fn source(mirror: &str, suite: &str) -> String {
    let archive = if suite.ends_with("-security") { "debian-security" } else { "debian" };
    format!("deb [signed-by={KEYRING}] {mirror}/{archive} {suite} main\n")
}

/// Read after the machine's own configuration, so that its proxies stay in force.
fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "Dir::Etc::SourceList \"{directory}/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::State::Lists \"{directory}/lists\";\n\
         Dir::Cache \"{directory}/cache\";\n\
         APT::Sandbox::User \"root\";\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_suites_come_from_their_own_archive() {
        assert!(
            source("http://a", "bullseye-security").ends_with(" http://a/debian-security bullseye-security main\n")
        );
        assert!(source("http://a", "trixie-backports").ends_with(" http://a/debian trixie-backports main\n"));
    }

    #[test]
    fn the_machines_own_mirror_is_taken() {
        let sites = "https://b/other\nhttp://a/debian-security/\nhttp://a/debian/\n";
        assert_eq!(mirror_of(sites), Some("http://a"));
        assert_eq!(mirror_of("https://b/other\n"), None);
    }
}
