//! Tables of request lines and headers.

use http::HeaderValue;

use super::*;

fn ask(method: &str, uri: &str, headers: &[(&'static str, &[u8])]) -> Result<Target, TargetError> {
    ask_in(Version::HTTP_11, method, uri, headers)
}

fn ask_in(version: Version, method: &str, uri: &str, headers: &[(&'static str, &[u8])]) -> Result<Target, TargetError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
    }
    target(&method.parse().unwrap(), &uri.parse().unwrap(), version, &map)
}

fn cluster(name: &str, path: &str) -> Result<Target, TargetError> {
    Ok(Target::Cluster { cluster: name.parse().unwrap(), path: path.parse().unwrap() })
}

#[test]
fn the_path_names_a_cluster_and_the_rest_is_kept_byte_for_byte() {
    for (uri, name, path) in [
        ("/clusters/east", "east", "/"),
        ("/clusters/east/", "east", "/"),
        ("/clusters/east/api/v1/pods?watch=true", "east", "/api/v1/pods?watch=true"),
        ("/clusters/east?timeout=1s", "east", "/?timeout=1s"),
        ("/clusters/east/a/../b/./c", "east", "/a/../b/./c"),
        ("/clusters/east/a%2Fb%2e%2E/c%00", "east", "/a%2Fb%2e%2E/c%00"),
        ("/clusters/east/a//b", "east", "/a//b"),
        ("/clusters/east/clusters/west/api", "east", "/clusters/west/api"),
        ("/clusters/east/x?a=/clusters/west&b=%0d%0a", "east", "/x?a=/clusters/west&b=%0d%0a"),
        ("/clusters/management/api", "management", "/api"),
    ] {
        assert_eq!(ask("GET", uri, &[]), cluster(name, path), "{uri}");
    }
    let Ok(Target::Cluster { path, .. }) = ask("GET", "/clusters/east/a%2fB/%C3%A9?q=%2F", &[]) else { panic!() };
    assert_eq!(path.as_str(), "/a%2fB/%C3%A9?q=%2F");
}

#[test]
fn no_odd_spelling_reaches_a_cluster() {
    for uri in [
        "/clusters/",
        "/clusters//east/api",
        "/clusters/East/api",
        "/clusters/e%61st/api",
        "/clusters/east%2Fapi",
        "/clusters/../east/api",
        "/clusters/./east/api",
        "/clusters/%2e%2e/api",
        "/clusters/east.west/api",
        "/clusters/%FF/api",
        "/clusters/east%00/api",
        "/clusters/-east/api",
    ] {
        assert!(matches!(ask("GET", uri, &[]), Err(TargetError::Name(_))), "{uri}");
    }
    assert_eq!(ask("GET", "/clusters/east//api", &[]), Err(TargetError::Slashes));
    for uri in ["//clusters/east/api", "//api", "//evil.example/api"] {
        assert_eq!(ask("GET", uri, &[]), Err(TargetError::Form), "{uri}");
    }
    for uri in ["/Clusters/east/api", "/%63lusters/east/api", "/clusters", "/x/../clusters/east"] {
        assert_eq!(ask("GET", uri, &[]), Ok(Target::Control), "not a cluster's: {uri}");
    }
}

#[test]
fn the_header_names_a_cluster_on_plain_paths() {
    let east: &[(&'static str, &[u8])] = &[("x-cluster-id", b"east")];
    for uri in ["/api", "/apis/apps/v1?limit=5", "/version", "/openapi/v3", "/healthz", "/livez?verbose", "/"] {
        assert_eq!(ask("GET", uri, east), cluster("east", uri), "{uri}");
    }
    assert_eq!(ask("GET", "/clusters/east/api", east), cluster("east", "/api"), "both agree");
    assert_eq!(ask("GET", "/v1/clusters", east), Ok(Target::Control), "our own API is no cluster's");
}

#[test]
fn a_header_that_is_not_one_name_is_refused() {
    let disagree = ask("GET", "/clusters/east/api", &[("x-cluster-id", b"west")]);
    assert!(matches!(disagree, Err(TargetError::Disagree { .. })));
    assert_eq!(ask("GET", "/api", &[("x-cluster-id", b"a"), ("x-cluster-id", b"a")]), Err(TargetError::Repeated));
    assert_eq!(ask("GET", "/api", &[("x-cluster-id", b"\xff")]), Err(TargetError::NameText));
    for bad in [&b""[..], b"a,b", b"a b", b"../a", b"a/b", b"A"] {
        assert!(matches!(ask("GET", "/api", &[("x-cluster-id", bad)]), Err(TargetError::Name(_))), "{bad:?}");
        assert!(ask("GET", "/v1/clusters", &[("x-cluster-id", bad)]).is_err(), "even where it is not needed: {bad:?}");
    }
}

#[test]
fn without_a_name_kubernetes_paths_go_to_the_management_cluster() {
    for uri in ["/api", "/api/v1/pods", "/apis", "/openapi/v2", "/version", "/.well-known/openid-configuration"] {
        assert_eq!(ask("GET", uri, &[]), cluster("management", uri), "{uri}");
    }
    for uri in ["/v1", "/v1/clusters", "/", "/apix", "/v10", "/console/x", "/clustersx/east"] {
        assert_eq!(ask("GET", uri, &[]), Ok(Target::Control), "{uri}");
    }
    for uri in ["/livez", "/readyz", "/healthz?x"] {
        assert_eq!(ask("GET", uri, &[]), Ok(Target::Probe), "{uri}");
    }
}

#[test]
fn only_a_path_is_a_target() {
    assert_eq!(ask("CONNECT", "east:443", &[]), Err(TargetError::Connect));
    assert_eq!(ask("OPTIONS", "*", &[]), Err(TargetError::Form));
    assert_eq!(ask("GET", "http://gateway/clusters/east/api", &[]), Err(TargetError::Form));
    assert_eq!(ask("GET", "east:443", &[]), Err(TargetError::Form));
    let url = "https://gateway/clusters/east/api";
    assert_eq!(ask_in(Version::HTTP_2, "GET", url, &[]), cluster("east", "/api"));
}

#[test]
fn a_head_has_bounds() {
    let lines: Vec<(&'static str, &[u8])> = vec![("impersonate-group", b"g"); MAX_HEADERS];
    assert!(ask("GET", "/api", &lines).is_ok());
    let lines: Vec<(&'static str, &[u8])> = vec![("impersonate-group", b"g"); MAX_HEADERS + 1];
    assert_eq!(ask("GET", "/api", &lines), Err(TargetError::HeadTooLarge));
    let long = vec![b'a'; MAX_HEAD];
    assert_eq!(ask("GET", "/api", &[("authorization", &long)]), Err(TargetError::HeadTooLarge));
}
