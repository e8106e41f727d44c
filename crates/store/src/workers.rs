use wagate_domain::{Timestamp, WorkerId};
use crate::{db::Tx, error::StoreError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWorker { pub id: WorkerId, pub endpoint: Option<String>, pub sessions_max: u32, pub version: String, pub environment: String }
#[derive(Clone, Debug, PartialEq)]
pub struct Worker { pub id: WorkerId, pub endpoint: Option<String>, pub sessions_max: u32, pub version: String, pub environment: String, pub status: String, pub metrics: serde_json::Value, pub started_at: Timestamp, pub heartbeat_at: Timestamp }
pub fn register(_tx: &mut Tx<'_>, _new: &NewWorker, _now: Timestamp) -> Result<(), StoreError> { todo!() }
pub fn heartbeat(_tx: &mut Tx<'_>, _id: &WorkerId, _status: &str, _metrics: &serde_json::Value, _now: Timestamp) -> Result<(), StoreError> { todo!() }
pub fn get(_tx: &mut Tx<'_>, _id: &WorkerId) -> Result<Worker, StoreError> { todo!() }
pub fn list(_tx: &mut Tx<'_>) -> Result<Vec<Worker>, StoreError> { todo!() }
pub fn remove(_tx: &mut Tx<'_>, _id: &WorkerId) -> Result<(), StoreError> { todo!() }
