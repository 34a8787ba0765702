//! The token file.

use std::sync::Arc;

use config::{Config, ConfigError, File, FileFormat, Value};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::caller::{Caller, Role};

/// A token as its file keeps it: who has it and what it allows, and not the token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Whom it stands for; several may be of one subject, while one replaces another.
    pub subject: String,
    /// SHA-256 of the token, 64 hexadecimal digits.
    pub sha256: String,
    /// What it allows.
    pub role: Role,
    /// Names of the banks that it is for, in which `*` stands for any characters.
    pub banks: Vec<String>,
}

/// A whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    tokens: Vec<Value>,
}

/// Tokens by what they hash to.
#[derive(Debug, Default)]
pub(in crate::grpc) struct Tokens {
    known: Vec<(Fingerprint, Arc<Caller>)>,
}

type Fingerprint = [u8; 32];

/// What 128 random bits take at least, as text: 22 characters of base64. A shorter one is none of ours.
const SHORTEST: usize = 22;

/// The SHA-256 of a token, in hexadecimal digits.
pub fn fingerprint(token: &str) -> String {
    use std::fmt::Write as _;
    hashed(token).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string can't fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

fn hashed(token: &str) -> Fingerprint {
    Sha256::digest(token.as_bytes()).into()
}

impl Tokens {
    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong, and in which entry.
    pub(in crate::grpc) fn parse(text: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(text).map_err(|_| "it is not text".to_owned())?;
        let file = Config::builder().add_source(File::from_str(text, FileFormat::Toml)).build();
        let file: TokenFile = file.and_then(Config::try_deserialize).map_err(|fault| in_our_words(&fault))?;
        let mut known: Vec<(Fingerprint, Arc<Caller>)> = Vec::with_capacity(file.tokens.len());
        for (number, entry) in file.tokens.into_iter().enumerate() {
            let wrong = |what: &str| format!("tokens[{number}]: {what}");
            let Entry { subject, sha256, role, banks } = entry.try_deserialize().map_err(|_| wrong(ENTRY))?;
            if subject.is_empty() || subject.len() > 128 {
                return Err(wrong("subject must have 1 to 128 bytes"));
            }
            if banks.is_empty() || banks.iter().any(String::is_empty) {
                return Err(wrong("banks must list names or patterns; [\"*\"] is all"));
            }
            let hash =
                unhex(&sha256).ok_or_else(|| wrong("sha256 must be 64 hexadecimal digits, as `negbank token` prints them"))?;
            if known.iter().any(|(other, _)| *other == hash) {
                return Err(wrong("there is an entry of this token already"));
            }
            known.push((hash, Arc::new(Caller { subject: subject.into(), role, banks })));
        }
        Ok(Self { known })
    }

    /// How many there are.
    pub(in crate::grpc) fn len(&self) -> usize {
        self.known.len()
    }

    /// Whom a token stands for. Takes as long whether it is known or not.
    pub(in crate::grpc) fn find(&self, token: &str) -> Option<Arc<Caller>> {
        let hash = hashed(token);
        let mut found = None;
        for (known, caller) in &self.known {
            if bool::from(known.ct_eq(&hash)) {
                found = Some(caller);
            }
        }
        found.filter(|_| token.len() >= SHORTEST).cloned()
    }
}

const ENTRY: &str = "it must have subject, sha256, role (read, write or admin) and banks (a list), and nothing else";

/// What is wrong with the file as a whole. The parser quotes what it could not read, and that may be a token: only numbers are
/// taken from its words.
fn in_our_words(fault: &ConfigError) -> String {
    let ConfigError::FileParse { cause, .. } = fault else { return "it must have [[tokens]] and nothing else".to_owned() };
    match position(&cause.to_string()) {
        Some((line, column)) => format!("line {line}, column {column}: it is not TOML"),
        None => "it is not TOML".to_owned(),
    }
}

/// Where the parser stopped, line and column.
fn position(said: &str) -> Option<(u32, u32)> {
    let (line, column) = said.lines().next()?.strip_prefix("TOML parse error at line ")?.split_once(", column ")?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

fn unhex(digits: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Tokens, fingerprint};
    use crate::grpc::access::caller::Role;

    const TOKEN: &str = "a-token-of-twenty-two-letters";

    fn file(entries: &[(&str, &str, &str, &str)]) -> String {
        let entry = |(subject, sha256, role, banks): &(&str, &str, &str, &str)| {
            format!("[[tokens]]\nsubject = {subject:?}\nsha256 = {sha256:?}\nrole = {role:?}\nbanks = {banks}\n")
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn a_token_is_found_by_what_it_hashes_to() {
        assert_eq!(fingerprint("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let text = file(&[("a", &fingerprint(TOKEN), "read", "[\"x\"]"), ("b", &fingerprint("short"), "admin", "[\"*\"]")]);
        let tokens = Tokens::parse(text.as_bytes()).unwrap();
        assert_eq!(tokens.len(), 2);
        let found = tokens.find(TOKEN).unwrap();
        assert_eq!((&*found.subject, found.role), ("a", Role::Read));
        assert!(tokens.find("short").is_none(), "a token that can't hold 128 bits");
        assert!(tokens.find("another-of-twenty-two-letters").is_none());
        assert_eq!(Tokens::parse(b"").unwrap().len(), 0);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_entry() {
        let hash = fingerprint(TOKEN);
        let good = ("a", hash.as_str(), "read", "[\"*\"]");
        for (entry, says) in [
            (("", hash.as_str(), "read", "[\"*\"]"), "tokens[1]: subject"),
            (("b", &hash[1..], "read", "[\"*\"]"), "tokens[1]: sha256"),
            (("b", hash.as_str(), "root", "[\"*\"]"), "tokens[1]: it must have"),
            (("b", hash.as_str(), "read", "[]"), "tokens[1]: banks"),
            (good, "tokens[1]: there is an entry of this token already"),
        ] {
            let refused = Tokens::parse(file(&[good, entry]).as_bytes()).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
        assert!(Tokens::parse(b"[[token]]\n").is_err(), "a table of another name");
        assert!(Tokens::parse(&[0xFF]).unwrap_err().contains("text"));
    }

    #[test]
    fn a_token_in_the_wrong_place_is_not_repeated() {
        let hash = fingerprint(TOKEN);
        for (text, says) in [
            (file(&[("a", TOKEN, "read", "[\"*\"]")]), "tokens[0]: sha256"),
            (file(&[("a", &hash, TOKEN, "[\"*\"]")]), "tokens[0]: it must have"),
            (format!("[[tokens]]\nsubject = \"a\"\nsha256 = {TOKEN}\n"), "line 3, column "),
            (format!("[[tokens]]\n{TOKEN}\n"), "line 2, column "),
            (format!("[[tokens]]\n{TOKEN} = 1\n"), "tokens[0]: it must have"),
            (format!("{TOKEN} = 1\n"), "[[tokens]] and nothing else"),
            (format!("tokens = {TOKEN:?}\n"), "[[tokens]] and nothing else"),
        ] {
            let refused = Tokens::parse(text.as_bytes()).unwrap_err();
            assert!(refused.contains(says) && !refused.contains(TOKEN), "{refused}");
        }
    }
}
