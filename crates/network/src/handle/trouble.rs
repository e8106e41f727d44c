//! What a test does to an account's companions: cut them off, silence them, refuse them, lose their
//! acknowledgements. Everything here is a fault rule or a disturbance that the control API offers too.

use crate::faults::{Action, FaultError, FaultRule, Match, StreamErrorDetail, When};
use crate::world::Device;
use crate::world::turn::Turn;

use super::{HandleError, PhoneHandle};

/// The name of the rules of [`PhoneHandle::refuse_connect`], by which they are taken back.
const REFUSAL: &str = "refused by the phone's handle";

impl PhoneHandle {
    /// Pulls the cable of every connected companion: no close frame, no last word.
    pub fn drop_companions(&self) {
        self.disturb(&Action::Close { abrupt: true });
    }

    /// Leaves the companions' connections open but dead.
    pub fn silence_companions(&self) {
        self.disturb(&Action::Silence);
    }

    /// Ends the companions' connections with a `stream:error`: `conflict_replaced`,
    /// `conflict_device_removed`, or a code such as `503`.
    ///
    /// # Errors
    /// When `what` is neither.
    pub async fn stream_error(&self, what: &str) -> Result<(), HandleError> {
        let detail = match what {
            "conflict_replaced" => Some(StreamErrorDetail::ConflictReplaced),
            "conflict_device_removed" => Some(StreamErrorDetail::ConflictDeviceRemoved),
            _ => None,
        };
        let code = match detail {
            Some(StreamErrorDetail::ConflictDeviceRemoved) => Some(401),
            Some(_) => None,
            None => Some(number("stream_error", what)?),
        };
        self.disturb(&Action::StreamError {
            code,
            detail,
            close: true,
        });
        // What the phones were about to do happens before the trouble is visible to the test.
        self.settle().await;
        Ok(())
    }

    /// Refuses the companions' next logins: `ban`, `locked`, `outdated`, `logged_out`, or the reason's
    /// number. Companions that are connected stay so.
    ///
    /// # Errors
    /// When `failure` is none of them.
    pub async fn refuse_connect(&self, failure: &str) -> Result<(), HandleError> {
        let (reason, code, expire) = match failure {
            "ban" => (402, Some(101), Some(3_600)),
            "locked" => (403, None, None),
            "outdated" => (405, None, None),
            "logged_out" => (401, None, None),
            other => (number("refuse_connect", other)?, None, None),
        };
        let action = Action::Failure {
            reason,
            code,
            expire,
            location: None,
            message: None,
            url: None,
        };
        let mut rule = FaultRule::new(Match::connect().account(&self.number), action);
        rule.name = Some(REFUSAL.to_owned());
        self.fault(rule)?;
        // What the phones were about to do happens before the trouble is visible to the test.
        self.settle().await;
        Ok(())
    }

    /// Takes back all of [`PhoneHandle::refuse_connect`].
    pub fn accept_connects(&self) {
        self.world(|world, _, _| {
            for report in world.faults.list() {
                let mine = report.rule.name.as_deref() == Some(REFUSAL)
                    && report.rule.matches.account.as_deref() == Some(self.number.as_str());
                if mine {
                    world.faults.remove(report.id);
                }
            }
        });
    }

    /// Delivers the next messages of the companions without acknowledging them.
    pub fn lose_acks(&self, times: u32) {
        let matches = Match::from_device("message").account(&self.number);
        let rule = FaultRule::new(matches, Action::NoAck).when(When {
            times: Some(times),
            ..When::default()
        });
        let added = self.fault(rule);
        debug_assert!(added.is_ok(), "the rule is sound");
    }

    /// Unlinks all companions from the phone's list.
    ///
    /// # Errors
    /// When the account is gone.
    pub async fn unlink_all(&self) -> Result<(), HandleError> {
        for device in self.companion_devices() {
            self.unlink(device).await?;
        }
        Ok(())
    }

    fn fault(&self, rule: FaultRule) -> Result<(), HandleError> {
        self.world(|world, _, _| world.faults.add(rule))?;
        Ok(())
    }

    fn disturb(&self, action: &Action) {
        self.world(|world, now, out| {
            let origins: Vec<_> = world
                .account(self.account)
                .into_iter()
                .flat_map(|account| account.devices().filter_map(Device::origin))
                .collect();
            let mut turn = Turn { world, now, out };
            for origin in origins {
                turn.disturb(origin, action, None);
            }
        });
    }
}

fn number(field: &'static str, text: &str) -> Result<u16, FaultError> {
    text.parse()
        .map_err(|_| FaultError::new(field, format!("`{text}` is not known here")))
}
