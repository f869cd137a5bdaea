//! Secrets of an installation: made at the first start, kept readable by the owner alone, shown once.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What is generated. Every field is random text of at least 128 bits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Secrets {
    /// Password of the manager console's `admin`.
    pub manager_password: String,
    /// Token of the business API for requests from other machines.
    pub api_token: String,
}

/// The secrets, and whether they were made just now.
#[derive(Debug)]
pub struct Loaded {
    /// The secrets.
    pub secrets: Secrets,
    /// Where they are.
    pub path: PathBuf,
    /// First start: show them.
    pub fresh: bool,
}

const FILE: &str = "secrets.json";

impl Secrets {
    /// Reads the file in `dir`, or makes it (mode 0600, synced, never half-written).
    pub fn load_or_create(dir: &Path) -> anyhow::Result<Loaded> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let secrets = serde_json::from_slice(&bytes).with_context(|| {
                    format!(
                        "{} is damaged; restore it, or remove it to make new secrets",
                        path.display()
                    )
                })?;
                Ok(Loaded {
                    secrets,
                    path,
                    fresh: false,
                })
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let secrets = Self {
                    manager_password: random_text(24),
                    api_token: random_text(32),
                };
                secrets
                    .write(&path)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(Loaded {
                    secrets,
                    path,
                    fresh: true,
                })
            }
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        if let Some(dir) = path.parent() {
            std::fs::File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}

/// Letters and digits without look-alikes, from the system's generator: 5.8 bits each.
fn random_text(len: usize) -> String {
    const ALPHABET: &[u8] = b"23456789abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ";
    use rand::Rng as _;
    let mut rng = rand::rng();
    (0..len)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn secrets_are_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secrets::load_or_create(dir.path()).unwrap();
        assert!(first.fresh);
        assert_eq!(
            std::fs::metadata(&first.path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let second = Secrets::load_or_create(dir.path()).unwrap();
        assert!(!second.fresh);
        assert_eq!(second.secrets.api_token, first.secrets.api_token);
        assert_ne!(first.secrets.api_token, first.secrets.manager_password);
    }

    #[test]
    fn a_damaged_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(
            Secrets::load_or_create(dir.path())
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
    }
}
