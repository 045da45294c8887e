//! `cargo xtask doctor --size`: how many lines of logic the kernel has.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The most lines of logic that the kernel is to have.
const GOAL: usize = 10_000;

/// What stands before items that are for tests only; the last is for those of other crates, too.
const TESTS: [&str; 3] = ["#[cfg(test)]", "#[cfg(all(test,", "#[cfg(any(test, loom, feature = \"host\"))]"];

/// Folders with what the kernel does.
const LOGIC: [&str; 4] = ["kernel/src", "kernel/memory/src", "kernel/vapic/src", "kernel/acpi/src"];
/// Folders with what others have laid down: registers, tables, the numbers of system calls.
const DEFINITIONS: [&str; 2] = ["kernel/hw/src", "kernel/abi/src"];

/// Prints the counts for the workspace at `root`: code without tests, blank lines and comments.
///
/// # Errors
/// Fails when a source file cannot be read.
pub fn report(root: &Path) -> Result<()> {
    let (logic, _) = (print_kind(root, "logic", &LOGIC)?, print_kind(root, "definitions", &DEFINITIONS)?);
    let verdict = if logic <= GOAL { "met" } else { "MISSED" };
    println!("goal     at most {GOAL} lines of logic: {verdict}");
    Ok(())
}

fn print_kind(root: &Path, kind: &str, folders: &[&str]) -> Result<usize> {
    let mut total = 0;
    for folder in folders {
        let counts = count_folder(&root.join(folder))?;
        let sum: usize = counts.values().sum();
        println!("{sum:>8} {folder}");
        // What lies right in the folder, and each folder below.
        if counts.len() > 1 {
            for (part, lines) in &counts {
                println!("{:>8} {lines:>6} {part}", "");
            }
        }
        total += sum;
    }
    println!("{total:>8} lines of {kind}\n");
    Ok(total)
}

/// Lines of code by the folder right below `folder`.
fn count_folder(folder: &Path) -> Result<BTreeMap<String, usize>> {
    let files = sources(folder)?;
    let tests: Vec<_> = files.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let mut counts = BTreeMap::new();
    for (path, text) in files {
        if !tests.iter().any(|test| path.with_extension("").starts_with(test)) {
            *counts.entry(part(folder, &path)).or_default() += count(&text);
        }
    }
    Ok(counts)
}

/// Paths and texts of all source files in `folder` and below.
fn sources(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    const KINDS: [&str; 2] = ["rs", "s"];
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        let entries = fs::read_dir(&next).with_context(|| format!("cannot read {}", next.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| KINDS.iter().any(|kind| extension == *kind)) {
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                files.push((path, text));
            }
        }
    }
    Ok(files)
}

fn is_for_tests(attribute: &str) -> bool {
    TESTS.iter().any(|test| attribute.starts_with(test))
}

/// The modules that the file at `path` has for tests only, as paths without `.rs`.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let is_root = ["lib", "main", "mod"].iter().any(|name| path.file_stem().is_some_and(|stem| stem == *name));
    let folder = if is_root { path.parent().unwrap_or(path).into() } else { path.with_extension("") };
    let pairs = text.lines().zip(text.lines().skip(1));
    let modules = pairs.filter(|(first, _)| is_for_tests(first)).filter_map(|(_, second)| {
        let (_, name) = second.strip_suffix(';')?.rsplit_once("mod ")?;
        Some(folder.join(name))
    });
    modules.collect()
}

fn part(folder: &Path, file: &Path) -> String {
    let below: PathBuf = file.strip_prefix(folder).unwrap_or(file).into();
    match below.components().collect::<Vec<_>>()[..] {
        [first, _, ..] => first.as_os_str().to_string_lossy().into_owned(),
        _ => ".".into(),
    }
}

/// Lines of code in a source file that rustfmt has formatted: an item ends where its first line's indentation returns.
fn count(text: &str) -> usize {
    let mut lines = text.lines();
    let mut count = 0;
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        if is_for_tests(code) {
            skip_item(&mut lines, line.len() - code.len());
        } else if !code.is_empty() && !["//", "#!"].iter().any(|start| code.starts_with(start)) {
            // Assembly's comments begin with `#` and a blank; attributes do not.
            count += usize::from(code != "#" && !code.starts_with("# "));
        }
    }
    count
}

fn skip_item<'a>(lines: &mut impl Iterator<Item = &'a str>, indentation: usize) {
    for line in lines {
        let code = line.trim_start();
        let is_at_edge = line.len() - code.len() == indentation;
        if is_at_edge && !code.starts_with("#[") && (code.ends_with(';') || code.ends_with('}') || code.ends_with("};"))
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_comments_and_inner_attributes_do_not_count() {
        assert_eq!(count("//! About.\n#![no_std]\n\n/// One.\nfn a() {\n    // why\n    b();\n}\n"), 3);
        assert_eq!(count("# a comment\nmov %rax, %rbx\n#\n    ret\n"), 2);
    }

    #[test]
    fn outer_attributes_count() {
        assert_eq!(count("#[derive(Debug)]\nstruct A;\n"), 2);
    }

    #[test]
    fn tests_do_not_count_wherever_they_are() {
        assert_eq!(count("#[cfg(test)]\nmod tests;\nfn a() {}\n"), 1);
        assert_eq!(count("#[cfg(test)]\nmod tests {\n    fn x() {\n    }\n}\nfn a() {}\n"), 1);
        assert_eq!(count("#[cfg(any(test, loom, feature = \"host\"))]\npub mod host;\nfn a() {}\n"), 1);
        assert_eq!(count("#[cfg(any(test, target_os = \"none\"))]\nfn a() {}\n"), 2);
        assert_eq!(count("impl A {\n    #[cfg(test)]\n    fn x() {\n        y();\n    }\n}\n"), 2);
    }

    #[test]
    fn modules_for_tests_are_left_out_and_parts_are_folders() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("lib.rs", "mod arch;\n#[cfg(test)]\nmod model;\n");
        write("arch/mod.rs", "mod a;\n");
        write("arch/a.rs", "#[cfg(test)]\nmod tests;\nfn a() {}\n");
        for name in ["model/mod.rs", "model/deep/b.rs", "arch/a/tests.rs", "notes.md"] {
            write(name, "fn a() {}\n");
        }
        write("arch/deep/c.s", "ret\n");
        let expected = BTreeMap::from([(".".to_string(), 1), ("arch".to_string(), 3)]);
        assert_eq!(count_folder(folder.path()).unwrap(), expected);
    }
}
