//! Wake-ups between tasks and processes: ids only, and any of them may be lost.
//!
//! Whoever hears one looks in the database, and ticks find what a lost wake-up left. A waiter subscribes
//! before it writes, so that the answer cannot come too early. `local` serves one process, `postgres`
//! (LISTEN/NOTIFY) several.

mod postgres;

use std::fmt;
use std::sync::Arc;

use tokio::sync::broadcast;
use wagate_domain::{MessageId, SessionId, TenantId};

use crate::error::StoreError;
use postgres::Remote;

/// Wake-ups that a slow subscriber may fall behind before it misses some.
const BACKLOG: usize = 4096;

/// Something changed; look at it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BusMessage {
    /// The session has a message to send.
    QueueReady { session: SessionId },
    /// What was observed of the session changed.
    SessionChanged { session: SessionId },
    /// What is wanted of the session changed.
    DesiredChanged { session: SessionId },
    /// No attempt to send the message will follow, or a request changed its fate: who waits for it looks.
    MessageSettled { message: MessageId },
    /// The tenant's outbox grew.
    EventsAppended { tenant: TenantId },
}

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Message(BusMessage),
    /// Some were lost, because the subscriber was slow or the bus was away: look at everything.
    Missed,
    /// The bus was closed; nothing will come.
    Closed,
}

/// The bus; cheap to clone.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    speaker: Speaker,
    remote: Option<Remote>,
}

/// The process's own side of the bus.
#[derive(Clone, Debug)]
struct Speaker {
    all: broadcast::Sender<Heard>,
    /// Orders alone: a message makes several times as much news as orders, and those who carry orders out
    /// need not be woken by it.
    orders: broadcast::Sender<Heard>,
}

impl Speaker {
    fn new() -> Self {
        Self {
            all: broadcast::Sender::new(BACKLOG),
            orders: broadcast::Sender::new(BACKLOG),
        }
    }

    fn say(&self, heard: Heard) {
        let news = matches!(&heard, Heard::Message(message) if !message.is_order());
        // An error means that nobody listens.
        if !news {
            self.orders.send(heard.clone()).ok();
        }
        self.all.send(heard).ok();
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("remote", &self.0.remote.is_some())
            .finish()
    }
}

impl Bus {
    /// A bus within this process.
    pub fn local() -> Self {
        Self(Arc::new(Inner {
            speaker: Speaker::new(),
            remote: None,
        }))
    }

    /// A bus over PostgreSQL's LISTEN/NOTIFY, for all processes on one schema. It connects in the
    /// background, and again after a loss; subscribers then hear [`Heard::Missed`].
    pub fn postgres(url: &str) -> Result<Self, StoreError> {
        let speaker = Speaker::new();
        let remote = Remote::start(url, speaker.clone())?;
        Ok(Self(Arc::new(Inner {
            speaker,
            remote: Some(remote),
        })))
    }

    /// Tells all subscribers, here at once and elsewhere soon. Never blocks; may lose.
    pub fn publish(&self, message: BusMessage) {
        if let Some(remote) = &self.0.remote {
            remote.publish(message.clone());
        }
        self.0.speaker.say(Heard::Message(message));
    }

    /// Hears everything published from now on.
    pub fn subscribe(&self) -> BusReceiver {
        BusReceiver(self.0.speaker.all.subscribe())
    }

    /// Hears of work from now on: [`BusMessage::QueueReady`] and [`BusMessage::DesiredChanged`].
    pub fn subscribe_to_orders(&self) -> BusReceiver {
        BusReceiver(self.0.speaker.orders.subscribe())
    }

    /// Ends the connections; subscribers hear [`Heard::Closed`].
    pub async fn close(&self) {
        self.0.speaker.say(Heard::Closed);
        if let Some(remote) = &self.0.remote {
            remote.close().await;
        }
    }
}

/// A subscription.
#[derive(Debug)]
pub struct BusReceiver(broadcast::Receiver<Heard>);

impl BusReceiver {
    /// The next wake-up. Dropping the future loses none.
    pub async fn recv(&mut self) -> Heard {
        match self.0.recv().await {
            Ok(heard) => heard,
            Err(broadcast::error::RecvError::Lagged(_)) => Heard::Missed,
            Err(broadcast::error::RecvError::Closed) => Heard::Closed,
        }
    }
}

impl BusMessage {
    /// It says what is to be done, not what was.
    fn is_order(&self) -> bool {
        match self {
            Self::QueueReady { .. } | Self::DesiredChanged { .. } => true,
            Self::SessionChanged { .. }
            | Self::MessageSettled { .. }
            | Self::EventsAppended { .. } => false,
        }
    }

    /// One line of a notification.
    fn to_line(&self) -> String {
        match self {
            Self::QueueReady { session } => format!("q {session}"),
            Self::SessionChanged { session } => format!("s {session}"),
            Self::DesiredChanged { session } => format!("d {session}"),
            Self::MessageSettled { message } => format!("m {message}"),
            Self::EventsAppended { tenant } => format!("e {tenant}"),
        }
    }

    /// Nothing for a line of a newer version.
    fn from_line(line: &str) -> Option<Self> {
        let (kind, id) = line.split_once(' ')?;
        let session = || SessionId::parse(id).ok();
        Some(match kind {
            "q" => Self::QueueReady {
                session: session()?,
            },
            "s" => Self::SessionChanged {
                session: session()?,
            },
            "d" => Self::DesiredChanged {
                session: session()?,
            },
            "m" => Self::MessageSettled {
                message: MessageId::parse(id).ok()?,
            },
            "e" => Self::EventsAppended {
                tenant: TenantId::parse(id).ok()?,
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back_and_strange_ones_are_ignored() {
        let (session, message) = (SessionId::generate(), MessageId::generate());
        for sent in [
            BusMessage::QueueReady {
                session: session.clone(),
            },
            BusMessage::SessionChanged {
                session: session.clone(),
            },
            BusMessage::DesiredChanged { session },
            BusMessage::MessageSettled { message },
            BusMessage::EventsAppended {
                tenant: TenantId::generate(),
            },
        ] {
            assert_eq!(BusMessage::from_line(&sent.to_line()), Some(sent));
        }
        assert_eq!(BusMessage::from_line("z ses_1"), None);
        assert_eq!(BusMessage::from_line("q ten_1"), None);
    }

    #[tokio::test]
    async fn every_subscriber_hears_and_a_slow_one_is_told() {
        let bus = Bus::local();
        let (mut first, mut slow) = (bus.subscribe(), bus.subscribe());
        let message = BusMessage::EventsAppended {
            tenant: TenantId::generate(),
        };
        bus.publish(message.clone());
        assert_eq!(first.recv().await, Heard::Message(message.clone()));
        for _ in 0..=BACKLOG {
            bus.publish(message.clone());
        }
        assert_eq!(slow.recv().await, Heard::Missed);
        assert_eq!(slow.recv().await, Heard::Message(message));
        bus.close().await;
    }

    #[tokio::test]
    async fn who_carries_out_orders_hears_nothing_else() {
        let bus = Bus::local();
        let mut orders = bus.subscribe_to_orders();
        let session = SessionId::generate();
        for news in [
            BusMessage::EventsAppended {
                tenant: TenantId::generate(),
            },
            BusMessage::MessageSettled {
                message: MessageId::generate(),
            },
            BusMessage::SessionChanged {
                session: session.clone(),
            },
        ] {
            bus.publish(news);
        }
        let sent = [
            BusMessage::QueueReady {
                session: session.clone(),
            },
            BusMessage::DesiredChanged { session },
        ];
        for order in &sent {
            bus.publish(order.clone());
        }
        for order in sent {
            assert_eq!(orders.recv().await, Heard::Message(order));
        }
        bus.close().await;
        assert_eq!(orders.recv().await, Heard::Closed);
    }
}
