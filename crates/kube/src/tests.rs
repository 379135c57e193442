//! The reviews against a kube-apiserver that does as it is told: down, slow, garbage, and counted.

mod api_server;
mod load;

use std::{sync::Arc, time::Duration};

use moorline_access::{Attributes, Authenticator as _, Authorizer as _, Decision};
use moorline_model::Identity;
use serde_json::json;

use crate::{AccessReviews, Lives, TokenReviews};

use api_server::{Answer, ApiServer};

const LONG: Lives = Lives { yes: Duration::from_secs(3600), no: Duration::from_secs(3600) };

/// For answers that must come; those that must not have a shorter one.
const PATIENT: Duration = Duration::from_secs(60);

fn ann() -> serde_json::Value {
    json!({
        "authenticated": true,
        "user": {
            "username": "ann", "uid": "7", "groups": ["dev", "system:authenticated"],
            "extra": { "authentication.kubernetes.io/pod-name": ["till-1"] },
        },
    })
}

fn tokens(server: &ApiServer, timeout: Duration, audiences: &[&str], lives: Lives) -> TokenReviews {
    TokenReviews::new(server.connection(timeout), audiences.iter().map(|text| (*text).to_owned()).collect(), lives)
}

fn reach(name: &str) -> Attributes<'_> {
    Attributes {
        verb: "get",
        api_group: "moorline.io",
        resource: "managedclusters",
        name: Some(name),
        ..Attributes::default()
    }
}

#[tokio::test]
async fn a_token_becomes_the_whole_user() {
    let server = ApiServer::start(Answer::Status(ann())).await;
    let found = tokens(&server, PATIENT, &[], LONG).authenticate("secret").await.unwrap().unwrap();
    assert_eq!((found.user(), found.uid()), ("ann", Some("7")));
    assert_eq!(found.groups(), ["dev", "system:authenticated"]);
    assert_eq!(found.extra()["authentication.kubernetes.io/pod-name"], ["till-1"]);
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].0, "/apis/authentication.k8s.io/v1/tokenreviews");
    assert_eq!(asked[0].1["spec"], json!({ "token": "secret" }));
}

#[tokio::test]
async fn a_token_is_ours_only_where_an_audience_of_ours_comes_back() {
    for (answered, ours) in [
        (json!(["moorline"]), true),
        (json!(["other", "second"]), true),
        (json!(["other"]), false),
        (json!([]), false),
        (json!(null), false),
    ] {
        let mut status = ann();
        status["audiences"] = answered.clone();
        let server = ApiServer::start(Answer::Status(status)).await;
        let found = tokens(&server, PATIENT, &["moorline", "second"], LONG).authenticate("t").await.unwrap();
        assert_eq!(found.is_some(), ours, "{answered}");
        assert_eq!(server.asked()[0].1["spec"]["audiences"], json!(["moorline", "second"]));
    }
}

#[tokio::test]
async fn an_authorizer_hears_everything_about_who_and_what() {
    let server = ApiServer::start(Answer::Status(json!({ "allowed": true, "reason": "RBAC: by a binding" }))).await;
    let reviews = AccessReviews::new(server.connection(PATIENT), LONG);
    let who = Identity::new("ann").unwrap().with_groups(["dev"]).unwrap().with_uid("7").unwrap();
    let who = who.with_extra("scopes", ["a", "b"]).unwrap();
    let decision = reviews.decide(&who, &reach("east")).await.unwrap();
    assert_eq!(decision, Decision::Allow { rule: "RBAC: by a binding".to_owned() });
    let path = Attributes { verb: "get", non_resource_path: Some("/metrics"), ..Attributes::default() };
    reviews.decide(&who, &path).await.unwrap();
    let asked = server.asked();
    assert_eq!(asked[0].0, "/apis/authorization.k8s.io/v1/subjectaccessreviews");
    let resource = json!({
        "verb": "get", "group": "moorline.io", "version": "*", "resource": "managedclusters", "name": "east",
    });
    let user = json!({ "user": "ann", "groups": ["dev"], "uid": "7", "extra": { "scopes": ["a", "b"] } });
    let mut expected = user.clone();
    expected["resourceAttributes"] = resource;
    assert_eq!(asked[0].1["spec"], expected);
    let mut expected = user;
    expected["nonResourceAttributes"] = json!({ "verb": "get", "path": "/metrics" });
    assert_eq!(asked[1].1["spec"], expected);
}

#[tokio::test]
async fn only_a_clear_yes_is_a_yes() {
    for (status, allowed) in [
        (json!({ "allowed": true }), true),
        (json!({ "allowed": false }), false),
        (json!({ "allowed": false, "evaluationError": "no such role" }), false),
        (json!({ "allowed": true, "denied": true }), false),
        (json!({}), false),
    ] {
        let server = ApiServer::start(Answer::Status(status.clone())).await;
        let reviews = AccessReviews::new(server.connection(PATIENT), LONG);
        let decision = reviews.decide(&Identity::new("ann").unwrap(), &reach("east")).await.unwrap();
        assert_eq!(matches!(decision, Decision::Allow { .. }), allowed, "{status}");
    }
    for status in [json!({}), json!({ "authenticated": false, "error": "no" }), json!({ "user": { "username": "x" } })]
    {
        let server = ApiServer::start(Answer::Status(status)).await;
        assert_eq!(tokens(&server, PATIENT, &[], LONG).authenticate("t").await, Ok(None));
    }
}

#[tokio::test]
async fn f28_whatever_is_no_answer_lets_nobody_in_and_is_over_in_time() {
    let quick = Duration::from_millis(300);
    let answers = [
        (Answer::Silence, quick),
        (Answer::Trickle, quick),
        (Answer::Code(429), PATIENT),
        (Answer::Code(500), PATIENT),
        (Answer::Code(302), PATIENT),
        (Answer::Cut, PATIENT),
        (Answer::Truncated, PATIENT),
        (Answer::Text("<html>login</html>"), PATIENT),
        (Answer::Text(""), PATIENT),
        (Answer::Text("true"), PATIENT),
        (Answer::Text("{}"), PATIENT),
        (Answer::Text(r#"{"kind":"Status","apiVersion":"v1","status":"Success"}"#), PATIENT),
        (Answer::Text(r#"{"kind":"Other","status":{"authenticated":true,"allowed":true}}"#), PATIENT),
        (Answer::Text(r#"{"status":{"authenticated":"true","allowed":"true"}}"#), PATIENT),
        (Answer::Endless, PATIENT),
    ];
    for (answer, timeout) in answers {
        let server = ApiServer::start(answer.clone()).await;
        let began = tokio::time::Instant::now();
        let error = tokens(&server, timeout, &[], LONG).authenticate("SECRET").await.expect_err("a user");
        assert!(!error.to_string().contains("SECRET"), "{error}");
        let reviews = AccessReviews::new(server.connection(timeout), LONG);
        reviews.decide(&Identity::new("ann").unwrap(), &reach("east")).await.expect_err("a decision");
        assert!(began.elapsed() < PATIENT, "{answer:?} took {:?}", began.elapsed());
    }
    // A yes without a user, and a user that cannot be carried.
    for user in [json!(null), json!({}), json!({ "username": "" }), json!({ "username": "a\nb" })] {
        let server = ApiServer::start(Answer::Status(json!({ "authenticated": true, "user": user }))).await;
        tokens(&server, PATIENT, &[], LONG).authenticate("t").await.expect_err("a user");
    }
}

/// One kube-apiserver after another mishap, and the same authenticator and authorizer all along.
#[tokio::test]
async fn f28_after_whatever_was_no_answer_all_is_well_by_itself() {
    let server = ApiServer::start(Answer::Silence).await;
    let mishaps = [
        Answer::Silence,
        Answer::Trickle,
        Answer::Code(500),
        Answer::Cut,
        Answer::Truncated,
        Answer::Text("<html>login</html>"),
        Answer::Text(r#"{"kind":"Other","status":{"authenticated":true,"allowed":true}}"#),
    ];
    for (number, mishap) in mishaps.into_iter().enumerate() {
        let patient =
            if matches!(mishap, Answer::Silence | Answer::Trickle) { Duration::from_millis(300) } else { PATIENT };
        let tokens = tokens(&server, patient, &[], LONG);
        let reviews = AccessReviews::new(server.connection(patient), LONG);
        let (token, ann) = (format!("token-{number}"), Identity::new("ann").unwrap());
        server.answers(mishap);
        tokens.authenticate(&token).await.expect_err("a user");
        reviews.decide(&ann, &reach("east")).await.expect_err("a decision");
        // Time enough for a good answer, on a busy machine too.
        let well = async || {
            let mut yes = self::ann();
            yes["allowed"] = json!(true);
            server.answers(Answer::Status(yes));
            while tokens.authenticate(&token).await.is_err() {}
            while reviews.decide(&ann, &reach("east")).await.is_err() {}
        };
        tokio::time::timeout(PATIENT, well()).await.unwrap();
        assert!(tokens.authenticate(&token).await.unwrap().is_some());
        assert!(matches!(reviews.decide(&ann, &reach("east")).await.unwrap(), Decision::Allow { .. }));
    }
}

#[tokio::test]
async fn f28_a_server_that_is_down_is_said_to_be_and_found_again() {
    let server = ApiServer::start(Answer::Status(ann())).await;
    let tokens = tokens(&server, PATIENT, &[], LONG);
    server.answers(Answer::Cut);
    tokens.authenticate("one").await.expect_err("a user");
    server.answers(Answer::Status(ann()));
    assert!(tokens.authenticate("one").await.unwrap().is_some(), "a failure is not remembered");
    server.stop().await;
    tokens.authenticate("two").await.expect_err("a user");
    assert!(tokens.authenticate("one").await.unwrap().is_some(), "what is known stays known for its time");
    server.start_again().await;
    assert!(tokens.authenticate("two").await.unwrap().is_some());
}

#[tokio::test]
async fn f28_all_who_ask_the_same_at_once_cost_one_question() {
    let server = ApiServer::start(Answer::Held(ann())).await;
    let tokens = Arc::new(tokens(&server, PATIENT, &[], LONG));
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..100 {
        let tokens = Arc::clone(&tokens);
        waiting.spawn(async move { tokens.authenticate(if number % 2 == 0 { "one" } else { "two" }).await });
    }
    server.until_asked(2).await;
    server.release();
    while let Some(found) = waiting.join_next().await {
        assert_eq!(found.unwrap().unwrap().unwrap().user(), "ann");
    }
    assert_eq!(server.asked().len(), 2);
}

/// With no other way to be asked about a token than by the token, all of a user's groups come in one answer, and go in
/// one question.
#[tokio::test]
async fn f28_a_user_in_fifty_groups_costs_one_review_of_each_kind() {
    let groups: Vec<String> = (0..50).map(|number| format!("group-{number}")).collect();
    let mut status = ann();
    (status["user"]["groups"], status["allowed"]) = (json!(groups), json!(true));
    let server = ApiServer::start(Answer::Status(status)).await;
    let tokens = tokens(&server, PATIENT, &[], LONG);
    let reviews = AccessReviews::new(server.connection(PATIENT), LONG);
    for _request in 0..3 {
        let ann = tokens.authenticate("one").await.unwrap().unwrap();
        assert_eq!(ann.groups().len(), 50);
        assert!(matches!(reviews.decide(&ann, &reach("east")).await.unwrap(), Decision::Allow { .. }));
    }
    let asked = server.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[1].1["spec"]["groups"], json!(groups));
}

#[tokio::test]
async fn what_is_no_token_is_not_asked_about() {
    let server = ApiServer::start(Answer::Status(ann())).await;
    let tokens = tokens(&server, PATIENT, &[], LONG);
    for garbage in ["", " ", "a b", "a\tb", "a\n", "\u{0}", "caf\u{e9}", &"x".repeat(32 * 1024 + 1)] {
        assert_eq!(tokens.authenticate(garbage).await, Ok(None));
    }
    assert_eq!(server.asked().len(), 0);
    for odd in ["a:b", "kubeconfig-user-x7:abc|def", "a.b.c", "~", &"x".repeat(32 * 1024)] {
        assert!(tokens.authenticate(odd).await.unwrap().is_some(), "{odd}");
    }
}

#[tokio::test]
async fn without_a_time_to_remember_it_is_asked_each_time() {
    let none = Lives { yes: Duration::ZERO, no: Duration::ZERO };
    for status in [ann(), json!({ "authenticated": false })] {
        let server = ApiServer::start(Answer::Status(status)).await;
        let tokens = tokens(&server, PATIENT, &[], none);
        for _request in 0..3 {
            tokens.authenticate("one").await.unwrap();
        }
        assert_eq!(server.asked().len(), 3);
    }
}

#[tokio::test]
async fn answers_are_remembered_by_everything_that_was_asked_and_for_their_time_only() {
    let server = ApiServer::start(Answer::Status(json!({ "allowed": true }))).await;
    let reviews = AccessReviews::new(server.connection(PATIENT), LONG);
    let ann = || Identity::new("ann").unwrap();
    let people = [
        ann(),
        ann().with_uid("dev").unwrap(),
        ann().with_groups(["dev"]).unwrap(),
        ann().with_groups(["de", "v"]).unwrap(),
        ann().with_extra("dev", ["a"]).unwrap(),
        ann().with_extra("dev", ["b"]).unwrap(),
    ];
    let base = reach("east");
    let questions = [
        base,
        reach("west"),
        Attributes { verb: "list", ..base },
        Attributes { name: None, ..base },
        Attributes { name: None, namespace: Some("east"), ..base },
        Attributes { name: None, subresource: Some("east"), ..base },
    ];
    for _twice in 0..2 {
        for (who, what) in people.iter().flat_map(|who| questions.iter().map(move |what| (who, what))) {
            reviews.decide(who, what).await.unwrap();
        }
    }
    assert_eq!(server.asked().len(), people.len() * questions.len());

    let brief = Lives { yes: Duration::from_millis(20), no: Duration::from_secs(3600) };
    let reviews = AccessReviews::new(server.connection(PATIENT), brief);
    reviews.decide(&ann(), &base).await.unwrap();
    server.answers(Answer::Status(json!({ "allowed": false })));
    tokio::time::sleep(brief.yes * 2).await;
    assert_eq!(reviews.decide(&ann(), &base).await.unwrap(), Decision::NoOpinion);
    server.answers(Answer::Status(json!({ "allowed": true })));
    assert_eq!(reviews.decide(&ann(), &base).await.unwrap(), Decision::NoOpinion, "a no has its own time");
}

#[tokio::test]
async fn a_webhook_is_posted_to_where_it_is_and_says_what_went_wrong() {
    let server = ApiServer::start(Answer::Text("thanks")).await;
    let webhook = server.webhook("/hooks/audit?from=here", PATIENT);
    let hasty = server.webhook("/hooks/audit?from=here", Duration::from_millis(500));
    webhook.post(b"{\"kind\":\"EventList\"}".to_vec()).await.unwrap();
    assert_eq!(server.asked(), [("/hooks/audit".to_owned(), serde_json::json!({"kind": "EventList"}))]);
    for (answer, by, said) in [
        (Answer::Code(500), &webhook, "the webhook answered 500"),
        (Answer::Code(302), &webhook, "the webhook answered 302"),
        (Answer::Silence, &hasty, "no answer in time"),
        (Answer::Cut, &webhook, "the webhook cannot be reached: "),
    ] {
        server.answers(answer.clone());
        let error = by.post(b"{}".to_vec()).await.unwrap_err().to_string();
        assert!(error.starts_with(said), "{answer:?}: {error}");
    }
    server.answers(Answer::Endless);
    webhook.post(b"{}".to_vec()).await.unwrap();
    server.stop().await;
    let error = webhook.post(b"{}".to_vec()).await.unwrap_err().to_string();
    assert!(error.starts_with("the webhook cannot be reached: "), "{error}");
}
