//! Registration and login: a new connection gets QR references, `success`, or `failure`.

use super::accounts::AccountStatus;
use super::offline::info;
use super::turn::{Origin, Turn};
use super::{AccountId, DeviceId, Hello, NetworkEvent, World};
use crate::faults::{Action, Party};
use crate::node::Node;
use crate::transcript::Note;

/// Why a login is refused: the number in `failure`, and what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// 401: unknown device, wrong key, or no longer on WhatsApp.
    NotAuthorized,
    /// 402: banned for a while.
    Banned { code: u16, expire: u32 },
    /// 403: the account is locked.
    Locked,
    /// 405: the client is too old.
    Outdated,
}

/// A registration brings pairing data and no user name.
pub(super) fn is_registration(hello: &Hello) -> bool {
    hello.payload.username.is_none() && hello.payload.device_pairing_data.is_set()
}

fn version(hello: &Hello) -> [u32; 3] {
    let version = &hello.payload.user_agent.app_version;
    [
        version.primary.unwrap_or_default(),
        version.secondary.unwrap_or_default(),
        version.tertiary.unwrap_or_default(),
    ]
}

impl World {
    /// Who a login says it is, for the fault plan: nothing is proved yet.
    pub(super) fn login_party(&self, hello: &Hello) -> Party {
        match self.claimed(hello) {
            Some((account, device)) => self.party(Origin::Companion {
                account,
                device,
                conn: hello.conn,
            }),
            None => Party::unlinked(hello.conn),
        }
    }

    fn claimed(&self, hello: &Hello) -> Option<(AccountId, DeviceId)> {
        let phone = hello.payload.username?.to_string();
        let account = *self.by_phone.get(phone.as_str())?;
        let device = DeviceId::try_from(hello.payload.device.unwrap_or_default()).ok()?;
        Some((account, device))
    }

    /// Checks a login: known device, right key, usable account, recent version.
    fn authenticate(&self, hello: &Hello) -> Result<(AccountId, DeviceId), Refusal> {
        self.check_version(hello)?;
        let (account, device) = self.claimed(hello).ok_or(Refusal::NotAuthorized)?;
        let known = self.account(account).ok_or(Refusal::NotAuthorized)?;
        match known.status {
            AccountStatus::Active => {}
            AccountStatus::Banned { code, expire } => return Err(Refusal::Banned { code, expire }),
            AccountStatus::Locked => return Err(Refusal::Locked),
            AccountStatus::Unregistered => return Err(Refusal::NotAuthorized),
        }
        let key = known.device(device).and_then(|device| device.static_key);
        if key != Some(hello.static_key) {
            return Err(Refusal::NotAuthorized);
        }
        Ok((account, device))
    }

    fn check_version(&self, hello: &Hello) -> Result<(), Refusal> {
        if version(hello) < self.options.minimum_version {
            return Err(Refusal::Outdated);
        }
        Ok(())
    }
}

impl Turn<'_> {
    /// Offers QR references to a connection that wants to be linked.
    pub(super) fn register(&mut self, hello: &Hello) {
        self.world.counters.registrations += 1;
        if let Err(refusal) = self.world.check_version(hello) {
            self.refuse(hello, refusal);
            return;
        }
        self.offer_link(hello);
    }

    pub(super) fn login(&mut self, hello: &Hello) {
        match self.world.authenticate(hello) {
            Ok((account, device)) => self.succeed(hello, account, device),
            Err(refusal) => self.refuse(hello, refusal),
        }
    }

    fn refuse(&mut self, hello: &Hello, refusal: Refusal) {
        let (reason, code, expire) = match refusal {
            Refusal::NotAuthorized => (401, None, None),
            Refusal::Banned { code, expire } => (402, Some(code), Some(expire)),
            Refusal::Locked => (403, None, None),
            Refusal::Outdated => (405, None, None),
        };
        self.world.counters.logins_refused += 1;
        let location = Some("sandbox".to_owned());
        let action = Action::Failure {
            reason,
            code,
            expire,
            location,
            message: None,
            url: None,
        };
        self.disturb(Origin::Unlinked(hello.conn), &action, None);
        self.event(NetworkEvent::LoginRefused { reason });
    }

    fn succeed(&mut self, hello: &Hello, account: AccountId, number: DeviceId) {
        let conn = hello.conn;
        let replaced = self.replace(account, number);
        let Some(connection) = self.world.connections.get_mut(&conn) else {
            return;
        };
        connection.login = Some((account, number));
        let Some(device) = self.world.device_mut(account, number) else {
            return;
        };
        device.conn = Some(conn);
        device.mailbox.rewind();
        let greeted = device.greeted;
        let prekeys = device.keys.one_time_count();
        let low = self.world.options.low_prekeys;

        self.world.counters.logins += 1;
        let origin = Origin::Companion {
            account,
            device: number,
            conn,
        };
        let party = self.world.party(origin);
        self.world
            .transcript
            .note(self.now, Note::connected(&party, conn, replaced));
        let success = self.success(account, number);
        self.emit(origin, success);
        if let Some(routing) = self.world.options.edge_routing.clone() {
            let routing = Node::new("routing_info").bytes(routing);
            self.emit(origin, info(Node::new("edge_routing").child(routing)));
        }
        self.event(NetworkEvent::Connected {
            account,
            device: number,
        });
        // A device that never uploaded is about to do so by itself.
        if greeted && prekeys <= low {
            self.notify_low_prekeys(account, number);
        }
        // A passive login takes its queue only after `passive/active`.
        if !hello.payload.passive.unwrap_or_default() {
            self.begin_offline(conn);
        }
    }

    fn success(&self, id: AccountId, number: DeviceId) -> Node {
        let node = Node::new("success").attr("t", self.seconds());
        let Some(account) = self.world.account(id) else {
            return node;
        };
        let name = account
            .business_name
            .as_ref()
            .unwrap_or(&account.push_name)
            .clone();
        node.attr("props", 27_u32)
            .attr("companion_enc_static", "sandbox")
            .attr("abprops", 1_u32)
            .attr("group_abprops", 1_u32)
            .attr("location", "sandbox")
            .attr("creation", account.created_at.div_euclid(1_000))
            .attr("display_name", name)
            .attr("lid", account.lid_jid().with_device(number))
    }
}
