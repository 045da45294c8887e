//! Where a server is, and which of its exports is meant.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use thiserror::Error;

/// The port that servers have if none is said.
pub const DEFAULT_PORT: u16 = 10809;
/// Longer names are none (`doc/proto.md`, "Values").
const MAX_EXPORT_BYTES: usize = 4096;

/// An NBD URI, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// Where the server listens.
    pub place: Place,
    /// The export's name; empty for the server's default.
    pub export: String,
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// At a TCP port.
    Tcp {
        /// A name or an Internet address.
        host: String,
        /// The port.
        port: u16,
    },
    /// At a Unix socket with this path.
    Unix(String),
}

/// Why something is no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AddressError {
    /// It begins otherwise.
    #[error("is no URI nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH")]
    Scheme,
    /// `nbds`.
    #[error("asks for TLS, which is not supported: use nbd:// or nbd+unix://, and a tunnel")]
    Tls,
    /// There is no host.
    #[error("names no host: write nbd://HOST[:PORT]/EXPORT")]
    Host,
    /// The port is none.
    #[error("has a port that is none: give a number from 1 to 65535")]
    Port,
    /// There is no socket.
    #[error("names no socket: write nbd+unix:///EXPORT?socket=PATH")]
    Socket,
    /// A `%` without two hexadecimal digits, or what they give is no text.
    #[error("has a % that is not followed by the two hexadecimal digits of a character")]
    Percent,
    /// The name of the export is too long.
    #[error("has an export's name of more than 4096 bytes")]
    Export,
}

impl Address {
    /// Takes a URI apart.
    ///
    /// # Errors
    /// It is none of this kind.
    pub fn parse(uri: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = uri.split_once("://").ok_or(AddressError::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        let place = match scheme {
            "nbd" => tcp(authority)?,
            "nbd+unix" if authority.is_empty() => unix(query)?,
            "nbd+unix" => return Err(AddressError::Socket),
            "nbds" | "nbds+unix" => return Err(AddressError::Tls),
            _ => return Err(AddressError::Scheme),
        };
        let export = decoded(export)?;
        if export.len() > MAX_EXPORT_BYTES {
            return Err(AddressError::Export);
        }
        Ok(Self { place, export })
    }
}

fn tcp(authority: &str) -> Result<Place, AddressError> {
    // A user's name is for TLS.
    let authority = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    // An address of IPv6 has colons, and brackets around it.
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(AddressError::Host)?;
            (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")).ok_or(AddressError::Host)?)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let host = decoded(host)?;
    if host.is_empty() {
        return Err(AddressError::Host);
    }
    let port = match port {
        "" => DEFAULT_PORT,
        // Parsing takes a sign, too.
        _ if !port.bytes().all(|digit| digit.is_ascii_digit()) => return Err(AddressError::Port),
        _ => port.parse().map_err(|_| AddressError::Port)?,
    };
    if port == 0 { Err(AddressError::Port) } else { Ok(Place::Tcp { host, port }) }
}

fn unix(query: &str) -> Result<Place, AddressError> {
    let socket = query.split('&').find_map(|pair| pair.strip_prefix("socket=")).ok_or(AddressError::Socket)?;
    let socket = decoded(socket)?;
    if socket.is_empty() { Err(AddressError::Socket) } else { Ok(Place::Unix(socket)) }
}

/// Text with the characters that `%` and two hexadecimal digits stand for (RFC 3986, 2.1).
fn decoded(text: &str) -> Result<String, AddressError> {
    let mut pieces = text.split('%');
    let mut bytes: Vec<u8> = pieces.next().unwrap_or_default().into();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.filter(|byte| *byte != 0).ok_or(AddressError::Percent)?);
        bytes.extend(piece.bytes().skip(2));
    }
    Ok(core::str::from_utf8(&bytes).map_err(|_| AddressError::Percent)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_what_the_protocols_document_says() {
        let tcp = |host: &str, port| Place::Tcp { host: host.into(), port };
        for (uri, place, export) in [
            ("nbd://example.com", tcp("example.com", 10809), ""),
            ("nbd://example.com:10810/disk", tcp("example.com", 10810), "disk"),
            ("nbd://user@192.0.2.1/a%20b/c", tcp("192.0.2.1", 10809), "a b/c"),
            ("nbd://[2001:db8::1]:1/", tcp("2001:db8::1", 1), ""),
            ("nbd://[::1]", tcp("::1", 10809), ""),
            ("nbd+unix:///?socket=/run/nbd.sock", Place::Unix("/run/nbd.sock".into()), ""),
            ("nbd+unix:///x%3F?a=b&socket=n%2fs", Place::Unix("n/s".into()), "x?"),
        ] {
            assert_eq!(Address::parse(uri), Ok(Address { place, export: export.into() }), "{uri}");
        }
    }

    #[test]
    fn what_is_no_uri_is_refused_with_the_reason() {
        for (uri, error) in [
            ("example.com", AddressError::Scheme),
            ("http://example.com/", AddressError::Scheme),
            ("nbds://example.com/", AddressError::Tls),
            ("nbds+unix:///?socket=s", AddressError::Tls),
            ("nbd:///disk", AddressError::Host),
            ("nbd://[::1/disk", AddressError::Host),
            ("nbd://[::1]x/disk", AddressError::Host),
            ("nbd://a:0/", AddressError::Port),
            ("nbd://a:65536/", AddressError::Port),
            ("nbd://a:+80/", AddressError::Port),
            ("nbd+unix:///disk", AddressError::Socket),
            ("nbd+unix:///disk?socket=", AddressError::Socket),
            ("nbd+unix://host/disk?socket=s", AddressError::Socket),
            ("nbd://a/%", AddressError::Percent),
            ("nbd://a/%4", AddressError::Percent),
            ("nbd://a/%+4", AddressError::Percent),
            ("nbd://a/%00", AddressError::Percent),
            ("nbd://a/%ff", AddressError::Percent),
            ("nbd://a/%é", AddressError::Percent),
        ] {
            assert_eq!(Address::parse(uri), Err(error), "{uri}");
        }
        assert_eq!(Address::parse(&["nbd://a/", &"x".repeat(4097)].concat()), Err(AddressError::Export));
    }
}
