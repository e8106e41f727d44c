//! Sessions: what a tenant may ask of them.
//!
//! A request writes the desired state and wakes the worker; it does not call it. Where the answer
//! should tell how it went, the request waits for the worker to report, bounded, and says "accepted"
//! when that takes longer.

use std::time::Duration;

use wagate_domain::pacing::Pause;
use wagate_domain::{
    Desired, LinkChallenge, LinkMethod, LinkState, PhoneNumber, SessionId, SessionName, Timestamp,
};
use wagate_store::bus::BusMessage;
use wagate_store::sessions::{self, Counters, Generation, NewSession, Sender, Session};
use wagate_store::{Page, PageRequest, StoreError, Tx, messages, pacing};

use crate::app::{App, deadline};
use crate::caller::Caller;
use crate::error::{AppError, Code};
use crate::waits::Topic;

/// A session's state in the words that all surfaces share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not on its way yet, or on its way to a first link.
    Initializing,
    /// A QR code waits to be scanned.
    QrRequired,
    /// A pairing code waits to be entered.
    Pairing,
    /// Linked, and on its way to WhatsApp.
    Connecting,
    Connected,
    /// Linked or not, without a connection: on request, or until the next attempt.
    Disconnected,
    LoggedOut,
    /// Stays so until somebody acts; the session's reason says why.
    Error,
}

impl Status {
    pub fn of(session: &Session) -> Self {
        let linked = session.identity.is_some();
        if session.desired == Desired::Running && is_pending(session) {
            // The worker has not taken up the newest request: the state before it says nothing.
            return if linked {
                Self::Connecting
            } else {
                Self::Initializing
            };
        }
        match (&session.link, &session.challenge) {
            (LinkState::Connected, _) => Self::Connected,
            (LinkState::AwaitingScan, Some(LinkChallenge::Qr { .. })) => Self::QrRequired,
            (LinkState::AwaitingScan, Some(LinkChallenge::Code { .. })) => Self::Pairing,
            (LinkState::Connecting, _) if linked => Self::Connecting,
            (LinkState::Idle | LinkState::AwaitingScan | LinkState::Connecting, _) => {
                Self::Initializing
            }
            (LinkState::Backoff { .. } | LinkState::Stopped, _) => Self::Disconnected,
            (LinkState::LoggedOut { .. }, _) => Self::LoggedOut,
            (
                LinkState::LinkFailed { .. }
                | LinkState::Banned { .. }
                | LinkState::Replaced
                | LinkState::Outdated,
                _,
            ) => Self::Error,
        }
    }
}

/// A session to be made.
#[derive(Clone, Debug, Default)]
pub struct CreateSession {
    /// What the client calls it; without one the generated id is the name.
    pub name: Option<SessionName>,
    pub label: Option<String>,
    pub user_id: Option<String>,
    /// Begins to link at once.
    pub link: Option<LinkMethod>,
}

/// Where a session stands.
#[derive(Clone, Debug)]
pub struct SessionStatus {
    pub session: Session,
    pub counters: Counters,
    /// What WhatsApp asked for.
    pub pauses: Vec<Pause>,
    /// Of the newest messages, those that WhatsApp took a while ago and no device has confirmed.
    pub undelivered: u64,
}

/// A request about a session, and whether the worker has carried it out already.
#[derive(Clone, Debug)]
pub struct Settled {
    /// As it is now; as it last was, for one that is deleted.
    pub session: Session,
    /// False: it is accepted, and will be carried out.
    pub done: bool,
}

/// A message that WhatsApp took is expected to be delivered within this long, if a device is online.
const UNDELIVERED_AFTER: Duration = Duration::from_secs(60);
/// Longest `label` and `user_id`, in bytes.
const LABEL_BYTES_MAX: usize = 200;

pub(crate) fn not_found(error: StoreError) -> AppError {
    match error {
        StoreError::NotFound { .. } => AppError::session_not_found(),
        other => other.into(),
    }
}

impl App {
    /// Makes a session; with `link` it is on its way to a QR or pairing code at once.
    pub async fn create_session(
        &self,
        caller: &Caller,
        request: CreateSession,
    ) -> Result<Session, AppError> {
        check_label("sessionName", request.label.as_deref())?;
        check_label("userId", request.user_id.as_deref())?;
        let (tenant, now) = (caller.tenant().clone(), self.now());
        let new = NewSession {
            name: request.name,
            label: request.label,
            user_id: request.user_id,
        };
        let link = request.link;
        let started = link.is_some();
        let session = self
            .db()
            .write_for(caller.tenant(), move |tx| {
                let session = sessions::create(tx, &tenant, &new, now)?;
                let Some(method) = link else {
                    return Ok(session);
                };
                let (id, running) = (&session.id, Desired::Running);
                sessions::set_desired(tx, &tenant, id, running, Some(&method), now)?;
                sessions::get(tx, &tenant, &session.name)
            })
            .await
            .map_err(|error| match error {
                StoreError::Conflict { .. } => {
                    AppError::refused(Code::SessionExists, "a session with this id exists already")
                }
                StoreError::Limit { .. } => AppError::refused(
                    Code::LimitReached,
                    "this tenant has as many sessions as it may have",
                ),
                other => other.into(),
            })?;
        if started {
            self.publish(BusMessage::DesiredChanged {
                session: session.id.clone(),
            });
        }
        self.publish(BusMessage::EventsAppended {
            tenant: caller.tenant().clone(),
        });
        Ok(session)
    }

    /// One session by its name.
    pub async fn session(&self, caller: &Caller, name: &SessionName) -> Result<Session, AppError> {
        let (tenant, name) = (caller.tenant().clone(), name.clone());
        self.db()
            .read(move |tx| sessions::get(tx, &tenant, &name))
            .await
            .map_err(not_found)
    }

    /// The tenant's sessions.
    pub async fn sessions(
        &self,
        caller: &Caller,
        page: PageRequest,
    ) -> Result<Page<Session>, AppError> {
        if page
            .after
            .as_deref()
            .is_some_and(|after| SessionId::parse(after).is_err())
        {
            return Err(AppError::bad_cursor());
        }
        let tenant = caller.tenant().clone();
        Ok(self
            .db()
            .read(move |tx| sessions::list(tx, &tenant, &page))
            .await?)
    }

    /// How many sessions the tenant has.
    pub async fn session_count(&self, caller: &Caller) -> Result<u64, AppError> {
        let tenant = caller.tenant().clone();
        Ok(self
            .db()
            .read(move |tx| sessions::count(tx, &tenant))
            .await?)
    }

    /// One session, with how many of its messages are in which state, and what it must heed.
    pub async fn session_status(
        &self,
        caller: &Caller,
        name: &SessionName,
    ) -> Result<SessionStatus, AppError> {
        let (tenant, name, now) = (caller.tenant().clone(), name.clone(), self.now());
        self.db()
            .read(move |tx| {
                let session = sessions::get(tx, &tenant, &name)?;
                let overdue = now.minus(UNDELIVERED_AFTER);
                Ok(SessionStatus {
                    counters: sessions::counters(tx, &tenant, &session.id)?,
                    pauses: pacing::get(tx, &tenant, &session.id)?.state.pauses(now),
                    undelivered: messages::undelivered(tx, &session.id, overdue)?,
                    session,
                })
            })
            .await
            .map_err(not_found)
    }

    /// One session, with how many of its messages are in which state.
    pub async fn session_with_counters(
        &self,
        caller: &Caller,
        name: &SessionName,
    ) -> Result<(Session, Counters), AppError> {
        let (tenant, name) = (caller.tenant().clone(), name.clone());
        self.db()
            .read(move |tx| {
                let session = sessions::get(tx, &tenant, &name)?;
                let counters = sessions::counters(tx, &tenant, &session.id)?;
                Ok((session, counters))
            })
            .await
            .map_err(not_found)
    }

    /// Links a session, or connects it again if it is linked; waits for the challenge, or for the
    /// connection.
    ///
    /// What is under way already is not begun again: a second call shows the same code.
    pub async fn connect(
        &self,
        caller: &Caller,
        name: &SessionName,
        method: LinkMethod,
        wait: Option<Duration>,
    ) -> Result<Settled, AppError> {
        let before = self.session(caller, name).await?;
        let mut waiter = self.wait_on(Topic::Session(before.id.clone()));
        let linked = before.identity.is_some() && !is_logged_out(before.desired, &before.link);
        if linked && matches!(method, LinkMethod::Code { .. }) {
            return Err(AppError::refused(
                Code::SessionAlreadyLinked,
                "the session is linked; log it out before you link it again",
            ));
        }
        if is_there(&before, &method, linked, self.now()) {
            return Ok(Settled {
                session: before,
                done: true,
            });
        }
        let wanted = (!linked).then(|| method.clone());
        // A second request for the same joins the first one, rather than restart it.
        let on_its_way = is_pending(&before)
            || matches!(before.link, LinkState::Connecting | LinkState::AwaitingScan);
        let same_method = wanted.is_none() || before.method == wanted;
        let under_way = before.desired == Desired::Running && on_its_way && same_method;
        if !under_way {
            self.set_desired(caller, name, Desired::Running, wanted)
                .await?;
        }
        let deadline = deadline(wait.unwrap_or(self.options().link_wait));
        let now = || self.now();
        let found = waiter
            .until(deadline, || async {
                let session = self.session(caller, name).await?;
                let fresh = session.challenge != before.challenge || linked;
                if fresh && is_there(&session, &method, linked, now()) {
                    return Ok(Some(session));
                }
                match link_failure(&session) {
                    Some(error) if session.link != before.link => Err(error),
                    _ => Ok(None),
                }
            })
            .await?;
        match found {
            Some(session) => Ok(Settled {
                session,
                done: true,
            }),
            None => Ok(Settled {
                session: self.session(caller, name).await?,
                done: false,
            }),
        }
    }

    /// The session, as soon as it shows a challenge or cannot show one any more; waits, bounded.
    pub async fn await_challenge(
        &self,
        caller: &Caller,
        name: &SessionName,
        wait: Duration,
    ) -> Result<Session, AppError> {
        let first = self.session(caller, name).await?;
        let mut waiter = self.wait_on(Topic::Session(first.id.clone()));
        let found = waiter
            .until(deadline(wait), || async {
                let session = self.session(caller, name).await?;
                let over = session.link.is_connected()
                    || session.link.is_permanent()
                    || session.desired != Desired::Running;
                let there = self.challenge_of(&session).is_some();
                Ok::<_, AppError>((there || over).then_some(session))
            })
            .await?;
        Ok(found.unwrap_or(first))
    }

    /// The challenge that a session shows, unless its time is over.
    pub fn challenge_of<'s>(&self, session: &'s Session) -> Option<&'s LinkChallenge> {
        let shown = matches!(session.link, LinkState::AwaitingScan) && !is_pending(session);
        session
            .challenge
            .as_ref()
            .filter(|challenge| shown && self.now() < challenge.expires_at())
    }

    /// Reads a phone number in the tenant's country.
    pub fn phone(&self, path: &str, text: &str) -> Result<PhoneNumber, AppError> {
        PhoneNumber::parse(text, self.options().default_region.as_deref())
            .map_err(|error| AppError::field(Code::InvalidField, path, error.to_string()))
    }

    /// Closes the connection and keeps the keys: it connects again with no QR.
    pub async fn disconnect(
        &self,
        caller: &Caller,
        name: &SessionName,
    ) -> Result<Settled, AppError> {
        self.settle(caller, name, Desired::Stopped).await
    }

    /// Unlinks the device at WhatsApp and deletes the keys; the session stays.
    pub async fn logout(&self, caller: &Caller, name: &SessionName) -> Result<Settled, AppError> {
        self.settle(caller, name, Desired::LoggedOut).await
    }

    /// Unlinks the device where it can, and removes the session with all that belongs to it. It is
    /// out of sight from now on, whether or not the worker is done.
    pub async fn delete_session(
        &self,
        caller: &Caller,
        name: &SessionName,
    ) -> Result<Settled, AppError> {
        self.settle(caller, name, Desired::Deleted).await
    }

    /// Closes the connection and opens it again; a session that is not linked asks for a new QR.
    pub async fn restart(&self, caller: &Caller, name: &SessionName) -> Result<Session, AppError> {
        let linked = self.session(caller, name).await?.identity.is_some();
        let method = (!linked).then_some(LinkMethod::Qr);
        let (session, _) = self
            .set_desired(caller, name, Desired::Running, method)
            .await?;
        Ok(session)
    }

    /// Writes a desired state and waits until the worker has made it true.
    async fn settle(
        &self,
        caller: &Caller,
        name: &SessionName,
        desired: Desired,
    ) -> Result<Settled, AppError> {
        let id = self.session(caller, name).await?.id;
        let mut waiter = self.wait_on(Topic::Session(id.clone()));
        let (session, generation) = self.set_desired(caller, name, desired, None).await?;
        let deadline = deadline(self.options().settle_wait);
        let found = waiter
            .until(deadline, || async {
                let id = id.clone();
                match self.db().read(move |tx| sessions::find(tx, &id)).await {
                    // The worker has removed it.
                    Err(StoreError::NotFound { .. }) => Ok(Some(None)),
                    Ok(now) if desired != Desired::Deleted && now.generation_done >= generation => {
                        Ok(Some(Some(now)))
                    }
                    Ok(_) => Ok(None),
                    Err(error) => Err(AppError::from(error)),
                }
            })
            .await?;
        Ok(match found {
            Some(Some(session)) => Settled {
                session,
                done: true,
            },
            Some(None) => Settled {
                session,
                done: true,
            },
            None => Settled {
                session,
                done: false,
            },
        })
    }

    async fn set_desired(
        &self,
        caller: &Caller,
        name: &SessionName,
        desired: Desired,
        method: Option<LinkMethod>,
    ) -> Result<(Session, Generation), AppError> {
        let (tenant, name, now) = (caller.tenant().clone(), name.clone(), self.now());
        let (session, generation) = self
            .db()
            .write_for(caller.tenant(), move |tx| {
                let before = sessions::get(tx, &tenant, &name)?;
                let method = method.as_ref();
                let generation =
                    sessions::set_desired(tx, &tenant, &before.id, desired, method, now)?;
                Ok((sessions::find(tx, &before.id)?, generation))
            })
            .await
            .map_err(not_found)?;
        self.publish(BusMessage::DesiredChanged {
            session: session.id.clone(),
        });
        if desired == Desired::Deleted {
            self.publish(BusMessage::EventsAppended {
                tenant: caller.tenant().clone(),
            });
        }
        Ok((session, generation))
    }
}

/// Why the session takes no messages, if it does not.
///
/// A session that lost its connection, or waits for a worker, takes them: they go out when it is back.
/// One that needs somebody to act first does not, since a message could wait there for ever.
pub(crate) fn refusal_to_send(session: &Sender) -> Option<(Code, &'static str)> {
    let refusal = match &session.link {
        link if !session.has_identity || is_logged_out(session.desired, link) => (
            Code::SessionNotLinked,
            "the session is not linked; connect it and scan the QR code",
        ),
        LinkState::Banned { .. } => (Code::SessionBanned, "WhatsApp has banned this account"),
        LinkState::Replaced => (
            Code::SessionReplaced,
            "another client has taken over this session's link; restart it to take it back",
        ),
        LinkState::Outdated => (
            Code::ClientOutdated,
            "WhatsApp no longer accepts this version; update wagate",
        ),
        _ if session.desired == Desired::Stopped => (
            Code::SessionStopped,
            "the session was disconnected; connect it before you send",
        ),
        _ => return None,
    };
    Some(refusal)
}

/// Whether a request waits to be taken up by the worker.
fn is_pending(session: &Session) -> bool {
    session.generation_done < session.generation
}

fn is_logged_out(desired: Desired, link: &LinkState) -> bool {
    desired == Desired::LoggedOut || matches!(link, LinkState::LoggedOut { .. })
}

/// Whether what `connect` waits for is there.
fn is_there(session: &Session, method: &LinkMethod, linked: bool, now: Timestamp) -> bool {
    // What is left from before the newest request is about to end.
    if session.desired != Desired::Running || is_pending(session) {
        return false;
    }
    if session.link.is_connected() {
        return true;
    }
    let wanted = match (method, &session.challenge) {
        (LinkMethod::Qr, Some(LinkChallenge::Qr { .. })) => true,
        (LinkMethod::Code { .. }, Some(LinkChallenge::Code { .. })) => {
            session.method.as_ref() == Some(method)
        }
        _ => false,
    };
    let shown = matches!(session.link, LinkState::AwaitingScan);
    !linked
        && shown
        && wanted
        && session
            .challenge
            .as_ref()
            .is_some_and(|c| now < c.expires_at())
}

/// What ended an attempt to link, if something did.
fn link_failure(session: &Session) -> Option<AppError> {
    let text = session.link.reason().map(|reason| reason.text.clone());
    let (code, text) = match &session.link {
        LinkState::LinkFailed { .. } | LinkState::LoggedOut { .. } => (
            Code::LinkFailed,
            text.unwrap_or_else(|| "the session could not be linked".to_owned()),
        ),
        LinkState::Banned { .. } => (
            Code::SessionBanned,
            "WhatsApp has banned this account".to_owned(),
        ),
        LinkState::Outdated => (
            Code::ClientOutdated,
            "WhatsApp no longer accepts this version; update wagate".to_owned(),
        ),
        _ => return None,
    };
    Some(AppError::refused(code, text))
}

fn check_label(path: &str, label: Option<&str>) -> Result<(), AppError> {
    let Some(label) = label else {
        return Ok(());
    };
    let fits = (1..=LABEL_BYTES_MAX).contains(&label.len()) && !label.contains('\0');
    if fits {
        return Ok(());
    }
    let message = format!("must have 1 to {LABEL_BYTES_MAX} bytes and no NUL");
    Err(AppError::field(Code::InvalidField, path, message))
}

/// Reads a session that the caller named, inside a transaction.
pub(crate) fn named(
    tx: &mut Tx<'_>,
    caller: &Caller,
    name: &SessionName,
) -> Result<Session, StoreError> {
    sessions::get(tx, caller.tenant(), name)
}
