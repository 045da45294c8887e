//! A private apt: resolves, downloads and verifies Debian packages without root and without touching the system's state.
//!
//! apt itself checks the archive's signature and every package's hash; this module only gives it folders of its own,
//! a source of its own and a package database that says which packages need not be fetched.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

use super::{
    cache::Cache,
    progress::Progress,
    sets::{Keep, NOT_NEEDED, PackageSet},
    sources,
};
use crate::process::{first_lines, run};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The package server now and then answers 404 or cuts the connection; the next try is served.
const TRIES: u32 = 4;

/// A package that apt chose for a set, downloaded and verified.
#[derive(Debug, PartialEq, Eq)]
pub struct Download {
    /// Debian package name.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// The package file.
    pub file: PathBuf,
}

/// apt with private state, bound to one suite of one package server.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
    packages: PathBuf,
    server: String,
}

/// Whether this machine has apt and dpkg.
#[must_use]
pub fn is_available() -> bool {
    ["apt-get", "dpkg-deb"]
        .iter()
        .all(|program| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success()))
}

/// Downloads `set` with everything it depends on, and says which server had it.
///
/// # Errors
/// Fails when no server known to this machine serves the whole set, with apt's own words for each.
pub fn download(cache: &Cache, set: &PackageSet, progress: &Progress) -> Result<(String, Vec<Download>)> {
    let mut failures = Vec::new();
    for server in sources::servers() {
        match Apt::new(cache, &server, set).and_then(|apt| apt.download(set, progress)) {
            Ok(downloads) => return Ok((server, downloads)),
            Err(error) => failures.push(format!("{server}: {error:#}")),
        }
    }
    if failures.is_empty() {
        bail!(
            "this machine's apt names no Debian server to fetch the set `{}` from: set {} to the address of one",
            set.name,
            sources::MIRROR_VARIABLE
        );
    }
    bail!("could not fetch the set `{}`:\n  {}", set.name, failures.join("\n  "))
}

impl Apt {
    /// Lays out the private folders and configuration.
    fn new(cache: &Cache, server: &str, set: &PackageSet) -> Result<Self> {
        let suite = set.suite;
        let apt = Self { folder: cache.apt().join(suite), packages: cache.packages(), server: server.into() };
        for folder in [apt.folder.join("lists/partial"), apt.folder.join("dpkg"), apt.packages.join("partial")] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let write = |name: &str, text: String| {
            let path = apt.folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let not_needed = NOT_NEEDED.iter().filter(|name| !set.packages.contains(name));
        write("dpkg/status", not_needed.map(|name| installed(name)).collect())?;
        let keyring = apt.keyring()?;
        write("debian.sources", source(server, suite, &keyring))?;
        write("apt.conf", apt.configuration(&apt.folder.join("debian.sources")))?;
        Ok(apt)
    }

    /// Debian's archive keys: installed on Debian, and a package of the system's own suite elsewhere.
    fn keyring(&self) -> Result<PathBuf> {
        let installed = Path::new(KEYRING);
        if installed.exists() {
            return Ok(installed.into());
        }
        let unpacked = self.folder.join("keyring");
        let keyring = unpacked.join(KEYRING.trim_start_matches('/'));
        if keyring.exists() {
            return Ok(keyring);
        }
        // The system's own sources, whose keys the user trusts already, vouch for the package with Debian's.
        fs::write(self.folder.join("apt.conf"), self.configuration(Path::new("/etc/apt/sources.list")))?;
        let with_system_sources = |arguments: &[&str]| {
            let mut command = self.command();
            command.args(["-o", "Dir::Etc::sourceparts=/etc/apt/sources.list.d"]).args(arguments);
            run(command.current_dir(&self.packages))
        };
        with_system_sources(&["update"])?;
        with_system_sources(&["download", "debian-archive-keyring"]).context(
            "Debian's archive keys are missing and could not be fetched; install the package `debian-archive-keyring`",
        )?;
        for entry in fs::read_dir(&self.packages)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("debian-archive-keyring_") {
                unpack(&entry.path(), &unpacked, Keep::Everything)?;
            }
        }
        if !keyring.exists() {
            bail!("the package debian-archive-keyring holds no {KEYRING}");
        }
        Ok(keyring)
    }

    fn download(&self, set: &PackageSet, progress: &Progress) -> Result<Vec<Download>> {
        let mut last = None;
        for attempt in 1..=TRIES {
            progress.step(format!("{}: reading Debian's package list", set.name));
            let result = self.update().and_then(|()| self.fetch(set, progress)).and_then(|()| self.resolve(set));
            match result {
                Ok(downloads) => return Ok(downloads),
                Err(error) if attempt < TRIES => {
                    progress.note(format!("{}: try {attempt} of {TRIES} failed: {error:#}", set.name));
                    last = Some(error);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no try was made")))
    }

    fn update(&self) -> Result<()> {
        run(self.command().args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"]))
    }

    fn install(&self) -> Command {
        let mut command = self.command();
        command.args(["-qq", "-y", "--no-install-recommends", "--no-install-suggests", "install"]);
        command
    }

    fn fetch(&self, set: &PackageSet, progress: &Progress) -> Result<()> {
        let mut command = self.install();
        command.args(["--download-only", "-o", "APT::Status-Fd=1"]).args(set.packages);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start apt-get")?;
        let mut stderr = child.stderr.take().context("apt-get has no standard error")?;
        let errors = thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).map(|_| bytes)
        });
        let stdout = child.stdout.take().context("apt-get has no standard output")?;
        for line in BufReader::new(stdout).lines() {
            if let Some((percent, text)) = download_status(&line?) {
                progress.percent(percent, format!("{}: {text}", set.name));
            }
        }
        let status = child.wait().context("cannot wait for apt-get")?;
        if !status.success() {
            let stderr = errors.join().ok().and_then(Result::ok).unwrap_or_default();
            bail!("apt-get could not download: {}", first_lines(&stderr));
        }
        Ok(())
    }

    /// Asks apt, which now has every package, what the set consists of.
    fn resolve(&self, set: &PackageSet) -> Result<Vec<Download>> {
        let mut command = self.install();
        let output = command.arg("--simulate").args(set.packages).output().context("cannot start apt-get")?;
        if !output.status.success() {
            bail!("apt-get could not resolve: {}", first_lines(&output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut downloads = Vec::new();
        for (name, version, architecture) in text.lines().filter_map(chosen_package) {
            let file = self.packages.join(format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a")));
            if !file.exists() {
                bail!("apt-get chose {name} {version} but did not leave {}", file.display());
            }
            downloads.push(Download { name: name.into(), version: version.into(), file });
        }
        if downloads.is_empty() {
            bail!("apt-get chose no package for {} from {}", set.name, self.server);
        }
        Ok(downloads)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    /// apt's configuration in place of the system's, of which only how to reach the network is kept.
    fn configuration(&self, source_list: &Path) -> String {
        let folder = |name: &str| self.folder.join(name).display().to_string();
        let mut text = system_network_settings();
        for (key, value) in [
            ("Dir::Etc::main", "/dev/null".into()),
            ("Dir::Etc::parts", "/dev/null".into()),
            ("Dir::Etc::preferences", "/dev/null".into()),
            ("Dir::Etc::preferencesparts", "/dev/null".into()),
            ("Dir::Etc::sourcelist", source_list.display().to_string()),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::State::lists", folder("lists")),
            ("Dir::State::status", folder("dpkg/status")),
            ("Dir::State::extended_states", folder("extended_states")),
            ("Dir::Cache", self.folder.display().to_string()),
            ("Dir::Cache::archives", self.packages.display().to_string()),
            ("Dir::Cache::pkgcache", String::new()),
            ("Dir::Cache::srcpkgcache", String::new()),
            ("APT::Architecture", "amd64".into()),
            ("APT::Architectures", "amd64".into()),
            ("APT::Get::AllowUnauthenticated", "false".into()),
            // Root's home folder is closed to apt's own user; the cache lock above all this keeps others out.
            ("APT::Sandbox::User", "root".into()),
            ("Debug::NoLocking", "true".into()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::GzipIndexes", "true".into()),
            ("Acquire::Retries", "3".into()),
            ("Acquire::http::Timeout", "30".into()),
            ("Acquire::https::Timeout", "30".into()),
        ] {
            text.push_str(&format!("{key} \"{value}\";\n"));
        }
        text
    }
}

/// Unpacks what is to be kept of a package file below `root`.
///
/// # Errors
/// Fails when `dpkg-deb` cannot be started or does not like the file, or a file cannot be written.
pub fn unpack(file: &Path, root: &Path, keep: Keep) -> Result<()> {
    let context = || format!("cannot unpack {}", file.display());
    let mut dpkg = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let mut archive = tar::Archive::new(dpkg.stdout.take().context("dpkg-deb has no standard output")?);
    fs::create_dir_all(root)?;
    for entry in archive.entries()? {
        let mut entry = entry.with_context(context)?;
        if keep.wants(&entry.path()?) {
            entry.unpack_in(root).with_context(context)?;
        }
    }
    // To its end, so that dpkg-deb does not die of a closed pipe.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
    if !dpkg.wait()?.success() {
        bail!("{}: dpkg-deb failed", context());
    }
    Ok(())
}

/// Proxies, certificates and date checks of the system's apt, as lines of an apt configuration file.
fn system_network_settings() -> String {
    let Ok(output) = Command::new("apt-config").arg("dump").output() else { return String::new() };
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| is_network_setting(line)).fold(
        String::new(),
        |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        },
    )
}

fn is_network_setting(line: &str) -> bool {
    let kept = ["Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::ForceIPv"];
    kept.iter().any(|prefix| line.starts_with(prefix)) && line.ends_with("\";")
}

fn source(server: &str, suite: &str, keyring: &Path) -> String {
    format!(
        "Types: deb\nURIs: {server}\nSuites: {suite} {suite}-updates\nComponents: main\nArchitectures: amd64\nSigned-By: {}\n",
        keyring.display()
    )
}

/// A dpkg status entry that keeps apt from fetching `name`, also for those who depend on it of any architecture.
fn installed(name: &str) -> String {
    format!(
        "Package: {name}\nStatus: install ok installed\nVersion: 9999:0\nArchitecture: amd64\n\
         Multi-Arch: allowed\nMaintainer: none\nDescription: not needed\n\n"
    )
}

/// Percent and text of a line like `dlstatus:4:24.8778:Retrieving file 4 of 23`.
fn download_status(line: &str) -> Option<(f64, &str)> {
    let mut fields = line.strip_prefix("dlstatus:")?.splitn(3, ':');
    fields.next()?;
    let percent = fields.next()?.parse().ok()?;
    Some((percent, fields.next()?))
}

/// Name, version and architecture of a line like `Inst libc6 (2.41-12 Debian:13.1/stable [amd64])`.
fn chosen_package(line: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    let (version, rest) = rest.split_once(' ')?;
    let (_, rest) = rest.split_once(" [")?;
    let (architecture, _) = rest.split_once(']')?;
    Some((name, version, architecture))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_progress_lines_give_percent_and_text() {
        assert_eq!(
            download_status("dlstatus:4:24.8778:Retrieving file 4 of 23"),
            Some((24.8778, "Retrieving file 4 of 23"))
        );
        for line in ["pmstatus:dpkg:1:x", "dlstatus:4", "dlstatus:4:x:y", ""] {
            assert_eq!(download_status(line), None, "{line}");
        }
    }

    #[test]
    fn apts_simulation_names_the_chosen_packages() {
        assert_eq!(
            chosen_package("Inst ovmf (2025.02-8 Debian:13.1/stable [all])"),
            Some(("ovmf", "2025.02-8", "all"))
        );
        assert_eq!(
            chosen_package("Inst libtinfo6 (6.5 Debian:13.1/stable, Debian:13-updates [amd64]) [x:amd64 ]"),
            Some(("libtinfo6", "6.5", "amd64"))
        );
        assert_eq!(chosen_package("Conf ovmf (2025.02-8 Debian:13.1/stable [all])"), None);
    }

    #[test]
    fn proxies_are_taken_over_and_hooks_are_not() {
        assert!(is_network_setting("Acquire::http::Proxy \"http://proxy.example:3128\";"));
        assert!(!is_network_setting("APT::Update::Post-Invoke:: \"rm -f /var/cache/apt/*.bin\";"));
        assert!(!is_network_setting("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"true\";"));
    }
}
