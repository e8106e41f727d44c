//! A network for tests: one that only carries.

use std::collections::{HashMap, VecDeque};

use crate::jid::Jid;
use crate::node::Node;
use crate::phone::{
    AcceptedCompanion, Peer, Phone, PhoneEvent, PhoneKeys, PhoneOptions, PhonePort, PrekeyBundle,
};
use crate::world::{AccountId, Millis};

pub(super) const NOW: Millis = 1_700_000_000_000;

/// What everybody can look up.
#[derive(Default)]
pub(super) struct Directory {
    accounts: Vec<Entry>,
    bundles: HashMap<(AccountId, u16), (PrekeyBundle, VecDeque<crate::phone::Prekey>)>,
    pub(super) groups: HashMap<Jid, Vec<Jid>>,
    pub(super) completed: Vec<(String, AcceptedCompanion)>,
    next_key_index: u32,
    next_device: u16,
}

struct Entry {
    pn: Jid,
    lid: Jid,
    migrated: bool,
    devices: Vec<u16>,
}

/// Phones and what they said.
#[derive(Default)]
pub(super) struct Street {
    pub(super) directory: Directory,
    pub(super) phones: Vec<Phone>,
    pub(super) events: Vec<PhoneEvent>,
    /// Stanzas to companions, as the server would send them.
    pub(super) to_companions: Vec<(AccountId, u16, Node)>,
    /// Stanzas that phones sent, before delivery.
    pub(super) sent: Vec<(AccountId, Node)>,
    pub(super) now: Millis,
}

/// One phone's view of the street.
pub(super) struct Port<'a> {
    pub(super) directory: &'a mut Directory,
    pub(super) out: Vec<Node>,
    pub(super) events: &'a mut Vec<PhoneEvent>,
}

impl PhonePort for Port<'_> {
    fn peer(&mut self, jid: &Jid) -> Option<Peer> {
        let at = self
            .directory
            .accounts
            .iter()
            .position(|entry| entry.pn.user == jid.user || entry.lid.user == jid.user)?;
        let entry = &self.directory.accounts[at];
        Some(Peer {
            account: AccountId(u32::try_from(at).unwrap()),
            pn: entry.pn.clone(),
            lid: Some(entry.lid.clone()),
            migrated_to_lid: entry.migrated,
            devices: entry.devices.clone(),
        })
    }

    fn bundle(&mut self, account: AccountId, device: u16) -> Option<PrekeyBundle> {
        let (bundle, prekeys) = self.directory.bundles.get_mut(&(account, device))?;
        Some(PrekeyBundle {
            prekey: prekeys.pop_front(),
            ..bundle.clone()
        })
    }

    fn group_members(&mut self, group: &Jid) -> Vec<Jid> {
        self.directory
            .groups
            .get(group)
            .cloned()
            .unwrap_or_default()
    }

    fn complete_link(
        &mut self,
        reference: &str,
        companion: AcceptedCompanion,
    ) -> Result<u16, String> {
        if reference == "gone" {
            return Err("expired".to_owned());
        }
        self.directory
            .completed
            .push((reference.to_owned(), companion));
        self.directory.next_device += 1;
        Ok(self.directory.next_device)
    }

    fn next_key_index(&mut self) -> u32 {
        self.directory.next_key_index += 1;
        self.directory.next_key_index
    }

    fn send(&mut self, node: Node) {
        self.out.push(node);
    }

    fn event(&mut self, event: PhoneEvent) {
        self.events.push(event);
    }
}

impl Street {
    pub(super) fn new() -> Self {
        Self {
            now: NOW,
            ..Self::default()
        }
    }

    /// Moves a phone in.
    pub(super) fn add(&mut self, number: &str) -> AccountId {
        self.add_with(PhoneOptions::new(7, number))
    }

    pub(super) fn add_with(&mut self, options: PhoneOptions) -> AccountId {
        let account = AccountId(u32::try_from(self.phones.len()).unwrap());
        let lid = Jid::lid(format!("9{}", options.phone), 0);
        let mut phone = Phone::new(options).unwrap();
        self.publish(account, 0, &phone.keys());
        phone.register(account, Some(lid.clone()));
        let pn = phone.pn().clone();
        self.directory.accounts.push(Entry {
            pn,
            lid,
            migrated: false,
            devices: vec![0],
        });
        self.phones.push(phone);
        account
    }

    /// Migrates an account to LIDs.
    pub(super) fn migrate(&mut self, account: AccountId) {
        self.directory.accounts[account.0 as usize].migrated = true;
    }

    pub(super) fn publish(&mut self, account: AccountId, device: u16, keys: &PhoneKeys) {
        let bundle = PrekeyBundle {
            registration_id: keys.registration_id,
            identity: keys.identity,
            signed_prekey: keys.signed_prekey,
            prekey: None,
            device_identity: None,
        };
        self.directory
            .bundles
            .insert((account, device), (bundle, keys.prekeys.clone().into()));
        if let Some(entry) = self.directory.accounts.get_mut(account.0 as usize) {
            entry.devices.push(device);
        }
    }

    /// Runs `f` on a phone, then carries everything that follows from it.
    pub(super) fn with<R>(
        &mut self,
        account: AccountId,
        f: impl FnOnce(&mut Phone, Millis, &mut Port<'_>) -> R,
    ) -> R {
        let mut port = Port {
            directory: &mut self.directory,
            out: Vec::new(),
            events: &mut self.events,
        };
        let result = f(&mut self.phones[account.0 as usize], self.now, &mut port);
        let mut queue: VecDeque<(AccountId, Node)> = std::mem::take(&mut port.out)
            .into_iter()
            .map(|node| (account, node))
            .collect();
        while let Some((from, node)) = queue.pop_front() {
            self.sent.push((from, node.clone()));
            for (to, device, node) in self.route(from, 0, &node) {
                if device == 0 {
                    queue.extend(self.handle(to, &node).into_iter().map(|node| (to, node)));
                } else {
                    self.to_companions.push((to, device, node));
                }
            }
        }
        result
    }

    /// Hands a phone a stanza and answers what it sends.
    pub(super) fn handle(&mut self, account: AccountId, node: &Node) -> Vec<Node> {
        let mut port = Port {
            directory: &mut self.directory,
            out: Vec::new(),
            events: &mut self.events,
        };
        self.phones[account.0 as usize].handle(self.now, node, &mut port);
        port.out
    }

    /// A companion sends; phones get their copies.
    pub(super) fn send_from(&mut self, from: AccountId, device: u16, node: &Node) {
        for (to, target, node) in self.route(from, device, node) {
            if target == 0 {
                self.with(to, |phone, now, port| phone.handle(now, &node, port));
            } else {
                self.to_companions.push((to, target, node));
            }
        }
    }

    fn owner(&self, jid: &Jid) -> Option<AccountId> {
        let at = self
            .directory
            .accounts
            .iter()
            .position(|entry| entry.pn.user == jid.user || entry.lid.user == jid.user)?;
        Some(AccountId(u32::try_from(at).unwrap()))
    }

    fn address(&self, account: AccountId, like: &Jid, device: u16) -> Jid {
        let entry = &self.directory.accounts[account.0 as usize];
        let bare = if like.is_lid() { &entry.lid } else { &entry.pn };
        bare.with_device(device)
    }

    /// What the server makes of a message, receipt or chatstate.
    fn route(&self, from: AccountId, device: u16, node: &Node) -> Vec<(AccountId, u16, Node)> {
        let Some(to) = node.jid("to") else {
            return Vec::new();
        };
        match node.tag.as_ref() {
            "message" => self.route_message(from, device, &to, node),
            "receipt" if matches!(node.get("type").as_deref(), Some("peer_msg" | "sender")) => {
                Vec::new()
            }
            "receipt" | "chatstate" => {
                let mut forwarded = node.clone();
                forwarded.remove("to");
                let author = node
                    .jid("participant")
                    .filter(|_| to.is_group())
                    .unwrap_or_else(|| to.clone());
                let Some(account) = self.owner(&author) else {
                    return Vec::new();
                };
                if to.is_group() {
                    forwarded.set("from", to.clone());
                    forwarded.set("participant", self.address(from, &author, device));
                } else {
                    forwarded.set("from", self.address(from, &to, device));
                }
                vec![(account, author.device, forwarded)]
            }
            _ => Vec::new(),
        }
    }

    fn route_message(
        &self,
        from: AccountId,
        device: u16,
        to: &Jid,
        node: &Node,
    ) -> Vec<(AccountId, u16, Node)> {
        let shell = |like: &Jid| {
            let mut copy = node.clone();
            copy.remove("to");
            copy.remove("participant");
            copy.content = crate::node::Content::None;
            copy.set("t", self.now / 1_000);
            if to.is_group() {
                copy.set("from", to.clone());
                copy.set("participant", self.address(from, like, device));
            } else {
                copy.set("from", self.address(from, like, device));
            }
            copy
        };
        let direct: Vec<Node> = node.all("enc").cloned().collect();
        let mut out = Vec::new();
        let listed = node.find("participants").into_iter().flat_map(Node::nodes);
        for participant in listed {
            let jid = participant.jid("jid").unwrap();
            let Some(account) = self.owner(&jid) else {
                continue;
            };
            let mut copy = shell(&jid).children(participant.nodes().iter().cloned());
            if account == from && !to.is_group() {
                copy.set("recipient", to.clone());
            }
            out.push((account, jid.device, copy));
        }
        if to.is_group() {
            let only = node.jid("participant");
            for member in self.directory.groups.get(to).into_iter().flatten() {
                let account = self.owner(member).unwrap();
                for number in &self.directory.accounts[account.0 as usize].devices {
                    let me = (account, *number) == (from, device);
                    let asked = only.as_ref().is_none_or(|only| {
                        self.owner(only) == Some(account) && only.device == *number
                    });
                    if me || !asked {
                        continue;
                    }
                    let known = out
                        .iter()
                        .position(|(a, d, _)| (*a, *d) == (account, *number));
                    let at = known.unwrap_or_else(|| {
                        out.push((account, *number, shell(member)));
                        out.len() - 1
                    });
                    let copy = std::mem::replace(&mut out[at].2, Node::new(""));
                    out[at].2 = copy.children(direct.iter().cloned());
                }
            }
        } else if !direct.is_empty()
            && let Some(account) = self.owner(to)
        {
            out.push((account, to.device, shell(to).children(direct)));
        }
        out
    }

    /// What a phone's screen shows of a chat, oldest first.
    pub(super) fn texts(&self, account: AccountId) -> Vec<(String, u32)> {
        self.phones[account.0 as usize]
            .screen()
            .messages(None, 0)
            .map(|message| {
                (
                    message.text.clone().unwrap_or_default(),
                    message.wire_copies,
                )
            })
            .collect()
    }
}
