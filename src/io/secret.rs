//! The key of flow tokens, branches and placement: 32 bytes in a file that only its owner can read,
//! made at the first start. Absent on purpose: changing it while running.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of the key, and of its file.
pub const SECRET_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file system refused.
    #[error("cannot {action} the secret file {path}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Others may read it.
    #[error("the secret file {path} has mode {mode:04o}: others can read it; chmod 600 it")]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not a file of ours.
    #[error(
        "the secret file {path} must be a regular file of 32 bytes; remove it to have one made"
    )]
    Shape {
        /// Which file.
        path: PathBuf,
    },
    /// The kernel has no random numbers.
    #[error("the kernel gave no random numbers: {0}")]
    Random(io::Error),
}

/// A fresh key, for runs without a secret file.
pub fn generate() -> Result<[u8; SECRET_BYTES], SecretError> {
    let mut secret = [0; SECRET_BYTES];
    let mut filled = 0;
    while filled < secret.len() {
        let rest = &mut secret[filled..];
        // SAFETY: the pointer and length name `rest`, which is writable and outlives the call.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(SecretError::Random(error));
                }
            }
        }
    }
    Ok(secret)
}

/// The key in the file at `path`; makes the file when there is none. Of several processes that
/// start at once, all get the same key.
pub fn load_or_create(path: &Path) -> Result<[u8; SECRET_BYTES], SecretError> {
    match File::open(path) {
        Ok(file) => read(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        Err(error) => Err(failed("open", path, error)),
    }
}

/// Whether the file at `path`, if there is one, would be accepted. Nothing is made.
pub fn inspect(path: &Path) -> Result<(), SecretError> {
    match File::open(path) {
        Ok(file) => read(path, file).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("open", path, error)),
    }
}

fn read(path: &Path, mut file: File) -> Result<[u8; SECRET_BYTES], SecretError> {
    let metadata = file.metadata().map_err(|error| failed("read", path, error))?;
    if !metadata.is_file() || metadata.len() != SECRET_BYTES as u64 {
        return Err(SecretError::Shape { path: path.to_owned() });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    let mut secret = [0; SECRET_BYTES];
    file.read_exact(&mut secret).map_err(|error| failed("read", path, error))?;
    Ok(secret)
}

/// Written whole under another name first: a file under `path` is never half a key.
fn create(path: &Path) -> Result<[u8; SECRET_BYTES], SecretError> {
    let secret = generate()?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    // One under our process id is a dead process's.
    let _ = std::fs::remove_file(&temporary);
    let written =
        write_new(&temporary, &secret).and_then(|()| std::fs::hard_link(&temporary, path));
    let linked = match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => {
            // Nothing to tidy when the file could not even be made.
            let _ = std::fs::remove_file(&temporary);
            return Err(failed("make", path, error));
        }
        Ok(()) => true,
    };
    std::fs::remove_file(&temporary).map_err(|error| failed("make", &temporary, error))?;
    if linked {
        return Ok(secret);
    }
    let file = File::open(path).map_err(|error| failed("open", path, error))?;
    read(path, file)
}

fn write_new(path: &Path, secret: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(secret)?;
    file.sync_all()
}

fn failed(action: &'static str, path: &Path, error: io::Error) -> SecretError {
    SecretError::Io { action, path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_made_once_and_read_ever_after() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("secret");
        inspect(&path).expect("an absent file is fine");
        let first = load_or_create(&path).expect("it is made");
        let mode = std::fs::metadata(&path).expect("it is there").mode() & 0o7777;
        assert_eq!(mode, 0o600);
        assert_eq!(load_or_create(&path).expect("it is read"), first);
        inspect(&path).expect("it is fine");
        assert_ne!(first, [0; SECRET_BYTES]);
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for mode in [0o640, 0o604, 0o660, 0o644] {
            let path = folder.path().join("secret");
            load_or_create(&path).expect("it is made");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
            let error = load_or_create(&path).expect_err("it is refused");
            assert!(matches!(error, SecretError::Exposed { mode: seen, .. } if seen == mode));
            assert!(inspect(&path).is_err());
            std::fs::remove_file(&path).expect("remove");
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for bytes in [0, 31, 33] {
            let path = folder.path().join("secret");
            write_new(&path, &vec![1; bytes]).expect("write");
            let error = load_or_create(&path).expect_err("it is refused");
            assert!(matches!(error, SecretError::Shape { .. }), "{bytes} bytes");
            std::fs::remove_file(&path).expect("remove");
        }
        assert!(matches!(load_or_create(folder.path()), Err(SecretError::Shape { .. })));
        let missing = folder.path().join("nowhere").join("secret");
        assert!(matches!(load_or_create(&missing), Err(SecretError::Io { .. })));
    }
}
