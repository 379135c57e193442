//! Answers, remembered for a short while: bounded in bytes, and one question for all who ask the same at once.
//!
//! Keys are HMAC-SHA-256 under a key of this process: neither a token nor a hash that could be looked up elsewhere is
//! kept. Failures are not remembered; who waits for a question that fails hears of the same failure.

use std::{sync::Arc, time::Duration};

use hmac::{Hmac, Mac};
use moka::future;
use moorline_model::Identity;
use sha2::Sha256;

/// How long answers are remembered; with zero, they are asked for each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// A yes: whose token it is, or that somebody may. For so long at most does a right outlive its end.
    pub yes: Duration,
    /// A no. For so long at most does a new right have no effect.
    pub no: Duration,
}

/// Bytes that every yes of one cache may take.
pub(crate) const MAX_YES: u64 = 32 * 1024 * 1024;

/// Bytes that every no may take. They have room of their own: anybody can cause one, with a token that they make up, and
/// however many do so, nobody's yes is forgotten for it.
pub(crate) const MAX_NO: u64 = 8 * 1024 * 1024;

/// Bytes of one entry besides what its answer owns: key, times and links, by measurement somewhat less.
pub(crate) const ENTRY: usize = 256;

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
    yes: future::Cache<Key, V>,
    no: future::Cache<Key, V>,
    secret: Hmac<Sha256>,
}

/// Why there is nothing to remember as a yes.
enum Miss<V, E> {
    No(V),
    Failed(Arc<E>),
}

impl<V: Remembered> Cache<V> {
    /// An empty cache with a key of its own.
    pub(crate) fn new(lives: Lives) -> Self {
        let secret: [u8; 32] = rand::random();
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let secret = Hmac::new_from_slice(&secret).expect("a key");
        Self { yes: answers(MAX_YES, lives.yes), no: answers(MAX_NO, lives.no), secret }
    }

    /// The key of what `write` writes.
    pub(crate) fn key(&self, write: impl FnOnce(&mut KeyWriter)) -> Key {
        let mut writer = KeyWriter(self.secret.clone());
        write(&mut writer);
        Key(writer.0.finalize().into_bytes().into())
    }

    /// The answer that is remembered, or the one that `question` brings. Of all who ask for one key at once, one asks;
    /// when that one gives up, another does.
    pub(crate) async fn get<E, Q>(&self, key: Key, question: impl FnOnce() -> Q) -> Result<V, Arc<E>>
    where
        E: Send + Sync + 'static,
        Q: Future<Output = Result<V, E>>,
    {
        if let Some(yes) = self.yes.get(&key).await {
            return Ok(yes);
        }
        if let Some(no) = self.no.get(&key).await {
            return Ok(no);
        }
        // In a box, since a question is large and most requests have none.
        Box::pin(self.ask(key, question())).await
    }

    async fn ask<E>(&self, key: Key, question: impl Future<Output = Result<V, E>>) -> Result<V, Arc<E>>
    where
        E: Send + Sync + 'static,
    {
        let asking = async {
            // Somebody may have heard it since.
            if let Some(no) = self.no.get(&key).await {
                return Err(Miss::No(no));
            }
            let answer = question.await.map_err(|error| Miss::Failed(Arc::new(error)))?;
            if answer.is_yes() {
                return Ok(answer);
            }
            self.no.insert(key, answer.clone()).await;
            Err(Miss::No(answer))
        };
        self.yes.try_get_with(key, asking).await.or_else(|miss: Arc<Miss<V, E>>| match &*miss {
            Miss::No(answer) => Ok(answer.clone()),
            Miss::Failed(error) => Err(Arc::clone(error)),
        })
    }

    /// How many of each are remembered, and their bytes.
    #[cfg(test)]
    pub(crate) async fn settled(&self) -> [(u64, u64); 2] {
        self.yes.run_pending_tasks().await;
        self.no.run_pending_tasks().await;
        [&self.yes, &self.no].map(|answers| (answers.entry_count(), answers.weighted_size()))
    }
}

/// Room for so many bytes of answers, each for so long.
fn answers<V: Remembered>(bytes: u64, life: Duration) -> future::Cache<Key, V> {
    future::Cache::builder()
        .max_capacity(bytes)
        .weigher(|_key, answer: &V| u32::try_from(answer.size().saturating_add(ENTRY)).unwrap_or(u32::MAX))
        .time_to_live(life)
        .build()
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
