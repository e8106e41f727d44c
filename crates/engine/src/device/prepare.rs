//! What comes before a first message: whether there is an account, its devices, its keys.
//!
//! The library asks for each recipient by itself, three round trips for one. Here many are asked about
//! at once, so that the sends that follow find everything there.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use wacore_binary::Jid as LibraryJid;
use wagate_domain::Jid;

use super::{Device, Inner, REGISTRATIONS_MAX};
use crate::error::EngineError;
use crate::jid::{account, recipient};

/// How long the answers about a batch are kept: longer than anybody waits for his turn.
const ABSENT_FOR: Duration = Duration::from_secs(60);
const ABSENT_MAX: usize = 4096;

/// Who was found to have no account, and when: for those who asked while the answer was on its way. Whoever
/// wants to remember for longer does so himself.
#[derive(Debug, Default)]
pub(super) struct Absent(HashMap<Jid, Instant>);

impl Absent {
    fn forget(&mut self) {
        self.0.retain(|_, since| since.elapsed() < ABSENT_FOR);
    }

    fn note(&mut self, jids: &[Jid]) {
        if self.0.len() + jids.len() > ABSENT_MAX {
            self.0.clear();
        }
        let now = Instant::now();
        self.0.extend(jids.iter().map(|jid| (jid.clone(), now)));
    }
}

impl Device {
    /// Whether a message to this account can go out with nothing asked before.
    pub fn is_prepared(&self, to: &Jid) -> bool {
        let inner = self.inner();
        match recipient(to) {
            Ok(jid) if !to.is_user() || inner.is_own(&jid) => true,
            Ok(jid) => {
                let name = jid.to_string();
                inner.known_to_reach(|reached| reached.contains(name.as_str()))
            }
            // A send says what is wrong with it.
            Err(_) => true,
        }
    }

    /// Makes ready for messages to many accounts, a few round trips for fifty of them. Gives those of
    /// which WhatsApp says that they do not exist.
    ///
    /// Whoever could not be made ready for another reason is asked about again by the send itself.
    ///
    /// # Errors
    /// What WhatsApp refused as a whole, such as too many questions, and a connection that is gone.
    pub async fn prepare(&self, to: &[Jid]) -> Result<Vec<Jid>, EngineError> {
        self.ready()?;
        let asked = Instant::now();
        // Who comes second finds most of it done.
        let mut known_absent = self.0.preparing.lock().await;
        known_absent.forget();
        let (mut absent, to): (Vec<Jid>, Vec<Jid>) = to
            .iter()
            .cloned()
            .partition(|jid| known_absent.0.get(jid).is_some_and(|since| *since >= asked));
        let strangers: Vec<LibraryJid> = to
            .iter()
            .filter(|jid| !self.is_prepared(jid))
            .filter_map(|jid| recipient(jid).ok())
            .collect();
        for some in strangers.chunks(REGISTRATIONS_MAX) {
            let (present, missing) = self.inner().who_exists(some).await?;
            known_absent.note(&missing);
            absent.extend(missing);
            self.inner().fetch_keys(&present).await?;
        }
        Ok(absent)
    }

    /// Shows the recipient that somebody is typing, until a message comes or for a while.
    pub async fn show_typing(&self, to: &Jid) -> Result<(), EngineError> {
        self.ready()?;
        let jid = recipient(to)?;
        let shown = self.inner().client.chatstate().send_composing(&jid).await;
        shown.map_err(|error| EngineError::from_library("showing that somebody types", error))
    }
}

impl Inner {
    /// Those that have an account, as far as is known, and those that have none; learns their LIDs, before
    /// there are keys for them (see `learn_lid`).
    async fn who_exists(
        &self,
        jids: &[LibraryJid],
    ) -> Result<(Vec<LibraryJid>, Vec<Jid>), EngineError> {
        let mut unknown = Vec::new();
        for jid in jids {
            if jid.is_pn() && !self.knows_lid(jid).await {
                unknown.push(jid.clone());
            }
        }
        let contacts = self.client.contacts();
        let answers = contacts
            .is_on_whatsapp(&unknown)
            .await
            .map_err(|error| EngineError::from_library("looking up numbers", error))?;
        let is_absent = |jid: &LibraryJid| {
            let about = answers.iter().filter(|answer| answer.jid.user == jid.user);
            about.clone().count() > 0 && !about.clone().any(|answer| answer.is_registered)
        };
        let (missing, present): (Vec<_>, Vec<_>) =
            jids.iter().cloned().partition(|jid| is_absent(jid));
        Ok((present, missing.iter().filter_map(account).collect()))
    }

    /// Fetches the devices of all of them, then what keys are missing, and notes who can be written to.
    async fn fetch_keys(&self, jids: &[LibraryJid]) -> Result<(), EngineError> {
        if jids.is_empty() {
            return Ok(());
        }
        let signal = self.client.signal();
        let devices = signal
            .get_user_devices(jids)
            .await
            .map_err(|error| EngineError::from_library("looking up devices", error))?;
        signal
            .assert_sessions(&devices)
            .await
            .map_err(|error| EngineError::from_library("fetching keys", error))?;
        for jid in jids {
            let valid = signal
                .validate_session(jid)
                .await
                .map_err(|error| EngineError::from_library("checking keys", error))?;
            if valid {
                self.reaches(&jid.to_string());
            }
        }
        Ok(())
    }
}
