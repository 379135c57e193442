//! Answers, remembered for a short while: bounded in bytes, and one question for all who ask the same at once.
//!
//! Keys are HMAC-SHA-256 under a key of this process: neither a token nor a hash that could be looked up elsewhere is
//! kept. Failures are not remembered; who waits for a question that fails hears of the same failure.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hmac::{Hmac, Mac};
use moka::{Expiry, future};
use moorline_model::Identity;
use sha2::Sha256;

/// How long answers are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// A yes: whose token it is, or that somebody may. For so long at most does a right outlive its end.
    pub yes: Duration,
    /// A no. For so long at most does a new right have no effect.
    pub no: Duration,
}

/// Bytes that all answers of one cache may take.
pub(crate) const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Bytes of one entry besides what its answer owns: key, times and links, by measurement somewhat less.
const ENTRY: usize = 256;

/// The name under which an answer is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

/// What can be remembered.
pub(crate) trait Remembered: Clone + Send + Sync + 'static {
    /// Whether it is a yes.
    fn is_yes(&self) -> bool;

    /// Bytes that it owns.
    fn size(&self) -> usize;
}

/// Answers by key.
pub(crate) struct Cache<V> {
    answers: future::Cache<Key, V>,
    secret: Hmac<Sha256>,
}

impl<V: Remembered> Cache<V> {
    /// An empty cache with a key of its own.
    pub(crate) fn new(lives: Lives) -> Self {
        let answers = future::Cache::builder()
            .max_capacity(MAX_BYTES)
            .weigher(|_key, answer: &V| u32::try_from(answer.size().saturating_add(ENTRY)).unwrap_or(u32::MAX))
            .expire_after(Ends(lives))
            .build();
        let secret: [u8; 32] = rand::random();
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let secret = Hmac::new_from_slice(&secret).expect("a key");
        Self { answers, secret }
    }

    /// The key of what `write` writes.
    pub(crate) fn key(&self, write: impl FnOnce(&mut KeyWriter)) -> Key {
        let mut writer = KeyWriter(self.secret.clone());
        write(&mut writer);
        Key(writer.0.finalize().into_bytes().into())
    }

    /// The answer that is remembered, or the one that `question` brings. Of all who ask for one key at once, one asks.
    pub(crate) async fn get<E>(&self, key: Key, question: impl Future<Output = Result<V, E>>) -> Result<V, Arc<E>>
    where
        E: Send + Sync + 'static,
    {
        self.answers.try_get_with(key, question).await
    }

    #[cfg(test)]
    pub(crate) async fn settled(&self) -> (u64, u64) {
        self.answers.run_pending_tasks().await;
        (self.answers.entry_count(), self.answers.weighted_size())
    }
}

/// Writes a key, part by part, so that no two different lists of parts give the same.
pub(crate) struct KeyWriter(Hmac<Sha256>);

impl KeyWriter {
    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.update(text.as_bytes());
    }

    pub(crate) fn maybe(&mut self, text: Option<&str>) {
        self.number(usize::from(text.is_some()));
        text.into_iter().for_each(|text| self.text(text));
    }

    pub(crate) fn list(&mut self, texts: &[String]) {
        self.number(texts.len());
        texts.iter().for_each(|text| self.text(text));
    }

    pub(crate) fn identity(&mut self, identity: &Identity) {
        self.text(identity.user());
        self.maybe(identity.uid());
        self.list(identity.groups());
        self.number(identity.extra().len());
        for (key, values) in identity.extra() {
            self.text(key);
            self.list(values);
        }
    }

    fn number(&mut self, number: usize) {
        self.0.update(&(number as u64).to_be_bytes());
    }
}

struct Ends(Lives);

impl<V: Remembered> Expiry<Key, V> for Ends {
    fn expire_after_create(&self, _key: &Key, answer: &V, _now: Instant) -> Option<Duration> {
        Some(if answer.is_yes() { self.0.yes } else { self.0.no })
    }
}
