//! A phone's way to the world: look-ups take the world's lock each, what the phone sends waits until
//! it is finished and then goes out under one.

use crate::jid::Jid;
use crate::node::Node;
use crate::phone::{AcceptedCompanion, Peer, PhoneEvent, PhonePort, PrekeyBundle};
use crate::world::{AccountId, Effect, Millis, NetworkEvent, World};

use super::Shell;

pub(super) struct ShellPort<'a> {
    shell: &'a dyn Shell,
    account: AccountId,
    out: Vec<Out>,
}

enum Out {
    Stanza(Node),
    Event(PhoneEvent),
}

impl<'a> ShellPort<'a> {
    pub(super) fn new(shell: &'a dyn Shell, account: AccountId) -> Self {
        Self {
            shell,
            account,
            out: Vec::new(),
        }
    }

    /// Gives the world what the phone sent and told, in order.
    pub(super) fn flush(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let (account, mut out) = (self.account, std::mem::take(&mut self.out));
        self.shell.with_world(&mut |world, now, effects| {
            for item in out.drain(..) {
                match item {
                    Out::Stanza(node) => world.from_phone(now, account, node, effects),
                    Out::Event(event) => {
                        note(world, now, account, &event);
                        effects.push(Effect::Event(NetworkEvent::Phone(event)));
                    }
                }
            }
        });
    }

    fn world<R>(&self, mut f: impl FnMut(&mut World, Millis, &mut Vec<Effect>) -> R) -> Option<R> {
        let mut result = None;
        self.shell
            .with_world(&mut |world, now, effects| result = Some(f(world, now, effects)));
        result
    }
}

fn note(world: &mut World, now: Millis, account: AccountId, event: &PhoneEvent) {
    let Some(owner) = world.account(account) else {
        return;
    };
    let phone = owner.phone.clone();
    world.transcript.note_phone(now, &phone, event);
}

impl PhonePort for ShellPort<'_> {
    fn peer(&mut self, jid: &Jid) -> Option<Peer> {
        self.world(|world, _, _| {
            let account = world.find(jid)?;
            Some(Peer {
                account: account.id,
                pn: account.pn(),
                lid: Some(account.lid_jid()),
                migrated_to_lid: account.migrated_to_lid,
                devices: account.devices().map(|device| device.number).collect(),
            })
        })?
    }

    fn bundle(&mut self, account: AccountId, device: u16) -> Option<PrekeyBundle> {
        let to = self.account;
        self.world(|world, now, out| world.bundle(now, to, (account, device), out))?
    }

    /// The world has no groups so far, so nobody is in one.
    fn group_members(&mut self, _: &Jid) -> Vec<Jid> {
        Vec::new()
    }

    fn complete_link(
        &mut self,
        reference: &str,
        companion: AcceptedCompanion,
    ) -> Result<u16, String> {
        let account = self.account;
        self.world(|world, now, effects| {
            world.complete_link(now, reference, account, companion.clone(), effects)
        })
        .ok_or_else(|| "the network is gone".to_owned())?
        .map_err(|error| error.to_string())
    }

    fn next_key_index(&mut self) -> u32 {
        let account = self.account;
        self.world(|world, _, _| world.next_key_index(account))
            .unwrap_or_default()
    }

    fn send(&mut self, node: Node) {
        self.out.push(Out::Stanza(node));
    }

    fn event(&mut self, event: PhoneEvent) {
        self.out.push(Out::Event(event));
    }
}
