//! Static bearer tokens in the format of kube-apiserver's `--token-auth-file`. Only their hashes are kept.

mod table;

use std::{collections::HashMap, fmt};

use csv::{ReaderBuilder, StringRecord, Trim};
use moorline_model::{Fingerprint, Identity, InvalidIdentity};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::problems::{Found, Problems};

pub use table::AddError;

/// Tokens in one file. Each lookup compares with every one of them, so that time tells nothing; 4,096 take some tens
/// of microseconds. Whoever has more users has an identity provider.
const MAX_TOKENS: usize = 4096;

/// Bytes of a presented token that are hashed; longer ones are nobody's.
const MAX_TOKEN_LENGTH: usize = 8 * 1024;

/// How a token is written whose text the file shall not hold.
const HASHED: &str = "sha256:";

/// A table of bearer tokens and whom they stand for.
///
/// A line is `token,user,uid` or `token,user,uid,"group1,group2"`; blank lines and lines beginning with `#` are left
/// out. In place of a token, `sha256:` and the hexadecimal SHA-256 of it may stand.
#[derive(Default)]
pub struct StaticTokens {
    entries: Vec<Entry>,
}

struct Entry {
    digest: [u8; 32],
    identity: Identity,
}

/// What a token is called where it cannot be shown: the first twelve digits of its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 6]);

impl StaticTokens {
    /// Reads a table.
    ///
    /// # Errors
    /// Everything that is wrong, with line numbers; no message holds a token.
    pub fn parse(csv: &str) -> Result<Self, Problems> {
        let mut found = Found::default();
        let mut entries = Vec::new();
        let mut lines: HashMap<[u8; 32], u64> = HashMap::new();
        // Line by line, so that a quote left open spoils its own line and not the rest of the file.
        for (line, text) in (1_u64..).zip(csv.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let Some(record) = record(text) else {
                found.add(format!("line {line}"), "an open quote", "write it as token,user,uid,\"group1,group2\"");
                continue;
            };
            let Some(entry) = entry(&record, line, &mut found) else { continue };
            if let Some(first) = lines.insert(entry.digest, line) {
                found.add(
                    format!("line {line}, token"),
                    format!("the same token stands in line {first}"),
                    "give each user a token of their own",
                );
            }
            entries.push(entry);
        }
        if entries.len() > MAX_TOKENS {
            found.add("file", format!("{} tokens", entries.len()), format!("at most {MAX_TOKENS} are supported"));
        }
        found.or(Self { entries })
    }

    /// Whom a presented token stands for. The time it takes depends on the number of tokens in the table and on the
    /// length of the presented one, and on nothing else.
    #[must_use]
    pub fn authenticate(&self, token: &str) -> Option<Identity> {
        if token.is_empty() || token.len() > MAX_TOKEN_LENGTH {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut matched = Choice::from(0);
        let mut position = 0_u32;
        for (index, entry) in (0_u32..).zip(&self.entries) {
            let equal = entry.digest.ct_eq(&digest);
            position.conditional_assign(&index, equal);
            matched |= equal;
        }
        let entry = self.entries.get(usize::try_from(position).ok()?)?;
        bool::from(matched).then(|| entry.identity.clone())
    }

    /// Whom the tokens stand for, in the order of the table. All are in `system:authenticated`.
    pub fn users(&self) -> impl Iterator<Item = (TokenId, &Identity)> {
        self.entries.iter().map(|entry| (TokenId::of(&entry.digest), &entry.identity))
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none, so that nobody can log in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl TokenId {
    fn of(digest: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, ..] = *digest;
        Self([a, b, c, d, e, f])
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticTokens").field("len", &self.entries.len()).finish_non_exhaustive()
    }
}

/// The fields of one line; none where a quote is left open.
fn record(line: &str) -> Option<StringRecord> {
    if !line.matches('"').count().is_multiple_of(2) {
        return None;
    }
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .trim(Trim::All)
        .buffer_capacity(line.len())
        .from_reader(line.as_bytes());
    reader.records().next()?.ok()
}

fn entry(record: &StringRecord, line: u64, found: &mut Found) -> Option<Entry> {
    if record.len() < 3 {
        found.add(
            format!("line {line}"),
            format!("{} fields", record.len()),
            "write token,user,uid and, if the user is in groups, \"group1,group2\" in double quotes",
        );
        return None;
    }
    if record.len() > 4 {
        found.add(
            format!("line {line}, groups"),
            format!("{} fields, at most 4 make sense", record.len()),
            "put the list of groups into double quotes: \"group1,group2\"",
        );
    }
    let field = |index| record.get(index).unwrap_or_default();
    let digest = digest(field(0), line, found);
    let mut invalid = |name: &str, error: InvalidIdentity| {
        found.add(format!("line {line}, {name}"), error.to_string(), format!("correct the {name}"));
    };
    let identity = Identity::new(field(1)).map_err(|error| invalid("user", error)).ok()?;
    let identity = match field(2) {
        "" => identity,
        uid => identity.with_uid(uid).map_err(|error| invalid("uid", error)).ok()?,
    };
    let groups = field(3).split(',').map(str::trim).filter(|group| !group.is_empty());
    let identity =
        identity.with_groups(groups.chain(["system:authenticated"])).map_err(|error| invalid("groups", error)).ok()?;
    Some(Entry { digest: digest?, identity })
}

fn digest(token: &str, line: u64, found: &mut Found) -> Option<[u8; 32]> {
    let at = || format!("line {line}, token");
    if let Some(hex) = token.strip_prefix(HASHED) {
        // The hash of a token and that of a certificate are written alike.
        let digest = hex.parse::<Fingerprint>().ok().map(|digest| *digest.as_bytes());
        if digest.is_none() {
            found.add(at(), "not a SHA-256", "write sha256: and 64 hexadecimal digits (printf %s TOKEN | sha256sum)");
        }
        return digest;
    }
    if token.is_empty() {
        found.add(at(), "empty", "write a random text, such as the output of `openssl rand -hex 32`");
        return None;
    }
    if token.len() > MAX_TOKEN_LENGTH || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        found.add(
            at(),
            "too long, or holds a character that cannot stand in an Authorization header",
            format!("use at most {MAX_TOKEN_LENGTH} visible ASCII characters without spaces"),
        );
        return None;
    }
    Some(Sha256::digest(token.as_bytes()).into())
}

#[cfg(test)]
mod tests;
