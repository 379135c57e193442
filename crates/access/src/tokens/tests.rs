//! The table's grammar, its lookups, and that no token ever shows.

use proptest::prelude::*;

use super::*;

fn sha256(token: &str) -> String {
    Fingerprint::from_bytes(Sha256::digest(token).into()).to_string()
}

#[test]
fn reads_what_kube_apiserver_reads() {
    let hashed = format!("sha256:{},cid,3", sha256("third"));
    let csv = format!("# users\r\n\r\nfirst,ann,1,\"devs,ops\"\r\n\n  second , bob ,,\n{hashed}");
    let tokens = StaticTokens::parse(&csv).unwrap();
    assert_eq!(tokens.len(), 3);
    let ann = tokens.authenticate("first").unwrap();
    assert_eq!((ann.user(), ann.uid()), ("ann", Some("1")));
    assert_eq!(ann.groups(), ["devs", "ops", "system:authenticated"]);
    let bob = tokens.authenticate("second").unwrap();
    assert_eq!((bob.user(), bob.uid(), bob.groups().len()), ("bob", None, 1));
    assert_eq!(tokens.authenticate("third").unwrap().user(), "cid");
}

#[test]
fn nobody_else_comes_in() {
    let tokens = StaticTokens::parse(&format!("first,ann,1\nsha256:{},bob,2\n", sha256("second"))).unwrap();
    let hash = sha256("second");
    let long = "x".repeat(MAX_TOKEN_LENGTH + 1);
    for wrong in ["", "firs", "first ", "First", "ann", &hash, &format!("sha256:{hash}"), &long] {
        assert_eq!(tokens.authenticate(wrong), None, "{wrong}");
    }
    let empty = StaticTokens::parse("# nobody\n").unwrap();
    assert!(empty.is_empty());
    assert_eq!(empty.authenticate("first"), None);
    assert_eq!(StaticTokens::default().authenticate(""), None);
}

#[test]
fn reports_everything_at_once_and_never_a_token() {
    let csv = "\
# the first good line is line 2
secret0,ann,1
secret1,bob
secret2,,3
secret3,cid,4,devs,ops
,dan,5
sha256:secret4,eve,6
secret0,fay,7
sec ret5,gil,8
secret6,\"a,9
secret7,a\tb,10
";
    let problems = StaticTokens::parse(csv).unwrap_err();
    let text = problems.to_string();
    let places: Vec<&str> = problems.iter().map(|problem| problem.at.as_str()).collect();
    assert_eq!(
        places,
        [
            "line 3",
            "line 4, user",
            "line 5, groups",
            "line 6, token",
            "line 7, token",
            "line 8, token",
            "line 9, token",
            "line 10",
            "line 11, user"
        ],
        "{text}"
    );
    assert!(text.contains("the same token stands in line 2"), "{text}");
    assert!(!text.contains("secret") && !text.contains("ret5"), "{text}");
    assert_eq!(text.lines().count(), 9);
}

#[test]
fn is_bounded() {
    let csv: String = (0..=MAX_TOKENS).map(|n| format!("token-{n},user-{n},{n}\n")).collect();
    let problems = StaticTokens::parse(&csv).unwrap_err().to_string();
    assert!(problems.contains("4097 tokens"), "{problems}");
    let (all_but_last, _) = csv.trim_end().rsplit_once('\n').unwrap();
    let tokens = StaticTokens::parse(all_but_last).unwrap();
    assert_eq!(tokens.authenticate("token-4095").unwrap().user(), "user-4095");
    assert_eq!(tokens.authenticate("token-0").unwrap().user(), "user-0");
}

#[test]
fn debug_shows_no_token_and_no_hash() {
    let tokens = StaticTokens::parse("secret,ann,1").unwrap();
    assert_eq!(format!("{tokens:?}"), "StaticTokens { len: 1, .. }");
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused_without_its_tokens(csv in "([a-z]{1,5}|[,\"\r\n# ]|sha256:|é|\0){0,40}") {
        if let Err(problems) = StaticTokens::parse(&format!("verysecret{csv}")) {
            prop_assert!(!problems.to_string().contains("verysecret"));
        }
    }

    #[test]
    fn each_token_is_its_users(count in 1_usize..40, probe in 0_usize..60) {
        let csv: String = (0..count).map(|n| format!("token-{n},user-{n},\n")).collect();
        let tokens = StaticTokens::parse(&csv).unwrap();
        let found = tokens.authenticate(&format!("token-{probe}"));
        let expected = (probe < count).then(|| format!("user-{probe}"));
        prop_assert_eq!(found.map(|identity| identity.user().to_owned()), expected);
    }
}
