//! Cuts the texts of a message to their limits as they are written, so that no message is ever too long to send.

use serde::{Serialize, Serializer};

use crate::limits;

/// The longest beginning of `text` that has at most `max` bytes.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default()
}

/// Writes a text, cut to [`limits::TEXT`].
pub(crate) fn text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cut(text, limits::TEXT))
}

/// Writes an optional text, cut to [`limits::TEXT`].
#[expect(clippy::ref_option, reason = "serde asks for this signature")]
pub(crate) fn optional<S: Serializer>(value: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_deref().map(|value| cut(value, limits::TEXT)).serialize(serializer)
}

/// Writes the first [`limits::AUTHORITIES`] fingerprints, each cut to [`limits::WORD`].
pub(crate) fn fingerprints<S: Serializer>(words: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(words.iter().take(limits::AUTHORITIES).map(|word| cut(word, limits::WORD)))
}

/// Writes certificates, cut to [`limits::ROOTS`].
pub(crate) fn roots<S: Serializer>(pem: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cut(pem, limits::ROOTS))
}

/// Writes the first [`limits::CAPABILITIES`] words, each cut to [`limits::WORD`].
pub(crate) fn words<S: Serializer>(words: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(words.iter().take(limits::CAPABILITIES).map(|word| cut(word, limits::WORD)))
}
