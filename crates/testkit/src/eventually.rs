//! The only way to wait in a test: ask again until it holds, and give up at a deadline.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Between two questions; short enough not to slow a test, long enough not to load the machine.
const PAUSE: Duration = Duration::from_millis(10);

/// What was waited for did not come in time.
#[derive(Debug)]
pub struct Late {
    waited: Duration,
}

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "still not so after {:?}", self.waited)
    }
}

impl std::error::Error for Late {}

/// Asks `question` until it answers `Some`, and returns that answer.
///
/// # Errors
/// [`Late`] when `deadline` has passed without an answer. The question itself may take long: it is cut off at the
/// deadline too.
pub async fn eventually<T, F>(deadline: Duration, mut question: impl FnMut() -> F) -> Result<T, Late>
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + deadline;
    loop {
        if let Ok(Some(answer)) = tokio::time::timeout_at(end, question()).await {
            return Ok(answer);
        }
        if Instant::now() >= end {
            return Err(Late { waited: deadline });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_when_it_holds() {
        let asked = Cell::new(0);
        let answer = eventually(Duration::from_secs(5), || {
            asked.set(asked.get() + 1);
            let now = asked.get();
            async move { (now == 3).then_some(now) }
        })
        .await;
        assert_eq!(answer.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_even_on_a_question_that_hangs() {
        let late = eventually::<(), _>(Duration::from_secs(5), std::future::pending).await;
        assert!(late.is_err());
    }
}
