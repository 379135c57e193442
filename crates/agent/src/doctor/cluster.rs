//! The kube-apiserver of this cluster, and its clock.

use moorline_model::{Finding, Timestamp};

use super::{CLOCK, LATER};
use crate::{
    kubernetes::{Client, READY},
    serve::Chain,
};

/// Two clocks that differ by more than the first are worth a word; by more than the second, certificates and tokens are
/// taken for too young or too old.
const NOTABLE: u64 = 30;
const WRONG: u64 = 300;

/// Whether it can be asked.
pub(super) async fn examine(client: &Client, findings: &mut Vec<Finding>) -> bool {
    let remedy = "check --kube-apiserver or --kubeconfig, the token, the authorities, and the network to it";
    match client.date(READY).await {
        Ok(date) => {
            findings.push(Finding::ok(LATER[0], "the kube-apiserver answers and is ready"));
            findings.push(clock(date.as_deref().and_then(http_date)));
            true
        }
        Err(error) => {
            // One that answers can be asked, whatever it says of its health.
            let answered = error.code().is_some_and(|code| code.is_server_error());
            findings.push(Finding::fail(LATER[0], Chain(&error).to_string(), remedy));
            findings.push(Finding::skipped(CLOCK, "no time is known to compare with"));
            answered
        }
    }
}

fn clock(theirs: Option<Timestamp>) -> Finding {
    let Some(theirs) = theirs else {
        return Finding::skipped(CLOCK, "the kube-apiserver does not say what time it is");
    };
    let apart = theirs.unix_seconds().abs_diff(crate::config::now().unix_seconds());
    let message = format!("this clock and the kube-apiserver's are {apart} s apart");
    let remedy = "synchronise the clocks of this node and of the control plane (NTP)";
    match apart {
        apart if apart > WRONG => Finding::fail(CLOCK, message, remedy),
        apart if apart > NOTABLE => Finding::warn(CLOCK, message, remedy),
        _same => Finding::ok(CLOCK, message),
    }
}

/// A moment as HTTP writes it since RFC 9110: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_once(", ")?.1.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    format!("{year}-{month:02}-{day}T{time}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use moorline_model::Verdict;

    use super::*;

    #[test]
    fn clocks_are_compared() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap().to_string(), "1994-11-06T08:49:37Z");
        for nonsense in ["", "Sunday", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov"] {
            assert_eq!(http_date(nonsense), None);
        }
        let now = crate::config::now();
        let ago = |seconds| clock(Some(now.saturating_sub(std::time::Duration::from_secs(seconds)))).verdict;
        assert_eq!((ago(1), ago(120), ago(3600)), (Verdict::Ok, Verdict::Warn, Verdict::Fail));
        assert_eq!(clock(None).verdict, Verdict::Skipped);
    }
}
