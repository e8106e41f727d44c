//! Linking: the pairing code, and what it means when the other side does not prove to be WhatsApp.
//!
//! QR texts come by themselves when an unlinked device connects; a pairing code is asked for over the same
//! connection. Both reach the actor as one stream of `EngineEvent::Challenge`.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use wacore::pair_code::{PairCodeError, PairCodeOptions};
use wacore::store::InMemoryBackend;
use wagate_domain::limits::PAIRING_CODE_TTL;
use wagate_domain::{LinkChallenge, PhoneNumber};
use whatsapp_rust::handshake::{HandshakeError, do_handshake};
use whatsapp_rust::pair_code::{PairCodeRejection, PairError};
use whatsapp_rust::store::persistence_manager::PersistenceManager;

use crate::engine::Shared;
use crate::error::EngineError;
use crate::event::EngineEvent;
use crate::runner::Inner;

/// How long asking for a code waits for the connection.
const SOCKET_WAIT: Duration = Duration::from_secs(30);
const CODE_WAIT: Duration = Duration::from_secs(20);

/// Asks WhatsApp for a pairing code for the account with this number.
pub(crate) async fn request_code(
    inner: &Inner,
    phone: &PhoneNumber,
) -> Result<LinkChallenge, EngineError> {
    if inner.client.pn().is_some() {
        return Err(EngineError::AlreadyLinked);
    }
    inner
        .client
        .wait_for_socket(SOCKET_WAIT)
        .await
        .map_err(|_| EngineError::Timeout {
            doing: "connecting",
        })?;
    let options = PairCodeOptions {
        phone_number: phone.digits().to_owned(),
        ..PairCodeOptions::default()
    };
    let asked = tokio::time::timeout(CODE_WAIT, inner.client.pair_with_code(options)).await;
    let code = match asked {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => return Err(code_error(error)),
        Err(_) => {
            return Err(EngineError::Timeout {
                doing: "asking for a pairing code",
            });
        }
    };
    let expires_at = inner.shared.clock.now().plus(PAIRING_CODE_TTL);
    let challenge = LinkChallenge::Code { code, expires_at };
    inner.hub.code_open(expires_at);
    inner.hub.emit(EngineEvent::Challenge(challenge.clone()));
    Ok(challenge)
}

fn code_error(error: PairError) -> EngineError {
    if error
        .rejection()
        .is_some_and(PairCodeRejection::is_throttled)
    {
        return EngineError::Throttled {
            after: error.backoff(),
        };
    }
    match error {
        PairError::PairCode(PairCodeError::CodeAlreadyOutstanding { remaining }) => {
            EngineError::CodeOutstanding { remaining }
        }
        PairError::PairCode(
            invalid @ (PairCodeError::PhoneNumberRequired
            | PairCodeError::PhoneNumberTooShort
            | PairCodeError::PhoneNumberNotInternational),
        ) => EngineError::Invalid(invalid.to_string()),
        other => EngineError::from_library("asking for a pairing code", other),
    }
}

/// Does one handshake with keys made for the occasion, to learn whether the other side is WhatsApp.
///
/// The library does not tell why a connection failed; this does, and logs in nobody.
pub(crate) async fn check_server(shared: &Shared) -> Result<(), EngineError> {
    let (transport, mut events) = shared.dialer.dial().await?;
    let nobody = PersistenceManager::new(Arc::new(InMemoryBackend::new()))
        .await
        .map_err(|error| EngineError::from_library("preparing a handshake", error))?;
    let result = do_handshake(
        Arc::clone(&shared.runtime),
        &nobody,
        &AtomicU32::new(0),
        Arc::clone(&transport),
        &mut events,
        None,
    )
    .await;
    transport.disconnect().await;
    match result {
        Ok(_) => Ok(()),
        Err(HandshakeError::Timeout) => Err(EngineError::Timeout {
            doing: "shaking hands",
        }),
        Err(error @ HandshakeError::Core(_)) => Err(EngineError::NotWhatsApp {
            reason: format!(
                "its certificate chain does not lead to WhatsApp's key, or its handshake is not \
                 WhatsApp's ({error})"
            ),
        }),
        Err(error) => Err(EngineError::Unreachable(Box::new(error))),
    }
}
