use wagate_domain::{MessageId, SessionId, TenantId};
use crate::error::StoreError;

/// Ids only; whoever hears one looks in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusMessage { QueueReady { session: SessionId }, SessionChanged { session: SessionId }, DesiredChanged { session: SessionId }, MessageChanged { message: MessageId }, EventsAppended { tenant: TenantId } }
/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard { Message(BusMessage), /// Some were lost (too slow, or the bus was away): look at the database.
    Missed, /// The bus is closed.
    Closed }
#[derive(Clone, Debug)]
pub struct Bus;
#[derive(Debug)]
pub struct BusReceiver;
impl Bus {
    /// Within this process.
    pub fn local() -> Self { todo!() }
    /// Over PostgreSQL's LISTEN/NOTIFY, for several processes. Connects in the background and again after a loss.
    pub fn postgres(_url: &str) -> Result<Self, StoreError> { todo!() }
    /// Never blocks; may lose.
    pub fn publish(&self, _message: BusMessage) { todo!() }
    /// Subscribe before the write whose effect is awaited.
    pub fn subscribe(&self) -> BusReceiver { todo!() }
    pub async fn close(&self) { todo!() }
}
impl BusReceiver {
    pub async fn recv(&mut self) -> Heard { todo!() }
}
