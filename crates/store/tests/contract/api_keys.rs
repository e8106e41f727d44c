//! API keys: found by their secret while they are valid, and never stored in plain.

use wagate_domain::Timestamp;
use wagate_store::api_keys::{self, ApiKeyIdentity, NewApiKey};
use wagate_store::{StoreError, tenants};

use crate::support::{Fixture, NOW, after};

contract!(
    a_secret_finds_its_tenant_until_it_ends,
    a_rotated_key_has_a_new_secret,
    a_secret_is_not_stored,
    a_tenants_name_is_taken_once,
);

async fn find(f: &Fixture, secret: &str, now: Timestamp) -> Option<ApiKeyIdentity> {
    let secret = secret.to_owned();
    f.read(move |tx| api_keys::find_by_secret(tx, &secret, now))
        .await
}

async fn a_secret_finds_its_tenant_until_it_ends(f: Fixture) {
    let tenant = f.tenant("acme").await;
    let new = NewApiKey {
        name: "ci".into(),
        expires_at: Some(after(60)),
    };
    let owner = tenant.clone();
    let (key, secret) = f
        .write(move |tx| api_keys::create(tx, &owner, &new, NOW))
        .await;
    assert!(secret.starts_with(&key.prefix) && secret.len() > key.prefix.len() + 40);
    let found = find(&f, &secret, after(59)).await.unwrap();
    assert_eq!((&found.tenant, &found.key), (&tenant, &key.id));
    assert_eq!(find(&f, &secret, after(60)).await, None);
    let mut wrong = secret.clone();
    let last = wrong.pop().unwrap();
    wrong.push(if last == 'A' { 'B' } else { 'A' });
    for text in [
        wrong.as_str(),
        "",
        "wg_",
        "wg_x_y",
        key.prefix.as_str(),
        "wg_'; --_",
    ] {
        assert_eq!(find(&f, text, NOW).await, None, "{text}");
    }
    let (owner, id) = (tenant.clone(), key.id.clone());
    f.write(move |tx| api_keys::revoke(tx, &owner, &id, after(5)))
        .await;
    assert_eq!(find(&f, &secret, after(6)).await, None);
    let listed = f.read(move |tx| api_keys::list(tx, &tenant)).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0].name, listed[0].revoked_at),
        (&key.name, Some(after(5)))
    );
}

async fn a_rotated_key_has_a_new_secret(f: Fixture) {
    let tenant = f.tenant("acme").await;
    let new = NewApiKey {
        name: "ci".into(),
        expires_at: None,
    };
    let owner = tenant.clone();
    let (key, old) = f
        .write(move |tx| api_keys::create(tx, &owner, &new, NOW))
        .await;
    let (owner, id) = (tenant.clone(), key.id.clone());
    let new = f.write(move |tx| api_keys::rotate(tx, &owner, &id)).await;
    assert_eq!(find(&f, &old, NOW).await, None);
    assert_eq!(find(&f, &new, NOW).await.unwrap().key, key.id);
    let (owner, id) = (tenant.clone(), key.id.clone());
    f.write(move |tx| api_keys::revoke(tx, &owner, &id, NOW))
        .await;
    let ended =
        f.db.write(move |tx| api_keys::rotate(tx, &tenant, &key.id))
            .await;
    assert!(matches!(ended, Err(StoreError::NotFound { .. })));
}

async fn a_secret_is_not_stored(f: Fixture) {
    let tenant = f.tenant("acme").await;
    let new = NewApiKey {
        name: "ci".into(),
        expires_at: None,
    };
    let (_, secret) = f
        .write(move |tx| api_keys::create(tx, &tenant, &new, NOW))
        .await;
    let random = secret.splitn(3, '_').nth(2).unwrap();
    let check = format!(
        "CREATE TABLE leak (n BIGINT CHECK (n = 0)); INSERT INTO leak \
         SELECT COUNT(*) FROM api_keys WHERE prefix LIKE '%{random}%' OR name LIKE '%{random}%'"
    );
    f.raw(&check).unwrap();
    if let Some(path) = f.options.url.strip_prefix("sqlite:") {
        for file in [path.to_owned(), format!("{path}-wal")] {
            let bytes = std::fs::read(file).unwrap();
            assert!(
                !bytes
                    .windows(random.len())
                    .any(|window| window == random.as_bytes())
            );
        }
    }
}

async fn a_tenants_name_is_taken_once(f: Fixture) {
    let made = f.tenant("acme").await;
    let again = f.db.write(|tx| tenants::create(tx, "acme", NOW)).await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })));
    let found = f.read(|tx| tenants::get_by_name(tx, "acme")).await.unwrap();
    assert_eq!(found.id, made);
    assert_eq!(f.read(move |tx| tenants::get(tx, &made)).await, found);
    assert_eq!(f.read(|tx| tenants::get_by_name(tx, "other")).await, None);
}
