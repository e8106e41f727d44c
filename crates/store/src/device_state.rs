//! The engine's state: opaque values by session, kind and key; sealed, and written under the lease.
//!
//! SL-2: a write is durable when it returns, and refused once another worker holds the session. Keys are
//! readable, since they are looked up by prefix; a value is bound to its place by the seal.

use std::collections::HashMap;

use wagate_domain::SessionId;

use crate::db::{Tx, Value, params};
use crate::error::StoreError;
use crate::leases::Lease;
use crate::seal::Sealer;

/// What a row holds. The engine numbers its kinds and never gives a number a second meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateKind(pub u8);

/// One value to keep. The key is text; bytes go in as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    pub kind: StateKind,
    pub key: String,
    pub value: Vec<u8>,
}

/// Every key and value of the kind, in order of the keys.
pub fn load_all(
    tx: &mut Tx<'_>,
    session: &SessionId,
    kind: StateKind,
) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    scan(tx, session, kind, "")
}

pub fn get(
    tx: &mut Tx<'_>,
    session: &SessionId,
    kind: StateKind,
    key: &str,
) -> Result<Option<Vec<u8>>, StoreError> {
    let sealer = tx.sealer();
    tx.query_opt(
        "SELECT value FROM device_state WHERE session_id = $1 AND kind = $2 AND key = $3",
        params![session, kind.0, key],
        |row| sealer.open(&place(session, kind, key), row.bytes(0)?),
    )
}

/// The keys that exist, with their values, in no order.
pub fn get_many(
    tx: &mut Tx<'_>,
    session: &SessionId,
    kind: StateKind,
    keys: &[String],
) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let sealer = tx.sealer();
    let wanted: Vec<Value<'_>> = keys.iter().map(Value::from).collect();
    tx.query_keys(
        "SELECT key, value FROM device_state WHERE session_id = $1 AND kind = $2 AND key IN ({})",
        params![session, kind.0],
        &wanted,
        |row| {
            let key = row.text(0)?;
            Ok((
                key.to_owned(),
                sealer.open(&place(session, kind, key), row.bytes(1)?)?,
            ))
        },
    )
}

/// The keys that begin with `prefix`, in order.
pub fn keys(
    tx: &mut Tx<'_>,
    session: &SessionId,
    kind: StateKind,
    prefix: &str,
) -> Result<Vec<String>, StoreError> {
    tx.query(
        "SELECT key FROM device_state WHERE session_id = $1 AND kind = $2 \
         AND key >= $3 AND key < $4 ORDER BY key",
        params![session, kind.0, prefix, end_of(prefix)],
        |row| row.string(0),
    )
}

/// The keys that begin with `prefix`, with their values, in order.
pub fn scan(
    tx: &mut Tx<'_>,
    session: &SessionId,
    kind: StateKind,
    prefix: &str,
) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let sealer = tx.sealer();
    tx.query(
        "SELECT key, value FROM device_state WHERE session_id = $1 AND kind = $2 \
         AND key >= $3 AND key < $4 ORDER BY key",
        params![session, kind.0, prefix, end_of(prefix)],
        |row| {
            let key = row.text(0)?;
            Ok((
                key.to_owned(),
                sealer.open(&place(session, kind, key), row.bytes(1)?)?,
            ))
        },
    )
}

/// Whether there is anything of the kind.
pub fn exists(tx: &mut Tx<'_>, session: &SessionId, kind: StateKind) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM device_state WHERE session_id = $1 AND kind = $2 LIMIT 1";
    Ok(tx
        .query_opt(sql, params![session, kind.0], |_| Ok(()))?
        .is_some())
}

/// Writes values, new or not. Of a key that comes twice the last value stays.
pub fn put_many(tx: &mut Tx<'_>, lease: &Lease, puts: &[Put]) -> Result<(), StoreError> {
    let sealed = seal(tx.sealer(), &lease.session, puts)?;
    put_sealed(tx, lease, &sealed)
}

/// A value that is sealed for its place.
pub(crate) struct SealedPut {
    kind: StateKind,
    key: String,
    value: Vec<u8>,
}

/// As [`put_many`], with values that are sealed already.
pub(crate) fn put_sealed(
    tx: &mut Tx<'_>,
    lease: &Lease,
    rows: &[SealedPut],
) -> Result<(), StoreError> {
    tx.fence(lease)?;
    put_rows(tx, rows.iter().map(|row| (&lease.session, row)))
}

/// Writes rows of sessions whose leases were checked. On PostgreSQL no row may come twice.
pub(crate) fn put_rows<'r>(
    tx: &mut Tx<'_>,
    rows: impl Iterator<Item = (&'r SessionId, &'r SealedPut)>,
) -> Result<(), StoreError> {
    let rows: Vec<Vec<Value<'_>>> = rows
        .map(|(session, row)| params![session, row.kind.0, &row.key, row.value.as_slice()].to_vec())
        .collect();
    tx.insert_rows(
        "INSERT INTO device_state (session_id, kind, key, value)",
        4,
        "ON CONFLICT (session_id, kind, key) DO UPDATE SET value = excluded.value",
        &rows,
    )?;
    Ok(())
}

/// Writes values of keys that exist and leaves the others out, so that it never brings back a row that
/// was deleted.
pub fn update_many(tx: &mut Tx<'_>, lease: &Lease, puts: &[Put]) -> Result<(), StoreError> {
    tx.fence(lease)?;
    for put in seal(tx.sealer(), &lease.session, puts)? {
        tx.execute(
            "UPDATE device_state SET value = $4 WHERE session_id = $1 AND kind = $2 AND key = $3",
            params![&lease.session, put.kind.0, &put.key, put.value],
        )?;
    }
    Ok(())
}

/// Deletes keys; says how many there were.
pub fn delete_many(
    tx: &mut Tx<'_>,
    lease: &Lease,
    kind: StateKind,
    keys: &[String],
) -> Result<u64, StoreError> {
    tx.fence(lease)?;
    let keys: Vec<Value<'_>> = keys.iter().map(Value::from).collect();
    tx.execute_rows(
        "DELETE FROM device_state WHERE session_id = $1 AND kind = $2 AND key IN ({})",
        params![&lease.session, kind.0],
        ("?", 1),
        &keys,
    )
}

/// Deletes everything of a kind.
pub fn delete_kind(tx: &mut Tx<'_>, lease: &Lease, kind: StateKind) -> Result<u64, StoreError> {
    tx.fence(lease)?;
    let sql = "DELETE FROM device_state WHERE session_id = $1 AND kind = $2";
    tx.execute(sql, params![&lease.session, kind.0])
}

/// Deletes all state of the session: after a logout.
pub fn delete_session(tx: &mut Tx<'_>, lease: &Lease) -> Result<u64, StoreError> {
    tx.fence(lease)?;
    tx.execute(
        "DELETE FROM device_state WHERE session_id = $1",
        params![&lease.session],
    )
}

/// Where a pass of [`reseal_some`] goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResealCursor {
    session: String,
    kind: i64,
    key: String,
}

/// Looks at up to `limit` rows behind the cursor, and seals those again that are under a retired key.
/// Gives where to go on; nothing when the end is reached.
///
/// It is not fenced: it changes no content, and a row that its holder writes meanwhile is left alone.
pub fn reseal_some(
    tx: &mut Tx<'_>,
    after: Option<&ResealCursor>,
    limit: u32,
) -> Result<Option<ResealCursor>, StoreError> {
    let (session, kind, key) = after.map_or(("", 0, ""), |cursor| {
        (&cursor.session, cursor.kind, &cursor.key)
    });
    let rows = tx.query(
        "SELECT session_id, kind, key, value FROM device_state \
         WHERE (session_id, kind, key) > ($1, $2, $3) ORDER BY session_id, kind, key LIMIT $4",
        params![session, kind, key, limit],
        |row| {
            let cursor = ResealCursor {
                session: row.string(0)?,
                kind: row.int(1)?,
                key: row.string(2)?,
            };
            Ok((cursor, row.bytes(3)?.to_vec()))
        },
    )?;
    let sealer = tx.sealer();
    for (at, old) in rows.iter().filter(|(_, value)| sealer.is_outdated(value)) {
        let place = place_of(&at.session, at.kind, &at.key);
        let new = sealer.seal(&place, &sealer.open(&place, old)?)?;
        tx.execute(
            "UPDATE device_state SET value = $4 \
             WHERE session_id = $1 AND kind = $2 AND key = $3 AND value = $5",
            params![&at.session, at.kind, &at.key, new, old.as_slice()],
        )?;
    }
    Ok(rows.into_iter().next_back().map(|(cursor, _)| cursor))
}

/// Opens one value, whichever: [`StoreError::Sealed`] means that the master key is not the one with which
/// this database was written. For the start, before anything relies on it.
pub fn probe(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let sealer = tx.sealer();
    let opened = tx.query_opt(
        "SELECT session_id, kind, key, value FROM device_state LIMIT 1",
        params![],
        |row| {
            let place = place_of(row.text(0)?, row.int(1)?, row.text(2)?);
            sealer.open(&place, row.bytes(3)?)
        },
    )?;
    drop(opened);
    Ok(())
}

/// The associated data of the seal: a value copied to another session, kind or key does not open.
fn place(session: &SessionId, kind: StateKind, key: &str) -> Vec<u8> {
    place_of(session.as_str(), i64::from(kind.0), key)
}

fn place_of(session: &str, kind: i64, key: &str) -> Vec<u8> {
    format!("device_state:{session}:{kind}:{key}").into_bytes()
}

/// Seals each value for its place; of a key that comes twice only the last is kept, since one statement
/// cannot write a row twice.
pub(crate) fn seal(
    sealer: &Sealer,
    session: &SessionId,
    puts: &[Put],
) -> Result<Vec<SealedPut>, StoreError> {
    let mut last = HashMap::with_capacity(puts.len());
    for (index, put) in puts.iter().enumerate() {
        last.insert((put.kind, put.key.as_str()), index);
    }
    puts.iter()
        .enumerate()
        .filter(|(index, put)| last.get(&(put.kind, put.key.as_str())) == Some(index))
        .map(|(_, put)| {
            Ok(SealedPut {
                kind: put.kind,
                key: put.key.clone(),
                value: sealer.seal(&place(session, put.kind, &put.key), &put.value)?,
            })
        })
        .collect()
}

/// The first text behind all that begin with `prefix`, in byte order.
fn end_of(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}
