//! A client of the gateways as careful ones are: it tries again with the same key until it knows, takes
//! whichever gateway answers, and writes everything down.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use wagate_network::network::Network;

use super::journal::{Answer, Attempt, Book, End, Request, Withdrawal};
use super::keeper::Hand;
use super::plan::{How, Wish};
use super::rig::Rig;
use crate::people::contact_number;

/// How long a client waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The pause before another try.
const AGAIN: Duration = Duration::from_millis(150);

/// All clients. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clients {
    http: reqwest::Client,
    hands: Vec<Hand>,
    keys: Arc<Vec<String>>,
    /// Session names and tenants, by number.
    slots: Arc<Vec<(String, usize)>>,
    book: Arc<Book>,
    network: Network,
    /// How long a client goes on trying.
    patience: Duration,
}

/// One call.
#[derive(Debug)]
struct Call<'a> {
    method: Method,
    tenant: usize,
    path: &'a str,
    body: Option<&'a Value>,
    key: Option<&'a str>,
    /// The client hangs up after this.
    cut: Option<Duration>,
}

impl Clients {
    pub fn new(rig: &Rig, patience: Duration) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER_MAX)
            .build()?;
        let slots = rig
            .slots
            .iter()
            .map(|slot| (slot.name.clone(), slot.tenant));
        Ok(Self {
            http,
            hands: rig.hands.clone(),
            keys: Arc::new(rig.keys.clone()),
            slots: Arc::new(slots.collect()),
            book: Arc::clone(&rig.book),
            network: rig.network.clone(),
            patience,
        })
    }

    /// Sends a text until it is known what became of it.
    pub async fn send(&self, mut request: Request, how: How) {
        let key = request.marker.clone();
        let other = Request {
            marker: format!("{key}-other"),
            reused_key: true,
            wish: Wish::default(),
            ..request.clone()
        };
        let wish = request.wish;
        let later = wish.later_ms.and_then(|ms| i64::try_from(ms).ok());
        request.send_at = later.map(|ms| self.network.now() + ms);
        let tenant = self.slots.get(request.session).map_or(0, |slot| slot.1);
        let at = self.book.request(request.clone());
        let end = self.insist(at, &request, &key, how).await;
        let End::Accepted(id) = end else { return };
        if let Some(ms) = wish.withdraw_ms {
            sleep(Duration::from_millis(ms)).await;
            self.withdraw(at, tenant, &id).await;
        }
        if how == How::KeyReused {
            let at = self.book.request(other.clone());
            self.insist(at, &other, &key, How::NoWait).await;
        }
    }

    /// Withdraws a message, again and again until it is known what became of that.
    async fn withdraw(&self, at: usize, tenant: usize, id: &str) {
        let path = format!("/api/v1/messages/{id}");
        let started = Instant::now();
        let mut in_doubt = false;
        while started.elapsed() < self.patience {
            let call = Call {
                method: Method::DELETE,
                tenant,
                path: &path,
                body: None,
                key: None,
                cut: None,
            };
            let Some(attempt) = self.attempt(&call).await else {
                sleep(AGAIN).await;
                continue;
            };
            let how = match &attempt.answer {
                Answer::Http {
                    status: 200,
                    deleted,
                    ..
                } => match deleted {
                    true => Some(Withdrawal::Deleted),
                    false => Some(Withdrawal::Canceled),
                },
                Answer::Http { status: 409, .. } => Some(Withdrawal::TooLate),
                // An earlier try, whose answer was lost, has deleted it.
                Answer::Http { status: 404, .. } if in_doubt => Some(Withdrawal::Deleted),
                Answer::Http {
                    status: 400..=428 | 430..=499,
                    text,
                    ..
                } => {
                    self.book
                        .mishap(format!("the withdrawal of {id} was refused: {text}"));
                    return;
                }
                _ => None,
            };
            in_doubt |= how.is_none();
            self.book.open().calls.push(attempt);
            if let Some(how) = how {
                self.book.withdrawn(at, how);
                return;
            }
            sleep(AGAIN).await;
        }
        self.book
            .mishap(format!("the withdrawal of {id} was never answered"));
    }

    /// Asks again and again with the same key, and writes down how it ended.
    async fn insist(&self, at: usize, request: &Request, key: &str, how: How) -> End {
        let Some((name, tenant)) = self.slots.get(request.session) else {
            return End::Open;
        };
        let wait = if let How::Wait(seconds) = how {
            seconds
        } else {
            0
        };
        let path = format!("/api/v1/sessions/{name}/messages?wait={wait}");
        let body = body(request);
        let started = Instant::now();
        let mut cut = if let How::Cut(ms) = how {
            Some(ms)
        } else {
            None
        };
        let mut repeats = u32::from(how == How::Twice);
        let mut end = End::Open;
        while started.elapsed() < self.patience {
            let call = Call {
                method: Method::POST,
                tenant: *tenant,
                path: &path,
                body: Some(&body),
                key: Some(key),
                cut: cut.take().map(Duration::from_millis),
            };
            let Some(attempt) = self.attempt(&call).await else {
                sleep(AGAIN).await;
                continue;
            };
            let found = end_of(&attempt.answer);
            self.book.attempt(at, attempt);
            let Some(found) = found else {
                sleep(AGAIN).await;
                continue;
            };
            end = found;
            if repeats == 0 {
                break;
            }
            repeats -= 1;
        }
        self.book.end(at, end.clone());
        end
    }

    /// Asks something of a session until it is accepted.
    pub async fn steer(&self, session: usize, verb: &str, body: Option<Value>) {
        let Some((name, tenant)) = self.slots.get(session) else {
            return;
        };
        let path = format!("/api/v1/sessions/{name}/{verb}");
        let started = Instant::now();
        while started.elapsed() < self.patience {
            let call = Call {
                method: Method::POST,
                tenant: *tenant,
                path: &path,
                body: body.as_ref(),
                key: None,
                cut: None,
            };
            let Some(attempt) = self.attempt(&call).await else {
                sleep(AGAIN).await;
                continue;
            };
            let done = matches!(
                attempt.answer,
                Answer::Http {
                    status: 200..=299,
                    ..
                }
            );
            self.book.open().calls.push(attempt);
            if done {
                return;
            }
            sleep(AGAIN).await;
        }
        self.book
            .mishap(format!("{verb} of {name} was never accepted"));
    }

    /// Reads something once; for what reads again anyhow.
    pub async fn read(&self, tenant: usize, path: &str) -> Result<Value> {
        for (gateway, hand) in self.hands.iter().enumerate() {
            let base = hand.door.borrow().clone();
            let Some(base) = base else { continue };
            let response = self
                .http
                .get(format!("{base}{path}"))
                .bearer_auth(&self.keys[tenant])
                .send()
                .await;
            let Ok(response) = response else { continue };
            let status = response.status();
            let Ok(bytes) = response.bytes().await else {
                continue;
            };
            if status.is_success() {
                return Ok(serde_json::from_slice(&bytes)?);
            }
            if status.as_u16() != 503 {
                let text = String::from_utf8_lossy(&bytes);
                self.book.mishap(format!(
                    "gateway {gateway} answers {status} to GET {path}: {text}"
                ));
            }
        }
        bail!("no gateway answers")
    }

    /// One try; none where no gateway is there at all.
    async fn attempt(&self, call: &Call<'_>) -> Option<Attempt> {
        let from = self.network.now();
        let open: Vec<(usize, String)> = self
            .hands
            .iter()
            .enumerate()
            .filter_map(|(number, hand)| Some((number, hand.door.borrow().clone()?)))
            .collect();
        // Any of them; which one is as random as the clock.
        let turn = usize::try_from(from).unwrap_or(0) % open.len().max(1);
        let (gateway, base) = open.get(turn)?;
        let asked = self.ask(base, call);
        let answer = match call.cut {
            None => asked.await,
            Some(after) => timeout(after, asked).await.unwrap_or(Answer::Cut),
        };
        Some(Attempt {
            from,
            to: self.network.now(),
            gateway: *gateway,
            answer,
        })
    }

    async fn ask(&self, base: &str, call: &Call<'_>) -> Answer {
        let mut request = self
            .http
            .request(call.method.clone(), format!("{base}{}", call.path))
            .bearer_auth(&self.keys[call.tenant]);
        if let Some(key) = call.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = call.body {
            request = request
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Answer::Nothing(format!("{:#}", anyhow::Error::from(error))),
        };
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .contains_key(reqwest::header::RETRY_AFTER);
        let bytes = match response.bytes().await {
            Ok(bytes) => bytes,
            Err(error) => return Answer::Nothing(format!("{:#}", anyhow::Error::from(error))),
        };
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let word = |value: &Value| value.as_str().map(str::to_owned);
        Answer::Http {
            status,
            code: word(&body["code"]),
            retry_after,
            message: word(&body["data"]["id"]).filter(|id| id.starts_with("msg_")),
            deleted: body["data"]["deleted"] == true,
            text: word(&body["error"]).unwrap_or_default(),
        }
    }
}

fn body(request: &Request) -> Value {
    let mut body = json!({
        "to": contact_number(request.contact), "type": "text", "message": request.marker,
        "priority": request.priority.as_str(),
    });
    let at = request.send_at.map(jiff::Timestamp::from_millisecond);
    if let Some(Ok(at)) = at {
        body["sendAt"] = json!(format!("{at:.3}"));
    }
    if let Some(seconds) = request.wish.valid_s {
        body["expiresIn"] = json!(seconds);
    }
    body
}

/// What an answer to a send means; nothing when it has to be tried again.
fn end_of(answer: &Answer) -> Option<End> {
    match answer {
        // Also of one that failed while it was waited for: it was accepted.
        Answer::Http {
            message: Some(message),
            ..
        } => Some(End::Accepted(message.clone())),
        Answer::Http {
            status: 429 | 503 | 504 | 507,
            ..
        }
        | Answer::Cut
        | Answer::Nothing(_) => None,
        Answer::Http { status, code, .. } => Some(End::Refused {
            status: *status,
            code: code.clone().unwrap_or_default(),
        }),
    }
}
