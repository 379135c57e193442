//! What may be said across: to a service nothing in which a program speaks for anybody but itself, and the cluster's name
//! in our words alone.
//!
//! Called by `proxy` for each request and each response. Removal comes first; what is written is written after it.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header, uri::PathAndQuery,
};
use hyper::body::Incoming;
use moorline_model::ClusterName;

use crate::{
    front::body::{Progress, RequestBody},
    services::{
        catalog::Offered,
        refused::Refused,
        table::{Mode, Service},
    },
};

/// From which cluster a request comes. Whoever reads it may believe it.
const CLUSTER: HeaderName = HeaderName::from_static("x-cluster-id");

/// The request as it goes to the service.
pub(super) fn request(
    request: Request<Incoming>,
    cluster: &ClusterName,
    offered: &Offered,
    progress: &Arc<Progress>,
) -> Request<RequestBody> {
    let (mut head, incoming) = request.into_parts();
    headers(&mut head.headers, cluster, &offered.service);
    // What a program wrote for a host, in whatever form, is not where it goes.
    let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    head.uri = Uri::from(path);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    Request::from_parts(head, RequestBody::new(incoming, Some(Arc::clone(progress))))
}

/// Removes from a response what belongs to one hop.
///
/// # Errors
/// It switches protocols, which nobody asked for.
pub(super) fn response(response: &mut Response<Incoming>) -> Result<(), Refused> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refused::Switched);
    }
    let headers = response.headers_mut();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let listed = listed(headers).filter(|name| !matches!(name.as_str(), "content-length" | "content-type"));
    let listed: Vec<HeaderName> = listed.collect();
    let unwanted: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_of_one_hop(name.as_str()) || moorline_wire::headers::is_ours(name))
        .cloned()
        .chain(listed)
        .collect();
    for name in unwanted {
        headers.remove(name);
    }
    Ok(())
}

fn headers(headers: &mut HeaderMap, cluster: &ClusterName, service: &Service) {
    let listed: Vec<HeaderName> = listed(headers).collect();
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| is_unwanted(name)).cloned().chain(listed).collect();
    for name in unwanted {
        headers.remove(name);
    }
    one_cookie(headers);
    headers.insert(header::HOST, host(service));
    headers.insert(CLUSTER, HeaderValue::from_str(cluster.as_str()).unwrap_or(HeaderValue::from_static("")));
}

/// The names that `Connection` lists.
fn listed(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let values = headers.get_all(header::CONNECTION).into_iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
}

/// Whether a header may not go to a service. Names are compared as those see them who fold everything but letters and
/// digits into one character, as CGI and its heirs do.
fn is_unwanted(name: &HeaderName) -> bool {
    let folded: String =
        name.as_str().chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    is_of_one_hop(&folded)
        // From which cluster it comes, who it is of and which way it came is for us to say.
        || matches!(folded.as_str(), "x-cluster-id" | "forwarded" | "x-real-ip" | "host")
        || ["x-moorline-", "x-forwarded-", "x-remote-", "impersonate-"].iter().any(|prefix| folded.starts_with(prefix))
        // How the body ends is for the next hop to say; and what is expected was answered by this one.
        || matches!(folded.as_str(), "content-length" | "expect")
}

fn is_of_one_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// HTTP/2 cuts cookies into several headers, which HTTP/1.1 does not have (RFC 9113, 8.2.3).
fn one_cookie(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() < 2 {
        return;
    }
    let joined = HeaderValue::from_bytes(&cookies.join(&b"; "[..]));
    headers.remove(header::COOKIE);
    if let Ok(joined) = joined {
        headers.insert(header::COOKIE, joined);
    }
}

/// What the service calls itself, whatever the program called it: behind one address there may be others.
fn host(service: &Service) -> HeaderValue {
    let (name, port) = (service.upstream_name(), service.upstream.port);
    let usual = if matches!(service.mode, Mode::Http { upstream: Some(_), .. }) { 443 } else { 80 };
    let bracketed = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    let text = if port == usual { bracketed } else { format!("{bracketed}:{port}") };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::services::table;

    fn service(fields: &str) -> Service {
        let text = format!(
            "apiVersion: moorline.io/v1alpha1\nkind: ManagementServices\nservices:\n- {{name: s, clusters: ['*'], mode: \
             HTTP, {fields}}}\n"
        );
        table::parse(&text).unwrap().remove(0)
    }

    fn cleaned(sent: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut map = HeaderMap::new();
        for (name, value) in sent {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers(&mut map, &"east".parse().unwrap(), &service("upstream: 'logs.svc:9200'"));
        let mut left: Vec<_> =
            map.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        left.sort_unstable();
        left
    }

    fn with_ours(others: &[(&str, &str)]) -> Vec<(String, String)> {
        let ours = [("host", "logs.svc:9200"), ("x-cluster-id", "east")];
        let all = ours.iter().chain(others).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn nobody_says_which_cluster_it_is_but_us() {
        let sent = [
            ("x-cluster-id", "west"),
            ("X-Cluster-ID", "west"),
            ("x_cluster_id", "west"),
            ("x-cluster_id", "west"),
            ("x.cluster.id", "west"),
            ("x~cluster'id", "west"),
            ("host", "admin.svc"),
            ("forwarded", "for=192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x_forwarded_user", "root"),
            ("x-remote-user", "root"),
            ("x-real-ip", "192.0.2.1"),
            ("impersonate-user", "root"),
            ("x-moorline-identity", "root"),
            ("x_moorline_identity", "root"),
            ("proxy-authorization", "Basic eDp5"),
        ];
        assert_eq!(cleaned(&sent), with_ours(&[]));
    }

    #[test]
    fn what_is_the_programs_own_goes_on() {
        let own = [
            ("authorization", "Bearer of-the-program"),
            ("content-type", "application/json"),
            ("x-scope-orgid", "7"),
            ("x-cluster-identity", "mine"),
            ("user-agent", "fluent-bit"),
        ];
        assert_eq!(cleaned(&own), with_ours(&own));
        assert_eq!(cleaned(&[("cookie", "a=1"), ("cookie", "b=2")]), with_ours(&[("cookie", "a=1; b=2")]));
    }

    /// Neither what is listed, nor ours: that is written after the list was obeyed, and the list itself is gone.
    #[test]
    fn a_list_in_connection_takes_nothing_of_ours() {
        let sent = [
            ("connection", "close, X-Cluster-Id, Host"),
            ("connection", "x-secret"),
            ("x-secret", "of one hop"),
            ("transfer-encoding", "chunked"),
            ("transfer_encoding", "chunked"),
            ("content-length", "7"),
            ("content_length", "7"),
            ("te", "trailers"),
            ("trailer", "x-cluster-id"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
            ("expect", "100-continue"),
            ("keep-alive", "timeout=5"),
        ];
        assert_eq!(cleaned(&sent), with_ours(&[]));
    }

    #[test]
    fn a_service_is_called_what_it_calls_itself() {
        for (fields, name) in [
            ("upstream: 'logs:80'", "logs"),
            ("upstream: 'logs:443'", "logs:443"),
            ("upstream: 'logs:443', upstreamTLS: {}", "logs"),
            ("upstream: '192.0.2.1:9200', upstreamTLS: {serverName: logs.svc}", "logs.svc:9200"),
            ("upstream: '[2001:db8::1]:80'", "[2001:db8::1]"),
        ] {
            assert_eq!(host(&service(fields)), name, "{fields}");
        }
    }

    proptest! {
        /// Whatever is sent: one name of the cluster, ours, and nothing that could be folded into another.
        #[test]
        fn there_is_one_name_of_the_cluster(
            sent in prop::collection::vec(("([xX][-_.][cC]luster[-_.][iI][dD]|connection|[hH]ost|[a-z]{1,6})", "[ -~]{0,20}"), 0..12),
        ) {
            let sent: Vec<(&str, &str)> = sent.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let left = cleaned(&sent);
            let fold = |name: &str| name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
            let ours: Vec<_> = left.iter().filter(|(name, _)| fold(name) == "x-cluster-id").collect();
            prop_assert_eq!(ours, [&("x-cluster-id".to_owned(), "east".to_owned())]);
            prop_assert_eq!(left.iter().filter(|(name, _)| name == "host").count(), 1);
        }
    }
}
