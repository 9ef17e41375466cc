//! What the rules look at: the files that git tracks or would track, and the last commit.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{process, workspace};

/// Folders that a tree without git (an unpacked archive) leaves out.
const NOT_OURS: &[&str] = &[".git", "target"];

/// All text files with their content, by path in the tree.
pub(super) fn files() -> Result<Vec<(String, String)>> {
    let root = workspace::root();
    let mut paths = listed_by_git().map_or_else(|| walk(root), Ok)?;
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        // A path that git tracks but that is gone from the tree, and a link, are nothing to read.
        let whole = root.join(&path);
        if !whole.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            continue;
        }
        let bytes = fs::read(&whole).with_context(|| format!("read {path}"))?;
        files.extend(String::from_utf8(bytes).ok().map(|text| (path, text)));
    }
    Ok(files)
}

/// Subject of the last commit; `None` without git.
pub(super) fn last_commit() -> Option<String> {
    git(&["log", "-1", "--format=%s"]).map(|subject| subject.trim_end().to_owned())
}

/// Tracked files and those that are not ignored: what a commit of everything would hold.
fn listed_by_git() -> Option<Vec<String>> {
    let listed = git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    Some(listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

fn git(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    // A checkout may belong to another user than the one that checks it, as in a container.
    command.arg("-c").arg(format!("safe.directory={}", workspace::root().display()));
    command.arg("-C").arg(workspace::root()).args(arguments);
    process::capture(&mut command, "ask git about the tree").ok()
}

fn walk(root: &Path) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let here = root.join(&folder);
        for entry in fs::read_dir(&here).with_context(|| format!("list {}", here.display()))? {
            let entry = entry.with_context(|| format!("list {}", here.display()))?;
            let name = entry.file_name();
            let path = folder.join(&name);
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                paths.push(path.to_string_lossy().into_owned());
            } else if !NOT_OURS.iter().any(|other| name == *other) {
                folders.push(path);
            }
        }
    }
    Ok(paths)
}
