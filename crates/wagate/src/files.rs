//! What files need beside their contents.

use std::path::Path;
use std::{fs, io};

/// Makes the folder that a file is to lie in, if it is not there.
pub(crate) fn make_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        // A name alone: it lies where the process runs.
        None => Ok(()),
        Some(folder) if folder.as_os_str().is_empty() => Ok(()),
        Some(folder) => fs::create_dir_all(folder),
    }
}
