//! Every request that the three clients make while they come up, and the prekeys behind them.

use sha1::Digest as _;

use super::*;

fn key(id: u32) -> Node {
    Node::new("key")
        .child(Node::new("id").bytes(id.to_be_bytes()[1..].to_vec()))
        .child(Node::new("value").bytes(vec![u8::try_from(id % 250).unwrap(); 32]))
}

fn upload(companion: &Companion, ids: std::ops::Range<u32>) -> Node {
    let skey = Node::new("skey")
        .child(Node::new("id").bytes(vec![0, 0, 2]))
        .child(Node::new("value").bytes(vec![6; 32]))
        .child(Node::new("signature").bytes(vec![7; 64]));
    let mut request = iq(
        "set",
        "encrypt",
        Node::new("registration").bytes(vec![0, 0, 0, 9]),
    );
    for child in [
        Node::new("type").bytes(vec![5]),
        Node::new("identity").bytes(public(&companion.identity).to_vec()),
        Node::new("list").children(ids.map(key)),
        skey,
    ] {
        request.push(child);
    }
    request
}

fn fetch(jids: &[Jid]) -> Node {
    let users = jids.iter().map(|jid| Node::new("user").attr("jid", jid));
    iq("get", "encrypt", Node::new("key").children(users))
}

fn count(net: &mut Net, companion: &Companion) -> String {
    let answer = net.ask(companion.conn, iq("get", "encrypt", Node::new("count")));
    answer
        .find("count")
        .unwrap()
        .get("value")
        .unwrap()
        .into_owned()
}

fn pair() -> (Net, Companion, Companion) {
    let mut net = Net::new();
    let (ann, bob) = (net.account("62811"), net.account("62822"));
    let (ann, bob) = (net.online(ann), net.online(bob));
    (net, ann, bob)
}

#[test]
fn prekeys_are_merged_counted_and_handed_out_once() {
    let (mut net, ann, bob) = pair();
    assert_eq!(count(&mut net, &bob), "0");
    net.say(bob.conn, upload(&bob, 1..8));
    assert_eq!(net.greeted, [(bob.account, bob.device)]);
    net.say(bob.conn, upload(&bob, 5..11));
    assert_eq!(net.greeted.len(), 1, "the phone greets once");
    assert_eq!(count(&mut net, &bob), "10");
    let mut given = Vec::new();
    for _ in 0..2 {
        let answer = net.ask(ann.conn, fetch(&[bob.pn(), bob.lid(&net)]));
        for user in answer.find("list").unwrap().all("user") {
            assert_eq!(
                user.find("registration").unwrap().data().unwrap()[..],
                [0, 0, 0, 9]
            );
            assert!(user.find("device-identity").is_some());
            given.push(user.path(&["key", "id"]).unwrap().data().unwrap());
        }
    }
    let unique: std::collections::BTreeSet<_> = given.iter().collect();
    assert_eq!((given.len(), unique.len()), (4, 4));
    // What was handed out does not come back by another upload.
    net.say(bob.conn, upload(&bob, 1..11));
    assert_eq!(count(&mut net, &bob), "6");
}

#[test]
fn an_exhausted_device_is_answered_without_a_key_and_told_on_the_way() {
    let (mut net, ann, bob) = pair();
    net.say(bob.conn, upload(&bob, 1..6));
    net.take(bob.conn);
    for _ in 0..5 {
        let answer = net.ask(ann.conn, fetch(&[bob.pn()]));
        assert!(answer.path(&["list", "user", "key"]).is_some());
    }
    let notices: Vec<_> = net
        .take(bob.conn)
        .iter()
        .map(|notice| {
            notice
                .find("count")
                .unwrap()
                .get("value")
                .unwrap()
                .into_owned()
        })
        .collect();
    assert_eq!(notices, ["4", "0"]);
    let answer = net.ask(ann.conn, fetch(&[bob.pn()]));
    let user = answer.path(&["list", "user"]).unwrap();
    assert!(user.find("key").is_none() && user.find("skey").is_some());
    assert_eq!(net.world.counters.prekeys_exhausted, 1);
}

#[test]
fn the_phone_is_answered_too_and_unknown_devices_are_errors() {
    let (mut net, ann, bob) = pair();
    let nobody = Jid::pn("62899", 0);
    let answer = net.ask(
        ann.conn,
        fetch(&[bob.pn().bare(), bob.pn().with_device(9), nobody]),
    );
    let users: Vec<_> = answer.find("list").unwrap().all("user").collect();
    assert!(users[0].find("key").is_some() && users[0].find("device-identity").is_none());
    for user in &users[1..] {
        assert_eq!(user.find("error").unwrap().get("code").unwrap(), "404");
    }
}

#[test]
fn the_digest_covers_everything_in_order_of_upload() {
    let (mut net, _, bob) = pair();
    let request = iq("get", "encrypt", Node::new("digest"));
    assert_eq!(
        net.ask(bob.conn, request.clone()).get("type").unwrap(),
        "error"
    );
    net.say(bob.conn, upload(&bob, 3..5));
    net.say(bob.conn, upload(&bob, 1..2));
    let answer = net.ask(bob.conn, request);
    let digest = answer.find("digest").unwrap();
    let ids: Vec<_> = digest
        .find("list")
        .unwrap()
        .all("id")
        .map(|id| id.data().unwrap()[2])
        .collect();
    assert_eq!(ids, [3, 4, 1]);
    let mut hash = sha1::Sha1::new();
    hash.update(public(&bob.identity));
    hash.update([6; 32]);
    hash.update([7; 64]);
    for id in [3, 4, 1] {
        hash.update([id; 32]);
    }
    assert_eq!(
        digest.find("hash").unwrap().data().unwrap()[..],
        hash.finalize()[..]
    );
}

#[test]
fn keys_under_another_identity_are_refused() {
    let (mut net, ann, bob) = pair();
    let answer = net.ask(bob.conn, upload(&ann, 1..3));
    assert_eq!(answer.find("error").unwrap().get("code").unwrap(), "406");
}

#[test]
fn usync_lists_devices_with_the_signed_list_and_heeds_hints() {
    let (mut net, ann, bob) = pair();
    let ask = |net: &mut Net, user: Node| {
        let usync = Node::new("usync")
            .attr("sid", "s1")
            .attr("mode", "query")
            .attr("context", "message")
            .child(Node::new("query").child(Node::new("devices").attr("version", "2")))
            .child(Node::new("list").child(user));
        net.ask(ann.conn, iq("get", "usync", usync))
    };
    let user = Node::new("user").attr("jid", bob.lid(&net).bare());
    let answer = ask(&mut net, user.clone());
    let usync = answer.find("usync").unwrap();
    assert_eq!(usync.get("sid").unwrap(), "s1");
    assert!(usync.find("result").is_some());
    let found = usync.path(&["list", "user"]).unwrap();
    assert_eq!(found.get("pn_jid").unwrap(), bob.pn().bare().to_string());
    let devices = found.find("devices").unwrap();
    let list = devices.find("device-list").unwrap();
    let ids: Vec<_> = list
        .all("device")
        .map(|d| (d.get("id"), d.get("key-index")))
        .collect();
    assert_eq!(
        ids,
        [
            (Some("0".into()), None),
            (Some("1".into()), Some("1".into()))
        ]
    );
    let signed = devices.find("key-index-list").unwrap();
    assert_eq!(
        (
            signed.get("ts").unwrap().as_ref(),
            signed.text().unwrap().as_str()
        ),
        ("5", "signed list")
    );
    let hint = Node::new("devices").attr("device_hash", list.get("hash").unwrap().into_owned());
    let unchanged = ask(&mut net, user.child(hint));
    assert!(unchanged.path(&["usync", "list", "user"]).is_none());
}

#[test]
fn usync_finds_people_by_number_and_their_lid() {
    let (mut net, ann, bob) = pair();
    let user = |number: &str| {
        Node::new("user").child(Node::new("contact").bytes(number.as_bytes().to_vec()))
    };
    let usync = Node::new("usync")
        .attr("sid", "s1")
        .child(
            Node::new("query")
                .child(Node::new("contact"))
                .child(Node::new("lid")),
        )
        .child(
            Node::new("list")
                .child(user("+62822"))
                .child(user("+62899")),
        );
    let answer = net.ask(ann.conn, iq("get", "usync", usync));
    let users: Vec<_> = answer
        .path(&["usync", "list"])
        .unwrap()
        .all("user")
        .cloned()
        .collect();
    assert_eq!(users[0].find("contact").unwrap().get("type").unwrap(), "in");
    assert_eq!(
        users[0].find("lid").unwrap().get("val").unwrap(),
        bob.lid(&net).bare().to_string()
    );
    assert_eq!(
        users[1].find("contact").unwrap().get("type").unwrap(),
        "out"
    );
    assert!(users[1].find("lid").is_none());
}

#[test]
fn the_rest_of_bring_up_is_answered() {
    let mut net = Net::with(WorldOptions {
        ab_props: vec![(10_518, "true".to_owned())],
        media_host: "localhost:8443".to_owned(),
        ..WorldOptions::default()
    });
    let account = net.account("62811");
    let ann = net.online(account);
    let answer = net.ask(
        ann.conn,
        iq("get", "abt", Node::new("props").attr("protocol", "1")),
    );
    let prop = answer.path(&["props", "prop"]).unwrap();
    assert_eq!(prop.get("config_code").unwrap(), "10518");
    let answer = net.ask(
        ann.conn,
        iq("get", "w", Node::new("props").attr("protocol", "2")),
    );
    assert_eq!(
        answer
            .path(&["props", "prop"])
            .unwrap()
            .get("name")
            .unwrap(),
        "10518"
    );
    let answer = net.ask(ann.conn, iq("get", "privacy", Node::new("privacy")));
    assert_eq!(answer.find("privacy").unwrap().all("category").count(), 8);
    let answer = net.ask(ann.conn, iq("set", "w:m", Node::new("media_conn")));
    let host = answer.path(&["media_conn", "host"]).unwrap();
    assert_eq!(host.get("hostname").unwrap(), "localhost:8443");
    let ping = Node::new("iq")
        .attr("to", Jid::SERVER)
        .attr("id", "p")
        .attr("type", "get")
        .attr("xmlns", "w:p");
    assert_eq!(net.ask(ann.conn, ping).get("type").unwrap(), "result");
    let answer = net.ask(ann.conn, iq("get", "never:heard", Node::new("of")));
    assert_eq!(
        (answer.get("type").unwrap().as_ref(), answer.nodes().len()),
        ("result", 0)
    );
    assert_eq!(net.world.counters.requests_unknown, 1);
    net.say(
        ann.conn,
        Node::new("ib").child(Node::new("unified_session")),
    );
    net.say(ann.conn, Node::new("nonsense"));
    assert!(net.take(ann.conn).is_empty());
}

#[test]
fn a_device_with_few_prekeys_is_told_at_login() {
    let (mut net, _, mut bob) = pair();
    net.say(bob.conn, upload(&bob, 1..4));
    net.drop_connection(&bob);
    net.login(&mut bob);
    let sent = net.take(bob.conn);
    assert_eq!(
        tags(&sent),
        ["success", "notification", "offline_preview", "offline"]
    );
    assert_eq!(sent[1].find("count").unwrap().get("value").unwrap(), "3");
}
