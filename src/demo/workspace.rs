//! A directory for one run.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
};

/// How often a name is tried that someone else has taken.
const ATTEMPTS: usize = 16;

/// A directory that only this user can read, removed with all that is in it when dropped.
#[derive(Debug)]
pub(super) struct Workspace(PathBuf);

impl Workspace {
    /// Makes a directory of a new name where the system keeps temporary files.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub(super) fn create() -> io::Result<Workspace> {
        let parent = std::env::temp_dir();
        let mut result = Err(io::Error::other("no free name was found"));
        for _ in 0..ATTEMPTS {
            let path = parent.join(format!("tradewind-demo-{:016x}", fastrand::u64(..)));
            result = DirBuilder::new().mode(0o700).create(&path).map(|()| Workspace(path));
            match &result {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                _ => break,
            }
        }
        result.map_err(|error| {
            io::Error::new(error.kind(), format!("a directory in {}: {error}", parent.display()))
        })
    }

    /// Writes a file.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, text)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What cannot be removed stays for the system's own cleaning of temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_gone_afterwards() {
        let workspace = Workspace::create().expect("a directory");
        let file = workspace.write("a.txt", "a").expect("a file");
        let path = workspace.0.clone();
        assert!(file.starts_with(&path) && file.exists());
        drop(workspace);
        assert!(!path.exists());
    }
}
