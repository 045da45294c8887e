//! `cargo xtask clean`.

use std::{
    fs,
    io::{IsTerminal, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};

use crate::{
    build::Project,
    cli::Clean,
    tools::{Tools, rust},
};

/// Removes what was built and, if asked for, the fetched tools.
///
/// # Errors
/// Fails when something cannot be removed, or nobody can be asked.
pub fn run(tools: &Tools, arguments: &Clean) -> Result<()> {
    let project = Project::load()?;
    remove(&project.root.join("build"))?;
    let status = rust::cargo(true).arg("clean").current_dir(&project.root).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo clean` failed");
    }
    if arguments.cache {
        let root = tools.cache().root();
        if arguments.yes || confirmed(&format!("Remove {} with all fetched tools?", root.display()))? {
            let _lock = tools.cache().lock()?;
            // By name: the user may have put the cache into a folder that holds other things.
            for folder in [tools.cache().bin(), tools.cache().sets(), tools.cache().packages(), tools.cache().apt()] {
                remove(&folder)?;
            }
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        println!("removed {}", folder.display());
    }
    Ok(())
}

fn confirmed(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("{question} There is no terminal to ask at: say --yes");
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}
