//! Where this machine gets Debian packages: from the mirror that the user names, and those of its own apt configuration.

use std::{env, fs, path::Path};

/// Names a Debian mirror, for machines whose apt has none: Ubuntu's.
pub const MIRROR_VARIABLE: &str = "DRAGONFLY_DEBIAN_MIRROR";

/// Servers to try, best first: the user's, then those in the machine's apt configuration that carry Debian.
#[must_use]
pub fn servers() -> Vec<String> {
    let mut servers: Vec<String> = env::var(MIRROR_VARIABLE).into_iter().filter_map(|uri| named_server(&uri)).collect();
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    for path in parts.chain([Path::new("/etc/apt/sources.list").to_path_buf()]) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let found = match path.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => deb822_servers(&text),
            Some("list") => one_line_servers(&text),
            _ => continue,
        };
        servers.extend(found);
    }
    let mut unique = Vec::new();
    for server in servers {
        if !unique.contains(&server) {
            unique.push(server);
        }
    }
    unique
}

/// Debian servers named by a deb822 file (`sources.list(5)`, "DEB822-STYLE FORMAT").
fn deb822_servers(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    lines
        .split("\n\n")
        .filter(|stanza| !stanza.lines().any(|line| line.to_ascii_lowercase().replace(' ', "") == "enabled:no"))
        .flat_map(|stanza| stanza.lines())
        .filter_map(|line| line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case("URIs")))
        .flat_map(|(_, uris)| uris.split_whitespace())
        .filter_map(debian_server)
        .collect()
}

/// Debian servers named by a `sources.list` file (`sources.list(5)`, "ONE-LINE-STYLE FORMAT").
fn one_line_servers(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.trim_start().starts_with("deb "))
        .filter_map(|line| line.split_whitespace().find(|word| word.contains("://")))
        .filter_map(debian_server)
        .collect()
}

/// The address that the user gave, if it is one.
fn named_server(uri: &str) -> Option<String> {
    let uri = uri.trim_end_matches('/');
    uri.contains("://").then(|| uri.to_string())
}

/// The address without a trailing slash if it is that of a Debian archive; those of Ubuntu and third parties are not.
fn debian_server(uri: &str) -> Option<String> {
    let uri = uri.trim_end_matches('/');
    let (scheme, _) = uri.split_once("://")?;
    (["http", "https"].contains(&scheme) && uri.ends_with("/debian")).then(|| uri.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deb822_file_gives_its_debian_servers_only() {
        let text = "Types: deb\n# http://old.example/debian\nURIs: http://mirror.example/debian/\nSuites: bookworm\n\n\
                    Types: deb\nURIs: http://mirror.example/debian-security\n\n\
                    Enabled: no\nURIs: http://off.example/debian\n";
        assert_eq!(deb822_servers(text), ["http://mirror.example/debian"]);
    }

    #[test]
    fn a_one_line_file_gives_its_debian_servers_only() {
        let text = "deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian bookworm main\n\
                    # deb http://off.example/debian bookworm main\n\
                    deb-src http://source.example/debian bookworm main\n\
                    deb http://archive.example/ubuntu noble main\n";
        assert_eq!(one_line_servers(text), ["https://mirror.example/debian"]);
    }

    #[test]
    fn a_mirror_must_be_an_address() {
        assert_eq!(named_server("http://mirror.example/deb/").as_deref(), Some("http://mirror.example/deb"));
        assert_eq!(named_server("mirror.example"), None);
    }
}
