//! Paths of documents, as Go cleans them.

use std::path::{Component, Path, PathBuf};

/// A path without `.`, `..` and doubled slashes, absolute.
pub fn clean(path: &Path) -> PathBuf {
    Path::new("/").join(below_root(path))
}

/// The same relative to the root that it is meant from, which it never leaves.
pub fn below_root(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}
