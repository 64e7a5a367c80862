//! `POST /v1/notices`.

use super::*;
use crate::admin::views::NoticeError;

#[tokio::test]
async fn a_notice_says_whose_nodes_in_its_body_or_in_its_address() {
    let (desk, server) = open(FakeDesk::default());
    let kind = "content-type: application/json";
    let bare = NOTICE.replace("\"backend\": \"eks\", ", "");
    for (path, body) in [
        ("/v1/notices", NOTICE),
        ("/v1/notices?backend=eks", NOTICE),
        ("/v1/notices?backend=eks", &bare),
        ("/v1/notices?backend=", NOTICE),
    ] {
        let answer = ask(server.address, &format!("POST {path}"), &[kind], body).await;
        assert_eq!(answer.status, 202, "{path}: {}", answer.body);
        let receipt = answer.json();
        assert_eq!((&receipt["outcome"], &receipt["notice"]["backend"]), (&json!("counted"), &json!("eks")));
        assert_eq!(receipt["interruptions"], json!({"per_node_hour": 0.487, "basis": "learned"}));
    }
    assert_eq!(desk.notices.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn the_line_break_that_the_termination_handler_does_not_escape_is_a_blank() {
    let (desk, server) = open(FakeDesk::default());
    let body = "{\"text\":\"[NTH][Instance Interruption] EventID: e1 - Kind: SPOT_ITN - Instance: i-1 - Node: n - \
                Description: Spot ITN received. \n - Start Time: 2026-03-02 10:02:00 +0000 UTC\"}";
    let answer = ask(server.address, "POST /v1/notices?backend=eks", &[], body).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let (_, notice) = desk.notices.lock().unwrap()[0].clone();
    assert_eq!(
        (notice.at, notice.instance.as_deref()),
        ("2026-03-02T10:02:00Z".parse().unwrap(), Some("i-1"))
    );
    // Everywhere else a broken string is a broken string.
    let broken = DRAIN.replace("incident", "inci\ndent");
    assert_eq!(ask(server.address, "POST /v1/overrides", &[], &broken).await.code(), "malformed_json");
}

#[tokio::test]
async fn a_notice_that_is_not_taken_is_refused() {
    type Refusal = fn(String) -> NoticeError;
    let refusals: [(Refusal, u16, &str); 2] =
        [(NoticeError::Invalid, 422, "invalid_notice"), (NoticeError::TooMany, 429, "too_many_notices")];
    for (refusal, status, code) in refusals {
        let (_, server) = open(FakeDesk { notice_refusal: Some(refusal), ..FakeDesk::default() });
        let answer = ask(server.address, "POST /v1/notices", &[], NOTICE).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(answer.json()["detail"], "refused for the test");
    }
}
