//! The keys by which this user, and nobody else, gets into the default guests by SSH.
//!
//! They are made once and stay in the cache: `identity` opens guests, `host_key` is what guests prove themselves with.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    process::{first_lines, run},
    tools::DiskTools,
};

/// The name that stands for all guests where SSH remembers whom it knows.
const ALIAS: &str = "dragonfly-guest";

/// The folder with the keys.
#[derive(Clone, Debug)]
pub struct Keys {
    folder: PathBuf,
}

impl Keys {
    /// The keys in `folder`, made there if there are none. The caller holds the cache's lock.
    ///
    /// # Errors
    /// Fails when they cannot be made.
    pub fn ensure(folder: &Path, tools: &DiskTools) -> Result<Self> {
        let keys = Self { folder: folder.into() };
        // Written last.
        if keys.known_hosts().exists() {
            return Ok(keys);
        }
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let host = generate(tools, &keys.host_key())?;
        let user = generate(tools, &keys.dropbear_identity())?;
        let mut convert = Command::new(&tools.dropbearconvert);
        convert.args(["dropbear", "openssh"]).arg(keys.dropbear_identity()).arg(keys.identity());
        run(&mut convert)?;
        fs::set_permissions(keys.identity(), fs::Permissions::from_mode(0o600))?;
        fs::write(keys.authorized_keys(), format!("{user}\n"))?;
        fs::write(keys.known_hosts(), format!("{ALIAS} {host}\n"))?;
        Ok(keys)
    }

    /// What OpenSSH's client proves itself with.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.folder.join("identity")
    }

    /// What dropbear's client proves itself with.
    #[must_use]
    pub fn dropbear_identity(&self) -> PathBuf {
        self.folder.join("identity.dropbear")
    }

    /// What the guests let in.
    #[must_use]
    pub fn authorized_keys(&self) -> PathBuf {
        self.folder.join("authorized_keys")
    }

    /// What the guests prove themselves with.
    #[must_use]
    pub fn host_key(&self) -> PathBuf {
        self.folder.join("host_key")
    }

    fn known_hosts(&self) -> PathBuf {
        self.folder.join("known_hosts")
    }

    /// A configuration for `ssh -F`, for guests by name and the port of this machine that leads to each.
    #[must_use]
    pub fn configuration(&self, guests: &[(&str, u16)]) -> String {
        let host = |(name, port): &(&str, u16)| {
            format!(
                "Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User root\n  IdentityFile \"{}\"\n  \
                 IdentitiesOnly yes\n  UserKnownHostsFile \"{}\"\n  HostKeyAlias {ALIAS}\n",
                self.identity().display(),
                self.known_hosts().display()
            )
        };
        guests.iter().map(host).collect()
    }
}

/// Makes a private key; gives the public one.
fn generate(tools: &DiskTools, file: &Path) -> Result<String> {
    let mut command = Command::new(&tools.dropbearkey);
    let output = command.args(["-t", "ed25519", "-f"]).arg(file).output().context("cannot start dropbearkey")?;
    if !output.status.success() {
        bail!("dropbearkey failed: {}", first_lines(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    public_key(&text).context("dropbearkey showed no public key")
}

/// Kind and key of the line that has them, without the comment.
fn public_key(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("ssh-ed25519 "))?;
    Some(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_is_found_in_what_dropbearkey_says() {
        let text =
            "Generating 256 bit ed25519 key\nPublic key portion is:\nssh-ed25519 AAAAC3 me@here\nFingerprint: x\n";
        assert_eq!(public_key(text).as_deref(), Some("ssh-ed25519 AAAAC3"));
        assert_eq!(public_key("nothing"), None);
    }

    #[test]
    fn each_guest_has_its_port_and_all_have_the_same_identity() {
        let keys = Keys { folder: "/cache/ssh".into() };
        let text = keys.configuration(&[("a", 2201), ("b", 2202)]);
        assert!(text.contains("Host a\n  HostName 127.0.0.1\n  Port 2201\n"));
        assert!(text.contains("Host b\n  HostName 127.0.0.1\n  Port 2202\n"));
        assert_eq!(text.matches("IdentityFile \"/cache/ssh/identity\"").count(), 2);
    }
}
