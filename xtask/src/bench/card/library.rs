//! What needs no rings that are shared: the card's cipher and its block device alone, by an example of `storage`.

use anyhow::{Context, Result, ensure};

use crate::{build::Project, process::first_lines, tools::rust};

/// Lines of the example, and the figures that they give in bytes or requests per second.
const LINES: [(&str, &str, f64); 3] = [
    ("xts, units of 4096, 4096 bytes: ", "xts_bytes_per_second", 1e9),
    ("blk, null disk, reads of 4096 bytes: ", "blk_null_iops", 1e6),
    ("blk, RAM disk, reads of 4096 bytes: ", "blk_ram_iops", 1e6),
];

/// Runs the example, and gives its figures.
///
/// # Errors
/// It does not build, or prints something else.
pub fn measure(project: &Project, offline: bool) -> Result<Vec<(String, f64)>> {
    let mut command = rust::cargo(offline);
    command.current_dir(&project.root).args(["run", "--quiet", "--release", "--package", "dragonfly-storage"]);
    let output = command.args(["--example", "throughput"]).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the example of storage fails: {}", first_lines(&output.stderr));
    figures(&String::from_utf8_lossy(&output.stdout))
}

fn figures(text: &str) -> Result<Vec<(String, f64)>> {
    let figure = |(begin, name, unit): (&str, &str, f64)| {
        let value = text.lines().find_map(|line| line.strip_prefix(begin)?.split(' ').next()?.parse::<f64>().ok());
        Ok((name.to_string(), value.with_context(|| format!("the example of storage says nothing of {name}"))? * unit))
    };
    LINES.into_iter().map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_what_the_example_prints() {
        let text = "xts, units of 512, 4096 bytes: 4.10 GB/s encrypt, 4.20 GB/s decrypt\n\
                    xts, units of 4096, 4096 bytes: 5.50 GB/s encrypt, 5.60 GB/s decrypt\n\
                    blk, null disk, reads of 4096 bytes: 9.00 M/s\nblk, RAM disk, reads of 4096 bytes: 3.00 M/s\n";
        let found = figures(text).unwrap();
        assert_eq!(found[0], ("xts_bytes_per_second".to_string(), 5.5e9));
        assert_eq!(found[2].1, 3e6);
        assert!(figures("nothing").is_err());
    }
}
