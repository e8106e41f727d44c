//! What rules match, when they fire, and which ones are refused.

use super::*;

fn who() -> Party {
    Party::device(AccountId(1), "62811", 3, Some(7))
}

fn message(id: &str) -> Node {
    Node::new("message")
        .attr("id", id.to_owned())
        .attr("type", "text")
        .attr("to", "x")
}

fn hits(plan: &mut FaultPlan, count: u32) -> Vec<u32> {
    (1..=count)
        .filter(|n| {
            plan.inbound(0, &who(), &message(&format!("M{n}")))
                .is_some()
        })
        .collect()
}

fn plan(rule: FaultRule) -> FaultPlan {
    let mut plan = FaultPlan::new(42);
    plan.add(rule).unwrap();
    plan
}

fn drop_messages() -> FaultRule {
    FaultRule::new(Match::from_device("message"), Action::Drop)
}

#[test]
fn the_nth_match_only() {
    let mut plan = plan(drop_messages().when(When {
        nth: Some(3),
        ..When::default()
    }));
    assert_eq!(hits(&mut plan, 6), [3]);
    let report = &plan.list()[0];
    assert_eq!(
        (report.matched, report.hits, report.exhausted),
        (6, 1, true)
    );
    assert_eq!(report.last[0].id.as_deref(), Some("M3"));
}

#[test]
fn sticky_goes_on_from_the_nth() {
    let when = When {
        nth: Some(3),
        sticky: true,
        times: Some(2),
        ..When::default()
    };
    assert_eq!(hits(&mut plan(drop_messages().when(when)), 6), [3, 4]);
}

#[test]
fn once_and_times_bound_the_hits() {
    assert_eq!(hits(&mut plan(drop_messages().once()), 5), [1]);
    let when = When {
        times: Some(2),
        ..When::default()
    };
    assert_eq!(hits(&mut plan(drop_messages().when(when)), 5), [1, 2]);
}

#[test]
fn probability_is_seeded_and_about_right() {
    let when = When {
        probability: Some(0.25),
        ..When::default()
    };
    let first = hits(&mut plan(drop_messages().when(when.clone())), 4_000);
    let second = hits(&mut plan(drop_messages().when(when)), 4_000);
    assert_eq!(first, second);
    assert!((850..1_150).contains(&first.len()), "{}", first.len());
}

#[test]
fn the_first_rule_that_fires_wins_and_the_others_count_on() {
    let mut plan = plan(drop_messages().once());
    let second = FaultRule::new(Match::from_device("message"), Action::NoAck).when(When {
        nth: Some(2),
        ..When::default()
    });
    plan.add(second).unwrap();
    assert_eq!(plan.inbound(0, &who(), &message("A")), Some(Action::Drop));
    assert_eq!(plan.inbound(0, &who(), &message("B")), Some(Action::NoAck));
    assert_eq!(plan.inbound(0, &who(), &message("C")), None);
}

#[test]
fn matches_by_account_device_and_stanza() {
    let mut plan = FaultPlan::new(1);
    let stanza = StanzaMatch {
        child: Some("key".into()),
        ..StanzaMatch::iq("encrypt", None)
    };
    let rule = FaultRule::new(
        Match::from_device("iq")
            .account("+62 811")
            .device(3)
            .stanza(stanza),
        Action::IqError {
            code: 503,
            text: None,
            backoff: Some(5),
        },
    );
    plan.add(rule).unwrap();
    let fetch = Node::new("iq")
        .attr("xmlns", "encrypt")
        .attr("id", "1")
        .child(Node::new("key"));
    let count = Node::new("iq")
        .attr("xmlns", "encrypt")
        .child(Node::new("count"));
    assert!(plan.inbound(0, &who(), &count).is_none());
    let other = Party::device(AccountId(1), "62811", 4, None);
    assert!(plan.inbound(0, &other, &fetch).is_none());
    let stranger = Party::device(AccountId(2), "62812", 3, None);
    assert!(plan.inbound(0, &stranger, &fetch).is_none());
    assert!(plan.outbound(0, &who(), &fetch).is_none());
    let action = plan.inbound(0, &who(), &fetch).unwrap();
    let refusal = action.refusal(0, &fetch).unwrap();
    assert_eq!(
        refusal.to_string(),
        r#"<iq id="1" type="error"><error code="503" backoff="5"/></iq>"#
    );
}

#[test]
fn a_rule_without_device_spares_phones_but_not_unlinked_connections() {
    let mut plan = plan(drop_messages());
    assert!(
        plan.inbound(0, &Party::phone(AccountId(1), "62811"), &message("A"))
            .is_none()
    );
    assert!(
        plan.inbound(0, &Party::unlinked(9), &message("A"))
            .is_some()
    );
    plan.clear();
    let rule = FaultRule::new(Match::from_device("message").device(0), Action::Drop);
    plan.add(rule).unwrap();
    assert!(
        plan.inbound(0, &Party::phone(AccountId(1), "62811"), &message("A"))
            .is_some()
    );
    assert!(
        plan.inbound(0, &Party::unlinked(9), &message("A"))
            .is_none()
    );
}

#[test]
fn logins_fail_as_written() {
    let mut plan = FaultPlan::new(1);
    let json = r#"{"match":{"direction":"connect","account":"+62811"},"when":{"once":true},
        "action":{"type":"failure","reason":402,"code":101,"expire":600}}"#;
    plan.add(serde_json::from_str(json).unwrap()).unwrap();
    let action = plan.on_connect(5, &who()).unwrap();
    assert_eq!(
        action.farewell(None).unwrap().to_string(),
        r#"<failure reason="402" code="101" expire="600"/>"#
    );
    assert_eq!(action.closes(), Some(false));
    assert_eq!(plan.list()[0].last[0].tag, "connect");
    assert!(plan.on_connect(5, &who()).is_none());
}

#[test]
fn stream_errors_are_written_as_whatsapp_writes_them() {
    let text = |code, detail| {
        let action = Action::StreamError {
            code,
            detail,
            close: true,
        };
        action.farewell(Some("M1")).unwrap().to_string()
    };
    assert_eq!(text(Some(515), None), r#"<stream:error code="515"/>"#);
    assert_eq!(
        text(None, Some(StreamErrorDetail::ConflictReplaced)),
        r#"<stream:error><conflict type="replaced"/></stream:error>"#
    );
    assert_eq!(
        text(Some(401), Some(StreamErrorDetail::ConflictDeviceRemoved)),
        r#"<stream:error code="401"><conflict type="device_removed"/></stream:error>"#
    );
    assert_eq!(
        text(None, Some(StreamErrorDetail::Ack)),
        r#"<stream:error><ack class="message" id="M1"/></stream:error>"#
    );
    assert_eq!(
        Action::StreamEnd.farewell(None).unwrap().to_string(),
        "<xmlstreamend/>"
    );
}

#[test]
fn replace_keeps_what_it_does_not_name() {
    let json = r#"{"type":"replace","node":{"tag":"ack","attrs":{"phash":"2:x"}}}"#;
    let action: Action = serde_json::from_str(json).unwrap();
    let node = Node::new("ack").attr("id", "1").child(Node::new("a"));
    assert_eq!(
        action.changed(node).to_string(),
        r#"<ack id="1" phash="2:x"><a/></ack>"#
    );
}

#[test]
fn corrupt_changes_one_encrypted_part() {
    let enc = |byte: u8| Node::new("enc").bytes(vec![byte; 9]);
    let node = Node::new("message")
        .child(Node::new("participants").child(Node::new("to").child(enc(1))))
        .child(enc(2));
    let changed = Action::Corrupt.changed(node.clone());
    assert_ne!(changed, node);
    assert_eq!(changed.nodes()[1], node.nodes()[1]);
}

#[test]
fn wrong_rules_are_refused_by_the_name_of_their_field() {
    let cases = [
        (
            r#"{"match":{"direction":"connect"},"action":{"type":"drop"}}"#,
            "match.direction",
        ),
        (
            r#"{"match":{"direction":"from_device"},"action":{"type":"nack","code":463}}"#,
            "match.stanza.tag",
        ),
        (
            r#"{"match":{"direction":"from_device","stanza":{"tag":"message"}},"action":{"type":"nack","code":200}}"#,
            "action.code",
        ),
        (
            r#"{"match":{"direction":"to_device"},"action":{"type":"delay","ms":0}}"#,
            "action.ms",
        ),
        (
            r#"{"match":{"direction":"to_device"},"when":{"probability":1.5},"action":{"type":"drop"}}"#,
            "when.probability",
        ),
        (
            r#"{"match":{"direction":"to_device"},"when":{"nth":0},"action":{"type":"drop"}}"#,
            "when.nth",
        ),
        (
            r#"{"match":{"direction":"to_device"},"when":{"sticky":true},"action":{"type":"drop"}}"#,
            "when.sticky",
        ),
        (
            r#"{"match":{"direction":"to_device","account":"abc"},"action":{"type":"drop"}}"#,
            "match.account",
        ),
        (
            r#"{"match":{"direction":"connect","stanza":{"tag":"iq"}},"action":{"type":"silence"}}"#,
            "match.stanza",
        ),
        (
            r#"{"match":{"direction":"to_device"},"action":{"type":"stream_error"}}"#,
            "action.code",
        ),
        (
            r#"{"match":{"direction":"connect"},"action":{"type":"failure","reason":401,"expire":5}}"#,
            "action.expire",
        ),
        (
            r#"{"match":{"direction":"to_device"},"action":{"type":"replace","node":{"tag":"a","base64":"!"}}}"#,
            "action.node",
        ),
    ];
    for (json, field) in cases {
        let rule: FaultRule = serde_json::from_str(json).unwrap();
        let error = FaultPlan::new(1).add(rule).unwrap_err();
        assert_eq!(error.field, field, "{json}: {error}");
    }
    let unknown = r#"{"match":{"direction":"connect","acount":"1"},"action":{"type":"silence"}}"#;
    let error = serde_json::from_str::<FaultRule>(unknown).unwrap_err();
    assert!(error.to_string().contains("acount"), "{error}");
}

#[test]
fn every_action_survives_json() {
    for json in [
        r#"{"type":"drop"}"#,
        r#"{"type":"reorder","ms":5}"#,
        r#"{"type":"stream_error","code":503,"close":false}"#,
        r#"{"type":"stream_error","detail":"conflict_replaced","close":true}"#,
        r#"{"type":"close","abrupt":true}"#,
        r#"{"type":"late_ack","ms":50}"#,
    ] {
        let action: Action = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&action).unwrap(), json);
        assert!(json.contains(&format!(r#""{}""#, action.name())));
    }
}
