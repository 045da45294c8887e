//! Names of domains, handles and machines.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::SettingsError;
use crate::section::Section;

/// The longest name; names stand in a domain's arguments, which have little room.
const MAX_NAME: usize = 32;

impl Section<'_> {
    /// A name, which must be there.
    ///
    /// # Errors
    /// It is not, or is no name.
    pub fn name(&self, key: &str) -> Result<String, SettingsError> {
        let name = self.string(key)?;
        let name = self.required(key, name)?;
        self.check_name(key, &name)?;
        Ok(name)
    }

    /// The names of a list; none if the key is not there.
    ///
    /// # Errors
    /// One is no name.
    pub fn names(&self, key: &str) -> Result<Vec<String>, SettingsError> {
        let names = self.strings(key)?;
        names.iter().try_for_each(|name| self.check_name(key, name))?;
        Ok(names)
    }

    fn check_name(&self, key: &str, name: &str) -> Result<(), SettingsError> {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_fit) {
            let message = format!("has \"{name}\": a name has 1 to {MAX_NAME} letters, digits, `-` and `_`");
            return Err(self.error(key, message));
        }
        Ok(())
    }
}
