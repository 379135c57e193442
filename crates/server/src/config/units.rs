//! Values with a unit, and addresses: how the flags of the server are read. Pure.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::HostPort;

/// `500ms`, `30s`, `2m`, `1h`, `365d`; never zero, unless written as plain `0`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let span = millis.and_then(|unit: u64| number.parse::<u64>().ok()?.checked_mul(unit));
    span.map(Duration::from_millis).ok_or_else(|| format!("{text:?} is no duration"))
}

/// `64MiB`, `1GiB`, `512KiB`, or plain bytes.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => Some(1),
        "KiB" | "Ki" => Some(1 << 10),
        "MiB" | "Mi" => Some(1 << 20),
        "GiB" | "Gi" => Some(1 << 30),
        _ => None,
    };
    let bytes = factor.and_then(|factor: usize| number.parse::<usize>().ok()?.checked_mul(factor));
    bytes.ok_or_else(|| format!("{text:?} is no size"))
}

/// `0.0.0.0:9449`, `[::]:9449`, or `:9449` for every IPv4 address.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let parsed = match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| format!("{text:?} is no address to listen on"))
}

/// `tunnel.example.com:9449`, `192.0.2.1:9449`, `[2001:db8::1]:9449`.
pub(super) fn host_port(text: &str) -> Result<HostPort, String> {
    let text = text.trim();
    let wrong = || format!("{text:?} is not HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.filter(|host| host.parse::<std::net::Ipv6Addr>().is_ok()).unwrap_or(host);
    if bare.is_none() && host.contains(':') || moorline_mtls::client::check_server_name(host).is_err() {
        return Err(wrong());
    }
    Ok(HostPort { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, millis) in
            [("0", 0), ("500ms", 500), ("30s", 30_000), (" 2m ", 120_000), ("1h", 3_600_000), ("1d", 86_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1.5s", "1 s", "99999999999999999999d", "18446744073709551615h", "µs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("1Gi"), Ok(1 << 30));
        assert_eq!(bytes("7"), Ok(7));
        for text in ["", "1MB", "x", "-1", "99999999999999999999"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(listen(":80"), Ok(([0, 0, 0, 0], 80).into()));
        assert_eq!(listen("127.0.0.1:0"), Ok(([127, 0, 0, 1], 0).into()));
        for text in ["", "80", "localhost:80", ":99999", "1.2.3.4"] {
            assert!(listen(text).is_err(), "{text}");
        }
        assert_eq!(host_port("a.example.com:9449").unwrap().to_string(), "a.example.com:9449");
        assert_eq!(host_port("[2001:db8::1]:1").unwrap().to_string(), "[2001:db8::1]:1");
        for text in ["", "a", "a:0", "a:x", ":1", "a b:1", "2001:db8::1:1", "https://a:1", "[a]:1", "a:1:2"] {
            assert!(host_port(text).is_err(), "{text}");
        }
    }
}
