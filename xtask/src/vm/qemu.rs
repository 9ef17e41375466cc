//! A QEMU that can be trusted with these guests: 7.2 of Debian 12 hangs now and then.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{apt::Apt, command::output};

/// The program.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// Oldest major version that did not hang.
const OLDEST: u32 = 8;

/// Debian's package of it.
const PACKAGE: &str = "qemu-system-x86";

/// Makes sure that a fitting QEMU is installed; installs it, from backports if the release's own is too old.
pub(crate) fn require(cache: &Path) -> Result<()> {
    if version().is_some_and(|major| major >= OLDEST) {
        return Ok(());
    }
    let codename = &codename_here()?;
    println!("vm: installs {PACKAGE} of {codename} or its backports");
    let (security, backports) = (format!("{codename}-security"), format!("{codename}-backports"));
    let apt = Apt::configure(&cache.join("apt-qemu"), &[codename.as_str(), &security, &backports])?;
    apt.update()?;
    apt.install(PACKAGE, &backports).with_context(|| format!("installing {PACKAGE}"))?;
    ensure!(version().is_some_and(|major| major >= OLDEST), "{QEMU} is still older than {OLDEST}");
    Ok(())
}

/// Name of this machine's release of Debian, such as `bookworm`.
pub(crate) fn codename_here() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = codename(&release).context("the name of a Debian release is not in /etc/os-release")?;
    Ok(name.to_owned())
}

fn version() -> Option<u32> {
    parse_version(&output(Command::new(QEMU).arg("--version")).ok()?)
}

fn parse_version(text: &str) -> Option<u32> {
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

fn codename(os_release: &str) -> Option<&str> {
    os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).map(|name| name.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read() {
        let text = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright";
        assert_eq!(parse_version(text), Some(10));
        assert_eq!(parse_version("no such thing"), None);
    }

    #[test]
    fn the_releases_name_is_read() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n"), Some("bookworm"));
    }
}
