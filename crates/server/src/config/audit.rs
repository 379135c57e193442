//! The part of the configuration that is about the audit trail: flags with kube-apiserver's names, and what they mean.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::resolve::Found;
use crate::{
    audit::{LogConfig, Mode, QueueConfig, Rotation, WebhookConfig},
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

    /// Kubeconfig of an endpoint that audit events are posted to as well, as an EventList of audit.k8s.io/v1
    #[arg(long, value_name = "FILE", env = "MOORLINE_AUDIT_WEBHOOK_CONFIG_FILE")]
    pub audit_webhook_config_file: Option<PathBuf>,

    /// What happens when the webhook does not take audit events; as --audit-log-mode [default: batch]
    #[arg(long, value_name = "MODE", env = "MOORLINE_AUDIT_WEBHOOK_MODE")]
    pub audit_webhook_mode: Option<String>,

    /// Audit events that may wait for the webhook [default: 10000]
    #[arg(long, value_name = "N", env = "MOORLINE_AUDIT_WEBHOOK_BATCH_BUFFER_SIZE")]
    pub audit_webhook_batch_buffer_size: Option<usize>,

    /// Audit events that are posted together at most [default: 400]
    #[arg(long, value_name = "N", env = "MOORLINE_AUDIT_WEBHOOK_BATCH_MAX_SIZE")]
    pub audit_webhook_batch_max_size: Option<usize>,

    /// How long an audit event waits for others to be posted with it [default: 30s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_AUDIT_WEBHOOK_BATCH_MAX_WAIT")]
    pub audit_webhook_batch_max_wait: Option<String>,

    /// How long until a post that failed is tried again; longer each time, and given up after five [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_AUDIT_WEBHOOK_INITIAL_BACKOFF")]
    pub audit_webhook_initial_backoff: Option<String>,
}

/// What becomes of audit events.
#[derive(Clone, Debug)]
pub(crate) struct AuditConfig {
    /// Which requests leave any; none stands for the built-in policy.
    pub(crate) policy_file: Option<PathBuf>,
    /// The log, if one is written.
    pub(crate) log: Option<LogConfig>,
    /// The webhook, if there is one.
    pub(crate) webhook: Option<WebhookConfig>,
}

/// Turns what was typed into what is meant.
pub(super) fn resolve(found: &mut Found, raw: RawAudit, state: &StateDir) -> AuditConfig {
    if let Some(path) = &raw.audit_policy_file {
        found.check("--audit-policy-file", path, reload::check_audit_policy);
    }
    let webhook = webhook(found, &raw);
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
    if log.is_none() && webhook.is_none() && raw.audit_policy_file.is_some() {
        let what = "is given, but audit events are written nowhere";
        found.add("--audit-policy-file", what, "leave out this or --audit-log-path off");
    }
    AuditConfig { policy_file: raw.audit_policy_file, log, webhook }
}

fn webhook(found: &mut Found, raw: &RawAudit) -> Option<WebhookConfig> {
    let mode = mode(found, "--audit-webhook-mode", raw.audit_webhook_mode.as_deref());
    let (buffer, batch) = (raw.audit_webhook_batch_buffer_size, raw.audit_webhook_batch_max_size);
    let buffer = found.count("--audit-webhook-batch-buffer-size", buffer, 10_000);
    let batch = found.count("--audit-webhook-batch-max-size", batch, 400);
    let wait = found.wait("--audit-webhook-batch-max-wait", raw.audit_webhook_batch_max_wait.as_deref(), "30s");
    let backoff = raw.audit_webhook_initial_backoff.as_deref();
    let backoff = found.span("--audit-webhook-initial-backoff", backoff, "10s");
    let Some(kubeconfig) = raw.audit_webhook_config_file.clone() else {
        let given = raw.audit_webhook_mode.is_some()
            || raw.audit_webhook_batch_buffer_size.is_some()
            || raw.audit_webhook_batch_max_size.is_some()
            || raw.audit_webhook_batch_max_wait.is_some()
            || raw.audit_webhook_initial_backoff.is_some();
        if given {
            let what = "is not given, but other flags of the webhook are";
            found.add("--audit-webhook-config-file", what, "name a kubeconfig, or leave them out");
        }
        return None;
    };
    let queue = QueueConfig { mode, buffer: buffer.max(2), batch, wait };
    Some(WebhookConfig { kubeconfig, backoff, queue })
}

fn mode(found: &mut Found, flag: &str, text: Option<&str>) -> Mode {
    let read = match text {
        None | Some("batch") => Ok(Mode::Batch),
        Some("blocking") => Ok(Mode::Blocking),
        Some(other) => Err(format!("{other:?} is no mode")),
    };
    found.read(flag, read, "write batch or blocking").unwrap_or_default()
}
