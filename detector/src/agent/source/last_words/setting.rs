//! `kernel.ftrace_dump_on_oops`: has the dying kernel print the trace buffer, and with it the line about the suspect.
//!
//! It is changed only from 0, and to 2, which prints the dying CPU's buffer; any other value is somebody's wish, and shows the
//! line too. What it was is written down first, with the id of the boot, so that `detector cleanup` can set it again: what
//! another boot was set to says nothing about this one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::agent::source::small_file::{self, under};

/// Name of the file that holds the former value, in the directory of the agent's state.
pub const FILE: &str = "ftrace_dump_on_oops";

/// The id of this boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The setting.
pub const SETTING: &str = "/proc/sys/kernel/ftrace_dump_on_oops";

/// Value that prints the buffer of the dying CPU (`Documentation/admin-guide/sysctl/kernel.rst`).
const DYING_CPU: &str = "2";
const OFF: &str = "0";

/// Longest value, in bytes: since Linux 6.9 it may name instances (`MAX_TRACER_SIZE`, `kernel/trace/trace.c`, is 100).
const LIMIT: u64 = 256;

/// Why it is not set, or not set back.
#[derive(Debug, Error)]
pub enum SettingError {
    /// The kernel has no such setting: it is built without tracing.
    #[error("this kernel does not print its trace buffer: it has no kernel.ftrace_dump_on_oops (CONFIG_TRACING)")]
    Absent,
    /// A file refused.
    #[error("{attempt} {path}")]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Sets it on the machine seen through `root`, after its value was written down in `directory`. Does nothing if it is set.
///
/// # Errors
/// If it cannot be set; a container needs this file writable.
pub fn set(root: &Path, directory: &Path) -> Result<(), SettingError> {
    let path = under(root, SETTING);
    let value = value(&path)?.ok_or(SettingError::Absent)?;
    if value != OFF {
        return Ok(());
    }
    let note = directory.join(FILE);
    fs::create_dir_all(directory).map_err(failed("making", directory))?;
    let boot = boot(root)?;
    fs::write(&note, format!("{value}\n{boot}\n")).map_err(failed("writing", &note))?;
    write(&path, DYING_CPU)
}

/// Sets back what [`set`] set, unless somebody changed it since, and forgets it. Returns whether there was anything.
///
/// # Errors
/// If it cannot be set; then it may be tried again.
pub fn restore(root: &Path, directory: &Path) -> Result<bool, SettingError> {
    let (path, note) = (under(root, SETTING), directory.join(FILE));
    let Some(noted) = value(&note)? else { return Ok(false) };
    let (former, of_boot) = noted.split_once('\n').unwrap_or((&noted, ""));
    let is_ours = of_boot == boot(root)? && value(&path)?.is_some_and(|value| value == DYING_CPU);
    if is_ours {
        write(&path, former)?;
    }
    fs::remove_file(&note).map_err(failed("removing", &note))?;
    Ok(is_ours)
}

fn boot(root: &Path) -> Result<String, SettingError> {
    let path = under(root, BOOT_ID);
    value(&path)?.ok_or_else(|| failed("reading", &path)(io::ErrorKind::NotFound.into()))
}

fn value(path: &Path) -> Result<Option<String>, SettingError> {
    let file = small_file::read(path, LIMIT).map_err(failed("reading", path))?;
    Ok(file.map(|file| String::from_utf8_lossy(&file.bytes).trim().to_owned()))
}

fn write(path: &Path, value: &str) -> Result<(), SettingError> {
    fs::write(path, format!("{value}\n")).map_err(failed("writing", path))
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SettingError {
    let path = path.to_owned();
    move |source| SettingError::File { attempt, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn with(value: &str) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(machine.path().parent().unwrap()).unwrap();
            fs::write(machine.path(), value).unwrap();
            machine.boot("boot-1");
            machine
        }

        fn boot(&self, id: &str) {
            let path = under(self.0.path(), BOOT_ID);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{id}\n")).unwrap();
        }

        fn path(&self) -> PathBuf {
            under(self.0.path(), SETTING)
        }

        fn value(&self) -> String {
            fs::read_to_string(self.path()).unwrap().trim().to_owned()
        }

        fn state(&self) -> PathBuf {
            self.0.path().join("state")
        }

        fn set(&self) {
            set(self.0.path(), &self.state()).unwrap();
        }

        fn restore(&self) -> bool {
            restore(self.0.path(), &self.state()).unwrap()
        }
    }

    #[test]
    fn what_was_off_is_set_and_set_back() {
        let machine = Machine::with("0\n");
        machine.set();
        assert_eq!(machine.value(), "2");
        // A second agent, or the same one started again, must not take our value for the former one.
        machine.set();
        assert!(machine.restore());
        assert_eq!(machine.value(), "0");
        assert!(!machine.restore());
    }

    #[test]
    fn what_somebody_wished_for_stays() {
        for wish in ["1", "2", "foo,bar=2"] {
            let machine = Machine::with(wish);
            machine.set();
            assert!(!machine.restore());
            assert_eq!(machine.value(), wish);
        }
    }

    #[test]
    fn what_was_changed_since_is_not_set_back() {
        let machine = Machine::with("0");
        machine.set();
        fs::write(machine.path(), "1").unwrap();
        assert!(!machine.restore());
        assert_eq!(machine.value(), "1");
        assert!(!machine.state().join(FILE).exists());
    }

    #[test]
    fn what_another_boot_was_set_to_is_forgotten() {
        let machine = Machine::with("0");
        machine.set();
        machine.boot("boot-2");
        assert!(!machine.restore());
        assert_eq!(machine.value(), "2");
        assert!(!machine.state().join(FILE).exists());
    }

    #[test]
    fn a_kernel_without_it_says_so() {
        let root = tempfile::tempdir().unwrap();
        let refused = set(root.path(), &root.path().join("state")).unwrap_err();
        assert!(matches!(refused, SettingError::Absent), "{refused}");
        assert!(!root.path().join("state").exists());
    }
}
