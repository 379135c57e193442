//! An authenticated user. Made by the authenticators, carried through the tunnel, written as `Impersonate-*` headers.
//!
//! The checks here are what makes those headers safe: no part can be empty where an empty header would be ignored,
//! hold a control character that would end a header, or begin or end with a space, which HTTP would cut off so that
//! another user came out than went in.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Bounds on an identity, each with its reason.
pub mod limits {
    /// Bytes in one user name, group, uid, extra key or extra value: far beyond any real name (a distinguished name in
    /// a large directory has some hundred bytes), small enough to print.
    pub const PART: usize = 1024;

    /// Groups and extra values together: twice what a large directory gives one person, and well below the 24,576
    /// header lines that the `http` crate holds.
    pub const PARTS: usize = 8192;

    /// Bytes of all parts together: kube-apiserver takes 1 MiB of request head (Go's default), of which the header
    /// names, one for each group, are about a third.
    pub const TOTAL: usize = 512 * 1024;
}

/// An authenticated user: a user name that is never empty, groups, uid and extra, as in Kubernetes' `UserInfo`.
///
/// Extra keys are kept in lower case, since they travel in header names, where Kubernetes does the same.
/// Reading one from JSON goes through the same checks and refuses unknown fields: an identity that is understood only
/// in part must not be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    user: String,
    groups: Vec<String>,
    uid: Option<String>,
    extra: BTreeMap<String, Vec<String>>,
    /// Groups and extra values, counted as they come, so that adding one never walks over all.
    parts: usize,
    /// Bytes of all of it; an extra key counts once for each of its values, as it is written.
    bytes: usize,
}

impl Identity {
    /// An identity with this user name and nothing else.
    ///
    /// # Errors
    /// The name is empty, too long, holds a control character, or begins or ends with a space.
    pub fn new(user: impl Into<String>) -> Result<Self, InvalidIdentity> {
        let user = user.into();
        check(IdentityPart::User, &user)?;
        let bytes = user.len();
        Ok(Self { user, groups: Vec::new(), uid: None, extra: BTreeMap::new(), parts: 0, bytes })
    }

    /// Adds groups; one that is there already is not added again.
    ///
    /// # Errors
    /// A group breaks the rules of [`Identity::new`], or the identity grows past [`limits`].
    pub fn with_groups(mut self, groups: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, InvalidIdentity> {
        let mut seen: HashSet<String> = self.groups.iter().cloned().collect();
        for group in groups {
            let group = group.into();
            check(IdentityPart::Group, &group)?;
            if seen.insert(group.clone()) {
                self.count(1, group.len())?;
                self.groups.push(group);
            }
        }
        Ok(self)
    }

    /// Sets the uid.
    ///
    /// # Errors
    /// The uid breaks the rules of [`Identity::new`] (give none rather than an empty one).
    pub fn with_uid(mut self, uid: impl Into<String>) -> Result<Self, InvalidIdentity> {
        let uid = uid.into();
        check(IdentityPart::Uid, &uid)?;
        self.count(0, uid.len())?;
        self.bytes -= self.uid.replace(uid).map_or(0, |former| former.len());
        Ok(self)
    }

    /// Adds values to an extra key; a key without values is not kept, since no header can carry it.
    ///
    /// # Errors
    /// The key breaks the rules of [`Identity::new`], a value does (but a value may be empty), or the identity grows
    /// past [`limits`].
    pub fn with_extra(
        mut self,
        key: impl Into<String>,
        values: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, InvalidIdentity> {
        let key = key.into().to_ascii_lowercase();
        check(IdentityPart::ExtraKey, &key)?;
        let mut kept = Vec::new();
        for value in values {
            let value = value.into();
            check(IdentityPart::ExtraValue, &value)?;
            self.count(1, key.len() + value.len())?;
            kept.push(value);
        }
        if !kept.is_empty() {
            self.extra.entry(key).or_default().append(&mut kept);
        }
        Ok(self)
    }

    /// The user name; never empty.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The groups, in the order they were given, each once.
    #[must_use]
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// The uid; never empty.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    /// The extra values by key; every key is in lower case and has at least one value.
    #[must_use]
    pub const fn extra(&self) -> &BTreeMap<String, Vec<String>> {
        &self.extra
    }

    /// Bytes of all of it.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the user is in this group.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    fn count(&mut self, parts: usize, bytes: usize) -> Result<(), InvalidIdentity> {
        self.parts += parts;
        self.bytes += bytes;
        if self.parts > limits::PARTS {
            return Err(InvalidIdentity::TooMany);
        }
        if self.bytes > limits::TOTAL {
            return Err(InvalidIdentity::TooLarge);
        }
        Ok(())
    }
}

/// A part of an identity, as named in [`InvalidIdentity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentityPart {
    /// The user name.
    #[error("user name")]
    User,
    /// A group.
    #[error("group")]
    Group,
    /// The uid.
    #[error("uid")]
    Uid,
    /// The key of an extra value.
    #[error("extra key")]
    ExtraKey,
    /// An extra value.
    #[error("extra value")]
    ExtraValue,
}

/// Why something is not an identity. Messages name the part and never repeat its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidIdentity {
    /// The part was empty.
    #[error("the {0} is empty")]
    Empty(IdentityPart),
    /// The part held a control character, such as a line break.
    #[error("the {0} holds a control character")]
    ControlCharacter(IdentityPart),
    /// The part began or ended with a space.
    #[error("the {0} begins or ends with a space")]
    OuterSpace(IdentityPart),
    /// The part was longer than [`limits::PART`].
    #[error("the {0} is longer than {max} bytes", max = limits::PART)]
    TooLong(IdentityPart),
    /// More groups and extra values than [`limits::PARTS`].
    #[error("more than {max} groups and extra values", max = limits::PARTS)]
    TooMany,
    /// More bytes than [`limits::TOTAL`].
    #[error("groups and extra values take more than {max} bytes", max = limits::TOTAL)]
    TooLarge,
}

fn check(part: IdentityPart, text: &str) -> Result<(), InvalidIdentity> {
    if text.is_empty() && part != IdentityPart::ExtraValue {
        return Err(InvalidIdentity::Empty(part));
    }
    if text.len() > limits::PART {
        return Err(InvalidIdentity::TooLong(part));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidIdentity::ControlCharacter(part));
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return Err(InvalidIdentity::OuterSpace(part));
    }
    Ok(())
}

#[derive(Serialize)]
struct Written<'a> {
    user: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
}

impl Serialize for Identity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Written { user: &self.user, groups: &self.groups, uid: self.uid(), extra: &self.extra }.serialize(serializer)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    user: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    extra: BTreeMap<String, Vec<String>>,
}

impl TryFrom<Read> for Identity {
    type Error = InvalidIdentity;

    fn try_from(read: Read) -> Result<Self, Self::Error> {
        let mut identity = Self::new(read.user)?.with_groups(read.groups)?;
        if let Some(uid) = read.uid {
            identity = identity.with_uid(uid)?;
        }
        read.extra.into_iter().try_fold(identity, |identity, (key, values)| identity.with_extra(key, values))
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(Read::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
