//! A door from outside: its name, the way there, its certificate. For the gateway and the tunnel alike.

use std::time::Duration;

use moorline_demo::age;
use moorline_model::{Finding, Timestamp};
use moorline_pki::CertificateInfo;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;

/// For the answer of DNS, and for each connection that is tried.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Seconds before its end that a certificate is warned about: doors renew theirs long before.
const SOON: i64 = 14 * 24 * 3600;

/// Looks a name up and connects to the first of its addresses that answers. `door` begins the names of the checks.
pub(super) async fn reach(door: &str, host: &str, port: u16, findings: &mut Vec<Finding>) -> Option<TcpStream> {
    let dns = format!("{door}-dns");
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<_> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            let remedy = "is the name written right, and does the DNS of this machine know it?";
            findings.push(Finding::fail(dns, format!("{host} has no address: {error}"), remedy));
            return None;
        }
        Err(_elapsed) => {
            let text = format!("no answer of DNS for {host} within {PATIENCE:?}");
            findings.push(Finding::fail(dns, text, "see whether the DNS server of this machine can be reached"));
            return None;
        }
    };
    let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    findings.push(Finding::ok(dns, format!("{host}: {}", list.join(", "))));
    let mut failed = Vec::new();
    for address in &addresses {
        match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let check = format!("{door}-tcp");
                findings.push(match failed.is_empty() {
                    true => Finding::ok(check, format!("{address} accepts connections")),
                    false => Finding::warn(
                        check,
                        format!("{address} accepts connections; before it: {}", failed.join("; ")),
                        "take the addresses that do not answer out of DNS",
                    ),
                });
                return Some(stream);
            }
            Ok(Err(error)) => failed.push(format!("{address}: {error}")),
            Err(_elapsed) => failed.push(format!("{address}: no answer within {PATIENCE:?}")),
        }
    }
    let remedy = "refused: is it running, and is it that port? no answer: see firewalls and the Service in front of it";
    findings.push(Finding::fail(format!("{door}-tcp"), failed.join("; "), remedy));
    None
}

/// Until when the first certificate of a chain lasts, and for whom it is.
pub(super) fn expiry(door: &str, chain: &[CertificateDer<'_>], now: Timestamp) -> Finding {
    let check = format!("{door}-certificate");
    let info = match chain.first().map(|leaf| CertificateInfo::parse(leaf)) {
        Some(Ok(info)) => info,
        Some(Err(error)) => return Finding::fail(check, error.to_string(), "give that door another certificate"),
        None => return Finding::fail(check, "none was shown", "is it that port?"),
    };
    let text = format!("of {}, signed by {}, until {}", info.subject, info.issuer, info.not_after);
    let left = info.not_after.unix_seconds() - now.unix_seconds();
    let remedy = "see why the server does not renew it: its log says so, or whoever makes the files that it is given";
    if now < info.not_before {
        return Finding::fail(check, format!("{text}: not valid before {}", info.not_before), "set the clocks");
    }
    match left {
        ..0 => Finding::fail(check, format!("{text}: expired"), remedy),
        left if left < SOON && left < life(&info) / 6 => {
            Finding::warn(check, format!("{text}: ends in {}", age::human(left)), remedy)
        }
        _later => Finding::ok(check, text),
    }
}

fn life(info: &CertificateInfo) -> i64 {
    info.not_after.unix_seconds() - info.not_before.unix_seconds()
}
