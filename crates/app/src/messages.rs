//! Message path, step 2 of 7: may this caller send it, and is it stored?
//!
//! A message is accepted by one transaction that writes the message with its WhatsApp id, its place in
//! the queue, its idempotency key and its event (MP-1, MP-2, EV-1). Nothing that goes wrong after that
//! commit may look as if it was not accepted: the answer then says `queued`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wagate_domain::jid::JidError;
use wagate_domain::message::Failure;
use wagate_domain::{Content, Jid, MessageId, MessageState, SessionId, SessionName, failpoint};
use wagate_store::bus::BusMessage;
use wagate_store::idempotency::IdempotencyKey;
use wagate_store::messages::{
    self, Accepted, Message, MessageFilter, MessageWithHistory, NewOutbound, Priority,
};
use wagate_store::sessions::Session;
use wagate_store::{Page, PageRequest, StoreError};

use crate::app::{App, deadline};
use crate::caller::Caller;
use crate::error::{AppError, Code};
use crate::sessions::{named, not_found, refusal_to_send};
use crate::waits::{Topic, Waiter};

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct SendRequest {
    /// As the caller wrote it.
    pub to: String,
    pub content: Content,
    /// Makes a repeat of this request recognisable.
    pub idempotency_key: Option<String>,
    /// How long to wait for WhatsApp's acknowledgement.
    pub wait: Duration,
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
        let accepted = self.accept(caller, session, chat, &request).await?;
        failpoint::hit("accepted_committed");
        let Accepted { message, replayed } = accepted;
        // Before a worker hears of it, so that its first news finds the one who waits.
        let waiter = self.wait_on(Topic::Message(message.id.clone()));
        if !replayed {
            self.publish(BusMessage::QueueReady {
                session: message.session.clone(),
            });
            self.publish(BusMessage::EventsAppended {
                tenant: caller.tenant().clone(),
            });
        }
        let message = self.await_sent(caller, message, waiter, request.wait).await;
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
        check_cursor(&page)?;
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
        check_cursor(&page)?;
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

    /// Withdraws a message that is not being sent yet.
    pub async fn cancel(&self, caller: &Caller, id: &MessageId) -> Result<Message, AppError> {
        let (tenant, id, now) = (caller.tenant().clone(), id.clone(), self.now());
        let message = self
            .db()
            .write(move |tx| messages::cancel(tx, &tenant, &id, now))
            .await
            .map_err(|error| match error {
                StoreError::Conflict { .. } => AppError::refused(
                    Code::MessageNotCancelable,
                    "the message is being sent or has been sent, so it cannot be canceled",
                ),
                other => no_message(other),
            })?;
        self.publish(BusMessage::MessageChanged {
            message: message.id.clone(),
        });
        self.publish(BusMessage::QueueReady {
            session: message.session.clone(),
        });
        self.publish(BusMessage::EventsAppended {
            tenant: caller.tenant().clone(),
        });
        Ok(message)
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

    async fn accept(
        &self,
        caller: &Caller,
        session: &SessionName,
        chat: Jid,
        request: &SendRequest,
    ) -> Result<Accepted, AppError> {
        let (caller, name, now) = (caller.clone(), session.clone(), self.now());
        let (content, key) = (request.content.clone(), request.idempotency_key.clone());
        // What the transaction was rolled back for, when that is not the store's own reason.
        let refused = Arc::new(OnceLock::new());
        let slot = Arc::clone(&refused);
        let stored = self
            .db()
            .write(move |tx| {
                let session = named(tx, &caller, &name)?;
                let refusal = refusal_to_send(&session);
                let idempotency = key.map(|key| IdempotencyKey {
                    key,
                    body_hash: body_hash(&session.id, &chat, &content),
                });
                let new = NewOutbound {
                    session: session.id,
                    chat,
                    content,
                    priority: Priority::Normal,
                    not_before: None,
                    idempotency,
                };
                let accepted = messages::accept(tx, caller.tenant(), new, now)?;
                match refusal {
                    // A repeat gets the first answer, whatever has become of the session since.
                    Some(code) if !accepted.replayed => {
                        slot.get_or_init(|| code);
                        Err(StoreError::Conflict {
                            what: "the session's state".to_owned(),
                        })
                    }
                    _ => Ok(accepted),
                }
            })
            .await;
        if let Some((code, message)) = refused.get() {
            return Err(AppError::refused(*code, *message));
        }
        stored.map_err(|error| match error {
            StoreError::Conflict { .. } => AppError::refused(
                Code::IdempotencyConflict,
                "this Idempotency-Key was used with another request",
            ),
            StoreError::Limit { .. } => AppError::refused(
                Code::QueueFull,
                "as many messages wait in this session as may wait",
            ),
            other => not_found(other),
        })
    }

    /// Waits for the message to be finished; never fails, since it is accepted.
    async fn await_sent(
        &self,
        caller: &Caller,
        message: Message,
        mut waiter: Waiter,
        wait: Duration,
    ) -> Message {
        if message.state.is_final() || wait.is_zero() {
            return message;
        }
        let deadline = deadline(wait);
        let found = waiter
            .after_wake(deadline, || async {
                // A database that is away now may be back before the wait ends.
                let seen = self.message(caller, &message.id).await.ok();
                Ok::<_, AppError>(seen.map(|seen| seen.message).filter(|m| m.state.is_final()))
            })
            .await;
        found.ok().flatten().unwrap_or(message)
    }
}

/// What an accepted request is, for telling a repeat from another request.
fn body_hash(session: &SessionId, chat: &Jid, content: &Content) -> [u8; 32] {
    let mut hash = Sha256::new();
    let content = serde_json::to_vec(content).unwrap_or_default();
    for part in [
        session.as_str().as_bytes(),
        chat.to_string().as_bytes(),
        &content,
    ] {
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

/// A cursor of this list is the number of its last row; with any other, a client would believe that it
/// has read all.
fn check_cursor(page: &PageRequest) -> Result<(), AppError> {
    match page.after.as_deref().map(str::parse::<i64>) {
        Some(Err(_)) => Err(AppError::bad_cursor()),
        Some(Ok(_)) | None => Ok(()),
    }
}

fn no_message(error: StoreError) -> AppError {
    match error {
        StoreError::NotFound { .. } => AppError::message_not_found(),
        other => other.into(),
    }
}
