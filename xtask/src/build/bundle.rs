//! The bundle: a cpio archive with the supervisor's TOML file first, then the programs that it names, and files for them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{cpio::Archive, strip};

/// The root task, which every bundle holds and none names.
const SUPERVISOR: &str = "supervisor";

/// A bundle's TOML file, of which this tool needs only the programs' names.
#[derive(Debug)]
pub struct BundleFile {
    /// Where the file is.
    pub path: PathBuf,
    text: String,
    programs: BTreeSet<String>,
    /// Names and contents of the files of a folder beside it that has its name.
    files: Vec<(String, Vec<u8>)>,
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    domain: Vec<Domain>,
}

#[derive(Deserialize)]
struct Domain {
    program: String,
}

impl BundleFile {
    /// Reads `tests/bundles/NAME.toml`.
    ///
    /// # Errors
    /// Fails when there is no such file or it is not TOML; the message names the file and what may be chosen.
    pub fn read(root: &Path, name: &str) -> Result<Self> {
        let folder = root.join("tests/bundles");
        let path = folder.join(name).with_extension("toml");
        let text = fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}; there are these bundles: {}", path.display(), names_in(&folder).join(", "))
        })?;
        let mut bundle = Self::parse(path, text)?;
        read_files(&folder.join(name), "", &mut bundle.files)?;
        bundle.files.sort();
        Ok(bundle)
    }

    fn parse(path: PathBuf, text: String) -> Result<Self> {
        let bundle: Bundle =
            toml::from_str(&text).with_context(|| format!("{} is not a bundle file", path.display()))?;
        let programs = bundle.domain.into_iter().map(|domain| domain.program).filter(|name| name != SUPERVISOR);
        Ok(Self { path, text, programs: programs.collect(), files: Vec::new() })
    }

    /// Names of the programs that the bundle holds, the supervisor first.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        std::iter::once(SUPERVISOR).chain(self.programs.iter().map(String::as_str))
    }

    /// Packs the archive from `programs`, pairs of name and ELF file.
    ///
    /// # Errors
    /// Fails when a program cannot be read or is not an ELF file.
    pub fn archive(&self, programs: &[(String, PathBuf)]) -> Result<Vec<u8>> {
        let mut archive = Archive::new();
        archive.file("bundle.toml", self.text.as_bytes())?;
        for (name, path) in programs {
            archive.file(name, &strip::read_stripped(path)?)?;
        }
        for (name, contents) in &self.files {
            archive.file(name, contents)?;
        }
        archive.finish()
    }
}

/// Adds the files of a folder, if there is one, under their paths in it after `prefix`.
fn read_files(folder: &Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        if path.is_dir() {
            read_files(&path, &format!("{name}/"), files)?;
        } else {
            let contents = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.push((name, contents));
        }
    }
    Ok(())
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cpio::entries;

    const TEXT: &str = "[[domain]]\nname = \"a\"\nprogram = \"demo\"\n[[domain]]\nname = \"b\"\nprogram = \"demo\"\n";

    fn parse(text: &str) -> Result<BundleFile> {
        BundleFile::parse(PathBuf::from("x.toml"), text.into())
    }

    #[test]
    fn each_program_is_packed_once_and_the_supervisor_always() {
        assert_eq!(parse(TEXT).unwrap().programs().collect::<Vec<_>>(), ["supervisor", "demo"]);
        assert_eq!(parse("").unwrap().programs().collect::<Vec<_>>(), ["supervisor"]);
    }

    #[test]
    fn the_archive_starts_with_the_toml_file() {
        let archive = parse(TEXT).unwrap().archive(&[]).unwrap();
        assert_eq!(entries(&archive), [("bundle.toml".to_string(), 0o100_644, TEXT.as_bytes().to_vec())]);
    }

    #[test]
    fn the_files_of_a_bundles_folder_are_packed_with_their_paths() {
        let root = tempfile::tempdir().unwrap();
        let bundles = root.path().join("tests/bundles");
        fs::create_dir_all(bundles.join("x/machines")).unwrap();
        fs::write(bundles.join("x.toml"), TEXT).unwrap();
        fs::write(bundles.join("x/machines/0.toml"), "0").unwrap();
        fs::write(bundles.join("x/a"), "a").unwrap();
        let archive = BundleFile::read(root.path(), "x").unwrap().archive(&[]).unwrap();
        let names: Vec<_> = entries(&archive).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["bundle.toml", "a", "machines/0.toml"]);
    }

    #[test]
    fn a_domain_without_program_is_refused_with_the_files_name() {
        let error = parse("[[domain]]\nname = \"a\"\n").unwrap_err();
        assert!(format!("{error:#}").contains("x.toml"), "{error:#}");
    }
}
