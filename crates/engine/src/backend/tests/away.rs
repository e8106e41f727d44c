//! The database is away for a while: what must not be lost waits for it, everything else says so.

use super::*;

/// A database of which one kind of thread is held up; what it is asked meanwhile is refused as busy.
struct Jam {
    free: std::sync::mpsc::Sender<()>,
    waiting: tokio::task::JoinSet<()>,
}

/// Whose thread is held up.
#[derive(Clone, Copy)]
enum Thread {
    Writer,
    Reader,
}

impl Jam {
    /// Occupies the thread, and the one place in its queue.
    async fn new(db: &Db, thread: Thread) -> Self {
        let (free, freed) = std::sync::mpsc::channel::<()>();
        let (busy, is_busy) = tokio::sync::oneshot::channel::<()>();
        let mut waiting = tokio::task::JoinSet::new();
        let first = db.clone();
        waiting.spawn(async move {
            let hold = move || {
                drop(busy);
                // Ends with the sender.
                let _released = freed.recv();
            };
            thread.run(&first, hold).await.unwrap();
        });
        assert!(is_busy.await.is_err());
        let second = db.clone();
        waiting.spawn(async move { thread.run(&second, || {}).await.unwrap() });
        // It runs until it waits.
        tokio::task::yield_now().await;
        let third = thread.run(db, || {}).await;
        assert!(matches!(third, Err(StoreError::Busy)), "{third:?}");
        Self { free, waiting }
    }

    async fn end(self) {
        drop(self.free);
        self.waiting.join_all().await;
    }
}

impl Thread {
    async fn run(
        self,
        db: &Db,
        work: impl FnOnce() + Send + 'static,
    ) -> std::result::Result<(), StoreError> {
        let work = move |_: &mut Tx<'_>| {
            work();
            Ok(())
        };
        match self {
            Self::Writer => db.write(work).await,
            Self::Reader => db.read(work).await,
        }
    }
}

fn is_busy(error: &LibraryError) -> bool {
    let LibraryError::Database(source) = error else {
        return false;
    };
    matches!(source.downcast_ref(), Some(StoreError::Busy))
}

async fn jammed() -> (Bench, Jam) {
    let bench = Bench::with(|options| {
        options.queue_max = 1;
        options.queue_wait = Duration::from_millis(1);
    })
    .await;
    let jam = Jam::new(&bench.db, Thread::Writer).await;
    (bench, jam)
}

/// Goes on with a write until another one, begun later, was refused; gives what came of it by then.
async fn begun<F: Future + Unpin>(bench: &Bench, write: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = write => Some(output),
        // Other writes have somebody who tries them again.
        other = bench.backend.put_group_metadata("g@g.us", b"blob") => {
            assert!(other.as_ref().is_err_and(is_busy), "{other:?}");
            None
        }
    }
}

#[tokio::test]
async fn a_decrypted_message_waits_until_the_database_is_back() {
    let (bench, jam) = jammed().await;
    let rows = [row("A"), row("B")];
    let mut stored = bench.backend.store_pending_inbound_batch(&rows);
    let early = begun(&bench, &mut stored).await;
    assert!(early.is_none(), "{early:?}");
    // Nor is a session stored that is past them.
    let session = bench.backend.put_session("628@s.whatsapp.net:1", b"past");
    assert!(session.await.is_err());
    jam.end().await;
    stored.await.unwrap();
    let session = bench.backend.put_session("628@s.whatsapp.net:1", b"past");
    session.await.unwrap();
    let bench = bench.reopened().await;
    for id in ["A", "B"] {
        assert!(is_pending(&bench.backend, id).await, "{id}");
    }
}

/// The library tells WhatsApp to drop a message whose keys cannot be read.
#[tokio::test]
async fn keys_are_waited_for_while_the_database_is_away() {
    let bench = Bench::with(|options| {
        options.readers = 1;
        options.queue_max = 1;
        options.queue_wait = Duration::from_millis(1);
    })
    .await;
    let store = &bench.backend;
    let (peer, other) = ("628@s.whatsapp.net:1", "629@s.whatsapp.net:1");
    store.put_session(peer, b"session").await.unwrap();
    store.put_identity(other, [7; 32]).await.unwrap();
    store.put_sender_key("g|628", b"sender").await.unwrap();
    store.store_prekey(1, b"prekey", true).await.unwrap();
    store.store_signed_prekey(2, b"signed").await.unwrap();

    let jam = Jam::new(&bench.db, Thread::Reader).await;
    let all = async {
        tokio::join!(
            store.get_session(peer),
            store.has_session(other),
            store.load_identity(other),
            store.get_sender_key("g|628"),
            store.load_prekey(1),
            store.load_signed_prekey(2),
        )
    };
    let mut all = std::pin::pin!(all);
    // Another read has nobody who tries it again.
    tokio::select! {
        biased;
        early = &mut all => panic!("{early:?}"),
        read = store.get_group_metadata("g@g.us") => assert!(read.is_err_and(|error| is_busy(&error))),
    }
    jam.end().await;
    let (session, there, identity, sender, prekey, signed) = all.await;
    assert_eq!(session.unwrap().as_deref(), Some(&b"session"[..]));
    assert!(!there.unwrap());
    assert_eq!(identity.unwrap(), Some([7; 32]));
    assert_eq!(sender.unwrap().as_deref(), Some(&b"sender"[..]));
    assert_eq!(prekey.unwrap().as_deref(), Some(&b"prekey"[..]));
    assert_eq!(signed.unwrap().as_deref(), Some(&b"signed"[..]));

    let jam = Jam::new(&bench.db, Thread::Reader).await;
    bench.backend.close();
    assert!(
        store
            .load_prekey(1)
            .await
            .is_err_and(|error| is_busy(&error))
    );
    jam.end().await;
}

#[tokio::test]
async fn nobody_waits_for_the_database_on_behalf_of_a_device_that_has_ended() {
    let (bench, jam) = jammed().await;
    let rows = [row("A")];
    let mut stored = bench.backend.store_pending_inbound_batch(&rows);
    assert!(begun(&bench, &mut stored).await.is_none());
    bench.backend.close();
    let error = stored.await.unwrap_err();
    assert!(is_busy(&error), "{error:?}");
    jam.end().await;
    // The database is back before the device has hung up: what it knows of sessions is past a message
    // that was not kept, so it must not come onto the disk.
    let batch = [(
        Arc::from("628@s.whatsapp.net:1"),
        Bytes::from_static(b"past it"),
    )];
    let store = &bench.backend;
    let refused = store.put_sessions_batch(&batch).await.unwrap_err();
    assert!(is_busy(&refused), "{refused:?}");
    assert!(store.put_session(&batch[0].0, b"past it").await.is_err());
    let bench = bench.reopened().await;
    assert!(!bench.backend.has_session(&batch[0].0).await.unwrap());
    bench.backend.put_sessions_batch(&batch).await.unwrap();
}

#[tokio::test]
async fn a_lost_lease_ends_the_wait_for_the_database() {
    let (bench, jam) = jammed().await;
    let rows = [row("A")];
    let mut stored = bench.backend.store_pending_inbound_batch(&rows);
    assert!(begun(&bench, &mut stored).await.is_none());
    bench.backend.lost().cancel();
    assert!(stored.await.is_err());
    jam.end().await;
}

#[tokio::test]
async fn what_waiting_does_not_cure_is_refused_at_once() {
    let bench = Bench::new().await;
    let later = bench.lease.expires.plus(Duration::from_secs(1));
    let stolen = bench.db.write(move |tx| acquire(tx, "two", later)).await;
    assert_eq!(stolen.unwrap().session, bench.lease.session);
    let refused = bench.backend.store_pending_inbound_batch(&[row("A")]).await;
    assert!(refused.is_err());
    assert!(bench.backend.lost().is_cancelled());
}

#[tokio::test]
async fn what_was_not_committed_is_asked_for_when_the_database_is_back() {
    let (bench, jam) = jammed().await;
    let store = &bench.backend;
    store.owe_inbound();
    assert!(
        !store.wants_redelivery().await,
        "nothing can be written yet"
    );
    jam.end().await;
    assert!(store.wants_redelivery().await);
    assert!(!store.wants_redelivery().await, "it was asked for already");
}
