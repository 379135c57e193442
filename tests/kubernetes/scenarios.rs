//! What kubectl must be able to do. Each scenario takes a [`Stage`](crate::stage::Stage) and nothing else, so that
//! the same ones are played straight to a kube-apiserver and through a tunnel.

pub(crate) mod attach;
pub(crate) mod copy;
pub(crate) mod exec;
pub(crate) mod forward;
pub(crate) mod identity;
pub(crate) mod logs;
pub(crate) mod objects;
pub(crate) mod terminal;

/// Every scenario with every kubectl, as tests, on the stage that an `async fn(Kubectl) -> Option<Stage>` sets.
macro_rules! play_all {
    ($stage:path) => {
        crate::scenarios::play_with!($stage, old, Old);
        crate::scenarios::play_with!($stage, new, New);
        crate::scenarios::play_with!($stage, machine, Machine);
    };
}

/// Every scenario with one kubectl.
macro_rules! play_with {
    ($stage:path, $module:ident, $version:ident) => {
        mod $module {
            crate::scenarios::play!($stage, $version,
                objects: get, list_in_chunks, watch, apply, apply_server_side, patch, delete, discover;
                identity: whoami, can_i, forbidden;
                logs: logs, logs_follow;
                exec: exec, exec_with_stdin, exec_exit_codes, exec_without_reading_stdin, exec_bulk_output, exec_protocol;
                terminal: exec_on_terminal, exec_follows_size;
                attach: attach;
                forward: port_forward, port_forward_refused;
                copy: copy_64_mib;
            );
        }
    };
}

macro_rules! play {
    ($stage:path, $version:ident, $($module:ident: $($scenario:ident),+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                if let Some(stage) = $stage(moorline_testkit::kubernetes::Kubectl::$version).await {
                    crate::scenarios::$module::$scenario(&stage).await;
                    crate::audit::check(&stage).await;
                }
            }
        )+)+
    };
}

pub(crate) use {play, play_all, play_with};
