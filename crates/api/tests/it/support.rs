//! A gateway in process, a client for it, and a hand that does what a worker would do.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use wagate_api::{ApiOptions, ProcessFigures, ReadyCheck};
use wagate_app::{App, AppOptions, Operator};
use wagate_domain::message::{Failure, MessageInput};
use wagate_domain::session::LinkReason;
use wagate_domain::{
    Clock, Jid, LinkChallenge, LinkState, ManualClock, Timestamp, WaMessageId, WorkerId,
};
use wagate_store::bus::{Bus, BusMessage, Heard};
use wagate_store::messages::{NewInbound, Update};
use wagate_store::sessions::{Identity, Observation, Patch};
use wagate_store::{Db, DbOptions, Lease, MasterKey, Sealer, leases, messages, queue, sessions};

/// The worker token of every test gateway.
pub(crate) const WORKER_TOKEN: &str = "worker-secret-token";
/// The metrics token of every test gateway.
pub(crate) const METRICS_TOKEN: &str = "metrics-secret-token";
/// The number that the hand links.
pub(crate) const OWN: &str = "6281234567890";
/// Somebody to write to.
pub(crate) const PEER: &str = "6289876543210";

/// A gateway in process.
pub(crate) struct Gateway {
    router: Router,
    pub(crate) db: Db,
    pub(crate) bus: Bus,
    pub(crate) clock: ManualClock,
    pub(crate) app: App,
    /// The first key of the tenant `default`.
    pub(crate) key: String,
    pub(crate) tasks: TaskTracker,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ApiOptions)) -> Self {
        Self::with_database(change, |_| {}).await
    }

    pub(crate) async fn with_database(
        change: impl FnOnce(&mut ApiOptions),
        change_db: impl FnOnce(&mut DbOptions),
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let url = format!("sqlite:{}", dir.path().join("wagate.db").display());
        let mut db_options = DbOptions::new(url);
        change_db(&mut db_options);
        let sealer = Sealer::new(&MasterKey::generate().unwrap(), &[]);
        let db = Db::open(db_options, sealer).await.unwrap();
        db.migrate().await.unwrap();
        let clock = ManualClock::at("2026-11-21T08:00:00.000Z".parse().unwrap());
        let (bus, tasks, stop) = (Bus::local(), TaskTracker::new(), CancellationToken::new());
        let app_options = AppOptions {
            link_wait: Duration::from_millis(300),
            settle_wait: Duration::from_millis(300),
            ..AppOptions::default()
        };
        let app = App::start(
            db.clone(),
            bus.clone(),
            Arc::new(clock.clone()),
            app_options,
            &tasks,
            stop.clone(),
        );
        let (_, key) = app.first_start(Operator).await.unwrap().unwrap();
        let mut options = ApiOptions {
            worker_token: Some(WORKER_TOKEN.to_owned()),
            metrics_token: Some(METRICS_TOKEN.to_owned()),
            worker_id: "worker-001".to_owned(),
            environment: "test".to_owned(),
            figures: Arc::new(|| ProcessFigures {
                sessions: 25,
                sessions_max: 50,
                cpu_percent: 45.5,
                memory_percent: 67.8,
            }),
            ready: Arc::new(|| {
                vec![ReadyCheck {
                    name: "worker",
                    ready: true,
                }]
            }),
            metrics: Arc::new(|| "wagate_up 1\n".to_owned()),
            ..ApiOptions::default()
        };
        change(&mut options);
        let router = wagate_api::router(app.clone(), options);
        Self {
            router,
            db,
            bus,
            clock,
            app,
            key,
            tasks,
            stop,
            _dir: dir,
        }
    }

    /// A key of another tenant.
    pub(crate) async fn other_tenant(&self) -> String {
        self.app.create_tenant(Operator, "other").await.unwrap();
        let made = self
            .app
            .create_tenant_key(Operator, "other", "key".to_owned(), None)
            .await;
        made.unwrap().1
    }

    /// Begins a request with the first key.
    pub(crate) fn request(&self, method: &str, path: &str) -> Call<'_> {
        self.anonymous(method, path).header("x-api-key", &self.key)
    }

    /// Begins a request with the worker token.
    pub(crate) fn worker_request(&self, method: &str, path: &str) -> Call<'_> {
        self.anonymous(method, path)
            .header("authorization", &format!("Bearer {WORKER_TOKEN}"))
    }

    /// Begins a request without credentials.
    pub(crate) fn anonymous(&self, method: &str, path: &str) -> Call<'_> {
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .body(Body::empty())
            .unwrap();
        Call {
            gateway: self,
            request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request("GET", path).go().await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.request("POST", path).json(&body).go().await
    }

    /// Makes a session and links it, as its worker would.
    pub(crate) async fn connected(&self, name: &str) -> Hand<'_> {
        let made = self
            .post("/api/v1/sessions", serde_json::json!({ "id": name }))
            .await;
        made.is(StatusCode::CREATED);
        self.post(
            &format!("/api/v1/sessions/{name}/connect?wait=0"),
            serde_json::json!({}),
        )
        .await
        .is(StatusCode::ACCEPTED);
        let hand = self.hand(name).await;
        hand.link().await;
        hand
    }

    /// Takes the lease of a session that wants a worker.
    pub(crate) async fn hand(&self, name: &str) -> Hand<'_> {
        let now = self.clock.now();
        let worker = WorkerId::parse("hand").unwrap();
        let ttl = Duration::from_secs(3600);
        let name = name.to_owned();
        let lease = self
            .db
            .write(move |tx| {
                leases::acquire_some(tx, &worker, 100, ttl, now)?;
                for lease in leases::renew(tx, &worker, ttl, now)? {
                    if sessions::find(tx, &lease.session)?.name.as_str() == name {
                        return Ok(Some(lease));
                    }
                }
                Ok(None)
            })
            .await
            .unwrap();
        Hand {
            gateway: self,
            lease: lease.expect("the session wants a worker"),
        }
    }
}

/// A request that is being put together.
pub(crate) struct Call<'g> {
    gateway: &'g Gateway,
    request: Request<Body>,
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name: http::HeaderName = name.parse().unwrap();
        self.request
            .headers_mut()
            .append(name, value.parse().unwrap());
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.raw("application/json", body.to_string())
    }

    pub(crate) fn raw(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        *self.request.body_mut() = Body::from(body.into());
        if kind.is_empty() {
            self
        } else {
            self.header("content-type", kind)
        }
    }

    pub(crate) async fn go(self) -> Answer {
        let response = self
            .gateway
            .router
            .clone()
            .oneshot(self.request)
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 16 << 20).await.unwrap().to_vec();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes,
            json,
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
    pub(crate) json: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(&self, status: StatusCode) -> &Self {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.bytes)
        );
        self
    }

    /// A failure of this status and code, in the one shape that failures have.
    #[track_caller]
    pub(crate) fn fails(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.json);
        assert_eq!(self.json["success"], false, "{}", self.json);
        assert_eq!(self.json["code"], code, "{}", self.json);
        assert!(
            self.json["error"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{}",
            self.json
        );
        let id = self.header("x-request-id");
        assert_eq!(self.json["requestId"], id, "{}", self.json);
        self
    }

    /// The failure names this field.
    #[track_caller]
    pub(crate) fn names(&self, path: &str) -> &Self {
        let paths: Vec<_> = self.json["details"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|detail| detail["path"].as_str().unwrap_or_default())
            .collect();
        assert!(
            paths.contains(&path),
            "{paths:?} lacks {path}: {}",
            self.json
        );
        self
    }

    pub(crate) fn data(&self) -> &Value {
        &self.json["data"]
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name}"))
            .to_str()
            .unwrap()
    }
}

/// Holds a session's lease and does by hand what a worker does.
#[derive(Clone)]
pub(crate) struct Hand<'g> {
    gateway: &'g Gateway,
    pub(crate) lease: Lease,
}

impl Hand<'_> {
    /// Reports what it saw, with the newest generation done.
    pub(crate) async fn observe(&self, seen: Observation) {
        observe(
            &self.gateway.db,
            &self.gateway.bus,
            &self.lease,
            seen,
            self.gateway.clock.now(),
        )
        .await;
    }

    pub(crate) async fn link(&self) {
        let identity = Identity {
            jid: Jid::pn(OWN),
            lid: Some(Jid::lid("99123")),
            push_name: Some("Owner".to_owned()),
            platform: Some("android".to_owned()),
        };
        self.observe(Observation {
            link: Some(LinkState::Connected),
            challenge: Patch::Clear,
            identity: Patch::Set(identity),
            last_activity: Some(self.gateway.clock.now()),
            ..Observation::default()
        })
        .await;
    }

    pub(crate) async fn state(&self, link: LinkState) {
        let challenge = Patch::Clear;
        self.observe(Observation {
            link: Some(link),
            challenge,
            ..Observation::default()
        })
        .await;
    }

    pub(crate) async fn show_qr(&self, text: &str) {
        let challenge = qr(text, self.gateway.clock.now());
        self.challenge(challenge).await;
    }

    pub(crate) async fn challenge(&self, challenge: LinkChallenge) {
        self.observe(Observation {
            link: Some(LinkState::AwaitingScan),
            challenge: Patch::Set(challenge),
            ..Observation::default()
        })
        .await;
    }

    /// Sends everything that is due, and tells how many messages that were.
    pub(crate) async fn send_all(&self) -> usize {
        self.finish_all(None).await
    }

    /// Fails everything that is due.
    pub(crate) async fn fail_all(&self, code: &str) -> usize {
        let reason = "for a test".to_owned();
        self.finish_all(Some(Failure {
            code: code.to_owned(),
            reason,
        }))
        .await
    }

    async fn finish_all(&self, failure: Option<Failure>) -> usize {
        let (db, bus, now) = (
            &self.gateway.db,
            &self.gateway.bus,
            self.gateway.clock.now(),
        );
        finish_all(db, bus, &self.lease, failure, now).await
    }

    /// Applies a receipt to a message.
    pub(crate) async fn receipt(&self, wa_id: &str, input: MessageInput) {
        let (lease, now) = (self.lease.clone(), self.gateway.clock.now());
        let wa_id = WaMessageId::parse(wa_id).unwrap();
        let update = Update {
            wa_id,
            input,
            at: now,
            failure: None,
        };
        let applied = self
            .gateway
            .db
            .write(move |tx| messages::apply(tx, &lease, update, now))
            .await;
        applied.unwrap().expect("a message of the session");
    }

    /// A text comes in.
    pub(crate) async fn receive(&self, wa_id: &str, text: &str) {
        let (lease, now) = (self.lease.clone(), self.gateway.clock.now());
        let message = NewInbound {
            wa_id: WaMessageId::parse(wa_id).unwrap(),
            chat: Jid::pn(PEER),
            sender: Jid::pn(PEER),
            from_me: false,
            push_name: Some("Peer".to_owned()),
            content: wagate_domain::Content::text(text).unwrap(),
            at: now,
        };
        let stored = self
            .gateway
            .db
            .write(move |tx| messages::insert_inbound(tx, &lease, vec![message], now))
            .await;
        stored.unwrap();
        let tenant = self.lease.tenant.clone();
        self.gateway
            .bus
            .publish(BusMessage::EventsAppended { tenant });
    }

    /// From now on, does at once what is asked of the session.
    pub(crate) fn keep_working(&self) {
        let (db, bus) = (self.gateway.db.clone(), self.gateway.bus.clone());
        let (lease, clock) = (self.lease.clone(), self.gateway.clock.clone());
        let (mut heard, stop) = (bus.subscribe(), self.gateway.stop.clone());
        self.gateway.tasks.spawn(async move {
            loop {
                let message = tokio::select! {
                    () = stop.cancelled() => return,
                    heard = heard.recv() => heard,
                };
                match message {
                    Heard::Message(BusMessage::QueueReady { .. }) => {
                        finish_all(&db, &bus, &lease, None, clock.now()).await;
                    }
                    Heard::Message(BusMessage::DesiredChanged { .. }) => {
                        carry_out(&db, &bus, &lease, clock.now()).await;
                    }
                    Heard::Closed => return,
                    Heard::Message(_) | Heard::Missed => {}
                }
            }
        });
    }
}

/// A QR challenge that is good for 20 seconds.
pub(crate) fn qr(text: &str, now: Timestamp) -> LinkChallenge {
    LinkChallenge::Qr {
        qr: text.to_owned(),
        expires_at: now.plus(Duration::from_secs(20)),
    }
}

async fn observe(db: &Db, bus: &Bus, lease: &Lease, mut seen: Observation, now: Timestamp) {
    let session = lease.session.clone();
    let lease = lease.clone();
    db.write(move |tx| {
        if seen.generation_done.is_none() {
            seen.generation_done = Some(sessions::find(tx, &lease.session)?.generation);
        }
        sessions::observe(tx, &lease, &seen, now)
    })
    .await
    .unwrap();
    bus.publish(BusMessage::SessionChanged { session });
}

async fn carry_out(db: &Db, bus: &Bus, lease: &Lease, now: Timestamp) {
    use wagate_domain::Desired;
    let id = lease.session.clone();
    let session = db.read(move |tx| sessions::find(tx, &id)).await.unwrap();
    let link = match session.desired {
        Desired::Running if session.identity.is_some() => LinkState::Connected,
        Desired::Running => LinkState::Connecting,
        Desired::Stopped => LinkState::Stopped,
        Desired::LoggedOut => LinkState::LoggedOut {
            reason: LinkReason::new("requested", "logged out on request"),
        },
        Desired::Deleted => {
            let gone = lease.clone();
            db.write(move |tx| sessions::delete_rows(tx, &gone, 1000))
                .await
                .unwrap();
            bus.publish(BusMessage::SessionChanged {
                session: session.id,
            });
            return;
        }
    };
    let identity = match session.desired {
        Desired::LoggedOut => Patch::Clear,
        Desired::Running | Desired::Stopped | Desired::Deleted => Patch::Keep,
    };
    // Of what was read, not of what may have been asked since.
    let generation_done = Some(session.generation);
    let link = Some(link);
    let seen = Observation {
        link,
        identity,
        generation_done,
        ..Observation::default()
    };
    observe(db, bus, lease, seen, now).await;
}

async fn finish_all(
    db: &Db,
    bus: &Bus,
    lease: &Lease,
    failure: Option<Failure>,
    now: Timestamp,
) -> usize {
    let mut finished = 0;
    loop {
        let (lease, failure) = (lease.clone(), failure.clone());
        let done = db
            .write(move |tx| {
                let claimed = queue::claim(tx, &lease, 10, now)?;
                let mut done = Vec::new();
                for claimed in claimed {
                    done.push(claimed.message.clone());
                    if let Some(failure) = &failure {
                        queue::fail(tx, &lease, claimed, failure, now)?;
                    } else {
                        let input = MessageInput::ServerAck;
                        let update = Update {
                            wa_id: claimed.wa_id,
                            input,
                            at: now,
                            failure: None,
                        };
                        messages::apply(tx, &lease, update, now)?;
                    }
                }
                Ok(done)
            })
            .await
            .unwrap();
        if done.is_empty() {
            return finished;
        }
        finished += done.len();
        for message in done {
            bus.publish(BusMessage::MessageSettled { message });
        }
    }
}
