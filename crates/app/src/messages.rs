//! Message path, step 2 of 7: may this caller send it, and is it stored?
//!
//! A message is accepted by one transaction that writes the message with its WhatsApp id, its place in
//! the queue, its idempotency key and its event (MP-1, MP-2, EV-1). Nothing that goes wrong after that
//! commit may look as if it was not accepted: the answer then says `queued`.

use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wagate_domain::jid::JidError;
use wagate_domain::limits::SCHEDULE_AHEAD_MAX;
use wagate_domain::message::Failure;
use wagate_domain::{
    Content, Jid, MessageId, MessageState, SessionId, SessionName, Timestamp, failpoint,
};
use wagate_store::bus::BusMessage;
use wagate_store::idempotency::IdempotencyKey;
use wagate_store::messages::{
    self, Accepted, Message, MessageFilter, MessageWithHistory, NewOutbound, Priority,
};
use wagate_store::sessions::{self, Session};
use wagate_store::{Page, PageRequest, StoreError, Tx, When};

use crate::app::{App, deadline};
use crate::caller::Caller;
use crate::error::{AppError, Code};
use crate::queue::queue_full;
use crate::sessions::{named, not_found, refusal_to_send};
use crate::waits::{Topic, Waiter};

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct SendRequest {
    /// As the caller wrote it.
    pub to: String,
    pub content: Content,
    pub priority: Priority,
    /// Not to be sent earlier.
    pub send_at: Option<Timestamp>,
    /// How long it is worth sending.
    pub validity: Option<Validity>,
    /// Makes a repeat of this request recognisable.
    pub idempotency_key: Option<String>,
    /// How long to wait for WhatsApp's acknowledgement.
    pub wait: Duration,
}

/// Until when a message is worth sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    Until(Timestamp),
    /// From the time on at which it may go out.
    For(Duration),
}

/// An accepted message, as far as it came within the wait.
#[derive(Clone, Debug)]
pub struct Sent {
    pub message: Message,
    /// The request was a repeat; this is the first one's message.
    pub replayed: bool,
}

impl App {
    /// Accepts a message and waits until WhatsApp's server has it, or until the wait ends.
    pub async fn send(
        &self,
        caller: &Caller,
        session: &SessionName,
        request: SendRequest,
    ) -> Result<Sent, AppError> {
        let chat = self.recipient(&request.to)?;
        let wait = request.wait;
        let (accepted, waiter, told) = self.accept(caller, session, chat, request).await?;
        failpoint::hit("accepted_committed");
        let Accepted { message, replayed } = accepted;
        if !replayed {
            if !told {
                self.publish(BusMessage::QueueReady {
                    session: message.session.clone(),
                });
            }
            self.publish(BusMessage::EventsAppended {
                tenant: caller.tenant().clone(),
            });
        }
        let message = self.await_sent(caller, message, waiter, wait).await;
        match failure_of(&message) {
            Some((code, text)) => Err(AppError::SendFailed {
                code,
                message: text,
                sent: Box::new(message),
            }),
            None => Ok(Sent { message, replayed }),
        }
    }

    /// One message with the history of its status.
    pub async fn message(
        &self,
        caller: &Caller,
        id: &MessageId,
    ) -> Result<MessageWithHistory, AppError> {
        let (tenant, id) = (caller.tenant().clone(), id.clone());
        self.db()
            .read(move |tx| messages::get(tx, &tenant, &id))
            .await
            .map_err(no_message)
    }

    /// A session's messages, newest first.
    pub async fn messages(
        &self,
        caller: &Caller,
        session: &SessionName,
        filter: MessageFilter,
        page: PageRequest,
    ) -> Result<Page<Message>, AppError> {
        check_cursor::<i64>(&page)?;
        let (caller, session) = (caller.clone(), session.clone());
        let listed = self
            .db()
            .read(move |tx| {
                let session = match named(tx, &caller, &session) {
                    Err(StoreError::NotFound { .. }) => return Ok(None),
                    other => other?,
                };
                messages::list(tx, caller.tenant(), &session.id, &filter, &page).map(Some)
            })
            .await?;
        listed.ok_or_else(AppError::session_not_found)
    }

    /// A session, a page of its messages, newest first, and how many it has.
    pub async fn messages_with_total(
        &self,
        caller: &Caller,
        session: &SessionName,
        page: PageRequest,
    ) -> Result<(Session, Page<Message>, u64), AppError> {
        check_cursor::<i64>(&page)?;
        let (caller, session) = (caller.clone(), session.clone());
        let listed = self
            .db()
            .read(move |tx| {
                let session = match named(tx, &caller, &session) {
                    Err(StoreError::NotFound { .. }) => return Ok(None),
                    other => other?,
                };
                let (tenant, filter) = (caller.tenant(), MessageFilter::default());
                let page = messages::list(tx, tenant, &session.id, &filter, &page)?;
                let total = messages::count(tx, tenant, &session.id, &filter)?;
                Ok(Some((session, page, total)))
            })
            .await?;
        listed.ok_or_else(AppError::session_not_found)
    }

    fn recipient(&self, to: &str) -> Result<Jid, AppError> {
        let region = self.options().default_region.as_deref();
        let jid = Jid::parse_recipient(to, region).map_err(|error| {
            let code = match error {
                JidError::NotARecipient => Code::UnsupportedRecipient,
                JidError::Malformed | JidError::UnknownServer | JidError::ImpossibleNumber => {
                    Code::InvalidRecipient
                }
            };
            AppError::field(code, "to", error.to_string())
        })?;
        if jid.is_group() {
            let message = "is a group, and messages to groups cannot be sent yet";
            return Err(AppError::field(Code::UnsupportedRecipient, "to", message));
        }
        Ok(jid)
    }

    /// Stores the message. Also gives who waits for it, and whether its worker was told.
    async fn accept(
        &self,
        caller: &Caller,
        session: &SessionName,
        chat: Jid,
        request: SendRequest,
    ) -> Result<(Accepted, Waiter, bool), AppError> {
        let times = times(&request, self.now());
        // None: not possible, which a repeat of an accepted request is not blamed for.
        let possible = times.as_ref().ok().copied();
        // What the transaction was rolled back for, when that is not the store's own reason.
        let refused = Arc::new(Mutex::new(None));
        let accept = {
            let (app, refused, now) = (self.clone(), Arc::clone(&refused), self.now());
            let (caller, name) = (caller.clone(), session.clone());
            move |tx: &mut Tx<'_>| {
                *locked(&refused) = None;
                let sender = sessions::sender(tx, caller.tenant(), &name)?;
                let refusal = match refusal_to_send(&sender) {
                    Some((code, message)) => Some(Refusal::Session(code, message)),
                    None => possible.is_none().then_some(Refusal::Times),
                };
                let refuse = |refusal| {
                    *locked(&refused) = Some(refusal);
                    let what = "the session's state, or the time".to_owned();
                    Err(StoreError::Conflict { what })
                };
                // Nothing is written for it that would have to be undone.
                let refusal = match (refusal, &request.idempotency_key) {
                    (Some(refusal), None) => return refuse(refusal),
                    (refusal, _) => refusal,
                };
                let (not_before, expires_at) = possible.unwrap_or_default();
                let new = NewOutbound {
                    session: sender.id.clone(),
                    chat: chat.clone(),
                    content: request.content.clone(),
                    priority: request.priority,
                    not_before,
                    expires_at,
                    idempotency: request.idempotency_key.as_ref().map(|key| IdempotencyKey {
                        key: key.clone(),
                        body_hash: body_hash(&sender.id, &chat, &request),
                    }),
                };
                let accepted = messages::accept(tx, caller.tenant(), new, now)?;
                match refusal {
                    // A repeat gets the first answer, whatever has become of the session since.
                    Some(refusal) if !accepted.replayed => refuse(refusal),
                    _ => Ok(app.announce(tx, accepted)),
                }
            }
        };
        let tenant = caller.tenant();
        let stored = self.db().write_repeatable(tenant, When::Now, accept).await;
        let refused = locked(&refused).take();
        match refused {
            Some(Refusal::Session(code, message)) => return Err(AppError::refused(code, message)),
            Some(Refusal::Times) => times.map(drop)?,
            None => {}
        }
        stored.map_err(|error| match error {
            StoreError::Conflict { .. } => AppError::refused(
                Code::IdempotencyConflict,
                "this Idempotency-Key was used with another request, or for a message that was \
                 deleted",
            ),
            StoreError::Limit { .. } => queue_full(),
            other => not_found(other),
        })
    }

    /// Begins to wait for an accepted message and, where its worker can only find it committed, tells the
    /// worker of it: the claim is then the next transaction.
    fn announce(&self, tx: &Tx<'_>, accepted: Accepted) -> (Accepted, Waiter, bool) {
        // Before a worker hears of it, so that its first news finds the one who waits.
        let waiter = self.wait_on(Topic::Message(accepted.message.id.clone()));
        let told = tx.is_in_order() && !accepted.replayed;
        if told {
            self.publish(BusMessage::QueueReady {
                session: accepted.message.session.clone(),
            });
        }
        (accepted, waiter, told)
    }

    /// Waits for the message to be finished; never fails, since it is accepted.
    async fn await_sent(
        &self,
        caller: &Caller,
        message: Message,
        mut waiter: Waiter,
        wait: Duration,
    ) -> Message {
        // Before its time it is not even tried.
        let starts_in = message.not_before.map(|at| at.since(self.now()));
        let later = starts_in.is_some_and(|starts_in| starts_in >= wait);
        if message.state.is_final() || wait.is_zero() || later {
            return message;
        }
        let deadline = deadline(wait);
        let found = waiter
            .after_wake(deadline, || async {
                let (tenant, id) = (caller.tenant().clone(), message.id.clone());
                let seen = self
                    .db()
                    .read(move |tx| messages::get_alone(tx, &tenant, &id))
                    .await;
                // A database that is away now may be back before the wait ends.
                Ok::<_, AppError>(seen.ok().filter(|seen| seen.state.is_final()))
            })
            .await;
        found.ok().flatten().unwrap_or(message)
    }
}

fn locked<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a new message is not accepted, while a repeat of it would be answered.
enum Refusal {
    Session(Code, &'static str),
    Times,
}

/// When a message may go out, and until when.
type Times = (Option<Timestamp>, Option<Timestamp>);

/// The times of a message, checked against the clock and against each other.
fn times(request: &SendRequest, now: Timestamp) -> Result<Times, AppError> {
    if let Some(at) = request.send_at {
        check_ahead("sendAt", at, now, now)?;
    }
    let start = request.send_at.unwrap_or(now);
    Ok((request.send_at, valid_until(request.validity, start, now)?))
}

/// The end of a validity that begins at `start`.
pub(crate) fn valid_until(
    validity: Option<Validity>,
    start: Timestamp,
    now: Timestamp,
) -> Result<Option<Timestamp>, AppError> {
    let Some(validity) = validity else {
        return Ok(None);
    };
    let longest = SCHEDULE_AHEAD_MAX.as_secs();
    match validity {
        Validity::Until(at) if at <= start && start > now => {
            let message = "must lie after `sendAt`";
            Err(AppError::field(Code::InvalidField, "expiresAt", message))
        }
        Validity::Until(at) => {
            check_ahead("expiresAt", at, start.plus(Duration::from_millis(1)), start)?;
            Ok(Some(at))
        }
        Validity::For(time) if time.is_zero() || time > SCHEDULE_AHEAD_MAX => {
            let message = format!("must be 1 to {longest} seconds");
            Err(AppError::field(Code::InvalidField, "expiresIn", message))
        }
        Validity::For(time) => Ok(Some(start.plus(time))),
    }
}

/// Refuses a time before the first possible one, or too far behind `from`.
fn check_ahead(
    path: &str,
    at: Timestamp,
    first: Timestamp,
    from: Timestamp,
) -> Result<(), AppError> {
    let days = SCHEDULE_AHEAD_MAX.as_secs() / (24 * 60 * 60);
    let message = if at < first {
        "lies in the past".to_owned()
    } else if at > from.plus(SCHEDULE_AHEAD_MAX) {
        format!("lies too far ahead; {days} days are the most")
    } else {
        return Ok(());
    };
    Err(AppError::field(Code::InvalidField, path, message))
}

/// What an accepted request is, for telling a repeat from another request.
fn body_hash(session: &SessionId, chat: &Jid, request: &SendRequest) -> [u8; 32] {
    let mut hash = Sha256::new();
    let content = serde_json::to_vec(&request.content).unwrap_or_default();
    let mut parts = vec![
        session.as_str().as_bytes().to_vec(),
        chat.to_string().into_bytes(),
        content,
    ];
    // As it was asked for and not as it was understood: the same words mean another time later. What
    // is left out adds nothing, so that keys from before there were these fields keep their meaning.
    if request.priority != Priority::default() {
        parts.push(format!("priority {}", request.priority).into_bytes());
    }
    if let Some(at) = request.send_at {
        parts.push(format!("at {}", at.as_millis()).into_bytes());
    }
    match request.validity {
        Some(Validity::Until(at)) => parts.push(format!("until {}", at.as_millis()).into_bytes()),
        Some(Validity::For(time)) => parts.push(format!("for {}", time.as_millis()).into_bytes()),
        None => {}
    }
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Why a finished message was not sent, in a word of ours.
fn failure_of(message: &Message) -> Option<(Code, String)> {
    if !message.state.is_final() || message.state.is_sent() {
        return None;
    }
    let text = match (&message.failure, message.state) {
        (Some(Failure { reason, .. }), _) => reason.clone(),
        (None, MessageState::Canceled) => "the message was canceled before it was sent".to_owned(),
        (None, MessageState::Expired) => "the message expired before it was sent".to_owned(),
        (None, _) => "the message could not be sent".to_owned(),
    };
    if message.state == MessageState::Expired {
        return Some((Code::MessageExpired, text));
    }
    let code = match message
        .failure
        .as_ref()
        .map(|failure| failure.code.as_str())
    {
        Some("recipient_not_registered") => Code::RecipientNotRegistered,
        Some("recipient_blocked") => Code::RecipientBlocked,
        Some("timeout" | "unconfirmed") => Code::SendUnconfirmed,
        _ => Code::SendFailed,
    };
    Some((code, text))
}

/// Refuses a cursor that names no last row (`T`) of the list: a client would believe that it has read all.
pub(crate) fn check_cursor<T: FromStr>(page: &PageRequest) -> Result<(), AppError> {
    match page.after.as_deref().map(str::parse::<T>) {
        Some(Err(_)) => Err(AppError::bad_cursor()),
        Some(Ok(_)) | None => Ok(()),
    }
}

pub(crate) fn no_message(error: StoreError) -> AppError {
    match error {
        StoreError::NotFound { .. } => AppError::message_not_found(),
        other => other.into(),
    }
}
