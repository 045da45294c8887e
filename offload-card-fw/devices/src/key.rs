//! Keys of encrypted disks.

use dragonfly_storage::{KEY_BYTES, KeyError, XtsAes256};

/// Why what a key file holds cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// It is of another form.
    #[error("it holds no key: make one with `openssl rand -hex {KEY_BYTES}`, readable for its owner only")]
    NoKey,
    /// Its halves are the same, which XTS does not allow.
    #[error(transparent)]
    Unfit(#[from] KeyError),
}

/// The key that a key file holds: 64 bytes, or as many in hexadecimal digits.
///
/// # Errors
/// See [`KeyFileError`].
pub fn parse_key(bytes: &[u8]) -> Result<XtsAes256, KeyFileError> {
    Ok(XtsAes256::new(&key_bytes(bytes).ok_or(KeyFileError::NoKey)?)?)
}

fn key_bytes(bytes: &[u8]) -> Option<[u8; KEY_BYTES]> {
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
    use alloc::{format, string::String};

    use super::*;

    #[test]
    fn a_key_is_64_bytes_or_their_digits() {
        let key: [u8; KEY_BYTES] = core::array::from_fn(|place| place as u8 + 0x70);
        let digits: String = key.iter().map(|byte| format!("{byte:02X}")).collect();
        for bytes in [key.to_vec(), digits.clone().into_bytes(), format!("{digits}\n").into_bytes()] {
            assert_eq!(key_bytes(&bytes), Some(key));
        }
        for bytes in [&b""[..], &[1; 63], &[b'g'; 128], &[b'+'; 128], &digits.as_bytes()[1..]] {
            assert_eq!(key_bytes(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn halves_that_are_the_same_are_no_key() {
        assert_eq!(parse_key(&[7; KEY_BYTES]).err(), Some(KeyFileError::Unfit(KeyError::EqualHalves)));
    }
}
