//! Files and flags: what they mean, and that everything wrong is told at once.

use super::*;

const GOOD: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://login.example.com/realm
    audiences: [moorline, kubernetes]
    audienceMatchPolicy: MatchAny
  claimValidationRules:
  - claim: hd
    requiredValue: example.com
  claimMappings:
    username: {claim: email, prefix: "oidc:"}
    groups: {claim: groups, prefix: ""}
    uid: {claim: sub}
    extra:
    - {key: example.com/team, valueExpression: claims.team}
- issuer:
    url: https://other.example.com
    discoveryURL: https://inside.example.com/.well-known/openid-configuration
    audiences: [moorline]
  claimMappings:
    username: {claim: sub, prefix: "other:"}
"#;

#[test]
fn a_file_means_what_it_means_to_kube_apiserver() {
    let configuration = Configuration::parse(GOOD).unwrap();
    let [first, second] = &configuration.issuers[..] else { panic!("two issuers") };
    assert_eq!(first.discovery, "https://login.example.com/realm/.well-known/openid-configuration");
    assert_eq!(first.audiences, ["moorline", "kubernetes"]);
    assert_eq!(first.mapping.required, [("hd".to_owned(), "example.com".to_owned())]);
    assert_eq!(first.mapping.username.prefix, "oidc:");
    assert_eq!(first.mapping.uid.as_deref(), Some("sub"));
    assert_eq!(first.mapping.extra, [("example.com/team".to_owned(), "team".to_owned())]);
    assert_eq!(second.discovery, "https://inside.example.com/.well-known/openid-configuration");
    assert_eq!(second.mapping.groups, None);
}

#[test]
fn everything_that_is_wrong_with_a_file_is_told_at_once() {
    let file = r#"
apiVersion: v1
kind: AuthenticationConfiguration
anonymous: {enabled: true}
jwt:
- issuer:
    url: http://login.example.com
    audience: [typo]
    certificateAuthority: nonsense
  claimValidationRules:
  - expression: "claims.hd == 'x'"
  claimMappings:
    username: {expression: claims.sub}
    groups: {claim: groups}
    extra:
    - {key: kubernetes.io/x, valueExpression: "claims.a + claims.b"}
  userValidationRules:
  - expression: "true"
"#;
    let problems = Configuration::parse(file).unwrap_err();
    let places: Vec<_> = problems.iter().map(|problem| problem.at.as_str()).collect();
    for place in [
        "apiVersion",
        "anonymous",
        "jwt[0].issuer.url",
        "jwt[0].issuer.audience",
        "jwt[0].issuer.audiences",
        "jwt[0].issuer.certificateAuthority",
        "jwt[0].claimValidationRules[0].expression",
        "jwt[0].claimMappings.username.expression",
        "jwt[0].claimMappings.groups.prefix",
        "jwt[0].claimMappings.extra[0].key",
        "jwt[0].claimMappings.extra[0].valueExpression",
        "jwt[0].userValidationRules[0]",
    ] {
        assert!(places.contains(&place), "{place} is not in {places:?}");
    }
    assert!(Configuration::parse("jwt: [").is_err());
    let reserved = Configuration::parse(&GOOD.replace("other:", "system:node:")).unwrap_err();
    assert_eq!(reserved[0].at, "jwt[1].claimMappings.username.prefix");
    assert!(Configuration::parse(&GOOD.replace("other.example.com", "login.example.com/realm")).is_err());
}

fn flags(issuer: &str) -> Flags {
    Flags { issuer_url: Some(issuer.to_owned()), client_id: Some("moorline".to_owned()), ..Flags::default() }
}

#[test]
fn flags_have_the_defaults_of_kube_apiserver() {
    assert_eq!(Configuration::from_flags(Flags::default()).unwrap(), None);
    let mapping = |flags| Configuration::from_flags(flags).unwrap().unwrap().issuers.remove(0).mapping;
    assert_eq!(mapping(flags("https://a.example")).username.prefix, "https://a.example#");
    let email = Flags { username_claim: Some("email".to_owned()), ..flags("https://a.example") };
    assert_eq!(mapping(email).username.prefix, "");
    let none = Flags { username_prefix: Some("-".to_owned()), ..flags("https://a.example") };
    assert_eq!(mapping(none).username.prefix, "");
}

#[test]
fn everything_that_is_wrong_with_flags_is_told_at_once() {
    let places = |flags| -> Vec<_> {
        Configuration::from_flags(flags).unwrap_err().into_iter().map(|problem| problem.at).collect()
    };
    let alone = Flags { client_id: Some("x".to_owned()), groups_claim: Some("x".to_owned()), ..Flags::default() };
    assert_eq!(places(alone), ["--oidc-client-id", "--oidc-groups-claim"]);
    let wrong = Flags {
        client_id: None,
        signing_algs: vec!["HS256".to_owned(), "none".to_owned(), "ES512".to_owned()],
        required_claims: vec!["hd".to_owned()],
        groups_prefix: Some("system:".to_owned()),
        ..flags("https://u:p@a.example")
    };
    let places = places(wrong);
    for place in [
        "--oidc-issuer-url",
        "--oidc-client-id",
        "--oidc-signing-algs",
        "--oidc-required-claim",
        "--oidc-groups-prefix",
    ] {
        assert!(places.iter().any(|at| at == place), "{place} is not in {places:?}");
    }
}
