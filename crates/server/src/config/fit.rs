//! Fits the limits on connections into the descriptors that the operating system grants.
//!
//! Called once by the composition root. Connections over a limit of ours are turned away and counted; without
//! descriptors nobody could be accepted any more, the probes of the kubelet included.

use super::{GatewayConfig, TunnelConfig};

/// Descriptors for everything that is no connection of a user or an agent: listeners, the store, files being read, the
/// runtime, the admin door.
const OTHERS: usize = 64;

/// Handshakes of agents get at most this share of the room: they are short.
const HANDSHAKE_SHARE: usize = 8;

/// Lowers the limits so that all of them together stay below `open_files`, users and agents sharing the room as they
/// would have had it. Gives what to tell the operator if anything had to be lowered.
pub(crate) fn fit(tunnel: &mut TunnelConfig, gateway: &mut GatewayConfig, open_files: usize) -> Option<String> {
    let wanted = OTHERS + tunnel.max_handshakes + tunnel.max_sessions + gateway.max_connections;
    if wanted <= open_files {
        return None;
    }
    let room = open_files.saturating_sub(OTHERS);
    tunnel.max_handshakes = tunnel.max_handshakes.min(room / HANDSHAKE_SHARE).max(1);
    let room = room.saturating_sub(tunnel.max_handshakes);
    let both = tunnel.max_sessions + gateway.max_connections;
    let part = |limit: usize| (room.saturating_mul(limit) / both).clamp(1, limit);
    (tunnel.max_sessions, gateway.max_connections) = (part(tunnel.max_sessions), part(gateway.max_connections));
    Some(format!(
        "this process may have {open_files} open files, and its limits on connections ask for {wanted}: it takes {} \
         sessions and {} connections of users; raise the limit (ulimit -n) or lower --max-sessions and --max-connections",
        tunnel.max_sessions, gateway.max_connections
    ))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, RawConfig};
    use super::*;

    fn config() -> Config {
        let directory = tempfile::tempdir().unwrap();
        let raw = RawConfig {
            state_dir: Some(directory.path().to_owned()),
            tunnel_listen: Some("127.0.0.1:0".to_owned()),
            ..RawConfig::default()
        };
        Config::resolve(raw).unwrap()
    }

    #[test]
    fn enough_room_changes_nothing() {
        let mut config = config();
        let before = (config.tunnel.max_sessions, config.gateway.max_connections);
        assert_eq!(fit(&mut config.tunnel, &mut config.gateway, 1 << 20), None);
        assert_eq!((config.tunnel.max_sessions, config.gateway.max_connections), before);
    }

    #[test]
    fn little_room_is_shared_and_never_exceeded() {
        for open_files in [0, 1, 64, 66, 100, 256, 1024, 20_000] {
            let mut config = config();
            let said = fit(&mut config.tunnel, &mut config.gateway, open_files).unwrap();
            assert!(said.contains(&format!("{open_files} open files")), "{said}");
            let (tunnel, gateway) = (&config.tunnel, &config.gateway);
            let most = tunnel.max_handshakes + tunnel.max_sessions + gateway.max_connections;
            // Each keeps at least one, however little there is.
            assert!(most <= open_files.saturating_sub(OTHERS).max(3), "{most} of {open_files}");
            assert!(tunnel.max_sessions >= 1 && gateway.max_connections >= 1 && tunnel.max_handshakes >= 1);
        }
    }
}
