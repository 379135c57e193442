//! Changes to a table of tokens as text: a user more, a user less, and every other line as it was.
//!
//! Pure. Whoever calls it reads the table before and writes it after, and lets nobody in between.

use csv::{QuoteStyle, WriterBuilder};
use moorline_model::{Fingerprint, Identity};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{Entry, HASHED, MAX_TOKENS, StaticTokens, TokenId, entry, record};
use crate::problems::{Found, Problems};

/// Why a user cannot be added to a table.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AddError {
    /// The table has a user of that name.
    #[error("there is a user of that name")]
    Exists,
    /// The table has as many tokens as it may.
    #[error("the table holds {MAX_TOKENS} tokens, which is as many as it may")]
    Full,
    /// The table's grammar has no way to say this, such as a group with a comma in its name.
    #[error("the table of tokens cannot hold such a name")]
    Unwritable,
    /// The table as it is cannot be read; what is wrong never holds a token.
    #[error("the table of tokens is broken: {0}")]
    Broken(Problems),
}

impl StaticTokens {
    /// The table with one user more, known by a token of which it gets the hash only.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn with(table: &str, token: &str, user: &Identity) -> Result<(String, TokenId), AddError> {
        let before = Self::parse(table).map_err(AddError::Broken)?;
        if before.entries.iter().any(|entry| entry.identity.user() == user.user()) {
            return Err(AddError::Exists);
        }
        if before.entries.len() >= MAX_TOKENS {
            return Err(AddError::Full);
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let line = line(&digest, user).ok_or(AddError::Unwritable)?;
        // What is read back must be what was meant.
        let meant = user.clone().with_groups(["system:authenticated"]).ok().ok_or(AddError::Unwritable)?;
        if read(&line).is_none_or(|entry| entry.identity != meant) {
            return Err(AddError::Unwritable);
        }
        let end = if table.is_empty() || table.ends_with('\n') { "" } else { "\n" };
        Ok((format!("{table}{end}{line}"), TokenId::of(&digest)))
    }

    /// The table without the tokens of a user, or without one of them, and which these were; none where there is no
    /// such user.
    ///
    /// # Errors
    /// The table as it is cannot be read.
    pub fn without(table: &str, user: &str, only: Option<TokenId>) -> Result<(String, Vec<TokenId>), Problems> {
        Self::parse(table)?;
        let (mut kept, mut removed) = (String::with_capacity(table.len()), Vec::new());
        for line in table.split_inclusive('\n') {
            let theirs =
                read(line).filter(|entry| entry.identity.user() == user).map(|entry| TokenId::of(&entry.digest));
            match theirs.filter(|id| only.is_none_or(|only| only == *id)) {
                Some(id) => removed.push(id),
                None => kept.push_str(line),
            }
        }
        Ok((kept, removed))
    }
}

fn line(digest: &[u8; 32], user: &Identity) -> Option<String> {
    let hash = format!("{HASHED}{}", Fingerprint::from_bytes(*digest));
    let groups = user.groups().join(",");
    let mut writer = WriterBuilder::new().quote_style(QuoteStyle::Necessary).from_writer(Vec::new());
    writer.write_record([&hash, user.user(), user.uid().unwrap_or_default(), &groups]).ok()?;
    String::from_utf8(writer.into_inner().ok()?).ok()
}

fn read(line: &str) -> Option<Entry> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    entry(&record(line)?, 0, &mut Found::default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &str = "# Ours.\r\nfirst,ann,1,\"devs,ops\"\n\n  second , bob ,,\n# The last:\nthird,ann,1";

    fn user(name: &str, groups: &[&str]) -> Identity {
        Identity::new(name).unwrap().with_groups(groups.iter().copied()).unwrap()
    }

    #[test]
    fn a_user_more_and_every_other_line_as_it_was() {
        let cid = user("cid", &["devs", "a b"]).with_uid("7").unwrap();
        let (table, id) = StaticTokens::with(TABLE, "secret", &cid).unwrap();
        assert!(table.starts_with(&format!("{TABLE}\nsha256:")) && table.ends_with(",cid,7,\"devs,a b\"\n"), "{table}");
        assert!(!table.contains("secret"));
        let tokens = StaticTokens::parse(&table).unwrap();
        let found = tokens.authenticate("secret").unwrap();
        assert_eq!((found.user(), found.uid()), ("cid", Some("7")));
        assert_eq!(found.groups(), ["devs", "a b", "system:authenticated"]);
        assert_eq!(tokens.users().last().map(|(id, user)| (id, user.user())), Some((id, "cid")));
        let (table, removed) = StaticTokens::without(&table, "cid", None).unwrap();
        assert_eq!((table, removed), (format!("{TABLE}\n"), vec![id]));
    }

    #[test]
    fn a_user_less_or_one_token_of_theirs() {
        let ids: Vec<_> = StaticTokens::parse(TABLE).unwrap().users().map(|(id, _)| id).collect();
        let (table, removed) = StaticTokens::without(TABLE, "ann", None).unwrap();
        assert_eq!((table.as_str(), removed), ("# Ours.\r\n\n  second , bob ,,\n# The last:\n", vec![ids[0], ids[2]]));
        let (table, removed) = StaticTokens::without(TABLE, "ann", Some(ids[2])).unwrap();
        assert_eq!((table, removed), (TABLE.trim_end_matches("third,ann,1").to_owned(), vec![ids[2]]));
        let none = (TABLE.to_owned(), Vec::new());
        assert_eq!(StaticTokens::without(TABLE, "ann", Some(ids[1])).unwrap(), none);
        assert_eq!(StaticTokens::without(TABLE, "nobody", None).unwrap(), none);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |table: &str, user: &Identity| StaticTokens::with(table, "t", user).unwrap_err().to_string();
        assert_eq!(refused(TABLE, &user("ann", &[])), "there is a user of that name");
        for group in ["a,b", ",", "\u{a0}a"] {
            assert_eq!(refused("", &user("eve", &[group])), "the table of tokens cannot hold such a name", "{group:?}");
        }
        let full: String = (0..MAX_TOKENS).map(|n| format!("t{n},u{n},\n")).collect();
        assert!(refused(&full, &user("eve", &[])).contains("as many as it may"));
        assert!(refused("broken", &user("eve", &[])).starts_with("the table of tokens is broken: line 1"));
        assert!(StaticTokens::without("broken", "ann", None).is_err());
    }

    proptest! {
        #[test]
        fn what_is_added_is_read_as_it_was_meant(name in "\\PC{1,20}", group in "\\PC{1,20}", uid in "\\PC{0,20}") {
            let identity = Identity::new(name).and_then(|user| user.with_groups([group]));
            let identity = identity.and_then(|user| if uid.is_empty() { Ok(user) } else { user.with_uid(uid) });
            let Ok(identity) = identity else { return Ok(()) };
            let Ok((table, _)) = StaticTokens::with("# x\na,b,c\n", "t", &identity) else { return Ok(()) };
            let found = StaticTokens::parse(&table).unwrap().authenticate("t").unwrap();
            prop_assert_eq!(found.user(), identity.user());
            prop_assert_eq!(found.uid(), identity.uid());
            prop_assert_eq!(&found.groups()[..1], identity.groups());
            prop_assert_eq!(StaticTokens::without(&table, identity.user(), None).unwrap().0, "# x\na,b,c\n");
        }
    }
}
