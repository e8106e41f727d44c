//! Logins that are refused, and connections that the server ends.

use super::super::{AccountPatch, AccountStatus};
use super::*;

fn reason(net: &mut Net, companion: &mut Companion) -> Node {
    net.login(companion);
    let mut sent = net.take(companion.conn);
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(net.closed.contains_key(&companion.conn));
    sent.remove(0)
}

fn set_status(net: &mut Net, account: AccountId, status: AccountStatus) {
    let patch = AccountPatch {
        status: Some(status),
        ..AccountPatch::default()
    };
    net.run(|world, now, out| world.patch_account(now, account, patch, out))
        .unwrap();
}

#[test]
fn a_login_gets_success_with_its_lid() {
    let mut net = Net::new();
    let account = net.account("62811");
    let mut companion = net.link(account);
    net.login(&mut companion);
    let sent = net.take(companion.conn);
    assert_eq!(tags(&sent), ["success", "offline_preview", "offline"]);
    assert_eq!(sent[0].get("lid").unwrap(), companion.lid(&net).to_string());
    assert_eq!(sent[2].first().unwrap().get("count").unwrap(), "0");
    assert_eq!(net.world.counters.logins, 1);
}

#[test]
fn an_unknown_device_and_a_wrong_key_are_not_authorized() {
    let mut net = Net::new();
    let account = net.account("62811");
    let mut stranger = net.link(account);
    stranger.device = 9;
    assert_eq!(
        reason(&mut net, &mut stranger).get("reason").unwrap(),
        "401"
    );
    let mut thief = net.link(account);
    thief.static_key = [1; 32];
    assert_eq!(reason(&mut net, &mut thief).get("reason").unwrap(), "401");
    assert!(matches!(
        net.events.last(),
        Some(NetworkEvent::LoginRefused { reason: 401 })
    ));
}

#[test]
fn banned_locked_and_unregistered_accounts_are_refused() {
    let mut net = Net::new();
    let account = net.account("62811");
    let mut companion = net.link(account);
    set_status(
        &mut net,
        account,
        AccountStatus::Banned {
            code: 101,
            expire: 3600,
        },
    );
    let failure = reason(&mut net, &mut companion);
    assert_eq!(failure.get("reason").unwrap(), "402");
    assert_eq!(failure.get("code").unwrap(), "101");
    assert_eq!(failure.get("expire").unwrap(), "3600");
    set_status(&mut net, account, AccountStatus::Locked);
    assert_eq!(
        reason(&mut net, &mut companion).get("reason").unwrap(),
        "403"
    );
    set_status(&mut net, account, AccountStatus::Unregistered);
    assert!(net.world.account(account).unwrap().device(1).is_none());
    assert_eq!(
        reason(&mut net, &mut companion).get("reason").unwrap(),
        "401"
    );
    assert!(net.world.find(&Jid::pn("62811", 0)).is_none());
}

#[test]
fn a_client_is_told_its_edge_where_there_is_one() {
    let edge = Some(Bytes::from_static(b"edge"));
    let mut net = Net::with(WorldOptions {
        edge_routing: edge,
        ..WorldOptions::default()
    });
    let account = net.account("62811");
    let mut companion = net.link(account);
    net.login(&mut companion);
    let sent = net.take(companion.conn);
    assert_eq!(tags(&sent)[1], "edge_routing");
    let routing = sent[1].path(&["edge_routing", "routing_info"]).unwrap();
    assert_eq!(routing.text().unwrap(), "edge");
}

#[test]
fn an_outdated_client_is_refused() {
    let options = WorldOptions {
        minimum_version: [2, 3000, 5],
        ..WorldOptions::default()
    };
    let mut net = Net::with(options);
    let conn = net.conn();
    net.hello(conn, registration_payload([1; 32]), [2; 32]);
    assert_eq!(net.take(conn)[0].get("reason").unwrap(), "405");
}

#[test]
fn a_ban_ends_the_live_connection() {
    let mut net = Net::new();
    let account = net.account("62811");
    let companion = net.online(account);
    set_status(
        &mut net,
        account,
        AccountStatus::Banned {
            code: 102,
            expire: 60,
        },
    );
    assert_eq!(code(&net.take(companion.conn)[0]), "503");
    assert!(net.closed.contains_key(&companion.conn));
}

#[test]
fn a_second_login_replaces_the_first() {
    let mut net = Net::new();
    let account = net.account("62811");
    let older = net.online(account);
    let mut newer = older.clone();
    net.login(&mut newer);
    let conflict = net.take(older.conn).remove(0);
    assert_eq!(conflict.tag, "stream:error");
    assert_eq!(
        conflict.find("conflict").unwrap().get("type").unwrap(),
        "replaced"
    );
    assert!(net.closed.contains_key(&older.conn));
    assert_eq!(net.take(newer.conn)[0].tag, "success");
    // The older socket ends later and must not take the newer one along.
    net.drop_connection(&older);
    assert!(
        net.world
            .account(account)
            .unwrap()
            .device(1)
            .unwrap()
            .is_connected()
    );
}

#[test]
fn unlinking_from_the_phone_tells_companion_and_siblings() {
    let mut net = Net::new();
    let account = net.account("62811");
    let gone = net.online(account);
    let sibling = net.online(account);
    net.take(gone.conn);
    net.run(|world, now, out| world.unlink(now, account, gone.device, out))
        .unwrap();
    let farewell = net.take(gone.conn).remove(0);
    assert_eq!(code(&farewell), "401");
    assert_eq!(
        farewell.find("conflict").unwrap().get("type").unwrap(),
        "device_removed"
    );
    let notice = net.take(sibling.conn).remove(0);
    assert!(notice.path(&["remove", "device"]).is_some(), "{notice}");
    assert!(
        net.world
            .account(account)
            .unwrap()
            .device(gone.device)
            .is_none()
    );
    let mut again = gone;
    assert_eq!(reason(&mut net, &mut again).get("reason").unwrap(), "401");
}

#[test]
fn a_companion_logs_itself_out_and_no_other() {
    let mut net = Net::new();
    let account = net.account("62811");
    let companion = net.online(account);
    let sibling = net.online(account);
    let remove = |jid: Jid| {
        let request = Node::new("remove-companion-device")
            .attr("jid", jid)
            .attr("reason", "user_initiated");
        iq("set", "md", request)
    };
    let refused = net.ask(companion.conn, remove(sibling.pn()));
    assert_eq!(refused.get("type").unwrap(), "error");
    net.say(companion.conn, remove(companion.pn()));
    assert_eq!(tags(&net.take(companion.conn)), ["iq", "stream:error"]);
    assert!(net.closed.contains_key(&companion.conn));
    let unlinked = net.events.iter().any(|event| {
        matches!(
            event,
            NetworkEvent::Unlinked {
                device: 1,
                by_phone: false,
                ..
            }
        )
    });
    assert!(unlinked);
}
