//! Work that is carried to its end, whether or not somebody waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The work panicked.
#[derive(Debug, thiserror::Error)]
#[error("a task panicked")]
pub(crate) struct Panicked;

/// A future that goes on in a task of its own when it is dropped before its end.
///
/// A task from the beginning would do the same; this one costs no task, and no change of thread, as long as
/// somebody waits, which is nearly always. It counts as one of the tracker's tasks from the beginning.
pub(crate) struct Unbroken<T: 'static> {
    work: Work<T>,
    tasks: TaskTrackerToken,
}

enum Work<T: 'static> {
    /// With whoever polls it.
    Here(Pin<Box<dyn Future<Output = T> + Send>>),
    Task(JoinHandle<T>),
    Ended,
}

impl<T: Send + 'static> Unbroken<T> {
    pub(crate) fn new(tasks: &TaskTracker, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            work: Work::Here(Box::pin(work)),
            tasks: tasks.token(),
        }
    }

    /// Goes on in a task from now on: for whoever waits for other things too, on which it may depend.
    pub(crate) fn go_on_alone(&mut self) {
        self.work = match std::mem::replace(&mut self.work, Work::Ended) {
            Work::Here(work) => Work::Task(self.tasks.task_tracker().spawn(work)),
            other => other,
        };
    }
}

impl<T: 'static> Future for Unbroken<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = match &mut self.work {
            Work::Here(work) => match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(value)) => Ok(value),
                Err(_) => Err(Panicked),
            },
            Work::Task(task) => ready!(Pin::new(task).poll(cx)).map_err(|_| Panicked),
            Work::Ended => Err(Panicked),
        };
        self.work = Work::Ended;
        Poll::Ready(ended)
    }
}

impl<T: 'static> Drop for Unbroken<T> {
    fn drop(&mut self) {
        // With no runtime the process is about to end, and tasks are not carried on either.
        if let Work::Here(work) = std::mem::replace(&mut self.work, Work::Ended)
            && let Ok(runtime) = Handle::try_current()
        {
            let work = async move { drop(work.await) };
            self.tasks.task_tracker().spawn_on(work, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn what_is_awaited_to_its_end_gives_its_value_and_counts_no_more() {
        let tasks = TaskTracker::new();
        let work = Unbroken::new(&tasks, async { 7 });
        assert_eq!(tasks.len(), 1);
        assert_eq!(work.await.unwrap(), 7);
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_goes_on_and_counts_until_its_end() {
        let tasks = TaskTracker::new();
        let (release, released) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let mut work = Unbroken::new(&tasks, async move {
            released.await.ok();
            done.send(()).ok();
        });
        assert!(poll_once(&mut work).is_pending());
        drop(work);
        assert_eq!(tasks.len(), 1);
        tasks.close();
        release.send(()).unwrap();
        timeout(SOON, tasks.wait()).await.unwrap();
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn what_was_never_polled_is_carried_out_too() {
        let tasks = TaskTracker::new();
        let (done, is_done) = oneshot::channel();
        drop(Unbroken::new(&tasks, async move { done.send(()).ok() }));
        timeout(SOON, is_done).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_goes_on_alone_needs_nobody_to_poll_it_and_gives_its_value() {
        let tasks = TaskTracker::new();
        let (done, is_done) = oneshot::channel();
        let mut work = Unbroken::new(&tasks, async {
            done.send(()).ok();
            7
        });
        work.go_on_alone();
        timeout(SOON, is_done).await.unwrap().unwrap();
        assert_eq!(work.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        for alone in [false, true] {
            let tasks = TaskTracker::new();
            let mut work = Unbroken::<()>::new(&tasks, async { panic!("a test of a panic") });
            if alone {
                work.go_on_alone();
            }
            assert!((&mut work).await.is_err());
            drop(work);
            tasks.close();
            timeout(SOON, tasks.wait()).await.unwrap();
        }
    }

    fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(future).poll(&mut cx)
    }
}
