//! `moorline doctor`: what is wrong between here, the gateway and the tunnel, step by step, each with what to do about it.
//!
//! It asks what any command asks, and looks at both doors from outside. It changes nothing.

mod clusters;
mod door;
mod tunnel;

use http::{StatusCode, header, response};
use moorline_api::{AccessAnswer, AccessQuestion, ServerStatus, paths};
use moorline_demo::age;
use moorline_model::{Finding, Report, Timestamp};

use crate::{args::DoctorArgs, client::Client, connection::Connection, failure::Failure, printer::Printer};

/// Seconds by which the clocks may differ before it is worth a word, and before certificates and tokens fail.
const CLOCK_WARN: u64 = 30;
const CLOCK_FAIL: u64 = 300;

pub(super) async fn run(args: &DoctorArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let connection = Connection::resolve(&args.connect)?;
    let client = Client::new(connection.clone())?;
    let mut findings = Vec::new();
    let status = gateway(&connection, &client, &mut findings).await;
    let told = status.as_ref().and_then(|status| status.tunnel_address.clone());
    tunnel::examine(args.tunnel_address.clone().or(told).as_deref(), &mut findings).await;
    if status.is_some() {
        clusters::examine(&client, status.as_ref(), &mut findings).await;
    }
    let report = Report { findings };
    match args.output {
        Some(format) => printer.structured(&report, format)?,
        None => printer.text(&report.to_string())?,
    }
    if report.failed() { Err(Failure::no()) } else { Ok(()) }
}

/// Everything up to what the gateway says of itself; none where it is not reached, or does not say.
async fn gateway(connection: &Connection, client: &Client, findings: &mut Vec<Finding>) -> Option<ServerStatus> {
    let tcp = door::reach("gateway", &connection.host, connection.port, findings).await?;
    let tls = match client.secure(tcp).await {
        Ok(tls) => tls,
        Err(failure) => {
            let remedy = failure.hints.first().cloned();
            let remedy = remedy.unwrap_or_else(|| "see whether --certificate-authority is the gateway's".to_owned());
            findings.push(Finding::fail("gateway-tls", failure.what.join("; "), remedy));
            return None;
        }
    };
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    findings.push(Finding::ok("gateway-tls", format!("trusted for {}", connection.host)));
    findings.push(door::expiry("gateway", chain, now()));
    drop(tls);
    let head = match client.head(paths::VERSION).await {
        Ok(head) => head,
        Err(failure) => {
            findings.push(Finding::fail("gateway-http", failure.what.join("; "), "look into the gateway's log"));
            return None;
        }
    };
    findings.push(clock(&head, now()));
    if !known(&head, findings) {
        return None;
    }
    may_list(client, findings).await;
    server(client, findings).await
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

fn known(head: &response::Parts, findings: &mut Vec<Finding>) -> bool {
    match head.status {
        StatusCode::OK => true,
        StatusCode::UNAUTHORIZED => {
            let remedy = "give a token or certificate that this gateway knows (--token-file, --client-certificate); \
                          log in again where it has ended";
            findings.push(Finding::fail("credential", "the gateway does not know who you are (401)", remedy));
            false
        }
        other => {
            let remedy = "is --server a Moorline gateway, and well? its log says more";
            findings.push(Finding::fail("gateway-http", format!("the gateway answered {other}"), remedy));
            false
        }
    }
}

async fn may_list(client: &Client, findings: &mut Vec<Finding>) {
    let question =
        AccessQuestion { verb: "list".to_owned(), resource: "managedclusters".to_owned(), ..AccessQuestion::default() };
    match client.post::<AccessAnswer>(paths::ACCESS_REVIEWS, &question).await {
        Ok(answer) => {
            findings.push(Finding::ok("credential", format!("you are {:?}", answer.user)));
            findings.push(match answer.rule {
                Some(rule) if answer.allowed => Finding::ok("authorization", format!("you may list clusters: {rule}")),
                _none if answer.allowed => Finding::ok("authorization", "you may list clusters"),
                _none => Finding::warn(
                    "authorization",
                    "you may not list clusters, so none is looked at here",
                    "ask for `list` on managedclusters, or see single ones with moorline cluster describe",
                ),
            });
        }
        Err(error) => {
            let failure = Failure::from(error);
            let remedy = "the gateway cannot decide: see whether its authorizer can be reached";
            findings.push(Finding::fail("authorization", failure.what.join("; "), remedy));
        }
    }
}

async fn server(client: &Client, findings: &mut Vec<Finding>) -> Option<ServerStatus> {
    let status: ServerStatus = match client.get(paths::STATUS).await {
        Ok(status) => status,
        Err(error) => {
            findings.push(Finding::skipped("server", Failure::from(error).what.join("; ")));
            return None;
        }
    };
    let up = age::human(now().unix_seconds() - status.started.unix_seconds());
    let (connected, clusters) = (status.connected_clusters, status.clusters);
    let text = format!("version {}, up for {up}, {connected} of {clusters} clusters connected", status.version);
    findings.push(Finding::ok("server", text));
    findings.push(version(env!("CARGO_PKG_VERSION"), &status.version));
    Some(status)
}

/// Programs of neighbouring minor versions work together.
fn version(ours: &str, theirs: &str) -> Finding {
    const CHECK: &str = "version";
    let minor = |text: &str| {
        let mut parts = text.split('.');
        Some((parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?))
    };
    match (minor(ours), minor(theirs)) {
        (Some((major, one)), Some((other, two))) if major == other && one.abs_diff(two) <= 1 => {
            Finding::ok(CHECK, format!("this program is {ours}, the gateway {theirs}"))
        }
        _far => Finding::warn(
            CHECK,
            format!("this program is {ours}, the gateway {theirs}: more than a minor version apart"),
            "use the program of the gateway's version, or one next to it",
        ),
    }
}

/// How far our clock is from the gateway's, as its answer says.
fn clock(head: &response::Parts, now: Timestamp) -> Finding {
    const CHECK: &str = "clock";
    let date = head.headers.get(header::DATE).and_then(|date| date.to_str().ok()).and_then(http_date);
    let Some(date) = date else { return Finding::skipped(CHECK, "the gateway does not say what time it is") };
    let apart = now.unix_seconds().abs_diff(date.unix_seconds());
    let text = format!("this clock and the gateway's are {apart} s apart");
    let remedy = "let both machines keep their time by NTP: certificates and tokens depend on it";
    if apart <= CLOCK_WARN {
        Finding::ok(CHECK, text)
    } else if apart <= CLOCK_FAIL {
        Finding::warn(CHECK, text, remedy)
    } else {
        Finding::fail(CHECK, text, remedy)
    }
}

/// `Sat, 21 Nov 2026 14:00:00 GMT`, as HTTP writes moments.
fn http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    format!("{year}-{month:02}-{day}T{time}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use http::Response;
    use moorline_model::Verdict;

    use super::*;

    #[test]
    fn clocks_are_compared_by_the_date_header() {
        let said = |date: &str| Response::builder().header(header::DATE, date).body(()).unwrap().into_parts().0;
        let head = said("Sat, 21 Nov 2026 03:53:00 GMT");
        for (seconds, verdict) in [(0, Verdict::Ok), (-20, Verdict::Ok), (-31, Verdict::Warn), (301, Verdict::Fail)] {
            let now = Timestamp::from_unix_seconds(1_795_233_180 + seconds);
            assert_eq!(clock(&head, now).verdict, verdict, "{seconds}");
        }
        assert_eq!(clock(&said("yesterday"), now()).verdict, Verdict::Skipped);
    }

    #[test]
    fn neighbouring_versions_go_together() {
        for (theirs, verdict) in [
            ("0.4.9", Verdict::Ok),
            ("0.3.0", Verdict::Ok),
            ("0.5.0-rc.1", Verdict::Ok),
            ("0.6.0", Verdict::Warn),
            ("1.4.0", Verdict::Warn),
            ("main", Verdict::Warn),
        ] {
            assert_eq!(version("0.4.1", theirs).verdict, verdict, "{theirs}");
        }
    }
}
