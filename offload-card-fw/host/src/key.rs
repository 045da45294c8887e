//! Keys of encrypted disks.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use dragonfly_storage::{KEY_BYTES, XtsAes256};

/// Reads a key file: 64 bytes, or as many in hexadecimal digits.
///
/// # Errors
/// It cannot be read, is no key, or its halves are the same, which XTS does not allow.
pub fn read(path: &Path) -> Result<XtsAes256> {
    let bytes = fs::read(path).with_context(|| format!("cannot read the key file {}", path.display()))?;
    let Some(key) = parse(&bytes) else {
        bail!(
            "{} holds no key: make one with `openssl rand -hex {KEY_BYTES} > {}`, readable for its owner only",
            path.display(),
            path.display()
        );
    };
    XtsAes256::new(&key).with_context(|| format!("the key in {} cannot be used", path.display()))
}

fn parse(bytes: &[u8]) -> Option<[u8; KEY_BYTES]> {
    if let Ok(key) = bytes.try_into() {
        return Some(key);
    }
    let text = str::from_utf8(bytes).ok()?.trim_ascii();
    let mut key = [0; KEY_BYTES];
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_bytes_or_their_digits() {
        let key: [u8; KEY_BYTES] = std::array::from_fn(|place| place as u8 + 0x70);
        let digits: String = key.iter().map(|byte| format!("{byte:02X}")).collect();
        for bytes in [key.to_vec(), digits.clone().into_bytes(), format!("{digits}\n").into_bytes()] {
            assert_eq!(parse(&bytes), Some(key));
        }
        for bytes in [&b""[..], &[1; 63], &[b'g'; 128], &[b'+'; 128], &digits.as_bytes()[1..]] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
    }
}
