//! The sink that is a file, or standard output: a JSON object a line, appended whole or not at all.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_process::Tasks;

use super::{
    queue::{QueueConfig, Throttle},
    rotation::{self, Rotation},
    writer::Sink,
};
use crate::config::{Problem, Problems};

/// Between two tries: a disk that was full is not emptied within less.
const PAUSE: Duration = Duration::from_secs(1);

/// Only the server's own user reads who did what.
const MODE: u32 = 0o600;

/// Where events go, and how.
#[derive(Clone, Debug)]
pub(crate) struct LogConfig {
    /// A file; none stands for standard output.
    pub(crate) path: Option<PathBuf>,
    /// When it is put aside, and for how long.
    pub(crate) rotation: Rotation,
    /// The way there.
    pub(crate) queue: QueueConfig,
}

/// The open log.
#[derive(Debug)]
pub(crate) struct Log {
    to: To,
    rotation: Rotation,
    /// What was put aside last, and is to be tended.
    aside: Option<PathBuf>,
    trouble: Throttle,
}

#[derive(Debug)]
enum To {
    Stdout,
    File(PathBuf, File),
}

impl Log {
    /// Opens the log, or makes it. Blocks on the disk.
    ///
    /// # Errors
    /// It cannot be written to.
    pub(super) fn open(config: &LogConfig) -> Result<Self, Problems> {
        let to = match &config.path {
            None => To::Stdout,
            Some(path) => {
                let file = append(path).map_err(|error| Problem {
                    at: format!("--audit-log-path {}", path.display()),
                    what: format!("cannot be written: {error}"),
                    remedy: "name a file in a directory that this user can write to, - for standard output, or off"
                        .to_owned(),
                })?;
                To::File(path.clone(), file)
            }
        };
        Ok(Self::new(to, config.rotation))
    }

    fn new(to: To, rotation: Rotation) -> Self {
        Self { to, rotation, aside: None, trouble: Throttle::default() }
    }

    pub(super) fn sink(self, tasks: Tasks) -> LogSink {
        LogSink { log: Some(self), tasks }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match &mut self.to {
            To::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            To::File(path, file) => {
                // Asked each time: somebody else may have emptied it.
                let mut before = file.metadata()?.len();
                if self.rotation.is_due(before, lines.len()) {
                    match rotation::put_aside(path) {
                        Ok(aside) => {
                            *file = append(path)?;
                            before = 0;
                            self.aside = Some(aside);
                        }
                        // Better too large than not written.
                        Err(error) if self.trouble.speaks() => {
                            tracing::warn!(%error, file = %path.display(), "the audit log cannot be put aside, and grows");
                        }
                        Err(_told) => {}
                    }
                }
                file.write_all(lines).inspect_err(|_error| {
                    // Half a line would spoil the next one; if this fails as well, so will the next try.
                    file.set_len(before).unwrap_or_default();
                })
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(MODE).open(path)
}

/// The log as a sink: its writes block, so each is done on a thread for such work.
pub(super) struct LogSink {
    log: Option<Log>,
    tasks: Tasks,
}

impl Sink for LogSink {
    fn tries(&self) -> Option<u32> {
        None
    }

    fn pause(&self, _tried: u32) -> Duration {
        PAUSE
    }

    async fn write(&mut self, lines: Vec<u8>) -> (Vec<u8>, Result<(), String>) {
        let Some(mut log) = self.log.take() else { return (lines, Err("the log was lost in a panic".to_owned())) };
        let written = self.tasks.spawn_blocking("audit-write", move || {
            let outcome = log.append(&lines);
            (log, lines, outcome)
        });
        match written.await {
            Ok((mut log, lines, outcome)) => {
                if let (Some(aside), To::File(path, _)) = (log.aside.take(), &log.to) {
                    let (path, rotation) = (path.clone(), log.rotation);
                    drop(self.tasks.spawn_blocking("audit-rotation", move || rotation.tend(&path, &aside)));
                }
                self.log = Some(log);
                (lines, outcome.map_err(|error| error.to_string()))
            }
            Err(_panicked) => (Vec::new(), Err("the write panicked".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::audit::Mode;

    fn open(path: &Path) -> Log {
        Log::new(To::File(path.to_owned(), append(path).unwrap()), Rotation::default())
    }

    #[test]
    fn lines_are_appended_to_what_is_there_and_nobody_else_reads_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        open(&path).append(b"one\n").unwrap();
        let mut log = open(&path);
        log.append(b"two\n").unwrap();
        // As `logrotate` does with copytruncate.
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        log.append(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_told_at_the_start() {
        let queue = QueueConfig { mode: Mode::Batch, buffer: 1, batch: 1, wait: PAUSE };
        let config = LogConfig { path: Some("/nowhere/audit.log".into()), rotation: Rotation::default(), queue };
        let problems = Log::open(&config).unwrap_err().to_string();
        assert!(problems.starts_with("--audit-log-path /nowhere/audit.log: cannot be written: "), "{problems}");
    }

    #[test]
    fn a_large_log_goes_on_in_a_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let rotation = Rotation { max_size: Some(10), ..Rotation::default() };
        let mut log = Log::new(To::File(path.clone(), append(&path).unwrap()), rotation);
        log.append(b"123456\n").unwrap();
        assert_eq!(log.aside, None);
        log.append(b"789\nABC\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "789\nABC\n");
        assert_eq!(fs::read_to_string(log.aside.unwrap()).unwrap(), "123456\n");
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_no_half_line() {
        let file = File::options().append(true).open("/dev/full").unwrap();
        let mut full = Log::new(To::File("/dev/full".into(), file), Rotation::default());
        assert_eq!(full.append(b"line\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
