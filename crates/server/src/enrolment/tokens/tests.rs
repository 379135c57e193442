//! What a token lets in, and what it does not.

use std::sync::LazyLock;

use moorline_ca::Authority;
use moorline_model::ClusterUid;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_795_233_180)
}

fn record() -> ClusterRecord {
    ClusterRecord::new("east".parse().unwrap(), ClusterUid::from_bytes([7; 16]), now())
}

/// Requests over the same keys, whenever they are asked for.
fn request(which: usize) -> CertificateRequest {
    static KEYS: LazyLock<[moorline_csr::Request; 2]> =
        LazyLock::new(|| [(); 2].map(|()| moorline_csr::Request::generate().unwrap()));
    CertificateRequest::from_pem(KEYS[which].request_pem.as_bytes()).unwrap()
}

fn minted() -> (JoinToken, Presented) {
    let pins = vec![Fingerprint::from_bytes([1; 32])];
    let (token, invitation) = mint(&record().name, ("hub:9449", pins), "ann", now(), HOUR);
    let presented = Presented { id: invitation.id, hash: hash(&invitation.secret) };
    (token, presented)
}

fn with(token: JoinToken) -> ClusterRecord {
    ClusterRecord { join_tokens: vec![token], ..record() }
}

fn refusal(claimed: Result<Claim, Refused>) -> JoinRefusal {
    claimed.unwrap_err().reason
}

/// Uses the token, as a join does.
fn join(record: &mut ClusterRecord, presented: &Presented, which: usize) -> String {
    let authority = Authority::generate("t", now(), 100 * HOUR).unwrap();
    let request = request(which);
    let made = authority.issue_agent_for(&record.name, &record.uid, &request, now(), HOUR).unwrap();
    let new = ActiveFingerprint {
        fingerprint: made.fingerprint,
        not_after: made.not_after,
        dialect: Dialect::Moorline,
        renews: None,
    };
    enrol(record, &[], new).unwrap();
    presented.consume(record, request.key_fingerprint(), made.certificate_pem.clone(), now());
    made.certificate_pem
}

#[test]
fn a_token_is_kept_without_its_secret_and_no_two_are_alike() {
    let (one, shown) = minted();
    let (two, other) = minted();
    assert_ne!((&one.id, one.hash), (&two.id, two.hash));
    assert_eq!((one.hash, &one.id), (shown.hash, &shown.id));
    assert_eq!((one.created_by.as_str(), one.expires), ("ann", now().saturating_add(HOUR)));
    assert!(shown.is_of(&with(one)) && !other.is_of(&with(minted().0)));
}

#[test]
fn only_the_very_token_counts() {
    let (token, presented) = minted();
    let record = with(token);
    assert_eq!(presented.claim(&record, &request(0), now()), Ok(Claim::Fresh));
    let wrong_secret = Presented { hash: Fingerprint::from_bytes([9; 32]), ..presented.clone() };
    let wrong_id = Presented { id: "0".to_owned(), ..presented };
    let (one, two) = (wrong_secret.claim(&record, &request(0), now()), wrong_id.claim(&record, &request(0), now()));
    assert_eq!(refusal(one.clone()), JoinRefusal::UnknownToken);
    assert_eq!(one, two, "which part was wrong is not told");
}

#[test]
fn it_is_used_once_and_by_one_key() {
    let (token, presented) = minted();
    let mut record = with(token);
    let made = join(&mut record, &presented, 0);
    assert_eq!(presented.claim(&record, &request(0), now()), Ok(Claim::Again(made)));
    let other = presented.claim(&record, &request(1), now()).unwrap_err();
    assert_eq!(other.reason, JoinRefusal::TokenUsed);
    assert!(other.message.contains("2026-11-21T03:53:00Z") && other.message.contains("token create east"), "{other:?}");
    // Once its certificate stands for the cluster no more, it is not given again.
    record.retire(|_all| false);
    assert_eq!(refusal(presented.claim(&record, &request(0), now())), JoinRefusal::TokenUsed);
}

#[test]
fn it_ends_with_its_time_and_with_a_revocation() {
    let (token, presented) = minted();
    let mut record = with(token);
    let end = now().saturating_add(HOUR);
    assert_eq!(presented.claim(&record, &request(0), end), Ok(Claim::Fresh), "its last second is within");
    let late = presented.claim(&record, &request(0), end.saturating_add(2 * HOUR)).unwrap_err();
    assert_eq!(late.reason, JoinRefusal::TokenExpired);
    assert!(late.message.contains("expired 2 hours ago"), "{late:?}");
    record.revoked = Some(now());
    assert_eq!(refusal(presented.claim(&record, &request(0), now())), JoinRefusal::ClusterRevoked);
    record.revoked = Some(now().saturating_sub(HOUR));
    assert_eq!(presented.claim(&record, &request(0), now()), Ok(Claim::Fresh), "made to come back by");
    join(&mut record, &presented, 0);
    assert_eq!(record.revoked, None);
}

#[test]
fn what_is_over_makes_room_and_what_is_not_stays() {
    let mut record = record();
    for _ in 0..MAX_JOIN_TOKENS {
        add(&mut record, minted().0, now()).unwrap();
    }
    assert_eq!(add(&mut record, minted().0, now()), Err(NoRoom));
    record.join_tokens[3].used = Some(now());
    record.join_tokens[5].expires = now().saturating_sub(HOUR);
    let (used, expired) = (record.join_tokens[3].id.clone(), record.join_tokens[5].id.clone());
    let has = |record: &ClusterRecord, id: &str| record.join_tokens.iter().any(|token| token.id == id);
    add(&mut record, minted().0, now()).unwrap();
    assert!(has(&record, &used) && !has(&record, &expired));
    add(&mut record, minted().0, now()).unwrap();
    assert!(!has(&record, &used) && record.join_tokens.len() == MAX_JOIN_TOKENS);
}

#[test]
fn joining_keeps_what_is_in_use_and_is_bounded() {
    let active = |number| ActiveFingerprint {
        fingerprint: Fingerprint::from_bytes([number; 32]),
        not_after: now(),
        dialect: Dialect::Moorline,
        renews: None,
    };
    let mut record = ClusterRecord { fingerprints: vec![active(1)], ..record() };
    enrol(&mut record, &[], active(2)).unwrap();
    enrol(&mut record, &[], active(3)).unwrap();
    assert_eq!(record.fingerprints, [active(1), active(3)], "the second was never seen");
    assert_eq!(record.retired, [active(2).fingerprint]);
    let renewed = ActiveFingerprint { renews: Some(active(1).fingerprint), ..active(4) };
    record.fingerprints.push(renewed);
    enrol(&mut record, &[], active(5)).unwrap();
    assert_eq!(record.fingerprints, [active(1), renewed, active(5)], "an agent has kept what it renewed");
    let all: Vec<_> = (0..20).map(|number| active(number).fingerprint).collect();
    let joined = (10..30).filter(|number| enrol(&mut record, &all, active(*number)).is_ok()).count();
    assert!(record.fingerprints.len() <= MAX_CERTIFICATES && joined > 0, "{joined}");
}
