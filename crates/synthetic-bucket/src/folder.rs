//! Writes a registry to a disk, where CNCF Distribution's filesystem driver and the local blob store read it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::registry::{Bytes, Registry};

/// Writes every object as a file below `bucket`, the folder that stands for the bucket. Layers take no room: they
/// are files of zeros that were never written.
///
/// # Errors
///
/// If a file can't be written.
pub fn write(registry: &Registry, bucket: &Path) -> io::Result<()> {
    let mut last_folder = PathBuf::new();
    for entry in &registry.entries {
        let path = bucket.join(registry.key(*entry));
        let folder = path.parent().unwrap_or(bucket);
        if folder != last_folder {
            fs::create_dir_all(folder)?;
            folder.clone_into(&mut last_folder);
        }
        let mut file = File::create(&path)?;
        match registry.bytes(*entry) {
            Bytes::These(bytes) => file.write_all(&bytes)?,
            Bytes::Zeros(size) => file.set_len(size)?,
        }
        file.set_modified(registry.modified(*entry))?;
    }
    Ok(())
}
