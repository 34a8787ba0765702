//! Names of banks.

use std::fmt;

use super::Invalid;

/// A bank's name: 1 to 128 of `A-Z a-z 0-9 _ - .`, the first a letter or a digit. So it is never a path, an option or empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BankName(String);

impl BankName {
    /// Longest name, in characters.
    pub const MAX_LEN: usize = 128;

    /// Parses a name.
    ///
    /// # Errors
    /// [`Invalid`] on `field` for anything else than the characters above.
    pub fn parse(field: &str, name: &str) -> Result<Self, Invalid> {
        if name.is_empty() {
            return Err(Invalid::one(field, "a bank's name is required"));
        }
        if is_plain(name) {
            return Ok(Self(name.to_owned()));
        }
        let shown: String = name.chars().take(Self::MAX_LEN).collect();
        Err(Invalid::one(
            field,
            format!(
                "{shown:?} is not a bank name: 1 to {} letters, digits, '_', '-' or '.', the first a letter or a digit",
                Self::MAX_LEN
            ),
        ))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// True for what may name a thing: it is never a path, an option or empty.
pub(super) fn is_plain(name: &str) -> bool {
    let fits = name.len() <= BankName::MAX_LEN;
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    fits && starts && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

impl fmt::Display for BankName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::BankName;

    #[test]
    fn paths_options_and_long_names_are_refused() {
        for bad in ["", "../etc", "a/b", "-rf", ".hidden", "naïve", "a b", &"x".repeat(129)] {
            assert!(BankName::parse("name", bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "7", "imagenet-v2.train_0", &"x".repeat(128)] {
            assert_eq!(BankName::parse("name", good).map(|name| name.to_string()), Ok((*good).to_owned()));
        }
    }
}
