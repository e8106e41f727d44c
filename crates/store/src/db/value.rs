//! Parameters and columns: integers, texts and bytes, the same on both databases.

use std::borrow::Cow;
use std::error::Error;
use std::str::FromStr;

use bytes::BytesMut;
use postgres::types::{IsNull, ToSql, Type};
use rusqlite::types::{ToSqlOutput, ValueRef};
use serde::de::DeserializeOwned;
use wagate_domain::{
    ApiKeyId, EventSeq, FencingToken, Jid, MessageId, SessionId, SessionName, TenantId, Timestamp,
    WaMessageId, WorkerId,
};

use super::sqlite;
use crate::error::StoreError;

/// A parameter of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

/// Makes `&[Value]` from expressions.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::db::Value::from($value)),*] as &[$crate::db::Value<'_>] };
}
pub(crate) use params;

macro_rules! from_int {
    ($($type:ty),*) => {$(
        impl From<$type> for Value<'_> {
            fn from(value: $type) -> Self {
                Self::Int(i64::from(value))
            }
        }
    )*};
}
from_int!(i64, u32, u8, bool);

macro_rules! from_id {
    ($($type:ty),*) => {$(
        impl<'a> From<&'a $type> for Value<'a> {
            fn from(value: &'a $type) -> Self {
                Self::Text(Cow::Borrowed(value.as_str()))
            }
        }
    )*};
}
from_id!(
    ApiKeyId,
    MessageId,
    SessionId,
    SessionName,
    TenantId,
    WaMessageId,
    WorkerId,
    String
);

impl From<Timestamp> for Value<'_> {
    fn from(value: Timestamp) -> Self {
        Self::Int(value.as_millis())
    }
}

impl From<FencingToken> for Value<'_> {
    fn from(value: FencingToken) -> Self {
        Self::Int(value.0)
    }
}

impl From<EventSeq> for Value<'_> {
    fn from(value: EventSeq) -> Self {
        Self::Int(value.0)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Cow::Borrowed(value))
    }
}

impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Text(Cow::Owned(value))
    }
}

impl From<&Jid> for Value<'_> {
    fn from(value: &Jid) -> Self {
        Self::Text(Cow::Owned(value.to_string()))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(value))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(Cow::Owned(value))
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(value) if *ty == Type::INT4 => i32::try_from(*value)?.to_sql(ty, out),
            Self::Int(value) => value.to_sql(ty, out),
            Self::Text(value) => value.as_ref().to_sql(ty, out),
            Self::Bytes(value) => value.as_ref().to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    postgres::types::to_sql_checked!();
}

/// A row of an answer, valid while it is being read.
#[derive(Clone, Copy)]
pub(crate) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r postgres::Row),
}

impl<'r> Row<'r> {
    pub(crate) fn opt_int(self, column: usize) -> Result<Option<i64>, StoreError> {
        match self {
            Self::Sqlite(row) => match row.get_ref(column).map_err(sqlite::error)? {
                ValueRef::Null => Ok(None),
                ValueRef::Integer(value) => Ok(Some(value)),
                _ => Err(wrong_type(column)),
            },
            Self::Postgres(row) => row.try_get(column).map_err(|_| wrong_type(column)),
        }
    }

    pub(crate) fn opt_text(self, column: usize) -> Result<Option<&'r str>, StoreError> {
        match self {
            Self::Sqlite(row) => match row.get_ref(column).map_err(sqlite::error)? {
                ValueRef::Null => Ok(None),
                ValueRef::Text(value) => std::str::from_utf8(value)
                    .map(Some)
                    .map_err(|_| wrong_type(column)),
                _ => Err(wrong_type(column)),
            },
            Self::Postgres(row) => row.try_get(column).map_err(|_| wrong_type(column)),
        }
    }

    pub(crate) fn opt_bytes(self, column: usize) -> Result<Option<&'r [u8]>, StoreError> {
        match self {
            Self::Sqlite(row) => match row.get_ref(column).map_err(sqlite::error)? {
                ValueRef::Null => Ok(None),
                ValueRef::Blob(value) => Ok(Some(value)),
                _ => Err(wrong_type(column)),
            },
            Self::Postgres(row) => row.try_get(column).map_err(|_| wrong_type(column)),
        }
    }

    pub(crate) fn int(self, column: usize) -> Result<i64, StoreError> {
        self.opt_int(column)?.ok_or_else(|| wrong_type(column))
    }

    pub(crate) fn text(self, column: usize) -> Result<&'r str, StoreError> {
        self.opt_text(column)?.ok_or_else(|| wrong_type(column))
    }

    pub(crate) fn bytes(self, column: usize) -> Result<&'r [u8], StoreError> {
        self.opt_bytes(column)?.ok_or_else(|| wrong_type(column))
    }

    pub(crate) fn flag(self, column: usize) -> Result<bool, StoreError> {
        Ok(self.int(column)? != 0)
    }

    /// A number that cannot be negative.
    pub(crate) fn count(self, column: usize) -> Result<u64, StoreError> {
        u64::try_from(self.int(column)?).map_err(|_| wrong_type(column))
    }

    pub(crate) fn small(self, column: usize) -> Result<u32, StoreError> {
        u32::try_from(self.int(column)?).map_err(|_| wrong_type(column))
    }

    pub(crate) fn time(self, column: usize) -> Result<Timestamp, StoreError> {
        self.int(column).map(Timestamp::from_millis)
    }

    pub(crate) fn opt_time(self, column: usize) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.opt_int(column)?.map(Timestamp::from_millis))
    }

    pub(crate) fn string(self, column: usize) -> Result<String, StoreError> {
        self.text(column).map(str::to_owned)
    }

    pub(crate) fn opt_string(self, column: usize) -> Result<Option<String>, StoreError> {
        Ok(self.opt_text(column)?.map(str::to_owned))
    }

    /// A text that reads back as `T`.
    pub(crate) fn parse<T: FromStr>(self, column: usize) -> Result<T, StoreError> {
        self.text(column)?.parse().map_err(|_| wrong_type(column))
    }

    pub(crate) fn opt_parse<T: FromStr>(self, column: usize) -> Result<Option<T>, StoreError> {
        match self.opt_text(column)? {
            Some(text) => text.parse().map(Some).map_err(|_| wrong_type(column)),
            None => Ok(None),
        }
    }

    /// A JSON text that reads back as `T`.
    pub(crate) fn json<T: DeserializeOwned>(self, column: usize) -> Result<T, StoreError> {
        serde_json::from_str(self.text(column)?).map_err(|_| wrong_type(column))
    }

    pub(crate) fn opt_json<T: DeserializeOwned>(
        self,
        column: usize,
    ) -> Result<Option<T>, StoreError> {
        match self.opt_text(column)? {
            Some(text) => serde_json::from_str(text)
                .map(Some)
                .map_err(|_| wrong_type(column)),
            None => Ok(None),
        }
    }

    pub(crate) fn wa_id(self, column: usize) -> Result<WaMessageId, StoreError> {
        WaMessageId::parse(self.text(column)?).map_err(|_| wrong_type(column))
    }

    pub(crate) fn worker(self, column: usize) -> Result<WorkerId, StoreError> {
        WorkerId::parse(self.text(column)?).map_err(|_| wrong_type(column))
    }
}

fn wrong_type(column: usize) -> StoreError {
    StoreError::corrupt(format!("column {column} of an answer"))
}
