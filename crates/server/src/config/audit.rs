//! The part of the configuration that is about the audit trail: flags with kube-apiserver's names, and what they mean.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::resolve::Found;
use crate::{
    audit::{LogConfig, Mode, QueueConfig, Rotation},
    bootstrap::StateDir,
    reload,
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const MEGABYTE: u64 = 1024 * 1024;

/// How long an event waits for others to be written with it: not long enough to be missed by whoever follows the log.
const LOG_WAIT: Duration = Duration::from_millis(50);

/// Events that are written to the log together at most.
const LOG_BATCH: usize = 1000;

/// What the operator wrote about the audit trail.
#[derive(Args, Clone, Debug, Default)]
pub struct RawAudit {
    /// Which requests leave an audit event, as a Policy of audit.k8s.io/v1 [default: all of them, with metadata]
    #[arg(long, value_name = "FILE", env = "MOORLINE_AUDIT_POLICY_FILE")]
    pub audit_policy_file: Option<PathBuf>,

    /// Where audit events are written, a JSON object a line: a file, - for standard output, or off
    /// [default: audit.log in the state directory]
    #[arg(long, value_name = "FILE", env = "MOORLINE_AUDIT_LOG_PATH", allow_hyphen_values = true)]
    pub audit_log_path: Option<PathBuf>,

    /// Megabytes at which the audit log is put aside; 0 for never [default: 100]
    #[arg(long, value_name = "N", env = "MOORLINE_AUDIT_LOG_MAXSIZE")]
    pub audit_log_maxsize: Option<u64>,

    /// Audit logs put aside that are kept; 0 for all [default: 10]
    #[arg(long, value_name = "N", env = "MOORLINE_AUDIT_LOG_MAXBACKUP")]
    pub audit_log_maxbackup: Option<usize>,

    /// Days for which audit logs put aside are kept; 0 for ever [default: 0]
    #[arg(long, value_name = "N", env = "MOORLINE_AUDIT_LOG_MAXAGE")]
    pub audit_log_maxage: Option<u32>,

    /// Compress audit logs put aside with gzip
    #[arg(long, env = "MOORLINE_AUDIT_LOG_COMPRESS")]
    pub audit_log_compress: bool,

    /// What happens when the audit log cannot be written: batch lets requests go on and counts the events that are
    /// lost, blocking refuses them with 503 [default: batch]
    #[arg(long, value_name = "MODE", env = "MOORLINE_AUDIT_LOG_MODE")]
    pub audit_log_mode: Option<String>,

    /// Audit events that may wait to be written to the log [default: 10000]
    #[arg(long, value_name = "N", env = "MOORLINE_AUDIT_LOG_BATCH_BUFFER_SIZE")]
    pub audit_log_batch_buffer_size: Option<usize>,
}

/// What becomes of audit events.
#[derive(Clone, Debug)]
pub(crate) struct AuditConfig {
    /// Which requests leave any; none stands for the built-in policy.
    pub(crate) policy_file: Option<PathBuf>,
    /// The log, if one is written.
    pub(crate) log: Option<LogConfig>,
}

/// Turns what was typed into what is meant.
pub(super) fn resolve(found: &mut Found, raw: RawAudit, state: &StateDir) -> AuditConfig {
    if let Some(path) = &raw.audit_policy_file {
        found.check("--audit-policy-file", path, reload::check_audit_policy);
    }
    let mode = mode(found, "--audit-log-mode", raw.audit_log_mode.as_deref());
    let buffer = found.count("--audit-log-batch-buffer-size", raw.audit_log_batch_buffer_size, 10_000);
    let above_zero = |number: u64| (number > 0).then_some(number);
    let rotation = Rotation {
        max_size: above_zero(raw.audit_log_maxsize.unwrap_or(100)).map(|size| size.saturating_mul(MEGABYTE)),
        max_backups: Some(raw.audit_log_maxbackup.unwrap_or(10)).filter(|backups| *backups > 0),
        max_age: raw.audit_log_maxage.filter(|days| *days > 0).map(|days| DAY.saturating_mul(days)),
        compress: raw.audit_log_compress,
    };
    let queue = QueueConfig { mode, buffer: buffer.max(2), batch: LOG_BATCH, wait: LOG_WAIT };
    let path = raw.audit_log_path.unwrap_or_else(|| state.audit_log());
    let log = (path != Path::new("off")).then(|| LogConfig {
        path: Some(path).filter(|path| path != Path::new("-")),
        rotation,
        queue,
    });
    AuditConfig { policy_file: raw.audit_policy_file, log }
}

fn mode(found: &mut Found, flag: &str, text: Option<&str>) -> Mode {
    let read = match text {
        None | Some("batch") => Ok(Mode::Batch),
        Some("blocking") => Ok(Mode::Blocking),
        Some(other) => Err(format!("{other:?} is no mode")),
    };
    found.read(flag, read, "write batch or blocking").unwrap_or_default()
}
