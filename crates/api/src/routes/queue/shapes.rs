//! What the queue's routes take and show: jobs, figures, settings, and what was changed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wagate_app::queue::success_rate;
use wagate_app::{
    Changed, Clear, DeadLetter, Job, JobState, QueueConfig, QueueFigures, QueueStanding,
    SessionQueue, TenantQueue,
};
use wagate_domain::{SessionName, Timestamp};

use crate::extract::given;
use crate::shapes::MessageOut;

/// Where a message stands in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobWord {
    /// Due, or behind another message of its chat.
    Waiting,
    /// Being sent.
    Active,
    /// Waits for another attempt.
    Delayed,
    /// Waits for the time for which it was scheduled.
    Scheduled,
    /// Failed or expired.
    Failed,
}

impl From<JobState> for JobWord {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Waiting => Self::Waiting,
            JobState::Active => Self::Active,
            JobState::Delayed => Self::Delayed,
            JobState::Scheduled => Self::Scheduled,
        }
    }
}

impl JobWord {
    /// None for what is not in the queue any more.
    pub(super) fn state(self) -> Option<JobState> {
        match self {
            Self::Waiting => Some(JobState::Waiting),
            Self::Active => Some(JobState::Active),
            Self::Delayed => Some(JobState::Delayed),
            Self::Scheduled => Some(JobState::Scheduled),
            Self::Failed => None,
        }
    }
}

/// A message in its queue, or one that failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobOut {
    #[serde(flatten)]
    pub(crate) message: MessageOut,
    pub(crate) state: JobWord,
    /// When it may go out, for what waits for a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub(crate) due_at: Option<String>,
    /// Why it failed; `expired` for one that expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "recipient_not_registered")]
    pub(crate) code: Option<String>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// When it failed or expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub(crate) failed_at: Option<String>,
}

impl From<Job> for JobOut {
    fn from(job: Job) -> Self {
        let waits_for_time = matches!(job.state, JobState::Delayed | JobState::Scheduled);
        Self {
            due_at: waits_for_time.then(|| job.due.to_string()),
            state: job.state.into(),
            message: job.message.into(),
            code: None,
            reason: None,
            failed_at: None,
        }
    }
}

impl From<DeadLetter> for JobOut {
    fn from(dead: DeadLetter) -> Self {
        let reason = match &dead.message.failure {
            Some(failure) => failure.reason.clone(),
            None => "the message expired before it was sent".to_owned(),
        };
        Self {
            state: JobWord::Failed,
            due_at: None,
            code: Some(dead.code),
            reason: Some(reason),
            failed_at: Some(dead.at.to_string()),
            message: dead.message.into(),
        }
    }
}

/// Which failed messages are to be tried again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetryFailedIn {
    /// One session; without, all that take messages.
    #[schema(value_type = Option<String>, example = "user123-personal")]
    pub(super) session: Option<SessionName>,
    /// Only what failed with this code, such as `unconfirmed` or `expired`.
    #[schema(example = "unconfirmed")]
    pub(super) code: Option<String>,
}

/// How far a change of many messages came.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangedOut {
    /// Messages that were changed.
    pub(crate) count: u32,
    /// Sessions that were left out, since they take no messages at present.
    pub(crate) skipped_sessions: u32,
    /// True: the bound of one request is reached and something is left; ask again.
    pub(crate) more: bool,
}

impl From<Changed> for ChangedOut {
    fn from(changed: Changed) -> Self {
        Self {
            count: changed.count,
            skipped_sessions: changed.skipped_sessions,
            more: changed.more,
        }
    }
}

/// What can be cleared.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClearWord {
    /// Everything that waits: `waiting`, `delayed` and `scheduled`.
    #[default]
    All,
    Waiting,
    Delayed,
    Scheduled,
    /// What failed or expired; it is deleted.
    Failed,
}

impl From<ClearWord> for Clear {
    fn from(word: ClearWord) -> Self {
        match word {
            ClearWord::All => Self::AllWaiting,
            ClearWord::Waiting => Self::Only(JobState::Waiting),
            ClearWord::Delayed => Self::Only(JobState::Delayed),
            ClearWord::Scheduled => Self::Only(JobState::Scheduled),
            ClearWord::Failed => Self::Dead,
        }
    }
}

/// What is to be cleared.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClearIn {
    /// One session; without, all of them.
    #[schema(value_type = Option<String>, example = "user123-personal")]
    pub(super) session: Option<SessionName>,
    #[schema(inline)]
    pub(super) state: ClearWord,
}

/// The figures of one or of several queues.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FiguresOut {
    /// Being sent.
    pub(crate) active: u64,
    /// Due, or behind another message of its chat.
    pub(crate) waiting: u64,
    /// Waiting for another attempt.
    pub(crate) delayed: u64,
    /// Waiting for the time for which they were scheduled.
    pub(crate) scheduled: u64,
    /// All that wait: `waiting`, `delayed` and `scheduled`.
    pub(crate) pending: u64,
    /// Ended failed, and neither retried nor deleted since.
    pub(crate) failed: u64,
    /// Acknowledged by WhatsApp.
    pub(crate) completed: u64,
    /// `completed` of `completed` and `failed`, in percent; `null` before anything ended.
    pub(crate) success_rate: Option<f64>,
    /// How long the oldest one has been due that waits, in seconds.
    pub(crate) oldest_waiting_seconds: Option<u64>,
}

impl FiguresOut {
    pub(crate) fn new(queue: &TenantQueue, now: Timestamp) -> Self {
        Self {
            active: queue.active,
            waiting: queue.waiting,
            delayed: queue.delayed,
            scheduled: queue.scheduled,
            pending: queue.waiting + queue.delayed + queue.scheduled,
            failed: queue.failed,
            completed: queue.completed,
            success_rate: success_rate(queue),
            oldest_waiting_seconds: queue.oldest.map(|since| now.since(since).as_secs()),
        }
    }
}

/// What a queue is doing.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StandingWord {
    Processing,
    /// There is nothing to send.
    Idle,
    /// There is something to send, and the session is not connected.
    Held,
    /// Nothing goes out, as was asked.
    Paused,
}

impl From<QueueStanding> for StandingWord {
    fn from(standing: QueueStanding) -> Self {
        match standing {
            QueueStanding::Processing => Self::Processing,
            QueueStanding::Idle => Self::Idle,
            QueueStanding::Held => Self::Held,
            QueueStanding::Paused => Self::Paused,
        }
    }
}

/// One session's queue.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SessionQueueOut {
    #[schema(example = "user123-personal")]
    session_id: String,
    status: StandingWord,
    /// Messages on their way at once, at most.
    concurrency: u32,
    paused: bool,
    #[serde(flatten)]
    figures: FiguresOut,
}

/// Figures over all sessions, and those of each.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatsOut {
    /// Over all sessions, whatever the page shows.
    total: FiguresOut,
    /// In force where a session has no setting of its own.
    concurrency: u32,
    sessions: Vec<SessionQueueOut>,
}

impl StatsOut {
    pub(super) fn new(figures: &QueueFigures, now: Timestamp) -> Self {
        let one = |found: &SessionQueue| SessionQueueOut {
            session_id: found.name.to_string(),
            status: QueueStanding::of(found).into(),
            concurrency: found.settings.concurrency.unwrap_or(figures.concurrency),
            paused: found.settings.paused,
            figures: FiguresOut::new(&found.queue, now),
        };
        Self {
            total: FiguresOut::new(&figures.total, now),
            concurrency: figures.concurrency,
            sessions: figures.sessions.items.iter().map(one).collect(),
        }
    }
}

/// How a queue works.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigOut {
    /// `null`: what counts for all sessions that have no setting of their own.
    #[schema(example = "user123-personal")]
    pub(crate) session_id: Option<String>,
    /// Messages on their way at once, at most; in one chat always one.
    #[schema(example = 3)]
    pub(crate) concurrency: u32,
    /// What is set here; `null` where the next wider setting counts.
    pub(crate) configured: Option<u32>,
    /// Nothing goes out.
    pub(crate) paused: bool,
}

impl From<QueueConfig> for ConfigOut {
    fn from(config: QueueConfig) -> Self {
        Self {
            session_id: config.session.map(|name| name.to_string()),
            concurrency: config.concurrency,
            configured: config.set.concurrency,
            paused: config.set.paused,
        }
    }
}

/// What is to be changed; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConfigIn {
    /// One session; without, all that have no setting of their own.
    #[schema(value_type = Option<String>, example = "user123-personal")]
    pub(super) session: Option<SessionName>,
    /// Messages on their way at once, at most; `null` takes the setting back.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 20, example = 3)]
    pub(super) concurrency: Option<Option<u32>>,
    /// Nothing goes out while this is true; needs a session.
    pub(super) paused: Option<bool>,
}
