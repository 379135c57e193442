//! The signals that end a process. Called from `main` only; everything else sees a future.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A wish to end the process, by the signal that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// `SIGTERM`: Kubernetes, systemd.
    Terminate,
    /// `SIGINT`: Ctrl-C.
    Interrupt,
}

impl Termination {
    /// The exit code a shell expects of a process that ended by this signal: 128 + its number.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Terminate => 128 + 15,
            Self::Interrupt => 128 + 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }
}

/// Both signals, caught from now on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches `SIGTERM` and `SIGINT` from now on.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next signal. Cancel safe.
    pub async fn next(&mut self) -> Termination {
        tokio::select! {
            _some = self.terminate.recv() => Termination::Terminate,
            _some = self.interrupt.recv() => Termination::Interrupt,
        }
    }
}

/// Catches the signals from now on; the future resolves with the first. A second one ends the process on the spot,
/// with the exit code a shell expects, so that an impatient Ctrl-C always works.
///
/// # Errors
/// When the operating system refuses to let the signals be caught.
pub fn terminated() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals = Signals::new()?;
    Ok(async move {
        let first = signals.next().await;
        tracing::info!(signal = first.name(), "told to stop; once more stops at once");
        #[expect(clippy::disallowed_methods, reason = "must outlive every tracked task, and ends the process")]
        tokio::spawn(async move {
            let second = signals.next().await;
            tracing::warn!(signal = second.name(), "told to stop at once");
            #[expect(clippy::exit, reason = "the second signal asks for exactly this")]
            std::process::exit(second.exit_code());
        });
    })
}
