//! The API over a real network, in process: shapes, errors that name the field, waiting.

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::network::NetworkOptions;

const A: &str = "6281100000001";
const B: &str = "6281100000002";

struct Api(Router, Network);

impl Api {
    async fn start() -> Self {
        let network = Network::start(NetworkOptions::default()).await.unwrap();
        Self(router(network.clone()), network)
    }

    async fn with_accounts() -> Self {
        let api = Self::start().await;
        for phone in [A, B] {
            let (status, body) = api.post("/accounts", json!({"phone": phone})).await;
            assert_eq!(status, StatusCode::CREATED, "{body}");
        }
        api
    }

    async fn raw(&self, method: Method, path: &str, body: Option<String>) -> (StatusCode, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/control/v1{path}"));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request
            .body(body.map_or_else(Body::empty, Body::from))
            .unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 24).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let (status, text) = self
            .raw(method, path, body.map(|body| body.to_string()))
            .await;
        let body: Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}"));
        assert_eq!(body["success"], status.is_success(), "{body}");
        (status, body)
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["data"].clone()
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    #[track_caller]
    fn refused(answer: &(StatusCode, Value), status: u16, code: &str, names: &str) {
        let (has, body) = answer;
        assert_eq!(has.as_u16(), status, "{body}");
        assert_eq!(body["code"], code, "{body}");
        assert!(body["error"].as_str().unwrap().contains(names), "{body}");
    }
}

#[tokio::test]
async fn the_document_describes_every_operation() {
    let document = serde_json::to_value(openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let mut operations = 0;
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            assert!(
                operation["summary"].is_string(),
                "{method} {path} says nothing"
            );
            assert!(operation["tags"].is_array(), "{method} {path} has no tag");
        }
    }
    assert_eq!(operations, 28);
}

#[tokio::test]
async fn accounts_are_created_listed_and_changed() {
    let api = Api::with_accounts().await;
    let list = api.get("/accounts").await;
    assert_eq!(list.as_array().unwrap().len(), 2);
    let account = api.get(&format!("/accounts/+{A}")).await;
    assert_eq!(account["jid"], format!("{A}@s.whatsapp.net"));
    assert_eq!(account["devices"][0]["device"], 0);
    let change = json!({"restricted": true, "phone_online": false, "status": {"kind": "locked"},
        "behaviour": {"answer": {"kind": "echo"}}});
    let (_, body) = api
        .call(Method::PATCH, &format!("/accounts/{A}"), Some(change))
        .await;
    let account = &body["data"];
    assert_eq!(account["restricted"], true, "{body}");
    assert_eq!(account["phone_online"], false, "{body}");
    assert_eq!(account["status"]["kind"], "locked", "{body}");
    assert_eq!(account["behaviour"]["answer"]["kind"], "echo", "{body}");
}

#[tokio::test]
async fn bad_bodies_are_refused_by_the_name_of_the_field() {
    let api = Api::with_accounts().await;
    let cases = [
        ("/accounts", json!({"phone": A}), 409, "taken", A),
        (
            "/accounts",
            json!({"phone": "abc"}),
            422,
            "invalid",
            "phone",
        ),
        ("/accounts", json!({"fone": A}), 422, "invalid", "fone"),
        ("/accounts", json!({"phone": 5}), 422, "invalid", "phone"),
    ];
    for (path, body, status, code, names) in cases {
        Api::refused(&api.post(path, body).await, status, code, names);
    }
    let (status, body) = api.raw(Method::POST, "/accounts", Some("{".into())).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test]
async fn bad_orders_to_phones_are_refused_by_the_name_of_the_field() {
    let api = Api::with_accounts().await;
    let own = |verb: &str| format!("/accounts/{A}/{verb}");
    let cases = [
        (
            own("messages"),
            json!({"to": "x y", "text": "hi"}),
            422,
            "invalid",
            "to:",
        ),
        (
            own("messages"),
            json!({"to": B, "text": ""}),
            422,
            "invalid",
            "text:",
        ),
        (
            own("messages"),
            json!({"to": "62899999", "text": "hi"}),
            404,
            "not_on_whatsapp",
            "62899999",
        ),
        (own("scan"), json!({"qr": "hello"}), 422, "invalid", "qr"),
        (own("code"), json!({"code": "123"}), 422, "invalid", "code:"),
        (
            own("code"),
            json!({"code": "ABCD-1234", "wait_ms": 1}),
            409,
            "nobody_waits",
            "code",
        ),
        (
            own("typing"),
            json!({"to": B, "state": "dancing"}),
            422,
            "invalid",
            "state",
        ),
        (
            own("lose-keys"),
            json!({"peer": "nobody"}),
            422,
            "invalid",
            "peer",
        ),
        (own("lose-keys"), json!({}), 422, "invalid", "peer"),
        (
            "/accounts/999999/read".into(),
            json!({"chat": A}),
            404,
            "account_not_found",
            "999999",
        ),
        (
            "/handshake".into(),
            json!({"chain": "rusty"}),
            422,
            "invalid",
            "chain",
        ),
    ];
    for (path, body, status, code, names) in cases {
        Api::refused(&api.post(&path, body).await, status, code, names);
    }
}

#[tokio::test]
async fn bad_addresses_are_refused_too() {
    let api = Api::with_accounts().await;
    let own = |verb: &str| format!("/accounts/{A}/{verb}");
    let cases = [
        (
            Method::DELETE,
            own("devices/4"),
            404,
            "device_not_found",
            "4",
        ),
        (Method::DELETE, own("devices/x"), 422, "invalid", "x"),
        (
            Method::GET,
            own("screen?wait_ms=99999999"),
            422,
            "invalid",
            "wait_ms",
        ),
        (Method::GET, own("screen?wat=1"), 422, "invalid", "wat"),
        (
            Method::GET,
            own("screen?chat=nobody"),
            422,
            "invalid",
            "chat",
        ),
        (
            Method::GET,
            "/transcript?limit=0".into(),
            422,
            "invalid",
            "limit",
        ),
        (
            Method::GET,
            "/nothing".into(),
            404,
            "no_such_path",
            "/nothing",
        ),
        (Method::PUT, "/accounts".into(), 405, "wrong_method", "PUT"),
    ];
    for (method, path, status, code, names) in cases {
        Api::refused(&api.call(method, &path, None).await, status, code, names);
    }
}

#[tokio::test]
async fn a_screen_can_be_waited_for_and_read() {
    let api = Api::with_accounts().await;
    let screen = format!("/accounts/{B}/screen?chat={A}&contains=hello&wait_ms=30000");
    let send = async {
        let path = format!("/accounts/{A}/messages");
        let (status, body) = api
            .post(&path, json!({"to": B, "text": "well hello there"}))
            .await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["data"]["id"].clone()
    };
    let (shown, id) = tokio::join!(api.get(&screen), send);
    assert_eq!(shown[0]["id"], id, "{shown}");
    assert_eq!(shown[0]["text"], "well hello there");
    let after = shown[0]["position"].as_u64().unwrap();
    let none = api
        .get(&format!("/accounts/{B}/screen?after={after}"))
        .await;
    assert_eq!(none, json!([]));
    let (_, read) = api
        .post(&format!("/accounts/{B}/read"), json!({"chat": A}))
        .await;
    assert_eq!(read["data"]["read"], 1, "{read}");
    // The transcript has it, and nothing was broken.
    let (_, lines) = api.raw(Method::GET, "/transcript", None).await;
    let entries: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        entries
            .iter()
            .any(|entry| entry["kind"] == "shown" && entry["id"] == id),
        "{lines}"
    );
    let last = entries.last().unwrap()["seq"].as_u64().unwrap();
    let (_, rest) = api
        .raw(
            Method::GET,
            &format!("/transcript?after={}", last - 1),
            None,
        )
        .await;
    assert_eq!(rest.lines().count(), 1, "{rest}");
    let report = api.get("/check").await;
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["shown"].as_u64(), Some(2), "{report}");
    let (_, text) = api.raw(Method::GET, "/check?format=text", None).await;
    assert!(text.starts_with("every promise kept"), "{text}");
    assert_eq!(api.get("/counters").await["messages_accepted"], 1);
    let (_, reset) = api.post("/reset", json!({})).await;
    assert_eq!(reset["data"]["stanzas_in"], 0, "{reset}");
    assert_eq!(api.get("/counters").await["messages_accepted"], 0);
}

#[tokio::test]
async fn faults_are_added_listed_and_removed() {
    let api = Api::with_accounts().await;
    let bad = json!({"match": {"direction": "from_device"}, "action": {"type": "no_ack"}});
    Api::refused(
        &api.post("/faults", bad).await,
        422,
        "invalid",
        "match.stanza.tag",
    );
    let typo = json!({"match": {"direction": "sideways"}, "action": {"type": "drop"}});
    Api::refused(
        &api.post("/faults", typo).await,
        422,
        "invalid",
        "match.direction",
    );
    let rule = json!({
        "name": "swallow",
        "match": {"direction": "from_device", "account": A, "device": 0, "stanza": {"tag": "message"}},
        "when": {"once": true},
        "action": {"type": "drop"},
    });
    let (status, body) = api.post("/faults", rule).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let id = body["data"]["id"].as_u64().unwrap();
    for text in ["lost", "kept"] {
        api.post(
            &format!("/accounts/{A}/messages"),
            json!({"to": B, "text": text}),
        )
        .await;
    }
    let shown = api
        .get(&format!("/accounts/{B}/screen?wait_ms=30000"))
        .await;
    assert_eq!(shown[0]["text"], "kept", "{shown}");
    let list = api.get("/faults").await;
    assert_eq!(list[0]["hits"], 1, "{list}");
    assert_eq!(list[0]["last"][0]["tag"], "message", "{list}");
    let (status, body) = api
        .call(Method::DELETE, &format!("/faults/{id}"), None)
        .await;
    assert_eq!(
        (status, &body["data"]["hits"]),
        (StatusCode::OK, &json!(1)),
        "{body}"
    );
    let again = api
        .call(Method::DELETE, &format!("/faults/{id}"), None)
        .await;
    Api::refused(&again, 404, "rule_not_found", &id.to_string());
}

#[tokio::test]
async fn tells_where_it_is_and_moves_its_clock() {
    let api = Api::start().await;
    let network = api.get("/network").await;
    assert_eq!(network["ws_url"], api.1.ws_url());
    assert_eq!(network["noise_root_public"].as_str().unwrap().len(), 64);
    assert!(
        network["tls_ca_pem"]
            .as_str()
            .unwrap()
            .contains("BEGIN CERTIFICATE")
    );
    assert_eq!(api.get("/health").await["status"], "ok");
    let before = api.get("/clock").await["now_ms"].as_i64().unwrap();
    let (_, moved) = api.post("/clock", json!({"advance_ms": 3_600_000})).await;
    assert!(
        moved["data"]["now_ms"].as_i64().unwrap() >= before + 3_600_000,
        "{moved}"
    );
    Api::refused(
        &api.post("/clock", json!({"advance_ms": i64::MIN})).await,
        422,
        "invalid",
        "advance_ms",
    );
}
