//! The pod's termination message: the last words of a container, which `kubectl describe pod` shows.

use std::{fs::OpenOptions, io, io::Write, path::Path};

/// Where Kubernetes looks for it unless the pod says otherwise (`terminationMessagePath`).
pub const DEFAULT_PATH: &str = "/dev/termination-log";

/// Bytes that Kubernetes keeps (`MaxContainerTerminationMessageLength`, `pkg/kubelet/kuberuntime`).
const MAX_BYTES: usize = 4096;

/// Leaves `text`, shortened to what is kept, in the file at `path`. A file that is not there is not made: outside of a pod
/// nobody would read it.
///
/// # Errors
///
/// If the file is not there or cannot be written, which is no reason to end otherwise.
pub fn leave(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(path)?.write_all(shortened(text).as_bytes())
}

/// As many whole lines of `text` as are kept; lines that do not fit are counted.
fn shortened(text: &str) -> String {
    if text.len() <= MAX_BYTES {
        return text.to_owned();
    }
    let all = text.lines().count();
    // The longest line about the rest.
    let room = MAX_BYTES - rest(all).len();
    let mut kept = String::new();
    let mut count = 0;
    for line in text.lines().take_while(|line| {
        count += line.len() + 1;
        count <= room
    }) {
        kept.push_str(line);
        kept.push('\n');
    }
    let lines = kept.lines().count();
    if lines == 0 {
        kept.push_str(&text[..text.floor_char_boundary(room - 1)]);
        kept.push('\n');
    }
    kept + &rest(all - lines)
}

fn rest(lines: usize) -> String {
    format!("… {lines} more lines in the log")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_replaces_what_was_there() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        leave(file.path(), "first and long").expect("written");
        leave(file.path(), "second").expect("written");
        assert_eq!(fs::read_to_string(file.path()).expect("text"), "second");
    }

    #[test]
    fn a_file_that_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("termination-log");
        assert_eq!(leave(&path, "x").expect_err("no file").kind(), io::ErrorKind::NotFound);
        assert!(!path.exists());
    }

    #[test]
    fn whole_lines_are_kept_and_the_rest_counted() {
        let text = (0..1000).map(|number| format!("mistake {number}")).collect::<Vec<_>>().join("\n");
        let kept = shortened(&text);
        assert!(kept.len() <= MAX_BYTES && kept.len() > MAX_BYTES - 50, "{}", kept.len());
        let lines: Vec<&str> = kept.lines().collect();
        assert_eq!(*lines.last().expect("a line"), format!("… {} more lines in the log", 1000 - (lines.len() - 1)));
    }

    #[test]
    fn one_endless_line_is_cut() {
        assert!(shortened(&"ä".repeat(10_000)).len() <= MAX_BYTES);
    }
}
