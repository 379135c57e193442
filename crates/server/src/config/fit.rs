//! Fits the limits on connections into the descriptors that the operating system grants.
//!
//! Called once by the composition root. Connections over a limit of ours are turned away and counted; without
//! descriptors nobody could be accepted any more, the probes of the kubelet included.

use super::{GatewayConfig, ServicesConfig, TunnelConfig};

/// Descriptors for everything that is no connection of a user or an agent: listeners, the store, files being read, the
/// runtime, the admin door.
const OTHERS: usize = 64;

/// Handshakes of agents get at most this share of the room: they are short.
const HANDSHAKE_SHARE: usize = 8;

/// Connections to services get at most this share of what is left, where there are services.
const SERVICES_SHARE: usize = 4;

/// Lowers the limits so that all of them together stay below `open_files`, users and agents sharing the room as they
/// would have had it. Gives what to tell the operator if anything had to be lowered.
pub(crate) fn fit(
    tunnel: &mut TunnelConfig,
    gateway: &mut GatewayConfig,
    services: &mut ServicesConfig,
    open_files: usize,
) -> Option<String> {
    let to_services = if services.file.is_some() { services.max_connections } else { 0 };
    let wanted = OTHERS + tunnel.max_handshakes + tunnel.max_sessions + gateway.max_connections + to_services;
    if wanted <= open_files {
        return None;
    }
    let room = open_files.saturating_sub(OTHERS);
    tunnel.max_handshakes = tunnel.max_handshakes.min(room / HANDSHAKE_SHARE).max(1);
    let mut room = room.saturating_sub(tunnel.max_handshakes);
    if services.file.is_some() {
        services.max_connections = services.max_connections.min(room / SERVICES_SHARE).max(1);
        room = room.saturating_sub(services.max_connections);
    }
    let both = tunnel.max_sessions + gateway.max_connections;
    let part = |limit: usize| (room.saturating_mul(limit) / both).clamp(1, limit);
    (tunnel.max_sessions, gateway.max_connections) = (part(tunnel.max_sessions), part(gateway.max_connections));
    Some(format!(
        "this process may have {open_files} open files, and its limits on connections ask for {wanted}: it takes {} \
         sessions, {} connections of users and {} to services; raise the limit (ulimit -n) or lower --max-sessions and --max-connections",
        tunnel.max_sessions,
        gateway.max_connections,
        if services.file.is_some() { services.max_connections } else { 0 },
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
        assert_eq!(fit(&mut config.tunnel, &mut config.gateway, &mut config.services, 1 << 20), None);
        assert_eq!((config.tunnel.max_sessions, config.gateway.max_connections), before);
    }

    #[test]
    fn little_room_is_shared_and_never_exceeded() {
        let each = [0, 1, 64, 66, 100, 256, 1024, 20_000];
        for (open_files, services) in each.iter().flat_map(|files| [(*files, false), (*files, true)]) {
            let mut config = config();
            config.services.file = services.then(|| "services.yaml".into());
            let said = fit(&mut config.tunnel, &mut config.gateway, &mut config.services, open_files).unwrap();
            assert!(said.contains(&format!("{open_files} open files")), "{said}");
            let (tunnel, gateway) = (&config.tunnel, &config.gateway);
            let to_services = if services { config.services.max_connections } else { 0 };
            let most = tunnel.max_handshakes + tunnel.max_sessions + gateway.max_connections + to_services;
            // Each keeps at least one, however little there is.
            let least = if services { 4 } else { 3 };
            assert!(most <= open_files.saturating_sub(OTHERS).max(least), "{most} of {open_files}");
            assert!(tunnel.max_sessions >= 1 && gateway.max_connections >= 1 && tunnel.max_handshakes >= 1);
        }
    }
}
